package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// Desk is every command on policies and alarms. Its fields are set before the
// first.
type Desk struct {
	Register *registry.Register
	// Incidents takes what policies raise. Nil: nothing is raised.
	Incidents *incident.Desk
	// ShadowLeast is for how long a version must have been in shadow before it is
	// enforced.
	ShadowLeast time.Duration
}

// CaseTypes are the kinds of casework that a Desk writes.
func CaseTypes() []registry.CaseType {
	return []registry.CaseType{registry.CaseTypeOf[Policy](), registry.CaseTypeOf[Alarm](), registry.CaseTypeOf[ProtectedList]()}
}

const writers = registry.PermIncidentOfficer | registry.PermOperator

func needWriter(a registry.Actor) error {
	if a.Has(writers) {
		return nil
	}
	return fmt.Errorf("%w: policies and alarms are the work of incident officers and operators", registry.ErrForbidden)
}

// Propose writes a version of a policy, which begins in shadow; the policy
// itself, where there is none of the name yet. An empty purpose keeps the one
// there is.
func (d *Desk) Propose(ctx context.Context, a registry.Actor, id, purpose string, r Rule, m registry.Meta) (registry.Outcome, error) {
	return d.Register.Do(ctx, a, "policy.propose", m.Reason, func(t *registry.Tx) error {
		if err := needWriter(a); err != nil {
			return err
		}
		p, err := registry.ChangingCase[Policy](t, id, m)
		switch {
		case errors.Is(err, registry.ErrNotFound) && m.IfMatch == 0:
			book, err := t.Casebook()
			if err != nil {
				return err
			}
			if _, n := book.Find(registry.Query{Kind: "policy"}); n >= PoliciesMax {
				return registry.Field("/id", "there are %d policies already, which is the most; write a version of one of them", n)
			}
			p = Policy{ID: id}
		case err != nil:
			return err
		}
		if purpose != "" || p.Purpose == "" {
			p.Purpose = purpose
		}
		if err := p.Check(); err != nil {
			return err
		}
		if err := incident.CheckText(p.Purpose); err != nil {
			return registry.Field("/purpose", "%v", err)
		}
		for pointer, ids := range map[string][]string{"/when/products": r.When.Products, "/when/except": r.When.Except} {
			for i, id := range ids {
				if t.View().Product(id) == nil {
					return registry.Field(fmt.Sprintf("%s/%d", pointer, i), "no product %s is in the register", cut(id))
				}
			}
		}
		if r.Then.Incident != "" && !incident.Type(r.Then.Incident).Known() {
			return registry.Field("/then/incident_type", "%q is no type of incident", cut(r.Then.Incident))
		}
		if err := p.Propose(r, step(t, m.Reason)); err != nil {
			return err
		}
		return registry.PutCase(t, id, p)
	})
}

func step(t *registry.Tx, reason string) Step {
	return Step{By: t.Actor().Name, At: t.Now(), Reason: reason}
}

// change runs one command on a policy.
func (d *Desk) change(ctx context.Context, a registry.Actor, id, command string, m registry.Meta, edit func(t *registry.Tx, p *Policy) error) (registry.Outcome, error) {
	return d.Register.Do(ctx, a, "policy."+command, m.Reason, func(t *registry.Tx) error {
		if err := needWriter(a); err != nil {
			return err
		}
		p, err := registry.ChangingCase[Policy](t, id, m)
		if err != nil {
			return err
		}
		if err := edit(t, &p); err != nil {
			return err
		}
		return registry.PutCase(t, id, p)
	})
}

// Enforce asks for the version in shadow to be enforced, or, by another person,
// approves.
func (d *Desk) Enforce(ctx context.Context, a registry.Actor, id string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "enforce", m, func(t *registry.Tx, p *Policy) error {
		if strings.TrimSpace(m.Reason) == "" {
			return registry.Field("/reason", "say why: what it said in shadow, and who looked at that")
		}
		if _, err := p.Enforce(step(t, m.Reason), d.ShadowLeast); err != nil {
			return err
		}
		return screen(t, p)
	})
}

// Relax puts the enforced version back into shadow. What it has imposed stays
// until it ends or is lifted.
func (d *Desk) Relax(ctx context.Context, a registry.Actor, id string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "relax", m, func(t *registry.Tx, p *Policy) error {
		if err := p.Relax(step(t, m.Reason)); err != nil {
			return err
		}
		return screen(t, p)
	})
}

// Stop ends a policy; its versions and alarms stay to be read.
func (d *Desk) Stop(ctx context.Context, a registry.Actor, id string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "stop", m, func(t *registry.Tx, p *Policy) error {
		p.Stop(step(t, m.Reason))
		return screen(t, p)
	})
}

// screen tells the sidecars what the policy says of single calls, in the same
// change.
func screen(t *registry.Tx, p *Policy) error {
	if v := p.version(p.Enforced); v != nil && v.Then.Do == Deny {
		return t.Screen(v.Rule.Screen(p.ID))
	}
	return t.Unscreen(p.ID)
}

// Confirm says that an alarm was right, and when it began, as far as anybody
// knows by now (not set: with its first signal).
func (d *Desk) Confirm(ctx context.Context, a registry.Actor, id string, began registry.Time, m registry.Meta) (registry.Outcome, error) {
	return d.judge(ctx, a, id, "confirm", m, func(t *registry.Tx, x *Alarm) error {
		if began > x.RaisedAt {
			return registry.Field("/began_at", "it was seen at %s already", x.RaisedAt)
		}
		x.State, x.BeganAt = Confirmed, began
		return nil
	})
}

// Dismiss says that an alarm was false; its policy then says nothing of the
// subject for RestAfter. A measure it took is lifted by whoever may.
func (d *Desk) Dismiss(ctx context.Context, a registry.Actor, id string, m registry.Meta) (registry.Outcome, error) {
	return d.judge(ctx, a, id, "dismiss", m, func(_ *registry.Tx, x *Alarm) error {
		if strings.TrimSpace(m.Reason) == "" {
			return registry.Field("/reason", "say why it was a false alarm")
		}
		x.State = Dismissed
		return nil
	})
}

func (d *Desk) judge(ctx context.Context, a registry.Actor, id, command string, m registry.Meta, edit func(*registry.Tx, *Alarm) error) (registry.Outcome, error) {
	return d.Register.Do(ctx, a, "alarm."+command, m.Reason, func(t *registry.Tx) error {
		if err := needWriter(a); err != nil {
			return err
		}
		x, err := registry.ChangingCase[Alarm](t, id, m)
		if err != nil {
			return err
		}
		if err := edit(t, &x); err != nil {
			return err
		}
		s := step(t, m.Reason)
		x.Judged = &s
		return registry.PutCase(t, id, x)
	})
}

// EffectOf measures a policy by its alarms.
func EffectOf(book *registry.Casebook, id string) (Effect, error) {
	var failed error
	e := Measure(id, func(yield func(*Alarm) bool) {
		for alarm := range book.All(registry.Query{Kind: "alarm", Where: []registry.Where{{Index: "policy", Value: id}}}) {
			c, err := registry.CaseOf[Alarm](book, alarm)
			if err != nil {
				failed = err
				return
			}
			if !yield(&c.Body) {
				return
			}
		}
	}, func(id string) registry.Time {
		c, err := registry.CaseOf[incident.Incident](book, id)
		if err != nil {
			return 0
		}
		return c.Body.ContainedAt()
	})
	return e, failed
}

// ActiveIn are the versions to evaluate, of all policies.
func ActiveIn(book *registry.Casebook) ([]Active, error) {
	var all []Active
	for id := range book.All(registry.Query{Kind: "policy"}) {
		c, err := registry.CaseOf[Policy](book, id)
		if err != nil {
			return nil, err
		}
		all = append(all, c.Body.Active()...)
	}
	return all, nil
}
