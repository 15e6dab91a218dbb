package control_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

func TestPagesCoverAListingOnceInOrder(t *testing.T) {
	w := newWorld(t)
	var ids []string
	path := "/v1/client-apps?limit=3&environment=PROD"
	for path != "" {
		r := w.call(auditor, "GET", path, nil)
		var body struct {
			Data []struct {
				ClientID    string `json:"client_id"`
				ProductID   string `json:"product_id"`
				Environment string
				Revision    uint64
			}
			Meta  struct{ Page, Limit, Total_Items, Total_Pages, Revision int } `json:"_meta"`
			Links struct{ Self, Prev, Next string }                             `json:"_links"`
		}
		if err := json.Unmarshal([]byte(r.body), &body); err != nil || r.status != 200 {
			t.Fatal(err, r)
		}
		for _, a := range body.Data {
			if a.Environment != "PROD" || a.Revision == 0 {
				t.Errorf("%+v", a)
			}
			ids = append(ids, a.ClientID)
		}
		if body.Meta.Limit != 3 || body.Meta.Total_Pages != (body.Meta.Total_Items+2)/3 || len(body.Data) > 3 {
			t.Errorf("%+v", body.Meta)
		}
		if path = body.Links.Next; path == "" && len(ids) != body.Meta.Total_Items {
			t.Errorf("%d of %d", len(ids), body.Meta.Total_Items)
		}
	}
	for i := 1; i < len(ids); i++ {
		if ids[i-1] >= ids[i] {
			t.Errorf("out of order: %v", ids)
		}
	}
	if len(ids) < 8 {
		t.Errorf("too few: %v", ids)
	}
	if r := w.call(auditor, "GET", "/v1/products?page=1000000&limit=100", nil); r.status != 200 || !strings.HasPrefix(r.body, `{"data":[],`) {
		t.Errorf("beyond the end: %s", r)
	}
}

func TestFiltersByOtherNouns(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string]string{
		"/v1/client-apps?product_id=FP-1001":                  "[fp-1001-evte fp-1001-prod]",
		"/v1/client-apps?product_id=FP-1001&environment=PROD": "[fp-1001-prod]",
		"/v1/products?owner=65000000101":                      "[FP-1001 FP-1011]",
		"/v1/products?owner=65%20000%20000%20101":             "[FP-1001 FP-1011]",
		"/v1/products?entity=73000000606":                     "[FP-1001 FP-1008]",
		"/v1/products?state=Delisted":                         "[FP-1012]",
		"/v1/subscriptions?product_id=FP-1003":                "[0000300001]",
		"/v1/subscriptions?client_abn=18000000505":            "[0000600001]",
		"/v1/services?risk=1":                                 "[abr.lookup receipts.get]",
		"/v1/entities?name=wattle":                            "[65000000101]",
		"/v1/entities?state=Rejected":                         "[39000000707]",
	} {
		var data []map[string]any
		w.call(auditor, "GET", path, nil).data(t, 200, &data)
		var ids []string
		for _, d := range data {
			for _, k := range []string{"client_id", "ssid", "key", "abn", "id"} {
				if id, ok := d[k].(string); ok {
					ids = append(ids, id)
					break
				}
			}
		}
		if fmt.Sprint(ids) != want {
			t.Errorf("%s: %v, want %s", path, ids, want)
		}
	}
}

// The public register shows whitelisted products of registered entities that
// are not suspended, and not why another is missing.
func TestThePublicRegister(t *testing.T) {
	w := newWorld(t)
	public := func() string {
		var all []struct {
			ID       string `json:"product_id"`
			Services []string
			Versions []string
		}
		r := w.call(nobody, "GET", "/v1/register?limit=100", nil)
		r.data(t, 200, &all)
		for _, secret := range []string{"state", "Whitelisted", "reason", "suspen", "contact", "certification"} {
			if strings.Contains(r.body, secret) {
				t.Errorf("tells of %q: %s", secret, r.body)
			}
		}
		var ids []string
		for _, p := range all {
			ids = append(ids, p.ID)
			if p.ID == "FP-1009" && fmt.Sprint(p.Versions) != "[4.2]" {
				t.Errorf("versions %v", p.Versions)
			}
		}
		return strings.Join(ids, " ")
	}
	if got := public(); got != "FP-1001 FP-1002 FP-1003 FP-1004 FP-1006 FP-1009" {
		t.Errorf("shows %s", got)
	}
	w.call(operator, "POST", "/v1/suspensions", suspendBody("entity", "31000000202")).data(t, 201, new(suspension))
	if got := public(); got != "FP-1001 FP-1002 FP-1004 FP-1006 FP-1009" {
		t.Errorf("shows %s after a suspension", got)
	}
}

func TestMe(t *testing.T) {
	w := newWorld(t)
	var me struct {
		Name     string
		Entity   struct{ ABN string }
		Products []struct {
			ID, Standing string
			Versions     []struct{ Version, Standing string }
		}
		Denials []struct{ Code string } `json:"last_denials"`
	}
	id := authz.NewIDs().Next(time.Now())
	w.records[id] = authz.Record{ID: id, Reason: authz.CertificationExpired, ProductID: "FP-1011"}
	w.call(wattlebird, "GET", "/v1/me", nil).data(t, 200, &me)
	got := fmt.Sprint(me)
	want := "{dev@wattlebird.example {65000000101} [{FP-1001 ok [{4.8 version-unsupported} {5.0 ok}]} {FP-1011 certification-expired [{1.0 certification-expired}]}] [{certification-expired}]}"
	alt := strings.Replace(want, "[{4.8 version-unsupported} {5.0 ok}]", "[{5.0 ok} {4.8 version-unsupported}]", 1)
	if got != want && got != alt {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	var staff map[string]any
	w.call(operator, "GET", "/v1/me", nil).data(t, 200, &staff)
	if fmt.Sprint(staff) != "map[name:operator@agency.example permissions:[operator registrar]]" {
		t.Errorf("%v", staff)
	}
}

func TestExplainSaysWhyAndWhetherItWouldStillBeSo(t *testing.T) {
	w := newWorld(t)
	var s suspension
	w.call(operator, "POST", "/v1/suspensions", suspendBody("product", "FP-1003")).data(t, 201, &s)
	id := authz.NewIDs().Next(time.Now())
	w.records[id] = authz.Record{
		ID: id, At: registry.At(time.Now()), Reason: authz.ProductSuspended, Revision: s.Revision, Environment: registry.PROD, Service: "piitr.get",
		Route: "GET /individuals/v1/{tfn}/prefill", ProductID: "FP-1003", ClientID: "fp-1003-prod", Holder: 31000000202, Suspension: s.ID, Sidecar: "sidecar-1",
	}
	type explanation struct {
		Decision   struct{ Code, Sidecar_ID string }
		Detail     string
		Suspension *suspension
		Register   []struct {
			Kind, ID, Says string
			Changed_Since  bool
			Change         *struct{ Actor, Command string }
		}
		Now struct {
			Known, Alike bool
			Code         string
		}
	}
	path := "/v1/decisions/" + id.String()
	var e explanation
	w.call(operator, "GET", path, nil).data(t, 200, &e)
	if e.Decision.Code != "product-suspended" || e.Detail == "" || e.Suspension == nil || e.Suspension.Reason != "test" || !e.Now.Known || !e.Now.Alike || len(e.Register) < 5 {
		t.Errorf("%+v", e)
	}
	w.call(operator2, "POST", "/v1/suspensions/"+s.ID+"/lift", `{"reason":"replaced"}`).data(t, 200, &s)
	w.call(auditor, "GET", path, nil).data(t, 200, &e)
	if e.Now.Alike || e.Now.Code != "ok" {
		t.Errorf("after the lift: %+v", e.Now)
	}
	changed := false
	for _, f := range e.Register {
		if f.Kind == "suspension" && f.Changed_Since && f.Change != nil && f.Change.Actor == operator2 {
			changed = true
		}
	}
	if !changed {
		t.Errorf("does not say what changed: %+v", e.Register)
	}
	// Its developer may ask, and does not see the agency's people and machines.
	r := w.call(kookaburra, "GET", path, nil)
	if r.status != 200 || strings.Contains(r.body, "sidecar-1") || strings.Contains(r.body, "agency.example") {
		t.Errorf("%s", r)
	}
	w.call(wattlebird, "GET", path, nil).refused(t, 404, "not-found")
	for _, bad := range []string{"x", strings.Repeat("Z", 26), "..", url.PathEscape("../../x")} {
		if r := w.call(operator, "GET", "/v1/decisions/"+url.PathEscape(bad), nil); r.status != 404 {
			t.Errorf("%s: %s", bad, r)
		}
	}
	// What hung on the token cannot be asked of the register.
	id2 := authz.NewIDs().Next(time.Now())
	w.records[id2] = authz.Record{ID: id2, Reason: authz.TokenExpired}
	w.call(operator, "GET", "/v1/decisions/"+id2.String(), nil).data(t, 200, &e)
	if e.Now.Known {
		t.Errorf("%+v", e.Now)
	}
	w.call(kookaburra, "GET", "/v1/decisions/"+id2.String(), nil).refused(t, 404, "not-found")
}

func TestChanges(t *testing.T) {
	w := newWorld(t)
	var s suspension
	w.call(operator, "POST", "/v1/suspensions", suspendBody("product", "FP-1003")).data(t, 201, &s)
	var all []struct {
		Revision               registry.Revision
		Actor, Command, Reason string
		Records                []string
	}
	w.call(auditor, "GET", fmt.Sprintf("/v1/changes?after=%d", s.Revision-1), nil).data(t, 200, &all)
	if len(all) != 1 || all[0].Actor != operator || all[0].Command != "suspend" || all[0].Reason != "test" || fmt.Sprint(all[0].Records) != "[suspension/"+s.ID+"]" {
		t.Errorf("%+v", all)
	}
	if err := w.store.Trim(t.Context(), s.Revision); err != nil {
		t.Fatal(err)
	}
	w.call(auditor, "GET", "/v1/changes?after=0", nil).refused(t, 410, "trimmed")
}

func TestSidecars(t *testing.T) {
	w := newWorld(t)
	var all []struct {
		ID       string
		Revision registry.Revision
	}
	w.call(operator, "GET", "/v1/sidecars", nil).data(t, 200, &all)
	if len(all) != 1 || all[0].ID != "sidecar-1" {
		t.Errorf("%+v", all)
	}
	w.link.Set(registrytest.Fault{Refused: true})
	if r := w.call(operator, "GET", "/v1/sidecars", nil); r.status != 503 {
		t.Errorf("%s", r)
	}
}

func BenchmarkPageOf100000(b *testing.B) {
	w := newWorld(b)
	var records []any
	for i := range 100_000 {
		records = append(records, registry.Product{ID: fmt.Sprintf("FP-%06d", i+10000), Name: "x", Owner: 65000000101})
	}
	if _, err := w.reg.Import(b.Context(), registry.Actor{Name: "x", Permissions: registry.PermRegistrar | registry.PermAssessor}, records, registry.Meta{}); err != nil {
		b.Fatal(err)
	}
	for name, path := range map[string]string{"all": "/v1/products?page=500&limit=100", "filtered": "/v1/products?state=Whitelisted", "public": "/v1/register"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if r := w.call(operator, "GET", path, nil); r.status != 200 {
					b.Fatal(r)
				}
			}
		})
	}
}
