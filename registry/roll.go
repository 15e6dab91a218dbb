package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// rollPoll is how often the roll is read while somebody waits; a wake-up makes it sooner.
	rollPoll    = 25 * time.Millisecond
	rollTimeout = 2 * time.Second
)

// leaseMargin is how much longer than its lease a silent sidecar is taken to
// serve: two clocks that should run at one rate may differ by 1 %, and Redis
// counts whole milliseconds.
func leaseMargin(lease time.Duration) time.Duration { return lease/100 + 50*time.Millisecond }

// The states of a sidecar in an Enforcement.
const (
	Acknowledged = "acknowledged" // holds the revision, by its own poll
	Lapsed       = "lapsed"       // silent for so long that its longest serving lease is over: it can only refuse
	Pending      = "pending"      // may still serve an older revision, at the latest until the instants of Until
)

// Enforcement is how far a revision has come.
type Enforcement struct {
	Complete  bool           `json:"complete"` // every sidecar acknowledged it or lapsed
	Sidecars  []SidecarState `json:"sidecars"`
	ElapsedMS int64          `json:"elapsed_ms"`
}

// SidecarState is what one sidecar on the roll has of a revision.
type SidecarState struct {
	ID       string   `json:"id"`
	State    string   `json:"state"`
	Revision Revision `json:"revision"` // last acknowledged
	// Until is, for each risk rating, the instant (by the store's clock) at which
	// the sidecar's serving lease ends unless it polls again; only when it has not
	// acknowledged. An instant that has passed is an exposure that is over.
	Until map[Risk]Time `json:"until,omitempty"`
}

// RollWaker is a Ledger that tells when a sidecar's acknowledged revision
// rose. Without it Await polls only.
type RollWaker interface {
	// WakeRoll returns a channel that gets a value soon after a rise; some may be lost.
	WakeRoll(ctx context.Context) <-chan struct{}
}

// rollWatch shares one reading of the roll among all who wait.
type rollWatch struct {
	mu      sync.Mutex
	waiting int
	wanted  chan struct{} // capacity 1: somebody began to wait
	reading chan struct{} // closed when the next reading is in
	last    rollReading
}

type rollReading struct {
	started time.Time // on this process's clock, before the store was asked
	members []Member
	now     Time     // the store's
	low     Revision // the lowest held by a member that may still serve
	err     error
}

func newRollWatch() rollWatch {
	return rollWatch{wanted: make(chan struct{}, 1), reading: make(chan struct{})}
}

// watchRoll reads the roll while anybody waits, at each wake-up and every
// rollPoll. One reading serves all: a thousand waiting suspensions cost the
// store no more than one.
func (r *Register) watchRoll(ctx context.Context) {
	var wake <-chan struct{}
	if w, ok := r.ledger.(RollWaker); ok {
		wake = w.WakeRoll(ctx)
	}
	for {
		r.roll.mu.Lock()
		idle := r.roll.waiting == 0
		r.roll.mu.Unlock()
		if idle {
			select {
			case <-ctx.Done():
				return
			case <-r.roll.wanted:
			}
		}
		r.readRoll(ctx)
		pause := time.NewTimer(rollPoll)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-wake:
		case <-r.roll.wanted:
		case <-pause.C:
		}
		pause.Stop()
	}
}

func (r *Register) readRoll(ctx context.Context) {
	rctx, cancel := context.WithTimeout(ctx, rollTimeout)
	defer cancel()
	reading := rollReading{started: time.Now()}
	reading.members, reading.now, reading.err = r.ledger.Roll(rctx)
	slices.SortFunc(reading.members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	reading.low = lowest(reading.members, reading.now)
	r.roll.mu.Lock()
	defer r.roll.mu.Unlock()
	r.roll.last = reading
	close(r.roll.reading)
	r.roll.reading = make(chan struct{})
}

// Await waits until every sidecar on the roll has acknowledged a revision or
// lapsed, then for the drain; at most for timeout (and at most cfg.AwaitMax,
// which 0 also means). It returns how far the revision has come; not complete
// is no error. ErrUnavailable when the roll could not be read at all.
//
// A sidecar that polls for the first time after the commit is on the roll
// before it serves, and is given the revision by that poll: not waiting for it
// exposes nothing.
func (r *Register) Await(ctx context.Context, rev Revision, timeout time.Duration) (Enforcement, error) {
	began := time.Now()
	if timeout <= 0 || timeout > r.cfg.AwaitMax {
		timeout = r.cfg.AwaitMax
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	r.roll.mu.Lock()
	r.roll.waiting++
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

	e, err := r.awaitRoll(ctx, rev, began)
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

func (r *Register) awaitRoll(ctx context.Context, rev Revision, began time.Time) (Enforcement, error) {
	var known *rollReading
	err := fmt.Errorf("%w: the roll of sidecars was not read", ErrUnavailable)
	for {
		r.roll.mu.Lock()
		last, next := r.roll.last, r.roll.reading
		r.roll.mu.Unlock()
		// A reading begun before this wait may lack a sidecar that joined since.
		if !last.started.IsZero() && !last.started.Before(began) {
			if last.err == nil {
				known = &last
			} else {
				err = fmt.Errorf("read the roll of sidecars: %w", last.err)
			}
		}
		// Each sidecar is judged once, at the end: a thousand waits at once must
		// not do so at every reading.
		ended := known != nil && rev <= known.low
		if !ended {
			select {
			case <-next:
				continue
			case <-r.stopped:
			case <-ctx.Done():
			}
		}
		if known == nil {
			return Enforcement{}, err
		}
		return enforcement(known.members, rev, known.now), nil
	}
}

// lowest is the lowest revision held by a member that may still serve: every
// revision up to it is enforced. With no such member it is the highest there is.
func lowest(members []Member, now Time) Revision {
	low := ^Revision(0)
	for i := range members {
		if m := &members[i]; m.Revision < low && !m.lapsed(now) {
			low = m.Revision
		}
	}
	return low
}

// enforcement judges a reading of the roll; pure.
func enforcement(members []Member, rev Revision, now Time) Enforcement {
	e := Enforcement{Complete: true, Sidecars: make([]SidecarState, 0, len(members))}
	for i := range members {
		m := &members[i]
		s := SidecarState{ID: m.ID, Revision: m.Revision, State: Acknowledged}
		if m.Revision < rev {
			short, long := m.leaseEnds()
			s.State, s.Until = Pending, map[Risk]Time{1: long, 2: long, 3: short, 4: short}
			if m.lapsed(now) {
				s.State = Lapsed
			} else {
				e.Complete = false
			}
		}
		e.Sidecars = append(e.Sidecars, s)
	}
	return e
}

// leaseEnds says when the member's serving leases are over for certain, by the
// store's clock. The member counts them from when it sent the poll, before the
// store noted it, so they end earlier on its side.
func (m *Member) leaseEnds() (short, long Time) {
	end := func(lease time.Duration) Time {
		d := lease + leaseMargin(lease)
		return m.PolledAt + Time((d + time.Millisecond - 1).Milliseconds())
	}
	return end(m.Short), end(m.Long)
}

// lapsed tells whether every serving lease of the member is over for certain.
func (m *Member) lapsed(now Time) bool {
	short, long := m.leaseEnds()
	return now >= max(short, long)
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
	ShortLeftMS int64 `json:"short_lease_left_ms"` // of the serving lease for ratings 3–4; negative when lapsed
	LongLeftMS  int64 `json:"long_lease_left_ms"`
}

// Sidecars lists the sidecars on the roll.
func (r *Register) Sidecars(ctx context.Context) ([]SidecarStatus, error) {
	v, err := r.View()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rollTimeout)
	defer cancel()
	members, now, err := r.ledger.Roll(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the roll of sidecars: %w", err)
	}
	digests := map[Revision]*Digest{v.Revision: &v.Digest, 0: {}}
	all := make([]SidecarStatus, 0, len(members))
	for i := range members {
		m := &members[i]
		s := SidecarStatus{ID: m.ID, Incarnation: m.Incarnation, Revision: m.Revision, PolledAt: m.PolledAt}
		if v.Revision > m.Revision {
			s.Lag = v.Revision - m.Revision
		}
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
		s.ShortLeftMS = int64(m.PolledAt-now) + m.Short.Milliseconds()
		s.LongLeftMS = int64(m.PolledAt-now) + m.Long.Milliseconds()
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b SidecarStatus) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
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
