package registry

import (
	"sync/atomic"
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
// on that one would outlive a virtual machine's pause. It is a system call,
// about 260 ns: NewBootClock is for the request path.
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("registry: no CLOCK_BOOTTIME: " + err.Error()) // Linux has had it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// bootDrift is how far the wall clock and the monotonic clock may differ in
// what they say has passed before the boot clock is asked itself.
const bootDrift = time.Millisecond

// bootAnchor is one instant on all three clocks.
type bootAnchor struct{ wall, mono, boot time.Duration }

// NewBootClock returns a clock that agrees with BootTime to about bootDrift and
// costs what time.Now does, about 50 ns. It goes by the monotonic clock for as
// long as the wall clock agrees with that; after a suspension, which only the
// wall clock and the boot clock count, they differ, and it asks BootTime.
func NewBootClock() func() time.Duration {
	base := time.Now()
	return newBootClock(func() (wall, mono time.Duration) {
		t := time.Now()
		return time.Duration(t.UnixNano()), t.Sub(base)
	}, BootTime)
}

func newBootClock(now func() (wall, mono time.Duration), boot func() time.Duration) func() time.Duration {
	var anchor atomic.Pointer[bootAnchor]
	anchor.Store(dropAnchor(now, boot))
	return func() time.Duration {
		a := anchor.Load()
		wall, mono := now()
		if drift := (wall - a.wall) - (mono - a.mono); drift > bootDrift || drift < -bootDrift {
			a = dropAnchor(now, boot)
			anchor.Store(a)
			return a.boot
		}
		return a.boot + mono - a.mono
	}
}

// dropAnchor reads the clocks together: again when it was interrupted between.
func dropAnchor(now func() (wall, mono time.Duration), boot func() time.Duration) *bootAnchor {
	for tries := 0; ; tries++ {
		a := &bootAnchor{}
		a.wall, a.mono = now()
		a.boot = boot()
		if _, mono := now(); mono-a.mono < 100*time.Microsecond || tries == 5 {
			return a
		}
	}
}
