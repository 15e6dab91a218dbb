package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options makes a Limiter.
type Options struct {
	// ID is the sidecar's name: stable over restarts, different on each.
	ID string
	// Alone: the caller holds a lock that no other process of this ID can hold, so
	// that whoever had the seat before is known to have ended.
	Alone bool
	// Pool is where shares come from.
	Pool Pool
	// Elapsed is CLOCK_BOOTTIME (registry.NewBootClock), Now the wall clock.
	Elapsed func() time.Duration
	Now     func() time.Time
	Log     *slog.Logger

	// Hold is how long a share holds without word from the pool; beyond it the
	// sidecar falls back on its standing part. Default 8s.
	Hold time.Duration
	// Stand is how long the standing part holds. Default 70s, longer than any lease
	// of the register.
	Stand time.Duration
	// Beat is the longest time between two requests to the pool. Default 1s.
	Beat time.Duration
	// Timeout bounds one request. Default 500ms.
	Timeout time.Duration
}

// The loop's own figures.
const (
	tick         = 20 * time.Millisecond  // between looks at the accounts in use
	gapMin       = 4 * time.Millisecond   // between two requests
	wallSlack    = time.Second            // that the wall clock may gain on the other while leases last
	ahead        = 40 * time.Millisecond  // how much demand a share should hold tokens for
	aheadShort   = 7 * time.Millisecond   // where more is asked for than the rate, by how much it is
	aheadQuota   = 4 * time.Second        // the same of calendar quotas, which outlast an outage
	chunkPart    = 100                    // of what is left of a calendar quota, all sidecars may keep one in so many
	chunkOpen    = 8                      // of such a chunk, one in so many is open without use
	keepPart     = 100                    // of a burst, all sidecars may keep one in so many while they are idle
	chunkAlone   = 4                      // requests of a calendar quota that a sidecar alone holds at least
	headroom     = 200 * time.Millisecond // how much refill it should have empty capacity for
	fresh        = 800 * time.Millisecond // figures of limits in use are told this often
	idleAfter    = 2 * time.Second
	steadySpan   = 4 * time.Second         // over which the part of the rate follows demand
	apart        = 1.25                    // of the average: demand is elsewhere
	fallingSpan  = 1100 * time.Millisecond // and has been less for so long
	roomPart     = 0.95                    // of the whole capacity that those who refill hold by their parts
	roomMissing  = 1.1                     // parts of what is missing from the whole, where all cannot have room
	roomSlack    = 1.1                     // of that room: what is beyond goes back
	reservePart  = 0.7                     // of what is left is held by those who spend it, by their parts
	shortOf      = 0.8                     // of its part of the rate: who holds less is short
	standFew     = 4                       // of a standing part, one in so many may be spent before the pool hears
	firstFew     = 4                       // requests that tell what demand is when a limit comes into use
	firstSpan    = 200 * time.Millisecond  // in which they must come
	risingSpan   = 500 * time.Millisecond  // or more for so long
	rateLot      = 0.1                     // of its part of the rate: what is worth giving back
	lotTime      = 20 * time.Millisecond   // of the whole rate: what is worth giving back of tokens
	lotShort     = 2500 * time.Microsecond // of what is asked for, where that is more than the rate, by how much it is
	lotPart      = 50                      // and of the whole capacity, one in so many
	crowded      = 0.35                    // of the whole rate, asked for: those who are quiet are called at once
	crowdMin     = 100 * Micro             // for the sake of smaller rates nobody is
	asksMax      = 1                       // doublings of what is asked for in a row
	backoffMin   = 20 * time.Millisecond
	backoffMax   = 800 * time.Millisecond
	probeEvery   = 100 * time.Millisecond // while the pool is away
	itemsMax     = 256
	subjectsMax  = 1024 // told in one item
	degradeAfter = 3    // beats without an answer
	overMax      = 1e6  // seconds: a place left empty for so long is not watched
)

// accountSync is what the sync loop keeps of an account; guarded by its mu.
type accountSync struct {
	attempts uint64 // spends tried, refused ones too, since last scanned
	since    uint64 // the same since last told
	low      float64
	queued   bool // on the loop's list
	urgent   bool // fell below low
	changed  bool // the limit's figures changed, or an answer got lost
	recalled bool // somebody is short
	inflight bool

	demand    float64 // millionths a second, of late
	steady    float64 // and over a longer time
	firstUse  time.Duration
	first     float64 // requests since, until there were firstFew
	side      int8    // of steady that demand is on
	sideSince time.Duration
	sideCount float64
	told      int64 // demand in the last request
	scanned   time.Duration
	lastUse   time.Duration
	nagged    bool          // the others were called when the limit came into use
	target    float64       // the capacity that it should hold, as of the last item
	kept      int64         // capacity kept empty for the tokens an item asked for
	lapses    uint64        // of the lease, as of that item
	opened    int64         // what was open when the item was sent
	over      int64         // what the item said is held beyond the account's share
	last      time.Duration // when the last request that mentions it was sent
	notBefore time.Duration // no urgent request
	backoff   time.Duration
	askedBy   float64 // demand, when notBefore was set
	lastAsk   time.Duration
	asks      int // in a row
	lastNag   time.Duration
	fleet     int64      // demand of the fleet
	others    int64      // of the fleet but for this sidecar, as of the last answer
	free      int64      // the pool's tokens
	room      int64      // and its empty capacity
	shortage  bool       // somebody has less than it should
	dry       bool       // the last answer gave less than asked
	starved   bool       // or the rate is less than the part of demand
	subjects  [][16]byte // to be told
	again     int        // the first of them were sent before
}

// syncer is the loop's part of a Limiter.
type syncer struct {
	bell    chan struct{}
	queueMu sync.Mutex
	queue   []*account // newly in use

	// The loop's own.
	active  []*account
	born    time.Duration
	tenure  uint64
	beat    uint64
	notice  uint64
	sentAt  time.Duration
	fleetAt time.Duration
	seen    map[uint64]sighting // of other seats, by tenure
	acked   int                 // parts the pool knows of
	mine    atomic.Uint64       // tenure, for the goroutine that is woken
	woken   atomic.Bool         // the pool calls everybody
	gain    atomic.Bool         // the pool has something for this sidecar
	calls   atomic.Int64
	failing bool
}

type sighting struct {
	beat uint64
	at   time.Duration
	gone bool
	over int64 // as the pool knows
}

// New makes a Limiter that shares its limits with others through a Pool. It
// holds nothing until Run has heard of the pool.
func New(o Options) (*Limiter, error) {
	if o.ID == "" || o.Pool == nil || o.Elapsed == nil {
		return nil, errors.New("ratelimit: needs an ID, a Pool and the clock of leases")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Hold = cmp.Or(o.Hold, 8*time.Second)
	o.Stand = max(cmp.Or(o.Stand, 70*time.Second), o.Hold)
	o.Beat = cmp.Or(o.Beat, time.Second)
	o.Timeout = cmp.Or(o.Timeout, 500*time.Millisecond)
	l := newLimiter(o)
	l.bell = make(chan struct{}, 1)
	l.seen = map[uint64]sighting{}
	l.born = o.Elapsed()
	return l, nil
}

// wants tells the loop about an account that was used. The caller holds its
// mu; at is nil when nothing was spent.
func (l *Limiter) wants(a *account, at *instant, refused bool) {
	if l.bell == nil {
		return
	}
	s := &a.sync
	l.enlist(a)
	if at != nil && !s.urgent && (refused || a.ready() < s.low) && at.elapsed >= s.notBefore {
		s.urgent = true
		l.ring()
	}
}

func (l *Limiter) ring() {
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// Ready tells whether this sidecar holds a part of the limits, without which
// it refuses everything that is limited.
func (l *Limiter) Ready() bool {
	p := l.part.Load()
	return p.whole || p.Parts > 0
}

// Status is how a Limiter stands towards its pool.
type Status struct {
	Ready    bool
	Degraded bool          // see Outcome
	Heard    time.Duration // since the last answered request was sent
	Parts    int           // among how many the standing parts are
	Accounts int
	Calls    int64 // requests to the pool so far
}

// Status tells how it stands.
func (l *Limiter) Status() Status {
	st := Status{Ready: l.Ready(), Parts: l.part.Load().Parts, Accounts: l.Len(), Calls: l.calls.Load()}
	if l.o.Elapsed != nil {
		now := l.o.Elapsed()
		st.Heard, st.Degraded = now-l.lease.Load().sent, l.degraded(now)
	}
	return st
}

func (l *Limiter) degraded(elapsed time.Duration) bool {
	return l.bell != nil && elapsed-l.lease.Load().sent > degradeAfter*l.o.Beat
}

func (l *Limiter) isHot(id, period string) bool {
	s := l.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.hot[HotLimit{id, period}]
}

// Run moves shares until ctx ends; then it gives everything back, and the
// Limiter refuses what is limited. Stop serving before.
func (l *Limiter) Run(ctx context.Context) error {
	var rings sync.WaitGroup
	if w, ok := l.o.Pool.(Waker); ok {
		rings.Go(func() { w.Wake(ctx, l.hint) })
	}
	defer rings.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.leave(context.WithoutCancel(ctx))
			return nil
		case <-l.bell:
		case <-timer.C:
		}
		if wait := l.sentAt + gapMin - l.o.Elapsed(); l.beat > 0 && wait > 0 {
			// What comes in a burst goes into one request.
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				continue
			case <-timer.C:
			}
		}
		timer.Reset(l.step(ctx))
	}
}

// step sends what is due and says when to look again.
func (l *Limiter) step(ctx context.Context) time.Duration {
	l.takeQueue()
	woken := l.woken.Swap(false)
	now := l.o.Elapsed()
	at := l.instantAt(now, l.o.Now())
	if l.gain.Swap(false) {
		l.unblock()
	}
	req, asked := l.compose(&at)
	parts := at.part.Parts
	// While the pool is away it is asked for nothing but whether it is there: what
	// a request gives back is lost to everybody when that gets lost.
	probe := l.failing && now-l.sentAt >= probeEvery
	if len(req.Items) > 0 || woken || probe || l.beat == 0 || now-l.sentAt >= l.o.Beat || parts == 0 && now-l.sentAt >= tick || parts != l.acked {
		l.exchange(ctx, req, asked, now)
	}
	if len(l.active) > 0 || l.failing || parts == 0 || l.part.Load().Parts != l.acked {
		return tick
	}
	return max(l.sentAt+l.o.Beat-l.o.Elapsed(), tick)
}

// hint is called when the pool has something to say.
func (l *Limiter) hint(h Hint) {
	switch {
	case h.Tenure != 0:
		if h.Tenure != l.mine.Load() {
			return
		}
		l.gain.Store(true)
	case h.ID == "" || !l.recall(h):
		l.woken.Store(true)
	}
	l.ring()
}

// recall marks an account whose limit others want. What the pool was never told
// of here is learnt from the notice itself: false.
func (l *Limiter) recall(h Hint) bool {
	s := l.shard(h.ID)
	s.mu.RLock()
	a, hot := s.accounts[h.ID], s.hot[HotLimit{h.ID, h.Period}]
	s.mu.RUnlock()
	if a == nil {
		return hot
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.standing {
		return false
	}
	if a.period == h.Period && !a.sync.starved && !a.sync.dry {
		a.sync.recalled, a.sync.fleet = true, h.Demand
		l.enlist(a)
	}
	return true
}

// enlist puts an account on the loop's list. The caller holds its mu.
func (l *Limiter) enlist(a *account) {
	if a.sync.queued {
		return
	}
	a.sync.queued = true
	l.queueMu.Lock()
	l.queue = append(l.queue, a)
	first := len(l.queue) == 1
	l.queueMu.Unlock()
	if first {
		l.ring()
	}
}

// unblock lets every account that waits for more ask again.
func (l *Limiter) unblock() {
	for _, a := range l.active {
		a.mu.Lock()
		if a.sync.dry {
			a.sync.notBefore, a.sync.urgent = a.sync.last+backoffMin, true
		}
		a.mu.Unlock()
	}
}

// takeQueue moves what is newly in use to the loop's list.
func (l *Limiter) takeQueue() {
	l.queueMu.Lock()
	defer l.queueMu.Unlock()
	l.active = append(l.active, l.queue...)
	clear(l.queue)
	l.queue = l.queue[:0]
}

// exchange sends one request and takes over what the answer says.
func (l *Limiter) exchange(ctx context.Context, req *Request, asked []*account, now time.Duration) {
	l.beat++
	req.Seat, req.Tenure, req.Beat, req.Parts, req.Notice = l.o.ID, l.tenure, l.beat, l.fitted(), l.notice
	req.Whole = l.Len() == 0 // after the part was read: what is spent later comes from that
	// Also with a tenure: a pool that failed over may have lost that, and not the predecessor.
	req.Dead, req.Born = l.o.Alone, int64(l.born)
	req.Until = l.o.Now().Add(l.o.Stand+wallSlack).Unix() + 1
	if req.Fleet = now-l.fleetAt >= l.o.Beat; req.Fleet {
		req.Claims = l.claims(now)
	}
	l.sentAt = now
	l.calls.Add(1)
	cctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	rep, err := l.o.Pool.Sync(cctx, req)
	cancel()
	if err == nil && (rep.Stale || len(rep.Items) != len(req.Items) && rep.Tenure == req.Tenure) {
		err = errors.New("ratelimit: the pool answered something else")
	}
	if err != nil {
		if !l.failing && ctx.Err() == nil {
			l.o.Log.WarnContext(ctx, "limits: pool out of reach, going on with the last shares", "err", err)
		}
		l.failing = true
		l.lost(req, asked)
		return
	}
	l.acked = req.Parts
	if l.failing {
		l.o.Log.InfoContext(ctx, "limits: pool answers again")
		l.failing = false
	}
	l.adoptReply(req, rep, asked, now)
}

// fitted is among how many the standing parts here are shared out by now: the
// last answer's figure, once every account of calls under way fits it.
func (l *Limiter) fitted() int {
	p := l.part.Load()
	if p.Parts == l.acked {
		return p.Parts
	}
	at := l.instantAt(l.o.Elapsed(), l.o.Now())
	for _, a := range l.all() {
		a.mu.Lock()
		fits := true
		if a.limit.Kind == Concurrency {
			a.fit(nil, &at)
			fits = !a.standing || a.Cap <= p.standing(a.limit).Cap
		}
		a.mu.Unlock()
		if !fits {
			return l.acked
		}
	}
	return p.Parts
}

// all lists the accounts.
func (l *Limiter) all() (accounts []*account) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		for _, a := range s.accounts {
			accounts = append(accounts, a)
		}
		s.mu.RUnlock()
	}
	return accounts
}

// lost handles a request without an answer: what it gave back is not held any
// more, whether it arrived or not, and all it said is said again.
func (l *Limiter) lost(req *Request, asked []*account) {
	for i, a := range asked {
		a.mu.Lock()
		a.sync.inflight, a.sync.changed = false, true
		if a.lapses == a.sync.lapses && a.limit.Version == req.Items[i].Version {
			a.Cap += a.sync.kept // no answer will fill it
		}
		a.sync.kept = 0
		if a.period == req.Items[i].Period {
			sent := req.Items[i].Subjects
			a.sync.again += len(sent)
			a.sync.subjects = append(slices.Clone(sent), a.sync.subjects...)
		}
		a.sync.notBefore = l.sentAt + backoffMax/2
		a.mu.Unlock()
	}
}
