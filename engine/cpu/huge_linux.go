package cpu

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// preferHugePages asks for memory in pages of 2 MB: rows of activations lie far apart, and with small pages each
// tile of a product would need more translations than the processor keeps. A refusal costs only speed.
func preferHugePages(s []float32) {
	const page = 2 << 20
	if len(s)*4 < 2*page {
		return
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), 4*len(s))
	skip := int(-uintptr(unsafe.Pointer(&s[0])) & (page - 1))
	_ = unix.Madvise(bytes[skip:skip+(len(bytes)-skip)/page*page], unix.MADV_HUGEPAGE)
}
