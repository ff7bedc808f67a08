package methods

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"tunesmith/graph"
	"tunesmith/site"
	"tunesmith/tune"
)

// LoRA freezes the model and adds to chosen projections a product of two thin matrices, which alone train. After
// training it folds into the weights and costs nothing.
//
//	y = W·x + s · B·A·dropout(x),  A (rank, in), B (out, rank),  s = alpha/rank, or alpha/√rank for rsLoRA
//
// Hu et al. 2021 (arXiv 2106.09685); rsLoRA: Kalajdzievski 2023 (2312.03732); rates by matrix, LoRA+: Hayou et al. 2024
// (2402.12354). It stops working well where the task
// needs more new knowledge than the rank can hold; then raise the rank or train fully. Names and files are PEFT's.
type LoRA struct {
	Rank             int                    `yaml:"rank" doc:"rank of the update" min:"1"`
	Alpha            float64                `yaml:"alpha" doc:"strength of the update: it is scaled by alpha/rank" above:"0"`
	Dropout          float64                `yaml:"dropout" doc:"share of the inputs of A that are dropped in training" min:"0" below:"1"`
	Targets          tune.Targets           `yaml:"targets" doc:"modules that get an update: all-linear, names such as [q_proj, v_proj], or one regular expression for the whole path"`
	Exclude          tune.Targets           `yaml:"exclude" doc:"modules left out of the targets"`
	TargetParameters tune.Targets           `yaml:"target_parameters" doc:"tensors of all experts of a layer that get an update, by their names in transformers 5, such as mlp.experts.gate_up_proj"`
	Layers           []int                  `yaml:"layers" doc:"numbers of the layers that get updates; all where empty"`
	RankPattern      tune.Patterns[int]     `yaml:"rank_pattern" doc:"other ranks by pattern of the module path"`
	AlphaPattern     tune.Patterns[float64] `yaml:"alpha_pattern" doc:"other alphas by pattern of the module path"`
	RSLoRA           bool                   `yaml:"rslora" doc:"scale by alpha/√rank, which keeps high ranks from fading"`
	DoRA             bool                   `yaml:"dora" doc:"train the length of each row of the weight apart from its direction"`
	Init             string                 `yaml:"init" doc:"first values: uniform (Kaiming), gaussian or orthogonal; pissa and olora start from the weight's own main part; loftq from what the storage of the base loses; random starts away from the base" enum:"uniform,gaussian,orthogonal,pissa,olora,loftq,random"`
	LoftQSteps       int                    `yaml:"loftq_steps" doc:"turns of loftq between quantising and its rest" min:"1"`
	Bias             string                 `yaml:"bias" doc:"biases of the model that train too" enum:"none,all,lora_only"`
	LoRABias         bool                   `yaml:"lora_bias" doc:"give B a bias of its own"`
	TrainFully       tune.Targets           `yaml:"train_fully" doc:"modules trained and saved whole beside the update, such as lm_head"`
	RateRatio        float64                `yaml:"rate_ratio" doc:"learning rate of B and of vectors over that of A (LoRA+), for instance 16; 0 is the same for all" min:"0"`
	EmbedRatio       float64                `yaml:"embedding_ratio" doc:"learning rate of an update of the embedding over that of A; 0 is the same" min:"0"`
	FreezeA          bool                   `yaml:"freeze_a" doc:"train B alone, along the gradient that the whole update would have (LoRA-FA); A takes no memory of gradients"`
	TrainTokens      []int                  `yaml:"train_tokens" doc:"ids of the tokens whose embeddings train, for tokens that are new to the model"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "lora", Default: true, PEFT: "LORA", Rate: 2e-4,
		Doc: "adds thin trainable matrices to frozen projections; merges into the weights afterwards",
		New: func() any {
			return &LoRA{Rank: 16, Alpha: 32, Targets: tune.Targets{tune.AllLinear}, Bias: "none", Init: "uniform", LoftQSteps: 1}
		},
	})
}

// Graft implements tune.Parameters. loftq changes the base, which then is kept as PEFT's LoftQ keeps it.
func (o *LoRA) Graft(m *site.Map) (any, error) {
	if o.Init != loftQ {
		return o.graft(m, nil)
	}
	store := &Storage{Kind: "nf4", Block: 64}
	if err := store.check(m); err != nil {
		return nil, err
	}
	return o.graft(m, store)
}

// graft resolves the options on a base that is kept in a storage, the file's where it is nil.
func (o *LoRA) graft(m *site.Map, store *Storage) (any, error) {
	switch {
	case o.DoRA && o.LoRABias:
		return nil, fmt.Errorf("lora_bias: want false together with dora, which has no such bias")
	case len(o.TrainTokens) > 0 && slices.ContainsFunc(o.TrainFully, func(n string) bool { return tune.Targets{n}.Match(m.Embedding) }):
		return nil, fmt.Errorf("train_tokens: train_fully trains the whole embedding already; leave one of the two out")
	}
	choice := tune.Choice{Key: "targets", Targets: o.Targets, Exclude: o.Exclude, Layers: o.Layers, Experts: true}
	paths, err := choice.Resolve(m)
	if err != nil {
		return nil, err
	}
	l := &lora{LoRA: *o, updates: map[string]*update{}, tied: m.Tied, store: store, projections: map[string]bool{}}
	if l.whole, err = tune.Modules("train_fully", o.TrainFully, m); err != nil {
		return nil, err
	}
	for _, at := range m.Linears {
		l.projections[at.Path] = !slices.Contains(l.whole, at.Path)
	}
	for _, path := range paths {
		if slices.Contains(l.whole, path) {
			continue // trained whole, it needs no update
		}
		if l.updates[path], err = o.update(path, m); err != nil {
			return nil, err
		}
	}
	if err := l.mixture(m); err != nil {
		return nil, err
	}
	if l.modules, err = moduleList(o, paths, m); err != nil {
		return nil, err
	}
	l.tokens, err = newTokenRows(o.TrainTokens, m)
	return l, err
}

// update resolves rank and scale of one module.
func (o *LoRA) update(path string, m *site.Map) (*update, error) {
	rank, err := tune.ByPattern(o.RankPattern, path, o.Rank)
	if err != nil {
		return nil, fmt.Errorf("rank_pattern: %w", err)
	}
	alpha, err := tune.ByPattern(o.AlphaPattern, path, o.Alpha)
	if err != nil {
		return nil, fmt.Errorf("alpha_pattern: %w", err)
	}
	switch {
	case rank < 1 || rank > 4*m.Hidden || alpha == 0:
		return nil, fmt.Errorf("%s: want rank >= 1, at most 4 times the model's width %d, and alpha other than 0, have %d and %g", path, m.Hidden, rank, alpha)
	case o.Init == "orthogonal" && rank%2 != 0:
		return nil, fmt.Errorf("%s: init orthogonal halves the rank, want an even one, have %d", path, rank)
	}
	at := slices.IndexFunc(m.Linears, func(l site.Linear) bool { return l.Path == path })
	u := &update{
		path: path, rank: rank, scale: float32(alpha / float64(rank)), embedding: path == m.Embedding,
		biased: at >= 0 && m.Linears[at].Bias, transposed: at >= 0 && m.Linears[at].Transposed,
	}
	if o.RSLoRA {
		u.scale = float32(alpha / math.Sqrt(float64(rank)))
	}
	if (o.splits(u) || o.Init == loftQ) && !u.embedding && (u.scale < 0 || at >= 0 && rank > min(m.Linears[at].In, m.Linears[at].Out)) {
		return nil, fmt.Errorf("%s: init %s wants alpha above 0 and a rank of at most the weight's, have %g and %d", path, o.Init, alpha, rank)
	}
	return u, nil
}

// lora is the graft: LoRA resolved on one model.
type lora struct {
	LoRA
	updates map[string]*update   // by module path
	stacks  map[string]*stack    // by the name of the experts' tensor
	parts   map[string]stackPart // of stacks, by parameter
	modules []string             // as PEFT's target_modules
	whole   []string             // modules trained fully
	tokens  tokenRows
	tied    string // module whose weight the output projection shares, or empty

	store       *Storage        // of the base
	projections map[string]bool // that may be kept in it
}

// update is the change of one module.
type update struct {
	path      string
	rank      int
	scale     float32
	embedding bool
	biased    bool // the module has a bias
	// transposed says that the weight stands as (in, out) in the file.
	transposed bool
	start      *split // that of PiSSA and OLoRA, once it is computed
}

// name returns the name of one of the update's tensors.
func (u *update) name(tensor string) string { return tune.PEFTPrefix + u.path + "." + tensor }

// names returns the names of A and B.
func (u *update) names() (a, b string) {
	if u.embedding {
		return u.name("lora_embedding_A"), u.name("lora_embedding_B")
	}
	return u.name("lora_A.weight"), u.name("lora_B.weight")
}

// GraftLinear implements site.LinearGrafter.
func (l *lora) GraftLinear(s *site.Scope, at site.Linear, x, y *graph.Node) *graph.Node {
	u, ok := l.updates[at.Path]
	if !ok {
		return y
	}
	param := at.Path + ".weight"
	a, b := l.factors(s, u, param, at.Out, at.In)
	dy := graph.Project(graph.Project(l.drop(s, x), a), b)
	if l.LoRABias {
		dy = graph.Plus(dy, s.Declare(u.bias(at.Out)))
	}
	dy = graph.Scale(dy, u.scale)
	if !l.DoRA {
		return graph.Plus(y, dy)
	}
	f := l.length(s, u, param, s.BaseWeight(at), a, b)
	if !at.Bias {
		return graph.Times(graph.Plus(y, dy), f)
	}
	bias := s.BaseBias(at)
	return graph.Plus(graph.Times(graph.Plus(graph.Minus(y, bias), dy), f), bias)
}

// GraftHead implements site.HeadGrafter: the update joins the operands as more channels, so that the vocabulary's
// product stays one.
func (l *lora) GraftHead(s *site.Scope, at site.Linear, h, w *graph.Node) (*graph.Node, *graph.Node) {
	more, columns := []*graph.Node{h}, []*graph.Node{w}
	var f *graph.Node
	if u, ok := l.updates[at.Path]; ok {
		param := cmp.Or(l.tied, at.Path) + ".weight"
		a, b := l.factors(s, u, param, at.Out, at.In)
		more = append(more, graph.Scale(graph.Project(l.drop(s, h), a), u.scale))
		columns = append(columns, b)
		if l.LoRABias {
			one := append(slices.Clone(h.Shape()[:h.Rank()-1]), 1)
			more = append(more, graph.BroadcastTo(s.Scalar(u.scale), one))
			columns = append(columns, graph.Reshape(s.Declare(u.bias(at.Out)), at.Out, 1))
		}
		if l.DoRA {
			f = l.length(s, u, param, w, a, b)
		}
	}
	if l.tokens.holds(at.Path) {
		more, columns = append(more, graph.Project(h, l.tokens.change(s))), append(columns, l.tokens.mask(s))
	}
	h, w = graph.Join(-1, more...), graph.Join(1, columns...)
	if f != nil {
		w = graph.Times(w, graph.Reshape(f, at.Out, 1))
	}
	return h, w
}

// GraftEmbed implements site.EmbedGrafter: x += s · B·A[:, id], A (rank, vocabulary), B (hidden, rank).
func (l *lora) GraftEmbed(s *site.Scope, path string, ids, x *graph.Node) *graph.Node {
	if u, ok := l.updates[path]; ok {
		table := site.Linear{Path: path, Out: s.Map().Vocab, In: s.Map().Hidden}
		a, b := l.factors(s, u, "", table.In, table.Out)
		rows := graph.Lookup(graph.Permute(a, 1, 0), ids, -1)
		x = graph.Plus(x, graph.Scale(graph.Project(rows, b), u.scale))
		if l.DoRA {
			x = graph.Times(x, l.length(s, u, path+".weight", s.BaseWeight(table), a, b))
		}
	}
	if l.tokens.holds(path) {
		x = graph.Plus(x, graph.ProjectT(graph.Lookup(l.tokens.mask(s), ids, -1), l.tokens.change(s)))
	}
	return x
}

// RateScale implements tune.RateScaler.
func (l *lora) RateScale(p site.Param) float64 {
	switch {
	case strings.Contains(p.Name, ".lora_embedding_"):
		return cmp.Or(l.EmbedRatio, 1)
	case strings.Contains(p.Name, ".lora_B.") || len(p.Shape) == 1:
		return cmp.Or(l.RateRatio, 1)
	}
	return 1
}

func (l *lora) drop(s *site.Scope, x *graph.Node) *graph.Node {
	if !s.Training() {
		return x
	}
	return graph.Drop(x, s.In.DropKey, float32(l.Dropout))
}

// GraftParam implements site.ParamGrafter: biases and whole modules train as copies under PEFT's names.
func (l *lora) GraftParam(s *site.Scope, path string, p site.Param) *graph.Node {
	name, ok := l.copied(path)
	if !ok {
		return nil
	}
	return s.Declare(site.Param{Name: name, Shape: p.Shape, Trainable: true, Init: tune.CopyOf(p.Name)})
}

// copied returns the name of the trained copy of one of the model's parameters, if there is one.
func (l *lora) copied(path string) (string, bool) {
	module, leaf := tune.ModuleOf(path)
	_, updated := l.updates[module]
	switch {
	case slices.Contains(l.whole, module):
		return tune.PEFTPrefix + path, true
	case leaf == "bias" && updated && l.Bias != "none":
		return tune.PEFTPrefix + module + ".base_layer.bias", true
	case leaf == "bias" && l.Bias == "all":
		return tune.PEFTPrefix + path, true
	}
	return "", false
}
