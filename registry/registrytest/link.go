package registrytest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Fault is what is wrong with a Link. The zero Fault is none.
type Fault struct {
	Refused   bool // every call fails at once
	Silent    bool // no request arrives; the caller waits until its context ends
	LoseReply bool // the request arrives and takes effect; the caller waits until its context ends
	// RequestDelay passes before a request arrives, ReplyDelay before its answer does.
	RequestDelay, ReplyDelay time.Duration
	// Jitter, when set, adds to both delays for the call named: a function of
	// nothing but its argument and the time, where a run is to be repeated exactly.
	Jitter         func(call string) (request, reply time.Duration)
	LoseWakes      bool
	CommitsRefused bool // the store is full: it answers, and commits nothing
	// Alter changes an answer to Follow on its way.
	Alter func(*registry.Poll)
}

// Link is one process's connection to a store, with faults to order. It
// implements registry.Log and registry.Ledger.
type Link struct {
	store Store
	mu    sync.Mutex
	fault Fault
	polls int
}

// NewLink makes a link without a fault.
func NewLink(s Store) *Link { return &Link{store: s} }

// Set orders a fault for the calls that begin from now on.
func (l *Link) Set(f Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = f
}

// Polls counts the calls of Follow.
func (l *Link) Polls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.polls
}

func (l *Link) now() Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

// through runs one call under the fault there is as it begins. lost is the
// error of an answer that does not come.
func (l *Link) through(ctx context.Context, name string, lost error, call func() error) error {
	f := l.now()
	if f.Jitter != nil {
		request, reply := f.Jitter(name)
		f.RequestDelay += request
		f.ReplyDelay += reply
	}
	if f.Refused {
		return fmt.Errorf("link: %w: refused", registry.ErrUnavailable)
	}
	if f.Silent {
		<-ctx.Done()
		return fmt.Errorf("link: %w: %w", lost, ctx.Err())
	}
	if err := sleep(ctx, f.RequestDelay); err != nil {
		return fmt.Errorf("link: %w: %w", lost, err)
	}
	// A request under way is not called back because its caller hangs up.
	err := call()
	if f.LoseReply {
		<-ctx.Done()
		return fmt.Errorf("link: %w: %w", lost, ctx.Err())
	}
	if serr := sleep(ctx, f.ReplyDelay); serr != nil {
		return fmt.Errorf("link: %w: %w", lost, serr)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Snapshot implements registry.Log.
func (l *Link) Snapshot(ctx context.Context, put func(*registry.Record) error) (h registry.Head, err error) {
	err = l.through(ctx, "snapshot", registry.ErrUnavailable, func() error {
		h, err = l.store.Snapshot(ctx, put)
		return err
	})
	if err != nil {
		return registry.Head{}, err
	}
	return h, nil
}

// Follow implements registry.Log.
func (l *Link) Follow(ctx context.Context, ack registry.Ack, n int) (p registry.Poll, err error) {
	l.mu.Lock()
	l.polls++
	l.mu.Unlock()
	err = l.through(ctx, "follow", registry.ErrUnavailable, func() error {
		p, err = l.store.Follow(context.WithoutCancel(ctx), ack, n)
		return err
	})
	if err != nil {
		return registry.Poll{}, err
	}
	if f := l.now(); f.Alter != nil {
		f.Alter(&p)
	}
	return p, nil
}

// Leave implements registry.Log.
func (l *Link) Leave(ctx context.Context, id, incarnation string) error {
	return l.through(ctx, "leave", registry.ErrUnavailable, func() error {
		return l.store.Leave(context.WithoutCancel(ctx), id, incarnation)
	})
}

// Wake implements registry.Log.
func (l *Link) Wake(ctx context.Context) <-chan struct{} {
	in, out := l.store.Wake(ctx), make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-in:
				if !ok {
					return
				}
			}
			if f := l.now(); f.LoseWakes || f.Silent || f.Refused {
				continue
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

// Commit implements registry.Ledger.
func (l *Link) Commit(ctx context.Context, fence registry.Epoch, base registry.Revision, c *registry.Change, h *registry.Head) error {
	if l.now().CommitsRefused {
		return fmt.Errorf("link: %w: full", registry.ErrUnavailable)
	}
	return l.through(ctx, "commit", registry.ErrUncertain, func() error {
		return l.store.Commit(context.WithoutCancel(ctx), fence, base, c, h)
	})
}

// Lead implements registry.Ledger.
func (l *Link) Lead(ctx context.Context, holder string, have registry.Epoch, ttl time.Duration) (e registry.Epoch, err error) {
	err = l.through(ctx, "lead", registry.ErrUnavailable, func() error {
		e, err = l.store.Lead(context.WithoutCancel(ctx), holder, have, ttl)
		return err
	})
	if err != nil {
		return 0, err
	}
	return e, nil
}

// Replayed implements registry.Ledger.
func (l *Link) Replayed(ctx context.Context, key string) (data []byte, err error) {
	err = l.through(ctx, "replayed", registry.ErrUnavailable, func() error {
		data, err = l.store.Replayed(ctx, key)
		return err
	})
	return data, err
}

// Remember implements registry.Ledger.
func (l *Link) Remember(ctx context.Context, key string, data []byte) error {
	return l.through(ctx, "remember", registry.ErrUnavailable, func() error {
		return l.store.Remember(context.WithoutCancel(ctx), key, data)
	})
}

// Roll implements registry.Ledger.
func (l *Link) Roll(ctx context.Context) (r registry.Roll, err error) {
	err = l.through(ctx, "roll", registry.ErrUnavailable, func() error {
		r, err = l.store.Roll(context.WithoutCancel(ctx))
		return err
	})
	return r, err
}

// Settle implements registry.Ledger.
func (l *Link) Settle(ctx context.Context, tenure string) error {
	return l.through(ctx, "settle", registry.ErrUnavailable, func() error {
		return l.store.Settle(context.WithoutCancel(ctx), tenure)
	})
}

// Reassert implements registry.Ledger.
func (l *Link) Reassert(ctx context.Context, store registry.Head, changes []*registry.Change, h *registry.Head) error {
	return l.through(ctx, "reassert", registry.ErrUncertain, func() error {
		return l.store.Reassert(context.WithoutCancel(ctx), store, changes, h)
	})
}

// CaseSnapshot implements registry.CaseStore.
func (l *Link) CaseSnapshot(ctx context.Context, put func(*registry.CaseRecord) error) error {
	return l.through(ctx, "case-snapshot", registry.ErrUnavailable, func() error { return l.store.CaseSnapshot(ctx, put) })
}

// Cases implements registry.CaseStore.
func (l *Link) Cases(ctx context.Context, keys []string) (got []registry.CaseRecord, err error) {
	err = l.through(ctx, "cases", registry.ErrUnavailable, func() error {
		got, err = l.store.Cases(ctx, keys)
		return err
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// Changes implements registry.Ledger.
func (l *Link) Changes(ctx context.Context, after registry.Revision, n int) (changes []registry.Change, err error) {
	err = l.through(ctx, "changes", registry.ErrUnavailable, func() error {
		changes, err = l.store.Changes(ctx, after, n)
		return err
	})
	return changes, err
}

// Trim implements Store.
func (l *Link) Trim(ctx context.Context, upTo registry.Revision) error {
	return l.store.Trim(ctx, upTo)
}
