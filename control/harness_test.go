package control_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"golang.org/x/mod/sumdb/note"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/control/live"
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

// world is the API over a register in memory with the sample register in it,
// and one sidecar on the roll.
type world struct {
	t       testing.TB
	url     string
	open    certification.Open
	api     http.Handler
	store   *registrytest.Memory
	link    *registrytest.Link // the control plane's to the store
	sidecar *registrytest.Link // the sidecar's
	reg     *registry.Register
	log     *logBuffer
	audit   *translog.Log
	leaves  *translogtest.Memory // the audit log's store
	key     note.Verifier        // of the audit log
	tokens  string               // the token file
	desk    *assurance.Desk
	work    *casework.Desk
	files   string // the folder of evidence
	records map[authz.DecisionID]authz.Record

	policies *policy.Desk
	fields   []anomaly.FieldTally
	signals  []anomaly.Signal
	client   *http.Client
	used     map[string]control.LimitUse // by account
	usesErr  error
	calls    *controltest.Tape // what the sidecars decide from now on
	hub      *live.Hub

	// twice sends every command that succeeds again, as a client does that never
	// heard the answer: see again.
	twice bool
	keys  int
}

func (w *world) signalsOf(_ context.Context, products []string, n int) (of []anomaly.Signal, err error) {
	v, err := w.reg.View()
	for _, s := range w.signals {
		if err == nil && len(of) < n && slices.Contains(products, policy.FactsOf(v, s.Subject).Product) {
			of = append(of, s)
		}
	}
	return of, err
}

func (w *world) usesOf(_ context.Context, limits []*ratelimit.Limit) ([]control.LimitUse, error) {
	out := make([]control.LimitUse, len(limits))
	for i, l := range limits {
		out[i] = w.used[authz.AccountOf(l)]
	}
	return out, w.usesErr
}

// tokens of the sample world, by role. Their sums are in the token file.
var programs = []control.TokenEntry{
	{Name: "operator@agency.example", Permissions: []string{"operator", "registrar"}},
	{Name: "operator2@agency.example", Permissions: []string{"operator"}},
	{Name: "officer@agency.example", Permissions: []string{"incident-officer"}},
	{Name: "registrar@agency.example", Permissions: []string{"registrar"}},
	{Name: "assessor@agency.example", Permissions: []string{"assessor"}},
	{Name: "auditor@agency.example", Permissions: []string{"auditor"}},
	{Name: "dev@wattlebird.example", Permissions: []string{"developer"}, Entity: "65000000101"},
	{Name: "dev@kookaburra.example", Permissions: []string{"developer"}, Entity: "31000000202"},
	{Name: "dev@banksia.example", Permissions: []string{"developer"}, Entity: "52000000404"},
	{Name: "dev@ironbark.example", Permissions: []string{"developer"}, Entity: "86000000303"},
	{Name: "dev@galah.example", Permissions: []string{"developer"}, Entity: "69000001010"},
}

func tokenOf(name string) string { return "test-token-of-" + name + "-with-128-bits-of-entropy" }

const (
	operator   = "operator@agency.example"
	operator2  = "operator2@agency.example"
	officer    = "officer@agency.example"
	registrar  = "registrar@agency.example"
	assessor   = "assessor@agency.example"
	auditor    = "auditor@agency.example"
	wattlebird = "dev@wattlebird.example"
	kookaburra = "dev@kookaburra.example"
	nobody     = ""
)

func writeTokens(t testing.TB, path string, entries []control.TokenEntry) {
	t.Helper()
	out := make([]control.TokenEntry, len(entries))
	for i, e := range entries {
		out[i] = e
		if e.SHA256 == "" {
			out[i].SHA256 = control.HashToken(tokenOf(e.Name))
		}
	}
	b, err := yaml.Marshal(control.TokenFile{Tokens: out})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWhere(t, certification.OpenDefaults())
}

// newWorldWhere answers the framework's open questions so.
func newWorldWhere(t testing.TB, open certification.Open) *world {
	t.Helper()
	w := &world{t: t, open: open, store: registrytest.NewMemory(), log: &logBuffer{}, tokens: filepath.Join(t.TempDir(), "tokens.yaml"), records: map[authz.DecisionID]authz.Record{}, calls: &controltest.Tape{}, hub: live.NewHub()}
	w.link, w.sidecar = registrytest.NewLink(w.store), registrytest.NewLink(w.store)
	seal := registrytest.Sealer(t)
	log := slog.New(slog.NewJSONHandler(w.log, nil))

	mirror := registry.NewMirror(w.link, seal, registry.MirrorConfig{ID: "control", Incarnation: "1", Observer: true})
	follower := registry.NewMirror(w.sidecar, seal, registry.MirrorConfig{ID: "sidecar-1", Incarnation: "1", Poll: 50 * time.Millisecond, Short: 200 * time.Millisecond, Long: 400 * time.Millisecond})
	w.startAudit()
	w.reg = registry.NewRegister(w.link, mirror, seal, registry.RegisterConfig{Holder: "control", ClaimTTL: time.Second, Journal: w.audit, Cases: slices.Concat(people.Types(), assurance.CaseTypes(), incident.CaseTypes(), casework.Types(), policy.CaseTypes())})
	w.startAssurance()
	feed := control.Feed{Hub: w.hub, Register: w.reg, Changes: w.store.Changes, Tail: w.calls.Tail, Every: 20 * time.Millisecond}
	run(t, mirror.Run, follower.Run, w.reg.Run, w.audit.Run, func(ctx context.Context) error { feed.Run(ctx); return nil })

	writeTokens(t, w.tokens, programs)
	auth, err := control.LoadTokens(w.tokens, log)
	if err != nil {
		t.Fatal(err)
	}
	incidents := w.startIncidents()
	w.policies = &policy.Desk{Register: w.reg, Incidents: incidents}
	h, err := control.New(control.Config{
		Policies: w.policies, Signals: control.Signals{
			Latest: func(_ context.Context, n int) ([]anomaly.Signal, error) {
				return w.signals[:min(len(w.signals), n)], nil
			},
			Of: w.signalsOf,
			Each: func(_ context.Context, from, to time.Time, visit func(anomaly.Signal) bool) error {
				for _, s := range w.signals {
					if !s.At.Before(from) && s.At.Before(to) && !visit(s) {
						break
					}
				}
				return nil
			},
			Share: func(string) float64 { return 1 },
			Fields: func(product string) (all []anomaly.FieldTally, ok bool) {
				for _, f := range w.fields {
					if product == "" || f.Product == product {
						all = append(all, f)
					}
				}
				return all, true
			},
		},
		Uses:     w.usesOf,
		Live:     w.hub,
		Register: w.reg, Auth: auth, Log: log, Version: "test", Changes: w.store.Changes, Audit: w.audit, Assurance: w.desk, Casework: w.work, Incidents: incidents, Prober: w,
		Decisions: control.Decisions{
			Find: w.find,
			Denials: func(_ context.Context, products []string, _ registry.ABN, limit int) ([]authz.Record, error) {
				var out []authz.Record
				for _, r := range w.records {
					for _, p := range products {
						if r.ProductID == p && r.Reason != authz.OK && len(out) < limit {
							out = append(out, r)
						}
					}
				}
				return out, nil
			},
			Each: func(_ context.Context, from, to time.Time, f func(*authz.Record) bool) error {
				all := slices.SortedFunc(maps.Values(w.records), func(a, b authz.Record) int { return cmp.Compare(a.At, b.At) })
				for i := range all {
					if at := all[i].At.Std(); !at.Before(from) && at.Before(to) && !f(&all[i]) {
						break
					}
				}
				return nil
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.api = h
	srv := httptest.NewUnstartedServer(h)
	srv.Config = control.NewHTTPServer(h, log)
	srv.Start()
	t.Cleanup(func() { w.hub.Close(); srv.Close() })
	w.url = srv.URL
	w.client = &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	eventually(t, "the register takes commands", func() bool {
		_, err := w.reg.Casebook()
		return err == nil && w.reg.Writing()
	})
	if _, err := w.reg.Import(t.Context(), sample.Actor(), sample.Records(time.Now()), registry.Meta{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the sidecar holds the register", func() bool {
		v, err := w.reg.View()
		return err == nil && follower.View() != nil && follower.View().Revision == v.Revision
	})
	return w
}

// find finds a decision record.
func (w *world) find(_ context.Context, id authz.DecisionID) (*authz.Record, error) {
	if r, ok := w.records[id]; ok {
		return &r, nil
	}
	return nil, registry.ErrNotFound
}

// startAssurance makes the desk over a folder of its own.
func (w *world) startAssurance() {
	w.t.Helper()
	rules, err := certification.Default(w.open)
	if err != nil {
		w.t.Fatal(err)
	}
	w.files = filepath.Join(w.t.TempDir(), "evidence")
	dir, err := evidencedir.Open(w.files)
	if err != nil {
		w.t.Fatal(err)
	}
	w.desk = assurance.NewDesk(assurance.Config{Register: w.reg, Rules: rules, Files: dir, Profiles: casework.Profiles, Shares: casework.Shares})
	if w.work, err = casework.New(w.reg, casework.Config{Framework: rules, Assurance: w.desk, Runs: control.Decisions{Find: w.find}.Runs()}); err != nil {
		w.t.Fatal(err)
	}
}

// startIncidents makes the desk that works on incidents.
func (w *world) startIncidents() *incident.Desk {
	w.t.Helper()
	notices, err := incident.NewNotices(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &incident.Desk{
		Register: w.reg, Thresholds: incident.Thresholds{HighRecords: int(w.open.HighRecords)}, ByAwareness: w.open.IncidentAnchor == "aware", Notices: notices, Officers: []string{"officers@agency.example"}, OnHigh: w.desk.VerifyAfter, AddOns: assurance.AddOnContacts,
		OnLate: func(t *registry.Tx, product, id string) error {
			return w.desk.RaiseAfter(t, product, assurance.Raise{Requirement: "OSF-BRN", Text: id + " was reported late"})
		},
	}
}

// Probe stands in for the prober: it finds what a well-kept endpoint shows.
func (w *world) Probe(context.Context, *registry.Product, control.ProbeTargets) []assurance.Result {
	return []assurance.Result{{Check: "tls-1.3", Requirement: "OSF-EIT", Outcome: "pass", Say: "TLS 1.3"}}
}

// startAudit makes the audit log over a store in memory.
func (w *world) startAudit() {
	w.t.Helper()
	skey, vkey, err := note.GenerateKey(nil, "audit.example")
	if err != nil {
		w.t.Fatal(err)
	}
	signer, serr := note.NewSigner(skey)
	verifier, verr := note.NewVerifier(vkey)
	if err := errors.Join(serr, verr); err != nil {
		w.t.Fatal(err)
	}
	w.leaves, w.key = &translogtest.Memory{}, verifier
	if w.audit, err = translog.New(w.leaves, translog.Config{Signer: signer, Verifier: verifier}); err != nil {
		w.t.Fatal(err)
	}
}

// logBuffer is written by the server and read by the test.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func run(t testing.TB, runs ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, len(runs))
	for _, f := range runs {
		go func() {
			defer func() { done <- struct{}{} }()
			if err := f(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range runs {
			<-done
		}
	})
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never came: %s", what)
}

// reply is one answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

type option func(*http.Request)

func header(k, v string) option { return func(r *http.Request) { r.Header.Add(k, v) } }

func without(k string) option { return func(r *http.Request) { r.Header.Del(k) } }

// call sends one request as somebody; body may be a string, or is marshalled.
func (w *world) call(as, method, path string, body any, opts ...option) reply {
	w.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			w.t.Fatal(err)
		}
		r = bytes.NewReader(j)
	}
	req, err := http.NewRequest(method, w.url+path, r)
	if err != nil {
		w.t.Fatal(err)
	}
	if as != nobody {
		req.Header.Set("Authorization", "Bearer "+tokenOf(as))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, o := range opts {
		o(req)
	}
	if w.twice && keyed(req) {
		return w.again(req)
	}
	return w.do(req)
}

func (w *world) do(req *http.Request) reply {
	w.t.Helper()
	res, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}

// data decodes "data" and fails unless the status is as wanted.
func (r reply) data(t testing.TB, status int, out any) {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	env := struct{ Data any }{out}
	if err := json.Unmarshal([]byte(r.body), &env); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
}

type apiError struct {
	ID, Code, Detail string
	Source           struct{ Pointer, Parameter, Header string }
	Meta             struct {
		Data          json.RawMessage
		ExposureUntil map[registry.Risk]registry.Time `json:"exposure_until"`
	}
}

// refused fails unless the answer is a refusal of that status and code, and
// nothing but a refusal.
func (r reply) refused(t testing.TB, status int, code string) apiError {
	t.Helper()
	var env struct {
		Data   json.RawMessage
		Errors []apiError
	}
	if err := json.Unmarshal([]byte(r.body), &env); err != nil {
		t.Fatalf("status %d: %v: %s", r.status, err, r.body)
	}
	if r.status != status || len(env.Errors) == 0 || env.Errors[0].Code != code || env.Data != nil {
		t.Fatalf("got %d %s, want %d %s", r.status, r.body, status, code)
	}
	if env.Errors[0].ID != r.header.Get("X-Request-Id") || env.Errors[0].ID == "" {
		t.Errorf("error id %q is not the request's %q", env.Errors[0].ID, r.header.Get("X-Request-Id"))
	}
	return env.Errors[0]
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.status, r.body) }
