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
	// ID is of the record or case written last, or kept.
	ID string
	// Revision is the one to Await.
	Revision Revision
	Existing bool // nothing was written: all was as commanded
	View     *View
	Cases    *Casebook
}
