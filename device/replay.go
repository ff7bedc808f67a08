package device

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tunesmith/data"
	"tunesmith/internal/atomicfile"
)

// Names of the files of the replay buffer.
const (
	replayFile = "replay.bin"
	keyFile    = "replay.key"
)

// vault encrypts what a device keeps of its owner's text, by AES-256 in Galois/counter mode: whoever changes a file, or
// puts one file in the place of another, is found out.
type vault struct{ aead cipher.AEAD }

// openVault reads the key, and makes one where there is none.
func openVault(path string) (*vault, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		rand.Read(key)
		text = []byte(hex.EncodeToString(key))
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("replay key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("replay key %s: want 64 hexadecimal digits", path)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &vault{aead}, err
}

// write encrypts a value into a file that is bound to its name.
func (v *vault) write(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, v.aead.Seal(nil, nil, text, []byte(filepath.Base(path))))
}

func (v *vault) read(path string, value any) error {
	sealed, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := v.aead.Open(nil, nil, sealed, []byte(filepath.Base(path)))
	if err != nil {
		return fmt.Errorf("%s: it was changed, or its key is another one: %w", path, err)
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Replay is a sample of the records that a device has learned from. Every record that was ever added is in it with the
// same probability (reservoir sampling, Vitter 1985, algorithm R), but for those that have expired.
type Replay struct {
	Seen   int      `json:"seen"` // records that were added, ever
	Last   string   `json:"last"` // adaptation whose records were added last
	Kept   []Memory `json:"kept"`
	most   int
	expiry time.Duration
}

// Memory is a record in the replay buffer.
type Memory struct {
	Record data.Record `json:"record"`
	Added  time.Time   `json:"added"`
}

// NewReplay returns an empty buffer of at most most records, which leave it after expiry; 0 is never.
func NewReplay(most int, expiry time.Duration) *Replay { return &Replay{most: most, expiry: expiry} }

// Add offers the records of an adaptation to the buffer; those of one adaptation are added once. The choice is a
// function of what was added before.
func (r *Replay) Add(id string, records []data.Record, now time.Time) {
	if r.Last == id {
		return
	}
	r.Last = id
	r.Expire(now)
	sum := sha256.Sum256([]byte(id))
	rng := mrand.New(mrand.NewPCG(uint64(r.Seen), binary.LittleEndian.Uint64(sum[:])))
	for _, rec := range records {
		r.Seen++
		m := Memory{rec, now}
		if len(r.Kept) < r.most {
			r.Kept = append(r.Kept, m)
		} else if k := rng.IntN(r.Seen); k < r.most {
			r.Kept[k] = m
		}
	}
}

// Expire drops records that are too old, and those above the cap.
func (r *Replay) Expire(now time.Time) {
	if r.expiry > 0 {
		r.Kept = slices.DeleteFunc(r.Kept, func(m Memory) bool { return now.Sub(m.Added) > r.expiry })
	}
	r.Kept = r.Kept[:min(len(r.Kept), r.most)]
}

// Draw returns n records of the buffer, or all where it has fewer, chosen by the seed.
func (r *Replay) Draw(n int, seed uint64) []data.Record {
	rng := mrand.New(mrand.NewPCG(seed, 1))
	var out []data.Record
	for _, i := range rng.Perm(len(r.Kept))[:min(n, len(r.Kept))] {
		out = append(out, r.Kept[i].Record)
	}
	return out
}
