package upstream_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/authz/admission/upstream"
	"github.com/dspgate/dspgate/envoy/headers"
)

var (
	keyA = strings.Repeat("0a", 32)
	keyB = strings.Repeat("0b", 32)
)

func at() time.Time { return time.UnixMilli(1_795_300_000_123) }

// told are the headers of an admitted call of a product, all of them.
func told() map[string]string {
	return map[string]string{
		headers.DecisionID: "01M80HKV7W0000Z4EC1659GMA4", headers.Environment: "PROD", headers.Service: "ldglst.0002.list", headers.ProductID: "FP-1003",
		headers.ProductVersion: "7.1", headers.ABN: "31000000202", headers.SoftwareID: "0000300001", headers.ClientABN: "56000001313", headers.Revision: "42",
	}
}

// request is an admitted call as Envoy forwards it.
func request(t testing.TB, key, method, target string, edit func(map[string]string)) *http.Request {
	t.Helper()
	h := told()
	if edit != nil {
		edit(h)
	}
	keys, err := admission.ParseKeys([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	s, err := admission.NewSigner(keys, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, target, nil)
	for k, v := range h {
		if v != "" {
			r.Header.Set(k, v)
		}
	}
	c := admission.Call{
		DecisionID: h[headers.DecisionID], Environment: h[headers.Environment], Service: h[headers.Service], ProductID: h[headers.ProductID],
		ProductVersion: h[headers.ProductVersion], ABN: h[headers.ABN], SoftwareID: h[headers.SoftwareID], ClientABN: h[headers.ClientABN],
		Method: method, Path: target,
	}
	r.Header.Set(headers.Admission, string(s.Append(nil, &c, 42, at())))
	return r
}

// gate is a Middleware before a handler that counts.
type gate struct {
	h       http.Handler
	passed  atomic.Int64
	now     atomic.Pointer[time.Time]
	mu      sync.Mutex
	refused []string
}

func newGate(t testing.TB, edit func(*upstream.Config)) *gate {
	t.Helper()
	keys, err := admission.ParseKeys([]byte(keyA))
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{}
	g.set(at())
	cfg := upstream.Config{
		Keys: keys, Now: func() time.Time { return *g.now.Load() },
		Refused: func(_ *http.Request, err error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.refused = append(g.refused, upstream.Reason(err))
		},
	}
	if edit != nil {
		edit(&cfg)
	}
	v, err := upstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.h = v.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := upstream.FromContext(r.Context())
		if !ok || a.Revision != 42 || !a.NotAfter.Equal(at().Add(admission.DefaultValidity)) || !a.At.Equal(*g.now.Load()) {
			t.Errorf("in the context: %+v %v", a, ok)
		}
		g.passed.Add(1)
	}))
	return g
}

func (g *gate) set(now time.Time) { g.now.Store(&now) }

func (g *gate) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	g.h.ServeHTTP(w, r)
	return w
}

func TestAdmittedCallsPassOnce(t *testing.T) {
	g := newGate(t, nil)
	for i, r := range []*http.Request{
		request(t, keyA, "GET", "/agents/v1/clients?page=2&x=%2F..%2f", nil),
		request(t, keyA, "POST", "/a", func(h map[string]string) { // only what there must be
			clear(h)
			h[headers.DecisionID] = "01M80HKV7W0000Z4EC1659GMA5"
		}),
	} {
		if w := g.serve(r); w.Code != 200 || g.passed.Load() != int64(i+1) {
			t.Errorf("%s: %d %s", r.RequestURI, w.Code, w.Body)
		}
		if w := g.serve(r); w.Code != 503 || g.passed.Load() != int64(i+1) {
			t.Errorf("%s again: %d", r.RequestURI, w.Code)
		}
	}
	if diff := cmp.Diff([]string{"replayed", "replayed"}, g.refused); diff != "" {
		t.Error(diff)
	}
	again := newGate(t, func(c *upstream.Config) { c.AllowReplay = true })
	r := request(t, keyA, "GET", "/a", nil)
	if first, second := again.serve(r).Code, again.serve(r).Code; first != 200 || second != 200 {
		t.Error("replay is allowed, and refused")
	}
}

func TestWhatWasNotAdmittedIsRefused(t *testing.T) {
	g := newGate(t, nil)
	for want, edit := range map[string]func(*http.Request){
		"missing":     func(r *http.Request) { r.Header.Del(headers.Admission) },
		"malformed":   func(r *http.Request) { r.Header.Add(headers.ABN, "31000000202") },
		"unknown-key": func(r *http.Request) { *r = *request(t, keyB, "GET", "/a", nil) },
		"expired":     func(*http.Request) { g.set(at().Add(admission.DefaultValidity + admission.DefaultSkew)) },
		"ahead":       func(*http.Request) { g.set(at().Add(-time.Minute)) },
	} {
		g.set(at())
		r := request(t, keyA, "GET", "/a", nil)
		edit(r)
		if w := g.serve(r); w.Code != 503 {
			t.Errorf("%s: %d", want, w.Code)
		}
		if got := g.refused[len(g.refused)-1]; got != want {
			t.Errorf("refused as %s, want %s", got, want)
		}
	}
	g.set(at())
	// Whatever the upstream may believe is bound.
	for name := range told() {
		for _, v := range []string{"", "9"} {
			r := request(t, keyA, "GET", "/a", nil)
			r.Header.Set(name, v)
			if v == "" {
				r.Header.Del(name)
			}
			w := g.serve(r)
			if w.Code != 503 && !(name == headers.Revision && v == "") { // the revision is in the stamp anyway
				t.Errorf("with %s %q: %d", name, v, w.Code)
			}
			g.h = newGate(t, nil).h
		}
	}
	for _, edit := range []func(*http.Request){
		func(r *http.Request) { r.Method = "DELETE" },
		func(r *http.Request) { r.RequestURI = "/b" },
		func(r *http.Request) { r.RequestURI = "/a?" },
	} {
		r := request(t, keyA, "GET", "/a", nil)
		edit(r)
		if w := g.serve(r); w.Code != 503 {
			t.Errorf("%s %s: %d", r.Method, r.RequestURI, w.Code)
		}
	}
}

func TestRefusalIsTheGatewaysOwn(t *testing.T) {
	g := newGate(t, nil)
	reason := authz.AdmissionExpired
	for id, shown := range map[string]string{"01M80HKV7W0000Z4EC1659GMA4": "01M80HKV7W0000Z4EC1659GMA4", "": "unknown", `"><script>`: "unknown", strings.Repeat("é", 13): "unknown"} {
		r := httptest.NewRequest("GET", "/a", nil)
		r.Header.Set(headers.DecisionID, id)
		w := g.serve(r)
		var got any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		want := map[string]any{
			"type": "https://dspgate.example/problems/" + reason.String(), "title": reason.Title(), "status": float64(reason.Status()), "detail": reason.Detail(),
			"instance": "/decisions/" + shown, "errors": []any{map[string]any{"id": shown, "code": reason.String(), "detail": reason.Detail()}},
		}
		if diff := cmp.Diff(any(want), got); diff != "" {
			t.Error(diff)
		}
		if w.Code != reason.Status() || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Retry-After") != "1" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
	}
	r := httptest.NewRequest("POST", "/dspgate.sample.v1.Sample/Chat", nil)
	r.Header.Set("Content-Type", "application/grpc+proto")
	w := g.serve(r)
	if w.Code != 200 || w.Header().Get("Grpc-Status") != strconv.Itoa(reason.GRPCStatus()) || w.Body.Len() != 0 ||
		w.Header().Get("Grpc-Message") != reason.String()+": "+reason.Detail()+" (/decisions/unknown)" {
		t.Errorf("a gRPC caller got %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestKeyFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(keyA)
	g := newGate(t, func(c *upstream.Config) {
		c.Keys, c.KeyFile, c.AllowReplay, c.KeyReload = nil, path, true, 5*time.Millisecond
	})
	status := func(key string) int { return g.serve(request(t, key, "GET", "/a", nil)).Code }
	if status(keyA) != 200 || status(keyB) != 503 {
		t.Fatal("with the first key")
	}
	write(keyB + "\n" + keyA)
	if status(keyB) != 503 {
		t.Error("read again before it was time")
	}
	g.set(at().Add(5 * time.Millisecond))
	if status(keyB) != 200 || status(keyA) != 200 {
		t.Error("with both keys")
	}
	write("broken")
	g.set(at().Add(10 * time.Millisecond))
	if status(keyB) != 200 {
		t.Error("a broken file took the keys away")
	}
	write(keyB)
	g.set(at()) // a clock that steps back must not stop the reading
	if status(keyB) != 200 || status(keyA) != 503 {
		t.Error("with the second key")
	}
	if _, err := upstream.New(upstream.Config{KeyFile: filepath.Join(t.TempDir(), "nowhere")}); !errors.Is(err, admission.ErrKeys) {
		t.Errorf("no keys: %v", err)
	}
	if _, err := upstream.New(upstream.Config{KeyFile: path, Skew: time.Hour}); err == nil {
		t.Error("a skew of an hour is accepted")
	}
}

func TestManyAtOnceEachPassOnce(t *testing.T) {
	g := newGate(t, nil)
	var wg sync.WaitGroup
	for i := range 16 {
		r := request(t, keyA, "GET", "/a", func(h map[string]string) { h[headers.DecisionID] = "01M80HKV7W0000Z4EC1659GM" + strconv.Itoa(10+i) })
		for range 4 {
			wg.Go(func() { g.serve(r) })
		}
	}
	wg.Wait()
	if n := g.passed.Load(); n != 16 {
		t.Errorf("%d of 16 passed, each tried four times", n)
	}
}

// An agency's service imports this package: it must not bring a register, Envoy
// or gRPC along.
func TestImportsLittle(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range append(files, own...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(path, ".") && path != "github.com/dspgate/dspgate/authz/admission" {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
	if seen < 5 {
		t.Errorf("looked at %d files", seen)
	}
}
