// Package people is who acts for an entity, and which programs act for whom.
//
// A person is a verified email address. The person whose address is an
// entity's registered contact acts for it; others join by an invitation of
// somebody who does. A token lets a program act as the person who made it, with
// no more permissions, until it expires or is revoked.
//
// Invariants:
//
//   - Secrets are never kept, only their SHA-256 sums; they have 128 random bits
//     or more, so that a sum cannot be guessed back.
//   - A token acts under its owner's own name: who imposed a suspension as
//     themselves cannot lift it with a token.
//   - Nobody acts for an entity whose registration was rejected or cancelled.
//
// All of it is casework: sealed, committed in one step, with its leaf in the
// audit log.
package people

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Bounds.
const (
	emailBytesMax  = 200
	nameBytesMax   = 80
	invitationLife = 7 * 24 * time.Hour
	TokenLifeMax   = 365 * 24 * time.Hour
	openMax        = 50 // invitations of one entity, or tokens of one person
	membersMax     = 100
	secretBytesMax = 200
	tokenPrefix    = "dspgate_"
	invitePrefix   = "invite_"
	emailKey       = "email"
	entityKey      = "entity"
	sumKey         = "sum"
	ownerKey       = "owner"
	memberIDPrefix = "ME-"
	invitePrefixID = "IN-"
	tokenIDPrefix  = "TK-"
	minuteOfGrace  = time.Minute
)

// Member is one person who acts for an entity beside its contact.
type Member struct {
	Email     string        `json:"email"`
	Entity    registry.ABN  `json:"entity"`
	Since     registry.Time `json:"since"`
	InvitedBy string        `json:"invited_by"`
	RemovedAt registry.Time `json:"removed_at,omitempty"`
}

// CaseKind implements registry.CaseBody.
func (Member) CaseKind() registry.CaseKind { return "member" }

// CaseKeys implements registry.CaseIndexer.
func (m Member) CaseKeys(add func(index, value string)) {
	if !m.RemovedAt.Set() {
		add(emailKey, m.Email)
		add(entityKey, m.Entity.String())
	}
}

// Invitation asks one person to act for an entity.
type Invitation struct {
	Email      string        `json:"email"`
	Entity     registry.ABN  `json:"entity"`
	By         string        `json:"by"`
	Made       registry.Time `json:"made"`
	Expires    registry.Time `json:"expires_at"`
	Sum        string        `json:"sum"`
	AcceptedAt registry.Time `json:"accepted_at,omitempty"`
	RevokedAt  registry.Time `json:"revoked_at,omitempty"`
}

// CaseKind implements registry.CaseBody.
func (Invitation) CaseKind() registry.CaseKind { return "invitation" }

// CaseKeys implements registry.CaseIndexer.
func (i Invitation) CaseKeys(add func(index, value string)) {
	if !i.AcceptedAt.Set() && !i.RevokedAt.Set() {
		add(sumKey, i.Sum)
		add(entityKey, i.Entity.String())
	}
}

// Token lets a program act as its owner.
type Token struct {
	Name        string        `json:"name"`
	Owner       string        `json:"owner"`
	Entity      registry.ABN  `json:"entity,omitempty"`
	Permissions []string      `json:"permissions"`
	Made        registry.Time `json:"made"`
	Expires     registry.Time `json:"expires_at"`
	Sum         string        `json:"sum"`
	RevokedAt   registry.Time `json:"revoked_at,omitempty"`
	RevokedBy   string        `json:"revoked_by,omitempty"`
}

// CaseKind implements registry.CaseBody.
func (Token) CaseKind() registry.CaseKind { return "api-token" }

// CaseKeys implements registry.CaseIndexer.
func (t Token) CaseKeys(add func(index, value string)) {
	add(ownerKey, t.Owner)
	if !t.RevokedAt.Set() {
		add(sumKey, t.Sum)
	}
}

// Types are the casework of this package, for registry.RegisterConfig.
func Types() []registry.CaseType {
	return []registry.CaseType{registry.CaseTypeOf[Member](), registry.CaseTypeOf[Invitation](), registry.CaseTypeOf[Token]()}
}

// ParseEmail normalises an address: lower case, ASCII, no name before it.
func ParseEmail(pointer, s string) (string, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	a, err := mail.ParseAddress(s)
	ascii := !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
	if err != nil || a.Address != s || len(s) > emailBytesMax || !ascii {
		return "", registry.Field(pointer, "is no email address such as dev@wattlebird.example")
	}
	return s, nil
}

// ActsFor lists, sorted, the entities that a person acts for.
func ActsFor(book *registry.Casebook, email string) []registry.ABN {
	var out []registry.ABN
	add := func(abn registry.ABN) {
		e := book.View.Entity(abn)
		if e != nil && e.State != registry.EntityRejected && e.State != registry.EntityCancelled && !slices.Contains(out, abn) {
			out = append(out, abn)
		}
	}
	for id := range book.All(registry.Query{Kind: "member", Where: []registry.Where{{Index: emailKey, Value: email}}}) {
		if m, err := registry.CaseOf[Member](book, id); err == nil {
			add(m.Body.Entity)
		}
	}
	for _, e := range book.View.Entities() {
		if strings.EqualFold(e.Value.Contact, email) {
			add(e.Value.ABN)
		}
	}
	slices.Sort(out)
	return out
}

// Acts tells whether a person acts for an entity.
func Acts(book *registry.Casebook, email string, abn registry.ABN) bool {
	e := book.View.Entity(abn)
	if e == nil || e.State == registry.EntityRejected || e.State == registry.EntityCancelled {
		return false
	}
	if strings.EqualFold(e.Contact, email) {
		return true
	}
	for id := range book.All(registry.Query{Kind: "member", Where: []registry.Where{{Index: emailKey, Value: email}, {Index: entityKey, Value: abn.String()}}}) {
		_ = id
		return true
	}
	return false
}

// newSecret makes a secret with its sum.
func newSecret(ctx context.Context, prefix string) (secret, sum string) {
	secret = prefix + registry.Secret(ctx, prefix)
	return secret, Sum(secret)
}

// Sum is the sum of a secret as it is kept.
func Sum(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}

// sole finds the one case with a value of an index; "" when there is none.
func sole(book *registry.Casebook, kind, index, value string) string {
	for id := range book.All(registry.Query{Kind: kind, Where: []registry.Where{{Index: index, Value: value}}}) {
		return id
	}
	return ""
}

func count(book *registry.Casebook, kind, index, value string) int {
	_, n := book.Find(registry.Query{Kind: kind, Where: []registry.Where{{Index: index, Value: value}}, Limit: 1})
	return n
}

// Book is every command about people.
type Book struct{ Register *registry.Register }

// mayAdmit: who acts for the entity, and registrars, let others in and out.
func mayAdmit(a registry.Actor, abn registry.ABN) error {
	if a.Has(registry.PermRegistrar) || a.Has(registry.PermDeveloper) && a.Entity == abn && abn != 0 {
		return nil
	}
	if a.Staff() {
		return fmt.Errorf("%w: registrars and the entity's own people do this", registry.ErrForbidden)
	}
	return fmt.Errorf("%w: no entity %s that you act for", registry.ErrNotFound, abn)
}

// Invite asks a person to act for an entity and returns the secret of the
// invitation, which is kept nowhere: hand it to the person.
func (b Book) Invite(ctx context.Context, a registry.Actor, email string, abn registry.ABN) (*registry.Case[Invitation], string, error) {
	if err := mayAdmit(a, abn); err != nil {
		return nil, "", err
	}
	email, err := ParseEmail("/email", email)
	if err != nil {
		return nil, "", err
	}
	secret, sum := newSecret(ctx, invitePrefix)
	out, err := b.Register.Do(ctx, a, "person.invite", "", func(t *registry.Tx) error {
		book, err := t.Casebook()
		if err != nil {
			return err
		}
		switch e := t.View().Entity(abn); {
		case e == nil:
			return registry.Field("/entity", "no entity %s is registered", abn)
		case e.State == registry.EntityRejected || e.State == registry.EntityCancelled:
			return fmt.Errorf("%w: the entity is %s; nobody acts for it", registry.ErrState, e.State)
		case Acts(book, email, abn):
			return fmt.Errorf("%w: this person acts for the entity already", registry.ErrState)
		case count(book, "invitation", entityKey, abn.String()) >= openMax, count(book, "member", entityKey, abn.String()) >= membersMax:
			return fmt.Errorf("%w: the entity has too many people or open invitations; remove some first", registry.ErrState)
		}
		return registry.CreateCase(t, fmt.Sprintf("%s%d", invitePrefixID, t.Revision()), Invitation{
			Email: email, Entity: abn, By: a.Name, Made: t.Now(), Expires: t.Now() + registry.Time(invitationLife.Milliseconds()), Sum: sum,
		})
	})
	c, err := result[Invitation](out, err)
	return c, secret, err
}

// Accept makes the person who holds the secret of an invitation, and is the one
// it is for, act for the entity.
func (b Book) Accept(ctx context.Context, a registry.Actor, secret string) (*registry.Case[Member], error) {
	wrong := registry.Field("/code", "is no open invitation of yours: it may have been used, taken back, or be older than 7 days; ask for another")
	if !strings.HasPrefix(secret, invitePrefix) || len(secret) > secretBytesMax {
		return nil, wrong
	}
	out, err := b.Register.Do(ctx, a, "person.join", "", func(t *registry.Tx) error {
		book, err := t.Casebook()
		if err != nil {
			return err
		}
		id := sole(book, "invitation", sumKey, Sum(secret))
		if id == "" {
			return wrong
		}
		inv, err := registry.TxCase[Invitation](t, id)
		if err != nil {
			return err
		}
		i := inv.Body
		if i.Email != a.Name || t.Now() >= i.Expires || t.View().Entity(i.Entity) == nil {
			return wrong
		}
		i.AcceptedAt = t.Now()
		if err := registry.PutCase(t, id, i); err != nil {
			return err
		}
		return registry.CreateCase(t, fmt.Sprintf("%s%d", memberIDPrefix, t.Revision()), Member{Email: i.Email, Entity: i.Entity, Since: t.Now(), InvitedBy: i.By})
	})
	return result[Member](out, err)
}

// Withdraw takes an invitation back.
func (b Book) Withdraw(ctx context.Context, a registry.Actor, id string) (*registry.Case[Invitation], error) {
	out, err := b.Register.Do(ctx, a, "person.uninvite", "", func(t *registry.Tx) error {
		c, err := registry.TxCase[Invitation](t, id)
		if err != nil {
			return err
		}
		if err := mayAdmit(a, c.Body.Entity); err != nil {
			return err
		}
		if c.Body.RevokedAt.Set() {
			t.Keep(id, c.Revision)
			return nil
		}
		if c.Body.AcceptedAt.Set() {
			return fmt.Errorf("%w: it was accepted; remove the person instead", registry.ErrState)
		}
		i := c.Body
		i.RevokedAt = t.Now()
		return registry.PutCase(t, id, i)
	})
	return result[Invitation](out, err)
}

// Remove ends that a person acts for an entity; it holds with the person's next request.
func (b Book) Remove(ctx context.Context, a registry.Actor, id string) (*registry.Case[Member], error) {
	out, err := b.Register.Do(ctx, a, "person.remove", "", func(t *registry.Tx) error {
		c, err := registry.TxCase[Member](t, id)
		if err != nil {
			return err
		}
		if err := mayAdmit(a, c.Body.Entity); err != nil {
			return err
		}
		if c.Body.RemovedAt.Set() {
			t.Keep(id, c.Revision)
			return nil
		}
		m := c.Body
		m.RemovedAt = t.Now()
		return registry.PutCase(t, id, m)
	})
	return result[Member](out, err)
}

// result reads the case that a command wrote.
func result[T registry.CaseBody](out registry.Outcome, err error) (*registry.Case[T], error) {
	if out.Cases == nil || out.ID == "" {
		return nil, err
	}
	c, cerr := registry.CaseOf[T](out.Cases, out.ID)
	if err == nil {
		err = cerr
	}
	return c, err
}
