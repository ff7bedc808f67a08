package cli

import (
	"encoding/json"
	"os"

	"github.com/shirou/gopsutil/v4/mem"

	"tunesmith/internal/atomicfile"
)

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, append(text, '\n'))
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// availableMemory returns the bytes that this machine can still give.
func availableMemory() (int64, error) {
	m, err := mem.VirtualMemory()
	if err != nil {
		return 0, err
	}
	return int64(m.Available), nil
}
