package methods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/generate"
	"tunesmith/graph"
	"tunesmith/judge"
	"tunesmith/runs"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// RLAIF learns from the preferences of a judge that is a model itself: the model answers each prompt twice, the judge
// compares the answers in both orders, and the better one is raised against the worse one as in DPO.
//
//	loss = −p·log σ(β·Δ) − (1−p)·log σ(−β·Δ),  p the judge's probability that the first answer is the better one
//
// Lee et al. 2023 (arXiv 2309.00267); Bai et al. 2022 (2212.08073). It learns what the judge likes, its errors included:
// look at its bias of position and length, and at its agreement with people where there are labels.
type RLAIF struct {
	Judge      string      `yaml:"judge" doc:"self, or the address of an OpenAI-compatible server up to /v1"`
	Model      string      `yaml:"judge_model" doc:"name of the judge's model at its server"`
	KeyEnv     string      `yaml:"key_env" doc:"environment variable with the server's key"`
	Rubric     string      `yaml:"rubric" doc:"what makes an answer good: a file, or helpful, harmless, helpful.zh, harmless.zh"`
	Text       bool        `yaml:"text_verdict" doc:"read the verdict from what the judge writes rather than from its probabilities"`
	Ledger     string      `yaml:"ledger" doc:"file that keeps every request and verdict, so that nothing is asked twice"`
	Price      judge.Price `yaml:"price" doc:"of the judge's tokens"`
	Budget     float64     `yaml:"budget" doc:"most that the judge may cost, with what the ledger has spent; 0 is no limit" min:"0"`
	Hard       bool        `yaml:"hard_labels" doc:"take the judge's preference for certain"`
	LeastSure  float64     `yaml:"least_certainty" doc:"pairs whose probability is nearer to one half are left out" min:"0" below:"0.5"`
	Consistent bool        `yaml:"consistent_only" doc:"leave out pairs on which the judge's two orders disagree"`
	MaxTokens  int         `yaml:"max_tokens" doc:"longest answer" min:"1"`
	Heat       float64     `yaml:"temperature" doc:"of the sampling" above:"0"`
	Beta       float64     `yaml:"beta" doc:"how dear it is to leave the reference" above:"0"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ObjectiveAxis, Name: "rlaif", Rate: 5e-5,
		Doc: "learns from a judge that compares the model's own answers",
		New: func() any {
			return &RLAIF{Judge: "self", Rubric: "helpful", Ledger: "ledger.jsonl", LeastSure: 0.05, Consistent: true, MaxTokens: 128, Heat: 1, Beta: 0.1}
		},
	})
}

// dpo is the loss.
func (o *RLAIF) dpo() *DPO {
	m, _ := tune.Find(tune.ObjectiveAxis, "dpo")
	d := m.New().(*DPO)
	d.Beta, d.SoftLabels = o.Beta, !o.Hard
	return d
}

// Renderer implements tune.Objective.
func (o *RLAIF) Renderer(t tune.Text) (data.Renderer, error) {
	if o.Judge != "self" && !strings.HasPrefix(o.Judge, "http://") && !strings.HasPrefix(o.Judge, "https://") {
		return nil, fmt.Errorf("judge: want self, or an address that begins with http:// or https://, have %q", o.Judge)
	}
	if _, err := judge.OpenRubric(o.Rubric); err != nil {
		return nil, err
	}
	return data.Asked{Rendering: data.Rendering{Tokenizer: t.Tokenizer, Template: t.Template}}, nil
}

// Loss implements tune.Objective.
func (o *RLAIF) Loss(f tune.Forward) *graph.Node { return o.dpo().Loss(f) }

// Count implements tune.Counter.
func (o *RLAIF) Count(b data.Batch) float64 { return o.dpo().Count(b) }

// Feeds implements tune.Feeder.
func (o *RLAIF) Feeds(b data.Batch) map[string]any { return o.dpo().Feeds(b) }

// Reference implements tune.Referrer.
func (o *RLAIF) Reference() (needed, online bool) { return true, true }

// Warn implements tune.Watcher.
func (o *RLAIF) Warn(values map[string]float64) string {
	if bias := values["judge/bias"]; math.Abs(bias) > 0.5 {
		return fmt.Sprintf("standing first changes the judge's probability by %.2f: it hardly looks at the answers; choose a stronger judge", bias)
	}
	return o.dpo().Warn(values)
}

// Samples implements trainer.Sampled.
func (o *RLAIF) Samples() bool { return true }

// Room implements trainer.Sampled.
func (o *RLAIF) Room() int { return o.MaxTokens + 1 }

// Prompts implements trainer.Sampled: a prompt gives a pair.
func (o *RLAIF) Prompts(rows int) (prompts, steps int, err error) { return rows, 1, nil }

// Open implements trainer.Sampled.
func (o *RLAIF) Open(s *trainer.Session) (trainer.Source, error) {
	rubric, err := judge.OpenRubric(o.Rubric)
	if err != nil {
		return nil, err
	}
	ledger, err := judge.OpenLedger(o.Ledger)
	if err != nil {
		return nil, err
	}
	p := &preferences{o: o, s: s, ledger: ledger}
	p.own = &rollouts{o: &RLHF{Stage: "rlaif", Group: 2, MaxTokens: o.MaxTokens, Heat: o.Heat}, s: s, text: s.Text, gen: generate.New(s.Model, s.Backend)}
	var asker judge.Asker = &judge.Local{Generator: p.own.gen, Text: s.Text}
	if o.Judge != "self" {
		asker = &judge.Endpoint{URL: o.Judge, Key: os.Getenv(o.KeyEnv)}
		asker = &judge.Recorded{Asker: asker, Ledger: ledger, Price: o.Price, Budget: o.Budget}
	}
	p.judge = &judge.Comparer{Asker: asker, Model: o.Model, Rubric: rubric, Text: o.Text}
	return p, nil
}

// preferences samples pairs of answers and lets the judge compare them. It implements trainer.Source.
type preferences struct {
	o      *RLAIF
	s      *trainer.Session
	own    *rollouts
	judge  *judge.Comparer
	ledger *judge.Ledger
	state  pairState
}

type pairState struct {
	Pairs  []judgedPair       `json:"pairs"`
	Values map[string]float64 `json:"values"`
	Number int                `json:"number"`
	Loader data.State         `json:"loader"`
}

// judgedPair is two answers to a prompt and the probability that the first is the better one.
type judgedPair struct {
	Prompt  []int32    `json:"prompt"`
	Answers [2][]int32 `json:"answers"`
	P       float32    `json:"p"`
}

// mostEmpty is how many rollouts in a row may give no pair.
const mostEmpty = 8

// Next implements trainer.Source.
func (p *preferences) Next(ctx context.Context) ([]data.Batch, error) {
	before := p.s.Loader.State()
	for tries := 0; len(p.state.Pairs) == 0; tries++ {
		err := p.sample(ctx)
		if err == nil && len(p.state.Pairs) == 0 && tries == mostEmpty {
			err = errors.New("the judge decided on no pair: its two orders disagree, or it is not certain enough; choose a stronger judge, or lower least_certainty")
		}
		if err != nil {
			p.state.Pairs = nil
			return nil, joinRestore(err, p.s.Loader.Restore(before))
		}
	}
	return p.batches(ctx)
}

// sample makes and judges the pairs of a step.
func (p *preferences) sample(ctx context.Context) error {
	step, err := p.s.Loader.Next()
	if err != nil {
		return err
	}
	var all []answer
	for _, b := range step {
		for _, a := range p.own.prompts(b) {
			all = append(all, a, a)
		}
	}
	p.state.Number++
	seed := p.s.Config.Seed ^ uint64(p.state.Number)*0x9e3779b97f4a7c15
	if err := p.own.answers(ctx, all, generate.Options{Seed: seed, Sampling: generate.Sampling{Temperature: p.o.Heat}}); err != nil {
		return err
	}
	var bias, longer, judged, kept float64
	for i := 0; i+1 < len(all); i += 2 {
		a, b := all[i], all[i+1]
		if slices.Equal(a.IDs, b.IDs) {
			continue
		}
		v, err := p.judge.Compare(ctx, p.own.decode(a.Prompt), p.own.decode(a.IDs), p.own.decode(b.IDs))
		if errors.Is(err, judge.ErrNoVerdict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("judge: %w", err)
		}
		judged++
		bias += v.Bias
		if (len(a.IDs) > len(b.IDs)) == (v.P > 0.5) {
			longer++
		}
		if math.Abs(v.P-0.5) < p.o.LeastSure || v.P == 0.5 || p.o.Consistent && !v.Consistent {
			continue
		}
		pair := judgedPair{Prompt: a.Prompt, Answers: [2][]int32{a.IDs, b.IDs}, P: float32(v.P)}
		if v.P < 0.5 {
			pair.Answers[0], pair.Answers[1], pair.P = b.IDs, a.IDs, float32(1-v.P)
		}
		if p.o.Hard {
			pair.P = 1
		}
		kept++
		p.state.Pairs = append(p.state.Pairs, pair)
	}
	n := math.Max(1, judged)
	p.state.Values = map[string]float64{
		"judge/bias": bias / n, "judge/longer": longer / n, "judge/kept": kept / n, "judge/cost": p.ledger.Spent(),
	}
	p.state.Loader = p.s.Loader.State()
	return nil
}

// batches lays the pairs out as the loss of pairs takes them.
func (p *preferences) batches(ctx context.Context) ([]data.Batch, error) {
	var out []data.Batch
	for part := range slices.Chunk(p.state.Pairs, p.s.Config.BatchSize) {
		var prompts, answers [][]int32
		var labels []float32
		for _, x := range part {
			prompts, answers = append(prompts, x.Prompt, x.Prompt), append(answers, x.Answers[0], x.Answers[1])
			labels = append(labels, x.P)
		}
		b := data.Answers(prompts, answers, int32(max(p.s.Text.Tokenizer.Pad(), 0)))
		b.Sequences, b.Labels, b.Margins = 2, labels, make([]float32, len(part))
		var err error
		if b.Reference, err = p.s.LogProbs(ctx, b, true); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// Done implements trainer.Source.
func (p *preferences) Done(_ context.Context, r *trainer.StepResult) error {
	for name, v := range p.state.Values {
		r.Values[name] = v
	}
	p.state.Pairs = nil
	return nil
}

// Evaluate implements trainer.Source: greedy answers to held-out prompts; their mean length is what can be told without
// asking the judge.
func (p *preferences) Evaluate(ctx context.Context) (map[string]float64, error) {
	n := min(p.s.Held.Len(), p.s.Config.Eval.Most, 16)
	var all []answer
	for i := range n {
		e, err := p.s.Held.Example(i)
		if err != nil {
			return nil, err
		}
		all = append(all, p.own.prompt(e))
	}
	if n == 0 {
		return map[string]float64{}, nil
	}
	if err := p.own.answers(ctx, all, generate.Options{}); err != nil {
		return nil, err
	}
	var length float64
	for _, a := range all {
		length += float64(len(a.IDs)) / float64(n)
	}
	return map[string]float64{runs.Eval + "/length": length}, nil
}

// Save implements trainer.Source.
func (p *preferences) Save(s *checkpoint.State) error {
	text, err := json.Marshal(p.state)
	s.Meta["preferences"] = text
	return err
}

// Restore implements trainer.Source.
func (p *preferences) Restore(s checkpoint.State) error {
	if err := json.Unmarshal(s.Meta["preferences"], &p.state); err != nil {
		return fmt.Errorf("preferences: %w", err)
	}
	if len(p.state.Pairs) == 0 {
		return nil
	}
	return p.s.Loader.Restore(p.state.Loader)
}
