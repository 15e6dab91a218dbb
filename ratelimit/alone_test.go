package ratelimit_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/ratelimittest"
)

// alone runs f with one sidecar on a pool.
func alone(t *testing.T, f func(t *testing.T, spend func(...*rl.Limit) (bool, rl.Hold))) {
	t.Helper()
	aloneOn(t, &link{pool: ratelimittest.NewPool(), rng: rand.New(rand.NewPCG(1, 2))}, f)
}

// aloneOn runs f with one sidecar on this pool.
func aloneOn(t *testing.T, pool rl.Pool, f func(t *testing.T, spend func(...*rl.Limit) (bool, rl.Hold))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		elapsed := func() time.Duration { return time.Since(began) + time.Hour }
		l, err := rl.New(rl.Options{ID: "one", Pool: pool, Elapsed: elapsed})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = l.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		for !l.Ready() {
			time.Sleep(time.Millisecond)
		}
		f(t, func(limits ...*rl.Limit) (bool, rl.Hold) {
			var out rl.Outcome
			ok := l.Spend(&rl.Query{Elapsed: elapsed(), Now: time.Now()}, limits, &out)
			return ok, out.Hold()
		})
	})
}

// TestAloneCallsAtOnceComeInBursts: a sidecar that nobody shares a limit with
// does not give away what the next burst needs.
func TestAloneCallsAtOnceComeInBursts(t *testing.T) {
	alone(t, func(t *testing.T, spend func(...*rl.Limit) (bool, rl.Hold)) {
		limit := &rl.Limit{ID: "at-once", Version: 1, Kind: rl.Concurrency, Amount: 100}
		for range 300 { // a few at a time, for three seconds
			ok, hold := spend(limit)
			if !ok {
				t.Fatal("refused with one of a hundred under way")
			}
			time.Sleep(10 * time.Millisecond)
			hold.Release()
		}
		var holds []rl.Hold
		for i := range 100 {
			if i%50 == 0 {
				time.Sleep(50 * time.Millisecond) // half is there at once, the rest after asking
			}
			ok, hold := spend(limit)
			if !ok && i < 50 {
				t.Fatalf("refused with %d of a hundred under way", i)
			}
			for ; !ok; ok, hold = spend(limit) {
				time.Sleep(10 * time.Millisecond)
			}
			holds = append(holds, hold)
		}
		if ok, _ := spend(limit); ok {
			t.Error("one more than a hundred at once")
		}
		for _, h := range holds {
			h.Release()
		}
	})
}

// TestAloneASmallQuotaIsThereWhenAskedFor: of calls some milliseconds apart the
// first get most of a quota of five, one after the other, and all get all of it.
func TestAloneASmallQuotaIsThereWhenAskedFor(t *testing.T) {
	alone(t, func(t *testing.T, spend func(...*rl.Limit) (bool, rl.Hold)) {
		limit := &rl.Limit{ID: "day", Version: 1, Kind: rl.QuotaDay, Amount: 5}
		passed := 0
		for i := range 20 {
			ok, _ := spend(limit)
			if ok {
				passed++
			} else if i < 4 {
				t.Errorf("call %d of a quota of 5 was refused", i+1)
			}
			time.Sleep(30 * time.Millisecond)
		}
		if passed != 5 {
			t.Errorf("%d of a quota of 5 passed", passed)
		}
	})
}
