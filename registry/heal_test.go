package registry_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// lines is a log that a test reads while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

// follow runs a sidecar's mirror until the bubble ends.
func follow(t *testing.T, log registry.Log, id string) *registry.Mirror {
	t.Helper()
	began := time.Now()
	m := registry.NewMirror(log, registrytest.Sealer(t), registry.MirrorConfig{
		ID: id, Incarnation: "1", Clock: func() time.Duration { return time.Hour + time.Since(began) },
	})
	done := make(chan error, 1)
	go func() { done <- m.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return m
}

// A primary that was deposed commits as it wakes up and tells its subscribers,
// which follow its successor: they hold a revision that nobody can give back.
func TestARevisionThatOnlySidecarsHoldIsSuperseded(t *testing.T) {
	for _, lost := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			store := registrytest.NewMemory()
			a := startPlane(t, store, "a", registry.RegisterConfig{})
			defer a.stop()
			if _, err := a.r.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), none); err != nil {
				t.Fatal(err)
			}
			link := registrytest.NewLink(store)
			m, other := follow(t, link, "s"), follow(t, store, "other")
			time.Sleep(2 * time.Second)
			// The deposed one is another store that was alike until now.
			deposed := store.Copy()
			w := registrytest.NewWriterAt(t, deposed, deposed.Epoch(), a.m.View())
			for i := range lost {
				w.Put(suspension("SU-900"+string(rune('1'+i)), "FP-1001"))
			}
			pushed, err := deposed.Changes(t.Context(), store.Head().Revision, 10)
			if err != nil || len(pushed) != lost {
				t.Fatalf("%d changes, %v", len(pushed), err)
			}
			head := store.Head()
			link.Push(pushed)
			time.Sleep(1900 * time.Millisecond)
			synctest.Wait()
			now := store.Head()
			if now.Revision != head.Revision+registry.Revision(lost) || now.Digest != head.Digest || now.Records != head.Records {
				t.Fatalf("the head is %+v, was %+v, want it %d further and else alike", now, head, lost)
			}
			for _, x := range []*registry.Mirror{m, other} {
				if v := x.View(); v.Revision != now.Revision || v.Digest != now.Digest || !x.Ready() {
					t.Errorf("a sidecar holds %d, ready %t: %s; want %d", v.Revision, x.Ready(), x.Status().LastError, now.Revision)
				}
			}
			if st := a.r.RollStats(); st.Superseded != 1 {
				t.Errorf("superseded %d times", st.Superseded)
			}
			s, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1002"))
			if err != nil {
				t.Fatal(err)
			}
			wantStates(t, "after it", await(t, a.r, s.Revision), "other/1 acknowledged; s/1 acknowledged; complete true")
		})
	}
}

// Its writer may have been of an epoch of which the successor never heard.
func TestASidecarThatFollowedALaterEpochIsBroughtBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		a := startPlane(t, store, "a", registry.RegisterConfig{})
		defer a.stop()
		if _, err := a.r.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), none); err != nil {
			t.Fatal(err)
		}
		link := registrytest.NewLink(store)
		m := follow(t, link, "s")
		time.Sleep(2300 * time.Millisecond) // between two readings of the roll
		w := registrytest.NewWriterAt(t, store.Copy(), store.Epoch()+3, a.m.View())
		c, _, _ := w.Change(suspension("SU-901", "FP-1001"))
		link.Push([]registry.Change{*c})
		synctest.Wait()
		// The successor gives the number to a change of its own.
		s, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1002"))
		if err != nil || s.Revision != c.Revision || m.View().Digest != c.Digest {
			t.Fatalf("committed at %d, %v; the sidecar holds %d", s.Revision, err, m.View().Revision)
		}
		time.Sleep(20 * time.Second)
		h := store.Head()
		if v := m.View(); !m.Ready() || v.Revision != h.Revision || v.Digest != h.Digest || h.Epoch < w.Epoch {
			t.Errorf("it holds %d of epoch %d, the store %d of %d: %s", v.Revision, v.Epoch, h.Revision, h.Epoch, m.Status().LastError)
		}
		if !a.r.Writing() {
			t.Error("the writer does not write any more")
		}
	})
}

// What a sidecar says of itself is not sealed: a revision out of all proportion moves nobody.
func TestAForgedRevisionSupersedesNothing(t *testing.T) {
	log := &lines{}
	inBubble(t, registry.RegisterConfig{Log: slog.New(slog.NewTextHandler(log, nil))}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		was := store.Head()
		join(t, store, "forged", "1", 1<<60, registry.Digest{})
		time.Sleep(20 * time.Second)
		if store.Head() != was {
			t.Errorf("the head went from %d to %d", was.Revision, store.Head().Revision)
		}
		if n := log.count("not superseded"); n != 1 {
			t.Errorf("told %d times", n)
		}
		// It hides no other.
		join(t, store, "held", "1", was.Revision+2, registry.Digest{1})
		time.Sleep(2 * time.Second)
		if got := store.Head().Revision; got != was.Revision+2 {
			t.Errorf("the head is %d, want %d", got, was.Revision+2)
		}
	})
}

func TestAHeadSetBackOverAnIntactLogIsSetRight(t *testing.T) {
	log := &lines{}
	inBubble(t, registry.RegisterConfig{Log: slog.New(slog.NewTextHandler(log, nil))}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		was := store.Head()
		for _, p := range []string{"FP-1001", "FP-1002", "FP-1003"} {
			if _, err := r.Suspend(t.Context(), operator, suspendFP(p)); err != nil {
				t.Fatal(err)
			}
		}
		want := store.Head()
		before, err := store.Changes(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		store.TamperHead(func(h *registry.Head) { *h = was })
		time.Sleep(2500 * time.Millisecond)
		if got := store.Head(); got.Revision != want.Revision || got.Digest != want.Digest {
			t.Errorf("the head is %d, want %d", got.Revision, want.Revision)
		}
		if after, err := store.Changes(t.Context(), 0, 1000); err != nil || len(after) != len(before) {
			t.Errorf("the log holds %d changes, %v; want %d", len(after), err, len(before))
		}

		// Where the log says something else, somebody must look; it is told once.
		log.reset()
		store.TamperLog(want.Revision, func(c *registry.Change) { c.MAC[0]++ })
		store.TamperHead(func(h *registry.Head) { *h = was })
		time.Sleep(30 * time.Second)
		if got := store.Head(); got != was {
			t.Errorf("the head is %d, want it left at %d", got.Revision, was.Revision)
		}
		for _, line := range []string{"not given back", "changed hands"} {
			if n := log.count(line); n != 1 {
				t.Errorf("%q %d times in the log", line, n)
			}
		}
	})
}

// A change that failed for good is no acknowledgement of what it ends.
func TestALiftThatFailedDoesNotCountAsHoldingTheSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		a := startPlane(t, store, "a", registry.RegisterConfig{})
		defer a.stop()
		if _, err := a.r.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), none); err != nil {
			t.Fatal(err)
		}
		s, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if err != nil {
			t.Fatal(err)
		}
		var lift *registry.Change
		a.link.Set(registrytest.Fault{CommitsRefused: true, OnCommit: func(c *registry.Change) { lift = c }})
		if _, err := a.r.LiftSuspension(t.Context(), operator2, s.Entry.ID, registry.Meta{Reason: "clean"}); err == nil {
			t.Fatal("lifted")
		}
		a.link.Set(registrytest.Fault{})
		// A sidecar holds it all the same, by a primary that was deposed.
		join(t, store, "s", "1", lift.Revision, lift.Digest)
		e, err := a.r.Await(t.Context(), s.Revision, 10*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		wantStates(t, "of the suspension", e, "s/1 pending; complete false")
	})
}

// The store may lose a change between being asked for it and being offered it again.
func TestAChangeConfirmedToAStoreThatLostItIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		a := startPlane(t, store, "a", registry.RegisterConfig{})
		defer a.stop()
		if _, err := a.r.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), none); err != nil {
			t.Fatal(err)
		}
		promote := store.Replica()
		s, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if err != nil {
			t.Fatal(err)
		}
		a.link.Set(registrytest.Fault{OnCommit: func(*registry.Change) { promote() }})
		again, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if err != nil || !again.Existing {
			t.Fatalf("%+v, %v", again, err)
		}
		h := store.Head()
		if h.Revision != s.Revision || registrytest.Sealer(t).Head(&h) != h.MAC {
			t.Errorf("the head is %+v, sealed %t", h, registrytest.Sealer(t).Head(&h) == h.MAC)
		}
	})
}

// The writer itself may hold what its successor as a store never had, and that
// one may have gone on under an earlier epoch: nothing could be committed any more.
func TestAWriterWhoseHistoryWasLeftBehindFollowsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		store := registrytest.NewMemory()
		a := startPlane(t, store, "a", registry.RegisterConfig{Log: slog.New(slog.NewTextHandler(log, nil))})
		defer a.stop()
		if _, err := a.r.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), none); err != nil {
			t.Fatal(err)
		}
		m := follow(t, store, "s")
		view, epoch := a.m.View(), store.Epoch()
		promote := store.Replica()
		if e, err := store.Lead(t.Context(), "a", 0, time.Hour); err != nil || e != epoch+1 {
			t.Fatal(e, err)
		}
		time.Sleep(6 * time.Second) // the claim is found lost, and had anew
		if _, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1001")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		promote()
		registrytest.NewWriterAt(t, store, epoch, view).Put(productNamed("FP-9", "by another"))
		time.Sleep(20 * time.Second)
		h := store.Head()
		for _, v := range []*registry.View{a.m.View(), m.View()} {
			if v.Revision != h.Revision || v.Digest != h.Digest || v.Product("FP-9") == nil {
				t.Errorf("one holds %d of epoch %d, the store %d of %d", v.Revision, v.Epoch, h.Revision, h.Epoch)
			}
		}
		if n := log.count("LOST"); n != 1 || log.count("command=suspend") != 1 {
			t.Errorf("what is lost was told %d times", n)
		}
		if _, err := a.r.Suspend(t.Context(), operator, suspendFP("FP-1001")); err != nil {
			t.Error(err)
		}
	})
}
