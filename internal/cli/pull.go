package cli

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tunesmith/hub"
)

func (a *app) pull() *cobra.Command {
	var revision, out, sum, cache, endpoint string
	var dataset, offline bool
	var choice hub.Choice
	c := &cobra.Command{
		Use:   "pull NAME|ADDRESS...",
		Short: "Fetch models and data sets by name or address",
		Long: "A name is org/name, org/name@revision or org/name/file; data sets are datasets/org/name, or names with --dataset.\n" +
			"They go to the cache that the Hugging Face libraries share; afterwards the name stands for the model in run files\n" +
			"and for --model, and hub:org/name for the data set. Other addresses are fetched to a file.\n\n" +
			"A download that breaks off goes on where it stopped when the command is run again. Contents are checked by their\n" +
			"hashes. The environment has its say: HF_TOKEN, HF_ENDPOINT (a mirror), HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE.\n" +
			"No other command than this one asks the hub.",
		Example: "  tunesmith pull HuggingFaceTB/SmolLM2-135M-Instruct\n  tunesmith pull datasets/databricks/databricks-dolly-15k\n  tunesmith pull https://example.com/data.jsonl.gz -o data.jsonl.gz --sha256 …",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := hub.FromEnv()
			if err != nil {
				return err
			}
			if cache != "" {
				client.Cache = cache
			}
			if endpoint != "" {
				client.Endpoint = strings.TrimSuffix(endpoint, "/")
			}
			client.Offline = client.Offline || offline
			p := pulling{app: a}
			client.Progress = p.show
			if out != "" && len(args) > 1 {
				return usageError{fmt.Errorf("pull: -o names one file, have %d addresses", len(args))}
			}
			for _, arg := range args {
				ref, err := hub.Parse(arg, client.Endpoint)
				if strings.Contains(arg, "://") && err != nil {
					if err := a.fetch(c.Context(), client, &p, arg, out, sum); err != nil {
						return err
					}
					continue
				}
				if err != nil {
					return usageError{err}
				}
				if sum != "" || out != "" {
					return usageError{fmt.Errorf("pull: -o and --sha256 are for addresses outside the hub; %s goes to the cache, and is checked by the hub's hashes", ref)}
				}
				if revision != "" {
					ref.Revision = revision
				}
				if dataset {
					ref.Kind = hub.Dataset
				}
				s, err := client.Pull(c.Context(), ref, choice)
				p.end()
				if err != nil {
					return err
				}
				if err := a.pulled(ref, s); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&revision, "revision", "", "branch, tag or commit")
	f.BoolVar(&dataset, "dataset", false, "the names are those of data sets")
	f.StringSliceVar(&choice.Include, "include", nil, "patterns of the files to fetch, such as '*.json'")
	f.StringSliceVar(&choice.Exclude, "exclude", nil, "patterns of files to leave out")
	f.StringVarP(&out, "output", "o", "", "file for an address outside the hub; its last part where empty")
	f.StringVar(&sum, "sha256", "", "hash that the content of an address has to have")
	f.StringVar(&cache, "cache", "", "directory of the cache; HF_HUB_CACHE where empty")
	f.StringVar(&endpoint, "endpoint", "", "address of the hub or a mirror; HF_ENDPOINT where empty")
	f.BoolVar(&offline, "offline", false, "answer from the cache alone")
	return c
}

// fetch downloads an address to a file.
func (a *app) fetch(ctx context.Context, client *hub.Client, p *pulling, address, out, sum string) error {
	if out == "" {
		u, err := url.Parse(address)
		if err != nil {
			return usageError{err}
		}
		if out = path.Base(u.Path); out == "." || out == "/" {
			return usageError{fmt.Errorf("pull: %s names no file: give one with -o", address)}
		}
	}
	if err := fresh(out, false); err != nil {
		return err
	}
	f, err := client.Fetch(ctx, address, out, sum)
	p.end()
	if err != nil {
		return err
	}
	if a.json {
		return a.result(map[string]any{"file": out, "bytes": f.Size, "sha256": f.SHA256})
	}
	a.say("%s: %s, sha256 %s", out, size(f.Size), f.SHA256)
	return nil
}

// pulled says where a repository lies, and how to use it.
func (a *app) pulled(ref hub.Ref, s *hub.Snapshot) error {
	var sum int64
	for _, f := range s.Files {
		sum += f.Size
	}
	if a.json {
		return a.result(map[string]any{"name": ref.String(), "kind": ref.Kind, "snapshot": s, "bytes": sum})
	}
	name := ref.String()
	use := "model: " + name
	if ref.Kind == hub.Dataset {
		use = "data: [{path: hub:" + strings.TrimPrefix(name, "datasets/") + "}]"
	}
	a.say("%s at %s: %d files, %s in %s\nin a run file: %s", name, s.Commit[:12], len(s.Files), size(sum), s.Dir, use)
	return nil
}

// pulling shows how downloads go on.
type pulling struct {
	app   *app
	last  time.Time
	began time.Time
	from  int64
	file  string
	width int
}

func (p *pulling) show(s hub.Progress) {
	live := terminal(p.app.err)
	if s.Retry != nil {
		p.end()
		fmt.Fprintf(p.app.err, "%s: %v; trying again\n", s.File, s.Retry)
		return
	}
	if s.File != p.file {
		p.file, p.began, p.from, p.last = s.File, time.Now(), s.Done, time.Time{}
	}
	wait := time.Since(p.last)
	if s.Done != s.Total && (live && wait < 100*time.Millisecond || !live && wait < 10*time.Second) {
		return
	}
	p.last = time.Now()
	line := fmt.Sprintf("%s  %s", s.File, size(s.Done))
	if s.Total > 0 {
		line += " of " + size(s.Total)
	}
	if seconds := time.Since(p.began).Seconds(); seconds > 0.5 {
		rate := float64(s.Done-p.from) / seconds
		line += fmt.Sprintf("  %s/s", size(int64(rate)))
		if s.Total > 0 && rate > 0 {
			line += "  " + short(time.Duration(float64(s.Total-s.Done)/rate*float64(time.Second))) + " left"
		}
	}
	if !live {
		fmt.Fprintln(p.app.err, line)
		return
	}
	pad := max(0, p.width-len(line))
	p.width = len(line)
	fmt.Fprint(p.app.err, "\r"+line+strings.Repeat(" ", pad))
}

// end ends a line that is being rewritten.
func (p *pulling) end() {
	if p.width > 0 {
		fmt.Fprintln(p.app.err)
		p.width = 0
	}
}

// hubPath returns the path of a model that was pulled under a name.
func hubPath(name string) (string, error) {
	client, err := hub.FromEnv()
	if err != nil {
		return "", err
	}
	ref, err := hub.Parse(name, client.Endpoint)
	if err != nil {
		return "", err
	}
	s, err := client.Cached(ref)
	if err != nil {
		return "", err
	}
	return s.Local()
}
