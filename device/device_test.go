package device

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"400MiB": 400 << 20, "1.5 GiB": 3 << 29, "2GB": 2e9, "512": 512, "64k": 64 << 10, "0": 0} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%s: want %d, have %d, %v", text, want, b, err)
		}
		var again Bytes
		written, _ := b.MarshalText()
		if err := again.UnmarshalText(written); err != nil || again != b {
			t.Errorf("%s: written as %s, read as %d, %v", text, written, again, err)
		}
	}
	for _, text := range []string{"", "many", "-1MiB", "1e300GiB", "NaN"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for %d", text, b)
		}
	}
}

func TestWindow(t *testing.T) {
	at := func(h, m int) time.Time { return time.Date(2026, 3, 1, h, m, 0, 0, time.UTC) }
	for _, c := range []struct {
		window string
		time   time.Time
		want   bool
	}{
		{"", at(3, 0), true},
		{"22:00-06:00", at(23, 59), true},
		{"22:00-06:00", at(5, 59), true},
		{"22:00-06:00", at(6, 0), false},
		{"22:00-06:00", at(12, 0), false},
		{"09:30-17:00", at(9, 30), true},
		{"09:30-17:00", at(9, 29), false},
		{"09:30-17:00", at(17, 0), false},
	} {
		var w Window
		if err := w.UnmarshalText([]byte(c.window)); err != nil || w.String() != c.window || w.Holds(c.time) != c.want {
			t.Errorf("%s at %v: have %v, %v, written %s", c.window, c.time, w.Holds(c.time), err, w)
		}
	}
	for _, text := range []string{"22:00", "25:00-06:00", "22:00-22:00", "a-b"} {
		if err := new(Window).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// tree writes files below a root.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		write(t, root, path, text)
	}
	return root
}

func write(t *testing.T, root, path, text string) {
	t.Helper()
	full := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// phone is what a phone on a charger in a wireless network says.
func phone(t *testing.T) string {
	return tree(t, map[string]string{
		"sys/class/power_supply/battery/type":       "Battery\n",
		"sys/class/power_supply/battery/status":     "Charging\n",
		"sys/class/power_supply/battery/capacity":   "80\n",
		"sys/class/power_supply/battery/temp":       "312\n",
		"sys/class/power_supply/usb/type":           "USB\n",
		"sys/class/power_supply/usb/online":         "1\n",
		"sys/class/power_supply/mouse/type":         "Battery\n",
		"sys/class/power_supply/mouse/scope":        "Device\n",
		"sys/class/power_supply/mouse/capacity":     "3\n",
		"sys/class/thermal/thermal_zone0/temp":      "41500\n",
		"sys/class/thermal/thermal_zone1/temp":      "-274000\n",
		"proc/net/route":                            "Iface\tDestination\tGateway\nwlan0\t00000000\t0101A8C0\n",
		"sys/class/net/wlan0/uevent":                "DEVTYPE=wlan\nINTERFACE=wlan0\n",
		"proc/stat":                                 "cpu  100 0 100 800 0 0 0 0 0 0\n",
		"proc/self/stat":                            "7 (tune smith) R 1 1 1 0 -1 0 0 0 0 0 50 30 0 0\n",
		"proc/self/status":                          "Name:\tx\nVmRSS:\t  204800 kB\n",
		"proc/meminfo":                              "MemTotal: 4000000 kB\nMemAvailable:   2097152 kB\n",
		"proc/self/cgroup":                          "0::/user/app\n",
		"sys/fs/cgroup/cgroup.controllers":          "cpu memory\n",
		"sys/fs/cgroup/user/memory.max":             "419430400\n",
		"sys/fs/cgroup/user/app/memory.max":         "max\n",
		"sys/fs/cgroup/memory/old/app/ignored_file": "",
	})
}

func TestConditions(t *testing.T) {
	root := phone(t)
	r := &Reader{Root: root}
	c := r.Read()
	if !c.Powered || c.Battery == nil || *c.Battery != 80 || c.Temperature == nil || *c.Temperature != 41.5 || c.Network != "wlan0" || c.Metered ||
		c.Busy != nil || c.RSS != 200<<20 {
		t.Errorf("have %+v", c)
	}
	// Until the next reading 200 ticks pass: 120 are busy, 20 of them by this program.
	write(t, root, "proc/stat", "cpu  200 0 120 880 0 0 0 0 50 0\n")
	write(t, root, "proc/self/stat", "7 (tune smith) R 1 1 1 0 -1 0 0 0 0 0 60 40 0 0\n")
	if c = r.Read(); c.Busy == nil || *c.Busy != 0.5 {
		t.Errorf("want 0.5 of the processors busy, have %+v", c.Busy)
	}
	write(t, root, "sys/class/net/wlan0/uevent", "DEVTYPE=wwan\n")
	write(t, root, "sys/class/power_supply/battery/status", "Discharging\n")
	write(t, root, "sys/class/power_supply/usb/online", "0\n")
	if c = r.Read(); c.Powered || !c.Metered {
		t.Errorf("have %+v", c)
	}
	// A machine that says nothing has power and no limits.
	if c := (&Reader{Root: t.TempDir()}).Read(); !c.Powered || c.Battery != nil || c.Temperature != nil || c.Metered {
		t.Errorf("have %+v", c)
	}
}

func TestCheck(t *testing.T) {
	ten, hot, busy := 10, 50.5, 0.8
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	good := Conditions{Time: noon, Powered: true}
	for _, c := range []struct {
		settings Settings
		change   func(*Conditions)
		spent    time.Duration
		want     string
	}{
		{Settings{Charging: true}, func(*Conditions) {}, 0, ""},
		{Settings{Charging: true}, func(c *Conditions) { c.Powered = false }, 0, "external power"},
		{Settings{MinBattery: 30}, func(c *Conditions) { c.Battery = &ten }, 0, "at 10 %, want at least 30 %"},
		{Settings{MinBattery: 10}, func(c *Conditions) { c.Battery = &ten }, 0, ""},
		{Settings{MaxTemperature: 45}, func(c *Conditions) { c.Temperature = &hot }, 0, "50.5 °C, want at most 45 °C"},
		{Settings{MaxBusy: 0.5}, func(c *Conditions) { c.Busy = &busy }, 0, "other programs use 80 %"},
		{Settings{Unmetered: true}, func(c *Conditions) { c.Network, c.Metered = "wwan0", true }, 0, "wwan0 is metered"},
		{Settings{Window: Window{From: 22 * time.Hour, To: 6 * time.Hour}}, func(*Conditions) {}, 0, "it is 12:00, want a time in 22:00-06:00"},
		{Settings{MaxMinutes: 2}, func(*Conditions) {}, 3 * time.Minute, "worked for 3.0 minutes"},
		{Settings{MaxRSS: 100 << 20}, func(c *Conditions) { c.RSS = 200 << 20 }, 0, "200 MiB are resident, want at most 100 MiB"},
		{Settings{}, func(c *Conditions) { c.Powered, c.Battery, c.Metered, c.RSS = false, &ten, true, 1<<40 }, time.Hour, ""},
	} {
		now := good
		c.change(&now)
		err := c.settings.Check(now, c.spent)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%+v: have %v", c.settings, err)
		case c.want != "" && (!errors.Is(err, ErrDeferred) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: want %q, have %v", c.settings, c.want, err)
		}
	}
}

func TestWatch(t *testing.T) {
	root := phone(t)
	s := Settings{Charging: true}
	ctx, stop, err := s.Watch(t.Context(), &Reader{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if ctx.Err() != nil {
		t.Fatal("the work ended while it was allowed")
	}
	write(t, root, "sys/class/power_supply/battery/status", "Discharging\n")
	write(t, root, "sys/class/power_supply/usb/online", "0\n")
	began := time.Now()
	<-ctx.Done()
	if spent := time.Since(began); spent > time.Second {
		t.Errorf("it took %v to notice", spent)
	}
	if cause := context.Cause(ctx); !errors.Is(cause, ErrDeferred) {
		t.Errorf("have %v", cause)
	}
	if _, _, err := s.Watch(t.Context(), &Reader{Root: root}); !errors.Is(err, ErrDeferred) {
		t.Errorf("work that is not allowed starts: %v", err)
	}
}

func TestLimit(t *testing.T) {
	root := phone(t)
	for _, c := range []struct {
		memory Bytes
		change func()
		want   Bytes
		source string
	}{
		{0, func() {}, 400 << 20, "control group /user"},
		{300 << 20, func() {}, 300 << 20, "settings"},
		{0, func() { write(t, root, "sys/fs/cgroup/user/app/memory.max", "104857600") }, 100 << 20, "control group /user/app"},
		{0, func() {
			write(t, root, "proc/self/cgroup", "5:cpu,memory:/old/app\n")
			write(t, root, "sys/fs/cgroup/memory/old/memory.limit_in_bytes", "209715200\n")
			write(t, root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
		}, 200 << 20, "control group /old"},
		{0, func() { write(t, root, "proc/self/cgroup", "") }, 2 << 30, "available"},
	} {
		c.change()
		l := Settings{Memory: c.memory, Root: root}.Limit()
		if l.Bytes != c.want || !strings.Contains(l.Source, c.source) {
			t.Errorf("want %v of %s, have %v", c.want, c.source, l)
		}
	}
}

// TestBytesRoundTrip: whatever is written is read as the same size.
func TestBytesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Range(0, 1<<50).Draw(t, "size"))
		text, _ := b.MarshalText()
		var again Bytes
		if err := again.UnmarshalText(text); err != nil || again != b {
			t.Fatalf("%d is written as %s and read as %d, %v", b, text, again, err)
		}
	})
}
