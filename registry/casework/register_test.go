package casework_test

import (
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/sample"
)

const day = 24 * time.Hour

func TestRegistrationOpensTheTestEnvironmentsAndNothingElse(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	who := developer(0, "ada@possum.example")
	w.did(w.Apply(ctx, who, newcomer, form("Possum Bakery"), none))
	if got := w.entity(newcomer); got != registry.EntityDraft {
		t.Fatalf("applied: %s", got)
	}
	w.refused(registry.ErrForbidden, "registrar")(w.Admit(ctx, who, newcomer, none))
	w.refused(registry.ErrState, "is Draft; next may be revise, submit, cancel")(w.Admit(ctx, registrar, newcomer, none))
	w.refused(registry.ErrInvalid, "2026.1")(w.Submit(ctx, who, newcomer, casework.Acceptance{Version: "2025", Name: "Ada"}, none))
	w.refused(registry.ErrNotFound, "")(w.Submit(ctx, developer(0, "eve@other.example"), newcomer, accepted, none))
	w.did(w.Submit(ctx, who, newcomer, accepted, none))
	w.until("all checks are made", func() bool { return len(w.open(newcomer)) == 0 })
	if got := w.entity(newcomer); got != registry.EntityChecking {
		t.Fatalf("checked: %s", got)
	}
	w.did(w.Admit(ctx, registrar, newcomer, none))
	r := w.registration(newcomer)
	p := w.product(r.Product)
	if p.Owner != newcomer || p.Certification.State != registry.CertDraft {
		t.Errorf("the product stated: %+v", p)
	}
	id := "fp-" + p.ID[3:]
	for app, want := range map[string]string{id + "-sandbox": "ok", id + "-evte": "ok", id + "-prod": "client-unknown"} {
		if got := w.serves(app, "as.0004.submit", 0); got != want {
			t.Errorf("%s: %s, want %s", app, got, want)
		}
	}
	for _, e := range p.Entitlements {
		if e.Environment == registry.PROD {
			t.Errorf("entitled in production: %+v", e)
		}
	}
	if e := w.book().View.Entity(newcomer); len(e.Checks) != 4 || len(e.Roles) != 2 {
		t.Errorf("what the register shows: %+v", e)
	}
	for _, c := range r.Clocks {
		if c.Ended == 0 || c.Ended > c.Due {
			t.Errorf("a clock was not met: %+v", c)
		}
	}
	if n := len(r.Steps); n < 8 || r.Steps[n-1].By != "registrar" || r.Steps[n-1].From != "Checking" || r.Steps[n-1].To != "Registered" {
		t.Errorf("steps: %+v", r.Steps)
	}
}

func TestASubmissionNeedsEverythingThatIsAskedFor(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	for field, spoil := range map[string]func(*casework.Form){
		"/roles":                     func(f *casework.Form) { f.Roles = nil },
		"/applicant/authority":       func(f *casework.Form) { f.Applicant.Authority = "" },
		"/applicant/authority_refer": func(f *casework.Form) { f.Applicant.Authority = "agent" },
		"/principals":                func(f *casework.Form) { f.Principals = nil },
		"/principals/0/consented_at": func(f *casework.Form) { f.Principals[0].Consented = 0 },
		"/contacts":                  func(f *casework.Form) { f.Contacts = f.Contacts[1:] },
		"/purpose":                   func(f *casework.Form) { f.Purpose = " " },
		"/intent":                    func(f *casework.Form) { f.Intent = "" },
	} {
		f := form("Possum Bakery")
		spoil(&f)
		if _, err := w.Apply(ctx, registrar, newcomer, f, none); err == nil {
			w.refused(registry.ErrInvalid, field)(w.Submit(ctx, registrar, newcomer, accepted, none))
			w.did(w.CancelEntity(ctx, registrar, newcomer, registry.Meta{Reason: "test"}))
			w.refused(registry.ErrForbidden, "second person")(w.CancelEntity(ctx, registrar, newcomer, registry.Meta{Reason: "test"}))
			w.did(w.CancelEntity(ctx, registrar2, newcomer, registry.Meta{Reason: "test"}))
		} else {
			t.Errorf("%s: a draft may lack it: %v", field, err)
		}
		w = newWorld(t, nil)
	}
	f := form("Possum Bakery")
	f.Purpose = "for 123 456 782" // a tax file number
	w.refused(registry.ErrInvalid, "tax file number")(w.Apply(ctx, registrar, newcomer, f, none))
}

func TestACheckerThatIsDownIsWaitedForAndSaidSo(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	w.checks.set(true)
	w.did(w.Apply(ctx, registrar, newcomer, form("Possum Bakery"), none))
	w.did(w.Submit(ctx, registrar, newcomer, accepted, none))
	waiting := func() (n int) {
		for _, c := range w.registration(newcomer).Checks {
			if c.State == casework.CheckToAsk && c.Problem != "" && c.Retry > registry.At(w.now()) {
				n++
			}
		}
		return n
	}
	w.until("every check says that it waits", func() bool { return waiting() == 10 })
	if got := w.entity(newcomer); got != registry.EntityChecking {
		t.Errorf("it is %s while the checker is down", got)
	}
	w.refused(registry.ErrState, "10 checks are not satisfied")(w.Admit(ctx, registrar, newcomer, none))
	w.checks.set(false)
	w.pass(16 * time.Minute)
	w.until("it was asked again", func() bool { return len(w.open(newcomer)) == 0 })
}

func TestAnAgencyWithoutACheckerRecordsOutcomesByHand(t *testing.T) {
	w := newWorld(t, casework.Manual{})
	ctx := t.Context()
	w.did(w.Apply(ctx, registrar, newcomer, form("Possum Bakery"), none))
	w.did(w.Submit(ctx, registrar, newcomer, accepted, none))
	w.until("all wait for a registrar", func() bool {
		n := 0
		for _, c := range w.registration(newcomer).Checks {
			if c.State == casework.CheckAsked {
				n++
			}
		}
		return n == 10
	})
	for _, c := range w.registration(newcomer).Checks {
		o := casework.CheckOutcome{Check: c.Name, Subject: c.Subject, Outcome: casework.Passed, Source: "seen"}
		w.refused(registry.ErrForbidden, "registrar")(w.RecordCheck(ctx, assessor, newcomer, o, none))
		w.did(w.RecordCheck(ctx, registrar, newcomer, o, none))
	}
	w.refused(registry.ErrInvalid, "/check")(w.RecordCheck(ctx, registrar, newcomer, casework.CheckOutcome{Check: "x", Subject: "entity", Outcome: casework.Passed, Source: "s"}, none))
	w.did(w.Admit(ctx, registrar, newcomer, none))
}

func TestWhoIsRejectedMayApplyAgainAndIsSeenToShareContacts(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	w.checks.set(false, "authority")
	w.did(w.Apply(ctx, registrar, newcomer, form("Possum Bakery"), none))
	w.did(w.Submit(ctx, registrar, newcomer, accepted, none))
	w.until("the checks are made", func() bool { return len(w.open(newcomer)) == 1 })
	w.refused(registry.ErrState, "authority of entity is failed")(w.Admit(ctx, registrar, newcomer, none))
	w.refused(registry.ErrInvalid, "/trigger")(w.Reject(ctx, registrar, newcomer, "because", none))
	w.did(w.Reject(ctx, registrar, newcomer, casework.NotAuthorised, none))
	if got := w.entity(newcomer); got != registry.EntityRejected {
		t.Fatalf("rejected: %s", got)
	}
	if w.registration(newcomer).Product != "" {
		t.Error("a product was made for one who was rejected")
	}
	w.checks.set(false)
	w.did(w.Apply(ctx, registrar, newcomer, form("Possum Bakery"), none))
}

func TestAQuestionStopsTheAgencysClockAndNoReplyMakesItADraft(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	w.did(w.Apply(ctx, registrar, newcomer, form("Possum Bakery"), none))
	w.did(w.Submit(ctx, registrar, newcomer, accepted, none))
	w.until("the checks are made", func() bool { return len(w.open(newcomer)) == 0 })
	w.did(w.Ask(ctx, registrar, newcomer, "Who are the bakeries?", none))
	running := func() (names []string) {
		for _, c := range w.registration(newcomer).Clocks {
			if c.Ended == 0 {
				names = append(names, c.On+" "+c.Name)
			}
		}
		return names
	}
	if got := running(); len(got) != 1 || got[0] != "applicant reply" {
		t.Errorf("clocks: %v", got)
	}
	w.did(w.Reply(ctx, registrar, newcomer, "All of them.", none))
	if got := running(); len(got) != 1 || got[0] != "agency decide" {
		t.Errorf("clocks: %v", got)
	}
	w.refused(registry.ErrState, "no question")(w.Reply(ctx, registrar, newcomer, "More.", none))
	w.did(w.Ask(ctx, registrar, newcomer, "And who else?", none))
	w.pass(15 * day)
	if got := w.entity(newcomer); got != registry.EntityDraft {
		t.Errorf("no reply in time: %s", got)
	}
}

func TestAReviewThatIsNotAnsweredLapses(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	w.admitted(newcomer, "Possum Bakery")
	w.pass(365*day + time.Hour)
	r := w.registration(newcomer)
	if r.Review.Opened == 0 || w.entity(newcomer) != registry.EntityRegistered {
		t.Fatalf("after a year: %s, %+v", w.entity(newcomer), r.Review)
	}
	w.did(w.AnswerReview(ctx, registrar, newcomer, "All as it was.", none))
	w.refused(registry.ErrState, "no review")(w.AnswerReview(ctx, registrar, newcomer, "Again.", none))
	w.until("the checks that expired are made again", func() bool { return len(w.open(newcomer)) == 0 })
	w.pass(29 * day)
	if got := w.entity(newcomer); got != registry.EntityRegistered {
		t.Errorf("answered: %s", got)
	}
	w.pass(365 * day)
	w.pass(29 * day)
	if got := w.entity(newcomer); got != registry.EntityLapsed {
		t.Errorf("not answered: %s", got)
	}
	if got := w.serves("fp-"+r.Product[3:]+"-evte", "as.0004.submit", 0); got == "ok" {
		t.Error("a lapsed entity's app goes on in EVTE")
	}
	w.refused(registry.ErrState, "is Lapsed; next may be apply")(w.Admit(ctx, registrar, newcomer, none))
	w.did(w.Apply(ctx, registrar, newcomer, form("Possum Bakery"), none))
}

func TestAnObligationNotMetSuspendsAfterNoticeAndComesBackWhole(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	product := w.admitted(newcomer, "Possum Bakery")
	app := "fp-" + product[3:] + "-evte"
	w.did(w.RecordCheck(ctx, registrar, newcomer, casework.CheckOutcome{Check: "tax-obligations", Subject: "entity", Outcome: casework.Failed, Source: "seen"}, none))
	r := w.registration(newcomer)
	if r.NoticeID == "" || w.serves(app, "as.0004.submit", 0) != "ok" {
		t.Fatalf("a notice comes first: %+v, %s", r.NoticeID, w.serves(app, "as.0004.submit", 0))
	}
	w.pass(28*day + time.Minute)
	if got := w.serves(app, "as.0004.submit", 0); got == "ok" {
		t.Error("the notice took effect, and calls pass")
	}
	s := w.book().View.Suspension(w.registration(newcomer).SuspensionID)
	if s == nil || s.ImposedBy != "timer" || s.NoticeID != r.NoticeID {
		t.Errorf("the suspension: %+v", s)
	}
	w.did(w.RecordCheck(ctx, registrar, newcomer, casework.CheckOutcome{Check: "tax-obligations", Subject: "entity", Outcome: casework.Passed, Source: "seen"}, none))
	if got := w.serves(app, "as.0004.submit", 0); got != "ok" {
		t.Errorf("obligations met: %s", got)
	}
}

func TestChangesAreToldAndConfirmed(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	w.admitted(newcomer, "Possum Bakery")
	own := developer(newcomer, "ada@possum.example")
	w.did(w.TellChange(ctx, own, newcomer, casework.EntityChange{Name: "Possum Bread", Roles: []registry.Role{registry.RoleCloudProvider, registry.RoleDeveloper}}, none))
	if got := w.book().View.Entity(newcomer); got.Name != "Possum Bakery" {
		t.Errorf("told, not confirmed: %s", got.Name)
	}
	w.refused(registry.ErrForbidden, "registrar")(w.ConfirmChange(ctx, own, newcomer, none))
	w.did(w.ConfirmChange(ctx, registrar, newcomer, none))
	got := w.book().View.Entity(newcomer)
	if got.Name != "Possum Bread" || len(got.Roles) != 2 || got.State != registry.EntityRegistered {
		t.Errorf("confirmed: %+v", got)
	}
	w.until("the new name is checked", func() bool { return len(w.open(newcomer)) == 0 })
	w.refused(registry.ErrNotFound, "")(w.TellChange(ctx, developer(sample.Galah, "dev@galah.example"), newcomer, casework.EntityChange{Name: "Mine"}, none))
	w.refused(registry.ErrState, "no change")(w.ConfirmChange(ctx, registrar, newcomer, none))
}

func TestSharedContactsAreASignal(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	w.admitted(newcomer, "Possum Bakery")
	other := form("Other Name")
	other.Contacts[0].Email = "Sam@possum.example"
	const otherABN registry.ABN = 51824753556
	w.did(w.Apply(ctx, registrar, otherABN, other, none))
	r := w.registration(otherABN)
	shared := casework.SharedContacts(w.book(), &r)
	if len(shared) != 1 || len(shared["sam@possum.example"]) != 1 || shared["sam@possum.example"][0] != newcomer {
		t.Errorf("shared: %+v", shared)
	}
	// The assessor sees it of both.
	for of, with := range map[registry.ABN]registry.ABN{otherABN: newcomer, newcomer: otherABN} {
		found, err := w.assurance.Signals(w.book(), of)
		must(t, err)
		if len(found) != 1 || found[0].Kind != "contact-shared" || len(found[0].Others) != 1 || found[0].Others[0] != with {
			t.Errorf("signals of %s: %+v", of, found)
		}
	}
}
