package intake

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
)

// Importer enters lines into a register.
type Importer struct {
	reg  *registry.Register
	desk *casework.Desk
}

// New makes an Importer.
func New(reg *registry.Register, desk *casework.Desk) *Importer { return &Importer{reg, desk} }

// Outcome is what became of one line.
type Outcome string

// The outcomes.
const (
	Created   Outcome = "created"
	Updated   Outcome = "updated"
	Unchanged Outcome = "unchanged"
	Refused   Outcome = "refused"
)

// Report is what is told of one line.
type Report struct {
	Line      int     `json:"line"` // from 1 for the first product
	ProductID string  `json:"product_id,omitempty"`
	Outcome   Outcome `json:"outcome"`
	Pointer   string  `json:"pointer,omitempty"` // into the line
	Detail    string  `json:"detail,omitempty"`
}

// Summary counts what became of all lines.
type Summary struct {
	Lines  int             `json:"lines"`
	Counts map[Outcome]int `json:"counts"`
	DryRun bool            `json:"dry_run"`
}

// Options of an import.
type Options struct {
	Format   Format
	DryRun   bool
	FromLine int // earlier lines are passed over
	Reason   string
}

const (
	batchLines = 500
	// refusalsMax of one batch are found by planning it again without the line that
	// was refused; with more, each line is planned by itself.
	refusalsMax = 20
)

// run is one import on its way.
type run struct {
	*Importer
	ctx    context.Context
	actor  registry.Actor
	opt    Options
	seen   map[string]int // line of each product
	owners map[registry.ABN]parsed
}

// Run imports a file. report is told of every line, in their order, a batch at a
// time; its error ends the import. Registrar; lines that say whitelisted also
// need an assessor. What was entered before an error stays.
func (im *Importer) Run(ctx context.Context, a registry.Actor, file io.Reader, opt Options, report func([]Report) error) (Summary, error) {
	sum := Summary{Counts: map[Outcome]int{Created: 0, Updated: 0, Unchanged: 0, Refused: 0}, DryRun: opt.DryRun}
	if !a.Has(registry.PermRegistrar) {
		return sum, fmt.Errorf("%w: an import is for a registrar", registry.ErrForbidden)
	}
	lines, err := newReader(file, opt.Format)
	if err != nil {
		return sum, err
	}
	r := &run{Importer: im, ctx: ctx, actor: a, opt: opt, seen: map[string]int{}, owners: map[registry.ABN]parsed{}}
	for {
		batch, reports, broke := r.read(lines)
		if broke != nil && !errors.Is(broke, registry.ErrInvalid) || len(reports) == 0 {
			return sum, broke
		}
		if err := r.enter(batch, reports); err != nil {
			return sum, err
		}
		for _, x := range reports {
			sum.Lines++
			sum.Counts[x.Outcome]++
		}
		if err := report(reports); err != nil {
			return sum, err
		}
		if broke != nil { // what could be read is in
			return sum, broke
		}
	}
}

// entry is a line that can be entered, and where its report stands.
type entry struct {
	parsed
	at int
}

// read takes the next lines in; those that are wrong in themselves are refused. With
// an error that is ErrInvalid nothing more can be read of the file.
func (r *run) read(lines reader) (batch []entry, reports []Report, err error) {
	for len(reports) < batchLines {
		l, n, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		var bad *lineError
		if err != nil && !errors.As(err, &bad) {
			return batch, reports, err
		}
		if n < r.opt.FromLine {
			continue
		}
		var p parsed
		if err == nil {
			p, err = l.parse()
		}
		if err == nil {
			if first := r.seen[l.ProductID]; first != 0 {
				err = registry.Field("/product_id", "stands in line %d already", first)
			} else if l.ProductID != "" {
				r.seen[l.ProductID] = n
			}
		}
		reports = append(reports, Report{Line: n, ProductID: cut(l.ProductID)})
		if err != nil {
			refuse(&reports[len(reports)-1], err)
			continue
		}
		batch = append(batch, entry{p, len(reports) - 1})
	}
	return batch, reports, r.ctx.Err()
}

func refuse(x *Report, err error) {
	x.Outcome, x.Detail = Refused, err.Error()
	var f *registry.FieldError
	if errors.As(err, &f) {
		x.Pointer, x.Detail = f.Field, f.Err.Error()
	}
	for _, s := range []error{registry.ErrInvalid, registry.ErrState, registry.ErrForbidden} {
		x.Detail = strings.TrimPrefix(x.Detail, s.Error()+": ")
	}
}

// stop is a line that was refused while a batch was planned.
type stop struct {
	at  int // in the batch
	err error
}

func (s *stop) Error() string { return s.err.Error() }

// errDry ends the planning of a dry run: nothing is committed.
var errDry = errors.New("dry run")

// enter enters a batch: as one change, without the lines that the register
// refuses.
func (r *run) enter(batch []entry, reports []Report) error {
	refused := 0
	for len(batch) > 0 {
		part := batch
		if refused > refusalsMax {
			part = batch[:1]
		}
		outcomes, err := r.commit(part)
		var s *stop
		switch {
		case errors.As(err, &s):
			if !tellable(s.err) {
				return s.err
			}
			refuse(&reports[part[s.at].at], s.err)
			refused++
			batch = slices.Delete(slices.Clone(batch), s.at, s.at+1)
			continue
		case err != nil:
			return err
		}
		for i := range part {
			reports[part[i].at].Outcome = outcomes[i]
			r.owners[part[i].owner] = part[i].parsed
		}
		batch = batch[len(part):]
	}
	return nil
}

// tellable tells whether an error is about the line, and not about the store.
func tellable(err error) bool {
	return errors.Is(err, registry.ErrInvalid) || errors.Is(err, registry.ErrState) || errors.Is(err, registry.ErrForbidden)
}

func (r *run) commit(batch []entry) ([]Outcome, error) {
	var outcomes []Outcome
	_, err := r.reg.Do(r.ctx, r.actor, "import", r.opt.Reason, func(t *registry.Tx) error {
		outcomes = make([]Outcome, len(batch))
		put := map[registry.ABN]bool{}
		if r.opt.DryRun { // what earlier lines would have entered
			for _, e := range batch {
				for _, abn := range append([]registry.ABN{e.owner}, e.chain...) {
					if p, ok := r.owners[abn]; ok && t.View().Entity(abn) == nil && !put[abn] {
						put[abn] = true
						if err := t.PutEntity(p.entity()); err != nil {
							return err
						}
					}
				}
			}
		}
		changed := false
		for i, e := range batch {
			o, err := r.plan(t, e.parsed, put)
			if err != nil {
				return &stop{i, err}
			}
			outcomes[i] = o
			changed = changed || o != Unchanged
		}
		switch {
		case r.opt.DryRun:
			return errDry
		case !changed:
			t.Keep("import", 1)
		}
		return nil
	})
	if errors.Is(err, errDry) {
		err = nil
	}
	return outcomes, err
}

func (p *parsed) entity() registry.Entity {
	e := registry.Entity{ABN: p.owner, Name: p.OwnerName, State: registry.EntityRegistered, Contact: p.Contact}
	for _, role := range p.Roles {
		e.Roles = append(e.Roles, registry.Role(role))
	}
	return e
}

// plan enters one line.
func (r *run) plan(t *registry.Tx, p parsed, put map[registry.ABN]bool) (Outcome, error) {
	old := t.View().Product(p.ProductID)
	if old != nil {
		return r.change(t, p, *old)
	}
	if t.View().Entity(p.owner) == nil {
		if p.OwnerName == "" {
			return "", registry.Field("/owner_name", "the owner is not registered yet: give its name")
		}
		if len(p.Roles) == 0 {
			return "", registry.Field("/roles", "the owner is not registered yet: give its roles, such as D SP")
		}
		put[p.owner] = true
		if err := t.PutEntity(p.entity()); err != nil {
			return "", owner(err)
		}
	}
	product := registry.Product{ID: p.ProductID, Name: p.Name, Owner: p.owner, Chain: p.chain, Scenario: p.Scenario, OwnABNOnly: p.Scenario == 4}
	for _, v := range p.Versions {
		product.Versions = append(product.Versions, registry.Version{Version: v})
	}
	if !p.Whitelisted {
		return Created, lineField(t.PutProduct(product))
	}
	dep := casework.Deployment{ClientControlled: p.Scenario == 1, Commercial: p.Scenario != 4, Offshore: p.Offshore, Records: p.Records}
	return Created, lineField(r.desk.Grandfather(t, product, dep, p.Services))
}

// change brings what is the product's own up to date, and leaves its
// certification alone.
func (r *run) change(t *registry.Tx, p parsed, old registry.Product) (Outcome, error) {
	if old.Owner != p.owner {
		return "", registry.Field("/owner_abn", "%s is owned by another entity here: change that by itself", p.ProductID)
	}
	next := old
	next.Name, next.Chain, next.Scenario = p.Name, p.chain, p.Scenario
	next.Versions = slices.Clone(old.Versions)
	for _, v := range p.Versions {
		if old.Version(v) == nil {
			next.Versions = append(next.Versions, registry.Version{Version: v})
		}
	}
	if next.Name == old.Name && slices.Equal(next.Chain, old.Chain) && next.Scenario == old.Scenario && len(next.Versions) == len(old.Versions) {
		return Unchanged, nil
	}
	return Updated, lineField(t.PutProduct(next))
}

// lineField renames a field of a product into the line's.
func lineField(err error) error {
	var f *registry.FieldError
	if !errors.As(err, &f) {
		return err
	}
	switch {
	case f.Field == "/id":
		return &registry.FieldError{Field: "/product_id", Err: f.Err}
	case f.Field == "/owner":
		return &registry.FieldError{Field: "/owner_abn", Err: f.Err}
	}
	return err
}

// owner renames a field of an entity into the line's.
func owner(err error) error {
	var f *registry.FieldError
	if !errors.As(err, &f) {
		return err
	}
	switch f.Field {
	case "/name":
		return &registry.FieldError{Field: "/owner_name", Err: f.Err}
	case "/abn":
		return &registry.FieldError{Field: "/owner_abn", Err: f.Err}
	}
	return err
}

// LineOf is a product as a line: importing it again changes nothing.
func LineOf(v *registry.View, p *registry.Product) Line {
	l := Line{ProductID: p.ID, Name: p.Name, OwnerABN: p.Owner.String(), Scenario: p.Scenario}
	if e := v.Entity(p.Owner); e != nil {
		l.OwnerName, l.Contact = e.Name, e.Contact
		for _, r := range e.Roles {
			l.Roles = append(l.Roles, string(r))
		}
	}
	for _, abn := range p.Chain {
		l.Chain = append(l.Chain, abn.String())
	}
	for _, ver := range p.Versions {
		l.Versions = append(l.Versions, ver.Version)
	}
	for _, e := range p.Entitlements {
		if e.Environment == registry.PROD {
			l.Services = append(l.Services, e.Service)
		}
	}
	s := p.Certification.State
	l.Whitelisted = len(l.Services) > 0 && (s == registry.CertWhitelisted || s == registry.CertInterim || s == registry.CertRestricted || s == registry.CertReviewDue)
	return l
}

// Write writes lines, cells guarded against spreadsheets.
func Write(w io.Writer, f Format, lines func(yield func(Line) bool)) error {
	if f == JSON {
		return writeJSON(w, lines)
	}
	c := csv.NewWriter(w)
	if err := c.Write(columns()); err != nil {
		return err
	}
	var err error
	lines(func(l Line) bool {
		cells := []string{
			l.ProductID, l.Name, l.OwnerABN, l.OwnerName, l.Contact, strings.Join(l.Roles, " "), strings.Join(l.Chain, " "), strconv.Itoa(int(l.Scenario)),
			strings.Join(l.Versions, " "), yesNo(l.Whitelisted), strings.Join(l.Services, " "), strconv.FormatUint(l.Records, 10), yesNo(l.Offshore),
		}
		for i := range cells {
			cells[i] = guard(cells[i])
		}
		err = c.Write(cells)
		return err == nil
	})
	c.Flush()
	return errors.Join(err, c.Error())
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func writeJSON(w io.Writer, lines func(yield func(Line) bool)) error {
	e := json.NewEncoder(w)
	var err error
	lines(func(l Line) bool {
		err = e.Encode(l)
		return err == nil
	})
	return err
}
