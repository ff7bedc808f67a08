package main

import "fmt"

// stream is a slice that a loop walks.
type stream struct {
	name        string
	read, write bool
}

func in(names ...string) (s []stream) {
	for _, n := range names {
		s = append(s, stream{n, true, false})
	}
	return s
}

func out(names ...string) (s []stream) {
	for _, n := range names {
		s = append(s, stream{n, false, true})
	}
	return s
}

func inout(names ...string) (s []stream) {
	for _, n := range names {
		s = append(s, stream{n, true, true})
	}
	return s
}

// pointers hold the streams of a loop, AX the index of the element, CX what is left.
var pointers = []string{"DI", "SI", "DX", "BX", "R8", "R9", "R10", "R11"}

// loop walks the streams, a vector at a time, with a masked vector at the end. body gets the register of each
// stream that is read and returns those that are written, in the order of the streams; u numbers the copies of an
// unrolled body, and tail says that lanes beyond the end are zero.
type loop struct {
	streams []stream
	scalars []string
	unroll  int
	first   int          // vector registers below it are kept between rounds
	setup   func(a *asm) // before the loop
	body    func(a *asm, u int, v []string, tail bool) []string
}

func (l loop) emit(a *asm) {
	for i, s := range l.streams {
		a.op("MOVQ %s, %s", a.base(s.name), pointers[i])
	}
	a.op("MOVQ %s, CX", a.length(l.streams[0].name))
	for i, s := range l.scalars {
		a.op("VBROADCASTSS %s, %s", a.arg(s), a.scalar(i))
	}
	if l.setup != nil {
		l.setup(a)
	}
	a.op("XORQ AX, AX")
	if l.unroll > 1 {
		a.rounds("unrolled", l.unroll*a.lanes, func() {
			for u := range l.unroll {
				l.round(a, u)
			}
		})
	}
	a.rounds("loop", a.lanes, func() { l.round(a, 0) })
	a.op("TESTQ CX, CX")
	a.op("JEQ done")
	a.tailMask("CX", a.maskName())
	l.masked(a)
	a.label("done")
}

// rounds repeats the body while CX has at least n elements. AX is the index of the element.
func (a *asm) rounds(start string, n int, body func()) {
	a.op("SUBQ $%d, CX", n)
	a.op("JLT %send", start)
	a.label(start)
	body()
	a.op("ADDQ $%d, AX", n)
	a.op("SUBQ $%d, CX", n)
	a.op("JGE %s", start)
	a.label(start + "end")
	a.op("ADDQ $%d, CX", n)
}

func place(i, offset int) string {
	if offset == 0 {
		return fmt.Sprintf("(%s)(AX*4)", pointers[i])
	}
	return fmt.Sprintf("%d(%s)(AX*4)", offset, pointers[i])
}

func (l loop) round(a *asm, u int) {
	a.next = l.first
	var v []string
	for i, s := range l.streams {
		if s.read {
			r := a.tmp()
			a.op("VMOVUPS %s, %s", place(i, u*a.lanes*4), r)
			v = append(v, r)
		}
	}
	results := l.body(a, u, v, false)
	n := 0
	for i, s := range l.streams {
		if s.write {
			a.op("VMOVUPS %s, %s", results[n], place(i, u*a.lanes*4))
			n++
		}
	}
}

func (l loop) masked(a *asm) {
	a.next = l.first
	var v []string
	for i, s := range l.streams {
		if s.read {
			r := a.tmp()
			a.loadMasked(r, place(i, 0), a.maskName())
			v = append(v, r)
		}
	}
	results := l.body(a, 0, v, true)
	n := 0
	for i, s := range l.streams {
		if s.write {
			a.storeMasked(place(i, 0), results[n], a.maskName())
			n++
		}
	}
}

// join concatenates streams.
func join(s ...[]stream) (all []stream) {
	for _, x := range s {
		all = append(all, x...)
	}
	return all
}

// mapKernel is a kernel over streams and float32 arguments.
func mapKernel(name string, streams []stream, scalars []string, body func(a *asm, v []string) []string) kernel {
	l := loop{
		streams: streams, scalars: scalars, unroll: 1,
		body: func(a *asm, _ int, v []string, _ bool) []string { return body(a, v) },
	}
	return kernel{name: name, params: params(streams, scalars), emit: l.emit}
}

func params(streams []stream, scalars []string) (p []param) {
	for _, s := range streams {
		p = append(p, param{s.name, "[]float32"})
	}
	for _, s := range scalars {
		p = append(p, param{s, "float32"})
	}
	return p
}
