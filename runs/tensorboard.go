package runs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// board writes event files as TensorBoard reads them: records of TFRecord framing, each a tensorflow.Event. A
// process writes one file of its own; it appears with the first metric.
type board struct {
	dir   string
	f     *os.File
	purge int // steps from here on, written by an earlier process, are void; 0 voids none
}

func newBoard(dir string) *board { return &board{dir: dir} }

// Field numbers of tensorflow.Event, Summary, Summary.Value and SessionLog (event.proto, summary.proto).
const (
	eventWallTime   protowire.Number = 1
	eventStep       protowire.Number = 2
	eventVersion    protowire.Number = 3
	eventSummary    protowire.Number = 5
	eventSessionLog protowire.Number = 7
	summaryValue    protowire.Number = 1
	valueTag        protowire.Number = 1
	valueSimple     protowire.Number = 2
	sessionStatus   protowire.Number = 1
	sessionStart                     = 1
)

// restart voids what an earlier process wrote for a step and those after it.
func (b *board) restart(step int) error {
	b.purge = step
	if b.f == nil {
		return nil
	}
	return b.session()
}

// metric writes the scalars of a metric, tagged split/name.
func (b *board) metric(m Metric) error {
	if b.f == nil {
		if err := b.open(m.Time); err != nil {
			return err
		}
	}
	var summary []byte
	add := func(name string, v Number) {
		value := protowire.AppendString(protowire.AppendTag(nil, valueTag, protowire.BytesType), m.Split+"/"+name)
		value = protowire.AppendFixed32(protowire.AppendTag(value, valueSimple, protowire.Fixed32Type), math.Float32bits(float32(v)))
		summary = protowire.AppendBytes(protowire.AppendTag(summary, summaryValue, protowire.BytesType), value)
	}
	add("loss", m.Loss)
	if m.Split == Train {
		add("grad_norm", m.GradNorm)
		add("learning_rate", m.LR)
		if m.TokensPerSecond != 0 {
			add("tokens_per_sec", m.TokensPerSecond)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Values)) {
		add(name, m.Values[name])
	}
	return b.event(m.Time, m.Step, eventSummary, summary)
}

// open makes this process's file and writes the version that marks it.
func (b *board) open(now time.Time) (err error) {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return fmt.Errorf("runs: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	// TensorBoard reads files in the order of their names, so the time comes first.
	name := fmt.Sprintf("events.out.tfevents.%010d.%09d.%s.%d", now.Unix(), now.Nanosecond(), host, os.Getpid())
	b.f, err = os.OpenFile(filepath.Join(b.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("runs: %w", err)
	}
	if err := b.event(now, 0, eventVersion, []byte("brain.Event:2")); err != nil {
		return err
	}
	return b.session()
}

// session marks the start of a process's part, where an earlier one wrote beyond it.
func (b *board) session() error {
	if b.purge == 0 {
		return nil
	}
	status := protowire.AppendVarint(protowire.AppendTag(nil, sessionStatus, protowire.VarintType), sessionStart)
	err := b.event(time.Now(), b.purge, eventSessionLog, status)
	b.purge = 0
	return err
}

// event writes one record by one call.
func (b *board) event(at time.Time, step int, field protowire.Number, content []byte) error {
	wall := float64(at.UnixNano()) / 1e9
	e := protowire.AppendFixed64(protowire.AppendTag(nil, eventWallTime, protowire.Fixed64Type), math.Float64bits(wall))
	e = protowire.AppendVarint(protowire.AppendTag(e, eventStep, protowire.VarintType), uint64(step))
	e = protowire.AppendBytes(protowire.AppendTag(e, field, protowire.BytesType), content)

	r := binary.LittleEndian.AppendUint64(nil, uint64(len(e)))
	r = binary.LittleEndian.AppendUint32(r, masked(r))
	r = append(r, e...)
	r = binary.LittleEndian.AppendUint32(r, masked(e))
	if _, err := b.f.Write(r); err != nil {
		return fmt.Errorf("runs: %w", err)
	}
	return nil
}

func (b *board) close() error {
	if b.f == nil {
		return nil
	}
	return errors.Join(b.f.Sync(), b.f.Close())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is the checksum of the framing: rotated and shifted, so that a checksum of checksums stays good.
func masked(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}
