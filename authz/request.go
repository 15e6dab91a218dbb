package authz

// Request is what a decision needs of one HTTP request, as Envoy's ext_authz
// reported it. Its strings may point into the caller's buffer: nothing in this
// package keeps one beyond Decide, unless it copies it.
type Request struct {
	Method string // :method
	Target string // :path with its query, as it will reach the upstream
	Host   string // :authority; may carry a port
	Scheme string

	Authorization  string // the header's value
	Authorizations int    // how often the header came: 0, 1, or more (ambiguous)

	// Claims in headers, compared with the verified identity, never believed.
	ClaimProductID, ClaimProductVersion, ClaimSoftwareID string
	// Duplicated: one of those headers, or Host, came more than once.
	Duplicated bool

	GRPC      bool   // content-type application/grpc*: deny with a gRPC status
	RequestID string // Envoy's own x-request-id

	Peer        string // downstream remote address, without port
	Certificate string // the client certificate as Envoy reports it: URL-encoded PEM; "" when none

	Body          []byte // only for services whose subject is in the body
	BodyTruncated bool
}
