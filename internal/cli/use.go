package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tunesmith/chat"
	"tunesmith/evals"
	"tunesmith/export"
	"tunesmith/generate"
	"tunesmith/model"
	"tunesmith/quant"
	"tunesmith/token"
	"tunesmith/tune"
)

// sampling are the flags of decoding.
type sampling struct {
	generate.Sampling
	maxTokens int
	seed      uint64
	stop      []string
}

func (s *sampling) add(c *cobra.Command) {
	f := c.Flags()
	f.IntVar(&s.maxTokens, "max-tokens", 256, "most tokens of an answer; 0 is the model's context")
	f.Float64Var(&s.Temperature, "temperature", 0, "0 takes the likeliest token, higher values vary more")
	f.IntVar(&s.TopK, "top-k", 0, "choose among the k likeliest tokens; 0 is all")
	f.Float64Var(&s.TopP, "top-p", 0, "choose among the likeliest tokens that together reach p")
	f.Float64Var(&s.MinP, "min-p", 0, "drop tokens less likely than p times the likeliest")
	f.Float64Var(&s.RepetitionPenalty, "repetition-penalty", 0, "above 1 makes tokens of the text so far less likely")
	f.Uint64Var(&s.seed, "seed", 0, "start of the random numbers")
	f.StringArrayVar(&s.stop, "stop", nil, "text that ends an answer; may be given again")
}

// stream answers one prompt and gives out the text as it comes. It returns the whole answer.
func (s *sampling) stream(ctx context.Context, l *loaded, g *generate.Generator, prompt []int, emit func(string)) (string, int, error) {
	decoder := l.text.Tokenizer.Stream(true)
	var text strings.Builder
	o := generate.Options{MaxTokens: s.maxTokens, Stop: l.text.Stops(), Seed: s.seed, Sampling: s.Sampling}
	o.Until = func(_ int, ids []int) bool {
		if len(s.stop) == 0 {
			return false
		}
		all := l.text.Tokenizer.Decode(ids, true)
		for _, stop := range s.stop {
			if strings.Contains(all, stop) {
				return true
			}
		}
		return false
	}
	o.Emit = func(_, id int) {
		part := decoder.Push(id)
		text.WriteString(part)
		emit(part)
	}
	out, err := g.Generate(ctx, [][]int{prompt}, o)
	rest := decoder.Flush()
	emit(rest)
	n := 0
	if len(out) > 0 {
		n = len(out[0].IDs)
	}
	return text.String() + rest, n, err
}

func (a *app) generate() *cobra.Command {
	var m modelFlags
	var s sampling
	var raw bool
	c := &cobra.Command{
		Use:     "generate PROMPT...",
		Short:   "Answer prompts with a model",
		Example: "  tunesmith generate -m model.gguf -a runs/run/adapter \"What is the capital of France?\"",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			l, err := m.open(a)
			if err != nil {
				return err
			}
			defer l.Close()
			g := l.generator()
			for _, text := range args {
				var ids []int
				if raw || l.text.Template == nil {
					ids = l.text.Tokenizer.IDs(text, token.WithSpecial())
				} else if ids, err = l.text.Prompt([]chat.Message{{Role: "user", Content: text}}); err != nil {
					return err
				}
				began := time.Now()
				emit := func(part string) { fmt.Fprint(a.out, part) }
				if a.json {
					emit = func(string) {}
				}
				answer, n, err := s.stream(c.Context(), l, g, ids, emit)
				if err != nil {
					return err
				}
				if a.json {
					seconds := time.Since(began).Seconds()
					if err := a.result(map[string]any{"prompt": text, "answer": answer, "tokens": n, "seconds": seconds}); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintln(a.out)
			}
			return nil
		},
	}
	m.add(c)
	s.add(c)
	c.Flags().BoolVar(&raw, "raw", false, "continue the text as it stands, without the chat template")
	return c
}

func (a *app) chat() *cobra.Command {
	var m modelFlags
	var s sampling
	var system string
	c := &cobra.Command{
		Use:   "chat",
		Short: "Talk with a model",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := m.open(a)
			if err != nil {
				return err
			}
			defer l.Close()
			g := l.generator()
			var messages []chat.Message
			if system != "" {
				messages = append(messages, chat.Message{Role: "system", Content: system})
			}
			start := len(messages)
			if terminal(a.in.(*os.File)) {
				a.say("talk with %s; /reset forgets, /quit ends", m.model)
			}
			lines := bufio.NewScanner(a.in)
			for {
				fmt.Fprint(a.err, "> ")
				if !lines.Scan() {
					return lines.Err()
				}
				switch line := strings.TrimSpace(lines.Text()); line {
				case "":
				case "/quit", "/exit":
					return nil
				case "/reset":
					messages = messages[:start]
				default:
					messages = append(messages, chat.Message{Role: "user", Content: line})
					ids, err := l.text.Prompt(messages)
					if err != nil {
						return err
					}
					answer, _, err := s.stream(c.Context(), l, g, ids, func(part string) { fmt.Fprint(a.out, part) })
					fmt.Fprintln(a.out)
					if err != nil {
						return err
					}
					messages = append(messages, chat.Message{Role: "assistant", Content: answer})
				}
			}
		},
	}
	m.add(c)
	s.add(c)
	c.Flags().StringVar(&system, "system", "", "text of the system message")
	return c
}

func (a *app) eval() *cobra.Command {
	var m modelFlags
	var task, text string
	var most int
	var benchmarks benchmarkFlags
	c := &cobra.Command{
		Use:     "eval",
		Short:   "Score a model on a task and on public benchmarks, and its loss on a text",
		Example: "  tunesmith eval -m model.gguf -a runs/run/adapter --task questions.jsonl --text general.txt",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := m.open(a)
			if err != nil {
				return err
			}
			defer l.Close()
			out := map[string]any{"model": m.model, "adapter": m.adapter}
			var rows [][]string
			if task != "" {
				questions, err := evals.ReadTask(task)
				if err != nil {
					return err
				}
				score, err := evals.Ask(c.Context(), l.generator(), l.text, questions, most)
				if err != nil {
					return err
				}
				out["task"] = map[string]any{"right": score.Right, "total": score.Total, "share": score.Share()}
				rows = append(rows, []string{"task score", fmt.Sprintf("%.1f %%", 100*score.Share()), fmt.Sprintf("%s, %d of %d right", interval(score), score.Right, score.Total)})
			}
			more, figures, err := benchmarks.take(c.Context(), a, l)
			if err != nil {
				return err
			}
			rows = append(rows, more...)
			if len(figures) > 0 {
				out["benchmarks"] = figures
			}
			source := "embedded text"
			content := readAll(general())
			if text != "" {
				b, err := os.ReadFile(text)
				if err != nil {
					return err
				}
				source, content = text, string(b)
			}
			loss, tokens, err := evals.Loss(c.Context(), l.Adapted, l.backend, l.text.Tokenizer.IDs(content), evals.Window)
			if err != nil {
				return err
			}
			out["loss"] = map[string]any{"text": source, "loss": loss, "perplexity": evals.Perplexity(loss), "tokens": tokens}
			if a.json {
				return a.result(out)
			}
			rows = append(rows, []string{"loss", fmt.Sprintf("%.4f", loss), fmt.Sprintf("perplexity %.2f on %d tokens of %s", evals.Perplexity(loss), tokens, source)})
			a.say("%s", a.grid([]string{"measure", "value", ""}, rows))
			return nil
		},
	}
	m.add(c)
	benchmarks.add(c)
	c.Flags().StringVar(&task, "task", "", "JSONL file of questions: prompt or messages, and answer, or choices with label")
	c.Flags().StringVar(&text, "text", "", "text file for the loss; an embedded one where empty")
	c.Flags().IntVar(&most, "max-tokens", 32, "most tokens of an answer to the task")
	return c
}

func (a *app) merge() *cobra.Command {
	var m modelFlags
	var out, format string
	c := &cobra.Command{
		Use:     "merge",
		Short:   "Fold an adapter into its model and write the result",
		Example: "  tunesmith merge -m model.gguf -a runs/run/adapter -o merged\n  tunesmith merge -m model.gguf -a runs/run/adapter -o merged.gguf --format Q8_0",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if out == "" {
				return usageError{errors.New("merge: give the result's place with -o: a directory, or a file that ends in .gguf")}
			}
			l, err := m.open(a)
			if err != nil {
				return err
			}
			defer l.Close()
			if err := saveModel(out, l.Adapted, l.text, format); err != nil {
				return err
			}
			f, err := quant.Parse(strings.ToUpper(format))
			if err != nil {
				return err
			}
			r, err := export.Loss(l.Adapted, f, strings.HasSuffix(out, ".gguf"))
			if err != nil {
				return err
			}
			if a.json {
				return a.result(map[string]any{"model": out, "format": f.String(), "rounding": r.All, "worst_rounding": r.Most, "worst": r.Worst})
			}
			a.say("wrote %s", out)
			if r.All > 0 {
				a.say("rounding to %v changes the merged weights by %.3f %% of their length, %s most with %.3f %%", f, 100*r.All, r.Worst, 100*r.Most)
			}
			return nil
		},
	}
	m.add(c)
	c.Flags().StringVarP(&out, "output", "o", "", "a directory for Hugging Face's layout, or a file that ends in .gguf")
	c.Flags().StringVar(&format, "format", "F32", "storage of the weights: F32, F16, BF16; for GGUF also Q8_0, Q4_0, Q4_1")
	return c
}

// saveModel writes a model with its grafts folded in: a GGUF file where the name says so, else a directory.
func saveModel(path string, m *model.Adapted, t tune.Text, format string) error {
	f, err := quant.Parse(strings.ToUpper(format))
	if err != nil {
		return usageError{err}
	}
	if strings.HasSuffix(path, ".gguf") {
		return export.GGUF(path, m, t, f)
	}
	return export.Directory(path, m, t, f)
}
