package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/issue"
)

// Each row is one token of the cases' J section, named by its ID.
func TestTokenCases(t *testing.T) {
	es, rs, ps, ed := generate(t, "es", "ES256"), generate(t, "rs", "RS256"), generate(t, "ps", "PS256"), generate(t, "ed", "EdDSA")
	es384 := generate(t, "es384", "ES384")
	set := setOf(t, es, rs, ps, ed, es384)
	enc := base64.RawURLEncoding.EncodeToString

	as := func(s *issue.Signer, alg string) *issue.Signer {
		return &issue.Signer{Key: s.Key, KID: s.KID, Alg: alg}
	}
	good := sign(t, es, nil, nil)
	part := strings.Split(good, ".")
	withHeader := func(name string, v any) string { return sign(t, es, map[string]any{name: v}, nil) }
	withClaim := func(name string, v any) string { return sign(t, es, nil, map[string]any{name: v}) }
	rawHeader := func(h string) string {
		c, _ := json.Marshal(claims(nil))
		raw, err := es.SignRaw([]byte(h), c)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	rawClaims := func(over map[string]any, extra string) string {
		c, _ := json.Marshal(claims(over))
		raw, err := es.SignRaw([]byte(`{"alg":"ES256","kid":"es","typ":"at+jwt"}`), []byte(string(c[:len(c)-1])+extra+"}"))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	signature := func(edit func(r, s *big.Int) []byte) string {
		sig, _ := base64.RawURLEncoding.DecodeString(part[2])
		return part[0] + "." + part[1] + "." + enc(edit(new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])))
	}
	fixed := func(r, s *big.Int) []byte {
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	n := es.Key.Public().(*ecdsa.PublicKey).Params().N
	// A last character that holds unused bits, with one of them set.
	bits := func(seg string) string {
		const a = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		if len(seg)%4 == 0 {
			t.Fatalf("segment of %d has no unused bits", len(seg))
		}
		i := strings.IndexByte(a, seg[len(seg)-1])
		return seg[:len(seg)-1] + string(a[i|1])
	}
	padded := func(target int) string { // target bytes, or one more
		pad := (target-len(good))*3/4 - 16
		for {
			raw := withClaim("pad", strings.Repeat("x", pad))
			if len(raw) >= target {
				return raw
			}
			pad++
		}
	}
	secs := func(d time.Duration) float64 { return float64(at.Add(d).UnixMilli()) / 1000 }
	dup := func(extra string) string { return rawClaims(nil, extra) }

	rows := []struct {
		id, what, raw string
		want          token.Failure
	}{
		{"J00", "a good token", good, token.None},
		{"J00", "typ in capitals", withHeader("typ", "AT+JWT"), token.None},
		{"J00", "typ with its prefix", withHeader("typ", "application/at+jwt"), token.None},
		{"J00", "typ JWT", withHeader("typ", "JWT"), token.Malformed},
		{"J00", "no typ", withHeader("typ", nil), token.Malformed},
		{"J00", "typ of an ID token", withHeader("typ", "id_token+jwt"), token.Malformed},
		{"J00", "typ a number", withHeader("typ", 1), token.Malformed},
		{"J00", "empty", "", token.Malformed},
		{"J00", "another issuer", withClaim("iss", "https://evil.example"), token.IssuerUnknown},
		{"J00", "issuer with a slash more", withClaim("iss", issuerURL+"/"), token.IssuerUnknown},
		{"J00", "no issuer", withClaim("iss", nil), token.Malformed},
		{"J00", "issuer in an array", withClaim("iss", []string{issuerURL}), token.Malformed},

		{"J01", "alg none, signed", withHeader("alg", "none"), token.SignatureInvalid},
		{"J01", "alg none, no signature", unsigned(withHeader("alg", "none")), token.SignatureInvalid},
		{"J01", "alg NONE, no signature", unsigned(withHeader("alg", "NONE")), token.SignatureInvalid},
		{"J01", "no alg, no signature", unsigned(withHeader("alg", nil)), token.Malformed},
		{"J01", "alg None", withHeader("alg", "None"), token.SignatureInvalid},
		{"J01", "alg NONE", withHeader("alg", "NONE"), token.SignatureInvalid},
		{"J01", "alg empty", withHeader("alg", ""), token.Malformed},
		{"J01", "alg missing", withHeader("alg", nil), token.Malformed},
		{"J01", "alg a number", withHeader("alg", 256), token.Malformed},
		{"J01", "alg an array", withHeader("alg", []string{"ES256"}), token.Malformed},
		{"J01", "alg null", rawHeader(`{"alg":null,"kid":"es","typ":"at+jwt"}`), token.Malformed},
		{"J01", "no signature", part[0] + "." + part[1] + ".", token.SignatureInvalid},
		{"J01", "alg lower case", withHeader("alg", "es256"), token.SignatureInvalid},

		{"J03", "RS256 on a key pinned to PS256", sign(t, as(ps, "RS256"), nil, nil), token.SignatureInvalid},
		{"J03", "PS256 on a key pinned to RS256", sign(t, as(rs, "PS256"), nil, nil), token.SignatureInvalid},
		{"J03", "RS384 on a key pinned to RS256", sign(t, as(rs, "RS384"), nil, nil), token.SignatureInvalid},
		{"J03", "ES256 named, P-384 key", sign(t, es384, map[string]any{"alg": "ES256"}, nil), token.SignatureInvalid},
		{"J03", "ES256K", withHeader("alg", "ES256K"), token.SignatureInvalid},
		{"J03", "EdDSA named, EC key", withHeader("alg", "EdDSA"), token.SignatureInvalid},
		{"J03", "ES256 named, Ed25519 key", sign(t, ed, map[string]any{"alg": "ES256"}, nil), token.SignatureInvalid},
		{"J03", "HS256 named, RSA key", sign(t, rs, map[string]any{"alg": "HS256"}, nil), token.SignatureInvalid},
		{"J03", "PS256 with a salt of another length", oddSalt(t, ps), token.SignatureInvalid},
		{"J03", "another key's kid", withHeader("kid", "es384"), token.SignatureInvalid},

		{"J05", "kid a path", withHeader("kid", "../../dev/null"), token.SignatureInvalid},
		{"J05", "kid SQL", withHeader("kid", "' OR 1=1"), token.SignatureInvalid},
		{"J05", "kid 6 KB", withHeader("kid", strings.Repeat("k", 4000)), token.Malformed},
		{"J05", "kid 64 KB", withHeader("kid", strings.Repeat("k", 64<<10)), token.Malformed},
		{"J05", "kid 257 bytes", withHeader("kid", strings.Repeat("k", 257)), token.Malformed},
		{"J05", "kid NUL", withHeader("kid", "es\x00"), token.Malformed},
		{"J05", "kid CRLF", withHeader("kid", "es\r\nx: y"), token.Malformed},
		{"J05", "kid an array", withHeader("kid", []string{"es"}), token.Malformed},
		{"J05", "kid a number", withHeader("kid", 1), token.Malformed},
		{"J05", "kid missing", withHeader("kid", nil), token.Malformed},
		{"J05", "kid empty", withHeader("kid", ""), token.Malformed},
		{"J05", "two kid members", rawHeader(`{"alg":"ES256","kid":"es","kid":"rs","typ":"at+jwt"}`), token.Malformed},
		{"J05", "kid unknown", withHeader("kid", "nobody"), token.SignatureInvalid},
		{"J05", "jwk in the header", withHeader("jwk", map[string]any{"kty": "EC"}), token.Malformed},
		{"J05", "jku in the header", withHeader("jku", "https://evil.example/jwks"), token.Malformed},
		{"J05", "x5u in the header", withHeader("x5u", "https://evil.example/c"), token.Malformed},
		{"J05", "x5c in the header", withHeader("x5c", []string{"MII"}), token.Malformed},
		{"J05", "crit", withHeader("crit", []string{"exp"}), token.Malformed},
		{"J05", "crit empty", withHeader("crit", []string{}), token.Malformed},
		{"J05", "zip", withHeader("zip", "DEF"), token.Malformed},
		{"J05", "enc", withHeader("enc", "A256GCM"), token.Malformed},

		{"J07", "two alg", rawHeader(`{"alg":"ES256","alg":"none","kid":"es","typ":"at+jwt"}`), token.Malformed},
		{"J07", "ALG beside alg", rawHeader(`{"alg":"ES256","ALG":"none","kid":"es","typ":"at+jwt"}`), token.Malformed},
		{"J07", "Kid instead of kid", rawHeader(`{"alg":"ES256","Kid":"es","typ":"at+jwt"}`), token.Malformed},
		{"J07", "Crit", withHeader("Crit", []string{"b64"}), token.Malformed},
		{"J07", "two sub", dup(`,"sub":"other"`), token.Malformed},
		{"J07", "two exp", dup(`,"exp":9999999999`), token.Malformed},
		{"J07", "two product_id", dup(`,"product_id":"FP-1001","product_id":"FP-1003"`), token.Malformed},
		{"J07", "Exp beside exp", dup(`,"Exp":9999999999`), token.Malformed},
		{"J07", "AUD instead of aud", rawClaims(map[string]any{"aud": nil}, `,"AUD":"`+audience+`"`), token.Malformed},
		{"J07", "escaped exp", dup(`,"\u0065xp":9999999999`), token.Malformed},
		{"J07", "duplicate in a nested object", dup(`,"x":{"y":{"z":1,"z":2}}`), token.Malformed},
		{"J07", "case variant of a subject claim", dup(`,"Member_ID":"M-1"`), token.Malformed},
		{"J07", "Unicode case variant", dup(`,"ſub":"x"`), token.Malformed},
		{"J07", "invalid UTF-8", dup(",\"x\":\"\xff\""), token.Malformed},
		{"J07", "lone surrogate", dup(`,"x":"\ud800"`), token.Malformed},
		{"J07", "nested 9 deep", dup(`,"x":` + strings.Repeat("[", 8) + strings.Repeat("]", 8)), token.Malformed},
		{"J07", "too many values", dup(`,"x":[` + strings.Repeat("0,", 300) + `0]`), token.Malformed},

		{"J09", "nbf 29 s ahead", withClaim("nbf", secs(29*time.Second)), token.None},
		{"J09", "nbf 30 s ahead", withClaim("nbf", secs(30*time.Second)), token.None},
		{"J09", "nbf 30 s and 1 ms ahead", withClaim("nbf", secs(30*time.Second+time.Millisecond)), token.NotYetValid},
		{"J09", "nbf 31 s ahead", withClaim("nbf", secs(31*time.Second)), token.NotYetValid},
		{"J09", "iat 29 s ahead", withClaim("iat", secs(29*time.Second)), token.None},
		{"J09", "iat 30 s ahead", withClaim("iat", secs(30*time.Second)), token.None},
		{"J09", "iat 31 s ahead", withClaim("iat", secs(31*time.Second)), token.NotYetValid},
		{"J09", "iat missing", withClaim("iat", nil), token.Malformed},
		{"J09", "iat a day and a second before exp", withClaim("iat", at.Unix()+240-86401), token.Malformed},
		{"J09", "iat a day before exp", withClaim("iat", at.Unix()+240-86400), token.None},
		{"J09", "exp before iat", withClaim("exp", at.Unix()-61), token.Malformed},
		{"J09", "exp now", withClaim("exp", secs(0)), token.Expired},
		{"J09", "exp in 1 ms", withClaim("exp", secs(time.Millisecond)), token.None},
		{"J09", "exp missing", withClaim("exp", nil), token.Malformed},
		{"J09", "exp a string", withClaim("exp", "9999999999"), token.Malformed},
		{"J09", "exp null", rawClaims(map[string]any{"exp": nil}, `,"exp":null`), token.Malformed},
		{"J09", "exp with an exponent", rawClaims(map[string]any{"exp": nil}, `,"exp":1e10`), token.Malformed},
		{"J09", "exp beyond every range", rawClaims(map[string]any{"exp": nil}, `,"exp":99999999999999999999999`), token.Malformed},
		{"J09", "exp 1e400", rawClaims(map[string]any{"exp": nil}, `,"exp":1e400`), token.Malformed},
		{"J09", "iat negative", withClaim("iat", -1), token.Malformed},
		{"J09", "iat zero", withClaim("iat", 0), token.Malformed},

		{"J11", "aud missing", withClaim("aud", nil), token.AudienceMismatch},
		{"J11", "aud a string", withClaim("aud", "urn:dspgate"), token.None},
		{"J11", "aud an array of one", withClaim("aud", []string{audience}), token.None},
		{"J11", "aud an array with extra", withClaim("aud", []string{"https://other.example", audience}), token.None},
		{"J11", "aud an array of others", withClaim("aud", []string{"https://other.example"}), token.AudienceMismatch},
		{"J11", "aud empty array", withClaim("aud", []string{}), token.AudienceMismatch},
		{"J11", "aud nested", withClaim("aud", []any{[]string{audience}}), token.Malformed},
		{"J11", "aud an object", withClaim("aud", map[string]any{"0": audience}), token.Malformed},
		{"J11", "aud a prefix of ours", withClaim("aud", audience[:len(audience)-1]), token.AudienceMismatch},
		{"J11", "aud ours and more", withClaim("aud", audience+".evil.example"), token.AudienceMismatch},
		{"J11", "aud in other case", withClaim("aud", strings.ToUpper(audience)), token.AudienceMismatch},
		{"J11", "aud *", withClaim("aud", "*"), token.AudienceMismatch},
		{"J11", "aud a list in a string", withClaim("aud", audience+" urn:dspgate"), token.AudienceMismatch},
		{"J11", "aud with a number", withClaim("aud", []any{audience, 1}), token.Malformed},

		{"J13", "flattened JSON serialization", `{"payload":"` + part[1] + `","protected":"` + part[0] + `","signature":"` + part[2] + `"}`, token.Malformed},
		{"J13", "general JSON serialization", `{"payload":"` + part[1] + `","signatures":[{"protected":"` + part[0] + `","signature":"` + part[2] + `"}]}`, token.Malformed},
		{"J13", "two signatures", `{"payload":"` + part[1] + `","signatures":[{"protected":"` + part[0] + `","signature":"` + part[2] + `"},{"protected":"` + part[0] + `","signature":"` + part[2] + `"}]}`, token.Malformed},
		{"J13", "detached", part[0] + ".." + part[2], token.Malformed},
		{"J13", "unencoded payload", withHeader("b64", false), token.Malformed},
		{"J13", "five segments", good + "." + part[1] + "." + part[2], token.Malformed},
		{"J13", "four segments", good + ".", token.Malformed},
		{"J13", "two segments", part[0] + "." + part[1], token.Malformed},
		{"J13", "a token in a token", mustRaw(t, es, good), token.Malformed},
		{"J13", "payload an array", mustRaw(t, es, `["exp"]`), token.Malformed},

		{"J15", "padding", part[0] + "." + part[1] + "." + part[2] + "==", token.Malformed},
		{"J15", "standard alphabet", part[0] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(enc([]byte("??>>~~"))) + "." + part[2], token.Malformed},
		{"J15", "space at the end", good + " ", token.Malformed},
		{"J15", "space before", " " + good, token.Malformed},
		{"J15", "line end in the signature", good[:len(good)-4] + "\n" + good[len(good)-4:], token.Malformed},
		{"J15", "CRLF in the header", part[0][:4] + "\r\n" + part[0][4:] + "." + part[1] + "." + part[2], token.Malformed},
		{"J15", "unused bits of the signature", part[0] + "." + part[1] + "." + bits(part[2]), token.Malformed},
		{"J15", "unused bits of the header", unaligned(t, es, bits), token.Malformed},
		{"J15", "NUL at the end", good + "\x00", token.Malformed},

		{"J17", "8 KiB, or two bytes less", padded(token.TokenBytesMax - 2), token.None},
		{"J17", "16 KB", padded(16 << 10), token.Malformed},
		{"J17", "33 KB", padded(33 << 10), token.Malformed},
		{"J17", "70 KB", padded(70 << 10), token.Malformed},
		{"J17", "8 KiB and one byte of dots", strings.Repeat(".", token.TokenBytesMax+1), token.Malformed},

		{"J19", "r = 0", signature(func(r, s *big.Int) []byte { return fixed(new(big.Int), s) }), token.SignatureInvalid},
		{"J19", "s = 0", signature(func(r, s *big.Int) []byte { return fixed(r, new(big.Int)) }), token.SignatureInvalid},
		{"J19", "r = s = 0", signature(func(r, s *big.Int) []byte { return make([]byte, 64) }), token.SignatureInvalid},
		{"J19", "r = n", signature(func(r, s *big.Int) []byte { return fixed(n, s) }), token.SignatureInvalid},
		{"J19", "s = n", signature(func(r, s *big.Int) []byte { return fixed(r, n) }), token.SignatureInvalid},
		{"J19", "DER", signature(func(r, s *big.Int) []byte { b, _ := asn1.Marshal([]*big.Int{r, s}); return b }), token.SignatureInvalid},
		{"J19", "a zero byte in front", signature(func(r, s *big.Int) []byte { return append([]byte{0}, fixed(r, s)...) }), token.SignatureInvalid},
		{"J19", "cut short", signature(func(r, s *big.Int) []byte { return fixed(r, s)[:63] }), token.SignatureInvalid},
		{"J19", "one bit off", signature(func(r, s *big.Int) []byte { b := fixed(r, s); b[40] ^= 1; return b }), token.SignatureInvalid},

		{"J27", "nested software.id alone is not the claim", rawClaims(map[string]any{"software_id": nil}, `,"software":{"id":"0000123400"}`), token.None},
		{"J27", "nested and flat agree", dup(`,"software":{"id":"0000123400"}`), token.None},
		{"J27", "nested and flat differ", dup(`,"software":{"id":"0000300001"}`), token.Malformed},
		{"J27", "nested is a number", dup(`,"software":{"id":123400}`), token.Malformed},
		{"J27", "software_id a number", withClaim("software_id", 1234567890), token.Malformed},
		{"J27", "software_id of 9 digits", withClaim("software_id", "000012340"), token.Malformed},
		{"J27", "software_id with a letter", withClaim("software_id", "000012340x"), token.Malformed},
		{"J27", "azp and client_id differ", withClaim("azp", "fp-1003-prod"), token.Malformed},
		{"J27", "azp alone", rawClaims(map[string]any{"client_id": nil}, `,"azp":"fp-1001-prod"`), token.None},
		{"J27", "neither azp nor client_id", withClaim("client_id", nil), token.Malformed},
		{"J27", "abn with a wrong digit", withClaim("abn", "65000000102"), token.Malformed},
		{"J27", "abn with spaces", withClaim("abn", "65 000 000 101"), token.Malformed},
		{"J27", "abn a number", withClaim("abn", 65000000101), token.Malformed},
		{"J27", "client_abn with a wrong digit", withClaim("client_abn", "56000001314"), token.Malformed},
		{"J27", "jti missing", withClaim("jti", nil), token.None},
		{"J27", "sub missing", withClaim("sub", nil), token.None},
		{"J27", "jti empty", withClaim("jti", ""), token.Malformed},
		{"J27", "jti a number", withClaim("jti", 7), token.Malformed},
		{"J27", "jti null", rawClaims(map[string]any{"jti": nil}, `,"jti":null`), token.Malformed},
		{"J27", "jti too long", withClaim("jti", strings.Repeat("j", 257)), token.Malformed},
		{"J27", "sub empty", withClaim("sub", ""), token.Malformed},
		{"J27", "sub an array", withClaim("sub", []string{"x"}), token.Malformed},
		{"J27", "jti with a control character", withClaim("jti", "a\nb"), token.Malformed},
		{"J27", "scope an array", withClaim("scope", []string{"lodge"}), token.Malformed},
		{"J27", "scope with a line end", withClaim("scope", "lodge\nread"), token.Malformed},
		{"J27", "subject claim a number", withClaim("member_id", 7), token.Malformed},
		{"J27", "cnf a string", withClaim("cnf", "x"), token.Malformed},
		{"J27", "cnf of a kind nobody checks", withClaim("cnf", map[string]any{"jkt": "x"}), token.Malformed},
		{"J27", "cnf empty", withClaim("cnf", map[string]any{}), token.Malformed},
		{"J27", "thumbprint of another length", withClaim("cnf", map[string]any{"x5t#S256": "abc"}), token.Malformed},
		{"J27", "thumbprint with unused bits", withClaim("cnf", map[string]any{"x5t#S256": strings.Repeat("A", 42) + "B"}), token.Malformed},
	}
	v := verifier(t, config(set))
	for _, r := range rows {
		t.Run(r.id+" "+r.what, func(t *testing.T) {
			for _, from := range []string{"first", "again"} { // again: from the caches
				c, fail := v.Verify(r.raw, peer, at)
				if fail != r.want || (c == nil) != (fail != token.None) {
					t.Errorf("%s: %v, %v, want %v\n%.600s", from, c, fail, r.want, r.raw)
				}
			}
		})
	}
}

// J19: the twin of a signature (r, n−s) verifies too. It is a token of its own
// in the cache, and says the same kid and jti, on which deny lists act.
func TestTokenCaseJ19TwinSaysTheSame(t *testing.T) {
	s := generate(t, "es", "ES256")
	v := verifier(t, config(setOf(t, s)))
	raw := sign(t, s, nil, nil)
	dot := strings.LastIndexByte(raw, '.')
	sig, _ := base64.RawURLEncoding.DecodeString(raw[dot+1:])
	n := s.Key.Public().(*ecdsa.PublicKey).Params().N
	twin := new(big.Int).Sub(n, new(big.Int).SetBytes(sig[32:]))
	twin.FillBytes(sig[32:])
	a, fail := v.Verify(raw, peer, at)
	b, failTwin := v.Verify(raw[:dot+1]+base64.RawURLEncoding.EncodeToString(sig), peer, at)
	if fail != token.None || failTwin != token.None || a.JTI != b.JTI || a.KID != b.KID || a.Issuer != b.Issuer {
		t.Errorf("%v %v, twin %v %v", a, fail, b, failTwin)
	}
	if got := v.Stats().Signatures; got != 2 {
		t.Errorf("%d signatures computed, want 2: the twin was taken for the token", got)
	}
}

func mustRaw(t *testing.T, s *issue.Signer, payload string) string {
	t.Helper()
	raw, err := s.SignRaw([]byte(`{"alg":"ES256","kid":"es","typ":"at+jwt","cty":"JWT"}`), []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// oddSalt is a good token but for the salt of its PSS signature: 20 bytes, not 32.
func oddSalt(t *testing.T, s *issue.Signer) string {
	t.Helper()
	input := strings.TrimSuffix(unsigned(sign(t, s, nil, nil)), ".")
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPSS(rand.Reader, s.Key.(*rsa.PrivateKey), crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: 20})
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// unsigned cuts the signature off.
func unsigned(raw string) string { return raw[:strings.LastIndexByte(raw, '.')+1] }

// unaligned is a good token whose header leaves unused bits in its last
// character, with some of them set.
func unaligned(t *testing.T, s *issue.Signer, set func(string) string) string {
	t.Helper()
	for i := range 3 {
		raw := sign(t, s, map[string]any{"x": strings.Repeat("x", i)}, nil)
		if h, rest, _ := strings.Cut(raw, "."); len(h)%4 != 0 {
			return set(h) + "." + rest
		}
	}
	t.Fatal("no header leaves unused bits")
	return ""
}
