package secure

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Sum is the server's side: it adds hidden values and opens the sum, and sees nothing else.
type Sum struct {
	session   []byte
	cohort    []Keys // that have shared their secrets
	threshold int
	total     []uint32
	names     []string // whose values are in the total
}

// NewSum begins a sum of vectors of n values. The cohort are the parties that have shared their secrets.
func NewSum(session []byte, cohort []Keys, threshold, n int) (*Sum, error) {
	if len(cohort) < threshold {
		return nil, fmt.Errorf("%w: %d of %d", ErrTooFew, len(cohort), threshold)
	}
	return &Sum{session: session, cohort: cohort, threshold: threshold, total: make([]uint32, n)}, nil
}

func (s *Sum) party(name string) (Keys, bool) {
	i := slices.IndexFunc(s.cohort, func(k Keys) bool { return k.Name == name })
	if i < 0 {
		return Keys{}, false
	}
	return s.cohort[i], true
}

// Add adds a party's hidden values.
func (s *Sum) Add(name string, values []uint32) error {
	if _, ok := s.party(name); !ok || slices.Contains(s.names, name) {
		return fmt.Errorf("secure aggregation: %q is no party of this sum, or adds a second time", name)
	}
	if len(values) != len(s.total) {
		return fmt.Errorf("secure aggregation: %s: want %d values, have %d", name, len(s.total), len(values))
	}
	for i, v := range values {
		s.total[i] += v
	}
	s.names = append(s.names, name)
	return nil
}

// Survivors returns the sorted names of those whose values are in the sum.
func (s *Sum) Survivors() []string { return slices.Sorted(slices.Values(s.names)) }

// Open takes off the masks with what the survivors reveal. order gives the place of every party in the list that the
// secrets were shared with, from 0: shares belong to places.
func (s *Sum) Open(reveals []Reveal, order []string) ([]uint32, error) {
	if len(s.names) < s.threshold || len(reveals) < s.threshold {
		return nil, fmt.Errorf("%w: %d sent values and %d revealed shares, the threshold is %d", ErrTooFew, len(s.names), len(reveals), s.threshold)
	}
	recovered := func(of string, shares func(Reveal) map[string][]byte) ([]byte, error) {
		var places []int
		var list [][]byte
		for _, r := range reveals {
			at := slices.Index(order, r.Name)
			b, ok := shares(r)[of]
			if at < 0 || !ok {
				continue
			}
			if slices.Contains(places, at) {
				return nil, fmt.Errorf("secure aggregation: %s reveals its shares twice", r.Name)
			}
			places, list = append(places, at), append(list, b)
		}
		if len(list) < s.threshold {
			return nil, fmt.Errorf("%w: %d shares of %s came, the threshold is %d", ErrTooFew, len(list), of, s.threshold)
		}
		return join(places[:s.threshold], list[:s.threshold])
	}
	out := slices.Clone(s.total)
	for _, name := range s.names {
		own, err := recovered(name, func(r Reveal) map[string][]byte { return r.Masks })
		if err != nil {
			return nil, err
		}
		if err := ownMask(out, own, s.session, true); err != nil {
			return nil, err
		}
	}
	for _, k := range s.cohort {
		if slices.Contains(s.names, k.Name) {
			continue
		}
		secret, err := recovered(k.Name, func(r Reveal) map[string][]byte { return r.Keys })
		if err != nil {
			return nil, err
		}
		key, err := maskKey(secret, s.session)
		if err != nil {
			return nil, err
		}
		if !slices.Equal(key.PublicKey().Bytes(), k.Mask) {
			return nil, fmt.Errorf("secure aggregation: the shares of %s do not give its key: a party has revealed a false one", k.Name)
		}
		for _, alive := range s.names {
			peer, _ := s.party(alive)
			// What is missing is the mask that the dropped party would have added.
			if err := pairMask(out, key, k.Name, peer.Mask, alive, s.session, false); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Fixed turns numbers into integers whose sum over so many parties cannot overflow.
type Fixed struct {
	Limit   float64 // largest size of a number; larger ones are cut
	Parties int
}

// scale is the integer that stands for Limit: Parties of it stay within 31 bits.
func (f Fixed) scale() float64 {
	return math.Ldexp(1, 31-bits.Len(uint(max(1, f.Parties-1)))-1) - 1
}

// Encode returns the integers of numbers, rounded to the nearest.
func (f Fixed) Encode(x []float64) ([]uint32, error) {
	out := make([]uint32, len(x))
	for i, v := range x {
		if math.IsNaN(v) {
			return nil, fmt.Errorf("secure aggregation: value %d is no number", i)
		}
		v = max(-f.Limit, min(f.Limit, v))
		out[i] = uint32(int32(math.RoundToEven(v / f.Limit * f.scale())))
	}
	return out, nil
}

// Decode returns the numbers of a sum of integers.
func (f Fixed) Decode(x []uint32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(int32(v)) * f.Limit / f.scale()
	}
	return out
}

// Order returns the places of the parties of a list of keys, as Open wants them.
func Order(keys []Keys) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.Name
	}
	return out
}
