package console

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// The queue of incidents and the one front door for reports.

const officers = registry.PermIncidentOfficer | registry.PermOperator

func incidentPages(open, mine func(string, func(*visit) error)) {
	mine("GET /console/incidents", (*visit).incidents)
	mine("GET /console/incidents/new", (*visit).reportPage)
	mine("POST /console/incidents", (*visit).report)
	mine("GET /console/incidents/{id}", (*visit).incident)
	mine("POST /console/incidents/{id}/{what}", (*visit).actOnIncident)
	open("GET /console/lessons", (*visit).lessons)
}

// mayWatch tells whether somebody is shown all incidents.
func mayWatch(a registry.Actor) bool {
	return a.Has(officers | registry.PermAuditor | registry.PermAssessor)
}

// queueMax bounds how many incidents the queue puts in order; more are paged as
// the API lists them.
const queueMax = 500

func (v *visit) incidents() error {
	a := v.person.Actor
	p := incidentsPage{frame: v.frame("Incidents"), Live: v.query("all") == "", State: v.query("state"), Level: v.query("level"),
		Officer: a.Has(officers), MayReport: a.Has(^registry.PermAuditor)}
	for _, s := range append([]incident.State{incident.Draft}, append(slices.Clone(mainSteps), incident.Appealed, incident.Dismissed)...) {
		p.States = append(p.States, string(s))
	}
	for _, l := range incident.Levels() {
		p.Levels = append(p.Levels, string(l))
	}
	if a.Staff() && !mayWatch(a) {
		return v.show(200, "incidents", p) // reports, and is not shown
	}
	var items []incidentView
	var err error
	if p.Live {
		items, err = v.queue(p.State, p.Level)
	} else {
		var m pageMeta
		m, err = v.get(&items, "/v1/incidents", "state", p.State, "level", p.Level, "page", v.query("page"), "limit", "50")
		p.Pager = v.pager(m)
	}
	if err != nil {
		return err
	}
	now := registry.At(v.now())
	for _, x := range items {
		row := incidentRow{incidentView: x}
		if x.State.Live() {
			row.Clocks = mostUrgent(&x, now)
		}
		if len(row.Clocks) > 0 {
			switch row.Clocks[0].Status {
			case incident.Overdue:
				p.Late++
			case incident.Soon:
				p.Soon++
			}
		}
		p.Rows = append(p.Rows, row)
	}
	if p.Live {
		slices.SortStableFunc(p.Rows, func(x, y incidentRow) int { return cmp.Compare(x.due(), y.due()) })
	}
	return v.show(200, "incidents", p)
}

// due orders the queue: what runs out first comes first, drills after the rest.
func (r *incidentRow) due() int64 {
	const never = 1 << 61
	at := int64(never)
	if len(r.Clocks) > 0 {
		at = int64(r.Clocks[0].Deadline())
	}
	if r.Drill {
		at += never
	}
	return at
}

func (v *visit) queue(state, level string) (all []incidentView, err error) {
	for page := 1; len(all) < queueMax; page++ {
		var items []incidentView
		m, err := v.get(&items, "/v1/incidents", "live", "true", "state", state, "level", level, "page", strconv.Itoa(page), "limit", "100")
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if page >= m.TotalPages {
			break
		}
	}
	return all, nil
}

func (v *visit) lessons() error {
	p := struct {
		frame
		Items []lesson
	}{frame: v.frame("Lessons")}
	if _, err := v.get(&p.Items, "/v1/lessons", "limit", "100"); err != nil {
		return err
	}
	slices.Reverse(p.Items)
	return v.show(200, "lessons", p)
}

type reportPage struct {
	frame
	Form reportForm
}

func (v *visit) reportPage() error {
	f := reportForm{}
	if kind, id := v.query("kind"), v.query("id"); id != "" {
		f.Subjects = append(f.Subjects, subjectField{Kind: kind, ID: id})
	}
	return v.showReport(http.StatusOK, f)
}

func (v *visit) showReport(status int, f reportForm) error {
	if !v.person.Actor.Has(^registry.PermAuditor) {
		return &apiError{Status: http.StatusForbidden, Detail: "An auditor reports to an officer"}
	}
	f.First, f.Action = true, "/console/incidents"
	f.fill(v)
	return v.show(status, "report", reportPage{v.frame("Report an incident"), f})
}

// report sends a report in. Whatever is wrong with it, it is kept: as a draft by
// the API, or, where it could not even be sent, in the page that comes back.
func (v *visit) report() error {
	f := v.reportTyped()
	f.Staff = v.person.Actor.Staff()
	body, wrong := f.body(true)
	if wrong != nil {
		f.Problem = wrong
		return v.showReport(http.StatusUnprocessableEntity, f)
	}
	var made incidentView
	err := v.send(http.MethodPost, "/v1/incidents", body, &made)
	var e *apiError
	if asAPI(err, &e) && json.Unmarshal(e.Meta.Data, &made) == nil && made.ID != "" {
		err = nil // kept as a draft, which says itself what it lacks
	}
	switch {
	case err == nil && made.MaySee(v.person.Actor):
		return v.redirect(local("incidents", made.ID))
	case err == nil:
		return v.show(http.StatusCreated, "reported", struct {
			frame
			ID    string
			Draft bool
		}{v.frame("Reported"), made.ID, made.State == incident.Draft})
	case e == nil:
		f.Problem = &problem{Text: "It could not be sent just now. Nothing is lost: it is all still below. Try again in a minute."}
		return v.showReport(http.StatusServiceUnavailable, f)
	}
	f.Problem = &problem{sentence(e.Detail), reportField(e.Source.Pointer)}
	return v.showReport(e.Status, f)
}
