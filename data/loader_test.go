package data

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawExamples makes examples whose ids tell them apart: id = 1000·example + position.
func drawExamples(t *rapid.T) []Example {
	n := rapid.IntRange(1, 60).Draw(t, "examples")
	out := make([]Example, n)
	for i := range out {
		length := rapid.IntRange(1, 40).Draw(t, "length")
		e := Example{Weight: float32(i%3) / 2, Task: fmt.Sprint("task", i%2), Pos: Position{File: "f", Line: i + 1, Record: i + 1}}
		for j := range length {
			e.IDs = append(e.IDs, int32(1000*i+j))
			e.Train = append(e.Train, rapid.Bool().Draw(t, "train"))
		}
		out[i] = e
	}
	return out
}

func fill(t interface{ Fatal(...any) }, s *Store, examples []Example) *Store {
	for _, e := range examples {
		if err := s.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func drawConfig(t *rapid.T) LoaderConfig {
	c := LoaderConfig{
		BatchSize:  rapid.IntRange(1, 7).Draw(t, "batch"),
		Accumulate: rapid.IntRange(1, 3).Draw(t, "accumulate"),
		Packing:    rapid.SampledFrom([]Packing{NoPacking, BestFit, BestFitSplit, Wrapped}).Draw(t, "packing"),
		Shuffle:    rapid.Bool().Draw(t, "shuffle"),
		Seed:       rapid.Uint64().Draw(t, "seed"),
		Multiple:   rapid.SampledFrom([]int{1, 8, 32}).Draw(t, "multiple"),
		RowLength:  rapid.IntRange(40, 80).Draw(t, "row"),
	}
	c.GroupByLength = c.Packing == NoPacking && rapid.Bool().Draw(t, "grouped")
	return c
}

func TestStoreKeepsExamples(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		examples := drawExamples(t)
		inMemory := fill(t, NewStore("", 0), examples)
		onDisk := fill(t, NewStore(filepath.Join(dir, "examples.bin"), rapid.IntRange(0, 2000).Draw(t, "limit")), examples)
		defer onDisk.Close()
		temporary := fill(t, NewTempStore(rapid.IntRange(0, 2000).Draw(t, "limit of the temporary store")), examples)
		defer temporary.Close()
		if inMemory.Digest() != onDisk.Digest() {
			t.Fatal("digests differ")
		}
		for i, want := range examples {
			for _, s := range []*Store{inMemory, onDisk, temporary} {
				got, err := s.Example(i)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("example %d (-want +got):\n%s", i, diff)
				}
				if s.Tokens(i) != len(want.IDs) || s.Supervised(i) != want.Supervised() || s.Task(i) != want.Task {
					t.Fatalf("example %d: index differs", i)
				}
			}
		}
	})
}

// Every token of every example comes once in an epoch, whatever the batches, and a target is the next token of the
// same example.
func TestLoaderGivesEachTokenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		examples := drawExamples(t)
		c := drawConfig(t)
		l, err := NewLoader(fill(t, NewStore("", 0), examples), c)
		if err != nil {
			t.Fatal(err)
		}
		for epoch := range 2 {
			seen := map[int32]int{}
			for range l.Steps() {
				step, err := l.Next()
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range step {
					if b.Cols%c.Multiple != 0 {
						t.Fatalf("width %d is no multiple of %d", b.Cols, c.Multiple)
					}
					tokens, supervised := 0, 0
					for at, id := range b.IDs {
						segment := b.Segments[at]
						if segment < 0 {
							if id != c.PadID || b.Targets[at] != -1 || b.Weights[at] != 0 {
								t.Fatalf("padding holds id %d target %d weight %g", id, b.Targets[at], b.Weights[at])
							}
							continue
						}
						tokens++
						seen[id]++
						e := b.Examples[at/b.Cols][segment]
						if int(id)/1000 != e {
							t.Fatalf("id %d in segment of example %d", id, e)
						}
						if target := b.Targets[at]; target >= 0 {
							supervised++
							if target != id+1 || !examples[e].Train[target%1000] || b.Weights[at] != examples[e].Weight {
								t.Fatalf("target %d after id %d weight %g", target, id, b.Weights[at])
							}
							if b.Segments[at+1] != segment || b.Positions[at+1] != b.Positions[at]+1 {
								t.Fatalf("target %d is in another sequence", target)
							}
						}
					}
					if tokens != b.Tokens || supervised != b.Supervised {
						t.Fatalf("counts %d %d, want %d %d", b.Tokens, b.Supervised, tokens, supervised)
					}
				}
			}
			for i, e := range examples {
				for _, id := range e.IDs {
					if seen[id] != 1 {
						t.Fatalf("epoch %d: id %d of example %d seen %d times", epoch, id, i, seen[id])
					}
				}
			}
			if l.Epoch() != float64(epoch+1) {
				t.Fatalf("epoch %g after %d", l.Epoch(), epoch+1)
			}
		}
	})
}

func TestLoaderResumesExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		examples := drawExamples(t)
		c := drawConfig(t)
		straight, err := NewLoader(fill(t, NewStore("", 0), examples), c)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			if _, err := straight.Next(); err != nil {
				t.Fatal(err)
			}
		}
		saved, err := json.Marshal(straight.State())
		if err != nil {
			t.Fatal(err)
		}
		var state State
		if err := json.Unmarshal(saved, &state); err != nil {
			t.Fatal(err)
		}
		resumed, err := NewLoader(fill(t, NewStore("", 0), examples), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := resumed.Restore(state); err != nil {
			t.Fatal(err)
		}
		for range 2 * straight.Steps() {
			a, err1 := straight.Next()
			b, err2 := resumed.Next()
			if diff := cmp.Diff(a, b); diff != "" || err1 != nil || err2 != nil {
				t.Fatalf("batches differ: %v %v\n%s", err1, err2, diff)
			}
		}
	})
}

// In a mixture each task gets its share of any stretch of rows, and all its rows come before one comes again.
func TestMixture(t *testing.T) {
	sizes, shares := []int{300, 100, 7}, []float64{0.5, 0.3, 0.2}
	var tasks []Task
	for i, n := range sizes {
		s := NewStore("", 0)
		for j := range n {
			fill(t, s, []Example{{IDs: []int32{int32(i), int32(j)}, Train: []bool{false, true}, Weight: 2}})
		}
		tasks = append(tasks, Task{Store: s, Share: shares[i], Weight: float32(i)})
	}
	c := LoaderConfig{BatchSize: 10, Shuffle: true, Multiple: 2}
	l, err := NewMixture(tasks, c)
	if err != nil {
		t.Fatal(err)
	}
	for i, passes := range l.Passes() {
		if want := 407 * shares[i] / float64(sizes[i]); math.Abs(passes-want) > 1e-12 {
			t.Errorf("task %d: %g passes, want %g", i, passes, want)
		}
	}
	var seen [3][]int32
	for range 3 * l.Steps() {
		step, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		var counts [3]int
		for r, task := range step[0].Tasks {
			if step[0].IDs[2*r] != int32(task) || step[0].Weights[2*r] != float32(2*task) {
				t.Fatalf("row of task %d: ids %v weights %v", task, step[0].IDs[2*r:2*r+2], step[0].Weights[2*r:2*r+2])
			}
			counts[task]++
			seen[task] = append(seen[task], step[0].Targets[2*r])
		}
		for i, n := range counts {
			if want := shares[i] * float64(step[0].Rows); math.Abs(float64(n)-want) > 2 {
				t.Errorf("%d of %d rows are of task %d, want %g", n, step[0].Rows, i, want)
			}
		}
	}
	for i, rows := range seen {
		for pass := range slices.Chunk(rows, sizes[i]) {
			slices.Sort(pass)
			if len(slices.Compact(pass)) != len(pass) {
				t.Errorf("task %d: a row comes again before all have come", i)
			}
		}
	}
	resumed, err := NewMixture(tasks, c)
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if _, err := resumed.Next(); err != nil { // ends in epoch 1, before the state
			t.Fatal(err)
		}
	}
	for range 2 {
		state := l.State()
		a, err1 := l.Next()
		if err := resumed.Restore(state); err != nil {
			t.Fatal(err)
		}
		b, err2 := resumed.Next()
		if diff := cmp.Diff(a, b); diff != "" || err1 != nil || err2 != nil {
			t.Fatalf("batches differ: %v %v\n%s", err1, err2, diff)
		}
		if err := l.Restore(State{Epoch: 0, Batch: 5, Digest: state.Digest}); err != nil { // back in time
			t.Fatal(err)
		}
	}
}

func TestLoaderRefusesForeignState(t *testing.T) {
	examples := []Example{{IDs: []int32{1, 2}, Train: []bool{false, true}, Weight: 1}, {IDs: []int32{3, 4}, Train: []bool{false, true}, Weight: 1}}
	c := LoaderConfig{BatchSize: 1, Shuffle: true}
	a, err := NewLoader(fill(t, NewStore("", 0), examples), c)
	if err != nil {
		t.Fatal(err)
	}
	c.Seed = 1
	b, err := NewLoader(fill(t, NewStore("", 0), examples), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Restore(a.State()); err == nil {
		t.Error("another seed is accepted")
	}
	s := a.State()
	s.Batch = 3
	if err := a.Restore(s); err == nil {
		t.Error("a batch past the epoch is accepted")
	}
}

func TestLoaderRefusesBadConfigs(t *testing.T) {
	store := fill(t, NewStore("", 0), []Example{{IDs: make([]int32, 50), Train: make([]bool, 50)}})
	for _, c := range []LoaderConfig{
		{},
		{BatchSize: 1, Accumulate: -1},
		{BatchSize: 1, Multiple: -1},
		{BatchSize: 1, Packing: BestFit},
		{BatchSize: 1, Packing: BestFit, RowLength: 49},
		{BatchSize: 1, Packing: Wrapped, RowLength: 64, GroupByLength: true},
	} {
		if _, err := NewLoader(store, c); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
	if _, err := NewLoader(NewStore("", 0), LoaderConfig{BatchSize: 1}); err == nil {
		t.Error("no examples: no error")
	}
}

// The order is part of a run: if this changes, runs that are resumed change.
func TestPermutationIsFixed(t *testing.T) {
	if got, want := permutation(8, 42, 0), []int32{3, 1, 2, 4, 5, 0, 7, 6}; !slices.Equal(got, want) {
		t.Errorf("seed 42 epoch 0: %v, want %v", got, want)
	}
	seen := map[string]bool{}
	for epoch := range uint64(20) {
		p := permutation(50, 7, epoch)
		seen[fmt.Sprint(p)] = true
		slices.Sort(p)
		for i, v := range p {
			if int(v) != i {
				t.Fatalf("epoch %d is no permutation", epoch)
			}
		}
	}
	if len(seen) != 20 {
		t.Errorf("20 epochs have %d orders", len(seen))
	}
}

func TestGroupingSavesPadding(t *testing.T) {
	store := NewStore("", 0)
	for i := range 1000 {
		n := 2 + i*7919%200
		if err := store.Add(Example{IDs: make([]int32, n), Train: make([]bool, n), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	size := map[bool]int{}
	for _, grouped := range []bool{false, true} {
		l, err := NewLoader(store, LoaderConfig{BatchSize: 8, Shuffle: true, GroupByLength: grouped, Multiple: 1})
		if err != nil {
			t.Fatal(err)
		}
		for range l.Steps() {
			step, err := l.Next()
			if err != nil {
				t.Fatal(err)
			}
			size[grouped] += len(step[0].IDs)
		}
	}
	if size[true] >= size[false]*3/4 {
		t.Errorf("grouped batches hold %d tokens, others %d", size[true], size[false])
	}
}

func TestFit(t *testing.T) {
	e := Example{IDs: []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, Train: make([]bool, 10), Weight: 1}
	e.Train[0], e.Train[3], e.Train[9] = true, true, true // the first token is no target
	all := Example{IDs: e.IDs, Train: slices.Repeat([]bool{true}, 10)}
	for _, c := range []struct {
		name  string
		e     Example
		limit int
		o     Overlength
		want  [][]int32
		level Level
		said  string
	}{
		{"fits", e, 10, RefuseLong, [][]int32{e.IDs}, 0, ""},
		{"no limit", e, 0, RefuseLong, [][]int32{e.IDs}, 0, ""},
		{"refused", e, 9, RefuseLong, nil, Bad, "10 tokens do not fit into 9"},
		{"dropped", e, 9, DropLong, nil, Dropped, "10 tokens do not fit into 9"},
		{"start", e, 4, KeepStart, [][]int32{{0, 1, 2, 3}}, Cut, "cut from 10 tokens to the first 4; 1 of 2 trained tokens are lost"},
		{"start without target", e, 3, KeepStart, nil, Dropped, "cut from 10 tokens to the first 3; 2 of 2 trained tokens are lost: nothing to train is left"},
		{"end", e, 8, KeepEnd, [][]int32{{2, 3, 4, 5, 6, 7, 8, 9}}, Cut, "cut from 10 tokens to the last 8"},
		{"split", e, 4, SplitLong, [][]int32{{0, 1, 2, 3}, {8, 9}}, Cut, "split from 10 tokens into 3 pieces; 1 without a trained token are left out"},
		{"split all", all, 4, SplitLong, [][]int32{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9}}, Cut, "split from 10 tokens into 3 pieces; 2 of 9 trained tokens are lost"},
		{"untrained", Example{IDs: []int32{1, 2}, Train: []bool{true, false}}, 9, KeepStart, nil, Bad, "none of its 2 tokens is trained"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, p := Fit(c.e, c.limit, c.o)
			var ids [][]int32
			for _, e := range got {
				ids = append(ids, e.IDs)
				if len(e.IDs) != len(e.Train) || e.Weight != c.e.Weight {
					t.Errorf("example %+v", e)
				}
			}
			if diff := cmp.Diff(c.want, ids); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
			if (p != nil) != (c.said != "") || p != nil && (p.Level != c.level || p.Reason != c.said) {
				t.Errorf("problem %v, want %v %q", p, c.level, c.said)
			}
		})
	}
}

// A record keeps its side when others come and go, equal records are on one side, and the share is met.
func TestHeldOutDependsOnContentOnly(t *testing.T) {
	held := 0
	for i := range 10_000 {
		r := Record{Kind: Text, Text: fmt.Sprint("document ", i), Pos: Position{File: "a", Line: i}}
		out := HeldOut(r, 0.1, 3)
		if out {
			held++
		}
		r.Pos, r.Task = Position{File: "b"}, "other"
		if HeldOut(r, 0.1, 3) != out {
			t.Fatalf("%q changes sides with its place", r.Text)
		}
		if out && !HeldOut(r, 0.2, 3) {
			t.Fatalf("%q comes back when more is held out", r.Text)
		}
	}
	if held < 900 || held > 1100 { // the standard deviation is 30
		t.Errorf("%d of 10000 are held out, want about 1000", held)
	}
	a := Record{Kind: Chat, Messages: []Message{{Role: "user", Content: "ab"}, {Role: "assistant", Content: "c"}}, Train: []bool{false, true}}
	b := Record{Kind: Chat, Messages: []Message{{Role: "user", Content: "a"}, {Role: "assistant", Content: "bc"}}, Train: []bool{false, true}}
	if a.Hash(0) == b.Hash(0) {
		t.Error("the border between messages does not count")
	}
}

func TestStats(t *testing.T) {
	store := NewStore("", 0)
	for i := 1; i <= 100; i++ {
		e := Example{IDs: make([]int32, i), Train: make([]bool, i), Task: fmt.Sprint(i % 2)}
		e.Train[i-1] = true
		fill(t, store, []Example{e})
	}
	all, tasks := store.Stats()
	want := Spread{Min: 1, Median: 50, P90: 90, P99: 99, Max: 100, Mean: 50.5, Buckets: []int{0, 1, 2, 4, 8, 16, 32, 37}}
	if diff := cmp.Diff(want, all.Lengths); diff != "" {
		t.Errorf("lengths (-want +got):\n%s", diff)
	}
	if all.Examples != 100 || all.Tokens != 5050 || all.Supervised != 99 || all.Trained.Min != 0 {
		t.Errorf("stats %+v", all)
	}
	if len(tasks) != 2 || tasks[0].Task != "1" || tasks[0].Tokens != 2500 || tasks[1].Tokens != 2550 {
		t.Errorf("tasks %+v", tasks)
	}
}

func TestPreviewShowsWhatTheLossSees(t *testing.T) {
	e := Example{IDs: []int32{7, 8, 9}, Train: []bool{true, false, true}}
	got := Preview(e, func(id int32) string { return fmt.Sprint("<", id, ">") })
	want := []Token{{7, "<7>", false}, {8, "<8>", false}, {9, "<9>", true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
