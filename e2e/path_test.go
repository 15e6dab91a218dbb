package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// pathRows are the P cases: which request is it, and is what was decided what
// the upstream gets. The demo has no exempt route (nothing may have one): the
// prefix /public of the cases is a path no service has, /admin likewise, and
// /v1/filings is a receipt.
func pathRows() []wire {
	const up = "/public/../lodgments/v1/receipts/R-1"
	ambiguous := []int{400}
	return []wire{
		{"P01", "dots without a token", bare(up), []int{401}, "token-missing", 0, "", ""},
		{"P01", "dots with a token: decided and forwarded as one path", get(up), []int{200}, "", 1, pathReceipt, ""},
		{"P02x", "encoded dots without a token", bare("/public/%2e%2e/lodgments/v1/receipts/R-1"), []int{401}, "token-missing", 0, "", ""},
		{"P02x", "half encoded dots", get("/public/.%2E/lodgments/v1/receipts/R-1"), []int{200}, "", 1, pathReceipt, ""},
		{"P02x", "dots above the root", get("/../../lodgments/v1/receipts/R-1"), []int{200}, "", 1, pathReceipt, ""},
		{"P02x", "from a mild service to a severe one: the severe one is decided", bare("/lodgments/v1/receipts/../../../individuals/v1/220115957/prefill"), []int{401}, "token-missing", 0, "", ""},
		{"P02x", "a dot at the end", get(pathReceipt + "/."), []int{403}, "service-unknown", 0, "", ""},
		{"P02x", "dots at the end", get(pathReceipt + "/.."), []int{403}, "service-unknown", 0, "", ""},
		{"P02x", "three dots are a name like any other", get("/lodgments/v1/receipts/..."), []int{200}, "", 1, "/lodgments/v1/receipts/...", ""},
		{"P03", "an escaped slash after dots", get("/public/..%2flodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P03", "an escaped slash first", get("/%2Fadmin/x"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P04x", "an escaped backslash", get("/public/..%5clodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P04x", "an escaped slash in a parameter", get("/lodgments/v1/receipts/a%2Fb"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P04x", "a backslash is a slash, for both", get(`/public\..\lodgments\v1\receipts\R-1`), []int{200}, "", 1, pathReceipt, ""},
		{"P05", "dots with an empty path parameter", get("/public/..;/lodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P05", "dots with a path parameter", get("/public/..;a=b/admin"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P06x", "a dot with a path parameter", get("/public/.;/lodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P06x", "encoded dots with a path parameter", get("/public/%2e%2e;/lodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P06x", "a path parameter at the end", get(pathReceipt + ";v=1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P06x", "a session in a parameter of the first segment", get("/lodgments;jsessionid=x/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P06x", "an empty segment with a parameter", get("/;/lodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P06x", "an escaped semicolon", get(pathReceipt + "%3bv=1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P07", "two slashes are no authority", get("//admin/x"), []int{403}, "service-unknown", 0, "", ""},
		{"P07", "two slashes without a token", bare("//lodgments/v1/receipts/R-1"), []int{401}, "token-missing", 0, "", ""},
		{"P07", "slashes are merged, for both", get("//lodgments///v1/receipts/R-1"), []int{200}, "", 1, pathReceipt, ""},
		{"P08x", "a host after two slashes", get("//evil.test/lodgments/v1/receipts/R-1"), []int{403}, "service-unknown", 0, "", ""},
		{"P08x", "a trailing slash", get(pathReceipt + "/"), []int{403}, "service-unknown", 0, "", ""},
		{"P09", "dots encoded twice", get("/public/%252e%252e/lodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "overlong UTF-8 dots", get("/public/%c0%ae%c0%ae/lodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "%u encoding", get("/public/%u002e%u002e/admin"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "a letter needlessly encoded is that letter, for both", get("/lodgments/v1/receipts/%52-1"), []int{200}, "", 1, pathReceipt, ""},
		{"P10x", "an escape that is none", get("/lodgments/v1/receipts/%zz"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "an escape cut short", get("/lodgments/v1/receipts/R%2"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "an encoded NUL", get(pathReceipt + "%00"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "an encoded line end", get(pathReceipt + "%0d%0aX-Product-Id:%20FP-1001"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "dots and a slash of full width", get("/public/%EF%BC%8E%EF%BC%8E%EF%BC%8Flodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "an overlong slash", get("/lodgments%c0%afv1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "an overlong slash of five bytes", get("/lodgments/v1/receipts/%f8%80%80%80%af"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "a letter that folds to another", get("/lodgment%C5%BF/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "a letter and its accent", get("/lodgments/v1/receipts/e%CC%81"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "text from right to left", get("/lodgments/v1/receipts/%e2%80%ae"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "an encoded blank at the end", get(pathReceipt + "%20"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "an encoded tab at the end", get(pathReceipt + "%09"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "an encoded percent sign", get("/lodgments/v1/receipts/%25"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "NUL behind dots", get("/lodgments/v1/receipts/..%00/"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "bytes beyond ASCII", get("/lodgments/v1/receipts/\xc3\xa9"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P10x", "characters no path has", get(`/lodgments/v1/receipts/<"{|}^>`), ambiguous, "request-ambiguous", 0, "", ""},
		{"P11", "an encoded question mark", get(pathReceipt + "%3fy=1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P11", "dots in the query", get(pathReceipt + "?y=/../admin"), []int{200}, "", 1, pathReceipt + "?y=/../admin", ""},
		{"P12x", "a service in the query of no service", get("/admin?/lodgments/v1/receipts/R-1"), []int{403}, "service-unknown", 0, "", ""},
		{"P12x", "a line end in the query stays encoded", get(pathReceipt + "?a=%0d%0aX-Dsp-Product-Id:%20EVIL"), []int{200}, "", 1, pathReceipt + "?a=%0d%0aX-Dsp-Product-Id:%20EVIL", ""},
		{"P12x", "an empty query", get(pathReceipt + "?"), []int{200}, "", 1, pathReceipt + "?", ""},
		{"P12x", "bytes beyond ASCII in the query", get(pathReceipt + "?a=\xff"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P12x", "NUL in the query", get(pathReceipt + "?a=\x00"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P12x", "two question marks", get(pathReceipt + "??a=%2f..%2f"), []int{200}, "", 1, pathReceipt + "??a=%2f..%2f", ""},
		{"P12x", "a fragment", get(pathReceipt + "#/../admin"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P12x", "a fragment in the query", get(pathReceipt + "?a#b"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P12x", "an encoded fragment", get(pathReceipt + "%23x"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P13", "a service's name with more to it, no token", bare("/lodgments/v1/receiptsX/R-1"), []int{401}, "token-missing", 0, "", ""},
		{"P13", "a service's name with more to it", get("/lodgments/v1/receiptsX/R-1"), []int{403}, "service-unknown", 0, "", ""},
		{"P14x", "more segments than the service has", get(pathReceipt + "/more"), []int{403}, "service-unknown", 0, "", ""},
		{"P14x", "an empty parameter", get("/lodgments/v1/receipts/"), []int{403}, "service-unknown", 0, "", ""},
		{"P14x", "another case", get("/Lodgments/v1/receipts/R-1"), []int{403}, "service-unknown", 0, "", ""},
		{"P14x", "the template itself", get("/lodgments/v1/receipts/{id}"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P15", "another host in absolute form", "GET http://evil.test" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", []int{404}, "host-unknown", 0, "", ""},
		{"P15", "our host in absolute form beats the Host header", "GET http://localhost" + pathReceipt + " HTTP/1.1\r\nHost: evil.test\r\nAUTH\r\n", []int{200}, "", 1, pathReceipt, ""},
		{"P16x", "https in absolute form without TLS", "GET https://localhost" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", ambiguous, "request-ambiguous", 0, "", ""},
		{"P16x", "another scheme in absolute form", "GET file:///etc/passwd HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", ambiguous, "request-ambiguous", 0, "", ""},
		{"P16x", "a host that ends in ours", "GET http://evil.test?@localhost" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", []int{404}, "host-unknown", 0, "", ""},
		{"P16x", "a host that begins as ours", "GET http://localhost.evil.test" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", []int{404}, "host-unknown", 0, "", ""},
		{"P16x", "a backslash in the authority", "GET http://localhost\\@evil.test" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", ambiguous, "request-ambiguous", 0, "", ""},
		{"P16x", "a fragment in the authority", "GET http://evil.test#@localhost" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", ambiguous, "request-ambiguous", 0, "", ""},
		{"P16x", "an encoded NUL in the authority", "GET http://localhost%00.evil.test" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", ambiguous, "request-ambiguous", 0, "", ""},
		{"P16x", "no authority", "GET http://" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", ambiguous, "request-ambiguous", 0, "", ""},
		{"P16x", "a socket's scheme", "GET ws://localhost" + pathSocket + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", ambiguous, "request-ambiguous", 0, "", ""},
		{"P16x", "absolute form without a path", "GET http://localhost HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", []int{403}, "service-unknown", 0, "", ""},
		{"P16x", "absolute form with dots", "GET http://localhost/public/../lodgments/v1/receipts/R-1 HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{401}, "token-missing", 0, "", ""},
		{"P16x", "another environment in absolute form", "GET http://evte.localhost" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", []int{403}, "environment-mismatch", 0, "", ""},
		{"P16x", "a host hidden behind a user", "GET http://localhost@evil.test" + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", []int{404}, "host-unknown", 0, "", ""},
		{"P17", "a path of 20 KB", bare("/lodgments/v1/receipts/" + strings.Repeat("a", 20<<10)), ambiguous, "request-ambiguous", 0, "",
			"bounded at 2,048 bytes; what it costs is BenchmarkMatch in registry, no row asserts a time"},
		{"P17", "a path of 40 KB", bare("/" + strings.Repeat("a", 40<<10)), []int{431}, "headers-too-large", 0, "", ""},
		{"P17", "four thousand segments that cancel out", get(strings.Repeat("/a/..", 4000) + pathReceipt), []int{200}, "", 1, pathReceipt, ""},
		{"P17", "ten thousand segments", get(strings.Repeat("/a", 10000)), ambiguous, "request-ambiguous", 0, "", ""},
		{"P18x", "no path at all", get(""), ambiguous, "request-ambiguous", 0, "", ""},
		{"P18x", "a path without its slash", get("lodgments/v1/receipts/R-1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P18x", "an asterisk", get("*"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P18x", "OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n", []int{404}, "host-unknown", 0, "", ""},
		{"P18x", "a blank in the path", get("/lodgments/v1/receipts/R 1"), ambiguous, "request-ambiguous", 0, "", ""},
		{"P19", "an unknown host", to("evil.test"), []int{404}, "host-unknown", 0, "", ""},
		{"P19", "an unknown path", get("/nothing"), []int{403}, "service-unknown", 0, "", ""},
		{"P19", "an unknown path without a token", bare("/nothing"), []int{401}, "token-missing", 0, "", ""},
		{"P19", "another method of a service", strings.Replace(get(pathReceipt), "GET", "DELETE", 1), []int{403}, "service-unknown", 0, "", ""},
		{"P19", "HEAD of a service that has GET", strings.Replace(get(pathReceipt), "GET", "HEAD", 1), []int{403}, "", 0, "", ""},
		{"P19", "another method by header", strings.Replace(get(pathReceipt, "X-HTTP-Method-Override: GET\r\n"), "GET", "DELETE", 1), []int{403}, "service-unknown", 0, "", ""},
	}
}

func TestPathCases(t *testing.T) {
	s := sharedStack(t)
	since := len(s.arrivals(t))
	for _, w := range pathRows() {
		t.Run(w.id+" "+w.name, func(t *testing.T) { w.run(t, s) })
	}

	// What a path can be only in HTTP/2.
	for _, c := range []struct {
		name, path string
		status     []int
		arrivals   int
	}{
		{"P20x h2: an empty path", "", []int{0, 400}, 0},
		{"P20x h2: a path without its slash", "lodgments/v1/receipts/R-1", []int{0, 400, 404}, 0},
		{"P20x h2: an absolute path", "http://localhost/lodgments/v1/receipts/R-1", []int{0, 400, 404}, 0},
		{"P20x h2: an asterisk", "*", []int{0, 400, 404}, 0},
		{"P20x h2: a fragment", pathReceipt + "#x", []int{0, 400}, 0},
		{"P20x h2: a blank", "/lodgments/v1/receipts/R 1", []int{0, 400}, 0},
		{"P20x h2: a line end", "/lodgments/v1/receipts/R\r\nx: y", []int{0, 400}, 0},
		{"P20x h2: NUL", "/lodgments/v1/receipts/R\x00", []int{0, 400}, 0},
		{"P20x h2: dots", "/public/../lodgments/v1/receipts/R-1", []int{200}, 1},
		{"P20x h2: dots with a path parameter", "/public/..;/lodgments/v1/receipts/R-1", []int{400}, 0},
		{"P20x h2: an escaped slash", "/public/..%2flodgments/v1/receipts/R-1", []int{400}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := s.token(t, nil)
			o := s.watch(t)
			conn := s.h2(t, nil)
			conn.headers(true, fields(":path", c.path, "authorization", "Bearer "+token)...)
			code := "request-ambiguous"
			a := conn.answer()
			if a.status == 404 {
				code = "host-unknown"
			}
			(&wire{status: c.status, code: code, arrivals: c.arrivals, target: pathReceipt}).judge(t, o, a, token)
		})
	}

	t.Run("P19 no internal redirect, no route past the authorizer", func(t *testing.T) {
		resp, err := http.Get(s.info.EnvoyAdmin + "/config_dump")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		dump, err := io.ReadAll(resp.Body)
		if err != nil || !json.Valid(dump) || !strings.Contains(string(dump), `"receipts.get"`) {
			t.Fatalf("no dump of the configuration in force: %v", err)
		}
		for _, word := range []string{"internal_redirect_policy", `"redirect"`, `"failure_mode_allow": true`, `"allow_connect"`, `"connect_config"`} {
			if strings.Contains(string(dump), word) {
				t.Errorf("Envoy's configuration has %s", word)
			}
		}
		var all any
		if err := json.Unmarshal(dump, &all); err != nil {
			t.Fatal(err)
		}
		if past := exempt(all, false); past > 0 {
			t.Errorf("the authorizer is switched off in %d places", past)
		}
	})
	s.conserved(t, since)
}

// exempt counts the places where ext_authz is switched off: the filter itself,
// or what stands under its name in a route.
func exempt(v any, authz bool) (n int) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			n += exempt(x, authz)
		}
	case map[string]any:
		kind, _ := v["@type"].(string)
		authz = authz || v["name"] == "envoy.filters.http.ext_authz" || strings.Contains(kind, "ext_authz")
		if authz && v["disabled"] == true {
			n++
		}
		for k, x := range v {
			n += exempt(x, authz || k == "envoy.filters.http.ext_authz")
		}
	}
	return n
}
