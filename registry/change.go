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
	// Cases names the casework written with the change, in the same step. The log
	// holds their names and MACs only; the bodies stand beside the records, for
	// control planes alone.
	Cases []CaseRecord `json:"cases,omitempty"`
	// Digest is the digest of the whole register after this change.
	Digest Digest `json:"digest"`
	// CaseSum sums all the casework after this change.
	CaseSum CaseSum `json:"case_sum,omitzero"`
	// MAC authenticates everything above: a change written into Redis by
	// somebody else is refused by every mirror.
	MAC MAC `json:"mac"`
	// Keyed is what is kept of the request in the same step; nil as a rule. It is no
	// part of the log.
	Keyed *Keyed `json:"-"`
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
	if err := kind.UnmarshalText([]byte(k)); err != nil || !ok || id == "" || kind == KindVersion || kind == KindTier || kind == NoKind {
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
	CaseSum  CaseSum  `json:"case_sum,omitzero"`
	MAC      MAC      `json:"mac"`
}

// MAC is a truncated HMAC-SHA-256 under the register key.
type MAC [16]byte

// Digest is the sum, lane by lane, of the MACs of all records: the order of
// writing does not matter, one change updates it in constant time, and without
// the key nobody can make another set of records with the same sum (an
// AdHash-style multiset hash, Bellare & Micciancio 1997, over a keyed MAC).
type Digest [2]uint64

// Add puts a record's MAC in.
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

// Sealer computes and checks MACs under the register key, for any number of
// goroutines. The control planes and the sidecars hold the same key, in a file;
// Redis never does.
type Sealer struct{ pool sync.Pool }

// sealing is one MAC in the making; kept in the pool so that a load of some
// hundred thousand records makes no garbage.
type sealing struct {
	h   hash.Hash
	buf []byte // what goes before the data
	out [sha256.Size]byte
}

// NewSealer needs a key of at least 32 bytes.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) < 32 {
		return nil, errKeyShort
	}
	k := append([]byte(nil), key...)
	return &Sealer{pool: sync.Pool{New: func() any { return &sealing{h: hmac.New(sha256.New, k)} }}}, nil
}

// begin starts a MAC of one sort of thing; what is appended to buf comes first.
func (s *Sealer) begin(sort byte) *sealing {
	x := s.pool.Get().(*sealing)
	x.h.Reset()
	x.buf = append(x.buf[:0], sort)
	return x
}

func (x *sealing) number(n uint64) { x.buf = binary.BigEndian.AppendUint64(x.buf, n) }

func (x *sealing) text(s string) {
	x.number(uint64(len(s)))
	x.buf = append(x.buf, s...)
}

// finish adds the data and gives the sealing back.
func (s *Sealer) finish(x *sealing, data []byte) (m MAC) {
	x.h.Write(x.buf)
	x.h.Write(data)
	copy(m[:], x.h.Sum(x.out[:0]))
	s.pool.Put(x)
	return m
}

// derive makes a key of its own for one sort of thing and a text.
func (s *Sealer) derive(sort byte, text string) (key [sha256.Size]byte) {
	x := s.begin(sort)
	x.text(text)
	x.h.Write(x.buf)
	x.h.Sum(key[:0])
	s.pool.Put(x)
	return key
}

// Record computes a record's MAC over its kind, ID, revision and data.
func (s *Sealer) Record(r *Record) MAC {
	x := s.begin('r')
	x.buf = append(x.buf, byte(r.Kind))
	x.number(uint64(r.Revision))
	x.text(r.ID)
	return s.finish(x, r.Data)
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
//
// A change of a register without casework has the MAC it had before there was
// any; one with casework is of another sort.
func (s *Sealer) Change(c *Change) MAC {
	sort := byte('c')
	if c.casework() {
		sort = 'C'
	}
	x := s.begin(sort)
	x.number(uint64(c.Revision))
	x.number(uint64(c.Epoch))
	x.number(uint64(c.At))
	x.number(c.Digest[0])
	x.number(c.Digest[1])
	x.text(c.Actor)
	x.text(c.Command)
	x.text(c.Reason)
	for i := range c.Puts {
		x.buf = append(x.buf, c.Puts[i].MAC[:]...)
	}
	if c.casework() {
		x.number(uint64(len(c.Puts)))
		x.sum(c.CaseSum)
		for i := range c.Cases {
			x.text(string(c.Cases[i].Kind))
			x.text(c.Cases[i].ID)
			x.buf = append(x.buf, c.Cases[i].MAC[:]...)
		}
	}
	return s.finish(x, nil)
}

// Head computes the head's MAC.
func (s *Sealer) Head(h *Head) MAC {
	sort := byte('h')
	if h.CaseSum != (CaseSum{}) {
		sort = 'H'
	}
	x := s.begin(sort)
	x.number(uint64(h.Revision))
	x.number(uint64(h.Epoch))
	x.number(h.Records)
	x.number(h.Digest[0])
	x.number(h.Digest[1])
	if sort == 'H' {
		x.sum(h.CaseSum)
	}
	return s.finish(x, nil)
}

// casework tells whether there is any in the register as of this change.
func (c *Change) casework() bool { return len(c.Cases) > 0 || c.CaseSum != (CaseSum{}) }
