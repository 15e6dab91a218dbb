package xds

import (
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dataaccesslogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	cachetypes "github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/proto"

	"github.com/dspgate/dspgate/envoy/headers"
)

// The HTTP filters, in the order they run. The names of ext_authz and of its
// metadata are Envoy's; the others are ours.
const (
	filterSane     = "dspgate.sane" // method, scheme and expectation by allow-list
	filterExtAuthz = "envoy.filters.http.ext_authz"
	filterAdmitted = "dspgate.admitted" // only what the authorizer said ok to
	filterStreams  = "dspgate.streams"  // watches over streams; only on the routes of streaming services
	filterNow      = "dspgate.now"      // tells the present; only with Config.Admission
	filterFresh    = "dspgate.fresh"    // only while the admission lasts; only with Config.Admission
	filterRouter   = "envoy.filters.http.router"
	rbacMetadata   = "envoy.filters.http.rbac" // where every RBAC filter leaves its verdict
	filterHCM      = "envoy.filters.network.http_connection_manager"
	earlyMutation  = "envoy.http.early_header_mutation.header_mutation"
	accessLogGRPC  = "envoy.access_loggers.http_grpc"
	accessLogFile  = "envoy.access_loggers.file"
)

// The dynamic metadata that the authorizer puts with every decision, under the
// name of the ext_authz filter, and that comes back in the access log.
const (
	MetadataDecisionID = "decision_id"
	MetadataReason     = "reason"
	MetadataRevision   = "revision"
	MetadataSidecar    = "sidecar" // Sidecar.ID; only needed when there are several
	ReasonOK           = "ok"
)

// listenerBufferBytes bounds what Envoy buffers for one connection each way; it
// must hold the largest body sent to the authorizer.
const listenerBufferBytes = 128 << 10

// delayedClose is how long Envoy waits for a client to take the end of a
// connection before it closes it.
const delayedClose = 100 * time.Millisecond

// methodRegex and schemeRegex are the allow-lists. TRACE, CONNECT, OPTIONS and
// whatever else is no method of a service is refused before the authorizer.
const (
	methodRegex = "GET|HEAD|POST|PUT|PATCH|DELETE"
	schemeRegex = "https?"
	// lengthRegex is a content-length that no body has. Envoy reads 64 bits of it,
	// most upstreams 63.
	lengthRegex = "[0-9]{16,}"
)

func (b *builder) listeners() []cachetypes.Resource {
	out := []cachetypes.Resource{b.listener(ListenerPlain, b.cfg.Ingress, nil)}
	if b.cfg.IngressTLS != "" {
		out = append(out, b.listener(ListenerTLS, b.cfg.IngressTLS, b.downstreamTLS()))
	}
	return out
}

func (b *builder) listener(name, addr string, tls *corev3.TransportSocket) *listenerv3.Listener {
	ip, port, _ := ipPort(addr) // checked by withDefaults
	return &listenerv3.Listener{
		Name:                          name,
		Address:                       socketAddress(ip, port),
		PerConnectionBufferLimitBytes: u32(listenerBufferBytes),
		// A client that connects and says nothing is let go.
		ListenerFiltersTimeout: dur(5 * time.Second),
		FilterChains: []*listenerv3.FilterChain{{
			TransportSocket:               tls,
			TransportSocketConnectTimeout: dur(5 * time.Second),
			Filters: []*listenerv3.Filter{{
				Name:       filterHCM,
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(b.connectionManager(name))},
			}},
		}},
	}
}

// connectionManager is the hardened HTTP side. Both listeners have the same.
func (b *builder) connectionManager(name string) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix: name,
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: adsSource(), RouteConfigName: routesName,
		}},
		HttpFilters: b.filters(),

		// One meaning per request: what cannot be read in one way only is refused.
		NormalizePath:                yes(),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		StripPortMode:                &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true},
		StripTrailingHostDot:         true,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
			MaxHeadersCount:              u32(b.cfg.MaxHeaders),
			IdleTimeout:                  dur(5 * time.Minute),
			MaxStreamDuration:            dur(b.cfg.MaxStreamDuration),
		},
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, // no HTTP/1.0, no trailers
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:        u32(b.cfg.MaxConcurrentStreams),
			InitialStreamWindowSize:     u32(64 << 10),
			InitialConnectionWindowSize: u32(1 << 20),
		},

		// Limits.
		MaxRequestHeadersKb:   u32(b.cfg.MaxHeaderKiB),
		RequestHeadersTimeout: dur(b.cfg.RequestHeadersTimeout),
		StreamIdleTimeout:     dur(b.cfg.StreamIdleTimeout),
		// An ended stream is closed, not drained: the default leaves HTTP/1 and
		// WebSocket clients a second on the line.
		DelayedCloseTimeout: dur(delayedClose),

		// Whom we speak to: the peer of the connection, never what a header says.
		UseRemoteAddress: yes(),
		// Envoy treats "internal" callers' headers as true; nobody is internal here.
		InternalAddressConfig: &hcmv3.HttpConnectionManager_InternalAddressConfig{
			CidrRanges: []*corev3.CidrRange{{AddressPrefix: "192.0.2.255", PrefixLen: u32(32)}}, // TEST-NET-1: matches nobody
		},
		ForwardClientCertDetails:      hcmv3.HttpConnectionManager_SANITIZE,
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{{Name: earlyMutation, TypedConfig: b.any(removeForged())}},

		GenerateRequestId:            yes(),
		PreserveExternalRequestId:    false,
		AlwaysSetRequestIdInResponse: true,
		ServerName:                   "dspgate",

		// Off here, on for the routes of WebSocket services.
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket", Enabled: no()}},

		LocalReplyConfig: b.localReplies(),
		AccessLog:        b.accessLogs(),
		// A long stream shows that it is alive, so that its decision is not taken
		// for one whose log entry was lost.
		AccessLogOptions: &hcmv3.HttpConnectionManager_HcmAccessLogOptions{AccessLogFlushInterval: dur(5 * time.Second)},
	}
}

// filters are all there are, in the order they run.
func (b *builder) filters() []*hcmv3.HttpFilter {
	filter := func(name string, m proto.Message) *hcmv3.HttpFilter {
		return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(m)}}
	}
	all := []*hcmv3.HttpFilter{
		filter(filterSane, saneOnly()),
		filter(filterExtAuthz, b.extAuthz()),
		// Empty here, so that it applies exactly where there is a route.
		filter(filterAdmitted, &rbacv3.RBAC{}),
	}
	// Off, and on for the routes of streaming services. Before the look at the end
	// of the admission: it asks a sidecar, which takes time.
	streams := filter(filterStreams, watchStreams())
	streams.Disabled = true
	all = append(all, streams)
	if b.cfg.Admission {
		all = append(all, filter(filterNow, tellNow()), filter(filterFresh, &rbacv3.RBAC{}))
	}
	return append(all, filter(filterRouter, &routerv3.Router{
		SuppressEnvoyHeaders: true, // x-envoy-* tells a caller about the inside
	}))
}

// saneOnly refuses, before the authorizer is troubled, every method, scheme,
// expectation and length that no service can have.
func saneOnly() *rbacv3.RBAC {
	header := func(name, allowed string) *rbacconfigv3.Permission {
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Header{Header: &routev3.HeaderMatcher{
			Name:                 name,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: regex(allowed)},
		}}}
	}
	// Envoy has answered 100-continue by now and removed it. Whatever else is
	// expected, an upstream would refuse after the call was already allowed.
	expectsNothing := &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_NotRule{NotRule: &rbacconfigv3.Permission{
		Rule: &rbacconfigv3.Permission_Header{Header: &routev3.HeaderMatcher{
			Name: "expect", HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
		}},
	}}}
	hasALength := &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_NotRule{NotRule: header("content-length", lengthRegex)}}
	all := &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_AndRules{AndRules: &rbacconfigv3.Permission_Set{
		Rules: []*rbacconfigv3.Permission{header(":method", methodRegex), header(":scheme", schemeRegex), expectsNothing, hasALength},
	}}}
	return &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{
		Action:   rbacconfigv3.RBAC_ALLOW,
		Policies: map[string]*rbacconfigv3.Policy{"sane": {Permissions: []*rbacconfigv3.Permission{all}, Principals: anybody()}},
	}}
}

// extAuthz asks the sidecar about every request, and refuses when it is silent.
func (b *builder) extAuthz() *extauthzv3.ExtAuthz {
	allowed := &matcherv3.ListStringMatcher{}
	for _, h := range headers.ToCheck() {
		m := exact(h)
		m.IgnoreCase = true
		allowed.Patterns = append(allowed.Patterns, m)
	}
	return &extauthzv3.ExtAuthz{
		StatPrefix:          "dspgate",
		TransportApiVersion: corev3.ApiVersion_V3,
		Services: &extauthzv3.ExtAuthz_GrpcService{GrpcService: &corev3.GrpcService{
			TargetSpecifier: envoyGRPC(clusterAuthz),
			Timeout:         dur(b.cfg.AuthzTimeout),
		}},
		FailureModeAllow:       false,
		StatusOnError:          &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		ValidateMutations:      true,
		ClearRouteCache:        false,
		IncludePeerCertificate: true,
		AllowedHeaders:         allowed,
		EncodeRawHeaders:       true,
	}
}

// removeForged removes what a client must not send before anything, the
// authorizer included, looks at the request.
func removeForged() *earlyv3.HeaderMutation {
	m := &earlyv3.HeaderMutation{}
	for _, p := range headers.RemovedPrefixes() {
		m.Mutations = append(m.Mutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: prefix(p)},
		}})
	}
	for _, h := range headers.Removed() {
		m.Mutations = append(m.Mutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: h}})
	}
	return m
}

// accessLogs sends every request to the sidecar that decided it. With several
// sidecars the first also gets what none of them decided.
func (b *builder) accessLogs() []*accesslogv3.AccessLog {
	var out []*accesslogv3.AccessLog
	for i, s := range b.cfg.Sidecars {
		l := &accesslogv3.AccessLog{
			Name: accessLogGRPC,
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(&grpclogv3.HttpGrpcAccessLogConfig{
				CommonConfig: &grpclogv3.CommonGrpcAccessLogConfig{
					LogName:             "dspgate",
					TransportApiVersion: corev3.ApiVersion_V3,
					GrpcService:         &corev3.GrpcService{TargetSpecifier: envoyGRPC(clusterALSName(i))},
					BufferFlushInterval: dur(200 * time.Millisecond),
					BufferSizeBytes:     u32(16 << 10),
				},
			})},
		}
		if len(b.cfg.Sidecars) > 1 {
			l.Filter = b.decidedBy(i, s.ID)
		}
		out = append(out, l)
	}
	if b.cfg.AccessLogFile != "" {
		out = append(out, &accesslogv3.AccessLog{
			Name:       accessLogFile,
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(accessLogLines(b.cfg.AccessLogFile))},
			// Signs of life of a long stream are for the sidecars.
			Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_LogTypeFilter{LogTypeFilter: &accesslogv3.LogTypeFilter{
				Types: []dataaccesslogv3.AccessLogType{dataaccesslogv3.AccessLogType_DownstreamEnd},
			}}},
		})
	}
	return out
}

func (b *builder) decidedBy(i int, id string) *accesslogv3.AccessLogFilter {
	if i > 0 {
		return metadataFilter(filterExtAuthz, MetadataSidecar, exact(id), false)
	}
	// Everything that no other sidecar claims: a decision whose sidecar nobody
	// knows is an alarm, and must be seen by somebody.
	var others []string
	for _, s := range b.cfg.Sidecars[1:] {
		others = append(others, s.ID)
	}
	return metadataFilter(filterExtAuthz, MetadataSidecar, regex(notAnyRegex(others)), true)
}

// metadataFilter matches on what the authorizer, or another filter, said; absent
// is the answer when it said nothing.
func metadataFilter(of, key string, value *matcherv3.StringMatcher, absent bool) *accesslogv3.AccessLogFilter {
	f := &accesslogv3.MetadataFilter{
		Matcher: &matcherv3.MetadataMatcher{
			Filter: of,
			Path:   []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key}}},
			Value:  &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: value}},
		},
		MatchIfKeyNotFound: no(),
	}
	if absent {
		f.MatchIfKeyNotFound = yes()
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{MetadataFilter: f}}
}

// downstreamTLS is TLS 1.3 only, with an optional client certificate.
func (b *builder) downstreamTLS() *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.any(&tlsv3.DownstreamTlsContext{
			RequireClientCertificate: no(),
			CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsParams: &tlsv3.TlsParameters{
					TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
					TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
				},
				AlpnProtocols:                  []string{"h2", "http/1.1"},
				TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: secretServer, SdsConfig: adsSource()}},
				ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
					ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: secretClientCA, SdsConfig: adsSource()},
				},
			},
		})},
	}
}

func (b *builder) secrets() []cachetypes.Resource {
	if b.cfg.IngressTLS == "" {
		return nil
	}
	f := b.cfg.TLS
	return []cachetypes.Resource{
		&tlsv3.Secret{Name: secretServer, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: file(f.Certificate), PrivateKey: file(f.Key), WatchedDirectory: folder(f.Certificate),
		}}},
		&tlsv3.Secret{Name: secretClientCA, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: file(f.ClientCA), WatchedDirectory: folder(f.ClientCA),
		}}},
	}
}

func file(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func folder(path string) *corev3.WatchedDirectory {
	dir := "."
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir = path[:max(i, 1)]
	}
	return &corev3.WatchedDirectory{Path: dir}
}

func adsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		// Wait for it: a listener without its routes would answer 404 to everybody.
		InitialFetchTimeout: dur(0),
	}
}

func envoyGRPC(cluster string) *corev3.GrpcService_EnvoyGrpc_ {
	return &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster}}
}
