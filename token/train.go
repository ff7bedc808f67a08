package token

import (
	"bytes"
	"container/heap"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
)

// BPETraining says which byte-level BPE vocabulary is learned.
type BPETraining struct {
	Size     int      // of the vocabulary: special tokens, the 256 bytes and the merges
	Special  []string // special tokens; they get the first ids
	MinCount int      // a pair that is seen less often is not merged
}

// TrainBPE learns a byte-level BPE vocabulary from texts and returns it as a tokenizer.json that [Parse] and the
// Hugging Face library read. Text is cut into single digits and by GPT-2's pattern, as GGUF files with the
// pre-tokenizer smollm do. The most frequent pair is merged first, of equally frequent ones that of the lowest ids,
// as in the Hugging Face trainer; the result depends on nothing else than the texts.
func TrainBPE(texts iter.Seq[string], o BPETraining) ([]byte, error) {
	least := len(o.Special) + len(byteRunes)
	if o.Size < least || o.Size > maxID {
		return nil, fmt.Errorf("vocabulary: want a size from %d (special tokens and bytes) to %d, have %d", least, maxID, o.Size)
	}
	t := bpeTrainer{tokens: slices.Clone(o.Special), pairs: map[pair]*pairUse{}}
	alphabet := slices.Sorted(slices.Values(byteRunes[:]))
	var bytesID [256]int32
	for _, r := range alphabet {
		bytesID[runeBytes[r]] = int32(len(t.tokens))
		t.tokens = append(t.tokens, string(r))
	}
	t.read(texts, &bytesID)
	for len(t.tokens) < o.Size {
		p, ok := t.best(max(o.MinCount, 1))
		if !ok {
			break
		}
		t.merge(p)
	}
	return t.file(o.Special)
}

// bpeTrainer holds the words of the texts, cut into the tokens that there are so far.
type bpeTrainer struct {
	tokens []string
	merges []string
	words  []trainedWord
	pairs  map[pair]*pairUse
	queue  pairQueue
}

type trainedWord struct {
	ids   []int32
	count int64
}

type pair struct{ left, right int32 }

// pairUse is how often a pair stands in the texts, and in which words, some perhaps no longer.
type pairUse struct {
	count int64
	words []int32
}

// read counts the words of the texts and their pairs.
func (t *bpeTrainer) read(texts iter.Seq[string], bytesID *[256]int32) {
	cutter := preSequence{&splitter{pattern: numerics{}, behavior: isolated}, &byteLevel{regex: true, raw: true}}
	number := map[string]int{}
	for s := range texts {
		whole := validText(s, false)
		cuts, _ := cutter.split(&whole, []cut{{0, int32(len(whole.s)), -1}}, nil)
		for _, c := range cuts {
			w := whole.s[c.start:c.end]
			n, ok := number[w]
			if !ok {
				n = len(t.words)
				number[w] = n
				ids := make([]int32, len(w))
				for i := range len(w) {
					ids[i] = bytesID[w[i]]
				}
				t.words = append(t.words, trainedWord{ids: ids})
			}
			t.words[n].count++
		}
	}
	for n, w := range t.words {
		for i := range len(w.ids) - 1 {
			t.add(pair{w.ids[i], w.ids[i+1]}, n, w.count)
		}
	}
	for p, use := range t.pairs {
		t.queue = append(t.queue, queuedPair{p, use.count})
	}
	heap.Init(&t.queue)
}

// add counts a pair of word n.
func (t *bpeTrainer) add(p pair, n int, count int64) {
	use := t.pairs[p]
	if use == nil {
		use = new(pairUse)
		t.pairs[p] = use
	}
	use.count += count
	if k := len(use.words); count > 0 && (k == 0 || use.words[k-1] != int32(n)) {
		use.words = append(use.words, int32(n))
	}
}

// best takes the most frequent pair out of the queue. Entries whose count has fallen since go back with the true
// one; a count only rises for pairs with the newest token, which merge puts into the queue behind it.
func (t *bpeTrainer) best(least int) (pair, bool) {
	for len(t.queue) > 0 {
		top := heap.Pop(&t.queue).(queuedPair)
		have := t.pairs[top.pair].count
		switch {
		case have != top.count:
			heap.Push(&t.queue, queuedPair{top.pair, have})
		case have < int64(least):
			return pair{}, false
		default:
			return top.pair, true
		}
	}
	return pair{}, false
}

// merge makes a token of a pair and replaces the pair in all words.
func (t *bpeTrainer) merge(p pair) {
	id := int32(len(t.tokens))
	t.tokens = append(t.tokens, t.tokens[p.left]+t.tokens[p.right])
	t.merges = append(t.merges, t.tokens[p.left]+" "+t.tokens[p.right])
	fresh := map[pair]bool{}
	for _, n := range t.pairs[p].words {
		w := &t.words[n]
		for i := 0; i+1 < len(w.ids); i++ {
			if w.ids[i] != p.left || w.ids[i+1] != p.right {
				continue
			}
			if i > 0 {
				before := pair{w.ids[i-1], id}
				t.add(pair{w.ids[i-1], p.left}, int(n), -w.count)
				t.add(before, int(n), w.count)
				fresh[before] = true
			}
			if i+2 < len(w.ids) {
				behind := pair{id, w.ids[i+2]}
				t.add(pair{p.right, w.ids[i+2]}, int(n), -w.count)
				t.add(behind, int(n), w.count)
				fresh[behind] = true
			}
			w.ids[i] = id
			w.ids = slices.Delete(w.ids, i+1, i+2)
		}
	}
	t.pairs[p] = new(pairUse)
	for f := range fresh {
		heap.Push(&t.queue, queuedPair{f, t.pairs[f].count})
	}
}

// file writes tokenizer.json.
func (t *bpeTrainer) file(special []string) ([]byte, error) {
	vocab := bytes.NewBufferString("{")
	for id, s := range t.tokens {
		name, err := plainJSON(s)
		if err != nil {
			return nil, err
		}
		if id > 0 {
			vocab.WriteByte(',')
		}
		fmt.Fprintf(vocab, "%s:%d", name, id)
	}
	vocab.WriteByte('}')
	type object = map[string]any
	level := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	added := []object{}
	for id, s := range special {
		added = append(added, object{
			"id": id, "content": s, "special": true,
			"single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
		})
	}
	compact, err := plainJSON(object{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added, "normalizer": nil,
		"pre_tokenizer":  object{"type": "Sequence", "pretokenizers": []object{{"type": "Digits", "individual_digits": true}, level}},
		"post_processor": nil,
		"decoder":        level,
		"model": object{
			"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": json.RawMessage(vocab.Bytes()), "merges": t.merges,
		},
	})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, compact, "", " "); err != nil {
		return nil, err
	}
	return append(out.Bytes(), '\n'), nil
}

// plainJSON is JSON with <, > and & as they are.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// queuedPair is a pair with its count when it was put into the queue.
type queuedPair struct {
	pair
	count int64
}

// pairQueue is a heap with the next pair to merge on top.
type pairQueue []queuedPair

func (q pairQueue) Len() int { return len(q) }
func (q pairQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	switch {
	case a.count != b.count:
		return a.count > b.count
	case a.left != b.left:
		return a.left < b.left
	}
	return a.right < b.right
}
func (q pairQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *pairQueue) Push(x any) { *q = append(*q, x.(queuedPair)) }

// Pop implements heap.Interface.
func (q *pairQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
