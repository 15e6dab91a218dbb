package issue_test

import (
	"crypto/ed25519"
	"crypto/rsa"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/dspgate/dspgate/authz/token/issue"
)

func TestSaveAndLoadGiveTheSameSigner(t *testing.T) {
	for _, alg := range []string{"ES256", "ES384", "ES512", "PS256", "RS512", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			s, err := issue.Generate("sandbox-1", alg)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "key.pem")
			for range 2 { // the second replaces the first
				if err := s.Save(file); err != nil {
					t.Fatal(err)
				}
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
			}
			if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
				t.Errorf("%d files are left", len(left))
			}
			got, err := issue.Load(file)
			if err != nil || got.KID != s.KID || got.Alg != s.Alg {
				t.Fatalf("%+v, %v", got, err)
			}
			raw, err := got.Sign(map[string]any{"extra": 1, "typ": nil}, map[string]any{"sub": "x"})
			if err != nil {
				t.Fatal(err)
			}
			tok, err := jwt.Parse(raw, func(*jwt.Token) (any, error) { return s.Key.Public(), nil }, jwt.WithValidMethods([]string{alg}))
			if err != nil {
				t.Fatalf("another reader: %v", err)
			}
			if _, typ := tok.Header["typ"]; typ || tok.Header["kid"] != "sandbox-1" || tok.Header["extra"] != float64(1) {
				t.Errorf("header %v", tok.Header)
			}
		})
	}
}

func TestJWKSHoldsNoSecret(t *testing.T) {
	var signers []*issue.Signer
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		s, err := issue.Generate(alg, alg)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, s)
	}
	doc, err := issue.JWKS(signers...)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{`"d"`, `"p"`, `"q"`, `"k"`} {
		if strings.Contains(string(doc), secret) {
			t.Errorf("%s is in the key set", secret)
		}
	}
	if n := strings.Count(string(doc), `"kid"`); n != 3 {
		t.Errorf("%d keys, want 3", n)
	}
	if _, ok := signers[2].Key.(ed25519.PrivateKey); !ok {
		t.Errorf("EdDSA made a %T", signers[2].Key)
	}
	if k, ok := signers[1].Key.(*rsa.PrivateKey); !ok || k.N.BitLen() != 2048 {
		t.Errorf("RS256 made a %T", signers[1].Key)
	}
}

func TestLoadRefusesWhatSaveDidNotWrite(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "text": "hello", "certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"not DER": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := issue.Load(file); err == nil {
			t.Errorf("%s: loaded %+v", name, s)
		}
	}
	if _, err := issue.Load(filepath.Join(dir, "absent")); err == nil {
		t.Error("loaded an absent file")
	}
	if _, err := issue.Generate("k", "HS256"); err == nil {
		t.Error("made a symmetric key")
	}
}
