// Package replay asks of calls in an access log what today's register, limits
// and policies would have made of them.
//
// A Replay is fed one recorded call after the other, in about the order they
// came in, and takes the same steps as the real thing, by the same code: the
// register's standing, the limits of every account, the counting of sidecars,
// the fleet's watcher, the policies. Time is that of the log. Memory is bounded
// whatever the log holds.
//
// What an access log does not hold is not asked: tokens and certificates are
// taken to be as good as they were, networks and clients are not told apart, and
// limits on calls at once are passed by. A call that was refused then is asked about
// likewise, and spends from today's limits if it would pass; what hung on the token,
// or on something else that a log does not hold, is said not to be known.
package replay

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
)

// Bounds of what is kept.
const (
	accountsMax = 100_000
	shownMax    = 1000 // alarms, and policies' findings, each
	namesMax    = 100_000
)

// Report is what would have happened. Times are the log's.
type Report struct {
	From  registry.Time     `json:"from,omitempty"`
	To    registry.Time     `json:"to,omitempty"`
	Calls uint64            `json:"calls"`
	Then  map[string]uint64 `json:"then"` // by code, as they were decided
	Now   map[string]uint64 `json:"now"`  // of those allowed then, by code
	// Refused are the calls refused then, by product, the most first.
	Refused  []Rejudged        `json:"refused_then"`
	Shadow   uint64            `json:"limited_in_shadow"`
	Products []Product         `json:"products"`
	Signals  map[string]uint64 `json:"signals"` // by name
	Alarms   []Told            `json:"alarms"`
	Policies []Acted           `json:"policies"`
	// Fields says which that monitoring needs were missing in calls that were let
	// through, by product and service, the most first.
	Fields []Fields `json:"fields"`
	// Incomplete: there was more than is kept, so that figures by account or
	// product are too low.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Product is one whose calls would fare otherwise, or that strays.
type Product struct {
	ID        string            `json:"product_id"`
	Calls     uint64            `json:"calls"`
	Allowed   uint64            `json:"allowed_then"`
	Refused   map[string]uint64 `json:"refused_now,omitempty"` // of those allowed then, by code
	Limits    map[string]uint64 `json:"limits,omitempty"`      // by account of the limit that refuses
	Suspended string            `json:"suspension_id,omitempty"`
	Alarms    uint64            `json:"alarms,omitempty"`
}

// Rejudged is what calls of a product that were refused then would meet.
type Rejudged struct {
	Product string `json:"product_id,omitempty"`
	Then    string `json:"then"`          // code
	Now     string `json:"now,omitempty"` // code; "" where nobody can tell
	Calls   uint64 `json:"calls"`
	Why     string `json:"why"` // it is otherwise, is not, or cannot be told
}

// Told is an alarm.
type Told struct {
	At      registry.Time `json:"at"`
	Subject string        `json:"subject"` // KIND:ID
	Signal  string        `json:"signal"`
	Text    string        `json:"text"`
}

// Acted is what a policy would have done.
type Acted struct {
	At      registry.Time `json:"at"`
	Policy  string        `json:"policy"`
	Version int           `json:"version"`
	Shadow  bool          `json:"shadow"`
	Do      policy.Do     `json:"do"`
	Subject string        `json:"subject"`
	Until   registry.Time `json:"until,omitempty"`
	Calls   uint64        `json:"calls_touched"` // of the subject's product, until then
	Reasons []string      `json:"reasons"`
}

// Fields are the calls of a product to a service, and how many of them lack
// what.
type Fields struct {
	Product string            `json:"product_id,omitempty"`
	Service string            `json:"service,omitempty"`
	Calls   uint64            `json:"calls"`
	Missing map[string]uint64 `json:"missing"` // by the access log's name
}

// Config is what calls are held against.
type Config struct {
	View *registry.View
	// Policies are all versions to evaluate, those in shadow too.
	Policies []policy.Active
	Zone     *time.Location // of off-hours and rhythms
	// At is the instant whose register is asked: suspensions that have ended by
	// then do not count.
	At registry.Time
}

// Replay is one replay. Not safe for concurrent use.
type Replay struct {
	cfg       Config
	hasher    *authz.SubjectHasher
	apps      map[appKey]*registry.ClientApp
	zones     map[string]*time.Location
	limiter   *ratelimit.Limiter
	accounts  map[string]*ratelimit.Limit
	room      []registry.Applied
	limits    []*ratelimit.Limit
	collector *anomaly.Collector
	watcher   *anomaly.Watcher
	policies  *policy.Evaluator
	products  map[string]*Product
	fields    map[fieldsKey]*Fields
	refused   map[rejudgedKey]uint64
	began     time.Time
	latest    time.Time
	minute    int64
	serial    uint64
	out       Report
}

type fieldsKey struct{ product, service string }

type rejudgedKey struct {
	product string
	then    authz.Reason
	now     authz.Reason
	told    bool
}

type appKey struct {
	product     string
	environment registry.Environment
}

// New makes a Replay.
func New(cfg Config) (*Replay, error) {
	if cfg.Zone == nil {
		cfg.Zone = time.UTC
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, err
	}
	hasher, err := authz.NewSubjectHasher(key[:])
	if err != nil {
		return nil, err
	}
	r := &Replay{
		cfg: cfg, hasher: hasher, apps: map[appKey]*registry.ClientApp{}, zones: map[string]*time.Location{}, limiter: ratelimit.Solo(),
		accounts: map[string]*ratelimit.Limit{}, products: map[string]*Product{}, fields: map[fieldsKey]*Fields{}, refused: map[rejudgedKey]uint64{}, policies: policy.NewEvaluator(cfg.Policies...),
		collector: anomaly.NewCollector(anomaly.CollectorConfig{Zone: cfg.Zone}), watcher: anomaly.NewWatcher(anomaly.WatcherConfig{Zone: cfg.Zone}),
		out: Report{Then: map[string]uint64{}, Now: map[string]uint64{}, Signals: map[string]uint64{}, Products: []Product{}, Fields: []Fields{}, Refused: []Rejudged{}, Alarms: []Told{}, Policies: []Acted{}},
	}
	for _, e := range cfg.View.ClientApps() {
		k := appKey{e.Value.ProductID, e.Value.Environment}
		if a := r.apps[k]; a == nil || a.Disabled {
			r.apps[k] = &e.Value
		}
	}
	return r, nil
}

// Add replays one call.
func (r *Replay) Add(c *authz.Recorded) {
	if r.began.IsZero() {
		r.began, r.out.From = c.At, registry.At(c.At)
	}
	if c.At.After(r.latest) {
		r.latest = c.At
	}
	r.advance(r.latest)
	r.out.Calls++
	r.out.Then[c.Reason.String()]++
	app := r.apps[appKey{c.Product, c.Environment}]
	p := r.product(c.Product)
	if p != nil {
		p.Calls++
	}
	if c.Reason == authz.OK {
		r.lacks(c)
		reason := r.now(c, app, p)
		r.out.Now[reason.String()]++
		if p != nil {
			p.Allowed++
			if reason != authz.OK {
				count(&p.Refused, reason.String())
			}
		}
	}
	if c.Reason != authz.OK {
		r.rejudge(c, app, p)
	}
	r.observe(c, app)
	r.touch(c)
}

// rejudge asks of a call that was refused what it would meet.
func (r *Replay) rejudge(c *authz.Recorded, app *registry.ClientApp, p *Product) {
	k := rejudgedKey{then: c.Reason}
	if p != nil {
		k.product = p.ID
	}
	if c.Judged(r.cfg.View) {
		k.now, k.told = r.now(c, app, p), true
	}
	if _, ok := r.refused[k]; !ok && len(r.refused) >= namesMax {
		r.out.Incomplete = true
		return
	}
	r.refused[k]++
}

// view is the line of the report.
func (k rejudgedKey) view(calls uint64) Rejudged {
	x := Rejudged{Product: k.product, Then: k.then.String(), Calls: calls}
	if !k.told {
		x.Why = "what it hung on is not in the log: the token, the certificate, a client or the sidecar"
		return x
	}
	x.Now = k.now.String()
	limited := k.then.Status() == 429
	switch {
	case k.now == authz.OK && limited:
		x.Why = "today's limits would let it pass; of calls at once nothing is known"
	case k.now == authz.OK:
		x.Why = "what stood against it does so no longer: " + k.then.Title()
	case k.now == k.then:
		x.Why = "for the same reason: " + k.then.Title()
	default:
		x.Why = "for another reason: " + k.now.Title()
	}
	return x
}

// lacks notes which fields that monitoring needs a call does not have.
func (r *Replay) lacks(c *authz.Recorded) {
	k := fieldsKey{c.Product, c.Service}
	f := r.fields[k]
	if f == nil {
		if len(r.fields) >= namesMax || len(c.Product)+len(c.Service) > 256 {
			r.out.Incomplete = true
			return
		}
		f = &Fields{Product: c.Product, Service: c.Service}
		r.fields[k] = f
	}
	f.Calls++
	service := r.cfg.View.Service(c.Service)
	for _, x := range [...]struct {
		name    string
		missing bool
	}{
		{"decision_id", c.Decision.IsZero()}, {"product_id", c.Product == ""}, {"product_version", c.Version == ""}, {"software_id", c.SSID == ""},
		{"abn", c.Holder == 0}, {"service", c.Service == ""}, {"method", c.Method == ""},
		{"subject_hash", service != nil && service.Subject != (registry.Subject{}) && c.Subject == (authz.Hash{})},
	} {
		if x.missing {
			count(&f.Missing, x.name)
		}
	}
}

func count(m *map[string]uint64, key string) {
	if *m == nil {
		*m = map[string]uint64{}
	}
	if _, ok := (*m)[key]; ok || len(*m) < shownMax {
		(*m)[key]++
	}
}

func (r *Replay) product(id string) *Product {
	if id == "" || len(id) > 128 {
		return nil
	}
	p := r.products[id]
	if p == nil {
		if len(r.products) >= namesMax {
			r.out.Incomplete = true
			return nil
		}
		p = &Product{ID: id}
		r.products[id] = p
	}
	return p
}

// now is what a call that was allowed would meet.
func (r *Replay) now(c *authz.Recorded, app *registry.ClientApp, p *Product) authz.Reason {
	reason, suspension := c.Now(r.cfg.View, app, r.cfg.At)
	if suspension != nil && p != nil {
		p.Suspended = suspension.ID
	}
	if reason != authz.OK {
		return reason
	}
	return r.pay(c, app, p)
}

// pay spends the call from its limits.
func (r *Replay) pay(c *authz.Recorded, app *registry.ClientApp, p *Product) authz.Reason {
	q := registry.LimitQuery{App: app, Product: r.cfg.View.Product(app.ProductID), Service: r.cfg.View.Service(c.Service), Environment: c.Environment, SSID: c.SSID}
	if e := q.Product.Entitled(q.Service.Key, q.Environment); e != nil {
		q.Stage = e.Stage
	}
	r.room, r.limits = r.cfg.View.AppendLimits(r.room[:0], &q), r.limits[:0]
	kinds := map[*ratelimit.Limit]registry.LimitKind{}
	for _, a := range r.room {
		if l := r.account(a); l != nil {
			r.limits = append(r.limits, l)
			kinds[l] = a.Kind
		}
	}
	if len(r.limits) == 0 || len(r.limits) > ratelimit.LimitsMax {
		return authz.OK
	}
	var out ratelimit.Outcome
	spend := ratelimit.Query{Elapsed: r.latest.Sub(r.began) + time.Hour, Now: r.latest, Subject: [16]byte(c.Subject)}
	passed := r.limiter.Spend(&spend, r.limits, &out)
	for _, s := range out.States() {
		if s.Refused && s.Limit.Shadow {
			r.out.Shadow++
			break
		}
	}
	if passed {
		return authz.OK
	}
	if p != nil {
		count(&p.Limits, authz.AccountOf(out.Refused))
	}
	switch k := kinds[out.Refused]; {
	case k == registry.LimitClients:
		return authz.ClientFanoutExhausted
	case k == registry.LimitQuota && q.Stage == registry.StagePVT:
		return authz.PVTQuotaExhausted
	case k == registry.LimitQuota:
		return authz.QuotaExhausted
	}
	return authz.RateLimited
}

// account is a limit as the limiter counts it, nil for one that is passed by.
func (r *Replay) account(a registry.Applied) *ratelimit.Limit {
	if a.Kind == registry.LimitConcurrency {
		return nil
	}
	id := a.Account()
	if l := r.accounts[id]; l != nil {
		return l
	}
	if len(r.accounts) >= accountsMax {
		r.out.Incomplete = true
		return nil
	}
	zone, ok := r.zones[a.Zone]
	if !ok && a.Zone != "" {
		if z, err := time.LoadLocation(a.Zone); err == nil {
			zone = z
		}
		r.zones[a.Zone] = zone
	}
	l, ok := authz.LimitOf(a, zone)
	if !ok {
		return nil
	}
	r.accounts[id] = l
	return l
}

// observe has monitoring count the call.
func (r *Replay) observe(c *authz.Recorded, app *registry.ClientApp) {
	r.serial++
	id := ""
	if app != nil {
		id = app.ClientID
	}
	o, f := c.Observation(r.serial, id, r.hasher.Sum)
	r.collector.Observe([]anomaly.Observation{o})
	if o.Outcome == anomaly.Allowed {
		r.collector.Finish(f)
	}
}

// advance closes the minutes that are over.
func (r *Replay) advance(at time.Time) {
	minute := at.Unix() / 60
	if r.minute == 0 {
		r.minute = minute
		r.see(r.watcher.Tick(at)) // opens it
	}
	if minute > r.minute {
		r.close()
		r.minute = minute
	}
}

// close hands the open minute to the watcher.
func (r *Replay) close() {
	from := r.minute * 60
	r.watcher.Merge(&anomaly.Report{Sidecar: "log", From: from, Seconds: 60, Subjects: r.collector.Take()})
	r.see(r.watcher.Tick(time.Unix(from+60+15, 0))) // the watcher's grace
}

func (r *Replay) see(signals []anomaly.Signal) {
	for _, s := range signals {
		r.out.Signals[s.Name.String()]++
		facts := policy.FactsOf(r.cfg.View, s.Subject)
		if s.Name.Alarm() {
			if p := r.products[facts.Product]; p != nil {
				p.Alarms++
			}
			if len(r.out.Alarms) < shownMax {
				r.out.Alarms = append(r.out.Alarms, Told{registry.At(s.At), name(s.Subject), s.Name.String(), s.Text()})
			}
		}
		for _, m := range r.policies.See(s, facts) {
			if len(r.out.Policies) == shownMax {
				r.out.Incomplete = true
				continue
			}
			a := Acted{At: registry.At(m.At), Policy: m.Active.Policy, Version: m.Active.Version, Shadow: m.Active.Shadow, Do: m.Active.Rule.Then.Do, Subject: name(m.Subject), Reasons: m.Reasons}
			if t, ok := m.Target(); ok {
				a.Subject = t.Kind.String() + ":" + t.ID
			}
			if d := m.Active.Rule.Then.Minutes; d > 0 {
				a.Until = registry.At(m.At.Add(time.Duration(d) * time.Minute))
			}
			if r.again(&a) {
				continue
			}
			r.out.Policies = append(r.out.Policies, a)
		}
	}
}

// again tells whether a policy would be acting on the subject already.
func (r *Replay) again(a *Acted) bool {
	return slices.ContainsFunc(r.out.Policies, func(o Acted) bool {
		return o.Policy == a.Policy && o.Version == a.Version && o.Subject == a.Subject && (a.At < o.Until || o.Until == 0 && a.At.Std().Sub(o.At.Std()) < time.Hour)
	})
}

// touch counts the call for the measures it would have met.
func (r *Replay) touch(c *authz.Recorded) {
	if c.Reason != authz.OK || c.Product == "" {
		return
	}
	at := registry.At(c.At)
	for i := range r.out.Policies {
		a := &r.out.Policies[i]
		if at >= a.At && at < a.Until && (a.Subject == "product:"+c.Product || a.Subject == "client-app:"+r.appID(c)) {
			a.Calls++
		}
	}
}

func (r *Replay) appID(c *authz.Recorded) string {
	if a := r.apps[appKey{c.Product, c.Environment}]; a != nil {
		return a.ClientID
	}
	return ""
}

func name(s anomaly.Subject) string { return fmt.Sprintf("%s:%s", s.Kind, s.ID) }

// Report closes the last minute and says what came out. The Replay is done with.
func (r *Replay) Report() *Report {
	if r.minute != 0 {
		r.close()
		r.out.To = registry.At(r.latest)
	}
	for _, p := range r.products {
		r.out.Products = append(r.out.Products, *p)
	}
	refused := func(p *Product) (n uint64) {
		for _, x := range p.Refused {
			n += x
		}
		return n
	}
	slices.SortFunc(r.out.Products, func(a, b Product) int {
		return cmp.Or(cmp.Compare(refused(&b), refused(&a)), cmp.Compare(b.Alarms, a.Alarms), cmp.Compare(a.ID, b.ID))
	})
	for k, n := range r.refused {
		r.out.Refused = append(r.out.Refused, k.view(n))
	}
	slices.SortFunc(r.out.Refused, func(a, b Rejudged) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Product, b.Product), cmp.Compare(a.Then, b.Then), cmp.Compare(a.Now, b.Now))
	})
	for _, f := range r.fields {
		if len(f.Missing) > 0 {
			r.out.Fields = append(r.out.Fields, *f)
		}
	}
	slices.SortFunc(r.out.Fields, func(a, b Fields) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Product, b.Product), cmp.Compare(a.Service, b.Service))
	})
	return &r.out
}
