package signin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/dspgate/dspgate/control/signin"
	"github.com/dspgate/dspgate/internal/sandboxop"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/people"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
	"github.com/dspgate/dspgate/registry/translog"
	"github.com/dspgate/dspgate/registry/translog/translogtest"
)

// memory is a signin.Store.
type memory struct {
	mu   sync.Mutex
	kept map[string][]byte
	ends map[string]time.Time
	now  func() time.Time
}

func (m *memory) Put(_ context.Context, key string, v []byte, ttl time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept[key], m.ends[key] = v, m.now().Add(ttl)
	return nil
}

func (m *memory) get(key string) []byte {
	if m.ends[key].After(m.now()) {
		return m.kept[key]
	}
	return nil
}

func (m *memory) Renew(ctx context.Context, key string, v []byte, ttl time.Duration) (bool, error) {
	m.mu.Lock()
	there := m.get(key) != nil
	m.mu.Unlock()
	if !there {
		return false, nil
	}
	return true, m.Put(ctx, key, v, ttl)
}

func (m *memory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(key), nil
}

func (m *memory) Take(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.get(key)
	delete(m.kept, key)
	return v, nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.kept, key)
	return nil
}

// world is a console that only says who is signed in, a provider, and a register.
type world struct {
	t      *testing.T
	app    *httptest.Server
	op     *httptest.Server
	store  *memory
	leaves *translogtest.Memory
	reg    *registry.Register
	clock  atomic.Int64
	signIn *signin.SignIn
	tamper func(*http.Request) // of what comes back to the callback
}

const password = "correct horse battery staple"

var folk = []sandboxop.Person{
	{Email: "operator@agency.example", Name: "Op", Roles: []string{"operator", "registrar", "janitor", "developer"}},
	{Email: "dev@kookaburra.example", Name: "Dev"},
	{Email: "ana@elsewhere.example", Name: "Ana"},
	{Email: "fake@agency.example", Name: "Fake", Roles: []string{"operator"}, Unverified: true},
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, leaves: &translogtest.Memory{}}
	w.store = &memory{kept: map[string][]byte{}, ends: map[string]time.Time{}, now: w.now}
	store, seal := registrytest.NewMemory(), registrytest.Sealer(t)
	m := registry.NewMirror(store, seal, registry.MirrorConfig{ID: "one", Observer: true})
	w.reg = registry.NewRegister(store, m, seal, registry.RegisterConfig{Holder: "one", Cases: people.Types()})
	skey, vkey, err := note.GenerateKey(nil, "audit.example")
	if err != nil {
		t.Fatal(err)
	}
	signer, err1 := note.NewSigner(skey)
	verifier, err2 := note.NewVerifier(vkey)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	audit, err := translog.New(w.leaves, translog.Config{Signer: signer, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{m.Run, w.reg.Run, audit.Run} {
		wg.Go(func() { _ = run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := w.reg.Casebook(); err == nil && w.reg.Writing() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the register never came")
		}
	}
	if _, err := w.reg.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), registry.Meta{}); err != nil {
		t.Fatal(err)
	}

	w.app = httptest.NewServer(http.HandlerFunc(w.serve))
	w.op = httptest.NewUnstartedServer(nil)
	w.op.Start()
	t.Cleanup(func() { w.app.Close(); w.op.Close() })
	op, err := sandboxop.New(sandboxop.Config{Issuer: w.op.URL, ClientID: "console", ClientSecret: "s3cret", RedirectURI: w.app.URL + signin.PathCallback, Password: password, People: folk})
	if err != nil {
		t.Fatal(err)
	}
	w.op.Config.Handler = op
	w.signIn, err = signin.New(signin.Config{
		Issuer: w.op.URL, ClientID: "console", ClientSecret: "s3cret", PublicURL: w.app.URL, Key: bytes.Repeat([]byte("k"), 32),
		Store: w.store, Casebook: w.reg.Casebook, Audit: audit, Now: w.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	var err error
	switch r.URL.Path {
	case signin.PathStart:
		err = w.signIn.Start(rw, r)
	case signin.PathCallback:
		if w.tamper != nil {
			w.tamper(r)
		}
		err = w.signIn.Callback(rw, r)
	case signin.PathEnd:
		err = w.signIn.End(rw, r)
	default:
		var p *signin.Person
		if p, err = w.signIn.Person(rw, r); err == nil {
			fmt.Fprintf(rw, "%s %v %s", p.Actor.Name, people.Words(p.Actor.Permissions), p.Actor.Entity)
		}
	}
	if err != nil {
		http.Error(rw, err.Error(), http.StatusUnauthorized)
	}
}

// browser keeps cookies and follows redirects.
func (w *world) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: 20 * time.Second}
}

func get(t *testing.T, c *http.Client, url string) (string, *http.Response) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), resp
}

// signIn walks through the provider's page as a person does.
func (w *world) sign(c *http.Client, email, pass, to string) (string, *http.Response) {
	w.t.Helper()
	_, resp := get(w.t, c, w.app.URL+signin.PathStart+"?to="+url.QueryEscape(to))
	id := resp.Request.URL.Query().Get("id")
	if !strings.HasPrefix(resp.Request.URL.String(), w.op.URL+"/login") || id == "" {
		w.t.Fatalf("sent to %s", resp.Request.URL)
	}
	resp, err := c.PostForm(w.op.URL+"/login", url.Values{"id": {id}, "email": {email}, "password": {pass}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b), resp
}

func TestPeopleSignInAndGetWhatIsTheirs(t *testing.T) {
	w := newWorld(t)
	for email, want := range map[string]string{
		"operator@agency.example": "operator@agency.example [operator registrar] ", // a role that is none, and developer, count for nothing
		"dev@kookaburra.example":  "dev@kookaburra.example [developer] 31000000202",
		"ana@elsewhere.example":   "ana@elsewhere.example [] ",
	} {
		c := w.browser()
		body, resp := w.sign(c, email, password, "/console/products?page=2")
		if body != want || resp.Request.URL.String() != w.app.URL+"/console/products?page=2" {
			t.Errorf("%s: %q at %s", email, body, resp.Request.URL)
		}
		if body, _ := get(t, c, w.app.URL+"/x"); body != want {
			t.Errorf("%s, next page: %q", email, body)
		}
	}
	var kinds []string
	for _, l := range w.leaves.Contents().Leaves {
		leaf, err := translog.ParseLeaf(l)
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, leaf.Kind+" "+leaf.Command)
	}
	if len(kinds) != 3 || kinds[0] != "access sign-in" {
		t.Errorf("leaves: %v", kinds)
	}
}

func TestThoseWhoDoNotGetIn(t *testing.T) {
	w := newWorld(t)
	if body, resp := w.sign(w.browser(), "operator@agency.example", "wrong", "/console/"); resp.StatusCode != 401 || !strings.Contains(body, "Sandbox") {
		t.Errorf("wrong password: %d", resp.StatusCode)
	}
	if body, _ := w.sign(w.browser(), "fake@agency.example", password, "/console/"); !strings.Contains(body, signin.ErrUnverified.Error()) {
		t.Errorf("an address nobody vouches for: %q", body)
	}
	if body, _ := get(t, w.browser(), w.app.URL+"/x"); !strings.Contains(body, signin.ErrNobody.Error()) {
		t.Errorf("nobody: %q", body)
	}
}

// TestTheProvidersAnswerIsBound: to the browser by its cookie, to the sign-in by
// state, once, and for ten minutes.
func TestTheProvidersAnswerIsBound(t *testing.T) {
	w := newWorld(t)
	stale := signin.ErrStale.Error()
	for name, tamper := range map[string]func(*http.Request){
		"another state": func(r *http.Request) { r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "state=", "state=x", 1) },
		"state twice":   func(r *http.Request) { r.URL.RawQuery += "&state=" + r.URL.Query().Get("state") },
		"no state":      func(r *http.Request) { r.URL.RawQuery = "code=" + r.URL.Query().Get("code") },
		"no cookie":     func(r *http.Request) { r.Header.Del("Cookie") },
		"other cookie":  func(r *http.Request) { r.Header.Set("Cookie", "dspgate-signin=AAAAAAAAAAAAAAAAAAAAAAAAAA") },
		"too late":      func(*http.Request) { w.clock.Add(int64(11 * time.Minute)) },
	} {
		w.tamper = tamper
		if body, _ := w.sign(w.browser(), "operator@agency.example", password, "/console/"); !strings.Contains(body, stale) {
			t.Errorf("%s: %q", name, body)
		}
	}
	w.tamper = nil
	// The same answer twice.
	var answer string
	w.tamper = func(r *http.Request) { answer = r.URL.String() }
	c := w.browser()
	if body, _ := w.sign(c, "operator@agency.example", password, "/console/"); !strings.HasPrefix(body, "operator@") {
		t.Fatalf("%q", body)
	}
	w.tamper = nil
	if body, _ := get(t, c, w.app.URL+answer); !strings.Contains(body, stale) {
		t.Errorf("the same answer again: %q", body)
	}
	w.tamper = func(r *http.Request) {
		r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "code=", "error=access_denied&nocode=", 1)
	}
	if body, _ := w.sign(w.browser(), "operator@agency.example", password, "/console/"); !strings.Contains(body, signin.ErrDenied.Error()) {
		t.Errorf("denied: %q", body)
	}
	w.tamper = func(r *http.Request) { r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "code=", "code=x", 1) }
	if body, _ := w.sign(w.browser(), "operator@agency.example", password, "/console/"); !strings.Contains(body, signin.ErrProvider.Error()) {
		t.Errorf("another code: %q", body)
	}
}

func (w *world) cookie(c *http.Client) string {
	u, _ := url.Parse(w.app.URL)
	for _, k := range c.Jar.Cookies(u) {
		if k.Name == "dspgate" {
			return k.Value
		}
	}
	return ""
}

// TestSessionsEnd: idle, after the longest time whatever happens, and by sign-out.
func TestSessionsEnd(t *testing.T) {
	w := newWorld(t)
	in := func(c *http.Client) bool {
		body, _ := get(t, c, w.app.URL+"/x")
		return strings.HasPrefix(body, "operator@")
	}
	c := w.browser()
	w.sign(c, "operator@agency.example", password, "/console/")
	first := w.cookie(c)
	w.clock.Add(int64(32 * time.Minute))
	if in(c) {
		t.Error("signed in after half an hour idle")
	}
	w.sign(c, "operator@agency.example", password, "/console/")
	for range 19 { // never idle
		w.clock.Add(int64(25 * time.Minute))
		if !in(c) {
			t.Fatal("ended early")
		}
	}
	if w.cookie(c) == first {
		t.Error("the session kept its name for hours")
	}
	w.clock.Add(int64(6 * time.Minute))
	if in(c) {
		t.Error("signed in after eight hours")
	}
	w.clock.Store(0) // the provider's clock is the real one
	w.sign(c, "operator@agency.example", password, "/console/")
	stolen := w.cookie(c)
	if _, resp := get(t, c, w.app.URL+signin.PathEnd); resp.StatusCode != 200 {
		t.Errorf("sign-out: %d", resp.StatusCode)
	}
	req, _ := http.NewRequest("GET", w.app.URL+"/x", nil)
	req.AddCookie(&http.Cookie{Name: "dspgate", Value: stolen})
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Error("the cookie works after the sign-out")
	}
}

// TestRenamedSessionServesWhatIsUnderWay, and then no more.
func TestRenamedSessionServesWhatIsUnderWay(t *testing.T) {
	w := newWorld(t)
	c := w.browser()
	w.sign(c, "operator@agency.example", password, "/console/")
	old := w.cookie(c)
	w.clock.Add(int64(16 * time.Minute))
	get(t, c, w.app.URL+"/x")
	if w.cookie(c) == old {
		t.Fatal("not renamed")
	}
	with := func(cookie string) int {
		req, _ := http.NewRequest("GET", w.app.URL+"/x", nil)
		req.AddCookie(&http.Cookie{Name: "dspgate", Value: cookie})
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if len(resp.Cookies()) > 0 && cookie == old {
			t.Error("the old name gets a new one")
		}
		return resp.StatusCode
	}
	if with(old) != 200 {
		t.Error("a request under way is cut off")
	}
	w.clock.Add(int64(31 * time.Second))
	if with(old) != 401 || with(w.cookie(c)) != 200 {
		t.Error("the old name lives on, or the new one does not")
	}
}

// TestTheStoreIsNotBelieved: its values name no secret, and a forged, moved or
// edited one signs nobody in.
func TestTheStoreIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	c := w.browser()
	w.sign(c, "ana@elsewhere.example", password, "/console/")
	cookie := w.cookie(c)
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if len(w.store.kept) != 1 {
		t.Fatalf("%d values", len(w.store.kept))
	}
	for key, v := range w.store.kept {
		if strings.Contains(key, cookie) || bytes.Contains(v, []byte(cookie)) {
			t.Error("the cookie itself is in the store")
		}
		forged := bytes.Replace(v, []byte(`"name":"ana@elsewhere.example"`), []byte(`"name":"ana@elsewhere.example","staff":["operator"]`), 1)
		var m map[string]any
		if err := json.Unmarshal(forged[32:], &m); err != nil || m["staff"] == nil {
			t.Fatal("nothing was forged", err)
		}
		w.store.kept[key] = forged
	}
	w.store.mu.Unlock()
	body, _ := get(t, c, w.app.URL+"/x")
	w.store.mu.Lock()
	if !strings.Contains(body, signin.ErrNobody.Error()) {
		t.Errorf("forged: %q", body)
	}
}

// TestMembershipEndsAtOnce: a person removed from an entity may see nothing of
// it with the next request, sessions notwithstanding.
func TestMembershipEndsAtOnce(t *testing.T) {
	w := newWorld(t)
	book := people.Book{Register: w.reg}
	registrar := registry.Actor{Name: "registrar@agency.example", Permissions: registry.PermRegistrar}
	_, code, err := book.Invite(t.Context(), registrar, "ana@elsewhere.example", sample.Kookaburra)
	if err != nil {
		t.Fatal(err)
	}
	m, err := book.Accept(t.Context(), registry.Actor{Name: "ana@elsewhere.example"}, code)
	if err != nil {
		t.Fatal(err)
	}
	c := w.browser()
	if body, _ := w.sign(c, "ana@elsewhere.example", password, "/console/"); body != "ana@elsewhere.example [developer] 31000000202" {
		t.Fatalf("%q", body)
	}
	if _, err := book.Remove(t.Context(), registrar, m.ID); err != nil {
		t.Fatal(err)
	}
	if body, _ := get(t, c, w.app.URL+"/x"); body != "ana@elsewhere.example [] " {
		t.Errorf("%q", body)
	}
}

func TestSafeReturn(t *testing.T) {
	for _, to := range []string{
		"", "/", "//evil.example/console/", "/\\evil.example", "https://evil.example/console/", "javascript:alert(1)", "/console/../../evil", "/console//evil.example",
		"\t//evil.example", "/consolexyz", "console/", "/console/\r\nSet-Cookie: a=b", "//evil.example/%2f..", "/console/#x", "/%2f/evil.example", "https:/console/", "https:console/", "/console/\\..\\x",
		"/console/" + strings.Repeat("a", 600), "/sign-out", "?to=/console/", "///console/", "http:///console/",
	} {
		if got := signin.SafeReturn(to); got != signin.PathHome {
			t.Errorf("%q: %q", to, got)
		}
	}
	for _, to := range []string{"/console/", "/console/products", "/console/products/FP-1001?tab=versions", "/console/entities?name=a%20b"} {
		if got := signin.SafeReturn(to); got != to {
			t.Errorf("%q: %q", to, got)
		}
	}
}

func TestCookiesAreHardened(t *testing.T) {
	w := newWorld(t)
	for public, want := range map[string]string{
		"https://control.agency.example": "__Host-dspgate-signin=",
		w.app.URL:                        "dspgate-signin=",
	} {
		s, err := signin.New(signin.Config{Issuer: w.op.URL, ClientID: "console", ClientSecret: "s3cret", PublicURL: public, Key: make([]byte, 32), Store: w.store, Casebook: w.reg.Casebook})
		if err != nil {
			t.Fatal(err)
		}
		rec := httptest.NewRecorder()
		if err := s.Start(rec, httptest.NewRequest("GET", signin.PathStart, nil)); err != nil {
			t.Fatal(err)
		}
		c := rec.Header().Get("Set-Cookie")
		https := strings.HasPrefix(public, "https")
		if !strings.HasPrefix(c, want) || !strings.Contains(c, "; HttpOnly") || !strings.Contains(c, "; SameSite=Lax") || strings.Contains(c, "Domain") ||
			!strings.Contains(c, "; Path=/;") || strings.Contains(c, "; Secure") != https {
			t.Errorf("%s: %s", public, c)
		}
		u, err := url.Parse(rec.Header().Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 20 || len(q.Get("nonce")) < 20 || q.Get("response_type") != "code" {
			t.Errorf("%s: %v", public, q)
		}
	}
	for _, public := range []string{"http://control.agency.example", "control.agency.example", "https://a:b@c", "https://c/path", "ftp://localhost"} {
		if _, err := signin.New(signin.Config{Issuer: "x", ClientID: "y", PublicURL: public, Key: make([]byte, 32), Store: w.store, Casebook: w.reg.Casebook}); err == nil {
			t.Errorf("%s is taken", public)
		}
	}
}
