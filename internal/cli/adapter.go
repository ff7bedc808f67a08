package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tunesmith/methods"
	"tunesmith/model"
	"tunesmith/tune"
)

func (a *app) adapter() *cobra.Command {
	c := &cobra.Command{Use: "adapter", Short: "Look at adapters, combine, scale, shrink and convert them"}
	c.AddCommand(a.adapterInspect(), a.adapterDiff(), a.adapterMerge(), a.adapterScale(), a.adapterResize(), a.adapterConvert())
	return c
}

// outputFlag adds the flag for the place of a result.
func outputFlag(c *cobra.Command, out *string) {
	c.Flags().StringVarP(out, "output", "o", "", "directory of the result")
}

// saveUpdates writes updates and says so.
func (a *app) saveUpdates(u *methods.Updates, out string, more map[string]any) error {
	if out == "" {
		return usageError{errors.New("give the result's directory with -o")}
	}
	if err := u.Save(out, version()); err != nil {
		return err
	}
	if a.json {
		result := map[string]any{"adapter": out, "modules": len(u.Modules)}
		for k, v := range more {
			result[k] = v
		}
		return a.result(result)
	}
	a.say("wrote %s", out)
	return nil
}

// adapterView is what inspect shows of an adapter.
type adapterView struct {
	Adapter string       `json:"adapter"`
	Method  string       `json:"method"`
	Base    string       `json:"base"`
	Values  int          `json:"values"`
	Modules []moduleView `json:"modules"`
	Others  []string     `json:"others,omitempty"` // tensors that are no low-rank updates
	Named   []string     `json:"named,omitempty"`  // adapters in directories below
}

type moduleView struct {
	Module string  `json:"module"`
	Rank   int     `json:"rank"`
	Scale  float64 `json:"scale"`
	Norm   float64 `json:"norm"`
}

func (a *app) adapterInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect DIR",
		Short: "Show what an adapter changes, and how much",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := viewAdapter(args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.result(v)
			}
			a.say("%s: %s on %s, %s values in %d modules", v.Adapter, v.Method, named(v.Base), thousands(v.Values), len(v.Modules))
			a.say("%s", a.grid([]string{"module", "count", "rank", "scale", "length of the updates", "zero"}, byKind(v.Modules)))
			if len(v.Others) > 0 {
				a.say("beside them: %s", strings.Join(shortList(v.Others), ", "))
			}
			if len(v.Named) > 0 {
				a.say("named adapters below: %s", strings.Join(v.Named, ", "))
			}
			return nil
		},
	}
}

func named(base string) string {
	if base == "" {
		return "a base that it does not name"
	}
	return base
}

// shortList keeps the first names and counts the others.
func shortList(names []string) []string {
	const most = 8
	if more := len(names) - most; more > 0 {
		return append(slices.Clone(names[:most]), fmt.Sprintf("and %d more", more))
	}
	return names
}

func viewAdapter(dir string) (*adapterView, error) {
	ad, err := tune.OpenAdapter(dir)
	if err != nil {
		return nil, err
	}
	defer ad.Close()
	v := &adapterView{Adapter: dir, Method: ad.Method.Name, Base: ad.Base, Named: namedAdapters(dir)}
	for _, t := range ad.Tensors() {
		v.Values += t.Size()
	}
	u, err := methods.OpenUpdates(dir)
	if err != nil { // another kind of method: its tensors say what it changes
		for _, t := range ad.Tensors() {
			v.Others = append(v.Others, strings.TrimPrefix(t.Name, tune.PEFTPrefix))
		}
		return v, nil
	}
	for _, f := range u.Modules {
		v.Modules = append(v.Modules, moduleView{f.Path, f.Rank, f.Scale, f.Norm()})
	}
	for _, t := range u.Others {
		v.Others = append(v.Others, strings.TrimPrefix(t.Name, tune.PEFTPrefix))
	}
	return v, nil
}

// namedAdapters lists the directories below that hold an adapter of their own.
func namedAdapters(dir string) []string {
	list, _ := filepath.Glob(filepath.Join(dir, "*", "adapter_config.json"))
	var out []string
	for _, file := range list {
		out = append(out, filepath.Base(filepath.Dir(file)))
	}
	return out
}

// byKind sums modules up by the last part of their names.
func byKind(list []moduleView) [][]string {
	type sum struct {
		count, zero    int
		ranks, scales  []string
		smallest, most float64
	}
	var order []string
	sums := map[string]*sum{}
	for _, m := range list {
		kind := m.Module[strings.LastIndexByte(m.Module, '.')+1:]
		s := sums[kind]
		if s == nil {
			s = &sum{smallest: m.Norm}
			sums[kind], order = s, append(order, kind)
		}
		s.count++
		s.smallest, s.most = min(s.smallest, m.Norm), max(s.most, m.Norm)
		if m.Norm == 0 {
			s.zero++
		}
		s.ranks, s.scales = once(s.ranks, fmt.Sprint(m.Rank)), once(s.scales, fmt.Sprintf("%.4g", m.Scale))
	}
	var rows [][]string
	for _, kind := range order {
		s := sums[kind]
		rows = append(rows, []string{
			kind, fmt.Sprint(s.count), strings.Join(s.ranks, " "), strings.Join(s.scales, " "),
			fmt.Sprintf("%.4g … %.4g", s.smallest, s.most), fmt.Sprint(s.zero),
		})
	}
	return rows
}

func once(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

func (a *app) adapterDiff() *cobra.Command {
	return &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two adapters by what they do to the weights",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var both [2]*methods.Updates
			for i, dir := range args {
				u, err := methods.OpenUpdates(dir)
				if err != nil {
					return err
				}
				both[i] = u
			}
			d, err := methods.Diff(both[0], both[1])
			if err != nil {
				return err
			}
			if a.json {
				return a.result(d)
			}
			var rows [][]string
			for _, m := range d.Modules {
				rows = append(rows, []string{m.Path, fmt.Sprintf("%.4g", m.A), fmt.Sprintf("%.4g", m.B), fmt.Sprintf("%.4g", m.Apart), fmt.Sprintf("%.3f", m.Cosine)})
			}
			a.say("%s", a.grid([]string{"module", "length in A", "in B", "of the difference", "cosine"}, rows))
			for side, only := range map[string][]string{"A": d.OnlyA, "B": d.OnlyB} {
				if len(only) > 0 {
					a.say("only in %s: %s", side, strings.Join(shortList(only), ", "))
				}
			}
			a.say("all: %.4g in A, %.4g in B, %.4g apart", d.A, d.B, d.Apart)
			return nil
		},
	}
}

func (a *app) adapterMerge() *cobra.Command {
	var out string
	var how methods.Combination
	c := &cobra.Command{
		Use:     "merge DIR[=WEIGHT]...",
		Short:   "Combine adapters of one base into one",
		Example: "  tunesmith adapter merge french=0.7 polite=0.5 -o both\n  tunesmith adapter merge a b c --kind ties --density 0.3 -o all",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if !slices.Contains(methods.Kinds(), how.Kind) {
				_, err := methods.Combine(nil, nil, how)
				return usageError{err}
			}
			u, err := combine(args, how)
			if err != nil {
				return err
			}
			return a.saveUpdates(u, out, map[string]any{"kind": how.Kind, "rank": u.Modules[0].Rank})
		},
	}
	outputFlag(c, &out)
	f := c.Flags()
	f.StringVar(&how.Kind, "kind", "cat", "cat is the exact sum in the sum of the ranks; others: "+strings.Join(methods.Kinds()[1:], ", "))
	f.IntVar(&how.Rank, "rank", 0, "rank of the result of a kind with svd; 0 is the adapters' largest")
	f.Float64Var(&how.Density, "density", 0.5, "share of the elements that stay, for ties, dare and magnitude_prune")
	f.BoolVar(&how.Frequency, "frequency", false, "ties: signs vote alike, instead of by their elements' sum")
	f.Uint64Var(&how.Seed, "seed", 0, "start of dare's random numbers")
	return c
}

func (a *app) adapterScale() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:     "scale DIR=FACTOR",
		Short:   "Make an adapter's change stronger or weaker",
		Example: "  tunesmith adapter scale polite=0.5 -o a-little-polite",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, factor, err := splitWeight(args[0])
			if err != nil {
				return err
			}
			u, err := methods.OpenUpdates(dir)
			if err != nil {
				return err
			}
			if err := u.Plain(); err != nil {
				return err
			}
			return a.saveUpdates(u.Scaled(factor), out, map[string]any{"factor": factor})
		},
	}
	outputFlag(c, &out)
	return c
}

func (a *app) adapterResize() *cobra.Command {
	var out string
	var rank int
	c := &cobra.Command{
		Use:   "resize DIR --rank N",
		Short: "Compress an adapter to another rank by its singular values",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			u, err := methods.OpenUpdates(args[0])
			if err != nil {
				return err
			}
			u, kept, err := u.Resize(rank)
			if err != nil {
				return err
			}
			a.say("rank %d keeps %.2f %% of the updates' squared length", rank, 100*kept)
			return a.saveUpdates(u, out, map[string]any{"rank": rank, "kept": kept})
		},
	}
	outputFlag(c, &out)
	c.Flags().IntVar(&rank, "rank", 0, "rank of the result")
	return c
}

func (a *app) adapterConvert() *cobra.Command {
	var out, base string
	var rank int
	c := &cobra.Command{
		Use:   "convert DIR",
		Short: "Write an adapter as plain updates that every program reads",
		Long: "convert folds what a plain adapter has no place for: a scale by the root of the rank into alpha; a start from a part\n" +
			"of the weights into twice the rank; lengths of rows that train apart, and a base in another storage, into the nearest\n" +
			"update of --rank. All but the first need the base, with -m.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if base == "" {
				u, err := methods.OpenUpdates(args[0])
				if err != nil {
					return err
				}
				if err := u.Plain(); err != nil {
					return fmt.Errorf("%w; give the base with -m to fold it", err)
				}
				return a.saveUpdates(u, out, nil)
			}
			return a.fold(args[0], base, rank, out)
		},
	}
	outputFlag(c, &out)
	c.Flags().StringVarP(&base, "model", "m", "", "the adapter's base: GGUF file or model directory")
	c.Flags().IntVar(&rank, "rank", 0, "rank of what cannot be folded exactly")
	return c
}

// fold converts an adapter on its base.
func (a *app) fold(dir, base string, rank int, out string) error {
	path, err := modelPath(base)
	if err != nil {
		return err
	}
	m, err := model.Open(path)
	if err != nil {
		return err
	}
	defer m.Close()
	ad, err := tune.OpenAdapter(dir)
	if err != nil {
		return err
	}
	defer ad.Close()
	graft, err := ad.Options.Graft(m.Map())
	if err != nil {
		return fmt.Errorf("adapter %s: %w", dir, err)
	}
	on, err := m.Adapt(0, graft)
	if err != nil {
		return err
	}
	if err := ad.Fill(on.Store, on.Sites); err != nil {
		return err
	}
	u, kept, err := methods.Fold(on, rank)
	if err != nil {
		return err
	}
	u.Describe(ad.Base, ad.AdapterOrigin)
	if kept < 1 {
		a.say("rank %d keeps %.2f %% of the change's squared length", rank, 100*kept)
	}
	return a.saveUpdates(u, out, map[string]any{"kept": kept})
}

// exists reports whether a path is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
