package evals

import (
	"fmt"
	"math"
)

// Mean returns the mean of values and its standard error: the sample's standard deviation over √n. Below two values
// the error is not known, and NaN.
func Mean(values []float64) (mean, stderr float64) {
	n := float64(len(values))
	if n == 0 {
		return math.NaN(), math.NaN()
	}
	for _, v := range values {
		mean += v / n
	}
	var squares float64
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(squares/(n-1)) / math.Sqrt(n)
}

// Interval returns the 95 % confidence interval of a share of right answers by Wilson's score, which keeps to [0, 1]
// and holds for few answers too.
func Interval(right, total int) (low, high float64) {
	if total == 0 {
		return 0, 1
	}
	const z = 1.959963984540054
	n, p := float64(total), float64(right)/float64(total)
	middle := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return max(0, middle-half), min(1, middle+half)
}

// McNemar returns the two-sided probability that two models that answer the same questions differ by chance as much
// as they do or more, by the exact test of McNemar: gained questions only the second answers right, lost only the
// first.
func McNemar(gained, lost int) float64 {
	n := gained + lost
	if n == 0 {
		return 1
	}
	// The tail of a binomial distribution of one half, from logarithms of the coefficients.
	lg := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	var tail float64
	for k := range min(gained, lost) + 1 {
		tail += math.Exp(lg(n) - lg(k) - lg(n-k) - float64(n)*math.Ln2)
	}
	return min(1, 2*tail)
}

// PooledError returns the standard error of the score of several tasks that are weighted by their sizes.
func PooledError(errors []float64, sizes []int) float64 {
	var sum float64
	total := 0
	for i, e := range errors {
		sum += float64(sizes[i]-1) * e * e * float64(sizes[i])
		total += sizes[i]
	}
	return math.Sqrt(sum/float64(total-len(sizes))) / math.Sqrt(float64(total))
}

// Aggregate returns the mean of the scores of several tasks, weighted by their sizes or not.
func Aggregate(scores []float64, sizes []int, bySize bool) float64 {
	var sum, total float64
	for i, s := range scores {
		w := 1.0
		if bySize {
			w = float64(sizes[i])
		}
		sum += w * s
		total += w
	}
	return sum / total
}

// F1 returns the harmonic mean of precision and recall of binary predictions, of which 1 is the positive class.
func F1(truth, predicted []int) float64 {
	c := confusion(truth, predicted)
	if d := 2*c.tp + c.fp + c.fn; d > 0 {
		return 2 * c.tp / d
	}
	return 0
}

// MCC returns Matthews' correlation coefficient of binary predictions, 0 where it is not defined.
func MCC(truth, predicted []int) float64 {
	c := confusion(truth, predicted)
	d := math.Sqrt((c.tp + c.fp) * (c.tp + c.fn) * (c.tn + c.fp) * (c.tn + c.fn))
	if d == 0 {
		return 0
	}
	return (c.tp*c.tn - c.fp*c.fn) / d
}

type counts struct{ tp, fp, fn, tn float64 }

func confusion(truth, predicted []int) (c counts) {
	for i, t := range truth {
		switch {
		case t == 1 && predicted[i] == 1:
			c.tp++
		case predicted[i] == 1:
			c.fp++
		case t == 1:
			c.fn++
		default:
			c.tn++
		}
	}
	return c
}

// Likelihood is the log-likelihood of a text, with the units over which it is spread.
type Likelihood struct {
	Sum   float64 // natural logarithm
	Words int     // pieces between white space
	Bytes int
}

// Add joins the likelihoods of two texts.
func (l Likelihood) Add(o Likelihood) Likelihood {
	return Likelihood{l.Sum + o.Sum, l.Words + o.Words, l.Bytes + o.Bytes}
}

// WordPerplexity is e to the loss per word.
func (l Likelihood) WordPerplexity() float64 { return math.Exp(-l.Sum / float64(l.Words)) }

// BytePerplexity is e to the loss per byte.
func (l Likelihood) BytePerplexity() float64 { return math.Exp(-l.Sum / float64(l.Bytes)) }

// BitsPerByte is the loss per byte in bits.
func (l Likelihood) BitsPerByte() float64 { return -l.Sum / float64(l.Bytes) / math.Ln2 }

// String shows the figures.
func (l Likelihood) String() string {
	return fmt.Sprintf("word perplexity %.3f, byte perplexity %.4f, %.4f bits per byte", l.WordPerplexity(), l.BytePerplexity(), l.BitsPerByte())
}
