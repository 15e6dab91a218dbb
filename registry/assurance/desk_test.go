package assurance_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/assurance/evidencedir"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

var (
	assessor   = registry.Actor{Name: "assessor@agency.example", Permissions: registry.PermAssessor}
	assessor2  = registry.Actor{Name: "assessor2@agency.example", Permissions: registry.PermAssessor}
	registrar  = registry.Actor{Name: "registrar@agency.example", Permissions: registry.PermRegistrar}
	auditor    = registry.Actor{Name: "auditor@agency.example", Permissions: registry.PermAuditor}
	operator   = registry.Actor{Name: "operator@agency.example", Permissions: registry.PermOperator}
	wattlebird = registry.Actor{Name: "dev@wattlebird.example", Permissions: registry.PermDeveloper, Entity: sample.Wattlebird}
	kookaburra = registry.Actor{Name: "dev@kookaburra.example", Permissions: registry.PermDeveloper, Entity: sample.Kookaburra}
	bluegum    = registry.Actor{Name: "dev@bluegum.example", Permissions: registry.PermDeveloper, Entity: sample.Bluegum}
)

type world struct {
	t    testing.TB
	desk *assurance.Desk
	reg  *registry.Register
	dir  *evidencedir.Dir
	now  time.Time // of the desk's own clock

	link  *registrytest.Link
	ahead atomic.Int64 // of the register's clock, before the real one
}

func newWorld(t testing.TB) *world {
	t.Helper()
	store := registrytest.NewMemory()
	w := &world{t: t, now: time.Now(), link: registrytest.NewLink(store)}
	m := registry.NewMirror(w.link, registrytest.Sealer(t), registry.MirrorConfig{ID: "one", Observer: true})
	w.reg = registry.NewRegister(w.link, m, registrytest.Sealer(t), registry.RegisterConfig{
		Holder: "one", ClaimTTL: time.Second, Cases: assurance.CaseTypes(),
		Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = m.Run(ctx); done <- struct{}{} }()
	go func() { _ = w.reg.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		_, err := w.reg.Casebook()
		if err == nil && w.reg.Writing() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the register never took commands")
		}
	}
	if _, err := w.reg.Import(ctx, sample.Actor(), sample.Records(time.Now()), registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	rules, err := certification.Default(certification.OpenDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if w.dir, err = evidencedir.Open(filepath.Join(t.TempDir(), "evidence")); err != nil {
		t.Fatal(err)
	}
	w.desk = assurance.NewDesk(assurance.Config{Register: w.reg, Rules: rules, Files: w.dir, Now: func() time.Time { return w.now }})
	return w
}

func (w *world) book() *registry.Casebook {
	w.t.Helper()
	b, err := w.reg.Casebook()
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) product(id string) *registry.Product { return w.book().View.Product(id) }

const sampleLog = "2026-11-22T09:00:00Z user=u1 session=s1 event=login ok\n"

func (w *world) submit(a registry.Actor, product string, body string) (*registry.Case[assurance.Evidence], bool, error) {
	return w.desk.SubmitEvidence(context.Background(), a, assurance.Submission{ProductID: product, Type: certification.SampleLog, Requirements: []string{"OSF-AUD"}}, strings.NewReader(body))
}

func is(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func TestEvidence(t *testing.T) {
	w := newWorld(t)
	e, existing, err := w.submit(wattlebird, "FP-1001", sampleLog)
	if err != nil || existing || e.Body.Entity != sample.Wattlebird || e.Body.Bytes != uint64(len(sampleLog)) || e.Body.By != wattlebird.Name {
		t.Fatalf("%+v, %v, %v", e, existing, err)
	}
	again, existing, err := w.submit(wattlebird, "FP-1001", sampleLog)
	if err != nil || !existing || again.ID != e.ID {
		t.Errorf("sent again: %+v, %v, %v", again, existing, err)
	}
	_, f, err := w.desk.OpenEvidence(t.Context(), auditor, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != sampleLog {
		t.Errorf("%q, %v", b, err)
	}

	_, _, err = w.submit(kookaburra, "FP-1001", sampleLog)
	is(t, "another's product", err, registry.ErrNotFound)
	_, _, err = w.submit(bluegum, "FP-1001", sampleLog)
	is(t, "a product one only helps to deliver", err, registry.ErrForbidden)
	_, _, err = w.submit(auditor, "FP-1001", sampleLog)
	is(t, "an auditor", err, registry.ErrForbidden)
	_, _, err = w.submit(wattlebird, "FP-1001", sampleLog+"tfn 220 115 957\n")
	is(t, "a TFN", err, registry.ErrInvalid)
	var f2 *registry.FieldError
	if !errors.As(err, &f2) || f2.Field != "/content" || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a TFN: %v", err)
	}
	_, _, err = w.desk.SubmitEvidence(t.Context(), wattlebird, assurance.Submission{ProductID: "FP-1001", Type: certification.SampleLog, Requirements: []string{"OSF-XXX"}}, strings.NewReader(sampleLog))
	is(t, "an unknown requirement", err, registry.ErrInvalid)
	_, err = w.desk.Evidence(kookaburra, e.ID)
	is(t, "reading another's", err, registry.ErrNotFound)

	_, _, err = w.desk.ApproveEvidence(t.Context(), wattlebird, e.ID, registry.Meta{})
	is(t, "accepting one's own", err, registry.ErrForbidden)
	a, _, err := w.desk.ApproveEvidence(t.Context(), assessor, e.ID, registry.Meta{})
	if err != nil || !a.Body.Approved.Set() {
		t.Fatalf("%+v, %v", a, err)
	}
	b, existing, err := w.desk.ApproveEvidence(t.Context(), assessor2, e.ID, registry.Meta{})
	if err != nil || !existing || b.Body.Approved != a.Body.Approved {
		t.Errorf("accepted twice: %+v, %v", b, err)
	}
}

// The same file, or the same contact, used by another entity is shown to staff.
func TestSignals(t *testing.T) {
	w := newWorld(t)
	if s, err := w.desk.Signals(w.book(), sample.Wattlebird); err != nil || len(s) != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	mine, _, err := w.submit(wattlebird, "FP-1001", sampleLog)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.submit(kookaburra, "FP-1003", sampleLog); err != nil {
		t.Fatal(err)
	}
	g := w.book().View.Entity(sample.Galah)
	next := *g
	next.Contact = "DEV+two@wattlebird.example"
	if _, err := w.reg.UpdateEntity(t.Context(), registrar, next, registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	s, err := w.desk.Signals(w.book(), sample.Wattlebird)
	if err != nil || len(s) != 2 || s[0].Evidence != mine.ID || !slices.Equal(s[0].Others, []registry.ABN{sample.Kookaburra}) ||
		s[1].Kind != "contact-shared" || !slices.Equal(s[1].Others, []registry.ABN{sample.Galah}) {
		t.Errorf("%+v, %v", s, err)
	}
	risk, err := w.desk.RiskProfile(w.book(), w.product("FP-1001"))
	if err != nil || !slices.ContainsFunc(risk.Contributions, func(c certification.Contribution) bool { return c.Input == "shared_evidence" && c.Points > 0 }) {
		t.Errorf("the risk profile does not show it: %+v, %v", risk, err)
	}
}

func TestRequirementsOfTheSampleProducts(t *testing.T) {
	w := newWorld(t)
	for id, want := range map[string]struct {
		category certification.Category
		certify  int
		has      string
	}{
		"FP-1001": {"A", 1, "CLD-1"}, "FP-1002": {"D", 1, "OSF-EIT"}, "FP-1003": {"A", 1, "CLD-1"}, "FP-1005": {"C", 2, "OSF-SCV"},
		"FP-1006": {"E", 1, "DEV-1"}, "FP-1008": {"C", 1, "OSF-SCV"}, "FP-1010": {"C", 1, "OSF-AUT"},
	} {
		r := w.desk.Requirements(w.book(), w.product(id))
		certify := 0
		for _, o := range r.Obliged {
			if o.SelfCertify {
				certify++
			}
		}
		if r.Category != want.category || certify != want.certify || r.NotComputed != "" ||
			!slices.ContainsFunc(r.Applicable, func(a certification.Applicable) bool { return a.ID == want.has }) {
			t.Errorf("%s: category %s, %d certify, %q", id, r.Category, certify, r.NotComputed)
		}
	}
}

func TestVerification(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	_, _, err := w.desk.OpenVerification(ctx, registrar, "FP-1001", nil, "", "")
	is(t, "a registrar", err, registry.ErrForbidden)
	_, _, err = w.desk.OpenVerification(ctx, assessor, "FP-1012", nil, "", "")
	is(t, "a delisted product", err, registry.ErrState)
	_, _, err = w.desk.OpenVerification(ctx, assessor, "FP-1001", []string{"OSF-ADD"}, "", "")
	is(t, "what does not apply", err, registry.ErrInvalid)
	v, _, err := w.desk.OpenVerification(ctx, assessor, "FP-1001", []string{"OSF-AUD", "OSF-AUT"}, "", "")
	if err != nil || len(v.Body.Tests) != 2 || v.Body.State() != "open" || len(v.Body.Risk.Contributions) == 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	_, _, err = w.desk.CloseVerification(ctx, assessor, v.ID, "done", registry.Meta{})
	is(t, "closing with tests open", err, registry.ErrState)
	e, _, err := w.submit(wattlebird, "FP-1001", sampleLog)
	if err != nil {
		t.Fatal(err)
	}
	pass := assurance.TestResult{Requirement: "OSF-AUD", Method: "documents-read", Outcome: "pass", Evidence: []string{e.ID}}
	if v, _, err = w.desk.RecordTest(ctx, assessor, v.ID, pass, registry.Meta{IfMatch: v.Revision}); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.desk.RecordTest(ctx, assessor, v.ID, assurance.TestResult{Requirement: "OSF-AUT", Method: "control-tested", Outcome: "fail"}, registry.Meta{})
	is(t, "a fail without a word", err, registry.ErrInvalid)
	fail := assurance.TestResult{Requirement: "OSF-AUT", Method: "control-tested", Outcome: "fail", Finding: "No second factor.", Severity: "high"}
	if v, _, err = w.desk.RecordTest(ctx, assessor, v.ID, fail, registry.Meta{}); err != nil || v.Body.Tests[1].Finding == "" || !v.Body.Failed() {
		t.Fatalf("%+v, %v", v, err)
	}
	if v, _, err = w.desk.CloseVerification(ctx, assessor, v.ID, "A finding.", registry.Meta{}); err != nil || v.Body.State() != "closed" {
		t.Fatalf("%+v, %v", v, err)
	}
	_, _, err = w.desk.RecordTest(ctx, assessor, v.ID, pass, registry.Meta{})
	is(t, "testing a closed one", err, registry.ErrState)
	if _, err := w.desk.Verification(wattlebird, v.ID); err != nil {
		t.Errorf("the developer does not see it: %v", err)
	}
	_, err = w.desk.Verification(kookaburra, v.ID)
	is(t, "another developer", err, registry.ErrNotFound)

	f, err := w.desk.Finding(wattlebird, v.Body.Tests[1].Finding)
	if err != nil || f.Body.State != assurance.FindingOpen || f.Body.Requirement != "OSF-AUT" {
		t.Fatalf("%+v, %v", f, err)
	}
	if days := f.Body.Due.Std().Sub(f.Body.Raised.Std()).Hours() / 24; days < 6.9 || days > 7.1 {
		t.Errorf("a high finding is due in %v days", days)
	}
	if !f.Body.Overdue(f.Body.Due) || f.Body.Overdue(f.Body.Due-1) {
		t.Error("overdue is not from the due date on")
	}
}

func TestFindings(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	raise := func() *registry.Case[assurance.Finding] {
		t.Helper()
		f, _, err := w.desk.RaiseFinding(ctx, assessor, "FP-1009", assurance.Raise{Requirement: "DEV-2", Text: "Seven releases in 14 days, tickets unanswered."}, "")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	galah := registry.Actor{Name: "dev@galah.example", Permissions: registry.PermDeveloper, Entity: sample.Galah}
	both := registry.Actor{Name: "both@agency.example", Permissions: registry.PermDeveloper | registry.PermAssessor, Entity: sample.Galah}
	f := raise()
	_, _, err := w.desk.AnswerFinding(ctx, wattlebird, f.ID, "mended", nil, registry.Meta{})
	is(t, "another's finding", err, registry.ErrNotFound)
	_, _, err = w.desk.AnswerFinding(ctx, assessor, f.ID, "mended", nil, registry.Meta{})
	is(t, "an assessor answers", err, registry.ErrForbidden)
	if _, _, err := w.desk.AnswerFinding(ctx, both, f.ID, "mended", nil, registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.desk.CloseFinding(ctx, both, f.ID, "seen", registry.Meta{})
	is(t, "judging one's own answer", err, registry.ErrForbidden)
	if f, _, err = w.desk.ReopenFinding(ctx, assessor, f.ID, "not yet", 0, registry.Meta{}); err != nil || f.Body.State != assurance.FindingOpen {
		t.Fatalf("%+v, %v", f, err)
	}
	_, _, err = w.desk.ReopenFinding(ctx, assessor, f.ID, "again", 0, registry.Meta{})
	is(t, "reopening what is open", err, registry.ErrState)
	_, _, err = w.desk.AnswerFinding(ctx, galah, f.ID, "tfn 220115957", nil, registry.Meta{})
	is(t, "a TFN in an answer", err, registry.ErrInvalid)
	if _, _, err := w.desk.AnswerFinding(ctx, galah, f.ID, "mended now", nil, registry.Meta{IfMatch: f.Revision}); err != nil {
		t.Fatal(err)
	}
	if f, _, err = w.desk.CloseFinding(ctx, assessor, f.ID, "seen", registry.Meta{}); err != nil || f.Body.State != assurance.FindingClosed || f.Body.ClosedBy != assessor.Name {
		t.Fatalf("%+v, %v", f, err)
	}
	_, _, err = w.desk.CloseFinding(ctx, assessor, f.ID, "seen", registry.Meta{})
	is(t, "closing twice", err, registry.ErrState)
	_, _, err = w.desk.RaiseFinding(ctx, registrar, "FP-1009", assurance.Raise{Requirement: "DEV-2", Text: "x"}, "")
	is(t, "a registrar raises", err, registry.ErrForbidden)
	for _, bad := range []assurance.Raise{
		{Requirement: "XXX-1", Text: "x"}, {Requirement: "DEV-2"}, {Requirement: "DEV-2", Text: "x", Severity: "huge"}, {Requirement: "DEV-2", Text: "x", Due: 1},
	} {
		_, _, err := w.desk.RaiseFinding(ctx, assessor, "FP-1009", bad, "")
		is(t, "a bad finding", err, registry.ErrInvalid)
	}
	// What is not closed can be found by when it is due.
	open := raise()
	ids, _ := w.book().Find(registry.Query{Kind: "finding", Where: []registry.Where{{Index: "due_at"}}, To: registry.At(time.Now().AddDate(1, 0, 0)).String(), Limit: 10})
	if !slices.Equal(ids, []string{open.ID}) {
		t.Errorf("due: %v", ids)
	}
}

func TestDraw(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	_, _, err := w.desk.Draw(ctx, assessor, "2026", "")
	is(t, "drawing before committing", err, registry.ErrNotFound)
	_, _, err = w.desk.CommitDraw(ctx, registrar, "2026", "")
	is(t, "a registrar", err, registry.ErrForbidden)
	_, _, err = w.desk.CommitDraw(ctx, assessor, "this year", "")
	is(t, "a period that is none", err, registry.ErrInvalid)
	committed, _, err := w.desk.CommitDraw(ctx, assessor, "2026", "")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.desk.CommitDraw(ctx, assessor, "2026", "")
	is(t, "committing twice", err, registry.ErrState)
	_, err = w.desk.Published(ctx, "2026")
	is(t, "published before it is drawn", err, registry.ErrState)

	c, _, err := w.desk.Draw(ctx, assessor2, "2026", "")
	if err != nil || !c.Body.Opened || c.Body.Candidates != 10 { // twelve, less a draft and a delisted one
		t.Fatalf("%+v, %v", c, err)
	}
	d, err := w.desk.Published(ctx, "2026")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Verify(committed.Body.Commitment); err != nil {
		t.Errorf("the published draw does not verify: %v", err)
	}
	basis := map[string]certification.Basis{}
	for _, x := range d.Outcome {
		basis[x.ID] = x.Basis
	}
	if basis["FP-1001"] != certification.ByCategory || basis["FP-1005"] != certification.ByFirstTime {
		t.Errorf("%v", basis)
	}
	open := 0
	for id := range w.book().All(registry.Query{Kind: "verification", Where: []registry.Where{{Index: "period", Value: "2026"}}}) {
		v, err := w.desk.Verification(auditor, id)
		if err != nil || v.Body.Basis != basis[v.Body.ProductID] || v.Body.Basis == certification.NotSelected || len(v.Body.Tests) == 0 {
			t.Errorf("%+v, %v", v, err)
		}
		open++
	}
	if open != len(d.Selected()) {
		t.Errorf("%d verifications of %d selected", open, len(d.Selected()))
	}
	again, existing, err := w.desk.Draw(ctx, assessor, "2026", "")
	if err != nil || !existing || again.Body.Address != c.Body.Address {
		t.Errorf("drawn again: %+v, %v, %v", again, existing, err)
	}
}

// TestADrawThatWasCutOffGoesOn: the store fails right after the draw is published.
// Once it is back the timer opens the verifications, each once, whether or not
// somebody repeats the command.
func TestADrawThatWasCutOffGoesOn(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if _, _, err := w.desk.CommitDraw(ctx, assessor, "2026", ""); err != nil {
		t.Fatal(err)
	}
	w.link.Set(registrytest.Fault{OnCommit: func(c *registry.Change) {
		if c.Command == "draw.draw" {
			w.link.Set(registrytest.Fault{CommitsRefused: true}) // from the next on
		}
	}})
	if _, _, err := w.desk.Draw(ctx, assessor, "2026", ""); err == nil {
		t.Fatal("the draw was to be cut off")
	}
	w.link.Set(registrytest.Fault{})
	c, err := registry.CaseOf[assurance.DrawCase](w.book(), "2026")
	if err != nil || !c.Body.Drawn.Set() || c.Body.Opened || len(c.Body.CaseDues()) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	w.ahead.Store(int64(time.Minute))
	for range 100 {
		if n, err := w.reg.FireDue(ctx, w.desk.Timers()); err != nil {
			t.Fatal(err)
		} else if n == 0 {
			break
		}
		w.ahead.Add(int64(time.Minute))
	}
	if c, err = registry.CaseOf[assurance.DrawCase](w.book(), "2026"); err != nil || !c.Body.Opened || len(c.Body.CaseDues()) != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	d, err := w.desk.Published(ctx, "2026")
	if err != nil {
		t.Fatal(err)
	}
	if _, open := w.book().Find(registry.Query{Kind: "verification", Where: []registry.Where{{Index: "period", Value: "2026"}}}); open != len(d.Selected()) || open == 0 {
		t.Errorf("%d verifications of %d selected", open, len(d.Selected()))
	}
	before := w.book().Revision()
	if again, existing, err := w.desk.Draw(ctx, assessor, "2026", ""); err != nil || !existing || again.Body.Address != c.Body.Address || w.book().Revision() != before {
		t.Errorf("drawn again: %+v, %t, %v", again, existing, err)
	}
}

func TestAddOns(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	x := assurance.AddOn{ProductID: "FP-1001", Name: "Time sheets", Developer: "Quoll Apps", Connections: 1001, SSIDs: []string{"0000123400"}}
	_, _, err := w.desk.DeclareAddOn(ctx, kookaburra, "", x, registry.Meta{})
	is(t, "another's product", err, registry.ErrNotFound)
	bad := x
	bad.SSIDs = []string{"0000300001"}
	_, _, err = w.desk.DeclareAddOn(ctx, wattlebird, "", bad, registry.Meta{})
	is(t, "another's subscription", err, registry.ErrInvalid)
	a, _, err := w.desk.DeclareAddOn(ctx, wattlebird, "", x, registry.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	if s := a.Body.Standing(registry.At(w.now)); !s.Listed || !s.Overdue {
		t.Errorf("%+v", s)
	}
	// From then on the DSP must show that its add-ons assessed themselves.
	r := w.desk.Requirements(w.book(), w.product("FP-1001"))
	if !slices.ContainsFunc(r.Applicable, func(a certification.Applicable) bool { return a.ID == "OSF-ADD" }) {
		t.Error("OSF-ADD does not apply")
	}
	x.Assessed = registry.At(w.now.AddDate(0, -1, 0))
	if a, _, err = w.desk.DeclareAddOn(ctx, wattlebird, a.ID, x, registry.Meta{IfMatch: a.Revision}); err != nil || a.Body.Standing(registry.At(w.now)).Overdue {
		t.Fatalf("%+v, %v", a, err)
	}
	_, err = w.desk.AddOn(kookaburra, a.ID)
	is(t, "reading another's", err, registry.ErrNotFound)

	_, err = w.desk.SuspendAddOn(ctx, wattlebird, a.ID, registry.SuspendCommand{Reason: "leak"})
	is(t, "a developer suspends", err, registry.ErrForbidden)
	stopped, err := w.desk.SuspendAddOn(ctx, operator, a.ID, registry.SuspendCommand{Reason: "leak"})
	if err != nil || len(stopped) != 1 || stopped[0].SuspensionID == "" {
		t.Fatalf("%+v, %v", stopped, err)
	}
	v, err := w.reg.View()
	if err != nil || v.Suspended(registry.KindSubscription, "0000123400", registry.At(time.Now())) == nil {
		t.Errorf("the subscription is not suspended: %v", err)
	}
	if v.Suspended(registry.KindProduct, "FP-1001", registry.At(time.Now())) != nil {
		t.Error("the product is suspended as well")
	}
	if again, err := w.desk.SuspendAddOn(ctx, operator, a.ID, registry.SuspendCommand{Reason: "leak"}); err != nil || !again[0].Existing {
		t.Errorf("%+v, %v", again, err)
	}

	if a, _, err = w.desk.RemoveAddOn(ctx, wattlebird, a.ID, registry.Meta{}); err != nil || !a.Body.Removed.Set() {
		t.Fatalf("%+v, %v", a, err)
	}
	_, _, err = w.desk.DeclareAddOn(ctx, wattlebird, a.ID, x, registry.Meta{})
	is(t, "changing a removed one", err, registry.ErrState)
	bare, _, err := w.desk.DeclareAddOn(ctx, wattlebird, "", assurance.AddOn{ProductID: "FP-1001", Name: "n", Developer: "d"}, registry.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.desk.SuspendAddOn(ctx, operator, bare.ID, registry.SuspendCommand{Reason: "leak"})
	is(t, "an add-on of no known subscription", err, registry.ErrState)
}

func TestEcosystemAndThreats(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	yes := certification.Answer{Values: []string{"yes"}}
	_, _, err := w.desk.AnswerEcosystem(ctx, kookaburra, "FP-1001", "ECO.1", yes, registry.Meta{})
	is(t, "another's product", err, registry.ErrNotFound)
	_, _, err = w.desk.AnswerEcosystem(ctx, wattlebird, "FP-1001", "ECO.99", yes, registry.Meta{})
	is(t, "an unknown question", err, registry.ErrNotFound)
	_, _, err = w.desk.AnswerEcosystem(ctx, wattlebird, "FP-1001", "ECO.2", yes, registry.Meta{})
	is(t, "no number", err, registry.ErrInvalid)
	m, rev, err := w.desk.AnswerEcosystem(ctx, wattlebird, "FP-1001", "ECO.1", yes, registry.Meta{})
	if err != nil || len(m.Questions) < 5 || m.Mark != certification.Unanswered {
		t.Fatalf("%+v, %v", m, err)
	}
	_, _, err = w.desk.AnswerEcosystem(ctx, wattlebird, "FP-1001", "ECO.1", yes, registry.Meta{IfMatch: rev + 100})
	is(t, "another revision", err, registry.ErrPrecondition)
	if _, _, err := w.desk.AnswerEcosystem(ctx, wattlebird, "FP-1001", "ECO.1", certification.Answer{Values: []string{"no"}}, registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	if m, _, err = w.desk.Ecosystem(assessor, "FP-1001"); err != nil || m.Mark != certification.Pass {
		t.Errorf("%+v, %v", m, err)
	}

	x := certification.ThreatAnalysis{Title: "t", Scope: "s", Threats: []certification.Threat{
		{Title: "small", Scenario: "s", Likelihood: "low", Impact: "low", Treatment: "accept"},
		{Title: "large", Scenario: "s", Likelihood: "high", Impact: "high", Treatment: "avoid"},
	}}
	_, _, err = w.desk.SubmitThreatAnalysis(ctx, kookaburra, "FP-1001", x, "")
	is(t, "another's product", err, registry.ErrNotFound)
	bad := x
	bad.Evidence = []string{"sha256:" + strings.Repeat("0", 64)}
	_, _, err = w.desk.SubmitThreatAnalysis(ctx, wattlebird, "FP-1001", bad, "")
	is(t, "evidence that was never sent", err, registry.ErrInvalid)
	a, _, err := w.desk.SubmitThreatAnalysis(ctx, wattlebird, "FP-1001", x, "")
	if err != nil || a.Body.Threats[0].Title != "large" {
		t.Fatalf("%+v, %v", a, err)
	}
	_, err = w.desk.ThreatAnalysis(kookaburra, a.ID)
	is(t, "reading another's", err, registry.ErrNotFound)
}

// What a machine found becomes evidence and findings; a finding that is open is
// not made twice.
func TestReports(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	results := []assurance.Result{
		{Check: "tls-1.3", Requirement: "OSF-EIT", Outcome: "pass", Say: "TLS 1.3"},
		{Check: "security-txt", Requirement: "OSF-BRN", Outcome: "fail", Say: "no security.txt"},
		{Check: "release-cadence", Requirement: "DEV-2", Outcome: "fail", Say: "too many releases"},
		{Check: "jwks", Requirement: "OSF-EKM", Outcome: "unknown", Say: "no key set was declared"},
	}
	r, _, err := w.desk.File(ctx, assessor, "FP-1001", "https://pay.example/", results)
	if err != nil || len(r.Body.Findings) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	e, f, err := w.desk.OpenEvidence(ctx, wattlebird, r.Body.Evidence)
	if err != nil || !slices.Equal(e.Body.Requirements, []string{"OSF-EIT"}) || e.Body.Type != certification.ScanReport {
		t.Fatalf("%+v, %v", e, err)
	}
	f.Close()
	w.now = w.now.Add(time.Second)
	again, _, err := w.desk.File(ctx, assessor, "FP-1001", "https://pay.example/", results)
	if err != nil || len(again.Body.Findings) != 0 {
		t.Errorf("the same again made %v, %v", again.Body.Findings, err)
	}
	_, _, err = w.desk.File(ctx, wattlebird, "FP-1001", "", results)
	is(t, "a developer files", err, registry.ErrForbidden)
}
