package token

import (
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
	byText          map[string]int
	byID            map[int]string // as the text that the finder looks for: decoding gives the normalized form
	special         map[string]bool
	limit           int
}

// newAddedTokens gives the tokens their ids: that of the model's vocabulary where it holds the content, else the
// next free one after it, in the order of the list, as the Hugging Face library does. Of two tokens with the same
// content the last counts.
func newAddedTokens(list []addedToken, m model, norm normalizer) *addedTokens {
	a := &addedTokens{byText: map[string]int{}, byID: map[int]string{}, special: map[string]bool{}}
	next := m.count()
	place := map[string]int{} // in a.list
	for _, tok := range list {
		if tok.Content == "" {
			continue
		}
		i, twice := place[tok.Content]
		if !twice {
			i = len(a.list)
			place[tok.Content] = i
			id, known := m.id(tok.Content)
			if !known {
				id = next
			}
			next = max(next, id+1)
			a.limit = max(a.limit, id+1)
			a.byText[tok.Content] = id
			a.list = append(a.list, tok)
		}
		tok.ID = a.byText[tok.Content]
		a.list[i] = tok
		if tok.Special {
			a.special[tok.Content] = true
		}
	}
	for i := range a.list {
		tok := &a.list[i]
		pattern, in := text{s: tok.Content}, &a.raw
		if tok.Normalized {
			in = &a.normalized
			if norm != nil {
				norm.normalize(&pattern)
			}
		}
		in.add(pattern.s, tok)
		a.byID[tok.ID] = pattern.s
	}
	return a
}

// finder cuts a text at tokens: the leftmost, and of those the longest. It is a trie over bytes, children in a
// chain of siblings.
type finder struct {
	root  [256]int32 // index into nodes, 0 for none
	nodes []trieNode // node 0 is not used
}

type trieNode struct {
	child, sibling int32
	tok            *addedToken
	c              byte
}

func (f *finder) add(pattern string, tok *addedToken) {
	if pattern == "" {
		return
	}
	if len(f.nodes) == 0 {
		f.nodes = append(f.nodes, trieNode{})
	}
	at := f.root[pattern[0]]
	if at == 0 {
		at = f.grow(pattern[0], 0)
		f.root[pattern[0]] = at
	}
	for i := 1; i < len(pattern); i++ {
		to := f.child(at, pattern[i])
		if to == 0 {
			to = f.grow(pattern[i], f.nodes[at].child)
			f.nodes[at].child = to
		}
		at = to
	}
	if f.nodes[at].tok == nil {
		f.nodes[at].tok = tok
	}
}

func (f *finder) grow(c byte, sibling int32) int32 {
	f.nodes = append(f.nodes, trieNode{c: c, sibling: sibling})
	return int32(len(f.nodes) - 1)
}

func (f *finder) child(at int32, c byte) int32 {
	to := f.nodes[at].child
	for to != 0 && f.nodes[to].c != c {
		to = f.nodes[to].sibling
	}
	return to
}

// longest returns the longest token that begins s, and the length of its pattern.
func (f *finder) longest(s string) (tok *addedToken, n int) {
	at := f.root[s[0]]
	for i := 1; at != 0; i++ {
		if f.nodes[at].tok != nil {
			tok, n = f.nodes[at].tok, i
		}
		if i == len(s) {
			break
		}
		at = f.child(at, s[i])
	}
	return tok, n
}

// find appends the parts of s: tokens found, and the text between them. With literal, special tokens stay text.
func (f *finder) find(dst []cut, s string, literal bool) []cut {
	done := 0 // s is cut up to here
	if len(f.nodes) > 0 {
		for i := 0; i < len(s); {
			if f.root[s[i]] == 0 {
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
