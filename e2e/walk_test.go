package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/control/controltest"
)

// stroll takes one thing from state to state by the API, and looks after each
// step what its calls meet at Envoy.
type stroll struct {
	*stack
	t        *testing.T
	workflow string // certification or registration
	id       string
	seen     map[string]bool // "command after" of each step
	state    string
	revision int64 // of the last step
}

const (
	lodgedPath = lodge + "/AS-1" // rating 3
	bakery     = "56000001313"
)

// personToken is the token of one of the demo's people.
func (s *stack) personToken(t *testing.T, who string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "key", "people", who))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// do sends one request to the control plane, as often as it says that it cannot
// just now, and takes "data" apart.
func (s *stroll) do(token, method, path string, body, data any) (tag string) {
	s.t.Helper()
	raw, isText := body.(string)
	if !isText && body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		raw = string(b)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		req, err := http.NewRequest(method, s.info.Control+path, strings.NewReader(raw))
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		if isText {
			req.Header.Set("Content-Type", "application/octet-stream")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch {
		case err != nil:
			s.t.Fatal(err)
		case resp.StatusCode == http.StatusServiceUnavailable && time.Now().Before(deadline):
			continue
		case resp.StatusCode >= 300:
			s.t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, b)
		}
		if data != nil {
			if err := json.Unmarshal(b, &struct {
				Data any `json:"data"`
			}{data}); err != nil {
				s.t.Fatalf("%s %s: %v in %.300s", method, path, err, b)
			}
		}
		return resp.Header.Get("ETag")
	}
}

// step gives one command, notes what it led to, and waits until the sidecars
// hold it.
func (s *stroll) step(token, command, path string, body any) {
	s.t.Helper()
	at := "/v1/" + s.workflow + "s/" + s.id
	to := at + "/" + path
	if command == "apply" {
		to = "/v1/registrations"
	}
	s.do(token, "POST", to, body, nil)
	var x struct {
		State         string
		Certification struct{ State string }
	}
	tag := s.do(s.info.AssessorToken, "GET", at, nil, &x)
	if s.workflow == "certification" {
		x.State = x.Certification.State
	}
	if s.state = x.State; s.seen != nil {
		s.seen[command+" "+x.State] = true
	}
	if _, err := fmt.Sscanf(strings.Trim(tag, `W/"`), "%d", &s.revision); err != nil {
		s.t.Fatalf("%s: the ETag %q is no revision: %v", to, tag, err)
	}
	s.settled()
}

// settled waits until every sidecar holds the last step.
func (s *stroll) settled() {
	s.t.Helper()
	eventually(s.t, time.Minute, "the sidecars hold the change", func() bool {
		var all []struct{ Revision int64 }
		s.do(s.info.OperatorToken, "GET", "/v1/sidecars", nil, &all)
		for _, x := range all {
			if x.Revision < s.revision {
				return false
			}
		}
		return len(all) > 0
	})
}

// meets calls through Envoy and wants a code ("ok" for an answer of the upstream),
// whatever the rates of a pilot and a busy machine put before it.
func (s *stroll) meets(want, method, path, clientID string, edit func(map[string]any), header http.Header) reply {
	s.t.Helper()
	tok := s.token(s.t, func(c map[string]any) {
		c["client_id"], c["sub"], c["abn"] = clientID, clientID, "86000000303"
		delete(c, "software_id")
		delete(c, "client_abn")
		if edit != nil {
			edit(c)
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		r := s.ask(s.t, method, path, tok, header)
		got := r.code()
		if r.status == 200 {
			got = "ok"
		}
		if (got == "rate-limited" || r.status == 503) && got != want && time.Now().Before(deadline) {
			continue
		}
		if got != want {
			s.t.Errorf("%s %s is %s: %s %s as %s meets %s, want %s", s.workflow, s.id, s.state, method, path, clientID, r, want)
		}
		return r
	}
}

func onBehalf(abn, ssid string) func(map[string]any) {
	return func(c map[string]any) {
		c["client_abn"] = abn
		if ssid != "" {
			c["software_id"] = ssid
		}
	}
}

// production wants what a lodgment (rating 2) and a read (rating 3) meet.
func (s *stroll) production(lodged, read string) {
	s.t.Helper()
	app := strings.ToLower(s.id) + "-prod"
	s.meets(lodged, "POST", lodge, app, onBehalf(bakery, "0000310101"), nil)
	s.meets(read, "GET", lodgedPath, app, onBehalf(bakery, "0000310101"), nil)
}

// recorded calls services and waits until the decisions are on record.
func (s *stroll) recorded(header http.Header, app string, edit func(map[string]any)) (ids []string) {
	s.t.Helper()
	for method, path := range map[string]string{"POST": lodge, "GET": lodgedPath} {
		r := s.meets("ok", method, path, app, edit, header)
		var echo struct {
			Headers map[string]any
		}
		if err := json.Unmarshal(r.body, &echo); err != nil {
			s.t.Fatal(err)
		}
		id := regexp.MustCompile(`"x-dsp-decision-id":"([^"]+)"`).FindSubmatch(bytes.ReplaceAll(r.body, []byte(" "), nil))
		if id == nil {
			s.t.Fatalf("no decision in %s", r.body)
		}
		ids = append(ids, string(id[1]))
	}
	for _, id := range ids {
		eventually(s.t, time.Minute, "the decision is recorded", func() bool {
			return s.stack.api(s.t, s.info.OperatorToken, "GET", "/v1/decisions/"+id, nil, nil) == 200
		})
	}
	return ids
}

// stepped fails when the walk of package control knows a command that leads to
// another state, and no step here took it.
func (s *stroll) stepped() {
	s.t.Helper()
	b, err := os.ReadFile("../control/testdata/walk.txt")
	if err != nil {
		s.t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^` + s.workflow + ` (\w+), ([a-z-]+) by [a-z -]+: (\w+)$`)
	n := 0
	for _, m := range line.FindAllStringSubmatch(string(b), -1) {
		if n++; m[1] != m[3] && !s.seen[m[2]+" "+m[3]] {
			s.t.Errorf("%s leads from %s to %s, which nobody looked at through Envoy", m[2], m[1], m[3])
		}
	}
	if n < 20 {
		s.t.Errorf("only %d rows of %s in the walk", n, s.workflow)
	}
}

// Every state of a certification, and every command that leads to one, as a
// caller meets it.
func TestEveryStateOfACertificationAtEnvoy(t *testing.T) {
	s := &stroll{stack: sharedStack(t), t: t, workflow: "certification", id: "FP-3101", seen: map[string]bool{}}
	owner, assessor, assessor2 := s.personToken(t, "86000000303"), s.info.AssessorToken, s.personToken(t, "assessor2")
	registrar := s.info.OperatorToken
	evte := http.Header{"Host": {"evte.localhost"}}
	s.do(registrar, "POST", "/v1/products", map[string]any{"id": s.id, "name": "Ironbark Stroll", "owner": "86000000303", "scenario": 2}, nil)
	for _, env := range []string{"EVTE", "PROD"} {
		s.do(registrar, "POST", "/v1/client-apps", map[string]any{"client_id": "fp-3101-" + strings.ToLower(env), "product_id": s.id, "environment": env}, nil)
	}
	for _, service := range []string{"as.0004.submit", "as.0004.get"} {
		s.do(assessor, "PUT", "/v1/products/"+s.id+"/entitlements/EVTE/"+service, map[string]any{}, nil)
	}
	s.do(registrar, "POST", "/v1/subscriptions", map[string]any{"ssid": "0000310101", "product_id": s.id, "client_abn": bakery, "nominated": true}, nil)

	// Draft, SelfCertified, InVerification: production is closed, the test environment open.
	closed := func() {
		t.Helper()
		s.production("product-not-whitelisted", "product-not-whitelisted")
		s.meets("ok", "POST", lodge, "fp-3101-evte", nil, evte)
	}
	s.step(owner, "begin", "begin", map[string]any{})
	s.step(owner, "describe", "describe", map[string]any{"commercial": true, "hosting": "onshore", "authentication": "passkeys", "services": []string{"as.0004.submit", "as.0004.get"}})
	closed()
	s.answerAll(owner)
	sign := map[string]any{"name": "Ira Ironbark"}
	s.step(owner, "submit", "submit", sign)
	closed()
	s.step(owner, "recall", "recall", map[string]any{})
	closed()
	s.step(owner, "submit", "submit", sign)
	s.step(assessor, "send-back", "send-back", map[string]any{"reason": "look again"})
	closed()
	s.step(owner, "submit", "submit", sign)
	s.step(assessor, "start-verification", "start-verification", map[string]any{})
	closed()
	s.verify(assessor)
	s.step(owner, "conform", "conformance-runs", map[string]any{"decisions": s.recorded(evte, "fp-3101-evte", nil)})
	s.step(assessor2, "approve-high-risk", "approve-high-risk", map[string]any{"services": []string{"as.0004.get"}})

	// PVT: for the client named.
	s.step(assessor, "pilot", "pilot", map[string]any{"named_clients": []string{bakery}})
	s.production("ok", "ok")
	s.meets("pvt-client-not-named", "POST", lodge, "fp-3101-prod", onBehalf("18000000505", ""), nil)
	s.step(owner, "pass-scenario", "scenarios", map[string]any{"decisions": s.recorded(nil, "fp-3101-prod", onBehalf(bakery, "0000310101"))})
	restrict := map[string]any{"max_risk": 2, "reason": "a leak"}
	s.step(assessor, "restrict", "restrict", restrict)
	s.production("ok", "product-restricted")
	s.meets("pvt-client-not-named", "POST", lodge, "fp-3101-prod", onBehalf("18000000505", ""), nil)
	s.step(assessor, "reinstate", "reinstate", map[string]any{})
	s.production("ok", "ok")

	// Interim, and through a restriction back to it, then Whitelisted.
	s.step(assessor, "interim", "interim", map[string]any{"basis": "conditional", "owed": []string{"OSF-MON"}})
	s.production("ok", "ok")
	s.step(assessor, "restrict", "restrict", restrict)
	s.production("ok", "product-restricted")
	s.step(assessor, "reinstate", "reinstate", map[string]any{})
	s.production("ok", "ok")
	s.step(owner, "submit", "submit", sign)
	s.step(assessor, "approve", "approve", map[string]any{})
	s.production("ok", "ok")
	s.step(assessor, "restrict", "restrict", restrict)
	s.step(assessor, "reinstate", "reinstate", map[string]any{}) // to Whitelisted
	s.production("ok", "ok")

	// ReviewDue goes on; the review of what is restricted gives nothing back.
	review := map[string]any{"reason": "out of turn"}
	s.step(assessor, "request-review", "request-review", review)
	s.production("ok", "ok")
	s.step(owner, "answer-review", "answer-review", map[string]any{"note": "as before"})
	s.step(assessor, "approve", "approve", map[string]any{})
	s.step(assessor, "restrict", "restrict", restrict)
	s.step(assessor, "request-review", "request-review", review)
	s.production("ok", "product-restricted")
	s.step(owner, "answer-review", "answer-review", map[string]any{"note": "as before"})
	s.step(assessor, "approve", "approve", map[string]any{})
	s.production("ok", "ok")

	// A suspension that is announced changes nothing before its day; an operator's does at once.
	s.step(assessor, "announce-suspension", "announce-suspension", map[string]any{"reason": "nobody answers"})
	s.production("ok", "ok")
	s.step(assessor, "reinstate", "reinstate", map[string]any{})
	x := s.suspend(t, "product", s.id, nil)
	s.production("product-suspended", "product-suspended")
	s.lift(t, x.ID)
	s.production("ok", "ok")

	s.versions(registrar)
	s.clientAppsAndSubscriptions(registrar)

	// Delisted, by two, in every environment.
	s.step(assessor, "delist", "delist", map[string]any{"reason": "given up"})
	s.production("ok", "ok")
	s.step(assessor2, "delist", "delist", map[string]any{"reason": "given up"})
	s.production("product-delisted", "product-delisted")
	s.meets("product-delisted", "POST", lodge, "fp-3101-evte", nil, evte)
	s.stepped()
}

// answerAll hands evidence of every type in and answers all that is asked.
func (s *stroll) answerAll(owner string) {
	s.t.Helper()
	var evidence []string
	for query, content := range controltest.Evidence(s.id) {
		var e struct{ Address string }
		s.do(owner, "POST", "/v1/products/"+s.id+"/evidence?"+query, content, &e)
		evidence = append(evidence, e.Address)
	}
	tried := map[string]int{}
	for range 40 {
		var m struct{ Questions []controltest.Asked }
		s.do(owner, "GET", "/v1/certifications/"+s.id+"/questions", nil, &m)
		answers := controltest.Answers(m.Questions, evidence, tried, nil)
		if len(answers) == 0 {
			return
		}
		s.do(owner, "POST", "/v1/certifications/"+s.id+"/answers", map[string]any{"answers": answers}, nil)
	}
	s.t.Fatalf("%s: the questions never pass", s.id)
}

// verify looks at every requirement of the open verification and closes it.
func (s *stroll) verify(assessor string) {
	s.t.Helper()
	var x struct {
		Case struct {
			Verification string `json:"verification_id"`
		}
	}
	s.do(assessor, "GET", "/v1/certifications/"+s.id, nil, &x)
	at := "/v1/verifications/" + x.Case.Verification
	var v struct {
		Tests []struct{ Requirement string }
	}
	s.do(assessor, "GET", at, nil, &v)
	for _, test := range v.Tests {
		s.do(assessor, "POST", at+"/tests", map[string]any{"requirement": test.Requirement, "method": "documents-read", "outcome": "pass"}, nil)
	}
	s.do(assessor, "POST", at+"/close", map[string]any{"summary": "all of it is there"}, nil)
}

// until waits until a call meets what it should: after changes that are not of
// the case itself.
func (s *stroll) until(want, method, path, clientID string, edit func(map[string]any), header http.Header) {
	s.t.Helper()
	tok := s.token(s.t, func(c map[string]any) {
		c["client_id"], c["sub"], c["abn"] = clientID, clientID, "86000000303"
		delete(c, "software_id")
		delete(c, "client_abn")
		if edit != nil {
			edit(c)
		}
	})
	eventually(s.t, time.Minute, clientID+" meets "+want, func() bool {
		r := s.ask(s.t, method, path, tok, header)
		return r.code() == want || want == "ok" && r.status == 200
	})
}

// versions are registered, blocked, past their support, suspended, and none of these.
func (s *stroll) versions(registrar string) {
	s.t.Helper()
	at := "/v1/products/" + s.id + "/versions"
	call := func(want, version string) {
		s.t.Helper()
		s.until(want, "POST", lodge, "fp-3101-prod", onBehalf(bakery, "0000310101"), http.Header{"X-Product-Version": {version}})
	}
	call("version-not-registered", "1.0")
	s.do(registrar, "POST", at, map[string]any{"version": "1.0"}, nil)
	call("ok", "1.0")
	s.do(registrar, "PUT", at+"/1.0", map[string]any{"state": "blocked"}, nil)
	call("version-blocked", "1.0")
	s.do(registrar, "PUT", at+"/1.0", map[string]any{"state": "active", "support_until": time.Now().Add(-time.Minute)}, nil)
	call("version-unsupported", "1.0")
	s.do(registrar, "PUT", at+"/1.0", map[string]any{"state": "active"}, nil)
	call("ok", "1.0")
	x := s.suspend(s.t, "version", s.id+"@1.0", nil)
	call("version-blocked", "1.0")
	s.lift(s.t, x.ID)
	call("ok", "1.0")
}

// clientAppsAndSubscriptions are there or not, disabled, suspended, nominated or not.
func (s *stroll) clientAppsAndSubscriptions(registrar string) {
	s.t.Helper()
	own := onBehalf(bakery, "0000310101")
	s.until("client-unknown", "POST", lodge, "fp-3101-none", own, nil)
	s.do(registrar, "PUT", "/v1/client-apps/fp-3101-prod", map[string]any{"disabled": true}, nil)
	s.until("client-unknown", "POST", lodge, "fp-3101-prod", own, nil)
	s.do(registrar, "PUT", "/v1/client-apps/fp-3101-prod", map[string]any{"disabled": false}, nil)
	s.until("ok", "POST", lodge, "fp-3101-prod", own, nil)
	x := s.suspend(s.t, "client-app", "fp-3101-prod", nil)
	s.until("credential-blocked", "POST", lodge, "fp-3101-prod", own, nil)
	s.lift(s.t, x.ID)
	s.until("ok", "POST", lodge, "fp-3101-prod", own, nil)

	other := onBehalf("18000000505", "0000310102")
	s.until("subscription-not-nominated", "POST", lodge, "fp-3101-prod", other, nil)
	s.do(registrar, "POST", "/v1/subscriptions", map[string]any{"ssid": "0000310102", "product_id": s.id, "client_abn": "18000000505"}, nil)
	s.until("subscription-not-nominated", "POST", lodge, "fp-3101-prod", other, nil)
	s.do(s.personToken(s.t, "86000000303"), "POST", "/v1/subscriptions/0000310102/nominate", map[string]any{"nominated": true}, nil)
	s.until("ok", "POST", lodge, "fp-3101-prod", other, nil)
	x = s.suspend(s.t, "subscription", "0000310102", nil)
	s.until("subscription-blocked", "POST", lodge, "fp-3101-prod", other, nil)
	s.until("ok", "POST", lodge, "fp-3101-prod", own, nil)
	s.lift(s.t, x.ID)
	s.do(registrar, "POST", "/v1/subscriptions/0000310102/nominate", map[string]any{"nominated": false}, nil)
	s.until("subscription-not-nominated", "POST", lodge, "fp-3101-prod", other, nil)
}

// Every state of a registration, and every command that leads to one, as the
// entity's product meets it in the test environment; and Lapsed, to which a year
// without an answer leads. In a demo of its own, whose days are short.
func TestEveryStateOfARegistrationAtEnvoy(t *testing.T) {
	t.Setenv("DSPGATE_CASEWORK_STANDARDS_ANNUAL", "5s")
	s := &stroll{stack: ownStack(t, "--day", "20ms"), t: t, workflow: "registration", id: "22000001414", seen: map[string]bool{}}
	registrar, second := s.info.OperatorToken, s.info.Operator2Token
	evte := http.Header{"Host": {"evte.localhost"}}
	form := func(name string) map[string]any {
		contact := func(what string) map[string]any {
			return map[string]any{"for": what, "name": "Edna", "email": what + "@echidna.example"}
		}
		return map[string]any{"name": name, "roles": []string{"D"}, "applicant": map[string]any{"name": "Edna", "email": "edna@echidna.example", "authority": "director"},
			"principals": []any{map[string]any{"id": "P1", "name": "Edna", "consented_at": "2026-01-01T00:00:00Z"}},
			"contacts":   []any{contact("security"), contact("privacy"), contact("responsible")}, "purpose": "Lodge", "intent": "Lodge more",
			"product": map[string]any{"name": name, "scenario": 2}}
	}
	apply := func() {
		t.Helper()
		s.step(registrar, "apply", "", map[string]any{"abn": s.id, "form": form("Echidna Foods")})
	}
	submit := func() {
		t.Helper()
		s.step(registrar, "submit", "submit", map[string]any{"terms_version": "2026.1", "name": "Edna"})
	}
	var product struct {
		Case struct {
			Product string `json:"product_id"`
			Checks  []struct{ Name, Subject string }
		}
	}
	checks := func() {
		t.Helper()
		s.do(registrar, "GET", "/v1/registrations/"+s.id, nil, &product)
		for _, c := range product.Case.Checks {
			subject := c.Subject
			if subject == "entity" {
				subject = ""
			}
			s.step(registrar, "record-check", "checks", map[string]any{"check": c.Name, "subject": subject, "outcome": "pass", "source": "seen"})
		}
	}
	meets := func(want string) {
		t.Helper()
		app := "fp-none-evte"
		if product.Case.Product != "" {
			app = strings.ToLower(product.Case.Product) + "-evte"
		}
		s.meets(want, "POST", lodge, app, func(c map[string]any) { c["abn"] = s.id }, evte)
	}
	// Before it was ever registered there is no client app at all.
	apply()
	meets("client-unknown")
	submit()
	meets("client-unknown")
	s.step(registrar, "withdraw", "withdraw", map[string]any{})
	meets("client-unknown")
	submit()
	s.step(registrar, "reject", "reject", map[string]any{"trigger": "purpose-or-intent"})
	meets("client-unknown")
	apply()
	submit()
	checks()
	meets("client-unknown")
	s.step(registrar, "withdraw", "withdraw", map[string]any{})
	submit()
	checks()
	s.step(registrar, "admit", "admit", map[string]any{})
	s.do(registrar, "GET", "/v1/registrations/"+s.id, nil, &product)
	// Registered: until the review, which nobody answers, is over.
	app := strings.ToLower(product.Case.Product) + "-evte"
	s.until("entity-not-registered", "POST", lodge, app, func(c map[string]any) { c["abn"] = s.id }, evte)
	var now struct{ State string }
	s.do(registrar, "GET", "/v1/registrations/"+s.id, nil, &now)
	if now.State != "Lapsed" {
		t.Errorf("a year after it was registered it is %s", now.State)
	}
	// It applies again: what it had stays closed until it is registered again.
	apply()
	meets("entity-not-registered")
	submit()
	meets("entity-not-registered")
	checks()
	meets("entity-not-registered")
	s.step(registrar, "reject", "reject", map[string]any{"trigger": "purpose-or-intent"})
	meets("entity-not-registered")
	apply()
	submit()
	checks()
	s.step(registrar, "admit", "admit", map[string]any{})
	s.step(registrar, "cancel", "cancel", map[string]any{"reason": "closed down"})
	s.step(second, "cancel", "cancel", map[string]any{"reason": "closed down"})
	meets("entity-cancelled")
	s.stepped()
}
