package registry

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// rollPoll is how often the roll is read while somebody waits; a wake-up makes it sooner.
	rollPoll = 25 * time.Millisecond
	// rollRestMember and rollRestWait are how long it rests after a reading while
	// somebody waits, for each sidecar on the roll and for each who waits: about
	// what the reading cost.
	rollRestMember = 20 * time.Microsecond
	rollRestWait   = 10 * time.Microsecond
	// rollIdle is how often it is read otherwise, to know who is there before it
	// matters, and to notice at once that the store has changed hands.
	rollIdle    = time.Second
	rollTimeout = 2 * time.Second
	// strayedMax is for how many polls of a sidecar that is astray the writer tries
	// to bring it back: by then it is held off by something else.
	strayedMax = 16
)

// RollWaker is a Ledger that tells when a sidecar's acknowledged revision
// rose. Without it Await polls only.
type RollWaker interface {
	// WakeRoll returns a channel that gets a value soon after each rise; some may be lost.
	WakeRoll(ctx context.Context) <-chan struct{}
}

// rollWatch shares one reading of the roll among all who wait, and remembers
// what the readings before it said.
type rollWatch struct {
	mu      sync.Mutex
	waiting int
	wanted  chan struct{} // capacity 1: somebody began to wait
	reading chan struct{} // closed when the next reading is in
	last    rollReading
	known   rollReading // the last that succeeded
	stats   RollStats
	begun   uint64 // readings begun so far

	// Owned by whoever reads, one at a time: who holds the token in turn.
	turn   chan struct{} // capacity 1
	memory rollMemory
}

// rollReading is the roll as read once, judged on this process's own clock.
type rollReading struct {
	number  uint64        // counts the readings from 1, in the order they began
	clock   time.Duration // this process's, before the store was asked
	at      Time          // the store's clock
	members []sighting
	low     Revision // the lowest held by a member that may still serve
	head    Revision // of the store
	// high is the highest that the roll lists, when it is above the head and will
	// stay so: nobody is left to give back what it is of.
	high Revision
	// strayed: a member holds another change under a number than this history has,
	// and has polled again without loading the register anew.
	strayed bool
	// doubt is until when, on this process's clock, a sidecar may serve that
	// nobody knows of; 0 when the roll is known to be whole.
	doubt time.Duration
	err   error
}

// sighting is a member as this control plane saw it.
//
// A lease is never judged by the store's clock, which may jump: the member sent
// its last poll before the first reading that shows that poll was in, so it may
// serve until seen + lease (+ margin) by this process's own clock, and a
// reading that *begins* after that and shows no newer poll proves that it has
// lapsed. A control plane that has just started knows no earlier reading, and so
// waits out a whole lease before it calls anybody lapsed.
type sighting struct {
	Member
	seen time.Duration // on this process's clock, when the first reading that showed this poll was in
	gone bool          // remembered: the store no longer lists it
	// astray is how many readings showed another poll with a revision and a digest
	// that are of no history known here.
	astray int
	lapsed bool
}

// rollMemory is what one control plane knows of the roll from its earlier
// readings.
//
// The store's roll may lose its end when the store changes hands (a failover, a
// restart): who joined last is not on it then, who is on it may have polled
// since, and yet each may serve for a lease. So in a new tenure every member
// counts as having polled just now; members seen before and not listed any more
// are remembered for a lease, since leaving takes one off the roll only within a
// tenure; and until a lease has passed, or the store says that nothing can have
// been lost, sidecars unknown to everybody are taken to be there: doubt.
//
// What a control plane that was started anew knows it has from the store: that
// the tenure is settled. The store says so of a tenure that began with an empty
// register (nobody can serve from it), or that follows an earlier one on a disk
// that is written before every answer and was never replicated; of any other
// only after some control plane has watched it, on its own clock, for longer
// than the longest lease. So an ordinary restart of a control plane, or of a
// Redis alone with appendfsync always, raises no doubt; a failover does.
type rollMemory struct {
	tenure  string
	learnt  time.Duration // on this process's clock: when it first read this tenure
	settled bool
	// distrusted: in this tenure the store was behind what was committed before;
	// rewound: it is so now.
	distrusted, rewound bool
	longest             time.Duration // lease seen on any member
	seen                map[rollKey]sighting
}

type rollKey struct{ id, incarnation string }

// RollStats counts what the readings of the roll showed, for metrics.
type RollStats struct {
	Sidecars  int      // incarnations on the roll that may serve
	Lapsed    int      // on the roll, silent for longer than their leases
	LagMax    Revision // how far the one furthest behind is, of those that may serve
	InDoubt   bool     // a sidecar nobody knows of may serve
	Lapses    uint64   // sidecars that lapsed so far
	Returns   uint64   // lapsed sidecars that came back
	Tenures   uint64   // times the store changed hands or was started anew
	Reasserts uint64   // changes that the store had lost and was given again
	// Superseded counts how often a sidecar held a revision that the store did not,
	// and the writer went past it.
	Superseded uint64
	Errors     uint64 // readings that failed
}

// RollStats is a copy of what the readings of the roll showed so far.
func (r *Register) RollStats() RollStats {
	r.roll.mu.Lock()
	defer r.roll.mu.Unlock()
	return r.roll.stats
}

func newRollWatch() rollWatch {
	return rollWatch{
		wanted: make(chan struct{}, 1), reading: make(chan struct{}),
		turn:   make(chan struct{}, 1),
		memory: rollMemory{seen: map[rollKey]sighting{}},
	}
}

// watchRoll reads the roll when those that were behind at the last reading have
// acknowledged, at the latest every rollPoll, while anybody waits; every rollIdle
// otherwise. One reading serves all: a thousand waiting suspensions cost the store
// no more than one.
func (r *Register) watchRoll(ctx context.Context) {
	var wakes <-chan struct{}
	if w, ok := r.ledger.(RollWaker); ok {
		wakes = w.WakeRoll(ctx)
	}
	for ctx.Err() == nil {
		r.readRoll(ctx)
		r.roll.mu.Lock()
		waiting, behind, members := r.roll.waiting, r.roll.last.behind(), len(r.roll.last.members)
		r.roll.mu.Unlock()
		if waiting == 0 {
			wait(ctx, rollIdle, r.roll.wanted)
			continue
		}
		rest := time.Duration(members)*rollRestMember + time.Duration(waiting)*rollRestWait
		r.untilRead(ctx, min(rest, rollPoll), behind, wakes)
	}
}

// untilRead waits until it is time to read the roll again: as many wakes have come
// as were behind, or somebody began to wait and the rest is over, or rollPoll is.
// Two hundred acknowledgements are two hundred wakes: reading the whole roll at
// each would take from the sidecars what they need to acknowledge. A wake counted
// too often, or lost, makes the reading early or late, never wrong.
func (r *Register) untilRead(ctx context.Context, rest time.Duration, behind int, wakes <-chan struct{}) {
	poll, rested := time.NewTimer(rollPoll), time.NewTimer(rest)
	defer poll.Stop()
	defer rested.Stop()
	wanted, due := r.roll.wanted, rested.C
	asked, heard := false, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			return
		case <-wakes:
			if heard++; behind > 0 && heard >= behind {
				return
			}
			asked = asked || behind == 0
		case <-wanted:
			asked, wanted = true, nil
		case <-due:
			due = nil
		}
		if asked && due == nil {
			return
		}
	}
}

// behind counts those that may serve and do not hold the head yet.
func (r *rollReading) behind() (n int) {
	for i := range r.members {
		if m := &r.members[i]; !m.lapsed && !m.gone && m.Revision < r.head {
			n++
		}
	}
	return n
}

// readRoll reads the roll once and hands the reading to all who wait.
func (r *Register) readRoll(ctx context.Context) {
	r.roll.turn <- struct{}{}
	defer func() { <-r.roll.turn }()
	var held Revision
	if v, err := r.View(); err == nil {
		held = v.Revision
	}
	rctx, cancel := context.WithTimeout(ctx, rollTimeout)
	defer cancel()
	w := &r.roll
	w.mu.Lock()
	w.begun++
	reading := rollReading{number: w.begun, clock: r.mirror.Now()}
	w.mu.Unlock()
	roll, err := r.ledger.Roll(rctx)
	reading.err = err
	if err == nil {
		rewound := roll.Head < held // held was committed before the store was asked
		r.judgeRoll(ctx, &reading, &roll, rewound)
		if rewound {
			notify(r.rewound)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = reading
	if reading.high != 0 || reading.strayed || r.mirror.forked.Load() != nil {
		notify(r.behind)
	}
	if err == nil {
		w.known = reading
		w.stats.note(&reading, held)
	} else {
		w.stats.Errors++
	}
	close(w.reading)
	w.reading = make(chan struct{})
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// judgeRoll brings the memory up to date with a reading and judges it. rewound:
// the store's head is behind what this control plane knows was committed.
func (r *Register) judgeRoll(ctx context.Context, reading *rollReading, roll *Roll, rewound bool) {
	m, in := &r.roll.memory, r.mirror.Now()
	fresh := roll.Tenure != m.tenure || roll.Tenure == "" || rewound
	if fresh {
		if m.tenure != "" && !(m.rewound && roll.Tenure == m.tenure) { // told already
			r.cfg.Log.WarnContext(ctx, "the store changed hands, was started anew or lost its end",
				"settled", roll.Settled, "rewound", rewound, "head", roll.Head)
			r.roll.mu.Lock()
			r.roll.stats.Tenures++
			r.roll.mu.Unlock()
		}
		// A tenure that was seen to have lost its end is not settled by the store's word.
		m.distrusted = rewound || m.distrusted && roll.Tenure == m.tenure
		m.tenure, m.learnt, m.settled = roll.Tenure, in, false
	}
	m.rewound = rewound
	m.settled = m.settled || roll.Settled && !m.distrusted

	// Until then another control plane may give back what it holds.
	settled := m.tenure == "" || m.settled || in >= m.learnt+settleGrace
	listed := make(map[rollKey]bool, len(roll.Members))
	for _, member := range roll.Members {
		key := rollKey{member.ID, member.Incarnation}
		listed[key] = true
		m.longest = max(m.longest, member.Long, member.Short)
		old, known := m.seen[key]
		s := sighting{Member: member, seen: in}
		switch {
		case !known || fresh:
		case old.PolledAt == member.PolledAt && old.Revision == member.Revision:
			s.seen, s.lapsed, s.astray = old.seen, old.lapsed, old.astray
		case old.lapsed:
			r.roll.count(func(st *RollStats) { st.Returns++ })
			r.cfg.Log.WarnContext(ctx, "a sidecar that had lapsed is back", "sidecar", s.ID, "incarnation", s.Incarnation,
				"revision", s.Revision, "silent", (in - old.seen).Round(time.Millisecond))
		}
		if s.astray == 0 && r.foreign(&member) {
			if s.astray = 1; known && old.Revision == s.Revision && old.Digest == s.Digest {
				s.astray = old.astray + 1
			}
		}
		reading.strayed = reading.strayed || settled && s.astray > 1 && s.astray < strayedMax
		m.seen[key] = s
	}
	reading.at, reading.head = roll.At, roll.Head
	if settled && !rewound {
		reading.high = above(roll)
	}
	reading.members = make([]sighting, 0, len(m.seen))
	for key, s := range m.seen {
		switch {
		case listed[key]:
		case !fresh && !s.gone: // it left, in the order of things
			delete(m.seen, key)
			continue
		case fresh:
			s.gone, s.seen = true, in
		}
		if !s.lapsed && reading.clock >= s.leaseOver() {
			s.lapsed = true
			r.roll.count(func(st *RollStats) { st.Lapses++ })
			r.cfg.Log.WarnContext(ctx, "a sidecar lapsed: it can only refuse until it polls again", "sidecar", s.ID,
				"incarnation", s.Incarnation, "revision", s.Revision, "silent", (reading.clock - s.seen).Round(time.Millisecond))
		}
		if s.gone && s.lapsed {
			delete(m.seen, key)
			continue
		}
		m.seen[key] = s
		reading.members = append(reading.members, s)
	}
	slices.SortFunc(reading.members, func(a, b sighting) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.PolledAt, b.PolledAt), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	reading.low = lowest(reading.members)
	reading.doubt = r.doubt(ctx, reading.clock, roll.Settled)
}

// doubt is until when a sidecar that nobody knows of may serve; 0 when that is
// over, which the store is told for those who come after.
func (r *Register) doubt(ctx context.Context, clock time.Duration, told bool) time.Duration {
	m := &r.roll.memory
	longest := max(r.cfg.LeaseMax, m.longest)
	lease := longest + leaseMargin(longest)
	switch {
	case m.tenure == "": // the store may change hands unseen
		return clock + lease
	case !m.settled && clock < m.learnt+lease:
		return m.learnt + lease
	}
	m.settled = true
	if !told {
		ctx, cancel := context.WithTimeout(ctx, rollTimeout)
		defer cancel()
		if err := r.ledger.Settle(ctx, m.tenure); err != nil {
			r.cfg.Log.WarnContext(ctx, "roll not noted as whole", "err", err)
		}
	}
	return 0
}

func (w *rollWatch) count(f func(*RollStats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.stats)
}

// note takes over what a reading shows. w.mu is held by the caller.
func (st *RollStats) note(reading *rollReading, held Revision) {
	st.Sidecars, st.Lapsed, st.LagMax, st.InDoubt = 0, 0, 0, reading.doubt != 0
	for i := range reading.members {
		s := &reading.members[i]
		if s.lapsed {
			st.Lapsed++
			continue
		}
		st.Sidecars++
		if held > s.Revision {
			st.LagMax = max(st.LagMax, held-s.Revision)
		}
	}
}

// leaseEnd is when a serving lease of the member is over for certain, on this
// process's clock.
func (s *sighting) leaseEnd(lease time.Duration) time.Duration {
	return s.seen + lease + leaseMargin(lease)
}

// leaseOver is when every serving lease of the member is over for certain.
func (s *sighting) leaseOver() time.Duration {
	return s.leaseEnd(max(s.Short, s.Long))
}

// foreign tells whether a member holds another change under its number than the
// history known here.
func (r *Register) foreign(m *Member) bool {
	s, known := r.mirror.tail.state(m.Revision)
	return known && s.digest != m.Digest
}

// above is the highest revision on the roll that is above the store's head by
// no more than one commit; or by more, when there is no such.
func above(roll *Roll) (high Revision) {
	near := roll.Head + groupCommandsMax
	for i := range roll.Members {
		if rev := roll.Members[i].Revision; rev > roll.Head && (high == 0 || rev <= near && (high > near || rev > high)) {
			high = rev
		}
	}
	return high
}

// lowest is the lowest revision held by a member that may still serve: every
// revision up to it is enforced. With no such member it is the highest there is.
func lowest(members []sighting) Revision {
	low := ^Revision(0)
	for i := range members {
		if s := &members[i]; s.Revision < low && !s.lapsed {
			low = s.Revision
		}
	}
	return low
}
