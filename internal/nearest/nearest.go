// Package nearest finds the known names that an unknown one may have meant.
package nearest

import (
	"slices"
	"strings"
)

// Hint returns ", did you mean x or y?" for the known names within a third of the name's length in edits, or "".
func Hint(name string, known []string) string {
	names := Names(name, known)
	if len(names) == 0 {
		return ""
	}
	return ", did you mean " + strings.Join(names, " or ") + "?"
}

// Names returns up to three known names nearest to name, the nearest first.
func Names(name string, known []string) []string {
	type candidate struct {
		name string
		d    int
	}
	limit := max(1, len(name)/3)
	var found []candidate
	for _, k := range known {
		d := Distance(strings.ToLower(name), strings.ToLower(k))
		if d <= limit || (len(name) >= 3 && strings.HasPrefix(k, name)) {
			found = append(found, candidate{k, d})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return a.d - b.d })
	var out []string
	for _, c := range found[:min(3, len(found))] {
		out = append(out, c.name)
	}
	return out
}

// Distance is the number of insertions, deletions, substitutions and exchanges of neighbours between a and b
// (optimal string alignment).
func Distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	d := make([][]int, len(x)+1)
	for i := range d {
		d[i] = make([]int, len(y)+1)
		d[i][0] = i
	}
	for j := range y {
		d[0][j+1] = j + 1
	}
	for i := range x {
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			d[i+1][j+1] = min(d[i][j+1]+1, d[i+1][j]+1, d[i][j]+cost)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				d[i+1][j+1] = min(d[i+1][j+1], d[i-1][j-1]+1)
			}
		}
	}
	return d[len(x)][len(y)]
}
