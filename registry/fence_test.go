package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// plane is a control plane in a bubble, to be crashed and started anew.
type plane struct {
	r    *registry.Register
	m    *registry.Mirror
	link *registrytest.Link
	stop func()
}

func startPlane(t *testing.T, store registrytest.Store, holder string, cfg registry.RegisterConfig) *plane {
	t.Helper()
	began := time.Now()
	p := &plane{link: registrytest.NewLink(store)}
	p.m = registry.NewMirror(p.link, registrytest.Sealer(t), registry.MirrorConfig{
		ID: holder, Observer: true, Clock: func() time.Duration { return time.Since(began) },
	})
	cfg.Holder = holder
	p.r = registry.NewRegister(p.link, p.m, registrytest.Sealer(t), cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.m.Run(ctx) })
	wg.Go(func() { _ = p.r.Run(ctx) })
	p.stop = func() { cancel(); wg.Wait() }
	synctest.Wait()
	return p
}

func join(t *testing.T, store registry.Log, id, incarnation string, rev registry.Revision, digest registry.Digest) {
	t.Helper()
	_, err := store.Follow(t.Context(), registry.Ack{
		ID: id, Incarnation: incarnation, Revision: rev, Digest: digest, Short: 2 * time.Second, Long: time.Minute,
	}, 1000)
	if err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, r *registry.Register, rev registry.Revision) registry.Enforcement {
	t.Helper()
	e, err := r.Await(t.Context(), rev, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func states(e registry.Enforcement) (s string) {
	for _, x := range e.Sidecars {
		s += x.ID + "/" + x.Incarnation + " " + x.State + "; "
	}
	return fmt.Sprint(s, "complete ", e.Complete)
}

func wantStates(t *testing.T, when string, e registry.Enforcement, want string) {
	t.Helper()
	if got := states(e); got != want {
		t.Errorf("%s: %s, want %s", when, got, want)
	}
}

func TestASidecarStartedAnewDoesNotHideAPausedOne(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		h := store.Head()
		join(t, store, "a", "paused", h.Revision, h.Digest)
		time.Sleep(30 * time.Second)
		s, err := r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if err != nil {
			t.Fatal(err)
		}
		join(t, store, "a", "new", s.Revision, store.Head().Digest)
		wantStates(t, "within the paused one's lease", await(t, r, s.Revision), "a/paused pending; a/new acknowledged; complete false")
		all, err := r.Sidecars(t.Context())
		if err != nil || len(all) != 2 {
			t.Errorf("listed %+v, %v; want both incarnations", all, err)
		}
		time.Sleep(25 * time.Second)
		join(t, store, "a", "new", s.Revision, store.Head().Digest)
		time.Sleep(8 * time.Second)
		// It is over, and the name lives on: nobody lapsed.
		wantStates(t, "after it", await(t, r, s.Revision), "a/new acknowledged; complete true")
	})
}

func TestASidecarLostFromTheRollInAFailoverIsWaitedFor(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		h := store.Head()
		join(t, store, "known", "1", h.Revision, h.Digest)
		promote := store.Replica()
		join(t, store, "lost", "1", h.Revision, h.Digest)
		time.Sleep(2 * time.Second) // the control plane has seen it
		join(t, store, "unseen", "1", h.Revision, h.Digest)
		promote()
		s, err := r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if err != nil {
			t.Fatal(err)
		}
		join(t, store, "known", "1", s.Revision, store.Head().Digest)
		e := await(t, r, s.Revision)
		wantStates(t, "after the failover", e, "known/1 acknowledged; lost/1 pending; unknown-sidecars/ pending; complete false")
		for _, x := range e.Sidecars[1:] {
			if left := time.Until(x.Until[1].Std()); left < time.Minute || left > 62*time.Second {
				t.Errorf("%s: exposed for %v, want the long lease and a margin", x.ID, left)
			}
		}
		// Another control plane, started now, knows from the store that it may not be sure.
		other := startPlane(t, store, "other", registry.RegisterConfig{})
		wantStates(t, "another", await(t, other.r, s.Revision), "known/1 acknowledged; unknown-sidecars/ pending; complete false")
		for range 65 {
			time.Sleep(time.Second)
			join(t, store, "known", "1", s.Revision, store.Head().Digest)
		}
		wantStates(t, "a lease later", await(t, r, s.Revision), "known/1 acknowledged; complete true")
		other.stop()
		// Nor is one started after that: the store was told.
		other = startPlane(t, store, "other", registry.RegisterConfig{})
		wantStates(t, "one started later", await(t, other.r, s.Revision), "known/1 acknowledged; complete true")
		other.stop()
	})
}

func TestTheStoresClockMakesNobodyLapse(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		h := store.Head()
		join(t, store, "a", "1", h.Revision, h.Digest)
		time.Sleep(time.Second)
		store.SetClock(24 * time.Hour)
		wantStates(t, "the clock jumped a day ahead", await(t, r, h.Revision+1), "a/1 pending; complete false")
		// Nor does it for one started after the jump, which cannot know better than a whole lease.
		other := startPlane(t, store, "other", registry.RegisterConfig{})
		wantStates(t, "another", await(t, other.r, h.Revision+1), "a/1 pending; complete false")
		time.Sleep(62 * time.Second)
		wantStates(t, "a lease later", await(t, other.r, h.Revision+1), "a/1 lapsed; complete true")
		other.stop()
	})
}

func TestALapsedSidecarThatComesBackIsCounted(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		join(t, store, "a", "1", 0, registry.Digest{})
		time.Sleep(70 * time.Second)
		if st := r.RollStats(); st.Lapses != 1 || st.Returns != 0 || st.Lapsed != 1 || st.Sidecars != 0 {
			t.Errorf("silent: %+v", st)
		}
		join(t, store, "a", "1", 0, registry.Digest{})
		time.Sleep(2 * time.Second)
		if st := r.RollStats(); st.Lapses != 1 || st.Returns != 1 || st.Lapsed != 0 || st.Sidecars != 1 || st.LagMax != 1 {
			t.Errorf("back: %+v", st)
		}
	})
}

// A number alone does not say what a sidecar holds: the store may have given it twice.
func TestAnotherChangeOfTheSameNumberIsNoAcknowledgement(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		join(t, store, "a", "1", store.Head().Revision+1, registry.Digest{1, 2})
		s, err := r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if err != nil {
			t.Fatal(err)
		}
		wantStates(t, "of another history", await(t, r, s.Revision), "a/1 pending; complete false")
	})
}

func TestAStoreThatLostItsEndIsGivenItBack(t *testing.T) {
	for _, who := range []string{"the writer", "another that followed"} {
		synctest.Test(t, func(t *testing.T) {
			store := registrytest.NewMemory()
			a := startPlane(t, store, "a", registry.RegisterConfig{ClaimTTL: time.Second})
			if _, err := a.r.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), none); err != nil {
				t.Fatal(err)
			}
			b := startPlane(t, store, "b", registry.RegisterConfig{ClaimTTL: time.Second})
			sidecar := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "s", Incarnation: "1", Clock: func() time.Duration { return time.Since(time.Unix(0, 0)) }})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { _ = sidecar.Run(ctx) })
			synctest.Wait()
			promote := store.Replica()
			var last registry.Result[registry.Suspension]
			for _, p := range []string{"FP-1001", "FP-1002", "FP-1003"} {
				var err error
				if last, err = a.r.Suspend(t.Context(), operator, suspendFP(p)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
			lost := store.Head()
			if who != "the writer" {
				a.stop()
			} else {
				b.stop()
			}
			promote()
			if store.Head().Revision >= lost.Revision {
				t.Fatal("nothing was lost")
			}
			time.Sleep(5 * time.Second)
			if got := store.Head(); got.Revision != lost.Revision || got.Digest != lost.Digest {
				t.Errorf("%s: the head is %d, want %d as before", who, got.Revision, lost.Revision)
			}
			if s := sidecar.Served(); !s.Fresh(4, sidecar.Now()) || s.View.Revision != last.Revision {
				t.Errorf("%s: the sidecar did not recover: %d", who, s.View.Revision)
			}
			writer := a
			if who != "the writer" {
				writer = b
			}
			if _, err := writer.r.Suspend(t.Context(), operator, suspendFP("FP-1009")); err != nil {
				t.Errorf("%s: does not go on: %v", who, err)
			}
			writer.stop()
			cancel()
			wg.Wait()
		})
	}
}

// What was acknowledged in the instant before is given back by the next command at the latest.
func TestACommandFirstGivesBackWhatWasLost(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		promote := store.Replica()
		first, err := r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if err != nil {
			t.Fatal(err)
		}
		promote()
		second, err := r.Suspend(t.Context(), operator, suspendFP("FP-1002"))
		if err != nil || second.Revision != first.Revision+1 {
			t.Fatalf("%+v, %v", second, err)
		}
		got, err := store.Changes(t.Context(), first.Revision-1, 10)
		if err != nil || len(got) != 2 || got[0].Puts[0].ID != first.Entry.ID {
			t.Errorf("the log holds %d changes, %v", len(got), err)
		}
	})
}

func TestAnEmptiedOrForeignStoreIsNotFilled(t *testing.T) {
	for what, ruin := range map[string]func(*registrytest.Memory){
		"emptied": (*registrytest.Memory).Flush,
		"foreign": func(m *registrytest.Memory) {
			m.TamperHead(func(h *registry.Head) { *h = registry.Head{Revision: 1, Epoch: 1, Digest: registry.Digest{1}} })
		},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
				for _, p := range []string{"FP-1001", "FP-1002"} {
					if _, err := r.Suspend(t.Context(), operator, suspendFP(p)); err != nil {
						t.Fatal(err)
					}
				}
				ruin(store)
				was := store.Head()
				time.Sleep(10 * time.Second)
				_, err := r.Suspend(t.Context(), operator, suspendFP("FP-1003"))
				if !errors.Is(err, registry.ErrUnavailable) {
					t.Errorf("got %v, want ErrUnavailable", err)
				}
				if store.Head() != was {
					t.Errorf("it was written to: %+v", store.Head())
				}
			})
		})
	}
}

func TestADeposedWriterNeitherCommitsNorClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		a := startPlane(t, store, "a", registry.RegisterConfig{ClaimTTL: time.Second})
		if _, err := a.r.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), none); err != nil {
			t.Fatal(err)
		}
		b := startPlane(t, store, "b", registry.RegisterConfig{ClaimTTL: time.Second})
		a.link.Set(registrytest.Fault{Silent: true}) // a sleeps through its claim
		time.Sleep(3 * time.Second)
		if !b.r.Writing() {
			t.Fatal("nobody took over")
		}
		a.link.Set(registrytest.Fault{})
		if _, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1001")); err == nil {
			t.Error("the deposed writer committed")
		}
		time.Sleep(3 * time.Second)
		if a.r.Writing() || !b.r.Writing() {
			t.Errorf("writing: a %t, b %t", a.r.Writing(), b.r.Writing())
		}
		a.stop()
		b.stop()
	})
}

// A suspension that its first answer called not durable is not made durable by asking again.
func TestWhatWasThereAlreadyIsConfirmedToo(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		promote := store.Replica()
		store.NotDurable(true)
		first, err := r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if !errors.Is(err, registry.ErrNotDurable) || first.Entry == nil {
			t.Fatalf("%+v, %v", first, err)
		}
		again, err := r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if !errors.Is(err, registry.ErrNotDurable) || !again.Existing {
			t.Errorf("again: %+v, %v; want ErrNotDurable", again, err)
		}
		store.NotDurable(false)
		if again, err = r.Suspend(t.Context(), operator, suspendFP("FP-1001")); err != nil || !again.Existing {
			t.Errorf("durable by now: %+v, %v", again, err)
		}
		promote()
		if again, err = r.Suspend(t.Context(), operator, suspendFP("FP-1001")); err != nil || !again.Existing {
			t.Errorf("lost: %+v, %v", again, err)
		}
		if got := store.Head().Revision; got != first.Revision {
			t.Errorf("answered as there, and the store's head is %d", got)
		}
	})
}
