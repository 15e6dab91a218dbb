package control_test

import (
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
)

type importedLine struct {
	Line    int
	Outcome string
	Pointer string
	Detail  string
	Summary *struct {
		Lines  int
		Counts map[string]int
	}
	Error *apiError
}

func (r reply) lines(t testing.TB) []importedLine {
	t.Helper()
	if r.status != 200 || r.header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("got %s", r)
	}
	var out []importedLine
	for _, l := range strings.Split(strings.TrimSpace(r.body), "\n") {
		var x importedLine
		if err := json.Unmarshal([]byte(l), &x); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		out = append(out, x)
	}
	return out
}

func TestImportAndExportOverTheAPI(t *testing.T) {
	w := newWorld(t)
	file := "product_id,name,owner_abn,owner_name,roles,scenario\n"
	for i := range 700 { // more than one batch
		file += fmt.Sprintf("OLD-%d,Product %d,65000000101,,,2\n", i, i)
	}
	file += "OLD-X,x,1,,,2\n"
	lines := w.call(registrar, "POST", "/v1/imports?format=csv&dry_run=true", file).lines(t)
	if n := len(lines); n != 702 || lines[n-1].Summary.Counts["created"] != 700 || lines[n-1].Summary.Counts["refused"] != 1 || lines[700].Pointer != "/owner_abn" {
		t.Fatalf("%d lines, the last %+v", n, lines[n-1])
	}
	w.call(registrar, "GET", "/v1/products/OLD-0", nil).refused(t, 404, "not-found")
	w.call(registrar, "POST", "/v1/imports?format=csv", file).lines(t)
	w.call(registrar, "GET", "/v1/products/OLD-699", nil).data(t, 200, &struct{}{})
	again := w.call(registrar, "POST", "/v1/imports?format=csv&from_line=700", file).lines(t)
	if len(again) != 3 || again[0].Line != 700 || again[0].Outcome != "unchanged" {
		t.Errorf("%+v", again)
	}
	for path, status := range map[string]int{"/v1/imports": 422, "/v1/imports?format=xml": 422, "/v1/imports?format=csv&from_line=0": 422} {
		w.call(registrar, "POST", path, file).refused(t, status, "invalid")
	}
	w.call(registrar, "POST", "/v1/imports?format=csv", "nonsense\n").refused(t, 422, "invalid")
	w.call(assessor, "POST", "/v1/imports?format=csv", file).refused(t, 403, "forbidden")
	w.call(wattlebird, "POST", "/v1/imports?format=csv", file).refused(t, 403, "forbidden")

	// What breaks off in the middle says so in its last line; what came before is in.
	broken := w.call(registrar, "POST", "/v1/imports?format=json", "["+strings.Repeat(`{"product_id":"OLD-0","name":"Product 0","owner_abn":"65000000101","scenario":2},`+"\n", 500)+"{nonsense").lines(t)
	if last := broken[len(broken)-1]; last.Error == nil || last.Error.Code != "invalid" || last.Summary.Lines != 500 {
		t.Errorf("%+v", last)
	}

	// An export comes in again; a developer's holds its own.
	for _, format := range []string{"csv", "json"} {
		r := w.call(registrar, "GET", "/v1/exports/products?format="+format, nil)
		if r.status != 200 || !strings.Contains(r.body, "OLD-699") || !strings.Contains(r.body, "dev@wattlebird.example") {
			t.Fatalf("%s: %.300s", format, r.body)
		}
		mine := w.call(kookaburra, "GET", "/v1/exports/products?format="+format, nil)
		if !strings.Contains(mine.body, "FP-1003") || strings.Contains(mine.body, "FP-1001") || strings.Contains(mine.body, "OLD-") {
			t.Errorf("%s: %s", format, mine.body)
		}
	}
}

func TestPublicRegisterInEveryForm(t *testing.T) {
	w := newWorld(t)
	w.call(registrar, "PUT", "/v1/products/FP-1001", `{"name":"=HYPERLINK(\"https://evil.example\")<script>","owner":"65000000101","chain":["73000000606"],"scenario":6}`).data(t, 200, &struct{}{})
	var js []struct {
		ProductID string `json:"product_id"`
		Name      string
	}
	r := w.call(nobody, "GET", "/v1/register?limit=100", nil)
	r.data(t, 200, &js)
	if !strings.Contains(r.body, `"disclaimer":"This register`) || len(js) == 0 {
		t.Errorf("%s", r)
	}
	w.call(nobody, "GET", "/v1/register?q=kooka", nil).data(t, 200, &js)
	if len(js) != 1 || js[0].ProductID != "FP-1003" {
		t.Errorf("%+v", js)
	}
	r = w.call(nobody, "GET", "/v1/register.csv", nil)
	c := csv.NewReader(strings.NewReader(r.body))
	c.Comment = '#'
	rows, err := c.ReadAll()
	if err != nil || !strings.HasPrefix(r.body, "# This register") || r.header.Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Fatalf("%v: %s", err, r.body)
	}
	found := false
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
				t.Errorf("a spreadsheet takes %q for a formula", cell)
			}
		}
		found = found || row[0] == "FP-1001" && strings.HasPrefix(row[1], "'=")
	}
	if !found {
		t.Errorf("FP-1001 is missing: %v", rows)
	}
	r = w.call(nobody, "GET", "/v1/register.atom", nil)
	var f struct {
		XMLName xml.Name
		Rights  string `xml:"rights"`
		Updated string `xml:"updated"`
		Entries []struct {
			ID      string `xml:"id"`
			Title   string `xml:"title"`
			Updated string `xml:"updated"`
		} `xml:"entry"`
	}
	if err := xml.Unmarshal([]byte(r.body), &f); err != nil || f.XMLName.Space != "http://www.w3.org/2005/Atom" || !strings.HasPrefix(f.Rights, "This register") {
		t.Fatalf("%v: %s", err, r.body)
	}
	if len(f.Entries) != len(rows)-1 || f.Entries[0].ID != "urn:dspgate:product:FP-1001" || strings.Contains(r.body, "<script>") || f.Updated != f.Entries[0].Updated {
		t.Errorf("%d entries of %d products: %+v", len(f.Entries), len(rows)-1, f.Entries)
	}
	// Nothing that is not whitelisted, and no reason, in any form.
	for _, path := range []string{"/v1/register?limit=100", "/v1/register.csv", "/v1/register.atom"} {
		body := w.call(nobody, "GET", path, nil).body
		for _, hidden := range []string{"FP-1008", "FP-1010", "FP-1012", "FP-1007", "Suspended", "suspension", "reason"} {
			if strings.Contains(body, hidden) {
				t.Errorf("%s shows %s", path, hidden)
			}
		}
	}
}
