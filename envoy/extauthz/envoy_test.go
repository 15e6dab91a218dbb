package extauthz_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	alsdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/envoy/envoytest"
	"github.com/dspgate/dspgate/envoy/extauthz"
	"github.com/dspgate/dspgate/envoy/xds"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// byClaim decides by what x-product-id says: the code of a reason, or anything
// else for ok. It remembers what it decided.
type byClaim struct {
	ids  *authz.IDs
	mu   sync.Mutex
	made map[string]authz.Reason
}

func (b *byClaim) Decide(r *authz.Request, d *authz.Decision) {
	now := time.Now()
	*d = authz.Decision{
		ID: b.ids.Next(now), At: now, Revision: 42, Environment: registry.PROD, Holder: 65000000101, Version: "5.0",
		Product: &registry.Product{ID: "FP-1001"}, Service: &registry.Service{Key: "abr.lookup"}, RetryAfter: 7 * time.Second,
	}
	if r.ClaimProductID == "panic" {
		panic("asked for")
	}
	d.Reason, _ = authz.ParseReason(strings.Clone(r.ClaimProductID))
	if r.Authorizations != 1 || r.Duplicated {
		d.Reason = authz.RequestAmbiguous
	}
	b.mu.Lock()
	b.made[d.ID.String()] = d.Reason
	b.mu.Unlock()
}

func (b *byClaim) reason(id string) (authz.Reason, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.made[id]
	return r, ok
}

// logs keeps the access log; it is served with the generated types on the same
// server, so that Codec has to tell the two apart.
type logs struct {
	alsv3.UnimplementedAccessLogServiceServer
	entries chan *alsdatav3.HTTPAccessLogEntry
}

func (l *logs) StreamAccessLogs(s alsv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			l.entries <- e
		}
	}
}

type gate struct {
	decider *byClaim
	logs    *logs
	arrived chan http.Header
	envoy   *envoytest.Envoy
	client  *http.Client // HTTP/1.1
	h2      *http.Client // HTTP/2 with prior knowledge
}

func startGate(t *testing.T, frames bool) *gate {
	t.Helper()
	g := &gate{
		decider: &byClaim{ids: authz.NewIDs(), made: map[string]authz.Reason{}},
		logs:    &logs{entries: make(chan *alsdatav3.HTTPAccessLogEntry, 1024)},
		arrived: make(chan http.Header, 1024),
	}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.arrived <- r.Header.Clone()
	}))
	t.Cleanup(up.Close)

	s, err := extauthz.New(extauthz.Options{Decider: g.decider})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	socket, authzSocket := filepath.Join(dir, "s"), filepath.Join(dir, "s")
	if frames {
		authzSocket = filepath.Join(dir, "authz")
		serveFrames(t, s, authzSocket)
	}
	ads, err := xds.NewServer(t.Context(), xds.Config{
		Ingress: "127.0.0.1:0", Hosts: map[string]registry.Environment{"127.0.0.1": registry.PROD},
		Upstream:     xds.Upstream{Address: strings.TrimPrefix(up.URL, "http://")},
		Sidecars:     []xds.Sidecar{{Authz: "unix:" + authzSocket, AccessLog: "unix:" + socket}},
		AuthzTimeout: time.Second, // the machine may be busy; the time-out is tested elsewhere
	}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ads.Update(t.Context(), registrytest.View(t, 1,
		registry.Service{Key: "abr.lookup", Method: "GET", Template: "/registry/v1/abns/{abn}", Risk: 1},
		registry.Service{Key: "sample.chat", Method: "POST", Template: "/dspgate.sample.v1.Sample/Chat", Risk: 2, Streaming: "grpc"},
	)); err != nil {
		t.Fatal(err)
	}
	srv := extauthz.NewGRPCServer(extauthz.GRPCOptions{})
	s.Register(srv)
	ads.Register(srv)
	alsv3.RegisterAccessLogServiceServer(srv, g.logs)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	g.envoy = envoytest.Start(t, envoytest.Options{ADS: "unix:" + socket})
	g.client = &http.Client{Transport: &http.Transport{}}
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	g.h2 = &http.Client{Transport: &http.Transport{Protocols: &h2}}
	t.Cleanup(func() { g.client.CloseIdleConnections(); g.h2.CloseIdleConnections() })
	return g
}

func serveFrames(t *testing.T, s *extauthz.Server, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (g *gate) do(t *testing.T, client *http.Client, method, path string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+g.envoy.Ingress+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// only fails when anything arrived upstream.
func (g *gate) nothingArrived(t *testing.T) {
	t.Helper()
	select {
	case h := <-g.arrived:
		t.Errorf("arrived upstream: %v", h)
	default:
	}
}

const lookup = "/registry/v1/abns/65000000101"

func TestRealEnvoyObeysEveryAnswer(t *testing.T) {
	t.Run("grpc-go", func(t *testing.T) { everyAnswer(t, startGate(t, false)) })
	t.Run("frames", func(t *testing.T) { everyAnswer(t, startGate(t, true)) })
}

func everyAnswer(t *testing.T, g *gate) {
	bearer := []string{"authorization", "Bearer a.b.c"}

	t.Run("allow sets who it is and removes what a client claimed", func(t *testing.T) {
		a := g.do(t, g.client, "GET", lookup, append(bearer,
			"x-product-id", "FP-1001", "x-product-version", "5.0", "x-software-id", "1",
			"x-dsp-abn", "99999999999", "x-dsp-client-abn", "99999999999", "x-dsp-software-id", "evil", "x-dsp-product-id", "evil")...)
		if a.status != 200 {
			t.Fatalf("%+v", a)
		}
		h := <-g.arrived
		id := h.Get("x-dsp-decision-id")
		if r, ok := g.decider.reason(id); !ok || r != authz.OK {
			t.Errorf("decision %q reached the upstream", id)
		}
		got := map[string][]string{}
		for k, v := range h {
			if k = strings.ToLower(k); strings.HasPrefix(k, "x-dsp-") || strings.HasPrefix(k, "x-product") || k == "x-software-id" || k == "authorization" {
				got[k] = v
			}
		}
		want := map[string][]string{
			"x-dsp-decision-id": {id}, "x-dsp-abn": {"65000000101"}, "x-dsp-product-id": {"FP-1001"}, "x-dsp-product-version": {"5.0"},
			"x-dsp-service": {"abr.lookup"}, "x-dsp-environment": {"PROD"}, "x-dsp-revision": {"42"},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("the upstream saw (-want +got):\n%s", d)
		}
	})

	t.Run("every denial is a problem with its code", func(t *testing.T) {
		for reason := authz.OK + 1; reason < authz.NReasons; reason++ {
			a := g.do(t, g.client, "GET", lookup, append(bearer, "x-product-id", reason.String())...)
			var body struct {
				Type, Title, Detail, Instance string
				Status                        int
				Errors                        []struct{ ID, Code, Detail string }
			}
			if err := json.Unmarshal([]byte(a.body), &body); err != nil {
				t.Fatalf("%s: %v in %q", reason, err, a.body)
			}
			id := strings.TrimPrefix(body.Instance, "/decisions/")
			if r, ok := g.decider.reason(id); !ok || r != reason {
				t.Errorf("%s: instance %s", reason, body.Instance)
			}
			if a.status != reason.Status() || body.Status != a.status || body.Type != "https://dspgate.example/problems/"+reason.String() ||
				len(body.Errors) != 1 || body.Errors[0].ID != id || body.Errors[0].Code != reason.String() {
				t.Errorf("%s: %+v", reason, a)
			}
			if ct := a.header["Content-Type"]; len(ct) != 1 || ct[0] != "application/problem+json" {
				t.Errorf("%s: content-type %q", reason, ct)
			}
			if a.header.Get("cache-control") != "no-store" || a.header.Get("x-request-id") == "" {
				t.Errorf("%s: headers %v", reason, a.header)
			}
			if got, want := a.header.Get("www-authenticate") != "", a.status == 401; got != want {
				t.Errorf("%s: WWW-Authenticate %v", reason, a.header)
			}
			if got, want := a.header.Get("retry-after"), a.status == 429 || a.status == 503; (got == "7") != want || !want && got != "" {
				t.Errorf("%s: Retry-After %q", reason, got)
			}
		}
		g.nothingArrived(t)
	})

	t.Run("a gRPC caller gets the gRPC status of each denial", func(t *testing.T) {
		for reason := authz.OK + 1; reason < authz.NReasons; reason++ {
			a := g.do(t, g.h2, "POST", "/dspgate.sample.v1.Sample/Chat", append(bearer, "content-type", "application/grpc", "te", "trailers", "x-product-id", reason.String())...)
			if a.status != 200 || a.body != "" {
				t.Errorf("%s: status %d, body %q", reason, a.status, a.body)
			}
			if got := a.header["Grpc-Status"]; len(got) != 1 || got[0] != fmt.Sprint(reason.GRPCStatus()) {
				t.Errorf("%s: grpc-status %q, want %d", reason, got, reason.GRPCStatus())
			}
			if got := a.header["Content-Type"]; len(got) != 1 || got[0] != "application/grpc" {
				t.Errorf("%s: content-type %q", reason, got)
			}
			if got := a.header.Get("grpc-message"); !strings.HasPrefix(got, reason.String()+": ") || !strings.Contains(got, "/decisions/") {
				t.Errorf("%s: grpc-message %q", reason, got)
			}
		}
		g.nothingArrived(t)
	})

	t.Run("a panic is a 503 and nothing more", func(t *testing.T) {
		a := g.do(t, g.client, "GET", lookup, append(bearer, "x-product-id", "panic")...)
		if a.status != 503 || !strings.Contains(a.body, "authorizer-unavailable") {
			t.Errorf("%+v", a)
		}
		if a := g.do(t, g.client, "GET", lookup, bearer...); a.status != 200 {
			t.Errorf("the next call: %+v", a)
		}
		<-g.arrived
	})

	t.Run("headers sent twice are ambiguous", func(t *testing.T) {
		for _, h := range [][]string{
			{"authorization", "Bearer d.e.f"},
			{"x-product-id", "FP-1001", "x-product-id", "FP-1001"},
			{"x-product-version", "1", "X-PRODUCT-VERSION", "2"},
			{"x-software-id", "1", "x-software-id", "2"},
		} {
			for name, client := range map[string]*http.Client{"h1": g.client, "h2": g.h2} {
				if a := g.do(t, client, "GET", lookup, append(bearer[:2:2], h...)...); a.status != 400 || !strings.Contains(a.body, "request-ambiguous") {
					t.Errorf("%s %v: %d %s", name, h, a.status, a.body)
				}
			}
		}
		g.nothingArrived(t)
	})

	t.Run("the access log names the decision, its reason and revision", func(t *testing.T) {
		g.decider.mu.Lock()
		made := len(g.decider.made)
		g.decider.mu.Unlock()
		seen := map[string]bool{}
		deadline := time.After(20 * time.Second)
		for len(seen) < made-1 { // the panic made no decision
			var e *alsdatav3.HTTPAccessLogEntry
			select {
			case e = <-g.logs.entries:
			case <-deadline:
				t.Fatalf("%d of %d decisions reached the access log", len(seen), made)
			}
			md := e.GetCommonProperties().GetMetadata().GetFilterMetadata()["envoy.filters.http.ext_authz"].GetFields()
			id := md["decision_id"].GetStringValue()
			if id == "" {
				continue
			}
			r, ok := g.decider.reason(id)
			if !ok || md["reason"].GetStringValue() != r.String() || md["revision"].GetStringValue() != "42" || seen[id] {
				t.Errorf("entry %v of decision %v", md, r)
			}
			seen[id] = true
		}
	})
}
