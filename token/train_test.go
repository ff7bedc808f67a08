package token

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// trained returns the merges of a tokenizer.json.
func trained(t interface{ Fatal(...any) }, texts []string, o BPETraining) []string {
	file, err := TrainBPE(slices.Values(texts), o)
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Model struct{ Merges []string } }
	if err := json.Unmarshal(file, &f); err != nil {
		t.Fatal(err)
	}
	return f.Model.Merges
}

func TestTrainBPE(t *testing.T) {
	for _, c := range []struct {
		name  string
		texts []string
		more  int
		want  []string
	}{
		{"most frequent first", []string{"low low low lower", "newest newest"}, 4, []string{"l o", "lo w", "Ġ low", "e s"}},
		{"ties by the lower ids", []string{"zy ab"}, 1, []string{"a b"}},
		{"overlaps count once", []string{"aaaa aaaa"}, 2, []string{"a a", "aa aa"}},
		{"digits stay apart", []string{"1212 1212"}, 3, nil},
		{"no pair beyond words", []string{"a b", "a b"}, 3, []string{"Ġ b"}},
		{"nothing", nil, 3, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			least := 2
			if c.more == 1 {
				least = 1
			}
			have := trained(t, c.texts, BPETraining{Size: 256 + c.more, MinCount: least})
			if diff := cmp.Diff(c.want, have); diff != "" {
				t.Errorf("merges (-want +have):\n%s", diff)
			}
		})
	}
}

// TestTrainBPEByRecount compares with counting all pairs anew before every merge.
func TestTrainBPEByRecount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(rapid.StringMatching(`[abc ]{0,12}`), 0, 12).Draw(t, "texts")
		const more = 12
		have := trained(t, texts, BPETraining{Size: 256 + more, MinCount: 1})
		if want := recount(texts, more); !slices.Equal(have, want) {
			t.Fatalf("want merges %q, have %q", want, have)
		}
	})
}

func recount(texts []string, more int) []string {
	alphabet := slices.Sorted(slices.Values(byteRunes[:]))
	ids := map[string]int{}
	for i, r := range alphabet {
		ids[string(r)] = i
	}
	var words [][]string
	for _, s := range texts {
		for i := 0; i < len(s); {
			j := classTable().gpt2(s, i)
			var w []string
			for k := i; k < j; k++ {
				w = append(w, string(byteRunes[s[k]]))
			}
			words = append(words, w)
			i = j
		}
	}
	merges := []string{}
	for len(merges) < more {
		counts := map[[2]string]int{}
		for _, w := range words {
			for i := range len(w) - 1 {
				counts[[2]string{w[i], w[i+1]}]++
			}
		}
		var best [2]string
		for p, n := range counts {
			first := n > counts[best]
			if n == counts[best] {
				a, b := ids[p[0]]-ids[best[0]], ids[p[1]]-ids[best[1]]
				first = a < 0 || a == 0 && b < 0
			}
			if best[0] == "" || first {
				best = p
			}
		}
		if best[0] == "" {
			break
		}
		whole := best[0] + best[1]
		ids[whole] = 256 + len(merges)
		merges = append(merges, strings.Join(best[:], " "))
		for k, w := range words {
			var out []string
			for i := 0; i < len(w); i++ {
				if i+1 < len(w) && w[i] == best[0] && w[i+1] == best[1] {
					out = append(out, whole)
					i++
					continue
				}
				out = append(out, w[i])
			}
			words[k] = out
		}
	}
	return merges
}

// TestTrainBPEParses: what is learned reads back, with the special tokens first.
func TestTrainBPEParses(t *testing.T) {
	text := "The cat sat on the mat, and the cat in the hat sat & purred. <b> 123 ünï"
	file, err := TrainBPE(slices.Values([]string{text, text, text}), BPETraining{Size: 280, Special: []string{"<|end|>", "<|pad|>"}, MinCount: 2})
	if err != nil {
		t.Fatal(err)
	}
	again, err := TrainBPE(slices.Values([]string{text, text, text}), BPETraining{Size: 280, Special: []string{"<|end|>", "<|pad|>"}, MinCount: 2})
	if err != nil || string(again) != string(file) {
		t.Errorf("want the same bytes twice, %v", err)
	}
	tok, err := Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	if tok.Size() != 280 || tok.Token(0) != "<|end|>" || !tok.IsSpecial(1) {
		t.Errorf("want 280 tokens with the special ones first, have %d and %q, %q", tok.Size(), tok.Token(0), tok.Token(1))
	}
	ids := tok.IDs(text + "<|end|>")
	if last := ids[len(ids)-1]; last != 0 {
		t.Errorf("want the special token last, have %d", last)
	}
	if have := tok.Decode(ids, true); have != text {
		t.Errorf("want %q, have %q", text, have)
	}
	if len(ids) > len(text)*2/3 {
		t.Errorf("want fewer tokens than bytes, have %d of %d", len(ids), len(text))
	}
}

func TestTrainBPESize(t *testing.T) {
	for _, size := range []int{0, 256, maxID + 1} {
		if _, err := TrainBPE(slices.Values([]string{"a"}), BPETraining{Size: size, Special: []string{"<|end|>"}}); err == nil {
			t.Errorf("size %d: want an error", size)
		}
	}
}
