// Package secure adds up numbers of several parties so that whoever adds sees only the sum (Bonawitz et al. 2017):
// every pair of parties agrees on a mask that one adds and the other takes off, and every party has a mask of its own.
// Each party's secrets are shared among the others, so that the masks of those who drop out can be taken off, and no
// party's numbers can be seen as long as fewer than the threshold work against it.
//
// A sum takes four exchanges: Advertise, Share, Mask, Reveal. Keys are X25519, masks AES-256 in counter mode keyed by
// HKDF-SHA256, shares Shamir's over the integers modulo a prime of 256 bits. Public keys are signed by the parties, so that the server that
// passes them on cannot put its own in their place.
package secure

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrTooFew is a sum with fewer parties than its threshold. Nothing is revealed then.
var ErrTooFew = errors.New("secure aggregation: fewer parties than the threshold")

// Keys are what a party makes public for one sum.
type Keys struct {
	Name      string `json:"name"`
	Mask      []byte `json:"mask"` // X25519 public keys: of the pairwise masks,
	Seal      []byte `json:"seal"` // and of the envelopes
	Signature []byte `json:"signature"`
}

// message is what a party signs.
func (k Keys) message(session []byte) []byte {
	b := []byte("tunesmith secure keys")
	for _, part := range [][]byte{session, []byte(k.Name), k.Mask, k.Seal} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

// Verify checks the signature of the keys' party.
func (k Keys) Verify(session []byte, key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, k.message(session), k.Signature) {
		return fmt.Errorf("secure aggregation: the keys of %s are not signed by it", k.Name)
	}
	return nil
}

// Envelope is a sealed message from one party to another, which the server passes on.
type Envelope struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Sealed []byte `json:"sealed"`
}

// Reveal is what a party gives away at the end: its share of the own mask of every party whose numbers are in the sum,
// and of the key of every party that dropped out. It is never both of one party.
type Reveal struct {
	Name  string            `json:"name"`
	Masks map[string][]byte `json:"masks"`
	Keys  map[string][]byte `json:"keys"`
}

// Party is one party's side of one sum.
type Party struct {
	name      string
	session   []byte
	secret    []byte // of the mask key
	own       []byte // of the own mask
	mask      *ecdh.PrivateKey
	seal      *ecdh.PrivateKey
	keys      Keys
	cohort    []Keys
	threshold int
	shares    map[string][2][]byte // of the others' own masks and keys, once received
	masked    bool
	revealed  bool
}

// NewParty begins a sum. The session is a number that is used once, and the same for all parties.
func NewParty(name string, session []byte, sign ed25519.PrivateKey) (*Party, error) {
	p := &Party{name: name, session: session, shares: map[string][2][]byte{}}
	var err error
	if p.secret, err = newSecret(); err != nil {
		return nil, err
	}
	if p.own, err = newSecret(); err != nil {
		return nil, err
	}
	if p.mask, err = maskKey(p.secret, session); err != nil {
		return nil, err
	}
	if p.seal, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		return nil, err
	}
	p.keys = Keys{Name: name, Mask: p.mask.PublicKey().Bytes(), Seal: p.seal.PublicKey().Bytes()}
	p.keys.Signature = ed25519.Sign(sign, p.keys.message(session))
	return p, nil
}

// maskKey derives a party's mask key from the secret that is shared.
func maskKey(secret, session []byte) (*ecdh.PrivateKey, error) {
	b, err := hkdf.Key(sha256.New, secret, session, "tunesmith mask key", 32)
	if err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPrivateKey(b)
}

// Advertise returns the party's public keys.
func (p *Party) Advertise() Keys { return p.keys }

// Share takes the keys of all parties, which the caller has verified, and returns an envelope with shares of the party's
// secrets for each of the others.
func (p *Party) Share(cohort []Keys, threshold int) ([]Envelope, error) {
	if err := checkCohort(cohort, threshold); err != nil {
		return nil, err
	}
	at := slices.IndexFunc(cohort, func(k Keys) bool { return k.Name == p.name })
	if at < 0 || !slices.Equal(cohort[at].Mask, p.keys.Mask) || !slices.Equal(cohort[at].Seal, p.keys.Seal) {
		return nil, fmt.Errorf("secure aggregation: the list of keys does not hold those of %s", p.name)
	}
	if p.cohort != nil {
		return nil, fmt.Errorf("secure aggregation: %s has shared its secrets already", p.name)
	}
	p.cohort, p.threshold = cohort, threshold
	masks, err := split(p.own, threshold, len(cohort))
	if err != nil {
		return nil, err
	}
	keys, err := split(p.secret, threshold, len(cohort))
	if err != nil {
		return nil, err
	}
	var out []Envelope
	for i, k := range cohort {
		mask, key := masks[i], keys[i]
		if k.Name == p.name {
			p.shares[p.name] = [2][]byte{mask, key}
			continue
		}
		box, err := p.box(k, p.name, k.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, Envelope{p.name, k.Name, box.Seal(nil, make([]byte, box.NonceSize()), slices.Concat(mask, key), nil)})
	}
	return out, nil
}

// checkCohort wants the parties sorted by name, each once, and a threshold above half of them: with less, a server that
// tells two halves different lists could open both.
func checkCohort(cohort []Keys, threshold int) error {
	if len(cohort) < threshold {
		return fmt.Errorf("%w: %d of %d", ErrTooFew, len(cohort), threshold)
	}
	if threshold < 2 || 2*threshold <= len(cohort) {
		return fmt.Errorf("secure aggregation: want a threshold of at least 2 and more than half of %d parties, have %d", len(cohort), threshold)
	}
	for i := 1; i < len(cohort); i++ {
		if cohort[i-1].Name >= cohort[i].Name {
			return errors.New("secure aggregation: the parties have to be sorted by name, each once")
		}
	}
	return nil
}

// box is the cipher of the envelopes from one party to another; its key serves one envelope.
func (p *Party) box(peer Keys, from, to string) (cipher.AEAD, error) {
	secret, err := agree(p.seal, peer.Seal)
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, secret, p.session, fmt.Sprintf("tunesmith envelope %q %q", from, to), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func agree(own *ecdh.PrivateKey, public []byte) ([]byte, error) {
	peer, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("secure aggregation: a public key is none: %w", err)
	}
	return own.ECDH(peer)
}

// Mask opens the envelopes to the party and hides its values. Only parties whose envelope came are part of the sum.
func (p *Party) Mask(values []uint32, envelopes []Envelope) ([]uint32, error) {
	switch {
	case p.cohort == nil:
		return nil, fmt.Errorf("secure aggregation: %s has not shared its secrets yet", p.name)
	case p.masked:
		return nil, fmt.Errorf("secure aggregation: %s has hidden its values already; with the same masks a second time they would show", p.name)
	}
	out := slices.Clone(values)
	for _, e := range envelopes {
		at := slices.IndexFunc(p.cohort, func(k Keys) bool { return k.Name == e.From })
		if _, have := p.shares[e.From]; at < 0 || have || e.To != p.name {
			return nil, fmt.Errorf("secure aggregation: an envelope from %q to %q does not belong here", e.From, e.To)
		}
		peer := p.cohort[at]
		box, err := p.box(peer, e.From, p.name)
		if err != nil {
			return nil, err
		}
		open, err := box.Open(nil, make([]byte, box.NonceSize()), e.Sealed, nil)
		if err != nil || len(open) != 2*secretBytes {
			return nil, fmt.Errorf("secure aggregation: the envelope from %s to %s has been changed", e.From, p.name)
		}
		p.shares[e.From] = [2][]byte{open[:secretBytes], open[secretBytes:]}
		if err := pairMask(out, p.mask, p.name, peer.Mask, e.From, p.session, false); err != nil {
			return nil, err
		}
	}
	if len(p.shares) < p.threshold {
		return nil, fmt.Errorf("%w: shares of %d parties came, the threshold is %d", ErrTooFew, len(p.shares), p.threshold)
	}
	p.masked = true
	return out, ownMask(out, p.own, p.session, false)
}

// Reveal gives the shares that open the sum of those who survived. It refuses below the threshold, and a second time.
func (p *Party) Reveal(survivors []string) (Reveal, error) {
	r := Reveal{Name: p.name, Masks: map[string][]byte{}, Keys: map[string][]byte{}}
	if !p.masked || p.revealed {
		return r, fmt.Errorf("secure aggregation: %s reveals its shares once, after its values are hidden", p.name)
	}
	alive := map[string]bool{}
	for _, name := range survivors {
		if _, ok := p.shares[name]; !ok || alive[name] {
			return r, fmt.Errorf("secure aggregation: %q is no party of this sum, or comes twice", name)
		}
		alive[name] = true
	}
	if len(alive) < p.threshold || !alive[p.name] {
		return r, fmt.Errorf("%w: %d survive, the threshold is %d", ErrTooFew, len(alive), p.threshold)
	}
	p.revealed = true
	for name, s := range p.shares {
		if alive[name] {
			r.Masks[name] = s[0]
		} else {
			r.Keys[name] = s[1]
		}
	}
	return r, nil
}

// pairMask adds the mask of a pair to values: the party whose name comes first adds it, the other takes it off. With
// undo it is the other way round.
func pairMask(values []uint32, own *ecdh.PrivateKey, name string, peer []byte, peerName string, session []byte, undo bool) error {
	secret, err := agree(own, peer)
	if err != nil {
		return err
	}
	return stream(values, secret, session, "tunesmith pair mask", (name < peerName) == undo)
}

func ownMask(values []uint32, own, session []byte, undo bool) error {
	return stream(values, own, session, "tunesmith own mask", undo)
}

// stream adds the numbers of a key stream to values, or takes them off.
func stream(values []uint32, secret, session []byte, info string, minus bool) error {
	key, err := hkdf.Key(sha256.New, secret, session, info, 32)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	ctr := cipher.NewCTR(block, make([]byte, aes.BlockSize))
	var zero, b [1 << 14]byte
	for part := range slices.Chunk(values, len(b)/4) {
		n := 4 * len(part)
		ctr.XORKeyStream(b[:n], zero[:n])
		for i := range part {
			m := binary.LittleEndian.Uint32(b[4*i:])
			if minus {
				m = -m
			}
			part[i] += m
		}
	}
	return nil
}
