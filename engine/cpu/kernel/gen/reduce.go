package main

// reduceKernels are the kernels that return a number. Sums stand in several registers, joined in a fixed order at
// the end, so the bits depend on the length alone.
func reduceKernels() []kernel {
	sum := func(name string, names []string, f func(a *asm, acc string, v []string)) kernel {
		return reduction(name, in(names...), nil, 4, "VADDPS", func(a *asm, acc string, v []string, _ bool) []string {
			f(a, acc, v)
			return nil
		})
	}
	return []kernel{
		sum("sum", []string{"a"}, func(a *asm, acc string, v []string) { a.add(acc, acc, v[0]) }),
		sum("sumSquares", []string{"a"}, func(a *asm, acc string, v []string) { a.fma(acc, v[0], v[0]) }),
		sum("dot", []string{"a", "b"}, func(a *asm, acc string, v []string) { a.fma(acc, v[0], v[1]) }),
		// Σ a·b·(c + offset)
		reduction("dot3", in("a", "b", "c"), []string{"offset"}, 4, "VADDPS", func(a *asm, acc string, v []string, _ bool) []string {
			a.add(v[2], v[2], a.scalar(0))
			a.mul(v[0], v[0], v[1])
			a.fma(acc, v[0], v[2])
			return nil
		}),
		reduction("max", in("a"), nil, 4, "VMAXPS", func(a *asm, acc string, v []string, tail bool) []string {
			if tail {
				a.choose(v[0], a.maskName(), v[0], acc)
			}
			a.max(acc, acc, v[0])
			return nil
		}),
		// dst = e^(a − c), and the sum of it
		reduction("expSum", join(out("dst"), in("a")), []string{"c"}, 1, "VADDPS", func(a *asm, acc string, v []string, tail bool) []string {
			expTerm(a, acc, v[0], tail)
			return v
		}),
		// Σ e^(a − c)
		reduction("sumExp", in("a"), []string{"c"}, 1, "VADDPS", func(a *asm, acc string, v []string, tail bool) []string {
			expTerm(a, acc, v[0], tail)
			return nil
		}),
	}
}

func expTerm(a *asm, acc, v string, tail bool) {
	a.sub(v, v, a.scalar(0))
	a.exp(v)
	if tail {
		a.keep(v, a.maskName())
	}
	a.add(acc, acc, v)
}

// reduction is a loop with copies of an accumulator, combined at the end; those of a maximum start at −∞.
func reduction(name string, streams []stream, scalars []string, copies int, combine string, body func(a *asm, acc string, v []string, tail bool) []string) kernel {
	l := loop{
		streams: streams, scalars: scalars, unroll: copies, first: copies,
		setup: func(a *asm) {
			for i := range copies {
				if combine == "VMAXPS" {
					a.load(a.v(i), a.c("neginf"))
				} else {
					a.zero(a.v(i))
				}
			}
		},
		body: func(a *asm, u int, v []string, tail bool) []string { return body(a, a.v(u), v, tail) },
	}
	return kernel{name: name, params: params(streams, scalars), ret: true, emit: func(a *asm) {
		l.emit(a)
		for n := copies / 2; n > 0; n /= 2 {
			for i := range n {
				a.bin(combine, a.v(i), a.v(i), a.v(i+n))
			}
		}
		if a.wide() {
			a.op("VEXTRACTF64X4 $1, Z0, Y1")
			a.op("%s Y1, Y0, Y0", combine)
		}
		a.op("VEXTRACTF128 $1, Y0, X1")
		a.op("%s X1, X0, X0", combine)
		a.op("VPERMILPS $0x4e, X0, X1")
		a.op("%s X1, X0, X0", combine)
		a.op("VPERMILPS $0xb1, X0, X1")
		a.op("%s X1, X0, X0", combine)
		a.op("VMOVSS X0, ret+%d(FP)", a.size)
	}}
}
