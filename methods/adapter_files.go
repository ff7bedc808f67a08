package methods

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/site"
	"tunesmith/tune"
)

// places are the values of mh_adapter and output_adapter.
var places = map[string][2]bool{"attention": {true, false}, "feed_forward": {false, true}, "both": {true, true}}

// ReadPEFT implements tune.PEFTReader: the config of the adapters library. Missing keys have the defaults of its class
// BnConfig.
func (o *Adapter) ReadPEFT(c tune.PEFTConfig) error {
	outer := peftKeys{c: c}
	var inner tune.PEFTConfig
	if err := json.Unmarshal(c["config"], &inner); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	r := peftKeys{c: inner}
	*o = Adapter{
		Name: key(&outer, "name", unnamed), Function: strings.ToLower(key(&r, "non_linearity", "relu")), Scale: 1, Scaling: "fixed", Init: "bert",
		LeaveOut: key(&r, "leave_out", []int(nil)), Dropout: key(&r, "dropout", 0.0), NormBefore: key(&r, "ln_before", false),
		NormAfter: key(&r, "ln_after", false), Input: "result",
		normResidual: key(&r, "adapter_residual_before_ln", false), residualBefore: key(&r, "residual_before_ln", true),
		outerResidual: key(&r, "original_ln_after", true),
	}
	if key(&r, "original_ln_before", false) {
		o.Input = "sum"
	}
	if key(&r, "is_parallel", false) {
		o.Input = "residual"
	}
	at := [2]bool{key(&r, "mh_adapter", false), key(&r, "output_adapter", false)}
	for name, p := range places {
		if p == at {
			o.Places = name
		}
	}
	if o.Places == "" {
		r.fail(fmt.Errorf("output_adapter: want mh_adapter or output_adapter true, have both false"))
	}
	switch start := key(&r, "init_weights", "bert"); start {
	case "bert", "houlsby":
		o.Init = start
	case "mam_adapter":
		o.Init = "zero"
	default:
		r.fail(fmt.Errorf("init_weights: want bert, houlsby or mam_adapter, have %q", start))
	}
	if _, ok := functions[o.Function]; !ok {
		r.fail(fmt.Errorf("non_linearity: want one of %s, have %q", strings.Join(sortedNames(functions), ", "), o.Function))
	}
	r.readScaling(o)
	r.readReduction(o)
	for _, k := range []string{"phm_layer", "cross_adapter"} {
		if key(&r, k, false) {
			r.fail(fmt.Errorf("%s: want false, have true: not supported", k))
		}
	}
	if key(&r, "use_gating", false) {
		r.fail(fmt.Errorf("use_gating: want false, have true: a gate averages over the whole row, over padding and over what is not written yet"))
	}
	if v := string(inner["inv_adapter"]); v != "" && v != "null" {
		r.fail(fmt.Errorf("inv_adapter: want null, have %s: not supported", v))
	}
	if outer.err != nil {
		return outer.err
	}
	return r.err
}

func (r *peftKeys) readScaling(o *Adapter) {
	var word string
	if json.Unmarshal(r.c["scaling"], &word) == nil && word != "" {
		o.Scaling = word
		if word != "learned" && word != "channel" {
			r.fail(fmt.Errorf("scaling: want a number, learned or channel, have %q", word))
		}
		return
	}
	o.Scale = key(r, "scaling", 1.0)
}

// readReduction reads one factor, or a map from layers with a default.
func (r *peftKeys) readReduction(o *Adapter) {
	if by, err := tune.PatternsKey[float64](r.c, "reduction_factor"); err == nil && by != nil {
		for _, p := range by {
			if p.Key == "default" {
				o.Reduction = p.Value
			} else {
				o.ReductionBy = append(o.ReductionBy, p)
			}
		}
	} else {
		o.Reduction = key(r, "reduction_factor", 16.0)
	}
	if o.Reduction <= 0 && len(o.ReductionBy) == 0 {
		r.fail(fmt.Errorf("reduction_factor: want > 0, have %s", r.c["reduction_factor"]))
	}
	if o.Reduction == 0 {
		o.Reduction = 1
	}
}

func sortedNames[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// PEFT implements tune.PEFTWriter, in the layout of the adapters library.
func (a *bottleneck) PEFT() map[string]any {
	start := a.Init
	if start == "zero" {
		start = "mam_adapter"
	}
	var scaling, reduction any = a.Scale, number(a.Reduction)
	if a.Scaling != "fixed" {
		scaling = a.Scaling
	}
	if len(a.ReductionBy) > 0 {
		by := map[string]any{"default": reduction}
		for _, p := range a.ReductionBy {
			by[p.Key] = number(p.Value)
		}
		reduction = by
	}
	at := places[a.Places]
	leave := a.LeaveOut
	if leave == nil {
		leave = []int{}
	}
	return map[string]any{
		"name": a.Name, "hidden_size": a.hidden,
		"config": map[string]any{
			"mh_adapter": at[0], "output_adapter": at[1], "reduction_factor": reduction, "non_linearity": a.Function,
			"original_ln_before": a.Input == "sum", "original_ln_after": a.outerResidual, "is_parallel": a.Input == "residual",
			"ln_before": a.NormBefore, "ln_after": a.NormAfter, "init_weights": start, "scaling": scaling, "use_gating": false,
			"residual_before_ln": a.residualBefore, "adapter_residual_before_ln": a.normResidual, "leave_out": leave, "dropout": a.Dropout,
			"inv_adapter": nil, "inv_adapter_reduction_factor": nil, "cross_adapter": false, "phm_layer": false,
		},
	}
}

// number writes whole factors as the library does.
func number(v float64) any {
	if v == float64(int(v)) {
		return int(v)
	}
	return v
}

// doubled is the second name that the library gives the norm before the first projection.
func doubled(name string) (string, bool) {
	module, leaf, ok := strings.Cut(name, ".adapter_norm_before.")
	return module + ".adapter_down.0." + leaf, ok
}

// PEFTTensors implements tune.PEFTTensors.
func (a *bottleneck) PEFTTensors(trained []site.Param, value func(string) []float32) []checkpoint.Tensor {
	tensors := tune.Tensors(trained, value)
	for _, p := range trained {
		if name, ok := doubled(p.Name); ok {
			tensors = append(tensors, checkpoint.Float32Tensor(name, p.Shape, value(p.Name)))
		}
	}
	return tensors
}

// Param implements tune.FileNamer.
func (o *Adapter) Param(tensor string) string {
	if o.NormBefore && strings.Contains(tensor, ".adapter_down.0.") {
		return "" // the norm's second name
	}
	return tensor
}

// ones is the start of factors.
func ones(dst []float32, _ *rand.Rand, _ func(string) []float32) {
	for i := range dst {
		dst[i] = 1
	}
}

// truncated is normal numbers within two deviations.
func truncated(std float64) site.Init {
	return func(dst []float32, rng *rand.Rand, _ func(string) []float32) {
		for i := range dst {
			v := rng.NormFloat64()
			for v < -2 || v > 2 {
				v = rng.NormFloat64()
			}
			dst[i] = float32(v * std)
		}
	}
}
