package authz_test

import (
	"slices"
	"testing"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// TestNowAgreesWithDecide: what the register answers to a recorded call is what
// the decision was, for every app, service, environment and version of the sample
// register, with and without a subscription. Only what a record does not hold may
// differ: limits, scopes, certificates, and the client of a call without a subscription.
func TestNowAgreesWithDecide(t *testing.T) {
	b := newBench(t, func(records []any) []any {
		for i, r := range records {
			if p, ok := r.(registry.Product); ok && p.Certification.State == registry.CertPVT { // one that is in the pilot with some services only
				p.Entitlements = append(slices.Clone(p.Entitlements), registry.Entitlement{Service: "ldglst.0002.list", Environment: registry.PROD, Stage: registry.StagePROD})
				records[i] = p
			}
		}
		return records
	})
	b.served.LongUntil, b.served.ShortUntil = 1<<62, 1<<62
	routes := map[string][2]string{
		"receipts.get": {"GET", "/lodgments/v1/receipts/R-1"}, "as.0004.get": {"GET", "/lodgments/v1/activity-statements/A-1"},
		"as.0004.submit": {"POST", "/lodgments/v1/activity-statements"}, "ldglst.0002.list": {"GET", "/agents/v1/clients"},
		"piitr.get": {"GET", "/individuals/v1/220115957/prefill"}, "abr.lookup": {"GET", "/registry/v1/abns/" + possum},
	}
	beyond := map[authz.Reason]bool{authz.TokenBindingMismatch: true}
	seen := map[authz.Reason]int{}
	v := b.served.View
	for _, app := range v.ClientApps() {
		p := v.Product(app.Value.ProductID)
		ssids := []string{""}
		for _, s := range v.Subscriptions() {
			if s.Value.ProductID == p.ID {
				ssids = append(ssids, s.Value.SSID)
			}
		}
		versions := []string{"", "0.0"}
		for _, x := range p.Versions {
			versions = append(versions, x.Version)
		}
		for service, route := range routes {
			for host, env := range b.x.Hosts {
				for _, ssid := range ssids {
					for _, ver := range versions {
						d := b.decide(call{client: app.Value.ClientID, abn: p.Owner.String(), ssid: ssid, method: route[0], path: route[1], host: host, edit: version(ver)})
						if beyond[d.Reason] || d.Service == nil || d.Service.Scope != "" && d.Reason == authz.ServiceNotEntitled {
							continue
						}
						c := authz.Recorded{Reason: d.Reason, Environment: env, Service: service, Product: p.ID, Version: ver, SSID: ssid, Holder: p.Owner, Subject: d.SubjectHash}
						got, _ := c.Now(v, &app.Value, registry.At(b.now))
						seen[d.Reason]++
						if got != d.Reason && (ssid != "" || d.Reason != authz.SubscriptionNotNominated) {
							t.Errorf("%s of %s in %v, SSID %q, version %q: %v, the record %v", service, app.Value.ClientID, env, ssid, ver, d.Reason, got)
						}
					}
				}
			}
		}
	}
	for _, r := range []authz.Reason{authz.OK, authz.PVTClientNotNamed, authz.ProductNotWhitelisted, authz.EnvironmentMismatch, authz.CertificationExpired, authz.VersionNotRegistered, authz.VersionUnsupported} {
		if seen[r] == 0 {
			t.Errorf("no call was decided %v: %v", r, seen)
		}
	}
}
