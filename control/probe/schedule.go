package probe

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
)

// Scheduler checks every live product again and again, one after the other, so
// that compliance is looked at continuously and not once.
type Scheduler struct {
	Register *registry.Register
	Desk     *assurance.Desk
	Prober   *Prober
	// Every is how often a product is checked. 0 checks nothing.
	Every time.Duration
	Log   *slog.Logger

	checked map[string]registry.Time // by product; owned by Run
}

// refileAfter is after how long a report is filed although it found what the one
// before found: evidence must not grow old, and casework must not grow without
// end.
const refileAfter = 30 * 24 * time.Hour

// Actor is in whose name scheduled checks are filed.
func Actor() registry.Actor {
	return registry.Actor{Name: "automated checks", Permissions: registry.PermAssessor}
}

// Run checks until ctx ends, while this control plane is the writer.
func (s *Scheduler) Run(ctx context.Context) {
	if s.Every <= 0 {
		return
	}
	s.checked = map[string]registry.Time{}
	tick := time.NewTicker(max(s.Every/24, time.Second))
	defer tick.Stop()
	for {
		s.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// round checks what is due once.
func (s *Scheduler) round(ctx context.Context) {
	book, err := s.Register.Casebook()
	if err != nil || !s.Register.Writing() {
		return
	}
	for _, e := range book.View.Products() {
		p := &e.Value
		if ctx.Err() != nil {
			return
		}
		switch p.Certification.State {
		case registry.CertDraft, registry.CertDelisted:
			continue
		}
		endpoint := casework.Endpoint(book, p.ID)
		if endpoint == "" || !s.due(book, p.ID) {
			continue
		}
		results := s.Prober.Probe(ctx, p, control.ProbeTargets{Endpoint: endpoint})
		if ctx.Err() != nil {
			return
		}
		s.checked[p.ID] = s.Register.Now()
		last, err := assurance.NewestReport(book, p.ID)
		if err != nil || last != nil && slices.Equal(last.Results, results) && s.Register.Now()-last.At < registry.Time(refileAfter.Milliseconds()) {
			continue
		}
		if _, _, err := s.Desk.File(ctx, Actor(), p.ID, endpoint, results); err != nil {
			s.Log.WarnContext(ctx, "report of automated checks not filed", "product", p.ID, "err", err)
		}
	}
}

// due tells whether a product was not checked for long enough.
func (s *Scheduler) due(book *registry.Casebook, product string) bool {
	at, here := s.checked[product]
	if !here {
		if last, err := assurance.NewestReport(book, product); err == nil && last != nil {
			at = last.At
		}
	}
	return s.Register.Now()-at >= registry.Time(s.Every.Milliseconds())
}
