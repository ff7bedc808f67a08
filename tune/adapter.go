package tune

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/engine"
	"tunesmith/internal/atomicfile"
	"tunesmith/site"
)

// Files of an adapter directory, as PEFT names them.
const (
	adapterConfig  = "adapter_config.json"
	adapterWeights = "adapter_model.safetensors"
	adapterCard    = "README.md"
	adapterOrigin  = "tunesmith.json" // what PEFT's config has no place for
)

const adapterAdvice = "; an adapter directory holds " + adapterConfig + " and " + adapterWeights

// taskType is PEFT's name for what models here do.
const taskType = "CAUSAL_LM"

// peftVersion is the version of PEFT whose layout is written.
const peftVersion = "0.21.2"

// hubVersion is the version of the adapters library whose layout is written.
const hubVersion = "adapters.1.3.0"

// Adapter is an adapter directory in PEFT's layout: a method, its options, and the values of what it trained.
type Adapter struct {
	Dir     string
	Method  Method
	Options Parameters
	Base    string // base_model_name_or_path
	AdapterOrigin
	file    checkpoint.File
	tensors map[string]checkpoint.Tensor
}

// AdapterOrigin is what an adapter directory says about its making beside PEFT's files; empty for those that other
// programs wrote.
type AdapterOrigin struct {
	Contract string `json:"chat_contract,omitempty"` // of the chat template that it was trained behind
	Version  string `json:"version,omitempty"`       // of the program that wrote it
	// Maker is the method, where PEFT's type does not say which, and More what it has written; see OriginWriter.
	Maker string          `json:"method,omitempty"`
	More  json.RawMessage `json:"options,omitempty"`
}

// OpenAdapter opens an adapter directory. The values stay in its file, mapped, until Fill.
func OpenAdapter(dir string) (*Adapter, error) {
	a, err := openAdapter(dir)
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", dir, err)
	}
	return a, nil
}

func openAdapter(dir string) (*Adapter, error) {
	text, err := readConfig(filepath.Join(dir, adapterConfig))
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, adapterAdvice)
	}
	a := &Adapter{Dir: dir, tensors: map[string]checkpoint.Tensor{}}
	if a.Method, a.Options, err = ParsePEFT(text); err != nil {
		return nil, err
	}
	var c PEFTConfig
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	if a.Base, err = Key(c, "base_model_name_or_path", ""); err != nil {
		return nil, err
	}
	if a.Base == "" {
		if a.Base, err = Key(c, "model_name", ""); err != nil {
			return nil, err
		}
	}
	if task, err := Key(c, "task_type", taskType); err != nil || task != taskType {
		return nil, fmt.Errorf("%s: task_type: want %s or none, have %s", adapterConfig, taskType, c["task_type"])
	}
	if text, err := readConfig(filepath.Join(dir, adapterOrigin)); err == nil {
		if err := json.Unmarshal(text, &a.AdapterOrigin); err != nil {
			return nil, fmt.Errorf("%s: %w", adapterOrigin, err)
		}
	}
	if err := a.readOrigin(c); err != nil {
		return nil, fmt.Errorf("%s: %w", adapterOrigin, err)
	}
	kind, err := c.kind()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, weightsFile(kind))
	if _, err := os.Stat(path); err != nil {
		path = dir // whose reader says what is there instead
	}
	if a.file, err = checkpoint.Open(path); err != nil {
		return nil, fmt.Errorf("%w%s", err, adapterAdvice)
	}
	for _, name := range a.file.Names() {
		param := plainName(name)
		if n, ok := a.Options.(FileNamer); ok {
			param = n.Param(name)
		}
		if param != "" {
			a.tensors[param], _ = a.file.Tensor(name)
		}
	}
	return a, nil
}

// readOrigin takes the method that the origin names, if it names one, instead of the one that reads PEFT's type.
func (a *Adapter) readOrigin(c PEFTConfig) error {
	if a.Maker == "" {
		return nil
	}
	m, err := Find(ParametersAxis, a.Maker)
	if err != nil {
		return err
	}
	options := m.New()
	reader, ok := options.(OriginReader)
	if !ok {
		return fmt.Errorf("method: %s has no options of its own in this file", m.Name)
	}
	if err := options.(PEFTReader).ReadPEFT(c); err != nil {
		return err
	}
	if err := reader.ReadOrigin(a.More); err != nil {
		return err
	}
	a.Method, a.Options = m, options.(Parameters)
	return nil
}

// NewAdapter returns an adapter of values in memory; the name is for messages.
func NewAdapter(name string, options Parameters, base string, tensors []checkpoint.Tensor) *Adapter {
	a := &Adapter{Dir: name, Options: options, Base: base, tensors: map[string]checkpoint.Tensor{}}
	for _, t := range tensors {
		a.tensors[t.Name] = t
	}
	return a
}

// Tensors returns the adapter's tensors, sorted by name. The data of a file must not be used once the adapter is closed.
func (a *Adapter) Tensors() []checkpoint.Tensor {
	var out []checkpoint.Tensor
	for _, name := range slices.Sorted(maps.Keys(a.tensors)) {
		t := a.tensors[name]
		t.Name = name
		out = append(out, t)
	}
	return out
}

// Close closes the file. What Fill has put into a store stays.
func (a *Adapter) Close() error {
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}

// readConfig reads a JSON file of a sane size.
func readConfig(path string) ([]byte, error) {
	const most = 16 << 20
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s: want at most %d bytes", path, most)
	}
	return text, err
}

// plainName takes the adapter's name out of a tensor's: some files hold the names that PEFT uses in memory.
func plainName(name string) string {
	name = strings.Replace(name, ".default.", ".", 1)
	return strings.TrimSuffix(name, ".default")
}

// Fill puts the adapter's values into the trained tensors of a store. The tensors have to be exactly those that the
// method trains on this model.
func (a *Adapter) Fill(store *engine.Store, sites *site.Map) error {
	left := maps.Clone(a.tensors)
	values := map[*engine.Tensor][]float32{}
	var errs []error
	for _, p := range sites.Trainable() {
		have, ok := left[p.Name]
		delete(left, p.Name)
		dst, stored := store.Get(p.Name)
		switch {
		case !stored:
			errs = append(errs, fmt.Errorf("parameter %q is not in the store", p.Name))
		case !ok:
			errs = append(errs, fmt.Errorf("tensor %q of shape %v is missing", p.Name, p.Shape))
		case !slices.Equal(have.Shape, p.Shape):
			errs = append(errs, fmt.Errorf("tensor %q: want shape %v, have %v", p.Name, p.Shape, have.Shape))
		default:
			values[dst] = have.Float32s()
			errs = append(errs, finite(p.Name, values[dst]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		dst, err := frozen(store, sites, name, left[name].Shape)
		if dst == nil && err == nil {
			dst, err = baseCopy(store, sites, name, left[name].Shape)
		}
		if dst != nil {
			values[dst] = left[name].Float32s()
			err = finite(name, values[dst])
		}
		errs = append(errs, err)
	}
	if err := errors.Join(shorten(errs)...); err != nil {
		return fmt.Errorf("adapter %s does not fit this model; use the base (%s), rank and targets that it was trained with: %w",
			a.Dir, cmp.Or(a.Base, "it names none"), err)
	}
	for t, v := range values {
		if t.Values == nil {
			t.Values, t.Format, t.Data = make([]float32, len(v)), 0, nil
		}
		copy(t.Values, v)
		t.Touch()
	}
	return nil
}

// frozen returns a tensor that the method keeps without training it, such as a random basis, and that its files may hold;
// nil where the name is none of them.
func frozen(store *engine.Store, sites *site.Map, name string, shape []int) (*engine.Tensor, error) {
	p, ok := sites.Param(name)
	if !ok || p.Base || p.Trainable {
		return nil, nil
	}
	if !slices.Equal(p.Shape, shape) {
		return nil, fmt.Errorf("tensor %q: want shape %v, have %v", name, p.Shape, shape)
	}
	dst, _ := store.Get(name)
	return dst, nil
}

// baseCopy returns the model's own tensor that an adapter carries along: PEFT saves the embedding beside an update of
// it, because the vocabulary may have grown. The copy takes the place of the base's. It is nil for a module of which the
// method keeps something that depends on the weight: PEFT may have taken it off the copy, here it is made again.
func baseCopy(store *engine.Store, sites *site.Map, name string, shape []int) (*engine.Tensor, error) {
	const inner = ".base_layer.weight"
	path, ok := strings.CutPrefix(name, PEFTPrefix)
	module, copied := strings.CutSuffix(path, inner)
	if !ok || !copied {
		return nil, fmt.Errorf("tensor %q of shape %v is none that the method trains", name, shape)
	}
	kept := slices.ContainsFunc(sites.Params, func(p site.Param) bool {
		return !p.Base && !p.Trainable && strings.HasPrefix(p.Name, PEFTPrefix+module+".")
	})
	if module == sites.Output.Path && sites.Tied != "" {
		module = sites.Tied
	}
	dst, ok := store.Get(module + ".weight")
	if !ok {
		return nil, fmt.Errorf("tensor %q belongs to no module of the model", name)
	}
	if !slices.Equal(dst.Shape, shape) {
		return nil, fmt.Errorf("tensor %q: want the base's shape %v, have %v; a vocabulary that has grown is not supported", name, dst.Shape, shape)
	}
	if kept {
		return nil, nil
	}
	return dst, nil
}

func finite(name string, values []float32) error {
	for i, v := range values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("tensor %q: value %d is %v; the training that made it has diverged", name, i, v)
		}
	}
	return nil
}

// shorten drops what is no error, keeps the first ten and counts the others.
func shorten(errs []error) []error {
	const most = 10
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if more := len(errs) - most; more > 0 {
		errs = append(errs[:most:most], fmt.Errorf("and %d more tensors", more))
	}
	return errs
}

// AdapterInfo is what an adapter directory says beside the method's own options.
type AdapterInfo struct {
	Base     string // name or path of the base
	Revision string // of the base, empty for none
	Type     string // model_type of the base, empty where nobody says
	Contract string // of the chat template
	Version  string // of the program
	Card     string // Markdown that follows the head of the model card: what it was trained on, and how it does
}

// SaveAdapter writes a graft's trained parameters in PEFT's layout. The directory is replaced whole or not at all.
func SaveAdapter(dir string, graft any, sites *site.Map, store *engine.Store, info AdapterInfo) error {
	w, ok := graft.(PEFTWriter)
	if !ok {
		return fmt.Errorf("adapter %s: this method has no adapter files; save the whole model instead", dir)
	}
	value := func(param string) []float32 {
		t, ok := store.Get(param)
		if !ok {
			return nil
		}
		return t.Float32s()
	}
	var tensors []checkpoint.Tensor
	if t, ok := graft.(PEFTTensors); ok {
		tensors = t.PEFTTensors(sites.Trainable(), value)
	} else {
		tensors = Tensors(sites.Trainable(), value)
	}
	config := w.PEFT()
	weights := adapterWeights
	about := map[string]any{"base_model_name_or_path": orNull(info.Base), "revision": orNull(info.Revision)}
	switch _, hub := config["config"]; {
	case config["peft_type"] != nil:
		maps.Copy(about, map[string]any{"auto_mapping": nil, "inference_mode": true, "peft_version": peftVersion, "task_type": taskType})
	case hub:
		weights = weightsFile(hubLayout)
		about = map[string]any{"model_name": orNull(info.Base), "model_type": orNull(info.Type), "version": hubVersion}
	}
	for key, v := range about {
		if _, ok := config[key]; !ok {
			config[key] = v
		}
	}
	origin := AdapterOrigin{Contract: info.Contract, Version: info.Version}
	if o, ok := graft.(OriginWriter); ok {
		maker, more := o.Origin()
		if maker != "" {
			text, err := json.Marshal(more)
			if err != nil {
				return fmt.Errorf("adapter %s: %w", dir, err)
			}
			origin.Maker, origin.More = maker, text
		}
	}
	err := atomicfile.WriteDir(dir, func(tmp string) error {
		return errors.Join(
			writeJSON(filepath.Join(tmp, adapterConfig), config),
			writeJSON(filepath.Join(tmp, adapterOrigin), origin),
			checkpoint.WriteSafetensors(filepath.Join(tmp, weights), tensors, map[string]string{"format": "pt"}),
			os.WriteFile(filepath.Join(tmp, adapterCard), []byte(info.card()), 0o666),
		)
	})
	if err != nil {
		return fmt.Errorf("adapter %s: %w", dir, err)
	}
	return nil
}

// writeJSON writes a value as Python's json.dump with an indent of 2 does; maps are sorted by key.
func writeJSON(path string, v any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, text.Bytes(), 0o666)
}

// Tensors returns parameters with their values, under their own names.
func Tensors(params []site.Param, value func(param string) []float32) []checkpoint.Tensor {
	var out []checkpoint.Tensor
	for _, p := range params {
		out = append(out, checkpoint.Float32Tensor(p.Name, p.Shape, value(p.Name)))
	}
	return out
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// card is the model card, with the head that model hubs read.
func (i AdapterInfo) card() string {
	var b strings.Builder
	b.WriteString("---\n")
	if i.Base != "" {
		fmt.Fprintf(&b, "base_model: %q\n", i.Base)
	}
	b.WriteString("library_name: peft\npipeline_tag: text-generation\ntags:\n- tunesmith\n---\n\n")
	fmt.Fprintf(&b, "# Adapter of %s\n\n", cmp.Or(i.Base, "a language model"))
	fmt.Fprintf(&b, "Made by tunesmith, in the layout of PEFT %s. `%s` says how it was made, `%s` holds its weights.\n", peftVersion, adapterConfig, adapterWeights)
	if i.Card != "" {
		b.WriteString("\n" + strings.TrimSpace(i.Card) + "\n")
	}
	return b.String()
}
