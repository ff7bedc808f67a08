package cli

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"

	"tunesmith/internal/golden"
)

// TestGoldenDoctor examines every adapter directory of golden/peft/edge. What PEFT refuses is an error with a remedy,
// unless it is the base that is wrong; the good adapter has none.
func TestGoldenDoctor(t *testing.T) {
	dir := golden.Dir(t, "peft")
	var all struct {
		Base  string
		Cases []struct {
			Name, Directory, Result string
			Error                   string
		}
	}
	golden.JSON(t, filepath.Join(dir, "edge", "edge.json"), &all)
	seen := map[string]bool{}
	for _, c := range all.Cases {
		if c.Directory == "" || seen[c.Directory] {
			continue
		}
		seen[c.Directory] = true
		t.Run(c.Name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			code := Run([]string{"doctor", filepath.Join(dir, c.Directory), "-m", filepath.Join(dir, all.Base), "--precision", "fp32", "--json"}, nil, &out, &errOut)
			var e examination
			if err := json.Unmarshal(out.Bytes(), &e); err != nil {
				t.Fatalf("%v: %s%s", err, out.Bytes(), errOut.Bytes())
			}
			bad := slices.ContainsFunc(e.Findings, func(f finding) bool { return f.Verdict == wrong })
			if bad != (code != 0) {
				t.Errorf("exit code %d with findings %v", code, e.Findings)
			}
			for _, f := range e.Findings {
				if f.Verdict == wrong && f.Remedy == "" {
					t.Errorf("no remedy for: %s", f.What)
				}
			}
			if c.Result == "error" && c.Name != "file_other_base" && !bad {
				t.Errorf("PEFT says %q, nothing was found", c.Error)
			}
			if c.Name == "file_good" && bad {
				t.Errorf("have %v", e.Findings)
			}
		})
	}
	if len(seen) == 0 {
		t.Error("no cases")
	}
}
