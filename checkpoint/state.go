package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tunesmith/internal/atomicfile"
	"tunesmith/quant"
)

// State is what a training run continues from: tensors bit for bit, and whatever else the next step depends on as
// JSON.
type State struct {
	Step    int
	Tensors []Tensor // float formats
	Meta    map[string]json.RawMessage
}

// Files of a state's directory.
const (
	stateTensors  = "state.safetensors"
	stateMeta     = "state.json"
	stateManifest = "manifest.json"
)

// manifest lists a state's files. It is written last, so a directory with a valid manifest is whole.
type manifest struct {
	Version int                 `json:"version"`
	Step    int                 `json:"step"`
	Files   map[string]fileHash `json:"files"`
}

type fileHash struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// stepDir is the directory of a step below root.
func stepDir(root string, step int) string {
	return filepath.Join(root, fmt.Sprintf("step-%06d", step))
}

// SaveState writes a state as root/step-NNNNNN, which appears whole or not at all, and returns the directory. A
// state of the same step that is whole already stays.
func SaveState(root string, s State) (dir string, err error) {
	dir = stepDir(root, s.Step)
	if _, err := verify(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(root, 0o777); err != nil {
		return dir, fmt.Errorf("checkpoint: %w", err)
	}
	return dir, atomicfile.WriteDir(dir, func(tmp string) error {
		m := manifest{Version: 1, Step: s.Step, Files: map[string]fileHash{}}
		save := func(name string, write func(io.Writer) error) error {
			f, err := os.Create(filepath.Join(tmp, name))
			if err != nil {
				return err
			}
			h := sha256.New()
			if err := errors.Join(write(io.MultiWriter(f, h)), f.Close()); err != nil {
				return err
			}
			info, err := os.Stat(f.Name())
			if err != nil {
				return err
			}
			m.Files[name] = fileHash{info.Size(), hex.EncodeToString(h.Sum(nil))}
			return nil
		}
		asJSON := func(v any) func(io.Writer) error {
			return func(w io.Writer) error { return json.NewEncoder(w).Encode(v) }
		}
		if err := save(stateTensors, func(w io.Writer) error { return EncodeSafetensors(w, s.Tensors, nil) }); err != nil {
			return err
		}
		if err := save(stateMeta, asJSON(s.Meta)); err != nil {
			return err
		}
		return save(stateManifest, asJSON(m))
	})
}

// LoadState reads a state and checks every file against its checksum.
func LoadState(dir string) (State, error) {
	m, err := verify(dir)
	if err != nil {
		return State{}, err
	}
	s := State{Step: m.Step}
	text, err := os.ReadFile(filepath.Join(dir, stateMeta))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s.Meta); err != nil {
		return s, fmt.Errorf("checkpoint %s: %s: %w", dir, stateMeta, err)
	}
	f, err := Open(filepath.Join(dir, stateTensors))
	if err != nil {
		return s, err
	}
	for _, name := range f.Names() {
		t, _ := f.Tensor(name)
		t.Data = slices.Clone(t.Data)
		s.Tensors = append(s.Tensors, t)
	}
	return s, f.Close()
}

// verify reads a directory's manifest and compares each file with it.
func verify(dir string) (manifest, error) {
	var m manifest
	text, err := os.ReadFile(filepath.Join(dir, stateManifest))
	if err != nil {
		return m, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("checkpoint %s: %s: %w", dir, stateManifest, err)
	}
	if m.Version != 1 {
		return m, fmt.Errorf("checkpoint %s: want version 1, have %d: it was written by a newer tunesmith", dir, m.Version)
	}
	for _, name := range []string{stateTensors, stateMeta} {
		want, ok := m.Files[name]
		if !ok {
			return m, fmt.Errorf("checkpoint %s: the manifest lacks %s", dir, name)
		}
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return m, fmt.Errorf("checkpoint %s: %w", dir, err)
		}
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return m, fmt.Errorf("checkpoint %s: %w", dir, err)
		}
		if have := hex.EncodeToString(h.Sum(nil)); n != want.Size || have != want.SHA256 {
			return m, fmt.Errorf("checkpoint %s: %s is damaged: want %d bytes with sha256 %.12s, have %d with %.12s", dir, name, want.Size, want.SHA256, n, have)
		}
	}
	return m, nil
}

// Latest returns the newest whole state below root, or "" where there is none. Damaged ones are passed over with a
// warning; what was never finished has another name and is not looked at.
func Latest(root string) (dir string, step int, err error) {
	steps, err := Steps(root)
	if err != nil {
		return "", 0, err
	}
	for _, step := range slices.Backward(steps) {
		dir := stepDir(root, step)
		if _, err := verify(dir); err != nil {
			slog.Warn("a damaged checkpoint is passed over", "error", err)
			continue
		}
		return dir, step, nil
	}
	return "", 0, nil
}

// Steps lists the steps that have a directory below root, in order.
func Steps(root string) ([]int, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	var steps []int
	for _, e := range entries {
		if number, ok := strings.CutPrefix(e.Name(), "step-"); ok && e.IsDir() {
			if n, err := strconv.Atoi(number); err == nil && stepDir(root, n) == filepath.Join(root, e.Name()) {
				steps = append(steps, n)
			}
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// Prune removes all states below root but the newest last ones and those of the steps in keep, and what writers that
// were stopped have left.
func Prune(root string, last int, keep ...int) error {
	steps, err := Steps(root)
	if err != nil {
		return err
	}
	var errs []error
	for i, step := range steps {
		if i < len(steps)-last && !slices.Contains(keep, step) {
			errs = append(errs, os.RemoveAll(stepDir(root, step)))
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if target, ok := atomicfile.Temporary(e.Name()); ok && strings.HasPrefix(target, "step-") {
			errs = append(errs, os.RemoveAll(filepath.Join(root, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Float32Tensor returns a tensor that holds the values' bits.
func Float32Tensor(name string, shape []int, values []float32) Tensor {
	t := Tensor{Name: name, Shape: shape, Format: quant.F32, Data: make([]byte, 4*len(values))}
	quant.F32.Quantize(t.Data, values)
	return t
}
