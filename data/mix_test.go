package data

import (
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"tunesmith/internal/golden"
)

// temperature is a number, or "inf".
type temperature float64

func (t *temperature) UnmarshalJSON(b []byte) error {
	if string(b) == `"inf"` {
		*t = temperature(math.Inf(1))
		return nil
	}
	return json.Unmarshal(b, (*float64)(t))
}

func TestGoldenMixing(t *testing.T) {
	dir := golden.Dir(t, "multitask")
	var file struct {
		Cases []struct {
			Sizes       []int
			Temperature temperature
			Cap         float64
			Scale       float64
			P           []float64
		}
	}
	golden.JSON(t, filepath.Join(dir, "mixing.json"), &file)
	for _, c := range file.Cases {
		t.Run("", func(t *testing.T) {
			got, err := Mixing{float64(c.Temperature), c.Cap, c.Scale}.Shares(c.Sizes)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range c.P {
				if math.Abs(got[i]-want) > 1e-12 {
					t.Errorf("sizes %v temperature %g cap %g scale %g: share %d is %g, want %g", c.Sizes, c.Temperature, c.Cap, c.Scale, i, got[i], want)
				}
			}
		})
	}
}

func TestGoldenSchedule(t *testing.T) {
	dir := golden.Dir(t, "multitask")
	var file struct {
		Cases []struct {
			Name          string
			P             []float64
			Draws, Counts []int
		}
	}
	golden.JSON(t, filepath.Join(dir, "schedule.json"), &file)
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			s := newSchedule(c.P)
			var draws []int
			for range c.Draws {
				draws = append(draws, s.next())
			}
			if !slices.Equal(draws, c.Draws) || !slices.Equal(s.counts, c.Counts) {
				t.Errorf("draws %v, want %v", draws, c.Draws)
			}
		})
	}
}

func TestMixingRefusesBadNumbers(t *testing.T) {
	for _, m := range []Mixing{{Temperature: -1}, {Temperature: math.NaN()}, {Cap: -1}, {Scale: -1}, {Scale: math.Inf(1)}} {
		if _, err := m.Shares([]int{1, 2}); err == nil {
			t.Errorf("%+v: no error", m)
		}
	}
}
