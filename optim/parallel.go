package optim

// Parallel runs f over ranges that together cover [0, n), each index once, and returns when all are done. How it
// cuts the ranges has no influence on the result of this package.
type Parallel func(n int, f func(lo, hi int))

func serial(n int, f func(lo, hi int)) { f(0, n) }

// chunk is the number of elements that one worker takes at a time, and over which one partial sum runs.
const chunk = 1 << 14

// span is a chunk of one parameter.
type span struct{ param, lo, hi int }

// spans cuts parameters into chunks, in order.
func spans(params []Param) []span {
	var out []span
	for i, p := range params {
		for lo := 0; lo < len(p.Value); lo += chunk {
			out = append(out, span{i, lo, min(lo+chunk, len(p.Value))})
		}
	}
	return out
}

// sum adds f over the chunks of [0, n), in order.
func sum(par Parallel, n int, f func(lo, hi int) float64) float64 {
	parts := make([]float64, (n+chunk-1)/chunk)
	par(len(parts), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			parts[i] = f(i*chunk, min((i+1)*chunk, n))
		}
	})
	var s float64
	for _, p := range parts {
		s += p
	}
	return s
}

// each runs f over the chunks of [0, n).
func each(par Parallel, n int, f func(lo, hi int)) {
	par((n+chunk-1)/chunk, func(lo, hi int) { f(lo*chunk, min(hi*chunk, n)) })
}

// squares is the sum of squares of x. Four running sums keep the additions from waiting for each other.
func squares(x []float32) float64 {
	var a, b, c, d float64
	for ; len(x) >= 4; x = x[4:] {
		p, q, r, s := float64(x[0]), float64(x[1]), float64(x[2]), float64(x[3])
		a, b, c, d = a+p*p, b+q*q, c+r*r, d+s*s
	}
	for _, v := range x {
		a += float64(v) * float64(v)
	}
	return (a + b) + (c + d)
}
