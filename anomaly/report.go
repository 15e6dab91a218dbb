package anomaly

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrReport is wrapped by every refusal of a report.
var ErrReport = errors.New("malformed report")

// Report is what one sidecar saw of every subject in one span of time.
type Report struct {
	Sidecar  string
	From     int64 // seconds since 1970
	Seconds  uint32
	Subjects []SubjectTally
	// Fields are what allowed calls lacked, by product and service.
	Fields []FieldTally
}

// SubjectTally is one subject of a Report.
type SubjectTally struct {
	Subject Subject
	Tally   Tally
}

// Bounds of an encoded report.
const (
	ReportBytesMax    = 4 << 20
	ReportSubjectsMax = 16_384

	reportVersion = 3 // 2 was without Fields, and is read
)

// AppendBinary appends the report to b: numbers as varints, nothing for what is
// nothing, so that an idle subject costs some twenty bytes.
func (r *Report) AppendBinary(b []byte) []byte {
	b = append(b, reportVersion)
	b = appendString(b, r.Sidecar)
	b = binary.AppendVarint(b, r.From)
	b = binary.AppendUvarint(b, uint64(r.Seconds))
	b = binary.AppendUvarint(b, uint64(len(r.Subjects)))
	for i := range r.Subjects {
		s := &r.Subjects[i]
		b = append(b, byte(s.Subject.Kind))
		b = appendString(b, s.Subject.ID)
		b = s.Tally.append(b)
	}
	return appendFields(b, r.Fields)
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// append writes which counters are not zero as bits, then these.
func (t *Tally) append(b []byte) []byte {
	b = appendString(b, t.of)
	b = appendSparse(b, t.Count[:])
	b = appendSparse(b, t.Service[:])
	b = binary.AppendUvarint(b, t.bytes)
	for i := range t.Set {
		least := t.Set[i].least
		b = binary.AppendUvarint(b, uint64(len(least)))
		last := uint32(0)
		for _, h := range least {
			b = binary.AppendUvarint(b, uint64(h-last))
			last = h
		}
	}
	return b
}

func appendSparse(b []byte, v []uint64) []byte {
	var which uint64
	for i, n := range v {
		if n != 0 {
			which |= 1 << i
		}
	}
	b = binary.AppendUvarint(b, which)
	for _, n := range v {
		if n != 0 {
			b = binary.AppendUvarint(b, n)
		}
	}
	return b
}

// UnmarshalBinary reads what AppendBinary wrote, and refuses anything else.
func (r *Report) UnmarshalBinary(b []byte) error {
	if len(b) > ReportBytesMax {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrReport, len(b), ReportBytesMax)
	}
	d := reader{b: b}
	v := d.byte()
	if v != reportVersion && v != reportVersion-1 && d.err == nil {
		return fmt.Errorf("%w: version %d, want %d", ErrReport, v, reportVersion)
	}
	out := Report{Sidecar: d.string("sidecar"), From: d.varint("from"), Seconds: uint32(d.uvarint("seconds", 86400))}
	n := d.uvarint("subjects", ReportSubjectsMax)
	out.Subjects = make([]SubjectTally, 0, min(n, uint64(len(b)/8)))
	for range n {
		if d.err != nil {
			break
		}
		var s SubjectTally
		if s.Subject.Kind = Kind(d.byte()); s.Subject.Kind >= kinds {
			d.fail("kind")
		}
		s.Subject.ID = d.string("subject")
		d.tally(&s.Tally)
		out.Subjects = append(out.Subjects, s)
	}
	if v == reportVersion {
		out.Fields = d.fields()
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("end")
	}
	if d.err != nil {
		return d.err
	}
	*r = out
	return nil
}

// reader takes a message apart; after the first error it reads nothing.
type reader struct {
	b   []byte
	err error
}

func (d *reader) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: at its %s", ErrReport, what)
	}
	d.b = nil
}

func (d *reader) byte() byte {
	if len(d.b) == 0 {
		d.fail("end")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *reader) uvarint(what string, most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > most {
		d.fail(what)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reader) varint(what string) int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(what)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reader) string(what string) string {
	n := d.uvarint(what, subjectIDMax)
	if n > uint64(len(d.b)) {
		d.fail(what)
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// countMax is far above what any sidecar can see in a day, and far below what
// sums of them overflow at.
const countMax = 1 << 48

func (d *reader) tally(t *Tally) {
	t.of = d.string("product")
	d.sparse("counts", t.Count[:])
	d.sparse("services", t.Service[:])
	t.bytes = d.uvarint("bytes", 1<<10-1)
	for i := range t.Set {
		n := d.uvarint("sketch", sketchSize)
		if n > uint64(len(d.b)) {
			d.fail("sketch")
		}
		if n == 0 || d.err != nil {
			continue
		}
		least, last := make([]uint32, n), uint64(0)
		for j := range least {
			step := d.uvarint("sketch", 1<<32-1)
			if last += step; j > 0 && step == 0 || last > 1<<32-1 {
				d.fail("sketch")
			}
			least[j] = uint32(last)
		}
		t.Set[i].least = least
	}
}

func (d *reader) sparse(what string, v []uint64) {
	which := d.uvarint(what, 1<<len(v)-1)
	for i := range v {
		if which&(1<<i) != 0 {
			v[i] = d.uvarint(what, countMax)
		}
	}
}
