package inspect

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/data"
)

// long is a text of n sentences of made-up words, another for each seed.
func long(seed uint64, n int) string {
	rng := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for range n {
		for w := range 12 {
			if w > 0 {
				b.WriteByte(' ')
			}
			for range 2 + rng.IntN(3) {
				b.WriteByte("bdfgklmnprst"[rng.IntN(12)])
				b.WriteByte("aeiou"[rng.IntN(5)])
			}
		}
		b.WriteString(". ")
	}
	return strings.TrimSpace(b.String())
}

func write(t *testing.T, lines ...string) data.Source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return data.Source{Path: path}
}

func pair(asked, answer string) string {
	line, err := data.Record{Kind: data.Chat, Train: []bool{false, true}, Messages: []data.Message{{Role: "user", Content: asked}, {Role: "assistant", Content: answer}}}.MarshalJSON()
	if err != nil {
		panic(err)
	}
	return string(line)
}

// inspect returns the rules that found something, by line, with the results.
func inspect(t *testing.T, o Options, against []data.Source, s data.Source) (map[int][]string, []Result, *Report) {
	t.Helper()
	x, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l := &data.Ledger{Mode: data.Skip}
	if err := x.Against(against, l); err != nil {
		t.Fatal(err)
	}
	found := map[int][]string{}
	var results []Result
	err = x.Run(t.Context(), []data.Source{s}, l, func(r Result) error {
		for _, f := range r.Findings {
			found[f.Line] = append(found[f.Line], f.Rule)
		}
		results = append(results, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, results, x.Report()
}

func TestRules(t *testing.T) {
	fence := "```go\nfunc main() {\n" + long(1, 3)
	for _, c := range []struct {
		name, asked, answer string
		want                []string
	}{
		{"fine", "What is the capital of France?", "Paris.", nil},
		{"Chinese", "法国的首都是哪里？", "巴黎。", nil},
		{"number", "2+2?", "4", nil},
		{"symbol", "Smile!", "🙂", nil},
		{"empty", "Say nothing", " \n", []string{"empty_answer"}},
		{"refusal", "How old are you?", "As an AI language model, I have no age.", []string{"refusal"}},
		{"refusal with a curly apostrophe", "Help", "I’m sorry, but I can’t do that.", []string{"refusal"}},
		{"Chinese refusal", "你几岁？", "作为一个人工智能，我没有年龄。", []string{"refusal"}},
		{"quotation", "Write a dialogue", long(9, 4) + " Then the robot said: as an AI language model I cannot.", nil},
		{"boilerplate", "What is 1+1?", "2. I hope this helps!", []string{"boilerplate"}},
		{"mojibake", "Say café", "cafÃ©", []string{"mojibake"}},
		{"lost", "Say café", "caf\ufffd", []string{"lost_bytes"}},
		{"control", "Say it", "done\u0007", []string{"control_characters"}},
		{"private", "Whom do I ask?", "Ask a@example.com or 13812345678.", []string{"private"}},
		{"cut", "Tell", long(2, 4) + " And then they went over the hill to the other side of the river where the old", []string{"truncated"}},
		{"cut code", "Code", fence, []string{"truncated"}},
		{"list without full stops", "List", long(3, 4) + "\n- one\n- two", nil},
		{"repeated", "Tell", strings.Repeat("The same again and again without an end in sight. ", 20), []string{"repetition"}},
		{"other script", "Please translate this sentence into Chinese", "请把这句话翻译成中文，谢谢你的帮助，我们明天再见面好吗", []string{"other_script"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, _, _ := inspect(t, Options{}, nil, write(t, pair(c.asked, c.answer)))
			if d := cmp.Diff(c.want, found[1]); d != "" {
				t.Errorf("-want +have:\n%s", d)
			}
		})
	}
}

func TestDuplicatesAndLeaks(t *testing.T) {
	eval := write(t, pair("Which river flows through the old town of the seven bridges in the north country?", long(50, 2)), pair("Who are you?", "Nobody."))
	s := write(t,
		pair("q1", long(1, 6)),
		pair("q1", "  "+strings.ToUpper(long(1, 6))), // equal but for case and white space
		pair("q1", long(1, 6)+" One more."),
		pair("q1", long(2, 6)), // another answer
		pair("Please say: which river flows through the old town of the seven bridges in the north country? Thanks.", "The Arn."),
		pair("who are YOU", "Somebody."),
		pair("q2", "As an AI language model I pass."),
		pair("q2", "Fine."),
		pair("q2", "fine."),
	)
	found, results, report := inspect(t, Options{Cover: 0.5}, []data.Source{eval}, s)
	want := map[int][]string{2: {"exact_duplicate"}, 3: {"near_duplicate"}, 4: {"other_answer"}, 5: {"leakage"}, 6: {"leakage"}, 7: {"refusal"}, 9: {"exact_duplicate"}}
	if d := cmp.Diff(want, found); d != "" {
		t.Errorf("-want +have:\n%s", d)
	}
	if results[7].Dropped || report.Kept != 3 || report.Dropped != 6 || report.Found("leakage") != 2 {
		t.Errorf("a dropped record hides a good one, or counts are wrong: %+v", report)
	}
	// What was cleaned is clean.
	var lines []string
	for _, r := range results {
		if !r.Dropped {
			line, err := r.Record.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, string(line))
		}
	}
	if _, _, again := inspect(t, Options{Cover: 0.5}, []data.Source{eval}, write(t, lines...)); again.Dropped != 0 {
		t.Errorf("a second pass drops %d", again.Dropped)
	}
}

func TestMend(t *testing.T) {
	_, results, report := inspect(t, Options{Actions: map[string]Action{"private": Mend, "boilerplate": Drop}}, nil, write(t,
		pair("Say cafÃ© to a@example.com", "cafÃ©\u0007"), pair("x", "y. I hope this helps!")))
	m := results[0].Record.Messages
	if m[0].Content != "Say café to [EMAIL]" || m[1].Content != "café" || !results[0].Mended || report.Mended != 1 || !results[1].Dropped {
		t.Errorf("have %+v", results)
	}
}

// fixed renders every record alike.
type fixed data.Example

func (f fixed) Render(data.Record) (data.Example, []string, error) {
	if len(f.IDs) == 0 {
		return data.Example{}, nil, errors.New("refused")
	}
	return data.Example(f), nil, nil
}

func TestTokenRules(t *testing.T) {
	s := write(t, pair("a", "b"))
	for _, c := range []struct {
		example data.Example
		want    []string
	}{
		{data.Example{IDs: []int32{1, 2, 3}, Train: []bool{false, true, true}}, nil},
		{data.Example{IDs: []int32{1, 2, 4}, Train: []bool{false, true, true}}, []string{"no_end_token"}},
		{data.Example{IDs: []int32{1, 2, 3}, Train: []bool{false, false, false}}, []string{"no_trained_token"}},
		{data.Example{IDs: []int32{1, 2, 1, 1, 3}, Train: []bool{false, true, true, true, true}}, []string{"too_long"}},
		{data.Example{}, []string{"unrendered"}},
	} {
		found, _, report := inspect(t, Options{Render: fixed(c.example), Ends: []int32{3}, Limit: 4, Sample: 2}, nil, s)
		if d := cmp.Diff(c.want, found[1]); d != "" {
			t.Errorf("%v: -want +have:\n%s", c.example, d)
		}
		if want := min(1, len(c.example.IDs)); len(report.Examples) != want {
			t.Errorf("want %d examples, have %d", want, len(report.Examples))
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		"did you mean":     {Actions: map[string]Action{"mojibaks": Drop}},
		"want off, report": {Actions: map[string]Action{"mojibake": "burn"}},
		"cannot be mended": {Actions: map[string]Action{"refusal": Mend}},
		"threshold":        {Threshold: 2},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have %v", want, err)
		}
	}
}
