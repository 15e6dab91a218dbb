package redisrecord

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// redisServer is a real Redis on a Unix socket, for one test.
type redisServer struct {
	cmd    *exec.Cmd
	dir    string
	socket string
}

func startRedis(t *testing.T) (*redisServer, redis.UniversalClient) {
	t.Helper()
	s := &redisServer{dir: t.TempDir()}
	s.socket = filepath.Join(s.dir, "redis.sock")
	s.start(t)
	t.Cleanup(s.kill)
	rdb := redis.NewClient(&redis.Options{
		Network: "unix", Addr: s.socket, MaxRetries: -1,
		DialTimeout: time.Second, ReadTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond,
	})
	t.Cleanup(func() { rdb.Close() })
	wait(t, "redis", func() bool { return rdb.Ping(t.Context()).Err() == nil })
	return s, rdb
}

func (s *redisServer) start(t *testing.T) {
	t.Helper()
	bin := os.Getenv("DSPGATE_REDIS")
	if bin == "" {
		bin = "redis-server"
	}
	// Appended to at each write, so that a restart finds what was acknowledged.
	s.cmd = exec.Command(bin, "--port", "0", "--unixsocket", s.socket, "--dir", s.dir, "--appendonly", "yes", "--appendfsync", "always", "--save", "")
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (s *redisServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// wait waits for something to come true; the test fails when it does not.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestFindsEveryRecordByItsIDAlone(t *testing.T) {
	_, rdb := startRedis(t)
	s := New(rdb, Options{})
	ids := authz.NewIDs()
	var all []authz.Record
	for range 300 { // more entries than a page
		batch := ordinary(ids, time.Now())[:3]
		batch[1].Reason, batch[1].Suspension = authz.ProductSuspended, "SU-9"
		if err := s.Write(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		all = append(all, batch...)
	}
	for i := 0; i < len(all); i += 37 {
		got, err := s.Find(t.Context(), all[i].ID)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(all[i], *got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	for _, at := range []time.Time{time.Now(), time.Now().Add(-time.Hour), time.UnixMilli(0), time.UnixMilli(1 << 43)} {
		if _, err := s.Find(t.Context(), authz.NewIDs().Next(at)); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("an ID of %v that never was: %v", at, err)
		}
	}
}

func TestFindsWhatWasWrittenLateOrByASkewedClock(t *testing.T) {
	_, rdb := startRedis(t)
	s := New(rdb, Options{})
	for _, off := range []time.Duration{-authz.RecordLateMax, -30 * time.Second, -3 * time.Second, 0, 8 * time.Second} {
		batch := ordinary(authz.NewIDs(), time.Now().Add(off))[:1]
		if err := s.Write(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Find(t.Context(), batch[0].ID); err != nil {
			t.Errorf("decided at %v from when it was written: %v", off, err)
		}
	}
}

func TestStreamIsTrimmedByAgeAndByNumber(t *testing.T) {
	_, rdb := startRedis(t)
	ctx := t.Context()
	if err := rdb.ConfigSet(ctx, "stream-node-max-entries", "10").Err(); err != nil {
		t.Fatal(err)
	}
	s := New(rdb, Options{Keep: time.Hour, EntriesMax: 50})
	for i := range 100 { // of two hours ago
		id := fmt.Sprintf("%d-0", time.Now().Add(-2*time.Hour).UnixMilli()+int64(i))
		if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: "dspgate:decisions", ID: id, Values: []any{"f", "", "l", "", "b", ""}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	ids := authz.NewIDs()
	if err := s.Write(ctx, ordinary(ids, time.Now())); err != nil {
		t.Fatal(err)
	}
	if n := rdb.XLen(ctx, "dspgate:decisions").Val(); n > 11 {
		t.Errorf("%d entries left of an age past", n)
	}
	for range 300 {
		if err := s.Write(ctx, ordinary(ids, time.Now())[:1]); err != nil {
			t.Fatal(err)
		}
	}
	if n := rdb.XLen(ctx, "dspgate:decisions").Val(); n > 50+trimEvery+10 {
		t.Errorf("%d entries", n)
	}
}

func TestRecentListsOnlyTheDenialsAskedFor(t *testing.T) {
	_, rdb := startRedis(t)
	s := New(rdb, Options{DeniedMax: 5})
	ctx := t.Context()
	ids := authz.NewIDs()
	var want []authz.Record
	for i := range 40 {
		batch := ordinary(ids, time.Now())[:3]
		batch[0].ProductID = "FP-1003"
		batch[1].ProductID, batch[1].Reason = "FP-1003", authz.ProductSuspended
		batch[2].ProductID, batch[2].Reason = "FP-1001", authz.RateLimited
		batch[1].Holder = registry.ABN(31000000202 + i%2)
		if err := s.Write(ctx, batch); err != nil {
			t.Fatal(err)
		}
		if i >= 35 {
			want = append([]authz.Record{batch[1]}, want...)
		}
	}
	got, err := s.Recent(ctx, Filter{Products: []string{"FP-1003"}}, 10)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got, err := s.Recent(ctx, Filter{Products: []string{"FP-1003", "FP-1001", "FP-9999"}}, 7); err != nil || len(got) != 7 {
		t.Errorf("%d, %v", len(got), err)
	}
	got, err = s.Recent(ctx, Filter{Products: []string{"FP-1003"}, Holder: 31000000203}, 10)
	if err != nil || len(got) == 0 || len(got) >= 5 {
		t.Errorf("%d by one holder, %v", len(got), err)
	}
	for _, f := range []Filter{{}, {Products: make([]string, productsMax+1)}} {
		if _, err := s.Recent(ctx, f, 10); !errors.Is(err, ErrFilter) {
			t.Errorf("%d products: %v", len(f.Products), err)
		}
	}
	if ttl := rdb.TTL(ctx, "dspgate:decisions:denied:FP-1003").Val(); ttl <= 0 {
		t.Errorf("the list stays for ever (%v)", ttl)
	}
}

func TestDenialsOfOneBatchKeepTheNewest(t *testing.T) {
	_, rdb := startRedis(t)
	s := New(rdb, Options{DeniedMax: 3})
	batch := ordinary(authz.NewIDs(), time.Now())
	for i := range batch {
		batch[i].ProductID, batch[i].Reason = "FP-1003", authz.VersionBlocked
	}
	if err := s.Write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	got, err := s.Recent(t.Context(), Filter{Products: []string{"FP-1003"}}, 10)
	if err != nil {
		t.Fatal(err)
	}
	want := []authz.Record{batch[99], batch[98], batch[97]}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestUnknownCallersMakeNoKeys(t *testing.T) {
	_, rdb := startRedis(t)
	s := New(rdb, Options{})
	batch := ordinary(authz.NewIDs(), time.Now())
	for i := range batch { // as the Recorder makes them when no product was found
		batch[i] = authz.Record{ID: batch[i].ID, At: batch[i].At, Reason: authz.ClientUnknown, Sidecar: "s-1"}
	}
	if err := s.Write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"dspgate:decisions"}, rdb.Keys(t.Context(), "*").Val()); d != "" {
		t.Errorf("keys (-want +got):\n%s", d)
	}
}

func TestTamperedBatchIsAnErrorAndNoPanic(t *testing.T) {
	_, rdb := startRedis(t)
	s := New(rdb, Options{})
	id := authz.NewIDs().Next(time.Now())
	rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: "dspgate:decisions", Values: []any{"x", "y"}})
	rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: "dspgate:decisions", Values: []any{"f", id.String(), "l", id.String(), "b", "\x01\x00\xff\xff\xff"}})
	if _, err := s.Find(t.Context(), id); !errors.Is(err, errFormat) {
		t.Errorf("got %v", err)
	}
}

// decide records a decision as the request path does.
func decide(x *authz.Recorder, ids *authz.IDs) authz.DecisionID {
	now := time.Now()
	d := authz.Decision{ID: ids.Next(now), At: now, Reason: authz.ProductSuspended, Product: &registry.Product{ID: "FP-1003"}}
	x.Record(&d)
	return d.ID
}

func TestRecordsSurviveRedisBeingAway(t *testing.T) {
	for _, away := range []struct {
		name    string
		off, on func(*redisServer, *testing.T)
	}{
		{name: "killed", off: func(s *redisServer, _ *testing.T) { s.kill() }, on: func(s *redisServer, t *testing.T) { s.start(t) }},
		{name: "stopped", off: func(s *redisServer, _ *testing.T) { _ = s.cmd.Process.Signal(syscall.SIGSTOP) },
			on: func(s *redisServer, _ *testing.T) { _ = s.cmd.Process.Signal(syscall.SIGCONT) }},
	} {
		t.Run(away.name, func(t *testing.T) {
			srv, rdb := startRedis(t)
			store := New(rdb, Options{})
			hasher, err := authz.NewSubjectHasher([]byte(strings.Repeat("k", 32)))
			if err != nil {
				t.Fatal(err)
			}
			x := authz.NewRecorder("s-1", hasher)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); x.Run(ctx, store) }()
			defer func() { cancel(); <-done }()
			ids := authz.NewIDs()
			found := func(id authz.DecisionID) func() bool {
				return func() bool { r, err := store.Find(t.Context(), id); return err == nil && r.ID == id }
			}

			before := decide(x, ids)
			wait(t, "a record of before", found(before))
			away.off(srv, t)
			// More than fits: had this blocked, the test would not end.
			var kept authz.DecisionID
			n := uint64(1)
			for x.Dropped() == 0 {
				if id := decide(x, ids); x.Dropped() == 0 {
					kept = id
				}
				n++
			}
			away.on(srv, t)
			wait(t, "the last record that was not dropped", found(kept))
			after := decide(x, ids)
			n++
			wait(t, "a record of after", found(after))
			wait(t, "the account", func() bool { return x.Written()+x.Dropped() == n })
		})
	}
}
