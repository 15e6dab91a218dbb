package control

import (
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// meView is who calls and, for a developer, how its own entity stands.
type meView struct {
	Name        string         `json:"name"`
	Permissions []string       `json:"permissions"`
	Entity      *meEntity      `json:"entity,omitempty"`
	Products    []meProduct    `json:"products,omitempty"`
	Signals     []signalView   `json:"last_signals,omitempty" doc:"In what the products were unlike their own past, the latest first. Nothing is refused because of a signal alone."`
	Denials     []decisionView `json:"last_denials,omitempty" doc:"The last calls refused, newest first."`
	DenialsNote string         `json:"last_denials_note,omitempty" doc:"Why they are missing."`
}

type meEntity struct {
	registry.Entity
	Suspension *suspensionView `json:"suspension,omitempty"`
}

// meProduct is one product of the developer's entity with its standing in PROD.
type meProduct struct {
	ID            string                  `json:"id"`
	Name          string                  `json:"name"`
	Owner         registry.ABN            `json:"owner"`
	Standing      string                  `json:"standing" doc:"ok, or the code that calls in PROD are refused with."`
	Detail        string                  `json:"detail" doc:"What that means and what to do about it."`
	Certification registry.Certification  `json:"certification"`
	Suspension    *suspensionView         `json:"suspension,omitempty"`
	Versions      []meVersion             `json:"versions"`
	Entitlements  []registry.Entitlement  `json:"entitlements"`
	Subscriptions []registry.Subscription `json:"subscriptions"`
	Limits        []limitUseView          `json:"limits" doc:"Every limit that may apply, and what it is at over all sidecars."`
	LimitsNote    string                  `json:"limits_note,omitempty" doc:"Why figures are missing."`
}

type meVersion struct {
	registry.Version
	Standing string `json:"standing"`
}

const (
	meProductsMax      = 100
	meSubscriptionsMax = 100
	meDenialsMax       = 20
	meSignalsMax       = 20
)

func (s *server) me(c *call) (answer, error) {
	v := meView{Name: c.actor.Name, Permissions: permissionWords(c.actor.Permissions)}
	if c.actor.Entity == 0 {
		return answer{data: v}, nil
	}
	if e := c.view.Entity(c.actor.Entity); e != nil {
		v.Entity = &meEntity{Entity: *e}
		if x := c.view.Suspended(registry.KindEntity, e.ABN.String(), c.at); x != nil {
			sv := s.viewSuspension(c, x)
			v.Entity.Suspension = &sv
		}
	}
	own := s.ownProducts(c)
	note := ""
	if s.uses != nil && len(own) > 0 {
		note = s.usesNote(c)
	}
	for _, id := range own[:min(len(own), meProductsMax)] {
		v.Products = append(v.Products, s.meProduct(c, c.view.Product(id), s.subscriptionsOf(c, id, meSubscriptionsMax), note))
	}
	var err error
	if v.Denials, err = s.denials(c, own, meDenialsMax); err != nil {
		// How a product stands is known all the same.
		s.log.WarnContext(c.r.Context(), "last denials not read", "request_id", c.id, "err", err)
		v.DenialsNote = "the last refusals cannot be read now: the store is away"
	}
	if s.signals.Latest != nil {
		if v.Signals, err = s.signalsFor(c, "", meSignalsMax); err != nil {
			s.log.WarnContext(c.r.Context(), "signals not read", "request_id", c.id, "err", err)
		}
	}
	return answer{data: v}, nil
}

func (s *server) meProduct(c *call, p *registry.Product, subs []registry.Subscription, note string) meProduct {
	out := meProduct{
		ID: p.ID, Name: p.Name, Owner: p.Owner, Certification: p.Certification,
		Versions: []meVersion{}, Entitlements: p.Entitlements, Subscriptions: subs,
	}
	if out.Entitlements == nil {
		out.Entitlements = []registry.Entitlement{}
	}
	if out.Subscriptions == nil {
		out.Subscriptions = []registry.Subscription{}
	}
	var known bool
	if out.Limits, known = s.viewUses(c, p.ID, s.appliedTo(c.view, p, subs)); !known && s.uses != nil {
		out.LimitsNote = usesUnknown
	} else if len(out.Limits) > 0 {
		out.LimitsNote = note
	}
	st := productStanding(c.view, p, c.at)
	reason := authz.StandingReason(&st)
	out.Standing, out.Detail = reason.String(), reason.Detail()
	if reason == authz.OK {
		out.Detail = "The product may call the services it is entitled to."
	}
	if st.Suspension != nil {
		sv := s.viewSuspension(c, st.Suspension)
		out.Suspension = &sv
	}
	for _, ver := range p.Versions {
		q := registry.StandingQuery{App: &registry.ClientApp{ProductID: p.ID}, Environment: registry.PROD, Version: ver.Version}
		vs := c.view.Standing(&q, c.at)
		out.Versions = append(out.Versions, meVersion{ver, authz.StandingReason(&vs).String()})
	}
	return out
}

// productStanding is the standing of a product in PROD, whatever its versions.
func productStanding(v *registry.View, p *registry.Product, at registry.Time) registry.Standing {
	st := v.Standing(&registry.StandingQuery{App: &registry.ClientApp{ProductID: p.ID}, Environment: registry.PROD}, at)
	if st.Code == registry.VersionBlockedStanding {
		// Entity and product were found good before the versions were looked at.
		return registry.Standing{Product: st.Product}
	}
	return st
}
