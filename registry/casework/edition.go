package casework

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/edition"
)

// editors propose and publish editions: whoever assesses by the catalogue and
// whoever registers by the terms.
const editors = registry.PermAssessor | registry.PermRegistrar

// The commands of editions.
const (
	proposeEdition  Command = "edition.propose"
	publishEdition  Command = "edition.publish"
	withdrawEdition Command = "edition.withdraw"
)

// ProposeEdition enters a version of the catalogue or of the terms that another
// person then publishes. Nothing follows from it before. Assessor or registrar.
func (d *Desk) ProposeEdition(ctx context.Context, a registry.Actor, e edition.Edition, m registry.Meta) (registry.Outcome, error) {
	if !a.Has(editors) {
		return registry.Outcome{}, fmt.Errorf("%w: %s is for the assessor or the registrar", registry.ErrForbidden, proposeEdition)
	}
	return d.do(ctx, a, proposeEdition, m.Reason, func(t *registry.Tx) error {
		switch {
		case e.Of == edition.Catalogue:
			e.Terms = nil
			if err := e.Describe(); err != nil {
				return err
			}
		case e.Of != edition.TermsOf:
			return registry.Field("/of", "use catalogue or terms")
		default:
			e.Catalogue, e.Questionnaire = "", ""
			if e.Effective == 0 {
				e.Effective = t.Now()
			}
			if e.Terms != nil {
				terms := *e.Terms
				terms.Version = e.Version
				e.Terms = &terms
			}
		}
		b, err := t.Casebook()
		if err != nil {
			return err
		}
		if err := e.Check(d.cfg.Assurance.RulesAt(b), t.Now()); err != nil {
			return err
		}
		if e.Of == edition.TermsOf && e.Version == d.termsAt(b, t.Now()).Version {
			return registry.Field("/version", "the terms in force are version %s already", e.Version)
		}
		e.ID = edition.IDOf(e.Of, e.Version)
		if old, err := registry.TxCase[edition.Edition](t, e.ID); err == nil && old.Body.State != edition.Withdrawn {
			return fmt.Errorf("%w: %s is %s already", registry.ErrState, e.ID, old.Body.State)
		}
		e.State, e.Proposed, e.ProposedBy, e.Published, e.PublishedBy = edition.Proposed, t.Now(), a.Name, 0, ""
		return registry.PutCase(t, e.ID, e)
	})
}

// PublishEdition publishes what somebody else proposed: it takes effect on its
// day by itself. Those whom it will ask something of are told at once, and what
// it asks of them is reopened when it takes effect. Assessor or registrar.
func (d *Desk) PublishEdition(ctx context.Context, a registry.Actor, id string, m registry.Meta) (registry.Outcome, error) {
	return d.judgeEdition(ctx, a, publishEdition, id, m, func(t *registry.Tx, e *edition.Edition) error {
		if e.ProposedBy == a.Name {
			return fmt.Errorf("%w: the one who proposed an edition cannot publish it", registry.ErrForbidden)
		}
		b, err := t.Casebook()
		if err != nil {
			return err
		}
		if err := e.Check(d.cfg.Assurance.RulesAt(b), t.Now()); err != nil {
			return err
		}
		e.State, e.Published, e.PublishedBy = edition.Published, t.Now(), a.Name
		r := Reach{Edition: id, Of: e.Of, Phase: reachReopen, Next: t.Now()}
		if e.Effective > t.Now() {
			r.Phase = reachAnnounce
		}
		return registry.PutCase(t, id, r)
	})
}

// WithdrawEdition takes a proposal back.
func (d *Desk) WithdrawEdition(ctx context.Context, a registry.Actor, id string, m registry.Meta) (registry.Outcome, error) {
	return d.judgeEdition(ctx, a, withdrawEdition, id, m, func(_ *registry.Tx, e *edition.Edition) error {
		e.State = edition.Withdrawn
		return nil
	})
}

func (d *Desk) judgeEdition(ctx context.Context, a registry.Actor, cmd Command, id string, m registry.Meta, change func(*registry.Tx, *edition.Edition) error) (registry.Outcome, error) {
	if !a.Has(editors) {
		return registry.Outcome{}, fmt.Errorf("%w: %s is for the assessor or the registrar", registry.ErrForbidden, cmd)
	}
	return d.do(ctx, a, cmd, m.Reason, func(t *registry.Tx) error {
		e, err := registry.ChangingCase[edition.Edition](t, id, m)
		if err != nil {
			return err
		}
		if e.State != edition.Proposed {
			return fmt.Errorf("%w: the edition is %s, which is an end state", registry.ErrState, e.State)
		}
		if err := change(t, &e); err != nil {
			return err
		}
		return registry.PutCase(t, id, e)
	})
}

// termsAt are the terms in force.
func (d *Desk) termsAt(b *registry.Casebook, now registry.Time) Terms {
	return edition.TermsAt(b, now, d.cfg.Terms)
}

// AcceptTerms accepts the terms in force, which a new version asks for.
func (d *Desk) AcceptTerms(ctx context.Context, a registry.Actor, abn registry.ABN, accept Acceptance, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, AcceptTerms, abn, m, func(t *registry.Tx, r *Registration, _ *registry.Entity) error {
		if err := d.accept(t, a, r, accept); err != nil {
			return err
		}
		if err := t.Lift(r.TermsSuspension, "the terms are accepted"); err != nil {
			return err
		}
		r.TermsNotice, r.TermsSuspension = "", ""
		r.Dues.clear(dueTerms)
		r.Dues.clear(dueTermsNotice)
		r.Clocks.stop(t, "accept-terms")
		return nil
	})
}

// accept checks and keeps an acceptance of the terms in force.
func (d *Desk) accept(t *registry.Tx, a registry.Actor, r *Registration, accept Acceptance) error {
	b, err := t.Casebook()
	if err != nil {
		return err
	}
	if now := d.termsAt(b, t.Now()).Version; accept.Version != now {
		return registry.Field("/terms_version", "the terms in force are %s; read and accept those", now)
	}
	if err := checkLine("/name", accept.Name, true); err != nil {
		return err
	}
	accept.By, accept.At = a.Name, t.Now()
	if len(r.Accepted) >= 50 {
		r.Accepted = r.Accepted[1:]
	}
	r.Accepted = append(slices.Clip(r.Accepted), accept)
	return nil
}

// Affected is one product or entity that an edition asks something of.
type Affected struct {
	ProductID string                   `json:"product_id,omitempty"`
	ABN       registry.ABN             `json:"abn"`
	State     string                   `json:"state"`
	Name      string                   `json:"name"`
	Reopens   []certification.Reopened `json:"reopens,omitempty"`
	Category  string                   `json:"category_becomes,omitempty"` // when it changes
	DueBy     registry.Time            `json:"due_by,omitempty"`           // the first that is due; none of what is still a draft
}

// PreviewEdition lists whom an edition would affect, were it published now: a
// page of them, and how many they are in all.
func (d *Desk) PreviewEdition(ctx context.Context, b *registry.Casebook, c *registry.Case[edition.Edition], offset, limit int) ([]Affected, int, error) {
	now := d.reg.Now()
	e := &c.Body
	v := version{edition: e, binds: e.Binds()}
	if e.State == edition.Proposed {
		v.binds = max(e.Effective, now)
	}
	var err error
	if v.rules, err = d.rulesWith(b, e); err != nil {
		return nil, 0, err
	}
	ids, err := d.previews.of(previewed{c.ID, c.Revision, b.Revision()}, func() ([]string, error) { return d.allAffected(ctx, b, &v, now) })
	if err != nil {
		return nil, 0, err
	}
	out := []Affected{}
	for _, id := range ids[min(offset, len(ids)):min(offset+limit, len(ids))] {
		one, err := d.affected(b, &v, id, now)
		if err != nil {
			return nil, 0, err
		}
		if one != nil {
			out = append(out, *one)
		}
	}
	return out, len(ids), nil
}

// allAffected are the IDs of everybody whom a version affects.
func (d *Desk) allAffected(ctx context.Context, b *registry.Casebook, v *version, now registry.Time) (all []string, err error) {
	for id := range b.All(registry.Query{Kind: kindOf(v.edition.Of)}) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one, err := d.affected(b, v, id, now)
		if err != nil {
			return nil, err
		}
		if one != nil {
			all = append(all, id)
		}
	}
	return all, nil
}

// previews keeps the last preview: looking at a hundred thousand products takes
// seconds, and a list is turned page by page.
type previews struct {
	mu  sync.Mutex
	key previewed
	ids []string
}

type previewed struct {
	id           string
	edition, all registry.Revision
}

func (p *previews) of(key previewed, compute func() ([]string, error)) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key == key {
		return p.ids, nil
	}
	ids, err := compute()
	if err == nil {
		p.key, p.ids = key, ids
	}
	return ids, err
}

// rulesWith are the rules with an edition, published or not.
func (d *Desk) rulesWith(b *registry.Casebook, e *edition.Edition) (*certification.Framework, error) {
	rules := d.cfg.Assurance.RulesAt(b)
	if e.Of != edition.Catalogue || rules.Catalogue(e.Version) != nil {
		return rules, nil
	}
	next, _, err := rules.With([]byte(e.Catalogue), []byte(e.Questionnaire))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", registry.ErrState, strings.TrimPrefix(err.Error(), certification.ErrData.Error()+": "))
	}
	return next, nil
}

// version is an edition with the rules that hold it, and from when it binds.
type version struct {
	edition *edition.Edition
	rules   *certification.Framework
	binds   registry.Time
}

// dueBy is by when what an edition reopens has to be shown: the grace period runs
// from the day it binds, and never ends before those concerned can have heard.
func (v *version) dueBy(at time.Time, now registry.Time) registry.Time {
	grace := registry.At(at) - v.edition.Effective
	return max(v.binds+grace, now+min(grace, registry.Time((7*day).Milliseconds())))
}

func kindOf(of edition.Of) string {
	if of == edition.Catalogue {
		return "product"
	}
	return "entity"
}

// affected is what a version asks of one product or entity; nil when nothing.
func (d *Desk) affected(b *registry.Casebook, v *version, id string, now registry.Time) (*Affected, error) {
	if v.edition.Of == edition.TermsOf {
		return d.affectedEntity(b, v, id, now)
	}
	p := b.View.Product(id)
	if p == nil || p.Certification.State == registry.CertDelisted {
		return nil, nil
	}
	c, err := CertificationOf(b, p)
	if err != nil {
		return nil, err
	}
	a, _ := d.reopens(b, v, p, &c.Body, now)
	return a, nil
}

func (d *Desk) affectedEntity(b *registry.Casebook, v *version, id string, now registry.Time) (*Affected, error) {
	abn, err := registry.ParseABN(id)
	e := b.View.Entity(abn)
	if err != nil || e == nil || e.State != registry.EntityRegistered {
		return nil, err
	}
	r, err := RegistrationOf(b, abn)
	if err != nil {
		return nil, err
	}
	if n := len(r.Body.Accepted); n > 0 && r.Body.Accepted[n-1].Version == v.edition.Version {
		return nil, nil
	}
	grace := v.edition.Effective.Std().AddDate(0, 0, v.edition.GraceDays)
	return &Affected{ABN: abn, Name: e.Name, State: e.State.String(), DueBy: v.dueBy(grace, now)}, nil
}

// reopens is what a version of the catalogue asks of a product, with the case as
// it is afterwards; nil when it is of that version, or a later one, already.
func (d *Desk) reopens(b *registry.Casebook, v *version, p *registry.Product, c *Certification, now registry.Time) (*Affected, *Certification) {
	next := v.rules.Catalogue(v.edition.Version)
	state := p.Certification.State
	x := *c
	if x.Catalogue == "" {
		if !live(state) {
			return nil, nil // it begins with what is in force then
		}
		x.Deployment = d.entered(b, p)
	}
	old := v.rules.Catalogue(x.Catalogue)
	if old == nil {
		old = v.rules.Catalogues[0]
	}
	if !old.Effective.Before(next.Effective.Time) {
		return nil, nil
	}
	profile := x.Deployment.Profile(b.View, p)
	a := &Affected{ProductID: p.ID, ABN: p.Owner, Name: p.Name, State: state.String()}
	category, because := next.Category(&profile, v.rules.Open)
	if category != x.Category {
		a.Category = string(category)
	}
	x.Catalogue, x.Category, x.Because = next.Version, category, because
	found := old.Reopens(next, &profile, v.rules.Open)
	for i := range found {
		due := v.dueBy(found[i].DueBy, now)
		found[i].DueBy = due.Std()
		if state != registry.CertDraft && (a.DueBy == 0 || due < a.DueBy) {
			a.DueBy = due
		}
	}
	a.Reopens = found
	return a, &x
}

// entered is the deployment of a product that was entered before there were
// cases, as far as the register tells.
func (d *Desk) entered(b *registry.Casebook, p *registry.Product) Deployment {
	profile := d.cfg.Assurance.Profile(b, p)
	out := Deployment{ClientControlled: profile.ClientControlled, Commercial: profile.Commercial, Records: profile.Records}
	for _, e := range p.Entitlements {
		if e.Environment == registry.PROD && !slices.Contains(out.Services, e.Service) {
			out.Services = append(out.Services, e.Service)
		}
	}
	return out
}
