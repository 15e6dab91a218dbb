package xds_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/dspgate/dspgate/envoy/envoytest"
	"github.com/dspgate/dspgate/envoy/xds"
	"github.com/dspgate/dspgate/registry"
)

const lookup = "/registry/v1/abns/53004085616"

func (g *gate) get(t testing.TB, path string) *http.Response {
	t.Helper()
	return g.raw(t, get(path, "localhost", good))
}

func TestEnvoyAcceptsTheSnapshot(t *testing.T) {
	g := startGate(t, nil)
	waitFor(t, "an acknowledgement of everything", g.server.Synced)
	if n := g.counts.rejected.Load(); n != 0 {
		t.Errorf("envoy rejected %d resources: %s", n, g.log)
	}
	resp := g.get(t, lookup)
	if resp == nil || resp.StatusCode != 200 || resp.Header.Get("x-request-id") == "" {
		t.Fatalf("a good call: %v", resp)
	}
	for h := range resp.Header {
		if strings.HasPrefix(strings.ToLower(h), "x-envoy-") {
			t.Errorf("the caller sees %s", h)
		}
	}
	// Both hosts of PROD and the one of EVTE have all the services.
	for _, host := range []string{"127.0.0.1", "evte.localhost:1234"} {
		if resp := g.raw(t, get(lookup, host, good)); resp == nil || resp.StatusCode != 200 {
			t.Errorf("host %s: %v", host, resp)
		}
	}
}

// A denial by the authorizer is a local reply of Envoy's too.
func TestDenialPassesUntouched(t *testing.T) {
	g := startGate(t, nil)
	for token, want := range map[string]int{"": 401, "authorization: Bearer other\r\n": 403} {
		resp := g.raw(t, get(lookup, "localhost", token))
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != want || string(body) != denyBody || resp.Header.Get("content-type") != "application/problem+json" || resp.Header.Get("x-request-id") == "" {
			t.Errorf("answered %d %s, body %s", resp.StatusCode, resp.Header, body)
		}
	}
	for _, code := range []int{400, 429, 503} {
		g.authz.mu.Lock()
		g.authz.answer = func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return deny("x", code, "anything"), nil }
		g.authz.mu.Unlock()
		resp := g.get(t, lookup)
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != code || string(body) != denyBody {
			t.Errorf("denied with %d: answered %d, body %s", code, resp.StatusCode, body)
		}
	}
}

// TestAuthorizerFails is X01, X03 and X05: whatever goes wrong, nothing passes.
func TestAuthorizerFails(t *testing.T) {
	g := startGate(t, func(c *xds.Config) { c.AuthzTimeout = 250 * time.Millisecond })
	refused := func(t *testing.T) {
		t.Helper()
		g.up.drain()
		resp := g.get(t, lookup)
		if resp == nil || resp.StatusCode != 503 || resp.Header.Get("retry-after") != "1" {
			t.Errorf("answered %v", resp)
		} else {
			checkProblem(t, resp, 503, "authorizer-unavailable")
		}
		if n := len(g.up.drain()); n != 0 {
			t.Errorf("%d requests reached the upstream", n)
		}
	}
	release := make(chan struct{})
	for name, answer := range map[string]func(r *authv3.CheckRequest) (*authv3.CheckResponse, error){
		"X05-error": func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return nil, status.Error(codes.Internal, "x")
		},
		"X05-empty": func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return &authv3.CheckResponse{}, nil },
		"X05-OK-and-no-more": func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
			r := allow("x")
			r.HttpResponse, r.DynamicMetadata = nil, nil
			return r, nil
		},
		"no-decision-ID": func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
			r := allow("x")
			delete(r.DynamicMetadata.Fields, xds.MetadataDecisionID)
			return r, nil
		},
		"allowed-for-a-reason-not-ok": func(r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			a := allow("01HZZZZZZZ0000000000000000")
			a.DynamicMetadata = metadata("01HZZZZZZZ0000000000000000", "product-suspended")
			return a, nil
		},
		"X03-late": func(r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			<-release
			return allow("01HZZZZZZZ0000000000000000"), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			g.authz.mu.Lock()
			g.authz.answer = answer
			g.authz.mu.Unlock()
			refused(t)
		})
	}
	close(release)
	g.authz.mu.Lock()
	g.authz.answer = nil
	g.authz.mu.Unlock()

	t.Run("X01-dead", func(t *testing.T) {
		g.grpc.Stop()
		refused(t)
		// A gRPC caller gets a gRPC status, and the sentence.
		resp := g.raw(t, "POST /dspgate.sample.v1.Sample/Chat HTTP/1.1\r\nhost: localhost\r\n"+good+"content-type: application/grpc\r\ncontent-length: 0\r\n\r\n")
		if resp == nil || resp.StatusCode != 200 || resp.Header.Get("grpc-status") != "14" || !strings.Contains(resp.Header.Get("grpc-message"), "authorizer-unavailable") {
			t.Errorf("a gRPC caller got %v", resp)
		}
		g.serveAuthz(t)
		waitFor(t, "a call to pass again", func() bool { resp := g.get(t, lookup); return resp != nil && resp.StatusCode == 200 })
	})
}

// TestBodyGoesToTheAuthorizer is F19: only for the service that says so, whole
// or not at all.
func TestBodyGoesToTheAuthorizer(t *testing.T) {
	g := startGate(t, nil)
	post := func(path, body string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+g.envoy.Ingress+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("authorization", "Bearer good")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	const tick = "/super/v1/member-verifications"
	for _, c := range []struct {
		path, body string
		status     int
		toCheck    int
		checks     int
	}{
		{"/lodgments/v1/payroll-events", "payroll", 200, 0, 1},
		{"/lodgments/v1/payroll-events", strings.Repeat("x", 200<<10), 200, 0, 1},
		{tick, `{"tfn":"1"}`, 200, len(`{"tfn":"1"}`), 1},
		{tick, strings.Repeat("x", 64<<10), 200, 64 << 10, 1},
		{tick, strings.Repeat("x", 64<<10+1), 413, 0, 0},
	} {
		g.authz.drain()
		g.up.drain()
		resp := post(c.path, c.body)
		checks, arrivals := g.authz.drain(), g.up.drain()
		if resp.StatusCode != c.status || len(checks) != c.checks {
			t.Errorf("%s with %d bytes: %d, %d checks", c.path, len(c.body), resp.StatusCode, len(checks))
			continue
		}
		if c.status == 413 {
			checkProblem(t, resp, 413, "body-too-large")
			continue
		}
		h := checks[0].GetAttributes().GetRequest().GetHttp()
		if n := len(h.GetRawBody()) + len(h.GetBody()); n != c.toCheck {
			t.Errorf("%s with %d bytes: the authorizer saw %d", c.path, len(c.body), n)
		}
		if len(arrivals) != 1 || string(arrivals[0].Body) != c.body {
			t.Errorf("%s: the upstream did not see the body", c.path)
		}
	}
}

// TestSlowHeaders is F17.
func TestSlowHeaders(t *testing.T) {
	g := startGate(t, func(c *xds.Config) {
		c.RequestHeadersTimeout = 200 * time.Millisecond
		c.RequestTimeout = 300 * time.Millisecond
	})
	resp := g.raw(t, "GET "+lookup+" HTTP/1.1\r\nhost: localhost\r\n")
	if resp == nil || resp.StatusCode != 408 {
		t.Errorf("headers that never end: %v", resp)
	}
	resp = g.raw(t, post("/lodgments/v1/payroll-events", "content-length: 10\r\n\r\nab"))
	if resp == nil || resp.StatusCode != 408 && resp.StatusCode != 504 {
		t.Errorf("a body that never ends: %v", resp)
	}
}

func TestStreamingServices(t *testing.T) {
	// Shorter than the streams below last: it must not end them.
	g := startGate(t, func(c *xds.Config) { c.RequestTimeout = 100 * time.Millisecond })
	t.Run("SSE", func(t *testing.T) {
		conn, r := g.dial(t, get("/events/v1/notices", "localhost", good))
		defer conn.Close()
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		body := bufio.NewReader(resp.Body)
		for range 3 {
			if line, err := body.ReadString('\n'); err != nil || !strings.HasPrefix(line, "data:") {
				t.Fatal(line, err)
			}
			_, _ = body.ReadString('\n')
		}
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := body.ReadByte(); !os.IsTimeout(err) {
			t.Errorf("the stream ended: %v", err)
		}
	})
	t.Run("WebSocket", func(t *testing.T) {
		conn, r := g.dial(t, get("/events/v1/socket", "localhost", good, "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"))
		defer conn.Close()
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 101 {
			t.Fatal(resp, err)
		}
		for _, word := range []string{"ping", "pong"} {
			if _, err := io.WriteString(conn, word); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			if _, err := io.ReadFull(r, got); err != nil || string(got) != word {
				t.Fatalf("%q %v", got, err)
			}
		}
	})
	t.Run("WebSocket without a token", func(t *testing.T) {
		resp := g.raw(t, get("/events/v1/socket", "localhost", "connection: Upgrade\r\nupgrade: websocket\r\n"))
		if resp == nil || resp.StatusCode != 401 {
			t.Errorf("answered %v", resp)
		}
	})
	t.Run("gRPC", func(t *testing.T) {
		resp := g.raw(t, "POST /dspgate.sample.v1.Sample/Chat HTTP/1.1\r\nhost: localhost\r\n"+good+"content-type: application/grpc\r\ncontent-length: 0\r\n\r\n")
		if resp == nil || resp.StatusCode != 200 {
			t.Fatalf("answered %v", resp)
		}
	})
	t.Run("upload", func(t *testing.T) {
		pr, pw := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", "http://"+g.envoy.Ingress+"/lodgments/v1/bulk/7", pr)
		req.Header.Set("authorization", "Bearer good")
		go func() {
			for range 4 {
				_, _ = pw.Write(bytes.Repeat([]byte("x"), 64<<10))
				time.Sleep(50 * time.Millisecond) // beyond RequestTimeout in all
			}
			pw.Close()
		}()
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("answered %s", resp.Status)
		}
	})
}

func (g *gate) dial(t testing.TB, request string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", g.envoy.Ingress)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// TestHotReload: a new service is there without a restart, a suspension is no
// news for Envoy, and neither drains a listener.
func TestHotReload(t *testing.T) {
	g := startGate(t, nil)
	waitFor(t, "an acknowledgement", g.server.Synced)
	conn, r := g.dial(t, get(lookup, "localhost", good))
	defer conn.Close()
	again := func() {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("on a connection from before: %v %v", resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.Close {
			t.Error("the connection is being drained")
		}
	}
	again()
	more := append(services(), registry.Service{Key: "agents.list", Method: "GET", Template: "/agents/v1/clients", Risk: 3})
	if err := g.server.Update(t.Context(), view(t, 2, more)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new service", func() bool { resp := g.get(t, "/agents/v1/clients"); return resp != nil && resp.StatusCode == 200 })
	if err := g.server.Update(t.Context(), view(t, 3, more)); err != nil || g.counts.pushed.Load() != 2 {
		t.Errorf("a revision with the same services: %v, %d pushed", err, g.counts.pushed.Load())
	}
	if _, err := io.WriteString(conn, get(lookup, "localhost", good)); err != nil {
		t.Fatal(err)
	}
	again()
	waitFor(t, "an acknowledgement", g.server.Synced)
	if err := g.server.Update(t.Context(), view(t, 4, services())); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the service to be gone", func() bool { resp := g.get(t, "/agents/v1/clients"); return resp != nil && resp.StatusCode == 403 })
	stats, err := g.envoy.Get(t.Context(), "/stats?filter=listener_manager.listener_(modified|removed)")
	if err != nil || !strings.Contains(stats, "listener_modified: 0") || !strings.Contains(stats, "listener_removed: 0") {
		t.Errorf("listeners were churned: %s %v", stats, err)
	}
}

// An Envoy that rejects an update keeps the last good configuration, the next
// Envoy gets that one as well, and it is not sent the bad one in a tight loop.
func TestRejectedUpdateIsRolledBack(t *testing.T) {
	g := startGate(t, func(c *xds.Config) {
		c.ServiceUpstreams = map[string]xds.Upstream{"late.get": {Address: "localhost:1", CA: "/there/is/no/such/file.pem"}}
	})
	waitFor(t, "an acknowledgement", g.server.Synced)
	bad := append(services(), registry.Service{Key: "late.get", Method: "GET", Template: "/late"})
	if err := g.server.Update(t.Context(), view(t, 2, bad)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a rejection", func() bool { return g.counts.rejected.Load() > 0 })
	waitFor(t, "the good one again", g.server.Synced)
	if resp := g.get(t, lookup); resp == nil || resp.StatusCode != 200 {
		t.Errorf("after it: %v", resp)
	}
	next := envoytest.Start(t, envoytest.Options{ADS: "unix:" + g.ads})
	g.envoy = next
	if resp := g.get(t, lookup); resp == nil || resp.StatusCode != 200 {
		t.Errorf("a new Envoy: %v", resp)
	}
	if n := g.counts.rejected.Load(); n > 2 {
		t.Errorf("%d rejections: it was sent again and again", n)
	}
	// The next change is tried whole.
	if err := g.server.Update(t.Context(), view(t, 3, services()[2:])); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a service to be gone", func() bool { resp := g.get(t, lookup); return resp != nil && resp.StatusCode == 403 })
}

// What breaks a rule, or cannot be made, is not served.
func TestRefusedConfigurations(t *testing.T) {
	ok := xds.Config{
		Ingress: "127.0.0.1:0", Hosts: map[string]registry.Environment{"localhost": registry.PROD},
		Upstream: xds.Upstream{Address: "127.0.0.1:1"}, Sidecars: []xds.Sidecar{{Authz: "unix:/a"}},
	}
	if _, err := xds.Snapshot(view(t, 1, services()), ok, "1"); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*xds.Config){
		"ingress without a port":       func(c *xds.Config) { c.Ingress = "127.0.0.1" },
		"ingress by name":              func(c *xds.Config) { c.Ingress = "localhost:80" },
		"TLS without files":            func(c *xds.Config) { c.IngressTLS = "127.0.0.1:1" },
		"no host":                      func(c *xds.Config) { c.Hosts = nil },
		"a wildcard host":              func(c *xds.Config) { c.Hosts = map[string]registry.Environment{"*": registry.PROD} },
		"a wildcard suffix":            func(c *xds.Config) { c.Hosts = map[string]registry.Environment{"*.example": registry.PROD} },
		"a host with a port":           func(c *xds.Config) { c.Hosts = map[string]registry.Environment{"localhost:80": registry.PROD} },
		"a host of no environment":     func(c *xds.Config) { c.Hosts = map[string]registry.Environment{"localhost": 0} },
		"a host of two environments":   func(c *xds.Config) { c.Hosts = map[string]registry.Environment{"a": registry.PROD, "A": registry.EVTE} },
		"no upstream":                  func(c *xds.Config) { c.Upstream.Address = "" },
		"an upstream without a port":   func(c *xds.Config) { c.Upstream.Address = "host" },
		"a relative socket":            func(c *xds.Config) { c.Upstream.Address = "unix:a" },
		"a TLS upstream without name":  func(c *xds.Config) { c.Upstream = xds.Upstream{Address: "unix:/a", CA: "/ca"} },
		"no sidecar":                   func(c *xds.Config) { c.Sidecars = nil },
		"two sidecars without an id":   func(c *xds.Config) { c.Sidecars = append(c.Sidecars, c.Sidecars[0]) },
		"a decision that takes long":   func(c *xds.Config) { c.AuthzTimeout = 5 * time.Second },
		"a negative timeout":           func(c *xds.Config) { c.RequestTimeout = -1 },
		"headers without a bound":      func(c *xds.Config) { c.MaxHeaderKiB = 1 << 20 },
		"a problem base with a quote":  func(c *xds.Config) { c.ProblemBase = "https://\"/" },
		"a problem base with operator": func(c *xds.Config) { c.ProblemBase = "https://%REQ(authorization)%/" },
	} {
		c := ok
		edit(&c)
		if _, err := xds.Snapshot(view(t, 1, services()), c, "1"); !errors.Is(err, xds.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, boot := range map[string]xds.BootstrapConfig{
		"admin for everybody": {NodeID: "a", Admin: "0.0.0.0:1", Sidecars: []string{"unix:/a"}},
		"admin by name":       {NodeID: "a", Admin: "localhost:1", Sidecars: []string{"unix:/a"}},
		"no node":             {Admin: "127.0.0.1:1", Sidecars: []string{"unix:/a"}},
		"no sidecar":          {NodeID: "a", Admin: "127.0.0.1:1"},
	} {
		if _, err := xds.Bootstrap(boot); !errors.Is(err, xds.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of several sidecars one may die: those that are left decide.
func TestSeveralSidecars(t *testing.T) {
	ready := func(s *grpc.Server) {
		h := health.NewServer()
		h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
		healthpb.RegisterHealthServer(s, h)
	}
	second, other := filepath.Join(t.TempDir(), "b.sock"), grpc.NewServer()
	b := &authorizer{}
	authv3.RegisterAuthorizationServer(other, b)
	ready(other)
	serve(t, other, second)
	g := startGate(t, func(c *xds.Config) {
		c.Sidecars[0].ID = "a"
		c.Sidecars = append(c.Sidecars, xds.Sidecar{ID: "b", Authz: "unix:" + second})
	}, ready)
	waitFor(t, "both to be asked", func() bool {
		if resp := g.get(t, lookup); resp == nil || resp.StatusCode != 200 {
			t.Fatalf("answered %v", resp)
		}
		g.authz.mu.Lock()
		defer g.authz.mu.Unlock()
		b.mu.Lock()
		defer b.mu.Unlock()
		return g.authz.allows > 0 && b.allows > 0
	})
	g.grpc.Stop()
	inRow := 0
	waitFor(t, "the other to decide alone", func() bool {
		g.up.drain()
		resp := g.get(t, lookup)
		switch {
		case resp != nil && resp.StatusCode == 200:
			inRow++
		case resp != nil && resp.StatusCode == 503 && len(g.up.drain()) == 0:
			inRow = 0
		default:
			t.Fatalf("answered %v", resp)
		}
		return inRow == 50
	})
}

// The connections of all clients together are bounded by the bootstrap.
func TestConnectionLimit(t *testing.T) {
	g := startGate(t, nil)
	g.envoy = envoytest.Start(t, envoytest.Options{ADS: "unix:" + g.ads, MaxConnections: 3})
	for range 3 {
		conn, r := g.dial(t, get(lookup, "localhost", good))
		defer conn.Close()
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
	}
	if resp := g.get(t, lookup); resp != nil {
		t.Errorf("one connection too many was served: %v", resp)
	}
}

// TestOnlyStreamsAreWatched: a side stream costs; ordinary calls have none, and
// a stream without one does not begin.
func TestOnlyStreamsAreWatched(t *testing.T) {
	g := startGate(t, nil)
	if resp := g.raw(t, get(lookup, "localhost", good)); resp == nil || resp.StatusCode != 200 {
		t.Fatal(resp)
	}
	if n := g.streams.opened.Load(); n != 0 {
		t.Errorf("%d side streams beside an ordinary call", n)
	}
	upload := "PUT /lodgments/v1/bulk/7 HTTP/1.1\r\nhost: localhost\r\n" + good + "content-length: 2\r\n\r\nab"
	if resp := g.raw(t, upload); resp == nil || resp.StatusCode != 200 {
		t.Fatal(resp)
	}
	if n := g.streams.opened.Load(); n != 1 {
		t.Errorf("%d side streams beside an upload", n)
	}
	g.up.drain()
	g.streams.refuse.Store(true)
	resp := g.raw(t, upload)
	if resp == nil {
		t.Fatal("nobody to watch: no answer")
	}
	checkProblem(t, resp, 503, "authorizer-unavailable")
	if n := len(g.up.drain()); n != 0 {
		t.Error("a stream that nobody watches reached the upstream")
	}
}
