//go:build !amd64

package kernel

func tileProducts(a, b []uint16, c []float32, lda, ldb, ldc, k, n, keep int) {
	tileProductsPortable(a, b, c, lda, ldb, ldc, k, n, keep)
}
