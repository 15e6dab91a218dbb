package console

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// One incident, and everything that is done about it.

func (v *visit) incident() error {
	var p incidentPage
	return v.showIncident(http.StatusOK, &p)
}

// showIncident reads the incident anew and shows it; p holds what was refused.
func (v *visit) showIncident(status int, p *incidentPage) error {
	id, a := v.r.PathValue("id"), v.person.Actor
	x := &p.X
	if _, err := v.get(x, api("incidents", id)); err != nil {
		return err
	}
	now := registry.At(v.now())
	p.Officer, p.Assessor = a.Has(officers), a.Has(registry.PermAssessor)
	p.Own = !a.Staff() && a.Entity != 0 && a.Entity == x.Entity
	p.OwnsIt = x.Owner == a.Name
	p.Steps = stepsOf(x)
	for i := range x.Clocks {
		p.Clocks = append(p.Clocks, clockRowOf(&x.Clocks[i], now))
	}
	if err := v.reportPart(p, now); err != nil {
		return err
	}
	if err := v.containmentPart(p); err != nil {
		return err
	}
	if (p.Officer || a.Has(registry.PermAuditor)) && x.State != incident.Draft {
		var all []noticePreview
		if _, err := v.get(&all, api("incidents", id, "notices"), "limit", "100"); err != nil {
			return err
		}
		p.Audiences = audiencesOf(all)
	}
	p.Blocking = blocking(x, p.Contained)
	for _, l := range incident.Levels() {
		p.Levels = append(p.Levels, string(l))
	}
	title := x.ID
	if x.Title != "" {
		title += ": " + x.Title
	}
	if x.Drill {
		title = "DRILL – " + title
	}
	p.frame = v.frame(title)
	return v.show(status, "incident", p)
}

// reportPart is the form of what is known and, of a draft, what it lacks.
func (v *visit) reportPart(p *incidentPage, now registry.Time) error {
	if p.Failed != "amend" {
		p.Form = reportOf(&p.X)
	}
	p.Form.Action, p.Form.Revision = local("incidents", p.X.ID, "amend"), p.X.Revision
	if p.Failed == "amend" {
		p.Form.Problem = p.Problem
	}
	p.Form.fill(v)
	if p.X.State != incident.Draft {
		return nil
	}
	for _, e := range fieldErrors(p.X.Check(now)) {
		p.Missing = append(p.Missing, problem{said(e), reportField(e.Field)})
	}
	if p.X.Entity != 0 {
		if _, err := v.get(nil, api("entities", p.X.Entity.String())); isMissing(err) {
			p.Missing = append(p.Missing, problem{fmt.Sprintf("No entity %s is in the register.", p.X.Entity), "entity"})
		}
	}
	for i, s := range p.X.Subjects {
		if path := subjectPath(s); path != "" {
			if _, err := v.get(nil, path); isMissing(err) {
				p.Missing = append(p.Missing, problem{fmt.Sprintf("No %s %s is in the register.", s.Kind, s.ID), fmt.Sprintf("subject-id-%d", i)})
			}
		}
	}
	return nil
}

func isMissing(err error) bool {
	var e *apiError
	return asAPI(err, &e) && e.Status == http.StatusNotFound
}

// subjectPath is where the API tells of a subject; "" when it is no record.
func subjectPath(s registry.SubjectRef) string {
	switch s.Kind {
	case registry.KindProduct, registry.KindVersion:
		id, _, _ := strings.Cut(s.ID, "@")
		return api("products", id)
	case registry.KindEntity:
		return api("entities", s.ID)
	case registry.KindClientApp:
		return api("client-apps", s.ID)
	case registry.KindSubscription:
		return api("subscriptions", s.ID)
	case registry.KindCredential:
		return api("credentials", s.ID)
	case registry.KindService:
		return api("services", s.ID)
	}
	return ""
}

// containmentPart is what the incident concerns, what of it is stopped, and how
// far each suspension has come.
func (v *visit) containmentPart(p *incidentPage) error {
	stopped := map[registry.SubjectRef]bool{}
	for _, id := range p.X.Containment {
		var row containmentRow
		_, err := v.get(&row.suspension, api("suspensions", id), "wait", "true", "timeout", "1ms")
		if isMissing(err) {
			continue // not theirs to know of
		}
		if err != nil {
			return err
		}
		if e := row.Enforcement; e != nil {
			for _, s := range e.Sidecars {
				if s.State != registry.Acknowledged {
					row.Laggards = append(row.Laggards, s)
				}
			}
			if !e.Complete && row.Active {
				row.Events = local("suspensions", id, "events")
			}
		}
		stopped[row.Subject] = row.Active
		p.Contained = append(p.Contained, row)
	}
	for _, s := range p.X.Subjects {
		row := subjectRow{SubjectRef: s, Suspended: stopped[s]}
		switch s.Kind {
		case registry.KindProduct, registry.KindVersion:
			id, _, _ := strings.Cut(s.ID, "@")
			row.Link = local("products", id)
		case registry.KindEntity:
			row.Link = local("entities", s.ID)
		}
		p.Subjects = append(p.Subjects, row)
		p.Targets = append(p.Targets, s)
	}
	for _, id := range p.X.Exposure.SSIDs {
		if s := (registry.SubjectRef{Kind: registry.KindSubscription, ID: id}); !slices.Contains(p.Targets, s) && len(p.Targets) < 200 {
			p.Targets = append(p.Targets, s)
		}
	}
	p.Targets = slices.DeleteFunc(p.Targets, func(s registry.SubjectRef) bool { return stopped[s] })
	return nil
}

// Restrictable are the products that can be restricted from the incident.
func (p *incidentPage) Restrictable() (out []string) {
	for _, s := range p.X.Subjects {
		if id, _, _ := strings.Cut(s.ID, "@"); (s.Kind == registry.KindProduct || s.Kind == registry.KindVersion) && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// Can tells whether a state may follow, as things stand.
func (p *incidentPage) Can(state string) bool {
	return slices.Contains(p.X.Next, incident.State(state))
}

// CanClose tells whether closing may be tried: an incident whose containment was
// the treatment closes as well.
func (p *incidentPage) CanClose() bool {
	return p.Can(string(incident.Closed)) || p.X.State == incident.Contained && len(p.X.Treatment) == 0
}
