package device

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"tunesmith/checkpoint"
	"tunesmith/internal/atomicfile"
)

// A patch file is the magic, the length of its head, the head as JSON, and for every tensor that changes the gaps
// between the changed elements as varints and then their values: the new float32s, or a float32 scale for each block of
// patchBlock changes followed by their int8 steps.
const (
	patchMagic = "TSPATCH1"
	patchBlock = 128
	patchMost  = 1 << 28 // bytes of a patch that is read
	patchSize  = 1 << 26 // elements of all tensors of a patch
)

// Patch turns one generation into another. The digests bind it to one base and one parent, and to one result.
type Patch struct {
	Base     string        `json:"base"`
	Parent   string        `json:"parent"` // empty for the bare base
	Target   string        `json:"target"`
	Contract string        `json:"chat_contract,omitempty"`
	Int8     bool          `json:"int8"`
	Config   []byte        `json:"config"` // adapter_config.json
	Tensors  []TensorPatch `json:"tensors"`

	changes [][]change
}

// TensorPatch is the change of one tensor.
type TensorPatch struct {
	Name    string `json:"name"`
	Shape   []int  `json:"shape"`
	Changes int    `json:"changes"`
}

// change is a new value, or with int8 a number of steps.
type change struct {
	at    int
	value float32
	scale float32
	step  int8
}

// PatchOptions say how exact a patch is.
type PatchOptions struct {
	Int8    bool    // changes as 8-bit steps: a quarter of the size, and the result differs a little from the target
	Density float64 // share of the elements that may change, the largest changes first; 0 is all
}

// adapterValues are the tensors of an adapter in single precision, by name in order.
type adapterValues struct {
	config  []byte
	tensors []checkpoint.Tensor
	values  [][]float32
}

func readAdapter(dir string) (*adapterValues, error) {
	a := &adapterValues{}
	if dir == "" {
		return a, nil
	}
	var err error
	if a.config, err = os.ReadFile(filepath.Join(dir, configFile)); err != nil {
		return nil, err
	}
	f, err := checkpoint.Open(filepath.Join(dir, weightsFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names := slices.Clone(f.Names())
	slices.Sort(names)
	for _, name := range names {
		t, _ := f.Tensor(name)
		a.values = append(a.values, t.Float32s())
		t.Data = nil
		a.tensors = append(a.tensors, t)
	}
	return a, nil
}

// like returns the values of a tensor of that name and shape; zeros where there is none.
func (a *adapterValues) like(t TensorPatch) []float32 {
	size := checkpoint.Tensor{Shape: t.Shape}.Size()
	for i, have := range a.tensors {
		if have.Name == t.Name && slices.Equal(have.Shape, t.Shape) {
			return slices.Clone(a.values[i])
		}
	}
	return make([]float32, size)
}

// NewPatch makes the patch from one generation to another; from may be 0.
func (l Library) NewPatch(from, to int, o PatchOptions) (*Patch, error) {
	target, err := l.Verify(to)
	if err != nil {
		return nil, err
	}
	p := &Patch{Base: target.Base, Contract: target.Contract, Int8: o.Int8}
	if from != 0 {
		parent, err := l.Verify(from)
		if err != nil {
			return nil, err
		}
		if parent.Base != target.Base {
			return nil, fmt.Errorf("generations %d and %d stand on different bases", from, to)
		}
		p.Parent = parent.Digest
	}
	before, err := readAdapter(l.Adapter(from))
	if err != nil {
		return nil, err
	}
	after, err := readAdapter(l.Adapter(to))
	if err != nil {
		return nil, err
	}
	p.Config = after.config
	for i, t := range after.tensors {
		at := TensorPatch{Name: t.Name, Shape: t.Shape}
		old := before.like(at)
		var list []change
		for k, v := range after.values[i] {
			if math.Float32bits(v) != math.Float32bits(old[k]) {
				list = append(list, change{at: k, value: v, scale: v - old[k]})
			}
		}
		p.Tensors, p.changes = append(p.Tensors, at), append(p.changes, list)
	}
	p.thin(o.Density)
	for i := range p.changes {
		if o.Int8 {
			p.changes[i] = steps(p.changes[i])
		}
		p.Tensors[i].Changes = len(p.changes[i])
	}
	result := p.apply(before)
	p.Target = digest(p.Config, result)
	return p, nil
}

// thin keeps the largest changes, up to a share of all elements.
func (p *Patch) thin(density float64) {
	if density <= 0 || density >= 1 {
		return
	}
	var sizes []float32
	all := 0
	for i, list := range p.changes {
		all += checkpoint.Tensor{Shape: p.Tensors[i].Shape}.Size()
		for _, c := range list {
			sizes = append(sizes, abs(c.scale))
		}
	}
	most := int(density * float64(all))
	if most >= len(sizes) {
		return
	}
	slices.SortFunc(sizes, func(a, b float32) int { return cmp.Compare(b, a) })
	least := sizes[most]
	for i, list := range p.changes {
		p.changes[i] = slices.DeleteFunc(list, func(c change) bool { return abs(c.scale) <= least })
	}
}

func abs(x float32) float32 { return float32(math.Abs(float64(x))) }

// steps turns changes, whose scale is the difference, into whole numbers of a step per block; those of none go.
func steps(list []change) []change {
	var out []change
	for block := range slices.Chunk(list, patchBlock) {
		var most float32
		for _, c := range block {
			most = max(most, abs(c.scale))
		}
		step := most / 127
		for _, c := range block {
			n := int8(0)
			if step > 0 {
				n = int8(math.Round(float64(c.scale / step)))
			}
			out = append(out, change{at: c.at, scale: step, step: n})
		}
	}
	return out
}

// apply returns the tensors that the patch makes of others.
func (p *Patch) apply(before *adapterValues) []checkpoint.Tensor {
	var out []checkpoint.Tensor
	for i, t := range p.Tensors {
		values := before.like(t)
		for _, c := range p.changes[i] {
			if p.Int8 {
				values[c.at] += float32(c.step) * c.scale
			} else {
				values[c.at] = c.value
			}
		}
		out = append(out, checkpoint.Float32Tensor(t.Name, t.Shape, values))
	}
	return out
}

// WriteFile writes the patch.
func (p *Patch) WriteFile(path string) error {
	head, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		b := bufio.NewWriter(w)
		b.WriteString(patchMagic)
		b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(head))))
		b.Write(head)
		for _, list := range p.changes {
			b.Write(p.encode(list))
		}
		return b.Flush()
	})
}

func (p *Patch) encode(list []change) []byte {
	var b []byte
	last := -1
	for _, c := range list {
		b = binary.AppendUvarint(b, uint64(c.at-last))
		last = c.at
	}
	for i, c := range list {
		switch {
		case !p.Int8:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(c.value))
		case i%patchBlock == 0:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(c.scale))
			fallthrough
		default:
			b = append(b, byte(c.step))
		}
	}
	return b
}

// OpenPatch reads a patch file.
func OpenPatch(path string) (*Patch, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, patchMost+1))
	if err != nil {
		return nil, err
	}
	p, err := ParsePatch(text)
	if err != nil {
		return nil, fmt.Errorf("patch %s: %w", path, err)
	}
	return p, nil
}

var errPatch = errors.New("the file is cut or damaged; fetch it again")

// ParsePatch reads the content of a patch file.
func ParsePatch(text []byte) (*Patch, error) {
	rest, ok := bytes.CutPrefix(text, []byte(patchMagic))
	if !ok || len(rest) < 4 {
		return nil, errors.New("it is no patch: want a file that tunesmith device diff has written")
	}
	n := binary.LittleEndian.Uint32(rest)
	if rest = rest[4:]; int64(n) > int64(len(rest)) {
		return nil, errPatch
	}
	p := &Patch{}
	if err := json.Unmarshal(rest[:n], p); err != nil {
		return nil, fmt.Errorf("%w: %w", errPatch, err)
	}
	rest = rest[n:]
	left := patchSize
	for _, t := range p.Tensors {
		size := 1
		for _, d := range t.Shape {
			if d < 1 || d > left/size {
				return nil, fmt.Errorf("tensor %q: shape %v: %w", t.Name, t.Shape, errPatch)
			}
			size *= d
		}
		left -= size
		// Every change takes a byte at least, so that what is allocated is bounded by what was read.
		if t.Changes < 0 || t.Changes > size || t.Changes > len(rest) {
			return nil, fmt.Errorf("tensor %q: %d changes: %w", t.Name, t.Changes, errPatch)
		}
		list := make([]change, t.Changes)
		at := -1
		for i := range list {
			gap, k := binary.Uvarint(rest)
			if k <= 0 || gap == 0 || gap > uint64(size-1-at) {
				return nil, fmt.Errorf("tensor %q: %w", t.Name, errPatch)
			}
			rest = rest[k:]
			at += int(gap)
			list[i].at = at
		}
		var err error
		if rest, err = p.decode(list, rest); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		p.changes = append(p.changes, list)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes are left: %w", len(rest), errPatch)
	}
	return p, nil
}

// decode reads the values of changes.
func (p *Patch) decode(list []change, b []byte) ([]byte, error) {
	var scale float32
	for i := range list {
		if !p.Int8 || i%patchBlock == 0 {
			if len(b) < 4 {
				return nil, errPatch
			}
			x := math.Float32frombits(binary.LittleEndian.Uint32(b))
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return nil, fmt.Errorf("a value is %v: %w", x, errPatch)
			}
			b = b[4:]
			list[i].value, scale = x, x
		}
		if p.Int8 {
			if len(b) < 1 {
				return nil, errPatch
			}
			list[i].scale, list[i].step, b = scale, int8(b[0]), b[1:]
		}
	}
	return b, nil
}

// Apply makes a generation of a patch and puts it into use. A patch for another base, for another generation than the
// current one, or whose result is not what it says, changes nothing.
func (l Library) Apply(p *Patch, base string) (Generation, error) {
	var g Generation
	if p.Base != base {
		return g, fmt.Errorf("the patch is for the base %.16s…, this device has %.16s…", p.Base, base)
	}
	current, err := l.Current()
	if err != nil {
		return g, err
	}
	have := ""
	if current != 0 {
		parent, err := l.Verify(current)
		if err != nil {
			return g, err
		}
		have = parent.Digest
	}
	switch have {
	case p.Target:
		return l.Get(current)
	case p.Parent:
	default:
		return g, fmt.Errorf("the patch is for the generation %.16s…, generation %d in use is %.16s…", p.Parent, current, have)
	}
	before, err := readAdapter(l.Adapter(current))
	if err != nil {
		return g, err
	}
	tensors := p.apply(before)
	g = Generation{Parent: current, Base: base, Contract: p.Contract, Digest: p.Target, Source: "patch " + p.Target}
	g, err = l.Add(g, func(dir string) error {
		return errors.Join(
			os.Mkdir(dir, 0o755),
			os.WriteFile(filepath.Join(dir, configFile), p.Config, 0o644),
			checkpoint.WriteSafetensors(filepath.Join(dir, weightsFile), tensors, map[string]string{"format": "pt"}))
	})
	if err != nil {
		return g, err
	}
	return g, l.Switch(g.Number)
}
