package casework_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/edition"
	"github.com/dspgate/dspgate/registry/outbox"
	"github.com/dspgate/dspgate/registry/sample"
)

// nextCatalogue is the embedded catalogue as a next version: audit logging is
// revised, and source-code review is new, with 10 days of grace of its own.
func nextCatalogue(t testing.TB, version string, effective time.Time, graceDays int) edition.Edition {
	t.Helper()
	read := func(name string) string {
		b, err := os.ReadFile("../certification/data/" + name)
		must(t, err)
		return string(b)
	}
	swap := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("the embedded data has no %q", old)
		}
		return strings.Replace(s, old, new, 1)
	}
	c := read("catalogue-2026.1.yaml")
	c = swap(c, `version: "2026.1"`, `version: "`+version+`"`)
	c = swap(c, "effective: 2026-01-01", "effective: "+effective.UTC().Format(time.DateOnly))
	c = swap(c, "grace_days: 90", fmt.Sprintf("grace_days: %d", graceDays))
	c = swap(c, "  - id: OSF-AUD\n    title: Audit logging\n    revision: 1", "  - id: OSF-AUD\n    title: Audit logging\n    revision: 2")
	c += `
  - id: OSF-SRC
    title: Source-code review
    revision: 1
    grace_days: 10
    subject: product
    levels:
      - strength: required
        minimum: Each change is read by somebody other than its author.
        evidence: [policy]
    how: [Turn on reviews where the code is kept.]
    sources: [D]
`
	q := read("questionnaire-self-certification-2026.1.yaml")
	q = swap(q, "version: \"2026.1\"\ncatalogue: \"2026.1\"", "version: \""+version+"\"\ncatalogue: \""+version+"\"")
	q += `
  - id: OSF-SRC.1
    requirement: OSF-SRC
    text: Is each change read by somebody other than its author?
    kind: yes-no
    marks:
      - {when: {fact: answer, in: ["no"]}, mark: fail, say: "Have each change read by somebody else."}
`
	return edition.Edition{Of: edition.Catalogue, Catalogue: c, Questionnaire: q}
}

// mails are the subjects of what was queued about a case, in order.
func (w *world) mails(about string) (subjects []string) {
	for id := range w.book().All(registry.Query{Kind: "message", Where: []registry.Where{{Index: "about", Value: about}}}) {
		c, err := registry.CaseOf[outbox.Message](w.book(), id)
		must(w.t, err)
		subjects = append(subjects, c.Body.Subject)
	}
	return subjects
}

func (w *world) reach(id string) casework.Reach {
	w.t.Helper()
	c, err := registry.CaseOf[casework.Reach](w.book(), id)
	must(w.t, err)
	return c.Body
}

func TestACatalogueEditionReopensWhatItAsksAnewAndNothingElse(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	product, own := w.whitelisted("as.0004.submit")
	effective := w.now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 30)
	next := nextCatalogue(t, "2027.1", effective, 60)

	w.refused(registry.ErrForbidden, "for the assessor or the registrar")(w.ProposeEdition(ctx, own, next, none))
	bad := next
	bad.Questionnaire = strings.Replace(bad.Questionnaire, `catalogue: "2027.1"`, `catalogue: "2026.1"`, 1)
	w.refused(registry.ErrInvalid, "the questionnaire is")(w.ProposeEdition(ctx, assessor, bad, none))
	bad = next
	bad.Catalogue = "version: &a [x]\n" + bad.Catalogue
	w.refused(registry.ErrInvalid, "anchors")(w.ProposeEdition(ctx, assessor, bad, none))
	w.refused(registry.ErrInvalid, "past")(w.ProposeEdition(ctx, assessor, nextCatalogue(t, "2027.1", w.now().AddDate(0, 0, -3), 60), none))

	w.did(w.ProposeEdition(ctx, assessor, next, none))
	w.refused(registry.ErrState, "proposed already")(w.ProposeEdition(ctx, assessor, next, none))
	c, err := registry.CaseOf[edition.Edition](w.book(), "catalogue-2027.1")
	must(t, err)
	all, total, err := w.PreviewEdition(ctx, w.book(), c, 0, 100)
	must(t, err)
	i := slices.IndexFunc(all, func(a casework.Affected) bool { return a.ProductID == product })
	if total != len(all) || i < 0 || len(all[i].Reopens) != 2 || all[i].DueBy.Std() != effective.AddDate(0, 0, 10) {
		t.Fatalf("the preview: %d of %d, %+v", len(all), total, all)
	}
	if len(w.certification(product).Reopened) != 0 {
		t.Fatal("a preview reopened something")
	}

	// Two people; then it is told of, and takes effect by itself on its day.
	w.refused(registry.ErrForbidden, "cannot publish it")(w.PublishEdition(ctx, assessor, c.ID, none))
	w.did(w.PublishEdition(ctx, assessor2, c.ID, none))
	w.refused(registry.ErrState, "published")(w.PublishEdition(ctx, registrar, c.ID, none))
	w.pass(time.Minute)
	if got := w.mails("certification/" + product); !strings.Contains(fmt.Sprint(got), "new requirements from "+effective.Format("2 January 2006")) {
		t.Errorf("told: %v", got)
	}
	if w.reach(c.ID).Phase != "reopen" || len(w.certification(product).Reopened) != 0 {
		t.Errorf("before its day: %+v", w.reach(c.ID))
	}
	w.pass(30 * 24 * time.Hour)
	x := w.certification(product)
	if !slices.Equal(x.Reopened, []string{"OSF-AUD", "OSF-SRC"}) || x.Catalogue != "2027.1" || x.ShowBy["OSF-AUD"].Std() != effective.AddDate(0, 0, 60) {
		t.Fatalf("reopened: %v, %v of %s", x.Reopened, x.ShowBy, x.Catalogue)
	}
	for id := range x.Answers {
		if strings.HasPrefix(id, "OSF-AUD") {
			t.Errorf("%s counts as answered, to an earlier version", id)
		}
	}
	if got := w.serves(prodApp(product), "as.0004.submit", sample.Galah); got != "ok" || w.state(product) != registry.CertWhitelisted {
		t.Errorf("within the grace period: %s, %s", w.state(product), got)
	}
	if r := w.reach(c.ID); r.Phase != "done" || r.Reopened == 0 || r.Announced == 0 {
		t.Errorf("reach: %+v", r)
	}

	// What is due first must be shown; what has longer may wait, and is due then.
	w.refused(registry.ErrInvalid, "OSF-SRC")(w.SubmitCert(ctx, own, product, sign, none))
	w.did(w.Answer(ctx, own, product, map[string]certification.Answer{"OSF-SRC.1": {Values: []string{"yes"}}}, none))
	w.did(w.SubmitCert(ctx, own, product, sign, none))
	if x = w.certification(product); !slices.Equal(x.Reopened, []string{"OSF-AUD"}) {
		t.Fatalf("still reopened: %v", x.Reopened)
	}
	w.answers(own, product, nil)
	w.did(w.SubmitCert(ctx, own, product, sign, none))
	if x = w.certification(product); len(x.Reopened) != 0 || len(x.ShowBy) != 0 || slices.ContainsFunc(x.CaseDues(), func(d registry.Due) bool { return d.What == "reopened" }) {
		t.Errorf("shown again: %v, %v", x.Reopened, x.Dues)
	}

	// Another, entered before there were cases, never shows it: review, then suspended.
	const late = "FP-1003"
	if y := w.certification(late); len(y.Reopened) == 0 || y.Catalogue != "2027.1" {
		t.Fatalf("%s: %+v", late, y)
	}
	w.pass(12 * 24 * time.Hour)
	if w.state(late) != registry.CertReviewDue {
		t.Errorf("%s is %s after its grace period", late, w.state(late))
	}
	w.pass(28 * 24 * time.Hour)
	w.pass(29 * 24 * time.Hour)
	if got := w.serves(prodApp(late), "as.0004.submit", sample.Galah); got != fmt.Sprint(registry.ProductSuspended) {
		t.Errorf("%s after notice: %s", late, got)
	}
	if got := w.serves(prodApp(product), "as.0004.submit", sample.Galah); got != "ok" {
		t.Errorf("who showed it in time: %s", got)
	}
}

func TestADraftGoesOnWithTheVersionInForce(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	product := w.admitted(newcomer, "Possum Bakery")
	own := developer(newcomer, "ada@possum.example")
	w.did(w.Begin(ctx, own, product, none))
	w.did(w.Describe(ctx, own, product, casework.Deployment{Commercial: true, Services: []string{"as.0004.submit"}}, none))
	w.evidenced(own, product)
	w.answers(own, product, nil)
	w.did(w.ProposeEdition(ctx, assessor, nextCatalogue(t, "2027.1", w.now(), 0), none))
	w.did(w.PublishEdition(ctx, registrar, "catalogue-2027.1", none))
	w.pass(time.Minute)
	w.refused(registry.ErrInvalid, "Not answered yet")(w.SubmitCert(ctx, own, product, sign, none))
	w.answers(own, product, nil)
	w.did(w.SubmitCert(ctx, own, product, sign, none))
	if w.certification(product).Catalogue != "2027.1" {
		t.Error("certified against an old version")
	}
}

// An edition reaches everybody once, whatever fails on the way.
func TestAnEditionReachesEverybodyOnce(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	var many []any
	for i := range 700 {
		many = append(many, registry.Product{
			ID: fmt.Sprintf("FP-%d", 5000+i), Name: "Mass", Owner: sample.Kookaburra, Scenario: 5,
			Certification: registry.Certification{State: registry.CertWhitelisted, ValidFrom: registry.At(w.now().AddDate(0, -1, 0)), ValidUntil: registry.At(w.now().AddDate(0, 6, 0))},
		})
	}
	if _, err := w.reg.Import(ctx, sample.Actor(), many, none); err != nil {
		t.Fatal(err)
	}
	w.did(w.ProposeEdition(ctx, assessor, nextCatalogue(t, "2027.1", w.now().AddDate(0, 0, 2), 30), none))
	w.did(w.PublishEdition(ctx, assessor2, "catalogue-2027.1", none))
	fire := w.Timers()
	reach := fire["reach"]
	failing := errors.New("killed")
	r := rand.New(rand.NewPCG(1, 2))
	fire["reach"] = func(t *registry.Tx, id string, due registry.Due) error {
		if err := reach(t, id, due); err != nil || r.IntN(2) == 0 {
			return errors.Join(err, failing) // planned, and never committed
		}
		return nil
	}
	w.clock.Add(int64(3 * 24 * time.Hour))
	for n := 0; w.reach("catalogue-2027.1").Phase != "done"; n++ {
		if _, err := w.reg.FireDue(ctx, fire); err != nil && !errors.Is(err, registry.ErrUnavailable) {
			t.Fatal(err)
		}
		if n == 10_000 {
			t.Fatalf("never done: %+v", w.reach("catalogue-2027.1"))
		}
	}
	for i := range 700 {
		id := fmt.Sprintf("FP-%d", 5000+i)
		if got := w.mails("certification/" + id); len(got) != 2 {
			t.Fatalf("%s was told %v", id, got)
		}
		steps := 0
		for _, s := range w.certification(id).Steps {
			if s.Command == "certification.catalogue-changed" {
				steps++
			}
		}
		if steps != 1 {
			t.Fatalf("%s was reopened %d times", id, steps)
		}
	}
}

func TestNewTermsAreAcceptedOrEndInASuspension(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	w.admitted(newcomer, "Possum Bakery")
	own := developer(newcomer, "ada@possum.example")
	terms := edition.Edition{Of: edition.TermsOf, Version: "2027.1", Effective: registry.At(w.now().AddDate(0, 0, 7)), GraceDays: 14, Terms: &edition.Terms{Terms: "We tell sooner.", Declaration: "It is true."}}
	w.did(w.ProposeEdition(ctx, registrar, terms, none))
	w.refused(registry.ErrForbidden, "cannot publish")(w.PublishEdition(ctx, registrar, "terms-2027.1", none))
	w.did(w.PublishEdition(ctx, assessor, "terms-2027.1", none))
	w.pass(time.Minute)
	early := casework.Acceptance{Version: "2027.1", Name: "Ada"}
	w.refused(registry.ErrInvalid, "in force are 2026.1")(w.AcceptTerms(ctx, own, newcomer, early, none))
	w.pass(7 * 24 * time.Hour)
	if w.Terms().Version != "2027.1" || w.Terms().Terms != "We tell sooner." {
		t.Fatalf("in force: %+v", w.Terms())
	}
	if !strings.Contains(fmt.Sprint(w.mails("registration/"+newcomer.String())), "New terms from") {
		t.Error("nobody was told")
	}
	w.refused(registry.ErrNotFound, "")(w.AcceptTerms(ctx, developer(sample.Galah, "dev@galah.example"), newcomer, early, none))
	w.pass(15 * 24 * time.Hour) // not accepted: announced
	w.pass(29 * 24 * time.Hour)
	if got := w.serves("fp-1003-prod", "as.0004.submit", sample.Galah); got != fmt.Sprint(registry.EntitySuspended) {
		t.Errorf("an entity that never accepted: %s", got)
	}
	w.did(w.AcceptTerms(ctx, own, newcomer, early, none))
	w.did(w.AcceptTerms(ctx, registrar, sample.Kookaburra, early, none))
	if got := w.serves("fp-1003-prod", "as.0004.submit", sample.Galah); got != "ok" {
		t.Errorf("after accepting: %s", got)
	}
	n := len(w.mails("registration/" + newcomer.String()))
	w.pass(60 * 24 * time.Hour)
	if r := w.registration(newcomer); r.TermsNotice != "" || len(w.mails("registration/"+newcomer.String())) != n || r.Accepted[len(r.Accepted)-1].Version != "2027.1" {
		t.Errorf("goes on after it was accepted: %+v", r)
	}
}
