package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tunesmith/data"
	"tunesmith/evals"
	"tunesmith/internal/atomicfile"
)

// scored is a record with what the model found.
type scored struct {
	data.Position
	evals.IFD
	Ratio  float64 `json:"ifd"` // of the perplexities
	Losses float64 `json:"ifd_losses"`

	record data.Record
}

func (a *app) dataScore() *cobra.Command {
	var f dataFlags
	var m modelFlags
	var out, scores, by string
	var best int
	var below float64
	var force bool
	c := &cobra.Command{
		Use:   "score SOURCE...",
		Short: "Score records by how much the question helps the model with the answer",
		Long: "IFD is the perplexity of the answer behind its question over that of the answer alone. Above 1 the answer does not\n" +
			"follow from the question; just below 1 there is most to learn; near 0 the model knows it already. The score\n" +
			"ifd_losses is the ratio of the losses instead, which lies nearer to 1. loss is the loss behind the question.",
		Example: "  tunesmith data score clean.jsonl -m model.gguf --scores scores.jsonl -o best.jsonl --best 1000",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" && scores == "" {
				return usageError{errors.New("give the place of the chosen records with -o, of the scores with --scores, or both")}
			}
			if !slices.Contains([]string{"ifd", "ifd_losses", "loss"}, by) {
				return usageError{fmt.Errorf("by: want ifd, ifd_losses or loss, have %q", by)}
			}
			for _, path := range []string{out, scores} {
				if path != "" {
					if err := fresh(path, force); err != nil {
						return err
					}
				}
			}
			in, err := f.read(args)
			if err != nil {
				return err
			}
			m.model, m.template = f.model, f.template
			if m.model == "" {
				m.model = embedded
			}
			l, err := m.open(a)
			if err != nil {
				return err
			}
			defer l.Close()
			limit := l.Config.MaxPositions
			if f.maxLength > 0 {
				limit = min(limit, f.maxLength)
			}
			s := scorer{app: a, model: l, scorer: evals.NewScorer(l.Adapted, l.backend), limit: limit, ledger: &data.Ledger{Mode: data.Skip}}
			if err := s.all(c.Context(), in.sources); err != nil {
				return err
			}
			a.problems(s.ledger)
			if len(s.list) == 0 {
				return fmt.Errorf("%s: no record could be scored", in.title)
			}
			if scores != "" {
				if err := writeLines(scores, len(s.list), func(i int) any { return s.list[i] }); err != nil {
					return err
				}
			}
			chosen := s.choose(by, below, best)
			if out != "" {
				if len(chosen) == 0 {
					return fmt.Errorf("%s: none of %d records has %s below %g", in.title, len(s.list), by, below)
				}
				if err := writeLines(out, len(chosen), func(i int) any { return chosen[i].record }); err != nil {
					return err
				}
			}
			return s.show(len(chosen), out, scores)
		},
	}
	f.add(c)
	m.addAdapter(c)
	c.Flags().StringVar(&m.precision, "precision", "mixed", "accuracy of the products: fp32 or mixed")
	c.Flags().StringVarP(&out, "output", "o", "", "file for the records that are chosen, in their order")
	c.Flags().StringVar(&scores, "scores", "", "file for the scores, a line of JSON a record")
	c.Flags().StringVar(&by, "by", "ifd", "score that chooses: ifd, ifd_losses or loss")
	c.Flags().Float64Var(&below, "below", 1, "leave out records whose score is not below; 0 for no limit")
	c.Flags().IntVar(&best, "best", 0, "of those, keep the records with the highest scores; 0 for all")
	c.Flags().BoolVar(&force, "force", false, "replace existing files")
	return c
}

// scorer scores the records of sources.
type scorer struct {
	app    *app
	model  *loaded
	scorer *evals.Scorer
	limit  int
	ledger *data.Ledger
	list   []scored
}

func (s *scorer) all(ctx context.Context, sources []data.Source) error {
	last := time.Now()
	for _, source := range sources {
		err := data.Each(source, s.ledger, func(rec data.Record) error {
			if err := s.add(ctx, rec); err != nil {
				return err
			}
			if time.Since(last) > 10*time.Second {
				last = time.Now()
				fmt.Fprintf(s.app.err, "%d records scored\n", len(s.list))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// add scores one record: its last answer behind what the template writes before it.
func (s *scorer) add(ctx context.Context, rec data.Record) error {
	prompt, answer, err := s.parts(rec)
	if err == nil && len(prompt)+len(answer) > s.limit {
		err = fmt.Errorf("%d tokens do not fit into %d", len(prompt)+len(answer), s.limit)
	}
	if err == nil && len(answer) == 0 {
		err = errors.New("it has no answer")
	}
	if err != nil {
		s.ledger.Add(data.Problem{Position: rec.Pos, Level: data.Dropped, Reason: "not scored: " + err.Error()})
		return nil
	}
	var start []int
	if bos := s.model.text.Tokenizer.BOS(); bos >= 0 {
		start = []int{bos}
		if len(prompt) > 0 && prompt[0] == bos {
			prompt = prompt[1:]
		}
	}
	ifd, err := s.scorer.IFD(ctx, start, prompt, answer)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		s.ledger.Add(data.Problem{Position: rec.Pos, Level: data.Dropped, Reason: "not scored: " + err.Error()})
		return nil
	}
	s.list = append(s.list, scored{rec.Pos, ifd, ifd.Perplexities(), ifd.Losses(), rec})
	return nil
}

// parts returns the tokens before a record's last answer, and those of the answer.
func (s *scorer) parts(rec data.Record) (prompt, answer []int, err error) {
	t := s.model.text
	answers := rec.Answers()
	if len(answers) == 0 {
		return nil, nil, nil
	}
	answer = t.Tokenizer.IDs(answers[len(answers)-1])
	if rec.Kind != data.Chat {
		return t.Tokenizer.IDs(rec.Asked()), answer, nil
	}
	last := len(rec.Messages) - 1
	for last > 0 && rec.Messages[last].Role != "assistant" {
		last--
	}
	c, err := data.Conversation(rec.Messages[:last], rec.Tools)
	if err != nil {
		return nil, nil, err
	}
	prompt, err = t.Prompt(c.Messages)
	return prompt, answer, err
}

// choose returns the records whose score is below a limit, the best of them by number, in their order.
func (s *scorer) choose(by string, below float64, best int) []scored {
	value := func(x scored) float64 {
		switch by {
		case "ifd_losses":
			return x.Losses
		case "loss":
			return x.Given
		}
		return x.Ratio
	}
	list := slices.Clone(s.list)
	if below > 0 {
		list = slices.DeleteFunc(list, func(x scored) bool { return value(x) >= below })
	}
	if best <= 0 || best >= len(list) {
		return list
	}
	values := make([]float64, len(list))
	for i, x := range list {
		values[i] = value(x)
	}
	slices.Sort(values)
	least := values[len(values)-best]
	var out []scored
	for _, x := range list {
		if value(x) >= least && len(out) < best {
			out = append(out, x)
		}
	}
	return out
}

// show sums up the scores.
func (s *scorer) show(chosen int, out, scores string) error {
	ratios := make([]float64, len(s.list))
	above := 0
	for i, x := range s.list {
		if ratios[i] = x.Ratio; x.Ratio >= 1 {
			above++
		}
	}
	slices.Sort(ratios)
	at := func(p int) float64 { return ratios[(len(ratios)-1)*p/100] }
	if s.app.json {
		return s.app.result(map[string]any{
			"records": len(s.list), "chosen": chosen, "above_1": above, "output": out, "scores": scores,
			"ifd": map[string]float64{"p10": at(10), "median": at(50), "p90": at(90)},
		})
	}
	s.app.say("%d records scored: IFD of 10 %% up to %.3f, median %.3f, 90 %% up to %.3f; %d not below 1", len(s.list), at(10), at(50), at(90), above)
	var wrote []string
	if out != "" {
		wrote = append(wrote, fmt.Sprintf("%s (%d records)", out, chosen))
	}
	if scores != "" {
		wrote = append(wrote, scores)
	}
	s.app.say("wrote %s", strings.Join(wrote, " and "))
	return nil
}

// writeLines writes n values as lines of JSON.
func writeLines(path string, n int, value func(i int) any) error {
	return atomicfile.Write(path, func(w io.Writer) error {
		b := bufio.NewWriter(w)
		for i := range n {
			var line bytes.Buffer
			e := json.NewEncoder(&line)
			e.SetEscapeHTML(false)
			if err := e.Encode(value(i)); err != nil {
				return err
			}
			if _, err := b.Write(line.Bytes()); err != nil {
				return err
			}
		}
		return b.Flush()
	})
}
