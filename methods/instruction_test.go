package methods

import (
	"strings"
	"testing"

	"tunesmith/tune"
)

func TestInstructionRefusesUnknownTurns(t *testing.T) {
	o := &Instruction{TrainOn: "questions"}
	if _, err := o.Renderer(tune.Text{}); err == nil || !strings.Contains(err.Error(), `have "questions"`) {
		t.Errorf("have %v", err)
	}
}

// TestDefaults: the method that a run file gets where it names none.
func TestDefaults(t *testing.T) {
	if p, o := tune.Default(tune.ParametersAxis), tune.Default(tune.ObjectiveAxis); p != "lora" || o != "instruction" {
		t.Errorf("have %q and %q", p, o)
	}
}
