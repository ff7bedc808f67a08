// Package golden finds the reference numbers made with the Python libraries and reads them for tests.
//
// The folder is the value of TUNESMITH_GOLDEN, else ../shared/golden seen from the module's root. Data sets
// that the cases name lie beside it, in <golden>/../data. Without the folder a test skips with one loud line;
// with TUNESMITH_REQUIRE_GOLDEN=1 it fails instead.
package golden

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"testing"
)

// Tensor is one tensor of a reference file: F32 holds floats, I32 holds integers, and the other is nil.
type Tensor struct {
	Shape []int
	F32   []float32
	I32   []int32
}

// Len returns the number of elements.
func (t Tensor) Len() int { return len(t.F32) + len(t.I32) }

// Ints returns the integers as int, for ids and positions.
func (t Tensor) Ints() []int {
	out := make([]int, len(t.I32))
	for i, v := range t.I32 {
		out[i] = int(v)
	}
	return out
}

// root returns the golden folder, or "" when there is none.
func root() string {
	if dir := os.Getenv("TUNESMITH_GOLDEN"); dir != "" {
		return dir
	}
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(file), "..", "..", "..", "shared", "golden")
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// Dir returns the folder of an area ("models", "peft", ...) or skips the test; see the package comment.
func Dir(t testing.TB, area string) string {
	t.Helper()
	return find(t, root(), area)
}

// Data returns a folder of the data sets that lie beside the golden folder, or skips the test.
func Data(t testing.TB, name string) string {
	t.Helper()
	dir := root()
	if dir != "" {
		dir = filepath.Join(dir, "..", "data")
	}
	return find(t, dir, name)
}

func find(t testing.TB, dir, name string) string {
	t.Helper()
	if dir != "" {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if os.Getenv("TUNESMITH_REQUIRE_GOLDEN") == "1" {
		t.Fatalf("golden: no folder %q under %q; set TUNESMITH_GOLDEN to the folder of reference numbers", name, dir)
	}
	t.Skipf("GOLDEN SKIPPED: no folder %q; set TUNESMITH_GOLDEN to the folder of reference numbers", name)
	return ""
}

// Cases returns the names of the folders in dir that hold a file of the given name, sorted.
func Cases(t testing.TB, dir, file string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatalf("golden: %v", err)
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), file)); err == nil && e.IsDir() {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	if len(names) == 0 {
		t.Fatalf("golden: no case with %s in %s", file, dir)
	}
	return names
}

// JSON reads a JSON file into v.
func JSON(t testing.TB, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("golden: %v", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("golden: %s: %v", path, err)
	}
}

// Load reads a whole safetensors file; F32, F64, BF16 and F16 become F32, integers and bool become I32.
// It is an independent reader, so that the tests of package checkpoint do not check that package with itself.
func Load(t testing.TB, path string) map[string]Tensor {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("golden: %v", err)
	}
	n := binary.LittleEndian.Uint64(b)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		t.Fatalf("golden: %s: %v", path, err)
	}
	body := b[8+n:]
	out := make(map[string]Tensor, len(header))
	for name, raw := range header {
		if name == "__metadata__" {
			continue
		}
		var h struct {
			Dtype   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &h); err != nil {
			t.Fatalf("golden: %s: %s: %v", path, name, err)
		}
		tensor, err := decode(h.Dtype, body[h.Offsets[0]:h.Offsets[1]])
		if err != nil {
			t.Fatalf("golden: %s: %s: %v", path, name, err)
		}
		tensor.Shape = h.Shape
		out[name] = tensor
	}
	return out
}

func decode(dtype string, b []byte) (Tensor, error) {
	le := binary.LittleEndian
	var t Tensor
	switch dtype {
	case "F32":
		for i := 0; i < len(b); i += 4 {
			t.F32 = append(t.F32, math.Float32frombits(le.Uint32(b[i:])))
		}
	case "F64":
		for i := 0; i < len(b); i += 8 {
			t.F32 = append(t.F32, float32(math.Float64frombits(le.Uint64(b[i:]))))
		}
	case "BF16":
		for i := 0; i < len(b); i += 2 {
			t.F32 = append(t.F32, math.Float32frombits(uint32(le.Uint16(b[i:]))<<16))
		}
	case "F16":
		for i := 0; i < len(b); i += 2 {
			t.F32 = append(t.F32, half(le.Uint16(b[i:])))
		}
	case "I32":
		for i := 0; i < len(b); i += 4 {
			t.I32 = append(t.I32, int32(le.Uint32(b[i:])))
		}
	case "I64":
		for i := 0; i < len(b); i += 8 {
			t.I32 = append(t.I32, int32(le.Uint64(b[i:])))
		}
	case "U8", "BOOL":
		for _, v := range b {
			t.I32 = append(t.I32, int32(v))
		}
	case "I8":
		for _, v := range b {
			t.I32 = append(t.I32, int32(int8(v)))
		}
	default:
		return t, fmt.Errorf("dtype %s is not one of F32 F64 F16 BF16 I64 I32 I8 U8 BOOL", dtype)
	}
	return t, nil
}

func half(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, int(h>>10)&31, uint32(h&1023)
	switch {
	case exp == 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case exp == 0:
		v := float32(frac) / (1 << 24)
		if sign != 0 {
			v = -v
		}
		return v
	}
	return math.Float32frombits(sign | uint32(exp+112)<<23 | frac<<13)
}

// RelL2 returns ‖got − want‖ / ‖want‖, the distance of tolerance classes E1 to E4; it is NaN-preserving, and
// equals ‖got‖ where want is zero.
func RelL2(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var diff, norm float64
	for i := range want {
		d := float64(got[i]) - float64(want[i])
		diff += d * d
		norm += float64(want[i]) * float64(want[i])
	}
	if norm == 0 {
		return math.Sqrt(diff)
	}
	return math.Sqrt(diff / norm)
}

// MaxAbs returns the largest absolute difference, +Inf where the lengths differ, NaN where one is NaN.
func MaxAbs(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var max float64
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(d) {
			return d
		}
		if d > max {
			max = d
		}
	}
	return max
}
