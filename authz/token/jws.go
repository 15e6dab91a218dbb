package token

import (
	"encoding/base64"
	"strings"

	"github.com/dspgate/dspgate/authz/token/internal/strictjson"
)

// segmentEncoding refuses non-zero trailing bits; canonical refuses what it
// skips over.
var segmentEncoding = base64.RawURLEncoding.Strict()

// jsonLimits bound header and claims: far above what issuers send, far below
// what would make reading one cost more than verifying it.
var jsonLimits = strictjson.Limits{Depth: 8, Values: 256}

// compact is a JWS in compact serialization, cut but not yet believed.
type compact struct {
	signingInput string // header.payload, as signed
	header       string // decoded
	payload      string // decoded
	signature    []byte // decoded
}

// openJWS is the shell around the signature: one serialization in one encoding,
// and a header that can be read in one way.
func openJWS(raw string) (c compact, h header, ok bool) {
	if c, ok = split(raw); ok {
		h, ok = parseHeader(c.header)
	}
	return c, h, ok
}

// split cuts a token in its three segments and decodes them. ok is false for
// every other serialization, and for every other encoding of these.
func split(raw string) (c compact, ok bool) {
	h := strings.IndexByte(raw, '.')
	p := strings.LastIndexByte(raw, '.')
	if h <= 0 || p <= h+1 { // an empty payload is a detached one
		return c, false
	}
	c.signingInput = raw[:p]
	head, okHead := canonical(raw[:h])
	payload, okPayload := canonical(raw[h+1 : p]) // no dot is in its alphabet
	c.header, c.payload = string(head), string(payload)
	c.signature, ok = canonical(raw[p+1:])
	return c, ok && okHead && okPayload
}

// canonical decodes base64url without padding, of which each value has exactly
// one encoding: the decoder by itself skips line ends.
func canonical(s string) ([]byte, bool) {
	if !alphabet(s) {
		return nil, false
	}
	b, err := segmentEncoding.DecodeString(s)
	return b, err == nil
}

func alphabet(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// header is what of a JOSE header is used.
type header struct{ alg, kid, typ string }

// headerUsed are the members that a case variant must not imitate.
var headerUsed = []string{"alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"}

// headerRefused are members whose presence alone refuses: extensions that change
// what is signed or must be understood (crit, b64), keys and where to get them
// (jwk, jku, x5u, x5c), and what belongs to encrypted tokens (zip, enc).
var headerRefused = headerUsed[3:]

func parseHeader(doc string) (h header, ok bool) {
	v, err := strictjson.Parse(doc, jsonLimits)
	if err != nil || v.Kind != strictjson.Object || variants(v, headerUsed) {
		return h, false
	}
	for _, name := range headerRefused {
		if v.Get(name) != nil {
			return h, false
		}
	}
	var okAlg, okKID, okTyp bool
	h.alg, okAlg = text(v, "alg", 16, printable)
	h.kid, okKID = text(v, "kid", KIDBytesMax, printable)
	h.typ, okTyp = text(v, "typ", 64, printable)
	return h, okAlg && okKID && okTyp && h.alg != "" && h.kid != ""
}

// typed tells whether typ says "access token" (RFC 9068 §4, where the media
// type's prefix may be left out and case does not count).
func (i *Issuer) typed(typ string) bool {
	if len(typ) > len("application/") && strings.EqualFold(typ[:len("application/")], "application/") {
		typ = typ[len("application/"):]
	}
	return strings.EqualFold(typ, "at+jwt") || i.TypOptional && (typ == "" || strings.EqualFold(typ, "jwt"))
}

func variants(v *strictjson.Value, names []string) bool {
	for _, n := range names {
		if v.Variant(n) {
			return true
		}
	}
	return false
}

// text reads a string member of at most max bytes that looks right; "" when it
// is absent. ok is false when it is there and anything else.
func text(v *strictjson.Value, name string, max int, right func(string, int) bool) (s string, ok bool) {
	m := v.Get(name)
	if m == nil {
		return "", true
	}
	if m.Kind != strictjson.String || !right(m.Text, max) {
		return "", false
	}
	return m.Text, true
}
