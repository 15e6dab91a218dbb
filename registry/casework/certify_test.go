package casework_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/sample"
)

var sign = casework.Declaration{Name: "Ada Applicant"}

// selfCertified takes a new product as far as SelfCertified for some services.
func (w *world) selfCertified(services ...string) (product string, own registry.Actor) {
	w.t.Helper()
	ctx := context.Background()
	product = w.admitted(newcomer, "Possum Bakery")
	own = developer(newcomer, "ada@possum.example")
	w.did(w.Begin(ctx, own, product, none))
	w.did(w.Describe(ctx, own, product, casework.Deployment{Commercial: true, Hosting: "onshore", Authentication: "passkeys", Services: services}, none))
	w.evidenced(own, product)
	w.answers(own, product, nil)
	w.did(w.SubmitCert(ctx, own, product, sign, none))
	return product, own
}

// verified verifies it, and approves what is of high risk.
func (w *world) verified(product string) {
	w.t.Helper()
	ctx := context.Background()
	w.did(w.StartVerification(ctx, assessor, product, nil, none))
	w.verifyAll(product)
}

// piloted takes it into the pilot; whitelisted through it.
func (w *world) piloted(services ...string) (product string, own registry.Actor) {
	w.t.Helper()
	ctx := context.Background()
	product, own = w.selfCertified(services...)
	w.verified(product)
	w.did(w.Conform(ctx, own, product, w.called(product, registry.EVTE, services...), none))
	w.did(w.ApproveHighRisk(ctx, assessor2, product, services, none))
	w.did(w.Pilot(ctx, assessor, product, casework.PilotTerms{Clients: []registry.ABN{sample.Possum}}, none))
	return product, own
}

func (w *world) whitelisted(services ...string) (product string, own registry.Actor) {
	w.t.Helper()
	ctx := context.Background()
	product, own = w.piloted(services...)
	w.did(w.PassScenario(ctx, own, product, w.called(product, registry.PROD, services...), none))
	w.did(w.Whitelist(ctx, assessor, product, nil, none))
	return product, own
}

func (w *world) state(product string) registry.CertState {
	return w.product(product).Certification.State
}

func prodApp(product string) string { return strings.ToLower(product) + "-prod" }

func TestFromSelfCertificationToTheWhitelist(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	const lodge, read = "as.0004.submit", "as.0004.get"
	product, own := w.selfCertified(lodge, read)
	if w.state(product) != registry.CertSelfCertified || w.serves(prodApp(product), lodge, sample.Possum) != "client-unknown" {
		t.Fatalf("self-certified: %s, %s", w.state(product), w.serves(prodApp(product), lodge, sample.Possum))
	}
	pilot := casework.PilotTerms{Clients: []registry.ABN{sample.Possum}}
	w.refused(registry.ErrState, "must be verified first (first-time registrant)")(w.Pilot(ctx, assessor, product, pilot, none))
	w.refused(registry.ErrState, "is SelfCertified; next may be")(w.Whitelist(ctx, assessor, product, nil, none))
	w.verified(product)
	w.refused(registry.ErrState, "no conformance run in EVTE has shown")(w.Pilot(ctx, assessor, product, pilot, none))

	// A run is judged from what was recorded, not from what is said.
	evil := w.called("FP-1003", registry.EVTE, read)
	prod := w.called(product, registry.PROD, read)
	w.did(w.Conform(ctx, own, product, slices.Concat(w.called(product, registry.EVTE, lodge), evil, prod, []string{"D-none"}), none))
	run := w.certification(product).Conformance[0]
	if !slices.Equal(run.Passed, []string{lodge}) || !slices.Equal(run.Missing, []string{read}) || len(run.Refused) != 3 {
		t.Errorf("judged: %+v", run)
	}
	w.did(w.Conform(ctx, own, product, w.called(product, registry.EVTE, read), none))
	w.refused(registry.ErrInvalid, "risk rating 3")(w.Pilot(ctx, assessor, product, pilot, none))
	w.did(w.ApproveHighRisk(ctx, assessor, product, []string{read}, none))
	w.refused(registry.ErrInvalid, "another assessor")(w.Pilot(ctx, assessor, product, pilot, none))
	w.did(w.ApproveHighRisk(ctx, assessor2, product, []string{read}, none))
	six := casework.PilotTerms{Clients: []registry.ABN{sample.Possum, sample.Galah, sample.Ironbark, sample.Mallee, sample.Lyrebird, sample.Banksia}}
	w.refused(registry.ErrInvalid, "named_clients")(w.Pilot(ctx, assessor, product, six, none))
	w.did(w.Pilot(ctx, assessor, product, pilot, none))
	if got := w.serves(prodApp(product), read, sample.Possum); got != "ok" {
		t.Errorf("the named client: %s", got)
	}
	if got := w.serves(prodApp(product), read, sample.Galah); got != "pvt-client-not-named" {
		t.Errorf("another client: %s", got)
	}

	w.refused(registry.ErrState, "the pilot has not shown")(w.Whitelist(ctx, assessor, product, nil, none))
	w.did(w.PassScenario(ctx, own, product, w.called(product, registry.PROD, lodge, read), none))
	w.refused(registry.ErrForbidden, "the assessor")(w.Whitelist(ctx, own, product, nil, none))
	w.did(w.Whitelist(ctx, assessor, product, nil, none))
	c := w.product(product).Certification
	if c.State != registry.CertWhitelisted || c.ValidUntil.Std().After(w.now().AddDate(0, 9, 1)) {
		t.Errorf("whitelisted beyond its evidence: %+v", c)
	}
	if got := w.serves(prodApp(product), read, sample.Galah); got != "ok" {
		t.Errorf("whitelisted: %s", got)
	}
	if got := w.serves(prodApp(product), "piitr.get", sample.Galah); got != "service-not-entitled" {
		t.Errorf("a service that was not asked for: %s", got)
	}
	// Its certificate ends after nine months, to the instant, whether anything runs or not.
	w.clock.Store(int64(time.Until(c.ValidUntil.Std()) - time.Minute))
	if got := w.serves(prodApp(product), read, sample.Galah); got != "ok" {
		t.Errorf("a minute before its end: %s", got)
	}
	w.clock.Add(int64(2 * time.Minute))
	if got := w.serves(prodApp(product), read, sample.Galah); got == "ok" {
		t.Error("served beyond its end")
	}
}

func TestASubmissionIsBlockedWithWhatToDo(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	product := w.admitted(newcomer, "Possum Bakery")
	own := developer(newcomer, "ada@possum.example")
	w.refused(registry.ErrInvalid, "/services")(w.SubmitCert(ctx, own, product, sign, none))
	w.did(w.Describe(ctx, own, product, casework.Deployment{Commercial: true, Services: []string{"as.0004.submit"}}, none))
	w.evidenced(own, product)
	w.answers(own, product, map[string]string{"OSF-AUT.1": "no", "OSF-AUD.1": "no"})
	c := w.certification(product)
	m, _, err := w.Marking(w.book(), &c, w.product(product), w.now())
	must(t, err)
	failed := map[string]bool{}
	for _, r := range m.Requirements {
		if r.Mark == certification.Fail {
			failed[r.Requirement] = true
		}
	}
	if !failed["OSF-AUT"] || !failed["OSF-AUD"] || m.Mark != certification.Fail {
		t.Errorf("marked %s; failed: %v", m.Mark, failed)
	}
	_, err = w.SubmitCert(ctx, own, product, sign, none)
	if err == nil || !strings.Contains(err.Error(), "/answers/OSF-AUT.1") || !strings.Contains(err.Error(), "/answers/OSF-AUD.1") {
		t.Errorf("submitted: %v", err)
	}
	if w.state(product) != registry.CertDraft {
		t.Errorf("blocked, and %s", w.state(product))
	}
	w.refused(registry.ErrInvalid, "/answers/XX.1")(w.Answer(ctx, own, product, map[string]certification.Answer{"XX.1": {Values: []string{"yes"}}}, none))
	w.refused(registry.ErrInvalid, "/answers/OSF-AUT.1/values")(w.Answer(ctx, own, product, map[string]certification.Answer{"OSF-AUT.1": {Values: []string{"maybe"}}}, none))
	w.did(w.Answer(ctx, own, product, map[string]certification.Answer{"OSF-AUT.1": {}, "OSF-AUD.1": {}}, none)) // taken back
	w.answers(own, product, nil)
	w.did(w.SubmitCert(ctx, own, product, sign, none))
}

func TestAFindingThatIsNotPutRightRestrictsThenSuspendsAndIsReinstated(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	const lodge, read = "as.0004.submit", "as.0004.get"
	product, _ := w.whitelisted(lodge, read)
	app := prodApp(product)
	f, _, err := w.assurance.RaiseFinding(ctx, assessor, product, assurance.Raise{Requirement: "DEV-2", Text: "Tickets are not answered."}, "")
	must(t, err)
	w.pass(31 * day)
	if w.state(product) != registry.CertRestricted || w.serves(app, lodge, 0) != "ok" || w.serves(app, read, 0) != "product-restricted" {
		t.Fatalf("overdue: %s; lodge %s, read %s", w.state(product), w.serves(app, lodge, 0), w.serves(app, read, 0))
	}
	w.refused(registry.ErrState, "findings are open")(w.Whitelist(ctx, assessor, product, nil, none))
	w.pass(28 * day)
	if got := w.serves(app, lodge, 0); got == "ok" {
		t.Error("the notice took effect, and calls pass")
	}
	w.refused(registry.ErrState, "findings are open")(w.Reinstate(ctx, assessor, product, none))
	_, _, err = w.assurance.CloseFinding(ctx, assessor, f.ID, "they are answered now", none)
	must(t, err)
	w.did(w.Reinstate(ctx, assessor, product, none))
	if w.state(product) != registry.CertWhitelisted || w.serves(app, read, 0) != "ok" {
		t.Errorf("reinstated: %s, %s", w.state(product), w.serves(app, read, 0))
	}
	w.refused(registry.ErrState, "nothing is announced")(w.Reinstate(ctx, assessor, product, none))
}

func TestTheAnnualReviewIsAnsweredOrEndsInASuspension(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	const lodge = "as.0004.submit"
	product, own := w.whitelisted(lodge)
	app := prodApp(product)
	until := w.product(product).Certification.ValidUntil
	w.pass(until.Std().Sub(w.now()) - 27*day) // four weeks before its evidence ends
	if w.state(product) != registry.CertReviewDue || w.serves(app, lodge, 0) != "ok" {
		t.Fatalf("%s, %s", w.state(product), w.serves(app, lodge, 0))
	}
	w.refused(registry.ErrState, "the review is not answered")(w.Whitelist(ctx, assessor, product, nil, none))
	w.did(w.AnswerCertReview(ctx, own, product, "As before; the new certificate is attached.", none))
	w.evidenced(own, product)
	w.did(w.Whitelist(ctx, assessor, product, nil, none))
	if got := w.product(product).Certification; got.State != registry.CertWhitelisted || got.ValidUntil <= until-registry.Time(27*24*3600*1000) {
		t.Errorf("approved again: %+v, until %s before", got, until)
	}
	w.did(w.RequestReview(ctx, assessor, product, registry.Meta{Reason: "telemetry"}))
	w.pass(28*day + time.Minute)
	if w.certification(product).NoticeID == "" {
		t.Error("not answered, and nothing is announced")
	}
	w.pass(28*day + time.Minute)
	if w.certification(product).SuspensionID == "" || w.serves(app, lodge, 0) == "ok" {
		t.Errorf("not answered: %s", w.serves(app, lodge, 0))
	}
}

func TestAMaterialChangeReopensWhatItMust(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	const lodge, read = "as.0004.submit", "as.0004.get"
	product, own := w.whitelisted(lodge)
	before := w.certification(product)
	dep := before.Deployment
	dep.Services = []string{lodge, read}
	w.did(w.TellCertChange(ctx, own, product, dep, none))
	c := w.certification(product)
	if before.Category == c.Category || len(c.Reopened) == 0 || len(c.Material) == 0 {
		t.Fatalf("a service of rating 3: category %s to %s, reopened %v", before.Category, c.Category, c.Reopened)
	}
	if w.state(product) != registry.CertWhitelisted || w.serves(prodApp(product), lodge, 0) != "ok" || w.serves(prodApp(product), read, 0) != "service-not-entitled" {
		t.Errorf("meanwhile: lodge %s, read %s", w.serves(prodApp(product), lodge, 0), w.serves(prodApp(product), read, 0))
	}
	w.refused(registry.ErrState, "requirements are open")(w.Whitelist(ctx, assessor, product, []string{lodge, read}, none))
	w.answers(own, product, nil)
	w.did(w.SubmitCert(ctx, own, product, sign, none))
	w.refused(registry.ErrState, "no conformance run")(w.Whitelist(ctx, assessor, product, []string{lodge, read}, none))
	w.did(w.Conform(ctx, own, product, w.called(product, registry.EVTE, lodge, read), none))
	w.did(w.Whitelist(ctx, assessor, product, []string{lodge, read}, none))
	if got := w.serves(prodApp(product), read, 0); got != "ok" {
		t.Errorf("approved: %s", got)
	}
}

func TestGrandfatheringOwesAndLapses(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	product := w.admitted(newcomer, "Possum Bakery")
	own := developer(newcomer, "ada@possum.example")
	terms := casework.InterimTerms{Basis: "grandfathered", Owed: []string{"OSF-CER", "OSF-AUT"}}
	w.refused(registry.ErrInvalid, "/basis")(w.Interim(ctx, assessor, product, casework.InterimTerms{Basis: "conditional", Owed: terms.Owed}, []string{"as.0004.submit"}, none))
	w.did(w.Interim(ctx, assessor, product, terms, []string{"as.0004.submit"}, none))
	app := prodApp(product)
	if w.state(product) != registry.CertInterim || w.serves(app, "as.0004.submit", 0) != "ok" {
		t.Fatalf("%s, %s", w.state(product), w.serves(app, "as.0004.submit", 0))
	}
	w.refused(registry.ErrState, "requirements are open: OSF-CER, OSF-AUT")(w.Whitelist(ctx, assessor, product, nil, none))
	_ = own
	w.pass(190 * day)
	if got := w.serves(app, "as.0004.submit", 0); got == "ok" {
		t.Error("an interim approval goes on beyond its end")
	}
}

func TestVerificationAndExceptionTakeTwoPeopleAndNoOpenFinding(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	product, own := w.selfCertified("as.0004.submit")
	w.refused(registry.ErrInvalid, "/requirements/0")(w.StartVerification(ctx, assessor, product, []string{"NO-1"}, none))
	w.did(w.StartVerification(ctx, assessor, product, []string{"OSF-AUT", "OSF-AUD"}, none))
	if w.state(product) != registry.CertInVerification {
		t.Errorf("verifying: %s", w.state(product))
	}
	w.refused(registry.ErrState, "is InVerification")(w.StartVerification(ctx, assessor, product, nil, none))
	w.did(w.Conform(ctx, own, product, w.called(product, registry.EVTE, "as.0004.submit"), none))
	pilot := casework.PilotTerms{Clients: []registry.ABN{sample.Possum}}
	w.refused(registry.ErrState, "is open")(w.Pilot(ctx, assessor, product, pilot, none))
	findings := w.verifyAll(product, "OSF-AUT")
	w.refused(registry.ErrState, "findings are open: "+findings[0])(w.Pilot(ctx, assessor, product, pilot, none))
	w.did(w.SendBack(ctx, assessor, product, registry.Meta{Reason: "see the finding"}))
	if w.state(product) != registry.CertDraft {
		t.Errorf("sent back: %s", w.state(product))
	}
	e := certification.Exception{Requirement: "OSF-AUT", Control: "Hardware tokens at the door.", Expires: w.now().AddDate(0, 6, 0)}
	w.did(w.RequestException(ctx, own, product, e, none))
	w.refused(registry.ErrForbidden, "the assessor")(w.ApproveException(ctx, own, product, "OSF-AUT", none))
	w.did(w.ApproveException(ctx, assessor, product, "OSF-AUT", none))
	w.did(w.RequestException(ctx, assessor, product, e, none))
	w.refused(registry.ErrForbidden, "cannot approve it")(w.ApproveException(ctx, assessor, product, "OSF-AUT", none))

	// Submitted again, it is verified again.
	w.did(w.SubmitCert(ctx, own, product, sign, none))
	_, _, err := w.assurance.CloseFinding(ctx, assessor2, findings[0], "seen", none)
	must(t, err)
	w.refused(registry.ErrState, "must be verified first")(w.Pilot(ctx, assessor, product, pilot, none))
}

func TestDelistedIsTheEnd(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	product, own := w.whitelisted("as.0004.submit")
	w.refused(registry.ErrInvalid, "/reason")(w.Delist(ctx, assessor, product, none))
	w.did(w.Delist(ctx, assessor, product, registry.Meta{Reason: "remediation failed"}))
	if w.state(product) == registry.CertDelisted || w.certification(product).Ending == nil {
		t.Fatal("one person delisted it")
	}
	w.refused(registry.ErrForbidden, "second person")(w.Delist(ctx, assessor, product, registry.Meta{Reason: "remediation failed"}))
	w.pass(8 * 24 * time.Hour) // a proposal that nobody confirmed is none
	w.did(w.Delist(ctx, assessor2, product, registry.Meta{Reason: "remediation failed"}))
	w.did(w.Delist(ctx, assessor, product, registry.Meta{Reason: "so it is"}))
	w.refused(registry.ErrState, "end state")(w.Whitelist(ctx, assessor, product, nil, none))
	w.refused(registry.ErrState, "end state")(w.SubmitCert(ctx, own, product, sign, none))
	if got := w.serves(prodApp(product), "as.0004.submit", 0); got == "ok" {
		t.Error("served although delisted")
	}
	w.pass(800 * day)
	if w.state(product) != registry.CertDelisted {
		t.Errorf("time brought it back: %s", w.state(product))
	}
}

func TestProductsFromBeforeThereWereCasesAreWorkedOnToo(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	w.did(w.Restrict(ctx, assessor, "FP-1003", 2, nil, registry.Meta{Reason: "incident"}))
	if got := w.serves("fp-1003-prod", "piitr.get", 0); got != "product-restricted" {
		t.Errorf("restricted: %s", got)
	}
	w.did(w.Reinstate(ctx, assessor, "FP-1003", none))
	if got := w.serves("fp-1003-prod", "piitr.get", 0); got != "ok" {
		t.Errorf("reinstated: %s", got)
	}
	w.did(w.Announce(ctx, assessor, "FP-1002", 0, registry.Meta{Reason: "support has ended"}))
	w.pass(28*day + time.Minute)
	if got := w.serves("fp-1002-prod", "as.0004.submit", 0); got == "ok" {
		t.Error("announced, and not suspended")
	}
	w.did(w.Reinstate(ctx, assessor, "FP-1002", none))
	if got := w.serves("fp-1002-prod", "as.0004.submit", 0); got != "ok" {
		t.Errorf("reinstated: %s", got)
	}
}

// A review of a restricted product gives nothing back, nor does a finding that
// comes due: only who saw it mended does.
func TestAReviewLeavesARestrictionAsItIs(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	because := registry.Meta{Reason: "a leak"}
	w.did(w.Restrict(ctx, assessor, "FP-1003", 1, nil, because))
	w.did(w.RequestReview(ctx, assessor, "FP-1003", because))
	if s := w.product("FP-1003").Certification; s.State != registry.CertReviewDue || s.MaxRisk != 1 {
		t.Errorf("a review made of it %+v", s)
	}
	if got := w.serves("fp-1003-prod", "as.0004.submit", sample.Possum); got != "product-restricted" {
		t.Errorf("a call of rating 2 is %s", got)
	}
	_, _, err := w.assurance.RaiseFinding(ctx, assessor, "FP-1003", assurance.Raise{Requirement: "DEV-2", Text: "No answers.", Due: registry.At(w.now().Add(time.Hour))}, "")
	must(t, err)
	w.pass(2 * time.Hour)
	if s := w.product("FP-1003").Certification; s.State != registry.CertRestricted || s.MaxRisk != 1 {
		t.Errorf("a finding that came due made of it %+v", s)
	}
}
