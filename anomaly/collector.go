package anomaly

import (
	"cmp"
	"encoding/hex"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// CollectorConfig bounds a Collector. The zero value of a field takes the default.
type CollectorConfig struct {
	// Subjects is how many are told apart between two reports; what others do is
	// counted in Lost. A subject costs 0.4 to 4 KiB. Default 8192.
	Subjects int
	// Open is how many allowed calls may wait for their access-log entry, 72
	// bytes each. Default 65536.
	Open int
	// Zone is where off-hours are told by. Default UTC.
	Zone *time.Location
}

// Collector counts, in a sidecar and off its request path, what every subject
// does, and hands the counts over in Reports. Safe for concurrent use.
type Collector struct {
	cfg       CollectorConfig
	protected atomic.Pointer[map[Hash]struct{}]
	lost      atomic.Uint64
	unmatched atomic.Uint64

	mu        sync.Mutex
	tallies   map[Subject]*Tally
	fields    fieldCounts
	strangers int            // of them networks
	open      map[uint64]who // allowed calls lately
	before    map[uint64]who // and those before
	early     []Finished     // that came before their observation
	waited    int            // so many of early were there at the last report
	offAt     int64          // the quarter of an hour offHours was found for
	offHours  bool
}

// who is whom a call counts for.
type who struct {
	product, app string
	subscription Hash
	stranger     Hash // the network, of a call that names nobody
}

// earlyMax bounds the access-log entries that wait for their decision's record:
// those come every 200 ms.
const earlyMax = 4096

// NewCollector makes a Collector.
func NewCollector(cfg CollectorConfig) *Collector {
	cfg.Subjects = cmp.Or(cfg.Subjects, 8192)
	cfg.Open = cmp.Or(cfg.Open, 65536)
	if cfg.Zone == nil {
		cfg.Zone = time.UTC
	}
	c := &Collector{cfg: cfg, tallies: map[Subject]*Tally{}, fields: fieldCounts{}, open: map[uint64]who{}, before: map[uint64]who{}}
	c.Protect(nil)
	return c
}

// Protect replaces the protected clients: whoever concerns one of them is counted.
func (c *Collector) Protect(hashes []Hash) {
	m := make(map[Hash]struct{}, len(hashes))
	for _, h := range hashes {
		m[h] = struct{}{}
	}
	c.protected.Store(&m)
}

// Lost is how many calls were not counted for want of room.
func (c *Collector) Lost() uint64 { return c.lost.Load() }

// Unmatched is how many access-log entries found no decision they belong to.
func (c *Collector) Unmatched() uint64 { return c.unmatched.Load() }

// Observe counts some calls.
func (c *Collector) Observe(batch []Observation) {
	protected := *c.protected.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range batch {
		o := &batch[i]
		off := c.off(o.At)
		_, p := protected[o.Person]
		if _, q := protected[o.Client]; q {
			p = true
		}
		w := who{product: o.Product, app: o.ClientApp, subscription: o.Subscription}
		if o.Product == "" && o.ClientApp == "" {
			w.stranger = o.Source
		}
		c.each(w, func(t *Tally) { t.observe(o, off, p) })
		if o.Outcome == Allowed {
			if !c.fields.observe(o) {
				c.lost.Add(1)
			}
			if len(c.open) >= c.cfg.Open/2 {
				c.before, c.open = c.open, make(map[uint64]who, len(c.open))
			}
			c.open[o.Decision] = w
		}
	}
	c.settleEarly()
}

// Finish counts how an allowed call ended.
func (c *Collector) Finish(f Finished) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settle(&f) {
		return
	}
	if len(c.early) >= earlyMax {
		c.unmatched.Add(1)
		return
	}
	c.early = append(c.early, f)
}

func (c *Collector) settle(f *Finished) bool {
	in := c.open
	w, ok := in[f.Decision]
	if !ok {
		in = c.before
		w, ok = in[f.Decision]
	}
	if ok {
		delete(in, f.Decision)
		c.each(w, func(t *Tally) { t.finish(f) })
	}
	return ok
}

// settleEarly tries again the entries that came before their decision; those
// that are still without one wait for one report at most.
func (c *Collector) settleEarly() {
	if len(c.early) > 0 {
		i, kept := 0, c.waited
		c.early = slices.DeleteFunc(c.early, func(f Finished) bool {
			done := c.settle(&f)
			if done && i < c.waited {
				kept--
			}
			i++
			return done
		})
		c.waited = kept
	}
}

// each visits the tallies of a call's subjects.
func (c *Collector) each(w who, f func(*Tally)) {
	lost := false
	visit := func(s Subject) {
		t := c.tallies[s]
		if t == nil {
			if !c.room(s.Kind) {
				lost = true
				return
			}
			t = &Tally{}
			c.strangers += b2i(s.Kind == Network)
			c.tallies[s] = t
		}
		if s.Kind != Product && len(w.product) <= subjectIDMax {
			t.of = w.product
		}
		f(t)
	}
	if w.product != "" && len(w.product) <= subjectIDMax {
		visit(Subject{Product, w.product})
	}
	if w.app != "" && len(w.app) <= subjectIDMax {
		visit(Subject{ClientApp, w.app})
	}
	if !w.subscription.zero() {
		visit(Subject{Subscription, hex.EncodeToString(w.subscription[:])})
	}
	if !w.stranger.zero() {
		visit(Subject{Network, hex.EncodeToString(w.stranger[:])})
	}
	if lost {
		c.lost.Add(1)
	}
}

// room tells whether there is some for one more subject. Networks, which anybody
// can come from, take no more than a quarter of it.
func (c *Collector) room(k Kind) bool {
	if k == Network && c.strangers >= c.cfg.Subjects/4 {
		return false
	}
	return len(c.tallies) < c.cfg.Subjects
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// off tells whether an instant is out of hours. It is asked for almost the same
// one again and again.
func (c *Collector) off(at int64) bool {
	if quarter := at / 900; quarter != c.offAt {
		c.offAt = quarter
		t := time.Unix(at, 0).In(c.cfg.Zone)
		day := t.Weekday()
		c.offHours = t.Hour() >= 22 || t.Hour() < 6 || day == time.Saturday || day == time.Sunday
	}
	return c.offHours
}

// Take hands over what was counted and begins anew. The subjects come in order.
func (c *Collector) Take() []SubjectTally {
	c.mu.Lock()
	taken := c.tallies
	c.tallies, c.strangers = make(map[Subject]*Tally, len(taken)), 0
	c.settleEarly()
	c.unmatched.Add(uint64(c.waited))
	c.early = slices.Delete(c.early, 0, c.waited)
	c.waited = len(c.early)
	c.mu.Unlock()
	out := make([]SubjectTally, 0, len(taken))
	for s, t := range taken {
		out = append(out, SubjectTally{s, *t})
	}
	slices.SortFunc(out, func(a, b SubjectTally) int { return compareSubjects(a.Subject, b.Subject) })
	return out
}

// PutBack adds what was taken and could not be sent to what is counted now.
func (c *Collector) PutBack(taken []SubjectTally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range taken {
		s := &taken[i]
		t := c.tallies[s.Subject]
		if t == nil {
			if !c.room(s.Subject.Kind) {
				c.lost.Add(s.Tally.Count[Requests])
				continue
			}
			t = &Tally{}
			c.tallies[s.Subject] = t
			c.strangers += b2i(s.Subject.Kind == Network)
		}
		t.Merge(&s.Tally)
	}
}
