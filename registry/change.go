package registry

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash"
	"strings"
	"sync"
)

// Revision numbers the states of the register: each Change makes the next.
// Revision 0 is the empty register.
type Revision uint64

// Epoch numbers the writers: a Commit under an old epoch is refused.
type Epoch uint64

// Change is one entry of the log: one command's effect, whole.
type Change struct {
	Revision Revision `json:"revision"`
	Epoch    Epoch    `json:"epoch"`
	At       Time     `json:"at"`
	Actor    string   `json:"actor"`
	Command  string   `json:"command"` // e.g. suspend, lift, product.create
	Reason   string   `json:"reason,omitempty"`
	Puts     []Record `json:"puts"`
	// Digest is the digest of the whole register after this change.
	Digest Digest `json:"digest"`
	// MAC authenticates everything above: a change written into Redis by
	// somebody else is refused by every mirror.
	MAC MAC `json:"mac"`
}

// Record is one value of the register as stored: the JSON of a noun, with the
// revision that last wrote it and a MAC that binds it to its key and revision.
// A record whose MAC does not verify is treated as absent, which denies.
type Record struct {
	Kind     Kind            `json:"kind"`
	ID       string          `json:"id"`
	Revision Revision        `json:"revision"`
	Data     json.RawMessage `json:"data"`
	MAC      MAC             `json:"mac"`
}

// Key names the record: "product/FP-1001".
func (r *Record) Key() string { return r.Kind.String() + "/" + r.ID }

// ParseKey splits a record key.
func ParseKey(key string) (Kind, string, error) {
	k, id, ok := strings.Cut(key, "/")
	var kind Kind
	if err := kind.UnmarshalText([]byte(k)); err != nil || !ok || id == "" || kind == KindVersion || kind == NoKind {
		return 0, "", ErrInvalid
	}
	return kind, id, nil
}

// Head is what the store says of the whole register.
type Head struct {
	Revision Revision `json:"revision"`
	Epoch    Epoch    `json:"epoch"`
	Records  uint64   `json:"records"`
	Digest   Digest   `json:"digest"`
	MAC      MAC      `json:"mac"`
}

// MAC is a truncated HMAC-SHA-256 under the register key.
type MAC [16]byte

// Digest is the sum, lane by lane, of the MACs of all records: the order of
// writing does not matter, one change updates it in constant time, and without
// the key nobody can make another set of records with the same sum (an
// AdHash-style multiset hash, Bellare & Micciancio 1997, over a keyed MAC).
type Digest [2]uint64

// Add puts a record's MAC in, Sub takes it out.
func (d Digest) Add(m MAC) Digest {
	d[0] += binary.LittleEndian.Uint64(m[:8])
	d[1] += binary.LittleEndian.Uint64(m[8:])
	return d
}

// Sub takes a record's MAC out.
func (d Digest) Sub(m MAC) Digest {
	d[0] -= binary.LittleEndian.Uint64(m[:8])
	d[1] -= binary.LittleEndian.Uint64(m[8:])
	return d
}

// Sealer computes and checks MACs under the register key. The control planes
// and the sidecars hold the same key, in a file; Redis never does.
type Sealer struct{ pool sync.Pool }

// NewSealer needs a key of at least 32 bytes.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) < 32 {
		return nil, errKeyShort
	}
	k := append([]byte(nil), key...)
	return &Sealer{pool: sync.Pool{New: func() any { return hmac.New(sha256.New, k) }}}, nil
}

func (s *Sealer) sum(write func(h hash.Hash)) (m MAC) {
	h := s.pool.Get().(hash.Hash)
	h.Reset()
	write(h)
	var out [sha256.Size]byte
	copy(m[:], h.Sum(out[:0]))
	s.pool.Put(h)
	return m
}

// Record computes a record's MAC over its kind, ID, revision and data.
func (s *Sealer) Record(r *Record) MAC {
	return s.sum(func(h hash.Hash) {
		var b [18]byte
		b[0] = 'r'
		b[1] = byte(r.Kind)
		binary.BigEndian.PutUint64(b[2:], uint64(r.Revision))
		binary.BigEndian.PutUint64(b[10:], uint64(len(r.ID)))
		h.Write(b[:])
		h.Write([]byte(r.ID))
		h.Write(r.Data)
	})
}

// Seal stamps a record with its revision and MAC.
func (s *Sealer) Seal(r *Record, rev Revision) {
	r.Revision = rev
	r.MAC = s.Record(r)
}

// Genuine tells whether a record's MAC verifies.
func (s *Sealer) Genuine(r *Record) bool {
	m := s.Record(r)
	return hmac.Equal(m[:], r.MAC[:])
}

// Change computes a change's MAC: over its header and its records' MACs, which
// bind the records.
func (s *Sealer) Change(c *Change) MAC {
	return s.sum(func(h hash.Hash) {
		var b [1 + 5*8]byte
		b[0] = 'c'
		binary.BigEndian.PutUint64(b[1:], uint64(c.Revision))
		binary.BigEndian.PutUint64(b[9:], uint64(c.Epoch))
		binary.BigEndian.PutUint64(b[17:], uint64(c.At))
		binary.BigEndian.PutUint64(b[25:], c.Digest[0])
		binary.BigEndian.PutUint64(b[33:], c.Digest[1])
		h.Write(b[:])
		for _, s := range []string{c.Actor, c.Command, c.Reason} {
			var n [8]byte
			binary.BigEndian.PutUint64(n[:], uint64(len(s)))
			h.Write(n[:])
			h.Write([]byte(s))
		}
		for i := range c.Puts {
			h.Write(c.Puts[i].MAC[:])
		}
	})
}

// Head computes the head's MAC.
func (s *Sealer) Head(x *Head) MAC {
	return s.sum(func(h hash.Hash) {
		var b [1 + 5*8]byte
		b[0] = 'h'
		binary.BigEndian.PutUint64(b[1:], uint64(x.Revision))
		binary.BigEndian.PutUint64(b[9:], uint64(x.Epoch))
		binary.BigEndian.PutUint64(b[17:], x.Records)
		binary.BigEndian.PutUint64(b[25:], x.Digest[0])
		binary.BigEndian.PutUint64(b[33:], x.Digest[1])
		h.Write(b[:])
	})
}
