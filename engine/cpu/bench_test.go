package cpu

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"tunesmith/engine"
	"tunesmith/graph"
)

var (
	profile = flag.Bool("profile", false, "list the processor time of each kind of instruction after a benchmark")
	threads = flag.Int("threads", 0, "workers of a benchmark; 0 is one per core")
)

func BenchmarkLoRA(b *testing.B) {
	for _, bt := range []struct {
		precision engine.Precision
		batch     int
	}{{engine.FP32, 4}, {engine.Mixed, 4}, {engine.Mixed, 1}} {
		b.Run(fmt.Sprintf("%s/batch%d", bt.precision, bt.batch), func(b *testing.B) {
			g, s, feeds := smol135.step(b, bt.batch, 256)
			e, err := engine.Open("cpu", engine.Options{Precision: bt.precision, Workers: *threads})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			start := time.Now()
			c, err := e.Compile(g, s)
			if err != nil {
				b.Fatal(err)
			}
			compiled := time.Since(start)
			if err := c.Run(context.Background(), feeds); err != nil {
				b.Fatal(err)
			}
			first := time.Since(start)
			start = time.Now()
			for _, f := range c.(*program).forms {
				f.stale = true
			}
			c.(*program).packStale()
			packed := time.Since(start)
			var times *profiler
			if *profile {
				times = profileOf(c.(*program))
			}
			before := processTime()
			for b.Loop() {
				if err := c.Run(context.Background(), feeds); err != nil {
					b.Fatal(err)
				}
			}
			m := c.Memory()
			b.ReportMetric(float64(bt.batch*256)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric((processTime()-before).Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(m.Total())/1e6, "MB")
			b.Logf("%s, compiled in %v, packed in %v, first step after %v, memory %+v", e.Name(), compiled, packed, first, m)
			if times != nil {
				times.report(b)
			}
		})
	}
}

// profiler measures worker 0's processor time from phase to phase, by the operation and shape of the instruction.
type profiler struct {
	last  time.Duration
	total map[string]time.Duration
	count map[string]int
}

func profileOf(p *program) *profiler {
	runtime.LockOSThread()
	t := &profiler{total: map[string]time.Duration{}, count: map[string]int{}}
	p.phases = []phase{func(worker, _ int) {
		if worker == 0 {
			t.last = threadTime()
		}
	}}
	for _, in := range p.instrs {
		name := in.node.Op.String()
		if len(in.in) > 1 {
			name = fmt.Sprint(len(in.in), " operands: ", name)
		}
		for _, x := range in.node.In {
			name += fmt.Sprint(" ", x.Shape())
		}
		for _, f := range in.bind(p) {
			p.phases = append(p.phases, func(worker, workers int) {
				f(worker, workers)
				if worker == 0 {
					now := threadTime()
					t.total[name] += now - t.last
					t.count[name]++
					t.last = now
				}
			})
		}
	}
	return t
}

func (t *profiler) report(b *testing.B) {
	names := sortedKeys(t.total)
	slices.SortFunc(names, func(x, y string) int { return int(t.total[y] - t.total[x]) })
	var sum time.Duration
	for _, d := range t.total {
		sum += d
	}
	var text strings.Builder
	for _, n := range names[:min(len(names), 40)] {
		fmt.Fprintf(&text, "\n%5.1f%% %8.2f ms %5d × %s", 100*float64(t.total[n])/float64(sum), t.total[n].Seconds()*1000/float64(b.N), t.count[n]/b.N, n)
	}
	b.Log(text.String())
}

// BenchmarkDecode measures single tokens over a cache of 512.
func BenchmarkDecode(b *testing.B) {
	for _, precision := range []engine.Precision{engine.FP32, engine.Mixed} {
		b.Run(string(precision), func(b *testing.B) {
			l := smol135
			l.rank = 0
			g, s, feeds := l.decode(b, 1, 512)
			e, err := engine.Open("cpu", engine.Options{Precision: precision, Workers: *threads})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			p, err := e.Compile(g, s)
			if err != nil {
				b.Fatal(err)
			}
			if err := p.Run(context.Background(), feeds); err != nil {
				b.Fatal(err)
			}
			var times *profiler
			if *profile {
				times = profileOf(p.(*program))
			}
			before := processTime()
			for b.Loop() {
				if err := p.Run(context.Background(), feeds); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric((processTime()-before).Seconds()*1000/float64(b.N), "cpu-ms/op")
			if times != nil {
				times.report(b)
			}
		})
	}
}

func BenchmarkDropout(b *testing.B) {
	x := wave(blockSize, 1)
	key := []int32{1, 2}
	b.SetBytes(4 * blockSize)
	for b.Loop() {
		dropout(graph.Dropout{Rate: 0.1, Salt: 1}, x, x, key, 0)
	}
}
