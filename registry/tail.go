package registry

import "sync"

// Bounds of the tail: what a control plane can give back to a store that lost
// its end, and whose digests it can tell.
const (
	tailChangesMax = 4096
	tailBytesMax   = 16 << 20
)

// tail keeps the newest changes of the register as they were committed, without
// a gap: those this control plane made and those its mirror followed.
type tail struct {
	mu      sync.Mutex
	base    Revision  // the revision before the first change kept
	state0  tailState // of the register at base, when based
	based   bool
	changes []*Change
	bytes   int
}

// tailState tells one history from another at a revision.
type tailState struct {
	digest Digest
	cases  CaseSum
}

// anchor begins the tail at a View loaded whole, unless it reaches there already.
func (t *tail) anchor(v *View) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := tailState{v.Digest, v.CaseSum}
	if s, ok := t.at(v.Revision); ok && s == state {
		return
	}
	t.cut(0)
	t.base, t.state0, t.based = v.Revision, state, true
}

// cut keeps the first n changes.
func (t *tail) cut(n int) {
	for _, c := range t.changes[n:] {
		t.bytes -= c.size()
	}
	clear(t.changes[n:])
	t.changes = t.changes[:n]
}

// note adds a change. One that takes the place of another ends what followed that.
func (t *tail) note(c *Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.Revision <= t.base || c.Revision > t.base+Revision(len(t.changes))+1 {
		// A gap: what came before is of no use any more.
		t.cut(0)
		t.base, t.based = c.Revision-1, false
	}
	if i := int(c.Revision - t.base - 1); i < len(t.changes) {
		if t.changes[i].MAC == c.MAC {
			if c.Keyed != nil { // the mirror was sooner, and does not know of it
				t.changes[i] = c
			}
			return
		}
		t.cut(i)
	}
	t.changes = append(t.changes, c)
	t.bytes += c.size()
	for len(t.changes) > 1 && (len(t.changes) > tailChangesMax || t.bytes > tailBytesMax) {
		first := t.changes[0]
		t.base, t.state0, t.based = first.Revision, tailState{first.Digest, first.CaseSum}, true
		t.bytes -= first.size()
		t.changes = t.changes[1:]
	}
}

func (c *Change) size() (n int) {
	for i := range c.Puts {
		n += len(c.Puts[i].Data) + 64
	}
	for i := range c.Cases {
		n += len(c.Cases[i].Data) + 64
	}
	return n + 128
}

// state tells what the register was at a revision, if the tail reaches there.
func (t *tail) state(rev Revision) (tailState, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at(rev)
}

func (t *tail) at(rev Revision) (tailState, bool) {
	switch {
	case rev < t.base || rev > t.base+Revision(len(t.changes)):
		return tailState{}, false
	case rev == t.base:
		return t.state0, t.based
	}
	c := t.changes[rev-t.base-1]
	return tailState{c.Digest, c.CaseSum}, true
}

// between returns the changes after one revision up to another; ok only when all are there.
func (t *tail) between(after, upTo Revision) (changes []*Change, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if after < t.base || upTo > t.base+Revision(len(t.changes)) || after >= upTo {
		return nil, false
	}
	return append(changes, t.changes[after-t.base:upTo-t.base]...), true
}
