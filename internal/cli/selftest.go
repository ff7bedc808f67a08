package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"tunesmith/evals"
)

func (a *app) selftest() *cobra.Command {
	return &cobra.Command{
		Use:   "selftest",
		Short: "Check on this machine that every method keeps its promises",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var rows [][]string
			var failed error
			err := evals.Conformance(c.Context(), func(r evals.Check) {
				verdict := "ok"
				if r.Err != nil {
					verdict = r.Err.Error()
					failed = fmt.Errorf("selftest: %s of %s: %w", r.Name, r.Method, r.Err)
				}
				rows = append(rows, []string{r.Method, r.Name, verdict})
			})
			if err != nil {
				return err
			}
			a.say("%s", a.grid([]string{"method", "promise", ""}, rows))
			return failed
		},
	}
}
