package kernel

import "golang.org/x/sys/cpu"

// hasTiles reports whether this process may use the tile registers: the processor has them, and the system, asked
// once, keeps them over a change of threads.
var hasTiles = cpu.X86.HasAVX512VNNI && cpu.X86.HasAMXTile && cpu.X86.HasAMXBF16 && permitTiles()

// tileProducts computes n tiles of 32 rows by the level in use; see tileProductsPortable.
func tileProducts(a, b []uint16, c []float32, lda, ldb, ldc, k, n, keep int) {
	if current == AMX {
		// Assembly would not notice.
		_ = a[(n*tileRows-1)*lda+k-1]
		_ = b[k/2*ldb-1]
		_ = c[(n*tileRows-1)*ldc+ldb/2-1]
		tileProductsAVX512(a, b, c, lda, ldb, ldc, k, n, keep)
		return
	}
	tileProductsPortable(a, b, c, lda, ldb, ldc, k, n, keep)
}
