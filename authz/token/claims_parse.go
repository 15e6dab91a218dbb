package token

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dspgate/dspgate/authz/token/internal/strictjson"
	"github.com/dspgate/dspgate/registry"
)

// Bounds on single claims, in bytes.
const (
	nameBytesMax  = 256  // client_id, jti, sub, an extra claim
	scopeBytesMax = 2048 // the whole list
	audsMax       = 32   // members of aud
)

// standardClaims are read from every issuer's tokens, under these names.
var standardClaims = []string{"iss", "aud", "exp", "iat", "nbf", "jti", "sub", "scope", "cnf", "azp", "software"}

// peekIssuer reads iss before anything else is looked at.
func peekIssuer(payload *strictjson.Value) (string, bool) {
	iss, ok := text(payload, "iss", 1024, plainText)
	return iss, ok && iss != ""
}

// claims reads a payload by this issuer's rules; ok is false when it is no token
// of the profile. audience tells whether aud names us. The claims hold copies:
// a few short fields would otherwise keep the whole payload.
func (i *Issuer) claims(v *strictjson.Value, kid string) (c *Claims, audience, ok bool) {
	if variants(v, i.used) {
		return nil, false, false
	}
	c = &Claims{Issuer: i.Issuer, KID: strings.Clone(kid)}
	good := true
	str := func(dst *string, name string, max int, right func(string, int) bool) {
		s, ok := text(v, name, max, right)
		*dst, good = strings.Clone(s), good && ok
	}
	abn := func(dst *registry.ABN, name string) {
		s, ok := text(v, name, 11, digits(11))
		if ok && s != "" {
			n, err := registry.ParseABN(s)
			*dst, ok = n, err == nil
		}
		good = good && ok
	}
	date := func(dst *registry.Time, name string, required bool) {
		m := v.Get(name)
		if m == nil {
			good = good && !required
			return
		}
		t, ok := numericDate(m)
		*dst, good = t, good && ok
	}

	// RFC 9068 requires jti and sub. Nothing here rests on either: a token without
	// a jti is denied by its key, or waits for its exp.
	str(&c.JTI, "jti", nameBytesMax, printable)
	str(&c.Subject, "sub", nameBytesMax, plainText)
	str(&c.ClientID, i.Names.ClientID, nameBytesMax, printable)
	if i.Names.ClientID == "client_id" {
		var azp string
		str(&azp, "azp", nameBytesMax, printable)
		if c.ClientID == "" {
			c.ClientID = azp
		}
		good = good && (azp == "" || azp == c.ClientID)
	}
	abn(&c.ABN, i.Names.ABN)
	abn(&c.ClientABN, i.Names.ClientABN)
	str(&c.SoftwareID, i.Names.SoftwareID, 10, digits(10))
	if software := v.Get("software"); software != nil {
		// The nested form is not the claim; where both are there and differ,
		// somebody reads the other one.
		if id := software.Get("id"); id != nil && v.Get(i.Names.SoftwareID) != nil {
			good = good && id.Kind == strictjson.String && id.Text == c.SoftwareID
		}
	}
	c.Scope, ok = scope(v)
	good = good && ok
	c.Thumbprint, ok = thumbprint(v)
	good = good && ok
	date(&c.Expires, "exp", true)
	date(&c.IssuedAt, "iat", true)
	date(&c.NotBefore, "nbf", false)
	for _, name := range i.Subjects {
		if v.Get(name) != nil {
			var x string
			str(&x, name, nameBytesMax, plainText)
			c.extra = append(c.extra, extraClaim{name, x})
		}
	}
	audience, ok = i.audience(v.Get("aud"))
	good = good && ok
	life := c.Expires - c.IssuedAt
	if !good || c.ClientID == "" || life <= 0 || life > registry.Time(i.MaxLifetime.Milliseconds()) {
		return nil, false, false
	}
	return c, audience, true
}

// audience tells whether aud, a string or an array of strings, names us.
func (i *Issuer) audience(aud *strictjson.Value) (match, ok bool) {
	if aud == nil {
		return false, true
	}
	if aud.Kind == strictjson.String {
		return slices.Contains(i.Audiences, aud.Text), true
	}
	if aud.Kind != strictjson.Array || len(aud.Items) > audsMax {
		return false, false
	}
	for k := range aud.Items {
		if aud.Items[k].Kind != strictjson.String {
			return false, false
		}
		match = match || slices.Contains(i.Audiences, aud.Items[k].Text)
	}
	return match, true
}

// scope is RFC 8693's: words of printable ASCII, one space between.
func scope(v *strictjson.Value) (string, bool) {
	m := v.Get("scope")
	if m == nil {
		return "", true
	}
	s := m.Text
	if m.Kind != strictjson.String || len(s) > scopeBytesMax {
		return "", false
	}
	if s != "" && (!printable(s, scopeBytesMax) || s[0] == ' ' || s[len(s)-1] == ' ' || strings.Contains(s, "  ")) {
		return "", false
	}
	return strings.Clone(s), true
}

// thumbprint is cnf.x5t#S256 (RFC 8705 §3.1). Any other confirmation (a DPoP
// key, say) refuses: a binding that nobody checks must not pass for none.
func thumbprint(v *strictjson.Value) (string, bool) {
	cnf := v.Get("cnf")
	if cnf == nil {
		return "", true
	}
	if cnf.Kind != strictjson.Object || len(cnf.Members) != 1 || cnf.Members[0].Name != "x5t#S256" {
		return "", false
	}
	x := &cnf.Members[0].Value
	if x.Kind != strictjson.String || len(x.Text) != 43 {
		return "", false
	}
	if _, ok := canonical(x.Text); !ok {
		return "", false
	}
	return strings.Clone(x.Text), true
}

// numericDate reads seconds since the epoch, whole or decimal, from 1970 to
// 9999, cut to milliseconds. A sign or an exponent refuses: issuers write
// neither, and readers disagree on them.
func numericDate(m *strictjson.Value) (registry.Time, bool) {
	if m.Kind != strictjson.Number {
		return 0, false
	}
	const year10000 = 253402300800
	whole, fraction, _ := strings.Cut(m.Text, ".")
	var ms int64
	for k := 0; k < len(whole); k++ {
		if whole[k] < '0' || whole[k] > '9' || k == 12 {
			return 0, false
		}
		ms = ms*10 + int64(whole[k]-'0')
	}
	if ms >= year10000 {
		return 0, false
	}
	for k := range 3 {
		ms *= 10
		if k < len(fraction) {
			ms += int64(fraction[k] - '0')
		}
	}
	for k := 0; k < len(fraction); k++ {
		if fraction[k] < '0' || fraction[k] > '9' {
			return 0, false
		}
	}
	return registry.Time(ms), ms > 0
}

// digits tells whether a string is exactly n digits.
func digits(n int) func(string, int) bool {
	return func(s string, _ int) bool {
		if len(s) != n {
			return false
		}
		for k := 0; k < len(s); k++ {
			if s[k] < '0' || s[k] > '9' {
				return false
			}
		}
		return true
	}
}

// plainText: 1 to max bytes of UTF-8 without control characters.
func plainText(s string, max int) bool {
	if s == "" || len(s) > max || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}
