package authz

// Remedy is what can be done about a refusal: the long form of Reason.Detail,
// for the page that a problem's type (RFC 9457 §3.1.1) leads to.
type Remedy struct {
	// Who can end it: the developer of the software, the client whose data it is,
	// the agency, or the gateway, which recovers by itself.
	Who Helper
	// Again: the same call may pass later although nobody changes anything; after
	// Retry-After when there was one.
	Again bool
	// Do says in a few plain sentences what usually lies behind it, and what to do.
	Do string
}

// Helper is who can end a refusal.
type Helper uint8

// The helpers.
const (
	Developer Helper = iota
	Client
	Agency
	Gateway
)

// String is the helper's name: "developer", "client", "agency" or "gateway".
func (h Helper) String() string {
	return [...]string{"developer", "client", "agency", "gateway"}[h]
}

// Remedy is what can be done about a refusal for this reason; that of OK is
// empty.
func (r Reason) Remedy() Remedy {
	_ = r.info() // in range
	return remedies[r]
}

var remedies = [NReasons]Remedy{
	RequestAmbiguous: {Developer, false, "Two readers of this request could come to different callers or different services, and that is how filters are got round. Send each of Authorization, x-product-id, x-product-version and x-software-id once at most, and write the path as the API's description does: no percent-encoded slashes or letters, no '//' and no '..'. Most HTTP libraries do so unless a path is put together by hand."},

	TokenMissing:          {Developer, false, "No Authorization header arrived, or it does not begin with 'Bearer'. Look whether a proxy on the way or a redirect to another host dropped it; HTTP clients drop it on purpose when a redirect leads elsewhere."},
	TokenMalformed:        {Developer, false, "What was sent is no access token: an ID token, an opaque token, one cut short, or one with a header this gateway does not accept. Its typ has to be at+jwt, its algorithm an asymmetric one of the issuer's, and it may live 24 hours at most."},
	TokenSignatureInvalid: {Developer, true, "The token was changed on its way, or was signed by a key that the issuer does not publish. Get a new token. When all tokens are refused so at once, the issuer is changing its keys: they are fetched anew within a minute."},
	TokenIssuerUnknown:    {Developer, false, "The iss of the token is no issuer that this gateway trusts. The usual cause is a token of the test environment sent to production, or the other way round."},
	TokenAudienceMismatch: {Developer, false, "The token was made for another API. Ask the issuer for one whose aud is this gateway's; the address is in the API's description."},
	TokenExpired:          {Developer, false, "The token's time is over. Get a new one before the old one ends, a minute earlier, and do not keep tokens for longer than their expires_in. When a new token is refused so, the clock of the machine that keeps it is slow."},
	TokenNotYetValid:      {Developer, true, "The token begins later than now by this gateway's clock. Wait some seconds; when it happens often, tell the issuer that its clock is fast."},
	TokenBindingMismatch:  {Developer, false, "The token is bound to a client certificate (RFC 8705), or the service asks for such a token. Send the call over TLS with the same certificate with which the token was fetched. A load balancer of yours that ends TLS takes the certificate away."},
	TokenRevoked:          {Agency, false, "The token, or the key that signed it, was put on the list of those refused, as a rule because of an incident. Get a new token. When that is refused too, the key is revoked: the agency has told the security contact of the entity why."},

	ClientUnknown:            {Agency, false, "The client_id of the token is not registered with a product, or it is switched off. Look at the product's client apps in the console; each belongs to one environment. A registrar enters new ones."},
	ProductMismatch:          {Developer, false, "What the call says of itself does not fit the register: x-product-id or x-software-id is another product's or subscription's, or the ABN in the token is not part of the product's delivery chain. Send the headers of the product whose client app you use, or leave them out. A new party in the chain has to be registered first."},
	EntityNotRegistered:      {Developer, false, "The business that stands behind the product has not finished its registration. The console shows where it is, what is asked, and until when each side has to answer."},
	EntitySuspended:          {Agency, false, "All products of this business are stopped. The notice that came with it, and the console, say why, until when, and how to ask for a review."},
	EntityCancelled:          {Developer, false, "This business ended its registration, or it was ended. Its products stay stopped. Apply anew in the console."},
	ProductNotWhitelisted:    {Developer, false, "Production is for whitelisted products. Use the test environment meanwhile, finish the self-certification in the console and submit it; from then on the console shows both sides' clocks."},
	ProductRestricted:        {Agency, false, "The product may only call services up to a certain risk rating for now. Other services go on working. The console says which, why, and what has to be shown to lift it."},
	ProductSuspended:         {Agency, false, "The product is stopped everywhere. Do not try again in a loop: it will not pass by itself. The notice and the console say why, until when, and how to be reinstated; receipts of what was lodged before can still be fetched unless an emergency forbids it."},
	ProductDelisted:          {Developer, false, "The product's certification has ended for good. Tell your users. A new product, or this one with what was missing, begins with a new self-certification."},
	CertificationExpired:     {Developer, false, "The certification, or a piece of evidence it rests on, has run out. Renew it in the console: calls pass again within a second of the approval."},
	VersionNotRegistered:     {Developer, false, "x-product-version names a version that nobody registered. Register each release before it goes out, or send the version that is really running."},
	VersionUnsupported:       {Client, false, "This version's support has ended: whoever uses it has to update. Tell your users early; the register holds each version's end of support."},
	VersionBlocked:           {Client, false, "This version is blocked, as a rule for a fault in security; an update passes. A call that does not say its version is refused as well while the product has a blocked one: send x-product-version."},
	CredentialBlocked:        {Agency, false, "This client app or machine credential is blocked, as a rule because it was lost or stolen. Others of the same product go on. Get a new credential and tell the agency when the old one was last in your hands."},
	SubscriptionBlocked:      {Agency, false, "This one client's subscription (software ID) is blocked; the product's other clients go on. The notice says why. The client can be served again when the agency lifts it."},
	SubscriptionNotNominated: {Client, false, "The client has to name this software as acting for it, with the agency and by the software ID that your product shows it. Show the client that number and how to do so; calls pass within a second of it."},
	ServiceUnknown:           {Developer, false, "No service has this method and path. Compare with the API's description: a slash at the end, letter case and version count."},
	ServiceNotEntitled:       {Developer, false, "The product is not approved for this service, or not in this environment, or the token lacks the service's scope. Ask for the service in the console, or for a token with its scope."},
	EnvironmentMismatch:      {Developer, false, "Each client app belongs to one environment: use production's with production's host and the test one's with the test host."},
	PVTClientNotNamed:        {Agency, false, "While a product is tested in production it acts for named clients only. Have this client named, or wait for the whitelist."},
	AnomalySuspended:         {Agency, true, "Monitoring stopped this caller for some hours because it was unlike its own past. The console says in which way, until when, and how to ask a person to look again. If you have just released a version or taken on many clients, say so there."},
	ClientNotPermitted:       {Agency, false, "This one client or person cannot be served through software. The client may deal with the agency directly. Do not try again; if you think it is a mistake, contact the agency and name the decision."},

	RateLimited:           {Developer, true, "More calls came than this limit lets pass; 'limit' in the answer names it, and RateLimit-Policy says how many it allows. Wait as long as Retry-After says, then go on slowly: spread work over time, and let only one retry follow another."},
	QuotaExhausted:        {Developer, true, "The day's or month's allowance is used up; RateLimit says when it begins anew (Sydney time). When it is too small for what your clients need, ask for another tier in the console."},
	PVTQuotaExhausted:     {Agency, true, "The allowance for tests in production is used up. Ask the assessor for more if a scenario is not done yet."},
	ClientFanoutExhausted: {Developer, true, "Today the product has acted for as many different clients as it may. Those it has acted for already go on. When your clients have become more, ask for a higher cap; when they have not, somebody may be using your software to look people up: report an incident."},
	AnomalyThrottled:      {Developer, true, "Monitoring slowed this caller down because it is unlike its own past. Calls go on passing, slowly. The console says in which way."},

	RegisterStale:         {Gateway, true, "The gateway cannot reach the register, and refuses rather than guess: services of high risk first. Wait as long as Retry-After says. Nothing is wrong with your call."},
	RegisterNotLoaded:     {Gateway, true, "The gateway has just started. Wait as long as Retry-After says. Nothing is wrong with your call."},
	AuthorizerUnavailable: {Gateway, true, "The part of the gateway that decides did not answer in time. Wait as long as Retry-After says. Nothing is wrong with your call."},
	AdmissionExpired:      {Gateway, true, "The call was let through and then held up on its way, so that it could no longer be said to be allowed. It did not reach the service. Send it again."},
}
