package assurance

import (
	"context"
	"fmt"
	"slices"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// AddOn is a third party's app that uses the API of a DSP's product, as the DSP
// declares it.
type AddOn struct {
	ID          string        `json:"id"` // AO-<revision>
	ProductID   string        `json:"product_id"`
	Owner       registry.ABN  `json:"owner"` // of the product
	Name        string        `json:"name"`
	Developer   string        `json:"developer"`
	Contact     string        `json:"contact,omitempty"` // of the developer, told of incidents
	Connections uint64        `json:"connections"`
	ClientList  bool          `json:"client_list_access"`
	Assessed    registry.Time `json:"assessed_at,omitempty"`
	// SSIDs are the subscriptions of the product through which it reaches the agency.
	SSIDs    []string      `json:"ssids,omitempty"`
	Declared registry.Time `json:"declared_at"`
	By       string        `json:"by"`
	Removed  registry.Time `json:"removed_at,omitempty"`
}

// CaseKind implements registry.CaseBody.
func (AddOn) CaseKind() registry.CaseKind { return "add-on" }

// CaseKeys implements registry.CaseIndexer.
func (a AddOn) CaseKeys(add func(index, value string)) {
	add("product_id", a.ProductID)
	add("owner", a.Owner.String())
	listed := "no"
	if !a.Removed.Set() && a.Standing(a.Declared).Listed {
		listed = "yes"
	}
	add("listed", listed)
	registry.Words(a.Name+" "+a.Developer, func(w string) { add("word", w) })
}

// Standing is what the add-on owes at an instant.
func (a *AddOn) Standing(at registry.Time) certification.AddOnStanding {
	rule := a.rule()
	return rule.Standing(at.Std())
}

func (a *AddOn) rule() certification.AddOn {
	return certification.AddOn{ID: a.ID, ProductID: a.ProductID, Name: a.Name, Developer: a.Developer, Contact: a.Contact, Connections: a.Connections, ClientList: a.ClientList, Assessed: a.Assessed.Std(), SSIDs: a.SSIDs}
}

// AddOnsOf lists the add-ons of a product that are declared now, by ID.
func AddOnsOf(book *registry.Casebook, productID string) (all []AddOn) {
	for id := range book.All(registry.Query{Kind: "add-on", Where: []registry.Where{{Index: "product_id", Value: productID}}}) {
		if x, err := registry.CaseOf[AddOn](book, id); err == nil && !x.Body.Removed.Set() {
			all = append(all, x.Body)
		}
	}
	return all
}

// addOnsMax bounds what one product declares.
const addOnsMax = 500

// DeclareAddOn enters an add-on of a product, or, when id is not "", changes it.
// The developer who owns the product, or staff who keep the register.
func (d *Desk) DeclareAddOn(ctx context.Context, a registry.Actor, id string, x AddOn, m registry.Meta) (*registry.Case[AddOn], bool, error) {
	rule := x.rule()
	if err := rule.Check(); err != nil {
		return nil, false, field(err)
	}
	name := "add-on.declare"
	if id != "" {
		name = "add-on.change"
		if _, err := d.AddOn(a, id); err != nil {
			return nil, false, err
		}
	}
	o, err := d.do(ctx, a, name, m.Reason, func(t *registry.Tx) error {
		next := x
		if id != "" {
			old, err := registry.ChangingCase[AddOn](t, id, m)
			if err != nil {
				return err
			}
			if old.Removed.Set() {
				return fmt.Errorf("%w: the add-on was taken off the list; declare it anew", registry.ErrState)
			}
			next.ProductID = old.ProductID
		}
		p, err := ownProduct(t.View(), a, keepers, next.ProductID)
		if err != nil {
			return err
		}
		for i, ssid := range next.SSIDs {
			if s := t.View().Subscription(ssid); s == nil || s.ProductID != p.ID {
				return registry.Field(fmt.Sprintf("/ssids/%d", i), "%q is no subscription of %s", cut(ssid), p.ID)
			}
		}
		if next.Assessed > t.Now() {
			return registry.Field("/assessed_at", "lies in the future")
		}
		next.ID, next.Owner, next.Declared, next.By = id, p.Owner, t.Now(), a.Name
		if id != "" {
			return registry.PutCase(t, id, next)
		}
		book, err := t.Casebook()
		if err != nil {
			return err
		}
		if _, n := book.Find(registry.Query{Kind: "add-on", Where: []registry.Where{{Index: "product_id", Value: p.ID}}}); n >= addOnsMax {
			return fmt.Errorf("%w: the product has %d add-ons, the most there may be", registry.ErrState, n)
		}
		next.ID = newID("AO", t, 0)
		return registry.CreateCase(t, next.ID, next)
	})
	return done[AddOn](o, err)
}

// RemoveAddOn takes an add-on off the list; its record stays.
func (d *Desk) RemoveAddOn(ctx context.Context, a registry.Actor, id string, m registry.Meta) (*registry.Case[AddOn], bool, error) {
	if _, err := d.AddOn(a, id); err != nil {
		return nil, false, err
	}
	o, err := d.do(ctx, a, "add-on.remove", m.Reason, func(t *registry.Tx) error {
		x, err := registry.ChangingCase[AddOn](t, id, m)
		if err != nil {
			return err
		}
		if _, err := ownProduct(t.View(), a, keepers, x.ProductID); err != nil {
			return err
		}
		if x.Removed.Set() {
			c, err := registry.TxCase[AddOn](t, id)
			if err == nil {
				t.Keep(id, c.Revision)
			}
			return err
		}
		x.Removed = t.Now()
		return registry.PutCase(t, id, x)
	})
	return done[AddOn](o, err)
}

// AddOn finds one that the actor may know of.
func (d *Desk) AddOn(a registry.Actor, id string) (*registry.Case[AddOn], error) {
	c, err := read[AddOn](d, id)
	if err == nil && !a.MaySee(c.Body.Owner) {
		err = fmt.Errorf("%w: add-on %s", registry.ErrNotFound, cut(id))
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Stopped is what became of one subscription of an add-on.
type Stopped struct {
	SSID         string `json:"ssid"`
	SuspensionID string `json:"suspension_id,omitempty"`
	Existing     bool   `json:"already_suspended,omitempty"`
	// Revision is the one to wait for.
	Revision registry.Revision `json:"revision"`
	Problem  string            `json:"problem,omitempty"`
}

// SuspendAddOn stops an add-on: every subscription through which it reaches the
// agency is suspended, in the register's own way, with its rules of who may and
// for how long. What fails for one does not keep the others running; it is told.
func (d *Desk) SuspendAddOn(ctx context.Context, a registry.Actor, id string, s registry.SuspendCommand) ([]Stopped, error) {
	x, err := d.AddOn(a, id)
	if err != nil {
		return nil, err
	}
	if len(x.Body.SSIDs) == 0 {
		return nil, fmt.Errorf("%w: no subscription of the add-on is known; ask the DSP to declare them, or suspend the product", registry.ErrState)
	}
	out := make([]Stopped, 0, len(x.Body.SSIDs))
	var first error
	for _, ssid := range x.Body.SSIDs {
		one := s
		one.Subject = registry.SubjectRef{Kind: registry.KindSubscription, ID: ssid}
		r, err := d.reg.Suspend(ctx, a, one)
		stopped := Stopped{SSID: ssid, Existing: r.Existing, Revision: r.Revision}
		if r.Entry != nil {
			stopped.SuspensionID = r.Entry.ID
		}
		if err != nil {
			stopped.Problem = err.Error()
			if first == nil {
				first = err
			}
		}
		out = append(out, stopped)
	}
	if !slices.ContainsFunc(out, func(s Stopped) bool { return s.SuspensionID != "" }) {
		return nil, first
	}
	return out, nil
}

// Description is what a DSP answered about the ecosystem of one product.
type Description struct {
	ProductID string                          `json:"product_id"`
	Owner     registry.ABN                    `json:"owner"`
	Version   string                          `json:"version"` // of the questionnaire
	Answers   map[string]certification.Answer `json:"answers"`
	Changed   registry.Time                   `json:"changed_at"`
	By        string                          `json:"by"`
}

// CaseKind implements registry.CaseBody.
func (Description) CaseKind() registry.CaseKind { return "ecosystem" }

// CaseKeys implements registry.CaseIndexer.
func (d Description) CaseKeys(add func(index, value string)) { add("owner", d.Owner.String()) }

// Ecosystem is the questionnaire about a product's ecosystem as answered so far.
func (d *Desk) Ecosystem(a registry.Actor, productID string) (*certification.Marking, registry.Revision, error) {
	book, err := d.reg.Casebook()
	if err != nil {
		return nil, 0, err
	}
	p, err := ownProduct(book.View, a, ^registry.PermDeveloper, productID)
	if err != nil {
		return nil, 0, err
	}
	c, err := registry.CaseOf[Description](book, productID)
	if err != nil {
		c = &registry.Case[Description]{}
	}
	return d.markEcosystem(book, p, c.Body.Answers), c.Revision, nil
}

func (d *Desk) markEcosystem(book *registry.Casebook, p *registry.Product, answers map[string]certification.Answer) *certification.Marking {
	profile := d.Profile(book, p)
	category, _ := d.Rules().InForce(d.now()).Category(&profile, d.Rules().Open)
	return d.questions().Mark(certification.MarkInput{Profile: profile, Answers: answers, Now: d.now(), Open: d.Rules().Open}, category)
}

func (d *Desk) questions() *certification.Questionnaire {
	return d.Rules().Questionnaire(certification.Ecosystem, "")
}

// AnswerEcosystem answers one question about a product's ecosystem and returns
// how it stands then. The developer who owns the product.
func (d *Desk) AnswerEcosystem(ctx context.Context, a registry.Actor, productID, question string, answer certification.Answer, m registry.Meta) (*certification.Marking, registry.Revision, error) {
	q := d.questions().Question(question)
	if q == nil {
		return nil, 0, fmt.Errorf("%w: there is no question %s", registry.ErrNotFound, cut(question))
	}
	if err := q.CheckAnswer(answer); err != nil {
		return nil, 0, field(err)
	}
	o, err := d.do(ctx, a, "ecosystem.answer", m.Reason, func(t *registry.Tx) error {
		p, err := ownProduct(t.View(), a, keepers, productID)
		if err != nil {
			return err
		}
		x := Description{}
		if _, err := registry.TxCase[Description](t, productID); err == nil {
			if x, err = registry.ChangingCase[Description](t, productID, m); err != nil {
				return err
			}
		}
		answers := map[string]certification.Answer{question: answer}
		for id, old := range x.Answers {
			if id != question {
				answers[id] = old
			}
		}
		return registry.PutCase(t, productID, Description{ProductID: p.ID, Owner: p.Owner, Version: d.questions().Version, Answers: answers, Changed: t.Now(), By: a.Name})
	})
	if err != nil && o.Cases == nil {
		return nil, 0, err
	}
	c, cerr := registry.CaseOf[Description](o.Cases, productID)
	if cerr != nil {
		return nil, 0, cerr
	}
	return d.markEcosystem(o.Cases, o.View.Product(productID), c.Body.Answers), c.Revision, err
}

// ThreatAnalysis is one that a DSP handed in about the ecosystem of a product.
type ThreatAnalysis struct {
	ID        string        `json:"id"` // TA-<revision>
	ProductID string        `json:"product_id"`
	Owner     registry.ABN  `json:"owner"`
	At        registry.Time `json:"at"`
	By        string        `json:"by"`

	certification.ThreatAnalysis
}

// CaseKind implements registry.CaseBody.
func (ThreatAnalysis) CaseKind() registry.CaseKind { return "threat-analysis" }

// CaseKeys implements registry.CaseIndexer.
func (a ThreatAnalysis) CaseKeys(add func(index, value string)) {
	add("product_id", a.ProductID)
	add("owner", a.Owner.String())
}

// SubmitThreatAnalysis takes a threat analysis in, the worst threats first. The
// developer who owns the product.
func (d *Desk) SubmitThreatAnalysis(ctx context.Context, a registry.Actor, productID string, x certification.ThreatAnalysis, reason string) (*registry.Case[ThreatAnalysis], bool, error) {
	if err := x.Check(); err != nil {
		return nil, false, field(err)
	}
	x.Threats = slices.Clone(x.Threats)
	slices.SortStableFunc(x.Threats, func(a, b certification.Threat) int { return b.Exposure() - a.Exposure() })
	o, err := d.do(ctx, a, "threat-analysis.submit", reason, func(t *registry.Tx) error {
		p, err := ownProduct(t.View(), a, keepers, productID)
		if err != nil {
			return err
		}
		book, err := t.Casebook()
		if err != nil {
			return err
		}
		for i, address := range x.Evidence {
			if _, n := book.Find(registry.Query{Kind: "evidence", Where: []registry.Where{{Index: "product_id", Value: p.ID}, {Index: "address", Value: addressKey(address)}}}); n == 0 {
				return registry.Field(fmt.Sprintf("/evidence/%d", i), "was not handed in for this product: send the file first")
			}
		}
		c := ThreatAnalysis{ID: newID("TA", t, 0), ProductID: p.ID, Owner: p.Owner, At: t.Now(), By: a.Name, ThreatAnalysis: x}
		return registry.CreateCase(t, c.ID, c)
	})
	return done[ThreatAnalysis](o, err)
}

// ThreatAnalysis finds one that the actor may know of.
func (d *Desk) ThreatAnalysis(a registry.Actor, id string) (*registry.Case[ThreatAnalysis], error) {
	c, err := read[ThreatAnalysis](d, id)
	if err == nil && !a.MaySee(c.Body.Owner) {
		err = fmt.Errorf("%w: threat analysis %s", registry.ErrNotFound, cut(id))
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}
