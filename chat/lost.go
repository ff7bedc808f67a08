package chat

import (
	"fmt"
	"slices"
	"strings"

	"tunesmith/internal/jinja"
)

// lost reports a message that does not stand in the rendering, or not behind those before it. A message whose text
// the template changes is remarked on.
func (p *prepared) lost(c Conversation, text string) ([]Warning, error) {
	var warnings []Warning
	at := 0
	for i, m := range c.Messages {
		for _, content := range m.texts() {
			content = strings.TrimSpace(content)
			if content == "" {
				continue
			}
			n, size := strings.Index(text[at:], content), len(content)
			if n < 0 && m.Role == assistant { // earlier thoughts are dropped on purpose
				content = strings.TrimSpace(afterThought(content))
				n, size = strings.Index(text[at:], content), len(content)
			}
			if n < 0 {
				place, found := p.place(i, content, text)
				switch {
				case !found && len(m.ToolCalls) > 0:
					warnings = append(warnings, "the template drops what an answer says beside its tool calls")
				case !found:
					return nil, &Error{i, fmt.Sprintf("the template drops the %s's %q", m.Role, clip(content)), "choose another chat_template, or remove the message"}
				case place < at:
					return nil, &Error{i, fmt.Sprintf("the template moves the %s's %q out of its order", m.Role, clip(content)), "choose another chat_template, or put the message where the template expects it"}
				case m.Role != "tool": // templates may write what tools answer as JSON
					warnings = append(warnings, Warning(fmt.Sprintf("the template changes the text of a message of role %s", m.Role)))
				}
				n, size = place-at, 0
			}
			if m.Role != "system" && m.Role != "developer" { // templates may put these into the first turn
				at = min(at+n+size, len(text))
			}
		}
	}
	return warnings, nil
}

// place finds message i, whose text the template changes, by rendering another text in its place: where the two
// renderings part, and whether they do.
func (p *prepared) place(i int, content, text string) (int, bool) {
	messages := slices.Clone(p.messages)
	d := messages[i].(*jinja.Dict).Clone()
	d.Set("content", rewrite(get(d, "content"), func(s string) string {
		return strings.ReplaceAll(s, content, marker(2))
	}))
	messages[i] = d
	res, err := p.render(messages, false)
	if err != nil {
		return 0, false
	}
	n := 0
	for n < len(text) && n < len(res.Text) && text[n] == res.Text[n] {
		n++
	}
	return n, res.Text != text
}

func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
