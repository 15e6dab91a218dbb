package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// CaseKind names a type of casework: application, certification, finding …
// Lower-case letters and hyphens, 32 bytes at most. Each is one Go type, which
// says its own kind (CaseBody).
type CaseKind string

// CaseBody is casework of one kind. The method is called on zero values.
type CaseBody interface {
	CaseKind() CaseKind
}

// CaseRecord is one piece of casework as stored: the workflow's own memory, that
// no sidecar loads. It is sealed like a Record, and is committed in the same
// step as the records of the same Change.
//
// In the log a CaseRecord has no Data: its MAC says which body is meant.
type CaseRecord struct {
	Kind     CaseKind        `json:"kind"`
	ID       string          `json:"id"`
	Revision Revision        `json:"revision"`
	Data     json.RawMessage `json:"data,omitempty"`
	MAC      MAC             `json:"mac"`
}

// Key names the case: "application/AP-12".
func (c *CaseRecord) Key() string { return string(c.Kind) + "/" + c.ID }

// ParseCaseKey splits the key of a case.
func ParseCaseKey(key string) (CaseKind, string, error) {
	kind, id, ok := strings.Cut(key, "/")
	if !ok || id == "" || !CaseKind(kind).valid() {
		return "", "", fmt.Errorf("%w: %q names no case", ErrInvalid, truncate(key, 80))
	}
	return CaseKind(kind), id, nil
}

func (k CaseKind) valid() bool {
	return k != "" && len(k) <= 32 && strings.Trim(string(k), "abcdefghijklmnopqrstuvwxyz-") == ""
}

// CaseSum sums casework up, as Records and Digest do the records: how many
// bodies there are, and the sum of their MACs.
type CaseSum struct {
	Count  uint64 `json:"count"`
	Digest Digest `json:"digest"`
}

// add puts one body in, in the place of another if there was one.
func (s CaseSum) add(old *caseEntry, m MAC) CaseSum {
	s.Digest = s.Digest.Add(m)
	if old == nil {
		s.Count++
		return s
	}
	s.Digest = s.Digest.Sub(old.MAC)
	return s
}

func (x *sealing) sum(s CaseSum) {
	x.number(s.Count)
	x.number(s.Digest[0])
	x.number(s.Digest[1])
}

// Case computes a case's MAC over its kind, ID, revision and body.
func (s *Sealer) Case(c *CaseRecord) MAC {
	x := s.begin('k')
	x.number(uint64(c.Revision))
	x.text(string(c.Kind))
	x.text(c.ID)
	return s.finish(x, c.Data)
}

// SealCase stamps a case with its revision and MAC.
func (s *Sealer) SealCase(c *CaseRecord, rev Revision) {
	c.Revision = rev
	c.MAC = s.Case(c)
}

// GenuineCase tells whether a case's MAC verifies.
func (s *Sealer) GenuineCase(c *CaseRecord) bool { return s.Case(c) == c.MAC }

// CaseType is what a control plane knows of one kind of casework.
type CaseType struct {
	kind CaseKind
	keys func(data []byte, add func(index, value string)) error
}

// CaseIndexer is a CaseBody that can be found by more than its ID.
type CaseIndexer interface {
	// CaseKeys adds the values by which the case is found: an index's name, such as
	// state or product_id, and the value. Of a text that is searched by its words,
	// use Words.
	CaseKeys(add func(index, value string))
}

// CaseTypeOf is the CaseType of T.
func CaseTypeOf[T CaseBody]() CaseType {
	var zero T
	return CaseType{kind: zero.CaseKind(), keys: func(data []byte, add func(index, value string)) error {
		var body T
		x, indexed := any(&body).(CaseIndexer)
		dated, dues := any(&body).(Dated)
		if !indexed && !dues {
			return nil
		}
		if err := json.Unmarshal(data, &body); err != nil {
			return err
		}
		if indexed {
			x.CaseKeys(add)
		}
		if dues {
			for _, d := range dated.CaseDues() {
				add(dueIndex, dueValue(d))
			}
		}
		return nil
	}}
}

// Case is one piece of casework as read.
type Case[T CaseBody] struct {
	ID       string
	Revision Revision // that last wrote it; its ETag
	Body     T
}

// CaseOf reads a case from a Casebook; ErrNotFound when there is none.
func CaseOf[T CaseBody](b *Casebook, id string) (*Case[T], error) {
	var zero T
	return decodeCase[T](b.entry(zero.CaseKind(), id), id)
}

func decodeCase[T CaseBody](e *caseEntry, id string) (*Case[T], error) {
	var c Case[T]
	if e == nil {
		return nil, fmt.Errorf("%w: %s %s", ErrNotFound, c.Body.CaseKind(), truncate(id, 80))
	}
	c.ID, c.Revision = id, e.Revision
	if err := json.Unmarshal(e.body(), &c.Body); err != nil {
		return nil, fmt.Errorf("%w: %s %s: %w", ErrTampered, c.Body.CaseKind(), id, err)
	}
	return &c, nil
}

// ChangingCase finds a case to change and checks the precondition. ErrNotFound
// when there is none.
func ChangingCase[T CaseBody](t *Tx, id string, m Meta) (T, error) {
	c, err := TxCase[T](t, id)
	if err != nil {
		var none T
		return none, err
	}
	if m.IfMatch != 0 && m.IfMatch != c.Revision {
		return c.Body, fmt.Errorf("%w: it has revision %d now", ErrPrecondition, c.Revision)
	}
	return c.Body, nil
}

// TxCase reads a case as the change leaves it so far; ErrNotFound when there is none.
func TxCase[T CaseBody](t *Tx, id string) (*Case[T], error) {
	var zero T
	for i := range t.cases {
		if c := &t.cases[i]; c.Kind == zero.CaseKind() && c.ID == id {
			return decodeCase[T](&caseEntry{Revision: c.Revision, packed: packed{data: c.Data}}, id)
		}
	}
	book, err := t.Casebook()
	if err != nil {
		return nil, err
	}
	return CaseOf[T](book, id)
}

// CreateCase writes a case that is not there yet.
func CreateCase[T CaseBody](t *Tx, id string, body T) error {
	if _, err := TxCase[T](t, id); err == nil {
		return fmt.Errorf("%w: %s %s exists already", ErrState, body.CaseKind(), id)
	}
	return PutCase(t, id, body)
}

// PutCase writes a case, at most once for each in a change; the last one counts.
func PutCase[T CaseBody](t *Tx, id string, body T) error {
	book, err := t.Casebook()
	if err != nil {
		return err
	}
	kind := body.CaseKind()
	if _, known := book.types[kind]; !known {
		panic("registry: casework of the kind " + string(kind) + " was not configured")
	}
	if err := checkCaseID(id); err != nil {
		return err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return fmt.Errorf("encode %s/%s: %w", kind, id, err)
	}
	data := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	if len(data) > caseBytesMax {
		return Field("", "the %s would have %d bytes; at most %d", kind, len(data), caseBytesMax)
	}
	rec := CaseRecord{Kind: kind, ID: id, Data: bytes.Clone(data)}
	t.sealer.SealCase(&rec, t.revision)
	t.id = id
	for i := range t.cases {
		if t.cases[i].Kind == kind && t.cases[i].ID == id {
			t.cases[i] = rec
			return nil
		}
	}
	if len(t.cases) == casesMax {
		return Field("", "a change writes at most %d cases", casesMax)
	}
	t.cases = append(t.cases, rec)
	return nil
}

// Bounds on casework.
const (
	caseBytesMax   = 512 << 10
	caseIDBytesMax = 200
	casesMax       = 2000 // in one change
)

// checkCaseID bounds the ID of a case: printable ASCII without spaces.
func checkCaseID(id string) error {
	if id == "" || len(id) > caseIDBytesMax || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return Field("/id", "is no ID of at most %d printable characters", caseIDBytesMax)
	}
	return nil
}
