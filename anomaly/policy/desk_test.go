package policy_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
	"github.com/dspgate/dspgate/registry/outbox"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

var (
	officer  = registry.Actor{Name: "officer", Permissions: registry.PermIncidentOfficer}
	operator = registry.Actor{Name: "operator", Permissions: registry.PermOperator}
	third    = registry.Actor{Name: "third", Permissions: registry.PermOperator}
	none     registry.Meta
	because  = registry.Meta{Reason: "because"}
)

// world is a control plane with the sample register and an engine, in synthetic
// time.
type world struct {
	*policy.Desk
	t      *testing.T
	engine *policy.Engine
	kept   []anomaly.Signal
	share  func(string) float64
}

func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		began := time.Now()
		m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "c", Observer: true, Clock: func() time.Duration { return time.Since(began) }})
		r := registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{
			Holder: "c", Cases: slices.Concat(policy.CaseTypes(), incident.CaseTypes(), []registry.CaseType{registry.CaseTypeOf[outbox.Message]()}),
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = m.Run(ctx) })
		wg.Go(func() { _ = r.Run(ctx) })
		synctest.Wait()
		if _, err := r.Import(ctx, sample.Actor(), sample.Records(time.Now()), none); err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, share: func(string) float64 { return 1 }}
		w.Desk = &policy.Desk{Register: r, ShadowLeast: time.Hour, Incidents: &incident.Desk{Register: r, Thresholds: incident.DefaultThresholds(), Officers: []string{"officers@agency.example"}}}
		w.engine = &policy.Engine{Desk: w.Desk, Share: func(p string) float64 { return w.share(p) }, Keep: func(_ context.Context, s []anomaly.Signal) error {
			w.kept = append(w.kept, s...)
			return nil
		}}
		wg.Go(func() { w.engine.Run(ctx) })
		f(t, w)
		cancel()
		wg.Wait()
	})
}

func (w *world) must(out registry.Outcome, err error) registry.Outcome {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// enforced brings a rule into force.
func (w *world) enforced(id string, r policy.Rule) {
	w.t.Helper()
	ctx := w.t.Context()
	w.must(w.Propose(ctx, officer, id, "a test", r, none))
	time.Sleep(time.Hour)
	w.must(w.Enforce(ctx, officer, id, because))
	w.must(w.Enforce(ctx, operator, id, because))
}

func (w *world) tell(id string, name anomaly.SignalName, p float64) {
	w.t.Helper()
	w.engine.Tell(w.t.Context(), anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.Product, ID: id}, Name: name, P: p, Value: 812, At: time.Now().Truncate(time.Minute), Reasons: []string{"812 where about 4 is usual"}})
	synctest.Wait()
}

func (w *world) book() *registry.Casebook {
	w.t.Helper()
	synctest.Wait()
	b, err := w.Register.Casebook()
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) alarms() (all []policy.Alarm) { return casesOf[policy.Alarm](w, "alarm") }

func casesOf[T registry.CaseBody](w *world, kind string) (all []T) {
	w.t.Helper()
	b := w.book()
	for id := range b.All(registry.Query{Kind: kind}) {
		c, err := registry.CaseOf[T](b, id)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, c.Body)
	}
	return all
}

func (w *world) inForce() (all []*registry.Suspension) {
	for _, e := range w.book().View.Suspensions() {
		if e.Value.Automatic && e.Value.Active(registry.At(time.Now())) {
			all = append(all, &e.Value)
		}
	}
	return all
}

var suspend = policy.Rule{When: policy.Condition{Signals: []string{"persons"}, Surprise: 3}, Then: policy.Countermeasure{Do: policy.Suspend, Minutes: 60, MaxProducts: 2, MaxTraffic: 50}}

func TestInShadowNothingIsDone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.must(w.Propose(t.Context(), officer, "slow", "a test", suspend, none))
		w.tell("FP-1001", anomaly.SignalPersons, 1e-6)
		w.tell("FP-1001", anomaly.SignalPersons, 1e-7)
		a := w.alarms()
		if len(a) != 1 || !a[0].Shadow || a[0].Outcome != policy.Would || a[0].Suspension != "" || a[0].Incident != "" || a[0].Owner == 0 {
			t.Fatalf("%+v", a)
		}
		if len(w.inForce()) != 0 || len(casesOf[incident.Incident](w, "incident")) != 0 || len(casesOf[outbox.Message](w, "message")) != 0 {
			t.Error("a policy in shadow did something")
		}
		if n := w.engine.Counts().Entered[policy.Entered{Policy: "slow", Shadow: true, Outcome: policy.Would}]; n != 1 || len(w.kept) != 2 {
			t.Errorf("%d counted, %d kept", n, len(w.kept))
		}
		w.must(w.Confirm(t.Context(), officer, a[0].ID, 0, none))
		e, err := policy.EffectOf(w.book(), "slow")
		if err != nil || e.Shadow.Confirmed != 1 || *e.Shadow.Precision != 1 || e.Enforced.Alarms != 0 {
			t.Errorf("%+v %v", e, err)
		}
	})
}

func TestAnEnforcedPolicySuspendsOnceAndTells(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.enforced("slow", suspend)
		w.tell("FP-1001", anomaly.SignalPersons, 1e-2)
		w.tell("FP-1001", anomaly.SignalFailed, 1e-9)
		w.tell("FP-1001", anomaly.SignalPersons, math.NaN())
		if n := len(w.alarms()); n != 0 {
			t.Fatalf("%d alarms of what the rule does not ask for", n)
		}
		w.tell("FP-1001", anomaly.SignalPersons, 1e-6)
		s := w.inForce()
		if len(s) != 1 || s[0].Subject.ID != "FP-1001" || s[0].ImposedBy != "policy slow" || !strings.Contains(s[0].Reason, "812 where about 4 is usual") ||
			time.Until(s[0].Expires.Std()) > time.Hour {
			t.Fatalf("%+v", s)
		}
		inc := casesOf[incident.Incident](w, "incident")
		if len(inc) != 1 || inc[0].Channel != incident.BySignal || inc[0].State != incident.Reported || !slices.Equal(inc[0].Containment, []string{s[0].ID}) ||
			inc[0].Type != incident.UnauthorisedAccess || inc[0].Entity == 0 || !strings.Contains(inc[0].Description, "812 where about 4 is usual") {
			t.Fatalf("%+v", inc)
		}
		if n := len(casesOf[outbox.Message](w, "message")); n != 1 {
			t.Errorf("officers were told %d times", n)
		}
		a := w.alarms()
		if len(a) != 1 || a[0].Outcome != policy.Suspended || a[0].Suspension != s[0].ID || a[0].Incident != inc[0].ID || !a[0].ContainedAt.Set() {
			t.Fatalf("%+v", a)
		}
		// A second person lifts it: it is not imposed again.
		if _, err := w.Register.LiftSuspension(t.Context(), operator, s[0].ID, because); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute * 20)
		w.tell("FP-1001", anomaly.SignalPersons, 1e-8)
		if n := len(w.inForce()); n != 0 {
			t.Error("imposed again what a person had lifted")
		}
		if a = w.alarms(); len(a) != 1 || a[0].Times != 2 {
			t.Errorf("not one alarm seen twice: %+v", a)
		}
		w.must(w.Dismiss(t.Context(), operator, a[0].ID, because))
		w.tell("FP-1001", anomaly.SignalPersons, 1e-9)
		if n := len(w.alarms()); n != 1 {
			t.Error("a dismissed alarm does not rest")
		}
		time.Sleep(policy.RestAfter)
		w.tell("FP-1001", anomaly.SignalPersons, 1e-9)
		if n := len(w.inForce()); n != 1 {
			t.Error("after the rest nothing is done any more")
		}
		if n := len(casesOf[incident.Incident](w, "incident")); n != 1 {
			t.Errorf("one subject and one kind made %d incidents", n)
		}
		e, err := policy.EffectOf(w.book(), "slow")
		if err != nil || e.Enforced.Alarms != 2 || e.Enforced.Dismissed != 1 || *e.Enforced.Precision != 0 {
			t.Errorf("%+v %v", e, err)
		}
	})
}

func TestTheBlastRadiusHolds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.enforced("slow", suspend)
		w.share = func(p string) float64 {
			return map[string]float64{"FP-1001": 20, "FP-1002": 40, "FP-1003": 20, "FP-1004": 1}[p]
		}
		outcomes := map[string]policy.Outcome{}
		for i := 1; i <= 4; i++ {
			w.tell(fmt.Sprint("FP-100", i), anomaly.SignalPersons, 1e-6)
		}
		for _, a := range w.alarms() {
			outcomes[a.Product] = a.Outcome
		}
		want := map[string]policy.Outcome{"FP-1001": policy.Suspended, "FP-1002": policy.Asked, "FP-1003": policy.Suspended, "FP-1004": policy.Asked}
		for p, o := range want {
			if outcomes[p] != o {
				t.Errorf("%s: %s, want %s", p, outcomes[p], o)
			}
		}
		if len(w.inForce()) != 2 || len(casesOf[incident.Incident](w, "incident")) != 4 {
			t.Errorf("%d measures, %d incidents", len(w.inForce()), len(casesOf[incident.Incident](w, "incident")))
		}
		// Another policy does not get round it, nor does waiting until they have run out.
		other := suspend
		other.Then.Do, other.Then.Rate = policy.Throttle, 5
		w.enforced("other", other)
		w.tell("FP-1005", anomaly.SignalPersons, 1e-6)
		if n := len(w.inForce()); n != 0 {
			t.Errorf("%d measures after the two had run out", n)
		}
		time.Sleep(24 * time.Hour)
		w.tell("FP-1006", anomaly.SignalPersons, 1e-6)
		if n := len(w.inForce()); n == 0 {
			t.Error("nothing is done the day after")
		}
	})
}

func TestWhatIsNotKnownCountsAsAll(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.share = func(string) float64 { return -1 }
		w.enforced("slow", suspend)
		w.tell("FP-1001", anomaly.SignalPersons, 1e-6)
		if a := w.alarms(); len(a) != 1 || a[0].Outcome != policy.Asked || !strings.Contains(a[0].Why, "nobody knows") {
			t.Errorf("%+v", a)
		}
	})
}

func TestMeasuresOfEachKind(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for id, then := range map[string]policy.Countermeasure{
			"throttle": {Do: policy.Throttle, Minutes: 10, Rate: 3}, "restrict": {Do: policy.Restrict, Minutes: 10, MaxRisk: 1}, "observe": {Do: policy.Observe},
		} {
			w.enforced(id, policy.Rule{When: policy.Condition{Signals: []string{"identity-refused"}}, Then: then})
		}
		w.engine.Tell(t.Context(), anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.ClientApp, ID: "fp-1001-prod"}, Name: anomaly.SignalIdentity, P: 1e-6, Value: 9, At: time.Now()})
		synctest.Wait()
		found := map[registry.Effect]bool{}
		for _, s := range w.inForce() {
			found[s.Effect] = s.Subject == registry.SubjectRef{Kind: registry.KindClientApp, ID: "fp-1001-prod"} && s.Rate+int64(s.MaxRisk)*3 == 3
		}
		if len(found) != 2 || !found[registry.EffectThrottle] || !found[registry.EffectRestrict] {
			t.Errorf("%+v", w.inForce())
		}
		if inc := casesOf[incident.Incident](w, "incident"); len(inc) != 1 || inc[0].Type != incident.CredentialCompromise || len(inc[0].Containment) != 2 {
			t.Errorf("three policies made %+v", inc)
		}
	})
}

func TestOnlyPeopleWhoMayCommand(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		auditor := registry.Actor{Name: "auditor", Permissions: registry.PermAuditor}
		if _, err := w.Propose(ctx, auditor, "slow", "x", suspend, none); !errors.Is(err, registry.ErrForbidden) {
			t.Error(err)
		}
		if _, err := w.Propose(ctx, officer, "Not A Name", "x", suspend, none); !errors.Is(err, registry.ErrInvalid) {
			t.Error(err)
		}
		bad := suspend
		bad.When.Products = []string{"FP-9999"}
		var f *registry.FieldError
		if _, err := w.Propose(ctx, officer, "slow", "x", bad, none); !errors.As(err, &f) || f.Field != "/when/products/0" {
			t.Error(err)
		}
		w.must(w.Propose(ctx, officer, "slow", "x", suspend, none))
		if _, err := w.Enforce(ctx, operator, "slow", because); !errors.Is(err, registry.ErrState) {
			t.Errorf("enforced at once: %v", err)
		}
		time.Sleep(time.Hour)
		w.must(w.Enforce(ctx, officer, "slow", because))
		if _, err := w.Enforce(ctx, officer, "slow", because); !errors.Is(err, registry.ErrForbidden) {
			t.Errorf("enforced by one person: %v", err)
		}
		w.must(w.Enforce(ctx, third, "slow", because))
		w.must(w.Relax(ctx, officer, "slow", because))
		w.tell("FP-1001", anomaly.SignalPersons, 1e-6)
		if len(w.inForce()) != 0 {
			t.Error("a policy put back into shadow suspended")
		}
	})
}

// However many signals come, of however many subjects, alarms are bounded.
func TestAlarmsOfAnHourAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.must(w.Propose(t.Context(), officer, "slow", "a test", policy.Rule{When: policy.Condition{Signals: []string{"identity-refused"}, Subjects: []string{"network"}}, Then: policy.Countermeasure{Do: policy.Observe}}, none))
		for i := range 300 {
			w.engine.Tell(t.Context(), anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.Network, ID: fmt.Sprint(i)}, Name: anomaly.SignalIdentity, P: 1e-6, Value: 9, At: time.Now()})
		}
		synctest.Wait()
		if n, c := len(w.alarms()), w.engine.Counts(); n > 100 || n == 0 || c.Overflow == 0 {
			t.Errorf("%d alarms, %+v", n, c)
		}
	})
}

func TestTrialSaysWhoWouldHaveBeenTouched(t *testing.T) {
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	facts := func(s anomaly.Subject) policy.Facts { return policy.Facts{Product: s.ID} }
	rule := suspend
	rule.Then.MaxProducts = 1
	tr := policy.NewTrial(rule, facts, func(string) float64 { return 1 })
	for i, id := range []string{"a", "a", "b"} {
		tr.See(anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.Product, ID: id}, Name: anomaly.SignalPersons, P: 1e-6, Value: 1, At: at.Add(time.Duration(i) * time.Minute)})
	}
	for m := range 120 {
		tr.Call("a", "app", 1, at.Add(time.Duration(m)*time.Minute))
		tr.Call("b", "app", 1, at.Add(time.Duration(m)*time.Minute))
	}
	got := tr.Touched()
	if len(got) != 2 || got[0].Subject.ID != "a" || got[0].Alarms != 1 || got[0].Refused != 60 || got[1].Outcome != policy.Asked || got[1].Refused != 0 {
		t.Errorf("%+v", got)
	}
	rule.Then = policy.Countermeasure{Do: policy.Throttle, Rate: 2, Minutes: 60}
	tr = policy.NewTrial(rule, facts, func(string) float64 { return 1 })
	tr.See(anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.Product, ID: "a"}, Name: anomaly.SignalPersons, P: 1e-6, Value: 1, At: at})
	for i := range 10 {
		tr.Call("a", "app", 1, at.Add(time.Duration(i)*200*time.Millisecond))
	}
	if got := tr.Touched(); got[0].Calls != 10 || got[0].Refused != 6 {
		t.Errorf("%+v", got)
	}
}

// X11: whatever falls over in the judgement, what is in force stays in force, and
// nothing is allowed by it.
func TestX11AnEngineThatFallsOverLiftsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.enforced("slow", suspend)
		w.tell("FP-1001", anomaly.SignalPersons, 1e-6)
		w.share = func(string) float64 { panic("the share of the traffic fell over") }
		w.tell("FP-1002", anomaly.SignalPersons, 1e-6)
		if n := w.engine.Counts().Failed; n != 1 {
			t.Errorf("%d failures counted", n)
		}
		broken := &policy.Engine{Desk: &policy.Desk{}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { broken.Run(ctx) })
		broken.Tell(ctx, anomaly.Signal{Name: anomaly.SignalSweep, P: math.NaN()})
		synctest.Wait()
		cancel()
		wg.Wait()
		if n := broken.Counts().Panics; n != 1 {
			t.Errorf("%d panics counted", n)
		}
		if s := w.inForce(); len(s) != 1 || s[0].Subject.ID != "FP-1001" {
			t.Errorf("%+v", s)
		}
	})
}
