package translog_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/translog"
	"github.com/dspgate/dspgate/registry/translog/translogtest"
)

const origin = "audit.dspgate.example"

// keys of one log.
type keys struct {
	signer   note.Signer
	verifier note.Verifier
}

func newKeys(t testing.TB, name string) keys {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return keys{s, v}
}

// start runs a log until the test ends, or stop is called.
func start(t testing.TB, store translog.Store, k keys, change ...func(*translog.Config)) (l *translog.Log, stop func()) {
	t.Helper()
	cfg := translog.Config{Signer: k.signer, Verifier: k.verifier, WitnessEvery: time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	l, err := translog.New(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

func read(what string) translog.Leaf {
	return translog.Leaf{Kind: translog.KindRead, Actor: "auditor@agency.example", Command: "contact", Subjects: []string{what}}
}

func appendN(t testing.TB, l *translog.Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(context.Background(), read(fmt.Sprintf("entity/%d", i))); err != nil {
			t.Fatal(err)
		}
	}
}

func change(rev registry.Revision) *registry.Change {
	return &registry.Change{
		Revision: rev, At: registry.At(time.Unix(1_700_000_000, 0)), Actor: "operator@agency.example", Command: "suspend",
		Reason: "obligation check not satisfied", Puts: []registry.Record{{Kind: registry.KindEntity, ID: "35000001111", Data: []byte(`{"checks":"fail"}`)}},
		MAC: registry.MAC{byte(rev)},
	}
}

func size(t testing.TB, l *translog.Log) int64 {
	t.Helper()
	st, err := l.State()
	if err != nil {
		t.Fatal(err)
	}
	return st.Size
}

func TestMemoryPassesTheSuite(t *testing.T) {
	translogtest.Run(t, func(*testing.T) translog.Store { return &translogtest.Memory{} })
}

// TestEveryLeafAndEveryPrefixIsProved: for any run of appends, every entry is
// proved in the newest checkpoint, and every earlier size consistent with it,
// checked with nothing but the checkpoint.
func TestEveryLeafAndEveryPrefixIsProved(t *testing.T) {
	k := newKeys(t, origin)
	rapid.Check(t, func(rt *rapid.T) {
		store := &translogtest.Memory{}
		l, stop := start(t, store, k)
		defer stop()
		roots := map[int64]tlog.Hash{}
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, 9), 1, 12).Draw(rt, "appends") {
			leaves := make([]translog.Leaf, n)
			for i := range leaves {
				leaves[i] = read(fmt.Sprintf("entity/%d", rapid.Uint32().Draw(rt, "id")))
			}
			if err := l.Append(context.Background(), leaves...); err != nil {
				rt.Fatal(err)
			}
			st, _ := l.State()
			roots[st.Size] = st.Root
		}
		signed, st, err := l.Checkpoint()
		if err != nil {
			rt.Fatal(err)
		}
		tree, err := translog.OpenCheckpoint(signed, k.verifier)
		if err != nil || tree.N != st.Size {
			rt.Fatalf("checkpoint of %d: %v", tree.N, err)
		}
		for i := range tree.N {
			e, p, _, err := l.ProveLeaf(context.Background(), i)
			if err != nil {
				rt.Fatal(err)
			}
			if err := tlog.CheckRecord(p, tree.N, tree.Hash, i, e.Hash()); err != nil {
				rt.Fatalf("entry %d: %v", i, err)
			}
		}
		for n, root := range roots {
			p, _, err := l.ProveTree(context.Background(), n)
			if err != nil {
				rt.Fatal(err)
			}
			if err := tlog.CheckTree(p, tree.N, tree.Hash, n, root); err != nil {
				rt.Fatalf("size %d: %v", n, err)
			}
		}
	})
}

// TestALeafTellsNoContent: neither the reason nor what a record says, nor a tax
// file number used as an ID, gets into the log.
func TestALeafTellsNoContent(t *testing.T) {
	store := &translogtest.Memory{}
	l, _ := start(t, store, newKeys(t, origin))
	c := change(1)
	c.Puts = append(c.Puts, registry.Record{Kind: registry.KindSubscription, ID: "220115957"})
	if err := l.Record(t.Context(), 0, []*registry.Change{c}); err != nil {
		t.Fatal(err)
	}
	leaf := string(store.Contents().Leaves[0])
	for _, secret := range []string{"obligation", "fail", "220115957", "checks"} {
		if strings.Contains(leaf, secret) {
			t.Errorf("the leaf holds %q: %s", secret, leaf)
		}
	}
	for _, told := range []string{"operator@agency.example", "suspend", "entity/35000001111", "subscription/masked", `"mac":"01`} {
		if !strings.Contains(leaf, told) {
			t.Errorf("the leaf lacks %q: %s", told, leaf)
		}
	}
}

// TestManyWaitersOneTrip: those that wait while an append is under way go
// together.
func TestManyWaitersOneTrip(t *testing.T) {
	store := &translogtest.Memory{}
	slow := &slowStore{Memory: store, gate: make(chan struct{})}
	l, _ := start(t, slow, newKeys(t, origin))
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if err := l.Append(context.Background(), read(fmt.Sprint("entity/", i))); err != nil {
				t.Error(err)
			}
		})
	}
	// The first append is held until it alone is under way: the others wait for it.
	slow.gate <- struct{}{}
	for range 100 {
		select {
		case slow.gate <- struct{}{}:
		case <-slow.idle(&wg):
		}
	}
	wg.Wait()
	if n := size(t, l); n != 100 {
		t.Errorf("%d leaves", n)
	}
}

type slowStore struct {
	*translogtest.Memory
	gate chan struct{}
	once sync.Once
	done chan struct{}
}

func (s *slowStore) idle(wg *sync.WaitGroup) chan struct{} {
	s.once.Do(func() {
		s.done = make(chan struct{})
		go func() { wg.Wait(); close(s.done) }()
	})
	return s.done
}

func (s *slowStore) Append(ctx context.Context, at, next translog.State, leaves [][]byte, hashes []tlog.Hash) error {
	<-s.gate
	return s.Memory.Append(ctx, at, next, leaves, hashes)
}

// TestTwoControlPlanesOneTree: two logs over one store append at once; all
// leaves are in one tree, and both serve it.
func TestTwoControlPlanesOneTree(t *testing.T) {
	store, k := &translogtest.Memory{}, newKeys(t, origin)
	a, _ := start(t, store, k)
	b, _ := start(t, store, k)
	var wg sync.WaitGroup
	for i := range 40 {
		for _, l := range []*translog.Log{a, b} {
			wg.Go(func() {
				if err := l.Append(context.Background(), read(fmt.Sprint("entity/", i))); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	appendN(t, a, 1)
	if n := size(t, a); n != 81 {
		t.Errorf("%d leaves, want 81", n)
	}
	verifyAll(t, a, k, nil)
}

// TestJournalEachRevisionOnce: two writers record the same changes; each gets
// one leaf, in order.
func TestJournalEachRevisionOnce(t *testing.T) {
	store, k := &translogtest.Memory{}, newKeys(t, origin)
	a, _ := start(t, store, k)
	b, _ := start(t, store, k)
	ctx := t.Context()
	if err := a.Record(ctx, 0, []*registry.Change{change(1), change(2)}); err != nil {
		t.Fatal(err)
	}
	if err := b.Record(ctx, 0, []*registry.Change{change(1)}); !errors.Is(err, registry.ErrConflict) {
		t.Fatalf("the same change again: %v", err)
	}
	if rev, err := b.Journaled(ctx); err != nil || rev != 2 {
		t.Fatalf("journaled %d, %v", rev, err)
	}
	if err := b.Record(ctx, 2, []*registry.Change{change(3)}); err != nil {
		t.Fatal(err)
	}
	if rep := verifyAll(t, b, k, nil); rep.Revision != 3 || rep.Kinds[translog.KindChange] != 3 {
		t.Errorf("%+v", rep)
	}
}

// TestSilentStore: an append that happened though no answer came is not made
// twice, and one that did not happen is made.
func TestSilentStore(t *testing.T) {
	for _, happens := range []bool{true, false} {
		store := &translogtest.Memory{}
		l, _ := start(t, store, newKeys(t, origin))
		appendN(t, l, 2)
		store.FailNext(registry.ErrUncertain, happens)
		appendN(t, l, 1)
		if n := size(t, l); n != 3 || len(store.Contents().Leaves) != 3 {
			t.Errorf("happens %v: %d leaves signed, %d stored", happens, n, len(store.Contents().Leaves))
		}
	}
}

// TestNotDurableIsToldAndNotServed: a checkpoint is shown to nobody before its
// tree is on the replicas.
func TestNotDurableIsToldAndNotServed(t *testing.T) {
	store := &translogtest.Memory{}
	l, _ := start(t, store, newKeys(t, origin))
	appendN(t, l, 2)
	store.Short(true)
	if err := l.Append(t.Context(), read("entity/1")); !errors.Is(err, registry.ErrNotDurable) {
		t.Fatalf("got %v", err)
	}
	if n := size(t, l); n != 2 {
		t.Errorf("size %d is served", n)
	}
	store.Short(false)
	appendN(t, l, 1)
	if n := size(t, l); n != 4 {
		t.Errorf("size %d is served", n)
	}
}

// TestLostEndIsGivenBack: a store that failed over to a replica without the
// last appends gets the same leaves again, and every checkpoint stays true.
func TestLostEndIsGivenBack(t *testing.T) {
	store, k := &translogtest.Memory{}, newKeys(t, origin)
	l, _ := start(t, store, k)
	appendN(t, l, 3)
	replica := store.Contents()
	appendN(t, l, 4)
	promised, _, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	store.Put(replica)
	appendN(t, l, 1)
	if n := size(t, l); n != 8 {
		t.Errorf("%d leaves", n)
	}
	verifyAll(t, l, k, [][]byte{promised})
}

// TestOlderStoreIsRefused: a control plane started again over a store put back
// to an older or another tree signs nothing.
func TestOlderStoreIsRefused(t *testing.T) {
	k := newKeys(t, origin)
	for name, spoil := range map[string]func(t *testing.T, old, now translogtest.Contents) translogtest.Contents{
		"older": func(_ *testing.T, old, _ translogtest.Contents) translogtest.Contents { return old },
		"emptied": func(*testing.T, translogtest.Contents, translogtest.Contents) translogtest.Contents {
			return translogtest.Contents{}
		},
		"another": func(t *testing.T, _, now translogtest.Contents) translogtest.Contents {
			other := &translogtest.Memory{}
			l, stop := start(t, other, k) // whoever has the key and Redis
			defer stop()
			appendN(t, l, len(now.Leaves)+3)
			return other.Contents()
		},
		"unsigned": func(_ *testing.T, _, now translogtest.Contents) translogtest.Contents {
			now.State.Checkpoint = []byte("not a checkpoint\n")
			return now
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := &translogtest.Memory{}
			state := filepath.Join(t.TempDir(), "audit.state")
			keep := func(c *translog.Config) { c.StateFile = state }
			l, stop := start(t, store, k, keep)
			appendN(t, l, 3)
			old := store.Contents()
			appendN(t, l, 4)
			stop()
			store.Put(spoil(t, old, store.Contents()))
			told := make(chan error, 1)
			again, _ := start(t, store, k, keep, func(c *translog.Config) { c.OnForked = func(err error) { told <- err } })
			before := store.Contents()
			if err := again.Append(t.Context(), read("entity/1")); !errors.Is(err, translog.ErrForked) {
				t.Errorf("got %v", err)
			}
			if err := <-told; !errors.Is(err, translog.ErrForked) {
				t.Errorf("told %v", err)
			}
			if len(store.Contents().Leaves) != len(before.Leaves) {
				t.Error("appended all the same")
			}
		})
	}
}
