package casework

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// Begin begins the self-certification of a Draft whose owner is registered.
func (d *Desk) Begin(ctx context.Context, a registry.Actor, product string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Begin, product, m, func(x *edit) error {
		if e := x.t.View().Entity(x.p.Owner); e == nil || e.State != registry.EntityRegistered {
			return fmt.Errorf("%w: the owner %s is not Registered; next is its registration", registry.ErrState, x.p.Owner)
		}
		if x.c.Catalogue == "" {
			x.c.Catalogue = d.Framework().InForce(x.t.Now().Std()).Version
		}
		return nil
	})
}

// Describe declares how the product is built and run, which decides its category
// and what applies to it.
func (d *Desk) Describe(ctx context.Context, a registry.Actor, product string, dep Deployment, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Describe, product, m, func(x *edit) error {
		if err := dep.check(x.t.View()); err != nil {
			return err
		}
		return d.describe(x, dep)
	})
}

func (d *Desk) describe(x *edit, dep Deployment) error {
	profile := dep.Profile(x.t.View(), &x.p)
	if err := profile.Check(); err != nil {
		return err
	}
	cat := d.catalogue(&x.c, x.t.Now().Std())
	x.c.Catalogue, x.c.Deployment = cat.Version, dep
	x.c.Category, x.c.Because = cat.Category(&profile, d.Framework().Open)
	x.p.Category = registry.Category(x.c.Category)
	return nil
}

// Answer answers questions, by their IDs; an answer without values takes one back.
func (d *Desk) Answer(ctx context.Context, a registry.Actor, product string, answers map[string]certification.Answer, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Answer, product, m, func(x *edit) error {
		q := d.Framework().Questionnaire(certification.SelfCertification, d.catalogue(&x.c, x.t.Now().Std()).Version)
		if q == nil {
			return fmt.Errorf("%w: there is no questionnaire", registry.ErrState)
		}
		if x.p.Certification.State != registry.CertDraft && len(x.c.Reopened) == 0 {
			return fmt.Errorf("%w: the certification is %s and no requirement is open; tell of a change first", registry.ErrState, x.p.Certification.State)
		}
		next := maps.Clone(x.c.Answers)
		if next == nil {
			next = map[string]certification.Answer{}
		}
		for id, one := range answers {
			at := "/answers/" + strings.ReplaceAll(strings.ReplaceAll(id, "~", "~0"), "/", "~1")
			asked := q.Question(id)
			if asked == nil {
				return registry.Field(at, "there is no such question")
			}
			if x.p.Certification.State != registry.CertDraft && !slices.Contains(x.c.Reopened, asked.Requirement) {
				return registry.Field(at, "the requirement %s is not open", asked.Requirement)
			}
			if len(one.Values) == 0 && asked.Kind != certification.Choose {
				delete(next, id)
				continue
			}
			if err := asked.CheckAnswer(one); err != nil {
				var f *certification.FieldError
				if errors.As(err, &f) {
					return &certification.FieldError{Field: at + f.Field, Err: f.Err}
				}
				return err
			}
			next[id] = one
		}
		x.c.Answers = next
		return nil
	})
}

// RequestException asks that a requirement may fail, for a time, because of
// something else.
func (d *Desk) RequestException(ctx context.Context, a registry.Actor, product string, e certification.Exception, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, RequestException, product, m, func(x *edit) error {
		e.RequestedBy, e.ApprovedBy = a.Name, ""
		if err := e.Check(d.catalogue(&x.c, x.t.Now().Std()), x.t.Now().Std()); err != nil {
			return err
		}
		x.c.Exceptions = append(slices.DeleteFunc(slices.Clone(x.c.Exceptions), func(o certification.Exception) bool { return o.Requirement == e.Requirement }), e)
		return nil
	})
}

// ApproveException approves one; not whoever asked for it.
func (d *Desk) ApproveException(ctx context.Context, a registry.Actor, product, requirement string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, ApproveException, product, m, func(x *edit) error {
		x.c.Exceptions = slices.Clone(x.c.Exceptions)
		i := slices.IndexFunc(x.c.Exceptions, func(e certification.Exception) bool { return e.Requirement == requirement })
		if i < 0 {
			return fmt.Errorf("%w: an exception from %s", registry.ErrNotFound, cut(requirement))
		}
		if x.c.Exceptions[i].RequestedBy == a.Name {
			return fmt.Errorf("%w: the one who asked for an exception cannot approve it", registry.ErrForbidden)
		}
		x.c.Exceptions[i].ApprovedBy = a.Name
		return nil
	})
}

// SubmitCert signs the self-certification: a Draft becomes SelfCertified, and
// what was reopened in a live product is shown. What stands in the way comes
// back as one FieldError for each question.
func (d *Desk) SubmitCert(ctx context.Context, a registry.Actor, product string, sign Declaration, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, SubmitCert, product, m, func(x *edit) error {
		if err := checkLine("/name", sign.Name, true); err != nil {
			return err
		}
		if err := checkLine("/position", sign.Position, false); err != nil {
			return err
		}
		state := x.p.Certification.State
		if state != registry.CertDraft && len(x.c.Reopened) == 0 {
			return fmt.Errorf("%w: the certification is %s and nothing was reopened; next may be tell-change", registry.ErrState, state)
		}
		if len(x.c.Deployment.Services) == 0 {
			return registry.Field("/services", "say first which services the product wants in production (describe)")
		}
		marking, _, err := d.Marking(x.b, &x.c, &x.p, x.t.Now().Std())
		if err != nil {
			return err
		}
		blocked := marking.Blockers()
		if state != registry.CertDraft {
			blocked = x.c.stillBlocked(blocked)
		}
		if len(blocked) > 0 {
			return blockers(blocked)
		}
		sign.By, sign.At, sign.Mark = a.Name, x.t.Now(), marking.Mark.String()
		x.c.Declared = &sign
		if state != registry.CertDraft {
			x.c.shownAgain(x.t, marking.Blockers())
			return nil
		}
		x.p.Certification = registry.Certification{State: registry.CertSelfCertified}
		x.c.Verification, x.c.Basis = "", d.forced(x)
		x.c.Clocks.start(x.t, "verify", "agency", d.cfg.Standards.Verify)
		return nil
	})
}

// stillBlocked is what stands in the way of showing again what was reopened:
// what is due first must be shown, what has longer may wait, and what was never
// reopened stays shown.
func (c *Certification) stillBlocked(all []certification.Blocker) []certification.Blocker {
	first := registry.Time(0)
	for _, r := range c.Reopened {
		if by := c.ShowBy[r]; first == 0 || by < first {
			first = by
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(b certification.Blocker) bool {
		return !slices.Contains(c.Reopened, b.Requirement) || c.ShowBy[b.Requirement] > first
	})
}

// shownAgain closes what was reopened and nothing stands in the way of any more.
func (c *Certification) shownAgain(t *registry.Tx, blocked []certification.Blocker) {
	c.Reopened = slices.DeleteFunc(slices.Clone(c.Reopened), func(r string) bool {
		return !slices.ContainsFunc(blocked, func(b certification.Blocker) bool { return b.Requirement == r })
	})
	c.Dues.clear(dueReopened)
	c.Clocks.stop(t, "show-again")
	if len(c.Reopened) > 0 {
		c.dueAgain(t)
		return
	}
	c.Reopened, c.Material, c.ShowBy = nil, nil, nil
}

// blockers is what stands in the way of submitting, each with what to do.
func blockers(all []certification.Blocker) error {
	var errs []error
	for _, b := range all {
		at := "/answers"
		if b.Question != "" {
			at += "/" + b.Question
		}
		errs = append(errs, registry.Field(at, "%s", b.Say))
	}
	return errors.Join(errs...)
}

// forced is why a product is verified whatever a draw says.
func (d *Desk) forced(x *edit) certification.Basis {
	if x.c.Category == "A" {
		return certification.ByCategory
	}
	for id := range x.b.All(registry.Query{Kind: "product", Where: []registry.Where{{Index: "owner", Value: x.p.Owner.String()}}}) {
		if p := x.t.View().Product(id); p != nil && id != x.p.ID && live(p.Certification.State) && p.Certification.State != registry.CertPVT {
			return ""
		}
	}
	return certification.ByFirstTime
}

// Recall takes a self-certification back into a draft, before it is verified.
func (d *Desk) Recall(ctx context.Context, a registry.Actor, product string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Recall, product, m, func(x *edit) error { x.reopen(); return nil })
}

// SendBack gives a self-certification back to be mended. Assessor.
func (d *Desk) SendBack(ctx context.Context, a registry.Actor, product string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, SendBack, product, m, func(x *edit) error {
		if err := checkLine("/reason", m.Reason, true); err != nil {
			return err
		}
		x.reopen()
		return x.tell("your self-certification comes back", m.Reason)
	})
}

func (x *edit) reopen() {
	x.p.Certification = registry.Certification{State: registry.CertDraft}
	x.c.Declared, x.c.Verification = nil, ""
	x.c.Clocks.stop(x.t, "verify")
}

// StartVerification begins to verify the requirements named: all that apply when
// none are. What is looked at, and what comes of it, is assurance's. Assessor.
func (d *Desk) StartVerification(ctx context.Context, a registry.Actor, product string, requirements []string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, StartVerification, product, m, func(x *edit) error {
		if err := x.noOpenVerification(""); err != nil {
			return err
		}
		if x.c.Basis == "" {
			x.c.Basis = adHoc
		}
		var err error
		x.c.Verification, err = d.cfg.Assurance.PlanVerification(x.t, x.p.ID, requirements, x.c.Basis)
		if x.p.Certification.State == registry.CertSelfCertified {
			x.p.Certification.State = registry.CertInVerification
		}
		return err
	})
}

const adHoc certification.Basis = "ad hoc"
