// Package headers is the one list of request headers that mean something to
// dspgate, shared by the Envoy configuration and the authorizer, so that the
// two cannot drift apart.
//
// A header is either forged (a client has no business sending it: Envoy removes
// it before anything looks at the request), or a claim (the authorizer compares
// it with the verified identity, then it goes no further), or set (by the
// authorizer, for the upstream, after every client's copy was removed).
package headers

import "slices"

// What the authorizer sets for the upstream.
const (
	DecisionID     = "x-dsp-decision-id"
	ABN            = "x-dsp-abn"
	ProductID      = "x-dsp-product-id"
	ProductVersion = "x-dsp-product-version"
	SoftwareID     = "x-dsp-software-id"
	ClientABN      = "x-dsp-client-abn"
	Service        = "x-dsp-service"
	Environment    = "x-dsp-environment"
	Revision       = "x-dsp-revision"
	Admission      = "x-dsp-admission" // the stamp; when admission is configured
)

// What Envoy itself compares before it forwards, when admission is configured:
// the stamp's end and the present, both as 13 digits of Unix milliseconds. They
// go no further.
const (
	NotAfter = "x-dsp-not-after"
	Now      = "x-dsp-now"
)

// What a client claims, and the authorizer compares with what it verified.
const (
	ClaimProductID      = "x-product-id"
	ClaimProductVersion = "x-product-version"
	ClaimSoftwareID     = "x-software-id"
)

// What the caller is told with an answer that passed: Warning holds a code that
// will refuse such calls when nothing is done, Sunset (RFC 8594) when the
// version's support ends.
const (
	Warning = "x-dsp-warning"
	Sunset  = "sunset"
)

// Set lists the headers the authorizer sets for the upstream.
func Set() []string {
	return []string{DecisionID, ABN, ProductID, ProductVersion, SoftwareID, ClientABN, Service, Environment, Revision, Admission, NotAfter}
}

// Claims lists the headers that reach the authorizer but never the upstream.
func Claims() []string { return []string{ClaimProductID, ClaimProductVersion, ClaimSoftwareID} }

// RemovedPrefixes lists the beginnings, in lower case, of every family of
// headers a client must not send. A member that nobody has thought of yet is
// removed as well.
func RemovedPrefixes() []string {
	return []string{
		"x-dsp-", "x-forward", "x-envoy-", "x-original-", "x-auth", "x-client-", "x-remote-", "x-http-", "x-consumer-", "x-jwt-",
		"x-ssl-", "x-amzn-", "x-goog-", "x-ms-client-", "remote-",
	}
}

// Removed lists, in lower case, the single headers a client must not send: an
// identity some program behind us may believe, another path or method than the
// one decided upon, or a peer other than the real one.
func Removed() []string {
	return []string{
		"x-request-id", // always our own: it names the decision in every answer
		"x-rewrite-url", "x-override-url", "x-method-override", "x-accel-redirect", "x-sendfile", "x-middleware-subrequest",
		"x-developer-id", "x-scope", "x-risk-score", "x-admit-ms",
		// The names of ours without their prefix.
		"x-decision-id", "x-abn", "x-entity-id", "x-environment", "x-service", "x-revision", "dsp-product-id",
		"x-real-ip", "x-real-user", "x-user", "x-user-id", "x-username", "x-userinfo", "x-email", "x-groups", "x-roles", "x-role",
		"x-identity", "x-principal", "x-subject", "x-tenant-id", "x-admin", "x-access-token", "x-credential-identifier",
		"x-originating-ip", "x-cluster-client-ip", "x-custom-ip-authorization", "x-proxyuser-ip", "x-host", "x-scheme", "x-url-scheme",
		"forwarded", "front-end-https", "true-client-ip", "cf-connecting-ip", "fastly-client-ip",
		"ssl-client-cert", "ssl-client-verify", "ssl-client-s-dn", "client-cert", "client-cert-chain", "x-tls-client-cert", "x-cert",
		"x-internal", "proxy-authorization", "proxy",
	}
}

// ToCheck lists the headers the authorizer is sent; the host, method and path
// come anyway. Every byte beyond these costs on each request.
func ToCheck() []string {
	return append(Claims(), "authorization", "content-type", "x-request-id")
}

// Forged tells whether a client must not send the header; name is in lower case.
func Forged(name string) bool {
	for _, p := range RemovedPrefixes() {
		if len(name) >= len(p) && name[:len(p)] == p {
			return true
		}
	}
	return slices.Contains(Removed(), name)
}
