package chat

import (
	"slices"
	"strings"
	"unicode/utf8"

	"tunesmith/internal/jinja"
)

const assistant = "assistant"

// shape is how a template frames an assistant's turn. It is found by rendering short conversations.
type shape struct {
	ok     bool
	header string // what stands before an answer, as far as the generation prompt gives it
	end    string // what closes a turn, "" for nothing
	last   string // what follows the last answer: end, and perhaps more
}

// marker takes the place of a text to find where a template puts it. Nothing trims, splits or merges its letters.
func marker(n int) string { return "Xq7zMARKER" + strings.Repeat("q", n) + "z7qX" }

func turn(role, content string) *jinja.Dict {
	d := jinja.NewDict()
	d.Set("role", role)
	d.Set("content", content)
	return d
}

// frame returns the shape of the template.
func (t *Template) frame() shape {
	t.probed.Do(func() { t.shape = t.probe() })
	return t.shape
}

// probe finds the shape from what stands around markers:
//
//	question CLOSE, with a prompt: question CLOSE HEADER, with an answer: question CLOSE HEADER answer LAST,
//	in the middle: answer END question
func (t *Template) probe() shape {
	p, err := t.prepare(Conversation{Messages: []Message{{Role: "user", Content: marker(1)}}})
	if err != nil {
		return shape{}
	}
	ask := p.messages
	pair := append(slices.Clone(ask), turn(assistant, marker(2)))
	between := func(messages jinja.List, prompt bool, from, to int) (string, bool) {
		res, err := p.render(messages, prompt)
		_, text, found := strings.Cut(res.Text, marker(from))
		if err != nil || !found {
			return "", false
		}
		if to == 0 {
			return text, true
		}
		text, _, found = strings.Cut(text, marker(to))
		return text, found
	}
	closing, ok1 := between(ask, false, 1, 0)
	prompt, ok2 := between(ask, true, 1, 0)
	gap, ok3 := between(pair, false, 1, 2)
	last, ok4 := between(pair, false, 2, 0)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return shape{}
	}
	closing = shared(closing, prompt)
	s := shape{ok: true, last: last, end: last}
	s.header, _ = strings.CutPrefix(shared(prompt, gap), closing)
	middle, ok := between(append(slices.Clone(pair), turn("user", marker(3)), turn(assistant, marker(4))), false, 2, 3)
	if ok {
		s.end = shared(last, middle)
		if s.end == "" && strings.HasPrefix(middle, closing) {
			s.end = closing // answers close as questions do, but for the last
		}
	}
	return s
}

// shared returns what two texts begin with alike. Where both go on differently, the part of a control token that is
// alike by chance does not count.
func shared(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	if n < len(a) && n < len(b) {
		n = strings.LastIndexAny(a[:n], ">]\n ") + 1
	}
	return a[:n]
}

// spans finds the stretches of a rendering that the assistant's messages made.
func (t *Template) spans(p *prepared, c Conversation, res jinja.Result) ([]Span, error) {
	answers := numbers(c, assistant)
	if p.template.HasGeneration() && res.Exact {
		spans := make([]Span, len(res.Generations))
		for i, g := range res.Generations {
			spans[i] = Span{g.Start, g.End, -1}
		}
		return t.own(p, c, res.Text, spans, answers), nil
	}
	var spans []Span
	for _, i := range answers {
		s, err := t.span(p, c, i, res.Text)
		if err != nil {
			return nil, err
		}
		if n := len(spans); n > 0 && s.Start < spans[n-1].End {
			return nil, unclear(i, "its place in the text cannot be told from that of the answer before it")
		}
		spans = append(spans, s)
	}
	return spans, nil
}

// numbers lists the messages of a role.
func numbers(c Conversation, role string) []int {
	var out []int
	for i, m := range c.Messages {
		if m.Role == role {
			out = append(out, i)
		}
	}
	return out
}

// own says which message each {% generation %} block belongs to: in order if there is one for each answer, else by
// the place that each answer has. A block whose message cannot be told keeps −1.
func (t *Template) own(p *prepared, c Conversation, text string, spans []Span, answers []int) []Span {
	if len(spans) == len(answers) {
		for k := range spans {
			spans[k].Message = answers[k]
		}
		return spans
	}
	for _, i := range answers {
		place, err := t.span(p, c, i, text)
		if err != nil {
			continue
		}
		for k, s := range spans {
			if s.Message < 0 && s.Start < place.End && place.Start < s.End {
				spans[k].Message = i
			}
		}
	}
	return spans
}

func unclear(i int, reason string) error {
	return &Error{i, reason, "choose a chat_template with {% generation %} blocks, or another one that keeps every turn"}
}

// span finds answer i in a rendering that does not mark it. The answer begins where the generation prompt behind the
// messages before it ends, and ends where the rendering up to it ends. Where the template renders these differently
// once more messages follow, the place of a marker in the answer's place decides.
func (t *Template) span(p *prepared, c Conversation, i int, full string) (Span, error) {
	s := Span{Message: i}
	start, ok1 := t.start(p, i, full)
	end, ok2 := t.end(p, i, full)
	if !ok1 || !ok2 || start > end {
		first, last, err := t.marked(p, i, full)
		if err != nil {
			return s, err
		}
		if !ok1 {
			start = first
		}
		if !ok2 {
			end = last
		}
	}
	if start > end {
		return s, unclear(i, "its place in the text cannot be told")
	}
	s.Start, s.End = start, end
	for _, want := range c.Messages[i].texts() {
		want = strings.TrimSpace(afterThought(want))
		if !strings.Contains(full[start:end], want) {
			return s, unclear(i, "the text of the answer does not stand where the template puts its turn")
		}
	}
	return s, nil
}

// start returns where answer i begins if the text before it is what the messages before it render to.
func (t *Template) start(p *prepared, i int, full string) (int, bool) {
	prompt, err := p.render(p.messages[:i], true)
	if err != nil {
		return 0, false
	}
	// The prompt may open a thought that this answer does not have: what they share counts, if it goes into the header.
	f := t.frame()
	n := len(shared(full, prompt.Text))
	return n, n == len(prompt.Text) || f.ok && f.header != "" && n > strings.LastIndex(prompt.Text, f.header)
}

// end returns where answer i ends if the text up to there is what the messages up to it render to.
func (t *Template) end(p *prepared, i int, full string) (int, bool) {
	f := t.frame()
	if i == len(p.messages)-1 {
		if rest, ok := strings.CutPrefix(f.last, f.end); ok && strings.HasSuffix(full, f.last) {
			return len(full) - len(rest), true
		}
		return len(full), true
	}
	upTo, err := p.render(p.messages[:i+1], false)
	if err != nil || !strings.HasPrefix(full, upTo.Text) {
		return 0, false
	}
	return len(upTo.Text), true
}

// marked finds answer i by a rendering with a marker in its place.
func (t *Template) marked(p *prepared, i int, full string) (start, end int, err error) {
	f := t.frame()
	keeps := p.messages[i].(*jinja.Dict).Clone() // with its tool calls, which a template may insist on
	keeps.Set("content", marker(2))
	var before, after string
	found := false
	for _, m := range []*jinja.Dict{turn(assistant, marker(2)), keeps} {
		messages := slices.Clone(p.messages)
		messages[i] = m
		var res jinja.Result
		if res, err = p.render(messages, false); err != nil {
			continue
		}
		if before, after, found = strings.Cut(res.Text, marker(2)); found {
			break
		}
	}
	if !found && err != nil {
		return 0, 0, err
	}
	if !found || !f.ok {
		return 0, 0, unclear(i, "the template leaves the answer out")
	}
	start = strings.LastIndex(before, f.header) + len(f.header)
	if start < len(f.header) || !strings.HasPrefix(full, before[:start]) {
		return 0, 0, unclear(i, "its place in the text cannot be told")
	}
	tail := 0
	for tail < len(after) && tail < len(full)-start && after[len(after)-1-tail] == full[len(full)-1-tail] {
		tail++
	}
	end = len(full) - tail
	for end < len(full) && !utf8.RuneStart(full[end]) {
		end++
	}
	if tail == len(after) && strings.HasPrefix(after, f.end) {
		end += len(f.end)
	}
	return start, end, nil
}

// afterThought is what stands behind the thoughts of an answer, which templates may cut out of earlier turns.
func afterThought(content string) string {
	for _, tag := range []string{"</think>", "</thinking>", "</thought>"} {
		if i := strings.LastIndex(content, tag); i >= 0 {
			return content[i+len(tag):]
		}
	}
	return content
}
