package control

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
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
	Endpoint string `json:"endpoint,omitempty" maxLength:"500" doc:"An address, https://…; default the one declared in the self-certification, whose host it must have where there is one."`
	JWKS     string `json:"jwks_url,omitempty" maxLength:"500" doc:"The address of the key set, https://…"`
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
	declared := casework.Endpoint(book, p.ID)
	switch {
	case in.Endpoint == "":
		in.Endpoint = declared
	case declared != "" && hostOf(in.Endpoint) != hostOf(declared):
		return answer{}, registry.Field("/endpoint", "is not on the host that was declared, %s", hostOf(declared))
	}
	results := s.prober.Probe(c.r.Context(), p, ProbeTargets{Endpoint: in.Endpoint, JWKS: in.JWKS})
	x, existing, err := d.File(c.r.Context(), c.actor, p.ID, in.Endpoint, results)
	return caseDone(x, existing, err, created, showCase)
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}
