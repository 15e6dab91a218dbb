package token

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// ways is how many entries may share a set of the cache.
const ways = 8

// cache is a bounded map from strings to values that are never changed. Reading
// takes no lock and writes nothing but, at most once between two evictions, an
// entry's recency. It is an array of sets of eight: what a caller sends cannot
// make it grow, and its seed is secret, so that nobody can aim at one set.
type cache[V any] struct {
	seed     maphash.Seed
	mask     uint64
	sets     []cacheSet[V]
	locks    [64]sync.Mutex // of writers, by set; readers take none
	bytes    atomic.Int64
	entries  atomic.Int64
	bytesMax int64
	sweep    atomic.Uint64 // the set to evict from next when over bytesMax
}

type cacheSet[V any] struct {
	tags  [ways]atomic.Uint32 // a hint: saves touching seven cold entries
	items [ways]atomic.Pointer[cacheItem[V]]
}

type cacheItem[V any] struct {
	hash    uint64
	key     string
	value   V
	bytes   int64
	expires int64 // Unix ms; what has expired is evicted first
	recent  atomic.Bool
}

func newCache[V any](entries int, bytesMax int64) *cache[V] {
	n := uint64(max(entries, ways)) / ways
	n = 1 << (bits.Len64(n) - 1) // down to a power of two: entries is a bound
	return &cache[V]{seed: maphash.MakeSeed(), mask: n - 1, sets: make([]cacheSet[V], n), bytesMax: bytesMax}
}

func (c *cache[V]) hash(key string) uint64 { return maphash.String(c.seed, key) }

func tag(hash uint64) uint32 { return uint32(hash>>32) | 1 }

// get finds the value of a key whose hash is h; nil when there is none.
func (c *cache[V]) get(h uint64, key string) *V {
	s := &c.sets[h&c.mask]
	for w := range s.tags {
		if s.tags[w].Load() != tag(h) {
			continue
		}
		if e := s.items[w].Load(); e != nil && e.hash == h && e.key == key {
			if !e.recent.Load() {
				e.recent.Store(true)
			}
			return &e.value
		}
	}
	return nil
}

// put keeps a value, in place of one with its key, of an expired one, or of one
// not read lately. The key must not point into somebody's buffer.
func (c *cache[V]) put(h uint64, key string, v *V, extra int, expires, now time.Time) {
	e := &cacheItem[V]{hash: h, key: key, value: *v, expires: expires.UnixMilli()}
	e.bytes = int64(len(key)) + int64(extra) + int64(unsafe.Sizeof(*e))
	if e.bytes > c.bytesMax/ways {
		return
	}
	i := h & c.mask
	c.store(i, func(s *cacheSet[V]) int { return victim(s, e, now.UnixMilli()) }, e)
	for c.bytes.Load() > c.bytesMax {
		// A full turn finds something: over the bound, some set is not empty.
		i := c.sweep.Add(1) & c.mask
		c.store(i, func(s *cacheSet[V]) int { return victim(s, nil, now.UnixMilli()) }, nil)
	}
}

// store puts e, or nothing, in the way of set i that choose says; -1 is none.
func (c *cache[V]) store(i uint64, choose func(*cacheSet[V]) int, e *cacheItem[V]) {
	lock := &c.locks[i%uint64(len(c.locks))]
	lock.Lock()
	defer lock.Unlock()
	s := &c.sets[i]
	w := choose(s)
	if w < 0 {
		return
	}
	// The entry before the tag: a reader that sees the tag compares the entry whole.
	old := s.items[w].Swap(e)
	if e != nil {
		s.tags[w].Store(tag(e.hash))
		c.bytes.Add(e.bytes)
		c.entries.Add(1)
	} else {
		s.tags[w].Store(0)
	}
	if old != nil {
		c.bytes.Add(-old.bytes)
		c.entries.Add(-1)
	}
}

// victim chooses the way that gives up its place: for a new entry the one with
// its key, else an empty one; then an expired one; then, second chance, the
// first not read since it was last asked. Without a new entry an empty way is
// no victim, and -1 says that all are empty.
func victim[V any](s *cacheSet[V], e *cacheItem[V], now int64) int {
	empty, expired, cold, any := -1, -1, -1, -1
	for w := range s.items {
		old := s.items[w].Load()
		switch {
		case old == nil:
			empty = w
			continue
		case e != nil && old.hash == e.hash && old.key == e.key:
			return w
		case old.expires <= now:
			expired = w
		case !old.recent.Load() && cold < 0:
			cold = w
		}
		any = w
	}
	if e != nil && empty >= 0 {
		return empty
	}
	if expired >= 0 {
		return expired
	}
	if cold >= 0 {
		return cold
	}
	for w := range s.items { // all were read: all lose their second chance
		if old := s.items[w].Load(); old != nil {
			old.recent.Store(false)
		}
	}
	return any
}

func (c *cache[V]) size() (entries int, bytes int64) {
	return int(c.entries.Load()), c.bytes.Load()
}
