package token_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/registry"
)

func TestVerifyReadsEveryClaim(t *testing.T) {
	for _, alg := range allAlgorithms {
		t.Run(alg, func(t *testing.T) {
			s := generate(t, "k1", alg)
			v := verifier(t, config(setOf(t, s)))
			raw := sign(t, s, nil, map[string]any{
				"member_id": "M-77", "cnf": map[string]any{"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"[:42] + "0"},
				"exp": float64(at.Unix()) + 100.5, "unknown": []any{map[string]any{"a": nil}},
			})
			want := &token.Claims{
				Issuer: issuerURL, KID: "k1", JTI: "t-1", Subject: "machine-1", ClientID: "fp-1001-prod",
				ABN: 65000000101, SoftwareID: "0000123400", ClientABN: 56000001313, Scope: "lodge read",
				Thumbprint: "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0",
				IssuedAt:   registry.Time(at.Unix()-60) * 1000, NotBefore: registry.Time(at.Unix()-60) * 1000,
				Expires: registry.Time(at.Unix()+100)*1000 + 500,
			}
			for _, from := range []string{"verified", "cached"} {
				got, fail := v.Verify(raw, peer, at)
				if fail != token.None {
					t.Fatalf("%s: %v", from, fail)
				}
				if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(token.Claims{})); d != "" {
					t.Errorf("%s: %s", from, d)
				}
				if x, ok := got.Extra("member_id"); x != "M-77" || !ok {
					t.Errorf("%s: Extra(member_id) = %q, %v", from, x, ok)
				}
				if x, ok := got.Extra("unknown"); ok {
					t.Errorf("%s: a claim that no service names was kept: %q", from, x)
				}
			}
		})
	}
}

func TestHasScopeMatchesWholeWords(t *testing.T) {
	for _, c := range []struct {
		scope, word string
		want        bool
	}{
		{"lodge read", "lodge", true}, {"lodge read", "read", true}, {"lodge read", "lod", false},
		{"lodge read", "ead", false}, {"lodge:all read", "lodge", false}, {"xlodge lodge", "lodge", true},
		{"", "", false}, {"lodge", "", false}, {"lodge", "lodge read", false}, {"lodge read", "lodge read", false}, {"a b c", "c", true},
		{"aa a", "a", true},
	} {
		if got := (&token.Claims{Scope: c.scope}).HasScope(c.word); got != c.want {
			t.Errorf("scope %q has %q: %v, want %v", c.scope, c.word, got, c.want)
		}
	}
}
