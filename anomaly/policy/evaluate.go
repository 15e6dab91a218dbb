package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// Facts are what a condition asks of the register about a subject.
type Facts struct {
	Product string // the subject's; "" when it has none
	Owner   registry.ABN
	State   registry.CertState
	Risk    registry.Risk // of the riskiest service it may call in production
	// Subscription is the SSID, of a subscription whose name is known.
	Subscription string
}

// FactsOf looks a subject up in the register. Of a network there are none, nor of
// a subscription; see Names.
func FactsOf(v *registry.View, s anomaly.Subject) Facts {
	id := s.ID
	switch s.Kind {
	case anomaly.ClientApp:
		a := v.ClientApp(s.ID)
		if a == nil {
			return Facts{}
		}
		id = a.ProductID
	case anomaly.Product:
	default:
		return Facts{}
	}
	p := v.Product(id)
	if p == nil {
		return Facts{}
	}
	f := Facts{Product: p.ID, Owner: p.Owner, State: p.Certification.State}
	for i := range p.Entitlements {
		e := &p.Entitlements[i]
		if s := v.Service(e.Service); s != nil && e.Environment == registry.PROD {
			f.Risk = max(f.Risk, s.Risk)
		}
	}
	return f
}

// Active is a version of a policy that is evaluated.
type Active struct {
	Policy  string
	Version int
	Shadow  bool
	Rule    Rule
}

// Match is a rule that a signal fulfilled.
type Match struct {
	Active  Active
	Subject anomaly.Subject
	Facts   Facts
	// At is when the signal came; First when the first of those that count was.
	At, First time.Time
	// Signals are those that count, by name; Reasons say in words what each was,
	// the latest first.
	Signals []string
	Reasons []string
}

// Evaluator holds signals against rules. It remembers, of a bounded number of
// subjects, what each rule that wants several signs has seen; of the rest it
// remembers nothing. Not safe for concurrent use.
type Evaluator struct {
	active []Active
	seen   map[seenKey]*seen
	clock  int64
}

type seenKey struct {
	policy  string
	version int
	subject anomaly.Subject
}

// seen are the latest signs of one subject for one rule: one of each name.
type seen struct {
	signs []anomaly.Signal
	used  int64
}

// seenMax bounds what is remembered, over all rules; a sign takes some 300 bytes.
const seenMax = 16384

// NewEvaluator evaluates nothing until Set.
func NewEvaluator(active ...Active) *Evaluator {
	e := &Evaluator{seen: map[seenKey]*seen{}}
	e.Set(active)
	return e
}

// Set replaces the rules. What a rule that stays has seen, it keeps.
func (e *Evaluator) Set(active []Active) {
	e.active = slices.Clone(active)
	slices.SortStableFunc(e.active, func(a, b Active) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Version, b.Version))
	})
	keep := map[seenKey]bool{}
	for i := range e.active {
		keep[seenKey{policy: e.active[i].Policy, version: e.active[i].Version}] = true
	}
	for k := range e.seen {
		if !keep[seenKey{policy: k.policy, version: k.version}] {
			delete(e.seen, k)
		}
	}
}

// See holds one signal against every rule, and returns those it fulfils, by
// policy and version. Signals come in the order of their time.
func (e *Evaluator) See(s anomaly.Signal, f Facts) []Match {
	var out []Match
	for i := range e.active {
		a := &e.active[i]
		if !a.Rule.When.counts(&s, &f) {
			continue
		}
		signs := []anomaly.Signal{s}
		if a.Rule.When.Signs > 1 {
			if signs = e.remember(a, s); len(signs) < a.Rule.When.Signs {
				continue
			}
		}
		out = append(out, match(a, s, f, signs))
	}
	return out
}

func match(a *Active, s anomaly.Signal, f Facts, signs []anomaly.Signal) Match {
	m := Match{Active: *a, Subject: s.Subject, Facts: f, At: s.At, First: s.At}
	for i := len(signs) - 1; i >= 0; i-- {
		x := &signs[i]
		if x.At.Before(m.First) {
			m.First = x.At
		}
		m.Signals = append(m.Signals, x.Name.String())
		m.Reasons = append(m.Reasons, x.Text())
	}
	return m
}

// remember notes a sign and returns all that count now, the latest last.
func (e *Evaluator) remember(a *Active, s anomaly.Signal) []anomaly.Signal {
	k := seenKey{a.Policy, a.Version, s.Subject}
	x := e.seen[k]
	if x == nil {
		if len(e.seen) >= seenMax {
			e.forget()
		}
		x = &seen{}
		e.seen[k] = x
	}
	e.clock++
	x.used = e.clock
	since := s.At.Add(-time.Duration(a.Rule.When.within()) * time.Minute)
	x.signs = slices.DeleteFunc(x.signs, func(o anomaly.Signal) bool { return o.Name == s.Name || o.At.Before(since) })
	x.signs = append(x.signs, s)
	return x.signs
}

// forget drops the eighth that was used longest ago.
func (e *Evaluator) forget() {
	used := make([]int64, 0, len(e.seen))
	for _, x := range e.seen {
		used = append(used, x.used)
	}
	slices.Sort(used)
	last := used[len(used)/8]
	for k, x := range e.seen {
		if x.used <= last {
			delete(e.seen, k)
		}
	}
}

// Target is what of the register an action is done to; ok is false when nothing
// of the register is known of it.
func (m *Match) Target() (registry.SubjectRef, bool) {
	product := registry.SubjectRef{Kind: registry.KindProduct, ID: m.Facts.Product}
	switch {
	case m.Facts.Product == "":
		return registry.SubjectRef{}, false
	case m.Active.Rule.Then.On == "product", m.Subject.Kind == anomaly.Product:
		return product, true
	case m.Facts.Subscription != "":
		return registry.SubjectRef{Kind: registry.KindSubscription, ID: m.Facts.Subscription}, true
	case m.Subject.Kind == anomaly.ClientApp:
		return registry.SubjectRef{Kind: registry.KindClientApp, ID: m.Subject.ID}, true
	}
	return product, m.Active.Rule.Then.Do == Observe
}

// Radius is what policies have done without a person lately: the products
// touched and the share of the traffic of each, in percent. A share nobody knows
// is negative.
type Radius map[string]float64

// Exceeded tells in words why one more product would be too many; "" when it
// would not. A product that is touched already is not one more. Where the share
// of the traffic is not known it may be all of it.
func (a *Countermeasure) Exceeded(r Radius, product string, share float64) string {
	if _, touched := r[product]; touched {
		return ""
	}
	most, traffic := cmp.Or(a.MaxProducts, maxProductsDefault), cmp.Or(a.MaxTraffic, maxTrafficDefault)
	if len(r)+1 > most {
		return fmt.Sprintf("%d products are under measures that no person confirmed, of at most %d", len(r), most)
	}
	total := 0.0
	for _, s := range r {
		total += percent(s)
	}
	if total += percent(share); !(total <= traffic) {
		if share < 0 {
			return fmt.Sprintf("nobody knows yet what share of the traffic is this product's, of at most %.3g %%", traffic)
		}
		return fmt.Sprintf("%.3g %% of the traffic would be under measures that no person confirmed, of at most %.3g %%", total, traffic)
	}
	return ""
}

func percent(s float64) float64 {
	if !(s >= 0) {
		return 100
	}
	return s
}
