package authz

import (
	"time"

	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
)

// DecisionID names one decision: 26 characters of Crockford base32, of which
// the first ten are the time in milliseconds (a ULID), so that a record can be
// found by its ID alone.
type DecisionID [26]byte

func (id DecisionID) String() string { return string(id[:]) }

// Decision is the answer to one Request. It is a value the caller provides and
// reuses; pointers in it go into the immutable View it was decided on.
type Decision struct {
	ID       DecisionID
	At       time.Time
	Reason   Reason // OK allows; everything else denies
	Revision registry.Revision

	// Who was found, as far as the decision came.
	App        *registry.ClientApp
	Product    *registry.Product
	Service    *registry.Service
	Suspension *registry.Suspension // that decided, or that Bypassed did not
	Holder     registry.ABN
	ClientABN  registry.ABN
	SSID       string // as verified; points into the token cache or the View
	Version    string // as registered; "" when the caller did not say
	Build      bool   // an unregistered build of that version, which passes with a warning
	// Sunset is when the version's support ends, once that is near (SunsetAhead).
	Sunset      registry.Time
	Environment registry.Environment
	Match       registry.Match
	// SubjectHash is the keyed hash of the person or client the call concerns;
	// zero when the service does not say where to find one, or nothing was there.
	SubjectHash [16]byte

	// Network is where the call came from: an IPv4 /24 or IPv6 /48, as the first
	// bytes of an IPv6 address; zero when that is no address.
	Network [6]byte
	// Surprise is how far the product or its client app strays from its own past:
	// −log10 of a tail probability, 0 for not. It is advice: nothing here decides
	// by it.
	Surprise float64

	// Grant is what the ALLOW of a streaming service stands on; nil otherwise.
	Grant *Grant

	RetryAfter time.Duration // for 429 and 503

	// Plan are the limits that apply, nil when the decision came before them or
	// there are none; Spent is what each is at, in the same order.
	Plan      *Plan
	Spent     ratelimit.Outcome
	throttles registry.Throttles

	// Refused is the limit that refused; Shadowed one that only would have.
	Refused, Shadowed *PlanItem
}

// SunsetAhead is how long before the end of a version's support its callers are
// told (RFC 8594), so that software can tell its users.
const SunsetAhead = 90 * 24 * time.Hour

// Allowed tells whether the call may pass.
func (d *Decision) Allowed() bool { return d.Reason == OK }
