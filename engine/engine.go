// Package engine is the contract between a computation described by package graph and what runs it: tensors that
// live between runs, programs compiled for one shape, and their exact memory.
package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"tunesmith/graph"
)

// Precision is a contract of accuracy, not an instruction: the engine chooses the fastest arithmetic that keeps it.
type Precision string

// The precisions. What trains always has 32-bit master values.
const (
	FP32  Precision = "fp32"  // exact single precision
	Mixed Precision = "mixed" // at least as accurate as bf16
	Int8  Precision = "int8"  // 8-bit products, with bounds of their own, where a backend has them; else mixed
)

// Options are what a backend is opened with.
type Options struct {
	Precision Precision // FP32 where empty
	Workers   int       // threads; 0 is one per core. The bits of a result do not depend on it.
}

// Backend compiles graphs for one kind of machine.
type Backend interface {
	// Name tells the backend and the level that it chose on this machine, such as "cpu/avx512-vnni".
	Name() string
	// Compile plans the graph's outputs over the tensors of the store. Every parameter and state of the graph must
	// be in the store with its shape.
	Compile(g *graph.Graph, s *Store) (Program, error)
	// Close ends the backend's threads. Programs may not run afterwards.
	Close() error
}

// Feeds are a run's inputs by name: []float32 or []int32, in row-major order.
type Feeds map[string]any

// Program is a compiled graph. It owns its working memory, so it runs one thing at a time.
type Program interface {
	// Run computes the outputs. A cancelled context ends the run between two operations. A value that makes the run
	// impossible, such as an id outside of the vocabulary, is an error and changes no state.
	Run(ctx context.Context, in Feeds) error
	// Output returns the values of a named output; they are valid until the next Run and may be changed by the caller.
	Output(name string) []float32
	// Memory is what the program takes, known before the first run.
	Memory() Memory
}

// Memory is bytes by class.
type Memory struct {
	Weights     int64 // frozen tensors, in the forms that the engine keeps
	Trainable   int64 // trained tensors, with the forms that are packed at each step
	Activations int64 // the arena: values, gradients of values; outputs; states
	Workspace   int64 // scratch of the threads
}

// Total returns the sum of all classes.
func (m Memory) Total() int64 { return m.Weights + m.Trainable + m.Activations + m.Workspace }

var (
	mu       sync.Mutex
	backends = map[string]func(Options) (Backend, error){}
)

// Register makes a backend known by name; the package of a backend calls it in init.
func Register(name string, open func(Options) (Backend, error)) {
	mu.Lock()
	defer mu.Unlock()
	backends[name] = open
}

// Open opens a backend by name.
func Open(name string, o Options) (Backend, error) {
	switch o.Precision {
	case "":
		o.Precision = FP32
	case FP32, Mixed, Int8:
	default:
		return nil, fmt.Errorf("precision: want fp32, mixed or int8, have %q", o.Precision)
	}
	mu.Lock()
	open, ok := backends[name]
	known := slices.Sorted(maps.Keys(backends))
	mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("engine: want one of %s, have %q", strings.Join(known, ", "), name)
	}
	return open(o)
}
