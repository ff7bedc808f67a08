package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
	"golang.org/x/term"

	"tunesmith/runs"
	"tunesmith/trainer"
)

// terminal reports whether w is a terminal.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) colour(w io.Writer) bool { return terminal(w) && os.Getenv("NO_COLOR") == "" }

// say writes a line for people; with --json it goes to the error stream.
func (a *app) say(format string, args ...any) {
	w := a.out
	if a.json {
		w = a.err
	}
	fmt.Fprintf(w, format+"\n", args...)
}

// result writes a value as JSON.
func (a *app) result(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// progress shows the steps of a run: one line that is rewritten on a terminal, a line now and then elsewhere.
type progress struct {
	app   *app
	last  time.Time
	width int
}

func (p *progress) show(s trainer.Progress) {
	live := terminal(p.app.err)
	done := s.Step == s.Steps
	if wait := time.Since(p.last); !done && len(s.Evals) == 0 && (live && wait < 100*time.Millisecond || !live && wait < 10*time.Second) {
		return
	}
	p.last = time.Now()
	line := fmt.Sprintf("step %d/%d  epoch %.2f  loss %.4f  lr %.2g  %.0f tokens/s  %s left",
		s.Step, s.Steps, s.Epoch, s.Loss, s.LR, s.TokensPerSecond, short(s.Left))
	if loss, ok := s.Evals[runs.Eval]; ok {
		line += fmt.Sprintf("  held-out %.4f", loss)
	}
	if loss, ok := s.Evals[runs.General]; ok {
		line += fmt.Sprintf("  general %.4f", loss)
	}
	if !live {
		fmt.Fprintln(p.app.err, line)
		return
	}
	const bar = 20
	n := bar * s.Step / max(1, s.Steps)
	line = "[" + strings.Repeat("█", n) + strings.Repeat("·", bar-n) + "] " + line
	pad := max(0, p.width-lipgloss.Width(line))
	p.width = lipgloss.Width(line)
	end := ""
	if done || len(s.Evals) > 0 {
		end, p.width = "\n", 0
	}
	fmt.Fprint(p.app.err, "\r"+line+strings.Repeat(" ", pad)+end)
}

// note shows how far something has come that is no step.
func (p *progress) note(format string, done, all int) {
	live := terminal(p.app.err)
	if wait := time.Since(p.last); done < all && (live && wait < 100*time.Millisecond || !live && wait < 10*time.Second) {
		return
	}
	p.last = time.Now()
	line := fmt.Sprintf(format, done, all)
	if live {
		line = "\r" + line
	}
	if !live || done >= all {
		line += "\n"
	}
	fmt.Fprint(p.app.err, line)
}

// short shows a time to the unit that matters.
func short(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}

// grid draws a table that knows how wide Chinese is.
func (a *app) grid(head []string, rows [][]string) string {
	t := table.New().Border(lipgloss.RoundedBorder()).Headers(head...).Rows(rows...).
		StyleFunc(func(int, int) lipgloss.Style { return lipgloss.NewStyle().Padding(0, 1) })
	return t.Render()
}

// size shows a number of bytes.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
}

// thousands writes a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
