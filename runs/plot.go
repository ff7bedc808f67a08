package runs

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
)

// point is a value at a step.
type point struct{ x, y float64 }

// series takes the values of a split; those that are no numbers are left out.
func series(metrics []Metric, split string, of func(Metric) Number) []point {
	var out []point
	for _, m := range metrics {
		if v := of(m); m.Split == split && v.finite() {
			out = append(out, point{float64(m.Step), float64(v)})
		}
	}
	return out
}

// smoothed is the average that TensorBoard draws: s ← w s + (1−w) y, divided by 1 − wⁿ so that the first values
// are not pulled to zero.
func smoothed(points []point, w float64) []point {
	out := make([]point, len(points))
	var s float64
	debias := 1.0
	for i, p := range points {
		s = w*s + (1-w)*p.y
		debias *= w
		out[i] = point{p.x, s / (1 - debias)}
	}
	return out
}

// weightFor looks back over about a thirtieth of the points.
func weightFor(n int) float64 { return min(0.98, max(0, 1-30/float64(max(n, 1)))) }

// plot is a line chart, drawn as SVG whose colours come from the page.
type plot struct {
	width, height float64
	x, label      string
	curves        []curve
}

// curve is a line, over the pale line of the values that it smooths.
type curve struct {
	class, name string
	raw, line   []point
}

func (p *plot) add(class, name string, raw, line []point) {
	if len(line) > 0 {
		p.curves = append(p.curves, curve{class, name, raw, line})
	}
}

// most is the number of points that a line is drawn with.
const most = 600

// svg draws the chart, or nothing where there are no values.
func (p *plot) svg() template.HTML {
	if len(p.curves) == 0 {
		return ""
	}
	small := p.width < 500
	left, right, top, bottom := 52.0, 22.0, 14.0, 34.0
	if small {
		left, top, bottom = 46, 8, 20
	}
	x0, x1, y0, y1 := p.bounds()
	sx := func(x float64) float64 { return left + (x-x0)/(x1-x0)*(p.width-left-right) }
	sy := func(y float64) float64 {
		y = min(max(y, y0), y1) // a line may leave the range; it then runs along the edge
		return top + (y1-y)/(y1-y0)*(p.height-top-bottom)
	}
	var b strings.Builder
	count, kind := 5.0, "wide"
	if small {
		count, kind = 3, "small"
	}
	fmt.Fprintf(&b, `<svg class="%s" viewBox="0 0 %g %g" role="img" aria-label="%s">`, kind, p.width, p.height, html.EscapeString(p.label))
	for _, y := range ticks(y0, y1, count) {
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, left, p.width-right, sy(y), sy(y))
		fmt.Fprintf(&b, `<text class="tick" text-anchor="end" x="%g" y="%.1f">%s</text>`, left-8, sy(y)+4, tick(y, y1-y0))
	}
	for _, x := range ticks(x0, x1, count+2) {
		if x == math.Trunc(x) {
			fmt.Fprintf(&b, `<text class="tick" text-anchor="middle" x="%.1f" y="%g">%s</text>`, sx(x), p.height-bottom+16, thousands(int64(x)))
		}
	}
	if !small {
		fmt.Fprintf(&b, `<text class="tick" text-anchor="end" x="%g" y="%g">%s</text>`, p.width-right, p.height-3, html.EscapeString(p.x))
	}
	for _, c := range p.curves {
		if len(c.raw) > 0 {
			fmt.Fprintf(&b, `<path class="raw %s" d="%s"/>`, c.class, path(thin(c.raw, most), sx, sy))
		}
	}
	for _, c := range p.curves {
		fmt.Fprintf(&b, `<path class="line %s" d="%s"/>`, c.class, path(thin(c.line, most), sx, sy))
		if c.raw == nil && !small && len(c.line) <= 60 {
			for _, q := range c.line {
				fmt.Fprintf(&b, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="4"><title>%s: %s %s: %s</title></circle>`,
					c.class, sx(q.x), sy(q.y), html.EscapeString(p.x), thousands(int64(q.x)), html.EscapeString(c.name), short(q.y))
			}
		}
	}
	b.WriteString("</svg>")
	if !small {
		b.WriteString(`<div class="legend">`)
		for _, c := range p.curves {
			fmt.Fprintf(&b, `<span class="key %s">%s</span>`, c.class, html.EscapeString(c.name))
		}
		b.WriteString("</div>")
	}
	return template.HTML(b.String())
}

// bounds returns the range that is shown: all lines, and the middle 98 of 100 raw values, so that one outlier does
// not flatten the rest.
func (p *plot) bounds() (x0, x1, y0, y1 float64) {
	x0, y0 = math.Inf(1), math.Inf(1)
	x1, y1 = math.Inf(-1), math.Inf(-1)
	for _, c := range p.curves {
		for _, q := range c.line {
			x0, x1, y0, y1 = min(x0, q.x), max(x1, q.x), min(y0, q.y), max(y1, q.y)
		}
		if n := len(c.raw); n > 0 {
			ys := make([]float64, n)
			for i, q := range c.raw {
				ys[i] = q.y
			}
			slices.Sort(ys)
			y0, y1 = min(y0, ys[n/100]), max(y1, ys[n-1-n/100])
		}
	}
	if x1 == x0 {
		x0, x1 = x0-1, x1+1
	}
	pad := (y1 - y0) * 0.04
	if pad == 0 {
		pad = max(math.Abs(y1)*0.1, 1e-12)
	}
	if y0 -= pad; y0 < 0 && y0+pad >= 0 {
		y0 = 0
	}
	return x0, x1, y0, y1 + pad
}

// ticks returns round values inside of [lo, hi], about count of them.
func ticks(lo, hi, count float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/count)))
	for _, f := range []float64{1, 2, 5, 10} {
		if (hi-lo)/(step*f) <= count {
			step *= f
			break
		}
	}
	var out []float64
	for i := math.Ceil(lo / step); i*step <= hi; i++ {
		v, _ := strconv.ParseFloat(strconv.FormatFloat(i*step, 'g', 12, 64), 64) // 3·0.1 is 0.3
		out = append(out, v)
	}
	return out
}

// tick shows a round value with the digits that tell it from its neighbours in a range of this width.
func tick(v, width float64) string {
	digits := int(math.Ceil(1 - math.Log10(max(width, 1e-300))))
	switch {
	case math.Abs(v) >= 1000 && digits <= 0:
		return thousands(int64(math.Round(v)))
	case math.Abs(v) < width*1e-9: // zero, but for rounding
		return "0"
	case digits > 3:
		return minus(strconv.FormatFloat(v, 'e', -1, 64))
	}
	return minus(strconv.FormatFloat(v, 'f', max(0, digits), 64))
}

// thin keeps the lowest and the highest of each of n/2 stretches, in their order, so that peaks stay.
func thin(points []point, n int) []point {
	if len(points) <= n {
		return points
	}
	var out []point
	stretches := n / 2
	for i := range stretches {
		part := points[i*len(points)/stretches : (i+1)*len(points)/stretches]
		lo, hi := 0, 0
		for j, p := range part {
			if p.y < part[lo].y {
				lo = j
			}
			if p.y > part[hi].y {
				hi = j
			}
		}
		out = append(out, part[min(lo, hi)])
		if lo != hi {
			out = append(out, part[max(lo, hi)])
		}
	}
	return out
}

func path(points []point, sx, sy func(float64) float64) string {
	var b strings.Builder
	for i, p := range points {
		c := byte('L')
		if i == 0 {
			c = 'M'
		}
		fmt.Fprintf(&b, "%c%.1f %.1f", c, sx(p.x), sy(p.y))
	}
	return b.String()
}
