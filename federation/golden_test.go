package federation

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tunesmith/internal/golden"
)

// effective are the hyper-parameters of a strategy as Flower names them.
type effective struct {
	Eta       float64  `json:"eta"`
	Beta1     *float64 `json:"beta_1"`
	Beta2     *float64 `json:"beta_2"`
	Tau       float64  `json:"tau"`
	Rate      float64  `json:"server_learning_rate"`
	Momentum  *float64 `json:"server_momentum"`
	Trim      *float64 `json:"beta"`
	Malicious int      `json:"num_malicious_nodes"`
	Select    int      `json:"num_nodes_to_select"`
	Fairness  *float64 `json:"q"`
	LocalRate float64  `json:"client_learning_rate"`
}

func (e effective) options() Options {
	return Options{
		Rate: e.Eta + e.Rate, Beta1: e.Beta1, Beta2: e.Beta2, Tau: e.Tau, Momentum: e.Momentum, Trim: e.Trim,
		Malicious: e.Malicious, Select: e.Select, Fairness: e.Fairness, LocalRate: e.LocalRate,
	}
}

func TestGoldenAggregate(t *testing.T) {
	dir := golden.Dir(t, "federated")
	var g struct {
		Clients    int       `json:"num_clients"`
		Examples   []int     `json:"num_examples"`
		Losses     []float64 `json:"train_loss"`
		Strategies []struct {
			Name      string             `json:"name"`
			Class     string             `json:"cls"`
			Effective effective          `json:"effective"`
			Metrics   map[string]float64 `json:"metrics"`
			Error     string             `json:"error"`
		} `json:"strategies"`
	}
	golden.JSON(t, filepath.Join(dir, "aggregate.json"), &g)
	tensors := golden.Load(t, filepath.Join(dir, "aggregate.safetensors"))
	var init []Tensor
	rounds := 0
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		if k, ok := strings.CutPrefix(name, "init/"); ok {
			init = append(init, Tensor{k, tensors[name].Shape, tensors[name].F32})
		}
		if m := regexp.MustCompile(`^round(\d+)/`).FindStringSubmatch(name); m != nil {
			n, _ := strconv.Atoi(m[1])
			rounds = max(rounds, n)
		}
	}
	for _, s := range g.Strategies {
		t.Run(s.Name, func(t *testing.T) {
			if s.Error != "" {
				t.Skipf("the library failed: %s", s.Error)
			}
			strategy, err := NewStrategy(strings.ToLower(s.Class), s.Effective.options())
			if err != nil {
				t.Fatal(err)
			}
			global := clone(init)
			for r := 1; r <= rounds; r++ {
				var updates []Update
				for c := range g.Clients {
					u := Update{Client: fmt.Sprintf("%03d", c), Examples: g.Examples[c], Loss: g.Losses[c]}
					for _, w := range global {
						delta := tensors[fmt.Sprintf("round%d/client%d/delta/%s", r, c, w.Name)].F32
						own := Tensor{w.Name, w.Shape, slices.Clone(w.Values)}
						for i, d := range delta {
							own.Values[i] += d
						}
						u.Tensors = append(u.Tensors, own)
					}
					updates = append(updates, u)
				}
				if global, err = strategy.Aggregate(r, global, updates); err != nil {
					t.Fatal(err)
				}
				// The memory survives being stored.
				again, _ := NewStrategy(strings.ToLower(s.Class), s.Effective.options())
				if err := again.Restore(strategy.State()); err != nil {
					t.Fatal(err)
				}
				strategy = again
				for _, w := range global {
					want := tensors[fmt.Sprintf("%s/round%d/%s", s.Name, r, w.Name)].F32
					if d := golden.RelL2(w.Values, want); !(d <= 1e-5) {
						t.Errorf("round %d, %s: relative error %g", r, w.Name, d)
					}
				}
				if want, ok := s.Metrics["train_loss"]; ok && !strings.Contains(s.Class, "rum") && s.Class != "Bulyan" {
					if d := math.Abs(MeanLoss(updates) - want); d > 1e-6 {
						t.Errorf("loss: want %g, have %g", want, MeanLoss(updates))
					}
				}
			}
		})
	}
}

func TestGoldenClosedForm(t *testing.T) {
	var g struct {
		Cases map[string]struct {
			First []float64 `json:"first5"`
			Last  float64   `json:"round200"`
		} `json:"cases"`
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "federated"), "closed_form.json"), &g)
	for name, c := range g.Cases {
		t.Run(name, func(t *testing.T) {
			kind, mu, _ := strings.Cut(name, "_mu")
			proximal, _ := strconv.ParseFloat(mu, 64)
			const rate, steps, rounds = 0.1, 10, 200
			curve, optimum := []float32{1, 4}, []float32{0, 3}
			strategy, err := NewStrategy(kind, Options{Clients: 2})
			if err != nil {
				t.Fatal(err)
			}
			global := []Tensor{{"w", []int{1}, []float32{0}}}
			own := [][]Tensor{empty(global), empty(global)} // control variates
			for r := 1; r <= rounds; r++ {
				control := strategy.State()[controlName]
				if control == nil {
					control = empty(global)
				}
				control = clone(control)
				var updates []Update
				for i := range 2 {
					y := clone(global)
					for range steps {
						w := &y[0].Values[0]
						grad := []float32{curve[i] * (*w - optimum[i])}
						correct(grad, y[0].Values, global[0].Values, own[i][0].Values, control[0].Values, correction{proximal: proximal, control: kind == "scaffold"})
						*w -= rate * grad[0]
					}
					u := Update{Client: fmt.Sprint(i), Examples: 1, Tensors: y}
					if kind == "scaffold" {
						u.Control = Drift(global, y, control, steps, rate)
						own[i] = plus(own[i], u.Control)
					}
					updates = append(updates, u)
				}
				if global, err = strategy.Aggregate(r, global, updates); err != nil {
					t.Fatal(err)
				}
				have := float64(global[0].Values[0])
				if r <= len(c.First) && math.Abs(have-c.First[r-1]) > 1e-5 {
					t.Errorf("round %d: want %g, have %g", r, c.First[r-1], have)
				}
				if r == rounds && math.Abs(have-c.Last) > 1e-5 {
					t.Errorf("last round: want %g, have %g", c.Last, have)
				}
			}
		})
	}
}

// TestGoldenPartitions compares kinds: sizes where they follow from the counts alone, and what a split promises.
func TestGoldenPartitions(t *testing.T) {
	var g struct {
		Cases []struct {
			Name   string  `json:"name"`
			Sizes  []int   `json:"sizes"`
			Labels [][]int `json:"labels"`
			Cover  bool    `json:"disjoint_cover"`
			Error  string  `json:"error"`
		} `json:"cases"`
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "federated"), "partition_facts.json"), &g)
	for _, c := range g.Cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.Error != "" {
				t.Skipf("the library failed: %s", c.Error)
			}
			var labels []string
			for l := range c.Labels[0] {
				n := 0
				for _, part := range c.Labels {
					n += part[l]
				}
				if !c.Cover {
					n = 200 // flwr's random classes may drop some
				}
				for range n {
					labels = append(labels, fmt.Sprint(l))
				}
			}
			p := Partition{Clients: len(c.Sizes), Seed: 1}
			fields := strings.Split(c.Name, "_")
			exact := false
			switch fields[0] {
			case "iid", "linear", "exponential":
				p.Kind, exact = fields[0], true
			case "dirichlet":
				p.Kind, p.Least, p.Balance = fields[0], 10, strings.HasSuffix(c.Name, "balancing")
				p.Alpha, _ = strconv.ParseFloat(fields[1], 64)
			case "pathological":
				p.Kind = "classes"
				p.Classes, _ = strconv.Atoi(fields[1])
			case "shard":
				p.Kind, p.Shards = "shards", 4
				if _, n, ok := strings.Cut(fields[1], "x"); ok {
					p.Shards, _ = strconv.Atoi(n)
					exact = true
				}
			default:
				t.Fatalf("a kind of partition that the test does not know: %s", c.Name)
			}
			split, err := p.Split(labels)
			if err != nil {
				t.Fatal(err)
			}
			sizes, all := []int{}, []int{}
			for _, part := range split {
				sizes, all = append(sizes, len(part)), append(all, part...)
			}
			slices.Sort(all)
			for i, v := range all {
				if i != v {
					t.Fatalf("want every example once, have %d at %d", v, i)
				}
			}
			if len(all) != len(labels) {
				t.Errorf("want %d examples, have %d", len(labels), len(all))
			}
			if exact && !slices.Equal(sizes, c.Sizes) {
				t.Errorf("sizes: want %v, have %v", c.Sizes, sizes)
			}
			if p.Kind == "classes" {
				for k, part := range split {
					seen := map[string]bool{}
					for _, i := range part {
						seen[labels[i]] = true
					}
					if len(seen) != p.Classes {
						t.Errorf("client %d: want %d labels, have %d", k, p.Classes, len(seen))
					}
				}
			}
			again, _ := p.Split(labels)
			if !slices.EqualFunc(split, again, slices.Equal) {
				t.Error("want the same split of the same seed")
			}
		})
	}
}

func TestGoldenWire(t *testing.T) {
	var g struct {
		Cases []struct {
			Name   string          `json:"name"`
			Dtype  string          `json:"dtype"`
			Shape  []int           `json:"shape"`
			NPY    string          `json:"npy_hex"`
			Record string          `json:"deterministic_hex"`
			Text   string          `json:"text"`
			Equal  json.RawMessage `json:"array_data_equals_npy"`
		} `json:"cases"`
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "federated"), "wire.json"), &g)
	descr := map[string]string{"float32": "<f4", "float16": "<f2", "float64": "<f8", "int8": "|i1", "int64": "<i8", "bool": "|b1", "int32": "<i4", "uint8": "|u1"}
	for _, c := range g.Cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.Record != "" {
				t.Skip("Flower's records come with Flower's transport, which is not here")
			}
			want, err := hex.DecodeString(c.NPY)
			if err != nil {
				t.Fatal(err)
			}
			begin := 10 + int(binary.LittleEndian.Uint16(want[8:]))
			fortran := strings.Contains(string(want[:begin]), "'fortran_order': True")
			have := NPY(descr[c.Dtype], c.Shape, fortran, want[begin:])
			if string(have) != string(want) {
				t.Errorf("want %q,\nhave %q", want, have)
			}
			if c.Dtype == "float32" && !fortran {
				x := Tensor{Shape: c.Shape}
				for b := want[begin:]; len(b) > 0; b = b[4:] {
					x.Values = append(x.Values, math.Float32frombits(binary.LittleEndian.Uint32(b)))
				}
				if string(x.Array()) != string(want) {
					t.Errorf("want %q,\nhave %q", want, x.Array())
				}
			}
		})
	}
}
