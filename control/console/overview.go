package console

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// The overview: what is wrong now, what runs out next, and what waits for whoever
// looks at it.

type overviewPage struct {
	frame
	Roles       []string
	Cards       []card
	Runs        []running
	RunsMore    int // that are not shown
	Suspensions []suspension
	InForce     int
	Lagging     []sidecar
	CanSuspend  bool
}

// card is one figure with what it leads to.
type card struct {
	Figure string
	Text   string
	Href   string
	Note   string
	Bad    bool // the note is bad news
}

// running is a clock that runs, with what it is about.
type running struct {
	deadline
	What, Link string
	Kind       string
}

// Bounds on the overview.
const (
	runsMax    = 12
	endingSoon = 24 * time.Hour // of a suspension
)

func (v *visit) dashboard() error {
	a := v.person.Actor
	switch {
	case a.Permissions == 0:
		return v.redirect("/console/join")
	case !a.Staff():
		return v.redirect("/console/own")
	}
	p := overviewPage{frame: v.frame("Overview"), Roles: permissionNames(a), CanSuspend: a.MaySuspend()}
	for _, part := range []struct {
		may  bool
		look func(*overviewPage) error
	}{
		{mayWatch(a), (&overview{v}).incidents}, {mayWatch(a), (&overview{v}).alarms},
		{true, (&overview{v}).suspensions}, {true, (&overview{v}).sidecars},
		{a.Has(registry.PermRegistrar), (&overview{v}).applications},
		{a.Has(registry.PermAssessor), (&overview{v}).assessments},
		{true, (&overview{v}).products},
	} {
		if !part.may {
			continue
		}
		// What this control plane does not keep has no card.
		if err := part.look(&p); err != nil && !isMissing(err) {
			return err
		}
	}
	slices.SortStableFunc(p.Runs, func(a, b running) int { return cmp.Compare(a.Due, b.Due) })
	if len(p.Runs) > runsMax {
		p.RunsMore = len(p.Runs) - runsMax
		p.Runs = p.Runs[:runsMax]
	}
	return v.show(http.StatusOK, "dashboard", p)
}

// overview looks at one thing after the other.
type overview struct{ *visit }

func (o *overview) add(p *overviewPage, figure int, one, many, href, note string, bad bool) {
	text := many
	if figure == 1 {
		text = one
	}
	p.Cards = append(p.Cards, card{strconv.Itoa(figure), text, href, note, bad})
}

func (o *overview) runs(p *overviewPage, kind, what, link, name string, at registry.Time) {
	d := due(at, o.now())
	d.Name = name
	p.Runs = append(p.Runs, running{d, what, link, kind})
}

func (o *overview) incidents(p *overviewPage) error {
	items, err := o.queue("", "")
	if err != nil {
		return err
	}
	now, open, late, untouched := registry.At(o.now()), 0, 0, 0
	for i := range items {
		x := &items[i]
		if x.Drill || !x.State.Live() {
			continue // nobody is woken for a drill
		}
		open++
		if x.Owner == "" {
			untouched++
		}
		for n, c := range mostUrgent(x, now) {
			if n == 0 && c.Status == incident.Overdue {
				late++
			}
			title := x.Title
			if title == "" {
				title = x.ID
			}
			o.runs(p, "incident", title, local("incidents", x.ID), c.Name, c.Deadline())
		}
	}
	note := ""
	switch {
	case late > 0:
		note = strconv.Itoa(late) + " overdue"
	case untouched > 0:
		note = strconv.Itoa(untouched) + " without an owner"
	}
	o.add(p, open, "open incident", "open incidents", "/console/incidents", note, true)
	return nil
}

func (o *overview) alarms(p *overviewPage) error {
	m, err := o.get(nil, "/v1/alarms", "state", "open", "limit", "1")
	if err == nil {
		o.add(p, m.TotalItems, "alarm to judge", "alarms to judge", "/console/signals", "", false)
	}
	return err
}

func (o *overview) suspensions(p *overviewPage) error {
	m, err := o.get(&p.Suspensions, "/v1/suspensions", "active", "true", "limit", "100")
	if err != nil {
		return err
	}
	p.InForce = m.TotalItems
	ending := 0
	for i := range p.Suspensions {
		s := &p.Suspensions[i]
		if !s.Expires.Set() || s.Expires.Std().Sub(o.now()) > endingSoon {
			continue
		}
		ending++
		o.runs(p, "suspension", s.Subject.Kind.String()+" "+s.Subject.ID, local("suspensions", s.ID), "Its suspension ends, and calls pass again", s.Expires)
	}
	note := ""
	if ending > 0 {
		note = strconv.Itoa(ending) + " end within a day"
		if ending == 1 {
			note = "1 ends within a day"
		}
	}
	o.add(p, p.InForce, "suspension in force", "suspensions in force", "/console/suspensions", note, false)
	p.Suspensions = p.Suspensions[:min(len(p.Suspensions), 10)]
	return nil
}

func (o *overview) sidecars(p *overviewPage) error {
	var all []sidecar
	m, err := o.get(&all, "/v1/sidecars", "limit", "100")
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.State() != registry.Acknowledged {
			p.Lagging = append(p.Lagging, s)
		}
	}
	note := "all up to date"
	if len(p.Lagging) > 0 {
		note = strconv.Itoa(len(p.Lagging)) + " not up to date"
	}
	o.add(p, m.TotalItems, "sidecar", "sidecars", "/console/sidecars", note, len(p.Lagging) > 0)
	return nil
}

func (o *overview) applications(p *overviewPage) error {
	var all []registration
	m, err := o.get(&all, "/v1/registrations", "clock", "agency", "limit", "50") // what is due first comes first
	if err != nil {
		return err
	}
	late := 0
	for _, r := range all {
		for _, d := range deadlines(r.Case.Clocks, o.now()) {
			if d.On != "agency" {
				continue
			}
			if d.Late {
				late++
			}
			name := r.Case.Form.Name
			if name == "" {
				name = r.ABN.String()
			}
			o.runs(p, "application", name, local("registrations", r.ABN.String()), d.Name, d.Due)
			break // the soonest
		}
	}
	o.add(p, m.TotalItems, "application waits for us", "applications wait for us", "/console/registrations", lateNote(late), true)
	return nil
}

func (o *overview) assessments(p *overviewPage) error {
	var all []waitingRow
	m, err := o.get(&all, "/v1/assessments", "limit", "100")
	if err != nil {
		return err
	}
	late := 0
	for _, r := range all {
		if !r.Due.Set() {
			continue
		}
		d := due(r.Due, o.now())
		if d.Late {
			late++
		}
		link := local("certifications", r.ProductID)
		if r.Verification != "" {
			link = local("verifications", r.Verification)
		}
		o.runs(p, "assessment", r.Name, link, "Verify the self-certification", r.Due)
	}
	o.add(p, m.TotalItems, "product waits for an assessor", "products wait for an assessor", "/console/assessments", lateNote(late), true)
	if m, err = o.get(nil, "/v1/findings", "state", "answered", "limit", "1"); err != nil {
		return err
	}
	o.add(p, m.TotalItems, "finding answered", "findings answered", "/console/findings", "", false)
	return nil
}

func (o *overview) products(p *overviewPage) error {
	m, err := o.get(nil, "/v1/products", "limit", "1")
	if err == nil {
		o.add(p, m.TotalItems, "product registered", "products registered", "/console/products", "", false)
	}
	return err
}

func lateNote(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n) + " late"
}
