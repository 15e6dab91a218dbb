package authz

import (
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
)

// Limits finds what a call has to pay, and pays it: from every limit that
// applies, or from none. Which limits those are depends on the register alone,
// so it is worked out once for the calls of one app to one service and kept.
// Safe for concurrent use; a call that is like one before takes no lock of this
// type and does not allocate.
type Limits struct {
	limiter *ratelimit.Limiter
	seed    maphash.Seed
	sets    []planSet // of a fixed number: what is kept is bounded
	zones   sync.Map  // string → *time.Location; as many as the register names

	refused, shadow [registry.LimitClients + 1]atomic.Uint64
	unpayable       atomic.Uint64
}

// Bounds of what is kept.
const (
	planWays    = 4
	planSetsMax = 4096
)

type planSet [planWays]atomic.Pointer[Plan]

// NewLimits spends by a limiter.
func NewLimits(l *ratelimit.Limiter) *Limits {
	return &Limits{limiter: l, seed: maphash.MakeSeed(), sets: make([]planSet, planSetsMax)}
}

// Plan is what the calls of one app to one service pay. Immutable.
type Plan struct {
	key planKey
	// Items are in the order of Decision.Spent's states.
	Items  []PlanItem
	limits []*ratelimit.Limit
	// unpayable: there are more limits than a call can pay at once, or one that
	// cannot be counted here. It is refused: to pass it would be to forget a limit.
	unpayable bool
}

// planKey is all that a plan depends on. The pointers are into the View: a
// record that changed is another.
type planKey struct {
	limits  registry.Revision
	app     *registry.ClientApp
	product *registry.Product
	service *registry.Service
	ssid    string
	// throttles are most often none; each is paid like a limit.
	throttles registry.Throttles
}

// PlanItem is one limit of a plan.
type PlanItem struct {
	registry.Applied
	// Account is whose limit it is, and its name: product:FP-1003:day.
	Account string
	// Shown is what the caller knows it by: its name, or product:day where another
	// subject of the call has a limit of that name too. Policy is its member of
	// RateLimit-Policy, Quoted the beginning of its member of RateLimit
	// (draft-ietf-httpapi-ratelimit-headers-10 §3, §4): Shown as a String of RFC 9651.
	Shown, Policy, Quoted string
	// Throttle is the suspension that the limit stands for, nil for a limit of the
	// register.
	Throttle *registry.Suspension
}

// LimitCounts says how often limits refused, by kind of limit, for metrics.
type LimitCounts struct {
	Refused, Shadow map[registry.LimitKind]uint64
	Unpayable       uint64 // calls refused because their limits could not all be paid
}

// Counts reads the counters.
func (x *Limits) Counts() LimitCounts {
	c := LimitCounts{Refused: map[registry.LimitKind]uint64{}, Shadow: map[registry.LimitKind]uint64{}, Unpayable: x.unpayable.Load()}
	for k := registry.LimitRate; k <= registry.LimitClients; k++ {
		c.Refused[k], c.Shadow[k] = x.refused[k].Load(), x.shadow[k].Load()
	}
	return c
}

// pay spends the call from all its limits. A nil Limits has none.
func (x *Limits) pay(view *registry.View, d *Decision, elapsed time.Duration, now time.Time) Reason {
	if x == nil {
		return OK
	}
	p := x.plan(view, d)
	if p.unpayable {
		x.unpayable.Add(1)
		return RateLimited
	}
	if len(p.limits) == 0 {
		return OK
	}
	d.Plan = p
	q := ratelimit.Query{Elapsed: elapsed, Now: now, Subject: d.SubjectHash}
	passed := x.limiter.Spend(&q, p.limits, &d.Spent)
	for i, st := range d.Spent.States() {
		item := &p.Items[i]
		switch {
		case st.Refused && item.Shadow:
			x.shadow[item.Kind].Add(1)
			if d.Shadowed == nil {
				d.Shadowed = item
			}
		case st.Limit == d.Spent.Refused:
			d.Refused = item
		}
	}
	if passed {
		return OK
	}
	d.RetryAfter = max(d.Spent.RetryAfter, time.Millisecond)
	x.refused[d.Refused.Kind].Add(1)
	if t := d.Refused.Throttle; t != nil {
		d.Suspension = t
		if t.Automatic {
			return AnomalyThrottled
		}
		return RateLimited
	}
	switch {
	case !exhausted(d):
		return RateLimited // there is some left, with other sidecars: it is on its way
	case d.Refused.Kind == registry.LimitClients:
		return ClientFanoutExhausted
	case d.Refused.Kind == registry.LimitQuota && d.Refused.Stage == registry.StagePVT:
		return PVTQuotaExhausted
	case d.Refused.Kind == registry.LimitQuota:
		return QuotaExhausted
	}
	return RateLimited
}

// exhausted tells whether the limit that refused has nothing left anywhere, as
// far as is known here.
func exhausted(d *Decision) bool {
	for _, st := range d.Spent.States() {
		if st.Limit == d.Spent.Refused {
			return st.Remaining == 0
		}
	}
	return true
}

// plan finds the plan of a call, or makes it.
func (x *Limits) plan(view *registry.View, d *Decision) *Plan {
	key := planKey{view.LimitsRevision(), d.App, d.Product, d.Service, d.SSID, d.throttles}
	h := maphash.Comparable(x.seed, key)
	set := &x.sets[h%uint64(len(x.sets))]
	for i := range set {
		if p := set[i].Load(); p != nil && p.key == key {
			return p
		}
	}
	// The SSID may be a piece of a token that is about to be forgotten.
	key.ssid = string([]byte(key.ssid))
	p := x.makePlan(view, key, d)
	place := h >> 32 % planWays
	for i := range set {
		if held := set[i].Load(); held == nil || held.key.limits != key.limits {
			place = uint64(i) // of an older register, as good as free
			break
		}
	}
	set[place].Store(p)
	return p
}

func (x *Limits) makePlan(view *registry.View, key planKey, d *Decision) *Plan {
	q := registry.LimitQuery{App: key.app, Product: key.product, Service: key.service, SSID: key.ssid, Environment: d.Environment}
	if e := key.product.Entitled(key.service.Key, d.Environment); e != nil {
		q.Stage = e.Stage
	}
	p := &Plan{key: key}
	concurrent := 0
	for _, a := range view.AppendLimits(nil, &q) {
		l, ok := x.limit(view, a, key.product.ID)
		if a.Kind == registry.LimitConcurrency {
			concurrent++
		}
		p.unpayable = p.unpayable || !ok || len(p.limits) == ratelimit.LimitsMax || concurrent > ratelimit.HoldsMax
		p.limits = append(p.limits, l)
		p.Items = append(p.Items, NewPlanItem(a))
	}
	for _, t := range key.throttles {
		if t == nil {
			continue
		}
		l, item, ok := throttle(t)
		p.unpayable = p.unpayable || !ok || len(p.limits) == ratelimit.LimitsMax
		p.limits, p.Items = append(p.limits, l), append(p.Items, item)
	}
	p.tellApart()
	return p
}

// tellApart gives limits of one name names of their own: the headers join a
// policy and its state by the name alone.
func (p *Plan) tellApart() {
	taken := map[string]bool{}
	for i := range p.Items {
		item := &p.Items[i]
		if item.Shadow {
			continue // the headers do not tell of it
		}
		for n := 1; taken[item.Shown]; n++ {
			item.show(item.Of.Kind.String() + ":" + item.Name + strings.Repeat("+", n-1))
		}
		taken[item.Shown] = true
	}
}

func (i *PlanItem) show(name string) {
	rest := i.Policy[len(i.Quoted):]
	i.Shown, i.Quoted = name, strconv.Quote(name)
	i.Policy = i.Quoted + rest
}

// throttleName is what the RateLimit headers call a throttle.
const throttleName = "throttle"

// throttle makes of a suspension that throttles the rate that it is: one bucket
// for all sidecars, of a second's worth. Each has an account of its own, since
// one that ends may leave another in force.
func throttle(s *registry.Suspension) (*ratelimit.Limit, PlanItem, bool) {
	a := registry.Applied{Of: s.Subject, Limit: &registry.Limit{
		ID: registry.LimitID(s.Subject, throttleName), Subject: s.Subject, Name: throttleName,
		Kind: registry.LimitRate, Amount: s.Rate, Burst: max(s.Rate, 2), // with one, the second of two sidecars would have nothing to give
	}}
	l, _ := LimitOf(a, nil)
	l.ID, l.Version = registry.LimitID(s.Subject, s.ID), uint64(s.Revision)
	item := NewPlanItem(a)
	item.Throttle = s
	return l, item, l.Validate() == nil
}

// limit makes what the limiter needs to know of a limit; false when it cannot
// be counted here.
func (x *Limits) limit(view *registry.View, a registry.Applied, product string) (*ratelimit.Limit, bool) {
	zone, ok := x.zone(a.Zone)
	l, known := LimitOf(a, zone)
	l.Version = uint64(view.AppliedRevision(a, product))
	return l, ok && known
}

// LimitOf is a limit of the register as the limiter counts it, for one account;
// its Version is not set. ok is false for a kind that is not known here. One
// whose kind changes is counted anew: nothing that was used of the one is used of
// the other, and the limiter keeps to the kind that it first knew an ID by.
func LimitOf(a registry.Applied, zone *time.Location) (l *ratelimit.Limit, ok bool) {
	l = &ratelimit.Limit{ID: a.Account(), Zone: zone, Shadow: a.Shadow}
	switch {
	case a.Kind == registry.LimitRate:
		l.Kind, l.Rate, l.Burst = ratelimit.Rate, float64(a.Amount), a.Burst
	case a.Kind == registry.LimitConcurrency:
		l.Kind, l.Amount = ratelimit.Concurrency, a.Amount
	case a.Kind == registry.LimitQuota && a.Period == registry.PeriodDay:
		l.Kind, l.Amount = ratelimit.QuotaDay, a.Amount
	case a.Kind == registry.LimitQuota && a.Period == registry.PeriodMonth:
		l.Kind, l.Amount = ratelimit.QuotaMonth, a.Amount
	case a.Kind == registry.LimitClients:
		l.Kind, l.Amount = ratelimit.DistinctDay, a.Amount
	default:
		return l, false
	}
	l.ID += kindMark + l.Kind.String()
	return l, l.Validate() == nil
}

// kindMark stands before the kind in a limit's ID; no account's name holds it.
const kindMark = "/"

// AccountOf is the account that a limit made by LimitOf is spent from.
func AccountOf(l *ratelimit.Limit) string {
	account, _, _ := strings.Cut(l.ID, kindMark)
	return account
}

func (x *Limits) zone(name string) (*time.Location, bool) {
	if name == "" {
		return nil, true
	}
	if z, ok := x.zones.Load(name); ok {
		return z.(*time.Location), true
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, false
	}
	x.zones.Store(name, z)
	return z, true
}

// The windows of RateLimit-Policy, in seconds. A month is stated as 31 days; the
// t of RateLimit says when the present one ends.
const (
	windowDay   = 86400
	windowMonth = 31 * windowDay
)

// NewPlanItem writes what the headers say of a limit.
func NewPlanItem(a registry.Applied) PlanItem {
	item := PlanItem{Applied: a, Account: a.Account(), Shown: a.Name, Quoted: strconv.Quote(a.Name)}
	n := func(i int64) string { return strconv.FormatInt(i, 10) }
	switch a.Kind {
	case registry.LimitRate:
		// A bucket of burst that fills within the window.
		item.Policy = item.Quoted + ";q=" + n(a.Burst) + ";w=" + n(max(1, (a.Burst+a.Amount-1)/a.Amount))
	case registry.LimitConcurrency:
		item.Policy = item.Quoted + ";q=" + n(a.Amount) + `;qu="concurrent-requests"`
	case registry.LimitClients:
		item.Policy = item.Quoted + ";q=" + n(a.Amount) + `;qu="clients";w=` + n(windowDay)
	case registry.LimitQuota:
		w := int64(windowDay)
		if a.Period == registry.PeriodMonth {
			w = windowMonth
		}
		item.Policy = item.Quoted + ";q=" + n(a.Amount) + ";w=" + n(w)
	}
	return item
}

// TightestFirst puts the indices of the limits that may refuse into order, the
// one that refused first, then the one with the least left, and returns how many
// there are. Shadow limits are not among them: a caller is not to heed them.
func (d *Decision) TightestFirst(order *[ratelimit.LimitsMax]uint8) int {
	if d.Plan == nil {
		return 0
	}
	states := d.Spent.States()
	n := 0
	for i := range states {
		if d.Plan.Items[i].Shadow {
			continue
		}
		at := n
		for at > 0 && tighter(d, &states[i], &states[order[at-1]]) {
			order[at] = order[at-1]
			at--
		}
		order[at] = uint8(i)
		n++
	}
	return n
}

func tighter(d *Decision, a, b *ratelimit.State) bool {
	switch {
	case a.Limit == d.Spent.Refused || b.Limit == d.Spent.Refused:
		return a.Limit == d.Spent.Refused && a.Limit != nil && a.Limit != b.Limit
	case a.Refused != b.Refused:
		return a.Refused
	case a.Remaining != b.Remaining:
		return a.Remaining < b.Remaining
	}
	return a.Reset > b.Reset
}
