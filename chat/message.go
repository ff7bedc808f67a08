package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"tunesmith/internal/jinja"
)

// Message is one turn, in the form of OpenAI's interface. Keys beyond these fields are kept from the JSON, and the
// template sees all of them in their order.
type Message struct {
	Role       string
	Content    string     // empty where the content is no text
	Parts      []Part     // content that is a list
	Reasoning  string     // thoughts before the content
	ToolCalls  []ToolCall // what an assistant wants called
	ToolCallID string     // what a tool answers
	Name       string

	Train  *bool    // false keeps the message from being trained; keys "train" and "loss" in JSON
	Weight *float64 // factor of the loss of its tokens; keys "weight" and "loss_scale" in JSON

	read *message // what UnmarshalJSON read, nil for a message made in Go
}

// Part is a part of a message's content. Only text has a meaning here; the template sees the other keys.
type Part struct {
	Type string
	Text string
	Raw  json.RawMessage // the whole part, which counts where it is set
}

// ToolCall is a call of a function.
type ToolCall struct {
	ID        string
	Name      string
	Arguments json.RawMessage // an object, or a string that holds one
	Raw       json.RawMessage // the whole call, which counts where it is set
}

// message is a message as it was read.
type message struct {
	Message
	raw  json.RawMessage
	dict *jinja.Dict
}

// The names under which thoughts come, best first.
var reasoningKeys = []string{"reasoning_content", "thinking", "reasoning"}

// UnmarshalJSON reads a message and keeps all its keys.
func (m *Message) UnmarshalJSON(b []byte) error {
	v, err := jinja.FromJSON(b)
	if err != nil {
		return fmt.Errorf("message: %w", err)
	}
	d, ok := v.(*jinja.Dict)
	if !ok {
		return fmt.Errorf("message: want an object with role and content, have %.40s", b)
	}
	*m = Message{Role: text(d, "role"), Content: text(d, "content"), ToolCallID: text(d, "tool_call_id"), Name: text(d, "name")}
	for _, key := range reasoningKeys {
		if m.Reasoning == "" {
			m.Reasoning = text(d, key)
		}
	}
	for _, p := range list(d, "content") {
		part := Part{Raw: raw(p)}
		if s, ok := p.(string); ok {
			part.Type, part.Text = "text", s
		} else if o, ok := p.(*jinja.Dict); ok {
			part.Type, part.Text = text(o, "type"), text(o, "text")
		}
		m.Parts = append(m.Parts, part)
	}
	for _, c := range list(d, "tool_calls") {
		call := ToolCall{Raw: raw(c)}
		if o, ok := c.(*jinja.Dict); ok {
			call.ID = text(o, "id")
			f := o
			if inner, ok := get(o, "function").(*jinja.Dict); ok {
				f = inner
			}
			call.Name = text(f, "name")
			if a, ok := f.Get("arguments"); ok {
				call.Arguments = raw(a)
			}
		}
		m.ToolCalls = append(m.ToolCalls, call)
	}
	for _, key := range []string{"train", "loss"} {
		if train, ok := get(d, key).(bool); ok && m.Train == nil {
			m.Train = &train
		}
	}
	for _, key := range []string{"weight", "loss_scale"} {
		if m.Weight != nil {
			break
		}
		switch w := get(d, key).(type) {
		case float64:
			m.Weight = &w
		case int:
			f := float64(w)
			m.Weight = &f
		}
	}
	m.read = &message{Message: *m, raw: bytes.Clone(b), dict: d}
	return nil
}

// get returns a value of d, nil if it is missing.
func get(d *jinja.Dict, key string) jinja.Value {
	v, _ := d.Get(key)
	return v
}

func text(d *jinja.Dict, key string) string {
	s, _ := get(d, key).(string)
	return s
}

func list(d *jinja.Dict, key string) jinja.List {
	l, _ := get(d, key).(jinja.List)
	return l
}

// raw writes a value that was read from JSON, which never fails.
func raw(v jinja.Value) json.RawMessage {
	b, _ := jinja.ToJSON(v)
	return b
}

// MarshalJSON writes a message with all the keys that it was read with.
func (m Message) MarshalJSON() ([]byte, error) {
	if m.unchanged() {
		return m.read.raw, nil
	}
	d, err := m.dict()
	if err != nil {
		return nil, err
	}
	return jinja.ToJSON(d)
}

// unchanged reports whether the fields still say what was read.
func (m Message) unchanged() bool {
	read := m.read
	m.read = nil
	return read != nil && reflect.DeepEqual(m, read.Message)
}

// dict gives the message as its JSON is: the keys that were read, with the fields' values where they changed.
func (m Message) dict() (*jinja.Dict, error) {
	if m.unchanged() {
		return m.read.dict, nil
	}
	d, was := jinja.NewDict(), Message{}
	d.Set("role", m.Role)
	d.Set("content", valid(m.Content))
	if m.read != nil {
		d, was = m.read.dict.Clone(), m.read.Message
	}
	set := func(key, value, old string) {
		if value != old {
			d.Set(key, valid(value))
		}
	}
	set("role", m.Role, was.Role)
	set("content", m.Content, was.Content)
	set(reasoningKeys[0], m.Reasoning, was.Reasoning)
	set("tool_call_id", m.ToolCallID, was.ToolCallID)
	set("name", m.Name, was.Name)
	if len(m.Parts) > 0 {
		parts := make(jinja.List, len(m.Parts))
		for i, p := range m.Parts {
			var err error
			if parts[i], err = p.value(); err != nil {
				return nil, fmt.Errorf("part %d: %w", i, err)
			}
		}
		d.Set("content", parts)
	}
	if len(m.ToolCalls) > 0 {
		calls := make(jinja.List, len(m.ToolCalls))
		for i, c := range m.ToolCalls {
			var err error
			if calls[i], err = c.value(); err != nil {
				return nil, fmt.Errorf("tool call %d: %w", i, err)
			}
		}
		d.Set("tool_calls", calls)
	}
	return d, nil
}

func valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

func (p Part) value() (jinja.Value, error) {
	if p.Raw != nil {
		return jinja.FromJSON(p.Raw)
	}
	d := jinja.NewDict()
	d.Set("type", p.Type)
	d.Set("text", valid(p.Text))
	return d, nil
}

func (c ToolCall) value() (jinja.Value, error) {
	if c.Raw != nil {
		return jinja.FromJSON(c.Raw)
	}
	f := jinja.NewDict()
	f.Set("name", c.Name)
	if c.Arguments != nil {
		a, err := jinja.FromJSON(c.Arguments)
		if err != nil {
			return nil, err
		}
		f.Set("arguments", a)
	}
	d := jinja.NewDict()
	if c.ID != "" {
		d.Set("id", c.ID)
	}
	d.Set("type", "function")
	d.Set("function", f)
	return d, nil
}

// texts lists what the message says in words: its content, or the parts of it that are text.
func (m Message) texts() []string {
	if m.Parts == nil {
		return []string{m.Content}
	}
	var out []string
	for _, p := range m.Parts {
		out = append(out, p.Text)
	}
	return out
}

// trainable reports whether the message asks not to be left out.
func (m Message) trainable() bool {
	return (m.Train == nil || *m.Train) && (m.Weight == nil || *m.Weight != 0)
}
