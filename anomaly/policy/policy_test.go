package policy

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

var t0 = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func signal(name anomaly.SignalName, p, value float64, at time.Duration) anomaly.Signal {
	return anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1"}, Name: name, P: p, Value: value, At: t0.Add(at)}
}

var certified = Facts{Product: "FP-1", Owner: 1, State: registry.CertWhitelisted, Risk: 3}

func TestConditionsSelect(t *testing.T) {
	loud := signal(anomaly.SignalSweep, 1e-6, 500, 0)
	for _, c := range []struct {
		name string
		when Condition
		with func(*anomaly.Signal, *Facts)
		want bool
	}{
		{"anything", Condition{}, nil, true},
		{"its signal", Condition{Signals: []string{"sweep"}}, nil, true},
		{"a fact beside the alarms", Condition{}, func(s *anomaly.Signal, _ *Facts) { s.Name = anomaly.SignalPersons }, false},
		{"a fact that is asked for", Condition{Signals: []string{"persons"}}, func(s *anomaly.Signal, _ *Facts) { s.Name = anomaly.SignalPersons }, true},
		{"another signal", Condition{Signals: []string{"failed"}}, nil, false},
		{"as rare as that", Condition{Surprise: 6}, nil, true},
		{"rarer", Condition{Surprise: 6.1}, nil, false},
		{"as large as that", Condition{Value: 500}, nil, true},
		{"larger", Condition{Value: 501}, nil, false},
		{"another kind", Condition{Subjects: []string{"client-app"}}, nil, false},
		{"networks are not asked for unless named", Condition{}, func(s *anomaly.Signal, _ *Facts) { s.Subject.Kind = anomaly.Network }, false},
		{"newcomers only", Condition{Newcomer: "only"}, nil, false},
		{"newcomers never", Condition{Newcomer: "never"}, func(s *anomaly.Signal, _ *Facts) { s.Newcomer = true }, false},
		{"in that state", Condition{States: []registry.CertState{registry.CertWhitelisted}}, nil, true},
		{"in another state", Condition{States: []registry.CertState{registry.CertPVT}}, nil, false},
		{"of no product", Condition{States: []registry.CertState{registry.CertDraft}}, func(_ *anomaly.Signal, f *Facts) { *f = Facts{} }, false},
		{"as risky as that", Condition{Risk: 3}, nil, true},
		{"riskier", Condition{Risk: 4}, nil, false},
		{"that product", Condition{Products: []string{"FP-1"}}, nil, true},
		{"another product", Condition{Products: []string{"FP-2"}}, nil, false},
		{"excepted", Condition{Except: []string{"FP-1"}}, nil, false},
		{"a score that is no number", Condition{}, func(s *anomaly.Signal, _ *Facts) { s.P = math.NaN() }, true},
		{"a score that is no number is not rare", Condition{Surprise: 1}, func(s *anomaly.Signal, _ *Facts) { s.P = math.NaN() }, false},
		{"a value that is no number", Condition{}, func(s *anomaly.Signal, _ *Facts) { s.Value = math.NaN() }, false},
		{"a rule", Condition{Surprise: 6}, func(s *anomaly.Signal, _ *Facts) { s.Name, s.P = anomaly.SignalProtected, 0 }, true},
	} {
		s, f := loud, certified
		if c.with != nil {
			c.with(&s, &f)
		}
		got := len(NewEvaluator(Active{Policy: "p", Version: 1, Rule: Rule{When: c.when, Then: Countermeasure{Do: Observe}}}).See(s, f)) == 1
		if got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestSeveralSignsWithinATime(t *testing.T) {
	e := NewEvaluator(Active{Policy: "p", Version: 1, Rule: Rule{When: Condition{Signs: 2, Within: 10}, Then: Countermeasure{Do: Observe}}})
	see := func(s anomaly.Signal) []Match { return e.See(s, certified) }
	if got := see(signal(anomaly.SignalSweep, 1e-6, 1, 0)); len(got) != 0 {
		t.Error("one sign was enough")
	}
	if got := see(signal(anomaly.SignalSweep, 1e-7, 2, time.Minute)); len(got) != 0 {
		t.Error("the same sign twice was enough")
	}
	if got := see(signal(anomaly.SignalHarvest, 1e-6, 1, 12*time.Minute)); len(got) != 0 {
		t.Error("a sign counts for longer than asked for")
	}
	got := see(signal(anomaly.SignalSweep, 1e-6, 9, 13*time.Minute))
	if len(got) != 1 {
		t.Fatalf("%d matches", len(got))
	}
	if d := cmp.Diff([]string{"sweep", "harvest"}, got[0].Signals); d != "" {
		t.Error(d)
	}
	if want := t0.Add(12 * time.Minute); !got[0].First.Equal(want) {
		t.Errorf("began %s, want %s", got[0].First, want)
	}
}

// What is remembered is bounded, whoever comes with however many names.
func TestMemoryIsBounded(t *testing.T) {
	e := NewEvaluator(Active{Policy: "p", Version: 1, Rule: Rule{When: Condition{Signs: 2, Signals: []string{"identity-refused", "failed"}, Subjects: []string{"network"}}, Then: Countermeasure{Do: Observe}}})
	for i := range seenMax * 2 {
		e.See(anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.Network, ID: string(rune('a'+i%26)) + time.Duration(i).String()}, Name: anomaly.SignalIdentity, P: 1e-9, Value: 1, At: t0}, Facts{})
	}
	if len(e.seen) > seenMax {
		t.Errorf("%d remembered", len(e.seen))
	}
}

func TestRulesAreChecked(t *testing.T) {
	for name, r := range map[string]Rule{
		"/when/signals/0":           {Condition{Signals: []string{"no-such"}}, Countermeasure{Do: Observe}},
		"/when/subjects/0":          {Condition{Subjects: []string{"planet"}}, Countermeasure{Do: Observe}},
		"/when/surprise":            {Condition{Surprise: math.NaN()}, Countermeasure{Do: Observe}},
		"/when/value":               {Condition{Value: -1}, Countermeasure{Do: Observe}},
		"/when/newcomer":            {Condition{Newcomer: "perhaps"}, Countermeasure{Do: Observe}},
		"/when/within_minutes":      {Condition{Within: 9999}, Countermeasure{Do: Observe}},
		"/then/do":                  {Condition{}, Countermeasure{Do: "delist"}},
		"/then/on":                  {Condition{}, Countermeasure{Do: Suspend, Minutes: 1, On: "everybody"}},
		"/then/for_minutes":         {Condition{}, Countermeasure{Do: Suspend, Minutes: 241}},
		"/then/rate":                {Condition{}, Countermeasure{Do: Throttle, Minutes: 1}},
		"/then/max_risk":            {Condition{}, Countermeasure{Do: Restrict, Minutes: 1, MaxRisk: 4}},
		"/then/max_products":        {Condition{}, Countermeasure{Do: Observe, MaxProducts: -1}},
		"/then/max_traffic_percent": {Condition{}, Countermeasure{Do: Observe, MaxTraffic: math.NaN()}},
	} {
		var f *registry.FieldError
		if err := r.Check(""); !errors.As(err, &f) || f.Field != name || !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := Rule{Condition{Subjects: []string{"network"}}, Countermeasure{Do: Suspend, Minutes: 5}}
	if err := r.Check(""); err == nil || !strings.Contains(err.Error(), "/then/do") {
		t.Errorf("a measure against a network: %v", err)
	}
	good := Rule{Condition{Signals: []string{"persons-hour"}, Surprise: 4}, Countermeasure{Do: Throttle, Minutes: 60, Rate: 5}}
	if err := good.Check(""); err != nil {
		t.Error(err)
	}
	if got, want := good.Text(), "when persons-hour of a product or client-app is as rare as 1 in 10000: throttle to 5 calls a second for 60 minutes"; got != want {
		t.Errorf("%q", got)
	}
}

func TestTwoPeopleBringAVersionOutOfShadow(t *testing.T) {
	at := registry.At(t0)
	step := func(by string, h time.Duration) Step {
		return Step{By: by, At: at + registry.Time(h/time.Millisecond), Reason: "because"}
	}
	rule := Rule{Then: Countermeasure{Do: Observe}}
	p := Policy{ID: "p", Purpose: "x"}
	if err := p.Propose(rule, step("ann", 0)); err != nil {
		t.Fatal(err)
	}
	if a := p.Active(); len(a) != 1 || !a[0].Shadow {
		t.Fatalf("a new version is not in shadow: %+v", a)
	}
	if _, err := p.Enforce(step("bob", time.Minute), time.Hour); !errors.Is(err, registry.ErrState) {
		t.Errorf("enforced before it ran in shadow: %v", err)
	}
	if done, err := p.Enforce(step("bob", 2*time.Hour), time.Hour); err != nil || done {
		t.Errorf("one person: %v %v", done, err)
	}
	for _, who := range []string{"bob", "ann"} {
		if _, err := p.Enforce(step(who, 3*time.Hour), time.Hour); !errors.Is(err, registry.ErrForbidden) {
			t.Errorf("%s approved alone: %v", who, err)
		}
	}
	if done, err := p.Enforce(step("cho", 3*time.Hour), time.Hour); err != nil || !done {
		t.Fatalf("two people: %v %v", done, err)
	}
	if a := p.Active(); len(a) != 1 || a[0].Shadow || a[0].Version != 1 {
		t.Fatalf("not enforced: %+v", a)
	}
	if err := p.Propose(rule, step("ann", 4*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if a := p.Active(); len(a) != 2 || a[0].Shadow || !a[1].Shadow {
		t.Fatalf("the new version took the place of the enforced one: %+v", a)
	}
	if err := p.Relax(step("ann", 5*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if a := p.Active(); len(a) != 1 || !a[0].Shadow || a[0].Version != 3 || p.Versions[0].Ended == nil || p.Versions[1].Ended == nil {
		t.Fatalf("not put back into shadow: %+v", p)
	}
}

// However measures come, no more products and traffic are ever touched than said.
func TestRadiusHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := Countermeasure{Do: Suspend, MaxProducts: rapid.IntRange(1, 5).Draw(t, "products"), MaxTraffic: rapid.Float64Range(0.1, 100).Draw(t, "traffic")}
		r := Radius{}
		for range rapid.IntRange(1, 20).Draw(t, "alarms") {
			product := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"}).Draw(t, "product")
			share := rapid.SampledFrom([]float64{-1, math.NaN(), 0, 0.5, 3, 20, 60, math.Inf(1)}).Draw(t, "share")
			if why := a.Exceeded(r, product, share); why == "" {
				if _, is := r[product]; !is {
					r[product] = share
				}
			}
			sum := 0.0
			for _, s := range r {
				sum += percent(s)
			}
			if len(r) > a.MaxProducts || !(sum <= a.MaxTraffic) {
				t.Fatalf("%v of at most %d, %g %%", r, a.MaxProducts, a.MaxTraffic)
			}
		}
	})
}

func TestEffectIsMeasured(t *testing.T) {
	at := func(m int) registry.Time { return registry.At(t0.Add(time.Duration(m) * time.Minute)) }
	alarms := []*Alarm{
		{State: Confirmed, FirstAt: at(5), RaisedAt: at(6), ContainedAt: at(7), BeganAt: at(0), Outcome: Suspended},
		{State: Confirmed, FirstAt: at(5), RaisedAt: at(6), Incident: "INC-1", Outcome: Asked},
		{State: Dismissed, FirstAt: at(5), RaisedAt: at(6), Outcome: Suspended},
		{State: Open, FirstAt: at(5), RaisedAt: at(6), Outcome: Observed},
		{State: Dismissed, Shadow: true, FirstAt: at(5), RaisedAt: at(6), Outcome: Would},
	}
	e := Measure("p", func(yield func(*Alarm) bool) {
		for _, a := range alarms {
			if !yield(a) {
				return
			}
		}
	}, func(id string) registry.Time { return at(65) })
	if e.Enforced.Alarms != 4 || e.Enforced.Open != 1 || *e.Enforced.Precision != 2.0/3 || *e.Shadow.Precision != 0 {
		t.Errorf("%+v", e)
	}
	if d := cmp.Diff(&Spread{Median: 60, Most: 360, Of: 2}, e.Enforced.ToDetect); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(&Spread{Median: 420, Most: 3600, Of: 2}, e.Enforced.ToContain); d != "" {
		t.Error(d)
	}
}
