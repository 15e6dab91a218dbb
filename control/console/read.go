package console

import (
	"errors"
	"net/http"

	"github.com/dspgate/dspgate/registry"
)

// Entities and products.

func permissionNames(a registry.Actor) []string {
	var out []string
	for _, w := range []string{"operator", "incident-officer", "registrar", "assessor", "auditor", "developer"} {
		if one, ok := registry.ParsePermission(w); ok && a.Has(one) {
			out = append(out, w)
		}
	}
	return out
}

func (v *visit) entities() error {
	p := entitiesPage{frame: v.frame("Entities"), Name: v.query("name"), State: v.query("state")}
	m, err := v.get(&p.Items, "/v1/entities", "name", p.Name, "state", p.State, "page", v.query("page"), "limit", "20")
	if err != nil {
		return err
	}
	p.Pager = v.pager(m)
	return v.show(200, "entities", p)
}

func (v *visit) entity() error {
	abn := v.r.PathValue("abn")
	p := entityPage{CanSuspend: v.person.Actor.MaySuspend()}
	if _, err := v.get(&p.Entity, api("entities", abn)); err != nil {
		return err
	}
	var refused *apiError
	if _, err := v.get(&p.Checks, api("entities", abn, "checks"), "limit", "100"); err != nil && (!errors.As(err, &refused) || refused.Status != http.StatusForbidden) {
		return err // who may not see eligibility sees the rest
	}
	if _, err := v.get(&p.Products, "/v1/products", "entity", p.Entity.ABN.String(), "limit", "100"); err != nil {
		return err
	}
	if _, err := v.get(&p.Suspensions, "/v1/suspensions", "kind", "entity", "subject", p.Entity.ABN.String(), "limit", "20"); err != nil {
		return err
	}
	p.frame = v.frame(p.Entity.Name)
	return v.show(200, "entity", p)
}

func (v *visit) products() error {
	p := productsPage{frame: v.frame("Products"), Query: v.query("q"), Owner: v.query("owner"), State: v.query("state"),
		States: []string{"Draft", "SelfCertified", "InVerification", "PVT", "Interim", "Whitelisted", "ReviewDue", "Restricted", "Suspended", "Delisted"}}
	m, err := v.get(&p.Items, "/v1/products", "q", p.Query, "owner", p.Owner, "state", p.State, "page", v.query("page"), "limit", "20")
	if err != nil {
		return err
	}
	p.Pager = v.pager(m)
	return v.show(200, "products", p)
}

func (v *visit) product() error {
	id := v.r.PathValue("id")
	p := productPage{CanSuspend: v.person.Actor.MaySuspend()}
	if _, err := v.get(&p.Product, api("products", id)); err != nil {
		return err
	}
	for _, part := range []struct {
		path string
		into any
	}{{"/v1/client-apps", &p.Apps}, {"/v1/subscriptions", &p.Subs}, {"/v1/suspensions", &p.Suspensions}} {
		if _, err := v.get(part.into, part.path, "product_id", id, "limit", "50"); err != nil {
			return err
		}
	}
	p.frame = v.frame(p.Product.Name)
	return v.show(200, "product", p)
}
