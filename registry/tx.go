package registry

import "fmt"

// View shows the register with what the change has put so far. It must not be
// kept beyond the planning.
func (t *Tx) View() *View { return t.view }

// Now is the instant of the change.
func (t *Tx) Now() Time { return t.now }

// Actor is who commands.
func (t *Tx) Actor() Actor { return t.actor }

// Revision is the revision the change will have. IDs are made of it: no two
// changes have the same.
func (t *Tx) Revision() Revision { return t.revision }

// Casebook shows the casework before the change; of what the change itself has
// put, see TxCase. ErrUnavailable when this control plane does not hold it.
func (t *Tx) Casebook() (*Casebook, error) {
	if t.book == nil {
		return nil, fmt.Errorf("%w: the casework is not loaded", ErrUnavailable)
	}
	return t.book, nil
}

// Keep answers that everything is as commanded already, since a revision.
func (t *Tx) Keep(id string, since Revision) { t.id, t.found = id, since }

// Answer makes the Outcome's ID that of something else than was written last.
func (t *Tx) Answer(id string) { t.id = id }

// PutEntity writes an entity, checked.
func (t *Tx) PutEntity(e Entity) error {
	if err := checkEntity(&e); err != nil {
		return err
	}
	e.Updated = t.now
	return t.put(KindEntity, e.ABN.String(), &e)
}

// PutProduct writes a product, checked. Its slices must not be changed in place
// when they come from a View.
func (t *Tx) PutProduct(p Product) error {
	if err := checkProduct(t.view, &p); err != nil {
		return err
	}
	p.Updated = t.now
	return t.put(KindProduct, p.ID, &p)
}

// PutClientApp writes a client app, checked.
func (t *Tx) PutClientApp(a ClientApp) error {
	if err := checkClientApp(t.view, &a); err != nil {
		return err
	}
	a.Updated = t.now
	return t.put(KindClientApp, a.ClientID, &a)
}

// PutSubscription writes a subscription, checked.
func (t *Tx) PutSubscription(s Subscription) error {
	if err := checkSubscription(t.view, &s); err != nil {
		return err
	}
	s.Updated = t.now
	return t.put(KindSubscription, s.SSID, &s)
}

// PutNotice writes a notice, checked.
func (t *Tx) PutNotice(n Notice) error {
	if err := checkImportedNotice(t.view, &n); err != nil {
		return err
	}
	return t.put(KindNotice, n.ID, &n)
}

// caseSum sums the casework up after the change.
func (t *Tx) caseSum(sum CaseSum) CaseSum {
	for i := range t.cases {
		sum = sum.add(t.book.entry(t.cases[i].Kind, t.cases[i].ID), t.cases[i].MAC)
	}
	return sum
}

// Outcome is what a command of casework did.
type Outcome struct {
	// ID is of the record or case written last, or kept; see Tx.Answer.
	ID string
	// Revision is the one to Await.
	Revision Revision
	Existing bool // nothing was written: all was as commanded
	View     *View
	Cases    *Casebook
}

// Suspend imposes a suspension from now on that a notice of its subject announced
// and whose time has come; it holds until it is lifted. The ID comes back.
func (t *Tx) Suspend(subject SubjectRef, reason, noticeID string) (string, error) {
	s := Suspension{
		ID: fmt.Sprintf("SU-%d", t.revision), Subject: subject, Reason: reason, ImposedBy: t.actor.Name, ImposedAt: t.now,
		Starts: t.now, NoticeID: noticeID, Revision: t.revision,
	}
	if err := checkImportedSuspension(t.view, &s); err != nil {
		return "", err
	}
	if err := creating[Suspension](t, s.ID); err != nil {
		return "", err
	}
	return s.ID, t.put(KindSuspension, s.ID, &s)
}

// Lift lifts a suspension; one that is lifted already, or is not there, is left.
func (t *Tx) Lift(id, reason string) error {
	e := entryOf[Suspension](t.view, id)
	if e == nil || e.Value.LiftedAt != 0 {
		return nil
	}
	if err := checkReason("/reason", reason, false); err != nil {
		return err
	}
	s := e.Value
	s.LiftedAt, s.LiftedBy, s.LiftReason = t.now, t.actor.Name, reason
	return t.put(KindSuspension, id, &s)
}

// Announce issues a notice of what takes effect at an instant. The ID comes back.
func (t *Tx) Announce(subject SubjectRef, reason string, effective Time) (string, error) {
	n := Notice{ID: fmt.Sprintf("NT-%d", t.revision), Subject: subject, Reason: reason, Issued: t.now, EffectiveAt: effective, By: t.actor.Name}
	return n.ID, t.PutNotice(n)
}
