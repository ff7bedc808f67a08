package model

import (
	"encoding/json"
	"fmt"
	"math"

	"tunesmith/graph"
)

// Rope is the rotary positions' setting. Formulas of the types are those of transformers' modeling_rope_utils.
type Rope struct {
	Type         string // default, linear, dynamic, llama3, yarn
	Theta        float64
	Factor       float64
	Original     int // original_max_position_embeddings
	LowFreq      float64
	HighFreq     float64
	BetaFast     float64
	BetaSlow     float64
	Truncate     bool
	Attention    float64 // attention_factor, 0 where it is not given
	MScale       float64
	MScaleAll    float64
	MaxPositions int
	Divisors     []float32 // of each pair's frequency, as GGUF files carry the llama3 type; nil for none
}

// rope reads rope_parameters (transformers 5), or rope_theta and rope_scaling (4).
func (f *fields) rope() Rope {
	top := f.raw
	inner := raw{}
	for _, key := range []string{"rope_scaling", "rope_parameters"} {
		if f.has(key) {
			inner = raw{}
			f.get(key, "a map", &inner)
		}
	}
	sub := fields{raw: inner}
	theta := json.RawMessage("10000.0")
	if f.has("rope_theta") {
		theta = top["rope_theta"]
	}
	if !sub.has("rope_theta") {
		inner["rope_theta"] = theta
	}
	kind := sub.text("rope_type", sub.text("type", "default"))
	r := Rope{
		Type:         kind,
		Theta:        sub.float("rope_theta", 10000),
		Factor:       sub.float("factor", 1),
		Original:     sub.number("original_max_position_embeddings", f.number("max_position_embeddings", 2048)),
		LowFreq:      sub.float("low_freq_factor", 1),
		HighFreq:     sub.float("high_freq_factor", 4),
		BetaFast:     sub.float("beta_fast", 32),
		BetaSlow:     sub.float("beta_slow", 1),
		Truncate:     sub.flag("truncate", true),
		Attention:    sub.float("attention_factor", 0),
		MScale:       sub.float("mscale", 0),
		MScaleAll:    sub.float("mscale_all_dim", 0),
		MaxPositions: f.number("max_position_embeddings", 2048),
	}
	if f.err == nil && sub.err != nil {
		f.err = fmt.Errorf("rope: %w", sub.err)
	}
	return r
}

func (r Rope) check(headDim int) error {
	switch r.Type {
	case "default", "linear", "dynamic", "llama3", "yarn":
	default:
		return fmt.Errorf("rope_type: want one of default, linear, dynamic, llama3, yarn, have %q", r.Type)
	}
	if r.Theta <= 0 || r.Factor <= 0 || r.Original <= 0 || headDim <= 0 {
		return fmt.Errorf("rope: want theta, factor and original_max_position_embeddings above 0, have %g, %g, %d",
			r.Theta, r.Factor, r.Original)
	}
	return nil
}

// Op returns the rotation of heads with d channels for sequences of up to length positions, which only the dynamic
// type looks at.
func (r Rope) Op(d, length int) graph.RoPE {
	theta := r.Theta
	if r.Type == "dynamic" && length > r.MaxPositions {
		grow := r.Factor*float64(length)/float64(r.MaxPositions) - (r.Factor - 1)
		theta *= math.Pow(grow, float64(d)/float64(d-2))
	}
	op := graph.RoPE{InvFreq: make([]float32, d/2), Factor: 1}
	for i := range op.InvFreq {
		op.InvFreq[i] = float32(r.scale(1/math.Pow(theta, float64(2*i)/float64(d)), i, d))
		if i < len(r.Divisors) {
			op.InvFreq[i] /= r.Divisors[i]
		}
	}
	if r.Type == "yarn" {
		op.Factor = float32(r.yarnAttention())
	}
	return op
}

// scale changes the frequency f of pair i of a head with d channels.
func (r Rope) scale(f float64, i, d int) float64 {
	switch r.Type {
	case "linear":
		return f / r.Factor
	case "llama3":
		wave, orig := 2*math.Pi/f, float64(r.Original)
		switch {
		case wave < orig/r.HighFreq:
			return f
		case wave > orig/r.LowFreq:
			return f / r.Factor
		}
		s := (orig/wave - r.LowFreq) / (r.HighFreq - r.LowFreq)
		return (1-s)*f/r.Factor + s*f
	case "yarn":
		at := func(rotations float64) float64 {
			return float64(d) * math.Log(float64(r.Original)/(2*math.Pi*rotations)) / (2 * math.Log(r.Theta))
		}
		lo, hi := at(r.BetaFast), at(r.BetaSlow)
		if r.Truncate {
			lo, hi = math.Floor(lo), math.Ceil(hi)
		}
		lo, hi = max(lo, 0), min(hi, float64(d-1))
		if lo == hi {
			hi += 0.001
		}
		ramp := min(max((float64(i)-lo)/(hi-lo), 0), 1)
		return f*(1-ramp) + f/r.Factor*ramp
	}
	return f
}

func (r Rope) yarnAttention() float64 {
	scale := func(m float64) float64 {
		if r.Factor <= 1 {
			return 1
		}
		return 0.1*m*math.Log(r.Factor) + 1
	}
	switch {
	case r.Attention > 0:
		return r.Attention
	case r.MScale > 0 && r.MScaleAll > 0:
		return scale(r.MScale) / scale(r.MScaleAll)
	}
	return scale(1)
}
