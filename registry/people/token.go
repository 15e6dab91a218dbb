package people

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// Grant is what a new token is to be.
type Grant struct {
	Name        string
	Permissions []string // of the owner's; none means all
	Expires     registry.Time
}

// MakeToken makes a token for a program and returns its secret, which is kept
// nowhere. The caller must be a person signed in, not a program: else a token
// that leaked could make its own successors.
func (b Book) MakeToken(ctx context.Context, a registry.Actor, g Grant) (*registry.Case[Token], string, error) {
	if g.Name == "" || len(g.Name) > nameBytesMax || strings.ContainsFunc(g.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, "", registry.Field("/name", "1 to %d printable characters that say what the token is for", nameBytesMax)
	}
	own := Words(a.Permissions)
	if len(g.Permissions) == 0 {
		g.Permissions = own
	}
	for i, p := range g.Permissions {
		if !slices.Contains(own, p) {
			return nil, "", registry.Field(fmt.Sprintf("/permissions/%d", i), "you do not have %q yourself; choose from %s", p, strings.Join(own, ", "))
		}
	}
	secret, sum := newSecret(ctx, tokenPrefix)
	out, err := b.Register.Do(ctx, a, "token.make", "", func(t *registry.Tx) error {
		if g.Expires <= t.Now() || g.Expires > t.Now()+registry.Time((TokenLifeMax+minuteOfGrace).Milliseconds()) {
			return registry.Field("/expires_at", "a token expires in the future and within a year")
		}
		book, err := t.Casebook()
		if err != nil {
			return err
		}
		if len(TokensOf(book, a.Name, t.Now())) >= openMax {
			return fmt.Errorf("%w: you have %d tokens; revoke some first", registry.ErrState, openMax)
		}
		return registry.CreateCase(t, fmt.Sprintf("%s%d", tokenIDPrefix, t.Revision()), Token{
			Name: g.Name, Owner: a.Name, Entity: a.Entity, Permissions: g.Permissions, Made: t.Now(), Expires: g.Expires, Sum: sum,
		})
	})
	c, err := result[Token](out, err)
	return c, secret, err
}

// RevokeToken ends a token at once. Its owner may, and a registrar or an operator.
func (b Book) RevokeToken(ctx context.Context, a registry.Actor, id string) (*registry.Case[Token], error) {
	out, err := b.Register.Do(ctx, a, "token.revoke", "", func(t *registry.Tx) error {
		c, err := registry.TxCase[Token](t, id)
		if err != nil {
			return err
		}
		if c.Body.Owner != a.Name && !a.Has(registry.PermRegistrar|registry.PermOperator) {
			return fmt.Errorf("%w: %s", registry.ErrNotFound, id)
		}
		if c.Body.RevokedAt.Set() {
			t.Keep(id, c.Revision)
			return nil
		}
		x := c.Body
		x.RevokedAt, x.RevokedBy = t.Now(), a.Name
		return registry.PutCase(t, id, x)
	})
	return result[Token](out, err)
}

// TokensOf lists a person's tokens that are neither revoked nor expired.
func TokensOf(book *registry.Casebook, owner string, now registry.Time) []registry.Case[Token] {
	var out []registry.Case[Token]
	for id := range book.All(registry.Query{Kind: "api-token", Where: []registry.Where{{Index: ownerKey, Value: owner}}}) {
		if c, err := registry.CaseOf[Token](book, id); err == nil && !c.Body.RevokedAt.Set() && now < c.Body.Expires {
			out = append(out, *c)
		}
	}
	return out
}

// Program finds whose token a secret is; ok is false for none that is in force.
// A developer's token acts only while its owner acts for the entity.
func Program(book *registry.Casebook, secret string, now registry.Time) (a registry.Actor, ok bool) {
	if !strings.HasPrefix(secret, tokenPrefix) || len(secret) > secretBytesMax {
		return a, false
	}
	id := sole(book, "api-token", sumKey, Sum(secret))
	if id == "" {
		return a, false
	}
	c, err := registry.CaseOf[Token](book, id)
	if err != nil || now >= c.Body.Expires || c.Body.RevokedAt.Set() {
		return a, false
	}
	a.Name = c.Body.Owner
	for _, w := range c.Body.Permissions {
		p, known := registry.ParsePermission(w)
		if !known {
			return registry.Actor{}, false
		}
		a.Permissions |= p
	}
	if a.Has(registry.PermDeveloper) {
		if a.Entity = c.Body.Entity; !Acts(book, a.Name, a.Entity) {
			return registry.Actor{}, false
		}
	}
	return a, true
}

// Words are the permissions' words, in the order of the contract.
func Words(p registry.Permission) []string {
	var out []string
	for _, w := range []string{"operator", "incident-officer", "registrar", "assessor", "auditor", "developer"} {
		if one, ok := registry.ParsePermission(w); ok && p&one != 0 {
			out = append(out, w)
		}
	}
	return out
}
