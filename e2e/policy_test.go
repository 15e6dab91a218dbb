package e2e

import (
	"bytes"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

type alarm struct {
	ID, Outcome, Policy string
	Shadow              bool
	Suspension          string `json:"suspension_id"`
	Incident            string `json:"incident_id"`
	Product             string `json:"product_id"`
}

// TestPolicyFromTrafficToRefusalAndBack: calls for a protected client are a
// signal. A policy in shadow only counts it. Enforced by two people, one throttles
// a caller and another suspends the next, and asks about the third, which would
// be one too many. A person lifts what it did. Another policy denies the single
// calls about a protected person, found in a path and in a body.
func TestPolicyFromTrafficToRefusalAndBack(t *testing.T) {
	t.Setenv("DSPGATE_WATCH_SHADOW_LEAST", "1ms")
	t.Setenv("DSPGATE_WATCHING_EVERY", "200ms")
	s := ownStack(t)
	op, op2 := s.info.OperatorToken, s.info.Operator2Token
	api := func(token, method, path string, body, data any) {
		t.Helper()
		if status := s.api(t, token, method, path, body, data); status != 200 {
			t.Fatalf("%s %s: %d", method, path, status)
		}
	}
	const slowed, stopped, spared = "FP-1003", "FP-1001", "FP-1002"
	owners := map[string]string{}
	for _, id := range []string{slowed, stopped, spared} {
		var p struct{ Owner string }
		api(op, "GET", "/v1/products/"+id, nil, &p)
		owners[id] = p.Owner
	}
	// Each acts for itself.
	call := func(product string) reply {
		return s.ask(t, "GET", lookup, s.token(t, func(c map[string]any) {
			app := strings.ToLower(product) + "-prod"
			c["client_id"], c["sub"], c["abn"], c["client_abn"] = app, app, owners[product], owners[product]
			delete(c, "software_id")
		}), nil)
	}
	for id := range owners {
		if r := call(id); r.status != 200 {
			t.Fatalf("%s before: %v", id, r)
		}
	}
	for name, rule := range map[string]map[string]any{
		"slow":  {"when": map[string]any{"products": []string{slowed}}, "then": map[string]any{"do": "throttle", "rate": 1, "for_minutes": 60, "max_traffic_percent": 100}},
		"stop":  {"when": map[string]any{"except": []string{slowed}}, "then": map[string]any{"do": "suspend", "for_minutes": 60, "max_products": 2, "max_traffic_percent": 100}},
		"quiet": {"when": map[string]any{}, "then": map[string]any{"do": "suspend", "for_minutes": 60, "max_traffic_percent": 100}},
	} {
		when := rule["when"].(map[string]any)
		when["signals"], when["subjects"] = []string{"protected-client"}, []string{"product"}
		if name == "quiet" {
			when["subjects"] = []string{"client-app"}
		}
		rule["purpose"] = "a test"
		api(op, "PUT", "/v1/policies/"+name, rule, nil)
	}
	time.Sleep(5 * time.Millisecond) // more than shadow_least
	for _, name := range []string{"slow", "stop"} {
		api(op, "POST", "/v1/policies/"+name+"/enforce", map[string]any{"reason": "tried"}, nil)
		api(op2, "POST", "/v1/policies/"+name+"/enforce", map[string]any{"reason": "seen"}, nil)
	}
	const person = "220115957"
	s.protect(t, owners, person)

	alarms := func(policy string) (all []alarm) {
		t.Helper()
		api(op, "GET", "/v1/alarms?policy="+policy, nil, &all)
		return all
	}
	// A protected client is told once a minute: the sidecars may get the list only
	// after the first calls.
	find := func(policy, product string) (found alarm) {
		t.Helper()
		eventually(t, 150*time.Second, policy+" of "+product, func() bool {
			call(product)
			for _, a := range alarms(policy) {
				if a.Product == product {
					found = a
				}
			}
			return found.ID != ""
		})
		return found
	}
	slow := find("slow", slowed)
	if a := slow; a.Outcome != "throttled" || a.Incident == "" {
		t.Fatalf("%+v", a)
	}
	eventually(t, 30*time.Second, "the caller is slowed down", func() bool {
		r := call(slowed)
		return r.status == 429 && r.code() == "anomaly-throttled" && r.header.Get("Retry-After") != ""
	})
	eventually(t, 30*time.Second, "and not stopped", func() bool { return call(slowed).status == 200 })

	a := find("stop", stopped)
	if a.Outcome != "suspended" || a.Incident == "" {
		t.Fatalf("%+v", a)
	}
	eventually(t, 30*time.Second, "the caller is refused", func() bool { r := call(stopped); return r.status == 403 && r.code() == "anomaly-suspended" })
	var inc struct {
		State, Channel string
		Containment    []string
	}
	api(op, "GET", "/v1/incidents/"+a.Incident, nil, &inc)
	if inc.State != "reported" || inc.Channel != "signal" || len(inc.Containment) != 1 || inc.Containment[0] != a.Suspension {
		t.Errorf("%+v", inc)
	}
	if x := find("stop", spared); x.Outcome != "asked" || x.Suspension != "" || x.Incident == "" {
		t.Errorf("one too many: %+v", x)
	}
	if r := call(spared); r.status != 200 {
		t.Errorf("one too many was touched: %v", r)
	}
	for _, x := range alarms("quiet") {
		if !x.Shadow || x.Outcome != "would" || x.Suspension != "" || x.Incident != "" {
			t.Errorf("in shadow: %+v", x)
		}
	}
	if len(alarms("quiet")) == 0 {
		t.Error("nothing was counted in shadow")
	}
	api(op, "POST", "/v1/alarms/"+a.ID+"/dismiss", map[string]any{"reason": "it was a test"}, nil)
	api(op2, "POST", "/v1/suspensions/"+a.Suspension+"/lift?wait=true", map[string]any{"reason": "it was a test"}, nil)
	if r := call(stopped); r.status != 200 {
		t.Errorf("lifted, and %v", r)
	}
	api(op2, "POST", "/v1/suspensions/"+slow.Suspension+"/lift?wait=true", map[string]any{"reason": "it was a test"}, nil)
	s.deny(t, slowed, person)
	s.lacks(t, slowed)
	s.stopSubscription(t)
	if out, code := s.cli(t, "policy", "list"); code != 0 || !strings.Contains(out, "enforced") || !strings.Contains(out, "shadow") {
		t.Errorf("%d: %s", code, out)
	}
}

// deny has a policy deny the calls of a product of the highest ratings that
// concern a protected person: wherever the service finds them, no others, and
// from the answer of the second person to that of the one who puts it back.
func (s *stack) deny(t *testing.T, product, person string) {
	t.Helper()
	bearer := s.token(t, func(c map[string]any) { delete(c, "client_abn"); delete(c, "software_id") })
	type about struct{ where, tfn string }
	call := func(a about) (r reply) {
		t.Helper()
		eventually(t, 60*time.Second, "an answer", func() bool {
			if a.where == "body" {
				r = s.get(t, "POST", verify, bearer, http.Header{"Content-Type": {"application/json"}}, strings.NewReader(`{"tfn":"`+a.tfn+`"}`))
			} else {
				r = s.ask(t, "GET", "/individuals/v1/"+a.tfn+"/prefill", bearer, nil)
			}
			return r.status != 503 && r.status != 429 // held up, or more a second than its limits are
		})
		return r
	}
	const other = "123456782"
	all := []about{{"path", person}, {"body", person}, {"path", other}, {"body", other}}
	expect := func(when string, denied bool) {
		t.Helper()
		for _, a := range all {
			r := call(a)
			if want := denied && a.tfn == person; want && (r.status != 403 || r.code() != "client-not-permitted") || !want && r.status != 200 {
				t.Errorf("%s, a call about %s in the %s: %v", when, a.tfn, a.where, r)
			}
			if r.status != 200 && (strings.Contains(string(r.body), person) || strings.Contains(string(r.body), "protected")) {
				t.Errorf("it tells who is on a list: %s", r.body)
			}
		}
	}
	command := func(token, method, path string, body any) {
		t.Helper()
		if status := s.api(t, token, method, "/v1/policies/shield"+path, body, nil); status != 200 {
			t.Fatalf("%s %s: %d", method, path, status)
		}
	}
	command(s.info.OperatorToken, "PUT", "", map[string]any{
		"purpose": "hands off", "when": map[string]any{"signals": []string{"protected-client"}, "products": []string{product}}, "then": map[string]any{"do": "deny", "min_risk": 4},
	})
	expect("in shadow", false)
	command(s.info.OperatorToken, "POST", "/enforce", map[string]any{"reason": "tried"})
	expect("asked for by one person", false)
	command(s.info.Operator2Token, "POST", "/enforce", map[string]any{"reason": "seen"})
	eventually(t, 30*time.Second, "the sidecars follow", func() bool { return call(all[0]).code() == "client-not-permitted" })
	expect("enforced", true)
	command(s.info.OperatorToken, "POST", "/relax", map[string]any{"reason": "enough"})
	eventually(t, 30*time.Second, "the sidecars follow back", func() bool { return call(all[0]).status == 200 })
	expect("put back", false)
}

// stopSubscription has a policy stop one client's subscription, and nothing else
// of the product: neither its calls for others nor those of its other software IDs.
func (s *stack) stopSubscription(t *testing.T) {
	t.Helper()
	const ssid, client, product = "0000300001", "56000001313", "FP-1003"
	command := func(token, method, path string, body any) {
		t.Helper()
		if status := s.api(t, token, method, "/v1/policies/one-client"+path, body, nil); status != 200 {
			t.Fatalf("%s %s: %d", method, path, status)
		}
	}
	command(s.info.OperatorToken, "PUT", "", map[string]any{
		"purpose": "a test", "when": map[string]any{"signals": []string{"protected-client"}, "subjects": []string{"subscription"}, "products": []string{product}},
		"then": map[string]any{"do": "suspend", "for_minutes": 60, "max_traffic_percent": 100, "max_products": 10},
	})
	command(s.info.OperatorToken, "POST", "/enforce", map[string]any{"reason": "tried"})
	command(s.info.Operator2Token, "POST", "/enforce", map[string]any{"reason": "seen"})
	var p struct{ Owner string }
	if status := s.api(t, s.info.OperatorToken, "GET", "/v1/products/"+product, nil, &p); status != 200 {
		t.Fatal(status)
	}
	call := func(edit func(map[string]any)) reply {
		return s.get(t, "POST", verify, s.token(t, func(c map[string]any) {
			c["client_id"], c["sub"], c["abn"] = "fp-1003-prod", "fp-1003-prod", p.Owner
			edit(c)
		}), http.Header{"Content-Type": {"application/json"}}, strings.NewReader(`{"tfn":"220115957"}`))
	}
	one := func(c map[string]any) { c["software_id"], c["client_abn"] = ssid, client }
	var last reply
	eventually(t, 150*time.Second, "the subscription is stopped", func() bool {
		last = call(one)
		return last.status == 403 && last.code() == "anomaly-suspended"
	})
	eventually(t, 30*time.Second, "its product goes on", func() bool {
		return call(func(c map[string]any) { delete(c, "software_id"); delete(c, "client_abn") }).status == 200
	})
	var all []struct {
		Subject   struct{ Kind, ID string }
		Automatic bool
	}
	if status := s.api(t, s.info.OperatorToken, "GET", "/v1/suspensions?active=true&limit=100&kind=subscription", nil, &all); status != 200 || len(all) != 1 || all[0].Subject.ID != ssid || !all[0].Automatic {
		t.Errorf("%d %+v", status, all)
	}
}

// lacks: the calls said neither their version nor, of the person in the path,
// their software ID, and everything else that is needed of them.
func (s *stack) lacks(t *testing.T, product string) {
	t.Helper()
	type gaps struct {
		Product  string `json:"product_id"`
		Service  string
		Calls    uint64
		Needed   []string
		Missing  map[string]uint64
		Complete bool
	}
	var all []gaps
	of := func(service string) (found gaps) {
		for _, g := range all {
			if g.Product == product && g.Service == service {
				found = g
			}
		}
		return found
	}
	eventually(t, 60*time.Second, "the sidecars report what calls lack", func() bool {
		all = nil
		return s.api(t, s.info.OperatorToken, "GET", "/v1/missing-fields?limit=100&complete=false", nil, &all) == 200 && of("piitr.get").Calls > 0 && of("stic.validate").Calls > 0
	})
	for _, service := range []string{"piitr.get", "stic.validate"} {
		g := of(service)
		if g.Missing["product_version"] != g.Calls || g.Missing["software_id"] != g.Calls || len(g.Missing) != 2 || !slices.Contains(g.Needed, "subject_hash") {
			t.Errorf("%+v", g)
		}
	}
	if out, code := s.cli(t, "missing-field", "list", "--field", "product_version"); code != 0 || !strings.Contains(out, "piitr.get") {
		t.Errorf("%d: %s", code, out)
	}
}

// protect loads the list of protected clients as an operator would, and waits
// until every sidecar has it.
func (s *stack) protect(t *testing.T, abns map[string]string, tfn string) {
	t.Helper()
	list := "# protected\n"
	for kind, ids := range map[string][]string{"client_abn": slices.Collect(maps.Values(abns)), "tfn": {tfn}} {
		file := filepath.Join(t.TempDir(), kind)
		if err := os.WriteFile(file, []byte(strings.Join(ids, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), binary(t), "protected", "hash", file, "--kind", kind, "--key-file", filepath.Join(s.dir, "key", "subject.key")).Output()
		if err != nil || bytes.Count(out, []byte("\n")) != len(ids) {
			t.Fatalf("%v: %s", err, out)
		}
		list += string(out)
	}
	file := filepath.Join(t.TempDir(), "protected")
	if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := s.cli(t, "protected", "load", file, "--reason", "a test"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	eventually(t, 60*time.Second, "every sidecar has the list", func() bool {
		paths, _ := filepath.Glob(filepath.Join(s.dir, "log", "sidecar-*.log"))
		for _, p := range paths {
			if text, err := os.ReadFile(p); err != nil || !bytes.Contains(text, []byte("protected clients read")) {
				return false
			}
		}
		return len(paths) >= len(s.info.SidecarDebug)
	})
}
