package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tunesmith/internal/atomicfile"
)

// State is what a training run continues from: tensors, which come back bit for bit, and whatever else the next step
// depends on, as JSON.
type State struct {
	Step    int
	Tensors []Tensor // of formats that safetensors can hold; LoadState returns them in the file's order
	Meta    map[string]json.RawMessage
}

// Files of a state's directory.
const (
	stateTensors  = "state.safetensors"
	stateMeta     = "state.json"
	stateManifest = "manifest.json"
)

// stateFiles are the files that the manifest vouches for.
var stateFiles = []string{stateTensors, stateMeta}

// stateVersion is the version of the directory's layout.
const stateVersion = 1

// metaFile is the content of stateMeta.
type metaFile struct {
	Step int                        `json:"step"`
	Meta map[string]json.RawMessage `json:"meta"`
}

// manifest is the content of stateManifest, which vouches for the other files and holds nothing else: the hashes
// cannot vouch for what stands beside them.
type manifest struct {
	Version int               `json:"version"`
	Files   map[string]digest `json:"files"`
}

type digest struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// hashed computes the digest of what passes through it.
type hashed struct {
	hash.Hash
	size int64
}

func newHashed() *hashed { return &hashed{Hash: sha256.New()} }

func (h *hashed) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	return h.Hash.Write(p)
}

func (h *hashed) digest() digest { return digest{h.size, hex.EncodeToString(h.Sum(nil))} }

// stepDir is the directory of a step below root.
func stepDir(root string, step int) string {
	return filepath.Join(root, fmt.Sprintf("step-%06d", step))
}

// SaveState writes a state as root/step-NNNNNN and returns that directory. It appears whole or not at all, and
// replaces an older state of the same step.
func SaveState(root string, s State) (dir string, err error) {
	dir = stepDir(root, s.Step)
	if s.Step < 0 {
		return dir, fmt.Errorf("checkpoint %s: want a step of at least 0, have %d", dir, s.Step)
	}
	if err := os.MkdirAll(root, 0o777); err != nil {
		return dir, fmt.Errorf("checkpoint: %w", err)
	}
	err = atomicfile.WriteDir(dir, func(tmp string) error {
		files := map[string]digest{}
		write := func(name string, encode func(io.Writer) error) error {
			f, err := os.Create(filepath.Join(tmp, name))
			if err != nil {
				return err
			}
			h := newHashed()
			err = errors.Join(encode(io.MultiWriter(f, h)), f.Close())
			files[name] = h.digest()
			return err
		}
		writeJSON := func(name string, v any) error {
			return write(name, func(w io.Writer) error { return json.NewEncoder(w).Encode(v) })
		}
		if err := write(stateTensors, func(w io.Writer) error { return EncodeSafetensors(w, s.Tensors, nil) }); err != nil {
			return err
		}
		if err := writeJSON(stateMeta, metaFile{s.Step, s.Meta}); err != nil {
			return err
		}
		return writeJSON(stateManifest, manifest{stateVersion, files})
	})
	if err != nil {
		return dir, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	return dir, nil
}

// LoadState reads a state whose every file is as it was written; else the error names the file that is not.
func LoadState(dir string) (State, error) {
	s, err := loadState(dir)
	if err != nil {
		return State{}, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	return s, nil
}

func loadState(dir string) (State, error) {
	m, err := readManifest(dir)
	if err != nil {
		return State{}, err
	}
	text, err := m.read(dir, stateMeta)
	if err != nil {
		return State{}, err
	}
	var meta metaFile
	if err := json.Unmarshal(text, &meta); err != nil {
		return State{}, fmt.Errorf("%s: %w", stateMeta, err)
	}
	b, err := m.read(dir, stateTensors)
	if err != nil {
		return State{}, err
	}
	f, err := parseSafetensors(b)
	if err != nil {
		return State{}, fmt.Errorf("%s: %w", stateTensors, err)
	}
	s := State{Step: meta.Step, Meta: meta.Meta}
	for _, name := range f.names {
		s.Tensors = append(s.Tensors, f.tensors[name])
	}
	return s, nil
}

func readManifest(dir string) (manifest, error) {
	var m manifest
	text, err := os.ReadFile(filepath.Join(dir, stateManifest))
	if err != nil {
		return m, fmt.Errorf("it is not complete: %w", err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%s is damaged: %w", stateManifest, err)
	}
	if m.Version != stateVersion {
		return m, fmt.Errorf("%s: want version %d, have %d", stateManifest, stateVersion, m.Version)
	}
	for _, name := range stateFiles {
		if _, ok := m.Files[name]; !ok {
			return m, fmt.Errorf("%s is damaged: it does not name %s", stateManifest, name)
		}
	}
	return m, nil
}

// open opens a file of the size that the manifest says.
func (m manifest) open(dir, name string) (*os.File, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("it is not complete: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() != m.Files[name].Size {
		err = fmt.Errorf("%s is damaged: want %d bytes, have %d", name, m.Files[name].Size, info.Size())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// read returns a file that is as it was written.
func (m manifest) read(dir, name string) ([]byte, error) {
	f, err := m.open(dir, name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, m.Files[name].Size)
	h := newHashed()
	_, err = io.ReadFull(io.TeeReader(f, h), b)
	return b, errors.Join(m.compare(name, h), err, f.Close())
}

// check reads a file without keeping it.
func (m manifest) check(dir, name string) error {
	f, err := m.open(dir, name)
	if err != nil {
		return err
	}
	h := newHashed()
	_, err = io.Copy(h, f)
	return errors.Join(m.compare(name, h), err, f.Close())
}

func (m manifest) compare(name string, h *hashed) error {
	if want, have := m.Files[name], h.digest(); have != want {
		return fmt.Errorf("%s is damaged: want %d bytes of SHA-256 %.16s…, have %d of %.16s…",
			name, want.Size, want.SHA256, have.Size, have.SHA256)
	}
	return nil
}

// verify compares the files of a state with its manifest.
func verify(dir string) error {
	m, err := readManifest(dir)
	for _, name := range stateFiles {
		if err == nil {
			err = m.check(dir, name)
		}
	}
	return err
}

// complete reports whether a state has all its files in their sizes, which is what a glance can tell.
func complete(dir string) bool {
	m, err := readManifest(dir)
	for _, name := range stateFiles {
		if err == nil {
			var f *os.File
			if f, err = m.open(dir, name); err == nil {
				err = f.Close()
			}
		}
	}
	return err == nil
}

// Latest returns the newest state below root whose files are all as they were written, or "" where there are no
// states. It warns of those that it passes over: damaged ones, and what a save that was interrupted has left. If none
// is whole, that is an error.
func Latest(root string) (dir string, step int, err error) {
	steps, interrupted, err := list(root)
	if err != nil {
		return "", 0, err
	}
	for _, name := range interrupted {
		slog.Warn("an interrupted save of a checkpoint is passed over", "folder", filepath.Join(root, name))
	}
	var errs []error
	for _, step := range slices.Backward(steps) {
		dir := stepDir(root, step)
		err := verify(dir)
		if err == nil {
			return dir, step, nil
		}
		slog.Warn("a damaged checkpoint is passed over", "folder", dir, "error", err)
		errs = append(errs, fmt.Errorf("checkpoint %s: %w", dir, err))
	}
	return "", 0, errors.Join(errs...)
}

// Steps lists the steps that have a state below root, whole or not, in their order.
func Steps(root string) ([]int, error) {
	steps, _, err := list(root)
	return steps, err
}

// list returns the steps of a folder, and the names of the folders that interrupted saves have left.
func list(root string) (steps []int, interrupted []string, err error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoint: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		target, temporary := atomicfile.Temporary(name)
		if temporary {
			name = target
		}
		number, ok := strings.CutPrefix(name, "step-")
		step, err := strconv.Atoi(number)
		if !ok || err != nil || !e.IsDir() || filepath.Base(stepDir(root, step)) != name {
			continue
		}
		if temporary {
			interrupted = append(interrupted, e.Name())
		} else {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return steps, interrupted, nil
}

// Prune removes the states below root, but for the newest complete ones, as many as last says, and those of the
// steps in keep. It also removes what interrupted saves have left, so no save may be under way.
func Prune(root string, last int, keep ...int) error {
	if last < 1 {
		return fmt.Errorf("checkpoint %s: want to keep at least the last state, have %d", root, last)
	}
	steps, interrupted, err := list(root)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range interrupted {
		errs = append(errs, os.RemoveAll(filepath.Join(root, name)))
	}
	for _, step := range slices.Backward(steps) {
		switch dir := stepDir(root, step); {
		case last > 0:
			if complete(dir) {
				last--
			}
		case !slices.Contains(keep, step):
			errs = append(errs, atomicfile.RemoveDir(dir))
		}
	}
	return errors.Join(errs...)
}
