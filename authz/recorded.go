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
	Status      int
	BytesOut    uint64
}

// Now tells whether the register would let a recorded call pass at an instant,
// or why not, with the suspension that decides. It asks what Decide asks of the
// register; a log keeps no token, certificate or client, which are taken to be as
// good as they were. Limits are not asked.
func (c *Recorded) Now(v *registry.View, app *registry.ClientApp, at registry.Time) (Reason, *registry.Suspension) {
	service := v.Service(c.Service)
	switch {
	case service == nil:
		return ServiceUnknown, nil
	case app == nil, app.Disabled:
		return ClientUnknown, nil
	}
	d := Decision{App: app, Product: v.Product(app.ProductID), Service: service, Environment: c.Environment, Holder: c.Holder, SSID: c.SSID}
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
	standing := v.Standing(&registry.StandingQuery{App: app, Environment: c.Environment, Version: c.Version, Holder: c.Holder, SSID: c.SSID, Service: service}, at)
	if standing.Code != registry.Good {
		return standingReason(&standing), standing.Suspension
	}
	if reason := entitled(&d, at); reason != OK {
		return reason, nil
	}
	if sub == nil { // whom it was for is not in the log
		return OK, nil
	}
	return onBehalf(v, sub, &d), nil
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
