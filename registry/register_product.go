package registry

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// CreateProduct registers a product. Registrar. It starts as a Draft without
// entitlements; certifying and entitling it is the assessor's.
func (r *Register) CreateProduct(ctx context.Context, a Actor, p Product, m Meta) (Result[Product], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Product]{}, err
	}
	return do[Product](ctx, r, a, "product.create", m.Reason, func(t *tx) error {
		if p.Certification != (Certification{}) {
			return Field("/certification", "a product starts as a Draft; an assessor certifies it afterwards")
		}
		if len(p.Entitlements) > 0 {
			return Field("/entitlements", "a product starts without; an assessor entitles it afterwards")
		}
		if p.Tier != "" {
			return Field("/tier", "a product starts in the tier %s; it is changed afterwards", TierStandard)
		}
		if err := checkProduct(t.view, &p); err != nil {
			return err
		}
		if err := creating[Product](t, p.ID); err != nil {
			return err
		}
		p.Updated = t.now
		return t.put(KindProduct, p.ID, &p)
	})
}

// UpdateProduct replaces a product's own fields. Registrar. Certification,
// versions and entitlements are kept; when p holds them they must be as they are.
func (r *Register) UpdateProduct(ctx context.Context, a Actor, p Product, m Meta) (Result[Product], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Product]{}, err
	}
	return do[Product](ctx, r, a, "product.update", m.Reason, func(t *tx) error {
		if err := checkID("/id", p.ID); err != nil {
			return err
		}
		old, err := changing[Product](t, p.ID, m)
		if err != nil {
			return err
		}
		next := p
		switch {
		case p.Certification != (Certification{}) && p.Certification != old.Certification:
			return Field("/certification", "is changed by an assessor's command of its own")
		case len(p.Versions) > 0 && !reflect.DeepEqual(p.Versions, old.Versions):
			return Field("/versions", "are changed by commands of their own")
		case len(p.Entitlements) > 0 && !reflect.DeepEqual(p.Entitlements, old.Entitlements):
			return Field("/entitlements", "are changed by an assessor's command of their own")
		case p.Tier != "" && p.Tier != old.Tier:
			return Field("/tier", "is changed by a command of its own")
		}
		next.Certification, next.Versions, next.Entitlements, next.Tier = old.Certification, old.Versions, old.Entitlements, old.Tier
		if err := checkProduct(t.view, &next); err != nil {
			return err
		}
		next.Updated = t.now
		return t.put(KindProduct, next.ID, &next)
	})
}

// AddVersion registers a version of a product. Registrar, or the developer who
// owns the product.
func (r *Register) AddVersion(ctx context.Context, a Actor, productID string, v Version, m Meta) (Result[Product], error) {
	if err := need(a, PermRegistrar|PermDeveloper); err != nil {
		return Result[Product]{}, err
	}
	return r.editProduct(ctx, a, "version.add", productID, m, func(t *tx, p *Product) error {
		if err := checkProductVersion("", &v); err != nil {
			return err
		}
		if p.Version(v.Version) != nil {
			return fmt.Errorf("%w: version %s of %s exists already", ErrState, v.Version, p.ID)
		}
		if p.Certification.State == CertDelisted {
			return fmt.Errorf("%w: the product is Delisted, which is an end state", ErrState)
		}
		if len(p.Versions) == versionsMax {
			return Field("/version", "a product has at most %d versions", versionsMax)
		}
		p.Versions = append(slices.Clone(p.Versions), v)
		return nil
	})
}

// UpdateVersion replaces a version of a product. Registrar.
func (r *Register) UpdateVersion(ctx context.Context, a Actor, productID string, v Version, m Meta) (Result[Product], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Product]{}, err
	}
	return r.editProduct(ctx, a, "version.update", productID, m, func(t *tx, p *Product) error {
		if err := checkProductVersion("", &v); err != nil {
			return err
		}
		p.Versions = slices.Clone(p.Versions)
		old := p.Version(v.Version)
		if old == nil {
			return fmt.Errorf("%w: version %s of %s", ErrNotFound, v.Version, p.ID)
		}
		*old = v
		return nil
	})
}

// SetEntitlement lets a product call a service in an environment, or changes
// on which terms. Assessor.
func (r *Register) SetEntitlement(ctx context.Context, a Actor, productID string, e Entitlement, m Meta) (Result[Product], error) {
	if err := need(a, PermAssessor); err != nil {
		return Result[Product]{}, err
	}
	return r.editProduct(ctx, a, "entitlement.set", productID, m, func(t *tx, p *Product) error {
		if e.Stage == StagePVT {
			e.boundPVT(t.now)
		}
		if err := checkEntitlement(t.view, "", &e); err != nil {
			return err
		}
		if p.Certification.State == CertDelisted {
			return fmt.Errorf("%w: the product is Delisted, which is an end state", ErrState)
		}
		p.Entitlements = slices.Clone(p.Entitlements)
		if old := p.Entitled(e.Service, e.Environment); old != nil {
			*old = e
			return nil
		}
		if len(p.Entitlements) == entitlesMax {
			return Field("/service", "a product has at most %d entitlements", entitlesMax)
		}
		p.Entitlements = append(p.Entitlements, e)
		return nil
	})
}

// RemoveEntitlement takes a service in an environment from a product. Assessor.
func (r *Register) RemoveEntitlement(ctx context.Context, a Actor, productID, service string, env Environment, m Meta) (Result[Product], error) {
	if err := need(a, PermAssessor); err != nil {
		return Result[Product]{}, err
	}
	return r.editProduct(ctx, a, "entitlement.remove", productID, m, func(t *tx, p *Product) error {
		if p.Entitled(service, env) == nil {
			return fmt.Errorf("%w: entitlement of %s to %s in %s", ErrNotFound, p.ID, truncate(service, 80), env)
		}
		p.Entitlements = slices.DeleteFunc(slices.Clone(p.Entitlements), func(e Entitlement) bool {
			return e.Service == service && e.Environment == env
		})
		return nil
	})
}

// SetCertification takes a product's certification to another state, or
// changes the validity of the one it is in. Assessor. Where valid_from is not
// set it is now; a live certification without an end ends after 12 months.
func (r *Register) SetCertification(ctx context.Context, a Actor, productID string, c Certification, m Meta) (Result[Product], error) {
	if err := need(a, PermAssessor); err != nil {
		return Result[Product]{}, err
	}
	return r.editProduct(ctx, a, "certification.set", productID, m, func(t *tx, p *Product) error {
		old, next := p.Certification, c
		if err := checkCertification("", &next); err != nil {
			return err
		}
		if allowed := certNext[old.State]; next.State != old.State && !slices.Contains(allowed, next.State) {
			return stateError("certification", old.State.String(), next.State.String(), allowed)
		} else if next.State == old.State && len(allowed) == 0 {
			return stateError("certification", old.State.String(), next.State.String(), allowed)
		}
		if certLive(next.State) {
			if next.ValidFrom == 0 {
				next.ValidFrom = old.ValidFrom
				if !certLive(old.State) || next.ValidFrom == 0 {
					next.ValidFrom = t.now
				}
			}
			latest := At(next.ValidFrom.Std().AddDate(1, 0, 0))
			if next.ValidUntil == 0 {
				next.ValidUntil = old.ValidUntil
				if !certLive(old.State) || next.ValidUntil <= next.ValidFrom {
					next.ValidUntil = latest
				}
			}
			if next.ValidUntil > latest {
				return Field("/valid_until", "%s is more than 12 months after valid_from; at most %s", next.ValidUntil, latest)
			}
		}
		p.Certification = next
		return nil
	})
}

// certNext are the legal changes of a product's certification (domain model
// §3). "Any live" are the states in which the product may call in production;
// from the three that are lesser than Whitelisted it comes back by assessment.
var certNext = [...][]CertState{
	CertDraft:          {CertSelfCertified, CertDelisted},
	CertSelfCertified:  {CertInVerification, CertPVT, CertDelisted},
	CertInVerification: {CertPVT, CertDelisted},
	CertPVT:            {CertWhitelisted, CertInterim, CertRestricted, CertReviewDue, CertDelisted},
	CertWhitelisted:    {CertRestricted, CertReviewDue, CertDelisted},
	CertInterim:        {CertWhitelisted, CertRestricted, CertReviewDue, CertDelisted},
	CertRestricted:     {CertWhitelisted, CertReviewDue, CertDelisted},
	CertReviewDue:      {CertWhitelisted, CertRestricted, CertDelisted},
	CertDelisted:       nil,
}

func certLive(s CertState) bool {
	switch s {
	case CertPVT, CertWhitelisted, CertInterim, CertRestricted, CertReviewDue:
		return true
	}
	return false
}

// editProduct changes one product; edit must not write into slices of p that
// it has not cloned, for the View shares them.
func (r *Register) editProduct(ctx context.Context, a Actor, name, productID string, m Meta, edit func(*tx, *Product) error) (Result[Product], error) {
	return do[Product](ctx, r, a, name, m.Reason, func(t *tx) error {
		// A developer learns nothing of a product of somebody else, not even
		// that it exists, nor by a precondition that fails.
		if old := t.view.Product(productID); old != nil && !a.MaySee(old.Owner) {
			return fmt.Errorf("%w: %s", ErrNotFound, truncate(productID, 80))
		}
		p, err := changing[Product](t, productID, m)
		if err != nil {
			return err
		}
		if err := edit(t, &p); err != nil {
			return err
		}
		p.Updated = t.now
		return t.put(KindProduct, p.ID, &p)
	})
}

func checkProduct(v *View, p *Product) error {
	if err := checkID("/id", p.ID); err != nil {
		return err
	}
	if strings.ContainsRune(p.ID, '@') {
		return Field("/id", "holds '@', which stands between a product and its version")
	}
	if err := checkText("/name", p.Name, nameBytesMax, true); err != nil {
		return err
	}
	if err := checkABN("/owner", p.Owner); err != nil {
		return err
	}
	if v.Entity(p.Owner) == nil {
		return Field("/owner", "no entity %s is registered", p.Owner)
	}
	if len(p.Chain) > chainMax {
		return Field("/chain", "at most %d entities", chainMax)
	}
	for i, abn := range p.Chain {
		pointer := at("/chain", i, "")
		if err := checkABN(pointer, abn); err != nil {
			return err
		}
		if v.Entity(abn) == nil {
			return Field(pointer, "no entity %s is registered", abn)
		}
		if abn == p.Owner || slices.Contains(p.Chain[:i], abn) {
			return Field(pointer, "%s stands twice", abn)
		}
	}
	if p.Scenario > 6 {
		return Field("/scenario", "deployment scenarios are 1 to 6")
	}
	if err := checkWord("/category", string(p.Category), "", "A", "B", "C", "D", "E"); err != nil {
		return err
	}
	if err := checkTier(v, p.Tier); err != nil {
		return err
	}
	if err := checkCertification("/certification", &p.Certification); err != nil {
		return err
	}
	if len(p.Versions) > versionsMax {
		return Field("/versions", "at most %d", versionsMax)
	}
	seen := make(map[string]bool, len(p.Versions))
	for i := range p.Versions {
		if err := checkProductVersion(at("/versions", i, ""), &p.Versions[i]); err != nil {
			return err
		}
		if seen[p.Versions[i].Version] {
			return Field(at("/versions", i, "version"), "%s stands twice", p.Versions[i].Version)
		}
		seen[p.Versions[i].Version] = true
	}
	if len(p.Entitlements) > entitlesMax {
		return Field("/entitlements", "at most %d", entitlesMax)
	}
	for i := range p.Entitlements {
		e := &p.Entitlements[i]
		if err := checkEntitlement(v, at("/entitlements", i, ""), e); err != nil {
			return err
		}
		if p.Entitled(e.Service, e.Environment) != e {
			return Field(at("/entitlements", i, "service"), "%s in %s stands twice", e.Service, e.Environment)
		}
	}
	return nil
}

func checkProductVersion(pointer string, v *Version) error {
	if err := checkVersion(pointer+"/version", v.Version); err != nil {
		return err
	}
	if v.State.String() == "" {
		return Field(pointer+"/state", "is unknown")
	}
	return checkOrder(pointer+"/released_at", v.Released, pointer+"/support_until", v.SupportUntil)
}

func checkCertification(pointer string, c *Certification) error {
	if c.State.String() == "" {
		return Field(pointer+"/state", "is unknown")
	}
	if c.MaxRisk > 4 {
		return Field(pointer+"/max_risk", "risk ratings are 1 to 4")
	}
	if c.MaxRisk != 0 && c.State != CertRestricted && c.State != CertReviewDue {
		return Field(pointer+"/max_risk", "goes with the state Restricted only")
	}
	return checkOrder(pointer+"/valid_from", c.ValidFrom, pointer+"/valid_until", c.ValidUntil)
}

// pvtLongest is how long production verification testing lasts at most (domain
// model §7).
const pvtLongest = Time(28 * 24 * time.Hour / time.Millisecond)

// boundPVT gives an entitlement of the stage PVT the beginning and end it lacks.
func (e *Entitlement) boundPVT(now Time) {
	if e.From == 0 {
		e.From = now
	}
	if e.Until == 0 {
		e.Until = e.From + pvtLongest
	}
}

func checkEntitlement(v *View, pointer string, e *Entitlement) error {
	if err := checkID(pointer+"/service", e.Service); err != nil {
		return err
	}
	if v.Service(e.Service) == nil {
		return Field(pointer+"/service", "no service %s is registered", e.Service)
	}
	if e.Environment == NoEnvironment || e.Environment.String() == "" {
		return Field(pointer+"/environment", "must be SANDBOX, EVTE or PROD")
	}
	switch {
	case e.Environment != PROD && e.Stage != NoStage:
		return Field(pointer+"/stage", "goes with the environment PROD only")
	case e.Environment == PROD && e.Stage != StagePVT && e.Stage != StagePROD:
		return Field(pointer+"/stage", "must be PVT or PROD in the environment PROD")
	case e.Stage != StagePVT && len(e.NamedClients) > 0:
		return Field(pointer+"/named_clients", "go with the stage PVT only")
	case e.Stage == StagePVT && (len(e.NamedClients) == 0 || len(e.NamedClients) > namedMax):
		return Field(pointer+"/named_clients", "the stage PVT names 1 to %d clients", namedMax)
	}
	if e.Stage == StagePVT && e.From != 0 && e.Until > e.From+pvtLongest {
		return Field(pointer+"/until", "%s is more than 28 days after from, the most there is of the stage PVT", e.Until)
	}
	for i, abn := range e.NamedClients {
		if err := checkABN(at(pointer+"/named_clients", i, ""), abn); err != nil {
			return err
		}
		if slices.Contains(e.NamedClients[:i], abn) {
			return Field(at(pointer+"/named_clients", i, ""), "%s stands twice", abn)
		}
	}
	return checkOrder(pointer+"/from", e.From, pointer+"/until", e.Until)
}
