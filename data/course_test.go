package data

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mixed is a store whose examples belong to tasks a (60), b (30) and c (10), in turn.
func mixed(t *testing.T) *Store {
	t.Helper()
	s := NewStore("", math.MaxInt)
	for i := range 100 {
		task := "a"
		switch {
		case i%10 == 0:
			task = "c"
		case i%10 < 4:
			task = "b"
		}
		n := 3 + i%5
		e := Example{IDs: make([]int32, n), Train: make([]bool, n), Weight: 1, Task: task}
		for k := range e.IDs {
			e.IDs[k], e.Train[k] = int32(i), k > 0
		}
		if err := s.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func tasksOf(s *Store, shares ...float64) []Task {
	var out []Task
	for i, name := range s.Tasks() {
		out = append(out, Task{Store: s, Share: shares[i], Weight: 1, Examples: s.OfTask(name)})
	}
	return out
}

// drawn reads n rows and returns their tasks.
func drawn(t *testing.T, l *Loader, n int) []int {
	t.Helper()
	var out []int
	for len(out) < n {
		step, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range step {
			for r, task := range b.Tasks {
				if want := l.tasks[task].Store.Task(b.Examples[r][0]); want != l.tasks[task].Store.Tasks()[task] {
					t.Fatalf("row of task %d holds an example of %s", task, want)
				}
				out = append(out, task)
			}
		}
	}
	return out
}

func TestSharesHoldInAnyWindow(t *testing.T) {
	s := mixed(t)
	shares := []float64{0.2, 0.3, 0.5} // c, b, a in the order of coming
	l, err := NewMixture(tasksOf(s, shares...), LoaderConfig{BatchSize: 4, Shuffle: true, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	rows := drawn(t, l, 1000)
	for from := 0; from < 900; from += 37 {
		for _, n := range []int{10, 40, 100} {
			var counts [3]int
			for _, task := range rows[from : from+n] {
				counts[task]++
			}
			for i, c := range counts {
				if math.Abs(float64(c)-shares[i]*float64(n)) > 2 {
					t.Errorf("rows %d to %d: want %.1f of task %d, have %d", from, from+n, shares[i]*float64(n), i, c)
				}
			}
		}
	}
}

func TestTasksJoinAndStop(t *testing.T) {
	s := mixed(t)
	tasks := tasksOf(s, 0.25, 0.25, 0.5)
	tasks[2].From = 40
	c := LoaderConfig{BatchSize: 4, Accumulate: 2, Shuffle: true, Seed: 3}
	l, err := NewMixture(tasks, c)
	if err != nil {
		t.Fatal(err)
	}
	count := func(rows []int) (n [3]int) {
		for _, task := range rows {
			n[task]++
		}
		return n
	}
	if have := count(drawn(t, l, 40)); have != [3]int{20, 20, 0} {
		t.Errorf("before the third task joins: have %v", have)
	}
	if have := count(drawn(t, l, 40)); have != [3]int{10, 10, 20} {
		t.Errorf("with all tasks: have %v", have)
	}
	if err := l.Stop(1); err != nil {
		t.Fatal(err)
	}
	if have := count(drawn(t, l, 48)); have[1] != 0 || math.Abs(float64(have[2]-2*have[0])) > 2 {
		t.Errorf("after the second has stopped: have %v", have)
	}
	at := l.State()
	next := drawn(t, l, 80)
	again, err := NewMixture(tasks, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Restore(at); err != nil {
		t.Fatal(err)
	}
	if have := drawn(t, again, 80); !slices.Equal(have, next) || !again.Stopped(1) {
		t.Error("a restored loader draws otherwise")
	}
	// A loader that has gone on goes back, too; and the last task never stops.
	if err := l.Restore(at); err != nil {
		t.Fatal(err)
	}
	if have := drawn(t, l, 80); !slices.Equal(have, next) {
		t.Error("a loader that is set back draws otherwise")
	}
	for i := range 3 {
		if err := l.Stop(i); err != nil {
			t.Fatal(err)
		}
	}
	if have := count(drawn(t, l, 24)); have[2] < 24 {
		t.Errorf("with one task left: have %v", have)
	}
}

func TestOneTaskBatches(t *testing.T) {
	s := mixed(t)
	l, err := NewMixture(tasksOf(s, 0.2, 0.3, 0.5), LoaderConfig{BatchSize: 4, Shuffle: true, OneTask: true})
	if err != nil {
		t.Fatal(err)
	}
	var counts [3]int
	for range 100 {
		step, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range step {
			if slices.Min(b.Tasks) != slices.Max(b.Tasks) {
				t.Fatalf("a batch of tasks %v", b.Tasks)
			}
			counts[b.Tasks[0]]++
		}
	}
	if d := cmp.Diff([3]int{20, 30, 50}, counts); d != "" {
		t.Error(d)
	}
}

// TestOneTaskIsPlain: a mixture of one task gives the batches of a plain loader.
func TestOneTaskIsPlain(t *testing.T) {
	s := mixed(t)
	all := make([]int32, s.Len())
	for i := range all {
		all[i] = int32(i)
	}
	for _, c := range []LoaderConfig{{BatchSize: 3, Shuffle: true, Seed: 9}, {BatchSize: 2, Packing: BestFit, RowLength: 16, Shuffle: true}, {BatchSize: 4, GroupByLength: true, Shuffle: true}} {
		plain, err := NewLoader(s, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range []bool{false, true} {
			c.OneTask = one
			mix, err := NewMixture([]Task{{Store: s, Share: 1, Weight: 1, Examples: all}}, c)
			if err != nil {
				t.Fatal(err)
			}
			if err := plain.Restore(plain0(plain)); err != nil {
				t.Fatal(err)
			}
			for range 2 * plain.Steps() {
				a, errA := plain.Next()
				b, errB := mix.Next()
				if errA != nil || errB != nil {
					t.Fatal(errA, errB)
				}
				if d := cmp.Diff(fmt.Sprint(a), fmt.Sprint(b)); d != "" {
					t.Fatalf("%+v: -plain +mixture:\n%s", c, d)
				}
			}
		}
	}
}

// plain0 is the position before the first batch.
func plain0(l *Loader) State {
	s := l.State()
	s.Epoch, s.Batch = 0, 0
	return s
}

func TestCourseRefuses(t *testing.T) {
	s := mixed(t)
	tasks := tasksOf(s, 0.25, 0.25, 0.5)
	c := LoaderConfig{BatchSize: 4, GroupByLength: true}
	l, err := NewMixture(tasks, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Stop(0); err == nil {
		t.Error("want an error for a stop among sorted rows")
	}
	tasks[1].From = 3
	if _, err := NewMixture(tasks, c); err == nil {
		t.Error("want an error for a task that joins later among sorted rows")
	}
	at := l.State()
	at.Stops = []int64{1}
	if err := l.Restore(at); err == nil {
		t.Error("want an error for stops of other tasks")
	}
}
