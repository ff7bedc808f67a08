package methods

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"

	"tunesmith/checkpoint"
	"tunesmith/site"
	"tunesmith/tune"
)

// promptTensor is the one tensor in the file of a prompt or a prefix.
const promptTensor = "prompt_embeddings"

// words is where virtual tokens start from: the ids of a text, or of tokens that are drawn.
type words struct {
	ids []int // of the text; empty without one
	bos int   // the token that begins every text, −1 for none
}

// read encodes a text.
func (w *words) read(t tune.Text, text string) error {
	if w.ids = t.Tokenizer.IDs(text); text != "" && len(w.ids) == 0 {
		return fmt.Errorf("text: %q has no tokens", text)
	}
	w.bos = -1
	if first := t.Tokenizer.IDs("a"); len(first) > 0 && first[0] == t.Tokenizer.BOS() {
		w.bos = first[0]
	}
	if text == "" {
		w.ids = nil
	}
	return nil
}

// tokens returns n ids: those of the text, repeated and cut as PEFT does, or drawn ones.
func (w words) tokens(n, vocab int, rng *rand.Rand) []int {
	ids := make([]int, n)
	for i := range ids {
		if len(w.ids) > 0 {
			ids[i] = w.ids[i%len(w.ids)]
		} else {
			ids[i] = rng.IntN(vocab)
		}
	}
	if len(w.ids) == 0 && w.bos >= 0 && n > 1 {
		ids[0] = w.bos
	}
	return ids
}

// rowsOf is the start from rows of a table of the model.
func (w words) rowsOf(table string, n, vocab, width int) site.Init {
	return func(dst []float32, rng *rand.Rand, base func(string) []float32) {
		rows := base(table)
		for i, id := range w.tokens(n, vocab, rng) {
			copy(dst[i*width:(i+1)*width], rows[id*width:])
		}
	}
}

// likeTable is the random start with the deviation of the values of a table of the model.
func likeTable(table string) site.Init {
	return func(dst []float32, rng *rand.Rand, base func(string) []float32) {
		var sum float64
		rows := base(table)
		for _, v := range rows {
			sum += float64(v) * float64(v)
		}
		normal(math.Sqrt(sum/float64(len(rows))))(dst, rng, base)
	}
}

// handedOn is the start from the prompt of another adapter, repeated or cut to the number of rows.
func handedOn(dir string, width int) (site.Init, error) {
	f, err := checkpoint.Open(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	defer f.Close()
	t, ok := f.Tensor(promptTensor)
	if !ok || len(t.Shape) != 2 || t.Shape[1] != width || t.Shape[0] == 0 {
		return nil, fmt.Errorf("from: %s: want a tensor %q of width %d, have shape %v; a prompt goes on only in a model of its own width", dir, promptTensor, width, t.Shape)
	}
	values := t.Float32s()
	return func(dst []float32, _ *rand.Rand, _ func(string) []float32) {
		for i := range dst {
			dst[i] = values[i%len(values)]
		}
	}, nil
}

// promptKeys are the keys that the configs of all prompts and prefixes have.
func promptKeys(kind string, tokens, width, heads, layers int) map[string]any {
	return map[string]any{
		"peft_type": kind, "num_virtual_tokens": tokens, "token_dim": width, "num_attention_heads": heads, "num_layers": layers,
		"num_transformer_submodules": 1, "modules_to_save": nil,
	}
}

// readTokens reads what all configs of prompts and prefixes say.
func (r *peftKeys) readTokens() int {
	n := key(r, "num_virtual_tokens", 0)
	if n < 1 || n > 1<<16 {
		r.fail(fmt.Errorf("num_virtual_tokens: want 1 … 65536, have %d", n))
	}
	if m := key(r, "num_transformer_submodules", 1); m != 1 {
		r.fail(fmt.Errorf("num_transformer_submodules: want 1, have %d: not supported", m))
	}
	if len(r.modules("modules_to_save")) > 0 {
		r.fail(fmt.Errorf("modules_to_save: want null, have %s: not supported", r.c["modules_to_save"]))
	}
	return n
}
