package console_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
)

// TestADeveloperEntersAnotherProduct: with its test environments, as the role matrix
// lets it, and for nobody else; one that was entered without them gets them.
func TestADeveloperEntersAnotherProduct(t *testing.T) {
	w := controltest.New(t)
	dev := w.Browser(wattlebird)
	wants(t, dev, "/console/own", 200, "Another product")
	status, body := dev.Send("/console/own/products", url.Values{"name": {"Wattlebird Till"}, "scenario": {"2"}})
	if status != 200 || heading(body) != "Wattlebird Till" || !strings.Contains(body, "-evte") || !strings.Contains(body, "-sandbox") {
		t.Fatalf("%d %q", status, heading(body))
	}
	status, body = dev.Send("/console/own/products", url.Values{"name": {"Wattlebird Bakery"}, "scenario": {"4"}}) // in-house, which it is not
	if status != 422 || !strings.Contains(body, "Not done") || !strings.Contains(body, "Wattlebird Bakery") || !strings.Contains(body, `href="#scenario"`) {
		t.Errorf("%d %q", status, heading(body))
	}
	p := registry.Product{ID: "FP-7001", Name: "Late", Owner: 65000000101, Scenario: 2}
	if _, err := w.Register.CreateProduct(t.Context(), registry.Actor{Name: registrar, Permissions: registry.PermRegistrar}, p, registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	controltest.Eventually(t, "the product entered without is offered its test environments", func() bool {
		_, body := dev.Read("/console/own")
		return strings.Contains(body, "/console/own/products/FP-7001/test")
	})
	if status, body := dev.Send("/console/own/products/FP-7001/test", url.Values{}); status != 200 || !strings.Contains(body, "fp-7001-evte") {
		t.Errorf("%d %q", status, heading(body))
	}
	if _, body := dev.Read("/console/own"); strings.Contains(body, "/console/own/products/FP-7001/test") {
		t.Error("it is offered again")
	}
	if status, _ := dev.Send("/console/own/products/FP-1003/test", url.Values{}); status < 400 {
		t.Errorf("another's: %d", status)
	}
}

// TestOwnPageSaysHowItStandsAndWhatToDo: limits with what is left, refused calls
// by their codes with the remedy, and nothing but the developer's own.
func TestOwnPageSaysHowItStandsAndWhatToDo(t *testing.T) {
	w := controltest.New(t)
	dev := w.Browser(wattlebird)
	wants(t, dev, "/console/own", 200, "No limit is set", "Nothing was refused lately")
	actor := registry.Actor{Name: operator2, Permissions: registry.PermOperator}
	for product, name := range map[string]string{"FP-1001": "daily", "FP-1003": "kookas-own"} {
		l := registry.Limit{Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: product}, Name: name, Kind: registry.LimitQuota, Amount: 1000, Period: registry.PeriodDay, Zone: "UTC"}
		if _, err := w.Register.SetLimit(t.Context(), actor, l, registry.Meta{}); err != nil {
			t.Fatal(err)
		}
	}
	controltest.Eventually(t, "the limit is listed", func() bool {
		_, body := dev.Read("/console/own")
		return strings.Contains(body, "1000 calls a day")
	})
	wants(t, dev, "/console/own", 200, "not known now", "each sidecar goes on")
	w.Used = func(l *ratelimit.Limit) control.LimitUse { return control.LimitUse{Used: 900, Refused: 7} }
	for i, code := range []authz.Reason{authz.VersionUnsupported, authz.QuotaExhausted, authz.VersionUnsupported} {
		now := time.Now().Add(-time.Duration(i) * time.Minute)
		id := authz.NewIDs().Next(now)
		w.Records[id] = authz.Record{ID: id, At: registry.At(now), ProductID: "FP-1001", Reason: code, ClientID: "fp-1001-prod", Environment: registry.PROD}
	}
	body := wants(t, dev, "/console/own", 200, "daily", "little left", "percent used", `data-label="Refused">7<`, "2 of the last 3 refusals", `href="/problems/version-unsupported"`, `href="/problems/quota-exhausted"`)
	if strings.Contains(body, "kookas-own") {
		t.Error("another's limit is shown")
	}
	w.Used = func(l *ratelimit.Limit) control.LimitUse { return control.LimitUse{Used: 1000} }
	wants(t, dev, "/console/own", 200, "used up")
	// What its standing is called leads to what to do.
	wants(t, dev, "/console/own", 200, `href="/problems/certification-expired"`)
	wants(t, dev, "/problems/certification-expired", 200)
}
