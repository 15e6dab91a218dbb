package certification

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Candidate is a product that may be selected for verification.
type Candidate struct {
	ID        string   `json:"id"`
	Category  Category `json:"category"`
	FirstTime bool     `json:"first_time,omitempty"` // of its owner: nothing of it was ever approved
	// Incident: a High incident that no verification has followed yet.
	Incident bool `json:"incident,omitempty"`
	Score    int  `json:"score"` // of its risk profile
}

// SelectionRule says how many are selected (domain model §5).
type SelectionRule struct {
	RandomPercent int `yaml:"random_percent" json:"random_percent"` // of what is not forced, by the draw
	RankedPercent int `yaml:"ranked_percent" json:"ranked_percent"` // of what is not forced, the riskiest
}

// SelectionDefault is a tenth of a year's products by the draw, and the riskiest
// twentieth.
func SelectionDefault() SelectionRule { return SelectionRule{RandomPercent: 10, RankedPercent: 5} }

// Check bounds the rule.
func (r SelectionRule) Check() error {
	if r.RandomPercent < 0 || r.RandomPercent > 100 || r.RankedPercent < 0 || r.RankedPercent > 100 {
		return Invalid("/rule", "percentages are from 0 to 100")
	}
	return nil
}

// Basis is why a product was selected.
type Basis string

// The reasons for a selection, the first that holds.
const (
	ByIncident  Basis = "high incident"
	ByCategory  Basis = "category A"
	ByFirstTime Basis = "first-time registrant"
	ByDraw      Basis = "random draw"
	ByRank      Basis = "risk rank"
	NotSelected Basis = "not selected"
)

// Drawn is one candidate's outcome; Ticket is what the draw orders by.
type Drawn struct {
	Candidate
	Ticket string `json:"ticket"` // hexadecimal
	Basis  Basis  `json:"basis"`
}

// Draw is a selection with everything needed to compute it again. Published
// whole, it proves itself: the commitment was published before the list was
// known, so nobody could choose a seed to fit the list; and whoever has the seed
// and the list gets the same tickets.
type Draw struct {
	Period     string        `json:"period"`     // e.g. 2026
	Commitment string        `json:"commitment"` // SHA-256 of the seed, hexadecimal; published first
	Seed       string        `json:"seed"`       // hexadecimal, 32 bytes
	Rule       SelectionRule `json:"rule"`
	At         time.Time     `json:"at"`
	ListSHA256 string        `json:"list_sha256"` // over the candidates, sorted by ID
	Outcome    []Drawn       `json:"outcome"`     // sorted by ID
}

// SeedBytes is the length of a seed.
const SeedBytes = 32

// periodMax and candidateIDMax bound what goes into a ticket.
const (
	periodMax      = 32
	candidateIDMax = 128
)

// Commit is what is published before the draw.
func Commit(seed []byte) string {
	sum := sha256.Sum256(seed)
	return hex.EncodeToString(sum[:])
}

// ticket is HMAC-SHA-256 under the seed, over period and candidate: uniform, and
// unforeseeable without the seed.
func ticket(seed []byte, period, id string) []byte {
	h := hmac.New(sha256.New, seed)
	for _, part := range []string{period, id} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// Select makes the draw. It is a function of its arguments: the order of the
// list does not matter.
func Select(seed []byte, period string, rule SelectionRule, list []Candidate, at time.Time) (*Draw, error) {
	if len(seed) != SeedBytes {
		return nil, Invalid("/seed", "has %d bytes; it must have %d", len(seed), SeedBytes)
	}
	if period == "" || len(period) > periodMax {
		return nil, Invalid("/period", "name the period, such as 2026")
	}
	if err := rule.Check(); err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Candidate) int { return strings.Compare(a.ID, b.ID) })
	type entry struct {
		at     int // in list
		ticket []byte
	}
	d := &Draw{Period: period, Commitment: Commit(seed), Seed: hex.EncodeToString(seed), Rule: rule, At: at.UTC().Truncate(time.Second), ListSHA256: listSum(list), Outcome: make([]Drawn, len(list))}
	var open []entry
	for i, c := range list {
		if c.ID == "" || len(c.ID) > candidateIDMax || i > 0 && list[i-1].ID == c.ID {
			return nil, Invalid(fmt.Sprintf("/candidates/%d/id", i), "%q is empty, too long, or stands twice", cut(c.ID))
		}
		t := ticket(seed, period, c.ID)
		d.Outcome[i] = Drawn{c, hex.EncodeToString(t), forced(&c)}
		if d.Outcome[i].Basis == NotSelected {
			open = append(open, entry{i, t})
		}
	}
	take := func(percent int, basis Basis, less func(a, b entry) int) {
		slices.SortFunc(open, less)
		n := min((len(d.Outcome)-countForced(d.Outcome))*percent+99, 100*len(open)) / 100
		for _, e := range open[:n] {
			d.Outcome[e.at].Basis = basis
		}
		open = open[n:]
	}
	byTicket := func(a, b entry) int { return bytes.Compare(a.ticket, b.ticket) }
	take(rule.RandomPercent, ByDraw, byTicket)
	take(rule.RankedPercent, ByRank, func(a, b entry) int {
		return cmp.Or(cmp.Compare(list[b.at].Score, list[a.at].Score), byTicket(a, b))
	})
	return d, nil
}

func countForced(all []Drawn) (n int) {
	for i := range all {
		switch all[i].Basis {
		case ByIncident, ByCategory, ByFirstTime:
			n++
		}
	}
	return n
}

// forced is why a candidate is verified whatever the draw says.
func forced(c *Candidate) Basis {
	switch {
	case c.Incident:
		return ByIncident
	case c.Category == "A":
		return ByCategory
	case c.FirstTime:
		return ByFirstTime
	}
	return NotSelected
}

// listSum is over the candidates sorted by ID, each field with its length.
func listSum(sorted []Candidate) string {
	h := sha256.New()
	for _, c := range sorted {
		fmt.Fprintf(h, "%d:%s|%s|%t|%t|%d\n", len(c.ID), c.ID, c.Category, c.FirstTime, c.Incident, c.Score)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Verify computes a published draw again, from its own list and seed, and says
// what does not agree; commitment is the one that was published before.
func (d *Draw) Verify(commitment string) error {
	seed, err := hex.DecodeString(d.Seed)
	if err != nil {
		return Invalid("/seed", "is not hexadecimal")
	}
	if Commit(seed) != commitment || d.Commitment != commitment {
		return Invalid("/seed", "is not the one that was committed to: its SHA-256 is another")
	}
	list := make([]Candidate, len(d.Outcome))
	for i := range d.Outcome {
		list[i] = d.Outcome[i].Candidate
	}
	again, err := Select(seed, d.Period, d.Rule, list, d.At)
	if err != nil {
		return err
	}
	if again.ListSHA256 != d.ListSHA256 {
		return Invalid("/list_sha256", "is not that of the list: the list was changed after the draw")
	}
	for i := range again.Outcome {
		if again.Outcome[i] != d.Outcome[i] {
			return Invalid(fmt.Sprintf("/outcome/%d", i), "%s: published as %q, computed as %q", again.Outcome[i].ID, d.Outcome[i].Basis, again.Outcome[i].Basis)
		}
	}
	return nil
}

// Selected lists the IDs that are to be verified, with why, by ID.
func (d *Draw) Selected() []Drawn {
	return slices.DeleteFunc(slices.Clone(d.Outcome), func(x Drawn) bool { return x.Basis == NotSelected })
}
