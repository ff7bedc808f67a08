package tune

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
	"tunesmith/site"
)

// AllLinear as the only target means every projection but the one to the vocabulary.
const AllLinear = "all-linear"

// Targets chooses modules by the rules of PEFT: a list holds whole module paths or their last parts ("q_proj"); a
// single entry that is no such name is a regular expression that has to match the whole path.
type Targets []string

// Match reports whether the targets choose the module.
func (t Targets) Match(path string) bool {
	for _, name := range t {
		if path == name || strings.HasSuffix(path, "."+name) {
			return true
		}
	}
	re, err := t.pattern()
	return err == nil && re != nil && re.MatchString(path)
}

// pattern returns the regular expression of a single entry, or nil.
func (t Targets) pattern() (*regexp.Regexp, error) {
	if !t.IsPattern() || t[0] == AllLinear {
		return nil, nil
	}
	return regexp.Compile("^(?:" + t[0] + ")$")
}

// Choice is what Resolve looks for.
type Choice struct {
	Key     string // of the option, for errors
	Targets Targets
	Exclude Targets
	Layers  []int // numbers of layers, all where empty
	Experts bool  // names may also choose experts of a mixture
}

// Resolve returns the paths of the chosen modules among the linears of a model, then its embedding and its output
// projection, in the model's order. Each name that chooses nothing is an error.
func (c Choice) Resolve(m *site.Map) ([]string, error) {
	var paths []string
	for _, l := range m.Linears {
		paths = append(paths, l.Path)
	}
	all := slices.Concat(paths, []string{m.Embedding, m.Output.Path})
	if c.Experts {
		for _, e := range m.Experts {
			all = append(all, e.Modules()...)
		}
	}
	for key, t := range map[string]Targets{c.Key: c.Targets, "exclude": c.Exclude} {
		if _, err := t.pattern(); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	switch {
	case len(c.Targets) == 0:
		return nil, fmt.Errorf("%s: want %s or names of modules, have none; the modules are %s", c.Key, AllLinear, strings.Join(leaves(all), ", "))
	case len(c.Targets) == 1 && c.Targets[0] == AllLinear:
		return c.filter(paths)
	}
	var errs []string
	for _, name := range c.Targets {
		if one := (Targets{name}); !slices.ContainsFunc(all, one.Match) || len(c.Targets) > 1 && one.IsPattern() {
			errs = append(errs, fmt.Sprintf("%s: %q is no module of this model%s", c.Key, name, nearest.Hint(name, leaves(all))))
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("%s; its modules are %s", strings.Join(errs, "; "), strings.Join(leaves(all), ", "))
	}
	return c.filter(slices.DeleteFunc(all, func(p string) bool { return !c.Targets.Match(p) }))
}

func (c Choice) filter(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		if !c.Exclude.Match(p) && (len(c.Layers) == 0 || slices.Contains(c.Layers, site.IndexOf(p))) {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: exclude and layers leave none of the %d modules chosen", c.Key, len(paths))
	}
	return out, nil
}

// leaves returns the last parts of module paths, each once, in order.
func leaves(paths []string) []string {
	var out []string
	for _, p := range paths {
		leaf := p[strings.LastIndexByte(p, '.')+1:]
		if !slices.Contains(out, leaf) {
			out = append(out, leaf)
		}
	}
	return out
}

// ByPattern returns the value of the first key, in the order of the list, whose pattern matches the end of the
// module's path, PEFT's rule (.*\.)?(key)$ for rank_pattern and alpha_pattern; otherwise the default.
func ByPattern[T any](patterns Patterns[T], path string, otherwise T) (T, error) {
	for _, p := range patterns {
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + p.Key + `)$`)
		if err != nil {
			return otherwise, fmt.Errorf("pattern %q: %w", p.Key, err)
		}
		if re.MatchString(path) {
			return p.Value, nil
		}
	}
	return otherwise, nil
}

// Patterns is an ordered map from patterns of module paths to values: the first that matches counts.
type Patterns[T any] []Pattern[T]

// Pattern is an entry of an ordered map from patterns of module paths to values.
type Pattern[T any] struct {
	Key   string
	Value T
}

// IsPattern reports whether the targets are one text that is no plain name: all-linear or a regular expression.
func (t Targets) IsPattern() bool {
	return len(t) == 1 && (t[0] == AllLinear || strings.ContainsAny(t[0], `*+?()[]{}|^$\`))
}

// Modules returns the paths among all modules with weights, norms included, that the names choose. Each name that
// chooses nothing is an error.
func Modules(key string, names Targets, m *site.Map) ([]string, error) {
	var all, out []string
	for _, p := range m.Params {
		if module, _ := ModuleOf(p.Name); !slices.Contains(all, module) {
			all = append(all, module)
		}
	}
	if !slices.Contains(all, m.Output.Path) {
		all = append(all, m.Output.Path)
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, (Targets{name}).Match) {
			return nil, fmt.Errorf("%s: %q is no module of this model%s; its modules are %s", key, name,
				nearest.Hint(name, leaves(all)), strings.Join(leaves(all), ", "))
		}
	}
	for _, path := range all {
		if names.Match(path) {
			out = append(out, path)
		}
	}
	return out, nil
}
