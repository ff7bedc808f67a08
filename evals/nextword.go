package evals

import (
	"context"
	"fmt"
	"unicode"
	"unicode/utf8"

	"tunesmith/engine"
	"tunesmith/graph"
	"tunesmith/model"
	"tunesmith/site"
	"tunesmith/token"
)

// Recall is how many words of texts a keyboard would have offered before they were typed.
type Recall struct {
	Words int
	Top1  int // the word is the first suggestion
	Top3  int // the word is one of three suggestions
}

// Share returns the parts of the words that were among one and among three suggestions.
func (r Recall) Share() (top1, top3 float64) {
	if r.Words == 0 {
		return 0, 0
	}
	return float64(r.Top1) / float64(r.Words), float64(r.Top3) / float64(r.Words)
}

// NextWords measures the recall on texts. The suggestions at a place are the k likeliest next tokens, each completed by
// the likeliest tokens to the end of the word; so a word is among them if its first token is among the k likeliest, each
// later one is the likeliest, and the word ends there. In scripts without spaces a word is a character, or the token
// that holds several. Of a text that is longer than the model's context, or than most tokens, the start counts.
func NextWords(ctx context.Context, m *model.Adapted, b engine.Backend, t *token.Tokenizer, texts []string, most int) (Recall, error) {
	var r Recall
	programs := map[int]engine.Program{}
	for _, text := range texts {
		pieces := t.Encode(text, token.WithSpecial())
		pieces = pieces[:min(len(pieces), most, m.Config.MaxPositions-m.Sites.Prefix)]
		if len(pieces) < 2 {
			continue
		}
		n := (len(pieces) + 31) / 32 * 32
		p, ok := programs[n]
		if !ok {
			var err error
			if p, err = logitsProgram(m, b, n); err != nil {
				return r, err
			}
			programs[n] = p
		}
		ids, pos := make([]int32, n), make([]int32, n)
		for i := range ids {
			pos[i] = int32(i)
			if i < len(pieces) {
				ids[i] = int32(pieces[i].ID)
			}
		}
		if err := p.Run(ctx, engine.Feeds{"ids": ids, "positions": pos}); err != nil {
			return r, err
		}
		logits := p.Output("logits")
		v := len(logits) / n
		guesses := make([]guess, len(pieces)) // of the token at a place, from those before it
		for i := 1; i < len(pieces); i++ {
			guesses[i] = rank(logits[(i-1)*v:i*v], pieces[i].ID)
		}
		last := rank(logits[(len(pieces)-1)*v:len(pieces)*v], 0)
		r.add(t, text, pieces, append(guesses, last))
	}
	if r.Words == 0 {
		return r, fmt.Errorf("next words: the %d texts hold none", len(texts))
	}
	return r, nil
}

func logitsProgram(m *model.Adapted, b engine.Backend, n int) (engine.Program, error) {
	g, err := graph.Build(func(g *graph.Graph) {
		s := site.New(g, site.Inputs{IDs: g.Input("ids", graph.Int, 1, n), Positions: g.Input("positions", graph.Int, 1, n)}, m.Grafts...)
		g.Output("logits", m.Logits(s, m.Hidden(s)))
	})
	if err != nil {
		return nil, err
	}
	return b.Compile(g, m.Store)
}

// guess is the likeliest token at a place, and how many are likelier than the one that stands there.
type guess struct{ first, rank int }

func rank(logits []float32, id int) guess {
	g := guess{}
	for i, x := range logits {
		if x > logits[g.first] {
			g.first = i
		}
		if x > logits[id] || x == logits[id] && i < id {
			g.rank++
		}
	}
	return g
}

// add counts the words of a text. guesses has one entry more than pieces.
func (r *Recall) add(t *token.Tokenizer, text string, pieces []token.Piece, guesses []guess) {
	for from := 1; from < len(pieces); {
		word, size := utf8.DecodeRuneInString(text[start(text, pieces[from]):])
		if size == 0 || !letter(word) {
			from++
			continue
		}
		to := from + 1
		spaced := !ideograph(word)
		if spaced {
			for to < len(pieces) && continues(text, pieces[to]) {
				to++
			}
		} else {
			for to < len(pieces) && !utf8.ValidString(text[pieces[from].Start:pieces[to-1].End]) {
				to++
			}
		}
		found := true
		for i := from + 1; i < to; i++ {
			found = found && guesses[i].rank == 0
		}
		if spaced && found {
			next := t.Decode([]int{guesses[to].first}, true)
			c, _ := utf8.DecodeRuneInString(next)
			found = next == "" || !letter(c)
		}
		// A piece that begins within a word that was cut off belongs to none.
		if whole := !spaced || from == 1 || !within(text, start(text, pieces[from])); whole {
			r.Words++
			if found && guesses[from].rank == 0 {
				r.Top1++
			}
			if found && guesses[from].rank < 3 {
				r.Top3++
			}
		}
		from = to
	}
}

// start returns where the first character of a piece that is no space stands.
func start(text string, p token.Piece) int {
	at := p.Start
	for at < p.End {
		c, size := utf8.DecodeRuneInString(text[at:p.End])
		if !unicode.IsSpace(c) {
			break
		}
		at += size
	}
	return at
}

// continues reports whether a piece goes on with the word before it.
func continues(text string, p token.Piece) bool {
	if p.Start >= p.End {
		return false
	}
	c, _ := utf8.DecodeRuneInString(text[p.Start:])
	return within(text, p.Start) && letter(c) && !ideograph(c)
}

// within reports whether the character before a place belongs to a word.
func within(text string, at int) bool {
	c, size := utf8.DecodeLastRuneInString(text[:at])
	return size > 0 && letter(c) && !ideograph(c)
}

func letter(c rune) bool {
	return unicode.IsLetter(c) || unicode.IsNumber(c) || unicode.IsMark(c) || c == '\'' || c == '’' || c == utf8.RuneError
}

func ideograph(c rune) bool {
	return unicode.In(c, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai)
}
