package ratelimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
)

// withCrew runs f with n sidecars, none of which has used any limit, from noon on.
func withCrew(t *testing.T, n int, f func(c *crew)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(12 * time.Hour)
		c := startCrew(t, n)
		defer c.end()
		f(c)
	})
}

// untilGone is longer than any lease.
const untilGone = 2 * time.Minute

// own is the limit as another process has it.
func own(l *rl.Limit) *rl.Limit {
	return &rl.Limit{ID: l.ID, Version: l.Version, Kind: l.Kind, Rate: l.Rate, Burst: l.Burst, Amount: l.Amount}
}

// slowly spends all there is, and gives the pool time to say so.
func (c *crew) slowly(i int, limit *rl.Limit) (passed int) {
	for range 400 {
		passed += c.spend(i, 10, limit)
		time.Sleep(100 * time.Millisecond)
	}
	return passed
}

// A sidecar that is cut off spends from its standing part of a limit that nobody
// has used yet, and dies unheard. When others use the limit later, what it may have
// spent is not lent to them.
func TestWhatTheDeadMayHaveSpentIsNotLentAgain(t *testing.T) {
	quota := &rl.Limit{ID: "q", Version: 1, Kind: rl.QuotaDay, Amount: 10}
	larger := &rl.Limit{ID: "q", Version: 2, Kind: rl.QuotaDay, Amount: 2000}
	slow := &rl.Limit{ID: "r", Version: 1, Kind: rl.Rate, Rate: 0.05, Burst: 100} // half an hour until it is whole
	for name, c := range map[string]struct {
		limit *rl.Limit
		most  int // that may pass, to the end
		least int // that should all the same
		do    func(t *testing.T, c *crew) (passed int)
	}{
		"nobody takes its place": {limit: quota, most: 10, least: 9, do: func(_ *testing.T, c *crew) int {
			c.cutOff(1)
			n := c.spend(1, 1, own(quota))
			c.kill(1)
			time.Sleep(untilGone)
			return n
		}},
		"it comes back with another tenure": {limit: quota, most: 10, least: 9, do: func(_ *testing.T, c *crew) int {
			c.cutOff(1)
			n := c.spend(1, 1, own(quota))
			time.Sleep(untilGone)
			c.wires[1].up.resume()
			time.Sleep(3 * time.Second)
			return n + c.spend(1, 50, own(quota))
		}},
		"somebody takes its place": {limit: quota, most: 10, least: 9, do: func(t *testing.T, c *crew) int {
			c.cutOff(1)
			n := c.spend(1, 1, own(quota))
			c.kill(1)
			time.Sleep(untilGone)
			c.begin(t, 3, false)
			time.Sleep(3 * time.Second)
			return n + c.spend(3, 50, own(quota))
		}},
		"one after the other": {limit: quota, most: 10, least: 8, do: func(_ *testing.T, c *crew) (n int) {
			for i := range 2 {
				c.cutOff(i + 1)
				n += c.spend(i+1, 1, own(quota))
				c.kill(i + 1)
				time.Sleep(untilGone)
			}
			return n
		}},
		"all die, and another fleet begins": {limit: quota, most: 10, least: 7, do: func(t *testing.T, c *crew) (n int) {
			for i := range 3 {
				c.cutOff(i)
				n += c.spend(i, 1, own(quota))
				c.kill(i)
			}
			time.Sleep(untilGone)
			c.begin(t, 3, false)
			time.Sleep(untilGone)
			return n
		}},
		"it knew of a larger quota": {limit: larger, most: 2000, least: 1990, do: func(_ *testing.T, c *crew) int {
			c.cutOff(1)
			n := c.spend(1, 50, own(larger))
			c.kill(1)
			time.Sleep(untilGone)
			return n + c.spend(0, 5, own(quota))
		}},
		"a rate that returns slowly": {limit: slow, most: 100 + 9, least: 100, do: func(_ *testing.T, c *crew) int {
			c.cutOff(1)
			n := c.spend(1, 50, own(slow))
			c.kill(1)
			time.Sleep(untilGone)
			return n
		}},
	} {
		t.Run(name, func(t *testing.T) {
			withCrew(t, 3, func(c2 *crew) {
				passed := c.do(t, c2)
				if passed == 0 {
					t.Fatal("it spent nothing: nothing is tried")
				}
				last := 0
				if len(c2.nodes) > 3 {
					last = 3
				}
				passed += c2.slowly(last, own(c.limit))
				if passed > c.most || passed < c.least {
					t.Errorf("%d passed, want %d to %d", passed, c.least, c.most)
				}
			})
		})
	}
}

// What the dead may have spent is held back for as long as it matters: of a quota
// until the next day, of a rate until it has come back.
func TestTheDeadAreForgottenInTime(t *testing.T) {
	withCrew(t, 3, func(c *crew) {
		quota := &rl.Limit{ID: "q", Version: 1, Kind: rl.QuotaDay, Amount: 10}
		rate := &rl.Limit{ID: "r", Version: 1, Kind: rl.Rate, Rate: 0.05, Burst: 100}
		c.cutOff(1)
		c.spend(1, 1, own(quota))
		c.spend(1, 50, own(rate))
		c.kill(1)
		time.Sleep(13 * time.Hour)
		if n := c.slowly(0, own(quota)); n != 10 {
			t.Errorf("%d of 10 passed on the next day", n)
		}
		if n := c.slowly(0, own(rate)); n < 100 {
			t.Errorf("%d of 100 passed when all had come back", n)
		}
	})
}

// A sidecar that is cut off and has its clock set ahead spends nothing from the
// days to come: were it to die, nobody would know. One that is heard asks the pool.
func TestNothingIsSpentFromDaysThePoolWasNotToldOf(t *testing.T) {
	withCrew(t, 2, func(c *crew) {
		quota := &rl.Limit{ID: "q", Version: 1, Kind: rl.QuotaDay, Amount: 10}
		c.cutOff(1)
		c.walls[1].Store(int64(36 * time.Hour))
		if n := c.spend(1, 5, own(quota)); n != 0 {
			t.Errorf("%d passed on a day that nobody else is in", n)
		}
		c.wires[1].up.resume()
		time.Sleep(3 * time.Second)
		if n := c.slowly(1, own(quota)); n != 8 {
			t.Errorf("%d of 10 passed when it was heard, want all but its standing part and the other's", n)
		}
	})
}

// A sidecar's part of a quota was larger before others came. What it had not spent
// from that is the pool's to lend when it is heard.
func TestWhatWasNotSpentFromALargerPartIsLent(t *testing.T) {
	withCrew(t, 1, func(c *crew) {
		other := &rl.Limit{ID: "other", Version: 1, Kind: rl.QuotaDay, Amount: 500}
		quota := &rl.Limit{ID: "q", Version: 1, Kind: rl.QuotaDay, Amount: 500}
		c.spend(0, 1, own(other)) // its part is not whole any more, as far as the pool knows
		c.begin(t, 1, false)
		time.Sleep(3 * time.Second)
		if n := c.slowly(0, own(quota)); n != 498 {
			t.Errorf("%d of 500 passed, want all but the 2 of the other's standing part", n)
		}
	})
}
