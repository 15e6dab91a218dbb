package ratelimit

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Limiter is one sidecar's accounts. Spend, Peek and Hold.Release are for any
// number of callers. Run moves shares; without it the Limiter lives on the
// standing part it was made with.
type Limiter struct {
	o      Options
	seed   maphash.Seed
	shards [64]shard

	part  atomic.Pointer[part]
	lease atomic.Pointer[lease]
	// latest is the latest that the wall clock ever was when a period began.
	latest atomic.Int64

	syncer
}

// lease is until when shares hold, on the clock of Query.Elapsed. Immutable.
type lease struct {
	sent                  time.Duration // when the last answered Sync was sent
	heldUntil, standUntil time.Duration // of shares, and of standing parts
	lapses                uint64        // how often heldUntil has passed before now
	wallUntil             int64         // on the wall clock, Unix nanoseconds: Request.Until
}

type shard struct {
	mu       sync.RWMutex
	accounts map[string]*account
	hot      map[HotLimit]bool // of these this tenure holds nothing it was not lent
}

// part is which part of every limit this sidecar holds without asking.
type part struct {
	Parts, Index int
	whole        bool // there is no pool: every limit is wholly here
	gen          uint64
	// Unknown until since (elapsed): whoever held this part before may have spent
	// from it and not have said so. Buckets of this part are empty then, and fill.
	spent bool
	since time.Duration
	// Of calendar quotas, those of periods that began by then: Unix nanoseconds.
	spentUntil int64
}

// ownsFrom tells whether this part of a calendar period is surely unspent.
func (p *part) ownsFrom(begin int64) bool { return !p.spent || begin > p.spentUntil }

// standing is the part of a limit.
func (p *part) standing(l *Limit) Share {
	if p.whole {
		return l.Total()
	}
	return Standing(l.Kind, l.Total(), p.Parts, p.Index)
}

// instant is one moment of a Limiter: read once a request.
type instant struct {
	elapsed time.Duration
	wall    int64 // Unix nanoseconds
	part    *part
	lapses  uint64 // of the lease of shares, up to now
	gone    bool   // the standing parts' has lapsed too
	until   int64  // of the lease, on the wall
}

// owns tells whether the standing part of a calendar period is here and unspent.
// What begins later than the pool was told is not: the clock was set ahead, and
// should this sidecar die unheard, nobody would know that it spent from there.
func (at *instant) owns(begin int64) bool {
	return at.part.ownsFrom(begin) && (at.part.Parts == 0 || begin <= at.until)
}

// Query is one request to be paid for.
type Query struct {
	// Elapsed is CLOCK_BOOTTIME, as registry.NewBootClock tells it.
	Elapsed time.Duration
	// Now is the wall clock; it says which day it is and nothing else.
	Now time.Time
	// Subject is the keyed hash of the person or client the request concerns, for
	// DistinctDay; zero when it concerns nobody, and is then not counted.
	Subject [16]byte
}

// LimitsMax is how many limits one request may have to pass.
const LimitsMax = 24

// HoldsMax is how many of them may be of Kind Concurrency.
const HoldsMax = 4

// State is what one limit is at, after a request was decided.
type State struct {
	Limit *Limit
	// Remaining is how many requests (DistinctDay: subjects) the whole fleet has
	// left, by what this sidecar knows; at most a second old.
	Remaining int64
	// Reset is how long until the limit is whole again.
	Reset time.Duration
	// Refused: this limit had nothing left for the request. One that is Shadow
	// would have refused it.
	Refused bool
}

// Outcome is what Spend found. The zero value is ready; it may be used again.
type Outcome struct {
	states [LimitsMax]State
	n      int
	// Refused is the limit that refused the request: of several the one with the
	// longest wait. nil when it may pass.
	Refused *Limit
	// RetryAfter is how long until it may be tried again.
	RetryAfter time.Duration
	// Degraded: the pool has not been heard of for a while. This sidecar spends
	// its last share, and Remaining may be older than a second.
	Degraded bool

	hold Hold
}

// States are the limits in the order given to Spend.
func (o *Outcome) States() []State { return o.states[:o.n] }

// Hold is what a request occupies of concurrency limits while it is under way.
// The zero Hold occupies nothing.
type Hold struct{ accounts [HoldsMax]*account }

// Hold is what the request occupies. Release it once, when the request has ended.
func (o *Outcome) Hold() Hold { return o.hold }

// Any tells whether there is something to release.
func (h Hold) Any() bool { return h.accounts[0] != nil }

// Release ends the request's occupation.
func (h Hold) Release() {
	for _, a := range h.accounts {
		if a != nil {
			a.mu.Lock()
			a.inUse = max(a.inUse-Micro, 0)
			a.owner.wants(a, nil, false)
			a.mu.Unlock()
		}
	}
}

// Solo is a Limiter on its own: every limit is wholly its own, and there is no
// pool. For one sidecar without Redis, and for tests.
func Solo() *Limiter {
	l := newLimiter(Options{})
	l.part.Store(&part{Parts: 1, whole: true})
	l.lease.Store(&lease{heldUntil: math.MaxInt64, standUntil: math.MaxInt64, wallUntil: math.MaxInt64})
	return l
}

func newLimiter(o Options) *Limiter {
	l := &Limiter{o: o, seed: maphash.MakeSeed()}
	l.part.Store(&part{})
	l.lease.Store(&lease{})
	for i := range l.shards {
		l.shards[i].accounts, l.shards[i].hot = map[string]*account{}, map[HotLimit]bool{}
	}
	return l
}

func (l *Limiter) instant(q *Query) instant {
	return l.instantAt(q.Elapsed, q.Now)
}

func (l *Limiter) instantAt(elapsed time.Duration, now time.Time) instant {
	// The lease first: a part read after it is no older than it.
	ls := l.lease.Load()
	at := instant{elapsed: elapsed, wall: now.UnixNano(), part: l.part.Load(), lapses: ls.lapses, gone: elapsed >= ls.standUntil, until: ls.wallUntil}
	if elapsed >= ls.heldUntil {
		at.lapses++
	}
	return at
}

// Spend pays for one request from all limits that apply, at most LimitsMax, or
// from none of them, and says in out what each is at. Shadow limits are paid
// when the others are, and refuse nothing. It allocates nothing for a limit
// seen before, and waits for nothing but the limits' own locks, a few tens of
// nanoseconds.
func (l *Limiter) Spend(q *Query, limits []*Limit, out *Outcome) bool {
	if len(limits) > LimitsMax {
		panic("ratelimit: more limits than LimitsMax")
	}
	at := l.instant(q)
	l.begin(&at, len(limits), out)
	var paid [LimitsMax]*account
	var added [LimitsMax]bool
	for i, limit := range limits {
		out.states[i] = State{Limit: limit}
		if !limit.Shadow {
			paid[i], added[i] = l.pay(limit, q, &at, out, i)
		}
	}
	if out.Refused == nil {
		for i, limit := range limits {
			if limit.Shadow {
				l.pay(limit, q, &at, out, i)
			}
		}
		return true
	}
	out.hold = Hold{}
	for i, a := range paid[:len(limits)] {
		switch {
		case a != nil:
			a.mu.Lock()
			a.unspend(&q.Subject, added[i])
			a.state(&out.states[i], &at)
			a.mu.Unlock()
		case limits[i].Shadow:
			l.peek(limits[i], &at, &out.states[i])
		}
	}
	return false
}

// Peek says what the limits are at, and spends nothing.
func (l *Limiter) Peek(q *Query, limits []*Limit, out *Outcome) {
	at := l.instant(q)
	l.begin(&at, min(len(limits), LimitsMax), out)
	for i := range out.n {
		out.states[i] = State{Limit: limits[i]}
		l.peek(limits[i], &at, &out.states[i])
	}
}

func (l *Limiter) begin(at *instant, n int, out *Outcome) {
	out.n, out.Refused, out.RetryAfter, out.hold = n, nil, 0, Hold{}
	out.Degraded = l.degraded(at.elapsed)
}

// pay spends from one limit. After a refusal it only looks.
func (l *Limiter) pay(limit *Limit, q *Query, at *instant, out *Outcome, i int) (paid *account, added bool) {
	if out.Refused != nil && !limit.Shadow {
		// Looked at all the same: of several that refuse, the longest wait counts.
		l.refusedToo(limit, q, at, out, i)
		return nil, false
	}
	a := l.account(limit, at)
	before := a.subjects.len()
	st := &out.states[i]
	if at.gone || !a.spend(&q.Subject) {
		st.Refused = true
		a.state(st, at)
		if !limit.Shadow {
			out.Refused, out.RetryAfter = limit, a.retry(at)
		}
		l.wants(a, at, true)
		a.mu.Unlock()
		return nil, false
	}
	added = a.subjects.len() != before
	if a.limit.Kind == Concurrency {
		out.hold.add(a)
	}
	a.state(st, at)
	l.wants(a, at, false)
	a.mu.Unlock()
	return a, added
}

func (h *Hold) add(a *account) {
	for i := range h.accounts {
		if h.accounts[i] == nil {
			h.accounts[i] = a
			return
		}
	}
	panic("ratelimit: more concurrency limits on one request than a Hold holds")
}

// refusedToo sees whether a limit would refuse a request that another already has.
func (l *Limiter) refusedToo(limit *Limit, q *Query, at *instant, out *Outcome, i int) {
	a := l.account(limit, at)
	defer a.mu.Unlock()
	st := &out.states[i]
	a.state(st, at)
	if limit.Kind == DistinctDay && (q.Subject == [16]byte{} || a.subjects.has(&q.Subject)) {
		return
	}
	if a.ready() < Micro || at.gone {
		st.Refused = true
		if d := a.retry(at); d > out.RetryAfter {
			out.Refused, out.RetryAfter = limit, d
		}
	}
}

func (l *Limiter) peek(limit *Limit, at *instant, st *State) {
	a := l.account(limit, at)
	defer a.mu.Unlock()
	a.state(st, at)
}

// account finds or makes the account of a limit, up to date and locked.
func (l *Limiter) account(limit *Limit, at *instant) *account {
	a := limit.account.Load()
	for {
		if a == nil || a.owner != l {
			a = l.find(limit, at)
		}
		a.mu.Lock()
		if !a.dead {
			a.fit(limit, at)
			return a
		}
		a.mu.Unlock()
		a = nil
	}
}

func (l *Limiter) shard(id string) *shard {
	return &l.shards[maphash.String(l.seed, id)%uint64(len(l.shards))]
}

func (l *Limiter) find(limit *Limit, at *instant) *account {
	s := l.shard(limit.ID)
	s.mu.RLock()
	a := s.accounts[limit.ID]
	s.mu.RUnlock()
	if a == nil {
		s.mu.Lock()
		if a = s.accounts[limit.ID]; a == nil {
			a = l.open(limit, at)
			s.accounts[limit.ID] = a
		}
		s.mu.Unlock()
	}
	limit.account.Store(a)
	return a
}

// open makes an account of a limit this sidecar holds nothing of but its
// standing part: whole, unless somebody may have spent from that before.
func (l *Limiter) open(limit *Limit, at *instant) *account {
	p := at.part
	a := &account{id: limit.ID, owner: l, limit: limit, gen: p.gen, standing: true, lapses: at.lapses}
	a.setPeriod(at)
	if l.shard(limit.ID).hot[HotLimit{a.id, a.period}] { // find holds the shard's lock
		a.standing = false
		// This tenure may have been lent some of the period and have spent it, and the
		// account have gone while the clock was ahead: the pool still has what it said.
		a.forgot = a.end != 0 && l.passed(a.end, at)
		a.rest = limit.Total().Cap
		a.at = at.elapsed
		return a
	}
	a.Share = p.standing(limit)
	a.at = at.elapsed
	a.rest = limit.Total().Cap - a.Cap
	switch {
	case p.spent && limit.Kind == Rate:
		a.at = p.since // empty then, and filling since
	case limit.Kind.Calendar() && (!at.owns(a.begin) || l.passed(a.end, at)):
		a.forgot = true
	default:
		a.level, a.open = float64(a.Cap), a.Cap
	}
	a.sync.low = a.level / 2
	if limit.Kind == Rate {
		a.sync.last = at.elapsed // of others the pool hears at once
	}
	return a
}

// passed tells whether a period was over once already, the clock having been set
// back since: an account of it may have been here and gone.
func (l *Limiter) passed(end int64, at *instant) bool {
	for {
		latest := l.latest.Load()
		if end <= latest {
			return true
		}
		if at.wall <= latest || l.latest.CompareAndSwap(latest, at.wall) {
			return false
		}
	}
}

// Len is how many limits have an account here.
func (l *Limiter) Len() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		n += len(s.accounts)
		s.mu.RUnlock()
	}
	return n
}
