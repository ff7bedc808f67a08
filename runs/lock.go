package runs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Lock takes a file for this process until it is closed: an error that wraps ErrLocked says which process has it. The
// lock of a process that died is free.
func Lock(path string) (io.Closer, error) {
	f, err := lock(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// lock takes a file for this process. The system frees it when the process ends, however it ends, so there are no
// stale locks; the text in the file only tells a person who has it.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	// A look from locked takes the lock for an instant, so one refusal is not the last word.
	for try := 0; ; try++ {
		err = tryLock(f)
		if err == nil || try == 4 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		owner, _ := os.ReadFile(path)
		return nil, errors.Join(fmt.Errorf("%w by %s; wait for it or stop it", ErrLocked, strings.TrimSpace(string(owner))), f.Close())
	}
	host, _ := os.Hostname()
	text := fmt.Sprintf("process %d on %s\n", os.Getpid(), host)
	if _, err = f.WriteAt([]byte(text), 0); err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// locked tells whether a process has the file.
func locked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return tryLock(f) != nil
}
