package people_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/people"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

type world struct {
	people.Book
	t     *testing.T
	clock atomic.Int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	store, seal := registrytest.NewMemory(), registrytest.Sealer(t)
	m := registry.NewMirror(store, seal, registry.MirrorConfig{ID: "one", Observer: true})
	w.Register = registry.NewRegister(store, m, seal, registry.RegisterConfig{Holder: "one", Cases: people.Types(),
		Now: func() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- m.Run(ctx) }()
	go func() { done <- w.Register.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := w.Register.Casebook()
		if err == nil && w.Register.Writing() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the register never came", err)
		}
	}
	if _, err := w.Register.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	return w
}

// book is the casework as new as the register.
func (w *world) book() *registry.Casebook {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		v, err := w.Register.View()
		b, berr := w.Register.Casebook()
		if err == nil && berr == nil && b.Revision() >= v.Revision {
			return b
		}
		if time.Now().After(end) {
			w.t.Fatal(err, berr)
		}
	}
}

func (w *world) now() registry.Time {
	return registry.At(time.Now().Add(time.Duration(w.clock.Load())))
}

func dev(name string, abn registry.ABN) registry.Actor {
	return registry.Actor{Name: name, Permissions: registry.PermDeveloper, Entity: abn}
}

func person(name string) registry.Actor { return registry.Actor{Name: name} }

var operator = registry.Actor{Name: "operator@agency.example", Permissions: registry.PermOperator | registry.PermRegistrar}

func TestTheContactActsAndARejectedEntityHasNobody(t *testing.T) {
	w := newWorld(t)
	for email, want := range map[string][]registry.ABN{
		"dev@kookaburra.example":  {sample.Kookaburra},
		"dev@fastlodge.example":   nil, // rejected
		"dev@nobody.example":      nil,
		"operator@agency.example": nil,
	} {
		if diff := cmp.Diff(want, people.ActsFor(w.book(), email)); diff != "" {
			t.Errorf("%s: %s", email, diff)
		}
	}
}

// TestInvitation: made, accepted once by the person it is for, then removed.
func TestInvitation(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	owner := dev("dev@kookaburra.example", sample.Kookaburra)
	inv, secret, err := w.Invite(ctx, owner, " Ana@Kookaburra.example", sample.Kookaburra)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(inv.Body.Sum, secret) || len(secret) < 40 {
		t.Errorf("secret %q, sum %q", secret, inv.Body.Sum)
	}
	if _, err := w.Accept(ctx, person("eve@kookaburra.example"), secret); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("somebody else: %v", err)
	}
	if _, err := w.Accept(ctx, person("ana@kookaburra.example"), secret+"x"); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("another secret: %v", err)
	}
	ana := person("ana@kookaburra.example")
	m, err := w.Accept(ctx, ana, secret)
	if err != nil {
		t.Fatal(err)
	}
	if got := people.ActsFor(w.book(), ana.Name); !cmp.Equal(got, []registry.ABN{sample.Kookaburra}) {
		t.Errorf("acts for %v", got)
	}
	if _, err := w.Accept(ctx, ana, secret); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("accepted twice: %v", err)
	}
	if _, _, err := w.Invite(ctx, owner, ana.Name, sample.Kookaburra); !errors.Is(err, registry.ErrState) {
		t.Errorf("invited again: %v", err)
	}
	if _, err := w.Remove(ctx, dev("dev@wattlebird.example", sample.Wattlebird), m.ID); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("removed by another entity: %v", err)
	}
	if _, err := w.Remove(ctx, owner, m.ID); err != nil {
		t.Fatal(err)
	}
	if people.Acts(w.book(), ana.Name, sample.Kookaburra) {
		t.Error("acts still")
	}
}

func TestInvitationsThatAreNone(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	owner := dev("dev@kookaburra.example", sample.Kookaburra)
	for name, c := range map[string]struct {
		by    registry.Actor
		email string
		abn   registry.ABN
		want  error
	}{
		"another entity's":  {owner, "a@b.example", sample.Wattlebird, registry.ErrNotFound},
		"by an operator":    {registry.Actor{Name: "o", Permissions: registry.PermOperator}, "a@b.example", sample.Wattlebird, registry.ErrForbidden},
		"rejected entity":   {operator, "a@b.example", sample.Fastlodge, registry.ErrState},
		"unknown entity":    {operator, "a@b.example", 11, registry.ErrInvalid},
		"no address":        {owner, "nobody", sample.Kookaburra, registry.ErrInvalid},
		"name and address":  {owner, "Ana <a@b.example>", sample.Kookaburra, registry.ErrInvalid},
		"not ASCII":         {owner, "аna@b.example", sample.Kookaburra, registry.ErrInvalid},
		"contact of itself": {owner, "dev@kookaburra.example", sample.Kookaburra, registry.ErrState},
	} {
		if _, _, err := w.Invite(ctx, c.by, c.email, c.abn); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	inv, secret, err := w.Invite(ctx, owner, "late@b.example", sample.Kookaburra)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.Add(int64(8 * 24 * time.Hour))
	if _, err := w.Accept(ctx, person("late@b.example"), secret); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("after 8 days: %v", err)
	}
	if _, err := w.Withdraw(ctx, owner, inv.ID); err != nil {
		t.Error(err)
	}
	_, secret, err = w.Invite(ctx, owner, "back@b.example", sample.Kookaburra)
	if err != nil {
		t.Fatal(err)
	}
	if inv, err = w.Withdraw(ctx, operator, "IN-"+strings.TrimPrefix(lastInvitation(w), "IN-")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Accept(ctx, person("back@b.example"), secret); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("%s taken back: %v", inv.ID, err)
	}
}

func lastInvitation(w *world) (last string) {
	for id := range w.book().All(registry.Query{Kind: "invitation"}) {
		if len(id) > len(last) || len(id) == len(last) && id > last {
			last = id
		}
	}
	return last
}

// TestTokenIsItsOwnerAndNoMore.
func TestTokenIsItsOwnerAndNoMore(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	day := registry.Time((24 * time.Hour).Milliseconds())
	c, secret, err := w.MakeToken(ctx, operator, people.Grant{Name: "nightly", Permissions: []string{"operator"}, Expires: w.now() + day})
	if err != nil {
		t.Fatal(err)
	}
	got, ok := people.Program(w.book(), secret, w.now())
	if want := (registry.Actor{Name: operator.Name, Permissions: registry.PermOperator}); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := people.Program(w.book(), secret, w.now()+2*day); ok {
		t.Error("accepted after it expired")
	}
	for _, other := range []string{"", "dspgate_", secret + "A", secret[:len(secret)-1], c.Body.Sum, strings.ToLower(secret)} {
		if _, ok := people.Program(w.book(), other, w.now()); ok {
			t.Errorf("%q is accepted", other)
		}
	}
	if _, err := w.RevokeToken(ctx, dev("dev@kookaburra.example", sample.Kookaburra), c.ID); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("revoked by somebody else: %v", err)
	}
	if _, err := w.RevokeToken(ctx, operator, c.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok := people.Program(w.book(), secret, w.now()); ok {
		t.Error("accepted after it was revoked")
	}
	for name, g := range map[string]people.Grant{
		"more than one's own": {Name: "x", Permissions: []string{"assessor"}, Expires: w.now() + day},
		"unknown":             {Name: "x", Permissions: []string{"god"}, Expires: w.now() + day},
		"for ever":            {Name: "x", Expires: w.now() + 400*day},
		"never":               {Name: "x"},
		"past":                {Name: "x", Expires: w.now() - 1},
		"no name":             {Expires: w.now() + day},
	} {
		if _, _, err := w.MakeToken(ctx, operator, g); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDevelopersTokenEndsWithTheMembership.
func TestDevelopersTokenEndsWithTheMembership(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	_, secret, err := w.Invite(ctx, operator, "ana@b.example", sample.Kookaburra)
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.Accept(ctx, person("ana@b.example"), secret)
	if err != nil {
		t.Fatal(err)
	}
	_, token, err := w.MakeToken(ctx, dev("ana@b.example", sample.Kookaburra), people.Grant{Name: "ci", Expires: w.now() + 1e7})
	if err != nil {
		t.Fatal(err)
	}
	a, ok := people.Program(w.book(), token, w.now())
	if !ok || a.Entity != sample.Kookaburra || a.Permissions != registry.PermDeveloper {
		t.Fatalf("%+v, %v", a, ok)
	}
	if _, err := w.Remove(ctx, operator, m.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok := people.Program(w.book(), token, w.now()); ok {
		t.Error("the token outlives the membership")
	}
}
