package extauthz

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/dspgate/dspgate/authz"
)

// deciderFunc makes a Decider of a function.
type deciderFunc func(*authz.Request, *authz.Decision)

func (f deciderFunc) Decide(r *authz.Request, d *authz.Decision) { f(r, d) }

// both runs a test on grpc-go and on the server of Serve.
func both(t *testing.T, test func(t *testing.T, serve func(*testing.T, Options, *Metrics) *grpc.ClientConn)) {
	t.Run("grpc-go", func(t *testing.T) {
		test(t, func(t *testing.T, o Options, m *Metrics) *grpc.ClientConn {
			conn, _ := serve(t, o, m)
			return conn
		})
	})
	t.Run("frames", func(t *testing.T) { test(t, serveFrames) })
}

// serveFrames is Serve on a socket, and a stock client of it.
func serveFrames(t *testing.T, o Options, metrics *Metrics) *grpc.ClientConn {
	t.Helper()
	if metrics != nil {
		o.Stats = metrics
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	conn, err := grpc.NewClient("unix:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn
}

func serve(t *testing.T, o Options, metrics *Metrics) (*grpc.ClientConn, *Health) {
	t.Helper()
	if metrics != nil {
		o.Stats = metrics
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	g := NewGRPCServer(GRPCOptions{})
	s.Register(g)
	h := RegisterHealth(g)
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient("unix:"+sock, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn, h
}

func newMetrics(t *testing.T) (*Metrics, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m, err := NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	return m, reg
}

func TestStockClientGetsTheAnswerOfTheDecision(t *testing.T) {
	both(t, func(t *testing.T, serve func(*testing.T, Options, *Metrics) *grpc.ClientConn) {
		m, _ := newMetrics(t)
		conn := serve(t, Options{Decider: deciderFunc(func(r *authz.Request, d *authz.Decision) {
			*d = decision(authz.OK)
			if r.ClaimProductID != "FP-1001" {
				d.Reason = authz.ProductMismatch
			}
		})}, m)
		client := authv3.NewAuthorizationClient(conn)
		var wg sync.WaitGroup
		for i := range 64 { // concurrent, so that a reused buffer would show
			wg.Go(func() {
				product, want := "FP-1001", codes.OK
				if i%2 == 1 {
					product, want = strings.Repeat("x", 100*i), codes.PermissionDenied
				}
				req := httpRequest(&authv3.AttributeContext_HttpRequest{HeaderMap: raw("x-product-id", product)})
				for range 20 {
					resp, err := client.Check(t.Context(), req)
					if err != nil || codes.Code(resp.GetStatus().GetCode()) != want {
						t.Errorf("%q: %v %v", product[:7], resp.GetStatus(), err)
					}
				}
			})
		}
		wg.Wait()
		if ok, mismatch := m.Count(authz.OK), m.Count(authz.ProductMismatch); ok != 640 || mismatch != 640 {
			t.Errorf("counted %d ok and %d product-mismatch", ok, mismatch)
		}
	})
}

func TestMalformedRequestIsInvalidArgument(t *testing.T) {
	both(t, func(t *testing.T, serve func(*testing.T, Options, *Metrics) *grpc.ClientConn) {
		m, _ := newMetrics(t)
		conn := serve(t, Options{Decider: fixed(authz.OK)}, m)
		err := conn.Invoke(t.Context(), CheckMethod, rawReply("\xff\xff\xff"), new(rawMessage), grpc.ForceCodecV2(NewCodec()))
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v", err)
		}
		if n := m.shards[0].malformed.Load(); n != 1 {
			t.Errorf("counted %d malformed", n)
		}
	})
}

func TestPanicRefusesThatCallAlone(t *testing.T) {
	both(t, func(t *testing.T, serve func(*testing.T, Options, *Metrics) *grpc.ClientConn) {
		m, _ := newMetrics(t)
		conn := serve(t, Options{Decider: deciderFunc(func(r *authz.Request, d *authz.Decision) {
			if r.Method == "BOOM" {
				panic(errors.New("secret " + r.Authorization))
			}
			*d = decision(authz.OK)
		})}, m)
		client := authv3.NewAuthorizationClient(conn)
		for range 3 {
			_, err := client.Check(t.Context(), httpRequest(&authv3.AttributeContext_HttpRequest{Method: "BOOM", HeaderMap: raw("authorization", "s3cret")}))
			if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v", err)
			}
			resp, err := client.Check(t.Context(), httpRequest(&authv3.AttributeContext_HttpRequest{Method: "GET"}))
			if err != nil || resp.GetOkResponse() == nil {
				t.Errorf("the next call: %v %v", resp, err)
			}
		}
		if n := m.shards[0].panics.Load(); n != 3 {
			t.Errorf("counted %d panics", n)
		}
	})
}

func TestNothingOfACallIsLeftForTheNext(t *testing.T) {
	var s *Server
	s, err := New(Options{Decider: deciderFunc(func(r *authz.Request, d *authz.Decision) {
		if d.Reason != 0 || d.Product != nil || d.SSID != "" {
			t.Errorf("the decision came with %+v", d)
		}
		*d = decision(authz.OK)
		if r.Authorizations == 0 {
			d.Reason = authz.TokenMissing
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	with := marshal(t, httpRequest(&authv3.AttributeContext_HttpRequest{HeaderMap: raw("authorization", "Bearer x")}))
	without := marshal(t, httpRequest(&authv3.AttributeContext_HttpRequest{}))
	c := new(call)
	for i, b := range [][]byte{with, without, with, without} {
		out, err := s.check(c, b, nil)
		c.dec = authz.Decision{}
		var resp authv3.CheckResponse
		if err != nil || proto.Unmarshal(out, &resp) != nil {
			t.Fatal(err)
		}
		if got := resp.GetOkResponse() != nil; got != (i%2 == 0) {
			t.Errorf("call %d: allowed %v", i, got)
		}
	}
}

func TestHealthFollowsReadiness(t *testing.T) {
	conn, h := serve(t, Options{Decider: fixed(authz.OK)}, nil)
	client := healthpb.NewHealthClient(conn)
	for _, step := range []struct {
		do   func()
		want healthpb.HealthCheckResponse_ServingStatus
	}{
		{func() {}, healthpb.HealthCheckResponse_NOT_SERVING},
		{func() { h.SetReady(true) }, healthpb.HealthCheckResponse_SERVING},
		{func() { h.SetReady(false) }, healthpb.HealthCheckResponse_NOT_SERVING},
		{func() { h.Shutdown(); h.SetReady(true) }, healthpb.HealthCheckResponse_NOT_SERVING},
	} {
		step.do()
		for _, service := range []string{"", ServiceName} {
			resp, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || resp.Status != step.want {
				t.Errorf("%q: %v %v, want %v", service, resp, err, step.want)
			}
		}
	}
}

func TestPanicInAnotherServiceRefusesThatCallAlone(t *testing.T) {
	var panics int
	g := NewGRPCServer(GRPCOptions{Panicked: func() { panics++ }})
	authv3.RegisterAuthorizationServer(g, bomb{})
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient("unix:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("got %v", err)
		}
	}
	conn.Close()
	g.Stop()
	if err := <-done; err != nil || panics != 2 {
		t.Errorf("%d panics, %v", panics, err)
	}
}

type bomb struct{}

func (bomb) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	panic("boom")
}

func TestMetricSeriesAreAClosedSet(t *testing.T) {
	m, reg := newMetrics(t)
	series := func() (n int) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			n += len(f.Metric)
		}
		return n
	}
	before := series()
	for r := range authz.NReasons {
		for range 100 {
			m.Decided(r, 30*time.Microsecond)
		}
	}
	m.Malformed()
	m.Panicked()
	if after := series(); after != before || after != int(authz.NReasons)+3 {
		t.Errorf("%d series, then %d; want %d", before, after, authz.NReasons+3)
	}
	if n := m.Count(authz.ServiceUnknown); n != 100 {
		t.Errorf("counted %d", n)
	}
}

// BenchmarkCheck shows what it costs to read a request and to write the answer:
// of one that passes, and of one that a limit refuses.
func BenchmarkCheck(b *testing.B) {
	for _, reason := range []authz.Reason{authz.OK, authz.RateLimited} {
		b.Run(reason.String(), func(b *testing.B) {
			m, err := NewMetrics(prometheus.NewRegistry())
			if err != nil {
				b.Fatal(err)
			}
			s, err := New(Options{Decider: fixed(reason), Stats: m})
			if err != nil {
				b.Fatal(err)
			}
			raw := marshal(b, samples()["list"])
			c := new(call)
			b.ReportAllocs()
			for b.Loop() {
				if c.out, err = s.check(c, raw, c.out[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
