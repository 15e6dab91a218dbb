package control

import (
	"context"
	"fmt"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
)

// Prober runs the automated checks of one product against the addresses given;
// control/probe is one.
type Prober interface {
	Probe(ctx context.Context, p *registry.Product, t ProbeTargets) []assurance.Result
}

// ProbeTargets are the addresses that a developer declared; "" for none.
type ProbeTargets struct {
	Endpoint string // https://host[:port]/…: TLS, certificate and security.txt
	JWKS     string // https URL of the product's key set
}

type checksBody struct {
	Endpoint string `json:"endpoint,omitempty" maxLength:"500" doc:"The declared address, https://…"`
	JWKS     string `json:"jwks_url,omitempty" maxLength:"500" doc:"The declared key set, https://…"`
	Reason   string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) listReports(c *call) (answer, error) {
	_, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, showCase[assurance.Report], "product_id")
}

func (s *server) getReport(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, err := d.Report(c.actor, c.path("id"))
	return oneCase(x, err, showCase)
}

// runChecks asks the prober and files what it found.
func (s *server) runChecks(c *call, in *checksBody) (answer, error) {
	d, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	if s.prober == nil {
		return answer{}, fmt.Errorf("%w: this control plane makes no automated checks", registry.ErrState)
	}
	p := book.View.Product(c.path("id"))
	if p == nil {
		return answer{}, notFound(registry.KindProduct, c.path("id"))
	}
	results := s.prober.Probe(c.r.Context(), p, ProbeTargets{Endpoint: in.Endpoint, JWKS: in.JWKS})
	x, existing, err := d.File(c.r.Context(), c.actor, p.ID, in.Endpoint, results)
	return caseDone(x, existing, err, created, showCase)
}
