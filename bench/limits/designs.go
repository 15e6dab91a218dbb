package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/redisshare"
	"github.com/dspgate/dspgate/registry"
)

// design is one way to share a limit.
type design interface {
	// decide says whether a request may pass, at an instant of CLOCK_BOOTTIME.
	decide(now time.Duration) bool
	// blocks tells whether decide may wait for Redis.
	blocks() bool
	// calls to Redis so far.
	calls() int64
}

// names of the designs, in the order of designs.
var names = []string{"dspgate", "Lua GCRA each request", "chunks of 50 in 1 s", "report every 1 s"}

func designs(ctx context.Context, s spec, id string, rdb redis.UniversalClient) (all []design, wait func(), err error) {
	l, err := ratelimit.New(ratelimit.Options{
		ID: "worker-" + id, Alone: true, Elapsed: registry.NewBootClock(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Pool: redisshare.New(rdb, redisshare.Options{Prefix: fmt.Sprintf("bench:{%s-%v}", s.Workload, s.Load), Channel: fmt.Sprintf("bench:%s-%v", s.Workload, s.Load)}),
	})
	if err != nil {
		return nil, nil, err
	}
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	for !l.Ready() { // as a sidecar is not ready before
		time.Sleep(time.Millisecond)
	}
	ours := &shared{l: l, limits: []*ratelimit.Limit{{ID: "limit", Version: 1, Kind: ratelimit.Rate, Rate: s.Rate, Burst: s.Burst}}}
	base := peer{rdb: rdb, s: s, key: fmt.Sprintf("peer:{%s-%v}:", s.Workload, s.Load)}
	rep := &reporter{peer: base}
	running.Go(func() { rep.run(ctx) })
	return []design{ours, &gcra{peer: base}, &chunks{peer: base}, rep}, running.Wait, nil
}

// shared is the production limiter.
type shared struct {
	l      *ratelimit.Limiter
	limits []*ratelimit.Limit
	out    ratelimit.Outcome
}

func (d *shared) decide(now time.Duration) bool {
	return d.l.Spend(&ratelimit.Query{Elapsed: now, Now: time.Now()}, d.limits, &d.out)
}
func (d *shared) blocks() bool { return false }
func (d *shared) calls() int64 { return d.l.Status().Calls }

// peer is what the other designs have in common.
type peer struct {
	rdb redis.UniversalClient
	s   spec
	key string
}

// gcra asks a script for every request, as envoyproxy/ratelimit or a plugin
// does; without Redis it refuses, after 100 ms.
type gcra struct {
	peer
	count atomic.Int64
}

var gcraScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local step, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
if tat + step - now > burst then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f', tat + step), 'PX', 60000)
return 1`)

func (d *gcra) decide(time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	d.count.Add(1)
	step := 1e6 / d.s.Rate
	n, err := gcraScript.Run(ctx, d.rdb, []string{d.key + "gcra"}, step, float64(d.s.Burst)*step).Int()
	return err == nil && n == 1
}
func (d *gcra) blocks() bool { return true }
func (d *gcra) calls() int64 { return d.count.Load() }

// chunks takes 50 at a time out of a window of one second that holds the rate.
type chunks struct {
	peer
	mu     sync.Mutex
	window int64
	left   int
	dry    int64
	count  atomic.Int64
}

const chunk = 50

func (d *chunks) decide(time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := time.Now().Unix()
	if d.window != w {
		d.window, d.left = w, 0
	}
	if d.left == 0 && d.dry != w {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		d.count.Add(1)
		key := fmt.Sprint(d.key, "chunk:", w)
		n, err := d.rdb.IncrBy(ctx, key, chunk).Result()
		switch {
		case err != nil:
		case n <= int64(d.s.Rate):
			d.left = chunk
		default:
			d.dry = w
		}
	}
	if d.left == 0 {
		return false
	}
	d.left--
	return true
}
func (d *chunks) blocks() bool { return true }
func (d *chunks) calls() int64 { return d.count.Load() }

// reporter counts locally and adds up with the others once a second, which is
// what most gateways that call themselves distributed do.
type reporter struct {
	peer
	mu     sync.Mutex
	window int64
	others int64 // of the whole fleet in this window, as of the last report
	mine   int64 // since then
	count  atomic.Int64
}

func (d *reporter) decide(time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := time.Now().Unix(); d.window != w {
		d.window, d.others, d.mine = w, 0, 0
	}
	if d.others+d.mine >= int64(d.s.Rate) {
		return false
	}
	d.mine++
	return true
}

func (d *reporter) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d.mu.Lock()
		w, n := d.window, d.mine
		d.mu.Unlock()
		cctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		d.count.Add(1)
		total, err := d.rdb.IncrBy(cctx, fmt.Sprint(d.key, "report:", w), n).Result()
		cancel()
		d.mu.Lock()
		if err == nil && d.window == w {
			d.others, d.mine = total, d.mine-n
		}
		d.mu.Unlock()
	}
}
func (d *reporter) blocks() bool { return false }
func (d *reporter) calls() int64 { return d.count.Load() }
