package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// untilReplicating waits until n replicas hold everything written so far. WAIT
// counts from the last write of its own connection: asked on another one, it
// also counts a replica that has not loaded its first snapshot.
func untilReplicating(t *testing.T, primary *redistest.Server, n int) {
	t.Helper()
	rdb, err := redisstore.Dial(redisstore.Config{Addrs: []string{primary.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	conn := rdb.(*redis.Client).Conn()
	defer conn.Close()
	until(t, "the replicas in step", func() bool {
		if err := conn.Set(t.Context(), "{probe}", "1", 0).Err(); err != nil {
			return false
		}
		held, err := conn.Wait(t.Context(), n, 100*time.Millisecond).Result()
		return err == nil && held >= int64(n)
	})
}

func product(id, name string) registry.Product {
	return registry.Product{ID: id, Name: name, Owner: 65000000101}
}

func headOf(t *testing.T, s *redisstore.Store) registry.Head {
	t.Helper()
	h, err := s.Snapshot(t.Context(), func(*registry.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestOpenRefusesARedisThatEvicts(t *testing.T) {
	srv := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	_, err := redisstore.Open(t.Context(), redisstore.Config{Addrs: []string{srv.Addr}}, nil)
	if !errors.Is(err, redisstore.ErrEviction) || !strings.Contains(err.Error(), "allkeys-lru") {
		t.Errorf("got %v, want ErrEviction naming the policy", err)
	}
	// Saying otherwise does not help where Redis can be asked.
	_, err = redisstore.Open(t.Context(), redisstore.Config{Addrs: []string{srv.Addr}, EvictionPolicy: "noeviction"}, nil)
	if !errors.Is(err, redisstore.ErrEviction) {
		t.Errorf("stated: got %v, want ErrEviction", err)
	}
}

func TestOpenWantsThePolicyStatedWhereItCannotBeRead(t *testing.T) {
	srv := redistest.Start(t)
	srv.Must("ACL", "SETUSER", "default", "-config", "-info")
	cfg := redisstore.Config{Addrs: []string{srv.Addr}}
	if _, err := redisstore.Open(t.Context(), cfg, nil); !errors.Is(err, redisstore.ErrEviction) || !strings.Contains(err.Error(), "eviction_policy") {
		t.Errorf("got %v, want ErrEviction naming the setting", err)
	}
	cfg.EvictionPolicy = "allkeys-lfu"
	if _, err := redisstore.Open(t.Context(), cfg, nil); !errors.Is(err, redisstore.ErrEviction) {
		t.Errorf("stated wrong: got %v, want ErrEviction", err)
	}
	cfg.EvictionPolicy = "noeviction"
	registrytest.NewWriter(t, open(t, cfg)).Put(product("FP-1", "a"))
}

// What was fit at Open may not be any more.
func TestAStoreThatMayForgetIsFoundWhileItRuns(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}, Timeout: time.Minute})
	for _, c := range []struct {
		setting, wrong, right string
		want                  error
	}{
		{"maxmemory-policy", "allkeys-lru", "noeviction", redisstore.ErrEviction},
		{"appendfsync", "everysec", "always", redisstore.ErrForgetful},
		{"appendonly", "no", "yes", redisstore.ErrForgetful},
	} {
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("before %s: %v", c.setting, err)
		}
		srv.Must("CONFIG", "SET", c.setting, c.wrong)
		if err := s.Check(t.Context()); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s %s: %v", c.setting, c.wrong, err)
		}
		srv.Must("CONFIG", "SET", c.setting, c.right)
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("%s %s: %v", c.setting, c.right, err)
		}
	}
	srv.Must("ACL", "SETUSER", "default", "-config", "-info")
	if err := s.Check(t.Context()); !errors.Is(err, redisstore.ErrEviction) {
		t.Errorf("where nothing can be read: %v", err)
	}
}

// One that never wrote each commit to disk was told of at Open.
func TestAStoreThatWasForgetfulIsNoNews(t *testing.T) {
	s := open(t, redisstore.Config{Addrs: []string{redistest.Start(t, "--appendfsync", "everysec").Addr}, Timeout: time.Minute})
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOpenWarnsWhenCommitsMayBeLost(t *testing.T) {
	for _, c := range []struct {
		args []string
		warn bool
	}{
		{nil, false},
		{[]string{"--appendfsync", "everysec"}, true},
		{[]string{"--appendonly", "no"}, true},
	} {
		var out bytes.Buffer
		s, err := redisstore.Open(t.Context(), redisstore.Config{Addrs: []string{redistest.Start(t, c.args...).Addr}}, slog.New(slog.NewTextHandler(&out, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "REDIS MAY LOSE"); got != c.warn {
			t.Errorf("%v: warned %t, want %t: %s", c.args, got, c.warn, out.String())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNoRedisIsUnavailable(t *testing.T) {
	srv := redistest.Start(t)
	srv.Kill()
	if _, err := redisstore.Open(t.Context(), redisstore.Config{Addrs: []string{srv.Addr}}, nil); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestAcknowledgedCommitsSurviveKill9(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	w := registrytest.NewWriter(t, s)
	for cycle := range 3 {
		for i := range 20 {
			w.Put(product(fmt.Sprintf("FP-%d-%d", cycle, i), "a"))
		}
		srv.Restart()
		if got := headOf(t, s).Revision; got != w.View.Revision {
			t.Fatalf("after kill -9 the head is %d, want %d", got, w.View.Revision)
		}
	}
	all, err := s.Changes(t.Context(), 0, 1000)
	if err != nil || len(all) != 60 {
		t.Errorf("%d changes, %v; want 60", len(all), err)
	}
}

func TestACommitToADeadRedisIsUnavailableAndToASilentOneUncertain(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}, Timeout: 300 * time.Millisecond})
	w := registrytest.NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	c, head, next := w.Change(product("FP-1", "b"))

	srv.Pause()
	if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), c, head); !errors.Is(err, registry.ErrUncertain) {
		t.Errorf("silent: got %v, want ErrUncertain", err)
	}
	srv.Resume()
	// Offered again it is committed once, whether or not the first got through.
	for range 2 {
		if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), c, head); err != nil {
			t.Fatalf("offered again: %v", err)
		}
	}
	w.View = next
	if got := headOf(t, s); got != *head {
		t.Errorf("head %+v, want %+v", got, *head)
	}
	// Another change on the same base is a conflict all the same.
	w.View = &registry.View{Revision: 1}
	other, otherHead, _ := w.Change(product("FP-1", "c"))
	if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), other, otherHead); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("another change: got %v, want ErrConflict", err)
	}

	srv.Kill()
	var err error
	for range 20 { // connections that were open may be found dead only by use
		if err = s.Commit(t.Context(), w.Epoch, w.View.Mark(), other, otherHead); errors.Is(err, registry.ErrUnavailable) {
			return
		}
	}
	t.Errorf("dead: got %v, want ErrUnavailable", err)
}

func TestAFullRedisRefusesCommitsWholeAndGoesOnAnsweringPolls(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	w := registrytest.NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	ack := registry.Ack{ID: "a", Incarnation: "1", Revision: 1, Short: time.Second, Long: time.Minute}
	if _, err := s.Follow(t.Context(), ack, 1); err != nil {
		t.Fatal(err)
	}
	before := headOf(t, s)
	srv.Must("CONFIG", "SET", "maxmemory", "1")
	c, head, _ := w.Change(product("FP-1", "b"), product("FP-2", "b"))
	if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), c, head); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("commit: got %v, want ErrUnavailable", err)
	}
	if got := headOf(t, s); got != before {
		t.Errorf("head %+v, want %+v", got, before)
	}
	if got, err := s.Changes(t.Context(), 0, 10); err != nil || len(got) != 1 {
		t.Errorf("%d changes, %v; want 1", len(got), err)
	}
	_, err := s.Follow(t.Context(), ack, 1)
	// Only since 7.0 may a script say that it writes all the same.
	if old := strings.HasPrefix(version(t, srv), "6."); old != errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("poll: %v", err)
	}
	srv.Must("CONFIG", "SET", "maxmemory", "0")
	if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), c, head); err != nil {
		t.Errorf("with memory again: %v", err)
	}
}

func version(t *testing.T, srv *redistest.Server) string {
	t.Helper()
	rdb, err := redisstore.Dial(redisstore.Config{Addrs: []string{srv.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rdb.Close() }()
	info, err := rdb.Info(t.Context(), "server").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(info, "redis_version:")
	return after
}

func TestAReadOnlyReplicaIsUnavailable(t *testing.T) {
	primary, replica := redistest.Start(t), redistest.Start(t)
	w := registrytest.NewWriter(t, open(t, redisstore.Config{Addrs: []string{primary.Addr}}))
	replica.Must("REPLICAOF", "127.0.0.1", fmt.Sprint(primary.Port))
	untilReplicating(t, primary, 1)
	s := open(t, redisstore.Config{Addrs: []string{replica.Addr}})
	c, head, _ := w.Change(product("FP-1", "a"))
	if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), c, head); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("commit: got %v, want ErrUnavailable", err)
	}
	if _, err := s.Follow(t.Context(), registry.Ack{ID: "a", Incarnation: "1"}, 1); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("poll: got %v, want ErrUnavailable", err)
	}
}

func TestAnIsolatedPrimaryRefusesPollsAndCommits(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	w := registrytest.NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	srv.Must("CONFIG", "SET", "min-replicas-to-write", "1")
	c, head, _ := w.Change(product("FP-1", "b"))
	if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), c, head); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "NOREPLICAS") {
		t.Errorf("commit: got %v, want ErrUnavailable for NOREPLICAS", err)
	}
	for _, observer := range []bool{false, true} {
		_, err := s.Follow(t.Context(), registry.Ack{ID: "a", Incarnation: "1", Revision: 1, Observer: observer}, 1)
		if !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "NOREPLICAS") {
			t.Errorf("poll, observer %t: got %v, want ErrUnavailable for NOREPLICAS", observer, err)
		}
	}
	srv.Must("CONFIG", "SET", "min-replicas-to-write", "0")
	if got := headOf(t, s).Revision; got != 1 {
		t.Errorf("the head is %d, want 1", got)
	}
}

func TestACommitOnTooFewReplicasIsNotDurable(t *testing.T) {
	primary, replica := redistest.Start(t), redistest.Start(t)
	replica.Must("REPLICAOF", "127.0.0.1", fmt.Sprint(primary.Port))
	untilReplicating(t, primary, 1)
	s := open(t, redisstore.Config{Addrs: []string{primary.Addr}, Replicas: 1, ReplicaTimeout: 200 * time.Millisecond})
	patient := open(t, redisstore.Config{Addrs: []string{primary.Addr}, Replicas: 1, ReplicaTimeout: 20 * time.Second})
	w := registrytest.NewWriter(t, patient)
	w.Put(product("FP-1", "a"))
	replica.Kill()
	c, head, _ := w.Change(product("FP-1", "b"))
	for _, when := range []string{"first", "offered again"} {
		if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), c, head); !errors.Is(err, registry.ErrNotDurable) {
			t.Errorf("%s: got %v, want ErrNotDurable", when, err)
		}
	}
	if got := headOf(t, s).Revision; got != 2 {
		t.Errorf("the head is %d, want 2: it is committed all the same", got)
	}
	replica.Restart()
	replica.Must("REPLICAOF", "127.0.0.1", fmt.Sprint(primary.Port))
	untilReplicating(t, primary, 1)
	if err := patient.Commit(t.Context(), w.Epoch, w.View.Mark(), c, head); err != nil {
		t.Errorf("with the replica back: %v", err)
	}
}

func TestAFlushedRedisAcceptsNothingFromBefore(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	w := registrytest.NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	srv.Must("FLUSHALL")
	c, head, _ := w.Change(product("FP-1", "b"))
	if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), c, head); !errors.Is(err, registry.ErrFenced) {
		t.Errorf("got %v, want ErrFenced", err)
	}
	epoch, err := s.Lead(t.Context(), "writer", w.Epoch, time.Hour)
	if err != nil || epoch <= w.Epoch {
		t.Fatalf("epoch %d, %v; want above %d", epoch, err, w.Epoch)
	}
	if err := s.Commit(t.Context(), epoch, w.View.Mark(), c, head); !errors.Is(err, registry.ErrRewound) || !errors.Is(err, registry.ErrConflict) {
		t.Errorf("got %v, want ErrRewound and ErrConflict", err)
	}
	poll, err := s.Follow(t.Context(), registry.Ack{ID: "a", Incarnation: "1", Revision: 1}, 10)
	if err != nil || poll.Head != (registry.Head{}) || len(poll.Changes) != 0 {
		t.Errorf("poll %+v, %v; want the zero head, which a mirror refuses", poll, err)
	}
}

func TestAWakeUpComesAlsoAfterARestart(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	w := registrytest.NewWriter(t, s)
	wake := s.Wake(t.Context())
	next := func(what string) {
		t.Helper()
		select {
		case <-wake:
		case <-time.After(20 * time.Second):
			t.Fatalf("no wake-up %s", what)
		}
	}
	next("when subscribed")
	w.Put(product("FP-1", "a"))
	next("after a commit")
	srv.Restart()
	next("when subscribed again")
	w.Put(product("FP-1", "b"))
	next("after a commit after the restart")
}

func TestTheLogIsTrimmedOnlyWhenToldTo(t *testing.T) {
	srv := redistest.Start(t, "--stream-node-max-entries", "10")
	for _, c := range []struct {
		max  int64
		want error
	}{{0, nil}, {20, registry.ErrTrimmed}} {
		s := open(t, redisstore.Config{Addrs: []string{srv.Addr}, Prefix: fmt.Sprint("trim-", c.max), LogMax: c.max})
		w := registrytest.NewWriter(t, s)
		for i := range 100 {
			w.Put(product("FP-1", fmt.Sprint(i)))
		}
		if _, err := s.Changes(t.Context(), 0, 10); !errors.Is(err, c.want) {
			t.Errorf("log_max %d: got %v, want %v", c.max, err, c.want)
		}
		if got, err := s.Changes(t.Context(), 80, 100); err != nil || len(got) != 20 {
			t.Errorf("log_max %d: %d changes, %v; want the last 20", c.max, len(got), err)
		}
	}
}

func TestAPollIsBoundedInBytes(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	w := registrytest.NewWriter(t, s)
	for range 8 {
		w.Put(product("FP-1", strings.Repeat("x", 400<<10)))
	}
	have, polls := registry.Revision(0), 0
	for have < 8 {
		p, err := s.Follow(t.Context(), registry.Ack{ID: "a", Incarnation: "1", Revision: have}, 1000)
		if err != nil || len(p.Changes) == 0 || p.Head.Revision != 8 {
			t.Fatalf("poll from %d: %d changes, head %d, %v", have, len(p.Changes), p.Head.Revision, err)
		}
		have += registry.Revision(len(p.Changes))
		polls++
	}
	if polls < 2 {
		t.Errorf("3 MB came in %d poll", polls)
	}
}

func TestForeignBytesInRedisAreRefused(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	registrytest.NewWriter(t, s).Put(product("FP-1", "a"))
	snapshot := func() error {
		_, err := s.Snapshot(t.Context(), func(*registry.Record) error { return nil })
		return err
	}
	srv.Must("HSET", "{dspgate}:rec", "product/FP-2", "short")
	if err := snapshot(); !errors.Is(err, registry.ErrTampered) {
		t.Errorf("record: got %v, want ErrTampered", err)
	}
	srv.Must("HDEL", "{dspgate}:rec", "product/FP-2")
	srv.Must("HSET", "{dspgate}:head", "head", "short")
	if err := snapshot(); !errors.Is(err, registry.ErrTampered) {
		t.Errorf("head: got %v, want ErrTampered", err)
	}
	srv.Must("HSET", "{dspgate}:head", "rev", "2")
	srv.Must("XADD", "{dspgate}:log", "2-0", "c", "C1 nonsense")
	if _, err := s.Changes(t.Context(), 1, 10); !errors.Is(err, registry.ErrTampered) {
		t.Errorf("log: got %v, want ErrTampered", err)
	}
}

func TestEveryCallEndsWhenRedisIsSilent(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}, Timeout: 100 * time.Millisecond})
	srv.Pause()
	defer srv.Resume()
	for name, call := range map[string]func(context.Context) error{
		"snapshot": func(ctx context.Context) error {
			_, err := s.Snapshot(ctx, func(*registry.Record) error { return nil })
			return err
		},
		"follow":   func(ctx context.Context) error { _, err := s.Follow(ctx, registry.Ack{ID: "a"}, 1); return err },
		"leave":    func(ctx context.Context) error { return s.Leave(ctx, "a", "1") },
		"lead":     func(ctx context.Context) error { _, err := s.Lead(ctx, "a", 0, time.Second); return err },
		"roll":     func(ctx context.Context) error { _, err := s.Roll(ctx); return err },
		"changes":  func(ctx context.Context) error { _, err := s.Changes(ctx, 0, 1); return err },
		"replayed": func(ctx context.Context) error { _, err := s.Replayed(ctx, "k"); return err },
		"remember": func(ctx context.Context) error { return s.Remember(ctx, "k", nil) },
	} {
		if err := call(context.Background()); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", name, err)
		}
	}
}
