package overlap

import (
	"regexp"
	"slices"
	"strings"
)

// F is a precision and a recall with their harmonic mean.
type F struct{ Precision, Recall, F float64 }

func newF(hits, have, want int) F {
	f := F{float64(hits) / float64(max(have, 1)), float64(hits) / float64(max(want, 1)), 0}
	if f.Precision+f.Recall > 0 {
		f.F = 2 * f.Precision * f.Recall / (f.Precision + f.Recall)
	}
	return f
}

var notWord = regexp.MustCompile(`[^a-z0-9]+`)

// rougeWords are runs of ASCII letters and digits, longer ones stemmed where asked for.
func rougeWords(text string, stem bool) []string {
	words := strings.Fields(notWord.ReplaceAllString(strings.ToLower(text), " "))
	for i, w := range words {
		if stem && len(w) > 3 {
			words[i] = Stem(w)
		}
	}
	return slices.DeleteFunc(words, func(w string) bool { return w == "" })
}

// RougeN returns the overlap of n-grams (Lin 2004).
func RougeN(p Pair, n int, stem bool) F {
	a, b := grams(rougeWords(p.Prediction, stem), n), grams(rougeWords(p.Reference, stem), n)
	hits, have, want := 0, 0, 0
	for g, k := range a {
		have += k
		hits += min(k, b[g])
	}
	for _, k := range b {
		want += k
	}
	return newF(hits, have, want)
}

// RougeL returns the overlap by the longest common subsequence.
func RougeL(p Pair, stem bool) F {
	a, b := rougeWords(p.Prediction, stem), rougeWords(p.Reference, stem)
	return newF(len(common(b, a)), len(a), len(b))
}

// RougeLSum is RougeL over texts whose sentences stand in lines of their own: for each sentence of the reference the
// union of its longest common subsequences with those of the prediction, no word counted more often than both have it.
func RougeLSum(p Pair, stem bool) F {
	lines := func(text string) (out [][]string, counts map[string]int, n int) {
		counts = map[string]int{}
		for _, line := range strings.Split(text, "\n") {
			if line == "" {
				continue
			}
			words := rougeWords(line, stem)
			for _, w := range words {
				counts[w]++
			}
			out, n = append(out, words), n+len(words)
		}
		return out, counts, n
	}
	a, left, have := lines(p.Prediction)
	b, wanted, want := lines(p.Reference)
	hits := 0
	for _, sentence := range b {
		var union []int
		for _, other := range a {
			union = append(union, common(sentence, other)...)
		}
		slices.Sort(union)
		for _, i := range slices.Compact(union) {
			if w := sentence[i]; left[w] > 0 && wanted[w] > 0 {
				hits++
				left[w]--
				wanted[w]--
			}
		}
	}
	return newF(hits, have, want)
}

// common returns the places in a of a longest common subsequence with b.
func common(a, b []string) []int {
	table := make([][]int, len(a)+1)
	for i := range table {
		table[i] = make([]int, len(b)+1)
		for j := 1; i > 0 && j <= len(b); j++ {
			if a[i-1] == b[j-1] {
				table[i][j] = table[i-1][j-1] + 1
			} else {
				table[i][j] = max(table[i-1][j], table[i][j-1])
			}
		}
	}
	var out []int
	for i, j := len(a), len(b); i > 0 && j > 0; {
		switch {
		case a[i-1] == b[j-1]:
			i--
			j--
			out = append(out, i)
		case table[i][j-1] > table[i-1][j]:
			j--
		default:
			i--
		}
	}
	slices.Reverse(out)
	return out
}
