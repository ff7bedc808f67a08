package kernel

import (
	"strings"
	"testing"
)

// eachLevel runs a test at every level that this machine has, and with portable kernels in tiles of AVX-512's shape,
// so that what surrounds the tiles is tested for it everywhere.
func eachLevel(t *testing.T, f func(t *testing.T)) {
	defer Use(Active())
	for _, l := range levels {
		t.Run(string(l), func(t *testing.T) {
			if err := Use(l); err != nil {
				t.Skipf("LEVEL SKIPPED: %v", err)
			}
			f(t)
		})
	}
	t.Run("wide", func(t *testing.T) {
		wide := tablePortable
		wide.gemmRows, wide.gemmCols, wide.gemm16 = []int{1, 2, 4, 8, 14}, 32, gemm16Portable(32)
		active = &wide
		f(t)
	})
}

func TestUse(t *testing.T) {
	defer Use(Active())
	if err := Use(Portable); err != nil || Active() != Portable {
		t.Fatalf("Use(portable): %v, active %s", err, Active())
	}
	for name, want := range map[Level]string{
		"sse": `kernel level "sse" is unknown: want one of portable`,
		AMX:   `kernel level "amx" is not available on this machine: want one of portable`,
	} {
		if err := Use(name); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Use(%s): have %v, want %s", name, err, want)
		}
		if Active() != Portable {
			t.Errorf("a failed Use changed the level to %s", Active())
		}
	}
}
