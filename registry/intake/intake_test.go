package intake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/intake"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

var importer = registry.Actor{Name: "registrar@agency.example", Permissions: registry.PermRegistrar | registry.PermAssessor}

type world struct {
	t    testing.TB
	reg  *registry.Register
	desk *casework.Desk
	in   *intake.Importer
}

func newWorld(t testing.TB) *world {
	t.Helper()
	store := registrytest.NewMemory()
	m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "one", Observer: true})
	w := &world{t: t}
	w.reg = registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one", ClaimTTL: time.Second, Cases: slices.Concat(assurance.CaseTypes(), casework.Types())})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = m.Run(ctx); done <- struct{}{} }()
	go func() { _ = w.reg.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		_, err := w.reg.Casebook()
		if err == nil && w.reg.Writing() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the register never took commands")
		}
	}
	if _, err := w.reg.Import(ctx, sample.Actor(), sample.Records(time.Now()), registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.desk, err = casework.New(w.reg, casework.Config{}); err != nil {
		t.Fatal(err)
	}
	w.in = intake.New(w.reg, w.desk)
	return w
}

func (w *world) run(file string, opt intake.Options) ([]intake.Report, intake.Summary) {
	w.t.Helper()
	var all []intake.Report
	sum, err := w.in.Run(context.Background(), importer, strings.NewReader(file), opt, func(r []intake.Report) error { all = append(all, r...); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	if sum.Lines != len(all) {
		w.t.Errorf("%d lines counted, %d reported", sum.Lines, len(all))
	}
	return all, sum
}

func (w *world) view() *registry.View {
	w.t.Helper()
	v, err := w.reg.View()
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// abns are valid: 64 000 000 001 and on, those whose checksum agrees.
func abns(n int) (out []string) {
	for i := 64_000_000_001; len(out) < n; i++ {
		if _, err := registry.ParseABN(fmt.Sprint(i)); err == nil {
			out = append(out, fmt.Sprint(i))
		}
	}
	return out
}

const header = "product_id,name,owner_abn,owner_name,roles,chain,scenario,versions,whitelisted,services\n"

func TestImport(t *testing.T) {
	w := newWorld(t)
	a := abns(3)
	file := header +
		"OLD-1,First," + a[0] + ",Quoll Apps,D SP,,2,1.0 1.1,yes,as.0004.submit receipts.get\n" +
		"OLD-2,Second," + a[0] + ",,,,2,,no,\n" + // its owner came with the line before
		"OLD-3,Third," + a[1] + ",,,,2,,no,\n" + // an owner nobody knows
		"OLD-4,Fourth,12345678901,X,D,,1,,no,\n" + // no ABN
		"OLD-5,Fifth," + a[0] + ",,," + a[0] + ",3,,no,\n" + // its own chain
		"OLD-6,Sixth," + a[0] + ",,,73000000606,6,,yes,no.such.service\n" +
		"OLD-1,Again," + a[0] + ",,,,2,,no,\n" + // twice
		"FP-1001,Stolen," + a[0] + ",,,,2,,no,\n" + // another's
		"OLD-7,tfn 220 115 957," + a[0] + ",,,,2,,no,\n" +
		"too,few\n" +
		"OLD-8,Eighth," + a[0] + ",,,73000000606,6,,yes,payevnt.0004.submit\n"
	want := []intake.Report{
		{Line: 1, ProductID: "OLD-1", Outcome: intake.Created},
		{Line: 2, ProductID: "OLD-2", Outcome: intake.Created},
		{Line: 3, ProductID: "OLD-3", Outcome: intake.Refused, Pointer: "/owner_name"},
		{Line: 4, ProductID: "OLD-4", Outcome: intake.Refused, Pointer: "/owner_abn"},
		{Line: 5, ProductID: "OLD-5", Outcome: intake.Refused, Pointer: "/chain/0"},
		{Line: 6, ProductID: "OLD-6", Outcome: intake.Refused, Pointer: "/services/0"},
		{Line: 7, ProductID: "OLD-1", Outcome: intake.Refused, Pointer: "/product_id"},
		{Line: 8, ProductID: "FP-1001", Outcome: intake.Refused, Pointer: "/owner_abn"},
		{Line: 9, ProductID: "OLD-7", Outcome: intake.Refused},
		{Line: 10, Outcome: intake.Refused},
		{Line: 11, ProductID: "OLD-8", Outcome: intake.Created},
	}
	check := func(what string, got []intake.Report) {
		t.Helper()
		for i := range got {
			if (got[i].Outcome == intake.Refused) != (got[i].Detail != "") || strings.Contains(got[i].Detail, "115") {
				t.Errorf("%s: %+v", what, got[i])
			}
			got[i].Detail = ""
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	before := w.view().Revision
	dry, sum := w.run(file, intake.Options{Format: intake.CSV, DryRun: true})
	check("dry", dry)
	if w.view().Revision != before || !sum.DryRun {
		t.Fatal("a dry run changed the register")
	}
	real, _ := w.run(file, intake.Options{Format: intake.CSV})
	check("real", real)

	v := w.view()
	p := v.Product("OLD-1")
	if p == nil || p.Certification.State != registry.CertInterim || p.Certification.ValidUntil <= registry.At(time.Now()) || p.Entitled("as.0004.submit", registry.PROD) == nil || len(p.Versions) != 2 || p.Category != "C" {
		t.Fatalf("%+v", p)
	}
	if v.ClientApp("old-1-prod") == nil || v.Entity(p.Owner).Name != "Quoll Apps" || v.Product("OLD-2").Certification.State != registry.CertDraft || v.Product("OLD-5") != nil {
		t.Errorf("%+v", v.Entity(p.Owner))
	}
	book, err := w.reg.Casebook()
	if err != nil {
		t.Fatal(err)
	}
	c, err := registry.CaseOf[casework.Certification](book, "OLD-8")
	if err != nil || c.Body.Interim == nil || c.Body.Interim.Basis != "grandfathered" || !slices.Contains(c.Body.Interim.Owed, "OSF-SCV") || len(c.Body.Dues) == 0 {
		t.Errorf("%+v, %v", c, err)
	}

	// Done again, nothing changes: what was created is unchanged now.
	rev := v.Revision
	again, sum := w.run(file, intake.Options{Format: intake.CSV})
	if sum.Counts[intake.Created] != 0 || sum.Counts[intake.Unchanged] != 3 || w.view().Revision != rev {
		t.Errorf("%+v, revision %d then %d", again, rev, w.view().Revision)
	}
	// From a line on; and a name that changed is an update that leaves the certification alone.
	some, sum := w.run(strings.Replace(file, "Eighth", "Achtes", 1), intake.Options{Format: intake.CSV, FromLine: 11})
	if len(some) != 1 || some[0].Outcome != intake.Updated || w.view().Product("OLD-8").Certification.State != registry.CertInterim {
		t.Errorf("%+v, %+v", some, sum)
	}
}

// Many lines that the register refuses do not stop the others.
func TestImportWithMoreRefusalsThanABatchIsPlannedFor(t *testing.T) {
	w := newWorld(t)
	a := abns(1)
	var b strings.Builder
	b.WriteString(header)
	for i := range 120 {
		service := "no.such"
		if i%2 == 0 {
			service = "as.0004.submit"
		}
		fmt.Fprintf(&b, "OLD-%d,n,%s,Quoll Apps,D SP,,2,,yes,%s\n", i, a[0], service)
	}
	for _, dry := range []bool{true, false} {
		if _, sum := w.run(b.String(), intake.Options{Format: intake.CSV, DryRun: dry}); sum.Counts[intake.Created] != 60 || sum.Counts[intake.Refused] != 60 {
			t.Errorf("dry %v: %+v", dry, sum)
		}
	}
}

func TestImportOfJSON(t *testing.T) {
	w := newWorld(t)
	a := abns(1)
	one := func(id string, more string) string {
		return fmt.Sprintf(`{"product_id":%q,"name":"n","owner_abn":%q,"owner_name":"Quoll","roles":["D"],"scenario":1%s}`, id, a[0], more)
	}
	for name, c := range map[string]struct {
		file string
		want string // outcomes; "error" for a file that cannot be read
	}{
		"an array":      {"[" + one("J-1", "") + ",\n" + one("J-2", `,"versions":["1"]`) + "]", "created created"},
		"lines":         {one("J-3", "") + "\n" + one("J-4", "") + "\n", "created created"},
		"a null":        {one("J-5", `,"contact":null`), "refused"},
		"a stranger":    {one("J-6", `,"state":"Whitelisted"`), "refused"},
		"twice a name":  {one("J-7", `,"name":"m"`), "refused"},
		"a wrong type":  {one("J-8", `,"records":"many"`), "refused"},
		"no object":     {`[7,` + one("J-9", "") + `]`, "refused created"},
		"broken off":    {"[" + one("J-10", ""), "error"},
		"more after it": {"[" + one("J-11", "") + "] 7", "error"},
		"no JSON":       {"product_id,name\n", "error"},
		"nothing":       {"", "error"},
		"broken lines":  {one("J-12", "") + "\nno JSON\n" + one("J-13", "") + "\n{\"product_id\":\n" + one("J-14", "") + `{"a"` + "\n\n" + one("J-15", ""), "created refused created refused created refused created"},
		"many on one":   {one("J-16", "") + one("J-17", "") + " " + one("J-18", ""), "created created created"},
		"over lines":    {strings.ReplaceAll(one("J-19", "")+"\n"+one("J-20", ""), ",", ",\n  ") + "\n}", "created created refused"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			_, err := w.in.Run(t.Context(), importer, strings.NewReader(c.file), intake.Options{Format: intake.JSON, DryRun: true}, func(r []intake.Report) error {
				for _, x := range r {
					got = append(got, string(x.Outcome))
				}
				return nil
			})
			if c.want == "error" {
				if !errors.Is(err, registry.ErrInvalid) {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if err != nil || strings.Join(got, " ") != c.want {
				t.Errorf("%v, %v; want %s", got, err, c.want)
			}
		})
	}
}

func TestWhoMayImport(t *testing.T) {
	w := newWorld(t)
	none := func([]intake.Report) error { return nil }
	for _, a := range []registry.Actor{{Name: "a", Permissions: registry.PermAssessor}, {Name: "d", Permissions: registry.PermDeveloper, Entity: sample.Galah}} {
		if _, err := w.in.Run(t.Context(), a, strings.NewReader(header), intake.Options{Format: intake.CSV}, none); !errors.Is(err, registry.ErrForbidden) {
			t.Errorf("%s: %v", a.Name, err)
		}
	}
	// A registrar alone enters products, and approves none.
	var got []intake.Report
	file := header + "OLD-1,n," + abns(1)[0] + ",Quoll,D,,1,,yes,as.0004.submit\nOLD-2,n," + abns(1)[0] + ",Quoll,D,,1,,no,\n"
	if _, err := w.in.Run(t.Context(), registry.Actor{Name: "r", Permissions: registry.PermRegistrar}, strings.NewReader(file), intake.Options{Format: intake.CSV}, func(r []intake.Report) error {
		got = append(got, r...)
		return nil
	}); err != nil || got[0].Outcome != intake.Refused || got[1].Outcome != intake.Created {
		t.Errorf("%+v, %v", got, err)
	}
	for _, head := range []string{"", "product_id\n", "product_id,name,owner_abn,scenario,state\n", "product_id,product_id,name,owner_abn,scenario\n"} {
		if _, err := w.in.Run(t.Context(), importer, strings.NewReader(head), intake.Options{Format: intake.CSV}, none); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("header %q: %v", head, err)
		}
	}
}

// What is exported comes in again as it was, in either format, whatever the names.
func TestExportComesInAgain(t *testing.T) {
	w := newWorld(t)
	names := []string{`=HYPERLINK("https://evil.example")`, "+1", "-1", "@SUM(A1)", "'quoted", `a "b", c`, "|pipe", "plain"}
	a := abns(1)
	var b bytes.Buffer
	for i, n := range names {
		if err := intake.Write(&b, intake.JSON, slices.Values([]intake.Line{{ProductID: fmt.Sprint("N-", i), Name: n, OwnerABN: a[0], OwnerName: n, Roles: []string{"D"}, Scenario: 1}})); err != nil {
			t.Fatal(err)
		}
	}
	if _, sum := w.run(b.String(), intake.Options{Format: intake.JSON}); sum.Counts[intake.Created] != len(names) {
		t.Fatalf("%+v", sum)
	}
	v := w.view()
	lines := func(yield func(intake.Line) bool) {
		for _, e := range v.Products() {
			if e.Value.Scenario > 0 && !yield(intake.LineOf(v, &e.Value)) {
				return
			}
		}
	}
	for _, f := range []intake.Format{intake.CSV, intake.JSON} {
		var out bytes.Buffer
		if err := intake.Write(&out, f, lines); err != nil {
			t.Fatal(err)
		}
		if f == intake.CSV {
			for _, cell := range strings.FieldsFunc(out.String(), func(r rune) bool { return r == ',' || r == '\n' }) {
				if strings.ContainsRune("=+-@|", rune(strings.TrimPrefix(cell, `"`)[0])) {
					t.Errorf("a spreadsheet takes %q for a formula", cell)
				}
			}
		}
		all, sum := w.run(out.String(), intake.Options{Format: f})
		if sum.Counts[intake.Unchanged] != sum.Lines || sum.Lines < 20 {
			t.Errorf("%s: %+v %+v", f, sum, all)
		}
		if w.view().Revision != v.Revision {
			t.Errorf("%s: importing an export changed the register", f)
		}
	}
}

// Cells go through a CSV as they are.
func TestGuard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cell := rapid.String().Draw(t, "cell")
		g := intake.Guard(cell)
		if g != "" && strings.ContainsRune("=+-@\t\r", rune(g[0])) {
			t.Fatalf("%q is a formula", g)
		}
		if g != cell && g != "'"+cell {
			t.Fatalf("%q became %q", cell, g)
		}
	})
}

// endlessReader gives the same bytes for ever, after some others, and counts them.
type endlessReader struct {
	first string
	b     byte
	given int
}

func (r *endlessReader) Read(p []byte) (int, error) {
	if r.first != "" {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	for i := range p {
		p[i] = r.b
	}
	r.given += len(p)
	return len(p), nil
}

// A line without an end, by malice or by a quote that was left open, ends the
// import there; what came before it is in, and no more of it is held than a little.
func TestALineWithoutAnEnd(t *testing.T) {
	a := abns(1)[0]
	good := header + "OLD-1,n," + a + ",Quoll,D,,1,,no,\n"
	for name, c := range map[string]struct {
		format intake.Format
		first  string
		lines  int
	}{
		"a cell":           {intake.CSV, good + "OLD-2,", 1},
		"an open quote":    {intake.CSV, good + `OLD-2,"`, 1},
		"a header":         {intake.CSV, "product_id,", 0},
		"a JSON text":      {intake.JSON, `{"product_id":"OLD-1","name":"n","owner_abn":"` + a + `","owner_name":"Quoll","roles":["D"],"scenario":1}` + "\n" + `{"name":"`, 1},
		"spaces":           {intake.JSON, " ", 0},
		"spaces, later on": {intake.JSON, "[ ", 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := &endlessReader{first: c.first, b: 'x'}
			if strings.HasPrefix(name, "spaces") {
				r.b = ' '
			}
			var got []intake.Report
			_, err := w.in.Run(t.Context(), importer, r, intake.Options{Format: c.format}, func(all []intake.Report) error { got = append(got, all...); return nil })
			if !errors.Is(err, registry.ErrInvalid) || len(got) != c.lines {
				t.Fatalf("%+v, %v", got, err)
			}
			if c.lines > 0 && !strings.Contains(err.Error(), "line 2") {
				t.Errorf("does not say where: %v", err)
			}
			if r.given > 4<<20 {
				t.Errorf("read %d bytes", r.given)
			}
		})
	}
}

// Every line that is wrong in itself is refused by its number, and keeps no other out.
func TestHostileLines(t *testing.T) {
	w := newWorld(t)
	a := abns(1)[0]
	file := header
	lines := []struct{ line, pointer string }{
		{"OLD-1,n," + a + ",Quoll,D,,1,,no,", ""},
		{"OLD-2,\xff\xfe," + a + ",Quoll,D,,1,,no,", "/name"},
		{"OLD-3," + strings.Repeat("x", 70_000) + "," + a + ",,,,1,,no,", "*"},
		{"OLD-4,a\x00b," + a + ",,,,1,,no,", "/name"},
		{"OLD-5,n," + a + ",,,,999,,no,", "/scenario"},
		{"OLD-6,n," + a + ",,,,-1,,no,", "/scenario"},
		{"OLD-7,n," + a + ",,,,1,,maybe,", "/whitelisted"},
		{"OLD-8,TFN 220115957," + a + ",,,,1,,no,", "*"},
		{"OLD-1,n," + a + ",,,,1,,no,", "/product_id"},
		{"../../etc,n," + a + ",,,,1,,no,", "/product_id"},
		{"OLD-9,n,65000000102,,,,1,,no,", "/owner_abn"},
		{"OLD-10,n\"x," + a + ",,,,1,,no,", "*"},
		{"OLD-11,n," + a + ",,,,1,,no,,,,", "*"},
		{"OLD-12,'=1+1," + a + ",,,,1,,no,", ""},
	}
	for _, l := range lines {
		file += l.line + "\n"
	}
	for _, dry := range []bool{true, false} {
		got, _ := w.run(file, intake.Options{Format: intake.CSV, DryRun: dry})
		if len(got) != len(lines) {
			t.Fatalf("%d reports of %d lines", len(got), len(lines))
		}
		for i, r := range got {
			want := lines[i].pointer
			if r.Line != i+1 || (r.Outcome == intake.Refused) != (want != "") || want != "" && want != "*" && r.Pointer != want {
				t.Errorf("dry %v: %+v, want %q", dry, r, want)
			}
			if len(r.Detail) > 300 || strings.Contains(r.Detail, "220115957") {
				t.Errorf("says %q", r.Detail)
			}
		}
	}
	if p := w.view().Product("OLD-12"); p == nil || p.Name != "=1+1" {
		t.Errorf("%+v", p)
	}
}
