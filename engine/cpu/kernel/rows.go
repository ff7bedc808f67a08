package kernel

import "math"

// Softmax writes the softmax of a row and returns the logarithm of its denominator. dst may be x.
func Softmax(dst, x []float32) float32 {
	top := Max(x)
	var sum float64
	for i := 0; i < len(x); i += chunk {
		j := min(i+chunk, len(x))
		sum += float64(active.expSum(dst[i:j], x[i:j], top))
	}
	Scale(dst[:len(x)], dst[:len(x)], float32(1/sum))
	return top + float32(math.Log(sum))
}

// LogSumExp returns log Σ e^x of a row.
func LogSumExp(x []float32) float32 {
	top := Max(x)
	if math.IsInf(float64(top), 0) {
		return top
	}
	var sum float64
	for i := 0; i < len(x); i += chunk {
		sum += float64(active.sumExp(x[i:min(i+chunk, len(x))], top))
	}
	return top + float32(math.Log(sum))
}

// SoftmaxGrad is dx = p·(dp − Σ p·dp) of a row. dx may be dp.
func SoftmaxGrad(dx, p, dp []float32) {
	c := float32(Dot(p, dp))
	for i := 0; i < len(dx); i += chunk {
		j := min(i+chunk, len(dx))
		active.softmaxGrad(dx[i:j], p[i:j], dp[i:j], c, 1)
	}
}

// RMSNorm writes y = x·r·(w + offset) of a row and returns r = 1/√(mean(x²) + eps).
func RMSNorm(y, x, w []float32, eps, offset float32) (r float32) {
	r = float32(1 / math.Sqrt(SumSquares(x)/float64(len(x))+float64(eps)))
	active.mulScale(y[:len(x)], x, w[:len(x)], r, offset)
	return r
}

// InverseRMS returns the r of RMSNorm.
func InverseRMS(x []float32, eps float32) float32 {
	return float32(1 / math.Sqrt(SumSquares(x)/float64(len(x))+float64(eps)))
}

// RMSNormGrad writes dx of a row: dx = r·dy·(w + offset) − x·r³·mean(dy·(w + offset)·x). dx may be dy.
func RMSNormGrad(dx, dy, x, w []float32, r, offset float32) {
	n := len(x)
	dy, w = dy[:n], w[:n]
	mean := float64(active.dot3(dy, x, w, offset)) / float64(n)
	c := float32(float64(r) * float64(r) * float64(r) * mean)
	active.normGrad(dx[:n], dy, w, x, r, offset, c)
}

// RMSNormWeightGrad adds dy·x·r of one row to dw. Rows are added in order; a split is by columns.
func RMSNormWeightGrad(dw, dy, x []float32, r float32) {
	active.mulAddScaled(dw, dy[:len(dw)], x[:len(dw)], r)
}

// Rotate turns one head in place: channels i and i + len(cos) by the angle whose cosine and sine are given, the
// other way with inverse. Channels from 2·len(cos) on stay.
func Rotate(head, cos, sin []float32, inverse bool) {
	n := len(cos)
	s := float32(1)
	if inverse {
		s = -1
	}
	active.rotate(head[:n], head[n:2*n], cos, sin[:n], s)
}

// AdamW is one step of the optimizer of Loshchilov and Hutter (2019).
type AdamW struct {
	LearningRate, Beta1, Beta2, Eps, WeightDecay float64
	GradScale                                    float64 // the gradient is multiplied by it
	Step                                         int     // from 1 on, for the bias corrections
}

// Update changes weights p and moments m and v by the gradient g.
func (o AdamW) Update(p, m, v, g []float32) {
	c := adamConst{
		gradScale: float32(o.GradScale),
		keep1:     float32(1 - o.Beta1),
		beta2:     float32(o.Beta2),
		keep2:     float32(1 - o.Beta2),
		root:      float32(1 / math.Sqrt(1-math.Pow(o.Beta2, float64(o.Step)))),
		eps:       float32(o.Eps),
		step:      float32(o.LearningRate / (1 - math.Pow(o.Beta1, float64(o.Step)))),
		decay:     float32(1 - o.LearningRate*o.WeightDecay),
	}
	for i := 0; i < len(p); i += chunk {
		j := min(i+chunk, len(p))
		active.adamW(p[i:j], m[i:j], v[i:j], g[i:j], &c)
	}
}
