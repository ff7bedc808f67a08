package chat

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestMessageJSON(t *testing.T) {
	const source = `{"name":"bob","role":"assistant","reasoning":"hm","content":null,"weight":0,"x":{"b":1,"a":[1.0,null]},"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}`
	var m Message
	if err := json.Unmarshal([]byte(source), &m); err != nil {
		t.Fatal(err)
	}
	if m.Role != assistant || m.Name != "bob" || m.Reasoning != "hm" || *m.Weight != 0 || m.trainable() || m.ToolCalls[0].Name != "f" || string(m.ToolCalls[0].Arguments) != `"{}"` {
		t.Errorf("%+v", m)
	}
	if b, err := json.Marshal(m); err != nil || string(b) != source {
		t.Errorf("got %s, %v", b, err)
	}
	m.Content = "new"
	want := strings.Replace(source, "null,\"weight", "\"new\",\"weight", 1)
	if b, err := json.Marshal(m); err != nil || string(b) != want {
		t.Errorf("changed:\n got %s, %v\nwant %s", b, err, want)
	}
	for source, want := range map[string]string{
		`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image"},"b"]}`: "a||b",
		`{"role":"user"}`: "",
	} {
		m = Message{}
		if err := json.Unmarshal([]byte(source), &m); err != nil || strings.Join(m.texts(), "|") != want {
			t.Errorf("%s: %q, %v", source, m.texts(), err)
		}
	}
	for _, bad := range []string{`[]`, `"x"`, `null`, `{`, `1`} {
		if err := new(Message).UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	made := Message{Role: "user", Content: "a\xff", Parts: []Part{{Type: "text", Text: "p"}}, ToolCalls: []ToolCall{{ID: "i", Name: "f", Arguments: json.RawMessage(`{"z":1,"a":2}`)}}, ToolCallID: "j", Name: "n", Reasoning: "r"}
	b, err := json.Marshal(made)
	if want := `{"role":"user","content":[{"type":"text","text":"p"}],"reasoning_content":"r","tool_call_id":"j","name":"n","tool_calls":[{"id":"i","type":"function","function":{"name":"f","arguments":{"z":1,"a":2}}}]}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v", b, err)
	}
	if _, err := json.Marshal(Message{ToolCalls: []ToolCall{{Arguments: json.RawMessage(`{`)}}}); err == nil {
		t.Error("broken arguments: no error")
	}
}
