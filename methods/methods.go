// Package methods holds the methods of the four axes, one file each. A file registers its method; importing the
// package makes all of them known.
package methods
