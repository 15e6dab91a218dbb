package control

import (
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
)

// drawView is a draw without its seed, which is in the published document.
type drawView struct {
	Period     string        `json:"period"`
	Commitment string        `json:"commitment" doc:"SHA-256 of the seed, published before the list was known."`
	Committed  registry.Time `json:"committed_at"`
	Drawn      registry.Time `json:"drawn_at,omitempty"`
	Candidates uint64        `json:"candidates,omitempty"`
	Selected   uint64        `json:"selected,omitempty"`
	Document   string        `json:"document,omitempty" doc:"The content address of the published document."`
	Opened     bool          `json:"verifications_opened"`
}

// showDraw names no person: draws are public.
func showDraw(x *registry.Case[assurance.DrawCase]) any {
	b := &x.Body
	v := drawView{Period: b.Period, Commitment: b.Commitment, Committed: b.Committed, Drawn: b.Drawn, Candidates: uint64(b.Candidates), Document: b.Address, Opened: b.Opened}
	for _, n := range b.Selected {
		v.Selected += uint64(n)
	}
	return v
}

func showDrawRecord(x *registry.Case[assurance.DrawCase]) any { return record{showDraw(x), x.Revision} }

type drawBody struct {
	Period string `json:"period" pattern:"^[0-9]{4}(-[A-Z0-9]{1,8})?$" doc:"The year, such as 2026, or a part of it, such as 2026-Q3."`
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) listDraws(c *call) (answer, error) {
	_, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	ids, total := book.Find(registry.Query{Kind: "draw", Offset: int((page - 1) * limit), Limit: int(limit)})
	return caseList(c, book, ids, total, page, limit, showDraw)
}

func (s *server) getDraw(c *call) (answer, error) {
	_, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, err := registry.CaseOf[assurance.DrawCase](book, c.path("period"))
	if err != nil {
		return answer{}, err
	}
	return answer{data: showDraw(x)}, nil
}

func (s *server) drawDocument(c *call) (answer, error) {
	d, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, err := registry.CaseOf[assurance.DrawCase](book, c.path("period"))
	if err != nil {
		return answer{}, err
	}
	f, err := d.PublishedFile(c.r.Context(), x)
	if err != nil {
		return answer{}, err
	}
	defer f.Close()
	c.download("application/json", "draw-"+x.ID+".json", x.Body.Address, f)
	return answer{}, nil
}

func (s *server) commitDraw(c *call, in *drawBody) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, existing, err := d.CommitDraw(c.r.Context(), c.actor, in.Period, in.Reason)
	return caseDone(x, existing, err, created, showDrawRecord)
}

func (s *server) draw(c *call, in *approveBody) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, existing, err := d.Draw(c.r.Context(), c.actor, c.path("period"), in.Reason)
	return caseDone(x, existing, err, found, showDrawRecord)
}
