package trainer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"tunesmith/internal/atomicfile"
	"tunesmith/runs"
	"tunesmith/tune"
)

// Refer computes what the objective compares with: the log-probabilities of the answers under the model as it is
// before the first step, restored steps included, so that it is called before Restore. Where the objective computes
// them at every step, only those of what is held out are computed. done, which may be nil, hears of the progress.
func (s *Session) Refer(ctx context.Context, done func(examples, all int)) error {
	needed, online := s.refers()
	if !needed {
		return nil
	}
	for split, batches := range s.Eval {
		if split == runs.General {
			continue
		}
		if err := s.Stepper.Refer(ctx, batches); err != nil {
			return err
		}
	}
	if online {
		return nil
	}
	file, err := s.referenceFile()
	if err != nil {
		return err
	}
	if file != "" {
		if found, err := s.loadReferences(file); found || err != nil {
			return err
		}
	}
	all := s.Examples.Len()
	l, err := s.loader(s.Examples, s.Config.BatchSize, 1, false)
	if err != nil {
		return err
	}
	for n := 0; n < all; {
		step, err := l.Next()
		if err != nil {
			return err
		}
		for _, b := range step {
			logp, err := s.programs.logProbs(ctx, s.start(), b)
			if err != nil {
				return err
			}
			s.known.take(b, logp)
			n += b.Rows / max(1, b.Sequences)
		}
		if done != nil {
			done(n, all)
		}
	}
	if file == "" {
		return nil
	}
	return s.saveReferences(file)
}

// referenceFile is the place of the log-probabilities in the cache: its name is a hash of all that they depend on.
func (s *Session) referenceFile() (string, error) {
	if s.cache == "" {
		return "", nil
	}
	h := sha256.New()
	fmt.Fprintf(h, "1 %s %s %016x %d %d\n", s.Backend.Name(), s.Config.Precision, s.Examples.Digest(), s.Config.BatchSize, s.Config.Seed)
	for _, dir := range []string{s.Model.Path, s.Config.Adapter} {
		if dir == "" {
			continue
		}
		files, err := runs.HashFiles(dir, "*.safetensors", "*.gguf", "*.json") // weights and settings
		if err != nil {
			return "", err
		}
		for _, f := range files {
			fmt.Fprintln(h, filepath.Base(f.Path), f.SHA256)
		}
	}
	return filepath.Join(s.cache, hex.EncodeToString(h.Sum(nil)[:16])+".f32"), nil
}

// saveReferences writes the lists in the order of the examples, as little-endian numbers.
func (s *Session) saveReferences(file string) error {
	var b []byte
	for i := range s.Examples.Len() {
		for _, list := range s.known[i] {
			for _, v := range list {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	return atomicfile.WriteFile(file, b)
}

// loadReferences reads what saveReferences wrote. A file that does not hold as many numbers as there are targets is as
// good as none.
func (s *Session) loadReferences(file string) (bool, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reference: %w", err)
	}
	found := references{}
	for i := range s.Examples.Len() {
		e, err := s.Examples.Example(i)
		if err != nil {
			return false, err
		}
		for _, part := range e.Sequences() {
			n := part.Supervised()
			if len(b) < 4*n {
				return false, nil
			}
			list := make([]float32, n)
			for k := range list {
				list[k] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*k:]))
			}
			found[i] = append(found[i], list)
			b = b[4*n:]
		}
	}
	if len(b) != 0 {
		return false, nil
	}
	s.known = found
	return true, nil
}

// Measures are the metrics of the objective that are worth comparing before and after.
func (s *Session) Measures() []tune.Measure {
	if m, ok := s.programs.objective.(tune.Measurer); ok {
		return m.Measures()
	}
	return nil
}
