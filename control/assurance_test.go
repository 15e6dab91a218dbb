package control_test

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/registry/certification"
)

type caseRef struct {
	ID       string
	Revision uint64
	State    string
}

// sent are the files in the folder of evidence.
func (w *world) sent() (out []string) {
	w.t.Helper()
	err := filepath.WalkDir(w.files, func(p string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

const goodLog = "2026-11-22T09:00:00.220115957Z user=u1 session=s1 event=login ok\n"

func TestEvidenceOverTheAPI(t *testing.T) {
	w := retried(newWorld(t))
	const at = "/v1/products/FP-1001/evidence?type=sample-log&requirements=OSF-AUD"
	for name, c := range map[string]struct {
		path, body string
		status     int
		code       string
		says       string
	}{
		"a TFN":               {at, goodLog + "tfn=220 115 957\n", 422, "invalid", "line 2"},
		"a page":              {at, "<html>", 422, "invalid", "not accepted"},
		"nothing":             {at, "", 422, "invalid", "empty"},
		"no type":             {"/v1/products/FP-1001/evidence", goodLog, 422, "invalid", "sample-log"},
		"another type":        {"/v1/products/FP-1001/evidence?type=certificate&expires_at=2100-01-01T00:00:00Z", goodLog, 422, "invalid", "certificate"},
		"no expiry":           {"/v1/products/FP-1001/evidence?type=certificate", "%PDF-1.7", 422, "invalid", "until when"},
		"an expiry past":      {"/v1/products/FP-1001/evidence?type=certificate&expires_at=2001-01-01T00:00:00Z", "%PDF-1.7", 422, "invalid", "passed"},
		"no such requirement": {"/v1/products/FP-1001/evidence?type=policy&requirements=OSF-XXX", "text", 422, "invalid", "OSF-XXX"},
		"too large":           {at, strings.Repeat(goodLog, 6<<20/len(goodLog)), 413, "body-too-large", "5 MiB"},
		"far too large":       {at, strings.Repeat(goodLog, 21<<20/len(goodLog)), 413, "body-too-large", "20 MiB"},
	} {
		e := w.call(wattlebird, "POST", c.path, c.body, header("Content-Type", "application/octet-stream")).refused(t, c.status, c.code)
		if !strings.Contains(e.Detail, c.says) || strings.Contains(e.Detail, "115") {
			t.Errorf("%s: %q", name, e.Detail)
		}
		if left := w.sent(); len(left) != 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
	var e struct {
		caseRef
		Address string
	}
	w.call(wattlebird, "POST", at, goodLog).data(t, 201, &e)
	var again caseRef
	w.call(wattlebird, "POST", at, goodLog).data(t, 200, &again)
	if again.ID != e.ID || len(w.sent()) != 1 {
		t.Errorf("sent again: %+v, %v", again, w.sent())
	}
	r := w.call(assessor, "GET", "/v1/evidence/"+e.ID+"/content", nil)
	if r.status != 200 || r.body != goodLog || !strings.HasPrefix(r.header.Get("Content-Disposition"), "attachment") || r.header.Get("Content-Type") != "text/plain" || r.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v %.80s", r.header, r.body)
	}
	if r := w.call(assessor, "GET", "/v1/evidence/"+e.ID+"/content", nil, header("If-None-Match", r.header.Get("ETag"))); r.status != 304 {
		t.Errorf("not cached: %s", r)
	}
	// Another developer can tell it from nothing by no means.
	for _, path := range []string{"/v1/evidence/" + e.ID, "/v1/evidence/" + e.ID + "/content"} {
		w.call(kookaburra, "GET", path, nil).refused(t, 404, "not-found")
	}
	for who, want := range map[string]int{wattlebird: 1, kookaburra: 0, assessor: 1, auditor: 1} {
		var list []caseRef
		w.call(who, "GET", "/v1/evidence?product_id=FP-1001", nil).data(t, 200, &list)
		if len(list) != want {
			t.Errorf("%s sees %d", who, len(list))
		}
	}
	w.call(wattlebird, "POST", "/v1/evidence/"+e.ID+"/approve", "{}").refused(t, 403, "forbidden")
	w.call(assessor, "POST", "/v1/evidence/"+e.ID+"/approve", "{}", header("If-Match", `"1"`)).refused(t, 412, "precondition-failed")
	w.call(assessor, "POST", "/v1/evidence/"+e.ID+"/approve", "{}").data(t, 200, &again)
	// Changed on disk, it is not served.
	if err := os.WriteFile(w.sent()[0], []byte("forged\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.call(assessor, "GET", "/v1/evidence/"+e.ID+"/content", nil).refused(t, 503, "register-unavailable")
}

func TestVerificationOverTheAPI(t *testing.T) {
	w := retried(newWorld(t))
	var v struct {
		caseRef
		Tests []struct{ Requirement, Outcome, Finding string }
		Risk  struct {
			Contributions []struct{ Input, Because string }
		}
	}
	w.call(assessor, "POST", "/v1/verifications", `{"product_id":"FP-1001","requirements":["OSF-AUT"]}`).data(t, 201, &v)
	if len(v.Tests) != 1 || len(v.Risk.Contributions) == 0 {
		t.Fatalf("%+v", v)
	}
	w.call(assessor, "POST", "/v1/verifications/"+v.ID+"/close", `{"summary":"x"}`).refused(t, 409, "state-conflict")
	e := w.call(assessor, "POST", "/v1/verifications/"+v.ID+"/tests", `{"requirement":"OSF-XXX","method":"automated","outcome":"pass"}`).refused(t, 422, "invalid")
	if e.Source.Pointer != "/requirement" {
		t.Errorf("points at %s", e.Source.Pointer)
	}
	w.call(assessor, "POST", "/v1/verifications/"+v.ID+"/tests", `{"requirement":"OSF-AUT","method":"control-tested","outcome":"fail","finding":"No second factor.","severity":"high"}`).data(t, 200, &v)
	id := v.Tests[0].Finding
	w.call(kookaburra, "GET", "/v1/findings/"+id, nil).refused(t, 404, "not-found")
	w.call(kookaburra, "POST", "/v1/findings/"+id+"/answer", `{"response":"x"}`).refused(t, 404, "not-found")
	var f caseRef
	w.call(wattlebird, "POST", "/v1/findings/"+id+"/answer", `{"response":"It is there now."}`).data(t, 200, &f)
	if f.State != "answered" {
		t.Errorf("%+v", f)
	}
	w.call(wattlebird, "POST", "/v1/findings/"+id+"/close", `{"note":"x"}`).refused(t, 403, "forbidden")
	w.call(assessor, "POST", "/v1/findings/"+id+"/close", `{"note":"Seen."}`).data(t, 200, &f)
	if f.State != "closed" {
		t.Errorf("%+v", f)
	}
	w.call(assessor, "POST", "/v1/verifications/"+v.ID+"/close", `{"summary":"Mended."}`).data(t, 200, &v)
	var list []caseRef
	w.call(wattlebird, "GET", "/v1/findings?state=closed&product_id=FP-1001", nil).data(t, 200, &list)
	if len(list) != 1 {
		t.Errorf("%+v", list)
	}
	for path, n := range map[string]int{"/v1/findings?overdue=false": 0, "/v1/findings?overdue=true": 0, "/v1/findings?severity=high": 1, "/v1/findings?severity=low": 0} {
		w.call(assessor, "GET", path, nil).data(t, 200, &list)
		if len(list) != n {
			t.Errorf("%s: %+v", path, list)
		}
	}
	w.call(assessor, "GET", "/v1/findings?severity=huge", nil).refused(t, 422, "invalid")
}

// The public can compute a draw again from what it is shown.
func TestDrawOverTheAPI(t *testing.T) {
	w := retried(newWorld(t))
	var d struct {
		Commitment string
		Selected   int
		Opened     bool `json:"verifications_opened"`
	}
	w.call(assessor, "POST", "/v1/draws", `{"period":"2026"}`).data(t, 201, &d)
	r := w.call(nobody, "GET", "/v1/draws/2026", nil)
	if strings.Contains(r.body, "seed") || strings.Contains(r.body, "assessor@") {
		t.Errorf("tells too much: %s", r)
	}
	w.call(nobody, "GET", "/v1/draws/2026/document", nil).refused(t, 409, "state-conflict")
	w.call(assessor, "POST", "/v1/draws/2026/draw", nil, without("Content-Type")).data(t, 200, &d)
	if !d.Opened || d.Selected == 0 {
		t.Fatalf("%+v", d)
	}
	var published certification.Draw
	r = w.call(nobody, "GET", "/v1/draws/2026/document", nil)
	if err := json.Unmarshal([]byte(r.body), &published); err != nil {
		t.Fatal(err)
	}
	if err := published.Verify(d.Commitment); err != nil {
		t.Error(err)
	}
	var list []struct{ Basis string }
	w.call(auditor, "GET", "/v1/verifications?period=2026&limit=100", nil).data(t, 200, &list)
	if len(list) != d.Selected {
		t.Errorf("%d verifications, %d selected", len(list), d.Selected)
	}
}

func TestRulesOverTheAPI(t *testing.T) {
	w := retried(newWorld(t))
	var m struct{ Rows []map[string]any }
	w.call(wattlebird, "GET", "/v1/role-matrix", nil).data(t, 200, &m)
	if len(m.Rows) != 6 || m.Rows[5]["CP"] != "meets" {
		t.Errorf("%+v", m)
	}
	var reqs []struct {
		ID     string
		How    []string
		Levels []struct{ When string }
	}
	w.call(wattlebird, "GET", "/v1/requirements?limit=100", nil).data(t, 200, &reqs)
	if len(reqs) != 20 || len(reqs[0].How) == 0 {
		t.Errorf("%+v", reqs)
	}
	w.call(wattlebird, "GET", "/v1/requirements?catalogue=1999.1", nil).refused(t, 422, "invalid")
	var bound struct {
		Category     string
		Because      string `json:"category_because"`
		Requirements []struct{ ID, Because string }
		Obligations  []struct {
			Party       string
			SelfCertify bool `json:"self_certify"`
			Scenarios   []int
		}
	}
	w.call(wattlebird, "GET", "/v1/products/FP-1001/requirements", nil).data(t, 200, &bound)
	if bound.Category != "A" || len(bound.Obligations) != 2 || bound.Obligations[1].SelfCertify || !slices.Equal(bound.Obligations[1].Scenarios, []int{6}) {
		t.Errorf("%+v", bound)
	}
	w.call(wattlebird, "GET", "/v1/products/FP-1001/risk", nil).refused(t, 403, "forbidden")
	var gap struct {
		Rows   []struct{ Control, Coverage string }
		Counts map[string]int
	}
	w.call(wattlebird, "GET", "/v1/gap-analyses?wanted=SSAM&given=OSF", nil).data(t, 200, &gap)
	if gap.Counts["unknown"] == 0 || gap.Counts["absent"] == 0 {
		t.Errorf("%+v", gap)
	}
	if e := w.call(wattlebird, "GET", "/v1/gap-analyses?wanted=SSAM&given=PCI", nil).refused(t, 422, "invalid"); e.Source.Parameter != "given" {
		t.Errorf("%+v", e)
	}
	// The same evidence from two entities: told to assessors, not to those concerned.
	for who, product := range map[string]string{wattlebird: "FP-1001", kookaburra: "FP-1003"} {
		if r := w.call(who, "POST", "/v1/products/"+product+"/evidence?type=policy", "our policy\n"); r.status != 201 {
			t.Fatal(r)
		}
	}
	var signals []struct {
		Kind   string
		Others []string
	}
	w.call(assessor, "GET", "/v1/entities/65000000101/signals", nil).data(t, 200, &signals)
	if len(signals) != 1 || signals[0].Kind != "evidence-shared" || !slices.Equal(signals[0].Others, []string{"31000000202"}) {
		t.Errorf("%+v", signals)
	}
	w.call(wattlebird, "GET", "/v1/entities/65000000101/signals", nil).refused(t, 403, "forbidden")
}

func TestEcosystemOverTheAPI(t *testing.T) {
	w := retried(newWorld(t))
	var m struct {
		Mark      string
		Questions []struct{ ID, Mark string }
		Blockers  []struct{ Say string }
	}
	w.call(wattlebird, "PUT", "/v1/products/FP-1001/ecosystem/answers/ECO.1", `{"values":["yes"]}`).data(t, 200, &m)
	if m.Mark != "open" || len(m.Questions) < 5 || len(m.Blockers) == 0 {
		t.Errorf("%+v", m)
	}
	if e := w.call(wattlebird, "PUT", "/v1/products/FP-1001/ecosystem/answers/ECO.1", `{"values":["maybe"]}`).refused(t, 422, "invalid"); e.Source.Pointer != "/values/0" {
		t.Errorf("%+v", e)
	}
	w.call(wattlebird, "PUT", "/v1/products/FP-1001/ecosystem/answers/ECO.99", `{"values":["yes"]}`).refused(t, 404, "not-found")
	var a struct {
		caseRef
		Listed    bool `json:"must_be_listed"`
		Overdue   bool
		Suspended []string `json:"suspended_ssids"`
	}
	w.call(wattlebird, "POST", "/v1/add-ons", `{"product_id":"FP-1001","name":"Time sheets","developer":"Quoll Apps","client_list_access":true,"ssids":["0000123400"]}`).data(t, 201, &a)
	if !a.Listed || !a.Overdue || len(a.Suspended) != 0 {
		t.Errorf("%+v", a)
	}
	w.call(kookaburra, "GET", "/v1/add-ons/"+a.ID, nil).refused(t, 404, "not-found")
	w.call(wattlebird, "POST", "/v1/add-ons/"+a.ID+"/suspend", `{"reason":"leak"}`).refused(t, 403, "forbidden")
	var stopped []struct {
		SuspensionID string `json:"suspension_id"`
	}
	w.call(operator, "POST", "/v1/add-ons/"+a.ID+"/suspend", `{"reason":"leak"}`).data(t, 200, &stopped)
	if len(stopped) != 1 || stopped[0].SuspensionID == "" {
		t.Errorf("%+v", stopped)
	}
	w.call(wattlebird, "GET", "/v1/add-ons/"+a.ID, nil).data(t, 200, &a)
	if !slices.Equal(a.Suspended, []string{"0000123400"}) {
		t.Errorf("%+v", a)
	}
	var list []caseRef
	w.call(assessor, "GET", "/v1/add-ons?listed=yes&word="+url.QueryEscape("quo"), nil).data(t, 200, &list)
	if len(list) != 1 {
		t.Errorf("%+v", list)
	}
	w.call(wattlebird, "PUT", "/v1/add-ons/"+a.ID, `{"name":"Time sheets","developer":"Quoll Apps","connections":3}`, header("If-Match", `"1"`)).refused(t, 412, "precondition-failed")
	w.call(wattlebird, "PUT", "/v1/add-ons/"+a.ID, `{"name":"Time sheets","developer":"Quoll Apps","connections":3}`).data(t, 200, &a)
	if a.Listed {
		t.Errorf("%+v", a)
	}
	w.call(wattlebird, "DELETE", "/v1/add-ons/"+a.ID, nil).data(t, 200, &a)
	var ta struct {
		caseRef
		Threats []struct{ Title string }
	}
	w.call(wattlebird, "POST", "/v1/threat-analyses", `{"product_id":"FP-1001","title":"t","scope":"s","threats":[
		{"title":"small","scenario":"s","likelihood":"low","impact":"low","treatment":"accept"},{"title":"large","scenario":"s","likelihood":"high","impact":"high","treatment":"avoid"}]}`).data(t, 201, &ta)
	if ta.Threats[0].Title != "large" {
		t.Errorf("%+v", ta)
	}
	w.call(kookaburra, "GET", "/v1/threat-analyses/"+ta.ID, nil).refused(t, 404, "not-found")
}
