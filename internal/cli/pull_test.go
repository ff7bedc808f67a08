package cli

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tunesmith/recipes"
)

// program runs a command and returns its exit code and what it says.
func program(args ...string) (code int, out string) {
	var b bytes.Buffer
	code = Run(args, strings.NewReader(""), &b, &b)
	return code, b.String()
}

// repositories serves repositories as a hub does: by the path of their address, the files.
func repositories(t *testing.T, repos map[string]map[string][]byte) *httptest.Server {
	t.Helper()
	const commit = "89abcdef0123456789abcdef0123456789abcdef"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, files := range repos {
			api := name
			if !strings.HasPrefix(name, "datasets/") {
				api = "models/" + name
			}
			if r.URL.Path == "/api/"+api+"/revision/main" {
				var list []map[string]any
				for file, b := range files {
					sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...))
					list = append(list, map[string]any{"rfilename": file, "size": len(b), "blobId": hex.EncodeToString(sum[:])})
				}
				json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": list})
				return
			}
			if file, ok := strings.CutPrefix(r.URL.Path, "/"+name+"/resolve/"+commit+"/"); ok && files[file] != nil {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(files[file]))
				return
			}
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// TestPull fetches a model and a data set, and uses them by their names with the hub gone.
func TestPull(t *testing.T) {
	base, err := recipes.Base()
	if err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	line := `{"messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"good day"}]}` + "\n"
	s := repositories(t, map[string]map[string][]byte{
		"org/tiny":         {"tiny.gguf": weights, "README.md": []byte("# tiny")},
		"datasets/org/toy": {"data/train.jsonl": []byte(line), "data/test.jsonl": []byte(line)},
		"files":            {"plain.jsonl": []byte(line)},
	})
	t.Setenv("HF_ENDPOINT", s.URL)
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	t.Setenv("HF_TOKEN", "")
	t.Chdir(t.TempDir())
	ask := func(want int, says string, args ...string) {
		t.Helper()
		if code, out := program(args...); code != want || !strings.Contains(out, says) {
			t.Errorf("%v: want code %d and %q, have %d:\n%s", args, want, says, code, out)
		}
	}
	ask(exitNotFound, "tunesmith pull org/tiny", "data", "check", "hub:org/tiny", "-m", "org/tiny")
	ask(exitNotFound, "check the name", "pull", "org/nothing")
	ask(exitNotFound, "not in the cache", "pull", "--offline", "org/tiny")
	ask(0, "in a run file: model: org/tiny", "pull", "org/tiny")
	ask(0, "data: [{path: hub:org/toy}]", "pull", "datasets/org/toy")
	ask(0, `"sha256"`, "pull", s.URL+"/files/resolve/89abcdef0123456789abcdef0123456789abcdef/plain.jsonl?x", "-o", "plain.jsonl", "--json", "--endpoint", "http://elsewhere.test")
	ask(exitUsage, "org/name", "pull", "tiny")
	ask(exitOther, "plain.jsonl exists already", "pull", s.URL+"/files/plain.jsonl", "-o", "plain.jsonl", "--endpoint", "http://elsewhere.test")
	s.Close()
	t.Setenv("HF_HUB_OFFLINE", "1")
	ask(0, "tiny.gguf", "pull", "org/tiny", "--json")
	ask(0, "good day", "data", "preview", "hub:org/toy/data/train.jsonl", "-m", "org/tiny")
	ask(0, "1 examples", "data", "preview", "hub:org/toy", "-m", "hub:org/tiny")
	run := "model: org/tiny\ndata: [{path: 'hub:org/toy/data'}]\nmax_steps: 1\neval: {share: 0}\nparameters: {method: lora, rank: 2}\noutput: runs\n"
	if err := os.WriteFile("run.yaml", []byte(run), 0o600); err != nil {
		t.Fatal(err)
	}
	ask(0, "saved", "train", "run.yaml")
	config, err := os.ReadFile(filepath.Join("runs", "run", "adapter", "adapter_config.json"))
	if err != nil || !strings.Contains(string(config), `"base_model_name_or_path": "org/tiny"`) {
		t.Errorf("%v: %s", err, config)
	}
}
