package control

import (
	"errors"

	"github.com/dspgate/dspgate/registry"
)

type productBody struct {
	ID         string            `json:"id" minLength:"1" maxLength:"64" doc:"The Product ID, such as FP-1001."`
	Name       string            `json:"name" minLength:"1" maxLength:"200"`
	Owner      registry.ABN      `json:"owner"`
	Chain      []registry.ABN    `json:"chain,omitempty" maxItems:"16" doc:"Further entities that deliver it."`
	Versions   []versionBody     `json:"versions,omitempty" maxItems:"64"`
	Scenario   uint8             `json:"scenario,omitempty" maximum:"6"`
	Category   registry.Category `json:"category,omitempty" enum:"A,B,C,D,E"`
	OwnABNOnly bool              `json:"own_abn_only,omitempty"`
	WarnBuilds bool              `json:"warn_builds,omitempty" doc:"Calls of an unregistered build of a registered version (4.3.17 of 4.3) pass with the header x-dsp-warning, unless that version is security_relevant. Else they are refused."`
	Reason     string            `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type productUpdate struct {
	Name       string            `json:"name" minLength:"1" maxLength:"200"`
	Owner      registry.ABN      `json:"owner"`
	Chain      []registry.ABN    `json:"chain,omitempty" maxItems:"16"`
	Scenario   uint8             `json:"scenario,omitempty" maximum:"6"`
	Category   registry.Category `json:"category,omitempty" enum:"A,B,C,D,E"`
	OwnABNOnly bool              `json:"own_abn_only,omitempty"`
	WarnBuilds bool              `json:"warn_builds,omitempty" doc:"Calls of an unregistered build of a registered version (4.3.17 of 4.3) pass with the header x-dsp-warning, unless that version is security_relevant. Else they are refused."`
	Reason     string            `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type versionBody struct {
	Version          string                `json:"version" minLength:"1" maxLength:"64"`
	Released         registry.Time         `json:"released_at,omitempty"`
	SupportUntil     registry.Time         `json:"support_until,omitempty" doc:"Refused from this instant."`
	State            registry.VersionState `json:"state,omitempty" doc:"Default active."`
	SecurityRelevant bool                  `json:"security_relevant,omitempty"`
}

type newVersionBody struct {
	Version          string                `json:"version" minLength:"1" maxLength:"64"`
	Released         registry.Time         `json:"released_at,omitempty"`
	SupportUntil     registry.Time         `json:"support_until,omitempty" doc:"Refused from this instant."`
	State            registry.VersionState `json:"state,omitempty" doc:"Default active."`
	SecurityRelevant bool                  `json:"security_relevant,omitempty"`
	Reason           string                `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type versionUpdate struct {
	Released         registry.Time         `json:"released_at,omitempty"`
	SupportUntil     registry.Time         `json:"support_until,omitempty" doc:"Refused from this instant."`
	State            registry.VersionState `json:"state" doc:"active or blocked."`
	SecurityRelevant bool                  `json:"security_relevant,omitempty"`
	Reason           string                `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type entitlementBody struct {
	Stage        registry.Stage `json:"stage,omitempty" doc:"In PROD: PVT or PROD."`
	NamedClients []registry.ABN `json:"named_clients,omitempty" maxItems:"64" doc:"In stage PVT: the only clients it may act for."`
	From         registry.Time  `json:"from,omitempty"`
	Until        registry.Time  `json:"until,omitempty"`
	Reason       string         `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) listProducts(c *call) (answer, error) {
	owner, byOwner, err := c.filterABN("owner")
	if err != nil {
		return answer{}, err
	}
	entity, byEntity, err := c.filterABN("entity")
	if err != nil {
		return answer{}, err
	}
	state, byState, err := filterText[registry.CertState](c, "state")
	if err != nil {
		return answer{}, err
	}
	words, err := c.filterWords("q")
	if err != nil {
		return answer{}, err
	}
	keep := func(p *registry.Product) bool {
		return mayKnowProduct(c, p) && (!byOwner || p.Owner == owner) && (!byEntity || p.Delivers(entity)) &&
			(!byState || p.Certification.State == state) && hasWords(p.Name+" "+p.ID, words)
	}
	b := s.book(c)
	if b == nil {
		return paged(c, s.lists.products.get(c.view, (*registry.View).Products), func(e *registry.Entry[registry.Product]) bool { return keep(&e.Value) }, show)
	}
	if !c.actor.Staff() || byEntity {
		if !byEntity {
			entity = c.actor.Entity
		}
		return picked(c, recordsOf(c.view, registry.KindProduct, deliveredBy(b, entity)), keep)
	}
	where := whereWords(words)
	if byOwner {
		where = append(where, registry.Where{Index: "owner", Value: owner.String()})
	}
	if byState {
		where = append(where, registry.Where{Index: "certification", Value: state.String()})
	}
	return c.indexed(b, registry.KindProduct, where)
}

func (s *server) getProduct(c *call) (answer, error) {
	return c.one(registry.KindProduct, c.path("id"))
}

func (s *server) createProduct(c *call, in *productBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	if s.casework != nil {
		if err := s.casework.CheckProductID(in.ID); err != nil {
			return answer{}, err
		}
	}
	p := registry.Product{ID: in.ID, Name: in.Name, Owner: in.Owner, Chain: in.Chain, Scenario: in.Scenario, Category: in.Category, OwnABNOnly: in.OwnABNOnly, WarnBuilds: in.WarnBuilds}
	for _, v := range in.Versions {
		p.Versions = append(p.Versions, registry.Version(v))
	}
	r, err := s.reg.CreateProduct(c.r.Context(), c.actor, p, m)
	return changed(r, err, created)
}

func (s *server) updateProduct(c *call, in *productUpdate) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	p := registry.Product{ID: c.path("id"), Name: in.Name, Owner: in.Owner, Chain: in.Chain, Scenario: in.Scenario, Category: in.Category, OwnABNOnly: in.OwnABNOnly, WarnBuilds: in.WarnBuilds}
	r, err := s.reg.UpdateProduct(c.r.Context(), c.actor, p, m)
	return changed(r, err, found)
}

// product is the one the path names.
func (c *call) product() (*registry.Product, error) {
	p := c.view.Product(c.path("id"))
	if p == nil {
		return nil, notFound(registry.KindProduct, c.path("id"))
	}
	return p, nil
}

func (s *server) listVersions(c *call) (answer, error) {
	p, err := c.product()
	if err != nil {
		return answer{}, err
	}
	return paged(c, p.Versions, nil, func(v registry.Version) any { return v })
}

func (s *server) createVersion(c *call, in *newVersionBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	v := registry.Version{Version: in.Version, Released: in.Released, SupportUntil: in.SupportUntil, State: in.State, SecurityRelevant: in.SecurityRelevant}
	r, err := s.reg.AddVersion(c.r.Context(), c.actor, c.path("id"), v, m)
	return changed(r, err, created)
}

func (s *server) updateVersion(c *call, in *versionUpdate) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	v := registry.Version{Version: c.path("version"), Released: in.Released, SupportUntil: in.SupportUntil, State: in.State, SecurityRelevant: in.SecurityRelevant}
	r, err := s.reg.UpdateVersion(c.r.Context(), c.actor, c.path("id"), v, m)
	return changed(r, pathField(err, "/version", "version"), found)
}

func (s *server) listEntitlements(c *call) (answer, error) {
	p, err := c.product()
	if err != nil {
		return answer{}, err
	}
	env, byEnv, err := filterText[registry.Environment](c, "environment")
	if err != nil {
		return answer{}, err
	}
	var keep func(registry.Entitlement) bool
	if byEnv {
		keep = func(e registry.Entitlement) bool { return e.Environment == env }
	}
	return paged(c, p.Entitlements, keep, func(e registry.Entitlement) any { return e })
}

func (s *server) setEntitlement(c *call, in *entitlementBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	env, err := c.environment()
	if err != nil {
		return answer{}, err
	}
	e := registry.Entitlement{Service: c.path("service"), Environment: env, Stage: in.Stage, NamedClients: in.NamedClients, From: in.From, Until: in.Until}
	r, err := s.reg.SetEntitlement(c.r.Context(), c.actor, c.path("id"), e, m)
	return changed(r, pathField(err, "/service", "service"), found)
}

func (s *server) removeEntitlement(c *call) (answer, error) {
	m, err := c.meta("")
	if err != nil {
		return answer{}, err
	}
	env, err := c.environment()
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.RemoveEntitlement(c.r.Context(), c.actor, c.path("id"), c.path("service"), env, m)
	return changed(r, err, found)
}

// environment is the one the path names.
func (c *call) environment() (env registry.Environment, err error) {
	if err := env.UnmarshalText([]byte(c.path("environment"))); err != nil {
		return 0, &paramError{parameter: "environment", err: err}
	}
	return env, nil
}

// pathField turns a finding about a field that came in the path into one about
// that parameter: there is no such member in the body to point at.
func pathField(err error, pointer, parameter string) error {
	var f *registry.FieldError
	if errors.As(err, &f) && f.Field == pointer {
		return &paramError{parameter: parameter, err: f.Err}
	}
	return err
}

func (s *server) getCertification(c *call) (answer, error) {
	p, err := c.product()
	if err != nil {
		return answer{}, err
	}
	return answer{data: p.Certification}, nil
}
