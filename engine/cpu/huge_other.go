//go:build !linux

package cpu

// preferHugePages asks for memory in large pages, where the system can be asked.
func preferHugePages([]float32) {}
