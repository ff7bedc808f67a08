package main

// exp replaces x by e^x: rounding x/ln 2 to an integer n, a polynomial of the rest, and n added to the exponent.
// Results below e^−87 are 0, NaN stays NaN.
func (a *asm) exp(x string) {
	e, n, p := a.tmp(), a.tmp(), a.tmp()
	mask := a.cmp(notLess, x, a.c("explo"))
	a.load(e, a.c("exphi"))
	a.min(x, e, x) // the second operand, x, is the result where it is NaN
	a.load(e, a.c("magic"))
	a.fma(e, x, a.c("log2e"))
	a.sub(n, e, a.c("magic"))
	a.fnma(x, n, a.c("ln2hi"))
	a.fnma(x, n, a.c("ln2lo"))
	a.op("VPSLLD $23, %s, %s", e, e)
	a.bin("VPADDD", e, e, a.c("expbias")) // 2^(n−1): n may be 128
	a.load(p, a.c("e6"))
	for _, c := range []string{"e5", "e4", "e3", "e2"} {
		a.horner(p, x, a.c(c))
	}
	a.mul(n, x, x)
	a.horner(p, n, x)
	a.add(p, p, a.c("one"))
	a.add(p, p, p)
	a.mul(x, p, e)
	a.keep(x, mask)
}

// sigmoid replaces x by 1/(1 + e^−x).
func (a *asm) sigmoid(x string) {
	a.xor(x, x, a.c("sign"))
	a.exp(x)
	a.add(x, x, a.c("one"))
	one := a.tmp()
	a.load(one, a.c("one"))
	a.div(x, one, x)
}

// tanh replaces x by tanh x: a polynomial for small x, 1 − 2/(e^(2|x|) + 1) with the sign of x for others.
func (a *asm) tanh(x string) {
	big, z, p, s := a.tmp(), a.tmp(), a.tmp(), a.tmp()
	a.and(big, x, a.c("nosign"))
	a.add(big, big, big)
	a.exp(big)
	a.add(big, big, a.c("one"))
	a.load(z, a.c("two"))
	a.div(big, z, big)
	a.load(z, a.c("one"))
	a.sub(big, z, big)
	a.and(s, x, a.c("sign"))
	a.or(big, big, s)
	a.mul(z, x, x)
	a.load(p, a.c("t4"))
	for _, c := range []string{"t3", "t2", "t1", "t0"} {
		a.horner(p, z, a.c(c))
	}
	a.mul(p, p, z)
	a.horner(p, x, x)
	a.and(s, x, a.c("nosign"))
	mask := a.cmp(less, s, a.c("tanhsmall"))
	a.choose(x, mask, p, big)
}

// activation writes f(x), and f′(x) where slope is asked for, into fresh registers.
type activation func(a *asm, x string, slope bool) (y, d string)

// silu is x·σ(x).
func silu(a *asm, x string, slope bool) (y, d string) {
	s := a.tmp()
	y = a.tmp()
	a.load(s, x)
	a.sigmoid(s)
	a.mul(y, x, s)
	if slope { // σ + x·σ·(1 − σ)
		d = a.tmp()
		a.load(d, y)
		a.fnma(d, y, s)
		a.add(d, d, s)
	}
	return y, d
}

// geluTanh is x·(1 + tanh u)/2 = x·σ(2u), u = √(2/π)·(x + 0.044715·x³).
func geluTanh(a *asm, x string, slope bool) (y, d string) {
	s, z := a.tmp(), a.tmp()
	y = a.tmp()
	a.mul(z, x, x)
	a.load(s, a.c("gelucube"))
	a.horner(s, z, a.c("gelutwo"))
	a.mul(s, s, x)
	keep := a.next
	a.sigmoid(s)
	a.mul(y, x, s)
	if slope { // σ + x·σ·(1 − σ)·2u′
		a.next = keep
		d = a.tmp()
		t := a.tmp()
		a.load(t, a.c("gelutri"))
		a.horner(t, z, a.c("gelutwo"))
		a.load(d, y)
		a.fnma(d, y, s)
		a.horner(d, t, s)
	}
	return y, d
}

// gelu is x·Φ(x); Φ by erfc, whose factor e^(−x²/2) is the slope's too.
func gelu(a *asm, x string, slope bool) (y, d string) {
	e, t, p := a.tmp(), a.tmp(), a.tmp()
	y = a.tmp()
	a.mul(e, x, x)
	a.mul(e, e, a.c("neghalf"))
	keep := a.next
	a.exp(e)
	a.next = keep
	a.and(t, x, a.c("nosign"))
	a.load(p, a.c("gt"))
	a.horner(t, p, a.c("one"))
	a.load(p, a.c("one"))
	a.div(t, p, t)
	a.load(p, a.c("g9"))
	for _, c := range []string{"g8", "g7", "g6", "g5", "g4", "g3", "g2", "g1", "g0"} {
		a.horner(p, t, a.c(c))
	}
	a.mul(p, p, t)
	a.mul(p, p, e) // Φ(−|x|)
	a.load(t, a.c("one"))
	a.sub(t, t, p)
	a.choose(p, x, p, t)
	a.mul(y, x, p)
	if slope {
		d = e
		a.mul(d, d, a.c("invroot"))
		a.horner(d, x, p)
	}
	return y, d
}

// functionKernels are the functions of one argument.
func functionKernels() []kernel {
	unary := func(name string, f func(a *asm, x string)) kernel {
		return mapKernel(name, join(out("dst"), in("a")), nil, func(a *asm, v []string) []string {
			f(a, v[0])
			return v
		})
	}
	return []kernel{
		unary("exp", (*asm).exp),
		unary("sigmoid", (*asm).sigmoid),
		unary("tanh", (*asm).tanh),
		// dst = s·e^(a − c)
		mapKernel("expSub", join(out("dst"), in("a")), []string{"c", "s"}, func(a *asm, v []string) []string {
			a.sub(v[0], v[0], a.scalar(0))
			a.exp(v[0])
			a.mul(v[0], v[0], a.scalar(1))
			return v
		}),
	}
}

// activationKernels are the forms of an activation: y = f(x), dx = dy·f′(x), y = f(gate)·up, and the gradients of
// the last.
func activationKernels(name string, f activation) []kernel {
	return []kernel{
		mapKernel(name, join(out("dst"), in("a")), nil, func(a *asm, v []string) []string {
			y, _ := f(a, v[0], false)
			return []string{y}
		}),
		mapKernel(name+"Grad", join(out("dst"), in("dy", "a")), nil, func(a *asm, v []string) []string {
			_, d := f(a, v[1], true)
			a.mul(d, d, v[0])
			return []string{d}
		}),
		mapKernel(name+"Gate", join(out("dst"), in("gate", "up")), nil, func(a *asm, v []string) []string {
			y, _ := f(a, v[0], false)
			a.mul(y, y, v[1])
			return []string{y}
		}),
		mapKernel(name+"GateGrad", join(out("dgate", "dup"), in("dy", "gate", "up")), nil, func(a *asm, v []string) []string {
			y, d := f(a, v[1], true)
			a.mul(d, d, v[2])
			a.mul(d, d, v[0])
			a.mul(y, y, v[0])
			return []string{d, y}
		}),
	}
}
