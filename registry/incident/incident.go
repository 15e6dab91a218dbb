package incident

import (
	"slices"

	"github.com/dspgate/dspgate/registry"
)

// State is how far an incident has got.
type State string

// The states. A draft may be incomplete; everything later is valid.
const (
	Draft     State = "draft"     // reported, but something needed is missing or contradictory
	Reported  State = "reported"  // in the triage queue
	Triaged   State = "triaged"   // has a level and an owner
	Contained State = "contained" // the harm can no longer grow
	Treated   State = "treated"   // the treatment plan is done
	Closed    State = "closed"    // with cause and what was done
	Dismissed State = "dismissed" // not an incident, or the same as another
	Appealed  State = "appealed"  // closed or contained, and the entity asks for a second look
)

// Next are the states that may follow each. There is one way into closed.
var next = map[State][]State{
	Draft:     {Reported, Dismissed},
	Reported:  {Triaged, Dismissed},
	Triaged:   {Contained, Treated, Dismissed},
	Contained: {Treated, Appealed},
	Treated:   {Closed, Appealed},
	Appealed:  {Contained, Treated, Closed},
	Closed:    {Appealed},
}

// Next are the states that may follow s, in the usual order.
func Next(s State) []State { return append([]State(nil), next[s]...) }

// Live tells whether there is still something to do.
func (s State) Live() bool { return s != Closed && s != Dismissed }

// Type is what happened (framework: types of incident).
type Type string

// The types.
const (
	CredentialCompromise  Type = "credential-compromise"
	UnauthorisedAccess    Type = "unauthorised-access"
	MisdirectedDisclosure Type = "misdirected-disclosure"
	Malware               Type = "malware"
	FraudulentLodgment    Type = "fraudulent-lodgment"
	ThirdPartyBreach      Type = "third-party-breach"
	Vulnerability         Type = "vulnerability"
	Availability          Type = "availability"
)

// Types are all types, in the order forms show them.
func Types() []Type {
	return []Type{CredentialCompromise, UnauthorisedAccess, MisdirectedDisclosure, Malware, FraudulentLodgment, ThirdPartyBreach, Vulnerability, Availability}
}

// Known tells whether it is one of the types.
func (t Type) Known() bool { return slices.Contains(Types(), t) }

// Channel is the door a report came through. All lead to one queue.
type Channel string

// The channels.
const (
	ByAPI     Channel = "api"
	ByConsole Channel = "console"
	ByEmail   Channel = "email"
	BySignal  Channel = "signal" // monitoring raised it
	ByPhone   Channel = "phone"  // an officer wrote it down
)

// Channels are all channels.
func Channels() []Channel { return []Channel{ByAPI, ByConsole, ByEmail, BySignal, ByPhone} }

// Incident is one incident as kept. No field holds a TFN: Check refuses one.
type Incident struct {
	ID      string  `json:"id"`
	State   State   `json:"state"`
	Drill   bool    `json:"drill,omitempty"`
	Type    Type    `json:"type,omitempty"`
	Level   Level   `json:"level,omitempty"` // set by triage
	Channel Channel `json:"channel"`
	// Title is one line without names; Description is what the reporter said.
	Title       string `json:"title"`
	Description string `json:"description,omitempty"`
	// Entity is whose software or staff it concerns; Reporter who said so.
	Entity   registry.ABN `json:"entity,omitempty"`
	Reporter Reporter     `json:"reporter"`
	// OccurredAt is when it happened, AwareAt when the entity knew, ReportedAt
	// when the agency was told. OccurredAt ≤ AwareAt ≤ ReportedAt.
	OccurredAt registry.Time `json:"occurred_at,omitempty"`
	AwareAt    registry.Time `json:"aware_at,omitempty"`
	ReportedAt registry.Time `json:"reported_at"`
	// ByAwareness: the deadlines that count are those from AwareAt, as it was
	// configured when it was reported; else from OccurredAt. Both are shown.
	ByAwareness bool `json:"by_awareness,omitempty"`
	// Subjects are what of the register it concerns.
	Subjects   []registry.SubjectRef `json:"subjects,omitempty"`
	Exposure   Exposure              `json:"exposure"`
	Indicators []Indicator           `json:"indicators,omitempty"`
	Owner      string                `json:"owner,omitempty"`
	// LevelReason says why a person set another level than the derived one.
	LevelReason string `json:"level_reason,omitempty"`
	// Containment are the suspensions imposed from this incident.
	Containment []string     `json:"containment,omitempty"`
	Requests    []LogRequest `json:"requests,omitempty"`
	Treatment   []Action     `json:"treatment,omitempty"`
	Notified    Notified     `json:"notified"`
	// Cause and Done are needed to close.
	Cause string `json:"cause,omitempty"`
	Done  string `json:"done,omitempty"`
	// Lessons are published without names.
	Lessons string  `json:"lessons,omitempty"`
	Appeal  *Appeal `json:"appeal,omitempty"`
	Same    string  `json:"same_as,omitempty"` // when dismissed: the incident that goes on
	// Signal is what monitoring tells incidents apart by; "" when a person told.
	Signal   string  `json:"signal_key,omitempty"`
	Timeline []Event `json:"timeline"`
}

// Reporter is who told. Email is for the answer.
type Reporter struct {
	Name   string       `json:"name,omitempty"`
	Email  string       `json:"email,omitempty"`
	Entity registry.ABN `json:"entity,omitempty"`
}

// Indicator is something to look for: an address, a hash.
type Indicator struct {
	Kind  string `json:"kind"` // ip | host | sha256 | session | user-agent
	Value string `json:"value"`
}

// LogRequest asks an entity for its logs.
type LogRequest struct {
	ID       string        `json:"id"`
	Entity   registry.ABN  `json:"entity"`
	What     string        `json:"what"`
	AskedAt  registry.Time `json:"asked_at"`
	Due      registry.Time `json:"due"`
	Answered registry.Time `json:"answered_at,omitempty"`
	Evidence string        `json:"evidence,omitempty"`
}

// Action is one step of the treatment plan.
type Action struct {
	What  string        `json:"what"`
	Owner string        `json:"owner"`
	Due   registry.Time `json:"due"`
	Done  registry.Time `json:"done_at,omitempty"`
}

// Notified is when each of those who must hear was told.
type Notified struct {
	Agency      registry.Time `json:"agency,omitempty"`
	Users       registry.Time `json:"users,omitempty"`
	Assessed    registry.Time `json:"assessed,omitempty"` // eligible data breach or not: decided
	Eligible    bool          `json:"eligible,omitempty"`
	OAIC        registry.Time `json:"oaic,omitempty"`
	Individuals registry.Time `json:"individuals,omitempty"`
}

// Appeal is an entity's wish for a second look; decided by two people, neither
// of whom imposed what is appealed against.
type Appeal struct {
	By      string        `json:"by"`
	At      registry.Time `json:"at"`
	Grounds string        `json:"grounds"`
	// First and Second are who decided; Upheld means that the entity is reinstated.
	First   string        `json:"first,omitempty"`
	Second  string        `json:"second,omitempty"`
	Upheld  bool          `json:"upheld,omitempty"`
	Decided registry.Time `json:"decided_at,omitempty"`
}

// Event is one line of the timeline.
type Event struct {
	At   registry.Time `json:"at"`
	By   string        `json:"by"`
	What string        `json:"what"` // a word: raised, triaged, suspended, notified …
	Note string        `json:"note,omitempty"`
}
