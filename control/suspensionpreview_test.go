package control_test

import (
	"net/http"
	"testing"
)

// TestASuspensionIsSeenBeforeItIsImposed: what it would stop and what it would
// leave, of each kind of subject, and nothing is suspended by looking.
func TestASuspensionIsSeenBeforeItIsImposed(t *testing.T) {
	w := newWorld(t)
	type reach struct {
		Name      string `json:"name"`
		OwnerName string `json:"owner_name"`
		Whole     bool   `json:"whole"`
		Total     int    `json:"products_total"`
		Products  []struct{ ID string }
		Apps      int                    `json:"client_apps"`
		Subs      int                    `json:"subscriptions"`
		Stopped   []struct{ Key string } `json:"services_stopped"`
		Left      []struct{ Key string } `json:"services_left"`
		InForce   []struct{ ID string }  `json:"in_force"`
	}
	look := func(kind, id, more string) (r reach) {
		t.Helper()
		w.call(operator, "POST", "/v1/suspensions/preview", `{"subject":{"kind":"`+kind+`","id":"`+id+`"}`+more+`}`).data(t, http.StatusOK, &r)
		return r
	}
	p := look("product", "FP-1001", "")
	if p.Name != "Wattlebird Pay Cloud" || p.OwnerName != "Wattlebird Payroll" || !p.Whole || p.Total != 1 || p.Apps == 0 || p.Subs != 1 || len(p.Stopped) == 0 || len(p.Left) != 1 || p.Left[0].Key != "receipts.get" {
		t.Errorf("of a product: %+v", p)
	}
	if x := look("product", "FP-1001", `,"emergency":true`); len(x.Left) != 0 || len(x.Stopped) != len(p.Stopped)+1 {
		t.Errorf("in an emergency: %+v", x)
	}
	if e := look("entity", "65000000101", ""); e.Total != 2 || len(e.Products) != 2 || e.Products[0].ID != "FP-1001" || e.Products[1].ID != "FP-1011" || !e.Whole {
		t.Errorf("of an entity: %+v", e)
	}
	if a := look("client-app", "fp-1001-prod", ""); a.Whole || a.Total != 1 || len(a.Left) != 0 || a.Apps != 0 {
		t.Errorf("of a client app: %+v", a)
	}
	if v := look("version", "FP-1001@4.8", ""); v.Whole || v.Name != "Wattlebird Pay Cloud 4.8" {
		t.Errorf("of a version: %+v", v)
	}
	if s := look("service", "receipts.get", ""); s.Total < 2 || len(s.Stopped) != 1 || len(s.Left) != 0 {
		t.Errorf("of a service: %+v", s)
	}
	if c := look("entity", "35000001111", ""); len(c.InForce) != 1 {
		t.Errorf("of an entity that is suspended: %+v", c)
	}
	if again := look("product", "FP-1001", ""); len(again.InForce) != 0 {
		t.Errorf("looking suspended it: %+v", again)
	}
	w.call(operator, "POST", "/v1/suspensions/preview", `{"subject":{"kind":"product","id":"FP-9999"}}`).refused(t, http.StatusUnprocessableEntity, "invalid")
	w.call(operator, "POST", "/v1/suspensions/preview", `{"subject":{"kind":"version","id":"FP-1001"}}`).refused(t, http.StatusUnprocessableEntity, "invalid")
}
