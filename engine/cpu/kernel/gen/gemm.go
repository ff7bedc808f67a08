package main

import "fmt"

// The matrix kernels keep a tile of rows × two vectors in registers. Per step of the depth they load two vectors
// of the right operand and one broadcast element of the left per row. SI points at the left operand, DX at the
// right one, DI at the result.

// rowPlaces prepares the index registers that reach the rows of the left operand: R8 is the distance of rows in
// bytes, R11 and R12 are 3 and 5 times it, BX 7 times, and R13 points at row 9.
func (a *asm) rowPlaces(rows int) {
	if rows > 3 {
		a.op("LEAQ (R8)(R8*2), R11")
	}
	if rows > 5 {
		a.op("LEAQ (R8)(R8*4), R12")
	}
	if rows > 7 {
		a.op("LEAQ (R12)(R8*2), BX")
	}
	if rows > 9 {
		a.op("LEAQ (SI)(R8*8), R13")
		a.op("ADDQ R8, R13")
	}
}

var rowPlace = []string{
	"(SI)", "(SI)(R8*1)", "(SI)(R8*2)", "(SI)(R11*1)", "(SI)(R8*4)", "(SI)(R12*1)", "(SI)(R11*2)",
	"(SI)(BX*1)", "(SI)(R8*8)", "(R13)", "(R13)(R8*1)", "(R13)(R8*2)", "(R13)(R11*1)", "(R13)(R8*4)",
}

// at adds an offset to a place.
func at(offset int, place string) string {
	if offset == 0 {
		return place
	}
	return fmt.Sprint(offset) + place
}

// tile is one shape of tile: how many rows and vectors, and whether the last vector is partly used.
type tile struct {
	rows, vectors int
	masked        bool
}

// tiles writes the choice by columns (BX) and rows (AX), then the body of each tile.
func (a *asm) tiles(body func(t tile)) {
	variants := []struct {
		name string
		t    tile
	}{{"full", tile{vectors: 2}}, {"wide", tile{vectors: 2, masked: true}}, {"narrow", tile{vectors: 1, masked: true}}}
	a.op("CMPQ BX, $%d", a.lanes)
	a.op("JLE narrow")
	if a.wide() {
		variants = variants[1:]
	} else {
		a.op("CMPQ BX, $%d", 2*a.lanes)
		a.op("JNE wide")
	}
	for i, v := range variants {
		if i > 0 {
			a.label(v.name)
		}
		if v.t.masked {
			if v.t.vectors == 2 {
				a.op("SUBQ $%d, BX", a.lanes)
			}
			a.op("MOVQ CX, R13")
			a.tailMask("BX", a.maskName())
			a.op("MOVQ R13, CX")
		}
		for j, rows := range a.rows[:len(a.rows)-1] {
			a.op("CMPQ AX, $%d", rows)
			a.op("JEQ %s%d", v.name, a.rows[j])
		}
		for j := len(a.rows) - 1; j >= 0; j-- {
			if j < len(a.rows)-1 {
				a.label(fmt.Sprintf("%s%d", v.name, a.rows[j]))
			}
			v.t.rows = a.rows[j]
			body(v.t)
			if j > 0 || i < len(variants)-1 {
				a.op("JMP done")
			}
		}
	}
	a.label("done")
}

// gemmKernel is c (+)= a·b in single precision: element (i, l) of a at i·ars + l·acs, row l of b at l·ldb. In
// bfloat16 the right operand is a panel of whole rows.
func gemmKernel(name string, bf16 bool) kernel {
	k := kernel{name: name, params: []param{
		{"a", "[]float32"},
		{"b", "[]float32"},
		{"c", "[]float32"},
		{"ars", "int"},
		{"acs", "int"},
		{"ldb", "int"},
		{"ldc", "int"},
		{"k", "int"},
		{"rows", "int"},
		{"cols", "int"},
		{"keep", "int"},
	}}
	if bf16 {
		k.params[1].kind = "[]uint16"
	}
	k.emit = func(a *asm) {
		for _, p := range [][2]string{{"a", "SI"}, {"b", "DX"}, {"c", "DI"}} {
			a.op("MOVQ %s, %s", a.base(p[0]), p[1])
		}
		for _, p := range [][2]string{{"ars", "R8"}, {"acs", "R9"}, {"ldb", "R10"}, {"k", "CX"}, {"rows", "AX"}, {"cols", "BX"}} {
			a.op("MOVQ %s, %s", a.arg(p[0]), p[1])
		}
		a.op("SHLQ $2, R8")
		a.op("SHLQ $2, R9")
		a.op("SHLQ $%d, R10", map[bool]int{false: 2, true: 1}[bf16])
		a.tiles(func(t tile) { a.gemmTile(t, bf16) })
	}
	return k
}

func (a *asm) gemmTile(t tile, bf16 bool) {
	last := 16
	if a.wide() {
		last = 32
	}
	b := []string{a.v(last - 4), a.v(last - 3)}
	left := []string{a.v(last - 2), a.v(last - 2)}
	if a.wide() {
		left[1] = a.v(last - 1)
	}
	acc := func(i, j int) string { return a.v(i*t.vectors + j) }
	a.rowPlaces(t.rows)
	for i := range t.rows * t.vectors {
		a.zero(a.v(i))
	}
	loop := a.newLabel("depth")
	a.op("PCALIGN $16")
	a.label(loop)
	for j := range t.vectors {
		switch place := at(j*a.lanes*4, "(DX)"); {
		case bf16:
			a.op("VPMOVZXWD %s, %s", at(j*a.lanes*2, "(DX)"), b[j])
			a.op("VPSLLD $16, %s, %s", b[j], b[j])
		case t.masked && j == t.vectors-1:
			a.loadMasked(b[j], place, a.maskName())
		default:
			a.op("VMOVUPS %s, %s", place, b[j])
		}
	}
	for i := range t.rows {
		a.op("VBROADCASTSS %s, %s", rowPlace[i], left[i%2])
		for j := range t.vectors {
			a.fma(acc(i, j), b[j], left[i%2])
		}
	}
	a.op("ADDQ R9, SI")
	if t.rows > 9 {
		a.op("ADDQ R9, R13")
	}
	a.op("ADDQ R10, DX")
	a.op("DECQ CX")
	a.op("JNE %s", loop)

	keep, old := b[0], b[1]
	a.op("VPBROADCASTQ %s, %s", a.arg("keep"), keep)
	a.op("MOVQ %s, R8", a.arg("ldc"))
	for i := range t.rows {
		for j := range t.vectors {
			place := at(j*a.lanes*4, "(DI)")
			if t.masked && j == t.vectors-1 {
				a.loadMasked(old, place, a.maskName())
				a.and(old, old, keep)
				a.add(old, old, acc(i, j))
				a.storeMasked(place, old, a.maskName())
				continue
			}
			a.and(old, keep, place)
			a.add(old, old, acc(i, j))
			a.op("VMOVUPS %s, %s", old, place)
		}
		if i < t.rows-1 {
			a.op("LEAQ (DI)(R8*4), DI")
		}
	}
}
