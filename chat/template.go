package chat

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"tunesmith/internal/jinja"
)

// Template is a model's chat template with its special tokens. It is safe for concurrent use.
type Template struct {
	source  string
	special Special
	main    *jinja.Template
	tools   *Template // takes the place of this one where a conversation has tools, nil if none does
	now     func() time.Time

	adapts bool                     // the special tokens are the tokenizer's, whatever special says
	bound  atomic.Pointer[Template] // the template with the last tokenizer's special tokens

	probed sync.Once
	shape  shape
}

// NewTemplate parses a template in the dialect of transformers.
func NewTemplate(source string, special Special) (*Template, error) {
	source = strings.ToValidUTF8(source, "\ufffd")
	main, err := jinja.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	return &Template{source: source, special: special, main: main}, nil
}

// Source returns the template's text.
func (t *Template) Source() string { return t.source }

// Special returns the special tokens that the template sees.
func (t *Template) Special() Special { return t.special }

// WithSpecial returns the template with other special tokens.
func (t *Template) WithSpecial(s Special) *Template {
	out := &Template{source: t.source, special: s, main: t.main, tools: t.tools, now: t.now}
	if t.tools != nil {
		out.tools = t.tools.WithSpecial(s)
	}
	return out
}

// Contract is a hash of all that a rendering depends on beside the conversation. It is saved with an adapter, which
// only works behind the same contract.
func (t *Template) Contract() string {
	h := sha256.New()
	parts := []string{t.source, t.special.BOS, t.special.EOS, t.special.Unk, t.special.Pad}
	if t.tools != nil {
		parts = append(parts, t.tools.source)
	}
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// prepared is a conversation in the form that templates take, rendered several times.
type prepared struct {
	template *jinja.Template
	source   string
	messages jinja.List
	vars     map[string]jinja.Value
	options  jinja.Options
}

// errEmpty is what transformers says, too.
var errEmpty = errors.New("chat template: a conversation needs a message")

func (t *Template) prepare(c Conversation) (*prepared, error) {
	if len(c.Messages) == 0 {
		return nil, errEmpty
	}
	p := &prepared{template: t.main, source: t.source, vars: map[string]jinja.Value{"tools": nil, "documents": nil}}
	size := len(c.Tools)
	for i, m := range c.Messages {
		d, err := m.dict()
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		p.messages = append(p.messages, asTransformers(d))
		size += weigh(d)
	}
	if len(c.Tools) > 0 {
		v, err := jinja.FromJSON(c.Tools)
		if err != nil {
			return nil, fmt.Errorf("tools: %w", err)
		}
		if p.vars["tools"] = v; v != nil && t.tools != nil {
			p.template, p.source = t.tools.main, t.tools.source
		}
	}
	for name, token := range map[string]string{"bos_token": t.special.BOS, "eos_token": t.special.EOS, "unk_token": t.special.Unk, "pad_token": t.special.Pad} {
		if token != "" {
			p.vars[name] = token
		}
	}
	for name, text := range c.Extra {
		v, err := jinja.FromJSON(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		p.vars[name] = v
		size += len(text)
	}
	// What a template may spend grows with what it has to render.
	p.options = jinja.Options{Now: t.now, Limits: jinja.Limits{
		Steps: jinja.DefaultLimits.Steps + 20_000*len(c.Messages) + size,
		Bytes: jinja.DefaultLimits.Bytes + 256*size,
	}}
	return p, nil
}

// asTransformers gives a message the form in which transformers hands it to a template: keys that are null are
// dropped, and a thought stands under both of its names.
func asTransformers(d *jinja.Dict) *jinja.Dict {
	d = d.Without(func(_ string, v jinja.Value) bool { return v == nil })
	for _, key := range reasoningKeys {
		thought, ok := d.Get(key)
		if !ok {
			continue
		}
		out := jinja.NewDict()
		out.Set("thinking", thought)
		for _, k := range d.Keys() {
			out.Set(k, get(d, k))
		}
		out.Set(reasoningKeys[0], thought)
		return out
	}
	return d
}

// weigh returns about how many bytes a value has.
func weigh(v jinja.Value) int {
	n := 16
	switch v := v.(type) {
	case string:
		n += len(v)
	case jinja.List:
		for _, x := range v {
			n += weigh(x)
		}
	case *jinja.Dict:
		for _, k := range v.Keys() {
			n += len(k) + weigh(get(v, k))
		}
	}
	return n
}

// render runs the template on messages. Variables of the conversation's own come last, as in transformers.
func (p *prepared) render(messages jinja.List, generationPrompt bool) (jinja.Result, error) {
	vars := map[string]jinja.Value{"messages": messages, "add_generation_prompt": generationPrompt}
	maps.Copy(vars, p.vars)
	res, err := p.template.Render(vars, p.options)
	if err != nil {
		return res, fmt.Errorf("chat template: %w", err)
	}
	return res, nil
}

// Render renders a conversation. generationPrompt adds the beginning of the assistant's next turn.
func (t *Template) Render(c Conversation, generationPrompt bool) (Rendered, error) {
	p, err := t.prepare(c)
	if err != nil {
		return Rendered{}, err
	}
	res, err := p.render(p.messages, generationPrompt)
	if err != nil {
		return Rendered{}, err
	}
	spans, err := t.spans(p, c, res)
	return Rendered{Text: res.Text, Spans: spans}, err
}

// continueTag stands behind the last message while it is rendered to be continued.
const continueTag = "CONTINUE_FINAL_MESSAGE_TAG "

// Continue renders a conversation whose last message is unfinished: the text ends where that message ends, without
// the end of its turn.
func (t *Template) Continue(c Conversation) (string, error) {
	p, err := t.prepare(c)
	if err != nil {
		return "", err
	}
	last := len(c.Messages) - 1
	fail := func(reason string) error {
		return &Error{last, reason, "write the last message as text that the template renders, or answer with a new message"}
	}
	d := p.messages[last].(*jinja.Dict).Clone()
	var final string
	switch content := get(d, "content").(type) {
	case string:
		final = content
		d.Set("content", content+continueTag)
	case jinja.List:
		parts := append(jinja.List(nil), content...)
		i := len(parts) - 1
		for ; i >= 0; i-- {
			if o, ok := parts[i].(*jinja.Dict); ok {
				if s, ok := get(o, "text").(string); ok {
					o = o.Clone()
					o.Set("text", s+continueTag)
					final, parts[i] = s, o
					break
				}
			}
		}
		if i < 0 {
			return "", fail("it has no text to continue")
		}
		d.Set("content", parts)
	default:
		return "", fail("it has no content to continue")
	}
	if !strings.Contains(p.source, "content") {
		return "", fail("the template does not read its content")
	}
	messages := append(jinja.List(nil), p.messages...)
	messages[last] = d
	res, err := p.render(messages, false)
	if err != nil {
		return "", err
	}
	at := strings.LastIndex(res.Text, strings.TrimSpace(continueTag))
	if at < 0 || !strings.Contains(res.Text, strings.TrimSpace(final)) {
		return "", fail("it does not appear in the rendered text")
	}
	text := res.Text[:at]
	if !strings.HasPrefix(res.Text[at:], continueTag) {
		text = strings.TrimRightFunc(text, unicode.IsSpace) // the template trims
	}
	return text, nil
}
