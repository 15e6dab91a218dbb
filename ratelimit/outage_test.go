package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/ratelimittest"
)

// wire is a sidecar's way to a pool that may stop, as a process does: what was
// sent meanwhile arrives when it goes on.
type wire struct {
	pool  *ratelimittest.Pool
	up    *gate
	rng   *rand.Rand
	mu    sync.Mutex
	dead  bool // the sidecar was killed
	calls int
}

// gate is shut while the pool is stopped.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // closed when it opens again; nil while it is open
}

func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut = nil
}

func (g *gate) wait() (stopped <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

func (k *wire) Wake(ctx context.Context, ring func(rl.Hint)) { k.pool.Wake(ctx, ring) }

// kill ends what is sent, and tells how much was.
func (k *wire) kill() (calls int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dead = true
	return k.calls
}

// count is how many requests were sent so far.
func (k *wire) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls
}

func (k *wire) Sync(ctx context.Context, req *rl.Request) (*rl.Reply, error) {
	k.mu.Lock()
	dead := k.dead
	k.calls++
	there := 200*time.Microsecond + time.Duration(k.rng.ExpFloat64()*float64(time.Millisecond))
	back := 200*time.Microsecond + time.Duration(k.rng.ExpFloat64()*float64(time.Millisecond))
	k.mu.Unlock()
	if dead {
		return nil, errors.New("killed")
	}
	c := *req
	c.Items = append([]rl.Item(nil), req.Items...)
	time.Sleep(there)
	if shut := k.up.wait(); shut != nil {
		go func() {
			<-shut
			_, _ = k.pool.Sync(context.Background(), &c)
		}()
		<-ctx.Done()
		return nil, ratelimittest.ErrAway
	}
	rep, err := k.pool.Sync(ctx, &c)
	time.Sleep(back)
	return rep, err
}

// weight is how much of the load a sidecar of n gets, relative to the others.
func weight(shape string, i, n int, seconds float64) float64 {
	switch shape {
	case "zipf":
		return 1 / float64(i+1)
	case "shifting":
		if (3*int(seconds/8)+i)%n < 3 {
			return 1
		}
		return 0.05
	case "bursty":
		if (int(seconds/0.2)*7+i)%n < 2 {
			return 4
		}
	}
	return 0.25
}

// Ten sidecars, one of which is killed, and five seconds without the pool: what
// one bucket that knew of neither would have let pass, they let pass too, but for
// a little.
func TestEfficiencyThroughAnOutage(t *testing.T) {
	var ideal, passed int
	for _, load := range []float64{0.8, 1.2, 2} {
		for _, shape := range []string{"zipf", "shifting", "bursty"} {
			synctest.Test(t, func(t *testing.T) {
				m, calls := throughOutage(t, shape, load)
				t.Logf("%-9s %.1f: %d of %d, %.2f %% missed, %.3f calls a request", shape, load, m.passed, m.ideal, 100*float64(m.ideal-m.passed)/float64(m.ideal), float64(calls)/float64(m.offered))
				ideal, passed = ideal+m.ideal, passed+m.passed
				if m.worst < 0 {
					t.Errorf("%s at %v: over-admitted by %.2f requests", shape, load, -m.worst)
				}
				if miss := float64(m.ideal-m.passed) / float64(m.ideal); miss > 0.018 {
					t.Errorf("%s at %v: one bucket would have let %.1f %% more pass", shape, load, 100*miss)
				}
			})
		}
	}
	if miss := float64(ideal-passed) / float64(ideal); miss > 0.009 {
		t.Errorf("one bucket would have let %.2f %% more pass", 100*miss)
	}
}

func throughOutage(t *testing.T, shape string, load float64) (m *meter, calls int) {
	const n, rate, burst, life = 10, 1000.0, 1000, 24 * time.Second
	start := time.Now()
	elapsed := func() time.Duration { return time.Since(start) + time.Hour }
	pool, up := ratelimittest.NewPool(), &gate{}
	var running sync.WaitGroup
	nodes, wires, stops := make([]*rl.Limiter, n), make([]*wire, n), make([]context.CancelFunc, n)
	begin := func(i int) {
		k := &wire{pool: pool, up: up, rng: rand.New(rand.NewPCG(uint64(i), 7))}
		l, err := rl.New(rl.Options{ID: fmt.Sprint("s", i), Alone: true, Pool: k, Elapsed: elapsed})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		nodes[i], wires[i], stops[i] = l, k, cancel
		running.Go(func() { _ = l.Run(ctx) })
	}
	limits := make([]*rl.Limit, n)
	for i := range n {
		begin(i)
		limits[i] = &rl.Limit{ID: "hot", Version: 1, Kind: rl.Rate, Rate: rate, Burst: burst}
	}
	time.Sleep(3 * time.Second)
	for _, k := range wires {
		k.mu.Lock()
		k.calls = 0
		k.mu.Unlock()
	}
	from := time.Now()
	events := []struct {
		at time.Duration
		do func()
	}{
		{life / 5, func() { calls += wires[1].kill(); stops[1](); begin(1) }},
		{life * 2 / 5, up.stop},
		{life*2/5 + 5*time.Second, up.resume},
	}
	m = &meter{rate: rate, burst: burst, level: burst, ilevel: burst, at: elapsed(), worst: burst}
	rng := rand.New(rand.NewPCG(1, 2))
	var out rl.Outcome
	for time.Since(from) < life {
		time.Sleep(time.Duration(rng.ExpFloat64() / (rate * load) * 1e9))
		at := time.Since(from)
		if len(events) > 0 && at >= events[0].at {
			events[0].do()
			events = events[1:]
		}
		i := pick(rng, shape, n, at.Seconds())
		now := elapsed()
		m.arrive(now, nodes[i].Spend(&rl.Query{Elapsed: now, Now: time.Now()}, limits[i:i+1], &out))
	}
	for i := range n {
		calls += wires[i].kill()
		stops[i]()
	}
	running.Wait()
	if wrong := pool.Check(); wrong != nil {
		t.Errorf("lent more than there is: %v", wrong)
	}
	return m, calls
}

func pick(rng *rand.Rand, shape string, n int, seconds float64) (i int) {
	var sum float64
	for i := range n {
		sum += weight(shape, i, n, seconds)
	}
	x := rng.Float64() * sum
	for ; i < n-1 && x > weight(shape, i, n, seconds); i++ {
		x -= weight(shape, i, n, seconds)
	}
	return i
}
