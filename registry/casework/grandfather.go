package casework

import (
	"fmt"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// grandfathered is the command of an import, in a case's own steps.
const grandfathered Command = "certification.grandfathered"

// Grandfather plans the interim approval of a product that the agency had
// approved before it was entered here, as part of another command's change: it
// may call services until the interim period ends, and owes everything that
// binds it. Nobody is told: the import of a whole register is announced otherwise.
// The product must not have been put by the change.
func (d *Desk) Grandfather(t *registry.Tx, p registry.Product, dep Deployment, services []string) error {
	if !t.Actor().Has(registry.PermAssessor) {
		return fmt.Errorf("%w: only an assessor may approve, for however short a time", registry.ErrForbidden)
	}
	if len(services) == 0 {
		return registry.Field("/services", "name the services it may call")
	}
	for i, s := range services {
		if t.View().Service(s) == nil {
			return registry.Field(fmt.Sprintf("/services/%d", i), "there is no service %s", cut(s))
		}
	}
	b, err := t.Casebook()
	if err != nil {
		return err
	}
	dep.Services = services
	now := t.Now().Std()
	cat := d.Framework().InForce(now)
	profile := dep.Profile(t.View(), &p)
	x := &edit{t: t, p: p, b: b, c: Certification{Product: p.ID, Owner: p.Owner, Deployment: dep, Catalogue: cat.Version}}
	x.c.Category, x.c.Because = cat.Category(&profile, d.Framework().Open)
	x.p.Category = registry.Category(x.c.Category)
	var owed []string
	for _, a := range cat.Applicable(&profile, d.Framework().Open) {
		if a.Subject == certification.OfProduct {
			owed = append(owed, a.ID)
		}
	}
	period := certification.Interim(now, d.Framework().Open)
	until := registry.At(period.Until)
	x.c.Interim = &InterimTerms{Basis: "grandfathered", Owed: owed, Until: until}
	x.c.Services, x.c.Period, x.c.Reopened = services, period.Because, owed
	x.c.Dues.set(dueReview, until-registry.Time(d.cfg.Standards.Review.Milliseconds()))
	x.c.Dues.set(dueExpiry, until)
	x.p.Certification = registry.Certification{State: registry.CertInterim, ValidFrom: t.Now(), ValidUntil: until}
	x.entitle(services, registry.Entitlement{Stage: registry.StagePROD})
	x.c.Steps = addStep(x.c.Steps, t, grandfathered, p.Certification.State, registry.CertInterim, "")
	if err := registry.PutCase(t, x.p.ID, x.c); err != nil {
		return err
	}
	if err := t.PutProduct(x.p); err != nil {
		return err
	}
	return x.openProduction() // after the product, which its client app names
}
