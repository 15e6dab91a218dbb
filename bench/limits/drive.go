package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/envoy/headers"
	"github.com/dspgate/dspgate/registry"
)

// underWayMax bounds the calls without an answer: a design that waits for Redis
// gathers them while that is stopped.
const underWayMax = 5000

// driver puts a run's arrivals to the sidecars, as Envoys would, and sends on
// what they allow.
type driver struct {
	spec     spec
	to       []target
	upstream *upstream

	mu      sync.Mutex
	asked   []time.Duration // when each request that was answered by a limit was made, CLOCK_BOOTTIME
	failed  int             // answered by nobody, or by something else than a limit
	latency []time.Duration
}

// target is one sidecar.
type target struct {
	conn  *grpc.ClientConn
	check authv3.AuthorizationClient
	down  atomic.Bool // killed, and not ready again
}

func newDriver(f *fleet, s spec, up *upstream) (*driver, error) {
	d := &driver{spec: s, upstream: up, to: make([]target, s.Sidecars)}
	for i := range d.to {
		conn, err := grpc.NewClient("unix:"+f.socket(i), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond}, MinConnectTimeout: time.Second}))
		if err != nil {
			return d, err
		}
		d.to[i].conn, d.to[i].check = conn, authv3.NewAuthorizationClient(conn)
	}
	return d, nil
}

func (d *driver) close() {
	for i := range d.to {
		if c := d.to[i].conn; c != nil {
			_ = c.Close() // nothing is lost with it
		}
	}
}

// request is the same for every arrival.
func request(token string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "127.0.0.1"}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/registry/v1/abns/" + "65000000101", Host: "127.0.0.1", Scheme: "http",
			Headers: map[string]string{"authorization": "Bearer " + token, "x-product-version": "1.0"},
		}},
	}}
}

// warm asks each sidecar once, so that connections are there.
func (d *driver) warm(ctx context.Context, req *authv3.CheckRequest) error {
	for i := range d.to {
		if _, err := d.to[i].check.Check(ctx, req, grpc.WaitForReady(true)); err != nil {
			return fmt.Errorf("sidecar %d: %w", i, err)
		}
	}
	return nil
}

// run meets every arrival at its instant, whatever became of those before.
func (d *driver) run(ctx context.Context, req *authv3.CheckRequest) {
	clock := registry.NewBootClock()
	var calls sync.WaitGroup
	var underWay atomic.Int64
	d.spec.arrivals(func(at time.Duration, i int) {
		if ctx.Err() != nil {
			return
		}
		if wait := d.spec.begin + at - clock(); wait > 0 {
			time.Sleep(wait)
		}
		if d.to[i].down.Load() {
			return // nobody is there to be asked
		}
		if underWay.Add(1) > underWayMax {
			underWay.Add(-1)
			d.answered(clock(), 0, true)
			return
		}
		calls.Go(func() {
			defer underWay.Add(-1)
			d.one(ctx, i, req, clock)
		})
	})
	calls.Wait()
}

func (d *driver) one(ctx context.Context, i int, req *authv3.CheckRequest, clock func() time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	sent := clock()
	rep, _ := d.to[i].check.Check(ctx, req) // nil when it was killed while it was asked
	took := clock() - sent
	switch r := rep.GetHttpResponse().(type) {
	case *authv3.CheckResponse_OkResponse:
		d.upstream.arrive(decidedAt(r.OkResponse))
		d.answered(sent, took, true)
	case *authv3.CheckResponse_DeniedResponse:
		d.answered(sent, took, r.DeniedResponse.GetStatus().GetCode() == 429)
	default:
		d.answered(sent, took, false)
	}
}

// decidedAt is the instant in the decision ID, Unix milliseconds; 0 without one.
func decidedAt(r *authv3.OkHttpResponse) int64 {
	for _, h := range r.GetHeaders() {
		if h.GetHeader().GetKey() != headers.DecisionID {
			continue
		}
		v := h.GetHeader().GetValue()
		if v == "" {
			v = string(h.GetHeader().GetRawValue())
		}
		if id, err := authz.ParseDecisionID(v); err == nil {
			return id.Time().UnixMilli()
		}
	}
	return 0
}

func (d *driver) answered(sent, took time.Duration, byLimit bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !byLimit {
		d.failed++
		return
	}
	d.asked = append(d.asked, sent)
	d.latency = append(d.latency, took)
}

// dialUpstream connects to the upstream, which takes a moment to listen.
func dialUpstream(ctx context.Context, socket string) (*upstream, error) {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			return &upstream{conn: conn}, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(2 * time.Millisecond):
		}
	}
}
