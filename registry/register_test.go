package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// world is a control plane over a store in memory, with a clock to set.
type world struct {
	*registry.Register
	store  *registrytest.Memory
	mirror *registry.Mirror
	clock  atomic.Int64 // added to the time
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }

func (w *world) pass(d time.Duration) { w.clock.Add(int64(d)) }

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{store: registrytest.NewMemory()}
	w.Register, w.mirror = startRegister(t, w.store, "one", w.now)
	if _, err := w.Import(context.Background(), sample.Actor(), sample.Records(w.now()), registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	return w
}

// startRegister runs a control plane until the test ends; it returns once that may command.
func startRegister(t testing.TB, store registrytest.Store, holder string, now func() time.Time) (*registry.Register, *registry.Mirror) {
	t.Helper()
	m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: holder, Observer: true, Now: now})
	r := registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: holder, Now: now, ClaimTTL: 200 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	until(t, "the register is loaded and the claim held", func() bool {
		_, err := r.View()
		return err == nil && r.Writing()
	})
	return r, m
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func actor(name string, p registry.Permission) registry.Actor {
	return registry.Actor{Name: name, Permissions: p}
}

var (
	registrar = actor("registrar", registry.PermRegistrar)
	assessor  = actor("assessor", registry.PermAssessor)
	operator  = actor("operator", registry.PermOperator)
	operator2 = actor("operator2", registry.PermIncidentOfficer)
	none      = registry.Meta{}
)

func product(id string) registry.SubjectRef {
	return registry.SubjectRef{Kind: registry.KindProduct, ID: id}
}

func suspendFP(id string) registry.SuspendCommand {
	return registry.SuspendCommand{Subject: product(id), Reason: "finding"}
}

func view(t interface {
	Helper()
	Fatal(...any)
}, w *world) *registry.View {
	t.Helper()
	v, err := w.View()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// thumbprint is base64url of 32 bytes.
var thumbprint = strings.Repeat("A", 43)

// must prepares a world for a command.
func must[T any](t testing.TB) func(registry.Result[T], error) registry.Result[T] {
	return func(r registry.Result[T], err error) registry.Result[T] {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func TestOnlyWhoMayCommandsAndARefusalChangesNothing(t *testing.T) {
	const (
		reg = registry.PermRegistrar
		ass = registry.PermAssessor
		sus = registry.PermOperator | registry.PermIncidentOfficer
		own = registry.PermDeveloper // of the record's entity
	)
	ctx := t.Context()
	later := registry.At(time.Now().Add(time.Hour))
	commands := []struct {
		name string
		may  registry.Permission
		run  func(w *world, a registry.Actor) error
	}{
		{"create entity", reg, func(w *world, a registry.Actor) error {
			_, err := w.CreateEntity(ctx, a, registry.Entity{ABN: sample.Possum, Name: "Possum Bakery"}, none)
			return err
		}},
		{"update entity", reg, func(w *world, a registry.Actor) error {
			_, err := w.UpdateEntity(ctx, a, registry.Entity{ABN: sample.Galah, Name: "Galah", State: registry.EntityLapsed}, none)
			return err
		}},
		{"create product", reg, func(w *world, a registry.Actor) error {
			_, err := w.CreateProduct(ctx, a, registry.Product{ID: "FP-2000", Name: "New", Owner: sample.Galah}, none)
			return err
		}},
		{"update product", reg, func(w *world, a registry.Actor) error {
			_, err := w.UpdateProduct(ctx, a, registry.Product{ID: "FP-1009", Name: "New", Owner: sample.Galah}, none)
			return err
		}},
		{"add version", reg | own, func(w *world, a registry.Actor) error {
			_, err := w.AddVersion(ctx, a, "FP-1009", registry.Version{Version: "4.3"}, none)
			return err
		}},
		{"update version", reg, func(w *world, a registry.Actor) error {
			_, err := w.UpdateVersion(ctx, a, "FP-1009", registry.Version{Version: "4.2", State: registry.VersionBlocked}, none)
			return err
		}},
		{"set entitlement", ass, func(w *world, a registry.Actor) error {
			_, err := w.SetEntitlement(ctx, a, "FP-1009", registry.Entitlement{Service: "abr.lookup", Environment: registry.PROD, Stage: registry.StagePROD}, none)
			return err
		}},
		{"remove entitlement", ass, func(w *world, a registry.Actor) error {
			_, err := w.RemoveEntitlement(ctx, a, "FP-1009", "receipts.get", registry.PROD, none)
			return err
		}},
		{"set certification", ass, func(w *world, a registry.Actor) error {
			_, err := w.SetCertification(ctx, a, "FP-1009", registry.Certification{State: registry.CertReviewDue}, none)
			return err
		}},
		{"create client app", reg, func(w *world, a registry.Actor) error {
			_, err := w.CreateClientApp(ctx, a, registry.ClientApp{ClientID: "new", ProductID: "FP-1009", Environment: registry.EVTE}, none)
			return err
		}},
		{"update client app", reg, func(w *world, a registry.Actor) error {
			_, err := w.UpdateClientApp(ctx, a, registry.ClientApp{ClientID: "fp-1009-prod", ProductID: "FP-1009", Environment: registry.PROD, Disabled: true}, none)
			return err
		}},
		{"create credential", reg, func(w *world, a registry.Actor) error {
			_, err := w.CreateCredential(ctx, a, registry.Credential{Thumbprint: thumbprint, ABN: sample.Galah}, none)
			return err
		}},
		{"create subscription", reg, func(w *world, a registry.Actor) error {
			_, err := w.CreateSubscription(ctx, a, registry.Subscription{SSID: "0000900001", ProductID: "FP-1009", ClientABN: sample.Possum}, none)
			return err
		}},
		{"update subscription", reg, func(w *world, a registry.Actor) error {
			_, err := w.UpdateSubscription(ctx, a, registry.Subscription{SSID: "0000123400", ProductID: "FP-1001", ClientABN: sample.Possum}, none)
			return err
		}},
		{"nominate subscription", reg | own, func(w *world, a registry.Actor) error {
			if a.Entity != 0 {
				a.Entity = sample.Wattlebird
			}
			_, err := w.NominateSubscription(ctx, a, "0000123400", false, none)
			return err
		}},
		{"create service", reg, func(w *world, a registry.Actor) error {
			_, err := w.CreateService(ctx, a, registry.Service{Key: "new", Method: "GET", Template: "/new/{id}", Risk: 1}, none)
			return err
		}},
		{"update service", reg, func(w *world, a registry.Actor) error {
			_, err := w.UpdateService(ctx, a, registry.Service{Key: "abr.lookup", Method: "GET", Template: "/new/{id}", Risk: 1}, none)
			return err
		}},
		{"suspend", sus, func(w *world, a registry.Actor) error {
			_, err := w.Suspend(ctx, a, suspendFP("FP-1009"))
			return err
		}},
		{"confirm", sus, func(w *world, a registry.Actor) error {
			s := must[registry.Suspension](t)(w.Suspend(ctx, actor("first", registry.PermOperator), suspendFP("FP-1002")))
			_, err := w.ConfirmSuspension(ctx, a, s.Entry.ID, 0, none)
			return err
		}},
		{"lift", sus, func(w *world, a registry.Actor) error {
			_, err := w.LiftSuspension(ctx, a, sample.SuspensionID, none)
			return err
		}},
		{"issue notice", sus, func(w *world, a registry.Actor) error {
			_, err := w.IssueNotice(ctx, a, registry.Notice{Subject: product("FP-1009"), Reason: "finding", EffectiveAt: later}, none)
			return err
		}},
		{"deny token", sus, func(w *world, a registry.Actor) error {
			_, err := w.DenyToken(ctx, a, registry.Denial{What: "kid", Issuer: "https://issuer.example", Value: "k", Reason: "leak"}, none)
			return err
		}},
		{"lift denial", sus, func(w *world, a registry.Actor) error {
			d := must[registry.Denial](t)(w.DenyToken(ctx, actor("first", registry.PermOperator), registry.Denial{What: "jti", Issuer: "i", Value: "v", Reason: "leak"}, none))
			_, err := w.LiftDenial(ctx, a, d.Entry.ID, none)
			return err
		}},
		{"set limit", ass | registry.PermOperator, func(w *world, a registry.Actor) error {
			_, err := w.SetLimit(ctx, a, limit(nil), none)
			return err
		}},
		{"remove limit", ass | registry.PermOperator, func(w *world, a registry.Actor) error {
			l := must[registry.Limit](t)(w.SetLimit(ctx, actor("first", registry.PermOperator), limit(nil), none))
			_, err := w.RemoveLimit(ctx, a, l.Entry.ID, none)
			return err
		}},
		{"set tier", ass | registry.PermOperator, func(w *world, a registry.Actor) error {
			_, err := w.SetTier(ctx, a, "FP-1009", registry.TierStandard, none)
			return err
		}},
		{"import", reg, func(w *world, a registry.Actor) error {
			_, err := w.Import(ctx, a, []any{registry.Entity{ABN: sample.Possum, Name: "Possum"}}, none)
			return err
		}},
	}
	for _, c := range commands {
		t.Run(c.name, func(t *testing.T) {
			for p := registry.PermDeveloper; p <= registry.PermOperator; p <<= 1 {
				w := newWorld(t)
				a := actor("somebody", p)
				if p == registry.PermDeveloper {
					a.Entity = sample.Galah
				}
				// what a command needs standing beside it may add a change of its own
				err := c.run(w, a)
				if may := c.may&p != 0; may != (err == nil) || !may && !errors.Is(err, registry.ErrForbidden) {
					t.Errorf("permission %d: %v; may %t", p, err, may)
				}
				if err != nil {
					all, lerr := w.store.Changes(ctx, 0, 100)
					if lerr != nil {
						t.Fatal(lerr)
					}
					for _, ch := range all {
						if ch.Actor == "somebody" {
							t.Errorf("permission %d: refused, and yet %s is in the log", p, ch.Command)
						}
					}
				}
			}
			if err := c.run(newWorld(t), registry.Actor{Permissions: c.may}); err == nil {
				t.Error("an actor without a name was obeyed")
			}
		})
	}
}

func TestADeveloperSeesNothingOfAnother(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	dev := registry.Actor{Name: "dev@galah.example", Permissions: registry.PermDeveloper, Entity: sample.Galah}
	for what, err := range map[string]error{
		"version of another's product": func() error {
			_, err := w.AddVersion(ctx, dev, "FP-1001", registry.Version{Version: "6"}, none)
			return err
		}(),
		"with a precondition that fails": func() error {
			_, err := w.AddVersion(ctx, dev, "FP-1001", registry.Version{Version: "6"}, registry.Meta{IfMatch: 99})
			return err
		}(),
		"another's subscription": func() error {
			_, err := w.NominateSubscription(ctx, dev, "0000123400", false, none)
			return err
		}(),
		"no such subscription": func() error {
			_, err := w.NominateSubscription(ctx, dev, "0000000000", false, none)
			return err
		}(),
	} {
		if !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", what, err)
		}
	}
	owner := dev
	owner.Entity = sample.Wattlebird
	r, err := w.NominateSubscription(ctx, owner, "0000123400", false, none)
	if err != nil || r.Entry.Value.Nominated {
		t.Errorf("own subscription: %+v, %v", r.Entry, err)
	}
}

func TestPreconditionsHold(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	first := must[registry.Product](t)(w.AddVersion(ctx, registrar, "FP-1009", registry.Version{Version: "5"}, none))
	stale := registry.Meta{IfMatch: first.Entry.Revision}
	second := must[registry.Product](t)(w.AddVersion(ctx, registrar, "FP-1009", registry.Version{Version: "6"}, stale))
	if second.Revision != first.Revision+1 || second.Entry.Revision != second.Revision {
		t.Errorf("revisions %d, %d, record %d", first.Revision, second.Revision, second.Entry.Revision)
	}
	if _, err := w.AddVersion(ctx, registrar, "FP-1009", registry.Version{Version: "7"}, stale); !errors.Is(err, registry.ErrPrecondition) {
		t.Errorf("stale: %v, want ErrPrecondition", err)
	}
	if _, err := w.CreateProduct(ctx, registrar, registry.Product{ID: "FP-1009", Name: "x", Owner: sample.Galah}, none); !errors.Is(err, registry.ErrState) {
		t.Errorf("create twice: %v, want ErrState", err)
	}
	if v := view(t, w).Product("FP-1009"); v.Version("6") == nil || v.Version("7") != nil || v.Version("4.2") == nil {
		t.Error("the view lacks a version, or has one refused")
	}
}

func TestImportAgainChangesNothingAndUndoesNoLift(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	records := sample.Records(w.now())
	rev, err := w.Import(ctx, sample.Actor(), records, none)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.Import(ctx, sample.Actor(), records, none)
	if err != nil || again != rev {
		t.Errorf("again: revision %d, %v; want %d", again, err, rev)
	}
	must[registry.Suspension](t)(w.LiftSuspension(ctx, operator, sample.SuspensionID, none))
	if _, err := w.Import(ctx, sample.Actor(), records, none); err != nil {
		t.Fatal(err)
	}
	if s := view(t, w).Suspension(sample.SuspensionID); s.LiftedAt == 0 {
		t.Error("an import undid a lift")
	}
	if v := view(t, w); v.Records != uint64(len(records)) {
		t.Errorf("%d records, want %d", v.Records, len(records))
	}
}

func TestAnImportIsMadeInBatchesAndNamesTheRecordRefused(t *testing.T) {
	w := newWorld(t)
	var many []any
	for i := range 1200 {
		many = append(many, registry.Product{ID: fmt.Sprintf("P-%d", i), Name: "p", Owner: sample.Galah})
	}
	before := view(t, w).Revision
	rev, err := w.Import(t.Context(), sample.Actor(), many, none)
	if err != nil || rev != before+3 {
		t.Errorf("revision %d, %v; want %d", rev, err, before+3)
	}
	_, err = w.Import(t.Context(), sample.Actor(), []any{many[0], registry.Product{ID: "P-x", Name: "p", Owner: sample.Possum}}, none)
	var f *registry.FieldError
	if !errors.As(err, &f) || f.Field != "/1/owner" {
		t.Errorf("got %v, want a FieldError of /1/owner", err)
	}
	_, err = w.Import(t.Context(), registrar, sample.Records(w.now()), none)
	if !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("a registrar imports certifications: %v, want ErrForbidden", err)
	}
}

// recount sums the digest and the records of a View from scratch.
func recount(v *registry.View) (d registry.Digest, n uint64) {
	add := func(m registry.MAC) { d, n = d.Add(m), n+1 }
	for _, e := range v.Entities() {
		add(e.MAC)
	}
	for _, e := range v.Products() {
		add(e.MAC)
	}
	for _, e := range v.ClientApps() {
		add(e.MAC)
	}
	for _, e := range v.Credentials() {
		add(e.MAC)
	}
	for _, e := range v.Subscriptions() {
		add(e.MAC)
	}
	for _, e := range v.Services() {
		add(e.MAC)
	}
	for _, e := range v.Suspensions() {
		add(e.MAC)
	}
	for _, e := range v.Denials() {
		add(e.MAC)
	}
	for _, e := range v.Limits() {
		add(e.MAC)
	}
	for _, e := range v.Notices() {
		add(e.MAC)
	}
	return d, n
}

func TestRevisionsRiseByOneDigestsAddUpAndALiftRestores(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	standings := func() string {
		v := view(t, w)
		var b strings.Builder
		for _, a := range v.ClientApps() {
			q := registry.StandingQuery{App: &a.Value, Environment: a.Value.Environment}
			fmt.Fprintf(&b, "%s=%d ", a.ID, v.Standing(&q, registry.At(w.now())).Code)
		}
		return b.String()
	}
	subjects := []registry.SubjectRef{
		product("FP-1001"), product("FP-1003"), {Kind: registry.KindEntity, ID: sample.Galah.String()},
		{Kind: registry.KindVersion, ID: "FP-1002@3.1"}, {Kind: registry.KindClientApp, ID: "fp-1004-prod"},
	}
	rapid.Check(t, func(t *rapid.T) {
		before := standings()
		var lift []string
		for _, s := range rapid.SliceOfN(rapid.SampledFrom(subjects), 1, 6).Draw(t, "subjects") {
			rev := view(t, w).Revision
			r, err := w.Suspend(ctx, operator, registry.SuspendCommand{Subject: s, Reason: "finding", Emergency: rapid.Bool().Draw(t, "emergency")})
			if err != nil {
				t.Fatal(err)
			}
			v := view(t, w)
			if r.Existing {
				if v.Revision != rev {
					t.Fatalf("existing, and yet revision %d after %d", v.Revision, rev)
				}
				continue
			}
			lift = append(lift, r.Entry.ID)
			if r.Revision != rev+1 || v.Revision != rev+1 {
				t.Fatalf("revision %d (view %d) after %d", r.Revision, v.Revision, rev)
			}
			if v.Suspended(s.Kind, s.ID, registry.At(w.now())) == nil {
				t.Fatalf("%s is not suspended after the command returned", s)
			}
		}
		for _, id := range rapid.Permutation(lift).Draw(t, "lift") {
			if _, err := w.LiftSuspension(ctx, operator2, id, none); err != nil {
				t.Fatal(err)
			}
		}
		if after := standings(); after != before {
			t.Fatalf("standings after all is lifted:\n%s\nbefore:\n%s", after, before)
		}
		v := view(t, w)
		if d, n := recount(v); d != v.Digest || n != v.Records {
			t.Fatalf("digest %v of %d records, recounted %v of %d", v.Digest, v.Records, d, n)
		}
		if h := w.store.Head(); h.Digest != v.Digest || h.Revision != v.Revision || h.Records != v.Records {
			t.Fatalf("head %+v, view %d %v", h, v.Revision, v.Digest)
		}
	})
}

func TestNothingIsLostAmongManyCommands(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	before := view(t, w).Revision
	var wg sync.WaitGroup
	var versions, suspensions sync.Map
	for i := range 100 {
		wg.Go(func() {
			r, err := w.AddVersion(ctx, registrar, "FP-1003", registry.Version{Version: fmt.Sprint("8.", i)}, none)
			if err != nil {
				t.Error(err)
				return
			}
			if _, twice := versions.LoadOrStore(r.Revision, true); twice {
				t.Errorf("revision %d was given twice", r.Revision)
			}
		})
		wg.Go(func() {
			r, err := w.Suspend(ctx, operator, suspendFP([]string{"FP-1001", "FP-1002"}[i%2]))
			if err != nil {
				t.Error(err)
				return
			}
			suspensions.Store(r.Entry.ID, true)
		})
	}
	wg.Wait()
	v := view(t, w)
	for i := range 100 {
		if v.Product("FP-1003").Version(fmt.Sprint("8.", i)) == nil {
			t.Errorf("version 8.%d was lost", i)
		}
	}
	n := 0
	suspensions.Range(func(any, any) bool { n++; return true })
	if n != 2 || v.Revision != before+102 {
		t.Errorf("%d suspensions of two products, revision %d; want 2 and %d", n, v.Revision, before+102)
	}
	if d, records := recount(v); d != v.Digest || records != v.Records {
		t.Error("the digest does not add up")
	}
}

func TestOfTwoControlPlanesOneWritesAndTheOtherTakesOver(t *testing.T) {
	store := registrytest.NewMemory()
	ctx := t.Context()
	one, stop := context.WithCancel(ctx)
	m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "one", Observer: true})
	r := registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one", ClaimTTL: 100 * time.Millisecond})
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(one) })
	wg.Go(func() { _ = r.Run(one) })
	until(t, "the first writes", func() bool { _, err := r.View(); return err == nil && r.Writing() })
	if _, err := r.Import(ctx, sample.Actor(), sample.Records(time.Now()), none); err != nil {
		t.Fatal(err)
	}

	m2 := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "two", Observer: true})
	r2 := registry.NewRegister(store, m2, registrytest.Sealer(t), registry.RegisterConfig{Holder: "two", ClaimTTL: 100 * time.Millisecond})
	two, stop2 := context.WithCancel(ctx)
	wg.Go(func() { _ = m2.Run(two) })
	wg.Go(func() { _ = r2.Run(two) })
	defer func() { stop2(); wg.Wait() }()
	until(t, "the second follows", func() bool { v, err := r2.View(); return err == nil && v.Revision > 0 })
	if _, err := r2.Suspend(ctx, operator, suspendFP("FP-1001")); !errors.Is(err, registry.ErrFenced) {
		t.Errorf("beside a writer: %v, want ErrFenced", err)
	}
	stop()
	until(t, "the second writes", r2.Writing)
	if _, err := r2.Suspend(ctx, operator, suspendFP("FP-1001")); err != nil {
		t.Errorf("after taking over: %v", err)
	}
	if _, err := r.Suspend(ctx, operator, suspendFP("FP-1002")); !errors.Is(err, registry.ErrUnavailable) && !errors.Is(err, registry.ErrFenced) {
		t.Errorf("the one that stopped: %v", err)
	}
}

func TestACommandSurvivesALostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		link := registrytest.NewLink(store)
		began := time.Now()
		m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{
			ID: "one", Observer: true, Clock: func() time.Duration { return time.Since(began) },
		})
		// The claim outlasts the silence; else the command is fenced, rightly.
		r := registry.NewRegister(link, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one", ClaimTTL: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = m.Run(ctx) }()
		go func() { _ = r.Run(ctx) }()
		synctest.Wait()
		if _, err := r.Import(ctx, sample.Actor(), sample.Records(time.Now()), none); err != nil {
			t.Fatal(err)
		}
		before := store.Head().Revision
		link.Set(registrytest.Fault{LoseReply: true})
		done := make(chan error, 1)
		go func() {
			_, err := r.Suspend(ctx, operator, suspendFP("FP-1001"))
			done <- err
		}()
		synctest.Wait()
		if got := store.Head().Revision; got != before+1 {
			t.Fatalf("the store's head is %d, want %d", got, before+1)
		}
		link.Set(registrytest.Fault{})
		if err := <-done; err != nil {
			t.Errorf("committed, and answered %v", err)
		}
		if got := store.Head().Revision; got != before+1 {
			t.Errorf("head %d, want %d: once", got, before+1)
		}
	})
}

func TestACommitNotDurableIsAnsweredWithItsResult(t *testing.T) {
	w := newWorld(t)
	w.store.NotDurable(true)
	r, err := w.Suspend(t.Context(), operator, suspendFP("FP-1001"))
	if !errors.Is(err, registry.ErrNotDurable) || r.Entry == nil || r.Revision == 0 {
		t.Fatalf("%+v, %v; want the suspension and ErrNotDurable", r, err)
	}
	if view(t, w).Suspended(registry.KindProduct, "FP-1001", registry.At(w.now())) == nil {
		t.Error("it is committed, and the view lacks it")
	}
}

func TestACommandOutlivesItsClient(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Either it never began, and nothing happened, or it is done.
	before := view(t, w).Revision
	if _, err := w.Suspend(ctx, operator, suspendFP("FP-1001")); err == nil {
		before++
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := view(t, w).Revision; got != before {
		t.Errorf("revision %d, want %d", got, before)
	}
}
