package assurance

import (
	"context"
	"fmt"
	"slices"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// FindingState is how far a finding has come.
type FindingState string

// The states of a finding.
const (
	FindingOpen     FindingState = "open"
	FindingAnswered FindingState = "answered" // the developer says that it is mended
	FindingClosed   FindingState = "closed"   // somebody else saw that it is
)

// Finding is something that a product, or its owner, does not meet.
type Finding struct {
	ID           string        `json:"id"` // FN-<revision>
	ProductID    string        `json:"product_id"`
	Owner        registry.ABN  `json:"owner"`
	Requirement  string        `json:"requirement"`
	Verification string        `json:"verification_id,omitempty"`
	Report       string        `json:"report_id,omitempty"` // of an automated check
	Severity     string        `json:"severity"`            // low, medium, high
	Text         string        `json:"text"`
	State        FindingState  `json:"state"`
	Due          registry.Time `json:"due_at"`
	Raised       registry.Time `json:"raised_at"`
	RaisedBy     string        `json:"raised_by"`
	Response     string        `json:"response,omitempty"`
	Evidence     []string      `json:"evidence,omitempty"`
	Answered     registry.Time `json:"answered_at,omitempty"`
	AnsweredBy   string        `json:"answered_by,omitempty"`
	Closed       registry.Time `json:"closed_at,omitempty"`
	ClosedBy     string        `json:"closed_by,omitempty"`
	ClosedNote   string        `json:"closed_note,omitempty"`
	// Late is when its due date was seen to pass, which happens once.
	Late registry.Time `json:"late_since,omitempty"`
}

// CaseDues implements registry.Dated: what follows from a finding that is not
// closed in time is casework's.
func (f Finding) CaseDues() []registry.Due {
	if f.State == FindingClosed || f.Late.Set() {
		return nil
	}
	return []registry.Due{{What: "remedy", At: f.Due}}
}

// CaseKind implements registry.CaseBody.
func (Finding) CaseKind() registry.CaseKind { return "finding" }

// CaseKeys implements registry.CaseIndexer. Index due_at holds what is not closed,
// so that what is overdue is a range of it.
func (f Finding) CaseKeys(add func(index, value string)) {
	add("product_id", f.ProductID)
	add("owner", f.Owner.String())
	add("state", string(f.State))
	add("requirement", f.Requirement)
	add("severity", f.Severity)
	if f.State != FindingClosed {
		add("due_at", f.Due.String())
	}
}

// Overdue tells whether the finding is past its due date and not closed.
func (f *Finding) Overdue(at registry.Time) bool { return f.State != FindingClosed && f.Due <= at }

// Raise is a new finding.
type Raise struct {
	Requirement string
	Text        string
	Severity    string        // default medium
	Due         registry.Time // default by severity
	Report      string
}

// dueDays is how long a finding may take by default.
func dueDays(severity string) int {
	switch severity {
	case "high":
		return 7
	case "low":
		return 90
	}
	return 30
}

// RaiseFinding makes a finding of a product. Assessor.
func (d *Desk) RaiseFinding(ctx context.Context, a registry.Actor, productID string, r Raise, reason string) (*registry.Case[Finding], bool, error) {
	if err := need(a, assessors); err != nil {
		return nil, false, err
	}
	o, err := d.do(ctx, a, "finding.raise", reason, func(t *registry.Tx) error {
		_, err := d.raise(t, productID, "", r, 0)
		return err
	})
	return done[Finding](o, err)
}

// raise writes a finding, the nth of its change, and returns its ID.
func (d *Desk) raise(t *registry.Tx, productID, verification string, r Raise, n int) (string, error) {
	p := t.View().Product(productID)
	if p == nil {
		return "", fmt.Errorf("%w: there is no product %s", registry.ErrNotFound, cut(productID))
	}
	if r.Severity == "" {
		r.Severity = "medium"
	}
	if !slices.Contains([]string{"low", "medium", "high"}, r.Severity) {
		return "", registry.Field("/severity", "%q; use low, medium or high", cut(r.Severity))
	}
	if err := checkNote("/finding", r.Text, true); err != nil {
		return "", err
	}
	if !slices.ContainsFunc(d.Rules().Catalogues, func(c *certification.Catalogue) bool { return c.Requirement(r.Requirement) != nil }) {
		return "", registry.Field("/requirement", "%q is no requirement of any catalogue", cut(r.Requirement))
	}
	if !r.Due.Set() {
		r.Due = registry.At(t.Now().Std().AddDate(0, 0, dueDays(r.Severity)))
	}
	if r.Due <= t.Now() || r.Due > registry.At(t.Now().Std().AddDate(1, 0, 0)) {
		return "", registry.Field("/due_at", "lies within the next year")
	}
	f := Finding{
		ID: newID("FN", t, n), ProductID: p.ID, Owner: p.Owner, Requirement: r.Requirement, Verification: verification, Report: r.Report, Severity: r.Severity,
		Text: r.Text, State: FindingOpen, Due: r.Due, Raised: t.Now(), RaisedBy: t.Actor().Name,
	}
	return f.ID, registry.CreateCase(t, f.ID, f)
}

// AnswerFinding is the developer's word that a finding is mended, with what
// shows it. The developer who owns the product.
func (d *Desk) AnswerFinding(ctx context.Context, a registry.Actor, id, response string, evidence []string, m registry.Meta) (*registry.Case[Finding], bool, error) {
	if _, err := d.Finding(a, id); err != nil {
		return nil, false, err
	}
	if err := need(a, registry.PermDeveloper); err != nil {
		return nil, false, err
	}
	if err := checkNote("/response", response, true); err != nil {
		return nil, false, err
	}
	o, err := d.do(ctx, a, "finding.answer", m.Reason, func(t *registry.Tx) error {
		f, err := registry.ChangingCase[Finding](t, id, m)
		if err != nil {
			return err
		}
		if f.State == FindingClosed {
			return fmt.Errorf("%w: the finding is closed, which is an end state; an assessor may raise another", registry.ErrState)
		}
		if err := d.checkProofs(t, f.ProductID, evidence); err != nil {
			return err
		}
		f.State, f.Response, f.Evidence, f.Answered, f.AnsweredBy = FindingAnswered, response, evidence, t.Now(), a.Name
		return registry.PutCase(t, id, f)
	})
	return done[Finding](o, err)
}

// CloseFinding: an assessor saw that it is mended. Reopen instead sends an answer
// back, with a new due date if one is given. Assessor, and not the one who
// answered.
func (d *Desk) CloseFinding(ctx context.Context, a registry.Actor, id, note string, m registry.Meta) (*registry.Case[Finding], bool, error) {
	return d.judge(ctx, a, "finding.close", id, note, m, func(t *registry.Tx, f *Finding) error {
		f.State, f.Closed, f.ClosedBy, f.ClosedNote = FindingClosed, t.Now(), a.Name, note
		return nil
	})
}

// ReopenFinding refuses an answer: the finding is open again.
func (d *Desk) ReopenFinding(ctx context.Context, a registry.Actor, id, note string, due registry.Time, m registry.Meta) (*registry.Case[Finding], bool, error) {
	return d.judge(ctx, a, "finding.reopen", id, note, m, func(t *registry.Tx, f *Finding) error {
		if f.State == FindingOpen {
			return fmt.Errorf("%w: the finding is open already; next may be answer or close", registry.ErrState)
		}
		if due.Set() {
			if due <= t.Now() {
				return registry.Field("/due_at", "must lie in the future")
			}
			f.Due, f.Late = due, 0
		}
		f.State, f.ClosedNote = FindingOpen, note
		return nil
	})
}

func (d *Desk) judge(ctx context.Context, a registry.Actor, name, id, note string, m registry.Meta, change func(*registry.Tx, *Finding) error) (*registry.Case[Finding], bool, error) {
	if err := need(a, assessors); err != nil {
		return nil, false, err
	}
	if err := checkNote("/note", note, true); err != nil {
		return nil, false, err
	}
	o, err := d.do(ctx, a, name, m.Reason, func(t *registry.Tx) error {
		f, err := registry.ChangingCase[Finding](t, id, m)
		if err != nil {
			return err
		}
		switch {
		case f.State == FindingClosed:
			return fmt.Errorf("%w: the finding is closed, which is an end state; raise another", registry.ErrState)
		case f.AnsweredBy == a.Name:
			return fmt.Errorf("%w: whoever answered a finding cannot judge the answer", registry.ErrForbidden)
		}
		if err := change(t, &f); err != nil {
			return err
		}
		return registry.PutCase(t, id, f)
	})
	return done[Finding](o, err)
}

// Finding finds one that the actor may know of.
func (d *Desk) Finding(a registry.Actor, id string) (*registry.Case[Finding], error) {
	c, err := read[Finding](d, id)
	if err == nil && !a.MaySee(c.Body.Owner) {
		err = fmt.Errorf("%w: finding %s", registry.ErrNotFound, cut(id))
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}
