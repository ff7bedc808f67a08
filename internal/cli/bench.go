package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tunesmith/data"
	"tunesmith/engine"
	"tunesmith/generate"
	"tunesmith/internal/nearest"
	"tunesmith/model"
	"tunesmith/optim"
	"tunesmith/trainer"
	"tunesmith/tune"
)

// shapes are model sizes to measure with random weights.
var shapes = map[string]model.Config{
	"llama-30m":     shape(384, 1024, 12, 6, 2, 32000),
	"smollm2-135m":  shape(576, 1536, 30, 9, 3, 49152),
	"smollm2-360m":  shape(960, 2560, 32, 15, 5, 49152),
	"tinyllama-1b1": shape(2048, 5632, 22, 32, 4, 32000),
}

func shape(hidden, intermediate, layers, heads, kv, vocab int) model.Config {
	return model.Config{
		Type: "llama", Hidden: hidden, Intermediate: intermediate, Layers: layers, Heads: heads, KVHeads: kv, HeadDim: hidden / heads,
		Vocab: vocab, MaxPositions: 8192, NormEps: 1e-5, Activation: "silu", Tied: vocab != 32000, PadID: -1, BOS: -1,
		Rope:    model.Rope{Type: "default", Theta: 10000, Factor: 1, Original: 8192, MaxPositions: 8192},
		Windows: make([]int, layers),
	}
}

// benchFlags say what is measured.
type benchFlags struct {
	shape, model, method, precision string
	batch, length, steps            int
	recompute                       bool
	sets                            []string
}

func (a *app) bench() *cobra.Command {
	c := &cobra.Command{Use: "bench", Short: "Measure speed and memory on this machine"}
	for _, part := range []struct {
		use, short string
		run        func(context.Context, *benchFlags) error
	}{
		{"train", "Tokens per second and memory of training steps", a.benchTrain},
		{"generate", "Tokens per second of reading a prompt and of writing", a.benchGenerate},
		{"load", "Time from the file to the first token", a.benchLoad},
	} {
		var f benchFlags
		sub := &cobra.Command{
			Use: part.use, Short: part.short, Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return part.run(c.Context(), &f) },
		}
		sub.Flags().StringVar(&f.shape, "shape", "smollm2-135m", "model of this shape with random weights")
		sub.Flags().StringVarP(&f.model, "model", "m", "", "measure this model instead")
		sub.Flags().StringVar(&f.method, "method", tune.Default(tune.ParametersAxis), "parameters method")
		sub.Flags().StringVar(&f.precision, "precision", string(engine.Mixed), "fp32 or mixed")
		sub.Flags().IntVar(&f.batch, "batch", 4, "rows of a batch")
		sub.Flags().IntVar(&f.length, "length", 256, "tokens of a row, or of the prompt")
		sub.Flags().IntVar(&f.steps, "steps", 5, "measured steps, or tokens that are written")
		sub.Flags().BoolVar(&f.recompute, "recompute", false, "keep only the layers' inputs")
		sub.Flags().StringArrayVar(&f.sets, "set", nil, "set an option of the method, as in parameters.rank=32")
		c.AddCommand(sub)
	}
	c.AddCommand(a.benchMethods())
	return c
}

// open returns the model to measure.
func (f *benchFlags) open() (*model.Model, error) {
	if f.model != "" {
		path, err := modelPath(f.model)
		if err != nil {
			return nil, err
		}
		return model.Open(path)
	}
	c, ok := shapes[f.shape]
	if !ok {
		var known []string
		for name := range shapes {
			known = append(known, name)
		}
		slices.Sort(known)
		return nil, usageError{fmt.Errorf("shape: want one of %s, have %q%s", strings.Join(known, ", "), f.shape, nearest.Hint(f.shape, known))}
	}
	return model.New(c)
}

func (a *app) benchTrain(ctx context.Context, f *benchFlags) error {
	began, before := time.Now(), resident("VmRSS") // the program itself
	m, err := f.open()
	if err != nil {
		return err
	}
	defer m.Close()
	r, err := tune.Schema().Load("", append([]string{"model=x", "data=[{path: x}]", "parameters.method=" + f.method}, f.sets...))
	if err != nil {
		return err
	}
	method, ok := r.Value.Parameters.Options.(tune.Parameters)
	if !ok {
		return usageError{fmt.Errorf("method %q cannot be measured", f.method)}
	}
	graft, err := method.Graft(m.Map())
	if err != nil {
		return err
	}
	backend, err := engine.Open("cpu", engine.Options{Precision: engine.Precision(f.precision)})
	if err != nil {
		return err
	}
	defer backend.Close()
	adapted, err := trainer.Adapt(ctx, m, graft, backend, 1)
	if err != nil {
		return err
	}
	o, err := optim.New("adamw", optim.Options{Parallel: trainer.Parallel})
	if err != nil {
		return err
	}
	s, err := trainer.NewStepper(trainer.StepConfig{
		Model: adapted, Backend: backend, Objective: r.Value.Objective.Options.(tune.Objective), Optimizer: o,
		Schedule: func(int) float64 { return 1e-4 }, Clip: 1, Recompute: f.recompute, Parallel: trainer.Parallel,
	})
	if err != nil {
		return err
	}
	plan, err := s.Memory(f.batch, f.length)
	if err != nil {
		return err
	}
	planned := before + plan.Total() + s.OptimizerBytes()
	batch := randomBatch(f.batch, f.length, m.Config.Vocab)
	var times []float64
	var first, processor float64
	for i := range f.steps + 1 {
		at := time.Now()
		if _, err := s.Step(ctx, []data.Batch{batch}); err != nil {
			return err
		}
		if i == 0 {
			first, processor = time.Since(began).Seconds(), processorSeconds()
			continue
		}
		times = append(times, time.Since(at).Seconds())
	}
	slices.Sort(times)
	median := times[len(times)/2]
	trained, all := trainer.Counts(adapted.Sites)
	return a.measured(map[string]any{
		"tokens_per_second": float64(batch.Tokens) / median, "seconds_per_step": median,
		"processor_seconds_per_step": (processorSeconds() - processor) / float64(f.steps), "peak_rss_bytes": peakRSS(),
		"planned_bytes": planned, "first_step_seconds": first, "trained_values": trained, "values": all,
		"engine": backend.Name(), "precision": f.precision, "batch": f.batch, "length": f.length, "method": f.method,
		"threads": runtime.GOMAXPROCS(0), "memory": plan,
	})
}

func (a *app) benchGenerate(ctx context.Context, f *benchFlags) error {
	m, err := f.open()
	if err != nil {
		return err
	}
	defer m.Close()
	adapted, err := m.Adapt(1)
	if err != nil {
		return err
	}
	backend, err := engine.Open("cpu", engine.Options{Precision: engine.Precision(f.precision)})
	if err != nil {
		return err
	}
	defer backend.Close()
	g := generate.New(adapted, backend)
	prompts := make([][]int, f.batch)
	for i := range prompts {
		for _, id := range randomBatch(1, f.length, m.Config.Vocab).IDs {
			prompts[i] = append(prompts[i], int(id))
		}
	}
	var start, firstToken time.Time
	o := generate.Options{MaxTokens: f.steps + 1, Emit: func(row, _ int) {
		if firstToken.IsZero() {
			firstToken = time.Now()
		}
	}}
	for range 2 { // the first pass packs the weights
		firstToken = time.Time{}
		start = time.Now()
		if _, err := g.Generate(ctx, prompts, o); err != nil {
			return err
		}
	}
	prefill, decode := firstToken.Sub(start).Seconds(), time.Since(firstToken).Seconds()
	return a.measured(map[string]any{
		"prefill_tokens_per_second": float64(f.batch*f.length) / prefill, "decode_tokens_per_second": float64(f.batch*f.steps) / decode,
		"peak_rss_bytes": peakRSS(), "engine": backend.Name(), "precision": f.precision, "batch": f.batch, "prompt": f.length, "tokens": f.steps,
	})
}

func (a *app) benchLoad(ctx context.Context, f *benchFlags) error {
	began := time.Now()
	m, err := f.open()
	if err != nil {
		return err
	}
	defer m.Close()
	opened := time.Since(began).Seconds()
	adapted, err := m.Adapt(1)
	if err != nil {
		return err
	}
	backend, err := engine.Open("cpu", engine.Options{Precision: engine.Precision(f.precision)})
	if err != nil {
		return err
	}
	defer backend.Close()
	if _, err := generate.New(adapted, backend).Generate(ctx, [][]int{{1, 2, 3}}, generate.Options{MaxTokens: 1}); err != nil {
		return err
	}
	return a.measured(map[string]any{"open_seconds": opened, "first_token_seconds": time.Since(began).Seconds(), "peak_rss_bytes": peakRSS(), "engine": backend.Name()})
}

// measured shows figures.
func (a *app) measured(m map[string]any) error {
	if a.json {
		return a.result(m)
	}
	var rows [][]string
	for k, v := range m {
		text := fmt.Sprint(v)
		if f, ok := v.(float64); ok {
			text = fmt.Sprintf("%.4g", f)
		}
		if n, ok := v.(int64); ok && strings.HasSuffix(k, "_bytes") {
			text = size(n)
		}
		rows = append(rows, []string{k, text})
	}
	slices.SortFunc(rows, func(x, y []string) int { return strings.Compare(x[0], y[0]) })
	a.say("%s", a.grid([]string{"figure", "value"}, rows))
	return nil
}

// randomBatch is full rows of random tokens, all supervised.
func randomBatch(rows, cols, vocab int) data.Batch {
	n := rows * cols
	b := data.Batch{
		Rows: rows, Cols: cols, IDs: make([]int32, n), Targets: make([]int32, n), Positions: make([]int32, n),
		Segments: make([]int32, n), Weights: make([]float32, n), Tokens: n,
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range b.IDs {
		b.IDs[i], b.Positions[i] = int32(rng.IntN(vocab)), int32(i%cols)
	}
	for i := range b.IDs {
		b.Targets[i] = -1
		if i%cols != cols-1 {
			b.Targets[i], b.Weights[i] = b.IDs[i+1], 1
			b.Supervised++
		}
	}
	return b
}

// peakRSS returns the most memory that this process has had resident, in bytes, 0 where the system does not say.
func peakRSS() int64 { return resident("VmHWM") }

// resident reads a field of what the system says about this process.
func resident(field string) int64 {
	if text, err := os.ReadFile(filepath.Join("/proc", "self", "status")); err == nil {
		for line := range strings.Lines(string(text)) {
			var kib int64
			if _, err := fmt.Sscanf(line, field+": %d kB", &kib); err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// processorSeconds returns the time that this process has had processors, 0 where the system does not say. On a machine
// that others use too it says more than the clock.
func processorSeconds() float64 {
	text, err := os.ReadFile(filepath.Join("/proc", "self", "stat"))
	if err != nil {
		return 0
	}
	_, behind, _ := strings.Cut(string(text), ") ") // the name may hold anything
	fields := strings.Fields(behind)
	if len(fields) < 13 {
		return 0
	}
	var ticks float64 // of user and system, 100 a second
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return ticks / 100
}
