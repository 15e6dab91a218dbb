package anomaly

import (
	"math"
	"slices"
)

// sketchSize is how many hashes a Sketch keeps: up to so many it counts
// exactly, beyond with a standard error of 9 % (Beyer et al., "On synopses for
// distinct-value estimation", SIGMOD 2007).
const sketchSize = 128

// Sketch counts distinct things by the smallest of their keyed hashes. Two
// sketches merge into that of both, whoever saw what how often. The zero value
// is empty.
type Sketch struct {
	least []uint32 // ascending, at most sketchSize
}

// Add takes note of a thing by its hash, which must be uniform.
func (s *Sketch) Add(h uint32) {
	if len(s.least) == sketchSize && h >= s.least[sketchSize-1] {
		return
	}
	i, found := slices.BinarySearch(s.least, h)
	if found {
		return
	}
	if len(s.least) == sketchSize {
		copy(s.least[i+1:], s.least[i:sketchSize-1])
		s.least[i] = h
		return
	}
	s.least = slices.Insert(s.least, i, h)
}

// Merge adds all that o saw.
func (s *Sketch) Merge(o *Sketch) {
	for _, h := range o.least {
		s.Add(h)
	}
}

// Distinct is about how many different things were added.
func (s *Sketch) Distinct() float64 {
	if len(s.least) < sketchSize {
		return float64(len(s.least))
	}
	return (sketchSize - 1) / ((float64(s.least[sketchSize-1]) + 1) / (math.MaxUint32 + 1))
}

// share is how many distinct things pass a test, about: the hashes kept are a
// fair sample of all.
func (s *Sketch) share(pass func(h uint32) bool) float64 {
	if len(s.least) == 0 {
		return 0
	}
	n := 0
	for _, h := range s.least {
		if pass(h) {
			n++
		}
	}
	return s.Distinct() * float64(n) / float64(len(s.least))
}

func (s *Sketch) clone() Sketch { return Sketch{slices.Clone(s.least)} }
func (s *Sketch) reset()        { s.least = s.least[:0] }

// known remembers what a subject has had to do with, in bounded memory: two Bloom
// filters, of which the older is forgotten when the younger is full. Then the next
// is twice as large, up to a bound: who deals with many people all the time would
// otherwise seem to deal with new ones. It takes about one new thing in fifty for
// an old one.
type known struct {
	young, old []uint64 // nil until needed; a power of two in length
	n          uint32   // things in young
}

const (
	knownWords    = 512  // 4 KiB, for the first 4000 things
	knownWordsMax = 4096 // 32 KiB, for 32,000
	knownProbe    = 4
)

// full is how many things a filter of so many words holds.
func full(words int) uint32 { return uint32(words) * 125 / 16 }

// learn adds a thing and tells whether it was there.
func (k *known) learn(h uint32) (seen bool) {
	if k.has(k.young, h) {
		return true
	}
	seen = k.has(k.old, h)
	switch {
	case k.young == nil:
		k.young = make([]uint64, knownWords)
	case k.n >= full(len(k.young)):
		next := k.old // to be forgotten
		if most := min(2*len(k.young), knownWordsMax); len(next) != most {
			next = make([]uint64, most)
		}
		clear(next)
		k.old, k.young, k.n = k.young, next, 0
	}
	probes(h, len(k.young), func(bit uint32) bool { k.young[bit/64] |= 1 << (bit % 64); return true })
	k.n++
	return seen
}

// holds tells whether a thing is there.
func (k *known) holds(h uint32) bool { return k.has(k.young, h) || k.has(k.old, h) }

func (k *known) has(filter []uint64, h uint32) bool {
	if filter == nil {
		return false
	}
	all := true
	probes(h, len(filter), func(bit uint32) bool {
		all = filter[bit/64]&(1<<(bit%64)) != 0
		return all
	})
	return all
}

// probes visits the bits of a thing in a filter of so many words (Kirsch and Mitzenmacher's double hashing).
func probes(h uint32, words int, f func(bit uint32) bool) {
	x := uint64(h) * 0x9e3779b97f4a7c15
	a, b := uint32(x>>32), uint32(x)|1
	for i := range uint32(knownProbe) {
		if !f((a + i*b) % uint32(words*64)) {
			return
		}
	}
}
