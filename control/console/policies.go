package console

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/dspgate/dspgate/anomaly"
	policies "github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/registry"
)

// What is done about callers that stray: the policies, how well they have done,
// what they say in shadow, and the two people who bring them out of it.

type policyView struct {
	policies.Policy
	Texts    []string          `json:"texts"`
	Effect   policies.Effect   `json:"effect"`
	Revision registry.Revision `json:"revision"`
}

// versionRow is a version as the page shows it.
type versionRow struct {
	policies.RuleVersion
	Text string
	Now  string // enforced, shadow, or ""
}

// waiting is the version in shadow; nil when there is none.
func (p *policyView) waiting() *versionRow {
	for i := range p.Versions {
		if v := &p.Versions[i]; v.Number == p.Shadow {
			return &versionRow{*v, v.Rule.Text(), "shadow"}
		}
	}
	return nil
}

type policiesPage struct {
	frame
	Officer bool
	Items   []policyView
	Pager   pager
}

type policyPage struct {
	frame
	Policy   *policyView
	Officer  bool
	Me       string
	Waiting  *versionRow // in shadow
	MayAgree bool        // this person may be the second
	Versions []versionRow
	Alarms   []alarm
	Tag      string
	Problem  *problem
	Reason   string
}

func policyPages(mine func(string, func(*visit) error)) {
	mine("GET /console/policies", (*visit).policies)
	mine("GET /console/policies/rule", func(v *visit) error { return v.ruleForm() })
	mine("POST /console/policies/rule", (*visit).saveRule)
	mine("GET /console/policies/{id}", func(v *visit) error { return v.showPolicy(http.StatusOK, nil) })
	for _, what := range []string{"enforce", "relax", "stop"} {
		mine("POST /console/policies/{id}/"+what, func(v *visit) error { return v.onPolicy(what) })
	}
	mine("GET /console/missing-fields", (*visit).missingFields)
}

func (v *visit) policies() error {
	p := policiesPage{frame: v.frame("Policies"), Officer: v.person.Actor.Has(officers)}
	m, err := v.get(&p.Items, "/v1/policies", "page", v.query("page"), "limit", "50")
	if err != nil {
		return err
	}
	p.Pager = v.pager(m)
	return v.show(http.StatusOK, "policies", p)
}

func (v *visit) showPolicy(status int, wrong *problem) error {
	a := v.person.Actor
	id := v.r.PathValue("id")
	p := policyPage{frame: v.frame(id), Officer: a.Has(officers), Me: a.Name, Problem: wrong, Reason: v.form("reason"), Policy: new(policyView)}
	var err error
	if p.Tag, err = v.getTagged(p.Policy, api("policies", id)); err != nil {
		return err
	}
	if _, err := v.get(&p.Alarms, "/v1/alarms", "policy", id, "limit", "20"); err != nil {
		return err
	}
	slices.SortStableFunc(p.Alarms, func(x, y alarm) int { return int(y.LastAt - x.LastAt) })
	if p.Waiting = p.Policy.waiting(); p.Waiting != nil && p.Waiting.Asked != nil {
		p.MayAgree = p.Waiting.Asked.By != a.Name && p.Waiting.By != a.Name
	}
	for _, x := range slices.Backward(p.Policy.Versions) {
		row := versionRow{RuleVersion: x, Text: x.Rule.Text()}
		switch x.Number {
		case p.Policy.Enforced:
			row.Now = "enforced"
		case p.Policy.Shadow:
			row.Now = "in shadow"
		}
		p.Versions = append(p.Versions, row)
	}
	return v.show(status, "policy", p)
}

func (v *visit) onPolicy(what string) error {
	id := v.r.PathValue("id")
	q := request{method: http.MethodPost, path: api("policies", id, what), body: jsonBody(map[string]any{"reason": v.form("reason")}), media: "application/json", match: v.form("etag")}
	_, _, err := v.ask(v.r.Context(), q, nil)
	if err == nil {
		return v.redirect(local("policies", id))
	}
	if wrong := problemOf(err, map[string]string{"/reason": what + "-reason"}); wrong != nil && !isMissing(err) {
		var e *apiError
		asAPI(err, &e)
		return v.showPolicy(e.Status, wrong)
	}
	return err
}

// tick is a box to tick.
type tick struct {
	Value, Text string
	On          bool
}

// rulePage is the form of a rule, with what trying it found.
type rulePage struct {
	frame
	New                                 bool
	ID, Purpose, Reason                 string
	Signals, Subjects                   []tick
	Signs, Within, Surprise             string
	Products, Except                    string
	Do, Minutes, Rate, MaxRisk, MinRisk string
	OnProduct                           bool
	MaxProducts, MaxTraffic             string
	Actions                             []tick
	Rest, RestText                      string // what the form has no field for, kept as it was
	Tried                               *policyTrial
	Problem                             *problem
}

// policyTrial is what a rule would have done.
type policyTrial struct {
	Text      string             `json:"text"`
	From      registry.Time      `json:"from"`
	To        registry.Time      `json:"to"`
	Signals   uint64             `json:"signals"`
	Allowed   uint64             `json:"allowed"`
	Refused   uint64             `json:"refused"`
	Truncated bool               `json:"truncated"`
	Touched   []policies.Touched `json:"touched"`
}

func (p *rulePage) choices(signals, subjects []string) {
	for _, name := range anomaly.SignalNames() {
		n, _ := anomaly.ParseSignalName(name)
		p.Signals = append(p.Signals, tick{name, name + ": " + n.Words(), slices.Contains(signals, name)})
	}
	for _, k := range []anomaly.Kind{anomaly.Product, anomaly.ClientApp, anomaly.Subscription, anomaly.Network} {
		p.Subjects = append(p.Subjects, tick{k.String(), strings.ReplaceAll(k.String(), "-", " "), slices.Contains(subjects, k.String())})
	}
	texts := map[policies.Do]string{
		policies.Observe: "observe: raise an incident, touch nothing", policies.Deny: "deny the single calls about protected clients", policies.Throttle: "throttle to so many calls a second",
		policies.Restrict: "restrict to services of low ratings", policies.Suspend: "suspend",
	}
	for _, d := range policies.Actions() {
		p.Actions = append(p.Actions, tick{string(d), texts[d], string(d) == p.Do})
	}
}

// ruleForm shows the form, filled with the rule of a policy that there is.
func (v *visit) ruleForm() error {
	p := rulePage{frame: v.frame("Write a policy"), New: true, Do: string(policies.Observe)}
	if id := v.query("id"); id != "" {
		var x policyView
		if _, err := v.get(&x, api("policies", id)); err != nil {
			return err
		}
		p.frame = v.frame("A new version of " + id)
		p.New, p.ID, p.Purpose = false, x.ID, x.Purpose
		for _, n := range []int{x.Enforced, x.Shadow, len(x.Versions)} {
			if n > 0 && n <= len(x.Versions) {
				p.fill(&x.Versions[n-1].Rule)
				break
			}
		}
	}
	if p.Signals == nil {
		p.choices(nil, []string{anomaly.Product.String()})
	}
	return v.show(http.StatusOK, "rule", p)
}

func (p *rulePage) fill(r *policies.Rule) {
	number := func(n float64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	w, t := &r.When, &r.Then
	p.Signs, p.Within, p.Surprise = number(float64(w.Signs)), number(float64(w.Within)), number(w.Surprise)
	p.Products, p.Except = strings.Join(w.Products, ", "), strings.Join(w.Except, ", ")
	p.Do, p.Minutes, p.Rate, p.MaxRisk, p.MinRisk = string(t.Do), number(float64(t.Minutes)), number(float64(t.Rate)), number(float64(t.MaxRisk)), number(float64(t.MinRisk))
	p.OnProduct, p.MaxProducts, p.MaxTraffic = t.On == "product", number(float64(t.MaxProducts)), number(t.MaxTraffic)
	p.choices(w.Signals, w.Subjects)
	p.keep(r)
}

// kept is what the form has no field for.
type kept struct {
	When struct {
		Value    float64              `json:"value,omitempty"`
		Newcomer string               `json:"newcomer,omitempty"`
		States   []registry.CertState `json:"states,omitempty"`
		Risk     registry.Risk        `json:"risk,omitempty"`
	} `json:"when"`
	Then struct {
		Incident string `json:"incident_type,omitempty"`
	} `json:"then"`
}

// keep notes what the form has no field for, so that a new version still says it.
func (p *rulePage) keep(r *policies.Rule) {
	var k kept
	w := &r.When
	k.When.Value, k.When.Newcomer, k.When.States, k.When.Risk, k.Then.Incident = w.Value, w.Newcomer, w.States, w.Risk, r.Then.Incident
	p.setRest(&k)
}

func (p *rulePage) setRest(k *kept) {
	b, err := json.Marshal(k)
	if err != nil || string(b) == `{"when":{},"then":{}}` {
		return
	}
	p.Rest = string(b)
	var says []string
	if k.When.Value != 0 {
		says = append(says, "a value of at least "+strconv.FormatFloat(k.When.Value, 'f', -1, 64))
	}
	if k.When.Newcomer != "" {
		says = append(says, "newcomers "+k.When.Newcomer)
	}
	for _, s := range k.When.States {
		says = append(says, "state "+s.String())
	}
	if k.When.Risk != 0 {
		says = append(says, "products that may call services rated "+strconv.Itoa(int(k.When.Risk))+" or higher")
	}
	if k.Then.Incident != "" {
		says = append(says, "incidents of type "+k.Then.Incident)
	}
	p.RestText = strings.Join(says, "; ")
}

// typedRule is what was sent, and the rule it makes; wrong says which field is
// no number.
func (v *visit) typedRule() (p rulePage, r map[string]any, wrong *problem) {
	p = rulePage{
		New: v.form("new") != "", ID: v.form("id"), Purpose: v.form("purpose"), Reason: v.form("reason"),
		Signs: v.form("signs"), Within: v.form("within"), Surprise: v.form("surprise"), Products: v.form("products"), Except: v.form("except"),
		Do: v.form("do"), Minutes: v.form("minutes"), Rate: v.form("rate"), MaxRisk: v.form("max_risk"), MinRisk: v.form("min_risk"),
		OnProduct: v.form("on") == "product", MaxProducts: v.form("max_products"), MaxTraffic: v.form("max_traffic"),
	}
	signals, subjects := v.forms("signals"), v.forms("subjects")
	var k kept
	if rest := v.form("rest"); rest != "" {
		if json.Unmarshal([]byte(rest), &k) != nil {
			return p, nil, &problem{Text: "The form was changed on its way; open it again."}
		}
		p.setRest(&k)
	}
	p.choices(signals, subjects)
	when, then := map[string]any{"signals": signals, "subjects": subjects}, map[string]any{"do": p.Do}
	for member, x := range map[string]struct {
		on    bool
		value any
	}{
		"value": {k.When.Value != 0, k.When.Value}, "newcomer": {k.When.Newcomer != "", k.When.Newcomer},
		"states": {len(k.When.States) > 0, k.When.States}, "risk": {k.When.Risk != 0, k.When.Risk},
	} {
		if x.on {
			when[member] = x.value
		}
	}
	if k.Then.Incident != "" {
		then["incident_type"] = k.Then.Incident
	}
	for _, list := range []struct{ member, text string }{{"products", p.Products}, {"except", p.Except}} {
		if ids := strings.FieldsFunc(list.text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' }); len(ids) > 0 {
			when[list.member] = ids
		}
	}
	if p.OnProduct {
		then["on"] = "product"
	}
	for _, f := range []struct {
		into              map[string]any
		member, id, typed string
	}{
		{when, "signs", "signs", p.Signs}, {when, "within_minutes", "within", p.Within}, {when, "surprise", "surprise", p.Surprise},
		{then, "for_minutes", "minutes", p.Minutes}, {then, "rate", "rate", p.Rate}, {then, "max_risk", "max-risk", p.MaxRisk}, {then, "min_risk", "min-risk", p.MinRisk},
		{then, "max_products", "max-products", p.MaxProducts}, {then, "max_traffic_percent", "max-traffic", p.MaxTraffic},
	} {
		if f.typed == "" {
			continue
		}
		n, err := strconv.ParseFloat(f.typed, 64)
		if err != nil || n != n || n < 0 || n > 1e6 {
			return p, nil, &problem{Text: "This is no number.", Field: f.id}
		}
		f.into[f.member] = n
	}
	return p, map[string]any{"when": when, "then": then}, nil
}

// ruleFields are the ids of the fields that the API's pointers name.
func ruleFields() map[string]string {
	return map[string]string{
		"/id": "id", "/purpose": "purpose", "/reason": "reason", "/when/signs": "signs", "/when/within_minutes": "within", "/when/surprise": "surprise", "/when/products/0": "products", "/when/except/0": "except",
		"/then/do": "do", "/then/for_minutes": "minutes", "/then/rate": "rate", "/then/max_risk": "max-risk", "/then/min_risk": "min-risk", "/then/max_products": "max-products",
		"/then/max_traffic_percent": "max-traffic", "/then/on": "on",
	}
}

// saveRule tries what was typed, or saves it as a version in shadow.
func (v *visit) saveRule() error {
	p, rule, wrong := v.typedRule()
	p.frame = v.frame("Write a policy")
	if wrong != nil {
		p.Problem = wrong
		return v.show(http.StatusUnprocessableEntity, "rule", p)
	}
	var err error
	if v.form("what") == "save" {
		if p.ID == "" {
			p.Problem = &problem{Text: "Give it a name.", Field: "id"}
			return v.show(http.StatusUnprocessableEntity, "rule", p)
		}
		rule["purpose"], rule["reason"] = p.Purpose, p.Reason
		if err = v.send(http.MethodPut, api("policies", p.ID), rule, nil); err == nil {
			return v.redirect(local("policies", p.ID))
		}
	} else {
		p.Tried = new(policyTrial)
		if err = v.send(http.MethodPost, "/v1/policies/preview", rule, p.Tried); err == nil {
			return v.show(http.StatusOK, "rule", p)
		}
		p.Tried = nil
	}
	if p.Problem = problemOf(err, ruleFields()); p.Problem == nil {
		return err
	}
	var e *apiError
	asAPI(err, &e)
	return v.show(e.Status, "rule", p)
}

type fieldGaps struct {
	Product  string            `json:"product_id"`
	Service  string            `json:"service"`
	Calls    uint64            `json:"calls"`
	Needed   []string          `json:"needed"`
	Missing  map[string]uint64 `json:"missing"`
	Complete bool              `json:"complete"`
}

// Shares says how often each field is missing, in the order they are named.
func (g fieldGaps) Shares() (out []string) {
	for _, f := range g.Needed {
		if n := g.Missing[f]; n > 0 && g.Calls > 0 {
			out = append(out, strings.ReplaceAll(f, "_", " ")+" in "+strconv.FormatFloat(float64(n)*100/float64(g.Calls), 'f', 1, 64)+" % of the calls")
		}
	}
	return out
}

func (v *visit) missingFields() error {
	p := struct {
		frame
		Product string
		All     bool
		Off     bool
		Staff   bool
		Items   []fieldGaps
		Pager   pager
	}{frame: v.frame("Missing fields"), Product: v.query("product"), All: v.query("all") != "", Staff: v.person.Actor.Staff()}
	complete := "false"
	if p.All {
		complete = ""
	}
	m, err := v.get(&p.Items, "/v1/missing-fields", "product_id", p.Product, "complete", complete, "page", v.query("page"), "limit", "50")
	var e *apiError
	switch {
	case err == nil:
		p.Pager = v.pager(m)
	case asAPI(err, &e) && e.Status == http.StatusServiceUnavailable:
		p.Off = true
	default:
		return err
	}
	return v.show(http.StatusOK, "fields", p)
}
