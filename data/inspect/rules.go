package inspect

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"tunesmith/data"
	"tunesmith/data/quality"
)

// Names of the rules that need more than the record.
const (
	exactDuplicate = "exact_duplicate"
	nearDuplicate  = "near_duplicate"
	otherAnswer    = "other_answer"
	leakage        = "leakage"
	unrendered     = "unrendered"
	templateRemark = "template"
	noTrained      = "no_trained_token"
	tooLong        = "too_long"
	noEnd          = "no_end_token"
)

// Rule is one thing that is looked for.
type Rule struct {
	Name    string `json:"name"`
	Action  Action `json:"action"` // unless the user says otherwise
	Doc     string `json:"doc"`
	Chinese string `json:"-"`

	look func(data.Record) string // what is wrong, "" for nothing
	mend func(string) string
}

// Rules returns all rules in the order in which they are asked.
func Rules() []Rule { return rules }

func find(name string) (Rule, bool) {
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.Name == name })
	if i < 0 {
		return Rule{}, false
	}
	return rules[i], true
}

var rules = []Rule{
	{"mojibake", Mend, "text that was read in a wrong encoding, and reads well in the right one", "用错误编码读取、可以还原的文本", mojibake, func(s string) string { s, _ = quality.Mend(s); return s }},
	{"lost_bytes", Drop, "text with U+FFFD: bytes were lost when it was decoded", "含有 U+FFFD：解码时丢失了字节", lostBytes, nil},
	{"control_characters", Mend, "control characters other than tab and line ends", "制表符和换行以外的控制字符", controls, withoutControls},
	{"private", Remark, "e-mail addresses, telephone numbers, identity and card numbers, addresses of machines, keys", "电子邮件、电话、证件号、卡号、IP 地址、密钥", private, quality.Redact},
	{"empty_answer", Drop, "an answer without a letter, a digit or a symbol", "空回答", emptyAnswer, nil},
	{"refusal", Drop, "an answer that refuses, or speaks of itself as a language model", "拒绝回答，或自称语言模型", refusal, nil},
	{"boilerplate", Remark, "an answer with the phrases of an assistant that say nothing", "空洞的客套话", boilerplate, nil},
	{"truncated", Remark, "a long answer that stops in the middle of a sentence or of a block of code", "长回答在句子或代码中间中断", truncated, nil},
	{"repetition", Drop, "an answer that repeats itself, by Gopher's rules", "回答自我重复（Gopher 规则）", repetition, nil},
	{"other_script", Remark, "an answer in another script than the question", "回答与问题的文字不同", otherScript, nil},
	{unrendered, Drop, "a record that the chat template refuses", "对话模板拒绝的记录", nil, nil},
	{templateRemark, Remark, "what the chat template does to a record", "对话模板对记录的改动", nil, nil},
	{noTrained, Drop, "a record of which no token is trained", "没有任何被训练的词元", nil, nil},
	{tooLong, Remark, "a record that is longer than the context", "比上下文更长的记录", nil, nil},
	{noEnd, Remark, "an answer behind which no token ends the turn: the model does not learn to stop", "回答后没有结束词元：模型学不会停止", nil, nil},
	{leakage, Drop, "a record that holds a text of the evaluation data", "含有评测数据的文本", nil, nil},
	{exactDuplicate, Drop, "the text of an earlier record, but for case and white space", "与前面的记录相同（忽略大小写和空白）", nil, nil},
	{nearDuplicate, Drop, "nearly the text of an earlier record (MinHash)", "与前面的记录几乎相同（MinHash）", nil, nil},
	{otherAnswer, Remark, "the question of an earlier record with another answer", "与前面的记录问题相同而回答不同", nil, nil},
}

func mojibake(r data.Record) string {
	found := ""
	r.EachText(func(s string) string {
		if mended, ok := quality.Mend(s); ok && found == "" {
			found = fmt.Sprintf("%q reads %q", clip(s), clip(mended))
		}
		return s
	})
	return found
}

func lostBytes(r data.Record) string {
	if i := strings.IndexRune(r.Content(), utf8.RuneError); i >= 0 {
		return fmt.Sprintf("%q", clip(r.Content()[start(r.Content(), i-20):]))
	}
	return ""
}

// start moves an index back to the start of a character.
func start(s string, i int) int {
	i = max(i, 0)
	for i > 0 && !utf8.RuneStart(s[i]) {
		i--
	}
	return i
}

func isControl(r rune) bool {
	return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' || r == 0xfeff || r == 0x200b
}

func controls(r data.Record) string {
	n := 0
	var first rune
	for _, c := range r.Content() {
		if isControl(c) {
			if n == 0 {
				first = c
			}
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d, first %U", n, first)
}

func withoutControls(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return -1
		}
		return r
	}, s)
}

// private counts private data by type; the data itself is not repeated.
func private(r data.Record) string {
	counts := map[string]int{}
	for _, p := range quality.FindPrivate(r.Content()) {
		if p.Valid {
			counts[p.Type]++
		}
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", kind, counts[kind]))
	}
	return strings.Join(parts, ", ")
}

// callsOnly reports whether an answer is a call of functions, which needs no text.
func callsOnly(r data.Record) bool {
	return slices.ContainsFunc(r.Messages, func(m data.Message) bool { return len(m.ToolCalls) > 0 && m.Content == "" })
}

func emptyAnswer(r data.Record) string {
	if r.Kind == data.PromptOnly || callsOnly(r) {
		return ""
	}
	for i, a := range r.Answers() {
		if strings.TrimFunc(a, func(c rune) bool { return !unicode.IsGraphic(c) || unicode.IsSpace(c) }) == "" {
			return fmt.Sprintf("answer %d is empty", i+1)
		}
	}
	return ""
}

// The phrases are looked for in text in lower case with straight apostrophes.
var (
	refusals = []string{
		"as an ai language model", "as a language model", "as an artificial intelligence", "as an ai, i", "as an ai assistant", "i'm just an ai", "i am just an ai", "i am an ai language model",
		"i'm sorry, but i can", "i am sorry, but i can", "i'm sorry, i can", "sorry, but i can", "i'm sorry, but as", "i cannot assist with", "i can't assist with", "i cannot fulfill", "i can't fulfill",
		"i cannot help with", "i can't help with", "i'm unable to assist", "i am unable to assist", "i cannot provide", "i can't provide",
		"作为一个人工智能", "作为人工智能", "作为一个ai", "作为一名ai", "作为ai", "作为一个语言模型", "作为语言模型", "我是一个人工智能", "我是一个语言模型",
		"抱歉，我不能", "抱歉，我无法", "对不起，我不能", "对不起，我无法", "抱歉,我无法", "对不起,我无法", "我无法提供", "我不能提供", "我无法回答", "我不能回答",
	}
	phrases = []string{
		"i hope this helps", "hope that helps", "feel free to ask", "let me know if you have any", "let me know if you need", "is there anything else i can", "if you have any further questions",
		"great question!", "certainly! here", "sure! here", "of course! here", "sure, here is", "sure, here's",
		"希望对您有帮助", "希望对你有帮助", "希望这对您有所帮助", "希望这能帮到你", "如果您还有其他问题", "如果你还有其他问题", "如有任何问题", "请随时告诉我", "请随时提问",
	}
)

// refusal looks at the start of the answers: what is said later may be a quotation.
func refusal(r data.Record) string {
	for _, a := range r.Answers() {
		if p := phrase(head(a, 160), refusals); p != "" {
			return fmt.Sprintf("%q", p)
		}
	}
	return ""
}

// boilerplate looks at the start and the end of the answers.
func boilerplate(r data.Record) string {
	for _, a := range r.Answers() {
		if p := phrase(head(a, 60)+"\n"+tail(a, 160), phrases); p != "" {
			return fmt.Sprintf("%q", p)
		}
	}
	return ""
}

func phrase(text string, list []string) string {
	text = strings.ReplaceAll(strings.ToLower(text), "’", "'")
	for _, p := range list {
		if strings.Contains(text, p) {
			return p
		}
	}
	return ""
}

func head(s string, n int) string {
	for i := range s {
		if n--; n < 0 {
			return s[:i]
		}
	}
	return s
}

func tail(s string, n int) string {
	r := []rune(s)
	return string(r[max(0, len(r)-n):])
}

// truncated judges the last answer alone, and only where it is long: short answers are names, numbers and labels. Lists
// and lines of verse end without a mark, so what counts is a long last line.
func truncated(r data.Record) string {
	answers := r.Answers()
	if len(answers) == 0 || r.Kind == data.Segmented {
		return ""
	}
	a := strings.TrimSpace(answers[len(answers)-1])
	if strings.Count(a, "```")%2 == 1 {
		return "a block of code is not closed"
	}
	last := a[strings.LastIndexByte(a, '\n')+1:]
	if utf8.RuneCountInString(a) < 200 || utf8.RuneCountInString(last) < 60 || strings.HasSuffix(a, "```") {
		return ""
	}
	if end, _ := utf8.DecodeLastRuneInString(a); unicode.IsLetter(end) || strings.ContainsRune(",，、;；([（-", end) {
		return fmt.Sprintf("ends with %q", tail(a, 30))
	}
	return ""
}

func repetition(r data.Record) string {
	for _, a := range r.Answers() {
		m := quality.Measure(a)
		if m.Words < 50 && m.Chars < 400 {
			continue
		}
		if m.Words < 50 { // a script without blanks: its lines alone can be compared
			if m.Lines > 0.3 || m.LineChars > 0.2 {
				return "dup_line_frac"
			}
			continue
		}
		if why := m.Repetition(); why != "" {
			return why
		}
	}
	return ""
}

// otherScript compares the scripts of question and answer where both are long enough to tell. Kana and Han are one.
func otherScript(r data.Record) string {
	asked, answered := dominant(r.Asked()), dominant(strings.Join(r.Answers(), "\n"))
	if asked == "" || answered == "" || asked == answered {
		return ""
	}
	return fmt.Sprintf("asked in %s, answered in %s", asked, answered)
}

func dominant(text string) string {
	counts := quality.Scripts(text)
	letters := 0
	for _, n := range counts {
		letters += n
	}
	if letters < 20 {
		return ""
	}
	script := quality.Dominant(counts)
	if script == "Hiragana" || script == "Katakana" {
		return "Han"
	}
	return script
}

// clip shortens a text for a message.
func clip(s string) string {
	if short := head(s, 60); len(short) < len(s) {
		return short + "…"
	}
	return s
}
