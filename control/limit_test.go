package control_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

func TestALimitIsSetShownAndTakenAway(t *testing.T) {
	w := retried(newWorld(t))
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
	w := retried(newWorld(t))
	for _, c := range []struct{ path, body, pointer, parameter string }{
		{"product:FP-1003:x", `{"kind":"rate","amount":0}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":-3}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":1e300}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate"}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":"5"}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":5,"burst":-1}`, "/burst", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":5,"burst":0}`, "/burst", ""},
		{"product:FP-1003:x", `{"kind":"speed","amount":5}`, "/kind", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"Mars/Olympus"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"Local"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"localtime"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"posixrules"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"right/Australia/Sydney"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"posix/Australia/Sydney"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"../../etc/localtime"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"australia/sydney"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5,"period":"day","zone":"+10:00"}`, "/zone", ""},
		{"product:FP-1003:x", `{"kind":"quota","amount":5}`, "/period", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":1.5}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","amount":9223372036854775808}`, "/amount", ""},
		{"product:FP-1003:x", `{"kind":"rate","Amount":5}`, "/Amount", ""},
		{"product:FP-1003:x", `{"kind":"clients","amount":5,"service":"abr.lookup"}`, "/service", ""},
		{"product:FP-1003:a%22b", `{"kind":"rate","amount":5}`, "/name", ""},
		{"entity:31000000203:x", `{"kind":"rate","amount":5}`, "/subject/id", ""},
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

// TestPreviewSaysWhoWouldHaveBeenRefused: against records with a known answer.
func TestPreviewSaysWhoWouldHaveBeenRefused(t *testing.T) {
	w := retried(newWorld(t))
	ids := authz.NewIDs()
	began := time.Now().UTC().AddDate(0, 0, -1).Truncate(24 * time.Hour).Add(12 * time.Hour)
	record := func(at time.Duration, product, app, service string, reason authz.Reason, limit string, person byte) {
		r := authz.Record{
			ID: ids.Next(began.Add(at)), At: registry.At(began.Add(at)), Reason: reason, Limit: limit, ProductID: product, ClientID: app, Service: service,
			Environment: registry.PROD,
		}
		if person > 0 {
			r.SubjectHash[0] = person
		}
		w.records[r.ID] = r
	}
	for i := range 20 { // two a second
		record(time.Duration(i)*500*time.Millisecond, "FP-1003", "fp-1003-prod", "abr.lookup", authz.OK, "", 0)
		record(time.Duration(i)*500*time.Millisecond, "FP-1001", "fp-1001-prod", "receipts.get", authz.OK, "", 0)
	}
	record(0, "FP-1003", "fp-1003-prod", "abr.lookup", authz.ProductSuspended, "", 0)
	record(0, "FP-1003", "fp-1003-prod", "abr.lookup", authz.RateLimited, "product:FP-1003:other", 0)
	record(11*time.Second, "FP-1003", "fp-1003-prod", "abr.lookup", authz.RateLimited, "product:FP-1003:rate", 0)
	for i := range 6 {
		record(time.Duration(i)*time.Second, "FP-1004", "fp-1004-prod", "stic.validate", authz.OK, "", byte(1+i%3))
	}
	since := `,"since":"` + registry.At(began).String() + `"}`
	preview := func(body string) (p struct {
		Decisions, Calls, Refused uint64
		Accounts                  []struct {
			Account        string
			Calls, Refused uint64
			First          registry.Time `json:"first_refused_at"`
		}
	}) {
		t.Helper()
		w.call(operator, "POST", "/v1/limits/preview", body+since).data(t, http.StatusOK, &p)
		return p
	}
	p := preview(`{"subject":{"kind":"product","id":"FP-1003"},"name":"rate","kind":"rate","amount":1,"shadow":true`)
	if p.Decisions != 49 || p.Calls != 21 || p.Refused != 10 || len(p.Accounts) != 1 || p.Accounts[0].Account != "product:FP-1003" || p.Accounts[0].First != registry.At(began.Add(500*time.Millisecond)) {
		t.Errorf("1/s against two a second: %+v", p)
	}
	if p = preview(`{"subject":{"kind":"tier","id":"standard"},"name":"day","kind":"quota","period":"day","zone":"UTC","amount":15`); p.Refused != 10 || len(p.Accounts) != 2 {
		t.Errorf("15 a day for each product: %+v", p)
	}
	if p = preview(`{"subject":{"kind":"product","id":"FP-1004"},"name":"people","kind":"clients","amount":2,"service":"stic.validate"`); p.Calls != 6 || p.Refused != 2 {
		t.Errorf("2 of 3 people: %+v", p)
	}
	if p = preview(`{"subject":{"kind":"service","id":"receipts.get"},"name":"global","kind":"rate","amount":1000`); p.Calls != 20 || p.Refused != 0 || len(p.Accounts) != 0 {
		t.Errorf("far above: %+v", p)
	}
	if l := w.call(auditor, "GET", "/v1/limits?product_id=FP-1003", nil); !strings.Contains(l.body, `"data":[]`) {
		t.Errorf("a preview set a limit: %s", l)
	}
	for body, pointer := range map[string]string{
		`{"subject":{"kind":"product","id":"FP-1003"},"name":"x","kind":"rate","amount":0}`:                                "/amount",
		`{"subject":{"kind":"product","id":"FP-1003"},"name":"x","kind":"concurrency","amount":5}`:                         "/kind",
		`{"subject":{"kind":"subscription","id":"0000123400"},"name":"x","kind":"rate","amount":5}`:                        "/subject/kind",
		`{"subject":{"kind":"product","id":"FP-1003"},"name":"x","kind":"rate","amount":5,"since":"2100-01-01T00:00:00Z"}`: "/since",
	} {
		if e := w.call(operator, "POST", "/v1/limits/preview", body).refused(t, http.StatusUnprocessableEntity, "invalid"); e.Source.Pointer != pointer {
			t.Errorf("%s: source %+v, want %s", body, e.Source, pointer)
		}
	}
}

type limitUse struct {
	Name, Account, Service  string
	Shadow                  bool
	Amount, Used, Remaining *int64
	Resets                  registry.Time `json:"resets_at"`
	Refused                 uint64        `json:"refused_today"`
	Observed                uint64        `json:"shadow_refused_today"`
}

// TestADeveloperSeesEveryLimitAndWhatItIsAt: in me and for one product, the
// tier's, those in its place, and shadow ones.
func TestADeveloperSeesEveryLimitAndWhatItIsAt(t *testing.T) {
	w := retried(newWorld(t))
	if _, err := w.reg.Import(t.Context(), sample.Actor(), sample.Limits(), registry.Meta{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	var l registry.Limit
	w.call(operator, "PUT", "/v1/limits/product:FP-1003:abr-rate", `{"amount":80,"burst":100}`).data(t, http.StatusOK, &l)
	w.call(operator, "PUT", "/v1/limits/product:FP-1003:daily", `{"kind":"quota","period":"day","amount":500,"shadow":true}`).data(t, http.StatusOK, &l)
	w.used = map[string]control.LimitUse{
		"product:FP-1003:abr-rate": {Used: 30}, "product:FP-1003:daily": {Used: 600, Shadow: 7},
		"subscription:0000300001:stic-people": {Used: 3, Refused: 2},
	}
	var me struct {
		Products []struct {
			ID     string
			Limits []limitUse
			Note   string `json:"limits_note"`
		}
	}
	w.call(kookaburra, "GET", "/v1/me", nil).data(t, http.StatusOK, &me)
	byAccount := map[string]limitUse{}
	for _, p := range me.Products {
		for _, l := range p.Limits {
			byAccount[l.Account] = l
		}
		if p.Note != "" {
			t.Errorf("%s: %s", p.ID, p.Note)
		}
	}
	for account, want := range map[string][3]int64{
		"product:FP-1003:abr-rate": {80, 30, 70}, "product:FP-1003:daily": {500, 600, 0}, "subscription:0000300001:stic-people": {200, 3, 197},
		"product:FP-1003:piitr-people": {500, 0, 500}, "product:FP-1003:as-get-rate": {5, 0, 10},
	} {
		l, ok := byAccount[account]
		if !ok || *l.Amount != want[0] || *l.Used != want[1] || *l.Remaining != want[2] {
			t.Errorf("%s: %t %+v, want %v", account, ok, l, want)
		}
	}
	if l := byAccount["product:FP-1003:daily"]; !l.Shadow || l.Observed != 7 || l.Resets == 0 {
		t.Errorf("the observed one: %+v", l)
	}
	if l := byAccount["subscription:0000300001:stic-people"]; l.Refused != 2 || l.Service != "stic.validate" {
		t.Errorf("the one of a subscription: %+v", l)
	}
	var of []limitUse
	w.call(kookaburra, "GET", "/v1/products/FP-1003/limits?limit=100", nil).data(t, http.StatusOK, &of)
	if len(of) < 10 || len(of) != len(byAccount) {
		t.Errorf("%d of the product, %d in me", len(of), len(byAccount))
	}
	if r := w.call(wattlebird, "GET", "/v1/products/FP-1003/limits", nil); r.status != http.StatusNotFound {
		t.Errorf("another's: %s", r)
	}
	w.sidecar.Set(registrytest.Fault{Refused: true})
	note := func() string {
		me.Products = nil
		w.call(kookaburra, "GET", "/v1/me", nil).data(t, http.StatusOK, &me)
		return me.Products[0].Note
	}
	// Silent for longer than its short lease, and not yet known to have lapsed.
	eventually(t, "a silent sidecar is told of, or has lapsed", func() bool {
		if strings.HasPrefix(note(), "1 of 1 sidecars") {
			return true
		}
		all, err := w.reg.Sidecars(t.Context())
		return err == nil && len(all) == 1 && all[0].Lapsed
	})
	w.usesErr, me.Products = errors.New("away"), nil
	w.call(kookaburra, "GET", "/v1/me", nil).data(t, http.StatusOK, &me)
	if p := me.Products[0]; p.Note == "" || len(p.Limits) == 0 || p.Limits[0].Used != nil {
		t.Errorf("with the store away: %+v", p)
	}
}

func TestAQuotaBelowWhatWasUsedIsSetWithAWarning(t *testing.T) {
	w := retried(newWorld(t))
	w.used = map[string]control.LimitUse{"product:FP-1003:daily": {Used: 300}}
	for body, warned := range map[string]bool{
		`{"kind":"quota","period":"day","amount":301}`: false,
		`{"kind":"quota","period":"day","amount":300}`: true,
		`{"kind":"quota","period":"day","amount":10}`:  true,
	} {
		var l struct {
			Amount   int64
			Warnings []string
		}
		w.call(operator, "PUT", "/v1/limits/product:FP-1003:daily", body).data(t, http.StatusOK, &l)
		if (len(l.Warnings) == 1) != warned || warned && !strings.Contains(l.Warnings[0], "amount") {
			t.Errorf("%s: %v", body, l.Warnings)
		}
	}
}

func TestALimitThatUncoversCallsIsSetWithAWarning(t *testing.T) {
	w := retried(newWorld(t))
	for _, x := range []struct {
		path, body string
		warned     bool
	}{
		{"tier:standard:daily", `{"kind":"quota","period":"day","amount":900,"environment":"PROD"}`, false},
		{"tier:standard:each", `{"kind":"rate","amount":9,"per":"client-app"}`, false},
		{"product:FP-1003:daily", `{"amount":5}`, false},
		{"product:FP-1003:daily", `{"amount":5,"service":"receipts.get"}`, true},
		{"product:FP-1003:daily", `{"amount":5,"environment":"EVTE"}`, true},
		{"product:FP-1003:each", `{"kind":"rate","amount":5,"service":"receipts.get"}`, false},
		{"client-app:fp-1003-prod:each", `{"amount":5,"service":"receipts.get"}`, true},
		{"product:FP-1003:other", `{"kind":"rate","amount":5,"service":"receipts.get"}`, false},
	} {
		var l struct{ Warnings []string }
		w.call(operator, "PUT", "/v1/limits/"+x.path, x.body).data(t, http.StatusOK, &l)
		if (len(l.Warnings) == 1) != x.warned || x.warned && !strings.Contains(l.Warnings[0], "the others are held to neither") {
			t.Errorf("%s %s: %q", x.path, x.body, l.Warnings)
		}
	}
}

func TestExplainNamesTheLimit(t *testing.T) {
	w := retried(newWorld(t))
	if _, err := w.reg.Import(t.Context(), sample.Actor(), sample.Limits(), registry.Meta{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	id := authz.NewIDs().Next(at)
	w.records[id] = authz.Record{
		ID: id, At: registry.At(at), Reason: authz.RateLimited, Limit: "product:FP-1003:piitr-rate", Shadow: "product:FP-1003:none-such",
		ProductID: "FP-1003", ClientID: "fp-1003-prod", Service: "piitr.get", Environment: registry.PROD,
	}
	var e struct {
		Decision struct {
			Limit  string
			Shadow string `json:"shadow_limit"`
		}
		Register []struct{ Kind, ID, Says string }
	}
	w.call(kookaburra, "GET", "/v1/decisions/"+id.String(), nil).data(t, http.StatusOK, &e)
	found := false
	for _, f := range e.Register {
		found = found || f.Kind == "limit" && f.ID == "tier:standard:piitr-rate" && f.Says == "2 a second, 4 at once"
	}
	if e.Decision.Limit != "product:FP-1003:piitr-rate" || e.Decision.Shadow == "" || !found {
		t.Errorf("%+v", e)
	}
}
