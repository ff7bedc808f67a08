package methods

import (
	"cmp"
	"fmt"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// PTuning is prompts of virtual tokens in every layer (P-tuning v2, Liu et al. 2021, arXiv 2110.07602), or in front of
// the embedded text alone but made by an encoder (P-tuning v1, Liu et al. 2021, 2103.10385).
//
//	all:    attention(q, [P_K; K], [P_V; V]) in each layer, P trained itself or P = W₂·tanh(W₁·E)
//	input:  h₀ = [P; embed(tokens)],  P = MLP(E) or MLP(LSTM(E))
//
// The encoder serves training alone; the file holds P. It stops where a prefix does: it takes part of the context and
// does not merge.
type PTuning struct {
	Tokens  int    `yaml:"tokens" doc:"number of virtual tokens" min:"1" max:"65536"`
	Depth   string `yaml:"depth" doc:"all layers (v2), or the input alone (v1)" enum:"all,input"`
	Encoder string `yaml:"encoder" doc:"what makes the prompts in training; lstm only at the input" enum:"none,mlp,lstm"`
	Width   int    `yaml:"encoder_width" doc:"width of the encoder's hidden layers; 0 is that of what it makes" min:"0"`
	Layers  int    `yaml:"encoder_layers" doc:"layers of the lstm" min:"1"`
	Init    string `yaml:"init" doc:"first values without an encoder: drawn tokens, a text, zeros, or random ones" enum:"vocabulary,text,zero,random"`
	Text    string `yaml:"text" doc:"text that the prompts start as; says what the task is"`

	words words
	flat  bool // the file holds the result of the encoder
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "ptuningv2", PEFT: "P_TUNING", Rate: 2e-2, Moved: true,
		Doc: "trains prompts of virtual tokens in every layer, or encoded ones at the input",
		New: func() any {
			return &PTuning{Tokens: 20, Depth: "all", Encoder: "none", Layers: 2, Init: "vocabulary", words: words{bos: -1}}
		},
	})
}

// UseText implements tune.TextUser.
func (o *PTuning) UseText(t tune.Text) error { return o.words.read(t, o.Text) }

// Graft implements tune.Parameters.
func (o *PTuning) Graft(m *site.Map) (any, error) {
	switch {
	case o.Depth == "all" && o.Encoder == "lstm":
		return nil, fmt.Errorf("encoder: want none or mlp with depth all, have lstm, which reads prompts at the input")
	case o.Init == "text" && o.Text == "" && !o.flat:
		return nil, fmt.Errorf("text: want what init text starts from, have none")
	case o.Depth == "all":
		p := Prefix{Tokens: o.Tokens, Init: o.Init, Text: o.Text, words: o.words}
		if o.Encoder == "mlp" {
			p.Projection = cmp.Or(o.Width, 512) // of the authors' code
		}
		return newDeepPrompt(p, m)
	}
	p := encodedPrompt{PTuning: *o, prompt: prompt{encoded{n: o.Tokens, width: m.Hidden, out: m.Hidden, start: normal(1)}, m}}
	h := cmp.Or(o.Width, m.Hidden)
	p.Width = h
	switch {
	case o.flat || o.Encoder == "none":
		p.start = o.first(m)
	case o.Encoder == "mlp":
		p.encoders = []encoder{chain{"prompt_encoder.mlp_head", []int{m.Hidden, h, h, m.Hidden}, graph.ReLU}}
	default:
		p.encoders = []encoder{
			lstm{"prompt_encoder.lstm_head", m.Hidden, h, o.Layers},
			chain{"prompt_encoder.mlp_head", []int{2 * h, 2 * h, m.Hidden}, graph.ReLU},
		}
	}
	return p, nil
}

// first returns the first values of a prompt without an encoder.
func (o *PTuning) first(m *site.Map) site.Init {
	table := m.Embedding + ".weight"
	switch o.Init {
	case "zero":
		return zeros
	case "random":
		return likeTable(table)
	}
	return o.words.rowsOf(table, o.Tokens, m.Vocab, m.Hidden)
}

// ReadPEFT implements tune.PEFTReader.
func (o *PTuning) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	*o = PTuning{
		Tokens: r.readTokens(), Depth: "input", Init: "random", Width: key(&r, "encoder_hidden_size", 0),
		Layers: key(&r, "encoder_num_layers", 2), words: words{bos: -1}, flat: true,
	}
	switch kind := key(&r, "encoder_reparameterization_type", "MLP"); kind {
	case "MLP":
		o.Encoder = "mlp"
	case "LSTM":
		o.Encoder = "lstm"
	default:
		r.fail(fmt.Errorf("encoder_reparameterization_type: want MLP or LSTM, have %q", kind))
	}
	return r.err
}

// encodedPrompt is a prompt at the input that an encoder makes.
type encodedPrompt struct {
	PTuning
	prompt
}

// PEFT implements tune.PEFTWriter.
func (p encodedPrompt) PEFT() map[string]any {
	c := p.keys("P_TUNING")
	kind := "MLP" // PEFT knows no prompt of this kind without an encoder, and needs none for a finished one
	if p.Encoder == "lstm" {
		kind = "LSTM"
	}
	c["encoder_reparameterization_type"], c["encoder_hidden_size"] = kind, p.Width
	c["encoder_num_layers"], c["encoder_dropout"] = p.Layers, 0.0
	return c
}
