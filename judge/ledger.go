package judge

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Entry is a line of a ledger: a request, its reply, and what it cost.
type Entry struct {
	Key     string          `json:"key"` // hash of the request
	Request json.RawMessage `json:"request"`
	Reply   Reply           `json:"reply"`
	Cost    float64         `json:"cost,omitempty"`
	Time    time.Time       `json:"time"`
}

// Ledger is an append-only file of what was asked. A line that a crash cut short is dropped when it is opened, and its
// request will be asked again.
type Ledger struct {
	mu    sync.Mutex
	file  *os.File
	found map[string]Reply
	spent float64
}

// OpenLedger opens or creates a ledger.
func OpenLedger(path string) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l := &Ledger{file: f, found: map[string]Reply{}}
	if err := l.read(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *Ledger) read(path string) error {
	r := bufio.NewReader(l.file)
	var good int64
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			break // what follows the last end of a line is cut short
		}
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		var e Entry
		if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
			return fmt.Errorf("%s:%d: %w; remove the line, its request will be asked again", path, n, err)
		}
		l.found[e.Key] = e.Reply
		l.spent += e.Cost
		good += int64(len(line))
	}
	if err := l.file.Truncate(good); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	_, err := l.file.Seek(good, io.SeekStart)
	return err
}

// keyOf names a request by its content.
func keyOf(request []byte) string {
	h := sha256.Sum256(request)
	return hex.EncodeToString(h[:])
}

// Find returns the reply to a request that was asked before.
func (l *Ledger) Find(key string) (Reply, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.found[key]
	return r, ok
}

// Spent returns the cost of all that was asked.
func (l *Ledger) Spent() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spent
}

// Len returns the number of requests.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.found)
}

// Add appends an entry; it is on disk when Add returns.
func (l *Ledger) Add(e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Time = time.Now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	l.found[e.Key] = e.Reply
	l.spent += e.Cost
	return nil
}

// Close closes the file.
func (l *Ledger) Close() error { return l.file.Close() }
