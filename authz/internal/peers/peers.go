// Package peers bounds what each network may spend before it is known who
// calls: in constant memory, whatever addresses there are.
package peers

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync"
	"time"
)

// Budget is a token bucket per IPv4 address or IPv6 /64, as a GCRA. Safe for
// concurrent use. The table is bounded, in sets of eight with a lock each; when
// a set is full, the bucket nearest to full is forgotten, which gives its peer
// what it soon had again. Somebody with more networks than the table has places
// loosens the budget, but grows nothing.
type Budget struct {
	start    time.Time     // readings are kept as the time since, on the monotonic clock
	interval time.Duration // between two at the steady rate
	window   time.Duration // burst × interval
	seed     maphash.Seed
	mask     uint64
	sets     []set
}

type set struct {
	sync.Mutex
	peer [ways]uint64        // seeded hash of the peer; 0 is empty
	tat  [ways]time.Duration // when the bucket is full again
}

// ways is how many buckets share a lock.
const ways = 8

// New makes a budget of perSecond at the steady rate and burst at once, for
// each of so many peers.
func New(perSecond float64, burst, peers int) *Budget {
	n := uint64(1) << (bits.Len64(uint64(max(peers/ways, 1))) - 1)
	interval := time.Duration(float64(time.Second) / perSecond)
	return &Budget{
		start: time.Now(), interval: interval, window: time.Duration(burst) * interval,
		seed: maphash.MakeSeed(), mask: n - 1, sets: make([]set, n),
	}
}

// Take spends one of what the peer has; false when none is left.
func (b *Budget) Take(peer string, now time.Time) bool {
	id, at := b.id(peer), now.Sub(b.start)
	s := &b.sets[id&b.mask]
	s.Lock()
	defer s.Unlock()
	w := s.find(id)
	if w < 0 {
		w = s.oldest()
		s.peer[w], s.tat[w] = id, at
	}
	tat := b.clamp(s.tat[w], at)
	if tat+b.interval > at+b.window {
		s.tat[w] = tat
		return false
	}
	s.tat[w] = tat + b.interval
	return true
}

// Refund gives back what Take took.
func (b *Budget) Refund(peer string, now time.Time) {
	id, at := b.id(peer), now.Sub(b.start)
	s := &b.sets[id&b.mask]
	s.Lock()
	defer s.Unlock()
	if w := s.find(id); w >= 0 {
		s.tat[w] = max(b.clamp(s.tat[w], at)-b.interval, at)
	}
}

// clamp keeps a bucket between full and empty, whichever way a clock jumped.
func (b *Budget) clamp(tat, at time.Duration) time.Duration {
	return min(max(tat, at), at+b.window)
}

func (s *set) find(id uint64) int {
	for w := range s.peer {
		if s.peer[w] == id {
			return w
		}
	}
	return -1
}

// oldest is an empty place, else the bucket nearest to full.
func (s *set) oldest() int {
	best := 0
	for w := range s.peer {
		if s.peer[w] == 0 {
			return w
		}
		if s.tat[w] < s.tat[best] {
			best = w
		}
	}
	return best
}

// id names the network a peer is in; all that is no address is one peer.
func (b *Budget) id(peer string) uint64 {
	var key [16]byte
	if a, err := netip.ParseAddr(peer); err == nil {
		a = a.Unmap()
		key = a.As16()
		if a.Is6() {
			clear(key[8:])
		}
	}
	return maphash.Comparable(b.seed, key) | 1<<63 // never 0
}
