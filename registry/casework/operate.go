package casework

import (
	"context"
	"fmt"
	"slices"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// Restrict takes services from a live product, or caps the rating of those it
// may call, until it is reinstated or approved again. Assessor.
func (d *Desk) Restrict(ctx context.Context, a registry.Actor, product string, maxRisk registry.Risk, remove []string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Restrict, product, m, func(x *edit) error {
		if err := checkLine("/reason", m.Reason, true); err != nil {
			return err
		}
		if maxRisk > 3 || maxRisk == 0 && len(remove) == 0 {
			return registry.Field("/max_risk", "give the highest risk rating left, 1 to 3, or the services to remove")
		}
		for i, s := range remove {
			if x.p.Entitled(s, registry.PROD) == nil {
				return registry.Field(fmt.Sprintf("/remove/%d", i), "the product is not entitled to it in production")
			}
		}
		x.p.Entitlements = slices.DeleteFunc(slices.Clone(x.p.Entitlements), func(e registry.Entitlement) bool {
			return e.Environment == registry.PROD && slices.Contains(remove, e.Service)
		})
		x.restrict(maxRisk)
		return x.tell("restricted", m.Reason)
	})
}

func (x *edit) restrict(maxRisk registry.Risk) {
	if s := x.p.Certification.State; s != registry.CertRestricted {
		x.c.Before = s
	}
	x.p.Certification.State, x.p.Certification.MaxRisk = registry.CertRestricted, maxRisk
}

// RequestReview asks for a review out of turn. Assessor.
func (d *Desk) RequestReview(ctx context.Context, a registry.Actor, product string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, RequestReview, product, m, func(x *edit) error {
		if err := checkLine("/reason", m.Reason, true); err != nil {
			return err
		}
		return d.review(x, m.Reason)
	})
}

// review makes a review due. The product goes on; not answered in time, its
// suspension is announced.
func (d *Desk) review(x *edit, why string) error {
	x.c.Before = x.p.Certification.State
	x.p.Certification.State = registry.CertReviewDue // what a restriction left stays all there is
	by := later(x.t.Now(), d.cfg.Standards.Review)
	x.c.Review = Review{Opened: x.t.Now(), AnswerBy: by, Note: why}
	x.c.Clocks.start(x.t, "review", "applicant", d.cfg.Standards.Review)
	x.c.Dues.set(dueReview, by)
	return x.tell("a review is due", fmt.Sprintf("Answer until %s: %s.", by, why))
}

// AnswerCertReview answers a review; an assessor then approves again.
func (d *Desk) AnswerCertReview(ctx context.Context, a registry.Actor, product, note string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, AnswerCertReview, product, m, func(x *edit) error {
		if err := checkText("/note", note, true); err != nil {
			return err
		}
		if x.c.Review.Answered != 0 {
			return fmt.Errorf("%w: the review is answered already; next is an assessor's approve", registry.ErrState)
		}
		x.c.Review.Answered, x.c.Review.Note = x.t.Now(), note
		x.c.Dues.clear(dueReview)
		x.c.Clocks.stop(x.t, "review")
		return nil
	})
}

// TellCertChange tells of a change in how the product is built, run or used.
// What is material reopens requirements; services it did not have wait until
// they are approved.
func (d *Desk) TellCertChange(ctx context.Context, a registry.Actor, product string, dep Deployment, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, TellCertChange, product, m, func(x *edit) error {
		if err := dep.check(x.t.View()); err != nil {
			return err
		}
		old := x.c.Deployment
		if x.c.Catalogue == "" { // it was registered before there were cases
			old = dep
			old.Services = x.entitled()
		}
		situation := func(dep *Deployment) *certification.Situation {
			return &certification.Situation{Profile: dep.Profile(x.t.View(), &x.p), Owner: x.p.Owner.String(), Hosting: dep.Hosting, Authentication: dep.Authentication}
		}
		if err := d.describe(x, dep); err != nil {
			return err
		}
		found := d.catalogue(&x.c, x.t.Now().Std()).MaterialChanges(situation(&old), situation(&dep), d.Framework().Open)
		if len(found) == 0 {
			return nil
		}
		for _, f := range found {
			for _, r := range f.Reopens {
				x.c.showAgain(r, later(x.t.Now(), d.cfg.Standards.Remedy))
			}
		}
		x.c.Material = found
		x.c.dueAgain(x.t)
		return nil
	})
}

// Announce announces the product's suspension, which takes effect by itself
// unless it is reinstated before. Assessor.
func (d *Desk) Announce(ctx context.Context, a registry.Actor, product string, effective registry.Time, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Announce, product, m, func(x *edit) error {
		if x.c.NoticeID != "" {
			return fmt.Errorf("%w: notice %s stands already; next may be reinstate", registry.ErrState, x.c.NoticeID)
		}
		if err := checkLine("/reason", m.Reason, true); err != nil {
			return err
		}
		if effective == 0 {
			effective = later(x.t.Now(), d.cfg.Standards.Review)
		} else if effective < later(x.t.Now(), day) {
			return registry.Field("/effective_at", "give at least a day's notice; sooner, an operator suspends")
		}
		return d.announce(x, m.Reason, effective)
	})
}

func (d *Desk) announce(x *edit, reason string, effective registry.Time) error {
	id, err := x.t.Announce(x.ref(), reason, effective)
	if err != nil {
		return err
	}
	x.c.NoticeID = id
	x.c.Dues.set(dueNotice, effective)
	return x.tell("a suspension is announced", fmt.Sprintf("From %s, unless it is put right before: %s.", effective, reason))
}

// Reinstate ends what was announced, a suspension that followed from it, and a
// restriction: what stood before stands again. What was found must be resolved.
// Assessor.
func (d *Desk) Reinstate(ctx context.Context, a registry.Actor, product string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Reinstate, product, m, func(x *edit) error {
		restricted := x.p.Certification.State == registry.CertRestricted
		if x.c.NoticeID == "" && !restricted {
			return fmt.Errorf("%w: nothing is announced, suspended or restricted here; next may be announce-suspension or restrict", registry.ErrState)
		}
		if err := x.noOpenFindings(); err != nil {
			return err
		}
		if err := x.t.Lift(x.c.SuspensionID, "remediation verified"); err != nil {
			return err
		}
		x.c.NoticeID, x.c.SuspensionID = "", ""
		x.c.Dues.clear(dueNotice)
		if restricted {
			before := x.c.Before
			if !live(before) || before == registry.CertRestricted {
				before = registry.CertWhitelisted
			}
			x.p.Certification.State, x.p.Certification.MaxRisk = before, 0
			if len(x.c.Services) > 0 && before != registry.CertPVT {
				x.entitle(x.c.Services, registry.Entitlement{Stage: registry.StagePROD})
			}
		}
		return x.tell("reinstated", "What stood before stands again.")
	})
}

// Delist ends a product's certification for good: one assessor proposes it, and
// it is done when another says so too. Assessor.
func (d *Desk) Delist(ctx context.Context, a registry.Actor, product string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Delist, product, m, func(x *edit) error {
		if err := checkLine("/reason", m.Reason, true); err != nil {
			return err
		}
		second, ending, err := x.c.Ending.second(x.t, m.Reason)
		if x.c.Ending = ending; err != nil || !second {
			return err
		}
		x.p.Certification.State, x.p.Certification.MaxRisk = registry.CertDelisted, 0
		x.c.Dues = nil
		x.c.Clocks.stop(x.t, "verify", "review", "show-again")
		return x.tell("delisted", m.Reason)
	})
}

// fireCertification is what happens when a due-date of a certification has come.
func (d *Desk) fireCertification(t *registry.Tx, id string, due registry.Due) error {
	x, _, err := editOf(t, id)
	if err != nil {
		return err
	}
	from := x.p.Certification.State
	x.c.Dues.clear(due.What)
	cmd, note := certReviewDue, ""
	switch due.What {
	case dueReview:
		if from == registry.CertReviewDue { // not answered
			note = "the review was not answered"
			if x.c.NoticeID == "" {
				err = d.announce(x, note, later(t.Now(), d.cfg.Standards.Review))
			}
		} else {
			note = "annual review, or evidence near its end"
			err = d.review(x, note)
		}
	case dueReopened:
		note = "reopened requirements were not shown in time"
		if from != registry.CertReviewDue && live(from) {
			err = d.review(x, note)
		}
	case dueNotice:
		cmd, note = certSuspended, "the announced suspension took effect"
		x.c.SuspensionID, err = t.Suspend(x.ref(), "notice "+x.c.NoticeID+" took effect", x.c.NoticeID)
	case dueExpiry:
		// Calls are refused from this instant whether this runs or not.
		cmd, note = certExpired, "the certification ended"
		err = x.tell("the certification ended", "Calls in production are refused until it is approved again.")
	}
	if err != nil {
		return err
	}
	return x.put(cmd, from, note)
}

// riskLeft is the highest rating a product may call while a finding is overdue.
const riskLeft registry.Risk = 2

// fireFinding: a finding that was not put right in time restricts the product and
// announces its suspension; its users go on lodging until then.
func (d *Desk) fireFinding(t *registry.Tx, id string, _ registry.Due) error {
	f, err := registry.TxCase[assurance.Finding](t, id)
	if err != nil {
		return err
	}
	f.Body.Late = t.Now()
	if err := registry.PutCase(t, id, f.Body); err != nil {
		return err
	}
	x, _, err := editOf(t, f.Body.ProductID)
	if err != nil {
		return err
	}
	from := x.p.Certification.State
	if !live(from) {
		return nil // it is not accepted while the finding stands
	}
	left := riskLeft
	if had := x.p.Certification.MaxRisk; had != 0 {
		left = min(left, had) // what was taken before is not given back
	}
	x.restrict(left)
	note := fmt.Sprintf("finding %s (%s) was not put right in time", id, f.Body.Requirement)
	if x.c.NoticeID == "" {
		if err := d.announce(x, note, later(t.Now(), d.cfg.Standards.Review)); err != nil {
			return err
		}
	}
	return x.put(findingOverdue, from, note)
}
