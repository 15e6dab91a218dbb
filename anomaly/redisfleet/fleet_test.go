package redisfleet

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
)

func open(t *testing.T, o Options) (*Fleet, redis.UniversalClient, *redistest.Server) {
	t.Helper()
	s := redistest.Start(t)
	rdb := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, DialTimeout: time.Second})
	t.Cleanup(func() { rdb.Close() })
	return New(rdb, o), rdb, s
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// calls makes a report of n calls of a product.
func calls(sidecar string, from int64, product string, n int) *anomaly.Report {
	c := anomaly.NewCollector(anomaly.CollectorConfig{})
	for i := range n {
		c.Observe([]anomaly.Observation{{Decision: uint64(i), At: from, Product: product, Service: "s", Verb: anomaly.Read}})
	}
	return &anomaly.Report{Sidecar: sidecar, From: from, Seconds: 10, Subjects: c.Take()}
}

func TestReportsArriveInOrderAndOnce(t *testing.T) {
	f, rdb, _ := open(t, Options{})
	ctx := t.Context()
	if err := f.Send(ctx, calls("before", 1, "FP-1", 1)); err != nil {
		t.Fatal(err)
	}
	at, err := f.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 150 {
		if i == 70 {
			if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: f.reports(), Values: []any{fieldReport, "no report"}}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Send(ctx, calls(fmt.Sprint(i), int64(i), "FP-1", 1)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	malformed := 0
	for len(got) < 150 {
		reports, next, bad, err := f.Follow(ctx, at, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		at, malformed = next, malformed+bad
		for _, r := range reports {
			got = append(got, r.Sidecar)
		}
	}
	for i, s := range got {
		if s != fmt.Sprint(i) {
			t.Fatalf("report %d is of %s", i, s)
		}
	}
	if malformed != 1 {
		t.Errorf("%d malformed, want 1", malformed)
	}
	if more, _, _, err := f.Follow(ctx, at, 10*time.Millisecond); err != nil || len(more) != 0 {
		t.Errorf("%d more, %v", len(more), err)
	}
}

func TestStreamAndBaselinesAreBounded(t *testing.T) {
	f, rdb, _ := open(t, Options{ReportsMax: 100, BaselinesMax: 10})
	ctx := t.Context()
	for i := range 1000 {
		if err := f.Send(ctx, calls("a", int64(i), "FP-1", 1)); err != nil {
			t.Fatal(err)
		}
	}
	if n := rdb.XLen(ctx, f.reports()).Val(); n > 300 { // trimmed by whole nodes
		t.Errorf("%d reports kept", n)
	}
	subject := func(i int) anomaly.Subject {
		return anomaly.Subject{Kind: anomaly.Product, ID: fmt.Sprint("FP-", i)}
	}
	for i := range 25 {
		if err := f.Keep(ctx, subject(i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Prune(ctx, func(s anomaly.Subject) bool { return s == subject(3) }); err != nil {
		t.Fatal(err)
	}
	var left []anomaly.Subject
	if err := f.Baselines(ctx, func(s anomaly.Subject, _ []byte) { left = append(left, s) }); err != nil {
		t.Fatal(err)
	}
	kept := false
	for _, s := range left {
		kept = kept || s == subject(3)
	}
	if len(left) != 10 || !kept {
		t.Errorf("%d baselines left, the wanted one among them: %v", len(left), kept)
	}
}

func TestMarksRunOut(t *testing.T) {
	f, rdb, _ := open(t, Options{MarksFor: 300 * time.Millisecond})
	ctx := t.Context()
	if got, err := f.Marks(ctx); err != nil || len(got) != 0 {
		t.Fatalf("before any: %v, %v", got, err)
	}
	want := []anomaly.Mark{{Subject: anomaly.Subject{Kind: anomaly.ClientApp, ID: "a:b \"c\""}, Surprise: 4.5, Until: time.Unix(2e9, 0).UTC()}}
	if err := f.Post(ctx, want); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Marks(ctx); err == nil && len(got) > 0 {
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	wait(t, "marks nobody renews to run out", func() bool { got, err := f.Marks(ctx); return err == nil && len(got) == 0 })
	if err := rdb.Set(ctx, f.marks(), "{", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Marks(ctx); err == nil {
		t.Error("marks that do not read are taken for none")
	}
}

// The whole way: calls counted in a sidecar are told by the watcher and marked on
// the sidecar's board; another control plane takes over with what was learnt.
func TestFromASidecarsCallsToItsBoard(t *testing.T) {
	f, _, server := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	vip := anomaly.Hash{1, 2, 3}
	collector := anomaly.NewCollector(anomaly.CollectorConfig{})
	collector.Protect([]anomaly.Hash{vip})
	board := &anomaly.Board{}
	reporter := &anomaly.Reporter{Collector: collector, Board: board, Link: f, Sidecar: "sc-1", Every: 20 * time.Millisecond, Look: 20 * time.Millisecond}

	var mu sync.Mutex
	var told []anomaly.Signal
	lead := true
	leads := func(want bool) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return lead == want }
	}
	tell := func(_ context.Context, s anomaly.Signal) { mu.Lock(); told = append(told, s); mu.Unlock() }
	first := NewWatch(WatchConfig{Fleet: f, Lead: leads(true), Tell: tell, KeepEvery: 50 * time.Millisecond})
	second := NewWatch(WatchConfig{Fleet: f, Lead: leads(false), Tell: tell})
	var wg sync.WaitGroup
	for _, run := range []func(context.Context){reporter.Run, first.Run, second.Run} {
		wg.Go(func() { run(ctx) })
	}
	defer wg.Wait()
	defer cancel()
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(told) }
	call := func() {
		collector.Observe([]anomaly.Observation{{At: time.Now().Unix(), Product: "FP-1", Client: vip, Verb: anomaly.Read}})
	}

	wait(t, "the first to watch", func() bool { return first.Counts().Watching })
	wait(t, "a signal", func() bool { call(); return count() > 0 })
	wait(t, "the mark on the board", func() bool { return board.Surprise(anomaly.Product, "FP-1", time.Now()) > 0 })
	wait(t, "a baseline", func() bool {
		n := 0
		return f.Baselines(ctx, func(anomaly.Subject, []byte) { n++ }) == nil && n == 1
	})

	wait(t, "what is known of all", func() bool {
		all, err := f.All(ctx)
		return err == nil && anomaly.NewWatcher(anomaly.WatcherConfig{}).RestoreFleet(all) == nil
	})

	mu.Lock()
	lead = false
	mu.Unlock()
	wait(t, "the second to watch with what the first learnt", func() bool { c := second.Counts(); return c.Watching && c.Subjects == 1 })
	for range 10 {
		if board.Surprise(anomaly.Product, "FP-1", time.Now()) == 0 {
			t.Error("the board forgot a mark when another control plane took over")
		}
		time.Sleep(20 * time.Millisecond)
	}
	before := count()
	wait(t, "a signal of the second", func() bool { call(); return count() > before })

	server.Kill()
	wait(t, "failures to be counted", func() bool { call(); return reporter.Failures() > 0 && second.Counts().Errors > 0 })
	if got := board.Surprise(anomaly.Product, "FP-1", time.Now()); got == 0 {
		t.Error("the board forgot its marks when Redis went away")
	}
}

// A watcher that has no room for more says so, in its counts and once in the log;
// when there is room, who comes is watched.
func TestAFullWatcherSaysSo(t *testing.T) {
	f, _, _ := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var log bytes.Buffer
	room := 10
	w := NewWatch(WatchConfig{
		Fleet: f, Lead: func() bool { return true }, Room: func() int { mu.Lock(); defer mu.Unlock(); return room },
		Log: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil)),
	})
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	wait(t, "the watcher", func() bool { return w.Counts().Watching })
	send := func() {
		for i := range 50 {
			if err := f.Send(ctx, calls("sc-1", time.Now().Unix(), fmt.Sprint("FP-", i), 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	wait(t, "callers there is no room for", func() bool { send(); c := w.Counts(); return c.Subjects == 10 && c.Room == 10 && c.Refused > 0 })
	said := func() int { mu.Lock(); defer mu.Unlock(); return strings.Count(log.String(), "raise watch.subjects") }
	wait(t, "a warning", func() bool { return said() > 0 })
	mu.Lock()
	room = 100
	mu.Unlock()
	wait(t, "all to be watched", func() bool { send(); return w.Counts().Subjects == 50 })
	if n := said(); n != 1 {
		t.Errorf("said %d times in an hour", n)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
