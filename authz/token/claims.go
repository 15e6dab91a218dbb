package token

import (
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// Claims is what a verified token says. It is immutable, shared by all readers
// and independent of the bytes it was read from.
type Claims struct {
	Issuer     string       // iss, one of the configured issuers
	KID        string       // of the key that verified it
	JTI        string       // 1 to 256 printable ASCII characters; "" when absent
	Subject    string       // sub; "" when absent
	ClientID   string       // client_id, else azp; required
	ABN        registry.ABN // the holder of the credential; zero when absent
	SoftwareID string       // SSID, ten digits; "" when absent
	ClientABN  registry.ABN // on whose behalf; zero when absent
	Scope      string       // space-separated, see HasScope
	Thumbprint string       // cnf.x5t#S256: base64url, 43 characters; "" when the token is not bound

	IssuedAt, Expires registry.Time
	NotBefore         registry.Time // zero when absent

	extra []extraClaim
}

type extraClaim struct{ name, value string }

// Extra finds a further claim that the issuer's Subjects list names; ok is false
// when the token has none. It does not allocate.
func (c *Claims) Extra(name string) (value string, ok bool) {
	for i := range c.extra {
		if c.extra[i].name == name {
			return c.extra[i].value, true
		}
	}
	return "", false
}

// HasScope tells whether the token's scope lists a word, exactly. It does not
// allocate.
func (c *Claims) HasScope(word string) bool {
	for rest := c.Scope; rest != ""; {
		var w string
		w, rest, _ = strings.Cut(rest, " ")
		if w == word && w != "" {
			return true
		}
	}
	return false
}
