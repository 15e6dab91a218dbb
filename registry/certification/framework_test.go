package certification

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func asField(err error, field **FieldError) bool {
	return errors.As(err, field) && errors.Is(err, ErrInvalid)
}

// What is embedded loads, and asks about everything it demands.
func TestEmbeddedFramework(t *testing.T) {
	f := framework(t)
	for _, c := range f.Catalogues {
		q := f.Questionnaire(SelfCertification, c.Version)
		if q == nil {
			t.Fatalf("no questionnaire asks about catalogue %s", c.Version)
		}
		for _, r := range c.Requirements {
			if r.Subject != OfProduct {
				continue
			}
			of := slices.DeleteFunc(slices.Clone(q.Questions), func(x Question) bool { return x.Requirement != r.ID })
			if len(of) == 0 {
				t.Errorf("nothing is asked about %s", r.ID)
			}
			if !slices.ContainsFunc(of, func(x Question) bool { return x.Evidence }) {
				t.Errorf("no question about %s asks for evidence", r.ID)
			}
		}
	}
	if f.Questionnaire(Ecosystem, "") == nil {
		t.Error("there is no questionnaire about ecosystems")
	}
	want := strings.Fields("REG-1 REG-2 REG-3 REG-4 OSF-AUD OSF-AUT OSF-CER OSF-HST OSF-EKM OSF-EAR OSF-EIT OSF-ENV OSF-PER OSF-MON OSF-SCV OSF-ADD OSF-BRN DEV-1 DEV-2 CLD-1")
	for _, id := range want {
		if f.Catalogues[0].Requirement(id) == nil {
			t.Errorf("requirement %s is missing", id)
		}
	}
}

func TestLaterVersionsAreLaidBeside(t *testing.T) {
	f, err := Load(OpenDefaults(), os.DirFS("testdata/next"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) string { return f.InForce(day(t, s)).Version }
	if len(f.Catalogues) != 2 || at("2025-01-01") != "2026.1" || at("2026-12-31") != "2026.1" || at("2027-01-01") != "2027.1" {
		t.Errorf("in force: %s, %s, %s of %d", at("2025-01-01"), at("2026-12-31"), at("2027-01-01"), len(f.Catalogues))
	}
}

func day(t testing.TB, s string) time.Time {
	t.Helper()
	d, err := time.Parse(time.DateOnly, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A mistake in a data file names what is wrong; nothing starts with it.
func TestDataRefused(t *testing.T) {
	base := func(name string) string {
		b, err := embedded.ReadFile("data/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	roles, catalogue, questions, risk, standards := base("roles.yaml"), base("catalogue-2026.1.yaml"), base("questionnaire-self-certification-2026.1.yaml"), base("risk.yaml"), base("standards.yaml")
	for name, c := range map[string]struct{ file, text, says string }{
		"unknown key":            {"roles.yaml", roles + "\nextra: 1\n", "extra"},
		"repeated key":           {"roles.yaml", roles + "\nversion: x\n", "version"},
		"unknown cell":           {"roles.yaml", strings.Replace(roles, "D: covered", "D: maybe", 1), "maybe"},
		"a row missing":          {"roles.yaml", roles[:strings.Index(roles, "  - scenario: 6")], "5 rows"},
		"unknown fact":           {"catalogue-x.yaml", strings.Replace(catalogue, "fact: hosting", "fact: hostng", 1), "hostng"},
		"unknown evidence":       {"catalogue-x.yaml", strings.Replace(catalogue, "evidence: [sample-log]", "evidence: [sample-lag]", 1), "sample-lag"},
		"a requirement twice":    {"catalogue-x.yaml", strings.Replace(catalogue, "id: REG-2", "id: REG-1", 1), "REG-1"},
		"the same version twice": {"catalogue-x.yaml", catalogue, "2026.1"},
		"a day that is none":     {"catalogue-x.yaml", strings.Replace(catalogue, "effective: 2026-01-01", "effective: soon", 1), "soon"},
		"no such requirement":    {"questionnaire-x.yaml", strings.Replace(questions, "requirement: DEV-2", "requirement: DEV-9", 1), "DEV-9"},
		"a later question":       {"questionnaire-x.yaml", strings.Replace(questions, `"answer:OSF-AUD.1"`, `"answer:OSF-BRN.1"`, 1), "OSF-BRN.1"},
		"an empty condition":     {"questionnaire-x.yaml", strings.Replace(questions, `{fact: "answer:OSF-AUD.1", in: ["yes"]}`, `{fact: "answer:OSF-AUD.1"}`, 1), "OSF-AUD.1"},
		"a mark without a word":  {"questionnaire-x.yaml", strings.Replace(questions, `say: "Give each user`, `say: "", x: "Give each user`, 1), "x"},
		"bands out of order":     {"risk.yaml", strings.Replace(risk, "at_least: 4, points: 20", "at_least: 1, points: 20", 1), "max_risk"},
		"a standard unknown":     {"standards.yaml", strings.Replace(standards, "INTUIT: {level: 2", "INTUT: {level: 2", 1), "INTUT"},
		"a name unknown":         {"rolls.yaml", roles, "rolls"},
		"too large":              {"risk.yaml", risk + strings.Repeat("#", dataBytesMax), "larger"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(OpenDefaults(), fstest.MapFS{c.file: &fstest.MapFile{Data: []byte(c.text)}})
			if !errors.Is(err, ErrData) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want ErrData with %q", err, c.says)
			}
		})
	}
}

func TestOpenQuestionsRefused(t *testing.T) {
	for key, change := range map[string]func(*Open){
		"incident_anchor":     func(o *Open) { o.IncidentAnchor = "sometime" },
		"high_records":        func(o *Open) { o.HighRecords = 0 },
		"validity_months":     func(o *Open) { o.ValidityMonths = 0 },
		"records_many":        func(o *Open) { o.RecordsMany = 0 },
		"in_house_category":   func(o *Open) { o.InHouseCategory = "F" },
		"interim_months":      func(o *Open) { o.InterimMonths = 1000 },
		"pilot_risk":          func(o *Open) { o.PilotRisk = 9 },
		"product_id":          func(o *Open) { o.ProductID = "(" },
		"product_id_prefix":   func(o *Open) { o.ProductIDPrefix = "x" },
		"eligibility_seen_by": func(o *Open) { o.EligibilitySeenBy = []string{"developer"} },
	} {
		o := OpenDefaults()
		change(&o)
		if _, err := Load(o); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: got %v", key, err)
		}
	}
}

// Whatever stands in a data file, reading it ends with a framework that can be
// used or with an error.
func FuzzLoad(f *testing.F) {
	names := []string{"roles.yaml", "catalogue-2026.1.yaml", "questionnaire-ecosystem-2026.1.yaml", "risk.yaml", "standards.yaml"}
	for i, name := range names {
		b, err := embedded.ReadFile("data/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b[:min(len(b), 2000)])
	}
	base, err := Default(OpenDefaults())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		if len(b) > 8192 {
			return
		}
		fw := *base
		fw.Catalogues, fw.Questionnaires = slices.Clone(base.Catalogues), slices.Clone(base.Questionnaires)
		err := fw.add(names[int(which)%len(names)], b)
		if err == nil {
			err = fw.check()
		}
		if err != nil {
			if !errors.Is(err, ErrData) {
				t.Fatalf("%v is not ErrData", err)
			}
			return
		}
		p := Profile{Roles: Roles(), Scenario: 6, ChainLength: 2, Commercial: true, MaxRisk: 4, Records: 1}
		for _, c := range fw.Catalogues {
			c.Applicable(&p, fw.Open)
		}
		if _, err := fw.Matrix.Obligations(deliveries(6), fw.Open); err != nil {
			t.Fatal(err)
		}
	})
}
