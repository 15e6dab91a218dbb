package control

import (
	"errors"
	"fmt"

	"github.com/dspgate/dspgate/registry"
)

type entityBody struct {
	ABN     registry.ABN    `json:"abn"`
	Name    string          `json:"name" minLength:"1" maxLength:"200"`
	Roles   []registry.Role `json:"roles,omitempty" maxItems:"8"`
	Contact string          `json:"contact,omitempty" maxLength:"200" doc:"E-mail of the developer sign-in."`
	Reason  string          `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) listEntities(c *call) (answer, error) {
	state, byState, err := filterText[registry.EntityState](c, "state")
	if err != nil {
		return answer{}, err
	}
	words, err := c.filterWords("name")
	if err != nil {
		return answer{}, err
	}
	keep := func(e *registry.Entity) bool {
		return c.actor.MaySee(e.ABN) && (!byState || e.State == state) && hasWords(e.Name+" "+e.ABN.String(), words)
	}
	b := s.book(c)
	switch {
	case b == nil:
		return s.eligible(c)(paged(c, s.lists.entities.get(c.view, (*registry.View).Entities), func(e *registry.Entry[registry.Entity]) bool { return keep(&e.Value) }, show))
	case !c.actor.Staff():
		return picked(c, recordsOf(c.view, registry.KindEntity, []string{c.actor.Entity.String()}), keep)
	}
	where := whereWords(words)
	if byState {
		where = append(where, registry.Where{Index: "state", Value: state.String()})
	}
	return s.eligible(c)(c.indexed(b, registry.KindEntity, where))
}

func (s *server) getEntity(c *call) (answer, error) {
	return s.eligible(c)(c.one(registry.KindEntity, c.path("abn")))
}

// seesEligibility tells whether the actor may see what came of eligibility
// checks: the entity itself of its own, and those of staff whom the framework's
// configuration names.
func (s *server) seesEligibility(a registry.Actor) bool {
	if !a.Staff() {
		return true // nobody else's is shown to it at all
	}
	return a.Has(s.eligibility())
}

// eligibility is of staff that may see what came of eligibility checks.
func (s *server) eligibility() (p registry.Permission) {
	if s.casework == nil {
		return registry.PermRegistrar
	}
	for _, word := range s.casework.Framework().Open.EligibilitySeenBy {
		one, _ := registry.ParsePermission(word) // Open.Check knows every one
		p |= one
	}
	return p
}

// eligible takes the outcomes of checks out of what is shown of entities to
// those who may not see them.
func (s *server) eligible(c *call) func(answer, error) (answer, error) {
	bare := func(one any) any {
		r, ok := one.(record)
		e, is := r.value.(*registry.Entity)
		if !ok || !is || len(e.Checks) == 0 {
			return one
		}
		next := *e
		next.Checks = nil
		return record{&next, r.rev}
	}
	return func(a answer, err error) (answer, error) {
		if err != nil || s.seesEligibility(c.actor) {
			return a, err
		}
		if all, ok := a.data.([]any); ok {
			for i := range all {
				all[i] = bare(all[i])
			}
			return a, nil
		}
		a.data = bare(a.data)
		return a, nil
	}
}

func (s *server) createEntity(c *call, in *entityBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.CreateEntity(c.r.Context(), c.actor, registry.Entity{ABN: in.ABN, Name: in.Name, Roles: in.Roles, Contact: in.Contact}, m)
	return changed(r, err, created)
}

func (s *server) updateEntity(c *call, in *entityUpdate) (answer, error) {
	return s.editEntity(c, in.Reason, func(e *registry.Entity) {
		e.Name, e.Roles, e.Contact = in.Name, in.Roles, in.Contact
	})
}

// entityUpdate is the body of a change. The state is the registration's to change.
type entityUpdate struct {
	Name    string          `json:"name" minLength:"1" maxLength:"200"`
	Roles   []registry.Role `json:"roles,omitempty" maxItems:"8"`
	Contact string          `json:"contact,omitempty" maxLength:"200" doc:"E-mail of the developer sign-in."`
	Reason  string          `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

// editEntity changes a part of an entity, leaving the rest as it is. Without an
// If-Match of the caller it tries again when somebody else was faster.
func (s *server) editEntity(c *call, reason string, edit func(*registry.Entity)) (answer, error) {
	m, err := c.meta(reason)
	if err != nil {
		return answer{}, err
	}
	abn, err := c.entityOf()
	if err != nil {
		return answer{}, err
	}
	given := m.IfMatch
	for range rereadsMax {
		view, err := s.reg.View()
		if err != nil {
			return answer{}, err
		}
		value, rev, ok := view.Entry(registry.KindEntity, abn.String())
		if !ok {
			return answer{}, notFound(registry.KindEntity, abn.String())
		}
		next := *value.(*registry.Entity)
		edit(&next)
		if m.IfMatch = given; given == 0 {
			m.IfMatch = rev
		}
		r, err := s.reg.UpdateEntity(c.r.Context(), c.actor, next, m)
		if given == 0 && errors.Is(err, registry.ErrPrecondition) {
			continue
		}
		return changed(r, err, found)
	}
	return answer{}, fmt.Errorf("%w: the entity changes faster than it can be read; try again", registry.ErrConflict)
}

func (s *server) listChecks(c *call) (answer, error) {
	abn, err := c.entityOf()
	if err != nil {
		return answer{}, err
	}
	e := c.view.Entity(abn)
	if e == nil {
		return answer{}, notFound(registry.KindEntity, abn.String())
	}
	return paged(c, e.Checks, nil, func(k registry.Check) any { return k })
}
