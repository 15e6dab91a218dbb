package assurance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/edition"
)

// Desk is every command of assurance: it checks permission and rule, and
// commits casework through the register.
type Desk struct {
	reg      *registry.Register
	rules    *edition.Rules
	files    Files
	now      func() time.Time
	declared Profiles
	observed Observations
	sharing  Sharing
}

// Profiles finds the profile that was declared for a product; ok is false when
// none was.
type Profiles func(book *registry.Casebook, productID string) (p certification.Profile, ok bool)

// Sharing finds the other entities that name a contact which this one names.
type Sharing func(book *registry.Casebook, abn registry.ABN) []registry.ABN

// Observations finds values of risk inputs for a product.
type Observations func(book *registry.Casebook, productID string) certification.RiskInputs

// Config is what a Desk is made of.
type Config struct {
	// Register must know the kinds of CaseTypes.
	Register *registry.Register
	// Rules are those configured; editions that were published are laid over them.
	Rules *certification.Framework
	Files Files
	// Profiles finds declared profiles; nil: all are derived from the register.
	Profiles Profiles
	// Shares finds shared contacts beside those of the register itself. Nil: none.
	Shares Sharing
	// Observed finds what is known of a product beyond the register and this
	// casework, by the names of the risk model: its incidents, and what the sidecars
	// see of its calls. Nil: nothing is, which counts as unknown.
	Observed Observations
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// NewDesk makes a Desk.
func NewDesk(cfg Config) *Desk {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Desk{reg: cfg.Register, rules: edition.NewRules(cfg.Register, cfg.Rules), files: cfg.Files, declared: cfg.Profiles, observed: cfg.Observed, sharing: cfg.Shares, now: cfg.Now}
}

// Rules are the framework's, with every edition that was published.
func (d *Desk) Rules() *certification.Framework { return d.rules.Now() }

// RulesAt are the rules as a Casebook has them.
func (d *Desk) RulesAt(b *registry.Casebook) *certification.Framework { return d.rules.At(b) }

// CaseTypes are the kinds of casework that a Desk writes.
func CaseTypes() []registry.CaseType {
	return []registry.CaseType{
		registry.CaseTypeOf[Evidence](), registry.CaseTypeOf[Verification](), registry.CaseTypeOf[Finding](), registry.CaseTypeOf[DrawCase](),
		registry.CaseTypeOf[AddOn](), registry.CaseTypeOf[Description](), registry.CaseTypeOf[ThreatAnalysis](), registry.CaseTypeOf[Report](),
		registry.CaseTypeOf[edition.Edition](),
	}
}

const (
	assessors = registry.PermAssessor
	keepers   = registry.PermAssessor | registry.PermRegistrar
)

// need refuses an actor without any of the permissions.
func need(a registry.Actor, p registry.Permission) error {
	if !a.Has(p) {
		return fmt.Errorf("%w: your permissions do not cover this", registry.ErrForbidden)
	}
	return nil
}

// ownProduct finds a product that the actor may act for: staff with one of the
// permissions for any, a developer for what its own entity owns. ErrNotFound
// when the actor may not even know of it.
func ownProduct(v *registry.View, a registry.Actor, staff registry.Permission, id string) (*registry.Product, error) {
	p := v.Product(id)
	knows := p != nil && (a.Staff() || a.Has(registry.PermDeveloper) && p.Delivers(a.Entity))
	switch {
	case !knows:
		return nil, fmt.Errorf("%w: there is no product %s", registry.ErrNotFound, id)
	case a.Has(staff), a.Has(registry.PermDeveloper) && a.MaySee(p.Owner):
		return p, nil
	}
	return nil, fmt.Errorf("%w: your permissions do not cover this", registry.ErrForbidden)
}

// newID is the ID of a case made by a change; n tells several of one change apart.
func newID(prefix string, t *registry.Tx, n int) string {
	id := prefix + "-" + strconv.FormatUint(uint64(t.Revision()), 10)
	if n > 0 {
		id += "." + strconv.Itoa(n)
	}
	return id
}

// field turns a finding of the rules into one of the register's, which the API
// answers with 422 and its pointer.
func field(err error) error {
	var f *certification.FieldError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
		return &registry.FieldError{Field: f.Field, Err: plain{f.Err}}
	case errors.Is(err, certification.ErrInvalid):
		return plain{err}
	}
	return err
}

// plain is an error of the rules as one of the register: the same sentence.
type plain struct{ err error }

func (p plain) Error() string        { return p.err.Error() }
func (p plain) Is(target error) bool { return target == registry.ErrInvalid }
func (p plain) Unwrap() error        { return p.err }

// read finds a case and its ETag.
func read[T registry.CaseBody](d *Desk, id string) (*registry.Case[T], error) {
	book, err := d.reg.Casebook()
	if err != nil {
		return nil, err
	}
	return registry.CaseOf[T](book, id)
}

// each decodes the cases that a query finds, in its order.
func each[T registry.CaseBody](book *registry.Casebook, where ...registry.Where) ([]registry.Case[T], error) {
	var zero T
	var out []registry.Case[T]
	for id := range book.All(registry.Query{Kind: string(zero.CaseKind()), Where: where}) {
		c, err := registry.CaseOf[T](book, id)
		if err != nil {
			return nil, err
		}
		out = append(out, *c)
	}
	return out, nil
}

// done finds the case that a command wrote or kept.
func done[T registry.CaseBody](o registry.Outcome, err error) (*registry.Case[T], bool, error) {
	if o.Cases == nil || o.ID == "" {
		return nil, false, err
	}
	c, cerr := registry.CaseOf[T](o.Cases, o.ID)
	if cerr != nil {
		return nil, false, errors.Join(err, cerr)
	}
	return c, o.Existing, err
}

func (d *Desk) do(ctx context.Context, a registry.Actor, name, reason string, plan func(*registry.Tx) error) (registry.Outcome, error) {
	return d.reg.Do(ctx, a, name, reason, plan)
}
