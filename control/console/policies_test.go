package console_test

import (
	"html"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/control/controltest"
)

// TestPolicyPages writes a policy by the form, tries it, has two people enforce
// it, and one put it back; an auditor reads, and a developer is shown nothing.
func TestPolicyPages(t *testing.T) {
	w := controltest.New(t)
	w.Signals = []anomaly.Signal{{Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1001"}, Name: anomaly.SignalSweep, At: time.Now().Add(-time.Minute), P: 1e-6, Value: 812, Reasons: []string{"<b>812</b> where about 4 is usual"}}}
	ines, olga := w.Browser(officer), w.Browser(operator)
	wants(t, ines, "/console/policies", 200, "No policy yet", "Write a policy")
	wants(t, ines, "/console/policies/rule", 200, "sweep: people read about", "Try it on the last day")

	rule := url.Values{"new": {"1"}, "id": {"slow-sweep"}, "purpose": {"slow down who reads about many"}, "signals": {"sweep"}, "subjects": {"product"}, "do": {"throttle"}, "rate": {"5"}, "minutes": {"60"}, "max_traffic": {"100"}}
	with := func(name, value string) url.Values {
		out := url.Values{}
		for k, v := range rule {
			out[k] = v
		}
		out.Set(name, value)
		return out
	}
	at := "/console/policies/rule"
	if status, body := ines.Send(at, with("what", "try")); status != 200 || !strings.Contains(body, "1 caller touched") || !strings.Contains(body, "FP-1001") || strings.Contains(body, "<b>812") {
		t.Errorf("tried: %d %s", status, body)
	}
	for name, form := range map[string]url.Values{"This is no number": with("rate", "many"), "1 to 240 minutes": with("minutes", "999"), "Give it a name": func() url.Values { f := with("id", ""); f.Set("what", "save"); return f }()} {
		if status, body := ines.Send(at, form); status != 422 || !strings.Contains(body, name) || !strings.Contains(body, "slow down who reads about many") {
			t.Errorf("%s: %d %s", name, status, heading(body))
		}
	}
	if status, body := ines.Send(at, with("what", "save")); status != 200 || !strings.Contains(body, "In shadow: version 1") {
		t.Fatalf("saved: %d %s", status, body)
	}
	page := "/console/policies/slow-sweep"
	wants(t, ines, "/console/policies", 200, "slow-sweep", "in shadow", "throttle to 5 calls a second")
	act := func(who *controltest.Browser, what string) (int, string) {
		t.Helper()
		_, body := who.Read(page)
		return who.Send(page+"/"+what, url.Values{"etag": {between(body, `name="etag" value="`, `"`)}, "reason": {"it was right"}})
	}
	if status, body := act(w.Browser(auditor), "enforce"); status != 403 {
		t.Errorf("by an auditor: %d %s", status, heading(body))
	}
	if status, body := act(ines, "enforce"); status != 200 || !strings.Contains(body, "You asked for it") {
		t.Errorf("asked: %d %s", status, body)
	}
	if status, body := act(ines, "enforce"); status != 403 && !strings.Contains(body, "another person approves") {
		t.Errorf("alone: %d %s", status, heading(body))
	}
	wants(t, olga, page, 200, "Approve: enforce it now")
	if status, body := act(olga, "enforce"); status != 200 || !strings.Contains(body, "Put it back into shadow") || !strings.Contains(body, "and "+operator) {
		t.Errorf("approved: %d %s", status, body)
	}
	wants(t, w.Browser(auditor), page, 200, "slow down who reads about many")
	if status, body := act(ines, "relax"); status != 200 || !strings.Contains(body, "In shadow: version 2") {
		t.Errorf("put back: %d %s", status, heading(body))
	}
	// What the form has no field for is kept by a new version.
	w.Policy("picky", "x", policy.Rule{When: policy.Condition{Signals: []string{"sweep"}, Risk: 3, Newcomer: "only"}, Then: policy.Countermeasure{Do: policy.Observe}})
	body := wants(t, ines, "/console/policies/rule?id=picky", 200, "newcomers only", "rated 3 or higher")
	rest := between(body, `name="rest" value="`, `"`)
	if status, body := ines.Send(at, url.Values{"id": {"picky"}, "purpose": {"x"}, "signals": {"rush"}, "do": {"observe"}, "rest": {rest}, "what": {"save"}}); status != 200 {
		t.Fatalf("%d %s", status, heading(body))
	}
	wants(t, ines, "/console/policies/rule?id=picky", 200, "newcomers only", "rated 3 or higher")
	if status, body := act(ines, "stop"); status != 200 || !strings.Contains(body, "off") {
		t.Errorf("ended: %d %s", status, heading(body))
	}
	wants(t, w.Browser(wattlebird), "/console/policies", 403)
	wants(t, w.Browser(registrar), page, 403)
}

// between cuts out what stands between two texts; "" when they do not.
func between(text, before, after string) string {
	_, rest, _ := strings.Cut(text, before)
	found, _, ok := strings.Cut(rest, after)
	if !ok {
		return ""
	}
	return html.UnescapeString(found)
}

// TestMissingFieldsPage says in words what calls lack, to staff of all, to a
// developer of its own.
func TestMissingFieldsPage(t *testing.T) {
	w := controltest.New(t)
	w.Fields = []anomaly.FieldTally{
		{Product: "FP-1001", Service: "abr.lookup", Calls: 8, Missing: [anomaly.NFields]uint64{anomaly.FieldVersion: 2}},
		{Product: "FP-1001", Service: "payevnt.0004.submit", Calls: 8},
		{Product: "FP-1003", Service: "piitr.get", Calls: 8, Missing: [anomaly.NFields]uint64{anomaly.FieldPerson: 8}},
	}
	ines := w.Browser(officer)
	body := wants(t, ines, "/console/missing-fields", 200, "product version in 25.0 % of the calls", "subject hash in 100.0 % of the calls")
	if strings.Contains(body, "payevnt") {
		t.Error("what says all is shown")
	}
	wants(t, ines, "/console/missing-fields?all=1&product=FP-1001", 200, "payevnt", "nothing")
	if body := wants(t, w.Browser(wattlebird), "/console/missing-fields", 200, "FP-1001", "cannot be watched over"); strings.Contains(body, "FP-1003") {
		t.Error("another's product is shown")
	}
	wants(t, w.Browser(registrar), "/console/missing-fields", 403)
}
