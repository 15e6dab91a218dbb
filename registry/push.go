package registry

import "sync"

// pushChangesMax is how many changes that came with wake-ups wait to be taken.
const pushChangesMax = 4096

// Pushes are the changes that came with wake-ups and were not taken yet,
// without a gap, oldest first: what a Pusher keeps for its one Mirror. The zero
// value is ready.
type Pushes struct {
	mu      sync.Mutex
	changes []Change
}

// Note takes in what came with one wake-up. What does not follow on what is
// there takes its place.
func (p *Pushes) Note(changes []Change) {
	if len(changes) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.changes); n > 0 && (p.changes[n-1].Revision+1 != changes[0].Revision || n+len(changes) > pushChangesMax) {
		p.changes = nil
	}
	p.changes = append(p.changes, changes...)
}

// Pushed implements Pusher.
func (p *Pushes) Pushed(after Revision) []Change {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.changes
	p.changes = nil
	if len(all) == 0 || all[0].Revision > after+1 || all[len(all)-1].Revision <= after {
		return nil
	}
	return all[after+1-all[0].Revision:]
}

// stops is how many of the changes, from the first on, do nothing but add
// suspensions and denials to a View.
//
// Only those are taken as they are pushed. A subscription may outlive the term
// of its primary: what that one commits as it wakes up is told to sidecars that
// follow its successor by now, and may never be in the register. More than
// before can be refused by that, for as long as it takes the writer to
// supersede it, but nothing more allowed; a lift, or anything else, is taken by
// a poll alone.
func stops(v *View, changes []Change) int {
	for i := range changes {
		for j := range changes[i].Puts {
			r := &changes[i].Puts[j]
			switch {
			case r.Kind == KindSuspension && v.suspensions.get(r.ID) == nil:
			case r.Kind == KindDenial && v.denials.get(r.ID) == nil:
			default:
				return i
			}
		}
	}
	return len(changes)
}
