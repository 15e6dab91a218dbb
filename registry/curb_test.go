package registry_test

import (
	"errors"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// A curb needs what it is of, and nothing else, and is found by what it curbs.
func TestCurbs(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	app := registry.SubjectRef{Kind: registry.KindClientApp, ID: "fp-1001-prod"}
	with := func(of registry.SubjectRef, effect registry.Effect, rate int64, risk registry.Risk) registry.SuspendCommand {
		return registry.SuspendCommand{Subject: of, Reason: "strays", Effect: effect, Rate: rate, MaxRisk: risk}
	}
	for field, c := range map[string]registry.SuspendCommand{
		"/rate":         with(app, registry.EffectThrottle, 0, 0),
		"/max_risk":     with(app, registry.EffectRestrict, 0, 4),
		"/subject/kind": with(registry.SubjectRef{Kind: registry.KindService, ID: "abr.lookup"}, registry.EffectRestrict, 0, 1),
	} {
		var f *registry.FieldError
		if _, err := w.Suspend(ctx, operator, c); !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	stop := func() *registry.Standing {
		v := view(t, w)
		s := v.Standing(&registry.StandingQuery{App: v.ClientApp(app.ID), Environment: registry.PROD, Service: v.Service("as.0004.get")}, registry.At(w.now()))
		return &s
	}
	slow := must[registry.Suspension](t)(w.Suspend(ctx, operator, with(app, registry.EffectThrottle, 5, 0)))
	if again := must[registry.Suspension](t)(w.Suspend(ctx, operator, with(app, registry.EffectThrottle, 5, 0))); again.Entry.ID != slow.Entry.ID {
		t.Error("the same throttle twice is two")
	}
	must[registry.Suspension](t)(w.Suspend(ctx, operator, with(app, registry.EffectThrottle, 7, 0)))
	if s := stop(); s.Code != registry.Good || s.Throttles[1] == nil || s.Throttles[1].Rate != 5 {
		t.Errorf("throttled twice: %+v", s)
	}
	low := must[registry.Suspension](t)(w.Suspend(ctx, operator, with(product("FP-1001"), registry.EffectRestrict, 0, 2)))
	if s := stop(); s.Code != registry.Curtailed || s.Suspension.ID != low.Entry.ID {
		t.Errorf("restricted: %+v", s)
	}
	must[registry.Suspension](t)(w.LiftSuspension(ctx, operator2, low.Entry.ID, none))
	must[registry.Suspension](t)(w.LiftSuspension(ctx, operator2, slow.Entry.ID, none))
	if s := stop(); s.Code != registry.Good || s.Throttles[1].Rate != 7 {
		t.Errorf("lifted: %+v", s)
	}
	w.pass(registry.SuspendAlone + time.Second)
	if s := stop(); s.Code != registry.Good || s.Throttles.Any() {
		t.Errorf("run out: %+v", s)
	}
}
