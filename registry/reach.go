package registry

import (
	"cmp"
	"slices"
	"strings"
)

// Reach is what a suspension of a subject would stop, as the register stands.
type Reach struct {
	Name  string // of the subject, as people know it; "" when it has none
	Owner ABN    // whose it is; 0: nobody's
	// Products are those whose calls stop: all of them for an entity, a product and
	// a service, else only the calls that the subject takes part in. By ID.
	Products []string
	// Apps and Subscriptions count what belongs to these products and stops with
	// them; 0 where only a part of a product's calls stops.
	Apps, Subscriptions int
	// Services are those that the products are entitled to, the riskiest first.
	Services []ReachedService
}

// ReachedService is a service that calls are stopped of, or not.
type ReachedService struct {
	Key, Name string
	Risk      Risk
	Left      bool // it can be called all the same
}

// Reach tells what a suspension of a subject would stop. An unknown subject is a
// FieldError, as for a command.
func (v *View) Reach(subject SubjectRef, emergency bool) (Reach, error) {
	if err := v.CheckSubject("/subject", subject); err != nil {
		return Reach{}, err
	}
	r := reaching{view: v, services: map[string]bool{}, seen: map[string]bool{}}
	r.find(subject)
	out := r.Reach
	slices.Sort(out.Products)
	if subject.Kind == KindEntity || subject.Kind == KindProduct {
		v.apps.each(func(e *Entry[ClientApp]) bool {
			if r.seen[e.Value.ProductID] && !e.Value.Disabled {
				out.Apps++
			}
			return true
		})
		v.subscriptions.each(func(e *Entry[Subscription]) bool {
			if r.seen[e.Value.ProductID] {
				out.Subscriptions++
			}
			return true
		})
	}
	exempt := !emergency && subject.Kind != KindCredential && subject.Kind != KindClientApp && subject.Kind != KindService
	for key := range r.services {
		if s := v.Service(key); s != nil {
			out.Services = append(out.Services, ReachedService{s.Key, s.Name, s.Risk, exempt && s.WhileSuspended})
		}
	}
	slices.SortFunc(out.Services, func(a, b ReachedService) int {
		return cmp.Or(cmp.Compare(b.Risk, a.Risk), strings.Compare(a.Key, b.Key))
	})
	return out, nil
}

// reaching collects a Reach.
type reaching struct {
	Reach
	view     *View
	services map[string]bool
	seen     map[string]bool // products
}

// product adds one, and the services it has in an environment; NoEnvironment: in all.
func (r *reaching) product(p *Product, in Environment) {
	if p == nil || r.seen[p.ID] {
		return
	}
	r.seen[p.ID] = true
	r.Products = append(r.Products, p.ID)
	for i := range p.Entitlements {
		if e := &p.Entitlements[i]; in == NoEnvironment || e.Environment == in {
			r.services[e.Service] = true
		}
	}
}

// all adds every product that is wanted.
func (r *reaching) all(want func(*Product) bool) {
	r.view.products.each(func(e *Entry[Product]) bool {
		if want(&e.Value) {
			r.product(&e.Value, NoEnvironment)
		}
		return true
	})
}

// find looks at a subject that is in the register.
func (r *reaching) find(subject SubjectRef) {
	v := r.view
	one := func(id string, in Environment) {
		p := v.Product(id)
		r.product(p, in)
		if p != nil {
			r.Name, r.Owner = p.Name, p.Owner
		}
	}
	switch subject.Kind {
	case KindEntity:
		if abn, err := ParseABN(subject.ID); err == nil {
			r.Name, r.Owner = v.Entity(abn).Name, abn
			r.all(func(p *Product) bool { return p.Owner == abn })
		}
	case KindProduct:
		one(subject.ID, NoEnvironment)
	case KindVersion:
		i := strings.LastIndexByte(subject.ID, '@')
		one(subject.ID[:i], NoEnvironment)
		r.Name += " " + subject.ID[i+1:]
	case KindClientApp:
		a := v.ClientApp(subject.ID)
		one(a.ProductID, a.Environment)
	case KindCredential:
		c := v.Credential(subject.ID)
		r.Owner = c.ABN
		r.Name = c.Name
		r.all(func(p *Product) bool { return p.Delivers(c.ABN) })
	case KindSubscription:
		one(v.Subscription(subject.ID).ProductID, NoEnvironment)
	case KindService:
		r.Name = v.Service(subject.ID).Name
		r.all(func(p *Product) bool {
			return slices.ContainsFunc(p.Entitlements, func(e Entitlement) bool { return e.Service == subject.ID })
		})
		r.services = map[string]bool{subject.ID: true}
	}
}
