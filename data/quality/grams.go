package quality

import (
	"strings"

	"github.com/zeebo/xxh3"
)

// Grams finds runs of n words that several texts share, which shows evaluation questions among training texts.
type Grams struct {
	n   int
	ids map[xxh3.Uint128][]int
}

// NewGrams returns an empty list of runs of n words.
func NewGrams(n int) *Grams { return &Grams{n, map[xxh3.Uint128][]int{}} }

// Size returns the number of words of a run.
func (g *Grams) Size() int { return g.n }

func (g *Grams) key(words []string) xxh3.Uint128 {
	return xxh3.HashString128(strings.Join(words, "\x00"))
}

// Add enters the runs of a text under a number. Numbers come in rising order.
func (g *Grams) Add(id int, words []string) {
	for i := range len(words) - g.n + 1 {
		k := g.key(words[i : i+g.n])
		if list := g.ids[k]; len(list) == 0 || list[len(list)-1] != id {
			g.ids[k] = append(list, id)
		}
	}
}

// Hit is a run of words that other texts hold too.
type Hit struct {
	Word int    // number of its first word
	Gram string // its words, joined by blanks
	IDs  []int  // of the texts
}

// Hits returns the runs of a text that were entered.
func (g *Grams) Hits(words []string) []Hit {
	var out []Hit
	for i := range len(words) - g.n + 1 {
		if ids := g.ids[g.key(words[i:i+g.n])]; ids != nil {
			out = append(out, Hit{i, strings.Join(words[i:i+g.n], " "), ids})
		}
	}
	return out
}

// Covered returns how many words lie inside a run that was hit.
func (g *Grams) Covered(hits []Hit) int {
	n, end := 0, 0
	for _, h := range hits {
		n += h.Word + g.n - max(end, h.Word)
		end = h.Word + g.n
	}
	return n
}
