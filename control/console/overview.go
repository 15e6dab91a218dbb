package console

import (
	"net/http"
	"strconv"

	"github.com/dspgate/dspgate/control/client"
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
	AsOf        registry.Time // of the sidecars
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

// overview is what the API tells of it.
type overview struct {
	client.OverviewFigures
	Suspensions struct {
		client.SuspensionFigures
		Latest []suspension `json:"latest"`
	} `json:"suspensions"`
	Sidecars *struct {
		client.SidecarFigures
		Named []sidecar `json:"named"`
	} `json:"sidecars"`
}

func (v *visit) dashboard() error {
	a := v.person.Actor
	switch {
	case a.Permissions == 0:
		return v.redirect("/console/join")
	case !a.Staff():
		return v.redirect("/console/own")
	}
	var o overview
	if _, err := v.get(&o, "/v1/overview"); err != nil {
		return err
	}
	p := overviewPage{frame: v.frame("Overview"), Roles: permissionNames(a), CanSuspend: a.MaySuspend(), RunsMore: o.Later,
		Suspensions: o.Suspensions.Latest, InForce: o.Suspensions.InForce, Cards: o.cards()}
	if o.Sidecars != nil {
		p.Lagging, p.AsOf = o.Sidecars.Named, o.Sidecars.AsOf
	}
	for _, r := range o.Runs {
		run := running{deadline: due(r.Due, v.now()), What: r.What, Kind: r.Kind}
		switch r.Kind {
		case "incident":
			run.Name, run.Link = dutyNames[incident.Duty(r.Duty)], local("incidents", r.ID)
		case "suspension":
			run.Name, run.Link = "Its suspension ends, and calls pass again", local("suspensions", r.ID)
		case "registration":
			run.Kind, run.Name, run.Link = "application", clockWords[r.Duty], local("registrations", r.ID)
		case "certification":
			run.Kind, run.Name, run.Link = "assessment", clockWords[r.Duty], local("certifications", r.ID)
			if r.Verification != "" {
				run.Link = local("verifications", r.Verification)
			}
		}
		if run.Name == "" {
			run.Name = r.Duty
		}
		p.Runs = append(p.Runs, run)
	}
	return v.show(http.StatusOK, "dashboard", p)
}

// cards are the figures, and what each leads to. What this control plane does not
// keep, or is not for the person, has none.
func (o *overview) cards() (all []card) {
	add := func(figure int, one, many, href, note string, bad bool) {
		text := many
		if figure == 1 {
			text = one
		}
		all = append(all, card{strconv.Itoa(figure), text, href, note, bad})
	}
	if x := o.Incidents; x != nil {
		note := counted(x.Overdue, "overdue", "overdue")
		if note == "" {
			note = counted(x.Unowned, "without an owner", "without an owner")
		}
		add(x.Open, "open incident", "open incidents", "/console/incidents", note, true)
	}
	if x := o.Alarms; x != nil {
		add(x.Open, "alarm to judge", "alarms to judge", "/console/signals", "", false)
	}
	add(o.Suspensions.InForce, "suspension in force", "suspensions in force", "/console/suspensions",
		counted(o.Suspensions.Ending, "ends within a day", "end within a day"), false)
	if x := o.Sidecars; x != nil {
		note := "all up to date"
		switch {
		case x.Stale:
			note = "cannot be asked at present"
		case x.Behind > 0:
			note = strconv.Itoa(x.Behind) + " not up to date"
		}
		add(x.Total, "sidecar", "sidecars", "/console/sidecars", note, x.Stale || x.Behind > 0)
	}
	if x := o.Applications; x != nil {
		add(x.Waiting, "application waits for us", "applications wait for us", "/console/registrations", counted(x.Late, "late", "late"), true)
	}
	if x := o.Assessments; x != nil {
		add(x.Waiting, "product waits for an assessor", "products wait for an assessor", "/console/assessments", counted(x.Late, "late", "late"), true)
		add(x.Answered, "finding answered", "findings answered", "/console/findings", "", false)
	}
	add(o.Products, "product registered", "products registered", "/console/products", "", false)
	return all
}

// counted is a number with its word; "" for none.
func counted(n int, one, many string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
