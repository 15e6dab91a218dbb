package certification

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func framework(t testing.TB) *Framework {
	t.Helper()
	f, err := Default(OpenDefaults())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The matrix, cell by cell, as the domain model reads it (§2).
func TestEveryCellOfTheRoleMatrix(t *testing.T) {
	f := framework(t)
	const (
		na  = NotApplicable
		rc  = Certifies
		cov = Covered
		mts = Meets
	)
	want := map[uint8][4]Cell{ // D, SP, CP, IHD
		1: {rc, na, na, na},
		2: {rc, cov, na, na},
		3: {rc, rc, na, na},
		4: {na, na, na, rc},
		5: {cov, rc, cov, na},
		6: {rc, cov, mts, na},
	}
	for scenario, cells := range want {
		for i, role := range Roles() {
			t.Run(fmt.Sprintf("%d/%s", scenario, role), func(t *testing.T) {
				if got := f.Matrix.Row(scenario).Cells[role]; got != cells[i] {
					t.Fatalf("the matrix says %q, want %q", got, cells[i])
				}
				checkCell(t, f, scenario, role, cells[i])
			})
		}
	}
}

// deliveries are the parties of each scenario, as the framework draws them.
func deliveries(scenario uint8) Delivery {
	d := Delivery{Scenario: scenario}
	switch scenario {
	case 1:
		d.Parties = []Party{{"dev", []Role{Developer}}}
	case 2:
		d.Parties = []Party{{"dev", []Role{Developer, ServiceProvider}}}
	case 3:
		d.Parties = []Party{{"dev", []Role{Developer}}, {"sp", []Role{ServiceProvider}}}
	case 4:
		d.Parties = []Party{{"shire", []Role{InHouse}}}
	case 5:
		d.Parties = []Party{{"all", []Role{Developer, ServiceProvider, CloudProvider}}}
	case 6:
		d.Parties = []Party{{"dev", []Role{Developer, ServiceProvider}}, {"cloud", []Role{CloudProvider}}}
	}
	return d
}

// checkCell holds the obligations of whoever plays the role to what its cell says.
func checkCell(t *testing.T, f *Framework, scenario uint8, role Role, cell Cell) {
	all, err := f.Matrix.Obligations(deliveries(scenario), f.Open)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(o Obligation) bool { return slices.Contains(o.Roles, role) })
	if cell == NotApplicable {
		if i >= 0 {
			t.Fatalf("somebody plays %s in scenario %d", role, scenario)
		}
		return
	}
	if i < 0 {
		t.Fatalf("nobody plays %s", role)
	}
	o := all[i]
	type owed struct{ Register, Certify, Meet bool }
	got := owed{o.Register, o.SelfCertify, o.Meet}
	want := owed{true, true, true}
	if cell == Meets {
		want = owed{true, false, true} // by the stated default, it registers
	}
	if got != want {
		t.Errorf("owes %+v, want %+v", got, want)
	}
	if !slices.Contains(o.Scenarios, int(scenario)) || !slices.ContainsFunc(o.Reasons, func(r string) bool {
		return strings.HasPrefix(r, fmt.Sprintf("Scenario %d (", scenario)) && strings.Contains(r, "as "+string(role))
	}) {
		t.Errorf("no reason names scenario %d and %s: %q", scenario, role, o.Reasons)
	}
}

// Everything the six scenarios come to, whole.
func TestObligationsOfTheSixScenarios(t *testing.T) {
	f := framework(t)
	type row struct {
		Party                       string
		Register, Certify, Meet     bool
		Through                     string
		Scenarios                   string
		CertifiesOncePerEntityCount int
	}
	want := map[uint8][]row{
		1: {{"dev", true, true, true, "", "[1]", 1}},
		2: {{"dev", true, true, true, "", "[2]", 1}},
		3: {{"dev", true, true, true, "", "[3]", 1}, {"sp", true, true, true, "", "[3]", 1}},
		4: {{"shire", true, true, true, "", "[4]", 1}},
		5: {{"all", true, true, true, "", "[5]", 1}},
		6: {{"dev", true, true, true, "", "[6]", 1}, {"cloud", true, false, true, "dev", "[6]", 1}},
	}
	for scenario, rows := range want {
		all, err := f.Matrix.Obligations(deliveries(scenario), f.Open)
		if err != nil {
			t.Fatal(err)
		}
		var got []row
		for _, o := range all {
			got = append(got, row{o.Party, o.Register, o.SelfCertify, o.Meet, o.Through, fmt.Sprint(o.Scenarios), 1})
		}
		if d := cmp.Diff(rows, got); d != "" {
			t.Errorf("scenario %d (-want +got):\n%s", scenario, d)
		}
	}
}

func TestCloudProviderRegistersByConfiguration(t *testing.T) {
	f := framework(t)
	open := f.Open
	open.CloudProviderRegisters = false
	all, err := f.Matrix.Obligations(deliveries(6), open)
	if err != nil {
		t.Fatal(err)
	}
	if o := all[1]; o.Register || o.SelfCertify || !o.Meet {
		t.Errorf("a cloud provider owes %+v", o)
	}
}

// Chains that are no row of the matrix are held to every row they contain.
func TestObligationsOfOtherChains(t *testing.T) {
	f := framework(t)
	d, sp, cp, ihd := Developer, ServiceProvider, CloudProvider, InHouse
	for name, c := range map[string]struct {
		parties   []Party
		scenarios string // of all parties
		certify   string
	}{
		"three entities":                 {[]Party{{"d", []Role{d}}, {"s", []Role{sp}}, {"c", []Role{cp}}}, "[3 6]", "d s"},
		"offered on its own cloud":       {[]Party{{"d", []Role{d}}, {"s", []Role{sp, cp}}}, "[3 5]", "d s"},
		"two service providers":          {[]Party{{"d", []Role{d, sp}}, {"s", []Role{sp}}}, "[3]", "d s"},
		"two clouds":                     {[]Party{{"d", []Role{d, sp}}, {"c1", []Role{cp}}, {"c2", []Role{cp}}}, "[6]", "d"},
		"own cloud and another's":        {[]Party{{"d", []Role{d, sp, cp}}, {"c", []Role{cp}}}, "[5 6]", "d"},
		"developer is the cloud":         {[]Party{{"d", []Role{d, cp}}, {"s", []Role{sp}}}, "[3 6]", "d s"},
		"in-house on a cloud":            {[]Party{{"i", []Role{ihd}}, {"c", []Role{cp}}}, "[4 6]", "i"},
		"a service provider alone":       {[]Party{{"s", []Role{sp}}}, "[3]", "s"},
		"a developer on one's own cloud": {[]Party{{"d", []Role{d, cp}}}, "[5]", "d"},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := f.Matrix.Obligations(Delivery{Parties: c.parties}, f.Open)
			if err != nil {
				t.Fatal(err)
			}
			var scenarios []int
			var certify []string
			for _, o := range all {
				scenarios = append(scenarios, o.Scenarios...)
				if o.SelfCertify {
					certify = append(certify, o.Party)
				}
				if !o.Meet || len(o.Reasons) == 0 {
					t.Errorf("%s owes nothing, or nobody says why: %+v", o.Party, o)
				}
			}
			slices.Sort(scenarios)
			if got := fmt.Sprint(slices.Compact(scenarios)); got != c.scenarios || strings.Join(certify, " ") != c.certify {
				t.Errorf("scenarios %s, certify %v; want %s, %s", got, certify, c.scenarios, c.certify)
			}
		})
	}
}

func TestDeliveriesRefused(t *testing.T) {
	f := framework(t)
	for name, c := range map[string]struct {
		d     Delivery
		field string
	}{
		"no party":            {Delivery{}, "/parties"},
		"no such scenario":    {Delivery{Scenario: 7, Parties: []Party{{"d", []Role{Developer}}}}, "/scenario"},
		"another scenario":    {Delivery{Scenario: 4, Parties: []Party{{"d", []Role{Developer}}}}, "/scenario"},
		"another chain":       {Delivery{Scenario: 2, Parties: []Party{{"d", []Role{Developer}}, {"s", []Role{ServiceProvider}}}}, "/scenario"},
		"twice the same":      {Delivery{Parties: []Party{{"d", []Role{Developer}}, {"d", []Role{ServiceProvider}}}}, "/parties/1/id"},
		"no role":             {Delivery{Parties: []Party{{"d", nil}}}, "/parties/0/roles"},
		"unknown role":        {Delivery{Parties: []Party{{"d", []Role{"X"}}}}, "/parties/0/roles/0"},
		"two developers":      {Delivery{Parties: []Party{{"d", []Role{Developer}}, {"e", []Role{Developer}}}}, "/parties/1/roles"},
		"a cloud alone":       {Delivery{Parties: []Party{{"c", []Role{CloudProvider}}}}, "/parties"},
		"in-house and others": {Delivery{Parties: []Party{{"i", []Role{InHouse}}, {"s", []Role{ServiceProvider}}}}, "/parties"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.Matrix.Obligations(c.d, f.Open)
			var field *FieldError
			if !asField(err, &field) || field.Field != c.field {
				t.Errorf("got %v, want something about %s", err, c.field)
			}
		})
	}
}

// Whatever the chain: whoever is in it owes something, with a reason; somebody
// self-certifies; whoever does not is evidenced through somebody who does; and
// more roles never lighten what an entity owes.
func TestObligationsOfAnyChain(t *testing.T) {
	f := framework(t)
	rapid.Check(t, func(t *rapid.T) {
		var d Delivery
		for i := range rapid.IntRange(1, 5).Draw(t, "parties") {
			roles := rapid.SliceOfNDistinct(rapid.SampledFrom(Roles()), 1, 4, rapid.ID[Role]).Draw(t, "roles")
			d.Parties = append(d.Parties, Party{fmt.Sprint("p", i), roles})
		}
		all, err := f.Matrix.Obligations(d, f.Open)
		if err != nil {
			var field *FieldError
			if !asField(err, &field) {
				t.Fatalf("%v names no field", err)
			}
			return
		}
		certify := map[string]bool{}
		for _, o := range all {
			certify[o.Party] = o.SelfCertify
		}
		for i, o := range all {
			if o.Party != d.Parties[i].ID || !o.Meet || len(o.Reasons) == 0 || len(o.Scenarios) == 0 {
				t.Fatalf("%+v", o)
			}
			if o.SelfCertify && !o.Register {
				t.Fatalf("%s certifies without registering", o.Party)
			}
			if !o.SelfCertify && !certify[o.Through] {
				t.Fatalf("%s is evidenced through %q, who does not certify", o.Party, o.Through)
			}
		}
	})
}
