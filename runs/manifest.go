package runs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Manifest says what a run's result depends on beside its configuration.
type Manifest struct {
	Name      string            `json:"name"`
	Created   time.Time         `json:"created"`
	Version   string            `json:"version"` // of the program
	Binary    File              `json:"binary"`
	Base      []File            `json:"base"`
	Data      []File            `json:"data"`
	Seed      uint64            `json:"seed"`
	Engine    string            `json:"engine"` // backend and kernel level
	Precision string            `json:"precision"`
	Workers   int               `json:"workers"`
	System    string            `json:"system"`          // operating system and architecture
	Go        string            `json:"go"`              // version of the compiler
	Extra     map[string]string `json:"extra,omitempty"` // what else is worth keeping
}

// File is a file by its content.
type File struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// NewManifest fills in what this process knows of itself.
func NewManifest(version string) (Manifest, error) {
	m := Manifest{Created: time.Now().UTC().Truncate(time.Second), Version: version, System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	path, err := os.Executable()
	if err != nil {
		return m, fmt.Errorf("runs: this program's file: %w", err)
	}
	m.Binary, err = HashFile(path)
	return m, err
}

// HashFile reads a file and returns its length and hash.
func HashFile(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, fmt.Errorf("hash: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return File{}, fmt.Errorf("hash %s: %w", path, err)
	}
	return File{Path: path, Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// HashFiles hashes a file, or the files of a directory that match patterns, one pattern after the other.
func HashFiles(path string, patterns ...string) ([]File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	paths := []string{path}
	if info.IsDir() {
		paths = nil
		for _, pattern := range patterns {
			found, _ := filepath.Glob(filepath.Join(path, pattern))
			paths = append(paths, found...)
		}
	}
	var out []File
	for _, p := range paths {
		f, err := HashFile(p)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// ReadManifest reads manifest.json.
func ReadManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s is not a run: %w", dir, err)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}
