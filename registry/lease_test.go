package registry

import (
	"testing"
	"time"
)

func TestBootClockGoesOnWhileTheMachineIsSuspended(t *testing.T) {
	var mono, stepped, asleep time.Duration
	asked := 0
	now := newBootClock(
		func() (time.Duration, time.Duration) { return 1e18 + mono + asleep + stepped, mono },
		func() time.Duration { asked++; return time.Hour + mono + asleep },
	)
	check := func(what string, wantAsked int) {
		t.Helper()
		if got := now(); got != time.Hour+mono+asleep || asked != wantAsked {
			t.Errorf("%s: %v, asked %d times; want %v, %d", what, got, asked, time.Hour+mono+asleep, wantAsked)
		}
	}
	mono = time.Second
	check("a second passed", 1)
	asleep = 5 * time.Second // on the wall and the boot clock, not on the monotonic one
	check("suspended", 2)
	mono += time.Minute
	check("a minute after", 2)
	stepped = -30 * time.Second
	check("the wall clock was set back", 3)
	stepped = 3 * time.Hour
	check("and forward", 4)
	mono += time.Hour
	check("an hour after", 4)
}

func TestBootClockAgreesWithTheKernel(t *testing.T) {
	now := NewBootClock()
	before, got, after := BootTime(), now(), BootTime()
	if got < before-2*bootDrift || got > after+2*bootDrift {
		t.Errorf("%v, the kernel says %v to %v", got, before, after)
	}
}

func TestFresh(t *testing.T) {
	s := &Served{ShortUntil: 2 * time.Second, LongUntil: time.Minute}
	for _, c := range []struct {
		s    *Served
		risk Risk
		now  time.Duration
		want bool
	}{
		{s, 4, 2*time.Second - 1, true}, {s, 4, 2 * time.Second, false}, {s, 3, 2 * time.Second, false},
		{s, 0, 2 * time.Second, false}, {s, 200, 2 * time.Second, false}, // an unknown rating is the worst
		{s, 1, time.Minute - 1, true}, {s, 2, 2 * time.Second, true}, {s, 2, time.Minute, false},
		{nil, 1, 0, false}, {&Served{}, 1, 0, false},
	} {
		if got := c.s.Fresh(c.risk, c.now); got != c.want {
			t.Errorf("rating %d at %v: %t", c.risk, c.now, got)
		}
	}
}
