package casework

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/edition"
)

// Reach is how far an edition has got to those it concerns; its ID is the
// edition's. One due-date after the other takes it on from ID to ID, each in one
// commit with what it does to them: whatever is killed, nobody is left out, told
// twice or reopened twice.
type Reach struct {
	Edition string     `json:"edition_id"`
	Of      edition.Of `json:"of"`
	Phase   string     `json:"phase"`            // announce, reopen, done
	Cursor  string     `json:"cursor,omitempty"` // the last that was looked at
	// Announced and Reopened count those concerned, Looked all that were looked at.
	Announced int           `json:"announced"`
	Reopened  int           `json:"reopened"`
	Looked    int           `json:"looked"`
	Next      registry.Time `json:"next_at,omitempty"`
	Done      registry.Time `json:"done_at,omitempty"`
}

// The phases of a Reach.
const (
	reachAnnounce = "announce"
	reachReopen   = "reopen"
	reachDone     = "done"
)

// CaseKind implements registry.CaseBody.
func (Reach) CaseKind() registry.CaseKind { return "reach" }

// CaseDues implements registry.Dated.
func (r Reach) CaseDues() []registry.Due {
	if r.Phase == reachDone {
		return nil
	}
	return []registry.Due{{What: r.Phase, At: r.Next}}
}

// Bounds of one step of a Reach.
const (
	reachLook = 500 // looked at
	reachDo   = 100 // told or reopened
)

// fireReach takes an edition one step on.
func (d *Desk) fireReach(t *registry.Tx, id string, _ registry.Due) error {
	c, err := registry.TxCase[Reach](t, id)
	if err != nil {
		return err
	}
	e, err := registry.TxCase[edition.Edition](t, id)
	if err != nil {
		return err
	}
	b, err := t.Casebook()
	if err != nil {
		return err
	}
	r := c.Body
	v := version{edition: &e.Body, binds: e.Body.Binds()}
	if v.rules, err = d.rulesWith(b, &e.Body); err != nil {
		return err
	}
	ids := b.After(kindOf(r.Of), r.Cursor, reachLook)
	n := 0
	for _, one := range ids {
		if n == reachDo {
			break
		}
		r.Cursor = one
		r.Looked++
		did, err := d.reach(t, b, &v, &r, one, n)
		if err != nil {
			return fmt.Errorf("%s: %w", one, err)
		}
		if did {
			n++
		}
	}
	switch {
	case n == reachDo || len(ids) == reachLook:
		r.Next = max(r.Next, t.Now()) + 1
	case r.Phase == reachAnnounce:
		r.Phase, r.Cursor, r.Looked, r.Next = reachReopen, "", 0, max(e.Body.Effective, r.Next+1)
	default:
		r.Phase, r.Cursor, r.Next, r.Done = reachDone, "", 0, t.Now()
	}
	return registry.PutCase(t, id, r)
}

// reach tells or reopens one product or entity, if it is concerned.
func (d *Desk) reach(t *registry.Tx, b *registry.Casebook, v *version, r *Reach, id string, n int) (bool, error) {
	if r.Phase == reachAnnounce {
		a, err := d.affected(b, v, id, t.Now())
		if err != nil || a == nil || r.Of == edition.Catalogue && len(a.Reopens) == 0 {
			return false, err
		}
		r.Announced++
		return true, announceVersion(t, v, a, n)
	}
	done, err := false, error(nil)
	if r.Of == edition.Catalogue {
		done, err = d.reachProduct(t, v, id, n)
	} else {
		done, err = d.reachEntity(t, b, v, id, n)
	}
	if done {
		r.Reopened++
	}
	return done, err
}

// announceVersion tells of a version before it takes effect.
func announceVersion(t *registry.Tx, v *version, a *Affected, n int) error {
	on := v.edition.Effective.Std().Format("2 January 2006")
	if v.edition.Of == edition.TermsOf {
		return tellAs(t, n, a.ABN, "registration/"+a.ABN.String(), "New terms from "+on, fmt.Sprintf("Version %s of the terms takes effect on %s. Accept it from then on, and until %s.", v.edition.Version, on, a.DueBy))
	}
	text := fmt.Sprintf("Version %s of the requirements takes effect on %s. What it asks of %s:\n%s", v.edition.Version, on, a.ProductID, listed(a.Reopens))
	return tellAs(t, n, a.ABN, "certification/"+a.ProductID, a.ProductID+": new requirements from "+on, text)
}

// listed writes what is reopened, one a line.
func listed(all []certification.Reopened) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "\n- %s %s, until %s. %s", r.Requirement, r.Title, registry.At(r.DueBy), r.Because)
	}
	return b.String()
}

// reachProduct reopens in a product what a version of the catalogue asks anew. It
// goes on meanwhile; not shown in time, a review is due.
func (d *Desk) reachProduct(t *registry.Tx, v *version, id string, n int) (bool, error) {
	x, _, err := editOf(t, id)
	if err != nil || x.p.Certification.State == registry.CertDelisted {
		return false, err
	}
	a, next := d.reopens(x.b, v, &x.p, &x.c, t.Now())
	if a == nil {
		return false, nil
	}
	x.c = *next
	if x.p.Category != registry.Category(x.c.Category) {
		x.p.Category = registry.Category(x.c.Category)
	}
	x.c.Answers = withoutAnswers(v.rules, x.c.Answers, a.Reopens)
	note := fmt.Sprintf("catalogue %s: nothing is asked anew", v.edition.Version)
	if len(a.Reopens) > 0 {
		note = fmt.Sprintf("catalogue %s asks anew: %s", v.edition.Version, strings.Join(reopenedIDs(a.Reopens), ", "))
	}
	from := x.p.Certification.State
	if from != registry.CertDraft {
		for _, r := range a.Reopens {
			x.c.showAgain(r.Requirement, registry.At(r.DueBy))
		}
	}
	if len(a.Reopens) > 0 {
		x.c.Material = append(slices.Clip(x.c.Material), certification.Material{Kind: catalogueChanged, Because: note, Reopens: reopenedIDs(a.Reopens)})
		text := fmt.Sprintf("Version %s of the requirements is in force. Answer and submit again what it asks anew:\n%s\n\nUntil then nothing changes.", v.edition.Version, listed(a.Reopens))
		if err := tellAs(t, n, x.p.Owner, "certification/"+id, id+": show again what changed", text); err != nil {
			return false, err
		}
	}
	if from != registry.CertDraft && len(x.c.Reopened) > 0 {
		x.c.dueAgain(t)
	}
	return true, x.put(catalogueReached, from, note)
}

const catalogueChanged certification.ChangeKind = "catalogue version"

func reopenedIDs(all []certification.Reopened) []string {
	out := []string{}
	for _, r := range all {
		out = append(out, r.Requirement)
	}
	return out
}

// withoutAnswers takes back the answers to what is asked anew: what was answered
// to an earlier version shows nothing of this one.
func withoutAnswers(rules *certification.Framework, answers map[string]certification.Answer, reopened []certification.Reopened) map[string]certification.Answer {
	out := maps.Clone(answers)
	ids := reopenedIDs(reopened)
	for _, q := range rules.Questionnaires {
		for id := range answers {
			if asked := q.Question(id); q.ID == certification.SelfCertification && asked != nil && slices.Contains(ids, asked.Requirement) {
				delete(out, id)
			}
		}
	}
	return out
}

// showAgain opens a requirement again, to be shown by an instant.
func (c *Certification) showAgain(requirement string, by registry.Time) {
	if !slices.Contains(c.Reopened, requirement) {
		c.Reopened = append(slices.Clip(c.Reopened), requirement)
	}
	next := maps.Clone(c.ShowBy)
	if next == nil {
		next = map[string]registry.Time{}
	}
	if old, ok := next[requirement]; !ok || by < old {
		next[requirement] = by
	}
	c.ShowBy = next
}

// dueAgain sets the due-date and the clock of what is open again to the first
// that is due.
func (c *Certification) dueAgain(t *registry.Tx) {
	first := registry.Time(0)
	for _, r := range c.Reopened {
		if by := c.ShowBy[r]; by != 0 && (first == 0 || by < first) {
			first = by
		}
	}
	if first == 0 {
		return
	}
	c.Clocks.start(t, "show-again", "applicant", first.Std().Sub(t.Now().Std()))
	c.Dues.set(dueReopened, first)
}

// reachEntity asks a registered entity to accept new terms.
func (d *Desk) reachEntity(t *registry.Tx, b *registry.Casebook, v *version, id string, n int) (bool, error) {
	a, err := d.affectedEntity(b, v, id, t.Now())
	if err != nil || a == nil {
		return false, err
	}
	c, e, err := registrationOf(t, a.ABN)
	if err != nil {
		return false, err
	}
	r := c.Body
	r.Clocks.start(t, "accept-terms", "applicant", a.DueBy.Std().Sub(t.Now().Std()))
	r.Dues.set(dueTerms, a.DueBy)
	text := fmt.Sprintf("Version %s of the terms is in force. Read and accept it until %s.", v.edition.Version, a.DueBy)
	if err := tellAs(t, n, a.ABN, "registration/"+id, "Accept the new terms", text); err != nil {
		return false, err
	}
	return true, put(t, r, e, termsReached, e.State, "terms "+v.edition.Version)
}
