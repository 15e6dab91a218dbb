package redisstore

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/dspgate/dspgate/registry"
)

// The stored forms. Integers are big-endian; a string is its length as a
// uvarint and its bytes.
//
//	record  revision(8) MAC(16) data…
//	head    revision(8) epoch(8) records(8) digest(16) MAC(16) [cases(8) digest(16)]
//	change  'C' '1' MAC(16) digest(16) revision(8) epoch(8) at(8)
//	        actor command reason count(uvarint) { kind(1) id revision(8) MAC(16) data }…
//	        or 'C' '2', the same and at its end
//	        cases(8) digest(16) count(uvarint) { kind id MAC(16) }…
//	case    as record
//	member  field "incarnation id", value "polled_ms revision incarnation digest_hex short_ns long_ns"
const (
	recordHeader = 8 + 16
	headLen      = 8 + 8 + 8 + 16 + 16
	changeMagic  = "C1"
	caseMagic    = "C2" // of a register that holds casework
	caseSumLen   = 8 + 16
)

func encodeRecord(r *registry.Record) string {
	b := make([]byte, 0, recordHeader+len(r.Data))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Revision))
	b = append(append(b, r.MAC[:]...), r.Data...)
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// decodeRecord reads a hash entry into r, whose Data then aliases val: it must
// not be written to.
func decodeRecord(key, val string, r *registry.Record) error {
	kind, id, err := registry.ParseKey(key)
	if err != nil || len(val) < recordHeader {
		return fmt.Errorf("%w: stored record %.80q", registry.ErrTampered, key)
	}
	b := unsafe.Slice(unsafe.StringData(val), len(val))
	*r = registry.Record{Kind: kind, ID: id, Revision: registry.Revision(binary.BigEndian.Uint64(b)), Data: b[recordHeader:]}
	copy(r.MAC[:], b[8:])
	return nil
}

func appendDigest(b []byte, d registry.Digest) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, d[0]), d[1])
}

func encodeHead(h *registry.Head) string {
	b := make([]byte, 0, headLen)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Revision))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Epoch))
	b = binary.BigEndian.AppendUint64(b, h.Records)
	b = append(appendDigest(b, h.Digest), h.MAC[:]...)
	if h.CaseSum != (registry.CaseSum{}) {
		b = appendCaseSum(b, h.CaseSum)
	}
	return string(b)
}

// encodeCaseSum is the end of a head that has casework.
func encodeCaseSum(s registry.CaseSum) string {
	if s == (registry.CaseSum{}) {
		return ""
	}
	return string(appendCaseSum(nil, s))
}

func appendCaseSum(b []byte, s registry.CaseSum) []byte {
	return appendDigest(binary.BigEndian.AppendUint64(b, s.Count), s.Digest)
}

func (d *decoder) caseSum() registry.CaseSum {
	return registry.CaseSum{Count: d.u64(), Digest: registry.Digest{d.u64(), d.u64()}}
}

func encodeCase(c *registry.CaseRecord) string {
	return encodeRecord(&registry.Record{Revision: c.Revision, MAC: c.MAC, Data: c.Data})
}

// decodeCase reads a hash entry; Data aliases val.
func decodeCase(key, val string) (c registry.CaseRecord, err error) {
	kind, id, err := registry.ParseCaseKey(key)
	if err != nil || len(val) < recordHeader {
		return c, fmt.Errorf("%w: stored case %.80q", registry.ErrTampered, key)
	}
	b := unsafe.Slice(unsafe.StringData(val), len(val))
	c = registry.CaseRecord{Kind: kind, ID: id, Revision: registry.Revision(binary.BigEndian.Uint64(b)), Data: b[recordHeader:]}
	copy(c.MAC[:], b[8:])
	return c, nil
}

func decodeHead(s string) (h registry.Head, err error) {
	if len(s) != headLen && len(s) != headLen+caseSumLen {
		return h, fmt.Errorf("%w: stored head of %d bytes", registry.ErrTampered, len(s))
	}
	d := decoder{rest: s}
	h.Revision, h.Epoch, h.Records = registry.Revision(d.u64()), registry.Epoch(d.u64()), d.u64()
	h.Digest = registry.Digest{d.u64(), d.u64()}
	copy(h.MAC[:], d.take(16))
	if d.rest != "" {
		if h.CaseSum = d.caseSum(); h.CaseSum == (registry.CaseSum{}) {
			return h, fmt.Errorf("%w: stored head of another form", registry.ErrTampered)
		}
	}
	return h, nil
}

func encodeChange(c *registry.Change) string {
	n := 128 + len(c.Actor) + len(c.Command) + len(c.Reason)
	for i := range c.Puts {
		n += 48 + len(c.Puts[i].ID) + len(c.Puts[i].Data)
	}
	casework := len(c.Cases) > 0 || c.CaseSum != (registry.CaseSum{})
	magic := changeMagic
	if casework {
		magic, n = caseMagic, n+64+96*len(c.Cases)
	}
	b := append(make([]byte, 0, n), magic...)
	b = appendDigest(append(b, c.MAC[:]...), c.Digest)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Revision))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(c.At))
	b = appendString(appendString(appendString(b, c.Actor), c.Command), c.Reason)
	b = binary.AppendUvarint(b, uint64(len(c.Puts)))
	for i := range c.Puts {
		r := &c.Puts[i]
		b = appendString(append(b, byte(r.Kind)), r.ID)
		b = append(binary.BigEndian.AppendUint64(b, uint64(r.Revision)), r.MAC[:]...)
		b = append(binary.AppendUvarint(b, uint64(len(r.Data))), r.Data...)
	}
	if casework {
		b = binary.AppendUvarint(appendCaseSum(b, c.CaseSum), uint64(len(c.Cases)))
		for i := range c.Cases {
			x := &c.Cases[i]
			b = append(appendString(appendString(b, string(x.Kind)), x.ID), x.MAC[:]...)
		}
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// decodeChange reads a log entry. What it accepts encodes to the same bytes
// again; a change that does not is refused.
func decodeChange(s string) (c registry.Change, err error) {
	d := decoder{rest: s}
	magic := string(d.take(len(changeMagic)))
	if magic != changeMagic && magic != caseMagic {
		return c, fmt.Errorf("%w: log entry of unknown form", registry.ErrTampered)
	}
	copy(c.MAC[:], d.take(16))
	c.Digest = registry.Digest{d.u64(), d.u64()}
	c.Revision, c.Epoch, c.At = registry.Revision(d.u64()), registry.Epoch(d.u64()), registry.Time(d.u64())
	c.Actor, c.Command, c.Reason = string(d.str()), string(d.str()), string(d.str())
	n := d.uvarint()
	// Each record takes 27 bytes at least: a count beyond that is no reason to allocate.
	if n > uint64(len(d.rest)/27) {
		d.bad = true
	}
	if !d.bad && n > 0 {
		c.Puts = make([]registry.Record, n)
	}
	for i := range c.Puts {
		r := &c.Puts[i]
		if k := d.take(1); k != nil {
			r.Kind = registry.Kind(k[0])
		}
		r.ID = string(d.str())
		r.Revision = registry.Revision(d.u64())
		copy(r.MAC[:], d.take(16))
		r.Data = d.str()
		if r.Kind.String() == "" {
			d.bad = true
		}
	}
	if magic == caseMagic {
		d.cases(&c)
	}
	if d.bad || d.rest != "" {
		return registry.Change{}, fmt.Errorf("%w: log entry cut short or too long", registry.ErrTampered)
	}
	return c, nil
}

// cases reads the names of the casework written with a change.
func (d *decoder) cases(c *registry.Change) {
	c.CaseSum = d.caseSum()
	n := d.uvarint()
	if n > uint64(len(d.rest)/18) || n == 0 && c.CaseSum == (registry.CaseSum{}) {
		d.bad = true
	}
	if !d.bad && n > 0 {
		c.Cases = make([]registry.CaseRecord, n)
	}
	for i := range c.Cases {
		x := &c.Cases[i]
		x.Kind, x.ID, x.Revision = registry.CaseKind(d.str()), string(d.str()), c.Revision
		copy(x.MAC[:], d.take(16))
	}
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads from the front of rest; bad is set, and zeros come back, when
// it is too short.
type decoder struct {
	rest string
	bad  bool
}

// take returns n bytes that alias the input; nil when there are not as many.
func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || len(d.rest) < n {
		d.bad = true
		return nil
	}
	b := unsafe.Slice(unsafe.StringData(d.rest), n)
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(unsafe.Slice(unsafe.StringData(d.rest), min(len(d.rest), binary.MaxVarintLen64)))
	// The shortest form only: one change has one encoding.
	if n <= 0 || n > 1 && v>>(7*(n-1)) == 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) str() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.bad = true
		return nil
	}
	return d.take(int(n))
}

// encodeMember is what follow.lua stores after the time and the revision.
func encodeMember(a *registry.Ack) string {
	return fmt.Sprintf("%s %s %d %d", storedIncarnation(a.Incarnation), hex.EncodeToString(appendDigest(nil, a.Digest)), a.Short.Nanoseconds(), a.Long.Nanoseconds())
}

// storedIncarnation keeps the fields of a member apart.
func storedIncarnation(s string) string {
	if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "-"
	}
	return s
}

// memberField names one incarnation of a sidecar on the roll.
func memberField(id, incarnation string) string { return storedIncarnation(incarnation) + " " + id }

func decodeMember(field, s string) (m registry.Member, err error) {
	f := strings.Split(s, " ")
	incarnation, id, _ := strings.Cut(field, " ")
	bad := func() (registry.Member, error) {
		return registry.Member{}, fmt.Errorf("%w: roll entry of %.80q", registry.ErrTampered, field)
	}
	if len(f) != 6 || f[2] != incarnation {
		return bad()
	}
	var n [6]int64
	for _, i := range []int{0, 1, 4, 5} {
		if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil || n[i] < 0 {
			return bad()
		}
	}
	digest, err := hex.DecodeString(f[3])
	if err != nil || len(digest) != 16 {
		return bad()
	}
	m = registry.Member{
		ID: id, Incarnation: f[2], Revision: registry.Revision(n[1]), PolledAt: registry.Time(n[0]),
		Digest: registry.Digest{binary.BigEndian.Uint64(digest), binary.BigEndian.Uint64(digest[8:])},
		Short:  time.Duration(n[4]), Long: time.Duration(n[5]),
	}
	return m, nil
}
