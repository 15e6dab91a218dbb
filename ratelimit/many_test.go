package ratelimit_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
)

// A hundred thousand products have a limit each. One that nobody uses costs
// nothing; one used now and then costs some memory while it is used, and no call
// to the pool; ten seconds after, nothing of it is left.
func TestAHundredThousandLimitsCostNothingIdle(t *testing.T) {
	n := int64(100_000)
	if testing.Short() {
		n = 10_000
	}
	limits := make([]*rl.Limit, n)
	for i := range limits {
		limits[i] = &rl.Limit{ID: fmt.Sprintf("product/FP-%06d/PROD/rate", i), Version: 1, Kind: rl.Rate, Rate: 50, Burst: 100}
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	synctest.Test(t, func(t *testing.T) {
		c := startCrew(t, 1)
		defer c.end()
		before := heap()
		var out rl.Outcome
		calls := c.wires[0].count()
		for _, l := range limits {
			if !c.nodes[0].Spend(&rl.Query{Elapsed: c.elapsed(), Now: time.Now()}, []*rl.Limit{l}, &out) {
				t.Fatal("refused the first call")
			}
		}
		perLimit := (heap() - before) / n
		time.Sleep(10 * time.Second)
		during := c.wires[0].count() - calls
		left, records := c.nodes[0].Len(), c.pool.Records()
		calls = c.wires[0].count()
		time.Sleep(10 * time.Second)
		idle := c.wires[0].count() - calls
		t.Logf("%d bytes a limit in use; %d calls to the pool in 10 s of each having been used once, %d in 10 s of none", perLimit, during, idle)
		if left != 0 || records != 0 {
			t.Errorf("%d accounts and %d records are left", left, records)
		}
		if perLimit > 2048 {
			t.Errorf("%d bytes a limit in use", perLimit)
		}
		if during > 15 || idle > 15 {
			t.Errorf("%d and %d calls to the pool: more than its heartbeat", during, idle)
		}
	})
	runtime.KeepAlive(limits)
}
