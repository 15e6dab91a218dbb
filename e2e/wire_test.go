package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/dspgate/dspgate/authz"
)

// Requests written byte by byte. In a request AUTH stands for the header line
// with a good token, TOKEN for the token alone.
const (
	pathReceipt = "/lodgments/v1/receipts/R-1"
	pathPayroll = "/lodgments/v1/payroll-events"
	pathMembers = "/super/v1/member-verifications" // its subject is in the body
	pathBulk    = "/lodgments/v1/bulk/7"           // echoes how many bytes came
	pathSocket  = "/events/v1/socket"
	pathChat    = "/dspgate.sample.v1.Sample/Chat"
	kookaAgent  = "FP-1003" // the product of stack.claims
)

// wire is one row of a table: bytes that go out, and what must come of them.
type wire struct {
	id, name string
	request  string
	status   []int  // any of them; 0: closed without an answer
	code     string // of the refusal; "" when there is none
	arrivals int    // how many requests reached the upstream
	target   string // the path the upstream saw
	note     string // where the row differs from the case's own words, and why
}

// get writes a GET of the demo's host with a good token and further lines.
func get(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nAUTH" + strings.Join(lines, "") + "\r\n"
}

// bare is get without a token.
func bare(path string, lines ...string) string {
	return strings.Replace(get(path, lines...), "AUTH", "", 1)
}

// to is get for another Host.
func to(host string) string {
	return strings.Replace(get(pathReceipt), "Host: localhost", "Host: "+host, 1)
}

// post writes a POST with a good token; the last line is the body.
func post(path string, lines ...string) string {
	last := len(lines) - 1
	return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nAUTH" + strings.Join(lines[:last], "") + "\r\n" + lines[last]
}

// fill puts a token where AUTH and TOKEN stand.
func fill(request, token string) string {
	return strings.NewReplacer("AUTH", "Authorization: Bearer "+token+"\r\n", "TOKEN", token).Replace(request)
}

// answer is one response as it came, or none.
type answer struct {
	reply
	interim []int // 1xx before it
}

// dial connects to the plain ingress, or to the one with TLS.
func (s *stack) dial(t testing.TB, cfg *tls.Config) net.Conn {
	t.Helper()
	base := s.info.Ingress
	if cfg != nil {
		base = s.info.IngressTLS
	}
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	if d := (&net.Dialer{Timeout: 5 * time.Second}); cfg == nil {
		conn, err = d.Dial("tcp", u.Host)
	} else {
		conn, err = tls.DialWithDialer(d, "tcp", u.Host, cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// talk sends bytes on a connection of its own and reads one response; its
// status is 0 when the connection was closed without one.
func (s *stack) talk(t testing.TB, request string) answer {
	t.Helper()
	conn := s.dial(t, nil)
	defer conn.Close()
	return exchange(t, conn, bufio.NewReader(conn), request)
}

func exchange(t testing.TB, conn net.Conn, r *bufio.Reader, request string) answer {
	t.Helper()
	// Envoy may answer and close before all was written; that is an answer too.
	_, _ = io.WriteString(conn, request)
	method, _, _ := strings.Cut(strings.TrimLeft(request, "\r\n"), " ")
	return readAnswer(t, r, method)
}

// readAnswer reads the next response on a connection.
func readAnswer(t testing.TB, r *bufio.Reader, method string) (a answer) {
	t.Helper()
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			var op net.Error
			if errors.As(err, &op) && op.Timeout() {
				t.Fatalf("neither an answer nor the end of the connection: %v", err)
			}
			return a
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			a.interim = append(a.interim, resp.StatusCode)
			continue
		}
		a.status, a.header = resp.StatusCode, resp.Header
		if resp.StatusCode != http.StatusSwitchingProtocols {
			a.body, a.err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			if isBroken(a.err) {
				a.err = nil // closed in the middle of a refusal: what came counts
			}
		}
		return a
	}
}

func isBroken(err error) bool {
	var op net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && !op.Timeout()
}

// closes waits for the other side to close the connection.
func closes(t testing.TB, r io.Reader) {
	t.Helper()
	if _, err := io.Copy(io.Discard, r); err != nil {
		var op net.Error
		if errors.As(err, &op) && op.Timeout() {
			t.Error("the connection stays open")
		}
	}
}

// run runs one row and holds it against the oracles.
func (w *wire) run(t *testing.T, s *stack) {
	t.Helper()
	token := s.token(t, nil)
	for try := 1; ; try++ {
		o := s.watch(t)
		a := s.talk(t, fill(w.request, token))
		if a.code() == "admission-expired" && try < 5 {
			continue // a busy machine held it up after it was allowed: refused as declared
		}
		w.judge(t, o, a, token)
		return
	}
}

func (w *wire) judge(t testing.TB, o *oracle, a answer, token string) {
	t.Helper()
	if !slices.Contains(w.status, a.status) {
		t.Errorf("answered %v, want %v", a, w.status)
	}
	o.check(w.arrivals, kookaAgent)
	switch {
	case a.status == 0:
	case a.status >= 400 && w.arrivals == 0:
		mustBeProblem(t, a.reply, w.code, token)
	case a.status == 200 && w.target != "":
		if got := seen(t, a.body).Path; got != w.target {
			t.Errorf("O4: the upstream saw %q, want %q", got, w.target)
		}
	}
}

// told is what the sample upstream says it saw.
type told struct {
	Method   string   `json:"method"`
	Path     string   `json:"path"`
	Bytes    int      `json:"bytes"`
	Trailers []string `json:"trailers"`
	Product  string   `json:"x-dsp-product-id"`
	Decision string   `json:"x-dsp-decision-id"`
	Service  string   `json:"x-dsp-service"`
	Env      string   `json:"x-dsp-environment"`
}

func seen(t testing.TB, body []byte) (out told) {
	t.Helper()
	if err := json.Unmarshal(body, &out); err != nil {
		t.Errorf("the upstream's answer %.200q: %v", body, err)
	}
	return out
}

// envoysOwn are the codes of the refusals for which no authorizer is asked; all
// others are authz's.
var envoysOwn = map[string]int{
	"host-unknown": 404, "method-not-allowed": 405, "request-timeout": 408, "body-too-large": 413,
	"expectation-failed": 417, "upgrade-required": 426, "headers-too-large": 431,
}

// mustBeProblem is O3 and O5: a refusal is the contract's problem with one
// code, its own status, an x-request-id, what goes with the status, and nothing
// that the token or the register holds.
func mustBeProblem(t testing.TB, r reply, code, token string) {
	t.Helper()
	if r.header.Get("X-Request-Id") == "" {
		t.Error("O5: a refusal without x-request-id")
	}
	for _, secret := range []string{kookaAgent, "fp-1003", "31000000202", "56000001313", "0000300001", "demo-ES256", token, strings.Split(token+"..", ".")[1]} {
		if text := fmt.Sprint(r.header, string(r.body)); secret != "" && strings.Contains(text, secret) {
			t.Errorf("O5: the refusal holds %.40q: %v", secret, r)
		}
	}
	if len(r.body) == 0 && code == "" {
		return // an answer to HEAD
	}
	var p struct {
		Type, Title, Detail, Instance string
		Status                        int
		Errors                        []struct{ ID, Code, Detail string }
	}
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil || r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("O5: no problem but %v (%s): %v", r, r.header.Get("Content-Type"), err)
		return
	}
	if len(p.Errors) != 1 || p.Errors[0].Code != code || !strings.HasSuffix(p.Type, "/problems/"+code) ||
		p.Errors[0].ID == "" || p.Instance != "/decisions/"+p.Errors[0].ID || p.Title == "" || p.Errors[0].Detail != p.Detail || p.Status != r.status {
		t.Errorf("O5: %s, want one error of code %s", r.body, code)
	}
	want, ok := envoysOwn[code]
	if reason, known := authz.ParseReason(code); known {
		want, ok = reason.Status(), true
	}
	if !ok || r.status != want {
		t.Errorf("O3: %s with status %d, want %d", code, r.status, want)
	}
	if (r.status == 503 || r.status == 429) != (r.header.Get("Retry-After") != "") {
		t.Errorf("O5: %d with Retry-After %q", r.status, r.header.Get("Retry-After"))
	}
	if (r.status == 401) != (r.header.Get("Www-Authenticate") != "") {
		t.Errorf("O5: %d with WWW-Authenticate %q", r.status, r.header.Get("Www-Authenticate"))
	}
}

// conserved is O1 over a whole table: every arrival since since has a decision
// in the decision log that allowed it, and no access log entry told of a request
// that reached the upstream without its one ALLOW.
func (s *stack) conserved(t testing.TB, since int) {
	t.Helper()
	for _, a := range s.arrivals(t)[since:] {
		eventually(t, 10*time.Second, "a record of decision "+a.DecisionID, func() bool {
			var e struct {
				Decision struct {
					Allowed bool `json:"allowed"`
				} `json:"decision"`
			}
			return s.api(t, s.info.OperatorToken, "GET", "/v1/decisions/"+a.DecisionID, nil, &e) == 200 && e.Decision.Allowed
		})
	}
	for _, debug := range s.info.SidecarDebug {
		if n := s.metric(t, debug, "accesslog_alarms_total", ""); n != 0 {
			t.Errorf("O1: %v requests reached the upstream without exactly one ALLOW", n)
		}
	}
}

// settled waits until Envoy has nothing under way and the upstream has seen one
// call more, so that no arrival of one case shows in the next.
func (s *stack) settled(t testing.TB) {
	t.Helper()
	eventually(t, 10*time.Second, "the end of every call in Envoy", func() bool {
		resp, err := http.Get(s.info.EnvoyAdmin + `/stats?filter=^http\..*downstream_rq_active$`)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "http.admin") && !strings.HasSuffix(strings.TrimSpace(line), ": 0") {
				return false
			}
		}
		return true
	})
	before := len(s.arrivals(t))
	if a := s.talk(t, fill(get(pathReceipt), s.token(t, nil))); a.status != 200 {
		t.Fatalf("a good call: %v", a)
	}
	eventually(t, 5*time.Second, "its arrival", func() bool { return len(s.arrivals(t)) > before })
}

// h2 speaks HTTP/2 frame by frame.
type h2 struct {
	t      testing.TB
	conn   net.Conn
	framer *http2.Framer
	buf    bytes.Buffer
	enc    *hpack.Encoder
	stream uint32
	broken bool
}

func (s *stack) h2(t testing.TB, cfg *tls.Config) *h2 {
	t.Helper()
	c := &h2{t: t, conn: s.dial(t, cfg), stream: 1}
	c.framer = http2.NewFramer(c.conn, c.conn)
	c.framer.AllowIllegalWrites = true
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.MaxHeaderListSize = 64 << 10
	c.enc = hpack.NewEncoder(&c.buf)
	if _, err := io.WriteString(c.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// fields are names and values in turn; a later pseudo header replaces the
// earlier one, so that a row says only what it changes.
func fields(kv ...string) []string {
	base := []string{":method", "GET", ":scheme", "http", ":authority", "localhost", ":path", pathReceipt}
	var rest []string
	for i := 0; i < len(kv); i += 2 {
		at := slices.Index(base, kv[i])
		switch {
		case at < 0 && strings.HasPrefix(kv[i], ":"):
			base = append(base, kv[i], kv[i+1])
		case at < 0:
			rest = append(rest, kv[i], kv[i+1])
		case kv[i+1] == "NONE":
			base = slices.Delete(base, at, at+2)
		default:
			base[at+1] = kv[i+1]
		}
	}
	return append(base, rest...)
}

func (c *h2) headers(end bool, kv ...string) { c.headersOn(c.stream, end, kv...) }

func (c *h2) headersOn(stream uint32, end bool, kv ...string) {
	c.encode(kv)
	if c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: end}) != nil {
		c.broken = true
	}
}

// encode puts a header block into buf.
func (c *h2) encode(kv []string) {
	c.buf.Reset()
	for i := 0; i < len(kv); i += 2 {
		if err := c.enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// headersWith sends a header block with more at its end, as it stands on the wire.
func (c *h2) headersWith(more string, kv ...string) {
	c.encode(kv)
	c.buf.WriteString(more)
	if c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true}) != nil {
		c.broken = true
	}
}

// raw sends a frame as it is, right or wrong.
func (c *h2) raw(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) {
	if c.framer.WriteRawFrame(kind, flags, stream, []byte(payload)) != nil {
		c.broken = true
	}
}

func (c *h2) data(end bool, s string) {
	if c.framer.WriteData(c.stream, end, []byte(s)) != nil {
		c.broken = true
	}
}

// answer reads the response to the stream; status 0 when the stream or the
// connection was broken instead. Trailers are added to the header.
func (c *h2) answer() (a answer) {
	c.t.Helper()
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			var op net.Error
			if errors.As(err, &op) && op.Timeout() {
				c.t.Fatal("neither an answer nor the end of the stream")
			}
			return a
		}
		end := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if a.header == nil {
				a.header = http.Header{}
			}
			for _, h := range f.Fields {
				a.header.Add(h.Name, h.Value)
			}
			if s := f.PseudoValue("status"); s != "" {
				if _, err := fmt.Sscan(s, &a.status); err != nil {
					c.t.Fatal(err)
				}
			}
			end = f.StreamEnded()
		case *http2.DataFrame:
			a.body = append(a.body, f.Data()...)
			end = f.StreamEnded()
		case *http2.RSTStreamFrame:
			return a
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return a
			}
		}
		if end {
			return a
		}
	}
}
