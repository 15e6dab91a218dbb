package console

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/registry"
)

// TestEventsAreSeenLive: what happens comes up on the page without its being
// loaded again, to an officer and, of its own only, to a developer; the page says
// that it is live, can be paused, and shows the latest without script.
func TestEventsAreSeenLive(t *testing.T) {
	w, browser, source := controltest.New(t), chromium(t), axe(t)
	officer, dev := open(t, browser, w), open(t, browser, w)
	officer.width(desk)
	dev.width(desk)
	officer.signIn("operator@agency.example")
	dev.signIn("dev@wattlebird.example")
	for _, b := range []*tab{officer, dev} {
		b.visit("/console/live")
		b.sees("Pause")
		get(b, chromedp.Evaluate[bool]("window.notLoadedAgain = true"))
	}
	actor := registry.Actor{Name: "operator2@agency.example", Permissions: registry.PermOperator}
	suspend := func(product, why string) {
		t.Helper()
		if _, err := w.Register.Suspend(t.Context(), actor, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: product}, Reason: why}); err != nil {
			t.Fatal(err)
		}
	}
	controltest.Eventually(t, "both pages are live", func() bool {
		live := `document.querySelector("[data-live-status]").textContent === "Live"`
		return get(officer, chromedp.Evaluate[bool](live)) && get(dev, chromedp.Evaluate[bool](live))
	})
	suspend("FP-1003", "seen by the officer alone")
	suspend("FP-1001", "seen by both")
	officer.sees("seen by the officer alone")
	now := time.Now()
	w.Calls.Add(authz.Record{ID: authz.NewIDs().Next(now), At: registry.At(now), ProductID: "FP-1001", Reason: authz.ProductSuspended, Service: "receipts.get"})
	for _, b := range []*tab{officer, dev} {
		b.sees("seen by both")
		if !get(b, chromedp.Evaluate[bool]("window.notLoadedAgain === true")) {
			t.Error("the page was loaded again")
		}
	}
	if text := get(dev, chromedp.Evaluate[string]("document.body.innerText")); strings.Contains(text, "officer alone") || strings.Contains(text, actor.Name) {
		t.Errorf("a developer sees another's: %s", text)
	}
	officer.look(source, "live")
	dev.look(source, "live-of-developer")
	officer.visit("/console/signals")
	officer.sees("No alarm waits to be judged")
	w.Signals = []anomaly.Signal{{Subject: anomaly.Subject{Kind: anomaly.ClientApp, ID: "fp-1003-prod"}, Name: anomaly.SignalPersons, At: now, P: 1e-6, Value: 812, Newcomer: true,
		Reasons: []string{"812 where about 4 is usual at this hour of the week", "values like 812 have hardly ever been seen"}}}
	w.Alarm("FP-1003", "812 where about 4 is usual at this hour of the week")
	officer.visit("/console/signals")
	officer.look(source, "signals")
	officer.submit("article.alarm form")
	officer.sees("No alarm waits to be judged")
	officer.visit("/console/live")
	officer.do(chromedp.Click(chromedp.CSS("[data-live] button")))
	officer.sees("Paused")
	officer.visit("/console/live?topic=suspension")
	officer.sees("seen by both")
	for _, b := range []*tab{officer, dev} {
		for _, f := range b.faults() {
			t.Error(f)
		}
	}
}

// TestTheOverviewKeepsItselfUpToDate: what others do comes up without the page's
// being loaded again, and the page says so when it is old.
func TestTheOverviewKeepsItselfUpToDate(t *testing.T) {
	w, browser := controltest.New(t), chromium(t)
	b := open(t, browser, w)
	b.width(desk)
	b.signIn("operator2@agency.example")
	b.visit("/console/")
	get(b, chromedp.Evaluate[bool]("window.notLoadedAgain = true"))
	actor := registry.Actor{Name: "operator@agency.example", Permissions: registry.PermOperator}
	if _, err := w.Register.Suspend(t.Context(), actor, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1003"}, Reason: "seen by and by"}); err != nil {
		t.Fatal(err)
	}
	look := `document.dispatchEvent(new Event("visibilitychange")), true` // as when somebody comes back to it
	shows := func(text string) func() bool {
		return func() bool {
			return get(b, chromedp.Evaluate[bool](look)) && strings.Contains(get(b, chromedp.Evaluate[string]("document.body.innerText")), text)
		}
	}
	controltest.Eventually(t, "the suspension is on the page", shows("seen by and by"))
	w.Sessions.Each(func(string, []byte) []byte { return nil })
	controltest.Eventually(t, "the page says that it is old", shows("not kept up to date any more"))
	if !get(b, chromedp.Evaluate[bool]("window.notLoadedAgain === true")) {
		t.Error("the page was loaded again")
	}
	for _, f := range b.faults() {
		t.Error(f)
	}
}
