package incident_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

var (
	now  = registry.At(time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC))
	hour = registry.Time(time.Hour / time.Millisecond)
)

func leak() incident.Incident {
	return incident.Incident{
		ID: "INC-1", State: incident.Reported, Type: incident.CredentialCompromise, Channel: incident.ByPhone,
		Title: "Signing key on a paste site", Entity: 31000000202,
		OccurredAt: now - 20*hour, AwareAt: now - 2*hour, ReportedAt: now,
		Subjects:   []registry.SubjectRef{{Kind: registry.KindProduct, ID: "FP-1003"}, {Kind: registry.KindVersion, ID: "FP-1003@7.1"}},
		Indicators: []incident.Indicator{{Kind: "ip", Value: "203.0.113.7"}, {Kind: "session", Value: "s-91"}},
		Exposure:   incident.Exposure{SSIDs: []string{"0000300001", "0000123400"}},
	}
}

func TestLevelComesFromTheExposure(t *testing.T) {
	th := incident.DefaultThresholds()
	for _, c := range []struct {
		x    incident.Exposure
		want incident.Level
	}{
		{incident.Exposure{}, incident.Low},
		{incident.Exposure{TFN: true}, incident.High},
		{incident.Exposure{Bank: true}, incident.High},
		{incident.Exposure{Identity: true, Records: 1}, incident.High},
		{incident.Exposure{Fraud: true}, incident.High},
		{incident.Exposure{Records: 100}, incident.High},
		{incident.Exposure{Records: 99}, incident.Medium},
		{incident.Exposure{Taxpayer: true}, incident.Medium},
	} {
		got, why := th.Derive(&c.x)
		if got != c.want || why == "" {
			t.Errorf("%+v is %s (%s); want %s", c.x, got, why, c.want)
		}
		if c.x.Breach() == (got == incident.Low) {
			t.Errorf("%+v: breach %t at level %s", c.x, c.x.Breach(), got)
		}
	}
}

func TestMoreExposureIsNeverMilder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := incident.Exposure{
			TFN: rapid.Bool().Draw(t, "tfn"), Bank: rapid.Bool().Draw(t, "bank"), Fraud: rapid.Bool().Draw(t, "fraud"),
			Taxpayer: rapid.Bool().Draw(t, "taxpayer"), Records: rapid.IntRange(0, 300).Draw(t, "records"),
		}
		more := x
		more.Records += rapid.IntRange(0, 300).Draw(t, "more")
		more.Identity = rapid.Bool().Draw(t, "identity")
		th := incident.DefaultThresholds()
		a, _ := th.Derive(&x)
		b, _ := th.Derive(&more)
		if b.Below(a) {
			t.Fatalf("%+v is %s, %+v only %s", x, a, more, b)
		}
	})
}

// TestBothClocks: reported at +20 h the literal clock is met; at +25 h it is
// late, though only an hour after anybody knew.
func TestBothClocks(t *testing.T) {
	for _, c := range []struct {
		after   registry.Time
		agency  incident.Status
		finding bool
	}{{20 * hour, incident.Met, false}, {24 * hour, incident.Met, false}, {24*hour + 1, incident.Late, true}, {25 * hour, incident.Late, true}} {
		x := leak()
		x.OccurredAt = now
		x.AwareAt = now + 24*hour - hour
		x.Notified.Agency = now + c.after
		got := x.Clocks(now + 30*hour)[0]
		want := incident.Clock{Duty: incident.NotifyAgency, FromEvent: now + 24*hour, FromAwareness: now + 47*hour, Done: now + c.after, Status: c.agency}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("reported after %v h: %s", c.after/hour, diff)
		}
		if x.LateReport(now+30*hour) != c.finding {
			t.Errorf("reported after %v h: finding %t", c.after/hour, !c.finding)
		}
	}
}

// TestTheAnchorIsConfigured: counted from awareness, an hour after anybody knew
// is in time; where nobody says when that was, the event counts all the same.
func TestTheAnchorIsConfigured(t *testing.T) {
	x := leak()
	x.ByAwareness = true
	x.OccurredAt, x.AwareAt = now, now+24*hour
	x.Notified.Agency = now + 25*hour
	got := x.Clocks(now + 30*hour)[0]
	want := incident.Clock{Duty: incident.NotifyAgency, FromEvent: now + 24*hour, FromAwareness: now + 48*hour, Done: now + 25*hour, Status: incident.Met, ByAwareness: true}
	if diff := cmp.Diff(want, got); diff != "" || x.LateReport(now+30*hour) {
		t.Errorf("from awareness: %s", diff)
	}
	x.AwareAt = 0
	if !x.LateReport(now + 30*hour) {
		t.Error("nobody knew, and it is in time")
	}
}

func TestClockRunsOutOverTime(t *testing.T) {
	x := leak()
	x.Exposure.TFN = true
	x.OccurredAt, x.AwareAt, x.ReportedAt = now, now, now
	for _, c := range []struct {
		at   registry.Time
		want map[incident.Duty]incident.Status
	}{
		{now, map[incident.Duty]incident.Status{"triage": "running", "notify-agency": "running", "notify-users": "running", "assess-ndb": "running"}},
		{now + 50*hour/60, map[incident.Duty]incident.Status{"triage": "soon", "notify-agency": "running", "notify-users": "running", "assess-ndb": "running"}},
		{now + 18*hour, map[incident.Duty]incident.Status{"triage": "overdue", "notify-agency": "soon", "notify-users": "soon", "assess-ndb": "running"}},
		{now + 25*hour, map[incident.Duty]incident.Status{"triage": "overdue", "notify-agency": "overdue", "notify-users": "overdue", "assess-ndb": "running"}},
		{now + 31*24*hour, map[incident.Duty]incident.Status{"triage": "overdue", "notify-agency": "overdue", "notify-users": "overdue", "assess-ndb": "overdue"}},
	} {
		got := map[incident.Duty]incident.Status{}
		for _, k := range x.Clocks(c.at) {
			got[k.Duty] = k.Status
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("after %v h: %s", (c.at-now)/hour, diff)
		}
	}
	// Each of them is told of before it runs out, and when it did.
	var soonest registry.Time
	for _, e := range x.Escalations(now) {
		if soonest == 0 || e.At < soonest {
			soonest = e.At
		}
	}
	if n := len(x.Escalations(now)); n != 8 || soonest != now+45*hour/60 {
		t.Errorf("%d escalations, the first at %s", n, soonest)
	}
	x.State = incident.Closed
	if len(x.Escalations(now)) != 0 {
		t.Error("a closed incident escalates")
	}
}

func TestNoStateIsReachedBesideTheTable(t *testing.T) {
	all := []incident.State{incident.Draft, incident.Reported, incident.Triaged, incident.Contained, incident.Treated, incident.Closed, incident.Dismissed, incident.Appealed}
	want := map[incident.State]string{
		"draft": "reported dismissed", "reported": "triaged dismissed", "triaged": "contained treated dismissed", "contained": "treated appealed",
		"treated": "closed appealed", "closed": "appealed", "dismissed": "", "appealed": "contained treated closed",
	}
	for _, s := range all {
		var words []string
		for _, n := range incident.Next(s) {
			words = append(words, string(n))
		}
		if got := strings.Join(words, " "); got != want[s] {
			t.Errorf("%s: %q may follow, want %q", s, got, want[s])
		}
		if s.Live() == (s == incident.Closed || s == incident.Dismissed) {
			t.Errorf("%s: live %t", s, s.Live())
		}
	}
}

// TestSharingMatrix is the framework's table, a cell a row, written out again.
func TestSharingMatrix(t *testing.T) {
	table := `
status          | yes          | yes                    | if in that chain | if its clients are affected                 | yes                                 | no
indicators      | yes          | yes                    | sanitised        | no                                          | no                                  | no
ssids           | yes          | its own                | its own          | no                                          | its own                             | no
client-identity | yes          | only what it supplied  | no               | its own clients, in the approved form       | of itself                           | no
tfn             | need to know | no                     | no               | no                                          | of itself, through another channel  | no
eligibility     | yes          | its own                | no               | no                                          | no                                  | no
register-state  | yes          | yes                    | yes              | yes                                         | yes                                 | whitelisted products only, never reasons`
	cells := 0
	for line := range strings.Lines(strings.TrimSpace(table)) {
		col := strings.Split(line, "|")
		row := incident.Data(strings.TrimSpace(col[0]))
		for i, a := range incident.Audiences() {
			cells++
			t.Run(fmt.Sprintf("%s to %s", row, a), func(t *testing.T) {
				if got, want := incident.Share(row, a), incident.Rule(strings.TrimSpace(col[i+1])); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
	}
	if cells != len(incident.Rows())*len(incident.Audiences()) {
		t.Errorf("%d cells were looked at", cells)
	}
	if incident.Share("shoe-size", incident.Entity) != incident.No || incident.Share(incident.SSIDs, "press") != incident.No {
		t.Error("what the table does not name is shared")
	}
}

func TestNobodyIsToldMoreThanTheirCell(t *testing.T) {
	x := leak()
	product := []string{"FP-1003"}
	ip := []incident.Indicator{{Kind: "ip", Value: "203.0.113.7"}}
	for name, c := range map[string]struct {
		to   incident.Recipient
		want incident.Shared
		sees bool
	}{
		"the entity":                    {incident.Recipient{Audience: incident.Entity, SSIDs: []string{"0000300001"}}, incident.Shared{Products: product, Indicators: x.Indicators, SSIDs: []string{"0000300001"}}, true},
		"a chain member":                {incident.Recipient{Audience: incident.Chain, InChain: true, SSIDs: []string{"0000123400"}}, incident.Shared{Products: product, Indicators: ip, SSIDs: []string{"0000123400"}}, true},
		"another chain":                 {incident.Recipient{Audience: incident.Chain}, incident.Shared{}, false},
		"an agent with affected client": {incident.Recipient{Audience: incident.Intermediary, ClientsAffected: true, SSIDs: []string{"0000300001"}}, incident.Shared{Products: product}, true},
		"an agent without":              {incident.Recipient{Audience: incident.Intermediary}, incident.Shared{}, false},
		"a user":                        {incident.Recipient{Audience: incident.User, SSIDs: []string{"0000123400"}}, incident.Shared{Products: product, SSIDs: []string{"0000123400"}}, true},
		"the public":                    {incident.Recipient{Audience: incident.Public, InChain: true, ClientsAffected: true}, incident.Shared{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			want := c.want
			if c.sees {
				want.ID, want.State, want.Type, want.OccurredAt = x.ID, x.State, x.Type, x.OccurredAt
			}
			got, sees := x.For(c.to)
			if diff := cmp.Diff(want, got); diff != "" || sees != c.sees {
				t.Errorf("sees %t; %s", sees, diff)
			}
		})
	}
}

// TestNoNoticeSaysWhatItsReaderMayNotKnow reads every built-in notice for what
// the cell forbids.
func TestNoNoticeSaysWhatItsReaderMayNotKnow(t *testing.T) {
	n, err := incident.NewNotices(nil)
	if err != nil {
		t.Fatal(err)
	}
	x := leak()
	x.Description, x.Cause, x.Owner = "Kookaburra's apprentice did it", "an apprentice", "officer@agency.example"
	x.Reporter.Name = "Jo Bloggs"
	never := []string{"apprentice", "officer@", "Bloggs"}
	for _, c := range []struct {
		to   incident.Recipient
		says []string
		not  []string
		none bool
	}{
		{to: incident.Recipient{Audience: incident.Entity, SSIDs: []string{"0000300001"}}, says: []string{"FP-1003", "203.0.113.7", "0000300001", "Revoke the credential", "INC-1"}, not: []string{"0000123400"}},
		{to: incident.Recipient{Audience: incident.Chain, InChain: true}, says: []string{"FP-1003", "203.0.113.7", "30 days"}, not: []string{"s-91", "0000"}},
		{to: incident.Recipient{Audience: incident.Intermediary, ClientsAffected: true}, says: []string{"FP-1003"}, not: []string{"203.0.113.7", "0000", "credential"}},
		{to: incident.Recipient{Audience: incident.User, SSIDs: []string{"0000123400"}}, says: []string{"FP-1003", "0000123400"}, not: []string{"203.0.113.7", "0000300001", "credential"}},
		{to: incident.Recipient{Audience: incident.Chain}, none: true},
		{to: incident.Recipient{Audience: incident.Public}, none: true},
		{to: incident.Recipient{Audience: incident.Staff}, none: true},
	} {
		for _, drill := range []bool{false, true} {
			x.Drill = drill
			m, ok, err := n.Preview(&x, c.to)
			if err != nil || ok == c.none {
				t.Fatalf("%s: %v, sent %t", c.to.Audience, err, ok)
			}
			text := m.Subject + "\n" + m.Body
			for _, s := range c.says {
				if !strings.Contains(text, s) {
					t.Errorf("to %s: nothing of %q in\n%s", c.to.Audience, s, text)
				}
			}
			for _, s := range append(never, c.not...) {
				if strings.Contains(text, s) {
					t.Errorf("to %s: %q in\n%s", c.to.Audience, s, text)
				}
			}
			if ok && strings.Contains(text, "drill") != drill {
				t.Errorf("to %s: a drill %t reads\n%s", c.to.Audience, drill, text)
			}
		}
	}
	if _, err := incident.NewNotices(map[incident.Audience]string{incident.User: "{{.Incident"}); err == nil {
		t.Error("a wording that does not parse is taken")
	}
	bad, err := incident.NewNotices(map[incident.Audience]string{incident.User: "{{.Incident.Cause}}"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := bad.Preview(&x, incident.Recipient{Audience: incident.User}); err == nil {
		t.Error("a wording reached for what is not shared")
	}
}

func TestBadReportsNameTheField(t *testing.T) {
	for _, c := range []struct {
		field string
		spoil func(*incident.Incident)
	}{
		{"/title", func(x *incident.Incident) { x.Title = " " }},
		{"/title", func(x *incident.Incident) { x.Title = strings.Repeat("x", 201) }},
		{"/title", func(x *incident.Incident) { x.Title = "for 220 115 957" }},
		{"/type", func(x *incident.Incident) { x.Type = "bad" }},
		{"/type", func(x *incident.Incident) { x.Type, x.Level = "", incident.High }}, // a level without a type
		{"/level", func(x *incident.Incident) { x.Level = "severe" }},
		{"/channel", func(x *incident.Incident) { x.Channel = "pigeon" }},
		{"/aware_at", func(x *incident.Incident) { x.AwareAt = 0 }},
		{"/aware_at", func(x *incident.Incident) { x.AwareAt = x.OccurredAt - 1 }},
		{"/occurred_at", func(x *incident.Incident) { x.OccurredAt = now + hour }},
		{"/reported_at", func(x *incident.Incident) { x.ReportedAt = x.AwareAt - hour }},
		{"/subjects/0", func(x *incident.Incident) { x.Subjects[0].ID = "" }},
		{"/indicators/0", func(x *incident.Incident) { x.Indicators[0].Value = "300.1.1.1" }},
		{"/indicators/0", func(x *incident.Incident) { x.Indicators[0].Kind = "colour" }},
		{"/indicators/1", func(x *incident.Incident) { x.Indicators[1].Value = "220115957" }},
		{"/exposure/records", func(x *incident.Incident) { x.Exposure.Records = -1 }},
		{"/exposure/ssids", func(x *incident.Incident) { x.Exposure.SSIDs = make([]string, 10_001) }},
		{"/description", func(x *incident.Incident) { x.Description = "\x1b[2J" }},
		{"/description", func(x *incident.Incident) { x.Description = strings.Repeat("x", 20_001) }},
		{"/treatment/0/what", func(x *incident.Incident) { x.Treatment = []incident.Action{{What: "tell 220115957"}} }},
	} {
		x := leak()
		if err := x.Check(now); err != nil {
			t.Fatal(err)
		}
		c.spoil(&x)
		err := x.Check(now)
		var f *registry.FieldError
		if !errors.As(err, &f) || !errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), c.field+": ") {
			t.Errorf("%s: %v", c.field, err)
		}
	}
}

func TestClosingNeedsACauseAndWhatWasDone(t *testing.T) {
	x := leak()
	x.State, x.Exposure.Taxpayer = incident.Treated, true
	x.Treatment = []incident.Action{{What: "rotate keys", Owner: "kooka", Due: now}}
	missing := []string{"/cause", "/done", "/treatment/0", "/notified/assessed"}
	err := x.CanClose()
	for _, f := range missing {
		if err == nil || !strings.Contains(err.Error(), f+": ") {
			t.Errorf("%s is not asked for: %v", f, err)
		}
	}
	x.Cause, x.Done, x.Treatment[0].Done, x.Notified.Assessed, x.Notified.Eligible = "a key in a repository", "rotated", now, now, true
	if err := x.CanClose(); err == nil || !strings.Contains(err.Error(), "/notified/oaic: ") {
		t.Errorf("an eligible breach closes unnotified: %v", err)
	}
	x.Notified.OAIC = now
	if err := x.CanClose(); err != nil {
		t.Error(err)
	}
}

// What changes how the text around it is read is refused, or taken out of what
// is kept as it came.
func TestTextReadsAsItIsWritten(t *testing.T) {
	for _, s := range []string{"paid \u202e0001\u202c", "a\u200bb", "a\x1b[31m", "a\x00", "\ufeffa", "a\u2066b", "tfn 220\u00a0115\u00a0957"} {
		if incident.CheckText(s) == nil {
			t.Errorf("%q is let through", s)
		}
		if kept := incident.Harmless(s); incident.CheckText(kept) != nil {
			t.Errorf("%q is kept as %q", s, kept)
		}
	}
	if s := "naïve – “x”\n\tÅ"; incident.CheckText(s) != nil || incident.Harmless(s) != s {
		t.Errorf("%q is not let through", s)
	}
}
