package casework

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// owns tells whether an actor is one of a registration's own people: of the
// entity, or, until one is, whoever applied.
func owns(a registry.Actor, abn registry.ABN, r *Registration) bool {
	if !a.Has(registry.PermDeveloper) {
		return false
	}
	return a.Entity == abn || a.Entity == 0 && r != nil && r.AppliedBy == a.Name
}

// MaySee tells whether an actor may know of a registration.
func MaySee(a registry.Actor, r *Registration) bool { return a.Staff() || owns(a, r.ABN, r) }

// registrationOf finds a registration and its entity, both to be changed freely.
func registrationOf(t *registry.Tx, abn registry.ABN) (*registry.Case[Registration], registry.Entity, error) {
	e := t.View().Entity(abn)
	if e == nil {
		return nil, registry.Entity{}, fmt.Errorf("%w: entity %s", registry.ErrNotFound, abn)
	}
	c, err := registry.TxCase[Registration](t, abn.String())
	if errors.Is(err, registry.ErrNotFound) {
		c, err = fresh(e), nil
	}
	return c, *e, err
}

// RegistrationOf reads an entity's registration: of one that was entered before
// there were cases, as much as the register holds.
func RegistrationOf(b *registry.Casebook, abn registry.ABN) (*registry.Case[Registration], error) {
	c, err := registry.CaseOf[Registration](b, abn.String())
	if e := b.View.Entity(abn); errors.Is(err, registry.ErrNotFound) && e != nil {
		return fresh(e), nil
	}
	return c, err
}

// fresh is the registration of an entity that has no case.
func fresh(e *registry.Entity) *registry.Case[Registration] {
	return &registry.Case[Registration]{ID: e.ABN.String(), Body: Registration{
		ABN: e.ABN, AppliedBy: strings.ToLower(e.Contact), Form: Form{Name: e.Name, Roles: e.Roles, Applicant: Applicant{Email: e.Contact}}, Steps: []Step{},
	}}
}

// change plans a command on a registration there is.
func (d *Desk) change(ctx context.Context, a registry.Actor, cmd Command, abn registry.ABN, m registry.Meta, edit func(t *registry.Tx, r *Registration, e *registry.Entity) error) (registry.Outcome, error) {
	return d.do(ctx, a, cmd, m.Reason, func(t *registry.Tx) error { return changeIn(t, a, cmd, abn, m, edit) })
}

// changeIn is change within a command.
func changeIn(t *registry.Tx, a registry.Actor, cmd Command, abn registry.ABN, m registry.Meta, edit func(t *registry.Tx, r *Registration, e *registry.Entity) error) error {
	c, e, err := registrationOf(t, abn)
	if err == nil && !MaySee(a, &c.Body) {
		err = fmt.Errorf("%w: registration %s", registry.ErrNotFound, abn)
	}
	if err != nil {
		return err
	}
	if err := may(registrationRules(), a, cmd, "registration", e.State, owns(a, abn, &c.Body)); err != nil {
		return err
	}
	if m.IfMatch != 0 && m.IfMatch != c.Revision {
		return fmt.Errorf("%w: it has revision %d now", registry.ErrPrecondition, c.Revision)
	}
	from := e.State
	r := c.Body
	r.Checks = slices.Clone(r.Checks)
	if err := edit(t, &r, &e); err != nil {
		return err
	}
	return put(t, r, e, cmd, from, m.Reason)
}

// put writes a case and its entity.
func put(t *registry.Tx, r Registration, e registry.Entity, cmd Command, from registry.EntityState, note string) error {
	r.Steps = addStep(r.Steps, t, cmd, from, e.State, note)
	e.Checks = r.summary(t.Now(), e.Checks)
	if err := registry.PutCase(t, r.ABN.String(), r); err != nil {
		return err
	}
	return t.PutEntity(e)
}

// Apply begins an application for an ABN: the first, or another after the one
// before was rejected or lapsed. Registrar, or whoever is signed in and belongs
// to no other entity.
func (d *Desk) Apply(ctx context.Context, a registry.Actor, abn registry.ABN, f Form, m registry.Meta) (registry.Outcome, error) {
	return d.do(ctx, a, Apply, m.Reason, func(t *registry.Tx) error {
		if err := f.check(t.View(), false); err != nil {
			return err
		}
		r := Registration{ABN: abn}
		e := registry.Entity{ABN: abn}
		known := t.View().Entity(abn)
		c, err := registry.TxCase[Registration](t, abn.String())
		own := a.Has(registry.PermDeveloper) && (a.Entity == 0 || a.Entity == abn)
		switch {
		case err == nil:
			r, own = c.Body, owns(a, abn, &c.Body)
		case !errors.Is(err, registry.ErrNotFound):
			return err
		case known != nil: // entered before there were cases: it is its contact's
			own = owns(a, abn, &fresh(known).Body)
		}
		if known != nil {
			e = *known
			if !own && !a.Staff() {
				return fmt.Errorf("%w: somebody else has applied for this ABN; ask them to invite you", registry.ErrState)
			}
			if err := may(registrationRules(), a, Apply, "registration", e.State, own); err != nil {
				return err
			}
		} else if !own && !a.Has(registry.PermRegistrar) {
			return fmt.Errorf("%w: %s is for the registrar, or for people who belong to no other entity", registry.ErrForbidden, Apply)
		}
		from := e.State
		r.Round++
		r.AppliedBy, r.Form, r.Trigger, r.Questions = a.Name, f, "", nil
		r.Review, r.Dues = Review{}, nil
		e.State, e.Name, e.Roles, e.Contact = registry.EntityDraft, f.Name, f.Roles, strings.ToLower(f.Applicant.Email)
		return put(t, r, e, Apply, from, m.Reason)
	})
}

// Revise replaces the form of a draft.
func (d *Desk) Revise(ctx context.Context, a registry.Actor, abn registry.ABN, f Form, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, Revise, abn, m, func(t *registry.Tx, r *Registration, e *registry.Entity) error {
		if err := f.check(t.View(), false); err != nil {
			return err
		}
		r.Form = f
		e.Name, e.Roles, e.Contact = f.Name, f.Roles, strings.ToLower(f.Applicant.Email)
		return nil
	})
}

// Submit hands a draft in: terms accepted and declared, all that is asked for
// stated. The checks begin, and the agency's clocks.
func (d *Desk) Submit(ctx context.Context, a registry.Actor, abn registry.ABN, accept Acceptance, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, Submit, abn, m, func(t *registry.Tx, r *Registration, e *registry.Entity) error {
		if err := r.Form.check(t.View(), true); err != nil {
			return err
		}
		if err := d.accept(t, a, r, accept); err != nil {
			return err
		}
		r.plan(t.Now())
		r.Clocks.start(t, "acknowledge", "agency", d.cfg.Standards.Acknowledge)
		r.Clocks.start(t, "decide", "agency", d.cfg.Standards.Decide)
		e.State = registry.EntitySubmitted
		return nil
	})
}

// Withdraw takes an application back into a draft.
func (d *Desk) Withdraw(ctx context.Context, a registry.Actor, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, Withdraw, abn, m, func(t *registry.Tx, r *Registration, e *registry.Entity) error {
		r.reopen(t, e)
		return nil
	})
}

// reopen makes an application a draft again.
func (r *Registration) reopen(t *registry.Tx, e *registry.Entity) {
	r.Clocks.stop(t, "acknowledge", "decide", "reply")
	r.Dues.clear(dueReply)
	r.Checks = slices.DeleteFunc(r.Checks, func(c CheckRun) bool { return c.State == CheckToAsk || c.State == CheckAsked })
	e.State = registry.EntityDraft
}

// Ask asks the applicant something; the agency's clock stops meanwhile and the
// applicant's runs.
func (d *Desk) Ask(ctx context.Context, a registry.Actor, abn registry.ABN, question string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, Ask, abn, m, func(t *registry.Tx, r *Registration, _ *registry.Entity) error {
		if err := checkText("/question", question, true); err != nil {
			return err
		}
		if len(r.Questions) >= 50 {
			return registry.Field("/question", "at most 50 questions")
		}
		r.Questions = append(slices.Clip(r.Questions), Question{At: t.Now(), By: a.Name, Text: question})
		r.Clocks.stop(t, "acknowledge", "decide")
		r.Clocks.start(t, "reply", "applicant", d.cfg.Standards.Reply)
		r.Dues.set(dueReply, later(t.Now(), d.cfg.Standards.Reply))
		return tell(t, abn, "registration/"+abn.String(), "A question about your application", question)
	})
}

// Reply answers the oldest open question.
func (d *Desk) Reply(ctx context.Context, a registry.Actor, abn registry.ABN, text string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, Reply, abn, m, func(t *registry.Tx, r *Registration, _ *registry.Entity) error {
		if err := checkText("/answer", text, true); err != nil {
			return err
		}
		r.Questions = slices.Clone(r.Questions)
		i := slices.IndexFunc(r.Questions, func(q Question) bool { return q.Answered == 0 })
		if i < 0 {
			return fmt.Errorf("%w: no question is open; next may be ask", registry.ErrState)
		}
		r.Questions[i].Answer, r.Questions[i].Answered = text, t.Now()
		if !slices.ContainsFunc(r.Questions, func(q Question) bool { return q.Answered == 0 }) {
			r.Clocks.stop(t, "reply")
			r.Clocks.start(t, "decide", "agency", d.cfg.Standards.Decide)
			r.Dues.clear(dueReply)
		}
		return nil
	})
}

// CheckOutcome is what a registrar records.
type CheckOutcome struct {
	Check   string
	Subject string // entity, or a principal's ID
	Outcome Outcome
	Source  string
	Expires registry.Time
}

// RecordCheck records the outcome, and only the outcome, of one check. Registrar.
func (d *Desk) RecordCheck(ctx context.Context, a registry.Actor, abn registry.ABN, o CheckOutcome, m registry.Meta) (registry.Outcome, error) {
	return d.do(ctx, a, RecordCheck, m.Reason, func(t *registry.Tx) error {
		c, e, err := registrationOf(t, abn)
		if err != nil {
			return err
		}
		if err := may(registrationRules(), a, RecordCheck, "registration", e.State, false); err != nil {
			return err
		}
		if m.IfMatch != 0 && m.IfMatch != c.Revision {
			return fmt.Errorf("%w: it has revision %d now", registry.ErrPrecondition, c.Revision)
		}
		c.Body.Checks = slices.Clone(c.Body.Checks)
		x := c.Body.check(o.Check, o.Subject)
		if x == nil && o.Subject == "entity" && slices.Contains(entityChecks(), o.Check) { // entered before there were cases
			c.Body.Checks = append(c.Body.Checks, CheckRun{Name: o.Check, Subject: o.Subject})
			x = c.Body.check(o.Check, o.Subject)
		}
		switch {
		case x == nil:
			return registry.Field("/check", "there is no check %q of %q", cut(o.Check), cut(o.Subject))
		case o.Outcome != Passed && o.Outcome != Failed:
			return registry.Field("/outcome", "use pass or fail")
		case o.Expires != 0 && o.Expires <= t.Now():
			return registry.Field("/expires_at", "lies in the past")
		}
		if err := checkLine("/source", o.Source, true); err != nil {
			return err
		}
		return d.settle(t, c.Body, e, RecordCheck, x, o.Outcome, o.Source, o.Expires)
	})
}

func cut(s string) string { return s[:min(len(s), 60)] }

// settle writes an outcome, and what follows from it for an entity that is
// registered already: a notice when a check is not satisfied any more, and what
// stood before when all are again.
func (d *Desk) settle(t *registry.Tx, r Registration, e registry.Entity, cmd Command, x *CheckRun, o Outcome, source string, expires registry.Time) error {
	x.At, x.Source, x.Problem, x.Retry = t.Now(), source, "", 0
	x.State, x.Expires = CheckFailed, 0
	if o == Passed {
		x.State, x.Expires = CheckPassed, expires
		if expires == 0 {
			x.Expires = later(t.Now(), checkValid)
		}
	}
	if e.State != registry.EntityRegistered {
		return d.putChecked(t, r, e, cmd, x)
	}
	about := "registration/" + r.ABN.String()
	switch failed := slices.ContainsFunc(r.Checks, func(c CheckRun) bool { return c.State == CheckFailed }); {
	case failed && r.NoticeID == "":
		effective := later(t.Now(), d.cfg.Standards.Review)
		id, err := t.Announce(entityRef(r.ABN), "an eligibility check is not satisfied", effective)
		if err != nil {
			return err
		}
		r.NoticeID = id
		r.Dues.set(dueNotice, effective)
		r.Clocks.start(t, "satisfy", "applicant", d.cfg.Standards.Review)
		if err := tell(t, r.ABN, about, "An eligibility check is not satisfied", fmt.Sprintf("Your registration is suspended from %s unless it is satisfied before.", effective)); err != nil {
			return err
		}
	case !failed && r.NoticeID != "":
		if err := t.Lift(r.SuspensionID, "the eligibility checks are satisfied again"); err != nil {
			return err
		}
		r.NoticeID, r.SuspensionID = "", ""
		r.Dues.clear(dueNotice)
		r.Clocks.stop(t, "satisfy")
		if err := tell(t, r.ABN, about, "Your eligibility checks are satisfied", "What stood before stands again."); err != nil {
			return err
		}
	}
	return d.putChecked(t, r, e, cmd, x)
}

func entityRef(abn registry.ABN) registry.SubjectRef {
	return registry.SubjectRef{Kind: registry.KindEntity, ID: abn.String()}
}

// putChecked writes a registration after one of its checks changed.
func (d *Desk) putChecked(t *registry.Tx, r Registration, e registry.Entity, cmd Command, x *CheckRun) error {
	from := e.State
	if e.State == registry.EntitySubmitted {
		e.State = registry.EntityChecking
		r.Clocks.stop(t, "acknowledge")
	}
	note := fmt.Sprintf("%s of %s: %s", x.Name, x.Subject, x.State)
	if x.Problem != "" {
		note += ", " + x.Problem
	}
	return put(t, r, e, cmd, from, note)
}

// Admit registers an entity whose checks have all passed. With it the test
// environments open at once, for the product stated, and nothing else. Registrar.
func (d *Desk) Admit(ctx context.Context, a registry.Actor, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, Admit, abn, m, func(t *registry.Tx, r *Registration, e *registry.Entity) error {
		if open := r.open(t.Now()); len(open) > 0 {
			return fmt.Errorf("%w: %d checks are not satisfied: %s", registry.ErrState, len(open), strings.Join(open, "; "))
		}
		if len(r.Accepted) == 0 {
			return fmt.Errorf("%w: nobody has accepted the terms; next may be accept-terms", registry.ErrState)
		}
		b, err := t.Casebook()
		if err != nil {
			return err
		}
		if last, now := r.Accepted[len(r.Accepted)-1].Version, d.termsAt(b, t.Now()).Version; last != now {
			return fmt.Errorf("%w: the terms accepted are %s, those in force %s; the applicant must accept them (accept-terms)", registry.ErrState, last, now)
		}
		e.State = registry.EntityRegistered
		r.Admitted = t.Now()
		r.Clocks.stop(t, "acknowledge", "decide", "reply")
		r.Dues.clear(dueReply)
		r.Dues.set(dueReview, later(t.Now(), d.cfg.Standards.Annual))
		if err := d.openTest(t, r); err != nil {
			return err
		}
		return tell(t, abn, "registration/"+abn.String(), "You are registered", "The test environments are open to you. Production opens with the certification of a product.")
	})
}

// openTest makes the product stated, as a Draft, and its client apps of the test
// environments, entitled there to every service.
func (d *Desk) openTest(t *registry.Tx, r *Registration) error {
	if r.Form.Product == nil || r.Product != "" {
		return nil
	}
	id, err := d.nextProductID(t)
	if err != nil {
		return err
	}
	r.Product = id
	return openTests(t, registry.Product{ID: id, Name: r.Form.Product.Name, Owner: r.ABN, Chain: r.Form.Product.Chain, Scenario: r.Form.Product.Scenario, OwnABNOnly: r.Form.Product.Scenario == 4})
}

// Reject ends an application. Registrar. The trigger is told to the applicant;
// no detail of any check is.
func (d *Desk) Reject(ctx context.Context, a registry.Actor, abn registry.ABN, trigger Trigger, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, Reject, abn, m, func(t *registry.Tx, r *Registration, e *registry.Entity) error {
		if !slices.Contains(Triggers(), trigger) {
			return registry.Field("/trigger", "%q is no trigger of a rejection; use one of %s", cut(string(trigger)), joinTriggers())
		}
		r.reopen(t, e)
		r.Trigger, e.State = trigger, registry.EntityRejected
		return tell(t, abn, "registration/"+abn.String(), "Your application was rejected", "Reason: "+string(trigger)+". You may apply again.")
	})
}

func joinTriggers() string {
	var words []string
	for _, t := range Triggers() {
		words = append(words, string(t))
	}
	return strings.Join(words, ", ")
}

// TellChange tells of a change of name, roles, contacts or anything else. Contacts
// change at once, name and roles when a registrar confirms.
func (d *Desk) TellChange(ctx context.Context, a registry.Actor, abn registry.ABN, c EntityChange, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, TellChange, abn, m, func(t *registry.Tx, r *Registration, e *registry.Entity) error {
		next := r.Form
		if c.Name != "" {
			next.Name = c.Name
		}
		if c.Roles != nil {
			next.Roles = c.Roles
		}
		if c.Contacts != nil {
			next.Contacts = c.Contacts
		}
		if c.Name == "" && c.Roles == nil && c.Contacts == nil && c.Note == "" {
			return registry.Field("", "say what changed: name, roles, contacts or note")
		}
		if err := next.check(t.View(), false); err != nil {
			return err
		}
		if err := checkText("/note", c.Note, false); err != nil {
			return err
		}
		if len(r.Changes) >= 100 {
			r.Changes = r.Changes[1:]
		}
		c.At, c.By, c.Confirmed = t.Now(), a.Name, 0
		if c.Contacts != nil {
			r.Form.Contacts = c.Contacts
		}
		if c.Name == "" && c.Roles == nil {
			c.Confirmed = t.Now()
		}
		r.Changes = append(slices.Clip(r.Changes), c)
		return nil
	})
}

// ConfirmChange puts the changes that were told into the register. Registrar. A
// new name is checked anew.
func (d *Desk) ConfirmChange(ctx context.Context, a registry.Actor, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, ConfirmChange, abn, m, func(t *registry.Tx, r *Registration, e *registry.Entity) error {
		r.Changes = slices.Clone(r.Changes)
		n := 0
		for i := range r.Changes {
			c := &r.Changes[i]
			if c.Confirmed != 0 {
				continue
			}
			n++
			c.Confirmed = t.Now()
			if c.Name != "" {
				r.Form.Name, e.Name = c.Name, c.Name
				if x := r.check("legitimate-business", "entity"); x != nil {
					*x = CheckRun{Name: x.Name, Subject: x.Subject, State: CheckToAsk, Retry: t.Now()}
				}
			}
			if c.Roles != nil {
				r.Form.Roles, e.Roles = c.Roles, c.Roles
			}
		}
		if n == 0 {
			return fmt.Errorf("%w: no change waits to be confirmed; next may be tell-change", registry.ErrState)
		}
		return nil
	})
}

// AnswerReview answers a review: what is registered is still so.
func (d *Desk) AnswerReview(ctx context.Context, a registry.Actor, abn registry.ABN, note string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, AnswerReview, abn, m, func(t *registry.Tx, r *Registration, _ *registry.Entity) error {
		if r.Review.Opened == 0 || r.Review.Answered != 0 {
			return fmt.Errorf("%w: no review is open", registry.ErrState)
		}
		if err := checkText("/note", note, false); err != nil {
			return err
		}
		r.Review.Answered, r.Review.Note = t.Now(), note
		r.Clocks.stop(t, "review")
		r.Dues.clear(dueLapse)
		r.Dues.set(dueReview, later(t.Now(), d.cfg.Standards.Annual))
		return nil
	})
}

// CancelEntity ends an entity and with it everything under it, for good: one
// registrar proposes it, and it is done when another says so too. Registrar.
func (d *Desk) CancelEntity(ctx context.Context, a registry.Actor, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, CancelEntity, abn, m, func(t *registry.Tx, r *Registration, e *registry.Entity) error {
		if err := checkLine("/reason", m.Reason, true); err != nil {
			return err
		}
		second, ending, err := r.Ending.second(t, m.Reason)
		if r.Ending = ending; err != nil || !second {
			return err
		}
		e.State = registry.EntityCancelled
		r.Dues = nil
		r.Checks = slices.DeleteFunc(r.Checks, func(c CheckRun) bool { return c.State != CheckFailed })
		r.Clocks.stop(t, "acknowledge", "decide", "reply", "review", "satisfy")
		return tell(t, abn, "registration/"+abn.String(), "Your registration is cancelled", "It cannot be used any more, nor can any product of yours.")
	})
}

// fireRegistration is what happens when a due-date of a registration has come.
func (d *Desk) fireRegistration(t *registry.Tx, id string, due registry.Due) error {
	abn, err := registry.ParseABN(id)
	if err != nil {
		return err
	}
	c, e, err := registrationOf(t, abn)
	if err != nil {
		return err
	}
	r, from := c.Body, e.State
	r.Checks = slices.Clone(r.Checks)
	if check, ok := strings.CutPrefix(due.What, "check "); ok {
		name, subject, _ := strings.Cut(check, "@")
		x := r.check(name, subject)
		*x = CheckRun{Name: name, Subject: subject, State: CheckToAsk, Retry: t.Now()}
		if from != registry.EntityRegistered && from != registry.EntityChecking && from != registry.EntitySubmitted {
			x.State, x.Retry = CheckEnded, 0 // nobody needs it now
		}
		return put(t, r, e, checkExpired, from, check)
	}
	r.Dues.clear(due.What)
	cmd, note := lapsed, ""
	switch due.What {
	case dueReply:
		cmd, note = replyOverdue, "no reply in time: the application is a draft again"
		r.reopen(t, &e)
	case dueNotice:
		cmd, note = noticeEffective, "an eligibility check is not satisfied"
		r.SuspensionID, err = t.Suspend(entityRef(abn), note, r.NoticeID)
	case dueTerms:
		cmd, note = termsOverdue, "the new terms were not accepted in time"
		if from == registry.EntityRegistered && r.TermsNotice == "" {
			err = d.termsLate(t, &r)
		}
	case dueTermsNotice:
		cmd, note = noticeEffective, "the new terms were not accepted"
		r.TermsSuspension, err = t.Suspend(entityRef(abn), note, r.TermsNotice)
	case dueReview:
		cmd = reviewOpened
		note, err = d.openReview(t, &r)
	case dueLapse:
		note = "the annual review was not answered"
		e.State = registry.EntityLapsed
		r.Clocks.stop(t, "review")
		err = tell(t, abn, "registration/"+id, "Your registration has lapsed", "The annual review was not answered. You may apply again.")
	}
	if err != nil {
		return err
	}
	return put(t, r, e, cmd, from, note)
}

// termsLate announces the suspension of an entity that has not accepted new terms.
func (d *Desk) termsLate(t *registry.Tx, r *Registration) error {
	effective := later(t.Now(), d.cfg.Standards.Review)
	id, err := t.Announce(entityRef(r.ABN), "the new terms are not accepted", effective)
	if err != nil {
		return err
	}
	r.TermsNotice = id
	r.Dues.set(dueTermsNotice, effective)
	return tell(t, r.ABN, "registration/"+r.ABN.String(), "The new terms are not accepted", fmt.Sprintf("Your registration is suspended from %s unless you accept them before.", effective))
}

// openReview opens the annual review of an entity without a live product; one
// that has any is reviewed with it.
func (d *Desk) openReview(t *registry.Tx, r *Registration) (note string, err error) {
	book, err := t.Casebook()
	if err != nil {
		return "", err
	}
	for id := range book.All(registry.Query{Kind: "product", Where: []registry.Where{{Index: "owner", Value: r.ABN.String()}}}) {
		if p := t.View().Product(id); p != nil && live(p.Certification.State) {
			r.Dues.set(dueReview, later(t.Now(), d.cfg.Standards.Annual))
			return "not needed: " + id + " is reviewed itself", nil
		}
	}
	r.Review = Review{Opened: t.Now(), AnswerBy: later(t.Now(), d.cfg.Standards.Review)}
	r.Clocks.start(t, "review", "applicant", d.cfg.Standards.Review)
	r.Dues.set(dueLapse, r.Review.AnswerBy)
	return "", tell(t, r.ABN, "registration/"+r.ABN.String(), "Your annual review", fmt.Sprintf("Tell us until %s that what is registered is still so, or it lapses.", r.Review.AnswerBy))
}

func live(s registry.CertState) bool {
	switch s {
	case registry.CertPVT, registry.CertWhitelisted, registry.CertInterim, registry.CertRestricted, registry.CertReviewDue:
		return true
	}
	return false
}
