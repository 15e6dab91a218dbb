package incident

import (
	"fmt"
	"strings"
)

// Level is how bad an incident is.
type Level string

// The levels (framework: low, medium, high).
const (
	Low    Level = "low"
	Medium Level = "medium"
	High   Level = "high"
)

// Levels are all levels, mildest first.
func Levels() []Level { return []Level{Low, Medium, High} }

func (l Level) rank() int {
	for i, x := range Levels() {
		if x == l {
			return i + 1
		}
	}
	return 0
}

// Below tells whether l is milder than m.
func (l Level) Below(m Level) bool { return l.rank() < m.rank() }

// Exposure is what got out, or is reasonably suspected to have.
type Exposure struct {
	// TFN, Bank, Identity: such data of anybody is exposed.
	TFN      bool `json:"tfn,omitempty"`
	Bank     bool `json:"bank,omitempty"`
	Identity bool `json:"identity,omitempty"`
	// Fraud: something was lodged or paid that should not have been.
	Fraud bool `json:"fraud,omitempty"`
	// Taxpayer: other data about taxpayers is exposed or suspected to be.
	Taxpayer bool `json:"taxpayer,omitempty"`
	// Records is how many people's records; 0 when nobody knows yet.
	Records int `json:"records,omitempty"`
	// SSIDs are the subscriptions concerned, when known.
	SSIDs []string `json:"ssids,omitempty"`
	// DataTypes and FileFormat are what a later stage of the report adds.
	DataTypes  []string `json:"data_types,omitempty"`
	FileFormat string   `json:"file_format,omitempty"`
}

// Breach tells a data breach from a security event: somebody's data is exposed
// or suspected to be.
func (x *Exposure) Breach() bool {
	return x.TFN || x.Bank || x.Identity || x.Fraud || x.Taxpayer || x.Records > 0
}

// Thresholds are the numbers nobody has decided yet; configuration.
type Thresholds struct {
	// HighRecords is from how many records on a breach is high. Default 100.
	HighRecords int `yaml:"high_records"`
}

// DefaultThresholds are those of the framework's proposal.
func DefaultThresholds() Thresholds { return Thresholds{HighRecords: 100} }

// Derive is the level that an exposure has, and why, in words.
func (t Thresholds) Derive(x *Exposure) (Level, string) {
	var why []string
	for _, c := range []struct {
		is   bool
		word string
	}{{x.TFN, "tax file numbers"}, {x.Bank, "bank details"}, {x.Identity, "identity documents"}} {
		if c.is {
			why = append(why, c.word)
		}
	}
	switch {
	case len(why) > 0:
		return High, strings.Join(why, ", ") + " exposed"
	case x.Fraud:
		return High, "fraud"
	case x.Records >= t.HighRecords:
		return High, fmt.Sprintf("%d records, which is %d or more", x.Records, t.HighRecords)
	case x.Breach():
		return Medium, fmt.Sprintf("taxpayers' data suspected, fewer than %d records", t.HighRecords)
	}
	return Low, "no data known or suspected to be exposed"
}
