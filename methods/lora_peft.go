package methods

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/site"
	"tunesmith/tune"
)

// inits are the values of init_lora_weights by our name of the start.
var inits = map[string]any{"uniform": true, "gaussian": "gaussian", "orthogonal": "orthogonal", "random": false, loftQ: loftQ}

// ReadPEFT implements tune.PEFTReader. Missing keys have PEFT's defaults, not ours.
func (o *LoRA) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	*o = LoRA{
		Rank:             key(&r, "r", 8),
		Alpha:            key(&r, "lora_alpha", 8.0),
		Dropout:          key(&r, "lora_dropout", 0.0),
		RSLoRA:           key(&r, "use_rslora", false),
		DoRA:             key(&r, "use_dora", false),
		Bias:             key(&r, "bias", "none"),
		LoRABias:         key(&r, "lora_bias", false),
		Layers:           numbers(&r, "layers_to_transform"),
		Targets:          r.modules("target_modules"),
		Exclude:          r.modules("exclude_modules"),
		TargetParameters: r.modules("target_parameters"),
		TrainFully:       r.modules("modules_to_save"),
		RankPattern:      patterns[int](&r, "rank_pattern"),
		AlphaPattern:     patterns[float64](&r, "alpha_pattern"),
		TrainTokens:      r.tokens("trainable_token_indices"),
		Init:             r.init("init_lora_weights"),
		LoftQSteps:       1,
	}
	if o.Init == loftQ {
		config := key(&r, "loftq_config", struct {
			Bits  int `json:"loftq_bits"`
			Steps int `json:"loftq_iter"`
		}{4, 1})
		if config.Bits != 4 || config.Steps < 1 || config.Steps > 100 {
			r.fail(fmt.Errorf("loftq_config: want 4 bits and 1 to 100 turns, have %d and %d", config.Bits, config.Steps))
		}
		o.LoftQSteps = config.Steps
	}
	for _, k := range []string{"use_qalora", "use_bdlora", "ensure_weight_tying"} {
		if key(&r, k, false) {
			r.fail(fmt.Errorf("%s: want false, have true: not supported", k))
		}
	}
	for _, k := range []string{"layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "velora_config"} {
		if v, ok := c[k]; ok && string(v) != "null" && string(v) != "[]" {
			r.fail(fmt.Errorf("%s: want null, have %s: not supported", k, v))
		}
	}
	switch {
	case !slices.Contains([]string{"none", "all", "lora_only"}, o.Bias):
		r.fail(fmt.Errorf("bias: want none, all or lora_only, have %q", o.Bias))
	case o.Dropout < 0 || o.Dropout >= 1:
		r.fail(fmt.Errorf("lora_dropout: want 0 … below 1, have %g", o.Dropout))
	}
	if len(o.Targets) == 0 && r.err == nil {
		o.Targets = tune.Targets{"q_proj", "v_proj"} // PEFT's default for the families here
	}
	return r.err
}

// init reads how the update started. For most starts a trained file does not depend on it.
func (r *peftKeys) init(name string) string {
	text := strings.Trim(string(r.c[name]), `"`)
	switch {
	case text == "" || text == "null" || text == "true" || text == "eva":
		return "uniform"
	case text == "false":
		return "random"
	case text == loftQ:
		return loftQ
	case strings.HasPrefix(text, "pissa"): // pissa_niter_N finds the same values by another way
		return "pissa"
	case text == "gaussian" || text == "orthogonal" || text == "olora":
		return text
	}
	r.fail(fmt.Errorf("%s: want true, false, gaussian, orthogonal, eva, pissa or olora, have %q; "+
		"what starts from another base than the model's has to be converted by PEFT's path_initial_model_for_weight_conversion", name, text))
	return ""
}

// tokens reads trainable_token_indices: a list, or a map with one for the embedding.
func (r *peftKeys) tokens(name string) []int {
	by := map[string][]int{}
	if text, ok := r.c[name]; !ok || json.Unmarshal(text, &by) != nil || by == nil {
		return key(r, name, []int(nil))
	}
	for module := range by {
		if len(by) > 1 || !strings.HasSuffix(module, "embed_tokens") {
			r.fail(fmt.Errorf("%s: want those of embed_tokens alone, have %s", name, r.c[name]))
		}
		return by[module]
	}
	return nil
}

// numbers reads one number or a list of them.
func numbers(r *peftKeys, name string) []int {
	var one int
	if text, ok := r.c[name]; ok && string(text) != "null" && json.Unmarshal(text, &one) == nil {
		return []int{one}
	}
	return key(r, name, []int(nil))
}

// PEFT implements tune.PEFTWriter.
func (l *lora) PEFT() map[string]any {
	o := l.LoRA
	if o.splitting() {
		o = o.doubled()
	}
	c := map[string]any{
		"peft_type":           "LORA",
		"r":                   o.Rank,
		"lora_alpha":          o.Alpha,
		"lora_dropout":        o.Dropout,
		"use_rslora":          o.RSLoRA,
		"use_dora":            o.DoRA,
		"bias":                o.Bias,
		"lora_bias":           o.LoRABias,
		"fan_in_fan_out":      l.transposed(),
		"init_lora_weights":   inits[o.Init],
		"target_modules":      l.modules,
		"exclude_modules":     oneOrList(o.Exclude),
		"layers_to_transform": nullIfEmpty(o.Layers),
		"layers_pattern":      nil,
		"modules_to_save":     nullIfEmpty(o.TrainFully),
		"rank_pattern":        o.RankPattern,
		"alpha_pattern":       o.AlphaPattern,
	}
	if o.Init == loftQ {
		c["loftq_config"] = map[string]any{"loftq_bits": 4, "loftq_iter": o.LoftQSteps}
	}
	if len(o.TargetParameters) > 0 {
		c["target_parameters"] = o.TargetParameters
	}
	if len(o.TrainTokens) > 0 {
		c["trainable_token_indices"] = o.TrainTokens
	}
	return c
}

// transposed reports whether the weights of the updates stand as (in, out), which PEFT wants to be told.
func (l *lora) transposed() bool {
	for _, u := range l.updates {
		if u.transposed {
			return true
		}
	}
	return false
}

// PEFTTensors implements tune.PEFTTensors: where the update starts from a part of the weight, the file holds a plain
// update of twice the rank on the model's own weight, which every program can use.
func (l *lora) PEFTTensors(trained []site.Param, value func(string) []float32) []checkpoint.Tensor {
	tensors := append(tune.Tensors(trained, value), l.frozenFactors(value)...)
	if !l.splitting() {
		return tensors
	}
	at := map[string]int{}
	for i, t := range tensors {
		at[t.Name] = i
	}
	for _, u := range l.updates {
		a, b, rank := l.values(u, value)
		if rank == u.rank { // of an embedding: all ranks of a file double
			a, b, rank = append(a[:len(a):len(a)], make([]float32, len(a))...), joinColumns(b, make([]float32, len(b)), rank), 2*rank
		}
		nameA, nameB := u.names()
		tensors[at[nameA]] = checkpoint.Float32Tensor(nameA, []int{rank, len(a) / rank}, a)
		tensors[at[nameB]] = checkpoint.Float32Tensor(nameB, []int{len(b) / rank, rank}, b)
	}
	return tensors
}

// doubled returns the options of the plain update of twice the rank that has the same scale.
func (o LoRA) doubled() LoRA {
	f := 2.0
	if o.RSLoRA {
		f = math.Sqrt2
	}
	o.Rank, o.Alpha, o.Init = 2*o.Rank, f*o.Alpha, "uniform"
	o.RankPattern, o.AlphaPattern = slices.Clone(o.RankPattern), slices.Clone(o.AlphaPattern)
	for i := range o.RankPattern {
		o.RankPattern[i].Value *= 2
	}
	for i := range o.AlphaPattern {
		o.AlphaPattern[i].Value *= f
	}
	return o
}

// moduleList returns target_modules for the chosen modules: the option's own names, else the last parts of the paths
// where they choose the same, else the paths.
func moduleList(o *LoRA, paths []string, m *site.Map) ([]string, error) {
	if !o.Targets.IsPattern() {
		return o.Targets, nil
	}
	var names tune.Targets
	for _, p := range paths {
		if _, name := tune.ModuleOf(p); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	same, err := tune.Choice{Key: "targets", Targets: names, Exclude: o.Exclude, Layers: o.Layers, Experts: true}.Resolve(m)
	if err == nil && !slices.Equal(same, paths) {
		return paths, nil
	}
	return names, err
}

// oneOrList writes a name list as a list, a pattern as one text, nothing as null.
func oneOrList(t tune.Targets) any {
	switch {
	case len(t) == 0:
		return nil
	case len(t) == 1 && t.IsPattern():
		return t[0]
	}
	return []string(t)
}

func nullIfEmpty[T any](list []T) any {
	if len(list) == 0 {
		return nil
	}
	return list
}

// peftKeys reads keys and keeps the first mistake.
type peftKeys struct {
	c   tune.PEFTConfig
	err error
}

func (r *peftKeys) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *peftKeys) modules(name string) tune.Targets {
	v, err := tune.ModulesKey(r.c, name)
	if err != nil {
		r.fail(err)
	}
	return v
}

func key[T any](r *peftKeys, name string, otherwise T) T {
	v, err := tune.Key(r.c, name, otherwise)
	if err != nil {
		r.fail(err)
	}
	return v
}

func patterns[T any](r *peftKeys, name string) tune.Patterns[T] {
	v, err := tune.PatternsKey[T](r.c, name)
	if err != nil {
		r.fail(err)
	}
	return v
}
