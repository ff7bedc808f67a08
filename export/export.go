// Package export hands a tuned model over in the formats that others read: a Hugging Face directory, or a GGUF file.
package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/internal/atomicfile"
	"tunesmith/model"
	"tunesmith/quant"
	"tunesmith/token"
	"tunesmith/tune"
)

// merged returns one of the model's weights as the module at path uses it, with the grafts folded in.
func merged(a *model.Adapted, path, name string) ([]float32, error) {
	var w []float32
	if t, ok := a.Store.Get(name); ok {
		w = slices.Clone(t.Float32s())
	} else {
		v, err := a.Values(name)
		if err != nil {
			return nil, err
		}
		w = v
	}
	value := func(param string) []float32 {
		if t, ok := a.Store.Get(param); ok {
			return t.Values
		}
		return nil
	}
	for _, g := range a.Grafts {
		m, ok := g.(tune.Merger)
		if !ok {
			return nil, errors.New("export: the method cannot be folded into the weights; hand over its adapter")
		}
		if _, err := m.Merge(path, name, w, value); err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
	}
	return w, nil
}

// weights returns all weights of the model with the grafts folded in, in the format, under the names and in the form
// of a GGUF file where gguf is set. A weight that two modules share and that the grafts change differently for each
// stands twice, and tied is false.
func weights(a *model.Adapted, f quant.Format, gguf bool) (out []checkpoint.Tensor, tied bool, err error) {
	sites := a.Map()
	tied = sites.Tied != ""
	add := func(name string, shape []int, w []float32) error {
		format := f
		if gguf {
			if heads := a.Config.PermutedHeads(name); heads > 0 {
				w = model.Permute(w, heads, shape[0])
			}
			name = model.GGUFName(name)
		}
		switch {
		case gguf && len(shape) == 1:
			format = quant.F32
		case shape[len(shape)-1]%format.Block() != 0:
			format = quant.F16
		}
		t, err := checkpoint.FromFloat32s(name, shape, w, format)
		out = append(out, t)
		return err
	}
	for _, p := range sites.Params {
		w, err := merged(a, p.Name, p.Name)
		if err != nil {
			return nil, tied, err
		}
		if err := add(p.Name, p.Shape, w); err != nil {
			return nil, tied, err
		}
		if sites.Tied == "" || p.Name != sites.Tied+".weight" {
			continue
		}
		head := sites.Output.Path + ".weight"
		shared, err := merged(a, head, p.Name)
		if err != nil {
			return nil, tied, err
		}
		if !slices.Equal(w, shared) {
			tied = false
			if err := add(head, p.Shape, shared); err != nil {
				return nil, tied, err
			}
		}
	}
	return out, tied, nil
}

// dtypes are the names in config.json of the formats that safetensors holds.
var dtypes = map[quant.Format]string{quant.F32: "float32", quant.F16: "float16", quant.BF16: "bfloat16"}

// Directory writes the model with its grafts folded in as a Hugging Face directory, with tokenizer and chat template.
// The directory appears whole or not at all.
func Directory(dir string, a *model.Adapted, t tune.Text, f quant.Format) error {
	dtype, ok := dtypes[f]
	if !ok {
		return fmt.Errorf("export: a directory holds F32, F16 or BF16, not %v", f)
	}
	tensors, tied, err := weights(a, f, false)
	if err != nil {
		return err
	}
	c := a.Config
	c.Tied = tied
	config, err := c.JSON(dtype)
	if err != nil {
		return err
	}
	generation := map[string]any{"eos_token_id": t.Stops()}
	return atomicfile.WriteDir(dir, func(tmp string) error {
		return errors.Join(
			os.WriteFile(filepath.Join(tmp, "config.json"), append(config, '\n'), 0o666),
			writeJSON(filepath.Join(tmp, "generation_config.json"), generation),
			writeText(tmp, a, t),
			checkpoint.WriteSafetensors(filepath.Join(tmp, "model.safetensors"), tensors, map[string]string{"format": "pt"}),
		)
	})
}

// writeText writes the tokenizer's files and the chat template: those of the source's directory, or made from the
// tokenizer where the source is one file.
func writeText(dir string, a *model.Adapted, t tune.Text) error {
	source := a.Path
	if info, err := os.Stat(source); err == nil && !info.IsDir() {
		source = filepath.Dir(source)
	}
	copied := false
	if !strings.HasSuffix(a.Path, ".gguf") {
		for _, name := range []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "chat_template.jinja"} {
			b, err := os.ReadFile(filepath.Join(source, name))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err := errors.Join(err, os.WriteFile(filepath.Join(dir, name), b, 0o666)); err != nil {
				return err
			}
			copied = copied || name == "tokenizer.json"
		}
	}
	if copied {
		return nil
	}
	text, err := token.JSONFromGGUF(a.File.Metadata())
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	c := map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": a.Config.MaxPositions, "clean_up_tokenization_spaces": false}
	for key, id := range map[string]int{"bos_token": t.Tokenizer.BOS(), "eos_token": t.Tokenizer.EOS(), "pad_token": t.Tokenizer.Pad()} {
		if id >= 0 {
			c[key] = t.Tokenizer.Token(id)
		}
	}
	errs := []error{os.WriteFile(filepath.Join(dir, "tokenizer.json"), text, 0o666), writeJSON(filepath.Join(dir, "tokenizer_config.json"), c)}
	if t.Template != nil {
		errs = append(errs, os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(t.Template.Source()), 0o666))
	}
	return errors.Join(errs...)
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o666)
}

// GGUF writes the model with its grafts folded in as a GGUF file. Metadata of a source that is a GGUF file is carried
// over; else the tokenizer has to be a byte-level BPE that GGUF can hold.
func GGUF(path string, a *model.Adapted, t tune.Text, f quant.Format) error {
	tensors, _, err := weights(a, f, true)
	if err != nil {
		return err
	}
	meta := map[string]any{}
	if strings.HasSuffix(a.Path, ".gguf") && a.File != nil {
		maps.Copy(meta, a.File.Metadata())
	} else {
		text, err := os.ReadFile(filepath.Join(a.Path, "tokenizer.json"))
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		more, err := token.GGUFMetadata(text, t.Tokenizer.BOS(), t.Tokenizer.EOS(), t.Tokenizer.Pad())
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		maps.Copy(meta, more)
		if t.Template != nil {
			meta["tokenizer.chat_template"] = t.Template.Source()
		}
	}
	maps.Copy(meta, a.Config.GGUF())
	meta["general.file_type"] = fileTypes[f]
	meta["general.quantization_version"] = uint32(2)
	var kv []checkpoint.KV
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		kv = append(kv, checkpoint.KV{Key: k, Value: meta[k]})
	}
	return checkpoint.WriteGGUF(path, kv, tensors)
}

// fileTypes are the values of general.file_type.
var fileTypes = map[quant.Format]uint32{quant.F32: 0, quant.F16: 1, quant.Q4_0: 2, quant.Q4_1: 3, quant.Q8_0: 7, quant.Q5_0: 8, quant.Q5_1: 9, quant.BF16: 32}
