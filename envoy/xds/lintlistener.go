package xds

import (
	"slices"
	"strings"
	"time"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

func within(d *durationpb.Duration, most time.Duration) bool {
	return d.AsDuration() > 0 && d.AsDuration() <= most
}

func listenerRules() []rule {
	return []rule{
		{"listener-fields", func(l *linter, m *parts) {
			for _, ln := range m.listeners {
				where := "listener " + ln.GetName()
				l.only(where, ln, "name", "address", "filter_chains", "per_connection_buffer_limit_bytes", "listener_filters_timeout")
				for _, c := range ln.GetFilterChains() {
					l.only(where, c, "filters", "transport_socket", "transport_socket_connect_timeout")
				}
			}
		}},
		{"buffer-limit", func(l *linter, m *parts) {
			for _, ln := range m.listeners {
				n := ln.GetPerConnectionBufferLimitBytes().GetValue()
				l.must(n >= bodyBytesMax && n <= 1<<20, "listener "+ln.GetName(), "per_connection_buffer_limit_bytes is not between 64 KiB and 1 MiB")
			}
		}},
		{"tls-1.3", func(l *linter, m *parts) {
			for name, ctx := range m.tls {
				p := ctx.GetCommonTlsContext().GetTlsParams()
				l.must(p.GetTlsMinimumProtocolVersion() == tlsv3.TlsParameters_TLSv1_3 && p.GetTlsMaximumProtocolVersion() == tlsv3.TlsParameters_TLSv1_3,
					"listener "+name, "TLS other than 1.3")
			}
		}},
		{"client-certificate-verified", func(l *linter, m *parts) {
			// Without a context to verify against, Envoy would hand any certificate
			// that a client made up to the authorizer.
			for name, ctx := range m.tls {
				l.must(ctx.GetCommonTlsContext().GetValidationContextSdsSecretConfig().GetName() == secretClientCA,
					"listener "+name, "client certificates are not verified against "+secretClientCA)
				l.only("listener "+name, ctx.GetCommonTlsContext(), "tls_params", "alpn_protocols", "tls_certificate_sds_secret_configs", "validation_context_sds_secret_config")
			}
		}},
	}
}

func connectionRules() []rule {
	return []rule{
		{"manager-fields", func(l *linter, m *parts) {
			for _, h := range m.managers {
				l.only(h.where, h.HttpConnectionManager,
					"stat_prefix", "rds", "http_filters", "normalize_path", "merge_slashes", "path_with_escaped_slashes_action",
					"strip_any_host_port", "strip_trailing_host_dot", "common_http_protocol_options", "http_protocol_options", "http2_protocol_options",
					"max_request_headers_kb", "request_headers_timeout", "stream_idle_timeout", "delayed_close_timeout", "use_remote_address", "internal_address_config",
					"forward_client_cert_details", "early_header_mutation_extensions", "generate_request_id", "always_set_request_id_in_response",
					"server_name", "upgrade_configs", "local_reply_config", "access_log", "access_log_options")
				l.only(h.where, h.GetCommonHttpProtocolOptions(), "headers_with_underscores_action", "max_headers_count", "idle_timeout", "max_stream_duration")
				l.only(h.where, h.GetHttpProtocolOptions())
				l.only(h.where, h.GetHttp2ProtocolOptions(), "max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size")
			}
		}},
		forManager("normalize-path", "paths are not normalised", func(h manager) bool { return h.GetNormalizePath().GetValue() }),
		forManager("merge-slashes", "slashes are not merged", func(h manager) bool { return h.GetMergeSlashes() }),
		forManager("escaped-slashes", "escaped slashes are not refused", func(h manager) bool {
			return h.GetPathWithEscapedSlashesAction() == hcmv3.HttpConnectionManager_REJECT_REQUEST
		}),
		forManager("underscores", "headers with underscores are not refused", func(h manager) bool {
			return h.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction() == corev3.HttpProtocolOptions_REJECT_REQUEST
		}),
		forManager("host-port", "the port is not stripped from the host", func(h manager) bool { return h.GetStripAnyHostPort() && h.GetStripTrailingHostDot() }),
		forManager("header-count", "headers are not bounded in number", func(h manager) bool {
			n := h.GetCommonHttpProtocolOptions().GetMaxHeadersCount().GetValue()
			return n > 0 && n <= 1000
		}),
		forManager("header-size", "headers are not bounded in size", func(h manager) bool {
			n := h.GetMaxRequestHeadersKb().GetValue()
			return n > 0 && n <= 96
		}),
		forManager("delayed-close", "an ended stream stays on the line for more than 1s", func(h manager) bool { return within(h.GetDelayedCloseTimeout(), time.Second) }),
		forManager("headers-timeout", "request_headers_timeout is not within 1m", func(h manager) bool { return within(h.GetRequestHeadersTimeout(), time.Minute) }),
		forManager("idle-timeout", "idle streams or connections are not ended", func(h manager) bool {
			return within(h.GetStreamIdleTimeout(), 24*time.Hour) && within(h.GetCommonHttpProtocolOptions().GetIdleTimeout(), time.Hour)
		}),
		forManager("stream-duration", "streams have no end", func(h manager) bool {
			return within(h.GetCommonHttpProtocolOptions().GetMaxStreamDuration(), 24*time.Hour)
		}),
		forManager("concurrent-streams", "streams of a connection are not bounded", func(h manager) bool {
			n := h.GetHttp2ProtocolOptions().GetMaxConcurrentStreams().GetValue()
			return n > 0 && n <= 1000
		}),
		forManager("remote-address", "the peer is not the peer of the connection", func(h manager) bool { return h.GetUseRemoteAddress().GetValue() }),
		forManager("nobody-internal", "some callers' x-envoy headers would be believed", func(h manager) bool {
			c := h.GetInternalAddressConfig()
			return c != nil && !c.GetUnixSockets() && len(c.GetCidrRanges()) == 1 && c.GetCidrRanges()[0].GetPrefixLen().GetValue() == 32 &&
				strings.HasPrefix(c.GetCidrRanges()[0].GetAddressPrefix(), "192.0.2.")
		}),
		forManager("client-cert-header", "a client's x-forwarded-client-cert is not removed", func(h manager) bool {
			return h.GetForwardClientCertDetails() == hcmv3.HttpConnectionManager_SANITIZE
		}),
		forManager("request-id", "request IDs are not always our own, in every answer", func(h manager) bool {
			return h.GetGenerateRequestId().GetValue() && h.GetAlwaysSetRequestIdInResponse() && !h.GetPreserveExternalRequestId()
		}),
		{"forged-headers", func(l *linter, m *parts) {
			for _, h := range m.managers {
				ext := h.GetEarlyHeaderMutationExtensions()
				if len(ext) != 1 {
					l.fail(h.where, "%d early header mutations, not 1", len(ext))
					continue
				}
				l.sameAs(h.where, ext[0].GetTypedConfig(), removeForged())
			}
		}},
		forManager("routes-by-ads", "routes do not come by ADS", func(h manager) bool {
			return h.GetRds().GetConfigSource().GetAds() != nil && h.GetRds().GetRouteConfigName() == routesName
		}),
		forManager("upgrades-off", "an upgrade is on by default, or has filters of its own", func(h manager) bool {
			return !slices.ContainsFunc(h.GetUpgradeConfigs(), func(u *hcmv3.HttpConnectionManager_UpgradeConfig) bool {
				return u.GetUpgradeType() != "websocket" || u.GetEnabled() == nil || u.GetEnabled().GetValue() || len(u.GetFilters()) > 0
			})
		}),
		forManager("local-replies", "Envoy's own refusals have no body of ours", func(h manager) bool {
			return len(h.GetLocalReplyConfig().GetMappers()) > 2*len(problems(false)) && h.GetLocalReplyConfig().GetBodyFormat() == nil
		}),
		{"access-log", lintAccessLog},
		{"filter-order", func(l *linter, m *parts) {
			// The whole list, so that nothing comes between the decision and the
			// router: no filter that clears the route cache, changes the path or
			// answers by itself.
			// Envoy's look at the admission is there whole or not at all.
			want := []string{filterSane, filterExtAuthz, filterAdmitted, filterStreams, filterRouter}
			if m.admission() {
				want = []string{filterSane, filterExtAuthz, filterAdmitted, filterStreams, filterNow, filterFresh, filterRouter}
			}
			for _, h := range m.managers {
				var got []string
				for _, f := range h.GetHttpFilters() {
					got = append(got, f.GetName())
					if f.GetName() == filterStreams {
						continue // streams-watched
					}
					l.only(h.where+" filter "+f.GetName(), f, "name", "typed_config")
				}
				if !slices.Equal(got, want) {
					l.fail(h.where, "filters are %v, not %v", got, want)
				}
			}
		}},
		{"sane-only", func(l *linter, m *parts) {
			for _, h := range m.managers {
				for _, f := range h.GetHttpFilters() {
					switch f.GetName() {
					case filterSane:
						l.sameAs(h.where, f.GetTypedConfig(), saneOnly())
					case filterAdmitted, filterFresh:
						l.sameAs(h.where, f.GetTypedConfig(), &rbacv3.RBAC{})
					case filterNow:
						l.sameAs(h.where, f.GetTypedConfig(), tellNow())
					}
				}
			}
		}},
	}
}

// admission tells whether any part of a snapshot has to do with Envoy's look at
// the end of an admission; then all parts must.
func (m *parts) admission() bool {
	for _, h := range m.managers {
		for _, f := range h.GetHttpFilters() {
			if f.GetName() == filterNow || f.GetName() == filterFresh {
				return true
			}
		}
	}
	for _, rc := range m.routes {
		if rc.GetTypedPerFilterConfig()[filterFresh] != nil {
			return true
		}
	}
	return false
}

// lintAccessLog wants every request in exactly one access log.
func lintAccessLog(l *linter, m *parts) {
	for _, h := range m.managers {
		logs := h.GetAccessLog()
		rest := 0
		for _, a := range logs {
			if a.GetName() == accessLogFile {
				lintAccessLogFile(l, h.where, a)
				continue
			}
			c := &grpclogv3.HttpGrpcAccessLogConfig{}
			l.open(h.where, a.GetTypedConfig(), c)
			if !strings.HasPrefix(c.GetCommonConfig().GetGrpcService().GetEnvoyGrpc().GetClusterName(), clusterALS) {
				l.fail(h.where, "an access log that does not go to a sidecar")
			}
			// What a person put into a header is nobody's business here.
			l.only(h.where, c, "common_config")
			if f := a.GetFilter(); f == nil || takesTheRest(f) {
				rest++
			}
		}
		l.must(rest == 1, h.where, "requests without a decision are in no access log, or in several")
	}
}

// takesTheRest tells whether a filter lets through what no sidecar decided.
func takesTheRest(f *accesslogv3.AccessLogFilter) bool {
	return f.GetMetadataFilter().GetMatchIfKeyNotFound().GetValue()
}

// forAuthz makes a rule of a property that every ext_authz filter must have.
func forAuthz(name, why string, ok func(*extauthzv3.ExtAuthz) bool) rule {
	return rule{name, func(l *linter, m *parts) {
		for _, h := range m.managers {
			for _, f := range h.GetHttpFilters() {
				c := &extauthzv3.ExtAuthz{}
				if f.GetName() == filterExtAuthz && l.open(h.where, f.GetTypedConfig(), c) {
					l.must(ok(c), h.where, why)
				}
			}
		}
	}}
}

func authzRules() []rule {
	return []rule{
		{"ext-authz-fields", func(l *linter, m *parts) {
			for _, h := range m.managers {
				for _, f := range h.GetHttpFilters() {
					c := &extauthzv3.ExtAuthz{}
					if f.GetName() == filterExtAuthz && l.open(h.where, f.GetTypedConfig(), c) {
						l.only(h.where, c, "stat_prefix", "transport_api_version", "grpc_service", "status_on_error", "validate_mutations",
							"include_peer_certificate", "allowed_headers", "encode_raw_headers", "failure_mode_allow", "clear_route_cache")
						l.only(h.where, c.GetGrpcService(), "envoy_grpc", "timeout")
					}
				}
			}
		}},
		forAuthz("failure-mode", "failure_mode_allow lets everything pass when the sidecar is silent", func(c *extauthzv3.ExtAuthz) bool { return !c.GetFailureModeAllow() }),
		forAuthz("status-on-error", "status_on_error is not 503", func(c *extauthzv3.ExtAuthz) bool { return c.GetStatusOnError().GetCode() == 503 }),
		forAuthz("validate-mutations", "validate_mutations is off", func(c *extauthzv3.ExtAuthz) bool { return c.GetValidateMutations() }),
		forAuthz("route-cache", "the route is chosen again after the decision", func(c *extauthzv3.ExtAuthz) bool { return !c.GetClearRouteCache() }),
		forAuthz("authz-timeout", "the timeout is not within 1s", func(c *extauthzv3.ExtAuthz) bool { return within(c.GetGrpcService().GetTimeout(), time.Second) }),
		forAuthz("authz-cluster", "decisions do not come from the sidecars", func(c *extauthzv3.ExtAuthz) bool {
			return c.GetGrpcService().GetEnvoyGrpc().GetClusterName() == clusterAuthz
		}),
		forAuthz("peer-certificate", "the client certificate does not reach the authorizer", func(c *extauthzv3.ExtAuthz) bool { return c.GetIncludePeerCertificate() }),
		forAuthz("headers-to-check", "the authorizer does not see each identity header as often as it came", func(c *extauthzv3.ExtAuthz) bool {
			b := &builder{}
			b.cfg.AuthzTimeout = time.Second
			want := b.extAuthz().GetAllowedHeaders().GetPatterns()
			got := c.GetAllowedHeaders().GetPatterns()
			if len(got) != len(want) || !c.GetEncodeRawHeaders() {
				return false
			}
			for i := range want {
				if got[i].GetExact() != want[i].GetExact() {
					return false
				}
			}
			return true
		}),
	}
}
