package registry

import (
	"context"
	"errors"
)

// recallChanges is how far before the View it loaded a control plane reads the
// log back.
const recallChanges = 256

// recall begins an Observer's tail at a View that was loaded whole, with the
// changes that led to it, as far as the log still tells them.
//
// A control plane that was started anew has followed none of them itself; what
// it confirms then, a suspension that it finds in force already, may yet be lost
// by a failover that was under way, and the others that followed it may be gone:
// without the changes it could not give them back.
func (m *Mirror) recall(ctx context.Context, v *View) {
	defer m.tail.anchor(v) // leaves what reaches there
	state := tailState{v.Digest, v.CaseSum}
	if s, known := m.tail.state(v.Revision); known && s == state {
		return
	}
	changes := make([]*Change, 0, recallChanges)
	for from := v.Revision - min(v.Revision, recallChanges); from < v.Revision; {
		pollCtx, cancel := context.WithTimeout(ctx, pollTimeoutMax)
		p, err := m.log.Follow(pollCtx, Ack{ID: m.cfg.ID, Incarnation: m.cfg.Incarnation, Revision: from, Observer: true}, m.cfg.Batch)
		cancel()
		switch {
		case errors.Is(err, ErrTrimmed):
			from, changes = v.Revision-(v.Revision-from)/2, changes[:0]
			continue
		case err != nil || len(p.Changes) == 0:
			return // what the store does not tell is not needed to serve
		}
		for i := range p.Changes {
			c := &p.Changes[i]
			if c.Revision != from+1 || m.sealer.Change(c) != c.MAC {
				return
			}
			if from = c.Revision; from <= v.Revision {
				changes = append(changes, c)
			}
		}
	}
	if n := len(changes); n == 0 || (tailState{changes[n-1].Digest, changes[n-1].CaseSum}) != state {
		return // another history
	}
	for _, c := range changes {
		m.tail.note(c)
	}
}
