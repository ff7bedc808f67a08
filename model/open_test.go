package model

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tunesmith/checkpoint"
)

// TestOpenRefuses: a file whose tensors are not those of its family is an error that names the tensor.
func TestOpenRefuses(t *testing.T) {
	for _, family := range []string{"gpt2", "gemma3_text", "mixtral"} {
		c, err := Small(family)
		if err != nil {
			t.Fatal(err)
		}
		m, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		config, err := c.JSON("float32")
		if err != nil {
			t.Fatal(err)
		}
		first := m.Map().Params[3]
		for want, change := range map[string]func(tensors map[string][]int){
			"": func(map[string][]int) {},
			fmt.Sprintf("tensor %q of shape", first.Name):    func(x map[string][]int) { delete(x, first.Name) },
			`tensor "extra.weight" is none of a ` + family:   func(x map[string][]int) { x["extra.weight"] = []int{2} },
			fmt.Sprintf("tensor %q: want shape", first.Name): func(x map[string][]int) { x[first.Name] = []int{1, 3} },
		} {
			shapes := map[string][]int{}
			for _, p := range m.Map().Params {
				shapes[p.Name] = p.Shape
			}
			change(shapes)
			var tensors []checkpoint.Tensor
			for name, shape := range shapes {
				n := 1
				for _, d := range shape {
					n *= d
				}
				tensors = append(tensors, checkpoint.Float32Tensor(name, shape, make([]float32, n)))
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666); err != nil {
				t.Fatal(err)
			}
			if _, err := checkpoint.WriteSharded(dir, tensors, map[string]string{"format": "pt"}, 1<<30); err != nil {
				t.Fatal(err)
			}
			opened, err := Open(dir)
			if want == "" && err == nil {
				opened.Close()
				continue
			}
			if want == "" || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: want an error with %q, have %v", family, want, err)
			}
		}
	}
}
