package data

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
)

// The roles of messages.
const (
	system    = "system"
	user      = "user"
	assistant = "assistant"
	tool      = "tool"
	call      = "function_call" // an assistant's message whose content is a JSON call
)

// roleNames are the names of roles that the usual data sets write.
var roleNames = map[string]string{
	"system": system, "developer": system,
	"user": user, "human": user,
	"assistant": assistant, "gpt": assistant, "model": assistant,
	"tool": tool, "function": tool, "observation": tool, "function_response": tool,
	"function_call": call,
}

// wantRoles names the roles in messages of errors.
var wantRoles = map[Format]string{
	Messages: "system, user, assistant, tool",
	ShareGPT: "human, gpt, system, observation, function_call",
}

// turns are messages on their way to a record, with what the file says of each.
type turns struct {
	messages []Message
	train    []bool
	names    []string // of the roles, as the file writes them
}

// turns reads the messages of a conversation.
func (f *fields) turns(path string, value any) (turns, error) {
	var t turns
	list, err := asList(path, value)
	if err != nil {
		return t, err
	}
	for i, element := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		o, err := asObject(at, element)
		if _, isText := element.(string); isText {
			return t, bad("name the roles; or, if they are texts of user and assistant in turn, set format: "+string(Texts), "%s: want an object, have text", at)
		}
		if err != nil {
			return t, err
		}
		m, name, train, err := f.message(at, o)
		if err != nil {
			return t, err
		}
		t.messages = append(t.messages, m)
		t.train = append(t.train, train)
		t.names = append(t.names, name)
	}
	return t, nil
}

// key finds the tag of a message: the mapped one, or whichever of the usual two is there.
func key(o *object, mapped string, usual ...string) string {
	if mapped != "" {
		return mapped
	}
	for _, k := range usual {
		if _, present := o.get(k); present {
			return k
		}
	}
	return usual[0]
}

// message reads one message; name is its role as the file writes it, train whether it is trained.
func (f *fields) message(at string, o *object) (m Message, name string, train bool, err error) {
	style := messageStyle("messages", []any{o})
	roleKey, contentKey := "role", "content"
	if style == ShareGPT {
		roleKey, contentKey = "from", "value"
	}
	roleKey, contentKey = key(o, f.tags.role, roleKey, "role", "from"), key(o, f.tags.content, contentKey, "content", "value")
	value, _ := o.get(roleKey)
	if value == nil {
		return m, "", false, bad("write who speaks: "+wantRoles[style], "%s lacks '%s'", at, roleKey)
	}
	if name, err = asText(at+"."+roleKey, value); err != nil {
		return m, "", false, err
	}
	if m.Role, err = f.role(at+"."+roleKey, name, style); err != nil {
		return m, "", false, err
	}
	path := at + "." + contentKey
	value, present := o.get(contentKey)
	calls, _ := o.get("tool_calls")
	switch {
	case m.Role == call:
		m.Role = assistant
		var text string
		if text, err = asText(path, value); err == nil {
			m.ToolCalls, err = callsOf(path, text)
		}
	case value == nil && isCalls(calls):
		// content may be null beside calls
	case !present:
		err = bad("write the text", "%s lacks '%s'", at, contentKey)
	default:
		m.Content, err = content(path, value)
	}
	if err == nil && isCalls(calls) {
		m.ToolCalls, err = toolCalls(at+".tool_calls", calls)
	}
	if err != nil {
		return m, "", false, err
	}
	for _, k := range []struct {
		key string
		to  *string
	}{{"reasoning_content", &m.Reasoning}, {"tool_call_id", &m.ToolCallID}, {"name", &m.Name}} {
		if v, _ := o.get(k.key); v != nil {
			if *k.to, err = asText(at+"."+k.key, v); err != nil {
				return m, "", false, err
			}
		}
	}
	train, err = f.trained(at, o, m.Role)
	return m, name, train, err
}

// role finds the role that a file's name means.
func (f *fields) role(path, name string, style Format) (string, error) {
	names, want := roleNames, wantRoles[style]
	if f.roles != nil {
		names, want = f.roles, strings.Join(slices.Sorted(maps.Keys(f.roles)), ", ")
	}
	if role, ok := names[name]; ok {
		return role, nil
	}
	return "", bad("rename the role, or map it: roles: {"+clip(name, 20)+": user}", "%s: unknown role '%s' (want %s)%s",
		path, clip(name, 40), want, nearest.Hint(name, slices.Sorted(maps.Keys(names))))
}

// trained reads the marks by which files say that an assistant's message is not learned.
func (f *fields) trained(at string, o *object, role string) (bool, error) {
	train := role == assistant
	if v, _ := o.get("weight"); v != nil {
		n, ok := v.(number)
		if w := n.float(); !ok || w != 0 && w != 1 {
			return false, bad("write 0 (not trained) or 1", "%s.weight: want 0 or 1, have %s", at, clip(string(appendJSON(nil, v)), 20))
		}
		train = train && n.float() == 1
	}
	for _, k := range []string{"training", "loss"} {
		if v, _ := o.get(k); v != nil {
			b, err := f.boolean(at+"."+k, v)
			if err != nil {
				return false, err
			}
			train = train && b
		}
	}
	return train, nil
}

// content is text, or a list of text blocks, which are joined without a separator.
func content(path string, value any) (string, error) {
	blocks, ok := value.([]any)
	if !ok {
		return asText(path, value)
	}
	var b strings.Builder
	for i, block := range blocks {
		at := fmt.Sprintf("%s[%d]", path, i)
		o, err := asObject(at, block)
		if err != nil {
			return "", err
		}
		if kind, _ := o.get("type"); kind != "text" {
			return "", bad("remove the record, or replace the block by text", "%s: block of type %s: want text", at, clip(string(appendJSON(nil, kind)), 30))
		}
		v, _ := o.get("text")
		s, err := asText(at+".text", v)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func isCalls(v any) bool {
	list, ok := v.([]any)
	return v != nil && (!ok || len(list) > 0)
}

// callsOf reads the text of a function_call turn: one call, or a list of calls.
func callsOf(path, text string) ([]ToolCall, error) {
	v, _, err := parseJSON(text)
	if err != nil {
		return nil, bad(`write {"name": ..., "arguments": {...}}`, "%s: function_call is not JSON: %v", path, err)
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	return toolCalls(path, list)
}

// toolCalls reads calls in OpenAI's form, or as plain name and arguments; arguments are an object, or text that
// holds one.
func toolCalls(path string, value any) ([]ToolCall, error) {
	list, err := asList(path, value)
	if err != nil {
		return nil, err
	}
	var calls []ToolCall
	for i, element := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		o, err := asObject(at, element)
		if err != nil {
			return nil, err
		}
		c := ToolCall{Type: "function"}
		if id, _ := o.get("id"); id != nil {
			if c.ID, err = asText(at+".id", id); err != nil {
				return nil, err
			}
		}
		if inner, _ := o.get("function"); inner != nil {
			at += ".function"
			if o, err = asObject(at, inner); err != nil {
				return nil, err
			}
		}
		name, _ := o.get("name")
		if c.Function.Name, err = asText(at+".name", name); err != nil {
			return nil, err
		}
		arguments, _ := o.get("arguments")
		if s, isText := arguments.(string); isText {
			if arguments, _, err = parseJSON(s); err != nil {
				return nil, bad("write a JSON object", "%s.arguments is not JSON: %v", at, err)
			}
		}
		if arguments == nil {
			arguments = &object{}
		}
		if _, err = asObject(at+".arguments", arguments); err != nil {
			return nil, err
		}
		c.Function.Arguments = appendJSON(nil, arguments)
		calls = append(calls, c)
	}
	return calls, nil
}

// withSystem puts the text of a system column before the messages.
func (f *fields) withSystem(t turns) (turns, error) {
	text, err := f.text("system", true)
	if err != nil || text == "" {
		return t, err
	}
	if len(t.messages) > 0 && t.messages[0].Role == system {
		if t.messages[0].Content != text {
			return t, bad("keep one of them", "the column and the first message give different system texts")
		}
		return t, nil
	}
	return turns{
		append([]Message{{Role: system, Content: text}}, t.messages...),
		append([]bool{false}, t.train...),
		append([]string{system}, t.names...),
	}, nil
}

// readConversation reads the formats messages and sharegpt.
func readConversation(f *fields) (Record, error) {
	path, value, err := f.need("messages")
	if err != nil {
		return Record{}, err
	}
	t, err := f.turns(path, value)
	if err != nil {
		return Record{}, err
	}
	tools, err := f.rawList("tools")
	if err != nil {
		return Record{}, err
	}
	if err := f.checkTurns(path, t); err != nil {
		return Record{}, err
	}
	if t, err = f.withSystem(t); err != nil {
		return Record{}, err
	}
	return Record{Kind: Chat, Messages: t.messages, Train: t.train, Tools: tools}, nil
}

// readTexts reads conversations that are lists of texts, of the user and the assistant in turn.
func readTexts(f *fields) (Record, error) {
	path, value, err := f.need("messages")
	if err != nil {
		return Record{}, err
	}
	list, err := asList(path, value)
	if err != nil {
		return Record{}, err
	}
	var t turns
	for i, element := range list {
		text, err := asText(fmt.Sprintf("%s[%d]", path, i), element)
		if err != nil {
			return Record{}, err
		}
		role := user
		if i%2 == 1 {
			role = assistant
		}
		t.add(role, text, role == assistant)
	}
	if err := f.checkTurns(path, t); err != nil {
		return Record{}, err
	}
	t, err = f.withSystem(t)
	return Record{Kind: Chat, Messages: t.messages, Train: t.train}, err
}

// checkTurns looks at the order of a conversation that is to be trained.
func (f *fields) checkTurns(path string, t turns) error {
	if len(t.messages) == 0 {
		return bad("remove the record", "conversation has no messages")
	}
	if err := f.checkOrder(path, t); err != nil {
		return err
	}
	last := t.messages[len(t.messages)-1]
	switch {
	case !slices.ContainsFunc(t.messages, func(m Message) bool { return m.Role == assistant }):
		return bad("add the answer, or remove the record", "no assistant message: nothing to train")
	case !slices.Contains(t.train, true):
		f.warn("no message is marked for training: nothing to train")
	case last.Role != assistant:
		f.warn("last turn is '%s': nothing to train after it", t.names[len(t.names)-1])
	}
	called := map[string]bool{}
	for i, m := range t.messages {
		switch m.Role {
		case system:
			if i > 0 {
				f.warn("%s[%d]: system message after the start: many templates refuse it", path, i)
			}
		case assistant:
			if blank(m.Content) && len(m.ToolCalls) == 0 && t.train[i] {
				f.warn("%s[%d].content is empty: nothing to train", path, i)
			}
			for _, c := range m.ToolCalls {
				called[c.ID] = true
			}
		case tool:
			if !called[m.ToolCallID] && (m.ToolCallID != "" || len(called) == 0) {
				f.warn("%s[%d]: tool result '%s' answers no call", path, i, clip(m.ToolCallID, 40))
			}
		}
	}
	return nil
}

// checkOrder demands of sharegpt what its readers rely on: after an optional system turn, human or observation
// turns and gpt or function_call turns alternate, the human begins and gpt ends.
func (f *fields) checkOrder(path string, t turns) error {
	if f.format != ShareGPT {
		return nil
	}
	start := 0
	if t.messages[0].Role == system {
		start = 1
	}
	for i := start; i < len(t.messages); i++ {
		speaks := t.messages[i].Role == assistant
		switch {
		case t.messages[i].Role == system:
			// checkTurns warns of it
		case i == start && speaks:
			return bad("remove the turn, or add the question before it", "%s[%d]: starts with '%s'", path, i, t.names[i])
		case i > start && t.messages[i-1].Role != system && speaks == (t.messages[i-1].Role == assistant):
			want := "gpt or function_call"
			if speaks {
				want = "human or observation"
			}
			return bad("join the two turns, or add the one between", "%s[%d]: '%s' after '%s' (want %s)", path, i, t.names[i], t.names[i-1], want)
		}
	}
	if last := len(t.messages) - 1; t.messages[last].Role != assistant && last > start {
		return bad("remove the turn, or add its answer", "last turn is '%s': nothing to train after it", t.names[last])
	}
	return nil
}
