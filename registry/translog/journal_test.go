package translog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
	"github.com/dspgate/dspgate/registry/translog"
	"github.com/dspgate/dspgate/registry/translog/translogtest"
)

var operator = registry.Actor{Name: "operator@agency.example", Permissions: registry.PermOperator}

// startRegister runs a control plane that journals, until stop.
func startRegister(t testing.TB, store registrytest.Store, holder string, j registry.Journal) (r *registry.Register, stop func()) {
	t.Helper()
	m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: holder, Observer: true})
	r = registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: holder, ClaimTTL: 200 * time.Millisecond, Journal: j})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	wg.Go(func() { _ = r.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	eventually(t, holder+" writes", func() bool {
		_, err := r.View()
		return err == nil && r.Writing()
	})
	return r, stop
}

func fill(t testing.TB, r *registry.Register) {
	t.Helper()
	if _, err := r.Import(context.Background(), sample.Actor(), sample.Records(time.Now()), registry.Meta{}); err != nil {
		t.Fatal(err)
	}
}

func suspend(r *registry.Register, id string) (registry.Result[registry.Suspension], error) {
	return r.Suspend(context.Background(), operator, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: id}, Reason: "finding"})
}

// recorded tells whether the stored log holds a change's leaf.
func recorded(store *translogtest.Memory, rev registry.Revision) bool {
	for _, leaf := range store.Contents().Leaves {
		if strings.Contains(string(leaf), fmt.Sprintf(`"revision":%d,`, rev)) {
			return true
		}
	}
	return false
}

// TestEveryAcknowledgedChangeHasItsLeaf: many commands at once; whoever is
// answered finds the leaf stored.
func TestEveryAcknowledgedChangeHasItsLeaf(t *testing.T) {
	audit, k := &translogtest.Memory{}, newKeys(t, origin)
	l, _ := start(t, audit, k)
	r, _ := startRegister(t, registrytest.NewMemory(), "one", l)
	fill(t, r)
	var wg sync.WaitGroup
	for i := 1001; i <= 1012; i++ {
		wg.Go(func() {
			for range 2 { // the second finds it done, and is told so only after it was recorded
				res, err := suspend(r, fmt.Sprint("FP-", i))
				if err != nil {
					t.Error(err)
					return
				}
				if !recorded(audit, res.Revision) {
					t.Errorf("revision %d was acknowledged without a leaf", res.Revision)
				}
			}
		})
	}
	wg.Wait()
	v, err := r.View()
	if err != nil {
		t.Fatal(err)
	}
	if rep := verifyAll(t, l, k, nil); rep.Revision != uint64(v.Revision) {
		t.Errorf("leaves up to revision %d of %d", rep.Revision, v.Revision)
	}
}

// faulty is a journal with faults to order.
type faulty struct {
	registry.Journal
	mu   sync.Mutex
	fail error
}

func (f *faulty) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *faulty) Record(ctx context.Context, after registry.Revision, c []*registry.Change) error {
	f.mu.Lock()
	err := f.fail
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Journal.Record(ctx, after, c)
}

// TestCommittedAndNotRecorded: the change stays committed and is told to be not
// durable; it gets its leaf when the journal is back, without another command.
func TestCommittedAndNotRecorded(t *testing.T) {
	audit, k := &translogtest.Memory{}, newKeys(t, origin)
	l, _ := start(t, audit, k)
	j := &faulty{Journal: l}
	r, _ := startRegister(t, registrytest.NewMemory(), "one", j)
	fill(t, r)
	j.set(registry.ErrUnavailable)
	res, err := suspend(r, "FP-1003")
	if !errors.Is(err, registry.ErrNotDurable) || res.Entry == nil {
		t.Fatalf("%+v, %v", res, err)
	}
	if v, _ := r.View(); v.Suspension(res.Entry.ID) == nil {
		t.Error("the suspension is not in force")
	}
	if recorded(audit, res.Revision) {
		t.Error("recorded all the same")
	}
	j.set(nil)
	eventually(t, "the missed change is recorded", func() bool { return recorded(audit, res.Revision) })
	verifyAll(t, l, k, nil)
}

// TestDiedBetweenCommitAndRecord: a control plane ends after commits that it
// could not record; the next writer records them, once each, before its own.
func TestDiedBetweenCommitAndRecord(t *testing.T) {
	audit, k := &translogtest.Memory{}, newKeys(t, origin)
	store := registrytest.NewMemory()
	l, _ := start(t, audit, k)
	j := &faulty{Journal: l}
	r, stop := startRegister(t, store, "one", j)
	fill(t, r)
	j.set(registry.ErrUnavailable)
	for i := 1001; i <= 1004; i++ {
		if _, err := suspend(r, fmt.Sprint("FP-", i)); !errors.Is(err, registry.ErrNotDurable) {
			t.Fatal(err)
		}
	}
	stop()
	two, _ := startRegister(t, store, "two", l)
	res, err := suspend(two, "FP-1005")
	if err != nil {
		t.Fatal(err)
	}
	for rev := registry.Revision(1); rev <= res.Revision; rev++ {
		if !recorded(audit, rev) {
			t.Errorf("revision %d has no leaf", rev)
		}
	}
	if rep := verifyAll(t, l, k, nil); rep.Kinds[translog.KindChange] != int64(res.Revision) {
		t.Errorf("%d leaves for %d changes", rep.Kinds[translog.KindChange], res.Revision)
	}
}

// TestJournalBeginsLate: a register whose log was trimmed before it had an
// audit log says so in its first leaf.
func TestJournalBeginsLate(t *testing.T) {
	store := registrytest.NewMemory()
	r, stop := startRegister(t, store, "one", nil)
	fill(t, r)
	for i := 1001; i <= 1006; i++ {
		if _, err := suspend(r, fmt.Sprint("FP-", i)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := store.Trim(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	audit, k := &translogtest.Memory{}, newKeys(t, origin)
	l, _ := start(t, audit, k)
	two, _ := startRegister(t, store, "two", l)
	res, err := suspend(two, "FP-1007")
	if err != nil {
		t.Fatal(err)
	}
	rep := verifyAll(t, l, k, nil)
	if rep.Kinds[translog.KindBegin] != 1 || rep.Kinds[translog.KindChange] != int64(res.Revision)-4 {
		t.Errorf("%+v for revision %d", rep, res.Revision)
	}
}
