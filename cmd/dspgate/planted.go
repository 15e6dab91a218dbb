//go:build planted

package main

import (
	"cmp"
	"context"
	"os"
	"slices"
	"time"

	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
)

// Faults on purpose, to see that the trials of package chaos catch them: each
// breaks one part of what a suspend promises, in a process of its own, around
// the code as shipped. Only a build with the tag holds them, and only the process
// whose DSPGATE_PLANTED names one has it.
const (
	noLeaseTimeout = "no-lease-timeout" // a sidecar goes on serving when its leases are over
	earlyAck       = "early-ack"        // a sidecar acknowledges what it does not serve by yet
	noDrain        = "no-drain"         // a wait ends with the last acknowledgement
	quorum         = "quorum"           // a wait does not mind the slower half
	anyStamp       = "any-stamp"        // an upstream takes stamps that are over
)

func planted(fault string) bool { return os.Getenv("DSPGATE_PLANTED") == fault }

func plantMirror(s *redisstore.Store, c registry.MirrorConfig) (registry.Log, registry.MirrorConfig) {
	switch {
	case planted(noLeaseTimeout):
		log := endlessLeases{s, c.Short, c.Long}
		c.Short, c.Long = time.Hour, time.Hour
		c.Poll = cmp.Or(c.Poll, 500*time.Millisecond)
		return log, c
	case planted(earlyAck):
		return hasty{s}, c
	}
	return s, c
}

// endlessLeases tells of the leases that were configured.
type endlessLeases struct {
	*redisstore.Store
	short, long time.Duration
}

func (e endlessLeases) Follow(ctx context.Context, ack registry.Ack, n int) (registry.Poll, error) {
	ack.Short, ack.Long = e.short, e.long
	return e.Store.Follow(ctx, ack, n)
}

// hasty acknowledges what a poll brought before the mirror has it.
type hasty struct{ *redisstore.Store }

func (h hasty) Follow(ctx context.Context, ack registry.Ack, n int) (registry.Poll, error) {
	p, err := h.Store.Follow(ctx, ack, n)
	if err == nil && len(p.Changes) > 0 && !ack.Observer {
		last := &p.Changes[len(p.Changes)-1]
		ack.Revision, ack.Digest = last.Revision, last.Digest
		_, _ = h.Store.Follow(ctx, ack, 0) // lost or not
		time.Sleep(400 * time.Millisecond)
	}
	return p, err
}

// Pushed keeps back what would be served before it is acknowledged.
func (hasty) Pushed(registry.Revision) []registry.Change { return nil }

func plantRegister(s *redisstore.Store, c registry.RegisterConfig) (registry.Ledger, registry.RegisterConfig) {
	switch {
	case planted(noDrain):
		c.Drain = 0
	case planted(quorum):
		return fasterHalf{s}, c
	}
	return s, c
}

// fasterHalf knows nothing of the sidecars that are furthest behind, nor of
// processes that ended long ago.
type fasterHalf struct{ *redisstore.Store }

func (f fasterHalf) Roll(ctx context.Context) (registry.Roll, error) {
	r, err := f.Store.Roll(ctx)
	r.Members = slices.DeleteFunc(r.Members, func(m registry.Member) bool { return int64(r.At-m.PolledAt) > m.Long.Milliseconds() })
	slices.SortFunc(r.Members, func(a, b registry.Member) int { return cmp.Compare(b.Revision, a.Revision) })
	r.Members = r.Members[:(len(r.Members)+1)/2]
	return r, err
}

func plantSkew() time.Duration {
	if planted(anyStamp) {
		return admission.SkewMax
	}
	return 0
}
