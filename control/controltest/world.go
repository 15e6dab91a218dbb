// Package controltest is a control plane for tests: the API, the console with a
// real OpenID provider, and the audit log, over a register in memory with the
// sample register in it and sidecars that follow it.
package controltest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/console"
	"github.com/dspgate/dspgate/control/live"
	"github.com/dspgate/dspgate/control/signin"
	"github.com/dspgate/dspgate/internal/sandboxop"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/assurance/evidencedir"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/incident"
	"github.com/dspgate/dspgate/registry/people"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
	"github.com/dspgate/dspgate/registry/translog"
	"github.com/dspgate/dspgate/registry/translog/translogtest"
)

// Password is everybody's at the provider.
const Password = "correct horse battery staple"

// People are those who can sign in.
func People() []sandboxop.Person {
	return []sandboxop.Person{
		{Email: "operator@agency.example", Name: "Olive Operator", Roles: []string{"operator", "incident-officer", "registrar"}},
		{Email: "operator2@agency.example", Name: "Otto Operator", Roles: []string{"operator"}},
		{Email: "registrar@agency.example", Name: "Rhea Registrar", Roles: []string{"registrar"}},
		{Email: "assessor@agency.example", Name: "Asa Assessor", Roles: []string{"assessor"}},
		{Email: "assessor2@agency.example", Name: "Ari Assessor", Roles: []string{"assessor"}},
		{Email: "officer@agency.example", Name: "Ines Incident", Roles: []string{"incident-officer"}},
		{Email: "auditor@agency.example", Name: "Abel Auditor", Roles: []string{"auditor"}},
		{Email: "dev@wattlebird.example", Name: "Wattlebird"},
		{Email: "dev@kookaburra.example", Name: "Kookaburra"},
		{Email: "newcomer@elsewhere.example", Name: "Nia Newcomer"},
	}
}

// World is one control plane with everything around it.
type World struct {
	URL      string // of the console and the API
	Provider string
	Register *registry.Register
	Sessions *Sessions
	Sidecar  *registrytest.Link // the one sidecar's to the store
	// Records are the decision records that there are.
	Records map[authz.DecisionID]authz.Record
	// Calls is what the sidecars decide from now on; Live tells of it, and of all else.
	Calls *Tape
	// Used is what the sidecars spent of a limit; nil: nobody knows.
	Used func(*ratelimit.Limit) control.LimitUse
	// Signals are what the watcher told, the latest first; set before anybody looks.
	Signals []anomaly.Signal
	// Fields are what calls lacked; set before anybody looks.
	Fields []anomaly.FieldTally
	Live   *live.Hub

	t testing.TB
}

// New starts a world that ends with the test.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{t: t, Sessions: &Sessions{}, Records: map[authz.DecisionID]authz.Record{}, Calls: &Tape{}, Live: live.NewHub()}
	store, seal := registrytest.NewMemory(), registrytest.Sealer(t)
	w.Sidecar = registrytest.NewLink(store)
	mirror := registry.NewMirror(store, seal, registry.MirrorConfig{ID: "control", Incarnation: "1", Observer: true})
	follower := registry.NewMirror(w.Sidecar, seal, registry.MirrorConfig{ID: "sidecar-1", Incarnation: "1", Poll: 50 * time.Millisecond, Short: time.Second, Long: 2 * time.Second})
	audit := newAudit(t)
	w.Register = registry.NewRegister(store, mirror, seal, registry.RegisterConfig{Holder: "control", ClaimTTL: time.Second, Journal: audit, Cases: slices.Concat(people.Types(), assurance.CaseTypes(), incident.CaseTypes(), casework.Types(), policy.CaseTypes())})
	feed := control.Feed{Hub: w.Live, Register: w.Register, Changes: store.Changes, Tail: w.Calls.Tail, Every: 20 * time.Millisecond}
	run(t, mirror.Run, follower.Run, w.Register.Run, audit.Run, func(ctx context.Context) error { feed.Run(ctx); return nil })

	var front, provider atomic.Pointer[http.Handler] // each needs the other's address
	late := func(h *atomic.Pointer[http.Handler]) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*h.Load()).ServeHTTP(rw, r) }))
	}
	app, op := late(&front), late(&provider)
	t.Cleanup(func() { w.Live.Close(); app.CloseClientConnections(); app.Close(); op.Close() })
	w.URL, w.Provider = app.URL, op.URL
	h, err := sandboxop.New(sandboxop.Config{Issuer: op.URL, ClientID: "console", ClientSecret: "s3cret", RedirectURI: app.URL + signin.PathCallback, Password: Password, People: People()})
	must(t, err)
	provider.Store(&h)
	pages, err := w.front(store, audit)
	must(t, err)
	front.Store(&pages)

	Eventually(t, "the register takes commands", func() bool {
		_, err := w.Register.Casebook()
		return err == nil && w.Register.Writing()
	})
	_, err = w.Register.Import(context.Background(), sample.Actor(), sample.Records(time.Now()), registry.Meta{Reason: "test"})
	must(t, err)
	Eventually(t, "the sidecar holds the register", func() bool {
		v, err := w.Register.View()
		return err == nil && follower.View() != nil && follower.View().Revision == v.Revision
	})
	return w
}

func (w *World) front(store *registrytest.Memory, audit *translog.Log) (http.Handler, error) {
	log := slog.New(slog.DiscardHandler)
	tokens := filepath.Join(w.t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(tokens, []byte("tokens: []\n"), 0o600); err != nil {
		return nil, err
	}
	auth, err := control.LoadTokens(tokens, log)
	if err != nil {
		return nil, err
	}
	desk, work, incidents, err := w.desks()
	if err != nil {
		return nil, err
	}
	api, err := control.New(control.Config{Register: w.Register, Assurance: desk, Casework: work, Incidents: incidents, Policies: &policy.Desk{Register: w.Register, Incidents: incidents}, Auth: auth, Log: log, Version: "test", Changes: store.Changes, Audit: audit, Live: w.Live,
		Signals:   w.watched(),
		Uses:      w.uses,
		Decisions: w.decisions()})
	if err != nil {
		return nil, err
	}
	sign, err := signin.New(signin.Config{
		Issuer: w.Provider, ClientID: "console", ClientSecret: "s3cret", PublicURL: w.URL, Key: bytes.Repeat([]byte("k"), 32),
		Store: w.Sessions, Casebook: w.Register.Casebook, Audit: audit,
	})
	if err != nil {
		return nil, err
	}
	pages, err := console.New(console.Config{API: api, As: control.As, SignIn: sign, PublicURL: w.URL})
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if console.Serves(r.URL.Path) {
			pages.ServeHTTP(rw, r)
			return
		}
		api.ServeHTTP(rw, r)
	}), nil
}

// uses tells what Used does.
func (w *World) uses(_ context.Context, limits []*ratelimit.Limit) (out []control.LimitUse, err error) {
	if w.Used == nil {
		return nil, registry.ErrUnavailable
	}
	for _, l := range limits {
		out = append(out, w.Used(l))
	}
	return out, nil
}

// decisions finds the records of the world.
func (w *World) decisions() control.Decisions {
	return control.Decisions{
		Find: func(_ context.Context, id authz.DecisionID) (*authz.Record, error) {
			if r, ok := w.Records[id]; ok {
				return &r, nil
			}
			return nil, registry.ErrNotFound
		},
		Denials: func(_ context.Context, products []string, _ registry.ABN, limit int) ([]authz.Record, error) {
			var out []authz.Record
			for _, r := range w.Records {
				for _, p := range products {
					if r.ProductID == p && r.Reason != authz.OK && len(out) < limit {
						out = append(out, r)
					}
				}
			}
			return out, nil
		},
	}
}

// desks work on what the API's workflows are about. Nothing is probed and nothing is sent.
func (w *World) desks() (*assurance.Desk, *casework.Desk, *incident.Desk, error) {
	rules, err := certification.Default(certification.OpenDefaults())
	if err != nil {
		return nil, nil, nil, err
	}
	files, err := evidencedir.Open(filepath.Join(w.t.TempDir(), "evidence"))
	if err != nil {
		return nil, nil, nil, err
	}
	desk := assurance.NewDesk(assurance.Config{Register: w.Register, Rules: rules, Files: files, Profiles: casework.Profiles, Shares: casework.Shares})
	work, err := casework.New(w.Register, casework.Config{Framework: rules, Assurance: desk, Runs: w.decisions().Runs()})
	if err != nil {
		return nil, nil, nil, err
	}
	run(w.t, func(ctx context.Context) error { work.RunChecks(ctx); return ctx.Err() })
	notices, err := incident.NewNotices(nil)
	if err != nil {
		return nil, nil, nil, err
	}
	return desk, work, &incident.Desk{
		Register: w.Register, Thresholds: incident.DefaultThresholds(), Notices: notices, Officers: []string{"officers@agency.example"}, OnHigh: desk.VerifyAfter, AddOns: assurance.AddOnContacts,
		OnLate: func(t *registry.Tx, product, id string) error {
			return desk.RaiseAfter(t, product, assurance.Raise{Requirement: "OSF-BRN", Text: id + " was reported late"})
		},
	}, nil
}

func newAudit(t testing.TB) *translog.Log {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, "audit.example")
	must(t, err)
	signer, err1 := note.NewSigner(skey)
	verifier, err2 := note.NewVerifier(vkey)
	must(t, errors.Join(err1, err2))
	audit, err := translog.New(&translogtest.Memory{}, translog.Config{Signer: signer, Verifier: verifier})
	must(t, err)
	return audit
}

// Browser is somebody at the console who keeps cookies and follows redirects.
type Browser struct {
	*http.Client
	w *World
}

// Browser makes one, signed in as the person unless email is empty.
func (w *World) Browser(email string) *Browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	must(w.t, err)
	b := &Browser{&http.Client{Jar: jar, Timeout: 30 * time.Second}, w}
	if email == "" {
		return b
	}
	resp, err := b.Get(w.URL + signin.PathStart)
	must(w.t, err)
	resp.Body.Close()
	id := resp.Request.URL.Query().Get("id")
	resp, err = b.PostForm(w.Provider+"/login", url.Values{"id": {id}, "email": {email}, "password": {Password}})
	must(w.t, err)
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || resp.Request.URL.Host != b.host() {
		w.t.Fatalf("sign in as %s: %d at %s: %s", email, resp.StatusCode, resp.Request.URL, body)
	}
	return b
}

func (b *Browser) host() string {
	u, err := url.Parse(b.w.URL)
	must(b.w.t, err)
	return u.Host
}

// Read gets a page.
func (b *Browser) Read(path string) (status int, body string) {
	b.w.t.Helper()
	resp, err := b.Get(b.w.URL + path)
	must(b.w.t, err)
	return read(b.w.t, resp)
}

// Send posts a form as a page of the console does.
func (b *Browser) Send(path string, form url.Values) (status int, body string) {
	b.w.t.Helper()
	req, err := http.NewRequest(http.MethodPost, b.w.URL+path, bytes.NewReader([]byte(form.Encode())))
	must(b.w.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Origin", b.w.URL)
	resp, err := b.Do(req)
	must(b.w.t, err)
	return read(b.w.t, resp)
}

func read(t testing.TB, resp *http.Response) (int, string) {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, runs ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, f := range runs {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// Eventually waits for something itself, generously.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never came: %s", what)
}
