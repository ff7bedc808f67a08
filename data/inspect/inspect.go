// Package inspect looks for what is wrong with the records of a data set before anything is trained on them:
// duplicates, evaluation questions among training texts, answers that say nothing, text that was decoded wrongly,
// private data, records that the model's template or context cannot hold. Each [Rule] reports, mends or drops.
//
// One pass reads the records as a stream; what stays in memory is about a kilobyte a record where near-duplicates are
// looked for, and some fifty bytes a record without.
package inspect

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/zeebo/xxh3"

	"tunesmith/data"
	"tunesmith/data/quality"
	"tunesmith/internal/nearest"
)

// Action is what a rule does to a record.
type Action string

// The actions.
const (
	Off    Action = "off"    // the rule is not asked
	Remark Action = "report" // the record stays as it is
	Mend   Action = "mend"   // the record's texts are changed
	Drop   Action = "drop"   // the record is left out
)

// Finding is one remark of a rule on a record.
type Finding struct {
	data.Position
	Rule   string `json:"rule"`
	Action Action `json:"action"`
	Detail string `json:"detail"`
}

// Options say what is looked for.
type Options struct {
	Actions   map[string]Action // by the names of rules; the rules' own where absent
	Threshold float64           // estimated Jaccard index of near-duplicates, 0.8 if 0
	Words     int               // length of the runs that show leakage, 13 if 0
	Cover     float64           // share of an evaluation text's words that has to be found; 0 is any run
	Seed      uint64            // of the signatures

	// Render, where it is set, turns records into tokens, and the rules on tokens are asked.
	Render data.Renderer
	Ends   []int32 // tokens that end an answer
	Limit  int     // tokens of the context, 0 for none
	Sample int     // rendered examples that the report keeps
}

// places is how many permutations a signature has.
const places = 128

// shingle is how many words a shingle has.
const shingle = 5

// Inspector looks at the records of a data set, one after the other.
type Inspector struct {
	options Options
	actions map[string]Action
	minhash *quality.MinHash
	near    *quality.Index
	kept    []data.Position  // of the records whose texts were entered
	exact   map[uint64]int32 // hash of a text -> index in kept
	asked   map[uint64]int32 // hash of a question -> index in kept
	leaks   leaks
	report  Report
}

// New returns an inspector that has seen nothing.
func New(o Options) (*Inspector, error) {
	if o.Threshold == 0 {
		o.Threshold = 0.8
	}
	if o.Words == 0 {
		o.Words = 13
	}
	if o.Threshold < 0.3 || o.Threshold > 1 || o.Words < 3 || o.Cover < 0 || o.Cover > 1 {
		return nil, fmt.Errorf("inspect: want a threshold from 0.3 to 1, runs of 3 words at least and a cover from 0 to 1, have %g, %d and %g", o.Threshold, o.Words, o.Cover)
	}
	x := &Inspector{options: o, actions: map[string]Action{}, exact: map[uint64]int32{}, asked: map[uint64]int32{}, leaks: newLeaks(o.Words, o.Cover)}
	for _, r := range Rules() {
		x.actions[r.Name] = r.Action
	}
	names := make([]string, 0, len(x.actions))
	for _, r := range Rules() {
		names = append(names, r.Name)
	}
	for name, a := range o.Actions {
		rule, ok := find(name)
		switch {
		case !ok:
			return nil, fmt.Errorf("inspect: no rule %q%s; the rules are %s", name, nearest.Hint(name, names), strings.Join(names, ", "))
		case !slices.Contains([]Action{Off, Remark, Mend, Drop}, a):
			return nil, fmt.Errorf("inspect: %s: want off, report, mend or drop, have %q", name, a)
		case a == Mend && rule.mend == nil:
			return nil, fmt.Errorf("inspect: %s cannot be mended: want off, report or drop", name)
		}
		x.actions[name] = a
	}
	x.minhash = quality.NewMinHash(places, o.Seed)
	b, r := quality.Bands(o.Threshold, places)
	x.near = quality.NewIndex(b, r)
	return x, nil
}

// Against enters the records of evaluation data: training records that hold their texts are leaks.
func (x *Inspector) Against(sources []data.Source, l *data.Ledger) error {
	for _, s := range sources {
		err := data.Each(s, l, func(r data.Record) error {
			x.leaks.add(r)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Result is what became of a record.
type Result struct {
	Record   data.Record // with its texts mended
	Findings []Finding
	Dropped  bool
	Mended   bool
}

// Run reads sources to their end. each, where it is not nil, gets every record in its order. What cannot be read stands
// in the ledger.
func (x *Inspector) Run(ctx context.Context, sources []data.Source, l *data.Ledger, each func(Result) error) error {
	for _, s := range sources {
		r, err := data.Open(s, l)
		if err != nil {
			return err
		}
		err = x.run(ctx, r, each)
		if closed := r.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err
		}
		x.report.Files = append(x.report.Files, r.Files()...)
	}
	x.report.Unreadable = l.Count(data.Bad)
	x.report.Problems = l.Problems()
	return nil
}

func (x *Inspector) run(ctx context.Context, r *data.Reader, each func(Result) error) error {
	return r.EachBlock(ctx, func(block []data.Record) error {
		for _, look := range x.lookAll(block) {
			x.settle(look)
			x.report.add(look)
			if e := look.example; e != nil && len(x.report.Examples) < x.options.Sample {
				x.report.Examples = append(x.report.Examples, *e)
			}
			if each != nil {
				if err := each(look.Result); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// look is what can be said of a record without the others.
type look struct {
	Result
	asked, answers string
	words          []string
	exact          uint64
	sig            []uint64
	example        *data.Example
}

// lookAll looks at records on all processors.
func (x *Inspector) lookAll(records []data.Record) []*look {
	out := make([]*look, len(records))
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), len(records))
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(records); i += workers {
				out[i] = x.look(records[i])
			}
		})
	}
	wg.Wait()
	return out
}

func (x *Inspector) look(rec data.Record) *look {
	k := &look{Result: Result{Record: rec}}
	for _, r := range Rules() {
		action := x.actions[r.Name]
		if r.look == nil || action == Off {
			continue
		}
		detail := r.look(k.Record)
		if detail == "" {
			continue
		}
		k.add(r.Name, action, detail)
		if action == Mend {
			k.Record, k.Mended = k.Record.EachText(r.mend), true
		}
	}
	if x.options.Render != nil && !k.Dropped {
		x.render(k)
	}
	k.asked, k.answers = k.Record.Asked(), strings.Join(k.Record.Answers(), "\n")
	whole := k.asked + "\n" + k.answers
	k.exact = xxh3.HashString(strings.Join(strings.Fields(strings.ToLower(whole)), " "))
	if k.Dropped {
		return k
	}
	if x.actions[nearDuplicate] != Off || !x.leaks.empty() {
		k.words = quality.Words(whole)
	}
	if x.actions[nearDuplicate] != Off && len(k.words) > 0 {
		k.sig = x.minhash.Signature(quality.Hashes(quality.Shingles(k.words, shingle), xxh3.HashString))
	}
	return k
}

func (k *look) add(rule string, action Action, detail string) {
	k.Findings = append(k.Findings, Finding{k.Record.Pos, rule, action, detail})
	k.Dropped = k.Dropped || action == Drop
}

// render makes tokens of a record and looks at them.
func (x *Inspector) render(k *look) {
	say := func(rule, detail string) {
		if a := x.actions[rule]; a != Off {
			k.add(rule, a, detail)
		}
	}
	e, warnings, err := x.options.Render.Render(k.Record)
	if err != nil {
		say(unrendered, err.Error())
		return
	}
	e.Pos = k.Record.Pos
	k.example = &e
	for _, w := range warnings {
		say(templateRemark, w)
	}
	if e.Supervised() == 0 {
		say(noTrained, fmt.Sprintf("none of its %d tokens is trained", len(e.IDs)))
		return
	}
	if x.options.Limit > 0 && len(e.IDs) > x.options.Limit {
		say(tooLong, fmt.Sprintf("%d tokens, the context holds %d", len(e.IDs), x.options.Limit))
	}
	last := len(e.Train) - 1
	for !e.Train[last] {
		last--
	}
	if len(x.options.Ends) > 0 && !slices.Contains(x.options.Ends, e.IDs[last]) {
		say(noEnd, fmt.Sprintf("the last trained token, %d, is none that ends an answer", e.IDs[last]))
	}
}

// settle compares a record with those that came before it. A record that is dropped leaves no trace, so that a spoilt
// copy does not take the place of a good one.
func (x *Inspector) settle(k *look) {
	say := func(rule, detail string, args ...any) {
		if a := x.actions[rule]; a != Off {
			k.add(rule, a, fmt.Sprintf(detail, args...))
		}
	}
	if k.Dropped {
		return
	}
	if x.actions[leakage] != Off {
		if detail := x.leaks.find(k); detail != "" {
			say(leakage, "%s", detail)
		}
	}
	if first, ok := x.exact[k.exact]; ok {
		say(exactDuplicate, "the same text as %v", x.kept[first])
	} else if k.sig != nil {
		for _, id := range x.near.Near(k.sig) {
			if alike := quality.Agreement(x.near.Signature(id), k.sig); alike >= x.options.Threshold {
				say(nearDuplicate, "%.0f %% like %v", 100*alike, x.kept[id])
				break
			}
		}
	}
	if k.Dropped || x.forgetful() {
		return
	}
	id := int32(len(x.kept))
	x.kept = append(x.kept, k.Record.Pos)
	if _, ok := x.exact[k.exact]; !ok {
		x.exact[k.exact] = id
	}
	if k.sig != nil {
		x.near.Add(int(id), k.sig)
	}
	if k.asked != "" && x.actions[otherAnswer] != Off {
		h := xxh3.HashString(strings.Join(strings.Fields(strings.ToLower(k.asked)), " "))
		if first, ok := x.asked[h]; ok {
			say(otherAnswer, "the same question as %v, with another answer", x.kept[first])
		} else {
			x.asked[h] = id
		}
	}
}

// forgetful reports whether no rule compares a record with earlier ones, so that nothing of it has to stay in memory.
func (x *Inspector) forgetful() bool {
	return x.actions[exactDuplicate] == Off && x.actions[nearDuplicate] == Off && x.actions[otherAnswer] == Off
}

// Report returns what was found so far.
func (x *Inspector) Report() *Report {
	x.report.finish(x.actions)
	return &x.report
}
