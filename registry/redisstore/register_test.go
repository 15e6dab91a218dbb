package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

var operator = registry.Actor{Name: "operator", Permissions: registry.PermOperator}

// startRegister runs a control plane over a Redis until the test ends.
func startRegister(t testing.TB, s *redisstore.Store, holder string, journal ...registry.Journal) *registry.Register {
	t.Helper()
	m := registry.NewMirror(s, registrytest.Sealer(t), registry.MirrorConfig{ID: holder, Incarnation: "1", Observer: true})
	cfg := registry.RegisterConfig{Holder: holder, ClaimTTL: 500 * time.Millisecond}
	if len(journal) > 0 {
		cfg.Journal = journal[0]
	}
	r := registry.NewRegister(s, m, registrytest.Sealer(t), cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func writing(r *registry.Register) func() bool {
	return func() bool { _, err := r.View(); return err == nil && r.Writing() }
}

func suspendApp(i int) registry.SuspendCommand {
	return registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindClientApp, ID: fmt.Sprintf("app-%d", i)}, Reason: "finding"}
}

// withApps imports the sample and n more client apps.
func withApps(t testing.TB, r *registry.Register, n int) {
	t.Helper()
	records := sample.Records(time.Now())
	for i := range n {
		records = append(records, registry.ClientApp{ClientID: fmt.Sprintf("app-%d", i), ProductID: "FP-1001", Environment: registry.EVTE})
	}
	if _, err := r.Import(t.Context(), sample.Actor(), records, registry.Meta{}); err != nil {
		t.Fatal(err)
	}
}

func TestSuspensionsAcknowledgedWhileRedisIsKilledAreAllThere(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}, Timeout: time.Second})
	r := startRegister(t, s, "one")
	until(t, "the control plane writes", writing(r))
	const n = 300
	withApps(t, r, n)

	var wg sync.WaitGroup
	var mu sync.Mutex
	answered := map[int]registry.Revision{}
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < n; i += 4 {
				for { // an operator tries again until told that it is done
					res, err := r.Suspend(t.Context(), operator, suspendApp(i))
					if err == nil {
						mu.Lock()
						answered[i] = res.Revision
						mu.Unlock()
						break
					}
					if !errors.Is(err, registry.ErrUnavailable) && !errors.Is(err, registry.ErrUncertain) && !errors.Is(err, registry.ErrFenced) {
						t.Error(err)
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	for range 3 {
		mu.Lock()
		was := len(answered)
		mu.Unlock()
		until(t, "some more are answered", func() bool { mu.Lock(); defer mu.Unlock(); return len(answered) >= min(was+20, n) })
		srv.Restart()
	}
	wg.Wait()

	// Another control plane, that knows only what Redis holds.
	other := registry.NewMirror(s, registrytest.Sealer(t), registry.MirrorConfig{ID: "two", Observer: true})
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() { _ = other.Run(ctx) })
	defer func() { cancel(); wg.Wait() }()
	until(t, "the other has loaded", func() bool { return other.View() != nil })
	v := other.View()
	seen := map[registry.Revision]int{}
	for i := range n {
		if v.Suspended(registry.KindClientApp, fmt.Sprintf("app-%d", i), registry.At(time.Now())) == nil {
			t.Errorf("app-%d: its suspension was acknowledged at revision %d and is lost", i, answered[i])
		}
		if j, twice := seen[answered[i]]; twice {
			t.Errorf("app-%d and app-%d share revision %d", i, j, answered[i])
		}
		seen[answered[i]] = i
	}
	if got := len(v.Suspensions()); got != n+1 {
		t.Errorf("%d suspensions, want %d: one each and the sample's", got, n+1)
	}
}

func TestTwoControlPlanesOverOneRedisLoseNothing(t *testing.T) {
	srv := redistest.Start(t)
	a := startRegister(t, open(t, redisstore.Config{Addrs: []string{srv.Addr}}), "a")
	until(t, "the first writes", writing(a))
	const n = 100
	withApps(t, a, n)
	b := startRegister(t, open(t, redisstore.Config{Addrs: []string{srv.Addr}}), "b")
	until(t, "the second has loaded", func() bool { _, err := b.View(); return err == nil })
	done := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for _, r := range []*registry.Register{b, a} { // the one that does not write refuses
				res, err := r.Suspend(t.Context(), operator, suspendApp(i))
				if err == nil {
					done[i] = res.Entry.ID
					return
				}
				if !errors.Is(err, registry.ErrFenced) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	until(t, "the second follows", func() bool {
		v, err := b.View()
		return err == nil && len(v.Suspensions()) == n+1
	})
	v, _ := b.View()
	for i, id := range done {
		if s := v.Suspension(id); s == nil || s.Subject.ID != fmt.Sprintf("app-%d", i) {
			t.Errorf("app-%d: suspension %q: %+v", i, id, s)
		}
	}
}

func TestASuspensionIsRefusedWhenRedisIsFullAndDoneAfterwards(t *testing.T) {
	srv := redistest.Start(t)
	r := startRegister(t, open(t, redisstore.Config{Addrs: []string{srv.Addr}}), "one")
	until(t, "the control plane writes", writing(r))
	withApps(t, r, 1)
	before, _ := r.View()
	srv.Must("CONFIG", "SET", "maxmemory", "1")
	if _, err := r.Suspend(t.Context(), operator, suspendApp(0)); !errors.Is(err, registry.ErrUnavailable) && !errors.Is(err, registry.ErrFenced) {
		t.Errorf("full: %v, want ErrUnavailable", err)
	}
	if v, _ := r.View(); v.Revision != before.Revision {
		t.Errorf("refused, and yet revision %d after %d", v.Revision, before.Revision)
	}
	srv.Must("CONFIG", "SET", "maxmemory", "0")
	until(t, "the suspension is done", func() bool {
		_, err := r.Suspend(t.Context(), operator, suspendApp(0))
		return err == nil
	})
}

func TestAFlushedRedisIsToldOfAndNotWrittenOver(t *testing.T) {
	srv := redistest.Start(t)
	r := startRegister(t, open(t, redisstore.Config{Addrs: []string{srv.Addr}}), "one")
	until(t, "the control plane writes", writing(r))
	withApps(t, r, 1)
	before, _ := r.View()
	srv.Must("FLUSHALL")
	until(t, "a suspension is refused because the store is behind", func() bool {
		_, err := r.Suspend(t.Context(), operator, suspendApp(0))
		if err == nil {
			t.Fatal("committed on an emptied store")
		}
		return errors.Is(err, registry.ErrRewound) && errors.Is(err, registry.ErrUnavailable)
	})
	if v, err := r.View(); err != nil || v.Revision != before.Revision || v.Records != before.Records {
		t.Errorf("the view went from %d to %v, %v", before.Revision, v, err)
	}
}

// The log's last entry is gone and its head is not: nobody may take what is in
// force for done, and the next change heals it.
func TestALogWithoutItsEndIsUnavailableUntilTheNextChange(t *testing.T) {
	srv := redistest.Start(t)
	r := startRegister(t, open(t, redisstore.Config{Addrs: []string{srv.Addr}}), "one")
	until(t, "the control plane writes", writing(r))
	withApps(t, r, 2)
	var last registry.Revision
	done := func(i int) bool {
		res, err := r.Suspend(t.Context(), operator, suspendApp(i))
		last = res.Revision
		return err == nil
	}
	until(t, "a suspension is done", func() bool { return done(0) })
	srv.Must("XDEL", "{dspgate}:log", fmt.Sprintf("%d-0", last))
	until(t, "it is not taken for done", func() bool { // until then a busy machine may have lost its claim to write
		_, err := r.Suspend(t.Context(), operator, suspendApp(0))
		if err == nil || errors.Is(err, registry.ErrTrimmed) {
			t.Fatalf("again: %v", err)
		}
		return errors.Is(err, registry.ErrUnavailable)
	})
	until(t, "another is done", func() bool { return done(1) })
	until(t, "the first is found in force", func() bool { return done(0) })
}

// sidecars poll as a fleet would, until the benchmark ends.
func sidecars(b *testing.B, s *redisstore.Store, n int) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var ready sync.WaitGroup
	for i := range n {
		m := registry.NewMirror(s, registrytest.Sealer(b), registry.MirrorConfig{ID: fmt.Sprintf("sidecar-%d", i), Incarnation: "1"})
		wg.Go(func() { _ = m.Run(ctx) })
		ready.Go(func() { until(b, "a sidecar is fresh", m.Ready) })
	}
	ready.Wait()
	b.Cleanup(func() { cancel(); wg.Wait() })
}

// BenchmarkThousandSuspensionsAtOnce commands a thousand at once and waits
// until ten sidecars have acknowledged them all.
func BenchmarkThousandSuspensionsAtOnce(b *testing.B) {
	b.Run("plain", func(b *testing.B) { suspensionsAtOnce(b, 1000, false) })
	b.Run("audited", func(b *testing.B) { suspensionsAtOnce(b, 1000, true) })
}

// BenchmarkOneSuspension is the same for one alone.
func BenchmarkOneSuspension(b *testing.B) {
	b.Run("plain", func(b *testing.B) { suspensionsAtOnce(b, 1, false) })
	b.Run("audited", func(b *testing.B) { suspensionsAtOnce(b, 1, true) })
}

func suspensionsAtOnce(b *testing.B, n int, audited bool) {
	srv := redistest.Start(b)
	s, err := redisstore.Open(b.Context(), redisstore.Config{Addrs: []string{srv.Addr}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	var journals []registry.Journal
	if audited {
		journals = append(journals, startAudit(b, s))
	}
	r := startRegister(b, s, "one", journals...)
	until(b, "the control plane writes", writing(r))
	withApps(b, r, n)
	sidecars(b, s, 10)
	second := registry.Actor{Name: "second", Permissions: registry.PermOperator}
	for b.Loop() {
		ids := make([]string, n)
		var wg sync.WaitGroup
		began := time.Now()
		for i := range n {
			wg.Go(func() {
				res, err := r.Suspend(b.Context(), operator, suspendApp(i))
				if err != nil {
					b.Error(err)
					return
				}
				ids[i] = res.Entry.ID
				if e, err := r.Await(b.Context(), res.Revision, 0); err != nil || !e.Complete {
					b.Errorf("%+v, %v", e, err)
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(time.Since(began).Microseconds())/1000, "ms/all")
		b.StopTimer()
		for _, id := range ids {
			wg.Go(func() {
				if _, err := r.LiftSuspension(b.Context(), second, id, registry.Meta{}); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		b.StartTimer()
	}
}

// BenchmarkSnapshot streams 200,000 records of the size of a client app.
func BenchmarkSnapshot(b *testing.B) {
	srv := redistest.Start(b, "--appendonly", "no")
	s, err := redisstore.Open(b.Context(), redisstore.Config{Addrs: []string{srv.Addr}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	w := registrytest.NewWriter(b, s)
	const n = 200_000
	for i := 0; i < n; i += 500 {
		var batch []any
		for j := range 500 {
			batch = append(batch, registry.ClientApp{ClientID: fmt.Sprintf("app-%d", i+j), ProductID: "FP-1001", Environment: registry.EVTE})
		}
		w.Put(batch...)
	}
	for b.Loop() {
		got := 0
		if _, err := s.Snapshot(b.Context(), func(*registry.Record) error { got++; return nil }); err != nil || got < n {
			b.Fatal(got, err)
		}
	}
}
