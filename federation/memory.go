package federation

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/internal/atomicfile"
	"tunesmith/optim"
	"tunesmith/privacy"
)

// state is what a client has stored: its last round and what it answers to it, and the learner's memory.
type state struct {
	round  int
	task   string
	report *Report
	body   []byte
	memory Memory
}

// stateMeta is the part of a state that is no tensor.
type stateMeta struct {
	Task   string              `json:"task"`
	Report *Report             `json:"report"`
	Body   []byte              `json:"body"`
	Loader *data.State         `json:"loader"`
	Optim  map[string]int64    `json:"optimizer"`
	Books  *privacy.Accountant `json:"books"`
}

// Prefixes of the tensors' names in a stored state.
const (
	ownPrefix  = "own:"
	restPrefix = "rest:"
	optPrefix  = "optim:"
)

// copy returns a state that can be changed without changing this one.
func (s *state) copy() state {
	out := *s
	out.memory.Own, out.memory.Rest.Rest = clone(s.memory.Own), clone(s.memory.Rest.Rest)
	return out
}

const statesDir = "state"

// save writes the state beside the last one, then takes the last one away.
func (s *state) save(dir string) error {
	meta, err := json.Marshal(stateMeta{s.task, s.report, s.body, s.memory.Loader, s.memory.Optim.Counters, s.memory.Books})
	if err != nil {
		return err
	}
	out := checkpoint.State{Step: s.round, Meta: map[string]json.RawMessage{"client": meta}}
	for prefix, tensors := range map[string][]Tensor{ownPrefix: s.memory.Own, restPrefix: s.memory.Rest.Rest} {
		for _, t := range tensors {
			out.Tensors = append(out.Tensors, checkpoint.Float32Tensor(prefix+t.Name, t.Shape, t.Values))
		}
	}
	for _, t := range s.memory.Optim.Tensors {
		if t.Codes != nil {
			return fmt.Errorf("keep_optimizer: the state of an 8-bit optimizer cannot be kept between rounds; take adamw")
		}
		out.Tensors = append(out.Tensors, checkpoint.Float32Tensor(optPrefix+t.Name+":"+t.Param, t.Shape, t.Data))
	}
	root := filepath.Join(dir, statesDir)
	if _, err := checkpoint.SaveState(root, out); err != nil {
		return err
	}
	return checkpoint.Prune(root, 1)
}

// load reads the stored state, if there is one.
func (c *Client) load() error {
	c.card = Card{
		Client: c.Name, Federation: c.Federation, Secure: c.settings.Secure, Privacy: c.settings.Privacy.Level, Form: c.settings.Compression,
		Messages: map[Kind]int{}, Bytes: map[Kind]int64{},
	}
	if text, err := os.ReadFile(filepath.Join(c.Dir, cardFile)); err == nil {
		if err := json.Unmarshal(text, &c.card); err != nil {
			return fmt.Errorf("%s: %w", cardFile, err)
		}
	}
	dir, _, err := checkpoint.Latest(filepath.Join(c.Dir, statesDir))
	if err != nil || dir == "" {
		return err
	}
	in, err := checkpoint.LoadState(dir)
	if err != nil {
		return err
	}
	var meta stateMeta
	if err := json.Unmarshal(in.Meta["client"], &meta); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	s := state{round: in.Step, task: meta.Task, report: meta.Report, body: meta.Body}
	s.memory = Memory{Loader: meta.Loader, Books: meta.Books, Optim: optim.State{Counters: meta.Optim}}
	byName := map[string]checkpoint.Tensor{}
	for _, t := range in.Tensors {
		byName[t.Name] = t
		if rest, ok := strings.CutPrefix(t.Name, optPrefix); ok {
			name, param, _ := strings.Cut(rest, ":")
			s.memory.Optim.Tensors = append(s.memory.Optim.Tensors, optim.StateTensor{Param: param, Name: name, Shape: t.Shape, Data: t.Float32s()})
		}
	}
	s.memory.Own = pick(byName, ownPrefix, c.Learner.start)
	s.memory.Rest.Rest = pick(byName, restPrefix, c.Learner.start)
	c.state = s
	return nil
}

// pick returns the stored tensors of a prefix in the order of the parameters, nil where there are none.
func pick(stored map[string]checkpoint.Tensor, prefix string, like []Tensor) []Tensor {
	var out []Tensor
	for _, t := range like {
		x, ok := stored[prefix+t.Name]
		if !ok {
			return nil
		}
		out = append(out, Tensor{t.Name, x.Shape, x.Float32s()})
	}
	return out
}

const cardFile = "card.json"

// writeCard stores what has left the machine so far.
func (c *Client) writeCard() error {
	c.card.Rounds = c.state.round
	text, err := json.MarshalIndent(c.card, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(c.Dir, cardFile), append(text, '\n'))
}
