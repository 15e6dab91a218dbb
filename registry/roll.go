package registry

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// leaseMargin is how much longer than its lease a silent sidecar is taken to
// serve: two clocks that should run at one rate may differ by 1 %.
func leaseMargin(lease time.Duration) time.Duration { return lease/100 + 50*time.Millisecond }

// The states of a sidecar in an Enforcement.
const (
	Acknowledged = "acknowledged" // holds the revision, by its own poll
	Lapsed       = "lapsed"       // silent for so long that its longest serving lease is over: it can only refuse
	Pending      = "pending"      // may still serve an older revision, at the latest until the instants of Until
)

// Enforcement is how far a revision has come.
type Enforcement struct {
	// Complete: every sidecar acknowledged it or lapsed, and the roll lacks nobody.
	Complete  bool           `json:"complete"`
	Sidecars  []SidecarState `json:"sidecars"`
	ElapsedMS int64          `json:"elapsed_ms"`
}

// UnknownSidecars is the ID under which an Enforcement names those who may be
// missing on the roll, for a lease after the store may have lost its end.
const UnknownSidecars = "unknown-sidecars"

// SidecarState is what one incarnation of a sidecar has of a revision.
type SidecarState struct {
	ID          string   `json:"id"`
	Incarnation string   `json:"incarnation,omitempty"`
	State       string   `json:"state"`
	Revision    Revision `json:"revision"` // last acknowledged
	// Until is, for each risk rating, the instant (by the store's clock as it is
	// now) from which nothing more arrives of what the sidecar let pass: the end of
	// its serving lease, unless it polls again and so takes the revision, and the
	// drain. Only when it has not acknowledged. One that has passed is an exposure
	// that is over.
	Until map[Risk]Time `json:"until,omitempty"`
}

// Await waits until every sidecar on the roll has acknowledged a revision or
// lapsed, then for the drain; at most for timeout (and at most cfg.AwaitMax,
// which 0 also means). It returns how far the revision has come; not complete
// is no error. ErrUnavailable when the roll could not be read at all.
//
// A sidecar that polls for the first time after the commit is on the roll
// before it serves, and is given the revision by that poll: not waiting for it
// exposes nothing. Whether a member holds the revision is told by its digest as
// well as by its number, since a store that lost its end may have given the same
// number to another change.
func (r *Register) Await(ctx context.Context, rev Revision, timeout time.Duration) (Enforcement, error) {
	began := time.Now()
	if timeout <= 0 || timeout > r.cfg.AwaitMax {
		timeout = r.cfg.AwaitMax
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	r.roll.mu.Lock()
	r.roll.waiting++
	begun := r.roll.begun
	r.roll.mu.Unlock()
	defer func() {
		r.roll.mu.Lock()
		r.roll.waiting--
		r.roll.mu.Unlock()
	}()
	select {
	case r.roll.wanted <- struct{}{}:
	default:
	}

	e, err := r.awaitRoll(ctx, rev, begun)
	if err != nil {
		return Enforcement{}, err
	}
	if e.Complete && r.cfg.Drain > 0 {
		// Decisions taken on the old View an instant before the acknowledgement are
		// still on their way; a deadline cuts no drain short that has begun.
		time.Sleep(r.cfg.Drain)
	}
	e.ElapsedMS = time.Since(began).Milliseconds()
	return e, nil
}

func (r *Register) awaitRoll(ctx context.Context, rev Revision, begun uint64) (Enforcement, error) {
	var known *rollReading
	err := fmt.Errorf("%w: the roll of sidecars was not read", ErrUnavailable)
	looked := false
	for {
		r.roll.mu.Lock()
		last, next := r.roll.last, r.roll.reading
		r.roll.mu.Unlock()
		// A reading begun before this wait may lack a sidecar that joined since.
		if last.number > begun {
			looked = true
			if last.err == nil {
				known = &last
			} else {
				err = fmt.Errorf("read the roll of sidecars: %w", last.err)
			}
		}
		// Each sidecar is judged once, at the end: a thousand waits at once must
		// not do so at every reading.
		if known != nil && rev <= known.low && known.doubt == 0 {
			if e := r.enforcement(known, rev); e.Complete {
				return e, nil
			}
		}
		select {
		case <-next:
			continue
		case <-r.stopped:
		case <-ctx.Done():
			// However short the wait: one look at the roll is owed, or the answer
			// could name nobody.
			if !looked && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				looked = true
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), rollTimeout)
				defer cancel()
				continue
			}
		}
		if known == nil {
			return Enforcement{}, err
		}
		return r.enforcement(known, rev), nil
	}
}

// enforcement judges a reading of the roll.
func (r *Register) enforcement(roll *rollReading, rev Revision) Enforcement {
	e := Enforcement{Complete: true, Sidecars: make([]SidecarState, 0, len(roll.members))}
	serving := map[string]bool{}
	for i := range roll.members {
		if s := &roll.members[i]; !s.lapsed {
			serving[s.ID] = true
		}
	}
	for i := range roll.members {
		m := &roll.members[i]
		s := SidecarState{ID: m.ID, Incarnation: m.Incarnation, Revision: m.Revision, State: Acknowledged}
		switch {
		case r.holds(&m.Member, rev):
		case m.lapsed && serving[m.ID]:
			continue // an earlier incarnation that is over; the one that replaced it is listed
		case m.lapsed:
			s.State, s.Until = Lapsed, r.until(roll, m.leaseEnd(m.Short), m.leaseEnd(m.Long))
		default:
			s.State, s.Until = Pending, r.until(roll, m.leaseEnd(m.Short), m.leaseEnd(m.Long))
			e.Complete = false
		}
		e.Sidecars = append(e.Sidecars, s)
	}
	if roll.doubt != 0 {
		e.Complete = false
		e.Sidecars = append(e.Sidecars, SidecarState{ID: UnknownSidecars, State: Pending, Until: r.until(roll, roll.doubt, roll.doubt)})
	}
	return e
}

// until tells, for each risk rating, by the store's clock, when the last call
// can arrive that was let pass on a lease that ends at an instant of this
// process's clock.
func (r *Register) until(roll *rollReading, short, long time.Duration) map[Risk]Time {
	at := func(end time.Duration) Time {
		return roll.at + Time((end - roll.clock + r.cfg.Drain + time.Millisecond - 1).Milliseconds())
	}
	return map[Risk]Time{1: at(long), 2: at(long), 3: at(short), 4: at(short)}
}

// holds tells whether a member has acknowledged a revision of this history.
func (r *Register) holds(m *Member, rev Revision) bool {
	if m.Revision < rev {
		return false
	}
	if rev == 0 {
		return true
	}
	if s, known := r.mirror.tail.state(m.Revision); known && s.digest == m.Digest {
		return true
	}
	// Sidecars hold a change before its writer has heard that it is committed.
	if planned := r.planned.Load(); planned != nil {
		for _, c := range *planned {
			if c.Revision == m.Revision {
				return c.Digest == m.Digest
			}
		}
	}
	return false
}

// SidecarStatus is one sidecar for people to look at.
type SidecarStatus struct {
	ID          string   `json:"id"`
	Incarnation string   `json:"incarnation"`
	Revision    Revision `json:"revision"`
	Lag         Revision `json:"lag"` // revisions behind this control plane
	// DigestOK tells whether the sidecar's digest is that of its revision; nil
	// when the log no longer tells.
	DigestOK    *bool `json:"digest_ok,omitempty"`
	PolledAt    Time  `json:"polled_at"`
	Lapsed      bool  `json:"lapsed"`              // every lease is over for certain: it can only refuse
	ShortLeftMS int64 `json:"short_lease_left_ms"` // of the serving lease for ratings 3–4, by the store's clock; negative when over
	LongLeftMS  int64 `json:"long_lease_left_ms"`
}

// Sidecars lists the sidecars on the roll, each incarnation by itself.
func (r *Register) Sidecars(ctx context.Context) ([]SidecarStatus, error) {
	v, err := r.View()
	if err != nil {
		return nil, err
	}
	r.readRoll(ctx)
	r.roll.mu.Lock()
	roll := r.roll.last
	r.roll.mu.Unlock()
	if roll.err != nil {
		return nil, fmt.Errorf("read the roll of sidecars: %w", roll.err)
	}
	digests := map[Revision]*Digest{v.Revision: &v.Digest, 0: {}}
	all := make([]SidecarStatus, 0, len(roll.members))
	for i := range roll.members {
		m := &roll.members[i]
		s := m.status(v.Revision, roll.at)
		d, known := digests[m.Revision]
		if !known {
			if d, err = r.digestAt(ctx, m.Revision); err != nil {
				return nil, fmt.Errorf("read the digest of revision %d: %w", m.Revision, err)
			}
			digests[m.Revision] = d
		}
		if d != nil {
			same := *d == m.Digest
			s.DigestOK = &same
		}
		all = append(all, s)
	}
	return all, nil
}

// SidecarsSeen lists the sidecars as the last reading of the roll that succeeded
// showed them, and when that was, without asking the store: it is read every second
// anyhow. DigestOK is nil where this process no longer knows the sidecar's revision.
// ErrUnavailable before the first reading.
func (r *Register) SidecarsSeen() (all []SidecarStatus, at Time, err error) {
	v, err := r.View()
	if err != nil {
		return nil, 0, err
	}
	r.roll.mu.Lock()
	roll := r.roll.known
	r.roll.mu.Unlock()
	if roll.number == 0 {
		return nil, 0, fmt.Errorf("%w: the roll of sidecars was not read yet", ErrUnavailable)
	}
	all = make([]SidecarStatus, 0, len(roll.members))
	for i := range roll.members {
		m := &roll.members[i]
		s := m.status(v.Revision, roll.at)
		if known, ok := r.mirror.tail.state(m.Revision); ok {
			same := known.digest == m.Digest
			s.DigestOK = &same
		}
		all = append(all, s)
	}
	return all, r.Now() - Time((r.mirror.Now() - roll.clock).Milliseconds()), nil
}

// status is a member to look at: head is the register's revision, at the store's
// clock when it was read.
func (m *sighting) status(head Revision, at Time) SidecarStatus {
	s := SidecarStatus{ID: m.ID, Incarnation: m.Incarnation, Revision: m.Revision, PolledAt: m.PolledAt, Lapsed: m.lapsed}
	if head > m.Revision {
		s.Lag = head - m.Revision
	}
	s.ShortLeftMS = int64(m.PolledAt-at) + m.Short.Milliseconds()
	s.LongLeftMS = int64(m.PolledAt-at) + m.Long.Milliseconds()
	return s
}

// digestAt finds in the log what the digest of a revision is; nil when the log
// does not hold a genuine change of it.
func (r *Register) digestAt(ctx context.Context, rev Revision) (*Digest, error) {
	changes, err := r.ledger.Changes(ctx, rev-1, 1)
	switch {
	case errors.Is(err, ErrTrimmed):
		return nil, nil
	case err != nil:
		return nil, err
	case len(changes) == 0 || changes[0].Revision != rev || r.sealer.Change(&changes[0]) != changes[0].MAC:
		return nil, nil
	}
	return &changes[0].Digest, nil
}
