package methods

import (
	"tunesmith/config"
	"tunesmith/device"
	"tunesmith/tune"
)

// OnDevice adapts a model again and again on the machine of the person who uses it: within a memory limit, only while
// power, temperature, network and time allow it, and keeping a new generation only if it is better on new data and not
// worse in general. Any parameters method that has adapter files and any objective do the learning.
//
//	generation k+1 = adapt(generation k, new records ∪ replayed records)
//	taken if loss(new held-out) falls and loss(general) ≤ loss of the base + max_forget
//
// Replay: Rolnick et al. 2019 (arXiv 1811.11682); conditions as in Bonawitz et al. 2019 (1902.01046); steps without a
// backward pass: Malladi et al. 2023 (2305.17333). It stops where one device has too little text to learn from.
type OnDevice struct {
	device.Settings
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.TopologyAxis, Name: "ondevice", Goals: []string{"device"},
		Doc: "adapts in generations on the user's own machine, within limits of memory, power and time",
		New: func() any { return &OnDevice{device.Default()} },
	})
}

// Device implements device.Method.
func (o *OnDevice) Device() *device.Settings { return &o.Settings }

// Sets implements device.Method: a small adapter and one short row at a time, for the memory of a small machine.
func (o *OnDevice) Sets() []string {
	return []string{
		"parameters.method=lora", "parameters.rank=8", "parameters.alpha=16",
		"max_length=128", "overlength=split", "batch_size=1", "gradient_accumulation=8", "recompute=true",
		"epochs=3", "warmup=0.1", "save_every=20", "keep_checkpoints=1", "bad_records=skip",
		"eval.share=0.2", "eval.every=0", "eval.samples=0",
	}
}

// Validate implements config.Validator.
func (o *OnDevice) Validate() []config.Problem {
	if o.Root == "" {
		return []config.Problem{config.Problemf("root", "want a folder that holds sys and proc, such as /, have none")}
	}
	return nil
}

var _ device.Method = (*OnDevice)(nil)
