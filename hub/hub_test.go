package hub

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// server is a hub with one repository. answer, where it is set, takes the requests for files.
type server struct {
	*httptest.Server
	files  map[string][]byte
	lfs    map[string]bool
	answer func(w http.ResponseWriter, r *http.Request, content []byte, nth int) bool // whether it answered
	token  string
	gets   map[string]int // by file
	sent   int64          // bytes of files
}

func content(n int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{gets: map[string]int{}, lfs: map[string]bool{"model.safetensors": true}, files: map[string][]byte{
		"config.json": []byte(`{"model_type":"llama"}`), "model.safetensors": content(300_000), "pytorch_model.bin": content(10),
		"onnx/model.onnx": content(10), "empty.json": {},
	}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.handle))
	t.Cleanup(s.Close)
	return s
}

func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		http.Error(w, "Access to model is restricted", http.StatusUnauthorized)
		return
	}
	for _, kind := range []string{"models", "datasets"} {
		if strings.HasPrefix(r.URL.Path, "/api/"+kind+"/org/name/revision/") {
			s.list(w)
			return
		}
	}
	_, file, ok := strings.Cut(r.URL.Path, "/org/name/resolve/"+commit+"/")
	content, known := s.files[file]
	if !ok || !known {
		http.NotFound(w, r)
		return
	}
	s.gets[file]++
	if s.answer != nil && s.answer(w, r, content, s.gets[file]) {
		return
	}
	s.serve(w, r, content)
}

// serve answers as a good server does.
func (s *server) serve(w http.ResponseWriter, r *http.Request, content []byte) {
	before := int64(0)
	if h := r.Header.Get("Range"); h != "" {
		fmt.Sscanf(h, "bytes=%d-", &before)
	}
	s.sent += int64(len(content)) - before
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func (s *server) list(w http.ResponseWriter) {
	var siblings []map[string]any
	for name, b := range s.files {
		git := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...))
		x := map[string]any{"rfilename": name, "size": len(b), "blobId": hex.EncodeToString(git[:])}
		if s.lfs[name] {
			sum := sha256.Sum256(b)
			x["lfs"] = map[string]any{"sha256": hex.EncodeToString(sum[:]), "size": len(b)}
		}
		siblings = append(siblings, x)
	}
	json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": siblings})
}

func (s *server) client(t *testing.T) *Client {
	t.Helper()
	return &Client{Endpoint: s.URL, Cache: t.TempDir(), Pause: time.Millisecond, Tries: 3}
}

var model = Ref{Kind: Model, Repo: "org/name", Revision: "main"}

// verify checks a snapshot against the repository.
func (s *server) verify(t *testing.T, snap *Snapshot, names ...string) {
	t.Helper()
	have := map[string]bool{}
	for _, f := range snap.Files {
		have[f.Name] = true
		b, err := os.ReadFile(filepath.Join(snap.Dir, filepath.FromSlash(f.Name)))
		if err != nil || !bytes.Equal(b, s.files[f.Name]) {
			t.Errorf("%s: %d bytes, %v", f.Name, len(b), err)
		}
	}
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("files: -want +have:\n%s", d)
	}
}

func TestPull(t *testing.T) {
	s := newServer(t)
	c := s.client(t)
	for range 2 {
		snap, err := c.Pull(t.Context(), model, Choice{})
		if err != nil {
			t.Fatal(err)
		}
		s.verify(t, snap, "config.json", "model.safetensors", "empty.json")
	}
	if s.gets["model.safetensors"] != 1 {
		t.Errorf("want one download, have %d", s.gets["model.safetensors"])
	}
	// The layout is that of the Hugging Face libraries.
	root := filepath.Join(c.Cache, "models--org--name")
	if b, err := os.ReadFile(filepath.Join(root, "refs", "main")); string(b) != commit {
		t.Errorf("ref: %q, %v", b, err)
	}
	sum := sha256.Sum256(s.files["model.safetensors"])
	target, err := os.Readlink(filepath.Join(root, "snapshots", commit, "model.safetensors"))
	if want := filepath.Join("..", "..", "blobs", hex.EncodeToString(sum[:])); err != nil || target != want {
		t.Errorf("link: want %s, have %s, %v", want, target, err)
	}
	// Without the hub, by branch and by commit.
	s.Close()
	c.Offline = true
	for _, revision := range []string{"main", commit} {
		snap, err := c.Pull(t.Context(), Ref{Model, "org/name", revision, ""}, Choice{})
		if err != nil {
			t.Fatal(err)
		}
		s.verify(t, snap, "config.json", "model.safetensors", "empty.json")
		if p, err := snap.Local(); err != nil || p != snap.Dir {
			t.Errorf("local: %s, %v", p, err)
		}
	}
	if _, err := c.Pull(t.Context(), Ref{Model, "org/other", "main", ""}, Choice{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "tunesmith pull org/other") {
		t.Errorf("have %v", err)
	}
}

func TestChoice(t *testing.T) {
	s := newServer(t)
	for _, c := range []struct {
		ref    Ref
		choice Choice
		want   []string
	}{
		{Ref{Model, "org/name", "main", "onnx"}, Choice{}, []string{"onnx/model.onnx"}},
		{Ref{Dataset, "org/name", "main", "config.json"}, Choice{}, []string{"config.json"}},
		{model, Choice{Include: []string{"*.bin", "onnx/*"}}, []string{"pytorch_model.bin", "onnx/model.onnx"}},
		{model, Choice{Exclude: []string{"*.json"}}, []string{"model.safetensors"}},
	} {
		snap, err := s.client(t).Pull(t.Context(), c.ref, c.choice)
		if err != nil {
			t.Fatal(err)
		}
		s.verify(t, snap, c.want...)
	}
	if _, err := s.client(t).Pull(t.Context(), model, Choice{Include: []string{"*.gguf"}}); err == nil || !strings.Contains(err.Error(), "none of its 5 files") {
		t.Errorf("have %v", err)
	}
	s.files = map[string][]byte{"a.gguf": content(5), "b.gguf": content(6)}
	if _, err := s.client(t).Pull(t.Context(), model, Choice{}); err == nil || !strings.Contains(err.Error(), "name one of") {
		t.Errorf("have %v", err)
	}
	snap, err := s.client(t).Pull(t.Context(), Ref{Model, "org/name", "main", "b.gguf"}, Choice{})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := snap.Local(); err != nil || filepath.Base(p) != "b.gguf" {
		t.Errorf("have %s, %v", p, err)
	}
}

// cut sends the first n bytes of what is asked for, and breaks off.
func cut(s *server, w http.ResponseWriter, r *http.Request, b []byte, n int) {
	start := 0
	if h := r.Header.Get("Range"); h != "" {
		fmt.Sscanf(h, "bytes=%d-", &start)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(b)-1, len(b)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)-start))
	if start > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	end := min(len(b), start+n)
	w.Write(b[start:end])
	w.(http.Flusher).Flush()
	s.sent += int64(end - start)
	panic(http.ErrAbortHandler)
}

// TestMisbehaviour pulls from servers that break the rules, and asks for the right bytes or a clear error, and never for
// a file under its name that is not whole.
func TestMisbehaviour(t *testing.T) {
	const file = "model.safetensors"
	for _, c := range []struct {
		name   string
		answer func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool
		want   string // of the error, "" for none
		gets   int
	}{
		{"cuts again and again", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			cut(s, w, r, b, 40_000)
			return true
		}, "", 8},
		{"cuts before the first byte, too often", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			panic(http.ErrAbortHandler)
		}, "EOF", 0}, // the standard client repeats on its own
		{"is busy twice", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			if nth < 3 {
				w.Header().Set("Retry-After", "0")
				http.Error(w, "slow down", http.StatusTooManyRequests)
			}
			return nth < 3
		}, "", 3},
		{"is busy for ever", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			http.Error(w, "slow down", http.StatusTooManyRequests)
			return true
		}, "429 Too Many Requests: slow down", 3},
		{"fails once", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			if nth == 1 {
				http.Error(w, "<html>", http.StatusBadGateway)
			}
			return nth == 1
		}, "", 2},
		{"offers fewer bytes", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			s.serve(w, r, b[:len(b)-1])
			return true
		}, "wrong size: want 300000 bytes, the server offers 299999", 1},
		{"offers more bytes", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			s.serve(w, r, append(b[:len(b):len(b)], 1))
			return true
		}, "wrong size", 1},
		{"sends more without saying so", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			w.(http.Flusher).Flush() // no length
			w.Write(append(b[:len(b):len(b)], 1, 2, 3))
			return true
		}, "the server sends more", 1},
		{"sends other bytes once", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			if nth == 1 {
				s.serve(w, r, content(len(b) + 1)[1:])
			}
			return nth == 1
		}, "", 2},
		{"sends other bytes always", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			s.serve(w, r, content(len(b) + 1)[1:])
			return true
		}, "wrong hash", 2},
		{"ignores ranges", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			if nth == 1 {
				cut(s, w, r, b, 100)
			}
			w.Write(b)
			return true
		}, "", 2},
		{"sends another range", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			if nth == 1 {
				cut(s, w, r, b, 100)
			}
			if nth == 2 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", len(b)-1, len(b)))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(b[7:])
			}
			return nth == 2
		}, "", 3},
		{"refuses the range", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			if nth == 1 {
				cut(s, w, r, b, 100)
			}
			if nth == 2 {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			}
			return nth == 2
		}, "", 3},
		{"redirects in a circle", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}, "more than 10 redirects", 33},
		{"is gone", func(s *server, w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
			http.NotFound(w, r)
			return true
		}, "404 Not Found", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			s.Config.ErrorLog = nil
			client := s.client(t)
			s.answer = func(w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
				return r.URL.Path != "" && strings.HasSuffix(r.URL.Path, file) && c.answer(s, w, r, b, nth)
			}
			snap, err := client.Pull(t.Context(), Ref{Model, "org/name", "main", file}, Choice{})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				s.verify(t, snap, file)
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want %q, have %v", c.want, err)
			}
			if s.gets[file] != c.gets && c.gets > 0 {
				t.Errorf("want %d requests, have %d", c.gets, s.gets[file])
			}
			blobs, _ := filepath.Glob(filepath.Join(client.Cache, "models--org--name", "blobs", "*"))
			for _, b := range blobs {
				if whole := !strings.HasSuffix(b, ".incomplete"); whole != (c.want == "") {
					t.Errorf("left behind: %s", filepath.Base(b))
				}
			}
		})
	}
}

// TestResume: what one command has left, the next one does not ask for again.
func TestResume(t *testing.T) {
	s := newServer(t)
	c := s.client(t)
	c.Tries = 1
	ref := Ref{Model, "org/name", "main", "model.safetensors"}
	s.answer = func(w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
		cut(s, w, r, b, 100_000)
		return true
	}
	_, err := c.Pull(t.Context(), ref, Choice{})
	if err == nil || !strings.Contains(err.Error(), "run the same command again") {
		t.Fatalf("have %v", err)
	}
	s.answer = nil
	snap, err := c.Pull(t.Context(), ref, Choice{})
	if err != nil {
		t.Fatal(err)
	}
	s.verify(t, snap, "model.safetensors")
	if s.sent != 300_000 {
		t.Errorf("want 300000 bytes sent in all, have %d", s.sent)
	}
}

func TestTokenStaysAtHome(t *testing.T) {
	s := newServer(t)
	s.token = "secret"
	var seen string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen += r.Header.Get("Authorization")
		w.Write(s.files["model.safetensors"])
	}))
	defer other.Close()
	// Another port of one host is one host for the standard client; another name is not.
	away := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	s.answer = func(w http.ResponseWriter, r *http.Request, b []byte, nth int) bool {
		if strings.HasSuffix(r.URL.Path, "model.safetensors") {
			http.Redirect(w, r, away+"/blob", http.StatusFound)
			return true
		}
		return false
	}
	c := s.client(t)
	if _, err := c.Pull(t.Context(), model, Choice{}); err == nil || !strings.Contains(err.Error(), "HF_TOKEN") {
		t.Errorf("without a token: %v", err)
	}
	c.Token = "secret"
	snap, err := c.Pull(t.Context(), model, Choice{})
	if err != nil {
		t.Fatal(err)
	}
	s.verify(t, snap, "config.json", "model.safetensors", "empty.json")
	if seen != "" {
		t.Errorf("another host got %q", seen)
	}
}

func TestListingsAreNotTrusted(t *testing.T) {
	s := newServer(t)
	for _, c := range []struct{ sha, name, git, want string }{
		{commit, "../../x", strings.Repeat("a", 40), "leads out"},
		{commit, "/etc/x", strings.Repeat("a", 40), "leads out"},
		{commit, "x", "../../x", "gives no hash"},
		{"../../x", "x", strings.Repeat("a", 40), "names no commit"},
	} {
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"sha":%q,"siblings":[{"rfilename":%q,"size":1,"blobId":%q}]}`, c.sha, c.name, c.git)
		})
		if _, err := s.client(t).Pull(t.Context(), model, Choice{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q, have %v", c.want, err)
		}
	}
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) })
	if _, err := s.client(t).Pull(t.Context(), model, Choice{}); err == nil || !strings.Contains(err.Error(), "no listing") {
		t.Errorf("have %v", err)
	}
	if _, err := s.client(t).Pull(canceled(), model, Choice{}); !errors.Is(err, context.Canceled) {
		t.Errorf("have %v", err)
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestFetch(t *testing.T) {
	b := content(100_000)
	sum := sha256.Sum256(b)
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			cut(&server{}, w, r, b, 30_000)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	defer s.Close()
	c := &Client{Pause: time.Millisecond}
	target := filepath.Join(t.TempDir(), "data.bin")
	f, err := c.Fetch(t.Context(), s.URL, target, "")
	have, _ := os.ReadFile(target)
	if err != nil || f.SHA256 != hex.EncodeToString(sum[:]) || !bytes.Equal(have, b) || n != 2 {
		t.Errorf("%+v, %v, %d requests", f, err, n)
	}
	if _, err := c.Fetch(t.Context(), s.URL, target+"2", strings.Repeat("0", 64)); !errors.Is(err, errHash) {
		t.Errorf("have %v", err)
	}
	if _, err := os.Stat(target + "2"); err == nil {
		t.Error("a file with the wrong hash has got its name")
	}
	if _, err := c.Fetch(t.Context(), s.URL, target+"3", "12"); err == nil || !strings.Contains(err.Error(), "64 hexadecimal digits") {
		t.Errorf("have %v", err)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Ref{
		"org/name":                                          {Model, "org/name", "main", ""},
		"hub:org/name@v1.0":                                 {Model, "org/name", "v1.0", ""},
		"datasets/org/na.me-2/a/b.jsonl":                    {Dataset, "org/na.me-2", "main", "a/b.jsonl"},
		"hub:datasets/org/name@refs/pr/1":                   {Dataset, "org/name", "refs/pr/1", ""},
		"org/name@v1:x/y.gguf":                              {Model, "org/name", "v1", "x/y.gguf"},
		"https://huggingface.co/org/name":                   {Model, "org/name", "main", ""},
		"https://huggingface.co/org/name/blob/v2/q.gguf":    {Model, "org/name", "v2", "q.gguf"},
		"https://mirror.test/datasets/org/name/resolve/x/f": {Dataset, "org/name", "x", "f"},
	} {
		have, err := Parse(text, "https://mirror.test")
		if d := cmp.Diff(want, have); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", text, err, d)
		}
		if again, err := Parse(have.String(), ""); err != nil || again != have {
			t.Errorf("%s reads back as %+v, %v", have, again, err)
		}
	}
	for _, text := range []string{"", "name", "../name", "org/..", "org/name/../x", "org/name@", "org/name@../x", "https://else.test/org/name", "org/na me", "/org/name"} {
		if r, err := Parse(text, DefaultEndpoint); err == nil && text != "/org/name" {
			t.Errorf("%q reads as %+v", text, r)
		}
	}
	for text, want := range map[string]bool{"org/name": true, "hub:x": true, "name": false, "./org/name": false, "/org/name": false, "data/../x": false, "a//b": false} {
		if IsName(text) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", home)
	if err := os.WriteFile(filepath.Join(home, "token"), []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := FromEnv()
	if err != nil || c.Endpoint != DefaultEndpoint || c.Cache != filepath.Join(home, "hub") || c.Token != "abc" || c.Offline {
		t.Errorf("%+v, %v", c, err)
	}
	t.Setenv("HF_ENDPOINT", "https://mirror.test/")
	t.Setenv("HF_TOKEN", "xyz")
	t.Setenv("HF_HUB_CACHE", "elsewhere")
	t.Setenv("HF_HUB_OFFLINE", "1")
	c, err = FromEnv()
	if err != nil || c.Endpoint != "https://mirror.test" || c.Cache != "elsewhere" || c.Token != "xyz" || !c.Offline {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"org/name", "hub:datasets/a/b@c:d/e", "https://huggingface.co/a/b/tree/x/y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s, DefaultEndpoint)
		if err != nil {
			return
		}
		if again, err := Parse(r.String(), DefaultEndpoint); err == nil && again != r {
			t.Fatalf("%q: %+v reads back as %+v", s, r, again)
		}
		if dir := r.folder(); strings.ContainsAny(dir, `/\`) || !filepath.IsLocal(dir) {
			t.Fatalf("%q: folder %q", s, dir)
		}
	})
}
