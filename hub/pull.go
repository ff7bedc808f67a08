package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"tunesmith/internal/atomicfile"
)

// Choice says which files of a repository are wanted; patterns are those of path.Match, on the whole name or its last
// part.
type Choice struct {
	Include []string // all that Exclude and the usual choice leave where empty
	Exclude []string
}

// maxListing bounds the answer that lists a repository.
const maxListing = 64 << 20

// Pull brings a repository's files into the cache and returns where they are. Offline, it returns what the cache has.
func (c *Client) Pull(ctx context.Context, ref Ref, choice Choice) (*Snapshot, error) {
	if c.Offline {
		return c.Cached(ref)
	}
	s, err := c.list(ctx, ref)
	if err != nil {
		return nil, err
	}
	if s.Files, err = choose(s.Files, ref, choice); err != nil {
		return nil, err
	}
	for _, f := range s.Files {
		if err := c.file(ctx, s, f); err != nil {
			return nil, fmt.Errorf("hub: %s: %s: %w", ref, f.Name, err)
		}
	}
	if !commitForm.MatchString(ref.Revision) {
		if err := c.setRef(ref, s.Commit); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Cached returns what the cache has of a reference, without asking the hub.
func (c *Client) Cached(ref Ref) (*Snapshot, error) {
	root := filepath.Join(c.Cache, ref.folder())
	commit := ref.Revision
	if b, err := os.ReadFile(filepath.Join(root, "refs", filepath.FromSlash(ref.Revision))); err == nil {
		commit = strings.TrimSpace(string(b))
	}
	s := &Snapshot{Ref: ref, Commit: commit, Dir: filepath.Join(root, "snapshots", commit)}
	if !commitForm.MatchString(commit) || !dirExists(s.Dir) {
		return nil, fmt.Errorf("hub: %s is not in the cache %s: %w; fetch it with: tunesmith pull %s", ref, c.Cache, fs.ErrNotExist, ref)
	}
	err := filepath.WalkDir(s.Dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := os.Stat(p) // a link's target
		if err != nil {
			return fmt.Errorf("hub: the cache is damaged: %w; fetch it again with: tunesmith pull %s", err, ref)
		}
		name, err := filepath.Rel(s.Dir, p)
		s.Files = append(s.Files, File{Name: filepath.ToSlash(name), Size: info.Size()})
		return err
	})
	return s, err
}

// Local returns the path of what a reference names: the file or folder, or for a whole model its directory, or its only
// GGUF file where it holds no other weights.
func (s *Snapshot) Local() (string, error) {
	if s.Ref.Path != "" {
		p := filepath.Join(s.Dir, filepath.FromSlash(s.Ref.Path))
		if _, err := os.Stat(p); err != nil {
			return "", fmt.Errorf("hub: %s: %w; fetch it with: tunesmith pull %s", s.Ref, err, s.Ref)
		}
		return p, nil
	}
	var gguf []string
	for _, f := range s.Files {
		switch path.Ext(f.Name) {
		case ".safetensors":
			return s.Dir, nil
		case ".gguf":
			gguf = append(gguf, f.Name)
		}
	}
	switch {
	case s.Ref.Kind != Model || len(gguf) == 0:
		return s.Dir, nil
	case len(gguf) == 1:
		return filepath.Join(s.Dir, filepath.FromSlash(gguf[0])), nil
	}
	return "", fmt.Errorf("hub: %s has %d GGUF files: name one, as in %s/%s", s.Ref, len(gguf), s.Ref.Repo, gguf[0])
}

func dirExists(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// list asks the hub for a repository's commit and files.
func (c *Client) list(ctx context.Context, ref Ref) (*Snapshot, error) {
	address := fmt.Sprintf("%s/api/%ss/%s/revision/%s?blobs=true", c.Endpoint, ref.Kind, ref.Repo, url.PathEscape(ref.Revision))
	var answer struct {
		SHA      string
		Siblings []struct {
			Name   string `json:"rfilename"`
			Size   int64
			BlobID string
			LFS    *struct {
				SHA256 string
				Size   int64
			}
		}
	}
	body, err := c.get(ctx, address, maxListing)
	if err != nil {
		return nil, fmt.Errorf("hub: %s: %w", ref, explain(err, ref))
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("hub: %s: the answer of %s is no listing: %w", ref, c.Endpoint, err)
	}
	if !commitForm.MatchString(answer.SHA) {
		return nil, fmt.Errorf("hub: %s: %s names no commit but %q", ref, c.Endpoint, answer.SHA)
	}
	s := &Snapshot{Ref: ref, Commit: answer.SHA, Dir: filepath.Join(c.Cache, ref.folder(), "snapshots", answer.SHA)}
	for _, x := range answer.Siblings {
		f := File{Name: x.Name, Size: x.Size, Git: x.BlobID}
		if x.LFS != nil {
			f.SHA256, f.Size, f.Git = x.LFS.SHA256, x.LFS.Size, ""
		}
		if !filepath.IsLocal(filepath.FromSlash(f.Name)) || strings.Contains(f.Name, "\\") {
			return nil, fmt.Errorf("hub: %s lists a file %q that leads out of the repository", ref, f.Name)
		}
		if !hashForm(f) {
			return nil, fmt.Errorf("hub: %s: %s gives no hash of %s, which could then not be checked", ref, c.Endpoint, f.Name)
		}
		s.Files = append(s.Files, f)
	}
	return s, nil
}

func hashForm(f File) bool {
	h := f.hash()
	return (f.SHA256 != "" && len(h) == 64 || f.SHA256 == "" && len(h) == 40) && strings.Trim(h, "0123456789abcdef") == ""
}

// explain says what to do about a hub's refusal.
func explain(err error, ref Ref) error {
	var status *statusError
	if !errors.As(err, &status) {
		return err
	}
	switch status.code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w; it does not exist, or needs access: accept its terms on its page and set HF_TOKEN", err)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w; check the name and the revision %q (data sets are datasets/%s)", fs.ErrNotExist, err, ref.Revision, ref.Repo)
	}
	return err
}

// rivals are forms of weights that are not read here.
var rivals = []string{"*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.tflite", "*.mlmodel", "*.safetensors.index.fp32.json", "*.gguf"}

// choose returns the files that are wanted.
func choose(files []File, ref Ref, choice Choice) ([]File, error) {
	out := slices.Clone(files)
	keep := func(wanted func(File) bool) {
		out = slices.DeleteFunc(out, func(f File) bool { return !wanted(f) })
	}
	switch {
	case ref.Path != "":
		keep(func(f File) bool { return f.Name == ref.Path || strings.HasPrefix(f.Name, ref.Path+"/") })
	case len(choice.Include) > 0:
		keep(func(f File) bool { return matches(choice.Include, f.Name) })
	case ref.Kind == Model:
		has := func(ext string) int {
			n := 0
			for _, f := range files {
				if path.Ext(f.Name) == ext && !strings.Contains(f.Name, "/") {
					n++
				}
			}
			return n
		}
		if has(".safetensors") > 0 {
			keep(func(f File) bool { return !matches(rivals, f.Name) && !strings.Contains(f.Name, "/") })
			break
		}
		if n := has(".gguf"); n > 1 {
			var names []string
			for _, f := range files {
				if path.Ext(f.Name) == ".gguf" {
					names = append(names, f.Name)
				}
			}
			return nil, fmt.Errorf("hub: %s has %d GGUF files: name one of %s, as in %s/%s", ref, n, strings.Join(names, ", "), ref.Repo, names[0])
		}
	}
	keep(func(f File) bool { return !matches(choice.Exclude, f.Name) })
	if len(out) == 0 {
		names := make([]string, 0, 8)
		for _, f := range files[:min(8, len(files))] {
			names = append(names, f.Name)
		}
		return nil, fmt.Errorf("hub: %s: none of its %d files is wanted; it has %s", ref, len(files), strings.Join(names, ", "))
	}
	return out, nil
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		whole, _ := path.Match(p, name)
		last, _ := path.Match(p, path.Base(name))
		return whole || last
	})
}

// file brings one file into the cache and links it into the snapshot.
func (c *Client) file(ctx context.Context, s *Snapshot, f File) error {
	blobs := filepath.Join(c.Cache, s.Ref.folder(), "blobs")
	if err := os.MkdirAll(blobs, 0o777); err != nil {
		return err
	}
	blob := filepath.Join(blobs, f.hash())
	if info, err := os.Stat(blob); err != nil || info.Size() != f.Size {
		prefix := ""
		if s.Ref.Kind == Dataset {
			prefix = "datasets/"
		}
		address := fmt.Sprintf("%s/%s%s/resolve/%s/%s", c.Endpoint, prefix, s.Ref.Repo, s.Commit, escape(f.Name))
		if err := c.download(ctx, address, blob, f); err != nil {
			return err
		}
	}
	return link(blob, filepath.Join(s.Dir, filepath.FromSlash(f.Name)))
}

// escape writes a file's name as a part of an address.
func escape(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

// link makes a relative link, as the Hugging Face libraries do, or a copy of the name where the system has no links.
func link(blob, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	if have, err := filepath.EvalSymlinks(name); err == nil {
		if real, err := filepath.EvalSymlinks(blob); err == nil && have == real {
			return nil
		}
	}
	target, err := filepath.Rel(filepath.Dir(name), blob)
	if err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.%016x.tmp", name, rand.Uint64())
	if os.Symlink(target, tmp) != nil {
		if err := os.Link(blob, tmp); err != nil {
			return err
		}
	}
	return os.Rename(tmp, name)
}

// setRef notes the commit that a branch or tag stands for.
func (c *Client) setRef(ref Ref, commit string) error {
	name := filepath.Join(c.Cache, ref.folder(), "refs", filepath.FromSlash(ref.Revision))
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	return atomicfile.WriteFile(name, []byte(commit))
}
