package e2e

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/envoy/headers"
)

// authorized writes a GET with an Authorization header of its own.
func authorized(value string, lines ...string) string {
	return strings.Replace(get(pathReceipt, lines...), "AUTH", "Authorization: "+value+"\r\n", 1)
}

// headerRows are the H cases: what a client says of itself counts for nothing.
func headerRows() []wire {
	const claims = "the contract has the claim headers compared, not removed before the check (ADR 7); they never reach the upstream"
	ok, ambiguous, unknownHost := []int{200}, []int{400}, []int{404}
	forged := forgedLines()
	return []wire{
		{"H01", "another product's ID", get(pathReceipt, "X-Product-Id: EVIL\r\n"), []int{403}, "product-mismatch", 0, "", claims},
		{"H01", "another product's ID, which exists", get(pathReceipt, "x-PRODUCT-id: FP-1001\r\n"), []int{403}, "product-mismatch", 0, "", claims},
		{"H01", "the ID twice, in two spellings", get(pathReceipt, "X-Product-Id: FP-1003\r\n", "x-product-id: EVIL\r\n"), ambiguous, "request-ambiguous", 0, "", claims},
		{"H01", "the right ID twice", get(pathReceipt, "X-Product-Id: FP-1003\r\n", "X-Product-Id: FP-1003\r\n"), ambiguous, "request-ambiguous", 0, "", claims},
		{"H01", "the right ID", get(pathReceipt, "X-Product-Id: FP-1003\r\n"), ok, "", 1, pathReceipt, claims},
		{"H02x", "two IDs in one line", get(pathReceipt, "X-Product-Id: FP-1003, EVIL\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H02x", "an empty ID before the right one", get(pathReceipt, "X-Product-Id:\r\n", "X-Product-Id: FP-1003\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H02x", "the ID in lower case is another", get(pathReceipt, "X-Product-Id: fp-1003\r\n"), []int{403}, "product-mismatch", 0, "", ""},
		{"H02x", "another software ID", get(pathReceipt, "X-Software-Id: 0000123400\r\n"), []int{403}, "product-mismatch", 0, "", ""},
		{"H02x", "two software IDs", get(pathReceipt, "X-Software-Id: 0000300001\r\n", "X-Software-Id: 0000300001\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H02x", "two versions", get(pathReceipt, "X-Product-Version: 7.1\r\n", "X-Product-Version: 7.1\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H02x", "a version nobody registered", get(pathReceipt, "X-Product-Version: 9.9\r\n"), []int{403}, "version-not-registered", 0, "", ""},
		{"H02x", "an underscore for a hyphen", get(pathReceipt, "X_Product_Id: EVIL\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H02x", "a blank before the colon", get(pathReceipt, "X-Product-Id : EVIL\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H02x", "the credential, named as hop by hop", get(pathReceipt, "Connection: close, authorization\r\n"), []int{401}, "token-missing", 0, "", "removed before anybody looks"},
		{"H02x", "the host, named as hop by hop", get(pathReceipt, "Connection: host\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H02x", "the client's address, named as hop by hop", get(pathReceipt, "Connection: keep-alive, x-forwarded-for\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H02x", "the ID in quotes", get(pathReceipt, "X-Product-Id: \"FP-1003\"\r\n"), []int{403}, "product-mismatch", 0, "", ""},
		{"H02x", "the ID as an encoded word", get(pathReceipt, "X-Product-Id: =?utf-8?q?FP-1003?=\r\n"), []int{403}, "product-mismatch", 0, "", ""},
		{"H02x", "the ID with NUL", get(pathReceipt, "X-Product-Id: FP-1003\x00\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H02x", "the ID behind a lone line feed", get(pathReceipt, "X-A: b\nX-Product-Id: EVIL\r\n"), []int{403}, "product-mismatch", 0, "", "a line end to Envoy (RFC 9112 §2.2), and so to the sidecar"},
		{"H02x", "a version with a zero in front", get(pathReceipt, "X-Product-Version: 07.1\r\n"), []int{403}, "version-not-registered", 0, "", ""},
		{"H02x", "a version of 5,000 digits", get(pathReceipt, "X-Product-Version: "+strings.Repeat("7", 5000)+"\r\n"), []int{403}, "version-not-registered", 0, "", ""},
		{"H02x", "what the sidecar sets, named as hop by hop", get(pathReceipt, "Connection: x-dsp-product-id, x-dsp-decision-id\r\n"), ok, "", 1, pathReceipt, ""},

		{"H03", "every forged header, without a token", bare(pathReceipt, forged[:40]...), []int{401}, "token-missing", 0, "", ""},
		{"H03", "every forged header, on an unknown path", get("/nothing", forged[:40]...), []int{403}, "service-unknown", 0, "", ""},
		{"H03", "every forged header, on an unknown host", strings.Replace(get(pathReceipt, forged[:40]...), "Host: localhost", "Host: evil.test", 1), unknownHost, "host-unknown", 0, "", ""},
		{"H05", "another path, host and method by header", get("/nothing",
			"X-Forwarded-Host: evte.localhost\r\n", "X-Forwarded-Prefix: /x\r\n", "X-Forwarded-Uri: "+pathReceipt+"\r\n", "X-Forwarded-Port: 1\r\n",
			"X-Original-Url: "+pathReceipt+"\r\n", "X-Rewrite-Url: "+pathReceipt+"\r\n", "X-Envoy-Original-Path: "+pathReceipt+"\r\n", "X-Envoy-Decorator-Operation: x\r\n",
			"X-HTTP-Method-Override: GET\r\n"), []int{403}, "service-unknown", 0, "", ""},
		{"H06x", "another host by header", get(pathReceipt, "X-Forwarded-Host: evte.localhost\r\n", "X-Host: evte.localhost\r\n", "Forwarded: host=evte.localhost\r\n"), ok, "", 1, pathReceipt, ""},
		{"H06x", "Envoy's own switches", get(pathReceipt, "X-Envoy-Upstream-Rq-Timeout-Ms: 1\r\n", "X-Envoy-Force-Trace: 1\r\n", "X-Envoy-Retry-On: 5xx\r\n",
			"X-Envoy-Internal: true\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Proto: https\r\n"), ok, "", 1, pathReceipt, ""},

		{"H09", "the token in the query", bare(pathReceipt + "?access_token=TOKEN"), []int{401}, "token-missing", 0, "", ""},
		{"H09", "the token in a cookie", bare(pathReceipt, "Cookie: access_token=TOKEN; Authorization=TOKEN\r\n"), []int{401}, "token-missing", 0, "", ""},
		{"H09", "the token in the body", strings.Replace(post(pathPayroll, "Content-Type: application/x-www-form-urlencoded\r\n", "Content-Length: 1000\r\nConnection: close\r\n", "access_token=TOKEN"), "AUTH", "", 1), []int{401}, "token-missing", 0, "", ""},
		{"H10x", "the token for a proxy", bare(pathReceipt, "Proxy-Authorization: Bearer TOKEN\r\n", "X-Authorization: Bearer TOKEN\r\n", "X-Forwarded-Authorization: Bearer TOKEN\r\n"), []int{401}, "token-missing", 0, "", ""},
		{"H10x", "two Authorization headers", authorized("Bearer TOKEN", "Authorization: Bearer TOKEN\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H10x", "another scheme before the token", authorized("Basic YTpi", "Authorization: Bearer TOKEN\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H10x", "two credentials in one line", authorized("Bearer TOKEN, Basic YTpi"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H10x", "another scheme", authorized("Basic YTpi"), []int{401}, "token-missing", 0, "", ""},
		{"H10x", "a tab after the scheme", authorized("Bearer\tTOKEN"), []int{401}, "token-missing", 0, "", ""},
		{"H10x", "two blanks after the scheme", authorized("Bearer  TOKEN"), []int{401}, "token-malformed", 0, "", ""},
		{"H10x", "the scheme in capitals, which RFC 9110 allows", authorized("BEARER TOKEN"), ok, "", 1, pathReceipt, ""},
		{"H10x", "the token named as hop by hop", get(pathReceipt, "Connection: authorization\r\n"), []int{401}, "token-missing", 0, "", ""},

		{"H11", "a byte that is not UTF-8 in some header", get(pathReceipt, "X-A: \xff\xfe\r\n"), ok, "", 1, pathReceipt, "the header is not sent to the sidecar, and no service's meaning is in it"},
		{"H11", "a byte that is not UTF-8 in a claim", get(pathReceipt, "X-Product-Id: FP-1003\xff\r\n"), []int{403}, "product-mismatch", 0, "", ""},
		{"H11", "a byte that is not UTF-8 in the token", authorized("Bearer TOKEN\xff"), []int{401}, "token-malformed", 0, "", ""},
		{"H11", "a byte that is not UTF-8 in the content type", get(pathReceipt, "Content-Type: \xff\xfe\r\n"), ok, "", 1, pathReceipt, ""},
		{"H11", "a byte that is not UTF-8 in the host", to("localhost\xff"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H12x", "NUL in a header", get(pathReceipt, "X-A: a\x00b\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H12x", "NUL in a name", get(pathReceipt, "X\x00A: b\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H12x", "a lone CR before a claim", get(pathReceipt, "X-A: b\rX-Dsp-Product-Id: EVIL\r\n"), []int{200, 400}, "request-ambiguous", -1, "", "one identity upstream, by O2"},
		{"H12x", "a name without a colon", get(pathReceipt, "X-A\r\n"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H12x", "no name", get(pathReceipt, ": x\r\n"), ambiguous, "request-ambiguous", 0, "", ""},

		{"H13", "a folded Authorization", authorized("Bearer\r\n TOKEN"), ok, "", 1, pathReceipt, "unfolded by Envoy into one value"},
		{"H13", "a header folded into another", get(pathReceipt, "X-A: b\r\n X-Product-Id: EVIL\r\n"), ok, "", 1, pathReceipt, "one value of x-a"},
		{"H14x", "a first header that is folded", "GET " + pathReceipt + " HTTP/1.1\r\n Host: localhost\r\nAUTH\r\n", ambiguous, "request-ambiguous", 0, "", ""},
		{"H14x", "a folded claim", get(pathReceipt, "X-Product-Id: FP-1003\r\n EVIL\r\n"), []int{403}, "product-mismatch", 0, "", ""},

		{"H15", "two hosts", get(pathReceipt, "Host: evil.test\r\n"), unknownHost, "host-unknown", 0, "", ""},
		{"H15", "the same host twice", get(pathReceipt, "Host: localhost\r\n"), unknownHost, "host-unknown", 0, "", ""},
		{"H15", "a user in the host", to("user@localhost"), unknownHost, "host-unknown", 0, "", ""},
		{"H15", "a comma in the host", to("localhost,evil.test"), unknownHost, "host-unknown", 0, "", ""},
		{"H15", "no host", "GET " + pathReceipt + " HTTP/1.1\r\nAUTH\r\n", ambiguous, "request-ambiguous", 0, "", ""},
		{"H15", "an empty host", to(""), unknownHost, "host-unknown", 0, "", ""},
		{"H15", "a port", to("localhost:8443"), ok, "", 1, pathReceipt, ""},
		{"H15", "a trailing dot", to("localhost."), ok, "", 1, pathReceipt, ""},
		{"H16x", "upper case", to("LocalHost"), ok, "", 1, pathReceipt, ""},
		{"H16x", "two trailing dots", to("localhost.."), unknownHost, "host-unknown", 0, "", ""},
		{"H16x", "a port that is none", to("localhost:x"), unknownHost, "host-unknown", 0, "", ""},
		{"H16x", "two ports", to("localhost:80:80"), unknownHost, "host-unknown", 0, "", ""},
		{"H16x", "a path in the host", to("localhost/x"), ambiguous, "request-ambiguous", 0, "", ""},
		{"H16x", "a wildcard", to("*"), unknownHost, "host-unknown", 0, "", ""},
		{"H16x", "a subdomain", to("x.localhost"), unknownHost, "host-unknown", 0, "", ""},
		{"H16x", "an encoded NUL in the host", to("localhost%00"), unknownHost, "host-unknown", 0, "", ""},
		{"H16x", "our address in another spelling", to("0x7f.1"), unknownHost, "host-unknown", 0, "", ""},
		{"H16x", "our address over IPv6", to("[::1]"), unknownHost, "host-unknown", 0, "", ""},
		{"H16x", "the test environment with a production app", to("EVTE.localhost.:1"), []int{403}, "environment-mismatch", 0, "", ""},

		{"H17", "a probe's user agent", bare(pathReceipt, "User-Agent: kube-probe/1.30\r\n"), []int{401}, "token-missing", 0, "", ""},
		{"H17", "a load balancer's user agent", bare(pathReceipt, "User-Agent: ELB-HealthChecker/2.0\r\n", "X-Envoy-Healthchecked-Cluster: x\r\n"), []int{401}, "token-missing", 0, "", ""},
		{"H18x", "a probe's path", bare("/healthz"), []int{401}, "token-missing", 0, "", ""},
		{"H18x", "a preflight of a browser", "OPTIONS " + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.test\r\nAccess-Control-Request-Method: GET\r\n\r\n", []int{405}, "method-not-allowed", 0, "", ""},

		{"H19", "a deadline of a nanosecond", get(pathReceipt, "Grpc-Timeout: 1n\r\n"), ok, "", 1, pathReceipt, ""},
		{"H20x", "twenty kilobytes of a header", get(pathReceipt, "X-A: "+strings.Repeat("b", 20<<10)+"\r\n"), ok, "", 1, pathReceipt, ""},
		{"H20x", "a header longer than allowed", get(pathReceipt, "X-A: "+strings.Repeat("b", 33<<10)+"\r\n"), []int{431}, "headers-too-large", 0, "", ""},
		{"H20x", "a name longer than allowed", get(pathReceipt, strings.Repeat("b", 33<<10)+": x\r\n"), []int{431}, "headers-too-large", 0, "", ""},
		{"H20x", "forty headers", get(pathReceipt, strings.Repeat("X-A: b\r\n", 36)), ok, "", 1, pathReceipt, ""},
		{"H20x", "more headers than allowed", get(pathReceipt, strings.Repeat("X-A: b\r\n", 70)), []int{431}, "headers-too-large", 0, "", ""},
	}
}

// forgedLines are all headers that a client must not send, and some of each
// family, with a value that is easy to find again.
func forgedLines() (lines []string) {
	names := append(headers.Removed(), headers.Set()...)
	for _, p := range headers.RemovedPrefixes() {
		names = append(names, p+"x")
	}
	names = append(names, "x-forwarded-for", "x-forwarded-host", "x-forwarded-client-cert", "x-original-url", "x-envoy-auth-partial-body")
	for i, n := range names {
		if i%2 == 0 {
			n = strings.ToUpper(n)
		}
		lines = append(lines, n+": EVIL\r\n")
	}
	return lines
}

func TestHeaderCases(t *testing.T) {
	s := sharedStack(t)
	since := len(s.arrivals(t))
	for _, w := range headerRows() {
		t.Run(w.id+" "+w.name, func(t *testing.T) {
			if w.arrivals < 0 { // refused or forwarded: then once, by the oracles
				o, token := s.watch(t), s.token(t, nil)
				a := s.talk(t, fill(w.request, token))
				if w.arrivals = 0; a.status == 200 {
					w.arrivals = 1
				}
				w.judge(t, o, a, token)
				return
			}
			w.run(t, s)
		})
	}

	// H01, H03, H05, H07: what is forged goes no further. In batches: an Envoy
	// takes 64 headers.
	for batch := range slices.Chunk(forgedLines(), 40) {
		t.Run("H03 forged headers go no further: "+strings.SplitN(batch[0], ":", 2)[0]+" …", func(t *testing.T) {
			token := s.token(t, nil)
			o := s.watch(t)
			a := s.talk(t, fill(get(pathReceipt, append(batch, "X-Product-Id: FP-1003\r\n", "X-Software-Id: 0000300001\r\n", "X-Product-Version: 7.1\r\n")...), token))
			(&wire{status: []int{200}, arrivals: 1, target: pathReceipt}).judge(t, o, a, token)
			if strings.Contains(string(a.body), "EVIL") || a.header.Get("X-Request-Id") == "EVIL" {
				t.Errorf("a forged value came through: %v %s", a.header, a.body)
			}
			at := s.arrivals(t)[o.arrivals]
			for _, name := range at.Headers {
				set := slices.Contains(headers.Set(), name)
				// Envoy's own, made anew for the real peer.
				own := slices.Contains([]string{"x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address"}, name)
				if headers.Forged(name) && !set && !own || slices.Contains(headers.Claims(), name) || name == "authorization" {
					t.Errorf("the upstream saw %s", name)
				}
			}
		})
	}

	t.Run("H07 a forged certificate binds no token", func(t *testing.T) { forgedCertificate(t, s) })
	t.Run("H08x the certificate of another", func(t *testing.T) {
		token := boundToken(t, s, "31000000202")
		w := wire{status: []int{401}, code: "token-binding-mismatch"}
		o := s.watch(t)
		w.judge(t, o, overTLS(t, s, "65000000101", "localhost", fill(get(pathReceipt), token)), token)
		w = wire{status: []int{200}, arrivals: 1, target: pathReceipt}
		o = s.watch(t)
		w.judge(t, o, overTLS(t, s, "31000000202", "localhost", fill(get(pathReceipt), token)), token)
	})
	t.Run("H16x TLS for one host, Host of another: the Host decides", func(t *testing.T) {
		token := s.token(t, nil)
		for host, w := range map[string]wire{
			"evil.test":      {status: []int{404}, code: "host-unknown"},
			"evte.localhost": {status: []int{403}, code: "environment-mismatch"},
			"localhost":      {status: []int{200}, arrivals: 1, target: pathReceipt},
		} {
			o := s.watch(t)
			w.judge(t, o, overTLS(t, s, "", "evte.localhost", fill(to(host), token)), token)
		}
	})
	t.Run("H19 the request ID is ours", func(t *testing.T) {
		spoofed := "11111111-1111-4111-8111-111111111111"
		for _, request := range []string{get(pathReceipt, "X-Request-Id: "+spoofed+"\r\n"), bare(pathReceipt, "X-Request-Id: "+spoofed+"\r\n")} {
			if a := s.talk(t, fill(request, s.token(t, nil))); a.header.Get("X-Request-Id") == "" || a.header.Get("X-Request-Id") == spoofed {
				t.Errorf("x-request-id %q", a.header.Get("X-Request-Id"))
			}
		}
	})

	// Allowed, but with what the sidecar adds there are more than 64: an ALLOW that
	// goes no further, and the client's fault, not the authorizer's.
	t.Run("H20x as many headers as are allowed, before the sidecar adds its own", func(t *testing.T) {
		token, before := s.token(t, nil), len(s.arrivals(t))
		for _, n := range []int{50, 55} {
			a := s.talk(t, fill(get(pathReceipt, strings.Repeat("X-A: b\r\n", n)), token))
			if a.status != 431 {
				t.Errorf("answered %v", a)
			}
			mustBeProblem(t, a.reply, "headers-too-large", token)
		}
		if n := len(s.arrivals(t)) - before; n != 0 {
			t.Errorf("%d arrivals", n)
		}
	})

	// What headers can be only in HTTP/2.
	for _, c := range []struct {
		name     string
		fields   []string
		status   []int
		code     string
		arrivals int
	}{
		{"H21x h2: a good one", fields(), []int{200}, "", 1},
		{"H21x h2: the authority and another host", fields("host", "evil.test"), []int{0, 200, 400, 404}, "", -1},
		{"H21x h2: another authority and our host", fields(":authority", "evil.test", "host", "localhost"), []int{404}, "host-unknown", 0},
		{"H21x h2: no authority but a host", fields(":authority", "NONE", "host", "localhost"), []int{0, 200, 400}, "", -1},
		{"H21x h2: neither", fields(":authority", "NONE"), []int{0, 400, 404}, "", 0},
		{"H21x h2: two authorities", append(fields(), ":authority", "localhost"), []int{0, 400}, "", 0},
		{"H21x h2: two paths", append([]string{":path", "/nothing"}, fields()...), []int{0, 400}, "", 0},
		{"H21x h2: a pseudo header nobody knows", append([]string{":product", "EVIL"}, fields()...), []int{0, 400}, "", 0},
		{"H21x h2: a pseudo header after the others", append(fields("x-a", "b"), ":method", "DELETE"), []int{0, 400}, "", 0},
		{"H21x h2: an upper-case name", fields("X-Product-Id", "EVIL"), []int{0, 400}, "", 0},
		{"H21x h2: a line end in a value", fields("x-a", "b\r\nx-dsp-product-id: EVIL"), []int{0, 400}, "", 0},
		{"H21x h2: a blank in a name", fields("x-a ", "b"), []int{0, 400}, "", 0},
		{"H21x h2: an underscore in a name", fields("x_product_id", "EVIL"), []int{0, 400}, "request-ambiguous", 0},
		{"H21x h2: a connection header", fields("connection", "x-dsp-product-id"), []int{0, 400}, "", 0},
		{"H21x h2: a transfer coding", fields("transfer-encoding", "chunked"), []int{0, 400}, "", 0},
		{"H21x h2: another scheme", fields(":scheme", "file"), []int{0, 400}, "request-ambiguous", 0},
		{"H21x h2: a product twice", fields("x-product-id", "FP-1003", "x-product-id", "FP-1003"), []int{400}, "request-ambiguous", 0},
		{"H21x h2: forged identity", fields("x-dsp-product-id", "EVIL", "x-dsp-decision-id", "EVIL"), []int{200}, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := s.token(t, nil)
			o := s.watch(t)
			conn := s.h2(t, nil)
			conn.headers(true, append(slices.Clone(c.fields), "authorization", "Bearer "+token)...)
			a := conn.answer()
			if c.arrivals < 0 {
				if c.arrivals = 0; a.status == 200 {
					c.arrivals = 1
				}
			}
			if c.code == "" {
				c.code = map[int]string{400: "request-ambiguous", 404: "host-unknown"}[a.status]
			}
			(&wire{status: c.status, code: c.code, arrivals: c.arrivals, target: pathReceipt}).judge(t, o, a, token)
		})
	}
	s.conserved(t, since)
}

// boundToken is a token bound to an entity's certificate.
func boundToken(t *testing.T, s *stack, abn string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.info.ClientCerts, abn+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	sum := sha256.Sum256(block.Bytes)
	return s.token(t, func(c map[string]any) {
		c["cnf"] = map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}
	})
}

// forgedCertificate sends what Envoy would say of a certificate, without one.
func forgedCertificate(t *testing.T, s *stack) {
	const abn = "31000000202"
	token := boundToken(t, s, abn)
	text, err := os.ReadFile(filepath.Join(s.info.ClientCerts, abn+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	whole := url.QueryEscape(string(text))
	for _, line := range []string{
		"X-Forwarded-Client-Cert: Hash=" + strings.ToLower(base64.StdEncoding.EncodeToString(cert.Raw[:8])) + ";Cert=\"" + whole + "\";Subject=\"\"\r\n",
		"Client-Cert: :" + base64.StdEncoding.EncodeToString(cert.Raw) + ":\r\n",
		"X-Client-Cert: " + whole + "\r\n", "Ssl-Client-Cert: " + whole + "\r\n", "X-Ssl-Client-Cert: " + whole + "\r\n",
	} {
		w := wire{status: []int{401}, code: "token-binding-mismatch"}
		o := s.watch(t)
		w.judge(t, o, s.talk(t, fill(get(pathReceipt, line), token)), token)
		o = s.watch(t)
		w.judge(t, o, overTLS(t, s, "", "localhost", fill(get(pathReceipt, line), token)), token)
	}
}

// overTLS sends bytes over TLS, with an entity's certificate if abn is not "".
func overTLS(t *testing.T, s *stack, abn, sni, request string) answer {
	t.Helper()
	text, err := os.ReadFile(s.info.CA)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: sni, MinVersion: tls.VersionTLS13}
	if !cfg.RootCAs.AppendCertsFromPEM(text) {
		t.Fatal("the demo's CA is no PEM")
	}
	if abn != "" {
		c, err := tls.LoadX509KeyPair(filepath.Join(s.info.ClientCerts, abn+".pem"), filepath.Join(s.info.ClientCerts, abn+".key"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{c}
	}
	conn := s.dial(t, cfg)
	defer conn.Close()
	return exchange(t, conn, bufio.NewReader(conn), request)
}
