package registry

import (
	"context"
	"errors"
	"time"
)

// ExposureError is a command to stop something that could not be committed,
// with how long that something may still be served. It wraps why.
type ExposureError struct {
	// Until is, for each risk rating, the instant (by this control plane's clock)
	// from which no sidecar can serve any more, because the store that does not
	// answer here renews no lease. Nil when the store does answer the sidecars: it
	// refuses to commit and yet renews their leases, so nothing bounds the exposure.
	// A store that only this control plane cannot reach renews them too.
	Until map[Risk]Time
	err   error
}

func (e *ExposureError) Error() string {
	if e.Until == nil {
		return e.err.Error() + "; the store goes on renewing the sidecars' leases, so nothing is stopped until it commits"
	}
	return e.err.Error() + "; what was to be stopped may be served until the sidecars' leases end"
}

func (e *ExposureError) Unwrap() error { return e.err }

// Exposed adds to the error of a command that was to stop something how long
// that may go on: an *ExposureError, when the store is why it failed. Suspend
// and DenyToken do so themselves; it is for callers that failed before them.
func (r *Register) Exposed(ctx context.Context, err error) error {
	var told *ExposureError
	if errors.As(err, &told) || ctx.Err() != nil || !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrUncertain) {
		return err
	}
	r.readRoll(ctx)
	r.roll.mu.Lock()
	last, known := r.roll.last, r.roll.known
	r.roll.mu.Unlock()
	if last.err == nil {
		return &ExposureError{err: err}
	}
	// They may have polled until this very moment.
	var short, long time.Duration
	for i := range known.members {
		m := &known.members[i]
		if !m.lapsed || last.clock < m.leaseOver() {
			short, long = max(short, m.Short), max(long, m.Long, m.Short)
		}
	}
	if known.number == 0 || known.doubt != 0 {
		short, long = max(short, r.cfg.LeaseMax), max(long, r.cfg.LeaseMax)
	}
	now := At(r.cfg.Now())
	end := func(lease time.Duration) Time {
		if lease == 0 {
			return now
		}
		return now + Time((lease + leaseMargin(lease) + r.cfg.Drain).Milliseconds())
	}
	return &ExposureError{Until: map[Risk]Time{1: end(long), 2: end(long), 3: end(short), 4: end(short)}, err: err}
}
