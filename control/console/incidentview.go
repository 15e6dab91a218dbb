package console

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// What the pages of incidents show.

type incidentView struct {
	incident.Incident
	Revision registry.Revision `json:"revision"`
	Clocks   []incident.Clock  `json:"clocks"`
	Next     []incident.State  `json:"next"`
	Derived  incident.Level    `json:"derived_level"`
	Because  string            `json:"derived_because"`
}

// noticePreview is what one recipient would be told.
type noticePreview struct {
	Audience incident.Audience `json:"audience"`
	Name     string            `json:"name"`
	Contact  string            `json:"contact"`
	Subject  string            `json:"subject"`
	Body     string            `json:"body"`
}

type lesson struct {
	Type    incident.Type  `json:"type"`
	Level   incident.Level `json:"level"`
	Year    int            `json:"year"`
	Lessons string         `json:"lessons"`
}

type incidentsPage struct {
	frame
	Rows           []incidentRow
	Live           bool
	State, Level   string
	States, Levels []string
	Pager          pager
	Officer        bool
	MayReport      bool
	Late, Soon     int
}

// incidentRow is one line of the queue.
type incidentRow struct {
	incidentView
	Clocks []clockRow // the duties to look at first, two at most
}

type incidentPage struct {
	frame
	X          incidentView
	Clocks     []clockRow
	Steps      []step
	Officer    bool // works on it
	Own        bool // of the entity concerned
	Assessor   bool
	OwnsIt     bool
	Form       reportForm
	Missing    []problem // of a draft
	Subjects   []subjectRow
	Contained  []containmentRow
	Targets    []registry.SubjectRef
	Audiences  []audienceRow
	Blocking   []string // what stands before closing
	Levels     []string
	Problem    *problem
	Failed     string // the form that was refused
	typed      url.Values
	DefaultDue string
}

// Said is what was typed into a field of the form that was refused.
func (p *incidentPage) Said(form, field string) string {
	if p.Failed != form {
		return ""
	}
	return p.typed.Get(field)
}

// Wrong tells whether a field of a form is the one that is wrong.
func (p *incidentPage) Wrong(form, field string) bool {
	return p.Failed == form && p.Problem != nil && p.Problem.Field == form+"-"+field
}

type step struct {
	Name       string
	Done, Here bool
}

type subjectRow struct {
	registry.SubjectRef
	Link      string
	Suspended bool
}

type containmentRow struct {
	suspension
	Laggards []registry.SidecarState
	Events   string
}

type audienceRow struct {
	Audience incident.Audience
	Title    string
	Sees     []string
	Notices  []noticePreview
	ByPost   int
}

// clockRow is one duty with both of its clocks.
type clockRow struct {
	incident.Clock
	Name  string
	Lines []clockLine
}

type clockLine struct {
	From     string // where it runs from
	Decides  bool   // the one that counts
	Deadline registry.Time
	Left     string
	Percent  int // of the time that is gone
	Over     bool
}

var dutyNames = map[incident.Duty]string{
	incident.NotifyAgency: "Entity tells the agency", incident.NotifyUsers: "Affected users are told", incident.AssessNDB: "Decide whether it is an eligible data breach",
	incident.NotifyOAIC: "OAIC is told", incident.Triage: "Triage",
}

func clockRowOf(c *incident.Clock, at registry.Time) clockRow {
	row := clockRow{Clock: *c, Name: dutyNames[c.Duty]}
	span := registry.Time(c.Duty.Within() / time.Millisecond)
	seen := at
	if c.Done.Set() {
		seen = c.Done
	}
	add := func(from string, deadline registry.Time) {
		if !deadline.Set() {
			return
		}
		gone := seen - (deadline - span)
		l := clockLine{From: from, Deadline: deadline, Decides: deadline == c.Deadline(), Over: seen > deadline,
			Percent: int(min(max(gone*100/span, 0), 100)), Left: left(time.Duration(deadline-seen) * time.Millisecond)}
		row.Lines = append(row.Lines, l)
	}
	add("from the event", c.FromEvent)
	add(awareness(c.Duty), c.FromAwareness)
	return row
}

// awareness says what the second clock of a duty runs from.
func awareness(d incident.Duty) string {
	switch d {
	case incident.Triage:
		return "from the report"
	case incident.NotifyOAIC:
		return "from the decision"
	}
	return "from awareness"
}

// left is a stretch of time in words; below zero, how far over it is.
func left(d time.Duration) string {
	word := " left"
	if d < 0 {
		d, word = -d, " over"
	}
	switch days := int(d.Hours()) / 24; {
	case days >= 2:
		return fmt.Sprintf("%d days%s", days, word)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min%s", int(d.Hours()), int(d.Minutes())%60, word)
	}
	return fmt.Sprintf("%d min%s", int(d.Minutes()), word)
}

// mostUrgent are the duties of an incident that are looked at first: what is not
// done, the earliest deadline before the others.
func mostUrgent(x *incidentView, at registry.Time) (rows []clockRow) {
	open := slices.DeleteFunc(slices.Clone(x.Clocks), func(c incident.Clock) bool { return c.Done.Set() || !c.Deadline().Set() })
	slices.SortStableFunc(open, func(a, b incident.Clock) int { return cmp.Compare(a.Deadline(), b.Deadline()) })
	for i := range open[:min(len(open), 2)] {
		rows = append(rows, clockRowOf(&open[i], at))
	}
	return rows
}

var mainSteps = []incident.State{incident.Reported, incident.Triaged, incident.Contained, incident.Treated, incident.Closed}

func stepsOf(x *incidentView) []step {
	here := slices.Index(mainSteps, x.State)
	if x.State == incident.Appealed {
		here = slices.Index(mainSteps, incident.Treated)
	}
	var out []step
	for i, s := range mainSteps {
		out = append(out, step{Name: string(s), Done: i < here || x.State == incident.Closed, Here: i == here})
	}
	return out
}

var audienceTitles = map[incident.Audience]string{
	incident.Entity: "The entity concerned", incident.Chain: "Others in the delivery chain", incident.Intermediary: "Intermediaries", incident.User: "Affected users",
}

var rowTitles = map[incident.Data]string{
	incident.StatusAndProduct: "status and product", incident.Indicators: "indicators", incident.SSIDs: "software IDs", incident.ClientIdentity: "identity of clients",
	incident.TFNAndAccounts: "tax file numbers and accounts", incident.Eligibility: "eligibility", incident.RegisterState: "state in the register",
}

// sees says what of an incident an audience may be told, by the matrix.
func sees(a incident.Audience) (out []string) {
	for _, d := range incident.Rows() {
		switch rule := incident.Share(d, a); rule {
		case incident.No:
		case incident.Yes:
			out = append(out, rowTitles[d])
		default:
			out = append(out, rowTitles[d]+": "+string(rule))
		}
	}
	return out
}

func audiencesOf(all []noticePreview) (rows []audienceRow) {
	for _, a := range []incident.Audience{incident.Entity, incident.Chain, incident.Intermediary, incident.User} {
		row := audienceRow{Audience: a, Title: audienceTitles[a], Sees: sees(a)}
		for _, n := range all {
			if n.Audience != a {
				continue
			}
			row.Notices = append(row.Notices, n)
			if n.Contact == "" {
				row.ByPost++
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// Told tells whether a notice went to the audience already.
func (p *incidentPage) Told(a incident.Audience) registry.Time {
	var at registry.Time
	for _, e := range p.X.Timeline {
		if e.What != "notified" {
			continue
		}
		for _, one := range strings.Split(e.Note, ", ") {
			if name, n, _ := strings.Cut(one, " "); name == string(a) && n != "0" {
				at = e.At
			}
		}
	}
	return at
}

// blocking says what stands before closing, besides what the form asks for.
func blocking(x *incidentView, contained []containmentRow) (out []string) {
	try := x.Incident
	try.Cause, try.Done = "x", "x"
	if err := try.CanClose(); err != nil {
		for _, e := range fieldErrors(err) {
			out = append(out, said(e))
		}
	}
	for _, c := range contained {
		if c.Active && c.Expires.Set() {
			out = append(out, "Suspension "+c.ID+" is still in force and ends by itself: lift it, or make it permanent by a notice.")
		}
	}
	return out
}

// said is what a field error says, for people.
func said(e *registry.FieldError) string {
	return sentence(strings.TrimPrefix(e.Err.Error(), registry.ErrInvalid.Error()+": "))
}

func fieldErrors(err error) (all []*registry.FieldError) {
	switch e := err.(type) {
	case *registry.FieldError:
		return []*registry.FieldError{e}
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			all = append(all, fieldErrors(one)...)
		}
	case interface{ Unwrap() error }:
		return fieldErrors(e.Unwrap())
	}
	return all
}
