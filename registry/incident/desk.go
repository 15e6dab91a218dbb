package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/dspgate/dspgate/internal/identifier"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/outbox"
)

// ClockIndex is the index of the clocks that run of incidents that are open and no
// drills: the deadline and, after a space, the duty.
const ClockIndex = "clock"

// CaseKind is incident.
func (Incident) CaseKind() registry.CaseKind { return "incident" }

// CaseKeys: incidents are found by state, level, type, officer, product, the
// words of their title, and owner: the entities that may see them. Live ones that are
// no drill also by open (owned or unowned) and by ClockIndex.
func (x Incident) CaseKeys(add func(index, value string)) {
	add("state", string(x.State))
	add("live", fmt.Sprint(x.State.Live()))
	if x.State.Live() && !x.Drill { // nobody is woken for a drill
		owned := "owned"
		if x.Owner == "" {
			owned = "unowned"
		}
		add("open", owned)
		for _, c := range x.Clocks(0) { // their deadlines depend on no clock
			if end := c.Deadline(); end.Set() && !c.Done.Set() {
				add(ClockIndex, end.String()+" "+string(c.Duty))
			}
		}
	}
	if x.Level != "" {
		add("level", string(x.Level))
	}
	if x.Type != "" {
		add("type", string(x.Type))
	}
	if x.Owner != "" {
		add("officer", x.Owner)
	}
	if x.Entity != 0 {
		add("owner", x.Entity.String())
	}
	if x.Reporter.Entity != 0 && x.Reporter.Entity != x.Entity {
		add("owner", x.Reporter.Entity.String())
	}
	if x.Signal != "" {
		add("signal", x.Signal)
	}
	seen := map[string]bool{}
	for _, s := range x.Subjects {
		if id, _, ok := productOf(s); ok && !seen[id] {
			seen[id] = true
			add("product_id", id)
		}
	}
	registry.Words(x.ID+" "+x.Title, func(w string) { add("word", w) })
}

// CaseDues are the escalations nobody was told of yet.
func (x Incident) CaseDues() (dues []registry.Due) {
	for _, e := range x.Escalations(0) {
		if what := e.word(); !x.happened(what) {
			dues = append(dues, registry.Due{What: what, At: e.At})
		}
	}
	return dues
}

// word names an escalation in the timeline: notify-agency:overdue. An Overdue
// one counts a moment after the deadline, so that met at the deadline is met.
func (e Escalation) word() string { return string(e.Duty) + ":" + string(e.Status) }

func (x *Incident) happened(what string) bool {
	return slices.ContainsFunc(x.Timeline, func(e Event) bool { return e.What == what })
}

// Desk is every command on incidents. Its fields are set before the first.
type Desk struct {
	Register   *registry.Register
	Thresholds Thresholds
	Notices    *Notices
	// ByAwareness: the 24 hours of a report count from awareness, not from the
	// event; an open question of the framework. Of incidents reported from now on.
	ByAwareness bool
	// Officers are the mail addresses told of new incidents and of duties that
	// run out.
	Officers []string
	// Export is the agency's own incident process: an https URL that is told of
	// every new, changed and closed incident. "": none.
	Export string
	// OnHigh and OnLate are what a high level and a late report set off in the
	// certification of a product: planned in the same change. Nil: nothing.
	OnHigh func(t *registry.Tx, product, incident string) error
	OnLate func(t *registry.Tx, product, incident string) error
	// AddOns are the developers of a product's add-ons that may be written to. Nil:
	// none is told.
	AddOns func(book *registry.Casebook, product string) []Contact
}

// Contact is somebody to write to who need not be in the register.
type Contact struct{ Name, Contact string }

// CaseTypes are the kinds of casework that a Desk writes.
func CaseTypes() []registry.CaseType {
	return []registry.CaseType{registry.CaseTypeOf[Incident](), registry.CaseTypeOf[outbox.Message]()}
}

// Timers are what happens when a duty runs out, for registry.RunTimers.
func (d *Desk) Timers() map[registry.CaseKind]registry.FireFunc {
	return map[registry.CaseKind]registry.FireFunc{Incident{}.CaseKind(): d.Fire}
}

// Bounds of the desk.
const draftsMax = 200 // open drafts of one reporter

// ErrDraft: the report cannot be raised as it is, and was kept as a draft. It
// comes with an Outcome that names the draft, and wraps every FieldError.
var ErrDraft = errors.New("kept as a draft")

const staff = registry.PermIncidentOfficer | registry.PermOperator

func needOfficer(a registry.Actor) error {
	if a.Has(staff) {
		return nil
	}
	return fmt.Errorf("%w: incidents are worked on by incident officers and operators", registry.ErrForbidden)
}

// mayReport: everybody but an auditor, who changes nothing. A developer reports
// for its own entity only.
func mayReport(a registry.Actor, entity registry.ABN) error {
	switch {
	case a.Has(^(registry.PermAuditor | registry.PermDeveloper)):
		return nil
	case a.Has(registry.PermDeveloper) && a.Entity != 0 && (entity == 0 || entity == a.Entity):
		return nil
	case a.Has(registry.PermDeveloper):
		return fmt.Errorf("%w: a developer reports for its own entity", registry.ErrForbidden)
	}
	return fmt.Errorf("%w: an auditor reports to an officer", registry.ErrForbidden)
}

// MaySee tells whether somebody is shown an incident at all: the agency's
// assigned staff, the entity it concerns and the one that reported it.
func (x *Incident) MaySee(a registry.Actor) bool {
	return a.Has(staff|registry.PermAuditor|registry.PermAssessor) ||
		a.Has(registry.PermDeveloper) && a.Entity != 0 && (x.Entity == a.Entity || x.Reporter.Entity == a.Entity)
}

// Raise takes a report. One that cannot be raised yet is kept as a draft, and
// the answer says so (ErrDraft); no report is lost, whatever is wrong with it.
func (d *Desk) Raise(ctx context.Context, a registry.Actor, x Incident) (registry.Outcome, error) {
	if err := mayReport(a, x.Entity); err != nil {
		return registry.Outcome{}, err
	}
	var problem error
	out, err := d.Register.Do(ctx, a, "incident.raise", "", func(t *registry.Tx) error {
		n := x
		n.ID, n.State = fmt.Sprintf("INC-%d", t.Revision()), Reported
		n.ReportedAt, n.Timeline, n.ByAwareness = t.Now(), nil, d.ByAwareness
		if a.Has(registry.PermDeveloper) && !a.Has(staff) {
			n.Entity, n.Reporter.Entity = a.Entity, a.Entity
			n.Owner, n.Level, n.Drill = "", "", false
		}
		if n.Reporter.Name == "" {
			n.Reporter.Name = a.Name
		}
		n.heard(t)
		problem = d.checkAll(t, a, &n)
		if problem != nil {
			if err := roomForDraft(t, a); err != nil {
				return errors.Join(problem, err)
			}
			n.State = Draft
			n.sanitise()
		}
		n.told(t, "raised", string(n.Channel))
		if err := d.announce(t, &n, "raised"); err != nil {
			return err
		}
		return registry.CreateCase(t, n.ID, n) // last: the outcome names what was written last
	})
	if err == nil && problem != nil {
		err = fmt.Errorf("%w as %s: %w", ErrDraft, out.ID, problem)
	}
	return out, err
}

// checkAll is Check and what only the register knows.
func (d *Desk) checkAll(t *registry.Tx, a registry.Actor, x *Incident) error {
	errs := []error{x.Check(t.Now())}
	if x.Entity != 0 && t.View().Entity(x.Entity) == nil {
		errs = append(errs, registry.Field("/entity", "no entity %s is in the register", x.Entity))
	}
	for i, s := range x.Subjects {
		pointer := fmt.Sprintf("/subjects/%d", i)
		err := t.View().CheckSubject(pointer, s)
		if err == nil && !a.Has(staff) && !concerns(t.View(), s, a.Entity) && a.Has(registry.PermDeveloper) && !a.Has(^registry.PermDeveloper) {
			// What is not its own does not exist for a developer.
			err = registry.Field(pointer+"/id", "no %s %s is in the register", s.Kind, cut(s.ID))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// concerns tells whether a subject is an entity's own.
func concerns(v *registry.View, s registry.SubjectRef, abn registry.ABN) bool {
	delivers := func(id string) bool { p := v.Product(id); return p != nil && p.Delivers(abn) }
	switch s.Kind {
	case registry.KindEntity:
		return s.ID == abn.String()
	case registry.KindProduct, registry.KindVersion:
		id, _, _ := productOf(s)
		return delivers(id)
	case registry.KindClientApp:
		x := v.ClientApp(s.ID)
		return x != nil && delivers(x.ProductID)
	case registry.KindSubscription:
		x := v.Subscription(s.ID)
		return x != nil && delivers(x.ProductID)
	case registry.KindCredential:
		x := v.Credential(s.ID)
		return x != nil && x.ABN == abn
	}
	return false
}

func roomForDraft(t *registry.Tx, a registry.Actor) error {
	book, err := t.Casebook()
	if err != nil {
		return err
	}
	if a.Has(staff) {
		return nil
	}
	_, n := book.Find(registry.Query{Kind: "incident", Where: []registry.Where{{Index: "state", Value: string(Draft)}, {Index: "owner", Value: a.Entity.String()}}})
	if n >= draftsMax {
		return registry.Field("", "you have %d drafts already; complete them first", n)
	}
	return nil
}

// sanitise makes a draft keepable: bounded, without control characters, and
// with every digit of a text that holds a tax file number struck out.
func (x *Incident) sanitise() {
	for _, s := range []*string{&x.Title, &x.Description, &x.Reporter.Name, &x.Reporter.Email, &x.LevelReason, &x.Cause, &x.Done, &x.Lessons, &x.Exposure.FileFormat} {
		*s = harmless(*s)
	}
	x.Type, x.Level, x.Channel = Type(harmless(string(x.Type))), Level(harmless(string(x.Level))), Channel(harmless(string(x.Channel)))
	x.Subjects = x.Subjects[:min(len(x.Subjects), subjectsMax)]
	x.Indicators = slices.DeleteFunc(slices.Clone(x.Indicators[:min(len(x.Indicators), indicatorsMax)]), func(i Indicator) bool { return i.check() != nil })
	x.Exposure.SSIDs = x.Exposure.SSIDs[:min(len(x.Exposure.SSIDs), ssidsMax)]
	x.Exposure.DataTypes = x.Exposure.DataTypes[:min(len(x.Exposure.DataTypes), dataTypesMax)]
	for i := range x.Exposure.DataTypes {
		x.Exposure.DataTypes[i] = harmless(x.Exposure.DataTypes[i])
	}
	x.Treatment, x.Requests = nil, nil // a report has none
}

func harmless(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), textMax)], "")
	s = strings.Map(func(r rune) rune {
		if misleads(r) {
			return ' '
		}
		return r
	}, s)
	if identifier.HoldsTFN(s) {
		s = strings.Map(func(r rune) rune {
			if unicode.IsDigit(r) {
				return '#'
			}
			return r
		}, s)
	}
	return s
}

// told adds a line to the timeline.
func (x *Incident) told(t *registry.Tx, what, note string) {
	x.Timeline = append(slices.Clip(x.Timeline), Event{At: t.Now(), By: t.Actor().Name, What: what, Note: note})
}

// heard stops the agency's clock when it is the entity concerned that tells.
// What the agency found out by itself was not reported: that clock runs on.
func (x *Incident) heard(t *registry.Tx) {
	if !x.Notified.Agency.Set() && x.Reporter.Entity != 0 && x.Reporter.Entity == x.Entity {
		x.Notified.Agency = t.Now()
	}
}

// late makes the finding of an incident that was reported late or not at all,
// once. A drill makes none.
func (d *Desk) late(t *registry.Tx, x *Incident) error {
	const what = "finding: reported late or not at all"
	if x.Drill || d.OnLate == nil || x.Channel == BySignal && x.State == Reported || x.happened(what) || !x.LateReport(t.Now()) {
		return nil
	}
	x.told(t, what, "")
	return x.eachProduct(func(p string) error { return d.OnLate(t, p, x.ID) })
}

// announce queues the mail to the officers and the export, in the same change.
func (d *Desk) announce(t *registry.Tx, x *Incident, what string) error {
	n := 0
	put := func(m outbox.Message) error {
		m.About, m.Drill = "incident/"+x.ID, x.Drill
		n++
		return outbox.Put(t, n, m)
	}
	if what == "raised" || strings.Contains(what, ":") {
		for _, to := range d.Officers {
			body := fmt.Sprintf("%s is %s: %s.\nReported at %s through %s.\n", x.ID, x.State, what, x.ReportedAt, x.Channel)
			if err := put(outbox.Message{Means: outbox.Mail, To: to, Subject: fmt.Sprintf("Incident %s %s", x.ID, what), Body: body}); err != nil {
				return err
			}
		}
	}
	if d.Export != "" && x.State != Draft {
		body, err := exported(x, what)
		if err != nil {
			return err
		}
		return put(outbox.Message{Means: outbox.Webhook, To: d.Export, Subject: "incident." + what, Body: body})
	}
	return nil
}

// change is the frame of every command on an incident: found, seen, allowed,
// changed, told, announced, in one commit.
func (d *Desk) change(ctx context.Context, a registry.Actor, id, command, reason string, m registry.Meta, edit func(*registry.Tx, *Incident) error) (registry.Outcome, error) {
	return d.Register.Do(ctx, a, "incident."+command, reason, func(t *registry.Tx) error {
		x, err := registry.ChangingCase[Incident](t, id, m)
		if err == nil && !x.MaySee(a) || errors.Is(err, registry.ErrPrecondition) && !x.MaySee(a) {
			return fmt.Errorf("%w: incident %s", registry.ErrNotFound, cut(id))
		}
		if err != nil {
			return err
		}
		lines := len(x.Timeline)
		if err := edit(t, &x); err != nil {
			return err
		}
		if len(x.Timeline) == lines {
			x.told(t, command, reason)
		}
		if x.State != Draft {
			if err := x.Check(t.Now()); err != nil {
				return err
			}
		}
		if err := d.announce(t, &x, x.Timeline[len(x.Timeline)-1].What); err != nil {
			return err
		}
		return registry.PutCase(t, id, x)
	})
}

// move brings the incident into another state, when the table says so.
func (x *Incident) move(to State) error {
	if x.State == to || slices.Contains(next[x.State], to) {
		x.State = to
		return nil
	}
	return x.wrongState()
}

// wrongState refuses what the incident's state does not let happen.
func (x *Incident) wrongState() error {
	return fmt.Errorf("%w: incident %s is %s; what may follow is %s", registry.ErrState, x.ID, x.State, orNothing(join(next[x.State])))
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
