package ratelimit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/ratelimittest"
)

// slow is a pool far away: each request takes up to most, half of it each way.
type slow struct {
	pool *ratelimittest.Pool
	most time.Duration
	mu   sync.Mutex
	rng  *rand.Rand
}

func (k *slow) Wake(ctx context.Context, ring func(rl.Hint)) { k.pool.Wake(ctx, ring) }

func (k *slow) Sync(ctx context.Context, req *rl.Request) (*rl.Reply, error) {
	k.mu.Lock()
	there, back := time.Duration(k.rng.Int64N(int64(k.most/2))), time.Duration(k.rng.Int64N(int64(k.most/2)))
	k.mu.Unlock()
	time.Sleep(there)
	rep, err := k.pool.Sync(ctx, req)
	select {
	case <-time.After(back):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return rep, err
}

// TestWithMuchLeftNobodyIsRefused: of a quota of a thousand million, and a rate
// of half a million, nobody is refused, however often the calls pause and come
// again while the pool takes up to 0.4 s to answer.
func TestWithMuchLeftNobodyIsRefused(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			far := &slow{pool: ratelimittest.NewPool(), most: 400 * time.Millisecond, rng: rand.New(rand.NewPCG(seed, 3))}
			aloneOn(t, far, func(t *testing.T, spend func(...*rl.Limit) (bool, rl.Hold)) {
				began := time.Now()
				var limits []*rl.Limit
				for i := range 8 {
					limits = append(limits, &rl.Limit{ID: fmt.Sprint("day", i), Version: 1, Kind: rl.QuotaDay, Amount: 1_000_000_000},
						&rl.Limit{ID: fmt.Sprint("rate", i), Version: 1, Kind: rl.Rate, Rate: 500_000, Burst: 500_000})
				}
				n := 0
				for range 40 {
					for range 1 + rng.IntN(1000) {
						i := rng.IntN(8)
						n++
						ok, hold := spend(limits[2*i : 2*i+2]...)
						if !ok {
							t.Fatalf("call %d, %v after the start, was refused by limit %d", n, time.Since(began), i)
						}
						hold.Release()
						time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
					}
					time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
				}
			})
		})
	}
}
