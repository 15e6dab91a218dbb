package casework

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// Products after the first, and their test environments: entered by a registered
// entity's own people as the first was when it was admitted.

// draftsMax bounds the Drafts that an entity's own people may have at once.
const draftsMax = 20

// AddProduct enters another product of a registered entity, as a Draft with its
// test environments open; the Outcome's ID is the product's. Registrar, or the
// entity's own people; the role matrix must have the entity self-certify in the
// scenario.
func (d *Desk) AddProduct(ctx context.Context, a registry.Actor, abn registry.ABN, f ProductForm, m registry.Meta) (registry.Outcome, error) {
	return d.do(ctx, a, AddProduct, m.Reason, func(t *registry.Tx) error {
		id := ""
		err := changeIn(t, a, AddProduct, abn, m, func(t *registry.Tx, r *Registration, _ *registry.Entity) (err error) {
			id, err = d.addProduct(t, a, r, f)
			return err
		})
		if err == nil {
			t.Answer(id)
		}
		return err
	})
}

func (d *Desk) addProduct(t *registry.Tx, a registry.Actor, r *Registration, f ProductForm) (id string, err error) {
	if err := checkLine("/name", f.Name, true); err != nil {
		return "", err
	}
	if f.Scenario < 1 || f.Scenario > 6 {
		return "", registry.Field("/scenario", "%d is no deployment scenario; use 1 to 6", f.Scenario)
	}
	b, err := t.Casebook()
	if err != nil {
		return "", err
	}
	where := []registry.Where{{Index: "owner", Value: r.ABN.String()}, {Index: "certification", Value: registry.CertDraft.String()}}
	if _, n := b.Find(registry.Query{Kind: "product", Where: where}); n >= draftsMax && !a.Staff() {
		return "", fmt.Errorf("%w: the entity has %d products that are Drafts, and may have no more at once; a registrar can enter another", registry.ErrState, n)
	}
	p := registry.Product{Name: f.Name, Owner: r.ABN, Chain: f.Chain, Scenario: f.Scenario, OwnABNOnly: f.Scenario == 4}
	if err := d.mayOwn(t, &p); err != nil {
		return "", err
	}
	if p.ID, err = d.nextProductID(t); err != nil {
		return "", err
	}
	if r.Product == "" {
		r.Product = p.ID
	}
	return p.ID, openTests(t, p)
}

// mayOwn asks the role matrix whether the owner self-certifies a product.
func (d *Desk) mayOwn(t *registry.Tx, p *registry.Product) error {
	all, err := d.Framework().Matrix.Obligations(assurance.DeliveryOf(t.View(), p), d.Framework().Open)
	if f := (*certification.FieldError)(nil); errors.As(err, &f) && strings.HasPrefix(f.Field, "/parties") {
		return registry.Field("/chain", "%s", strings.TrimPrefix(f.Err.Error(), certification.ErrInvalid.Error()+": "))
	}
	if err != nil {
		return err
	}
	owner := slices.IndexFunc(all, func(o certification.Obligation) bool { return o.Party == p.Owner.String() })
	if owner < 0 || !all[owner].SelfCertify {
		return registry.Field("/scenario", "by the role matrix you do not self-certify a product of scenario %d, so that it is another's to enter", p.Scenario)
	}
	return nil
}

// OpenTest opens the test environments of a product that was entered without: it
// gets what it lacks of a client app in each and of the services there. Registrar,
// or the owner's own people.
func (d *Desk) OpenTest(ctx context.Context, a registry.Actor, abn registry.ABN, product string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, OpenTest, abn, m, func(t *registry.Tx, _ *Registration, _ *registry.Entity) error {
		p := t.View().Product(product)
		switch {
		case p == nil || p.Owner != abn:
			return registry.Field("/product_id", "the entity owns no product %q", cut(product))
		case p.Certification.State == registry.CertDelisted:
			return fmt.Errorf("%w: the product is Delisted, which is an end state", registry.ErrState)
		}
		next := *p
		next.Entitlements = slices.Clone(p.Entitlements)
		return openTests(t, next)
	})
}

// openTests writes a product with every service in the test environments, and a
// client app in each where it has none.
func openTests(t *registry.Tx, p registry.Product) error {
	for _, s := range t.View().Services() {
		for _, env := range testEnvironments() {
			if p.Entitled(s.ID, env) == nil {
				p.Entitlements = append(p.Entitlements, registry.Entitlement{Service: s.ID, Environment: env})
			}
		}
	}
	if err := t.PutProduct(p); err != nil {
		return err
	}
	b, err := t.Casebook()
	if err != nil {
		return err
	}
	has := map[registry.Environment]bool{}
	for id := range b.All(registry.Query{Kind: "client-app", Where: []registry.Where{{Index: "product_id", Value: p.ID}}}) {
		if app := t.View().ClientApp(id); app != nil {
			has[app.Environment] = true
		}
	}
	for _, env := range testEnvironments() {
		id := strings.ToLower(p.ID + "-" + env.String())
		if has[env] {
			continue
		}
		if app := t.View().ClientApp(id); app != nil && app.ProductID != p.ID {
			return fmt.Errorf("%w: the client app %s is of another product; a registrar has to enter one", registry.ErrState, id)
		}
		if err := t.PutClientApp(registry.ClientApp{ClientID: id, ProductID: p.ID, Environment: env}); err != nil {
			return err
		}
	}
	return nil
}

func testEnvironments() []registry.Environment {
	return []registry.Environment{registry.Sandbox, registry.EVTE}
}
