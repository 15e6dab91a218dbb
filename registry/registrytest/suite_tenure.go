package registrytest

import (
	"fmt"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
)

func testTenure(t *testing.T, s Store) {
	read := func() registry.Roll {
		t.Helper()
		r, err := s.Roll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := read()
	if first.Tenure == "" || !first.Settled || first.Head != 0 {
		t.Errorf("an empty register: %+v; want a tenure, settled", first)
	}
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	again := read()
	if again.Tenure != first.Tenure || !again.Settled || again.Head != 1 {
		t.Errorf("later: %+v; want the tenure %s, settled, head 1", again, first.Tenure)
	}
	if err := s.Settle(t.Context(), "another"); err != nil {
		t.Error(err)
	}
}

func testReassert(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	base := w.View
	was := head(t, s)
	var lost []*registry.Change
	var h *registry.Head
	for i := range 3 {
		var c *registry.Change
		c, h, w.View = w.Change(product("FP-1", fmt.Sprint(i)), product(fmt.Sprint("FP-2", i), "new"))
		lost = append(lost, c)
	}
	after := w.View
	w.View = base
	wrong := was
	wrong.Digest[0]++
	wantErr(t, "onto another head of that number", s.Reassert(t.Context(), wrong, lost, h), registry.ErrConflict)
	unchanged(t, s, w)
	// Whoever has the claim by now, it is the same history.
	if err := s.Reassert(t.Context(), was, lost, h); err != nil {
		t.Fatal(err)
	}
	want(t, "head", head(t, s), *h)
	want(t, "changes", changes(t, s, 1, 10), []registry.Change{*lost[0], *lost[1], *lost[2]})
	want(t, "records", uint64(len(records(t, s))), after.Records)
	want(t, "last write of a record", records(t, s)["product/FP-1"].Revision, after.Revision)
	wantErr(t, "twice", s.Reassert(t.Context(), was, lost, h), registry.ErrConflict)
	w.View = after
	w.Put(product("FP-1", "goes on"))

	// What is given back may be of a later epoch than the claim, which was lost
	// with it: whoever has that claim writes no more under it.
	was = head(t, s)
	epoch := w.Epoch
	w.Epoch += 5000
	later, lh, next := w.Change(product("FP-1", "by a later writer"))
	if err := s.Reassert(t.Context(), was, []*registry.Change{later}, lh); err != nil {
		t.Fatal(err)
	}
	w.View, w.Epoch = next, epoch
	c, ch, _ := w.Change(product("FP-1", "by the earlier one"))
	wantErr(t, "after a change of a later epoch", s.Commit(t.Context(), epoch, w.View.Mark(), c, ch), registry.ErrFenced)
	unchanged(t, s, w)
	// Renewing the claim claims it anew.
	if e, err := s.Lead(t.Context(), "writer", epoch, time.Hour); err != nil || e <= later.Epoch {
		t.Errorf("renewed: epoch %d, %v; want above %d", e, err, later.Epoch)
	}
}
