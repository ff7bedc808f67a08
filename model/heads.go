package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"tunesmith/graph"
	"tunesmith/site"
)

// HeadKind is what stands on the last hidden states; empty for a language model.
type HeadKind string

// The kinds of classifiers.
const (
	SequenceHead HeadKind = "sequence" // one row of logits for a sequence, read at its last token
	TokenHead    HeadKind = "token"    // one row for every token
)

// Head is a classifier's setting.
type Head struct {
	Kind   HeadKind
	Labels int
	// Problem is problem_type: regression, single_label_classification or multi_label_classification, or empty.
	Problem string
	// Names are the labels' by id, where the config has them.
	Names []string
}

// classes of transformers by kind.
var headClasses = map[HeadKind]string{SequenceHead: "ForSequenceClassification", TokenHead: "ForTokenClassification"}

// head reads which head the architecture's class has.
func (f *fields) head() Head {
	var h Head
	class := ""
	if list := f.texts("architectures"); len(list) > 0 {
		class = list[0]
	}
	for kind, suffix := range headClasses {
		if strings.HasSuffix(class, suffix) {
			h.Kind = kind
		}
	}
	if h.Kind == "" {
		return h
	}
	labels := map[string]string{}
	f.get("id2label", "a map from ids to names", &labels)
	h.Labels = f.number("num_labels", 2)
	if len(labels) > 0 {
		h.Labels = len(labels)
	}
	for i := range h.Labels {
		if name, ok := labels[fmt.Sprint(i)]; ok {
			h.Names = append(h.Names, name)
		}
	}
	if len(h.Names) < h.Labels {
		h.Names = nil
	}
	h.Problem = f.text("problem_type", "")
	return h
}

func (h Head) check() error {
	switch {
	case h.Kind != "" && h.Kind != SequenceHead && h.Kind != TokenHead:
		return fmt.Errorf("head: want %s, %s or none, have %q", SequenceHead, TokenHead, h.Kind)
	case h.Kind != "" && (h.Labels < 1 || h.Labels > 1<<20):
		return fmt.Errorf("num_labels: want 1 … %d, have %d", 1<<20, h.Labels)
	}
	return nil
}

// write adds the head's keys to a config.json.
func (h Head) write(a architecture, m map[string]any) {
	m["architectures"] = []string{a.class + a.causal}
	if h.Kind == "" {
		return
	}
	m["architectures"] = []string{a.class + headClasses[h.Kind]}
	m["num_labels"] = h.Labels
	if h.Names != nil {
		ids, labels := map[string]string{}, map[string]int{}
		for i, name := range h.Names {
			ids[fmt.Sprint(i)], labels[name] = name, i
		}
		m["id2label"], m["label2id"] = ids, labels
		delete(m, "num_labels")
	}
	if h.Problem != "" {
		m["problem_type"] = h.Problem
	}
}

// classifier returns the operands of the projection to the labels: without a bias for sequences, with one for tokens,
// as transformers' classes have it.
func (m *Model) classifier(s *site.Scope, h *graph.Node) head {
	c := m.Config
	name := "score"
	if c.Head.Kind == TokenHead {
		name = m.arch.names.tokenHead
	}
	var o head
	o.h, o.w = s.Head(name, "", h, c.Head.Labels)
	if c.Head.Kind == TokenHead {
		o.bias = s.HeadBias(name, c.Head.Labels)
	}
	return o
}

// LastTokens returns the places, in a batch of rows of cols ids one behind the other, of each row's last id that is not
// pad: where transformers reads the logits of a sequence. pad −1 means that rows have no padding; a row of padding alone
// gives its last place.
func LastTokens(ids []int32, cols, pad int) []int32 {
	out := make([]int32, len(ids)/max(cols, 1))
	for r := range out {
		at := cols - 1
		for i := at; i >= 0 && pad >= 0; i-- {
			if int(ids[r*cols+i]) != pad {
				at = i
				break
			}
		}
		out[r] = int32(r*cols + at)
	}
	return out
}

// WithHead returns the model with a classifier in the place of its head; both share one file. A head that the file does
// not have starts from normal values of deviation 1/√(C+1) (Stiennon et al. 2020, arXiv 2009.01325).
func (m *Model) WithHead(h Head) (*Model, error) {
	if m.Config.Head.Kind == h.Kind && m.Config.Head.Labels == h.Labels {
		return m, nil
	}
	c := m.Config
	c.Head = h
	out, err := New(c)
	if err != nil {
		return nil, err
	}
	out.Path, out.File, out.gguf, out.bare, out.layout, out.newHead = m.Path, m.File, m.gguf, m.bare, m.layout, true
	return out, nil
}

// headStart is the start of a classifier's weight that no file has.
func headStart(p site.Param) site.Init {
	return func(dst []float32, rng *rand.Rand, _ func(string) []float32) {
		scale := 1 / math.Sqrt(float64(p.Shape[len(p.Shape)-1])+1)
		for i := range dst {
			dst[i] = float32(rng.NormFloat64() * scale)
		}
	}
}
