package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// gcPercentLoading is the GC percent while a snapshot loads into tight memory.
const gcPercentLoading = 50

var (
	errDigest  = errors.New("the records held are not those the digest stands for")
	errEpoch   = errors.New("its epoch went down")
	errStalled = errors.New("the store stopped in the middle of the snapshot")
)

// load makes a View from a snapshot and the log after it. It is published only
// when its digest is the head's: a record that was altered, put back to an
// older state or removed could be the suspension that denies, so a set that is
// not whole serves nobody. Such a set is rebuilt from the log, if that reaches
// back to the first change.
func (m *Mirror) load(ctx context.Context, held *View) (*View, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	began := m.cfg.Clock()
	v, settled, err := m.snapshot(ctx, held)
	if err == nil {
		v, err = m.replay(ctx, v, held, settled)
	}
	var a *alarmError
	if errors.As(err, &a) && a.Kind == AlarmDigest {
		m.alarm(ctx, a.Alarm)
		whole, lerr := m.replay(ctx, &View{}, held, 0)
		if lerr != nil {
			return nil, fmt.Errorf("%w; and not rebuilt from the log: %w", err, lerr)
		}
		v, err = whole, nil
	}
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.status.Loads++
	m.status.LoadTime = m.cfg.Clock() - began
	m.mu.Unlock()
	return v, nil
}

// snapshot reads every record. settled is the highest revision among them: from
// there on the log makes the set whole.
func (m *Mirror) snapshot(ctx context.Context, held *View) (v *View, settled Revision, err error) {
	if m.cfg.TightMemory {
		defer tightMemory()()
	}
	// A store that stops in the middle must not hold up the next attempt for as
	// long as a whole load may take.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(pollTimeoutMax, func() { cancel(errStalled) })
	defer stalled.Stop()
	l := startLoader(m.sealer)
	n := 0
	head, err := m.log.Snapshot(ctx, func(r *Record) error {
		if n++; n%batchRecords == 0 {
			stalled.Reset(pollTimeoutMax)
		}
		return l.put(r)
	})
	lerr := l.finish()
	for _, key := range l.tampered {
		m.alarm(ctx, Alarm{Kind: AlarmTampered, What: key, Store: head.Revision, Err: ErrTampered})
	}
	if err = cmp.Or(lerr, err); err != nil { // lerr first: err only repeats it
		return nil, 0, fmt.Errorf("snapshot: %w", err)
	}
	if err := m.checkHead(&head, held); err != nil {
		return nil, 0, err
	}
	l.b.v.CaseSum = head.CaseSum
	v, err = l.b.View(head.Revision, head.Epoch)
	if err != nil {
		return nil, 0, &alarmError{Alarm{Kind: AlarmUndecodable, What: "routes", Store: head.Revision, Err: err}}
	}
	return v, l.settled, nil
}

// tightMemory makes the collector keep up with a load, instead of letting the
// heap grow to twice what is loaded, and gives back what it freed.
func tightMemory() (restore func()) {
	percent := debug.SetGCPercent(gcPercentLoading)
	return func() {
		debug.SetGCPercent(percent)
		debug.FreeOSMemory()
	}
}

// replay brings a View up to the head by the log, as an observer: the View is
// not served yet, and one that is served may be older.
func (m *Mirror) replay(ctx context.Context, v, held *View, settled Revision) (*View, error) {
	for {
		pollCtx, cancel := context.WithTimeout(ctx, pollTimeoutMax)
		p, err := m.log.Follow(pollCtx, Ack{ID: m.cfg.ID, Incarnation: m.cfg.Incarnation, Revision: v.Revision, Observer: true}, m.cfg.Batch)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
		if err := m.checkHead(&p.Head, held); err != nil {
			return nil, err
		}
		if v, err = m.apply(v, p.Changes, settled); err != nil {
			return nil, err
		}
		switch {
		case v.Revision != p.Head.Revision && len(p.Changes) > 0:
			continue
		case v.Revision == p.Head.Revision && v.Revision < settled:
			return nil, &alarmError{Alarm{Kind: AlarmRewound, What: "head", Store: p.Head.Revision,
				Err: fmt.Errorf("%w: a record has revision %d", ErrRewound, settled)}}
		}
		if err := m.compare(v, &p.Head, len(p.Changes)); err != nil {
			return nil, err
		}
		return v, nil
	}
}

// recount counts the digest anew over all the records of a View.
func recount(v *View) error {
	var n uint64
	var d Digest
	count(&v.entities, &n, &d)
	count(&v.products, &n, &d)
	count(&v.apps, &n, &d)
	count(&v.credentials, &n, &d)
	count(&v.subscriptions, &n, &d)
	count(&v.services, &n, &d)
	count(&v.suspensions, &n, &d)
	count(&v.denials, &n, &d)
	count(&v.notices, &n, &d)
	count(&v.limits, &n, &d)
	if n != v.Records || d != v.Digest {
		return &alarmError{Alarm{Kind: AlarmDigest, What: "memory", Held: v.Revision, Store: v.Revision, Err: errDigest}}
	}
	return nil
}

func count[T any](t *table[T], n *uint64, d *Digest) {
	t.each(func(e *Entry[T]) bool {
		*n++
		*d = d.Add(e.MAC)
		return true
	})
}
