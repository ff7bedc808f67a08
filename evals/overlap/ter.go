package overlap

import (
	"math"
	"slices"
	"strings"
	"unicode"
)

// Bounds of the search for shifts, those of Tercom.
const (
	shiftLength     = 10
	shiftDistance   = 50
	beam            = 25
	shiftCandidates = 1000
)

// TER returns the translation edit rate of a corpus in percent (Snover et al. 2006): insertions, deletions,
// substitutions and shifts of word sequences, over the words of the references.
func TER(pairs []Pair) float64 {
	edits, words := 0, 0
	for _, p := range pairs {
		e, n := editRate(terWords(p.Prediction), terWords(p.Reference))
		edits += e
		words += n
	}
	switch {
	case words > 0:
		return 100 * float64(edits) / float64(words)
	case edits > 0:
		return 100
	}
	return 0
}

func terWords(text string) []string {
	return strings.Fields(strings.ToLower(strings.TrimRightFunc(text, unicode.IsSpace)))
}

func editRate(have, want []string) (edits, words int) {
	if len(want) == 0 {
		return len(have), 0
	}
	shifts, checked := 0, 0
	for {
		gain, next := bestShift(have, want, &checked)
		if checked >= shiftCandidates || gain <= 0 {
			break
		}
		shifts++
		have = next
	}
	d, _ := editDistance(have, want)
	return shifts + d, len(want)
}

// Operations that turn a prediction into its reference.
const (
	keep       = ' '
	substitute = 's'
	insertion  = 'i'
	deletion   = 'd'
)

// editDistance returns the least number of edits and their trace, looking only near the diagonal.
func editDistance(have, want []string) (int, []byte) {
	const far = math.MaxInt32
	type cell struct {
		cost int
		op   byte
	}
	rows := make([][]cell, len(have)+1)
	for i := range rows {
		rows[i] = make([]cell, len(want)+1)
		for j := range rows[i] {
			rows[i][j] = cell{far, 'x'}
			if i == 0 {
				rows[i][j] = cell{j, insertion}
			}
		}
	}
	ratio, width := 1.0, beam
	if len(have) > 0 {
		ratio = float64(len(want)) / float64(len(have))
	}
	if beam < ratio/2 {
		width = int(math.Ceil(ratio/2 + beam))
	}
	for i := 1; i <= len(have); i++ {
		middle := int(math.Floor(float64(i) * ratio))
		lo, hi := max(0, middle-width), min(len(want)+1, middle+width)
		if i == len(have) {
			hi = len(want) + 1
		}
		for j := lo; j < hi; j++ {
			if j == 0 {
				rows[i][0] = cell{rows[i-1][0].cost + 1, deletion}
				continue
			}
			same := cell{rows[i-1][j-1].cost + 1, substitute}
			if have[i-1] == want[j-1] {
				same = cell{rows[i-1][j-1].cost, keep}
			}
			for _, c := range []cell{same, {rows[i-1][j].cost + 1, deletion}, {rows[i][j-1].cost + 1, insertion}} {
				if rows[i][j].cost > c.cost {
					rows[i][j] = c
				}
			}
		}
	}
	var trace []byte
	for i, j := len(have), len(want); i > 0 || j > 0; {
		op := rows[i][j].op
		trace = append(trace, op)
		if op != insertion {
			i--
		}
		if op != deletion {
			j--
		}
	}
	slices.Reverse(trace)
	return rows[len(have)][len(want)].cost, trace
}

// alignment says which word of the prediction each word of the reference stands for, and where there are errors.
func alignment(trace []byte) (align []int, wrongWant, wrongHave []int) {
	at := -1
	for _, op := range trace {
		wrong := 1
		if op == keep {
			wrong = 0
		}
		if op != insertion {
			at++
			wrongHave = append(wrongHave, wrong)
		}
		if op != deletion {
			align = append(align, at)
			wrongWant = append(wrongWant, wrong)
		}
	}
	return align, wrongWant, wrongHave
}

// shift is a move of words, as Tercom ranks them.
type shift struct {
	gain, length, start, target int
	words                       []string
}

func (s shift) better(o shift) bool {
	switch {
	case s.gain != o.gain:
		return s.gain > o.gain
	case s.length != o.length:
		return s.length > o.length
	case s.start != o.start:
		return s.start < o.start
	case s.target != o.target:
		return s.target < o.target
	}
	return slices.Compare(s.words, o.words) > 0
}

// bestShift returns the shift that saves most edits.
func bestShift(have, want []string, checked *int) (gain int, words []string) {
	before, trace := editDistance(have, want)
	align, wrongWant, wrongHave := alignment(trace)
	var best *shift
	matches(have, want, func(start, at, length int) bool {
		if sum(wrongHave[start:start+length]) == 0 || sum(wrongWant[at:at+length]) == 0 ||
			start <= align[at] && align[at] < start+length {
			return true
		}
		last := -1
		for offset := -1; offset < length; offset++ {
			target := 0
			if at+offset >= 0 {
				if at+offset >= len(align) {
					break
				}
				target = align[at+offset] + 1
			}
			if target == last {
				continue
			}
			last = target
			s := shift{length: length, start: start, target: target, words: moved(have, start, length, target)}
			d, _ := editDistance(s.words, want)
			s.gain = before - d
			*checked++
			if best == nil || s.better(*best) {
				best = &s
			}
		}
		return *checked < shiftCandidates
	})
	if best == nil {
		return 0, have
	}
	return best.gain, best.words
}

func sum(list []int) int {
	n := 0
	for _, x := range list {
		n += x
	}
	return n
}

// matches visits the runs of words that both texts have, until visit says no.
func matches(have, want []string, visit func(start, at, length int) bool) {
	for start := range have {
		for at := range want {
			if at-start > shiftDistance || start-at > shiftDistance {
				continue
			}
			for n := 0; n < shiftLength && start+n < len(have) && at+n < len(want) && have[start+n] == want[at+n]; n++ {
				if !visit(start, at, n+1) {
					return
				}
			}
		}
	}
}

// moved returns words with a run of them at another place.
func moved(words []string, start, length, target int) []string {
	run := words[start : start+length]
	switch {
	case target < start:
		return slices.Concat(words[:target], run, words[target:start], words[start+length:])
	case target > start+length:
		return slices.Concat(words[:start], words[start+length:target], run, words[target:])
	}
	return slices.Concat(words[:start], words[start+length:min(length+target, len(words))], run, words[min(length+target, len(words)):])
}
