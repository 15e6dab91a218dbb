package ratelimit_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/ratelimit"
)

// forgetful is a pool that fails over to a copy that has never heard of who
// joined last.
type forgetful struct {
	mu   sync.Mutex
	asks []ratelimit.Request
}

func (p *forgetful) Sync(_ context.Context, req *ratelimit.Request) (*ratelimit.Reply, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks = append(p.asks, *req)
	tenure := uint64(7)
	if len(p.asks) > 3 {
		tenure = 9
	}
	return &ratelimit.Reply{Tenure: tenure, Items: make([]ratelimit.ItemReply, len(req.Items))}, nil
}

// A sidecar that is killed, started again and then lost from the pool in a
// failover finds its dead predecessor there once more. Were it not told again that
// that one has ended, it would have to wait out what it held, and not be ready.
func TestWhoIsSeatedAnewSaysThatItsPredecessorEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := &forgetful{}
		l, err := ratelimit.New(ratelimit.Options{ID: "s", Alone: true, Pool: p, Elapsed: func() time.Duration { return time.Hour + time.Since(began) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) })
		time.Sleep(10 * time.Second)
		cancel()
		running.Wait()
		lost := false
		for _, r := range p.asks {
			if lost = lost || r.Tenure == 9; !r.Leave && !r.Dead {
				t.Fatalf("a request of tenure %d, which the pool may have lost, does not say it", r.Tenure)
			}
		}
		if !lost {
			t.Error("it was never seated anew")
		}
	})
}
