package authz

import (
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/registry"
)

// Served hands out the View to decide on with its leases: one atomic load. It
// is nil until the register is loaded. *registry.Mirror implements it.
type Served interface{ Served() *registry.Served }

// TokenVerifier tells who calls. *token.Verifier implements it.
type TokenVerifier interface {
	Verify(raw, peer string, now time.Time) (*token.Claims, token.Failure)
}

// Thumbprints turns Envoy's client certificate into its x5t#S256 (RFC 8705
// §3.1). *token.Thumbprints implements it.
type Thumbprints interface {
	Of(urlEncodedPEM string) (thumbprint string, notAfter time.Time, ok bool)
}

// Decider decides requests. All its fields are set before the first request
// and not changed afterwards; it is safe for any number of callers.
type Decider struct {
	Register     Served
	Tokens       TokenVerifier
	Certificates Thumbprints
	IDs          *IDs
	// Hosts gives the environment of a request by its host, lower case, no port.
	Hosts map[string]registry.Environment
	// Subjects hashes the person or client a call concerns.
	Subjects *SubjectHasher
	// Limits is what calls pay; nil makes them free.
	Limits *Limits
	// Addresses bounds what a source address may ask; nil bounds nothing.
	Addresses *Addresses
	// Streams caps the open streams of a product; nil caps nothing.
	Streams StreamRoom
	// Strays says who strays from their own past; nil says nothing of anybody.
	Strays *anomaly.Board
	// Now is the wall clock: expiry of tokens, certificates, suspensions.
	Now func() time.Time
	// Elapsed is the clock of the leases (CLOCK_BOOTTIME): it goes on while the
	// machine sleeps, and nobody can set it.
	Elapsed func() time.Duration
}

// Decide answers one request into d, whose earlier content is forgotten. The
// cheapest question comes first and every step may refuse; what falls through
// all of them is allowed.
func (x *Decider) Decide(r *Request, d *Decision) {
	now := x.Now()
	*d = Decision{ID: x.IDs.Next(now), At: now, Network: network(r.Peer)}
	d.Reason = x.decide(r, d, now)
	x.advise(d, now)
	if s := d.Reason.Status(); (s == 503 || s == 429) && d.RetryAfter == 0 {
		d.RetryAfter = time.Second
	}
}

// advise loads what is known of who calls. It is the whole of what monitoring
// does on the request path: two looks into a small map.
func (x *Decider) advise(d *Decision, now time.Time) {
	if d.Product != nil {
		d.Surprise = max(x.Strays.Surprise(anomaly.Product, d.Product.ID, now), x.Strays.Surprise(anomaly.ClientApp, d.App.ClientID, now))
	}
}

func (x *Decider) decide(r *Request, d *Decision, now time.Time) Reason {
	// One View for the whole decision: a suspension is wholly in it or not at all.
	served := x.Register.Served()
	if served == nil {
		return RegisterNotLoaded
	}
	view, elapsed, at := served.View, x.Elapsed(), registry.At(now)
	d.Revision = view.Revision
	if !served.Fresh(1, elapsed) {
		return RegisterStale
	}

	if !x.Addresses.take(r.Peer, now) {
		return RateLimited
	}
	path, _ := registry.SplitPath(r.Target)
	if r.Duplicated || r.Authorizations > 1 || !registry.CleanPath(path) {
		return RequestAmbiguous
	}
	var known bool
	if d.Environment, known = x.environment(r.Host); !known {
		return RequestAmbiguous
	}
	view.Route(r.Method, path, &d.Match)
	d.Service = d.Match.Service
	// A route that is not found needs no view fresher than the long lease: the
	// answer is no either way.
	if d.Service != nil && !served.Fresh(d.Service.Risk, elapsed) {
		return RegisterStale
	}

	// Who calls.
	raw, ok := bearer(r.Authorization)
	if !ok {
		return TokenMissing
	}
	claims, failure := x.Tokens.Verify(raw, r.Peer, now)
	if failure != token.None {
		return tokenReason(failure)
	}
	if view.Denied("kid", claims.Issuer, claims.KID, at) || view.Denied("jti", claims.Issuer, claims.JTI, at) {
		return TokenRevoked
	}
	var thumbprint string
	if r.Certificate != "" {
		if thumbprint, _, ok = x.Certificates.Of(r.Certificate); !ok {
			return TokenBindingMismatch
		}
	}
	if claims.Thumbprint != "" && claims.Thumbprint != thumbprint {
		return TokenBindingMismatch
	}
	d.Holder, d.ClientABN, d.SSID = claims.ABN, claims.ClientABN, claims.SoftwareID

	// Which product, which subscription.
	d.App = view.ClientApp(claims.ClientID)
	if d.App == nil || d.App.Disabled {
		return ClientUnknown
	}
	d.Product = view.Product(d.App.ProductID)
	if d.Product == nil {
		return ClientUnknown // an app bound to nothing is bound to no product that vouches for it
	}
	sub, reason := whose(view, r, claims, d)
	if reason != OK {
		return reason
	}
	if d.Service == nil {
		return ServiceUnknown
	}
	if d.Service.Bound && claims.Thumbprint == "" {
		return TokenBindingMismatch
	}

	// Whether it may be served at all, at this instant.
	query := registry.StandingQuery{
		App: d.App, Environment: d.Environment, Version: r.ClaimProductVersion,
		Holder: claims.ABN, Thumbprint: thumbprint, SSID: claims.SoftwareID, Service: d.Service,
	}
	standing := view.Standing(&query, at)
	d.Suspension = standing.Suspension
	if standing.Version != nil { // as registered, also in what is kept of a refusal
		d.Version, d.Build = standing.Version.Version, standing.Build
	}
	if standing.Code != registry.Good {
		return StandingReason(&standing)
	}
	if ver := standing.Version; ver != nil {
		if ver.SupportUntil != 0 && ver.SupportUntil < at+registry.Time(SunsetAhead.Milliseconds()) {
			d.Sunset = ver.SupportUntil
		}
	}
	d.Suspension, d.throttles = standing.Bypassed, standing.Throttles

	// What it may be served.
	if d.App.Environment != d.Environment {
		return EnvironmentMismatch
	}
	if d.Service.Scope != "" && !claims.HasScope(d.Service.Scope) {
		return ServiceNotEntitled
	}
	if reason := entitled(d, at); reason != OK {
		return reason
	}
	if reason := onBehalf(view, sub, d); reason != OK {
		return reason
	}

	if reason := x.subject(r, claims, d); reason != OK {
		return reason
	}
	if reason := x.permitted(view, d); reason != OK {
		return reason
	}
	streaming := d.Service.Streaming != ""
	if streaming && x.Streams != nil && !x.Streams.Room(d.Product.ID) {
		return RateLimited
	}

	// What it costs: last of all that may refuse, so that a refused call spends
	// nothing, and after the subject, so that people are counted in the same step.
	if reason := x.Limits.pay(view, d, elapsed, now); reason != OK {
		return reason
	}
	if streaming {
		d.Grant = newGrant(claims, thumbprint, d)
	}
	return OK
}

// whose checks that the identity claims agree with each other and with the
// register, and finds the subscription, nil when the token names none.
func whose(view *registry.View, r *Request, claims *token.Claims, d *Decision) (*registry.Subscription, Reason) {
	p := d.Product
	switch {
	case !p.Delivers(claims.ABN), // the holder of the credential is no part of this product's chain
		r.ClaimProductID != "" && r.ClaimProductID != p.ID,
		r.ClaimSoftwareID != "" && r.ClaimSoftwareID != claims.SoftwareID:
		return nil, ProductMismatch
	case claims.SoftwareID == "":
		return nil, OK
	}
	sub := view.Subscription(claims.SoftwareID)
	switch {
	case sub == nil:
		return nil, SubscriptionNotNominated
	case sub.ProductID != p.ID:
		return nil, ProductMismatch
	}
	if d.ClientABN == 0 {
		d.ClientABN = sub.ClientABN
	}
	return sub, OK
}

// entitled looks for the entitlement of the product to the service in this
// environment, and whether it covers this client.
func entitled(d *Decision, at registry.Time) Reason {
	e, reason := entitlement(d, at)
	if reason != OK || d.Environment != registry.PROD || e.Stage != registry.StagePVT {
		return reason
	}
	client := d.ClientABN
	if client == 0 {
		client = d.Holder
	}
	if !slices.Contains(e.NamedClients, client) {
		return PVTClientNotNamed
	}
	return OK
}

// entitlement finds what covers the product, the service and the environment,
// whoever the client is; nil when the reason is not OK.
func entitlement(d *Decision, at registry.Time) (*registry.Entitlement, Reason) {
	p, s := d.Product, d.Service
	cert := &p.Certification
	prod := d.Environment == registry.PROD
	if prod && cert.MaxRisk != 0 && s.Risk > cert.MaxRisk {
		return nil, ProductRestricted
	}
	e := p.Entitled(s.Key, d.Environment)
	if e == nil || e.From > at || e.Until != 0 && at >= e.Until {
		return nil, ServiceNotEntitled
	}
	if prod && cert.State == registry.CertPVT && e.Stage != registry.StagePVT {
		return nil, ProductNotWhitelisted // in verification testing, and this service is not part of it
	}
	return e, OK
}

// desktop is deployment scenario 1 (domain model §2): the client runs the
// software itself, so there is no software ID to nominate.
const desktop = 1

// onBehalf checks that the client on whose behalf the call is made nominated
// this software.
func onBehalf(view *registry.View, sub *registry.Subscription, d *Decision) Reason {
	if d.Product.OwnABNOnly && d.ClientABN != 0 && d.ClientABN != d.Product.Owner {
		return SubscriptionNotNominated
	}
	if sub != nil && sub.ClientABN != d.ClientABN {
		return SubscriptionNotNominated
	}
	if d.ClientABN == 0 {
		if d.Service.ClientRequired {
			return SubscriptionNotNominated
		}
		return OK
	}
	switch {
	case d.Environment != registry.PROD, d.ClientABN == d.Holder:
		return OK
	case sub != nil:
		if !sub.Nominated {
			return SubscriptionNotNominated
		}
	case d.Product.Scenario != desktop && view.Nominated(d.Product.ID, d.ClientABN) == "":
		return SubscriptionNotNominated
	}
	return OK
}

// environment finds the environment of a host. Envoy strips ports and refuses
// other hosts already; this is for a sidecar that something else calls.
func (x *Decider) environment(host string) (registry.Environment, bool) {
	if env, ok := x.Hosts[host]; ok {
		return env, true
	}
	if i := strings.LastIndexByte(host, ':'); i > 0 && strings.IndexByte(host, ']') < i {
		host = host[:i]
	}
	if host = strings.TrimSuffix(host, "."); host == "" || len(host) > 253 {
		return 0, false
	}
	env, ok := x.Hosts[strings.ToLower(host)]
	return env, ok
}

// bearer takes the token out of an Authorization header (RFC 6750 §2.1).
func bearer(header string) (string, bool) {
	if len(header) < 8 || header[6] != ' ' || !strings.EqualFold(header[:6], "bearer") {
		return "", false
	}
	return header[7:], true
}

func tokenReason(f token.Failure) Reason {
	switch f {
	case token.SignatureInvalid:
		return TokenSignatureInvalid
	case token.IssuerUnknown:
		return TokenIssuerUnknown
	case token.AudienceMismatch:
		return TokenAudienceMismatch
	case token.Expired:
		return TokenExpired
	case token.NotYetValid:
		return TokenNotYetValid
	case token.Throttled:
		return RateLimited
	}
	return TokenMalformed
}

// StandingReason is the reason to refuse for a standing, OK for a good one.
func StandingReason(s *registry.Standing) Reason {
	if s.Code == registry.Curtailed {
		return ProductRestricted
	}
	if s.Suspension != nil && s.Suspension.Automatic {
		return AnomalySuspended
	}
	switch s.Code {
	case registry.Good:
		return OK
	case registry.EntityNotRegistered:
		return EntityNotRegistered
	case registry.EntityCancelledStanding:
		return EntityCancelled
	case registry.EntitySuspended:
		return EntitySuspended
	case registry.ProductDelisted:
		return ProductDelisted
	case registry.ProductSuspended:
		return ProductSuspended
	case registry.ProductNotWhitelisted:
		return ProductNotWhitelisted
	case registry.CertificationExpired:
		return CertificationExpired
	case registry.VersionNotRegistered:
		return VersionNotRegistered
	case registry.VersionBlockedStanding:
		return VersionBlocked
	case registry.VersionUnsupported:
		return VersionUnsupported
	case registry.ClientAppBlocked, registry.CredentialBlocked:
		return CredentialBlocked
	case registry.SubscriptionBlocked:
		return SubscriptionBlocked
	case registry.ServiceSuspended:
		return ServiceNotEntitled
	}
	return ClientUnknown
}
