package archtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// lattice is the order of the rooms: a room imports only rooms of lines below its own. What lies inside a room's
// folder belongs to the room.
var lattice = [][]string{
	{"cmd/tunesmith"},
	{"internal/cli"},
	{"web"},
	{"methods"},
	{"federation", "judge", "evals", "serve", "plan", "cluster", "device"},
	{"trainer", "export", "generate"},
	{"tune", "model"},
	{"data", "objective", "optim", "runs"},
	{"chat", "site", "checkpoint"},
	{"engine"},
	{"recipes"},
	{"graph", "quant", "secure", "privacy", "token", "hub", "config"},
	{"internal/atomicfile", "internal/golden", "internal/jinja", "internal/nearest", "internal/testkit", "docs"},
}

// inner names the packages inside a room that are its own affair, and who else may import them.
var inner = map[string]struct {
	by     []string // rooms
	tests  bool     // tests of every room
	reason string
}{
	"engine/cpu":        {by: []string{"internal/cli"}, tests: true, reason: "nothing outside engine knows that a CPU exists; the program picks the backend"},
	"engine/xla":        {by: []string{"internal/cli"}, tests: true, reason: "nothing outside engine knows an accelerator; the program picks the backend"},
	"engine/cpu/kernel": {reason: "kernels are called through a compiled program"},
	"graph/reference":   {tests: true, reason: "the reference is what tests compare with"},
	"internal/golden":   {tests: true, reason: "reference numbers are for tests"},
	"internal/testkit":  {tests: true, reason: "it serves tests"},
	"internal/archtest": {tests: true, reason: "it serves tests"},
}

// room returns the room of a folder and its line in the lattice.
func room(dir string) (string, int, bool) {
	for i, line := range lattice {
		for _, r := range line {
			if dir == r || strings.HasPrefix(dir, r+"/") {
				return r, i, true
			}
		}
	}
	return "", 0, false
}

// judgeImport returns what is wrong with a file of a folder importing another folder of the module, or "".
func judgeImport(from, to string, test bool) string {
	fromRoom, fromLine, known := room(from)
	if !known && from != "internal/archtest" {
		return fmt.Sprintf("the folder %s stands in no line of the lattice", from)
	}
	for deepest := to; deepest != "."; deepest = parent(deepest) {
		rule, closed := inner[deepest]
		if !closed {
			continue
		}
		// The room above an inner package is free to use it.
		above := parent(deepest)
		if above == "internal" {
			above = deepest
		}
		if from != above && !strings.HasPrefix(from, above+"/") && !slices.Contains(rule.by, fromRoom) && !(test && rule.tests) {
			return fmt.Sprintf("%s does not import %s: %s", from, to, rule.reason)
		}
		break
	}
	if strings.HasPrefix(to, "internal/") && test && inner[to].tests {
		return "" // what serves tests serves those of every line
	}
	toRoom, toLine, known := room(to)
	switch {
	case !known:
		return fmt.Sprintf("the folder %s stands in no line of the lattice", to)
	case fromRoom == toRoom, from == "internal/archtest":
		return ""
	case toLine <= fromLine:
		return fmt.Sprintf("%s does not import %s: a room imports only lines below its own", from, to)
	}
	return ""
}

func parent(dir string) string {
	if i := strings.LastIndexByte(dir, '/'); i >= 0 {
		return dir[:i]
	}
	return "."
}

// TestLattice is law 1.
func TestLattice(t *testing.T) {
	tree := load(t)
	for _, f := range tree.Files {
		if _, _, known := room(f.Dir); !known && f.Dir != "internal/archtest" && f.Dir != "." {
			t.Errorf("%s: the folder stands in no line of the lattice", f.Path)
		}
		for _, path := range f.Imports() {
			to, ours := strings.CutPrefix(path, Module+"/")
			if !ours {
				continue
			}
			if wrong := judgeImport(f.Dir, to, f.Test); wrong != "" {
				t.Errorf("%s: %s", f.Path, wrong)
			}
		}
	}
}

// TestJudgeImport shows that the judge can say no.
func TestJudgeImport(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test, ok bool
	}{
		{"trainer", "tune", false, true},
		{"trainer", "methods", false, false},
		{"trainer", "methods", true, false},
		{"model", "tune", false, false},
		{"tune", "model", false, false},
		{"graph", "engine", false, false},
		{"engine/cpu", "engine/cpu/kernel", false, true},
		{"engine/cpu", "engine", false, true},
		{"engine", "engine/cpu", false, true},
		{"model", "engine/cpu", false, false},
		{"model", "engine/cpu", true, true},
		{"model", "engine/cpu/kernel", true, false},
		{"internal/cli", "engine/cpu", false, true},
		{"internal/cli", "engine/cpu/kernel", false, false},
		{"engine/cpu", "graph/reference", false, false},
		{"engine/cpu", "graph/reference", true, true},
		{"graph", "graph/reference", false, true},
		{"data", "internal/golden", true, true},
		{"data", "internal/golden", false, false},
		{"internal/jinja", "internal/golden", true, true},
		{"internal/jinja", "internal/atomicfile", true, false},
		{"internal/golden", "internal/testkit", false, false},
		{"cmd/tunesmith", "internal/cli", false, true},
		{"internal/cli", "cmd/tunesmith", false, false},
		{"util", "graph", false, false},
		{"graph", "util", false, false},
		{"internal/cli", "internal/archtest", true, true},
		{"internal/cli", "internal/archtest", false, false},
	} {
		if have := judgeImport(c.from, c.to, c.test); (have == "") != c.ok {
			t.Errorf("%s imports %s (test %v): want allowed %v, have %q", c.from, c.to, c.test, c.ok, have)
		}
	}
}
