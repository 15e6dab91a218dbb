package accesslog_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/envoy/accesslog"
	"github.com/dspgate/dspgate/envoy/envoytest"
	"github.com/dspgate/dspgate/envoy/xds"
	"github.com/dspgate/dspgate/registry"
)

// checker allows who has a token. It forgets to tell the Joiner when the token
// is "unknown": that is what a bypass looks like from here.
type checker struct {
	authv3.UnimplementedAuthorizationServer
	ids *authz.IDs
	j   *accesslog.Joiner
}

func (c *checker) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	now := time.Now()
	id, token := c.ids.Next(now), ""
	for _, h := range r.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		if h.GetKey() == "authorization" {
			token = string(h.GetRawValue())
		}
	}
	said := func(reason string) *structpb.Struct {
		s, err := structpb.NewStruct(map[string]any{xds.MetadataDecisionID: id.String(), xds.MetadataReason: reason, xds.MetadataRevision: "7"})
		if err != nil {
			panic(err)
		}
		return s
	}
	if token == "" {
		return &authv3.CheckResponse{
			Status:          &statuspb.Status{Code: 16},
			HttpResponse:    &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 401}}},
			DynamicMetadata: said("token-missing"),
		}, nil
	}
	if token != "Bearer unknown" {
		c.j.Allowed(id, now)
	}
	return &authv3.CheckResponse{
		Status: &statuspb.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}, DynamicMetadata: said("ok"),
	}, nil
}

type keeper struct {
	mu  sync.Mutex
	all []accesslog.Entry
}

func (k *keeper) Consume(e *accesslog.Entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, *e)
}

func (k *keeper) last(service string) *accesslog.Entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := len(k.all) - 1; i >= 0; i-- {
		if k.all[i].Service == service {
			return &k.all[i]
		}
	}
	return nil
}

// TestConservation runs a real Envoy against the Joiner:
// what is forwarded is matched, what is not is counted by
// its cause, and what nobody allowed raises an alarm.
func TestConservation(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/slow":
			<-r.Context().Done()
		default:
			_, _ = io.WriteString(w, "hello")
		}
	}))
	t.Cleanup(up.Close)
	j, err := accesslog.NewJoiner(accesslog.JoinerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = j.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })

	k := &keeper{}
	g := grpc.NewServer()
	authv3.RegisterAuthorizationServer(g, &checker{ids: authz.NewIDs(), j: j})
	accesslog.NewServer(accesslog.ServerConfig{Joiner: j, Consumers: []accesslog.Consumer{k}}).Register(g)
	socket := filepath.Join(t.TempDir(), "s")
	server, err := xds.NewServer(ctx, xds.Config{
		Ingress: "127.0.0.1:0", Hosts: map[string]registry.Environment{"localhost": registry.PROD},
		Upstream:         xds.Upstream{Address: strings.TrimPrefix(up.URL, "http://")},
		ServiceUpstreams: map[string]xds.Upstream{"dead.get": {Address: "unix:" + socket + ".nobody"}},
		Sidecars:         []xds.Sidecar{{Authz: "unix:" + socket}}, AuthzTimeout: time.Second,
	}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	server.Register(g)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = g.Serve(l) })
	t.Cleanup(g.Stop)
	if err := server.Update(ctx, view(t)); err != nil {
		t.Fatal(err)
	}
	e := envoytest.Start(t, envoytest.Options{ADS: "unix:" + socket})

	call := func(path, token string, timeout time.Duration) int {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+e.Ingress+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "localhost"
		if token != "" {
			req.Header.Set("authorization", token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	wait := func(what string, ok func(accesslog.Counts) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !ok(j.Counts()); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("timed out waiting for %s: %+v", what, j.Counts())
			}
		}
	}
	const n = 50
	for range n {
		if s := call("/individuals/v1/220115957/prefill", "Bearer good", 10*time.Second); s != 200 {
			t.Fatalf("answered %d", s)
		}
	}
	wait("all to be matched", func(c accesslog.Counts) bool { return c.Forwarded == n && c.Open == 0 })
	if got := k.last("piitr.get"); got == nil || got.Status != 200 || got.ResponseBytes != 5 || got.Reason != authz.OK || !got.Reached || got.Decision.IsZero() || got.Duration <= 0 {
		t.Errorf("entry %+v", got)
	}
	call("/individuals/v1/1/prefill", "", 10*time.Second)
	wait("a refusal", func(c accesslog.Counts) bool { return c.Refused == 1 })
	call("/nothing", "Bearer good", 10*time.Second)
	wait("an ALLOW without a route", func(c accesslog.Counts) bool { return c.NotForwarded["no-route"] == 1 })
	call("/dead", "Bearer good", 10*time.Second)
	wait("an ALLOW without an upstream", func(c accesslog.Counts) bool { return c.NotForwarded["upstream-connect-failure"] == 1 })
	// It reached the upstream before the caller hung up: forwarded.
	call("/slow", "Bearer good", 200*time.Millisecond)
	wait("the caller who hung up", func(c accesslog.Counts) bool { return c.Forwarded == n+1 && c.Open == 0 })

	for _, v := range j.Counts().Alarms {
		if v != 0 {
			t.Errorf("alarms in ordinary life: %+v", j.Counts())
		}
	}
	if s := call("/individuals/v1/1/prefill", "Bearer unknown", 10*time.Second); s != 200 {
		t.Fatalf("answered %d", s)
	}
	wait("the alarm", func(c accesslog.Counts) bool { return c.Alarms["unknown-decision"] == 1 })

	// Envoy gone and another in its place: nothing is matched twice, nothing is
	// taken for a bypass.
	e.Kill()
	e = envoytest.Start(t, envoytest.Options{ADS: "unix:" + socket})
	if s := call("/individuals/v1/1/prefill", "Bearer good", 10*time.Second); s != 200 {
		t.Fatalf("answered %d", s)
	}
	wait("the new Envoy's entry", func(c accesslog.Counts) bool { return c.Forwarded == n+2 && c.Alarms["unknown-decision"] == 1 })
}

func view(t testing.TB) *registry.View {
	t.Helper()
	b := registry.NewBuilder(nil, 0)
	for key, template := range map[string]string{"piitr.get": "/individuals/v1/{tfn}/prefill", "slow.get": "/slow", "dead.get": "/dead"} {
		data, err := json.Marshal(registry.Service{Key: key, Method: "GET", Template: template})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Put(&registry.Record{Kind: registry.KindService, ID: key, Revision: 1, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := b.View(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
