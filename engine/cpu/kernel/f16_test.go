package kernel

import (
	"math"
	"testing"
)

func TestF16(t *testing.T) {
	before := Active()
	defer Use(before)
	for _, l := range Available() {
		if err := Use(l); err != nil {
			t.Fatal(err)
		}
		// Every half comes back from single precision as it was, but for infinities, which are cut, and NaN.
		all, wide, back := make([]uint16, 1<<16), make([]float32, 1<<16), make([]uint16, 1<<16)
		for i := range all {
			all[i] = uint16(i)
		}
		FromF16(wide, all)
		ToF16(back, wide)
		for i, h := range back {
			switch x := float64(wide[i]); {
			case math.IsNaN(x):
				if h&0x7c00 != 0x7c00 || h&0x3ff == 0 {
					t.Errorf("%s: NaN %#04x comes back as %#04x", l, i, h)
				}
			case math.IsInf(x, 0):
				if h != all[i]-1 {
					t.Errorf("%s: %g comes back as %#04x, want the largest", l, x, h)
				}
			case h != all[i]:
				t.Errorf("%s: %#04x = %g comes back as %#04x", l, i, x, h)
			}
		}
		for _, tt := range []struct {
			x    float32
			want uint16
		}{
			{1, 0x3c00},
			{1 + 1.0/2048, 0x3c00},
			{1 + 3.0/2048, 0x3c02},
			{-2, 0xc000},
			{65519, 0x7bff},
			{1e9, 0x7bff},
			{-1e9, 0xfbff},
			{1.0 / (1 << 25), 0},
			{1.5 / (1 << 24), 2},
			{2.5 / (1 << 24), 2},
			{1023.5 / (1 << 24), 0x400},
			{1e-40, 0},
		} {
			x, have := make([]float32, 17), make([]uint16, 17)
			for i := range x {
				x[i] = tt.x
			}
			ToF16(have, x)
			if have[0] != tt.want || have[16] != tt.want {
				t.Errorf("%s: %g: want %#04x, have %#04x and %#04x", l, tt.x, tt.want, have[0], have[16])
			}
		}
	}
}
