// Package registrytest is a register for tests: a store in memory that
// behaves, links to it with faults to order, a Writer that commits sealed
// records without the rules of the commands, and the suite every store passes.
//
// It reads time from package time, so in a synctest bubble its time is the
// bubble's.
package registrytest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// rememberFor is how long an Idempotency-Key's answer is kept.
const rememberFor = 24 * time.Hour

// Memory is a register's store in memory, for any number of goroutines: a
// registry.Log, a registry.Ledger, and what tests do to stores.
type Memory struct {
	mu      sync.Mutex
	state   state
	roll    map[member]registry.Member
	tenure  int
	settled bool          // of the tenure
	ahead   time.Duration // of the store's clock, before package time's
	answers map[string]answer
	wakes   map[*subscriber]bool
	// short makes commits report ErrNotDurable.
	short   bool
	stopped *Stopped // nil when it runs
}

// subscriber is woken when the log grows. note, when there is one, first gets
// what it grew by.
type subscriber struct {
	name string
	wake chan struct{}
	note func([]registry.Change)
}

// state is what is lost when a store is emptied or put back.
type state struct {
	epoch      registry.Epoch
	holder     string
	claimUntil time.Time
	head       registry.Head
	records    map[string]registry.Record
	cases      map[string]registry.CaseRecord
	steps      map[string]steps
	log        []registry.Change
	trimmed    registry.Revision // the log begins after it
}

// member is one incarnation of a sidecar.
type member struct{ id, incarnation string }

type answer struct {
	data  []byte
	until time.Time
}

// steps are what changes kept of one Idempotency-Key.
type steps struct {
	data  map[int][]byte
	until time.Time
}

// NewMemory makes an empty store.
func NewMemory() *Memory {
	return &Memory{
		state:   state{records: map[string]registry.Record{}, cases: map[string]registry.CaseRecord{}, steps: map[string]steps{}},
		roll:    map[member]registry.Member{},
		tenure:  1,
		settled: true,
		answers: map[string]answer{},
		wakes:   map[*subscriber]bool{},
	}
}

// Snapshot implements registry.Log. It reads in several steps, so that a
// register may change while it goes on, as with any real store.
func (m *Memory) Snapshot(ctx context.Context, put func(*registry.Record) error) (registry.Head, error) {
	m.mu.Lock()
	head := m.state.head
	keys := slices.Sorted(maps.Keys(m.state.records))
	m.mu.Unlock()
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return registry.Head{}, err
		}
		m.mu.Lock()
		r, ok := m.state.records[key]
		m.mu.Unlock()
		if !ok {
			continue // emptied meanwhile
		}
		r.Data = slices.Clone(r.Data)
		if err := put(&r); err != nil {
			return registry.Head{}, err
		}
		clear(r.Data) // whoever kept it sees it at once
	}
	return head, nil
}

// Follow implements registry.Log.
func (m *Memory) Follow(ctx context.Context, ack registry.Ack, maxChanges int) (registry.Poll, error) {
	if err := ctx.Err(); err != nil {
		return registry.Poll{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ack.Observer {
		m.roll[member{ack.ID, ack.Incarnation}] = registry.Member{
			ID: ack.ID, Incarnation: ack.Incarnation, Revision: ack.Revision, Digest: ack.Digest,
			Short: ack.Short, Long: ack.Long, PolledAt: registry.At(m.now()),
		}
	}
	changes, err := m.after(ack.Revision, maxChanges)
	return registry.Poll{Head: m.state.head, Changes: changes}, err
}

// after copies the changes after a revision. m.mu is held.
func (m *Memory) after(revision registry.Revision, n int) ([]registry.Change, error) {
	if revision < m.state.trimmed {
		return nil, fmt.Errorf("%w: it begins after %d", registry.ErrTrimmed, m.state.trimmed)
	}
	from := min(int(revision-m.state.trimmed), len(m.state.log))
	to := min(from+max(n, 0), len(m.state.log))
	var out []registry.Change
	for _, c := range m.state.log[from:to] {
		out = append(out, cloneChange(c))
	}
	return out, nil
}

func cloneChange(c registry.Change) registry.Change {
	c.Puts = slices.Clone(c.Puts)
	for i := range c.Puts {
		c.Puts[i].Data = slices.Clone(c.Puts[i].Data)
	}
	c.Cases = slices.Clone(c.Cases)
	for i := range c.Cases {
		c.Cases[i].Data = slices.Clone(c.Cases[i].Data)
	}
	return c
}

// Leave implements registry.Log.
func (m *Memory) Leave(ctx context.Context, id, incarnation string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.roll, member{id, incarnation})
	return nil
}

// Wake implements registry.Log.
func (m *Memory) Wake(ctx context.Context) <-chan struct{} { return m.subscribe(ctx, "", nil) }

func (m *Memory) subscribe(ctx context.Context, name string, note func([]registry.Change)) <-chan struct{} {
	c := &subscriber{name, make(chan struct{}, 1), note}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wakes[c] = true
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.wakes, c)
	})
	return c.wake
}

// Commit implements registry.Ledger.
func (m *Memory) Commit(ctx context.Context, fence registry.Epoch, base registry.Mark, c *registry.Change, head *registry.Head) error {
	return m.CommitGroup(ctx, fence, base, []*registry.Change{c}, head)
}

// CommitGroup commits several changes in one atomic step: all or none.
func (m *Memory) CommitGroup(ctx context.Context, fence registry.Epoch, base registry.Mark, changes []*registry.Change, head *registry.Head) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", registry.ErrUnavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case fence == 0 || fence != m.state.epoch || fence < m.state.head.Epoch:
		return fmt.Errorf("%w: epoch %d, now %d", registry.ErrFenced, fence, m.state.epoch)
	case base.Revision < m.state.head.Revision && m.holds(changes[0]):
		// The same change again is no conflict.
		if m.short {
			return registry.ErrNotDurable
		}
		return nil
	case base.Revision > m.state.head.Revision:
		return fmt.Errorf("%w: %w: base %d, head %d", registry.ErrConflict, registry.ErrRewound, base.Revision, m.state.head.Revision)
	case base != registry.Mark{Revision: m.state.head.Revision, Digest: m.state.head.Digest, CaseSum: m.state.head.CaseSum}:
		return fmt.Errorf("%w: base %d, head %d", registry.ErrConflict, base.Revision, m.state.head.Revision)
	}
	for i, c := range changes {
		if c.Revision != base.Revision+1+registry.Revision(i) {
			return fmt.Errorf("%w: change %d on base %d", registry.ErrInvalid, c.Revision, base.Revision)
		}
	}
	if head.Revision != base.Revision+registry.Revision(len(changes)) {
		return fmt.Errorf("%w: head %d on base %d", registry.ErrInvalid, head.Revision, base.Revision)
	}
	return m.append(changes, head)
}

// holds tells whether the log has a change. m.mu is held.
func (m *Memory) holds(c *registry.Change) bool {
	i := int(c.Revision) - int(m.state.trimmed) - 1
	return i >= 0 && i < len(m.state.log) && m.state.log[i].MAC == c.MAC
}

// append writes changes and wakes whoever follows. m.mu is held.
func (m *Memory) append(changes []*registry.Change, head *registry.Head) error {
	for _, c := range changes {
		kept := cloneChange(*c)
		for _, r := range kept.Puts {
			m.state.records[r.Key()] = r
		}
		for i := range kept.Cases {
			if x := &kept.Cases[i]; x.Data != nil {
				m.state.cases[x.Key()] = *x
				x.Data = nil // the log has the name only
			}
		}
		if k := kept.Keyed; k != nil {
			all := maps.Clone(m.state.steps[k.Key].data)
			if all == nil {
				all = map[int][]byte{}
			}
			maps.Copy(all, k.Steps)
			m.state.steps[k.Key] = steps{all, time.Now().Add(rememberFor)}
			kept.Keyed = nil // the log does not have it
		}
		m.state.log = append(m.state.log, kept)
	}
	m.state.head = *head
	told := m.state.log[len(m.state.log)-len(changes):]
	for c := range m.wakes {
		c.tell(told[:len(told):len(told)])
	}
	if m.short {
		return registry.ErrNotDurable
	}
	return nil
}

func (c *subscriber) tell(changes []registry.Change) {
	if c.note != nil {
		c.note(changes)
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Reassert implements registry.Ledger.
func (m *Memory) Reassert(ctx context.Context, store registry.Head, changes []*registry.Change, head *registry.Head) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", registry.ErrUnavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if store != m.state.head {
		return fmt.Errorf("%w: head %d, not %d", registry.ErrConflict, m.state.head.Revision, store.Revision)
	}
	n := min(int(store.Revision-m.state.trimmed), len(m.state.log))
	for i, c := range m.state.log[n:] { // the head alone was set back
		if i >= len(changes) || c.MAC != changes[i].MAC {
			return fmt.Errorf("%w: the log holds another change %d", registry.ErrConflict, c.Revision)
		}
	}
	m.state.log = m.state.log[:n:n]
	return m.append(changes, head)
}

// CaseSnapshot implements registry.CaseStore, in several steps as Snapshot.
func (m *Memory) CaseSnapshot(ctx context.Context, put func(*registry.CaseRecord) error) error {
	m.mu.Lock()
	keys := slices.Sorted(maps.Keys(m.state.cases))
	m.mu.Unlock()
	for _, key := range keys {
		got, err := m.Cases(ctx, []string{key})
		if err != nil {
			return err
		}
		for i := range got {
			if err := put(&got[i]); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// Cases implements registry.CaseStore.
func (m *Memory) Cases(ctx context.Context, keys []string) ([]registry.CaseRecord, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", registry.ErrUnavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []registry.CaseRecord
	for _, key := range keys {
		if c, ok := m.state.cases[key]; ok {
			c.Data = slices.Clone(c.Data)
			out = append(out, c)
		}
	}
	return out, nil
}

// Lead implements registry.Ledger.
func (m *Memory) Lead(ctx context.Context, holder string, have registry.Epoch, ttl time.Duration) (registry.Epoch, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", registry.ErrUnavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, now := &m.state, m.now()
	switch {
	case have != 0 && have == s.epoch && holder == s.holder && (have >= s.head.Epoch || ttl <= 0): // renewed
	case s.holder != "" && s.holder != holder && now.Before(s.claimUntil):
		return 0, fmt.Errorf("%w: %s", registry.ErrFenced, s.holder)
	default:
		s.epoch = max(s.epoch, have, s.head.Epoch) + 1
		s.holder = holder
	}
	s.claimUntil = now.Add(ttl)
	return s.epoch, nil
}

// Replayed implements registry.Ledger.
func (m *Memory) Replayed(_ context.Context, key string) (k registry.Kept, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, ok := m.answers[key]; ok && time.Now().Before(a.until) {
		k.Answer = append([]byte{}, a.data...)
	}
	if s, ok := m.state.steps[key]; ok && time.Now().Before(s.until) {
		k.Steps = maps.Clone(s.data)
	}
	return k, nil
}

// Remember implements registry.Ledger.
func (m *Memory) Remember(_ context.Context, key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[key] = answer{slices.Clone(data), time.Now().Add(rememberFor)}
	return nil
}

// Roll implements registry.Ledger.
func (m *Memory) Roll(ctx context.Context) (registry.Roll, error) {
	if err := ctx.Err(); err != nil {
		return registry.Roll{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return registry.Roll{
		Members: slices.SortedFunc(maps.Values(m.roll), func(a, b registry.Member) int {
			return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Incarnation, b.Incarnation))
		}),
		At: registry.At(m.now()), Head: m.state.head.Revision, Tenure: fmt.Sprint(m.tenure), Settled: m.settled,
	}, nil
}

// Settle implements registry.Ledger.
func (m *Memory) Settle(_ context.Context, tenure string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if tenure == fmt.Sprint(m.tenure) {
		m.settled = true
	}
	return nil
}

// Changes implements registry.Ledger: what the log still holds after a revision.
func (m *Memory) Changes(_ context.Context, after registry.Revision, n int) ([]registry.Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.after(max(after, m.state.trimmed), n)
}

// Trim drops the changes up to and including a revision from the log.
func (m *Memory) Trim(_ context.Context, upTo registry.Revision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if upTo > m.state.trimmed {
		n := min(int(upTo-m.state.trimmed), len(m.state.log))
		m.state.log = slices.Clone(m.state.log[n:])
		m.state.trimmed += registry.Revision(n)
	}
	return nil
}

// Head is the head as stored.
func (m *Memory) Head() registry.Head {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.head
}

// now is the store's clock.
func (m *Memory) now() time.Time { return time.Now().Add(m.ahead) }

// SetClock makes the store's clock jump to so much ahead of package time's.
func (m *Memory) SetClock(ahead time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ahead = ahead
}

// Epoch is the writer's epoch as claimed last.
func (m *Memory) Epoch() registry.Epoch {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.epoch
}

// Flush empties the store, as FLUSHALL does.
func (m *Memory) Flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state{records: map[string]registry.Record{}, cases: map[string]registry.CaseRecord{}, steps: map[string]steps{}}
	clear(m.roll)
	clear(m.answers)
	m.tenure++
	m.settled = true // nobody serves from an empty register
}

// Save returns a function that puts the register back as it is now, as the
// restoring of a dump does; the roll stays.
func (m *Memory) Save() (restore func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	saved := m.state.clone()
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.state = saved.clone()
		m.tenure++
		m.settled = false
	}
}

// Replica returns a function that makes a replica, in step until now, the
// primary: whatever was written since is lost, the roll's end and the writer's
// claim with it.
func (m *Memory) Replica() (promote func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	saved, roll := m.state.clone(), maps.Clone(m.roll)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.state, m.roll = saved.clone(), maps.Clone(roll)
		m.tenure++
		m.settled = false
	}
}

func (s state) clone() state {
	s.records, s.cases, s.log = maps.Clone(s.records), maps.Clone(s.cases), slices.Clone(s.log)
	return s
}

// Tamper alters a stored record behind the register's back; f returns false to
// remove it. It panics when there is no such record.
func (m *Memory) Tamper(key string, f func(*registry.Record) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.state.records[key]
	if !ok {
		panic("registrytest: no record " + key)
	}
	r.Data = slices.Clone(r.Data)
	if f(&r) {
		m.state.records[key] = r
	} else {
		delete(m.state.records, key)
	}
}

// TamperCase alters a stored case behind the register's back; f returns false to
// remove it. It panics when there is no such case.
func (m *Memory) TamperCase(key string, f func(*registry.CaseRecord) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.state.cases[key]
	if !ok {
		panic("registrytest: no case " + key)
	}
	c.Data = slices.Clone(c.Data)
	if f(&c) {
		m.state.cases[key] = c
	} else {
		delete(m.state.cases, key)
	}
}

// TamperLog alters a stored change behind the register's back. It panics when
// the log does not hold it.
func (m *Memory) TamperLog(revision registry.Revision, f func(*registry.Change)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := int(revision - m.state.trimmed - 1)
	c := cloneChange(m.state.log[i])
	f(&c)
	m.state.log[i] = c
}

// TamperHead alters the stored head behind the register's back.
func (m *Memory) TamperHead(f func(*registry.Head)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.state.head)
}

// NotDurable makes commits succeed on fewer replicas than asked for.
func (m *Memory) NotDurable(short bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.short = short
}
