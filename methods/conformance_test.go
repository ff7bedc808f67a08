package methods

import (
	"context"
	"strings"
	"testing"

	_ "tunesmith/engine/cpu"
	"tunesmith/evals"
	"tunesmith/model"
)

// TestConformance checks every method of the registry; tunesmith selftest runs the same list.
func TestConformance(t *testing.T) { conform(t, evals.Conformance) }

// refusing names the methods that say no to some families by their own rules, and why.
var refusing = map[string]string{
	"ia3":           "its targets are llama's names unless they are given",
	"llama_adapter": "it needs separate projections of keys and values",
	"qlora":         "rows of blocks of 64 weights, which a gate of 32 channels is too small for",
}

// TestFamilyConformance checks every method on every family of models.
func TestFamilyConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds for each family")
	}
	for _, family := range model.Types() {
		if family != "llama" {
			t.Run(family, func(t *testing.T) {
				conform(t, func(ctx context.Context, report func(evals.Check)) error {
					return evals.FamilyConformance(ctx, family, report)
				})
			})
		}
	}
}

func conform(t *testing.T, run func(context.Context, func(evals.Check)) error) {
	n := 0
	err := run(t.Context(), func(c evals.Check) {
		n++
		method, _, family := strings.Cut(c.Method, " on ")
		if why, ok := refusing[method]; ok && family && c.Name == "starts" && c.Err != nil {
			t.Logf("%s: %s: %v", c.Method, why, c.Err)
			return
		}
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
