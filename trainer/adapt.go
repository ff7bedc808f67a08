package trainer

import (
	"context"
	"fmt"

	"tunesmith/engine"
	"tunesmith/model"
)

// Starter is a graft that computes first values by running the model.
type Starter interface {
	Start(ctx context.Context, a *model.Adapted, b engine.Backend, seed uint64) error
}

// Adapt grafts onto a model, loads the weights and gives the grafts' parameters their first values.
func Adapt(ctx context.Context, base *model.Model, graft any, b engine.Backend, seed uint64, more ...any) (*model.Adapted, error) {
	a, err := base.Adapt(seed, append([]any{graft}, more...)...)
	if err != nil {
		return nil, err
	}
	if s, ok := graft.(Starter); ok {
		if err := s.Start(ctx, a, b, seed); err != nil {
			return nil, fmt.Errorf("first values: %w", err)
		}
	}
	return a, nil
}
