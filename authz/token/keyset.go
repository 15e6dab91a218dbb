package token

import (
	"fmt"
	"time"
)

// KeySource gives the current key set of one issuer. Both methods are called on
// the request path: they take no lock, do no I/O and do not block.
type KeySource interface {
	// Keys is the set that holds at an instant; nil when there is none, or none
	// fresh enough any more. The pointer stays the same while the keys do.
	Keys(now time.Time) *KeySet
	// Missed says that a token named a key that the set lacks. The source may
	// fetch in the background, at a bounded rate.
	Missed(kid string)
}

// KeySet is an immutable set of keys by kid. It is a KeySource that never
// changes, too.
type KeySet struct{ byID map[string]*Key }

// NewKeySet refuses two keys with one kid.
func NewKeySet(keys ...*Key) (*KeySet, error) {
	s := &KeySet{byID: make(map[string]*Key, len(keys))}
	for _, k := range keys {
		if s.byID[k.id] != nil {
			return nil, fmt.Errorf("%w: two keys have the kid %.80q", ErrKey, k.id)
		}
		s.byID[k.id] = k
	}
	return s, nil
}

// Key finds a key by its kid; nil when there is none. A nil set has none.
func (s *KeySet) Key(kid string) *Key {
	if s == nil {
		return nil
	}
	return s.byID[kid]
}

// Len is how many keys there are.
func (s *KeySet) Len() int {
	if s == nil {
		return 0
	}
	return len(s.byID)
}

// Equal tells whether two sets hold the same keys under the same IDs.
func (s *KeySet) Equal(o *KeySet) bool {
	if s.Len() != o.Len() {
		return false
	}
	if s == nil || o == nil {
		return s == o
	}
	for id, k := range s.byID {
		if !k.same(o.byID[id]) {
			return false
		}
	}
	return true
}

// Keys implements KeySource.
func (s *KeySet) Keys(time.Time) *KeySet { return s }

// Missed implements KeySource: a fixed set has nothing to fetch.
func (s *KeySet) Missed(string) {}
