package incident

import (
	"slices"

	"github.com/dspgate/dspgate/registry"
)

// Audience is who may be told something.
type Audience string

// The audiences of the information-sharing matrix (framework), its columns.
const (
	Staff        Audience = "staff"        // the agency's assigned staff
	Entity       Audience = "entity"       // the entity that reported, or whose software it is
	Chain        Audience = "chain"        // others in the product's delivery chain, add-on developers among them
	Intermediary Audience = "intermediary" // tax professionals
	User         Audience = "user"         // an affected business or individual
	Public       Audience = "public"
)

// Audiences are the columns, in their order.
func Audiences() []Audience {
	return []Audience{Staff, Entity, Chain, Intermediary, User, Public}
}

// Data is a kind of information, a row of the matrix.
type Data string

// The rows.
const (
	StatusAndProduct Data = "status"
	Indicators       Data = "indicators"
	SSIDs            Data = "ssids"
	ClientIdentity   Data = "client-identity"
	TFNAndAccounts   Data = "tfn"
	Eligibility      Data = "eligibility"
	RegisterState    Data = "register-state"
)

// Rows are the rows, in their order.
func Rows() []Data {
	return []Data{StatusAndProduct, Indicators, SSIDs, ClientIdentity, TFNAndAccounts, Eligibility, RegisterState}
}

// Rule is one cell: whether, and under which condition.
type Rule string

// The rules.
const (
	Yes               Rule = "yes"
	No                Rule = "no"
	IfInChain         Rule = "if in that chain"
	IfClientsAffected Rule = "if its clients are affected"
	Sanitised         Rule = "sanitised"
	Own               Rule = "its own"
	OnlySupplied      Rule = "only what it supplied"
	OwnClients        Rule = "its own clients, in the approved form"
	Self              Rule = "of itself"
	NeedToKnow        Rule = "need to know"
	SelfElsewhere     Rule = "of itself, through another channel"
	WhitelistedOnly   Rule = "whitelisted products only, never reasons"
)

// Share is the cell: what an audience may be told of a kind of data. What the
// table does not know is not shared.
func Share(d Data, a Audience) Rule {
	i, j := slices.Index(Rows(), d), slices.Index(Audiences(), a)
	if i < 0 || j < 0 {
		return No
	}
	return [...][6]Rule{
		{Yes, Yes, IfInChain, IfClientsAffected, Yes, No},
		{Yes, Yes, Sanitised, No, No, No},
		{Yes, Own, Own, No, Own, No},
		{Yes, OnlySupplied, No, OwnClients, Self, No},
		{NeedToKnow, No, No, No, SelfElsewhere, No},
		{Yes, Own, No, No, No, No},
		{Yes, Yes, Yes, Yes, Yes, WhitelistedOnly},
	}[i][j]
}

// Recipient is somebody in an audience, with what the conditions are about.
type Recipient struct {
	Audience Audience
	// Entity is the recipient's ABN, when it has one.
	Entity registry.ABN
	// InChain: it stands in the delivery chain of a product concerned, or its
	// add-on is connected to one.
	InChain bool
	// ClientsAffected: it acts for somebody who is affected.
	ClientsAffected bool
	// SSIDs are its own: issued by it, or of its own subscription.
	SSIDs []string
}

// Shared is what one recipient may be told of one incident, and nothing else.
type Shared struct {
	ID         string        `json:"id"`
	Drill      bool          `json:"drill,omitempty"`
	State      State         `json:"state,omitempty"`
	Type       Type          `json:"type,omitempty"`
	Level      Level         `json:"level,omitempty"`
	OccurredAt registry.Time `json:"occurred_at,omitempty"`
	Products   []string      `json:"products,omitempty"`
	Indicators []Indicator   `json:"indicators,omitempty"`
	SSIDs      []string      `json:"ssids,omitempty"`
}

// Sees tells whether a recipient may be told anything at all of an incident.
func (r *Recipient) Sees() bool {
	switch Share(StatusAndProduct, r.Audience) {
	case Yes:
		return true
	case IfInChain:
		return r.InChain
	case IfClientsAffected:
		return r.ClientsAffected
	}
	return false
}

// For is what of the incident a recipient may be told; false when nothing. The
// agency's staff is shown the incident itself, not this.
func (x *Incident) For(r Recipient) (Shared, bool) {
	if !r.Sees() {
		return Shared{}, false
	}
	s := Shared{ID: x.ID, Drill: x.Drill, State: x.State, Type: x.Type, Level: x.Level, OccurredAt: x.OccurredAt}
	for _, sub := range x.Subjects {
		if id, _, ok := productOf(sub); ok && !slices.Contains(s.Products, id) {
			s.Products = append(s.Products, id)
		}
	}
	switch Share(Indicators, r.Audience) {
	case Yes:
		s.Indicators = slices.Clone(x.Indicators)
	case Sanitised:
		s.Indicators = sanitised(x.Indicators)
	}
	switch Share(SSIDs, r.Audience) {
	case Yes:
		s.SSIDs = slices.Clone(x.Exposure.SSIDs)
	case Own:
		for _, id := range x.Exposure.SSIDs {
			if slices.Contains(r.SSIDs, id) {
				s.SSIDs = append(s.SSIDs, id)
			}
		}
	}
	return s, true
}

// sanitised leaves out what tells of a person or a session: others need to know
// what to look for, not whom it hit.
func sanitised(all []Indicator) (out []Indicator) {
	for _, i := range all {
		switch i.Kind {
		case "ip", "host", "sha256":
			out = append(out, i)
		}
	}
	return out
}

func productOf(s registry.SubjectRef) (id, version string, ok bool) {
	switch s.Kind {
	case registry.KindProduct:
		return s.ID, "", true
	case registry.KindVersion:
		for i := range s.ID {
			if s.ID[i] == '@' {
				return s.ID[:i], s.ID[i+1:], true
			}
		}
	}
	return "", "", false
}
