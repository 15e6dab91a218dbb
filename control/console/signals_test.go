package console_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/control/controltest"
)

// TestSignalsPage shows signals in words, newcomers as unknown, and takes
// people's judgement of alarms: from officers, and once.
func TestSignalsPage(t *testing.T) {
	w := controltest.New(t)
	now := time.Now()
	w.Signals = []anomaly.Signal{
		{Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1001"}, Name: anomaly.SignalPersons, At: now, P: 1e-6, Value: 812, Reasons: []string{"812 where about 4 is usual at this hour of the week"}},
		{Subject: anomaly.Subject{Kind: anomaly.ClientApp, ID: "fp-1003-prod"}, Name: anomaly.SignalRequests, At: now, P: 0.001, Value: 70, Newcomer: true, Reasons: []string{"<b>bold</b>"}},
	}
	w.Alarm("FP-1001", "812 where about 4 is usual")
	ines := w.Browser(officer)
	body := wants(t, ines, "/console/signals", 200, "812 different people a minute", "1 in 1000000", "unknown yet", "in shadow: nothing was done", "&lt;b&gt;bold", "It was right")
	if strings.Contains(wants(t, ines, "/console/signals?product=FP-1001", 200, "812"), "fp-1003-prod") {
		t.Error("another product's signals are shown")
	}
	at := regexp.MustCompile(`/console/alarms/[A-Z]+-\d+/`).FindString(body)
	if at == "" {
		t.Fatalf("no alarm to judge: %s", body)
	}
	if status, body := w.Browser(auditor).Send(at+"dismiss", url.Values{"reason": {"x"}}); status != 403 {
		t.Errorf("judged by an auditor: %d %s", status, heading(body))
	}
	if strings.Contains(wants(t, w.Browser(auditor), "/console/signals", 200), "It was right") {
		t.Error("an auditor is offered to judge")
	}
	if status, body := ines.Send(at+"dismiss", url.Values{"reason": {"a load test they had announced"}}); status != 200 || strings.Contains(body, at) {
		t.Errorf("dismissed: %d %s", status, heading(body))
	}
	wants(t, ines, "/console/signals?all=1", 200, "a load test they had announced", officer, "dismissed")
	wants(t, w.Browser(wattlebird), "/console/signals", 403)
	if own := wants(t, w.Browser(wattlebird), "/console/own", 200, "Unlike their own past", "812 different people a minute"); strings.Contains(own, "70 calls") {
		t.Error("another entity's signals are shown")
	}
	wants(t, w.Browser(registrar), "/console/signals", 403)
}
