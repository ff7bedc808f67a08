package runs

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// finished makes a run with all that a report can show.
func finished(t *testing.T) *Run {
	t.Helper()
	r := create(t, t.TempDir(), "tickets-lora")
	var errs []error
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s := 1; s <= 100; s++ {
		at = at.Add(time.Second)
		loss := 3*math.Exp(-float64(s)/30) + 0.3*math.Sin(float64(s*s))
		errs = append(errs, r.Metric(Metric{Step: s, Split: Train, Loss: Number(loss), LR: Number(1e-4 * (1 - float64(s)/100)), GradNorm: 1, Tokens: int64(1500 * s), Time: at, TokensPerSecond: 400}))
		if s%20 == 0 {
			errs = append(errs, r.Metric(Metric{Step: s, Split: Eval, Loss: Number(loss + 0.1), Time: at}), r.Metric(Metric{Step: s, Split: "<other>", Loss: 1, Time: at}))
		}
	}
	errs = append(errs,
		r.Sample(Sample{Step: 50, Prompt: "of an earlier step", Before: "x", After: "y"}),
		r.Sample(Sample{Step: 100, Prompt: "<script>alert(1)</script>", Want: "refund  now", Before: "", After: " refund now"}),
		r.Event(Event{Time: at, Step: 100, Kind: EventOutcome, Outcome: []Outcome{
			{"task score", 0.125, 0.94, "up", "%"}, {"held-out loss", 2.5, 1.25, "down", ""}, {"general loss", 2, 2.5, "down", ""}, {"perplexity", 120, 120.5, "down", ""},
		}}),
		r.Event(Event{Time: at.Add(time.Minute), Step: 100, Kind: EventFinish}),
		r.Close())
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReport(t *testing.T) {
	r := finished(t)
	if err := Report(r.Dir(), "en"); err != nil {
		t.Fatal(err)
	}
	page := contents(t, filepath.Join(r.Dir(), ReportFile))
	for _, want := range []string{
		"<h1>tickets-lora</h1>", `<span class="badge finished">finished</span>`,
		`<span class="was">12.5 %</span>`, `<span class="now">94.0 %</span>`, `<span class="change better">&#43;81.5 points · better</span>`,
		`<span class="change better">−1.250 · better</span>`, `<span class="change worse">&#43;0.500 · worse</span>`, `<span class="change same">&#43;0.5 · unchanged</span>`,
		"&lt;script&gt;alert(1)&lt;/script&gt;", `<span class="hit">✓</span>`, `<span class="miss">✗</span>`, "(empty)",
		"<dd>150\u202f000</dd>", "<dd>2 min 40 s</dd>", "<pre>seed: 1</pre>", `aria-label="Loss"`, "&lt;other&gt;", "prefers-color-scheme: dark",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, bad := range []string{"<script", "of an earlier step", "http:", "https:", "src=", "<link", "NaN", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	again, err := Render(r.Dir(), "en")
	if err != nil || string(again) != page {
		t.Errorf("the same files give another page, %v", err)
	}
	chinese, err := Render(r.Dir(), "zh")
	if err != nil || !strings.Contains(string(chinese), "留出损失") || !strings.Contains(string(chinese), `<html lang="zh">`) {
		t.Errorf("the Chinese page lacks its words, %v", err)
	}
	if _, err := Render(r.Dir(), "fr"); err == nil || err.Error() != `report: language: want en or zh, have "fr"` {
		t.Errorf("have %v", err)
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %.200s", err, svg)
			}
		}
	}
}

// TestReportOfLittle renders what a run has before, and shortly after, its first update.
func TestReportOfLittle(t *testing.T) {
	r := create(t, t.TempDir(), "a")
	for _, step := range []func() error{
		func() error { return nil },
		func() error { return r.Metric(Metric{Step: 0, Split: Train, Loss: 1}) },
		func() error { return r.Metric(Metric{Step: 1, Split: Train, Loss: Number(math.NaN())}) },
		func() error { return r.Metric(Metric{Step: 2, Split: Eval, Loss: 1}) },
		func() error {
			return r.Event(Event{Outcome: []Outcome{{Name: "x", Before: 0, After: Number(math.NaN()), Better: "up"}}})
		},
		func() error { return os.Remove(filepath.Join(r.Dir(), ConfigFile)) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		page, err := Render(r.Dir(), "en")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "running") || regexp.MustCompile(`(?:d|cx|cy|x\d?|y\d?)="[^"]*(?:NaN|Inf)`).Match(page) {
			t.Error("a page with a broken plot")
		}
	}
}

func TestLabelsAreComplete(t *testing.T) {
	keys := func(lang string) []string {
		var out []string
		for k := range labels[lang] {
			out = append(out, k)
		}
		slices.Sort(out)
		return out
	}
	if diff := cmp.Diff(keys("en"), keys("zh")); diff != "" {
		t.Error(diff)
	}
	for _, m := range regexp.MustCompile(`\.T "([^"]*)"`).FindAllStringSubmatch(reportText, -1) {
		if labels["en"][m[1]] == "" {
			t.Errorf("the page uses the label %q, which is not defined", m[1])
		}
	}
}

func TestSmoothed(t *testing.T) {
	// The first value stands for itself, a constant stays: that is what the division by 1 − wⁿ is for.
	got := smoothed([]point{{1, 4}, {2, 4}, {3, 8}}, 0.5)
	want := []point{{1, 4}, {2, 4}, {3, (0.25*0.5*4 + 0.5*0.5*4 + 0.5*8) / (1 - 0.125)}}
	for i := range want {
		if math.Abs(got[i].y-want[i].y) > 1e-12 || got[i].x != want[i].x {
			t.Errorf("want %v, have %v", want, got)
		}
	}
	if got := smoothed([]point{{1, 1}, {2, 3}}, 0); got[1].y != 3 {
		t.Errorf("weight 0: have %v", got)
	}
}

func TestTicksAndThin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo := rapid.Float64Range(-1e6, 1e6).Draw(t, "lo")
		hi := lo + rapid.Float64Range(1e-3, 1e6).Draw(t, "width")
		list := ticks(lo, hi, 5)
		if len(list) < 2 || len(list) > 6 {
			t.Fatalf("ticks(%v, %v): %v", lo, hi, list)
		}
		for _, v := range list {
			if v < lo-1e-9*math.Abs(lo) || v > hi+1e-9*math.Abs(hi) {
				t.Fatalf("tick %v outside of [%v, %v]", v, lo, hi)
			}
		}
	})
	var points []point
	for i := range 10000 {
		points = append(points, point{float64(i), float64(i % 7)})
	}
	points[5000].y, points[6000].y = 100, -100
	got := thin(points, 600)
	if len(got) > 600 || !slices.Contains(got, points[5000]) || !slices.Contains(got, points[6000]) {
		t.Errorf("%d points, or a peak is lost", len(got))
	}
	if !slices.IsSortedFunc(got, func(a, b point) int { return int(a.x - b.x) }) {
		t.Error("the order is lost")
	}
}

func TestShort(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1.25: "1.250", 12.345: "12.35", 999.96: "1000.0", 1234567: "1\u202f234\u202f567", -1234: "−1\u202f234",
		2e-4: "2.00e-04", 0.5: "0.5000", 0.012345: "0.01235", 1e9: "1.00e+09",
	} {
		if got := short(v); got != want {
			t.Errorf("%v: want %q, have %q", v, want, got)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1\u202f000"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: want %q, have %q", n, want, got)
		}
	}
	for d, want := range map[time.Duration]string{1500 * time.Millisecond: "1.5 s", 75 * time.Second: "1 min 15 s", 2*time.Hour + 90*time.Second: "2 h 1 min"} {
		if got := duration(d); got != want {
			t.Errorf("%v: want %q, have %q", d, want, got)
		}
	}
	for n, want := range map[int64]string{12: "12 B", 2500: "2.5 kB", 91e6: "91.0 MB", 3e9: "3.00 GB"} {
		if got := bytesOf(n); got != want {
			t.Errorf("%d: want %q, have %q", n, want, got)
		}
	}
}
