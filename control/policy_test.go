package control_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

type policyRef struct {
	caseRef
	States, Texts    []string
	Enforced, Shadow int
	Effect           struct {
		Enforced, Shadow struct {
			Alarms, Open, Confirmed, Dismissed int
			Precision                          *float64
		}
	}
}

type alarmRef struct {
	caseRef
	Outcome    string
	Suspension string `json:"suspension_id"`
	Incident   string `json:"incident_id"`
	Shadow     bool
}

const loudRule = `"when":{"signals":["persons"],"surprise":3},"then":{"do":"suspend","for_minutes":30,"max_traffic_percent":50}`

// act has a policy act on a signal, as the engine would.
func (w *world) act(product string) {
	w.t.Helper()
	book, err := w.reg.Casebook()
	if err != nil {
		w.t.Fatal(err)
	}
	active, err := policy.ActiveIn(book)
	if err != nil {
		w.t.Fatal(err)
	}
	s := anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.Product, ID: product}, Name: anomaly.SignalPersons, P: 1e-6, Value: 812, At: time.Now(), Reasons: []string{"812 where about 4 is usual"}}
	for _, m := range policy.NewEvaluator(active...).See(s, policy.FactsOf(book.View, s.Subject)) {
		if _, err := w.policies.Act(w.t.Context(), &m, func(string) float64 { return 1 }); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestPolicyOverTheAPI goes from shadow to a suspension, to people's judgement of it.
func TestPolicyOverTheAPI(t *testing.T) {
	w := newWorld(t)
	var p policyRef
	put := func(body string) reply { return w.call(officer, "PUT", "/v1/policies/loud", body) }
	put(`{"purpose":"cut off who reads about many at once",`+loudRule+`}`).data(t, 200, &p)
	if p.Shadow != 1 || p.Enforced != 0 || len(p.Texts) != 1 || !strings.Contains(p.Texts[0], "suspend for 30 minutes") {
		t.Fatalf("%+v", p)
	}
	put(`{"purpose":"x","when":{"signals":["gossip"]},"then":{"do":"suspend"}}`).refused(t, 422, "invalid")
	w.call(auditor, "PUT", "/v1/policies/loud", `{`+loudRule+`}`).refused(t, 403, "forbidden")
	w.act("FP-1001")
	var alarms []alarmRef
	w.call(auditor, "GET", "/v1/alarms?policy=loud&shadow=true", nil).data(t, 200, &alarms)
	if len(alarms) != 1 || alarms[0].Outcome != "would" || alarms[0].Suspension != "" {
		t.Fatalf("in shadow: %+v", alarms)
	}
	w.call(officer, "POST", "/v1/policies/loud/enforce", `{"reason":"it was right"}`).data(t, 200, &p)
	w.call(officer, "POST", "/v1/policies/loud/enforce", `{"reason":"it was right"}`).refused(t, 403, "forbidden")
	w.call(operator, "POST", "/v1/policies/loud/enforce", `{"reason":"seen"}`).data(t, 200, &p)
	if p.Enforced != 1 || p.Shadow != 0 {
		t.Fatalf("two people: %+v", p)
	}
	w.act("FP-1001")
	w.call(officer, "GET", "/v1/alarms?shadow=false&product_id=FP-1001", nil).data(t, 200, &alarms)
	if len(alarms) != 1 || alarms[0].Outcome != "suspended" {
		t.Fatalf("enforced: %+v", alarms)
	}
	var s struct {
		Active, Automatic bool
		Reason            string
	}
	w.call(wattlebird, "GET", "/v1/suspensions/"+alarms[0].Suspension, nil).data(t, 200, &s)
	if !s.Active || !s.Automatic || !strings.Contains(s.Reason, "812 where about 4 is usual") {
		t.Errorf("what its owner is told: %+v", s)
	}
	var inc incidentRef
	w.call(officer, "GET", "/v1/incidents/"+alarms[0].Incident, nil).data(t, 200, &inc)
	if inc.State != "reported" || len(inc.Contain) != 1 {
		t.Errorf("%+v", inc)
	}
	at := "/v1/alarms/" + alarms[0].ID
	w.call(officer, "POST", at+"/dismiss", `{}`).refused(t, 422, "invalid")
	w.call(wattlebird, "POST", at+"/dismiss", `{"reason":"x"}`).refused(t, 403, "forbidden")
	w.call(officer, "POST", at+"/confirm", fmt.Sprintf(`{"began_at":%q}`, time.Now().Add(-time.Minute).Format(time.RFC3339))).data(t, 200, &alarms[0])
	if alarms[0].State != "confirmed" {
		t.Errorf("%+v", alarms[0])
	}
	w.call(officer, "GET", "/v1/policies/loud", nil).data(t, 200, &p)
	if e := p.Effect.Enforced; e.Alarms != 1 || e.Confirmed != 1 || e.Precision == nil || *e.Precision != 1 || p.Effect.Shadow.Open != 1 {
		t.Errorf("%+v", p.Effect)
	}
	w.call(officer, "POST", "/v1/policies/loud/relax", nil).data(t, 200, &p)
	if p.Enforced != 0 || p.Shadow != 2 {
		t.Errorf("back in shadow: %+v", p)
	}
	w.call(operator2, "POST", "/v1/suspensions/"+alarms[0].Suspension+"/lift", `{"reason":"replaced"}`).data(t, 200, &s)
	if s.Active {
		t.Error("not lifted")
	}
	w.call(officer, "POST", "/v1/policies/loud/stop", nil).data(t, 200, &p)
	if len(p.States) != 1 || p.States[0] != "off" {
		t.Errorf("%+v", p)
	}
}

// A preview says who would have been touched, and changes nothing.
func TestPolicyPreviewReplaysSignalsAndCalls(t *testing.T) {
	w := newWorld(t)
	at := time.Now().Add(-time.Hour)
	w.signals = []anomaly.Signal{
		{Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1001"}, Name: anomaly.SignalPersons, P: 1e-6, Value: 9, At: at},
		{Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1003"}, Name: anomaly.SignalPersons, P: 1e-2, Value: 9, At: at},
	}
	ids := authz.NewIDs()
	for i, m := range []int{-5, 1, 2, 50} {
		id := ids.Next(at)
		reason := authz.OK
		if i == 2 {
			reason = authz.RateLimited
		}
		w.records[id] = authz.Record{ID: id, At: registry.At(at.Add(time.Duration(m) * time.Minute)), Reason: reason, ProductID: "FP-1001", ClientID: "fp-1001-prod", Service: "abr.lookup"}
	}
	var out struct {
		Text                                 string
		Signals, Decisions, Allowed, Refused int
		Touched                              []struct {
			ProductID string `json:"product_id"`
			Outcome   string
			Refused   int
		}
	}
	w.call(officer, "POST", "/v1/policies/preview", `{`+loudRule+`}`).data(t, 200, &out)
	if out.Signals != 2 || out.Decisions != 4 || out.Allowed != 3 || out.Refused != 1 || len(out.Touched) != 1 || out.Touched[0].ProductID != "FP-1001" || out.Touched[0].Outcome != "suspended" {
		t.Errorf("%+v", out)
	}
	w.call(officer, "POST", "/v1/policies/preview", `{"when":{},"then":{"do":"throttle","for_minutes":5}}`).refused(t, 422, "invalid")
	var signals []struct{ Signal, Text string }
	w.call(auditor, "GET", "/v1/signals?product_id=FP-1001&signal=persons", nil).data(t, 200, &signals)
	if len(signals) != 1 || !strings.Contains(signals[0].Text, "different people a minute") {
		t.Errorf("%+v", signals)
	}
	if book, err := w.reg.Casebook(); err != nil || len(book.View.Suspensions()) != 1 { // the sample's own
		t.Errorf("a preview changed something: %v", err)
	}
}

// TestDevelopersAreWarnedOfTheirOwn: a developer sees in what its own products
// stray, in the listing and in its own standing; not in what others' do, and not
// who is protected.
func TestDevelopersAreWarnedOfTheirOwn(t *testing.T) {
	w := newWorld(t)
	at := time.Now().Add(-time.Hour)
	for range 1200 { // more than staff are shown, all of them later than its own
		w.signals = append(w.signals, anomaly.Signal{Name: anomaly.SignalPersons, Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1009"}, At: at.Add(time.Minute), P: 1e-6, Value: 9})
	}
	for _, s := range []anomaly.Signal{
		{Name: anomaly.SignalPersons, Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1001"}},
		{Name: anomaly.SignalProtected, Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1001"}},
		{Name: anomaly.SignalPersons, Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1003"}},
		{Name: anomaly.SignalRequests, Subject: anomaly.Subject{Kind: anomaly.ClientApp, ID: "fp-1001-prod"}},
		{Name: anomaly.SignalRequests, Subject: anomaly.Subject{Kind: anomaly.Network, ID: "00ff"}},
	} {
		s.At, s.P, s.Value = at, 1e-6, 9
		w.signals = append(w.signals, s)
	}
	type seen struct {
		Product string `json:"product_id"`
		Signal  string
	}
	want := []seen{{"FP-1001", "persons"}, {"FP-1001", "requests"}}
	var listed []seen
	w.call(wattlebird, "GET", "/v1/signals", nil).data(t, 200, &listed)
	var me struct {
		Signals []seen `json:"last_signals"`
	}
	w.call(wattlebird, "GET", "/v1/me", nil).data(t, 200, &me)
	if !slices.Equal(listed, want) || !slices.Equal(me.Signals, want) {
		t.Errorf("listed %+v, of its own %+v, want %+v", listed, me.Signals, want)
	}
	w.call(auditor, "GET", "/v1/signals", nil).data(t, 200, &listed)
	if len(listed) != 10 || listed[0].Product != "FP-1009" {
		t.Errorf("staff see %+v", listed)
	}
	w.call(auditor, "GET", "/v1/signals?product_id=FP-1001", nil).data(t, 200, &listed)
	if len(listed) != 3 {
		t.Errorf("staff see of the product %+v", listed)
	}
}

// The list of protected clients is hashes alone, which no answer and no change shows.
func TestProtectedClientsAreHashesOnly(t *testing.T) {
	w := newWorld(t)
	hash := strings.Repeat("0f", 16)
	var list struct {
		Clients int
		By      string
	}
	w.call(officer, "PUT", "/v1/protected-clients?why=the+list", "# two\n"+hash+"\n"+hash+" # again\n").data(t, 200, &list)
	v, err := w.reg.View()
	if err != nil {
		t.Fatal(err)
	}
	if list.Clients != 1 || list.By != officer || !v.IsProtected(registry.ClientHash([]byte(strings.Repeat("\x0f", 16)))) {
		t.Errorf("%+v", list)
	}
	for _, bad := range []string{"123456782", "12345678211", strings.Repeat("zz", 16)} {
		r := w.call(officer, "PUT", "/v1/protected-clients?why=x", bad)
		r.refused(t, 422, "invalid")
		if strings.Contains(r.body, bad) {
			t.Error("what was sent is told back")
		}
	}
	w.call(auditor, "GET", "/v1/protected-clients", nil).data(t, 200, &list)
	w.call(wattlebird, "GET", "/v1/protected-clients", nil).refused(t, 403, "forbidden")
	if book, err := w.reg.Casebook(); err != nil {
		t.Fatal(err)
	} else if c, err := registry.CaseOf[policy.ProtectedList](book, policy.ProtectedID); err != nil || c.Body.Digest == "" || strings.Contains(fmt.Sprintf("%+v", c.Body), hash) {
		t.Errorf("%+v, %v", c, err)
	}
}

// A denial of single calls is tried on the calls recorded, and holds once two
// people have it enforced; the answer to a caller tells of no list.
func TestADenialIsPreviewedAndEnforced(t *testing.T) {
	w := newWorld(t)
	hash := authz.Hash([]byte(strings.Repeat("\x0f", 16)))
	w.call(officer, "PUT", "/v1/protected-clients?why=the+list", strings.Repeat("0f", 16)).data(t, 200, nil)
	ids, at := authz.NewIDs(), time.Now().Add(-time.Hour)
	for i, r := range []authz.Record{
		{ProductID: "FP-1001", Service: "abr.lookup", ClientHash: hash},
		{ProductID: "FP-1001", Service: "as.0004.get", SubjectHash: hash},
		{ProductID: "FP-1003", Service: "as.0004.get", ClientHash: hash},
		{ProductID: "FP-1001", Service: "as.0004.get", Reason: authz.RateLimited, ClientHash: hash},
		{ProductID: "FP-1001", Service: "as.0004.get", ClientHash: authz.Hash{1}},
	} {
		r.ID, r.At = ids.Next(at), registry.At(at.Add(time.Duration(i)*time.Second))
		w.records[r.ID] = r
	}
	const rule = `"when":{"signals":["protected-client"],"except":["FP-1003"]},"then":{"do":"deny","min_risk":3}`
	var out struct {
		Text             string
		Allowed, Refused int
		Touched          []struct {
			ProductID string `json:"product_id"`
			Outcome   string
		}
	}
	w.call(officer, "POST", "/v1/policies/preview", `{`+rule+`}`).data(t, 200, &out)
	if out.Allowed != 4 || out.Refused != 1 || len(out.Touched) != 1 || out.Touched[0].ProductID != "FP-1001" || out.Touched[0].Outcome != "denied" ||
		!strings.Contains(out.Text, "deny the single call of a service rated 3 or higher") {
		t.Errorf("%+v", out)
	}
	for bad, field := range map[string]string{
		`{"purpose":"x","when":{"signals":["persons"]},"then":{"do":"deny"}}`:                           "/then/do",
		`{"purpose":"x","when":{},"then":{"do":"deny"}}`:                                                "/then/do",
		`{"purpose":"x","when":{"signals":["protected-client"],"surprise":3},"then":{"do":"deny"}}`:     "/then/do",
		`{"purpose":"x","when":{"signals":["protected-client"]},"then":{"do":"deny","for_minutes":60}}`: "/then/for_minutes",
		`{"purpose":"x","when":{"signals":["protected-client"]},"then":{"do":"observe","min_risk":3}}`:  "/then/min_risk",
		`{"purpose":"x","when":{"signals":["protected-client"]},"then":{"do":"deny","on":"product"}}`:   "/then/on",
	} {
		if r := w.call(officer, "PUT", "/v1/policies/shield", bad); r.status != 422 || !strings.Contains(r.body, field) {
			t.Errorf("%s: %d %s", bad, r.status, r.body)
		}
	}
	screens := func() int {
		v, err := w.reg.View()
		if err != nil {
			t.Fatal(err)
		}
		return len(v.Screens())
	}
	var p policyRef
	w.call(officer, "PUT", "/v1/policies/shield", `{"purpose":"hands off",`+rule+`}`).data(t, 200, &p)
	if screens() != 0 {
		t.Error("in shadow it denies")
	}
	w.call(officer, "POST", "/v1/policies/shield/enforce", `{"reason":"seen"}`).data(t, 200, &p)
	if screens() != 0 {
		t.Error("one person is enough")
	}
	w.call(operator, "POST", "/v1/policies/shield/enforce", `{"reason":"seen too"}`).data(t, 200, &p)
	if screens() != 1 {
		t.Error("two people are not enough")
	}
	w.call(officer, "POST", "/v1/policies/shield/relax", nil).data(t, 200, &p)
	if screens() != 0 || p.Shadow == 0 {
		t.Errorf("put back into shadow it denies: %+v", p)
	}
	if text := authz.ClientNotPermitted.Title() + authz.ClientNotPermitted.Detail(); strings.Contains(text, "list") || strings.Contains(text, "protected") {
		t.Errorf("it tells of a list: %s", text)
	}
}

// What calls lack is told by product and service: only what is needed of such a
// call, and to a developer of its own products alone.
func TestMissingFields(t *testing.T) {
	w := newWorld(t)
	lacking := func(product, service string, calls uint64, missing ...anomaly.Field) anomaly.FieldTally {
		f := anomaly.FieldTally{Product: product, Service: service, Calls: calls}
		for _, x := range missing {
			f.Missing[x] = calls / 2
		}
		return f
	}
	w.fields = []anomaly.FieldTally{
		lacking("FP-1001", "abr.lookup", 10, anomaly.FieldPerson, anomaly.FieldClient),                           // neither is needed
		lacking("FP-1001", "as.0004.get", 8, anomaly.FieldPerson, anomaly.FieldVersion),                          // both are
		lacking("FP-1002", "as.0004.submit", 6, anomaly.FieldSubscription),                                       // a desktop product has none
		lacking("FP-1003", "piitr.get", 4, anomaly.FieldSubscription, anomaly.FieldPerson, anomaly.FieldNetwork), // all are
	}
	type row struct {
		Product  string `json:"product_id"`
		Service  string
		Missing  map[string]uint64
		Complete bool
	}
	list := func(as, query string) (out []row) {
		w.call(as, "GET", "/v1/missing-fields"+query, nil).data(t, 200, &out)
		return out
	}
	all := list(auditor, "")
	if len(all) != 4 || !all[0].Complete || all[1].Complete || !all[2].Complete || all[3].Complete {
		t.Fatalf("%+v", all)
	}
	if got := all[1].Missing; len(got) != 2 || got["product_version"] != 4 || got["subject_hash"] != 4 {
		t.Errorf("%v", got)
	}
	if got := all[3].Missing; len(got) != 3 || got["software_id"] != 2 || got["network"] != 2 {
		t.Errorf("%v", got)
	}
	if got := list(operator, "?complete=false&field=network"); len(got) != 1 || got[0].Product != "FP-1003" {
		t.Errorf("%+v", got)
	}
	if got := list(wattlebird, ""); len(got) != 2 || got[0].Product != "FP-1001" {
		t.Errorf("a developer is shown %+v", got)
	}
	if got := list(wattlebird, "?product_id=FP-1003"); len(got) != 0 {
		t.Errorf("a developer is shown another's: %+v", got)
	}
	w.call(registrar, "GET", "/v1/missing-fields", nil).refused(t, 403, "forbidden")
	w.call(operator, "GET", "/v1/missing-fields?field=shoe_size", nil).refused(t, 422, "invalid")
}
