package certification

import (
	"fmt"
	"slices"
)

// Coverage is how one standard's demand compares with another's.
type Coverage string

// The outcomes of a comparison.
const (
	CoveredBy Coverage = "covered"
	Stronger  Coverage = "stronger"
	Weaker    Coverage = "weaker"
	Absent    Coverage = "absent"
	Unknown   Coverage = "unknown"
)

// Standards is a table of controls and of how strongly standards demand them.
type Standards struct {
	Version   string     `yaml:"version" json:"version"`
	Standards []Standard `yaml:"standards" json:"standards"`
	Controls  []Control  `yaml:"controls" json:"controls"`
}

// Standard is a set of demands somebody makes.
type Standard struct {
	ID    string `yaml:"id" json:"id"`
	Name  string `yaml:"name" json:"name"`
	Owner string `yaml:"owner" json:"owner"`
	Note  string `yaml:"note,omitempty" json:"note,omitempty"`
}

// Control is one thing that may be demanded.
type Control struct {
	ID       string `yaml:"id" json:"id"` // e.g. SSAM-2
	Title    string `yaml:"title" json:"title"`
	Optional bool   `yaml:"optional,omitempty" json:"optional,omitempty"`
	// Requirement of the catalogue that is about the same thing, "" for none.
	Requirement string `yaml:"requirement,omitempty" json:"requirement,omitempty"`
	// Demands by standard ID; a standard that is missing is unknown.
	Demands map[string]Demand `yaml:"demands" json:"demands"`
}

// Demand is how strongly a standard demands a control.
type Demand struct {
	// Level: 0 not at all; higher is stronger, comparable within one control only;
	// nil unknown.
	Level *int   `yaml:"level" json:"level,omitempty"`
	Text  string `yaml:"text,omitempty" json:"text,omitempty"`
}

// GapRow is one control of a comparison.
type GapRow struct {
	Control     string   `json:"control"`
	Title       string   `json:"title"`
	Optional    bool     `json:"optional,omitempty"`
	Requirement string   `json:"requirement,omitempty"`
	Coverage    Coverage `json:"coverage"`
	Wanted      string   `json:"wanted,omitempty"` // what the first standard demands
	Given       string   `json:"given,omitempty"`  // what the second does
}

// Gap is the comparison of two standards: how far what is shown under Given
// serves for Wanted.
type Gap struct {
	Wanted  Standard         `json:"wanted"`
	Given   Standard         `json:"given"`
	Version string           `json:"version"`
	Rows    []GapRow         `json:"rows"`
	Counts  map[Coverage]int `json:"counts"`
}

// Standard finds one by ID; nil when there is none.
func (s *Standards) Standard(id string) *Standard {
	i := slices.IndexFunc(s.Standards, func(x Standard) bool { return x.ID == id })
	if i < 0 {
		return nil
	}
	return &s.Standards[i]
}

// Compare lists every control that the first standard demands, or may demand,
// and how the second compares. What is unknown of either is unknown of both: a
// control nobody has seen is never reported as covered, nor as absent.
func (s *Standards) Compare(wanted, given string) (*Gap, error) {
	w, g := s.Standard(wanted), s.Standard(given)
	for i, x := range []*Standard{w, g} {
		if x == nil {
			return nil, Invalid([]string{"/wanted", "/given"}[i], "%q is no standard; use %s", cut([]string{wanted, given}[i]), s.ids())
		}
	}
	out := &Gap{Wanted: *w, Given: *g, Version: s.Version, Rows: []GapRow{}, Counts: map[Coverage]int{CoveredBy: 0, Stronger: 0, Weaker: 0, Absent: 0, Unknown: 0}}
	for i := range s.Controls {
		c := &s.Controls[i]
		a, b := c.Demands[w.ID], c.Demands[g.ID]
		if a.Level != nil && *a.Level == 0 {
			continue // the first does not ask for it
		}
		row := GapRow{Control: c.ID, Title: c.Title, Optional: c.Optional, Requirement: c.Requirement, Coverage: compare(a.Level, b.Level), Wanted: a.Text, Given: b.Text}
		out.Counts[row.Coverage]++
		out.Rows = append(out.Rows, row)
	}
	return out, nil
}

func compare(wanted, given *int) Coverage {
	switch {
	case wanted == nil || given == nil:
		return Unknown
	case *given == 0:
		return Absent
	case *given < *wanted:
		return Weaker
	case *given > *wanted:
		return Stronger
	}
	return CoveredBy
}

func (s *Standards) ids() string {
	var all string
	for i, x := range s.Standards {
		if i > 0 {
			all += ", "
		}
		all += x.ID
	}
	return all
}

func (s *Standards) check(requirements func(id string) bool) error {
	if s.Version == "" || len(s.Standards) < 2 || len(s.Controls) == 0 {
		return fmt.Errorf("%w: standards need a version, two standards and controls", ErrData)
	}
	for i, x := range s.Standards {
		if x.ID == "" || x.Name == "" || slices.ContainsFunc(s.Standards[:i], func(y Standard) bool { return y.ID == x.ID }) {
			return fmt.Errorf("%w: standard %d needs an id of its own and a name", ErrData, i+1)
		}
	}
	for i, c := range s.Controls {
		if c.ID == "" || c.Title == "" || slices.ContainsFunc(s.Controls[:i], func(y Control) bool { return y.ID == c.ID }) {
			return fmt.Errorf("%w: control %d needs an id of its own and a title", ErrData, i+1)
		}
		if c.Requirement != "" && !requirements(c.Requirement) {
			return fmt.Errorf("%w: control %s: there is no requirement %q", ErrData, c.ID, c.Requirement)
		}
		for id, d := range c.Demands {
			if s.Standard(id) == nil {
				return fmt.Errorf("%w: control %s names a standard %q that there is not", ErrData, c.ID, id)
			}
			if d.Level != nil && (*d.Level < 0 || *d.Level > 9) {
				return fmt.Errorf("%w: control %s: levels are 0 to 9", ErrData, c.ID)
			}
		}
	}
	return nil
}
