package trainer

import (
	"runtime"
	"sync"
)

// Parallel spreads the optimizer's work over the processors; package optim gives the same bits for any cut.
func Parallel(n int, f func(lo, hi int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 {
		f(0, n)
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { f(w*n/workers, (w+1)*n/workers) })
	}
	wg.Wait()
}
