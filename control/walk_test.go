package control_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/sample"
)

var update = flag.Bool("update", false, "write testdata anew")

// The walk: every state of a registration and of a certification, times every
// command there is an address for, times everybody there is, over HTTP. The
// states come from their own words, the commands from the description, those who
// may from the description and the domain's table; none of them is written here,
// so that what is added without a row in the table, or without a fixture, fails.

// walkers are everybody: each permission alone, and two of developers. The
// product and the entity that are walked are Ironbark's.
var walkers = map[string]string{
	operator2: "operator", officer: "incident-officer", registrar: "registrar", assessor: "assessor", auditor: "auditor",
	"dev@ironbark.example": "owner", "dev@galah.example": "other",
}

// commandOf is the table's word for an operation whose ID is not that word.
var commandOf = map[string]string{
	"revise-registration": "revise", "submit-registration": "submit", "withdraw-registration": "withdraw", "ask-applicant": "ask", "reply-to-question": "reply",
	"tell-entity-change": "tell-change", "confirm-entity-changes": "confirm-change", "answer-entity-review": "answer-review", "cancel-entity": "cancel",
	"begin-certification": "begin", "describe-deployment": "describe", "answer-questions": "answer", "submit-certification": "submit",
	"recall-certification": "recall", "send-back-certification": "send-back", "approve-certification": "approve", "approve-interim": "interim",
	"answer-certification-review": "answer-review", "tell-product-change": "tell-change",
}

// machine is one workflow as it is walked.
type machine struct {
	name   string
	id     string // of the thing that is walked
	states []string
	// next are the commands that the domain's table lets somebody give in a state.
	next func(who string, state string) []string
	// place puts the thing into a state with all that a command needs.
	place func(state, command string)
	// body is one that is good in that state.
	body func(state, command string) string
	// state reads the state over the API.
	state func() string
}

// commands are the operations of the workflow, by the table's word.
func (m *machine) commands(ops []operation) map[string]operation {
	out := map[string]operation{}
	for _, op := range ops {
		if op.method == "GET" || !strings.HasPrefix(op.path, "/v1/"+m.name+"s/{") && op.path != "/v1/"+m.name+"s" {
			continue
		}
		word, ok := commandOf[op.id]
		if !ok {
			word = op.id
		}
		out[word] = op
	}
	return out
}

// all are the commands that somebody may give in some state; of everybody when
// who is "".
func (m *machine) all(who string) map[string]bool {
	out := map[string]bool{}
	for _, name := range walkers {
		for _, s := range m.states {
			if who == "" || who == name {
				for _, c := range m.next(name, s) {
					out[c] = true
				}
			}
		}
	}
	return out
}

// inState are the commands there are in a state, whoever gives them.
func (m *machine) inState(state string) []string {
	out := map[string]bool{}
	for _, who := range walkers {
		for _, c := range m.next(who, state) {
			out[c] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}

var nextWords = regexp.MustCompile(`(?i)the \w+ is (\w+)(?:; next may be ([a-z, -]+)|, which is an end state)\.?$`)

// walk gives every command in every state as everybody, and returns what each
// that is allowed leads to, a line each.
func (m *machine) walk(t *testing.T, w *world) (lines []string) {
	t.Helper()
	commands := m.commands(operations(t, w))
	if d := cmp.Diff(slices.Sorted(maps.Keys(m.all(""))), slices.Sorted(maps.Keys(commands))); d != "" {
		t.Fatalf("%s: the table of commands and the description differ (-table +description):\n%s", m.name, d)
	}
	tried := 0
	for _, state := range m.states {
		for command, op := range commands {
			placed := registry.Revision(0)
			var by []string
			after := ""
			for _, who := range slices.Sorted(maps.Keys(walkers)) {
				if at := w.revision(t); at != placed {
					m.place(state, command)
					placed = w.revision(t)
				}
				path := strings.NewReplacer("{abn}", m.id, "{id}", m.id).Replace(op.path)
				r := w.call(who, op.method, path, m.body(state, command))
				tried++
				if m.judge(t, r, walkers[who], state, command) {
					by = append(by, walkers[who])
					if now := m.state(); after != "" && now != after {
						t.Errorf("%s %s, %s leads to %s or %s", m.name, state, command, after, now)
					} else {
						after = now
					}
				} else if w.revision(t) != placed {
					t.Errorf("%s %s, %s by %s: refused (%d), and something changed", m.name, state, command, walkers[who], r.status)
				}
			}
			if len(by) > 0 {
				lines = append(lines, fmt.Sprintf("%s %s, %s by %s: %s", m.name, state, command, strings.Join(by, " "), after))
			}
		}
	}
	t.Logf("%s: %d combinations over HTTP", m.name, tried)
	return lines
}

// judge holds an answer to the table; true when the command was carried out.
func (m *machine) judge(t *testing.T, r reply, who, state, command string) bool {
	t.Helper()
	what := fmt.Sprintf("%s %s, %s by %s", m.name, state, command, who)
	apply := m.name == "registration" && command == "apply"
	switch {
	case who == "other" && !apply:
		if r.status != 404 && r.status != 403 {
			t.Errorf("%s: %s, want 404 or 403", what, r)
		}
	case who == "other": // somebody else's ABN
		if r.status != 409 && r.status != 403 {
			t.Errorf("%s: %s, want 409", what, r)
		}
	case !m.all(who)[command]:
		if e := r.refused(t, 403, "forbidden"); e.Detail == "" {
			t.Errorf("%s: no sentence", what)
		}
	case !slices.Contains(m.next(who, state), command):
		e := r.refused(t, 409, "state-conflict")
		found := nextWords.FindStringSubmatch(e.Detail)
		if found == nil || found[1] != state {
			t.Errorf("%s: %q does not name the state and what may be done next", what, e.Detail)
			return false
		}
		var said []string
		if found[2] != "" {
			said = strings.Split(found[2], ", ")
		}
		slices.Sort(said)
		if !slices.Equal(said, m.inState(state)) {
			t.Errorf("%s: next may be %v, told %v", what, m.inState(state), said)
		}
	default:
		if r.status != 200 && r.status != 201 {
			t.Errorf("%s: %s, want it done", what, r)
		}
		return r.status < 300
	}
	return false
}

// actorOf is a walker as the domain's table sees it.
func actorOf(who string) (registry.Actor, bool) {
	if who == "owner" {
		return registry.Actor{Name: "dev@ironbark.example", Permissions: registry.PermDeveloper, Entity: sample.Ironbark}, true
	}
	p, _ := registry.ParsePermission(who)
	return registry.Actor{Name: who, Permissions: p}, false
}

// put changes the register by the store's own means.
func (w *world) put(t *testing.T, plan func(*registry.Tx) error) {
	t.Helper()
	if _, err := w.reg.Do(context.Background(), registry.Actor{Name: "test"}, "place", "", plan); err != nil {
		t.Fatal(err)
	}
}

// words are all there are of a closed vocabulary.
func words[S interface {
	~uint8
	fmt.Stringer
}]() (all []string) {
	for s := S(0); s.String() != ""; s++ {
		all = append(all, s.String())
	}
	return all
}

func parsed[S any, P interface {
	*S
	UnmarshalText([]byte) error
}](t *testing.T, word string) (s S) {
	t.Helper()
	if err := P(&s).UnmarshalText([]byte(word)); err != nil {
		t.Fatal(err)
	}
	return s
}

const walkedForm = `{"name":"Ironbark Ledger","roles":["D"],"applicant":{"name":"Ira","email":"dev@ironbark.example","authority":"director"},
	"principals":[{"id":"P1","name":"Ira","consented_at":"2026-01-01T00:00:00Z"}],
	"contacts":[{"for":"security","name":"N","email":"n@ironbark.example"},{"for":"privacy","name":"N","email":"n@ironbark.example"},{"for":"responsible","name":"N","email":"n@ironbark.example"}],
	"purpose":"lodge","intent":"sell"}`

// registrationMachine walks Ironbark's registration.
func registrationMachine(t *testing.T, w *world) *machine {
	var form casework.Form
	if err := json.Unmarshal([]byte(walkedForm), &form); err != nil {
		t.Fatal(err)
	}
	m := &machine{name: "registration", id: sample.Ironbark.String(), states: words[registry.EntityState]()}
	m.next = func(who, state string) []string {
		a, own := actorOf(who)
		return casework.NextForEntity(a, parsed[registry.EntityState](t, state), own)
	}
	m.state = func() string {
		var x struct{ State string }
		w.call(auditor, "GET", "/v1/registrations/"+m.id, nil).data(t, 200, &x)
		return x.State
	}
	m.place = func(state, command string) {
		now := registry.At(time.Now())
		r := casework.Registration{ABN: sample.Ironbark, AppliedBy: "dev@ironbark.example", Form: form, Accepted: []casework.Acceptance{{Version: "2026.1", Name: "Ira", At: now}}}
		check := casework.CheckRun{Name: "tax-obligations", Subject: "entity", State: casework.CheckAsked}
		switch command {
		case "admit":
			check.State, check.Expires = casework.CheckPassed, now+1e9
		case "reply":
			r.Questions = []casework.Question{{Text: "Who?", At: now}}
		case "confirm-change":
			r.Changes = []casework.EntityChange{{At: now, Name: "Ironbark Books"}}
		case "answer-review":
			r.Review = casework.Review{Opened: now}
		case "cancel":
			r.Ending = &casework.Ending{By: "another", At: now, Reason: "because"}
		}
		r.Checks = []casework.CheckRun{check}
		w.put(t, func(t *registry.Tx) error {
			if err := registry.PutCase(t, m.id, r); err != nil {
				return err
			}
			e := *t.View().Entity(sample.Ironbark)
			e.Name, e.State = form.Name, registry.EntityDraft
			_ = e.State.UnmarshalText([]byte(state)) // one of the words themselves
			late := registry.Product{ID: "FP-1902", Name: "Entered without test environments", Owner: sample.Ironbark}
			if err := t.PutProduct(late); err != nil {
				return err
			}
			return t.PutEntity(e)
		})
	}
	m.body = func(_, command string) string {
		return map[string]string{
			"apply": `{"abn":"` + m.id + `","form":` + walkedForm + `}`, "revise": `{"form":` + walkedForm + `}`,
			"submit": `{"terms_version":"2026.1","name":"Ira"}`, "accept-terms": `{"terms_version":"2026.1","name":"Ira"}`,
			"add-product": `{"name":"Second","scenario":1}`, "open-test": `{"product_id":"FP-1902"}`,
			"ask": `{"question":"Who?"}`, "reply": `{"answer":"We."}`, "record-check": `{"check":"tax-obligations","outcome":"pass","source":"seen"}`,
			"reject": `{"trigger":"purpose-or-intent"}`, "tell-change": `{"note":"moved"}`, "answer-review": `{"note":"as before"}`, "cancel": `{"reason":"because"}`,
			"withdraw": `{}`, "admit": `{}`, "confirm-change": `{}`,
		}[command]
	}
	return m
}

// certificationMachine walks the certification of Ironbark's product.
func certificationMachine(t *testing.T, w *world) *machine {
	const id, owner = "FP-1002", "dev@ironbark.example"
	m := &machine{name: "certification", id: id, states: words[registry.CertState]()}
	m.next = func(who, state string) []string {
		a, own := actorOf(who)
		return casework.NextForProduct(a, parsed[registry.CertState](t, state), own)
	}
	m.state = func() string {
		var x struct{ Certification struct{ State string } }
		w.call(auditor, "GET", "/v1/certifications/"+id, nil).data(t, 200, &x)
		return x.Certification.State
	}
	whole := w.answeredWhole(t, id, owner)
	ids := authz.NewIDs()
	called := func(env registry.Environment) string {
		d := ids.Next(time.Now())
		w.records[d] = authz.Record{ID: d, ProductID: id, Reason: authz.OK, At: registry.At(time.Now()), Environment: env, Service: "as.0004.submit"}
		return d.String()
	}
	evte, prod := called(registry.EVTE), called(registry.PROD)
	m.place = func(state, command string) {
		w.put(t, func(t *registry.Tx) error {
			c, p := placedCertification(t.Now(), whole, *t.View().Product(id), state, command)
			if err := registry.PutCase(t, id, c); err != nil {
				return err
			}
			return t.PutProduct(p)
		})
		w.closeVerifications(t, id) // of the step before: they would stand in the way
	}
	m.body = func(state, command string) string {
		basis := "conditional"
		if state == "Draft" {
			basis = "grandfathered"
		}
		deployment := `{"commercial":true,"hosting":"onshore","authentication":"passkeys","services":["as.0004.submit"]}`
		body, ok := map[string]string{
			"describe": deployment, "tell-change": deployment, "answer": `{"answers":{"OSF-AUT.1":{"values":[]}}}`,
			"request-exception": `{"requirement":"OSF-MON","compensating_control":"x","expires_at":"` + registry.At(time.Now().AddDate(0, 1, 0)).String() + `"}`,
			"approve-exception": `{"requirement":"OSF-AUT"}`, "submit": `{"name":"Ira"}`, "send-back": `{"reason":"because"}`,
			"conform": `{"decisions":["` + evte + `"]}`, "pass-scenario": `{"decisions":["` + prod + `"]}`, "approve-high-risk": `{"services":["as.0004.get"]}`,
			"pilot": `{"named_clients":["56000001313"]}`, "interim": `{"basis":"` + basis + `","owed":["OSF-AUT"],"services":["as.0004.submit"]}`,
			"restrict": `{"max_risk":1,"reason":"because"}`, "request-review": `{"reason":"because"}`, "answer-review": `{"note":"as before"}`,
			"announce-suspension": `{"reason":"because"}`, "delist": `{"reason":"because"}`,
			"begin": `{}`, "recall": `{}`, "start-verification": `{}`, "approve": `{}`, "reinstate": `{}`,
		}[command]
		if !ok {
			t.Fatalf("no body for %s", command)
		}
		return body
	}
	return m
}

// placedCertification is a case and its product in a state, with what a command needs.
func placedCertification(now registry.Time, c casework.Certification, p registry.Product, state, command string) (casework.Certification, registry.Product) {
	services := []string{"as.0004.submit"}
	_ = p.Certification.State.UnmarshalText([]byte(state))
	p.Certification = registry.Certification{State: p.Certification.State, ValidFrom: now - 1000, ValidUntil: now + 1e9}
	c.Conformance = []casework.Run{{At: now, Passed: services}}
	c.Exceptions = []certification.Exception{{Requirement: "OSF-AUT", Control: "x", Expires: now.Std().AddDate(0, 1, 0), RequestedBy: "another"}}
	c.Declared = &casework.Declaration{Name: "Ira", At: now}
	c.Services = services
	switch state {
	case "PVT":
		c.Pilot, c.Services = &casework.PilotTerms{Services: services, Clients: []registry.ABN{sample.Possum}, Until: now + 1e9, Passed: services}, nil
	case "Interim":
		c.Interim = &casework.InterimTerms{Basis: "grandfathered", Owed: []string{"OSF-AUT"}, Until: now + 1e9}
	case "Restricted":
		c.Before, p.Certification.MaxRisk = registry.CertWhitelisted, 2
	case "ReviewDue":
		c.Before, c.Review = registry.CertWhitelisted, casework.Review{Opened: now, AnswerBy: now + 1e9}
	}
	switch command {
	case "answer", "submit":
		if state != "Draft" {
			c.Reopened, c.ShowBy = []string{"OSF-AUT"}, map[string]registry.Time{"OSF-AUT": now + 1e9}
		}
	case "approve":
		if state == "ReviewDue" {
			c.Review.Answered = now
		}
	case "reinstate":
		c.NoticeID = "NT-1"
	case "delist":
		c.Ending = &casework.Ending{By: "another", At: now, Reason: "because"}
	}
	return c, p
}

// The walk itself. What every command leads to stands in testdata/walk.txt.
func TestEveryStateTimesCommandTimesRoleOverHTTP(t *testing.T) {
	w := retried(newWorld(t))
	for _, role := range rolesOf(operations(t, w)) {
		if !slices.Contains(slices.Collect(maps.Values(walkers)), strings.Replace(role, "developer", "owner", 1)) {
			t.Errorf("nobody walks as %s", role)
		}
	}
	lines := certificationMachine(t, w).walk(t, w) // first: its owner has to be Registered
	lines = append(lines, registrationMachine(t, w).walk(t, w)...)
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile("testdata/walk.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/walk.txt")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("what commands lead to changed (-want +got); look, and run with -update:\n%s", d)
	}
}

// rolesOf are those that the description names.
func rolesOf(ops []operation) []string {
	all := map[string]bool{}
	for _, op := range ops {
		if named, ok := strings.CutPrefix(op.description, "For: "); ok && !strings.HasPrefix(named, "people ") {
			named, _, _ = strings.Cut(named, ".")
			for _, role := range strings.Split(named, ", ") {
				all[role] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
