package authz

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/dspgate/dspgate/ratelimit"
)

// Holds keeps what calls under way occupy of concurrency limits, until the
// access log says that they ended. Of a call that nothing is heard of for
// HoldLost, which is longer than Envoy is silent about one that goes on, what it
// held is let go: a log entry may be lost, and a limit must not leak away. Safe
// for concurrent use.
type Holds struct {
	shards [64]holdShard
}

// HoldLost is how long a call holds on to a concurrency limit without a sign of life.
const HoldLost = 30 * time.Second

type holdShard struct {
	mu   sync.Mutex
	held map[DecisionID]held
	_    [48]byte
}

type held struct {
	hold ratelimit.Hold
	seen time.Time
}

// NewHolds makes an empty Holds.
func NewHolds() *Holds {
	h := &Holds{}
	for i := range h.shards {
		h.shards[i].held = map[DecisionID]held{}
	}
	return h
}

func (h *Holds) shard(id *DecisionID) *holdShard {
	return &h.shards[binary.LittleEndian.Uint64(id[18:])%uint64(len(h.shards))]
}

// Keep remembers what an allowed call occupies; most occupy nothing.
func (h *Holds) Keep(d *Decision) {
	hold := d.Spent.Hold()
	if d.Plan == nil || !hold.Any() {
		return
	}
	if !d.Allowed() {
		hold.Release()
		return
	}
	s := h.shard(&d.ID)
	s.mu.Lock()
	s.held[d.ID] = held{hold, d.At}
	s.mu.Unlock()
}

// Ended lets go of what a call occupied.
func (h *Holds) Ended(id DecisionID) {
	s := h.shard(&id)
	s.mu.Lock()
	x, ok := s.held[id]
	delete(s.held, id)
	s.mu.Unlock()
	if ok {
		x.hold.Release()
	}
}

// Alive says that a call was still under way at an instant.
func (h *Holds) Alive(id DecisionID, at time.Time) {
	s := h.shard(&id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.held[id]; ok && at.After(x.seen) {
		x.seen = at
		s.held[id] = x
	}
}

// Len is how many calls hold something.
func (h *Holds) Len() int {
	n := 0
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		n += len(s.held)
		s.mu.Unlock()
	}
	return n
}

// Run lets go of what lost calls hold, once a second, until ctx ends.
func (h *Holds) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			h.sweep(now.Add(-HoldLost))
		}
	}
}

func (h *Holds) sweep(before time.Time) {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		for id, x := range s.held {
			if x.seen.Before(before) {
				delete(s.held, id)
				x.hold.Release()
			}
		}
		s.mu.Unlock()
	}
}
