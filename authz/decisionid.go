package authz

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ErrDecisionID: not 26 characters of upper-case Crockford base32 that a ULID
// can be.
var ErrDecisionID = errors.New("no decision ID")

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// crockfordValue is the value of each character, 0xff for none. Strict: upper
// case only, and no I, L, O, U standing in for others, so that one decision has
// one name.
var crockfordValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(crockford) {
		t[crockford[i]] = byte(i)
	}
	return t
}()

const (
	idTimeChars    = 10
	idCounterChars = 4
	counterBits    = 5 * idCounterChars
)

// IDs makes decision IDs: ten characters of time, four of a counter and twelve
// that are random per process. IDs of one process strictly rise, even when the
// clock steps back. Safe for concurrent use; Next takes no lock.
type IDs struct {
	last   atomic.Uint64 // milliseconds in the upper 44 bits, the counter in the lower 20
	suffix [26 - idTimeChars - idCounterChars]byte
}

// NewIDs starts a generator with 60 random bits of its own.
func NewIDs() *IDs {
	var b [8]byte
	rand.Read(b[:]) // never fails: it ends the process instead
	g := new(IDs)
	putBase32(g.suffix[:], binary.LittleEndian.Uint64(b[:]))
	return g
}

// Next makes the ID of a decision at an instant.
func (g *IDs) Next(at time.Time) DecisionID {
	floor := uint64(max(at.UnixMilli(), 0)) << counterBits
	var n uint64
	for {
		last := g.last.Load()
		// A million IDs in one millisecond, or a clock that stepped back, borrow
		// from the future rather than repeat.
		if n = max(floor, last+1); g.last.CompareAndSwap(last, n) {
			break
		}
	}
	var id DecisionID
	putBase32(id[:idTimeChars], n>>counterBits)
	putBase32(id[idTimeChars:idTimeChars+idCounterChars], n)
	copy(id[idTimeChars+idCounterChars:], g.suffix[:])
	return id
}

// putBase32 writes the low 5×len(b) bits of n, most significant first.
func putBase32(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = crockford[n&31]
		n >>= 5
	}
}

// ParseDecisionID reads an ID as String writes it; anything else, lower case
// included, is ErrDecisionID.
func ParseDecisionID(s string) (id DecisionID, err error) {
	if len(s) != len(id) {
		return id, fmt.Errorf("%w: %d characters, not %d", ErrDecisionID, len(s), len(id))
	}
	for i := range len(s) {
		if crockfordValue[s[i]] == 0xff {
			return DecisionID{}, fmt.Errorf("%w: character %d is not of the alphabet %s", ErrDecisionID, i+1, crockford)
		}
		id[i] = s[i]
	}
	if id[0] > '7' { // 128 bits hold no more
		return DecisionID{}, fmt.Errorf("%w: the time does not fit in 48 bits", ErrDecisionID)
	}
	return id, nil
}

// Time is the millisecond the ID was made in, by the clock of its sidecar.
func (id DecisionID) Time() time.Time {
	var ms int64
	for _, c := range id[:idTimeChars] {
		ms = ms<<5 | int64(crockfordValue[c]&31)
	}
	return time.UnixMilli(ms).UTC()
}

// MarshalText is String; it does not check.
func (id DecisionID) MarshalText() ([]byte, error) { return id[:], nil }

// UnmarshalText is ParseDecisionID.
func (id *DecisionID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseDecisionID(string(b))
	return err
}

// IsZero tells whether no ID was ever set.
func (id DecisionID) IsZero() bool { return id == DecisionID{} }
