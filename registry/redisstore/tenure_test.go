package redisstore_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// run runs something until the test ends.
func run(t testing.TB, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func rollOf(t *testing.T, s *redisstore.Store) (r registry.Roll) {
	t.Helper()
	until(t, "the roll is read", func() (ok bool) {
		var err error
		r, err = s.Roll(t.Context())
		return err == nil
	})
	return r
}

func TestTheRollIsWholeAfterARestartOnlyWhereNothingCanBeLost(t *testing.T) {
	for what, c := range map[string]struct {
		args    []string
		settled bool
	}{
		"fsync always":   {nil, true},
		"fsync everysec": {[]string{"--appendfsync", "everysec"}, false},
	} {
		t.Run(what, func(t *testing.T) {
			srv := redistest.Start(t, c.args...)
			s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
			first := rollOf(t, s)
			registrytest.NewWriter(t, s).Put(product("FP-1", "a"))
			if got := rollOf(t, s); got.Tenure != first.Tenure || !got.Settled {
				t.Fatalf("before: %+v, then %+v", first, got)
			}
			time.Sleep(1100 * time.Millisecond) // everysec
			srv.Restart()
			second := rollOf(t, s)
			if second.Tenure == first.Tenure || second.Settled != c.settled || second.Head != 1 {
				t.Errorf("after the restart: %+v; want another tenure than %s, settled %t", second, first.Tenure, c.settled)
			}
			if err := s.Settle(t.Context(), first.Tenure); err != nil {
				t.Fatal(err)
			}
			if got := rollOf(t, s); got.Settled != c.settled {
				t.Error("settled for another tenure")
			}
			if err := s.Settle(t.Context(), second.Tenure); err != nil {
				t.Fatal(err)
			}
			if got := rollOf(t, s); !got.Settled || got.Tenure != second.Tenure {
				t.Errorf("after it was settled: %+v", got)
			}
		})
	}
}

func TestAPromotedReplicaIsAnotherTenureAndNotSettled(t *testing.T) {
	primary := redistest.Start(t)
	replica := redistest.Start(t)
	replica.Must("REPLICAOF", "127.0.0.1", fmt.Sprint(primary.Port))
	untilReplicating(t, primary, 1)
	s := open(t, redisstore.Config{Addrs: []string{primary.Addr}})
	registrytest.NewWriter(t, s).Put(product("FP-1", "a"))
	first := rollOf(t, s)
	untilReplicating(t, primary, 1)
	primary.Kill()
	replica.Must("REPLICAOF", "NO", "ONE")
	promoted := rollOf(t, open(t, redisstore.Config{Addrs: []string{replica.Addr}}))
	if promoted.Tenure == first.Tenure || promoted.Settled || promoted.Head != 1 {
		t.Errorf("%+v after %+v; want another tenure, not settled", promoted, first)
	}
	// And one that was ever replicated is not believed after a restart either.
	rdb, err := redisstore.Dial(redisstore.Config{Addrs: []string{replica.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the replica's file is whole", func() bool {
		info, err := rdb.Info(t.Context(), "persistence").Result()
		return err == nil && strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0")
	})
	if err := rdb.Close(); err != nil {
		t.Error(err)
	}
	replica.Restart()
	if got := rollOf(t, open(t, redisstore.Config{Addrs: []string{replica.Addr}})); got.Head != 1 || got.Settled || got.Tenure == promoted.Tenure {
		t.Errorf("restarted: %+v", got)
	}
}

func TestARedisThatDoesNotTellItsLifeIsNeverSettled(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	srv.Must("ACL", "SETUSER", "default", "-info")
	if got := rollOf(t, s); got.Settled || got.Tenure != "" {
		t.Errorf("%+v", got)
	}
}

// rollback puts keys back as they were when save was called: as a failover to
// a replica that lagged does, on one server.
func save(srv *redistest.Server) (rollback func()) {
	keys := []string{"{dspgate}:head", "{dspgate}:rec", "{dspgate}:log", "{dspgate}:claim"}
	for _, k := range keys {
		srv.Must("COPY", k, k+"-kept", "REPLACE")
	}
	return func() {
		args := []string{"EVAL", `for _, k in ipairs(KEYS) do redis.call('COPY', k .. '-kept', k, 'REPLACE') end return 1`, "4"}
		srv.Must(append(args, keys...)...)
	}
}

func TestARedisThatLostItsEndIsGivenItBack(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	r := startRegister(t, s, "one")
	until(t, "the control plane writes", writing(r))
	withApps(t, r, 20)
	rollback := save(srv)
	var last registry.Result[registry.Suspension]
	for i := range 20 {
		var err error
		if last, err = r.Suspend(t.Context(), operator, suspendApp(i)); err != nil {
			t.Fatal(err)
		}
	}
	want := headOf(t, s)
	log, err := s.Changes(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	rollback()
	until(t, "the head is where it was", func() bool { return headOf(t, s).Revision == last.Revision })
	if got := headOf(t, s); got.Digest != want.Digest || got.Records != want.Records {
		t.Errorf("head %+v, want %+v", got, want)
	}
	again, err := s.Changes(t.Context(), 0, 1000)
	if err != nil || len(again) != len(log) || again[len(again)-1].MAC != log[len(log)-1].MAC {
		t.Errorf("the log holds %d changes, %v; want the same %d", len(again), err, len(log))
	}
	// It is whole: a mirror that knows nothing loads it.
	m := registry.NewMirror(s, registrytest.Sealer(t), registry.MirrorConfig{ID: "new", Observer: true})
	run(t, m.Run)
	until(t, "a new mirror has loaded", func() bool { return m.View() != nil })
	if v := m.View(); v.Digest != want.Digest {
		t.Errorf("a new mirror holds %v, want %v", v.Digest, want.Digest)
	}
	// A command in the very instant after the loss gives back first, too.
	rollback()
	until(t, "one more is committed", func() bool {
		res, err := r.Suspend(t.Context(), operator, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1001"}, Reason: "next"})
		return err == nil && res.Revision == last.Revision+1
	})
}

// The head alone was set back, by hand: the log is compared, and nothing is appended twice.
func TestAHeadSetBackOverAnIntactLogIsSetRight(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	r := startRegister(t, s, "one")
	until(t, "the control plane writes", writing(r))
	withApps(t, r, 5)
	srv.Must("COPY", "{dspgate}:head", "{dspgate}:head-kept")
	for i := range 5 {
		if _, err := r.Suspend(t.Context(), operator, suspendApp(i)); err != nil {
			t.Fatal(err)
		}
	}
	want := headOf(t, s)
	log, err := s.Changes(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	srv.Must("COPY", "{dspgate}:head-kept", "{dspgate}:head", "REPLACE")
	until(t, "the head is where it was", func() bool { return headOf(t, s).Revision == want.Revision })
	if got := headOf(t, s); got.Digest != want.Digest || got.Records != want.Records {
		t.Errorf("head %+v, want %+v", got, want)
	}
	again, err := s.Changes(t.Context(), 0, 100)
	if err != nil || len(again) != len(log) {
		t.Errorf("the log holds %d changes, %v; want %d", len(again), err, len(log))
	}

	// A log that says something else is left as it is.
	last := fmt.Sprintf("%d-0", want.Revision)
	srv.Must("XDEL", "{dspgate}:log", last)
	srv.Must("XADD", "{dspgate}:log", fmt.Sprintf("%d-0", want.Revision+1), "c", "by hand")
	srv.Must("COPY", "{dspgate}:head-kept", "{dspgate}:head", "REPLACE")
	refused := headOf(t, s)
	if _, err := r.Suspend(t.Context(), operator, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1001"}, Reason: "next"}); err == nil {
		t.Error("committed on a register that is not whole")
	}
	if got := headOf(t, s); got != refused {
		t.Errorf("the head is %d, want it left at %d", got.Revision, refused.Revision)
	}
}
