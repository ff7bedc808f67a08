// Package atomicfile writes files and folders so that a reader sees the old content or the new one, whatever
// instant the process or the machine dies at. What is being written has a hidden name beside its target,
// see Temporary; a process that is killed may leave that behind, and nothing else.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// WriteFile replaces a file by one that holds the data.
func WriteFile(path string, data []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Write replaces a file by one that holds what fill writes: it goes to a temporary file beside the target, to the
// disk, and then to its name. Writes are not buffered. If fill fails, the target stays as it was.
func Write(path string, fill func(w io.Writer) error) (err error) {
	var f *os.File
	tmp, err := claim(path, func(tmp string) (err error) {
		f, err = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = rename(tmp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// WriteDir replaces a folder by one that holds what fill writes into the folder that it is given. All of it goes to
// the disk before the folder gets its name. If fill fails, the target stays as it was.
//
// Where the system cannot exchange two folders at once (any but Linux), a death between two renames leaves the old
// folder under its temporary name and none under its own.
func WriteDir(path string, fill func(tmp string) error) (err error) {
	tmp, err := claim(path, func(tmp string) error { return os.Mkdir(tmp, 0o777) })
	if err != nil {
		return err
	}
	// After an exchange the temporary name holds the old folder: it goes in either case.
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := syncTree(tmp); err != nil {
		return err
	}
	if err := replaceDir(tmp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// replaceDir gives the folder tmp the name path, and what was there the name tmp.
func replaceDir(tmp, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rename(tmp, path)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s: want a folder or nothing, have a file", path)
	}
	if exchange(tmp, path) == nil {
		return nil
	}
	old := temporaryName(path)
	if err := rename(path, old); err != nil {
		return err
	}
	if err := rename(tmp, path); err != nil {
		return errors.Join(err, rename(old, path))
	}
	return rename(old, tmp)
}

// mark stands between a target's name and the random end of its temporary name.
const mark = ".tmp-"

// Temporary reports whether a base name is one of a file or folder that was being written, and of which target.
func Temporary(name string) (target string, ok bool) {
	i := strings.LastIndex(name, mark)
	if i < 1 || name[0] != '.' {
		return "", false
	}
	return name[1:i], true
}

func temporaryName(path string) string {
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s%s%016x", filepath.Base(path), mark, rand.Uint64()))
}

// claim finds a temporary name for which create does not say that it is taken.
func claim(path string, create func(tmp string) error) (string, error) {
	for {
		tmp := temporaryName(path)
		if err := create(tmp); !errors.Is(err, fs.ErrExist) {
			return tmp, err
		}
	}
}

// rename is os.Rename, tried again for a while on Windows, where a virus scanner or an indexer that looks at a new
// file makes it fail.
func rename(from, to string) error {
	err := os.Rename(from, to)
	if runtime.GOOS != "windows" {
		return err
	}
	for wait := time.Millisecond; err != nil && !errors.Is(err, fs.ErrNotExist) && wait < time.Second; wait *= 2 {
		time.Sleep(wait)
		err = os.Rename(from, to)
	}
	return err
}

// syncTree puts all files and names below a folder to the disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return SyncDir(path)
		case !entry.Type().IsRegular():
			return nil
		}
		// Windows flushes only what is open for writing.
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// SyncDir puts the names in a folder to the disk, which makes a rename in it last. Windows has no such call.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RemoveDir removes a folder so that no part of it is ever seen under its name.
func RemoveDir(path string) error {
	tmp := temporaryName(path)
	if err := rename(path, tmp); err != nil {
		return err
	}
	return os.RemoveAll(tmp)
}
