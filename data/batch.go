package data

// Batch is what one forward pass computes on. The slices hold Rows × Cols elements, row after row.
//
// A sequence is an example, or a piece of one. Sequences that share a row do not see each other: each has a number
// in Segments, and its Positions begin at 0.
type Batch struct {
	Rows, Cols int
	IDs        []int32
	Targets    []int32   // the token that follows, where it is trained; else -1
	Weights    []float32 // of the loss at a target, 0 where there is none
	Positions  []int32   // in the sequence
	Segments   []int32   // number of the sequence in its row; -1 is padding
	Supervised int       // targets
	Tokens     int       // tokens that are no padding
	Tasks      []int     // number of each row's task
	Examples   [][]int   // numbers of the examples in each row, by segment

	// What losses need that look at more than tokens.
	Sequences int            // rows of an example, which follow each other; 0 is 1
	Labels    []float32      // of each example, as in [Example]
	Margins   []float32      // of each example
	Reference []float32      // log-probability of each target under the reference model; nil where there is none
	Extra     map[string]any // further inputs by name, []float32 or []int32
}

// sequence is a run of tokens that sees nothing else.
type sequence struct {
	example int
	ids     []int32
	train   []bool
	weight  float32
}

// collate lays rows of sequences into a batch. Its width is that of the longest row, rounded up to a multiple, so
// that a program that is compiled for a shape serves many batches.
func collate(rows [][]sequence, multiple int, pad int32) Batch {
	b := Batch{Rows: len(rows), Examples: make([][]int, len(rows))}
	for _, row := range rows {
		n := 0
		for _, s := range row {
			n += len(s.ids)
		}
		b.Cols = max(b.Cols, n)
	}
	b.Cols = (b.Cols + multiple - 1) / multiple * multiple
	n := b.Rows * b.Cols
	ints := make([]int32, 4*n)
	b.IDs, b.Targets, b.Positions, b.Segments = ints[:n:n], ints[n:2*n:2*n], ints[2*n:3*n:3*n], ints[3*n:]
	b.Weights = make([]float32, n)
	for r, row := range rows {
		at := r * b.Cols
		for segment, s := range row {
			b.Examples[r] = append(b.Examples[r], s.example)
			for i, id := range s.ids {
				b.IDs[at], b.Targets[at], b.Positions[at], b.Segments[at] = id, -1, int32(i), int32(segment)
				// The one place where labels are shifted: a token's target is the token after it.
				if i+1 < len(s.ids) && s.train[i+1] {
					b.Targets[at], b.Weights[at] = s.ids[i+1], s.weight
					b.Supervised++
				}
				at++
			}
			b.Tokens += len(s.ids)
		}
		for ; at < (r+1)*b.Cols; at++ {
			b.IDs[at], b.Targets[at], b.Segments[at] = pad, -1, -1
		}
	}
	return b
}

// Answers lays prompts and their answers into a batch, of which the answers are the targets.
func Answers(prompts, answers [][]int32, pad int32) Batch {
	rows := make([][]sequence, len(prompts))
	for i, p := range prompts {
		s := sequence{example: i, weight: 1, ids: append(p[:len(p):len(p)], answers[i]...)}
		s.train = make([]bool, len(s.ids))
		for k := len(p); k < len(s.train); k++ {
			s.train[k] = true
		}
		rows[i] = []sequence{s}
	}
	const multiple = 32
	b := collate(rows, multiple, pad)
	b.Tasks = make([]int, b.Rows)
	return b
}

// Answer takes the values at the targets of a row.
func (b Batch) Answer(row int, values []float32) []float32 {
	var out []float32
	for i := row * b.Cols; i < (row+1)*b.Cols; i++ {
		if b.Targets[i] >= 0 {
			out = append(out, values[i])
		}
	}
	return out
}

// Spread puts values at the targets of a row, as many as there are.
func (b Batch) Spread(row int, values, to []float32) {
	for i := row * b.Cols; i < (row+1)*b.Cols && len(values) > 0; i++ {
		if b.Targets[i] >= 0 {
			to[i], values = values[0], values[1:]
		}
	}
}
