package xds

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	cachetypes "github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/dspgate/dspgate/registry"
)

// outboundControlFramesMax bounds the control frames waiting on a connection to
// a sidecar. Clients that reset streams fast make Envoy send as many RST_STREAM
// there; at the default of 1,000 it would close the connection that all callers
// share, and innocent ones would get 503.
const outboundControlFramesMax = 100_000

const httpProtocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func clusterALSName(i int) string { return clusterALS + "_" + strconv.Itoa(i) }

// clusterOf names the cluster a service's calls go to: gRPC needs HTTP/2, a
// WebSocket needs HTTP/1.1, whatever the upstream speaks otherwise.
func (b *builder) clusterOf(s *registry.Service) string {
	name, up := "upstream", b.cfg.Upstream
	if o, ok := b.cfg.ServiceUpstreams[s.Key]; ok {
		name, up = "upstream_"+s.Key, o
	}
	if s.Streaming == streamingGRPC || up.HTTP2 && s.Streaming != streamingWebSocket {
		return name + "_h2"
	}
	return name + "_h1"
}

// clusters makes those of the sidecars, and for each upstream the ones that its
// services use.
func (b *builder) clusters(services []*registry.Service) []cachetypes.Resource {
	var authz, streams []address
	for _, s := range b.cfg.Sidecars {
		a, _ := parseAddress(s.Authz) // checked by withDefaults
		authz = append(authz, a)
		a, _ = parseAddress(s.AccessLog)
		streams = append(streams, a)
	}
	out := []cachetypes.Resource{
		b.sidecarCluster(clusterAuthz, authz),
		// Apart from decisions: each open stream is a call that stays under way.
		b.sidecarCluster(clusterStreams, streams),
	}
	for i, s := range b.cfg.Sidecars {
		a, _ := parseAddress(s.AccessLog)
		out = append(out, b.sidecarCluster(clusterALSName(i), []address{a}))
	}
	used := map[string]Upstream{}
	for _, s := range services {
		up := b.cfg.Upstream
		if o, ok := b.cfg.ServiceUpstreams[s.Key]; ok {
			up = o
		}
		used[b.clusterOf(s)] = up
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		out = append(out, b.upstreamCluster(name, used[name], strings.HasSuffix(name, "_h2")))
	}
	return out
}

func (b *builder) sidecarCluster(name string, addrs []address) *clusterv3.Cluster {
	c := b.cluster(name, addrs, 250*time.Millisecond)
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpProtocolOptions: b.any(sidecarProtocol())}
	if len(addrs) > 1 {
		// A sidecar that died, or is not fresh for every risk rating, is passed over
		// within about a second; what it was asked meanwhile is refused. When all are
		// so, as when Redis is away for longer than the short lease, they are asked all
		// the same: each knows what it may still answer, and refuses the rest.
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: panicPercent}}
		c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		c.HealthChecks = []*corev3.HealthCheck{{
			Timeout: dur(500 * time.Millisecond), Interval: dur(500 * time.Millisecond), NoTrafficInterval: dur(500 * time.Millisecond),
			UnhealthyThreshold: u32(1), HealthyThreshold: u32(1),
			HealthChecker: &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{}},
		}}
	}
	return c
}

// panicPercent of sidecars being well or fewer, Envoy asks all: with none.
const panicPercent = 1

func sidecarProtocol() *httpv3.HttpProtocolOptions {
	return http2Upstream(&corev3.Http2ProtocolOptions{
		MaxOutboundControlFrames:    u32(outboundControlFramesMax),
		InitialStreamWindowSize:     u32(1 << 20),
		InitialConnectionWindowSize: u32(16 << 20),
	})
}

func (b *builder) upstreamCluster(name string, up Upstream, h2 bool) *clusterv3.Cluster {
	a, _ := parseAddress(up.Address) // checked by withDefaults
	c := b.cluster(name, []address{a}, b.cfg.ConnectTimeout)
	protocol := &httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
		},
	}}
	if h2 {
		protocol = http2Upstream(&corev3.Http2ProtocolOptions{MaxOutboundControlFrames: u32(outboundControlFramesMax)})
	}
	protocol.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: dur(time.Minute)}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpProtocolOptions: b.any(protocol)}
	if up.CA != "" {
		c.TransportSocket = b.upstreamTLS(up, a, h2)
	}
	return c
}

// cluster is what all clusters have in common.
func (b *builder) cluster(name string, addrs []address, connect time.Duration) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                          name,
		ConnectTimeout:                dur(connect),
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		PerConnectionBufferLimitBytes: u32(1 << 20),
		// Explicit, because the default of 1,024 would let as many long streams shut
		// everybody else out.
		CircuitBreakers: breakers(b.cfg.MaxUpstream),
		LoadAssignment:  &endpointv3.ClusterLoadAssignment{ClusterName: name},
	}
	group := &endpointv3.LocalityLbEndpoints{}
	for _, a := range addrs {
		if a.unix == "" && !a.ip {
			c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
		}
		group.LbEndpoints = append(group.LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: a.proto()},
		}})
	}
	c.LoadAssignment.Endpoints = []*endpointv3.LocalityLbEndpoints{group}
	return c
}

func breakers(n uint32) *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: u32(n), MaxPendingRequests: u32(n), MaxRequests: u32(n), MaxRetries: u32(0),
	}}}
}

func http2Upstream(o *corev3.Http2ProtocolOptions) *httpv3.HttpProtocolOptions {
	return &httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: o},
		},
	}}
}

func (b *builder) upstreamTLS(up Upstream, a address, h2 bool) *corev3.TransportSocket {
	name := cmp.Or(up.ServerName, a.host)
	if name == "" && b.err == nil {
		b.err = fmt.Errorf("%w: upstream %s with a ca needs a server_name", ErrConfig, up.Address)
	}
	san := tlsv3.SubjectAltNameMatcher_DNS
	if a.ip && up.ServerName == "" {
		san = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
	}
	alpn := "http/1.1"
	if h2 {
		alpn = "h2"
	}
	ctx := &tlsv3.UpstreamTlsContext{
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
			AlpnProtocols: []string{alpn},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa: file(up.CA),
				MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
					SanType: san, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}},
				}},
			}},
		},
	}
	if san == tlsv3.SubjectAltNameMatcher_DNS {
		ctx.Sni = name
	}
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.any(ctx)}}
}

func (a address) proto() *corev3.Address {
	if a.unix != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a.unix}}}
	}
	return socketAddress(a.host, a.port)
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}
