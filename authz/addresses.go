package authz

import (
	"time"

	"github.com/dspgate/dspgate/authz/internal/peers"
)

// Addresses bounds how many requests a source address (an IPv6 /64) may make
// before it is known who calls: what a refusal by it costs is less than looking
// at the token. Its memory is bounded; somebody with more networks than it has
// places loosens the bound, but grows nothing.
type Addresses struct{ budget *peers.Budget }

// NewAddresses allows each address perSecond requests, burst at once, and keeps
// the counts of so many addresses, 16 bytes each.
func NewAddresses(perSecond float64, burst, addresses int) *Addresses {
	return &Addresses{peers.New(perSecond, burst, addresses)}
}

// take spends one request; a nil Addresses bounds nothing.
func (x *Addresses) take(peer string, now time.Time) bool {
	return x == nil || x.budget.Take(peer, now)
}
