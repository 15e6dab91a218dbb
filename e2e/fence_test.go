package e2e

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dspgate/dspgate/chaos/world"
)

// TestFence is S: what a suspension promises, whatever happens to the processes
// meanwhile. S05 is in TestAdmission, S17 in TestS17…; the rest of S is here.
func TestFence(t *testing.T) {
	const sim, chaos = "../authz/simulation_test.go", "../chaos/planted_test.go"
	rows(t, []fencedRow{
		{id: "S01", what: "all is well, the product at full speed", run: caseS01},
		{id: "S02x", what: "a sidecar is killed right before", run: caseS02},
		{id: "S03", what: "a sidecar stopped before, going on after the answer", run: caseS03},
		{id: "S04x", what: "a sidecar cut off from Redis is named, and until when", run: caseS04},
		{id: "S06x", what: "the upstream stopped with admitted calls in its socket", run: caseS06},
		{id: "S07", what: "acknowledged before the swap is found out", file: chaos, test: "TestPlantedFaultsAreCaught",
			why: "the demo's binary holds no planted fault; a build of its own has it in the sidecars' processes (early-ack)"},
		{id: "S08x", what: "polls arrive and their answers are lost", run: caseS08},
		{id: "S09", what: "a lease counted from the reply is found out", file: sim, test: "TestEveryPlantedFaultIsCaught",
			why: "between processes the difference is smaller than the margin of the wait; the simulation makes it large enough to see"},
		{id: "S10x", what: "the machine sleeps, and its clocks with it", file: "../registry/lease_test.go", test: "TestBootClockGoesOnWhileTheMachineIsSuspended",
			why: "no test may stop this machine's clocks"},
		{id: "S11", what: "the control plane dies after the commit, another takes over", run: caseS11},
		{id: "S12x", what: "a control plane stopped, replaced, and going on", run: caseS12},
		{id: "S13", what: "a sidecar that no list names any more", run: caseS13},
		{id: "S14x", what: "sidecars that join while a product is stopped", run: caseS14},
		{id: "S15", what: "suspend, lift and suspend at once", run: caseS15},
		{id: "S16x", what: "an entity with 400 products in one commit", file: "../registry/entity_cascade_test.go", test: "TestSuspendingAnEntityStopsAllItsProductsInOneCommit",
			why: "the sample register has no entity with more than a few; TestSuspended has a row of each kind of subject"},
		{id: "S18x", what: "many suspensions at once", run: caseS18},
		{id: "S19", what: "Redis is gone", run: caseS19},
		{id: "S20x", what: "a suspension ends by itself", run: caseS20},
	})
}

func caseS01(t *testing.T, f *fenced) {
	const rounds = 10
	var took []time.Duration
	for range rounds {
		tr := f.traffic(t, 0)
		began := time.Now()
		x, at := f.stop(t, "5s")
		took = append(took, at.Sub(began))
		if !x.Enforcement.Complete {
			t.Fatalf("not complete: %+v", x.Enforcement)
		}
		f.silentAfter(t, tr, &x, at)
		f.whole(t)
	}
	slices.Sort(took)
	t.Logf("%d suspensions returned after %v in the middle, %v at most, the stamp's life among it", rounds, took[rounds/2], took[rounds-1])
}

func caseS02(t *testing.T, f *fenced) {
	tr := f.traffic(t, pace)
	f.side[1].gone()
	x, at := f.stop(t, "5s")
	for !x.Enforcement.Complete {
		x = f.enforcement(t, x.ID, "5s")
		at = time.Now()
	}
	if got := x.state("sidecar-2"); got != "lapsed" {
		t.Errorf("the one that was killed is %q, want it named as lapsed", got)
	}
	f.silentAfter(t, tr, &x, at)
	f.startSidecar(1, shortLease, longLease)
	f.ready(t, f.info.SidecarDebug[1])
	f.refused(t)
}

func caseS03(t *testing.T, f *fenced) {
	tr := f.traffic(t, pace)
	returns := f.metric(t, f.info.ControlDebug, "roll_returns_total", "")
	f.side[1].stopped(t, true)
	x, at := f.stop(t, "5s")
	for !x.Enforcement.Complete {
		x = f.enforcement(t, x.ID, "5s")
		at = time.Now()
	}
	if got := x.state("sidecar-2"); got != "lapsed" {
		t.Errorf("the one that is stopped is %q, want it named as lapsed", got)
	}
	f.side[1].stopped(t, false)
	f.silentAfter(t, tr, &x, at)
	f.refused(t)
	eventually(t, time.Minute, "its return is told", func() bool { return f.metric(t, f.info.ControlDebug, "roll_returns_total", "") > returns })
}

func caseS04(t *testing.T, f *fenced) {
	for _, how := range []string{world.Silent, world.Reset} {
		tr := f.traffic(t, pace)
		if err := f.links[1].Break(how, 0); err != nil {
			t.Fatal(err)
		}
		x, at := f.stop(t, "300ms")
		if x.state("sidecar-1") == "" || x.state("sidecar-2") == "" {
			t.Errorf("%s: not all are named: %+v", how, x.Enforcement)
		}
		for _, s := range x.Enforcement.Sidecars {
			if s.State == "pending" && (len(s.Until) != 4 || s.Until["3"].After(s.Until["1"])) {
				t.Errorf("%s: %s is exposed until %v", how, s.ID, s.Until)
			}
			if s.State == "pending" && s.Until["1"].Sub(at) > longLease*2 {
				t.Errorf("%s: %s is named as exposed for %v, which no lease lasts", how, s.ID, s.Until["1"].Sub(at))
			}
		}
		f.silentAfter(t, tr, &x, at) // cut off still
		f.whole(t)
	}
}

func caseS06(t *testing.T, f *fenced) {
	tr := f.traffic(t, pace)
	if err := syscall.Kill(f.info.PIDs.Upstream, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(f.info.PIDs.Upstream, syscall.SIGCONT) //nolint:errcheck // it may run already
	x, at := f.stop(t, "5s")
	if err := syscall.Kill(f.info.PIDs.Upstream, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !x.Enforcement.Complete {
		t.Fatalf("not complete: %+v", x.Enforcement)
	}
	f.silentAfter(t, tr, &x, at)
}

func caseS08(t *testing.T, f *fenced) {
	tr := f.traffic(t, pace)
	if err := f.links[1].Break(world.HalfDown, 0); err != nil {
		t.Fatal(err)
	}
	x, at := f.stop(t, "300ms")
	// Its polls arrive, so it cannot be called lapsed; without their answers its
	// own leases end all the same, at the instant named first.
	f.silentAfter(t, tr, &x, at)
	if y := f.enforcement(t, x.ID, "0s"); y.state("sidecar-2") == "acknowledged" {
		t.Errorf("acknowledged by a sidecar that heard of nothing: %+v", y.Enforcement)
	}
}

func caseS11(t *testing.T, f *fenced) {
	tr := f.traffic(t, pace)
	f.side[1].stopped(t, true)
	defer f.side[1].stopped(t, false)
	before := f.revision(t)
	key := fmt.Sprint("S11 ", time.Now().UnixNano())
	var answer asked
	var asking sync.WaitGroup
	asking.Go(func() {
		answer = f.command(t, f.info.OperatorToken, "/v1/suspensions?wait=true", key, suspendKooka("case S11"))
	})
	eventually(t, time.Minute, "the commit", func() bool { return f.revision(t) > before })
	f.plane.gone() // it waits for the stopped sidecar
	asking.Wait()
	if answer.err == nil {
		t.Fatalf("answered before it died: %d %s", answer.status, answer.body)
	}
	began := time.Now()
	f.startPlane(func(cfg map[string]any) { cfg["id"] = "control-next" })
	f.writes(t)
	all := f.active(t)
	if len(all) != 1 {
		t.Fatalf("%d suspensions are in force after the commit, want it to be there: %+v", len(all), all)
	}
	x := f.enforcement(t, all[0].ID, "0s")
	for !x.Enforcement.Complete {
		if got := x.state("sidecar-2"); got != "pending" {
			t.Errorf("the stopped sidecar is %q before it is complete", got)
		}
		x = f.enforcement(t, x.ID, "5s")
	}
	at := time.Now()
	if got := x.state("sidecar-2"); got != "lapsed" || at.Sub(began) < longLease {
		t.Errorf("the stopped sidecar is %q, %v after the new control plane's start, which knew nothing of its last poll", got, at.Sub(began))
	}
	f.side[1].stopped(t, false)
	f.silentAfter(t, tr, &x, at)
	// Who asked asks again, and gets the one that is in force.
	again := f.command(t, f.info.OperatorToken, "/v1/suspensions", key, suspendKooka("case S11"))
	if after := f.active(t); again.err != nil || again.status >= 300 || len(after) != 1 || after[0].ID != x.ID {
		t.Errorf("asked again: %d %s (%v), now in force: %+v", again.status, again.body, again.err, after)
	}
}

func caseS12(t *testing.T, f *fenced) {
	old := f.info.Control
	f.plane.stopped(t, true)
	stopped := f.plane
	defer stopped.gone()
	f.info.Control = "http://" + freeAddress(t)
	debug := f.info.ControlDebug
	f.info.ControlDebug = "http://" + freeAddress(t)
	place := func(cfg map[string]any) {
		cfg["id"], cfg["listen"], cfg["debug"] = "control-2", f.info.Control[len("http://"):], f.info.ControlDebug[len("http://"):]
	}
	f.startPlane(place)
	f.writes(t)
	tr := f.traffic(t, pace)
	x, at := f.stop(t, "5s")
	if !x.Enforcement.Complete {
		t.Fatalf("not complete: %+v", x.Enforcement)
	}
	stopped.stopped(t, false)
	f.silentAfter(t, tr, &x, at)
	// The one that was deposed says so, and does nothing.
	now := f.info.Control
	f.info.Control = old
	a := f.command(t, f.info.Operator2Token, "/v1/suspensions/"+x.ID+"/lift", "S12 lift", map[string]any{"reason": "by the one that was deposed"})
	f.info.Control = now
	if a.err != nil || a.status != 503 {
		t.Errorf("the deposed control plane answers %d %s (%v)", a.status, a.body, a.err)
	}
	if all := f.active(t); len(all) != 1 {
		t.Errorf("%d suspensions are in force, want the one", len(all))
	}
	f.refused(t)
	// As it was: the first in its place again.
	f.lift(t, x.ID)
	stopped.gone()
	f.plane.gone()
	f.info.Control, f.info.ControlDebug = old, debug
	f.startPlane(nil)
}

func caseS13(t *testing.T, f *fenced) {
	const keyRoll, keyTenure = "{dspgate}:roll", "{dspgate}:tenure"
	tr := f.traffic(t, pace)
	f.side[1].stopped(t, true)
	defer f.side[1].stopped(t, false)
	// What a failover loses of the roll, and all who could remember it.
	f.plane.gone()
	if n, err := f.redis(t).Del(t.Context(), keyRoll, keyTenure).Result(); err != nil || n != 2 {
		t.Fatalf("the roll had %d keys: %v", n, err)
	}
	f.restartRedis(nil)
	f.startPlane(nil)
	f.writes(t)
	x, at := f.stop(t, "100ms")
	if x.state("sidecar-2") != "" {
		t.Errorf("the lost one is named: %+v", x.Enforcement)
	}
	if !x.Enforcement.Complete && x.state("unknown-sidecars") != "pending" {
		t.Errorf("not complete, and nobody is said to be unknown: %+v", x.Enforcement)
	}
	if x.Enforcement.Complete && f.metric(t, f.info.ControlDebug, "roll_in_doubt", "") != 0 {
		t.Errorf("complete while the roll is in doubt: %+v", x.Enforcement)
	}
	time.Sleep(time.Until(x.until(at, "1")))
	f.side[1].stopped(t, false)
	f.silentAfter(t, tr, &x, at)
	eventually(t, time.Minute, "it is complete", func() bool { return f.enforcement(t, x.ID, "5s").Enforcement.Complete })
	f.refused(t)
}

func caseS14(t *testing.T, f *fenced) {
	for range 2 {
		tr := f.traffic(t, pace)
		f.side[1].gone()
		var joining sync.WaitGroup
		joining.Go(func() { f.startSidecar(1, shortLease, longLease) })
		x, at := f.stop(t, "5s")
		joining.Wait()
		f.ready(t, f.info.SidecarDebug[1])
		f.silentAfter(t, tr, &x, at)
		f.refused(t)
		f.whole(t)
	}
}

func caseS15(t *testing.T, f *fenced) {
	body := suspendKooka("case S15")
	key := func(n int) string { return fmt.Sprintf("S15 %d %d", n, f.revision(t)) }
	for range 5 {
		k1, k2, k3 := key(1), key(2), key(3)
		var first, second suspension
		a := f.command(t, f.info.OperatorToken, "/v1/suspensions", k1, body)
		decodeData(t, a, &first)
		lift := "/v1/suspensions/" + url.PathEscape(first.ID) + "/lift"
		b := f.command(t, f.info.Operator2Token, lift, k2, map[string]any{"reason": "case S15"})
		c := f.command(t, f.info.OperatorToken, "/v1/suspensions", k3, body)
		decodeData(t, c, &second)
		if a.status != 201 || b.status != 200 || c.status != 201 || first.ID == second.ID {
			t.Fatalf("answered %d %s, %d %s, %d %s", a.status, a.body, b.status, b.body, c.status, c.body)
		}
		x := f.enforcement(t, second.ID, "5s")
		for !x.Enforcement.Complete {
			x = f.enforcement(t, second.ID, "5s")
		}
		f.refused(t)
		// The last wins, whatever is repeated of what came before.
		rev := f.revision(t)
		for _, old := range []struct {
			key, token, path string
			body             any
			was              asked
		}{
			{k1, f.info.OperatorToken, "/v1/suspensions", body, a},
			{k2, f.info.Operator2Token, lift, map[string]any{"reason": "case S15"}, b},
			{k3, f.info.OperatorToken, "/v1/suspensions", body, c},
		} {
			again := f.command(t, old.token, old.path, old.key, old.body)
			if again.status != old.was.status || string(again.body) != string(old.was.body) {
				t.Errorf("repeated: %d %s, was %d %s", again.status, again.body, old.was.status, old.was.body)
			}
		}
		if now := f.revision(t); now != rev {
			t.Errorf("repeating made revision %d of %d", now, rev)
		}
		if all := f.active(t); len(all) != 1 || all[0].ID != second.ID {
			t.Errorf("in force: %+v, want %s", all, second.ID)
		}
		f.refused(t)
		f.whole(t)
	}
}

func caseS18(t *testing.T, f *fenced) {
	subjects := [][2]string{{"product", kooka}, {"product", "FP-1001"}, {"product", "FP-1002"}, {"product", "FP-1009"},
		{"version", kooka + "@7.1"}, {"client-app", "fp-1003-prod"}, {"subscription", "0000300001"}, {"entity", "31000000202"}, {"service", "abr.lookup"}}
	tr := f.traffic(t, pace)
	all := make([]suspension, len(subjects))
	var asking sync.WaitGroup
	for i, s := range subjects {
		asking.Go(func() {
			a := f.command(t, f.info.OperatorToken, "/v1/suspensions?wait=true", fmt.Sprint("S18 ", i, time.Now().UnixNano()),
				map[string]any{"subject": map[string]string{"kind": s[0], "id": s[1]}, "reason": "case S18"})
			if a.status != 201 {
				t.Errorf("suspend %v: %d %s (%v)", s, a.status, a.body, a.err)
				return
			}
			decodeData(t, a, &all[i])
		})
	}
	asking.Wait()
	at := time.Now()
	revisions := map[int64]bool{}
	for i, x := range all {
		if revisions[x.Revision] = true; !x.Enforcement.Complete {
			t.Errorf("%v is not complete: %+v", subjects[i], x.Enforcement)
		}
	}
	if len(revisions) != len(subjects) {
		t.Errorf("%d revisions of %d suspensions", len(revisions), len(subjects))
	}
	f.silentAfter(t, tr, &all[0], at)
	for _, x := range all {
		f.liftLater(t, x.ID)
	}
}

func caseS19(t *testing.T, f *fenced) {
	for _, how := range []string{"killed", "stopped"} {
		tr := f.traffic(t, pace)
		began := time.Now()
		if how == "stopped" {
			if err := syscall.Kill(f.info.PIDs.Redis, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			defer syscall.Kill(f.info.PIDs.Redis, syscall.SIGCONT) //nolint:errcheck // it may run already
		}
		suspend := func() {
			a := f.command(t, f.info.OperatorToken, "/v1/suspensions?wait=true", fmt.Sprint("S19 ", how, time.Now().UnixNano()), suspendKooka("case S19"))
			at := time.Now()
			code, _, until := a.problem(t)
			if a.status != 503 || code == "" || len(until) != 4 || until["3"].After(until["1"]) || until["4"] != until["3"] || until["2"] != until["1"] {
				t.Fatalf("%s: answered %d %s", how, a.status, a.body)
			}
			if least := began.Add(shortLease / 2); until["1"].Before(least) || until["1"].Sub(at) > 2*longLease {
				t.Errorf("%s: exposed until %v, which is %v from the answer", how, until["1"], until["1"].Sub(at))
			}
			// Refused, not done in silence; what bounds it are the leases.
			x := suspension{}
			x.Enforcement.Sidecars = append(x.Enforcement.Sidecars, struct {
				ID, State string
				Revision  int64
				Until     map[string]time.Time
			}{"all", "pending", 0, until})
			f.silentAfter(t, tr, &x, began)
		}
		if how == "killed" {
			f.restartRedis(suspend)
			if all := f.active(t); len(all) != 0 {
				t.Errorf("refused, and in force: %+v", all)
			}
		} else {
			suspend()
			if err := syscall.Kill(f.info.PIDs.Redis, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			// Whether it was committed was not known: either is right, half is not.
			f.writes(t)
			if all := f.active(t); len(all) == 1 {
				eventually(t, time.Minute, "it is complete", func() bool { return f.enforcement(t, all[0].ID, "5s").Enforcement.Complete })
				f.refused(t)
			}
		}
		f.whole(t)
	}
}

func caseS20(t *testing.T, f *fenced) {
	raw := f.token(t, nil)
	x := f.suspend(t, "product", kooka, map[string]any{"expires_at": time.Now().Add(4 * time.Second).UTC().Format(time.RFC3339Nano)})
	rev := f.revision(t)
	if r := f.ask(t, "GET", lookup, raw, nil); r.code() != "product-suspended" && r.status != 200 {
		t.Errorf("while it lasts: %v", r)
	}
	eventually(t, time.Minute, "the product passes again", func() bool { return f.ask(t, "GET", lookup, raw, nil).status == 200 })
	if now := f.revision(t); now != rev {
		t.Errorf("its end took revision %d, want none after %d", now, rev)
	}
	if all := f.active(t); len(all) != 0 {
		t.Errorf("%s is in force still: %+v", x.ID, all)
	}
}

// TestFenceCasesAreAllRows: each S case is a row here or in one of the files named.
func TestFenceCasesAreAllRows(t *testing.T) {
	var text []byte
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	wantRows(t, text, "S", 19)
	wantRows(t, text, "R", 13)
	wantRows(t, text, "X", 13)
}
