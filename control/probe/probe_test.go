package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
)

// authority signs the certificates of a test's endpoints.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key, cert, x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) issue(t testing.TB, from, until time.Time) tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

func serve(t testing.TB, c *tls.Config, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = c
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // what is refused is what is tested
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// slow is generous: what a check finds does not depend on how fast this machine is.
const slow = time.Minute

func outcomes(results []assurance.Result) map[string]string {
	out := map[string]string{}
	for _, r := range results {
		out[r.Check] = r.Outcome
	}
	return out
}

const goodText = "# ours\nContact: mailto:security@pay.example\nExpires: %s\n"

func wellKnown(body string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/security.txt", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, body)
	})
	return mux
}

func TestEndpoints(t *testing.T) {
	ca := newAuthority(t)
	year := time.Now().AddDate(1, 0, -1)
	good := ca.issue(t, time.Now().Add(-time.Hour), year)
	text := wellKnown(fmt.Sprintf(goodText, time.Now().AddDate(0, 6, 0).UTC().Format(time.RFC3339)))
	for name, c := range map[string]struct {
		tls  *tls.Config
		h    http.Handler
		want string
	}{
		"well kept":          {&tls.Config{Certificates: []tls.Certificate{good}}, text, "pass pass pass"},
		"TLS 1.2 only":       {&tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12}, text, "fail pass pass"},
		"TLS 1.0 open":       {&tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10}, text, "pass pass pass"},
		"ends soon":          {&tls.Config{Certificates: []tls.Certificate{ca.issue(t, time.Now().Add(-time.Hour), time.Now().AddDate(0, 0, 7))}}, text, "pass warn pass"},
		"ended":              {&tls.Config{Certificates: []tls.Certificate{ca.issue(t, time.Now().AddDate(-1, 0, 0), time.Now().Add(-time.Hour))}}, text, "pass fail unknown"},
		"of nobody":          {&tls.Config{Certificates: []tls.Certificate{newAuthority(t).issue(t, time.Now().Add(-time.Hour), year)}}, text, "pass fail unknown"},
		"no security.txt":    {&tls.Config{Certificates: []tls.Certificate{good}}, http.NotFoundHandler(), "pass pass fail"},
		"a page for a text":  {&tls.Config{Certificates: []tls.Certificate{good}}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }), "pass pass fail"},
		"a redirect":         {&tls.Config{Certificates: []tls.Certificate{good}}, http.RedirectHandler("https://elsewhere.example/", http.StatusFound), "pass pass fail"},
		"a text without end": {&tls.Config{Certificates: []tls.Certificate{good}}, wellKnown(strings.Repeat("x", bodyBytesMax+1)), "pass pass unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, c.tls, c.h)
			p := New(Config{Allow: loopback, Roots: ca.pool, Timeout: slow})
			got := outcomes(p.endpoint(t.Context(), s.URL))
			if is := got[checkTLS] + " " + got[checkCert] + " " + got[checkSecurity]; is != c.want {
				t.Errorf("%s, want %s: %+v", is, c.want, p.endpoint(t.Context(), s.URL))
			}
		})
	}
}

// Nothing inside is reached, by whatever name: no connection is even begun.
func TestPrivateAddressesAreRefused(t *testing.T) {
	var reached atomic.Int32
	ca := newAuthority(t)
	s := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))}},
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	p := New(Config{Roots: ca.pool, Timeout: slow})
	for _, address := range []string{s.URL, "https://localhost:" + port, "https://[::ffff:127.0.0.1]:" + port, "https://0.0.0.0:" + port, "https://[::1]:" + port} {
		for _, r := range append(p.endpoint(t.Context(), address), p.keySet(t.Context(), address+"/jwks")) {
			if r.Outcome != "unknown" {
				t.Errorf("%s: %+v", address, r)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("reached %d times", n)
	}
	for text, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true,
		"10.0.0.1": false, "172.16.0.1": false, "192.168.1.1": false, "127.0.0.1": false, "169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false,
		"224.0.0.1": false, "255.255.255.255": false, "198.18.0.1": false, "192.0.2.1": false, "::1": false, "::": false, "fe80::1": false, "fd00::1": false,
		"64:ff9b::a00:1": false, "2002:a00:1::": false, "2001:db8::1": false, "ff02::1": false,
	} {
		if got := public(netip.MustParseAddr(text)); got != want {
			t.Errorf("public(%s) = %v", text, got)
		}
	}
	for _, address := range []string{"", "http://a.example", "https://", "https://u:p@a.example", "file:///etc/passwd", "https://a.example:0x", "gopher://a"} {
		if _, _, err := parse(address); err == nil {
			t.Errorf("%q was taken", address)
		}
	}
}

// What does not answer is unknown: it neither passes nor fails.
func TestSilentEndpointsAreUnknown(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // accepts and never says a word; the caller gives up
		conn, err := silent.Accept()
		if err == nil {
			defer conn.Close()
			cancel()
			<-t.Context().Done()
		}
	}()
	p := New(Config{Allow: loopback, Timeout: slow})
	for _, r := range p.Probe(ctx, &registry.Product{}, control.ProbeTargets{Endpoint: "https://" + silent.Addr().String()}) {
		if r.Check != checkCadence && r.Outcome != "unknown" {
			t.Errorf("%+v", r)
		}
		if _, port, _ := net.SplitHostPort(silent.Addr().String()); strings.Contains(r.Say, port) {
			t.Errorf("tells of the network: %s", r.Say)
		}
	}
}

func TestSecurityTxt(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	const contact, expires = "Contact: https://pay.example/report\n", "Expires: 2027-06-30T00:00:00Z\n"
	for text, want := range map[string]string{
		contact + expires: "pass",
		"CONTACT: mailto:a@b.example\r\nexpires: 2027-06-30T00:00:00Z\r\n": "pass",
		"":                          "fail",
		contact:                     "fail",
		expires:                     "fail",
		contact + expires + expires: "fail",
		contact + "Expires: soon\n": "fail",
		contact + "Expires: 2026-11-21T00:00:00Z\n": "fail",
		contact + "Expires: 2029-01-01T00:00:00Z\n": "warn",
		"Contact: security@pay.example\n" + expires: "fail", // no URI (RFC 9116 §2.5.3)
		"#" + contact + expires:                     "fail",
	} {
		if got, say := SecurityTxt([]byte(text), now); got != want || say == "" {
			t.Errorf("%q: %s (%s)", text, got, say)
		}
	}
}

func jwk(t *testing.T, key any, meta jwkset.JWKMetadataOptions, private bool) json.RawMessage {
	t.Helper()
	k, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: meta, Marshal: jwkset.JWKMarshalOptions{Private: private}, Validate: jwkset.JWKValidateOptions{SkipAll: true}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(k.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestJWKS(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	meta := func(kid string) jwkset.JWKMetadataOptions {
		return jwkset.JWKMetadataOptions{KID: kid, ALG: jwkset.AlgES256, USE: jwkset.UseSig}
	}
	good := jwk(t, &ec.PublicKey, meta("1"), false)
	for name, c := range map[string]struct {
		keys []json.RawMessage
		want string
	}{
		"good":        {[]json.RawMessage{good, jwk(t, ed.Public(), jwkset.JWKMetadataOptions{KID: "2", ALG: jwkset.AlgEdDSA, USE: jwkset.UseSig}, false)}, "pass"},
		"private":     {[]json.RawMessage{good, jwk(t, ec, meta("2"), true)}, "fail"},
		"symmetric":   {[]json.RawMessage{json.RawMessage(`{"kty":"oct","k":"AAAA","kid":"x"}`)}, "fail"},
		"small":       {[]json.RawMessage{jwk(t, small, jwkset.JWKMetadataOptions{KID: "1", ALG: jwkset.AlgRS256, USE: jwkset.UseSig}, false)}, "fail"},
		"no kid":      {[]json.RawMessage{jwk(t, &ec.PublicKey, meta(""), false)}, "fail"},
		"same kid":    {[]json.RawMessage{good, good}, "fail"},
		"no alg":      {[]json.RawMessage{jwk(t, &ec.PublicKey, jwkset.JWKMetadataOptions{KID: "1"}, false)}, "warn"},
		"no key":      {nil, "fail"},
		"no object":   {[]json.RawMessage{json.RawMessage(`7`)}, "fail"},
		"off curve":   {[]json.RawMessage{json.RawMessage(`{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA","kid":"1"}`)}, "fail"},
		"a new thing": {[]json.RawMessage{json.RawMessage(`{"kty":"PQC","kid":"1"}`)}, "fail"},
	} {
		b, err := json.Marshal(map[string]any{"keys": c.keys})
		if err != nil {
			t.Fatal(err)
		}
		if got, say := JWKS(b); got != c.want || say == "" {
			t.Errorf("%s: %s (%s)", name, got, say)
		}
	}
	if got, _ := JWKS([]byte("<html>")); got != "fail" {
		t.Error("a page passes")
	}
	ca := newAuthority(t)
	b, err := json.Marshal(map[string]any{"keys": []json.RawMessage{good}})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))}},
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }))
	if r := New(Config{Allow: loopback, Roots: ca.pool, Timeout: slow}).keySet(t.Context(), s.URL+"/jwks"); r.Outcome != "pass" {
		t.Errorf("%+v", r)
	}
}

func TestCadence(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	version := func(name string, days int, supported bool) registry.Version {
		v := registry.Version{Version: name, Released: registry.At(now.AddDate(0, 0, -days))}
		if supported {
			v.SupportUntil = registry.At(now.AddDate(1, 0, 0))
		}
		return v
	}
	var quick, kept []registry.Version
	for i := range 7 { // scenario 3: 4.3 to 4.9 within 14 days
		quick = append(quick, version(fmt.Sprint("4.", i+3), i+1, false))
		kept = append(kept, version(fmt.Sprint("4.", i+3), i+1, true))
	}
	ended := version("1", 500, false)
	ended.SupportUntil = registry.At(now.AddDate(0, 0, -1))
	for name, c := range map[string]struct {
		versions []registry.Version
		want     string
	}{
		"one a quarter":                {[]registry.Version{version("1", 90, true)}, "pass"},
		"seven in 14 days, no support": {quick, "fail"},
		"seven in 14 days, supported":  {kept, "warn"},
		"no word of support":           {[]registry.Version{version("1", 90, false)}, "warn"},
		"none supported":               {[]registry.Version{ended}, "fail"},
		"none":                         {nil, "fail"},
	} {
		if r := Cadence(&registry.Product{Versions: c.versions}, now); r.Outcome != c.want || r.Say == "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func FuzzBodies(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA","kid":"1"}]}`))
	f.Add([]byte("Contact: https://a.example\nExpires: 2027-06-30T00:00:00Z\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, out := range []string{first(JWKS(b)), first(SecurityTxt(b, time.Unix(1_790_000_000, 0)))} {
			if out != "pass" && out != "warn" && out != "fail" {
				t.Fatalf("%q", out)
			}
		}
		if first(JWKS(b)) == "pass" && strings.Contains(string(b), `"d":`) {
			t.Fatal("a private key passes")
		}
	})
}

func first(outcome, _ string) string { return outcome }
