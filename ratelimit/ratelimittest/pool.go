// Package ratelimittest has a Pool in memory for tests and simulations, with
// faults to order, and the check that no limit is lent twice.
package ratelimittest

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	rl "github.com/dspgate/dspgate/ratelimit"
)

// NoticesMax is how many notices a pool keeps, and sends at once.
const NoticesMax = 1000

// Pool is the pool in memory. It is what redisshare does, step by step, written
// to be read; redisshare is tested against it.
type Pool struct {
	mu      sync.Mutex
	counter uint64 // of tenures and epochs
	gen     uint64 // changes with every seat that is given up or taken for absent
	parts   int
	granted int // indices below it were granted before
	seats   map[uint64]*seat
	dirty   map[int]dead // indices whose holders before may have spent from their standing parts
	records map[rl.HotLimit]*record
	notices []rl.Notice
	notice  uint64
	rings   map[int]func(rl.Hint)
	ringID  int

	// Plant, when set, spoils the pool so that a test must notice.
	Plant Fault
}

// Fault is a mistake to plant.
type Fault int

// The faults.
const (
	None           Fault = iota
	LendTwice            // what is lent stays in the pool
	IgnoreBeat           // requests that come late are obeyed
	TrustClaims          // a seat is taken for absent whatever it said meanwhile
	ReturnDead           // what the dead held comes back with its tokens
	FullSpentParts       // a successor is not told that its part may be spent
	ReturnOpen           // what of a dead sidecar's quota was open comes back too
	ForgetDead           // what the dead may have spent from their standing parts is lent again
)

type entry struct {
	rl.Share
	demand, level int64
	spent         int64
	open          int64 // calendar quotas: what may be spent by now without a word
	idle, implied bool
}

type record struct {
	epoch, version uint64
	kind           rl.Kind
	total          rl.Share
	begin          int64
	rate, cap, tok int64 // free
	demand, level  int64 // sums over entries
	gen            uint64
	short          []uint64 // the tenures that hold less than they should, longest first
	entries        map[uint64]*entry
	subjects       map[[16]byte]uint64 // who counted it
}

// NewPool makes an empty pool.
func NewPool() *Pool {
	return &Pool{seats: map[uint64]*seat{}, dirty: map[int]dead{}, records: map[rl.HotLimit]*record{}, rings: map[int]func(rl.Hint){}}
}

// ErrAway is what a pool out of reach answers.
var ErrAway = errors.New("pool is away")

// Wake implements ratelimit.Waker.
func (p *Pool) Wake(ctx context.Context, ring func(rl.Hint)) {
	p.mu.Lock()
	p.ringID++
	id := p.ringID
	p.rings[id] = ring
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	delete(p.rings, id)
	p.mu.Unlock()
}

// Sync implements ratelimit.Pool.
func (p *Pool) Sync(_ context.Context, req *rl.Request) (*rl.Reply, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rep := &rl.Reply{Tenure: req.Tenure}
	me := p.seats[req.Tenure]
	switch {
	case me == nil:
		p.join(req, rep)
	case req.Beat <= me.beat && p.Plant != IgnoreBeat:
		rep.Stale = true
	default:
		me.beat, me.absent, me.whole, me.until = req.Beat, false, req.Whole, max(me.until, req.Until)
		if me.granted && req.Parts > 0 {
			me.parts = req.Parts
		}
		if me.low = min(me.low, me.parts); me.whole || me.low == 0 {
			me.low = me.parts
		}
		p.grant(req.Tenure, req.Parts, rep)
		p.claim(req.Tenure, req.Claims)
		for i := range req.Items {
			rep.Items = append(rep.Items, p.item(req.Tenure, me, &req.Items[i]))
		}
		if req.Leave {
			p.drop(req.Tenure, true)
		}
	}
	p.tell(req, rep)
	return rep, nil
}

func (p *Pool) tell(req *rl.Request, rep *rl.Reply) {
	rep.Notice = p.notice
	if rep.Tenure == req.Tenure {
		for _, n := range p.notices {
			if n.Seq > req.Notice {
				rep.Notices = append(rep.Notices, n)
			}
		}
	}
	if req.Fleet {
		for tenure, s := range p.seats {
			rep.Seats = append(rep.Seats, rl.Seat{Name: s.name, Tenure: tenure, Beat: s.beat, Absent: s.absent})
		}
		for _, d := range p.dirty {
			if d.low > 0 {
				rep.Seats = append(rep.Seats, rl.Seat{Tenure: d.tenure, Absent: true, Gone: true, Over: d.over})
			}
		}
		slices.SortFunc(rep.Seats, func(a, b rl.Seat) int { return cmp.Compare(a.Tenure, b.Tenure) })
	}
}

func (p *Pool) item(tenure uint64, me *seat, it *rl.Item) rl.ItemReply {
	key := rl.HotLimit{ID: it.ID, Period: it.Period}
	r := p.records[key]
	if r == nil {
		r = p.create(tenure, it)
		p.records[key] = r
	}
	if it.Version > r.version {
		p.change(r, it)
	}
	if r.gen != p.gen {
		p.adopt(r)
	}
	e := r.entries[tenure]
	if e == nil {
		e = &entry{}
		r.entries[tenure] = e
	}
	gave := e.Rate - it.Held.Rate
	r.settle(e, it)
	out := rl.ItemReply{Epoch: r.epoch}
	r.count(tenure, it, &out)
	granted := r.lend(e, it, &out)
	if gave > r.total.Rate/20 && r.rate > r.total.Rate/20 {
		p.ring(rl.Hint{ID: key.ID, Period: key.Period, Demand: r.demand}) // it is somebody's part
	}
	if p.Plant == LendTwice {
		r.tok, r.cap = r.tok+granted, r.cap+granted
	}
	p.shortage(key, r, tenure, e, it, granted)
	if len(r.short) > 0 && r.short[0] != tenure && r.worth() {
		p.ring(rl.Hint{Tenure: r.short[0]})
		r.short = r.short[1:] // it comes back to the end when that was not enough
	}
	out.Version, out.Total, out.Held, out.Granted = r.version, r.total, e.Share, granted
	out.Free, out.Room = max(r.tok, 0), r.room()
	out.Rest, out.Demand, out.Short = max(r.tok, 0)+r.level-e.level, r.demand, len(r.short) > 0
	if it.Idle && r.cold() {
		delete(p.records, key)
		p.notify(rl.Notice{ID: it.ID, Period: it.Period, Epoch: r.epoch, Cold: true, Kind: r.kind, Version: r.version, Total: r.total})
	}
	return out
}

// create opens the record of a limit that nobody spoke of: every seat holds its
// standing part, the pool the rest, and nothing is spent. Whoever does not know
// what it spent may have spent its standing part before anybody spoke of it:
// settle then takes all of that for spent.
func (p *Pool) create(tenure uint64, it *rl.Item) *record {
	p.counter++
	r := &record{
		epoch: p.counter, version: it.Version, kind: it.Kind, total: it.Total, begin: it.Begin, gen: p.gen,
		rate: it.Total.Rate, cap: it.Total.Cap, entries: map[uint64]*entry{}, subjects: map[[16]byte]uint64{},
	}
	for t, s := range p.seats {
		if s.granted && (t != tenure || it.Standing || it.Spent < 0) {
			part := rl.Standing(it.Kind, it.Total, s.parts, s.index)
			r.imply(t, part)
			if it.Kind.Calendar() { // so much is taken for spent (missing), until it says how much is
				r.entries[t].spent = max(rl.Standing(it.Kind, it.Total, s.low, s.index).Cap-part.Cap, 0)
			}
		}
	}
	if !it.Standing && it.Spent >= 0 { // of a record that was lost: it may hold more than its part, or less
		r.imply(tenure, rl.Share{Rate: min(it.Held.Rate, r.rate), Cap: min(it.Held.Cap, r.cap)})
		r.entries[tenure].spent = it.Spent
	}
	r.tok = r.cap
	if r.kind == rl.Concurrency {
		return r
	}
	r.tok = max(r.tok-p.missing(r.kind, r.total, r.begin), 0)
	return r
}

func (r *record) imply(tenure uint64, part rl.Share) {
	r.entries[tenure] = &entry{Share: part, level: part.Cap, open: part.Cap, implied: true}
	r.rate, r.cap, r.level = r.rate-part.Rate, r.cap-part.Cap, r.level+part.Cap
}

// change goes over to new figures; what was used stays used.
func (p *Pool) change(r *record, it *rl.Item) {
	r.rate += it.Total.Rate - r.total.Rate
	r.cap += it.Total.Cap - r.total.Cap
	if r.kind == rl.Rate && it.Total.Cap < r.total.Cap {
		// As each sidecar does with its share.
		r.tok = min(int64(float64(r.tok)*(float64(it.Total.Cap)/float64(r.total.Cap))), r.cap)
	} else {
		r.tok += it.Total.Cap - r.total.Cap
	}
	was := r.total
	r.version, r.total = it.Version, it.Total
	implied := map[int]bool{}
	for t, e := range r.entries {
		// A sidecar that has not spoken of it takes the new figures' standing part.
		if s := p.seats[t]; e.implied && s != nil {
			implied[s.index] = true
			part := rl.Standing(r.kind, r.total, s.parts, s.index)
			more := rl.Share{Rate: max(part.Rate-e.Rate, 0), Cap: max(part.Cap-e.Cap, 0)}
			e.Rate, e.Cap = e.Rate+more.Rate, e.Cap+more.Cap
			r.rate, r.cap, r.tok = r.rate-more.Rate, r.cap-more.Cap, r.tok-more.Cap
			e.level, r.level, e.open = e.level+more.Cap, r.level+more.Cap, e.open+more.Cap
		}
	}
	if !r.kind.Calendar() {
		return
	}
	for index, d := range p.dirty {
		// So may the dead have done before they ended.
		if d.low > 0 && d.until >= r.begin && !implied[index] && p.Plant != ForgetDead {
			r.tok -= max(rl.Standing(r.kind, r.total, d.low, index).Cap-rl.Standing(r.kind, was, d.low, index).Cap, 0)
		}
	}
}

// adopt takes back what seats held that are gone, and of absent ones what is
// beyond their standing part. Of a calendar quota it comes with the tokens that
// were not open, else without: they may be spent.
func (p *Pool) adopt(r *record) {
	r.gen = p.gen
	for t, e := range r.entries {
		s := p.seats[t]
		var keep rl.Share
		if s != nil {
			if !s.absent {
				continue
			}
			part := rl.Standing(r.kind, r.total, s.parts, s.index)
			keep = rl.Share{Rate: min(e.Rate, part.Rate), Cap: min(e.Cap, part.Cap)}
		}
		back := rl.Share{Rate: e.Rate - keep.Rate, Cap: e.Cap - keep.Cap}
		r.rate, r.cap = r.rate+back.Rate, r.cap+back.Cap
		switch {
		case r.kind == rl.Concurrency, p.Plant == ReturnDead:
			r.tok += back.Cap
		case r.kind.Calendar():
			if p.Plant == ReturnOpen {
				e.open = 0
			}
			r.tok += max(back.Cap-e.open, 0)
			e.open = max(e.open-back.Cap, 0) // the rest is taken for spent
		}
		r.demand -= e.demand
		level := min(e.level, keep.Cap)
		r.level += level - e.level
		e.Share, e.demand, e.level = keep, 0, level
		if s == nil {
			delete(r.entries, t)
			r.short = slices.DeleteFunc(r.short, func(s uint64) bool { return s == t })
		}
	}
}

// settle writes down what the sidecar says it holds. What it held before beyond
// that is free, with the tokens it left in. It never holds more than it did: a
// Request that was held up may speak of a share that has lapsed since.
func (r *record) settle(e *entry, it *rl.Item) {
	held := rl.Share{Rate: min(it.Held.Rate, e.Rate), Cap: min(it.Held.Cap, e.Cap)}
	back, returned := e.Cap-held.Cap, it.Returned
	switch {
	case r.kind == rl.Concurrency:
		returned = back // calls under way stay with whoever holds them
	case r.kind.Calendar():
		if returned = back - (it.Spent - e.spent); it.Spent < 0 {
			returned = 0
		}
	}
	r.rate += e.Rate - held.Rate
	r.cap += back
	if !it.Standing || !r.kind.Calendar() {
		returned = max(returned, 0)
	} // else it spent from a part that was larger then: what is missing is missing
	if !r.kind.Calendar() {
		returned = min(returned, back)
	} // else what is less spent than was said comes back although it was taken out before
	r.tok = min(r.tok+returned, r.cap)
	r.demand += it.Demand - e.demand
	level := min(it.Level, held.Cap)
	r.level += level - e.level
	*e = entry{Share: held, demand: it.Demand, level: level, spent: max(it.Spent, 0), open: it.Open, idle: it.Idle}
}

// count counts subjects, and tells which were counted before: the sidecar then
// takes back that it spent a token. What it counted in a Request that it sends
// again is not known before. Unlike redisshare it counts exactly, however many.
func (r *record) count(tenure uint64, it *rl.Item, out *rl.ItemReply) {
	for i, h := range it.Subjects {
		by, known := r.subjects[h]
		if known = known && (by != tenure || i >= it.Again); !known {
			r.subjects[h] = tenure
		}
		out.Known = append(out.Known, known)
	}
}

// lend gives what the sidecar asks for and may have.
func (r *record) lend(e *entry, it *rl.Item, out *rl.ItemReply) (tokens int64) {
	out.Target = e.Rate
	if r.demand > 0 && it.Demand > 0 {
		out.Target = int64(float64(r.total.Rate) * (float64(it.Demand) / float64(r.demand)))
	}
	// Its part of the whole rate by its part of the demand, as far as it has use for
	// it: while others have not said theirs that is too much. But with room to
	// refill, what nobody holds would be lost.
	due := out.Target
	if r.room() < r.total.Cap/8 && it.Ask == 0 {
		due = min(due, it.Demand+it.Demand/2)
	}
	rate := min(due-e.Rate, r.rate)
	if it.Idle && r.demand == 0 && r.room() > 0 && r.kind == rl.Rate {
		// Nobody uses the limit, and it is not whole yet: somebody must fill it.
		rate = r.rate
	}
	rate = max(rate, 0)

	part := 0.5
	if r.demand > 0 {
		part = max(part, float64(it.Demand)/float64(r.demand))
	}
	if r.kind.Calendar() {
		part /= 2 // ever less as the end nears
	}
	bound := int64(float64(r.tok) * part)
	bound -= bound % rl.Micro
	tokens = max(min(it.Ask, max(bound, rl.Micro), r.tok), 0)
	if r.kind != rl.Rate {
		tokens -= tokens % rl.Micro
	}
	var room int64
	if r.kind == rl.Rate {
		want := it.AskCap
		if rate > 0 && it.Idle {
			want = r.room()
		}
		room = min(max(want, 0), r.room())
	}
	e.Rate += rate
	more := max(tokens-it.Into, 0) + room // tokens come into what is kept empty for them
	e.Cap += more
	e.level += tokens
	e.idle = e.idle && rate == 0 && tokens+room == 0
	r.rate, r.cap, r.tok = r.rate-rate, r.cap-more, r.tok-tokens
	r.level += tokens
	return tokens
}

// room is the empty capacity that nobody holds. A limit made smaller may have
// lent more than it has by now.
func (r *record) room() int64 { return max(r.cap-max(r.tok, 0), 0) }

// shortage notes who holds less than it should, and asks the others when told to.
func (p *Pool) shortage(key rl.HotLimit, r *record, tenure uint64, e *entry, it *rl.Item, granted int64) {
	var due float64
	if r.demand > 0 {
		due = min(float64(r.total.Rate)*(float64(it.Demand)/float64(r.demand)), float64(it.Demand))
	}
	short := r.kind == rl.Rate && float64(e.Rate) < 0.8*due || granted < it.Ask/2
	i := slices.Index(r.short, tenure)
	switch {
	case short:
		if i < 0 {
			r.short = append(r.short, tenure)
		}
	case i >= 0:
		r.short = slices.Delete(r.short, i, i+1)
	}
	if it.Nag {
		p.notify(rl.Notice{ID: key.ID, Period: key.Period, Epoch: r.epoch, Kind: r.kind, Version: r.version, Total: r.total, Demand: r.demand})
		p.ring(rl.Hint{ID: key.ID, Period: key.Period, Demand: r.demand})
	}
}

// worth tells whether there is enough to wake somebody for.
func (r *record) worth() bool {
	if r.kind != rl.Rate {
		return r.tok >= rl.Micro
	}
	return r.rate > r.total.Rate/20 || r.tok >= max(r.total.Cap/40, rl.Micro)
}

// cold tells whether the limit is whole and nobody uses it.
func (r *record) cold() bool {
	if r.kind.Calendar() || r.demand != 0 || r.tok != r.cap {
		return false
	}
	for _, e := range r.entries {
		if !e.idle && !e.implied {
			return false
		}
	}
	return true
}

func (p *Pool) ring(h rl.Hint) {
	for _, ring := range p.rings {
		ring(h)
	}
}

func (p *Pool) notify(n rl.Notice) {
	p.notice++
	n.Seq = p.notice
	p.notices = append(p.notices, n)
	if len(p.notices) > NoticesMax {
		p.notices = slices.Delete(p.notices, 0, len(p.notices)-NoticesMax)
	}
}

// Records is how many limits are in use.
func (p *Pool) Records() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.records)
}

// Check tells of any limit of which more is lent, or free, than there is.
func (p *Pool) Check() (wrong []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range slices.SortedFunc(maps.Keys(p.records), func(a, b rl.HotLimit) int { return cmp.Compare(a.ID, b.ID) }) {
		r := p.records[key]
		rate, capacity := r.rate, r.cap
		for _, e := range r.entries {
			rate, capacity = rate+e.Rate, capacity+e.Cap
		}
		if rate != r.total.Rate || capacity != r.total.Cap || r.tok > r.cap {
			wrong = append(wrong, key.ID)
		}
	}
	return wrong
}

// Free is what of a limit is neither held nor owed.
func (p *Pool) Free(id, period string) (s rl.Share, tokens int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.records[rl.HotLimit{ID: id, Period: period}]
	if r == nil {
		return s, 0
	}
	return rl.Share{Rate: r.rate, Cap: r.cap}, r.tok
}
