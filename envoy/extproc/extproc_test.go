package extproc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// register says which products do not stand, and tells of changes.
type register struct {
	mu      sync.Mutex
	fallen  map[string]authz.Reason
	from    time.Time // the fallen fall at this instant
	changed chan struct{}
	asked   int
}

func newRegister() *register {
	return &register{fallen: map[string]authz.Reason{}, changed: make(chan struct{})}
}

func (r *register) still(g *authz.Grant, now time.Time) (authz.Reason, *registry.Suspension) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if reason := r.fallen[g.Product]; reason != authz.OK && !now.Before(r.from) {
		return reason, &registry.Suspension{ID: "SU-" + g.Product}
	}
	return authz.OK, nil
}

// fall makes a product fall from an instant on; publish tells of it.
func (r *register) fall(product string, reason authz.Reason, from time.Time, publish bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fallen[product], r.from = reason, from
	if publish {
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

func (r *register) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// side is Envoy's end of a side stream.
type side struct {
	grpc.ServerStream
	ctx  context.Context
	in   chan *extprocv3.ProcessingRequest // closed: Envoy closed
	fail chan error
	out  chan *extprocv3.ProcessingResponse
	ret  chan error // what Process returned
}

func (s *side) Context() context.Context { return s.ctx }

func (s *side) Send(m *extprocv3.ProcessingResponse) error { s.out <- m; return nil }

func (s *side) Recv() (*extprocv3.ProcessingRequest, error) {
	select {
	case m, ok := <-s.in:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case err := <-s.fail:
		return nil, err
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// connect opens a side stream; nothing is sent on it yet. Its context ends when
// Process returned, as grpc-go's does.
func connect(srv *Server) *side {
	ctx, cancel := context.WithCancel(context.Background())
	s := &side{ctx: ctx, in: make(chan *extprocv3.ProcessingRequest), fail: make(chan error), out: make(chan *extprocv3.ProcessingResponse, 8), ret: make(chan error, 1)}
	go func() {
		defer cancel()
		s.ret <- srv.Process(s)
	}()
	return s
}

func grant(product string) *authz.Grant {
	g := &authz.Grant{ClientID: "app", Product: product, Service: "events.stream", Issuer: "https://issuer", Environment: registry.PROD, Expires: 4_102_444_800_000} // the year 2100
	copy(g.ID[:], "01HZZZZZZZ0000000000000001")
	return g
}

func headersOf(g *authz.Grant, contentType string) *extprocv3.ProcessingRequest {
	md := &structpb.Struct{Fields: map[string]*structpb.Value{MetadataGrant: structpb.NewStringValue(g.String())}}
	return &extprocv3.ProcessingRequest{
		MetadataContext: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{MetadataNamespace: md}},
		Request: &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: &extprocv3.HttpHeaders{Headers: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
			{Key: "content-type", RawValue: []byte(contentType)},
		}}}},
	}
}

func trailers() *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseTrailers{ResponseTrailers: &extprocv3.HttpTrailers{}}}
}

// open opens a stream and wants it let through.
func open(t testing.TB, srv *Server, product string) *side {
	t.Helper()
	s := connect(srv)
	s.in <- headersOf(grant(product), "text/plain")
	select {
	case m := <-s.out:
		if m.GetRequestHeaders() == nil {
			t.Fatalf("not let through: %v", m)
		}
	case err := <-s.ret:
		t.Fatalf("not let through: %v", err)
	}
	return s
}

// cut wants a stream cut with a reason, told to Envoy twice.
func (s *side) cut(t testing.TB, reason authz.Reason) *extprocv3.ImmediateResponse {
	t.Helper()
	var m *extprocv3.ProcessingResponse
	select {
	case m = <-s.out:
	case <-s.ctx.Done(): // Process has returned, and may have sent something before
		select {
		case m = <-s.out:
		default:
		}
	}
	r := m.GetImmediateResponse()
	if r == nil || int(r.GetStatus().GetCode()) != reason.Status() {
		t.Fatalf("not cut for %s: %v", reason, m)
	}
	if got := m.GetDynamicMetadata().GetFields()[EndedNamespace].GetStructValue().GetFields()[EndedReason].GetStringValue(); got != reason.String() {
		t.Errorf("the metadata says %q, want %s", got, reason)
	}
	if err := <-s.ret; status.Code(err) == codes.OK {
		t.Errorf("cut for %s, but the side stream closed without an error: Envoy would let the request go on", reason)
	}
	return r
}

func newTest(t testing.TB, edit func(*Config)) (*Server, *register) {
	t.Helper()
	r := newRegister()
	cfg := Config{Still: r.still, Changed: r.next, PerProduct: 3, Total: 5}
	if edit != nil {
		edit(&cfg)
	}
	s, err := NewStreams(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return NewServer(s, "https://dspgate.example/problems/"), r
}

// run watches until the test ends.
func run(t *testing.T, srv *Server) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); srv.streams.Run(ctx) }()
	return func() { cancel(); <-done }
}

func TestStreamGoesOnUntilEnvoyCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, _ := newTest(t, nil)
		defer run(t, srv)()
		s := open(t, srv, "FP-1")
		time.Sleep(time.Hour)
		if n := srv.streams.Open(); n != 1 {
			t.Errorf("%d streams open", n)
		}
		s.in <- trailers()
		if m := <-s.out; m.GetResponseTrailers() == nil {
			t.Errorf("trailers answered with %v", m)
		}
		close(s.in)
		if err := <-s.ret; err != nil {
			t.Errorf("Envoy closed, and it ended with %v", err)
		}
		if n := srv.streams.Open(); n != 0 || count(t, srv.streams.metrics.ended[authz.OK]) != 1 {
			t.Errorf("%d streams open after the end", n)
		}
	})
}

func TestStreamEndsAtOnceWithAView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuilder
		srv, r := newTest(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		defer run(t, srv)()
		a, b, other := open(t, srv, "FP-1"), open(t, srv, "FP-1"), open(t, srv, "FP-2")
		synctest.Wait()
		before := time.Now()
		r.fall("FP-1", authz.ProductSuspended, time.Time{}, true)
		resp := a.cut(t, authz.ProductSuspended)
		b.cut(t, authz.ProductSuspended)
		synctest.Wait()
		if d := time.Since(before); d != 0 {
			t.Errorf("ended %v after the View", d)
		}
		if n := srv.streams.Open(); n != 1 || len(other.out) != 0 {
			t.Errorf("%d streams open, want the other product's", n)
		}
		var p problem
		if err := json.Unmarshal(resp.GetBody(), &p); err != nil || p.Errors[0].Code != "product-suspended" || p.Instance != "/decisions/01HZZZZZZZ0000000000000001" ||
			p.Type != "https://dspgate.example/problems/product-suspended" || p.Status != 403 {
			t.Errorf("body %s (%v)", resp.GetBody(), err)
		}
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "suspension=SU-FP-1 streams=2") {
			t.Errorf("logged %q", got)
		}
		if n := count(t, srv.streams.metrics.ended[authz.ProductSuspended]); n != 2 {
			t.Errorf("%v counted", n)
		}
		close(other.in)
		<-other.ret
	})
}

// What ends by itself at an instant is not told of by a View.
func TestStreamEndsAtAnInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, r := newTest(t, nil)
		defer run(t, srv)()
		s := open(t, srv, "FP-1")
		end := time.Now().Add(10*time.Minute + time.Millisecond)
		r.fall("FP-1", authz.CertificationExpired, end, false)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(s.out) != 0 {
			t.Fatal("ended before its instant")
		}
		s.cut(t, authz.CertificationExpired)
		if late := time.Since(end); late > judgeEvery {
			t.Errorf("ended %v after its instant", late)
		}
	})
}

func TestStreamMayOutliveItsTokenOrNot(t *testing.T) {
	for _, with := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			srv, _ := newTest(t, func(c *Config) { c.EndWithToken = with })
			defer run(t, srv)()
			g := grant("FP-1")
			g.Expires = registry.At(time.Now().Add(time.Minute))
			s := connect(srv)
			s.in <- headersOf(g, "")
			<-s.out
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if with {
				s.cut(t, authz.TokenExpired)
				return
			}
			if len(s.out) != 0 {
				t.Error("ended with its token")
			}
			close(s.in)
			<-s.ret
		})
	}
}

func TestStreamThatDoesNotStandNeverBegins(t *testing.T) {
	srv, r := newTest(t, nil)
	r.fall("FP-1", authz.ProductSuspended, time.Time{}, false)
	s := connect(srv)
	s.in <- headersOf(grant("FP-1"), "application/grpc+proto")
	resp := s.cut(t, authz.ProductSuspended)
	if resp.GetGrpcStatus().GetStatus() != 7 || !strings.HasPrefix(string(resp.GetBody()), "product-suspended: ") {
		t.Errorf("a gRPC caller is told %v", resp)
	}
	if n := srv.streams.Open(); n != 0 {
		t.Errorf("%d streams open", n)
	}
}

func TestCaps(t *testing.T) {
	srv, _ := newTest(t, nil) // 3 for a product, 5 in all
	var all []*side
	for range 3 {
		all = append(all, open(t, srv, "FP-1"))
	}
	refused := func(product string) {
		t.Helper()
		if srv.streams.Room(product) {
			t.Errorf("room for another stream of %s", product)
		}
		s := connect(srv)
		s.in <- headersOf(grant(product), "")
		resp := s.cut(t, authz.RateLimited)
		retry := ""
		for _, h := range resp.GetHeaders().GetSetHeaders() {
			if h.GetHeader().GetKey() == "retry-after" {
				retry = string(h.GetHeader().GetRawValue())
			}
		}
		if retry == "" {
			t.Error("no Retry-After")
		}
	}
	refused("FP-1")
	for range 2 {
		if !srv.streams.Room("FP-2") {
			t.Error("no room for another product")
		}
		all = append(all, open(t, srv, "FP-2"))
	}
	refused("FP-3") // the total
	close(all[0].in)
	<-all[0].ret
	all = append(all[1:], open(t, srv, "FP-1"))
	for _, s := range all {
		close(s.in)
		<-s.ret
	}
	if n := srv.streams.Open(); n != 0 || len(srv.streams.by) != 0 {
		t.Errorf("%d streams open, %d products remembered", n, len(srv.streams.by))
	}
	if n := count(t, srv.streams.metrics.refused); n != 4 {
		t.Errorf("%v refused", n)
	}
}

// A sidecar that stops lets nothing go on: it cuts what is open and takes no
// more, even where the server has not been told to stop yet.
func TestCloseCutsAll(t *testing.T) {
	srv, _ := newTest(t, nil)
	a, b := open(t, srv, "FP-1"), open(t, srv, "FP-2")
	srv.streams.Close(context.Background())
	srv.streams.Close(context.Background())
	a.cut(t, authz.AuthorizerUnavailable)
	b.cut(t, authz.AuthorizerUnavailable)
	if srv.streams.Room("FP-3") {
		t.Error("room after the end")
	}
	c := connect(srv)
	c.in <- headersOf(grant("FP-3"), "")
	c.cut(t, authz.AuthorizerUnavailable)
}

func TestEndOfTheWatchCutsAll(t *testing.T) {
	srv, _ := newTest(t, nil)
	stop := run(t, srv)
	s := open(t, srv, "FP-1")
	stop()
	s.cut(t, authz.AuthorizerUnavailable)
}

// Nothing but Envoy's own close may end a side stream without an error.
func TestWhatCannotBeReadIsAnError(t *testing.T) {
	noGrant := headersOf(grant("FP-1"), "")
	noGrant.MetadataContext = nil
	badGrant := headersOf(grant("FP-1"), "")
	badGrant.MetadataContext.FilterMetadata[MetadataNamespace].Fields[MetadataGrant] = structpb.NewStringValue("{}")
	elsewhere := headersOf(grant("FP-1"), "")
	elsewhere.MetadataContext.FilterMetadata["other"] = elsewhere.MetadataContext.FilterMetadata[MetadataNamespace]
	delete(elsewhere.MetadataContext.FilterMetadata, MetadataNamespace)
	noHeaders := headersOf(grant("FP-1"), "")
	noHeaders.Request = trailers().Request
	body := &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{}}}
	for name, messages := range map[string][]*extprocv3.ProcessingRequest{
		"no grant":              {noGrant},
		"a bad grant":           {badGrant},
		"metadata of a filter":  {elsewhere},
		"trailers first":        {noHeaders},
		"nothing in it":         {{}},
		"a body never asked of": {headersOf(grant("FP-1"), ""), body},
		"headers twice":         {headersOf(grant("FP-1"), ""), headersOf(grant("FP-1"), "")},
	} {
		t.Run(name, func(t *testing.T) {
			srv, _ := newTest(t, nil)
			s := connect(srv)
			for _, m := range messages {
				s.in <- m
			}
			if err := <-s.ret; status.Code(err) != codes.InvalidArgument {
				t.Errorf("ended with %v", err)
			}
			if n := srv.streams.Open(); n != 0 {
				t.Errorf("%d streams open", n)
			}
		})
	}
	t.Run("a connection that breaks", func(t *testing.T) {
		srv, _ := newTest(t, nil)
		s := open(t, srv, "FP-1")
		s.fail <- status.Error(codes.Canceled, "gone")
		if err := <-s.ret; status.Code(err) != codes.Canceled {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv, _ := newTest(t, nil)
			s := connect(srv)
			if err := <-s.ret; status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("ended with %v", err)
			}
		})
	})
}

func TestCapsThatAreNoneAreRefused(t *testing.T) {
	r := newRegister()
	for _, c := range []Config{
		{Still: r.still, Changed: r.next, PerProduct: 0, Total: 5},
		{Still: r.still, Changed: r.next, PerProduct: 6, Total: 5},
		{Still: r.still, PerProduct: 1, Total: 1},
		{Changed: r.next, PerProduct: 1, Total: 1},
	} {
		if _, err := NewStreams(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// Opened, closed and suspended by many at once: every stream of what fell ends,
// and the books balance. For the race detector.
func TestManyAtOnce(t *testing.T) {
	srv, r := newTest(t, func(c *Config) { c.PerProduct, c.Total = 1000, 10000 })
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { srv.streams.Run(ctx) })
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				s := connect(srv)
				s.in <- headersOf(grant(fmt.Sprint("FP-", (w+i)%4)), "")
				if m := <-s.out; m.GetImmediateResponse() != nil {
					if err := <-s.ret; err == nil {
						t.Error("refused without an error")
					}
					continue
				}
				if i%2 == 0 {
					close(s.in)
					if err := <-s.ret; errors.Is(err, io.EOF) {
						t.Error(err)
					}
				}
			}
		})
	}
	for i := range 3 {
		r.fall(fmt.Sprint("FP-", i), authz.ProductSuspended, time.Time{}, true)
	}
	wg.Wait()
	r.fall("FP-3", authz.ProductSuspended, time.Time{}, true)
	for srv.streams.Open() > 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	watch.Wait()
	if len(srv.streams.by) != 0 {
		t.Errorf("products remembered: %v", srv.streams.by)
	}
}

// BenchmarkJudge asks about 10,000 streams once.
func BenchmarkJudge(b *testing.B) {
	srv, _ := newTest(b, func(c *Config) {
		c.PerProduct, c.Total = 1000, 10000
		c.Still = func(*authz.Grant, time.Time) (authz.Reason, *registry.Suspension) { return authz.OK, nil }
	})
	for i := range 10000 {
		if _, reason := srv.streams.open(grant(fmt.Sprint("FP-", i%100))); reason != authz.OK {
			b.Fatal(reason)
		}
	}
	var buf []*leash
	for b.Loop() {
		buf = srv.streams.judge(context.Background(), buf)
	}
}

func count(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
