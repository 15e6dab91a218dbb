package control

import (
	"strings"
	"sync"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// meView is who calls and, for a developer, how its own entity stands.
type meView struct {
	Name        string         `json:"name"`
	Permissions []string       `json:"permissions"`
	Entity      *meEntity      `json:"entity,omitempty"`
	Products    []meProduct    `json:"products,omitempty"`
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
	subs := map[string][]registry.Subscription{}
	for _, e := range s.lists.subscriptions.get(c.view, (*registry.View).Subscriptions) {
		if p := c.view.Product(e.Value.ProductID); p != nil && p.Delivers(c.actor.Entity) && len(subs[p.ID]) < meSubscriptionsMax {
			subs[p.ID] = append(subs[p.ID], e.Value)
		}
	}
	note := ""
	if s.uses != nil && len(own) > 0 {
		note = s.usesNote(c)
	}
	for _, id := range own[:min(len(own), meProductsMax)] {
		v.Products = append(v.Products, s.meProduct(c, c.view.Product(id), subs[id], note))
	}
	var err error
	if v.Denials, err = s.denials(c, own, meDenialsMax); err != nil {
		// How a product stands is known all the same.
		s.log.WarnContext(c.r.Context(), "last denials not read", "request_id", c.id, "err", err)
		v.DenialsNote = "the last refusals cannot be read now: the store is away"
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
	reason := standingReason(&st)
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
		out.Versions = append(out.Versions, meVersion{ver, standingReason(&vs).String()})
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

// ownProducts are the IDs of the products that the caller's entity owns or
// helps to deliver.
func (s *server) ownProducts(c *call) []string {
	var ids []string
	for _, e := range s.lists.products.get(c.view, (*registry.View).Products) {
		if c.actor.Entity != 0 && e.Value.Delivers(c.actor.Entity) {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// registerView is one product of the public register: no reasons, no states.
type registerView struct {
	ProductID string       `json:"product_id"`
	Name      string       `json:"name"`
	Owner     registry.ABN `json:"owner"`
	OwnerName string       `json:"owner_name"`
	Services  []string     `json:"services"`
	Versions  []string     `json:"versions"`
}

// holds tells whether every word, in lower case, stands somewhere in the
// product's name or ID, or in its owner's name or ABN.
func (v *registerView) holds(words []string) bool {
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(v.Name + " " + v.ProductID + " " + v.OwnerName + " " + v.Owner.String())
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// publicRegister is the public listing, made again at most once a second: it
// is for anybody, and reading 100,000 standings for each caller is not.
type publicRegister struct {
	mu   sync.Mutex
	of   *registry.View
	made time.Time
	all  []registerView
}

const publicEvery = time.Second

func (p *publicRegister) get(v *registry.View, products []*registry.Entry[registry.Product], now time.Time) []registerView {
	p.mu.Lock()
	defer p.mu.Unlock()
	age := now.Sub(p.made)
	if p.of != nil && age >= 0 && age < publicEvery && (p.of == v || p.of.Revision > v.Revision) {
		return p.all
	}
	at := registry.At(now)
	p.all = make([]registerView, 0, len(p.all))
	for _, e := range products {
		x := &e.Value
		if x.Certification.State != registry.CertWhitelisted {
			continue
		}
		if st := productStanding(v, x, at); st.Code != registry.Good {
			continue
		}
		p.all = append(p.all, publicView(v, x, at))
	}
	p.of, p.made = v, now
	return p.all
}

func publicView(v *registry.View, p *registry.Product, at registry.Time) registerView {
	out := registerView{ProductID: p.ID, Name: p.Name, Owner: p.Owner, Services: []string{}, Versions: []string{}}
	if e := v.Entity(p.Owner); e != nil {
		out.OwnerName = e.Name
	}
	for _, e := range p.Entitlements {
		if e.Environment == registry.PROD && e.Stage == registry.StagePROD && e.From <= at && (e.Until == 0 || at < e.Until) {
			out.Services = append(out.Services, e.Service)
		}
	}
	for _, ver := range p.Versions {
		if ver.State == registry.VersionActive && (ver.SupportUntil == 0 || at < ver.SupportUntil) {
			out.Versions = append(out.Versions, ver.Version)
		}
	}
	return out
}

func (s *server) listRegister(c *call) (answer, error) {
	product, byProduct := c.filter("product_id")
	owner, byOwner, err := c.filterABN("owner")
	if err != nil {
		return answer{}, err
	}
	q, searched := c.filter("q")
	words := strings.Fields(strings.ToLower(q))
	var keep func(registerView) bool
	if byProduct || byOwner || searched {
		keep = func(v registerView) bool {
			return (!byProduct || v.ProductID == product) && (!byOwner || v.Owner == owner) && v.holds(words)
		}
	}
	a, err := paged(c, s.registerLines(c), keep, func(v registerView) any { return v })
	if a.page != nil {
		a.page.Meta.Disclaimer = disclaimer
	}
	return a, err
}
