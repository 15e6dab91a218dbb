package ratelimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
)

// pair is two sidecars on one pool that share a limit.
type pair struct {
	*crew
	limits [2]*rl.Limit
}

// inPairs runs f with two sidecars that share a limit. The second one joins when
// that is in use already, or not.
func inPairs(t *testing.T, kind rl.Kind, amount int64, inUse bool, f func(p *pair)) {
	synctest.Test(t, func(t *testing.T) {
		p := &pair{crew: startCrew(t, 0)}
		defer p.end()
		for i := range p.limits {
			p.limits[i] = &rl.Limit{ID: "day", Version: 1, Kind: kind, Amount: amount}
			p.begin(t, i, false)
			for !p.nodes[i].Ready() {
				time.Sleep(time.Millisecond)
			}
			if inUse {
				p.spend(i, 1)
			}
		}
		f(p)
	})
}

// spend makes n requests of one sidecar and counts those that pass.
func (p *pair) spend(i, n int) (passed int) { return p.crew.spend(i, n, p.limits[i]) }

// A sidecar that joined when a limit was in use spends of a day's quota, has its
// clock set ahead into the next day, drops the account of the day that nobody uses there, and
// has the clock set back. What it spent of the day is spent: an account made anew
// does not say that it was nothing, and that all of it comes back.
func TestADayDroppedWhileTheClockWasAheadStaysSpent(t *testing.T) {
	for _, kind := range []rl.Kind{rl.QuotaDay, rl.DistinctDay} {
		t.Run(kind.String(), func(t *testing.T) {
			const amount = 4000
			inPairs(t, kind, amount, true, func(p *pair) {
				time.Sleep(24*time.Hour - 40*time.Second)
				passed := 2 + p.spend(1, 1500)
				time.Sleep(1500 * time.Millisecond)
				p.walls[1].Store(int64(time.Minute))
				time.Sleep(3 * time.Second)
				if n := p.nodes[1].Len(); n != 0 {
					t.Fatalf("%d accounts are kept of a day that nobody uses: nothing is tried", n)
				}
				p.walls[1].Store(0)
				for range 20 {
					passed += p.spend(1, 200) + p.spend(0, 200)
				}
				if passed > amount || passed < amount-200 { // but for what it held when the clock was set
					t.Errorf("%d of %d passed on the day", passed, amount)
				}
			})
		})
	}
}

// While the pool is away a sidecar spends its standing part of a quota, which
// nobody has used yet, and its clock is set a day ahead and back. It does not know
// then what it spent, and the pool that hears of the quota for the first time does
// not lend that part again.
func TestAStandingPartSpentBeforeAJumpIsNotLentAgain(t *testing.T) {
	for _, kind := range []rl.Kind{rl.QuotaDay, rl.DistinctDay} {
		t.Run(kind.String(), func(t *testing.T) {
			const amount = 10
			inPairs(t, kind, amount, false, func(p *pair) {
				p.wires[0].up.stop()
				p.wires[1].up.stop()
				time.Sleep(2 * time.Second) // it only asks whether the pool is there
				passed := p.spend(0, 1)
				p.walls[0].Store(int64(24 * time.Hour))
				p.spend(0, 1)
				p.walls[0].Store(0)
				if passed != 1 {
					t.Fatal("there is no standing part: nothing is tried")
				}
				p.wires[0].up.resume()
				passed += p.spend(0, 200) // so that the pool hears of it from the one that does not know
				p.wires[1].up.resume()
				for range 100 {
					time.Sleep(200 * time.Millisecond)
					passed += p.spend(0, 5) + p.spend(1, 5)
				}
				if passed != amount {
					t.Errorf("%d of %d passed on the day", passed, amount)
				}
			})
		})
	}
}

// A notice that a quota is short does not say in which zone its days begin. Who
// heard of the quota that way first counts by the quota's days all the same, when
// those of UTC have another name and when only their ends differ.
func TestDaysHeardOfByNoticeBeginInTheirZone(t *testing.T) {
	for name, hours := range map[string]struct{ at, later time.Duration }{"another name": {14, 24}, "the same name": {1, 13}} {
		t.Run(name, func(t *testing.T) {
			const amount = 100
			inPairs(t, rl.QuotaDay, amount, false, func(p *pair) {
				for i := range p.limits {
					p.limits[i] = &rl.Limit{ID: "zoned", Version: 1, Kind: rl.QuotaDay, Amount: amount, Zone: time.FixedZone("east", 11*3600)}
				}
				passed := map[string]int{}
				spend := func(i int) (n int) {
					day, _, _ := p.limits[i].Period(p.now(i))
					for range 50 {
						n += p.spend(i, 10)
						time.Sleep(200 * time.Millisecond)
					}
					passed[day] += n
					return n
				}
				time.Sleep(hours.at * time.Hour)
				spend(0)
				if p.nodes[1].Len() == 0 {
					t.Fatal("the other one did not hear of it: nothing is tried")
				}
				spend(1)
				time.Sleep(hours.later * time.Hour)
				if spend(1) == 0 {
					t.Error("the next day has not begun")
				}
				spend(0)
				if len(passed) != 2 {
					t.Errorf("%d days, want 2", len(passed))
				}
				for day, n := range passed {
					if n > amount || n < amount-5 {
						t.Errorf("%d of %d passed on %s", n, amount, day)
					}
				}
			})
		})
	}
}
