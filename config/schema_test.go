package config_test

import (
	"fmt"
	"strconv"
	"time"

	"tunesmith/config"
)

// run is a run file like the real one, with every kind of value.
type run struct {
	Model      string        `yaml:"model" doc:"base model: a file, a directory or a name" required:"true" example:"models/smollm2.gguf"`
	Adapter    *string       `yaml:"adapter" doc:"adapter to continue from"`
	Seed       uint64        `yaml:"seed" doc:"start of every random number"`
	Data       []source      `yaml:"data" doc:"training data" required:"true"`
	Parameters config.Choice `yaml:"parameters" choice:"method" doc:"what moves"`
	Objective  config.Choice `yaml:"objective" choice:"method" doc:"what is better" required:"true"`
	Mixture    config.Choice `yaml:"mixture" choice:"method" doc:"from which data; one data set is the plain case"`
	Training   training      `yaml:"training" doc:"how the steps are made"`
	Evaluation *evaluation   `yaml:"evaluation" doc:"evaluation while training"`
	Labels     labels        `yaml:"labels" doc:"free texts that are kept with the run"`
	Output     string        `yaml:"output" doc:"run directory"`
}

type labels map[string]string

type source struct {
	Path   string  `yaml:"path" doc:"file" required:"true"`
	Format string  `yaml:"format" doc:"how a record is written" enum:"auto,messages,alpaca,sharegpt,text"`
	Weight float64 `yaml:"weight" doc:"share of the mixture" above:"0"`
	Limit  int     `yaml:"limit" doc:"most records taken; 0 is no limit" min:"0"`
}

func (s *source) SetDefaults() { *s = source{Format: "auto", Weight: 1} }

type training struct {
	schedule  `yaml:",inline"`
	BatchSize int           `yaml:"batch_size" doc:"sequences in a step" min:"1" max:"4096"`
	Epochs    float64       `yaml:"epochs" doc:"passes over the data" min:"0"`
	MaxSteps  int           `yaml:"max_steps" doc:"most steps; 0 is no limit" min:"0"`
	MaxLength int           `yaml:"max_length" doc:"longest sequence in tokens" min:"8"`
	Precision string        `yaml:"precision" doc:"accuracy contract" enum:"fp32,mixed,int8"`
	Packing   bool          `yaml:"packing" doc:"several examples share a sequence"`
	Betas     []float64     `yaml:"betas" doc:"decay of the moments" min:"0" below:"1"`
	Memory    *config.Bytes `yaml:"memory" doc:"most memory that the plan may use" example:"6GB" type:"size such as 512MiB"`
	Autosave  time.Duration `yaml:"autosave" doc:"time between checkpoints" min:"1"`
	Threads   int8          `yaml:"threads" doc:"workers; 0 is one per core"`
}

// Validate implements config.Validator.
func (t *training) Validate() []config.Problem {
	var out []config.Problem
	if t.Epochs == 0 && t.MaxSteps == 0 {
		out = append(out, config.Problemf("max_steps", "want epochs or max_steps above 0, have 0 for both"))
	}
	if t.Packing && t.MaxLength < 64 {
		out = append(out, config.Problemf("max_length", "want >= 64 with packing, have %d", t.MaxLength))
	}
	return out
}

// schedule is taken inline.
type schedule struct {
	LearningRate float64 `yaml:"learning_rate" doc:"largest step size" above:"0"`
	Warmup       share   `yaml:"warmup" doc:"rise of the step size at the start" type:"share below 1, or number of steps"`
}

// share reads itself: 0.03 or 100.
type share struct {
	part  float64
	steps int
}

func (s *share) UnmarshalText(text []byte) error {
	x, err := strconv.ParseFloat(string(text), 64)
	if err != nil || x < 0 || x >= 1 && x != float64(int(x)) {
		return fmt.Errorf("want a share below 1 or a number of steps, have %s", text)
	}
	*s = share{part: x}
	if x >= 1 {
		*s = share{steps: int(x)}
	}
	return nil
}

func (s share) MarshalText() ([]byte, error) {
	if s.steps > 0 {
		return []byte(strconv.Itoa(s.steps)), nil
	}
	return strconv.AppendFloat(nil, s.part, 'g', -1, 64), nil
}

type evaluation struct {
	Every  int      `yaml:"every" doc:"steps between evaluations" min:"1"`
	Data   []string `yaml:"data" doc:"held-out files"`
	Metric string   `yaml:"metric" doc:"what decides which checkpoint is best" enum:"loss,accuracy"`
}

func (e *evaluation) SetDefaults() { *e = evaluation{Every: 100, Metric: "loss"} }

type lora struct {
	Rank        int           `yaml:"rank" doc:"rank of the update" min:"1"`
	Alpha       *float64      `yaml:"alpha" doc:"strength of the update; twice the rank where left out" above:"0"`
	Dropout     float64       `yaml:"dropout" doc:"share of inputs dropped in training" min:"0" below:"1"`
	Targets     []string      `yaml:"targets" doc:"modules that get an update"`
	RankPattern []pattern     `yaml:"rank_pattern" doc:"other ranks by pattern of the module path" min:"1"`
	Layers      []int         `yaml:"layers" doc:"layers that get updates; all where empty" min:"0"`
	Start       config.Choice `yaml:"start" choice:"kind" doc:"first values"`
}

type pattern struct {
	Key   string
	Value int
}

type full struct {
	LastLayers int `yaml:"last_layers" doc:"train only this many of the last layers; 0 is no limit" min:"0"`
}

// Validate implements config.Validator.
func (f *full) Validate() []config.Problem {
	if f.LastLayers == 13 {
		return []config.Problem{config.Problemf("last_layers", "want another number, have 13")}
	}
	return nil
}

type (
	uniform  struct{}
	gaussian struct {
		Deviation float64 `yaml:"deviation" doc:"standard deviation" above:"0"`
	}
	instruction struct {
		TrainOn string `yaml:"train_on" doc:"tokens that are trained" enum:"completion,assistant,all"`
	}
	weighted struct {
		Temperature float64 `yaml:"temperature" doc:"1 keeps the sizes, more evens them out" min:"1"`
	}
)

func newRun() *run {
	return &run{
		Seed: 42, Output: "runs/default",
		Parameters: config.Choice{Name: "lora"},
		Objective:  config.Choice{Name: "instruction"},
		Training: training{
			schedule:  schedule{LearningRate: 2e-5, Warmup: share{part: 0.03}},
			BatchSize: 4, Epochs: 3, MaxLength: 2048, Precision: "mixed", Betas: []float64{0.9, 0.999}, Autosave: 10 * time.Minute,
		},
	}
}

func newSchema() *config.Schema[run] {
	return config.NewSchema(newRun, config.Choices{
		"parameters": {
			{Name: "full", Doc: "trains the model's own weights", New: func() any { return &full{} }},
			{Name: "lora", Doc: "adds thin trainable matrices", New: func() any {
				return &lora{Rank: 8, Targets: []string{"all-linear"}, Start: config.Choice{Name: "uniform"}}
			}},
		},
		"objective": {{Name: "instruction", Doc: "imitates answers", New: func() any { return &instruction{TrainOn: "assistant"} }}},
		"mixture":   {{Name: "multitask", Doc: "weighs data sets", New: func() any { return &weighted{Temperature: 2} }}},
		"start": {
			{Name: "uniform", Doc: "Kaiming", New: func() any { return &uniform{} }},
			{Name: "gaussian", Doc: "normal", New: func() any { return &gaussian{Deviation: 0.02} }},
		},
	})
}
