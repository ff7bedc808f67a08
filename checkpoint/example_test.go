package checkpoint_test

import (
	"fmt"
	"os"
	"path/filepath"

	"tunesmith/checkpoint"
)

func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	weight := checkpoint.Float32Tensor("layer.weight", []int{2, 3}, []float32{1, 2, 3, 4, 5, 6})
	path := filepath.Join(dir, "model.safetensors")
	if err := checkpoint.WriteSafetensors(path, []checkpoint.Tensor{weight}, map[string]string{"format": "pt"}); err != nil {
		fmt.Println(err)
		return
	}
	f, err := checkpoint.Open(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range f.Names() {
		t, _ := f.Tensor(name)
		fmt.Println(name, t.Shape, t.Format, t.Float32s())
	}
	fmt.Println(f.Metadata(), f.Close())
	// Output:
	// layer.weight [2 3] F32 [1 2 3 4 5 6]
	// map[format:pt] <nil>
}
