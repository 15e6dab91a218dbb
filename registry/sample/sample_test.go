package sample_test

import (
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// decide is as much of a decision as the register alone can tell.
func decide(v *registry.View, e *sample.Expectation, now registry.Time) string {
	app := v.ClientApp(e.ClientID)
	if app == nil {
		return "client-unknown"
	}
	if app.Environment != e.Environment {
		return "environment-mismatch"
	}
	p := v.Product(app.ProductID)
	q := registry.StandingQuery{App: app, Environment: e.Environment, Version: e.Version, Holder: p.Owner, Service: v.Service(e.Service)}
	switch s := v.Standing(&q, now); s.Code {
	case registry.Good:
	case registry.EntitySuspended:
		return "entity-suspended"
	case registry.ProductDelisted:
		return "product-delisted"
	case registry.CertificationExpired:
		return "certification-expired"
	case registry.VersionNotRegistered:
		return "version-not-registered"
	case registry.VersionBlockedStanding:
		return "version-blocked"
	case registry.VersionUnsupported:
		return "version-unsupported"
	default:
		return "another standing"
	}
	en := p.Entitled(e.Service, e.Environment)
	if en == nil {
		return "service-not-entitled"
	}
	if en.Stage == registry.StagePVT {
		named := false
		for _, abn := range en.NamedClients {
			named = named || abn == e.ClientABN
		}
		if !named {
			return "pvt-client-not-named"
		}
	}
	if e.ClientABN != 0 && v.Nominated(p.ID, e.ClientABN) == "" {
		return "subscription-not-nominated"
	}
	return "ok"
}

func TestEverySampleProductStandsAsTheDomainModelSays(t *testing.T) {
	now := time.Now()
	v := registrytest.View(t, 1, sample.Records(now)...)
	for _, e := range sample.Expectations() {
		if got := decide(v, &e, registry.At(now)); got != e.Code {
			t.Errorf("%s (%s %s %s): %s, want %s", e.Name, e.ClientID, e.Version, e.Service, got, e.Code)
		}
	}
}

func TestTheSampleIsCompleteAndHasNoEmergency(t *testing.T) {
	v := registrytest.View(t, 1, sample.Records(time.Now())...)
	for what, n := range map[string][2]int{
		"entities":      {len(v.Entities()), 11},
		"products":      {len(v.Products()), 12},
		"client apps":   {len(v.ClientApps()), 21},
		"services":      {len(v.Services()), 12},
		"subscriptions": {len(v.Subscriptions()), 5},
		"suspensions":   {len(v.Suspensions()), 1},
	} {
		if n[0] != n[1] {
			t.Errorf("%d %s, want %d", n[0], what, n[1])
		}
	}
	for _, e := range v.Entities() {
		if _, err := registry.ParseABN(e.ID); err != nil {
			t.Errorf("%s: %v", e.ID, err)
		}
	}
	for _, s := range v.Suspensions() {
		if s.Value.Emergency || s.Value.Expires != 0 || s.Value.Reason == "" {
			t.Errorf("%+v", s.Value)
		}
	}
	for _, p := range v.Products() {
		evte := 0
		for _, e := range p.Value.Entitlements {
			if e.Environment == registry.EVTE {
				evte++
			}
		}
		if want := 12; p.ID != "FP-1007" && evte != want {
			t.Errorf("%s is entitled to %d services in EVTE, want %d", p.ID, evte, want)
		}
	}
}
