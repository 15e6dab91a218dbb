package control

import (
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

type verificationBody struct {
	ProductID    string   `json:"product_id" minLength:"1" maxLength:"64"`
	Requirements []string `json:"requirements,omitempty" maxItems:"64" doc:"Default: all that apply to the product."`
	Basis        string   `json:"basis,omitempty" enum:"ad hoc,high incident,category A,first-time registrant" doc:"Default: ad hoc."`
	Reason       string   `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type testBody struct {
	Requirement string        `json:"requirement" minLength:"1" maxLength:"32"`
	Method      string        `json:"method" enum:"control-tested,documents-read,automated"`
	Outcome     string        `json:"outcome" enum:"pass,fail"`
	Note        string        `json:"note,omitempty" maxLength:"1000"`
	Evidence    []string      `json:"evidence,omitempty" maxItems:"32" doc:"IDs of evidence of this product."`
	Finding     string        `json:"finding,omitempty" maxLength:"1000" doc:"Of a fail: what the developer is told."`
	Severity    string        `json:"severity,omitempty" enum:"low,medium,high"`
	Due         registry.Time `json:"due_at,omitempty" doc:"Of a fail; default 7 days for high, 30 for medium, 90 for low."`
	Reason      string        `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type closeBody struct {
	Summary string `json:"summary" minLength:"1" maxLength:"1000"`
	Reason  string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) listVerifications(c *call) (answer, error) {
	_, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, showCase[assurance.Verification], "product_id", "state", "period")
}

func (s *server) getVerification(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, err := d.Verification(c.actor, c.path("id"))
	return oneCase(x, err, showCase)
}

func (s *server) openVerification(c *call, in *verificationBody) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, existing, err := d.OpenVerification(c.r.Context(), c.actor, in.ProductID, in.Requirements, certification.Basis(in.Basis), in.Reason)
	return caseDone(x, existing, err, created, showCase)
}

func (s *server) recordTest(c *call, in *testBody) (answer, error) {
	r := assurance.TestResult{
		Requirement: in.Requirement, Method: in.Method, Outcome: in.Outcome, Note: in.Note, Evidence: in.Evidence,
		Finding: in.Finding, Severity: in.Severity, Due: in.Due,
	}
	return onCase(s, c, in.Reason, func(d *assurance.Desk, id string, m registry.Meta) (*registry.Case[assurance.Verification], bool, error) {
		return d.RecordTest(c.r.Context(), c.actor, id, r, m)
	})
}

func (s *server) closeVerification(c *call, in *closeBody) (answer, error) {
	return onCase(s, c, in.Reason, func(d *assurance.Desk, id string, m registry.Meta) (*registry.Case[assurance.Verification], bool, error) {
		return d.CloseVerification(c.r.Context(), c.actor, id, in.Summary, m)
	})
}

type findingBody struct {
	ProductID   string        `json:"product_id" minLength:"1" maxLength:"64"`
	Requirement string        `json:"requirement" minLength:"1" maxLength:"32"`
	Finding     string        `json:"finding" minLength:"1" maxLength:"1000" doc:"What the developer is told."`
	Severity    string        `json:"severity,omitempty" enum:"low,medium,high" doc:"Default medium."`
	Due         registry.Time `json:"due_at,omitempty" doc:"Default 7 days for high, 30 for medium, 90 for low."`
	Reason      string        `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type findingAnswer struct {
	Response string   `json:"response" minLength:"1" maxLength:"1000"`
	Evidence []string `json:"evidence,omitempty" maxItems:"32" doc:"IDs of evidence of this product."`
	Reason   string   `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type findingJudgement struct {
	Note   string `json:"note" minLength:"1" maxLength:"1000"`
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type findingReopening struct {
	Note   string        `json:"note" minLength:"1" maxLength:"1000"`
	Due    registry.Time `json:"due_at,omitempty" doc:"Another due date."`
	Reason string        `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) listFindings(c *call) (answer, error) {
	_, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	overdue, by, err := c.filterBool("overdue")
	if err != nil {
		return answer{}, err
	}
	if !by {
		return cases(c, book, showCase[assurance.Finding], "product_id", "state", "severity")
	}
	return s.findingsByDue(c, book, overdue)
}

// findingsByDue lists what is past its due date, or not yet, the soonest first.
func (s *server) findingsByDue(c *call, book *registry.Casebook, overdue bool) (answer, error) {
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	now := (c.at + 1).String()
	q := registry.Query{Kind: "finding", Where: []registry.Where{{Index: "due_at"}}, To: now, Offset: int((page - 1) * limit), Limit: int(limit)}
	if !overdue {
		q.From, q.To = now, ""
	}
	if !c.actor.Staff() {
		q.Where = append(q.Where, registry.Where{Index: "owner", Value: c.actor.Entity.String()})
	} else if owner, ok, err := c.filterABN("owner"); err != nil {
		return answer{}, err
	} else if ok {
		q.Where = append(q.Where, registry.Where{Index: "owner", Value: owner.String()})
	}
	for _, name := range []string{"product_id", "state", "severity"} {
		v, ok, err := c.filterWord(name)
		if err != nil {
			return answer{}, err
		}
		if ok {
			q.Where = append(q.Where, registry.Where{Index: name, Value: v})
		}
	}
	ids, total := book.Find(q)
	return caseList(c, book, ids, total, page, limit, showCase[assurance.Finding])
}

func (s *server) getFinding(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, err := d.Finding(c.actor, c.path("id"))
	return oneCase(x, err, showCase)
}

func (s *server) raiseFinding(c *call, in *findingBody) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, existing, err := d.RaiseFinding(c.r.Context(), c.actor, in.ProductID, assurance.Raise{Requirement: in.Requirement, Text: in.Finding, Severity: in.Severity, Due: in.Due}, in.Reason)
	return caseDone(x, existing, err, created, showCase)
}

func (s *server) answerFinding(c *call, in *findingAnswer) (answer, error) {
	return onCase(s, c, in.Reason, func(d *assurance.Desk, id string, m registry.Meta) (*registry.Case[assurance.Finding], bool, error) {
		return d.AnswerFinding(c.r.Context(), c.actor, id, in.Response, in.Evidence, m)
	})
}

func (s *server) closeFinding(c *call, in *findingJudgement) (answer, error) {
	return onCase(s, c, in.Reason, func(d *assurance.Desk, id string, m registry.Meta) (*registry.Case[assurance.Finding], bool, error) {
		return d.CloseFinding(c.r.Context(), c.actor, id, in.Note, m)
	})
}

func (s *server) reopenFinding(c *call, in *findingReopening) (answer, error) {
	return onCase(s, c, in.Reason, func(d *assurance.Desk, id string, m registry.Meta) (*registry.Case[assurance.Finding], bool, error) {
		return d.ReopenFinding(c.r.Context(), c.actor, id, in.Note, in.Due, m)
	})
}
