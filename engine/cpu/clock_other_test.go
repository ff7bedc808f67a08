//go:build !linux

package cpu

import "time"

var began = time.Now()

// The clock stands for the processor time where that cannot be had.
func processTime() time.Duration { return time.Since(began) }
func threadTime() time.Duration  { return time.Since(began) }
