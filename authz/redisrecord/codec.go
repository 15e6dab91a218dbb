package redisrecord

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// A batch is packed as
//
//	version, sidecar, count, count × record
//
// where a record is the ID, the other fields in order as varints, strings and
// hashes. A string is 0 and its bytes the first time, and 1 + its index among
// the batch's strings thereafter: a hundred records of one product, client app
// and service take some 60 bytes each.
const (
	formatVersion = 1
	batchMax      = 1 << 12 // records in a batch that is read
	stringMax     = 1 << 10 // bytes in a string that is read
)

var errFormat = errors.New("redisrecord: malformed batch")

// flags say which of the optional parts of a record follow.
const (
	hasClientHash = 1 << iota
	hasSSIDHash
	hasSubjectHash
	hasLimit
	hasShadow
	hasAll = 1<<iota - 1
)

// pack appends a batch of one sidecar.
func pack(b []byte, batch []authz.Record) []byte { return new(packer).pack(b, batch) }

// packer packs batches, one after the other.
type packer struct {
	b     []byte
	index map[string]uint64 // of the batch's strings; kept for its room
}

func (p *packer) pack(b []byte, batch []authz.Record) []byte {
	if p.index == nil {
		p.index = make(map[string]uint64, 64)
	}
	clear(p.index)
	p.b = append(b, formatVersion)
	p.string(batch[0].Sidecar)
	p.uint(uint64(len(batch)))
	for i := range batch {
		p.record(&batch[i])
	}
	b, p.b = p.b, nil
	return b
}

func (p *packer) uint(n uint64) { p.b = binary.AppendUvarint(p.b, n) }

func (p *packer) string(s string) {
	if i, ok := p.index[s]; ok {
		p.uint(i + 1)
		return
	}
	if len(s) > stringMax {
		s = s[:stringMax]
	}
	p.index[s] = uint64(len(p.index))
	p.uint(0)
	p.uint(uint64(len(s)))
	p.b = append(p.b, s...)
}

func (p *packer) record(r *authz.Record) {
	p.b = append(p.b, r.ID[:]...)
	p.b = binary.AppendVarint(p.b, int64(r.At))
	var flags byte
	if r.ClientHash != (authz.Hash{}) {
		flags |= hasClientHash
	}
	if r.SSIDHash != (authz.Hash{}) {
		flags |= hasSSIDHash
	}
	if r.SubjectHash != (authz.Hash{}) {
		flags |= hasSubjectHash
	}
	if r.Limit != "" {
		flags |= hasLimit
	}
	if r.Shadow != "" {
		flags |= hasShadow
	}
	p.b = append(p.b, flags)
	// By its code and not its number, which another version may have given to
	// another reason.
	p.string(r.Reason.String())
	p.uint(uint64(r.Revision))
	p.string(r.Environment.String())
	p.string(r.Service)
	p.string(r.Route)
	p.string(r.ProductID)
	p.string(r.Version)
	p.string(r.ClientID)
	p.uint(uint64(r.Holder))
	p.string(r.Suspension)
	if flags&hasClientHash != 0 {
		p.b = append(p.b, r.ClientHash[:]...)
	}
	if flags&hasSSIDHash != 0 {
		p.b = append(p.b, r.SSIDHash[:]...)
	}
	if flags&hasSubjectHash != 0 {
		p.b = append(p.b, r.SubjectHash[:]...)
	}
	if flags&hasLimit != 0 {
		p.string(r.Limit)
	}
	if flags&hasShadow != 0 {
		p.string(r.Shadow)
	}
}

// unpack calls f for each record of a packed batch until it returns false.
// Whatever the bytes are, it allocates no more than a small multiple of them.
func unpack(b []byte, f func(*authz.Record) bool) error {
	u := unpacker{b: b}
	if v := u.byte(); !u.bad && v != formatVersion {
		return fmt.Errorf("redisrecord: batch of format %d", v)
	}
	sidecar := u.string()
	n := u.uint()
	if u.bad || n > batchMax {
		return errFormat
	}
	for range n {
		r := authz.Record{Sidecar: sidecar}
		u.record(&r)
		if u.bad {
			return errFormat
		}
		if !f(&r) {
			return nil
		}
	}
	if len(u.b) != 0 {
		return errFormat
	}
	return nil
}

type unpacker struct {
	b       []byte
	strings []string
	bad     bool
}

func (u *unpacker) take(n int) []byte {
	if u.bad || len(u.b) < n {
		u.bad = true
		return nil
	}
	v := u.b[:n]
	u.b = u.b[n:]
	return v
}

func (u *unpacker) byte() byte {
	if v := u.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (u *unpacker) uint() uint64 {
	v, n := binary.Uvarint(u.b)
	if n <= 0 {
		u.bad = true
		return 0
	}
	u.take(n)
	return v
}

func (u *unpacker) string() string {
	i := u.uint()
	if u.bad {
		return ""
	}
	if i > 0 {
		if i > uint64(len(u.strings)) {
			u.bad = true
			return ""
		}
		return u.strings[i-1]
	}
	n := u.uint()
	if u.bad || n > stringMax {
		u.bad = true
		return ""
	}
	s := string(u.take(int(n)))
	u.strings = append(u.strings, s)
	return s
}

func (u *unpacker) record(r *authz.Record) {
	id, err := authz.ParseDecisionID(string(u.take(len(r.ID))))
	if err != nil {
		u.bad = true
		return
	}
	r.ID = id
	at, n := binary.Varint(u.b)
	if n <= 0 {
		u.bad = true
		return
	}
	u.take(n)
	r.At = registry.Time(at)
	flags := u.byte()
	reason, known := authz.ParseReason(u.string())
	r.Reason = reason
	r.Revision = registry.Revision(u.uint())
	if err := r.Environment.UnmarshalText([]byte(u.string())); err != nil || !known {
		u.bad = true
		return
	}
	r.Service = u.string()
	r.Route = u.string()
	r.ProductID = u.string()
	r.Version = u.string()
	r.ClientID = u.string()
	r.Holder = registry.ABN(u.uint())
	r.Suspension = u.string()
	if flags&^hasAll != 0 {
		u.bad = true
		return
	}
	if flags&hasClientHash != 0 {
		copy(r.ClientHash[:], u.take(len(r.ClientHash)))
	}
	if flags&hasSSIDHash != 0 {
		copy(r.SSIDHash[:], u.take(len(r.SSIDHash)))
	}
	if flags&hasSubjectHash != 0 {
		copy(r.SubjectHash[:], u.take(len(r.SubjectHash)))
	}
	if flags&hasLimit != 0 {
		r.Limit = u.string()
	}
	if flags&hasShadow != 0 {
		r.Shadow = u.string()
	}
}
