package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// statusError is an answer other than success.
type statusError struct {
	code    int
	address string
	text    string
	after   time.Duration // when the server wants to be asked again
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%s answers %d %s", e.address, e.code, http.StatusText(e.code))
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

// passing reports whether the same question may be answered later.
func (e *statusError) passing() bool {
	return e.code == http.StatusTooManyRequests || e.code == http.StatusRequestTimeout || e.code >= 500
}

// errSize is a server that offers another size than the hub lists.
var errSize = errors.New("wrong size")

// errHash is content that is not what the hub lists.
var errHash = errors.New("wrong hash")

// idle is how long a server may send nothing.
const idle = time.Minute

// maxRedirects is how often a server may point elsewhere.
const maxRedirects = 10

// do sends a request. The token goes to the endpoint alone; the standard client drops it when it is sent elsewhere.
func (c *Client) do(ctx context.Context, address string, header map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "tunesmith")
	req.Header.Set("Accept-Encoding", "identity")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	if c.Token != "" && strings.HasPrefix(address, c.Endpoint+"/") {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	client := http.Client{}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	client.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		if via[0].URL.Scheme == "https" && next.URL.Scheme != "https" {
			return fmt.Errorf("redirect from https to %s://%s refused", next.URL.Scheme, next.URL.Host)
		}
		return nil
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		e := &statusError{code: res.StatusCode, address: address, text: strings.TrimSpace(strings.ToValidUTF8(string(text), ""))}
		if strings.HasPrefix(e.text, "<") { // a page for browsers
			e.text = ""
		}
		if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s >= 0 {
			e.after = time.Duration(s) * time.Second
		}
		return nil, e
	}
	return res, nil
}

// get returns a small answer.
func (c *Client) get(ctx context.Context, address string, most int64) ([]byte, error) {
	for try := 1; ; try++ {
		body, err := c.once(ctx, address, most)
		if err == nil || !c.again(ctx, err, try, "") {
			return body, err
		}
	}
}

func (c *Client) once(ctx context.Context, address string, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	res, err := c.do(ctx, address, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err == nil && int64(len(body)) > most {
		err = fmt.Errorf("%s: %w: the answer is longer than %d bytes", address, errSize, most)
	}
	return body, err
}

// again decides whether to try once more after an error, and waits. The number of tries counts those in a row that
// brought nothing.
func (c *Client) again(ctx context.Context, err error, tries int, file string) bool {
	most, pause := c.Tries, c.Pause
	if most == 0 {
		most = 5
	}
	if pause == 0 {
		pause = time.Second
	}
	var status *statusError
	if ctx.Err() != nil || tries >= most || errors.Is(err, errSize) || errors.As(err, &status) && !status.passing() {
		return false
	}
	wait := min(pause<<(tries-1), time.Minute)
	if status != nil && status.after > 0 {
		wait = min(status.after, 5*time.Minute)
	}
	if c.Progress != nil {
		c.Progress(Progress{File: file, Retry: err})
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// download brings the content of a file to its place. What has arrived of it stays beside it when the download breaks
// off, and is used by the next.
func (c *Client) download(ctx context.Context, address, target string, f File) error {
	partial, err := os.OpenFile(target+".incomplete", os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer partial.Close()
	d := transfer{client: c, address: address, name: f.Name, size: f.Size, file: partial}
	if info, err := partial.Stat(); err == nil && info.Size() <= f.Size {
		d.at = info.Size()
	}
	for spoilt := false; ; spoilt = true {
		if err := d.run(ctx); err != nil {
			if d.at > 0 {
				err = fmt.Errorf("%w; the %d bytes that have arrived are kept: run the same command again to go on", err, d.at)
			}
			return err
		}
		err := check(partial, f)
		if err == nil {
			break
		}
		if d.at = 0; spoilt {
			return errors.Join(err, os.Remove(partial.Name()))
		}
		// What an earlier attempt left may have been spoilt.
		if c.Progress != nil {
			c.Progress(Progress{File: f.Name, Retry: err})
		}
	}
	return finish(partial, target)
}

// finish gives a complete file its name. Another process may have done so already.
func finish(partial *os.File, target string) error {
	if err := partial.Sync(); err != nil {
		return err
	}
	err := os.Rename(partial.Name(), target)
	if _, exists := os.Stat(target); err != nil && exists == nil {
		return nil
	}
	return err
}

// transfer is a download under way.
type transfer struct {
	client        *Client
	address, name string
	size          int64 // -1 where it is not known
	at            int64 // bytes that have arrived
	etag          string
	file          *os.File
}

// run reads until the file is complete.
func (d *transfer) run(ctx context.Context) error {
	for tries := 0; ; {
		before := d.at
		if d.at == d.size {
			return d.file.Truncate(d.size)
		}
		err := d.read(ctx)
		if err == nil && (d.size < 0 || d.at == d.size) {
			return d.file.Truncate(d.at)
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if tries++; d.at > before {
			tries = 1
		}
		if !d.client.again(ctx, err, tries, d.name) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}

// read asks for what is missing and writes what comes.
func (d *transfer) read(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(idle, func() { cancel(fmt.Errorf("nothing has come for %v", idle)) })
	defer silent.Stop()
	header := map[string]string{}
	if d.at > 0 {
		header["Range"] = fmt.Sprintf("bytes=%d-", d.at)
		if d.etag != "" {
			header["If-Range"] = d.etag
		}
	}
	res, err := d.client.do(ctx, d.address, header)
	var status *statusError
	if errors.As(err, &status) && status.code == http.StatusRequestedRangeNotSatisfiable && d.at > 0 {
		d.at = 0
		return io.ErrUnexpectedEOF // begin anew
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := d.place(res); err != nil {
		return err
	}
	buf := make([]byte, 1<<17)
	for {
		n, err := res.Body.Read(buf)
		if d.size >= 0 && d.at+int64(n) > d.size {
			return fmt.Errorf("%w: want %d bytes, the server sends more", errSize, d.size)
		}
		if n > 0 {
			silent.Reset(idle)
			if _, err := d.file.WriteAt(buf[:n], d.at); err != nil {
				return err
			}
			d.at += int64(n)
			if d.client.Progress != nil {
				d.client.Progress(Progress{File: d.name, Done: d.at, Total: max(d.size, 0)})
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
	}
}

// place finds out where an answer's bytes belong, and whether the size is the one that is wanted.
func (d *transfer) place(res *http.Response) error {
	if tag := res.Header.Get("ETag"); !strings.HasPrefix(tag, "W/") {
		d.etag = tag
	}
	if res.StatusCode != http.StatusPartialContent {
		d.at = 0 // the server sends the whole again
		if res.ContentLength >= 0 {
			return d.total(res.ContentLength)
		}
		return nil
	}
	var start, end, total int64
	if _, err := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-%d/%d", &start, &end, &total); err != nil {
		if _, err := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-%d/*", &start, &end); err != nil {
			return fmt.Errorf("the server's Content-Range %q cannot be read", res.Header.Get("Content-Range"))
		}
		total = d.size
	}
	if start != d.at {
		err := fmt.Errorf("the server sends bytes from %d on, %d were asked for", start, d.at)
		d.at = 0
		return err
	}
	if total >= 0 {
		return d.total(total)
	}
	return nil
}

// total compares the size that a server offers.
func (d *transfer) total(n int64) error {
	if d.size >= 0 && n != d.size {
		return fmt.Errorf("%w: want %d bytes, the server offers %d", errSize, d.size, n)
	}
	d.size = n
	return nil
}

// check compares a file with its hash.
func check(r io.ReaderAt, f File) error {
	var h hash.Hash
	want := f.SHA256
	switch {
	case want != "":
		h = sha256.New()
	case f.Git != "":
		h, want = sha1.New(), f.Git
		fmt.Fprintf(h, "blob %d\x00", f.Size)
	default:
		return nil
	}
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, f.Size)); err != nil {
		return err
	}
	if have := hex.EncodeToString(h.Sum(nil)); have != want {
		return fmt.Errorf("%w: want %s, have %s", errHash, want, have)
	}
	return nil
}

// Fetch downloads an address to a file. sum is its SHA-256, "" where it is not known; only with it is a download that
// another process left unfinished continued.
func (c *Client) Fetch(ctx context.Context, address, target, sum string) (File, error) {
	f := File{Name: filepath.Base(target), Size: -1, SHA256: strings.ToLower(sum)}
	if f.SHA256 != "" && !hashForm(f) {
		return f, fmt.Errorf("hub: sha256: want 64 hexadecimal digits, have %q", sum)
	}
	if c.Offline {
		return f, fmt.Errorf("hub: %s: %w", address, ErrOffline)
	}
	partial, err := os.OpenFile(target+".incomplete", os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return f, err
	}
	defer partial.Close()
	d := transfer{client: c, address: address, name: f.Name, size: -1, file: partial}
	if info, err := partial.Stat(); err == nil && f.SHA256 != "" {
		d.at = info.Size()
	}
	for spoilt := false; ; spoilt = true {
		if err := d.run(ctx); err != nil {
			return f, fmt.Errorf("hub: %w", err)
		}
		f.Size = d.at
		err := check(partial, f)
		if err == nil {
			break
		}
		if spoilt {
			return f, fmt.Errorf("hub: %s: %w", address, errors.Join(err, os.Remove(partial.Name())))
		}
		d.at, d.size = 0, -1
	}
	if f.SHA256 == "" {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(partial, 0, f.Size)); err != nil {
			return f, err
		}
		f.SHA256 = hex.EncodeToString(h.Sum(nil))
	}
	return f, finish(partial, target)
}
