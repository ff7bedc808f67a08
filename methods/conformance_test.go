package methods

import (
	"testing"

	_ "tunesmith/engine/cpu"
	"tunesmith/evals"
)

// TestConformance checks every method of the registry; tunesmith selftest runs the same list.
func TestConformance(t *testing.T) {
	n := 0
	err := evals.Conformance(t.Context(), func(c evals.Check) {
		n++
		if c.Err != nil {
			t.Errorf("%s: %s: %v", c.Method, c.Name, c.Err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Fatal("no method is registered")
	}
}
