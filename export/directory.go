package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"tunesmith/checkpoint"
	"tunesmith/internal/atomicfile"
	"tunesmith/model"
	"tunesmith/quant"
	"tunesmith/token"
	"tunesmith/tune"
)

// dtypes are the names in config.json of the formats that safetensors holds.
var dtypes = map[quant.Format]string{quant.F32: "float32", quant.F16: "float16", quant.BF16: "bfloat16"}

// shard is the most bytes of a file of weights, transformers' own limit.
const shard = 5 << 30

// textFiles are what a model's directory holds of its tokenizer and its ways of answering.
var textFiles = []string{
	"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
	"vocab.json", "merges.txt", "generation_config.json", "chat_template.jinja",
}

// Directory writes the model with its grafts folded in as a Hugging Face directory, with tokenizer and chat template,
// in F32, F16 or BF16. The directory appears whole or not at all.
func Directory(dir string, a *model.Adapted, t tune.Text, f quant.Format) error {
	dtype, ok := dtypes[f]
	if !ok {
		return fmt.Errorf("export: a directory holds F32, F16 or BF16, not %v; write a .gguf file for that", f)
	}
	m, err := newMerger(a)
	if err != nil {
		return err
	}
	config, err := m.configJSON(dtype)
	if err != nil {
		return err
	}
	var tensors []checkpoint.Tensor
	for _, w := range m.weights() {
		tensors = append(tensors, m.tensor(w, w.path, f, nil))
	}
	return atomicfile.WriteDir(dir, func(tmp string) error {
		if err := m.writeText(tmp, t); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		if err := os.WriteFile(filepath.Join(tmp, "config.json"), config, 0o666); err != nil {
			return err
		}
		_, err := checkpoint.WriteSharded(tmp, tensors, map[string]string{"format": "pt"}, shard)
		return err
	})
}

// source returns the directory that the model's files stand in, or "" where it has none of its own.
func (m *merger) source() string {
	if m.Path == "" || m.fromGGUF() {
		return ""
	}
	if info, err := os.Stat(m.Path); err == nil && !info.IsDir() {
		return filepath.Dir(m.Path)
	}
	return m.Path
}

// configJSON returns config.json: that of the source with what has changed, or one made from the architecture.
func (m *merger) configJSON(dtype string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(m.source(), "config.json"))
	if m.source() == "" || errors.Is(err, fs.ErrNotExist) {
		text, err = m.config().JSON(dtype)
	}
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	c := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // numbers stay as they are written
	if err := d.Decode(&c); err != nil {
		return nil, fmt.Errorf("export: config.json: %w", err)
	}
	if m.Config.Head.Kind != "" {
		if err := m.classifier(c, dtype); err != nil {
			return nil, err
		}
	}
	delete(c, "quantization_config")
	delete(c, "dtype")
	c["torch_dtype"], c["tie_word_embeddings"] = dtype, m.config().Tied
	maps.Copy(c, m.keys)
	return encode(c)
}

// classifier gives a config the keys of the classifier that the model is.
func (m *merger) classifier(c map[string]any, dtype string) error {
	text, err := m.config().JSON(dtype)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	var own map[string]any
	if err := json.Unmarshal(text, &own); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	for _, key := range []string{"architectures", "num_labels", "id2label", "label2id", "problem_type"} {
		delete(c, key)
		if v, ok := own[key]; ok {
			c[key] = v
		}
	}
	return nil
}

// writeText writes the files of the tokenizer and the chat template: those of the source, or made from GGUF metadata.
func (m *merger) writeText(dir string, t tune.Text) error {
	if m.source() != "" {
		if err := copyFiles(dir, m.source()); err != nil {
			return err
		}
	}
	if m.fromGGUF() && m.File.Metadata()["tokenizer.ggml.model"] != nil {
		if err := m.makeTokenizer(dir, t); err != nil {
			return err
		}
	}
	if t.Template != nil {
		return os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(t.Template.Source()), 0o666)
	}
	return nil
}

// copyFiles copies the text files that are there.
func copyFiles(to, from string) error {
	for _, name := range textFiles {
		b, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o666)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeTokenizer writes the tokenizer of a GGUF file in the form of the Hugging Face library.
func (m *merger) makeTokenizer(dir string, t tune.Text) error {
	text, err := token.JSONFromGGUF(m.File.Metadata())
	if err != nil {
		return fmt.Errorf("%w; write a .gguf file instead", err)
	}
	c := map[string]any{
		"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": m.Config.MaxPositions, "clean_up_tokenization_spaces": false,
	}
	generation := map[string]any{}
	if tok := t.Tokenizer; tok != nil {
		for name, id := range map[string]int{"bos_token": tok.BOS(), "eos_token": tok.EOS(), "pad_token": tok.Pad()} {
			if id >= 0 {
				c[name], generation[name+"_id"] = tok.Token(id), id
			}
		}
		if stops := t.Stops(); len(stops) > 0 {
			generation["eos_token_id"] = stops
		}
	}
	for name, v := range map[string]any{"tokenizer_config.json": c, "generation_config.json": generation} {
		b, err := encode(v)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "tokenizer.json"), text, 0o666)
}

// encode writes JSON with an indent of 2 and keys in order, and without escapes that only HTML needs.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}
