package quant

import (
	"math"
	"testing"
)

// TestF16 takes every half-precision number apart by its definition, and back.
func TestF16(t *testing.T) {
	for h := range 1 << 16 {
		sign, exp, frac := 1-2*float64(h>>15), h>>10&31, float64(h&1023)/1024
		var want float64
		switch exp {
		case 0:
			want = sign * frac * 0x1p-14
		case 31:
			want = sign * math.Inf(1)
			if frac != 0 {
				want = math.NaN()
			}
		default:
			want = sign * (1 + frac) * math.Ldexp(1, exp-15)
		}
		wantFloat(t, "F16", h, FromF16(uint16(h)), want, ToF16)
	}
	wantRounding(t, 0x7bff, FromF16, ToF16)
	for x, want := range map[float32]uint16{65519.996: 0x7bff, 65520: 0x7c00, float32(math.Inf(-1)): 0xfc00, 0x1p-25: 0, 0x1.000002p-25: 1} {
		if got := ToF16(x); got != want {
			t.Errorf("ToF16(%v) = %#x, want %#x", x, got, want)
		}
	}
}

// TestBF16 does the same for bfloat16.
func TestBF16(t *testing.T) {
	for h := range 1 << 16 {
		sign, exp, frac := 1-2*float64(h>>15), h>>7&255, float64(h&127)/128
		var want float64
		switch exp {
		case 0:
			want = sign * frac * 0x1p-126
		case 255:
			want = sign * math.Inf(1)
			if frac != 0 {
				want = math.NaN()
			}
		default:
			want = sign * (1 + frac) * math.Ldexp(1, exp-127)
		}
		wantFloat(t, "BF16", h, FromBF16(uint16(h)), want, ToBF16)
	}
	wantRounding(t, 0x7f7f, FromBF16, ToBF16)
	if got := ToBF16(math.MaxFloat32); got != 0x7f80 {
		t.Errorf("ToBF16 of the largest value = %#x, want infinity", got)
	}
}

// TestF8 checks every 8-bit float by its definition (OCP Open Compute Project, 8-bit floating point, 2023).
func TestF8(t *testing.T) {
	for v := range 256 {
		sign := 1 - 2*float64(v>>7)
		exp, frac := v>>3&15, float64(v&7)/8
		want := sign * (1 + frac) * math.Ldexp(1, exp-7)
		if exp == 0 {
			want = sign * frac * 0x1p-6
		} else if v&127 == 127 {
			want = math.NaN()
		}
		var got [1]float32
		F8E4M3.Dequantize(got[:], []byte{byte(v)})
		wantFloat(t, "F8_E4M3", v, got[0], want, nil)

		exp, frac = v>>2&31, float64(v&3)/4
		switch want = sign * (1 + frac) * math.Ldexp(1, exp-15); {
		case exp == 0:
			want = sign * frac * 0x1p-14
		case exp == 31 && frac == 0:
			want = sign * math.Inf(1)
		case exp == 31:
			want = math.NaN()
		}
		F8E5M2.Dequantize(got[:], []byte{byte(v)})
		wantFloat(t, "F8_E5M2", v, got[0], want, nil)
	}
}

// wantFloat compares a decoded number, sign of zero included, and its way back. The code of a NaN may change, but
// not into a number.
func wantFloat(t *testing.T, name string, code int, got float32, want float64, back func(float32) uint16) {
	t.Helper()
	if math.IsNaN(want) {
		if got == got {
			t.Fatalf("%s %#x: want NaN, have %v", name, code, got)
		}
		if back != nil && back(got)&^0x8000 <= back(float32(math.Inf(1))) {
			t.Fatalf("%s %#x: NaN becomes the number %#x", name, code, back(got))
		}
		return
	}
	if float64(got) != want || math.Signbit(float64(got)) != math.Signbit(want) {
		t.Fatalf("%s %#x: want %v, have %v", name, code, want, got)
	}
	if back != nil && back(got) != uint16(code) {
		t.Fatalf("%s %#x: %v goes back to %#x", name, code, got, back(got))
	}
}

// wantRounding checks the middle between each two neighbours up to the last finite code, and the single-precision
// values beside the middle, with both signs.
func wantRounding(t *testing.T, last uint16, from func(uint16) float32, to func(float32) uint16) {
	t.Helper()
	for h := uint16(0); h < last; h++ {
		lo, hi := float64(from(h)), float64(from(h+1))
		middle := float32((lo + hi) / 2)
		below, above := math.Nextafter32(middle, 0), math.Nextafter32(middle, float32(math.Inf(1)))
		for _, c := range []struct {
			x    float32
			want uint16
		}{{middle, h + h&1}, {below, h}, {above, h + 1}} {
			if got := to(c.x); got != c.want {
				t.Fatalf("%v: want %#x, have %#x", c.x, c.want, got)
			}
			if got := to(-c.x); got != c.want|0x8000 {
				t.Fatalf("%v: want %#x, have %#x", -c.x, c.want|0x8000, got)
			}
		}
	}
}

// TestIntegers checks that the plain integer formats read what encoding/binary writes.
func TestIntegers(t *testing.T) {
	for _, c := range []struct {
		f    Format
		src  []byte
		want float32
	}{
		{I8, []byte{0x80}, -128},
		{U8, []byte{0x80}, 128},
		{Bool, []byte{1}, 1},
		{I16, []byte{0xfe, 0xff}, -2},
		{U16, []byte{0xfe, 0xff}, 65534},
		{I32, []byte{0xfe, 0xff, 0xff, 0xff}, -2},
		{U32, []byte{0, 0, 0, 0x80}, 1 << 31},
		{I64, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, -2},
		{U64, []byte{0, 0, 0, 0, 0, 0, 0, 0x80}, 1 << 63},
		{F64, []byte{0, 0, 0, 0, 0, 0, 0xf8, 0x3f}, 1.5},
	} {
		var got [1]float32
		if c.f.Dequantize(got[:], c.src); got[0] != c.want {
			t.Errorf("%v: want %v, have %v", c.f, c.want, got[0])
		}
	}
}
