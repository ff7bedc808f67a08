package federation

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"tunesmith/internal/nearest"
)

// Partition says how simulated clients share a data set.
type Partition struct {
	Kind    string  // iid, linear, exponential, dirichlet, shards, classes or natural
	Clients int     // not for natural, which has one client a label
	Alpha   float64 // dirichlet: small is skewed, large is even
	Least   int     // dirichlet: examples that every client gets at least
	Balance bool    // dirichlet: a client that has its even share gets no more
	Shards  int     // shards: shards a client gets of the data sorted by label
	Classes int     // classes: labels that a client gets
	Seed    uint64
}

var partitions = []string{"iid", "linear", "exponential", "dirichlet", "shards", "classes", "natural"}

// Split returns the examples of each client, by their labels. Every example goes to exactly one client, and the same
// seed gives the same split.
func (p Partition) Split(labels []string) ([][]int, error) {
	if !slices.Contains(partitions, p.Kind) {
		return nil, fmt.Errorf("partition: want one of %s, have %q%s", strings.Join(partitions, ", "), p.Kind, nearest.Hint(p.Kind, partitions))
	}
	if p.Kind != "natural" && (p.Clients < 1 || p.Clients > len(labels)) {
		return nil, fmt.Errorf("partition: want 1 to %d clients for %d examples, have %d", len(labels), len(labels), p.Clients)
	}
	rng := rand.New(rand.NewPCG(p.Seed, 0x9a7e))
	switch p.Kind {
	case "dirichlet":
		return p.dirichlet(labels, rng)
	case "shards":
		return p.shards(labels, rng)
	case "classes":
		return p.classes(labels, rng)
	case "natural":
		_, groups := grouped(labels)
		return groups, nil
	}
	weight := map[string]func(i int) float64{
		"iid":         func(int) float64 { return 1 },
		"linear":      func(i int) float64 { return float64(i + 1) },
		"exponential": func(i int) float64 { return math.Exp(float64(i + 1)) },
	}[p.Kind]
	return bySize(rng.Perm(len(labels)), p.Clients, weight), nil
}

// bySize cuts a list into parts whose sizes are in proportion to the weights; what rounding leaves goes to the first
// parts of iid, and to the last one where sizes differ by intent.
func bySize(order []int, parts int, weight func(i int) float64) [][]int {
	var all float64
	for i := range parts {
		all += weight(i)
	}
	sizes := make([]int, parts)
	left := len(order)
	for i := range sizes {
		sizes[i] = int(float64(len(order))*weight(i)/all + 1e-9)
		left -= sizes[i]
	}
	if weight(0) == weight(parts-1) {
		for i := range left {
			sizes[i]++
		}
	} else {
		sizes[parts-1] += left
	}
	var out [][]int
	for _, n := range sizes {
		out = append(out, sorted(order[:n]))
		order = order[n:]
	}
	return out
}

func sorted(x []int) []int {
	out := slices.Clone(x)
	slices.Sort(out)
	return out
}

// grouped returns the labels, sorted, and the examples of each.
func grouped(labels []string) ([]string, [][]int) {
	names := slices.Clone(labels)
	slices.Sort(names)
	names = slices.Compact(names)
	groups := make([][]int, len(names))
	for i, l := range labels {
		at, _ := slices.BinarySearch(names, l)
		groups[at] = append(groups[at], i)
	}
	return names, groups
}

// dirichlet draws for every label the clients' parts from a Dirichlet distribution; a split that leaves a client with
// too few is drawn again.
func (p Partition) dirichlet(labels []string, rng *rand.Rand) ([][]int, error) {
	const tries = 10
	if !(p.Alpha > 0) {
		return nil, fmt.Errorf("partition: dirichlet wants alpha > 0, have %g", p.Alpha)
	}
	_, groups := grouped(labels)
	fewest := 0
	for range tries {
		out := make([][]int, p.Clients)
		for _, group := range groups {
			parts := dirichlet(rng, p.Alpha, p.Clients)
			if p.Balance {
				full, sum := float64(len(labels))/float64(p.Clients), 0.0
				for k := range parts {
					if float64(len(out[k])) >= full {
						parts[k] = 0
					}
					sum += parts[k]
				}
				for k := range parts {
					parts[k] /= sum
				}
			}
			order := rng.Perm(len(group))
			at, share := 0, 0.0
			for k := range parts {
				share += parts[k]
				to := int(share*float64(len(group)) + 1e-9)
				if k == len(parts)-1 {
					to = len(group)
				}
				for ; at < to; at++ {
					out[k] = append(out[k], group[order[at]])
				}
			}
		}
		fewest = len(labels)
		for k := range out {
			slices.Sort(out[k])
			fewest = min(fewest, len(out[k]))
		}
		if fewest >= max(1, p.Least) {
			return out, nil
		}
	}
	return nil, fmt.Errorf("partition: %d draws of dirichlet %g leave a client with %d of at least %d examples; raise alpha, lower the least, or take fewer clients",
		tries, p.Alpha, fewest, max(1, p.Least))
}

// dirichlet draws parts that add up to one.
func dirichlet(rng *rand.Rand, alpha float64, n int) []float64 {
	logs := make([]float64, n)
	for i := range logs {
		logs[i] = logGamma(rng, alpha)
	}
	most := slices.Max(logs)
	var sum float64
	for i, l := range logs {
		logs[i] = math.Exp(l - most)
		sum += logs[i]
	}
	for i := range logs {
		logs[i] /= sum
	}
	return logs
}

// logGamma draws the logarithm of a gamma variate (Marsaglia and Tsang 2000), which for a small alpha is far below any
// number.
func logGamma(rng *rand.Rand, alpha float64) float64 {
	if alpha < 1 {
		return logGamma(rng, alpha+1) + math.Log(1-rng.Float64())/alpha
	}
	d := alpha - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := rng.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-rng.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return math.Log(d * v)
		}
	}
}

// shards sorts by label, cuts equal shards and deals them out (McMahan et al. 2017).
func (p Partition) shards(labels []string, rng *rand.Rand) ([][]int, error) {
	n := p.Clients * max(1, p.Shards)
	if n > len(labels) {
		return nil, fmt.Errorf("partition: %d shards of %d examples; lower the shards of a client", n, len(labels))
	}
	_, groups := grouped(labels)
	cut := bySizeInOrder(slices.Concat(groups...), n)
	out := make([][]int, p.Clients)
	for i, s := range rng.Perm(n) {
		out[i%p.Clients] = append(out[i%p.Clients], cut[s]...)
	}
	for k := range out {
		slices.Sort(out[k])
	}
	return out, nil
}

func bySizeInOrder(order []int, parts int) [][]int {
	var out [][]int
	for i := range parts {
		out = append(out, order[i*len(order)/parts:(i+1)*len(order)/parts])
	}
	return out
}

// classes gives every client the same number of labels, in turn over a random order, and shares each label out among
// those that have it.
func (p Partition) classes(labels []string, rng *rand.Rand) ([][]int, error) {
	names, groups := grouped(labels)
	k := max(1, p.Classes)
	if k > len(names) || k*p.Clients < len(names) {
		return nil, fmt.Errorf("partition: %d clients with %d of %d labels each cannot cover the data", p.Clients, k, len(names))
	}
	order := rng.Perm(len(names))
	owners := make([][]int, len(names))
	for i := range p.Clients * k {
		label := order[i%len(names)]
		owners[label] = append(owners[label], i/k)
	}
	out := make([][]int, p.Clients)
	for label, group := range groups {
		rng.Shuffle(len(group), func(a, b int) { group[a], group[b] = group[b], group[a] })
		for i, part := range bySizeInOrder(group, len(owners[label])) {
			c := owners[label][i]
			out[c] = append(out[c], part...)
		}
	}
	for c := range out {
		slices.Sort(out[c])
	}
	return out, nil
}
