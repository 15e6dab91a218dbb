package authz_test

import (
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
)

// newCurbed is a bench whose register holds these suspensions besides the sample.
func newCurbed(t testing.TB, all ...registry.Suspension) *bench {
	t.Helper()
	b := newBench(t, func(records []any) []any {
		for _, s := range all {
			records = append(records, s)
		}
		return records
	})
	b.served.LongUntil, b.served.ShortUntil = 1<<62, 1<<62
	b.x.Limits = authz.NewLimits(ratelimit.Solo())
	return b
}

// A throttle lets its rate through, over all services of its subject together,
// says who slowed the call down, and ends by itself.
func TestAThrottleSlowsDown(t *testing.T) {
	end := registry.At(time.Now().Add(time.Hour))
	for name, of := range map[string]registry.SubjectRef{"product": kooka, "client app": subject(registry.KindClientApp, "fp-1003-prod")} {
		b := newCurbed(t, registry.Suspension{ID: "SU-9", Subject: of, Automatic: true, Starts: 1, Expires: end, Effect: registry.EffectThrottle, Rate: 2, Revision: 9})
		b.expect(receipts, authz.OK)
		b.expect(lookup, authz.OK)
		b.expect(receipts, authz.AnomalyThrottled)
		d := b.decide(lookup)
		if d.Reason != authz.AnomalyThrottled || d.Suspension == nil || d.Suspension.ID != "SU-9" || d.RetryAfter <= 0 || d.RetryAfter > time.Second ||
			d.Refused == nil || d.Refused.Name != "throttle" || d.Refused.Policy != `"throttle";q=2;w=1` {
			t.Errorf("%s: %s after %v by %+v, suspension %+v", name, d.Reason, d.RetryAfter, d.Refused, d.Suspension)
		}
		b.pass(500 * time.Millisecond)
		b.expect(lookup, authz.OK, authz.AnomalyThrottled)
		if d := b.decide(call{client: "fp-1002-prod", abn: ironbark}); d.Reason != authz.OK {
			t.Errorf("%s: another product was %s", name, d.Reason)
		}
		b.pass(time.Hour)
		b.expect(lookup, authz.OK, authz.OK, authz.OK, authz.OK)
	}
}

// A person's throttle is a limit like any other.
func TestAPersonsThrottleIsALimit(t *testing.T) {
	b := newCurbed(t, registry.Suspension{ID: "SU-9", Subject: kooka, Starts: 1, Effect: registry.EffectThrottle, Rate: 2, Revision: 9})
	b.expect(lookup, authz.OK, authz.OK, authz.RateLimited)
}

// A restriction leaves the services of low ratings, and so does an automatic one.
func TestARestrictionLeavesLowRatings(t *testing.T) {
	for _, automatic := range []bool{false, true} {
		b := newCurbed(t, registry.Suspension{ID: "SU-9", Subject: kooka, Automatic: automatic, Starts: 1, Effect: registry.EffectRestrict, MaxRisk: 2})
		b.expect(lookup, authz.OK)
		d := b.decide(verify("220115957"))
		if d.Reason != authz.ProductRestricted || d.Suspension == nil || d.Suspension.ID != "SU-9" {
			t.Errorf("decided %s by %+v", d.Reason, d.Suspension)
		}
	}
}

// TestCurbsOnlyTakeAway: whatever curbs there are, and whatever else holds, no
// call passes that would not have passed without them.
func TestCurbsOnlyTakeAway(t *testing.T) {
	calls := []call{receipts, lookup, verify("220115957"), {client: "fp-1002-prod", abn: ironbark}, {client: "no-such", abn: ironbark}}
	effects := []registry.Suspension{
		{Effect: registry.EffectThrottle, Rate: 1}, {Effect: registry.EffectThrottle, Rate: 1_000_000},
		{Effect: registry.EffectRestrict, MaxRisk: 1}, {Effect: registry.EffectRestrict, MaxRisk: 3}, {},
	}
	for i, stop := range []bool{false, true} {
		plain := newCurbed(t)
		var all []registry.Suspension
		if stop {
			all = append(all, registry.Suspension{ID: "SU-1", Subject: kooka, Starts: 1})
			plain = newCurbed(t, all...)
		}
		for j, s := range effects {
			s.ID, s.Subject, s.Starts, s.Automatic, s.Revision = "SU-2", kooka, 1, true, 2
			b := newCurbed(t, append(all, s)...)
			for k, c := range calls {
				if got, want := b.decide(c), plain.decide(c); got.Allowed() && !want.Allowed() {
					t.Errorf("%d/%d: call %d passed by a curb", i, j, k)
				}
			}
		}
	}
}

func TestAThrottledDecisionDoesNotAllocate(t *testing.T) {
	b := newCurbed(t, registry.Suspension{ID: "SU-9", Subject: kooka, Automatic: true, Starts: 1, Effect: registry.EffectThrottle, Rate: 1_000_000, Revision: 9})
	r, d := b.request(lookup), authz.Decision{}
	b.x.Decide(r, &d)
	if n := testing.AllocsPerRun(200, func() { b.x.Decide(r, &d) }); n > 0 || d.Reason != authz.OK {
		t.Errorf("%v allocations, decided %s", n, d.Reason)
	}
}
