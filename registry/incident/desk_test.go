package incident_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
	"github.com/dspgate/dspgate/registry/outbox"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

var (
	officer   = registry.Actor{Name: "officer", Permissions: registry.PermIncidentOfficer}
	officer2  = registry.Actor{Name: "officer2", Permissions: registry.PermIncidentOfficer}
	operator  = registry.Actor{Name: "operator", Permissions: registry.PermOperator}
	auditor   = registry.Actor{Name: "auditor", Permissions: registry.PermAuditor}
	kooka     = registry.Actor{Name: "dev@kookaburra.example", Permissions: registry.PermDeveloper, Entity: sample.Kookaburra}
	wattle    = registry.Actor{Name: "dev@wattlebird.example", Permissions: registry.PermDeveloper, Entity: sample.Wattlebird}
	none      registry.Meta
	fp1003    = registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1003"}
	suspended = registry.SuspendCommand{Subject: fp1003, Reason: "key leaked"}
)

// desk is a control plane with the sample register, in synthetic time.
type desk struct {
	*incident.Desk
	t          *testing.T
	high, late []string
}

func atDesk(t *testing.T, f func(t *testing.T, d *desk)) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		began := time.Now()
		m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "c", Observer: true, Clock: func() time.Duration { return time.Since(began) }})
		r := registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{
			Holder: "c", Cases: []registry.CaseType{registry.CaseTypeOf[outbox.Message](), registry.CaseTypeOf[incident.Incident]()},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = m.Run(ctx) })
		wg.Go(func() { _ = r.Run(ctx) })
		synctest.Wait()
		if _, err := r.Import(ctx, sample.Actor(), sample.Records(time.Now()), none); err != nil {
			t.Fatal(err)
		}
		notices, err := incident.NewNotices(nil)
		if err != nil {
			t.Fatal(err)
		}
		d := &desk{t: t}
		d.Desk = &incident.Desk{
			Register: r, Thresholds: incident.DefaultThresholds(), Notices: notices,
			Officers: []string{"officers@agency.example"}, Export: "https://incidents.agency.example/in",
			OnHigh: func(_ *registry.Tx, p, id string) error { d.high = append(d.high, p+" "+id); return nil },
			OnLate: func(_ *registry.Tx, p, id string) error { d.late = append(d.late, p+" "+id); return nil },
		}
		wg.Go(func() { r.RunTimers(ctx, map[registry.CaseKind]registry.FireFunc{"incident": d.Fire}) })
		f(t, d)
		cancel()
		wg.Wait()
	})
}

func (d *desk) get(id string) incident.Incident {
	d.t.Helper()
	synctest.Wait()
	book, err := d.Register.Casebook()
	if err != nil {
		d.t.Fatal(err)
	}
	c, err := registry.CaseOf[incident.Incident](book, id)
	if err != nil {
		d.t.Fatal(err)
	}
	return c.Body
}

// mail are the subjects and recipients of what was queued about an incident.
func (d *desk) mail(id string) (all []string) {
	d.t.Helper()
	synctest.Wait()
	book, err := d.Register.Casebook()
	if err != nil {
		d.t.Fatal(err)
	}
	for id := range book.All(registry.Query{Kind: "message", Where: []registry.Where{{Index: "about", Value: "incident/" + id}}}) {
		c, err := registry.CaseOf[outbox.Message](book, id)
		if err != nil {
			d.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s: %s (%s)", c.Body.To, c.Body.Subject, c.Body.State))
	}
	return all
}

func (d *desk) must(out registry.Outcome, err error) string {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	return out.ID
}

func report() incident.Incident {
	at := registry.At(time.Now())
	return incident.Incident{
		Type: incident.CredentialCompromise, Channel: incident.ByAPI, Title: "Signing key on a paste site",
		OccurredAt: at - 20*hour, AwareAt: at - 2*hour, Subjects: []registry.SubjectRef{fp1003},
	}
}

// TestAnIncidentFromReportToClose goes the whole way of a high one.
func TestAnIncidentFromReportToClose(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		x := report()
		x.OccurredAt = registry.At(time.Now()) - 3*hour
		x.Exposure = incident.Exposure{TFN: true, SSIDs: []string{"0000300001"}}
		id := d.must(d.Raise(t.Context(), kooka, x))
		got := d.get(id)
		if got.State != incident.Reported || got.Entity != sample.Kookaburra || got.Level != "" {
			t.Fatalf("%+v", got)
		}
		d.must(d.Triage(t.Context(), officer, id, "", "", "", none))
		s, err := d.Register.Suspend(t.Context(), officer, registry.SuspendCommand{Subject: fp1003, Reason: "key leaked", IncidentID: id})
		if err != nil {
			t.Fatal(err)
		}
		d.must(d.Contain(t.Context(), officer, id, s.Entry.ID, "", none))
		d.must(d.Notify(t.Context(), officer, id, []incident.Audience{incident.Entity, incident.User}, none))
		d.must(d.AskLogs(t.Context(), officer, id, sample.Kookaburra, "gateway logs of last week", registry.At(time.Now().Add(48*time.Hour)), none))
		d.must(d.AnswerLogs(t.Context(), kooka, id, d.get(id).Requests[0].ID, "EV-1", none))
		plan := []incident.Action{{What: "rotate the key", Owner: "kooka", Due: registry.At(time.Now().Add(time.Hour))}}
		d.must(d.Plan(t.Context(), officer, id, plan, none))
		if _, err := d.Close(t.Context(), officer, id, "a key in a repository", "rotated", "scan repositories", none); !errors.Is(err, registry.ErrState) {
			t.Errorf("closed with the plan open: %v", err)
		}
		plan[0].Done = registry.At(time.Now())
		d.must(d.Plan(t.Context(), officer, id, plan, none))
		d.must(d.Assess(t.Context(), officer, id, true, registry.At(time.Now()), 0, "likely harm", none))
		if _, err := d.Close(t.Context(), officer, id, "a key in a repository", "rotated", "", none); err == nil || !strings.Contains(err.Error(), "/containment") {
			t.Errorf("closed while a suspension that expires by itself is in force: %v", err)
		}
		if _, err := d.Register.LiftSuspension(t.Context(), operator, s.Entry.ID, none); err != nil {
			t.Fatal(err)
		}
		d.must(d.Close(t.Context(), officer, id, "a key in a repository", "rotated", "scan repositories", none))
		got = d.get(id)
		var words []string
		for _, e := range got.Timeline {
			words = append(words, e.What+" by "+e.By)
		}
		want := []string{
			"raised by dev@kookaburra.example", "triaged by officer", "contained by officer", "notified by officer", "logs asked by officer",
			"logs answered by dev@kookaburra.example", "planned by officer", "treated by officer", "assessed by officer", "closed by officer",
		}
		if diff := cmp.Diff(want, words); diff != "" || got.State != incident.Closed || got.Level != incident.High {
			t.Errorf("%s, level %s: %s", got.State, got.Level, diff)
		}
		if !slices.Equal(d.high, []string{"FP-1003 " + id}) || len(d.late) != 0 {
			t.Errorf("high set off %v, late %v", d.high, d.late)
		}
		mail := strings.Join(d.mail(id), "\n")
		for _, s := range []string{"officers@agency.example: Incident " + id + " raised", "dev@kookaburra.example: Incident " + id, "dev@kookaburra.example: Logs needed", "incidents.agency.example/in: incident.closed"} {
			if !strings.Contains(mail, s) {
				t.Errorf("nobody was sent %q:\n%s", s, mail)
			}
		}
	})
}

func TestAReportThatCannotBeRaisedIsKept(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		x := report()
		x.Level, x.Type = incident.High, ""
		x.AwareAt = x.OccurredAt - hour
		x.Subjects = []registry.SubjectRef{{Kind: registry.KindProduct, ID: "FP-9999"}}
		x.Description = "the client 220 115 957 \x1b[2J called at 9"
		out, err := d.Raise(t.Context(), kooka, x)
		if !errors.Is(err, incident.ErrDraft) || !errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), out.ID) {
			t.Fatalf("%+v, %v", out, err)
		}
		for _, f := range []string{"/type: ", "/aware_at: ", "/subjects/0/id: ", "/description: "} {
			if !strings.Contains(err.Error(), f) {
				t.Errorf("%s is not named: %v", f, err)
			}
		}
		got := d.get(out.ID)
		if got.State != incident.Draft || strings.Contains(got.Description, "220") || strings.Contains(got.Description, "\x1b") || !strings.Contains(got.Description, "called at #") {
			t.Errorf("kept as %+v", got)
		}
		// Still wrong: nothing changes. Right: it is raised.
		what, when := incident.CredentialCompromise, registry.At(time.Now())
		if _, err := d.Amend(t.Context(), kooka, out.ID, incident.Stage{Type: &what}, none); !errors.Is(err, registry.ErrInvalid) || d.get(out.ID).Type != "" {
			t.Errorf("half completed: %v", err)
		}
		text := "a client called"
		d.must(d.Amend(t.Context(), kooka, out.ID, incident.Stage{Type: &what, AwareAt: &when, Description: &text, Subjects: []registry.SubjectRef{fp1003}}, none))
		if got := d.get(out.ID); got.State != incident.Reported || len(d.mail(out.ID)) < 2 {
			t.Errorf("completed and %s; %v", got.State, d.mail(out.ID))
		}
	})
}

// TestNobodyReachesAnothersIncident (C01): not by reading, changing, or naming
// what is not theirs.
func TestNobodyReachesAnothersIncident(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		id := d.must(d.Raise(t.Context(), kooka, report()))
		x := d.get(id)
		for _, c := range []struct {
			a    registry.Actor
			sees bool
		}{{officer, true}, {operator, true}, {auditor, true}, {kooka, true}, {wattle, false}, {registry.Actor{Name: "nobody"}, false}} {
			if x.MaySee(c.a) != c.sees {
				t.Errorf("%s: sees it %t", c.a.Name, !c.sees)
			}
		}
		text := "mine"
		for what, err := range map[string]error{
			"amend":  second(d.Amend(t.Context(), wattle, id, incident.Stage{Title: &text}, none)),
			"triage": second(d.Triage(t.Context(), wattle, id, "", "", "", none)),
			"appeal": second(d.AppealAgainst(t.Context(), wattle, id, "x", none)),
			"stale":  second(d.Amend(t.Context(), wattle, id, incident.Stage{Title: &text}, registry.Meta{IfMatch: 1})),
		} {
			if !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("%s by another entity: %v", what, err)
			}
		}
		for what, err := range map[string]error{
			"triage by the entity": second(d.Triage(t.Context(), kooka, id, incident.Low, "", "", none)),
			"close by the entity":  second(d.Close(t.Context(), kooka, id, "a", "b", "", none)),
			"amend by an auditor":  second(d.Amend(t.Context(), auditor, id, incident.Stage{Title: &text}, none)),
			"raise by an auditor":  second(d.Raise(t.Context(), auditor, report())),
			"raise for another": func() error {
				x := report()
				x.Entity = sample.Wattlebird
				return second(d.Raise(t.Context(), kooka, x))
			}(),
		} {
			if !errors.Is(err, registry.ErrForbidden) {
				t.Errorf("%s: %v", what, err)
			}
		}
		// Another's product does not even exist.
		y := report()
		_, err := d.Raise(t.Context(), wattle, y)
		y.Subjects[0].ID = "FP-9999"
		_, err2 := d.Raise(t.Context(), wattle, y)
		if err == nil || err2 == nil || strings.ReplaceAll(cutID(err), "FP-1003", "FP-9999") != cutID(err2) {
			t.Errorf("%v\nbut\n%v", err, err2)
		}
	})
}

func cutID(err error) string { return err.Error()[strings.Index(err.Error(), "/subjects"):] }

func second(_ registry.Outcome, err error) error { return err }

// TestLateReportIsAFinding: at +20 h met, at +25 h late, by the literal clock.
func TestLateReportIsAFinding(t *testing.T) {
	for after, want := range map[registry.Time]int{20 * hour: 0, 25 * hour: 1} {
		atDesk(t, func(t *testing.T, d *desk) {
			x := report()
			x.OccurredAt = registry.At(time.Now()) - after
			x.AwareAt = registry.At(time.Now()) - hour
			id := d.must(d.Raise(t.Context(), kooka, x))
			d.must(d.Triage(t.Context(), officer, id, "", "", "", none))
			d.must(d.Triage(t.Context(), officer, id, "", "", "", none)) // a second time finds nothing new
			if len(d.late) != want {
				t.Errorf("reported after %v h: findings %v", after/hour, d.late)
			}
			if got := d.get(id); got.Level != incident.Low || got.Owner != "officer" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestDutiesEscalateOnceEach: over two days in which nobody does anything, and
// not for a drill.
func TestDutiesEscalateOnceEach(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		x := report()
		x.OccurredAt, x.AwareAt = registry.At(time.Now()), registry.At(time.Now())
		id := d.must(d.Raise(t.Context(), officer, x))
		x.Drill = true
		drill := d.must(d.Raise(t.Context(), officer, x))
		time.Sleep(48 * time.Hour)
		var got []string
		for _, e := range d.get(id).Timeline {
			got = append(got, fmt.Sprintf("%s %v", e.What, e.At.Std().Sub(x.OccurredAt.Std()).Round(time.Minute)))
		}
		want := []string{"raised 0s", "triage:soon 45m0s", "triage:overdue 1h0m0s", "notify-agency:soon 18h0m0s", "notify-agency:overdue 24h0m0s", "finding: reported late or not at all 24h0m0s"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if !slices.Equal(d.late, []string{"FP-1003 " + id}) {
			t.Errorf("never reported by the entity, findings %v", d.late)
		}
		n := 0
		for _, m := range d.mail(id) {
			if strings.HasPrefix(m, "officers@") {
				n++
			}
		}
		if n != 5 {
			t.Errorf("officers were mailed %d times: %v", n, d.mail(id))
		}
		for _, m := range d.mail(drill) {
			if !strings.HasSuffix(m, "(sent)") {
				t.Errorf("a drill queued %s", m)
			}
		}
	})
}

func TestADrillSetsNothingOff(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		x := report()
		x.Drill, x.Exposure.Fraud = true, true
		x.OccurredAt = registry.At(time.Now()) - 30*hour
		id := d.must(d.Raise(t.Context(), officer, x))
		d.must(d.Triage(t.Context(), officer, id, "", "", "", none))
		d.must(d.Notify(t.Context(), officer, id, []incident.Audience{incident.Entity}, none))
		if len(d.high)+len(d.late) != 0 {
			t.Errorf("set off %v %v", d.high, d.late)
		}
		for _, m := range d.mail(id) {
			if !strings.HasSuffix(m, "(sent)") || !strings.Contains(strings.Join(d.mail(id), " "), "DRILL") {
				t.Errorf("queued %s", m)
			}
		}
	})
}

func TestALevelIsLoweredOnlyWithAReason(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		x := report()
		x.Exposure.Fraud = true
		id := d.must(d.Raise(t.Context(), kooka, x))
		if _, err := d.Triage(t.Context(), officer, id, incident.Low, "", " ", none); err == nil || !strings.Contains(err.Error(), "/reason") {
			t.Errorf("lowered without a reason: %v", err)
		}
		d.must(d.Triage(t.Context(), officer, id, incident.Low, "officer2", "the lodgment was a test", none))
		if got := d.get(id); got.Level != incident.Low || got.Owner != "officer2" || len(d.high) != 0 {
			t.Errorf("%+v", got)
		}
		// What is known since can raise it again.
		d.must(d.Amend(t.Context(), kooka, id, incident.Stage{Exposure: &incident.Exposure{TFN: true}}, none))
		if got := d.get(id); got.Level != incident.High || len(d.high) != 1 {
			t.Errorf("level %s; set off %v", got.Level, d.high)
		}
	})
}

func TestAppealIsDecidedByTwoOthers(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		id := d.must(d.Raise(t.Context(), kooka, report()))
		d.must(d.Triage(t.Context(), officer, id, incident.Medium, "", "", none))
		s, err := d.Register.Suspend(t.Context(), operator, registry.SuspendCommand{Subject: fp1003, Reason: "key leaked", IncidentID: id})
		if err != nil {
			t.Fatal(err)
		}
		d.must(d.Contain(t.Context(), officer, id, s.Entry.ID, "", none))
		d.must(d.AppealAgainst(t.Context(), kooka, id, "it was a test key", none))
		for _, a := range []registry.Actor{officer, operator} { // owner, imposer
			if _, err := d.DecideAppeal(t.Context(), a, id, true, "ok", none); !errors.Is(err, registry.ErrForbidden) {
				t.Errorf("decided by %s: %v", a.Name, err)
			}
		}
		third := registry.Actor{Name: "officer3", Permissions: registry.PermIncidentOfficer}
		d.must(d.DecideAppeal(t.Context(), officer2, id, true, "a test key", none))
		if _, err := d.DecideAppeal(t.Context(), officer2, id, true, "still", none); !errors.Is(err, registry.ErrForbidden) {
			t.Errorf("decided twice by one: %v", err)
		}
		d.must(d.DecideAppeal(t.Context(), third, id, false, "not so", none))
		if got := d.get(id); got.State != incident.Appealed || got.Appeal.First != "" {
			t.Errorf("after a disagreement: %s %+v", got.State, got.Appeal)
		}
		d.must(d.DecideAppeal(t.Context(), officer2, id, true, "a test key", none))
		d.must(d.DecideAppeal(t.Context(), third, id, true, "agreed", none))
		if got := d.get(id); got.State != incident.Treated || !got.Appeal.Upheld || got.Appeal.Second != "officer3" {
			t.Errorf("%s %+v", got.State, got.Appeal)
		}
	})
}

func TestContainmentMustBeThisIncidents(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		id := d.must(d.Raise(t.Context(), officer, report()))
		d.must(d.Triage(t.Context(), officer, id, "", "", "", none))
		s, err := d.Register.Suspend(t.Context(), operator, suspended)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range [][2]string{{s.Entry.ID, ""}, {"SU-0", ""}, {"", " "}} {
			if _, err := d.Contain(t.Context(), officer, id, c[0], c[1], none); !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("%q: %v", c, err)
			}
		}
		if _, err := d.Dismiss(t.Context(), officer, id, "the same", id, none); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("the same as itself: %v", err)
		}
		other := d.must(d.Raise(t.Context(), officer, report()))
		d.must(d.Dismiss(t.Context(), officer, id, "the same", other, none))
		if _, err := d.Triage(t.Context(), officer, id, "", "", "", none); !errors.Is(err, registry.ErrState) {
			t.Errorf("triaged after it was dismissed: %v", err)
		}
	})
}
