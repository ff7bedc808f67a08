//go:build !amd64

package kernel

// tables returns the kernels of a level, nil where the processor lacks it.
func tables(l Level) *table {
	if l == Portable {
		return &tablePortable
	}
	return nil
}
