package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// target is an instruction set. rows are the heights of the matrix tiles that it has, ascending; a tile is two
// vectors wide.
type target struct {
	file, suffix string
	vector       string // letter of the vector registers
	lanes        int    // float32 per vector
	rows         []int
}

var targets = []target{
	{"avx2", "AVX2", "Y", 8, []int{1, 2, 4, 6}},
	{"avx512", "AVX512", "Z", 16, []int{1, 2, 4, 8, 14}},
}

// param is an argument; kind is its Go type.
type param struct{ name, kind string }

// kernel is one function; emit writes its body.
type kernel struct {
	name   string
	params []param
	ret    bool // returns a float32
	emit   func(a *asm)
}

func (k kernel) signature() string {
	var s []string
	for _, p := range k.params {
		s = append(s, p.name+" "+p.kind)
	}
	return strings.Join(s, ", ")
}

func (k kernel) result() string {
	if k.ret {
		return " float32"
	}
	return ""
}

// layout returns the offset of each argument, and the size of all.
func (k kernel) layout() (offsets map[string]int, size int) {
	offsets = map[string]int{}
	for _, p := range k.params {
		width := 8
		switch {
		case p.kind[0] == '[':
			width = 24
		case p.kind == "float32":
			width = 4
		}
		if width >= 8 {
			size = (size + 7) &^ 7
		}
		offsets[p.name] = size
		size += width
	}
	return offsets, size
}

// asm writes the text of one file. Arguments of its methods stand destination first, then the operands in the
// order of the formula; the Go assembler's own order is the reverse.
type asm struct {
	target
	out     io.Writer
	kernel  kernel
	offsets map[string]int
	size    int
	next    int      // first free vector register
	consts  []string // constants used in this file
	masks   bool     // the table of tail masks is used
	config  bool     // the configuration of the tile registers is used
	labels  int
}

func (a *asm) wide() bool { return a.lanes == 16 }

func (a *asm) op(format string, args ...any) { fmt.Fprintf(a.out, "\t"+format+"\n", args...) }

func (a *asm) label(name string) { fmt.Fprintf(a.out, "%s:\n", name) }

func (a *asm) newLabel(stem string) string {
	a.labels++
	return fmt.Sprintf("%s%d", stem, a.labels)
}

// function writes one kernel.
func (a *asm) function(k kernel) {
	a.kernel = k
	a.offsets, a.size = k.layout()
	a.labels = 0
	size := a.size
	if k.ret {
		a.size = (a.size + 7) &^ 7 // the place of the result
		size = a.size + 4
	}
	fmt.Fprintf(a.out, "\n// func %s%s(%s)%s\nTEXT ·%s%s(SB), NOSPLIT, $0-%d\n", k.name, a.suffix, k.signature(), k.result(), k.name, a.suffix, size)
	k.emit(a)
	a.op("VZEROUPPER")
	a.op("RET")
}

// base, length and arg are the places of an argument.
func (a *asm) base(name string) string { return fmt.Sprintf("%s_base+%d(FP)", name, a.offsets[name]) }

func (a *asm) length(name string) string {
	return fmt.Sprintf("%s_len+%d(FP)", name, a.offsets[name]+8)
}
func (a *asm) arg(name string) string { return fmt.Sprintf("%s+%d(FP)", name, a.offsets[name]) }

// v names vector register i.
func (a *asm) v(i int) string { return fmt.Sprintf("%s%d", a.vector, i) }

// tmp returns a free vector register.
func (a *asm) tmp() string {
	a.next++
	return a.v(a.next - 1)
}

// scalar is the register that holds broadcast argument i.
func (a *asm) scalar(i int) string {
	if a.wide() {
		return a.v(31 - i)
	}
	return a.v(14 - i)
}

// constants are float32 values, or bit patterns where they are uint32.
var constants = map[string]any{
	"one":     float32(1),
	"two":     float32(2),
	"half":    float32(0.5),
	"sign":    uint32(1 << 31),
	"nosign":  uint32(1<<31 - 1),
	"log2e":   float32(math.Log2E),
	"magic":   float32(3 << 22), // adding it leaves the rounded integer in the low bits
	"ln2hi":   float32(0.693359375),
	"ln2lo":   float32(math.Ln2 - 0.693359375),
	"exphi":   float32(89),
	"explo":   float32(-87),
	"expbias": uint32(126 << 23),
	// e^r = 1 + r + r²·(e2 + e3·r + …), relative error 3e-9 for |r| ≤ ln(2)/2.
	"e2": float32(0.49999993431891193),
	"e3": float32(0.1666652039677075),
	"e4": float32(0.04166839083131378),
	"e5": float32(0.008368745320049355),
	"e6": float32(0.001381453789384656),
	// tanh x = x + x·z·(t0 + t1·z + …), z = x², relative error 5e-9 for |x| ≤ 0.625.
	"tanhsmall": float32(0.625),
	"t0":        float32(-0.33333276057267225),
	"t1":        float32(0.13331274387980963),
	"t2":        float32(-0.05372512346172259),
	"t3":        float32(0.020589817537417336),
	"t4":        float32(-0.0056483076099897766),
	// erfc(z)/2 = e^(−z²)·t·(g0 + g1·t + …), t = 1/(1 + 0.35·z), relative error 7e-9 for 0 ≤ z ≤ 10.
	"gt":       float32(0.35 / math.Sqrt2),
	"g0":       float32(0.19748377207409137 / 2),
	"g1":       float32(0.19713847651737548 / 2),
	"g2":       float32(0.1879013959838763 / 2),
	"g3":       float32(0.15119084611085823 / 2),
	"g4":       float32(0.14602879753446102 / 2),
	"g5":       float32(0.08704355251974139 / 2),
	"g6":       float32(-0.02773530247587811 / 2),
	"g7":       float32(0.18148334949213527 / 2),
	"g8":       float32(-0.1589376505266647 / 2),
	"g9":       float32(0.03840276989540058 / 2),
	"neghalf":  float32(-0.5),
	"invroot":  float32(1 / math.Sqrt2 / math.SqrtPi), // 1/√(2π)
	"gelutwo":  float32(2 * math.Sqrt2 / math.SqrtPi), // 2·√(2/π)
	"gelucube": float32(2 * math.Sqrt2 / math.SqrtPi * 0.044715),
	"gelutri":  float32(2 * math.Sqrt2 / math.SqrtPi * 0.044715 * 3),
	"inf":      uint32(0x7f800000),
	"neginf":   uint32(0xff800000),
	"levels":   float32(4095),
	"round16":  uint32(0x7fff),
	"bit0":     uint32(1),
	"quiet":    uint32(0x400000),
	"halfmax":  float32(65504),
	"halfmin":  float32(-65504),
}

// c is the memory operand of a constant.
func (a *asm) c(name string) string {
	i := 0
	for ; i < len(a.consts) && a.consts[i] != name; i++ {
	}
	if i == len(a.consts) {
		a.consts = append(a.consts, name)
	}
	width := 32
	if a.wide() {
		width = 4
	}
	return fmt.Sprintf("consts<>+%d(SB)", i*width)
}

func bits(name string) uint32 {
	switch v := constants[name].(type) {
	case float32:
		return math.Float32bits(v)
	case uint32:
		return v
	}
	panic("no constant " + name)
}

// data writes the constants of the file: one copy each where the instruction broadcasts it, a vector otherwise.
func (a *asm) data() {
	for i, name := range a.consts {
		b := uint64(bits(name))
		if i == 0 {
			fmt.Fprintln(a.out)
		}
		if a.wide() {
			fmt.Fprintf(a.out, "DATA consts<>+%d(SB)/4, $0x%08x // %s\n", 4*i, b, name)
			continue
		}
		for j := range 4 {
			fmt.Fprintf(a.out, "DATA consts<>+%d(SB)/8, $0x%016x // %s\n", 32*i+8*j, b<<32|b, name)
		}
	}
	if n := len(a.consts); n > 0 {
		fmt.Fprintf(a.out, "GLOBL consts<>(SB), RODATA|NOPTR, $%d\n", n*map[bool]int{true: 4, false: 32}[a.wide()])
	}
	if a.config {
		a.tileData()
	}
	if a.masks {
		fmt.Fprintln(a.out)
		for j := range 4 {
			fmt.Fprintf(a.out, "DATA tailmask<>+%d(SB)/8, $-1\n", 8*j)
		}
		for j := range 4 {
			fmt.Fprintf(a.out, "DATA tailmask<>+%d(SB)/8, $0\n", 32+8*j)
		}
		fmt.Fprintln(a.out, "GLOBL tailmask<>(SB), RODATA|NOPTR, $64")
	}
}

// bin writes d = x ∘ y. The last operand may be a constant or another place in memory.
func (a *asm) bin(name, d, x, y string) {
	a.op("%s%s %s, %s, %s", name, a.broadcast(y), y, x, d)
}

// broadcast is the suffix of an instruction whose operand is a constant of one element.
func (a *asm) broadcast(operand string) string {
	if a.wide() && strings.HasPrefix(operand, "consts") {
		return ".BCST"
	}
	return ""
}

func (a *asm) add(d, x, y string) { a.bin("VADDPS", d, x, y) }
func (a *asm) sub(d, x, y string) { a.bin("VSUBPS", d, x, y) }
func (a *asm) mul(d, x, y string) { a.bin("VMULPS", d, x, y) }
func (a *asm) div(d, x, y string) { a.bin("VDIVPS", d, x, y) }
func (a *asm) max(d, x, y string) { a.bin("VMAXPS", d, x, y) }
func (a *asm) min(d, x, y string) { a.bin("VMINPS", d, x, y) }
func (a *asm) and(d, x, y string) { a.bin("VANDPS", d, x, y) }
func (a *asm) or(d, x, y string)  { a.bin("VORPS", d, x, y) }
func (a *asm) xor(d, x, y string) { a.bin("VXORPS", d, x, y) }

// fma writes d += x·y, fnma d −= x·y, horner d = d·x + y.
func (a *asm) fma(d, x, y string)    { a.bin("VFMADD231PS", d, x, y) }
func (a *asm) fnma(d, x, y string)   { a.bin("VFNMADD231PS", d, x, y) }
func (a *asm) horner(d, x, y string) { a.bin("VFMADD213PS", d, x, y) }

// load fills d from a constant or copies a register.
func (a *asm) load(d, from string) {
	switch {
	case !strings.HasPrefix(from, "consts"):
		a.op("VMOVAPS %s, %s", from, d)
	case a.wide():
		a.op("VBROADCASTSS %s, %s", from, d)
	default:
		a.op("VMOVUPS %s, %s", from, d)
	}
}

// zero clears a register.
func (a *asm) zero(d string) {
	if a.wide() {
		a.op("VPXORD %s, %s, %s", d, d, d)
	} else {
		a.op("VXORPS %s, %s, %s", d, d, d)
	}
}

// Predicates of cmp; the second is true for NaN.
const (
	less       = 0x11
	notLess    = 0x15
	notOrdered = 0x03
)

// cmp compares x with y and returns the mask: a mask register of AVX-512, a vector otherwise.
func (a *asm) cmp(predicate int, x, y string) (mask string) {
	mask = "K2"
	if !a.wide() {
		mask = a.tmp()
	}
	a.op("VCMPPS%s $%d, %s, %s, %s", a.broadcast(y), predicate, y, x, mask)
	return mask
}

// choose writes d = mask ? yes : no. The mask may also be a vector whose sign bits decide.
func (a *asm) choose(d, mask, yes, no string) {
	switch {
	case !a.wide():
		a.op("VBLENDVPS %s, %s, %s, %s", mask, yes, no, d)
	case mask[0] != 'K':
		a.op("VPMOVD2M %s, K2", mask)
		a.op("VBLENDMPS %s, %s, K2, %s", yes, no, d)
	default:
		a.op("VBLENDMPS %s, %s, %s, %s", yes, no, mask, d)
	}
}

// keep clears the lanes of d that are not in the mask.
func (a *asm) keep(d, mask string) {
	if a.wide() {
		a.op("VMOVAPS.Z %s, %s, %s", d, mask, d)
	} else {
		a.and(d, d, mask)
	}
}

// tailMask makes the mask of the first n lanes, 0 < n < lanes: K1, or the vector mask. n is lost.
func (a *asm) tailMask(n, mask string) {
	if a.wide() {
		if n != "CX" {
			a.op("MOVQ %s, CX", n)
		}
		a.op("MOVL $1, R12")
		a.op("SHLL CX, R12")
		a.op("DECL R12")
		a.op("KMOVW R12, %s", mask)
		return
	}
	a.masks = true
	a.op("LEAQ tailmask<>+32(SB), R12")
	a.op("SHLQ $2, %s", n)
	a.op("SUBQ %s, R12", n)
	a.op("VMOVUPS (R12), %s", mask)
}

// maskName is the register of the tail mask in loops over elements.
func (a *asm) maskName() string {
	if a.wide() {
		return "K1"
	}
	return "Y15"
}

// loadMasked and storeMasked move the lanes of the mask; other lanes load as zero.
func (a *asm) loadMasked(d, place, mask string) {
	if a.wide() {
		a.op("VMOVUPS.Z %s, %s, %s", place, mask, d)
	} else {
		a.op("VMASKMOVPS %s, %s, %s", place, mask, d)
	}
}

func (a *asm) storeMasked(place, s, mask string) {
	if a.wide() {
		a.op("VMOVUPS %s, %s, %s", s, mask, place)
	} else {
		a.op("VMASKMOVPS %s, %s, %s", s, mask, place)
	}
}
