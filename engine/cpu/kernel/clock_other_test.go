//go:build !linux

package kernel

import "time"

var began = time.Now()

// threadTime is the clock where the processor time cannot be had.
func threadTime() time.Duration { return time.Since(began) }
