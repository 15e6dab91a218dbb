package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
)

// certificationView is a product's certification, with its case.
type certificationView struct {
	ProductID     string                 `json:"product_id"`
	Name          string                 `json:"name"`
	Certification registry.Certification `json:"certification" doc:"As it is enforced."`
	Next          []string               `json:"allowed_next" doc:"The commands that you may give now."`
	Case          casework.Certification `json:"case"`
}

func viewCertification(c *call, v *registry.View, x *registry.Case[casework.Certification]) certificationView {
	out := certificationView{ProductID: x.ID, Case: x.Body, Next: []string{}}
	if p := v.Product(x.ID); p != nil {
		out.Name, out.Certification = p.Name, p.Certification
		out.Next = casework.NextForProduct(c.actor, p.Certification.State, c.actor.Has(registry.PermDeveloper) && c.actor.Entity == p.Owner)
	}
	return out
}

// productCommand gives one command to the certification that the path names.
func (s *server) productCommand(c *call, reason string, do func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error)) (answer, error) {
	d, _, err := s.work()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(reason)
	if err != nil {
		return answer{}, err
	}
	id := c.path("id")
	o, err := do(c.r.Context(), d, id, m)
	if o.Cases == nil {
		return answer{}, err
	}
	x, cerr := registry.CaseOf[casework.Certification](o.Cases, id)
	if cerr != nil {
		return answer{}, errors.Join(err, cerr)
	}
	a := answer{data: viewCertification(c, o.View, x), rev: x.Revision}
	if err != nil {
		return answer{}, &committedError{a.data, err}
	}
	return a, nil
}

func (s *server) listCertifications(c *call) (answer, error) {
	_, book, err := s.work()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, func(x *registry.Case[casework.Certification]) any { return viewCertification(c, book.View, x) })
}

// certificationCase finds the case of the product that the path names; an empty
// one when there is none.
func (s *server) certificationCase(c *call) (*casework.Desk, *registry.Casebook, *registry.Product, *registry.Case[casework.Certification], error) {
	d, book, err := s.work()
	if err != nil {
		return nil, nil, nil, nil, err
	}
	p := book.View.Product(c.path("id"))
	if p == nil {
		return nil, nil, nil, nil, notFound(registry.KindProduct, c.path("id"))
	}
	x, err := casework.CertificationOf(book, p)
	return d, book, p, x, err
}

func (s *server) getCertificationCase(c *call) (answer, error) {
	_, book, _, x, err := s.certificationCase(c)
	if err != nil {
		return answer{}, err
	}
	return answer{data: viewCertification(c, book.View, x), rev: x.Revision}, nil
}

func (s *server) questions(c *call) (answer, error) {
	d, book, p, x, err := s.certificationCase(c)
	if err != nil {
		return answer{}, err
	}
	m, _, err := d.Marking(book, &x.Body, p, c.at.Std())
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", registry.ErrState, err)
	}
	return answer{data: viewMarking(m)}, nil
}

func (s *server) begin(c *call, in *reasonBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Begin(ctx, c.actor, id, m)
	})
}

func (s *server) describe(c *call, in *casework.Deployment) (answer, error) {
	return s.productCommand(c, "", func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Describe(ctx, c.actor, id, *in, m)
	})
}

type answersBody struct {
	Answers map[string]answerBody `json:"answers" doc:"By the question's ID."`
}

type answerBody struct {
	Values   []string `json:"values" maxItems:"32"`
	Evidence []string `json:"evidence,omitempty" maxItems:"16" doc:"Content addresses of evidence of this product."`
	Note     string   `json:"note,omitempty" maxLength:"1000"`
}

func (s *server) answerQuestions(c *call, in *answersBody) (answer, error) {
	answers := map[string]certification.Answer{}
	for id, a := range in.Answers {
		answers[id] = certification.Answer{Values: a.Values, Evidence: a.Evidence, Note: a.Note}
	}
	return s.productCommand(c, "", func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Answer(ctx, c.actor, id, answers, m)
	})
}

type exceptionBody struct {
	Requirement string        `json:"requirement" minLength:"1" maxLength:"32"`
	Control     string        `json:"compensating_control" minLength:"1" maxLength:"1000" doc:"What does instead what the requirement is for."`
	Expires     registry.Time `json:"expires_at" doc:"In 12 months at most."`
	Reason      string        `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) requestException(c *call, in *exceptionBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.RequestException(ctx, c.actor, id, certification.Exception{Requirement: in.Requirement, Control: in.Control, Expires: in.Expires.Std()}, m)
	})
}

type exceptionApproval struct {
	Requirement string `json:"requirement" minLength:"1" maxLength:"32"`
	Reason      string `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) approveException(c *call, in *exceptionApproval) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.ApproveException(ctx, c.actor, id, in.Requirement, m)
	})
}

type signBody struct {
	Name     string `json:"name" minLength:"1" maxLength:"200" doc:"Who declares that it is true."`
	Position string `json:"position,omitempty" maxLength:"200"`
	Reason   string `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) submitCertification(c *call, in *signBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.SubmitCert(ctx, c.actor, id, casework.Declaration{Name: in.Name, Position: in.Position}, m)
	})
}

func (s *server) recall(c *call, in *reasonBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Recall(ctx, c.actor, id, m)
	})
}

func (s *server) sendBack(c *call, in *whyBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.SendBack(ctx, c.actor, id, m)
	})
}

type startBody struct {
	Requirements []string `json:"requirements,omitempty" maxItems:"64" doc:"Left out: all that apply."`
	Reason       string   `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) startVerification(c *call, in *startBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.StartVerification(ctx, c.actor, id, in.Requirements, m)
	})
}

type runBody struct {
	Decisions []string `json:"decisions" minItems:"1" maxItems:"200" doc:"The decision of each call, as in its x-dsp-decision-id."`
	Reason    string   `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) conform(c *call, in *runBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Conform(ctx, c.actor, id, in.Decisions, m)
	})
}

func (s *server) passScenario(c *call, in *runBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.PassScenario(ctx, c.actor, id, in.Decisions, m)
	})
}

type servicesBody struct {
	Services []string `json:"services,omitempty" maxItems:"100" doc:"Service keys."`
	Reason   string   `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) approveHighRisk(c *call, in *servicesBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.ApproveHighRisk(ctx, c.actor, id, in.Services, m)
	})
}

func (s *server) approve(c *call, in *servicesBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Whitelist(ctx, c.actor, id, in.Services, m)
	})
}

type pilotBody struct {
	Clients  []registry.ABN `json:"named_clients" minItems:"1" maxItems:"5"`
	Services []string       `json:"services,omitempty" maxItems:"100" doc:"Left out: all that were declared."`
	Until    registry.Time  `json:"until,omitempty" doc:"Left out: in 28 days, the most there is."`
	Reason   string         `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) pilot(c *call, in *pilotBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Pilot(ctx, c.actor, id, casework.PilotTerms{Clients: in.Clients, Services: in.Services, Until: in.Until}, m)
	})
}

type interimBody struct {
	Basis    string   `json:"basis" enum:"grandfathered,conditional"`
	Owed     []string `json:"owed" minItems:"1" maxItems:"64" doc:"Requirements that are still to be shown."`
	Services []string `json:"services,omitempty" maxItems:"100" doc:"Left out: those of the pilot."`
	Reason   string   `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) interim(c *call, in *interimBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Interim(ctx, c.actor, id, casework.InterimTerms{Basis: in.Basis, Owed: in.Owed}, in.Services, m)
	})
}

type restrictBody struct {
	MaxRisk uint8    `json:"max_risk,omitempty" maximum:"3" doc:"The highest risk rating left."`
	Remove  []string `json:"remove,omitempty" maxItems:"100" doc:"Services to take away."`
	Reason  string   `json:"reason" minLength:"1" maxLength:"200" doc:"Why; kept, and told to the owner."`
}

func (s *server) restrict(c *call, in *restrictBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Restrict(ctx, c.actor, id, registry.Risk(in.MaxRisk), in.Remove, m)
	})
}

func (s *server) requestReview(c *call, in *whyBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.RequestReview(ctx, c.actor, id, m)
	})
}

func (s *server) answerCertReview(c *call, in *noteBody) (answer, error) {
	return s.productCommand(c, "", func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.AnswerCertReview(ctx, c.actor, id, in.Note, m)
	})
}

func (s *server) tellCertChange(c *call, in *casework.Deployment) (answer, error) {
	return s.productCommand(c, "", func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.TellCertChange(ctx, c.actor, id, *in, m)
	})
}

type announceBody struct {
	Effective registry.Time `json:"effective_at,omitempty" doc:"Left out: in 28 days."`
	Reason    string        `json:"reason" minLength:"1" maxLength:"200" doc:"Why; kept, and told to the owner."`
}

func (s *server) announceSuspension(c *call, in *announceBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Announce(ctx, c.actor, id, in.Effective, m)
	})
}

func (s *server) reinstate(c *call, in *reasonBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Reinstate(ctx, c.actor, id, m)
	})
}

func (s *server) delist(c *call, in *whyBody) (answer, error) {
	return s.productCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Delist(ctx, c.actor, id, m)
	})
}
