package inspect

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"tunesmith/data"
)

//go:embed report.html.tmpl
var pageText string

var page = template.Must(template.New("data").Parse(pageText))

// labels are the words of the page that are not English.
var labels = map[string]string{
	"Data report": "数据报告", "records": "条记录", "kept": "保留", "mended": "修复", "dropped": "删除", "unreadable": "无法读取",
	"Rules": "规则", "rule": "规则", "what it finds": "含义", "action": "动作", "examples": "示例", "report": "报告", "mend": "修复", "drop": "删除", "off": "关闭",
	"Lengths": "长度", "messages of a conversation": "每个对话的消息数", "characters of the question": "问题的字符数", "characters of the answers": "回答的字符数",
	"tokens of an example": "每个样本的词元数", "trained tokens of an example": "每个样本中被训练的词元数",
	"median": "中位数", "up to": "以内", "longest": "最长", "Scripts": "文字", "letters": "字母数", "share": "占比", "Kinds": "类型",
	"What is trained": "训练内容", "trained": "训练", "given": "给定", "tokens": "词元", "Problems of reading": "读取问题", "none": "无",
	"of the tokens are trained": "的词元被训练", "hover over a token for its id": "鼠标悬停可见词元编号",
}

// view is what the page shows.
type view struct {
	*Report
	Lang     string
	Title    string
	Previews []preview
}

// preview is an example as coloured tokens.
type preview struct {
	Place   string
	Trained int
	Tokens  []data.Token
}

// HTML writes the report as one page that needs nothing else. text gives the bytes of a token, for the examples; lang is
// en or zh.
func (r *Report) HTML(w io.Writer, title, lang string, text func(id int32) string) error {
	v := view{Report: r, Lang: lang, Title: title}
	for _, e := range r.Examples {
		v.Previews = append(v.Previews, preview{e.Pos.String(), e.Supervised(), readable(data.Preview(e, text))})
	}
	if err := page.Execute(w, v); err != nil {
		return fmt.Errorf("data report: %w", err)
	}
	return nil
}

// readable makes the text of every token valid: the bytes of a character that several tokens share are shown with the
// last of them.
func readable(tokens []data.Token) []data.Token {
	pending := ""
	for i := range tokens {
		pending += tokens[i].Text
		n := len(pending)
		for k := 1; k <= min(3, len(pending)); k++ { // a character that has begun and not ended
			if c := pending[len(pending)-k]; utf8.RuneStart(c) {
				if !utf8.FullRuneInString(pending[len(pending)-k:]) && i+1 < len(tokens) {
					n = len(pending) - k
				}
				break
			}
		}
		tokens[i].Text, pending = strings.ToValidUTF8(pending[:n], "\ufffd"), pending[n:]
	}
	return tokens
}

// T returns a label in the page's language.
func (v view) T(word string) string {
	if t, ok := labels[word]; ok && v.Lang == "zh" {
		return t
	}
	return word
}

// Doc explains a rule in the page's language.
func (v view) Doc(rule string) string {
	r, _ := find(rule)
	if v.Lang == "zh" {
		return r.Chinese
	}
	return r.Doc
}

// chart is a histogram.
type chart struct {
	Title string
	data.Spread
	Bars []bar
}

// bar is a bucket of a histogram.
type bar struct {
	Label        string
	Count        int
	X, Y, Height float64
}

// Size of a histogram's drawing.
const (
	barWidth  = 32
	barHeight = 90
)

// Charts returns the histograms of what was measured.
func (v view) Charts() []chart {
	var out []chart
	add := func(title string, s *data.Spread) {
		if s == nil || s.Max == 0 {
			return
		}
		c := chart{Title: v.T(title), Spread: *s}
		most := slices.Max(s.Buckets)
		for i, n := range s.Buckets {
			label := "0"
			if i > 0 {
				label = fmt.Sprint(1 << (i - 1))
			}
			h := barHeight * float64(n) / float64(most)
			if n > 0 {
				h = max(h, 1)
			}
			c.Bars = append(c.Bars, bar{label, n, float64(i * barWidth), barHeight - h, h})
		}
		out = append(out, c)
	}
	add("tokens of an example", v.Tokens)
	add("trained tokens of an example", v.Trained)
	add("messages of a conversation", &v.Turns)
	add("characters of the question", &v.Report.Asked)
	add("characters of the answers", &v.Report.Answers)
	return out
}

// Width is that of a histogram's drawing.
func (c chart) Width() int { return len(c.Bars) * barWidth }

// share is a name with its part of a whole.
type share struct {
	Name    string
	Count   int
	Percent float64
}

// Shares sorts counts by size.
func (v view) Shares(counts map[string]int) []share {
	sum := 0
	for _, n := range counts {
		sum += n
	}
	var out []share
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, share{name, counts[name], 100 * float64(counts[name]) / float64(max(1, sum))})
	}
	slices.SortStableFunc(out, func(a, b share) int { return cmp.Compare(b.Count, a.Count) })
	return out
}

// TrainedShare is the percentage of the tokens that is trained.
func (v view) TrainedShare() string {
	return fmt.Sprintf("%.1f %%", 100*float64(v.TrainedSum)/float64(max(1, v.Sum)))
}

// First returns the first problems of reading.
func (v view) First() []data.Problem { return v.Problems[:min(len(v.Problems), 50)] }

// Place is where an example of a finding stands.
func (f Finding) Place() string { return f.Position.String() }
