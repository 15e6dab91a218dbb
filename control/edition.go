package control

import (
	"context"
	"errors"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/edition"
)

// editionRoutes are the versions of the catalogue and the terms.
func (s *server) editionRoutes() []route {
	const (
		editors   = registry.PermAssessor | registry.PermRegistrar
		onlookers = editors | registry.PermAuditor
	)
	return []route{
		get("/v1/editions", "list-editions", "Versions of the catalogue and of the terms, proposed and published.", s.listEditions).lists(editionView{}).by(onlookers).filters("of", "state").missing(),
		post("/v1/editions", "propose-edition", "Propose a version of the catalogue or of the terms; another person publishes it.", with(s, s.proposeEdition)).gives(editionView{}).by(editors).creating(),
		get("/v1/editions/{id}", "get-edition", "One version, with its documents and how far it has got.", s.getEdition).gives(editionView{}).by(onlookers),
		get("/v1/editions/{id}/affected", "list-affected", "Whom a version asks something of: every product or entity, with what is reopened and by when.", s.listAffected).listsPlain(casework.Affected{}).by(onlookers),
		post("/v1/editions/{id}/publish", "publish-edition", "Publish what somebody else proposed. It takes effect on its day by itself; those concerned are told.", with(s, s.publishEdition)).gives(editionView{}).by(editors).lenient(),
		post("/v1/editions/{id}/withdraw", "withdraw-edition", "Take a proposal back.", with(s, s.withdrawEdition)).gives(editionView{}).by(editors).lenient(),
	}
}

// editionView is a version; in a listing without its documents.
type editionView struct {
	edition.Edition
	Reach *reachView `json:"reach,omitempty"`
}

// reachView is how far a version has got to those it concerns.
type reachView struct {
	Phase     string        `json:"phase" enum:"announce,reopen,done"`
	Announced uint64        `json:"announced" doc:"Told before it took effect."`
	Reopened  uint64        `json:"reopened" doc:"Brought to this version."`
	Done      registry.Time `json:"done_at,omitempty"`
}

func viewEdition(book *registry.Casebook, x *registry.Case[edition.Edition], whole bool) record {
	v := editionView{Edition: x.Body}
	if !whole {
		v.Catalogue, v.Questionnaire, v.Terms = "", "", nil
	}
	if r, err := registry.CaseOf[casework.Reach](book, x.ID); err == nil {
		v.Reach = &reachView{Phase: r.Body.Phase, Announced: uint64(r.Body.Announced), Reopened: uint64(r.Body.Reopened), Done: r.Body.Done}
	}
	return record{v, x.Revision}
}

func (s *server) listEditions(c *call) (answer, error) {
	_, book, err := s.work()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, func(x *registry.Case[edition.Edition]) any { return viewEdition(book, x, false) }, "of", "state")
}

func (s *server) getEdition(c *call) (answer, error) {
	_, book, err := s.work()
	if err != nil {
		return answer{}, err
	}
	x, err := registry.CaseOf[edition.Edition](book, c.path("id"))
	return oneCase(x, err, func(x *registry.Case[edition.Edition]) any { return viewEdition(book, x, true) })
}

func (s *server) listAffected(c *call) (answer, error) {
	d, book, err := s.work()
	if err != nil {
		return answer{}, err
	}
	x, err := registry.CaseOf[edition.Edition](book, c.path("id"))
	if err != nil {
		return answer{}, err
	}
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	found, total, err := d.PreviewEdition(c.r.Context(), book, x, int((page-1)*limit), int(limit))
	if err != nil {
		return answer{}, err
	}
	out := make([]any, 0, len(found))
	for _, a := range found {
		out = append(out, a)
	}
	return answer{data: out, page: c.pageInfo(page, limit, uint64(total))}, nil
}

type editionBody struct {
	Of            edition.Of    `json:"of" enum:"catalogue,terms"`
	Catalogue     string        `json:"catalogue,omitempty" maxLength:"49152" doc:"The catalogue as a YAML document; it says its version, its day and its grace."`
	Questionnaire string        `json:"questionnaire,omitempty" maxLength:"49152" doc:"The questionnaire that asks about it, as a YAML document."`
	Version       string        `json:"version,omitempty" maxLength:"32" doc:"Of terms."`
	Terms         string        `json:"terms,omitempty" maxLength:"20000"`
	Declaration   string        `json:"declaration,omitempty" maxLength:"4000"`
	Effective     registry.Time `json:"effective_at,omitempty" doc:"Of terms; left out: at once."`
	GraceDays     int           `json:"grace_days,omitempty" minimum:"0" maximum:"3650" doc:"Of terms: how long those who accepted earlier ones have."`
	Note          string        `json:"note,omitempty" maxLength:"500" doc:"What changes, for people."`
	Reason        string        `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) proposeEdition(c *call, in *editionBody) (answer, error) {
	e := edition.Edition{Of: in.Of, Version: in.Version, Note: in.Note, Catalogue: in.Catalogue, Questionnaire: in.Questionnaire, Effective: in.Effective, GraceDays: in.GraceDays}
	if in.Of == edition.TermsOf {
		e.Terms = &edition.Terms{Version: in.Version, Terms: in.Terms, Declaration: in.Declaration}
	}
	return s.editionCommand(c, in.Reason, created, func(ctx context.Context, d *casework.Desk, m registry.Meta) (registry.Outcome, error) {
		return d.ProposeEdition(ctx, c.actor, e, m)
	})
}

func (s *server) publishEdition(c *call, in *reasonBody) (answer, error) {
	return s.editionCommand(c, in.Reason, found, func(ctx context.Context, d *casework.Desk, m registry.Meta) (registry.Outcome, error) {
		return d.PublishEdition(ctx, c.actor, c.path("id"), m)
	})
}

func (s *server) withdrawEdition(c *call, in *reasonBody) (answer, error) {
	return s.editionCommand(c, in.Reason, found, func(ctx context.Context, d *casework.Desk, m registry.Meta) (registry.Outcome, error) {
		return d.WithdrawEdition(ctx, c.actor, c.path("id"), m)
	})
}

func (s *server) editionCommand(c *call, reason string, done outcome, do func(ctx context.Context, d *casework.Desk, m registry.Meta) (registry.Outcome, error)) (answer, error) {
	d, _, err := s.work()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(reason)
	if err != nil {
		return answer{}, err
	}
	o, err := do(c.r.Context(), d, m)
	if o.Cases == nil {
		return answer{}, err
	}
	x, cerr := registry.CaseOf[edition.Edition](o.Cases, o.ID)
	return caseDone(x, o.Existing, errors.Join(err, cerr), done, func(x *registry.Case[edition.Edition]) any { return viewEdition(o.Cases, x, true) })
}

type acceptTermsBody struct {
	Terms  string `json:"terms_version" minLength:"1" maxLength:"40" doc:"The version accepted; it must be the one in force."`
	Name   string `json:"name" minLength:"1" maxLength:"200" doc:"Who accepts and declares."`
	Reason string `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) acceptTerms(c *call, in *acceptTermsBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.AcceptTerms(ctx, c.actor, abn, casework.Acceptance{Version: in.Terms, Name: in.Name}, m)
	})
}
