package certification

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The table of the domain model (§9): what a DSP is asked, as seen from SSAM,
// and what Intuit asks.
func TestGapsOfTheTable(t *testing.T) {
	s := framework(t).Standards
	for pair, want := range map[[2]string]map[string]Coverage{
		{"SSAM", "OSF"}: {
			"SSAM-1": Weaker, "SSAM-2": Stronger, "SSAM-3": CoveredBy, "SSAM-4": CoveredBy, "SSAM-5": Absent, "SSAM-6": CoveredBy,
			"SSAM-7": CoveredBy, "SSAM-8": Stronger, "SSAM-9": Stronger, "SSAM-10": CoveredBy, "SSAM-11": CoveredBy, "SSAM-12": Unknown,
		},
		{"SSAM", "INTUIT"}: {
			"SSAM-1": CoveredBy, "SSAM-2": CoveredBy, "SSAM-3": Unknown, "SSAM-4": CoveredBy, "SSAM-5": CoveredBy, "SSAM-6": CoveredBy,
			"SSAM-7": Unknown, "SSAM-8": Absent, "SSAM-9": Absent, "SSAM-10": Unknown, "SSAM-11": Unknown, "SSAM-12": Unknown,
		},
		{"OSF", "SSAM"}: {"SSAM-1": Stronger, "SSAM-2": Weaker, "SSAM-12": Unknown, "OSF-1": Weaker, "OSF-2": Unknown},
	} {
		g, err := s.Compare(pair[0], pair[1])
		if err != nil {
			t.Fatal(err)
		}
		for id, c := range want {
			i := slices.IndexFunc(g.Rows, func(r GapRow) bool { return r.Control == id })
			if i < 0 || g.Rows[i].Coverage != c {
				t.Errorf("%v, %s: want %s, row %d of %+v", pair, id, c, i, g.Rows)
			}
		}
		total := 0
		for _, n := range g.Counts {
			total += n
		}
		if total != len(g.Rows) {
			t.Errorf("%v: counts add up to %d of %d", pair, total, len(g.Rows))
		}
	}
	// What one standard does not ask is no gap of the other.
	g, err := s.Compare("OSF", "SSAM")
	if err != nil || slices.ContainsFunc(g.Rows, func(r GapRow) bool { return r.Control == "SSAM-5" }) {
		t.Errorf("%v: OSF is shown to ask for SSAM-5", err)
	}
	if _, err := s.Compare("SSAM", "PCI"); err == nil || !strings.Contains(err.Error(), "INTUIT") {
		t.Errorf("an unknown standard: %v", err)
	}
}

// Unknown survives, comparing is its own mirror image, and a standard covers
// itself.
func TestGapsOfAnyTwoStandards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		level := rapid.Custom(func(t *rapid.T) Demand {
			if rapid.IntRange(0, 3).Draw(t, "seen") == 0 {
				return Demand{}
			}
			return Demand{Level: ptr(rapid.IntRange(0, 3).Draw(t, "level"))}
		})
		s := Standards{Version: "1", Standards: []Standard{{ID: "X", Name: "x"}, {ID: "Y", Name: "y"}}}
		for i := range rapid.IntRange(1, 12).Draw(t, "controls") {
			s.Controls = append(s.Controls, Control{ID: string(rune('a' + i)), Title: "t", Demands: map[string]Demand{"X": level.Draw(t, "x"), "Y": level.Draw(t, "y")}})
		}
		if err := s.check(func(string) bool { return false }); err != nil {
			t.Fatal(err)
		}
		there, err := s.Compare("X", "Y")
		if err != nil {
			t.Fatal(err)
		}
		back, _ := s.Compare("Y", "X")
		mirror := map[Coverage]Coverage{CoveredBy: CoveredBy, Stronger: Weaker, Weaker: Stronger, Unknown: Unknown}
		for _, r := range there.Rows {
			c := s.Controls[slices.IndexFunc(s.Controls, func(c Control) bool { return c.ID == r.Control })]
			if (r.Coverage == Unknown) != (c.Demands["X"].Level == nil || c.Demands["Y"].Level == nil) {
				t.Fatalf("%s: %s of %+v", r.Control, r.Coverage, c.Demands)
			}
			i := slices.IndexFunc(back.Rows, func(b GapRow) bool { return b.Control == r.Control })
			if r.Coverage == Absent && i >= 0 || r.Coverage != Absent && r.Coverage != Unknown && (i < 0 || back.Rows[i].Coverage != mirror[r.Coverage]) {
				t.Fatalf("%s is %s there and %d of %+v back", r.Control, r.Coverage, i, back.Rows)
			}
		}
		self, _ := s.Compare("X", "X")
		for _, r := range self.Rows {
			if r.Coverage != CoveredBy && r.Coverage != Unknown {
				t.Fatalf("X does not cover itself: %+v", r)
			}
		}
	})
}

func TestAddMonths(t *testing.T) {
	for _, x := range []struct {
		from   string
		months int
		want   string
	}{
		{"2028-02-29", 12, "2029-02-28"}, {"2027-02-28", 12, "2028-02-28"}, {"2026-08-31", 6, "2027-02-28"}, {"2026-01-31", 1, "2026-02-28"},
		{"2026-12-15", 1, "2027-01-15"}, {"2026-11-22", 24, "2028-11-22"},
	} {
		if got := AddMonths(day(t, x.from), x.months).Format(time.DateOnly); got != x.want {
			t.Errorf("%s and %d months make %s, want %s", x.from, x.months, got, x.want)
		}
	}
}

func TestValidity(t *testing.T) {
	f := framework(t)
	at := now(t)
	shown := func(typ EvidenceType, expires, first string) Shown {
		s := Shown{Address: "sha256:" + string(typ), Type: typ}
		if expires != "" {
			s.Expires = day(t, expires)
		}
		if first != "" {
			s.FirstApproved = day(t, first)
		}
		return s
	}
	for name, x := range map[string]struct {
		evidence []Shown
		until    string
		review   string
	}{
		"no evidence ends":           {[]Shown{shown(Policy, "", "")}, "2027-11-22", "2027-11-22"},
		"a certificate ends first":   {[]Shown{shown(Certificate, "2027-06-30", ""), shown(Certificate, "2027-08-01", "")}, "2027-06-30", "2027-06-30"},
		"a certificate of years":     {[]Shown{shown(Certificate, "2029-06-30", "")}, "2027-11-22", "2027-11-22"},
		"a workbook of two years":    {[]Shown{shown(Workbook, "", "2025-03-01")}, "2027-03-01", "2027-03-01"},
		"a fresh workbook":           {[]Shown{shown(Workbook, "", "2026-11-22")}, "2027-11-22", "2027-11-22"},
		"an exception ends earliest": {[]Shown{shown(ExceptionLetter, "2026-12-01", ""), shown(Certificate, "2027-06-30", "")}, "2026-12-01", "2026-12-01"},
	} {
		p, err := Validity(at, x.evidence, f.Open)
		if err != nil || p.Until.Format(time.DateOnly) != x.until || p.Review.Format(time.DateOnly) != x.review || p.Because == "" {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	for name, e := range map[string]Shown{"a certificate that ended": shown(Certificate, "2026-11-22", ""), "a workbook of three years": shown(Workbook, "", "2023-11-22")} {
		if _, err := Validity(at, []Shown{e}, f.Open); err == nil {
			t.Errorf("%s: approved", name)
		}
	}
	if p := Interim(at, f.Open); p.Until.Format(time.DateOnly) != "2027-05-22" {
		t.Errorf("interim until %s", p.Until)
	}
}

// An approval never outlives its evidence nor the cap, and always has a while to run.
func TestValidityOfAnyEvidence(t *testing.T) {
	f := framework(t)
	at := now(t)
	rapid.Check(t, func(t *rapid.T) {
		var all []Shown
		for range rapid.IntRange(0, 6).Draw(t, "pieces") {
			s := Shown{Type: rapid.SampledFrom([]EvidenceType{Certificate, Workbook, Policy}).Draw(t, "type")}
			if rapid.Bool().Draw(t, "ends") {
				s.Expires = at.AddDate(0, 0, rapid.IntRange(-10, 900).Draw(t, "days"))
			}
			if s.Type == Workbook {
				s.FirstApproved = at.AddDate(0, 0, -rapid.IntRange(0, 800).Draw(t, "age"))
			}
			all = append(all, s)
		}
		p, err := Validity(at, all, f.Open)
		ended := slices.ContainsFunc(all, func(s Shown) bool { return !s.Ends().IsZero() && !s.Ends().After(at) })
		if (err != nil) != ended {
			t.Fatalf("%v with %+v", err, all)
		}
		if err != nil {
			return
		}
		for _, s := range all {
			if end := s.Ends(); !end.IsZero() && p.Until.After(end) {
				t.Fatalf("valid until %s beyond %s", p.Until, end)
			}
		}
		if !p.Until.After(at) || p.Until.After(AddMonths(at, 12)) || p.Review.After(p.Until) {
			t.Fatalf("%+v", p)
		}
	})
}

func TestAddOns(t *testing.T) {
	at := now(t)
	add := func(change func(*AddOn)) AddOn {
		a := AddOn{ProductID: "FP-1001", Name: "Time sheets", Developer: "Quoll Apps", Connections: 1000, Assessed: at.AddDate(0, -3, 0)}
		change(&a)
		return a
	}
	for name, x := range map[string]struct {
		a      AddOn
		listed bool
		mark   Mark
	}{
		"exactly 1,000 connections":   {add(func(*AddOn) {}), false, Pass},
		"more than 1,000":             {add(func(a *AddOn) { a.Connections = 1001 }), true, Pass},
		"client list, one connection": {add(func(a *AddOn) { a.ClientList, a.Connections = true, 1 }), true, Pass},
		"never assessed":              {add(func(a *AddOn) { a.ClientList, a.Assessed = true, time.Time{} }), true, Fail},
		"never assessed, not listed":  {add(func(a *AddOn) { a.Assessed = time.Time{} }), false, Pass},
		"assessed a year ago":         {add(func(a *AddOn) { a.ClientList, a.Assessed = true, at.AddDate(-1, 0, 0) }), true, Fail},
		"assessed almost a year ago":  {add(func(a *AddOn) { a.ClientList, a.Assessed = true, at.AddDate(-1, 0, 20) }), true, Warn},
	} {
		s := x.a.Standing(at)
		if s.Listed != x.listed || s.Mark != x.mark || s.Because == "" || s.Overdue != (x.mark == Fail) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	for field, change := range map[string]func(*AddOn){
		"/name":      func(a *AddOn) { a.Name = " " },
		"/developer": func(a *AddOn) { a.Developer = "" },
		"/ssids/0":   func(a *AddOn) { a.SSIDs = []string{"1"} },
		"/ssids/1":   func(a *AddOn) { a.SSIDs = []string{"0000123400", "0000123400"} },
	} {
		a := add(change)
		var f *FieldError
		if err := a.Check(); !asField(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestThreatAnalyses(t *testing.T) {
	good := func() ThreatAnalysis {
		return ThreatAnalysis{Title: "Add-ons of 2026", Scope: "Everything behind the API", Method: "STRIDE", Threats: []Threat{
			{Title: "Stolen tokens", Scenario: "An add-on leaks its tokens.", Likelihood: "medium", Impact: "high", Treatment: "reduce", Control: "Short-lived tokens"},
		}}
	}
	a := good()
	if err := a.Check(); err != nil || a.Threats[0].Exposure() != 6 {
		t.Errorf("%v, exposure %d", err, a.Threats[0].Exposure())
	}
	for field, change := range map[string]func(*ThreatAnalysis){
		"/title":                func(a *ThreatAnalysis) { a.Title = "" },
		"/scope":                func(a *ThreatAnalysis) { a.Scope = "of 220 115 957" },
		"/threats":              func(a *ThreatAnalysis) { a.Threats = nil },
		"/threats/0/likelihood": func(a *ThreatAnalysis) { a.Threats[0].Likelihood = "certain" },
		"/threats/0/treatment":  func(a *ThreatAnalysis) { a.Threats[0].Treatment = "ignore" },
		"/threats/0/control":    func(a *ThreatAnalysis) { a.Threats[0].Control = "" },
		"/evidence/0":           func(a *ThreatAnalysis) { a.Evidence = []string{"x"} },
	} {
		a := good()
		change(&a)
		var f *FieldError
		if err := a.Check(); !asField(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// Conditions hold as they are written, and what is unknown holds of nothing.
func TestConditions(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	facts := Facts{"a": {"x"}, "n": {"12"}, "many": {"x", "y"}, "word": {"z"}}
	for name, x := range map[string]struct {
		c    Condition
		want bool
	}{
		"nothing":          {Condition{}, true},
		"in":               {Condition{Fact: "a", In: []string{"x", "z"}}, true},
		"not in":           {Condition{Fact: "a", In: []string{"z"}}, false},
		"one of many":      {Condition{Fact: "many", In: []string{"y"}}, true},
		"at least":         {Condition{Fact: "n", AtLeast: n(12)}, true},
		"below":            {Condition{Fact: "n", Below: n(12)}, false},
		"between":          {Condition{Fact: "n", AtLeast: n(10), Below: n(13)}, true},
		"number of a word": {Condition{Fact: "word", AtLeast: n(0)}, false},
		"number of many":   {Condition{Fact: "many", AtLeast: n(0)}, false},
		"unknown":          {Condition{Fact: "gone", In: []string{"x"}}, false},
		"not unknown":      {Condition{Not: &Condition{Fact: "gone", In: []string{"x"}}}, true},
		"all":              {Condition{All: []Condition{{Fact: "a", In: []string{"x"}}, {Fact: "n", AtLeast: n(99)}}}, false},
		"any":              {Condition{Any: []Condition{{Fact: "a", In: []string{"q"}}, {Fact: "n", AtLeast: n(1)}}}, true},
		"fact and any":     {Condition{Fact: "a", In: []string{"x"}, Any: []Condition{{Fact: "a", In: []string{"q"}}}}, false},
	} {
		if got := x.c.Holds(facts); got != x.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	deep := Condition{Fact: "a", In: []string{"x"}}
	for range conditionDepthMax + 1 {
		deep = Condition{All: []Condition{deep}}
	}
	if err := deep.check(func(string) bool { return true }, 0); err == nil {
		t.Error("endless nesting was taken")
	}
	c := Condition{All: []Condition{{Fact: "many", In: []string{"y"}}, {Fact: "n", AtLeast: n(1)}}}
	if d := cmp.Diff([]string{"many y", "n 12"}, c.Why(facts)); d != "" {
		t.Error(d)
	}
}
