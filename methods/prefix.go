package methods

import (
	"context"
	"fmt"
	"slices"

	"tunesmith/checkpoint"
	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/model"
	"tunesmith/site"
	"tunesmith/tune"
)

// Prefix puts trained keys and values in front of those of every layer, which every token sees; the model stays as it is.
//
//	attention(q, [P_K; K], [P_V; V]),  P (tokens, layers · 2 · width of the keys)
//
// Li and Liang 2021 (arXiv 2101.00190). A prefix takes attention away from the text even where its values are 0, so that
// training does not start from the base; started as the keys and values of tokens, it starts near. It takes part of the
// context and does not merge. Names and files are PEFT's.
type Prefix struct {
	Tokens     int    `yaml:"tokens" doc:"number of virtual tokens" min:"1" max:"65536"`
	Projection int    `yaml:"projection" doc:"width of the hidden layer through which the prefix is made in training; 0 trains its values themselves" min:"0"`
	Init       string `yaml:"init" doc:"first values without a projection: keys and values of drawn tokens or of a text, zeros, or random ones" enum:"vocabulary,text,zero,random"`
	Text       string `yaml:"text" doc:"text whose keys and values the prefix starts as; says what the task is"`

	words words
	flat  bool // the file holds the result of the projection
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "prefix", PEFT: "PREFIX_TUNING", Rate: 2e-2, Moved: true,
		Doc: "trains keys and values in front of those of every layer",
		New: func() any { return &Prefix{Tokens: 20, Init: "vocabulary", words: words{bos: -1}} },
	})
}

// UseText implements tune.TextUser.
func (o *Prefix) UseText(t tune.Text) error { return o.words.read(t, o.Text) }

// Graft implements tune.Parameters.
func (o *Prefix) Graft(m *site.Map) (any, error) {
	if o.Init == "text" && o.Text == "" && !o.flat {
		return nil, fmt.Errorf("text: want what init text starts from, have none")
	}
	return newDeepPrompt(*o, m)
}

// ReadPEFT implements tune.PEFTReader.
func (o *Prefix) ReadPEFT(c tune.PEFTConfig) error {
	r := peftKeys{c: c}
	*o = Prefix{Tokens: r.readTokens(), Init: "random", words: words{bos: -1}, flat: true}
	if key(&r, "init_weights", "") == "zero" {
		o.Init = "zero"
	}
	if key(&r, "prefix_projection", false) {
		o.Projection = key(&r, "encoder_hidden_size", key(&r, "token_dim", 0))
	}
	return r.err
}

// deepPrompt is keys and values of virtual tokens in front of those of every layer.
type deepPrompt struct {
	options Prefix
	encoded
	kvs []site.KV
}

func newDeepPrompt(o Prefix, m *site.Map) (*deepPrompt, error) {
	for _, kv := range m.KVs {
		if kv.Heads != m.KVs[0].Heads || kv.HeadDim != m.KVs[0].HeadDim {
			return nil, fmt.Errorf("%s: want keys of one width in all layers, have %d heads of %d and %d of %d", kv.Path,
				m.KVs[0].Heads, m.KVs[0].HeadDim, kv.Heads, kv.HeadDim)
		}
	}
	width := m.KVs[0].Heads * m.KVs[0].HeadDim
	out := 2 * len(m.KVs) * width
	p := &deepPrompt{options: o, kvs: m.KVs, encoded: encoded{n: o.Tokens, width: out, out: out, start: zeros}}
	switch {
	case o.Projection > 0 && !o.flat:
		p.width, p.start = width, normal(1)
		p.encoders = []encoder{chain{name: "prompt_encoder.transform", widths: []int{width, o.Projection, out}, fn: graph.Tanh}}
	case o.Init == "random":
		p.start = normal(1)
	}
	return p, nil
}

// Prefix implements site.Prefixer: PEFT moves the rows up by the prefix.
func (p *deepPrompt) Prefix() (n, shift int) { return p.n, p.n }

// GraftEmbed implements site.EmbedGrafter: the encoder stands before all layers, not inside the first.
func (p *deepPrompt) GraftEmbed(s *site.Scope, _ string, _, x *graph.Node) *graph.Node {
	p.build(s)
	return x
}

// GraftKV implements site.KVGrafter: of the columns (layer, key or value, head, channel) those of this layer.
func (p *deepPrompt) GraftKV(s *site.Scope, path string, _, _ *graph.Node) (pk, pv *graph.Node) {
	at := slices.IndexFunc(p.kvs, func(kv site.KV) bool { return kv.Path == path })
	g, d := p.kvs[at].Heads, p.kvs[at].HeadDim
	part := func(i int) *graph.Node {
		return graph.Reshape(graph.SliceAxis(p.build(s), 1, i*g*d, (i+1)*g*d), p.n, g, d)
	}
	return part(2 * at), part(2*at + 1)
}

// Start implements trainer.Starter: the keys and values that the model itself gives tokens at these positions.
func (p *deepPrompt) Start(ctx context.Context, a *model.Adapted, b engine.Backend, seed uint64) error {
	if len(p.encoders) > 0 || p.options.Init != "vocabulary" && p.options.Init != "text" {
		return nil
	}
	ids := p.options.words.tokens(p.n, a.Sites.Vocab, site.Generator(seed, promptTensor))
	found := &recorder{}
	g, err := graph.Build(func(g *graph.Graph) {
		in := site.Inputs{IDs: g.Input("ids", graph.Int, 1, p.n), Positions: g.Input("positions", graph.Int, 1, p.n)}
		a.Hidden(site.New(g, in, found))
		for i := range found.keys {
			g.Output(fmt.Sprint("k", i), found.keys[i])
			g.Output(fmt.Sprint("v", i), found.values[i])
		}
	})
	if err != nil {
		return err
	}
	program, err := b.Compile(g, a.Store)
	if err != nil {
		return err
	}
	feed, positions := make([]int32, p.n), make([]int32, p.n)
	for i, id := range ids {
		feed[i], positions[i] = int32(id), int32(i)
	}
	if err := program.Run(ctx, engine.Feeds{"ids": feed, "positions": positions}); err != nil {
		return err
	}
	t, ok := a.Store.Get(promptTensor)
	if !ok {
		return fmt.Errorf("parameter %q is not in the store", promptTensor)
	}
	width := p.out / (2 * len(p.kvs))
	for i := range p.kvs {
		for part, values := range [][]float32{program.Output(fmt.Sprint("k", i)), program.Output(fmt.Sprint("v", i))} {
			for r := range p.n {
				copy(t.Values[r*p.out+(2*i+part)*width:], values[r*width:(r+1)*width])
			}
		}
	}
	t.Touch()
	return nil
}

// recorder keeps the keys and values of every layer.
type recorder struct{ keys, values []*graph.Node }

// GraftKV implements site.KVGrafter and adds none.
func (r *recorder) GraftKV(_ *site.Scope, _ string, k, v *graph.Node) (pk, pv *graph.Node) {
	r.keys, r.values = append(r.keys, k), append(r.values, v)
	return nil, nil
}

// PEFT implements tune.PEFTWriter.
func (p *deepPrompt) PEFT() map[string]any {
	width := p.out / (2 * len(p.kvs))
	c := promptKeys("PREFIX_TUNING", p.n, width, p.kvs[0].Heads, len(p.kvs))
	c["prefix_projection"], c["encoder_hidden_size"], c["init_weights"] = p.options.Projection > 0, width, nil
	if p.options.Projection > 0 {
		c["encoder_hidden_size"] = p.options.Projection
	}
	if p.options.Init == "zero" {
		c["init_weights"] = "zero"
	}
	return c
}

// PEFTTensors implements tune.PEFTTensors.
func (p *deepPrompt) PEFTTensors(_ []site.Param, value func(string) []float32) []checkpoint.Tensor {
	return []checkpoint.Tensor{checkpoint.Float32Tensor(promptTensor, []int{p.n, p.out}, p.compute(value))}
}
