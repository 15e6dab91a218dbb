package assurance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// Report is what the automated checks found of one product, at one time.
type Report struct {
	ID        string        `json:"id"` // RP-<revision>
	ProductID string        `json:"product_id"`
	Owner     registry.ABN  `json:"owner"`
	Target    string        `json:"target"` // the declared address, "" for checks without one
	At        registry.Time `json:"at"`
	By        string        `json:"by"` // who asked, or the schedule
	Results   []Result      `json:"results"`
	// Evidence is the piece that the report itself became.
	Evidence string `json:"evidence_id,omitempty"`
	// Findings are those that it made.
	Findings []string `json:"findings,omitempty"`
}

// Result is the outcome of one automated check.
type Result struct {
	Check       string `json:"check"` // tls-1.3, certificate, jwks, security-txt, release-cadence
	Requirement string `json:"requirement"`
	Outcome     string `json:"outcome"` // pass, warn, fail, unknown
	Say         string `json:"say"`
}

// CaseKind implements registry.CaseBody.
func (Report) CaseKind() registry.CaseKind { return "report" }

// CaseKeys implements registry.CaseIndexer.
func (r Report) CaseKeys(add func(index, value string)) {
	add("product_id", r.ProductID)
	add("owner", r.Owner.String())
	add("at", r.At.String())
}

// File records what the automated checks found: the report becomes evidence for
// the requirements that it shows to be met, and each fail a finding, unless one
// of the same requirement by a check is open already. A check that could not be
// made is unknown, and neither.
func (d *Desk) File(ctx context.Context, a registry.Actor, productID, target string, results []Result) (*registry.Case[Report], bool, error) {
	if err := need(a, assessors); err != nil {
		return nil, false, err
	}
	doc, err := json.MarshalIndent(map[string]any{"product_id": productID, "target": target, "at": registry.At(d.now()), "results": results}, "", " ")
	if err != nil {
		return nil, false, err
	}
	kept, err := d.files.Keep(ctx, func(w io.Writer) (certification.Evidence, error) { return document(w, doc) })
	if err != nil {
		return nil, false, err
	}
	o, err := d.do(ctx, a, "report.file", "", func(t *registry.Tx) error {
		p := t.View().Product(productID)
		if p == nil {
			return fmt.Errorf("%w: there is no product %s", registry.ErrNotFound, cut(productID))
		}
		r := Report{ID: newID("RP", t, 0), ProductID: p.ID, Owner: p.Owner, Target: target, At: t.Now(), By: a.Name, Results: results}
		e := Evidence{
			ID: newID("EV", t, 0), ProductID: p.ID, Entity: p.Owner, Type: certification.ScanReport, Address: kept.Address, Media: kept.Media, Bytes: uint64(kept.Bytes),
			Requirements: []string{}, Note: "Automated check.", Issued: t.Now(), By: a.Name, At: t.Now(),
		}
		for _, x := range results {
			if x.Outcome == "pass" && !slices.Contains(e.Requirements, x.Requirement) {
				e.Requirements = append(e.Requirements, x.Requirement)
			}
		}
		r.Evidence = e.ID
		if err := registry.CreateCase(t, e.ID, e); err != nil {
			return err
		}
		for _, x := range results {
			if x.Outcome != "fail" {
				continue
			}
			id, err := d.fromCheck(t, &r, x)
			if err != nil {
				return err
			}
			if id != "" {
				r.Findings = append(r.Findings, id)
			}
		}
		return registry.CreateCase(t, r.ID, r)
	})
	return done[Report](o, err)
}

// fromCheck makes a finding of a failed check; "" when one is open already.
func (d *Desk) fromCheck(t *registry.Tx, r *Report, x Result) (string, error) {
	book, err := t.Casebook()
	if err != nil {
		return "", err
	}
	open, err := each[Finding](book, registry.Where{Index: "product_id", Value: r.ProductID}, registry.Where{Index: "requirement", Value: x.Requirement})
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(open, func(f registry.Case[Finding]) bool { return f.Body.State != FindingClosed && f.Body.Report != "" }) {
		return "", nil
	}
	return d.raise(t, r.ProductID, "", Raise{Requirement: x.Requirement, Text: "Automated check " + x.Check + ": " + x.Say, Report: r.ID}, len(r.Findings))
}

// Report finds one that the actor may know of.
func (d *Desk) Report(a registry.Actor, id string) (*registry.Case[Report], error) {
	c, err := read[Report](d, id)
	if err == nil && !a.MaySee(c.Body.Owner) {
		err = fmt.Errorf("%w: report %s", registry.ErrNotFound, cut(id))
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// NewestReport is the last report of a product; nil when there is none.
func NewestReport(book *registry.Casebook, productID string) (*Report, error) {
	all, err := each[Report](book, registry.Where{Index: "product_id", Value: productID})
	var newest *Report
	for i := range all {
		if r := &all[i].Body; newest == nil || r.At > newest.At {
			newest = r
		}
	}
	return newest, err
}
