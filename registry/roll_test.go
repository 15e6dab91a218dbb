package registry_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// inBubble runs a control plane in fake time, where nothing has to be waited for.
func inBubble(t *testing.T, cfg registry.RegisterConfig, f func(t *testing.T, r *registry.Register, store *registrytest.Memory)) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		began := time.Now()
		m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{
			ID: "control", Observer: true, Clock: func() time.Duration { return time.Since(began) },
		})
		cfg.Holder = "control"
		r := registry.NewRegister(store, m, registrytest.Sealer(t), cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = m.Run(ctx) })
		wg.Go(func() { _ = r.Run(ctx) })
		synctest.Wait()
		if _, err := r.Import(ctx, sample.Actor(), sample.Records(time.Now()), none); err != nil {
			t.Fatal(err)
		}
		f(t, r, store)
		cancel()
		wg.Wait()
	})
}

func acked(t *testing.T, store *registrytest.Memory, id string, rev registry.Revision) {
	t.Helper()
	_, err := store.Follow(t.Context(), registry.Ack{
		ID: id, Incarnation: "1", Revision: rev, Short: 2 * time.Second, Long: time.Minute, Digest: store.Head().Digest,
	}, 1000)
	if err != nil {
		t.Fatal(err)
	}
}

func TestAwaitWithNobodyOnTheRollIsComplete(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, _ *registrytest.Memory) {
		e, err := r.Await(t.Context(), 1, time.Second)
		if err != nil || !e.Complete || len(e.Sidecars) != 0 {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

func TestAwaitEndsWithTheLastAcknowledgementAndTheDrain(t *testing.T) {
	inBubble(t, registry.RegisterConfig{Drain: 150 * time.Millisecond}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		rev := store.Head().Revision
		acked(t, store, "a", rev)
		acked(t, store, "b", rev)
		s, err := r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Second)
			acked(t, store, "a", s.Revision)
			time.Sleep(time.Second)
			next, err := r.Suspend(t.Context(), operator, suspendFP("FP-1002"))
			if err != nil {
				t.Error(err)
			}
			acked(t, store, "b", next.Revision) // more than asked for will do
		}()
		began := time.Now()
		e, err := r.Await(t.Context(), s.Revision, 0)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if took < 2150*time.Millisecond || took > 2300*time.Millisecond || e.ElapsedMS != took.Milliseconds() {
			t.Errorf("took %v (said %d ms), want the second acknowledgement at 2 s, the drain and little more", took, e.ElapsedMS)
		}
		want := []registry.SidecarState{
			{ID: "a", Incarnation: "1", State: registry.Acknowledged, Revision: s.Revision},
			{ID: "b", Incarnation: "1", State: registry.Acknowledged, Revision: s.Revision + 1},
		}
		if d := cmp.Diff(want, e.Sidecars); d != "" || !e.Complete {
			t.Errorf("complete %t, -want +got:\n%s", e.Complete, d)
		}
	})
}

func TestAwaitNamesWhoIsPendingAndUntilWhen(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		rev := store.Head().Revision
		acked(t, store, "silent", rev)
		polled := registry.At(time.Now())
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		e, err := r.Await(t.Context(), rev+1, 3*time.Second)
		if err != nil || e.Complete || len(e.Sidecars) != 1 {
			t.Fatalf("%+v, %v; want one pending", e, err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %v, want the timeout", took)
		}
		s := e.Sidecars[0]
		if s.State != registry.Pending || s.Revision != rev || len(s.Until) != 4 {
			t.Errorf("%+v", s)
		}
		for risk, lease := range map[registry.Risk]time.Duration{1: time.Minute, 2: time.Minute, 3: 2 * time.Second, 4: 2 * time.Second} {
			left := time.Duration(s.Until[risk]-polled) * time.Millisecond
			if left <= lease || left > lease+2*time.Second {
				t.Errorf("risk %d: until %v after the poll, want the lease of %v and a margin", risk, left, lease)
			}
		}
		// The short lease is over by now, and yet low-risk calls may pass: not lapsed.
		if time.Now().Before(s.Until[4].Std()) {
			t.Error("the short lease should be over")
		}
	})
}

func TestASilentSidecarLapsesOnlyWhenItsLongLeaseIsOver(t *testing.T) {
	inBubble(t, registry.RegisterConfig{AwaitMax: time.Hour}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		rev := store.Head().Revision
		acked(t, store, "silent", rev)
		began := time.Now()
		e, err := r.Await(t.Context(), rev+1, time.Hour)
		if err != nil || !e.Complete || e.Sidecars[0].State != registry.Lapsed {
			t.Fatalf("%+v, %v; want lapsed", e, err)
		}
		if took := time.Since(began); took < time.Minute || took > time.Minute+2*time.Second {
			t.Errorf("lapsed after %v, want the long lease and a margin", took)
		}
	})
}

func TestASidecarThatLeavesIsNotWaitedFor(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		rev := store.Head().Revision
		acked(t, store, "a", rev)
		go func() {
			time.Sleep(time.Second)
			if err := store.Leave(context.Background(), "a", "1"); err != nil {
				t.Error(err)
			}
		}()
		if e, err := r.Await(t.Context(), rev+1, 3*time.Second); err != nil || !e.Complete || len(e.Sidecars) != 0 {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

func TestAwaitWaitsNoLongerThanItMay(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		acked(t, store, "a", store.Head().Revision)
		began := time.Now()
		if e, err := r.Await(t.Context(), store.Head().Revision+1, time.Hour); err != nil || e.Complete {
			t.Errorf("%+v, %v", e, err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %v, want 5 s, the default of AwaitMax", took)
		}
	})
}

// brokenRoll is a ledger whose roll cannot be read.
type brokenRoll struct{ *registrytest.Memory }

func (brokenRoll) Roll(context.Context) (registry.Roll, error) {
	return registry.Roll{}, registry.ErrUnavailable
}

func TestARollThatCannotBeReadIsNotComplete(t *testing.T) {
	store := brokenRoll{registrytest.NewMemory()}
	m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "one", Observer: true})
	r := registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	defer func() { cancel(); wg.Wait() }()
	if e, err := r.Await(ctx, 1, 60*time.Millisecond); !errors.Is(err, registry.ErrUnavailable) || e.Complete {
		t.Errorf("%+v, %v; want ErrUnavailable", e, err)
	}
}

// slowRoll is a ledger that takes its time to tell the roll.
type slowRoll struct{ *registrytest.Memory }

func (l slowRoll) Roll(ctx context.Context) (registry.Roll, error) {
	time.Sleep(300 * time.Millisecond)
	return l.Memory.Roll(ctx)
}

// However short the wait, it looks at the roll once and names who is on it.
func TestAwaitLooksOnceHoweverShortTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := slowRoll{registrytest.NewMemory()}
		m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "one", Observer: true})
		r := registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one"})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = m.Run(ctx) })
		wg.Go(func() { _ = r.Run(ctx) })
		defer func() { cancel(); wg.Wait() }()
		acked(t, store.Memory, "a", 0)
		e, err := r.Await(ctx, 1, time.Millisecond)
		if err != nil || e.Complete || len(e.Sidecars) == 0 || e.Sidecars[0].ID != "a" || e.Sidecars[0].State != registry.Pending {
			t.Errorf("%+v, %v; want a named as pending", e, err)
		}
	})
}

func TestSidecarsTellsLagAndWhetherTheDigestIsRight(t *testing.T) {
	inBubble(t, registry.RegisterConfig{}, func(t *testing.T, r *registry.Register, store *registrytest.Memory) {
		old := store.Head().Revision
		acked(t, store, "behind", old)
		s, err := r.Suspend(t.Context(), operator, suspendFP("FP-1001"))
		if err != nil {
			t.Fatal(err)
		}
		acked(t, store, "current", s.Revision)
		if _, err := store.Follow(t.Context(), registry.Ack{ID: "wrong", Incarnation: "9", Revision: old, Digest: registry.Digest{1, 2}, Short: time.Second, Long: time.Minute}, 1); err != nil {
			t.Fatal(err)
		}
		polled := registry.At(time.Now())
		time.Sleep(1500 * time.Millisecond)
		got, err := r.Sidecars(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		yes, no := true, false
		want := []registry.SidecarStatus{
			{ID: "behind", Incarnation: "1", Revision: old, Lag: 1, DigestOK: &yes, PolledAt: polled, ShortLeftMS: 500, LongLeftMS: 58500},
			{ID: "current", Incarnation: "1", Revision: s.Revision, DigestOK: &yes, PolledAt: polled, ShortLeftMS: 500, LongLeftMS: 58500},
			{ID: "wrong", Incarnation: "9", Revision: old, Lag: 1, DigestOK: &no, PolledAt: polled, ShortLeftMS: -500, LongLeftMS: 58500},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	})
}
