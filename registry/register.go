package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the writer. A commit that a client began goes on for
// commitTimeout even when the client hangs up.
const (
	commitTimeout    = 10 * time.Second
	offerTimeout     = 4 * time.Second // one attempt; the store has a timeout of its own
	acceptTimeout    = 5 * time.Second
	catchUpTimeout   = 3 * time.Second
	groupCommandsMax = 256 // commands whose changes go to the store in one step
	conflictsMax     = 8   // times a group is planned again after another writer's change
)

// RegisterConfig is how one control plane writes.
type RegisterConfig struct {
	// Holder names this control plane in the writer's claim; stable over restarts,
	// different on each control plane.
	Holder string
	// ClaimTTL is how long the claim stands without being renewed: after that
	// long another control plane may take over. Default 5 s.
	ClaimTTL time.Duration
	// Drain is how long Await waits after the last acknowledgement for decisions
	// already in flight. Default 0.
	Drain time.Duration
	// AwaitMax is the longest an Await waits. Default 5 s.
	AwaitMax time.Duration
	// LeaseMax is the longest serving lease that any sidecar is configured with,
	// and so how long after a failover of the store one that is not on the roll may
	// still serve. A longer lease seen on the roll counts instead. Default 60 s.
	LeaseMax time.Duration
	// Journal records every change before it is acknowledged. A change that could
	// not be recorded stays committed and is answered with ErrNotDurable. Nil: none.
	Journal Journal
	// Cases are the types of casework that this control plane keeps. Casework of
	// other types is kept as it is, and cannot be written.
	Cases []CaseType
	// Now is the clock of new records; default time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// Register is every command of the register: it checks permission and rule on
// the newest View, and commits one change for each command. Any number of
// goroutines may command at once; changes are planned one after another by the
// goroutine of Run, several to a trip to the store.
//
// A command that returns an error that is neither ErrNotDurable nor
// ErrUncertain has changed nothing. ErrNotDurable comes with the Result: the
// change is committed, on fewer replicas than asked for.
//
// A store that failed over may have lost the newest changes. This control plane
// then gives them back, the same bytes at the same revisions, before it commits
// or answers anything else (see reassert).
type Register struct {
	ledger Ledger
	mirror *Mirror
	sealer *Sealer
	cfg    RegisterConfig

	commands chan *command
	stopped  chan struct{} // closed when Run has ended

	// epoch is the one this control plane writes under; 0 while it is not the writer.
	epoch   atomic.Uint64
	reclaim chan struct{} // wakes the claim after a commit was fenced

	// tip is the newest View this control plane committed itself; the mirror
	// overtakes it. Written by the goroutine of Run only.
	tip atomic.Pointer[View]
	// planned are the changes offered to the store last.
	planned atomic.Pointer[[]*Change]
	// rewound wakes Run: the store's head is behind what is known to be committed.
	rewound chan struct{}
	// behind wakes Run: a sidecar holds a revision above the store's head.
	behind chan struct{}
	// unhealed is why the store was not brought up to what is held last time, told
	// already; owned by Run.
	unhealed string

	books *books
	roll  rollWatch
	once  flights

	// journalQueue goes from the goroutine of Run to that of keepJournal.
	journalQueue chan journaling
}

// GroupLedger is a Ledger that commits several changes, of the revisions after
// base, in one atomic step: all or none. head is the head after the last.
// Register uses it when the ledger has it; a thousand suspensions at once then
// take a few trips to the store, not a thousand.
type GroupLedger interface {
	CommitGroup(ctx context.Context, fence Epoch, base Mark, changes []*Change, head *Head) error
}

// NewRegister makes a Register over a ledger and a mirror of the same store;
// it accepts commands while Run runs.
func NewRegister(l Ledger, m *Mirror, s *Sealer, cfg RegisterConfig) *Register {
	if cfg.ClaimTTL <= 0 {
		cfg.ClaimTTL = 5 * time.Second
	}
	if cfg.AwaitMax <= 0 {
		cfg.AwaitMax = 5 * time.Second
	}
	if cfg.LeaseMax <= 0 {
		cfg.LeaseMax = 60 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Register{
		ledger: l, mirror: m, sealer: s, cfg: cfg,
		commands: make(chan *command),
		stopped:  make(chan struct{}),
		reclaim:  make(chan struct{}, 1),
		rewound:  make(chan struct{}, 1),
		behind:   make(chan struct{}, 1),
		books:    newBooks(cfg.Cases),
		roll:     newRollWatch(),
		once:     flights{running: map[string]*flight{}},

		journalQueue: make(chan journaling, journalQueueMax),
	}
}

// Run takes the writer's claim and renews it, commits what is commanded, and
// watches the roll, until ctx ends; then it gives the claim up. Call it once.
func (r *Register) Run(ctx context.Context) error {
	defer close(r.stopped)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { r.keepClaim(ctx) })
	wg.Go(func() { r.watchRoll(ctx) })
	if r.cfg.Journal != nil {
		wg.Go(func() { r.keepJournal(ctx) })
	}
	defer close(r.journalQueue) // what is committed is still recorded and answered
	wg.Go(func() { r.keepBook(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.rewound:
			r.heal(ctx, "what the store lost was not given back", r.reassert)
		case <-r.behind:
			r.heal(ctx, "what a sidecar holds and the store does not was not superseded", r.supersede)
		case c := <-r.commands:
			r.commitGroup(ctx, r.gather(c))
		}
	}
}

// Writing tells whether this control plane holds the writer's claim, as far as it knows.
func (r *Register) Writing() bool { return r.epoch.Load() != 0 }

// View is the newest register this control plane knows, for reads: what it
// committed itself is always in it. ErrUnavailable until the mirror has loaded.
func (r *Register) View() (*View, error) {
	m := r.mirror.View()
	if m == nil {
		return nil, fmt.Errorf("%w: the register is not loaded yet", ErrUnavailable)
	}
	if t := r.tip.Load(); t != nil && t.Revision > m.Revision {
		return t, nil
	}
	return m, nil
}

// keepClaim holds the writer's claim, renewing it three times in its life.
func (r *Register) keepClaim(ctx context.Context) {
	var held Epoch
	tick := time.NewTicker(max(r.cfg.ClaimTTL/3, time.Millisecond))
	defer tick.Stop()
	for {
		epoch, err := r.lead(ctx, held, r.cfg.ClaimTTL)
		switch {
		case err == nil:
			if held == 0 {
				r.cfg.Log.InfoContext(ctx, "writer's claim taken", "holder", r.cfg.Holder, "epoch", epoch)
				r.holdOff(ctx)
			}
			held = epoch
			r.epoch.Store(uint64(epoch))
		case errors.Is(err, ErrFenced):
			if held != 0 {
				r.cfg.Log.WarnContext(ctx, "writer's claim lost", "holder", r.cfg.Holder, "epoch", held, "err", err)
			}
			held = 0
			r.epoch.Store(0)
		case ctx.Err() == nil:
			// The claim may still stand; the store refuses a stale epoch anyway.
			r.cfg.Log.WarnContext(ctx, "writer's claim not renewed", "holder", r.cfg.Holder, "epoch", held, "err", err)
		}
		select {
		case <-ctx.Done():
			r.epoch.Store(0)
			if held != 0 {
				if _, err := r.lead(context.WithoutCancel(ctx), held, 0); err != nil {
					r.cfg.Log.WarnContext(ctx, "writer's claim not given up", "epoch", held, "err", err)
				}
			}
			return
		case <-r.reclaim:
			held = 0
		case <-tick.C:
		}
	}
}

func (r *Register) lead(ctx context.Context, have Epoch, ttl time.Duration) (Epoch, error) {
	ctx, cancel := context.WithTimeout(ctx, max(r.cfg.ClaimTTL, time.Second))
	defer cancel()
	return r.ledger.Lead(ctx, r.cfg.Holder, have, ttl)
}

// Meta goes with every command that changes a record.
type Meta struct {
	// IfMatch is the revision the record must have; 0 for no precondition.
	IfMatch Revision
	// Reason is kept in the log.
	Reason string
}

// Result is what a command made of a record.
type Result[T any] struct {
	Entry *Entry[T]
	// Revision is the one to Await: of the commit, or, when Existing, of the
	// record found as commanded already.
	Revision Revision
	Existing bool
}

// command is one caller's wish, planned (perhaps several times) by the
// goroutine of Run and answered once.
type command struct {
	actor  Actor
	name   string // in the log, e.g. product.create
	reason string
	plan   func(*Tx) error
	cases  bool        // reads or writes casework
	empty  bool        // a change that puts nothing is wanted
	once   *once       // of whose request it is; nil without an Idempotency-Key
	answer chan answer // capacity 1
}

type answer struct {
	view     *View
	book     *Casebook
	id       string
	revision Revision
	existing bool
	changed  bool // something was committed
	err      error
}

// Tx is one change being planned: what a command reads, and what it writes, all
// of which is committed in one step or not at all.
//
// view shows the register with what the change has put so far.
type Tx struct {
	view     *View
	now      Time
	revision Revision // the change's
	actor    Actor
	id       string   // of the record the command is about
	found    Revision // of that record, when it was as commanded already and nothing was put

	b      *Builder
	sealer *Sealer
	puts   []Record
	book   *Casebook // before this change; nil when not available
	cases  []CaseRecord
}

type tx = Tx

// put writes a record, at most once for each key in a change.
func (t *tx) put(kind Kind, id string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s/%s: %w", kind, id, err)
	}
	if len(data) > recordBytesMax {
		return Field("", "the record would have %d bytes; at most %d", len(data), recordBytesMax)
	}
	rec := Record{Kind: kind, ID: id, Data: data}
	t.sealer.Seal(&rec, t.revision)
	if err := t.b.Put(&rec); err != nil {
		return err
	}
	t.puts = append(t.puts, rec)
	t.id = id
	return nil
}

// submit hands a command to the writer and waits for its answer. Once the
// writer has taken it, it is answered whatever becomes of ctx.
func (r *Register) submit(ctx context.Context, a Actor, name, reason string, plan func(*tx) error) (answer, error) {
	return r.send(ctx, &command{actor: a, name: name, reason: reason, plan: plan, answer: make(chan answer, 1)})
}

func (r *Register) send(ctx context.Context, c *command) (answer, error) {
	if o, ok := ctx.Value(onceKey{}).(*once); ok {
		return r.sendOnce(ctx, o, c)
	}
	return r.hand(ctx, c)
}

// hand hands a command to the writer and waits for its answer.
func (r *Register) hand(ctx context.Context, c *command) (answer, error) {
	a, name, reason := c.actor, c.name, c.reason
	if a.Name == "" {
		return answer{}, fmt.Errorf("%w: a command needs a named actor", ErrForbidden)
	}
	if err := checkReason("/reason", reason, false); err != nil {
		return answer{}, err
	}
	wait := time.NewTimer(acceptTimeout)
	defer wait.Stop()
	select {
	case r.commands <- c:
	case <-r.stopped:
		return answer{}, fmt.Errorf("%s: %w: this control plane is stopping", name, ErrUnavailable)
	case <-wait.C:
		return answer{}, fmt.Errorf("%s: %w: the writer is busy", name, ErrUnavailable)
	case <-ctx.Done():
		return answer{}, fmt.Errorf("%s: %w", name, ctx.Err())
	}
	ans := <-c.answer
	if ans.err != nil {
		ans.err = fmt.Errorf("%s: %w", name, ans.err)
	}
	return ans, ans.err
}

// do submits a command about one record of type T.
func do[T any](ctx context.Context, r *Register, a Actor, name, reason string, plan func(*tx) error) (Result[T], error) {
	ans, err := r.submit(ctx, a, name, reason, plan)
	res := Result[T]{Revision: ans.revision, Existing: ans.existing}
	if ans.view != nil {
		res.Entry = entryOf[T](ans.view, ans.id)
	}
	return res, err
}

// entryOf finds a record by its type.
func entryOf[T any](v *View, id string) *Entry[T] {
	var e any
	switch any((*T)(nil)).(type) {
	case *Entity:
		e = v.entities.get(id)
	case *Product:
		e = v.products.get(id)
	case *ClientApp:
		e = v.apps.get(id)
	case *Credential:
		e = v.credentials.get(id)
	case *Subscription:
		e = v.subscriptions.get(id)
	case *Service:
		e = v.services.get(id)
	case *Suspension:
		e = v.suspensions.get(id)
	case *Denial:
		e = v.denials.get(id)
	case *Notice:
		e = v.notices.get(id)
	case *Limit:
		e = v.limits.get(id)
	case *Protected:
		e = v.protected.get(id)
	case *Screen:
		e = v.screens.get(id)
	default:
		panic("registry: no such record type")
	}
	return e.(*Entry[T])
}

// keep answers with a record as it is.
func keep[T any](t *tx, e *Entry[T]) error {
	t.id, t.found = e.ID, e.Revision
	return nil
}

// creating refuses an ID in use.
func creating[T any](t *tx, id string) error {
	if entryOf[T](t.view, id) != nil {
		return fmt.Errorf("%w: %s exists already", ErrState, id)
	}
	return nil
}

// changing finds a record to change and checks the precondition.
func changing[T any](t *tx, id string, m Meta) (T, error) {
	e := entryOf[T](t.view, id)
	if e == nil {
		var none T
		return none, fmt.Errorf("%w: %s", ErrNotFound, truncate(id, 80))
	}
	if m.IfMatch != 0 && m.IfMatch != e.Revision {
		return e.Value, fmt.Errorf("%w: it has revision %d now", ErrPrecondition, e.Revision)
	}
	return e.Value, nil
}

// Now is the instant by this control plane's clock.
func (r *Register) Now() Time { return At(r.cfg.Now()) }
