package token_test

import (
	"maps"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/issue"
)

const (
	issuerURL = "https://issuer.agency.example"
	audience  = "https://api.agency.example"
	peer      = "203.0.113.7"
)

// at is the instant the tests live at; a fraction, so that boundaries are seen.
var at = time.Date(2026, 11, 22, 3, 0, 0, 250e6, time.UTC)

// allAlgorithms a key may be pinned to.
var allAlgorithms = []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"}

// source is a KeySource whose set a test changes, and that counts misses.
type source struct {
	set    *token.KeySet
	missed []string
}

func (s *source) Keys(time.Time) *token.KeySet { return s.set }
func (s *source) Missed(kid string)            { s.missed = append(s.missed, kid) }

func generate(t testing.TB, kid, alg string) *issue.Signer {
	t.Helper()
	s, err := issue.Generate(kid, alg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keyOf(t testing.TB, s *issue.Signer) *token.Key {
	t.Helper()
	k, err := token.NewKey(s.KID, s.Alg, s.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func setOf(t testing.TB, signers ...*issue.Signer) *token.KeySet {
	t.Helper()
	keys := make([]*token.Key, len(signers))
	for i, s := range signers {
		keys[i] = keyOf(t, s)
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func config(keys token.KeySource) token.Config {
	return token.Config{Issuers: []token.Issuer{{
		Issuer: issuerURL, Audiences: []string{audience, "urn:dspgate"}, Algorithms: allAlgorithms, Keys: keys,
		Subjects: []string{"member_id"},
	}}}
}

func verifier(t testing.TB, cfg token.Config) *token.Verifier {
	t.Helper()
	v, err := token.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// claims are good ones, with members laid over; nil leaves one out.
func claims(over map[string]any) map[string]any {
	c := map[string]any{
		"iss": issuerURL, "aud": audience, "sub": "machine-1", "jti": "t-1", "client_id": "fp-1001-prod",
		"iat": at.Unix() - 60, "exp": at.Unix() + 240, "nbf": at.Unix() - 60,
		"abn": "65000000101", "software_id": "0000123400", "client_abn": "56000001313", "scope": "lodge read",
	}
	maps.Copy(c, over)
	for k, v := range c {
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

func sign(t testing.TB, s *issue.Signer, header, over map[string]any) string {
	t.Helper()
	raw, err := s.Sign(header, claims(over))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
