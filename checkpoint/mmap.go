//go:build unix || windows

package checkpoint

import (
	"errors"
	"fmt"
	"os"
)

// mappable returns the size of a file that can be mapped.
func mappable(f *os.File) (int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("want a regular file")
	}
	size := int(info.Size())
	if int64(size) != info.Size() {
		return 0, fmt.Errorf("%d bytes are more than this machine can address", info.Size())
	}
	return size, nil
}
