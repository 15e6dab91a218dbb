package console_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/control/controltest"
)

// TestSuspendIsTwoClicksAway: from a product, an entity and the search a link
// leads to what it would stop, and one button there does it.
func TestSuspendIsTwoClicksAway(t *testing.T) {
	w := controltest.New(t)
	b := w.Browser(operator)
	for from, links := range map[string][]string{
		"/console/products/FP-1001":           {"kind=product&amp;id=FP-1001", "kind=version&amp;id=FP-1001@4.8", "kind=client-app&amp;id=fp-1001-prod", "kind=subscription&amp;id=0000123400"},
		"/console/entities/65000000101":       {"kind=entity&amp;id=65000000101"},
		"/console/find?q=wattlebird":          {"id=FP-1001&amp;kind=product", "id=65000000101&amp;kind=entity"},
		"/console/find?q=65+000+000+101":      {"id=65000000101&amp;kind=entity", "id=FP-1001&amp;kind=product"},
		"/console/find?q=FP-1009%404.2":       {"id=FP-1009%404.2&amp;kind=version"},
		"/console/find?q=fp-1001-prod":        {"id=fp-1001-prod&amp;kind=client-app"},
		"/console/find?q=0000123400":          {"id=0000123400&amp;kind=subscription"},
		"/console/find?q=payevnt.0004.submit": {"id=payevnt.0004.submit&amp;kind=service"},
	} {
		body := wants(t, b, from, 200)
		for _, link := range links {
			href := "/console/suspend?" + link
			if !strings.Contains(body, `href="`+href+`"`) {
				t.Errorf("%s has no link to %s", from, href)
				continue
			}
			wants(t, b, strings.ReplaceAll(href, "&amp;", "&"), 200, "What it will stop", "Suspend now", "Nothing has happened yet")
		}
	}
	if _, body := b.Read("/console/suspensions"); strings.Contains(body, "FP-1001") {
		t.Error("looking suspended something")
	}
	// A service is everybody's: it has to be meant twice.
	form := url.Values{"kind": {"service"}, "id": {"receipts.get"}, "reason": {"wrong receipts"}}
	if status, body := b.Send("/console/suspensions", form); status != 422 || !strings.Contains(body, `href="#sure"`) || !strings.Contains(body, "wrong receipts") {
		t.Errorf("not meant twice: %d %s", status, heading(body))
	}
	form.Set("sure", "yes")
	if status, body := b.Send("/console/suspensions", form); status != 200 || heading(body) != "Suspension of service receipts.get" {
		t.Errorf("meant twice: %d %s", status, heading(body))
	}
	// Those who may not suspend are offered nothing of it.
	for _, path := range []string{"/console/products/FP-1001", "/console/find?q=wattlebird", "/console/entities/65000000101"} {
		if body := wants(t, w.Browser(assessor), path, 200); strings.Contains(body, "/console/suspend?") {
			t.Errorf("%s offers an assessor to suspend", path)
		}
	}
}

// TestFindNamesWhatThereIs, with where an ID alone leads, and nothing of
// another's to a developer.
func TestFindNamesWhatThereIs(t *testing.T) {
	w := controltest.New(t)
	b := w.Browser(operator)
	for q, want := range map[string]string{
		"": "Write a name", "no such thing": "Nothing is called that", "--": "Nothing is called that", "FP-9999@1": "Nothing is called that", strings.Repeat("x", 300): "Nothing is called that",
		"SU-currawong": "Nothing is called that", "bird": "Nothing is called that", "watt cloud": "Wattlebird Pay Cloud", "FP-1012": "Galah Mobile",
	} {
		wants(t, b, "/console/find?q="+url.QueryEscape(q), 200, want)
	}
	wants(t, b, "/console/find?q=00000000000000000000000000", 404)
	dev := w.Browser(wattlebird)
	if body := wants(t, dev, "/console/find?q=kooka", 200); strings.Contains(body, "Kooka Agent") {
		t.Error("a developer finds another's product")
	}
	if body := wants(t, dev, "/console/find?q=fp-1003-prod", 200); !strings.Contains(body, "Nothing is called that") {
		t.Error("a developer finds another's client app")
	}
}

var cards = regexp.MustCompile(`(?s)<li class="card"><span class="figure">(\d+)</span> <a href="([^"]+)">([^<]+)</a>`)

// TestOverviewShowsEachWhatWaitsForThem.
func TestOverviewShowsEachWhatWaitsForThem(t *testing.T) {
	w := controltest.New(t)
	officer := w.Browser("officer@agency.example")
	officer.Send("/console/incidents", url.Values{"title": {"Key on a paste site"}, "type": {"credential-compromise"}, "zone": {"UTC"}, "entity": {"65000000101"}, "occurred": {"2026-01-01T00:00"}, "aware": {"2026-01-01T01:00"}, "subject-kind-0": {"product"}, "subject-id-0": {"FP-1001"}})
	op2 := w.Browser(operator2)
	op2.Send("/console/suspensions", url.Values{"kind": {"product"}, "id": {"FP-1003"}, "reason": {"leak"}})
	for who, want := range map[string][]string{
		"officer@agency.example": {"open incident", "alarms to judge", "suspensions in force", "sidecar", "products registered"},
		registrar:                {"suspensions in force", "sidecar", "applications wait for us", "products registered"},
		assessor:                 {"open incident", "alarms to judge", "suspensions in force", "sidecar", "products wait for an assessor", "findings answered", "products registered"},
	} {
		body := wants(t, w.Browser(who), "/console/", 200)
		var got []string
		for _, m := range cards.FindAllStringSubmatch(body, -1) {
			got = append(got, m[3])
		}
		for _, text := range want {
			if !strings.Contains(strings.Join(got, "|")+"|", text) {
				t.Errorf("%s lacks a card %q: %q", who, text, got)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s has the cards %q", who, got)
		}
		if !strings.Contains(body, "Its suspension ends, and calls pass again") {
			t.Errorf("%s is not told what suspension ends soon", who)
		}
		if who != registrar && !strings.Contains(body, "overdue") {
			t.Errorf("%s is not told of the incident's clock", who)
		}
	}
}
