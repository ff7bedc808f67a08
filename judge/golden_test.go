package judge

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"tunesmith/internal/golden"
)

// tolerance is class E1 in double precision.
const tolerance = 1e-12

func same(t *testing.T, what string, have, want, most float64) {
	t.Helper()
	if !(math.Abs(have-want) <= most*math.Max(1, math.Abs(want))) {
		t.Errorf("%s: want %.15g, have %.15g", what, want, have)
	}
}

func TestGoldenVerdicts(t *testing.T) {
	var file struct {
		Cases []struct {
			Name              string
			Original, Swapped map[string][]float64
			First             float64 `json:"p_A_original"`
			Turned            float64 `json:"p_A_swapped"`
			P                 float64 `json:"p_A"`
			Consistent        bool
			Hard              string  `json:"hard_label"`
			Bias              float64 `json:"position_bias"`
			Entropy           float64
		}
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "rlaif"), "judge.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no case")
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			v := Average(PreferFirst(c.Original["1"], c.Original["2"]), PreferFirst(c.Swapped["1"], c.Swapped["2"]))
			same(t, "p", v.P, c.P, tolerance)
			same(t, "p of the first order", v.First, c.First, tolerance)
			same(t, "p of the second order", v.Swapped, c.Turned, tolerance)
			same(t, "bias", v.Bias, c.Bias, tolerance)
			same(t, "entropy", v.Entropy(), c.Entropy, tolerance)
			if v.Consistent != c.Consistent || v.Hard != c.Hard {
				t.Errorf("want %v and %s, have %v and %s", c.Consistent, c.Hard, v.Consistent, v.Hard)
			}
			// The answers exchanged: the order of the input does not matter.
			w := Average(PreferFirst(c.Swapped["1"], c.Swapped["2"]), PreferFirst(c.Original["1"], c.Original["2"]))
			same(t, "p of B", w.P, 1-v.P, tolerance)
		})
	}
}

func TestGoldenScores(t *testing.T) {
	var file struct {
		Cases []struct {
			Name       string
			LogProbs   []float64 `json:"logprobs_1_to_10"`
			Mass       float64
			Expected   float64
			Normalised float64
		}
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "rlaif"), "score.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no case")
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			expected, normalised, mass := Score(c.LogProbs)
			same(t, "expected", expected, c.Expected, tolerance)
			same(t, "normalised", normalised, c.Normalised, tolerance)
			same(t, "mass", mass, c.Mass, tolerance)
		})
	}
}

func TestGoldenBias(t *testing.T) {
	var file struct {
		Bias []struct {
			Delta, Bias, P float64
			Original       float64 `json:"p_original"`
			Swapped        float64 `json:"p_swapped"`
		}
		Agreement []struct {
			Human       []int
			Original    []int   `json:"judge_original"`
			Swapped     []int   `json:"judge_swapped"`
			Agreement   float64 `json:"agreement"`
			Kappa       float64 `json:"cohen_kappa"`
			Consistency float64 `json:"position_consistency"`
			FirstWins   float64 `json:"first_wins_original"`
		}
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "rlaif"), "bias.json"), &file)
	if len(file.Bias) == 0 || len(file.Agreement) == 0 {
		t.Fatal("no case")
	}
	for i, c := range file.Bias {
		t.Run(fmt.Sprintf("bias %d", i), func(t *testing.T) {
			v := Average(logistic(c.Delta+c.Bias), 1-logistic(c.Delta-c.Bias))
			same(t, "p", v.P, c.P, tolerance)
			same(t, "first order", v.First, c.Original, tolerance)
			same(t, "second order", v.Swapped, c.Swapped, tolerance)
		})
	}
	bools := func(x []int) []bool {
		var out []bool
		for _, v := range x {
			out = append(out, v != 0)
		}
		return out
	}
	for i, c := range file.Agreement {
		t.Run(fmt.Sprintf("agreement %d", i), func(t *testing.T) {
			share, kappa, err := Agreement(bools(c.Human), bools(c.Original))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "share", share, c.Agreement, tolerance)
			same(t, "kappa", kappa, c.Kappa, tolerance)
			both, _, err := Agreement(bools(c.Original), bools(c.Swapped))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "consistency", both, c.Consistency, tolerance)
		})
	}
}

func TestGoldenStatistics(t *testing.T) {
	var c struct {
		Outcomes   []float64
		WinRate    float64            `json:"win_rate"`
		StdErr     float64            `json:"stderr"`
		Rows       [][]int            `json:"bootstrap_first_rows"`
		Means      []float64          `json:"bootstrap_first_means"`
		Interval   []float64          `json:"ci95_percentile_linear"`
		Games      [][]any            `json:"games"`
		Strength   map[string]float64 `json:"bradley_terry_log_strength"`
		EloScale   map[string]float64 `json:"bradley_terry_elo_scale"`
		Elo        map[string]float64 `json:"elo_online_k4_start1000"`
		Controlled struct {
			Difference []float64 `json:"length_difference"`
			Outcome    []float64
			Weights    []float64 `json:"coefficients"`
			Rate       float64   `json:"win_rate_at_equal_length"`
		} `json:"length_controlled"`
	}
	golden.JSON(t, filepath.Join(golden.Dir(t, "evals"), "judge_stats.json"), &c)
	rate, stderr := WinRate(c.Outcomes)
	same(t, "win rate", rate, c.WinRate, tolerance)
	same(t, "standard error", stderr, c.StdErr, tolerance)
	for i, row := range c.Rows {
		same(t, fmt.Sprintf("resampled rate %d", i), resampled(c.Outcomes, row), c.Means[i], tolerance)
	}
	// Other draws than the reference's: the interval agrees within what draws differ by.
	low, high := Interval(c.Outcomes, 0.95, 2000, 1)
	same(t, "lower end", low, c.Interval[0], 0.03)
	same(t, "upper end", high, c.Interval[1], 0.03)
	var games []Game
	for _, g := range c.Games {
		games = append(games, Game{g[0].(string), g[1].(string), g[2].(float64)})
	}
	elo, strength := Elo(games, 4), BradleyTerry(games)
	for name := range c.Strength {
		same(t, "strength of "+name, strength[name], c.Strength[name], 1e-9)
		same(t, "scaled strength of "+name, EloScale(strength[name]), c.EloScale[name], 1e-9)
		same(t, "rating of "+name, elo[name], c.Elo[name], tolerance)
	}
	even, weights := AtEqualLength(c.Controlled.Difference, c.Controlled.Outcome)
	same(t, "rate at equal length", even, c.Controlled.Rate, 1e-9)
	for i, w := range c.Controlled.Weights {
		same(t, fmt.Sprintf("weight %d", i), weights[i], w, 1e-9)
	}
}

// TestConstantJudge: a judge that always says the first says nothing.
func TestConstantJudge(t *testing.T) {
	if v := Average(0.9, 0.9); v.P != 0.5 || v.Consistent || math.Abs(v.Bias-0.8) > 1e-12 || v.Hard != "tie" {
		t.Errorf("have %+v", v)
	}
}
