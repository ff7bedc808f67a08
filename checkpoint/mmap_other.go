//go:build !unix && !windows

package checkpoint

import "os"

// mapFile reads a file whole, where the system has no mapping.
func mapFile(path string) (b []byte, unmap func() error, err error) {
	b, err = os.ReadFile(path)
	return b, func() error { return nil }, err
}

// dropPages does nothing: the system has no call for it.
func dropPages([]byte) {}
