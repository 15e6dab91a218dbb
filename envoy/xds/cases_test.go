package xds_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/dspgate/dspgate/envoy/headers"
)

const good = "authorization: Bearer good\r\n"

// raw sends bytes on a connection of its own and reads the one answer to them;
// nil when Envoy closed without one.
func (g *gate) raw(t testing.TB, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", g.envoy.Ingress)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	for err == nil && resp.StatusCode == http.StatusContinue {
		resp, err = http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err) {
		return nil
	}
	if err != nil {
		t.Fatalf("answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !isReset(err) {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// get writes a plain GET with further header lines.
func get(path, host string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nhost: " + host + "\r\n" + strings.Join(lines, "") + "\r\n"
}

func post(path string, lines ...string) string {
	return "POST " + path + " HTTP/1.1\r\nhost: localhost\r\n" + good + strings.Join(lines, "")
}

// rawCase is a row of cases.md that is Envoy's own to answer.
type rawCase struct {
	id, name, request string
	status            []int  // any of them; 0: closed without an answer
	code              string // of the problem; "" when it is the authorizer's, or none
	checks, arrivals  int    // how often the authorizer and the upstream were asked
	target            string // as both saw it; "" when neither did
}

func rawCases() []rawCase {
	service := "/registry/v1/abns/53004085616"
	many := strings.Repeat("x-a: b\r\n", 70)
	return []rawCase{
		{"P01", "dots without a token", get("/public/../registry/v1/abns/1", "localhost"), []int{401}, "", 1, 0, "/registry/v1/abns/1"},
		{"P01", "dots with a token", get("/public/../registry/v1/abns/1", "localhost", good), []int{200}, "", 1, 1, "/registry/v1/abns/1"},
		{"P03", "escaped slash in dots", get("/public/..%2fregistry/v1/abns/1", "localhost", good), []int{400}, "request-ambiguous", 0, 0, ""},
		{"P03", "escaped slash first", get("/%2Fadmin/x", "localhost", good), []int{400}, "request-ambiguous", 0, 0, ""},
		{"P03", "escaped backslash", get("/public/..%5cregistry", "localhost", good), []int{400}, "request-ambiguous", 0, 0, ""},
		{"P05", "dots with a path parameter stay what they are", get("/public/..;/registry/v1/abns/1", "localhost", good), []int{403}, "service-unknown", 1, 0, "/public/..;/registry/v1/abns/1"},
		{"P15", "https in absolute form without TLS", "GET https://localhost" + service + " HTTP/1.1\r\nhost: localhost\r\n" + good + "\r\n", []int{400}, "request-ambiguous", 0, 0, ""},
		{"P05", "path parameter in a service", get("/registry/v1/abns/1;a=b", "localhost", good), []int{403}, "service-unknown", 1, 0, "/registry/v1/abns/1;a=b"},
		{"P07", "two slashes are one", get("//registry//v1/abns/1", "localhost", good), []int{200}, "", 1, 1, "/registry/v1/abns/1"},
		{"P07", "two slashes are no authority", get("//admin/x", "localhost", good), []int{403}, "service-unknown", 1, 0, "/admin/x"},
		{"P09", "double encoding", get("/public/%252e%252e/admin", "localhost", good), []int{403}, "service-unknown", 1, 0, "/public/%252e%252e/admin"},
		{"P11", "escaped question mark", get("/registry/v1/abns/x%3fy=1", "localhost", good), []int{403}, "service-unknown", 1, 0, "/registry/v1/abns/x%3fy=1"},
		{"P11", "dots in the query", get("/registry/v1/abns/x?y=/../admin", "localhost", good), []int{200}, "", 1, 1, "/registry/v1/abns/x?y=/../admin"},
		{"P13", "a prefix of a service", get("/registry/v1/abns/1/more", "localhost"), []int{401}, "", 1, 0, "/registry/v1/abns/1/more"},
		{"P13", "no parameter", get("/registry/v1/abns/", "localhost", good), []int{403}, "service-unknown", 1, 0, "/registry/v1/abns/"},
		{"P15", "another host in absolute form", "GET http://evil.test" + service + " HTTP/1.1\r\nhost: localhost\r\n" + good + "\r\n", []int{404}, "host-unknown", 0, 0, ""},
		{"P17", "a long path", get("/registry/v1/abns/"+strings.Repeat("a", 20<<10), "localhost"), []int{401}, "", 1, 0, "/registry/v1/abns/" + strings.Repeat("a", 20<<10)},
		{"P17", "a path longer than the headers may be", get("/"+strings.Repeat("a", 40<<10), "localhost", good), []int{431}, "", 0, 0, ""},
		{"P17", "four thousand segments", get(strings.Repeat("/a/..", 4000)+service, "localhost", good), []int{200}, "", 1, 1, service},
		{"P19", "an unknown host", get(service, "other.test", good), []int{404}, "host-unknown", 0, 0, ""},
		{"P19", "an unknown path", get("/nothing", "localhost", good), []int{403}, "service-unknown", 1, 0, "/nothing"},
		{"P19", "an unknown path, no token", get("/nothing", "localhost"), []int{401}, "", 1, 0, "/nothing"},
		{"P19", "another method of a service", "DELETE " + service + " HTTP/1.1\r\nhost: localhost\r\n" + good + "\r\n", []int{403}, "service-unknown", 1, 0, service},

		{"H11", "a byte that is not UTF-8", get(service, "localhost", good, "x-a: \xff\xfe\r\n"), []int{200, 400}, "", -1, -1, ""},
		{"H11", "NUL in a header", get(service, "localhost", good, "x-a: a\x00b\r\n"), []int{400}, "", 0, 0, ""},
		{"H15", "two hosts", "GET " + service + " HTTP/1.1\r\nhost: localhost\r\nhost: evil.test\r\n" + good + "\r\n", []int{400, 404}, "", 0, 0, ""},
		{"H15", "user in the host", get(service, "user@localhost", good), []int{400, 404}, "", 0, 0, ""},
		{"H15", "comma in the host", get(service, "localhost,evil.test", good), []int{400, 404}, "", 0, 0, ""},
		{"H15", "no host", "GET " + service + " HTTP/1.1\r\n" + good + "\r\n", []int{400}, "", 0, 0, ""},
		{"H15", "a port and upper case", get(service, "LocalHost:8443", good), []int{200}, "", 1, 1, service},
		{"H15", "a trailing dot", get(service, "localhost.", good), []int{200}, "", 1, 1, service},
		{"H19", "a gRPC deadline", get(service, "localhost", good, "grpc-timeout: 1n\r\n"), []int{200}, "", 1, 1, service},
		{"H21", "an underscore in a header", get(service, "localhost", good, "x_product_id: EVIL\r\n"), []int{400}, "", 0, 0, ""},

		{"F01", "length and chunks", post("/lodgments/v1/payroll-events", "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), []int{400}, "", 0, 0, ""},
		{"F03", "two lengths", post("/lodgments/v1/payroll-events", "content-length: 3\r\ncontent-length: 5\r\n\r\nabc"), []int{400}, "", 0, 0, ""},
		{"F03", "a list of lengths", post("/lodgments/v1/payroll-events", "content-length: 3, 3\r\n\r\nabc"), []int{400}, "", 0, 0, ""},
		{"F03", "a signed length", post("/lodgments/v1/payroll-events", "content-length: +3\r\n\r\nabc"), []int{400}, "", 0, 0, ""},
		{"F03", "a negative length", post("/lodgments/v1/payroll-events", "content-length: -1\r\n\r\nabc"), []int{400}, "", 0, 0, ""},
		{"F05", "HTTP/1.0", "GET " + service + " HTTP/1.0\r\nhost: localhost\r\n" + good + "\r\n", []int{426}, "", 0, 0, ""},
		{"F05", "HTTP/0.9", "GET " + service + "\r\n\r\n", []int{0, 400, 426}, "", 0, 0, ""},
		{"F07", "CONNECT", "CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443\r\n" + good + "\r\n", []int{403}, "service-unknown", 0, 0, ""},
		{"F07", "an upgrade where there is none", get(service, "localhost", good, "connection: upgrade\r\nupgrade: websocket\r\n"), []int{403}, "service-unknown", 0, 0, ""},
		{"F13", "a GET with a body", "GET " + service + " HTTP/1.1\r\nhost: localhost\r\n" + good + "content-length: 3\r\n\r\nabc", []int{200}, "", 1, 1, service},
		{"F13", "an expectation nobody knows", post("/lodgments/v1/payroll-events", "expect: garbage\r\ncontent-length: 1\r\n\r\na"), []int{417}, "expectation-failed", 0, 0, ""},
		{"F13", "the same expectation twice", post("/lodgments/v1/payroll-events", "expect: 100-continue\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\na"), []int{417}, "expectation-failed", 0, 0, ""},
		{"F01", "a transfer coding nobody knows", post("/lodgments/v1/payroll-events", "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), []int{400}, "request-ambiguous", 0, 0, ""},
		{"F13", "100-continue without a token", "POST /lodgments/v1/payroll-events HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\na", []int{401}, "", 1, 0, "/lodgments/v1/payroll-events"},
		{"F21", "TRACE", "TRACE " + service + " HTTP/1.1\r\nhost: localhost\r\n" + good + "\r\n", []int{405}, "method-not-allowed", 0, 0, ""},
		{"F21", "OPTIONS *", "OPTIONS * HTTP/1.1\r\nhost: localhost\r\n" + good + "\r\n", []int{405, 404}, "", 0, 0, ""},
		{"F21", "a method nobody knows", "FOO " + service + " HTTP/1.1\r\nhost: localhost\r\n" + good + "\r\n", []int{400, 405}, "", 0, 0, ""},
		{"F23", "more headers than allowed", get(service, "localhost", good, many), []int{431}, "", 0, 0, ""},
		{"F23", "a header longer than allowed", get(service, "localhost", good, "x-a: "+strings.Repeat("b", 33<<10)+"\r\n"), []int{431}, "", 0, 0, ""},
	}
}

// TestRawCases runs the rows of P, H and F that are Envoy's own. In every one
// the upstream hears of a request only with a decision, and of the same target
// that was decided upon.
func TestRawCases(t *testing.T) {
	g := startGate(t, nil)
	for _, c := range rawCases() {
		t.Run(c.id+"/"+strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			g.authz.drain()
			g.up.drain()
			resp := g.raw(t, c.request)
			checks, arrivals := g.authz.drain(), g.up.drain()
			status := 0
			if resp != nil {
				status = resp.StatusCode
			}
			if !slices.Contains(c.status, status) {
				t.Errorf("answered %d, want %v", status, c.status)
			}
			code := c.code
			if code == "" && c.checks == 0 && resp != nil {
				code = codeOf[status] // Envoy's own, whichever it was
			}
			if code != "" {
				checkProblem(t, resp, status, code)
			}
			if c.checks >= 0 && (len(checks) != c.checks || len(arrivals) != c.arrivals) {
				t.Errorf("%d checks and %d arrivals, want %d and %d", len(checks), len(arrivals), c.checks, c.arrivals)
			}
			if len(arrivals) > len(checks) {
				t.Errorf("%d arrivals for %d decisions", len(arrivals), len(checks))
			}
			for _, r := range checks {
				if p := r.GetAttributes().GetRequest().GetHttp().GetPath(); c.target != "" && p != c.target {
					t.Errorf("the authorizer saw %q", p)
				}
			}
			for _, a := range arrivals {
				if a.Header.Get(headers.DecisionID) == "" || c.target != "" && a.Target != c.target {
					t.Errorf("the upstream saw %q with decision %q", a.Target, a.Header.Get(headers.DecisionID))
				}
			}
		})
	}
}

// codeOf is the code of Envoy's own refusals, by status.
var codeOf = map[int]string{
	400: "request-ambiguous", 404: "host-unknown", 405: "method-not-allowed", 408: "request-timeout", 426: "upgrade-required", 431: "headers-too-large",
}

// checkProblem wants the contract's body.
func checkProblem(t testing.TB, resp *http.Response, status int, code string) {
	t.Helper()
	if resp == nil {
		t.Errorf("no answer, want the problem %s", code)
		return
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("content-type"); ct != "application/problem+json" {
		t.Errorf("content-type %q", ct)
	}
	var p struct {
		Type, Title, Detail, Instance string
		Status                        int
		Errors                        []struct{ ID, Code, Detail string }
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Errorf("body %q: %v", body, err)
		return
	}
	id := resp.Header.Get("x-request-id")
	if len(p.Errors) != 1 || p.Errors[0].Code != code || p.Errors[0].Detail != p.Detail || p.Errors[0].ID != id ||
		p.Status != status || p.Instance != "/decisions/"+id || id == "" || p.Title == "" || p.Detail == "" ||
		p.Type != "https://dspgate.example/problems/"+code {
		t.Errorf("problem %s with x-request-id %q, want code %s", body, id, code)
	}
}

// TestForgedHeaders is H01, H03, H05, H07 and H09: what a client must not send
// goes nowhere, its claims go to the authorizer and no further.
func TestForgedHeaders(t *testing.T) {
	g := startGate(t, nil)
	var lines []string
	forged := append(headers.Removed(), headers.Set()...)
	for _, p := range headers.RemovedPrefixes() {
		forged = append(forged, p+"anything", strings.TrimSuffix(p, "-")+"-x")
	}
	forged = append(forged, "x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-uri", "x-forwarded-port", "x-forwarded-proto",
		"x-forwarded-client-cert", "x-original-url", "x-envoy-original-path", "x-envoy-upstream-rq-timeout-ms", "x-envoy-retry-on", "x-envoy-auth-partial-body")
	for _, h := range forged {
		lines = append(lines, strings.ToUpper(h)+": EVIL\r\n")
	}
	for _, batch := range [][]string{lines[:len(lines)/3], lines[len(lines)/3 : 2*len(lines)/3], lines[2*len(lines)/3:]} {
		g.authz.drain()
		g.up.drain()
		more := []string{good, "cookie: access_token=good\r\n", "X-Product-Id: FP-1\r\n", "x-product-id: FP-2\r\n", "x-product-version: 9\r\n", "x-software-id: 7\r\n"}
		resp := g.raw(t, get("/registry/v1/abns/1?access_token=good", "localhost", append(more, batch...)...))
		if resp == nil || resp.StatusCode != 200 {
			t.Fatalf("answered %v", resp)
		}
		checks, arrivals := g.authz.drain(), g.up.drain()
		if len(checks) != 1 || len(arrivals) != 1 {
			t.Fatalf("%d checks, %d arrivals", len(checks), len(arrivals))
		}
		if got := headerValues(checks[0], headers.ClaimProductID); !slices.Equal(got, []string{"FP-1", "FP-2"}) {
			t.Errorf("the authorizer saw the product claims %q, not each of them", got)
		}
		if strings.Contains(checks[0].String(), "EVIL") {
			t.Errorf("the authorizer saw a forged header: %v", checks[0])
		}
		if id := resp.Header.Get("x-request-id"); id == "" || id == "EVIL" || header(checks[0], "x-request-id") != id {
			t.Errorf("x-request-id %q, the authorizer saw %q", id, header(checks[0], "x-request-id"))
		}
		a := arrivals[0]
		for h, vs := range a.Header {
			if slices.Contains(vs, "EVIL") || headers.Forged(strings.ToLower(h)) && vs[0] == "EVIL" {
				t.Errorf("the upstream saw %s: %q", h, vs)
			}
		}
		for _, h := range append(headers.Claims(), "authorization", "x-forwarded-client-cert", "x-forwarded-host") {
			if vs := a.Header.Values(h); len(vs) > 0 {
				t.Errorf("the upstream saw %s: %q", h, vs)
			}
		}
		if vs := a.Header.Values(headers.ProductID); !slices.Equal(vs, []string{"FP-1001"}) {
			t.Errorf("the upstream saw the products %q", vs)
		}
	}
	// H09: a token anywhere but in its header is none.
	resp := g.raw(t, get("/registry/v1/abns/1?access_token=good", "localhost", "cookie: access_token=good\r\n", "user-agent: kube-probe/1.30\r\n"))
	if resp == nil || resp.StatusCode != 401 {
		t.Errorf("no token, a probe's user agent: %v", resp)
	}
}

// TestHTTP2Cases is what can only be said in HTTP/2: F07, F09, F11 and the scheme.
func TestHTTP2Cases(t *testing.T) {
	g := startGate(t, nil)
	base := []string{":method", "GET", ":authority", "localhost", ":path", "/registry/v1/abns/1", ":scheme", "http", "authorization", "Bearer good"}
	with := func(kv ...string) []string {
		out := slices.Clone(base)
		for i := 0; i < len(kv); i += 2 {
			for k := 0; k < len(out); k += 2 {
				if out[k] == kv[i] {
					out = slices.Delete(out, k, k+2)
					break
				}
			}
		}
		var pseudo, rest []string
		for i := 0; i < len(kv); i += 2 {
			if strings.HasPrefix(kv[i], ":") {
				pseudo = append(pseudo, kv[i], kv[i+1])
			} else {
				rest = append(rest, kv[i], kv[i+1])
			}
		}
		return append(append(pseudo, out...), rest...)
	}
	upload := with(":method", "POST", ":path", "/lodgments/v1/payroll-events")
	for _, c := range []struct {
		name     string
		send     func(*h2conn)
		status   []string // "" is a stream or connection broken
		arrivals int
	}{
		{"a good one", func(c *h2conn) { c.headers(base, true) }, []string{"200"}, 1},
		{"the file scheme", func(c *h2conn) { c.headers(with(":scheme", "file"), true) }, []string{"400", ""}, 0},
		{"TRACE", func(c *h2conn) { c.headers(with(":method", "TRACE"), true) }, []string{"405", ""}, 0},
		{"F07 extended CONNECT", func(c *h2conn) { c.headers(with(":method", "CONNECT", ":protocol", "websocket"), false) }, []string{"", "400", "403", "405"}, 0},
		{"F07 CONNECT", func(c *h2conn) {
			c.headers([]string{":method", "CONNECT", ":authority", "localhost:443", "authorization", "Bearer good"}, false)
		}, []string{"", "400", "403", "404", "405"}, 0},
		{"F11 less than the length", func(c *h2conn) {
			c.headers(append(slices.Clone(upload), "content-length", "10"), false)
			c.data("abc", true)
		}, []string{"", "400"}, -1},
		{"F11 more than the length", func(c *h2conn) {
			c.headers(append(slices.Clone(upload), "content-length", "1"), false)
			c.data("abcdefghijklmno", true)
		}, []string{"", "400"}, -1},
		{"F09 a trailer", func(c *h2conn) {
			c.headers(upload, false)
			c.data("abc", false)
			c.headers([]string{"x-dsp-product-id", "EVIL", "x-product-id", "EVIL"}, true)
		}, []string{"200"}, 1},
		{"F09 a pseudo header in trailers", func(c *h2conn) {
			c.headers(upload, false)
			c.data("abc", false)
			c.headers([]string{":path", "/admin"}, true)
		}, []string{"", "400"}, -1},
		{"two authorities", func(c *h2conn) { c.headers(append(slices.Clone(base), "host", "evil.test"), true) }, []string{"200", "400", ""}, -1},
		{"an upper-case header", func(c *h2conn) { c.headers(append(slices.Clone(base), "X-Product-Id", "EVIL"), true) }, []string{"", "400"}, 0},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			g.authz.drain()
			g.up.drain()
			conn := dialH2(t, g.envoy.Ingress)
			c.send(conn)
			if got := conn.status(); !slices.Contains(c.status, got) {
				t.Errorf("answered %q, want one of %q", got, c.status)
			}
			checks, arrivals := g.authz.drain(), g.up.drain()
			if len(arrivals) > len(checks) || c.arrivals >= 0 && len(arrivals) != c.arrivals {
				t.Errorf("%d checks, %d arrivals, want %d", len(checks), len(arrivals), c.arrivals)
			}
			for _, a := range arrivals {
				if fmt.Sprint(a.Header, a.Trailer, a.Host) != strings.ReplaceAll(fmt.Sprint(a.Header, a.Trailer, a.Host), "EVIL", "") || strings.Contains(a.Host, "evil") || len(a.Body) > 3 {
					t.Errorf("the upstream saw %+v", a)
				}
			}
		})
	}
}

// TestRapidReset is F15: a client that resets streams fast is cut off and costs
// nobody else an answer.
func TestRapidReset(t *testing.T) {
	g := startGate(t, nil)
	conn := dialH2(t, g.envoy.Ingress)
	closed := false
	for i := range 3000 {
		id := conn.nextID()
		conn.headersOn(id, []string{":method", "GET", ":authority", "localhost", ":path", "/registry/v1/abns/1", ":scheme", "http", "authorization", "Bearer good"}, true)
		if err := conn.framer.WriteRSTStream(id, http2.ErrCodeCancel); err != nil || conn.broken {
			closed = true
			break
		}
		if i%500 == 0 {
			if resp := g.raw(t, get("/registry/v1/abns/1", "localhost", good)); resp == nil || resp.StatusCode != 200 {
				t.Fatalf("an innocent caller got %v", resp)
			}
		}
	}
	if !closed {
		closed = conn.readUntilClosed()
	}
	if !closed {
		t.Error("the connection is still open after 3,000 resets")
	}
	if resp := g.raw(t, get("/registry/v1/abns/1", "localhost", good)); resp == nil || resp.StatusCode != 200 {
		t.Fatalf("an innocent caller got %v", resp)
	}
}

// h2conn speaks HTTP/2 by hand.
type h2conn struct {
	t      testing.TB
	conn   net.Conn
	framer *http2.Framer
	enc    *hpack.Encoder
	buf    bytes.Buffer
	id     uint32
	broken bool
}

func dialH2(t testing.TB, addr string) *h2conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := &h2conn{t: t, conn: conn, framer: http2.NewFramer(conn, conn)}
	c.framer.AllowIllegalWrites = true
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.buf)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *h2conn) nextID() uint32 {
	if c.id == 0 {
		c.id = 1
	} else {
		c.id += 2
	}
	return c.id
}

// headers sends a header block; the first one opens a stream.
func (c *h2conn) headers(kv []string, end bool) {
	if c.id == 0 {
		c.nextID()
	}
	c.headersOn(c.id, kv, end)
}

func (c *h2conn) headersOn(id uint32, kv []string, end bool) {
	c.buf.Reset()
	for i := 0; i < len(kv); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
		c.broken = true
	}
}

func (c *h2conn) data(s string, end bool) {
	if err := c.framer.WriteData(c.id, end, []byte(s)); err != nil {
		c.broken = true
	}
}

// status reads the answer to the end: its status, "" when the stream or the
// connection was broken first.
func (c *h2conn) status() string {
	status := ""
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return status
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if s := f.PseudoValue("status"); s != "" {
				status = s
			}
			if f.StreamEnded() {
				return status
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return status
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return status
		}
	}
}

func (c *h2conn) readUntilClosed() bool {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return !errors.Is(err, net.ErrClosed)
		}
		if _, ok := f.(*http2.GoAwayFrame); ok {
			return true
		}
	}
}
