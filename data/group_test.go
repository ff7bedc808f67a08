package data

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sequenceOf(given, trained int, first int32) Example {
	e := Example{Weight: 1}
	for i := range given + trained {
		e.IDs, e.Train = append(e.IDs, first+int32(i)), append(e.Train, i >= given)
	}
	return e
}

// TestPairsStayTogether: what is joined comes back in rows that follow each other, with its label, whatever the order.
func TestPairsStayTogether(t *testing.T) {
	s := NewStore("", 1<<20)
	for i := range 5 {
		e := Join(sequenceOf(2, 3, int32(100*i+1)), sequenceOf(2, i+1, int32(100*i+51)))
		e.Label, e.Margin = 1, float32(i)
		if err := s.Add(e); err != nil {
			t.Fatal(err)
		}
		back, err := s.Example(i)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Error(diff)
		}
	}
	if s.Sequences() != 2 || s.Widest() != 7 {
		t.Errorf("have %d sequences, the widest %d", s.Sequences(), s.Widest())
	}
	if err := s.Add(sequenceOf(1, 1, 1)); err == nil {
		t.Error("an example of one sequence is taken among pairs")
	}
	l, err := NewLoader(s, LoaderConfig{BatchSize: 2, Shuffle: true, GroupByLength: true, Multiple: 4})
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		step, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		b := step[0]
		if b.Sequences != 2 || b.Rows != 2*len(b.Labels) || len(b.Tasks) != b.Rows {
			t.Fatalf("have %d rows of %d sequences, %d labels", b.Rows, b.Sequences, len(b.Labels))
		}
		for i := range b.Margins {
			number := int32(b.Margins[i])
			if b.IDs[2*i*b.Cols] != 100*number+1 || b.IDs[(2*i+1)*b.Cols] != 100*number+51 {
				t.Errorf("the rows of example %d begin with %d and %d", number, b.IDs[2*i*b.Cols], b.IDs[(2*i+1)*b.Cols])
			}
		}
	}
	if _, err := NewLoader(s, LoaderConfig{BatchSize: 2, Packing: BestFit, RowLength: 16}); err == nil || !strings.Contains(err.Error(), "choose packing none") {
		t.Errorf("have %v", err)
	}
}

// TestFitPairs: each sequence is cut for itself, and one that keeps nothing to train takes the pair with it.
func TestFitPairs(t *testing.T) {
	pair := Join(sequenceOf(3, 5, 1), sequenceOf(3, 2, 51))
	pair.Label = 1
	out, p := Fit(pair, 6, KeepStart)
	if len(out) != 1 || p == nil || p.Level != Cut {
		t.Fatalf("have %d examples, %v", len(out), p)
	}
	if got := out[0].Sequences(); len(got[0].IDs) != 6 || len(got[1].IDs) != 5 || out[0].Label != 1 {
		t.Errorf("have %+v", out[0])
	}
	for _, o := range []Overlength{KeepStart, RefuseLong, DropLong} {
		if out, p := Fit(pair, 3, o); len(out) != 0 || p == nil || !strings.HasPrefix(p.Reason, "sequence 1 of 2: ") {
			t.Errorf("%v: have %d examples, %v", o, len(out), p)
		}
	}
	if out, p := Fit(pair, 6, SplitLong); len(out) != 0 || p == nil || !strings.Contains(p.Reason, "cannot be split") {
		t.Errorf("have %d examples, %v", len(out), p)
	}
	if out, p := Fit(pair, 8, RefuseLong); len(out) != 1 || p != nil {
		t.Errorf("have %d examples, %v", len(out), p)
	}
}
