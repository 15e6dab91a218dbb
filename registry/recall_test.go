package registry_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// A suspension is committed on a primary that a replica is about to replace; the
// control planes that made it are killed, and one started anew finds it in force
// and says so. Then the replica takes over, which has never heard of it.
func TestWhatAPlaneStartedAnewConfirmedIsGivenBack(t *testing.T) {
	for _, before := range []int{1, 40, 700} {
		synctest.Test(t, func(t *testing.T) {
			store := registrytest.NewMemory()
			a := startPlane(t, store, "a", registry.RegisterConfig{ClaimTTL: time.Second})
			if _, err := a.r.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), none); err != nil {
				t.Fatal(err)
			}
			for range before {
				s, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1002"))
				if err == nil {
					_, err = a.r.LiftSuspension(t.Context(), operator2, s.Entry.ID, registry.Meta{Reason: "found nothing"})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			promote := store.Replica()
			first, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
			if err != nil {
				t.Fatal(err)
			}
			a.stop()
			time.Sleep(3 * time.Second)
			b := startPlane(t, store, "b", registry.RegisterConfig{ClaimTTL: time.Second})
			defer b.stop()
			time.Sleep(3 * time.Second)
			again, err := b.r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
			if err != nil || !again.Existing || again.Entry.ID != first.Entry.ID {
				t.Fatalf("%+v, %v; want %s as it was", again, err, first.Entry.ID)
			}
			want := store.Head()
			promote()
			time.Sleep(5 * time.Second)
			if got := store.Head(); got.Revision != want.Revision || got.Digest != want.Digest {
				t.Errorf("after %d changes: the head is %d, want %d: the suspension is lost", before, got.Revision, want.Revision)
			}
			if _, err := b.r.Suspend(t.Context(), operator, suspendFP("FP-1009")); err != nil {
				t.Errorf("after %d changes: it does not go on: %v", before, err)
			}
		})
	}
}
