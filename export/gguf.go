package export

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/model"
	"tunesmith/quant"
	"tunesmith/token"
	"tunesmith/tune"
)

// fileTypes are the values of general.file_type.
var fileTypes = map[quant.Format]uint32{
	quant.F32: 0, quant.F16: 1, quant.Q4_0: 2, quant.Q4_1: 3, quant.Q8_0: 7, quant.Q5_0: 8, quant.Q5_1: 9, quant.BF16: 32,
}

// quantizationVersion is that of the block formats of ggml since 2023.
const quantizationVersion = 2

// GGUF writes the model with its grafts folded in as a GGUF file. The metadata of a source that is a GGUF file is
// carried over; otherwise the tokenizer has to be one that GGUF has a name for.
func GGUF(path string, a *model.Adapted, t tune.Text, f quant.Format) error {
	kind, ok := fileTypes[f]
	if !ok {
		return fmt.Errorf("export: a GGUF file is written in F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1 or Q4_0, not %v", f)
	}
	m, err := newMerger(a)
	if err != nil {
		return err
	}
	meta, err := m.metadata(t)
	if err != nil {
		return err
	}
	meta["general.file_type"], meta["general.quantization_version"] = kind, uint32(quantizationVersion)
	var kv []checkpoint.KV
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		kv = append(kv, checkpoint.KV{Key: k, Value: meta[k]})
	}
	c := m.config()
	var tensors []checkpoint.Tensor
	if d := c.Rope.Frequencies(c.HeadDim); d != nil {
		tensors = append(tensors, checkpoint.Float32Tensor("rope_freqs.weight", []int{len(d)}, d))
	}
	for _, w := range m.weights() {
		change := func(v []float32) []float32 { return c.ToGGUF(w.path, v, w.shape[0]) }
		tensors = append(tensors, m.tensor(w, c.GGUFName(w.path), storage(f, w.shape, c.Vocab), change))
	}
	return checkpoint.WriteGGUF(path, kv, tensors)
}

// storage returns the format of one tensor of a file in format f. Vectors stay in single precision, as ggml wants
// them; the vocabulary's tables, which all tokens depend on, are never below 8 bits; and rows that are no whole blocks
// are stored in half precision.
func storage(f quant.Format, shape []int, vocab int) quant.Format {
	switch {
	case len(shape) == 1:
		return quant.F32
	case f.Block() == 1:
		return f
	case shape[len(shape)-1]%f.Block() != 0:
		return quant.F16
	case shape[0] == vocab:
		return quant.Q8_0
	}
	return f
}

// metadata returns all keys but those of the storage.
func (m *merger) metadata(t tune.Text) (map[string]any, error) {
	meta := map[string]any{}
	if m.fromGGUF() {
		// Of an older quantization's making, such as quantize.imatrix.file, nothing is true any more.
		for k, v := range m.File.Metadata() {
			if !strings.HasPrefix(k, "quantize.") {
				meta[k] = v
			}
		}
	} else if err := m.tokenizerKeys(meta, t); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	if t.Template != nil {
		meta["tokenizer.chat_template"] = t.Template.Source()
	}
	own, err := m.config().GGUF()
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	maps.Copy(meta, own)
	return meta, nil
}

// tokenizerKeys adds the tokenizer of the source's directory.
func (m *merger) tokenizerKeys(meta map[string]any, t tune.Text) error {
	text, err := os.ReadFile(filepath.Join(m.source(), "tokenizer.json"))
	if errors.Is(err, fs.ErrNotExist) && t.Tokenizer == nil {
		return nil
	}
	if err != nil {
		return err
	}
	bos, eos, pad := m.Config.BOS, -1, m.Config.PadID
	if t.Tokenizer != nil {
		bos, eos, pad = t.Tokenizer.BOS(), t.Tokenizer.EOS(), t.Tokenizer.Pad()
	}
	keys, err := token.GGUFMetadata(text, bos, eos, pad)
	if err != nil {
		return err
	}
	maps.Copy(meta, keys)
	return nil
}
