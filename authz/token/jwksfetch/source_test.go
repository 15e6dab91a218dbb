package jwksfetch_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/authz/token/issue"
	"github.com/dspgate/dspgate/authz/token/jwksfetch"
)

var algorithms = []string{"ES256"}

func signer(t testing.TB, kid string) *issue.Signer {
	t.Helper()
	s, err := issue.Generate(kid, "ES256")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func jwks(t testing.TB, signers ...*issue.Signer) []byte {
	t.Helper()
	doc, err := issue.JWKS(signers...)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func source(t testing.TB, cfg jwksfetch.Config) *jwksfetch.Source {
	t.Helper()
	cfg.Algorithms = algorithms
	s, err := jwksfetch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answers is a handler that a test changes.
type answers struct {
	atomic.Pointer[http.HandlerFunc]
}

func (a *answers) set(h http.HandlerFunc) { a.Store(&h) }
func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*a.Load())(w, r)
}

func document(doc []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json; charset=utf-8")
		_, _ = w.Write(doc)
	}
}

// caFile holds the test server's own certificate.
func caFile(t testing.TB, srv *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// K03: whatever a broken or hostile endpoint answers, the last good set stays.
func TestKeyCaseK03LastGoodIsKept(t *testing.T) {
	good, evil := signer(t, "good"), signer(t, "evil")
	attacker := httptest.NewServer(document(jwks(t, evil)))
	defer attacker.Close()
	var a answers
	srv := httptest.NewTLSServer(&a)
	defer srv.Close()
	s := source(t, jwksfetch.Config{URL: srv.URL + "/jwks", CAFile: caFile(t, srv), MaxStale: time.Hour})
	a.set(document(jwks(t, good)))
	began := time.Now()
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	set := s.Keys(time.Now())
	if set.Key("good") == nil {
		t.Fatal("the good key was not loaded")
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write(jwks(t, evil))
		}
	}
	hung := make(chan struct{})
	defer close(hung)
	for name, h := range map[string]http.HandlerFunc{
		"500":                 status(500),
		"404":                 status(404),
		"204":                 func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"302 to the attacker": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, attacker.URL, http.StatusFound) },
		"302 with a body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Location", attacker.URL)
			w.WriteHeader(302)
			_, _ = w.Write(jwks(t, evil))
		},
		"50 MB": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			chunk := bytes.Repeat([]byte(" "), 1<<20)
			for range 50 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		},
		"50 MB announced": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", fmt.Sprint(50<<20))
		},
		"HTML": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>Sign in</html>"))
		},
		"HTML named JSON": document([]byte("<html>Sign in</html>")),
		"JSON named HTML": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write(jwks(t, evil))
		},
		"no content type": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			_, _ = w.Write(jwks(t, evil))
		},
		"gzip unasked": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			document([]byte("\x1f\x8b"))(w, nil)
		},
		"empty keys":       document([]byte(`{"keys":[]}`)),
		"nothing":          document(nil),
		"cut short":        document(jwks(t, evil)[:40]),
		"no usable key":    document([]byte(`{"keys":[{"kty":"oct","k":"AAAA","kid":"x"}]}`)),
		"connection reset": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			a.set(h)
			if err := s.Load(t.Context()); err == nil {
				t.Error("the answer was taken")
			}
			if s.Keys(time.Now()) != set {
				t.Error("the last good set is gone")
			}
			if st := s.Status(); st.Err == nil || st.Keys != 1 || st.Generation != 1 || st.LastSuccess.Before(began) {
				t.Errorf("status %+v", st)
			}
		})
	}
	if got := s.Keys(time.Now().Add(time.Hour + time.Second)); got != nil {
		t.Error("a set beyond its max stale still serves")
	}
	if got := s.Keys(began.Add(time.Hour - time.Second)); got != set {
		t.Error("the set went before its max stale")
	}
	a.set(document(jwks(t, good)))
	if err := s.Load(t.Context()); err != nil || s.Keys(time.Now()) != set {
		t.Errorf("the same keys again: %v; the pointer must stay", err)
	}
}

// K03, timeout: a server that accepts and never answers holds a fetch up for the
// timeout, and no reader at all.
func TestKeyCaseK03HangingServerTimesOut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := source(t, jwksfetch.Config{URL: "http://" + ln.Addr().String(), AllowHTTPLoopback: true, Timeout: 200 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Load(ctx) }()
	c, err := ln.Accept() // the request is on its way, and gets no answer
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Missed("x")
	if s.Keys(time.Now()) != nil {
		t.Error("keys out of nowhere")
	}
	err = <-done // by the source's own timeout
	cancel()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Load = %v, want its deadline", err)
	}
}

// K05: whom the URL leads to must prove the URL's name.
func TestKeyCaseK05OnlyTheRightServerIsBelieved(t *testing.T) {
	h := document(jwks(t, signer(t, "good")))
	srv := httptest.NewTLSServer(h) // its certificate names example.com and 127.0.0.1
	defer srv.Close()
	other := httptest.NewUnstartedServer(h)
	other.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	other.StartTLS()
	defer other.Close()
	plain := httptest.NewServer(h)
	defer plain.Close()
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	for name, c := range map[string]struct {
		cfg jwksfetch.Config
		ok  bool
	}{
		"its CA":                       {jwksfetch.Config{URL: srv.URL, CAFile: caFile(t, srv)}, true},
		"the system's CAs":             {jwksfetch.Config{URL: srv.URL}, false},
		"another name for its address": {jwksfetch.Config{URL: "https://localhost:" + port, CAFile: caFile(t, srv)}, false},
		"another address":              {jwksfetch.Config{URL: "https://127.0.0.2:" + port, CAFile: caFile(t, srv)}, false},
		"TLS 1.1":                      {jwksfetch.Config{URL: other.URL, CAFile: caFile(t, other)}, false},
		"https to a plain server":      {jwksfetch.Config{URL: strings.Replace(plain.URL, "http:", "https:", 1)}, false},
		"plain http, allowed":          {jwksfetch.Config{URL: plain.URL, AllowHTTPLoopback: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := source(t, c.cfg)
			if err := s.Load(t.Context()); (err == nil) != c.ok {
				t.Errorf("Load = %v", err)
			}
			if got := s.Keys(time.Now()); (got.Len() == 1) != c.ok {
				t.Errorf("%d keys", got.Len())
			}
		})
	}
}

func TestConfigRefusals(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]jwksfetch.Config{
		"neither":                  {},
		"both":                     {File: "x", URL: "https://issuer.example/"},
		"K05 plain http":           {URL: "http://issuer.example/jwks"},
		"K05 plain http, loopback": {URL: "http://127.0.0.1/jwks"},
		"K05 http to a name":       {URL: "http://localhost/jwks", AllowHTTPLoopback: true},
		"K05 http to elsewhere":    {URL: "http://10.0.0.1/jwks", AllowHTTPLoopback: true},
		"http to a lookalike":      {URL: "http://127.0.0.1.evil.example/jwks", AllowHTTPLoopback: true},
		"http to user@host":        {URL: "http://127.0.0.1@evil.example/", AllowHTTPLoopback: true},
		"file URL":                 {URL: "file:///etc/passwd"},
		"no host":                  {URL: "https:///jwks"},
		"no URL":                   {URL: "://"},
		"user in the URL":          {URL: "https://a:b@issuer.example/"},
		"CA file absent":           {URL: "https://issuer.example/", CAFile: empty + "x"},
		"CA file empty":            {URL: "https://issuer.example/", CAFile: empty},
		"refresh of a microsecond": {File: "x", Refresh: time.Microsecond},
		"stale before the refresh": {File: "x", Refresh: time.Hour, MaxStale: time.Minute},
		"timeout of an hour":       {File: "x", Timeout: time.Hour},
		"stale for ever":           {File: "x", MaxStale: 8 * 24 * time.Hour},
		"symmetric algorithm":      {File: "x", Algorithms: []string{"HS256"}},
	} {
		if cfg.Algorithms == nil {
			cfg.Algorithms = algorithms
		}
		if s, err := jwksfetch.New(cfg); !errors.Is(err, jwksfetch.ErrConfig) || s != nil {
			t.Errorf("%s: New = %v, %v", name, s, err)
		}
	}
	if _, err := jwksfetch.New(jwksfetch.Config{File: "x"}); !errors.Is(err, jwksfetch.ErrConfig) {
		t.Errorf("no algorithm: %v", err)
	}
}

// run starts Run, and ends it with the test.
func run(t *testing.T, s *jwksfetch.Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	synctest.Wait()
}

func write(t *testing.T, file string, doc []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", doc, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "jwks.json")
		old, fresh := signer(t, "old"), signer(t, "new")
		s := source(t, jwksfetch.Config{File: file, MaxStale: time.Minute})
		run(t, s)
		if s.Keys(time.Now()) != nil || s.Status().Err == nil {
			t.Fatal("keys without a file")
		}
		write(t, file, jwks(t, old))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		first := s.Keys(time.Now())
		if first.Key("old") == nil {
			t.Fatal("the file was not taken up")
		}
		write(t, file, append(jwks(t, old), ' ')) // other bytes, the same keys
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s.Keys(time.Now()) != first || s.Status().Generation != 1 {
			t.Error("the same keys made another set: cached tokens would be looked up anew")
		}
		write(t, file, jwks(t, old, fresh))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := s.Keys(time.Now()); got.Len() != 2 || s.Status().Generation != 2 {
			t.Errorf("%d keys, %+v", got.Len(), s.Status())
		}
		write(t, file, []byte(`{"keys":[`)) // a writer without rename, half way
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := s.Keys(time.Now()); got.Len() != 2 || !errors.Is(s.Status().Err, jwksfetch.ErrDocument) {
			t.Errorf("%d keys, %+v", got.Len(), s.Status())
		}
		time.Sleep(31 * time.Second)
		if got := s.Keys(time.Now()); got != nil {
			t.Error("a set beyond its max stale still serves")
		}
		write(t, file, jwks(t, fresh))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := s.Keys(time.Now()); got.Len() != 1 || got.Key("new") == nil {
			t.Error("it does not come back")
		}
	})
}

func TestFileThatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	pipe, big := filepath.Join(dir, "pipe"), filepath.Join(dir, "big")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(big, bytes.Repeat([]byte(" "), jwksfetch.DocumentBytesMax+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{dir, pipe, big, filepath.Join(dir, "absent")} {
		if err := source(t, jwksfetch.Config{File: file}).Load(t.Context()); err == nil {
			t.Errorf("%s was loaded", file)
		}
	}
}

// J05: unknown kids, however many, cost the issuer one fetch in 30 s.
func TestTokenCaseJ05UnknownKidsCostOneFetchIn30s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "jwks.json")
		write(t, file, jwks(t, signer(t, "a")))
		s := source(t, jwksfetch.Config{File: file, Refresh: time.Hour, MaxStale: 2 * time.Hour})
		run(t, s)
		if got := s.Status().Fetches; got != 1 {
			t.Fatalf("%d fetches at the start", got)
		}
		write(t, file, jwks(t, signer(t, "a"), signer(t, "b")))
		begin := time.Now()
		for time.Since(begin) < 5*time.Minute-time.Second {
			for i := range 100 {
				s.Missed(fmt.Sprint("nobody-", i))
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if got := s.Status().Fetches - 1; got < 8 || got > 10 {
			t.Errorf("%d fetches for 5 min of unknown kids, want one in 30 s", got)
		}
		if s.Keys(time.Now()).Len() != 2 {
			t.Error("the new key was not found")
		}
		n := s.Status().Fetches
		time.Sleep(40 * time.Minute) // one wish may be left over, then nothing until the refresh
		synctest.Wait()
		if got := s.Status().Fetches - n; got > 1 {
			t.Errorf("%d fetches that nobody asked for", got)
		}
	})
}

// A miss must bring the next fetch forward, never put it off: before the first
// set there is a miss for every request.
func TestMissDoesNotPutOffTheRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "jwks.json")
		s := source(t, jwksfetch.Config{File: file, Refresh: time.Minute})
		run(t, s)
		write(t, file, jwks(t, signer(t, "a")))
		s.Missed("a")
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		if s.Keys(time.Now()).Len() != 1 {
			t.Errorf("no keys 1.2 s after the first attempt: %+v", s.Status())
		}
	})
}

func TestRefreshIsJitteredAndRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "jwks.json")
		write(t, file, jwks(t, signer(t, "a")))
		s := source(t, jwksfetch.Config{File: file, Refresh: 100 * time.Second})
		run(t, s)
		var at []time.Duration
		last := s.Status().LastAttempt
		for len(at) < 20 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if now := s.Status().LastAttempt; now != last {
				at, last = append(at, now.Sub(last)), now
			}
		}
		same := true
		for _, d := range at {
			same = same && d == at[0]
			if d < 90*time.Second || d > 110*time.Second {
				t.Errorf("looked after %v, want 100 s within 10 %%", d)
			}
		}
		if same {
			t.Error("no jitter: a fleet would fetch as one")
		}
	})
}
