package registry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// paper is casework for tests.
type paper struct {
	ID      string `json:"id"`
	Product string `json:"product"`
	State   string `json:"state"`
	N       int    `json:"n"`
}

func (paper) CaseKind() registry.CaseKind { return "paper" }

func (p paper) CaseKeys(add func(index, value string)) {
	add("product", p.Product)
	add("state", p.State)
	registry.Words(p.ID+" of "+p.Product, func(w string) { add("word", w) })
}

// caseWorld is a control plane that keeps papers.
func caseRegister(t testing.TB, store registrytest.Store, holder string) *registry.Register {
	t.Helper()
	m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: holder, Observer: true})
	r := registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{
		Holder: holder, ClaimTTL: 200 * time.Millisecond, Cases: []registry.CaseType{registry.CaseTypeOf[paper]()},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = m.Run(ctx); done <- struct{}{} }()
	go func() { _ = r.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	return r
}

func writing(t testing.TB, r *registry.Register) {
	t.Helper()
	until(t, "the control plane writes and holds the casework", func() bool {
		_, err := r.View()
		_, cerr := r.Casebook()
		return err == nil && cerr == nil && r.Writing()
	})
}

func caseWorld(t testing.TB) (*registry.Register, *registrytest.Memory) {
	t.Helper()
	store := registrytest.NewMemory()
	r := caseRegister(t, store, "one")
	writing(t, r)
	if _, err := r.Import(context.Background(), sample.Actor(), sample.Records(time.Now()), registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	return r, store
}

func file(r *registry.Register, p paper) (registry.Outcome, error) {
	return r.Do(context.Background(), registrar, "paper.file", "", func(t *registry.Tx) error { return registry.CreateCase(t, p.ID, p) })
}

// decide changes a paper and the product it is about together.
func decide(r *registry.Register, id, state, name string, m registry.Meta, after func(*registry.Tx) error) (registry.Outcome, error) {
	return r.Do(context.Background(), registrar, "paper.decide", "", func(t *registry.Tx) error {
		p, err := registry.ChangingCase[paper](t, id, m)
		if err != nil {
			return err
		}
		p.State, p.N = state, p.N+1
		if err := registry.PutCase(t, id, p); err != nil {
			return err
		}
		product := *t.View().Product(p.Product)
		product.Name = name
		if err := t.PutProduct(product); err != nil {
			return err
		}
		if after != nil {
			return after(t)
		}
		return nil
	})
}

func TestCaseAndRegisterChangeTogetherOrNotAtAll(t *testing.T) {
	r, _ := caseWorld(t)
	made, err := file(r, paper{ID: "P-1", Product: "FP-1002", State: "open"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file(r, paper{ID: "P-1", Product: "FP-1003"}); !errors.Is(err, registry.ErrState) {
		t.Errorf("filed twice: %v", err)
	}
	_, err = decide(r, "P-1", "approved", "renamed", registry.Meta{IfMatch: made.Revision + 7}, nil)
	if !errors.Is(err, registry.ErrPrecondition) {
		t.Errorf("another revision: %v", err)
	}
	refusal := errors.New("no")
	if _, err := decide(r, "P-1", "approved", "renamed", registry.Meta{}, func(*registry.Tx) error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("refused at the end: %v", err)
	}
	if _, err := decide(r, "P-1", "approved", "two\nlines", registry.Meta{}, nil); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("an invalid record: %v", err)
	}
	if _, err := decide(r, "P-2", "approved", "renamed", registry.Meta{}, nil); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("no such paper: %v", err)
	}
	book, err := r.Casebook()
	if err != nil {
		t.Fatal(err)
	}
	p, err := registry.CaseOf[paper](book, "P-1")
	if err != nil || p.Body.State != "open" || book.View.Product("FP-1002").Name == "renamed" {
		t.Errorf("after refusals: %+v, %v", p, err)
	}

	out, err := decide(r, "P-1", "approved", "renamed", registry.Meta{IfMatch: made.Revision}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err = registry.CaseOf[paper](out.Cases, "P-1")
	want := &registry.Case[paper]{ID: "P-1", Revision: out.Revision, Body: paper{ID: "P-1", Product: "FP-1002", State: "approved", N: 1}}
	if d := cmp.Diff(want, p); d != "" || err != nil {
		t.Errorf("decided: %v -want +got:\n%s", err, d)
	}
	if out.View.Product("FP-1002").Name != "renamed" || out.Revision != made.Revision+1 {
		t.Errorf("the product did not change with it: revision %d", out.Revision)
	}
	// The older Casebook stays as it was.
	if p, _ := registry.CaseOf[paper](book, "P-1"); p.Body.State != "open" {
		t.Error("a Casebook changed under its reader")
	}
}

func TestSidecarsFollowCaseworkWithoutSeeingIt(t *testing.T) {
	r, store := caseWorld(t)
	sidecar := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "sidecar", Incarnation: "1"})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = sidecar.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	until(t, "the sidecar is ready", sidecar.Ready)
	before := sidecar.View()
	out, err := file(r, paper{ID: "P-1", Product: "FP-1002", State: "a word no sidecar may hold"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the sidecar holds the revision", func() bool { return sidecar.View().Revision >= out.Revision })
	v := sidecar.View()
	if v.Digest != before.Digest || v.Records != before.Records || v.CaseSum.Count != 1 {
		t.Errorf("casework changed what the sidecar enforces: %d records, %d before; %d cases", v.Records, before.Records, v.CaseSum.Count)
	}
	got, err := store.Changes(t.Context(), out.Revision-1, 1)
	if err != nil || len(got) != 1 || len(got[0].Cases) != 1 || got[0].Cases[0].Data != nil {
		t.Errorf("the log: %+v, %v", got, err)
	}
	if st := sidecar.Status(); st.LastError != "" {
		t.Error(st.LastError)
	}
}

func TestAStandbyHoldsTheCaseworkAndTakesOver(t *testing.T) {
	a, store := caseWorld(t)
	b := caseRegister(t, store, "two")
	for i := range 20 {
		if _, err := file(a, paper{ID: fmt.Sprintf("P-%d", i), Product: "FP-1002", State: "open"}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := decide(a, "P-7", "approved", "renamed", registry.Meta{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the standby holds it", func() bool { book, err := b.Casebook(); return err == nil && book.Revision() >= out.Revision })
	book, _ := b.Casebook()
	if p, err := registry.CaseOf[paper](book, "P-7"); err != nil || p.Body.State != "approved" || book.Len() != 20 {
		t.Errorf("%+v, %v; %d papers", p, err, book.Len())
	}
	if ids, n := book.Find(registry.Query{Kind: "paper", Where: []registry.Where{{"state", "open"}}, Limit: 3}); n != 19 || len(ids) != 3 {
		t.Errorf("%v of %d open", ids, n)
	}
	if _, n := book.Find(registry.Query{Kind: "product", Where: []registry.Where{{"word", "renamed"}}, Limit: 3}); n != 1 {
		t.Errorf("the standby finds %d products by the new name", n)
	}
}

func TestCaseworkThatIsNotWhatWasWrittenIsRefusedAndSuspensionsGoOn(t *testing.T) {
	for name, tamper := range map[string]func(*registrytest.Memory){
		"a body altered": func(m *registrytest.Memory) {
			m.TamperCase("paper/P-1", func(c *registry.CaseRecord) bool {
				c.Data = []byte(strings.Replace(string(c.Data), "open", "done", 1))
				return true
			})
		},
		"a body removed": func(m *registrytest.Memory) {
			m.TamperCase("paper/P-1", func(*registry.CaseRecord) bool { return false })
		},
		"another's body under its key": func(m *registrytest.Memory) {
			var other registry.CaseRecord
			m.TamperCase("paper/P-2", func(c *registry.CaseRecord) bool { other = *c; return true })
			m.TamperCase("paper/P-1", func(c *registry.CaseRecord) bool { c.Data, c.MAC = other.Data, other.MAC; return true })
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, store := caseWorld(t)
			for _, id := range []string{"P-1", "P-2"} {
				if _, err := file(a, paper{ID: id, Product: "FP-1002", State: "open"}); err != nil {
					t.Fatal(err)
				}
			}
			tamper(store)
			b := caseRegister(t, store, "two")
			until(t, "the second says why", func() bool {
				_, err := b.Casebook()
				return errors.Is(err, registry.ErrTampered) && errors.Is(err, registry.ErrUnavailable)
			})
			if _, err := b.View(); err != nil {
				t.Errorf("the register itself: %v", err)
			}
		})
	}

	t.Run("an older body put back", func(t *testing.T) {
		a, store := caseWorld(t)
		if _, err := file(a, paper{ID: "P-1", Product: "FP-1002", State: "open"}); err != nil {
			t.Fatal(err)
		}
		var old registry.CaseRecord
		store.TamperCase("paper/P-1", func(c *registry.CaseRecord) bool { old = *c; return true })
		if _, err := decide(a, "P-1", "approved", "renamed", registry.Meta{}, nil); err != nil {
			t.Fatal(err)
		}
		store.TamperCase("paper/P-1", func(c *registry.CaseRecord) bool { *c = old; return true })
		b := caseRegister(t, store, "two")
		until(t, "the second says why", func() bool { _, err := b.Casebook(); return errors.Is(err, registry.ErrTampered) })
	})

	t.Run("a suspension needs no casework", func(t *testing.T) {
		store := registrytest.NewMemory()
		func() {
			w := registrytest.NewWriter(t, store)
			for _, rec := range sample.Records(time.Now()) {
				w.Put(deref(rec))
			}
			w.Put(registry.CaseRecord{Kind: "paper", ID: "P-1", Data: []byte(`{"id":"P-1"}`)})
			if _, err := store.Lead(t.Context(), "writer", w.Epoch, 0); err != nil {
				t.Fatal(err)
			}
		}()
		store.TamperCase("paper/P-1", func(c *registry.CaseRecord) bool { c.Data = []byte(`{"id":"P-2"}`); return true })
		r := caseRegister(t, store, "one")
		until(t, "it writes", func() bool { _, err := r.View(); return err == nil && r.Writing() })
		if _, err := file(r, paper{ID: "P-9", Product: "FP-1002"}); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("casework on casework that is not whole: %v", err)
		}
		if _, err := r.Suspend(t.Context(), operator, suspendFP("FP-1002")); err != nil {
			t.Errorf("a suspension: %v", err)
		}
	})
}

func deref(rec any) any {
	switch x := rec.(type) {
	case *registry.Entity:
		return *x
	case *registry.Product:
		return *x
	}
	return rec
}

func TestCaseworkIsGivenBackAfterAFailover(t *testing.T) {
	a, store := caseWorld(t)
	if _, err := file(a, paper{ID: "P-1", Product: "FP-1002", State: "open"}); err != nil {
		t.Fatal(err)
	}
	promote := store.Replica()
	if _, err := decide(a, "P-1", "approved", "renamed", registry.Meta{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := file(a, paper{ID: "P-2", Product: "FP-1002", State: "open"}); err != nil {
		t.Fatal(err)
	}
	out, err := decide(a, "P-1", "closed", "renamed again", registry.Meta{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	promote()
	until(t, "the store has it again", func() bool { return store.Head().Revision >= out.Revision })
	b := caseRegister(t, store, "two")
	until(t, "another control plane reads it", func() bool { _, err := b.Casebook(); return err == nil })
	book, _ := b.Casebook()
	p, err := registry.CaseOf[paper](book, "P-1")
	if err != nil || p.Body.State != "closed" || p.Body.N != 2 || book.Len() != 2 || book.View.Product("FP-1002").Name != "renamed again" {
		t.Errorf("%+v, %v; %d papers", p, err, book.Len())
	}
}

func TestAStandbyGivesBackCaseworkItFollowed(t *testing.T) {
	store := registrytest.NewMemory()
	link := registrytest.NewLink(store)
	a := caseRegister(t, link, "one")
	writing(t, a)
	if _, err := a.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	b := caseRegister(t, store, "two")
	until(t, "the standby has loaded", func() bool { _, err := b.Casebook(); return err == nil })
	promote := store.Replica()
	var out registry.Outcome
	for i := range 5 {
		var err error
		if i == 0 {
			out, err = file(a, paper{ID: "P-1", Product: "FP-1002", State: "open"})
		} else {
			out, err = decide(a, "P-1", "again", fmt.Sprint("name ", i), registry.Meta{}, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the standby holds it", func() bool { book, err := b.Casebook(); return err == nil && book.Revision() >= out.Revision })
	link.Set(registrytest.Fault{Refused: true}) // the writer is gone
	promote()
	until(t, "the standby gave it back", func() bool { return store.Head().Revision >= out.Revision })
	c := caseRegister(t, store, "three")
	until(t, "a third reads it", func() bool { _, err := c.Casebook(); return err == nil })
	book, _ := c.Casebook()
	if p, err := registry.CaseOf[paper](book, "P-1"); err != nil || p.Body.N != 4 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestCasesAreFoundAsAScanWouldFindThem(t *testing.T) {
	r, _ := caseWorld(t)
	states := []string{"open", "approved", "closed"}
	products := []string{"FP-1002", "FP-1003"}
	model := map[string]paper{}
	rapid.Check(t, func(t *rapid.T) {
		id := fmt.Sprintf("P-%d", rapid.IntRange(0, 40).Draw(t, "id"))
		state := rapid.SampledFrom(states).Draw(t, "state")
		if p, known := model[id]; known {
			if _, err := decide(r, id, state, "name "+id, registry.Meta{}, nil); err != nil {
				t.Fatal(err)
			}
			p.State, p.N = state, p.N+1
			model[id] = p
		} else {
			model[id] = paper{ID: id, Product: rapid.SampledFrom(products).Draw(t, "product"), State: state}
			if _, err := file(r, model[id]); err != nil {
				t.Fatal(err)
			}
		}
		where := []registry.Where{{"state", rapid.SampledFrom(states).Draw(t, "asked")}}
		product, word := "", ""
		if rapid.Bool().Draw(t, "by product") {
			product = rapid.SampledFrom(products).Draw(t, "of")
			where = append(where, registry.Where{Index: "product", Value: product})
		}
		if rapid.Bool().Draw(t, "by word") {
			word = rapid.SampledFrom([]string{"1", "10", "fp", "p", "of", "nothing"}).Draw(t, "word")
			where = append(where, registry.Where{Index: "word", Value: word})
		}
		var want []string
		for id, p := range model {
			words := strings.FieldsFunc(strings.ToLower(p.ID+" of "+p.Product), func(c rune) bool { return c == ' ' || c == '-' })
			if p.State == where[0].Value && (product == "" || p.Product == product) &&
				(word == "" || slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, word) })) {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		book, err := r.Casebook()
		if err != nil {
			t.Fatal(err)
		}
		all, total := book.Find(registry.Query{Kind: "paper", Where: where, Limit: 100})
		slices.Sort(all)
		if d := cmp.Diff(want, all); d != "" || total != len(want) {
			t.Fatalf("%v: %d, -want +got:\n%s", where, total, d)
		}
		offset, limit := rapid.IntRange(0, 5).Draw(t, "offset"), rapid.IntRange(1, 5).Draw(t, "limit")
		page, again := book.Find(registry.Query{Kind: "paper", Where: where, Offset: offset, Limit: limit})
		if again != total || len(page) != max(0, min(limit, total-offset)) {
			t.Fatalf("page at %d of %d: %v of %d", offset, limit, page, again)
		}
	})
}

// BenchmarkCasebook holds 100,000 products and 20,000 entities with a case of
// 1 KB each, and says what that weighs and how long a page takes.
func BenchmarkFindPage(b *testing.B) {
	r, _ := caseWorld(b)
	for i := 0; i < 100_000; i += 500 {
		var batch []any
		for j := range 500 {
			n := i + j
			batch = append(batch, registry.Product{ID: fmt.Sprintf("FX-%06d", n), Name: fmt.Sprintf("Product %d of the %d kind", n, n%97), Owner: 65000000101,
				Category: []registry.Category{"A", "B", "C"}[n%3], Certification: registry.Certification{State: registry.CertState(n % 9)}})
		}
		if _, err := r.Import(b.Context(), sample.Actor(), batch, registry.Meta{}); err != nil {
			b.Fatal(err)
		}
	}
	book, err := r.Casebook()
	if err != nil {
		b.Fatal(err)
	}
	for _, q := range []registry.Query{
		{Kind: "product", Limit: 20, Offset: 90_000},
		{Kind: "product", Where: []registry.Where{{"certification", "Whitelisted"}}, Limit: 20, Offset: 5000},
		{Kind: "product", Where: []registry.Where{{"word", "product"}, {"word", "96"}}, Limit: 20},
		{Kind: "product", Where: []registry.Where{{"word", "9999"}}, Limit: 20},
		{Kind: "product", Where: []registry.Where{{"certification", "Whitelisted"}, {"category", "A"}}, Limit: 20},
	} {
		b.Run(fmt.Sprint(q.Where, q.Offset), func(b *testing.B) {
			for b.Loop() {
				book.Find(q)
			}
		})
	}
}
