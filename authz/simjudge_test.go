package authz_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/registry"
)

// judge holds what was seen against what was told.
func (w *simWorld) judge() (bad []string) {
	say := func(format string, args ...any) {
		if len(bad) < 3 {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	at := func(t time.Time) time.Duration { return t.Sub(w.began) }
	for i := range w.told {
		t := &w.told[i]
		lifted, ok := w.lifts[t.id]
		if !ok {
			lifted = w.began.Add(time.Hour)
		}
		for j := range w.calls {
			c := &w.calls[j]
			if c.product != t.product || c.at.After(lifted) {
				continue
			}
			until := w.promised(t, c)
			if until.IsZero() || until.Before(t.ret) {
				until = t.ret
			}
			switch {
			case !c.at.Before(until):
				say("P1: %s/%s allowed %s (risk %d, revision %d) at %v; %s was answered at %v by %s, revision %d, good until %v: %s",
					c.id, c.incarnation, c.product, c.risk, c.revision, at(c.at), t.id, at(t.ret), t.by, t.revision, at(until), simStates(&t.e))
			case !c.arrived.IsZero() && c.arrived.Before(lifted) && !c.arrived.Before(w.drained(t, until)):
				say("P2: a call of %s that %s/%s allowed at %v arrived at %v; %s was answered at %v: %s",
					c.product, c.id, c.incarnation, at(c.at), at(c.arrived), t.id, at(t.ret), simStates(&t.e))
			}
		}
	}
	for _, x := range w.stuck {
		say("P4: %s", x)
	}
	changes, err := w.store.Changes(context.Background(), 0, 1<<20)
	if err != nil {
		say("the log: %v", err)
	}
	var epoch registry.Epoch
	for i := range changes {
		if changes[i].Epoch < epoch {
			say("P0: revision %d was committed under epoch %d after %d", changes[i].Revision, changes[i].Epoch, epoch)
		}
		epoch = changes[i].Epoch
	}
	return bad
}

// drained: an answer that is not complete did not wait for what is under way.
func (w *simWorld) drained(t *simTold, until time.Time) time.Time {
	if !t.e.Complete && until.Equal(t.ret) {
		return until.Add(admission.DefaultValidity + admission.DefaultSkew)
	}
	return until
}

// promised is until when an answer says that this call may pass; zero when it
// says that it may not.
func (w *simWorld) promised(t *simTold, c *simCall) (until time.Time) {
	listed := false
	for _, s := range t.e.Sidecars {
		mine := s.ID == c.id && s.Incarnation == c.incarnation
		listed = listed || mine
		if s.State == registry.Pending && (mine || s.ID == registry.UnknownSidecars && !listed) {
			if u := w.trueTime(t, s.Until[c.risk]); u.After(until) {
				until = u
			}
		}
	}
	return until
}

// trueTime reads an instant that the store's clock gave between asked and ret.
func (w *simWorld) trueTime(t *simTold, by registry.Time) time.Time {
	i := slices.IndexFunc(w.jumps, func(j simJump) bool { return j.at.After(t.ret) })
	if i < 0 {
		i = len(w.jumps)
	}
	least := w.jumps[i-1].ahead
	for i--; i > 0 && w.jumps[i].at.After(t.asked); i-- {
		least = min(least, w.jumps[i-1].ahead)
	}
	return by.Std().Add(-least)
}
