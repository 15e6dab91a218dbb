// Package edition keeps the versions of the framework's data that are published
// while the system runs: the requirement catalogue with the questionnaire that
// asks about it, and the terms that applicants accept.
//
// An Edition is proposed by one person and published by another. Once published
// it never changes, and takes effect by itself on its day. What it asks anew of
// those who are certified or registered already is casework's.
package edition

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// Of is what an edition is a version of.
type Of string

// The things that have editions.
const (
	Catalogue Of = "catalogue"
	TermsOf   Of = "terms"
)

// State is how far an edition has come.
type State string

// The states of an edition.
const (
	Proposed  State = "proposed"
	Published State = "published" // it takes effect on its day
	Withdrawn State = "withdrawn"
)

// Terms is one version of what an applicant accepts and declares.
type Terms struct {
	Version     string `yaml:"version" json:"version" maxLength:"32"`
	Terms       string `yaml:"terms" json:"terms" maxLength:"20000"`
	Declaration string `yaml:"declaration" json:"declaration" maxLength:"4000"`
}

// Edition is one version, proposed or published. Its ID is what it is of and its
// version: catalogue-2027.1.
type Edition struct {
	ID      string `json:"id"`
	Of      Of     `json:"of"`
	Version string `json:"version"`
	Note    string `json:"note,omitempty"`
	// Catalogue and Questionnaire are YAML documents, as in framework_dir.
	Catalogue     string `json:"catalogue,omitempty"`
	Questionnaire string `json:"questionnaire,omitempty"`
	Terms         *Terms `json:"terms,omitempty"`
	// Effective is from when it binds; GraceDays how long those who were there
	// before have from then on. A requirement of a catalogue may set its own.
	Effective   registry.Time `json:"effective_at"`
	GraceDays   int           `json:"grace_days"`
	State       State         `json:"state"`
	Proposed    registry.Time `json:"proposed_at"`
	ProposedBy  string        `json:"proposed_by"`
	Published   registry.Time `json:"published_at,omitempty"`
	PublishedBy string        `json:"published_by,omitempty"`
}

// CaseKind implements registry.CaseBody.
func (Edition) CaseKind() registry.CaseKind { return "edition" }

// CaseKeys implements registry.CaseIndexer.
func (e Edition) CaseKeys(add func(index, value string)) {
	add("of", string(e.Of))
	add("state", string(e.State))
}

// Binds is from when an edition that is published binds.
func (e *Edition) Binds() registry.Time { return max(e.Effective, e.Published) }

// Bounds.
const (
	documentBytesMax = 48 << 10
	graceDaysMax     = 3650
	noteBytesMax     = 500
)

var version = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.]{0,31}$`)

// Check refuses an edition that could not take effect beside the rules there
// are, at an instant.
func (e *Edition) Check(rules *certification.Framework, now registry.Time) error {
	switch {
	case !version.MatchString(e.Version):
		return registry.Field("/version", "is no version such as 2027.1")
	case e.GraceDays < 0 || e.GraceDays > graceDaysMax:
		return registry.Field("/grace_days", "use 0 to %d days", graceDaysMax)
	case len(e.Note) > noteBytesMax || registry.HoldsTFN(e.Note):
		return registry.Field("/note", "at most %d bytes, and no tax file number", noteBytesMax)
	case e.Effective < now-registry.Time((24*time.Hour).Milliseconds()):
		return registry.Field("/effective_at", "%s lies in the past", e.Effective)
	}
	if e.Of == Catalogue {
		_, err := e.over(rules)
		return err
	}
	t := e.Terms
	switch {
	case t == nil || strings.TrimSpace(t.Terms) == "" || strings.TrimSpace(t.Declaration) == "":
		return registry.Field("/terms", "give the terms and the declaration")
	case registry.HoldsTFN(t.Terms) || registry.HoldsTFN(t.Declaration):
		return registry.Field("/terms", "hold what looks like a tax file number; leave it out")
	}
	return nil
}

// over lays the edition of a catalogue over rules.
func (e *Edition) over(rules *certification.Framework) (*certification.Framework, error) {
	if len(e.Catalogue) > documentBytesMax {
		return nil, registry.Field("/catalogue", "has %d bytes; at most %d", len(e.Catalogue), documentBytesMax)
	}
	if len(e.Questionnaire) > documentBytesMax {
		return nil, registry.Field("/questionnaire", "has %d bytes; at most %d", len(e.Questionnaire), documentBytesMax)
	}
	if len(rules.Catalogues) > 0 {
		last := rules.Catalogues[len(rules.Catalogues)-1]
		if c, err := certification.ReadCatalogue([]byte(e.Catalogue)); err == nil && !c.Effective.After(last.Effective.Time) {
			return nil, registry.Field("/catalogue", "takes effect on %s, which is not after version %s", c.Effective.Format(time.DateOnly), last.Version)
		}
	}
	next, c, err := rules.With([]byte(e.Catalogue), []byte(e.Questionnaire))
	if err != nil {
		return nil, registry.Field("/catalogue", "%s", strings.TrimPrefix(err.Error(), certification.ErrData.Error()+": "))
	}
	if c.Version != e.Version {
		return nil, registry.Field("/version", "the catalogue says that it is version %q", c.Version)
	}
	return next, nil
}

// Describe takes version, day and grace of a catalogue out of its document.
func (e *Edition) Describe() error {
	c, err := certification.ReadCatalogue([]byte(e.Catalogue))
	if err != nil {
		return registry.Field("/catalogue", "%s", strings.TrimPrefix(err.Error(), certification.ErrData.Error()+": "))
	}
	e.Version, e.Effective, e.GraceDays = c.Version, registry.At(c.Effective.Time), c.GraceDays
	return nil
}

// Rules are the rules with every published edition. Safe for concurrent use.
type Rules struct {
	base   *certification.Framework
	reg    *registry.Register
	latest atomic.Pointer[laid]
}

// laid are the rules as some editions make them.
type laid struct {
	editions []string
	rules    *certification.Framework
}

// NewRules makes them of what is configured; reg nil: of that alone.
func NewRules(reg *registry.Register, base *certification.Framework) *Rules {
	return &Rules{base: base, reg: reg}
}

// Now are the rules as this control plane knows them now: those configured while
// it does not hold the casework.
func (r *Rules) Now() *certification.Framework {
	if r.reg == nil {
		return r.base
	}
	book, err := r.reg.Casebook()
	if err != nil {
		return r.base
	}
	return r.At(book)
}

// At are the rules as a Casebook has them.
func (r *Rules) At(book *registry.Casebook) *certification.Framework {
	ids := published(book, Catalogue)
	if len(ids) == 0 {
		return r.base
	}
	if l := r.latest.Load(); l != nil && slices.Equal(l.editions, ids) {
		return l.rules // an edition that is published does not change
	}
	l := &laid{editions: ids, rules: r.base}
	for _, e := range inOrder(book, ids) {
		// One that does not fit any more, because the configuration came to hold the
		// same version, is in force by that.
		if next, err := e.over(l.rules); err == nil {
			l.rules = next
		}
	}
	r.latest.Store(l)
	return l.rules
}

// TermsAt are the terms in force at an instant: the last published that took
// effect, or otherwise.
func TermsAt(book *registry.Casebook, now registry.Time, otherwise Terms) Terms {
	for _, e := range inOrder(book, published(book, TermsOf)) {
		if e.Binds() <= now && e.Terms != nil {
			otherwise = *e.Terms
		}
	}
	return otherwise
}

func published(book *registry.Casebook, of Of) []string {
	ids, _ := book.Find(registry.Query{Kind: "edition", Where: []registry.Where{{Index: "state", Value: string(Published)}, {Index: "of", Value: string(of)}}, Limit: editionsMax})
	return ids
}

// editionsMax bounds the editions there may be.
const editionsMax = 1000

// inOrder are editions in the order in which they take effect.
func inOrder(book *registry.Casebook, ids []string) []*Edition {
	var out []*Edition
	for _, id := range ids {
		if c, err := registry.CaseOf[Edition](book, id); err == nil {
			out = append(out, &c.Body)
		}
	}
	slices.SortStableFunc(out, func(a, b *Edition) int { return cmp.Compare(a.Binds(), b.Binds()) })
	return out
}

// IDOf is the ID of an edition.
func IDOf(of Of, version string) string { return fmt.Sprintf("%s-%s", of, version) }
