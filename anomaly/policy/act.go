package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// errFellOver is a judgement that panicked; nothing was written.
var errFellOver = errors.New("the judgement fell over")

// errNothing ends a command that has nothing to write.
var errNothing = errors.New("nothing to enter")

// Act enters a match: it raises an alarm or adds to the one there is, takes the
// measure that an enforced policy calls for, and raises the incident, all in one
// change. share is a product's share of the traffic in percent, negative where
// nobody knows. The alarm comes back, nil when there was nothing to enter.
func (d *Desk) Act(ctx context.Context, m *Match, share func(product string) float64) (*Alarm, error) {
	actor := registry.Actor{Name: "policy " + m.Active.Policy, Permissions: registry.PermIncidentOfficer}
	var entered *Alarm
	_, err := d.Register.Do(ctx, actor, "policy.act", "", func(t *registry.Tx) (err error) {
		entered = nil
		defer func() { // this runs in the register's writer, which must not fall over with it
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: %v", errFellOver, p)
			}
		}()
		a, err := d.act(t, m, share)
		if err != nil {
			return err
		}
		entered = a
		return registry.PutCase(t, a.ID, *a) // last: the outcome names what was written last
	})
	switch {
	case errors.Is(err, errNothing):
		return nil, nil
	case err != nil && !errors.Is(err, registry.ErrNotDurable):
		return nil, fmt.Errorf("enter an alarm of policy %s: %w", m.Active.Policy, err)
	}
	return entered, err
}

func (d *Desk) act(t *registry.Tx, m *Match, share func(string) float64) (*Alarm, error) {
	p, err := registry.TxCase[Policy](t, m.Active.Policy)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.Body.Active(), func(a Active) bool { return a.Version == m.Active.Version && a.Shadow == m.Active.Shadow }) {
		return nil, errNothing // a person has just put it out of force
	}
	old, rests, err := latest(t, m)
	switch {
	case err != nil:
		return nil, err
	case rests:
		return nil, errNothing
	case old != nil:
		news := slices.ContainsFunc(m.Signals, func(s string) bool { return !slices.Contains(old.Signals, s) })
		if !news && registry.At(m.At)-old.LastAt < registry.Time(enterEvery/time.Millisecond) {
			return nil, errNothing
		}
		old.again(m)
		old.clean()
		return old, nil
	}
	a := newAlarm(m, t.Now())
	a.ID = fmt.Sprintf("AL-%d", t.Revision())
	a.clean()
	if err := d.measure(t, m, &a, share); err != nil {
		return nil, err
	}
	return &a, nil
}

// latest finds the alarm that a match belongs to, nil when it makes a new one;
// rests when a person dismissed one lately.
func latest(t *registry.Tx, m *Match) (open *Alarm, rests bool, err error) {
	book, err := t.Casebook()
	if err != nil {
		return nil, false, err
	}
	key := aboutKey(m.Active.Policy, m.Active.Shadow, subjectOf(m.Subject))
	for id := range book.All(registry.Query{Kind: "alarm", Where: []registry.Where{{Index: "about", Value: key}}}) {
		c, err := registry.TxCase[Alarm](t, id)
		if err != nil {
			return nil, false, err
		}
		a := &c.Body
		switch {
		case a.State == Dismissed && t.Now().Std().Sub(a.Judged.At.Std()) < RestAfter:
			return nil, true, nil
		case a.State != Dismissed && t.Now().Std().Sub(a.RaisedAt.Std()) < AlarmLasts && (open == nil || a.RaisedAt > open.RaisedAt):
			open = a
		}
	}
	return open, false, nil
}

// clean makes the words of an alarm keepable.
func (a *Alarm) clean() {
	for i := range a.Reasons {
		a.Reasons[i] = incident.Harmless(a.Reasons[i][:min(len(a.Reasons[i]), reasonBytesMax)])
	}
}

// reasonBytesMax is what a suspension's reason may hold.
const reasonBytesMax = 400

// measure does what the action says, or says what it would do.
func (d *Desk) measure(t *registry.Tx, m *Match, a *Alarm, share func(string) float64) error {
	then := &m.Active.Rule.Then
	target, known := m.Target()
	radius := RadiusIn(t.View(), t.Now(), share)
	if then.touches() {
		if known {
			a.Why = then.Exceeded(radius, m.Facts.Product, share(m.Facts.Product))
		} else {
			a.Why = "nothing of the register is known of it that anything could be done to"
		}
	}
	if m.Active.Shadow {
		a.Outcome = Would
		if a.Why != "" {
			a.Why = "would have asked a person: " + a.Why
		}
		return nil
	}
	a.Outcome = then.Do.outcome()
	switch {
	case then.Do == Deny:
		a.ContainedAt = t.Now()
	case then.Do == Observe:
	case a.Why != "":
		a.Outcome = Asked
	default:
		id, existing, err := t.Impose(then.command(target, a, t.Now()))
		if err != nil {
			return err
		}
		a.Suspension, a.ContainedAt = id, t.Now()
		if existing {
			a.Outcome = Already
		}
	}
	return d.raise(t, m, a, target, known)
}

// command is the suspension that an action is.
func (a *Countermeasure) command(target registry.SubjectRef, x *Alarm, now registry.Time) registry.SuspendCommand {
	c := registry.SuspendCommand{
		Subject: target, Expires: now + registry.Time(time.Duration(a.Minutes)*time.Minute/time.Millisecond),
		Reason: fmt.Sprintf("Policy %s, alarm %s: %s", x.Policy, x.ID, x.Reasons[0]),
	}
	switch a.Do {
	case Throttle:
		c.Effect, c.Rate = registry.EffectThrottle, a.Rate
	case Restrict:
		c.Effect, c.MaxRisk = registry.EffectRestrict, a.MaxRisk
	}
	return c
}

// raise raises the incident of an alarm, or adds to it.
func (d *Desk) raise(t *registry.Tx, m *Match, a *Alarm, target registry.SubjectRef, known bool) error {
	if d.Incidents == nil {
		return nil
	}
	kind := incident.Type(m.Active.Rule.Then.Incident)
	if kind == "" {
		kind = typeOf(m.Signals)
	}
	x := incident.Incident{
		Signal: shortHash(a.Subject.Kind, a.Subject.ID, string(kind)), Type: kind, Entity: m.Facts.Owner,
		Title:      fmt.Sprintf("Monitoring: a %s strays from its past (%s)", a.Subject.Kind, strings.Join(a.Signals, ", ")),
		AwareAt:    t.Now(), // the agency's; what the entity knew, nobody knows yet
		OccurredAt: min(a.FirstAt, t.Now()),
	}
	if known {
		x.Subjects = []registry.SubjectRef{target}
	}
	x.Description = fmt.Sprintf("Policy %s, version %d, alarm %s.\n%s\n%s", a.Policy, a.Version, a.ID, strings.Join(a.Reasons, "\n"), a.outcomeText(m))
	suspension := a.Suspension
	if a.Outcome == Already {
		suspension = ""
	}
	id, err := d.Incidents.Signalled(t, x, suspension, a.ID+": "+a.outcomeText(m)+". "+a.Reasons[0])
	a.Incident = id
	return err
}

// outcomeText says what was done.
func (a *Alarm) outcomeText(m *Match) string {
	switch a.Outcome {
	case Asked:
		return fmt.Sprintf("A person is asked whether to %s: %s", m.Active.Rule.Then.Text(), a.Why)
	case Already:
		return "Already under " + a.Suspension
	case Observed:
		return "Nothing was done to it"
	case Denied:
		return "Its calls about protected clients are refused, and no others"
	}
	return fmt.Sprintf("%s by %s: %s", a.Outcome, a.Suspension, m.Active.Rule.Then.Text())
}

// typeOf is the type of incident that signals suggest.
func typeOf(signals []string) incident.Type {
	for _, s := range signals {
		switch name, _ := anomaly.ParseSignalName(s); name {
		case anomaly.SignalIdentity, anomaly.SignalNetworks, anomaly.SignalNewNetworks, anomaly.SignalSSIDs, anomaly.SignalFanOut:
			return incident.CredentialCompromise
		case anomaly.SignalFailed:
			return incident.Availability
		case anomaly.SignalVersions, anomaly.SignalChurn:
			return incident.Vulnerability
		}
	}
	return incident.UnauthorisedAccess
}

// RadiusIn is what policies have done in the last day that no person has
// confirmed or lifted since.
func RadiusIn(v *registry.View, now registry.Time, share func(product string) float64) Radius {
	r := Radius{}
	for _, e := range v.Suspensions() {
		s := &e.Value
		if !s.Automatic || s.ConfirmedBy != "" || s.LiftedAt != 0 || now.Std().Sub(s.ImposedAt.Std()) >= AlarmLasts {
			continue
		}
		id := s.Subject.ID
		switch s.Subject.Kind {
		case registry.KindClientApp:
			if a := v.ClientApp(id); a != nil {
				id = a.ProductID
			}
		case registry.KindSubscription:
			if x := v.Subscription(id); x != nil {
				id = x.ProductID
			}
		}
		r[id] = share(id)
	}
	return r
}
