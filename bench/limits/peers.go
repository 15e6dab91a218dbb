package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/redis/go-redis/v9"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/dspgate/dspgate/registry/redisstore"
)

// The designs, in the order of the table. All but the first are peers: what
// others do, each in a process of its own that answers as a sidecar does.
const (
	ours = iota
	lua
	chunked
	reported
	designs
)

var designNames = [designs]string{"dspgate", "Lua GCRA each request", "chunks of 50 in 1 s", "report every 1 s"}

// decider is one way to share a limit.
type decider interface {
	decide(ctx context.Context) bool
}

// peer answers Check by a decider, and nothing else of it.
type peer struct {
	authv3.UnimplementedAuthorizationServer
	d       decider
	ok, not *authv3.CheckResponse
}

func (p *peer) Check(ctx context.Context, _ *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	if p.d.decide(ctx) {
		return p.ok, nil
	}
	return p.not, nil
}

// runPeer serves one design until it is killed.
func runPeer(design int, socket, redisAddr, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s spec
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	rdb, err := redisstore.Dial(redisstore.Config{Addrs: []string{redisAddr}, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	p := &peer{
		ok: &authv3.CheckResponse{Status: &statuspb.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}},
		not: &authv3.CheckResponse{Status: &statuspb.Status{Code: int32(codes.ResourceExhausted)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
			DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_TooManyRequests}},
		}},
	}
	base := shared{rdb: rdb, s: s}
	switch design {
	case lua:
		p.d = &gcra{base}
	case chunked:
		p.d = &chunks{shared: base}
	case reported:
		r := &reporter{shared: base}
		go r.run(context.Background()) // until the process is killed
		p.d = r
	default:
		return fmt.Errorf("no design %d", design)
	}
	_ = os.Remove(socket) // of a process that was killed
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	g := grpc.NewServer()
	authv3.RegisterAuthorizationServer(g, p)
	return g.Serve(ln)
}

// shared is what the designs have in common.
type shared struct {
	rdb redis.UniversalClient
	s   spec
}

// gcra asks a script for every request, as envoyproxy/ratelimit or a plugin
// does; without Redis it refuses, after 100 ms.
type gcra struct{ shared }

var gcraScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local step, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
if tat + step - now > burst then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f', tat + step), 'PX', 60000)
return 1`)

func (d *gcra) decide(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	step := 1e6 / d.s.Rate
	n, err := gcraScript.Run(ctx, d.rdb, []string{"gcra"}, step, float64(d.s.Burst)*step).Int()
	return err == nil && n == 1
}

// chunks takes 50 at a time out of a window of one second that holds the rate.
type chunks struct {
	shared
	mu     sync.Mutex
	window int64
	left   int
	dry    int64
}

const chunk = 50

func (d *chunks) decide(ctx context.Context) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := time.Now().Unix()
	if d.window != w {
		d.window, d.left = w, 0
	}
	if d.left == 0 && d.dry != w {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		n, err := d.rdb.IncrBy(ctx, fmt.Sprint("chunk:", w), chunk).Result()
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

// reporter counts locally and adds up with the others once a second, as
// gateways do that synchronise their counters: a sliding window of one second,
// the last second's count weighed by how much of it lies within.
type reporter struct {
	shared
	mu   sync.Mutex
	seen [2]windowCount // of the second that runs, and of the one before
}

// windowCount is what is known of one second.
type windowCount struct {
	second int64
	fleet  int64 // as of the last report
	mine   int64 // since then
}

// turn moves on to the second that runs. The caller holds mu.
func (d *reporter) turn(now time.Time) (part float64) {
	if s := now.Unix(); d.seen[0].second != s {
		d.seen[1] = windowCount{}
		if d.seen[0].second == s-1 {
			d.seen[1] = d.seen[0]
		}
		d.seen[0] = windowCount{second: s}
	}
	return 1 - float64(now.Nanosecond())/1e9
}

func (d *reporter) decide(context.Context) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	part := d.turn(time.Now())
	count := float64(d.seen[0].fleet+d.seen[0].mine) + part*float64(d.seen[1].fleet+d.seen[1].mine)
	if count+1 > d.s.Rate {
		return false
	}
	d.seen[0].mine++
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
		d.turn(time.Now())
		told := d.seen
		d.mu.Unlock()
		for _, w := range told { // one call for each second; what is told late is told
			if w.second == 0 {
				continue
			}
			cctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			total, err := d.rdb.IncrBy(cctx, fmt.Sprint("report:", w.second), w.mine).Result()
			cancel()
			if err != nil {
				continue
			}
			d.mu.Lock()
			for i := range d.seen {
				if d.seen[i].second == w.second {
					d.seen[i].fleet = total
					d.seen[i].mine -= w.mine
				}
			}
			d.mu.Unlock()
		}
	}
}
