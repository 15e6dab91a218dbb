package registry_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// limit makes a valid limit of FP-1009 and lets f change it.
func limit(f func(*registry.Limit)) registry.Limit {
	l := registry.Limit{Subject: product("FP-1009"), Name: "daily", Kind: registry.LimitQuota, Period: registry.PeriodDay, Amount: 10}
	if f != nil {
		f(&l)
	}
	return l
}

func rateOf(amount, burst int64) func(*registry.Limit) {
	return func(l *registry.Limit) {
		l.Kind, l.Period, l.Amount, l.Burst = registry.LimitRate, registry.NoPeriod, amount, burst
	}
}

func TestWhatIsWrongWithALimitIsNamed(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		field string
		f     func(*registry.Limit)
	}{
		{"/amount", func(l *registry.Limit) { l.Amount = 0 }},
		{"/amount", func(l *registry.Limit) { l.Amount = -1 }},
		{"/amount", func(l *registry.Limit) { l.Amount = 1 << 40 }},
		{"/amount", rateOf(0, 0)},
		{"/amount", rateOf(-5, 1)},
		{"/burst", rateOf(5, -1)},
		{"/burst", rateOf(5, 1<<40)},
		{"/burst", func(l *registry.Limit) { l.Burst = 1 }},
		{"/kind", func(l *registry.Limit) { l.Kind = registry.NoLimitKind }},
		{"/kind", func(l *registry.Limit) { l.Kind = 99 }},
		{"/period", func(l *registry.Limit) { l.Period = registry.NoPeriod }},
		{"/period", func(l *registry.Limit) { rateOf(5, 5)(l); l.Period = registry.PeriodDay }},
		{"/period", func(l *registry.Limit) { l.Kind, l.Period = registry.LimitClients, registry.PeriodMonth }},
		{"/zone", func(l *registry.Limit) { l.Zone = "Australia/Melburn" }},
		{"/zone", func(l *registry.Limit) { l.Zone = "Local" }},
		{"/zone", func(l *registry.Limit) { l.Zone = "../../etc/passwd" }},
		{"/zone", func(l *registry.Limit) { rateOf(5, 5)(l); l.Zone = registry.ZoneDefault }},
		{"/service", func(l *registry.Limit) { l.Service = "no.such" }},
		{"/service", func(l *registry.Limit) { l.Kind, l.Service = registry.LimitClients, "receipts.get" }},
		{"/service", func(l *registry.Limit) {
			l.Subject, l.Service = registry.SubjectRef{Kind: registry.KindService, ID: "abr.lookup"}, "abr.lookup"
		}},
		{"/environment", func(l *registry.Limit) { l.Environment = 9 }},
		{"/stage", func(l *registry.Limit) { l.Stage = registry.StagePVT }},
		{"/stage", func(l *registry.Limit) {
			l.Subject = registry.SubjectRef{Kind: registry.KindTier, ID: registry.TierPVT}
		}},
		{"/per", func(l *registry.Limit) { l.Per = registry.KindProduct }},
		{"/per", func(l *registry.Limit) {
			l.Subject, l.Per = registry.SubjectRef{Kind: registry.KindTier, ID: "gold"}, registry.KindService
		}},
		{"/name", func(l *registry.Limit) { l.Name = "" }},
		{"/name", func(l *registry.Limit) { l.Name = "a b" }},
		{"/name", func(l *registry.Limit) { l.Name = "-a" }},
		{"/name", func(l *registry.Limit) { l.Name = `a";q=1` }},
		{"/name", func(l *registry.Limit) { l.Name = strings.Repeat("a", 33) }},
		{"/subject/kind", func(l *registry.Limit) { l.Subject.Kind = registry.KindCredential }},
		{"/subject/kind", func(l *registry.Limit) { l.Subject.Kind = registry.NoKind }},
		{"/subject/id", func(l *registry.Limit) { l.Subject.ID = "FP-9999" }},
		{"/subject/id", func(l *registry.Limit) { l.Subject.ID = "" }},
		{"/subject/id", func(l *registry.Limit) { l.Subject = registry.SubjectRef{Kind: registry.KindEntity, ID: "65000000102"} }},
		{"/subject/id", func(l *registry.Limit) { l.Subject = registry.SubjectRef{Kind: registry.KindTier, ID: "a:b"} }},
	} {
		l := limit(c.f)
		_, err := w.SetLimit(t.Context(), operator, l, none)
		var f *registry.FieldError
		if !errors.As(err, &f) || f.Field != c.field || !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%+v: got %v, want a FieldError of %s", l, err, c.field)
		}
		if _, err = w.Import(t.Context(), sample.Actor(), []any{l}, none); !errors.As(err, &f) || f.Field != "/0"+c.field {
			t.Errorf("imported %+v: got %v, want a FieldError of /0%s", l, err, c.field)
		}
	}
	for _, tier := range []string{"gold", "pvt", "no such"} {
		_, err := w.SetTier(t.Context(), operator, "FP-1009", tier, none)
		var f *registry.FieldError
		if !errors.As(err, &f) || f.Field != "/tier" {
			t.Errorf("tier %s: got %v, want a FieldError of /tier", tier, err)
		}
	}
}

func TestALimitComesGoesAndComesBack(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	set := must[registry.Limit](t)
	l := set(w.SetLimit(ctx, operator, limit(nil), none)).Entry
	if l.ID != "product:FP-1009:daily" || l.Value.Zone != registry.ZoneDefault {
		t.Errorf("made %+v", l)
	}
	if again := set(w.SetLimit(ctx, operator, limit(nil), none)); !again.Existing || again.Entry.Revision != l.Revision {
		t.Errorf("the same again made revision %d of %d", again.Entry.Revision, l.Revision)
	}
	if _, err := w.SetLimit(ctx, operator, limit(rateOf(5, 5)), registry.Meta{IfMatch: l.Revision + 100}); !errors.Is(err, registry.ErrPrecondition) {
		t.Errorf("another revision: %v, want ErrPrecondition", err)
	}
	set(w.RemoveLimit(ctx, assessor, l.ID, none))
	if got := view(t, w).SubjectLimits(product("FP-1009")); len(got) != 0 {
		t.Errorf("removed, and yet %v", got)
	}
	if again := set(w.RemoveLimit(ctx, assessor, l.ID, none)); !again.Existing {
		t.Error("removed twice")
	}
	if _, err := w.RemoveLimit(ctx, assessor, "product:FP-1009:none", none); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("removed what there never was: %v", err)
	}
	back := set(w.SetLimit(ctx, operator, limit(nil), none)).Entry.Value
	if back.Removed != 0 || len(view(t, w).SubjectLimits(product("FP-1009"))) != 1 {
		t.Errorf("did not come back: %+v", back)
	}
}

func TestALimitInATiersPlaceTakesWhatItLeavesOut(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	set := must[registry.Limit](t)
	gold := registry.SubjectRef{Kind: registry.KindTier, ID: "gold"}
	set(w.SetLimit(ctx, operator, registry.Limit{
		Subject: gold, Name: "month", Kind: registry.LimitQuota, Period: registry.PeriodMonth, Zone: "Australia/Perth",
		Amount: 100, Service: "as.0004.get", Environment: registry.PROD, Stage: registry.StagePROD,
	}, none))
	must[registry.Product](t)(w.SetTier(ctx, operator, "FP-1009", "gold", none))
	got := set(w.SetLimit(ctx, operator, registry.Limit{Subject: product("FP-1009"), Name: "month", Amount: 5}, none)).Entry.Value
	got.Updated = 0
	want := registry.Limit{
		ID: "product:FP-1009:month", Subject: product("FP-1009"), Name: "month", Kind: registry.LimitQuota, Period: registry.PeriodMonth,
		Zone: "Australia/Perth", Amount: 5, Service: "as.0004.get", Environment: registry.PROD, Stage: registry.StagePROD,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := w.RemoveLimit(ctx, operator, "tier:gold:month", none); !errors.Is(err, registry.ErrState) {
		t.Errorf("the last limit of a tier in use: %v, want ErrState", err)
	}
	must[registry.Product](t)(w.SetTier(ctx, operator, "FP-1009", registry.TierStandard, none))
	if _, err := w.RemoveLimit(ctx, operator, "tier:gold:month", none); err != nil {
		t.Errorf("the last limit of a tier that nobody is in: %v", err)
	}
}

func TestACallHasOnlySoManyLimitsToPass(t *testing.T) {
	w := newWorld(t)
	services := view(t, w).Services()
	for i := range 30 {
		_, err := w.SetLimit(t.Context(), operator, limit(func(l *registry.Limit) {
			l.Name, l.Service = fmt.Sprint("n", i), services[i%len(services)].ID
		}), none)
		if (err == nil) != (i < 16) {
			t.Errorf("limit %d of one product: %v", i, err)
		}
	}
	for i := range 5 {
		l := limit(func(l *registry.Limit) { l.Subject.ID, l.Name = "FP-1001", fmt.Sprint("n", i) })
		if _, err := w.SetLimit(t.Context(), operator, l, none); (err == nil) != (i < 3) {
			t.Errorf("limit %d of every call of a product: %v", i, err)
		}
	}
	for i := range 10 {
		l := limit(func(l *registry.Limit) {
			l.Subject, l.Name = registry.SubjectRef{Kind: registry.KindTier, ID: "gold"}, fmt.Sprint("n", i)
		})
		if _, err := w.SetLimit(t.Context(), operator, l, none); (err == nil) != (i < 8) {
			t.Errorf("limit %d of every call of a tier: %v", i, err)
		}
	}
}

func TestVerificationTestingLastsFourWeeks(t *testing.T) {
	w := newWorld(t)
	pilot := registry.Entitlement{Service: "abr.lookup", Environment: registry.PROD, Stage: registry.StagePVT, NamedClients: []registry.ABN{sample.Possum}}
	p := must[registry.Product](t)(w.SetEntitlement(t.Context(), assessor, "FP-1008", pilot, none)).Entry.Value
	if e := p.Entitled("abr.lookup", registry.PROD); e.From == 0 || e.Until != e.From+28*86_400_000 {
		t.Errorf("from %s until %s", e.From, e.Until)
	}
	pilot.From = registry.At(w.now())
	pilot.Until = pilot.From + 29*86_400_000
	var f *registry.FieldError
	if _, err := w.SetEntitlement(t.Context(), assessor, "FP-1008", pilot, none); !errors.As(err, &f) || f.Field != "/until" {
		t.Errorf("29 days: %v, want a FieldError of /until", err)
	}
}

// TestLimitsThatApply: each row is a call and what must apply to it, as
// ACCOUNT=AMOUNT.
func TestLimitsThatApply(t *testing.T) {
	tier := func(id string) registry.SubjectRef { return registry.SubjectRef{Kind: registry.KindTier, ID: id} }
	of := func(s registry.SubjectRef, name string, amount int64, f func(*registry.Limit)) registry.Limit {
		l := registry.Limit{ID: registry.LimitID(s, name), Subject: s, Name: name, Amount: amount, Kind: registry.LimitConcurrency}
		if f != nil {
			f(&l)
		}
		return l
	}
	on := func(service string) func(*registry.Limit) { return func(l *registry.Limit) { l.Service = service } }
	prod := func(l *registry.Limit) { l.Environment = registry.PROD }
	pvt := func(l *registry.Limit) { l.Environment, l.Stage = registry.PROD, registry.StagePVT }
	per := func(k registry.Kind) func(*registry.Limit) { return func(l *registry.Limit) { l.Per = k } }
	v := registrytest.View(t, 1,
		registry.Entity{ABN: sample.Galah}, registry.Service{Key: "a", Method: "GET", Template: "/a"}, registry.Service{Key: "b", Method: "GET", Template: "/b"},
		registry.Product{ID: "P", Owner: sample.Galah}, registry.Product{ID: "G", Owner: sample.Galah, Tier: "gold"},
		of(tier("standard"), "all", 1, nil), of(tier("standard"), "on-a", 2, on("a")), of(tier("standard"), "in-prod", 3, prod),
		of(tier("standard"), "each", 4, per(registry.KindSubscription)),
		of(tier("gold"), "all", 10, nil),
		of(product("G"), "all", 11, nil), of(product("G"), "more", 12, on("b")), of(product("P"), "trial", 13, pvt),
		of(registry.SubjectRef{Kind: registry.KindEntity, ID: sample.Galah.String()}, "whole", 20, nil),
		of(registry.SubjectRef{Kind: registry.KindService, ID: "b"}, "global", 30, nil),
		of(registry.SubjectRef{Kind: registry.KindSubscription, ID: "0000000001"}, "each", 40, nil),
		of(registry.SubjectRef{Kind: registry.KindClientApp, ID: "app"}, "own", 50, nil),
		func() registry.Limit { l := of(product("P"), "gone", 60, nil); l.Removed = 1; return l }(),
	)
	const galah = "entity:69000001010:whole=20"
	for _, c := range []struct {
		product, service, ssid string
		env                    registry.Environment
		stage                  registry.Stage
		want                   []string
	}{
		{"P", "a", "", registry.EVTE, 0, []string{"product:P:all=1", "product:P:on-a=2", "client-app:app:each=4", galah, "client-app:app:own=50"}},
		{"P", "b", "0000000001", registry.PROD, registry.StagePROD, []string{"product:P:all=1", "product:P:in-prod=3", "subscription:0000000001:each=40", galah, "client-app:app:own=50", "service:b:global=30"}},
		{"P", "b", "0000000002", registry.EVTE, 0, []string{"product:P:all=1", "subscription:0000000002:each=4", galah, "client-app:app:own=50", "service:b:global=30"}},
		{"P", "a", "", registry.PROD, registry.StagePVT, []string{"product:P:pvt-day=500", "product:P:pvt-rate=1", "product:P:trial=13", galah, "client-app:app:own=50"}},
		{"G", "b", "", registry.PROD, registry.StagePROD, []string{"product:G:all=11", "product:G:more=12", galah, "client-app:app:own=50", "service:b:global=30"}},
	} {
		q := &registry.LimitQuery{
			App: &registry.ClientApp{ClientID: "app"}, Product: v.Product(c.product), Service: v.Service(c.service), SSID: c.ssid, Environment: c.env, Stage: c.stage,
		}
		var room [32]registry.Applied
		var got []string
		for _, a := range v.AppendLimits(room[:0], q) {
			got = append(got, fmt.Sprintf("%s=%d", a.Account(), a.Amount))
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v:\n%s", c, diff)
		}
		if n := testing.AllocsPerRun(100, func() { v.AppendLimits(room[:0], q) }); n != 0 {
			t.Errorf("%v allocations to find the limits of %+v", n, c)
		}
	}
}

// TestTheIndexOfLimitsAgreesWithTheRecords: whatever order limits were set and
// removed in, also in many Views.
func TestTheIndexOfLimitsAgreesWithTheRecords(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := registrytest.View(t, 1)
		held := map[string]registry.Limit{}
		for rev := registry.Revision(2); rev < 12; rev++ {
			s := product(rapid.SampledFrom([]string{"P", "Q"}).Draw(rt, "subject"))
			l := registry.Limit{Subject: s, Name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "name"), Amount: int64(rev)}
			l.ID = registry.LimitID(s, l.Name)
			if rapid.Bool().Draw(rt, "removed") {
				l.Removed = 1
			}
			held[l.ID] = l
			v = registrytest.Next(t, v, rev, l)
			if v.LimitsRevision() != rev {
				rt.Fatalf("revision %d, the limits' is %d", rev, v.LimitsRevision())
			}
		}
		for _, id := range []string{"P", "Q"} {
			var want, got []registry.Limit
			for _, name := range []string{"a", "b", "c"} {
				if l, ok := held[registry.LimitID(product(id), name)]; ok && l.Removed == 0 {
					want = append(want, l)
				}
			}
			for _, l := range v.SubjectLimits(product(id)) {
				got = append(got, *l)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatal(diff)
			}
		}
	})
}
