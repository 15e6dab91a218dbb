package registry

import (
	"time"

	"golang.org/x/sys/unix"
)

// Served is what a sidecar answers from: a View and how long it may. It is
// immutable; a Mirror swaps in another at every successful poll.
type Served struct {
	View *View
	// ShortUntil and LongUntil are when the serving leases end, in the time of
	// the Mirror's clock: for risk ratings 3–4 (and any unknown) and 1–2. Both are
	// counted from the instant the last successful poll was sent, not answered: a
	// slow answer would stretch them. Zero when none was ever held.
	ShortUntil, LongUntil time.Duration
}

// Fresh tells whether a service of a risk rating may still be answered from the
// View at an instant of the Mirror's clock. A nil Served is never fresh.
func (s *Served) Fresh(risk Risk, now time.Duration) bool {
	if s == nil {
		return false
	}
	if risk.Short() {
		return now < s.ShortUntil
	}
	return now < s.LongUntil
}

// BootTime reads CLOCK_BOOTTIME: time since the machine started, going on
// while it is suspended, which Go's monotonic clock does not. A lease counted
// on that one would outlive a virtual machine's pause.
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("registry: no CLOCK_BOOTTIME: " + err.Error()) // Linux has had it since 2.6.39
	}
	return time.Duration(ts.Nano())
}
