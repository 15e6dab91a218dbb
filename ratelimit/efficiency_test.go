package ratelimit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/ratelimittest"
)

// link is a sidecar's way to the pool.
type link struct {
	pool  *ratelimittest.Pool
	rng   *rand.Rand
	mu    sync.Mutex
	away  bool
	calls int
	items int
}

func (k *link) Wake(ctx context.Context, ring func(rl.Hint)) {
	k.pool.Wake(ctx, func(h rl.Hint) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.away {
			ring(h)
		}
	})
}

func (k *link) Sync(ctx context.Context, req *rl.Request) (*rl.Reply, error) {
	k.mu.Lock()
	away := k.away
	k.calls++
	k.items += len(req.Items)
	d := time.Duration(k.rng.Int64N(int64(time.Millisecond))) + 200*time.Microsecond
	k.mu.Unlock()
	time.Sleep(d)
	if away {
		<-ctx.Done()
		return nil, ratelimittest.ErrAway
	}
	rep, err := k.pool.Sync(ctx, req)
	time.Sleep(d)
	return rep, err
}

// meter watches one limit: what passes, and what one bucket for all would let pass.
type meter struct {
	mu                     sync.Mutex
	level, rate, burst     float64
	at                     time.Duration
	offered, passed, ideal int
	ilevel                 float64
	worst                  float64
}

func (m *meter) arrive(now time.Duration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dt := (now - m.at).Seconds()
	m.at = now
	m.level = math.Min(m.level+dt*m.rate, m.burst)
	m.ilevel = math.Min(m.ilevel+dt*m.rate, m.burst)
	m.offered++
	if m.ilevel >= 1 {
		m.ilevel--
		m.ideal++
	}
	if ok {
		m.level--
		m.passed++
		m.worst = math.Min(m.worst, m.level)
	}
}

// Ten sidecars against one bucket, below, at and beyond the limit, with the load
// spread in four ways.
func TestEfficiency(t *testing.T) {
	for _, load := range []float64{0.8, 0.95, 1.0, 1.2, 2} {
		for _, shape := range []string{"even", "zipf", "shifting", "bursty"} {
			t.Run(fmt.Sprintf("%s/%v", shape, load), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { efficiency(t, shape, load) })
			})
		}
	}
}

func efficiency(t *testing.T, shape string, load float64) {
	const n, rate, burst, secs = 10, 1000.0, 1000, 20
	pool := ratelimittest.NewPool()
	start := time.Now()
	elapsed := func() time.Duration { return time.Since(start) + time.Hour }
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var nodes []*rl.Limiter
	var links []*link
	for i := range n {
		k := &link{pool: pool, rng: rand.New(rand.NewPCG(uint64(i), 7))}
		l, err := rl.New(rl.Options{ID: fmt.Sprint("s", i), Pool: k, Elapsed: elapsed})
		if err != nil {
			t.Fatal(err)
		}
		nodes, links = append(nodes, l), append(links, k)
		wg.Go(func() { _ = l.Run(ctx) })
	}
	time.Sleep(3 * time.Second)
	for _, k := range links {
		k.mu.Lock()
		k.calls, k.items = 0, 0
		k.mu.Unlock()
	}
	limit := func() *rl.Limit { return &rl.Limit{ID: "hot", Version: 1, Kind: rl.Rate, Rate: rate, Burst: burst} }
	m := &meter{rate: rate, burst: burst, level: burst, ilevel: burst, at: elapsed(), worst: burst}
	limits := make([]*rl.Limit, n)
	for i := range limits {
		limits[i] = limit()
	}
	rng := rand.New(rand.NewPCG(1, 2))
	weights := make([]float64, n)
	var out rl.Outcome
	end := start.Add((3 + secs) * time.Second)
	for now := time.Now(); now.Before(end); now = time.Now() {
		sec := now.Sub(start).Seconds()
		lam := rate * load
		var sum float64
		for i := range weights {
			switch shape {
			case "even":
				weights[i] = 1
			case "zipf":
				weights[i] = 1 / float64(i+1)
			case "shifting":
				weights[i] = 0.05
				if (int(sec/2)+i)%n < 3 {
					weights[i] = 1
				}
			case "bursty":
				weights[i] = 0.2
				if (int(sec/0.2)*7+i)%n < 2 {
					weights[i] = 4
				}
			}
			sum += weights[i]
		}
		time.Sleep(time.Duration(rng.ExpFloat64() / lam * 1e9))
		x := rng.Float64() * sum
		i := 0
		for ; i < n-1 && x > weights[i]; i++ {
			x -= weights[i]
		}
		e := elapsed()
		ok := nodes[i].Spend(&rl.Query{Elapsed: e, Now: time.Now()}, []*rl.Limit{limits[i]}, &out)
		m.arrive(e, ok)
	}
	calls, items := 0, 0
	cancel()
	wg.Wait()
	for _, k := range links {
		calls += k.calls
		items += k.items
	}
	t.Logf("%-9s %.2f offered %d ideal %d passed %d: false %.2f%% worst %.2f calls/req %.3f items/call %.2f wrong %v", shape, load, m.offered, m.ideal, m.passed,
		100*float64(m.ideal-m.passed)/float64(m.ideal), m.worst, float64(calls)/float64(m.offered), float64(items)/float64(calls), pool.Check())
	if miss := float64(m.ideal-m.passed) / float64(m.ideal); miss > 0.03 {
		t.Errorf("one bucket would have let %.1f %% more pass", 100*miss)
	}
	if perRequest := float64(calls) / float64(m.offered); perRequest > 0.25 || load == 2 && perRequest > 0.075 { // 0.06 is asked for with an outage in it
		t.Errorf("%.3f calls to the pool a request", perRequest)
	}
	if m.worst < 0 {
		t.Errorf("over-admitted by %.2f requests", -m.worst)
	}
	if wrong := pool.Check(); wrong != nil {
		t.Errorf("lent more than there is: %v", wrong)
	}
}
