package certification

import (
	"fmt"
	"slices"
	"strconv"
)

// Category is the DSP category of a product, A to E (domain model §4).
type Category string

// Categories is every category, strictest first.
func Categories() []Category { return []Category{"A", "B", "C", "D", "E"} }

// Risk is an API risk rating: 1 none, 2 low, 3 medium, 4 high; 0 is unknown and
// is treated as 4.
type Risk uint8

// Profile is what decides which requirements bind a product: its delivery, its
// control, its volume, and the services it wants.
type Profile struct {
	// Roles are all that occur in the product's delivery.
	Roles    []Role `json:"roles"`
	Scenario uint8  `json:"scenario"` // 1 to 6
	// ChainLength is the number of distinct entities that deliver it.
	ChainLength int `json:"chain_length"`
	// ClientControlled: the client runs it on machines of its own, so that the DSP
	// controls neither hosting nor access.
	ClientControlled bool `json:"client_controlled"`
	Commercial       bool `json:"commercial"`
	// Offshore: any part of it, redundancy included, is hosted outside Australia.
	Offshore bool `json:"offshore"`
	// SendingService: it transmits for others (an SSP, a gateway).
	SendingService bool   `json:"sending_service"`
	Records        uint64 `json:"records"` // unique client records
	// MaxRisk is the highest rating of the services wanted; 0 when none are.
	MaxRisk Risk `json:"max_risk"`
	// Connections and ClientList describe the largest add-on that uses its API.
	Connections uint64 `json:"add_on_connections"`
	ClientList  bool   `json:"add_on_client_list"`
	AddOns      int    `json:"add_ons"`
}

// InHouse tells whether the product serves its own builder alone.
func (p *Profile) InHouse() bool { return p.Scenario == 4 }

// Facts are the profile as conditions see it, with its category.
func (p *Profile) Facts(c Category, open Open) Facts {
	roles := make([]string, len(p.Roles))
	for i, r := range p.Roles {
		roles[i] = string(r)
	}
	word := func(b bool, yes, no string) []string {
		if b {
			return []string{yes}
		}
		return []string{no}
	}
	return Facts{
		"role":            roles,
		"scenario":        {strconv.Itoa(int(p.Scenario))},
		"category":        {string(c)},
		"control":         word(p.ClientControlled, "client", "dsp"),
		"commercial":      word(p.Commercial, "yes", "no"),
		"in_house":        word(p.InHouse(), "yes", "no"),
		"hosting":         word(p.Offshore, "offshore", "onshore"),
		"sending_service": word(p.SendingService, "yes", "no"),
		"volume":          word(open.Many(p.Records), "many", "few"),
		"records":         {strconv.FormatUint(p.Records, 10)},
		"max_risk":        {strconv.Itoa(int(p.MaxRisk))},
		"chain_length":    {strconv.Itoa(p.ChainLength)},
		"ecosystem":       word(p.AddOns > 0, "yes", "no"),
		"add_on_list":     word(p.Connections > addOnConnections || p.ClientList, "yes", "no"),
	}
}

// profileFacts are the names that Facts gives.
func profileFacts() []string {
	return []string{"role", "scenario", "category", "control", "commercial", "in_house", "hosting", "sending_service", "volume", "records", "max_risk", "chain_length", "ecosystem", "add_on_list"}
}

// Check refuses a profile that is no product's.
func (p *Profile) Check() error {
	if p.Scenario < 1 || p.Scenario > 6 {
		return Invalid("/scenario", "%d is no scenario; use 1 to 6", p.Scenario)
	}
	if p.MaxRisk > 4 {
		return Invalid("/max_risk", "%d is no risk rating; use 1 to 4, or 0 for no service", p.MaxRisk)
	}
	if len(p.Roles) == 0 {
		return Invalid("/roles", "name at least one role: D, SP, CP or IHD")
	}
	for i, r := range p.Roles {
		if !slices.Contains(Roles(), r) {
			return Invalid(fmt.Sprintf("/roles/%d", i), "%q is no role; use D, SP, CP or IHD", r)
		}
	}
	if p.ChainLength < 1 || p.ChainLength > partiesMax {
		return Invalid("/chain_length", "%d is not between 1 and %d", p.ChainLength, partiesMax)
	}
	return nil
}

// CategoryRule is one line of the rules by which a category is found: the first
// whose condition holds. The condition sees every fact but the category.
type CategoryRule struct {
	// Category is a letter, or in-house for the configured one.
	Category string    `yaml:"category" json:"category"`
	When     Condition `yaml:"when,omitempty" json:"when,omitzero"`
	Because  string    `yaml:"because" json:"because"`
}

// Category computes a product's category, with the reason. It is "" where no
// service is wanted and no rule applies.
func (c *Catalogue) Category(p *Profile, open Open) (Category, string) {
	facts := p.Facts("", open)
	for i := range c.Categories {
		r := &c.Categories[i]
		if !r.When.Holds(facts) {
			continue
		}
		because := r.Because
		if open.ExactlyMany && p.Records == open.RecordsMany && r.Category == "A" {
			because += fmt.Sprintf(" Exactly %d records count as more, as configured.", p.Records)
		}
		if r.Category == inHouseRule {
			return open.InHouseCategory, because
		}
		return Category(r.Category), because
	}
	return "", "No rule of the catalogue gives a category."
}

const inHouseRule = "in-house"
