package xds

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	cachetypes "github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/dspgate/dspgate/registry"
)

func lintView(t testing.TB, all ...registry.Service) *registry.View {
	t.Helper()
	b := registry.NewBuilder(nil, 0)
	for _, s := range all {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Put(&registry.Record{Kind: registry.KindService, ID: s.Key, Revision: 1, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := b.View(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func lintConfig() Config {
	return Config{
		Ingress: "127.0.0.1:0", IngressTLS: "127.0.0.1:0",
		TLS:      TLSFiles{Certificate: "/tls/server.pem", Key: "/tls/server.key", ClientCA: "/tls/ca.pem"},
		Hosts:    map[string]registry.Environment{"localhost": registry.PROD, "evte.localhost": registry.EVTE},
		Upstream: Upstream{Address: "127.0.0.1:1"},
		Sidecars: []Sidecar{{Authz: "unix:/run/authz.sock"}}, Admission: true,
	}
}

func lintSnapshot(t testing.TB) *cachev3.Snapshot {
	t.Helper()
	snap, err := Snapshot(lintView(t,
		registry.Service{Key: "b.get", Method: "GET", Template: "/a.b/{id}/c"},
		registry.Service{Key: "a.body", Method: "POST", Template: "/a", Subject: registry.Subject{In: "body", Name: "/tfn"}},
		registry.Service{Key: "c.socket", Method: "GET", Template: "/c", Streaming: "websocket"},
		registry.Service{Key: "d.chat", Method: "POST", Template: "/d", Streaming: "grpc"},
	), lintConfig(), "1")
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// fault is a snapshot open for tampering.
type fault struct {
	t        *testing.T
	listener *listenerv3.Listener // the TLS one
	hcm      *hcmv3.HttpConnectionManager
	authz    *extauthzv3.ExtAuthz
	tls      *tlsv3.DownstreamTlsContext
	rc       *routev3.RouteConfiguration
	vh       *routev3.VirtualHost
	route    *routev3.Route // a.body
	clusters map[string]*clusterv3.Cluster
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// planted is a good snapshot after somebody tampered with it.
func planted(t *testing.T, tamper func(*fault)) *cachev3.Snapshot {
	snap := lintSnapshot(t)
	f := &fault{t: t, clusters: map[string]*clusterv3.Cluster{}}
	f.listener = proto.CloneOf(snap.GetResources(resourcev3.ListenerType)[ListenerTLS].(*listenerv3.Listener))
	f.rc = proto.CloneOf(snap.GetResources(resourcev3.RouteType)[routesName].(*routev3.RouteConfiguration))
	f.vh = f.rc.VirtualHosts[0]
	f.route = f.vh.Routes[0]
	for n, c := range snap.GetResources(resourcev3.ClusterType) {
		f.clusters[n] = proto.CloneOf(c.(*clusterv3.Cluster))
	}
	open := func(a *anypb.Any, m proto.Message) {
		if err := a.UnmarshalTo(m); err != nil {
			t.Fatal(err)
		}
	}
	chain := f.listener.FilterChains[0]
	f.hcm, f.authz, f.tls = &hcmv3.HttpConnectionManager{}, &extauthzv3.ExtAuthz{}, &tlsv3.DownstreamTlsContext{}
	open(chain.Filters[0].GetTypedConfig(), f.hcm)
	open(chain.TransportSocket.GetTypedConfig(), f.tls)
	authz := f.hcm.HttpFilters[1]
	open(authz.GetTypedConfig(), f.authz)

	tamper(f)

	authz.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, f.authz)}
	if f.listener.FilterChains != nil {
		chain.Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, f.hcm)}
		if chain.TransportSocket != nil {
			chain.TransportSocket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: pack(t, f.tls)}
		}
	}
	set := func(typ resourcev3.Type, items ...cachetypes.Resource) {
		all := snap.GetResources(typ)
		var list []cachetypes.Resource
		for n, r := range all {
			if !slices.ContainsFunc(items, func(x cachetypes.Resource) bool { return cachev3.GetResourceName(x) == n }) {
				list = append(list, r)
			}
		}
		snap.Resources[cachev3.GetResponseType(typ)] = cachev3.NewResources("2", append(list, items...))
	}
	set(resourcev3.ListenerType, f.listener)
	set(resourcev3.RouteType, f.rc)
	var cs []cachetypes.Resource
	for _, c := range f.clusters {
		cs = append(cs, c)
	}
	snap.Resources[cachev3.GetResponseType(resourcev3.ClusterType)] = cachev3.NewResources("2", cs)
	return snap
}

func (f *fault) authzPerRoute(p *extauthzv3.ExtAuthzPerRoute) {
	f.route.TypedPerFilterConfig = map[string]*anypb.Any{filterExtAuthz: pack(f.t, p)}
}

func (f *fault) insert(i int, name string, m proto.Message) {
	f.hcm.HttpFilters = slices.Insert(f.hcm.HttpFilters, i, &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(f.t, m)}})
}

// streams tampers with the filter that watches over streams.
func (f *fault) streams(tamper func(*extprocv3.ExternalProcessor)) {
	c := watchStreams()
	tamper(c)
	f.filter(filterStreams).ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(f.t, c)}
}

// filter is an HTTP filter by its name.
func (f *fault) filter(name string) *hcmv3.HttpFilter {
	i := slices.IndexFunc(f.hcm.HttpFilters, func(x *hcmv3.HttpFilter) bool { return x.GetName() == name })
	return f.hcm.HttpFilters[i]
}

// streaming is the route of c.socket.
func (f *fault) streaming() *routev3.Route {
	i := slices.IndexFunc(f.vh.Routes, func(r *routev3.Route) bool { return r.GetName() == "c.socket" })
	return f.vh.Routes[i]
}

func wildRegex(re string) *routev3.RouteMatch_SafeRegex {
	return &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: re}}
}

// faults plants at least one fault per rule.
var faults = []struct {
	rule, name string
	tamper     func(*fault)
}{
	{ruleUnpack, "a TCP proxy beside the HTTP manager", func(f *fault) {
		f.listener.FilterChains[0].Filters = append(f.listener.FilterChains[0].Filters, &listenerv3.Filter{Name: "tcp", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(f.t, &rbacv3.RBAC{})}})
	}},
	{ruleUnpack, "no filter chain", func(f *fault) { f.listener.FilterChains = nil }},
	{"listener-fields", "a default filter chain", func(f *fault) { f.listener.DefaultFilterChain = &listenerv3.FilterChain{Name: "x"} }},
	{"listener-fields", "the original destination", func(f *fault) { f.listener.UseOriginalDst = yes() }},
	{"buffer-limit", "none", func(f *fault) { f.listener.PerConnectionBufferLimitBytes = nil }},
	{"tls-1.3", "TLS 1.2", func(f *fault) {
		f.tls.CommonTlsContext.TlsParams.TlsMinimumProtocolVersion = tlsv3.TlsParameters_TLSv1_2
	}},
	{"client-certificate-verified", "any certificate", func(f *fault) { f.tls.CommonTlsContext.ValidationContextType = nil }},
	{"client-certificate-verified", "inline", func(f *fault) {
		f.tls.CommonTlsContext.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustChainVerification: tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
		}}
	}},

	{"manager-fields", "trusted hops", func(f *fault) { f.hcm.XffNumTrustedHops = 1 }},
	{"manager-fields", "HTTP/1.0", func(f *fault) { f.hcm.HttpProtocolOptions.AcceptHttp_10 = true }},
	{"manager-fields", "chunked with a length", func(f *fault) { f.hcm.HttpProtocolOptions.AllowChunkedLength = true }},
	{"manager-fields", "extended CONNECT", func(f *fault) { f.hcm.Http2ProtocolOptions.AllowConnect = true }},
	{"manager-fields", "path transformation", func(f *fault) {
		f.hcm.PathNormalizationOptions = &hcmv3.HttpConnectionManager_PathNormalizationOptions{}
	}},
	{"normalize-path", "off", func(f *fault) { f.hcm.NormalizePath = no() }},
	{"normalize-path", "left to the default", func(f *fault) { f.hcm.NormalizePath = nil }},
	{"merge-slashes", "off", func(f *fault) { f.hcm.MergeSlashes = false }},
	{"escaped-slashes", "unescaped and forwarded", func(f *fault) {
		f.hcm.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD
	}},
	{"underscores", "allowed", func(f *fault) { f.hcm.CommonHttpProtocolOptions.HeadersWithUnderscoresAction = 0 }},
	{"host-port", "kept", func(f *fault) { f.hcm.StripPortMode = nil }},
	{"host-port", "trailing dot kept", func(f *fault) { f.hcm.StripTrailingHostDot = false }},
	{"header-count", "none", func(f *fault) { f.hcm.CommonHttpProtocolOptions.MaxHeadersCount = nil }},
	{"header-size", "none", func(f *fault) { f.hcm.MaxRequestHeadersKb = nil }},
	{"headers-timeout", "none", func(f *fault) { f.hcm.RequestHeadersTimeout = nil }},
	{"idle-timeout", "off", func(f *fault) { f.hcm.StreamIdleTimeout = dur(0) }},
	{"stream-duration", "none", func(f *fault) { f.hcm.CommonHttpProtocolOptions.MaxStreamDuration = nil }},
	{"concurrent-streams", "none", func(f *fault) { f.hcm.Http2ProtocolOptions = nil }},
	{"remote-address", "off", func(f *fault) { f.hcm.UseRemoteAddress = nil }},
	{"nobody-internal", "private networks", func(f *fault) { f.hcm.InternalAddressConfig = nil }},
	{"client-cert-header", "forwarded", func(f *fault) {
		f.hcm.ForwardClientCertDetails = hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY
	}},
	{"delayed-close", "the default", func(f *fault) { f.hcm.DelayedCloseTimeout = nil }},
	{"request-id", "the client's", func(f *fault) { f.hcm.PreserveExternalRequestId = true }},
	{"request-id", "not in the answer", func(f *fault) { f.hcm.AlwaysSetRequestIdInResponse = false }},
	{"forged-headers", "no mutation", func(f *fault) { f.hcm.EarlyHeaderMutationExtensions = nil }},
	{"forged-headers", "one header missing", func(f *fault) {
		m := removeForged()
		m.Mutations = m.Mutations[1:]
		f.hcm.EarlyHeaderMutationExtensions[0].TypedConfig = pack(f.t, m)
	}},
	{"routes-by-ads", "inline", func(f *fault) { f.hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: f.rc} }},
	{"upgrades-off", "websocket everywhere", func(f *fault) { f.hcm.UpgradeConfigs[0].Enabled = nil }},
	{"upgrades-off", "CONNECT", func(f *fault) { f.hcm.UpgradeConfigs[0].UpgradeType = "CONNECT" }},
	{"upgrades-off", "filters of its own", func(f *fault) { f.hcm.UpgradeConfigs[0].Filters = f.hcm.HttpFilters[3:] }},
	{"local-replies", "none", func(f *fault) { f.hcm.LocalReplyConfig = nil }},
	{"access-log", "none", func(f *fault) { f.hcm.AccessLog = nil }},
	{"access-log", "twice", func(f *fault) { f.hcm.AccessLog = append(f.hcm.AccessLog, f.hcm.AccessLog[0]) }},
	{"access-log", "errors only", func(f *fault) { f.hcm.AccessLog[0].Filter = statusFilter(accesslogv3.ComparisonFilter_GE, 500) }},
	{"filter-order", "the authorizer last but one", func(f *fault) {
		fs := f.hcm.HttpFilters
		fs[1], fs[2] = fs[2], fs[1]
	}},
	{"filter-order", "a filter after the authorizer", func(f *fault) { f.insert(2, "envoy.filters.http.jwt_authn", &rbacv3.RBAC{}) }},
	{"filter-order", "the authorizer off", func(f *fault) { f.hcm.HttpFilters[1].Disabled = true }},
	{"filter-order", "the authorizer optional", func(f *fault) { f.hcm.HttpFilters[1].IsOptional = true }},
	{"filter-order", "nothing watches over streams", func(f *fault) { f.hcm.HttpFilters = slices.Delete(f.hcm.HttpFilters, 3, 4) }},
	{"streams-watched", "on for everything", func(f *fault) { f.filter(filterStreams).Disabled = false }},
	{"streams-watched", "open when the sidecar fails", func(f *fault) { f.streams(func(c *extprocv3.ExternalProcessor) { c.FailureModeAllow = true }) }},
	{"streams-watched", "the side stream let go after the headers", func(f *fault) {
		f.streams(func(c *extprocv3.ExternalProcessor) {
			c.ProcessingMode.ResponseTrailerMode = extprocv3.ProcessingMode_SKIP
		})
	}},
	{"streams-watched", "only told", func(f *fault) { f.streams(func(c *extprocv3.ExternalProcessor) { c.ObservabilityMode = true }) }},
	{"streams-watched", "endings not obeyed", func(f *fault) { f.streams(func(c *extprocv3.ExternalProcessor) { c.DisableImmediateResponse = true }) }},
	{"streams-watched", "by the sidecar's cluster for decisions", func(f *fault) {
		f.streams(func(c *extprocv3.ExternalProcessor) { c.GrpcService.GetEnvoyGrpc().ClusterName = clusterAuthz })
	}},
	{"streams-watched", "optional", func(f *fault) { f.filter(filterStreams).IsOptional = true }},
	{"streams-watched", "a streaming route left out", func(f *fault) { f.streaming().TypedPerFilterConfig = nil }},
	{"streams-watched", "off for a streaming route", func(f *fault) {
		f.streaming().TypedPerFilterConfig[filterStreams] = pack(f.t, &extprocv3.ExtProcPerRoute{Override: &extprocv3.ExtProcPerRoute_Disabled{Disabled: true}})
	}},
	{"streams-watched", "a streaming route fails open", func(f *fault) {
		p := watched()
		p.GetOverrides().FailureModeAllow = yes()
		f.streaming().TypedPerFilterConfig[filterStreams] = pack(f.t, p)
	}},
	{"streams-watched", "an ordinary route without a timeout", func(f *fault) { f.route.GetRoute().Timeout = dur(0) }},
	{"streams-watched", "an ordinary route with an upgrade", func(f *fault) {
		f.route.GetRoute().UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "websocket"}}
	}},
	{"streams-watched", "on for an ordinary route", func(f *fault) {
		f.route.TypedPerFilterConfig = map[string]*anypb.Any{filterStreams: pack(f.t, watched())}
	}},
	{"sane-only", "any method", func(f *fault) { f.hcm.HttpFilters[0].ConfigType = f.hcm.HttpFilters[2].ConfigType }},

	{"ext-authz-fields", "shadowed", func(f *fault) {
		f.authz.FilterEnabled = &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 50}}
	}},
	{"ext-authz-fields", "bodies of all", func(f *fault) { f.authz.WithRequestBody = &extauthzv3.BufferSettings{MaxRequestBytes: 1} }},
	{"ext-authz-fields", "retried", func(f *fault) { f.authz.GetGrpcService().RetryPolicy = &corev3.RetryPolicy{} }},
	{"failure-mode", "open", func(f *fault) { f.authz.FailureModeAllow = true }},
	{"status-on-error", "the default of 403", func(f *fault) { f.authz.StatusOnError = nil }},
	{"status-on-error", "200", func(f *fault) { f.authz.StatusOnError.Code = typev3.StatusCode_OK }},
	{"validate-mutations", "off", func(f *fault) { f.authz.ValidateMutations = false }},
	{"route-cache", "cleared", func(f *fault) { f.authz.ClearRouteCache = true }},
	{"authz-timeout", "10s", func(f *fault) { f.authz.GetGrpcService().Timeout = dur(10 * time.Second) }},
	{"authz-timeout", "none", func(f *fault) { f.authz.GetGrpcService().Timeout = nil }},
	{"authz-cluster", "the upstream", func(f *fault) { f.authz.GetGrpcService().GetEnvoyGrpc().ClusterName = "upstream_h2" }},
	{"peer-certificate", "left out", func(f *fault) { f.authz.IncludePeerCertificate = false }},
	{"headers-to-check", "all", func(f *fault) { f.authz.AllowedHeaders = nil }},
	{"headers-to-check", "duplicates folded", func(f *fault) { f.authz.EncodeRawHeaders = false }},

	{"routes-fields", "mirrored", func(f *fault) {
		f.rc.RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{{Cluster: "upstream_h1"}}
	}},
	{"routes-fields", "a header added", func(f *fault) {
		f.rc.RequestHeadersToAdd = []*corev3.HeaderValueOption{headerOption("authorization", "x")}
	}},
	{"routes-fields", "retried by host", func(f *fault) { f.vh.RetryPolicy = &routev3.RetryPolicy{RetryOn: "5xx"} }},
	{"routes-fields", "path parameters ignored", func(f *fault) { f.rc.IgnorePathParametersInPathMatching = true }},
	{"routes-fields", "an override by host", func(f *fault) { f.vh.TypedPerFilterConfig = f.rc.TypedPerFilterConfig }},
	{"named-hosts", "a wildcard", func(f *fault) { f.vh.Domains = append(f.vh.Domains, "*") }},
	{"named-hosts", "a wildcard suffix", func(f *fault) { f.vh.Domains = append(f.vh.Domains, "*.example") }},
	{"claims-stay", "forwarded", func(f *fault) { f.rc.RequestHeadersToRemove = nil }},
	{"admitted-only", "off", func(f *fault) { f.rc.TypedPerFilterConfig = nil }},
	{"admitted-only", "everything admitted", func(f *fault) { f.rc.TypedPerFilterConfig[filterAdmitted] = pack(f.t, &rbacv3.RBACPerRoute{}) }},
	{"admitted-only", "ext_authz off for all", func(f *fault) {
		f.rc.TypedPerFilterConfig[filterExtAuthz] = pack(f.t, &extauthzv3.ExtAuthzPerRoute{Override: &extauthzv3.ExtAuthzPerRoute_Disabled{Disabled: true}})
	}},
	{"last-route", "missing", func(f *fault) { f.vh.Routes = f.vh.Routes[:2] }},
	{"last-route", "no routes", func(f *fault) { f.vh.Routes = nil }},
	{"last-route", "forwards", func(f *fault) { f.vh.Routes[len(f.vh.Routes)-1].Action = f.route.Action }},
	{"last-route", "exempt", func(f *fault) {
		f.vh.Routes[len(f.vh.Routes)-1].TypedPerFilterConfig = f.route.TypedPerFilterConfig
	}},
	{"match-by-allow-list", "a prefix", func(f *fault) { f.route.Match.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/public"} }},
	{"match-by-allow-list", "a loose regex", func(f *fault) { f.route.Match.PathSpecifier = wildRegex("/a/.*") }},
	{"match-by-allow-list", "a regex that reaches across segments", func(f *fault) { f.route.Match.PathSpecifier = wildRegex("/a/[^?]+") }},
	{"match-by-allow-list", "any method", func(f *fault) { f.route.Match.Headers = nil }},
	{"match-by-allow-list", "case ignored", func(f *fault) { f.route.Match.CaseSensitive = no() }},
	{"match-by-allow-list", "CONNECT", func(f *fault) {
		f.route.Match.PathSpecifier = &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}
	}},
	{"route-fields", "a header added", func(f *fault) { f.route.RequestHeadersToAdd = []*corev3.HeaderValueOption{headerOption("x", "y")} }},
	{"route-fields", "a redirect", func(f *fault) { f.route.Action = &routev3.Route_Redirect{Redirect: &routev3.RedirectAction{}} }},
	{"route-action", "retried", func(f *fault) { f.route.GetRoute().RetryPolicy = &routev3.RetryPolicy{RetryOn: "5xx"} }},
	{"route-action", "hedged", func(f *fault) { f.route.GetRoute().HedgePolicy = &routev3.HedgePolicy{HedgeOnPerTryTimeout: true} }},
	{"route-action", "mirrored", func(f *fault) {
		f.route.GetRoute().RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{{Cluster: "upstream_h1"}}
	}},
	{"route-action", "rewritten", func(f *fault) { f.route.GetRoute().PrefixRewrite = "/x" }},
	{"route-action", "redirects followed", func(f *fault) { f.route.GetRoute().InternalRedirectPolicy = &routev3.InternalRedirectPolicy{} }},
	{"route-action", "a cluster the client names", func(f *fault) {
		f.route.GetRoute().ClusterSpecifier = &routev3.RouteAction_ClusterHeader{ClusterHeader: "x-cluster"}
	}},
	{"route-timeouts", "no stream duration", func(f *fault) { f.route.GetRoute().MaxStreamDuration = nil }},
	{"route-timeouts", "the default timeout", func(f *fault) { f.route.GetRoute().Timeout = nil }},
	{"route-upgrades", "CONNECT", func(f *fault) {
		f.route.GetRoute().UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "CONNECT"}}
	}},
	{"exempt-nothing", "disabled", func(f *fault) {
		f.authzPerRoute(&extauthzv3.ExtAuthzPerRoute{Override: &extauthzv3.ExtAuthzPerRoute_Disabled{Disabled: true}})
	}},
	{"exempt-nothing", "a partial body", func(f *fault) {
		p := bodyToCheck()
		p.GetCheckSettings().WithRequestBody.AllowPartialMessage = true
		f.authzPerRoute(p)
	}},
	{"exempt-nothing", "a long body", func(f *fault) {
		p := bodyToCheck()
		p.GetCheckSettings().WithRequestBody.MaxRequestBytes = 10 << 20
		f.authzPerRoute(p)
	}},
	{"exempt-nothing", "another filter", func(f *fault) { f.route.TypedPerFilterConfig = f.rc.TypedPerFilterConfig }},
	{"fresh-only", "on no route", func(f *fault) { delete(f.rc.TypedPerFilterConfig, filterFresh) }},
	{"fresh-only", "the present goes on to the upstream", func(f *fault) {
		f.rc.RequestHeadersToRemove = slices.DeleteFunc(f.rc.RequestHeadersToRemove, func(h string) bool { return h == "x-dsp-now" })
	}},
	{"admitted-only", "the admission compared with something else", func(f *fault) {
		p := freshOnly()
		p.GetRbac().GetRules().GetPolicies()["fresh"].GetCondition().GetCallExpr().Function = "_!=_"
		f.rc.TypedPerFilterConfig[filterFresh] = pack(f.t, p)
	}},
	{"filter-order", "the admission looked at before the decision", func(f *fault) {
		fs := f.hcm.HttpFilters
		f.hcm.HttpFilters = []*hcmv3.HttpFilter{fs[0], fs[3], fs[4], fs[1], fs[2], fs[5]}
	}},
	{"filter-order", "the present told after it was compared", func(f *fault) {
		fs := f.hcm.HttpFilters
		fs[3], fs[4] = fs[4], fs[3]
	}},
	{"filter-order", "the present not told", func(f *fault) { f.hcm.HttpFilters = slices.Delete(f.hcm.HttpFilters, 3, 4) }},
	{"filter-order", "the admission on the routes only", func(f *fault) { f.hcm.HttpFilters = slices.Delete(f.hcm.HttpFilters, 3, 5) }},
	{"sane-only", "a client's present kept", func(f *fault) {
		m := tellNow()
		m.GetMutations().GetRequestMutations()[0].GetAppend().AppendAction = corev3.HeaderValueOption_ADD_IF_ABSENT
		f.filter(filterNow).ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(f.t, m)}
	}},
	{"sane-only", "the start of the stream for the present", func(f *fault) {
		m := tellNow()
		m.GetMutations().GetRequestMutations()[0].GetAppend().GetHeader().Value = "%START_TIME(%s%3f)%"
		f.filter(filterNow).ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(f.t, m)}
	}},
	{"sane-only", "rules where there is no route", func(f *fault) {
		f.filter(filterFresh).ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(f.t, freshOnly().GetRbac())}
	}},
	{"clusters-known", "a cluster nobody made", func(f *fault) { f.route.GetRoute().ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: "x"} }},
	{"clusters-known", "the sidecar as upstream", func(f *fault) {
		f.route.GetRoute().ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: clusterAuthz}
	}},
	{"clusters-known", "nobody to watch over streams", func(f *fault) { delete(f.clusters, clusterStreams) }},
	{"clusters-known", "no authorizer", func(f *fault) { delete(f.clusters, clusterAuthz) }},

	{"circuit-breakers", "the defaults", func(f *fault) { f.clusters["upstream_h1"].CircuitBreakers = nil }},
	{"control-frames", "the default", func(f *fault) {
		f.clusters[clusterAuthz].TypedExtensionProtocolOptions[httpProtocolOptions] = pack(f.t, http2Upstream(&corev3.Http2ProtocolOptions{}))
	}},
	{"control-frames", "HTTP/1", func(f *fault) {
		f.clusters[clusterAuthz].TypedExtensionProtocolOptions[httpProtocolOptions] = pack(f.t, &httpv3.HttpProtocolOptions{})
	}},
	{"sidecar-near", "outlier detection", func(f *fault) { f.clusters[clusterAuthz].OutlierDetection = &clusterv3.OutlierDetection{} }},
	{"sidecar-near", "ill ones are asked while others are well", func(f *fault) {
		f.clusters[clusterAuthz].HealthChecks = []*corev3.HealthCheck{{}}
	}},
	{"upstream-fields", "a dynamic forward proxy", func(f *fault) {
		f.clusters["upstream_h1"].ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{Name: "envoy.clusters.dynamic_forward_proxy"}}
	}},
}

func TestLintPassesTheSnapshot(t *testing.T) {
	if err := Lint(lintSnapshot(t)); err != nil {
		t.Errorf("the snapshot as made: %v", err)
	}
	if err := Lint(planted(t, func(*fault) {})); err != nil {
		t.Errorf("taken apart and put together again: %v", err)
	}
	cfg := lintConfig()
	cfg.Sidecars = []Sidecar{{ID: "a", Authz: "unix:/a"}, {ID: "ab", Authz: "unix:/b"}, {ID: "b", Authz: "127.0.0.1:9"}}
	cfg.ForwardAuthorization, cfg.Admission = true, false
	snap, err := Snapshot(lintView(t), cfg, "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := Lint(snap); err != nil {
		t.Errorf("several sidecars, no service: %v", err)
	}
}

func TestLintCatchesEveryPlantedFault(t *testing.T) {
	tried := map[string]bool{}
	for _, f := range faults {
		tried[f.rule] = true
		t.Run(f.rule+"/"+strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
			err := Lint(planted(t, f.tamper))
			var broken *LintError
			if !errors.As(err, &broken) || !errors.Is(err, ErrLint) {
				t.Fatalf("passed: %v", err)
			}
			if !slices.ContainsFunc(broken.Broken, func(b Broken) bool { return b.Rule == f.rule }) {
				t.Errorf("caught, but not by %s: %v", f.rule, err)
			}
		})
	}
	for _, name := range Rules() {
		if !tried[name] {
			t.Errorf("no fault was planted for the rule %s", name)
		}
	}
}

func TestLintRefusesAnEmptySnapshot(t *testing.T) {
	if err := Lint(&cachev3.Snapshot{}); !errors.Is(err, ErrLint) {
		t.Errorf("an empty snapshot: %v", err)
	}
}
