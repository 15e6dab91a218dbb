package assurance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// Files keeps the bytes of evidence, by content address, outside the register's
// store. evidencedir is one, in a folder.
type Files interface {
	// Keep stores what take writes under the address it returns. When take fails,
	// nothing is kept.
	Keep(ctx context.Context, take func(io.Writer) (certification.Evidence, error)) (certification.Evidence, error)
	// Open reads what an address holds, having checked that it still is what was
	// kept; registry.ErrNotFound when it holds nothing.
	Open(ctx context.Context, address string) (io.ReadSeekCloser, error)
}

// Evidence is a piece of evidence as an entity showed it for a product.
type Evidence struct {
	ID           string                     `json:"id"` // EV-<revision>
	ProductID    string                     `json:"product_id"`
	Entity       registry.ABN               `json:"entity"` // whose it is
	Type         certification.EvidenceType `json:"type"`
	Address      string                     `json:"address"` // sha256:…
	Media        certification.Media        `json:"media"`
	Bytes        uint64                     `json:"bytes"`
	Requirements []string                   `json:"requirements"`
	Note         string                     `json:"note,omitempty"`
	Issued       registry.Time              `json:"issued_at,omitempty"`
	Expires      registry.Time              `json:"expires_at,omitempty"`
	By           string                     `json:"by"`
	At           registry.Time              `json:"at"`
	// Approved is when an assessor first accepted it.
	Approved registry.Time `json:"approved_at,omitempty"`
}

// CaseKind implements registry.CaseBody.
func (Evidence) CaseKind() registry.CaseKind { return "evidence" }

// CaseKeys implements registry.CaseIndexer.
func (e Evidence) CaseKeys(add func(index, value string)) {
	add("product_id", e.ProductID)
	add("owner", e.Entity.String())
	add("address", addressKey(e.Address))
	add("type", string(e.Type))
	if e.Expires.Set() {
		add("expires", e.Expires.String())
	}
	for _, r := range e.Requirements {
		add("requirement", r)
	}
}

// addressKey is an address as it is indexed: the digest alone, which fits.
func addressKey(address string) string { return strings.TrimPrefix(address, "sha256:") }

// Submission is what comes with the bytes of a piece of evidence.
type Submission struct {
	ProductID       string
	Type            certification.EvidenceType
	Requirements    []string
	Note            string
	Issued, Expires registry.Time
}

const (
	evidenceNoteMax     = 500
	evidenceRequiresMax = 32
	evidencePerProduct  = 500
)

// SubmitEvidence reads a piece of evidence, refuses what its type forbids, keeps
// the bytes and records it. The developer who owns the product, registrar or
// assessor. Sending the same bytes for the same product again changes nothing.
func (d *Desk) SubmitEvidence(ctx context.Context, a registry.Actor, s Submission, r io.Reader) (*registry.Case[Evidence], bool, error) {
	v, err := d.reg.View()
	if err != nil {
		return nil, false, err
	}
	p, err := ownProduct(v, a, keepers, s.ProductID)
	if err != nil {
		return nil, false, err
	}
	// Everything that can be wrong without the bytes is told before they are read.
	if err := d.checkSubmission(&s); err != nil {
		return nil, false, err
	}
	if err := certification.CheckDates(s.Type, certification.Dates{Issued: s.Issued.Std(), Expires: s.Expires.Std()}, d.now()); err != nil {
		return nil, false, field(err)
	}
	kept, err := d.files.Keep(ctx, func(w io.Writer) (certification.Evidence, error) { return certification.TakeEvidence(s.Type, r, w) })
	if err != nil {
		return nil, false, evidenceError(err)
	}
	o, err := d.do(ctx, a, "evidence.submit", "", func(t *registry.Tx) error {
		book, err := t.Casebook()
		if err != nil {
			return err
		}
		of, total := book.Find(registry.Query{Kind: "evidence", Where: []registry.Where{{Index: "product_id", Value: p.ID}, {Index: "address", Value: addressKey(kept.Address)}}, Limit: 1})
		if total > 0 {
			c, err := registry.TxCase[Evidence](t, of[0])
			if err != nil {
				return err
			}
			if c.Body.Type == s.Type && c.Body.Expires == s.Expires && slices.Equal(c.Body.Requirements, s.Requirements) {
				t.Keep(c.ID, c.Revision)
				return nil
			}
		}
		if _, n := book.Find(registry.Query{Kind: "evidence", Where: []registry.Where{{Index: "product_id", Value: p.ID}}}); n >= evidencePerProduct {
			return fmt.Errorf("%w: the product has %d pieces of evidence, the most there may be", registry.ErrState, n)
		}
		e := Evidence{
			ID: newID("EV", t, 0), ProductID: p.ID, Entity: p.Owner, Type: kept.Type, Address: kept.Address, Media: kept.Media, Bytes: uint64(kept.Bytes),
			Requirements: s.Requirements, Note: s.Note, Issued: s.Issued, Expires: s.Expires, By: a.Name, At: t.Now(),
		}
		return registry.CreateCase(t, e.ID, e)
	})
	return done[Evidence](o, err)
}

// evidenceError makes one of the register's errors of what was wrong with bytes.
func evidenceError(err error) error {
	if errors.Is(err, certification.ErrTooLarge) {
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return field(err)
}

// ErrTooLarge: evidence beyond the bound of its type; nothing was kept.
var ErrTooLarge = errors.New("too large")

func (d *Desk) checkSubmission(s *Submission) error {
	if len(s.Note) > evidenceNoteMax || registry.HoldsTFN(s.Note) {
		return registry.Field("/note", "at most %d bytes, and no tax file number", evidenceNoteMax)
	}
	if len(s.Requirements) > evidenceRequiresMax {
		return registry.Field("/requirements", "at most %d", evidenceRequiresMax)
	}
	c := d.Rules().InForce(d.now())
	for i, id := range s.Requirements {
		if c.Requirement(id) == nil {
			return registry.Field(fmt.Sprintf("/requirements/%d", i), "%q is no requirement of catalogue %s", cut(id), c.Version)
		}
	}
	slices.Sort(s.Requirements)
	s.Requirements = slices.Compact(s.Requirements)
	if s.Requirements == nil {
		s.Requirements = []string{}
	}
	return nil
}

// EvidenceOf lists the evidence shown for a product.
func EvidenceOf(book *registry.Casebook, productID string) ([]registry.Case[Evidence], error) {
	return each[Evidence](book, registry.Where{Index: "product_id", Value: productID})
}

// ApproveEvidence notes that an assessor accepted evidence: a self-assessment is
// current for two years from the first time. Assessor.
func (d *Desk) ApproveEvidence(ctx context.Context, a registry.Actor, id string, m registry.Meta) (*registry.Case[Evidence], bool, error) {
	if err := need(a, assessors); err != nil {
		return nil, false, err
	}
	o, err := d.do(ctx, a, "evidence.approve", m.Reason, func(t *registry.Tx) error {
		e, err := registry.ChangingCase[Evidence](t, id, m)
		if err != nil {
			return err
		}
		if e.Approved.Set() {
			c, err := registry.TxCase[Evidence](t, id)
			if err == nil {
				t.Keep(id, c.Revision)
			}
			return err
		}
		if e.By == a.Name {
			return fmt.Errorf("%w: whoever handed evidence in cannot accept it", registry.ErrForbidden)
		}
		if e.Expires.Set() && e.Expires <= t.Now() {
			return fmt.Errorf("%w: the evidence expired at %s; ask for one that holds", registry.ErrState, e.Expires)
		}
		e.Approved = t.Now()
		return registry.PutCase(t, id, e)
	})
	return done[Evidence](o, err)
}

// Evidence finds one piece; ErrNotFound when there is none that the actor may
// know of: staff of all, a developer of its own entity's.
func (d *Desk) Evidence(a registry.Actor, id string) (*registry.Case[Evidence], error) {
	c, err := read[Evidence](d, id)
	if err == nil && !a.MaySee(c.Body.Entity) {
		err = fmt.Errorf("%w: evidence %s", registry.ErrNotFound, id)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// OpenEvidence reads the bytes of a piece that the actor may know of.
func (d *Desk) OpenEvidence(ctx context.Context, a registry.Actor, id string) (*registry.Case[Evidence], io.ReadSeekCloser, error) {
	c, err := d.Evidence(a, id)
	if err != nil {
		return nil, nil, err
	}
	f, err := d.files.Open(ctx, c.Body.Address)
	return c, f, err
}

// Signal is something an assessor should look at: it proves nothing.
type Signal struct {
	Kind string `json:"kind"` // evidence-shared, contact-shared
	Say  string `json:"say"`
	// Others are the other entities that used the same.
	Others []registry.ABN `json:"others"`
	// Evidence is the piece that is shared, "" for a contact.
	Evidence string `json:"evidence,omitempty"`
}

// Signals finds what an entity shares with others: the same evidence, byte for
// byte, or the same contact. For assessors and registrars; whoever is concerned
// is not told.
func (d *Desk) Signals(book *registry.Casebook, abn registry.ABN) ([]Signal, error) {
	own, err := each[Evidence](book, registry.Where{Index: "owner", Value: abn.String()})
	if err != nil {
		return nil, err
	}
	out := []Signal{}
	seen := map[string]bool{}
	for _, e := range own {
		if seen[e.Body.Address] {
			continue
		}
		seen[e.Body.Address] = true
		same, err := each[Evidence](book, registry.Where{Index: "address", Value: addressKey(e.Body.Address)})
		if err != nil {
			return nil, err
		}
		var others []registry.ABN
		for _, s := range same {
			if s.Body.Entity != abn && !slices.Contains(others, s.Body.Entity) {
				others = append(others, s.Body.Entity)
			}
		}
		if len(others) > 0 {
			slices.Sort(others)
			out = append(out, Signal{Kind: "evidence-shared", Evidence: e.ID, Others: others,
				Say: fmt.Sprintf("The %s %s was handed in by another entity too, byte for byte.", e.Body.Type, e.ID)})
		}
	}
	others := sameContact(book, book.View.Entity(abn))
	if d.sharing != nil {
		others = append(others, d.sharing(book, abn)...)
		slices.Sort(others)
		others = slices.Compact(others)
	}
	if len(others) > 0 {
		out = append(out, Signal{Kind: "contact-shared", Others: others, Say: "Another entity gave the same contact."})
	}
	return out, nil
}

// sameContact lists the other entities that gave the contact of this one.
func sameContact(book *registry.Casebook, e *registry.Entity) (others []registry.ABN) {
	if e == nil {
		return nil
	}
	box := registry.Mailbox(e.Contact)
	if box == "" {
		return nil
	}
	for id := range book.All(registry.Query{Kind: "entity", Where: []registry.Where{{Index: "contact", Value: box}}}) {
		abn, err := registry.ParseABN(id)
		if err != nil || abn == e.ABN {
			continue
		}
		if x := book.View.Entity(abn); x != nil && registry.Mailbox(x.Contact) == box { // the index has the beginning of a long one
			others = append(others, abn)
		}
	}
	slices.Sort(others)
	return others
}

func cut(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// Named tells whether anything in the casework names an address: what nothing
// names may be removed from Files.
func Named(book *registry.Casebook, address string) bool {
	key := addressKey(address)
	_, evidence := book.Find(registry.Query{Kind: "evidence", Where: []registry.Where{{Index: "address", Value: key}}})
	_, draws := book.Find(registry.Query{Kind: "draw", Where: []registry.Where{{Index: "address", Value: key}}})
	return evidence+draws > 0
}
