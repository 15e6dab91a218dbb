package control_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

type suspension struct {
	ID          string
	Revision    registry.Revision
	Subject     registry.SubjectRef
	Active      bool
	Reason      string
	LiftedBy    string `json:"lifted_by"`
	Enforcement *registry.Enforcement
}

func suspendBody(kind, id string) map[string]any {
	return map[string]any{"subject": map[string]any{"kind": kind, "id": id}, "reason": "test"}
}

func TestSuspendAnswersAsTheContractSays(t *testing.T) {
	w := newWorld(t)
	r := w.call(operator, "POST", "/v1/suspensions?wait=true", suspendBody("product", "FP-1003"))
	var raw map[string]any
	r.data(t, 201, &raw)
	var s suspension
	r.data(t, 201, &s)
	if s.ID != fmt.Sprintf("SU-%d", s.Revision) || s.Subject.ID != "FP-1003" || !s.Active || r.header.Get("ETag") != fmt.Sprintf("%q", fmt.Sprint(s.Revision)) {
		t.Errorf("%+v, ETag %s", s, r.header.Get("ETag"))
	}
	e, _ := raw["enforcement"].(map[string]any)
	sidecars, _ := e["sidecars"].([]any)
	if len(sidecars) != 1 {
		t.Fatalf("enforcement %v", e)
	}
	if _, ok := e["elapsed_ms"].(float64); !ok || e["complete"] != true {
		t.Errorf("enforcement %v", e)
	}
	want := map[string]any{"id": "sidecar-1", "incarnation": "1", "state": "acknowledged", "revision": float64(s.Revision)}
	if d := cmp.Diff(want, sidecars[0]); d != "" {
		t.Error(d)
	}

	// No drain is configured here, so that a stamp closes nothing; receipts stay
	// available and are promised nothing.
	if named, _ := e["p1_only_services"].([]any); len(named) != 11 || slices.Contains(named, any("receipts.get")) {
		t.Errorf("P1 only: %v", named)
	}

	// Alike: the same again, 200, and nothing new in the log.
	var again suspension
	w.call(operator2, "POST", "/v1/suspensions?wait=true&timeout=1s", suspendBody("product", "FP-1003")).data(t, 200, &again)
	if again.ID != s.ID || again.Enforcement == nil || !again.Enforcement.Complete {
		t.Errorf("again: %+v", again)
	}

	// Not by the one who imposed it; by a second; and once more is no change.
	w.call(operator, "POST", "/v1/suspensions/"+s.ID+"/lift", `{"reason":"x"}`).refused(t, 403, "forbidden")
	var lifted suspension
	w.call(operator2, "POST", "/v1/suspensions/"+s.ID+"/lift?wait=true", `{"reason":"replaced"}`).data(t, 200, &lifted)
	if lifted.Active || lifted.LiftedBy != operator2 || lifted.Enforcement == nil {
		t.Errorf("lifted: %+v", lifted)
	}
	w.call(operator2, "POST", "/v1/suspensions/"+s.ID+"/lift", nil).data(t, 200, &lifted)
	e1 := w.call(operator2, "POST", "/v1/suspensions/"+s.ID+"/confirm", nil).refused(t, 409, "state-conflict")
	if !strings.Contains(e1.Detail, "was lifted at") {
		t.Errorf("409 does not name the state: %s", e1.Detail)
	}
}

func TestASilentSidecarIsNamedPendingThenLapsed(t *testing.T) {
	w := newWorld(t)
	w.sidecar.Set(registrytest.Fault{Refused: true})
	var s suspension
	w.call(operator, "POST", "/v1/suspensions?wait=true&timeout=1ms", suspendBody("product", "FP-1003")).data(t, 201, &s)
	if s.Enforcement.Complete || len(s.Enforcement.Sidecars) > 1 {
		t.Fatalf("%+v", s.Enforcement)
	}
	var pending suspension
	w.call(operator, "GET", "/v1/suspensions/"+s.ID+"?wait=true&timeout=60ms", nil).data(t, 200, &pending)
	x := pending.Enforcement.Sidecars[0]
	if x.State == registry.Pending && (pending.Enforcement.Complete || len(x.Until) != 4 || x.Until[4] >= x.Until[1]) {
		t.Errorf("pending without its lease ends: %+v", x)
	}
	var later suspension
	w.call(operator, "GET", "/v1/suspensions/"+s.ID+"?wait=true&timeout=5s", nil).data(t, 200, &later)
	if !later.Enforcement.Complete || later.Enforcement.Sidecars[0].State != registry.Lapsed {
		t.Errorf("%+v", later.Enforcement)
	}
}

func TestAWaitIsBounded(t *testing.T) {
	w := newWorld(t)
	for query, parameter := range map[string]string{"wait=true&timeout=6s": "timeout", "wait=true&timeout=-1s": "timeout", "wait=true&timeout=soon": "timeout", "wait=perhaps": "wait", "wait=": "wait"} {
		e := w.call(operator, "POST", "/v1/suspensions?"+query, suspendBody("product", "FP-1003")).refused(t, 422, "invalid")
		if e.Source.Parameter != parameter {
			t.Errorf("%s: names %q", query, e.Source.Parameter)
		}
	}
	var all []suspension
	w.call(operator, "GET", "/v1/suspensions?subject=FP-1003", nil).data(t, 200, &all)
	if len(all) != 0 {
		t.Error("suspended although the query was refused")
	}
}

func TestNotDurableIs503WithWhatWasCommitted(t *testing.T) {
	w := newWorld(t)
	w.store.NotDurable(true)
	r := w.call(operator, "POST", "/v1/suspensions?wait=true", suspendBody("product", "FP-1003"))
	e := r.refused(t, 503, "not-durable")
	var s suspension
	if err := json.Unmarshal(e.Meta.Data, &s); err != nil || s.Subject.ID != "FP-1003" || s.Enforcement == nil || !s.Enforcement.Complete || r.header.Get("Retry-After") == "" {
		t.Errorf("%s %v", r, err)
	}
}

func TestAStoreThatIsAwayIs503AndChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.link.Set(registrytest.Fault{Refused: true})
	r := w.call(operator, "POST", "/v1/products", map[string]any{"id": "FP-2000", "name": "x", "owner": "65000000101"})
	if r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Fatalf("got %s", r)
	}
	if r := w.call(operator, "GET", "/v1/products/FP-1001", nil); r.status != 200 {
		t.Errorf("reads need the store: %s", r)
	}
}

func TestASuspensionThatCannotBeCommittedSaysUntilWhenItIsExposed(t *testing.T) {
	w := newWorld(t)
	// Wait until the roll has been seen.
	var s suspension
	w.call(operator, "POST", "/v1/suspensions?wait=true", suspendBody("product", "FP-1001")).data(t, 201, &s)
	for what, fault := range map[string]registrytest.Fault{
		"away":                   {Refused: true},
		"refuses to commit only": {CommitsRefused: true},
	} {
		w.link.Set(fault)
		before := time.Now()
		r := w.call(operator, "POST", "/v1/suspensions", suspendBody("product", "FP-1003"), header("Idempotency-Key", fmt.Sprint(len(what))))
		e := r.refused(t, 503, "register-unavailable")
		until := e.Meta.ExposureUntil
		if what == "refuses to commit only" {
			if until != nil || !strings.Contains(e.Detail, "goes on renewing") {
				t.Errorf("%s: %s", what, r)
			}
			continue
		}
		short, long := until[4].Std().Sub(before), until[1].Std().Sub(before)
		if len(until) != 4 || short < 200*time.Millisecond || short > time.Minute || long-short < 150*time.Millisecond {
			t.Errorf("%s: exposed for %v and %v, want the leases of 200 and 400 ms and a margin: %s", what, short, long, r)
		}
	}
}

func TestETagsGuardChangesAgainstEachOther(t *testing.T) {
	w := newWorld(t)
	r := w.call(operator, "GET", "/v1/products/FP-1001", nil)
	tag := r.header.Get("ETag")
	if tag == "" || r.header.Get("Cache-Control") != "private, no-cache" {
		t.Fatalf("%v", r.header)
	}
	for _, match := range []string{tag, "W/" + tag, `"1", ` + tag, "*"} {
		if n := w.call(operator, "GET", "/v1/products/FP-1001", nil, header("If-None-Match", match)); n.status != 304 || n.body != "" {
			t.Errorf("If-None-Match %s: %s", match, n)
		}
	}
	if n := w.call(operator, "GET", "/v1/products/FP-1001", nil, header("If-None-Match", `"0"`)); n.status != 200 {
		t.Errorf("%s", n)
	}
	body := map[string]any{"name": "Renamed", "owner": "65000000101"}
	for _, bad := range []string{`"999999"`, "W/" + tag, `"x"`, `""`} {
		w.call(operator, "PUT", "/v1/products/FP-1001", body, header("If-Match", bad)).refused(t, 412, "precondition-failed")
	}
	for _, bad := range []string{"7", tag + ", " + tag, `"`, ""} {
		w.call(operator, "PUT", "/v1/products/FP-1001", body, header("If-Match", bad)).refused(t, 400, "malformed")
	}

	// Of many who read the same revision, one wins and the others learn of it.
	var mu sync.Mutex
	got := map[int]int{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := w.call(operator, "PUT", "/v1/products/FP-1001", map[string]any{"name": fmt.Sprint("Renamed ", i), "owner": "65000000101"}, header("If-Match", tag))
			mu.Lock()
			got[r.status]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if got[200] != 1 || got[412] != 7 {
		t.Errorf("statuses %v", got)
	}
}

// A change of one part of an entity must not undo another's of another part.
func TestChecksRecordedAtTheSameTimeAreAllKept(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for _, name := range []string{"authority", "legitimate-business", "tax-obligations", "compliance-behaviour"} {
		wg.Go(func() {
			if r := w.call(registrar, "POST", "/v1/registrations/94000000808/checks", map[string]any{"check": name, "outcome": "pass", "source": "seen"}); r.status != 200 {
				t.Errorf("%s: %s", name, r)
			}
		})
	}
	wg.Wait()
	var reg struct {
		Case struct {
			Checks []struct{ State string }
		}
	}
	w.call(registrar, "GET", "/v1/registrations/94000000808", nil).data(t, 200, &reg)
	passed := 0
	for _, c := range reg.Case.Checks {
		if c.State == "passed" {
			passed++
		}
	}
	if passed != 4 {
		t.Errorf("%+v", reg)
	}
}

func TestAnIdempotencyKeyDoesACommandOnce(t *testing.T) {
	w := newWorld(t)
	body := map[string]any{"id": "FP-2000", "name": "Once", "owner": "65000000101"}
	first := w.call(registrar, "POST", "/v1/products", body, header("Idempotency-Key", "k1"))
	if first.status != 201 {
		t.Fatal(first)
	}
	again := w.call(registrar, "POST", "/v1/products", body, header("Idempotency-Key", "k1"))
	if again.status != 201 || again.body != first.body || again.header.Get("ETag") != first.header.Get("ETag") {
		t.Errorf("not the stored answer: %s", again)
	}
	// Another body, another address, another person: not this answer.
	body["name"] = "Twice"
	w.call(registrar, "POST", "/v1/products", body, header("Idempotency-Key", "k1")).refused(t, 422, "invalid")
	w.call(operator, "POST", "/v1/products", body, header("Idempotency-Key", "k1")).refused(t, 409, "state-conflict")
	w.call(registrar, "POST", "/v1/products", body).refused(t, 409, "state-conflict")
	for _, bad := range []string{"", "a b", strings.Repeat("x", 129), "ü"} {
		e := w.call(registrar, "POST", "/v1/products", body, header("Idempotency-Key", bad)).refused(t, 422, "invalid")
		if e.Source.Header != "Idempotency-Key" {
			t.Errorf("%q: %+v", bad, e)
		}
	}
	// How long to wait for the answer is no part of what is asked.
	stop := suspendBody("product", "FP-1003")
	first = w.call(operator, "POST", "/v1/suspensions?wait=true&timeout=1s", stop, header("Idempotency-Key", "k3"))
	again = w.call(operator, "POST", "/v1/suspensions", stop, header("Idempotency-Key", "k3"))
	if first.status != 201 || again.status != 201 || again.body != first.body {
		t.Errorf("asked to wait %s, then not %s", first, again)
	}
	w.call(operator, "POST", "/v1/suspensions?dry=true", stop, header("Idempotency-Key", "k3")).refused(t, 422, "invalid")
	// Many at once: one product, one answer.
	body = map[string]any{"id": "FP-2001", "name": "Once", "owner": "65000000101"}
	var mu sync.Mutex
	bodies := map[string]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r := w.call(registrar, "POST", "/v1/products", body, header("Idempotency-Key", "k2"))
			mu.Lock()
			bodies[fmt.Sprint(r.status, r.body)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(bodies) != 1 {
		t.Errorf("answers %v", bodies)
	}
}

func TestADenialOfAKeyReachesTheSidecars(t *testing.T) {
	w := retried(newWorld(t))
	var d struct {
		ID          string
		Revision    registry.Revision
		Enforcement registry.Enforcement
	}
	r := w.call(operator, "POST", "/v1/token-denials?wait=true", `{"what":"kid","issuer":"https://issuer.example/","value":"k/1","reason":"stolen"}`)
	r.data(t, 201, &d)
	if d.ID != "kid:https://issuer.example/:k/1" || d.Revision == 0 || !d.Enforcement.Complete {
		t.Errorf("%s", r)
	}
	path := "/v1/token-denials/kid:https:%2F%2Fissuer.example%2F:k%2F1"
	if r := w.call(auditor, "GET", path, nil); r.status != 200 {
		t.Errorf("%s", r)
	}
	w.call(operator, "POST", path+"/lift", `{}`).refused(t, 403, "forbidden")
	if r := w.call(operator2, "POST", path+"/lift", `{"reason":"key replaced"}`); r.status != 200 {
		t.Errorf("%s", r)
	}
}

func TestANoticeThenALongSuspension(t *testing.T) {
	w := retried(newWorld(t))
	long := suspendBody("product", "FP-1003")
	long["expires_at"] = time.Now().Add(100 * time.Hour)
	e := w.call(operator, "POST", "/v1/suspensions", long).refused(t, 422, "invalid")
	if e.Source.Pointer != "/expires_at" {
		t.Errorf("%+v", e)
	}
	var n registry.Notice
	w.call(operator, "POST", "/v1/notices", map[string]any{"subject": long["subject"], "reason": "x", "effective_at": time.Now().Add(time.Hour)}).data(t, 201, &n)
	long["notice_id"] = n.ID
	if e := w.call(operator, "POST", "/v1/suspensions", long).refused(t, 422, "invalid"); !strings.Contains(e.Detail, n.ID) {
		t.Errorf("%+v", e)
	}
	var all []registry.Notice
	w.call(kookaburra, "GET", "/v1/notices", nil).data(t, 200, &all)
	if len(all) != 1 || all[0].By != "" {
		t.Errorf("%+v", all)
	}
}
