package console

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"

	policies "github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/registry"
)

// What the watcher says of callers, in words, and what people make of it.

type watchSignal struct {
	Subject  policies.Caller `json:"subject"`
	Product  string          `json:"product_id"`
	Signal   string          `json:"signal"`
	At       registry.Time   `json:"at"`
	Value    float64         `json:"value"`
	Words    string          `json:"words"`
	P        float64         `json:"probability"`
	Newcomer bool            `json:"newcomer"`
	Reasons  []string        `json:"reasons"`
}

// Says is what was seen.
func (s watchSignal) Says() string { return fmt.Sprintf("%.4g %s", s.Value, s.Words) }

// Seldom is how seldom a caller like this one does as much.
func (s watchSignal) Seldom() string {
	switch {
	case s.P <= 0:
		return "by a rule"
	case s.P < 1e-9:
		return "less than 1 in a billion"
	}
	return fmt.Sprintf("1 in %.0f", math.Max(1, math.Round(1/s.P)))
}

type alarm struct {
	policies.Alarm
	Revision registry.Revision `json:"revision"`
}

type signalsPage struct {
	frame
	Product string
	Off     bool // nobody watches here
	Officer bool
	All     bool
	Alarms  []alarm
	Items   []watchSignal
	Problem *problem
	Failed  string // the alarm whose form was refused
	Reason  string
	Pager   pager
}

func signalPages(mine func(string, func(*visit) error)) {
	mine("GET /console/signals", (*visit).signals)
	mine("POST /console/alarms/{id}/confirm", func(v *visit) error { return v.judge("confirm") })
	mine("POST /console/alarms/{id}/dismiss", func(v *visit) error { return v.judge("dismiss") })
}

func (v *visit) signals() error { return v.showSignals(http.StatusOK, signalsPage{}) }

func (v *visit) showSignals(status int, p signalsPage) error {
	p.frame, p.Product, p.Officer, p.All = v.frame("Signals"), v.query("product"), v.person.Actor.Has(officers), v.query("all") != ""
	state := string(policies.Open)
	if p.All {
		state = ""
	}
	if _, err := v.get(&p.Alarms, "/v1/alarms", "state", state, "product_id", p.Product, "limit", "50"); err != nil && !isMissing(err) {
		return err
	}
	slices.SortStableFunc(p.Alarms, func(a, b alarm) int { return cmp.Compare(b.LastAt, a.LastAt) })
	m, err := v.get(&p.Items, "/v1/signals", "product_id", p.Product, "page", v.query("page"), "limit", "50")
	var e *apiError
	switch {
	case err == nil:
		p.Pager = v.pager(m)
	case asAPI(err, &e) && e.Status == http.StatusServiceUnavailable:
		p.Off = true
	default:
		return err
	}
	return v.show(status, "signals", p)
}

// judge is what a person makes of an alarm: it measures the policy that raised it.
func (v *visit) judge(what string) error {
	id := v.r.PathValue("id")
	err := v.send(http.MethodPost, api("alarms", id, what), map[string]any{"reason": v.form("reason")}, nil)
	if err == nil {
		return v.redirect("/console/signals")
	}
	if wrong := problemOf(err, map[string]string{"/reason": "reason-" + id}); wrong != nil && !isMissing(err) {
		var e *apiError
		asAPI(err, &e)
		return v.showSignals(e.Status, signalsPage{Problem: wrong, Failed: id, Reason: v.form("reason")})
	}
	return err
}
