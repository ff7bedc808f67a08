package data

import (
	"slices"
)

// Stats describe the examples of a store, or those of one task.
type Stats struct {
	Task       string `json:"task,omitempty"`
	Examples   int    `json:"examples"`
	Tokens     int64  `json:"tokens"`
	Supervised int64  `json:"supervised"` // tokens that are trained
	Lengths    Spread `json:"lengths"`    // tokens of an example
	Trained    Spread `json:"trained"`    // trained tokens of an example
}

// Share returns the part of the tokens that is trained.
func (s Stats) Share() float64 {
	if s.Tokens == 0 {
		return 0
	}
	return float64(s.Supervised) / float64(s.Tokens)
}

// Spread describes the distribution of a count over the examples.
type Spread struct {
	Min     int     `json:"min"`
	Median  int     `json:"median"`
	P90     int     `json:"p90"`
	P99     int     `json:"p99"`
	Max     int     `json:"max"`
	Mean    float64 `json:"mean"`
	Buckets []int   `json:"buckets"` // Buckets[i] counts the examples of 2^(i-1) to 2^i - 1; Buckets[0] those of 0
}

// Stats returns the statistics of all examples and, if there are several tasks, those of each, in the order in which
// the tasks appear.
func (s *Store) Stats() (all Stats, byTask []Stats) {
	all = s.stats(-1)
	if len(s.tasks) > 1 {
		for task := range s.tasks {
			byTask = append(byTask, s.stats(int32(task)))
		}
	}
	return all, byTask
}

// stats describes the examples of one task, or of all (-1).
func (s *Store) stats(task int32) Stats {
	var st Stats
	if task >= 0 {
		st.Task = s.tasks[task]
	}
	var lengths, trained []int32
	for i := range s.n {
		e := s.entry(i)
		if task >= 0 && e.task != task {
			continue
		}
		st.Examples++
		st.Tokens += int64(e.tokens)
		st.Supervised += int64(e.supervised)
		lengths, trained = append(lengths, e.tokens), append(trained, e.supervised)
	}
	st.Lengths, st.Trained = SpreadOf(lengths), SpreadOf(trained)
	return st
}

// SpreadOf sorts the counts and describes them. A percentile is the smallest count that as many examples do not exceed.
func SpreadOf(counts []int32) Spread {
	if len(counts) == 0 {
		return Spread{}
	}
	slices.Sort(counts)
	rank := func(percent int) int { return int(counts[(len(counts)*percent+99)/100-1]) }
	s := Spread{Min: int(counts[0]), Median: rank(50), P90: rank(90), P99: rank(99), Max: int(counts[len(counts)-1])}
	var sum int64
	for _, n := range counts {
		sum += int64(n)
		bucket := 0
		for v := n; v > 0; v >>= 1 {
			bucket++
		}
		for len(s.Buckets) <= bucket {
			s.Buckets = append(s.Buckets, 0)
		}
		s.Buckets[bucket]++
	}
	s.Mean = float64(sum) / float64(len(counts))
	return s
}

// Token is one token of a preview.
type Token struct {
	ID    int32  `json:"id"`
	Text  string `json:"text"` // may be a part of a character
	Train bool   `json:"train"`
}

// Preview shows an example token by token: what is trained is what the loss will see. text gives the bytes of one
// token.
func Preview(e Example, text func(id int32) string) []Token {
	tokens := make([]Token, len(e.IDs))
	for i, id := range e.IDs {
		tokens[i] = Token{ID: id, Text: text(id), Train: i > 0 && e.Train[i]}
	}
	return tokens
}
