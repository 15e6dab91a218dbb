package xds

import (
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/envoy/headers"
	"github.com/dspgate/dspgate/registry"
)

// envoyMatch chooses a route as Envoy does: the first whose method and whole
// path match.
func envoyMatch(vh *routev3.VirtualHost, method, path string) string {
	for _, r := range vh.GetRoutes() {
		m := r.GetMatch()
		if hs := m.GetHeaders(); len(hs) > 0 && hs[0].GetStringMatch().GetExact() != method {
			continue
		}
		switch {
		case m.GetPrefix() != "" && strings.HasPrefix(path, m.GetPrefix()),
			m.GetPath() != "" && m.GetPath() == path,
			m.GetSafeRegex() != nil && regexp.MustCompile(`\A(?:`+m.GetSafeRegex().GetRegex()+`)\z`).MatchString(path):
			return r.GetName()
		}
	}
	return "none"
}

// Envoy and the register must find the same service for every path, or one
// would be decided upon and another called.
func TestEnvoyFindsTheRouteTheRegisterFinds(t *testing.T) {
	segment := rapid.SampledFrom([]string{"a", "b", "a.c", "axc", "v1", "$x", "{p}", "{q}"})
	rapid.Check(t, func(t *rapid.T) {
		var all []registry.Service
		seen := map[string]bool{}
		for i := range rapid.IntRange(0, 8).Draw(t, "services") {
			tmpl := ""
			used := map[string]bool{}
			for range rapid.IntRange(1, 4).Draw(t, "segments") {
				s := segment.Draw(t, "segment")
				if used[s] && s[0] == '{' {
					s = "a"
				}
				used[s] = true
				tmpl += "/" + s
			}
			method := rapid.SampledFrom([]string{"GET", "POST"}).Draw(t, "method")
			shape := method + strings.ReplaceAll(tmpl, "{q}", "{p}")
			if seen[shape] {
				continue
			}
			seen[shape] = true
			all = append(all, registry.Service{Key: fmt.Sprint("s", i), Method: method, Template: tmpl})
		}
		v := lintView(rapidTB{t: t}, all...)
		snap, err := Snapshot(v, lintConfig(), "1")
		if err != nil {
			t.Fatal(err)
		}
		if err := Lint(snap); err != nil {
			t.Fatal(err)
		}
		vh := snap.GetResources(resourcev3.RouteType)[routesName].(*routev3.RouteConfiguration).GetVirtualHosts()[0]
		word := rapid.SampledFrom([]string{"a", "b", "a.c", "axc", "v1", "$x", "zz", "a;b", "%41", "", "é"})
		for range 20 {
			path := ""
			for range rapid.IntRange(1, 4).Draw(t, "depth") {
				path += "/" + word.Draw(t, "word")
			}
			method := rapid.SampledFrom([]string{"GET", "POST", "PUT"}).Draw(t, "method")
			want := routeUnknown
			var m registry.Match
			if registry.CleanPath(path) {
				if v.Route(method, path, &m); m.Service != nil {
					want = m.Service.Key
				}
			}
			if got := envoyMatch(vh, method, path); got != want {
				t.Fatalf("%s %s: Envoy finds %s, the register %s", method, path, got, want)
			}
		}
	})
}

// rapidTB lets a helper for tests be used in a property.
type rapidTB struct {
	testing.TB
	t *rapid.T
}

func (r rapidTB) Helper()           {}
func (r rapidTB) Fatal(args ...any) { r.t.Fatal(args...) }

func TestNotAnyRegex(t *testing.T) {
	word := rapid.StringMatching(`[abk.]{0,4}`)
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(word, 0, 5).Draw(t, "words")
		re := regexp.MustCompile(`\A(?:` + notAnyRegex(words) + `)\z`)
		for _, s := range append(words, word.Draw(t, "s"), "ok", "a", "") {
			if re.MatchString(s) == slices.Contains(words, s) {
				t.Fatalf("not any of %q matches %q: %v", words, s, re.MatchString(s))
			}
		}
	})
}

func TestSnapshotIsPure(t *testing.T) {
	a, b := lintSnapshot(t), lintSnapshot(t)
	stamp(a)
	stamp(b)
	for _, typ := range []resourcev3.Type{resourcev3.ListenerType, resourcev3.RouteType, resourcev3.ClusterType, resourcev3.SecretType} {
		v := a.GetVersion(typ)
		if v != b.GetVersion(typ) {
			t.Errorf("%s: the same arguments made different resources", typ)
		}
		if _, err := hex.DecodeString(v); err != nil || len(v) != 16 {
			t.Errorf("%s: version %q", typ, v)
		}
	}
	// A service more changes the routes and nothing else.
	cfg := lintConfig()
	one, err := Snapshot(lintView(t, registry.Service{Key: "a", Method: "GET", Template: "/a"}), cfg, "1")
	if err != nil {
		t.Fatal(err)
	}
	two, err := Snapshot(lintView(t, registry.Service{Key: "a", Method: "GET", Template: "/a"}, registry.Service{Key: "b", Method: "GET", Template: "/b"}), cfg, "2")
	if err != nil {
		t.Fatal(err)
	}
	stamp(one)
	stamp(two)
	for typ, same := range map[resourcev3.Type]bool{resourcev3.ListenerType: true, resourcev3.ClusterType: true, resourcev3.SecretType: true, resourcev3.RouteType: false} {
		if (one.GetVersion(typ) == two.GetVersion(typ)) != same {
			t.Errorf("%s: same version is %v", typ, !same)
		}
	}
}

// No private key passes through the sidecar.
func TestSecretsArePathsOnly(t *testing.T) {
	for _, r := range lintSnapshot(t).GetResources(resourcev3.SecretType) {
		s := r.(*tlsv3.Secret)
		if s.GetTlsCertificate() != nil && s.GetTlsCertificate().GetPrivateKey().GetFilename() != "/tls/server.key" {
			t.Errorf("the private key is %v", s.GetTlsCertificate().GetPrivateKey())
		}
	}
}

func TestOnlyTheServicesThatSaySo(t *testing.T) {
	rc := lintSnapshot(t).GetResources(resourcev3.RouteType)[routesName].(*routev3.RouteConfiguration)
	if got := len(rc.GetVirtualHosts()); got != 2 {
		t.Fatalf("%d virtual hosts", got)
	}
	for _, vh := range rc.GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			if body := r.GetTypedPerFilterConfig()[filterExtAuthz] != nil; body != (r.GetName() == "a.body") {
				t.Errorf("%s: an override of the authorizer: %v", r.GetName(), body)
			}
			if leash := r.GetTypedPerFilterConfig()[filterStreams] != nil; leash != (r.GetName() == "c.socket" || r.GetName() == "d.chat") {
				t.Errorf("%s: a side stream: %v", r.GetName(), leash)
			}
			if up := len(r.GetRoute().GetUpgradeConfigs()) > 0; up != (r.GetName() == "c.socket") {
				t.Errorf("%s: an upgrade: %v", r.GetName(), up)
			}
			if long := r.GetRoute() != nil && r.GetRoute().GetTimeout().AsDuration() == 0; long != (r.GetName() == "c.socket" || r.GetName() == "d.chat") {
				t.Errorf("%s: no request timeout: %v", r.GetName(), long)
			}
		}
	}
}

// The list of headers must hold every header the authorizer sets: what it sets
// may not be sent by a client.
func TestWhatIsSetIsForged(t *testing.T) {
	for _, h := range headers.Set() {
		if !headers.Forged(h) {
			t.Errorf("a client may send %s", h)
		}
	}
	for _, h := range append(headers.ToCheck(), "accept", "content-length", "host", "te", "grpc-timeout", "user-agent", "cookie") {
		if h != "x-request-id" && headers.Forged(h) {
			t.Errorf("a client may not send %s", h)
		}
	}
	all := append(headers.Removed(), headers.RemovedPrefixes()...)
	if slices.ContainsFunc(all, func(h string) bool { return h != strings.ToLower(h) }) {
		t.Error("the list is not in lower case")
	}
	set := map[string]bool{}
	for _, h := range all {
		set[h] = true
	}
	if len(slices.Collect(maps.Keys(set))) != len(all) {
		t.Error("the list holds a header twice")
	}
}

func TestListenersDifferInNothingButTLS(t *testing.T) {
	ls := lintSnapshot(t).GetResources(resourcev3.ListenerType)
	plain, tls := ls[ListenerPlain].(*listenerv3.Listener), ls[ListenerTLS].(*listenerv3.Listener)
	b := &builder{cfg: lintConfig()}
	b.cfg, _ = b.cfg.withDefaults()
	if plain.GetFilterChains()[0].GetTransportSocket() != nil || tls.GetFilterChains()[0].GetTransportSocket() == nil {
		t.Error("TLS is on the wrong listener")
	}
	l := &linter{}
	l.sameAs("plain", plain.GetFilterChains()[0].GetFilters()[0].GetTypedConfig(), b.connectionManager(ListenerPlain))
	l.sameAs("tls", tls.GetFilterChains()[0].GetFilters()[0].GetTypedConfig(), b.connectionManager(ListenerTLS))
	if len(l.broken) > 0 {
		t.Error(l.broken)
	}
}
