package casework

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// Decision is what was recorded of one call.
type Decision struct {
	ID          string
	Product     string
	Environment registry.Environment
	Service     string
	Allowed     bool
	At          registry.Time
}

// DecisionSource finds recorded decisions; those unknown are left out.
type DecisionSource interface {
	Decisions(ctx context.Context, ids []string) ([]Decision, error)
}

const (
	runDecisionsMax = 200
	runAgeMax       = 90 * day
	pilotDays       = 28
	runsMax         = 20
)

// read fetches the decisions of a run before anything is planned.
func (d *Desk) read(ctx context.Context, ids []string) (map[string]Decision, error) {
	if len(ids) == 0 || len(ids) > runDecisionsMax {
		return nil, registry.Field("/decisions", "name 1 to %d decisions, as the x-request-id or decision ID of each call", runDecisionsMax)
	}
	if d.cfg.Runs == nil {
		return nil, fmt.Errorf("%w: this control plane keeps no decisions", registry.ErrUnavailable)
	}
	list, err := d.cfg.Runs.Decisions(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := map[string]Decision{}
	for _, x := range list {
		out[x.ID] = x
	}
	return out, nil
}

// judge sees which services a set of calls shows, in an environment.
func (x *edit) judge(found map[string]Decision, ids []string, env registry.Environment, since registry.Time, wanted []string, calls int) Run {
	run := Run{At: x.t.Now(), By: x.t.Actor().Name, Decisions: ids, Passed: []string{}}
	good := map[string]int{}
	seen := map[string]bool{}
	for _, id := range ids {
		dec, known := found[id]
		because := ""
		switch {
		case seen[id]:
			because = "it stands twice"
		case !known || dec.Product != x.p.ID:
			because = "there is no such decision of this product"
		case dec.Environment != env:
			because = "it was made in " + dec.Environment.String()
		case !dec.Allowed:
			because = "the call was refused"
		case dec.At < since:
			because = "it is too old"
		case !slices.Contains(wanted, dec.Service):
			because = "the service " + dec.Service + " is not asked for"
		default:
			good[dec.Service]++
		}
		seen[id] = true
		if because != "" {
			run.Refused = append(run.Refused, Refusal{cut(id), because})
		}
	}
	for _, s := range wanted {
		if good[s] >= calls {
			run.Passed = append(run.Passed, s)
		} else {
			run.Missing = append(run.Missing, s)
		}
	}
	return run
}

// Conform records a conformance run in EVTE, judged from the decisions recorded
// of its calls: each service wanted must have been called, and let through.
func (d *Desk) Conform(ctx context.Context, a registry.Actor, product string, decisions []string, m registry.Meta) (registry.Outcome, error) {
	found, err := d.read(ctx, decisions)
	if err != nil {
		return registry.Outcome{}, err
	}
	return d.certify(ctx, a, Conform, product, m, func(x *edit) error {
		if len(x.c.Deployment.Services) == 0 {
			return fmt.Errorf("%w: say first which services the product wants (describe)", registry.ErrState)
		}
		run := x.judge(found, decisions, registry.EVTE, later(x.t.Now(), -runAgeMax), x.c.Deployment.Services, 1)
		x.c.Conformance = lastRuns(x.c.Conformance, run)
		return nil
	})
}

func lastRuns(runs []Run, run Run) []Run {
	return append(slices.Clone(runs[max(0, len(runs)-runsMax+1):]), run)
}

// conforms tells which of some services no run has shown lately.
func (x *edit) missing(services []string) []string {
	var out []string
	for _, s := range services {
		if !slices.ContainsFunc(x.c.Conformance, func(r Run) bool {
			return r.At >= later(x.t.Now(), -runAgeMax) && slices.Contains(r.Passed, s)
		}) {
			out = append(out, s)
		}
	}
	return out
}

// ApproveHighRisk approves services of a high rating for piloting; another
// assessor must then begin the pilot.
func (d *Desk) ApproveHighRisk(ctx context.Context, a registry.Actor, product string, services []string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, ApproveHighRisk, product, m, func(x *edit) error {
		if len(services) == 0 {
			return registry.Field("/services", "name the services")
		}
		for i, s := range services {
			if x.t.View().Service(s) == nil {
				return registry.Field(fmt.Sprintf("/services/%d", i), "there is no service of that key")
			}
			x.c.HighRisk = append(slices.DeleteFunc(slices.Clone(x.c.HighRisk), func(h HighRisk) bool { return h.Service == s }), HighRisk{s, a.Name, x.t.Now()})
		}
		return nil
	})
}

// Pilot accepts a product into production verification testing: for the clients
// named, for 28 days at most, for services that it has shown in EVTE. Assessor.
func (d *Desk) Pilot(ctx context.Context, a registry.Actor, product string, terms PilotTerms, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Pilot, product, m, func(x *edit) error {
		if err := x.noOpenVerification(x.c.Basis); err != nil {
			return err
		}
		if err := x.noOpenFindings(); err != nil {
			return err
		}
		x.c.Clocks.stop(x.t, "verify")
		if len(terms.Services) == 0 {
			terms.Services = x.c.Deployment.Services
		}
		if len(terms.Services) == 0 {
			return registry.Field("/services", "say first which services the product wants (describe)")
		}
		if missing := x.missing(terms.Services); len(missing) > 0 {
			return fmt.Errorf("%w: no conformance run in EVTE has shown %s", registry.ErrState, strings.Join(missing, ", "))
		}
		if err := d.checkRatings(x, a, terms.Services); err != nil {
			return err
		}
		latest := later(x.t.Now(), pilotDays*day)
		if terms.Until == 0 {
			terms.Until = latest
		}
		if terms.Until <= x.t.Now() || terms.Until > latest {
			return registry.Field("/until", "a pilot lasts at most %d days", pilotDays)
		}
		if len(terms.Clients) == 0 {
			return registry.Field("/named_clients", "name 1 to 5 clients")
		}
		x.c.Pilot = &PilotTerms{Services: terms.Services, Clients: terms.Clients, Until: terms.Until}
		x.p.Certification = registry.Certification{State: registry.CertPVT, ValidFrom: x.t.Now(), ValidUntil: terms.Until}
		x.entitle(terms.Services, registry.Entitlement{Stage: registry.StagePVT, NamedClients: terms.Clients, From: x.t.Now(), Until: terms.Until})
		x.c.Dues.set(dueExpiry, terms.Until)
		if err := x.openProduction(); err != nil {
			return err
		}
		return x.tell("accepted into production verification testing", fmt.Sprintf("Until %s, for the clients named.", terms.Until))
	})
}

// checkRatings wants an approval of another assessor for services of a high rating.
func (d *Desk) checkRatings(x *edit, a registry.Actor, services []string) error {
	for i, key := range services {
		at := fmt.Sprintf("/services/%d", i)
		s := x.t.View().Service(key)
		switch {
		case s == nil:
			return registry.Field(at, "there is no service of that key")
		case !slices.Contains(x.c.Deployment.Services, key):
			return registry.Field(at, "%s is not among the services declared", key)
		case uint8(s.Risk) >= d.Framework().Open.PilotRisk && !slices.ContainsFunc(x.c.HighRisk, func(h HighRisk) bool { return h.Service == key && h.By != a.Name }):
			return registry.Field(at, "%s has risk rating %d: another assessor must approve it first (approve-high-risk)", key, s.Risk)
		}
	}
	return nil
}

// openProduction makes the client app of production, if there is none.
func (x *edit) openProduction() error {
	id := strings.ToLower(x.p.ID) + "-prod"
	if x.t.View().ClientApp(id) != nil {
		return nil
	}
	return x.t.PutClientApp(registry.ClientApp{ClientID: id, ProductID: x.p.ID, Environment: registry.PROD})
}

// entitle makes the product's entitlements in production exactly these.
func (x *edit) entitle(services []string, terms registry.Entitlement) {
	kept := slices.DeleteFunc(slices.Clone(x.p.Entitlements), func(e registry.Entitlement) bool { return e.Environment == registry.PROD })
	for _, s := range services {
		terms.Service, terms.Environment = s, registry.PROD
		kept = append(kept, terms)
	}
	x.p.Entitlements = kept
}

// PassScenario records a pilot's scenarios, judged from the decisions recorded of
// real calls in production.
func (d *Desk) PassScenario(ctx context.Context, a registry.Actor, product string, decisions []string, m registry.Meta) (registry.Outcome, error) {
	found, err := d.read(ctx, decisions)
	if err != nil {
		return registry.Outcome{}, err
	}
	return d.certify(ctx, a, PassScenario, product, m, func(x *edit) error {
		if x.c.Pilot == nil {
			return fmt.Errorf("%w: the terms of the pilot are not known here", registry.ErrState)
		}
		pilot := *x.c.Pilot
		run := x.judge(found, decisions, registry.PROD, x.p.Certification.ValidFrom, pilot.Services, d.cfg.PilotCalls)
		pilot.Runs = lastRuns(pilot.Runs, run)
		for _, s := range run.Passed {
			if !slices.Contains(pilot.Passed, s) {
				pilot.Passed = append(slices.Clip(pilot.Passed), s)
			}
		}
		x.c.Pilot = &pilot
		return nil
	})
}

// Whitelist approves a product for production, per service, until its earliest
// evidence ends and for 12 months at most: from the pilot, from Interim when
// what was owed is shown, and again after a review or a restriction. Services
// left empty are those of the pilot, or those it had. Assessor.
func (d *Desk) Whitelist(ctx context.Context, a registry.Actor, product string, services []string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Whitelist, product, m, func(x *edit) error {
		if err := x.mayApprove(); err != nil {
			return err
		}
		if len(services) == 0 {
			services = x.c.Services
			if x.c.Pilot != nil {
				services = x.c.Pilot.Services
			}
		}
		for i, s := range services {
			switch {
			case x.t.View().Service(s) == nil:
				return registry.Field(fmt.Sprintf("/services/%d", i), "there is no service of that key")
			case x.c.Pilot != nil && !slices.Contains(x.c.Pilot.Passed, s):
				return fmt.Errorf("%w: the pilot has not shown %s; record its scenario, or approve conditionally (interim)", registry.ErrState, s)
			case x.c.Pilot == nil && !slices.Contains(x.c.Services, s) && len(x.missing([]string{s})) > 0:
				return fmt.Errorf("%w: no conformance run in EVTE has shown %s", registry.ErrState, s)
			}
		}
		if len(services) == 0 {
			services = x.entitled() // a product that was registered before there were cases
		}
		shown, err := x.shown()
		if err != nil {
			return err
		}
		period, err := certification.Validity(x.t.Now().Std(), shown, d.Framework().Open)
		if err != nil {
			return err
		}
		return d.approve(x, registry.CertWhitelisted, services, period)
	})
}

// mayApprove refuses an approval while something is still to be shown.
func (x *edit) mayApprove() error {
	if err := x.noOpenFindings(); err != nil {
		return err
	}
	if err := x.noOpenVerification(""); err != nil {
		return err
	}
	switch {
	case len(x.c.Reopened) > 0:
		return fmt.Errorf("%w: requirements are open: %s; the owner answers and submits them first", registry.ErrState, strings.Join(x.c.Reopened, ", "))
	case x.p.Certification.State == registry.CertReviewDue && x.c.Review.Answered == 0:
		return fmt.Errorf("%w: the review is not answered; next may be answer-review", registry.ErrState)
	case x.c.Interim != nil && len(x.c.Interim.Owed) > 0 && x.c.Declared == nil:
		return fmt.Errorf("%w: what the interim approval owes is not shown: %s; the owner answers and submits it first", registry.ErrState, strings.Join(x.c.Interim.Owed, ", "))
	}
	return nil
}

// entitled lists the services the product has in production.
func (x *edit) entitled() []string {
	var out []string
	for _, e := range x.p.Entitlements {
		if e.Environment == registry.PROD {
			out = append(out, e.Service)
		}
	}
	return out
}

// shown is the product's evidence as validity counts it. What ended and has been
// replaced by newer evidence of its type counts no more.
func (x *edit) shown() ([]certification.Shown, error) {
	all, err := evidenceOf(x.b, x.p.ID)
	if err != nil {
		return nil, err
	}
	var out []certification.Shown
	for _, e := range all {
		ended := e.Expires.Set() && e.Expires <= x.t.Now()
		if ended && slices.ContainsFunc(all, func(o assurance.Evidence) bool {
			return o.Type == e.Type && o.At > e.At && (!o.Expires.Set() || o.Expires > x.t.Now())
		}) {
			continue
		}
		s := certification.Shown{Address: e.Address, Type: e.Type}
		if e.Expires.Set() {
			s.Expires = e.Expires.Std()
		}
		if e.Approved.Set() {
			s.FirstApproved = e.Approved.Std()
		}
		out = append(out, s)
	}
	return out, nil
}

// approve puts a product into production.
func (d *Desk) approve(x *edit, state registry.CertState, services []string, period certification.Period) error {
	x.p.Certification = registry.Certification{State: state, ValidFrom: x.t.Now(), ValidUntil: registry.At(period.Until)}
	x.entitle(services, registry.Entitlement{Stage: registry.StagePROD})
	x.c.Services, x.c.Period = services, period.Because
	if state == registry.CertWhitelisted {
		x.c.Pilot, x.c.Interim = nil, nil
		if x.c.Approved == 0 {
			x.c.Approved = x.t.Now()
		}
	}
	x.c.Review = Review{}
	x.c.Clocks.stop(x.t, "review", "verify", "show-again")
	// Asked for early enough to be answered before it ends.
	x.c.Dues.set(dueReview, max(registry.At(period.Review)-registry.Time(d.cfg.Standards.Review.Milliseconds()), x.t.Now()+registry.Time(time.Minute.Milliseconds())))
	x.c.Dues.set(dueExpiry, registry.At(period.Until))
	if err := x.openProduction(); err != nil {
		return err
	}
	return x.tell("approved: "+state.String(), fmt.Sprintf("Until %s: %s.", registry.At(period.Until), period.Because))
}

// Interim approves a product for a time with something still owed: one that was
// there before the framework (grandfathered), or a pilot that could not be
// completed (conditional). Assessor.
func (d *Desk) Interim(ctx context.Context, a registry.Actor, product string, terms InterimTerms, services []string, m registry.Meta) (registry.Outcome, error) {
	return d.certify(ctx, a, Interim, product, m, func(x *edit) error {
		want := "conditional"
		if x.p.Certification.State == registry.CertDraft {
			want = "grandfathered"
		}
		if terms.Basis != want {
			return registry.Field("/basis", "a product that is %s is approved for a time as %s", x.p.Certification.State, want)
		}
		if err := x.noOpenFindings(); err != nil {
			return err
		}
		cat := d.catalogue(&x.c, x.t.Now().Std())
		if len(terms.Owed) == 0 {
			return registry.Field("/owed", "name the requirements that are still owed")
		}
		for i, r := range terms.Owed {
			if cat.Requirement(r) == nil {
				return registry.Field(fmt.Sprintf("/owed/%d", i), "%q is no requirement", cut(r))
			}
		}
		if len(services) == 0 && x.c.Pilot != nil {
			services = x.c.Pilot.Services
		}
		if len(services) == 0 {
			return registry.Field("/services", "name the services")
		}
		for i, s := range services {
			if x.t.View().Service(s) == nil {
				return registry.Field(fmt.Sprintf("/services/%d", i), "there is no service of that key")
			}
		}
		period := certification.Interim(x.t.Now().Std(), d.Framework().Open)
		x.c.Pilot = nil
		x.c.Interim = &InterimTerms{Basis: terms.Basis, Owed: terms.Owed, Until: registry.At(period.Until)}
		x.c.Reopened = terms.Owed
		x.c.Declared = nil
		return d.approve(x, registry.CertInterim, services, period)
	})
}
