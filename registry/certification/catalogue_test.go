package certification

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// commercial is a product of the ordinary sort, few records, low risk.
func commercial() Profile {
	return Profile{Roles: []Role{Developer, ServiceProvider}, Scenario: 2, ChainLength: 1, Commercial: true, Records: 500, MaxRisk: 2}
}

func with(change func(*Profile)) Profile {
	p := commercial()
	change(&p)
	return p
}

func TestCategories(t *testing.T) {
	f := framework(t)
	c := f.Catalogues[0]
	for name, x := range map[string]struct {
		p    Profile
		want Category
	}{
		"low risk, few":              {commercial(), "C"},
		"no risk, any volume":        {with(func(p *Profile) { p.MaxRisk, p.Records = 1, 1e6 }), "C"},
		"no service yet":             {with(func(p *Profile) { p.MaxRisk, p.Records = 0, 1e6 }), "C"},
		"low risk, many":             {with(func(p *Profile) { p.Records = 10_001 }), "A"},
		"low risk, one below":        {with(func(p *Profile) { p.Records = 9_999 }), "C"},
		"low risk, exactly 10,000":   {with(func(p *Profile) { p.Records = 10_000 }), "A"},
		"medium risk, few":           {with(func(p *Profile) { p.MaxRisk = 3 }), "B"},
		"high risk, few":             {with(func(p *Profile) { p.MaxRisk, p.Records = 4, 9_999 }), "B"},
		"high risk, many":            {with(func(p *Profile) { p.MaxRisk, p.Records = 4, 10_001 }), "A"},
		"sending service":            {with(func(p *Profile) { p.SendingService = true; p.Records = 1 }), "A"},
		"client-controlled":          {with(func(p *Profile) { p.ClientControlled, p.Records, p.MaxRisk = true, 1e6, 4 }), "D"},
		"client-controlled, free":    {with(func(p *Profile) { p.ClientControlled, p.Commercial = true, false }), "E"},
		"in-house":                   {with(func(p *Profile) { p.Scenario, p.Roles = 4, []Role{InHouse} }), "E"},
		"not commercial, many":       {with(func(p *Profile) { p.Commercial, p.Records = false, 20_000 }), "B"},
		"not commercial, few, low":   {with(func(p *Profile) { p.Commercial = false }), "C"},
		"not commercial, few, risky": {with(func(p *Profile) { p.Commercial, p.MaxRisk = false, 3 }), "B"},
	} {
		got, because := c.Category(&x.p, f.Open)
		if got != x.want || because == "" {
			t.Errorf("%s: category %q (%s), want %s", name, got, because, x.want)
		}
	}
}

// Exactly 10,000 and the category of in-house products are open questions.
func TestCategoriesByConfiguration(t *testing.T) {
	c := framework(t).Catalogues[0]
	open := OpenDefaults()
	open.ExactlyMany, open.InHouseCategory = false, "C"
	p := with(func(p *Profile) { p.Records = 10_000 })
	if got, _ := c.Category(&p, open); got != "C" {
		t.Errorf("exactly 10,000, configured as few: %s", got)
	}
	p = with(func(p *Profile) { p.Scenario, p.Roles = 4, []Role{InHouse} })
	if got, _ := c.Category(&p, open); got != "C" {
		t.Errorf("in-house, configured as C: %s", got)
	}
	_, because := c.Category(ptr(with(func(p *Profile) { p.Records = 10_000 })), OpenDefaults())
	if !strings.Contains(because, "Exactly 10000") {
		t.Errorf("the reason does not say that exactly 10,000 was decided: %s", because)
	}
}

func ptr[T any](v T) *T { return &v }

// A category always comes out, and more risk or more records never lighten it.
func TestCategoryIsMonotone(t *testing.T) {
	f := framework(t)
	c := f.Catalogues[0]
	rapid.Check(t, func(t *rapid.T) {
		p := anyProfile(t)
		q := p
		q.MaxRisk = Risk(rapid.IntRange(int(p.MaxRisk), 4).Draw(t, "more risk"))
		q.Records = rapid.Uint64Range(p.Records, p.Records+50_000).Draw(t, "more records")
		a, _ := c.Category(&p, f.Open)
		b, _ := c.Category(&q, f.Open)
		if !slices.Contains(Categories(), a) || b > a {
			t.Fatalf("%+v is %q, %+v is %q", p, a, q, b)
		}
	})
}

func anyProfile(t *rapid.T) Profile {
	return Profile{
		Roles:            rapid.SliceOfNDistinct(rapid.SampledFrom(Roles()), 1, 4, rapid.ID[Role]).Draw(t, "roles"),
		Scenario:         uint8(rapid.IntRange(1, 6).Draw(t, "scenario")),
		ChainLength:      rapid.IntRange(1, 4).Draw(t, "chain"),
		ClientControlled: rapid.Bool().Draw(t, "client"),
		Commercial:       rapid.Bool().Draw(t, "commercial"),
		Offshore:         rapid.Bool().Draw(t, "offshore"),
		SendingService:   rapid.Bool().Draw(t, "ssp"),
		Records:          rapid.SampledFrom([]uint64{0, 9_999, 10_000, 10_001, 1e6}).Draw(t, "records"),
		MaxRisk:          Risk(rapid.IntRange(0, 4).Draw(t, "risk")),
		Connections:      rapid.SampledFrom([]uint64{0, 1000, 1001}).Draw(t, "connections"),
		ClientList:       rapid.Bool().Draw(t, "list"),
		AddOns:           rapid.IntRange(0, 2).Draw(t, "add-ons"),
	}
}

func ids(all []Applicable) string {
	var out []string
	for _, a := range all {
		if a.Subject == OfProduct {
			out = append(out, a.ID)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestApplicability(t *testing.T) {
	f := framework(t)
	c := f.Catalogues[0]
	for name, x := range map[string]struct {
		p    Profile
		want string
	}{
		"category C, one entity": {commercial(), "DEV-1 DEV-2 OSF-AUD OSF-AUT OSF-BRN OSF-CER OSF-EAR OSF-EIT OSF-EKM OSF-ENV OSF-HST OSF-MON OSF-PER"},
		"third party's cloud": {with(func(p *Profile) {
			p.Scenario, p.ChainLength, p.Roles = 6, 2, []Role{Developer, ServiceProvider, CloudProvider}
		}),
			"CLD-1 DEV-1 DEV-2 OSF-AUD OSF-AUT OSF-BRN OSF-CER OSF-EAR OSF-EIT OSF-EKM OSF-ENV OSF-HST OSF-MON OSF-PER OSF-SCV"},
		"client-controlled": {with(func(p *Profile) { p.Scenario, p.ClientControlled, p.Roles = 1, true, []Role{Developer} }), "DEV-1 DEV-2 OSF-AUD OSF-AUT OSF-BRN OSF-CER OSF-EIT OSF-ENV"},
		"in-house":          {with(func(p *Profile) { p.Scenario, p.Roles = 4, []Role{InHouse} }), "DEV-1 OSF-AUD OSF-AUT OSF-BRN OSF-CER OSF-EIT"},
		"with add-ons":      {with(func(p *Profile) { p.AddOns, p.Connections = 3, 1001 }), "DEV-1 DEV-2 OSF-ADD OSF-AUD OSF-AUT OSF-BRN OSF-CER OSF-EAR OSF-EIT OSF-EKM OSF-ENV OSF-HST OSF-MON OSF-PER"},
		"small add-ons":     {with(func(p *Profile) { p.AddOns, p.Connections = 3, 1000 }), ids(c.Applicable(ptr(commercial()), f.Open))},
	} {
		if got := ids(c.Applicable(&x.p, f.Open)); got != x.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, x.want)
		}
	}
}

// Levels follow the category, and the reason names the facts.
func TestLevelsAndReasons(t *testing.T) {
	f := framework(t)
	find := func(p Profile, id string) Applicable {
		all := f.Catalogues[0].Applicable(&p, f.Open)
		i := slices.IndexFunc(all, func(a Applicable) bool { return a.ID == id })
		if i < 0 {
			t.Fatalf("%s does not apply", id)
		}
		return all[i]
	}
	a := find(with(func(p *Profile) { p.Records = 20_000 }), "OSF-CER")
	if d := cmp.Diff([]EvidenceType{Certificate}, a.Level.Evidence); d != "" || !strings.Contains(a.Because(), "category A") {
		t.Errorf("%s %s", d, a.Because())
	}
	if a := find(commercial(), "OSF-CER"); !slices.Contains(a.Level.Evidence, Workbook) {
		t.Errorf("category C may not assess itself: %v", a.Level.Evidence)
	}
	if a := find(with(func(p *Profile) { p.Offshore = true }), "OSF-HST"); !slices.Equal(a.Level.Evidence, []EvidenceType{ExceptionLetter}) || !strings.Contains(a.Because(), "hosting offshore") {
		t.Errorf("offshore: %v, %s", a.Level.Evidence, a.Because())
	}
	if a := find(with(func(p *Profile) { p.ClientControlled = true }), "OSF-AUT"); a.Level.Strength != WhereControlled {
		t.Errorf("client-controlled: %s", a.Level.Strength)
	}
	if a := find(commercial(), "OSF-PER"); !strings.Contains(a.Because(), "role SP") {
		t.Errorf("the reason does not name the bearer: %s", a.Because())
	}
}

func TestNewVersionReopens(t *testing.T) {
	f, err := Load(OpenDefaults(), os.DirFS("testdata/next"))
	if err != nil {
		t.Fatal(err)
	}
	old, next := f.Catalogues[0], f.Catalogues[1]
	p := with(func(p *Profile) { p.Records = 20_000 }) // A
	type row struct{ ID, Due, Because string }
	var got []row
	for _, r := range old.Reopens(next, &p, f.Open) {
		got = append(got, row{r.Requirement, r.DueBy.Format("2006-01-02"), strings.SplitN(r.Because, " ", 2)[0]})
	}
	want := []row{{"OSF-AUD", "2027-06-30", "Revised"}, {"OSF-BAK", "2027-03-02", "New"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if again := old.Reopens(next, ptr(commercial()), f.Open); len(again) != 1 || again[0].Requirement != "OSF-AUD" {
		t.Errorf("category C is asked again for %v", again)
	}
	if none := next.Reopens(next, &p, f.Open); len(none) != 0 {
		t.Errorf("the same version reopens %v", none)
	}
}

// Reopening never asks for what does not apply, and never for what was shown as
// it is asked now.
func TestReopensOnlyWhatItMust(t *testing.T) {
	f, err := Load(OpenDefaults(), os.DirFS("testdata/next"))
	if err != nil {
		t.Fatal(err)
	}
	old, next := f.Catalogues[0], f.Catalogues[1]
	rapid.Check(t, func(t *rapid.T) {
		p := anyProfile(t)
		applies := strings.Fields(ids(next.Applicable(&p, f.Open)))
		for _, r := range old.Reopens(next, &p, f.Open) {
			if !slices.Contains(applies, r.Requirement) {
				t.Fatalf("%s does not apply", r.Requirement)
			}
			if r.Requirement != "OSF-AUD" && r.Requirement != "OSF-BAK" {
				t.Fatalf("%s did not change", r.Requirement)
			}
			if r.DueBy.Before(next.Effective.Time) {
				t.Fatalf("%s is due before it is asked", r.Requirement)
			}
		}
	})
}

func TestProfilesRefused(t *testing.T) {
	for field, change := range map[string]func(*Profile){
		"/scenario":     func(p *Profile) { p.Scenario = 7 },
		"/max_risk":     func(p *Profile) { p.MaxRisk = 5 },
		"/roles":        func(p *Profile) { p.Roles = nil },
		"/roles/0":      func(p *Profile) { p.Roles = []Role{"X"} },
		"/chain_length": func(p *Profile) { p.ChainLength = 0 },
	} {
		p := with(change)
		var f *FieldError
		if err := p.Check(); !asField(err, &f) || f.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if err := ptr(commercial()).Check(); err != nil {
		t.Error(err)
	}
}

func TestMaterialChanges(t *testing.T) {
	f := framework(t)
	c := f.Catalogues[0]
	base := Situation{Profile: commercial(), Owner: "o", Hosting: "h", Authentication: "a"}
	everything := ids(c.Applicable(&base.Profile, f.Open))
	for name, x := range map[string]struct {
		change  func(*Situation)
		kinds   string
		reopens string
	}{
		"nothing":        {func(*Situation) {}, "", ""},
		"more records":   {func(s *Situation) { s.Profile.Records = 600 }, "", ""},
		"hosting":        {func(s *Situation) { s.Hosting = "x" }, "hosting", "OSF-CER OSF-EAR OSF-EIT OSF-EKM OSF-HST"},
		"authentication": {func(s *Situation) { s.Authentication = "x" }, "authentication", "OSF-AUD OSF-AUT"},
		"ownership":      {func(s *Situation) { s.Owner = "x" }, "ownership", everything},
		"higher risk":    {func(s *Situation) { s.Profile.MaxRisk = 3 }, "higher-risk service,category", "OSF-AUD OSF-AUT OSF-CER OSF-MON"},
		"lower risk":     {func(s *Situation) { s.Profile.MaxRisk = 1 }, "", ""},
		"volume":         {func(s *Situation) { s.Profile.Records = 10_000 }, "volume,category", "OSF-CER OSF-MON"},
		"a cloud joins": {func(s *Situation) {
			s.Profile.Scenario, s.Profile.ChainLength, s.Profile.Roles = 6, 2, []Role{Developer, ServiceProvider, CloudProvider}
		}, "delivery chain", "CLD-1 OSF-PER OSF-SCV"},
		"offshore": {func(s *Situation) { s.Profile.Offshore = true }, "hosting", "OSF-CER OSF-EAR OSF-EIT OSF-EKM OSF-HST"},
	} {
		t.Run(name, func(t *testing.T) {
			after := base
			x.change(&after)
			var kinds, reopens []string
			for _, m := range c.MaterialChanges(&base, &after, f.Open) {
				kinds = append(kinds, string(m.Kind))
				reopens = append(reopens, m.Reopens...)
				if m.Because == "" {
					t.Error("no reason")
				}
			}
			slices.Sort(reopens)
			if got := strings.Join(kinds, ","); got != x.kinds {
				t.Errorf("kinds %q, want %q", got, x.kinds)
			}
			if got := strings.Join(slices.Compact(reopens), " "); got != x.reopens {
				t.Errorf("reopens %q, want %q", got, x.reopens)
			}
		})
	}
}
