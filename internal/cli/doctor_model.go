package cli

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"tunesmith/chat"
	"tunesmith/generate"
	"tunesmith/model"
	"tunesmith/runs"
	"tunesmith/tune"
)

// model examines a model: its files, its values, its text side and how it ends answers.
func (e *examination) model(ctx context.Context, name string) error {
	path, err := modelPath(name)
	if err != nil {
		return err
	}
	m, err := model.Open(path)
	if err != nil {
		e.add(wrong, modelRemedy(path, err), "it does not open: %v", err)
		return nil
	}
	defer m.Close()
	e.ok("%s, %d layers of width %d", m.Config.Type, m.Config.Layers, m.Config.Hidden)
	var bad []string
	for _, p := range m.Map().Params {
		v, err := m.Values(p.Name)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(v, func(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) }) {
			bad = append(bad, p.Name)
		}
	}
	if len(bad) > 0 {
		e.add(wrong, "fetch or make the weights again; a training that wrote them has diverged", "weights are NaN or infinite: %s", strings.Join(shortList(bad), ", "))
		return nil
	}
	e.ok("all weights are numbers")
	text, err := tune.OpenText(path, m.File, e.template)
	if err != nil {
		e.add(wrong, "put tokenizer.json and tokenizer_config.json of the model beside its weights", "no tokenizer: %v", err)
		return nil
	}
	if n := text.Tokenizer.Size(); n > m.Config.Vocab {
		e.add(wrong, "the tokenizer belongs to another model, or tokens were added to it and not to the weights", "the tokenizer has %d tokens, the model %d", n, m.Config.Vocab)
		return nil
	}
	backend, err := e.doctorEngine()
	if err != nil {
		return err
	}
	defer backend.Close()
	a, err := m.Adapt(0)
	if err != nil {
		return err
	}
	return e.answers(ctx, &loaded{Adapted: a, text: text, backend: backend})
}

// modelRemedy says what to do about a model that does not open.
func modelRemedy(path string, err error) string {
	switch text := err.Error(); {
	case errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, ".gguf"):
		return "a model's directory holds config.json, tokenizer.json and the weights as safetensors; copy what is missing"
	case strings.Contains(text, "model_type"), strings.Contains(text, "general.architecture"):
		return "this architecture is not built here; see tunesmith --help for what is"
	case strings.Contains(text, "pickle"):
		return "save the model as safetensors where it comes from"
	}
	return "the file is not whole, or not of the model that its config.json describes; fetch it again"
}

// questions are what answers are tried with.
var questions = []string{"What is the capital of France?", "Say hello."}

// answers examines the chat template, and lets the model answer to see whether it stops.
func (e *examination) answers(ctx context.Context, l *loaded) error {
	if l.text.Template == nil {
		e.add(doubt, "choose one with --chat-template, such as chatml, that the model was trained with", "the model has no chat template: it continues texts, and answers no questions")
	} else {
		for _, w := range l.text.Template.Check(l.text.Tokenizer) {
			e.add(doubt, "see the model's card for the template that it was trained with", "chat template: %v", w)
		}
	}
	stops := l.text.Stops()
	if len(stops) == 0 {
		e.add(wrong, "name eos_token in tokenizer_config.json, or choose a chat template whose turns end with a token of the model", "no token ends an answer: generation never ends by itself")
		return nil
	}
	if e.tokens < 1 || l.text.Template == nil {
		return nil
	}
	var prompts [][]int
	for _, q := range questions {
		ids, err := l.text.Prompt([]chat.Message{{Role: "user", Content: q}})
		if err != nil {
			e.add(wrong, "choose another one with --chat-template", "the chat template fails on a plain question: %v", err)
			return nil
		}
		prompts = append(prompts, ids)
	}
	out, err := l.generator().Generate(ctx, prompts, generate.Options{MaxTokens: e.tokens, Stop: stops})
	if err != nil {
		return err
	}
	ended := 0
	for _, r := range out {
		if r.Why == generate.Stopped {
			ended++
		}
	}
	if ended == 0 {
		e.add(doubt, "train with train_on: answers and a template whose turns end with a token, so that the end is learned; or give --stop",
			"none of %d answers ended within %d tokens", len(out), e.tokens)
		return nil
	}
	e.ok("%d of %d answers ended by themselves within %d tokens", ended, len(out), e.tokens)
	return nil
}

// run examines a run's directory, then what it has saved.
func (e *examination) run(ctx context.Context, dir string) error {
	r, err := tune.Schema().Load(filepath.Join(dir, runs.ConfigFile), nil)
	if err != nil {
		e.add(wrong, "correct the keys that are named", "its run file is not valid: %v", err)
		return nil
	}
	c := r.Value
	info, err := runs.Describe(dir)
	if err != nil {
		e.add(wrong, "the directory is not a whole run; start it again", "%v", err)
		return nil
	}
	e.history(dir, info)
	path, err := modelPath(c.Model)
	if err != nil {
		e.add(wrong, "put the base back where the run file names it, or change model in it", "its base is gone: %v", err)
		return nil
	}
	e.sameBase(dir, path)
	adapter := filepath.Join(dir, runs.AdapterDir)
	switch {
	case exists(adapter):
		e.base, e.template = c.Model, c.ChatTemplate
		return e.adapter(ctx, adapter)
	case exists(filepath.Join(dir, "model")):
		e.template = c.ChatTemplate
		return e.model(ctx, filepath.Join(dir, "model"))
	}
	e.add(doubt, "continue it with: tunesmith resume "+dir, "it has saved no result yet")
	return nil
}

// history reads what the run has written.
func (e *examination) history(dir string, info runs.Info) {
	switch info.Status {
	case runs.Finished:
		e.ok("finished after %d steps", info.Step)
	case runs.Failed:
		e.add(wrong, "see the event below, then: tunesmith resume "+dir, "it failed at step %d", info.Step)
	default:
		e.add(doubt, "tunesmith resume "+dir, "it is %s at step %d", info.Status, info.Step)
	}
	events, err := runs.Events(dir)
	if err != nil {
		e.add(doubt, "", "%v", err)
	}
	for _, ev := range events {
		switch ev.Kind {
		case runs.EventError:
			e.add(wrong, "a loss that rises: lower learning_rate or raise warmup; no memory: lower batch_size or set recompute", "step %d: %s", ev.Step, ev.Message)
		case runs.EventWarning:
			e.add(doubt, "", "step %d: %s", ev.Step, ev.Message)
		}
	}
	metrics, err := runs.Metrics(dir)
	if err != nil {
		e.add(doubt, "", "%v", err)
	}
	losses := map[string][]float64{}
	for _, m := range metrics {
		losses[m.Split] = append(losses[m.Split], float64(m.Loss))
	}
	for split, list := range losses {
		first, last := list[0], list[len(list)-1]
		switch {
		case math.IsNaN(last) || math.IsInf(last, 0):
			e.add(wrong, "lower learning_rate, raise warmup, look for broken records", "the %s loss is no number any more", split)
		case split == runs.Eval && len(list) > 1 && last > first:
			e.add(doubt, "fewer epochs, a lower learning_rate, or more data: it learns its rows by heart", "the held-out loss rose from %.3f to %.3f", first, last)
		case split == runs.General && len(list) > 1 && last > first+1:
			e.add(doubt, "a lower learning_rate, fewer steps, or general data mixed in", "the general loss rose from %.3f to %.3f: much is forgotten", first, last)
		}
	}
}

// sameBase compares the base with the one that the run began with.
func (e *examination) sameBase(dir, path string) {
	m, err := runs.ReadManifest(dir)
	if err != nil {
		e.add(doubt, "", "%v", err)
		return
	}
	now, err := hashes(path)
	if err != nil {
		e.add(doubt, "", "%v", err)
		return
	}
	for _, was := range m.Base {
		i := slices.IndexFunc(now, func(f runs.File) bool { return filepath.Base(f.Path) == filepath.Base(was.Path) })
		if i < 0 || now[i].SHA256 != was.SHA256 {
			e.add(wrong, "put the base back that the run began with, or train again", "the base has changed since the run began: %s", filepath.Base(was.Path))
			return
		}
	}
	e.ok("the base is the one that the run began with")
}
