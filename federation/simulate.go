package federation

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"

	"tunesmith/data"
	"tunesmith/optim"
	"tunesmith/trainer"
)

// Simulation is a federation whose members share a process and a machine. It is the same server and the same clients;
// only what carries the messages is simpler.
type Simulation struct {
	Machine  *Machine
	Dir      string
	Log      *slog.Logger
	Progress func(Round)
	// Tap, where it is set, sees every message, one at a time.
	Tap func(from, to string, data []byte)
}

// Simulated is what came of a simulation.
type Simulated struct {
	Final   []Tensor
	History []Round
	Sizes   map[string]int // examples by client
	Traffic *Traffic
	Alone   map[string]float64 // losses on the clients' held-out examples of the last parameters,
	Own     map[string]float64 // and of those that each client has gone on with for itself
}

// Run shares the session's examples out among clients and lets them learn together.
func (s Simulation) Run(ctx context.Context) (out Simulated, err error) {
	session, set := s.Machine.session, s.Machine.settings
	parts, err := set.Partition.split(session, set.Clients)
	if err != nil {
		return out, err
	}
	names := make([]string, len(parts))
	keys, members := map[string]ed25519.PrivateKey{}, Members{}
	for i := range parts {
		names[i] = fmt.Sprintf("client-%03d", i+1)
	}
	for _, name := range append([]string{ServerName}, names...) {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return out, err
		}
		keys[name], members[name] = private, public
	}
	bus := NewBus()
	bus.Tap = s.Tap
	const id = "simulation"
	server := &Server{
		Federation: id, Key: keys[ServerName], Members: members, Machine: s.Machine, Link: bus.Link(ServerName),
		Dir: filepath.Join(s.Dir, ServerName), Log: s.Log, Progress: s.Progress, Waits: true,
	}
	out.Sizes, out.Own, out.Alone = map[string]int{}, map[string]float64{}, map[string]float64{}
	learners := make([]*Learner, len(parts))
	for i, part := range parts {
		dir := filepath.Join(s.Dir, names[i])
		secret, err := secretOf(filepath.Join(dir, secretFile))
		if err != nil {
			return out, err
		}
		examples, held, err := subset(session.Examples, part, session.Config.Eval.Share)
		if err != nil {
			return out, err
		}
		if learners[i], err = NewLearner(s.Machine, names[i], secret, examples, held); err != nil {
			return out, fmt.Errorf("%s: %w", names[i], err)
		}
		out.Sizes[names[i]] = examples.Len()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for i, name := range names {
		client := &Client{
			Name: name, Key: keys[name], Members: members, Federation: id, Learner: learners[i], Link: bus.Link(name),
			Dir: filepath.Join(s.Dir, name), Log: s.Log,
		}
		group.Go(func() {
			if _, err := client.Run(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	out.Final, err = server.Run(ctx)
	if err == nil {
		group.Wait()
	} else {
		cancel(err)
		group.Wait()
		return out, errors.Join(err, context.Cause(ctx))
	}
	out.History, out.Traffic = server.History(), server.bytes()
	for i, l := range learners {
		if err := s.personal(ctx, names[i], l, &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// personal measures the result at a client, and what its own further steps make of it.
func (s Simulation) personal(ctx context.Context, name string, l *Learner, out *Simulated) error {
	loss, n, err := l.Loss(ctx, out.Final)
	if err != nil || n == 0 {
		return err
	}
	out.Alone[name] = loss
	if l.settings.PersonalSteps == 0 {
		return nil
	}
	own, err := l.Personalize(ctx, out.Final)
	if err != nil {
		return err
	}
	out.Own[name], _, err = l.Loss(ctx, own)
	return err
}

// Personalize makes a client's further steps from the last parameters, for itself alone.
func (l *Learner) Personalize(ctx context.Context, from []Tensor) ([]Tensor, error) {
	var own []Tensor
	err := l.With(from, func(session *trainer.Session) error {
		if err := session.Freeze(nil); err != nil {
			return err
		}
		// Where the rate of most schedules is neither rising nor gone.
		if err := session.Begin(l.settings.Rounds*l.settings.LocalSteps/2, optim.State{}); err != nil {
			return err
		}
		for i := range l.settings.PersonalSteps {
			if _, err := l.plain(ctx, Job{}, i); err != nil {
				return err
			}
		}
		own = l.values()
		return nil
	})
	return own, err
}

// split returns the examples of each simulated client. Labels are the data's tasks, or with one task what the answers
// begin with.
func (s Shares) split(session *trainer.Session, clients int) ([][]int, error) {
	store := session.Examples
	labels, tasks := make([]string, store.Len()), map[string]bool{}
	for i := range labels {
		labels[i] = store.Task(i)
		tasks[labels[i]] = true
	}
	if len(tasks) < 2 {
		for i := range labels {
			e, err := store.Example(i)
			if err != nil {
				return nil, err
			}
			for k, trained := range e.Train {
				if trained {
					labels[i] = fmt.Sprint(e.IDs[k])
					break
				}
			}
		}
	}
	return Partition{
		Kind: s.Kind, Clients: clients, Alpha: s.Alpha, Least: s.Least, Balance: s.Balance, Shards: s.Shards, Classes: s.Classes,
		Seed: session.Config.Seed,
	}.Split(labels)
}

// subset copies examples into stores of their own; of every 1/share-th the held-out one.
func subset(from *data.Store, part []int, share float64) (examples, held *data.Store, err error) {
	examples, held = data.NewStore("", math.MaxInt), data.NewStore("", math.MaxInt)
	every := math.MaxInt
	if share > 0 {
		every = max(2, int(math.Round(1/share)))
	}
	for k, i := range part {
		e, err := from.Example(i)
		if err != nil {
			return nil, nil, err
		}
		to := examples
		if (k+1)%every == 0 {
			to = held
		}
		if err := to.Add(e); err != nil {
			return nil, nil, err
		}
	}
	return examples, held, nil
}
