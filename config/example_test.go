package config_test

import (
	"fmt"
	"os"

	"tunesmith/config"
)

func ExampleSchema_Load() {
	type method struct {
		Rank int `yaml:"rank" doc:"rank of the update" min:"1"`
	}
	type file struct {
		Epochs     float64       `yaml:"epochs" doc:"passes over the data" min:"0"`
		Parameters config.Choice `yaml:"parameters" choice:"method" doc:"what moves"`
	}
	schema := config.NewSchema(
		func() *file { return &file{Epochs: 3, Parameters: config.Choice{Name: "lora"}} },
		config.Choices{"parameters": {{Name: "lora", Doc: "thin matrices", New: func() any { return &method{Rank: 8} }}}},
	)
	r, err := schema.Load("", []string{"parameters.rank=32"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := schema.Write(os.Stdout, r.Value); err != nil {
		fmt.Println(err)
	}
	_, err = schema.Load("", []string{"parameters.rank=0", "epoch=1"})
	fmt.Println(err)
	// Output:
	// # passes over the data (>= 0)
	// epochs: 3
	//
	// # what moves
	// parameters:
	//   # lora: thin matrices
	//   method: lora
	//   # rank of the update (>= 1)
	//   rank: 32
	// --set parameters.rank=0: want >= 1, have 0
	// --set epoch=1: unknown key, did you mean epochs?
}
