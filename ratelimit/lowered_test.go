package ratelimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
)

// TestAQuotaLoweredBelowWhatWasUsedLetsNothingMorePass: a second after the change.
func TestAQuotaLoweredBelowWhatWasUsedLetsNothingMorePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCrew(t, 2)
		defer c.end()
		limit := func(version uint64, amount int64) [2]*rl.Limit {
			mk := func() *rl.Limit {
				return &rl.Limit{ID: "product:P:zz/quota-day", Version: version, Kind: rl.QuotaDay, Amount: amount}
			}
			return [2]*rl.Limit{mk(), mk()}
		}
		both := func(l [2]*rl.Limit, n int) (passed int) {
			for range n {
				passed += c.spend(0, 1, l[0]) + c.spend(1, 1, l[1])
				time.Sleep(20 * time.Millisecond)
			}
			return passed
		}
		first := limit(1, 20)
		used := 0
		for used < 10 {
			used += c.spend(used%2, 1, first[used%2])
			time.Sleep(20 * time.Millisecond)
		}
		lower := limit(2, 5)
		time.Sleep(2 * time.Second)
		if n := both(lower, 100); n != 0 {
			t.Errorf("%d of 20 were used; lowered to 5, %d more passed", used, n)
		}
		if n := both(limit(3, 12), 100); used+n > 12 {
			t.Errorf("raised to 12: %d passed of it, with the %d before", n, used)
		}
	})
}
