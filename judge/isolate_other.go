//go:build !unix

package judge

import "os/exec"

func isolate(*exec.Cmd) {}
