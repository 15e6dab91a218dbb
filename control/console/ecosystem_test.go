package console_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/control/controltest"
)

// TestAddOnsThroughThePages: a developer declares one, an operator stops it by its
// subscriptions, and another's is not there.
func TestAddOnsThroughThePages(t *testing.T) {
	w := controltest.New(t)
	dev, op := w.Browser(wattlebird), w.Browser(operator)
	wants(t, dev, "/console/add-ons", 200, "No add-on was declared", "Wattlebird Pay Cloud (FP-1001)")
	form := url.Values{"product": {"FP-1001"}, "name": {"Roster Magic"}, "developer": {"Magic Pty Ltd"}, "connections": {"many"}, "ssids": {"0000123400"}}
	does(t, dev, "/console/add-ons", form, 422, "Connections: write a whole number", `href="#connections"`, "Roster Magic")
	form.Set("connections", "1,200")
	form.Set("ssids", "0000999999")
	does(t, dev, "/console/add-ons", form, 422, `href="#ssids"`, "no subscription of FP-1001")
	form.Set("ssids", "0000123400")
	form.Set("assessed", "31/12/2025")
	does(t, dev, "/console/add-ons", form, 422, `href="#assessed"`)
	form.Set("assessed", "")
	body := does(t, dev, "/console/add-ons", form, 200, "Roster Magic", "overdue")
	page := regexp.MustCompile(`/console/add-ons/AO-\d+`).FindString(body)
	body = wants(t, dev, page, 200, "It has 1200 connections, more than 1000")
	if strings.Contains(body, "Suspend this add-on") {
		t.Error("a developer is offered to suspend")
	}
	etag := etagOf(body)
	form.Set("etag", etag)
	form.Set("connections", "900")
	does(t, dev, page+"/change", form, 200, "not more than 1000")
	does(t, dev, page+"/change", form, 412, "changed since you opened the page")

	wants(t, w.Browser(kookaburra), page, 404)
	if body := wants(t, w.Browser(kookaburra), "/console/add-ons", 200); strings.Contains(body, "Roster") {
		t.Error("another's add-on is listed")
	}
	wants(t, op, "/console/add-ons?q=magic", 200, "Roster Magic")
	wants(t, op, "/console/add-ons?listed=yes", 200, "No add-on like that")
	wants(t, op, page, 200, "What it will stop", "its one subscription")
	does(t, op, page+"/suspend", url.Values{"reason": {""}}, 422, `href="#reason"`)
	does(t, op, page+"/suspend", url.Values{"reason": {"it reads too much"}}, 200, "Suspension of subscription 0000123400", "In force everywhere")
	wants(t, op, page, 200, "Suspended now: 1 of 1", "it reads too much")
	if status, _ := dev.Send(page+"/suspend", url.Values{"reason": {"x"}}); status != 403 {
		t.Errorf("a developer suspends: %d", status)
	}
	etag = etagOf(wants(t, dev, page, 200))
	does(t, dev, page+"/remove", url.Values{"etag": {etag}}, 200, "taken off the list")
	wants(t, dev, "/console/add-ons/AO-1", 404)
	does(t, dev, page+"/nothing", url.Values{}, 404)
}

// TestEcosystemThroughThePages: the questionnaire is answered, what is wrong is
// said beside its field, and only the owner may.
func TestEcosystemThroughThePages(t *testing.T) {
	w := controltest.New(t)
	dev := w.Browser(wattlebird)
	wants(t, dev, "/console/ecosystem", 200, "Wattlebird Pay Cloud", "0 of ")
	page := "/console/ecosystem/FP-1001"
	body := wants(t, dev, page, 200, "Save the answers")
	form := url.Values{}
	for _, m := range regexp.MustCompile(`name="q" value="([^"]+)"`).FindAllStringSubmatch(body, -1) {
		form.Add("q", m[1])
	}
	for _, m := range regexp.MustCompile(`type="radio" name="(a-[^"]+)" value="([^"]+)"`).FindAllStringSubmatch(body, -1) {
		form.Set(m[1], m[2])
	}
	if len(form) < 2 {
		t.Fatalf("nothing is asked: %v", form)
	}
	body = does(t, dev, page, form, 200)
	checked := strings.Count(body, `" checked>`)
	if checked < len(form)-1 {
		t.Errorf("%d of %d answers were kept", checked, len(form)-1)
	}
	for name := range form {
		if strings.HasPrefix(name, "a-") {
			form.Set(name, "none of these words")
			does(t, dev, page, form, 422, `href="#q-`+strings.TrimPrefix(name, "a-")+`"`)
			break
		}
	}
	wants(t, w.Browser(kookaburra), page, 404)
	if body := wants(t, w.Browser(auditor), page, 200); strings.Contains(body, "Save the answers") {
		t.Error("an auditor may answer")
	}
	wants(t, w.Browser(assessor), "/console/ecosystem?product=FP-1001", 200, "Ecosystem of Wattlebird Pay Cloud")
}

// TestThreatAnalysesThroughThePages: rows that were left empty are none, and what
// is wrong names the row as it stands on the page.
func TestThreatAnalysesThroughThePages(t *testing.T) {
	w := controltest.New(t)
	dev := w.Browser(wattlebird)
	wants(t, dev, "/console/threat-analyses", 200, "None was handed in")
	wants(t, dev, "/console/threat-analyses/new", 200, "Threat 3")
	form := url.Values{"product": {"FP-1001"}, "title": {"Around the payroll"}, "scope": {"The product and its add-ons"}}
	for _, n := range []string{"0", "1", "2"} {
		for _, f := range []string{"title", "scenario", "control"} {
			form.Set("threat-"+n+"-"+f, "")
		}
		form.Set("threat-"+n+"-likelihood", "low")
		form.Set("threat-"+n+"-impact", "low")
		form.Set("threat-"+n+"-treatment", "reduce")
	}
	does(t, dev, "/console/threat-analyses", form, 422, "list the threats", `href="#threat-0-title"`)
	form.Set("threat-1-title", "A key is stolen")
	form.Set("threat-1-scenario", "From a laptop")
	does(t, dev, "/console/threat-analyses", form, 422, "Threat 2, control", `href="#threat-1-control"`)
	form.Set("more", "yes")
	does(t, dev, "/console/threat-analyses", form, 200, "Threat 6", "A key is stolen")
	form.Del("more")
	form.Set("threat-1-control", "Keys in hardware")
	form.Set("threat-2-title", "An add-on reads all")
	form.Set("threat-2-scenario", "By one SSID")
	form.Set("threat-2-impact", "high")
	form.Set("threat-2-likelihood", "high")
	form.Set("threat-2-treatment", "accept")
	body := does(t, dev, "/console/threat-analyses", form, 200, "Around the payroll", "9 of 9")
	page := regexp.MustCompile(`/console/threat-analyses/TA-\d+`).FindString(body)
	body = wants(t, dev, page, 200, "Keys in hardware")
	if strings.Index(body, "An add-on reads all") > strings.Index(body, "A key is stolen") {
		t.Error("the worst does not come first")
	}
	wants(t, w.Browser(assessor), page, 200, "dev@wattlebird.example")
	wants(t, w.Browser(kookaburra), page, 404)
	wants(t, w.Browser(operator2), "/console/threat-analyses/new", 403)
	wants(t, dev, "/console/role-matrix", 200, "registers and self-certifies", "In-house developer")
}
