package device

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Conditions are what the system says about the device. What it does not say is unknown: a machine without a battery
// has no charge to run out of.
type Conditions struct {
	Time        time.Time
	Powered     bool     // on external power, or without a battery
	Battery     *int     // percent, of the emptiest battery
	Temperature *float64 // °C, of the hottest sensor
	Network     string   // interface of the default route, empty for none
	Metered     bool     // the network is one that is paid by volume
	Busy        *float64 // share of the processors that other programs used since the reading before
	RSS         Bytes    // resident memory of this process
}

// Reader reads conditions below a root folder, as Linux and Android lay them out.
type Reader struct {
	Root string
	// Now is the clock; time.Now where it is nil.
	Now func() time.Time

	busy, own, all uint64 // ticks at the reading before
}

// Read returns the conditions of this moment.
func (r *Reader) Read() Conditions {
	c := Conditions{Time: r.now(), Powered: true}
	r.power(&c)
	r.temperature(&c)
	r.network(&c)
	r.processors(&c)
	for line := range strings.Lines(r.text("proc/self/status")) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			c.RSS = Bytes(kib << 10)
		}
	}
	return c
}

func (r *Reader) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// text returns a file's content, empty where there is none.
func (r *Reader) text(path string) string {
	b, err := os.ReadFile(filepath.Join(r.Root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (r *Reader) glob(pattern string) []string {
	found, _ := filepath.Glob(filepath.Join(r.Root, pattern))
	for i, f := range found {
		found[i], _ = filepath.Rel(r.Root, f)
	}
	return found
}

// power reads the supplies: a battery's charge and status, and whether a charger is connected.
func (r *Reader) power(c *Conditions) {
	battery, connected := false, false
	for _, supply := range r.glob("sys/class/power_supply/*") {
		if r.text(supply+"/scope") == "Device" {
			continue // of a mouse or a keyboard
		}
		if r.text(supply+"/type") != "Battery" {
			connected = connected || r.text(supply+"/online") == "1"
			continue
		}
		battery = true
		switch r.text(supply + "/status") {
		case "Charging", "Full", "Not charging":
			connected = true
		}
		if percent, err := strconv.Atoi(r.text(supply + "/capacity")); err == nil && (c.Battery == nil || percent < *c.Battery) {
			c.Battery = &percent
		}
		if tenths, err := strconv.ParseFloat(r.text(supply+"/temp"), 64); err == nil {
			c.hotter(tenths / 10)
		}
	}
	c.Powered = connected || !battery
}

func (c *Conditions) hotter(celsius float64) {
	if c.Temperature == nil || celsius > *c.Temperature {
		c.Temperature = &celsius
	}
}

func (r *Reader) temperature(c *Conditions) {
	for _, zone := range r.glob("sys/class/thermal/thermal_zone*") {
		milli, err := strconv.ParseFloat(r.text(zone+"/temp"), 64)
		if err == nil && milli > -40e3 && milli < 200e3 { // sensors that are off say what they like
			c.hotter(milli / 1000)
		}
	}
}

// meteredPrefixes are the names of mobile and tethered interfaces, which NetworkManager too takes for metered.
var meteredPrefixes = []string{"wwan", "rmnet", "ccmni", "ppp", "usb", "rndis"}

func (r *Reader) network(c *Conditions) {
	for line := range strings.Lines(r.text("proc/net/route")) {
		f := strings.Fields(line)
		if len(f) > 2 && f[1] == "00000000" {
			c.Network = f[0]
			break
		}
	}
	if c.Network == "" {
		return
	}
	c.Metered = strings.Contains(r.text("sys/class/net/"+c.Network+"/uevent"), "DEVTYPE=wwan")
	for _, p := range meteredPrefixes {
		c.Metered = c.Metered || strings.HasPrefix(c.Network, p)
	}
}

// processors tells what other programs use from two readings; the first gives none.
func (r *Reader) processors(c *Conditions) {
	first, _, _ := strings.Cut(r.text("proc/stat"), "\n")
	var busy, all uint64
	for i, f := range strings.Fields(strings.TrimPrefix(first, "cpu")) {
		n, _ := strconv.ParseUint(f, 10, 64)
		if i > 7 {
			break // guests are counted as users already
		}
		all += n
		if i != 3 && i != 4 { // idle, waiting for a disk
			busy += n
		}
	}
	var own uint64
	stat := r.text("proc/self/stat")
	if f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]); len(f) > 12 {
		user, _ := strconv.ParseUint(f[11], 10, 64)
		system, _ := strconv.ParseUint(f[12], 10, 64)
		own = user + system
	}
	if r.all > 0 && all > r.all {
		others := max(0, float64(busy-r.busy)-float64(own-r.own)) / float64(all-r.all)
		c.Busy = &others
	}
	r.busy, r.own, r.all = busy, own, all
}
