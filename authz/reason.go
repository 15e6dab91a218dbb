package authz

// Reason is why a call was decided as it was: the contract's closed set of
// codes, and "ok".
type Reason uint8

// The reasons, by the order of the contract.
const (
	OK Reason = iota

	RequestAmbiguous

	TokenMissing
	TokenMalformed
	TokenSignatureInvalid
	TokenIssuerUnknown
	TokenAudienceMismatch
	TokenExpired
	TokenNotYetValid
	TokenBindingMismatch
	TokenRevoked

	ClientUnknown
	ProductMismatch
	EntityNotRegistered
	EntitySuspended
	EntityCancelled
	ProductNotWhitelisted
	ProductRestricted
	ProductSuspended
	ProductDelisted
	CertificationExpired
	VersionNotRegistered
	VersionUnsupported
	VersionBlocked
	CredentialBlocked
	SubscriptionBlocked
	SubscriptionNotNominated
	ServiceUnknown
	ServiceNotEntitled
	EnvironmentMismatch
	PVTClientNotNamed
	AnomalySuspended
	ClientNotPermitted

	RateLimited
	QuotaExhausted
	PVTQuotaExhausted
	ClientFanoutExhausted
	AnomalyThrottled

	RegisterStale
	RegisterNotLoaded
	AuthorizerUnavailable
	AdmissionExpired

	// NReasons is how many there are.
	NReasons
)

type reasonInfo struct {
	code   string
	status uint16
	title  string
	detail string // one plain sentence for the developer: what is wrong, what to do
}

// String is the contract's code, e.g. "product-suspended"; "ok" for OK.
func (r Reason) String() string { return r.info().code }

// Status is the HTTP status of the denial; 200 for OK.
func (r Reason) Status() int { return int(r.info().status) }

// Title is a short name for people.
func (r Reason) Title() string { return r.info().title }

// Detail says in one plain sentence what is wrong and what to do about it. It
// names no other person and nothing the token held.
func (r Reason) Detail() string { return r.info().detail }

// GRPCStatus is the gRPC status code for a gRPC caller: 16 UNAUTHENTICATED for
// 401, 7 PERMISSION_DENIED for 403, 8 RESOURCE_EXHAUSTED for 429, 14
// UNAVAILABLE for 503, 3 INVALID_ARGUMENT for 400.
func (r Reason) GRPCStatus() int {
	switch r.Status() {
	case 200:
		return 0
	case 400:
		return 3
	case 401:
		return 16
	case 403:
		return 7
	case 429:
		return 8
	}
	return 14
}

// ParseReason finds a reason by its code; ok is false when there is none.
func ParseReason(code string) (r Reason, ok bool) {
	for r := range NReasons {
		if reasons[r].code == code {
			return r, true
		}
	}
	return 0, false
}

func (r Reason) info() *reasonInfo {
	if r >= NReasons {
		panic("authz: reason out of range")
	}
	return &reasons[r]
}

var reasons = [NReasons]reasonInfo{
	OK: {"ok", 200, "Allowed", "The call was admitted."},

	RequestAmbiguous: {"request-ambiguous", 400, "Request is ambiguous", "The request can be read in more than one way: send each identity header once, and a path without percent-encoding, empty segments, dot segments or ';'."},

	TokenMissing:          {"token-missing", 401, "No access token", "Send an access token in the Authorization header, as 'Bearer' and the token, exactly once."},
	TokenMalformed:        {"token-malformed", 401, "Access token is malformed", "The access token is no JWT of the profile of RFC 9068 that this gateway accepts."},
	TokenSignatureInvalid: {"token-signature-invalid", 401, "Access token signature is invalid", "The signature does not verify under any current key of the token's issuer."},
	TokenIssuerUnknown:    {"token-issuer-unknown", 401, "Access token issuer is not trusted", "Get the token from an issuer that this gateway trusts."},
	TokenAudienceMismatch: {"token-audience-mismatch", 401, "Access token is for another audience", "Ask the issuer for a token whose aud names this gateway."},
	TokenExpired:          {"token-expired", 401, "Access token has expired", "Get a new access token."},
	TokenNotYetValid:      {"token-not-yet-valid", 401, "Access token is not valid yet", "The token's nbf or iat is in the future: check the issuer's clock."},
	TokenBindingMismatch:  {"token-binding-mismatch", 401, "Access token is bound to another certificate", "Present the client certificate that the token's cnf.x5t#S256 names, over TLS."},
	TokenRevoked:          {"token-revoked", 401, "Access token is revoked", "This token, or the key that signed it, is revoked: get a new token."},

	ClientUnknown:            {"client-unknown", 403, "Client app is not registered", "The token's client_id is no client app of the register."},
	ProductMismatch:          {"product-mismatch", 403, "Identity claims do not agree", "The product, holder or subscription claimed is not the one the register binds to this client app."},
	EntityNotRegistered:      {"entity-not-registered", 403, "Entity is not registered", "The entity behind this product is not registered with the agency."},
	EntitySuspended:          {"entity-suspended", 403, "Entity is suspended", "The entity behind this product is suspended; its console says what is owed."},
	EntityCancelled:          {"entity-cancelled", 403, "Entity registration is cancelled", "The registration of the entity behind this product is cancelled; a new application is needed."},
	ProductNotWhitelisted:    {"product-not-whitelisted", 403, "Product is not whitelisted", "The product may not call production services until it is certified and whitelisted; use the test environment."},
	ProductRestricted:        {"product-restricted", 403, "Product is restricted", "The product is restricted and may not call services of this risk rating."},
	ProductSuspended:         {"product-suspended", 403, "Product is suspended", "The product is suspended; its console says why and how to be reinstated."},
	ProductDelisted:          {"product-delisted", 403, "Product is delisted", "The product was delisted; a new application is needed."},
	CertificationExpired:     {"certification-expired", 403, "Certification has expired", "The product's certification has run out; renew it in the console."},
	VersionNotRegistered:     {"version-not-registered", 403, "Version is not registered", "This version of the product was never registered: register it, or send the version that is running."},
	VersionUnsupported:       {"version-unsupported", 403, "Version is out of support", "Support for this version has ended: update the software."},
	VersionBlocked:           {"version-blocked", 403, "Version is blocked", "This version is blocked, or the product has a blocked version and the call did not say its own: update the software and send x-product-version."},
	CredentialBlocked:        {"credential-blocked", 403, "Credential is blocked", "The client app or machine credential is blocked: contact the agency."},
	SubscriptionBlocked:      {"subscription-blocked", 403, "Subscription is blocked", "This software ID (SSID) is blocked: contact the agency."},
	SubscriptionNotNominated: {"subscription-not-nominated", 403, "Client has not nominated this software", "The client on whose behalf the call is made has not nominated this product's software ID (SSID)."},
	ServiceUnknown:           {"service-unknown", 403, "No such service", "The method and path are no service of this gateway."},
	ServiceNotEntitled:       {"service-not-entitled", 403, "Not entitled to this service", "The product is not entitled to this service in this environment."},
	EnvironmentMismatch:      {"environment-mismatch", 403, "Client app is for another environment", "The client app is registered for another environment than the one this host serves."},
	PVTClientNotNamed:        {"pvt-client-not-named", 403, "Client is not named for verification testing", "In production verification testing the product acts only for the clients named in its entitlement."},
	AnomalySuspended:         {"anomaly-suspended", 403, "Suspended by monitoring", "Monitoring suspended this subject for a limited time; its console says why and how to have it reviewed."},
	ClientNotPermitted:       {"client-not-permitted", 403, "Not permitted for this client", "The product may not make this call for the client or person it concerns: the client may deal with the agency directly; contact the agency, naming this decision."},

	RateLimited:           {"rate-limited", 429, "Too many requests", "Slow down and try again after the time in Retry-After."},
	QuotaExhausted:        {"quota-exhausted", 429, "Quota is used up", "The quota for this period is used up."},
	PVTQuotaExhausted:     {"pvt-quota-exhausted", 429, "Verification-testing quota is used up", "The quota of production verification testing is used up."},
	ClientFanoutExhausted: {"client-fanout-exhausted", 429, "Too many different clients", "The cap on different clients for this period is reached."},
	AnomalyThrottled:      {"anomaly-throttled", 429, "Slowed down by monitoring", "Monitoring slowed this subject down; its console says why."},

	RegisterStale:         {"register-stale", 503, "Register is stale", "This gateway has lost touch with the register and refuses until it is back; try again after the time in Retry-After."},
	RegisterNotLoaded:     {"register-not-loaded", 503, "Register is not loaded", "This gateway has not loaded the register yet; try again after the time in Retry-After."},
	AuthorizerUnavailable: {"authorizer-unavailable", 503, "Authorizer is unavailable", "The authorizer did not answer; try again after the time in Retry-After."},
	AdmissionExpired:      {"admission-expired", 503, "Admission has expired", "The call was held up after it was admitted; try again."},
}
