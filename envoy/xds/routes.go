package xds

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/dspgate/dspgate/envoy/headers"
	"github.com/dspgate/dspgate/registry"
)

const (
	// routeUnknown is the name of the last route of each virtual host.
	routeUnknown = "unknown"
	// bodyBytesMax bounds the body that is sent to the authorizer for a service
	// whose subject is in it; a longer one gets 413.
	bodyBytesMax = 64 << 10
	// segmentRegex is a path segment as registry.CleanPath has it: what fills a
	// parameter in Envoy is what fills it in the register.
	segmentRegex = `[A-Za-z0-9\-._~!$&'()*+,=:@]+`
	// policyAdmitted names the policy of admittedOnly.
	policyAdmitted = "admitted"
	// decisionIDRegex is a decision ID: 26 characters of Crockford base32.
	decisionIDRegex = `[0-9A-HJKMNP-TV-Z]{26}`
)

// routes makes one virtual host per environment, with one route per service and
// a last one that answers what nobody registered.
func (b *builder) routes(services []*registry.Service) *routev3.RouteConfiguration {
	domains := map[registry.Environment][]string{}
	for h, env := range b.cfg.Hosts {
		domains[env] = append(domains[env], strings.ToLower(h))
	}
	rc := &routev3.RouteConfiguration{
		Name: routesName,
		// The claims were for the authorizer only. Removed here, after it, and not
		// by the early mutation, before it. Whatever the authorizer answered, they
		// do not reach the upstream, nor does the token.
		RequestHeadersToRemove: b.headersToRemove(),
		TypedPerFilterConfig:   map[string]*anypb.Any{filterAdmitted: b.any(admittedOnly())},
		ValidateClusters:       no(), // clusters arrive by the same stream, in their own order
	}
	if b.cfg.Admission {
		rc.TypedPerFilterConfig[filterFresh] = b.any(freshOnly())
	}
	for _, env := range slices.Sorted(maps.Keys(domains)) {
		vh := &routev3.VirtualHost{Name: env.String(), Domains: domains[env]}
		slices.Sort(vh.Domains)
		for _, s := range services {
			vh.Routes = append(vh.Routes, b.route(s))
		}
		vh.Routes = append(vh.Routes, unknownRoute())
		rc.VirtualHosts = append(rc.VirtualHosts, vh)
	}
	return rc
}

func (b *builder) headersToRemove() []string {
	all := headers.Claims()
	if !b.cfg.ForwardAuthorization {
		all = append(all, "authorization")
	}
	if b.cfg.Admission {
		all = append(all, headers.Now, headers.NotAfter)
	}
	return all
}

// unknownRoute answers what no service matches. The authorizer is asked first,
// so that no token beats no route; only when it should allow does Envoy refuse.
func unknownRoute() *routev3.Route {
	return &routev3.Route{
		Name:   routeUnknown,
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 403}},
	}
}

func (b *builder) route(s *registry.Service) *routev3.Route {
	action := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: b.clusterOf(s)},
		IdleTimeout:      dur(b.cfg.StreamIdleTimeout),
		Timeout:          dur(b.cfg.RequestTimeout),
		// The timeout above counts from the end of the request; a body sent byte by
		// byte is bounded by this one.
		MaxStreamDuration: &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: dur(b.cfg.RequestTimeout)},
	}
	if s.Streaming != "" {
		action.Timeout = dur(0)
		action.MaxStreamDuration.MaxStreamDuration = dur(b.cfg.MaxStreamDuration)
	}
	if s.Streaming == streamingWebSocket {
		action.UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "websocket", Enabled: yes()}}
	}
	r := &routev3.Route{
		Name:   s.Key,
		Match:  b.match(s),
		Action: &routev3.Route_Route{Route: action},
	}
	r.TypedPerFilterConfig = map[string]*anypb.Any{}
	if s.Subject.Body() {
		r.TypedPerFilterConfig[filterExtAuthz] = b.any(bodyToCheck())
	}
	if s.Streaming != "" {
		r.TypedPerFilterConfig[filterStreams] = b.any(watched())
	}
	return r
}

// The values of registry.Service.Streaming that matter to Envoy.
const (
	streamingWebSocket = "websocket"
	streamingGRPC      = "grpc"
)

func (b *builder) match(s *registry.Service) *routev3.RouteMatch {
	m := &routev3.RouteMatch{Headers: []*routev3.HeaderMatcher{{
		Name:                 ":method",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exact(s.Method)},
	}}}
	if !strings.Contains(s.Template, "{") {
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: s.Template}
		return m
	}
	m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: templateRegex(s.Template)}}
	return m
}

// templateRegex is the regular expression that matches, whole, exactly the
// clean paths that the template matches.
func templateRegex(template string) string {
	var b strings.Builder
	for seg := range strings.SplitSeq(template[1:], "/") {
		b.WriteByte('/')
		if seg[0] == '{' {
			b.WriteString(segmentRegex)
		} else {
			b.WriteString(quoteRegex(seg))
		}
	}
	return b.String()
}

// sortServices orders services for Envoy: a literal segment before a parameter
// in the same place, as the register's trie tries them.
func sortServices(all []*registry.Service) {
	slices.SortFunc(all, func(a, b *registry.Service) int {
		as, bs := strings.Split(a.Template, "/"), strings.Split(b.Template, "/")
		for i := range min(len(as), len(bs)) {
			ap, bp := strings.HasPrefix(as[i], "{"), strings.HasPrefix(bs[i], "{")
			switch {
			case ap && bp:
			case ap:
				return 1
			case bp:
				return -1
			default:
				if c := cmp.Compare(as[i], bs[i]); c != 0 {
					return c
				}
			}
		}
		return cmp.Or(cmp.Compare(len(as), len(bs)), cmp.Compare(a.Method, b.Method), cmp.Compare(a.Key, b.Key))
	})
}

// bodyToCheck is the one override of ext_authz a route may have.
func bodyToCheck() *extauthzv3.ExtAuthzPerRoute {
	return &extauthzv3.ExtAuthzPerRoute{Override: &extauthzv3.ExtAuthzPerRoute_CheckSettings{CheckSettings: &extauthzv3.CheckSettings{
		WithRequestBody: &extauthzv3.BufferSettings{MaxRequestBytes: bodyBytesMax, PackAsBytes: true},
	}}}
}

// admittedOnly lets a request leave only with a decision that says ok. It
// catches what would otherwise pass without one: an authorizer that answers OK
// with nothing in it, and a filter that was skipped. It stands on the routes,
// not in the filter, so that a host nobody knows is still answered 404.
func admittedOnly() *rbacv3.RBACPerRoute {
	said := func(key string, value *matcherv3.StringMatcher) *rbacconfigv3.Permission {
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_SourcedMetadata{SourcedMetadata: &rbacconfigv3.SourcedMetadata{
			MetadataSource: rbacconfigv3.MetadataSource_DYNAMIC,
			MetadataMatcher: &matcherv3.MetadataMatcher{
				Filter: filterExtAuthz,
				Path:   []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key}}},
				Value:  &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: value}},
			},
		}}}
	}
	both := &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_AndRules{AndRules: &rbacconfigv3.Permission_Set{Rules: []*rbacconfigv3.Permission{
		said(MetadataReason, exact(ReasonOK)),
		said(MetadataDecisionID, regex(decisionIDRegex)),
	}}}}
	return &rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{
		Action:   rbacconfigv3.RBAC_ALLOW,
		Policies: map[string]*rbacconfigv3.Policy{policyAdmitted: {Permissions: []*rbacconfigv3.Permission{both}, Principals: anybody()}},
	}}}
}

func anybody() []*rbacconfigv3.Principal {
	return []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_Any{Any: true}}}
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func prefix(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}, IgnoreCase: true}
}

func regex(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: s}}}
}

func headerOption(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: key, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
