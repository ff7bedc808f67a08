package token

import (
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
	for _, special := range []bool{true, false} { // of two tokens with one pattern, the special one counts
		for i := range a.list {
			tok := &a.list[i]
			if tok.Special != special {
				continue
			}
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
	}
	return a
}

// finder cuts a text at tokens: the leftmost, and of those the longest.
type finder struct {
	tokens []*addedToken
	trie   trie
	first  [256]bool // bytes that a token begins with
}

func (f *finder) add(pattern string, tok *addedToken) {
	if _, n := f.trie.longest(pattern); n == len(pattern) {
		return // taken, or empty
	}
	f.first[pattern[0]] = true
	f.trie.add(pattern, int32(len(f.tokens)))
	f.tokens = append(f.tokens, tok)
}

// find appends the parts of s: tokens found, and the text between them. With literal, special tokens stay text.
func (f *finder) find(dst []cut, s string, literal bool) []cut {
	done := 0 // s is cut up to here
	if len(f.tokens) > 0 {
		for i := 0; i < len(s); {
			if !f.first[s[i]] {
				i++
				continue
			}
			found, n := f.trie.longest(s[i:])
			if n == 0 {
				i++
				continue
			}
			tok := f.tokens[found]
			start, stop := i, i+n
			i = stop
			if literal && tok.Special {
				continue
			}
			if tok.SingleWord && (endsWithWord(s[:start]) || beginsWithWord(s[stop:])) {
				continue
			}
			if tok.LStrip {
				start = max(spaceBefore(s, start, done), done)
			}
			if tok.RStrip {
				stop = spaceAfter(s, max(stop, done)) // what lies before done is white space that was swallowed
			}
			if done < start {
				dst = append(dst, cut{int32(done), int32(start), -1})
			}
			if start < stop {
				dst = append(dst, cut{int32(start), int32(stop), int32(tok.ID)})
			}
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

// spaceBefore returns where the white space before i begins, or less than least.
func spaceBefore(s string, i, least int) int {
	for i > least {
		r, n := utf8.DecodeLastRuneInString(s[:i])
		if !isSpace(r) {
			break
		}
		i -= n
	}
	return i
}

func spaceAfter(s string, i int) int {
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		if !isSpace(r) {
			break
		}
		i += n
	}
	return i
}
