package certification

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func now(t testing.TB) time.Time { return day(t, "2026-11-22") }

// answering marks answers to the self-certification for a profile. Evidence at
// an address "sha256:<type>…" is of that type.
func answering(t testing.TB, f *Framework, p Profile, answers map[string]Answer, exceptions ...Exception) *Marking {
	c := f.Catalogues[0]
	category, _ := c.Category(&p, f.Open)
	return f.Questionnaire(SelfCertification, c.Version).Mark(MarkInput{
		Profile: p, Applicable: c.Applicable(&p, f.Open), Answers: answers, Exceptions: exceptions, Now: now(t), Open: f.Open,
		EvidenceType: func(address string) (EvidenceType, bool) {
			typ, ok := strings.CutPrefix(address, "is:")
			return EvidenceType(typ), ok
		},
	}, category)
}

// good answers everything that is asked as somebody would who does it all.
func good(t testing.TB, f *Framework, p Profile) map[string]Answer {
	values := map[string][]string{
		"OSF-AUD.3": {"time", "user", "session", "event", "success", "equipment"}, "OSF-AUD.5": {"24"}, "OSF-AUT.2": {"everybody"}, "OSF-AUT.3": {"no"},
		"OSF-AUT.4": {"12"}, "OSF-AUT.5": {"none"}, "OSF-CER.1": {"iso27001"}, "OSF-CER.3": {"2027-06-30"}, "OSF-HST.2": {"no"}, "OSF-EKM.2": {"service"}, "OSF-EKM.3": {"no"},
		"OSF-EAR.1": {"disk"}, "OSF-EIT.1": {"1.3"}, "OSF-EIT.2": {"https://pay.example/"}, "OSF-PER.2": {"0"}, "OSF-MON.2": {"always"}, "OSF-ADD.2": {"90"}, "OSF-BRN.1": {"24"},
		"OSF-BRN.3": {"2026-05-01"}, "DEV-1.1": {"14"}, "DEV-2.2": {"2"},
	}
	answers := map[string]Answer{}
	for range 10 { // each round answers what the last one made asked
		m := answering(t, f, p, answers)
		for _, q := range m.Questions {
			if q.Answer == nil {
				v := values[q.ID]
				if v == nil && q.Kind == Free {
					v = []string{"As attached."}
				}
				if v == nil {
					v = []string{"yes"}
				}
				a := Answer{Values: v}
				if q.Evidence {
					a.Evidence = proofs(f, p, q.Requirement)
				}
				if err := q.CheckAnswer(Answer{Values: v}); err != nil {
					t.Fatalf("%s: %v", q.ID, err)
				}
				answers[q.ID] = a
			}
		}
	}
	return answers
}

func proofs(f *Framework, p Profile, requirement string) []string {
	for _, a := range f.Catalogues[0].Applicable(&p, f.Open) {
		if a.ID == requirement {
			return []string{"is:" + string(a.Level.Evidence[0])}
		}
	}
	return nil
}

func requirement(t testing.TB, m *Marking, id string) RequirementMark {
	t.Helper()
	i := slices.IndexFunc(m.Requirements, func(r RequirementMark) bool { return r.Requirement == id })
	if i < 0 {
		t.Fatalf("%s is not asked of it", id)
	}
	return m.Requirements[i]
}

func TestGoodAnswersPassForEveryone(t *testing.T) {
	f := framework(t)
	for name, p := range map[string]Profile{
		"C":        commercial(),
		"A":        with(func(p *Profile) { p.Records = 50_000 }),
		"D":        with(func(p *Profile) { p.ClientControlled, p.Scenario = true, 1 }),
		"in-house": with(func(p *Profile) { p.Scenario, p.Roles = 4, []Role{InHouse} }),
		"cloud":    with(func(p *Profile) { p.Scenario, p.ChainLength, p.Roles = 6, 2, Roles()[:3] }),
		"add-ons":  with(func(p *Profile) { p.AddOns, p.ClientList = 1, true }),
		"sends":    with(func(p *Profile) { p.SendingService = true }),
	} {
		m := answering(t, f, p, good(t, f, p))
		if m.Mark != Pass || len(m.Blockers()) != 0 {
			t.Errorf("%s: %v, blocked by %+v", name, m.Mark, m.Blockers())
		}
	}
}

// Scenario 2 of the domain model: without a second factor and with logging off.
func TestInexperiencedDeveloperIsToldWhatToDo(t *testing.T) {
	f := framework(t)
	p := with(func(p *Profile) { p.Scenario, p.ChainLength, p.Roles = 6, 2, Roles()[:3] })
	answers := good(t, f, p)
	answers["OSF-AUT.2"] = Answer{Values: []string{"nobody"}}
	answers["OSF-AUD.1"] = Answer{Values: []string{"no"}}
	m := answering(t, f, p, answers)
	if m.Mark != Fail || requirement(t, m, "OSF-AUT").Mark != Fail || requirement(t, m, "OSF-AUD").Mark != Fail || requirement(t, m, "OSF-CER").Mark != Pass {
		t.Fatalf("%+v", m.Requirements)
	}
	blockers := m.Blockers()
	if len(blockers) != 2 || blockers[0].Question != "OSF-AUD.1" || blockers[1].Question != "OSF-AUT.2" || !strings.Contains(blockers[1].Say, "passkey") {
		t.Errorf("blocked by %+v", blockers)
	}
	// What hangs on the log is not asked while there is none, and counts for nothing.
	if !slices.Contains(m.Unasked, "OSF-AUD.5") || slices.ContainsFunc(m.Questions, func(q Asked) bool { return q.ID == "OSF-AUD.5" }) {
		t.Errorf("unasked: %v", m.Unasked)
	}
}

func TestEachMarkAsItIsGiven(t *testing.T) {
	f := framework(t)
	a := with(func(p *Profile) { p.Records = 50_000 })
	d := with(func(p *Profile) { p.ClientControlled, p.Scenario = true, 1 })
	for name, x := range map[string]struct {
		p        Profile
		question string
		values   []string
		want     Mark
	}{
		"retention below a year":               {a, "OSF-AUD.5", []string{"11"}, Fail},
		"retention of a year":                  {a, "OSF-AUD.5", []string{"12"}, Pass},
		"entries without equipment":            {a, "OSF-AUD.3", []string{"time", "user", "event", "success"}, Warn},
		"entries without user":                 {a, "OSF-AUD.3", []string{"time", "event", "success"}, Fail},
		"self-assessed, category A":            {a, "OSF-CER.1", []string{"self"}, Fail},
		"self-assessed, category C":            {commercial(), "OSF-CER.1", []string{"self"}, Pass},
		"another scheme, category C":           {commercial(), "OSF-CER.1", []string{"other"}, Warn},
		"staff only, category C":               {commercial(), "OSF-AUT.2", []string{"staff"}, Fail},
		"staff only, client-controlled":        {d, "OSF-AUT.2", []string{"staff"}, Warn},
		"remembered for a day":                 {a, "OSF-AUT.4", []string{"24"}, Fail},
		"remembered for 23 hours":              {a, "OSF-AUT.4", []string{"23"}, Pass},
		"TLS 1.2 to the agency":                {a, "OSF-EIT.1", []string{"1.2"}, Fail},
		"offshore in spite of what it said":    {a, "OSF-HST.2", []string{"yes"}, Fail},
		"breach told after 25 h":               {a, "OSF-BRN.1", []string{"25"}, Fail},
		"nothing encrypted":                    {a, "OSF-EAR.1", []string{}, Fail},
		"alerts in business hours, category A": {a, "OSF-MON.2", []string{"business"}, Warn},
		"current after a quarter":              {a, "DEV-1.1", []string{"91"}, Fail},
	} {
		answers := good(t, f, x.p)
		one := answers[x.question]
		one.Values = x.values
		answers[x.question] = one
		m := answering(t, f, x.p, answers)
		i := slices.IndexFunc(m.Questions, func(q Asked) bool { return q.ID == x.question })
		if i < 0 {
			t.Errorf("%s: %s is not asked", name, x.question)
			continue
		}
		if q := m.Questions[i]; q.Mark != x.want || (q.Mark == Pass) != (q.Say == "") {
			t.Errorf("%s: marked %v (%s), want %v", name, q.Mark, q.Say, x.want)
		}
	}
}

func TestEvidenceIsMissed(t *testing.T) {
	f := framework(t)
	p := commercial()
	answers := good(t, f, p)
	for name, proofs := range map[string][]string{"none": nil, "of another type": {"is:screenshot"}, "not held": {"gone"}} {
		answers["OSF-AUD.6"] = Answer{Values: []string{"As attached."}, Evidence: proofs}
		m := answering(t, f, p, answers)
		b := m.Blockers()
		if m.Mark != Unanswered || len(b) != 1 || b[0].Question != "OSF-AUD.6" || !strings.Contains(b[0].Say, "sample of a log") {
			t.Errorf("%s: %v, %+v", name, m.Mark, b)
		}
	}
}

func TestExceptions(t *testing.T) {
	f := framework(t)
	p := commercial()
	answers := good(t, f, p)
	answers["OSF-PER.1"] = Answer{Values: []string{"no"}}
	e := Exception{Requirement: "OSF-PER", Control: "Only the owner has access.", Expires: now(t).AddDate(0, 3, 0), RequestedBy: "dev", ApprovedBy: "assessor"}
	mark := func(e Exception) Mark { return requirement(t, answering(t, f, p, answers, e), "OSF-PER").Mark }
	if mark(e) != Warn || len(answering(t, f, p, answers, e).Blockers()) != 0 {
		t.Error("an exception that holds does not count")
	}
	for name, change := range map[string]func(*Exception){
		"not approved":        func(e *Exception) { e.ApprovedBy = "" },
		"approved by oneself": func(e *Exception) { e.ApprovedBy = e.RequestedBy },
		"expired":             func(e *Exception) { e.Expires = now(t) },
		"of another":          func(e *Exception) { e.Requirement = "OSF-AUD" },
	} {
		x := e
		change(&x)
		if mark(x) != Fail {
			t.Errorf("%s: it counts", name)
		}
	}
	for field, change := range map[string]func(*Exception){
		"/requirement":          func(e *Exception) { e.Requirement = "OSF-XXX" },
		"/compensating_control": func(e *Exception) { e.Control = "the TFN 220 115 957" },
		"/expires_at":           func(e *Exception) { e.Expires = AddMonths(now(t), 13) },
		"/approved_by":          func(e *Exception) { e.ApprovedBy = "dev" },
	} {
		x := e
		change(&x)
		var got *FieldError
		if err := x.Check(f.Catalogues[0], now(t)); !asField(err, &got) || got.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if err := e.Check(f.Catalogues[0], now(t)); err != nil {
		t.Error(err)
	}
}

func TestAnswersRefused(t *testing.T) {
	q := func(kind QuestionKind) *Question {
		x := &Question{ID: "X.1", Kind: kind}
		if kind == Choice || kind == Choose {
			x.Choices = []Option{{"a", "A"}, {"b", "B"}}
		}
		return x
	}
	for _, x := range []struct {
		kind   QuestionKind
		values []string
		ok     bool
	}{
		{YesNo, []string{"yes"}, true}, {YesNo, []string{"Yes"}, false}, {YesNo, nil, false}, {YesNo, []string{"yes", "no"}, false},
		{Choice, []string{"a"}, true}, {Choice, []string{"c"}, false},
		{Choose, nil, true}, {Choose, []string{"a", "b"}, true}, {Choose, []string{"a", "a"}, false},
		{Number, []string{"0"}, true}, {Number, []string{"-1"}, false}, {Number, []string{"+1"}, false}, {Number, []string{"01"}, false}, {Number, []string{"1e3"}, false}, {Number, []string{"99999999999999999999"}, false},
		{Date, []string{"2026-02-28"}, true}, {Date, []string{"2026-02-30"}, false}, {Date, []string{"28/02/2026"}, false},
		{Free, []string{"We do."}, true}, {Free, []string{" "}, false}, {Free, []string{"tfn 220115957"}, false}, {Free, []string{"\x1b[2J"}, false}, {Free, []string{strings.Repeat("x", 2001)}, false}, {Free, []string{"\xff"}, false},
		{HTTPS, []string{"https://a.example/x"}, true}, {HTTPS, []string{"http://a.example"}, false}, {HTTPS, []string{"https://u:p@a.example"}, false}, {HTTPS, []string{"https://"}, false},
	} {
		err := q(x.kind).CheckAnswer(Answer{Values: x.values})
		var f *FieldError
		if (err == nil) != x.ok || err != nil && !asField(err, &f) {
			t.Errorf("%s %q: %v", x.kind, x.values, err)
		}
	}
	if err := q(YesNo).CheckAnswer(Answer{Values: []string{"yes"}, Evidence: []string{"sha256:zz"}}); err == nil {
		t.Error("an address that is none was taken")
	}
}

// Whatever is answered: what is asked, is asked of what applies; the worst wins;
// blockers stand in the way exactly when something fails or is open; and
// answering again in another order changes nothing.
func TestMarkingOfAnyAnswers(t *testing.T) {
	f := framework(t)
	c := f.Catalogues[0]
	q := f.Questionnaire(SelfCertification, c.Version)
	rapid.Check(t, func(rt *rapid.T) {
		p := anyProfile(rt)
		answers := map[string]Answer{}
		for _, x := range q.Questions {
			if rapid.Bool().Draw(rt, "answered "+x.ID) {
				answers[x.ID] = anyAnswer(rt, &x)
			}
		}
		m := answering(t, f, p, answers)
		applies := strings.Fields(ids(c.Applicable(&p, f.Open)))
		if len(m.Requirements) != len(applies) {
			rt.Fatalf("%d requirements marked, %d apply", len(m.Requirements), len(applies))
		}
		worst := map[string]Mark{}
		for _, x := range m.Questions {
			if !slices.Contains(applies, x.Requirement) {
				rt.Fatalf("%s is asked of what does not apply", x.ID)
			}
			worst[x.Requirement] = max(worst[x.Requirement], x.Mark)
		}
		var all Mark
		for _, r := range m.Requirements {
			if w := worst[r.Requirement]; w != Unmarked && w != r.Mark {
				rt.Fatalf("%s is marked %v, its worst answer %v", r.Requirement, r.Mark, w)
			}
			all = max(all, r.Mark)
		}
		if m.Mark != all || (all >= Unanswered) != (len(m.Blockers()) > 0) {
			rt.Fatalf("marked %v, worst %v, blockers %+v", m.Mark, all, m.Blockers())
		}
		if d := cmp.Diff(m.Requirements, answering(t, f, p, answers).Requirements); d != "" {
			rt.Fatal(d)
		}
	})
}

func anyAnswer(t *rapid.T, q *Question) Answer {
	var a Answer
	switch q.Kind {
	case YesNo:
		a.Values = []string{rapid.SampledFrom([]string{"yes", "no"}).Draw(t, q.ID)}
	case Choice, Choose:
		var words []string
		for _, o := range q.Choices {
			words = append(words, o.Value)
		}
		n := 1
		if q.Kind == Choose {
			n = rapid.IntRange(0, len(words)).Draw(t, "n")
		}
		a.Values = rapid.Permutation(words).Draw(t, q.ID)[:n]
	case Number:
		a.Values = []string{rapid.SampledFrom([]string{"0", "2", "11", "12", "24", "25", "91"}).Draw(t, q.ID)}
	case Date:
		a.Values = []string{"2026-01-01"}
	case HTTPS:
		a.Values = []string{"https://a.example/"}
	case Free:
		a.Values = []string{"text"}
	}
	if rapid.Bool().Draw(t, "evidence") {
		a.Evidence = []string{"is:" + string(rapid.SampledFrom([]EvidenceType{Certificate, Workbook, Policy, Screenshot, SampleLog, Attestation}).Draw(t, "type"))}
	}
	return a
}

func TestEcosystemQuestionnaire(t *testing.T) {
	f := framework(t)
	q := f.Questionnaire(Ecosystem, "")
	mark := func(answers map[string]Answer) *Marking {
		return q.Mark(MarkInput{Profile: commercial(), Answers: answers, Now: now(t), Open: f.Open}, "C")
	}
	one := func(v string) Answer { return Answer{Values: []string{v}} }
	if m := mark(map[string]Answer{"ECO.1": one("no")}); m.Mark != Pass || len(m.Questions) != 1 {
		t.Errorf("without add-ons: %v, %d questions", m.Mark, len(m.Questions))
	}
	m := mark(map[string]Answer{"ECO.1": one("yes"), "ECO.3": one("yes"), "ECO.6": one("none")})
	if m.Mark != Fail || !slices.ContainsFunc(m.Blockers(), func(b Blocker) bool { return b.Question == "ECO.6" && strings.Contains(b.Say, "lists of clients") }) {
		t.Errorf("%v %+v", m.Mark, m.Blockers())
	}
}
