package certification

import (
	"fmt"
	"slices"
)

// ChangeKind is one sort of material change (domain model §3).
type ChangeKind string

// The material changes.
const (
	HostingChanged        ChangeKind = "hosting"
	AuthenticationChanged ChangeKind = "authentication"
	OwnershipChanged      ChangeKind = "ownership"
	RiskRaised            ChangeKind = "higher-risk service"
	VolumeCrossed         ChangeKind = "volume"
	DeliveryChanged       ChangeKind = "delivery chain"
	CategoryChanged       ChangeKind = "category"
)

// Material is a change that reopens requirements.
type Material struct {
	Kind    ChangeKind `json:"kind"`
	Because string     `json:"because"`
	// Reopens are the requirements to be shown again; all of them after a change
	// of ownership.
	Reopens []string `json:"reopens"`
}

// Before and after of a product, as material changes are found.
type Situation struct {
	Profile Profile
	Owner   string
	Hosting string // where and with whom, as declared
	// Authentication describes how users sign in, as declared.
	Authentication string
}

// reopenedBy lists what each kind of change reopens; nil is everything.
func reopenedBy(k ChangeKind) []string {
	switch k {
	case HostingChanged:
		return []string{"OSF-HST", "OSF-EAR", "OSF-EIT", "OSF-EKM", "OSF-CER", "CLD-1"}
	case AuthenticationChanged:
		return []string{"OSF-AUT", "OSF-AUD"}
	case RiskRaised:
		return []string{"OSF-AUT", "OSF-AUD", "OSF-MON", "OSF-CER"}
	case VolumeCrossed:
		return []string{"OSF-CER", "OSF-MON"}
	case DeliveryChanged:
		return []string{"OSF-SCV", "CLD-1", "OSF-PER"}
	}
	return nil
}

// MaterialChanges finds what changed materially and what must be shown again:
// what the kind of change reopens, as far as it applies afterwards, and
// whatever did not apply before or asks something else now.
func (c *Catalogue) MaterialChanges(before, after *Situation, open Open) []Material {
	was, _ := c.Category(&before.Profile, open)
	is, because := c.Category(&after.Profile, open)
	var found []Material
	add := func(changed bool, kind ChangeKind, format string, args ...any) {
		if changed {
			found = append(found, Material{Kind: kind, Because: fmt.Sprintf(format, args...)})
		}
	}
	b, a := &before.Profile, &after.Profile
	add(before.Owner != after.Owner, OwnershipChanged, "The owner changed from %s to %s.", before.Owner, after.Owner)
	add(before.Hosting != after.Hosting || b.Offshore != a.Offshore || b.ClientControlled != a.ClientControlled, HostingChanged, "Where it is hosted, or who controls it, changed.")
	add(before.Authentication != after.Authentication, AuthenticationChanged, "How its users sign in changed.")
	add(a.MaxRisk > b.MaxRisk, RiskRaised, "It wants services of risk rating %d; it had %d.", a.MaxRisk, b.MaxRisk)
	add(open.Many(a.Records) != open.Many(b.Records), VolumeCrossed, "Its volume went from %d to %d unique client records, across %d.", b.Records, a.Records, open.RecordsMany)
	add(a.ChainLength != b.ChainLength || !slices.Equal(sorted(a.Roles), sorted(b.Roles)) || a.Scenario != b.Scenario, DeliveryChanged, "The entities that deliver it, or their roles, changed.")
	add(was != is, CategoryChanged, "Its category changed from %s to %s: %s", was, is, because)

	had := map[string]string{} // the minimum asked before
	for _, x := range c.Applicable(b, open) {
		had[x.ID] = x.Level.Minimum
	}
	var applies, fresh []string
	for _, x := range c.Applicable(a, open) {
		if x.Subject != OfProduct {
			continue
		}
		applies = append(applies, x.ID)
		if had[x.ID] != x.Level.Minimum { // new to it, or more is asked
			fresh = append(fresh, x.ID)
		}
	}
	for i := range found {
		m := &found[i]
		m.Reopens = []string{}
		list := reopenedBy(m.Kind)
		for _, id := range applies {
			if m.Kind == OwnershipChanged || slices.Contains(list, id) || m.Kind != AuthenticationChanged && slices.Contains(fresh, id) {
				m.Reopens = append(m.Reopens, id)
			}
		}
	}
	return found
}

func sorted(roles []Role) []Role {
	out := slices.Clone(roles)
	slices.Sort(out)
	return out
}
