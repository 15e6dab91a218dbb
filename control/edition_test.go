package control_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry/certification"
)

func TestAVersionOfTheCatalogueIsProposedPreviewedAndPublishedByTwo(t *testing.T) {
	w := retried(newWorld(t))
	catalogue, questionnaire, err := certification.Documents()
	if err != nil {
		t.Fatal(err)
	}
	next := func(b []byte) string { return strings.ReplaceAll(string(b), `"2026.1"`, `"2027.1"`) }
	c := strings.Replace(next(catalogue), "effective: 2026-01-01", "effective: "+time.Now().AddDate(0, 0, 40).Format(time.DateOnly), 1)
	c = strings.Replace(c, "title: Audit logging\n    revision: 1", "title: Audit logging\n    revision: 2", 1)
	body := map[string]any{"of": "catalogue", "catalogue": c, "questionnaire": next(questionnaire), "note": "more logging"}

	w.call(wattlebird, "POST", "/v1/editions", body).refused(t, 403, "forbidden")
	e := w.call(assessor, "POST", "/v1/editions", map[string]any{"of": "catalogue", "catalogue": c + "\n nonsense: [", "questionnaire": "x"}).refused(t, 422, "invalid")
	if e.Source.Pointer != "/catalogue" || !strings.Contains(e.Detail, "line ") {
		t.Errorf("no line is named: %+v", e)
	}
	var x struct{ ID, State, Version, Catalogue string }
	w.call(assessor, "POST", "/v1/editions", body).data(t, 201, &x)
	if x.ID != "catalogue-2027.1" || x.State != "proposed" {
		t.Fatalf("%+v", x)
	}
	w.call(assessor, "POST", "/v1/editions", body).refused(t, 409, "state-conflict")

	// Whom it affects is told before it is published, page by page.
	var affected []struct {
		Product string `json:"product_id"`
		Reopens []struct{ Requirement, Because string }
		DueBy   string `json:"due_by"`
	}
	r := w.call(registrar, "GET", "/v1/editions/catalogue-2027.1/affected?limit=2", nil)
	r.data(t, 200, &affected)
	if len(affected) != 2 || len(affected[0].Reopens) != 1 || affected[0].Reopens[0].Requirement != "OSF-AUD" || affected[0].DueBy == "" || !strings.Contains(r.body, `"total_items":`) {
		t.Errorf("affected: %s", r)
	}
	w.call(wattlebird, "GET", "/v1/editions/catalogue-2027.1/affected", nil).refused(t, 403, "forbidden")

	w.call(assessor, "POST", "/v1/editions/catalogue-2027.1/publish", nil).refused(t, 403, "forbidden")
	w.call(registrar, "POST", "/v1/editions/catalogue-2027.1/publish", `{}`, header("If-Match", `"999999999"`)).refused(t, 412, "precondition-failed")
	w.call(registrar, "POST", "/v1/editions/catalogue-2027.1/publish", nil).data(t, 200, &x)
	w.call(registrar, "POST", "/v1/editions/catalogue-2027.1/withdraw", nil).refused(t, 409, "state-conflict")
	var list []struct{ ID, State, Catalogue string }
	w.call(auditor, "GET", "/v1/editions?of=catalogue&state=published", nil).data(t, 200, &list)
	if len(list) != 1 || list[0].Catalogue != "" {
		t.Errorf("listed: %+v", list)
	}
	// It is known, and not in force yet.
	w.call(nobody, "GET", "/v1/requirements?catalogue=2027.1", nil).refused(t, 401, "unauthenticated")
	var requirements []struct{ Catalogue string }
	w.call(wattlebird, "GET", "/v1/requirements?catalogue=2027.1", nil).data(t, 200, &requirements)
	w.call(wattlebird, "GET", "/v1/requirements", nil).data(t, 200, &requirements)
	if requirements[0].Catalogue != "2026.1" {
		t.Errorf("in force: %+v", requirements[0])
	}

	// Terms take effect at once when they do not say otherwise.
	w.call(registrar, "POST", "/v1/editions", map[string]any{"of": "terms", "version": "2027.1", "terms": "We tell sooner.", "declaration": "It is true.", "grace_days": 14}).data(t, 201, &x)
	w.call(assessor, "POST", "/v1/editions/terms-2027.1/publish", nil).data(t, 200, &x)
	var terms struct{ Version, Terms string }
	w.call(wattlebird, "GET", "/v1/registration-terms", nil).data(t, 200, &terms)
	if terms.Version != "2027.1" || terms.Terms != "We tell sooner." {
		t.Errorf("terms in force: %+v", terms)
	}
	w.call(wattlebird, "POST", "/v1/registrations/65000000101/accept-terms", `{"terms_version":"2026.1","name":"Wanda"}`).refused(t, 422, "invalid")
	w.call(wattlebird, "POST", "/v1/registrations/65000000101/accept-terms", `{"terms_version":"2027.1","name":"Wanda"}`).data(t, 200, &struct{}{})
	w.call(kookaburra, "POST", "/v1/registrations/65000000101/accept-terms", `{"terms_version":"2027.1","name":"Kim"}`).refused(t, 404, "not-found")
}
