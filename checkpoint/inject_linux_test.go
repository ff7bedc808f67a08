package checkpoint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEverySystemCallOfASave lets each system call of a save fail, and kills the process at each. Whatever happens,
// there is a whole state to continue from; a save that reports success is the newest.
func TestEverySystemCallOfASave(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process per system call")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("FAULT INJECTION SKIPPED: strace is not installed")
	}
	quiet(t)
	save := func(root, log, inject string) (output string, err error) {
		args := []string{"-f", "-qq", "-o", log, "-e", "trace=openat,mkdirat,write,fsync,renameat,renameat2,unlinkat"}
		if inject != "" {
			args = append(args, "-e", "inject="+inject)
		}
		cmd := exec.Command(strace, append(args, os.Args[0])...)
		// One thread keeps the count of calls the same from run to run.
		cmd.Env = append(os.Environ(), writerEnv+"="+root, onceEnv+"=2", "GOMAXPROCS=1")
		b, err := cmd.CombinedOutput()
		return string(b), err
	}
	log := filepath.Join(t.TempDir(), "trace")
	root := t.TempDir()
	mustSave(t, root, 0)
	mustSave(t, root, 1)
	if output, err := save(root, log, ""); err != nil {
		t.Skipf("FAULT INJECTION SKIPPED: strace cannot trace here: %v, %s", err, output)
	}
	wantState(t, stepDir(root, 2), 2)
	trace, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{"mkdirat", "openat", "write", "fsync", "renameat", "unlinkat"} {
		calls := strings.Count(string(trace), " "+call+"(")
		if calls == 0 {
			t.Errorf("a save makes no call of %s", call)
		}
		for k := 1; k <= calls; k++ {
			for _, fault := range []string{"error=EIO", "signal=KILL"} {
				name := fmt.Sprintf("%s:%s:when=%d", call, fault, k)
				root := t.TempDir()
				mustSave(t, root, 0)
				mustSave(t, root, 1)
				output, err := save(root, log, name)
				dir, step, lost := Latest(root)
				switch {
				case lost != nil || step < 1:
					t.Errorf("%s: the states before are lost: have %q, %v; the writer says %v, %s", name, dir, lost, err, output)
				case err == nil && step != 2:
					t.Errorf("%s: the save reports success, but the newest state is %s", name, dir)
				default:
					wantState(t, dir, step)
				}
			}
		}
	}
}
