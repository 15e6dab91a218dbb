package registry_test

import (
	"errors"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// One person stops a subject for 4 h, however often they impose it meanwhile.
func TestNobodyExtendsTheirOwnSuspensionAlone(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	first := must[registry.Suspension](t)(w.Suspend(ctx, operator, suspendFP("FP-1001"))).Entry.Value
	end := first.ImposedAt + registry.Time(registry.SuspendAlone.Milliseconds())
	ends := func(what string, by registry.Actor, c registry.SuspendCommand, want registry.Time) {
		t.Helper()
		if s := must[registry.Suspension](t)(w.Suspend(ctx, by, c)).Entry.Value; s.Expires < want || s.Expires > want+60_000 { // the clock goes on
			t.Errorf("%s: ends at %s, want %s", what, s.Expires, want)
		}
	}
	later := func(d time.Duration) registry.Time { return registry.At(w.now().Add(d)) }

	w.pass(3 * time.Hour)
	ends("the same again", operator, suspendFP("FP-1001"), end)
	emergency := suspendFP("FP-1001")
	emergency.Emergency = true
	ends("as an emergency", operator, emergency, end)
	longer := suspendFP("FP-1001")
	longer.Expires = later(3 * time.Hour)
	var f *registry.FieldError
	if _, err := w.Suspend(ctx, operator, longer); !errors.As(err, &f) || f.Field != "/expires_at" {
		t.Errorf("two hours longer: %v", err)
	}
	ends("by another person", operator2, longer, longer.Expires)

	// In a row of short ones, what counts is the first; after the row, and after one
	// that was lifted, it begins anew.
	short := func(d time.Duration) registry.SuspendCommand {
		c := suspendFP("FP-1003")
		c.Expires = later(d)
		return c
	}
	begun := registry.At(w.now())
	ends("short", operator, short(30*time.Minute), later(30*time.Minute))
	w.pass(20 * time.Minute)
	ends("and on", operator, suspendFP("FP-1003"), begun+registry.Time(registry.SuspendAlone.Milliseconds()))
	w.pass(200 * time.Minute)
	last := must[registry.Suspension](t)(w.Suspend(ctx, operator, suspendFP("FP-1003")))
	if last.Entry.Value.Expires != begun+registry.Time(registry.SuspendAlone.Milliseconds()) {
		t.Errorf("the row ends at %s", last.Entry.Value.Expires)
	}
	w.pass(time.Hour)
	ends("after it", operator, suspendFP("FP-1003"), later(4*time.Hour))
	again := must[registry.Suspension](t)(w.Suspend(ctx, operator, suspendFP("FP-1003")))
	must[registry.Suspension](t)(w.LiftSuspension(ctx, operator2, again.Entry.ID, none))
	w.pass(time.Minute)
	ends("after it was lifted", operator, suspendFP("FP-1003"), later(4*time.Hour))

	// What a second person granted, the first may impose as well.
	must[registry.Suspension](t)(w.Suspend(ctx, operator, suspendFP("FP-1009")))
	again = must[registry.Suspension](t)(w.Suspend(ctx, operator, suspendFP("FP-1009")))
	confirmed := must[registry.Suspension](t)(w.ConfirmSuspension(ctx, operator2, again.Entry.ID, 0, none)).Entry.Value
	w.pass(time.Minute)
	emergency.Subject, emergency.Expires = confirmed.Subject, 0
	ends("as an emergency, once confirmed", operator, emergency, confirmed.Expires)
}

func TestAProductIDIsNoVersion(t *testing.T) {
	w := newWorld(t)
	var f *registry.FieldError
	_, err := w.CreateProduct(t.Context(), registrar, registry.Product{ID: "FP-1001@5", Name: "x", Owner: 31000000202}, none)
	if !errors.As(err, &f) || f.Field != "/id" {
		t.Errorf("a product named as a version of another's: %v", err)
	}
}
