package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// Level says what became of a record.
type Level uint8

// The levels, mildest first.
const (
	Warning Level = iota // the record is used; the remark is worth reading
	Cut                  // the record is used, but tokens were cut from it
	Dropped              // the record is left out because an option asks for it
	Bad                  // the record, or the rest of the file, cannot be read
)

var levelNames = [...]string{"warning", "cut", "dropped", "bad"}

// String returns the name of the level.
func (l Level) String() string { return levelNames[l] }

// MarshalText writes the name of the level.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Problem is one entry of a [Ledger]. Line and Record are 0 when the whole file is meant.
type Problem struct {
	Position
	Column int    `json:"column,omitempty"` // byte in the line, from 1
	Level  Level  `json:"level"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy,omitempty"`

	fatal bool // reading of the file cannot go on
}

// Error writes the place, the reason and what to do.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Position.String())
	if p.Line > 0 && p.Column > 0 {
		fmt.Fprintf(&b, ":%d", p.Column)
	}
	if p.Line > 0 && p.Record > 1 && p.Record != p.Line {
		fmt.Fprintf(&b, " (record %d)", p.Record)
	}
	b.WriteString(": ")
	b.WriteString(p.Reason)
	if p.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(p.Remedy)
	}
	return b.String()
}

// Mode says what a bad record does to a run.
type Mode uint8

// The modes.
const (
	Strict Mode = iota // a bad record fails the run, after all of them are listed
	Skip               // bad records are listed and left out
)

// MarshalText writes "strict" or "skip".
func (m Mode) MarshalText() ([]byte, error) {
	if m == Skip {
		return []byte("skip"), nil
	}
	return []byte("strict"), nil
}

// UnmarshalText reads "strict" or "skip".
func (m *Mode) UnmarshalText(text []byte) error {
	switch string(text) {
	case "strict":
		*m = Strict
	case "skip":
		*m = Skip
	default:
		return fmt.Errorf("mode %q: want strict or skip", text)
	}
	return nil
}

// kept is how many problems of one level a ledger holds in memory; the sink gets all of them.
const kept = 10_000

// shown is how many kinds of problems an error message lists.
const shown = 20

// Ledger lists what happened to records that are not used as they stand. It may be used by several goroutines.
type Ledger struct {
	Mode Mode
	Sink io.Writer // if set, gets every problem as a line of JSON

	mu       sync.Mutex
	problems []Problem
	counts   [len(levelNames)]int
	sinkErr  error
}

// Add enters a problem.
func (l *Ledger) Add(p Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[p.Level]++
	if l.counts[p.Level] <= kept {
		l.problems = append(l.problems, p)
	}
	if l.Sink != nil && l.sinkErr == nil {
		line, err := json.Marshal(&p)
		if err == nil {
			_, err = l.Sink.Write(append(line, '\n'))
		}
		l.sinkErr = err
	}
}

// Count returns how many problems of a level there are.
func (l *Ledger) Count(level Level) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[level]
}

// Problems returns the first 10,000 problems of each level, in the order of their coming; Sink has all of them.
func (l *Ledger) Problems() []Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.problems)
}

// Err returns nil, or an [*Error] that lists the bad records if the mode is strict. It also reports that Sink failed,
// since then the list is not complete.
func (l *Ledger) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sinkErr != nil {
		return fmt.Errorf("writing the ledger: %w", l.sinkErr)
	}
	n := l.counts[Bad]
	if l.Mode == Skip || n == 0 {
		return nil
	}
	e := &Error{Total: n}
	for _, p := range l.problems {
		if p.Level == Bad {
			e.Problems = append(e.Problems, p)
		}
	}
	return e
}

// Error is what strict reading ends with: the records that cannot be used.
type Error struct {
	Problems []Problem
	Total    int // may exceed len(Problems)
}

// Error lists the first problems, one a line; those that differ in their place alone share a line.
func (e *Error) Error() string {
	type kind struct{ file, reason, remedy string }
	var order []kind
	same := map[kind][]*Problem{}
	for i := range e.Problems {
		p := &e.Problems[i]
		k := kind{p.File, p.Reason, p.Remedy}
		if same[k] == nil {
			order = append(order, k)
		}
		same[k] = append(same[k], p)
	}
	var b strings.Builder
	told := 0
	for _, k := range order[:min(shown, len(order))] {
		list := same[k]
		told += len(list)
		b.WriteString(list[0].Error())
		if n := len(list) - 1; n > 0 {
			fmt.Fprintf(&b, " (and %d more:", n)
			for _, p := range list[1:min(6, len(list))] {
				fmt.Fprintf(&b, " %s", strings.TrimPrefix(strings.TrimPrefix(p.Position.String(), p.File), ":"))
			}
			if n > 5 {
				b.WriteString(" …")
			}
			b.WriteByte(')')
		}
		b.WriteByte('\n')
	}
	if e.Total > told {
		fmt.Fprintf(&b, "... and %d of other kinds\n", e.Total-told)
	}
	fmt.Fprintf(&b, "%s cannot be used: mend them, or read in mode skip to leave them out and list them", plural(e.Total, "record"))
	return b.String()
}

// Unwrap makes the single problems visible to [errors.As].
func (e *Error) Unwrap() []error {
	errs := make([]error, len(e.Problems))
	for i := range e.Problems {
		errs[i] = &e.Problems[i]
	}
	return errs
}

// problem turns err into a problem: a [*Problem] keeps its fields, anything else becomes the reason.
func problem(pos Position, err error) Problem {
	var p *Problem
	if errors.As(err, &p) {
		q := *p
		if q.File == "" {
			q.Position = pos
		}
		return q
	}
	return Problem{Position: pos, Level: Bad, Reason: err.Error()}
}

// bad makes a problem of a record's content; the reader fills in the position.
func bad(remedy, format string, args ...any) *Problem {
	return &Problem{Level: Bad, Reason: fmt.Sprintf(format, args...), Remedy: remedy}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
