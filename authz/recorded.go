package authz

import (
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// Recorded is a finished call as an access log tells of it. It names nobody but
// those of the register.
type Recorded struct {
	At          time.Time
	Duration    time.Duration
	Decision    DecisionID // zero when nobody decided
	Reason      Reason     // as it was decided then
	Sidecar     string
	Environment registry.Environment
	Service     string // key; "" when no route was found
	Method      string
	Product     string
	Version     string
	SSID        string
	Holder      registry.ABN
	Subject     Hash // of the person or client it concerned
	Client      Hash // of the client_abn it was made for; a log does not have it
	Status      int
	BytesOut    uint64
}

// Now tells whether the register would let a recorded call pass at an instant,
// or why not, with the suspension that decides. It asks what Decide asks of the
// register; a record keeps no token, certificate or client, which are taken to be
// as good as they were. Limits are not asked.
func (c *Recorded) Now(v *registry.View, app *registry.ClientApp, at registry.Time) (Reason, *registry.Suspension) {
	if app == nil || app.Disabled {
		return ClientUnknown, nil
	}
	d := Decision{App: app, Product: v.Product(app.ProductID), Service: v.Service(c.Service), Environment: c.Environment, Holder: c.Holder, SSID: c.SSID}
	if d.Product == nil {
		return ClientUnknown, nil
	}
	if c.Holder != 0 && !d.Product.Delivers(c.Holder) {
		return ProductMismatch, nil
	}
	var sub *registry.Subscription
	if c.SSID != "" {
		switch sub = v.Subscription(c.SSID); {
		case sub == nil:
			return SubscriptionNotNominated, nil
		case sub.ProductID != d.Product.ID:
			return ProductMismatch, nil
		}
		d.ClientABN = sub.ClientABN
	}
	if d.Service == nil {
		return ServiceUnknown, nil
	}
	standing := v.Standing(&registry.StandingQuery{App: app, Environment: c.Environment, Version: c.Version, Holder: c.Holder, SSID: c.SSID, Service: d.Service}, at)
	if standing.Code != registry.Good {
		return StandingReason(&standing), standing.Suspension
	}
	if app.Environment != c.Environment {
		return EnvironmentMismatch, nil
	}
	if reason := c.served(v, &d, sub, at); reason != OK {
		return reason, nil
	}
	if v.Screened(d.Product.ID, d.Service.Risk) != nil && (v.IsProtected(c.Subject) || v.IsProtected(c.Client)) {
		return ClientNotPermitted, nil
	}
	return OK, nil
}

// Judged tells whether Now can be asked of a call that was refused: whether what
// it was refused for is the register's or a limit's, and the record holds what is
// asked about. It is not for what hung on the token, the certificate, a measure's
// rate, the list of protected clients, or the sidecar itself.
func (c *Recorded) Judged(v *registry.View) bool {
	if c.Product == "" || c.Service == "" || c.Environment == registry.NoEnvironment {
		return false
	}
	switch c.Reason {
	case OK, ClientUnknown, EntityNotRegistered, EntitySuspended, EntityCancelled,
		ProductNotWhitelisted, ProductRestricted, ProductSuspended, ProductDelisted, CertificationExpired,
		ServiceUnknown, EnvironmentMismatch, AnomalySuspended,
		RateLimited, QuotaExhausted, PVTQuotaExhausted, ClientFanoutExhausted:
		return true
	case ServiceNotEntitled: // or was it the token's scope
		s := v.Service(c.Service)
		return s == nil || s.Scope == ""
	case VersionUnsupported, VersionBlocked:
		return c.Version != ""
	case SubscriptionBlocked, SubscriptionNotNominated, PVTClientNotNamed:
		return c.SSID != ""
	}
	return false
}

// served asks what the product may be served, and on whose behalf as far as that
// is known: without a subscription, as it was.
func (c *Recorded) served(v *registry.View, d *Decision, sub *registry.Subscription, at registry.Time) Reason {
	if sub != nil {
		if reason := entitled(d, at); reason != OK {
			return reason
		}
		return onBehalf(v, sub, d)
	}
	_, reason := entitlement(d, at)
	if reason == OK && c.Reason == PVTClientNotNamed {
		return c.Reason
	}
	return reason
}

// Observation is what monitoring counts of a recorded call, and how it ended.
// hash is keyed with the key of whoever counts.
func (c *Recorded) Observation(serial uint64, app string, hash func(kind, id string) [16]byte) (anomaly.Observation, anomaly.Finished) {
	o := anomaly.Observation{
		Decision: serial, At: c.At.Unix(), Product: c.Product, ClientApp: app, Person: anomaly.Hash(c.Subject),
		Service: c.Service, Version: c.Version, Outcome: outcome(c.Reason),
	}
	if c.SSID != "" {
		o.Subscription = hash("software_id", c.SSID)
	}
	switch c.Method {
	case "GET", "HEAD":
		o.Verb = anomaly.Read
	case "POST", "PUT", "PATCH", "DELETE":
		o.Verb = anomaly.Lodge
	}
	return o, anomaly.Finished{Decision: serial, Status: c.Status, BytesOut: c.BytesOut}
}
