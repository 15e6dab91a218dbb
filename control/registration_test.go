package control_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
)

const aForm = `{"name":"%s","roles":["D"],"applicant":{"name":"Nia Newcomer","email":"%s","authority":"director"},
	"principals":[{"id":"P1","name":"Nia Newcomer","consented_at":"2026-01-01T00:00:00Z"}],
	"contacts":[{"for":"security","name":"N","email":"%[2]s"},{"for":"privacy","name":"N","email":"%[2]s"},{"for":"responsible","name":"N","email":"%[2]s"}],
	"purpose":"lodge","intent":"sell"}`

func (w *world) applies(a registry.Actor, abn, name string) {
	w.t.Helper()
	form := fmt.Sprintf(aForm, name, a.Name)
	w.person(a, "POST", "/v1/registrations", `{"abn":"`+abn+`","form":`+form+`}`).data(w.t, 201, &struct{}{})
	w.person(a, "POST", "/v1/registrations/"+abn+"/submit", `{"terms_version":"2026.1","name":"Nia"}`).data(w.t, 200, &struct{}{})
}

// TestNewcomersApply: somebody who belongs to no entity and is signed in as a
// person applies for one, sees that and nothing else, and may do no more.
func TestNewcomersApply(t *testing.T) {
	w := retried(newWorld(t))
	nia := registry.Actor{Name: "nia@elsewhere.example"}
	w.applies(nia, "56000001313", "Possum Bakery")
	w.person(nia, "GET", "/v1/registrations/56000001313", "").data(t, 200, &struct{}{})
	for _, path := range []string{"/v1/registrations/65000000101", "/v1/products/FP-1001", "/v1/entities/65000000101", "/v1/registrations/39000000707"} {
		w.person(nia, "GET", path, "").refused(t, 404, "not-found")
	}
	other := registry.Actor{Name: "other@elsewhere.example"}
	w.person(other, "GET", "/v1/registrations/56000001313", "").refused(t, 404, "not-found")
	w.person(other, "POST", "/v1/registrations/56000001313/withdraw", "").refused(t, 404, "not-found")
	// An entity that was entered before there were cases is its contact's, not anybody's.
	w.person(other, "POST", "/v1/registrations", `{"abn":"39000000707","form":`+fmt.Sprintf(aForm, "Mine now", "other@elsewhere.example")+`}`).refused(t, 409, "state-conflict")
	for path, body := range map[string]string{
		"/v1/registrations/56000001313/admit": "{}", "/v1/registrations/56000001313/reject": `{"trigger":"no-reply"}`,
		"/v1/incidents": `{}`, "/v1/products/FP-1001/evidence": "",
	} {
		if r := w.person(nia, "POST", path, body); r.status < 400 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	// A program without any permission is no newcomer.
	if r := w.person(registry.Actor{}, "GET", "/v1/registrations", ""); r.status == 200 && strings.Contains(r.body, "Possum") {
		t.Errorf("nobody sees %s", r.body)
	}
}

// TestRegistrationsByClock: what waits, for whom, and what is due first in front.
func TestRegistrationsByClock(t *testing.T) {
	w := retried(newWorld(t))
	reg := registry.Actor{Name: "rhea", Permissions: registry.PermRegistrar}
	w.applies(registry.Actor{Name: "possum@elsewhere.example"}, "56000001313", "Possum Bakery")
	time.Sleep(2 * time.Millisecond) // due later, to the millisecond
	w.applies(registry.Actor{Name: "echidna@elsewhere.example"}, "22000001414", "Echidna Foods")
	var agency, applicant []struct{ ABN registry.ABN }
	w.person(reg, "GET", "/v1/registrations?clock=agency", "").data(t, 200, &agency)
	if len(agency) != 2 || agency[0].ABN != 56000001313 {
		t.Fatalf("the agency's clock: %v", agency)
	}
	w.person(reg, "POST", "/v1/registrations/56000001313/ask", `{"question":"Who?"}`).data(t, 200, &struct{}{})
	w.person(reg, "GET", "/v1/registrations?clock=applicant", "").data(t, 200, &applicant)
	if len(applicant) != 1 || applicant[0].ABN != 56000001313 {
		t.Errorf("the applicant's clock: %v", applicant)
	}
	w.person(reg, "GET", "/v1/registrations?clock=applicant&q=possum", "").data(t, 200, &applicant)
	if len(applicant) != 1 {
		t.Errorf("with a word: %v", applicant)
	}
	w.person(reg, "GET", "/v1/registrations?clock=nobody", "").refused(t, 422, "invalid")
}

// TestAssessments: the riskiest first, each contribution shown.
func TestAssessments(t *testing.T) {
	w := retried(newWorld(t))
	var all []struct {
		ProductID string `json:"product_id"`
		State     string `json:"state"`
		Risk      struct {
			Score         int
			Contributions []struct{ Because string }
		}
	}
	asa := registry.Actor{Name: "asa", Permissions: registry.PermAssessor}
	w.person(asa, "GET", "/v1/assessments", "").data(t, 200, &all)
	if len(all) != 2 || all[0].Risk.Score < all[1].Risk.Score || len(all[0].Risk.Contributions) < 5 { // FP-1005 and FP-1008
		t.Errorf("%+v", all)
	}
	w.person(asa, "POST", "/v1/verifications", `{"product_id":"FP-1001"}`).data(t, 201, &struct{}{})
	w.person(asa, "GET", "/v1/assessments", "").data(t, 200, &all)
	if len(all) != 3 {
		t.Errorf("with an open verification: %+v", all)
	}
	w.person(asa, "GET", "/v1/assessments?state=PVT", "").data(t, 200, &all)
	if len(all) != 1 || all[0].ProductID != "FP-1008" {
		t.Errorf("in the pilot: %+v", all)
	}
	w.person(registry.Actor{Name: "dev", Permissions: registry.PermDeveloper, Entity: 65000000101}, "GET", "/v1/assessments", "").refused(t, 403, "forbidden")
}
