package assurance

import (
	"errors"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/incident"
)

// VerifyAfter opens the verification that a high incident forces, as part of the
// change that found it high: once for each product, however often it is said. A
// product that is delisted has nothing left to verify.
func (d *Desk) VerifyAfter(t *registry.Tx, productID, incidentID string) error {
	id := "VR-" + incidentID + "-" + productID
	p := t.View().Product(productID)
	if p == nil || p.Certification.State == registry.CertDelisted {
		return nil
	}
	if _, err := registry.TxCase[Verification](t, id); !errors.Is(err, registry.ErrNotFound) {
		return err
	}
	return d.openVerification(t, id, productID, nil, certification.ByIncident, "")
}

// RaiseAfter makes a finding as part of another command's change, which may make
// several.
func (d *Desk) RaiseAfter(t *registry.Tx, productID string, r Raise) error {
	n := 0
	for ; ; n++ {
		if _, err := registry.TxCase[Finding](t, newID("FN", t, n)); errors.Is(err, registry.ErrNotFound) {
			break
		} else if err != nil {
			return err
		}
	}
	_, err := d.raise(t, productID, "", r, n)
	return err
}

// AddOnContacts are the developers of a product's add-ons who can be told of an
// incident (incident.Desk.AddOns).
func AddOnContacts(book *registry.Casebook, productID string) (all []incident.Contact) {
	for _, a := range AddOnsOf(book, productID) {
		if a.Contact != "" {
			all = append(all, incident.Contact{Name: a.Developer, Contact: a.Contact})
		}
	}
	return all
}
