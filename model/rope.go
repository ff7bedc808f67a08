package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"tunesmith/graph"
)

// Rope is the rotary positions' setting. Formulas of the types are those of transformers' modeling_rope_utils.
type Rope struct {
	Type         string // default, linear, dynamic, llama3, yarn, longrope; none where a family has no rotation
	Theta        float64
	Partial      float64 // share of a head's channels that are rotated; 0 is all
	Interleaved  bool    // pairs are neighbours
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
	Short, Long  []float64 // divisors of each pair's frequency, of longrope
	MaxPositions int
	Divisors     []float32 // of each pair's frequency, as GGUF files carry the llama3 type; nil for none
}

// ropeKeys is what differs between families: names and defaults.
type ropeKeys struct {
	theta, partial   string // "" for rope_theta and partial_rotary_factor
	thetaOf, partOf  float64
	interleaved, off bool
	// layered says that rope_parameters may hold one map for each type of layer; that of full_attention is read.
	layered bool
}

// rope reads rope_parameters (transformers 5), or rope_theta and rope_scaling (4).
func (f *fields) rope(k ropeKeys) Rope {
	if k.off {
		return Rope{Type: noRope}
	}
	sub := fields{raw: raw{}}
	for _, key := range []string{"rope_scaling", "rope_parameters"} {
		if f.has(key) {
			sub.raw = raw{}
			f.get(key, "a map", &sub.raw)
		}
	}
	if k.layered && sub.has("full_attention") {
		inner := raw{}
		sub.get("full_attention", "a map", &inner)
		sub.raw = inner
	}
	limit := f.number("max_position_embeddings", 2048)
	kind := sub.text("rope_type", sub.text("type", "default"))
	original := limit
	if kind == "su" {
		kind = longRope
	}
	if kind == longRope {
		original = f.number("original_max_position_embeddings", limit)
	}
	theta := f.float(cmp.Or(k.theta, "rope_theta"), cmp.Or(k.thetaOf, 10000))
	partial := f.float(cmp.Or(k.partial, "partial_rotary_factor"), cmp.Or(k.partOf, 1))
	r := Rope{
		Type:         kind,
		Theta:        sub.float("rope_theta", theta),
		Partial:      sub.float("partial_rotary_factor", partial),
		Interleaved:  k.interleaved,
		Factor:       sub.float("factor", 1),
		Original:     sub.number("original_max_position_embeddings", original),
		LowFreq:      sub.float("low_freq_factor", 1),
		HighFreq:     sub.float("high_freq_factor", 4),
		BetaFast:     sub.float("beta_fast", 32),
		BetaSlow:     sub.float("beta_slow", 1),
		Truncate:     sub.flag("truncate", true),
		Attention:    sub.float("attention_factor", 0),
		MScale:       sub.float("mscale", 0),
		MScaleAll:    sub.float("mscale_all_dim", 0),
		MaxPositions: limit,
	}
	if kind == longRope {
		sub.get("short_factor", "a list of numbers", &r.Short)
		sub.get("long_factor", "a list of numbers", &r.Long)
		if r.Original > 0 && !sub.has("factor") {
			r.Factor = float64(limit) / float64(r.Original)
		}
	}
	if r.Partial == 1 {
		r.Partial = 0
	}
	if f.err == nil && sub.err != nil {
		f.err = fmt.Errorf("rope: %w", sub.err)
	}
	return r
}

// The type of families without rotation, and one of several names.
const (
	noRope   = "none"
	longRope = "longrope"
)

// width returns the number of channels of a head with d channels that are rotated.
func (r Rope) width(d int) int {
	if r.Partial == 0 {
		return d
	}
	return int(float64(d) * r.Partial)
}

func (r Rope) check(headDim int) error {
	width := r.width(headDim)
	switch r.Type {
	case noRope:
		return nil
	case "default", "linear", "dynamic", "llama3", "yarn":
	case longRope:
		if len(r.Short) != width/2 || len(r.Long) != width/2 || slices.Min(append(r.Short, r.Long...)) <= 0 {
			return fmt.Errorf("rope: want %d numbers above 0 as short_factor and as long_factor, have %v and %v", width/2, r.Short, r.Long)
		}
	default:
		return fmt.Errorf("rope_type: want one of default, linear, dynamic, llama3, yarn, longrope, have %q", r.Type)
	}
	if r.Theta <= 0 || r.Factor <= 0 || r.Original <= 0 || headDim <= 0 {
		return fmt.Errorf("rope: want theta, factor and original_max_position_embeddings above 0, have %g, %g, %d",
			r.Theta, r.Factor, r.Original)
	}
	if width <= 0 || width > headDim || width%2 != 0 {
		return fmt.Errorf("head_dim: want an even number of rotated channels above 0, have %d of %d", width, headDim)
	}
	return nil
}

// Op returns the rotation of heads with d channels for sequences of up to length positions, which only the types
// dynamic and longrope look at.
func (r Rope) Op(d, length int) graph.RoPE {
	d = r.width(d)
	theta := r.Theta
	if r.Type == "dynamic" && length > r.MaxPositions {
		grow := r.Factor*float64(length)/float64(r.MaxPositions) - (r.Factor - 1)
		theta *= math.Pow(grow, float64(d)/float64(d-2))
	}
	op := graph.RoPE{InvFreq: make([]float32, d/2), Factor: 1, Interleaved: r.Interleaved}
	for i := range op.InvFreq {
		f := r.scale(1/math.Pow(theta, float64(2*i)/float64(d)), i, d)
		switch {
		case r.Type == longRope && length > r.Original:
			f /= r.Long[i]
		case r.Type == longRope:
			f /= r.Short[i]
		}
		op.InvFreq[i] = float32(f)
		if i < len(r.Divisors) {
			op.InvFreq[i] /= r.Divisors[i]
		}
	}
	switch r.Type {
	case "yarn":
		op.Factor = float32(r.yarnAttention())
	case longRope:
		op.Factor = float32(r.longAttention())
	}
	return op
}

// Edge returns the number of positions beyond which all positions of a row rotate in another way, which a cache of keys
// cannot follow; 0 for none.
func (r Rope) Edge() int {
	if r.Type == longRope {
		return r.Original
	}
	return 0
}

// longAttention is the factor of longrope (Ding et al. 2024, arXiv 2402.13753).
func (r Rope) longAttention() float64 {
	switch {
	case r.Attention > 0:
		return r.Attention
	case r.Factor <= 1 || r.Original <= 1:
		return 1
	}
	return math.Sqrt(1 + math.Log(r.Factor)/math.Log(float64(r.Original)))
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

// plainRope is the default rotation.
func plainRope(theta float64, limit int) Rope {
	return Rope{
		Type: "default", Theta: theta, Factor: 1, Original: limit, LowFreq: 1, HighFreq: 4, BetaFast: 32, BetaSlow: 1, Truncate: true,
		MaxPositions: limit,
	}
}
