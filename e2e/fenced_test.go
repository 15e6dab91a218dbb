package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dspgate/dspgate/chaos/world"
)

// fenced is a demo whose two sidecars were started again with leases so short
// that a case lives to see their end, and which reach Redis by links that may be
// broken; its control plane may be killed and started again.
type fenced struct {
	*stack
	t     testing.TB // of the whole table: processes outlive the row that started them
	links []*world.Link
	side  []*process
	plane *process
}

// The leases of a fenced demo.
const (
	shortLease = time.Second
	longLease  = 3 * time.Second
)

func fencedStack(t testing.TB) *fenced {
	t.Helper()
	f := &fenced{stack: ownStack(t, "--sidecars", "2"), t: t, side: make([]*process, 2)}
	links, err := world.NewLinks()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(links.Close)
	for i := range f.side {
		l, err := links.Add(fmt.Sprint("of sidecar ", i+1), strings.TrimPrefix(f.info.Redis, "redis://"))
		if err != nil {
			t.Fatal(err)
		}
		f.links = append(f.links, l)
	}
	end(t, f.info.PIDs.Control, syscall.SIGTERM)
	f.startPlane(nil)
	for i, pid := range f.info.PIDs.Sidecars {
		end(t, pid, syscall.SIGTERM)
		f.startSidecar(i, shortLease, longLease)
	}
	f.whole(t)
	return f
}

// startPlane starts the control plane in the place of one that has ended.
func (f *fenced) startPlane(edit func(map[string]any)) {
	f.t.Helper()
	path := f.config(f.t, "control.yaml", func(cfg map[string]any) {
		cfg["lease_max"], cfg["claim_ttl"] = longLease.String(), "1s"
		if edit != nil {
			edit(cfg)
		}
	})
	f.plane = run(f.t, binary(f.t), "control", "--config", path)
	f.info.PIDs.Control = f.plane.Process.Pid
}

func (f *fenced) startSidecar(i int, short, long time.Duration) {
	f.t.Helper()
	path := f.config(f.t, fmt.Sprintf("sidecar-%d.yaml", i+1), func(cfg map[string]any) {
		cfg["lease"] = map[string]any{"short": short.String(), "long": long.String(), "poll": "200ms"}
		cfg["redis"].(map[string]any)["addrs"] = []string{f.links[i].Addr()}
	})
	f.side[i] = run(f.t, binary(f.t), "sidecar", "--config", path)
	f.info.PIDs.Sidecars[i] = f.side[i].Process.Pid
}

// gone kills a process and waits for its end.
func (p *process) gone() {
	_ = p.Process.Kill() // it may have ended
	<-p.done
}

func (p *process) stopped(t testing.TB, stop bool) {
	t.Helper()
	sig := syscall.SIGCONT
	if stop {
		sig = syscall.SIGSTOP
	}
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// restartRedis kills Redis and starts it again as it was; change happens between.
func (f *fenced) restartRedis(change func()) {
	f.t.Helper()
	line := commandLine(f.t, f.info.PIDs.Redis)
	end(f.t, f.info.PIDs.Redis, syscall.SIGKILL)
	if change != nil {
		change()
	}
	f.info.PIDs.Redis = run(f.t, line[0], line[1:]...).Process.Pid
	c := f.redis(f.t)
	eventually(f.t, time.Minute, "Redis is back", func() bool { return c.Ping(f.t.Context()).Err() == nil })
}

// whole heals everything, lifts what suspends the product, and waits until both
// sidecars serve it what the control plane has.
func (f *fenced) whole(t testing.TB) {
	t.Helper()
	for _, l := range f.links {
		if err := l.Heal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.writes(t)
	eventually(t, time.Minute, "what suspends the product is lifted", func() bool {
		for _, x := range f.active(t) {
			if f.api(t, f.info.Operator2Token, "POST", "/v1/suspensions/"+x.ID+"/lift", map[string]any{"reason": "case over"}, nil) != 200 {
				return false
			}
		}
		return true
	})
	eventually(t, time.Minute, "both sidecars serve the newest revision", func() bool {
		serving := map[string]bool{}
		for _, m := range f.roll(t) {
			serving[m.ID] = serving[m.ID] || !m.Lapsed && m.Lag == 0 && m.Long > 0
		}
		return serving["sidecar-1"] && serving["sidecar-2"]
	})
	for _, debug := range f.info.SidecarDebug {
		eventually(t, time.Minute, "the sidecar is ready", func() bool { return statusOf(debug+"/readyz") == 200 })
	}
	raw := f.token(t, nil)
	before := []float64{f.allowsOf(t, 0), f.allowsOf(t, 1)}
	eventually(t, time.Minute, "both sidecars admit the product", func() bool {
		f.ask(t, "GET", clients, raw, nil)
		return f.allowsOf(t, 0) > before[0] && f.allowsOf(t, 1) > before[1]
	})
}

// writes waits until the control plane says that it writes.
func (f *fenced) writes(t testing.TB) {
	t.Helper()
	eventually(t, time.Minute, "the control plane writes", func() bool { return statusOf(f.info.ControlDebug+"/readyz") == 200 })
}

// member is a sidecar as the control plane lists it.
type member struct {
	ID       string
	Revision int64
	Lag      int64
	Lapsed   bool
	DigestOK *bool `json:"digest_ok"`
	Long     int64 `json:"long_lease_left_ms"`
}

func (f *fenced) roll(t testing.TB) (all []member) {
	t.Helper()
	f.api(t, f.info.OperatorToken, "GET", "/v1/sidecars?limit=100", nil, &all)
	return all
}

// active are the suspensions that the product is under.
func (f *fenced) active(t testing.TB) (all []suspension) {
	t.Helper()
	if status := f.api(t, f.info.OperatorToken, "GET", "/v1/suspensions?active=true&product_id="+kooka, nil, &all); status != 200 {
		t.Fatalf("suspensions: %d", status)
	}
	return all
}

// stop suspends the product and waits so long at most for the sidecars; at is
// when the answer was there.
func (f *fenced) stop(t testing.TB, timeout string) (x suspension, at time.Time) {
	t.Helper()
	status := f.api(t, f.info.OperatorToken, "POST", "/v1/suspensions?wait=true&timeout="+timeout,
		map[string]any{"subject": map[string]string{"kind": "product", "id": kooka}, "reason": "case " + t.Name()}, &x)
	if at = time.Now(); status != 201 {
		t.Fatalf("suspend: status %d", status)
	}
	return x, at
}

// enforcement asks how far a suspension has come.
func (f *fenced) enforcement(t testing.TB, id, timeout string) (x suspension) {
	t.Helper()
	if status := f.api(t, f.info.OperatorToken, "GET", "/v1/suspensions/"+id+"?wait=true&timeout="+timeout, nil, &x); status != 200 {
		t.Fatalf("%s: status %d", id, status)
	}
	return x
}

// until is from when on nothing may arrive at a rating, by an answer: from its
// return, or from the last instant that it names.
func (x *suspension) until(at time.Time, rating string) time.Time {
	for _, s := range x.Enforcement.Sidecars {
		// A millisecond that is named is over only at its end.
		if u := s.Until[rating].Add(time.Millisecond); !x.Enforcement.Complete && s.State != "acknowledged" && u.After(at) {
			at = u
		}
	}
	return at
}

// state of one sidecar in an answer; "" when it is not named.
func (x *suspension) state(id string) (state string) {
	for _, s := range x.Enforcement.Sidecars {
		if s.ID == id {
			state = s.State
		}
	}
	return state
}

// ratings are those of the services that the load calls.
var ratings = map[string]string{"abr.lookup": "1", "ldglst.0002.list": "3"}

// pace is the rest of each caller between two calls.
const pace = 4 * time.Millisecond

// traffic keeps calls of both ratings under way.
type traffic struct {
	loads []*load
	from  int // arrivals before
}

func (f *fenced) traffic(t testing.TB, rest time.Duration) *traffic {
	t.Helper()
	tr := &traffic{from: len(f.arrivals(t)), loads: []*load{f.startPacedLoad(t, 4, lookup, rest), f.startPacedLoad(t, 4, clients, rest)}}
	for _, l := range tr.loads {
		eventually(t, time.Minute, "calls pass", func() bool { return l.count("200") > 20 })
	}
	return tr
}

// answered waits until n more calls of each load are over.
func (tr *traffic) answered(t testing.TB, n int64) {
	t.Helper()
	for _, l := range tr.loads {
		before := l.total()
		eventually(t, time.Minute, "calls are answered", func() bool { return l.total() >= before+n })
	}
}

func (l *load) total() (n int64) {
	l.counts.Range(func(_, v any) bool { n += v.(interface{ Load() int64 }).Load(); return true })
	return n
}

func (tr *traffic) stop() {
	for _, l := range tr.loads {
		l.stop()
	}
}

// silentAfter wants calls to go on and none of the product to be let in after
// what an answer promises; it ends the traffic.
func (f *fenced) silentAfter(t testing.TB, tr *traffic, x *suspension, at time.Time) {
	t.Helper()
	last := x.until(at, "1")
	time.Sleep(time.Until(last))
	tr.answered(t, 60)
	tr.stop()
	n := 0
	for _, a := range f.stampedArrivals(t)[tr.from:] {
		if a.Refused != "" {
			continue
		}
		n++
		bound := x.until(at, ratings[a.Service])
		if a.VerifiedAt.After(bound) {
			t.Errorf("decision %s on %s was let in %v after the answer, %v after what it promised", a.DecisionID, a.Service, a.VerifiedAt.Sub(at), a.VerifiedAt.Sub(bound))
		}
	}
	if n == 0 {
		t.Error("no call arrived before: the case proves nothing")
	}
	t.Logf("%d arrivals, all before; callers saw %v and %v", n, tr.loads[0], tr.loads[1])
}

// refused asks on both ratings until every sidecar has had its turn.
func (f *fenced) refused(t testing.TB) {
	t.Helper()
	raw := f.token(t, nil)
	for range 8 {
		for _, path := range []string{lookup, clients} {
			if r := f.ask(t, "GET", path, raw, nil); r.status == 200 {
				t.Fatalf("admitted: %v", r)
			}
		}
	}
}

// asked is the answer to a command that may fail.
type asked struct {
	status int
	body   []byte
	err    error
}

// problem is what a refused command says, as far as the cases look.
func (a *asked) problem(t testing.TB) (code string, source map[string]string, until map[string]time.Time) {
	t.Helper()
	var p struct {
		Errors []struct {
			Code   string
			Source map[string]string
			Meta   struct {
				Until map[string]time.Time `json:"exposure_until"`
			}
		}
	}
	if err := json.Unmarshal(a.body, &p); err != nil || a.err != nil || len(p.Errors) != 1 {
		t.Fatalf("%d %.300s: %v", a.status, a.body, err)
	}
	return p.Errors[0].Code, p.Errors[0].Source, p.Errors[0].Meta.Until
}

// command posts with an Idempotency-Key of its own; the control plane may be
// killed meanwhile.
func (f *fenced) command(t testing.TB, token, path, key string, body any) (a asked) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.info.Control+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", strings.ReplaceAll(key, " ", "-"))
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	var buf bytes.Buffer
	_, a.err = buf.ReadFrom(resp.Body)
	a.status, a.body = resp.StatusCode, buf.Bytes()
	return a
}

func suspendKooka(reason string) map[string]any {
	return map[string]any{"subject": map[string]string{"kind": "product", "id": kooka}, "reason": reason}
}

// revision is the register's head in Redis.
func (f *fenced) revision(t testing.TB) int64 {
	t.Helper()
	n, err := f.redis(t).HGet(t.Context(), keyHead, "rev").Int64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fencedRow is one case: run, or where it is run and why not here.
type fencedRow struct {
	id, what        string
	run             func(*testing.T, *fenced)
	file, test, why string // of a row that does not run here
}

// rows runs a table on one demo, which each row leaves as it found it; after
// one that failed the next gets another.
func rows(all *testing.T, table []fencedRow) {
	all.Helper()
	all.Parallel() // each table has a demo of its own, and mostly waits for leases
	var f *fenced
	for _, r := range table {
		ok := all.Run(r.id+" "+r.what, func(t *testing.T) {
			if r.run == nil {
				t.Logf("not here: %s; %s in %s runs it", r.why, r.test, r.file)
				elsewhere(t, r.file, r.test)
				return
			}
			if f == nil {
				f = fencedStack(all)
			}
			r.run(t, f)
			f.whole(t)
		})
		if !ok {
			f = nil
		}
	}
}

// wantRows wants a row of every case of a letter up to the last, ours among them.
func wantRows(t *testing.T, text []byte, letter string, last int) {
	t.Helper()
	for n := 1; n <= last; n++ {
		id := fmt.Sprintf("%s%02d", letter, n)
		if !bytes.Contains(text, []byte(`"`+id)) {
			t.Errorf("no row is named %s", id)
		}
	}
}

// decodeData reads the data of an answer.
func decodeData(t testing.TB, a asked, data any) {
	t.Helper()
	if err := json.Unmarshal(a.body, &struct {
		Data any `json:"data"`
	}{data}); err != nil || a.err != nil || a.status >= 300 {
		t.Errorf("answered %d %.300s: %v %v", a.status, a.body, a.err, err)
	}
}
