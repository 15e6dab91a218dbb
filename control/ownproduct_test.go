package control_test

import (
	"fmt"
	"testing"

	"github.com/dspgate/dspgate/registry"
)

// A registered entity's own developer enters another product, as a Draft that may be
// tried in the test environments and nowhere else; the role matrix says in which
// scenarios, and there is an end to Drafts.
func TestADevelopersNextProduct(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/registrations/65000000101/products"
	var p struct {
		ID, Name      string
		Owner         string
		Certification struct{ State string }
		Entitlements  []struct{ Service, Environment string }
	}
	w.call(wattlebird, "POST", path, `{"name":"Wattlebird Till","scenario":2}`).data(t, 201, &p)
	if p.ID == "" || p.Name != "Wattlebird Till" || p.Owner != "65000000101" || p.Certification.State != "Draft" || len(p.Entitlements) == 0 {
		t.Errorf("%+v", p)
	}
	for _, e := range p.Entitlements {
		if e.Environment == "PROD" {
			t.Errorf("entitled to %s in production", e.Service)
		}
	}
	apps := func(product string) (ids []string) {
		var all []struct {
			ID string `json:"client_id"`
		}
		w.call(wattlebird, "GET", "/v1/client-apps?product_id="+product, nil).data(t, 200, &all)
		for _, a := range all {
			ids = append(ids, a.ID)
		}
		return ids
	}
	if got := apps(p.ID); len(got) != 2 {
		t.Errorf("client apps %v", got)
	}
	// In-house is for those who are so; a chain must be of the register; another's ABN is nobody's business.
	for body, pointer := range map[string]string{
		`{"name":"x","scenario":4}`:                                       "/scenario",
		`{"name":"x","scenario":3,"chain":["56000001313"]}`:               "/chain",
		`{"name":"","scenario":2}`:                                        "/name",
		`{"name":"Till 123 456 782","scenario":2}`:                        "/name",
		`{"name":"x","scenario":9}`:                                       "/scenario",
		`{"name":"x","scenario":2,"chain":["65000000101","65000000101"]}`: "/chain",
	} {
		if e := w.call(wattlebird, "POST", path, body).refused(t, 422, "invalid"); len(e.Source.Pointer) < len(pointer) || e.Source.Pointer[:len(pointer)] != pointer {
			t.Errorf("%s: %+v", body, e)
		}
	}
	w.call(kookaburra, "POST", path, `{"name":"x","scenario":2}`).refused(t, 404, "not-found")
	w.call(assessor, "POST", path, `{"name":"x","scenario":2}`).refused(t, 403, "forbidden")

	// One that a registrar entered without them gets its test environments, once.
	late := registry.Product{ID: "FP-7001", Name: "Late", Owner: 65000000101, Scenario: 2}
	w.put(t, func(tx *registry.Tx) error { return tx.PutProduct(late) })
	const open = "/v1/registrations/65000000101/test-environments"
	for range 2 {
		w.call(wattlebird, "POST", open, `{"product_id":"FP-7001"}`).data(t, 200, new(struct{}))
		if got := fmt.Sprint(apps("FP-7001")); got != "[fp-7001-evte fp-7001-sandbox]" {
			t.Errorf("client apps %s", got)
		}
	}
	w.call(wattlebird, "POST", open, `{"product_id":"FP-1003"}`).refused(t, 422, "invalid")

	made := 0
	for ; made < 40; made++ {
		r := w.call(wattlebird, "POST", path, fmt.Sprintf(`{"name":"Draft %d","scenario":2}`, made))
		if r.status == 409 {
			break
		}
		r.data(t, 201, &p)
	}
	if made < 10 || made > 20 {
		t.Errorf("%d more Drafts were entered", made)
	}
	w.call(registrar, "POST", path, `{"name":"One more","scenario":2}`).data(t, 201, &p)
}
