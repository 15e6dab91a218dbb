package control_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/translog"
)

type proof struct {
	Size       int64
	Root       string
	Checkpoint string
	Entry      struct {
		Index      int64
		Hash, Leaf string
	}
	Hashes []string
}

func hashes(t *testing.T, texts []string) (out []tlog.Hash) {
	t.Helper()
	for _, s := range texts {
		h, err := tlog.ParseHash(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h)
	}
	return out
}

func (w *world) checkpoint() tlog.Tree {
	w.t.Helper()
	var c struct{ Checkpoint string }
	w.call(nobody, "GET", "/v1/audit/checkpoint", nil).data(w.t, 200, &c)
	tree, err := translog.OpenCheckpoint([]byte(c.Checkpoint), w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return tree
}

// TestAuditIsProvedToAnybodyWithAnAuditorsToken: checkpoint, entries and both
// proofs, checked with the log's public key only.
func TestAuditIsProvedToAnAuditor(t *testing.T) {
	w := newWorld(t)
	early := w.checkpoint()
	w.call(operator, "POST", "/v1/suspensions", map[string]any{"subject": map[string]any{"kind": "product", "id": "FP-1003"}, "reason": "finding"}).data(t, 201, &struct{}{})
	late := w.checkpoint()
	if late.N != early.N+1 {
		t.Fatalf("from %d to %d entries", early.N, late.N)
	}
	var inclusion proof
	w.call(auditor, "GET", fmt.Sprintf("/v1/audit/proofs?entry=%d", early.N), nil).data(t, 200, &inclusion)
	leaf, err := translog.ParseLeaf([]byte(inclusion.Entry.Leaf))
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Actor != operator || leaf.Command != "suspend" || leaf.Kind != translog.KindChange {
		t.Errorf("%+v", leaf)
	}
	if err := tlog.CheckRecord(hashes(t, inclusion.Hashes), late.N, late.Hash, early.N, tlog.RecordHash([]byte(inclusion.Entry.Leaf))); err != nil {
		t.Error(err)
	}
	var consistency proof
	w.call(auditor, "GET", fmt.Sprintf("/v1/audit/proofs?size=%d", early.N), nil).data(t, 200, &consistency)
	if err := tlog.CheckTree(hashes(t, consistency.Hashes), late.N, late.Hash, early.N, early.Hash); err != nil {
		t.Error(err)
	}
	var entries []struct {
		Index int64
		Leaf  string
	}
	w.call(auditor, "GET", fmt.Sprintf("/v1/audit/entries?after=%d", early.N), nil).data(t, 200, &entries)
	if len(entries) != 1 || entries[0].Leaf != inclusion.Entry.Leaf {
		t.Errorf("%+v", entries)
	}
	for path, want := range map[string]int{
		"/v1/audit/proofs": 422, "/v1/audit/proofs?entry=0&size=1": 422, "/v1/audit/proofs?entry=999": 404, "/v1/audit/proofs?size=999": 404, "/v1/audit/proofs?size=0": 422,
	} {
		if r := w.call(auditor, "GET", path, nil); r.status != want {
			t.Errorf("%s: %s, want %d", path, r, want)
		}
	}
	for _, as := range []string{operator, registrar, wattlebird} {
		w.call(as, "GET", "/v1/audit/entries", nil).refused(t, 403, "forbidden")
		w.call(as, "GET", "/v1/audit/proofs?entry=0", nil).refused(t, 403, "forbidden")
	}
}

// TestEveryReadingOfPersonalDataIsOnRecord, with who and of whom, before it is
// answered; and no reading of anything else is.
func TestEveryReadingOfPersonalDataIsOnRecord(t *testing.T) {
	w := newWorld(t)
	id, err := authz.ParseDecisionID("00000000000000000000000000")
	if err != nil {
		t.Fatal(err)
	}
	w.records[id] = authz.Record{ID: id, ProductID: "FP-1001", Reason: authz.ProductSuspended}
	for _, c := range []struct{ as, path, command, subject string }{
		{assessor, "/v1/entities/65000000101", "contact", "entity/65000000101"},
		{registrar, "/v1/entities/65000000101/checks", "checks", "entity/65000000101"},
		{wattlebird, "/v1/entities/65000000101/checks", "checks", "entity/65000000101"},
		{assessor, "/v1/entities?name=wattle", "contacts", "entity/65000000101"},
		{operator, "/v1/subscriptions?product_id=FP-1001", "clients", "subscription/0000123400"},
		{operator, "/v1/subscriptions/0000123400", "client", "subscription/0000123400"},
		{operator, "/v1/decisions?product_id=FP-1001", "decisions", "decision/" + id.String()},
		{operator, "/v1/decisions/" + id.String(), "decision", "decision/" + id.String()},
		{wattlebird, "/v1/me", "own page", "entity/65000000101"},
		{operator, "/v1/products", "", ""},
		{operator, "/v1/services", "", ""},
		{nobody, "/v1/register", "", ""},
		{operator, "/v1/entities/65000000102", "", ""}, // there is no such: 404
		{kookaburra, "/v1/entities/65000000101", "", ""},
	} {
		before := len(w.leaves.Contents().Leaves)
		r := w.call(c.as, "GET", c.path, nil)
		fresh := w.leaves.Contents().Leaves[before:]
		if c.command == "" {
			if len(fresh) != 0 {
				t.Errorf("%s %s: a leaf %s", c.as, c.path, fresh[0])
			}
			continue
		}
		if r.status != 200 || len(fresh) != 1 {
			t.Errorf("%s %s: %s, %d leaves", c.as, c.path, r, len(fresh))
			continue
		}
		leaf, err := translog.ParseLeaf(fresh[0])
		if err != nil {
			t.Fatal(err)
		}
		if leaf.Kind != translog.KindRead || leaf.Actor != c.as || leaf.Command != c.command || leaf.Subjects[0] != c.subject || leaf.Request != r.header.Get("X-Request-Id") {
			t.Errorf("%s %s: %s", c.as, c.path, fresh[0])
		}
		if strings.Contains(string(fresh[0]), "@wattlebird.example") && c.as != wattlebird {
			t.Errorf("the contact itself is in the log: %s", fresh[0])
		}
	}
}

// TestNothingIsShownThatCannotBeRecorded.
func TestNothingIsShownThatCannotBeRecorded(t *testing.T) {
	w := newWorld(t)
	w.leaves.FailNext(registry.ErrUnavailable, false)
	r := w.call(assessor, "GET", "/v1/entities/65000000101", nil)
	r.refused(t, 503, "register-unavailable")
	if strings.Contains(r.body, "wattlebird") {
		t.Errorf("shown all the same: %s", r)
	}
	w.call(assessor, "GET", "/v1/entities/65000000101", nil).data(t, 200, &struct{}{})
}

// TestASuspensionWithoutAnAuditLogStands: it is in force, and told to be not
// durable.
func TestASuspensionThatCannotBeRecordedStands(t *testing.T) {
	w := newWorld(t)
	w.leaves.FailNext(registry.ErrUnavailable, false)
	e := w.call(operator, "POST", "/v1/suspensions", map[string]any{"subject": map[string]any{"kind": "product", "id": "FP-1003"}, "reason": "finding"}).refused(t, 503, "not-durable")
	if !strings.Contains(string(e.Meta.Data), `"FP-1003"`) {
		t.Errorf("not told what was done: %+v", e)
	}
	var all []struct{ Subject registry.SubjectRef }
	w.call(operator, "GET", "/v1/suspensions?active=true&kind=product", nil).data(t, 200, &all)
	if len(all) != 1 || all[0].Subject.ID != "FP-1003" {
		t.Errorf("in force: %+v", all)
	}
}
