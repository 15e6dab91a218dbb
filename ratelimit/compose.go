package ratelimit

import (
	"context"
	"math"
	"time"
)

// compose looks at every account in use and collects what is due. What an item
// gives back is not held from here on.
func (l *Limiter) compose(at *instant) (*Request, []*account) {
	req := &Request{}
	var asked []*account
	if l.tenure == 0 || at.part.Parts == 0 {
		return req, nil
	}
	keep := l.active[:0]
	for _, a := range l.active {
		a.mu.Lock()
		if a.dead {
			a.mu.Unlock()
			continue
		}
		a.fit(nil, at)
		a.sync.scan(a.limit.Kind, at.elapsed)
		if len(req.Items) < itemsMax && !l.failing { // then it is only asked whether it is there (step)
			if it, due := l.item(a, at); due {
				req.Items = append(req.Items, it)
				asked = append(asked, a)
			}
		}
		switch a.resting(at.elapsed) {
		case staysInUse:
			keep = append(keep, a)
		case parked:
			a.sync.queued = false
		case evictable:
			a.dead = true
		}
		dead := a.dead
		a.mu.Unlock()
		if dead {
			s := l.shard(a.id)
			s.mu.Lock()
			if s.accounts[a.id] == a {
				delete(s.accounts, a.id)
			}
			s.mu.Unlock()
		}
	}
	clear(l.active[len(keep):])
	l.active = keep
	return req, asked
}

type resting int

const (
	staysInUse resting = iota
	parked             // the pool knows all there is to know
	evictable          // nobody but the map knows it
)

// resting tells whether the loop may forget an account.
func (a *account) resting(now time.Duration) resting {
	s := &a.sync
	if s.inflight || s.changed || s.urgent || s.recalled || now-s.lastUse < idleAfter || len(s.subjects) > 0 {
		return staysInUse
	}
	switch {
	case a.standing && a.limit.Kind.Calendar() && a.spent == 0, a.standing && a.limit.Kind == Rate && a.level >= float64(a.Cap),
		a.standing && a.limit.Kind == Concurrency && a.inUse == 0:
		return evictable
	case !a.standing && s.told == 0 && (a.limit.Kind != Rate || a.Rate == 0):
		return parked
	}
	return staysInUse
}

// scan updates the estimate of demand: requests a second, over a fifth of a
// second or as long as it takes to see eight.
func (s *accountSync) scan(kind Kind, now time.Duration) {
	dt := now - s.scanned
	if s.scanned == 0 {
		dt = tick
	}
	if dt < tick/2 {
		return
	}
	if s.attempts > 0 {
		s.lastUse = now
	}
	n := float64(s.attempts) * Micro
	s.since += s.attempts
	s.attempts, s.scanned = 0, now
	span := 200 * time.Millisecond
	if s.demand > 0 {
		span = time.Duration(min(max(8*Micro/s.demand, 0.2), 3) * float64(time.Second))
	}
	s.demand = ewma(s.demand, n, dt, span)
	s.follow(kind, n, dt, now, span)
	if kind == Rate { // of a quota that would open a lot
		s.begin(n, now)
	}
	if s.demand > 2*s.askedBy && s.notBefore > now {
		s.notBefore = min(s.notBefore, s.last+backoffMin) // it was set for another demand
	}
	if now-s.lastUse >= idleAfter {
		s.demand, s.steady, s.firstUse, s.first, s.nagged = 0, 0, 0, 0, false
	}
}

// begin replaces the averages, which start at nothing, when a limit comes into
// use: as soon as a few requests were seen demand is what they make. The pool
// lends rate, and those who are quiet are called, by it.
func (s *accountSync) begin(n float64, now time.Duration) {
	if s.first >= firstFew*Micro || now-s.firstUse >= firstSpan {
		return
	}
	if s.first += n; s.first >= firstFew*Micro {
		d := s.first / (now - s.firstUse).Seconds()
		s.demand, s.steady = max(s.demand, d), max(s.steady, d)
	}
}

// follow updates steady, by which the rate is shared out: an average over so
// long that bursts, which are met with tokens, do not move it, until demand has
// been elsewhere for longer than a burst, or a pause between two, lasts. Then it
// is what has come since.
func (s *accountSync) follow(kind Kind, n float64, dt, now, span time.Duration) {
	if s.firstUse == 0 {
		s.firstUse = now - dt
	}
	s.steady = ewma(s.steady, n, dt, max(span, min(now-s.firstUse, steadySpan)))
	side := int8(0)
	switch {
	case s.demand > apart*s.steady:
		side = 1
	case s.demand*apart < s.steady:
		side = -1
	}
	if side != s.side {
		s.side, s.sideSince, s.sideCount = side, now-dt, 0
	}
	s.sideCount += n
	since, least := now-s.sideSince, risingSpan
	if side < 0 {
		least = fallingSpan
	}
	if side == 0 || since < least || max(s.sideCount, s.steady*since.Seconds()) < 20*Micro {
		return
	}
	s.steady = s.sideCount / since.Seconds()
	if side < 0 && s.others > 0 && kind == Rate { // what is held of other kinds outlasts a pause
		// Its part of the rate is for those that have more to do by now.
		s.fleet = s.others + int64(s.steady)
		s.recalled = true
	}
	s.firstUse = s.sideSince
	s.side = 0
}

// ewma is the moving average of a rate after n more in dt.
func ewma(old, n float64, dt, span time.Duration) float64 {
	f := math.Exp(-dt.Seconds() / span.Seconds())
	return old*f + n/dt.Seconds()*(1-f)
}

// lot is how many tokens of a rate are worth a request to the pool: fewer where
// every one of them is waited for.
func (a *account) lot() float64 {
	t := a.limit.Total()
	n := float64(t.Rate) * lotTime.Seconds()
	if f := float64(a.sync.fleet); f > float64(t.Rate) {
		n = min(n, f*(f/float64(t.Rate))*lotShort.Seconds())
	}
	return max(min(n, float64(t.Cap)/lotPart), Micro)
}

// room is how much empty capacity the account needs for what it refills
// beyond what is spent.
func (a *account) room() int64 {
	room := max(float64(a.Rate)-a.sync.demand, 0)*headroom.Seconds() + a.lot()
	if s := &a.sync; s.fleet > 0 && s.steady > 0 {
		// Capacity that is empty is of use to those who refill it only. When more is
		// asked for than the rate, they share what is missing: who has no room loses
		// what it would refill.
		total, part := a.limit.Total(), min(s.steady/float64(s.fleet), 1)
		most := float64(total.Cap)*roomPart*part - a.level
		if s.fleet > total.Rate {
			most = min(most, (float64(total.Cap)-a.level-float64(a.rest))*roomMissing*part)
		}
		room = max(room, most)
	}
	return int64(room)
}

// item decides whether the pool should hear of an account, and what.
func (l *Limiter) item(a *account, at *instant) (Item, bool) {
	s := &a.sync
	if s.inflight {
		return Item{}, false
	}
	now := at.elapsed
	want := l.wanted(a)
	idle := now-s.lastUse >= idleAfter && len(s.subjects) == 0
	if idle {
		want = float64(l.keep(a, at))
	}
	open := want
	switch {
	case a.limit.Kind.Calendar():
		want = l.chunk(a, want)
		open = max(open, math.Floor(want/chunkOpen/Micro)*Micro)
	case !idle && !s.recalled && !s.shortage:
		want = l.reserve(a, want)
	}
	low := max(l.wanted(a)/2, want/4)
	s.low = low
	if a.limit.Kind.Calendar() {
		s.low = open / 2
	}
	if idle {
		s.low = 0
	}
	it := Item{ID: a.id, Period: a.period, Begin: a.begin / 1e9, Kind: a.limit.Kind, Version: a.limit.Version, Total: a.limit.Total(), Standing: a.standing}
	give := a.surplus(&it, want, now, idle)
	ask := !idle && now >= s.notBefore && a.available() < low
	if !a.due(now, ask, give, idle) && (idle || !a.opens(open)) {
		return Item{}, false
	}
	l.giveBack(a, &it, want, give, idle)
	if ask {
		l.ask(a, &it, want, now)
	}
	it.Nag = !idle && a.nag(ask, now)
	if over := min(a.over, a.inUse); over > a.Cap {
		// Calls that lasted longer than the lease are still under way. The pool may
		// have lent their places, and then says so.
		it.Held.Cap = over
	}
	s.over, a.over, s.kept, s.lapses = it.Held.Cap-a.Cap, 0, it.Into, a.lapses
	a.settleOpen(&it, open)
	it.Demand = int64(s.steady)
	it.Level, it.Spent = max(int64(a.available()), 0), a.spent
	if a.forgot {
		it.Spent = -1
	}
	it.Idle = idle && (it.Kind != Rate || a.level >= float64(a.Cap))
	n := min(len(s.subjects), subjectsMax)
	it.Subjects = append([][16]byte(nil), s.subjects[:n]...)
	it.Again = min(s.again, n)
	s.again -= it.Again
	s.subjects = append(s.subjects[:0], s.subjects[n:]...)
	a.told = true
	s.told, s.last, s.since = it.Demand, now, 0
	s.urgent, s.changed, s.recalled, s.inflight = false, false, false, true
	return it, true
}

// opens tells whether more of a calendar quota should be open than is.
func (a *account) opens(open float64) bool {
	return a.limit.Kind.Calendar() && a.ready() < open/2 && a.available() > a.ready()
}

// settleOpen says in an item what is to be open. What is closed is so before it
// is said; what is opened is once that is answered.
func (a *account) settleOpen(it *Item, open float64) {
	if !it.Kind.Calendar() {
		return
	}
	it.Open = min(int64(open), int64(a.level)+it.Ask)
	a.open = min(a.open, it.Open)
	a.sync.opened = a.open
}

// keep is what an account that nobody uses goes on holding.
func (l *Limiter) keep(a *account, at *instant) int64 {
	total := a.limit.Total().Cap
	if a.limit.Kind.Calendar() && a.sync.recalled || total < 20*Micro*int64(at.part.Parts) {
		return 0
	}
	standing := at.part.standing(a.limit).Cap
	if a.limit.Kind == Rate && !a.sync.recalled {
		few := total / keepPart / int64(at.part.Parts)
		return min(max(few-few%Micro, Micro), standing)
	}
	return min(Micro, standing)
}

// gift is what an account can do without.
type gift struct {
	rate   int64
	tokens int64
	any    bool
}

// surplus works out what to give back: everything when nobody uses the limit
// and the bucket is whole; when others are short, what is beyond the own part
// of the demand; else tokens beyond what is needed, now and then.
func (a *account) surplus(it *Item, want float64, now time.Duration, idle bool) (g gift) {
	s := &a.sync
	level := a.available()
	spare := int64(max(level-want, 0))
	if it.Kind != Rate {
		spare -= spare % Micro
	}
	switch {
	case idle && a.standing && !s.recalled:
		// The pool need not hear of what is as if it had never been used.
	case idle && it.Kind == Rate:
		if level >= float64(a.Cap) || s.recalled || a.Rate == 0 {
			g = gift{rate: a.Rate, tokens: spare}
		}
	case idle:
		g.tokens = spare
	case s.recalled:
		if s.fleet > 0 {
			target := float64(it.Total.Rate) * min(s.steady/float64(s.fleet), 1)
			if g.rate = max(a.Rate-int64(target*1.02), 0); float64(g.rate) < min(rateLot*float64(a.Rate), float64(it.Total.Rate)/50) {
				g.rate = 0 // should the answer get lost, so does the rate
			}
		}
		if g.tokens = spare; it.Kind == Rate && level < want+a.lot()*2/3 {
			g.tokens = 0
		}
	case a.wastes(now):
		// What refills a full bucket is for those whose buckets are not.
		if g.rate = max(a.Rate-int64(s.demand), 0); level > want+a.lot() {
			g.tokens = spare
		}
	case !a.standing && it.Kind == Rate && (s.room > 0 || s.free < it.Total.Cap/20) && level > want+a.lot():
		g.tokens = spare
	case !a.standing && it.Kind != Rate && level > 2*want+2*Micro && now-s.last >= 250*time.Millisecond:
		g.tokens = spare
	}
	g.any = float64(g.rate) > (1-shortOf)*float64(a.Rate) || g.tokens >= Micro || g.rate > 0 && g.rate == a.Rate
	return g
}

// overflows tells whether the bucket is about to, and there is room elsewhere.
func (a *account) overflows() bool {
	s := &a.sync
	return !a.standing && a.limit.Kind == Rate && s.free <= s.room && float64(a.rest)+a.level < 0.95*float64(a.limit.Total().Cap) &&
		a.level+(float64(a.Rate)-s.demand)*2*tick.Seconds() > float64(a.Cap)
}

// wastes tells whether the bucket is full while the whole is not, and more is
// asked for than its rate.
func (a *account) wastes(now time.Duration) bool {
	s, total := &a.sync, a.limit.Total()
	return !a.standing && a.limit.Kind == Rate && float64(s.fleet) > 1.05*float64(total.Rate) && now-s.last >= backoffMin &&
		float64(a.rest)+a.level < 0.95*float64(total.Cap) && a.level+(float64(a.Rate)-s.demand)*tick.Seconds() > float64(a.Cap)
}

// due tells whether it is time to speak of an account.
func (a *account) due(now time.Duration, ask bool, g gift, idle bool) bool {
	s := &a.sync
	since := now - s.last
	switch {
	case ask, s.changed:
		return true
	case g.any:
		return true
	case idle:
		s.urgent, s.recalled = false, false
		return !a.standing && s.told != 0 && since >= tick
	case a.limit.Kind != Rate:
	case a.standing:
		// The pool's part of the rate refills only what was lent.
		if float64(a.Cap)-a.level > max(a.lot()/4, float64(a.Cap)/standFew, Micro) && s.demand > float64(a.Rate) {
			return true
		}
	case since >= backoffMin && s.since >= 16 && s.drifted():
		return true
	case s.starved && s.since >= 16 && since >= 4*backoffMin:
		return true
	case since >= tick && a.overflows():
		return true
	}
	if !s.urgent || now >= s.notBefore {
		s.urgent = false
	}
	s.recalled = false
	if a.standing && a.limit.Kind == Rate && a.level >= float64(a.Cap) {
		return false // it is as the pool thinks it is
	}
	return s.since > 0 && since >= fresh
}

// drifted tells whether demand is far from what the pool was told.
func (s *accountSync) drifted() bool {
	return math.Abs(s.steady-float64(s.told)) > 0.25*max(s.steady, float64(s.told))
}

// giveBack takes a gift out of the account and writes it into the item, with
// what stays.
func (l *Limiter) giveBack(a *account, it *Item, want float64, g gift, idle bool) {
	switch it.Kind {
	case Rate:
		a.Rate -= g.rate
		a.Cap -= g.tokens
		a.level -= float64(g.tokens)
		it.Returned = g.tokens
		room := a.room()
		if idle {
			room = 0
		}
		// Empty capacity is of use to whoever refills.
		if empty := a.Cap - int64(math.Ceil(a.level)); float64(empty) > float64(room)*roomSlack {
			a.Cap -= empty - room
		}
		if !idle {
			it.AskCap = max(room-(a.Cap-int64(a.level)), 0)
			a.sync.target = a.level + float64(room)
		}
	case Concurrency:
		a.Cap -= g.tokens
		it.Returned = g.tokens
	default:
		a.level -= float64(g.tokens)
		a.Cap = max(int64(a.level), 0)
	}
	it.Held = a.Share
}

// ask asks for tokens up to want, and more each time in a row.
func (l *Limiter) ask(a *account, it *Item, want float64, now time.Duration) {
	s := &a.sync
	if now-s.lastAsk < 2*ahead {
		s.asks = min(s.asks+1, asksMax)
	} else {
		s.asks = 0
	}
	s.lastAsk = now
	n := (want - a.available()) * float64(int(1)<<s.asks)
	if it.Kind != Rate {
		n = math.Ceil(n/Micro) * Micro
	}
	it.Ask = min(max(int64(n), Micro), it.Total.Cap)
	if it.Kind == Rate {
		// As far as capacity is here they come without any. It is kept empty until the
		// answer comes; more than half of it would lose too much should none come.
		empty := a.Cap - int64(math.Ceil(a.level))
		it.Into = max(min(a.Cap+it.Ask-int64(s.target), empty/2, it.Ask), 0)
		a.Cap -= it.Into
	}
}

// nag tells whether others are to be asked: they may hold what the pool does not
// have.
func (a *account) nag(asks bool, now time.Duration) bool {
	s := &a.sync
	others, worth := a.rest-s.free, int64(Micro)
	if !a.limit.Kind.Calendar() { // of a quota everything counts in the end
		others -= int64(2 * float64(s.fleet) * ahead.Seconds())
		worth = max(a.limit.Total().Cap/20, Micro)
	}
	if total := a.limit.Total(); asks && !s.nagged && a.limit.Kind == Rate && total.Rate >= crowdMin && others > total.Cap/4 && max(float64(s.fleet), s.demand) > crowded*float64(total.Rate) {
		// It comes into use: what refills the full buckets of the quiet ones is lost.
		s.nagged, s.lastNag = true, now
		return true
	}
	if !s.starved && !(asks && s.dry && others >= worth) || now-s.lastNag < max(2*s.backoff, 4*backoffMin) {
		return false
	}
	s.lastNag = now
	return true
}

// leave gives up everything and the seat.
func (l *Limiter) leave(ctx context.Context) {
	if l.tenure == 0 {
		return
	}
	old := l.part.Load()
	at := l.instantAt(l.o.Elapsed(), l.o.Now())
	l.part.Store(&part{gen: old.gen + 1})
	l.lease.Store(&lease{sent: l.lease.Load().sent, lapses: at.lapses + 1})
	req := &Request{}
	for _, a := range l.all() {
		a.mu.Lock()
		a.advance(at.elapsed)
		it := Item{
			ID: a.id, Period: a.period, Begin: a.begin / 1e9, Kind: a.limit.Kind, Version: a.limit.Version, Total: a.limit.Total(),
			Standing: a.standing, Spent: a.spent, Subjects: a.sync.subjects, Again: a.sync.again,
		}
		if a.forgot {
			it.Spent = -1
		}
		it.Returned = max(int64(a.available()), 0)
		whole := a.standing && a.spent == 0 && it.Returned >= a.Cap
		a.Share, a.level, a.standing = Share{}, 0, false
		a.mu.Unlock()
		if !whole {
			req.Items = append(req.Items, it)
		}
	}
	for first := true; first || len(req.Items) > 0; first = false {
		n := min(len(req.Items), itemsMax)
		l.beat++
		part := &Request{
			Seat: l.o.ID, Tenure: l.tenure, Beat: l.beat, Parts: old.Parts, Notice: l.notice,
			Items: req.Items[:n], Leave: n == len(req.Items),
		}
		req.Items = req.Items[n:]
		cctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
		_, err := l.o.Pool.Sync(cctx, part)
		cancel()
		if err != nil {
			l.o.Log.WarnContext(ctx, "limits: shares not given back; they lapse", "err", err)
			return
		}
	}
}
