package plan

import (
	"context"
	"fmt"
	"math"

	"tunesmith/data"
	"tunesmith/model"
	"tunesmith/tune"
)

// bitsPerValue is what a trained value can hold: about two bits (Allen-Zhu and Li 2024, arXiv 2404.05405).
const bitsPerValue = 2

// Data is what an objective makes of the data.
type Data struct {
	Examples  int   `json:"examples"`
	Bad       int   `json:"bad_records"`
	Cut       int   `json:"cut_records"`
	Tokens    int64 `json:"tokens"`
	Trained   int64 `json:"trained_tokens"`
	Median    int   `json:"median_tokens"`
	P99       int   `json:"p99_tokens"`
	Repeated  int   `json:"repeated_examples"`
	Templated bool  `json:"chat_template"` // the model has one
	Context   int   `json:"context"`
}

// Information is how many bits the trained tokens tell at most: one bit a token is what a good model does not know of
// usual text in advance (Schulman et al. 2025, LoRA Without Regret).
func (d Data) Information() float64 { return float64(d.Trained) }

// survey reads the data as an objective does.
func (q Question) survey(ctx context.Context, m tune.Method) (Data, error) {
	o := m.New()
	if q.Run.Objective.Name == m.Name && q.Run.Objective.Options != nil {
		o = q.Run.Objective.Options
	}
	objective, ok := o.(tune.Objective)
	if !ok {
		return Data{}, fmt.Errorf("it cannot be trained alone")
	}
	base, err := model.Open(q.Model)
	if err != nil {
		return Data{}, err
	}
	defer base.Close()
	text, err := tune.OpenText(q.Model, base.File, q.Run.ChatTemplate)
	if err != nil {
		return Data{}, err
	}
	render, err := objective.Renderer(text)
	if err != nil {
		return Data{}, err
	}
	ledger := &data.Ledger{Mode: data.Skip}
	store := data.NewStore("", math.MaxInt)
	defer store.Close()
	limit := base.Config.MaxPositions
	if q.Run.MaxLength > 0 {
		limit = min(limit, q.Run.MaxLength)
	}
	err = data.Load(ctx, tune.Sources(q.Run.Data), render, data.LoadOptions{MaxLength: limit, Overlength: q.Run.Overlength}, ledger, store, nil)
	if err != nil {
		return Data{}, err
	}
	st, _ := store.Stats()
	d := Data{
		Examples: st.Examples, Bad: ledger.Count(data.Bad), Cut: ledger.Count(data.Cut), Tokens: st.Tokens, Trained: st.Supervised,
		Median: st.Lengths.Median, P99: st.Lengths.P99, Templated: text.Template != nil, Context: base.Config.MaxPositions,
	}
	seen := map[string]bool{}
	for i := range store.Len() {
		e, err := store.Example(i)
		if err != nil {
			return d, err
		}
		key := fmt.Sprint(e.IDs)
		if seen[key] {
			d.Repeated++
		}
		seen[key] = true
	}
	return d, nil
}

// coarse returns the bytes that the trained values of a method take with gradients and two moments, without loading
// weights; 0 where that is not known.
func (q Question) coarse(parameters string) int64 {
	base, err := model.Open(q.Model)
	if err != nil {
		return 0
	}
	defer base.Close()
	m, err := tune.Find(tune.ParametersAxis, parameters)
	if err != nil {
		return 0
	}
	method, ok := m.New().(tune.Parameters)
	if !ok {
		return 0
	}
	graft, err := method.Graft(base.Map())
	if err != nil {
		return 0
	}
	sites, err := base.Survey(graft)
	if err != nil {
		return 0
	}
	var n int64
	for _, p := range sites.Trainable() {
		n += 16 * int64(p.Size())
	}
	return n
}
