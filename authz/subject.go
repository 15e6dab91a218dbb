package authz

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"strings"
	"sync"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/internal/identifier"
	"github.com/dspgate/dspgate/registry"
)

// SubjectHasher turns the identifier of a person or client into a keyed hash
// (HMAC-SHA-256, truncated to 128 bits). Nothing else of the identifier is
// kept: without the key, all eleven-digit numbers cannot be tried.
type SubjectHasher struct{ pool sync.Pool }

type hashState struct {
	h   hash.Hash
	buf []byte
}

// NewSubjectHasher needs a key of at least 32 bytes; all sidecars of a
// deployment share it, so that the same client has the same hash everywhere.
func NewSubjectHasher(key []byte) (*SubjectHasher, error) {
	if len(key) < 32 {
		return nil, errors.New("the subject key is shorter than 32 bytes")
	}
	k := bytes.Clone(key)
	return &SubjectHasher{pool: sync.Pool{New: func() any {
		return &hashState{h: hmac.New(sha256.New, k)}
	}}}, nil
}

// Sum hashes an identifier of a kind ("abn", "tfn", "ssid", …): the same
// digits as an ABN and as an SSID do not meet. How it is spelled does not count
// (identifier.AppendSpelled): whoever writes one number in two ways is neither
// past a list that holds it nor two people.
func (x *SubjectHasher) Sum(kind, id string) (out [16]byte) {
	s := x.pool.Get().(*hashState)
	s.h.Reset()
	s.buf = append(append(s.buf[:0], kind...), 0)
	s.buf = identifier.AppendSpelled(s.buf, id)
	s.h.Write(s.buf)
	clear(s.buf) // the identifier does not stay in a pooled buffer
	s.buf = s.h.Sum(s.buf[:0])
	copy(out[:], s.buf)
	x.pool.Put(s)
	return out
}

// permitted looks whether a policy keeps the product from the client or person
// the call concerns. The answer does not say that anybody is on a list.
func (x *Decider) permitted(view *registry.View, d *Decision) Reason {
	if view.Screened(d.Product.ID, d.Service.Risk) == nil {
		return OK
	}
	if view.IsProtected(d.SubjectHash) {
		return ClientNotPermitted
	}
	if d.ClientABN != 0 {
		var b [11]byte
		t, _ := d.ClientABN.AppendText(b[:0])
		if view.IsProtected(x.Subjects.Sum("client_abn", string(t))) {
			return ClientNotPermitted
		}
	}
	return OK
}

// subjectBytesMax bounds what can be an identifier of a person or client.
const subjectBytesMax = 128

// subject finds the person or client the call concerns, where the service says
// so, and leaves its hash in the decision.
func (x *Decider) subject(r *Request, claims *token.Claims, d *Decision) Reason {
	where := d.Service.Subject
	var id string
	switch where.In {
	case "":
		return OK
	case "path":
		id, _ = d.Match.Param(where.Name)
	case "claim":
		switch where.Name {
		case "client_abn":
			if d.ClientABN != 0 {
				var b [11]byte
				t, _ := d.ClientABN.AppendText(b[:0])
				d.SubjectHash = x.Subjects.Sum("client_abn", string(t))
			}
			return OK
		case "software_id":
			id = claims.SoftwareID
		default:
			id, _ = claims.Extra(where.Name)
		}
	case "body":
		if r.BodyTruncated {
			return RequestAmbiguous // a part of a body decides nothing
		}
		var ok bool
		if id, ok = pointer(r.Body, where.Name); !ok {
			return RequestAmbiguous
		}
	}
	if len(id) > subjectBytesMax {
		return RequestAmbiguous
	}
	if id != "" {
		d.SubjectHash = x.Subjects.Sum(strings.TrimPrefix(where.Name, "/"), id)
	}
	return OK
}

// pointer reads the string or whole number at a JSON pointer (RFC 6901) made of
// object members. ok is false when the body could be read in two ways: it is no
// JSON; it holds a member of the path twice, or in another case than the
// pointer's; or something else stands where an object or the identifier should,
// such as a list of them. id is "" when nothing is there, or null.
func pointer(body []byte, ptr string) (id string, ok bool) {
	if len(bytes.TrimSpace(body)) == 0 {
		return "", true
	}
	if !json.Valid(body) {
		return "", false
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	want := strings.Split(strings.TrimPrefix(ptr, "/"), "/")
	id, ok = walk(dec, want, true)
	if !ok {
		return "", false
	}
	if _, err := dec.Token(); err != io.EOF {
		return "", false
	}
	return id, true
}

// walk reads one JSON value. When live, want is the path still to go below it,
// and the scalar found there is returned; else the value is only passed over.
func walk(dec *json.Decoder, want []string, live bool) (id string, ok bool) {
	t, err := dec.Token()
	if err != nil {
		return "", false
	}
	v, into := t.(json.Delim)
	switch {
	case into && live && (v != '{' || len(want) == 0):
		return "", false
	case into:
		return walkInto(dec, v == '{', want, live)
	case !live || t == nil:
		return "", true
	case len(want) > 0:
		return "", false
	}
	switch v := t.(type) {
	case string:
		return v, true
	case json.Number: // 2.2e8 and 220000000.0 are whole numbers to some parsers only
		return v.String(), strings.Trim(v.String(), "0123456789") == ""
	}
	return "", false // true or false
}

func walkInto(dec *json.Decoder, object bool, want []string, live bool) (id string, ok bool) {
	found := false
	for dec.More() {
		hit := false
		if object {
			key, err := dec.Token()
			if err != nil {
				return "", false
			}
			// Case variants are the member to parsers that fold them, and nothing to others.
			if name, _ := key.(string); live && strings.EqualFold(name, unescapePointer(want[0])) {
				if found || name != unescapePointer(want[0]) {
					return "", false
				}
				found, hit = true, true
			}
		}
		var below []string
		if hit {
			below = want[1:]
		}
		got, ok := walk(dec, below, hit)
		if !ok {
			return "", false
		}
		if hit {
			id = got
		}
	}
	_, err := dec.Token() // the closing delimiter
	return id, err == nil
}

func unescapePointer(s string) string {
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(s)
}
