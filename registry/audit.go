package registry

import (
	"context"
	"errors"
	"hash/maphash"
	"time"
)

// Audit is what comparing the store with a mirror, record by record, found.
type Audit struct {
	Records uint64 // read from the store
	// Wrong are the keys of records that do not verify, or are older than what the
	// mirror holds: at most auditKeysMax of them. Missing is how many records that
	// the mirror holds were not there.
	Wrong   []string
	Missing uint64
}

// OK tells whether nothing was found.
func (a *Audit) OK() bool { return len(a.Wrong) == 0 && a.Missing == 0 }

// auditKeysMax bounds the keys an Audit names. An audit rests for auditPause after
// each auditBatch records, so that whoever reads beside it waits for no more than
// one batch: nobody waits for an audit.
const (
	auditKeysMax = 100
	auditBatch   = 256
	auditPause   = 5 * time.Millisecond
)

// Audit reads every record in the store and holds it against the View. A mirror
// that runs follows the log only, so a record changed by hand harms no decision
// until a process starts; an audit finds it before one does. It costs the
// store one scan, in small steps. ErrUnavailable when nothing is loaded yet.
func (m *Mirror) Audit(ctx context.Context) (Audit, error) {
	held := m.View() // before the scan: the store is at least as new
	if held == nil {
		return Audit{}, ErrUnavailable
	}
	var a Audit
	seen := make(map[uint64]struct{}, held.Records) // a scan may name a record twice
	var h maphash.Hash
	h.SetSeed(tableSeed)
	_, err := m.log.Snapshot(ctx, func(r *Record) error {
		if a.Records++; a.Records%auditBatch == 0 {
			select {
			case <-ctx.Done():
			case <-time.After(auditPause):
			}
		}
		_, revision, known := held.Entry(r.Kind, r.ID)
		if known {
			h.Reset()
			_ = h.WriteByte(byte(r.Kind)) // never fails
			_, _ = h.WriteString(r.ID)
			seen[h.Sum64()] = struct{}{}
		}
		if (!m.sealer.Genuine(r) || known && r.Revision < revision) && len(a.Wrong) < auditKeysMax {
			a.Wrong = append(a.Wrong, truncate(r.Key(), 120))
		}
		return nil
	})
	if errors.Is(err, ErrTampered) { // a record that is none ends the scan, and is told as it stands
		a.Wrong = append(a.Wrong, truncate(err.Error(), 200))
		return a, nil
	}
	if err != nil {
		return a, err
	}
	a.Missing = held.Records - min(held.Records, uint64(len(seen)))
	return a, nil
}
