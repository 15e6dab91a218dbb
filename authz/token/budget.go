package token

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync"
	"time"
)

// budget bounds what one peer's bad signatures may cost: a token bucket per
// IPv4 address or IPv6 /64, as a GCRA. The table is bounded, in sets of eight
// with a lock each; when a set is full, the bucket nearest to full is
// forgotten, which gives its peer what it soon had again. Somebody with more
// networks than the table has places loosens the budget, but grows nothing.
type budget struct {
	start    time.Time     // readings are kept as the time since, on the monotonic clock
	interval time.Duration // between two failures at the steady rate
	window   time.Duration // burst × interval
	seed     maphash.Seed
	mask     uint64
	sets     []budgetSet
}

type budgetSet struct {
	sync.Mutex
	peer [ways]uint64        // seeded hash of the peer; 0 is empty
	tat  [ways]time.Duration // when the bucket is full again
}

func newBudget(perSecond float64, burst, peers int) *budget {
	n := uint64(1) << (bits.Len64(uint64(max(peers/ways, 1))) - 1)
	interval := time.Duration(float64(time.Second) / perSecond)
	return &budget{
		start: time.Now(), interval: interval, window: time.Duration(burst) * interval,
		seed: maphash.MakeSeed(), mask: n - 1, sets: make([]budgetSet, n),
	}
}

// take spends one of the peer's failures; false when none is left.
func (b *budget) take(peer string, now time.Time) bool {
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

// refund gives back what take took for a signature that proved good.
func (b *budget) refund(peer string, now time.Time) {
	id, at := b.id(peer), now.Sub(b.start)
	s := &b.sets[id&b.mask]
	s.Lock()
	defer s.Unlock()
	if w := s.find(id); w >= 0 {
		s.tat[w] = max(b.clamp(s.tat[w], at)-b.interval, at)
	}
}

// clamp keeps a bucket between full and empty, whichever way a clock jumped.
func (b *budget) clamp(tat, at time.Duration) time.Duration {
	return min(max(tat, at), at+b.window)
}

func (s *budgetSet) find(id uint64) int {
	for w := range s.peer {
		if s.peer[w] == id {
			return w
		}
	}
	return -1
}

// oldest is an empty place, else the bucket nearest to full.
func (s *budgetSet) oldest() int {
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
func (b *budget) id(peer string) uint64 {
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
