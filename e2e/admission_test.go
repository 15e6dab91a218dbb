package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/admission"
)

// stampedArrival is an arrival with what the middleware made of its stamp.
type stampedArrival struct {
	arrival
	Refused    string    `json:"refused"`     // "" when it was let through
	NotAfter   time.Time `json:"not_after"`   // only when it was let through
	VerifiedAt time.Time `json:"verified_at"` // the same
}

func (s *stack) stampedArrivals(t testing.TB) []stampedArrival {
	t.Helper()
	return arrivalsAs[stampedArrival](t, s)
}

// upstreamURL is where the sample upstream listens, which no caller should know.
func (s *stack) upstreamURL(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Upstream string }
	if err := json.Unmarshal(b, &info); err != nil || info.Upstream == "" {
		t.Fatalf("no upstream in demo.json: %v", err)
	}
	return info.Upstream
}

// load keeps calls under way until stop is called, and counts how they ended.
type load struct {
	counts  sync.Map // of "status code", *atomic.Int64
	end     chan struct{}
	done    sync.WaitGroup
	errored atomic.Int64
}

func (l *load) count(what string) int64 {
	n, ok := l.counts.Load(what)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

func (l *load) String() string {
	var b strings.Builder
	l.counts.Range(func(k, v any) bool { fmt.Fprintf(&b, "%v: %d; ", k, v.(*atomic.Int64).Load()); return true })
	fmt.Fprintf(&b, "errors: %d", l.errored.Load())
	return b.String()
}

// startLoad has n callers call a path over and over, each on a connection of
// its own.
func (s *stack) startLoad(t testing.TB, n int, path string) *load {
	t.Helper()
	return s.startPacedLoad(t, n, path, 0)
}

// startPacedLoad is startLoad with a rest after each answer.
func (s *stack) startPacedLoad(t testing.TB, n int, path string, rest time.Duration) *load {
	t.Helper()
	l := &load{end: make(chan struct{})}
	bearer := s.token(t, nil)
	for range n {
		l.done.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			client := &http.Client{Transport: tr, Timeout: 20 * time.Second}
			for {
				select {
				case <-l.end:
					return
				case <-time.After(rest):
				}
				r := s.send(t, client, s.info.Ingress, "GET", path, bearer, nil, nil)
				if r.err != nil {
					l.errored.Add(1)
					continue
				}
				c, _ := l.counts.LoadOrStore(strings.TrimSpace(fmt.Sprint(r.status, " ", r.code())), new(atomic.Int64))
				c.(*atomic.Int64).Add(1)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	select {
	case <-l.end:
	default:
		close(l.end)
	}
	l.done.Wait()
}

// pause stops Envoy for a while, whatever it is doing.
func (s *stack) pause(t testing.TB, d time.Duration, during func()) {
	t.Helper()
	pid := s.info.PIDs.Envoy
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if during != nil {
		during()
	}
	time.Sleep(d - time.Since(began))
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// window is how long after its decision a call may be accepted in the demo.
const window = admission.DefaultValidity + admission.DefaultSkew

// late counts arrivals that were let through when their admission was over, by
// the decision's own instant and by what the stamp said.
func late(t testing.TB, all []stampedArrival) (n int) {
	t.Helper()
	for _, a := range all {
		if a.Refused != "" {
			continue
		}
		id, err := authz.ParseDecisionID(a.DecisionID)
		if err != nil {
			t.Fatal(err)
		}
		// The ID holds whole milliseconds, rounded down.
		if a.VerifiedAt.IsZero() || a.VerifiedAt.Sub(id.Time()) >= window+time.Millisecond || !a.VerifiedAt.Before(a.NotAfter.Add(admission.DefaultSkew)) {
			t.Errorf("let through %v after its decision: %+v", a.VerifiedAt.Sub(id.Time()), a)
			n++
		}
	}
	return n
}

func refusedAs(all []stampedArrival, why string) (n int) {
	for _, a := range all {
		if a.Refused == why {
			n++
		}
	}
	return n
}

// TestAdmission is the cases of a proxy that stalls between an ALLOW and the
// upstream.
func TestAdmission(t *testing.T) {
	s := ownStack(t)
	for _, row := range []struct {
		id   string
		run  func(*testing.T, *stack)
		what string
	}{
		{"X07", caseX07, "Envoy stopped for 0.7 s between ALLOW and forward: refused as stale"},
		{"S05", caseS05, "the same, while the product is suspended: nothing is let through after the command has returned"},
	} {
		t.Run(row.id, func(t *testing.T) { row.run(t, s) })
	}
}

func caseX07(t *testing.T, s *stack) {
	const least, most = 10, 40
	l := s.startLoad(t, 24, clients)
	eventually(t, 20*time.Second, "calls that pass", func() bool { return l.count("200") > 200 })
	from := len(s.stampedArrivals(t))
	stops := 0
	// Until enough calls were caught between ALLOW and the upstream.
	for stops < least || stops < most && l.count("503 admission-expired") < 20 {
		s.pause(t, 700*time.Millisecond, nil)
		stops++
		before := l.count("200")
		eventually(t, 20*time.Second, "calls that pass again", func() bool { return l.count("200") > before+50 })
	}
	l.stop()
	all := s.stampedArrivals(t)[from:]
	expired := refusedAs(all, "expired")
	narrowed := int(l.count("503 admission-expired")) - expired
	t.Logf("%d stops: %d arrivals, %d let through late, %d refused upstream, %d held back by Envoy itself; callers saw %v",
		stops, len(all), late(t, all), expired, narrowed, l)
	if expired+narrowed == 0 {
		t.Error("no call was caught between ALLOW and the upstream: the case proves nothing")
	}
	for _, a := range all {
		if a.Refused != "" && a.Refused != "expired" {
			t.Errorf("an arrival through Envoy was refused as %s", a.Refused)
		}
	}
}

func caseS05(t *testing.T, s *stack) {
	const rounds = 8
	l := s.startLoad(t, 24, clients)
	after, caught := 0, 0
	for round := range rounds {
		before := l.count("200")
		eventually(t, 20*time.Second, "calls that pass", func() bool { return l.count("200") > before+50 })
		from := len(s.stampedArrivals(t))
		var made struct {
			ID          string
			Enforcement struct {
				Complete  bool
				ElapsedMS int64    `json:"elapsed_ms"`
				P1Only    []string `json:"p1_only_services"`
			}
		}
		var returned time.Time
		suspend := func() {
			if status := s.api(t, s.info.OperatorToken, "POST", "/v1/suspensions?wait=true", map[string]any{
				"subject": map[string]any{"kind": "product", "id": kooka}, "reason": fmt.Sprintf("stalled proxy, round %d", round),
			}, &made); status != 201 {
				t.Fatalf("suspend: %d", status)
			}
			returned = time.Now()
		}
		// Every other time the command comes before Envoy stalls, on the heels of it.
		if round%2 == 0 {
			s.pause(t, 700*time.Millisecond, suspend)
		} else {
			began := make(chan struct{})
			go func() { defer close(began); s.pause(t, 350*time.Millisecond, nil) }()
			suspend()
			<-began
		}
		if !made.Enforcement.Complete || made.Enforcement.ElapsedMS < window.Milliseconds() {
			t.Errorf("round %d: %+v: the wait is shorter than a stamp lives", round, made.Enforcement)
		}
		if len(made.Enforcement.P1Only) > 0 {
			t.Errorf("round %d: P1 only for %v, which verify stamps", round, made.Enforcement.P1Only)
		}
		// Envoy has dealt with what it held when callers see only the refusal.
		refused := l.count("403 product-suspended")
		eventually(t, 20*time.Second, "refusals", func() bool { return l.count("403 product-suspended") > refused+100 })
		all := s.stampedArrivals(t)[from:]
		late(t, all)
		for _, a := range all {
			let := a.VerifiedAt
			if let.IsZero() { // not verified at all
				let = a.At
			}
			switch {
			case a.Refused != "":
				caught++
			case let.After(returned):
				after++
				t.Errorf("round %d: a call of the product was let through %v after the command had returned", round, let.Sub(returned))
			}
		}
		if status := s.api(t, s.info.Operator2Token, "POST", "/v1/suspensions/"+made.ID+"/lift?wait=true", map[string]any{"reason": "next round"}, nil); status != 200 {
			t.Fatalf("lift: %d", status)
		}
	}
	l.stop()
	t.Logf("%d rounds: %d let through after the command had returned, %d refused upstream; callers saw %v", rounds, after, caught, l)
}

// TestUpstreamRefusesWhatDidNotComeThroughEnvoy calls the sample upstream
// directly, as somebody on the inside could.
func TestUpstreamRefusesWhatDidNotComeThroughEnvoy(t *testing.T) {
	s := ownStack(t)
	up := s.upstreamURL(t)
	file, err := admission.OpenKeys(filepath.Join(s.dir, "key", "admission.keys"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := admission.ParseKeys([]byte(strings.Repeat("5a", 32)))
	if err != nil {
		t.Fatal(err)
	}
	ids := authz.NewIDs()
	// stamped makes a call to clients with a stamp signed for a path.
	stamped := func(keys admission.KeySource, path string, at time.Time) http.Header {
		signer, err := admission.NewSigner(keys, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := admission.Call{DecisionID: ids.Next(at).String(), Environment: "PROD", Service: "ldglst.0002.list", ProductID: kooka, ABN: "31000000202", Method: "GET", Path: path}
		return http.Header{
			"X-Dsp-Decision-Id": {c.DecisionID}, "X-Dsp-Environment": {c.Environment}, "X-Dsp-Service": {c.Service}, "X-Dsp-Product-Id": {c.ProductID},
			"X-Dsp-Abn": {c.ABN}, "X-Dsp-Revision": {"1"}, "X-Dsp-Admission": {string(signer.Append(nil, &c, 1, at))},
		}
	}
	direct := func(h http.Header) reply {
		return s.send(t, http.DefaultClient, up, "GET", clients, "", h, nil)
	}
	last := func(why string) {
		t.Helper()
		all := s.stampedArrivals(t)
		if got := all[len(all)-1].Refused; got != why {
			t.Errorf("noted as refused for %q, want %q", got, why)
		}
	}
	if r := direct(stamped(file, clients, time.Now())); r.status != 200 {
		t.Fatalf("with a stamp of the gateway's own key: %v", r)
	}
	with := func(h http.Header, name, value string) http.Header { h.Set(name, value); return h }
	good := stamped(file, clients, time.Now())
	forged := strings.Split(good.Get("X-Dsp-Admission"), ".")
	forged[4] = strings.Repeat("A", len(forged[4]))
	for name, x := range map[string]struct {
		header func() http.Header
		why    string
	}{
		"no headers at all": {func() http.Header { return nil }, "missing"},
		"no stamp":          {func() http.Header { return with(stamped(file, clients, time.Now()), "X-Dsp-Admission", "") }, "missing"},
		"a MAC made up": {func() http.Header {
			return with(stamped(file, clients, time.Now()), "X-Dsp-Admission", strings.Join(forged, "."))
		}, "forged"},
		"of another key":         {func() http.Header { return stamped(other, clients, time.Now()) }, "unknown-key"},
		"of another path":        {func() http.Header { return stamped(file, lookup, time.Now()) }, "forged"},
		"another product's":      {func() http.Header { return with(stamped(file, clients, time.Now()), "X-Dsp-Product-Id", "FP-1001") }, "forged"},
		"another revision":       {func() http.Header { return with(stamped(file, clients, time.Now()), "X-Dsp-Revision", "9") }, "forged"},
		"a subscription added":   {func() http.Header { return with(stamped(file, clients, time.Now()), "X-Dsp-Software-Id", "0000300001") }, "forged"},
		"over":                   {func() http.Header { return stamped(file, clients, time.Now().Add(-window)) }, "expired"},
		"from a far ahead clock": {func() http.Header { return stamped(file, clients, time.Now().Add(time.Minute)) }, "ahead"},
		"a product named twice": {func() http.Header {
			h := stamped(file, clients, time.Now())
			h.Add("X-Dsp-Product-Id", kooka)
			return h
		}, "malformed"},
		"what is no stamp at all": {func() http.Header { return with(stamped(file, clients, time.Now()), "X-Dsp-Admission", "Bearer x") }, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			h := x.header()
			r := direct(h)
			if r.status != 503 || r.code() != "admission-expired" || r.header.Get("Retry-After") == "" || r.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("answered %v", r)
			}
			if id := h.Get("X-Dsp-Decision-Id"); !strings.Contains(string(r.body), `"instance":"/decisions/`+id) {
				t.Errorf("does not name the decision: %s", r.body)
			}
			last(x.why)
		})
	}
	t.Run("replayed", func(t *testing.T) {
		// One that Envoy has just delivered, as the upstream saw it.
		r := s.get(t, "GET", clients, s.token(t, nil), nil, nil)
		var told map[string]any
		if r.status != 200 || json.Unmarshal(r.body, &told) != nil {
			t.Fatalf("answered %v", r)
		}
		h := http.Header{}
		for k, v := range told {
			if text, ok := v.(string); ok && strings.HasPrefix(k, "x-dsp-") {
				h.Set(k, text)
			}
		}
		if h.Get("X-Dsp-Admission") == "" {
			t.Fatalf("the upstream saw no stamp: %s", r.body)
		}
		for range 2 {
			if r := direct(h); r.status != 503 || r.code() != "admission-expired" {
				t.Errorf("answered %v", r)
			}
		}
		all := s.stampedArrivals(t)
		for _, a := range all[len(all)-2:] {
			if a.Refused != "replayed" && a.Refused != "expired" {
				t.Errorf("noted as refused for %q", a.Refused)
			}
		}
	})
	t.Run("by gRPC", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), "POST", up+"/dspgate.sample.v1.Sample/Chat", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "14" || !strings.Contains(resp.Header.Get("Grpc-Message"), "admission-expired") {
			t.Errorf("answered %v", resp)
		}
	})
	t.Run("by a client that sends stamps of its own", func(t *testing.T) {
		h := stamped(file, clients, time.Now())
		h.Set("X-Dsp-Not-After", "9999999999999")
		h.Set("X-Dsp-Now", "0000000000000")
		r := s.get(t, "GET", clients, s.token(t, nil), h, nil)
		var told map[string]any
		if r.status != 200 || json.Unmarshal(r.body, &told) != nil {
			t.Fatalf("answered %v", r)
		}
		if told["x-dsp-admission"] == h.Get("X-Dsp-Admission") || told["x-dsp-decision-id"] == h.Get("X-Dsp-Decision-Id") || told["x-dsp-now"] != nil || told["x-dsp-not-after"] != nil {
			t.Errorf("the upstream saw %s", r.body)
		}
	})
}
