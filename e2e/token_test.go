package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/token/issue"
)

const (
	receipt = "/lodgments/v1/receipts/R-1"        // risk 1, also while suspended
	lookup  = "/registry/v1/abns/56000001313"     // risk 1
	payroll = "/lodgments/v1/payroll-events"      // risk 2
	clients = "/agents/v1/clients"                // risk 3
	prefill = "/individuals/v1/220115957/prefill" // risk 4, a TFN in its path
	tfn     = "220115957"                         // one of those published for testing
	lodge   = "/lodgments/v1/activity-statements" // risk 2
	verify  = "/super/v1/member-verifications"    // risk 4
	evte    = "evte.localhost"                    // host of the test environment
	kooka   = "FP-1003"                           // the product of stack.claims
	b64     = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	forever = 9999999999
)

// refusals remembers each code's body, so that one which varies is found out.
var refusals sync.Map

// mustRefuse holds a refusal against O5 and the contract: the code and its
// status, one error in the list, an ID to ask about it, and a body that is the
// same for everybody: nothing of the token can be in it.
func mustRefuse(t testing.TB, r reply, code string) {
	t.Helper()
	if r.err != nil || r.code() != code {
		t.Fatalf("got %v, want a refusal %s", r, code)
	}
	reason, ok := authz.ParseReason(code)
	if !ok || r.status != reason.Status() {
		t.Errorf("%s with status %d, want %d", code, r.status, reason.Status())
	}
	var p struct {
		Type, Title, Detail, Instance string
		Status                        int
		Errors                        []struct{ ID, Code, Detail string }
	}
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	if len(p.Errors) != 1 || len(p.Errors[0].ID) != 26 || p.Instance != "/decisions/"+p.Errors[0].ID ||
		p.Status != r.status || !strings.HasSuffix(p.Type, "/problems/"+code) || p.Title == "" || p.Detail == "" {
		t.Fatalf("the body is not the contract's: %s", r.body)
	}
	masked := strings.ReplaceAll(string(r.body), p.Errors[0].ID, "ID")
	if before, loaded := refusals.LoadOrStore(code, masked); loaded && before != masked {
		t.Errorf("O5: a refusal %s says\n%s\nand said before\n%s", code, masked, before)
	}
	if r.header.Get("X-Request-Id") == "" || r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("header of the refusal: %v", r.header)
	}
	if r.status == 401 && !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer") {
		t.Errorf("401 with WWW-Authenticate %q", r.header.Get("WWW-Authenticate"))
	}
	if after := r.header.Get("Retry-After"); (r.status == 429 || r.status == 503) && after == "" {
		t.Errorf("%d without Retry-After", r.status)
	}
	for name, values := range r.header {
		if strings.HasPrefix(strings.ToLower(name), "x-dsp-") {
			t.Errorf("a refusal tells %s: %v", name, values)
		}
	}
}

// mustAdmit holds an answer of the sample upstream against O2 and O4.
func mustAdmit(t testing.TB, r reply, path, product string) {
	t.Helper()
	var told map[string]string
	if r.err != nil || r.status != 200 || json.Unmarshal(r.body, &told) != nil {
		t.Fatalf("got %v, want it admitted", r)
	}
	if told["path"] != path {
		t.Errorf("O4: the upstream saw %q, sent was %q", told["path"], path)
	}
	if told["x-dsp-product-id"] != product || len(told["x-dsp-decision-id"]) != 26 {
		t.Errorf("O2: the upstream was told %v, want product %s", told, product)
	}
	if r.header.Get("X-Request-Id") == "" {
		t.Error("no x-request-id")
	}
}

// key is the demo issuer's signer for an algorithm.
func (s *stack) key(t testing.TB, alg string) *issue.Signer {
	t.Helper()
	k, err := issue.Load(filepath.Join(s.dir, "issuer", alg+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// minter makes the tokens of the J rows.
type minter struct {
	t testing.TB
	s *stack
	k *issue.Signer
}

func (m minter) sign(header, over map[string]any) string {
	m.t.Helper()
	raw, err := m.k.Sign(header, m.s.claims(func(c map[string]any) {
		maps.Copy(c, over)
		for k, v := range c {
			if v == nil {
				delete(c, k)
			}
		}
	}))
	if err != nil {
		m.t.Fatal(err)
	}
	return raw
}

func (m minter) header(name string, v any) string { return m.sign(map[string]any{name: v}, nil) }
func (m minter) claim(name string, v any) string  { return m.sign(nil, map[string]any{name: v}) }

// rawHeader signs a header written by hand.
func (m minter) rawHeader(h string) string {
	m.t.Helper()
	c, err := json.Marshal(m.s.claims(nil))
	if err != nil {
		m.t.Fatal(err)
	}
	return m.raw(h, string(c))
}

// more signs good claims, but for those over, with members written by hand at
// their end.
func (m minter) more(over map[string]any, members string) string {
	m.t.Helper()
	c := m.s.claims(nil)
	for k, v := range over {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	b, err := json.Marshal(c)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.raw(`{"alg":"ES256","kid":"`+m.k.KID+`","typ":"at+jwt"}`, strings.TrimSuffix(string(b), "}")+members+"}")
}

func (m minter) raw(header, payload string) string {
	m.t.Helper()
	raw, err := m.k.SignRaw([]byte(header), []byte(payload))
	if err != nil {
		m.t.Fatal(err)
	}
	return raw
}

// as signs with the same key by another algorithm.
func (m minter) as(alg string) minter {
	return minter{m.t, m.s, &issue.Signer{Key: m.k.Key, KID: m.k.KID, Alg: alg}}
}

// padded is a good token of n bytes, or one or two less.
func (m minter) padded(n int) string {
	m.t.Helper()
	for pad := n/2 + n/4; pad > 0; pad-- {
		if 3*n/4-pad > 800 { // a good token's other claims take less
			break
		}
		if raw := m.claim("pad", strings.Repeat("x", pad)); len(raw) <= n {
			return raw
		}
	}
	m.t.Fatalf("no token of %d bytes", n)
	return ""
}

func enc(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// signature replaces a token's signature.
func signature(t testing.TB, raw string, edit func([]byte) []byte) string {
	t.Helper()
	dot := strings.LastIndexByte(raw, '.')
	sig, err := base64.RawURLEncoding.DecodeString(raw[dot+1:])
	if err != nil {
		t.Fatal(err)
	}
	return raw[:dot+1] + enc(edit(sig))
}

// unsigned cuts a token's signature off.
func unsigned(raw string) string { return raw[:strings.LastIndexByte(raw, '.')+1] }

// unusedBits sets bits of a segment's last character that decode to nothing.
func unusedBits(t testing.TB, segment string) string {
	t.Helper()
	if len(segment)%4 == 0 {
		t.Fatalf("a segment of %d characters has no unused bits", len(segment))
	}
	i := strings.IndexByte(b64, segment[len(segment)-1])
	return segment[:len(segment)-1] + string(b64[i|1])
}

// hmacToken signs with HS256 under a public thing, as one who hopes that the
// algorithm is taken from the token would.
func (m minter) hmacToken(secret []byte) string {
	input := strings.TrimSuffix(unsigned(m.header("alg", "HS256")), ".")
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input)) //nolint:errcheck // a hash does not fail
	return input + "." + enc(mac.Sum(nil))
}

// jRow is one token and what becomes of a call with it. Codes are the
// contract's; "ok" is admitted, "431" is Envoy's refusal of the header's size.
type jRow struct{ id, what, raw, want string }

// The J cases: what a token may be, through the real listener.
func TestTokenCases(t *testing.T) {
	s := sharedStack(t)
	for _, r := range tokenRows(t, s) {
		t.Run(r.id+" "+r.what, func(t *testing.T) {
			o := s.watch(t)
			for _, from := range []string{"first", "again"} { // again: from the caches
				got := s.ask(t, "GET", receipt, r.raw, nil)
				switch r.want {
				case "ok":
					mustAdmit(t, got, receipt, kooka)
				case "431":
					if got.err != nil || got.status != 431 || got.header.Get("X-Request-Id") == "" || got.code() == "" {
						t.Errorf("%s: %v %v, want 431 in the contract's body", from, got, got.header)
					}
				default:
					mustRefuse(t, got, r.want)
				}
			}
			if r.want == "ok" {
				o.check(2, kooka)
			} else {
				o.check(0, "")
			}
		})
	}
}

func tokenRows(t *testing.T, s *stack) []jRow {
	const (
		malformed = "token-malformed"
		badSig    = "token-signature-invalid"
	)
	es, rs, ps, ed := minter{t, s, s.key(t, "ES256")}, minter{t, s, s.key(t, "RS256")}, minter{t, s, s.key(t, "PS256")}, minter{t, s, s.key(t, "EdDSA")}
	good := es.sign(nil, nil)
	part := strings.Split(good, ".")
	now := time.Now().Unix()
	kid := es.k.KID
	stranger, err := issue.Generate(kid, "ES256")
	if err != nil {
		t.Fatal(err)
	}
	forged := minter{t, s, stranger}
	es384, err := issue.Generate(kid, "ES384")
	if err != nil {
		t.Fatal(err)
	}
	jwks := s.askVia(t, http.DefaultClient, s.info.Issuer, "GET", "/jwks.json", "", nil)
	spki, err := x509.MarshalPKIXPublicKey(rs.k.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	rsv := func(edit func(r, v *big.Int) []byte) string {
		return signature(t, good, func(b []byte) []byte {
			return edit(new(big.Int).SetBytes(b[:32]), new(big.Int).SetBytes(b[32:]))
		})
	}
	fixed := func(r, v *big.Int) []byte {
		return append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)
	}
	dup := func(members string) string { return es.more(nil, members) }
	point, err := stranger.Key.Public().(*ecdsa.PublicKey).Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	ownJWK := map[string]any{
		"kty": "EC", "crv": "P-256",
		"x": enc(point[1:33]),
		"y": enc(point[33:]),
	}

	return []jRow{
		{"J00", "a good token", good, "ok"},
		{"J00", "signed with RS256", rs.sign(nil, nil), "ok"},
		{"J00", "signed with PS256", ps.sign(nil, nil), "ok"},
		{"J00", "signed with EdDSA", ed.sign(nil, nil), "ok"},

		{"J01", "alg none, with a signature", es.header("alg", "none"), badSig},
		{"J01", "alg none, without", unsigned(es.header("alg", "none")), badSig},
		{"J01", "alg None", unsigned(es.header("alg", "None")), badSig},
		{"J01", "alg NONE", unsigned(es.header("alg", "NONE")), badSig},
		{"J01", "alg nOnE with a signature", es.header("alg", "nOnE"), badSig},
		{"J01", "alg empty", es.header("alg", ""), malformed},
		{"J01", "alg empty, no signature", unsigned(es.header("alg", "")), malformed},
		{"J01", "alg missing", es.header("alg", nil), malformed},
		{"J01", "alg missing, no signature", unsigned(es.header("alg", nil)), malformed},
		{"J01", "alg a number", es.header("alg", 0), malformed},
		{"J01", "alg an array", es.header("alg", []string{"ES256"}), malformed},
		{"J01", "alg null", es.rawHeader(`{"alg":null,"kid":"` + kid + `","typ":"at+jwt"}`), malformed},
		{"J01", "good header, no signature", unsigned(good), badSig},

		{"J02x", "HS256 keyed with the RSA key's DER", rs.hmacToken(spki), badSig},
		{"J02x", "HS256 keyed with the RSA key's PEM", rs.hmacToken(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})), badSig},
		{"J02x", "HS256 keyed with the key set", es.hmacToken(jwks.body), badSig},
		{"J02x", "HS256 keyed with nothing", es.hmacToken(nil), badSig},

		{"J03", "RS256 on the key pinned to PS256", ps.as("RS256").sign(nil, nil), badSig},
		{"J03", "PS256 on the key pinned to RS256", rs.as("PS256").sign(nil, nil), badSig},
		{"J03", "RS384 on the key pinned to RS256", rs.as("RS384").sign(nil, nil), badSig},
		{"J03", "RS512 named, RS256 signed", rs.header("alg", "RS512"), badSig},
		{"J03", "ES256 named, signed on P-384", minter{t, s, es384}.header("alg", "ES256"), badSig},
		{"J03", "ES384 on P-384 under an ES256 kid", minter{t, s, es384}.sign(nil, nil), badSig},
		{"J03", "ES256K", es.header("alg", "ES256K"), badSig},
		{"J03", "EdDSA named, EC key", es.header("alg", "EdDSA"), badSig},
		{"J03", "ES256 named, Ed25519 key", ed.header("alg", "ES256"), badSig},
		{"J03", "es256", es.header("alg", "es256"), badSig},
		{"J03", "another key's kid", es.header("kid", rs.k.KID), badSig},

		{"J04x", "a stranger's key under our kid", forged.sign(nil, nil), badSig},
		{"J04x", "a stranger's key in jwk", forged.header("jwk", ownJWK), malformed},
		{"J04x", "jku to a stranger", forged.header("jku", "http://127.0.0.1:9/jwks"), malformed},
		{"J04x", "jku to our issuer", es.header("jku", s.info.Issuer), malformed},
		{"J04x", "x5u", es.header("x5u", "http://127.0.0.1:9/c"), malformed},
		{"J04x", "x5c", es.header("x5c", []string{"MIIB"}), malformed},

		{"J05", "kid a path", es.header("kid", "../../dev/null"), badSig},
		{"J05", "kid SQL", es.header("kid", "' OR 1=1"), badSig},
		{"J05", "kid of 257 bytes", es.header("kid", strings.Repeat("k", 257)), malformed},
		{"J05", "kid of 64 KB", es.header("kid", strings.Repeat("k", 64<<10)), "431"},
		{"J05", "kid with NUL", es.header("kid", kid+"\x00"), malformed},
		{"J05", "kid an array", es.header("kid", []string{kid}), malformed},
		{"J05", "kid a number", es.header("kid", 1), malformed},
		{"J05", "kid null", es.rawHeader(`{"alg":"ES256","kid":null,"typ":"at+jwt"}`), malformed},
		{"J05", "kid missing", es.header("kid", nil), malformed},
		{"J05", "kid empty", es.header("kid", ""), malformed},
		{"J05", "two kid members", es.rawHeader(`{"alg":"ES256","kid":"` + rs.k.KID + `","kid":"` + kid + `","typ":"at+jwt"}`), malformed},
		{"J05", "kid unknown", es.header("kid", "nobody"), badSig},
		{"J05", "kid with a space more", es.header("kid", kid+" "), badSig},
		{"J05", "kid in capitals", es.header("kid", strings.ToUpper(kid)), badSig},

		{"J06x", "crit that names nothing known", es.sign(map[string]any{"crit": []string{"x"}, "x": 1}, nil), malformed},
		{"J06x", "crit empty", es.header("crit", []string{}), malformed},
		{"J06x", "b64 false", es.header("b64", false), malformed},
		{"J06x", "zip", es.header("zip", "DEF"), malformed},
		{"J06x", "typ of an ID token", es.header("typ", "JWT"), malformed},
		{"J06x", "typ of a proof", es.header("typ", "dpop+jwt"), malformed},
		{"J06x", "typ of a logout", es.header("typ", "logout+jwt"), malformed},
		{"J06x", "typ with a blank", es.header("typ", "at+jwt "), malformed},
		{"J06x", "typ in an array", es.header("typ", []string{"at+jwt"}), malformed},
		{"J06x", "jwk in capitals", es.header("JWK", ownJWK), malformed},
		{"J06x", "alg of a password", es.header("alg", "PBES2-HS256+A128KW"), malformed},
		{"J06x", "alg of a shared key", es.header("alg", "dir"), badSig},
		{"J06x", "enc", es.header("enc", "A256GCM"), malformed},

		{"J07", "two alg", es.rawHeader(`{"alg":"ES256","alg":"none","kid":"` + kid + `","typ":"at+jwt"}`), malformed},
		{"J07", "Alg beside alg", es.rawHeader(`{"alg":"ES256","Alg":"none","kid":"` + kid + `","typ":"at+jwt"}`), malformed},
		{"J07", "two sub", dup(`,"sub":"fp-1001-prod"`), malformed},
		{"J07", "two exp", dup(`,"exp":9999999999`), malformed},
		{"J07", "two client_id", dup(`,"client_id":"fp-1001-prod"`), malformed},
		{"J07", "two abn", dup(`,"abn":"65000000101"`), malformed},
		{"J07", "two product_id, a claim nobody reads", dup(`,"product_id":"FP-1001","product_id":"FP-1003"`), malformed},
		{"J07", "Exp beside exp", dup(`,"Exp":9999999999`), malformed},
		{"J07", "CLIENT_ID beside client_id", dup(`,"CLIENT_ID":"fp-1001-prod"`), malformed},
		{"J07", "exp escaped, twice", dup(`,"\u0065xp":9999999999`), malformed},
		{"J07", "exp escaped, once", es.more(map[string]any{"exp": nil}, `,"\u0065xp":`+itoa(now+240)), "ok"},
		{"J07", "client_id escaped, twice", dup(`,"client\u005fid":"fp-1001-prod"`), malformed},
		{"J07", "duplicate in a nested object", dup(`,"x":{"y":{"z":1,"\u007a":2}}`), malformed},
		{"J07", "long s for s", dup(`,"ſub":"x"`), malformed},

		{"J08x", "expired", es.sign(nil, map[string]any{"iat": now - 300, "exp": now - 1}), "token-expired"},
		{"J08x", "exp missing", es.claim("exp", nil), malformed},
		{"J08x", "exp a string", es.claim("exp", "9999999999"), malformed},
		{"J08x", "exp null", es.more(map[string]any{"exp": nil}, `,"exp":null`), malformed},
		{"J08x", "exp with an exponent", es.more(map[string]any{"exp": nil}, `,"exp":1e10`), malformed},
		{"J08x", "exp beyond every range", es.more(map[string]any{"exp": nil}, `,"exp":99999999999999999999`), malformed},
		{"J08x", "exp negative", es.claim("exp", -1), malformed},
		{"J08x", "life longer than a day", es.claim("exp", now+86401), malformed},
		{"J08x", "life of a day", es.claim("exp", now-1+86400), "ok"},
		{"J08x", "exp in 2286", es.claim("exp", forever), malformed},
		{"J08x", "exp before iat", es.sign(nil, map[string]any{"iat": now, "exp": now - 1}), malformed},

		// The edge itself, ±1 ms, is in authz/token's own table on a clock that stands.
		{"J09", "nbf 28 s ahead", es.claim("nbf", now+28), "ok"},
		{"J09", "nbf 90 s ahead", es.claim("nbf", now+90), "token-not-yet-valid"},
		{"J09", "iat 28 s ahead", es.claim("iat", now+28), "ok"},
		{"J09", "iat 90 s ahead", es.claim("iat", now+90), "token-not-yet-valid"},
		{"J09", "iat older than the greatest life", es.claim("iat", now-86400), malformed},
		{"J09", "iat missing", es.claim("iat", nil), malformed},
		{"J09", "nbf a string", es.claim("nbf", itoa(now)), malformed},

		{"J10x", "another issuer", es.claim("iss", "http://127.0.0.1:9"), "token-issuer-unknown"},
		{"J10x", "our issuer and a slash", es.claim("iss", s.info.Issuer+"/"), "token-issuer-unknown"},
		{"J10x", "our issuer in capitals", es.claim("iss", strings.ToUpper(s.info.Issuer)), "token-issuer-unknown"},
		{"J10x", "no issuer", es.claim("iss", nil), malformed},
		{"J10x", "issuer in an array", es.claim("iss", []string{s.info.Issuer}), malformed},
		{"J10x", "two issuers", dup(`,"iss":"http://evil.test"`), malformed},

		{"J11", "aud missing", es.claim("aud", nil), "token-audience-mismatch"},
		{"J11", "aud an array of one", es.claim("aud", []string{s.info.Audience}), "ok"},
		{"J11", "aud an array with another", es.claim("aud", []string{"https://other.example", s.info.Audience}), "ok"},
		{"J11", "aud another", es.claim("aud", "https://other.example"), "token-audience-mismatch"},
		{"J11", "aud an empty array", es.claim("aud", []string{}), "token-audience-mismatch"},
		{"J11", "aud nested", es.claim("aud", []any{[]string{s.info.Audience}}), malformed},
		{"J11", "aud an object", es.claim("aud", map[string]any{"aud": s.info.Audience}), malformed},
		{"J11", "aud a prefix of ours", es.claim("aud", s.info.Audience[:len(s.info.Audience)-1]), "token-audience-mismatch"},
		{"J11", "aud ours and more", es.claim("aud", s.info.Audience+".evil.test"), "token-audience-mismatch"},
		{"J11", "aud ours and a slash", es.claim("aud", s.info.Audience+"/"), "token-audience-mismatch"},
		{"J11", "aud *", es.claim("aud", "*"), "token-audience-mismatch"},
		{"J11", "aud null", es.more(map[string]any{"aud": nil}, `,"aud":null`), malformed},

		{"J12x", "typ JWT: an ID token looks like this", es.header("typ", "JWT"), malformed},
		{"J12x", "no typ", es.header("typ", nil), malformed},
		{"J12x", "typ of a logout token", es.header("typ", "logout+jwt"), malformed},
		{"J12x", "typ of a DPoP proof", es.header("typ", "dpop+jwt"), malformed},
		{"J12x", "typ in capitals", es.header("typ", "AT+JWT"), "ok"},
		{"J12x", "typ with its prefix", es.header("typ", "application/at+jwt"), "ok"},
		{"J12x", "typ an array", es.header("typ", []string{"at+jwt"}), malformed},

		{"J13", "flattened JSON", `{"payload":"` + part[1] + `","protected":"` + part[0] + `","signature":"` + part[2] + `"}`, malformed},
		{"J13", "general JSON", `{"payload":"` + part[1] + `","signatures":[{"protected":"` + part[0] + `","signature":"` + part[2] + `"}]}`, malformed},
		{"J13", "two signatures", `{"payload":"` + part[1] + `","signatures":[{"protected":"` + part[0] + `","signature":"AA"},{"protected":"` + part[0] + `","signature":"` + part[2] + `"}]}`, malformed},
		{"J13", "detached", part[0] + ".." + part[2], malformed},
		{"J14x", "two segments", part[0] + "." + part[1], malformed},
		{"J14x", "four segments", good + ".", malformed},
		{"J14x", "five segments, as an encrypted one has", good + "." + part[1] + "." + part[2], malformed},
		{"J14x", "a token in a token", es.raw(`{"alg":"ES256","kid":"`+kid+`","typ":"at+jwt","cty":"JWT"}`, good), malformed},
		{"J14x", "dots only", "..", malformed},
		{"J14x", "two tokens", good + "," + good, malformed},

		{"J15", "padding", part[0] + "." + part[1] + "." + part[2] + "==", malformed},
		{"J15", "padding in the header", part[0] + "=." + part[1] + "." + part[2], malformed},
		{"J15", "standard alphabet", part[0] + "." + part[1] + "." + strings.Repeat("+/", 43), malformed},
		{"J15", "a space within", part[0] + "." + part[1] + ". " + part[2], malformed},
		{"J15", "a tab within", part[0] + ".\t" + part[1] + "." + part[2], malformed},
		{"J15", "a space before", " " + good, malformed},
		// HTTP drops white space around a field's value before anybody decides (RFC 9110 §5.5).
		{"J15", "a space behind, which HTTP drops", good + " ", "ok"},
		{"J15", "unused bits of the signature", part[0] + "." + part[1] + "." + unusedBits(t, part[2]), malformed},
		{"J15", "percent-encoded", strings.Replace(good, ".", "%2E", 1), malformed},

		{"J17", "8 KiB, or two bytes less", es.padded(8 << 10), "ok"},
		{"J17", "8 KiB and one byte", es.padded(8<<10) + "AAA", malformed},
		{"J17", "16 KB", es.padded(16 << 10), malformed},
		{"J17", "33 KB", es.padded(33 << 10), "431"},
		{"J17", "70 KB", es.padded(70 << 10), "431"},

		{"J18x", "nested 200 deep", dup(`,"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200)), malformed},
		{"J18x", "2,000 values", dup(`,"x":[` + strings.Repeat("0,", 2000) + `0]`), malformed},
		{"J18x", "invalid UTF-8", dup(",\"x\":\"\xff\""), malformed},
		{"J18x", "lone surrogate", dup(`,"x":"\ud800"`), malformed},
		{"J18x", "byte order mark", es.raw("\xef\xbb\xbf"+`{"alg":"ES256","kid":"`+kid+`","typ":"at+jwt"}`, "{}"), malformed},
		{"J18x", "something behind the claims", dup(`} {"x":1`), malformed},
		{"J18x", "claims an array", es.raw(`{"alg":"ES256","kid":"`+kid+`","typ":"at+jwt"}`, `["exp"]`), malformed},
		{"J18x", "claims null", es.raw(`{"alg":"ES256","kid":"`+kid+`","typ":"at+jwt"}`, `null`), malformed},
		{"J18x", "a comment in the claims", dup(`/* */`), malformed},

		{"J19", "r = 0", rsv(func(r, v *big.Int) []byte { return fixed(new(big.Int), v) }), badSig},
		{"J19", "s = 0", rsv(func(r, v *big.Int) []byte { return fixed(r, new(big.Int)) }), badSig},
		{"J19", "r = s = 0", rsv(func(r, v *big.Int) []byte { return make([]byte, 64) }), badSig},
		{"J19", "r = n", rsv(func(r, v *big.Int) []byte { return fixed(n, v) }), badSig},
		{"J19", "s = n", rsv(func(r, v *big.Int) []byte { return fixed(r, n) }), badSig},
		{"J19", "DER", rsv(func(r, v *big.Int) []byte { b, _ := asn1.Marshal([]*big.Int{r, v}); return b }), badSig},
		{"J19", "one bit off", rsv(func(r, v *big.Int) []byte { b := fixed(r, v); b[63] ^= 1; return b }), badSig},
		// The twin is a signature of the same words; what it must not do is escape a
		// denial of the jti: that is row J26x.
		{"J19", "the high-s twin", rsv(func(r, v *big.Int) []byte { return fixed(r, new(big.Int).Sub(n, v)) }), "ok"},

		{"J20x", "RSA, a zero byte in front", signature(t, rs.sign(nil, nil), func(b []byte) []byte { return append([]byte{0}, b...) }), badSig},
		{"J20x", "RSA, signature + n", signature(t, rs.sign(nil, nil), func(b []byte) []byte {
			x := new(big.Int).Add(new(big.Int).SetBytes(b), rs.k.Key.Public().(*rsa.PublicKey).N)
			return x.Bytes()
		}), badSig},
		{"J20x", "RSA, all zeros", signature(t, rs.sign(nil, nil), func(b []byte) []byte { return make([]byte, len(b)) }), badSig},
		{"J20x", "Ed25519, S + L", signature(t, ed.sign(nil, nil), func(b []byte) []byte {
			l, _ := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
			return append(b[:32:32], reversed(new(big.Int).Add(new(big.Int).SetBytes(reversed(b[32:])), l).FillBytes(make([]byte, 32)))...)
		}), badSig},
		{"J20x", "Ed25519, all zeros", signature(t, ed.sign(nil, nil), func(b []byte) []byte { return make([]byte, 64) }), badSig},
		{"J20x", "noise", part[0] + "." + part[1] + "." + enc(noise(64)), badSig},

		{"J27", "nested software.id agrees", dup(`,"software":{"id":"0000300001"}`), "ok"},
		{"J27", "nested software.id differs", dup(`,"software":{"id":"0000123400"}`), malformed},
		{"J27", "nested software.id is a number", dup(`,"software":{"id":300001}`), malformed},
		{"J27", "software_id a number", es.claim("software_id", 1000300001), malformed},
		{"J27", "software_id with a letter", es.claim("software_id", "000030000l"), malformed},
		{"J28x", "azp differs from client_id", es.claim("azp", "fp-1001-prod"), malformed},
		{"J28x", "azp alone", es.more(map[string]any{"client_id": nil}, `,"azp":"fp-1003-prod"`), "ok"},
		{"J28x", "client_id an array", es.claim("client_id", []string{"fp-1003-prod"}), malformed},
		{"J28x", "client_id empty", es.claim("client_id", ""), malformed},
		{"J28x", "abn with spaces", es.claim("abn", "31 000 000 202"), malformed},
		{"J28x", "abn a number", es.claim("abn", 31000000202), malformed},
		{"J28x", "client_abn with a wrong digit", es.claim("client_abn", "56000001314"), malformed},
		{"J28x", "scope an array", es.claim("scope", []string{"lodge"}), malformed},
		{"J28x", "jti and sub missing", es.sign(nil, map[string]any{"jti": nil, "sub": nil}), "ok"},
		{"J28x", "jti a number", es.claim("jti", 7), malformed},
	}
}

func itoa(n int64) string { b, _ := json.Marshal(n); return string(b) }

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // never fails: it ends the process instead
	return b
}

func reversed(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[len(b)-1-i] = b[i]
	}
	return out
}
