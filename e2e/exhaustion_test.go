package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/envoy/accesslog"
	"github.com/dspgate/dspgate/registry"
)

// series is how many series a process's metrics have, and their text.
func series(t testing.TB, debug string) (n int, text string) {
	t.Helper()
	resp, err := http.Get(debug + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n, string(b)
}

// from is a client whose peer address Envoy sees as ip.
func from(t testing.TB, ip string) *http.Client {
	t.Helper()
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return d.DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// L: what strangers send costs a bounded amount and leaves nothing behind.
func TestExhaustion(t *testing.T) {
	s := ownStack(t)
	side := s.info.SidecarDebug[0]
	c := s.redis(t)

	// Ten million, straight at the decider: authz, TestFloodOfIdentifiersKeepsNothing.
	t.Run("L01 and L03 strangers' identifiers through Envoy", func(t *testing.T) {
		elsewhere(t, "../authz/flood_test.go", "TestFloodOfIdentifiersKeepsNothing")
		m := minter{t, s, s.signer}
		s.ask(t, "GET", lookup, s.token(t, nil), nil)
		before, _ := series(t, side)
		keys, err := c.DBSize(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		o := s.watch(t)
		for i := range 600 {
			id := fmt.Sprintf("stranger-%d", i)
			s.ask(t, "GET", "/"+id+"/v1", m.claim("client_id", id), http.Header{"User-Agent": {id}, "X-Product-Id": {id}})
			s.ask(t, "GET", lookup, m.header("kid", id), nil)
			s.ask(t, "GET", lookup, m.claim("iss", "http://"+id), nil)
		}
		o.check(0, "")
		after, text := series(t, side)
		if after > before+8 || after > 2000 || strings.Contains(text, "stranger-") {
			t.Errorf("%d series, were %d; or one is named by a stranger", after, before)
		}
		// Decision records are one stream by the hour, not a key an identifier.
		if n, err := c.DBSize(t.Context()).Result(); err != nil || n > keys+8 {
			t.Errorf("%d keys in Redis, were %d (%v)", n, keys, err)
		}
	})

	t.Run("L05 nothing a caller writes breaks a log, and no TFN is kept", func(t *testing.T) {
		own := s.token(t, nil)
		evil := []string{
			`"},{"level":"ERROR","msg":"forged"`, "\x1b[31mred\x1b[0m", "a%0d%0a{\"forged\":1}", `\u0022,\"forged\":1`, tfn,
			strings.Repeat("A", 20<<10), "\t" + tfn, "\u2028" + tfn, "${jndi:ldap://x}",
		}
		for _, v := range evil {
			for _, name := range []string{"User-Agent", "X-Request-Id", "X-Product-Id", "X-Product-Version", "X-Software-Id", "Referer", "X-Anything", "Traceparent"} {
				h := http.Header{name: {v}}
				if strings.ContainsAny(v, "\x1b") {
					throw(t, s, "GET "+lookup+" HTTP/1.1\r\nHost: localhost\r\n"+name+": "+v+"\r\nConnection: close\r\n\r\n")
					continue
				}
				s.ask(t, "GET", lookup, own, h)
			}
			q := strings.NewReplacer("\x1b", "%1b", " ", "%20", "\t", "%09", "\u2028", "%e2%80%a8").Replace(v)
			s.ask(t, "GET", receipt+"?q="+q, own, nil)
		}
		// A megabyte of header is cut off by Envoy.
		throw(t, s, "GET "+lookup+" HTTP/1.1\r\nHost: localhost\r\nX-Big: "+strings.Repeat("B", 1<<20)+"\r\n\r\n")
		m := minter{t, s, s.signer}
		for _, raw := range []string{m.claim("sub", tfn), m.header("kid", tfn), m.claim("client_id", tfn), m.claim("scope", tfn), m.claim("iss", "http://"+tfn)} {
			if r := s.ask(t, "GET", lookup, raw, nil); r.status != 200 && bytes.Contains(r.body, []byte(tfn)) {
				t.Errorf("a TFN in the refusal: %v", r)
			}
		}
		for _, r := range []reply{
			s.ask(t, "GET", prefill, own, nil), s.ask(t, "GET", prefill, "", nil), s.ask(t, "GET", prefill+"/"+tfn, own, nil),
			s.get(t, "POST", verify, own, http.Header{"Content-Type": {"application/json"}}, strings.NewReader(`{"tfn":"`+tfn+`"}`)),
			s.ask(t, "GET", lookup+"?tfn="+tfn, "", http.Header{"X-Tfn": {tfn}}),
		} {
			if r.status != 200 && bytes.Contains(r.body, []byte(tfn)) {
				t.Errorf("a TFN in the refusal: %v", r)
			}
		}
		eventually(t, 10*time.Second, "the records are written", func() bool {
			return s.metric(t, side, "authz_records_written_total", "") > 50
		})
		logs(t, s)
		for _, debug := range []string{side, s.info.ControlDebug} {
			if _, text := series(t, debug); strings.Contains(text, tfn) {
				t.Error("a TFN in the metrics of", debug)
			}
		}
		for k, v := range dump(t, c) { // bytes as Redis keeps them
			if strings.Contains(k, tfn) || strings.Contains(v, tfn) {
				t.Errorf("a TFN in Redis, key %.80q", k)
			}
		}
	})

	t.Run("L07 signatures that are bad, from one address", func(t *testing.T) {
		flood, innocent := from(t, "127.0.0.2"), from(t, "127.0.0.3")
		forged := func(i int) string { // another signature each time, so that no cache helps
			return signature(t, s.token(t, nil), func(b []byte) []byte { b[10], b[11], b[12] = byte(i), byte(i>>8), 0; return b })
		}
		cached := s.token(t, nil)
		mustAdmit(t, s.askVia(t, flood, s.info.Ingress, "GET", lookup, cached, nil), lookup, kooka)
		began := time.Now()
		before := s.metric(t, side, "token_signatures_total", "")
		throttled := 0
		for i := range 500 {
			switch r := s.askVia(t, flood, s.info.Ingress, "GET", lookup, forged(i), nil); r.code() {
			case "token-signature-invalid":
			case "rate-limited":
				mustRefuse(t, r, "rate-limited")
				throttled++
			default:
				t.Fatalf("%v", r)
			}
		}
		spent := s.metric(t, side, "token_signatures_total", "") - before
		if most := 200 + 50*time.Since(began).Seconds() + 10; spent > most || throttled == 0 {
			t.Errorf("%v signatures computed, at most %v are allowed; %d calls throttled", spent, most, throttled)
		}
		// Others are not harmed, nor is the flooder's own good token that is known.
		mustAdmit(t, s.askVia(t, innocent, s.info.Ingress, "GET", lookup, s.token(t, nil), nil), lookup, kooka)
		mustAdmit(t, s.askVia(t, flood, s.info.Ingress, "GET", lookup, cached, nil), lookup, kooka)
	})

	t.Run("L07 one bad token again and again costs one signature", func(t *testing.T) {
		client := from(t, "127.0.0.4")
		raw := signature(t, s.token(t, nil), func(b []byte) []byte { b[40] ^= 1; return b })
		before := s.metric(t, side, "token_signatures_total", "")
		for range 300 {
			mustRefuse(t, s.askVia(t, client, s.info.Ingress, "GET", lookup, raw, nil), "token-signature-invalid")
		}
		if n := s.metric(t, side, "token_signatures_total", "") - before; n > 2 {
			t.Errorf("%v signatures computed", n)
		}
	})
}

// logs holds every process's log: each line of ours one JSON object of a
// bounded length, no line with a TFN or a terminal's escape.
func logs(t testing.TB, s *stack) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, "log", "*"))
	if err != nil {
		t.Fatal(err)
	}
	access := filepath.Join(s.dir, "access.log") // Envoy's own, which it writes now and then, all that waits at once
	size := func() int64 {
		i, err := os.Stat(access)
		if err != nil {
			return 0
		}
		return i.Size()
	}
	before := size()
	if r := s.ask(t, "GET", lookup, s.tokenFor(t, "fp-1011-prod", "65000000101"), nil); r.code() == "" {
		t.Errorf("%v, of a product whose certification has expired", r)
	}
	eventually(t, 60*time.Second, "Envoy writes its access log, and whom it refused", func() bool {
		s.ask(t, "GET", lookup, "", nil)
		return size() > before && saysRefused(t, access)
	})
	for _, p := range append(paths, access) {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(p)
		for line := range bytes.Lines(b) {
			ours := name != "envoy.log" && name != "redis.log"
			switch {
			case bytes.Contains(line, []byte(tfn)), bytes.ContainsRune(line, 0x1b), len(line) > 64<<10:
				t.Errorf("%s: %.300q", name, line)
			case ours && !json.Valid(line):
				t.Errorf("%s: a line is no JSON: %.300q", name, line)
			}
		}
	}
}

// saysRefused tells whether the access log has a refusal of FP-1011 that a replay can
// judge: with all that is asked about.
func saysRefused(t testing.TB, access string) bool {
	t.Helper()
	b, err := os.ReadFile(access)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		c, err := accesslog.ParseLine(line)
		if err == nil && c.Product == "FP-1011" && c.Reason == authz.CertificationExpired {
			return c.Environment == registry.PROD && c.Holder == 65000000101 && c.Service != ""
		}
	}
	return false
}

// throw sends bytes to the plain ingress and waits until it has closed.
func throw(t testing.TB, s *stack, request string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.info.Ingress, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// Envoy may answer and close before all was written: that is an answer too.
	_, _ = io.WriteString(conn, request)
	_, _ = io.Copy(io.Discard, conn)
}
