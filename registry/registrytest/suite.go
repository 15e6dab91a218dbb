package registrytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
)

// Store is what the suite tests.
type Store interface {
	registry.Log
	registry.Ledger
	registry.CaseStore
	// Trim drops the changes up to and including a revision from the log; the
	// records stay.
	Trim(ctx context.Context, upTo registry.Revision) error
}

// groupLedger is a ledger that commits several changes at once.
type groupLedger interface {
	CommitGroup(ctx context.Context, fence registry.Epoch, base registry.Mark, changes []*registry.Change, head *registry.Head) error
}

// patience is how long the suite waits for what a store does by itself.
const patience = 10 * time.Second

// RunSuite tests a store: newStore makes an empty one for each test and clears
// it away by t.Cleanup.
func RunSuite(t *testing.T, newStore func(t *testing.T) Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Store)
	}{
		{"an empty store has the zero head and nothing else", testEmpty},
		{"a commit is read back byte for byte", testRoundTrip},
		{"a commit on another base conflicts and changes nothing", testConflict},
		{"of commits on one base exactly one wins", testRace},
		{"a commit under another epoch is fenced and changes nothing", testFence},
		{"the writer's claim stands until it lapses or is given up", testLead},
		{"a group is committed whole or not at all", testGroup},
		{"follow acknowledges and reads in one step", testFollow},
		{"follow gives at most so many and the head says there are more", testFollowMax},
		{"a follower ahead of the head gets the head and no change", testFollowAhead},
		{"an observer is kept off the roll", testObserver},
		{"a follower behind the log's beginning is told so", testTrimmed},
		{"a snapshot while the register changes becomes whole by the log", testSnapshotChanging},
		{"a snapshot stops at the first error of its reader", testSnapshotError},
		{"the roll has each sidecar's last poll", testRoll},
		{"leaving takes only the own incarnation off the roll", testLeave},
		{"the roll tells whose life it is of and whether it is whole", testTenure},
		{"changes that were lost are given back once, onto the head they follow", testReassert},
		{"casework is written with its change or not at all", testCases},
		{"casework that was lost is given back with its changes", testCasesReassert},
		{"an answer is remembered by its key", testRemember},
		{"changes are listed after a revision, oldest first", testChanges},
		{"a commit wakes whoever waits and nobody blocks it", testWake},
		{"a call whose context has ended fails", testCancelled},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newStore(t)) })
	}
}

// sample nouns; the suite does not care for rules.
func product(id, name string) registry.Product {
	return registry.Product{ID: id, Name: name, Owner: 65000000101}
}

func head(t *testing.T, s Store) registry.Head {
	t.Helper()
	h, err := s.Snapshot(t.Context(), func(*registry.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// records reads the whole store, by key.
func records(t *testing.T, s Store) map[string]registry.Record {
	t.Helper()
	all := map[string]registry.Record{}
	_, err := s.Snapshot(t.Context(), func(r *registry.Record) error {
		c := *r
		c.Data = slices.Clone(r.Data)
		all[c.Key()] = c
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func changes(t *testing.T, s Store, after registry.Revision, n int) []registry.Change {
	t.Helper()
	got, err := s.Changes(t.Context(), after, n)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func roll(t *testing.T, s Store) map[string]registry.Member {
	t.Helper()
	got, err := s.Roll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]registry.Member{}
	for _, m := range got.Members {
		if m.PolledAt == 0 || m.PolledAt > got.At {
			t.Errorf("%s polled at %v by the store's clock, which is at %v", m.ID, m.PolledAt, got.At)
		}
		m.PolledAt = 0
		all[m.ID+"/"+m.Incarnation] = m
	}
	return all
}

func want[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func testEmpty(t *testing.T, s Store) {
	want(t, "head", head(t, s), registry.Head{})
	want(t, "records", len(records(t, s)), 0)
	p, err := s.Follow(t.Context(), registry.Ack{ID: "x", Observer: true}, 10)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "poll", len(p.Changes), 0)
	want(t, "head of the poll", p.Head, registry.Head{})
	want(t, "changes", len(changes(t, s, 0, 10)), 0)
	want(t, "roll", len(roll(t, s)), 0)
}

func testRoundTrip(t *testing.T, s Store) {
	w := NewWriter(t, s)
	odd := registry.DenialID("jti", "https://issuer.example/a b", "x:y/z\"\\\u00e9\u2028 {}*?[]")
	values := []any{
		registry.Entity{ABN: 65000000101, Name: "Wattlebird \u00e9\u4e16 <&>", State: registry.EntityRegistered},
		product("FP-1001", strings.Repeat("long ", 2000)),
		registry.ClientApp{ClientID: "fp-1001-prod", ProductID: "FP-1001", Environment: registry.PROD},
		registry.Credential{Thumbprint: "dGh1bWI", ABN: 65000000101},
		registry.Subscription{SSID: "0000123400", ProductID: "FP-1001", ClientABN: 56000001313},
		registry.Service{Key: "receipts.get", Method: "GET", Template: "/lodgments/v1/receipts/{id}", Risk: 1},
		registry.Suspension{ID: "SU-1", Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1001"}, Starts: 1},
		registry.Denial{ID: odd, What: "jti", Issuer: "https://issuer.example/a b", Value: "x"},
		registry.Notice{ID: "N-1", Subject: registry.SubjectRef{Kind: registry.KindEntity, ID: "65000000101"}},
	}
	c, h, next := w.Change(values...)
	c.Reason = "a \"reason\" with\nlines, a NUL \x00 and \u2029"
	c.MAC = w.sealer.Change(c)
	if err := s.Commit(t.Context(), w.Epoch, registry.Mark{}, c, h); err != nil {
		t.Fatal(err)
	}
	w.View = next
	stored := map[string]registry.Record{}
	for _, r := range c.Puts {
		stored[r.Key()] = r
	}
	want(t, "records", records(t, s), stored)
	want(t, "head", head(t, s), *h)
	want(t, "changes", changes(t, s, 0, 10), []registry.Change{*c})
	p, err := s.Follow(t.Context(), registry.Ack{ID: "x", Observer: true}, 10)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "poll", p, registry.Poll{Head: *h, Changes: []registry.Change{*c}})
	for _, r := range records(t, s) {
		if !w.sealer.Genuine(&r) {
			t.Errorf("%s does not verify after the round trip", r.Key())
		}
	}
	// A second write of a record replaces it.
	w.Put(product("FP-1001", "short"))
	if got := records(t, s)["product/FP-1001"]; got.Revision != 2 || !w.sealer.Genuine(&got) {
		t.Errorf("the record was not replaced: %+v", got)
	}
	want(t, "records after a replacement", len(records(t, s)), len(values))
}

// unchanged checks that nothing of a refused change is to be seen.
func unchanged(t *testing.T, s Store, w *Writer) {
	t.Helper()
	h := head(t, s)
	want(t, "head after a refusal", h.Revision, w.View.Revision)
	want(t, "digest after a refusal", h.Digest, w.View.Digest)
	want(t, "records after a refusal", uint64(len(records(t, s))), w.View.Records)
	want(t, "changes after a refusal", len(changes(t, s, w.View.Revision, 10)), 0)
}

func testConflict(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	w.Put(product("FP-1", "b"))
	other, cases := w.View.Mark(), w.View.Mark()
	other.Digest[0]++
	cases.CaseSum = registry.CaseSum{Count: 1}
	for _, base := range []registry.Mark{{}, {Revision: 1}, {Revision: 3}, other, cases} {
		c, h, _ := w.Change(product("FP-2", "refused"))
		c.Revision, h.Revision = base.Revision+1, base.Revision+1
		wantErr(t, fmt.Sprintf("base %+v", base), s.Commit(t.Context(), w.Epoch, base, c, h), registry.ErrConflict)
		unchanged(t, s, w)
	}
}

func testRace(t *testing.T, s Store) {
	w := NewWriter(t, s)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		c, h, _ := w.Change(product("FP-1", fmt.Sprint(i)))
		wg.Go(func() { errs[i] = s.Commit(t.Context(), w.Epoch, registry.Mark{}, c, h) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, registry.ErrConflict) {
			t.Errorf("lost the race with %v", err)
		}
	}
	want(t, "winners", won, 1)
	want(t, "changes", len(changes(t, s, 0, 100)), 1)
}

func testFence(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	for _, fence := range []registry.Epoch{0, w.Epoch - 1, w.Epoch + 1} {
		c, h, _ := w.Change(product("FP-2", "refused"))
		wantErr(t, fmt.Sprintf("fence %d", fence), s.Commit(t.Context(), fence, w.View.Mark(), c, h), registry.ErrFenced)
		unchanged(t, s, w)
	}
	// A deposed writer is fenced even when its base is wrong too.
	c, h, _ := w.Change(product("FP-2", "refused"))
	wantErr(t, "fence before base", s.Commit(t.Context(), w.Epoch+1, registry.Mark{Revision: 7}, c, h), registry.ErrFenced)
}

func testLead(t *testing.T, s Store) {
	ctx := t.Context()
	a, err := s.Lead(ctx, "a", 0, time.Hour)
	if err != nil || a == 0 {
		t.Fatalf("lead: epoch %d, %v", a, err)
	}
	if e, err := s.Lead(ctx, "a", a, time.Hour); err != nil || e != a {
		t.Errorf("renewed: epoch %d, %v; want %d", e, err, a)
	}
	_, err = s.Lead(ctx, "b", 0, time.Hour)
	wantErr(t, "while the claim stands", err, registry.ErrFenced)
	_, err = s.Lead(ctx, "b", a, time.Hour)
	wantErr(t, "by naming another's epoch", err, registry.ErrFenced)
	// The same holder after a restart knows no epoch: it gets a new one at once.
	a2, err := s.Lead(ctx, "a", 0, time.Hour)
	if err != nil || a2 <= a {
		t.Errorf("restarted: epoch %d, %v; want above %d", a2, err, a)
	}
	// Given up by a claim of no length.
	if e, err := s.Lead(ctx, "a", a2, 0); err != nil || e != a2 {
		t.Errorf("given up: epoch %d, %v; want %d", e, err, a2)
	}
	b := eventually(t, func() (registry.Epoch, error) { return s.Lead(ctx, "b", 0, 20*time.Millisecond) })
	if b <= a2 {
		t.Errorf("taken over: epoch %d, want above %d", b, a2)
	}
	_, err = s.Lead(ctx, "a", a2, time.Hour)
	if err == nil {
		// b's claim may have lapsed already; then a has taken over anew.
		if e, _ := s.Lead(ctx, "a", 0, time.Hour); e <= b {
			t.Errorf("epoch %d after %d", e, b)
		}
		return
	}
	wantErr(t, "the deposed one renews", err, registry.ErrFenced)
	// A claim that is not renewed lapses by itself.
	c := eventually(t, func() (registry.Epoch, error) { return s.Lead(ctx, "c", 0, time.Hour) })
	if c <= b {
		t.Errorf("after a lapse: epoch %d, want above %d", c, b)
	}
}

// eventually tries until there is no error.
func eventually[T any](t *testing.T, try func() (T, error)) T {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		v, err := try()
		if err == nil {
			return v
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func testGroup(t *testing.T, s Store) {
	g, ok := s.(groupLedger)
	if !ok {
		return // a ledger need not
	}
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	base := w.View
	var group []*registry.Change
	var h *registry.Head
	for i := range 3 {
		var c *registry.Change
		c, h, w.View = w.Change(product(fmt.Sprint("FP-", i), "group"), product("FP-9", fmt.Sprint(i)))
		group = append(group, c)
	}
	after := w.View
	w.View = base
	wantErr(t, "stale base", g.CommitGroup(t.Context(), w.Epoch, registry.Mark{}, group, h), registry.ErrConflict)
	unchanged(t, s, w)
	wantErr(t, "stale fence", g.CommitGroup(t.Context(), w.Epoch+1, w.View.Mark(), group, h), registry.ErrFenced)
	unchanged(t, s, w)
	if err := g.CommitGroup(t.Context(), w.Epoch, base.Mark(), group, h); err != nil {
		t.Fatal(err)
	}
	want(t, "head", head(t, s), *h)
	got := changes(t, s, 1, 10)
	want(t, "changes", got, []registry.Change{*group[0], *group[1], *group[2]})
	want(t, "last write of a record", records(t, s)["product/FP-9"].Revision, after.Revision)
}

func testFollow(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	w.Put(product("FP-1", "b"))
	ack := registry.Ack{
		ID: "sidecar-1", Incarnation: "i1", Revision: 1, Digest: registry.Digest{1<<63 + 5, 1<<64 - 1},
		Short: 2 * time.Second, Long: time.Minute,
	}
	p, err := s.Follow(t.Context(), ack, 100)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "head", p.Head, head(t, s))
	want(t, "changes", p.Changes, changes(t, s, 1, 100))
	want(t, "roll", roll(t, s), map[string]registry.Member{"sidecar-1/i1": {
		ID: "sidecar-1", Incarnation: "i1", Revision: 1, Digest: ack.Digest, Short: ack.Short, Long: ack.Long,
	}})
	ack.Revision = 2
	p, err = s.Follow(t.Context(), ack, 100)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "changes at the head", len(p.Changes), 0)
	want(t, "acknowledged", roll(t, s)["sidecar-1/i1"].Revision, 2)
}

func testFollowMax(t *testing.T, s Store) {
	w := NewWriter(t, s)
	for i := range 7 {
		w.Put(product("FP-1", fmt.Sprint(i)))
	}
	var got []registry.Revision
	for have := registry.Revision(0); ; {
		p, err := s.Follow(t.Context(), registry.Ack{ID: "x", Incarnation: "i", Revision: have}, 3)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "head", p.Head.Revision, 7)
		if len(p.Changes) > 3 {
			t.Fatalf("%d changes, asked for 3 at most", len(p.Changes))
		}
		if len(p.Changes) == 0 {
			break
		}
		for _, c := range p.Changes {
			got = append(got, c.Revision)
		}
		have = got[len(got)-1]
	}
	want(t, "revisions", got, []registry.Revision{1, 2, 3, 4, 5, 6, 7})
}

func testFollowAhead(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	p, err := s.Follow(t.Context(), registry.Ack{ID: "x", Incarnation: "i", Revision: 99}, 10)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "poll", p, registry.Poll{Head: head(t, s), Changes: p.Changes})
	want(t, "changes", len(p.Changes), 0)
}

func testObserver(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	follow := func(ack registry.Ack) {
		t.Helper()
		if _, err := s.Follow(t.Context(), ack, 10); err != nil {
			t.Fatal(err)
		}
	}
	follow(registry.Ack{ID: "x", Incarnation: "i", Revision: 1, Observer: true})
	want(t, "roll", len(roll(t, s)), 0)
	// A sidecar that reloads reads as an observer under its own name, while it
	// serves an older View: its entry stays what it acknowledged.
	follow(registry.Ack{ID: "x", Incarnation: "i", Revision: 0})
	before := roll(t, s)
	follow(registry.Ack{ID: "x", Incarnation: "i", Revision: 1, Observer: true})
	want(t, "roll after observing", roll(t, s), before)
}

func testTrimmed(t *testing.T, s Store) {
	w := NewWriter(t, s)
	for i := range 5 {
		w.Put(product("FP-1", fmt.Sprint(i)))
	}
	if err := s.Trim(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	for have := range registry.Revision(6) {
		p, err := s.Follow(t.Context(), registry.Ack{ID: "x", Incarnation: "i", Revision: have}, 10)
		if have < 3 {
			wantErr(t, fmt.Sprintf("from %d", have), err, registry.ErrTrimmed)
		} else if err != nil || len(p.Changes) != int(5-have) {
			t.Errorf("from %d: %d changes, %v", have, len(p.Changes), err)
		}
	}
	want(t, "records", len(records(t, s)), 1)
	want(t, "head", head(t, s).Revision, 5)
	w.Put(product("FP-1", "after"))
	got := changes(t, s, 4, 10)
	want(t, "changes after trimming", []registry.Revision{got[0].Revision, got[1].Revision}, []registry.Revision{5, 6})
}

func testSnapshotChanging(t *testing.T, s Store) {
	w := NewWriter(t, s)
	const n = 500
	for i := range n / 50 {
		var group []any
		for j := range 50 {
			group = append(group, product(fmt.Sprintf("FP-%d", i*50+j), "first"))
		}
		w.Put(group...)
	}
	b := registry.NewBuilder(nil, 0)
	seen := 0
	h, err := s.Snapshot(t.Context(), func(r *registry.Record) error {
		if seen%50 == 0 { // the register changes under the reader
			w.Put(product(fmt.Sprintf("FP-%d", seen*37%n), "changed"), product(fmt.Sprintf("FP-new-%d", seen), "new"))
		}
		seen++
		return b.Put(r)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes(t, s, h.Revision, 10_000) {
		for i := range c.Puts {
			if err := b.Put(&c.Puts[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	v, err := b.View(w.View.Revision, w.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "records", v.Records, w.View.Records)
	want(t, "digest", v.Digest, w.View.Digest)
	want(t, "digest of the head", head(t, s).Digest, w.View.Digest)
}

func testSnapshotError(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"), product("FP-2", "b"))
	enough := errors.New("enough")
	calls := 0
	_, err := s.Snapshot(t.Context(), func(*registry.Record) error { calls++; return enough })
	wantErr(t, "snapshot", err, enough)
	want(t, "calls", calls, 1)
}
