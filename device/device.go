// Package device adapts a model on the machine of the person who uses it, within limits that are checked before and
// while it works: memory, power, temperature, time. Adaptations follow one another as generations, each of which is
// kept only if it is better on new data and not worse in general, and each can be taken back.
//
// A device is a directory:
//
//	run.yaml               the run file; its topology section is Settings
//	current                the number of the generation in use, 0 for the bare base
//	generations/000001/    an adapter directory and generation.json, never changed
//	replay.bin             a sample of what was learned, encrypted
//	pending/               an adaptation that is under way or was deferred
package device

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Settings are what a device allows, and how its adaptations follow one another.
type Settings struct {
	Memory Bytes `yaml:"memory" doc:"most memory of an adaptation, such as 400MiB; 0 is what the machine, its control group and GOMEMLIMIT leave" type:"size"`

	Charging       bool    `yaml:"charging" doc:"work only on external power"`
	MinBattery     int     `yaml:"min_battery" doc:"least charge of the battery in percent; 0 is no limit" min:"0" max:"100"`
	MaxTemperature float64 `yaml:"max_temperature" doc:"highest temperature of any sensor in °C; 0 is no limit" min:"0"`
	MaxBusy        float64 `yaml:"max_busy" doc:"largest share of the processors that other programs may use, which tells whether the device is idle; 0 is no limit" min:"0" max:"1"`
	Unmetered      bool    `yaml:"unmetered" doc:"do not work while the network is a metered one"`
	Window         Window  `yaml:"window" doc:"hours of the day in which it may work, such as 22:00-06:00; any where empty" type:"HH:MM-HH:MM"`
	MaxMinutes     float64 `yaml:"max_minutes" doc:"longest time at a stretch in minutes; 0 is no limit" min:"0"`
	MaxRSS         Bytes   `yaml:"max_rss" doc:"most resident memory while it works; 0 is no limit" type:"size"`
	Root           string  `yaml:"root" doc:"folder below which sys and proc stand"`

	Replay     float64 `yaml:"replay" doc:"records replayed from earlier adaptations, as a share of the new ones" min:"0" max:"10"`
	ReplayMost int     `yaml:"replay_most" doc:"most records that the replay buffer holds" min:"0"`
	ReplayDays int     `yaml:"replay_days" doc:"days after which a record leaves the replay buffer; 0 is never" min:"0"`
	KeyFile    string  `yaml:"key_file" doc:"file with the key of the replay buffer; one is made in the device's directory where it is empty"`

	MinGain   float64 `yaml:"min_gain" doc:"least fall of the loss on new held-out data for a generation to be taken" min:"0"`
	MaxForget float64 `yaml:"max_forget" doc:"largest rise of the general loss over that of the bare base for a generation to be taken" min:"0"`
	Keep      int     `yaml:"keep" doc:"generations that are kept, the current one included" min:"1"`
}

// Default returns settings for a device with a battery.
func Default() Settings {
	return Settings{
		Charging: true, MinBattery: 30, MaxTemperature: 70, Unmetered: true, Root: "/",
		Replay: 0.5, ReplayMost: 500, ReplayDays: 90, MaxForget: 0.1, Keep: 3,
	}
}

// Bytes is a size that is written with a unit, such as 400MiB.
type Bytes int64

var units = []struct {
	name string
	size int64
}{{"GIB", 1 << 30}, {"MIB", 1 << 20}, {"KIB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1}}

// UnmarshalText reads a number with a unit, or of bytes.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.ToUpper(strings.ReplaceAll(string(text), " ", ""))
	factor := int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, factor = rest, u.size
			break
		}
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || !(x >= 0) || x*float64(factor) > 1<<62 {
		return fmt.Errorf("want a size such as 400MiB, have %q", text)
	}
	*b = Bytes(x * float64(factor))
	return nil
}

// MarshalText writes the largest binary unit that loses nothing.
func (b Bytes) MarshalText() ([]byte, error) {
	for _, u := range []struct {
		name string
		size Bytes
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if b > 0 && b%u.size == 0 {
			return fmt.Appendf(nil, "%d%s", b/u.size, u.name), nil
		}
	}
	return fmt.Appendf(nil, "%d", b), nil
}

// String writes the size for people.
func (b Bytes) String() string {
	if b < 1<<20 {
		return fmt.Sprintf("%.0f KiB", float64(b)/(1<<10))
	}
	return fmt.Sprintf("%.0f MiB", float64(b)/(1<<20))
}

// Window is a part of the day; it may run over midnight. The zero value is the whole day.
type Window struct{ From, To time.Duration } // since midnight

// UnmarshalText reads HH:MM-HH:MM, or nothing.
func (w *Window) UnmarshalText(text []byte) error {
	*w = Window{}
	if len(text) == 0 {
		return nil
	}
	bad := fmt.Errorf("want HH:MM-HH:MM such as 22:00-06:00, have %q", text)
	from, to, ok := strings.Cut(string(text), "-")
	if !ok {
		return bad
	}
	for _, p := range []struct {
		text string
		at   *time.Duration
	}{{from, &w.From}, {to, &w.To}} {
		t, err := time.Parse("15:04", strings.TrimSpace(p.text))
		if err != nil {
			return bad
		}
		*p.at = time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	}
	if w.From == w.To {
		return bad
	}
	return nil
}

// MarshalText writes HH:MM-HH:MM.
func (w Window) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// String writes HH:MM-HH:MM.
func (w Window) String() string {
	if w == (Window{}) {
		return ""
	}
	return fmt.Sprintf("%02d:%02d-%02d:%02d", int(w.From.Hours()), int(w.From.Minutes())%60, int(w.To.Hours()), int(w.To.Minutes())%60)
}

// Holds reports whether a moment lies in the window, by the moment's own clock.
func (w Window) Holds(t time.Time) bool {
	if w == (Window{}) {
		return true
	}
	at := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second
	if w.From < w.To {
		return at >= w.From && at < w.To
	}
	return at >= w.From || at < w.To
}
