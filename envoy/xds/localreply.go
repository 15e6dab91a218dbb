package xds

import (
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// problem is one refusal of Envoy's own, in the words of the authorizer's.
type problem struct {
	filter *accesslogv3.AccessLogFilter
	status uint32
	code   string
	title  string
	detail string
	add    []*corev3.HeaderValueOption
}

// problems lists Envoy's own refusals; the first that matches is given. What
// Envoy says by itself ("no healthy upstream. reset reason: …") is never passed
// on: it tells about the inside. admission says whether Envoy looks at the end of
// admissions.
func problems(admission bool) []problem {
	retry := []*corev3.HeaderValueOption{headerOption("retry-after", "1")}
	status := func(code uint32) *accesslogv3.AccessLogFilter {
		return statusFilter(accesslogv3.ComparisonFilter_EQ, code)
	}
	unavailable := problem{
		status: 503, code: "authorizer-unavailable", title: "Authorizer is unavailable",
		detail: "The authorizer did not answer; try again after the time in Retry-After.", add: retry,
	}
	admitted := allOf(status(403), metadataFilter(filterExtAuthz, MetadataReason, exact(ReasonOK), false), metadataFilter(filterExtAuthz, MetadataDecisionID, regex(decisionIDRegex), false))
	with := func(p problem, f *accesslogv3.AccessLogFilter) problem { p.filter = f; return p }
	all := []problem{
		// A side stream failed, or could not be opened: nobody watches any more.
		with(unavailable, status(uint32(streamsFailed))),
		// The authorizer allowed, and what it adds for the upstream makes the headers
		// too many or too long: so many did the client send.
		{filter: allOf(flagFilter("UAEX"), status(500), metadataFilter(filterExtAuthz, MetadataReason, exact(ReasonOK), false)), status: 431, code: "headers-too-large", title: "Headers are too large",
			detail: "The headers of a request are too many or too long."},
		// The authorizer failed: no answer, too late, or one that cannot be obeyed.
		with(unavailable, allOf(flagFilter("UAEX"), statusFilter(accesslogv3.ComparisonFilter_GE, 500))),
		{filter: allOf(status(403), headerFilter(":method", &routev3.HeaderMatcher_StringMatch{StringMatch: exact("CONNECT")}, false)), status: 403, code: "service-unknown", title: "No such service",
			detail: "This gateway opens no tunnels."},
		{filter: allOf(status(403), not(":method", methodRegex)), status: 405, code: "method-not-allowed", title: "Method not allowed",
			detail: "No service has this method.", add: []*corev3.HeaderValueOption{headerOption("allow", strings.ReplaceAll(methodRegex, "|", ", "))}},
		{filter: allOf(status(403), not(":scheme", schemeRegex)), status: 400, code: "request-ambiguous", title: "Request is ambiguous",
			detail: "The scheme of a request is http or https."},
		{filter: allOf(status(403), headerFilter("expect", &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}, false)), status: 417, code: "expectation-failed", title: "Expectation failed",
			detail: "The only expectation known is 100-continue."},
		{filter: allOf(status(403), headerFilter("content-length", &routev3.HeaderMatcher_StringMatch{StringMatch: regex(lengthRegex)}, false)), status: 400, code: "request-ambiguous", title: "Request is ambiguous",
			detail: "No body is as long as Content-Length says."},
		// An absolute-form target with https on the listener without TLS, which Envoy
		// refuses with 403 before the request has an x-request-id.
		{filter: allOf(status(403), headerFilter("x-request-id", &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}, true)), status: 400, code: "request-ambiguous", title: "Request is ambiguous",
			detail: "The scheme of the request is not that of the connection."},
		{filter: admitted, status: 403, code: "service-unknown", title: "No such service",
			detail: "The method and path are no service of this gateway."},
		{filter: allOf(status(403), headerFilter("upgrade", &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}, false)), status: 403, code: "service-unknown", title: "No such service",
			detail: "No service at this path speaks the protocol asked for by Upgrade."},
		// Nobody decided, and still the request came to the routes.
		with(unavailable, status(403)),
		{filter: status(400), status: 400, code: "request-ambiguous", title: "Request is ambiguous",
			detail: "The request can be read in more than one way: its framing, its headers or its path are not in the one normal form."},
		{filter: status(404), status: 404, code: "host-unknown", title: "No such host",
			detail: "This gateway does not serve the host named in the request."},
		{filter: status(408), status: 408, code: "request-timeout", title: "Request took too long",
			detail: "The request did not arrive in time."},
		{filter: status(413), status: 413, code: "body-too-large", title: "Body is too large",
			detail: "The body of a request to this service is at most 64 KiB."},
		{filter: status(414), status: 414, code: "path-too-long", title: "Path is too long", detail: "Shorten the path or the query."},
		{filter: status(426), status: 426, code: "upgrade-required", title: "Upgrade required", detail: "Use HTTP/1.1 or HTTP/2."},
		{filter: status(429), status: 429, code: "rate-limited", title: "Too many requests",
			detail: "Slow down and try again after the time in Retry-After.", add: retry},
		{filter: status(431), status: 431, code: "headers-too-large", title: "Headers are too large",
			detail: "The headers of a request are too many or too long."},
		// A transfer coding Envoy does not know: it cannot tell where the body ends.
		{filter: status(501), status: 400, code: "request-ambiguous", title: "Request is ambiguous",
			detail: "The only transfer coding known is chunked."},
		{filter: status(502), status: 502, code: "upstream-failed", title: "Service failed", detail: "The service behind this gateway gave no proper answer."},
		{filter: status(503), status: 503, code: "upstream-unavailable", title: "Service is unavailable",
			detail: "The service behind this gateway cannot be reached; try again after the time in Retry-After.", add: retry},
		{filter: status(504), status: 504, code: "upstream-timeout", title: "Service took too long", detail: "The service behind this gateway did not answer in time."},
	}
	if admission {
		// A verdict of no leaves no trace, one of yes the name of the policy: the last
		// one to say yes was not the one of dspgate.fresh.
		stale := allOf(admitted, metadataFilter(rbacMetadata, "enforced_effective_policy_id", exact(policyAdmitted), false))
		all = slices.Insert(all, 1, problem{filter: stale, status: 503, code: "admission-expired", title: "Admission has expired",
			detail: "The call was held up after it was admitted; try again.", add: retry})
	}
	return all
}

// localReplies dresses Envoy's own refusals as the authorizer's: the same
// problem+json, for gRPC callers the sentence as grpc-message. A denial by the
// authorizer is a local reply too, and passes untouched, because it said why.
func (b *builder) localReplies() *hcmv3.LocalReplyConfig {
	cfg := &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		// Nor has what a sidecar says that ends a stream to be said again.
		Filter: metadataFilter(streamsNamespace, streamsEnded, regex(".+"), false),
	}, {
		Filter: allOf(flagFilter("UAEX"), metadataFilter(filterExtAuthz, MetadataReason, regex(notAnyRegex([]string{ReasonOK})), false)),
	}}}
	grpc := headerFilter("content-type", &routev3.HeaderMatcher_StringMatch{StringMatch: prefix("application/grpc")}, false)
	early := headerFilter("x-request-id", &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}, true)
	for _, p := range problems(b.cfg.Admission) {
		tooEarly := p
		tooEarly.add = append([]*corev3.HeaderValueOption{headerOption("x-request-id", earlyID)}, p.add...)
		cfg.Mappers = append(cfg.Mappers,
			b.mapper(p, allOf(p.filter, grpc), &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
					Specifier: &corev3.DataSource_InlineString{InlineString: p.code + ": " + p.detail},
				}},
			}),
			b.mapper(tooEarly, allOf(p.filter, early), b.problemFormat(p, earlyID)),
			b.mapper(p, p.filter, b.problemFormat(p, "%REQ(X-REQUEST-ID)%")))
	}
	return cfg
}

// earlyID names a request that was refused before it got an x-request-id, as a
// path that does not normalise is. It must come out the same in the header and
// in the body.
const earlyID = "%CONNECTION_ID%-%START_TIME(%s%9f)%"

func (b *builder) problemFormat(p problem, id string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{
		ContentType: "application/problem+json",
		Format:      &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: b.problemBody(p, id)},
	}
}

func (b *builder) mapper(p problem, f *accesslogv3.AccessLogFilter, body *corev3.SubstitutionFormatString) *hcmv3.ResponseMapper {
	return &hcmv3.ResponseMapper{
		Filter: f, StatusCode: u32(p.status), BodyFormatOverride: body,
		HeadersToAdd: p.add,
	}
}

// problemBody is the problem of RFC 9457 with the portal's list beside it.
// There is no decision to name: the request's ID stands in its place.
func (b *builder) problemBody(p problem, requestID string) *structpb.Struct {
	s, err := structpb.NewStruct(map[string]any{
		"type": b.cfg.ProblemBase + p.code, "title": p.title, "status": float64(p.status),
		"detail": p.detail, "instance": "/decisions/" + requestID,
		"errors": []any{map[string]any{"id": requestID, "code": p.code, "detail": p.detail}},
	})
	if err != nil && b.err == nil {
		b.err = err
	}
	return s
}

func statusFilter(op accesslogv3.ComparisonFilter_Op, code uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
		Comparison: &accesslogv3.ComparisonFilter{Op: op, Value: &corev3.RuntimeUInt32{DefaultValue: code, RuntimeKey: "dspgate.local_reply"}},
	}}}
}

func flagFilter(flag string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{flag}},
	}}
}

// headerFilter matches on a request header.
func headerFilter(name string, match any, invert bool) *accesslogv3.AccessLogFilter {
	h := &routev3.HeaderMatcher{Name: name, InvertMatch: invert}
	switch m := match.(type) {
	case *routev3.HeaderMatcher_StringMatch:
		h.HeaderMatchSpecifier = m
	case *routev3.HeaderMatcher_PresentMatch:
		h.HeaderMatchSpecifier = m
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{HeaderFilter: &accesslogv3.HeaderFilter{Header: h}}}
}

// not matches a request header that has a value other than those allowed.
func not(name, allowed string) *accesslogv3.AccessLogFilter {
	return headerFilter(name, &routev3.HeaderMatcher_StringMatch{StringMatch: regex(allowed)}, true)
}

func allOf(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{Filters: filters}}}
}
