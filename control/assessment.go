package control

import (
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
)

// assessmentView is a product that waits for an assessor.
type assessmentView struct {
	ProductID    string                    `json:"product_id"`
	Name         string                    `json:"name"`
	Owner        registry.ABN              `json:"owner"`
	OwnerName    string                    `json:"owner_name"`
	State        registry.CertState        `json:"state"`
	Category     registry.Category         `json:"category,omitempty"`
	Basis        certification.Basis       `json:"verification_basis,omitempty" doc:"Why it is to be verified; left out: nothing selected it."`
	Verification string                    `json:"verification_id,omitempty" doc:"The one that is open."`
	Due          registry.Time             `json:"due_at,omitempty" doc:"When the agency's clock runs out."`
	Risk         certification.RiskProfile `json:"risk" doc:"Each contribution shown."`
}

// listAssessments is the assessors' queue: the riskiest first.
func (s *server) listAssessments(c *call) (answer, error) {
	d, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	state, _, err := filterText[registry.CertState](c, "state")
	if err != nil {
		return answer{}, err
	}
	_, byState := c.filter("state")
	all, err := d.Waiting(c.r.Context(), book)
	if err != nil {
		return answer{}, err
	}
	keep := func(w assurance.Waiting) bool { return !byState || w.Product.Certification.State == state }
	return paged(c, all, keep, func(w assurance.Waiting) any { return viewAssessment(book, &w) })
}

func viewAssessment(book *registry.Casebook, w *assurance.Waiting) assessmentView {
	p := w.Product
	v := assessmentView{ProductID: p.ID, Name: p.Name, Owner: p.Owner, State: p.Certification.State, Category: p.Category, Verification: w.Verification, Risk: *w.Risk}
	if e := book.View.Entity(p.Owner); e != nil {
		v.OwnerName = e.Name
	}
	if x, err := registry.CaseOf[casework.Certification](book, p.ID); err == nil {
		v.Basis = x.Body.Basis
		v.Due = x.Body.Waits("agency")
	}
	return v
}
