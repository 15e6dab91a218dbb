package control_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/control"
)

// raw sends bytes as they are and reads one answer.
func (w *world) raw(request string) (status int, header http.Header, body string) {
	w.t.Helper()
	u, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	go func() { _, _ = io.WriteString(c, request) }() // the server may answer before it has read all
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%.60q: %v", request, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil && res.StatusCode < 400 {
		w.t.Fatalf("%.60q: %v", request, err)
	}
	return res.StatusCode, res.Header, string(b)
}

func request(method, target, more string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: control.example\r\nConnection: close\r\nAuthorization: Bearer " + tokenOf(operator) + "\r\n" + more + "\r\n"
}

// Paths that are written in other ways lead nowhere: never to a record by another
// name, and never to a redirect.
func TestPathsLeadToOnePlaceOnly(t *testing.T) {
	w := newWorld(t)
	for _, target := range []string{
		"//v1/products/FP-1001", "/v1//products/FP-1001", "/v1/./products/FP-1001", "/v1/x/../products/FP-1001", "/v1/products/FP-1001/", "/v1/products/FP-1001/.",
		"/v1/products/%46P-1001%00", "/v1/products/FP-1001%2f", "/v1/products/..%2fproducts%2fFP-1001", "/v1/products/%2e%2e/products/FP-1001",
		"/V1/products/FP-1001", "/v1/Products/FP-1001", "/v1/products/fp-1001", "/v1/products/FP-1001;x=1", "/v1/products/FP-1001%20", "/v1/products/%EF%BC%A6P-1001",
		"/v1\\products\\FP-1001", "/v1/products/FP-1001%0d%0aX-Injected:%20yes", "/v1/products/%e2%80%aeFP-1001", "/v1/products/" + strings.Repeat("A", 600),
		"/v1/products/%ff%fe", "/openapi.json/", "/docs/assets/%2e%2e%2f%2e%2e%2fgo.mod",
	} {
		status, header, body := w.raw(request("GET", target, ""))
		if status != 404 && status != 400 || header.Get("Location") != "" || header.Get("X-Injected") != "" || strings.Contains(body, `"certification"`) {
			t.Errorf("%.60s: %d %v %.200s", target, status, header, body)
		}
	}
	// The one spelling that is the same by RFC 3986 is the same.
	if status, _, body := w.raw(request("GET", "/v1/products/%46P-1001", "")); status != 200 || !strings.Contains(body, "FP-1001") {
		t.Errorf("%d %s", status, body)
	}
}

// Methods that nobody asked for do nothing, and no page of another origin is let in.
func TestMethodsAndOrigins(t *testing.T) {
	w := newWorld(t)
	for _, method := range []string{"TRACE", "PATCH", "PROPFIND", "get", "POST", "DELETE", "X"} {
		if status, h, body := w.raw(request(method, "/v1/products/FP-1001", "Content-Length: 0\r\nX-HTTP-Method-Override: PUT\r\n")); status != 405 || h.Get("Allow") == "" || strings.Contains(body, tokenOf(operator)) {
			t.Errorf("%s: %d %s", method, status, body)
		}
	}
	if status, _, _ := w.raw("CONNECT control.example:443 HTTP/1.1\r\nHost: control.example:443\r\nConnection: close\r\n\r\n"); status < 400 || status >= 500 {
		t.Errorf("CONNECT: %d", status)
	}
	if status, _, _ := w.raw("OPTIONS * HTTP/1.1\r\nHost: control.example\r\nConnection: close\r\n\r\n"); status >= 500 {
		t.Errorf("OPTIONS *: %d", status)
	}
	for _, r := range []reply{
		w.call(operator, "GET", "/v1/products/FP-1001", nil, header("Origin", "https://evil.example")),
		w.call(nobody, "OPTIONS", "/v1/suspensions", nil, header("Origin", "https://evil.example"), header("Access-Control-Request-Method", "POST"), header("Access-Control-Request-Headers", "authorization")),
	} {
		for name := range r.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: %s", name, r.header.Get(name))
			}
		}
	}
}

// A query may be as large as a header may be; more is refused before it is read.
func TestManyParameters(t *testing.T) {
	w := newWorld(t)
	if status, _, _ := w.raw(request("GET", "/v1/products?"+strings.Repeat("a&", 100_000), "")); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("100,000 parameters: %d", status)
	}
	if status, _, _ := w.raw(request("GET", "/v1/products", strings.Repeat("X-A: b\r\n", 50_000))); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("50,000 headers: %d", status)
	}
	var many strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&many, "p%d=1&", i)
	}
	w.call(operator, "GET", "/v1/products?"+many.String(), nil).refused(t, 422, "invalid")
	w.call(operator, "GET", "/v1/products?q="+strings.Repeat("a", 300), nil).refused(t, 422, "invalid")
	w.call(operator, "GET", "/v1/products?q="+url.QueryEscape("!!! ---"), nil).refused(t, 422, "invalid")
	w.call(operator, "GET", "/v1/products?limit=1;page=2", nil).refused(t, 400, "malformed")
	w.call(operator, "GET", "/v1/products", nil, header("Authorization", "Bearer "+tokenOf(auditor))).refused(t, 401, "unauthenticated") // two of them
}

// A compressed body is refused as such: what it would become is not found out.
func TestCompressedBodies(t *testing.T) {
	w := newWorld(t)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 200 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	for _, path := range []string{"/v1/entities", "/v1/imports?format=csv", "/v1/imports?format=json", "/v1/products/FP-1001/evidence?type=policy"} {
		w.call(registrar, "POST", path, bomb.String(), header("Content-Encoding", "gzip")).refused(t, 415, "unsupported-media-type")
	}
	w.call(registrar, "POST", "/v1/entities", `{"abn":"64000000490","name":"x"}`, header("Content-Encoding", "identity")).data(t, 201, &struct{}{})
}

// Texts that would show as something else than they are never come in.
func TestTextsThatDeceive(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{`a\u0000b`, `a\u202eb`, `a\u200bb`, `a\nb`, `\ud800`, `\u001b[31mred`, `   `} {
		r := w.call(registrar, "POST", "/v1/entities", `{"abn":"64000000571","name":"`+name+`"}`)
		if name == `\ud800` && r.status == 201 { // it is U+FFFD by then, as everybody sees
			continue
		}
		if e := r.refused(t, 422, "invalid"); e.Source.Pointer != "/name" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// Who sends slowly is cut off, and who sends nothing as well.
func TestSlowCallersAreCutOff(t *testing.T) {
	s := control.NewHTTPServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 || s.ReadTimeout > time.Minute || s.WriteTimeout > time.Minute {
		t.Errorf("%+v", s)
	}
	s.ReadTimeout = 50 * time.Millisecond
	w := newWorld(t)
	s.Handler = w.api
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { s.Close() })
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "POST /v1/entities HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\nAuthorization: Bearer "+tokenOf(registrar)+"\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c) // and then nothing more is sent
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "broke off") {
		t.Errorf("%s, %v", answer, err)
	}
}
