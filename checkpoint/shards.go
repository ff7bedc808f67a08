package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tunesmith/internal/atomicfile"
)

// shardIndex is what a .safetensors.index.json says.
type shardIndex struct {
	meta    map[string]any
	weights map[string]string // tensor to file
}

func parseIndex(text []byte) (shardIndex, error) {
	index := shardIndex{weights: map[string]string{}}
	d := json.NewDecoder(bytes.NewReader(text))
	err := object(d, func(key string) error {
		switch key {
		case "metadata":
			return d.Decode(&index.meta)
		case "weight_map":
			return object(d, func(tensor string) error {
				name, err := stringValue(d)
				if err == nil && (!filepath.IsLocal(name) || strings.ContainsAny(name, `/\:`) || !strings.HasSuffix(name, ".safetensors")) {
					err = fmt.Errorf("want the plain name of a .safetensors file, have %q", name)
				}
				index.weights[tensor] = name
				return err
			})
		}
		var skipped json.RawMessage
		return d.Decode(&skipped)
	})
	if err != nil {
		return index, err
	}
	if len(index.weights) == 0 {
		return index, errors.New("weight_map names no tensors")
	}
	return index, atEnd(d, text)
}

// openIndex opens the shards that an index names. Each tensor must stand in the shard that the index says, and
// nowhere else.
func openIndex(path string) (*file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > headerLimit {
		return nil, fmt.Errorf("want an index of at most %d bytes, have %d", headerLimit, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	index, err := parseIndex(text)
	if err != nil {
		return nil, err
	}
	all := &file{tensors: make(map[string]Tensor, len(index.weights)), meta: map[string]any{}}
	maps.Copy(all.meta, index.meta)
	if err := all.addShards(filepath.Dir(path), index); err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return all, nil
}

func (f *file) addShards(dir string, index shardIndex) error {
	for _, name := range slices.Compact(slices.Sorted(maps.Values(index.weights))) {
		shard, err := mapped(filepath.Join(dir, name), parseSafetensors)
		if err != nil {
			return fmt.Errorf("shard %s: %w", name, err)
		}
		f.unmap = append(f.unmap, shard.unmap...)
		for _, tensor := range shard.names {
			if want, ok := index.weights[tensor]; !ok || want != name {
				return fmt.Errorf("tensor %q stands in %s, the index says %q", tensor, name, want)
			}
			f.names = append(f.names, tensor)
			f.tensors[tensor] = shard.tensors[tensor]
		}
		for key, v := range shard.meta {
			if _, ok := f.meta[key]; !ok {
				f.meta[key] = v
			}
		}
	}
	for _, tensor := range slices.Sorted(maps.Keys(index.weights)) {
		if _, ok := f.tensors[tensor]; !ok {
			return fmt.Errorf("tensor %q is not in %s, where the index says it is", tensor, index.weights[tensor])
		}
	}
	return nil
}

// WriteSharded writes tensors to a directory as transformers does: model.safetensors, or if they take more than
// limit bytes, model-00001-of-0000N.safetensors ... and the index that names them. Each shard takes tensors in the
// order given until the next would exceed the limit; a tensor above the limit has a shard of its own. The index is
// written last. It returns the names of the files.
func WriteSharded(dir string, tensors []Tensor, meta map[string]string, limit int64) ([]string, error) {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	var shards [][]Tensor
	var total, filled int64
	for _, t := range tensors {
		size, err := t.storedSize()
		if err != nil {
			return nil, fmt.Errorf("checkpoint %s: %w", dir, err)
		}
		if len(shards) == 0 || filled > 0 && filled+int64(size) > limit {
			shards = append(shards, nil)
			filled = 0
		}
		last := &shards[len(shards)-1]
		*last = append(*last, t)
		filled += int64(size)
		total += int64(size)
	}
	if len(shards) <= 1 {
		return []string{modelFile}, WriteSafetensors(filepath.Join(dir, modelFile), tensors, meta)
	}
	weights := map[string]string{}
	var names []string
	for i, shard := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		names = append(names, name)
		for _, t := range shard {
			if other, ok := weights[t.Name]; ok {
				return nil, fmt.Errorf("checkpoint %s: tensor name %q is taken by one in %s", dir, t.Name, other)
			}
			weights[t.Name] = name
		}
	}
	for i, shard := range shards {
		if err := WriteSafetensors(filepath.Join(dir, names[i]), shard, meta); err != nil {
			return nil, err
		}
	}
	// Maps are written sorted by key.
	index, err := json.MarshalIndent(map[string]any{
		"metadata":   map[string]int64{"total_size": total},
		"weight_map": weights,
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, indexFile), append(index, '\n')); err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	return append(names, indexFile), nil
}
