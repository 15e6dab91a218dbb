package console

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// put writes into fields as a person who pastes does.
func (b *tab) put(fields ...string) {
	b.t.Helper()
	for i := 0; i+1 < len(fields); i += 2 {
		ok := get(b, chromedp.Evaluate[bool](fmt.Sprintf(`(() => { const e = document.querySelector(%q); if (!e) return false; if (e.type === "checkbox" || e.type === "radio") e.checked = %q !== ""; else e.value = %q; return true; })()`, fields[i], fields[i+1], fields[i+1])))
		if !ok {
			b.t.Fatalf("no field %s on %s", fields[i], get(b, chromedp.Location()))
		}
	}
}

// submit sends the form that a selector finds, by its button.
func (b *tab) submit(form string) {
	b.t.Helper()
	get(b, chromedp.Evaluate[bool](`(window.before = true)`))
	b.do(chromedp.Click(chromedp.CSS(form + " button[type=submit], " + form + " button:not([type])")))
	controltest.Eventually(b.t, "another page after "+form, func() bool {
		again, err := chromedp.Run(b, chromedp.Evaluate[bool](`window.before !== true && document.readyState === "complete"`))
		return err == nil && again
	})
}

// look holds a page against axe and both widths, and keeps pictures.
func (b *tab) look(source, name string) {
	b.t.Helper()
	for _, px := range []int64{desk, phone} {
		b.width(px)
		for _, v := range b.violations(source) {
			b.t.Errorf("%s at %d: %s", name, px, v)
		}
		if wide := b.overflows(); wide != "" {
			b.t.Errorf("%s at %d is wider than the screen: %s", name, px, wide)
		}
		b.shoot(fmt.Sprintf("%s-%d", name, px))
	}
	b.width(desk)
	for _, v := range b.darkViolations(source) {
		b.t.Errorf("%s in the dark: %s", name, v)
	}
}

func at(ago time.Duration) string { return time.Now().UTC().Add(-ago).Format("2006-01-02T15:04") }

// TestIncidentThroughThePages: a developer reports, contradicting itself, and
// completes the draft; an officer triages, contains it through the fence, tells
// those concerned and closes it.
func TestIncidentThroughThePages(t *testing.T) {
	w, browser, source := controltest.New(t), chromium(t), axe(t)
	dev, officer, second := open(t, browser, w), open(t, browser, w), open(t, browser, w)
	for _, b := range []*tab{dev, officer, second} {
		b.width(desk)
	}
	dev.signIn("dev@wattlebird.example")
	dev.visit("/console/incidents")
	dev.sees("No open incident")
	dev.visit("/console/incidents/new")
	dev.look(source, "incident-report")
	dev.put("#title", "Signing key on a paste site", "#type", "credential-compromise", "#occurred", at(time.Hour), "#aware", at(20*time.Hour), "#subject-id-0", "FP-1001",
		"#taxpayer", "yes", "#records", "12", "#ssids", "0000123400", "#indicators", "ip 203.0.113.7\nsession abc", "#description", "Found by a customer.")
	dev.submit("form.report")
	dev.sees("kept as a draft")
	dev.sees("is before it happened")
	dev.look(source, "incident-draft")
	dev.put("#occurred", at(20*time.Hour), "#aware", at(2*time.Hour))
	dev.submit("form.report")
	dev.sees("reported")
	where := strings.TrimPrefix(get(dev, chromedp.Location()), w.URL)
	where, _, _ = strings.Cut(where, "#")
	dev.look(source, "incident-of-developer")

	officer.signIn("officer@agency.example")
	officer.visit("/console/incidents")
	officer.sees("Signing key on a paste site")
	officer.sees("from awareness")
	officer.look(source, "incidents")
	officer.visit("/console/")
	officer.sees("without an owner")
	officer.sees("Triage")
	officer.look(source, "overview-officer")
	officer.visit(where)
	officer.sees("Next: triage")
	officer.look(source, "incident-reported")
	officer.submit("#triage form")
	officer.sees("Owner: officer@agency.example")

	w.Sidecar.Set(registrytest.Fault{Refused: true})
	officer.put("#contain-how", "the key is public")
	officer.submit("form.containform")
	officer.sees("of 1 sidecars acknowledged it")
	officer.look(source, "incident-containing")
	get(officer, chromedp.Evaluate[bool]("window.notLoadedAgain = true"))
	w.Sidecar.Set(registrytest.Fault{})
	officer.sees("In force everywhere")
	if !get(officer, chromedp.Evaluate[bool]("window.notLoadedAgain === true")) {
		t.Error("the page was loaded again")
	}

	preview := get(officer, chromedp.Evaluate[string](`[...document.querySelectorAll("#notices pre")].map(e => e.textContent).join("\n--\n")`))
	for _, text := range []string{"0000123400", "203.0.113.7", "You need not do anything else now"} {
		if !strings.Contains(preview, text) {
			t.Errorf("no notice says %q: %s", text, preview)
		}
	}
	officer.put("#to-entity", "yes", "#to-user", "yes", "#to-chain", "yes")
	officer.submit("#notices form")
	officer.sees("told")
	officer.submit("#notices form")
	officer.sees("Choose who is told")
	officer.look(source, "incident-contained")

	officer.put("#eligible-no", "yes", "#assess-reason", "nobody is harmed")
	officer.do(chromedp.Click(chromedp.CSS("#breach summary")))
	officer.submit("#breach form")
	officer.sees("not an eligible data breach")
	officer.put("#plan-what", "Rotate every key", "#plan-due", at(-48*time.Hour))
	officer.submit("#treatment form")
	officer.put("#step-0", "yes")
	officer.submit("#treatment form")
	officer.sees("treated")

	second.signIn("operator2@agency.example")
	second.visit(where)
	second.do(chromedp.Click(chromedp.CSS(".fence a")))
	second.sees("How far it has come")
	second.submit("form[action$='/lift']")

	officer.visit(where)
	officer.put("#close-cause", "the key lay in a public repository", "#close-done", "rotated", "#close-lessons", "Scan what is published for secrets.")
	officer.submit("#close form")
	officer.sees("How it ended")
	officer.look(source, "incident-closed")
	second.visit("/console/lessons")
	second.sees("Scan what is published")
	second.look(source, "lessons")
	dev.visit(where)
	dev.sees("Ask for a second look")
	dev.look(source, "incident-closed-of-developer")
	for _, b := range []*tab{dev, officer, second} {
		for _, f := range b.faults() {
			t.Error(f)
		}
	}
}

// TestDrillIsUnmistakable, and a session that ended loses nothing of a report.
func TestDrillIsUnmistakable(t *testing.T) {
	w, browser, source := controltest.New(t), chromium(t), axe(t)
	b := open(t, browser, w)
	b.width(desk)
	b.signIn("operator@agency.example")
	b.visit("/console/incidents/new?kind=product&id=FP-1003")
	b.put("#title", "Ransomware, rehearsed", "#type", "malware", "#occurred", at(30*time.Hour), "#aware", at(10*time.Hour), "#drill", "yes", "#tfn", "yes", "#entity", "31000000202")
	w.Sessions.Each(func(string, []byte) []byte { return nil })
	b.submit("form.report")
	b.sees("It is still here")
	b.look(source, "session-ended")
	typed := get(b, chromedp.Evaluate[string](`document.querySelector("input[name=title]").value`))
	if typed != "Ransomware, rehearsed" {
		t.Errorf("what was typed came back as %q", typed)
	}
	b.signIn("operator@agency.example")
	b.visit("/console/incidents/new")
	b.put("#title", typed, "#type", "malware", "#occurred", at(30*time.Hour), "#aware", at(10*time.Hour), "#drill", "yes", "#tfn", "yes", "#entity", "31000000202", "#subject-id-0", "FP-1003")
	b.submit("form.report")
	b.sees("nothing here touches production")
	b.submit("#triage form")
	b.sees("Contained, in the drill")
	b.look(source, "incident-drill")
	b.visit("/console/incidents")
	b.look(source, "incidents-drill")
	if get(b, chromedp.Evaluate[bool](`document.querySelector("input[name=target]") !== null`)) {
		t.Error("a drill offers to suspend")
	}
}
