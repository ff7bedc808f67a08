package data

import "slices"

// course draws tasks one after the other, where each takes part from one draw to another. Between two draws at which a
// task joins or leaves, the shares of those that take part are kept exactly; counting begins anew at each, so that what
// was drawn before is not made up for.
type course struct {
	shares     []float64
	from, stop []int64 // number of the first draw, and of the first without it; stop -1 is never
	schedule   *schedule
	drawn      []int // of each task, in all
	at         int64 // draws made
}

func newCourse(shares []float64, from []int64) *course {
	c := &course{shares: shares, from: from, stop: make([]int64, len(shares))}
	for i := range c.stop {
		c.stop[i] = -1
	}
	c.rewind()
	return c
}

// rewind goes back to the first draw.
func (c *course) rewind() {
	c.at, c.drawn = 0, make([]int, len(c.shares))
	c.schedule = newSchedule(c.now())
}

// now returns the shares of the tasks that take part, which add up to what all shares add up to. Where none takes part,
// all of them do.
func (c *course) now() []float64 {
	shares := slices.Clone(c.shares)
	var all, left float64
	for i, s := range shares {
		all += s
		if c.at < c.from[i] || c.stop[i] >= 0 && c.at >= c.stop[i] {
			shares[i] = 0
		}
		left += shares[i]
	}
	if left == 0 {
		return slices.Clone(c.shares)
	}
	if left != all {
		for i := range shares {
			shares[i] *= all / left
		}
	}
	return shares
}

// next draws a task.
func (c *course) next() int {
	if c.at > 0 && (slices.Contains(c.from, c.at) || slices.Contains(c.stop, c.at)) {
		c.schedule = newSchedule(c.now())
	}
	c.at++
	task := c.schedule.next()
	c.drawn[task]++
	return task
}
