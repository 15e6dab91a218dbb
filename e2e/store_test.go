package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dspgate/dspgate/chaos/world"
)

// TestStoreFaults is R, as far as it takes broken links, Redis itself restarted
// or stopped, and short leases; TestRegisterStoreIsWrong and
// TestRegisterDurability have the other rows.
func TestStoreFaults(t *testing.T) {
	rows(t, []fencedRow{
		{id: "R02x", what: "a replica takes over that lacks the end", file: "../registry/redisstore/tenure_test.go", test: "TestARedisThatLostItsEndIsGivenItBack",
			why: "the demo's Redis has no replica; package chaos has failovers under load"},
		{id: "R04x", what: "a primary cut off from its replicas", file: "../registry/redisstore/faults_test.go", test: "TestAnIsolatedPrimaryRefusesPollsAndCommits",
			why: "the demo's Redis has no replica"},
		{id: "R08x", what: "the disk is full", run: caseR08},
		{id: "R09", what: "2 s of latency", run: lapsesOver(world.Slow)},
		{id: "R09", what: "nine connections of ten carry nothing", run: lossy},
		{id: "R09", what: "connections are reset", run: lapsesOver(world.Reset)},
		{id: "R09", what: "half open, nothing comes back", run: lapsesOver(world.HalfDown)},
		{id: "R09", what: "half open, nothing gets there", run: lapsesOver(world.HalfUp)},
		{id: "R10x", what: "writes are held up", run: caseR10},
		{id: "R11", what: "the append-only file lost its end", run: caseR11},
	})
}

// lapsesOver has both sidecars lose Redis: calls are decided from the mirror as
// before, and none is let through when the lease of its rating is over, counted
// from the last poll that went well.
func lapsesOver(how string) func(*testing.T, *fenced) {
	return func(t *testing.T, f *fenced) {
		tr := f.traffic(t, pace)
		for _, l := range f.links {
			if err := l.Break(how, 2*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		f.lapses(t, tr, time.Now())
	}
}

// lapses wants calls to end with the leases that were there at an instant from
// which on no poll went well.
func (f *fenced) lapses(t *testing.T, tr *traffic, from time.Time) {
	t.Helper()
	x := suspension{}
	x.Enforcement.Sidecars = append(x.Enforcement.Sidecars, struct {
		ID, State string
		Revision  int64
		Until     map[string]time.Time
	}{"all", "pending", 0, map[string]time.Time{"1": from.Add(longLease + window), "3": from.Add(shortLease + window)}})
	f.silentAfter(t, tr, &x, from)
	for _, l := range tr.loads {
		if l.count("503 register-stale") == 0 && l.count("503 authorizer-unavailable") == 0 {
			t.Errorf("callers saw %v, want the refusal of one who has no lease", l)
		}
	}
}

// lossy: now and then a poll gets through, and who has a lease serves; who was
// suspended meanwhile is not.
func lossy(t *testing.T, f *fenced) {
	tr := f.traffic(t, pace)
	for _, l := range f.links {
		if err := l.Break(world.Lossy, 0); err != nil {
			t.Fatal(err)
		}
	}
	x, at := f.stop(t, "1s")
	f.silentAfter(t, tr, &x, at)
}

func caseR08(t *testing.T, f *fenced) {
	c, line := f.redis(t), commandLine(t, f.info.PIDs.Redis)
	x, _ := f.stop(t, "5s")
	f.refused(t)
	// No file of Redis may grow: to write its append-only file is all it must do.
	limit := unix.Rlimit{Cur: 1, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(f.info.PIDs.Redis, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	a := f.command(t, f.info.OperatorToken, "/v1/suspensions", fmt.Sprint("R08", time.Now().UnixNano()),
		map[string]any{"subject": map[string]string{"kind": "product", "id": "FP-1002"}, "reason": "case R08"})
	if a.err != nil || a.status != 503 {
		t.Errorf("suspend with the disk full: %d %s (%v)", a.status, a.body, a.err)
	}
	f.refused(t) // who was suspended stays so
	if c.Ping(t.Context()).Err() == nil {
		// It lives; what it cannot keep it may not say it has.
		limit.Cur = unix.RLIM_INFINITY
		if err := unix.Prlimit(f.info.PIDs.Redis, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
			t.Fatal(err)
		}
	} else {
		f.info.PIDs.Redis = run(f.t, line[0], line[1:]...).Process.Pid
	}
	f.writes(t)
	if all := f.active(t); len(all) != 1 || all[0].ID != x.ID {
		t.Errorf("in force afterwards: %+v, want %s", all, x.ID)
	}
	f.refused(t)
}

func caseR10(t *testing.T, f *fenced) {
	tr := f.traffic(t, pace)
	if err := f.redis(t).Do(t.Context(), "CLIENT", "PAUSE", (longLease + 2*time.Second).Milliseconds(), "WRITE").Err(); err != nil {
		t.Fatal(err)
	}
	f.lapses(t, tr, time.Now())
	if err := f.redis(t).Do(t.Context(), "CLIENT", "UNPAUSE").Err(); err != nil {
		t.Fatal(err)
	}
}

func caseR11(t *testing.T, f *fenced) {
	c := f.redis(t)
	dir, err := c.ConfigGet(t.Context(), "dir").Result()
	if err != nil {
		t.Fatal(err)
	}
	sub, err := c.ConfigGet(t.Context(), "appenddirname").Result()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir["dir"], sub["appenddirname"], "*.incr.aof"))
	if err != nil || len(files) == 0 {
		// Redis 6 has one file.
		files = []string{filepath.Join(dir["dir"], "appendonly.aof")}
	}
	file := files[len(files)-1]
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	rev := f.revision(t)
	x, _ := f.stop(t, "5s")
	if !x.Enforcement.Complete || x.Revision != rev+1 {
		t.Fatalf("%+v after revision %d", x, rev)
	}
	f.restartRedis(func() {
		if err := os.Truncate(file, before.Size()); err != nil {
			t.Fatal(err)
		}
	})
	f.refused(t) // the mirrors hold what they have
	eventually(t, time.Minute, "what was lost is given back", func() bool {
		n, err := c.HGet(t.Context(), keyHead, "rev").Int64()
		return err == nil && n >= x.Revision
	})
	f.writes(t)
	if all := f.active(t); len(all) != 1 || all[0].ID != x.ID {
		t.Errorf("in force afterwards: %+v, want %s", all, x.ID)
	}
	f.refused(t)
}

// TestFleetFaults is X, as far as it takes two sidecars or what they rest on;
// TestFaultCases and TestAdmission have the other rows.
func TestFleetFaults(t *testing.T) {
	rows(t, []fencedRow{
		{id: "X06x", what: "one of two sidecars is gone", run: caseX06},
		{id: "X08x", what: "Envoy dies and starts again while a product is stopped", run: caseX08},
		{id: "X10x", what: "sidecars start while Redis is away", run: caseX10},
		{id: "X11", what: "the scorer is given nonsense", file: "../anomaly/series_test.go", test: "TestNonsenseChangesNothing",
			why: "no decision reads a score: what a scorer does cannot change one"},
		{id: "X12x", what: "decision records cannot be written", run: caseX12},
		{id: "X13", what: "two revisions behind one Envoy", run: caseX13},
		{id: "X14x", what: "no sidecar is fresh for the high ratings", run: caseX14},
	})
}

func caseX06(t *testing.T, f *fenced) {
	raw := f.token(t, nil)
	f.side[1].gone()
	inRow := 0
	eventually(t, time.Minute, "the other answers all calls", func() bool {
		if f.get(t, "GET", clients, raw, nil, nil).status == 200 {
			inRow++
		} else {
			inRow = 0
		}
		return inRow >= 30
	})
	x, _ := f.stop(t, "100ms")
	if got := x.state("sidecar-2"); got != "pending" && got != "lapsed" {
		t.Errorf("the one that is gone is %q, want it named", got)
	}
	f.refused(t)
	f.startSidecar(1, shortLease, longLease)
}

func caseX08(t *testing.T, f *fenced) {
	x, _ := f.stop(t, "5s")
	line := commandLine(t, f.info.PIDs.Envoy)
	end(t, f.info.PIDs.Envoy, syscall.SIGKILL)
	from := len(f.arrivals(t))
	f.info.PIDs.Envoy = run(f.t, line[0], line[1:]...).Process.Pid
	raw := f.token(t, nil)
	// From the first answer it gives it asks, and is told no.
	eventually(t, time.Minute, "it answers", func() bool {
		r := f.get(t, "GET", lookup, raw, nil, nil)
		if r.status == 200 {
			t.Errorf("let through: %v", r)
		}
		return r.code() == "product-suspended"
	})
	f.refused(t)
	if n := len(f.arrivals(t)) - from; n != 0 {
		t.Errorf("%d arrivals of a product that %s stops", n, x.ID)
	}
}

func caseX10(t *testing.T, f *fenced) {
	raw := f.token(t, nil)
	for _, p := range f.side {
		p.gone()
	}
	from := len(f.arrivals(t))
	f.restartRedis(func() {
		for i := range f.side {
			f.startSidecar(i, shortLease, longLease)
			// It says what is wrong and ends, or waits and is not ready; it never serves.
			select {
			case <-f.side[i].done:
				if out := f.side[i].out.String(); !strings.Contains(out, "Redis") {
					t.Errorf("it ends and does not say why: %s", out)
				}
			case <-time.After(500 * time.Millisecond):
			}
		}
		for range 10 {
			if r := f.get(t, "GET", receipt, raw, nil, nil); r.status != 503 {
				t.Errorf("with no register at all: %v", r)
			}
		}
	})
	if n := len(f.arrivals(t)) - from; n != 0 {
		t.Errorf("%d arrivals", n)
	}
	for i, p := range f.side {
		select {
		case <-p.done:
			f.startSidecar(i, shortLease, longLease)
		default:
		}
	}
}

func caseX12(t *testing.T, f *fenced) {
	c := f.redis(t)
	if err := c.ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
		t.Fatal(err)
	}
	raw := f.token(t, nil)
	o := f.watch(t)
	for range 200 {
		mustAdmit(t, f.ask(t, "GET", clients, raw, nil), clients, kooka)
	}
	o.check(200, kooka)
	if err := c.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
}

func caseX13(t *testing.T, f *fenced) {
	raw := f.token(t, nil)
	// With a lease as long as the demo's, so that the one behind goes on for a while.
	f.side[1].gone()
	f.startSidecar(1, time.Minute, time.Minute)
	f.ready(t, f.info.SidecarDebug[1])
	f.whole(t)
	if err := f.links[1].Break(world.HalfDown, 0); err != nil {
		t.Fatal(err)
	}
	f.suspend(t, "product", "FP-1009", map[string]any{"expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
	revisions := map[string]bool{}
	eventually(t, time.Minute, "answers of two revisions", func() bool {
		r := f.ask(t, "GET", lookup, raw, nil)
		var told struct {
			Revision string `json:"x-dsp-revision"`
		}
		if r.status == 200 && json.Unmarshal(r.body, &told) == nil {
			revisions[told.Revision] = true
		}
		return len(revisions) == 2
	})
	began := time.Now()
	eventually(t, time.Minute, "the drift is told", func() bool { return f.metric(t, f.info.ControlDebug, "roll_lag_revisions_max", "") > 0 })
	t.Logf("told %v after it was seen", time.Since(began))
	behind := 0
	for _, m := range f.roll(t) {
		if m.ID == "sidecar-2" && !m.Lapsed && m.Lag > 0 {
			behind++
		}
	}
	if behind == 0 {
		t.Errorf("nobody is listed as behind: %+v", f.roll(t))
	}
	if out, code := f.cli(t, "sidecar", "list", "-o", "table"); code != 0 || !strings.Contains(out, "BEHIND") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	// As it was.
	f.side[1].gone()
	if err := f.links[1].Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.startSidecar(1, shortLease, longLease)
	var all []suspension
	f.api(t, f.info.OperatorToken, "GET", "/v1/suspensions?active=true&product_id=FP-1009", nil, &all)
	for _, x := range all {
		f.liftLater(t, x.ID)
	}
}

// caseX14: the store is away for longer than the short lease. None of several
// sidecars is well then, and low ratings are served all the same.
func caseX14(t *testing.T, f *fenced) {
	raw := f.token(t, nil)
	for i, p := range f.side {
		p.gone()
		f.startSidecar(i, shortLease, 2*time.Minute)
		f.ready(t, f.info.SidecarDebug[i])
	}
	f.whole(t)
	for _, l := range f.links {
		if err := l.Break(world.HalfDown, 0); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, time.Minute, "Envoy takes both for ill", func() bool { return f.well(t) == 0 })
	o, n := f.watch(t), 0
	for ill := time.Now(); time.Since(ill) < 2500*time.Millisecond; n++ { // its workers hear of it within a second
		mustAdmit(t, f.ask(t, "GET", lookup, raw, nil), lookup, kooka)
		mustRefuse(t, f.ask(t, "GET", clients, raw, nil), "register-stale")
		time.Sleep(20 * time.Millisecond)
	}
	if n := f.well(t); n != 0 {
		t.Errorf("%d are well by now", n)
	}
	o.check(n, kooka)
	for i, l := range f.links {
		f.side[i].gone()
		if err := l.Heal(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.startSidecar(i, shortLease, longLease)
	}
}

// well is how many sidecars Envoy takes for well.
func (f *fenced) well(t testing.TB) (n int) {
	t.Helper()
	resp, err := http.Get(f.info.EnvoyAdmin + "/stats?filter=^cluster.sidecar_authz.membership_healthy$")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := fmt.Fscanf(resp.Body, "cluster.sidecar_authz.membership_healthy: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSuspensionBadInput: what a person gets wrong is named, and changes nothing.
func TestSuspensionBadInput(t *testing.T) {
	s := ownStack(t)
	f := &fenced{stack: s, t: t}
	first := s.suspend(t, "product", kooka, nil)
	product := func(id string) map[string]string { return map[string]string{"kind": "product", "id": id} }
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	of := "/v1/suspensions/" + first.ID
	for _, r := range []struct {
		what, token, path string
		body              map[string]any
		status            int
		pointer           string
	}{
		{"unknown subject", s.info.OperatorToken, "/v1/suspensions", map[string]any{"subject": product("FP-9999"), "reason": "x"}, 404, ""},
		{"unknown suspension", s.info.Operator2Token, "/v1/suspensions/SU-999999/lift", map[string]any{"reason": "x"}, 404, ""},
		{"suspended already", s.info.OperatorToken, "/v1/suspensions", map[string]any{"subject": product(kooka), "reason": "again"}, 200, ""},
		{"expiry in the past", s.info.OperatorToken, "/v1/suspensions", map[string]any{"subject": product("FP-1001"), "reason": "x", "expires_at": in(-time.Minute)}, 422, "/expires_at"},
		{"emergency over 72 h", s.info.OperatorToken, "/v1/suspensions", map[string]any{"subject": product("FP-1001"), "reason": "x", "emergency": true, "expires_at": in(73 * time.Hour)}, 422, "/expires_at"},
		{"alone over 4 h", s.info.OperatorToken, "/v1/suspensions", map[string]any{"subject": product("FP-1001"), "reason": "x", "expires_at": in(5 * time.Hour)}, 422, "/expires_at"},
		{"no reason", s.info.OperatorToken, "/v1/suspensions", map[string]any{"subject": product("FP-1001")}, 422, "/reason"},
		{"an empty reason", s.info.OperatorToken, "/v1/suspensions", map[string]any{"subject": product("FP-1001"), "reason": ""}, 422, "/reason"},
		{"a reason of blanks", s.info.OperatorToken, "/v1/suspensions", map[string]any{"subject": product("FP-1001"), "reason": "  "}, 422, "/reason"},
		{"a kind there is none of", s.info.OperatorToken, "/v1/suspensions", map[string]any{"subject": map[string]string{"kind": "flavour", "id": "x"}, "reason": "x"}, 422, "/subject/kind"},
		{"a second person who is the first, confirming", s.info.OperatorToken, of + "/confirm", map[string]any{}, 403, ""},
		{"a second person who is the first, lifting", s.info.OperatorToken, of + "/lift", map[string]any{"reason": "x"}, 403, ""},
		{"who may not suspend", s.info.AuditorToken, "/v1/suspensions", map[string]any{"subject": product("FP-1001"), "reason": "x"}, 403, ""},
		{"a confirmation over 72 h", s.info.Operator2Token, of + "/confirm", map[string]any{"expires_at": in(80 * time.Hour)}, 422, "/expires_at"},
		{"a confirmation that shortens", s.info.Operator2Token, of + "/confirm", map[string]any{"expires_at": in(time.Hour)}, 422, "/expires_at"},
	} {
		t.Run(r.what, func(t *testing.T) {
			rev := f.revision(t)
			a := f.command(t, r.token, r.path, fmt.Sprint("bad", time.Now().UnixNano()), r.body)
			if a.err != nil || a.status != r.status {
				t.Fatalf("answered %d %s (%v), want %d", a.status, a.body, a.err, r.status)
			}
			if r.status == 200 {
				var x suspension
				if decodeData(t, a, &x); x.ID != first.ID {
					t.Errorf("answered with %s, want the one in force, %s", x.ID, first.ID)
				}
			} else if _, source, _ := a.problem(t); source["pointer"] != r.pointer {
				t.Errorf("names %v, want %q: %s", source, r.pointer, a.body)
			}
			if now := f.revision(t); now != rev {
				t.Errorf("it made revision %d of %d", now, rev)
			}
		})
	}
	s.lift(t, first.ID)
}
