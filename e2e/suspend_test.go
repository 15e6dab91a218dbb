package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// suspension is what the API says of one, as far as the cases look.
type suspension struct {
	ID          string
	Revision    int64
	Enforcement struct {
		Complete bool
		Sidecars []struct {
			ID, State string
			Revision  int64
			Until     map[string]time.Time
		}
	}
}

// suspend imposes a suspension as the operator and waits for the sidecars.
func (s *stack) suspend(t testing.TB, kind, id string, more map[string]any) suspension {
	t.Helper()
	body := map[string]any{"subject": map[string]string{"kind": kind, "id": id}, "reason": "case " + t.Name()}
	for k, v := range more {
		body[k] = v
	}
	var x suspension
	if status := s.api(t, s.info.OperatorToken, "POST", "/v1/suspensions?wait=true", body, &x); status != 201 {
		t.Fatalf("suspend %s %s: status %d", kind, id, status)
	}
	return x
}

// lift takes it back, as a second person, and waits.
func (s *stack) lift(t testing.TB, id string) {
	t.Helper()
	var x suspension
	if status := s.api(t, s.info.Operator2Token, "POST", "/v1/suspensions/"+id+"/lift?wait=true", map[string]any{"reason": "case over"}, &x); status != 200 {
		t.Fatalf("lift %s: status %d", id, status)
	}
	if !x.Enforcement.Complete {
		t.Errorf("lifting %s is not complete: %+v", id, x.Enforcement)
	}
}

// J23 and J25: whatever is suspended, the next call with a token that was
// cached as good a moment ago is denied, with the code of what is suspended.
func TestSuspended(t *testing.T) {
	s := sharedStack(t)
	own := s.token(t, nil)
	tlsClient := s.tlsClient(t, "31000000202")
	for _, r := range []struct {
		id, kind, subject string
		more              map[string]any
		method, path      string
		header            http.Header
		tls               bool
		want              string
		receipt           string // what becomes of a receipt meanwhile
	}{
		{"J23", "product", kooka, nil, "GET", lookup, nil, false, "product-suspended", "ok"},
		{"J23", "product", kooka, map[string]any{"emergency": true}, "GET", lookup, nil, false, "product-suspended", "product-suspended"},
		{"J23", "entity", "31000000202", nil, "GET", lookup, nil, false, "entity-suspended", "ok"},
		{"J23", "version", kooka + "@7.1", nil, "GET", lookup, http.Header{"X-Product-Version": {"7.1"}}, false, "version-blocked", "ok"},
		{"J23", "client-app", "fp-1003-prod", nil, "GET", lookup, nil, false, "credential-blocked", "credential-blocked"},
		{"J23", "subscription", "0000300001", nil, "GET", lookup, nil, false, "subscription-blocked", "ok"},
		{"J23", "credential", "", nil, "GET", lookup, nil, true, "credential-blocked", "credential-blocked"},
		{"J23", "service", "abr.lookup", nil, "GET", lookup, nil, false, "service-not-entitled", "ok"},
	} {
		name := r.id + " " + r.kind
		if r.more != nil {
			name += " in an emergency"
		}
		t.Run(name, func(t *testing.T) {
			client, base := http.DefaultClient, s.info.Ingress
			if r.tls {
				client, base = tlsClient, s.info.IngressTLS
				r.subject = thumbprint(t, s, "31000000202")
			}
			o := s.watch(t)
			mustAdmit(t, s.askVia(t, client, base, r.method, r.path, own, r.header), r.path, kooka)
			x := s.suspend(t, r.kind, r.subject, r.more)
			defer s.lift(t, x.ID)
			if !x.Enforcement.Complete {
				t.Fatalf("not complete: %+v", x.Enforcement)
			}
			mustRefuse(t, s.askVia(t, client, base, r.method, r.path, own, r.header), r.want)
			want := 1
			switch got := s.askVia(t, client, base, "GET", receipt, own, r.header); r.receipt {
			case "ok":
				mustAdmit(t, got, receipt, kooka)
				want++
			default:
				mustRefuse(t, got, r.receipt)
			}
			if r.kind == "service" {
				// Others of the product go on.
				mustAdmit(t, s.askVia(t, client, base, "GET", clients, own, nil), clients, kooka)
				want++
			}
			o.check(want, kooka)
		})
	}
	mustAdmit(t, s.ask(t, "GET", lookup, own, nil), lookup, kooka) // as it was found
}

// J25 under load: no call that reaches the upstream arrives after the command
// returned, whatever was under way, and none is lost when it is lifted.
func TestSuspendedUnderLoad(t *testing.T) {
	t.Run("J25 cached token, product suspended at full speed", func(t *testing.T) {
		s := sharedStack(t)
		o := s.watch(t)
		raw := s.token(t, nil)
		var stop atomic.Bool
		var admitted, refused atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for !stop.Load() {
					switch r := s.ask(t, "GET", lookup, raw, nil); {
					case r.status == 200:
						admitted.Add(1)
					case r.code() == "product-suspended":
						refused.Add(1)
					default:
						t.Errorf("%v", r)
						return
					}
				}
			})
		}
		eventually(t, 10*time.Second, "calls are admitted", func() bool { return admitted.Load() > 50 })
		x := s.suspend(t, "product", kooka, nil)
		returned := time.Now()
		if !x.Enforcement.Complete {
			t.Errorf("not complete: %+v", x.Enforcement)
		}
		eventually(t, 10*time.Second, "calls are refused", func() bool { return refused.Load() > 50 })
		s.lift(t, x.ID)
		before := admitted.Load()
		eventually(t, 10*time.Second, "calls are admitted again", func() bool { return admitted.Load() > before+20 })
		stop.Store(true)
		wg.Wait()
		o.check(int(admitted.Load()), kooka)
		for _, a := range s.arrivals(t)[o.arrivals:] {
			// What is admitted from here on, the lift admitted.
			if a.At.After(returned) && s.revisionAt(t, a.DecisionID) <= x.Revision {
				t.Errorf("decision %s, not made after revision %d, arrived %v after the suspension was complete",
					a.DecisionID, x.Revision, a.At.Sub(returned))
			}
		}
	})
}

// revisionAt is the register's revision a decision was made on, by its record.
func (s *stack) revisionAt(t testing.TB, decision string) (rev int64) {
	t.Helper()
	var d struct{ Decision struct{ Revision int64 } }
	eventually(t, 20*time.Second, "decision "+decision+" is recorded", func() bool {
		return s.api(t, s.info.OperatorToken, "GET", "/v1/decisions/"+url.PathEscape(decision), nil, &d) == 200
	})
	return d.Decision.Revision
}

// thumbprint is the x5t#S256 of an entity's demo certificate.
func thumbprint(t testing.TB, s *stack, abn string) string {
	t.Helper()
	sum := sha256.Sum256(certificate(t, s, abn).Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func certificate(t testing.TB, s *stack, abn string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.info.ClientCerts, abn+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// D: a token bound to a certificate works with that certificate over TLS, and
// with nothing else. DPoP (D05 to D11) is not built yet: a token that asks for
// it is refused, row D06x.
func TestProofOfPossession(t *testing.T) {
	s := sharedStack(t)
	const own, other = "31000000202", "65000000101"
	x5t := thumbprint(t, s, own)
	m := minter{t, s, s.signer}
	bound := m.claim("cnf", map[string]any{"x5t#S256": x5t})
	free := s.token(t, nil)
	cert := certificate(t, s, own)
	escaped := url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})))
	sum := sha256.Sum256(cert.Raw)
	hash := hex.EncodeToString(sum[:])
	binding := "token-binding-mismatch"
	xfcc := http.Header{"X-Forwarded-Client-Cert": {"Hash=" + hash + ";Cert=\"" + escaped + "\";Subject=\"CN=x\""}}
	const plain, anonymous = "plain", ""
	for _, r := range []struct {
		id, what, via, raw string
		header             http.Header
		want               string
	}{
		{"D01", "bound, its own certificate", own, bound, nil, "ok"},
		{"D01", "bound, no certificate", anonymous, bound, nil, binding},
		{"D01", "bound, another's certificate", other, bound, nil, binding},
		{"D01", "bound, without TLS", plain, bound, nil, binding},
		{"D01", "not bound, over TLS", anonymous, free, nil, "ok"},

		{"D03", "XFCC forged, without TLS", plain, bound, xfcc, binding},
		{"D03", "XFCC forged, TLS, no certificate", anonymous, bound, xfcc, binding},
		{"D03", "XFCC forged, another's certificate", other, bound, xfcc, binding},
		{"D03", "XFCC forged, its own certificate", own, bound, http.Header{"X-Forwarded-Client-Cert": {"Hash=" + strings.Repeat("0", 64)}}, "ok"},

		{"D02x", "thumbprint in hexadecimal", own, m.claim("cnf", map[string]any{"x5t#S256": hash}), nil, "token-malformed"},
		{"D02x", "thumbprint padded", own, m.claim("cnf", map[string]any{"x5t#S256": x5t + "="}), nil, "token-malformed"},
		{"D02x", "cnf empty", own, m.claim("cnf", map[string]any{}), nil, "token-malformed"},
		{"D02x", "cnf null", own, m.more(nil, `,"cnf":null`), nil, "token-malformed"},
		{"D02x", "cnf a string", own, m.claim("cnf", x5t), nil, "token-malformed"},
		{"D02x", "two confirmations, one of them ours", own, m.claim("cnf", map[string]any{"x5t#S256": x5t, "jkt": x5t}), nil, "token-malformed"},
		{"D02x", "x5t#S256 outside cnf does not bind", anonymous, m.claim("x5t#S256", x5t), nil, "ok"},
		{"D02x", "bound to the CA's certificate", own, m.claim("cnf", map[string]any{"x5t#S256": thumbprintOf(t, s.info.CA)}), nil, binding},
		{"D04x", "other headers that name a certificate", anonymous, bound, http.Header{
			"X-Client-Cert": {escaped}, "X-Ssl-Client-Cert": {escaped}, "Client-Cert": {":" + base64.StdEncoding.EncodeToString(cert.Raw) + ":"},
			"X-Ssl-Client-Sha256": {hash}, "X-Forwarded-Client-Cert": {"Cert=\"" + escaped + "\""},
		}, binding},
		{"D06x", "bound to a DPoP key, and nobody checks those yet", own, m.claim("cnf", map[string]any{"jkt": x5t}), nil, "token-malformed"},
		// Whatever the proof: its replay, times, algorithm and nonce are nobody's to judge.
		{"D05", "bound to a DPoP key, with a proof", own, m.claim("cnf", map[string]any{"jkt": x5t}), http.Header{"Dpop": {free}}, "token-malformed"},
		{"D07", "bound to a DPoP key, with two proofs", plain, m.claim("cnf", map[string]any{"jkt": x5t}), http.Header{"Dpop": {free, free}}, "token-malformed"},
		{"D09", "bound to a DPoP key, with an unsigned proof", own, m.claim("cnf", map[string]any{"jkt": x5t}), http.Header{"Dpop": {"e30.e30."}}, "token-malformed"},
		{"D11", "presented as a DPoP token", own, "", http.Header{"Authorization": {"DPoP " + free}, "Dpop": {free}}, "token-missing"},
		{"D12x", "a proof does not stand in for the certificate", anonymous, bound, http.Header{"Dpop": {free}}, binding},
	} {
		t.Run(r.id+" "+r.what, func(t *testing.T) {
			o := s.watch(t)
			client, base := http.DefaultClient, s.info.Ingress
			if r.via != plain {
				client, base = s.tlsClient(t, r.via), s.info.IngressTLS
			}
			got := s.askVia(t, client, base, "GET", lookup, r.raw, r.header)
			if r.want == "ok" {
				mustAdmit(t, got, lookup, kooka)
				o.check(1, kooka)
				return
			}
			mustRefuse(t, got, r.want)
			o.check(0, "")
		})
	}

	t.Run("D01 a resumed session still has its certificate", func(t *testing.T) {
		o := s.watch(t)
		client := s.tlsClient(t, own)
		cfg := client.Transport.(*http.Transport).TLSClientConfig
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		mustAdmit(t, s.askVia(t, client, s.info.IngressTLS, "GET", lookup, bound, nil), lookup, kooka)
		client.CloseIdleConnections()
		// Without the key at hand only resumption can bring the certificate.
		cfg.Certificates = nil
		got := s.askVia(t, client, s.info.IngressTLS, "GET", lookup, bound, nil)
		// Envoy may decline to resume; then the certificate is missing, and so says the refusal.
		if got.status == 200 {
			mustAdmit(t, got, lookup, kooka)
			o.check(2, kooka)
		} else {
			mustRefuse(t, got, binding)
			o.check(1, kooka)
		}
	})
	t.Run("D04x a certificate of nobody's authority is refused in the handshake", func(t *testing.T) {
		o := s.watch(t)
		client := s.tlsClient(t, "")
		// Sent whatever authorities the server names: left alone, the client would not.
		self := selfSigned(t, cert)
		client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &self, nil
		}
		if got := s.askVia(t, client, s.info.IngressTLS, "GET", lookup, free, nil); got.err == nil {
			t.Errorf("got %v, want no connection", got)
		}
		o.check(0, "")
	})
}
