package chat

import (
	"maps"
	"slices"
)

// builtins are templates for models that carry none, by name: the forms that the models of that name were trained
// on, or plain ones for base models.
var builtins = map[string]struct {
	source  string
	special Special
}{
	"chatml": {
		"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
		Special{EOS: "<|im_end|>"},
	},
	"llama3": {
		"<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
		Special{BOS: "<|begin_of_text|>", EOS: "<|eot_id|>"},
	},
	"gemma": {
		"<bos>{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
		Special{BOS: "<bos>", EOS: "<end_of_turn>"},
	},
	"mistral": {
		"<s>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content | trim }}</s>{% else %}[INST] {{ m.content | trim }} [/INST]{% endif %}{% endfor %}",
		Special{BOS: "<s>", EOS: "</s>"},
	},
	"zephyr": {
		"{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
		Special{EOS: "</s>"},
	},
	"vicuna": {
		"{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% elif m.role == 'assistant' %}ASSISTANT: {{ m.content }}</s>{% else %}{{ m.content }} {% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
		Special{EOS: "</s>"},
	},
	"alpaca": {
		"{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n{% elif m.role == 'assistant' %}### Response:\n{{ m.content }}</s>\n\n{% else %}{{ m.content }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}",
		Special{EOS: "</s>"},
	},
}

// Builtin returns a built-in template.
func Builtin(name string) (*Template, bool) {
	b, ok := builtins[name]
	if !ok {
		return nil, false
	}
	t, err := NewTemplate(b.source, b.special)
	return t, err == nil
}

// Builtins lists the names of the built-in templates, sorted.
func Builtins() []string { return slices.Sorted(maps.Keys(builtins)) }
