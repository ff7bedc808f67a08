package device

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrDeferred is work that stopped, or did not start, because the device's settings do not allow it now. What was
// reached is kept, and the same command goes on with it.
var ErrDeferred = errors.New("deferred")

// Check returns why the settings do not allow work under the conditions, nil where they do. spent is the time since
// the work began.
func (s Settings) Check(c Conditions, spent time.Duration) error {
	var why string
	switch {
	case s.Charging && !c.Powered:
		why = "the device is not on external power"
	case s.MinBattery > 0 && c.Battery != nil && *c.Battery < s.MinBattery:
		why = fmt.Sprintf("the battery is at %d %%, want at least %d %%", *c.Battery, s.MinBattery)
	case s.MaxTemperature > 0 && c.Temperature != nil && *c.Temperature > s.MaxTemperature:
		why = fmt.Sprintf("a sensor is at %.1f °C, want at most %g °C", *c.Temperature, s.MaxTemperature)
	case s.MaxBusy > 0 && c.Busy != nil && *c.Busy > s.MaxBusy:
		why = fmt.Sprintf("other programs use %.0f %% of the processors, want at most %.0f %%", 100**c.Busy, 100*s.MaxBusy)
	case s.Unmetered && c.Metered:
		why = fmt.Sprintf("the network %s is metered", c.Network)
	case !s.Window.Holds(c.Time):
		why = fmt.Sprintf("it is %s, want a time in %s", c.Time.Format("15:04"), s.Window)
	case s.MaxMinutes > 0 && spent > time.Duration(s.MaxMinutes*float64(time.Minute)):
		why = fmt.Sprintf("it has worked for %.1f minutes, want at most %g at a stretch", spent.Minutes(), s.MaxMinutes)
	case s.MaxRSS > 0 && c.RSS > s.MaxRSS:
		why = fmt.Sprintf("%s are resident, want at most %s", c.RSS, s.MaxRSS)
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrDeferred, why)
}

// interval is how often the conditions are read while work is under way. With a step that is left between two
// operations and a checkpoint of a few megabytes, work ends within two seconds of a change.
const interval = 250 * time.Millisecond

// Watch reads the conditions at once, and again and again until stop is called. When the settings do not allow the
// work any more the context ends, with what Check says as its cause.
func (s Settings) Watch(parent context.Context, r *Reader) (ctx context.Context, stop func(), err error) {
	began := r.now()
	if err := s.Check(r.Read(), 0); err != nil {
		return parent, func() {}, err
	}
	ctx, cancel := context.WithCancelCause(parent)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := s.Check(r.Read(), r.now().Sub(began)); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return ctx, func() {
		close(done)
		<-ended
		cancel(nil)
	}, nil
}
