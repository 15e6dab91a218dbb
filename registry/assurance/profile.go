package assurance

import (
	"slices"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// Profile is a product's profile: as declared, else as far as the register
// tells.
func (d *Desk) Profile(book *registry.Casebook, p *registry.Product) certification.Profile {
	profile := d.derive(book.View, p)
	if d.declared != nil {
		if declared, ok := d.declared(book, p.ID); ok {
			profile = declared
		}
	}
	addOns, err := each[AddOn](book, registry.Where{Index: "product_id", Value: p.ID})
	if err != nil {
		return profile
	}
	for _, a := range addOns {
		if a.Body.Removed.Set() {
			continue
		}
		profile.AddOns++
		profile.Connections = max(profile.Connections, a.Body.Connections)
		profile.ClientList = profile.ClientList || a.Body.ClientList
	}
	return profile
}

// derive makes a profile of what the register holds. It errs on the strict side:
// a product that is not in-house is commercial, and one of category A holds many
// records.
func (d *Desk) derive(v *registry.View, p *registry.Product) certification.Profile {
	delivery := DeliveryOf(v, p)
	out := certification.Profile{Scenario: p.Scenario, ChainLength: len(delivery.Parties), ClientControlled: p.Scenario == 1, Commercial: p.Scenario != 4}
	for _, party := range delivery.Parties {
		for _, r := range party.Roles {
			if !slices.Contains(out.Roles, r) {
				out.Roles = append(out.Roles, r)
			}
		}
	}
	for _, e := range p.Entitlements {
		if s := v.Service(e.Service); s != nil && e.Environment == registry.PROD {
			out.MaxRisk = max(out.MaxRisk, certification.Risk(s.Risk))
		}
	}
	if p.Category == "A" {
		out.Records = d.Rules().Open.RecordsMany + 1
	}
	return out
}

// DeliveryOf is a product with the entities that deliver it, each in the roles it
// is registered in.
func DeliveryOf(v *registry.View, p *registry.Product) certification.Delivery {
	out := certification.Delivery{Scenario: p.Scenario}
	for _, abn := range append([]registry.ABN{p.Owner}, p.Chain...) {
		party := certification.Party{ID: abn.String()}
		if e := v.Entity(abn); e != nil {
			for _, r := range e.Roles {
				party.Roles = append(party.Roles, certification.Role(r))
			}
		}
		out.Parties = append(out.Parties, party)
	}
	return out
}

// Requirements are those that bind a product, with its category and why.
type Requirements struct {
	Catalogue  string                     `json:"catalogue"`
	Category   certification.Category     `json:"category"`
	Because    string                     `json:"category_because"`
	Profile    certification.Profile      `json:"profile"`
	Applicable []certification.Applicable `json:"requirements"`
	Obliged    []certification.Obligation `json:"obligations"`
	// NotComputed says why there are no obligations, when the chain makes none.
	NotComputed string `json:"obligations_missing,omitempty"`
}

// Requirements computes what binds a product now.
func (d *Desk) Requirements(book *registry.Casebook, p *registry.Product) Requirements {
	profile := d.Profile(book, p)
	c := d.Rules().InForce(d.now())
	out := Requirements{Catalogue: c.Version, Profile: profile, Applicable: c.Applicable(&profile, d.Rules().Open), Obliged: []certification.Obligation{}}
	out.Category, out.Because = c.Category(&profile, d.Rules().Open)
	obliged, err := d.Rules().Matrix.Obligations(DeliveryOf(book.View, p), d.Rules().Open)
	if err != nil {
		out.NotComputed = err.Error()
	} else {
		out.Obliged = obliged
	}
	return out
}

// RiskProfile computes a product's risk of what is known here; what is not known
// is shown as that. For assessors and registrars.
func (d *Desk) RiskProfile(book *registry.Casebook, p *registry.Product) (*certification.RiskProfile, error) {
	in := certification.RiskInputs{}
	if d.observed != nil {
		for name, v := range d.observed(book, p.ID) {
			in[name] = v
		}
	}
	profile := d.Profile(book, p)
	now := d.now()
	in["max_risk"], in["chain_length"] = float64(profile.MaxRisk), float64(profile.ChainLength)
	in["client_controlled"] = truth(profile.ClientControlled)
	if d.declared != nil {
		if _, ok := d.declared(book, p.ID); ok {
			in["records"], in["offshore"] = float64(profile.Records), truth(profile.Offshore)
		}
	}
	if e := book.View.Entity(p.Owner); e != nil {
		in["roles"] = float64(len(e.Roles))
		in["eligibility_flags"] = float64(flagged(e, registry.At(now)))
		if first := firstCheck(e); first.Set() {
			in["entity_age_days_short"] = max(0, 365-now.Sub(first.Std()).Hours()/24)
		}
	}
	in["releases_90_days"] = float64(released(p, now))
	findings, err := each[Finding](book, registry.Where{Index: "product_id", Value: p.ID})
	if err != nil {
		return nil, err
	}
	for _, f := range findings {
		if f.Body.State != FindingClosed {
			in["open_findings"]++
			in["overdue_findings"] += truth(f.Body.Overdue(registry.At(now)))
		}
	}
	if len(findings) == 0 {
		in["open_findings"], in["overdue_findings"] = 0, 0
	}
	evidence, err := EvidenceOf(book, p.ID)
	if err != nil {
		return nil, err
	}
	for _, e := range evidence {
		issued := max(e.Body.Issued, 0)
		if !issued.Set() {
			issued = e.Body.At
		}
		in["evidence_age_months"] = max(in["evidence_age_months"], now.Sub(issued.Std()).Hours()/24/30.4)
	}
	found, err := d.Signals(book, p.Owner)
	if err != nil {
		return nil, err
	}
	in["shared_evidence"] = float64(len(found))
	r, err := d.Rules().Risk.Profile(in)
	return r, field(err)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// flagged counts eligibility checks that are not passed, or whose outcome is no
// longer current.
func flagged(e *registry.Entity, at registry.Time) (n int) {
	for _, c := range e.Checks {
		if c.Outcome != "pass" || c.Expires.Set() && c.Expires <= at {
			n++
		}
	}
	return n
}

// firstCheck is when the entity was first looked at: as near as the register
// comes to when it registered.
func firstCheck(e *registry.Entity) (first registry.Time) {
	for _, c := range e.Checks {
		if c.At.Set() && (!first.Set() || c.At < first) {
			first = c.At
		}
	}
	return first
}

// released counts the versions released within 90 days.
func released(p *registry.Product, now time.Time) (n int) {
	for _, v := range p.Versions {
		if v.Released.Set() && now.Sub(v.Released.Std()) < 90*24*time.Hour && v.Released.Std().Before(now) {
			n++
		}
	}
	return n
}
