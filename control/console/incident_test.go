package console_test

import (
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/control/controltest"
)

const officer = "officer@agency.example"

func hoursAgo(h int) string {
	return time.Now().UTC().Add(-time.Duration(h) * time.Hour).Format("2006-01-02T15:04")
}

func report(more url.Values) url.Values {
	f := url.Values{"title": {"Signing key on a paste site"}, "type": {"credential-compromise"}, "occurred": {hoursAgo(20)}, "aware": {hoursAgo(1)}, "zone": {"UTC"},
		"subject-kind-0": {"product"}, "subject-id-0": {"FP-1001"}}
	for k, v := range more {
		f[k] = v
	}
	return f
}

var incidentID = regexp.MustCompile(`INC-\d+`)

func reported(t *testing.T, b *controltest.Browser, form url.Values) (id, body string) {
	t.Helper()
	status, body := b.Send("/console/incidents", form)
	if id = incidentID.FindString(body); id == "" || status >= 300 {
		t.Fatalf("report: %d %s", status, heading(body))
	}
	return id, body
}

// TestNoReportIsLost: what is wrong comes back as a draft or in the form, also
// when the session has ended.
func TestNoReportIsLost(t *testing.T) {
	w := controltest.New(t)
	dev := w.Browser(wattlebird)
	id, body := reported(t, dev, report(url.Values{"aware": {hoursAgo(30)}, "subject-id-0": {"FP-9999"}}))
	for _, text := range []string{"kept as a draft", "is before it happened", "No product FP-9999 is in the register"} {
		if !strings.Contains(body, text) {
			t.Errorf("the draft does not say %q", text)
		}
	}
	if status, body := dev.Send("/console/incidents/"+id+"/amend", report(nil)); status != 200 || strings.Contains(body, "kept as a draft") {
		t.Errorf("completed: %d %s", status, heading(body))
	}
	for field, wrong := range map[string]string{"records": "about fifty", "occurred": "yesterday"} {
		if status, body := dev.Send("/console/incidents", report(url.Values{field: {wrong}})); status != 422 || !strings.Contains(body, `value="`+wrong+`"`) || !strings.Contains(body, "Signing key on a paste site") {
			t.Errorf("%s %s: %d %s", field, wrong, status, heading(body))
		}
	}
	w.Sessions.Each(func(string, []byte) []byte { return nil })
	status, body := dev.Send("/console/incidents", report(url.Values{"title": {`Key & "token" <leak>`}}))
	if status != 401 || !strings.Contains(body, "It is still here") {
		t.Fatalf("after the session ended: %d %s", status, heading(body))
	}
	again := url.Values{}
	for _, m := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(body, -1) {
		again.Add(m[1], html.UnescapeString(m[2]))
	}
	if _, body := reported(t, w.Browser(wattlebird), again); !strings.Contains(body, "Key &amp; &#34;token&#34; &lt;leak&gt;") {
		t.Errorf("what was sent again is %s", heading(body))
	}
}

// TestIncidentPagesByRole: officers work on it, an auditor looks, a registrar
// reports only, and another entity meets nothing.
func TestIncidentPagesByRole(t *testing.T) {
	w := controltest.New(t)
	dev := w.Browser(wattlebird)
	id, _ := reported(t, dev, report(nil))
	at := "/console/incidents/" + id
	wants(t, w.Browser(kookaburra), at, 404)
	if body := wants(t, w.Browser(kookaburra), "/console/incidents", 200, "No open incident"); strings.Contains(body, id) {
		t.Error("another entity's incident is listed")
	}
	for _, form := range []string{"triage", "contain", "notify", "close", "dismiss", "assess", "plan"} {
		if status, _ := dev.Send(at+"/"+form, url.Values{"audience": {"entity"}, "how": {"x"}, "reason": {"x"}, "eligible": {"no"}, "cause": {"x"}, "done": {"x"}, "what": {"x"}, "due": {"2030-01-01T00:00"}}); status != 403 {
			t.Errorf("%s by the developer: %d, want 403", form, status)
		}
	}
	if body := wants(t, w.Browser(auditor), at, 200, "Notices", "Timeline"); strings.Contains(body, "Next: triage") || strings.Contains(body, "Send the notices") {
		t.Error("an auditor is offered what it may not do")
	}
	clerk := w.Browser(registrar)
	wants(t, clerk, at, 404)
	if body := wants(t, clerk, "/console/incidents", 200, "Report an incident"); strings.Contains(body, id) {
		t.Error("a registrar is shown incidents")
	}
	if status, body := clerk.Send("/console/incidents", report(nil)); status != 201 || heading(body) != "Thank you" {
		t.Errorf("a registrar reports: %d %s", status, heading(body))
	}
	wants(t, w.Browser(auditor), "/console/incidents/new", 403)
	wants(t, w.Browser(""), "/console/lessons", 200, "No lesson has been published yet")
	wants(t, w.Browser(""), "/console/incidents", 401)
	if status, _ := w.Browser(officer).Send(at+"/nothing", nil); status != 404 {
		t.Errorf("an unknown form: %d", status)
	}
}

// TestAppealTakesTwo, and a form made of an older state of the incident is told
// so and kept.
func TestAppealTakesTwo(t *testing.T) {
	w := controltest.New(t)
	dev, ines, olive, otto := w.Browser(wattlebird), w.Browser(officer), w.Browser(operator), w.Browser(operator2)
	id, _ := reported(t, dev, report(nil))
	at := "/console/incidents/" + id
	if status, body := ines.Send(at+"/triage", url.Values{"revision": {"1"}, "reason": {"my long reason"}}); status != 412 || !strings.Contains(body, "Somebody changed this incident") || !strings.Contains(body, "my long reason") {
		t.Errorf("an old form: %d %s", status, heading(body))
	}
	steps := []struct {
		who  *controltest.Browser
		what string
		form url.Values
		sees string
	}{
		{ines, "triage", url.Values{"owner": {""}}, "Owner: " + officer},
		{ines, "contain", url.Values{"target": {"subscription 0000123400"}, "how": {"blocked"}}, "In force everywhere"},
		{ines, "ask-logs", url.Values{"entity": {"65 000 000 101"}, "what": {"Sign-ins of the week"}, "due": {"2030-01-01T00:00"}}, "Sign-ins of the week"},
		{dev, "appeal", url.Values{"grounds": {"it was a test key"}}, "being looked at again"},
		{ines, "decide-appeal", url.Values{"upheld": {"no"}, "reason": {"no"}}, "does not decide the appeal"},
		{olive, "decide-appeal", url.Values{"upheld": {"yes"}, "reason": {"a test key"}}, "one of two has decided"},
		{olive, "decide-appeal", url.Values{"upheld": {"yes"}, "reason": {"again"}}, "second person decides"},
		{otto, "decide-appeal", url.Values{"upheld": {"yes"}, "reason": {"a test key"}}, "upheld"},
	}
	for _, s := range steps {
		if _, body := s.who.Send(at+"/"+s.what, s.form); !strings.Contains(body, s.sees) {
			t.Fatalf("%s: no %q on %s\n%s", s.what, s.sees, heading(body), body)
		}
	}
	request := regexp.MustCompile(`LR-\d+`).FindString(wants(t, dev, at, 200))
	if _, body := dev.Send(at+"/answer-logs", url.Values{"request": {request}, "evidence": {"EV-1"}}); !strings.Contains(body, "answered") {
		t.Errorf("the request for logs is not answered: %s", heading(body))
	}
}
