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
	// Forgetful: the answers of Idempotency-Keys are not kept, as of a control plane
	// that dies between its commits and its answer.
	Forgetful bool
	// OnCommit sees each change that is to be committed, before any other fault.
	OnCommit func(*registry.Change)
	// Alter changes an answer to Follow on its way.
	Alter func(*registry.Poll)
}

// Link is one process's connection to a store, with faults to order. It
// implements registry.Log, registry.Pusher, registry.Ledger and
// registry.GroupLedger.
type Link struct {
	Name string // by which Stopped.Promote knows it

	store  Store
	pushes registry.Pushes

	mu    sync.Mutex
	fault Fault
	polls int
	wakes []chan struct{}
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

// deaf tells whether wake-ups get lost.
func (l *Link) deaf() bool {
	f := l.now()
	return f.LoseWakes || f.Silent || f.Refused
}

// through runs one call under the fault there is as it begins. lost is the
// error of an answer that does not come.
func through[T any](ctx context.Context, l *Link, name string, lost error, call func(context.Context, Store) (T, error)) (T, error) {
	f := l.now()
	if f.Jitter != nil {
		request, reply := f.Jitter(name)
		f.RequestDelay += request
		f.ReplyDelay += reply
	}
	var none, got T
	if f.Refused {
		return none, fmt.Errorf("link: %w: refused", registry.ErrUnavailable)
	}
	silence := func() (T, error) {
		<-ctx.Done()
		return none, fmt.Errorf("link: %w: %w", lost, ctx.Err())
	}
	if f.Silent || sleep(ctx, f.RequestDelay) != nil {
		return silence()
	}
	// A request under way is not called back because its caller hangs up.
	var err error
	run := func(s Store) { got, err = call(context.WithoutCancel(ctx), s) }
	if m, ok := l.store.(*Memory); !ok {
		run(l.store)
	} else if done := m.arrive(run); done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return silence()
		}
	}
	if f.LoseReply || sleep(ctx, f.ReplyDelay) != nil {
		return silence()
	}
	return got, err
}

// without is through for a call that answers nothing but an error.
func (l *Link) without(ctx context.Context, name string, lost error, call func(context.Context, Store) error) error {
	_, err := through(ctx, l, name, lost, func(ctx context.Context, s Store) (struct{}, error) { return struct{}{}, call(ctx, s) })
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
func (l *Link) Snapshot(ctx context.Context, put func(*registry.Record) error) (registry.Head, error) {
	h, err := through(ctx, l, "snapshot", registry.ErrUnavailable, func(_ context.Context, s Store) (registry.Head, error) {
		if ctx.Err() != nil {
			return registry.Head{}, ctx.Err() // nobody takes the records any more
		}
		return s.Snapshot(ctx, put)
	})
	if err != nil {
		return registry.Head{}, err
	}
	return h, nil
}

// Follow implements registry.Log.
func (l *Link) Follow(ctx context.Context, ack registry.Ack, n int) (registry.Poll, error) {
	l.mu.Lock()
	l.polls++
	l.mu.Unlock()
	p, err := through(ctx, l, "follow", registry.ErrUnavailable, func(ctx context.Context, s Store) (registry.Poll, error) {
		return s.Follow(ctx, ack, n)
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
	return l.without(ctx, "leave", registry.ErrUnavailable, func(ctx context.Context, s Store) error { return s.Leave(ctx, id, incarnation) })
}

// Wake implements registry.Log.
func (l *Link) Wake(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	l.mu.Lock()
	l.wakes = append(l.wakes, out)
	l.mu.Unlock()
	var in <-chan struct{}
	if m, ok := l.store.(*Memory); ok {
		in = m.subscribe(ctx, l.Name, func(changes []registry.Change) {
			if !l.deaf() {
				l.pushes.Note(changes)
			}
		})
	} else {
		in = l.store.Wake(ctx)
	}
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
			if l.deaf() {
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

// Pushed implements registry.Pusher.
func (l *Link) Pushed(after registry.Revision) []registry.Change { return l.pushes.Pushed(after) }

// Push wakes whoever follows, with changes that come from wherever.
func (l *Link) Push(changes []registry.Change) {
	l.pushes.Note(changes)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.wakes {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Commit implements registry.Ledger.
func (l *Link) Commit(ctx context.Context, fence registry.Epoch, base registry.Mark, c *registry.Change, h *registry.Head) error {
	return l.CommitGroup(ctx, fence, base, []*registry.Change{c}, h)
}

// CommitGroup implements registry.GroupLedger.
func (l *Link) CommitGroup(ctx context.Context, fence registry.Epoch, base registry.Mark, changes []*registry.Change, h *registry.Head) error {
	f := l.now()
	for _, c := range changes {
		if f.OnCommit != nil {
			f.OnCommit(c)
		}
	}
	if f.CommitsRefused {
		return fmt.Errorf("link: %w: full", registry.ErrUnavailable)
	}
	return l.without(ctx, "commit", registry.ErrUncertain, func(ctx context.Context, s Store) error {
		if g, ok := s.(registry.GroupLedger); ok {
			return g.CommitGroup(ctx, fence, base, changes, h)
		}
		if len(changes) != 1 {
			panic("registrytest: a group for a store that takes none")
		}
		return s.Commit(ctx, fence, base, changes[0], h)
	})
}

// Lead implements registry.Ledger.
func (l *Link) Lead(ctx context.Context, holder string, have registry.Epoch, ttl time.Duration) (registry.Epoch, error) {
	e, err := through(ctx, l, "lead", registry.ErrUnavailable, func(ctx context.Context, s Store) (registry.Epoch, error) {
		return s.Lead(ctx, holder, have, ttl)
	})
	if err != nil {
		return 0, err
	}
	return e, nil
}

// Replayed implements registry.Ledger.
func (l *Link) Replayed(ctx context.Context, key string) (registry.Kept, error) {
	return through(ctx, l, "replayed", registry.ErrUnavailable, func(ctx context.Context, s Store) (registry.Kept, error) { return s.Replayed(ctx, key) })
}

// Remember implements registry.Ledger.
func (l *Link) Remember(ctx context.Context, key string, data []byte) error {
	if l.now().Forgetful {
		return nil
	}
	return l.without(ctx, "remember", registry.ErrUnavailable, func(ctx context.Context, s Store) error { return s.Remember(ctx, key, data) })
}

// Roll implements registry.Ledger.
func (l *Link) Roll(ctx context.Context) (registry.Roll, error) {
	return through(ctx, l, "roll", registry.ErrUnavailable, func(ctx context.Context, s Store) (registry.Roll, error) { return s.Roll(ctx) })
}

// Settle implements registry.Ledger.
func (l *Link) Settle(ctx context.Context, tenure string) error {
	return l.without(ctx, "settle", registry.ErrUnavailable, func(ctx context.Context, s Store) error { return s.Settle(ctx, tenure) })
}

// Reassert implements registry.Ledger.
func (l *Link) Reassert(ctx context.Context, store registry.Head, changes []*registry.Change, h *registry.Head) error {
	return l.without(ctx, "reassert", registry.ErrUncertain, func(ctx context.Context, s Store) error {
		return s.Reassert(ctx, store, changes, h)
	})
}

// CaseSnapshot implements registry.CaseStore.
func (l *Link) CaseSnapshot(ctx context.Context, put func(*registry.CaseRecord) error) error {
	return l.without(ctx, "case-snapshot", registry.ErrUnavailable, func(_ context.Context, s Store) error {
		if ctx.Err() != nil {
			return ctx.Err() // nobody takes the records any more
		}
		return s.CaseSnapshot(ctx, put)
	})
}

// Cases implements registry.CaseStore.
func (l *Link) Cases(ctx context.Context, keys []string) ([]registry.CaseRecord, error) {
	return through(ctx, l, "cases", registry.ErrUnavailable, func(ctx context.Context, s Store) ([]registry.CaseRecord, error) {
		return s.Cases(ctx, keys)
	})
}

// Changes implements registry.Ledger.
func (l *Link) Changes(ctx context.Context, after registry.Revision, n int) ([]registry.Change, error) {
	return through(ctx, l, "changes", registry.ErrUnavailable, func(ctx context.Context, s Store) ([]registry.Change, error) {
		return s.Changes(ctx, after, n)
	})
}

// Trim implements Store.
func (l *Link) Trim(ctx context.Context, upTo registry.Revision) error {
	return l.store.Trim(ctx, upTo)
}
