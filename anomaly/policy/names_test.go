package policy_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// A measure may be of one subscription, where the control plane can tell which
// it is; where it cannot, a person is asked. The rest of the product goes on.
func TestASubscriptionIsStoppedAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		hasher, err := authz.NewSubjectHasher([]byte(strings.Repeat("s", 32)))
		if err != nil {
			t.Fatal(err)
		}
		w.enforced("stop", policy.Rule{When: policy.Condition{Signals: []string{"sweep"}, Subjects: []string{"subscription"}}, Then: policy.Countermeasure{Do: policy.Suspend, Minutes: 30, MaxTraffic: 100}})
		tell := func(ssid string) {
			h := hasher.Sum("software_id", ssid)
			w.engine.Tell(t.Context(), anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.Subscription, ID: hex.EncodeToString(h[:])}, Name: anomaly.SignalSweep, P: 1e-6, Value: 9, At: time.Now()})
			synctest.Wait()
		}
		tell("0000300001")
		if all := w.alarms(); len(all) != 1 || all[0].Outcome != policy.Asked || len(w.inForce()) != 0 {
			t.Fatalf("without the key: %+v", all)
		}
		w.engine.Names = policy.NewNames(hasher.Sum)
		tell("0000400001")
		var stopped *policy.Alarm
		for _, a := range w.alarms() {
			if a.Outcome == policy.Suspended {
				stopped = &a
			}
		}
		if stopped == nil || stopped.Product != "FP-1004" {
			t.Fatalf("with the key: %+v", w.alarms())
		}
		all := w.inForce()
		if len(all) != 1 || all[0].Subject != (registry.SubjectRef{Kind: registry.KindSubscription, ID: "0000400001"}) || !all[0].Automatic {
			t.Errorf("%+v", all)
		}
		tell("9999999999") // of none in the register
		if n := len(w.inForce()); n != 1 {
			t.Errorf("%d are stopped", n)
		}
	})
}

// The policies to begin with are good ones, and are entered once.
func TestPoliciesToBeginWith(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := policy.Starters()
		for _, s := range all {
			if err := s.Rule.Check(""); err != nil {
				t.Errorf("%s: %v", s.ID, err)
			}
		}
		w.must(w.Begin(t.Context(), operator, all, because))
		got := casesOf[policy.Policy](w, "policy")
		if len(got) != len(all) {
			t.Fatalf("%d of %d", len(got), len(all))
		}
		for _, p := range got {
			if p.Enforced != 0 || p.Shadow != 1 {
				t.Errorf("%s does not begin in shadow", p.ID)
			}
		}
		w.must(w.Stop(t.Context(), operator, all[0].ID, because))
		if out := w.must(w.Begin(t.Context(), operator, all, because)); !out.Existing {
			t.Error("they were entered twice")
		}
	})
}
