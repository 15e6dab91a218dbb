package token

import (
	"crypto/sha256"
	"hash/maphash"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"
)

// negatives remembers tokens whose signature was computed and is bad, so that
// sending one again costs a hash. An entry says: these bytes, under this key
// set of this issuer. It speaks no more once the set is another, so it cannot
// make a token bad that a new key would verify.
type negatives struct {
	seed maphash.Seed
	mask uint64
	way  []atomic.Pointer[negative]
}

type tokenID [16]byte

type negative struct {
	id     tokenID
	issuer *Issuer
	set    *KeySet
}

func newNegatives(entries int) *negatives {
	n := uint64(1) << (bits.Len64(uint64(max(entries, 1))) - 1)
	return &negatives{seed: maphash.MakeSeed(), mask: n - 1, way: make([]atomic.Pointer[negative], n)}
}

// id is a collision-resistant name of a token: with a merely fast hash somebody
// could make a bad twin of a good token.
func (n *negatives) id(raw string) tokenID {
	sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw))) // reads only
	return tokenID(sum[:16])
}

func (n *negatives) slot(id tokenID) *atomic.Pointer[negative] {
	// Seeded: places must not be for callers to choose.
	return &n.way[maphash.Comparable(n.seed, id)&n.mask]
}

func (n *negatives) has(id tokenID, now time.Time) bool {
	e := n.slot(id).Load()
	return e != nil && e.id == id && e.issuer.Keys.Keys(now) == e.set
}

func (n *negatives) put(id tokenID, issuer *Issuer, set *KeySet) {
	n.slot(id).Store(&negative{id: id, issuer: issuer, set: set})
}
