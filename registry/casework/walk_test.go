package casework_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/sample"
)

// who are all there are: each permission alone, an owner, another entity's
// developer, and somebody without any.
func who(owner registry.ABN) map[string]registry.Actor {
	all := map[string]registry.Actor{
		"owner":   developer(owner, "dev@owner.example"),
		"other":   developer(sample.Galah, "dev@galah.example"),
		"nobody":  {Name: "nobody"},
		"nothing": developer(0, "new@nobody.example"),
	}
	for _, w := range []string{"registrar", "assessor", "auditor", "operator", "incident-officer"} {
		p, _ := registry.ParsePermission(w)
		all[w] = registry.Actor{Name: w, Permissions: p}
	}
	return all
}

// entityStates and certStates are all there are, read from the words themselves.
func entityStates() (all []registry.EntityState) {
	for s := registry.EntityState(0); s.String() != ""; s++ {
		all = append(all, s)
	}
	return all
}

func certStates() (all []registry.CertState) {
	for s := registry.CertState(0); s.String() != ""; s++ {
		all = append(all, s)
	}
	return all
}

// registrationCommands is every command of a registration, with input that is as
// good as any.
func registrationCommands(w *world, abn registry.ABN) map[string]func(registry.Actor) error {
	ctx := context.Background()
	m := registry.Meta{Reason: "because"}
	err := func(_ registry.Outcome, err error) error { return err }
	return map[string]func(registry.Actor) error{
		"apply":    func(a registry.Actor) error { return err(w.Apply(ctx, a, abn, form("Possum Bakery"), m)) },
		"revise":   func(a registry.Actor) error { return err(w.Revise(ctx, a, abn, form("Possum Bakery"), m)) },
		"submit":   func(a registry.Actor) error { return err(w.Submit(ctx, a, abn, accepted, m)) },
		"withdraw": func(a registry.Actor) error { return err(w.Withdraw(ctx, a, abn, m)) },
		"ask":      func(a registry.Actor) error { return err(w.Ask(ctx, a, abn, "Who?", m)) },
		"reply":    func(a registry.Actor) error { return err(w.Reply(ctx, a, abn, "We.", m)) },
		"record-check": func(a registry.Actor) error {
			return err(w.RecordCheck(ctx, a, abn, casework.CheckOutcome{Check: "tax-obligations", Subject: "entity", Outcome: casework.Passed, Source: "seen"}, m))
		},
		"admit":  func(a registry.Actor) error { return err(w.Admit(ctx, a, abn, m)) },
		"reject": func(a registry.Actor) error { return err(w.Reject(ctx, a, abn, casework.IntentUnfit, m)) },
		"tell-change": func(a registry.Actor) error {
			return err(w.TellChange(ctx, a, abn, casework.EntityChange{Note: "an incident"}, m))
		},
		"confirm-change": func(a registry.Actor) error { return err(w.ConfirmChange(ctx, a, abn, m)) },
		"answer-review":  func(a registry.Actor) error { return err(w.AnswerReview(ctx, a, abn, "as before", m)) },
		"cancel":         func(a registry.Actor) error { return err(w.CancelEntity(ctx, a, abn, m)) },
	}
}

func certificationCommands(w *world, id string) map[string]func(registry.Actor) error {
	ctx := context.Background()
	m := registry.Meta{Reason: "because"}
	err := func(_ registry.Outcome, err error) error { return err }
	dep := casework.Deployment{Services: []string{"as.0004.submit"}}
	return map[string]func(registry.Actor) error{
		"begin":    func(a registry.Actor) error { return err(w.Begin(ctx, a, id, m)) },
		"describe": func(a registry.Actor) error { return err(w.Describe(ctx, a, id, dep, m)) },
		"answer": func(a registry.Actor) error {
			return err(w.Answer(ctx, a, id, map[string]certification.Answer{"OSF-AUT.1": {Values: []string{"yes"}}}, m))
		},
		"request-exception": func(a registry.Actor) error {
			return err(w.RequestException(ctx, a, id, certification.Exception{Requirement: "OSF-AUT", Control: "x", Expires: w.now().AddDate(0, 1, 0)}, m))
		},
		"approve-exception": func(a registry.Actor) error { return err(w.ApproveException(ctx, a, id, "OSF-AUT", m)) },
		"submit":            func(a registry.Actor) error { return err(w.SubmitCert(ctx, a, id, sign, m)) },
		"recall":            func(a registry.Actor) error { return err(w.Recall(ctx, a, id, m)) },
		"send-back":         func(a registry.Actor) error { return err(w.SendBack(ctx, a, id, m)) },
		"start-verification": func(a registry.Actor) error {
			return err(w.StartVerification(ctx, a, id, nil, m))
		},
		"conform":           func(a registry.Actor) error { return err(w.Conform(ctx, a, id, []string{"D-0"}, m)) },
		"approve-high-risk": func(a registry.Actor) error { return err(w.ApproveHighRisk(ctx, a, id, []string{"as.0004.get"}, m)) },
		"pilot": func(a registry.Actor) error {
			return err(w.Pilot(ctx, a, id, casework.PilotTerms{Clients: []registry.ABN{sample.Possum}}, m))
		},
		"pass-scenario": func(a registry.Actor) error { return err(w.PassScenario(ctx, a, id, []string{"D-0"}, m)) },
		"approve":       func(a registry.Actor) error { return err(w.Whitelist(ctx, a, id, nil, m)) },
		"interim": func(a registry.Actor) error {
			return err(w.Interim(ctx, a, id, casework.InterimTerms{Basis: "grandfathered", Owed: []string{"OSF-AUT"}}, []string{"as.0004.submit"}, m))
		},
		"restrict":            func(a registry.Actor) error { return err(w.Restrict(ctx, a, id, 2, nil, m)) },
		"request-review":      func(a registry.Actor) error { return err(w.RequestReview(ctx, a, id, m)) },
		"answer-review":       func(a registry.Actor) error { return err(w.AnswerCertReview(ctx, a, id, "as before", m)) },
		"tell-change":         func(a registry.Actor) error { return err(w.TellCertChange(ctx, a, id, dep, m)) },
		"announce-suspension": func(a registry.Actor) error { return err(w.Announce(ctx, a, id, 0, m)) },
		"reinstate":           func(a registry.Actor) error { return err(w.Reinstate(ctx, a, id, m)) },
		"delist":              func(a registry.Actor) error { return err(w.Delist(ctx, a, id, m)) },
	}
}

var wrongState = regexp.MustCompile(`the (registration|certification) is \w+; next may be `)

// verdict of a command: let through the table or not, whatever it found amiss
// afterwards with what it was given.
func verdict(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, registry.ErrNotFound):
		return "not found"
	case errors.Is(err, registry.ErrForbidden):
		return "forbidden"
	case errors.Is(err, registry.ErrState) && wrongState.MatchString(err.Error()), errors.Is(err, registry.ErrState) && strings.Contains(err.Error(), "end state"):
		return "wrong state"
	case errors.Is(err, registry.ErrState), errors.Is(err, registry.ErrInvalid):
		return "done" // the table let it through; something else is missing
	}
	return err.Error()
}

// TestEveryEntityStateTimesCommandTimesPerson: what the table of commands says is
// what happens, for each of them, and a refusal changes nothing.
func TestEveryEntityStateTimesCommandTimesPerson(t *testing.T) {
	w := newWorld(t, nil)
	w.checks.set(true) // nothing moves by itself
	n := 0
	for _, state := range entityStates() {
		for name, a := range who(newcomer) {
			for command := range registrationCommands(w, newcomer) {
				w.placeEntity(newcomer, state)
				rev := w.book().Revision()
				got := verdict(registrationCommands(w, newcomer)[command](a))
				own := name == "owner"
				want := "done"
				switch {
				case name == "nobody" && command != "record-check", (name == "other" || name == "nothing") && command != "record-check" && command != "apply":
					want = "not found"
				case !slices.Contains(everyCommandOf(a, own, casework.NextForEntity, entityStates()), command):
					want = "forbidden"
				case !slices.Contains(casework.NextForEntity(a, state, own), command):
					want = "wrong state"
				}
				if command == "apply" && !own && !a.Staff() {
					if got == "done" && w.book().Revision() != rev {
						t.Errorf("%s, %s by %s: %s", state, command, name, got)
					}
					continue // refused in one way or another: somebody else's ABN
				}
				if got != want {
					t.Errorf("%s, %s by %s: %s, want %s", state, command, name, got, want)
				}
				if got != "done" && w.book().Revision() != rev {
					t.Errorf("%s, %s by %s: refused, and something changed", state, command, name)
				}
				n++
			}
		}
	}
	t.Logf("%d combinations", n)
}

// everyCommandOf is every command that an actor may give in some state.
func everyCommandOf[S any](a registry.Actor, own bool, next func(registry.Actor, S, bool) []string, states []S) (all []string) {
	for _, s := range states {
		all = append(all, next(a, s, own)...)
	}
	return all
}

// placeEntity puts an entity and its case into a state, by the store's own means.
func (w *world) placeEntity(abn registry.ABN, state registry.EntityState) {
	w.t.Helper()
	_, err := w.reg.Do(context.Background(), registry.Actor{Name: "test"}, "place", "", func(t *registry.Tx) error {
		r := casework.Registration{ABN: abn, AppliedBy: "dev@owner.example", Form: form("Possum Bakery"), Accepted: []casework.Acceptance{accepted},
			Checks: []casework.CheckRun{{Name: "tax-obligations", Subject: "entity", State: casework.CheckAsked}}}
		if err := registry.PutCase(t, abn.String(), r); err != nil {
			return err
		}
		return t.PutEntity(registry.Entity{ABN: abn, Name: "Possum Bakery", State: state})
	})
	must(w.t, err)
}

func TestEveryCertificationStateTimesCommandTimesPerson(t *testing.T) {
	w := newWorld(t, nil)
	const id = "FP-1002"
	n := 0
	for _, state := range certStates() {
		for name, a := range who(sample.Ironbark) {
			for command := range certificationCommands(w, id) {
				if name == "nothing" {
					continue
				}
				w.placeProduct(id, state)
				rev := w.book().Revision()
				got := verdict(certificationCommands(w, id)[command](a))
				own := name == "owner"
				want := "done"
				switch {
				case name == "nobody" || name == "other":
					want = "not found"
				case !slices.Contains(everyCommandOf(a, own, casework.NextForProduct, certStates()), command):
					want = "forbidden"
				case !slices.Contains(casework.NextForProduct(a, state, own), command):
					want = "wrong state"
				}
				if command == "approve-exception" && got == "not found" && want == "done" {
					got = "done"
				}
				if got != want {
					t.Errorf("%s, %s by %s: %s, want %s", state, command, name, got, want)
				}
				if got != "done" && w.book().Revision() != rev {
					t.Errorf("%s, %s by %s: refused, and something changed", state, command, name)
				}
				n++
			}
		}
	}
	t.Logf("%d combinations", n)
}

func (w *world) placeProduct(id string, state registry.CertState) {
	w.t.Helper()
	_, err := w.reg.Do(context.Background(), registry.Actor{Name: "test"}, "place", "", func(t *registry.Tx) error {
		p := *t.View().Product(id)
		p.Certification = registry.Certification{State: state}
		if err := registry.PutCase(t, id, casework.Certification{Product: id, Owner: p.Owner}); err != nil {
			return err
		}
		return t.PutProduct(p)
	})
	must(w.t, err)
}

// TestWhoMayDoWhatWhen holds the tables themselves: a change of one is seen here.
func TestWhoMayDoWhatWhen(t *testing.T) {
	var b strings.Builder
	rows := func(workflow string, states []string, next func(a registry.Actor, i int, own bool) []string) {
		all := who(sample.Ironbark)
		for i, state := range states {
			for _, name := range []string{"owner", "registrar", "assessor", "auditor", "operator", "incident-officer"} {
				if list := next(all[name], i, name == "owner"); len(list) > 0 {
					fmt.Fprintf(&b, "%s %s, %s: %s\n", workflow, state, name, strings.Join(list, " "))
				}
			}
		}
	}
	var entities, products []string
	for _, s := range entityStates() {
		entities = append(entities, s.String())
	}
	for _, s := range certStates() {
		products = append(products, s.String())
	}
	rows("registration", entities, func(a registry.Actor, i int, own bool) []string {
		return casework.NextForEntity(a, registry.EntityState(i), own)
	})
	rows("certification", products, func(a registry.Actor, i int, own bool) []string {
		return casework.NextForProduct(a, registry.CertState(i), own)
	})
	want, err := os.ReadFile("testdata/commands.txt")
	if *update {
		err = os.WriteFile("testdata/commands.txt", []byte(b.String()), 0o644)
		want = []byte(b.String())
	}
	must(t, err)
	if b.String() != string(want) {
		t.Errorf("the tables of commands changed; look, and run with -update:\n%s", b.String())
	}
}

var update = flag.Bool("update", false, "write testdata anew")
