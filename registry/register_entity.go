package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// CreateEntity registers an entity. Registrar.
func (r *Register) CreateEntity(ctx context.Context, a Actor, e Entity, m Meta) (Result[Entity], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Entity]{}, err
	}
	return do[Entity](ctx, r, a, "entity.create", m.Reason, func(t *tx) error {
		if err := checkEntity(&e); err != nil {
			return err
		}
		if err := creating[Entity](t, e.ABN.String()); err != nil {
			return err
		}
		e.Updated = t.now
		return t.put(KindEntity, e.ABN.String(), &e)
	})
}

// UpdateEntity replaces an entity. Registrar. Cancelled is an end state, and
// a Rejected or Lapsed entity applies again (Draft or Submitted) first.
func (r *Register) UpdateEntity(ctx context.Context, a Actor, e Entity, m Meta) (Result[Entity], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Entity]{}, err
	}
	return do[Entity](ctx, r, a, "entity.update", m.Reason, func(t *tx) error {
		if err := checkEntity(&e); err != nil {
			return err
		}
		old, err := changing[Entity](t, e.ABN.String(), m)
		if err != nil {
			return err
		}
		if next := entityNext[old.State]; e.State != old.State && !slices.Contains(next, e.State) {
			return stateError("entity", old.State.String(), e.State.String(), next)
		}
		e.Updated = t.now
		return t.put(KindEntity, e.ABN.String(), &e)
	})
}

// entityNext are the legal changes of an entity's registration (domain model §3).
var entityNext = [...][]EntityState{
	EntityDraft:      {EntitySubmitted, EntityCancelled},
	EntitySubmitted:  {EntityDraft, EntityChecking, EntityRejected, EntityCancelled},
	EntityChecking:   {EntityRegistered, EntityRejected, EntityCancelled},
	EntityRegistered: {EntityChecking, EntityLapsed, EntityCancelled},
	EntityRejected:   {EntityDraft, EntitySubmitted, EntityCancelled},
	EntityCancelled:  nil,
	EntityLapsed:     {EntityDraft, EntitySubmitted, EntityChecking, EntityCancelled},
}

func stateError[S fmt.Stringer](what, from, to string, allowed []S) error {
	if len(allowed) == 0 {
		return fmt.Errorf("%w: the %s is %s, which is an end state", ErrState, what, from)
	}
	words := make([]string, len(allowed))
	for i, s := range allowed {
		words[i] = s.String()
	}
	return fmt.Errorf("%w: the %s is %s and cannot become %s; next may be %s", ErrState, what, from, to, strings.Join(words, ", "))
}

func checkEntity(e *Entity) error {
	if err := checkABN("/abn", e.ABN); err != nil {
		return err
	}
	if err := checkText("/name", e.Name, nameBytesMax, true); err != nil {
		return err
	}
	if e.State.String() == "" {
		return Field("/state", "is unknown")
	}
	if len(e.Roles) > 8 {
		return Field("/roles", "at most 8")
	}
	for i, role := range e.Roles {
		if err := checkWord(at("/roles", i, ""), string(role), string(RoleDeveloper), string(RoleServiceProvider), string(RoleCloudProvider), string(RoleInHouse)); err != nil {
			return err
		}
		if slices.Contains(e.Roles[:i], role) {
			return Field(at("/roles", i, ""), "%s stands twice", role)
		}
	}
	if e.Contact != "" {
		if err := checkText("/contact", e.Contact, nameBytesMax, false); err != nil {
			return err
		}
		if local, domain, ok := strings.Cut(e.Contact, "@"); !ok || local == "" || domain == "" || strings.ContainsAny(e.Contact, " ,;<>\"") || strings.Contains(domain, "@") {
			return Field("/contact", "is no e-mail address")
		}
	}
	if len(e.Checks) > 32 {
		return Field("/checks", "at most 32")
	}
	for i := range e.Checks {
		c := &e.Checks[i]
		if err := checkID(at("/checks", i, "name"), c.Name); err != nil {
			return err
		}
		if err := checkWord(at("/checks", i, "outcome"), c.Outcome, "pass", "fail", "pending"); err != nil {
			return err
		}
		if err := checkReason(at("/checks", i, "source"), c.Source, false); err != nil {
			return err
		}
		if err := checkOrder(at("/checks", i, "at"), c.At, at("/checks", i, "expires_at"), c.Expires); err != nil {
			return err
		}
	}
	return nil
}

// need refuses an actor without any of the permissions.
func need(a Actor, p Permission) error {
	if a.Has(p) {
		return nil
	}
	var words []string
	for _, w := range []string{"registrar", "assessor", "operator", "incident-officer", "developer"} {
		if permissionWords[w]&p != 0 {
			words = append(words, w)
		}
	}
	return fmt.Errorf("%w: needs the permission %s", ErrForbidden, strings.Join(words, " or "))
}
