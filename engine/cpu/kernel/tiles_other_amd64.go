//go:build !linux

package kernel

// permitTiles knows how to ask on Linux only.
func permitTiles() bool { return false }
