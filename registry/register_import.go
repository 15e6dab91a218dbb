package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// importBatch is how many records one change of an Import holds at most.
const importBatch = 500

// Import writes many records, of the types of this package by value or by
// pointer, in the order given: what a record names must stand before it or in
// the register already. Every record is validated as the commands do, but in
// whatever state it is: Import brings a register in, it does not live through
// it. Each change holds up to 500 records; when one is refused, the batches
// before it are in. Doing it again changes nothing: a record that is as given
// is passed over, and a suspension, denial or notice that exists is left as it
// is, lest an import undo a lift.
//
// Registrar; products with certification or entitlements also need assessor;
// suspensions, denials and notices operator or incident officer; limits operator
// or assessor.
func (r *Register) Import(ctx context.Context, a Actor, records []any, m Meta) (Revision, error) {
	if err := need(a, PermRegistrar); err != nil {
		return 0, err
	}
	var rev Revision
	for start := 0; start == 0 || start < len(records); start += importBatch {
		batch := records[start:min(start+importBatch, len(records))]
		ans, err := r.submit(ctx, a, "import", m.Reason, func(t *tx) error {
			for i, rec := range batch {
				if err := t.importOne(a, rec); err != nil {
					return inRecord(start+i, err)
				}
			}
			return nil
		})
		if err != nil {
			return ans.revision, err
		}
		rev = ans.revision
	}
	return rev, nil
}

// inRecord puts the record's place in front of a field's pointer.
func inRecord(i int, err error) error {
	var f *FieldError
	if errors.As(err, &f) {
		return &FieldError{Field: "/" + strconv.Itoa(i) + f.Field, Err: f.Err}
	}
	return fmt.Errorf("record %d: %w", i, err)
}

func (t *tx) importOne(a Actor, rec any) error {
	switch x := rec.(type) {
	case Entity:
		return importRecord(t, KindEntity, x.ABN.String(), x, checkEntity(&x), true)
	case Product:
		if x.Certification != (Certification{}) || len(x.Entitlements) > 0 {
			if err := need(a, PermAssessor); err != nil {
				return err
			}
		}
		return importRecord(t, KindProduct, x.ID, x, checkProduct(t.view, &x), true)
	case ClientApp:
		return importRecord(t, KindClientApp, x.ClientID, x, checkClientApp(t.view, &x), true)
	case Credential:
		return importRecord(t, KindCredential, x.Thumbprint, x, checkCredential(t.view, &x), true)
	case Subscription:
		return importRecord(t, KindSubscription, x.SSID, x, checkSubscription(t.view, &x), true)
	case Service:
		return importRecord(t, KindService, x.Key, x, checkService(t.view, &x), true)
	case Notice:
		if err := needSuspend(a); err != nil {
			return err
		}
		return importRecord(t, KindNotice, x.ID, x, checkImportedNotice(t.view, &x), false)
	case Limit:
		if err := need(a, limiters); err != nil {
			return err
		}
		if err := x.complete(t.view); err != nil {
			return err
		}
		if t.view.Limit(x.ID) == nil {
			if err := roomForLimit(t.view, &x); err != nil {
				return err
			}
		}
		return importRecord(t, KindLimit, x.ID, x, checkLimit(t.view, &x), true)
	case Suspension:
		if err := needSuspend(a); err != nil {
			return err
		}
		return importRecord(t, KindSuspension, x.ID, x, checkImportedSuspension(t.view, &x), false)
	case Denial:
		if err := needSuspend(a); err != nil {
			return err
		}
		x.ID = DenialID(x.What, x.Issuer, x.Value)
		return importRecord(t, KindDenial, x.ID, x, checkDenial(&x), false)
	case *Entity:
		return t.importOne(a, *x)
	case *Product:
		return t.importOne(a, *x)
	case *ClientApp:
		return t.importOne(a, *x)
	case *Credential:
		return t.importOne(a, *x)
	case *Subscription:
		return t.importOne(a, *x)
	case *Service:
		return t.importOne(a, *x)
	case *Notice:
		return t.importOne(a, *x)
	case *Suspension:
		return t.importOne(a, *x)
	case *Denial:
		return t.importOne(a, *x)
	case *Limit:
		return t.importOne(a, *x)
	}
	return Field("", "%T is no record of the register", rec)
}

// importRecord puts one checked record, unless it is there already.
func importRecord[T any](t *tx, kind Kind, id string, x T, invalid error, replace bool) error {
	if invalid != nil {
		return invalid
	}
	if old := entryOf[T](t.view, id); old != nil {
		if !replace {
			return nil
		}
		was, err := json.Marshal(&old.Value)
		if err != nil {
			return err
		}
		is, err := json.Marshal(&x)
		if err != nil {
			return err
		}
		if bytes.Equal(was, is) {
			return nil
		}
		if old.Revision == t.revision {
			return Field("", "%s %s stands twice, differently", kind, id)
		}
	}
	return t.put(kind, id, &x)
}

func checkImportedNotice(v *View, n *Notice) error {
	if err := checkID("/id", n.ID); err != nil {
		return err
	}
	if err := checkReason("/reason", n.Reason, true); err != nil {
		return err
	}
	if err := checkSubject(v, n.Subject); err != nil {
		return err
	}
	if n.Issued == 0 || n.EffectiveAt == 0 {
		return Field("/effective_at", "issued_at and effective_at must be given")
	}
	return checkOrder("/issued_at", n.Issued, "/effective_at", n.EffectiveAt)
}

// checkImportedSuspension holds an imported suspension to the same lengths.
func checkImportedSuspension(v *View, s *Suspension) error {
	if err := checkID("/id", s.ID); err != nil {
		return err
	}
	if err := checkReason("/reason", s.Reason, true); err != nil {
		return err
	}
	if err := checkReason("/lift_reason", s.LiftReason, false); err != nil {
		return err
	}
	if err := checkSubject(v, s.Subject); err != nil {
		return err
	}
	if err := checkEffect(s); err != nil {
		return err
	}
	for _, f := range []struct{ pointer, text string }{{"/imposed_by", s.ImposedBy}, {"/confirmed_by", s.ConfirmedBy}, {"/lifted_by", s.LiftedBy}} {
		if err := checkText(f.pointer, f.text, nameBytesMax, f.pointer == "/imposed_by"); err != nil {
			return err
		}
	}
	if s.ImposedAt == 0 || s.Starts == 0 {
		return Field("/starts_at", "imposed_at and starts_at must be given")
	}
	if err := checkOrder("/starts_at", s.Starts, "/expires_at", s.Expires); err != nil {
		return err
	}
	alone, most := s.ImposedAt+Time(SuspendAlone.Milliseconds()), s.ImposedAt+Time(SuspendConfirmed.Milliseconds())
	endless := s.Expires == 0 || s.Expires > most
	n := v.Notice(s.NoticeID)
	noticed := n != nil && n.Subject == s.Subject && n.EffectiveAt <= s.Starts
	switch {
	case s.NoticeID != "" && n == nil:
		return Field("/notice_id", "no notice %s was issued", truncate(s.NoticeID, 80))
	case endless && s.Emergency:
		return Field("/expires_at", "an emergency suspension lasts at most 72 h")
	case endless && !noticed:
		return Field("/notice_id", "a suspension of more than 72 h needs a notice of its subject that had taken effect")
	case !endless && s.Expires > alone && !noticed && (s.ConfirmedBy == "" || s.ConfirmedBy == s.ImposedBy):
		return Field("/confirmed_by", "a suspension of more than 4 h needs a second person")
	}
	return nil
}
