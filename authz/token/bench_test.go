package token_test

import (
	"fmt"
	"testing"

	"github.com/dspgate/dspgate/authz/token"
)

// Which part a token's verification costs: cached, known to be bad, or anew.
func BenchmarkVerify(b *testing.B) {
	b.Run("hit", func(b *testing.B) {
		s := generate(b, "k", "ES256")
		v := verifier(b, config(setOf(b, s)))
		raw := make([]string, 1000)
		for i := range raw {
			raw[i] = sign(b, s, nil, map[string]any{"jti": fmt.Sprint(i)})
			v.Verify(raw[i], peer, at)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, fail := v.Verify(raw[i%1000], peer, at); fail != token.None {
				b.Fatal(fail)
			}
		}
	})
	b.Run("known bad", func(b *testing.B) {
		s := generate(b, "k", "ES256")
		v := verifier(b, config(setOf(b, s)))
		raw := forge(sign(b, s, nil, nil), 0)
		b.ReportAllocs()
		for b.Loop() {
			if _, fail := v.Verify(raw, peer, at); fail != token.SignatureInvalid {
				b.Fatal(fail)
			}
		}
	})
	b.Run("throttled", func(b *testing.B) {
		s := generate(b, "k", "ES512")
		cfg := config(setOf(b, s))
		cfg.FailureBurst = 1
		v := verifier(b, cfg)
		raw := sign(b, s, nil, nil)
		v.Verify(forge(raw, 0), peer, at)
		forged := make([]string, 1000)
		for i := range forged {
			forged[i] = forge(raw, i+1)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, fail := v.Verify(forged[i%1000], peer, at); fail != token.Throttled {
				b.Fatal(fail)
			}
		}
	})
	for _, alg := range []string{"ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"} {
		b.Run("miss "+alg, func(b *testing.B) {
			s := generate(b, "k", alg)
			cfg := config(setOf(b, s))
			cfg.CacheEntries = 8
			v := verifier(b, cfg)
			raw := make([]string, 100)
			for i := range raw {
				raw[i] = sign(b, s, nil, map[string]any{"jti": fmt.Sprint(i)})
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, fail := v.Verify(raw[i%100], peer, at); fail != token.None {
					b.Fatal(fail)
				}
			}
		})
	}
}
