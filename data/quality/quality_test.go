package quality

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
)

// read reads a file of the area.
func read(t *testing.T, name string, v any) {
	t.Helper()
	golden.JSON(t, filepath.Join(golden.Dir(t, "dataquality"), name), v)
}

type nearDoc struct {
	ID, Text        string
	Tokens          int
	Shingles        int
	FirstShingles   []string `json:"first_shingles"`
	FirstShingles32 []uint64 `json:"first_shingle_sha1_32"`
}

func TestGoldenNearDuplicates(t *testing.T) {
	var file struct {
		NumPerm int `json:"num_perm"`
		N       int `json:"shingle_words"`
		Docs    []nearDoc
		True    [][3]any `json:"true_jaccard_nonzero"`
		Schemes map[string]scheme
		Optimal []struct {
			Threshold float64
			NumPerm   int `json:"num_perm"`
			B, R      int
		} `json:"lsh_optimal_params"`
		Curve []struct {
			B, R                  int
			Jaccard, P, Threshold float64
		} `json:"lsh_curve"`
	}
	read(t, "near_dup.json", &file)
	sets := make([][]string, len(file.Docs))
	number := map[string]int{}
	for i, d := range file.Docs {
		number[d.ID] = i
		t.Run(d.ID, func(t *testing.T) {
			words := Words(d.Text)
			sets[i] = Shingles(words, file.N)
			if len(words) != d.Tokens || len(sets[i]) != d.Shingles {
				t.Errorf("want %d tokens and %d shingles, have %d and %d", d.Tokens, d.Shingles, len(words), len(sets[i]))
			}
			first := sets[i][:min(2, len(sets[i]))]
			if !slices.Equal(first, d.FirstShingles) || !slices.Equal(Hashes(first, Hash32), d.FirstShingles32) {
				t.Errorf("want %q, have %q", d.FirstShingles, first)
			}
		})
	}
	want := map[[2]int]float64{}
	for _, x := range file.True {
		want[[2]int{number[x[0].(string)], number[x[1].(string)]}] = x[2].(float64)
	}
	for i := range sets {
		for j := i + 1; j < len(sets); j++ {
			if have := Jaccard(sets[i], sets[j]); math.Abs(have-want[[2]int{i, j}]) > 1e-12 {
				t.Errorf("Jaccard of %d and %d: want %g, have %g", i, j, want[[2]int{i, j}], have)
			}
		}
	}
	for name, s := range file.Schemes {
		t.Run(name, func(t *testing.T) { s.check(t, name, sets, number) })
	}
	for _, c := range file.Optimal {
		if b, r := Bands(c.Threshold, c.NumPerm); b != c.B || r != c.R {
			t.Errorf("threshold %g of %d: want %d bands of %d, have %d of %d", c.Threshold, c.NumPerm, c.B, c.R, b, r)
		}
	}
	for _, c := range file.Curve {
		if have := Collision(c.Jaccard, c.B, c.R); math.Abs(have-c.P) > 1e-12 {
			t.Errorf("%+v: have %g", c, have)
		}
	}
}

type scheme struct {
	A, B       []uint64
	Signatures [][]uint64
	Estimated  [][3]any `json:"estimated_jaccard_nonzero"`
	Candidates []struct {
		B, R  int
		Pairs [][2]string
	}
}

func (s scheme) check(t *testing.T, name string, sets [][]string, number map[string]int) {
	kinds := map[string]Permutation{"affine32": Affine, "legacy": Mersenne}
	kind, ok := kinds[name]
	if !ok {
		t.Fatalf("unknown scheme %s", name)
	}
	m := &MinHash{Permutation: kind, A: s.A, B: s.B}
	sigs := make([][]uint64, len(sets))
	for i, set := range sets {
		sigs[i] = m.Signature(Hashes(set, Hash32))
		if !slices.Equal(sigs[i], s.Signatures[i]) {
			t.Errorf("signature %d differs", i)
		}
	}
	estimated := map[[2]int]float64{}
	for _, x := range s.Estimated {
		estimated[[2]int{number[x[0].(string)], number[x[1].(string)]}] = x[2].(float64)
	}
	for i := range sigs {
		for j := i + 1; j < len(sigs); j++ {
			if have := Agreement(sigs[i], sigs[j]); have != estimated[[2]int{i, j}] {
				t.Errorf("agreement of %d and %d: want %g, have %g", i, j, estimated[[2]int{i, j}], have)
			}
		}
	}
	for _, c := range s.Candidates {
		var want [][2]int
		for _, p := range c.Pairs {
			want = append(want, [2]int{number[p[0]], number[p[1]]})
		}
		if d := cmp.Diff(want, pairs(sigs, c.B, c.R)); d != "" {
			t.Errorf("%d bands of %d: -want +have:\n%s", c.B, c.R, d)
		}
	}
}

// pairs returns all pairs of signatures that share a band; signatures may be nil.
func pairs(sigs [][]uint64, b, r int) [][2]int {
	x := NewIndex(b, r)
	var out [][2]int
	for j, sig := range sigs {
		if sig == nil {
			continue
		}
		for _, i := range x.Near(sig) {
			out = append(out, [2]int{i, j})
		}
		x.Add(j, sig)
	}
	slices.SortFunc(out, func(a, b [2]int) int { return slices.Compare(a[:], b[:]) })
	return out
}

func TestGoldenDatatrove(t *testing.T) {
	var near struct{ Docs []nearDoc }
	read(t, "near_dup.json", &near)
	var file struct {
		Buckets     int
		PerBucket   int   `json:"hashes_per_bucket"`
		N           int   `json:"n_grams"`
		Punctuation []int `json:"punctuation_code_points"`
		Simplified  []string
		Runs        []struct {
			Split, Hash string
			Precision   int
			A, B        []uint64
			Docs        []struct {
				ID        string
				Tokens    any
				Shingles  []uint64
				NShingles int `json:"n_shingles"`
				Signature [][]uint64
			}
			Pairs    [][2]string
			Clusters [][]string
			Kept     int `json:"kept_count"`
		}
	}
	read(t, "near_dup_datatrove.json", &file)
	var marks []int
	for r := range rune(0x110000) {
		if punctuation(r) {
			marks = append(marks, int(r))
		}
	}
	if d := cmp.Diff(file.Punctuation, marks); d != "" {
		t.Errorf("punctuation: -want +have:\n%s", d)
	}
	for i, d := range near.Docs {
		if have := Simplify(d.Text); have != file.Simplified[i] {
			t.Errorf("%s: want %q, have %q", d.ID, file.Simplified[i], have)
		}
	}
	for _, run := range file.Runs {
		t.Run(run.Split+"/"+run.Hash, func(t *testing.T) {
			hash := map[string]func(string) uint64{"xxhash": Hash64, "sha1": Hash32}[run.Hash]
			m := &MinHash{Permutation: Mersenne, A: run.A, B: run.B}
			if run.Precision == 64 {
				m.Permutation = WideMersenne
			}
			sigs := make([][]uint64, len(run.Docs))
			names := make([]string, len(run.Docs))
			for i, d := range run.Docs {
				names[i] = d.ID
				words := strings.Fields(file.Simplified[i])
				if list, ok := d.Tokens.([]any); ok { // where spaCy cuts otherwise than at blanks
					words = words[:0]
					for _, w := range list {
						words = append(words, w.(string))
					}
				}
				var hashes []uint64
				for k := range len(words) - file.N + 1 {
					hashes = append(hashes, hash(strings.Join(words[k:k+file.N], " ")))
				}
				if len(hashes) != d.NShingles || d.Shingles != nil && !slices.Equal(hashes[:min(len(hashes), len(d.Shingles))], d.Shingles) {
					t.Errorf("%s: want %d shingles %d, have %d", d.ID, d.NShingles, d.Shingles, hashes[:min(3, len(hashes))])
				}
				if len(hashes) == 0 {
					continue
				}
				sigs[i] = m.Signature(hashes)
				if d.Signature != nil && !slices.Equal(sigs[i], slices.Concat(d.Signature...)) {
					t.Errorf("%s: signature differs", d.ID)
				}
			}
			list := pairs(sigs, file.Buckets, file.PerBucket)
			var have [][2]string
			for _, p := range list {
				have = append(have, [2]string{names[p[0]], names[p[1]]})
			}
			if d := cmp.Diff(run.Pairs, have); d != "" {
				t.Errorf("pairs: -want +have:\n%s", d)
			}
			var groups [][]string
			kept := len(names)
			for _, g := range Clusters(len(names), list) {
				var ids []string
				for _, i := range g {
					ids = append(ids, names[i])
				}
				groups, kept = append(groups, ids), kept-len(g)+1
			}
			if d := cmp.Diff(run.Clusters, groups); d != "" || kept != run.Kept {
				t.Errorf("clusters: want %d kept, have %d; -want +have:\n%s", run.Kept, kept, d)
			}
		})
	}
}

func TestGoldenContamination(t *testing.T) {
	type text struct {
		ID, Text string
		Words    []string
	}
	var file struct {
		Eval, Train []text
		Cases       []struct {
			N            int
			Contaminated []string `json:"eval_contaminated"`
			Drop         []string `json:"train_to_drop"`
			Rows         []struct {
				Eval     string
				Words    int
				TooShort bool `json:"too_short"`
				Hits     []struct {
					Word  int `json:"word_index"`
					Ngram string
					Train []string
				}
				Covered  int     `json:"covered_words"`
				Fraction float64 `json:"covered_fraction"`
			}
		}
	}
	read(t, "contamination.json", &file)
	for _, c := range file.Cases {
		g := NewGrams(c.N)
		for i, x := range file.Train {
			g.Add(i, BareWords(x.Text))
		}
		var contaminated, drop []string
		for i, row := range c.Rows {
			t.Run(row.Eval, func(t *testing.T) {
				words := BareWords(file.Eval[i].Text)
				if !slices.Equal(words, file.Eval[i].Words) || len(words) < c.N != row.TooShort {
					t.Fatalf("want words %q, have %q", file.Eval[i].Words, words)
				}
				hits := g.Hits(words)
				if len(hits) != len(row.Hits) || g.Covered(hits) != row.Covered {
					t.Fatalf("n %d: want %d hits over %d words, have %d over %d", c.N, len(row.Hits), row.Covered, len(hits), g.Covered(hits))
				}
				for k, h := range hits {
					var ids []string
					for _, id := range h.IDs {
						ids = append(ids, file.Train[id].ID)
					}
					if w := row.Hits[k]; h.Word != w.Word || h.Gram != w.Ngram || !slices.Equal(ids, w.Train) {
						t.Errorf("hit %d: want %v, have %v of %v", k, w, h, ids)
					}
					drop = append(drop, ids...)
				}
				if len(hits) > 0 {
					contaminated = append(contaminated, row.Eval)
				}
			})
		}
		slices.Sort(drop)
		if drop = slices.Compact(drop); !slices.Equal(drop, c.Drop) || !slices.Equal(contaminated, c.Contaminated) {
			t.Errorf("n %d: want %v and %v, have %v and %v", c.N, c.Contaminated, c.Drop, contaminated, drop)
		}
	}
}

func TestGoldenScripts(t *testing.T) {
	var file struct {
		Cases []struct {
			Text     string
			Letters  int
			Counts   map[string]int
			Dominant *string
		}
	}
	read(t, "scripts.json", &file)
	for _, c := range file.Cases {
		t.Run("", func(t *testing.T) {
			have := Scripts(c.Text)
			letters := 0
			for _, n := range have {
				letters += n
			}
			if d := cmp.Diff(c.Counts, have); d != "" || letters != c.Letters {
				t.Errorf("%q: want %d letters, have %d; -want +have:\n%s", c.Text, c.Letters, letters, d)
			}
			want := ""
			if c.Dominant != nil {
				want = *c.Dominant
			}
			if Dominant(have) != want {
				t.Errorf("%q: want %s, have %s", c.Text, want, Dominant(have))
			}
		})
	}
}
