package evals

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"tunesmith/engine"
	_ "tunesmith/engine/cpu"
	"tunesmith/internal/golden"
	"tunesmith/model"
	"tunesmith/token"
)

func TestGoldenIFD(t *testing.T) {
	dir := golden.Dir(t, "dataquality")
	var file struct {
		Model string
		BOS   int
		Cases []struct {
			Answer    string
			Prompt    []int   `json:"prompt_ids"`
			IDs       []int   `json:"answer_ids"`
			Given     float64 `json:"mean_ce_given_prompt"`
			Alone     float64 `json:"mean_ce_alone"`
			Header    float64 `json:"mean_ce_after_response_header"`
			PPL       float64 `json:"ifd_ppl_ratio"`
			CE        float64 `json:"ifd_ce_ratio"`
			CEHeader  float64 `json:"ifd_ce_ratio_response_header"`
			KeepByPPL bool    `json:"keep_ppl"`
		}
	}
	golden.JSON(t, filepath.Join(dir, "ifd.json"), &file)
	path := filepath.Join(golden.Dir(t, "."), file.Model)
	m, err := model.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	tok, err := token.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	adapted, err := m.Adapt(0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := engine.Open("cpu", engine.Options{Precision: engine.FP32})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s := NewScorer(adapted, b)
	near := func(what string, want, have float64) {
		t.Helper()
		if math.Abs(want-have) > 1e-4*math.Max(1, math.Abs(want)) {
			t.Errorf("%s: want %g, have %g", what, want, have)
		}
	}
	for _, c := range file.Cases {
		t.Run(c.Answer, func(t *testing.T) {
			if ids := tok.IDs(c.Answer); !slices.Equal(ids, c.IDs) {
				t.Fatalf("ids: want %v, have %v", c.IDs, ids)
			}
			have, err := s.IFD(t.Context(), []int{file.BOS}, c.Prompt, c.IDs)
			if err != nil {
				t.Fatal(err)
			}
			near("given", c.Given, have.Given)
			near("alone", c.Alone, have.Alone)
			near("ratio of perplexities", c.PPL, have.Perplexities())
			near("ratio of losses", c.CE, have.Losses())
			header, err := s.Loss(t.Context(), append([]int{file.BOS}, tok.IDs("### Response:")...), c.IDs)
			if err != nil {
				t.Fatal(err)
			}
			near("behind the header", c.Header, header)
			near("ratio to that", c.CEHeader, have.Given/header)
			if keep := have.Perplexities() < 1; keep != c.KeepByPPL {
				t.Errorf("keep: want %v, have %v", c.KeepByPPL, keep)
			}
		})
	}
}

func TestScorerRefuses(t *testing.T) {
	s := NewScorer(&model.Adapted{Model: &model.Model{Config: model.Config{MaxPositions: 4}}}, nil)
	for _, c := range []struct{ before, answer []int }{{nil, nil}, {nil, []int{1}}, {[]int{1, 2}, []int{1, 2, 3}}} {
		if _, err := s.Loss(t.Context(), c.before, c.answer); err == nil {
			t.Errorf("%v: no error", c)
		}
	}
}
