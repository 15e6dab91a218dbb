package casework

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// Certification is one product's case; its ID is the Product ID. The state is the
// product's (registry.CertState). A product without a case has an empty one.
type Certification struct {
	Product    string                          `json:"product_id"`
	Owner      registry.ABN                    `json:"owner"`
	Deployment Deployment                      `json:"deployment"`
	Catalogue  string                          `json:"catalogue,omitempty"` // version that is answered
	Category   certification.Category          `json:"category,omitempty"`
	Because    string                          `json:"category_because,omitempty"`
	Answers    map[string]certification.Answer `json:"answers,omitempty"`
	Exceptions []certification.Exception       `json:"exceptions,omitempty"`
	Declared   *Declaration                    `json:"declared,omitempty"`
	// Reopened are requirements to be shown again, Material why.
	Reopened []string                 `json:"reopened,omitempty"`
	Material []certification.Material `json:"material_changes,omitempty"`
	// ShowBy is by when each of Reopened has to be shown.
	ShowBy map[string]registry.Time `json:"show_by,omitempty"`
	// Basis is why it is verified before it goes on; "" when it was not selected.
	Basis        certification.Basis `json:"verification_basis,omitempty"`
	Verification string              `json:"verification_id,omitempty"` // the last that was begun here
	Conformance  []Run               `json:"conformance,omitempty"`     // runs in EVTE
	HighRisk     []HighRisk          `json:"high_risk_approvals,omitempty"`
	Pilot        *PilotTerms         `json:"pilot,omitempty"`
	Interim      *InterimTerms       `json:"interim,omitempty"`
	Services     []string            `json:"services,omitempty"` // approved for production
	Approved     registry.Time       `json:"first_approved_at,omitempty"`
	Period       string              `json:"valid_because,omitempty"`
	Review       Review              `json:"review,omitzero"`
	// Before is the state to come back to from Restricted and ReviewDue.
	Before       registry.CertState `json:"state_before"`
	NoticeID     string             `json:"notice_id,omitempty"`
	SuspensionID string             `json:"suspension_id,omitempty"`
	Ending       *Ending            `json:"delisting_proposed,omitempty"`
	Clocks       clocks             `json:"clocks,omitempty"`
	Dues         dues               `json:"dues,omitempty"`
	Steps        []Step             `json:"steps,omitempty"`
}

// Deployment is how a product is built and run, as declared.
type Deployment struct {
	ClientControlled bool     `json:"client_controlled,omitempty" doc:"The client runs it on machines of its own."`
	Commercial       bool     `json:"commercial,omitempty"`
	Hosting          string   `json:"hosting,omitempty" maxLength:"200" doc:"Where and with whom."`
	Offshore         bool     `json:"offshore,omitempty" doc:"Any part of it is hosted outside Australia."`
	Authentication   string   `json:"authentication,omitempty" maxLength:"200" doc:"How its users sign in."`
	SendingService   bool     `json:"sending_service,omitempty"`
	Records          uint64   `json:"records,omitempty" maximum:"9007199254740991" doc:"Unique client records."`
	Services         []string `json:"services,omitempty" maxItems:"100" doc:"Service keys wanted in production."`
	AddOns           int      `json:"add_ons,omitempty" minimum:"0" maximum:"100000"`
	Connections      uint64   `json:"add_on_connections,omitempty" maximum:"9007199254740991"`
	ClientList       bool     `json:"add_on_client_list,omitempty"`
}

// Waits is when the first running clock on somebody, agency or applicant, is due;
// 0 when none runs.
func (c *Certification) Waits(on string) registry.Time { return c.Clocks.due(on) }

// Declaration is the signature under a self-certification.
type Declaration struct {
	Name     string        `json:"name"`
	Position string        `json:"position,omitempty"`
	By       string        `json:"by"`
	At       registry.Time `json:"at"`
	Mark     string        `json:"mark"` // of the answers then
}

// Run is a set of calls, judged from the decisions recorded of them.
type Run struct {
	At        registry.Time `json:"at"`
	By        string        `json:"by"`
	Decisions []string      `json:"decisions"`
	Passed    []string      `json:"passed"`            // services
	Missing   []string      `json:"missing,omitempty"` // services wanted without a good call
	Refused   []Refusal     `json:"refused,omitempty"`
}

// Refusal is a decision that does not count, and why.
type Refusal struct {
	Decision string `json:"decision"`
	Because  string `json:"because"`
}

// HighRisk is one assessor's approval of a service of a high rating for piloting.
type HighRisk struct {
	Service string        `json:"service"`
	By      string        `json:"by"`
	At      registry.Time `json:"at"`
}

// PilotTerms are those of production verification testing.
type PilotTerms struct {
	Services []string       `json:"services"`
	Clients  []registry.ABN `json:"named_clients"`
	Until    registry.Time  `json:"until"`
	Passed   []string       `json:"passed,omitempty"` // services whose scenario was seen
	Runs     []Run          `json:"runs,omitempty"`
}

// InterimTerms are those of a grandfathered or conditional approval.
type InterimTerms struct {
	Basis string        `json:"basis"` // grandfathered or conditional
	Owed  []string      `json:"owed"`  // requirements
	Until registry.Time `json:"until"`
}

// The due-dates of a certification.
const (
	dueReopened = "reopened"
	dueExpiry   = "expiry"
)

// CaseKind implements registry.CaseBody.
func (Certification) CaseKind() registry.CaseKind { return "certification" }

// CaseDues implements registry.Dated.
func (c Certification) CaseDues() []registry.Due { return c.Dues }

// CaseKeys implements registry.CaseIndexer.
func (c Certification) CaseKeys(add func(index, value string)) {
	add("owner", c.Owner.String())
	if c.Basis != "" {
		add("verify", string(c.Basis))
	}
	if c.Declared != nil {
		add("declared", "yes")
	}
	if due := c.Waits("agency"); due != 0 {
		add(ClockIndex("agency"), due.String())
	}
}

// CertificationOf reads a product's case: an empty one when there is none.
func CertificationOf(b *registry.Casebook, p *registry.Product) (*registry.Case[Certification], error) {
	c, err := registry.CaseOf[Certification](b, p.ID)
	if errors.Is(err, registry.ErrNotFound) {
		return &registry.Case[Certification]{ID: p.ID, Body: Certification{Product: p.ID, Owner: p.Owner}}, nil
	}
	return c, err
}

// Profile is what the rules see of a product: what is declared, and who delivers it.
func (d *Deployment) Profile(v *registry.View, p *registry.Product) certification.Profile {
	out := certification.Profile{
		Scenario: p.Scenario, ChainLength: 1 + len(p.Chain), ClientControlled: d.ClientControlled, Commercial: d.Commercial, Offshore: d.Offshore,
		SendingService: d.SendingService, Records: d.Records, Connections: d.Connections, ClientList: d.ClientList, AddOns: d.AddOns,
	}
	for _, abn := range append([]registry.ABN{p.Owner}, p.Chain...) {
		e := v.Entity(abn)
		if e == nil {
			continue
		}
		for _, r := range e.Roles {
			if role := certification.Role(r); !slices.Contains(out.Roles, role) {
				out.Roles = append(out.Roles, role)
			}
		}
	}
	slices.Sort(out.Roles)
	for _, key := range d.Services {
		if s := v.Service(key); s != nil {
			out.MaxRisk = max(out.MaxRisk, certification.Risk(s.Risk))
		}
	}
	return out
}

// Profiles finds what was declared of a product, for assurance.
func Profiles(b *registry.Casebook, product string) (certification.Profile, bool) {
	c, err := registry.CaseOf[Certification](b, product)
	p := b.View.Product(product)
	if err != nil || p == nil || c.Body.Catalogue == "" {
		return certification.Profile{}, false
	}
	return c.Body.Deployment.Profile(b.View, p), true
}

func (d *Deployment) check(v *registry.View) error {
	if err := checkLine("/hosting", d.Hosting, false); err != nil {
		return err
	}
	if err := checkLine("/authentication", d.Authentication, false); err != nil {
		return err
	}
	if len(d.Services) > 100 || d.AddOns < 0 {
		return registry.Field("/services", "at most 100")
	}
	for i, key := range d.Services {
		if v.Service(key) == nil || slices.Contains(d.Services[:i], key) {
			return registry.Field(fmt.Sprintf("/services/%d", i), "there is no service of that key, or it stands twice")
		}
	}
	return nil
}

// Marking asks a product's questions and marks what was answered.
func (d *Desk) Marking(b *registry.Casebook, c *Certification, p *registry.Product, now time.Time) (*certification.Marking, []certification.Applicable, error) {
	profile := c.Deployment.Profile(b.View, p)
	if err := profile.Check(); err != nil {
		return nil, nil, translate(err)
	}
	cat := d.catalogue(c, now)
	q := d.Framework().Questionnaire(certification.SelfCertification, cat.Version)
	if q == nil {
		return nil, nil, fmt.Errorf("no questionnaire asks about catalogue %s", cat.Version)
	}
	applicable := cat.Applicable(&profile, d.Framework().Open)
	category, _ := cat.Category(&profile, d.Framework().Open)
	held := map[string]certification.EvidenceType{}
	evidence, err := evidenceOf(b, p.ID)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range evidence {
		held[e.Address] = e.Type
	}
	return q.Mark(certification.MarkInput{
		Profile: profile, Applicable: applicable, Answers: c.Answers, Exceptions: c.Exceptions, Now: now, Open: d.Framework().Open,
		EvidenceType: func(a string) (certification.EvidenceType, bool) { t, ok := held[a]; return t, ok },
	}, category), applicable, nil
}

func (d *Desk) catalogue(c *Certification, now time.Time) *certification.Catalogue {
	if cat := d.Framework().Catalogue(c.Catalogue); c.Catalogue != "" && cat != nil {
		return cat
	}
	return d.Framework().InForce(now)
}

func evidenceOf(b *registry.Casebook, product string) ([]assurance.Evidence, error) {
	all, err := assurance.EvidenceOf(b, product)
	if err != nil {
		return nil, err
	}
	var out []assurance.Evidence
	for _, c := range all {
		out = append(out, c.Body)
	}
	return out, nil
}

// edit is a certification being changed, with its product.
type edit struct {
	t *registry.Tx
	c Certification
	p registry.Product
	b *registry.Casebook
}

// certify plans a command on a product's certification.
func (d *Desk) certify(ctx context.Context, a registry.Actor, cmd Command, product string, m registry.Meta, change func(x *edit) error) (registry.Outcome, error) {
	return d.do(ctx, a, cmd, m.Reason, func(t *registry.Tx) error {
		x, rev, err := editOf(t, product)
		if err != nil {
			return err
		}
		own := a.Has(registry.PermDeveloper) && a.Entity != 0 && a.Entity == x.p.Owner
		if !a.Staff() && !own {
			return fmt.Errorf("%w: product %s", registry.ErrNotFound, cut(product))
		}
		if err := may(certificationRules(), a, cmd, "certification", x.p.Certification.State, own); err != nil {
			return err
		}
		if m.IfMatch != 0 && m.IfMatch != rev {
			return fmt.Errorf("%w: it has revision %d now", registry.ErrPrecondition, rev)
		}
		from := x.p.Certification.State
		if err := change(x); err != nil {
			return err
		}
		return x.put(cmd, from, m.Reason)
	})
}

func editOf(t *registry.Tx, product string) (*edit, registry.Revision, error) {
	p := t.View().Product(product)
	if p == nil {
		return nil, 0, fmt.Errorf("%w: product %s", registry.ErrNotFound, cut(product))
	}
	b, err := t.Casebook()
	if err != nil {
		return nil, 0, err
	}
	c, err := CertificationOf(b, p)
	if err != nil {
		return nil, 0, err
	}
	x := &edit{t: t, c: c.Body, p: *p, b: b}
	x.c.Owner = p.Owner
	return x, c.Revision, nil
}

// put writes the case, and the product when it changed.
func (x *edit) put(cmd Command, from registry.CertState, note string) error {
	x.c.Steps = addStep(x.c.Steps, x.t, cmd, from, x.p.Certification.State, note)
	if err := registry.PutCase(x.t, x.p.ID, x.c); err != nil {
		return err
	}
	return x.t.PutProduct(x.p)
}

// noOpenFindings refuses what findings that are not closed stand in the way of.
func (x *edit) noOpenFindings() error {
	var open []string
	for _, state := range []assurance.FindingState{assurance.FindingOpen, assurance.FindingAnswered} {
		ids, _ := x.b.Find(registry.Query{Kind: "finding", Where: []registry.Where{{Index: "product_id", Value: x.p.ID}, {Index: "state", Value: string(state)}}, Limit: 100})
		open = append(open, ids...)
	}
	if len(open) > 0 {
		return fmt.Errorf("%w: %d findings are open: %s; close them first", registry.ErrState, len(open), strings.Join(open, ", "))
	}
	return nil
}

// verified tells whether a verification that was opened since the product was
// submitted is closed; and names one that is open still.
func (x *edit) verified() (open string, done bool, err error) {
	for id := range x.b.All(registry.Query{Kind: "verification", Where: []registry.Where{{Index: "product_id", Value: x.p.ID}}}) {
		v, err := registry.CaseOf[assurance.Verification](x.b, id)
		switch {
		case err != nil:
			return "", false, err
		case !v.Body.Closed.Set():
			open = id
		case x.c.Declared != nil && v.Body.Opened >= x.c.Declared.At:
			done = true
		}
	}
	return open, done, nil
}

// noOpenVerification refuses what an open verification stands in the way of;
// needed also wants one that is closed.
func (x *edit) noOpenVerification(needed certification.Basis) error {
	open, done, err := x.verified()
	switch {
	case err != nil:
		return err
	case open != "":
		return fmt.Errorf("%w: the verification %s is open; close it first", registry.ErrState, open)
	case needed != "" && !done:
		return fmt.Errorf("%w: the product must be verified first (%s); next may be start-verification", registry.ErrState, needed)
	}
	return nil
}

func (x *edit) ref() registry.SubjectRef {
	return registry.SubjectRef{Kind: registry.KindProduct, ID: x.p.ID}
}

func (x *edit) tell(subject, text string) error {
	return tell(x.t, x.p.Owner, "certification/"+x.p.ID, x.p.ID+": "+subject, text)
}
