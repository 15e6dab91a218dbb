package ratelimit

import (
	"math"
	"time"
)

// claims says which seats have been silent for longer than their leases. Each
// is watched from when its last beat was first seen, which is after that was
// sent; the margin is for the rates of two clocks.
func (l *Limiter) claims(now time.Duration) (claims []Claim) {
	margin := func(d time.Duration) time.Duration { return d + d/20 + 250*time.Millisecond }
	for tenure, s := range l.seen {
		silent := now - s.at
		switch {
		case s.gone:
			// Ever more seldom: what it may have spent of a rate has come back some time.
			if over := int64(silent / time.Second); over > 2*s.over && s.over < overMax {
				claims = append(claims, Claim{Tenure: tenure, Gone: true, Over: over})
			}
		case silent > margin(l.o.Hold):
			claims = append(claims, Claim{Tenure: tenure, Beat: s.beat, Gone: silent > margin(l.o.Stand)})
		}
	}
	return claims
}

func (l *Limiter) sight(seats []Seat, now time.Duration) {
	seen := make(map[uint64]sighting, len(seats))
	for _, s := range seats {
		if s.Tenure == l.tenure {
			continue
		}
		was, ok := l.seen[s.Tenure]
		if !ok || was.beat != s.Beat || was.gone != s.Gone {
			was = sighting{beat: s.Beat, at: now, gone: s.Gone}
		}
		was.over = s.Over
		seen[s.Tenure] = was
	}
	l.seen = seen
}

// adoptReply takes over an answer: first the part, then the notices, which are
// older than what became of the items, then that.
func (l *Limiter) adoptReply(req *Request, rep *Reply, asked []*account, sent time.Duration) {
	fresh := rep.Tenure != l.tenure
	if fresh {
		l.newTenure(rep, req, asked)
	}
	// Notices come first: the part, the list of what is hot and the items are as of
	// the end of this request.
	at := l.instantAt(l.o.Elapsed(), l.o.Now())
	for i := range rep.Notices {
		l.heed(&rep.Notices[i], &at)
	}
	l.notice = rep.Notice
	l.takePart(rep, fresh)
	l.renew(sent, req.Until)
	if req.Fleet {
		l.fleetAt = sent
		l.sight(rep.Seats, l.o.Elapsed())
	}
	if fresh {
		return
	}
	at = l.instantAt(l.o.Elapsed(), l.o.Now())
	for i, a := range asked {
		l.credit(a, &req.Items[i], &rep.Items[i], &at)
	}
	// But that a record went with this very request was noticed after its items.
	for i := range rep.Notices {
		if n := &rep.Notices[i]; n.Cold {
			l.heedCold(n, l.lookup(n.ID), &at)
		}
	}
}

// lookup finds an account, nil when there is none.
func (l *Limiter) lookup(id string) *account {
	s := l.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.accounts[id]
}

// renew extends the leases, from when the request was sent. When the old lease
// of shares has passed meanwhile, every account falls back once, also those
// nobody touched in between.
func (l *Limiter) renew(sent time.Duration, until int64) {
	old := l.lease.Load()
	next := &lease{sent: sent, heldUntil: sent + l.o.Hold, standUntil: sent + l.o.Stand, lapses: old.lapses, wallUntil: until * 1e9}
	if l.o.Elapsed() >= old.heldUntil {
		next.lapses++
	}
	l.lease.Store(next)
}

func (l *Limiter) takePart(rep *Reply, fresh bool) {
	old := l.part.Load()
	if !fresh && old.Parts == rep.Parts && old.Index == rep.Index {
		return
	}
	next := &part{Parts: rep.Parts, Index: rep.Index, gen: old.gen + 1, spent: rep.Spent, since: old.since, spentUntil: old.spentUntil}
	if fresh || old.Parts == 0 {
		next.since, next.spentUntil = l.o.Elapsed(), rep.SpentUntil*1e9
		l.acked = rep.Parts // it was granted among so many
		for _, h := range rep.Hot {
			s := l.shard(h.ID)
			s.mu.Lock()
			s.hot[h] = true
			a := s.accounts[h.ID]
			s.mu.Unlock()
			if a == nil {
				continue
			}
			a.mu.Lock()
			if a.period == h.Period {
				a.Share, a.level, a.standing = Share{}, 0, false
			}
			a.mu.Unlock()
		}
	} else {
		next.spent = old.spent
	}
	l.part.Store(next)
}

// newTenure: this sidecar was taken for gone, or has just come. Nothing it held
// is its own any more.
func (l *Limiter) newTenure(rep *Reply, req *Request, asked []*account) {
	l.tenure, l.beat = rep.Tenure, max(req.Beat, 1)
	l.mine.Store(l.tenure)
	l.part.Store(&part{gen: l.part.Load().gen + 1, spent: true})
	for _, a := range asked {
		a.mu.Lock()
		a.sync.inflight = false
		a.mu.Unlock()
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		clear(s.hot)
		s.mu.Unlock()
	}
	for _, a := range l.all() {
		a.mu.Lock()
		a.Share, a.level, a.standing, a.epoch, a.spent, a.open, a.subjects = Share{}, 0, false, 0, 0, 0, nil
		a.sync.changed, a.sync.subjects, a.sync.again = a.sync.queued, nil, 0
		a.mu.Unlock()
	}
}

// heed follows a notice about a limit.
func (l *Limiter) heed(n *Notice, at *instant) {
	key := HotLimit{n.ID, n.Period}
	s := l.shard(n.ID)
	s.mu.Lock()
	if n.Cold {
		delete(s.hot, key)
	}
	a, hot := s.accounts[n.ID], s.hot[key]
	s.mu.Unlock()
	if n.Cold {
		l.heedCold(n, a, at)
		return
	}
	if a == nil {
		if hot || at.part.Parts == 0 {
			return // nothing is held of it
		}
		a = l.find(n.limit(), at)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dead || a.period != n.Period {
		return
	}
	a.sync.recalled = true
	a.sync.fleet, a.sync.others = n.Demand, max(n.Demand-a.sync.told, 0)
	if !a.sync.queued {
		a.sync.queued = true
		l.active = append(l.active, a)
	}
	l.ring()
}

// heedCold: the record that this account last spoke with is gone, every
// sidecar's standing part whole again. An account in a request on its way has
// spoken with a later one.
func (l *Limiter) heedCold(n *Notice, a *account, at *instant) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.sync
	if a.epoch != n.Epoch || a.standing || s.inflight || s.changed || a.period != n.Period {
		return
	}
	a.fit(nil, at)
	a.standing, a.told, a.epoch = true, false, 0
	a.Share = at.part.standing(a.limit)
	a.level = float64(a.Cap)
	a.rest = a.limit.Total().Cap - a.Cap
	s.low, s.recalled = a.level/2, false // nobody wants any of it
	if !s.queued {
		s.queued = true // to be evicted
		l.active = append(l.active, a)
	}
}

// limit is what a notice says of one, for a sidecar that never saw it.
func (n *Notice) limit() *Limit {
	l := &Limit{ID: n.ID, Kind: n.Kind, Amount: n.Total.Cap / Micro}
	if n.Kind == Rate {
		l.Rate, l.Burst = float64(n.Total.Rate)/Micro, n.Total.Cap/Micro
	}
	return l
}

// credit takes over what became of one item.
func (l *Limiter) credit(a *account, it *Item, r *ItemReply, at *instant) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.sync
	s.inflight, s.kept = false, 0
	if a.dead {
		return
	}
	if a.fit(nil, at); a.period != it.Period {
		return // a new day has begun meanwhile: what was lent is the old one's
	}
	a.standing, a.epoch = false, r.Epoch
	if it.Spent < 0 {
		a.forgot = false
	}
	more := Share{Rate: r.Held.Rate - it.Held.Rate, Cap: r.Held.Cap - it.Held.Cap + s.over}
	granted := r.Granted
	is, was := a.limit.Total(), r.Total
	switch outdated := r.Version < a.limit.Version && more.Rate >= 0 && more.Cap >= 0; {
	case outdated && a.limit.Kind.Calendar() && is.Cap < was.Cap:
		more, granted, s.changed = Share{}, 0, true // it may be used already
	case outdated: // lent by figures that are no longer so
		more = Share{Rate: part64(more.Rate, is.Rate, was.Rate), Cap: part64(more.Cap, is.Cap, was.Cap)}
		granted = part64(granted, is.Cap, was.Cap)
	}
	if at.elapsed < l.lease.Load().heldUntil || more.Rate < 0 || more.Cap < 0 {
		a.Rate, a.Cap = max(a.Rate+more.Rate, 0), max(a.Cap+more.Cap, 0)
		a.level = min(a.level+float64(granted), float64(a.Cap))
		a.open += it.Open - s.opened
	}
	if r.Version > a.limit.Version {
		a.change(a.limit.revised(r.Version, r.Total)) // others know of it already
	}
	for _, known := range r.Known {
		if known {
			a.spent = max(a.spent-Micro, 0) // the next request gives the token back
			s.changed = true
		}
	}
	a.rest = r.Rest
	s.fleet, s.others, s.free, s.room = r.Demand, max(r.Demand-it.Demand, 0), r.Free, r.Room
	if s.shortage = r.Short; r.Short {
		s.recalled = true
	}
	s.starved = a.limit.Kind == Rate && s.steady > 0 && float64(a.Rate) < shortOf*min(float64(r.Target), s.steady)
	s.pace(a.limit.Kind, it, r, at.elapsed)
	want := l.wanted(a)
	s.low = max(want/2, l.reserve(a, want)/4)
	if a.limit.Kind.Calendar() {
		s.low = want / 2
	}
	if a.ready() < s.low {
		s.urgent = true // as soon as it may
	}
}

// pace settles how soon to ask again.
func (s *accountSync) pace(kind Kind, it *Item, r *ItemReply, now time.Duration) {
	if it.Ask == 0 {
		if r.Free >= Micro { // there is something by now
			s.dry, s.backoff, s.notBefore = false, 0, min(s.notBefore, now)
		}
		return
	}
	s.dry = r.Granted < it.Ask/2
	switch {
	case r.Granted >= Micro && s.dry:
		s.backoff = backoffMin
		if kind == Rate && r.Demand > r.Total.Rate {
			s.backoff = 2 * backoffMin // whoever asks, as much is refused
		}
	case s.dry:
		s.backoff = min(max(2*s.backoff, backoffMin), backoffMax)
	default:
		s.backoff = 0
	}
	// Ask no more often than about once in twenty requests.
	wait := s.backoff
	if s.dry && s.demand > 0 && kind == Rate {
		wait = max(wait, time.Duration(min(20/s.demand*Micro, 1)*float64(time.Second)))
	}
	s.notBefore, s.askedBy = now+wait, s.demand
}

// reserve is how many tokens the account should hold while nobody is short: most
// of its part, by demand, of all that is left, so that bursts are met here and
// the pool may go away.
func (l *Limiter) reserve(a *account, want float64) float64 {
	s := &a.sync
	if a.limit.Kind != Rate || s.fleet <= 0 {
		return want
	}
	return max(want, (a.level+float64(a.rest))*reservePart*min(s.steady/float64(s.fleet), 1))
}

// chunk is how many tokens of a calendar quota the account should hold, of which
// want are open: a part of what is left besides, so that it need not be asked
// for when the load comes at once. It is ever less as the end nears.
func (l *Limiter) chunk(a *account, want float64) float64 {
	if a.sync.recalled {
		return want
	}
	left := int64(a.level) + a.rest
	part := left / chunkPart / int64(max(l.part.Load().Parts, 1))
	return max(want, float64(part-part%Micro))
}

// wanted is how many tokens the account should hold, in millionths: of calendar
// quotas how many should be open.
func (l *Limiter) wanted(a *account) float64 {
	s := &a.sync
	switch a.limit.Kind {
	case Concurrency:
		n := max(Micro, math.Ceil(float64(a.inUse)/4/Micro)*Micro)
		if !s.recalled {
			// Calls come in bursts, and end only when the access log says so: the
			// standing part is kept until somebody is short.
			n = max(n, float64(l.part.Load().standing(a.limit).Cap-a.inUse))
		}
		return n
	case Rate:
		span := ahead.Seconds()
		if f, rate := float64(s.fleet), float64(a.limit.Total().Rate); f > rate {
			span = min(span, f/rate*aheadShort.Seconds()) // what lies here is refused there
		}
		n := s.demand / Micro * span
		return (n + 1.5*math.Sqrt(n) + 1) * Micro
	}
	n := math.Ceil(s.demand/Micro*aheadQuota.Seconds() + 1)
	if l.part.Load().Parts == 1 {
		n = max(n, chunkAlone) // nobody else wants them
	}
	return n * Micro
}
