package runs

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tunesmith/internal/atomicfile"
)

//go:embed report.html.tmpl
var reportText string

var reportPage = template.Must(template.New("report").Parse(reportText))

// Report writes report.html of a run: one file that needs nothing else, made of the files of the run's folder
// alone. The language is "en" or "zh".
func Report(dir, lang string) error {
	page, err := Render(dir, lang)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, ReportFile), page)
}

// Render returns what Report writes.
func Render(dir, lang string) ([]byte, error) {
	words, ok := labels[lang]
	if !ok {
		return nil, fmt.Errorf("report: language: want en or zh, have %q", lang)
	}
	r := report{words: words, Lang: lang}
	if err := r.load(dir); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := reportPage.Execute(&b, &r); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return b.Bytes(), nil
}

// report is what the page shows.
type report struct {
	words map[string]string

	Lang, Name string
	Status     Status
	Manifest   Manifest
	Config     string
	Events     []Event
	Samples    []Sample
	Rows       []row
	Facts      []fact
	Loss       template.HTML
	Small      []figure
	Last       Metric // the last update
	end        time.Time
	metrics    []Metric
}

// row is an outcome as the table shows it.
type row struct {
	Name, Before, After, Change, Verdict string
}

// fact is a value with its label.
type fact struct{ Label, Value, Title string }

// figure is a small plot.
type figure struct {
	Title, Last string
	Plot        template.HTML
}

func (r *report) load(dir string) error {
	var err error
	if r.Manifest, err = ReadManifest(dir); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("report: %w", err)
	}
	if r.metrics, err = Metrics(dir); err != nil {
		return err
	}
	if r.Events, err = Events(dir); err != nil {
		return err
	}
	samples, err := Samples(dir)
	if err != nil {
		return err
	}
	r.Config, r.Name = strings.TrimSpace(string(config)), filepath.Base(dir)
	r.Status = status(dir, r.Events)
	for _, s := range samples { // those of the last step are the answers of the result
		if len(r.Samples) > 0 && s.Step != r.Samples[0].Step {
			r.Samples = nil
		}
		r.Samples = append(r.Samples, s)
	}
	for _, o := range outcome(r.Events) {
		r.Rows = append(r.Rows, r.row(o))
	}
	for _, m := range r.metrics {
		if r.end = m.Time; m.Split == Train {
			r.Last = m
		}
	}
	if n := len(r.Events); n > 0 && r.Events[n-1].Time.After(r.end) {
		r.end = r.Events[n-1].Time
	}
	r.plots()
	r.facts()
	return nil
}

// T returns a label in the report's language, or the word itself.
func (r *report) T(word string) string {
	if t, ok := r.words[word]; ok {
		return t
	}
	return word
}

// Clock shows a time to the second.
func (r *report) Clock(t time.Time) string { return t.Format("2006-01-02 15:04:05") }

// Hit tells whether an answer is the wanted one, spaces aside.
func (r *report) Hit(want, have string) bool {
	return want != "" && strings.Join(strings.Fields(want), " ") == strings.Join(strings.Fields(have), " ")
}

// row judges an outcome: a change below one percent of the value before, or of a share by less than a hundredth, is
// none.
func (r *report) row(o Outcome) row {
	before, after, unit, change := float64(o.Before), float64(o.After), o.Unit, o.Unit
	places := decimals(max(math.Abs(before), math.Abs(after)))
	if o.Unit == "%" {
		before, after, places, change = 100*before, 100*after, 1, r.T("points")
	}
	show := func(v float64, unit string) string {
		if places < 0 {
			return short(v) + strings.TrimSuffix(" "+unit, " ")
		}
		return minus(strconv.FormatFloat(v, 'f', places, 64)) + strings.TrimSuffix(" "+unit, " ")
	}
	out := row{Name: r.T(o.Name), Before: show(before, unit), After: show(after, unit), Change: show(after-before, change), Verdict: "same"}
	if after > before {
		out.Change = "+" + out.Change
	}
	switch gain := o.gain(); {
	case gain >= 0.01:
		out.Verdict = "better"
	case gain <= -0.01 || math.IsNaN(gain):
		out.Verdict = "worse"
	}
	return out
}

// facts lists what the head of the page says about the run.
func (r *report) facts() {
	add := func(label, value, title string) {
		if value != "" {
			r.Facts = append(r.Facts, fact{r.T(label), value, title})
		}
	}
	m := r.Manifest
	if len(m.Base) > 0 {
		add("base", filepath.Base(m.Base[0].Path), m.Base[0].Path)
	}
	if len(m.Data) > 0 {
		var names []string
		for _, f := range m.Data {
			names = append(names, filepath.Base(f.Path))
		}
		add("data", strings.Join(names, ", "), "")
	}
	if r.Last.Step > 0 {
		add("updates", thousands(int64(r.Last.Step)), "")
		add("tokens", thousands(r.Last.Tokens), "")
	}
	if !r.end.IsZero() && r.end.After(m.Created) {
		add("duration", duration(r.end.Sub(m.Created)), "")
	}
	add("engine", strings.TrimSpace(m.Engine+" "+m.Precision), "")
}

// Origin lists the manifest for the table at the page's end.
func (r *report) Origin() []fact {
	m := r.Manifest
	out := []fact{
		{r.T("created"), r.Clock(m.Created), ""},
		{r.T("seed"), strconv.FormatUint(m.Seed, 10), ""},
		{r.T("engine"), m.Engine, ""},
		{r.T("precision"), m.Precision, ""},
		{r.T("workers"), strconv.Itoa(m.Workers), ""},
		{r.T("version"), m.Version, ""},
		{"Go", m.Go, ""},
		{r.T("system"), m.System, ""},
	}
	files := func(label string, list ...File) {
		for _, f := range list {
			if f.SHA256 != "" {
				out = append(out, fact{r.T(label), filepath.Base(f.Path) + " · " + bytesOf(f.Bytes) + " · " + f.SHA256[:min(16, len(f.SHA256))] + "…", f.Path + "\nsha256 " + f.SHA256})
			}
		}
	}
	files("program", m.Binary)
	files("base", m.Base...)
	files("data", m.Data...)
	for _, k := range slices.Sorted(maps.Keys(m.Extra)) {
		out = append(out, fact{k, m.Extra[k], ""})
	}
	return slices.DeleteFunc(out, func(f fact) bool { return f.Value == "" })
}

// plots draws the losses, and what else changes over the updates.
func (r *report) plots() {
	train := series(r.metrics, Train, func(m Metric) Number { return m.Loss })
	smooth := weightFor(len(train))
	p := plot{width: 960, height: 340, x: r.T("updates"), label: r.T("loss")}
	p.add("train", fmt.Sprintf("%s (%s %.2f)", r.T("train"), r.T("smoothed"), smooth), train, smoothed(train, smooth))
	for _, split := range r.splits() {
		p.add(class(split), r.T(split), nil, series(r.metrics, split, func(m Metric) Number { return m.Loss }))
	}
	r.Loss = p.svg()
	for _, s := range []struct {
		title string
		noisy bool
		of    func(Metric) Number
	}{
		{"learning rate", false, func(m Metric) Number { return m.LR }},
		{"gradient norm", true, func(m Metric) Number { return m.GradNorm }},
		{"tokens per second", true, func(m Metric) Number { return m.TokensPerSecond }},
	} {
		points := series(r.metrics, Train, s.of)
		if !slices.ContainsFunc(points, func(p point) bool { return p.y != 0 }) {
			continue
		}
		small := plot{width: 310, height: 150, x: r.T("updates"), label: r.T(s.title)}
		if s.noisy {
			small.add("train", r.T(s.title), points, smoothed(points, smooth))
		} else {
			small.add("train", r.T(s.title), nil, points)
		}
		r.Small = append(r.Small, figure{r.T(s.title), short(points[len(points)-1].y), small.svg()})
	}
}

// splits lists the evaluation sets, the known ones first.
func (r *report) splits() []string {
	var out []string
	for _, m := range r.metrics {
		if m.Split != Train && !slices.Contains(out, m.Split) {
			out = append(out, m.Split)
		}
	}
	rank := map[string]int{Eval: -2, General: -1}
	slices.SortStableFunc(out, func(a, b string) int { return rank[a] - rank[b] })
	return out
}

// class is the colour of a split's line.
func class(split string) string {
	switch split {
	case Eval, General:
		return split
	}
	return "other"
}

// short shows a number with four digits that matter.
func short(v float64) string {
	places := decimals(math.Abs(v))
	switch {
	case v == 0:
		return "0"
	case math.IsNaN(v) || math.IsInf(v, 0):
		return fmt.Sprint(v)
	case places < 0:
		return minus(strconv.FormatFloat(v, 'e', 2, 64))
	case math.Abs(v) >= 1000:
		return thousands(int64(math.Round(v)))
	}
	return minus(strconv.FormatFloat(v, 'f', places, 64))
}

// decimals is the number of places that shows four digits of a positive value, or -1 where it is no number, or one
// that is better shown with an exponent.
func decimals(v float64) int {
	switch {
	case v == 0:
		return 0
	case v >= 1e-3 && v < 1e7:
		return max(0, 3-int(math.Floor(math.Log10(v))))
	}
	return -1
}

// minus writes the sign of a negative number as typography wants it.
func minus(s string) string {
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		return "−" + rest
	}
	return s
}

// thousands groups digits by narrow spaces.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return minus(s)
}

func bytesOf(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}

func duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}
