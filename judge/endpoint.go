package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Endpoint asks an OpenAI-compatible server.
type Endpoint struct {
	URL     string // up to and with /v1
	Key     string // of the server, empty for none
	Tries   int    // attempts at a request; 0 is 6
	Timeout time.Duration
	Wait    time.Duration // before the second attempt, doubled at each further one; 0 is a second
	Every   time.Duration // least time between two requests; 0 is no limit
	Client  *http.Client  // nil for the default one

	last time.Time
}

const (
	defaultTries = 6
	mostWait     = time.Minute
	replyBytes   = 4 << 20
)

// retryable is a failure that may pass.
type retryable struct {
	error
	after time.Duration // that the server asks for
}

func (r retryable) Unwrap() error { return r.error }

// Ask implements Asker. It tries again, ever more slowly, when the server is busy, fails, cuts the connection, is too
// slow, or answers something that cannot be read; a request that the server refuses as wrong fails at once.
func (e *Endpoint) Ask(ctx context.Context, q Request) (Reply, error) {
	tries := e.Tries
	if tries == 0 {
		tries = defaultTries
	}
	wait := e.Wait
	if wait == 0 {
		wait = time.Second
	}
	var err error
	for n := range tries {
		if n > 0 {
			d := wait + time.Duration(rand.Int64N(int64(wait/4)+1)) // so that many clients do not come back at once
			var r retryable
			if errors.As(err, &r) && r.after > d {
				d = r.after
			}
			if pauseErr := pause(ctx, min(d, mostWait)); pauseErr != nil {
				return Reply{}, errors.Join(pauseErr, err)
			}
			wait = min(2*wait, mostWait)
		}
		if d := e.Every - time.Since(e.last); d > 0 {
			if err := pause(ctx, d); err != nil {
				return Reply{}, err
			}
		}
		e.last = time.Now()
		var reply Reply
		if reply, err = e.once(ctx, q); err == nil {
			return reply, nil
		}
		var r retryable
		if !errors.As(err, &r) || ctx.Err() != nil {
			return Reply{}, fmt.Errorf("%s: %w", e.URL, err)
		}
	}
	return Reply{}, fmt.Errorf("%s: %d attempts failed, the last one: %w", e.URL, tries, err)
}

// completion is the part of a chat completion that is read.
type completion struct {
	Choices []struct {
		Message struct {
			Content string `json:"content"`
			Refusal string `json:"refusal"`
		} `json:"message"`
		LogProbs *struct {
			Content []struct {
				Top []struct {
					Token   string  `json:"token"`
					LogProb float64 `json:"logprob"`
				} `json:"top_logprobs"`
			} `json:"content"`
		} `json:"logprobs"`
	} `json:"choices"`
	Usage struct {
		In  int `json:"prompt_tokens"`
		Out int `json:"completion_tokens"`
	} `json:"usage"`
}

func (e *Endpoint) once(ctx context.Context, q Request) (Reply, error) {
	if e.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.Timeout)
		defer cancel()
	}
	body := map[string]any{"model": q.Model, "messages": q.Messages, "max_tokens": q.MaxTokens, "temperature": 0}
	if q.LogProbs > 0 {
		body["logprobs"], body["top_logprobs"] = true, q.LogProbs
	}
	text, err := json.Marshal(body)
	if err != nil {
		return Reply{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(e.URL, "/")+"/chat/completions", bytes.NewReader(text))
	if err != nil {
		return Reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if e.Key != "" {
		req.Header.Set("Authorization", "Bearer "+e.Key)
	}
	client := e.Client
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(req)
	if err != nil {
		return Reply{}, retryable{error: err}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, replyBytes))
	if err != nil {
		return Reply{}, retryable{error: err}
	}
	switch {
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500 || res.StatusCode == http.StatusRequestTimeout:
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return Reply{}, retryable{fmt.Errorf("status %s: %.200s", res.Status, answer), time.Duration(seconds) * time.Second}
	case res.StatusCode != http.StatusOK:
		return Reply{}, fmt.Errorf("status %s: %.200s; check the address, the key and the model's name", res.Status, answer)
	}
	return readCompletion(answer)
}

func readCompletion(text []byte) (Reply, error) {
	var c completion
	if err := json.Unmarshal(text, &c); err != nil {
		return Reply{}, retryable{error: fmt.Errorf("the reply cannot be read: %w", err)}
	}
	if len(c.Choices) == 0 {
		return Reply{}, retryable{error: errors.New("the reply holds no choice")}
	}
	choice := c.Choices[0]
	r := Reply{Text: choice.Message.Content, In: c.Usage.In, Out: c.Usage.Out}
	if r.Text == "" {
		r.Text = choice.Message.Refusal
	}
	if choice.LogProbs != nil && len(choice.LogProbs.Content) > 0 {
		r.Top = map[string]float64{}
		for _, t := range choice.LogProbs.Content[0].Top {
			r.Top[t.Token] = t.LogProb
		}
	}
	return r, nil
}
