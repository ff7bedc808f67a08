package federation

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// NPY writes an array as numpy's .npy version 1.0 does, which is how Flower carries arrays. descr is numpy's name of the
// type, such as <f4; data are the elements, little-endian, in the order that fortran says.
func NPY(descr string, shape []int, fortran bool, data []byte) []byte {
	const magic, align = "\x93NUMPY\x01\x00", 64
	dims := make([]string, len(shape))
	for i, d := range shape {
		dims[i] = fmt.Sprint(d)
	}
	tuple := strings.Join(dims, ", ")
	if len(shape) == 1 {
		tuple += ","
	}
	order := "False"
	if fortran {
		order = "True"
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }", descr, order, tuple)
	// numpy leaves room for the first dimension to grow to 21 digits.
	if len(shape) > 0 {
		grows := 0
		if fortran {
			grows = len(shape) - 1
		}
		header += strings.Repeat(" ", 21-len(dims[grows]))
	}
	pad := (align - (len(magic)+2+len(header)+1)%align) % align
	header += strings.Repeat(" ", pad) + "\n"
	out := binary.LittleEndian.AppendUint16([]byte(magic), uint16(len(header)))
	return append(append(out, header...), data...)
}

// Array returns a tensor in Flower's form: its .npy bytes.
func (t Tensor) Array() []byte {
	data := make([]byte, 0, 4*len(t.Values))
	for _, v := range t.Values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return NPY("<f4", t.Shape, false, data)
}
