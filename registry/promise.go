package registry

import (
	"slices"
	"strings"
)

// P1Only lists, sorted, the services for which a complete wait for a suspension
// promises no more than that no Check which starts later is allowed: those its
// subject is entitled to whose upstream verifies no admission stamp. A call of
// theirs that was allowed before may still be on its way. Services the
// suspension leaves through (Service.WhileSuspended) are not among them. When
// the wait did not go on for as long as stamps live, they are all of them.
func (v *View) P1Only(subject SubjectRef, emergency, drained bool) []string {
	emergency = emergency || subject.Kind == KindCredential || subject.Kind == KindClientApp
	found := map[string]bool{}
	note := func(s *Service) {
		if s != nil && !(drained && s.StampVerified) && (emergency || !s.WhileSuspended) {
			found[s.Key] = true
		}
	}
	product := func(p *Product, in Environment) {
		if p == nil {
			return
		}
		for i := range p.Entitlements {
			if e := &p.Entitlements[i]; in == NoEnvironment || e.Environment == in {
				note(v.Service(e.Service))
			}
		}
	}
	delivered := func(abn ABN) {
		for _, e := range v.Products() {
			if e.Value.Delivers(abn) {
				product(&e.Value, NoEnvironment)
			}
		}
	}
	switch subject.Kind {
	case KindEntity:
		if abn, err := ParseABN(subject.ID); err == nil {
			delivered(abn)
		}
	case KindProduct:
		product(v.Product(subject.ID), NoEnvironment)
	case KindVersion:
		if i := strings.LastIndexByte(subject.ID, '@'); i >= 0 {
			product(v.Product(subject.ID[:i]), NoEnvironment)
		}
	case KindClientApp:
		if a := v.ClientApp(subject.ID); a != nil {
			product(v.Product(a.ProductID), a.Environment)
		}
	case KindCredential:
		if c := v.Credential(subject.ID); c != nil {
			delivered(c.ABN)
		}
	case KindSubscription:
		if s := v.Subscription(subject.ID); s != nil {
			product(v.Product(s.ProductID), NoEnvironment)
		}
	case KindService:
		if s := v.Service(subject.ID); s != nil && !(drained && s.StampVerified) {
			found[s.Key] = true
		}
	}
	out := make([]string, 0, len(found))
	for key := range found {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}
