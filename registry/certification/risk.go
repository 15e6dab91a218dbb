package certification

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// RiskModel is how inputs become points, as versioned data.
type RiskModel struct {
	Version string `yaml:"version" json:"version"`
	// High and Medium are the totals from which a profile is of that level.
	High   int         `yaml:"high" json:"high"`
	Medium int         `yaml:"medium" json:"medium"`
	Inputs []RiskInput `yaml:"inputs" json:"inputs"`
}

// RiskInput is one input of the profile (domain model §5).
type RiskInput struct {
	Name  string `yaml:"name" json:"name"`
	Title string `yaml:"title" json:"title"`
	// Unknown are the points when the input is not known: what nobody looked at is
	// not harmless.
	Unknown int `yaml:"unknown" json:"unknown"`
	// Bands are tried in order; the first that the value is at least at counts.
	// What none fits is worth 0.
	Bands []Band `yaml:"bands" json:"bands"`
}

// Band gives points to values from AtLeast on.
type Band struct {
	AtLeast float64 `yaml:"at_least" json:"at_least"`
	Points  int     `yaml:"points" json:"points"`
	Say     string  `yaml:"say" json:"say"`
}

// RiskInputs are the values by input name; one that is missing is unknown.
type RiskInputs map[string]float64

// Contribution is what one input adds, shown to the reviewer.
type Contribution struct {
	Input   string   `json:"input"`
	Title   string   `json:"title"`
	Value   *float64 `json:"value,omitempty"` // nil: unknown
	Points  int      `json:"points"`
	Because string   `json:"because"`
}

// RiskLevel is the sum in a word.
type RiskLevel string

// The levels.
const (
	RiskLow    RiskLevel = "low"
	RiskMedium RiskLevel = "medium"
	RiskHigh   RiskLevel = "high"
)

// RiskProfile is a product's risk: the sum of its contributions, and nothing
// beside.
type RiskProfile struct {
	Model         string         `json:"model"` // version
	Score         int            `json:"score"`
	Level         RiskLevel      `json:"level"`
	Contributions []Contribution `json:"contributions"` // the largest first
	Unknown       int            `json:"unknown"`       // inputs that were not known
}

// Profile computes a risk profile. A name that is no input, and a value that is
// no finite number, is an error: it would silently add nothing.
func (m *RiskModel) Profile(in RiskInputs) (*RiskProfile, error) {
	for name, v := range in {
		if !slices.ContainsFunc(m.Inputs, func(i RiskInput) bool { return i.Name == name }) {
			return nil, Invalid("/"+cut(name), "is no input of risk model %s", m.Version)
		}
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return nil, Invalid("/"+name, "%v is no number from 0", v)
		}
	}
	p := &RiskProfile{Model: m.Version, Contributions: make([]Contribution, 0, len(m.Inputs))}
	for i := range m.Inputs {
		x := &m.Inputs[i]
		c := Contribution{Input: x.Name, Title: x.Title}
		if v, known := in[x.Name]; known {
			c.Value, c.Because = &v, "Nothing that adds risk."
			if b := x.band(v); b != nil {
				c.Points, c.Because = b.Points, b.Say
			}
		} else {
			c.Points, c.Because = x.Unknown, "Not known."
			p.Unknown++
		}
		p.Score += c.Points
		p.Contributions = append(p.Contributions, c)
	}
	slices.SortStableFunc(p.Contributions, func(a, b Contribution) int { return cmp.Compare(b.Points, a.Points) })
	switch {
	case p.Score >= m.High:
		p.Level = RiskHigh
	case p.Score >= m.Medium:
		p.Level = RiskMedium
	default:
		p.Level = RiskLow
	}
	return p, nil
}

func (i *RiskInput) band(v float64) *Band {
	for k := range i.Bands {
		if v >= i.Bands[k].AtLeast {
			return &i.Bands[k]
		}
	}
	return nil
}

func (m *RiskModel) check() error {
	if m.Version == "" || m.Medium < 1 || m.High <= m.Medium || len(m.Inputs) == 0 {
		return fmt.Errorf("%w: a risk model needs version, inputs, and high above medium above 0", ErrData)
	}
	seen := map[string]bool{}
	for _, x := range m.Inputs {
		if x.Name == "" || x.Title == "" || seen[x.Name] || len(x.Bands) == 0 || x.Unknown < 0 {
			return fmt.Errorf("%w: risk input %q needs a name of its own, a title and bands", ErrData, x.Name)
		}
		seen[x.Name] = true
		for k, b := range x.Bands {
			if b.Points < 0 || b.Say == "" {
				return fmt.Errorf("%w: risk input %s, band %d: points from 0, and say", ErrData, x.Name, k+1)
			}
			if k > 0 && (b.AtLeast >= x.Bands[k-1].AtLeast || b.Points > x.Bands[k-1].Points) {
				return fmt.Errorf("%w: risk input %s: bands go from the highest to the lowest, in values and in points", ErrData, x.Name)
			}
		}
	}
	return nil
}
