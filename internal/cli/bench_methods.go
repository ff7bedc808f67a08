package cli

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tunesmith/evals"
	"tunesmith/generate"
	"tunesmith/internal/atomicfile"
	"tunesmith/runs"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// methodBench compares methods on one task: the same model, records and steps for each.
type methodBench struct {
	model, train, task, general, output string
	methods                             []string
	batch, steps, answer, window, most  int
	sets                                []string
	one                                 string // the method that this process measures; empty for the process that compares
}

// methodResult is what one method reached.
type methodResult struct {
	Method     string  `json:"method"`
	Score      float64 `json:"score"`
	General    float64 `json:"general_loss"`
	Steps      int     `json:"steps"`
	Rate       float64 `json:"learning_rate"`
	TrainLoss  float64 `json:"train_loss"` // mean of the last steps
	Trained    int     `json:"trained_values"`
	FileBytes  int64   `json:"file_bytes"` // of what was trained, without the base
	Seconds    float64 `json:"seconds"`    // of training
	PeakBytes  int64   `json:"peak_rss_bytes"`
	Planned    int64   `json:"planned_bytes"`
	Engine     string  `json:"engine"`
	Questions  int     `json:"questions"`
	Tokens     int     `json:"general_tokens"`
	Parameters string  `json:"parameters,omitempty"` // options that were set
}

// bare is the result of the model as it was.
const bare = "base"

func (a *app) benchMethods() *cobra.Command {
	var f methodBench
	c := &cobra.Command{
		Use:   "methods",
		Short: "Train every parameters method on one task and compare what they reach",
		Long: "methods trains each parameters method with its defaults on the same records and writes a page that compares\n" +
			"task score, general loss, trained values, file size, time and memory. Each method runs in a process of its\n" +
			"own. Results stay in the output directory: methods that are measured later join the page.",
		Example: "  tunesmith bench methods -m SmolLM2-135M.gguf --train train.jsonl --task test.jsonl --general wiki.txt",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.one != "" {
				return a.benchOne(c.Context(), &f)
			}
			return a.benchAll(c.Context(), &f)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&f.model, "model", "m", embedded, "base model")
	flags.StringVar(&f.train, "train", "", "training records, in any form that train takes")
	flags.StringVar(&f.task, "task", "", "JSONL file of questions with answers")
	flags.StringVar(&f.general, "general", "", "text for the general loss, perhaps gzipped; an embedded one where empty")
	flags.StringVar(&f.output, "output", "bench", "directory of the results and of the page")
	flags.StringSliceVar(&f.methods, "methods", nil, "methods to train, all where empty; NAME:key=value,… is a method with other options")
	flags.IntVar(&f.batch, "batch", 16, "rows of a step")
	flags.IntVar(&f.steps, "steps", 150, "steps of each method")
	flags.IntVar(&f.answer, "tokens", 12, "most tokens of an answer")
	flags.IntVar(&f.window, "window", 512, "tokens of the pieces in which the general loss is measured")
	flags.IntVar(&f.most, "general-tokens", 8192, "tokens of the general text that are used")
	flags.StringArrayVar(&f.sets, "set", nil, "set a key of every run, as in learning_rate=0.0005")
	flags.StringVar(&f.one, "one", "", "measure this method in this process")
	_ = flags.MarkHidden("one")
	_ = c.MarkFlagRequired("train")
	_ = c.MarkFlagRequired("task")
	return c
}

// variant splits NAME:key=value;… into the name and the options.
func variant(entry string) (name string, sets []string) {
	name, rest, ok := strings.Cut(entry, ":")
	if ok {
		sets = strings.Split(rest, ";")
	}
	return name, sets
}

func (a *app) benchAll(ctx context.Context, f *methodBench) error {
	methods := f.methods
	if len(methods) == 0 {
		methods = tune.Names(tune.ParametersAxis)
	}
	for _, m := range methods {
		if name, _ := variant(m); name != bare {
			if _, err := tune.Find(tune.ParametersAxis, name); err != nil {
				return usageError{fmt.Errorf("methods: %w", err)}
			}
		}
	}
	if !slices.Contains(methods, bare) {
		if _, err := os.Stat(f.file(bare)); errors.Is(err, fs.ErrNotExist) {
			methods = append([]string{bare}, methods...)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.output, 0o777); err != nil {
		return err
	}
	for _, m := range methods {
		a.say("%s …", m)
		args := []string{
			"bench", "methods", "--one", m, "-m", f.model, "--train", f.train, "--task", f.task, "--general", f.general, "--output", f.output,
			fmt.Sprint("--batch=", f.batch), fmt.Sprint("--steps=", f.steps), fmt.Sprint("--tokens=", f.answer),
			fmt.Sprint("--window=", f.window), fmt.Sprint("--general-tokens=", f.most),
		}
		for _, s := range f.sets {
			args = append(args, "--set", s)
		}
		child := exec.CommandContext(ctx, self, args...)
		child.Stderr = a.err
		child.Stdout = a.err
		if err := child.Run(); err != nil {
			return fmt.Errorf("method %s: %w", m, err)
		}
	}
	return a.comparePage(f)
}

// file is where a method's result lies.
func (f *methodBench) file(method string) string {
	return filepath.Join(f.output, strings.NewReplacer(":", "-", "=", "-", ";", "-", "/", "-").Replace(method)+".json")
}

// benchOne trains one method and writes its result.
func (a *app) benchOne(ctx context.Context, f *methodBench) (err error) {
	questions, err := evals.ReadTask(f.task)
	if err != nil {
		return err
	}
	text, err := f.text()
	if err != nil {
		return err
	}
	name, options := variant(f.one)
	sets := []string{
		"model=" + f.model, fmt.Sprintf("data=[{path: %q}]", f.train), fmt.Sprint("batch_size=", f.batch), fmt.Sprint("max_steps=", f.steps),
		"eval.share=0", "eval.every=0", "save_every=0", "schedule=linear", "warmup=10", "epochs=0",
	}
	if name != bare {
		sets = append(sets, "parameters.method="+name)
	}
	for _, o := range options {
		sets = append(sets, "parameters."+o)
	}
	r, err := tune.Schema().Load("", append(sets, f.sets...))
	if err != nil {
		return err
	}
	path, err := modelPath(f.model)
	if err != nil {
		return err
	}
	s, err := trainer.Prepare(ctx, r.Value, trainer.Files{Model: path})
	a.problems(s.Ledger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	result := methodResult{Method: f.one, Engine: s.Backend.Name(), Parameters: strings.Join(options, ", ")}
	if name == bare {
		if s.Model, err = s.Model.Adapt(0); err != nil {
			return err
		}
	} else if err := a.benchTrainOne(ctx, f, s, &result); err != nil {
		return err
	}
	score, err := evals.Ask(ctx, generate.New(s.Model, s.Backend), s.Text, questions, f.answer)
	if err != nil {
		return err
	}
	ids := s.Text.Tokenizer.IDs(text)
	result.Score, result.Questions = score.Share(), score.Total
	if result.General, result.Tokens, err = evals.Loss(ctx, s.Model, s.Backend, ids[:min(len(ids), f.most)], f.window); err != nil {
		return err
	}
	if result.PeakBytes == 0 {
		result.PeakBytes = peakRSS()
	}
	a.say("%s: score %.3f, general loss %.4f", f.one, result.Score, result.General)
	return writeJSON(f.file(f.one), result)
}

func (a *app) benchTrainOne(ctx context.Context, f *methodBench, s *trainer.Session, result *methodResult) (err error) {
	m, err := runs.NewManifest(version())
	if err != nil {
		return err
	}
	var config bytes.Buffer
	if err := tune.Schema().Write(&config, s.Config); err != nil {
		return err
	}
	dir, err := runs.CreateNext(filepath.Join(f.output, "runs"), s.Config.Parameters.Name, config.Bytes(), m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	s.Run = dir
	p := progress{app: a}
	var losses []float64
	s.Progress = func(now trainer.Progress) {
		losses = append(losses, now.Loss)
		p.show(now)
	}
	began := time.Now()
	if err := s.Train(ctx); err != nil {
		return err
	}
	result.Seconds = time.Since(began).Seconds()
	result.Steps, result.Planned = s.Trainer.Schedule.Steps, s.Plan().Total()
	result.PeakBytes = peakRSS()
	last := losses[max(0, len(losses)-10):]
	for _, l := range last {
		result.TrainLoss += l / float64(len(last))
	}
	result.Trained, _ = s.Counts()
	if result.Rate, err = s.Config.Rate(); err != nil {
		return err
	}
	e := experiment{app: a, config: s.Config, dir: dir, session: s}
	saved, err := e.save()
	if err != nil {
		return err
	}
	result.FileBytes, err = weightBytes(saved)
	return err
}

// weightBytes is the size of the tensor files of a directory.
func weightBytes(dir string) (n int64, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	for _, path := range files {
		info, statErr := os.Stat(path)
		if statErr != nil {
			return n, statErr
		}
		n += info.Size()
	}
	return n, err
}

// text returns the general text.
func (f *methodBench) text() (string, error) {
	if f.general == "" {
		return readAll(general()), nil
	}
	file, err := os.Open(f.general)
	if err != nil {
		return "", fmt.Errorf("general: %w", err)
	}
	defer file.Close()
	var r io.Reader = file
	if strings.HasSuffix(f.general, ".gz") {
		if r, err = gzip.NewReader(file); err != nil {
			return "", fmt.Errorf("general: %s: %w", f.general, err)
		}
	}
	const most = 1 << 20
	b, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return "", fmt.Errorf("general: %s: %w", f.general, err)
	}
	return string(b), nil
}

// comparePage writes the table of all results in the output directory.
func (a *app) comparePage(f *methodBench) error {
	files, err := filepath.Glob(filepath.Join(f.output, "*.json"))
	if err != nil {
		return err
	}
	var all []methodResult
	for _, path := range files {
		var r methodResult
		if err := readJSON(path, &r); err != nil {
			return err
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y methodResult) int {
		first := func(r methodResult) float64 { // the base leads, then the best
			if r.Method == bare {
				return 2
			}
			return r.Score
		}
		return cmp.Or(cmp.Compare(first(y), first(x)), strings.Compare(x.Method, y.Method))
	})
	head := []string{"method", "task score", "general loss", "steps", "rate", "trained", "file", "seconds", "peak memory"}
	var rows [][]string
	for _, r := range all {
		row := []string{r.Method, fmt.Sprintf("%.3f", r.Score), fmt.Sprintf("%.3f", r.General), "", "", "", "", "", ""}
		if r.Method != bare {
			copy(row[3:], []string{
				fmt.Sprint(r.Steps), fmt.Sprintf("%.2g", r.Rate), thousands(r.Trained), size(r.FileBytes),
				fmt.Sprintf("%.0f", r.Seconds), size(r.PeakBytes),
			})
		}
		rows = append(rows, row)
	}
	var b strings.Builder
	b.WriteString("# Methods compared\n\n")
	if len(all) > 0 {
		fmt.Fprintf(&b, "Engine %s. Task score: exact answers to %d questions. General loss: per token, on %d tokens.\n\n", all[0].Engine, all[0].Questions, all[0].Tokens)
	}
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	line(slices.Repeat([]string{"---"}, len(head)))
	for _, r := range rows {
		line(r)
	}
	page := filepath.Join(f.output, "methods.md")
	if err := atomicfile.WriteFile(page, []byte(b.String())); err != nil {
		return err
	}
	if a.json {
		return a.result(all)
	}
	a.say("%s\nwrote %s", a.grid(head, rows), page)
	return nil
}
