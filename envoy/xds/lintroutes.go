package xds

import (
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/dspgate/dspgate/envoy/headers"
)

// eachHost visits every virtual host.
func (m *parts) eachHost(f func(where string, vh *routev3.VirtualHost)) {
	for _, rc := range m.routes {
		for _, vh := range rc.GetVirtualHosts() {
			f("host "+vh.GetName(), vh)
		}
	}
}

// eachRoute visits every route but those that end a virtual host.
func (m *parts) eachRoute(f func(where string, r *routev3.Route)) {
	m.eachHost(func(where string, vh *routev3.VirtualHost) {
		for i, r := range vh.GetRoutes() {
			if i < len(vh.GetRoutes())-1 {
				f(where+" route "+r.GetName(), r)
			}
		}
	})
}

func routeRules() []rule {
	return []rule{
		{"routes-fields", func(l *linter, m *parts) {
			for _, rc := range m.routes {
				l.only("routes "+rc.GetName(), rc, "name", "virtual_hosts", "request_headers_to_remove", "typed_per_filter_config", "validate_clusters")
			}
			// A virtual host adds nothing: no mirror, no retry, no override of a filter.
			m.eachHost(func(where string, vh *routev3.VirtualHost) { l.only(where, vh, "name", "domains", "routes") })
		}},
		{"named-hosts", func(l *linter, m *parts) {
			m.eachHost(func(where string, vh *routev3.VirtualHost) {
				for _, d := range vh.GetDomains() {
					l.must(validHost(d), where, "the domain "+d+" is a wildcard or has a port")
				}
			})
		}},
		{"claims-stay", func(l *linter, m *parts) {
			for _, rc := range m.routes {
				for _, h := range headers.Claims() {
					l.must(containsFold(rc.GetRequestHeadersToRemove(), h), "routes "+rc.GetName(), h+" would reach the upstream")
				}
			}
		}},
		{"admitted-only", func(l *linter, m *parts) {
			for _, rc := range m.routes {
				where := "routes " + rc.GetName()
				for name, cfg := range rc.GetTypedPerFilterConfig() {
					switch name {
					case filterAdmitted:
						l.sameAs(where, cfg, admittedOnly())
					case filterFresh:
						l.sameAs(where, cfg, freshOnly())
					default:
						l.fail(where, "an override of %s", name)
					}
				}
				l.must(rc.GetTypedPerFilterConfig()[filterAdmitted] != nil, where, "requests leave without a decision")
			}
		}},
		{"fresh-only", func(l *linter, m *parts) {
			if !m.admission() {
				return
			}
			for _, rc := range m.routes {
				where := "routes " + rc.GetName()
				l.must(rc.GetTypedPerFilterConfig()[filterFresh] != nil, where, "requests leave after their admission has expired")
				for _, h := range []string{headers.Now, headers.NotAfter} {
					l.must(containsFold(rc.GetRequestHeadersToRemove(), h), where, h+" would reach the upstream")
				}
			}
		}},
		{"last-route", func(l *linter, m *parts) {
			// It answers what no service matches, and only after the authorizer did:
			// no route at all would skip it.
			m.eachHost(func(where string, vh *routev3.VirtualHost) {
				n := len(vh.GetRoutes())
				if n == 0 {
					l.fail(where, "no routes")
					return
				}
				last := vh.GetRoutes()[n-1]
				l.only(where+" last route", last, "name", "match", "direct_response")
				l.only(where+" last route", last.GetMatch(), "prefix")
				l.must(last.GetMatch().GetPrefix() == "/" && last.GetDirectResponse().GetStatus() == 403, where, "the last route does not answer every path with 403")
			})
		}},
		{"match-by-allow-list", func(l *linter, m *parts) {
			m.eachRoute(func(where string, r *routev3.Route) {
				l.only(where, r.GetMatch(), "path", "safe_regex", "headers")
				l.must(r.GetMatch().GetPath() != "" || cleanRegex(r.GetMatch().GetSafeRegex().GetRegex()), where, "the path is not a template's")
				hs := r.GetMatch().GetHeaders()
				l.must(len(hs) == 1 && hs[0].GetName() == ":method" && hs[0].GetStringMatch().GetExact() != "" && !hs[0].GetInvertMatch(),
					where, "the method is not the service's")
			})
		}},
		{"route-fields", func(l *linter, m *parts) {
			m.eachRoute(func(where string, r *routev3.Route) {
				l.only(where, r, "name", "match", "route", "typed_per_filter_config")
			})
		}},
		{"route-action", func(l *linter, m *parts) {
			// No retry (a request leaves once), no mirror, no rewrite (the path decided
			// upon is the path that leaves), no redirect followed by Envoy.
			m.eachRoute(func(where string, r *routev3.Route) {
				l.only(where, r.GetRoute(), "cluster", "timeout", "idle_timeout", "max_stream_duration", "upgrade_configs")
			})
		}},
		{"route-timeouts", func(l *linter, m *parts) {
			m.eachRoute(func(where string, r *routev3.Route) {
				a := r.GetRoute()
				l.must(a.GetTimeout() != nil && a.GetTimeout().AsDuration() >= 0 && within(a.GetIdleTimeout(), 24*time.Hour) &&
					within(a.GetMaxStreamDuration().GetMaxStreamDuration(), 24*time.Hour), where, "the call has no end")
			})
		}},
		{"route-upgrades", func(l *linter, m *parts) {
			m.eachRoute(func(where string, r *routev3.Route) {
				for _, u := range r.GetRoute().GetUpgradeConfigs() {
					l.must(u.GetUpgradeType() == "websocket" && u.GetConnectConfig() == nil, where, "an upgrade to "+u.GetUpgradeType())
				}
			})
		}},
		{"exempt-nothing", func(l *linter, m *parts) {
			m.eachRoute(func(where string, r *routev3.Route) {
				for name, cfg := range r.GetTypedPerFilterConfig() {
					if name == filterStreams {
						continue // streams-watched
					}
					if name != filterExtAuthz {
						l.fail(where, "an override of %s", name)
						continue
					}
					// The one override there may be sends the body along.
					c := &extauthzv3.ExtAuthzPerRoute{}
					if !l.open(where, cfg, c) {
						continue
					}
					l.only(where, c, "check_settings")
					l.only(where, c.GetCheckSettings(), "with_request_body")
					body := c.GetCheckSettings().GetWithRequestBody()
					l.must(body.GetMaxRequestBytes() > 0 && body.GetMaxRequestBytes() <= bodyBytesMax && !body.GetAllowPartialMessage(),
						where, "ext_authz is overridden by more than a whole body of at most 64 KiB")
				}
			})
		}},
		{"streams-watched", lintStreams},
		{"clusters-known", func(l *linter, m *parts) {
			known := map[string]bool{}
			for _, c := range m.clusters {
				known[c.GetName()] = true
			}
			l.must(known[clusterAuthz], "clusters", "no cluster "+clusterAuthz)
			l.must(known[clusterStreams], "clusters", "no cluster "+clusterStreams)
			m.eachRoute(func(where string, r *routev3.Route) {
				name := r.GetRoute().GetCluster()
				l.must(known[name] && !strings.HasPrefix(name, "sidecar_"), where, "leads to the cluster "+name)
			})
		}},
	}
}

// lintStreams wants a side stream beside every request that may last, which is
// one without a timeout or with an upgrade, and beside no other.
func lintStreams(l *linter, m *parts) {
	for _, h := range m.managers {
		for _, f := range h.GetHttpFilters() {
			if f.GetName() != filterStreams {
				continue
			}
			l.only(h.where+" filter "+f.GetName(), f, "name", "typed_config", "disabled")
			l.must(f.GetDisabled(), h.where, "every request would have a side stream")
			l.sameAs(h.where, f.GetTypedConfig(), watchStreams())
			c := &extprocv3.ExternalProcessor{}
			if !l.open(h.where, f.GetTypedConfig(), c) {
				continue
			}
			// Said again, apart from how it was made: each of these lets streams go on.
			mode := c.GetProcessingMode()
			l.must(!c.GetFailureModeAllow() && !c.GetObservabilityMode() && !c.GetDisableImmediateResponse() && !c.GetAllowModeOverride() &&
				c.GetGrpcService().GetEnvoyGrpc().GetClusterName() == clusterStreams &&
				mode.GetRequestHeaderMode() == extprocv3.ProcessingMode_SEND && mode.GetResponseTrailerMode() == extprocv3.ProcessingMode_SEND,
				h.where, "a stream could go on that a sidecar ended")
		}
	}
	m.eachRoute(func(where string, r *routev3.Route) {
		a := r.GetRoute()
		lasts := a.GetTimeout() == nil || a.GetTimeout().AsDuration() == 0 || len(a.GetUpgradeConfigs()) > 0
		cfg := r.GetTypedPerFilterConfig()[filterStreams]
		switch {
		case lasts && cfg == nil:
			l.fail(where, "a call that may last, and nothing that could end it")
		case !lasts && cfg != nil:
			l.fail(where, "a side stream beside a call that ends by itself")
		case cfg != nil:
			l.sameAs(where, cfg, watched())
		}
	})
}

// cleanRegex tells whether a regular expression is one of templateRegex: only
// quoted literals and whole segments.
func cleanRegex(re string) bool {
	if !strings.HasPrefix(re, "/") {
		return false
	}
	rest := strings.ReplaceAll(re, segmentRegex, "")
	for i := 0; i < len(rest); i++ {
		if rest[i] == '\\' {
			i++
			continue
		}
		if strings.IndexByte(`.+*?()|[]{}^$`, rest[i]) >= 0 {
			return false
		}
	}
	return true
}

func containsFold(all []string, s string) bool {
	for _, x := range all {
		if strings.EqualFold(x, s) {
			return true
		}
	}
	return false
}

func clusterRules() []rule {
	return []rule{
		{"circuit-breakers", func(l *linter, m *parts) {
			for _, c := range m.clusters {
				ts := c.GetCircuitBreakers().GetThresholds()
				l.must(len(ts) == 1 && ts[0].GetMaxConnections().GetValue() > 0 && ts[0].GetMaxPendingRequests().GetValue() > 0 &&
					ts[0].GetMaxRequests().GetValue() > 0 && ts[0].GetMaxRetries() != nil, "cluster "+c.GetName(), "limits are left to Envoy's defaults")
			}
		}},
		{"control-frames", func(l *linter, m *parts) {
			forSidecars(m, func(where string, c *clusterv3.Cluster) {
				p := &httpv3.HttpProtocolOptions{}
				if l.open(where, c.GetTypedExtensionProtocolOptions()[httpProtocolOptions], p) {
					n := p.GetExplicitHttpConfig().GetHttp2ProtocolOptions().GetMaxOutboundControlFrames().GetValue()
					l.must(n >= outboundControlFramesMax, where, "max_outbound_control_frames is below 100,000")
				}
			})
		}},
		{"sidecar-near", func(l *linter, m *parts) {
			// No ejection of a sidecar for what callers did, and no call to one that is
			// ill as long as another is well.
			forSidecars(m, func(where string, c *clusterv3.Cluster) {
				l.only(where, c, "name", "connect_timeout", "type", "per_connection_buffer_limit_bytes", "circuit_breakers", "load_assignment",
					"typed_extension_protocol_options", "common_lb_config", "lb_policy", "health_checks")
				panics := c.GetCommonLbConfig().GetHealthyPanicThreshold()
				l.must(len(c.GetHealthChecks()) == 0 || panics != nil && panics.GetValue() <= panicPercent, where, "sidecars that are ill are asked while others are well")
			})
		}},
		{"upstream-fields", func(l *linter, m *parts) {
			for _, c := range m.clusters {
				if !strings.HasPrefix(c.GetName(), "sidecar_") {
					l.only("cluster "+c.GetName(), c, "name", "connect_timeout", "type", "per_connection_buffer_limit_bytes", "circuit_breakers",
						"load_assignment", "typed_extension_protocol_options", "transport_socket")
				}
			}
		}},
	}
}

func forSidecars(m *parts, f func(where string, c *clusterv3.Cluster)) {
	for _, c := range m.clusters {
		if strings.HasPrefix(c.GetName(), "sidecar_") {
			f("cluster "+c.GetName(), c)
		}
	}
}
