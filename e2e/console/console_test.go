package console

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// pages that each role looks at; their names are those of the pictures.
var pages = map[string][]struct{ name, path string }{
	"": {{"register", "/register"}, {"register-search", "/register?q=kooka"}, {"register-none", "/register?q=nothing"}, {"asked-to-sign-in", "/console/"}, {"signed-out", "/console/signed-out"}, {"problems", "/problems"}, {"problem", "/problems/version-blocked"}},
	"operator@agency.example": {
		{"overview", "/console/"}, {"entities", "/console/entities"}, {"entity", "/console/entities/65000000101"}, {"products", "/console/products"}, {"product", "/console/products/FP-1009"},
		{"suspend-what", "/console/suspend"}, {"suspend", "/console/suspend?kind=product&id=FP-1003"}, {"suspend-service", "/console/suspend?kind=service&id=receipts.get"}, {"suspend-again", "/console/suspend?kind=entity&id=35000001111"},
		{"find", "/console/find?q=bird"}, {"find-none", "/console/find?q=nothing"}, {"find-what", "/console/find"}, {"suspensions", "/console/suspensions?all=1"}, {"suspension", "/console/suspensions/SU-currawong"}, {"sidecars", "/console/sidecars"},
		{"policies", "/console/policies"}, {"policy", "/console/policies/enumeration"}, {"policy-rule", "/console/policies/rule?id=fan-out"}, {"missing-fields", "/console/missing-fields"},
		{"decisions", "/console/decisions?product=FP-1001"}, {"decision", "/console/decisions/00000000000000000000000000"}, {"tokens", "/console/tokens"}, {"not-for-you", "/console/audit"}, {"nothing-here", "/console/products/FP-9999"},
	},
	"auditor@agency.example": {{"audit", "/console/audit"}, {"audit-entry", "/console/audit/0"}, {"changes", "/console/changes"}},
	"dev@wattlebird.example": {{"own", "/console/own"}, {"people", "/console/people"}, {"dev-decisions", "/console/decisions"}, {"dev-product", "/console/products/FP-1001"},
		{"add-ons", "/console/add-ons"}, {"ecosystems", "/console/ecosystem"}, {"ecosystem", "/console/ecosystem/FP-1001"}, {"threats", "/console/threat-analyses"}, {"threat-form", "/console/threat-analyses/new"},
		{"role-matrix", "/console/role-matrix"}, {"gap", "/console/gap-analysis"}},
	"newcomer@elsewhere.example": {{"join", "/console/join"}},
}

// TestPagesAreAccessibleAndFit: no violation found by axe-core, nothing wider
// than the screen, no script error and no broken policy, on any page at either width.
func TestPagesAreAccessibleAndFit(t *testing.T) {
	w, browser, source := controltest.New(t), chromium(t), axe(t)
	id, err := authz.ParseDecisionID("00000000000000000000000000")
	if err != nil {
		t.Fatal(err)
	}
	w.Records[id] = authz.Record{ID: id, At: registry.At(time.Now()), ProductID: "FP-1001", Reason: authz.VersionUnsupported, ClientID: "fp-1001-prod", Version: "4.8",
		Environment: registry.PROD, Service: "receipts.get", Route: "GET /lodgments/v1/receipts/{id}", Sidecar: "sidecar-1", Revision: 1}
	for _, s := range policy.Starters() {
		w.Policy(s.ID, s.Purpose, s.Rule)
	}
	w.Alarm("FP-1001", "812 people where about 4 is usual at this hour of the week")
	w.Fields = []anomaly.FieldTally{{Product: "FP-1001", Service: "as.0004.get", Calls: 812, Missing: [anomaly.NFields]uint64{anomaly.FieldVersion: 30, anomaly.FieldPerson: 812}}}
	w.Used = func(l *ratelimit.Limit) control.LimitUse {
		return control.LimitUse{Used: l.Capacity() - 12, Refused: 3}
	}
	daily := registry.Limit{Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1001"}, Name: "daily", Kind: registry.LimitQuota, Amount: 1000, Period: registry.PeriodDay, Zone: "Australia/Sydney"}
	if _, err := w.Register.SetLimit(t.Context(), registry.Actor{Name: "operator", Permissions: registry.PermOperator}, daily, registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	for email, list := range pages {
		b := open(t, browser, w)
		b.width(desk)
		if email != "" {
			b.signIn(email)
		}
		for _, p := range list {
			b.visit(p.path)
			b.look(source, p.name)
		}
		for _, f := range b.faults() {
			t.Errorf("as %q: %s", email, f)
		}
	}
}

// TestFormsWithProblemsAreAccessible, and so is the page with a new token.
func TestFormsWithProblemsAreAccessible(t *testing.T) {
	w, browser, source := controltest.New(t), chromium(t), axe(t)
	b := open(t, browser, w)
	b.width(phone)
	b.signIn("operator@agency.example")
	b.visit("/console/suspend")
	b.do(chromedp.SendKeys(chromedp.CSS("#id"), "FP-9999"), chromedp.Click(chromedp.CSS("main button[type=submit]")))
	b.sees("Not done.")
	b.shoot("suspend-problem-360")
	all := b.violations(source)
	b.visit("/console/tokens")
	b.do(chromedp.SendKeys(chromedp.CSS("#name"), "nightly report"), chromedp.Click(chromedp.CSS("#p-operator")), chromedp.Click(chromedp.CSS("main form[action='/console/tokens'] button")))
	b.sees("Copy it now")
	b.shoot("token-made-360")
	for _, v := range append(all, b.violations(source)...) {
		t.Error(v)
	}
	if wide := b.overflows(); wide != "" {
		t.Errorf("wider than the screen: %s", wide)
	}
}

// TestKeyboardAlone: sign in, suspend a product and sign out without a mouse.
func TestKeyboardAlone(t *testing.T) {
	w, browser := controltest.New(t), chromium(t)
	b := open(t, browser, w)
	b.width(desk)
	b.visit("/console/")
	b.tabTo("a.skip")
	b.tabTo("main a.button")
	b.press(kb.Enter)
	b.sees("Sandbox sign-in")
	b.tabTo("#email")
	b.press("operator@agency.example")
	b.tabTo("#password")
	b.press(controltest.Password, kb.Enter)
	b.sees("Overview")
	b.tabTo("main a[href='/console/suspend']")
	b.press(kb.Enter)
	b.sees("Show what it would stop")
	b.tabTo("#id")
	b.press("FP-1003", kb.Enter)
	b.sees("What it will stop")
	b.tabTo("#reason")
	b.press("credential found on a paste site")
	b.tabTo("button.stop")
	b.press(kb.Enter)
	b.sees("In force everywhere: 1 of 1")
	b.sees("You imposed it")
	b.tabTo("header form[action='/sign-out'] button")
	b.press(kb.Enter)
	b.sees("Your session here has ended")
	if f := b.faults(); len(f) > 0 {
		t.Error(f)
	}
}

// TestWithoutScript: everything works with JavaScript off.
func TestWithoutScript(t *testing.T) {
	w, browser := controltest.New(t), chromium(t)
	op, op2 := open(t, browser, w), open(t, browser, w)
	for _, b := range []*tab{op, op2} {
		if _, err := chromedp.Call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing can be asked of a page without script but by the protocol itself.
	text := func(b *tab) string {
		return get(b, chromedp.Text(chromedp.CSS("body")))
	}
	enter := func(b *tab, email string) {
		b.do(chromedp.Navigate(w.URL+"/sign-in"), chromedp.WaitReady(chromedp.CSS("#email")), chromedp.Focus(chromedp.CSS("#email")))
		b.press(email)
		b.do(chromedp.Focus(chromedp.CSS("#password")))
		b.press(controltest.Password, kb.Enter)
		b.do(chromedp.WaitReady(chromedp.CSS("form[action='/sign-out']")))
	}
	enter(op, "operator@agency.example")
	op.do(chromedp.Navigate(w.URL+"/console/suspend?kind=product&id=FP-1002"), chromedp.WaitReady(chromedp.CSS("#reason")), chromedp.Focus(chromedp.CSS("#reason")))
	op.press("leak")
	op.do(chromedp.Focus(chromedp.CSS("button.stop")))
	op.press(kb.Enter)
	op.do(chromedp.WaitReady(chromedp.CSS("#enforcement-status")))
	if s := text(op); !strings.Contains(s, "In force everywhere") {
		t.Errorf("after the suspension: %s", s)
	}
	where := get(op, chromedp.Location())
	enter(op2, "operator2@agency.example")
	op2.do(chromedp.Navigate(where), chromedp.WaitReady(chromedp.CSS("#lift-reason")), chromedp.Focus(chromedp.CSS("#lift-reason")))
	op2.press("replaced", kb.Enter)
	op2.do(chromedp.WaitNotPresent(chromedp.CSS("#lift-reason")))
	if s := text(op2); !strings.Contains(s, "Lifted") || !strings.Contains(s, "replaced") {
		t.Errorf("after the lift: %s", s)
	}
}

// TestLiveWait: the page of a suspension follows a sidecar that is cut off until
// it acknowledges, without being loaded again.
func TestLiveWait(t *testing.T) {
	w, browser := controltest.New(t), chromium(t)
	b := open(t, browser, w)
	b.width(desk)
	b.signIn("operator@agency.example")
	b.visit("/console/suspend?kind=product&id=FP-1001")
	w.Sidecar.Set(registrytest.Fault{Refused: true})
	b.do(chromedp.SendKeys(chromedp.CSS("#reason"), "leak"), chromedp.Click(chromedp.CSS("button.stop")))
	b.sees("How far it has come")
	get(b, chromedp.Evaluate[bool]("window.notLoadedAgain = true"))
	w.Sidecar.Set(registrytest.Fault{})
	b.sees("In force everywhere")
	if !get(b, chromedp.Evaluate[bool]("window.notLoadedAgain === true")) {
		t.Error("the page was loaded again")
	}
	if f := b.faults(); len(f) > 0 {
		t.Error(f)
	}
}

// TestC05InABrowser: markup in a name runs nowhere; the console cannot be framed;
// a form of another site changes nothing.
func TestC05InABrowser(t *testing.T) {
	w, browser := controltest.New(t), chromium(t)
	v, err := w.Register.View()
	if err != nil {
		t.Fatal(err)
	}
	p := *v.Product("FP-1001")
	p.Name = `<script>alert(1)</script><img src=x onerror=alert(2)>`
	if _, err := w.Register.UpdateProduct(t.Context(), registry.Actor{Name: "registrar", Permissions: registry.PermRegistrar}, p, registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	b := open(t, browser, w)
	b.width(desk)
	b.signIn("operator@agency.example")
	for _, path := range []string{"/console/products", "/console/products/FP-1001", "/console/entities/65000000101"} {
		b.visit(path)
		b.sees("<script>alert(1)</script>")
	}
	if f := b.faults(); len(f) > 0 {
		t.Errorf("the name did something: %v", f)
	}

	evil := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(rw, `<iframe id=f src="%s/console/products"></iframe><form id=g method=post action="%s/console/suspensions"><input name=kind value=product><input name=id value=FP-1002><input name=reason value=forged></form>`, w.URL, w.URL)
	}))
	defer evil.Close()
	// Another origin: localhost is not 127.0.0.1.
	b.do(chromedp.Navigate(strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)), chromedp.WaitReady(chromedp.CSS("#g")))
	controltest.Eventually(t, "the frame is refused", func() bool {
		return strings.Contains(strings.Join(b.faults(), " "), "frame")
	})
	get(b, chromedp.Evaluate[bool]("setTimeout(() => document.getElementById('g').submit(), 0), true"))
	b.sees("This form came from another site")
	b.visit("/console/suspensions?all=1")
	if body := get(b, chromedp.Text(chromedp.CSS("main"))); strings.Contains(body, "FP-1002") {
		t.Error("the forged form suspended a product")
	}
}
