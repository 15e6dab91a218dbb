package policy

import (
	"slices"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// Alarm is one rule's finding about one subject, as kept. What the rule says of
// the subject within AlarmLasts of it belongs to it.
type Alarm struct {
	ID      string `json:"id"`
	Policy  string `json:"policy"`
	Version int    `json:"version"`
	// Shadow: nothing was done, and nobody was told.
	Shadow  bool   `json:"shadow"`
	Subject Caller `json:"subject"`
	// Product and Owner are the subject's; none for a network.
	Product string       `json:"product_id,omitempty"`
	Owner   registry.ABN `json:"owner,omitempty"`
	// Signals are the names of what was seen, Reasons the latest in words.
	Signals []string `json:"signals"`
	Reasons []string `json:"reasons"`
	// FirstAt is of the first signal that counts, RaisedAt when the rule was
	// fulfilled, LastAt of the latest signal entered, Times how many there were.
	FirstAt  registry.Time `json:"first_at"`
	RaisedAt registry.Time `json:"raised_at"`
	LastAt   registry.Time `json:"last_at"`
	Times    int           `json:"times"`
	// Action is what the rule calls for; Outcome what came of it, Why the words
	// for one that is not the action itself.
	Action  Do      `json:"action"`
	Outcome Outcome `json:"outcome"`
	Why     string  `json:"why,omitempty"`
	// Suspension is the measure taken, Incident what was raised or added to.
	Suspension string `json:"suspension_id,omitempty"`
	Incident   string `json:"incident_id,omitempty"`
	// ContainedAt is when the measure was committed.
	ContainedAt registry.Time `json:"contained_at,omitempty"`

	State State `json:"state"`
	// Judged is who confirmed or dismissed it, and why. BeganAt is when it began,
	// as found out since; not set: FirstAt.
	Judged  *Step         `json:"judged,omitempty"`
	BeganAt registry.Time `json:"began_at,omitempty"`
}

// Caller is whom an alarm is about: kind and ID as in the signals. Of a
// subscription and a network the ID is a keyed hash.
type Caller struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// State is whether people have judged an alarm.
type State string

// The states of an alarm.
const (
	Open      State = "open"
	Confirmed State = "confirmed" // what it said was so
	Dismissed State = "dismissed" // a false alarm
)

// Outcome is what came of an alarm.
type Outcome string

// The outcomes.
const (
	Would      Outcome = "would" // in shadow
	Observed   Outcome = "observed"
	Throttled  Outcome = "throttled"
	Restricted Outcome = "restricted"
	Suspended  Outcome = "suspended"
	Denied     Outcome = "denied"  // the calls alone
	Already    Outcome = "already" // a measure as strong was in force
	Asked      Outcome = "asked"   // a person decides
)

// Outcomes are all outcomes.
func Outcomes() []Outcome {
	return []Outcome{Would, Observed, Denied, Throttled, Restricted, Suspended, Already, Asked}
}

func (d Do) outcome() Outcome {
	switch d {
	case Throttle:
		return Throttled
	case Restrict:
		return Restricted
	case Suspend:
		return Suspended
	case Deny:
		return Denied
	}
	return Observed
}

// Bounds on alarms.
const (
	// AlarmLasts is for how long signals belong to an alarm; what goes on for
	// longer is another, and may be acted on again.
	AlarmLasts = 24 * time.Hour
	// RestAfter is for how long a policy says nothing of a subject after a person
	// dismissed an alarm about it.
	RestAfter = 24 * time.Hour
	// enterEvery is how often an alarm is written again while signals go on.
	enterEvery = 10 * time.Minute
	reasonsMax = 5
	namesMax   = 20
)

// CaseKind is alarm.
func (Alarm) CaseKind() registry.CaseKind { return "alarm" }

// CaseKeys: alarms are found by state, policy, product, shadow, outcome and
// about: policy and subject together.
func (a Alarm) CaseKeys(add func(index, value string)) {
	add("state", string(a.State))
	add("policy", a.Policy)
	add("outcome", string(a.Outcome))
	shadow := "false"
	if a.Shadow {
		shadow = "true"
	}
	add("shadow", shadow)
	if a.Product != "" {
		add("product_id", a.Product)
	}
	if a.Incident != "" {
		add("incident", a.Incident)
	}
	add("about", aboutKey(a.Policy, a.Shadow, a.Subject))
}

// aboutKey is short enough for an index, whatever the subject's ID.
func aboutKey(policy string, shadow bool, s Caller) string {
	mode := "e"
	if shadow {
		mode = "s"
	}
	return mode + shortHash(policy, s.Kind, s.ID)
}

func newAlarm(m *Match, now registry.Time) Alarm {
	return Alarm{
		Policy: m.Active.Policy, Version: m.Active.Version, Shadow: m.Active.Shadow, Subject: subjectOf(m.Subject),
		Product: m.Facts.Product, Owner: m.Facts.Owner,
		Signals: m.Signals, Reasons: m.Reasons[:min(len(m.Reasons), reasonsMax)],
		FirstAt: registry.At(m.First), RaisedAt: now, LastAt: registry.At(m.At), Times: 1, Action: m.Active.Rule.Then.Do, State: Open,
	}
}

func subjectOf(s anomaly.Subject) Caller { return Caller{s.Kind.String(), s.ID} }

// again adds what was seen since.
func (a *Alarm) again(m *Match) {
	a.Times++
	a.LastAt = max(a.LastAt, registry.At(m.At))
	for _, s := range m.Signals {
		if !slices.Contains(a.Signals, s) && len(a.Signals) < namesMax {
			a.Signals = append(slices.Clip(a.Signals), s)
		}
	}
	for _, r := range m.Reasons {
		if !slices.Contains(a.Reasons, r) {
			a.Reasons = append([]string{r}, a.Reasons...)
		}
	}
	a.Reasons = a.Reasons[:min(len(a.Reasons), reasonsMax)]
}

// Began is when what the alarm tells of began, as far as anybody knows.
func (a *Alarm) Began() registry.Time {
	if a.BeganAt.Set() {
		return a.BeganAt
	}
	return a.FirstAt
}
