package overlap

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"tunesmith/internal/golden"
)

func near(have, want float64) bool { return math.Abs(have-want) <= 1e-9*(1+math.Abs(want)) }

func TestGoldenOverlap(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(golden.Dir(t, "evals"), "overlap*.json"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no golden file: %v", err)
	}
	for _, path := range found {
		var g struct {
			Rows []struct {
				Prediction, Reference  string
				BLEU                   float64 `json:"bleu_sentence"`
				ChrF                   float64 `json:"chrf_sentence"`
				Zh                     float64 `json:"bleu_zh_sentence"`
				Rouge1, Rouge2, RougeL [3]float64
				RougeLSum              [3]float64 `json:"rougeLsum"`
				Stem1                  [3]float64 `json:"rouge1_stem"`
				StemL                  [3]float64 `json:"rougeL_stem"`
			}
			BLEU       float64    `json:"corpus_bleu"`
			Precisions [4]float64 `json:"corpus_bleu_precisions"`
			Brevity    float64    `json:"corpus_bleu_bp"`
			ChrF       float64    `json:"corpus_chrf"`
			TER        float64    `json:"corpus_ter"`
		}
		golden.JSON(t, path, &g)
		var all []Pair
		for i, r := range g.Rows {
			p := Pair{r.Prediction, r.Reference}
			all = append(all, p)
			t.Run(fmt.Sprint(filepath.Base(path), "/", i), func(t *testing.T) {
				one := []Pair{p}
				for _, c := range []struct {
					name       string
					have, want float64
				}{{"BLEU", SentenceBLEU(p, Western).Score, r.BLEU}, {"BLEU zh", SentenceBLEU(p, Chinese).Score, r.Zh}, {"chrF", ChrF(one), r.ChrF}} {
					if !near(c.have, c.want) {
						t.Errorf("%s: want %v, have %v", c.name, c.want, c.have)
					}
				}
				for _, c := range []struct {
					name string
					have F
					want [3]float64
				}{
					{"rouge1", RougeN(p, 1, false), r.Rouge1},
					{"rouge2", RougeN(p, 2, false), r.Rouge2},
					{"rougeL", RougeL(p, false), r.RougeL},
					{"rougeLsum", RougeLSum(p, false), r.RougeLSum},
					{"rouge1 stemmed", RougeN(p, 1, true), r.Stem1},
					{"rougeL stemmed", RougeL(p, true), r.StemL},
				} {
					if !near(c.have.Precision, c.want[0]) || !near(c.have.Recall, c.want[1]) || !near(c.have.F, c.want[2]) {
						t.Errorf("%s: want %v, have %v", c.name, c.want, c.have)
					}
				}
			})
		}
		t.Run(filepath.Base(path)+"/corpus", func(t *testing.T) {
			b := NewBLEU(all, Western)
			if !near(b.Score, g.BLEU) || !near(b.Brevity, g.Brevity) {
				t.Errorf("want BLEU %v, have %+v", g.BLEU, b)
			}
			for i, p := range b.Precisions {
				if !near(p, g.Precisions[i]) {
					t.Errorf("precision %d: want %v, have %v", i+1, g.Precisions[i], p)
				}
			}
			if have := ChrF(all); !near(have, g.ChrF) {
				t.Errorf("chrF: want %v, have %v", g.ChrF, have)
			}
			if have := TER(all); !near(have, g.TER) {
				t.Errorf("TER: want %v, have %v", g.TER, have)
			}
		})
	}
}

func TestStem(t *testing.T) {
	for word, want := range map[string]string{ // from Porter's paper and the extensions
		"caresses": "caress", "ponies": "poni", "ties": "tie", "cats": "cat", "feed": "feed", "agreed": "agre", "plastered": "plaster",
		"motoring": "motor", "conflated": "conflat", "hopping": "hop", "falling": "fall", "hissing": "hiss", "failing": "fail", "filing": "file",
		"happy": "happi", "sky": "sky", "enjoy": "enjoy", "relational": "relat", "conditional": "condit", "digitizer": "digit",
		"radically": "radic", "triplicate": "triplic", "hopefulness": "hope", "revival": "reviv", "adoption": "adopt", "homologous": "homolog",
		"rate": "rate", "controlling": "control", "rolling": "roll", "running": "run", "died": "die", "geology": "geolog", "opinion": "opinion",
	} {
		if have := Stem(word); have != want {
			t.Errorf("%s: want %s, have %s", word, want, have)
		}
	}
}

func TestShifts(t *testing.T) {
	// One shift of two words and one substitution of eight words.
	p := Pair{"a saudi arabia this week denied information published", "a this week saudi arabia denied information reported"}
	if have := TER([]Pair{p}); have != 25 {
		t.Errorf("want 2 edits of 8 words, have %v %%", have)
	}
}
