package control

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/people"
)

// Who acts for an entity, and tokens for programs.

type tokenView struct {
	ID          string        `json:"id"`
	Name        string        `json:"name"`
	Owner       string        `json:"owner"`
	Entity      registry.ABN  `json:"entity,omitempty"`
	Permissions []string      `json:"permissions"`
	Made        registry.Time `json:"made_at"`
	Expires     registry.Time `json:"expires_at"`
	Token       string        `json:"token,omitempty" doc:"Once, when it is made: it is kept nowhere."`
}

type tokenBody struct {
	Name        string        `json:"name" minLength:"1" maxLength:"80" doc:"What it is for."`
	Permissions []string      `json:"permissions,omitempty" maxItems:"6" doc:"Of your own; all of them by default."`
	Expires     registry.Time `json:"expires_at" doc:"Within a year."`
}

type memberView struct {
	ID        string        `json:"id,omitempty" doc:"Left out for the entity's registered contact, who changes with it."`
	Email     string        `json:"email"`
	Entity    registry.ABN  `json:"entity"`
	Since     registry.Time `json:"since,omitempty"`
	InvitedBy string        `json:"invited_by,omitempty"`
}

type invitationView struct {
	ID      string        `json:"id"`
	Email   string        `json:"email"`
	Entity  registry.ABN  `json:"entity"`
	By      string        `json:"by"`
	Expires registry.Time `json:"expires_at"`
	Code    string        `json:"code,omitempty" doc:"Once, when it is made: hand it to the person, who signs in and gives it back."`
}

type invitationBody struct {
	Email  string       `json:"email" minLength:"3" maxLength:"200"`
	Entity registry.ABN `json:"entity,omitempty" doc:"Default: your own."`
}

type acceptBody struct {
	Code string `json:"code" minLength:"1" maxLength:"200"`
}

type actorKey struct{}

// As is a context in which requests to the API's handler are those of a person
// who has signed in in this process, without a bearer token.
func As(ctx context.Context, person registry.Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, person)
}

// authenticate finds out who calls: a person that the console vouches for, a
// program by the token file, or one by a token that a person made.
func (s *server) authenticate(c *call) (a registry.Actor, err error) {
	if a, c.person = c.r.Context().Value(actorKey{}).(registry.Actor); c.person {
		return a, nil
	}
	a, err = s.auth.Authenticate(c.r)
	if !errors.Is(err, errUnauthenticated) {
		return a, err
	}
	secret, ok := bearer(c.r)
	if !ok || !strings.HasPrefix(secret, "dspgate_") {
		return a, err
	}
	book, berr := s.reg.Casebook()
	if berr != nil {
		return a, berr
	}
	if p, ok := people.Program(book, secret, registry.At(s.now())); ok {
		return p, nil
	}
	return a, err
}

// bearer is the request's one bearer token.
func bearer(r *http.Request) (string, bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != "" && len(token) <= bearerBytesMax
}

func (s *server) people() people.Book { return people.Book{Register: s.reg} }

func viewToken(t *registry.Case[people.Token], secret string) tokenView {
	return tokenView{
		ID: t.ID, Name: t.Body.Name, Owner: t.Body.Owner, Entity: t.Body.Entity, Permissions: t.Body.Permissions,
		Made: t.Body.Made, Expires: t.Body.Expires, Token: secret,
	}
}

func (s *server) listTokens(c *call) (answer, error) {
	book, err := s.reg.Casebook()
	if err != nil {
		return answer{}, err
	}
	tokens := people.TokensOf(book, c.actor.Name, c.at)
	slices.SortFunc(tokens, func(a, b registry.Case[people.Token]) int { return cmp.Compare(b.Body.Made, a.Body.Made) })
	return paged(c, tokens, nil, func(t registry.Case[people.Token]) any { return viewToken(&t, "") })
}

func (s *server) makeToken(c *call, in *tokenBody) (answer, error) {
	t, secret, err := s.people().MakeToken(c.r.Context(), c.actor, people.Grant{Name: in.Name, Permissions: in.Permissions, Expires: in.Expires})
	if t == nil {
		return answer{}, err
	}
	return answer{outcome: created, data: viewToken(t, secret)}, committedOr(viewToken(t, secret), err)
}

// committedOr is nil, or the error of what was committed all the same.
func committedOr(data any, err error) error {
	if err == nil {
		return nil
	}
	return &committedError{data, err}
}

func (s *server) revokeToken(c *call) (answer, error) {
	t, err := s.people().RevokeToken(c.r.Context(), c.actor, c.path("id"))
	if t == nil {
		return answer{}, err
	}
	return answer{data: viewToken(t, "")}, committedOr(viewToken(t, ""), err)
}

// entityAsked is the entity that a listing or an invitation is about.
func (c *call) entityAsked(abn registry.ABN) (registry.ABN, error) {
	switch {
	case abn == 0:
		abn = c.actor.Entity
	case !c.actor.MaySee(abn):
		return 0, notFound(registry.KindEntity, abn.String())
	}
	if abn == 0 {
		return 0, wrongParam("entity", "name the entity: you act for none yourself")
	}
	if c.view.Entity(abn) == nil {
		return 0, notFound(registry.KindEntity, abn.String())
	}
	return abn, nil
}

func (s *server) listPeople(c *call) (answer, error) {
	asked, _, err := c.filterABN("entity")
	if err != nil {
		return answer{}, err
	}
	abn, err := c.entityAsked(asked)
	if err != nil {
		return answer{}, err
	}
	book, err := s.reg.Casebook()
	if err != nil {
		return answer{}, err
	}
	all := []memberView{{Email: c.view.Entity(abn).Contact, Entity: abn}}
	for id := range book.All(registry.Query{Kind: "member", Where: []registry.Where{{Index: "entity", Value: abn.String()}}}) {
		if m, err := registry.CaseOf[people.Member](book, id); err == nil {
			all = append(all, memberView{ID: m.ID, Email: m.Body.Email, Entity: abn, Since: m.Body.Since, InvitedBy: m.Body.InvitedBy})
		}
	}
	return paged(c, all, nil, func(m memberView) any { return m })
}

func (s *server) removePerson(c *call) (answer, error) {
	m, err := s.people().Remove(c.r.Context(), c.actor, c.path("id"))
	if m == nil {
		return answer{}, err
	}
	v := memberView{ID: m.ID, Email: m.Body.Email, Entity: m.Body.Entity, Since: m.Body.Since, InvitedBy: m.Body.InvitedBy}
	return answer{data: v}, committedOr(v, err)
}

func viewInvitation(i *registry.Case[people.Invitation], code string) invitationView {
	return invitationView{ID: i.ID, Email: i.Body.Email, Entity: i.Body.Entity, By: i.Body.By, Expires: i.Body.Expires, Code: code}
}

func (s *server) listInvitations(c *call) (answer, error) {
	asked, _, err := c.filterABN("entity")
	if err != nil {
		return answer{}, err
	}
	abn, err := c.entityAsked(asked)
	if err != nil {
		return answer{}, err
	}
	book, err := s.reg.Casebook()
	if err != nil {
		return answer{}, err
	}
	all := []*registry.Case[people.Invitation]{}
	for id := range book.All(registry.Query{Kind: "invitation", Where: []registry.Where{{Index: "entity", Value: abn.String()}}}) {
		if i, err := registry.CaseOf[people.Invitation](book, id); err == nil && c.at < i.Body.Expires {
			all = append(all, i)
		}
	}
	return paged(c, all, nil, func(i *registry.Case[people.Invitation]) any { return viewInvitation(i, "") })
}

func (s *server) invite(c *call, in *invitationBody) (answer, error) {
	abn, err := c.entityAsked(in.Entity)
	if err != nil {
		return answer{}, err
	}
	i, code, err := s.people().Invite(c.r.Context(), c.actor, in.Email, abn)
	if i == nil {
		return answer{}, err
	}
	return answer{outcome: created, data: viewInvitation(i, code)}, committedOr(viewInvitation(i, code), err)
}

func (s *server) withdraw(c *call) (answer, error) {
	i, err := s.people().Withdraw(c.r.Context(), c.actor, c.path("id"))
	if i == nil {
		return answer{}, err
	}
	return answer{data: viewInvitation(i, "")}, committedOr(viewInvitation(i, ""), err)
}

func (s *server) accept(c *call, in *acceptBody) (answer, error) {
	m, err := s.people().Accept(c.r.Context(), c.actor, in.Code)
	if m == nil {
		return answer{}, err
	}
	v := memberView{ID: m.ID, Email: m.Body.Email, Entity: m.Body.Entity, Since: m.Body.Since, InvitedBy: m.Body.InvitedBy}
	return answer{outcome: created, data: v}, committedOr(v, err)
}
