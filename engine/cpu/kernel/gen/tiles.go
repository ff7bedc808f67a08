package main

import "fmt"

// tilesKernel multiplies by the tile registers of AMX: n results of 32 × 32, one below the other; the package's
// tiles.go has the picture. Tiles 0 to 3 hold the result, 4 and 5 the left operand, 6 and 7 the right one. Permission
// is the caller's matter; the configuration is loaded and released by each call, since a goroutine changes threads.
func tilesKernel() kernel {
	k := kernel{name: "tileProducts", params: []param{
		{"a", "[]uint16"},
		{"b", "[]uint16"},
		{"c", "[]float32"},
		{"lda", "int"},
		{"ldb", "int"},
		{"ldc", "int"},
		{"k", "int"},
		{"n", "int"},
		{"keep", "int"},
	}}
	k.emit = func(a *asm) {
		a.op("MOVQ %s, SI", a.base("a"))
		a.op("MOVQ %s, DI", a.base("c"))
		a.op("MOVQ %s, R8", a.arg("lda"))
		a.op("SHLQ $1, R8")
		a.op("MOVQ %s, R10", a.arg("ldb"))
		a.op("SHLQ $1, R10")
		a.op("MOVQ %s, R11", a.arg("ldc"))
		a.op("SHLQ $2, R11")
		a.op("MOVQ %s, R13", a.arg("keep"))
		a.op("MOVQ %s, BX", a.arg("n"))
		a.op("LEAQ tiles<>(SB), AX")
		a.tileConfig("AX")
		a.label("tile")
		a.op("MOVQ R11, R12")
		a.op("SHLQ $4, R12")
		a.op("ADDQ DI, R12") // row 16 of the result
		a.op("TESTQ R13, R13")
		a.op("JEQ empty")
		for i, at := range []tilePlace{{"DI", 0}, {"DI", 64}, {"R12", 0}, {"R12", 64}} {
			a.tileLoad(i, at, "R11")
		}
		a.op("JMP start")
		a.label("empty")
		for i := range 4 {
			a.tileZero(i)
		}
		a.label("start")
		a.op("MOVQ SI, AX")
		a.op("MOVQ R8, R9")
		a.op("SHLQ $4, R9")
		a.op("ADDQ SI, R9") // row 16 of the left operand
		a.op("MOVQ %s, DX", a.base("b"))
		a.op("MOVQ %s, CX", a.arg("k"))
		a.op("SHRQ $5, CX")
		a.label("depth")
		a.tileLoad(6, tilePlace{"DX", 0}, "R10")
		a.tileLoad(4, tilePlace{"AX", 0}, "R8")
		a.tileDot(0, 4, 6)
		a.tileLoad(7, tilePlace{"DX", 64}, "R10")
		a.tileDot(1, 4, 7)
		a.tileLoad(5, tilePlace{"R9", 0}, "R8")
		a.tileDot(2, 5, 6)
		a.tileDot(3, 5, 7)
		a.op("ADDQ $64, AX")
		a.op("ADDQ $64, R9")
		a.op("LEAQ (R10*8), R14")
		a.op("LEAQ (DX)(R14*2), DX") // 16 pairs of rows
		a.op("DECQ CX")
		a.op("JNE depth")
		for i, at := range []tilePlace{{"DI", 0}, {"DI", 64}, {"R12", 0}, {"R12", 64}} {
			a.tileStore(i, at, "R11")
		}
		a.op("MOVQ R8, AX")
		a.op("SHLQ $5, AX")
		a.op("ADDQ AX, SI")
		a.op("MOVQ R11, AX")
		a.op("SHLQ $5, AX")
		a.op("ADDQ AX, DI")
		a.op("DECQ BX")
		a.op("JNE tile")
		a.tileRelease()
		a.config = true
	}
	return k
}

// tilePlace is the address of a tile's first row.
type tilePlace struct {
	base   string
	offset int
}

// The instructions below are written as bytes, which the Go assembler has no names for: VEX, three bytes, map 0F38.

var registers = map[string]int{
	"AX": 0, "CX": 1, "DX": 2, "BX": 3, "SP": 4, "BP": 5, "SI": 6, "DI": 7,
	"R8": 8, "R9": 9, "R10": 10, "R11": 11, "R12": 12, "R13": 13, "R14": 14, "R15": 15,
}

// Prefixes of an instruction that VEX holds in two bits.
const (
	prefixNone = 0
	prefixF3   = 2
	prefixF2   = 3
)

// vexTile writes an instruction. v is the register in VEX.vvvv, 0 where there is none; index and base extend the
// registers of a memory operand.
func (a *asm) vexTile(comment string, prefix, opcode, v, index, base int, rest ...int) {
	inverted := func(r int) int { return 1 - r>>3 }
	text := fmt.Sprintf("BYTE $0xc4; BYTE $%#02x; BYTE $%#02x; BYTE $%#02x", 1<<7|inverted(index)<<6|inverted(base)<<5|2, (15-v)<<3|prefix, opcode)
	for _, b := range rest {
		text += fmt.Sprintf("; BYTE $%#02x", b)
	}
	a.op("%s // %s", text, comment)
}

// tileMove loads or stores tile t: row i stands at the place + i·stride.
func (a *asm) tileMove(name string, prefix, t int, at tilePlace, stride string) {
	index, base := registers[stride], registers[at.base]
	a.vexTile(fmt.Sprintf("%s T%d, %d(%s)(%s*1)", name, t, at.offset, at.base, stride), prefix, 0x4b, 0, index, base,
		1<<6|t<<3|4, index&7<<3|base&7, at.offset)
}

func (a *asm) tileLoad(t int, at tilePlace, stride string) {
	a.tileMove("TILELOADD", prefixF2, t, at, stride)
}

func (a *asm) tileStore(t int, at tilePlace, stride string) {
	a.tileMove("TILESTORED", prefixF3, t, at, stride)
}

func (a *asm) tileZero(t int) {
	a.vexTile(fmt.Sprintf("TILEZERO T%d", t), prefixF2, 0x49, 0, 0, 0, 3<<6|t<<3)
}

// tileDot adds x·y to tile d, pairs of bfloat16 at a time.
func (a *asm) tileDot(d, x, y int) {
	a.vexTile(fmt.Sprintf("TDPBF16PS T%d, T%d, T%d", y, x, d), prefixF3, 0x5c, y, 0, 0, 3<<6|d<<3|x)
}

func (a *asm) tileConfig(base string) {
	a.vexTile(fmt.Sprintf("LDTILECFG (%s)", base), prefixNone, 0x49, 0, 0, registers[base], registers[base]&7)
}

func (a *asm) tileRelease() { a.vexTile("TILERELEASE", prefixNone, 0x49, 0, 0, 0, 3<<6) }

// tileData writes the configuration: eight tiles of 16 rows of 64 bytes.
func (a *asm) tileData() {
	words := [8]uint64{0: 1} // palette 1
	for t := range 8 {
		words[2+t/4] |= 64 << (16 * (t % 4))
		words[6] |= 16 << (8 * t)
	}
	fmt.Fprintln(a.out)
	for i, w := range words {
		fmt.Fprintf(a.out, "DATA tiles<>+%d(SB)/8, $%#016x\n", 8*i, w)
	}
	fmt.Fprintln(a.out, "GLOBL tiles<>(SB), RODATA|NOPTR, $64")
}
