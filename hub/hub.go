// Package hub fetches models and data sets by their name on a model hub, or by address, into the cache that the Hugging
// Face libraries share: models--ORG--NAME with blobs by hash, snapshots by commit, and refs by name.
//
// A download that breaks off is continued where it stopped. Nothing gets its name before its hash is right: LFS files
// are checked by SHA-256, others by their git hash. Several processes may fetch the same file at once; each writes the
// same bytes to the same places, so no lock is needed.
package hub

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Kind is what a repository holds.
type Kind string

// The kinds.
const (
	Model   Kind = "model"
	Dataset Kind = "dataset"
)

// DefaultEndpoint is the hub that is asked where HF_ENDPOINT names none.
const DefaultEndpoint = "https://huggingface.co"

// Ref names a repository, or a part of it.
type Ref struct {
	Kind     Kind
	Repo     string // org/name
	Revision string // branch, tag or commit; "main" where a name gives none
	Path     string // a file or folder of the repository, "" for all
}

var (
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9][\w.-]*$`)
	commitForm = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// Parse reads org/name, org/name@revision and org/name/file, each perhaps behind "hub:" and, for data, behind
// "datasets/"; an address on the endpoint is read in the same way.
func Parse(text, endpoint string) (Ref, error) {
	s := strings.TrimPrefix(text, "hub:")
	for _, host := range []string{endpoint, DefaultEndpoint} {
		if rest, ok := strings.CutPrefix(s, strings.TrimSuffix(host, "/")+"/"); ok {
			s = rest
		}
	}
	if strings.Contains(s, "://") {
		return Ref{}, fmt.Errorf("hub: %q is an address outside the hub", text)
	}
	r := Ref{Kind: Model, Revision: "main"}
	if rest, ok := strings.CutPrefix(s, "datasets/"); ok {
		r.Kind, s = Dataset, rest
	}
	s, revision, marked := strings.Cut(s, "@")
	if marked {
		r.Revision = revision
		if name, file, ok := strings.Cut(revision, ":"); ok {
			r.Revision, r.Path = name, file
		}
	}
	parts := strings.SplitN(strings.Trim(s, "/"), "/", 3)
	if len(parts) < 2 || !nameForm.MatchString(parts[0]) || !nameForm.MatchString(parts[1]) {
		return Ref{}, fmt.Errorf("hub: %q: want org/name, org/name@revision or org/name/file, perhaps behind hub: or datasets/", text)
	}
	r.Repo = parts[0] + "/" + parts[1]
	if len(parts) == 3 {
		r.Path = parts[2]
		// The form of addresses in a browser.
		for _, view := range []string{"resolve/", "blob/", "tree/"} {
			if rest, ok := strings.CutPrefix(r.Path, view); ok {
				r.Revision, r.Path, _ = strings.Cut(rest, "/")
			}
		}
	}
	if r.Revision == "" || strings.HasPrefix(r.Revision, "-") || !filepath.IsLocal(filepath.FromSlash(r.Revision)) {
		return Ref{}, fmt.Errorf("hub: %q: revision %q is no branch, tag or commit", text, r.Revision)
	}
	if r.Path != "" && !filepath.IsLocal(filepath.FromSlash(r.Path)) {
		return Ref{}, fmt.Errorf("hub: %q: path %q leads out of the repository", text, r.Path)
	}
	return r, nil
}

// IsName reports whether a text that names no file may be the name of a repository.
func IsName(text string) bool {
	if strings.HasPrefix(text, "hub:") {
		return true
	}
	parts := strings.Split(text, "/")
	if len(parts) < 2 || strings.HasPrefix(text, ".") || path.Clean(text) != text || filepath.IsAbs(text) {
		return false
	}
	_, err := Parse(text, DefaultEndpoint)
	return err == nil
}

// String writes the reference as Parse reads it.
func (r Ref) String() string {
	s := r.Repo
	if r.Kind == Dataset {
		s = "datasets/" + s
	}
	switch {
	case r.Revision != "main" && r.Path != "":
		return s + "@" + r.Revision + ":" + r.Path
	case r.Revision != "main":
		return s + "@" + r.Revision
	case r.Path != "":
		return s + "/" + r.Path
	}
	return s
}

// folder is the repository's name in the cache.
func (r Ref) folder() string {
	return string(r.Kind) + "s--" + strings.ReplaceAll(r.Repo, "/", "--")
}

// Client fetches from a hub.
type Client struct {
	Endpoint string // address of the hub or of a mirror
	Token    string // sent to the endpoint, never to another host
	Cache    string // directory
	Offline  bool   // answer from the cache alone
	HTTP     *http.Client
	Tries    int           // attempts in a row without a byte of progress, 5 if 0
	Pause    time.Duration // before the first repetition, doubled for each; one second if 0
	// Progress, where it is set, sees every piece that arrives.
	Progress func(Progress)
}

// Progress is where a download stands.
type Progress struct {
	File        string
	Done, Total int64 // bytes of the file; Total is 0 where it is not known
	Retry       error // why it begins again, where it does
}

// FromEnv returns a client with what the environment says, in the names that the Hugging Face libraries use:
// HF_ENDPOINT, HF_TOKEN (or the token file that they write), HF_HUB_CACHE, HF_HOME, HF_HUB_OFFLINE.
func FromEnv() (*Client, error) {
	first := func(names ...string) string {
		for _, name := range names {
			if v := os.Getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	c := &Client{Endpoint: strings.TrimSuffix(first("HF_ENDPOINT"), "/"), Token: first("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), Cache: first("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")}
	if c.Endpoint == "" {
		c.Endpoint = DefaultEndpoint
	}
	home := first("HF_HOME")
	if home == "" {
		cache := first("XDG_CACHE_HOME")
		if cache == "" {
			user, err := os.UserHomeDir()
			if err != nil && c.Cache == "" {
				return nil, fmt.Errorf("hub: no place for the cache: %w; set HF_HOME", err)
			}
			cache = filepath.Join(user, ".cache")
		}
		home = filepath.Join(cache, "huggingface")
	}
	if c.Cache == "" {
		c.Cache = filepath.Join(home, "hub")
	}
	if c.Token == "" {
		file := first("HF_TOKEN_PATH")
		if file == "" {
			file = filepath.Join(home, "token")
		}
		if b, err := os.ReadFile(file); err == nil {
			c.Token = strings.TrimSpace(string(b))
		}
	}
	switch strings.ToLower(first("HF_HUB_OFFLINE")) {
	case "1", "true", "yes", "on":
		c.Offline = true
	}
	return c, nil
}

// ErrOffline is what is asked of the hub while Offline is set.
var ErrOffline = errors.New("offline")

// Snapshot is a repository at a commit, in the cache.
type Snapshot struct {
	Ref    Ref    `json:"-"`
	Commit string `json:"commit"`
	Dir    string `json:"directory"`
	Files  []File `json:"files"`
}

// File is a file of a repository.
type File struct {
	Name   string `json:"name"` // with slashes
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"` // of files in LFS
	Git    string `json:"git,omitempty"`    // hash of the git object, of the others
}

// hash is the name of the file's content in the cache.
func (f File) hash() string {
	if f.SHA256 != "" {
		return f.SHA256
	}
	return f.Git
}
