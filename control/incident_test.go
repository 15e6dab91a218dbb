package control_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
)

type incidentRef struct {
	caseRef
	Level   string
	Title   string
	Owner   string
	Derived string   `json:"derived_level"`
	Next    []string `json:"next"`
	Clocks  []struct{ Duty, Status string }
	Contain []string                    `json:"containment"`
	Line    []struct{ By, What string } `json:"timeline"`
}

func report(more map[string]any) map[string]any {
	body := map[string]any{
		"title": "Signing key on a paste site", "type": "credential-compromise", "occurred_at": time.Now().Add(-20 * time.Hour), "aware_at": time.Now().Add(-time.Hour),
		"subjects": []map[string]any{{"kind": "product", "id": "FP-1001"}}, "exposure": map[string]any{"ssids": []string{"0000123400"}},
	}
	for k, v := range more {
		body[k] = v
	}
	return body
}

// TestIncidentOverTheAPI goes from a developer's report to the close, with the
// containment through the fence.
func TestIncidentOverTheAPI(t *testing.T) {
	w := retried(newWorld(t))
	var x incidentRef
	w.call(wattlebird, "POST", "/v1/incidents", report(nil)).data(t, 201, &x)
	at := "/v1/incidents/" + x.ID
	if x.State != "reported" || x.Derived != "low" || len(x.Next) == 0 || x.Clocks[0].Status != "met" {
		t.Fatalf("%+v", x)
	}
	w.call(wattlebird, "POST", at+"/triage", `{}`).refused(t, 403, "forbidden")
	w.call(kookaburra, "GET", at, nil).refused(t, 404, "not-found")
	w.call(wattlebird, "POST", at+"/amend", `{"exposure":{"tfn":true,"records":3,"ssids":["0000123400"]}}`).data(t, 200, &x)
	w.call(officer, "POST", at+"/triage", `{"level":"low"}`).refused(t, 422, "invalid")
	w.call(officer, "POST", at+"/triage", `{}`).data(t, 200, &x)
	if x.Level != "high" || x.State != "triaged" {
		t.Fatalf("triaged to %+v", x)
	}
	// A high incident opened a verification of the product, in the same commit.
	var all []struct{ ID, Basis string }
	w.call(assessor, "GET", "/v1/verifications?product_id=FP-1001", nil).data(t, 200, &all)
	if len(all) != 1 || all[0].Basis != "high incident" {
		t.Errorf("verifications %+v", all)
	}
	w.call(officer, "POST", at+"/contain?wait=true", `{"subject":{"kind":"product","id":"FP-1001"},"how":"the key is public","emergency":true}`).data(t, 200, &x)
	if x.State != "contained" || len(x.Contain) != 1 {
		t.Fatalf("contained: %+v", x)
	}
	var s struct {
		Active     bool
		Emergency  bool
		IncidentID string `json:"incident_id"`
	}
	w.call(operator, "GET", "/v1/suspensions/"+x.Contain[0], nil).data(t, 200, &s)
	if !s.Active || !s.Emergency || s.IncidentID != x.ID {
		t.Errorf("the suspension: %+v", s)
	}
	// An add-on of the product, whose developer is told; one of whom no address is
	// known is not, nor one that was taken off the list.
	for _, body := range []string{
		`{"product_id":"FP-1001","name":"Rosterly","developer":"Rosterly Pty","contact":"security@rosterly.example","connections":1200}`,
		`{"product_id":"FP-1001","name":"Tipsy","developer":"Tipsy Pty","connections":3}`,
		`{"product_id":"FP-1001","name":"Gone","developer":"Gone Pty","contact":"gone@gone.example"}`,
	} {
		var a struct{ ID, Name string }
		w.call(wattlebird, "POST", "/v1/add-ons", body).data(t, 201, &a)
		if a.Name == "Gone" {
			w.call(wattlebird, "DELETE", "/v1/add-ons/"+a.ID, nil).data(t, 200, &a)
		}
	}
	w.call(wattlebird, "POST", "/v1/add-ons", `{"product_id":"FP-1001","name":"X","developer":"X","contact":"not an address"}`).refused(t, 422, "invalid")
	// Its logs are asked for by a day, and where they are is answered by it alone.
	var asked struct {
		Requests []struct {
			ID       string
			Answered registry.Time `json:"answered_at"`
		}
	}
	due := time.Now().Add(48 * time.Hour).UTC().Format(time.RFC3339)
	w.call(wattlebird, "POST", at+"/log-requests", `{"entity":"65000000101","what":"gateway logs","due":"`+due+`"}`).refused(t, 403, "forbidden")
	w.call(officer, "POST", at+"/log-requests", `{"entity":"65000000101","what":"gateway logs","due":"`+due+`"}`).data(t, 200, &asked)
	if len(asked.Requests) != 1 {
		t.Fatalf("asked for %+v", asked)
	}
	w.call(wattlebird, "POST", at+"/log-requests/"+asked.Requests[0].ID+"/answer", `{"evidence":"handed in by the console"}`).data(t, 200, &asked)
	w.call(officer, "GET", at, nil).data(t, 200, &asked)
	if !asked.Requests[0].Answered.Set() {
		t.Errorf("the answer is not kept: %+v", asked)
	}
	var notices []struct{ Audience, Name, Contact, Subject, Body string }
	w.call(officer, "GET", at+"/notices", nil).data(t, 200, &notices)
	var to []string
	for _, n := range notices {
		to = append(to, n.Audience+" "+n.Name)
		if strings.Contains(n.Body, "officer@") {
			t.Errorf("a notice names an officer: %s", n.Body)
		}
	}
	if !slices.Equal(to, []string{"entity Wattlebird Payroll", "chain Bluegum Hosting", "chain Rosterly Pty", "user ABN 56000001313"}) {
		t.Errorf("notices to %v", to)
	}
	w.call(officer, "POST", at+"/notify", `{"audiences":["entity","chain","user"]}`).data(t, 200, &x)
	var mail []struct{ To, Subject, State string }
	w.call(auditor, "GET", "/v1/messages?about=incident/"+x.ID, nil).data(t, 200, &mail)
	if !slices.ContainsFunc(mail, func(m struct{ To, Subject, State string }) bool {
		return m.To == "dev@wattlebird.example" && m.State == "queued"
	}) {
		t.Errorf("queued %+v", mail)
	}
	if !slices.ContainsFunc(mail, func(m struct{ To, Subject, State string }) bool { return m.To == "security@rosterly.example" }) {
		t.Errorf("the developer of an add-on is not told: %+v", mail)
	}
	// The entity sees how it stands, and not who at the agency does what.
	x = incidentRef{caseRef: x.caseRef, Contain: x.Contain}
	w.call(wattlebird, "GET", at, nil).data(t, 200, &x)
	for _, l := range x.Line {
		if l.By != "agency" && l.By != "dev@wattlebird.example" {
			t.Errorf("the entity sees %+v", l)
		}
	}
	if x.Owner != "" {
		t.Errorf("the entity sees the owner %s", x.Owner)
	}
	w.call(officer, "POST", at+"/close", `{"cause":"a key in a repository","done":"rotated"}`).refused(t, 422, "invalid")
	w.call(officer, "POST", at+"/assess", `{"eligible":false,"reason":"no harm likely"}`).data(t, 200, &x)
	w.call(operator, "POST", "/v1/suspensions/"+x.Contain[0]+"/lift", `{}`).data(t, 200, &s)
	w.call(officer, "POST", at+"/close", `{"cause":"a key in a repository","done":"rotated","lessons":"scan repositories for keys"}`, header("If-Match", `"1"`)).refused(t, 412, "precondition-failed")
	w.call(officer, "POST", at+"/close", `{"cause":"a key in a repository","done":"rotated","lessons":"scan repositories for keys"}`).data(t, 200, &x)
	w.call(officer, "POST", at+"/triage", `{}`).refused(t, 409, "state-conflict")
	r := w.call(nobody, "GET", "/v1/lessons", nil)
	if r.status != 200 || !strings.Contains(r.body, "scan repositories") || strings.Contains(r.body, "Wattlebird") || strings.Contains(r.body, x.ID) {
		t.Errorf("lessons: %s", r)
	}
}

// TestABadReportIsKeptAndNamesEveryField: 422 with a pointer each, and the
// report as a draft beside them.
func TestABadReportIsKeptAndNamesEveryField(t *testing.T) {
	w := retried(newWorld(t))
	bad := report(map[string]any{
		"type": "", "level": "high", "aware_at": time.Now().Add(-30 * time.Hour), "subjects": []map[string]any{{"kind": "product", "id": "FP-9999"}},
		"description": "the client's number is 220115957",
	})
	var body struct {
		Errors []struct {
			Source struct{ Pointer string }
			Detail string
			Meta   struct{ Data incidentRef }
		}
	}
	r := w.call(wattlebird, "POST", "/v1/incidents", bad)
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || r.status != 422 {
		t.Fatal(r, err)
	}
	var pointers []string
	for _, e := range body.Errors {
		pointers = append(pointers, e.Source.Pointer)
	}
	slices.Sort(pointers)
	if want := []string{"/aware_at", "/description", "/subjects/0/id", "/type"}; !slices.Equal(pointers, want) {
		t.Errorf("pointers %v, want %v", pointers, want)
	}
	if kept := body.Errors[0]; !strings.Contains(kept.Detail, "kept as draft "+kept.Meta.Data.ID) {
		t.Errorf("nobody is told of the draft: %q", kept.Detail)
	}
	if strings.Contains(r.body, "220115957") {
		t.Error("the number comes back")
	}
	id := body.Errors[0].Meta.Data.ID
	var x incidentRef
	w.call(wattlebird, "GET", "/v1/incidents/"+id, nil).data(t, 200, &x)
	if x.State != "draft" {
		t.Errorf("kept as %+v", x)
	}
	w.call(wattlebird, "POST", "/v1/incidents/"+id+"/amend", map[string]any{
		"type": "credential-compromise", "aware_at": time.Now(), "description": "a client called", "subjects": []map[string]any{{"kind": "product", "id": "FP-1001"}},
	}).data(t, 200, &x)
	if x.State != "reported" {
		t.Errorf("completed and %+v", x)
	}
}

// TestNoWrongDoor: a mail becomes a draft in the same queue.
func TestNoWrongDoor(t *testing.T) {
	w := retried(newWorld(t))
	var x incidentRef
	w.call(officer, "POST", "/v1/incidents/inbox", map[string]any{"from": "jo@possum.example", "subject": "strange lodgment", "text": "we did not send this", "date": time.Now()}).data(t, 201, &x)
	if x.State != "draft" || x.Title != "strange lodgment" {
		t.Errorf("%+v", x)
	}
	var list []incidentRef
	w.call(officer, "GET", "/v1/incidents?state=draft&live=true", nil).data(t, 200, &list)
	if len(list) != 1 || list[0].ID != x.ID {
		t.Errorf("the queue: %+v", list)
	}
	w.call(wattlebird, "GET", "/v1/incidents", nil).data(t, 200, &list)
	if len(list) != 0 {
		t.Errorf("a developer sees %+v", list)
	}
}
