package authz

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/dspgate/dspgate/anomaly"
)

// network is the IPv4 /24 or IPv6 /48 an address is in: as fine as callers keep
// for longer than a day, and as coarse as to say little about one of them.
func network(peer string) (n [6]byte) {
	a, err := netip.ParseAddr(peer)
	if err != nil {
		return n
	}
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return [6]byte{0xff, 0xff, b[0], b[1], b[2], 1} // never zero, and no address of IPv6
	}
	b := a.As16()
	copy(n[:], b[:])
	return n
}

// Observed is a Sink that also has every record counted, once, whether or not
// the next one takes it.
type Observed struct {
	Next    Sink
	Observe func([]anomaly.Observation)

	last  DecisionID // of the last batch counted
	count int        // its records
	batch []anomaly.Observation
}

// Write implements Sink. A batch that was refused is offered again, and then not
// counted again.
func (o *Observed) Write(ctx context.Context, batch []Record) error {
	if len(batch) > 0 && (batch[0].ID != o.last || len(batch) != o.count) {
		o.last, o.count = batch[0].ID, len(batch)
		o.batch = o.batch[:0]
		for i := range batch {
			o.batch = append(o.batch, batch[i].Observation())
		}
		o.Observe(o.batch)
	}
	return o.Next.Write(ctx, batch)
}

// Observation is what monitoring counts of a decision.
func (r *Record) Observation() anomaly.Observation {
	o := anomaly.Observation{
		Decision: r.ID.Hash(), At: r.At.Std().Unix(), Product: r.ProductID, ClientApp: r.ClientID,
		Subscription: anomaly.Hash(r.SSIDHash), Client: anomaly.Hash(r.ClientHash), Person: anomaly.Hash(r.SubjectHash),
		Source: anomaly.Hash(r.NetworkHash), Service: r.Service, Version: r.Version, Outcome: outcome(r.Reason),
	}
	switch method, _, _ := strings.Cut(r.Route, " "); method {
	case "GET", "HEAD":
		o.Verb = anomaly.Read
	case "POST", "PUT", "PATCH", "DELETE":
		o.Verb = anomaly.Lodge
	}
	return o
}

// Hash is a number to find a decision by. All of the ID counts: two decisions of
// one sidecar mostly differ in their time alone.
func (id DecisionID) Hash() uint64 {
	h := mixHash(0, binary.LittleEndian.Uint64(id[0:]))
	h = mixHash(h, binary.LittleEndian.Uint64(id[8:]))
	h = mixHash(h, binary.LittleEndian.Uint64(id[16:]))
	h = mixHash(h, uint64(id[24])|uint64(id[25])<<8)
	return h ^ h>>29
}

func mixHash(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

func outcome(r Reason) anomaly.Outcome {
	switch r {
	case OK:
		return anomaly.Allowed
	case VersionNotRegistered, VersionUnsupported, VersionBlocked:
		return anomaly.RefusedVersion
	case PVTClientNotNamed:
		return anomaly.RefusedPilot
	}
	switch s := r.Status(); {
	case s == 429:
		return anomaly.RefusedLimit
	case s == 400, s == 401:
		return anomaly.RefusedIdentity
	}
	switch r {
	case ClientUnknown, ProductMismatch, EnvironmentMismatch, CredentialBlocked, SubscriptionBlocked, SubscriptionNotNominated, EntityNotRegistered:
		return anomaly.RefusedIdentity
	}
	return anomaly.RefusedOther
}
