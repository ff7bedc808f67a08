package ifeval

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tunesmith/internal/golden"
)

func TestGoldenInstructions(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(golden.Dir(t, "evals"), "ifeval*.json"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no golden file: %v", err)
	}
	for _, path := range found {
		var g struct {
			IDs  []string `json:"instruction_ids"`
			Rows []struct {
				IDs      []string `json:"instruction_id_list"`
				Args     []Args   `json:"kwargs"`
				Response string
				Strict   []bool `json:"inst_level_strict_acc"`
				Loose    []bool `json:"inst_level_loose_acc"`
				Error    string
			}
			Strict       float64 `json:"inst_level_strict"`
			Loose        float64 `json:"inst_level_loose"`
			PromptStrict float64 `json:"prompt_level_strict"`
			PromptLoose  float64 `json:"prompt_level_loose"`
		}
		golden.JSON(t, path, &g)
		if diff := cmp.Diff(g.IDs, IDs()); diff != "" {
			t.Errorf("instructions (-want +have):\n%s", diff)
		}
		var all [4][]bool
		for i, r := range g.Rows {
			if r.Error != "" {
				continue // the harness itself could not judge it
			}
			var list []Instruction
			for k, id := range r.IDs {
				list = append(list, Instruction{id, r.Args[k]})
			}
			have, err := Verify(list, r.Response)
			t.Run(fmt.Sprint(filepath.Base(path), "/", i), func(t *testing.T) {
				if err != nil || !slices.Equal(have.Strict, r.Strict) || !slices.Equal(have.Loose, r.Loose) {
					t.Errorf("%v of %q: want %v and loosely %v, have %+v, %v", list, r.Response, r.Strict, r.Loose, have, err)
				}
			})
			all[0], all[1] = append(all[0], have.Strict...), append(all[1], have.Loose...)
			all[2], all[3] = append(all[2], All(have.Strict)), append(all[3], All(have.Loose))
		}
		for k, want := range []float64{g.Strict, g.Loose, g.PromptStrict, g.PromptLoose} {
			n := 0
			for _, ok := range all[k] {
				if ok {
					n++
				}
			}
			if have := float64(n) / float64(len(all[k])); have < want-1e-9 || have > want+1e-9 {
				t.Errorf("share %d: want %v, have %v", k, want, have)
			}
		}
	}
}

func TestSentences(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "One": 1, "One. Two! Three?": 3, "Mr. Brown and Mrs. Green met J. Smith.": 1, "It was 3.5 m. Then it stopped.": 2,
		`He said "stop." Then he left.`: 2, "Wait... and see.": 1, "Wait... The end.": 2, "Items: 1. First 2. Second": 3,
		"He lives in the U.S. He likes it.": 2, "Why?! (Because.) Yes.": 3,
	} {
		if have := Sentences(text); have != want {
			t.Errorf("%q: want %d, have %d", text, want, have)
		}
	}
}

func TestLanguage(t *testing.T) {
	for text, want := range map[string]string{
		"The weather is nice today and we go for a walk.":             "en",
		"Le temps est très beau et nous allons au parc.":              "fr",
		"El tiempo es muy bueno y vamos al parque con los niños.":     "es",
		"O tempo está muito bom e não vamos para casa.":               "pt",
		"Il tempo è molto bello e andiamo al parco con gli amici.":    "it",
		"Pogoda jest bardzo ładna i idziemy do parku.":                "pl",
		"Sää on hyvä ja me menemme puistoon, mutta hän ei tule.":      "fi",
		"Hôm nay thời tiết rất đẹp và chúng tôi đi công viên.":        "vi",
		"Leo hali ya hewa ni nzuri sana na watu wako katika bustani.": "sw",
		"Сегодня очень хорошая погода, и мы идём в парк.":             "ru",
		"Сьогодні дуже гарна погода, і ми йдемо в парк.":              "uk",
		"Днес времето е много хубаво и ние отиваме в парка.":          "bg",
		"الطقس جميل جدا اليوم ونحن نذهب إلى الحديقة.":                 "ar",
		"امروز هوا بسیار خوب است و ما به پارک می رویم.":               "fa",
		"آج موسم بہت اچھا ہے اور ہم پارک میں جا رہے ہیں۔":             "ur",
		"今天天气很好，我们去公园散步吧。":                                            "zh",
		"今日は天気がいいので公園に行きます。":                                          "ja",
		"오늘은 날씨가 아주 좋아서 공원에 갑니다.":                                     "ko",
		"আজ আবহাওয়া খুব ভালো।":                                       "bn",
		"आज मौसम बहुत अच्छा है और हम पार्क जा रहे हैं।":               "hi",
		"आज हवामान खूप छान आहे आणि आम्ही उद्यानात जात आहोत.":          "mr",
	} {
		if have, known := Language(text); have != want || !known {
			t.Errorf("%s: want %s, have %s", text, want, have)
		}
	}
	if _, known := Language("12345 !"); known {
		t.Error("digits have no language")
	}
}

func TestVerifyRefuses(t *testing.T) {
	for _, c := range []struct {
		i    Instruction
		want string
	}{
		{Instruction{ID: "keywords:existance"}, "did you mean keywords:existence"},
		{Instruction{ID: "keywords:existence"}, "want keywords"},
		{Instruction{ID: "length_constraints:number_words", Args: Args{Words: 3, Relation: "more than"}}, "with a relation"},
	} {
		if _, err := Verify([]Instruction{c.i}, "x"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q, have %v", c.want, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("keywords:frequency", `{"keyword":"a(","frequency":1,"relation":"at least"}`, "a( b")
	f.Add("detectable_format:multiple_sections", `{"section_spliter":"[","num_sections":2}`, "[ 1")
	f.Fuzz(func(t *testing.T, id, args, text string) {
		i := Instruction{ID: id}
		if i.Args.UnmarshalJSON([]byte(args)) != nil {
			return
		}
		r, err := Verify([]Instruction{i}, text)
		if err == nil && r.Strict[0] && !r.Loose[0] {
			t.Error("a response that follows strictly follows loosely")
		}
	})
}
