package incident

import (
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Duty names what a clock runs for.
type Duty string

// The duties.
const (
	NotifyAgency Duty = "notify-agency" // 24 h (framework)
	NotifyUsers  Duty = "notify-users"  // 24 h (framework), for a data breach
	AssessNDB    Duty = "assess-ndb"    // 30 days from suspicion (Privacy Act s 26WH), for a data breach
	NotifyOAIC   Duty = "notify-oaic"   // as soon as practicable once believed eligible (s 26WK)
	Triage       Duty = "triage"        // our own: by level unknown, one hour
)

// Durations of the duties.
const (
	NotifyWithin = 24 * time.Hour
	AssessWithin = 30 * 24 * time.Hour
	OAICWithin   = 72 * time.Hour // "as soon as practicable", given a number so that it can be late
	TriageWithin = time.Hour
)

// Clock is one duty's two deadlines and whether it was met.
type Clock struct {
	Duty Duty `json:"duty"`
	// FromEvent and FromAwareness are the deadlines by the literal words and by
	// today's practice; zero when that instant is not known, or does not count.
	FromEvent     registry.Time `json:"from_event,omitempty"`
	FromAwareness registry.Time `json:"from_awareness,omitempty"`
	Done          registry.Time `json:"done_at,omitempty"`
	Status        Status        `json:"status"`
	// ByAwareness: the second counts, not the first.
	ByAwareness bool `json:"by_awareness,omitempty"`
}

// Status is how a clock stands.
type Status string

// The statuses. The literal deadline, from the event, decides, or the one from
// awareness when so configured; where it is not known, the other.
const (
	Running Status = "running"
	Soon    Status = "soon" // three quarters of the time are gone
	Met     Status = "met"
	Late    Status = "late"    // done, after the deadline
	Overdue Status = "overdue" // not done, and past it
)

// Deadline is the one that counts.
func (c *Clock) Deadline() registry.Time {
	if c.FromEvent.Set() && (!c.ByAwareness || !c.FromAwareness.Set()) {
		return c.FromEvent
	}
	return c.FromAwareness
}

// Clocks are the duties of an incident as they stand at an instant, most urgent
// first within the order of the list.
func (x *Incident) Clocks(at registry.Time) []Clock {
	clock := func(d Duty, event, aware registry.Time, within time.Duration, done, at registry.Time) Clock {
		return clock(d, event, aware, x.ByAwareness, within, done, at)
	}
	all := []Clock{clock(NotifyAgency, x.OccurredAt, x.AwareAt, NotifyWithin, x.Notified.Agency, at)}
	if x.State == Reported || x.State == Draft {
		all = append(all, clock(Triage, 0, x.ReportedAt, TriageWithin, 0, at))
	}
	if x.Exposure.Breach() {
		all = append(all,
			clock(NotifyUsers, x.OccurredAt, x.AwareAt, NotifyWithin, x.Notified.Users, at),
			clock(AssessNDB, 0, x.AwareAt, AssessWithin, x.Notified.Assessed, at))
		if x.Notified.Eligible {
			all = append(all, clock(NotifyOAIC, 0, x.Notified.Assessed, OAICWithin, x.Notified.OAIC, at))
		}
	}
	return all
}

func clock(d Duty, event, aware registry.Time, byAwareness bool, within time.Duration, done, at registry.Time) Clock {
	c := Clock{Duty: d, Done: done, ByAwareness: byAwareness && aware.Set()}
	span := registry.Time(within / time.Millisecond)
	if event.Set() {
		c.FromEvent = event + span
	}
	if aware.Set() {
		c.FromAwareness = aware + span
	}
	end := c.Deadline()
	switch {
	case done.Set() && (!end.Set() || done <= end):
		c.Status = Met
	case done.Set():
		c.Status = Late
	case !end.Set():
		c.Status = Running // nobody knows since when
	case at > end:
		c.Status = Overdue
	case at >= end-span/4:
		c.Status = Soon
	default:
		c.Status = Running
	}
	return c
}

// Escalations are the instants at which somebody must be told that a duty runs
// out or ran out: at three quarters of its time and at its end. Duties that are
// done have none.
func (x *Incident) Escalations(at registry.Time) []Escalation {
	var all []Escalation
	if !x.State.Live() {
		return nil
	}
	for _, c := range x.Clocks(at) {
		end := c.Deadline()
		if c.Done.Set() || !end.Set() {
			continue
		}
		span := registry.Time(c.Duty.Within() / time.Millisecond)
		all = append(all, Escalation{c.Duty, end - span/4, Soon}, Escalation{c.Duty, end + 1, Overdue}) // met at the deadline is met
	}
	return all
}

// Escalation is one such instant.
type Escalation struct {
	Duty   Duty          `json:"duty"`
	At     registry.Time `json:"at"`
	Status Status        `json:"status"` // soon or overdue
}

// Within is how long there is for the duty.
func (d Duty) Within() time.Duration {
	switch d {
	case AssessNDB:
		return AssessWithin
	case NotifyOAIC:
		return OAICWithin
	case Triage:
		return TriageWithin
	}
	return NotifyWithin
}

// LateReport tells whether the entity told the agency after the deadline that
// counts: that is a finding of its own (framework: non-notification).
func (x *Incident) LateReport(at registry.Time) bool {
	for _, c := range x.Clocks(at) {
		if c.Duty == NotifyAgency {
			return c.Status == Late || c.Status == Overdue
		}
	}
	return false
}
