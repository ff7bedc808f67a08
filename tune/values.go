package tune

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	"tunesmith/site"
)

// ModuleOf splits the name of a parameter into the path of its module and its own name there.
func ModuleOf(param string) (module, leaf string) {
	i := strings.LastIndexByte(param, '.')
	if i < 0 {
		return "", param
	}
	return param[:i], param[i+1:]
}

// CopyOf is the start of a parameter that replaces one of the model's: its values.
func CopyOf(name string) site.Init {
	return func(dst []float32, _ *rand.Rand, base func(string) []float32) { copy(dst, base(name)) }
}

// Replace copies trained values over the weight that they replace.
func Replace(w, values []float32, name string) error {
	if len(values) != len(w) {
		return fmt.Errorf("merge %s: want %d values, have %d", name, len(w), len(values))
	}
	copy(w, values)
	return nil
}

// MarshalJSON writes the patterns as a map in their order.
func (p Patterns[T]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(e.Key)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(e.Value)
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
