package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// One record at one revision stops whatever an entity owns or delivers: there
// is no moment at which some of its products are stopped and others not.
func TestSuspendingAnEntityStopsAllItsProductsInOneCommit(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		const n = 400
		var records []any
		for i := range n {
			id := fmt.Sprintf("FP-8%03d", i)
			records = append(records,
				registry.Product{ID: id, Name: id, Owner: sample.Wattlebird, Scenario: 1, Entitlements: []registry.Entitlement{{Service: "abr.lookup", Environment: registry.EVTE}}},
				registry.ClientApp{ClientID: "app-" + id, ProductID: id, Environment: registry.EVTE})
		}
		if _, err := r.Import(t.Context(), sample.Actor(), records, none); err != nil {
			t.Fatal(err)
		}
		standing := func(v *registry.View, i int) registry.Standing {
			app := v.ClientApp(fmt.Sprintf("app-FP-8%03d", i))
			return v.Standing(&registry.StandingQuery{App: app, Environment: registry.EVTE, Holder: sample.Wattlebird}, registry.At(time.Now()))
		}
		before, err := r.View()
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.Suspend(t.Context(), operator, registry.SuspendCommand{
			Subject: registry.SubjectRef{Kind: registry.KindEntity, ID: sample.Wattlebird.String()}, Reason: "taken over", Emergency: true,
		})
		if err != nil || s.Revision != before.Revision+1 {
			t.Fatalf("revision %d after %d, %v; want one commit", s.Revision, before.Revision, err)
		}
		changes, err := store.Changes(t.Context(), before.Revision, 1000)
		if err != nil || len(changes) != 1 || len(changes[0].Puts) != 1 {
			t.Fatalf("%d changes, %v; want one of one record", len(changes), err)
		}
		after, err := r.View()
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if got := standing(before, i).Code; got != registry.Good {
				t.Fatalf("product %d before: %v", i, got)
			}
			if got := standing(after, i); got.Code != registry.EntitySuspended || got.Suspension.ID != s.Entry.ID {
				t.Errorf("product %d at revision %d: %v", i, after.Revision, got.Code)
			}
		}
	})
}
