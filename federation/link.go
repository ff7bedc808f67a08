package federation

import (
	"context"
	"fmt"
	"sync"
)

// Bus carries messages inside one process, for simulations.
type Bus struct {
	mu    sync.Mutex
	boxes map[string]chan Delivery
	// Tap, where it is set, sees every message, one at a time.
	Tap func(from, to string, data []byte)
	tap sync.Mutex
}

// NewBus returns an empty bus.
func NewBus() *Bus { return &Bus{boxes: map[string]chan Delivery{}} }

func (b *Bus) box(name string) chan Delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.boxes[name] == nil {
		b.boxes[name] = make(chan Delivery, 1<<12)
	}
	return b.boxes[name]
}

// Link returns a member's end.
func (b *Bus) Link(name string) Link { return busLink{b, name} }

type busLink struct {
	bus  *Bus
	name string
}

// Send implements Link.
func (l busLink) Send(ctx context.Context, to string, data []byte) error {
	if l.bus.Tap != nil {
		l.bus.tap.Lock()
		l.bus.Tap(l.name, to, data)
		l.bus.tap.Unlock()
	}
	select {
	case l.bus.box(to) <- Delivery{From: l.name, Data: data, Ack: func() error { return nil }}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("federation: sending to %s: %w", to, context.Cause(ctx))
	}
}

// Receive implements Link.
func (l busLink) Receive(ctx context.Context) (Delivery, error) {
	select {
	case d := <-l.bus.box(l.name):
		return d, nil
	case <-ctx.Done():
		return Delivery{}, context.Cause(ctx)
	}
}

// Close implements Link.
func (busLink) Close() error { return nil }

// Traffic counts bytes by kind of message.
type Traffic struct {
	mu       sync.Mutex
	Sent     map[Kind]int64 `json:"sent"`
	Received map[Kind]int64 `json:"received"`
}

func (t *Traffic) add(to *map[Kind]int64, k Kind, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if *to == nil {
		*to = map[Kind]int64{}
	}
	(*to)[k] += int64(n)
}

// Totals returns all bytes in both directions.
func (t *Traffic) Totals() (sent, received int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.Sent {
		sent += n
	}
	for _, n := range t.Received {
		received += n
	}
	return sent, received
}
