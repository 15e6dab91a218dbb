package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz/token/issue"
)

// stack is one running demo.
type stack struct {
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
	out  *lockedBuffer
	info struct {
		Ingress        string   `json:"ingress"`
		IngressTLS     string   `json:"ingress_tls"`
		CA             string   `json:"ca"`
		ClientCerts    string   `json:"client_certs"`
		Control        string   `json:"control"`
		Redis          string   `json:"redis"`
		EnvoyAdmin     string   `json:"envoy_admin"`
		Issuer         string   `json:"issuer"`
		Audience       string   `json:"audience"`
		OperatorToken  string   `json:"operator_token"`
		Operator2Token string   `json:"operator2_token"`
		AssessorToken  string   `json:"assessor_token"`
		AuditorToken   string   `json:"auditor_token"`
		DeveloperToken string   `json:"developer_token"`
		Arrivals       string   `json:"arrivals"`
		SidecarDebug   []string `json:"sidecar_debug"`
		ControlDebug   string   `json:"control_debug"`
		PIDs           struct {
			Envoy, Redis, Control, Upstream int
			Sidecars                        []int
		} `json:"pids"`
	}
	signer *issue.Signer
	// held counts calls that ask found held up after they were admitted.
	held atomic.Int64
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// binary is the built dspgate: bin/dspgate of the repository.
func binary(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../bin/dspgate")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return path
}

var shared struct {
	once sync.Once
	s    *stack
	err  error
}

// sharedStack is one demo for all cases that leave it as they found it.
func sharedStack(t testing.TB) *stack {
	t.Helper()
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "dspgate-e2e")
		if err != nil {
			shared.err = err
			return
		}
		shared.s, shared.err = start(binary(t), dir)
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.s
}

func TestMain(m *testing.M) {
	code := m.Run()
	if s := shared.s; s != nil {
		s.stop()
		if code == 0 {
			os.RemoveAll(s.dir)
		} else {
			fmt.Fprintln(os.Stderr, "the demo's logs are in", filepath.Join(s.dir, "log"))
		}
	}
	os.Exit(code)
}

// ownStack is a demo for one case that breaks something.
func ownStack(t testing.TB, args ...string) *stack {
	t.Helper()
	dir := t.TempDir()
	s, err := start(binary(t), dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Log(s.logs())
		}
	})
	return s
}

func start(bin, dir string, args ...string) (*stack, error) {
	s := &stack{dir: dir, done: make(chan struct{}), out: &lockedBuffer{}}
	s.cmd = exec.Command(bin, append([]string{
		"demo", "--dir", dir, "--ingress", ":0", "--control", ":0", "--redis", ":0", "--envoy-admin", ":0",
		"--sample-limits=false", // cases send what they need to; those about limits set their own
	}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait() // how it ended is in its output
		close(s.done)
	}()
	deadline := time.After(90 * time.Second)
	for {
		b, err := os.ReadFile(filepath.Join(dir, "demo.json"))
		if err == nil {
			if err := json.Unmarshal(b, &s.info); err != nil {
				return nil, err
			}
			break
		}
		select {
		case <-s.done:
			return nil, fmt.Errorf("the demo ended at its start:\n%s", s.out)
		case <-deadline:
			s.stop()
			return nil, fmt.Errorf("the demo was not ready in time:\n%s", s.out)
		case <-time.After(20 * time.Millisecond):
		}
	}
	var err error
	s.signer, err = issue.Load(filepath.Join(dir, "issuer", "ES256.pem"))
	return s, err
}

func (s *stack) stop() {
	if s.cmd.Process.Signal(syscall.SIGTERM) != nil {
		return
	}
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill() // it has ended if this fails
		<-s.done
	}
}

// logs is the end of every process's log.
func (s *stack) logs() string {
	var b strings.Builder
	fmt.Fprintln(&b, s.out)
	paths, _ := filepath.Glob(filepath.Join(s.dir, "log", "*.log"))
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err == nil {
			fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(p), text[max(0, len(text)-4000):])
		}
	}
	return b.String()
}

// claims are those of a good token of Kooka Agent (FP-1003), which may call
// every service, as wide as the register allows.
func (s *stack) claims(edit func(map[string]any)) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": s.info.Issuer, "aud": s.info.Audience, "sub": "fp-1003-prod", "client_id": "fp-1003-prod", "abn": "31000000202",
		"software_id": "0000300001", "client_abn": "56000001313",
		"jti": fmt.Sprint(now.UnixNano()), "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	if edit != nil {
		edit(c)
	}
	return c
}

// token signs claims with the demo issuer's own key.
func (s *stack) token(t testing.TB, edit func(map[string]any)) string {
	t.Helper()
	raw, err := s.signer.Sign(nil, s.claims(edit))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// tokenFor is a good token of another client app.
func (s *stack) tokenFor(t testing.TB, clientID, abn string) string {
	return s.token(t, func(c map[string]any) {
		c["client_id"], c["sub"], c["abn"] = clientID, clientID, abn
		delete(c, "software_id")
		delete(c, "client_abn")
	})
}

// reply is what a caller saw.
type reply struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// code is the contract's code in a refusal; "" when there is none.
func (r reply) code() string {
	var p struct {
		Errors []struct{ Code string }
	}
	if json.Unmarshal(r.body, &p) == nil && len(p.Errors) > 0 {
		return p.Errors[0].Code
	}
	return ""
}

func (r reply) String() string {
	return fmt.Sprintf("%d %s %.300s (%v)", r.status, r.code(), r.body, r.err)
}

// get sends one request to the plain ingress.
func (s *stack) get(t testing.TB, method, path, bearer string, header http.Header, body io.Reader) reply {
	t.Helper()
	return s.send(t, http.DefaultClient, s.info.Ingress, method, path, bearer, header, body)
}

// ask is get for cases that are about something else than a busy machine.
func (s *stack) ask(t testing.TB, method, path, bearer string, header http.Header) reply {
	t.Helper()
	return s.askVia(t, http.DefaultClient, s.info.Ingress, method, path, bearer, header)
}

// askVia sends a request without a body, and again when the declared 503 says
// that it was held up or that the authorizer was too slow: on a machine with
// more to do than processors both happen. What was held up after an ALLOW is
// noted for the oracle.
func (s *stack) askVia(t testing.TB, client *http.Client, base, method, path, bearer string, header http.Header) (r reply) {
	t.Helper()
	for range 8 {
		r = s.send(t, client, base, method, path, bearer, header, nil)
		switch r.code() {
		case "admission-expired", "authorizer-unavailable":
			s.held.Add(1)
		default:
			return r
		}
	}
	return r
}

func (s *stack) send(t testing.TB, client *http.Client, base, method, path, bearer string, header http.Header, body io.Reader) reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base, body)
	if err != nil {
		t.Fatal(err)
	}
	// The path goes out as written: no cleaning on this side.
	req.URL.Opaque = path
	for k, vs := range header {
		if k == "Host" {
			req.Host = vs[0]
			continue
		}
		req.Header[k] = vs
	}
	if bearer != "" {
		req.Header["Authorization"] = []string{"Bearer " + bearer}
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return reply{status: resp.StatusCode, header: resp.Header, body: b, err: err}
}

// tlsClient trusts the demo's CA and presents an entity's certificate, if any.
func (s *stack) tlsClient(t testing.TB, abn string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(s.info.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("the demo's CA is no PEM")
	}
	cfg := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	if abn != "" {
		c, err := tls.LoadX509KeyPair(filepath.Join(s.info.ClientCerts, abn+".pem"), filepath.Join(s.info.ClientCerts, abn+".key"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{c}
	}
	tr := &http.Transport{TLSClientConfig: cfg}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// api calls the control plane and decodes data; it returns the status.
func (s *stack) api(t testing.TB, token, method, path string, body, data any) int {
	t.Helper()
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		rd = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.info.Control+path, rd)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	if method != http.MethodGet {
		req.Header.Set("Idempotency-Key", fmt.Sprint(time.Now().UnixNano()))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		t.Fatal(err)
	}
	if data != nil && resp.StatusCode < 300 {
		if err := json.Unmarshal(b, &struct {
			Data any `json:"data"`
		}{data}); err != nil {
			t.Fatalf("%s %s: %v in %.300s", method, path, err, b)
		}
	}
	if resp.StatusCode >= 300 {
		t.Logf("%s %s: %d %.300s", method, path, resp.StatusCode, b)
	}
	return resp.StatusCode
}

// arrival is one request the sample upstream saw.
type arrival struct {
	At         time.Time `json:"at"`
	DecisionID string    `json:"decision_id"`
	ProductID  string    `json:"product_id"`
	Service    string    `json:"service"`
	Headers    []string  `json:"headers"` // names, lower case
}

// arrivals reads all arrivals so far.
func (s *stack) arrivals(t testing.TB) []arrival { return arrivalsAs[arrival](t, s) }

// arrivalsAs reads the sample upstream's log of arrivals. A last line that is
// still being written is left for the next time.
func arrivalsAs[T any](t testing.TB, s *stack) []T {
	t.Helper()
	b, err := os.ReadFile(s.info.Arrivals)
	if err != nil {
		t.Fatal(err)
	}
	var all []T
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		var a T
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// metric reads one series of a process's metrics; label is a substring the
// series' labels must hold, "" for any. All that match are added up.
func (s *stack) metric(t testing.TB, debug, name, label string) float64 {
	t.Helper()
	resp, err := http.Get(debug + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var sum float64
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		line := sc.Text()
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' || !strings.Contains(rest, label) {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err != nil {
			t.Fatalf("metric line %q: %v", line, err)
		}
		sum += v
	}
	return sum
}

// eventually waits for a condition that other processes bring about.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// oracle watches the universal properties over one case.
type oracle struct {
	t        testing.TB
	s        *stack
	arrivals int
	allows   float64
	panics   float64
	held     int64
}

// watch notes how things stand before a case.
func (s *stack) watch(t testing.TB) *oracle {
	t.Helper()
	return &oracle{t: t, s: s, arrivals: len(s.arrivals(t)), allows: s.allows(t), panics: s.panics(t), held: s.held.Load()}
}

func (s *stack) allows(t testing.TB) (n float64) {
	for _, d := range s.info.SidecarDebug {
		n += s.metric(t, d, "authz_decisions_total", `reason="ok"`)
	}
	return n
}

func (s *stack) panics(t testing.TB) (n float64) {
	for _, d := range s.info.SidecarDebug {
		n += s.metric(t, d, "authz_panics_total", "")
	}
	return n
}

// check holds what happened since against O1, O2 and O3: as many requests
// arrived upstream as were allowed, each with one decision ID that is its own and
// the product of the token; nothing panicked. want is how many should have
// arrived. A call that ask found held up was allowed and not served: it may have
// been stopped on either side of the upstream's door.
func (o *oracle) check(want int, product string) {
	o.t.Helper()
	var seen []arrival
	eventually(o.t, 5*time.Second, fmt.Sprintf("%d arrivals upstream", want), func() bool {
		seen = o.s.arrivals(o.t)[o.arrivals:]
		return len(seen) >= want
	})
	held := int(o.s.held.Load() - o.held)
	if len(seen) < want || len(seen) > want+held {
		o.t.Errorf("O1: %d requests reached the upstream, want %d", len(seen), want)
	}
	if allows := o.s.allows(o.t) - o.allows; int(allows) < len(seen) || int(allows) > len(seen)+held {
		o.t.Errorf("O1: %v ALLOW decisions, %d arrivals upstream", allows, len(seen))
	}
	ids := map[string]bool{}
	for _, a := range seen {
		if len(a.DecisionID) != 26 || ids[a.DecisionID] {
			o.t.Errorf("O1: an arrival has decision ID %q", a.DecisionID)
		}
		ids[a.DecisionID] = true
		if a.ProductID != product {
			o.t.Errorf("O2: the upstream saw product %q, the token is of %q", a.ProductID, product)
		}
	}
	if n := o.s.panics(o.t) - o.panics; n != 0 {
		o.t.Errorf("O3: %v panics", n)
	}
}
