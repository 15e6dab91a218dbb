package ratelimit_test

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/ratelimittest"
)

// pair is two sidecars on one pool; the wall clock of the second can be set.
type pair struct {
	t       *testing.T
	began   time.Time
	wall    atomic.Int64 // how far the second one's is off, in nanoseconds
	nodes   [2]*rl.Limiter
	limits  [2]*rl.Limit
	subject uint64
}

// inPairs runs f with two sidecars that share a limit.
func inPairs(t *testing.T, kind rl.Kind, amount int64, f func(p *pair)) {
	synctest.Test(t, func(t *testing.T) {
		p := &pair{t: t, began: time.Now()}
		pool := ratelimittest.NewPool()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		for i, name := range []string{"first", "second"} {
			p.limits[i] = &rl.Limit{ID: "day", Version: 1, Kind: kind, Amount: amount}
			l, err := rl.New(rl.Options{ID: name, Pool: pool, Elapsed: p.elapsed, Now: func() time.Time { return p.now(i) }})
			if err != nil {
				t.Fatal(err)
			}
			p.nodes[i] = l
			running.Go(func() { _ = l.Run(ctx) })
			for !l.Ready() {
				time.Sleep(time.Millisecond)
			}
			p.spend(i, 1) // the second one joins when the limit is in use
		}
		f(p)
	})
}

func (p *pair) elapsed() time.Duration { return time.Since(p.began) + time.Hour }

func (p *pair) now(i int) time.Time {
	return time.Now().Add(time.Duration(int64(i) * p.wall.Load()))
}

// spend makes n requests a millisecond apart, each of a subject of its own,
// and counts those that pass.
func (p *pair) spend(i, n int) (passed int) {
	var out rl.Outcome
	for range n {
		p.subject++
		q := rl.Query{Elapsed: p.elapsed(), Now: p.now(i)}
		binary.BigEndian.PutUint64(q.Subject[:], p.subject)
		if p.nodes[i].Spend(&q, []*rl.Limit{p.limits[i]}, &out) {
			passed++
		}
		time.Sleep(time.Millisecond)
	}
	return passed
}

// A sidecar that joined when a limit was in use spends of a day's quota, has its
// clock set a day ahead, drops the account of the day that nobody uses there, and
// has the clock set back. What it spent of the day is spent: an account made anew
// does not say that it was nothing, and that all of it comes back.
func TestADayDroppedWhileTheClockWasAheadStaysSpent(t *testing.T) {
	for _, kind := range []rl.Kind{rl.QuotaDay, rl.DistinctDay} {
		t.Run(kind.String(), func(t *testing.T) {
			const amount = 4000
			inPairs(t, kind, amount, func(p *pair) {
				passed := 2 + p.spend(1, 1500)
				time.Sleep(1500 * time.Millisecond)
				p.wall.Store(int64(24 * time.Hour))
				time.Sleep(3 * time.Second)
				if n := p.nodes[1].Len(); n != 0 {
					t.Fatalf("%d accounts are kept of a day that nobody uses: nothing is tried", n)
				}
				p.wall.Store(0)
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
