package certification

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/internal/identifier"
)

func holdsTFN(s string) bool { return identifier.HoldsTFN(s) }

// todayFact is the day on which answers are marked, in days since 1970.
const todayFact = "today"

// Asked is a question as it stands for one product.
type Asked struct {
	*Question
	Answer *Answer `json:"answer,omitempty"` // nil: not answered
	Mark   Mark    `json:"mark"`
	// Say tells what is wrong and what to do; "" for a pass.
	Say string `json:"say,omitempty"`
	// EvidenceMissing: the answer needs evidence of one of these types.
	EvidenceMissing []EvidenceType `json:"evidence_missing,omitempty"`
}

// RequirementMark is how one requirement stands: its worst answer.
type RequirementMark struct {
	Requirement string     `json:"requirement"`
	Title       string     `json:"title"`
	Mark        Mark       `json:"mark"`
	Say         []string   `json:"say,omitempty"`
	Exception   *Exception `json:"exception,omitempty"` // the one that turns its fail into a warn
}

// Marking is a questionnaire as answered so far.
type Marking struct {
	Questionnaire string            `json:"questionnaire"`
	Version       string            `json:"version"`
	Category      Category          `json:"category,omitempty"`
	Questions     []Asked           `json:"questions"` // those asked, in order
	Requirements  []RequirementMark `json:"requirements"`
	// Mark is the worst of the requirements: Open while something is unanswered and
	// nothing fails.
	Mark Mark `json:"mark"`
	// Unasked are answers to questions that are not asked any more; they count for
	// nothing.
	Unasked []string `json:"unasked,omitempty"`
}

// MarkInput is what answers are marked against.
type MarkInput struct {
	Profile    Profile
	Applicable []Applicable // of the catalogue, for this profile; nil where none counts
	Answers    map[string]Answer
	// EvidenceType tells the type of what is held at an address; ok is false for
	// what is not held, or not this entity's.
	EvidenceType func(address string) (EvidenceType, bool)
	Exceptions   []Exception
	Now          time.Time
	Open         Open
}

// Mark asks what is to be asked and marks what was answered. It is a function
// of its input alone; call it after each answer. Answers must have passed
// CheckAnswer.
func (q *Questionnaire) Mark(in MarkInput, category Category) *Marking {
	facts := in.Profile.Facts(category, in.Open)
	facts[todayFact] = []string{strconv.FormatInt(in.Now.UTC().Unix()/86400, 10)}
	m := &Marking{Questionnaire: q.ID, Version: q.Version, Category: category, Questions: []Asked{}, Requirements: []RequirementMark{}}
	applicable := map[string]*Applicable{}
	for i := range in.Applicable {
		applicable[in.Applicable[i].ID] = &in.Applicable[i]
	}
	asked := map[string]bool{}
	for i := range q.Questions {
		x := &q.Questions[i]
		var level *Level
		if x.Requirement != "" {
			a := applicable[x.Requirement]
			if a == nil || a.Subject != OfProduct {
				continue
			}
			level = &a.Level
		}
		if !x.When.Holds(facts) {
			continue
		}
		asked[x.ID] = true
		one := in.mark(x, level, facts)
		if one.Answer != nil {
			facts[answerFact+x.ID] = x.value(*one.Answer)
		}
		m.Questions = append(m.Questions, one)
	}
	for id := range in.Answers {
		if !asked[id] {
			m.Unasked = append(m.Unasked, id)
		}
	}
	slices.Sort(m.Unasked)
	m.sum(in)
	return m
}

// mark judges one answer.
func (in *MarkInput) mark(q *Question, level *Level, facts Facts) Asked {
	out := Asked{Question: q, Mark: Unanswered}
	a, ok := in.Answers[q.ID]
	if !ok {
		if q.Optional {
			out.Mark = Pass
		}
		return out
	}
	out.Answer, out.Mark = &a, Pass
	facts[thisAnswer] = q.value(a)
	defer delete(facts, thisAnswer)
	for i := range q.Marks {
		if r := &q.Marks[i]; r.When.Holds(facts) {
			out.Mark, out.Say = r.Mark, r.Say
			break
		}
	}
	if level == nil {
		return out
	}
	if out.Mark == Fail && level.Strength == Advised {
		out.Mark, out.Say = Warn, out.Say+" This is advised, not required, for your product."
	}
	if q.Evidence && out.Mark != Fail && !in.shown(a.Evidence, level.Evidence) {
		out.EvidenceMissing = level.Evidence
		out.Mark = max(out.Mark, Unanswered)
		out.Say = strings.TrimSpace(out.Say + " Attach evidence: " + joinEvidence(level.Evidence) + ".")
	}
	return out
}

// shown tells whether one of the addresses holds evidence of a type wanted.
func (in *MarkInput) shown(addresses []string, wanted []EvidenceType) bool {
	return slices.ContainsFunc(addresses, func(address string) bool {
		if in.EvidenceType == nil {
			return false
		}
		t, ok := in.EvidenceType(address)
		return ok && slices.Contains(wanted, t)
	})
}

// sum takes the worst mark of each requirement, lets exceptions count, and takes
// the worst of all. A requirement that nothing asks about stays open: what was
// never asked was never shown.
func (m *Marking) sum(in MarkInput) {
	for _, a := range in.Applicable {
		if a.Subject != OfProduct {
			continue
		}
		r := RequirementMark{Requirement: a.ID, Title: a.Title, Mark: Unmarked}
		for i := range m.Questions {
			x := &m.Questions[i]
			if x.Requirement != a.ID {
				continue
			}
			r.Mark = max(r.Mark, x.Mark)
			if x.Say != "" {
				r.Say = append(r.Say, x.Say)
			}
		}
		if r.Mark == Unmarked {
			r.Mark = Unanswered
			r.Say = append(r.Say, "Nothing was asked about this requirement: an assessor must look.")
		}
		if r.Mark == Fail {
			for i := range in.Exceptions {
				if e := &in.Exceptions[i]; e.Requirement == a.ID && e.Holds(in.Now) {
					r.Mark, r.Exception = Warn, e
					r.Say = append(r.Say, fmt.Sprintf("Accepted by exception until %s: %s", e.Expires.Format(time.DateOnly), e.Control))
					break
				}
			}
		}
		m.Mark = max(m.Mark, r.Mark)
		m.Requirements = append(m.Requirements, r)
	}
	for i := range m.Questions { // those of no requirement
		if m.Questions[i].Requirement == "" {
			m.Mark = max(m.Mark, m.Questions[i].Mark)
		}
	}
}

// Blocker is one thing that stands in the way of submitting.
type Blocker struct {
	Requirement string `json:"requirement,omitempty"`
	Question    string `json:"question,omitempty"`
	Say         string `json:"say"`
}

// Blockers lists what stands in the way of submitting, each with what to do;
// empty when nothing does. A warn stands in nobody's way.
func (m *Marking) Blockers() []Blocker {
	var out []Blocker
	excused := map[string]bool{}
	for _, r := range m.Requirements {
		excused[r.Requirement] = r.Exception != nil
		if r.Mark == Unanswered && !slices.ContainsFunc(m.Questions, func(x Asked) bool { return x.Requirement == r.Requirement }) {
			out = append(out, Blocker{Requirement: r.Requirement, Say: strings.Join(r.Say, " ")})
		}
	}
	for i := range m.Questions {
		x := &m.Questions[i]
		switch {
		case x.Mark == Fail && !excused[x.Requirement]:
			out = append(out, Blocker{x.Requirement, x.ID, x.Say})
		case x.Mark == Unanswered && x.Answer == nil:
			out = append(out, Blocker{x.Requirement, x.ID, "Not answered yet: " + x.Text})
		case x.Mark == Unanswered:
			out = append(out, Blocker{x.Requirement, x.ID, x.Say})
		}
	}
	return out
}

func joinEvidence(types []EvidenceType) string {
	words := make([]string, len(types))
	for i, t := range types {
		words[i] = string(t)
		if r := evidenceRule(t); r != nil {
			words[i] = strings.ToLower(r.Title)
		}
	}
	return strings.Join(words, ", or ")
}

// Exception lets a product fail one requirement, for a time, because something
// else does what the requirement is for.
type Exception struct {
	Requirement string    `json:"requirement"`
	Control     string    `json:"compensating_control"`
	Expires     time.Time `json:"expires_at"`
	RequestedBy string    `json:"requested_by"`
	ApprovedBy  string    `json:"approved_by,omitempty"` // "": not approved yet
}

// Holds tells whether the exception counts at an instant.
func (e *Exception) Holds(now time.Time) bool {
	return e.ApprovedBy != "" && e.ApprovedBy != e.RequestedBy && now.Before(e.Expires)
}

// exceptionMonths is how long an exception lasts at most: it is renewed with the
// annual review, or ends.
const exceptionMonths = 12

// Check refuses an exception that could not count.
func (e *Exception) Check(c *Catalogue, now time.Time) error {
	switch {
	case c.Requirement(e.Requirement) == nil:
		return Invalid("/requirement", "%q is no requirement of catalogue %s", cut(e.Requirement), c.Version)
	case strings.TrimSpace(e.Control) == "":
		return Invalid("/compensating_control", "say what does instead what the requirement is for")
	case !e.Expires.After(now):
		return Invalid("/expires_at", "must lie in the future")
	case e.Expires.After(AddMonths(now, exceptionMonths)):
		return Invalid("/expires_at", "an exception lasts at most %d months", exceptionMonths)
	case e.ApprovedBy != "" && e.ApprovedBy == e.RequestedBy:
		return Invalid("/approved_by", "the one who asked for an exception cannot approve it")
	}
	if err := checkFree(e.Control, answerNoteMax); err != nil {
		return &FieldError{Field: "/compensating_control", Err: err}
	}
	return nil
}
