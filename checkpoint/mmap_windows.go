package checkpoint

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// mapFile maps a file for reading; unmap releases it.
func mapFile(path string) (b []byte, unmap func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	size, err := mappable(f)
	if err != nil || size == 0 {
		return nil, func() error { return nil }, err
	}
	mapping, err := windows.CreateFileMapping(windows.Handle(f.Fd()), nil, windows.PAGE_READONLY, 0, 0, nil)
	if err != nil {
		return nil, nil, os.NewSyscallError("CreateFileMapping", err)
	}
	addr, err := windows.MapViewOfFile(mapping, windows.FILE_MAP_READ, 0, 0, uintptr(size))
	err = os.NewSyscallError("MapViewOfFile", err)
	// The view keeps the mapping alive.
	if err = errors.Join(err, windows.CloseHandle(mapping)); addr == 0 {
		return nil, nil, err
	}
	// The address is no Go pointer; taking it through a pointer to it says so to vet.
	b = unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), size)
	return b, func() error { return windows.UnmapViewOfFile(addr) }, nil
}

// dropPages does nothing: the system has no call for it.
func dropPages([]byte) {}
