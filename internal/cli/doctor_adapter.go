package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/evals"
	"tunesmith/methods"
	"tunesmith/model"
	"tunesmith/site"
	"tunesmith/tune"
)

const (
	adapterConfigFile  = "adapter_config.json"
	adapterWeightsFile = "adapter_model.safetensors"
)

// adapter examines an adapter directory: its files, its values, then what it does on its base.
func (e *examination) adapter(ctx context.Context, dir string) error {
	if !e.adapterFiles(dir) {
		return nil
	}
	ad, err := tune.OpenAdapter(dir)
	if err != nil {
		e.add(wrong, "correct the key that the message names; keys and their meaning are PEFT's", "it cannot be read: %v", err)
		return nil
	}
	defer ad.Close()
	e.ok("%s: %d tensors", ad.Method.Name, len(ad.Tensors()))
	if !e.values(dir, ad) {
		return nil
	}
	base := e.base
	if base == "" {
		base = ad.Base
	}
	if _, err := modelPath(base); base == "" || err != nil {
		e.add(doubt, "give the base with -m to see what the adapter does on it", "its base %s is not on this machine", named(base))
		return nil
	}
	return e.onBase(ctx, ad, base)
}

// adapterFiles examines the files before anything is read from them.
func (e *examination) adapterFiles(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, adapterConfigFile))
	if errors.Is(err, fs.ErrNotExist) {
		if names := namedAdapters(dir); len(names) > 0 {
			e.add(wrong, "give one of them: "+filepath.Join(dir, names[0]), "it holds named adapters and none of its own: %s", strings.Join(names, ", "))
		} else {
			e.add(wrong, "save the adapter again, or write the file: it says the method, its rank and its targets", "%s is missing", adapterConfigFile)
		}
		return false
	}
	var config map[string]any
	if err == nil {
		err = json.Unmarshal(text, &config)
	}
	if err != nil {
		e.add(wrong, "take the file from where the adapter was trained; it has to be one JSON object", "%s is damaged: %v", adapterConfigFile, err)
		return false
	}
	file := filepath.Join(dir, adapterWeightsFile)
	head, err := head(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && exists(filepath.Join(dir, "adapter_model.bin")):
		e.add(wrong, "save it as safetensors where it comes from: pickles can run code, so they are not read", "its weights are a pickle of Python, adapter_model.bin")
		return false
	case errors.Is(err, fs.ErrNotExist):
		e.add(wrong, "copy the file along; without it there is nothing to load", "%s is missing", adapterWeightsFile)
		return false
	case bytes.HasPrefix(head, []byte("version https://git-lfs")):
		e.add(wrong, "fetch the file itself, for instance with git lfs pull", "%s is a pointer of Git LFS, not the weights", adapterWeightsFile)
		return false
	}
	f, err := checkpoint.Open(file)
	if err != nil {
		e.add(wrong, "copy the file again: it is cut or damaged", "%v", err)
		return false
	}
	names := f.Names()
	if err := f.Close(); err != nil {
		e.add(doubt, "", "%v", err)
	}
	if len(names) == 0 {
		e.add(wrong, "save the adapter again; with DeepSpeed or FSDP gather the weights first", "%s holds no tensors", adapterWeightsFile)
		return false
	}
	module := func(name string) bool { return site.IndexOf(name) >= 0 }
	prefixed := func(name string) bool { return strings.HasPrefix(name, "base_model.") }
	if slices.ContainsFunc(names, module) && !slices.ContainsFunc(names, prefixed) {
		e.add(wrong, "put "+tune.PEFTPrefix+" before the names; PEFT loads such a file in silence, and it does nothing",
			"names of tensors lack their beginning: %s", strings.Join(shortList(names), ", "))
		return false
	}
	return true
}

// head returns a file's first bytes.
func head(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 64)
	n, err := f.Read(b)
	if n > 0 {
		err = nil
	}
	return b[:n], err
}

// values looks for numbers that are none, and for updates that are nothing. It reports whether the adapter can be used.
func (e *examination) values(dir string, ad *tune.Adapter) bool {
	var bad []string
	for _, t := range ad.Tensors() {
		if slices.ContainsFunc(t.Float32s(), func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }) {
			bad = append(bad, strings.TrimPrefix(t.Name, tune.PEFTPrefix))
		}
	}
	if len(bad) > 0 {
		e.add(wrong, "the training diverged: lower learning_rate, raise warmup, and take the last good checkpoint",
			"values are NaN or infinite: %s", strings.Join(shortList(bad), ", "))
		return false
	}
	u, err := methods.OpenUpdates(dir)
	if err != nil {
		return true // another kind of method; what it does shows on its base
	}
	var zero, half []string
	for _, f := range u.Modules {
		isZero := func(x []float32) bool { return !slices.ContainsFunc(x, func(v float32) bool { return v != 0 }) }
		switch a, b := isZero(f.A), isZero(f.B); {
		case a && b || f.Scale == 0:
			zero = append(zero, f.Path)
		case a || b:
			half = append(half, f.Path)
		}
	}
	switch nothing := append(half, zero...); {
	case len(nothing) == len(u.Modules):
		e.add(wrong, "it was saved before the first step, or learning_rate was 0: train it, or take a later checkpoint",
			"every update is zero: B is zero as at the start, so the adapter does nothing")
	case len(nothing) > 0:
		e.add(doubt, "these modules did not train: look for them in the targets and in the frozen parameters of the run",
			"%d of %d updates are zero: %s", len(nothing), len(u.Modules), strings.Join(shortList(nothing), ", "))
	default:
		e.ok("all of %d updates have values", len(u.Modules))
	}
	return true
}

// onBase loads the adapter on its base and compares both.
func (e *examination) onBase(ctx context.Context, ad *tune.Adapter, base string) error {
	path, err := modelPath(base)
	if err != nil {
		return err
	}
	m, err := model.Open(path)
	if err != nil {
		e.add(wrong, "examine the base alone: tunesmith doctor "+base, "its base does not open: %v", err)
		return nil
	}
	defer m.Close()
	if e.base != "" && ad.Base != "" && filepath.Base(ad.Base) != filepath.Base(e.base) {
		e.add(doubt, "make sure that both are the same weights: on another model of the same shape an adapter does harm",
			"it was trained on %s, not on %s", ad.Base, e.base)
	}
	if !e.places(ad, m.Map()) {
		return nil
	}
	graft, err := ad.Options.Graft(m.Map())
	if err != nil {
		e.add(wrong, "use the base that it was trained on", "its targets are not in this model: %v", err)
		return nil
	}
	with, err := m.Adapt(0, graft)
	if err != nil {
		return err
	}
	if err := ad.Fill(with.Store, with.Sites); err != nil {
		e.add(wrong, "compare rank, alpha and targets in "+adapterConfigFile+" with those of the training; a tensor that is missing was not saved", "%v", err)
		return nil
	}
	e.ok("every tensor has its place in %s", base)
	return e.effect(ctx, ad, m, with, path)
}

// places finds a base of another size: layers that it does not have, widths that differ.
func (e *examination) places(ad *tune.Adapter, m *site.Map) bool {
	if _, err := methods.OpenUpdates(ad.Dir); err != nil {
		return true // tensors of another kind of method stand elsewhere; filling them in says what does not fit
	}
	linears := map[string]site.Linear{}
	for _, l := range m.Linears {
		linears[l.Path] = l
	}
	layers := 0
	var unknown, widths []string
	for _, t := range ad.Tensors() {
		name, ok := strings.CutPrefix(t.Name, tune.PEFTPrefix)
		if !ok {
			continue
		}
		layers = max(layers, site.IndexOf(name)+1)
		module := m.Owner(name)
		l, known := linears[module]
		switch {
		case module == "":
			unknown = append(unknown, name)
		case known && len(t.Shape) == 2 && !slices.Contains(t.Shape, l.In) && !slices.Contains(t.Shape, l.Out):
			widths = append(widths, fmt.Sprintf("%s of shape %v on %d×%d", name, t.Shape, l.Out, l.In))
		}
	}
	const remedy = "use the base that it was trained on, or train it again on this one"
	switch {
	case layers > m.Layers:
		e.add(wrong, remedy, "wrong base: the adapter has %d layers, the model %d", layers, m.Layers)
	case len(widths) > 0:
		e.add(wrong, remedy, "wrong base: widths differ: %s", strings.Join(shortList(widths), ", "))
	case len(unknown) > 0:
		e.add(wrong, "names of modules differ between architectures and versions: "+remedy, "the model has no such modules: %s", strings.Join(shortList(unknown), ", "))
	default:
		return true
	}
	return false
}

// effect measures what the adapter changes, and whether its answers end.
func (e *examination) effect(ctx context.Context, ad *tune.Adapter, m *model.Model, with *model.Adapted, path string) error {
	text, err := tune.OpenText(path, m.File, e.template)
	if err != nil {
		e.add(doubt, "put the tokenizer's files beside the base", "no text can be tried: %v", err)
	}
	if text.Template != nil && ad.Contract != "" && ad.Contract != text.Template.Contract() {
		e.add(wrong, "give the template that it was trained with: --chat-template FILE; the run's directory names it",
			"it was trained behind another chat template than this model has")
	}
	backend, err := e.doctorEngine()
	if err != nil {
		return err
	}
	defer backend.Close()
	bare, err := m.Adapt(0)
	if err != nil {
		return err
	}
	const most = 512 // tokens are enough to see a difference
	var ids []int
	if text.Tokenizer != nil {
		ids = text.Tokenizer.IDs(readAll(general()))
	} else {
		for i := range most {
			ids = append(ids, 7*i%m.Config.Vocab)
		}
	}
	ids = ids[:min(len(ids), most)]
	var losses [2]float64
	for i, on := range []*model.Adapted{bare, with} {
		if losses[i], _, err = evals.Loss(ctx, on, backend, ids, evals.Window); err != nil {
			return err
		}
	}
	switch change := losses[1] - losses[0]; {
	case math.IsNaN(losses[1]):
		e.add(wrong, "the adapter's values are beyond what the model bears: take an earlier checkpoint", "the loss with the adapter is no number")
	case losses[0] == losses[1]:
		e.add(wrong, "train it longer or with a higher learning_rate, and see that its targets are used", "the adapter changes nothing: the loss on a text is %.4f with and without it", losses[0])
	case change > 1:
		e.add(doubt, "if answers to its own task are bad too: wrong base, wrong template, or a learning_rate that was too high",
			"general loss %.3f → %.3f: the adapter does harm to the model", losses[0], losses[1])
	default:
		e.ok("general loss %.4f → %.4f with the adapter", losses[0], losses[1])
	}
	if text.Tokenizer == nil {
		return nil
	}
	return e.answers(ctx, &loaded{Adapted: with, text: text, backend: backend})
}
