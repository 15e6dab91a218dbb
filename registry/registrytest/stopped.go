package registrytest

import (
	"maps"
	"sync"
)

// Stopped is a primary that was stopped, as by SIGSTOP: its sockets are open
// and it answers nobody. Its store has another primary once that is promoted.
type Stopped struct {
	store *Memory // what everybody else follows
	old   *Memory // the stopped one

	mu    sync.Mutex
	calls []func() // that arrived at the stopped one, in order
}

// Stop stops the primary. What arrives by a Link waits with it from now on,
// until it is called back or the primary wakes up.
func (m *Memory) Stop() *Stopped {
	s := &Stopped{store: m, old: m.Copy()}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = s
	return s
}

// Copy is another store that is just like this one, with nobody connected to it.
func (m *Memory) Copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemory()
	c.state, c.roll, c.tenure, c.settled, c.ahead = m.state.clone(), maps.Clone(m.roll), m.tenure, m.settled, m.ahead
	maps.Copy(c.answers, m.answers)
	return c
}

// Promote lets the store go on with another primary, whose state promote puts
// in place. Who waits at the stopped one goes on waiting there, and those stay
// subscribed to it whose links stays names.
func (s *Stopped) Promote(promote func(), stays func(link string) bool) {
	promote()
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.old.mu.Lock()
	defer s.old.mu.Unlock()
	s.store.stopped = nil
	for c := range s.store.wakes {
		if stays(c.name) {
			delete(s.store.wakes, c)
			s.old.wakes[c] = true
		} else {
			c.tell(nil) // subscribed anew: something may have gone by
		}
	}
}

// Wake lets the stopped one go on for an instant: it does what had arrived
// before it looks whether its replicas are still there. Then it refuses
// everything, as one with min-replicas-to-write does, which here means that
// nobody asks it any more. It returns how many calls it ran, and to how many
// revisions they led.
func (s *Stopped) Wake() (ran, revisions int) {
	s.old.NotDurable(true)
	was := s.old.Head().Revision
	s.mu.Lock()
	calls := s.calls
	s.calls = nil
	s.mu.Unlock()
	for _, call := range calls {
		call()
	}
	return len(calls), int(s.old.Head().Revision - was)
}

// End disconnects who stayed: they subscribe to the successor.
func (s *Stopped) End() {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.old.mu.Lock()
	defer s.old.mu.Unlock()
	for c := range s.old.wakes {
		delete(s.old.wakes, c)
		s.store.wakes[c] = true
		c.tell(nil)
	}
}

// arrive runs a call, or leaves it with a stopped primary: done is closed when
// that one has run it, nil when it has been run already.
func (m *Memory) arrive(call func(Store)) (done <-chan struct{}) {
	m.mu.Lock()
	s := m.stopped
	m.mu.Unlock()
	if s == nil {
		call(m)
		return nil
	}
	c := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, func() { call(s.old); close(c) })
	return c
}
