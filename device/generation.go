package device

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tunesmith/checkpoint"
	"tunesmith/internal/atomicfile"
	"tunesmith/runs"
)

// Generation is an adapter that a device has taken, and where it comes from.
type Generation struct {
	Number   int       `json:"number"`
	Parent   int       `json:"parent"` // 0 for the bare base
	Base     string    `json:"base"`   // digest of the base's files
	Contract string    `json:"chat_contract,omitempty"`
	Digest   string    `json:"digest"` // of the adapter's values and config
	Created  time.Time `json:"created"`
	Source   string    `json:"source"` // identity of the adaptation or patch that made it
	Records  int       `json:"records,omitempty"`
	// Before and After are the losses on new held-out data and on the general text, by split.
	Before map[string]runs.Number `json:"before,omitempty"`
	After  map[string]runs.Number `json:"after,omitempty"`
}

const (
	generationsDir = "generations"
	generationFile = "generation.json"
	currentFile    = "current"
	adapterDir     = "adapter"
	configFile     = "adapter_config.json"
	weightsFile    = "adapter_model.safetensors"
)

// Library is the generations of a device. A generation never changes once it is there; which one is in use is the
// content of one small file, so that a switch happens at one instant.
type Library struct{ dir string }

func (l Library) path(n int) string {
	return filepath.Join(l.dir, generationsDir, fmt.Sprintf("%06d", n))
}

// Adapter returns the adapter directory of a generation, empty for the bare base.
func (l Library) Adapter(n int) string {
	if n == 0 {
		return ""
	}
	return filepath.Join(l.path(n), adapterDir)
}

// Current returns the number of the generation in use, 0 for the bare base.
func (l Library) Current() (int, error) {
	text, err := os.ReadFile(filepath.Join(l.dir, currentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: want the number of a generation, have %q", filepath.Join(l.dir, currentFile), text)
	}
	return n, nil
}

// Get returns a generation.
func (l Library) Get(n int) (Generation, error) {
	var g Generation
	text, err := os.ReadFile(filepath.Join(l.path(n), generationFile))
	if err == nil {
		err = json.Unmarshal(text, &g)
	}
	if err == nil && g.Number != n {
		err = fmt.Errorf("%s says that it is number %d", generationFile, g.Number)
	}
	if err != nil {
		return g, fmt.Errorf("generation %d: %w", n, err)
	}
	return g, nil
}

// List returns the generations that are kept, the oldest first.
func (l Library) List() ([]Generation, error) {
	entries, err := os.ReadDir(filepath.Join(l.dir, generationsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Generation
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // what an interrupted write has left
		}
		g, err := l.Get(n)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b Generation) int { return cmp.Compare(a.Number, b.Number) })
	return out, nil
}

// Verify reads a generation's adapter and compares it with its digest.
func (l Library) Verify(n int) (Generation, error) {
	g, err := l.Get(n)
	if err != nil {
		return g, err
	}
	have, err := DigestAdapter(l.Adapter(n))
	if err != nil {
		return g, fmt.Errorf("generation %d: %w", n, err)
	}
	if have != g.Digest {
		return g, fmt.Errorf("generation %d is damaged: want digest %.16s…, have %.16s…; go back with: tunesmith device rollback", n, g.Digest, have)
	}
	return g, nil
}

// Add writes a new generation under the next free number; write puts the adapter into the directory that it is given.
// The generation is there whole or not at all, and is not in use before Switch.
func (l Library) Add(g Generation, write func(adapter string) error) (Generation, error) {
	list, err := l.List()
	if err != nil {
		return g, err
	}
	g.Number = 1
	if len(list) > 0 {
		g.Number = list[len(list)-1].Number + 1
	}
	if g.Created.IsZero() {
		g.Created = time.Now().UTC().Truncate(time.Second)
	}
	if err := os.MkdirAll(filepath.Join(l.dir, generationsDir), 0o755); err != nil {
		return g, err
	}
	err = atomicfile.WriteDir(l.path(g.Number), func(tmp string) error {
		adapter := filepath.Join(tmp, adapterDir)
		if err := write(adapter); err != nil {
			return err
		}
		digest, err := DigestAdapter(adapter)
		if err != nil {
			return err
		}
		if g.Digest != "" && g.Digest != digest {
			return fmt.Errorf("want an adapter of digest %.16s…, have %.16s…", g.Digest, digest)
		}
		g.Digest = digest
		text, err := json.MarshalIndent(g, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tmp, generationFile), append(text, '\n'), 0o644)
	})
	return g, err
}

// Switch makes a generation the one in use; 0 is the bare base.
func (l Library) Switch(n int) error {
	if n != 0 {
		if _, err := l.Verify(n); err != nil {
			return err
		}
	}
	return atomicfile.WriteFile(filepath.Join(l.dir, currentFile), fmt.Appendf(nil, "%d\n", n))
}

// Rollback takes the current generation back: its parent is in use again.
func (l Library) Rollback() (from, to int, err error) {
	if from, err = l.Current(); err != nil {
		return 0, 0, err
	}
	if from == 0 {
		return 0, 0, errors.New("the bare base is in use: there is nothing to take back")
	}
	g, err := l.Get(from)
	if err != nil {
		return from, 0, err
	}
	if err := l.Switch(g.Parent); err != nil {
		return from, g.Parent, fmt.Errorf("%w; choose another with --to, 0 for the bare base", err)
	}
	return from, g.Parent, nil
}

// Prune keeps at most keep generations: the current one, those that it comes from, then the newest.
func (l Library) Prune(keep int) error {
	current, err := l.Current()
	if err != nil {
		return err
	}
	list, err := l.List()
	if err != nil {
		return err
	}
	parent := map[int]int{}
	for _, g := range list {
		parent[g.Number] = g.Parent
	}
	var order []int
	for n := current; n != 0 && !slices.Contains(order, n); n = parent[n] {
		if _, ok := parent[n]; ok {
			order = append(order, n)
		}
	}
	for _, g := range slices.Backward(list) {
		if !slices.Contains(order, g.Number) {
			order = append(order, g.Number)
		}
	}
	var errs []error
	for _, n := range order[min(max(keep, 1), len(order)):] {
		errs = append(errs, atomicfile.RemoveDir(l.path(n)))
	}
	return errors.Join(errs...)
}

// DigestAdapter identifies an adapter by its config and its values, whatever order its file has them in.
func DigestAdapter(dir string) (string, error) {
	config, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return "", err
	}
	f, err := checkpoint.Open(filepath.Join(dir, weightsFile))
	if err != nil {
		return "", err
	}
	defer f.Close()
	var tensors []checkpoint.Tensor
	for _, name := range f.Names() {
		t, _ := f.Tensor(name)
		tensors = append(tensors, t)
	}
	return digest(config, tensors), nil
}

func digest(config []byte, tensors []checkpoint.Tensor) string {
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b checkpoint.Tensor) int { return strings.Compare(a.Name, b.Name) })
	h := sha256.New()
	part := func(b []byte) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	part(config)
	for _, t := range tensors {
		part([]byte(t.Name))
		part(fmt.Append(nil, t.Format, t.Shape))
		part(t.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// DigestBase identifies a base by the content of its file, or of the files of its directory that a run reads.
func DigestBase(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		f, err := runs.HashFile(path)
		return f.SHA256, err
	}
	h := sha256.New()
	for _, pattern := range []string{"*.safetensors", "*.gguf", "*.json", "*.model", "*.jinja"} {
		found, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return "", err
		}
		for _, p := range found {
			f, err := runs.HashFile(p)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, "%s %s\n", filepath.Base(p), f.SHA256)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
