package kernel

import "golang.org/x/sys/unix"

// permitTiles asks Linux for the state of the tile registers, for all threads of the process
// (Documentation/arch/x86/xstate.rst).
func permitTiles() bool {
	const (
		requestPermission = 0x1023 // ARCH_REQ_XCOMP_PERM
		tileData          = 18
	)
	_, _, err := unix.Syscall(unix.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return err == 0
}
