package device

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// ErrMemory is an adaptation that does not fit into the memory that it may take.
var ErrMemory = errors.New("not enough memory")

// Limit is the most memory that a process may take, and who says so.
type Limit struct {
	Bytes  Bytes
	Source string
}

// String is what a message says of the limit.
func (l Limit) String() string { return fmt.Sprintf("%s (%s)", l.Bytes, l.Source) }

// Limit returns the tightest of the limits that hold here: the settings' own, that of the control group or of one
// around it, GOMEMLIMIT, and what the machine has available.
func (s Settings) Limit() Limit {
	r := &Reader{Root: s.Root}
	list := []Limit{{s.Memory, "memory in the settings"}}
	if n := debug.SetMemoryLimit(-1); n < math.MaxInt64 {
		list = append(list, Limit{Bytes(n), "GOMEMLIMIT"})
	}
	list = append(list, r.groups()...)
	for line := range strings.Lines(r.text("proc/meminfo")) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
			list = append(list, Limit{Bytes(kib << 10), "memory available on the machine"})
		}
	}
	tightest := Limit{Bytes: math.MaxInt64, Source: "no limit known"}
	for _, l := range list {
		if l.Bytes > 0 && l.Bytes < tightest.Bytes {
			tightest = l
		}
	}
	return tightest
}

// groups returns the limits of the process' control group and of those around it, of version 2 and of version 1.
func (r *Reader) groups() []Limit {
	var out []Limit
	for line := range strings.Lines(r.text("proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		base, file := "sys/fs/cgroup", "memory.max"
		switch {
		case parts[1] == "":
			if r.text(base+"/cgroup.controllers") == "" {
				base += "/unified"
			}
		case strings.Contains(","+parts[1]+",", ",memory,"):
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for path := parts[2]; ; path = filepath.Dir(path) {
			n, err := strconv.ParseInt(r.text(filepath.Join(base, path, file)), 10, 64)
			if err == nil && n < 1<<60 { // version 1 writes a huge number for none
				out = append(out, Limit{Bytes(n), "control group " + path})
			}
			if path == "/" || path == "." {
				break
			}
		}
	}
	return out
}
