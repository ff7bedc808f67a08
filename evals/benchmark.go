package evals

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"tunesmith/evals/ifeval"
	"tunesmith/generate"
	"tunesmith/internal/nearest"
	"tunesmith/runs"
	"tunesmith/tune"
)

// Benchmark is a public task that is read from its own files.
type Benchmark struct {
	Name string
	Doc  string
	// Metrics are what an item is scored by; the first is the one that counts.
	Metrics []string
	read    func(doc document) (Item, error)
}

// Item is a question of a benchmark: answers to choose from, or a text to be written and judged.
type Item struct {
	Prompt
	Choices []string
	Gold    int
	Labels  []int
	Answer  string // of an example
	Group   string // examples come from the same group

	Stops []string
	Most  int // tokens of a response
	Judge func(response string) (map[string]float64, error)
}

// document is a line of a file.
type document map[string]any

func (d document) text(keys ...string) string {
	for _, k := range keys {
		if s, ok := d[k].(string); ok {
			return s
		}
	}
	return ""
}

func (d document) list(key string) []string {
	raw, _ := d[key].([]any)
	var out []string
	for _, v := range raw {
		s, ok := v.(string)
		if !ok {
			return nil
		}
		out = append(out, s)
	}
	return out
}

const accuracy = "acc"

// Benchmarks lists the benchmarks that are known, by name.
func Benchmarks() []Benchmark {
	return []Benchmark{
		{"choice", "questions with choices and the number of the right one (query, choices, gold), as ARC, PIQA and HellaSwag", []string{accuracy, "acc_norm", "acc_bytes"}, readChoice},
		{"cmmlu", "Chinese multiple-choice questions by subject (question, choices, answer, subject)", []string{accuracy}, readSubject(
			"以下是关于%s的单项选择题，请直接给出正确答案的选项。\n\n", "答案：", "")},
		{"copa", "which of two sentences is the cause or the effect of a premise, in many languages (XCOPA)", []string{accuracy}, readCOPA},
		{"gsm8k", "grade school mathematics with worked answers (question, answer)", []string{"strict", "flexible"}, readGSM8K},
		{"ifeval", "instructions that a program can check (prompt, instruction_id_list, kwargs)", []string{"prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"}, readIFEval},
		{"mmlu", "multiple-choice questions by subject (question, choices, answer, subject)", []string{accuracy}, readSubject(
			"The following are multiple choice questions (with answers) about %s.\n\n", "Answer:", " ")},
		{"truthfulqa", "questions that people answer wrongly, as TruthfulQA.csv: mc1 and mc2", []string{"mc1", "mc2"}, readTruthful},
	}
}

// FindBenchmark returns a benchmark by name.
func FindBenchmark(name string) (Benchmark, error) {
	var names []string
	for _, b := range Benchmarks() {
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return Benchmark{}, fmt.Errorf("benchmark: want one of %s, have %q%s", strings.Join(names, ", "), name, nearest.Hint(name, names))
}

// Read reads a JSONL or CSV file, packed by gzip or not; every bad line is reported.
func (b Benchmark) Read(path string) ([]Item, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	inner := path
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		defer z.Close()
		r, inner = z, strings.TrimSuffix(path, ".gz")
	}
	documents := jsonLines
	if strings.HasSuffix(inner, ".csv") {
		documents = csvRows
	}
	return b.parse(path, r, documents)
}

func (b Benchmark) parse(path string, r io.Reader, documents func(io.Reader, func(line int, d document, err error)) error) ([]Item, error) {
	var out []Item
	var errs []error
	err := documents(r, func(line int, d document, err error) {
		var item Item
		if err == nil {
			item, err = b.read(d)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", path, line, err))
			return
		}
		out = append(out, item)
	})
	if err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", path, err))
	}
	if len(out) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s: holds no question", path))
	}
	const most = 10
	if more := len(errs) - most; more > 0 {
		errs = append(errs[:most:most], fmt.Errorf("and %d more lines", more))
	}
	return out, errors.Join(errs...)
}

func jsonLines(r io.Reader, each func(int, document, error)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<24)
	for n := 1; lines.Scan(); n++ {
		if text := bytes.TrimSpace(lines.Bytes()); len(text) > 0 {
			var d document
			err := json.Unmarshal(text, &d)
			each(n, d, err)
		}
	}
	return lines.Err()
}

func csvRows(r io.Reader, each func(int, document, error)) error {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = -1
	var head []string
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line, _ := rows.FieldPos(0)
		if head == nil {
			head = row
			head[0] = strings.TrimPrefix(head[0], "\ufeff")
			continue
		}
		d := document{}
		for i, v := range row[:min(len(row), len(head))] {
			d[head[i]] = v
		}
		each(line, d, nil)
	}
}

func readChoice(d document) (Item, error) {
	gold, ok := d["gold"].(float64)
	item := Item{Prompt: Prompt{Question: d.text("query", "question") + "\nAnswer:"}, Choices: d.list("choices"), Gold: int(gold)}
	if d.text("query", "question") == "" || !ok {
		return item, errors.New("want a query, choices and gold, the number of the right one")
	}
	return item, item.check()
}

func (i Item) check() error {
	return Choice{Answers: i.Choices, Gold: i.Gold, Labels: i.Labels}.Validate()
}

// readSubject reads the questions of MMLU and what follows it.
func readSubject(description, answer, delimiter string) func(document) (Item, error) {
	return func(d document) (Item, error) {
		choices := d.list("choices")
		question, subject := d.text("question"), d.text("subject")
		if question == "" || len(choices) == 0 {
			return Item{}, errors.New("want a question, choices, an answer and a subject")
		}
		const letters = "ABCDEFGHIJ"
		gold := strings.Index(letters, d.text("answer"))
		if n, ok := d["answer"].(float64); ok {
			gold = int(n)
		} else if len(d.text("answer")) != 1 {
			gold = -1
		}
		var b strings.Builder
		b.WriteString(strings.TrimSpace(question))
		item := Item{Gold: gold, Group: subject}
		for i, c := range choices[:min(len(choices), len(letters))] {
			fmt.Fprintf(&b, "\n%c. %s", letters[i], c)
			item.Choices = append(item.Choices, letters[i:i+1])
		}
		b.WriteString("\n" + answer)
		item.Prompt = Prompt{Description: fmt.Sprintf(description, strings.ReplaceAll(subject, "_", " ")), Question: b.String()}
		if err := item.check(); err != nil {
			return item, err
		}
		item.Answer = item.Choices[gold]
		return item, nil
	}
}

// readCOPA joins a premise with its cause or effect: in Chinese after a comma, else by the English words.
func readCOPA(d document) (Item, error) {
	premise, label := strings.TrimSpace(d.text("premise")), d["label"]
	gold, ok := label.(float64)
	joint := map[string]string{"cause": "because", "effect": "so"}[d.text("question")]
	a, b := d.text("choice1"), d.text("choice2")
	if premise == "" || !ok || joint == "" || a == "" || b == "" {
		return Item{}, errors.New("want a premise, choice1, choice2, a question (cause or effect) and a label")
	}
	item := Item{Gold: int(gold)}
	if last, ok := strings.CutSuffix(premise, "。"); ok {
		item.Question = last + map[string]string{"because": "，因为", "so": "，所以"}[joint]
		item.Choices = []string{a, b}
		return item, item.check()
	}
	item.Question = strings.TrimRight(premise, ".") + " " + joint
	for _, c := range []string{a, b} {
		first, size := utf8.DecodeRuneInString(c)
		item.Choices = append(item.Choices, string(unicode.ToLower(first))+c[size:])
	}
	return item, item.check()
}

func readGSM8K(d document) (Item, error) {
	question, answer := d.text("question"), d.text("answer")
	right := GSM8KStrict.Extract(answer)
	if question == "" || right == NoAnswer {
		return Item{}, errors.New("want a question, and an answer that ends in #### and a number")
	}
	return Item{
		Prompt: Prompt{Question: "Question: " + question + "\nAnswer:"}, Answer: answer, Stops: []string{"Question:", "</s>", "<|im_end|>"}, Most: 256,
		Judge: func(response string) (map[string]float64, error) {
			out := map[string]float64{}
			for name, e := range map[string]Extraction{"strict": GSM8KStrict, "flexible": GSM8KFlexible} {
				equal, err := GSM8KMatch.Equal(e.Extract(response), answer)
				if err != nil {
					return nil, err
				}
				out[name] = number(equal)
			}
			return out, nil
		},
	}, nil
}

func number(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}

func readIFEval(d document) (Item, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return Item{}, err
	}
	var row struct {
		Prompt string        `json:"prompt"`
		IDs    []string      `json:"instruction_id_list"`
		Args   []ifeval.Args `json:"kwargs"`
	}
	if err := json.Unmarshal(text, &row); err != nil {
		return Item{}, err
	}
	if row.Prompt == "" || len(row.IDs) == 0 || len(row.IDs) != len(row.Args) {
		return Item{}, errors.New("want a prompt, an instruction_id_list and as many kwargs")
	}
	var list []ifeval.Instruction
	for i, id := range row.IDs {
		list = append(list, ifeval.Instruction{ID: id, Args: row.Args[i]})
		if err := list[i].Validate(); err != nil {
			return Item{}, err
		}
	}
	return Item{Prompt: Prompt{Question: row.Prompt}, Most: 1280, Judge: func(response string) (map[string]float64, error) {
		r, err := ifeval.Verify(list, response)
		out := map[string]float64{"prompt_strict": number(ifeval.All(r.Strict)), "prompt_loose": number(ifeval.All(r.Loose))}
		for i := range r.Strict {
			out["instruction_strict"] += number(r.Strict[i]) / float64(len(r.Strict))
			out["instruction_loose"] += number(r.Loose[i]) / float64(len(r.Loose))
		}
		return out, err
	}}, nil
}

// readTruthful reads a row of TruthfulQA.csv. The best answer is that of mc1; mc2 takes all right and wrong ones.
func readTruthful(d document) (Item, error) {
	split := func(s string) (out []string) {
		for _, x := range strings.Split(s, ";") {
			if x = strings.TrimSpace(x); x != "" {
				out = append(out, x)
			}
		}
		return out
	}
	question, best := d.text("Question"), strings.TrimSpace(d.text("Best Answer"))
	right, wrong := split(d.text("Correct Answers")), split(d.text("Incorrect Answers"))
	if question == "" || best == "" || len(right) == 0 || len(wrong) == 0 {
		return Item{}, errors.New("want Question, Best Answer, Correct Answers and Incorrect Answers")
	}
	// The best answer stands first, for mc1; labels leave it out where it is one of the right ones in other words.
	item := Item{Prompt: Prompt{Question: "Q: " + question + "\nA:"}, Answer: best, Choices: []string{best}, Labels: []int{0}}
	for _, x := range right {
		item.Choices, item.Labels = append(item.Choices, x), append(item.Labels, 1)
	}
	for _, x := range wrong {
		item.Choices, item.Labels = append(item.Choices, x), append(item.Labels, -1)
	}
	return item, nil
}

// Measure is a metric over the items of a benchmark.
type Measure struct {
	Metric string      `json:"metric"`
	Mean   float64     `json:"mean"`
	Stderr runs.Number `json:"stderr"` // NaN of a single item
	Items  int         `json:"items"`
	Values []float64   `json:"-"`
}

// Taker takes benchmarks with one model.
type Taker struct {
	Ranker    *Ranker
	Generator *generate.Generator
	Text      tune.Text
	Style     Style
	Special   bool // as of the ranker
	// Progress, where it is set, is told how many items are done.
	Progress func(done, all int)
}

// Take scores items, each after the first shots of its group among the examples.
func (t Taker) Take(ctx context.Context, b Benchmark, items, examples []Item, shots int) ([]Measure, error) {
	values := map[string][]float64{}
	for i, item := range items {
		for _, e := range examples {
			if len(item.Shots) < shots && e.Group == item.Group {
				item.Shots = append(item.Shots, Shot{e.Question, e.Answer})
			}
		}
		if len(item.Shots) < shots {
			return nil, fmt.Errorf("item %d: want %d examples of %s, have %d", i+1, shots, cmp.Or(item.Group, b.Name), len(item.Shots))
		}
		scores, err := t.take(ctx, item)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		for k, v := range scores {
			values[k] = append(values[k], v)
		}
		if t.Progress != nil {
			t.Progress(i+1, len(items))
		}
	}
	var out []Measure
	for _, m := range b.Metrics {
		mean, stderr := Mean(values[m])
		out = append(out, Measure{m, mean, runs.Number(stderr), len(items), values[m]})
	}
	return out, nil
}

func (t Taker) take(ctx context.Context, item Item) (map[string]float64, error) {
	text, delimiter, err := item.Render(t.Text, t.Style)
	if err != nil {
		return nil, err
	}
	if item.Judge != nil {
		response, err := Continue(ctx, t.Generator, t.Text, text, t.Special && !t.Style.Chat, item.Most, item.Stops)
		if err != nil {
			return nil, err
		}
		return item.Judge(response)
	}
	if last := item.Question; strings.HasSuffix(last, "：") || strings.HasSuffix(last, "因为") || strings.HasSuffix(last, "所以") {
		delimiter = "" // Chinese writes no space
	}
	c := Choice{Context: text, Gold: item.Gold}
	for _, a := range item.Choices {
		c.Answers = append(c.Answers, delimiter+a)
	}
	chosen, err := t.Ranker.Choose(ctx, c, false)
	if err != nil {
		return nil, err
	}
	if item.Labels != nil {
		return chosen.truthful(item.Labels), nil
	}
	return map[string]float64{accuracy: chosen.Accuracy(), "acc_norm": chosen.PerCharacter(), "acc_bytes": chosen.PerByte()}, nil
}

// truthful scores the answers of readTruthful.
func (c Chosen) truthful(labels []int) map[string]float64 {
	one, two := Chosen{}, Chosen{}
	for i, l := range labels {
		if l != 1 {
			one.Sums = append(one.Sums, c.Sums[i])
		}
		if l != 0 {
			two.Sums, two.Labels = append(two.Sums, c.Sums[i]), append(two.Labels, max(l, 0))
		}
	}
	return map[string]float64{"mc1": one.Accuracy(), "mc2": two.Truthful()}
}

// Names returns the names of benchmarks.
func Names(list []Benchmark) []string {
	var out []string
	for _, b := range list {
		out = append(out, b.Name)
	}
	slices.Sort(out)
	return out
}
