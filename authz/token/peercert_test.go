package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz/token"
)

// envoyEncoded is a certificate the way Envoy's source.certificate has it.
func envoyEncoded(pem string) string {
	return strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D").Replace(pem)
}

func certificate(t testing.TB, key crypto.Signer) (der []byte, text string) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader,
		&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kooka"}, NotAfter: at.Add(time.Hour).Truncate(time.Second)},
		&x509.Certificate{SerialNumber: big.NewInt(2)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestThumbprintOfEnvoysCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, text := certificate(t, key)
	_, other := certificate(t, key)
	sum := sha256.Sum256(der)
	want := base64.RawURLEncoding.EncodeToString(sum[:])
	th := token.NewThumbprints(0)
	enc := envoyEncoded(text)
	if enc == text || !strings.Contains(enc, "%0A") {
		t.Fatal("nothing was encoded")
	}
	for range 2 {
		got, notAfter, ok := th.Of(enc)
		if got != want || !ok || !notAfter.Equal(at.Add(time.Hour).Truncate(time.Second)) {
			t.Errorf("Of = %q, %v, %v, want %q", got, notAfter, ok, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { th.Of(enc) }); n != 0 {
		t.Errorf("%v allocations for a certificate it remembers", n)
	}
	for name, bad := range map[string]string{
		"nothing":             "",
		"two certificates":    envoyEncoded(text + other),
		"text before":         envoyEncoded("x\n" + text),
		"text after":          envoyEncoded(text + "x"),
		"a private key":       envoyEncoded(strings.ReplaceAll(text, "CERTIFICATE", "PRIVATE KEY")),
		"a broken escape":     enc[:len(enc)-3] + "%0",
		"cut short":           enc[:len(enc)/2],
		"not DER":             envoyEncoded(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))),
		"bytes after the DER": envoyEncoded(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: append(der[:len(der):len(der)], 0)}))),
		"PEM headers":         envoyEncoded(strings.Replace(text, "\n", "\nA: b\n\n", 1)),
		"above the bound":     enc + strings.Repeat("%0A", 16<<10),
		"a hash":              want,
	} {
		if got, _, ok := th.Of(bad); ok || got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func BenchmarkThumbprint(b *testing.B) {
	_, text := certificate(b, generate(b, "k", "ES256").Key)
	th, enc := token.NewThumbprints(0), envoyEncoded(text)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := th.Of(enc); !ok {
			b.Fatal("not read")
		}
	}
}
