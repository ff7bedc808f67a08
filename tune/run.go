package tune

import (
	"fmt"
	"slices"
	"strings"

	"tunesmith/config"
	"tunesmith/data"
	"tunesmith/internal/nearest"
	"tunesmith/optim"
)

// Run is a run file: which model, which data, one method per axis, and how the steps are made.
type Run struct {
	Model        string `yaml:"model" doc:"base model: a GGUF file, or a directory with config.json and safetensors; tinybase is the embedded one" required:"true" example:"models/SmolLM2-135M-Instruct.Q4_1.gguf"`
	Start        string `yaml:"start" doc:"weights of the base: the model's own, or random ones to train a new model" enum:"weights,random"`
	Adapter      string `yaml:"adapter" doc:"adapter directory to continue from; its method has to be that of this run"`
	ChatTemplate string `yaml:"chat_template" doc:"file with a chat template, or the name of a built-in one; the model's own where empty"`

	Data       []Data          `yaml:"data" doc:"training data" required:"true"`
	MaxLength  int             `yaml:"max_length" doc:"longest example in tokens; 0 is the model's context" min:"0"`
	Overlength data.Overlength `yaml:"overlength" doc:"what happens to longer ones" type:"error, keep_start, keep_end, drop or split"`
	BadRecords data.Mode       `yaml:"bad_records" doc:"strict stops before the first step, skip leaves bad records out; both list them" type:"strict or skip"`
	Packing    data.Packing    `yaml:"packing" doc:"how examples share rows; they never see each other" type:"none, bfd, bfd_split or wrapped"`

	Parameters config.Choice `yaml:"parameters" choice:"method" doc:"what moves"`
	Objective  config.Choice `yaml:"objective" choice:"method" doc:"what is better"`
	Mixture    config.Choice `yaml:"mixture" choice:"method" doc:"from which data: how several data sets share the rows; without it they are one"`
	Topology   config.Choice `yaml:"topology" choice:"method" doc:"where it trains; here and at once where it is left out"`

	Training `yaml:",inline"`
	Eval     Eval   `yaml:"eval" doc:"evaluation while training, and of the before and after"`
	Output   string `yaml:"output" doc:"directory of the runs"`
	Name     string `yaml:"name" doc:"name of the run; the run file's name where empty, with a number where it is taken"`
	Seed     uint64 `yaml:"seed" doc:"start of every random number"`
}

// Data is one file, folder or pattern of training data.
type Data struct {
	Path    string            `yaml:"path" doc:"file, folder, or pattern such as data/*.jsonl" required:"true" example:"train.jsonl"`
	Format  data.Format       `yaml:"format" doc:"form of a record; found out where it is auto" type:"auto, messages, sharegpt, alpaca, text, …"`
	Columns map[string]string `yaml:"columns" doc:"our names of columns to the file's"`
	Task    string            `yaml:"task" doc:"name of the data set in reports"`
	Limit   int               `yaml:"limit" doc:"most records that are read; 0 for all" min:"0"`
}

// Training says how the steps are made.
type Training struct {
	Epochs       float64 `yaml:"epochs" doc:"passes over the data; max_steps has the last word" min:"0"`
	MaxSteps     int     `yaml:"max_steps" doc:"most optimizer steps; 0 is no limit" min:"0"`
	BatchSize    int     `yaml:"batch_size" doc:"rows of a batch" min:"1"`
	Accumulation int     `yaml:"gradient_accumulation" doc:"batches of an optimizer step" min:"1"`
	GroupLengths bool    `yaml:"group_by_length" doc:"put rows of similar length into a batch"`
	LearningRate float64 `yaml:"learning_rate" doc:"largest step; 0 is the method's own default" min:"0"`
	Optimizer    string  `yaml:"optimizer" doc:"adamw, adam, sgd, lion, adafactor, muon, …"`
	WeightDecay  float64 `yaml:"weight_decay" doc:"decay of the weights that are no biases or norms" min:"0"`
	Clip         float64 `yaml:"clip" doc:"largest norm of the gradient; 0 is no limit" min:"0"`
	Schedule     string  `yaml:"schedule" doc:"course of the learning rate: cosine, linear, constant, …"`
	Warmup       float64 `yaml:"warmup" doc:"rise of the learning rate: steps, or below 1 a share of all" min:"0"`
	Precision    string  `yaml:"precision" doc:"accuracy of the products: mixed is at least that of bf16" enum:"fp32,mixed,int8"`
	ForwardOnly  bool    `yaml:"forward_only" doc:"estimate gradients from two forward passes (MeZO): the least memory, and many more steps"`
	Recompute    bool    `yaml:"recompute" doc:"keep only the layers' inputs for the backward pass: less memory, more time"`
	SaveEvery    int     `yaml:"save_every" doc:"steps between checkpoints; 0 only at the end" min:"0"`
	Keep         int     `yaml:"keep_checkpoints" doc:"newest checkpoints that stay, beside the best one" min:"1"`
	LogEvery     int     `yaml:"log_every" doc:"steps between lines of metrics" min:"1"`
}

// Eval is what a run measures.
type Eval struct {
	Share   float64 `yaml:"share" doc:"part of the training data that is held out, by a hash of its content" min:"0" below:"1"`
	Data    []Data  `yaml:"data" doc:"held-out data of its own, instead of a share"`
	Every   int     `yaml:"every" doc:"steps between evaluations; 0 only at the end" min:"0"`
	Most    int     `yaml:"most" doc:"most held-out examples that are used" min:"1"`
	General string  `yaml:"general" doc:"text file for the general loss, which shows forgetting; an embedded one where empty"`
	Task    string  `yaml:"task" doc:"JSONL file of questions with answers, scored before and after"`
	Samples int     `yaml:"samples" doc:"answers before and after in the report" min:"0"`
}

// SetDefaults implements config.Defaulter.
func (d *Data) SetDefaults() { *d = Data{} }

// NewRun returns a run with the defaults.
func NewRun() *Run {
	return &Run{
		Start: "weights", MaxLength: 1024, Overlength: data.KeepStart, Output: "runs", Seed: 42,
		Parameters: config.Choice{Name: Default(ParametersAxis)}, Objective: config.Choice{Name: Default(ObjectiveAxis)},
		Training: Training{
			Epochs: 3, BatchSize: 4, Accumulation: 1, Optimizer: "adamw", Clip: 1, Schedule: "cosine", Warmup: 0.03,
			Precision: "mixed", SaveEvery: 100, Keep: 3, LogEvery: 1,
		},
		Eval: Eval{Share: 0.05, Every: 50, Most: 200, Samples: 5},
	}
}

// Schema describes run files with the methods that are registered.
func Schema() *config.Schema[Run] {
	choices := config.Choices{}
	for _, m := range Methods("") {
		choices[string(m.Axis)] = append(choices[string(m.Axis)], config.Variant{Name: m.Name, Doc: m.Doc, New: m.New})
	}
	return config.NewSchema(NewRun, choices)
}

// Validate implements config.Validator.
func (r *Run) Validate() []config.Problem {
	var out []config.Problem
	if r.Epochs == 0 && r.MaxSteps == 0 {
		out = append(out, config.Problemf("max_steps", "want epochs or max_steps above 0, have 0 for both"))
	}
	if r.Packing != data.NoPacking && r.MaxLength < 2 {
		out = append(out, config.Problemf("max_length", "packing needs the length of its rows, have %d", r.MaxLength))
	}
	if r.Packing != data.NoPacking && r.GroupLengths {
		out = append(out, config.Problemf("group_by_length", "packed rows have one length: choose packing or grouping, not both"))
	}
	if r.Start == "random" && r.Parameters.Name != "" {
		if m, err := Find(ParametersAxis, r.Parameters.Name); err == nil && m.PEFT != "" {
			out = append(out, config.Problemf("start", "random weights need a parameters method that trains them, have %s", m.Name))
		}
	}
	check := func(key, have string, known []string) {
		if !slices.Contains(known, have) {
			out = append(out, config.Problemf(key, "want one of %s, have %q%s", strings.Join(known, ", "), have, nearest.Hint(have, known)))
		}
	}
	check("optimizer", r.Optimizer, optim.Names())
	check("schedule", r.Schedule, optim.ScheduleNames())
	return out
}

// Rate returns the learning rate: that of the file, else that of the objective, else that of the parameters method.
func (r *Run) Rate() (float64, error) {
	if r.LearningRate > 0 {
		return r.LearningRate, nil
	}
	for _, of := range []struct {
		axis Axis
		name string
	}{{ObjectiveAxis, r.Objective.Name}, {ParametersAxis, r.Parameters.Name}} {
		m, err := Find(of.axis, of.name)
		if err != nil {
			return 0, err
		}
		if m.Rate > 0 {
			return m.Rate, nil
		}
	}
	return 0, fmt.Errorf("learning_rate: want > 0: the methods have no default")
}

// Sources returns the data sets as package data reads them.
func Sources(list []Data) []data.Source {
	var out []data.Source
	for _, d := range list {
		out = append(out, data.Source{Path: d.Path, Format: d.Format, Columns: d.Columns, Task: d.Task, Limit: d.Limit})
	}
	return out
}
