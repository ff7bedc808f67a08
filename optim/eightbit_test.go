package optim

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tunesmith/internal/golden"
	"tunesmith/quant"
)

// encodeByTable is the search of bitsandbytes' library for processors: elements are first rounded to 65,536 places
// between −1 and 1, so that codes near zero are not always the nearest.
func encodeByTable(q quant.Blockwise, x []float32) {
	for b := range q.Absmax {
		block := x[b*q.Block : min((b+1)*q.Block, len(x))]
		var most float32
		for _, v := range block {
			most = max(most, v, -v)
		}
		q.Absmax[b] = most
		for i, v := range block {
			place := uint16((v/most+1)*0.5*65535 + 0.5)
			rounded := float32(place)/65535*2 - 1
			code := 0
			for code < 255 && (q.Book[code]+q.Book[code+1])*0.5 < rounded {
				code++
			}
			q.Codes[b*q.Block+i] = byte(code)
		}
	}
}

// TestGoldenEightBit makes the steps of bitsandbytes' optimizers: with its own search of codes the codes are equal; with
// the exact search the values stay as near to it as its search is to the exact one.
func TestGoldenEightBit(t *testing.T) {
	dir := golden.Dir(t, "quant")
	var file struct {
		Cases []struct {
			Name   string
			OK     bool
			LR     float64
			Steps  int
			Config struct {
				Decay float64   `json:"weight_decay"`
				Betas []float64 `json:"betas"`
				Eps   float64   `json:"eps"`
			}
		}
	}
	golden.JSON(t, filepath.Join(dir, "bnb_optim.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	values := golden.Load(t, filepath.Join(dir, "bnb_optim.safetensors"))
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			if !c.OK {
				t.Skip("the library failed")
			}
			name := strings.ToLower(strings.TrimPrefix(c.Name, "Paged"))
			base, full := strings.CutSuffix(name, "32bit")
			if !full {
				base = strings.TrimSuffix(name, "8bit") + "_8bit"
			}
			steps := func(encode func(quant.Blockwise, []float32)) ([]float32, map[string]StateTensor) {
				opt, err := New(base, Options{Betas: c.Config.Betas, Eps: c.Config.Eps, Groups: []Group{{LRScale: 1, WeightDecay: c.Config.Decay}}})
				if err != nil {
					t.Fatal(err)
				}
				opt.(*stepper).encode = encode
				p := []Param{{Name: "p", Shape: values["p0"].Shape, Value: slices.Clone(values["p0"].F32)}}
				for i := range c.Steps {
					p[0].Grad = values[fmt.Sprintf("grad%d", i)].F32
					if err := opt.Step(p, c.LR); err != nil {
						t.Fatal(err)
					}
				}
				state := map[string]StateTensor{}
				for _, s := range opt.State().Tensors {
					state[s.Name] = s
				}
				return p[0].Value, state
			}
			want := values[fmt.Sprintf("%s/p%d", c.Name, c.Steps)].F32
			have, state := steps(encodeByTable)
			compare(t, "p", have, want, 1e-6)
			for i, name := range []string{"exp_avg", "exp_avg_sq"} {
				ref, ok := values[fmt.Sprintf("%s/state%d", c.Name, i+1)]
				if !ok {
					continue
				}
				if full {
					compare(t, name, state[name].Data, ref.F32, 1e-6)
					continue
				}
				for k, code := range ref.I32 {
					if byte(code) != state[name].Codes[k] {
						t.Fatalf("%s: element %d: want code %d, have %d", name, k, code, state[name].Codes[k])
					}
				}
				absmax := values[fmt.Sprintf("%s/absmax%d", c.Name, i+1)].F32
				compare(t, name+"_absmax", state[name+"_absmax"].Data, absmax, 1e-6)
				if book := values[fmt.Sprintf("%s/qmap%d", c.Name, i+1)].F32; !slices.Equal(book, codedBooks[name][:]) {
					t.Errorf("%s: another code book", name)
				}
			}
			exact, _ := steps(quant.Blockwise.Quantize)
			// A step is at most a few times lr for any state; the searches part only where averages are near zero.
			far := 0
			for i, v := range exact {
				d := math.Abs(float64(v) - float64(want[i]))
				if d > 4*c.LR {
					t.Errorf("element %d: want %v, have %v", i, want[i], v)
				}
				if d > 2e-6 {
					far++
				}
			}
			if far > len(exact)/10 {
				t.Errorf("%d of %d values differ", far, len(exact))
			}
		})
	}
}

func BenchmarkAdamWEightBit(b *testing.B) {
	for _, name := range []string{"adamw", "adamw_8bit"} {
		b.Run(name, func(b *testing.B) {
			opt, err := New(name, Options{})
			if err != nil {
				b.Fatal(err)
			}
			const n = 1 << 20
			p := []Param{{Name: "p", Shape: []int{n}, Value: make([]float32, n), Grad: make([]float32, n)}}
			for i := range p[0].Grad {
				p[0].Grad[i] = float32(math.Sin(float64(i)))
			}
			for b.Loop() {
				if err := opt.Step(p, 1e-3); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Melem/s")
		})
	}
}
