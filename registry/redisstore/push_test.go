package redisstore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
)

func TestAWakeUpCarriesTheChanges(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	w := registrytest.NewWriter(t, open(t, redisstore.Config{Addrs: []string{srv.Addr}}))
	wake := s.Wake(t.Context())
	woken := func() {
		t.Helper()
		select {
		case <-wake:
		case <-time.After(20 * time.Second):
			t.Fatal("no wake-up")
		}
	}
	woken() // subscribed
	w.Put(product("FP-1", "a"))
	woken()
	w.Put(product("FP-1", "b"))
	woken()
	want, err := s.Changes(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, s.Pushed(0)); diff != "" {
		t.Errorf("pushed (-want +got):\n%s", diff)
	}
	if got := s.Pushed(0); len(got) != 0 {
		t.Errorf("%d changes came twice", len(got))
	}

	// What the follower has is left out; after a gap there is nothing.
	w.Put(product("FP-1", "c"))
	woken()
	w.Put(product("FP-1", "d"))
	woken()
	if got := s.Pushed(3); len(got) != 1 || got[0].Revision != 4 {
		t.Errorf("after revision 3: %d changes", len(got))
	}
	w.Put(product("FP-1", "e"))
	woken()
	if got := s.Pushed(3); len(got) != 0 {
		t.Errorf("%d changes in spite of a gap", len(got))
	}

	// One too large for everybody's buffers only wakes, and so does nonsense.
	w.Put(product("FP-2", strings.Repeat("x", 300<<10)))
	woken()
	for _, message := range []string{"", "7", "7\n", "7\n5:C1", "7\nx:", "7\n99999999999999999999:", "7\n3:C1x"} {
		srv.Must("PUBLISH", "{dspgate}:wake", message)
		woken()
	}
	if got := s.Pushed(5); len(got) != 0 {
		t.Errorf("pushed: %d changes", len(got))
	}
	if got := headOf(t, s); got.Revision != registry.Revision(6) {
		t.Errorf("the head is %d", got.Revision)
	}
}

func TestEverySortOfRedisPushes(t *testing.T) {
	primary, replica, cluster := redistest.Start(t), redistest.Start(t), redistest.StartCluster(t)
	replica.Must("REPLICAOF", "127.0.0.1", fmt.Sprint(primary.Port))
	untilReplicating(t, primary, 1)
	sentinel := redistest.StartSentinel(t, "register", primary)
	for name, cfg := range map[string]redisstore.Config{
		"by Sentinels": {Addrs: []string{sentinel.Addr}, Master: "register", Replicas: 1, ReplicaTimeout: 20 * time.Second},
		"a Cluster":    {Addrs: []string{cluster.Addr}, Cluster: true},
	} {
		s := open(t, cfg)
		wake := s.Wake(t.Context())
		woken := func() {
			t.Helper()
			select {
			case <-wake:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: no wake-up", name)
			}
		}
		woken() // subscribed
		registrytest.NewWriter(t, open(t, cfg)).Put(product("FP-1", "a"))
		woken()
		if got := s.Pushed(0); len(got) != 1 || got[0].Revision != 1 {
			t.Errorf("%s: %d changes came with the wake-up, want one", name, len(got))
		}
	}
}

// crossed follows one Redis and is subscribed to another still.
type crossed struct {
	*redisstore.Store
	subscribed *redisstore.Store
}

func (c crossed) Wake(ctx context.Context) <-chan struct{} { return c.subscribed.Wake(ctx) }

func (c crossed) Pushed(after registry.Revision) []registry.Change { return c.subscribed.Pushed(after) }

// A subscription may outlive its primary's term: a sidecar then stops what it
// hears was stopped, lets nothing pass that did not before, and follows the
// successor again as soon as the writer has seen that it does not.
func TestASidecarToldByADeposedPrimaryFollowsItsSuccessor(t *testing.T) {
	deposed, successor := redistest.Start(t), redistest.Start(t)
	successor.Must("REPLICAOF", "127.0.0.1", fmt.Sprint(deposed.Port))
	untilReplicating(t, deposed, 1)
	old := open(t, redisstore.Config{Addrs: []string{deposed.Addr}, Replicas: 1, ReplicaTimeout: 20 * time.Second})
	before := startRegister(t, old, "one")
	until(t, "the control plane writes", writing(before))
	withApps(t, before, 2)
	stop, err := before.Suspend(t.Context(), operator, suspendApp(0))
	if err != nil {
		t.Fatal(err)
	}
	successor.Must("REPLICAOF", "NO", "ONE")

	s := open(t, redisstore.Config{Addrs: []string{successor.Addr}})
	m := registry.NewMirror(crossed{s, open(t, redisstore.Config{Addrs: []string{deposed.Addr}})}, registrytest.Sealer(t), registry.MirrorConfig{ID: "s", Incarnation: "1"})
	run(t, m.Run)
	until(t, "the sidecar follows", m.Ready)
	alone := open(t, redisstore.Config{Addrs: []string{deposed.Addr}})
	v, err := before.View()
	if err != nil {
		t.Fatal(err)
	}
	w := registrytest.NewWriterAt(t, alone, v.Epoch, v)
	w.Put(registry.Suspension{ID: "SU-901", Subject: registry.SubjectRef{Kind: registry.KindClientApp, ID: "app-1"}, Reason: "told", Starts: 1})
	until(t, "the sidecar stops what it was told of", func() bool {
		return m.View().Suspended(registry.KindClientApp, "app-1", registry.At(time.Now())) != nil
	})
	told := m.View().Revision
	lifted := stop.Entry.Value
	lifted.LiftedAt = registry.At(time.Now())
	w.Put(lifted)

	after := startRegister(t, s, "two")
	until(t, "it is superseded", func() bool { return headOf(t, s).Revision >= told })
	until(t, "the sidecar follows again", func() bool {
		h := headOf(t, s)
		return m.Ready() && m.View().Revision == h.Revision && m.View().Digest == h.Digest
	})
	if m.View().Suspended(registry.KindClientApp, "app-0", registry.At(time.Now())) == nil {
		t.Error("a lift was taken from a primary that was deposed")
	}
	next, err := after.Suspend(t.Context(), operator, suspendApp(1))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it is waited for like any other", func() bool {
		e, err := after.Await(t.Context(), next.Revision, 50*time.Millisecond)
		return err == nil && len(e.Sidecars) > 0 && e.Sidecars[0].State == registry.Acknowledged
	})
}
