package trainer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"tunesmith/checkpoint"
	"tunesmith/data"
	"tunesmith/optim"
	"tunesmith/quant"
)

// Names of the tensors of a checkpoint: "param:NAME" and "optim:STATE:NAME".
const (
	paramPrefix = "param:"
	optimPrefix = "optim:"
)

// state is the trainer's state with the data's position.
func (t *Trainer) state(at data.State) (checkpoint.State, error) {
	own := t.optimizer.State()
	tasks, err := t.tasks.state()
	if err != nil {
		return checkpoint.State{}, err
	}
	text, err := json.Marshal(position{at, own.Counters, t.tokens, t.best, t.drift, tasks})
	s := checkpoint.State{Step: t.step, Meta: map[string]json.RawMessage{"position": text}}
	for _, p := range t.params {
		s.Tensors = append(s.Tensors, checkpoint.Float32Tensor(paramPrefix+p.Name, p.Shape, p.Value))
	}
	for _, x := range own.Tensors {
		name := optimPrefix + x.Name + ":" + x.Param
		if x.Codes != nil {
			s.Tensors = append(s.Tensors, checkpoint.Tensor{Name: name, Shape: x.Shape, Format: quant.U8, Data: x.Codes})
			continue
		}
		s.Tensors = append(s.Tensors, checkpoint.Float32Tensor(name, x.Shape, x.Data))
	}
	if err == nil && t.Source != nil {
		err = t.Source.Save(&s)
	}
	return s, err
}

// Restore continues from a checkpoint. The run's model, method and data have to be those that wrote it.
func (t *Trainer) Restore(dir string) error {
	s, err := checkpoint.LoadState(dir)
	if err != nil {
		return err
	}
	var at position
	if err := json.Unmarshal(s.Meta["position"], &at); err != nil {
		return fmt.Errorf("checkpoint %s: position: %w", dir, err)
	}
	tensors := map[string]checkpoint.Tensor{}
	for _, x := range s.Tensors {
		tensors[x.Name] = x
	}
	own := optim.State{Counters: at.Optim}
	for _, p := range t.params {
		x, ok := tensors[paramPrefix+p.Name]
		if !ok || !slices.Equal(x.Shape, p.Shape) {
			return fmt.Errorf("checkpoint %s: parameter %q of shape %v is not in it: it belongs to another model or method", dir, p.Name, p.Shape)
		}
		copy(p.Value, x.Float32s())
		delete(tensors, x.Name)
	}
	for _, x := range s.Tensors {
		if _, ok := tensors[x.Name]; !ok || strings.HasPrefix(x.Name, SourcePrefix) {
			continue
		}
		name, param, ok := splitOptim(x.Name)
		if !ok {
			return fmt.Errorf("checkpoint %s: tensor %q belongs to no parameter of this run", dir, x.Name)
		}
		saved := optim.StateTensor{Param: param, Name: name, Shape: x.Shape}
		if x.Format == quant.U8 {
			saved.Codes = x.Data
		} else {
			saved.Data = x.Float32s()
		}
		own.Tensors = append(own.Tensors, saved)
	}
	if err := t.optimizer.Restore(own); err != nil {
		return fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	if err := t.Loader.Restore(at.Loader); err != nil {
		return fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	if err := t.tasks.restore(at.Tasks); err != nil {
		return fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	if t.Source != nil {
		if err := t.Source.Restore(s); err != nil {
			return fmt.Errorf("checkpoint %s: %w", dir, err)
		}
	}
	for _, x := range t.tensors {
		x.Touch()
	}
	t.step, t.tokens, t.best, t.drift = s.Step, at.Tokens, at.Best, at.Drift
	return t.Run.Rewind(s.Step)
}

// splitOptim takes the name of an optimizer's tensor apart.
func splitOptim(tensor string) (name, param string, ok bool) {
	rest, ok := strings.CutPrefix(tensor, optimPrefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}
