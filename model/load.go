package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/engine"
	"tunesmith/internal/nearest"
	"tunesmith/site"
)

// Open reads a Hugging Face directory (config.json and safetensors), or a GGUF file, and checks that its tensors are
// those of the architecture. The weights stay in the file, mapped, until Load.
func Open(path string) (*Model, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	file, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	m, err := open(path, info.IsDir(), file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("model %s: %w", path, err), file.Close())
	}
	return m, nil
}

func open(path string, dir bool, file checkpoint.File) (*Model, error) {
	var c Config
	var err error
	gguf := false
	switch {
	case dir:
		c, err = ReadConfig(filepath.Join(path, "config.json"))
	case strings.HasSuffix(path, ".gguf"):
		gguf = true
		c, err = ggufConfig(file)
	default:
		c, err = ReadConfig(filepath.Join(filepath.Dir(path), "config.json"))
	}
	if err != nil {
		return nil, err
	}
	m, err := build(c, file)
	if err != nil {
		return nil, err
	}
	m.Path, m.File, m.gguf = path, file, gguf
	m.bare = !gguf && !slices.ContainsFunc(file.Names(), m.based)
	return m, m.checkTensors()
}

// based reports whether a tensor's name begins with that of the model's body.
func (m *Model) based(name string) bool { return strings.HasPrefix(name, m.arch.names.base+".") }

// Close releases the file. Tensors loaded from it must not be used afterwards.
func (m *Model) Close() error {
	if m.File == nil {
		return nil
	}
	return m.File.Close()
}

// checkTensors compares the file's tensors with the architecture's parameters and reports all differences at once.
func (m *Model) checkTensors() error {
	var errs []error
	used := map[string]bool{}
	for _, p := range m.survey.Params {
		t, name, ok := m.tensor(p.Name)
		if !ok {
			errs = append(errs, fmt.Errorf("tensor %q of shape %v is missing%s", name, p.Shape, nearest.Hint(name, m.File.Names())))
			continue
		}
		used[name] = true
		if !slices.Equal(t.Shape, p.Shape) {
			errs = append(errs, fmt.Errorf("tensor %q: want shape %v, have %v", name, p.Shape, t.Shape))
		}
	}
	for _, name := range m.File.Names() {
		if !used[name] && !m.ignorable(name) {
			errs = append(errs, fmt.Errorf("tensor %q is none of a %s model's", name, m.Config.Type))
		}
	}
	return shorten(errs)
}

// shorten keeps the first ten errors and counts the others.
func shorten(errs []error) error {
	const most = 10
	if more := len(errs) - most; more > 0 {
		errs = append(errs[:most:most], fmt.Errorf("and %d more tensors", more))
	}
	return errors.Join(errs...)
}

// ignorable reports tensors that published checkpoints carry beside the parameters: tables that are computed, causal
// masks, and the copy of a tied output projection.
func (m *Model) ignorable(name string) bool {
	for _, suffix := range []string{"rotary_emb.inv_freq", ".masked_bias", "attn.bias", "attention.bias", "rope_freqs.weight"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return m.Config.Tied && name == m.arch.names.head+".weight"
}

// tensor returns the file's tensor of a parameter, and its name there.
func (m *Model) tensor(param string) (t checkpoint.Tensor, name string, ok bool) {
	name = param
	switch {
	case m.gguf:
		name = m.Config.GGUFName(param)
	case m.bare:
		name = strings.TrimPrefix(param, m.arch.names.base+".")
	}
	t, ok = m.File.Tensor(name)
	return t, name, ok
}

// Load puts the model's parameters among params into the store: frozen ones in the file's own storage, those that
// train as single-precision values.
func (m *Model) Load(store *engine.Store, params []site.Param) error {
	for _, p := range params {
		if !p.Base {
			continue
		}
		t, err := m.load(p)
		if err != nil {
			return err
		}
		if err := store.Add(t); err != nil {
			return err
		}
	}
	return nil
}

func (m *Model) load(p site.Param) (*engine.Tensor, error) {
	if m.File == nil {
		return nil, fmt.Errorf("model: parameter %q has no file to be read from", p.Name)
	}
	src, name, ok := m.tensor(p.Name)
	if !ok {
		return nil, fmt.Errorf("model %s: tensor %q is missing", m.Path, name)
	}
	data, err := src.Bytes()
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Path, err)
	}
	release := func() { checkpoint.Release(m.File, name) }
	t := &engine.Tensor{Name: p.Name, Shape: p.Shape, Format: src.Format, Data: data, Trainable: p.Trainable, Release: release}
	if heads := m.permuted(p.Name); heads > 0 {
		t.Data, t.Release = unpermute(data, heads, p.Shape[0]), nil
		release()
	}
	if m.gguf && m.Config.shifted(p.Name) {
		t.Values = add(t.Float32s(), -1)
		t.Data, t.Release = nil, nil
	}
	if p.Trainable {
		t.Values = t.Float32s()
		t.Format, t.Data, t.Release = 0, nil, nil
		release()
	}
	return t, nil
}

// Values returns one of the model's parameters in single precision.
func (m *Model) Values(name string) ([]float32, error) {
	p, ok := m.survey.Param(name)
	if !ok {
		return nil, fmt.Errorf("model: no parameter %q", name)
	}
	t, err := m.load(p)
	if err != nil {
		return nil, err
	}
	return t.Float32s(), nil
}

// permuted returns the number of heads whose rows the file holds in neighbouring pairs, 0 where it holds the
// parameter as it is.
func (m *Model) permuted(param string) int {
	if !m.gguf {
		return 0
	}
	return m.Config.PermutedHeads(param)
}

// unpermute puts rows that stand in neighbouring pairs of each head into half-split order: row j of a head comes
// from row 2j, row j + d/2 from row 2j + 1. Rows are whole storage blocks, so bytes move as they are.
func unpermute(data []byte, heads, rows int) []byte {
	out := make([]byte, len(data))
	row := len(data) / rows
	d := rows / heads
	for h := range heads {
		for j := range d {
			from := 2 * j
			if j >= d/2 {
				from = 2*(j-d/2) + 1
			}
			copy(out[(h*d+j)*row:][:row], data[(h*d+from)*row:][:row])
		}
	}
	return out
}

// Permute is the inverse of what reading a llama GGUF does to the rows of q and k: it puts half-split rows into
// neighbouring pairs, for writing one.
func Permute(values []float32, heads, rows int) []float32 {
	out := make([]float32, len(values))
	row := len(values) / rows
	d := rows / heads
	for h := range heads {
		for j := range d {
			to := 2 * j
			if j >= d/2 {
				to = 2*(j-d/2) + 1
			}
			copy(out[(h*d+to)*row:][:row], values[(h*d+j)*row:][:row])
		}
	}
	return out
}
