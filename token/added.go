package token

import (
	"slices"
	"unicode"
	"unicode/utf8"
)

// addedToken is an entry of added_tokens: text that is cut out before the model sees it.
type addedToken struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// addedTokens finds added tokens: raw ones in the text as given, normalized ones after the normalizer.
type addedTokens struct {
	list            []addedToken
	raw, normalized finder
	byID            map[int]string
	byText          map[string]int
	special         map[string]bool // by content
	limit           int
}

// newAddedTokens gives the tokens their ids: that of the model's vocabulary where it holds the content, else the
// next free one after it, in the order of the list, as the Hugging Face library does.
func newAddedTokens(list []addedToken, m model, norm normalizer) *addedTokens {
	a := &addedTokens{byID: map[int]string{}, byText: map[string]int{}, special: map[string]bool{}}
	next := m.count()
	for _, tok := range list {
		if tok.Content == "" {
			continue
		}
		id, known := a.byText[tok.Content]
		if !known {
			if id, known = m.id(tok.Content); !known {
				id = next
			}
		}
		tok.ID = id
		next = max(next, id+1)
		a.byText[tok.Content] = id
		a.byID[id] = tok.Content
		a.limit = max(a.limit, id+1)
		if tok.Special {
			a.special[tok.Content] = true
		}
		if i := slices.IndexFunc(a.list, func(o addedToken) bool { return o.Content == tok.Content }); i >= 0 {
			a.list[i] = tok
		} else {
			a.list = append(a.list, tok)
		}
	}
	for i := range a.list {
		tok := &a.list[i]
		if !tok.Normalized {
			a.raw.add(tok.Content, tok)
			continue
		}
		pattern := text{s: tok.Content}
		if norm != nil {
			norm.normalize(&pattern)
		}
		a.normalized.add(pattern.s, tok)
	}
	return a
}

// finder cuts a text at tokens: the leftmost, and of those the longest. It is a trie over bytes whose root says
// at once where no token can begin.
type finder struct {
	nodes []trieNode
	first [256]bool
}

type trieNode struct {
	next map[byte]int32
	tok  *addedToken
}

func (f *finder) add(pattern string, tok *addedToken) {
	if pattern == "" {
		return
	}
	if len(f.nodes) == 0 {
		f.nodes = append(f.nodes, trieNode{})
	}
	f.first[pattern[0]] = true
	at := int32(0)
	for i := 0; i < len(pattern); i++ {
		to, ok := f.nodes[at].next[pattern[i]]
		if !ok {
			to = int32(len(f.nodes))
			f.nodes = append(f.nodes, trieNode{})
			if f.nodes[at].next == nil {
				f.nodes[at].next = map[byte]int32{}
			}
			f.nodes[at].next[pattern[i]] = to
		}
		at = to
	}
	if f.nodes[at].tok == nil {
		f.nodes[at].tok = tok
	}
}

// longest returns the longest token that begins s, and the length of its pattern.
func (f *finder) longest(s string) (tok *addedToken, n int) {
	at := int32(0)
	for i := 0; i < len(s); i++ {
		to, ok := f.nodes[at].next[s[i]]
		if !ok {
			break
		}
		at = to
		if f.nodes[at].tok != nil {
			tok, n = f.nodes[at].tok, i+1
		}
	}
	return tok, n
}

// find appends the parts of s: tokens found, and the text between them. With literal, special tokens stay text.
func (f *finder) find(dst []cut, s string, literal bool) []cut {
	done := 0 // s is cut up to here
	if len(f.nodes) > 0 {
		for i := 0; i < len(s); {
			if !f.first[s[i]] {
				i++
				continue
			}
			tok, n := f.longest(s[i:])
			if tok == nil {
				i++
				continue
			}
			start, stop := i, i+n
			i = stop
			if literal && tok.Special {
				continue
			}
			if tok.SingleWord && (endsWithWord(s[:start]) || beginsWithWord(s[stop:])) {
				continue
			}
			if tok.LStrip {
				start = max(spaceBefore(s, start), done)
			}
			if tok.RStrip {
				stop = spaceAfter(s, stop)
			}
			if done < start {
				dst = append(dst, cut{int32(done), int32(start), -1})
			}
			dst = append(dst, cut{int32(start), int32(stop), int32(tok.ID)})
			done = stop
		}
	}
	if done < len(s) {
		dst = append(dst, cut{int32(done), int32(len(s)), -1})
	}
	return dst
}

func endsWithWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

func beginsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}

// isWord is \w of Unicode's annex C (UTS 18): alphabetic, marks, decimal numbers, connectors and joiners.
func isWord(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsMark(r) || unicode.In(r, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}

func spaceBefore(s string, i int) int {
	for i > 0 {
		r, n := utf8.DecodeLastRuneInString(s[:i])
		if !unicode.IsSpace(r) {
			break
		}
		i -= n
	}
	return i
}

func spaceAfter(s string, i int) int {
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		if !unicode.IsSpace(r) {
			break
		}
		i += n
	}
	return i
}
