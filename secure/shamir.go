package secure

import (
	"crypto/rand"
	"errors"
	"math/big"
)

// Shamir's secret sharing (1979): a secret is the value at 0 of a random polynomial modulo a prime, a share its value at
// the share's place plus 1.

// secretBytes is the length of a secret and of a share.
const secretBytes = 32

// prime is 2²⁵⁶ − 189, the largest below 2²⁵⁶.
var prime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 8*secretBytes), big.NewInt(189))

func newSecret() ([]byte, error) {
	x, err := rand.Int(rand.Reader, prime)
	if err != nil {
		return nil, err
	}
	return x.FillBytes(make([]byte, secretBytes)), nil
}

// split returns n shares of a secret, any threshold of which give it back, and fewer of which say nothing.
func split(secret []byte, threshold, n int) ([][]byte, error) {
	coefficients := []*big.Int{new(big.Int).SetBytes(secret)}
	for range threshold - 1 {
		c, err := rand.Int(rand.Reader, prime)
		if err != nil {
			return nil, err
		}
		coefficients = append(coefficients, c)
	}
	out := make([][]byte, n)
	for i := range out {
		x, y := big.NewInt(int64(i+1)), new(big.Int)
		for k := len(coefficients) - 1; k >= 0; k-- {
			y.Mul(y, x).Add(y, coefficients[k]).Mod(y, prime)
		}
		out[i] = y.FillBytes(make([]byte, secretBytes))
	}
	return out, nil
}

// join returns the secret of shares at different places, by Lagrange's formula at 0.
func join(places []int, shares [][]byte) ([]byte, error) {
	secret := new(big.Int)
	for i, share := range shares {
		if len(share) != secretBytes {
			return nil, errors.New("secure aggregation: a share has the wrong length")
		}
		term := new(big.Int).SetBytes(share)
		for k := range shares {
			if k == i {
				continue
			}
			xi, xk := big.NewInt(int64(places[i]+1)), big.NewInt(int64(places[k]+1))
			inverse := new(big.Int).ModInverse(new(big.Int).Mod(new(big.Int).Sub(xk, xi), prime), prime)
			if inverse == nil {
				return nil, errors.New("secure aggregation: two shares have one place")
			}
			term.Mul(term, xk).Mod(term, prime).Mul(term, inverse).Mod(term, prime)
		}
		secret.Add(secret, term).Mod(secret, prime)
	}
	return secret.FillBytes(make([]byte, secretBytes)), nil
}
