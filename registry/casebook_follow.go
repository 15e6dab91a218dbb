package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// CaseStore is the part of a store that keeps casework. redisstore has it, and
// registrytest in memory. A Ledger that has it writes the bodies of a Change's
// Cases in the same atomic step as the change; those without Data, which only a
// Reassert has, it leaves as they are.
type CaseStore interface {
	// CaseSnapshot streams every body, in no order. They may be newer than the head
	// was when it began, never older.
	CaseSnapshot(ctx context.Context, put func(*CaseRecord) error) error
	// Cases reads bodies by their keys; those that are not there are left out.
	Cases(ctx context.Context, keys []string) ([]CaseRecord, error)
}

// Bounds of following.
const (
	bookLoadTimeout = 60 * time.Second
	bookReadTimeout = 4 * time.Second
	bookReadKeys    = 500 // bodies read in one step
	bookRetryPause  = 500 * time.Millisecond
)

// books holds the newest Casebook of a Register.
type books struct {
	types map[CaseKind]CaseType
	at    atomic.Pointer[Casebook]
	turn  chan struct{} // held by whoever brings it forward

	mu  sync.Mutex
	err error // why there is none, or none as new as the register
	// changed is closed when another Casebook is there.
	changed chan struct{}
}

func newBooks(types []CaseType) *books {
	b := &books{types: map[CaseKind]CaseType{}, turn: make(chan struct{}, 1), changed: make(chan struct{})}
	for _, t := range types {
		if !t.kind.valid() {
			panic("registry: no kind of casework: " + string(t.kind))
		}
		b.types[t.kind] = t
	}
	return b
}

// offer puts a newer Casebook in the place of the one there is. nil is none.
func (b *books) offer(book *Casebook) {
	if book == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if cur := b.at.Load(); cur != nil && cur.Revision() >= book.Revision() {
		return
	}
	b.at.Store(book)
	b.err = nil
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *books) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// Casebook is the casework as this control plane knows it: what it committed
// itself is always in it. ErrUnavailable until it is loaded, and when what the
// store holds does not verify.
func (r *Register) Casebook() (*Casebook, error) {
	if b := r.books.at.Load(); b != nil {
		return b, nil
	}
	r.books.mu.Lock()
	defer r.books.mu.Unlock()
	if r.books.err != nil {
		return nil, r.books.err
	}
	return nil, fmt.Errorf("%w: the casework is not loaded yet", ErrUnavailable)
}

// CasebookChanged returns a channel that is closed when another Casebook is
// there. To miss none, take the channel first and then look at the Casebook.
func (r *Register) CasebookChanged() <-chan struct{} {
	r.books.mu.Lock()
	defer r.books.mu.Unlock()
	return r.books.changed
}

// Do plans and commits one command of casework: everything that plan puts, records
// of the register and cases alike, in one step, or nothing. plan may run several
// times and must do nothing but read and put.
func (r *Register) Do(ctx context.Context, a Actor, name, reason string, plan func(*Tx) error) (Outcome, error) {
	ans, err := r.send(ctx, &command{actor: a, name: name, reason: reason, plan: plan, cases: true, answer: make(chan answer, 1)})
	return Outcome{ID: ans.id, Revision: ans.revision, Existing: ans.existing, View: ans.view, Cases: ans.book}, err
}

// keepBook keeps the Casebook in step with the mirror.
func (r *Register) keepBook(ctx context.Context) {
	told := ""
	for ctx.Err() == nil {
		changed := r.mirror.Changed()
		var err error
		if v, verr := r.View(); verr == nil {
			_, err = r.bringBook(ctx, v)
		}
		var again <-chan time.Time
		switch {
		case err != nil && ctx.Err() == nil:
			r.books.failed(err)
			if told != err.Error() {
				told = err.Error()
				r.cfg.Log.ErrorContext(ctx, "casework not followed", "err", err)
			}
			again = time.After(bookRetryPause)
		case told != "":
			told = ""
			r.cfg.Log.InfoContext(ctx, "casework followed again")
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-again:
		}
	}
}

// bookFor is the Casebook to plan a group on: at the revision of the View it is
// planned on. nil when it is not available and no command of the group needs
// it: a suspension must not wait for casework.
func (r *Register) bookFor(ctx context.Context, base *View, group []*command) (*Casebook, error) {
	if b := r.books.at.Load(); b != nil && b.Revision() == base.Revision {
		return b, nil
	}
	needed := false
	for _, c := range group {
		needed = needed || c.cases
	}
	if !needed {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, bookReadTimeout)
	defer cancel()
	b, err := r.bringBook(ctx, base)
	switch {
	case err != nil:
		r.cfg.Log.WarnContext(ctx, "commands of casework refused", "err", err)
		return nil, nil // those commands are refused, the others not
	case b.Revision() != base.Revision:
		return nil, ErrConflict // planned again on the newer View
	}
	return b, nil
}

// bringBook returns the Casebook at a View's revision or later.
func (r *Register) bringBook(ctx context.Context, v *View) (*Casebook, error) {
	store, ok := r.ledger.(CaseStore)
	if !ok {
		return nil, fmt.Errorf("%w: this store keeps no casework", ErrUnavailable)
	}
	select {
	case r.books.turn <- struct{}{}:
		defer func() { <-r.books.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	cur := r.books.at.Load()
	if cur != nil && cur.Revision() >= v.Revision {
		return cur, nil
	}
	var err error
	if cur == nil {
		cur, v, err = r.loadBook(ctx, store, v)
	}
	if err == nil {
		cur, err = r.followBook(ctx, store, cur, v)
		if errors.Is(err, ErrTrimmed) {
			if cur, v, err = r.loadBook(ctx, store, v); err == nil {
				cur, err = r.followBook(ctx, store, cur, v)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	r.books.offer(cur)
	return cur, nil
}

// loadBook reads all the casework. What comes back is at the revision of v, but
// for bodies written since; followed up to the View returned it is whole.
func (r *Register) loadBook(ctx context.Context, store CaseStore, v *View) (*Casebook, *View, error) {
	ctx, cancel := context.WithTimeout(ctx, bookLoadTimeout)
	defer cancel()
	b := newCasebook(r.books.types)
	err := store.CaseSnapshot(ctx, func(c *CaseRecord) error { return r.take(b, c) })
	if err != nil {
		return nil, nil, fmt.Errorf("load the casework: %w", err)
	}
	b.indexAll(v)
	b.View = v
	if b.settled > v.Revision {
		if err := r.catchUp(ctx, b.settled); err != nil {
			return nil, nil, fmt.Errorf("load the casework: %w", err)
		}
		if v, err = r.View(); err != nil {
			return nil, nil, err
		}
	}
	return b, v, nil
}

// take verifies a body from the store and puts it in.
func (r *Register) take(b *Casebook, c *CaseRecord) error {
	if !r.sealer.GenuineCase(c) {
		return fmt.Errorf("%w: case %s: %w", ErrUnavailable, truncate(c.Key(), 120), ErrTampered)
	}
	if err := b.set(c); err != nil {
		return fmt.Errorf("%w: case %s: %w", ErrUnavailable, truncate(c.Key(), 120), err)
	}
	return nil
}

// followBook brings a Casebook forward to a View by reading the bodies that the
// changes between them name. ErrTrimmed when those changes are not held.
func (r *Register) followBook(ctx context.Context, store CaseStore, b *Casebook, v *View) (*Casebook, error) {
	next := b.fork()
	if b.Revision() < v.Revision {
		changes, ok := r.mirror.tail.between(b.Revision(), v.Revision)
		if !ok {
			return nil, fmt.Errorf("%w: the casework is at %d, the register at %d", ErrTrimmed, b.Revision(), v.Revision)
		}
		wanted := map[string]Revision{}
		for _, c := range changes {
			for i := range c.Cases {
				wanted[c.Cases[i].Key()] = c.Revision
			}
			next.index(c, b.View, v)
		}
		if err := r.fetch(ctx, store, next, wanted); err != nil {
			return nil, err
		}
		for _, c := range changes {
			for i := range c.Cases {
				want := &c.Cases[i]
				if e := next.entry(want.Kind, want.ID); e == nil || e.Revision < c.Revision || e.Revision == c.Revision && e.MAC != want.MAC {
					return nil, fmt.Errorf("%w: case %s is not the one of revision %d: %w", ErrUnavailable, truncate(want.Key(), 120), c.Revision, ErrTampered)
				}
			}
		}
	}
	next.View = v
	// With bodies newer than the View the sum is not the View's; it is compared
	// once the View is there.
	if next.settled <= v.Revision && next.sum != v.CaseSum {
		return nil, fmt.Errorf("%w: the casework held by the store is not what was written: %d cases, %d were: %w", ErrUnavailable, next.sum.Count, v.CaseSum.Count, ErrTampered)
	}
	return next, nil
}

// fetch reads the bodies that are older than wanted.
func (r *Register) fetch(ctx context.Context, store CaseStore, b *Casebook, wanted map[string]Revision) error {
	var keys []string
	for key, rev := range wanted {
		if e, _ := b.entries.Get(key); e == nil || e.Revision < rev {
			keys = append(keys, key)
		}
	}
	for len(keys) > 0 {
		n := min(len(keys), bookReadKeys)
		rctx, cancel := context.WithTimeout(ctx, bookReadTimeout)
		got, err := store.Cases(rctx, keys[:n])
		cancel()
		if err != nil {
			return fmt.Errorf("read casework: %w", err)
		}
		for i := range got {
			if err := r.take(b, &got[i]); err != nil {
				return err
			}
		}
		keys = keys[n:]
	}
	return nil
}

// withBodies gives changes that were followed the bodies they name, as far as
// those count still: a body that a later one of the changes replaces need not be
// given back. ok is false when one is not held here.
func (r *Register) withBodies(changes []*Change) (whole []*Change, ok bool) {
	book := r.books.at.Load()
	replaced := map[string]bool{}
	whole = make([]*Change, len(changes))
	for n := len(changes) - 1; n >= 0; n-- {
		c := *changes[n]
		c.Cases = append([]CaseRecord(nil), c.Cases...)
		for i := range c.Cases {
			x := &c.Cases[i]
			key := x.Key()
			if x.Data == nil && !replaced[key] {
				if book == nil {
					return nil, false
				}
				e := book.entry(x.Kind, x.ID)
				if e == nil || e.MAC != x.MAC {
					return nil, false
				}
				x.Data = e.body()
			}
			replaced[key] = true
		}
		whole[n] = &c
	}
	return whole, true
}
