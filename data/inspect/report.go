package inspect

import (
	"slices"
	"unicode/utf8"

	"tunesmith/data"
	"tunesmith/data/quality"
)

// shown is how many examples of a rule's findings a report keeps.
const shown = 5

// Report sums up what was found in a data set.
type Report struct {
	Files      []string       `json:"files"`
	Records    int            `json:"records"` // that could be read
	Unreadable int            `json:"unreadable"`
	Kept       int            `json:"kept"`
	Mended     int            `json:"mended"` // of those that are kept
	Dropped    int            `json:"dropped"`
	Kinds      map[string]int `json:"kinds"`
	Rules      []Count        `json:"rules"`
	Letters    map[string]int `json:"letters"` // by script
	Scripts    map[string]int `json:"scripts"` // records by the script that prevails
	Turns      data.Spread    `json:"turns"`   // messages of a conversation
	Asked      data.Spread    `json:"asked"`   // characters
	Answers    data.Spread    `json:"answers"` // characters
	Tokens     *data.Spread   `json:"tokens,omitempty"`
	Trained    *data.Spread   `json:"trained,omitempty"`
	Sum        int64          `json:"token_sum,omitempty"`
	TrainedSum int64          `json:"trained_sum,omitempty"`

	Problems []data.Problem `json:"problems,omitempty"` // of reading
	Examples []data.Example `json:"-"`                  // the first that were rendered

	byRule                                map[string]*Count
	turns, asked, answers, tokens, trains []int32
}

// Count is how often a rule found something.
type Count struct {
	Rule     string    `json:"rule"`
	Action   Action    `json:"action"`
	Records  int       `json:"records"`
	Examples []Finding `json:"examples,omitempty"`
}

// add counts a record.
func (r *Report) add(k *look) {
	if r.byRule == nil {
		r.byRule, r.Kinds, r.Letters, r.Scripts = map[string]*Count{}, map[string]int{}, map[string]int{}, map[string]int{}
	}
	r.Records++
	r.Kinds[k.Record.Kind.String()]++
	switch {
	case k.Dropped:
		r.Dropped++
	case k.Mended:
		r.Mended++
	}
	told := map[string]bool{}
	for _, f := range k.Findings {
		c := r.byRule[f.Rule]
		if c == nil {
			c = &Count{Rule: f.Rule, Action: f.Action}
			r.byRule[f.Rule] = c
		}
		if !told[f.Rule] {
			c.Records++
		}
		told[f.Rule] = true
		if len(c.Examples) < shown {
			c.Examples = append(c.Examples, f)
		}
	}
	letters := quality.Scripts(k.asked + k.answers)
	for s, n := range letters {
		r.Letters[s] += n
	}
	if s := quality.Dominant(letters); s != "" {
		r.Scripts[s]++
	}
	if n := len(k.Record.Messages); n > 0 {
		r.turns = append(r.turns, int32(n))
	}
	r.asked = append(r.asked, int32(utf8.RuneCountInString(k.asked)))
	r.answers = append(r.answers, int32(utf8.RuneCountInString(k.answers)))
	if e := k.example; e != nil {
		n := e.Supervised()
		r.tokens, r.trains = append(r.tokens, int32(len(e.IDs))), append(r.trains, int32(n))
		r.Sum, r.TrainedSum = r.Sum+int64(len(e.IDs)), r.TrainedSum+int64(n)
	}
}

// finish sorts what was counted.
func (r *Report) finish(actions map[string]Action) {
	r.Kept = r.Records - r.Dropped
	r.Rules = nil
	for _, rule := range Rules() {
		c := Count{Rule: rule.Name, Action: actions[rule.Name]}
		if found := r.byRule[rule.Name]; found != nil {
			c = *found
		}
		r.Rules = append(r.Rules, c)
	}
	r.Turns, r.Asked, r.Answers = data.SpreadOf(slices.Clone(r.turns)), data.SpreadOf(slices.Clone(r.asked)), data.SpreadOf(slices.Clone(r.answers))
	if r.tokens != nil {
		tokens, trained := data.SpreadOf(slices.Clone(r.tokens)), data.SpreadOf(slices.Clone(r.trains))
		r.Tokens, r.Trained = &tokens, &trained
	}
}

// Found returns how many records a rule found something in.
func (r *Report) Found(rule string) int {
	if c := r.byRule[rule]; c != nil {
		return c.Records
	}
	return 0
}
