package main

import (
	"strings"
	"testing"
)

// TestEvents: the latest, the oldest first; and with --follow a line for each,
// until the control plane refuses.
func TestEvents(t *testing.T) {
	one := func(id, text string) string {
		return `{"id":"` + id + `","topic":"incident","at":"2026-11-22T00:00:00.000Z","text":"` + text + `","data":{"id":"INC-2"}}`
	}
	p := newPlane(t, map[string][]string{
		"GET /v1/events/latest": {`200 {"data":[` + one("b", "closed") + "," + one("a", "raised") + `],"_meta":{"total_pages":1}}`},
		"GET /v1/events": {"200 retry: 2000\n\n: still here\n\nid: a\nevent: incident\ndata: " + one("a", `raised\u001b[31m`) + "\n\n",
			`401 {"errors":[{"id":"r1","code":"unauthenticated","detail":"sign in"}]}`},
	})
	if code, stdout, stderr := p.dspgate(t, nil, "events"); code != 0 || strings.Index(stdout, "raised") > strings.Index(stdout, "closed") || !strings.Contains(stdout, "incident") {
		t.Errorf("%d %s\n%q", code, stderr, stdout)
	}
	code, stdout, stderr := p.dspgate(t, nil, "events", "--follow", "--topics", "incident,signal", "-o", "json")
	if code != 1 || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, `"text":"raised\u001b[31m"`) || !strings.Contains(stderr, "sign in") {
		t.Errorf("%d %s\n%q", code, stderr, stdout)
	}
	if last := p.got[len(p.got)-1]; last.Query != "topics=incident%2Csignal" {
		t.Errorf("asked for %q", last.Query)
	}
	if _, stdout, _ := p.dspgate(t, nil, "events", "-f"); strings.Contains(stdout, "\x1b") {
		t.Errorf("%q", stdout)
	}
}
