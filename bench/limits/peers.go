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
		r := &reporter{shared: base, level: float64(s.Burst), at: time.Now()}
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
	dry    int64     // the window of which nothing is left
	away   time.Time // until then Redis is not asked again
}

const chunk = 50

func (d *chunks) decide(ctx context.Context) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := time.Now().Unix()
	if d.window != w {
		d.window, d.left = w, 0
	}
	if d.left == 0 && d.dry != w && time.Now().After(d.away) {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		n, err := d.rdb.IncrBy(ctx, fmt.Sprint("chunk:", w), chunk).Result()
		switch {
		case err != nil:
			d.away = time.Now().Add(100 * time.Millisecond)
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

// reporter spends from its own copy of the one bucket, and once a second tells
// what it spent and takes over what the bucket is at by then, as gateways do
// that synchronise their counters: in between nobody knows of the others, so
// that together they overdraw it, and then refuse until that is paid back.
// Without Redis it goes on with its copy.
type reporter struct {
	shared
	mu    sync.Mutex
	level float64 // of the copy; below zero what was spent beyond the bucket
	at    time.Time
	mine  int // spent since the last report
}

var reportScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local rate, burst, spent = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local b = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = math.min((tonumber(b[1]) or burst) + (now - (tonumber(b[2]) or now)) * rate, burst) - spent
redis.call('HSET', KEYS[1], 'level', string.format('%.3f', level), 'at', string.format('%.6f', now))
return string.format('%.3f', level)`)

// refill lets time pass in the copy. The caller holds mu.
func (d *reporter) refill() {
	now := time.Now()
	d.level = min(d.level+now.Sub(d.at).Seconds()*d.s.Rate, float64(d.s.Burst))
	d.at = now
}

func (d *reporter) decide(context.Context) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refill(); d.level < 1 {
		return false
	}
	d.level--
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
		told := d.mine
		d.mu.Unlock()
		cctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		level, err := reportScript.Run(cctx, d.rdb, []string{"report"}, d.s.Rate, d.s.Burst, told).Float64()
		cancel()
		if err != nil {
			continue // told with the next
		}
		d.mu.Lock()
		d.refill()
		d.mine -= told
		d.level = level - float64(d.mine) // spent while it was told
		d.mu.Unlock()
	}
}
