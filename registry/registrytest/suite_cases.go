package registrytest

import (
	"slices"
	"testing"

	"github.com/dspgate/dspgate/registry"
)

func caseOf(id, body string) registry.CaseRecord {
	return registry.CaseRecord{Kind: "application", ID: id, Data: []byte(body)}
}

// named is a change as the log has it: its cases by name only.
func named(c *registry.Change) registry.Change {
	n := *c
	n.Cases = slices.Clone(c.Cases)
	for i := range n.Cases {
		n.Cases[i].Data = nil
	}
	return n
}

func cases(t *testing.T, s Store) map[string]registry.CaseRecord {
	t.Helper()
	all := map[string]registry.CaseRecord{}
	err := s.CaseSnapshot(t.Context(), func(c *registry.CaseRecord) error {
		x := *c
		x.Data = slices.Clone(c.Data)
		all[x.Key()] = x
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func testCases(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "before there was any"))
	first, h, next := w.Change(product("FP-1", "a"), caseOf("AP-1", `{"n":1}`), caseOf("odd*id?\"", `{"n":"é\u0000"}`))
	if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), first, h); err != nil {
		t.Fatal(err)
	}
	w.View = next
	want(t, "head", head(t, s), *h)
	want(t, "the log names the cases without their bodies", changes(t, s, 1, 10), []registry.Change{named(first)})
	want(t, "bodies", cases(t, s), map[string]registry.CaseRecord{"application/AP-1": first.Cases[0], "application/odd*id?\"": first.Cases[1]})
	got, err := s.Cases(t.Context(), []string{"application/none", "application/AP-1"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "by key", got, []registry.CaseRecord{first.Cases[0]})
	got, err = s.Cases(t.Context(), nil)
	if err != nil || len(got) != 0 {
		t.Errorf("of no key: %v, %v", got, err)
	}

	// A change of casework alone, and one of records alone.
	second, h, next := w.Change(caseOf("AP-1", `{"n":2}`))
	if err := s.Commit(t.Context(), w.Epoch, w.View.Mark(), second, h); err != nil {
		t.Fatal(err)
	}
	w.View = next
	w.Put(product("FP-1", "b"))
	want(t, "replaced", cases(t, s)["application/AP-1"], second.Cases[0])
	want(t, "head keeps the sum", head(t, s).CaseSum, w.View.CaseSum)
	p, err := s.Follow(t.Context(), registry.Ack{ID: "x", Observer: true, Revision: 2}, 1)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "followed", p.Changes, []registry.Change{named(second)})

	// What is refused leaves no body.
	before := cases(t, s)
	refused, h, _ := w.Change(product("FP-2", "refused"), caseOf("AP-1", `{"n":"refused"}`), caseOf("AP-2", `{"n":"refused"}`))
	wantErr(t, "another epoch", s.Commit(t.Context(), w.Epoch+1, w.View.Mark(), refused, h), registry.ErrFenced)
	wantErr(t, "another base", s.Commit(t.Context(), w.Epoch, registry.Mark{Revision: 3}, refused, h), registry.ErrConflict)
	want(t, "bodies after a refusal", cases(t, s), before)
	unchanged(t, s, w)
}

func testCasesReassert(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"), caseOf("AP-1", `{"n":1}`))
	was := head(t, s)
	lost1, _, next := w.Change(caseOf("AP-1", `{"n":2}`), caseOf("AP-2", `{"n":2}`))
	w.View = next
	lost2, h, next := w.Change(product("FP-1", "b"), caseOf("AP-1", `{"n":3}`))
	w.View = next
	older := *lost1
	older.Cases = slices.Clone(lost1.Cases)
	older.Cases[0].Data = nil // replaced by the change after it: whoever gives it back need not have it
	if err := s.Reassert(t.Context(), was, []*registry.Change{&older, lost2}, h); err != nil {
		t.Fatal(err)
	}
	want(t, "bodies", cases(t, s), map[string]registry.CaseRecord{"application/AP-1": lost2.Cases[0], "application/AP-2": lost1.Cases[1]})
	want(t, "head", head(t, s), *h)
	want(t, "changes", changes(t, s, 1, 10), []registry.Change{named(lost1), named(lost2)})
}
