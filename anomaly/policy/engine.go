package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// Engine holds the signals of the fleet's watcher against the policies, in the
// one control plane that watches. Its fields are set before Run.
type Engine struct {
	Desk *Desk
	// Share is a product's share of the traffic in percent, negative where nobody
	// knows.
	Share func(product string) float64
	// Keep keeps signals, so that proposed policies can be tried on them. Nil
	// keeps none.
	Keep func(ctx context.Context, s []anomaly.Signal) error
	// Names finds the subscriptions that signals are about. Nil finds none.
	Names *Names
	Log   *slog.Logger

	queue   chan anomaly.Signal
	once    sync.Once
	dropped atomic.Uint64
	unkept  atomic.Uint64
	panics  atomic.Uint64

	mu       sync.Mutex
	entered  map[Entered]uint64
	failed   uint64
	overflow uint64

	// of Run's goroutine
	rules *Evaluator
	at    registry.Revision // of the casework that rules are of
	hour  int64
	count map[string]int // alarms of this hour, by policy
}

// Entered is what alarms are counted by.
type Entered struct {
	Policy  string
	Shadow  bool
	Outcome Outcome
}

// Bounds of the engine.
const (
	engineQueue = 8192
	// alarmsHourMax bounds the new alarms of a policy: a rule that finds more than
	// so many subjects in an hour says nothing about any of them.
	alarmsHourMax = 100
	keepBatch     = 256
	retryFor      = 2 * time.Minute
)

func (e *Engine) init() {
	e.once.Do(func() {
		e.queue = make(chan anomaly.Signal, engineQueue)
		e.entered, e.count = map[Entered]uint64{}, map[string]int{}
		e.rules = NewEvaluator()
		if e.Log == nil {
			e.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// Tell takes a signal. It never waits: what finds no room is dropped and counted.
func (e *Engine) Tell(_ context.Context, s anomaly.Signal) {
	e.init()
	select {
	case e.queue <- s:
	default:
		e.dropped.Add(1)
	}
}

// Counts are what an Engine has done.
type Counts struct {
	// Entered are new alarms; those dropped never reached a rule, those of
	// Overflow were too many of a policy in one hour, Failed could not be committed.
	Entered                                   map[Entered]uint64
	Dropped, Unkept, Overflow, Failed, Panics uint64
}

// Counts counts.
func (e *Engine) Counts() Counts {
	e.init()
	e.mu.Lock()
	defer e.mu.Unlock()
	return Counts{Entered: maps.Clone(e.entered), Dropped: e.dropped.Load(), Unkept: e.unkept.Load(), Overflow: e.overflow, Failed: e.failed, Panics: e.panics.Load()}
}

// Run acts until ctx ends.
func (e *Engine) Run(ctx context.Context) {
	e.init()
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-e.queue:
			batch := []anomaly.Signal{s}
			for len(batch) < keepBatch && len(e.queue) > 0 {
				batch = append(batch, <-e.queue)
			}
			for i := range batch {
				e.see(ctx, batch[i])
			}
			e.keep(ctx, batch)
		}
	}
}

// keep keeps signals; what cannot be kept is no reason not to act on it.
func (e *Engine) keep(ctx context.Context, batch []anomaly.Signal) {
	if e.Keep == nil {
		return
	}
	if err := e.Keep(ctx, batch); err != nil && ctx.Err() == nil {
		e.unkept.Add(uint64(len(batch)))
		e.Log.WarnContext(ctx, "signals not kept; policies cannot be tried on them", "signals", len(batch), "err", err)
	}
}

// see holds one signal against the rules. Whatever falls over here, the watcher
// goes on, and what is in force stays in force.
func (e *Engine) see(ctx context.Context, s anomaly.Signal) {
	defer func() {
		if p := recover(); p != nil {
			e.panics.Add(1)
			e.Log.ErrorContext(ctx, "a policy fell over on a signal", "signal", s.Name.String(), "panic", fmt.Sprint(p))
		}
	}()
	view, err := e.load()
	if err != nil {
		e.fail(ctx, "policies not read", err)
		return
	}
	for _, m := range e.rules.See(s, e.Names.FactsOf(view, s.Subject)) {
		e.act(ctx, &m)
	}
}

// load brings the rules up to date.
func (e *Engine) load() (*registry.View, error) {
	book, err := e.Desk.Register.Casebook()
	if err != nil {
		return nil, err
	}
	if book.Revision() != e.at {
		active, err := ActiveIn(book)
		if err != nil {
			return nil, err
		}
		e.rules.Set(active)
		e.at = book.Revision()
	}
	return book.View, nil
}

func (e *Engine) act(ctx context.Context, m *Match) {
	if !e.room(m.Active.Policy) {
		e.mu.Lock()
		e.overflow++
		e.mu.Unlock()
		e.Log.ErrorContext(ctx, "a policy finds too many; it is not followed for the rest of the hour", "policy", m.Active.Policy, "most", alarmsHourMax)
		return
	}
	var a *Alarm
	var err error
	for pause, until := 50*time.Millisecond, time.Now().Add(retryFor); ; pause = min(2*pause, 5*time.Second) {
		if a, err = e.Desk.Act(ctx, m, e.share); err == nil || a != nil || errors.Is(err, errFellOver) || ctx.Err() != nil || time.Now().After(until) || !e.Desk.Register.Writing() {
			break
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	if err != nil {
		e.fail(ctx, "an alarm was not entered", err)
	}
	if a == nil || a.Times > 1 {
		return
	}
	e.count[m.Active.Policy]++
	e.mu.Lock()
	e.entered[Entered{a.Policy, a.Shadow, a.Outcome}]++
	e.mu.Unlock()
	e.Log.WarnContext(ctx, "a policy raised an alarm", "policy", a.Policy, "version", a.Version, "alarm", a.ID, "outcome", string(a.Outcome),
		"suspension", a.Suspension, "incident", a.Incident, "subject", a.Subject.Kind, "id", a.Subject.ID)
}

func (e *Engine) share(product string) float64 {
	if e.Share == nil {
		return -1
	}
	return e.Share(product)
}

// room tells whether a policy may raise another alarm in this hour.
func (e *Engine) room(policy string) bool {
	if h := time.Now().Unix() / 3600; h != e.hour {
		e.hour = h
		clear(e.count)
	}
	return e.count[policy] < alarmsHourMax
}

func (e *Engine) fail(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	e.failed++
	e.mu.Unlock()
	e.Log.ErrorContext(ctx, what, "err", err)
}
