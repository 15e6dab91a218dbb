package token_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/issue"
)

// FuzzVerify signs whatever header and payload the fuzzer makes, and also sends
// the fuzzer's own bytes. Whatever is accepted must be in the one canonical
// form, and a lenient reader of the same bytes must read the same claims.
func FuzzVerify(f *testing.F) {
	s := generate(f, "k", "EdDSA")
	set := setOf(f, s)
	good := sign(f, s, nil, map[string]any{"member_id": "M-1", "cnf": map[string]any{"x5t#S256": strings.Repeat("A", 43)}})
	c, _ := json.Marshal(claims(map[string]any{"member_id": "M-1"}))
	head := `{"alg":"EdDSA","kid":"k","typ":"at+jwt"}`
	f.Add(head, string(c), "")
	f.Add(head, string(c), good)
	f.Add(head, `{"exp":1,"Exp":2}`, strings.Replace(good, ".", "..", 1))
	f.Add(`{"alg":"none"}`, string(c), `{"payload":""}`)
	f.Add(head, strings.Replace(string(c), `"aud"`, `"aud":"x","\u0061ud"`, 1), good+"=")
	v := verifier(f, config(set))
	f.Fuzz(func(t *testing.T, header, payload, raw string) {
		if signed, err := s.SignRaw([]byte(header), []byte(payload)); err != nil {
			t.Fatal(err)
		} else if got, fail := v.Verify(signed, peer, at); fail == token.None {
			lenient(t, s, signed, got)
		}
		if got, fail := v.Verify(raw, peer, at); fail == token.None {
			lenient(t, s, raw, got)
		}
	})
}

// lenient reads an accepted token with encoding/json and compares.
func lenient(t *testing.T, s *issue.Signer, raw string, got *token.Claims) {
	t.Helper()
	part := strings.Split(raw, ".")
	if len(part) != 3 || len(raw) > token.TokenBytesMax {
		t.Fatalf("accepted %q", raw)
	}
	var decoded [3][]byte
	for i, p := range part {
		b, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil || base64.RawURLEncoding.EncodeToString(b) != p {
			t.Fatalf("accepted a segment that is not canonical: %q", p)
		}
		decoded[i] = b
	}
	if again, err := s.SignRaw(decoded[0], decoded[1]); err != nil || again != raw {
		t.Fatalf("accepted %q, whose own signer makes %q (%v)", raw, again, err) // Ed25519 is deterministic
	}
	var h struct{ Alg, Kid, Typ string }
	var p struct {
		Iss, Jti, Sub, Scope string
		Aud                  any
		Exp, Iat, Nbf        json.Number
		ClientID             string `json:"client_id"`
		Azp                  string
		ABN                  string `json:"abn"`
		SoftwareID           string `json:"software_id"`
		ClientABN            string `json:"client_abn"`
		MemberID             string `json:"member_id"`
		Cnf                  struct {
			X string `json:"x5t#S256"`
		}
	}
	d := json.NewDecoder(bytes.NewReader(decoded[1]))
	d.UseNumber()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("accepted claims that encoding/json refuses: %v\n%s", err, decoded[1])
	}
	if err := json.Unmarshal(decoded[0], &h); err != nil {
		t.Fatal(err)
	}
	if p.ClientID == "" {
		p.ClientID = p.Azp
	}
	member, _ := got.Extra("member_id")
	for _, c := range []struct{ name, lenient, strict string }{
		{"alg", h.Alg, "EdDSA"}, {"kid", h.Kid, got.KID}, {"typ", strings.ToLower(strings.TrimPrefix(strings.ToLower(h.Typ), "application/")), "at+jwt"},
		{"iss", p.Iss, got.Issuer}, {"jti", p.Jti, got.JTI}, {"sub", p.Sub, got.Subject}, {"scope", p.Scope, got.Scope},
		{"client_id", p.ClientID, got.ClientID}, {"abn", p.ABN, got.ABN.String()}, {"software_id", p.SoftwareID, got.SoftwareID},
		{"client_abn", p.ClientABN, got.ClientABN.String()}, {"member_id", p.MemberID, member}, {"cnf", p.Cnf.X, got.Thumbprint},
		{"exp", millis(p.Exp), millisOf(int64(got.Expires))}, {"iat", millis(p.Iat), millisOf(int64(got.IssuedAt))},
		{"nbf", millis(p.Nbf), millisOf(int64(got.NotBefore))},
	} {
		if c.lenient != c.strict {
			t.Errorf("%s: a lenient reader says %q, we say %q\n%s", c.name, c.lenient, c.strict, decoded[1])
		}
	}
	auds, ok := p.Aud.([]any)
	if !ok {
		auds = []any{p.Aud}
	}
	if !slices.Contains(auds, any(audience)) && !slices.Contains(auds, any("urn:dspgate")) {
		t.Errorf("accepted for audience %v", p.Aud)
	}
	if ms := at.UnixMilli(); int64(got.Expires) <= ms || int64(got.IssuedAt) > ms+30000 || int64(got.NotBefore) > ms+30000 {
		t.Errorf("accepted out of its time: %+v", got)
	}
}

// millis is a NumericDate in whole milliseconds, by exact arithmetic.
func millis(n json.Number) string {
	if n == "" {
		return "0"
	}
	r, ok := new(big.Rat).SetString(string(n))
	if !ok {
		return "no number: " + string(n)
	}
	r.Mul(r, big.NewRat(1000, 1))
	return new(big.Int).Quo(r.Num(), r.Denom()).String()
}

func millisOf(ms int64) string { return big.NewInt(ms).String() }
