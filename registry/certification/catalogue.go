package certification

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Subject is what a requirement is shown for.
type Subject string

// The subjects of requirements.
const (
	// OfEntity: shown once for each entity that registers; checked by the
	// registrar, not answered in a product's questionnaire.
	OfEntity Subject = "entity"
	// OfProduct: shown for each product, in its self-certification.
	OfProduct Subject = "product"
)

// Strength is how strictly a requirement binds at a level.
type Strength string

// The strengths.
const (
	Required Strength = "required"
	// WhereControlled: required of whatever part of it the DSP controls (client-
	// controlled products, categories D and E).
	WhereControlled Strength = "required where controlled"
	Advised         Strength = "advised" // a fail is marked warn
)

// Catalogue is one version of the requirements.
type Catalogue struct {
	Version string `yaml:"version" json:"version"` // e.g. 2026.1; later versions sort after
	// Effective is the day from which self-certifications are made against it.
	Effective Day `yaml:"effective" json:"effective"`
	// GraceDays is how long a product certified against an earlier version has to
	// show what this version asks anew. A requirement may set its own.
	GraceDays  int            `yaml:"grace_days" json:"grace_days"`
	Note       string         `yaml:"note,omitempty" json:"note,omitempty"`
	Categories []CategoryRule `yaml:"categories" json:"categories"`

	Requirements []Requirement `yaml:"requirements" json:"requirements"`
}

// Requirement is one line of the catalogue.
type Requirement struct {
	ID    string `yaml:"id" json:"id"` // e.g. OSF-AUT; keeps its meaning over versions
	Title string `yaml:"title" json:"title"`
	// Revision goes up when what must be shown changes: products that showed an
	// earlier one are asked again.
	Revision  int     `yaml:"revision" json:"revision"`
	GraceDays int     `yaml:"grace_days,omitempty" json:"grace_days,omitempty"`
	Subject   Subject `yaml:"subject" json:"subject"`
	// Bearers are the roles whose entity does what is asked; empty for all.
	Bearers []Role `yaml:"bearers,omitempty" json:"bearers,omitempty"`
	// Levels are tried in order; the first whose condition holds binds. When none
	// does, the requirement does not apply.
	Levels []Level `yaml:"levels" json:"levels"`
	// How says, step by step and in plain words, how to meet it.
	How []string `yaml:"how" json:"how"`
	// ISO are the clauses of ISO/IEC 27001 to 27005 and 27017 it rests on.
	ISO     []string `yaml:"iso,omitempty" json:"iso,omitempty"`
	Sources []string `yaml:"sources" json:"sources"` // of the domain model, §15
	// Unpublished: the title is published, the detail was not found; the text is a
	// proposal.
	Unpublished bool `yaml:"detail_unpublished,omitempty" json:"detail_unpublished,omitempty"`
}

// Level is a requirement as it binds products of one sort.
type Level struct {
	When     Condition `yaml:"when,omitempty" json:"when,omitzero"`
	Strength Strength  `yaml:"strength" json:"strength"`
	// Minimum is the minimum requirement, Guideline what is good beyond it.
	Minimum   string `yaml:"minimum" json:"minimum"`
	Guideline string `yaml:"guideline,omitempty" json:"guideline,omitempty"`
	// Evidence: one of these types is enough.
	Evidence []EvidenceType `yaml:"evidence" json:"evidence"`
}

// Day is a date without a time, 2026-11-22, the start of the day in UTC.
type Day struct{ time.Time }

// MarshalText writes 2026-11-22, or nothing for the zero Day.
func (d Day) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(d.Format(time.DateOnly)), nil
}

// UnmarshalText reads 2026-11-22.
func (d *Day) UnmarshalText(b []byte) (err error) {
	if d.Time, err = time.Parse(time.DateOnly, string(b)); err != nil {
		return fmt.Errorf("%w: %q is no day; write 2026-11-22", ErrInvalid, cut(string(b)))
	}
	return nil
}

func cut(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// Requirement finds one by its ID; nil when there is none.
func (c *Catalogue) Requirement(id string) *Requirement {
	for i := range c.Requirements {
		if c.Requirements[i].ID == id {
			return &c.Requirements[i]
		}
	}
	return nil
}

// Applicable is a requirement as it binds one product, with the reason.
type Applicable struct {
	*Requirement
	Level Level `json:"level"`
	// Why lists the facts that make it apply; empty when it applies to all.
	Why []string `json:"why"`
}

// Because is the reason as one sentence.
func (a *Applicable) Because() string {
	if len(a.Why) == 0 {
		return "It applies to everybody."
	}
	return "It applies because of: " + strings.Join(a.Why, "; ") + "."
}

// Applicable is what binds a product of this profile, in the catalogue's order,
// and nothing else: the developer sees no more than this.
func (c *Catalogue) Applicable(p *Profile, open Open) []Applicable {
	category, _ := c.Category(p, open)
	facts := p.Facts(category, open)
	var out []Applicable
	for i := range c.Requirements {
		if a, ok := c.Requirements[i].applies(facts); ok {
			out = append(out, a)
		}
	}
	return out
}

func (r *Requirement) applies(f Facts) (Applicable, bool) {
	if len(r.Bearers) > 0 && !slices.ContainsFunc(r.Bearers, func(b Role) bool { return slices.Contains(f["role"], string(b)) }) {
		return Applicable{}, false
	}
	for _, l := range r.Levels {
		if l.When.Holds(f) {
			why := l.When.Why(f)
			if len(r.Bearers) > 0 {
				why = append(why, "role "+joinRoles(slices.DeleteFunc(slices.Clone(r.Bearers), func(b Role) bool { return !slices.Contains(f["role"], string(b)) })))
			}
			slices.Sort(why)
			return Applicable{Requirement: r, Level: l, Why: slices.Compact(why)}, true
		}
	}
	return Applicable{}, false
}

// Reopened is a requirement that a product must show again, or for the first
// time, after the catalogue or the product changed.
type Reopened struct {
	Requirement string    `json:"requirement"`
	Title       string    `json:"title"`
	Because     string    `json:"because"`
	DueBy       time.Time `json:"due_by"`
}

// Reopens compares what a product was certified against with the next version
// of the catalogue: what is new to it, was revised, or binds more strictly now
// must be shown by the end of the grace period, counted from the day the next
// version takes effect. Everything else that was shown stays shown.
func (c *Catalogue) Reopens(next *Catalogue, p *Profile, open Open) []Reopened {
	had := map[string]Applicable{}
	for _, a := range c.Applicable(p, open) {
		had[a.ID] = a
	}
	var out []Reopened
	for _, a := range next.Applicable(p, open) {
		if a.Subject != OfProduct {
			continue
		}
		grace := next.GraceDays
		if a.GraceDays > 0 {
			grace = a.GraceDays
		}
		r := Reopened{Requirement: a.ID, Title: a.Title, DueBy: next.Effective.AddDate(0, 0, grace)}
		switch old, ok := had[a.ID]; {
		case !ok:
			r.Because = fmt.Sprintf("New in version %s. %s", next.Version, a.Because())
		case a.Revision > old.Revision:
			r.Because = fmt.Sprintf("Revised in version %s: %s", next.Version, a.Level.Minimum)
		case old.Level.Strength == Advised && a.Level.Strength != Advised:
			r.Because = fmt.Sprintf("Required since version %s, advised before: %s", next.Version, a.Level.Minimum)
		default:
			continue
		}
		out = append(out, r)
	}
	return out
}

var requirementID = regexp.MustCompile(`^[A-Z]{3,4}(-[A-Z0-9]{1,4})$`)

func (c *Catalogue) check() error {
	if c.Version == "" || c.Effective.IsZero() || c.GraceDays < 0 || c.GraceDays > 3650 {
		return fmt.Errorf("%w: a catalogue needs version, effective, and grace_days of 0 to 3650", ErrData)
	}
	facts := profileFacts()
	known := func(fact string) bool { return slices.Contains(facts, fact) }
	if len(c.Categories) == 0 || len(c.Requirements) == 0 {
		return fmt.Errorf("%w: catalogue %s has no categories or no requirements", ErrData, c.Version)
	}
	for i, r := range c.Categories {
		if r.Category != inHouseRule && !slices.Contains(Categories(), Category(r.Category)) || r.Because == "" {
			return fmt.Errorf("%w: catalogue %s, category rule %d needs a category and because", ErrData, c.Version, i+1)
		}
		if slices.Contains(r.When.facts(), "category") {
			return fmt.Errorf("%w: catalogue %s, category rule %d asks for the category", ErrData, c.Version, i+1)
		}
		if err := r.When.check(known, 0); err != nil {
			return fmt.Errorf("catalogue %s, category rule %d: %w", c.Version, i+1, err)
		}
	}
	seen := map[string]bool{}
	for i := range c.Requirements {
		r := &c.Requirements[i]
		if seen[r.ID] {
			return fmt.Errorf("%w: catalogue %s: %s stands twice", ErrData, c.Version, r.ID)
		}
		seen[r.ID] = true
		if err := r.check(known); err != nil {
			return fmt.Errorf("catalogue %s, %s: %w", c.Version, cut(r.ID), err)
		}
	}
	return nil
}

func (r *Requirement) check(known func(string) bool) error {
	switch {
	case !requirementID.MatchString(r.ID):
		return fmt.Errorf("%w: %q is no ID such as OSF-AUT", ErrData, cut(r.ID))
	case r.Title == "" || r.Revision < 1 || len(r.Levels) == 0 || len(r.How) == 0 || len(r.Sources) == 0:
		return fmt.Errorf("%w: title, revision, levels, how and sources are needed", ErrData)
	case r.Subject != OfEntity && r.Subject != OfProduct:
		return fmt.Errorf("%w: subject is entity or product", ErrData)
	}
	for _, b := range r.Bearers {
		if !slices.Contains(Roles(), b) {
			return fmt.Errorf("%w: %q is no role", ErrData, b)
		}
	}
	for i, l := range r.Levels {
		if l.Minimum == "" || !slices.Contains([]Strength{Required, WhereControlled, Advised}, l.Strength) || len(l.Evidence) == 0 {
			return fmt.Errorf("%w: level %d needs a strength, a minimum and evidence", ErrData, i+1)
		}
		for _, e := range l.Evidence {
			if evidenceRule(e) == nil {
				return fmt.Errorf("%w: level %d: %q is no type of evidence", ErrData, i+1, e)
			}
		}
		if err := l.When.check(known, 0); err != nil {
			return fmt.Errorf("level %d: %w", i+1, err)
		}
	}
	return nil
}
