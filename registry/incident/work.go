package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/outbox"
)

// Stage is what a later stage of a report adds or corrects; nil leaves as it is.
type Stage struct {
	Title       *string
	Description *string
	Type        *Type
	Entity      *registry.ABN
	OccurredAt  *registry.Time
	AwareAt     *registry.Time
	Subjects    []registry.SubjectRef
	Exposure    *Exposure
	Indicators  []Indicator
}

// Amend adds a stage to a report: details come in stages. A draft that is whole
// by now is raised.
func (d *Desk) Amend(ctx context.Context, a registry.Actor, id string, s Stage, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "amend", "", m, func(t *registry.Tx, x *Incident) error {
		if err := mayReport(a, x.Entity); err != nil {
			return err
		}
		if !x.State.Live() {
			return x.wrongState()
		}
		set(&x.Title, s.Title)
		set(&x.Description, s.Description)
		set(&x.Type, s.Type)
		if a.Has(staff) {
			set(&x.Entity, s.Entity)
		} else if a.Entity == x.Entity && x.Reporter.Entity == 0 {
			x.Reporter.Entity = a.Entity // now it has told, too
		}
		x.heard(t)
		set(&x.OccurredAt, s.OccurredAt)
		set(&x.AwareAt, s.AwareAt)
		set(&x.Exposure, s.Exposure)
		if s.Subjects != nil {
			x.Subjects = s.Subjects
		}
		if s.Indicators != nil {
			x.Indicators = s.Indicators
		}
		if err := d.checkAll(t, a, x); err != nil {
			return err
		}
		if x.State == Draft {
			x.told(t, "raised", "completed")
			return x.move(Reported)
		}
		// What is known now can be worse than what was triaged.
		if level, why := d.Thresholds.Derive(&x.Exposure); x.Level != "" && x.Level.Below(level) {
			x.Level, x.LevelReason = level, "raised by what is known since: "+why
			return d.levelled(t, x)
		}
		return nil
	})
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// Triage gives the incident its level and its owner. Level "" takes the derived
// one; a milder one needs a reason.
func (d *Desk) Triage(ctx context.Context, a registry.Actor, id string, level Level, owner, reason string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "triage", reason, m, func(t *registry.Tx, x *Incident) error {
		if err := needOfficer(a); err != nil {
			return err
		}
		derived, why := d.Thresholds.Derive(&x.Exposure)
		switch {
		case level == "":
			level, reason = derived, why
		case level.rank() == 0:
			return registry.Field("/level", "%q is no level; use one of %s", cut(string(level)), join(Levels()))
		case level.Below(derived) && strings.TrimSpace(reason) == "":
			return registry.Field("/reason", "say why it is %s: by its exposure it is %s (%s)", level, derived, why)
		case strings.TrimSpace(reason) == "":
			reason = why
		}
		if x.State == Reported || x.State == Draft {
			if err := x.move(Triaged); err != nil {
				return err
			}
		} else if !x.State.Live() {
			return x.move(Triaged)
		}
		x.Level, x.LevelReason, x.Owner = level, reason, owner
		if owner == "" {
			x.Owner = a.Name
		}
		x.told(t, "triaged", fmt.Sprintf("%s: %s; owner %s", level, reason, x.Owner))
		if err := d.late(t, x); err != nil {
			return err
		}
		return d.levelled(t, x)
	})
}

// levelled sets off what a high level does. A drill sets nothing off.
func (d *Desk) levelled(t *registry.Tx, x *Incident) error {
	if x.Level != High || x.Drill || d.OnHigh == nil {
		return nil
	}
	return x.eachProduct(func(p string) error { return d.OnHigh(t, p, x.ID) })
}

func (x *Incident) eachProduct(do func(product string) error) error {
	var done []string
	for _, s := range x.Subjects {
		id, _, ok := productOf(s)
		if !ok || slices.Contains(done, id) {
			continue
		}
		done = append(done, id)
		if err := do(id); err != nil {
			return err
		}
	}
	return nil
}

// Contain enters a suspension that was imposed from this incident (it names the
// incident), or says how else the harm was stopped.
func (d *Desk) Contain(ctx context.Context, a registry.Actor, id, suspension, how string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "contain", how, m, func(t *registry.Tx, x *Incident) error {
		if err := needOfficer(a); err != nil {
			return err
		}
		if suspension == "" && strings.TrimSpace(how) == "" {
			return registry.Field("/how", "say how it was contained, or name the suspension")
		}
		if suspension != "" {
			s := t.View().Suspension(suspension)
			if s == nil || s.IncidentID != x.ID {
				return registry.Field("/suspension_id", "no suspension %s was imposed from %s", cut(suspension), x.ID)
			}
			if !slices.Contains(x.Containment, suspension) {
				x.Containment = append(slices.Clip(x.Containment), suspension)
			}
			how = strings.TrimSpace(suspension + " " + how)
		}
		if x.State != Contained {
			if err := x.move(Contained); err != nil {
				return err
			}
		}
		x.told(t, "contained", how)
		return nil
	})
}

// AskLogs asks an entity for its logs by a day. Its contact is mailed.
func (d *Desk) AskLogs(ctx context.Context, a registry.Actor, id string, entity registry.ABN, what string, due registry.Time, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "ask-logs", "", m, func(t *registry.Tx, x *Incident) error {
		if err := needOfficer(a); err != nil {
			return err
		}
		e := t.View().Entity(entity)
		switch {
		case !x.State.Live():
			return x.wrongState()
		case e == nil:
			return registry.Field("/entity", "no entity %s is in the register", entity)
		case strings.TrimSpace(what) == "":
			return registry.Field("/what", "say which logs, of which time")
		case due <= t.Now():
			return registry.Field("/due", "is past")
		}
		r := LogRequest{ID: fmt.Sprintf("LR-%d", t.Revision()), Entity: entity, What: what, AskedAt: t.Now(), Due: due}
		x.Requests = append(slices.Clip(x.Requests), r)
		x.told(t, "logs asked", r.ID+" of "+entity.String())
		if e.Contact == "" {
			return nil
		}
		return outbox.Put(t, 1000, outbox.Message{
			Means: outbox.Mail, To: e.Contact, About: "incident/" + x.ID, Drill: x.Drill, Subject: drill(x, "Logs needed for incident "+x.ID),
			Body: fmt.Sprintf("We need from you, by %s:\n\n%s\n\nAnswer as %s in the console. Keep everything else as well; delete nothing.\n", due, what, r.ID),
		})
	})
}

func drill(x *Incident, subject string) string {
	if x.Drill {
		return "DRILL – " + subject
	}
	return subject
}

// AnswerLogs says where the logs asked for are: an evidence ID.
func (d *Desk) AnswerLogs(ctx context.Context, a registry.Actor, id, request, evidence string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "answer-logs", "", m, func(t *registry.Tx, x *Incident) error {
		i := slices.IndexFunc(x.Requests, func(r LogRequest) bool { return r.ID == request })
		switch {
		case i < 0 || !a.Has(staff) && x.Requests[i].Entity != a.Entity:
			return fmt.Errorf("%w: request %s", registry.ErrNotFound, cut(request))
		case !a.Has(staff | registry.PermDeveloper):
			return fmt.Errorf("%w: the entity asked answers", registry.ErrForbidden)
		case strings.TrimSpace(evidence) == "" || len(evidence) > 200:
			return registry.Field("/evidence", "name the evidence that holds the logs")
		}
		x.Requests = slices.Clone(x.Requests)
		x.Requests[i].Answered, x.Requests[i].Evidence = t.Now(), evidence
		x.told(t, "logs answered", request)
		return nil
	})
}

// Plan sets the treatment plan. Done steps cannot be dropped.
func (d *Desk) Plan(ctx context.Context, a registry.Actor, id string, plan []Action, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "plan", "", m, func(t *registry.Tx, x *Incident) error {
		if err := needOfficer(a); err != nil {
			return err
		}
		if len(plan) == 0 {
			return registry.Field("/treatment", "needs at least one step")
		}
		for i, s := range plan {
			if strings.TrimSpace(s.What) == "" || s.Owner == "" || !s.Due.Set() {
				return registry.Field(fmt.Sprintf("/treatment/%d", i), "needs what, owner and due")
			}
		}
		for _, old := range x.Treatment {
			if old.Done.Set() && !slices.Contains(plan, old) {
				return registry.Field("/treatment", "a step that is done stays: %s", cut(old.What))
			}
		}
		x.Treatment = plan
		allDone := !slices.ContainsFunc(plan, func(s Action) bool { return !s.Done.Set() })
		if !allDone {
			x.told(t, "planned", fmt.Sprintf("%d steps", len(plan)))
			return nil
		}
		if err := x.move(Treated); err != nil {
			return err
		}
		x.told(t, "treated", fmt.Sprintf("%d steps done", len(plan)))
		return nil
	})
}

// Assess records the decision whether a breach is an eligible data breach, and
// when OAIC and individuals were told. Zero times leave what is there.
func (d *Desk) Assess(ctx context.Context, a registry.Actor, id string, eligible bool, oaic, individuals registry.Time, reason string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "assess", reason, m, func(t *registry.Tx, x *Incident) error {
		if err := needOfficer(a); err != nil {
			return err
		}
		if !x.Exposure.Breach() {
			return fmt.Errorf("%w: incident %s is no data breach; amend what was exposed first", registry.ErrState, x.ID)
		}
		for p, at := range map[string]registry.Time{"/oaic": oaic, "/individuals": individuals} {
			if at > t.Now() || at.Set() && at < x.AwareAt {
				return registry.Field(p, "lies in the future, or before anybody knew")
			}
		}
		n := &x.Notified
		if !n.Assessed.Set() {
			n.Assessed = t.Now()
		}
		n.Eligible = eligible
		set(&n.OAIC, some(oaic))
		set(&n.Individuals, some(individuals))
		x.told(t, "assessed", fmt.Sprintf("eligible data breach: %t. %s", eligible, reason))
		return nil
	})
}

func some(t registry.Time) *registry.Time {
	if !t.Set() {
		return nil
	}
	return &t
}

// Close ends the incident: it needs a cause, what was done, and lessons if
// there are any to publish.
func (d *Desk) Close(ctx context.Context, a registry.Actor, id, cause, done, lessons string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "close", "", m, func(t *registry.Tx, x *Incident) error {
		if err := needOfficer(a); err != nil {
			return err
		}
		if x.State == Contained && len(x.Treatment) == 0 {
			x.State = Treated // containing it was the treatment
		}
		to := *x
		if err := to.move(Closed); err != nil {
			return err
		}
		x.Cause, x.Done, x.Lessons = cause, done, lessons
		if err := x.CanClose(); err != nil {
			return err
		}
		for _, s := range x.Containment {
			if c := t.View().Suspension(s); c != nil && c.Active(t.Now()) && c.Expires.Set() {
				return registry.Field("/containment", "suspension %s is still in force and will expire by itself; lift it, or make it permanent by a notice", s)
			}
		}
		x.State = Closed
		x.told(t, "closed", cause)
		return nil
	})
}

// Dismiss ends a report that is no incident, or is the same as another.
func (d *Desk) Dismiss(ctx context.Context, a registry.Actor, id, reason, same string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "dismiss", reason, m, func(t *registry.Tx, x *Incident) error {
		if err := needOfficer(a); err != nil {
			return err
		}
		if strings.TrimSpace(reason) == "" {
			return registry.Field("/reason", "say why it is no incident")
		}
		if same != "" {
			if _, err := registry.TxCase[Incident](t, same); same == id || err != nil {
				return registry.Field("/same_as", "no other incident %s", cut(same))
			}
		}
		x.Same = same
		x.told(t, "dismissed", reason)
		return x.move(Dismissed)
	})
}

// AppealAgainst asks for a second look, by the entity.
func (d *Desk) AppealAgainst(ctx context.Context, a registry.Actor, id, grounds string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "appeal", "", m, func(t *registry.Tx, x *Incident) error {
		if !a.Has(registry.PermDeveloper) || a.Entity == 0 || a.Entity != x.Entity {
			return fmt.Errorf("%w: the entity concerned appeals", registry.ErrForbidden)
		}
		if strings.TrimSpace(grounds) == "" {
			return registry.Field("/grounds", "say what should be looked at again")
		}
		if x.State == Appealed {
			return fmt.Errorf("%w: incident %s is under appeal already; next may be decide-appeal", registry.ErrState, x.ID)
		}
		if err := x.move(Appealed); err != nil {
			return err
		}
		x.Appeal = &Appeal{By: a.Name, At: t.Now(), Grounds: grounds}
		x.told(t, "appealed", "")
		return nil
	})
}

// DecideAppeal takes two people, neither of whom owns the incident or imposed
// its containment. Upheld suspensions are lifted by the second afterwards.
func (d *Desk) DecideAppeal(ctx context.Context, a registry.Actor, id string, upheld bool, reason string, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "decide-appeal", reason, m, func(t *registry.Tx, x *Incident) error {
		if err := needOfficer(a); err != nil {
			return err
		}
		if x.State != Appealed || x.Appeal == nil {
			return fmt.Errorf("%w: incident %s is %s; there is no appeal to decide", registry.ErrState, x.ID, x.State)
		}
		if strings.TrimSpace(reason) == "" {
			return registry.Field("/reason", "say why")
		}
		if a.Name == x.Owner || slices.ContainsFunc(x.Containment, func(s string) bool {
			c := t.View().Suspension(s)
			return c != nil && (c.ImposedBy == a.Name || c.ConfirmedBy == a.Name)
		}) {
			return fmt.Errorf("%w: who owns the incident or imposed its containment does not decide the appeal", registry.ErrForbidden)
		}
		ap := *x.Appeal
		x.Appeal = &ap
		if ap.First == "" {
			x.Appeal.First, x.Appeal.Upheld = a.Name, upheld
			x.told(t, "appeal: first", fmt.Sprintf("upheld %t: %s", upheld, reason))
			return nil
		}
		switch {
		case ap.First == a.Name:
			return fmt.Errorf("%w: a second person decides", registry.ErrForbidden)
		case ap.Upheld != upheld:
			// They do not agree: it starts again, with others.
			x.Appeal.First, x.Appeal.Upheld = "", false
			x.told(t, "appeal: disagreed", reason)
			return nil
		}
		x.Appeal.Second, x.Appeal.Decided = a.Name, t.Now()
		x.told(t, "appeal decided", fmt.Sprintf("upheld %t: %s", upheld, reason))
		if upheld {
			return x.move(Treated)
		}
		return x.move(Contained)
	})
}

// Fire tells the officers that a duty runs out or has run out. It is the
// incident's registry.FireFunc.
func (d *Desk) Fire(t *registry.Tx, id string, due registry.Due) error {
	c, err := registry.TxCase[Incident](t, id)
	if err != nil {
		return err
	}
	x := c.Body
	x.told(t, due.What, "due "+due.At.String())
	if err := d.late(t, &x); err != nil {
		return err
	}
	if !x.Drill {
		if err := d.announce(t, &x, due.What); err != nil {
			return err
		}
	}
	return registry.PutCase(t, id, x)
}

// Recipients are those who may be told of an incident, found in the register:
// the entity concerned, the other entities in the chains of its products, and
// the users whose subscriptions are exposed.
// The developers of the add-ons of its products follow the chain.
func (d *Desk) Recipients(book *registry.Casebook, x *Incident) (all []Addressed) {
	v := book.View
	add := func(audience Audience, abn registry.ABN, r Recipient) {
		e := v.Entity(abn)
		if slices.ContainsFunc(all, func(y Addressed) bool { return y.Recipient.Entity == abn }) {
			return
		}
		r.Audience, r.Entity = audience, abn
		if e == nil { // users need not be registered
			all = append(all, Addressed{Recipient: r, Name: "ABN " + abn.String()})
			return
		}
		all = append(all, Addressed{Recipient: r, Name: e.Name, Contact: e.Contact})
	}
	issued := map[registry.ABN][]string{} // by the owner of the product
	users := map[registry.ABN][]string{}
	for _, id := range x.Exposure.SSIDs {
		sub := v.Subscription(id)
		if sub == nil {
			continue
		}
		users[sub.ClientABN] = append(users[sub.ClientABN], id)
		if p := v.Product(sub.ProductID); p != nil {
			issued[p.Owner] = append(issued[p.Owner], id)
		}
	}
	if x.Entity != 0 {
		add(Entity, x.Entity, Recipient{SSIDs: issued[x.Entity]})
	}
	_ = x.eachProduct(func(id string) error { // never fails
		p := v.Product(id)
		if p == nil {
			return nil
		}
		add(Entity, p.Owner, Recipient{SSIDs: issued[p.Owner]})
		for _, abn := range p.Chain {
			add(Chain, abn, Recipient{InChain: true, SSIDs: issued[abn]})
		}
		if d.AddOns == nil {
			return nil
		}
		for _, a := range d.AddOns(book, id) {
			if !slices.ContainsFunc(all, func(y Addressed) bool { return y.Contact == a.Contact }) {
				all = append(all, Addressed{Recipient: Recipient{Audience: Chain, InChain: true}, Name: a.Name, Contact: a.Contact})
			}
		}
		return nil
	})
	abns := make([]registry.ABN, 0, len(users))
	for abn := range users {
		abns = append(abns, abn)
	}
	slices.Sort(abns)
	for _, abn := range abns {
		add(User, abn, Recipient{SSIDs: users[abn]})
	}
	return all
}

// Addressed is a recipient, and where it is reached: "" when only by post.
type Addressed struct {
	Recipient Recipient
	Name      string
	Contact   string
}

// Notify sends the notices to the audiences named, as Preview shows them, and
// stops the clocks they stop.
func (d *Desk) Notify(ctx context.Context, a registry.Actor, id string, audiences []Audience, m registry.Meta) (registry.Outcome, error) {
	return d.change(ctx, a, id, "notify", "", m, func(t *registry.Tx, x *Incident) error {
		if err := needOfficer(a); err != nil {
			return err
		}
		if !x.State.Live() || x.State == Draft {
			return x.wrongState()
		}
		if len(audiences) == 0 {
			return registry.Field("/audiences", "name at least one of entity, chain, intermediary, user")
		}
		sent := map[Audience]int{}
		book, err := t.Casebook()
		if err != nil {
			return err
		}
		for i, to := range d.Recipients(book, x) {
			if !slices.Contains(audiences, to.Recipient.Audience) || to.Contact == "" {
				continue
			}
			msg, ok, err := d.Notices.Preview(x, to.Recipient)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			err = outbox.Put(t, 2000+i, outbox.Message{Means: outbox.Mail, To: to.Contact, Subject: msg.Subject, Body: msg.Body, About: "incident/" + x.ID, Drill: x.Drill})
			if err != nil {
				return err
			}
			sent[to.Recipient.Audience]++
		}
		var words []string
		for _, au := range audiences {
			words = append(words, fmt.Sprintf("%s %d", au, sent[au]))
		}
		if sent[User] > 0 && !x.Notified.Users.Set() {
			x.Notified.Users = t.Now()
		}
		x.told(t, "notified", strings.Join(words, ", "))
		return nil
	})
}

// IsDraft tells a report that was kept as a draft from one that failed.
func IsDraft(err error) bool { return errors.Is(err, ErrDraft) }
