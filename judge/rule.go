// Package judge says how good answers are: rules and verifiers, language models by an OpenAI-compatible endpoint or in
// this process, with both orders of a pair, a ledger of every request, and the statistics of verdicts.
package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/jsonschema-go/jsonschema"

	"tunesmith/internal/nearest"
)

// Rule rewards an answer by something that can be checked.
type Rule struct {
	Kind    string  `yaml:"kind" doc:"exact, contains, number, regex, length, json, command or http"`
	Weight  float64 `yaml:"weight" doc:"factor of the reward"`
	Pattern string  `yaml:"pattern" doc:"regex: what the answer has to match; exact, number: where in the answer the result stands, as first group"`
	Least   int     `yaml:"at_least" doc:"length: fewest characters" min:"0"`
	Most    int     `yaml:"at_most" doc:"length: most characters; 0 is no limit" min:"0"`
	Schema  string  `yaml:"schema" doc:"json: file with a JSON schema; any JSON where empty"`
	Command string  `yaml:"command" doc:"command: shell command that reads {\"prompt\", \"answer\", \"expected\"} and prints a number, in a process of its own"`
	URL     string  `yaml:"url" doc:"http: endpoint that is posted the same object and answers {\"reward\": number}"`
	Seconds float64 `yaml:"seconds" doc:"command, http: longest time of an answer" min:"0"`
	Memory  int     `yaml:"memory_mib" doc:"command: most memory" min:"0"`
}

// SetDefaults implements config.Defaulter.
func (r *Rule) SetDefaults() { *r = Rule{Kind: "exact", Weight: 1, Seconds: 10, Memory: 512} }

// Case is an answer to be rewarded.
type Case struct {
	Prompt   string `json:"prompt"`
	Answer   string `json:"answer"`
	Expected string `json:"expected"`
}

// Kinds are the kinds of rules.
func Kinds() []string {
	return []string{"exact", "contains", "number", "regex", "length", "json", "command", "http"}
}

// CheckRules reports what is wrong with rules, all of it.
func CheckRules(rules []Rule) error {
	var errs []error
	for i, r := range rules {
		if _, err := r.compile(); err != nil {
			errs = append(errs, fmt.Errorf("rule %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

// Scorer rewards answers by rules.
type Scorer struct {
	rules []Rule
	ready []func(ctx context.Context, c Case) (float64, error)
}

// NewScorer compiles rules.
func NewScorer(rules []Rule) (*Scorer, error) {
	s := &Scorer{rules: rules}
	for i, r := range rules {
		f, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		s.ready = append(s.ready, f)
	}
	return s, nil
}

// Score returns what each rule says of an answer, before the weights. NaN is an answer that a rule cannot judge; a rule
// that says NaN or an infinity itself is an error.
func (s *Scorer) Score(ctx context.Context, c Case) ([]float64, error) {
	out := make([]float64, len(s.ready))
	for i, f := range s.ready {
		v, err := f(ctx, c)
		if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
			err = fmt.Errorf("the reward is %v: want a finite number", v)
		}
		if err != nil {
			return nil, fmt.Errorf("reward %s: %w", s.rules[i].Kind, err)
		}
		out[i] = v
	}
	return out, nil
}

func (r Rule) compile() (func(ctx context.Context, c Case) (float64, error), error) {
	var pattern *regexp.Regexp
	if r.Pattern != "" {
		var err error
		if pattern, err = regexp.Compile(r.Pattern); err != nil {
			return nil, fmt.Errorf("pattern: %w", err)
		}
	}
	result := func(answer string) string { // the part of an answer that a pattern picks
		if pattern == nil {
			return answer
		}
		m := pattern.FindStringSubmatch(answer)
		if len(m) == 0 {
			return ""
		}
		return m[len(m)-1]
	}
	plain := func(f func(c Case) bool) (func(context.Context, Case) (float64, error), error) {
		return func(_ context.Context, c Case) (float64, error) {
			if f(c) {
				return 1, nil
			}
			return 0, nil
		}, nil
	}
	switch r.Kind {
	case "exact":
		return plain(func(c Case) bool { return fold(result(c.Answer)) == fold(c.Expected) && c.Expected != "" })
	case "contains":
		return plain(func(c Case) bool { return c.Expected != "" && strings.Contains(fold(c.Answer), fold(c.Expected)) })
	case "number":
		return plain(func(c Case) bool {
			a, ok := lastNumber(result(c.Answer))
			b, want := lastNumber(c.Expected)
			return ok && want && a == b
		})
	case "regex":
		if pattern == nil {
			return nil, errors.New("regex: want a pattern")
		}
		return plain(func(c Case) bool { return pattern.MatchString(c.Answer) })
	case "length":
		if r.Most > 0 && r.Most < r.Least {
			return nil, fmt.Errorf("length: want at_most >= at_least, have %d and %d", r.Most, r.Least)
		}
		return plain(func(c Case) bool {
			n := utf8.RuneCountInString(c.Answer)
			return n >= r.Least && (r.Most == 0 || n <= r.Most)
		})
	case "json":
		return r.json(plain)
	case "command":
		if r.Command == "" {
			return nil, errors.New("command: want a command")
		}
		return r.run, nil
	case "http":
		if !strings.HasPrefix(r.URL, "http://") && !strings.HasPrefix(r.URL, "https://") {
			return nil, fmt.Errorf("http: want a url that begins with http:// or https://, have %q", r.URL)
		}
		return r.post, nil
	}
	return nil, fmt.Errorf("kind: want one of %s, have %q%s", strings.Join(Kinds(), ", "), r.Kind, nearest.Hint(r.Kind, Kinds()))
}

func fold(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

var numbers = regexp.MustCompile(`-?\d[\d,]*(\.\d+)?`)

// lastNumber reads the last number of a text, without its commas.
func lastNumber(s string) (float64, bool) {
	all := numbers.FindAllString(s, -1)
	if len(all) == 0 {
		return 0, false
	}
	var v float64
	_, err := fmt.Sscan(strings.ReplaceAll(all[len(all)-1], ",", ""), &v)
	return v, err == nil
}

func (r Rule) json(plain func(func(Case) bool) (func(context.Context, Case) (float64, error), error)) (func(context.Context, Case) (float64, error), error) {
	if r.Schema == "" {
		return plain(func(c Case) bool { return json.Valid([]byte(c.Answer)) })
	}
	text, err := os.ReadFile(r.Schema)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(text, &schema); err != nil {
		return nil, fmt.Errorf("schema %s: %w", r.Schema, err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", r.Schema, err)
	}
	return plain(func(c Case) bool {
		var v any
		return json.Unmarshal([]byte(c.Answer), &v) == nil && resolved.Validate(v) == nil
	})
}

const mostReply = 1 << 20 // bytes that a verifier may say

// run asks a command. It runs in an empty folder and without our environment, in limits of time and memory that the
// shell sets; a command that fails, or that takes too long, gives 0.
func (r Rule) run(ctx context.Context, c Case) (float64, error) {
	input, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "tunesmith-verify-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	limit := r.timeout()
	slow, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	script := fmt.Sprintf("ulimit -t %d; ulimit -v %d; ulimit -f 65536; ulimit -c 0; exec sh -c \"$0\"", int(limit.Seconds())+1, r.Memory*1024)
	cmd := exec.CommandContext(slow, "sh", "-c", script, r.Command)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"}
	cmd.Stdin = bytes.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout = &limited{w: &out, left: mostReply}
	cmd.WaitDelay = time.Second
	isolate(cmd)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) || slow.Err() != nil || errors.Is(err, exec.ErrWaitDelay) {
			return 0, nil
		}
		return 0, err
	}
	var v float64
	if _, err := fmt.Sscan(out.String(), &v); err != nil {
		return 0, fmt.Errorf("%q printed %.80q: want a number", r.Command, out.String())
	}
	return v, nil
}

func (r Rule) timeout() time.Duration {
	if r.Seconds <= 0 {
		return 10 * time.Second
	}
	return time.Duration(r.Seconds * float64(time.Second))
}

// limited passes on what fits and drops the rest.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// post asks an endpoint, three times where it fails.
func (r Rule) post(ctx context.Context, c Case) (float64, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	var last error
	for try := range 3 {
		if try > 0 {
			if err := pause(ctx, time.Duration(try)*200*time.Millisecond); err != nil {
				return 0, err
			}
		}
		v, err := r.postOnce(ctx, body)
		if err == nil {
			return v, nil
		}
		if last = err; ctx.Err() != nil {
			break
		}
	}
	return 0, fmt.Errorf("%s: %w", r.URL, last)
}

func (r Rule) postOnce(ctx context.Context, body []byte) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, mostReply))
	if err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %s", res.Status)
	}
	var reply struct {
		Reward *float64 `json:"reward"`
	}
	if err := json.Unmarshal(text, &reply); err != nil || reply.Reward == nil {
		return 0, fmt.Errorf("have %.80q: want {\"reward\": number}", text)
	}
	return *reply.Reward, nil
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Total is the weighted sum of what rules say.
func Total(rules []Rule, scores []float64) float64 {
	var sum float64
	for i, v := range scores {
		sum += rules[i].Weight * v
	}
	return sum
}

// Names are the rules' kinds, numbered where a kind comes twice.
func Names(rules []Rule) []string {
	var out []string
	for _, r := range rules {
		name := r.Kind
		for n := 2; slices.Contains(out, name); n++ {
			name = fmt.Sprintf("%s%d", r.Kind, n)
		}
		out = append(out, name)
	}
	return out
}
