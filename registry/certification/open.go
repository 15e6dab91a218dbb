package certification

import (
	"fmt"
	"regexp"
	"slices"
)

// Open are the questions that the framework leaves to a person (domain model
// §13), as configuration: each field's default is what the domain model states,
// or the nearest precedent it names.
type Open struct {
	// CloudProviderRegisters: the third party's cloud provider of scenario 6 is
	// entered in the register, though it need not self-certify. Default true
	// ("single register of developers/providers").
	CloudProviderRegisters bool `yaml:"cloud_provider_registers" json:"cloud_provider_registers"`
	// IncidentAnchor is what the 24 hours of an incident's notice run from:
	// occurred (the framework's letter) or aware. Both are always shown; this one
	// is reported against. Default occurred.
	IncidentAnchor string `yaml:"incident_anchor" json:"incident_anchor"`
	// HighRecords is the number of records from which an incident is High, and
	// below which, with data suspected, it is Medium. Default 100.
	HighRecords uint64 `yaml:"high_records" json:"high_records"`
	// ValidityMonths caps a whitelist entry, which otherwise ends with its earliest
	// evidence. Default 12.
	ValidityMonths int `yaml:"validity_months" json:"validity_months"`
	// RecordsMany is the number of unique client records above which a product is
	// of high volume, and ExactlyMany says whether it is at exactly that number.
	// Default 10000 and true (treated as category A).
	RecordsMany uint64 `yaml:"records_many" json:"records_many"`
	ExactlyMany bool   `yaml:"exactly_many" json:"exactly_many"`
	// InHouseCategory is the category of in-house products. Default E, on one
	// secondary note; the agency's in-house section was not seen.
	InHouseCategory Category `yaml:"in_house_category" json:"in_house_category"`
	// InterimMonths is how long a grandfathered or conditional approval lasts
	// before it lapses. Default 6, the time between Xero's dates for new and
	// existing connections.
	InterimMonths int `yaml:"interim_months" json:"interim_months"`
	// PilotRisk is the lowest risk rating whose use in production verification
	// testing needs an approval of its own. Default 3.
	PilotRisk uint8 `yaml:"pilot_risk" json:"pilot_risk"`
	// ProductID is the pattern of Product IDs, whose format is unpublished.
	// Default: two to four letters, a hyphen, four to eight digits. Products that are
	// imported keep the IDs they had.
	ProductID string `yaml:"product_id" json:"product_id"`
	// ProductIDPrefix and a number make the IDs of products that are registered
	// here; they have to be of the pattern. Default FP-.
	ProductIDPrefix string `yaml:"product_id_prefix" json:"product_id_prefix"`
	// EligibilitySeenBy are the permissions that may see the outcome of eligibility
	// checks, beside the entity itself. Default registrar.
	EligibilitySeenBy []string `yaml:"eligibility_seen_by" json:"eligibility_seen_by"`
}

// OpenDefaults are the stated defaults.
func OpenDefaults() Open {
	return Open{
		CloudProviderRegisters: true, IncidentAnchor: "occurred", HighRecords: 100, ValidityMonths: 12,
		RecordsMany: 10_000, ExactlyMany: true, InHouseCategory: "E", InterimMonths: 6, PilotRisk: 3,
		ProductID: `^[A-Z]{2,4}-[0-9]{4,8}$`, ProductIDPrefix: "FP-", EligibilitySeenBy: []string{"registrar"},
	}
}

// Check refuses a configuration that means nothing, naming the key.
func (o *Open) Check() error {
	bad := func(key, format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, key, fmt.Sprintf(format, args...))
	}
	permissions := []string{"registrar", "assessor", "auditor", "operator", "incident-officer"}
	switch {
	case o.IncidentAnchor != "occurred" && o.IncidentAnchor != "aware":
		return bad("incident_anchor", "%q; write occurred or aware", o.IncidentAnchor)
	case o.HighRecords == 0:
		return bad("high_records", "at least 1")
	case o.ValidityMonths < 1 || o.ValidityMonths > 120:
		return bad("validity_months", "%d is not between 1 and 120", o.ValidityMonths)
	case o.RecordsMany == 0:
		return bad("records_many", "at least 1")
	case !slices.Contains(Categories(), o.InHouseCategory):
		return bad("in_house_category", "%q; write one of A, B, C, D, E", o.InHouseCategory)
	case o.InterimMonths < 1 || o.InterimMonths > 120:
		return bad("interim_months", "%d is not between 1 and 120", o.InterimMonths)
	case o.PilotRisk < 1 || o.PilotRisk > 5:
		return bad("pilot_risk", "%d is not between 1 and 5 (5: none needs one)", o.PilotRisk)
	}
	if _, err := regexp.Compile(o.ProductID); err != nil {
		return bad("product_id", "is no regular expression")
	}
	if made := o.ProductIDPrefix + "1001"; o.CheckProductID(made) != nil {
		return bad("product_id_prefix", "makes IDs such as %s, which product_id does not allow", made)
	}
	for _, p := range o.EligibilitySeenBy {
		if !slices.Contains(permissions, p) {
			return bad("eligibility_seen_by", "%q is no permission of staff", p)
		}
	}
	return nil
}

// CheckProductID refuses an ID that is not of the pattern, naming /id. An empty
// pattern allows every one.
func (o *Open) CheckProductID(id string) error {
	if ok, err := regexp.MatchString(o.ProductID, id); err == nil && !ok {
		return Invalid("/id", "%q is no Product ID here: they are of the form %s", cut(id), o.ProductID)
	}
	return nil
}

// Many tells whether a number of unique client records is a high volume.
func (o *Open) Many(records uint64) bool {
	return records > o.RecordsMany || o.ExactlyMany && records == o.RecordsMany
}
