package extauthz

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/envoy/headers"
)

// errMalformed: the bytes are no CheckRequest, or one that Envoy never sends.
var errMalformed = errors.New("malformed CheckRequest")

// Header names a decision reads, lower-case as HTTP/2 has them.
const (
	hdrAuthorization  = "authorization"
	hdrHost           = "host"
	hdrAuthority      = ":authority"
	hdrContentType    = "content-type"
	hdrRequestID      = "x-request-id"
	hdrProductID      = headers.ClaimProductID
	hdrProductVersion = headers.ClaimProductVersion
	hdrSoftwareID     = headers.ClaimSoftwareID
	hdrPartialBody    = "x-envoy-auth-partial-body"
)

// header indexes the headers that are read.
type header uint8

const (
	idxAuthorization header = iota
	idxHost
	idxAuthority
	idxContentType
	idxRequestID
	idxProductID
	idxProductVersion
	idxSoftwareID
	idxPartialBody
	nHeaders
	idxNone = nHeaders
)

// scan is what one pass over the wire found, before it is judged. Envoy sends
// the headers either as a map or (encode_raw_headers) as a list; should both
// come, they count together.
type scan struct {
	mapped   [nHeaders]value
	listed   [nHeaders]value // the first of each
	body     []byte
	rawBody  []byte
	isSocket bool // which member of the oneof Address was last
}

type value struct {
	b []byte
	n int
}

// decode reads the fields a decision needs into r, whose strings then point
// into raw. It accepts and understands exactly what protobuf-go does, repeated
// occurrences of a message being merged, except that strings in fields nobody
// reads are not checked to be UTF-8.
func (s *scan) decode(raw []byte, r *authz.Request) error {
	*s, *r = scan{}, authz.Request{}
	err := fields(raw, func(num protowire.Number, b []byte) error {
		if num != 1 { // attributes
			return nil
		}
		return fields(b, func(num protowire.Number, b []byte) error {
			switch num {
			case 1: // source
				return s.peer(b, r)
			case 4: // request
				return fields(b, func(num protowire.Number, b []byte) error {
					if num != 2 { // http
						return nil
					}
					return s.http(b, r)
				})
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	s.judge(r)
	return nil
}

// peer reads AttributeContext.Peer.
func (s *scan) peer(b []byte, r *authz.Request) error {
	return fields(b, func(num protowire.Number, b []byte) error {
		switch num {
		case 1: // address
			return fields(b, func(num protowire.Number, b []byte) error {
				switch num {
				case 1: // socket_address
					if !s.isSocket {
						r.Peer, s.isSocket = "", true
					}
					return fields(b, func(num protowire.Number, b []byte) error {
						if num == 2 {
							return text(&r.Peer, b)
						}
						return nil
					})
				case 2, 3: // pipe, envoy_internal_address: the last of a oneof stands
					r.Peer, s.isSocket = "", false
				}
				return nil
			})
		case 5:
			return text(&r.Certificate, b)
		}
		return nil
	})
}

// http reads AttributeContext.HttpRequest.
func (s *scan) http(b []byte, r *authz.Request) error {
	return fields(b, func(num protowire.Number, b []byte) error {
		switch num {
		case 2:
			return text(&r.Method, b)
		case 3:
			return s.mapEntry(b)
		case 4:
			return text(&r.Target, b)
		case 5:
			return text(&r.Host, b)
		case 6:
			return text(&r.Scheme, b)
		case 11:
			s.body = b
			return valid(b)
		case 12:
			s.rawBody = b
		case 13: // header_map
			return fields(b, func(num protowire.Number, b []byte) error {
				if num != 1 {
					return nil
				}
				return s.listEntry(b)
			})
		}
		return nil
	})
}

// mapEntry reads one entry of map<string, string> headers. The last entry of a
// key stands, as in every protobuf map.
func (s *scan) mapEntry(b []byte) error {
	var key, val []byte
	err := fields(b, func(num protowire.Number, b []byte) error {
		switch num {
		case 1:
			key = b
			return valid(b)
		case 2:
			val = b
			return valid(b)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if i := headerIndex(key); i != idxNone {
		s.mapped[i] = value{val, 1}
	}
	return nil
}

// listEntry reads one HeaderValue of the raw list.
func (s *scan) listEntry(b []byte) error {
	var key, val, raw []byte
	err := fields(b, func(num protowire.Number, b []byte) error {
		switch num {
		case 1:
			key = b
			return valid(b)
		case 2:
			val = b
			return valid(b)
		case 3:
			raw = b
		}
		return nil
	})
	if err != nil {
		return err
	}
	i := headerIndex(key)
	if i == idxNone {
		return nil
	}
	switch {
	case len(raw) > 0 && len(val) > 0:
		return errMalformed // Envoy sets one; which of two would count is anybody's guess
	case len(raw) > 0:
		val = raw
	}
	if s.listed[i].n == 0 {
		s.listed[i].b = val
	}
	s.listed[i].n++
	return nil
}

// headerIndex finds a header that is read. Names come lower-case from Envoy;
// another case is the same header all the same.
func headerIndex(key []byte) header {
	var name string
	var i header
	switch len(key) {
	case len(hdrHost):
		name, i = hdrHost, idxHost
	case len(hdrAuthority):
		name, i = hdrAuthority, idxAuthority
	case len(hdrContentType): // and x-request-id, x-product-id
		switch key[2] | 0x20 {
		case 'n':
			name, i = hdrContentType, idxContentType
		case 'r':
			name, i = hdrRequestID, idxRequestID
		default:
			name, i = hdrProductID, idxProductID
		}
	case len(hdrAuthorization): // and x-software-id
		if key[0]|0x20 == 'a' {
			name, i = hdrAuthorization, idxAuthorization
		} else {
			name, i = hdrSoftwareID, idxSoftwareID
		}
	case len(hdrProductVersion):
		name, i = hdrProductVersion, idxProductVersion
	case len(hdrPartialBody):
		name, i = hdrPartialBody, idxPartialBody
	default:
		return idxNone
	}
	for k := range len(name) {
		c := key[k]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != name[k] {
			return idxNone
		}
	}
	return i
}

// judge turns what was found into the request: how often each header came,
// and whether that can be read in two ways.
func (s *scan) judge(r *authz.Request) {
	r.Authorization, r.Authorizations = s.header(idxAuthorization)
	claims := [...]struct {
		to *string
		i  header
	}{
		{&r.ClaimProductID, idxProductID},
		{&r.ClaimProductVersion, idxProductVersion},
		{&r.ClaimSoftwareID, idxSoftwareID},
	}
	for _, c := range claims {
		v, n := s.header(c.i)
		*c.to = v
		if n > 1 {
			r.Duplicated = true
		}
	}
	// Two Host headers reach the authority joined by a comma, which no host has.
	if strings.IndexByte(r.Host, ',') >= 0 {
		r.Duplicated = true
	}
	for _, i := range [...]header{idxHost, idxAuthority} {
		if v, n := s.header(i); n > 1 || n == 1 && v != r.Host {
			r.Duplicated = true
		}
	}
	ct, _ := s.header(idxContentType)
	r.GRPC = isGRPC(ct)
	r.RequestID, _ = s.header(idxRequestID)
	r.Body = s.rawBody
	if len(r.Body) == 0 {
		r.Body = s.body
	}
	if len(r.Body) == 0 {
		r.Body = nil
	}
	partial, n := s.header(idxPartialBody)
	r.BodyTruncated = n > 1 || n == 1 && partial != "false"
}

// header gives a header's first value and how often it came. A comma means that
// somebody joined several: in the map Envoy joins all, in the list still those
// it keeps a place for, such as Authorization. No value that is read here has a
// comma of its own, but for what somebody sends in place of a token: there it
// takes another scheme behind the comma to make another credential.
func (s *scan) header(i header) (string, int) {
	l, m := &s.listed[i], &s.mapped[i]
	n := l.n + m.n
	for _, v := range [...][]byte{l.b, m.b} {
		if bytes.IndexByte(v, ',') >= 0 && (i != idxAuthorization || joined(v)) {
			n++
		}
	}
	if l.n > 0 {
		return str(l.b), n
	}
	return str(m.b), n
}

// joined tells whether a comma of an Authorization header begins another
// credential: a scheme and a space (RFC 9110 §11.4). A JWS in JSON has commas
// too, and is one credential, a malformed one.
func joined(v []byte) bool {
	for {
		at := bytes.IndexByte(v, ',')
		if at < 0 {
			return false
		}
		v = bytes.TrimLeft(v[at+1:], " \t")
		scheme := bytes.IndexFunc(v, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
		})
		if scheme > 0 && v[scheme] == ' ' {
			return true
		}
	}
}

// isGRPC is Envoy's own rule (Grpc::Common::hasGrpcContentType): application/grpc
// or application/grpc+…, and never application/grpc-web.
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+')
}

// fields calls f for every length-delimited field of a message, in the order of
// the wire. Other wire types are checked and passed over: nothing read here is
// a number, and a known field of the wrong wire type is an unknown field.
func fields(b []byte, f func(num protowire.Number, b []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num > protowire.MaxValidNumber {
			return errMalformed
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return errMalformed
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		if err := f(num, v); err != nil {
			return err
		}
	}
	return nil
}

func text(to *string, b []byte) error {
	*to = str(b)
	return valid(b)
}

func valid(b []byte) error {
	if !utf8.Valid(b) {
		return errMalformed
	}
	return nil
}

// str is the bytes as a string without a copy: they live as long as the call.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
