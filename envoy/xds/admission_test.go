package xds_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/dspgate/dspgate/envoy/headers"
	"github.com/dspgate/dspgate/envoy/xds"
)

// notAfter makes the authorizer end its admissions at an instant; "" at none.
func (g *gate) notAfter(ms string) {
	g.authz.mu.Lock()
	defer g.authz.mu.Unlock()
	g.authz.answer = func(r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		resp, err := g.authz.decide(r)
		if ok := resp.GetOkResponse(); ok != nil && ms != "" {
			ok.Headers = append(ok.Headers, &corev3.HeaderValueOption{
				Header: &corev3.HeaderValue{Key: headers.NotAfter, Value: ms}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			})
		}
		return resp, err
	}
}

// TestEnvoyRefusesAnAdmissionThatIsOver is X07 as far as Envoy can see.
func TestEnvoyRefusesAnAdmissionThatIsOver(t *testing.T) {
	g := startGate(t, func(c *xds.Config) { c.Admission = true })
	in := func(d time.Duration) string { return fmt.Sprintf("%013d", time.Now().Add(d).UnixMilli()) }
	const chat = "POST /dspgate.sample.v1.Sample/Chat HTTP/1.1\r\nhost: localhost\r\n" + good + "content-type: application/grpc\r\ncontent-length: 0\r\n\r\n"
	for name, ms := range map[string]string{
		"over": in(-time.Millisecond), "long over": in(-time.Hour), "absent": "", "empty": " ", "not a number": "!",
	} {
		t.Run(name, func(t *testing.T) {
			g.notAfter(ms)
			g.up.drain()
			resp := g.get(t, lookup)
			if resp == nil || resp.StatusCode != 503 || resp.Header.Get("retry-after") != "1" {
				t.Fatalf("answered %v", resp)
			}
			checkProblem(t, resp, 503, "admission-expired")
			resp = g.raw(t, chat)
			if resp == nil || resp.StatusCode != 200 || resp.Header.Get("grpc-status") != "14" || !strings.Contains(resp.Header.Get("grpc-message"), "admission-expired") {
				t.Errorf("a gRPC caller got %v", resp)
			}
			// A forged present or end does not help.
			if resp := g.raw(t, get(lookup, "localhost", good, "x-dsp-now: 0000000000000\r\n", "x-dsp-not-after: 9999999999999\r\n")); resp == nil || resp.StatusCode != 503 {
				t.Errorf("with a forged present: %v", resp)
			}
			if n := len(g.up.drain()); n != 0 {
				t.Errorf("%d requests reached the upstream", n)
			}
		})
	}
	t.Run("lasts", func(t *testing.T) {
		g.notAfter(in(time.Minute))
		g.up.drain()
		if resp := g.raw(t, get(lookup, "localhost", good, "x-dsp-now: 9999999999999\r\n", "x-dsp-not-after: 0000000000000\r\n")); resp == nil || resp.StatusCode != 200 {
			t.Fatalf("answered %v", resp)
		}
		if resp := g.raw(t, chat); resp == nil || resp.StatusCode != 200 || resp.Header.Get("grpc-status") != "" {
			t.Errorf("a gRPC caller got %v", resp)
		}
		all := g.up.drain()
		if len(all) != 2 {
			t.Fatalf("%d requests reached the upstream", len(all))
		}
		for _, a := range all {
			for _, h := range []string{headers.Now, headers.NotAfter} {
				if v := a.Header.Values(h); len(v) > 0 {
					t.Errorf("the upstream sees %s: %v", h, v)
				}
			}
		}
	})
	// What was refused for another reason, or has no route, says so as before.
	g.notAfter(in(time.Minute))
	checkProblem(t, g.raw(t, get("/nowhere", "localhost", good)), 403, "service-unknown")
	checkProblem(t, g.raw(t, get(lookup, "other.example", good)), 404, "host-unknown")
	g.notAfter("")
	checkProblem(t, g.raw(t, get(lookup, "other.example", good)), 404, "host-unknown")
	if resp := g.raw(t, get(lookup, "localhost")); resp == nil || resp.StatusCode != 401 {
		t.Errorf("no token: %v", resp)
	}
	checkProblem(t, g.raw(t, strings.Replace(get(lookup, "localhost", good), "GET", "TRACE", 1)), 405, "method-not-allowed")
}
