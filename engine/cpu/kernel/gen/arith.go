package main

// arithKernels are the element by element kernels without functions.
func arithKernels() []kernel {
	binary := func(name string, f func(a *asm, d, x, y string)) kernel {
		return mapKernel(name, join(out("dst"), in("a", "b")), nil, func(a *asm, v []string) []string {
			f(a, v[0], v[0], v[1])
			return v[:1]
		})
	}
	return []kernel{
		binary("add", (*asm).add),
		binary("sub", (*asm).sub),
		binary("mul", (*asm).mul),
		binary("div", (*asm).div),
		mapKernel("scale", join(out("dst"), in("a")), []string{"s"}, func(a *asm, v []string) []string {
			a.mul(v[0], v[0], a.scalar(0))
			return v
		}),
		mapKernel("axpy", join(inout("dst"), in("a")), []string{"s"}, func(a *asm, v []string) []string {
			a.fma(v[0], v[1], a.scalar(0))
			return v[:1]
		}),
		mapKernel("mulAdd", join(inout("dst"), in("a", "b")), nil, func(a *asm, v []string) []string {
			a.fma(v[0], v[1], v[2])
			return v[:1]
		}),
		mapKernel("mulAddScaled", join(inout("dst"), in("a", "b")), []string{"s"}, func(a *asm, v []string) []string {
			a.mul(v[1], v[1], a.scalar(0))
			a.fma(v[0], v[1], v[2])
			return v[:1]
		}),
		// dst = s·a·(w + offset)
		mapKernel("mulScale", join(out("dst"), in("a", "w")), []string{"s", "offset"}, func(a *asm, v []string) []string {
			a.add(v[1], v[1], a.scalar(1))
			a.mul(v[0], v[0], a.scalar(0))
			a.mul(v[0], v[0], v[1])
			return v[:1]
		}),
		// dst = s·dy·(w + offset) − c·x
		mapKernel("normGrad", join(out("dst"), in("dy", "w", "x")), []string{"s", "offset", "c"}, func(a *asm, v []string) []string {
			a.add(v[1], v[1], a.scalar(1))
			a.mul(v[0], v[0], a.scalar(0))
			a.mul(v[0], v[0], v[1])
			a.fnma(v[0], v[2], a.scalar(2))
			return v[:1]
		}),
		// dst = s·p·(dp − c)
		mapKernel("softmaxGrad", join(out("dst"), in("p", "dp")), []string{"c", "s"}, func(a *asm, v []string) []string {
			a.sub(v[1], v[1], a.scalar(0))
			a.mul(v[0], v[0], a.scalar(1))
			a.mul(v[0], v[0], v[1])
			return v[:1]
		}),
		mapKernel("rotate", join(inout("lo", "hi"), in("cos", "sin")), []string{"s"}, func(a *asm, v []string) []string {
			lo, hi, cos, sin := v[0], v[1], v[2], v[3]
			a.mul(sin, sin, a.scalar(0))
			d := a.tmp()
			a.mul(d, lo, cos)
			a.fnma(d, hi, sin)
			a.mul(hi, hi, cos)
			a.fma(hi, lo, sin)
			return []string{d, hi}
		}),
		adamWKernel(),
	}
}

// halfKernels convert to and from 16 bits; lengths are multiples of the lanes.
func halfKernels() []kernel {
	return []kernel{toBF16Kernel(), fromBF16Kernel(), toF16Kernel(), fromF16Kernel()}
}

// adamWKernel updates weights and both moments; the constants stand in the order of the struct's fields.
func adamWKernel() kernel {
	streams := join(inout("p", "m", "v"), in("g"))
	l := loop{
		streams: streams, unroll: 1,
		setup: func(a *asm) {
			a.op("MOVQ %s, R12", a.arg("c"))
			for i := range 8 {
				a.op("VBROADCASTSS %d(R12), %s", 4*i, a.v(6+i))
			}
		},
		body: func(a *asm, _ int, r []string, _ bool) []string {
			c := func(i int) string { return a.v(6 + i) }
			gradScale, keep1, beta2, keep2, root, eps, step, decay := c(0), c(1), c(2), c(3), c(4), c(5), c(6), c(7)
			p, m, v, g := r[0], r[1], r[2], r[3]
			a.mul(g, g, gradScale)
			d := a.tmp()
			a.sub(d, g, m)
			a.fma(m, d, keep1)
			a.mul(g, g, g)
			a.mul(g, g, keep2)
			a.mul(v, v, beta2)
			a.add(v, v, g)
			a.op("VSQRTPS %s, %s", v, d)
			a.horner(d, root, eps)
			a.div(d, m, d)
			a.mul(p, p, decay)
			a.fnma(p, d, step)
			return []string{p, m, v}
		},
	}
	return kernel{name: "adamW", params: append(params(streams, nil), param{"c", "*adamConst"}), emit: l.emit}
}

// toBF16Kernel rounds to nearest even. NaN stays NaN.
func toBF16Kernel() kernel {
	return kernel{name: "toBF16", params: []param{{"dst", "[]uint16"}, {"a", "[]float32"}}, emit: func(a *asm) {
		a.halfLoop(func() {
			x, up, low, nan := a.v(0), a.v(1), a.v(2), a.v(3)
			a.op("VMOVUPS (SI)(AX*4), %s", x)
			a.next = 4
			mask := a.cmp(notOrdered, x, x)
			a.load(nan, a.c("quiet"))
			a.or(nan, nan, x)
			a.op("VPSRLD $16, %s, %s", x, low)
			if a.wide() {
				a.bin("VPANDD", low, low, a.c("bit0"))
			} else {
				a.bin("VPAND", low, low, a.c("bit0"))
			}
			a.bin("VPADDD", up, x, a.c("round16"))
			a.bin("VPADDD", up, up, low)
			a.choose(x, mask, nan, up)
			a.op("VPSRLD $16, %s, %s", x, x)
			if a.wide() {
				a.op("VPMOVDW %s, (DI)(AX*2)", x)
				return
			}
			a.op("VEXTRACTI128 $1, Y0, X1")
			a.op("VPACKUSDW X1, X0, X0")
			a.op("VMOVDQU X0, (DI)(AX*2)")
		})
	}}
}

// fromBF16Kernel widens.
func fromBF16Kernel() kernel {
	return kernel{name: "fromBF16", params: []param{{"dst", "[]float32"}, {"a", "[]uint16"}}, emit: func(a *asm) {
		a.halfLoop(func() {
			a.op("VPMOVZXWD (SI)(AX*2), %s", a.v(0))
			a.op("VPSLLD $16, %s, %s", a.v(0), a.v(0))
			a.op("VMOVUPS %s, (DI)(AX*4)", a.v(0))
		})
	}}
}

// toF16Kernel rounds to nearest even, with instructions of F16C; what is too large becomes the largest half.
func toF16Kernel() kernel {
	return kernel{name: "toF16", params: []param{{"dst", "[]uint16"}, {"a", "[]float32"}}, emit: func(a *asm) {
		top, low, x := a.v(1), a.v(2), a.v(0)
		a.load(top, a.c("halfmax"))
		a.load(low, a.c("halfmin"))
		a.halfLoop(func() {
			a.op("VMOVUPS (SI)(AX*4), %s", x)
			a.min(x, top, x) // the second operand, x, is the result where it is NaN
			a.max(x, low, x)
			a.op("VCVTPS2PH $0, %s, (DI)(AX*2)", x)
		})
	}}
}

// fromF16Kernel widens.
func fromF16Kernel() kernel {
	return kernel{name: "fromF16", params: []param{{"dst", "[]float32"}, {"a", "[]uint16"}}, emit: func(a *asm) {
		a.halfLoop(func() {
			a.op("VCVTPH2PS (SI)(AX*2), %s", a.v(0))
			a.op("VMOVUPS %s, (DI)(AX*4)", a.v(0))
		})
	}}
}

func (a *asm) halfLoop(body func()) {
	a.op("MOVQ %s, DI", a.base("dst"))
	a.op("MOVQ %s, CX", a.length("dst"))
	a.op("MOVQ %s, SI", a.base("a"))
	a.op("XORQ AX, AX")
	a.rounds("loop", a.lanes, body)
}
