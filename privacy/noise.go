package privacy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// Noise is a stream of random numbers that nobody without its key can tell from true ones: AES-256 in counter mode. With
// the same key and label it is the same stream, so that a step that is made again after a crash is the same step and
// gives nothing more away.
type Noise struct {
	stream cipher.Stream
	spare  float64
	full   bool
}

// NewNoise returns the stream of a secret key for one use, which the label names: a label is never used twice for
// different data.
func NewNoise(key []byte, label string) *Noise {
	derived, err := hkdf.Key(sha256.New, key, nil, "tunesmith noise "+label, 32)
	if err != nil {
		panic(err) // 32 bytes can always be derived
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		panic(err) // the key has the right length
	}
	return &Noise{stream: cipher.NewCTR(block, make([]byte, aes.BlockSize))}
}

// Uint64 returns 64 random bits.
func (n *Noise) Uint64() uint64 {
	var b [8]byte
	n.stream.XORKeyStream(b[:], b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// Uniform returns a number from 0 to below 1.
func (n *Noise) Uniform() float64 { return float64(n.Uint64()>>11) / (1 << 53) }

// Normal returns a number of the standard normal distribution, by Box and Muller.
func (n *Noise) Normal() float64 {
	if n.full {
		n.full = false
		return n.spare
	}
	r := math.Sqrt(-2 * math.Log(1-n.Uniform()))
	sin, cos := math.Sincos(2 * math.Pi * n.Uniform())
	n.spare, n.full = r*sin, true
	return r * cos
}
