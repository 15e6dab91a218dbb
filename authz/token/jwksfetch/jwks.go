package jwksfetch

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/MicahParks/jwkset"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/internal/strictjson"
)

// Bounds on a key set document.
const (
	DocumentBytesMax = 1 << 20
	keysMax          = 64
)

// ErrDocument wraps every reason to refuse a whole key set.
var ErrDocument = errors.New("key set refused")

// Parse reads a JWKS (RFC 7517) strictly and makes keys of its members, each
// pinned to one algorithm out of the issuer's. Members that cannot verify
// tokens are left out, and skipped says why, kid by kid: no kid, a key type or
// an algorithm the issuer does not use, use other than sig, key_ops without
// verify, a private or symmetric part, a coordinate or number not in its one
// canonical encoding, and all that token.NewKey refuses. Two different keys
// with one kid are both left out. A set without one usable key is ErrDocument.
//
// A key without alg is pinned to the one algorithm of the issuer's that fits it;
// where two fit (RS256 and PS256, say) it is left out.
func Parse(doc []byte, algorithms []string) (set *token.KeySet, skipped []error, err error) {
	if len(doc) > DocumentBytesMax {
		return nil, nil, fmt.Errorf("%w: above %d bytes", ErrDocument, DocumentBytesMax)
	}
	if err := token.CheckAlgorithms(algorithms); err != nil {
		return nil, nil, err
	}
	v, err := strictjson.Parse(string(doc), strictjson.Limits{Depth: 8, Values: 10000})
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	list := v.Get("keys")
	if list == nil || list.Kind != strictjson.Array {
		return nil, nil, fmt.Errorf(`%w: no array "keys"`, ErrDocument)
	}
	if len(list.Items) == 0 {
		return nil, nil, fmt.Errorf("%w: it is empty", ErrDocument)
	}
	if len(list.Items) > keysMax {
		return nil, nil, fmt.Errorf("%w: %d keys, more than %d", ErrDocument, len(list.Items), keysMax)
	}
	var keys []*token.Key
	count := map[string]int{} // also of those left out: a kid must be one key's
	for i := range list.Items {
		k, kid, err := parseKey(&list.Items[i], algorithms)
		count[kid]++
		if err != nil {
			skipped = append(skipped, fmt.Errorf("key %d (kid %.80q): %w", i, kid, err))
			continue
		}
		keys = append(keys, k)
	}
	keys = slices.DeleteFunc(keys, func(k *token.Key) bool {
		if count[k.ID()] == 1 {
			return false
		}
		skipped = append(skipped, fmt.Errorf("kid %.80q comes %d times", k.ID(), count[k.ID()]))
		return true
	})
	if len(keys) == 0 {
		return nil, skipped, fmt.Errorf("%w: no usable key among %d: %w", ErrDocument, len(list.Items), errors.Join(skipped...))
	}
	set, err = token.NewKeySet(keys...)
	return set, skipped, err
}

// secretMembers are the parts of private and symmetric keys: whoever publishes
// one has lost the key.
var secretMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// parseKey checks a JWK and lets jwkset build the key out of the members
// checked, and of none else: given the whole JWK it would, for one, fetch x5u.
func parseKey(v *strictjson.Value, algorithms []string) (key *token.Key, kid string, err error) {
	if v.Kind != strictjson.Object {
		return nil, "", errors.New("is no object")
	}
	var m jwkset.JWKMarshal
	for _, s := range []struct {
		name string
		dst  *string
	}{
		{"kid", &m.KID}, {"kty", (*string)(&m.KTY)}, {"alg", (*string)(&m.ALG)}, {"use", (*string)(&m.USE)},
		{"crv", (*string)(&m.CRV)}, {"x", &m.X}, {"y", &m.Y}, {"n", &m.N}, {"e", &m.E},
	} {
		if v.Variant(s.name) {
			return nil, m.KID, fmt.Errorf("a member imitates %s", s.name)
		}
		if x := v.Get(s.name); x != nil {
			if x.Kind != strictjson.String {
				return nil, m.KID, fmt.Errorf("%s is no string", s.name)
			}
			*s.dst = x.Text
		}
	}
	for _, name := range secretMembers {
		if v.Get(name) != nil {
			return nil, m.KID, fmt.Errorf("holds the secret part %s: the issuer must withdraw this key", name)
		}
	}
	if m.USE != "" && m.USE != jwkset.UseSig {
		return nil, m.KID, fmt.Errorf("use is %.20q, not sig", m.USE)
	}
	if err := checkOps(v.Get("key_ops")); err != nil {
		return nil, m.KID, err
	}
	candidates, err := fit(&m)
	if err != nil {
		return nil, m.KID, err
	}
	alg, err := pin(string(m.ALG), candidates, algorithms)
	if err != nil {
		return nil, m.KID, err
	}
	// The metadata is checked above; jwkset rebuilds the key from what it made
	// of it and compares.
	jwk, err := jwkset.NewJWKFromMarshal(jwkset.JWKMarshal{KTY: m.KTY, CRV: m.CRV, X: m.X, Y: m.Y, N: m.N, E: m.E},
		jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{StrictPadding: true})
	if err != nil {
		return nil, m.KID, err
	}
	key, err = token.NewKey(m.KID, alg, jwk.Key())
	return key, m.KID, err
}

func checkOps(ops *strictjson.Value) error {
	if ops == nil {
		return nil
	}
	verify := false
	for i := range ops.Items {
		verify = verify || ops.Items[i].Kind == strictjson.String && ops.Items[i].Text == "verify"
	}
	if !verify {
		return errors.New("key_ops does not list verify")
	}
	return nil
}

// fit checks that the key's numbers are canonical, as long as they must be, and
// gives the algorithms such a key could serve.
func fit(m *jwkset.JWKMarshal) ([]string, error) {
	fixed := func(name, s string, n int) error {
		b, err := base64.RawURLEncoding.Strict().DecodeString(s)
		if err != nil || len(b) != n || base64.RawURLEncoding.EncodeToString(b) != s {
			return fmt.Errorf("%s is not %d bytes of base64url", name, n)
		}
		return nil
	}
	switch m.KTY {
	case jwkset.KtyEC:
		curve, ok := map[jwkset.CRV]struct {
			alg   string
			bytes int
		}{jwkset.CrvP256: {"ES256", 32}, jwkset.CrvP384: {"ES384", 48}, jwkset.CrvP521: {"ES512", 66}}[m.CRV]
		if !ok {
			return nil, fmt.Errorf("curve %.20q is refused", m.CRV)
		}
		return []string{curve.alg}, errors.Join(fixed("x", m.X, curve.bytes), fixed("y", m.Y, curve.bytes))
	case jwkset.KtyOKP:
		if m.CRV != jwkset.CrvEd25519 {
			return nil, fmt.Errorf("curve %.20q is refused", m.CRV)
		}
		return []string{"EdDSA"}, fixed("x", m.X, 32)
	case jwkset.KtyRSA:
		for _, x := range []struct {
			name, s string
			bytes   int
		}{{"n", m.N, 8192 / 8}, {"e", m.E, 4}} {
			b, err := base64.RawURLEncoding.Strict().DecodeString(x.s)
			if err != nil || len(b) == 0 || len(b) > x.bytes || b[0] == 0 || base64.RawURLEncoding.EncodeToString(b) != x.s {
				return nil, fmt.Errorf("%s is no canonical number of at most %d bytes", x.name, x.bytes)
			}
			if x.name == "e" && new(big.Int).SetBytes(b).Int64() > 1<<31-1 {
				return nil, errors.New("e is above 2^31-1")
			}
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, nil
	}
	return nil, fmt.Errorf("key type %.20q is refused", m.KTY)
}

// pin chooses the one algorithm of a key.
func pin(alg string, candidates, issuers []string) (string, error) {
	var fitting []string
	for _, a := range candidates {
		if slices.Contains(issuers, a) && (alg == "" || alg == a) {
			fitting = append(fitting, a)
		}
	}
	switch {
	case len(fitting) == 1:
		return fitting[0], nil
	case alg == "" && len(fitting) > 1:
		return "", fmt.Errorf("has no alg, and %v fit it", fitting)
	case alg == "":
		return "", errors.New("none of the issuer's algorithms fits it")
	}
	return "", fmt.Errorf("alg %.20q does not fit the key, or is none of the issuer's", alg)
}
