package trainer

import (
	"context"
	"errors"
	"fmt"

	"tunesmith/data"
	"tunesmith/tune"
)

// references are log-probabilities of the trained tokens under the model as it was before the first step. They are
// numbers, a few a token, so that no second copy of the model is held.
type references map[int][][]float32 // by example, one list for each of its sequences

// refers reports whether the objective compares with a reference, and whether that may be computed at every step: the
// base with the grafts off, which is there as long as none of its own values train.
func (s *Stepper) refers() (needed, online bool) {
	r, ok := s.programs.objective.(tune.Referrer)
	if !ok {
		return false, false
	}
	needed, online = r.Reference()
	online = online && !s.continues
	for _, p := range s.programs.model.Sites.Trainable() {
		online = online && !p.Base
	}
	return needed, online
}

// refer gives a batch its reference where the objective needs one and the batch has none.
func (s *Stepper) refer(ctx context.Context, b data.Batch) (data.Batch, error) {
	needed, online := s.refers()
	if !needed || b.Reference != nil {
		return b, nil
	}
	var err error
	if online {
		b.Reference, err = s.programs.logProbs(ctx, reference, b)
		return b, err
	}
	b.Reference, err = s.known.lay(b)
	return b, err
}

// Refer computes the reference of batches that have none and are used again and again; it has to be called before the first step.
func (s *Stepper) Refer(ctx context.Context, batches []data.Batch) error {
	if needed, _ := s.refers(); !needed {
		return nil
	}
	for i, b := range batches {
		if b.Reference != nil {
			continue
		}
		logp, err := s.programs.logProbs(ctx, s.start(), b)
		if err != nil {
			return err
		}
		batches[i].Reference = logp
	}
	return nil
}

// start is the pass that computes the reference: with the grafts off, or, for a run that goes on from an adapter, with
// them as they are before the first step.
func (s *Stepper) start() pass {
	if s.continues {
		return current
	}
	return reference
}

var errNoReference = errors.New("the log-probabilities of the reference are not there; they are computed before the first step")

// lay puts the reference of a batch's examples at the places of their targets.
func (r references) lay(b data.Batch) ([]float32, error) {
	out := make([]float32, len(b.Targets))
	for row := range b.Rows {
		if row >= len(b.Examples) || len(b.Examples[row]) != 1 {
			return nil, errNoReference
		}
		list, ok := r[b.Examples[row][0]]
		if !ok {
			return nil, errNoReference
		}
		logp := list[row%max(1, b.Sequences)]
		for c := row * b.Cols; c < (row+1)*b.Cols; c++ {
			if b.Targets[c] < 0 {
				continue
			}
			if len(logp) == 0 {
				return nil, fmt.Errorf("%w: example %d has more targets than before", errNoReference, b.Examples[row][0])
			}
			out[c], logp = logp[0], logp[1:]
		}
	}
	return out, nil
}

// take keeps the log-probabilities of a batch's targets.
func (r references) take(b data.Batch, logp []float32) {
	for row := range b.Rows {
		var list []float32
		for c := row * b.Cols; c < (row+1)*b.Cols; c++ {
			if b.Targets[c] >= 0 {
				list = append(list, logp[c])
			}
		}
		example := b.Examples[row][0]
		r[example] = append(r[example], list)
	}
}
