package runs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// fields splits a message into its fields by number; the last of a repeated one stands.
func fields(t *testing.T, b []byte) map[protowire.Number][]byte {
	t.Helper()
	out := map[protowire.Number][]byte{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatalf("tag: %v", protowire.ParseError(n))
		}
		b = b[n:]
		m := protowire.ConsumeFieldValue(num, typ, b)
		if m < 0 {
			t.Fatalf("field %d: %v", num, protowire.ParseError(m))
		}
		v := b[:m]
		if typ == protowire.BytesType {
			v, _ = protowire.ConsumeBytes(v)
		}
		out[num], b = v, b[m:]
	}
	return out
}

// readBoard reads an event file anew: checks the framing and returns "step tag value" lines.
func readBoard(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(data []byte, sum uint32) {
		t.Helper()
		c := sum - 0xa282ead8
		if want := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)); want != (c<<15 | c>>17) {
			t.Fatalf("checksum of %d bytes: want %08x", len(data), want)
		}
	}
	var out []string
	for len(b) > 0 {
		n := binary.LittleEndian.Uint64(b)
		check(b[:8], binary.LittleEndian.Uint32(b[8:]))
		e := b[12 : 12+n]
		check(e, binary.LittleEndian.Uint32(b[12+n:]))
		b = b[16+n:]
		f := fields(t, e)
		wall := math.Float64frombits(binary.LittleEndian.Uint64(f[1]))
		step, _ := protowire.ConsumeVarint(f[2])
		switch {
		case f[3] != nil:
			out = append(out, fmt.Sprintf("version %s", f[3]))
		case f[7] != nil:
			out = append(out, fmt.Sprintf("session %d at %d", fields(t, f[7])[1][0], step))
		default:
			rest := f[5]
			for len(rest) > 0 {
				_, _, tag := protowire.ConsumeTag(rest)
				value, n := protowire.ConsumeBytes(rest[tag:])
				rest = rest[tag+n:]
				v := fields(t, value)
				out = append(out, fmt.Sprintf("%.1f %d %s %v", wall, step, v[1], math.Float32frombits(binary.LittleEndian.Uint32(v[2]))))
			}
		}
	}
	return out
}

func boards(t *testing.T, r *Run) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.Dir(), BoardDir, "events.out.tfevents.*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTensorBoard(t *testing.T) {
	r := create(t, t.TempDir(), "a")
	at := time.Unix(1700000000, 500e6)
	for _, m := range []Metric{
		{Step: 1, Split: Train, Loss: 2.5, LR: 0.125, GradNorm: 0.5, TokensPerSecond: 300, Time: at},
		{Step: 300, Split: Train, Loss: 2, LR: 0.25, GradNorm: 1, Values: map[string]Number{"margin": -1, "accuracy": 0.75}, Time: at},
		{Step: 300, Split: Eval, Loss: 2.25, Time: at},
	} {
		if err := r.Metric(m); err != nil {
			t.Fatal(err)
		}
	}
	files := boards(t, r)
	if len(files) != 1 {
		t.Fatalf("want one file, have %v", files)
	}
	want := []string{
		"version brain.Event:2",
		"1700000000.5 1 train/loss 2.5", "1700000000.5 1 train/grad_norm 0.5", "1700000000.5 1 train/learning_rate 0.125", "1700000000.5 1 train/tokens_per_sec 300",
		"1700000000.5 300 train/loss 2", "1700000000.5 300 train/grad_norm 1", "1700000000.5 300 train/learning_rate 0.25", "1700000000.5 300 train/accuracy 0.75", "1700000000.5 300 train/margin -1",
		"1700000000.5 300 eval/loss 2.25",
	}
	if diff := cmp.Diff(want, readBoard(t, files[0])); diff != "" {
		t.Error(diff)
	}
	r.Close()

	r, err := Open(r.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Rewind(1); err != nil {
		t.Fatal(err)
	}
	if err := r.Metric(Metric{Step: 2, Split: Eval, Loss: 4, Time: at.Add(time.Second)}); err != nil {
		t.Fatal(err)
	}
	files = boards(t, r)
	if len(files) != 2 {
		t.Fatalf("want two files, have %v", files)
	}
	want = []string{"version brain.Event:2", "session 1 at 2", "1700000001.5 2 eval/loss 4"}
	if diff := cmp.Diff(want, readBoard(t, files[1])); diff != "" {
		t.Error(diff)
	}
}
