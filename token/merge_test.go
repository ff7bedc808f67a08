package token

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// naive merges as the definition says.
func naive(ids []int32, merges []merge) []sized {
	var out []sized
	for _, id := range ids {
		out = append(out, sized{id, 1})
	}
	for {
		best, at := merge{rank: noRank}, -1
		for i := 0; i+1 < len(out); i++ {
			for _, m := range merges {
				if m.left == out[i].id && m.right == out[i+1].id && m.rank < best.rank {
					best, at = m, i
				}
			}
		}
		if at < 0 {
			return out
		}
		out[at] = sized{best.id, out[at].size + out[at+1].size}
		out = append(out[:at+1], out[at+2:]...)
	}
}

// TestMergeRun compares merging in blocks with the definition, on vocabularies with few symbols, where a seam can
// matter far from it.
func TestMergeRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const symbols = 3
		var merges []merge
		seen := map[[2]int32]bool{}
		next := int32(symbols)
		for range rapid.IntRange(1, 12).Draw(t, "merges") {
			left, right := rapid.Int32Range(0, next-1).Draw(t, "left"), rapid.Int32Range(0, next-1).Draw(t, "right")
			if seen[[2]int32{left, right}] {
				continue
			}
			seen[[2]int32{left, right}] = true
			merges = append(merges, merge{left, right, int32(len(merges)), next})
			next++
		}
		if rapid.Bool().Draw(t, "shuffle") { // ranks need not follow the order in which tokens arise
			for i, rank := range rapid.Permutation(ranksOf(len(merges))).Draw(t, "ranks") {
				merges[i].rank = rank
			}
		}
		var g merger
		g.init(merges, int(next))
		w := &scratch{cache: newWordCache()}
		unit := rapid.SliceOfN(rapid.Int32Range(0, symbols-1), 1, 9).Draw(t, "unit")
		ids := rapid.SliceOfN(rapid.Int32Range(0, symbols-1), 0, 70).Draw(t, "head")
		for range rapid.IntRange(0, 60).Draw(t, "times") {
			ids = append(ids, unit...)
		}
		if len(ids) == 0 {
			return
		}
		want := naive(ids, merges)
		if d := cmp.Diff(want, g.mergeRun(nil, ids, "", w), cmp.AllowUnexported(sized{})); d != "" {
			t.Fatalf("blocks (-want +have):\n%s", d)
		}
		if d := cmp.Diff(want, w.heap.merge(nil, ids, &g.pairs), cmp.AllowUnexported(sized{})); d != "" {
			t.Fatalf("heap (-want +have):\n%s", d)
		}
		// The same through the borders, which cut the text before.
		w.begin(&g, "", false)
		for _, id := range ids {
			w.add(id, 1)
		}
		w.flush()
		if d := cmp.Diff(want, w.out, cmp.AllowUnexported(sized{})); d != "" {
			t.Fatalf("borders (-want +have):\n%s", d)
		}
	})
}

func ranksOf(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}

func TestWordCache(t *testing.T) {
	c := newWordCache()
	texts := []string{"a", "ab", "abc", "abcd", "abcde", "abcdefg", "abcdefgh", "abcdefghi", "abcdefghijklmnop", "abcdefghijklmnopqrstuvwxyz01234", "a\x00", "\x00\x00"}
	for i, s := range texts {
		c.set(s, []sized{{int32(i), int32(len(s))}})
	}
	for i, s := range texts {
		if got := c.get(s); len(got) != 1 || got[0] != int32(i) {
			t.Errorf("%q: want [%d], have %v", s, i, got)
		}
	}
	long := "abcdefghijklmnopqrstuvwxyz012345"
	c.set(long, []sized{{1, 32}})
	if got := c.get(long); got != nil {
		t.Errorf("a text of 32 bytes: want it not kept, have %v", got)
	}
	if got := c.get(""); got != nil {
		t.Errorf("the empty text: want nothing, have %v", got)
	}
}
