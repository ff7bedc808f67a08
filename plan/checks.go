package plan

import (
	"fmt"
	"math"
)

// Check is a rule of the field, and whether the data and the run keep it.
type Check struct {
	Rule   string `json:"rule"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// checks judges the data and the run by rules that hold for all methods.
func (q Question) checks(a *Advice) []Check {
	d, r := a.Data, q.Run
	steps := a.Estimate.Steps
	var out []Check
	add := func(rule string, ok bool, remedy, format string, args ...any) {
		c := Check{Rule: rule, OK: ok, Detail: fmt.Sprintf(format, args...)}
		if !ok {
			c.Remedy = remedy
		}
		out = append(out, c)
	}
	add("the records are readable", d.Bad == 0, "look at them with: tunesmith data preview RUN.yaml --problems", "%d of %d records cannot be used", d.Bad, d.Bad+d.Examples)
	add("there is enough to learn from", d.Examples >= 50, "below about 50 examples try a prompt with examples first, or write more of them", "%d examples", d.Examples)
	add("examples differ", float64(d.Repeated) <= 0.05*float64(d.Examples), "take repeated ones out: they are learned by heart", "%d examples are repeated", d.Repeated)
	add("answers are not cut", float64(d.Cut) <= 0.01*float64(d.Examples), fmt.Sprintf("raise max_length, up to the model's context of %d, or choose overlength: split", d.Context),
		"%d examples are longer than %d tokens; 99 %% have up to %d", d.Cut, r.MaxLength, d.P99)
	add("something is held out", r.Eval.Share > 0 || len(r.Eval.Data) > 0, "set eval.share to 0.05, or name eval.data", "eval.share is %g", r.Eval.Share)
	add("the task is scored", r.Eval.Task != "", "write 50 or more questions with answers and name them as eval.task: a loss says little about answers", "eval.task is %q", r.Eval.Task)
	add("conversations meet a chat template", d.Templated, "choose chat_template: chatml, and use the same one when serving", "the model's template: %v", d.Templated)
	add("there are enough steps", steps >= 30, "raise epochs, or lower gradient_accumulation", "%d optimizer steps", steps)
	add("no example is seen too often", r.Epochs <= 5 || d.Examples > 2000, "from the third to the fifth pass on examples are learned by heart; watch the held-out loss", "%g epochs", r.Epochs)
	rows := r.BatchSize * r.Accumulation
	add("a step averages over some rows", rows >= 4 && rows <= 128, "aim at 4 to 128 rows a step with batch_size and gradient_accumulation", "%d rows a step", rows)
	if rate, err := r.Rate(); err == nil && r.LearningRate > 0 {
		usual := q.usualRate(a)
		add("the learning rate is usual", usual == 0 || math.Abs(math.Log10(rate/usual)) <= 1, fmt.Sprintf("the method's own is %g", usual), "learning_rate is %g", rate)
	}
	if a.Estimate.Seconds > 0 && q.Minutes > 0 {
		add("it ends in time", a.Estimate.Seconds <= 60*q.Minutes, fmt.Sprintf("set max_steps to %d", int(float64(steps)*60*q.Minutes/a.Estimate.Seconds)),
			"about %.0f minutes of %g", a.Estimate.Seconds/60, q.Minutes)
	}
	return out
}

// usualRate is the learning rate of the advised methods.
func (q Question) usualRate(a *Advice) float64 {
	c, err := q.run(a.Objective, a.Parameters, false)
	if err != nil {
		return 0
	}
	c.LearningRate = 0
	rate, err := c.Rate()
	if err != nil {
		return 0
	}
	return rate
}
