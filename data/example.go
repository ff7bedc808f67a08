package data

import (
	"fmt"
	"slices"

	"tunesmith/internal/nearest"
)

// Example is a record as tokens.
type Example struct {
	IDs    []int32
	Train  []bool  // per token: is it learned, that is, predicted from the tokens before it
	Weight float32 // factor of the loss of its tokens
	Pos    Position
	Task   string

	Cuts   []int   // where further sequences begin that belong to the first but do not see it; see Join
	Label  float32 // of what is compared: the probability that the first answer is the better one; of a judged answer: 1 or 0
	Margin float32 // how much better the first answer is
}

// Supervised returns how many tokens are targets. The first token of an example has nothing before it to be
// predicted from, so it never is one.
func (e Example) Supervised() int {
	n := 0
	for i := 1; i < len(e.Train); i++ {
		if e.Train[i] {
			n++
		}
	}
	return n
}

// Overlength says what happens to an example that is longer than the context.
type Overlength uint8

// The choices for examples that are too long.
const (
	RefuseLong Overlength = iota // it is a bad record
	KeepStart                    // its end is cut off
	KeepEnd                      // its start is cut off
	DropLong                     // it is left out
	SplitLong                    // it becomes several examples
)

var overlengthNames = []string{"error", "keep_start", "keep_end", "drop", "split"}

// String returns the name of the choice.
func (o Overlength) String() string { return overlengthNames[o] }

// MarshalText returns the name of the choice.
func (o Overlength) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the name of a choice.
func (o *Overlength) UnmarshalText(text []byte) error {
	i := slices.Index(overlengthNames, string(text))
	if i < 0 {
		return fmt.Errorf("overlength %q: want one of %q%s", text, overlengthNames, nearest.Hint(string(text), overlengthNames))
	}
	*o = Overlength(i)
	return nil
}

// Fit makes an example fit into limit tokens (0 is no limit). The problem, if there is one, says what became of it;
// an example of which nothing trained is left is not returned.
func Fit(e Example, limit int, o Overlength) ([]Example, *Problem) {
	if len(e.Cuts) > 0 {
		return fitSequences(e, limit, o)
	}
	if e.Supervised() == 0 {
		return nil, &Problem{Position: e.Pos, Level: Bad, Reason: fmt.Sprintf("none of its %s is trained", plural(len(e.IDs), "token")), Remedy: "check the roles and the turns that are trained, or remove the record"}
	}
	n := len(e.IDs)
	if limit <= 0 || n <= limit {
		return []Example{e}, nil
	}
	p := &Problem{Position: e.Pos}
	piece := func(start, end int) Example {
		cut := e
		cut.IDs, cut.Train = e.IDs[start:end:end], e.Train[start:end:end]
		return cut
	}
	var pieces []Example
	switch o {
	case RefuseLong:
		p.Level, p.Reason = Bad, fmt.Sprintf("%d tokens do not fit into %d", n, limit)
		p.Remedy = "raise max_length, or choose overlength: keep_start, keep_end, drop or split"
		return nil, p
	case DropLong:
		p.Level, p.Reason = Dropped, fmt.Sprintf("%d tokens do not fit into %d", n, limit)
		return nil, p
	case KeepStart:
		pieces = []Example{piece(0, limit)}
		p.Reason = fmt.Sprintf("cut from %d tokens to the first %d", n, limit)
	case KeepEnd:
		pieces = []Example{piece(n-limit, n)}
		p.Reason = fmt.Sprintf("cut from %d tokens to the last %d", n, limit)
	case SplitLong:
		for start := 0; start < n; start += limit {
			pieces = append(pieces, piece(start, min(start+limit, n)))
		}
		p.Reason = fmt.Sprintf("split from %d tokens into %d pieces", n, len(pieces))
	}
	p.Level = Cut
	left := 0
	for _, e := range pieces {
		left += e.Supervised()
	}
	if lost := e.Supervised() - left; lost > 0 {
		p.Reason += fmt.Sprintf("; %d of %d trained tokens are lost", lost, e.Supervised())
	}
	whole := len(pieces)
	pieces = slices.DeleteFunc(pieces, func(e Example) bool { return e.Supervised() == 0 })
	switch {
	case len(pieces) == 0:
		p.Level, p.Reason = Dropped, p.Reason+": nothing to train is left"
	case len(pieces) < whole:
		p.Reason += fmt.Sprintf("; %d without a trained token are left out", whole-len(pieces))
	}
	return pieces, p
}
