package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/issue"
	"github.com/dspgate/dspgate/authz/token/jwksfetch"
)

// Each row is one key of the cases' J21, refused at load though a sound key is
// beside it; the sound key alone must be left.
func TestKeyCaseJ21WeakKeysAreRefusedAtLoad(t *testing.T) {
	ec, rs, ed := jwk(t, "ES256"), jwk(t, "RS256"), jwk(t, "EdDSA")
	b64 := base64.RawURLEncoding.EncodeToString
	with := func(key map[string]any, kv ...any) map[string]any {
		m := map[string]any{}
		for k, v := range key {
			m[k] = v
		}
		for i := 0; i < len(kv); i += 2 {
			if m[kv[i].(string)] = kv[i+1]; kv[i+1] == nil {
				delete(m, kv[i].(string))
			}
		}
		return m
	}
	n := func(s any) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(s.(string))
		if err != nil {
			t.Fatal(err)
		}
		return new(big.Int).SetBytes(b)
	}
	for name, key := range map[string]map[string]any{
		"RSA 1024":                        with(rs, "n", b64(new(big.Int).SetBit(new(big.Int).Rsh(n(rs["n"]), 1024), 0, 1).Bytes())),
		"RSA 16384":                       with(rs, "n", b64(append([]byte{0xff}, make([]byte, 2047)...))),
		"RSA modulus even":                with(rs, "n", b64(new(big.Int).SetBit(n(rs["n"]), 0, 0).Bytes())),
		"RSA modulus with a factor of 3":  with(rs, "n", b64(threefold(n(rs["n"])).Bytes())),
		"RSA e=1":                         with(rs, "e", "AQ"),
		"RSA e=3":                         with(rs, "e", "Aw"),
		"RSA e even":                      with(rs, "e", b64([]byte{1, 0, 2})),
		"RSA e=0":                         with(rs, "e", "AA"),
		"RSA e wraps to 65537 in 64 bits": with(rs, "e", b64([]byte{1, 0, 0, 0, 0, 0, 1, 0, 1})),
		"RSA e above 31 bits":             with(rs, "e", b64([]byte{0x80, 0, 0, 1})),
		"RSA e with a zero in front":      with(rs, "e", b64([]byte{0, 1, 0, 1})),
		"RSA n with a zero in front":      with(rs, "n", b64(append([]byte{0}, n(rs["n"]).Bytes()...))),
		"RSA n with padding":              with(rs, "n", rs["n"].(string)+"="),
		"RSA n with a line end":           with(rs, "n", rs["n"].(string)+"\n"),
		"RSA n missing":                   with(rs, "n", nil),
		"RSA alg HS256":                   with(rs, "alg", "HS256"),
		"RSA alg ES256":                   with(rs, "alg", "ES256"),
		"RSA alg RSA-OAEP":                with(rs, "alg", "RSA-OAEP"),
		"RSA alg none":                    with(rs, "alg", "none"),
		"RSA without alg, which two fit":  with(rs, "alg", nil),
		"ROCA":                            roca(t),
		"EC point off the curve":          with(ec, "y", b64(flip(n(ec["y"])).FillBytes(make([]byte, 32)))),
		"EC point at infinity":            with(ec, "x", b64(make([]byte, 32)), "y", b64(make([]byte, 32))),
		"EC coordinate beyond the field":  with(ec, "x", b64(new(big.Int).Add(n(ec["x"]), elliptic.P256().Params().P).Bytes())),
		"EC coordinate of 33 bytes":       with(ec, "x", b64(append([]byte{0}, n(ec["x"]).FillBytes(make([]byte, 32))...))),
		"EC P-256 named P-384":            with(ec, "crv", "P-384"),
		"EC secp256k1":                    with(ec, "crv", "secp256k1", "alg", "ES256K"),
		"EC P-224":                        with(ec, "crv", "P-224"),
		"EC alg ES384 on P-256":           with(ec, "alg", "ES384"),
		"EC alg EdDSA":                    with(ec, "alg", "EdDSA"),
		"EC with its private part":        with(ec, "d", b64(make([]byte, 32))),
		"RSA with a prime":                with(rs, "p", "AQ"),
		"use enc":                         with(ec, "use", "enc"),
		"use Sig":                         with(ec, "use", "Sig"),
		"USE imitates use":                with(ec, "use", nil, "USE", "enc"),
		"key_ops encrypt":                 with(ec, "key_ops", []string{"encrypt"}),
		"key_ops empty":                   with(ec, "key_ops", []string{}),
		"key_ops a string":                with(ec, "key_ops", "verify"),
		"symmetric":                       {"kty": "oct", "k": b64(make([]byte, 32)), "alg": "HS256", "kid": "weak"},
		"Ed25519 of order 1":              with(ed, "x", b64(append([]byte{1}, make([]byte, 31)...))),
		"Ed25519 all zeros":               with(ed, "x", b64(make([]byte, 32))),
		"Ed25519 of 31 bytes":             with(ed, "x", b64(make([]byte, 31))),
		"X25519":                          with(ed, "crv", "X25519"),
		"no kty":                          with(ec, "kty", nil),
		"kty a number":                    with(ec, "kty", 1),
		"no kid":                          with(ec, "kid", nil),
		"kid empty":                       with(ec, "kid", ""),
		"kid with a line end":             with(ec, "kid", "a\nb"),
		"kid of 257 bytes":                with(ec, "kid", strings.Repeat("k", 257)),
		"kid a number":                    with(ec, "kid", 7),
	} {
		t.Run(name, func(t *testing.T) {
			sound := jwk(t, "EdDSA")
			sound["kid"] = "sound"
			doc, err := json.Marshal(map[string]any{"keys": []any{key, sound}})
			if err != nil {
				t.Fatal(err)
			}
			set, skipped, err := jwksfetch.Parse(doc, allAlgorithms)
			if err != nil || set.Len() != 1 || set.Key("sound") == nil || len(skipped) != 1 {
				t.Fatalf("%d keys, skipped %v, %v; want the sound key alone", set.Len(), skipped, err)
			}
			// Where an accident could refuse the key for something else.
			because := map[string]string{
				"ROCA": "ROCA", "RSA 1024": "1024 bits", "RSA modulus even": "even", "RSA modulus with a factor of 3": "factor 3",
				"RSA e=3": "exponent 3", "RSA e even": "even", "Ed25519 all zeros": "small order", "use enc": "use",
			}[name]
			if !strings.Contains(skipped[0].Error(), because) {
				t.Errorf("refused, but for %v", skipped[0])
			}
			if doc, err = json.Marshal(map[string]any{"keys": []any{key}}); err != nil {
				t.Fatal(err)
			}
			if set, _, err := jwksfetch.Parse(doc, allAlgorithms); !errors.Is(err, jwksfetch.ErrDocument) || set != nil {
				t.Errorf("alone it made a set: %v", err)
			}
		})
	}
}

func TestParseKeySet(t *testing.T) {
	a, b := jwk(t, "ES256"), jwk(t, "ES384")
	a["kid"], b["kid"] = "a", "b"
	ja, jb := marshal(t, a), marshal(t, b)
	same := strings.Replace(jb, `"kid":"b"`, `"kid":"a"`, 1)
	noAlg := jwk(t, "PS256")
	delete(noAlg, "alg")
	for name, c := range map[string]struct {
		doc  string
		algs []string
		want int // keys; -1: the document is refused
	}{
		"two keys":                         {`{"keys":[` + ja + `,` + jb + `]}`, allAlgorithms, 2},
		"an algorithm the issuer lacks":    {`{"keys":[` + ja + `,` + jb + `]}`, []string{"ES384"}, 1},
		"two keys with one kid":            {`{"keys":[` + ja + `,` + same + `]}`, allAlgorithms, -1},
		"two keys with one kid, and a key": {`{"keys":[` + ja + `,` + same + `,` + jb + `]}`, allAlgorithms, 1},
		"no alg, one fits":                 {`{"keys":[` + marshal(t, noAlg) + `]}`, []string{"PS256", "ES256"}, 1},
		"no alg, two fit":                  {`{"keys":[` + marshal(t, noAlg) + `]}`, []string{"PS256", "RS256"}, -1},
		"unknown members":                  {`{"keys":[` + ja[:len(ja)-1] + `,"x5u":"http://127.0.0.1:1/","ext":true}],"more":{}}`, allAlgorithms, 1},
		"empty":                            {`{"keys":[]}`, allAlgorithms, -1},
		"no keys member":                   {`{}`, allAlgorithms, -1},
		"keys an object":                   {`{"keys":{}}`, allAlgorithms, -1},
		"a key that is no object":          {`{"keys":["x",` + ja + `]}`, allAlgorithms, 1},
		"an array":                         {`[` + ja + `]`, allAlgorithms, -1},
		"HTML":                             {`<html>`, allAlgorithms, -1},
		"duplicate keys member":            {`{"keys":[` + ja + `],"keys":[]}`, allAlgorithms, -1},
		"duplicate kid member":             {`{"keys":[` + ja[:len(ja)-1] + `,"kid":"z"}]}`, allAlgorithms, -1},
		"65 keys":                          {`{"keys":[` + strings.Repeat(`{},`, 64) + ja + `]}`, allAlgorithms, -1},
		"symmetric algorithms allowed":     {`{"keys":[` + ja + `]}`, []string{"HS256", "ES256"}, -1},
		"above the bound":                  {`{"keys":[` + ja + `]}` + strings.Repeat(" ", jwksfetch.DocumentBytesMax), allAlgorithms, -1},
	} {
		t.Run(name, func(t *testing.T) {
			set, _, err := jwksfetch.Parse([]byte(c.doc), c.algs)
			if (err != nil) != (c.want < 0) || err == nil && set.Len() != c.want {
				t.Errorf("%d keys, %v, want %d", set.Len(), err, c.want)
			}
		})
	}
}

// The list of small-order points must hold what it says: under each such key one
// signature fits some message out of few, without any private key.
func TestSmallOrderKeysWouldAcceptForgeries(t *testing.T) {
	for _, x := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	} {
		key, _ := hex.DecodeString(x)
		forged := make([]byte, 64)
		forged[0] = 1 // R the neutral element, S zero
		fits := false
		for i := 0; i < 200 && !fits; i++ {
			fits = ed25519.Verify(key, fmt.Appendf(nil, "message %d", i), forged)
		}
		if !fits {
			t.Errorf("%s accepts no forgery: it does not belong on the list", x)
		}
		if _, err := token.NewKey("k", "EdDSA", ed25519.PublicKey(key)); !errors.Is(err, token.ErrKey) {
			t.Errorf("%s was taken: %v", x, err)
		}
	}
}

func TestNewKeyRefusesWhatItCannotPin(t *testing.T) {
	ec := generate(t, "k", "ES256").Key.Public().(*ecdsa.PublicKey)
	for name, k := range map[string]struct {
		alg string
		key any
	}{
		"HMAC": {"HS256", []byte("secret")}, "none": {"none", ec}, "nil": {"ES256", nil},
		"private key": {"ES256", generate(t, "k", "ES256").Key}, "PS256 on EC": {"PS256", ec}, "no alg": {"", ec},
		"empty RSA": {"RS256", &rsa.PublicKey{}},
	} {
		if got, err := token.NewKey("k", k.alg, k.key); !errors.Is(err, token.ErrKey) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	a := keyOf(t, &issue.Signer{Key: generate(t, "k", "ES256").Key, KID: "a", Alg: "ES256"})
	if _, err := token.NewKeySet(a, a); !errors.Is(err, token.ErrKey) {
		t.Errorf("one kid twice: %v", err)
	}
}

func jwk(t testing.TB, alg string) map[string]any {
	t.Helper()
	doc, err := issue.JWKS(generate(t, "weak", alg))
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(doc, &set); err != nil {
		t.Fatal(err)
	}
	return set.Keys[0]
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// roca is Wycheproof's key with the fingerprint of CVE-2017-15361.
func roca(t *testing.T) map[string]any {
	t.Helper()
	b, err := fs.ReadFile(wycheproof.TestVectors, "json_web_crypto_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Groups []struct {
			Comment string         `json:"comment"`
			Public  map[string]any `json:"public"`
		} `json:"testGroups"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, g := range doc.Groups {
		if g.Comment == "jws_rsa_roca_key" {
			return g.Public
		}
	}
	t.Fatal("no ROCA key among the vectors")
	return nil
}

// threefold is an odd number of n's size that 3 divides.
func threefold(n *big.Int) *big.Int {
	m := new(big.Int).Sub(n, new(big.Int).Mod(n, big.NewInt(3)))
	if m.Bit(0) == 0 {
		m.Sub(m, big.NewInt(3))
	}
	return m
}

func flip(y *big.Int) *big.Int { return new(big.Int).Xor(y, big.NewInt(1)) }
