package control_test

import (
	"net/http"
	"testing"

	"github.com/dspgate/dspgate/registry"
)

func TestALimitIsSetShownAndTakenAway(t *testing.T) {
	w := newWorld(t)
	var l registry.Limit
	r := w.call(operator, "PUT", "/v1/limits/product:FP-1003:daily", `{"kind":"quota","amount":500,"period":"day","service":"abr.lookup","shadow":true,"reason":"trial"}`)
	r.data(t, http.StatusOK, &l)
	if l.ID != "product:FP-1003:daily" || l.Zone != registry.ZoneDefault || l.Kind != registry.LimitQuota || !l.Shadow || l.Service != "abr.lookup" {
		t.Errorf("set %+v", l)
	}
	w.call(operator, "POST", "/v1/limits", `{"subject":{"kind":"tier","id":"gold"},"name":"rate","kind":"rate","amount":9,"per":"subscription"}`).data(t, http.StatusCreated, &l)
	if l.Burst != 9 || l.Per != registry.KindSubscription {
		t.Errorf("made %+v", l)
	}
	var p registry.Product
	w.call(operator, "PUT", "/v1/products/FP-1003/tier", `{"tier":"gold"}`).data(t, http.StatusOK, &p)
	if p.Tier != "gold" {
		t.Errorf("put in tier %q", p.Tier)
	}
	var tiers []struct {
		ID       string
		Products uint64
		BuiltIn  bool `json:"built_in"`
		Limits   []registry.Limit
	}
	w.call(auditor, "GET", "/v1/tiers", nil).data(t, http.StatusOK, &tiers)
	found := map[string]int{}
	for i, x := range tiers {
		found[x.ID] = i + 1
	}
	if i := found["gold"]; i == 0 || tiers[i-1].Products != 1 || len(tiers[i-1].Limits) != 1 {
		t.Errorf("tiers %+v", tiers)
	}
	if i := found["pvt"]; i == 0 || len(tiers[i-1].Limits) < 2 {
		t.Errorf("tiers %+v", tiers)
	}
	var list []registry.Limit
	count := func(query string, want int) {
		t.Helper()
		if w.call(kookaburra, "GET", "/v1/limits?"+query, nil).data(t, http.StatusOK, &list); len(list) != want {
			t.Errorf("%s: %d limits, want %d", query, len(list), want)
		}
	}
	count("product_id=FP-1003", 1)
	if r := w.call(wattlebird, "GET", "/v1/limits/product:FP-1003:daily", nil); r.status != http.StatusNotFound {
		t.Errorf("another's limit was shown: %s", r)
	}
	w.call(operator, "DELETE", "/v1/limits/product:FP-1003:daily", nil).data(t, http.StatusOK, &l)
	count("product_id=FP-1003", 0)
	count("product_id=FP-1003&removed=true", 1)
	w.call(operator, "DELETE", "/v1/limits/product:FP-1003:never", nil).refused(t, http.StatusNotFound, "not-found")
	w.call(operator, "DELETE", "/v1/limits/tier:gold:rate", nil).refused(t, http.StatusConflict, "state-conflict")
}

func TestAWrongLimitNamesTheField(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ path, body, pointer, parameter string }{
		{"product:FP-1003:x", `{"kind":"rate","amount":0}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":-3}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":1e300}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate"}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":"5"}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":5,"burst":-1}`, "/burst", ""},
		{"product:FP-1003:x", `{"kind":"speed","amount":5}`, "/kind", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"Mars/Olympus"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"week"}`, "/period", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":5,"service":"none.such"}`, "/service", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":5,"speed":1}`, "/speed", ""},
		{"product:FP-9999:x", `{"kind":"rate","amount":5}`, "/subject/id", ""},
		{"credential:FP-1003:x", `{"kind":"rate","amount":5}`, "", "id"},
		{"nothing", `{"kind":"rate","amount":5}`, "", "id"},
	} {
		e := w.call(operator, "PUT", "/v1/limits/"+c.path, c.body).refused(t, http.StatusUnprocessableEntity, "invalid")
		if e.Source.Pointer != c.pointer || e.Source.Parameter != c.parameter {
			t.Errorf("%s %s: source %+v", c.path, c.body, e.Source)
		}
	}
	e := w.call(operator, "PUT", "/v1/products/FP-1003/tier", `{"tier":"none"}`).refused(t, http.StatusUnprocessableEntity, "invalid")
	if e.Source.Pointer != "/tier" {
		t.Errorf("unknown tier: source %+v", e.Source)
	}
}
