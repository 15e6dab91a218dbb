package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// How long a suspension may last (contract, "Who may suspend").
const (
	SuspendAlone     = 4 * time.Hour  // imposed by one person; also the default
	SuspendConfirmed = 72 * time.Hour // confirmed by a second, and the most for an emergency
)

// alikeSlack is how much sooner a suspension in force may end than the one
// asked for and still be answered with: a command sent twice finds itself.
const alikeSlack = 5 * time.Minute

// SuspendCommand asks for a suspension.
type SuspendCommand struct {
	Subject    SubjectRef
	Reason     string
	Emergency  bool // nothing at all may pass
	NoticeID   string
	IncidentID string
	Expires    Time // not set: in 4 h, or never when the notice named has taken effect
	// Effect curbs instead of stopping: Rate is of a throttle, MaxRisk of a
	// restriction.
	Effect  Effect
	Rate    int64
	MaxRisk Risk
}

// Suspend stops its subject from the commit on. Operators and incident
// officers. When a suspension alike is in force already, the Result is that
// one, Existing. When the store cannot commit, the error is an *ExposureError.
func (r *Register) Suspend(ctx context.Context, a Actor, c SuspendCommand) (Result[Suspension], error) {
	if err := needSuspend(a); err != nil {
		return Result[Suspension]{}, err
	}
	res, err := do[Suspension](ctx, r, a, "suspend", c.Reason, func(t *tx) error {
		s, err := planSuspension(t.view, a, c, t.now)
		if err != nil {
			return err
		}
		if old := alike(t.view, s, t.now); old != nil {
			return keep(t, entryOf[Suspension](t.view, old.ID))
		}
		s.ID, s.Revision = fmt.Sprintf("SU-%d", t.revision), t.revision
		if err := creating[Suspension](t, s.ID); err != nil {
			return err
		}
		return t.put(KindSuspension, s.ID, s)
	})
	return res, r.Exposed(ctx, err)
}

// Impose suspends or curbs as part of another command, as Suspend would, by a
// policy of monitoring: it denies as such. The ID of one alike that is in force
// already comes back as existing.
func (t *Tx) Impose(c SuspendCommand) (id string, existing bool, err error) {
	if err := needSuspend(t.actor); err != nil {
		return "", false, err
	}
	s, err := planSuspension(t.view, t.actor, c, t.now)
	if err != nil {
		return "", false, err
	}
	s.Automatic = true
	if old := alike(t.view, s, t.now); old != nil {
		return old.ID, true, nil
	}
	s.ID, s.Revision = fmt.Sprintf("SU-%d", t.revision), t.revision
	if err := creating[Suspension](t, s.ID); err != nil {
		return "", false, err
	}
	return s.ID, false, t.put(KindSuspension, s.ID, s)
}

// rateMax bounds a throttle, in calls a second.
const rateMax = 1_000_000

// checkEffect wants what the effect needs, and nothing that it does not.
func checkEffect(s *Suspension) error {
	throttle, restrict := s.Effect == EffectThrottle, s.Effect == EffectRestrict
	switch k := s.Subject.Kind; {
	case throttle && (s.Rate < 1 || s.Rate > rateMax):
		return Field("/rate", "a throttle needs how many calls a second are left, from 1 to %d", rateMax)
	case !throttle && s.Rate != 0:
		return Field("/rate", "only a throttle has a rate")
	case restrict && (s.MaxRisk < 1 || s.MaxRisk > 3):
		return Field("/max_risk", "a restriction needs the highest service rating left, 1 to 3")
	case !restrict && s.MaxRisk != 0:
		return Field("/max_risk", "only a restriction has a highest rating")
	case throttle && k != KindProduct && k != KindClientApp && k != KindSubscription:
		return Field("/subject/kind", "a throttle is of a product, client-app or subscription")
	case restrict && (k == KindVersion || k == KindService):
		return Field("/subject/kind", "a restriction is of an entity, product, client-app, credential or subscription")
	}
	return nil
}

// planSuspension checks what is asked for and fills in the rest.
func planSuspension(v *View, a Actor, c SuspendCommand, now Time) (*Suspension, error) {
	if err := checkReason("/reason", c.Reason, true); err != nil {
		return nil, err
	}
	if err := checkSubject(v, c.Subject); err != nil {
		return nil, err
	}
	if c.IncidentID != "" {
		if err := checkID("/incident_id", c.IncidentID); err != nil {
			return nil, err
		}
	}
	noticed := false // a notice of this subject has taken effect
	if c.NoticeID != "" {
		if err := checkID("/notice_id", c.NoticeID); err != nil {
			return nil, err
		}
		n := v.Notice(c.NoticeID)
		switch {
		case n == nil:
			return nil, Field("/notice_id", "no notice %s was issued", c.NoticeID)
		case n.Subject != c.Subject:
			return nil, Field("/notice_id", "notice %s is about %s", c.NoticeID, n.Subject)
		}
		noticed = n.EffectiveAt <= now
		// Else one person could stop anybody without end, having waited a moment.
		if noticed && n.By == a.Name && c.Expires > now+Time(SuspendAlone.Milliseconds()) {
			return nil, Field("/notice_id", "notice %s was issued by you: another person has to suspend on it for longer than 4 h", c.NoticeID)
		}
		noticed = noticed && n.By != a.Name
	}
	s := &Suspension{
		Subject: c.Subject, Reason: c.Reason, Emergency: c.Emergency, NoticeID: c.NoticeID, IncidentID: c.IncidentID,
		ImposedBy: a.Name, ImposedAt: now, Starts: now, Expires: c.Expires, Effect: c.Effect, Rate: c.Rate, MaxRisk: c.MaxRisk,
	}
	if err := checkEffect(s); err != nil {
		return nil, err
	}
	alone, most := aloneUntil(v, s), now+Time(SuspendConfirmed.Milliseconds())
	if s.Expires == 0 && (!noticed || s.Emergency) {
		s.Expires = alone
	}
	if err := checkTime("/expires_at", s.Expires); err != nil {
		return nil, err
	}
	switch {
	case s.Expires != 0 && s.Expires <= now:
		return nil, Field("/expires_at", "%s is in the past", s.Expires)
	case s.Emergency && s.Expires > most:
		return nil, Field("/expires_at", "an emergency suspension lasts at most 72 h, until %s", most)
	case s.Expires > alone && !noticed && c.NoticeID != "":
		return nil, Field("/expires_at", "notice %s takes effect at %s; until then one person may suspend for at most 4 h", c.NoticeID, v.Notice(c.NoticeID).EffectiveAt)
	case s.Expires > alone && alone < now+Time(SuspendAlone.Milliseconds()) && (!noticed || s.Emergency):
		if s.Expires > alone+Time(alikeSlack.Milliseconds()) {
			return nil, Field("/expires_at", "you have suspended this already, and alone it is for at most 4 h, until %s; a second person then confirms up to 72 h", alone)
		}
		s.Expires = alone // the same command, sent again
	case s.Expires > alone && (!noticed || s.Emergency):
		return nil, Field("/expires_at", "one person may suspend for at most 4 h, until %s; a second then confirms up to 72 h", alone)
	}
	return s, nil
}

// aloneUntil is how long one person may have a subject suspended as s would: 4 h,
// counted from the first of their suspensions of it that follow on one another,
// so that nobody makes their own longer by imposing it again before it ends. One
// that somebody lifted breaks the row; what a second person confirmed is granted.
func aloneUntil(v *View, s *Suspension) Time {
	since, granted := s.ImposedAt, s.ImposedAt
	e := v.suspended[s.Subject.Kind].get(s.Subject.ID)
	for again := e != nil; again; {
		again = false
		for _, old := range e.Value {
			if old.ImposedBy != s.ImposedBy || old.Automatic || old.Effect != s.Effect ||
				old.Expires == 0 || old.Expires < since || old.ImposedAt >= since {
				continue
			}
			since, again = old.ImposedAt, true
			if old.ConfirmedBy != "" {
				granted = max(granted, old.Expires)
			}
		}
	}
	return max(since+Time(SuspendAlone.Milliseconds()), granted)
}

// checkSubject wants a subject that exists, in its one spelling.
func checkSubject(v *View, s SubjectRef) error {
	if !s.Kind.Suspendable() {
		return Field("/subject/kind", "must be entity, product, version, client-app, credential, subscription or service")
	}
	if s.Kind != KindCredential { // a thumbprint may start with - or _
		id := s.ID
		if s.Kind == KindVersion { // FP-1009@4.2
			i := strings.LastIndexByte(id, '@')
			if i < 0 {
				return Field("/subject/id", "a version is named PRODUCT@VERSION, such as FP-1009@4.2")
			}
			if err := checkVersion("/subject/id", id[i+1:]); err != nil {
				return err
			}
			id = id[:i]
		}
		if err := checkID("/subject/id", id); err != nil {
			return err
		}
	} else if s.ID == "" || len(s.ID) > idBytesMax {
		return Field("/subject/id", "is no certificate thumbprint")
	}
	if s.Kind == KindEntity {
		if abn, err := ParseABN(s.ID); err != nil {
			return &FieldError{Field: "/subject/id", Err: err}
		} else if abn.String() != s.ID {
			return Field("/subject/id", "write the ABN without spaces: %s", abn)
		}
	}
	found := false
	if s.Kind == KindVersion {
		i := strings.LastIndexByte(s.ID, '@')
		p := v.Product(s.ID[:i])
		found = p != nil && p.Version(s.ID[i+1:]) != nil
	} else {
		_, _, found = v.Entry(s.Kind, s.ID)
	}
	if !found {
		return fmt.Errorf("%w: %s", ErrNotFound, s)
	}
	return nil
}

// alike finds a suspension in force that does what s would.
func alike(v *View, s *Suspension, now Time) *Suspension {
	e := v.suspended[s.Subject.Kind].get(s.Subject.ID)
	if e == nil {
		return nil
	}
	for _, old := range e.Value {
		lasts := old.Expires == 0 || s.Expires != 0 && old.Expires+Time(alikeSlack.Milliseconds()) >= s.Expires
		if old.Active(now) && old.Automatic == s.Automatic && old.Emergency == s.Emergency && lasts &&
			old.Effect == s.Effect && old.Rate == s.Rate && old.MaxRisk == s.MaxRisk {
			return old
		}
	}
	return nil
}

// ConfirmSuspension is the second person's: it extends a suspension to at most
// 72 h from when it was imposed, which is also what expires 0 means.
func (r *Register) ConfirmSuspension(ctx context.Context, a Actor, id string, expires Time, m Meta) (Result[Suspension], error) {
	if err := needSuspend(a); err != nil {
		return Result[Suspension]{}, err
	}
	return do[Suspension](ctx, r, a, "suspension.confirm", m.Reason, func(t *tx) error {
		s, err := changing[Suspension](t, id, m)
		if err != nil {
			return err
		}
		if err := inForce(&s, t.now); err != nil {
			return err
		}
		if s.ImposedBy == a.Name {
			return fmt.Errorf("%w: whoever imposed a suspension cannot confirm it; a second person has to", ErrForbidden)
		}
		if s.Expires == 0 {
			return fmt.Errorf("%w: the suspension has no end to extend; next may be lift", ErrState)
		}
		most := s.ImposedAt + Time(SuspendConfirmed.Milliseconds())
		until := expires
		if until == 0 {
			until = max(most, s.Expires)
		}
		switch {
		case until <= t.now:
			return Field("/expires_at", "%s is in the past", until)
		case until < s.Expires:
			return Field("/expires_at", "a confirmation does not shorten; it ends at %s", s.Expires)
		case until > most && until != s.Expires:
			return Field("/expires_at", "a confirmed suspension lasts at most 72 h, until %s", most)
		}
		s.ConfirmedBy, s.Expires = a.Name, until
		return t.put(KindSuspension, s.ID, &s)
	})
}

// LiftSuspension ends a suspension; the standing is then as it was before.
// Operators and incident officers, not the one who imposed it. One lifted
// already is answered as it is, Existing.
func (r *Register) LiftSuspension(ctx context.Context, a Actor, id string, m Meta) (Result[Suspension], error) {
	if err := needSuspend(a); err != nil {
		return Result[Suspension]{}, err
	}
	return do[Suspension](ctx, r, a, "lift", m.Reason, func(t *tx) error {
		s, err := changing[Suspension](t, id, m)
		if err != nil {
			return err
		}
		if s.ImposedBy == a.Name {
			return fmt.Errorf("%w: whoever imposed a suspension cannot lift it; a second person has to", ErrForbidden)
		}
		if s.LiftedAt != 0 {
			return keep(t, entryOf[Suspension](t.view, id))
		}
		if err := inForce(&s, t.now); err != nil {
			return err
		}
		s.LiftedAt, s.LiftedBy, s.LiftReason = t.now, a.Name, m.Reason
		return t.put(KindSuspension, s.ID, &s)
	})
}

func inForce(s *Suspension, now Time) error {
	switch {
	case s.LiftedAt != 0:
		return fmt.Errorf("%w: the suspension was lifted at %s, which ends it; impose another", ErrState, s.LiftedAt)
	case s.Expires != 0 && s.Expires <= now:
		return fmt.Errorf("%w: the suspension expired at %s, which ends it; impose another", ErrState, s.Expires)
	}
	return nil
}

func needSuspend(a Actor) error { return need(a, PermOperator|PermIncidentOfficer) }

// IssueNotice announces something to an entity before it takes effect.
// Operators and incident officers. Its ID is given by the register.
func (r *Register) IssueNotice(ctx context.Context, a Actor, n Notice, m Meta) (Result[Notice], error) {
	if err := needSuspend(a); err != nil {
		return Result[Notice]{}, err
	}
	return do[Notice](ctx, r, a, "notice.issue", m.Reason, func(t *tx) error {
		if n.ID != "" {
			return Field("/id", "is given by the register")
		}
		if err := checkReason("/reason", n.Reason, true); err != nil {
			return err
		}
		if err := checkSubject(t.view, n.Subject); err != nil {
			return err
		}
		if n.EffectiveAt <= t.now {
			return Field("/effective_at", "must be given and lie in the future: a notice comes before what it announces")
		}
		if err := checkTime("/effective_at", n.EffectiveAt); err != nil {
			return err
		}
		issued := n
		issued.ID, issued.Issued, issued.By = fmt.Sprintf("NT-%d", t.revision), t.now, a.Name
		if err := creating[Notice](t, issued.ID); err != nil {
			return err
		}
		return t.put(KindNotice, issued.ID, &issued)
	})
}

// DenyToken refuses a signing key (kid) or a token (jti) of an issuer from the
// commit on. Operators and incident officers.
func (r *Register) DenyToken(ctx context.Context, a Actor, d Denial, m Meta) (Result[Denial], error) {
	if err := needSuspend(a); err != nil {
		return Result[Denial]{}, err
	}
	res, err := do[Denial](ctx, r, a, "token.deny", m.Reason, func(t *tx) error {
		next := Denial{What: d.What, Issuer: d.Issuer, Value: d.Value, Reason: d.Reason, By: a.Name, At: t.now, Expires: d.Expires}
		next.ID = DenialID(d.What, d.Issuer, d.Value)
		if err := checkDenial(&next); err != nil {
			return err
		}
		if next.Expires != 0 && next.Expires <= t.now {
			return Field("/expires_at", "%s is in the past", next.Expires)
		}
		if old := entryOf[Denial](t.view, next.ID); old != nil {
			if m.IfMatch != 0 && m.IfMatch != old.Revision {
				return fmt.Errorf("%w: it has revision %d now", ErrPrecondition, old.Revision)
			}
			if v := &old.Value; v.Active(t.now) && (v.Expires == 0 || next.Expires != 0 && v.Expires >= next.Expires) {
				return keep(t, old)
			}
		}
		return t.put(KindDenial, next.ID, &next)
	})
	return res, r.Exposed(ctx, err)
}

// LiftDenial ends a denial. Operators and incident officers, not the one who imposed it.
func (r *Register) LiftDenial(ctx context.Context, a Actor, id string, m Meta) (Result[Denial], error) {
	if err := needSuspend(a); err != nil {
		return Result[Denial]{}, err
	}
	return do[Denial](ctx, r, a, "token.allow", m.Reason, func(t *tx) error {
		d, err := changing[Denial](t, id, m)
		if err != nil {
			return err
		}
		if d.By == a.Name {
			return fmt.Errorf("%w: whoever denied a token cannot lift the denial; a second person has to", ErrForbidden)
		}
		if d.Lifted != 0 {
			return keep(t, entryOf[Denial](t.view, id))
		}
		d.Lifted = t.now
		return t.put(KindDenial, id, &d)
	})
}

// checkDenial bounds issuer and value so that View.Denied finds them without allocating.
func checkDenial(d *Denial) error {
	if err := checkWord("/what", d.What, "kid", "jti"); err != nil {
		return err
	}
	if err := checkText("/issuer", d.Issuer, 120, true); err != nil {
		return err
	}
	if err := checkText("/value", d.Value, 256, true); err != nil {
		return err
	}
	if err := checkReason("/reason", d.Reason, true); err != nil {
		return err
	}
	return checkTime("/expires_at", d.Expires)
}

// CheckSubject wants a subject that is in the register, in its one spelling: a
// FieldError at the pointer, which gets /kind or /id added.
func (v *View) CheckSubject(pointer string, s SubjectRef) error {
	err := checkSubject(v, s)
	var f *FieldError
	switch {
	case errors.Is(err, ErrNotFound):
		return Field(pointer+"/id", "no %s %s is in the register", s.Kind, truncate(s.ID, 60))
	case errors.As(err, &f):
		return &FieldError{Field: pointer + strings.TrimPrefix(f.Field, "/subject"), Err: f.Err}
	}
	return err
}
