package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// MirrorConfig says how a Mirror follows its log. The zero value of a field
// takes the default.
type MirrorConfig struct {
	ID          string // of the sidecar, stable over restarts
	Incarnation string // random, one per process
	// Short and Long are the serving leases for risk ratings 3–4 and 1–2. Default 2 s and 60 s.
	Short, Long time.Duration
	// Poll is the longest time from one poll to the next; a wake-up makes it
	// sooner. It heals lost wake-ups and renews the leases. Default 500 ms, at most a quarter of Short.
	Poll time.Duration
	// Batch is the most changes taken in one poll. Default 1024.
	Batch int
	// Recount is how often the digest is counted anew over all records held, so
	// that a fault in this process's own memory is found too. Default 1 min.
	Recount time.Duration
	// Observer follows without serving traffic (a control plane): it is not on the roll.
	Observer bool
	// StateFile keeps the highest head seen over a restart, so that a new process
	// refuses an older or emptied store. None when empty.
	StateFile string
	// TightMemory makes the process collect garbage harder while it loads, and
	// give the memory back afterwards. Process-wide: for one Mirror a process.
	TightMemory bool

	Clock func() time.Duration // of the leases; default NewBootClock()
	// Jitter is how much of a pause between attempts is left out, up to d, so that
	// a fleet does not come back in step. Default: at random.
	Jitter  func(d time.Duration) time.Duration
	Now     func() time.Time // default time.Now
	Log     *slog.Logger     // default: none
	OnAlarm func(Alarm)      // called by Run's goroutine; must not block
}

// The bounds of one load, of one poll, and of the waits between attempts that
// failed: short enough to renew a lease within a second of the store's return.
const (
	loadTimeout     = time.Minute
	pollTimeoutMax  = 5 * time.Second
	retryPauseFirst = 25 * time.Millisecond
	retryPauseMax   = 300 * time.Millisecond
	leaveTimeout    = 2 * time.Second
)

// Mirror follows the log and publishes Views. Run is the only writer; every
// other method may be called from any goroutine at any time.
//
// It never goes to a lower revision or epoch; applies nothing that does not
// verify; and renews the leases only by a poll whose answer leaves it at the
// head of the store, with the head's digest. When the store is wrong in any
// way it holds the View it has, raises an alarm, and lets the leases run out.
type Mirror struct {
	log    Log
	sealer *Sealer
	cfg    MirrorConfig

	served  atomic.Pointer[Served]
	running atomic.Bool
	tail    tail // an Observer's: what it followed lately
	// forked is the store's head when it is genuine, not behind, and yet of an
	// earlier epoch than what is held: the store went on from before that.
	forked atomic.Pointer[Head]

	mu      sync.Mutex // guards status and changed
	status  MirrorStatus
	changed chan struct{}

	// Owned by Run.
	floor     Head // the highest genuine head seen, in this process or an earlier one
	reload    bool // the View held cannot be brought forward by the log
	joined    bool // a poll put this incarnation on the roll
	recounted time.Duration
	standing  map[standingAlarm]bool // conditions told already
	keeper    *stateKeeper
}

type standingAlarm struct {
	kind AlarmKind
	what string
}

// MirrorStatus is what a Mirror says of itself, for metrics and the console.
type MirrorStatus struct {
	Loaded              bool
	Revision, Store     Revision // held, and the store's head as last seen
	Epoch               Epoch
	Records             uint64
	Digest              Digest
	ShortLeft, LongLeft time.Duration // of the leases; negative when lapsed
	Polls, PollErrors   uint64
	Loads               uint64        // snapshots loaded
	LoadTime            time.Duration // of the last one
	Alarms              [alarmKinds]uint64
	LastError           string // of the last poll or load, "" when it succeeded
}

// NewMirror makes a Mirror; Run starts it.
func NewMirror(log Log, sealer *Sealer, cfg MirrorConfig) *Mirror {
	cfg.Short = cmp.Or(max(cfg.Short, 0), 2*time.Second)
	cfg.Long = cmp.Or(max(cfg.Long, 0), 60*time.Second)
	cfg.Poll = min(cmp.Or(max(cfg.Poll, 0), 500*time.Millisecond), cfg.Short/4)
	cfg.Batch = cmp.Or(max(cfg.Batch, 0), 1024)
	cfg.Recount = cmp.Or(max(cfg.Recount, 0), time.Minute)
	if cfg.Clock == nil {
		cfg.Clock = NewBootClock()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.N[time.Duration]
	}
	return &Mirror{
		log: log, sealer: sealer, cfg: cfg,
		changed:  make(chan struct{}),
		standing: map[standingAlarm]bool{},
	}
}

// Served is the View to answer from with its leases: one atomic load. Nil
// until the register is loaded.
func (m *Mirror) Served() *Served { return m.served.Load() }

// View is the register as held now, fresh or not; nil until loaded.
func (m *Mirror) View() *View {
	if s := m.served.Load(); s != nil {
		return s.View
	}
	return nil
}

// Now reads the clock the leases are counted on.
func (m *Mirror) Now() time.Duration { return m.cfg.Clock() }

// Ready tells whether the register is loaded and fresh for every risk rating.
func (m *Mirror) Ready() bool { return m.Served().Fresh(0, m.cfg.Clock()) }

// Changed returns a channel that is closed when another View is published. To
// miss none, take the channel first and then look at the View.
func (m *Mirror) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Status is a copy of what the Mirror says of itself.
func (m *Mirror) Status() MirrorStatus {
	m.mu.Lock()
	st := m.status
	m.mu.Unlock()
	if s := m.Served(); s != nil {
		v, now := s.View, m.cfg.Clock()
		st.Loaded, st.Revision, st.Epoch, st.Records, st.Digest = true, v.Revision, v.Epoch, v.Records, v.Digest
		st.ShortLeft, st.LongLeft = s.ShortUntil-now, s.LongUntil-now
	}
	return st
}

// Run loads the register and follows it until ctx ends; then it ends the
// leases, so that nothing more is allowed, and leaves the roll. It returns an
// error only when the state file cannot be used. Call it once.
func (m *Mirror) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		panic("registry: Mirror.Run called twice")
	}
	keeper, floor, err := openState(m.cfg.StateFile, m.sealer, m.cfg.Log)
	if err != nil {
		return err
	}
	m.keeper, m.floor = keeper, floor
	defer keeper.close(m.cfg.Log)
	defer m.leave(ctx)

	wakeCtx, stopWakes := context.WithCancel(ctx)
	defer stopWakes()
	wakes := m.log.Wake(wakeCtx)
	failures := 0
	for ctx.Err() == nil {
		sent := m.cfg.Clock()
		more, err := m.step(ctx)
		if ctx.Err() != nil {
			break
		}
		m.settle(ctx, err)
		switch {
		case err != nil:
			failures++
			wait(ctx, m.retryPause(failures), nil)
		case more:
			failures = 0
		default:
			failures = 0
			if !wait(ctx, sent+m.cfg.Poll-m.cfg.Clock(), wakes) {
				wakes = nil // the store gives up on wake-ups; polling goes on
			}
		}
	}
	return nil
}

// wait sleeps, or less when woken; false when the wake-ups have ended.
func wait(ctx context.Context, d time.Duration, wakes <-chan struct{}) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case _, ok := <-wakes:
		return ok
	}
	return true
}

// retryPause doubles to a bound, less up to half at random so that a fleet
// does not come back in step.
func (m *Mirror) retryPause(failures int) time.Duration {
	d := min(retryPauseFirst<<min(failures-1, 10), retryPauseMax)
	return d - m.cfg.Jitter(d/2)
}

// step loads when there is nothing to bring forward, and polls once.
func (m *Mirror) step(ctx context.Context) (more bool, err error) {
	held := m.View()
	if held == nil || m.reload {
		v, err := m.load(ctx, held)
		if err != nil {
			return false, fmt.Errorf("load the register: %w", err)
		}
		m.reload = false
		if m.cfg.Observer {
			m.recall(ctx, v)
		}
		m.publish(v)
		held = v
	}
	return m.poll(ctx, m.takePushed(held))
}

// takePushed brings the View forward by what came with a wake-up and stops
// something, so that the poll that follows acknowledges it. The leases stay as
// they are: only a poll renews them. What does not verify or does not follow is
// left to that poll, which finds out what is wrong.
func (m *Mirror) takePushed(held *View) *View {
	p, ok := m.log.(Pusher)
	if !ok || m.cfg.Observer || m.Served().LongUntil == 0 {
		return held
	}
	pushed := p.Pushed(held.Revision)
	v, _ := m.apply(held, pushed[:stops(held, pushed)], 0)
	if v != held {
		m.publish(v)
	}
	return v
}

// poll acknowledges the View held, in the same step takes what came after it,
// and renews the leases when that leads to the head.
func (m *Mirror) poll(ctx context.Context, held *View) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(m.cfg.Short/3, pollTimeoutMax))
	defer cancel()
	sent := m.cfg.Clock()
	m.joined = true // even when no answer comes, the store may have taken it
	p, err := m.log.Follow(ctx, Ack{
		ID: m.cfg.ID, Incarnation: m.cfg.Incarnation, Observer: m.cfg.Observer,
		Revision: held.Revision, Digest: held.Digest, Short: m.cfg.Short, Long: m.cfg.Long,
	}, m.cfg.Batch)
	if err != nil {
		m.reload = m.reload || errors.Is(err, ErrTrimmed)
		return false, fmt.Errorf("poll: %w", err)
	}
	if err := m.checkHead(&p.Head, held); err != nil {
		return false, err
	}
	v, err := m.apply(held, p.Changes, 0)
	if m.cfg.Observer {
		for i := range p.Changes {
			if p.Changes[i].Revision > v.Revision {
				break
			}
			m.tail.note(&p.Changes[i]) // before it is published: what follows it must find it
		}
	}
	if v != held {
		m.publish(v) // what verified takes effect, even when what follows it does not
	}
	if err == nil {
		err = m.compare(v, &p.Head, len(p.Changes))
	}
	if err == nil && sent-m.recounted >= m.cfg.Recount {
		m.recounted = sent
		err = recount(v)
	}
	var a *alarmError
	if errors.As(err, &a) && (a.Kind == AlarmDigest || errors.Is(err, errEpoch)) {
		m.reload = true // the View held is of another history than the store's
	}
	if err != nil {
		return false, err
	}
	if v.Revision < p.Head.Revision {
		return true, nil
	}
	m.floor = p.Head
	m.keeper.offer(p.Head)
	// Counted from send, not reply: a slow reply would stretch the lease.
	m.served.Store(&Served{View: v, ShortUntil: sent + m.cfg.Short, LongUntil: sent + m.cfg.Long})
	// What is newly served is acknowledged at once, by another poll: a suspension
	// waits for it.
	return v.Revision > held.Revision, nil
}

// checkHead refuses a head that does not verify or goes back behind what was
// held, by this process or an earlier one.
func (m *Mirror) checkHead(h *Head, held *View) error {
	revision, epoch, records := m.floor.Revision, m.floor.Epoch, m.floor.Records
	if held != nil {
		revision, epoch, records = max(revision, held.Revision), max(epoch, held.Epoch), max(records, held.Records)
	}
	alarm := func(kind AlarmKind, err error) error {
		return &alarmError{Alarm{Kind: kind, What: "head", Held: revision, Store: h.Revision, Err: err}}
	}
	// Nobody seals the head of a register that was never written.
	if *h != (Head{}) && m.sealer.Head(h) != h.MAC {
		return alarm(AlarmTampered, ErrTampered)
	}
	m.mu.Lock()
	m.status.Store = h.Revision
	m.mu.Unlock()
	m.forked.Store(nil)
	if h.Revision >= revision && h.Epoch < epoch {
		fork := *h
		m.forked.Store(&fork)
	}
	if h.Revision < revision || h.Epoch < epoch {
		return alarm(AlarmRewound, fmt.Errorf("%w: revision %d of epoch %d, was %d of %d", ErrRewound, h.Revision, h.Epoch, revision, epoch))
	}
	if h.Records < (records+1)/2 {
		return alarm(AlarmShrunk, fmt.Errorf("%d records, were %d", h.Records, records))
	}
	return nil
}

// apply brings a View forward by changes that follow it without a gap, and
// returns how far it came; on an error that is the last View before the change
// in error. Digests are compared from revision settled on: a View made from a
// snapshot taken while the register changed has no digest of its own before.
func (m *Mirror) apply(held *View, changes []Change, settled Revision) (*View, error) {
	if len(changes) == 0 {
		return held, nil
	}
	b := NewBuilder(held, At(m.cfg.Now()))
	revision, epoch := held.Revision, held.Epoch
	for i := range changes {
		err := m.applyOne(b, &changes[i], revision, epoch, settled)
		if err == nil {
			revision, epoch = changes[i].Revision, changes[i].Epoch
			continue
		}
		// The builder may hold half of the change in error: begin again without it.
		v, perr := m.apply(held, changes[:i], settled)
		return v, errors.Join(err, perr)
	}
	v, err := b.View(revision, epoch)
	if err != nil {
		return held, &alarmError{Alarm{Kind: AlarmUndecodable, What: "routes", Held: held.Revision, Store: revision, Err: err}}
	}
	return v, nil
}

func (m *Mirror) applyOne(b *Builder, c *Change, revision Revision, epoch Epoch, settled Revision) error {
	alarm := func(kind AlarmKind, what string, err error) error {
		return &alarmError{Alarm{Kind: kind, What: what, Held: revision, Store: c.Revision, Err: err}}
	}
	if m.sealer.Change(c) != c.MAC {
		return alarm(AlarmTampered, "change", ErrTampered)
	}
	switch {
	case c.Revision != revision+1:
		return alarm(AlarmGap, "log", fmt.Errorf("change %d after %d", c.Revision, revision))
	case c.Epoch < epoch:
		return alarm(AlarmGap, "log", fmt.Errorf("change %d of epoch %d after %d of %d: %w", c.Revision, c.Epoch, revision, epoch, errEpoch))
	}
	for i := range c.Puts {
		// The change's MAC covers its records' MACs, and those their data.
		if r := &c.Puts[i]; r.Revision != c.Revision || !m.sealer.Genuine(r) {
			return alarm(AlarmTampered, r.Key(), ErrTampered)
		}
	}
	for i := range c.Puts {
		if err := b.Put(&c.Puts[i]); err != nil {
			return alarm(AlarmUndecodable, c.Puts[i].Key(), err)
		}
	}
	if c.Revision >= settled && b.v.Digest != c.Digest {
		return alarm(AlarmDigest, "change", errDigest)
	}
	b.v.CaseSum = c.CaseSum
	return nil
}

// compare holds a View against the head it should be at, or on the way to.
func (m *Mirror) compare(v *View, h *Head, changes int) error {
	alarm := func(kind AlarmKind, err error) error {
		return &alarmError{Alarm{Kind: kind, What: "register", Held: v.Revision, Store: h.Revision, Err: err}}
	}
	switch {
	case v.Revision > h.Revision:
		return alarm(AlarmGap, errors.New("the log goes beyond the head"))
	case v.Revision < h.Revision && changes == 0:
		return alarm(AlarmGap, errors.New("the log ends before the head"))
	case v.Revision == h.Revision && (v.Digest != h.Digest || v.Records != h.Records || v.CaseSum != h.CaseSum):
		return alarm(AlarmDigest, errDigest)
	}
	return nil
}

// publish swaps in another View under the leases there are.
func (m *Mirror) publish(v *View) {
	next := Served{View: v}
	if old := m.served.Load(); old != nil {
		if v.Revision < old.View.Revision {
			panic("registry: a mirror was about to go back")
		}
		next.ShortUntil, next.LongUntil = old.ShortUntil, old.LongUntil
	}
	m.served.Store(&next)
	m.mu.Lock()
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
}

// settle notes how a step ended: it raises the alarm in its error, unless that
// stands already, and clears what stood when the step succeeded.
func (m *Mirror) settle(ctx context.Context, err error) {
	m.mu.Lock()
	m.status.Polls++
	was := m.status.LastError
	m.status.LastError = ""
	if err != nil {
		m.status.PollErrors++
		m.status.LastError = err.Error()
	}
	m.mu.Unlock()
	if err == nil {
		if was != "" {
			m.cfg.Log.InfoContext(ctx, "register followed again", "revision", m.View().Revision)
		}
		clear(m.standing)
		return
	}
	var a *alarmError
	switch {
	case errors.As(err, &a):
		m.alarm(ctx, a.Alarm)
	case errors.Is(err, ErrTampered): // found by the store itself
		m.alarm(ctx, Alarm{Kind: AlarmTampered, What: "store", Err: err})
	case errors.Is(err, ErrRewound):
		m.alarm(ctx, Alarm{Kind: AlarmRewound, What: "store", Err: err})
	case was == "": // once, not at every attempt
		m.cfg.Log.WarnContext(ctx, "register not followed", "err", err)
	}
}

func (m *Mirror) alarm(ctx context.Context, a Alarm) {
	key := standingAlarm{a.Kind, a.What}
	if m.standing[key] {
		return
	}
	m.standing[key] = true
	m.mu.Lock()
	m.status.Alarms[a.Kind]++
	m.mu.Unlock()
	m.cfg.Log.ErrorContext(ctx, "register alarm", "alarm", a.Kind.String(), "what", a.What, "held", a.Held, "store", a.Store, "err", a.Err)
	if m.cfg.OnAlarm != nil {
		m.cfg.OnAlarm(a)
	}
}

// leave ends the leases and then takes the sidecar off the roll, in this
// order: once off the roll nobody waits for it any more.
func (m *Mirror) leave(ctx context.Context) {
	if s := m.served.Load(); s != nil {
		m.served.Store(&Served{View: s.View})
	}
	if m.cfg.Observer || !m.joined {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := m.log.Leave(ctx, m.cfg.ID, m.cfg.Incarnation); err != nil {
		m.cfg.Log.WarnContext(ctx, "did not leave the roll: it ends with the lease", "err", err)
	}
}
