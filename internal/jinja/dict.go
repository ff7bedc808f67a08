package jinja

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
)

// Dict is a Python dict: it keeps the order in which keys were added.
type Dict struct {
	keys   []Value
	values []Value
	index  map[any]int
}

// NewDict returns an empty dict.
func NewDict() *Dict { return &Dict{index: map[any]int{}} }

// Len returns the number of keys.
func (d *Dict) Len() int { return len(d.keys) }

// Set adds or replaces the value of a string key.
func (d *Dict) Set(key string, v Value) { d.put(key, key, v) }

// Get returns the value of a string key.
func (d *Dict) Get(key string) (Value, bool) {
	i, ok := d.index[key]
	if !ok {
		return nil, false
	}
	return d.values[i], true
}

// Keys returns the string keys in order.
func (d *Dict) Keys() []string {
	var out []string
	for _, k := range d.keys {
		if s, ok := k.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// Clone returns a shallow copy.
func (d *Dict) Clone() *Dict {
	c := NewDict()
	for i, k := range d.keys {
		c.keys = append(c.keys, k)
		c.values = append(c.values, d.values[i])
	}
	for k, i := range d.index {
		c.index[k] = i
	}
	return c
}

// Without returns a copy that lacks the keys for which drop is true.
func (d *Dict) Without(drop func(key string, v Value) bool) *Dict {
	c := NewDict()
	for i, k := range d.keys {
		if s, ok := k.(string); ok && !drop(s, d.values[i]) {
			c.Set(s, d.values[i])
		}
	}
	return c
}

func (d *Dict) put(hash any, key, v Value) {
	if i, ok := d.index[hash]; ok {
		d.values[i] = v
		return
	}
	d.index[hash] = len(d.keys)
	d.keys = append(d.keys, key)
	d.values = append(d.values, v)
}

// put sets a key of any hashable type.
func (r *renderer) put(d *Dict, key, v Value) {
	r.charge(64)
	d.put(r.hash(key), key, v)
}

// find looks a key of any hashable type up.
func (r *renderer) find(d *Dict, key Value) (Value, bool) {
	i, ok := d.index[r.hash(key)]
	if !ok {
		return nil, false
	}
	return d.values[i], true
}

// hashed are keys that are not their own hash.
type hashed string

// hash maps equal keys to one comparable Go value: 1, 1.0 and true are one key.
func (r *renderer) hash(key Value) any {
	r.step(1)
	switch k := key.(type) {
	case nil:
		return hashed("None")
	case string:
		return k
	case Markup:
		return string(k)
	case bool, int, float64, *big.Int:
		return hashNumber(number(k))
	case bytesValue:
		return hashed("b" + string(k))
	case *Undefined:
		return hashed("Undefined")
	case *rangeValue:
		return *k
	case Tuple, *group:
		items, _ := asItems(k)
		r.enter()
		h := []byte("(")
		for _, item := range items {
			part := hashText(r.hash(item))
			h = binary.AppendUvarint(h, uint64(len(part)))
			h = append(h, part...)
		}
		r.charge(len(h))
		r.depth--
		return hashed(h)
	case List, *Dict, *view:
		failType("unhashable type: '%s'", typeName(k))
	}
	return key
}

// hashText writes a hash so that different ones differ.
func hashText(h any) string {
	switch h.(type) {
	case string, hashed, int, float64, rangeValue:
		return fmt.Sprintf("%T:%v", h, h)
	}
	return fmt.Sprintf("%p", h) // an object, equal to itself only
}

func hashNumber(n any) any {
	switch n := n.(type) {
	case float64:
		if n == math.Trunc(n) && math.Abs(n) < 1<<62 {
			return int(n)
		}
		return n
	case *big.Int:
		return hashed("int" + n.String())
	}
	return n
}
