package policy

import (
	"cmp"
	"slices"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// Trial tries a rule on what was seen: signals first, in the order of their
// time, then calls. It says who would have been touched, with the same code that
// would have touched them.
type Trial struct {
	rule     Rule
	rules    *Evaluator
	facts    func(anomaly.Subject) Facts
	share    func(product string) float64
	touched  map[anomaly.Subject]*Touched
	measures []taken
	byTarget map[registry.SubjectRef][]*Touched
	signals  uint64
	left     uint64
}

// taken is a measure of the last day.
type taken struct {
	product string
	at      time.Time
}

// Touched is a subject that a rule would have found.
type Touched struct {
	Subject Caller        `json:"subject"`
	Product string        `json:"product_id,omitempty"`
	Alarms  int           `json:"alarms"`
	FirstAt registry.Time `json:"first_at"`
	LastAt  registry.Time `json:"last_at"`
	Outcome Outcome       `json:"outcome"`
	Why     string        `json:"why,omitempty"`
	Reasons []string      `json:"reasons"`
	// Calls are those made while a measure would have been in force, Refused those
	// that it would have refused.
	Calls   uint64 `json:"calls"`
	Refused uint64 `json:"refused"`

	last    time.Time // alarm
	windows []window
	spent   map[int64]int64 // calls let through, by second
}

type window struct{ from, to time.Time }

// trialMax bounds the subjects of a trial.
const trialMax = 10_000

// NewTrial tries a rule that was checked.
func NewTrial(r Rule, facts func(anomaly.Subject) Facts, share func(product string) float64) *Trial {
	return &Trial{
		rule: r, facts: facts, share: share, rules: NewEvaluator(Active{Policy: "trial", Version: 1, Shadow: true, Rule: r}),
		touched: map[anomaly.Subject]*Touched{}, byTarget: map[registry.SubjectRef][]*Touched{},
	}
}

// See tries a signal.
func (t *Trial) See(s anomaly.Signal) {
	t.signals++
	for _, m := range t.rules.See(s, t.facts(s.Subject)) {
		t.match(&m)
	}
}

func (t *Trial) match(m *Match) {
	x := t.touched[m.Subject]
	if x == nil {
		if len(t.touched) == trialMax {
			t.left++
			return
		}
		x = &Touched{Subject: subjectOf(m.Subject), Product: m.Facts.Product, FirstAt: registry.At(m.At)}
		t.touched[m.Subject] = x
	}
	x.LastAt = registry.At(m.At)
	if x.Alarms > 0 && m.At.Sub(x.last) < AlarmLasts {
		return // belongs to the alarm there is
	}
	x.Alarms++
	x.last, x.Reasons = m.At, m.Reasons[:min(len(m.Reasons), reasonsMax)]
	then := &t.rule.Then
	target, known := m.Target()
	x.Outcome, x.Why = then.Do.outcome(), ""
	if !then.touches() {
		return
	}
	if known {
		x.Why = then.Exceeded(t.radius(m.At), m.Facts.Product, t.share(m.Facts.Product))
	} else {
		x.Why = "nothing of the register is known of it"
	}
	if x.Why != "" {
		x.Outcome = Asked
		return
	}
	t.measures = append(t.measures, taken{m.Facts.Product, m.At})
	if x.windows == nil {
		t.byTarget[target] = append(t.byTarget[target], x)
	}
	x.windows = append(x.windows, window{m.At, m.At.Add(time.Duration(then.Minutes) * time.Minute)})
}

func (t *Trial) radius(at time.Time) Radius {
	t.measures = slices.DeleteFunc(t.measures, func(m taken) bool { return at.Sub(m.at) >= AlarmLasts })
	r := Radius{}
	for _, m := range t.measures {
		r[m.product] = t.share(m.product)
	}
	return r
}

// Screened tries a call that was allowed, and concerned a protected client, on a
// rule that denies such calls.
func (t *Trial) Screened(product string, risk registry.Risk) {
	s := t.rule.Screen("trial")
	if t.rule.Then.Do != Deny || !s.Holds(product, risk) {
		return
	}
	of := anomaly.Subject{Kind: anomaly.Product, ID: product}
	x := t.touched[of]
	if x == nil {
		if len(t.touched) == trialMax {
			t.left++
			return
		}
		x = &Touched{Subject: subjectOf(of), Product: product, Outcome: Denied, Reasons: []string{}}
		t.touched[of] = x
	}
	x.Calls++
	x.Refused++
}

// Call tries a call that was allowed: of a product, by a client app, of a
// service of that rating. Of the first of several measures that bind it.
func (t *Trial) Call(product, app string, risk registry.Risk, at time.Time) {
	for _, of := range [...]registry.SubjectRef{{Kind: registry.KindProduct, ID: product}, {Kind: registry.KindClientApp, ID: app}} {
		for _, x := range t.byTarget[of] {
			if !slices.ContainsFunc(x.windows, func(w window) bool { return !at.Before(w.from) && at.Before(w.to) }) {
				continue
			}
			x.Calls++
			if t.refuses(x, risk, at) {
				x.Refused++
			}
			return
		}
	}
}

func (t *Trial) refuses(x *Touched, risk registry.Risk, at time.Time) bool {
	switch then := &t.rule.Then; then.Do {
	case Suspend:
		return true
	case Restrict:
		return risk == 0 || risk > then.MaxRisk
	case Throttle:
		if x.spent == nil || len(x.spent) > 10 { // calls come about in order
			x.spent = map[int64]int64{}
		}
		x.spent[at.Unix()]++
		return x.spent[at.Unix()] > then.Rate
	}
	return false
}

// Signals is how many were tried, and Left how many found no room.
func (t *Trial) Signals() (tried, left uint64) { return t.signals, t.left }

// Touched are those the rule would have found: those refused most first.
func (t *Trial) Touched() []Touched {
	out := make([]Touched, 0, len(t.touched))
	for _, x := range t.touched {
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b Touched) int {
		return cmp.Or(cmp.Compare(b.Refused, a.Refused), cmp.Compare(b.Alarms, a.Alarms), cmp.Compare(a.Subject.Kind, b.Subject.Kind), cmp.Compare(a.Subject.ID, b.Subject.ID))
	})
	return out
}
