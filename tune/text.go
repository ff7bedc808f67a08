package tune

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tunesmith/chat"
	"tunesmith/checkpoint"
	"tunesmith/token"
)

// OpenText opens the tokenizer and the chat template of a model: those of its directory, or of its GGUF file's
// metadata. template, where it is not empty, is a file or the name of a built-in template that takes the model's
// place.
func OpenText(path string, file checkpoint.File, template string) (Text, error) {
	var t Text
	var err error
	gguf := strings.HasSuffix(path, ".gguf") && file != nil
	if gguf {
		t.Tokenizer, err = token.FromGGUF(file.Metadata())
	} else {
		t.Tokenizer, err = token.Open(dirOf(path))
	}
	if err != nil {
		return t, err
	}
	switch {
	case template != "":
		t.Template, err = openTemplate(template, t.Tokenizer)
	case gguf:
		t.Template, err = chat.FromGGUF(file.Metadata())
	default:
		t.Template, err = chat.FromDir(dirOf(path))
	}
	return t, err
}

// dirOf returns the directory of a model that is given by one of its files.
func dirOf(path string) string {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return filepath.Dir(path)
	}
	return path
}

// openTemplate returns a built-in template, or one from a file.
func openTemplate(name string, t *token.Tokenizer) (*chat.Template, error) {
	if b, ok := chat.Builtin(name); ok {
		return b, nil
	}
	source, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("chat_template: %q is no file and no built-in template (%s): %w", name, strings.Join(chat.Builtins(), ", "), err)
	}
	name = t.Token(t.BOS())
	return chat.NewTemplate(string(source), chat.Special{BOS: name, EOS: t.Token(t.EOS()), Pad: t.Token(t.Pad())})
}

// errNoTemplate is what a conversation meets at a model without a template.
var errNoTemplate = errors.New("the model has no chat template; choose one with chat_template, such as chatml")

// Prompt returns the tokens of a conversation up to where the model is to answer.
func (t Text) Prompt(messages []chat.Message) ([]int, error) {
	if t.Template == nil {
		return nil, errNoTemplate
	}
	return t.Template.Prompt(t.Tokenizer, chat.Conversation{Messages: messages})
}

// Stops returns the ids that end an answer.
func (t Text) Stops() []int {
	if t.Template != nil {
		return t.Template.Stops(t.Tokenizer)
	}
	if t.Tokenizer.EOS() >= 0 {
		return []int{t.Tokenizer.EOS()}
	}
	return nil
}

// Bytes returns the text of one token, which may be a part of a character.
func (t Text) Bytes(id int32) string { return t.Tokenizer.Bytes(int(id)) }
