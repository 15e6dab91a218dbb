package assurance

import (
	"context"
	"fmt"
	"slices"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// Verification is an assessor's look at named requirements of one product.
type Verification struct {
	ID        string              `json:"id"` // VR-<revision>, or VR-<period>-<product> when it was selected
	ProductID string              `json:"product_id"`
	Owner     registry.ABN        `json:"owner"`
	Basis     certification.Basis `json:"basis"` // why it was opened
	Period    string              `json:"period,omitempty"`
	Opened    registry.Time       `json:"opened_at"`
	OpenedBy  string              `json:"opened_by"`
	Tests     []Test              `json:"tests"` // one for each requirement
	// Risk is the profile as it was when the verification was opened.
	Risk     certification.RiskProfile `json:"risk"`
	Closed   registry.Time             `json:"closed_at,omitempty"`
	ClosedBy string                    `json:"closed_by,omitempty"`
	Summary  string                    `json:"summary,omitempty"`
}

// Test is what was done about one requirement, and what came of it.
type Test struct {
	Requirement string        `json:"requirement"`
	Method      string        `json:"method,omitempty"`  // control-tested, documents-read, automated
	Outcome     string        `json:"outcome,omitempty"` // pass, fail, "" not done yet
	Note        string        `json:"note,omitempty"`
	Evidence    []string      `json:"evidence,omitempty"` // IDs
	By          string        `json:"by,omitempty"`
	At          registry.Time `json:"at,omitempty"`
	Finding     string        `json:"finding,omitempty"` // that a fail made
}

// OpenIndex is the index of verifications that are open, by their Product ID.
const OpenIndex = "open_product"

// CaseKind implements registry.CaseBody.
func (Verification) CaseKind() registry.CaseKind { return "verification" }

// CaseKeys implements registry.CaseIndexer.
func (v Verification) CaseKeys(add func(index, value string)) {
	add("product_id", v.ProductID)
	add("owner", v.Owner.String())
	add("state", v.State())
	if v.State() == "open" {
		add(OpenIndex, v.ProductID)
	}
	if v.Period != "" {
		add("period", v.Period)
	}
}

// State is open or closed.
func (v Verification) State() string {
	if v.Closed.Set() {
		return "closed"
	}
	return "open"
}

// Failed tells whether a test failed.
func (v *Verification) Failed() bool {
	return slices.ContainsFunc(v.Tests, func(t Test) bool { return t.Outcome == "fail" })
}

const (
	adHoc       certification.Basis = "ad hoc"
	methodsText string              = "control-tested, documents-read or automated"
	noteMax     int                 = 1000
)

// OpenVerification opens one that nobody drew. Requirements empty takes all that
// apply to the product. Assessor.
func (d *Desk) OpenVerification(ctx context.Context, a registry.Actor, productID string, requirements []string, basis certification.Basis, reason string) (*registry.Case[Verification], bool, error) {
	if err := need(a, assessors); err != nil {
		return nil, false, err
	}
	if basis == "" {
		basis = adHoc
	}
	if !slices.Contains([]certification.Basis{adHoc, certification.ByIncident, certification.ByCategory, certification.ByFirstTime}, basis) {
		return nil, false, registry.Field("/basis", "%q; use ad hoc, high incident, category A or first-time registrant", cut(string(basis)))
	}
	o, err := d.do(ctx, a, "verification.open", reason, func(t *registry.Tx) error {
		return d.openVerification(t, newID("VR", t, 0), productID, requirements, basis, "")
	})
	return done[Verification](o, err)
}

// PlanVerification opens a verification as part of another command's change. The
// ID comes back.
func (d *Desk) PlanVerification(t *registry.Tx, productID string, requirements []string, basis certification.Basis) (string, error) {
	id := newID("VR", t, 0)
	return id, d.openVerification(t, id, productID, requirements, basis, "")
}

func (d *Desk) openVerification(t *registry.Tx, id, productID string, requirements []string, basis certification.Basis, period string) error {
	book, err := t.Casebook()
	if err != nil {
		return err
	}
	p := t.View().Product(productID)
	if p == nil {
		return fmt.Errorf("%w: there is no product %s", registry.ErrNotFound, cut(productID))
	}
	if p.Certification.State == registry.CertDelisted {
		return fmt.Errorf("%w: the product is Delisted, which is an end state", registry.ErrState)
	}
	risk, err := d.RiskProfile(book, p)
	if err != nil {
		return err
	}
	tests, err := d.tests(book, p, requirements)
	if err != nil {
		return err
	}
	v := Verification{
		ID: id, ProductID: p.ID, Owner: p.Owner, Basis: basis, Period: period, Opened: t.Now(), OpenedBy: t.Actor().Name, Risk: *risk, Tests: tests,
	}
	return registry.CreateCase(t, id, v)
}

// tests names the requirements to look at: those asked for, else all that apply.
func (d *Desk) tests(book *registry.Casebook, p *registry.Product, wanted []string) ([]Test, error) {
	bound := d.Requirements(book, p)
	out := []Test{}
	if len(wanted) == 0 {
		for _, a := range bound.Applicable {
			if a.Subject == certification.OfProduct {
				out = append(out, Test{Requirement: a.ID})
			}
		}
		return out, nil
	}
	for i, id := range wanted {
		at := fmt.Sprintf("/requirements/%d", i)
		if !slices.ContainsFunc(bound.Applicable, func(a certification.Applicable) bool { return a.ID == id }) {
			return nil, registry.Field(at, "%q does not apply to %s by catalogue %s", cut(id), p.ID, bound.Catalogue)
		}
		if slices.Contains(wanted[:i], id) {
			return nil, registry.Field(at, "stands twice")
		}
		out = append(out, Test{Requirement: id})
	}
	return out, nil
}

// TestResult is what came of looking at one requirement.
type TestResult struct {
	Requirement string
	Method      string
	Outcome     string
	Note        string
	Evidence    []string
	// Finding, for a fail: what the developer is told, how bad it is, and by when
	// it must be mended.
	Finding  string
	Severity string
	Due      registry.Time
}

// RecordTest notes what came of one test; a fail makes a finding with a due
// date, in the same step. Assessor.
func (d *Desk) RecordTest(ctx context.Context, a registry.Actor, id string, r TestResult, m registry.Meta) (*registry.Case[Verification], bool, error) {
	if err := need(a, assessors); err != nil {
		return nil, false, err
	}
	if err := r.check(); err != nil {
		return nil, false, err
	}
	o, err := d.do(ctx, a, "verification.test", m.Reason, func(t *registry.Tx) error {
		v, err := registry.ChangingCase[Verification](t, id, m)
		if err != nil {
			return err
		}
		if v.Closed.Set() {
			return fmt.Errorf("%w: the verification is closed, which is an end state; open another", registry.ErrState)
		}
		i := slices.IndexFunc(v.Tests, func(x Test) bool { return x.Requirement == r.Requirement })
		if i < 0 {
			return registry.Field("/requirement", "%q is not part of this verification", cut(r.Requirement))
		}
		if v.Tests[i].Finding != "" {
			return fmt.Errorf("%w: this test made finding %s; close that instead", registry.ErrState, v.Tests[i].Finding)
		}
		if err := d.checkProofs(t, v.ProductID, r.Evidence); err != nil {
			return err
		}
		v.Tests = slices.Clone(v.Tests)
		v.Tests[i] = Test{Requirement: r.Requirement, Method: r.Method, Outcome: r.Outcome, Note: r.Note, Evidence: r.Evidence, By: a.Name, At: t.Now()}
		if r.Outcome == "fail" {
			f, err := d.raise(t, v.ProductID, v.ID, Raise{Requirement: r.Requirement, Text: r.Finding, Severity: r.Severity, Due: r.Due}, 0)
			if err != nil {
				return err
			}
			v.Tests[i].Finding = f
		}
		return registry.PutCase(t, id, v)
	})
	return done[Verification](o, err)
}

func (r *TestResult) check() error {
	switch {
	case !slices.Contains([]string{"control-tested", "documents-read", "automated"}, r.Method):
		return registry.Field("/method", "%q; use %s", cut(r.Method), methodsText)
	case r.Outcome != "pass" && r.Outcome != "fail":
		return registry.Field("/outcome", "%q; use pass or fail", cut(r.Outcome))
	case r.Outcome == "pass" && r.Finding != "":
		return registry.Field("/finding", "a test that passes makes no finding; leave it out")
	case len(r.Evidence) > evidenceRequiresMax:
		return registry.Field("/evidence", "at most %d", evidenceRequiresMax)
	}
	return checkNote("/note", r.Note, false)
}

func (d *Desk) checkProofs(t *registry.Tx, productID string, ids []string) error {
	for i, id := range ids {
		e, err := registry.TxCase[Evidence](t, id)
		if err != nil || e.Body.ProductID != productID {
			return registry.Field(fmt.Sprintf("/evidence/%d", i), "%q is no evidence of this product", cut(id))
		}
	}
	return nil
}

// CloseVerification ends one whose tests are all done. Assessor.
func (d *Desk) CloseVerification(ctx context.Context, a registry.Actor, id, summary string, m registry.Meta) (*registry.Case[Verification], bool, error) {
	if err := need(a, assessors); err != nil {
		return nil, false, err
	}
	if err := checkNote("/summary", summary, true); err != nil {
		return nil, false, err
	}
	o, err := d.do(ctx, a, "verification.close", m.Reason, func(t *registry.Tx) error {
		v, err := registry.ChangingCase[Verification](t, id, m)
		if err != nil {
			return err
		}
		if v.Closed.Set() {
			return fmt.Errorf("%w: the verification is closed, which is an end state; open another", registry.ErrState)
		}
		for _, x := range v.Tests {
			if x.Outcome == "" {
				return fmt.Errorf("%w: %s was not looked at yet; record what came of it first", registry.ErrState, x.Requirement)
			}
		}
		v.Closed, v.ClosedBy, v.Summary = t.Now(), a.Name, summary
		return registry.PutCase(t, id, v)
	})
	return done[Verification](o, err)
}

// Verification finds one that the actor may know of.
func (d *Desk) Verification(a registry.Actor, id string) (*registry.Case[Verification], error) {
	c, err := read[Verification](d, id)
	if err == nil && !a.MaySee(c.Body.Owner) {
		err = fmt.Errorf("%w: verification %s", registry.ErrNotFound, cut(id))
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// checkNote bounds a text of an assessor or developer, which is kept for good.
func checkNote(pointer, s string, needed bool) error {
	switch {
	case needed && s == "":
		return registry.Field(pointer, "must be given")
	case len(s) > noteMax:
		return registry.Field(pointer, "has %d bytes; at most %d", len(s), noteMax)
	case registry.HoldsTFN(s):
		return registry.Field(pointer, "holds what looks like a tax file number; leave it out")
	}
	return nil
}
