package xds_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dspgate/dspgate/envoy/xds"
)

// authority is a certificate authority for one test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	a := &authority{dir: t.TempDir()}
	a.cert, a.key, _ = makeCert(t, name, nil)
	writePEM(t, filepath.Join(a.dir, "ca.pem"), "CERTIFICATE", a.cert.Raw)
	return a
}

func makeCert(t testing.TB, name string, by *authority) (*x509.Certificate, *ecdsa.PrivateKey, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: by == nil, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t, "test CA")
	server, serverKey, _ := makeCert(t, "localhost", ca)
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(ca.dir, "server.pem"), "CERTIFICATE", server.Raw)
	writePEM(t, filepath.Join(ca.dir, "server.key"), "PRIVATE KEY", keyDER)
	g := startGate(t, func(c *xds.Config) {
		c.IngressTLS = "127.0.0.1:0"
		c.TLS = xds.TLSFiles{Certificate: filepath.Join(ca.dir, "server.pem"), Key: filepath.Join(ca.dir, "server.key"), ClientCA: filepath.Join(ca.dir, "ca.pem")}
	})
	waitFor(t, "an acknowledgement, secrets included", g.server.Synced)
	_, _, client := makeCert(t, "client", ca)
	_, _, stranger := makeCert(t, "stranger", newAuthority(t, "other CA"))

	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	config := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: certs, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	}
	// call makes one request on a connection of its own.
	call := func(cfg *tls.Config) (seen string, state tls.ConnectionState, err error) {
		g.authz.drain()
		d := tls.Dialer{Config: cfg}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c, err := d.DialContext(ctx, "tcp", g.envoy.IngressTLS)
		if err != nil {
			return "", tls.ConnectionState{}, err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, get(lookup, "localhost", good, "connection: close\r\n")); err != nil {
			return "", tls.ConnectionState{}, err
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return "", tls.ConnectionState{}, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != 200 {
			t.Errorf("answered %s", resp.Status)
		}
		checks := g.authz.drain()
		if len(checks) != 1 {
			t.Fatalf("%d checks", len(checks))
		}
		return checks[0].GetAttributes().GetSource().GetCertificate(), c.(*tls.Conn).ConnectionState(), nil
	}
	isClient := func(seen string) bool {
		plain, err := url.PathUnescape(seen)
		if err != nil {
			return false
		}
		block, _ := pem.Decode([]byte(plain))
		return block != nil && bytes.Equal(block.Bytes, client.Certificate[0])
	}

	seen, state, err := call(config())
	if err != nil || seen != "" || state.Version != tls.VersionTLS13 {
		t.Errorf("without a certificate: %q %v", seen, err)
	}
	resumable := config(client)
	if seen, _, err = call(resumable); err != nil || !isClient(seen) {
		t.Errorf("with a certificate the authorizer saw %q, %v", seen, err)
	}
	if seen, state, err = call(resumable); err != nil || !state.DidResume || !isClient(seen) {
		t.Errorf("resumed=%v: the authorizer saw %q, %v", state.DidResume, seen, err)
	}
	// Sent though the server names the authorities it accepts.
	forced := config()
	forced.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil }
	if _, _, err = call(forced); err == nil {
		t.Error("a certificate of another authority was accepted")
	}
	old := config()
	old.MaxVersion = tls.VersionTLS12
	if _, _, err = call(old); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
	h2 := config()
	h2.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", g.envoy.IngressTLS, h2)
	if err != nil || c.ConnectionState().NegotiatedProtocol != "h2" {
		t.Errorf("no HTTP/2 over TLS: %v", err)
	}
	if c != nil {
		c.Close()
	}
}
