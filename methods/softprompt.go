package methods

import (
	"fmt"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// SoftPrompt puts virtual tokens in front of every row and trains their embeddings; the model stays as it is.
//
//	h₀ = [P; embed(tokens)],  P (tokens, hidden)
//
// Lester et al. 2021 (arXiv 2104.08691). It works well on large models and falls behind on small ones; then take a
// method that reaches every layer. Names and files are PEFT's.
type SoftPrompt struct {
	Tokens int    `yaml:"tokens" doc:"number of virtual tokens" min:"1" max:"65536"`
	Init   string `yaml:"init" doc:"first values: embeddings of drawn tokens, of a text, random ones, or the prompt of another adapter" enum:"vocabulary,text,random,transfer"`
	Text   string `yaml:"text" doc:"text that the prompt starts as, repeated or cut to its length; says what the task is"`
	From   string `yaml:"from" doc:"adapter directory whose prompt is handed on"`

	words     words
	tokenizer string // of PEFT's config
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "softprompt", PEFT: "PROMPT_TUNING", Rate: 1e-2, Moved: true,
		Doc: "trains the embeddings of virtual tokens in front of every row",
		New: func() any { return &SoftPrompt{Tokens: 20, Init: "vocabulary", words: words{bos: -1}} },
	})
}

// UseText implements tune.TextUser.
func (o *SoftPrompt) UseText(t tune.Text) error { return o.words.read(t, o.Text) }

// Graft implements tune.Parameters.
func (o *SoftPrompt) Graft(m *site.Map) (any, error) {
	table := m.Embedding + ".weight"
	start := o.words.rowsOf(table, o.Tokens, m.Vocab, m.Hidden)
	var err error
	switch o.Init {
	case "random":
		start = likeTable(table)
	case "text":
		if o.Text == "" {
			return nil, fmt.Errorf("text: want what init text starts from, have none")
		}
	case "transfer":
		if start, err = handedOn(o.From, m.Hidden); err != nil {
			return nil, err
		}
	}
	return softPrompt{SoftPrompt: *o, prompt: prompt{encoded{n: o.Tokens, width: m.Hidden, out: m.Hidden, start: start}, m}}, nil
}

// ReadPEFT implements tune.PEFTReader.
func (o *SoftPrompt) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	*o = SoftPrompt{Tokens: r.readTokens(), Init: "random", words: words{bos: -1}, Text: key(&r, "prompt_tuning_init_text", ""), tokenizer: key(&r, "tokenizer_name_or_path", "")}
	switch kind := key(&r, "prompt_tuning_init", "RANDOM"); kind {
	case "RANDOM":
	case "SAMPLE_VOCAB":
		o.Init = "vocabulary"
	case "TEXT":
		o.Init = "text"
	default:
		r.fail(fmt.Errorf("prompt_tuning_init: want RANDOM, TEXT or SAMPLE_VOCAB, have %q", kind))
	}
	return r.err
}

// prompt is embeddings of virtual tokens in front of every row.
type prompt struct {
	encoded
	m *site.Map
}

// Prefix implements site.Prefixer.
func (p prompt) Prefix() (n, shift int) { return p.n, p.n }

// GraftPrompt implements site.PromptGrafter.
func (p prompt) GraftPrompt(s *site.Scope, _ string) *graph.Node { return p.build(s) }

// PEFTTensors implements tune.PEFTTensors.
func (p prompt) PEFTTensors(_ []site.Param, value func(string) []float32) []checkpoint.Tensor {
	return []checkpoint.Tensor{checkpoint.Float32Tensor(promptTensor, []int{p.n, p.out}, p.compute(value))}
}

func (p prompt) keys(kind string) map[string]any {
	return promptKeys(kind, p.n, p.out, p.m.KVs[0].Queries, len(p.m.KVs))
}

type softPrompt struct {
	SoftPrompt
	prompt
}

// PEFT implements tune.PEFTWriter.
func (p softPrompt) PEFT() map[string]any {
	c := p.keys("PROMPT_TUNING")
	c["prompt_tuning_init"], c["prompt_tuning_init_text"], c["tokenizer_name_or_path"], c["tokenizer_kwargs"] = "RANDOM", nil, nil, nil
	switch {
	case p.Init == "vocabulary":
		c["prompt_tuning_init"] = "SAMPLE_VOCAB"
	case p.Init == "text" && p.tokenizer != "" && strings.TrimSpace(p.Text) != "": // PEFT wants to know the tokenizer
		c["prompt_tuning_init"], c["prompt_tuning_init_text"], c["tokenizer_name_or_path"] = "TEXT", p.Text, p.tokenizer
	}
	return c
}
