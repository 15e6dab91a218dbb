package registry

import "strings"

// The nouns of the register. Each is a record: stored as one JSON value,
// changed only by a command of Register, held in a View by pointer and never
// modified after it entered one.

// Role is what an entity is in the scheme (domain model §1); never confused
// with a Permission, which is what a person may command.
type Role string

// The roles of the framework. An entity may hold several at once.
const (
	RoleDeveloper       Role = "D"
	RoleServiceProvider Role = "SP"
	RoleCloudProvider   Role = "CP"
	RoleInHouse         Role = "IHD"
)

// Entity is a business that registered, or tried to.
type Entity struct {
	ABN     ABN         `json:"abn"`
	Name    string      `json:"name"`
	Roles   []Role      `json:"roles,omitempty"`
	State   EntityState `json:"state"`
	Contact string      `json:"contact,omitempty"` // e-mail of the developer sign-in
	Checks  []Check     `json:"checks,omitempty"`
	Updated Time        `json:"updated_at,omitempty"`
}

// Check is the outcome, and only the outcome, of one eligibility check
// (domain model §3): no detail of anybody's tax affairs is kept.
type Check struct {
	Name    string `json:"name"`    // REG-1 … REG-4
	Outcome string `json:"outcome"` // pass, fail, pending
	Source  string `json:"source,omitempty"`
	At      Time   `json:"at,omitempty"`
	Expires Time   `json:"expires_at,omitempty"`
}

// Product is what is certified: the overarching product, never one form. The
// order of the fields here and below leaves the least padding: there may be a
// hundred thousand of them.
type Product struct {
	ID            string        `json:"id"` // Product ID, e.g. FP-1001
	Name          string        `json:"name"`
	Owner         ABN           `json:"owner"`
	Chain         []ABN         `json:"chain,omitempty"` // further entities that deliver it (D→SP→CP)
	Versions      []Version     `json:"versions,omitempty"`
	Entitlements  []Entitlement `json:"entitlements,omitempty"`
	Category      Category      `json:"category,omitempty"`
	Tier          string        `json:"tier,omitempty"` // of limits; not set: standard
	Updated       Time          `json:"updated_at,omitempty"`
	Certification Certification `json:"certification"`
	Scenario      uint8         `json:"scenario,omitempty"`     // deployment scenario 1–6 (domain model §2)
	OwnABNOnly    bool          `json:"own_abn_only,omitempty"` // in-house: acts for its owner and nobody else
	WarnBuilds    bool          `json:"warn_builds,omitempty"`  // builds of registered versions pass, with a warning (BuildOf)
}

// Delivers tells whether abn is the owner or a member of the delivery chain.
func (p *Product) Delivers(abn ABN) bool {
	if abn == p.Owner {
		return true
	}
	for _, c := range p.Chain {
		if c == abn {
			return true
		}
	}
	return false
}

// Version finds a version by its exact string; nil when it was never registered.
func (p *Product) Version(v string) *Version {
	for i := range p.Versions {
		if p.Versions[i].Version == v {
			return &p.Versions[i]
		}
	}
	return nil
}

// BuildOf finds the registered version that an unregistered one is a build of,
// 4.3 for 4.3.17 or 4.3-rc1: the longest there is; nil when there is none, the
// product's builds have to be registered, or it changes something that matters for
// security, so that which build it is matters too.
func (p *Product) BuildOf(v string) (of *Version) {
	if !p.WarnBuilds {
		return nil
	}
	for i := range p.Versions {
		x := &p.Versions[i]
		if n := len(x.Version); n < len(v) && v[:n] == x.Version && strings.IndexByte(".-+", v[n]) >= 0 && (of == nil || n > len(of.Version)) {
			of = x
		}
	}
	if of != nil && of.SecurityRelevant {
		return nil
	}
	return of
}

// Entitled finds the entitlement to a service in an environment; nil when none.
func (p *Product) Entitled(service string, env Environment) *Entitlement {
	for i := range p.Entitlements {
		e := &p.Entitlements[i]
		if e.Environment == env && e.Service == service {
			return e
		}
	}
	return nil
}

// Certification is a product's standing as certified, with its validity.
type Certification struct {
	ValidFrom  Time      `json:"valid_from,omitempty"`
	ValidUntil Time      `json:"valid_until,omitempty"` // denies at this instant; not set: no end
	State      CertState `json:"state"`
	MaxRisk    Risk      `json:"max_risk,omitempty"` // Restricted, and a review of what is: the highest service rating left; 0: no cap
}

// Version is one release of a product.
type Version struct {
	Version          string       `json:"version"`
	Released         Time         `json:"released_at,omitempty"`
	SupportUntil     Time         `json:"support_until,omitempty"` // denies from this instant; not set: supported
	State            VersionState `json:"state"`
	SecurityRelevant bool         `json:"security_relevant,omitempty"`
}

// Entitlement lets a product call one service in one environment.
type Entitlement struct {
	Service      string      `json:"service"`
	NamedClients []ABN       `json:"named_clients,omitempty"` // stage PVT: the only clients it may act for
	From         Time        `json:"from,omitempty"`
	Until        Time        `json:"until,omitempty"`
	Environment  Environment `json:"environment"`
	Stage        Stage       `json:"stage,omitempty"` // PROD only
}

// Category is the DSP category of domain model §4, one letter A–E, or empty.
type Category string

// ClientApp is an OAuth client_id, bound to one product in one environment.
type ClientApp struct {
	ClientID    string      `json:"client_id"`
	ProductID   string      `json:"product_id"`
	Updated     Time        `json:"updated_at,omitempty"`
	Environment Environment `json:"environment"`
	Disabled    bool        `json:"disabled,omitempty"`
}

// Credential is a machine credential: the certificate a token may be bound to.
type Credential struct {
	// Thumbprint is base64url(SHA-256(DER)) without padding, as in cnf.x5t#S256 (RFC 8705 §3.1).
	Thumbprint string `json:"thumbprint"`
	ABN        ABN    `json:"abn"`
	NotAfter   Time   `json:"not_after,omitempty"`
	Name       string `json:"name,omitempty"`
	Updated    Time   `json:"updated_at,omitempty"`
}

// Subscription is one client's instance of a product.
type Subscription struct {
	SSID      string `json:"ssid"`
	ProductID string `json:"product_id"`
	ClientABN ABN    `json:"client_abn"`
	Nominated bool   `json:"nominated"` // the client told the agency of it; until then calls on its behalf are refused
	Updated   Time   `json:"updated_at,omitempty"`
}

// Service is one thing that may be called: a method and a path template.
type Service struct {
	Key      string `json:"key"` // e.g. as.0004.get
	Name     string `json:"name,omitempty"`
	Method   string `json:"method"`
	Template string `json:"template"` // e.g. /lodgments/v1/receipts/{id}
	Risk     Risk   `json:"risk"`
	// Scope is the OAuth scope a token must hold, "" for none.
	Scope string `json:"scope,omitempty"`
	// WhileSuspended: a suspended product may still call it (receipts of lodgments already accepted).
	WhileSuspended bool `json:"available_while_suspended,omitempty"`
	// Bound: a token must be bound to the client certificate (cnf.x5t#S256).
	Bound bool `json:"requires_binding,omitempty"`
	// StampVerified: the upstream verifies the admission stamp.
	StampVerified bool `json:"stamp_verified,omitempty"`
	// ClientRequired: the token must say on whose behalf it acts.
	ClientRequired bool `json:"client_required,omitempty"`
	// Subject says where the person or client the call concerns is found.
	Subject Subject `json:"subject,omitzero"`
	// Streaming names a long-lived protocol: "", sse, websocket, upload, grpc.
	Streaming string `json:"streaming,omitempty"`
	Updated   Time   `json:"updated_at,omitempty"`
}

// Subject locates the person or client a call concerns. What is counted or
// kept is a keyed hash of what is found there, never the value.
type Subject struct {
	// In is path (a template parameter), claim, or body (a JSON pointer, RFC 6901).
	In   string `json:"in,omitempty"`
	Name string `json:"name,omitempty"`
}

// Body tells whether the request's body is needed to find the subject.
func (s Subject) Body() bool { return s.In == "body" }

// SubjectRef names what a suspension suspends. A version is "FP-1009@4.2".
type SubjectRef struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
}

func (s SubjectRef) String() string { return s.Kind.String() + "/" + s.ID }

// Suspension stops its subject from its start until it is lifted or expires, or
// curbs it, by its Effect. It is never deleted.
type Suspension struct {
	ID          string     `json:"id"` // SU-<revision in base 10>
	Subject     SubjectRef `json:"subject"`
	Reason      string     `json:"reason"`
	Emergency   bool       `json:"emergency,omitempty"` // nothing at all may pass
	Automatic   bool       `json:"automatic,omitempty"` // imposed by an anomaly policy: denies as anomaly-suspended
	ImposedBy   string     `json:"imposed_by"`
	ImposedAt   Time       `json:"imposed_at"`
	ConfirmedBy string     `json:"confirmed_by,omitempty"`
	Starts      Time       `json:"starts_at"`
	Expires     Time       `json:"expires_at,omitempty"` // not set: until lifted
	LiftedAt    Time       `json:"lifted_at,omitempty"`
	LiftedBy    string     `json:"lifted_by,omitempty"`
	LiftReason  string     `json:"lift_reason,omitempty"`
	NoticeID    string     `json:"notice_id,omitempty"`
	IncidentID  string     `json:"incident_id,omitempty"`
	Revision    Revision   `json:"revision,omitempty"` // of the commit that imposed it
	Rate        int64      `json:"rate,omitempty"`     // EffectThrottle: calls a second, over all sidecars
	MaxRisk     Risk       `json:"max_risk,omitempty"` // EffectRestrict: the highest service rating left
	Effect      Effect     `json:"effect,omitempty"`   // not set: stops
}

// Active tells whether the suspension holds at an instant: started, neither
// lifted nor expired. Expiry needs no job to run.
//
// One that was imposed to start at once holds from the commit on, whatever the
// reader's clock says: a sidecar whose clock is behind the control plane's would
// let calls through until it has caught up.
func (s *Suspension) Active(at Time) bool {
	return s.LiftedAt == 0 && (s.Starts <= s.ImposedAt || at >= s.Starts) && (s.Expires == 0 || at < s.Expires)
}

// Denial refuses one signing key (kid) or one token (jti) of an issuer, before
// its expiry: the emergency removal of a key whose key set cannot be changed.
type Denial struct {
	ID      string `json:"id"`   // "kid:<issuer>:<value>" or "jti:…", see DenialID
	What    string `json:"what"` // kid or jti
	Issuer  string `json:"issuer"`
	Value   string `json:"value"`
	Reason  string `json:"reason"`
	By      string `json:"by"`
	At      Time   `json:"at"`
	Expires Time   `json:"expires_at,omitempty"`
	Lifted  Time   `json:"lifted_at,omitempty"`
}

// Active tells whether the denial holds at an instant.
func (d *Denial) Active(at Time) bool {
	return d.Lifted == 0 && (d.Expires == 0 || at < d.Expires)
}

// DenialID is the record ID of a denial.
func DenialID(what, issuer, value string) string { return what + ":" + issuer + ":" + value }

// Notice announces something to an entity before it takes effect.
type Notice struct {
	ID          string     `json:"id"`
	Subject     SubjectRef `json:"subject"`
	Reason      string     `json:"reason"`
	Issued      Time       `json:"issued_at"`
	EffectiveAt Time       `json:"effective_at"`
	By          string     `json:"by"`
}
