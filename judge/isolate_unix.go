//go:build unix

package judge

import (
	"os/exec"
	"syscall"
)

// isolate gives a command a process group of its own, which ends with it, so that nothing that it has started stays.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
