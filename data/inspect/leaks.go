package inspect

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"tunesmith/data"
	"tunesmith/data/quality"
)

// leaks finds evaluation texts in training records: long ones by runs of words that both have, short questions as a
// whole. Where Han characters prevail, each of them is a word, and runs are twice as long.
type leaks struct {
	words, han *quality.Grams
	cover      float64
	pieces     []piece
	short      map[uint64]data.Position // questions of fewer words than a run
}

// piece is the question or the answer of an evaluation record.
type piece struct {
	at    data.Position
	words int
}

func newLeaks(n int, cover float64) leaks {
	return leaks{quality.NewGrams(n), quality.NewGrams(2 * n), cover, nil, map[uint64]data.Position{}}
}

func (l *leaks) empty() bool { return len(l.pieces) == 0 && len(l.short) == 0 }

// grams chooses the runs for a text.
func (l *leaks) grams(words []string) *quality.Grams {
	han := 0
	for _, w := range words {
		if r, _ := utf8.DecodeRuneInString(w); unicode.Is(unicode.Han, r) {
			han++
		}
	}
	if 2*han > len(words) {
		return l.han
	}
	return l.words
}

func (l *leaks) add(r data.Record) {
	for i, text := range append([]string{r.Asked()}, r.Answers()...) {
		words := quality.Words(text)
		g := l.grams(words)
		switch {
		case len(words) >= g.Size():
			g.Add(len(l.pieces), words)
			l.pieces = append(l.pieces, piece{r.Pos, len(words)})
		case i == 0 && len(words) > 0:
			l.short[whole(words)] = r.Pos
		}
	}
}

func whole(words []string) uint64 { return xxh3.HashString(strings.Join(words, " ")) }

// find says which evaluation text stands in a record, "" for none.
func (l *leaks) find(k *look) string {
	if l.empty() {
		return ""
	}
	if at, ok := l.short[whole(quality.Words(k.asked))]; ok {
		return fmt.Sprintf("asks what %v asks", at)
	}
	for _, g := range []*quality.Grams{l.words, l.han} {
		byPiece := map[int][]quality.Hit{}
		var order []int
		for _, h := range g.Hits(k.words) {
			for _, id := range h.IDs {
				if byPiece[id] == nil {
					order = append(order, id)
				}
				byPiece[id] = append(byPiece[id], h)
			}
		}
		for _, id := range order {
			hits, p := byPiece[id], l.pieces[id]
			if share := float64(g.Covered(hits)) / float64(p.words); share >= l.cover {
				return fmt.Sprintf("holds %.0f %% of a text of %v: %q", 100*min(share, 1), p.at, hits[0].Gram)
			}
		}
	}
	return ""
}
