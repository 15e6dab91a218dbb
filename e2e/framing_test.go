package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	chunked  = "Transfer-Encoding: chunked\r\n"
	upgrade  = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	hidden   = "GET " + pathReceipt + " HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n" // a request that must stay a body
	closeIt  = "Connection: close\r\n"
	noBody   = "\r\n"
	ended    = "0\r\n\r\n"
	ambigual = "request-ambiguous"
)

// framingRows are the F cases that one HTTP/1 message can say.
func framingRows() []wire {
	ok, bad := []int{200}, []int{400}
	length := func(v string) string { return post(pathPayroll, "Content-Length: "+v+"\r\n", "abc") }
	method := func(m string) string { return strings.Replace(get(pathReceipt, closeIt), "GET", m, 1) }
	return []wire{
		{"F01", "length, then chunks", post(pathPayroll, "Content-Length: 4\r\n", chunked, ended), bad, ambigual, 0, "", ""},
		{"F01", "chunks, then length", post(pathPayroll, chunked, "Content-Length: 4\r\n", "5c\r\n"+hidden+"\r\n"+ended), bad, ambigual, 0, "", ""},
		{"F02x", "two transfer codings", post(pathPayroll, chunked, "Transfer-Encoding: identity\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "a coding nobody knows", post(pathPayroll, "Transfer-Encoding: xchunked\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "a list of codings", post(pathPayroll, "Transfer-Encoding: gzip, chunked\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "a blank before the colon", post(pathPayroll, "Transfer-Encoding : chunked\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "a vertical tab before the coding", post(pathPayroll, "Transfer-Encoding: \x0bchunked\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "the coding twice", post(pathPayroll, chunked, chunked, ended), bad, ambigual, 0, "", ""},
		{"F02x", "the coding twice in a list", post(pathPayroll, "Transfer-Encoding: chunked, chunked\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "the coding first in a list", post(pathPayroll, "Transfer-Encoding: chunked, identity\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "the coding with a comma", post(pathPayroll, "Transfer-Encoding: ,chunked\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "the coding in quotes", post(pathPayroll, "Transfer-Encoding: \"chunked\"\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "the coding with a parameter", post(pathPayroll, "Transfer-Encoding: chunked;q=1\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "the coding with NUL", post(pathPayroll, "Transfer-Encoding: chunked\x00\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "the coding folded in two", post(pathPayroll, "Transfer-Encoding: chun\r\n ked\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "the coding with an underscore in its name", post(pathPayroll, "Transfer_Encoding: chunked\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "no coding", post(pathPayroll, "Transfer-Encoding:\r\n", ended), bad, ambigual, 0, "", ""},
		{"F02x", "trailers with a length and a coding", post(pathPayroll, chunked, "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n"), ok, "", 1, pathPayroll, "dropped, as all trailers are"},
		{"F02x", "the coding in capitals", post(pathPayroll, "Transfer-Encoding: CHUNKED\r\n", "3\r\nabc\r\n"+ended), ok, "", 1, pathPayroll, ""},
		{"F02x", "a chunk with an extension", post(pathPayroll, chunked, "3;a=b\r\nabc\r\n"+ended), ok, "", 1, pathPayroll, "forwarded without it"},

		{"F03", "two lengths", post(pathPayroll, "Content-Length: 3\r\n", "Content-Length: 5\r\n", "abcde"), bad, ambigual, 0, "", ""},
		{"F03", "the same length twice", post(pathPayroll, "Content-Length: 3\r\n", "Content-Length: 3\r\n", "abc"), bad, ambigual, 0, "", ""},
		{"F03", "a list of lengths", length("3, 3"), bad, ambigual, 0, "", ""},
		{"F03", "a signed length", length("+3"), bad, ambigual, 0, "", ""},
		{"F03", "a negative length", length("-1"), bad, ambigual, 0, "", ""},
		{"F04x", "a length in hexadecimal", length("0x3"), bad, ambigual, 0, "", ""},
		{"F04x", "a length with an exponent", length("1e1"), bad, ambigual, 0, "", ""},
		{"F04x", "an empty length", length(""), bad, ambigual, 0, "", ""},
		{"F04x", "a length beyond all numbers", length("99999999999999999999"), bad, ambigual, 0, "", ""},
		{"F04x", "a length that Envoy can hold and upstreams cannot", length("9223372036854775808"), bad, ambigual, 0, "", ""},
		{"F04x", "the longest length of all", length("18446744073709551615"), bad, ambigual, 0, "", ""},
		{"F04x", "a length in other digits", length("३"), bad, ambigual, 0, "", ""},
		{"F04x", "a length on the next line of the same header", post(pathPayroll, "Content-Length: 3\nContent-Length: 3\r\n", "abc"), bad, ambigual, 0, "", ""},
		{"F04x", "a length with an underscore in its name", post(pathPayroll, "Content_Length: 3\r\n", "abc"), bad, ambigual, 0, "", ""},
		{"F04x", "a length and a connection that hides it", post(pathPayroll, "Connection: content-length\r\n", "Content-Length: 3\r\n", "abc"), ok, "", 1, pathPayroll, ""},
		{"F04x", "a length with more after it", length("3;"), bad, ambigual, 0, "", ""},
		{"F04x", "a length with NUL", length("3\x00"), bad, ambigual, 0, "", ""},

		{"F05", "HTTP/1.0", strings.Replace(get(pathReceipt), "HTTP/1.1", "HTTP/1.0", 1), []int{426}, "upgrade-required", 0, "", ""},
		{"F05", "HTTP/0.9", "GET " + pathReceipt + "\r\n\r\n", []int{426}, "upgrade-required", 0, "", ""},
		{"F06x", "HTTP/1.2", strings.Replace(get(pathReceipt), "HTTP/1.1", "HTTP/1.2", 1), []int{426}, "upgrade-required", 0, "", ""},
		{"F06x", "HTTP/2.0 as HTTP/1", strings.Replace(get(pathReceipt), "HTTP/1.1", "HTTP/2.0", 1), []int{426}, "upgrade-required", 0, "", ""},
		{"F06x", "http in lower case", strings.Replace(get(pathReceipt), "HTTP/1.1", "http/1.1", 1), bad, ambigual, 0, "", ""},
		{"F06x", "a version with more digits", strings.Replace(get(pathReceipt), "HTTP/1.1", "HTTP/1.10", 1), bad, ambigual, 0, "", ""},
		{"F06x", "another protocol", strings.Replace(get(pathReceipt), "HTTP/1.1", "SIP/2.0", 1), bad, ambigual, 0, "", ""},
		{"F06x", "a blank before the method", " " + get(pathReceipt), bad, ambigual, 0, "", ""},
		{"F06x", "a proxy's preamble", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + get(pathReceipt), bad, ambigual, 0, "", ""},
		{"F06x", "TLS without TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", bad, ambigual, 0, "", ""},
		{"F06x", "NUL behind the method", strings.Replace(get(pathReceipt), "GET", "GET\x00", 1), bad, ambigual, 0, "", ""},
		{"F06x", "a method of 5,000 letters", strings.Replace(get(pathReceipt), "GET", strings.Repeat("G", 5000), 1), bad, ambigual, 0, "", ""},
		{"F06x", "empty lines first", "\r\n\r\n" + get(pathReceipt), ok, "", 1, pathReceipt, ""},
		{"F06x", "an upgrade to HTTP/2 is ignored", get(pathReceipt, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"), ok, "", 1, pathReceipt, ""},

		{"F07", "CONNECT to us", "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\nAUTH\r\n", []int{403}, "service-unknown", 0, "", ""},
		{"F07", "CONNECT to another", "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nAUTH\r\n", []int{403}, "service-unknown", 0, "", ""},
		{"F07", "CONNECT with a path", strings.Replace(get(pathReceipt), "GET", "CONNECT", 1), bad, ambigual, 0, "", ""},
		{"F08x", "TRACE", method("TRACE"), []int{405}, "method-not-allowed", 0, "", ""},
		{"F08x", "OPTIONS", method("OPTIONS"), []int{405}, "method-not-allowed", 0, "", ""},
		{"F08x", "PURGE", method("PURGE"), []int{405}, "method-not-allowed", 0, "", ""},
		{"F08x", "a method in lower case", method("get"), bad, ambigual, 0, "", ""},
		{"F08x", "a method nobody knows", method("FOO"), bad, ambigual, 0, "", ""},
		{"F08x", "a WebSocket where there is none", get(pathReceipt, upgrade), []int{403}, "service-unknown", 0, "", ""},
		{"F08x", "another protocol where there is a WebSocket", get(pathSocket, "Connection: Upgrade\r\nUpgrade: foo\r\n"), []int{403}, "service-unknown", 0, "", ""},
		{"F08x", "a WebSocket without a token", bare(pathSocket, upgrade), []int{401}, "token-missing", 0, "", ""},
		{"F08x", "a WebSocket by POST", strings.Replace(get(pathSocket, upgrade), "GET", "POST", 1), []int{403}, "service-unknown", 0, "", ""},
		{"F08x", "a WebSocket where events are sent", get("/events/v1/notices", upgrade), []int{403}, "service-unknown", 0, "", ""},
		{"F08x", "a WebSocket and another", get(pathSocket, strings.Replace(upgrade, "websocket", "websocket, h2c", 1)), []int{403}, "service-unknown", 0, "", ""},
		{"F08x", "TLS within the connection", get(pathReceipt, "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"), []int{403}, "service-unknown", 0, "", ""},
		{"F08x", "two upgrades", get(pathReceipt, "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n"), []int{403}, "service-unknown", 0, "", ""},

		{"F13", "a GET with a body", get(pathReceipt, "Content-Length: 3\r\n") + "abc", ok, "", 1, pathReceipt, ""},
		{"F13", "a GET with chunks", get(pathReceipt, chunked) + ended, ok, "", 1, pathReceipt, ""},
		{"F13", "100-continue with a token", post(pathPayroll, "Expect: 100-continue\r\n", "Content-Length: 3\r\n", "abc"), ok, "", 1, pathPayroll, ""},
		{"F13", "100-continue without a token", strings.Replace(post(pathPayroll, "Expect: 100-continue\r\n", "Content-Length: 3\r\n", ""), "AUTH", "", 1), []int{401}, "token-missing", 0, "", "Envoy says 100 before it asks; harmless: the body goes nowhere"},
		{"F13", "an expectation nobody knows", post(pathPayroll, "Expect: garbage\r\n", "Content-Length: 3\r\n", "abc"), []int{417}, "expectation-failed", 0, "", "refused before the decision, so that no ALLOW is left over"},
		{"F14x", "two expectations", post(pathPayroll, "Expect: 100-continue\r\n", "Expect: 100-continue\r\n", "Content-Length: 3\r\n", "abc"), []int{417}, "expectation-failed", 0, "", ""},
		{"F14x", "an expectation and no token", strings.Replace(post(pathPayroll, "Expect: garbage\r\n", "Content-Length: 3\r\n", "abc"), "AUTH", "", 1), []int{417}, "expectation-failed", 0, "", ""},
	}
}

func TestFramingCases(t *testing.T) {
	s := sharedStack(t)
	since := len(s.arrivals(t))
	for _, w := range framingRows() {
		t.Run(w.id+" "+w.name, func(t *testing.T) { w.run(t, s) })
	}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *stack)
	}{
		{"F01 the connection is closed after it", closedAfterSmuggling},
		{"F02x chunks that are none", brokenChunks},
		{"F02x a request hidden in the body of a refused one stays a body", hiddenInBody},
		{"F02x each request on one connection is decided for itself", pipelined},
		{"F08x what follows a refused WebSocket is no request", afterRefusedSocket},
		{"F08x a WebSocket echoes, once decided", socketWorks},
		{"F09 trailers are no identity", trailers},
		{"F11 h2: a body of another length than said", anotherLength},
		{"F15 rapid reset", rapidReset},
		{"F16x resets that the client makes us send", madeToReset},
		{"F16x floods of settings, pings and empty frames", floods},
		{"F17 slow headers", slowHeaders},
		{"F19 the body for the authorizer, whole or not at all", bodies},
		{"F20x gRPC callers get a gRPC status", grpcStatus},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, s) })
	}
	for _, c := range h2Rows() {
		t.Run(c.name, func(t *testing.T) {
			token := s.token(t, nil)
			o := s.watch(t)
			conn := s.h2(t, nil)
			c.send(conn, "Bearer "+token)
			a := conn.answer()
			if !slices.Contains(c.status, a.status) {
				t.Errorf("answered %v, want %v", a, c.status)
			}
			if a.status >= 400 {
				mustBeProblem(t, a.reply, a.code(), token)
			}
			if c.body >= 0 && a.status == 200 {
				if got := seen(t, a.body); got.Bytes != c.body || len(got.Trailers) > 0 && slices.ContainsFunc(got.Trailers, func(n string) bool { return strings.HasPrefix(n, "x-dsp-") }) {
					t.Errorf("the upstream saw %+v", got)
				}
			}
			o.check(c.arrivals, kookaAgent)
		})
	}
	t.Run("F17 slow body, slow read", func(t *testing.T) {
		t.Log("the demo lets a call take 15 s and a silent stream 5 min: too long for this table; TestSlowHeaders and TestConnectionLimit of envoy/xds run both on the same listener with shorter limits")
	})
	s.conserved(t, since)
}

type h2Row struct {
	name     string
	send     func(c *h2, bearer string)
	status   []int // 0: the stream or the connection broken
	arrivals int
	body     int // how many bytes the upstream may have seen; -1: not said
}

// h2Rows are the cases that only HTTP/2 can say.
func h2Rows() []h2Row {
	upload := func(bearer string, kv ...string) []string {
		return append(fields(":method", "PUT", ":path", pathBulk), append([]string{"authorization", bearer}, kv...)...)
	}
	return []h2Row{
		{"F07 h2: CONNECT without a path", func(c *h2, b string) {
			c.headers(false, ":method", "CONNECT", ":authority", "localhost:443", "authorization", b)
		}, []int{0, 400, 403, 404}, 0, -1},
		{"F07 h2: CONNECT with a path", func(c *h2, b string) {
			c.headers(false, append(fields(":method", "CONNECT"), "authorization", b)...)
		}, []int{0, 400, 403, 404}, 0, -1},
		{"F07 h2: extended CONNECT", func(c *h2, b string) {
			c.headers(false, append(fields(":method", "CONNECT", ":protocol", "websocket", ":path", pathSocket), "authorization", b)...)
		}, []int{0, 400, 403, 404}, 0, -1},
		{"F08x h2: TRACE", func(c *h2, b string) { c.headers(true, append(fields(":method", "TRACE"), "authorization", b)...) }, []int{405}, 0, -1},
		{"F08x h2: no method", func(c *h2, b string) { c.headers(true, append(fields(":method", "NONE"), "authorization", b)...) }, []int{0, 400}, 0, -1},
		{"F09 h2: a pseudo header in trailers", func(c *h2, b string) {
			c.headers(false, append(fields(":method", "POST", ":path", "/nothing"), "authorization", b)...)
			c.data(false, "abc")
			c.headers(true, ":path", "/admin")
		}, []int{0, 400, 403}, 0, -1},
		{"F09 h2: trailers that do not end the stream", func(c *h2, b string) {
			c.headers(false, append(fields(":method", "POST", ":path", "/nothing"), "authorization", b)...)
			c.data(false, "abc")
			c.headers(false, "x-a", "b")
		}, []int{0, 400, 403}, 0, -1},
		{"F10x h2: data before headers", func(c *h2, _ string) { c.data(true, "abc") }, []int{0}, 0, -1},
		{"F10x h2: an even stream", func(c *h2, b string) {
			c.stream = 2
			c.headers(true, append(fields(), "authorization", b)...)
		}, []int{0}, 0, -1},
		{"F12x h2: no length, three bytes", func(c *h2, b string) { c.headers(false, upload(b)...); c.data(true, "abc") }, []int{200}, 1, 3},
		{"F12x h2: two lengths", func(c *h2, b string) {
			c.headers(false, upload(b, "content-length", "3", "content-length", "5")...)
			c.data(true, "abc")
		}, []int{0, 400}, 0, -1},
		{"F12x h2: a signed length", func(c *h2, b string) { c.headers(false, upload(b, "content-length", "+3")...); c.data(true, "abc") }, []int{0, 400}, 0, -1},
		{"F12x h2: a length that upstreams cannot hold", func(c *h2, b string) {
			c.headers(false, upload(b, "content-length", "9223372036854775808")...)
			c.data(false, "abc")
		}, []int{0, 400}, 0, -1},
		{"F14x h2: headers on stream 0", func(c *h2, b string) {
			c.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 0, "\x82")
			c.headers(true, append(fields(), "authorization", b)...)
		}, []int{0}, 0, -1},
		{"F14x h2: a promise of the client's", func(c *h2, b string) {
			c.raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, "\x00\x00\x00\x02\x82")
			c.headers(true, append(fields(), "authorization", b)...)
		}, []int{0}, 0, -1},
		{"F14x h2: padding longer than its frame", func(c *h2, b string) {
			c.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream|http2.FlagHeadersPadded, 1, "\xff\x82")
		}, []int{0}, 0, -1},
		{"F14x h2: a frame longer than allowed", func(c *h2, b string) {
			c.raw(http2.FrameData, 0, 1, strings.Repeat("x", 20000))
		}, []int{0}, 0, -1},
		{"F14x h2: compression of nothing known", func(c *h2, b string) {
			c.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, "\x80")
		}, []int{0}, 0, -1},
		{"F14x h2: another frame amid headers", func(c *h2, b string) {
			c.raw(http2.FrameHeaders, http2.FlagHeadersEndStream, 1, "\x82")
			c.raw(http2.FramePing, 0, 0, "12345678")
		}, []int{0}, 0, -1},
		{"F14x h2: second headers on a stream", func(c *h2, b string) {
			c.headers(false, append(fields(":path", "/nothing"), "authorization", b)...)
			c.headers(true, append(fields(), "authorization", b)...)
		}, []int{0, 403}, 0, -1},
		{"F16x h2: headers that grow to 16 MB when read", func(c *h2, b string) {
			c.headersWith(strings.Repeat("\xbe", 4000), append(fields(), "authorization", b, "x-bomb", strings.Repeat("a", 3900))...)
		}, []int{0, 431}, 0, -1},
		{"F16x h2: three thousand cookies", func(c *h2, b string) {
			kv := append(fields(), "authorization", b)
			for range 3000 {
				kv = append(kv, "cookie", "a=b")
			}
			c.headers(true, kv...)
		}, []int{0, 431}, 0, -1},
		{"F12x h2: an expectation nobody knows", func(c *h2, b string) { c.headers(true, upload(b, "expect", "garbage")...) }, []int{417}, 0, -1},
	}
}

func closedAfterSmuggling(t *testing.T, s *stack) {
	token := s.token(t, nil)
	o := s.watch(t)
	conn := s.dial(t, nil)
	r := bufio.NewReader(conn)
	a := exchange(t, conn, r, fill(post(pathPayroll, "Content-Length: 4\r\n", chunked, ended+hidden), token))
	(&wire{status: []int{400}, code: ambigual}).judge(t, o, a, token)
	closes(t, r)
	o.check(0, kookaAgent)
}

// What is wrong only in the body shows after the headers were decided, and may
// be on their way: such a call ends with 400 and is never a whole one upstream.
func brokenChunks(t *testing.T, s *stack) {
	token := s.token(t, nil)
	for name, body := range map[string]string{
		"longer than there are numbers": "fffffffffffffffff\r\nabc\r\n" + ended,
		"of negative length":            "-3\r\nabc\r\n" + ended,
		"with a prefix":                 "0x3\r\nabc\r\n" + ended,
		"ended by a line feed alone":    "3\nabc\n0\n\n",
		"a request for a length":        hidden,
	} {
		t.Run(name, func(t *testing.T) {
			before, allows := len(s.arrivals(t)), s.allows(t)
			conn := s.dial(t, nil)
			r := bufio.NewReader(conn)
			a := exchange(t, conn, r, fill(post(pathPayroll, chunked, body), token))
			if a.status != 400 {
				t.Errorf("answered %v", a)
			} else {
				mustBeProblem(t, a.reply, ambigual, token)
			}
			s.settled(t) // one arrival and one ALLOW more
			arrived := len(s.arrivals(t)) - before - 1
			if allowed := int(s.allows(t)-allows) - 1; arrived > allowed || allowed > 1 {
				t.Errorf("O1: %d arrivals of %d allowed", arrived, allowed)
			}
		})
	}
}

func hiddenInBody(t *testing.T, s *stack) {
	token := s.token(t, nil)
	body := fill(hidden, token)
	o := s.watch(t)
	conn := s.dial(t, nil)
	r := bufio.NewReader(conn)
	a := exchange(t, conn, r, fill(post("/nothing", fmt.Sprintf("Content-Length: %d\r\n", len(body)), body), token))
	(&wire{status: []int{403}, code: "service-unknown"}).judge(t, o, a, token)
	o.check(0, kookaAgent)
	_, _ = io.WriteString(conn, fill(get(pathReceipt, closeIt), token)) // Envoy may have closed
	if next := readAnswer(t, r, "GET"); next.status == 200 {
		o.check(1, kookaAgent)
	} else {
		o.check(0, kookaAgent)
	}
}

func pipelined(t *testing.T, s *stack) {
	token := s.token(t, nil)
	o := s.watch(t)
	conn := s.dial(t, nil)
	r := bufio.NewReader(conn)
	_, _ = io.WriteString(conn, fill(get(pathReceipt)+bare(pathReceipt)+get("/nothing")+get(pathReceipt, closeIt), token))
	for i, want := range []int{200, 401, 403, 200} {
		if a := readAnswer(t, r, "GET"); a.status != want {
			t.Errorf("answer %d: %v, want %d", i, a, want)
		}
	}
	o.check(2, kookaAgent)
}

// A proxy that believes in an upgrade the upstream refused would hand on what
// follows without looking.
func afterRefusedSocket(t *testing.T, s *stack) {
	token := s.token(t, nil)
	o := s.watch(t)
	conn := s.dial(t, nil)
	r := bufio.NewReader(conn)
	a := exchange(t, conn, r, fill(get(pathSocket, strings.Replace(upgrade, "13", "99", 1))+bare("/nothing"), token))
	if a.status != 400 { // the sample upstream's own answer
		t.Errorf("answered %v", a)
	}
	closes(t, r)
	o.check(1, kookaAgent)
}

func socketWorks(t *testing.T, s *stack) {
	token := s.token(t, nil)
	o := s.watch(t)
	conn := s.dial(t, nil)
	r := bufio.NewReader(conn)
	if a := exchange(t, conn, r, fill(get(pathSocket, upgrade), token)); a.status != 101 {
		t.Fatalf("answered %v", a)
	}
	// A masked text frame of two bytes, the mask being zero.
	if _, err := conn.Write([]byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(r, got); err != nil || string(got[2:]) != "hi" {
		t.Errorf("echoed %q %v", got, err)
	}
	o.check(1, kookaAgent)
}

func trailers(t *testing.T, s *stack) {
	token := s.token(t, nil)
	none := func(body []byte) {
		t.Helper()
		got := seen(t, body)
		if got.Product != kookaAgent || got.Bytes != 3 || slices.ContainsFunc(got.Trailers, func(n string) bool {
			return strings.HasPrefix(n, "x-") || n == "authorization"
		}) {
			t.Errorf("the upstream saw %+v", got)
		}
	}
	o := s.watch(t)
	a := s.talk(t, fill(strings.Replace(post(pathBulk, chunked, "Trailer: X-Dsp-Product-Id\r\n",
		"3\r\nabc\r\n0\r\nX-Product-Id: EVIL\r\nX-Dsp-Product-Id: EVIL\r\nAuthorization: EVIL\r\n\r\n"), "POST", "PUT", 1), token))
	(&wire{status: []int{200}, arrivals: 1, target: pathBulk}).judge(t, o, a, token)
	none(a.body)

	o = s.watch(t)
	conn := s.h2(t, nil)
	conn.headers(false, append(fields(":method", "PUT", ":path", pathBulk), "authorization", "Bearer "+token, "trailer", "x-dsp-product-id")...)
	conn.data(false, "abc")
	conn.headers(true, "x-product-id", "EVIL", "x-dsp-product-id", "EVIL", "authorization", "EVIL")
	a = conn.answer()
	(&wire{status: []int{200}, arrivals: 1, target: pathBulk}).judge(t, o, a, token)
	none(a.body)
}

// A body that is not as long as was said never counts as a whole one,
// and no byte beyond the length goes on.
func anotherLength(t *testing.T, s *stack) {
	token := s.token(t, nil)
	for name, send := range map[string]func(*h2){
		"less": func(c *h2) {
			c.headers(false, append(fields(":method", "PUT", ":path", pathBulk), "authorization", "Bearer "+token, "content-length", "10")...)
			c.data(true, "abc")
		},
		"more": func(c *h2) {
			c.headers(false, append(fields(":method", "PUT", ":path", pathBulk), "authorization", "Bearer "+token, "content-length", "1")...)
			c.data(true, "abcdefghijklmno")
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.arrivals(t))
			conn := s.h2(t, nil)
			send(conn)
			if a := conn.answer(); a.status != 0 && a.status != 400 {
				t.Errorf("answered %v", a)
			}
			s.settled(t)
			// Headers may have gone on before the lie was out: never more than once.
			if n := len(s.arrivals(t)) - before - 1; n > 1 {
				t.Errorf("%d arrivals", n)
			}
		})
	}
}

// rapidReset opens and resets 3,000 streams on one connection; Envoy must cut it
// off, and nobody else may notice.
func rapidReset(t *testing.T, s *stack) {
	token := s.token(t, nil)
	conn := s.h2(t, nil)
	kv := append(fields(), "authorization", "Bearer "+token)
	for i := range 3000 {
		id := uint32(2*i + 1)
		conn.headersOn(id, true, kv...)
		if conn.broken || conn.framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
		if i%1000 == 500 {
			if a := s.talk(t, fill(get(pathReceipt), token)); a.status != 200 {
				t.Fatalf("an innocent caller got %v", a)
			}
		}
	}
	closes(t, conn.conn)
	if a := s.talk(t, fill(get(pathReceipt), token)); a.status != 200 {
		t.Fatalf("an innocent caller got %v afterwards", a)
	}
	s.settled(t)
	for _, d := range s.info.SidecarDebug {
		if n := s.metric(t, d, "accesslog_alarms_total", ""); n != 0 {
			t.Errorf("O1: %v alarms", n)
		}
	}
}

// madeToReset opens 3,000 streams and breaks the rules on each, so that Envoy
// resets it (CVE-2025-8671): nobody else may notice.
func madeToReset(t *testing.T, s *stack) {
	token := s.token(t, nil)
	conn := s.h2(t, nil)
	kv := append(fields(), "authorization", "Bearer "+token)
	for i := range 3000 {
		id := uint32(2*i + 1)
		conn.headersOn(id, true, kv...)
		if conn.raw(http2.FrameWindowUpdate, 0, id, "\x00\x00\x00\x00"); conn.broken {
			break
		}
	}
	for range 3 {
		if a := s.talk(t, fill(get(pathReceipt), token)); a.status != 200 && a.code() != "admission-expired" {
			t.Fatalf("an innocent caller got %v", a)
		}
	}
	conn.conn.Close()
	s.settled(t)
	for _, d := range s.info.SidecarDebug {
		if n := s.metric(t, d, "accesslog_alarms_total", "") + s.panics(t); n != 0 {
			t.Errorf("O1: %v alarms and panics", n)
		}
	}
}

// floods sends frames that cost the sender nothing.
func floods(t *testing.T, s *stack) {
	for name, send := range map[string]func(*h2, int) error{
		"settings":             func(c *h2, _ int) error { return c.framer.WriteSettings() },
		"pings":                func(c *h2, _ int) error { return c.framer.WritePing(false, [8]byte{}) },
		"continuation no end":  continuation,
		"empty data":           emptyData,
		"window updates":       func(c *h2, _ int) error { return c.framer.WriteWindowUpdate(0, 1) },
		"priorities to itself": func(c *h2, _ int) error { return c.framer.WritePriority(1, http2.PriorityParam{StreamDep: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.h2(t, nil)
			for i := range 20000 {
				if send(conn, i) != nil {
					break
				}
			}
			// Cut off or not (a flood that costs us nothing may go on): nobody else notices.
			if a := s.talk(t, fill(get(pathReceipt), s.token(t, nil))); a.status != 200 {
				t.Errorf("an innocent caller got %v", a)
			}
			if resp, err := http.Get(s.info.EnvoyAdmin + "/ready"); err != nil || resp.StatusCode != 200 {
				t.Errorf("Envoy is not ready: %v", err)
			} else {
				resp.Body.Close()
			}
		})
	}
}

func continuation(c *h2, i int) error {
	if i == 0 {
		c.buf.Reset()
		return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
	}
	return c.framer.WriteContinuation(1, false, nil)
}

func emptyData(c *h2, i int) error {
	if i == 0 {
		c.headers(false, fields(":method", "POST", ":path", pathPayroll)...)
	}
	return c.framer.WriteData(1, false, nil)
}

// slowHeaders holds forty connections with half a request; each ends with 408,
// and meanwhile others are served.
func slowHeaders(t *testing.T, s *stack) {
	token := s.token(t, nil)
	o := s.watch(t)
	var slow []*bufio.Reader
	for range 40 {
		conn := s.dial(t, nil)
		if _, err := io.WriteString(conn, "GET "+pathReceipt+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bea"); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, bufio.NewReader(conn))
	}
	if a := s.talk(t, fill(get(pathReceipt), token)); a.status != 200 {
		t.Errorf("an innocent caller got %v", a)
	}
	for _, r := range slow {
		a := readAnswer(t, r, "GET")
		(&wire{status: []int{408}, code: "request-timeout", arrivals: 1}).judge(t, o, a, "")
		if a.status == 408 {
			mustBeProblem(t, a.reply, "request-timeout", token)
		}
	}
}

// bodies is F19: 64 KiB go to the authorizer, one byte more is refused, and a
// part of a body decides nothing.
func bodies(t *testing.T, s *stack) {
	const start, end = `{"tfn":"220115957","pad":"`, `"}`
	sized := func(n int) string { return start + strings.Repeat("x", n-len(start)-len(end)) + end }
	lengthOf := func(body string) string {
		return post(pathMembers, "Content-Type: application/json\r\n", fmt.Sprintf("Content-Length: %d\r\n", len(body)), body)
	}
	inChunks := func(body string) string {
		return post(pathMembers, "Content-Type: application/json\r\n", chunked, fmt.Sprintf("%x\r\n%s\r\n", len(body), body)+ended)
	}
	for _, w := range []wire{
		{"F19", "the longest body", lengthOf(sized(64 << 10)), []int{200}, "", 1, pathMembers, ""},
		{"F19", "one byte more", lengthOf(sized(64<<10 + 1)), []int{413}, "body-too-large", 0, "", ""},
		{"F19", "the longest body in chunks", inChunks(sized(64 << 10)), []int{200}, "", 1, pathMembers, ""},
		{"F19", "one byte more in chunks", inChunks(sized(64<<10 + 1)), []int{413}, "body-too-large", 0, "", ""},
		{"F19", "a whole body called partial by the client", post(pathMembers, "X-Envoy-Auth-Partial-Body: true\r\n", "Content-Length: 19\r\n", `{"tfn":"220115957"}`), []int{200}, "", 1, pathMembers, "the client's header is removed"},
		{"F18x", "no JSON", lengthOf(`{"tfn":"2201159`), []int{400}, ambigual, 0, "", ""},
		{"F18x", "the subject twice", lengthOf(`{"tfn":"220115957","tfn":"1"}`), []int{400}, ambigual, 0, "", ""},
		{"F18x", "the subject in two spellings", lengthOf(`{"tfn":"220115957","TFN":"1"}`), []int{400}, ambigual, 0, "", ""},
		{"F18x", "a subject of escapes twice", lengthOf(`{"tfn":"220115957","\u0074fn":"1"}`), []int{400}, ambigual, 0, "", ""},
		{"F18x", "two documents", lengthOf(`{"tfn":"220115957"}{"tfn":"1"}`), []int{400}, ambigual, 0, "", ""},
		{"F18x", "forty thousand brackets", lengthOf(strings.Repeat("[", 40000)), []int{400}, ambigual, 0, "", ""},
		{"F18x", "a long body where it is not looked at", post(pathPayroll, fmt.Sprintf("Content-Length: %d\r\n", 200<<10), strings.Repeat("x", 200<<10)), []int{200}, "", 1, pathPayroll, ""},
	} {
		t.Run(w.name, func(t *testing.T) { w.run(t, s) })
	}
}

// grpcStatus is the contract for gRPC callers: the status in trailers, the code
// in the message, and never an HTTP error.
func grpcStatus(t *testing.T, s *stack) {
	token := s.token(t, nil)
	for _, c := range []struct {
		name, path, bearer string
		status, code       string
		arrivals           int
	}{
		{"401 is 16", pathChat, "", "16", "token-missing", 0},
		{"a bad token is 16", pathChat, "Bearer " + token[:len(token)-9], "16", "token-", 0},
		{"403 is 7", "/dspgate.sample.v1.Sample/Nothing", "Bearer " + token, "7", "service-unknown", 0},
		{"400 is 3", "/dspgate.sample.v1.Sample/Ch%2561t", "Bearer " + token, "3", ambigual, 0},
		{"a good call is 0", pathChat, "Bearer " + token, "0", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := s.watch(t)
			conn := s.h2(t, nil)
			kv := append(fields(":method", "POST", ":path", c.path), "content-type", "application/grpc", "te", "trailers")
			if c.bearer != "" {
				kv = append(kv, "authorization", c.bearer)
			}
			conn.headers(false, kv...)
			msg, err := proto.Marshal(wrapperspb.String("hello"))
			if err != nil {
				t.Fatal(err)
			}
			frame := append([]byte{0, 0, 0, 0, byte(len(msg))}, msg...) // uncompressed, its length in four bytes
			conn.data(true, string(frame))
			a := conn.answer()
			if a.status != 200 || a.header.Get("Grpc-Status") != c.status || !strings.HasPrefix(a.header.Get("Grpc-Message"), c.code) {
				t.Errorf("answered %d, grpc-status %q, %q", a.status, a.header.Get("Grpc-Status"), a.header.Get("Grpc-Message"))
			}
			if c.arrivals == 0 && a.header.Get("X-Request-Id") == "" {
				t.Error("a refusal without x-request-id")
			}
			if c.arrivals == 1 && string(a.body) != string(frame) {
				t.Errorf("echoed %q", a.body)
			}
			o.check(c.arrivals, kookaAgent)
		})
	}
	t.Run("429 is 8", func(t *testing.T) { elsewhere(t, "limits_test.go", "TestLimitsThroughEnvoy") })
	// Envoy wants the deadline of a gRPC call, and the authorizer has its own.
	o := s.watch(t)
	conn := s.h2(t, nil)
	conn.headers(true, append(fields(":method", "POST", ":path", pathChat), "content-type", "application/grpc", "grpc-timeout", "1n")...)
	if a := conn.answer(); a.header.Get("Grpc-Status") != "16" {
		t.Errorf("a deadline of a nanosecond and no token: %v %v", a, a.header)
	}
	o.check(0, kookaAgent)
}
