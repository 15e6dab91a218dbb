package assurance

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// DrawCase is the selection of one period: first committed to, then drawn.
type DrawCase struct {
	Period     string `json:"period"`
	Commitment string `json:"commitment"` // SHA-256 of the seed
	// Seed is kept back until the draw; it is then in the published document.
	Seed        string        `json:"seed"`
	Committed   registry.Time `json:"committed_at"`
	CommittedBy string        `json:"committed_by"`
	Drawn       registry.Time `json:"drawn_at,omitempty"`
	DrawnBy     string        `json:"drawn_by,omitempty"`
	// Address is of the published document, a certification.Draw in JSON.
	Address    string                      `json:"address,omitempty"`
	Candidates int                         `json:"candidates,omitempty"`
	Selected   map[certification.Basis]int `json:"selected,omitempty"`
	Opened     bool                        `json:"verifications_opened,omitempty"`
	// Resumed and Next are when the timer last went on with opening verifications
	// that a control plane which died left unopened, and with which of them.
	Resumed registry.Time `json:"resumed_at,omitempty"`
	Next    int           `json:"next,omitempty"`
}

// CaseKind implements registry.CaseBody.
func (DrawCase) CaseKind() registry.CaseKind { return "draw" }

// CaseKeys implements registry.CaseIndexer.
func (d DrawCase) CaseKeys(add func(index, value string)) {
	if d.Address != "" {
		add("address", addressKey(d.Address))
	}
}

// resumeAfter is how long after the draw, or the timer's last step, whoever drew
// has to open the verifications before the timer does.
const (
	resumeAfter = 10 * time.Second
	dueOpen     = "open-selected"
)

// CaseDues implements registry.Dated: a draw that is published is never left
// without its verifications, whatever becomes of the control plane that drew.
func (d DrawCase) CaseDues() []registry.Due {
	if !d.Drawn.Set() || d.Opened {
		return nil
	}
	return []registry.Due{{What: dueOpen, At: max(d.Drawn, d.Resumed) + registry.Time(resumeAfter.Milliseconds())}}
}

// Timers are what goes on by itself, for registry.RunTimers.
func (d *Desk) Timers() map[registry.CaseKind]registry.FireFunc {
	return map[registry.CaseKind]registry.FireFunc{DrawCase{}.CaseKind(): d.resumeDraw}
}

// resumeDraw opens some of the verifications of a draw that are not open yet.
func (d *Desk) resumeDraw(t *registry.Tx, period string, _ registry.Due) error {
	x, err := registry.ChangingCase[DrawCase](t, period, registry.Meta{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), documentTimeout)
	defer cancel()
	published, err := d.Published(ctx, period)
	if err != nil {
		return err
	}
	selected := published.Selected()
	from := min(x.Next, len(selected))
	x.Next, x.Resumed = min(from+openBatch, len(selected)), t.Now()
	if _, err := d.openIn(t, period, selected[from:x.Next]); err != nil {
		return err
	}
	x.Opened = x.Next == len(selected)
	return registry.PutCase(t, period, x)
}

// documentTimeout bounds the reading of a published document by the timer.
const documentTimeout = 5 * time.Second

var periodExp = regexp.MustCompile(`^[0-9]{4}(-[A-Z0-9]{1,8})?$`)

// openBatch is how many verifications one change opens.
const openBatch = 100

// CommitDraw makes a seed for a period and publishes what it hashes to. Assessor.
func (d *Desk) CommitDraw(ctx context.Context, a registry.Actor, period, reason string) (*registry.Case[DrawCase], bool, error) {
	if err := need(a, assessors); err != nil {
		return nil, false, err
	}
	if !periodExp.MatchString(period) {
		return nil, false, registry.Field("/period", "%q; name the year, such as 2026, or a part of it, such as 2026-Q3", cut(period))
	}
	seed := make([]byte, certification.SeedBytes)
	_, _ = rand.Read(seed) // never fails, says crypto/rand
	o, err := d.do(ctx, a, "draw.commit", reason, func(t *registry.Tx) error {
		return registry.CreateCase(t, period, DrawCase{
			Period: period, Commitment: certification.Commit(seed), Seed: hex.EncodeToString(seed), Committed: t.Now(), CommittedBy: a.Name,
		})
	})
	return done[DrawCase](o, err)
}

// Draw makes the draw that was committed to, publishes it, and opens a
// verification of every product selected. Doing it again goes on where it was
// cut off, and draws nothing a second time. Assessor.
func (d *Desk) Draw(ctx context.Context, a registry.Actor, period, reason string) (*registry.Case[DrawCase], bool, error) {
	if err := need(a, assessors); err != nil {
		return nil, false, err
	}
	c, err := read[DrawCase](d, period)
	if err != nil {
		return nil, false, err
	}
	if !c.Body.Drawn.Set() {
		if c, err = d.draw(ctx, a, c, reason); err != nil {
			return nil, false, err
		}
	}
	if c.Body.Opened {
		return c, true, nil
	}
	published, err := d.Published(ctx, period)
	if err != nil {
		return nil, false, err
	}
	selected := published.Selected()
	for start := 0; start < len(selected); start += openBatch {
		batch := selected[start:min(start+openBatch, len(selected))]
		if err := d.openSelected(ctx, a, period, batch, reason); err != nil {
			return nil, false, err
		}
	}
	o, err := d.do(ctx, a, "draw.opened", reason, func(t *registry.Tx) error {
		x, err := registry.ChangingCase[DrawCase](t, period, registry.Meta{})
		if err != nil {
			return err
		}
		x.Opened = true
		return registry.PutCase(t, period, x)
	})
	return done[DrawCase](o, err)
}

// draw selects and publishes.
func (d *Desk) draw(ctx context.Context, a registry.Actor, c *registry.Case[DrawCase], reason string) (*registry.Case[DrawCase], error) {
	book, err := d.reg.Casebook()
	if err != nil {
		return nil, err
	}
	seed, err := hex.DecodeString(c.Body.Seed)
	if err != nil {
		return nil, fmt.Errorf("draw %s: %w", c.ID, err)
	}
	list, err := d.candidates(ctx, book)
	if err != nil {
		return nil, err
	}
	made, err := certification.Select(seed, c.ID, d.Rules().Selection, list, d.now())
	if err != nil {
		return nil, field(err)
	}
	doc, err := json.Marshal(made)
	if err != nil {
		return nil, err
	}
	kept, err := d.files.Keep(ctx, func(w io.Writer) (certification.Evidence, error) { return document(w, doc) })
	if err != nil {
		return nil, err
	}
	o, err := d.do(ctx, a, "draw.draw", reason, func(t *registry.Tx) error {
		x, err := registry.ChangingCase[DrawCase](t, c.ID, registry.Meta{IfMatch: c.Revision})
		if err != nil {
			return err
		}
		x.Drawn, x.DrawnBy, x.Address, x.Candidates, x.Selected = t.Now(), a.Name, kept.Address, len(list), map[certification.Basis]int{}
		for _, s := range made.Selected() {
			x.Selected[s.Basis]++
		}
		return registry.PutCase(t, c.ID, x)
	})
	drawn, _, err := done[DrawCase](o, err)
	return drawn, err
}

// document writes one of our own documents, which are kept beside evidence.
func document(w io.Writer, doc []byte) (certification.Evidence, error) {
	sum := sha256.Sum256(doc)
	_, err := w.Write(doc)
	return certification.Evidence{Address: "sha256:" + hex.EncodeToString(sum[:]), Media: certification.JSON, Bytes: int64(len(doc))}, err
}

// candidates are the products that may be verified.
func (d *Desk) candidates(ctx context.Context, book *registry.Casebook) ([]certification.Candidate, error) {
	v := book.View
	products := v.Products()
	approved := map[registry.ABN]bool{} // owners of something that was ever approved
	for _, e := range products {
		approved[e.Value.Owner] = approved[e.Value.Owner] || e.Value.Certification.ValidFrom.Set()
	}
	var out []certification.Candidate
	for _, e := range products {
		p := &e.Value
		if s := p.Certification.State; s == registry.CertDraft || s == registry.CertDelisted {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		risk, err := d.RiskProfile(book, p)
		if err != nil {
			return nil, fmt.Errorf("risk of %s: %w", p.ID, err)
		}
		incident := false
		if d.observed != nil {
			incident = d.observed(book, p.ID)["incidents_high"] > 0
		}
		out = append(out, certification.Candidate{ID: p.ID, Category: certification.Category(p.Category), FirstTime: !approved[p.Owner], Incident: incident, Score: risk.Score})
	}
	return out, nil
}

func (d *Desk) openSelected(ctx context.Context, a registry.Actor, period string, batch []certification.Drawn, reason string) error {
	_, err := d.do(ctx, a, "verification.open-selected", reason, func(t *registry.Tx) error {
		opened, err := d.openIn(t, period, batch)
		if err == nil && opened == 0 {
			t.Keep(period, 1)
		}
		return err
	})
	return err
}

// openIn opens the verifications of products drawn that are not open yet.
func (d *Desk) openIn(t *registry.Tx, period string, batch []certification.Drawn) (opened int, err error) {
	for _, s := range batch {
		id := "VR-" + period + "-" + s.ID
		if _, err := registry.TxCase[Verification](t, id); err == nil {
			continue // from a run that was cut off
		} else if !errors.Is(err, registry.ErrNotFound) {
			return opened, err
		}
		switch err := d.openVerification(t, id, s.ID, nil, s.Basis, period); {
		case errors.Is(err, registry.ErrNotFound), errors.Is(err, registry.ErrState):
			continue // gone or delisted since the draw
		case err != nil:
			return opened, err
		}
		opened++
	}
	return opened, nil
}

// Published is the published document of a draw, as it was drawn;
// registry.ErrState before the draw.
func (d *Desk) Published(ctx context.Context, period string) (*certification.Draw, error) {
	c, err := read[DrawCase](d, period)
	if err != nil {
		return nil, err
	}
	f, err := d.PublishedFile(ctx, c)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out certification.Draw
	if err := json.NewDecoder(f).Decode(&out); err != nil {
		return nil, fmt.Errorf("draw %s: %w: %w", c.ID, registry.ErrTampered, err)
	}
	return &out, nil
}

// PublishedFile is the published document as it is kept.
func (d *Desk) PublishedFile(ctx context.Context, c *registry.Case[DrawCase]) (io.ReadSeekCloser, error) {
	if !c.Body.Drawn.Set() {
		return nil, fmt.Errorf("%w: the draw of %s is committed to and not yet made", registry.ErrState, c.ID)
	}
	return d.files.Open(ctx, c.Body.Address)
}
