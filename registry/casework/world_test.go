package casework_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/outbox"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

var (
	registrar  = registry.Actor{Name: "registrar", Permissions: registry.PermRegistrar}
	registrar2 = registry.Actor{Name: "registrar2", Permissions: registry.PermRegistrar}
	assessor   = registry.Actor{Name: "assessor", Permissions: registry.PermAssessor}
	assessor2  = registry.Actor{Name: "assessor2", Permissions: registry.PermAssessor}
	none       = registry.Meta{}
)

// nobody's ABN in the sample register.
const newcomer registry.ABN = 56000001313

// world is a control plane with a desk, over a store in memory, with a clock to
// set and a checker to order.
type world struct {
	*casework.Desk
	t      testing.TB
	reg    *registry.Register
	store  *registrytest.Memory
	clock  atomic.Int64
	checks *checker
	runs   *runs

	assurance *assurance.Desk
	files     *files
	written   int
}

// files keeps no bytes: evidence is of any type it is said to be of.
type files struct {
	all map[string]certification.Evidence
}

func (f *files) Keep(_ context.Context, take func(io.Writer) (certification.Evidence, error)) (certification.Evidence, error) {
	return take(io.Discard)
}

func (f *files) Open(context.Context, string) (io.ReadSeekCloser, error) {
	return nil, registry.ErrNotFound
}

// checker answers as ordered.
type checker struct {
	mu    sync.Mutex
	fail  map[string]bool // by check
	down  bool
	asked int
}

func (c *checker) Check(_ context.Context, q casework.CheckRequest) (casework.CheckResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.down {
		return casework.CheckResult{}, errors.New("connection refused")
	}
	if c.fail[q.Check] {
		return casework.CheckResult{Outcome: casework.Failed, Source: "test"}, nil
	}
	return casework.CheckResult{Outcome: casework.Passed, Source: "test"}, nil
}

func (c *checker) set(down bool, fail ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down, c.fail = down, map[string]bool{}
	for _, f := range fail {
		c.fail[f] = true
	}
}

// runs are recorded decisions.
type runs struct {
	mu  sync.Mutex
	all []casework.Decision
}

func (r *runs) Decisions(_ context.Context, ids []string) (out []casework.Decision, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.all {
		if slices.Contains(ids, d.ID) {
			out = append(out, d)
		}
	}
	return out, nil
}

func newWorld(t testing.TB, c casework.Checker) *world {
	t.Helper()
	w := &world{t: t, store: registrytest.NewMemory(), checks: &checker{fail: map[string]bool{}}, runs: &runs{}}
	m := registry.NewMirror(w.store, registrytest.Sealer(t), registry.MirrorConfig{ID: "one", Observer: true, Now: w.now})
	w.reg = registry.NewRegister(w.store, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one", Now: w.now, ClaimTTL: time.Second, Cases: slices.Concat(casework.Types(), assurance.CaseTypes(), []registry.CaseType{registry.CaseTypeOf[outbox.Message]()})})
	if c == nil {
		c = w.checks
	}
	rules, err := certification.Default(certification.OpenDefaults())
	must(t, err)
	w.files = &files{all: map[string]certification.Evidence{}}
	w.assurance = assurance.NewDesk(assurance.Config{Register: w.reg, Rules: rules, Files: w.files, Profiles: casework.Profiles, Shares: casework.Shares, Now: w.now})
	if w.Desk, err = casework.New(w.reg, casework.Config{Checker: c, Runs: w.runs, Framework: rules, Assurance: w.assurance}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(){func() { _ = m.Run(ctx) }, func() { _ = w.reg.Run(ctx) }, func() { w.RunChecks(ctx) }} {
		wg.Go(run)
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	w.until("the control plane writes", func() bool {
		_, err := w.reg.Casebook()
		return err == nil && w.reg.Writing()
	})
	if _, err := w.reg.Import(ctx, sample.Actor(), sample.Records(w.now()), none); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }

// pass lets time go by and fires what comes due, in its order.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	w.clock.Add(int64(d))
	for {
		n, err := w.reg.FireDue(context.Background(), w.Timers())
		if err != nil {
			w.t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

func (w *world) book() *registry.Casebook {
	w.t.Helper()
	b, err := w.reg.Casebook()
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) registration(abn registry.ABN) casework.Registration {
	w.t.Helper()
	c, err := registry.CaseOf[casework.Registration](w.book(), abn.String())
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Body
}

func (w *world) certification(product string) casework.Certification {
	w.t.Helper()
	c, err := registry.CaseOf[casework.Certification](w.book(), product)
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Body
}

func (w *world) entity(abn registry.ABN) registry.EntityState {
	w.t.Helper()
	e := w.book().View.Entity(abn)
	if e == nil {
		w.t.Fatalf("no entity %s", abn)
	}
	return e.State
}

func (w *world) product(id string) *registry.Product {
	w.t.Helper()
	p := w.book().View.Product(id)
	if p == nil {
		w.t.Fatalf("no product %s", id)
	}
	return p
}

// serves is the standing of a call as a sidecar decides it.
func (w *world) serves(clientID, service string, client registry.ABN) string {
	v := w.book().View
	app := v.ClientApp(clientID)
	if app == nil {
		return "client-unknown"
	}
	p := v.Product(app.ProductID)
	q := registry.StandingQuery{App: app, Environment: app.Environment, Holder: p.Owner, Service: v.Service(service)}
	now := registry.At(w.now())
	if s := v.Standing(&q, now); s.Code != registry.Good {
		return fmt.Sprint(s.Code)
	}
	e := p.Entitled(service, app.Environment)
	switch {
	case e == nil, e.From > now, e.Until != 0 && e.Until <= now:
		return "service-not-entitled"
	case p.Certification.MaxRisk != 0 && v.Service(service).Risk > p.Certification.MaxRisk && app.Environment == registry.PROD:
		return "product-restricted"
	case e.Stage == registry.StagePVT && !slices.Contains(e.NamedClients, client):
		return "pvt-client-not-named"
	}
	return "ok"
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// did fails when a command did.
func (w *world) did(_ registry.Outcome, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// refused fails unless a command was refused so, in words that say why.
func (w *world) refused(want error, words string) func(registry.Outcome, error) {
	w.t.Helper()
	return func(_ registry.Outcome, err error) {
		w.t.Helper()
		if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), words) {
			w.t.Errorf("error %v, want %v with %q", err, want, words)
		}
	}
}

// form is a whole form.
func form(name string) casework.Form {
	return casework.Form{
		Name: name, Roles: []registry.Role{registry.RoleDeveloper, registry.RoleServiceProvider},
		Applicant:  casework.Applicant{Name: "Ada Applicant", Email: "ada@" + strings.ToLower(strings.Fields(name)[0]) + ".example", Authority: "director"},
		Principals: []casework.Principal{{ID: "P1", Name: "Pat Principal", Consented: 1_780_000_000_000}},
		Contacts: []casework.Contact{
			{For: "security", Name: "Sam", Email: "sam@" + strings.ToLower(strings.Fields(name)[0]) + ".example"},
			{For: "privacy", Name: "Pri", Email: "pri@" + strings.ToLower(strings.Fields(name)[0]) + ".example"},
			{For: "responsible", Name: "Ada", Email: "ada@" + strings.ToLower(strings.Fields(name)[0]) + ".example"},
		},
		Purpose: "Lodge activity statements", Intent: "Sell it to bakeries", Access: []string{"as.0004.submit"},
		Product: &casework.ProductForm{Name: name + " Product", Scenario: 2},
	}
}

var accepted = casework.Acceptance{Version: "2026.1", Name: "Ada Applicant"}

func developer(abn registry.ABN, name string) registry.Actor {
	return registry.Actor{Name: name, Permissions: registry.PermDeveloper, Entity: abn}
}

// admitted takes an entity from nothing to Registered and returns its product.
func (w *world) admitted(abn registry.ABN, name string) string {
	w.t.Helper()
	ctx := context.Background()
	who := developer(0, "ada@new.example")
	w.did(w.Apply(ctx, who, abn, form(name), none))
	w.did(w.Submit(ctx, who, abn, accepted, none))
	w.until("the checks are made", func() bool { return len(w.open(abn)) == 0 })
	w.did(w.Admit(ctx, registrar, abn, none))
	return w.registration(abn).Product
}

// open lists the checks that did not pass yet.
func (w *world) open(abn registry.ABN) (out []string) {
	for _, c := range w.registration(abn).Checks {
		if c.State != casework.CheckPassed {
			out = append(out, c.Name+"@"+c.Subject+" "+string(c.State))
		}
	}
	return out
}

// answers answers every question asked such that it passes, going round until
// nothing more is asked.
func (w *world) answers(who registry.Actor, product string, worse map[string]string) {
	w.t.Helper()
	ctx := context.Background()
	for range 20 {
		c := w.certification(product)
		m, _, err := w.Marking(w.book(), &c, w.product(product), w.now())
		must(w.t, err)
		next := map[string]certification.Answer{}
		for i := range m.Questions {
			q := &m.Questions[i]
			if q.Mark == certification.Pass || q.Mark == certification.Warn || q.Answer != nil && len(q.EvidenceMissing) == 0 {
				continue
			}
			if v, ok := worse[q.ID]; ok {
				if q.Answer == nil {
					next[q.ID] = certification.Answer{Values: []string{v}}
				}
				continue
			}
			best, ok := w.best(&c, product, q)
			if !ok {
				continue
			}
			next[q.ID] = best
		}
		if len(next) == 0 {
			return
		}
		w.did(w.Answer(ctx, who, product, next, none))
	}
}

// best finds an answer that passes, by trying.
func (w *world) best(c *casework.Certification, product string, q *certification.Asked) (certification.Answer, bool) {
	var tries [][]string
	switch q.Kind {
	case certification.YesNo:
		tries = [][]string{{"yes"}, {"no"}}
	case certification.Choice:
		for _, o := range q.Choices {
			tries = append(tries, []string{o.Value})
		}
	case certification.Choose:
		var all []string
		for _, o := range q.Choices {
			tries = append(tries, []string{o.Value})
			all = append(all, o.Value)
		}
		tries = append(tries, all, nil)
	case certification.Number:
		tries = [][]string{{"0"}, {"1"}, {"12"}, {"24"}, {"100"}}
	case certification.Date:
		tries = [][]string{{w.now().AddDate(0, -1, 0).Format(time.DateOnly)}, {w.now().AddDate(1, 0, 0).Format(time.DateOnly)}}
	case certification.HTTPS:
		tries = [][]string{{"https://api.product.example/"}}
	default:
		tries = [][]string{{"As our handbook says, reviewed each quarter."}}
	}
	held, err := assurance.EvidenceOf(w.book(), product)
	must(w.t, err)
	var evidence []string
	for _, e := range held {
		if !slices.Contains(evidence, e.Body.Address) && len(evidence) < 16 {
			evidence = append(evidence, e.Body.Address)
		}
	}
	var warned *certification.Answer
	for _, values := range tries {
		a := certification.Answer{Values: values}
		if q.Evidence {
			a.Evidence = evidence
		}
		if q.CheckAnswer(a) != nil {
			continue
		}
		trial := *c
		trial.Answers = map[string]certification.Answer{}
		for k, v := range c.Answers {
			trial.Answers[k] = v
		}
		trial.Answers[q.ID] = a
		m, _, err := w.Marking(w.book(), &trial, w.product(product), w.now())
		must(w.t, err)
		for i := range m.Questions {
			if m.Questions[i].ID == q.ID && m.Questions[i].Mark == certification.Pass {
				return a, true
			}
			if m.Questions[i].ID == q.ID && m.Questions[i].Mark == certification.Warn {
				warned = &a
			}
		}
	}
	if warned != nil {
		return *warned, true
	}
	return certification.Answer{}, false
}

// evidenced hands in evidence of every type for a product.
func (w *world) evidenced(who registry.Actor, product string) {
	w.t.Helper()
	for _, rule := range certification.EvidenceRules() {
		w.written++ // no number: what looks like a tax file number is refused
		content := string(rule.Type) + " of a product" + strings.Repeat(" again", w.written)
		switch rule.Media[0] {
		case certification.PDF:
			content = "%PDF-1.7\n" + content + "\n%%EOF\n"
		case certification.PNG:
			content = "\x89PNG\r\n\x1a\n" + content
		}
		s := assurance.Submission{ProductID: product, Type: rule.Type}
		if rule.Dated {
			s.Issued, s.Expires = registry.At(w.now().AddDate(0, -1, 0)), registry.At(w.now().AddDate(0, 9, 0))
		}
		_, _, err := w.assurance.SubmitEvidence(context.Background(), who, s, strings.NewReader(content))
		must(w.t, err)
	}
}

// conformed records calls of services in an environment and gives their IDs.
func (w *world) called(product string, env registry.Environment, services ...string) (ids []string) {
	w.runs.mu.Lock()
	defer w.runs.mu.Unlock()
	for _, s := range services {
		id := fmt.Sprintf("D-%d", len(w.runs.all)+1)
		w.runs.all = append(w.runs.all, casework.Decision{ID: id, Product: product, Environment: env, Service: s, Allowed: true, At: registry.At(w.now())})
		ids = append(ids, id)
	}
	return ids
}

// verifyAll looks at every requirement of the open verification, and closes it.
func (w *world) verifyAll(product string, fails ...string) (findings []string) {
	w.t.Helper()
	ctx := context.Background()
	id := w.certification(product).Verification
	v, err := w.assurance.Verification(assessor, id)
	must(w.t, err)
	for _, x := range v.Body.Tests {
		r := assurance.TestResult{Requirement: x.Requirement, Method: "documents-read", Outcome: "pass"}
		if slices.Contains(fails, x.Requirement) {
			r.Outcome, r.Finding = "fail", "It is not there."
		}
		c, _, err := w.assurance.RecordTest(ctx, assessor, id, r, none)
		must(w.t, err)
		for _, y := range c.Body.Tests {
			if y.Requirement == x.Requirement && y.Finding != "" {
				findings = append(findings, y.Finding)
			}
		}
	}
	_, _, err = w.assurance.CloseVerification(ctx, assessor, id, "looked at all of it", none)
	must(w.t, err)
	return findings
}
