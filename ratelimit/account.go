package ratelimit

import (
	"slices"
	"sync"
	"time"
)

// account is this sidecar's share of one limit, and what the sync loop needs to
// know about its use. mu guards everything but id and owner.
type account struct {
	id    string
	owner *Limiter

	mu    sync.Mutex
	limit *Limit // the greatest version seen
	bucket
	// standing: the share is the one every sidecar holds without asking; the pool
	// has not been told anything. Otherwise it is what the pool and this sidecar
	// agreed on in the epoch of the pool's record.
	standing bool
	told     bool // the pool may know of it: what was given back does not come back
	epoch    uint64
	gen      uint64 // of the owner's part, when share was last fitted to it
	lapses   uint64 // of the lease, that share was cut to the standing part for
	dead     bool   // evicted: whoever found it looks again

	inUse      int64 // Concurrency: calls under way, in millionths
	over       int64 // those that were when the share lapsed: no new ones take their place
	spent      int64 // Calendar kinds: all that was spent here in the period
	open       int64 // Calendar kinds: what of level may be spent, see Item.Open
	forgot     bool  // but for what was spent when it was this period before
	period     string
	begin, end int64 // of the period, Unix nanoseconds; end 0 when there is none
	seen       int64 // the latest end of any period there was
	subjects   *subjects

	rest int64 // what the rest of the fleet may still spend, as of the last sync

	sync accountSync
}

// available is what there is to spend.
func (a *account) available() float64 {
	if a.limit.Kind == Concurrency {
		return float64(max(a.Cap-a.inUse, 0))
	}
	return a.level
}

// ready is what of it may be spent now.
func (a *account) ready() float64 {
	if a.limit.Kind.Calendar() {
		return min(a.level, float64(a.open))
	}
	return a.available()
}

// takeOne spends one of a calendar quota, or nothing and false.
func (a *account) takeOne() bool {
	if a.open < Micro || !a.take(Micro) {
		return false
	}
	a.open -= Micro
	a.spent += Micro
	return true
}

// putOne undoes takeOne.
func (a *account) putOne() {
	a.put(Micro)
	a.open += Micro
	a.spent -= Micro
}

// fit brings the account up to the instant and to what has changed around it:
// the limit's figures, the calendar, the sidecar's part of every limit, the
// lease. The caller holds mu.
func (a *account) fit(limit *Limit, at *instant) {
	if a.end != 0 && (at.wall >= a.end || at.wall < a.begin) {
		a.turn(at)
	}
	if limit != nil && limit != a.limit && a.end != 0 && limit.Version >= a.limit.Version && limit.zone().String() != a.limit.zone().String() {
		a.rezone(limit, at)
	}
	// What makes a share smaller comes before the time that has passed: the larger
	// one may have ended long ago. What makes it larger comes after.
	newer := limit != nil && limit != a.limit && limit.Version > a.limit.Version
	if newer && a.limit.Kind == limit.Kind && limit.Total().Rate > a.limit.Total().Rate {
		a.advance(at.elapsed)
	}
	if newer {
		a.change(limit)
	}
	if a.gen != at.part.gen {
		a.refit(at)
	}
	if at.lapses > a.lapses {
		// The pool may have lent the rest to others by now, our standing part not.
		if a.limit.Kind == Concurrency {
			a.over = max(a.over, min(a.inUse, a.Cap))
		}
		a.shrink(at.part.standing(a.limit))
		a.lapses = at.lapses
	}
	a.advance(at.elapsed)
}

// refit follows a change of the sidecar's own part. A standing share becomes
// the new part; one that grows gets capacity, which then fills.
func (a *account) refit(at *instant) {
	p := at.part
	a.gen = p.gen
	if !a.standing {
		return
	}
	s := p.standing(a.limit)
	if a.told {
		a.shrink(Share{Rate: s.Rate, Cap: max(s.Cap, a.inUse)})
		return
	}
	if a.limit.Kind.Calendar() && a.Cap == 0 && !at.owns(a.begin) {
		a.forgot = true
	}
	if a.limit.Kind == Concurrency && a.inUse > s.Cap {
		// Calls under way cannot be shared out. The pool hears of them before it hears
		// that the part is smaller.
		s.Cap = min(a.inUse, a.Cap)
		a.sync.changed = true
		a.owner.enlist(a)
	}
	a.Share = s
	a.level = min(a.level, float64(s.Cap))
	a.rest = a.limit.Total().Cap - s.Cap
}

// change takes over new figures and keeps what was used.
func (a *account) change(limit *Limit) {
	old := a.limit
	a.limit = limit
	was, is := old.Total(), limit.Total()
	if old.Kind == limit.Kind && was == is {
		return
	}
	a.sync.changed = true
	switch {
	case old.Kind != limit.Kind:
		// Another limit under an old name: nothing is held of it until the pool says.
		a.Share, a.level, a.open, a.standing, a.rest = Share{}, 0, 0, false, 0
	case a.standing && !a.told:
		p := a.owner.part.Load()
		s := p.standing(limit)
		a.level = min(a.level+float64(s.Cap-a.Cap), float64(s.Cap))
		a.open = max(a.open+s.Cap-a.Cap, 0)
		if !limit.Kind.Calendar() {
			a.level = max(a.level, 0)
		} // else what was used beyond a smaller quota is remembered, for when it grows again
		a.rest = max(a.rest+(is.Cap-was.Cap)-(s.Cap-a.Cap), 0) // the rest is what is not ours
		a.Share = s
	case limit.Kind.Calendar():
		// What a smaller quota lacks may have been used already, by whom only the pool
		// knows: everybody does without as much, and asks.
		if less := was.Cap - is.Cap; less > 0 {
			a.level = max(a.level-float64(less), 0)
			a.shrink(Share{Cap: min(a.Cap, int64(a.level))})
		}
		a.rest = max(a.rest+is.Cap-was.Cap, 0)
	default:
		// A smaller limit is smaller at once, everywhere, each share by the same
		// factor. Of a greater one the pool lends the difference.
		s := Share{Rate: part64(a.Rate, is.Rate, was.Rate), Cap: part64(a.Cap, is.Cap, was.Cap)}
		if s.Cap < a.Cap {
			a.level = a.level * float64(s.Cap) / float64(a.Cap)
		}
		a.shrink(s)
		a.rest = max(a.rest+is.Cap-was.Cap, 0)
	}
}

// part64 is x·num/den, rounded down, and x when that is more.
func part64(x, num, den int64) int64 {
	if den <= 0 || num >= den {
		return x
	}
	return int64(float64(x) * (float64(num) / float64(den)))
}

// turn begins the period that the wall clock says. A new day is a new account;
// a day gone back to, by a clock set back, was spent from before: only the pool
// knows how much is left.
func (a *account) turn(at *instant) {
	seen := a.seen
	a.setPeriod(at)
	back := a.end <= seen || a.owner.passed(a.end, at)
	a.subjects, a.spent, a.open, a.epoch = nil, 0, 0, 0
	a.sync = accountSync{queued: a.sync.queued, lastUse: a.sync.lastUse, scanned: a.sync.scanned, firstUse: a.sync.firstUse, demand: a.sync.demand, steady: a.sync.steady}
	if back || !at.owns(a.begin) || a.owner.isHot(a.id, a.period) {
		a.Share, a.level, a.standing, a.rest = Share{}, 0, false, a.limit.Total().Cap
		a.forgot = true
		return
	}
	a.standing, a.told, a.forgot = true, false, false
	a.Share = at.part.standing(a.limit)
	a.level, a.open = float64(a.Cap), a.Cap
	a.rest = a.limit.Total().Cap - a.Cap
	a.sync.low = a.level / 2
}

// rezone follows a limit that says in which zone its days begin. An account made
// of a notice, which does not, took them for days of UTC.
func (a *account) rezone(limit *Limit, at *instant) {
	known := a.limit.revised(a.limit.Version, a.limit.Total())
	known.Zone, known.Shadow = limit.Zone, limit.Shadow
	a.limit = known
	name, begin, end := known.Period(time.Unix(0, at.wall))
	if name != a.period {
		a.turn(at)
		return
	}
	a.begin, a.end = begin.UnixNano(), end.UnixNano()
	a.seen = max(a.seen, a.end)
}

func (a *account) setPeriod(at *instant) {
	name, begin, end := a.limit.Period(time.Unix(0, at.wall))
	a.period, a.begin, a.end = name, 0, 0
	if name != "" {
		a.begin, a.end = begin.UnixNano(), end.UnixNano()
		a.seen = max(a.seen, a.end)
	}
}

// spend takes one request, or nothing and false.
func (a *account) spend(subject *[16]byte) bool {
	a.sync.attempts++
	switch a.limit.Kind {
	case Concurrency:
		if a.inUse+Micro > a.Cap {
			return false
		}
		a.inUse += Micro
		return true
	case DistinctDay:
		if *subject == ([16]byte{}) || a.subjects.has(subject) {
			return true
		}
		if !a.takeOne() {
			return false
		}
		a.sync.subjects = append(a.sync.subjects, *subject)
		if a.subjects == nil {
			a.subjects = &subjects{}
		}
		a.subjects.add(subject)
		return true
	case QuotaDay, QuotaMonth:
		return a.takeOne()
	}
	return a.take(Micro)
}

// unspend undoes spend, for a request that another limit refused.
func (a *account) unspend(subject *[16]byte, added bool) {
	switch a.limit.Kind {
	case Concurrency:
		a.inUse = max(a.inUse-Micro, 0)
	case DistinctDay:
		// One that was told to the pool already stays counted.
		if i := slices.Index(a.sync.subjects, *subject); added && i >= a.sync.again && a.subjects.remove(subject) {
			a.sync.subjects = slices.Delete(a.sync.subjects, i, i+1)
			a.putOne()
		}
	case QuotaDay, QuotaMonth:
		a.putOne()
	default:
		a.put(Micro)
	}
}

// state says what the limit is at now.
func (a *account) state(st *State, at *instant) {
	own := int64(a.available())
	left := own + a.rest
	st.Remaining = max(left, 0) / Micro
	total := a.limit.Total()
	switch {
	case a.end != 0:
		st.Reset = time.Duration(a.end - at.wall)
	case a.limit.Kind == Rate:
		if missing := total.Cap - left; missing > 0 {
			st.Reset = time.Duration(float64(missing) / float64(total.Rate) * 1e9)
		}
	}
}

// retry is how long a refused request does best to wait.
func (a *account) retry(at *instant) time.Duration {
	switch {
	case a.limit.Kind == Rate:
		if d, ok := a.wait(Micro); ok {
			return d
		}
	case a.end != 0 && a.rest < Micro:
		return time.Duration(a.end - at.wall)
	}
	return time.Second // others hold some of it: the loop is asking
}
