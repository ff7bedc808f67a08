// Package overlap measures how much of a reference text a prediction repeats: BLEU, chrF, TER and ROUGE, with the
// conventions of sacrebleu and rouge_score, so that the numbers can be compared with published ones.
package overlap

import (
	"math"
	"regexp"
	"strings"
)

// Pair is a prediction and what it should have been.
type Pair struct{ Prediction, Reference string }

// Words splits a text for BLEU.
type Words func(text string) []string

// bleuOrder is the longest n-gram of BLEU.
const bleuOrder = 4

// BLEU is the score in percent, with what it is made of.
type BLEU struct {
	Score      float64
	Precisions [bleuOrder]float64
	Brevity    float64 // penalty of predictions shorter than their references
}

// NewBLEU returns the BLEU of a corpus (Papineni et al. 2002), smoothed exponentially where a precision is 0.
func NewBLEU(pairs []Pair, words Words) BLEU { return bleu(pairs, words, false) }

// SentenceBLEU returns the BLEU of one sentence: only the n-gram orders that it has count.
func SentenceBLEU(p Pair, words Words) BLEU { return bleu([]Pair{p}, words, true) }

func bleu(pairs []Pair, words Words, sentence bool) BLEU {
	var correct, total [bleuOrder]int
	have, want := 0, 0
	for _, p := range pairs {
		a, b := words(p.Prediction), words(p.Reference)
		have += len(a)
		want += len(b)
		for n := 1; n <= bleuOrder; n++ {
			x, y := grams(a, n), grams(b, n)
			for g, k := range x {
				total[n-1] += k
				correct[n-1] += min(k, y[g])
			}
		}
	}
	return score(correct, total, have, want, sentence)
}

func score(correct, total [bleuOrder]int, have, want int, sentence bool) BLEU {
	b := BLEU{Brevity: 1}
	if have < want {
		b.Brevity = 0
		if have > 0 {
			b.Brevity = math.Exp(1 - float64(want)/float64(have))
		}
	}
	if correct == [bleuOrder]int{} {
		return b
	}
	orders, smooth := bleuOrder, 1.0
	for n := range bleuOrder {
		if total[n] == 0 {
			break
		}
		if sentence {
			orders = n + 1
		}
		if correct[n] == 0 {
			smooth *= 2
			b.Precisions[n] = 100 / (smooth * float64(total[n]))
			continue
		}
		b.Precisions[n] = 100 * float64(correct[n]) / float64(total[n])
	}
	var sum float64
	for _, p := range b.Precisions[:orders] {
		if p == 0 {
			return b
		}
		sum += math.Log(p)
	}
	b.Score = b.Brevity * math.Exp(sum/float64(orders))
	return b
}

func grams(words []string, n int) map[string]int {
	out := map[string]int{}
	for i := 0; i+n <= len(words); i++ {
		out[strings.Join(words[i:i+n], " ")]++
	}
	return out
}

var (
	unescape = strings.NewReplacer("<skipped>", "", "-\n", "", "\n", " ", "&quot;", `"`, "&amp;", "&", "&lt;", "<", "&gt;", ">")
	symbols  = regexp.MustCompile("([{-~\\[-` -&(-+:-@/])")
	after    = regexp.MustCompile(`([^0-9])([.,])`)
	before   = regexp.MustCompile(`([.,])([^0-9])`)
	dash     = regexp.MustCompile(`([0-9])(-)`)
)

// Western splits words from punctuation as the mteval-v13a script does.
func Western(text string) []string {
	text = unescape.Replace(strings.TrimRight(text, " \t\n\r\v\f"))
	return punctuate(" " + text + " ")
}

func punctuate(text string) []string {
	text = symbols.ReplaceAllString(text, " $1 ")
	text = after.ReplaceAllString(text, "$1 $2 ")
	text = before.ReplaceAllString(text, " $1 $2")
	text = dash.ReplaceAllString(text, "$1 $2 ")
	return strings.Fields(text)
}

// Chinese makes each Chinese character a word, and splits the rest as Western does.
func Chinese(text string) []string {
	var b strings.Builder
	for _, c := range strings.TrimSpace(text) {
		if ideographic(c) {
			b.WriteString(" " + string(c) + " ")
		} else {
			b.WriteRune(c)
		}
	}
	return punctuate(b.String())
}

// blocks are the characters that sacrebleu takes for Chinese. Two of its ranges are meant for the planes above and name
// other characters by a mistake in their notation; they are kept, since the numbers depend on them.
var blocks = [][2]rune{
	{0x3400, 0x4db5},
	{0x4e00, 0x9fbb},
	{0xf900, 0xfa2d},
	{0xfa30, 0xfa6a},
	{0xfa70, 0xfad9},
	{0x2001, 0x2a6d},
	{0x2f81, 0x2fa1},
	{0xff00, 0xffef},
	{0x2e80, 0x2eff},
	{0x3000, 0x303f},
	{0x31c0, 0x31ef},
	{0x2f00, 0x2fdf},
	{0x2ff0, 0x2fff},
	{0x3100, 0x312f},
	{0x31a0, 0x31bf},
	{0xfe10, 0xfe1f},
	{0xfe30, 0xfe4f},
	{0x2600, 0x27bf},
	{0x3200, 0x33ff},
}

func ideographic(c rune) bool {
	for _, b := range blocks {
		if c >= b[0] && c <= b[1] {
			return true
		}
	}
	return false
}

// chrfOrder is the longest n-gram of chrF, in characters.
const chrfOrder = 6

// ChrF returns the chrF2 of a corpus in percent (Popović 2015): the F-score, with recall counting twice, of the n-grams
// of characters up to six, white space aside.
func ChrF(pairs []Pair) float64 {
	const factor = 4
	var have, want, match [chrfOrder]float64
	for _, p := range pairs {
		a, b := []rune(strings.Join(strings.Fields(p.Prediction), "")), []rune(strings.Join(strings.Fields(p.Reference), ""))
		for n := range chrfOrder {
			x, y := runs(a, n+1), runs(b, n+1)
			for g, k := range x {
				if len(y) > 0 {
					have[n] += float64(k)
				}
				match[n] += float64(min(k, y[g]))
			}
			for _, k := range y {
				want[n] += float64(k)
			}
		}
	}
	var precision, recall, orders float64
	for n := range chrfOrder {
		if have[n] > 0 && want[n] > 0 {
			precision += match[n] / have[n]
			recall += match[n] / want[n]
			orders++
		}
	}
	if precision+recall == 0 {
		return 0
	}
	precision, recall = precision/orders, recall/orders
	return 100 * (1 + factor) * precision * recall / (factor*precision + recall)
}

func runs(text []rune, n int) map[string]int {
	out := map[string]int{}
	for i := 0; i+n <= len(text); i++ {
		out[string(text[i:i+n])]++
	}
	return out
}
