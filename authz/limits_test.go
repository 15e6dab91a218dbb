package authz_test

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

func subject(kind registry.Kind, id string) registry.SubjectRef {
	return registry.SubjectRef{Kind: kind, ID: id}
}

func limitOn(s registry.SubjectRef, name string, kind registry.LimitKind, amount int64, more ...func(*registry.Limit)) registry.Limit {
	l := registry.Limit{ID: registry.LimitID(s, name), Subject: s, Name: name, Kind: kind, Amount: amount}
	switch kind {
	case registry.LimitRate:
		l.Burst = amount
	case registry.LimitQuota, registry.LimitClients:
		l.Period, l.Zone = registry.PeriodDay, registry.ZoneDefault
	}
	for _, f := range more {
		f(&l)
	}
	return l
}

func shadow(l *registry.Limit) { l.Shadow = true }

var (
	kooka    = subject(registry.KindProduct, "FP-1003")
	receipts = call{client: "fp-1003-prod", abn: kookaburra}
	lookup   = call{client: "fp-1003-prod", abn: kookaburra, path: "/registry/v1/abns/56000001313"}
)

func verify(tfn string) call {
	return call{client: "fp-1003-prod", abn: kookaburra, method: "POST", path: "/super/v1/member-verifications",
		edit: func(r *authz.Request) { r.Body = []byte(`{"tfn":"` + tfn + `"}`) }}
}

// newLimited is a bench whose register holds these limits besides the sample.
func newLimited(t testing.TB, limits ...registry.Limit) *bench {
	t.Helper()
	b := newBench(t, func(records []any) []any {
		records = append(records, sample.Limits()...)
		for _, l := range limits {
			records = append(records, l)
		}
		return records
	})
	b.now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	b.served.LongUntil, b.served.ShortUntil = 1<<62, 1<<62
	b.x.Limits = authz.NewLimits(ratelimit.Solo())
	return b
}

// pass lets time pass, on both clocks.
func (b *bench) pass(d time.Duration) { b.now, b.elapsed = b.now.Add(d), b.elapsed+d }

// expect decides some calls, one after the other.
func (b *bench) expect(c call, want ...authz.Reason) {
	b.t.Helper()
	for i, reason := range want {
		if d := b.decide(c); d.Reason != reason {
			b.t.Fatalf("call %d to %s: %s, want %s", i+1, c.path, d.Reason, reason)
		}
	}
}

func TestEachKindOfLimitRefusesWithItsOwnReason(t *testing.T) {
	b := newLimited(t,
		limitOn(kooka, "rate", registry.LimitRate, 2, func(l *registry.Limit) { l.Service = "receipts.get" }),
		limitOn(kooka, "daily", registry.LimitQuota, 3, func(l *registry.Limit) { l.Service = "abr.lookup" }),
		limitOn(kooka, "people", registry.LimitClients, 2, func(l *registry.Limit) { l.Service = "stic.validate" }),
	)
	b.expect(receipts, authz.OK, authz.OK, authz.RateLimited)
	b.expect(lookup, authz.OK, authz.OK, authz.OK, authz.QuotaExhausted)
	b.expect(verify("220115957"), authz.OK, authz.OK)
	b.expect(verify("519945334"), authz.OK)
	b.expect(verify("655902428"), authz.ClientFanoutExhausted)
	b.expect(verify("220 115 957"), authz.OK) // the same person
	d := b.decide(receipts)
	if d.RetryAfter <= 0 || d.RetryAfter > time.Second || d.Refused == nil || d.Refused.Account != "product:FP-1003:rate" {
		t.Errorf("retry after %v, refused by %+v", d.RetryAfter, d.Refused)
	}
	b.pass(500 * time.Millisecond)
	b.expect(receipts, authz.OK, authz.RateLimited)
	b.pass(time.Hour - 500*time.Millisecond) // 12:00 UTC is 23:00 in Sydney
	b.expect(lookup, authz.OK, authz.OK, authz.OK, authz.QuotaExhausted)
	if d := b.decide(lookup); d.RetryAfter < 23*time.Hour-time.Minute || d.RetryAfter > 24*time.Hour {
		t.Errorf("a daily quota says to come back after %v", d.RetryAfter)
	}
	b.expect(verify("655902428"), authz.OK)
}

func TestVerificationTestingIsCapped(t *testing.T) {
	const submit = "/lodgments/v1/activity-statements"
	pilot := call{client: "fp-1008-prod", abn: tinkerbird, clientABN: possum, method: "POST", path: submit}
	b := newLimited(t)
	b.expect(pilot, authz.OK, authz.OK, authz.RateLimited)
	for range 498 {
		b.pass(time.Second)
		b.expect(pilot, authz.OK)
	}
	b.pass(time.Second)
	b.expect(pilot, authz.PVTQuotaExhausted)
}

// TestARefusedCallSpendsNothing: neither of what refused it, nor of the others,
// whoever refused it.
func TestARefusedCallSpendsNothing(t *testing.T) {
	b := newLimited(t,
		limitOn(kooka, "daily", registry.LimitQuota, 2),
		limitOn(subject(registry.KindService, "stic.validate"), "global", registry.LimitRate, 1),
		limitOn(subject(registry.KindEntity, kookaburra), "people", registry.LimitClients, 1, func(l *registry.Limit) { l.Service = "stic.validate" }),
	)
	b.expect(verify("220115957"), authz.OK)
	b.expect(verify("220115957"), authz.RateLimited)
	b.pass(time.Second)
	b.expect(verify("519945334"), authz.ClientFanoutExhausted)
	broken := verify("1")
	broken.edit = func(r *authz.Request) { r.Body = []byte("{") }
	b.expect(broken, authz.RequestAmbiguous)
	b.expect(call{client: "fp-1003-prod", abn: kookaburra, clientABN: mallee}, authz.SubscriptionNotNominated)
	d := b.decide(verify("220115957"))
	if !d.Allowed() {
		t.Fatalf("the second of two a day: %s", d.Reason)
	}
	for i, st := range d.Spent.States() {
		if d.Plan.Items[i].Name == "daily" && st.Remaining != 0 {
			t.Errorf("%d of the day left, want 0", st.Remaining)
		}
	}
	b.expect(verify("220115957"), authz.QuotaExhausted)
}

func TestALimitOverAllCallersIsOneForAll(t *testing.T) {
	b := newLimited(t, limitOn(subject(registry.KindService, "receipts.get"), "global", registry.LimitRate, 2))
	b.expect(receipts, authz.OK)
	b.expect(call{client: "fp-1001-prod", abn: wattlebird}, authz.OK, authz.RateLimited)
	b.expect(receipts, authz.RateLimited)
	b.expect(lookup, authz.OK)
}

func TestAShadowLimitIsCountedAndRefusesNothing(t *testing.T) {
	b := newLimited(t, limitOn(kooka, "trial", registry.LimitRate, 1, shadow))
	b.expect(receipts, authz.OK, authz.OK, authz.OK)
	if got := b.x.Limits.Counts().Shadow[registry.LimitRate]; got != 2 {
		t.Errorf("%d counted, want 2", got)
	}
	d := b.decide(receipts)
	var order [ratelimit.LimitsMax]uint8
	if n := d.TightestFirst(&order); n != 0 {
		t.Errorf("a shadow limit would be told to the caller")
	}
	if d.Shadowed == nil || d.Shadowed.Name != "trial" {
		t.Errorf("the decision does not say which limit would have refused: %+v", d.Shadowed)
	}
}

// next takes the bench to the next revision of the register.
func (b *bench) next(values ...any) {
	b.t.Helper()
	view := b.served.View
	b.served = &registry.Served{View: registrytest.Next(b.t, view, view.Revision+1, values...), ShortUntil: 1 << 62, LongUntil: 1 << 62}
}

func TestAChangedLimitHoldsAtOnceAndKeepsWhatWasUsed(t *testing.T) {
	b := newLimited(t, limitOn(kooka, "daily", registry.LimitQuota, 4))
	b.expect(receipts, authz.OK, authz.OK)
	b.next(limitOn(kooka, "daily", registry.LimitQuota, 3))
	b.expect(receipts, authz.OK, authz.QuotaExhausted)
	b.next(limitOn(kooka, "daily", registry.LimitQuota, 2)) // less than already used
	b.expect(receipts, authz.QuotaExhausted)
	b.next(limitOn(kooka, "daily", registry.LimitQuota, 5))
	b.expect(receipts, authz.OK, authz.OK, authz.QuotaExhausted)
	b.next(limitOn(kooka, "daily", registry.LimitQuota, 5, func(l *registry.Limit) { l.Removed = 1 }))
	b.expect(receipts, authz.OK, authz.OK)
	b.next(limitOn(kooka, "daily", registry.LimitQuota, 5))
	b.expect(receipts, authz.QuotaExhausted)
}

func TestATierIsOverriddenAndHoldsAgain(t *testing.T) {
	tier := subject(registry.KindTier, registry.TierStandard)
	b := newLimited(t, limitOn(tier, "daily", registry.LimitQuota, 2), limitOn(kooka, "daily", registry.LimitQuota, 4))
	b.expect(receipts, authz.OK, authz.OK, authz.OK)
	b.expect(call{client: "fp-1001-prod", abn: wattlebird}, authz.OK, authz.OK, authz.QuotaExhausted)
	b.next(limitOn(kooka, "daily", registry.LimitQuota, 4, func(l *registry.Limit) { l.Removed = 1 }))
	b.expect(receipts, authz.QuotaExhausted)
	b.next(limitOn(tier, "daily", registry.LimitQuota, 9))
	b.expect(receipts, authz.OK)
}

func TestConcurrencyIsHeldUntilTheCallEnds(t *testing.T) {
	b := newLimited(t, limitOn(kooka, "at-once", registry.LimitConcurrency, 2))
	holds := authz.NewHolds()
	pass := func() authz.DecisionID {
		t.Helper()
		d := b.decide(receipts)
		if !d.Allowed() {
			t.Fatal(d.Reason)
		}
		holds.Keep(&d)
		return d.ID
	}
	first := pass()
	pass()
	b.expect(receipts, authz.RateLimited)
	if holds.Len() != 2 {
		t.Errorf("%d held, want 2", holds.Len())
	}
	holds.Ended(first)
	holds.Ended(first) // Envoy's last entry may come twice
	pass()
	b.expect(receipts, authz.RateLimited)
}

func TestTightestFirst(t *testing.T) {
	b := newLimited(t,
		limitOn(kooka, "a", registry.LimitQuota, 3), limitOn(kooka, "b", registry.LimitQuota, 9), limitOn(kooka, "c", registry.LimitRate, 5),
		limitOn(subject(registry.KindEntity, kookaburra), "d", registry.LimitQuota, 1, func(l *registry.Limit) { l.Period = registry.PeriodMonth }),
		limitOn(subject(registry.KindService, "receipts.get"), "e", registry.LimitQuota, 4, shadow),
	)
	names := func(d *authz.Decision) (s string) {
		var order [ratelimit.LimitsMax]uint8
		for _, i := range order[:d.TightestFirst(&order)] {
			s += d.Plan.Items[i].Name
		}
		return s
	}
	d := b.decide(receipts)
	if got := names(&d); got != "dacb" {
		t.Errorf("allowed: %s, want dacb", got)
	}
	if d = b.decide(receipts); d.Reason != authz.QuotaExhausted || names(&d) != "dacb" || d.Refused.Name != "d" {
		t.Errorf("refused: %s by %+v, told %s", d.Reason, d.Refused, names(&d))
	}
}

func TestPlansAreBoundedAndSharedByLikeCalls(t *testing.T) {
	b := newLimited(t, limitOn(kooka, "daily", registry.LimitQuota, 1_000_000))
	one, two := b.decide(receipts), b.decide(receipts)
	if one.Plan == nil || one.Plan != two.Plan {
		t.Error("two like calls have two plans")
	}
	other := b.decide(lookup)
	if other.Plan == one.Plan {
		t.Error("a call to another service has the same plan")
	}
	b.next(limitOn(kooka, "other", registry.LimitQuota, 5))
	if d := b.decide(receipts); d.Plan == one.Plan || len(d.Plan.Items) != 2 {
		t.Error("a plan outlived a change of limits")
	}
}

func TestPayingDoesNotAllocate(t *testing.T) {
	b := newLimited(t,
		limitOn(kooka, "rate", registry.LimitRate, 1_000_000), limitOn(kooka, "daily", registry.LimitQuota, 1_000_000),
		limitOn(kooka, "people", registry.LimitClients, 1000), limitOn(subject(registry.KindEntity, kookaburra), "month", registry.LimitQuota, 1_000_000, func(l *registry.Limit) { l.Period = registry.PeriodMonth }),
		limitOn(subject(registry.KindService, "piitr.get"), "global", registry.LimitRate, 1_000_000), limitOn(kooka, "trial", registry.LimitQuota, 1, shadow),
		limitOn(kooka, "piitr-rate", registry.LimitRate, 1_000_000), // in the place of the tier's
	)
	r := b.request(call{client: "fp-1003-prod", abn: kookaburra, path: "/individuals/v1/220115957/prefill"})
	refused := b.request(call{client: "fp-1008-prod", abn: tinkerbird, clientABN: possum, method: "POST", path: "/lodgments/v1/activity-statements"})
	var d authz.Decision
	b.x.Decide(r, &d)
	for range 3 { // more than the burst
		b.x.Decide(refused, &d)
	}
	if n := testing.AllocsPerRun(200, func() {
		if b.x.Decide(r, &d); !d.Allowed() || len(d.Plan.Items) != 8 {
			t.Fatal(d.Reason)
		}
	}); n != 0 {
		t.Errorf("%v allocations to allow", n)
	}
	if n := testing.AllocsPerRun(200, func() {
		if b.x.Decide(refused, &d); d.Reason != authz.RateLimited {
			t.Fatal(d.Reason)
		}
	}); n != 0 {
		t.Errorf("%v allocations to refuse", n)
	}
}

func TestAnAddressIsBoundedBeforeItsTokenIsLookedAt(t *testing.T) {
	b := newBench(t, nil)
	b.x.Addresses = authz.NewAddresses(1, 3, 1024)
	bad := call{edit: func(r *authz.Request) { r.Authorization = "Bearer x.y.z" }}
	b.expect(bad, authz.TokenMalformed, authz.TokenMalformed, authz.TokenMalformed, authz.RateLimited)
	b.expect(receipts, authz.RateLimited)
	other := receipts
	other.edit = func(r *authz.Request) { r.Peer = "192.0.2.7" }
	b.expect(other, authz.OK)
	if d := b.decide(receipts); d.RetryAfter <= 0 || d.Plan != nil {
		t.Errorf("retry after %v, plan %v", d.RetryAfter, d.Plan)
	}
}

func ExampleLimitOf() {
	l, ok := authz.LimitOf(registry.Applied{Limit: &registry.Limit{Name: "rate", Kind: registry.LimitRate, Amount: 5, Burst: 10}, Of: kooka}, nil)
	fmt.Println(l.ID, l.Kind, l.Rate, l.Burst, ok)
	// Output: product:FP-1003:rate/rate rate 5 10 true
}

// BenchmarkDecide shows, among others, that a request refused by a limit costs
// less than one that passes the same limits.
func BenchmarkDecide(b *testing.B) {
	every := []registry.Limit{
		limitOn(kooka, "rate", registry.LimitRate, 1_000_000), limitOn(kooka, "daily", registry.LimitQuota, 1_000_000_000),
		limitOn(kooka, "people", registry.LimitClients, 1000, func(l *registry.Limit) { l.Service = "as.0004.submit" }),
		limitOn(kooka, "at-once", registry.LimitConcurrency, 1000),
		limitOn(subject(registry.KindEntity, kookaburra), "month", registry.LimitQuota, 1_000_000_000, func(l *registry.Limit) { l.Period = registry.PeriodMonth }),
		limitOn(subject(registry.KindService, "as.0004.submit"), "global", registry.LimitRate, 1_000_000),
		limitOn(kooka, "as-submit-rate", registry.LimitRate, 1_000_000, func(l *registry.Limit) { l.Service = "as.0004.submit" }),
	}
	for name, limits := range map[string][]registry.Limit{
		"no limits":           nil,
		"every kind of limit": every,
		"refused":             append([]registry.Limit{limitOn(kooka, "spent", registry.LimitQuota, 1)}, every...),
	} {
		b.Run(name, func(b *testing.B) {
			x := newLimited(b, limits...)
			if limits == nil {
				x.x.Limits = nil
			}
			r := x.request(call{client: "fp-1003-prod", abn: kookaburra, ssid: "0000300001", clientABN: possum, method: "POST", path: "/lodgments/v1/activity-statements"})
			holds := authz.NewHolds()
			var d authz.Decision
			x.x.Decide(r, &d)
			b.ReportAllocs()
			for b.Loop() {
				x.x.Decide(r, &d)
				holds.Keep(&d)
				holds.Ended(d.ID)
			}
		})
	}
}

// TestManyAtOnceSpendExactly: whatever the interleaving, all of the quota and
// no more, over two services whose calls have plans of their own.
func TestManyAtOnceSpendExactly(t *testing.T) {
	const quota = 500
	b := newLimited(t, limitOn(kooka, "daily", registry.LimitQuota, quota))
	requests := []*authz.Request{b.request(receipts), b.request(call{client: "fp-1003-evte", abn: kookaburra, host: "evte.localhost", path: lookup.path})}
	var passed atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var d authz.Decision
			for range 200 {
				switch b.x.Decide(requests[g%2], &d); d.Reason {
				case authz.OK:
					passed.Add(1)
				case authz.QuotaExhausted:
				default:
					t.Errorf("decided %s", d.Reason)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != quota {
		t.Errorf("%d passed, want %d", passed.Load(), quota)
	}
}

// TestLimitsOfOneNameAreToldApart: a policy and its state have only the name in common.
func TestLimitsOfOneNameAreToldApart(t *testing.T) {
	b := newLimited(t,
		limitOn(subject(registry.KindEntity, kookaburra), "daily", registry.LimitQuota, 30),
		limitOn(kooka, "daily", registry.LimitQuota, 20),
		limitOn(subject(registry.KindClientApp, "fp-1003-prod"), "daily", registry.LimitQuota, 40, shadow),
		limitOn(subject(registry.KindService, "receipts.get"), "daily", registry.LimitQuota, 1),
	)
	b.expect(receipts, authz.OK)
	d := b.decide(receipts)
	if d.Reason != authz.QuotaExhausted || d.Refused.Shown != "service:daily" || d.Refused.Account != "service:receipts.get:daily" {
		t.Errorf("%s by %+v", d.Reason, d.Refused)
	}
	shown := map[string]string{}
	for _, i := range d.Plan.Items {
		if i.Name != "daily" || i.Shadow {
			continue
		}
		if shown[i.Shown] != "" || i.Quoted != `"`+i.Shown+`"` || i.Policy != fmt.Sprintf("%s;q=%d;w=86400", i.Quoted, i.Amount) {
			t.Errorf("%+v", i)
		}
		shown[i.Shown] = i.Account
	}
	want := map[string]string{"daily": "entity:31000000202:daily", "product:daily": "product:FP-1003:daily", "service:daily": "service:receipts.get:daily"}
	if !maps.Equal(shown, want) {
		t.Errorf("shown %v, want %v", shown, want)
	}
}

// TestALimitOfAnotherKindIsCountedAnew: by the same name, one after the other.
func TestALimitOfAnotherKindIsCountedAnew(t *testing.T) {
	b := newLimited(t, limitOn(kooka, "most", registry.LimitQuota, 2))
	b.expect(receipts, authz.OK, authz.OK, authz.QuotaExhausted)
	change := func(l registry.Limit) authz.Decision {
		t.Helper()
		b.next(l)
		return b.decide(receipts)
	}
	if d := change(limitOn(kooka, "most", registry.LimitRate, 3, func(l *registry.Limit) { l.Burst = 5 })); !d.Allowed() || d.Spent.States()[0].Remaining != 4 || d.Spent.States()[0].Reset > time.Second {
		t.Errorf("a rate: %s, %+v", d.Reason, d.Spent.States()[0])
	}
	if d := change(limitOn(kooka, "most", registry.LimitConcurrency, 2)); !d.Allowed() || d.Spent.States()[0].Remaining != 1 || d.Spent.States()[0].Reset != 0 {
		t.Errorf("calls at once: %s, %+v", d.Reason, d.Spent.States()[0])
	}
	if d := change(limitOn(kooka, "most", registry.LimitQuota, 7, func(l *registry.Limit) { l.Period = registry.PeriodMonth })); !d.Allowed() || d.Spent.States()[0].Remaining != 6 || d.Spent.States()[0].Reset < 24*time.Hour {
		t.Errorf("a month's quota: %s, %+v", d.Reason, d.Spent.States()[0])
	}
	// What was used of the first stays used.
	if d := change(limitOn(kooka, "most", registry.LimitQuota, 2)); d.Reason != authz.QuotaExhausted {
		t.Errorf("a day's quota again: %s, %+v", d.Reason, d.Spent.States()[0])
	}
}
