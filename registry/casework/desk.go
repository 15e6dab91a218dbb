package casework

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dspgate/dspgate/internal/identifier"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/edition"
	"github.com/dspgate/dspgate/registry/outbox"
)

// Terms is one version of what an applicant accepts and declares.
type Terms = edition.Terms

// Standards are the service standards: how long each side has.
type Standards struct {
	Acknowledge time.Duration `yaml:"acknowledge"` // the agency, to begin with an application
	Decide      time.Duration `yaml:"decide"`      // the agency, from submission
	Reply       time.Duration `yaml:"reply"`       // the applicant, to a question
	Verify      time.Duration `yaml:"verify"`      // the agency, from self-certification
	Review      time.Duration `yaml:"review"`      // an entity, to answer a review; also the notice before a suspension
	Remedy      time.Duration `yaml:"remedy"`      // an entity, to show again what a change reopened
	Annual      time.Duration `yaml:"annual"`      // from one review of an entity to the next
}

// Config is what a Desk works by. The zero value of a field takes the default.
type Config struct {
	Terms     Terms
	Standards Standards
	// Framework is the catalogue, the questionnaire and the other rules.
	Framework *certification.Framework
	// Assurance opens verifications, on the same Register. Default one without files.
	Assurance *assurance.Desk
	// Checker makes the eligibility checks. Default Manual.
	Checker Checker
	// Runs judges conformance and pilot runs from recorded decisions. Nil: nothing
	// can be judged, and no product passes.
	Runs DecisionSource
	// PilotCalls is how many calls of each service a pilot's scenario takes. Default 1.
	PilotCalls int
	Log        *slog.Logger
}

// day is the unit of the framework's terms.
const day = 24 * time.Hour

// year counts for reviews.
const year = 365 * day

// Desk is every command of registration and certification. Any number of
// goroutines may use it.
type Desk struct {
	reg      *registry.Register
	cfg      Config
	previews previews
}

// New makes a Desk over a Register that was configured with Types.
func New(r *registry.Register, cfg Config) (*Desk, error) {
	if cfg.Framework == nil {
		f, err := certification.Default(certification.OpenDefaults())
		if err != nil {
			return nil, err
		}
		cfg.Framework = f
	}
	if cfg.Assurance == nil {
		cfg.Assurance = assurance.NewDesk(assurance.Config{Register: r, Rules: cfg.Framework, Profiles: Profiles, Shares: Shares, Now: func() time.Time { return r.Now().Std() }})
	}
	if cfg.Terms.Version == "" {
		cfg.Terms = Terms{
			Version:     "2026.1",
			Terms:       "We tell the agency of incidents within 24 hours, of changes of name, contacts and ownership when they happen, and agree that the agency shares what it must with those affected.",
			Declaration: "What is stated here is true and whole, and I may make this application for the business.",
		}
	}
	s := &cfg.Standards
	for _, x := range []struct {
		d         *time.Duration
		otherwise time.Duration
	}{{&s.Acknowledge, 2 * day}, {&s.Decide, 28 * day}, {&s.Reply, 14 * day}, {&s.Verify, 28 * day}, {&s.Review, 28 * day}, {&s.Remedy, 30 * day}, {&s.Annual, year}} {
		if *x.d <= 0 {
			*x.d = x.otherwise
		}
	}
	if cfg.Checker == nil {
		cfg.Checker = Manual{}
	}
	if cfg.PilotCalls <= 0 {
		cfg.PilotCalls = 1
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Desk{reg: r, cfg: cfg}, nil
}

// Types are the types of casework of this package, for registry.RegisterConfig;
// those of assurance and outbox are needed beside them.
func Types() []registry.CaseType {
	return []registry.CaseType{
		registry.CaseTypeOf[Registration](), registry.CaseTypeOf[Certification](), registry.CaseTypeOf[Counter](), registry.CaseTypeOf[Reach](),
	}
}

// Timers are what happens when a due-date of this package's cases has come.
func (d *Desk) Timers() map[registry.CaseKind]registry.FireFunc {
	return map[registry.CaseKind]registry.FireFunc{
		Registration{}.CaseKind():      d.fireRegistration,
		Certification{}.CaseKind():     d.fireCertification,
		assurance.Finding{}.CaseKind(): d.fireFinding,
		Reach{}.CaseKind():             d.fireReach,
	}
}

// Terms are those an applicant accepts now: the last edition that took effect,
// else the configured ones.
func (d *Desk) Terms() Terms {
	b, err := d.reg.Casebook()
	if err != nil {
		return d.cfg.Terms
	}
	return d.termsAt(b, d.reg.Now())
}

// Framework is the set of rules the Desk works by.
func (d *Desk) Framework() *certification.Framework { return d.cfg.Assurance.Rules() }

// do plans and commits one command.
func (d *Desk) do(ctx context.Context, a registry.Actor, name Command, reason string, plan func(*registry.Tx) error) (registry.Outcome, error) {
	return d.reg.Do(ctx, a, string(name), reason, func(t *registry.Tx) error { return translate(plan(t)) })
}

// translate gives an error of package certification the register's sentinel.
func translate(err error) error {
	var f *certification.FieldError
	if errors.As(err, &f) {
		return registry.Field(f.Field, "%s", strings.TrimPrefix(f.Err.Error(), certification.ErrInvalid.Error()+": "))
	}
	return err
}

// Step is one thing that happened to a case.
type Step struct {
	At      registry.Time `json:"at"`
	By      string        `json:"by"` // a person, a program, or timer
	Command Command       `json:"command"`
	From    string        `json:"from,omitempty"` // the state before
	To      string        `json:"to,omitempty"`   // the state after
	Note    string        `json:"note,omitempty"`
}

// stepsMax bounds what a case remembers itself; the audit log has all.
const stepsMax = 200

func addStep(steps []Step, t *registry.Tx, cmd Command, from, to fmt.Stringer, note string) []Step {
	s := Step{At: t.Now(), By: t.Actor().Name, Command: cmd, From: from.String(), To: to.String(), Note: note}
	if len(steps) >= stepsMax {
		steps = steps[len(steps)-stepsMax+1:]
	}
	return append(slices.Clip(steps), s)
}

// Ending is a proposal to end something for good, which takes a second person.
type Ending struct {
	By     string        `json:"by"`
	At     registry.Time `json:"at"`
	Reason string        `json:"reason"`
}

// endingStands is how long a proposal waits for the second person.
const endingStands = 7 * day

// second tells whether this is the second person, who confirms what another
// proposed lately. Otherwise the proposal to be kept comes back.
func (e *Ending) second(t *registry.Tx, reason string) (bool, *Ending, error) {
	fresh := e != nil && t.Now() < later(e.At, endingStands)
	if fresh && e.By == t.Actor().Name {
		return false, e, fmt.Errorf("%w: it takes a second person to confirm what you proposed at %s", registry.ErrForbidden, e.At)
	}
	if fresh {
		return true, nil, nil
	}
	return false, &Ending{By: t.Actor().Name, At: t.Now(), Reason: reason}, nil
}

// Clock is one service standard as it runs: who has to have done what by when.
// Both sides see it.
type Clock struct {
	Name    string        `json:"name"`
	On      string        `json:"on"` // agency or applicant
	Started registry.Time `json:"started_at"`
	Due     registry.Time `json:"due_at"`
	Ended   registry.Time `json:"ended_at,omitempty"`
}

// clocks are those of one case, the newest last.
type clocks []Clock

const clocksMax = 50

func (c *clocks) start(t *registry.Tx, name, on string, d time.Duration) {
	c.stop(t, name)
	if len(*c) >= clocksMax {
		*c = (*c)[1:]
	}
	*c = append(slices.Clip(*c), Clock{Name: name, On: on, Started: t.Now(), Due: later(t.Now(), d)})
}

func (c *clocks) stop(t *registry.Tx, names ...string) {
	*c = slices.Clone(*c)
	for i := range *c {
		if x := &(*c)[i]; x.Ended == 0 && slices.Contains(names, x.Name) {
			x.Ended = t.Now()
		}
	}
}

func later(at registry.Time, d time.Duration) registry.Time {
	return at + registry.Time(d.Milliseconds())
}

// due is when the first of the running clocks on somebody is due; 0 when none runs.
func (c clocks) due(on string) registry.Time { _, first := c.Next(on); return first }

// Next is the first running clock on somebody, agency or applicant: its name, and
// when it is due; "" and 0 when none runs.
func (c clocks) Next(on string) (name string, due registry.Time) {
	for _, x := range c {
		if x.On == on && x.Ended == 0 && (due == 0 || x.Due < due) {
			name, due = x.Name, x.Due
		}
	}
	return name, due
}

// dues are the due-dates of a case by what is due.
type dues []registry.Due

func (d *dues) set(what string, at registry.Time) {
	d.clear(what)
	*d = append(*d, registry.Due{What: what, At: at})
}

func (d *dues) clear(what string) {
	*d = slices.DeleteFunc(slices.Clone(*d), func(x registry.Due) bool { return x.What == what })
}

// tell queues a message to an entity's people in the change: to the contact named
// for such things, else to whoever applied.
func tell(t *registry.Tx, to registry.ABN, about, subject, text string) error {
	return tellAs(t, 0, to, about, subject, text)
}

// tellAs is tell for a change that tells several; n tells them apart.
func tellAs(t *registry.Tx, n int, to registry.ABN, about, subject, text string) error {
	address := ""
	r, err := registry.TxCase[Registration](t, to.String())
	switch {
	case err == nil:
		address = r.Body.Form.Applicant.Email
		if i := slices.IndexFunc(r.Body.Form.Contacts, func(c Contact) bool { return c.For == "responsible" }); i >= 0 {
			address = r.Body.Form.Contacts[i].Email
		}
	case !errors.Is(err, registry.ErrNotFound):
		return err
	}
	if e := t.View().Entity(to); address == "" && e != nil {
		address = e.Contact
	}
	if address == "" || checkMail("", address) != nil {
		return nil // nobody is known, or no mailbox of anybody; it stands in the case
	}
	return outbox.Put(t, messageOfCase+n, outbox.Message{Means: outbox.Mail, To: address, Subject: subject, Body: text + "\n", About: about})
}

// messageOfCase tells this package's message of a change from those of others.
const messageOfCase = 500

// Counter numbers things.
type Counter struct {
	Next uint64 `json:"next"`
}

// CaseKind implements registry.CaseBody.
func (Counter) CaseKind() registry.CaseKind { return "counter" }

// CheckProductID refuses an ID that is none by the framework's configuration.
func (d *Desk) CheckProductID(id string) error {
	return translate(d.Framework().Open.CheckProductID(id))
}

// nextProductID is the next free one, such as FP-1013.
func (d *Desk) nextProductID(t *registry.Tx) (string, error) {
	c, err := registry.TxCase[Counter](t, "product")
	next := uint64(1001)
	switch {
	case err == nil:
		next = c.Body.Next
	case !errors.Is(err, registry.ErrNotFound):
		return "", err
	}
	id := func() string { return fmt.Sprintf("%s%d", d.Framework().Open.ProductIDPrefix, next) }
	for t.View().Product(id()) != nil {
		next++
	}
	return id(), registry.PutCase(t, "product", Counter{Next: next + 1})
}

// Bounds on what people write.
const (
	lineMax = 200
	textMax = 4000
)

// checkLine bounds one line of text; checkText several. What looks like a tax
// file number is refused.
func checkLine(pointer, s string, needed bool) error {
	return checkFree(pointer, s, lineMax, needed, false)
}

func checkText(pointer, s string, needed bool) error {
	return checkFree(pointer, s, textMax, needed, true)
}

func checkFree(pointer, s string, bytesMax int, needed, lines bool) error {
	switch {
	case strings.TrimSpace(s) == "" && needed:
		return registry.Field(pointer, "must be given")
	case len(s) > bytesMax:
		return registry.Field(pointer, "has %d bytes; at most %d", len(s), bytesMax)
	case !utf8.ValidString(s):
		return registry.Field(pointer, "is not valid UTF-8")
	case strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) && (!lines || c != '\n') }):
		return registry.Field(pointer, "holds characters that cannot be printed")
	case identifier.HoldsTFN(s):
		return registry.Field(pointer, "holds what looks like a tax file number; leave it out")
	}
	return nil
}

func checkMail(pointer, s string) error {
	if a, err := mail.ParseAddress(s); err != nil || a.Address != s || len(s) > lineMax {
		return registry.Field(pointer, "is no e-mail address")
	}
	return nil
}
