package xds_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/dspgate/dspgate/envoy/envoytest"
	"github.com/dspgate/dspgate/envoy/headers"
	"github.com/dspgate/dspgate/envoy/xds"
	"github.com/dspgate/dspgate/registry"
)

// services are the sample services of the contract, and one whose template
// overlaps with another's.
func services() []registry.Service {
	return []registry.Service{
		{Key: "abr.lookup", Method: "GET", Template: "/registry/v1/abns/{abn}", Risk: 1},
		{Key: "abr.self", Method: "GET", Template: "/registry/v1/abns/self", Risk: 1},
		{Key: "receipts.get", Method: "GET", Template: "/lodgments/v1/receipts/{id}", Risk: 1},
		{Key: "payevnt.0004.submit", Method: "POST", Template: "/lodgments/v1/payroll-events", Risk: 2},
		{Key: "stic.validate", Method: "POST", Template: "/super/v1/member-verifications", Risk: 4, Subject: registry.Subject{In: "body", Name: "/tfn"}},
		{Key: "events.stream", Method: "GET", Template: "/events/v1/notices", Risk: 2, Streaming: "sse"},
		{Key: "events.socket", Method: "GET", Template: "/events/v1/socket", Risk: 2, Streaming: "websocket"},
		{Key: "bulk.submit", Method: "PUT", Template: "/lodgments/v1/bulk/{id}", Risk: 2, Streaming: "upload"},
		{Key: "sample.chat", Method: "POST", Template: "/dspgate.sample.v1.Sample/Chat", Risk: 2, Streaming: "grpc"},
	}
}

func view(t testing.TB, rev registry.Revision, all []registry.Service) *registry.View {
	t.Helper()
	b := registry.NewBuilder(nil, 0)
	for _, s := range all {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Put(&registry.Record{Kind: registry.KindService, ID: s.Key, Revision: rev, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := b.View(rev, 1)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// authorizer is a stand-in for the sidecar: a token "good" is allowed wherever
// there is a service, no token is 401.
type authorizer struct {
	authv3.UnimplementedAuthorizationServer
	mu     sync.Mutex
	checks []*authv3.CheckRequest
	allows int
	serial atomic.Int64
	answer func(*authv3.CheckRequest) (*authv3.CheckResponse, error) // nil: as above
}

func (a *authorizer) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	a.mu.Lock()
	a.checks = append(a.checks, r)
	answer := a.answer
	a.mu.Unlock()
	if answer == nil {
		answer = a.decide
	}
	resp, err := answer(r)
	if err == nil && resp.GetStatus().GetCode() == 0 {
		a.mu.Lock()
		a.allows++
		a.mu.Unlock()
	}
	return resp, err
}

func (a *authorizer) decide(r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	id := fmt.Sprintf("01HZZZZZZZ%016d", a.serial.Add(1))
	switch header(r, "authorization") {
	case "Bearer good":
		return allow(id), nil
	case "":
		return deny(id, 401, "token-missing"), nil
	}
	return deny(id, 403, "client-unknown"), nil
}

func allow(id string) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{HeadersToRemove: []string{"authorization"}}
	for _, h := range []string{headers.DecisionID, headers.ProductID} {
		v := id
		if h == headers.ProductID {
			v = "FP-1001"
		}
		ok.Headers = append(ok.Headers, &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: h, Value: v}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return &authv3.CheckResponse{
		Status:          &statuspb.Status{},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: metadata(id, "ok"),
	}
}

const denyBody = `{"from":"the authorizer"}`

func deny(id string, status int, reason string) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &statuspb.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(status)},
			Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "content-type", Value: "application/problem+json"}}},
			Body:    denyBody,
		}},
		DynamicMetadata: metadata(id, reason),
	}
}

func metadata(id, reason string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		xds.MetadataDecisionID: structpb.NewStringValue(id),
		xds.MetadataReason:     structpb.NewStringValue(reason),
		xds.MetadataRevision:   structpb.NewStringValue("7"),
	}}
}

// header finds a header of a Check, however it was encoded.
func header(r *authv3.CheckRequest, name string) string {
	return strings.Join(headerValues(r, name), ",")
}

func headerValues(r *authv3.CheckRequest, name string) (out []string) {
	h := r.GetAttributes().GetRequest().GetHttp()
	if v, ok := h.GetHeaders()[name]; ok {
		return []string{v}
	}
	for _, kv := range h.GetHeaderMap().GetHeaders() {
		if kv.GetKey() == name {
			out = append(out, string(kv.GetRawValue()))
		}
	}
	return out
}

func (a *authorizer) drain() []*authv3.CheckRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.checks
	a.checks = nil
	return out
}

// watcher stands in for package extproc: it holds on to every side stream until
// Envoy lets go, and counts them.
type watcher struct {
	extprocv3.UnimplementedExternalProcessorServer
	opened atomic.Int64
	refuse atomic.Bool
}

func (w *watcher) Process(s extprocv3.ExternalProcessor_ProcessServer) error {
	w.opened.Add(1)
	if w.refuse.Load() {
		return status.Error(codes.Unavailable, "not now")
	}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer := &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{}}}
		if m.GetResponseTrailers() != nil {
			answer.Response = &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}}
		}
		if err := s.Send(answer); err != nil {
			return err
		}
	}
}

// arrival is a request as the upstream saw it.
type arrival struct {
	Method, Target, Host string
	Header               http.Header
	Trailer              http.Header
	Body                 []byte
}

// upstream echoes and remembers.
type upstream struct {
	mu       sync.Mutex
	arrivals []arrival
	srv      *httptest.Server
}

func newUpstream(t testing.TB) *upstream {
	u := &upstream{}
	u.srv = httptest.NewUnstartedServer(http.HandlerFunc(u.serve))
	u.srv.Config.Protocols = new(http.Protocols)
	u.srv.Config.Protocols.SetHTTP1(true)
	u.srv.Config.Protocols.SetUnencryptedHTTP2(true)
	u.srv.Start()
	t.Cleanup(u.srv.Close)
	return u
}

func (u *upstream) addr() string { return strings.TrimPrefix(u.srv.URL, "http://") }

func (u *upstream) drain() []arrival {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := u.arrivals
	u.arrivals = nil
	return out
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	a := arrival{Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header.Clone()}
	switch {
	case strings.HasPrefix(r.URL.Path, "/events/v1/socket"):
		u.keep(a)
		upgrade(w)
	case strings.HasPrefix(r.URL.Path, "/events/v1/notices"):
		u.keep(a)
		w.Header().Set("content-type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	default:
		var b bytes.Buffer
		_, err := b.ReadFrom(r.Body)
		a.Body, a.Trailer = b.Bytes(), r.Trailer.Clone()
		u.keep(a)
		if err == nil {
			fmt.Fprintf(w, "%s %s", r.Method, r.RequestURI)
		}
	}
}

func (u *upstream) keep(a arrival) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.arrivals = append(u.arrivals, a)
}

// upgrade answers a WebSocket handshake and echoes bytes; what a frame is does
// not matter to Envoy.
func upgrade(w http.ResponseWriter) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
	buf := make([]byte, 4)
	for {
		n, err := rw.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

// counts implements xds.Stats.
type counts struct{ pushed, refused, rejected atomic.Int64 }

func (c *counts) Pushed()   { c.pushed.Add(1) }
func (c *counts) Refused()  { c.refused.Add(1) }
func (c *counts) Rejected() { c.rejected.Add(1) }

// gate is a whole gateway: a real Envoy, the discovery server under test, a
// stand-in authorizer and an upstream.
type gate struct {
	authz   *authorizer
	streams watcher
	up      *upstream
	server  *xds.Server
	counts  *counts
	envoy   *envoytest.Envoy
	cfg     xds.Config
	log     *bytes.Buffer

	grpc   *grpc.Server // ext_authz; stopped by a test that wants it dead
	socket string
	ads    string // the discovery server's socket
}

// startGate starts it all. edit may change the configuration; extra registers
// more services on the sidecar's socket.
func startGate(t testing.TB, edit func(*xds.Config), extra ...func(*grpc.Server)) *gate {
	t.Helper()
	dir := t.TempDir()
	g := &gate{authz: &authorizer{}, up: newUpstream(t), counts: &counts{}, log: &bytes.Buffer{}, socket: filepath.Join(dir, "authz.sock")}
	g.cfg = xds.Config{
		Ingress:  "127.0.0.1:0",
		Hosts:    map[string]registry.Environment{"localhost": registry.PROD, "127.0.0.1": registry.PROD, "evte.localhost": registry.EVTE},
		Upstream: xds.Upstream{Address: g.up.addr()},
		Sidecars: []xds.Sidecar{{Authz: "unix:" + g.socket}},
		// Generous: two cores are shared by everything here. What a short timeout
		// does has its own test.
		AuthzTimeout: time.Second,
	}
	if edit != nil {
		edit(&g.cfg)
	}
	g.serveAuthz(t, extra...)

	var err error
	g.server, err = xds.NewServer(t.Context(), g.cfg, slog.New(slog.NewTextHandler(&lockedWriter{w: g.log}, nil)), g.counts)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.server.Update(t.Context(), view(t, 1, services())); err != nil {
		t.Fatal(err)
	}
	ads := grpc.NewServer()
	g.server.Register(ads)
	g.ads = filepath.Join(dir, "ads.sock")
	serve(t, ads, g.ads)
	g.envoy = envoytest.Start(t, envoytest.Options{ADS: "unix:" + g.ads})
	return g
}

func (g *gate) serveAuthz(t testing.TB, extra ...func(*grpc.Server)) {
	g.grpc = grpc.NewServer()
	authv3.RegisterAuthorizationServer(g.grpc, g.authz)
	extprocv3.RegisterExternalProcessorServer(g.grpc, &g.streams)
	for _, register := range extra {
		register(g.grpc)
	}
	serve(t, g.grpc, g.socket)
}

func serve(t testing.TB, s *grpc.Server, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// waitFor waits for the thing itself.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}
