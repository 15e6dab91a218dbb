package certification

import (
	"fmt"
	"time"
)

// AddMonths adds calendar months; a day that the month does not have becomes its
// last (29 February and 12 months make 28 February).
func AddMonths(t time.Time, months int) time.Time {
	first := time.Date(t.Year(), t.Month()+time.Month(months), 1, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), t.Location())
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(t.Day(), last)-1)
}

// Terms of validity that are the agency's own (domain model §3).
const (
	assuranceMonths = 12 // assurance is annual
	workbookMonths  = 24 // a self-assessment is current for 2 years from first approval
)

// Shown is a piece of evidence as validity counts it.
type Shown struct {
	Address string       `json:"address"`
	Type    EvidenceType `json:"type"`
	Dates
	// FirstApproved is when this self-assessment was first approved; for other
	// types it is not used.
	FirstApproved time.Time `json:"first_approved,omitzero"`
}

// Ends is the instant from which the evidence shows nothing any more: its
// printed expiry; for a self-assessment two years from its first approval, if
// that is earlier. Zero: it has no end of its own.
func (s *Shown) Ends() time.Time {
	end := s.Expires
	if s.Type == Workbook && !s.FirstApproved.IsZero() {
		if two := AddMonths(s.FirstApproved, workbookMonths); end.IsZero() || two.Before(end) {
			end = two
		}
	}
	return end
}

// Period is how long an approval stands.
type Period struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`    // calls are denied from this instant
	Review  time.Time `json:"review"`   // annual assurance is due
	Because string    `json:"because"`  // of Until
	Address string    `json:"evidence"` // that ends it, "" for the cap
}

// Validity computes the period of a whitelist entry: to the earliest end of its
// evidence, capped. Evidence that has ended already is an error naming it.
func Validity(approved time.Time, evidence []Shown, open Open) (Period, error) {
	p := Period{From: approved, Until: AddMonths(approved, open.ValidityMonths), Review: AddMonths(approved, assuranceMonths)}
	p.Because = fmt.Sprintf("%d months from approval, the most there is", open.ValidityMonths)
	for i := range evidence {
		s := &evidence[i]
		end := s.Ends()
		switch {
		case end.IsZero():
		case !end.After(approved):
			return Period{}, Invalid(fmt.Sprintf("/evidence/%d", i), "the %s of %s ended on %s: ask for one that holds", s.Type, cut(s.Address), end.Format(time.DateOnly))
		case end.Before(p.Until):
			p.Until, p.Address, p.Because = end, s.Address, fmt.Sprintf("the %s ends then", s.Type)
		}
	}
	if p.Until.Before(p.Review) {
		p.Review = p.Until
	}
	return p, nil
}

// Interim computes the period of a grandfathered or conditional approval.
func Interim(approved time.Time, open Open) Period {
	until := AddMonths(approved, open.InterimMonths)
	return Period{From: approved, Until: until, Review: until, Because: fmt.Sprintf("%d months to show what is owed", open.InterimMonths)}
}
