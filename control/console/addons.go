package console

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Add-ons: third parties' apps that use a product's API, as its DSP declares them.

func addOnPages(mine routes) {
	mine("GET /console/add-ons", (*visit).addOns)
	mine("POST /console/add-ons", (*visit).declareAddOn)
	mine("GET /console/add-ons/{id}", (*visit).addOn)
	mine("POST /console/add-ons/{id}/{command}", (*visit).addOnCommand)
}

// keepers declare what a developer may declare of its own.
const keepers = registry.PermAssessor | registry.PermRegistrar

// addOn is one as the API shows it.
type addOn struct {
	ID          string        `json:"id"`
	ProductID   string        `json:"product_id"`
	Owner       registry.ABN  `json:"owner"`
	Name        string        `json:"name"`
	Developer   string        `json:"developer"`
	Contact     string        `json:"contact"`
	Connections uint64        `json:"connections"`
	ClientList  bool          `json:"client_list_access"`
	Assessed    registry.Time `json:"assessed_at"`
	SSIDs       []string      `json:"ssids"`
	Declared    registry.Time `json:"declared_at"`
	By          string        `json:"by"`
	Removed     registry.Time `json:"removed_at"`
	Listed      bool          `json:"must_be_listed"`
	Because     string        `json:"because"`
	Due         registry.Time `json:"assessment_due"`
	Overdue     bool          `json:"overdue"`
	Mark        string        `json:"mark"`
	Suspended   []string      `json:"suspended_ssids"`
}

// addOnForm is the declaration as it was typed.
type addOnForm struct {
	Product, Name, Developer, Contact, Connections, Assessed, SSIDs string
	ClientList                                                      bool
	Problem                                                         *problem
}

// Bad tells whether a field is what is wrong.
func (f addOnForm) Bad(name string) bool { return f.Problem != nil && f.Problem.Field == name }

type addOnsPage struct {
	frame
	Query, Listed string
	Items         []addOnRow
	Pager         pager
	Form          addOnForm
	Products      []product // a developer's own, to choose from
	May, Staff    bool
}

type addOnRow struct {
	addOn
	Until deadline // of its assessment
}

type addOnPage struct {
	frame
	A       addOn
	Until   deadline
	ETag    string
	Form    addOnForm
	May     bool
	MayStop bool
	Stopped []suspension // what holds of its subscriptions now
	Problem *problem     // of another form than the declaration
	Reason  string
}

func mayDeclare(a registry.Actor) bool { return a.Has(keepers | registry.PermDeveloper) }

func (v *visit) addOns() error {
	return v.showAddOns(http.StatusOK, addOnForm{Product: v.query("product")})
}

func (v *visit) showAddOns(status int, form addOnForm) error {
	a := v.person.Actor
	p := addOnsPage{frame: v.frame("Add-ons"), Query: v.query("q"), Listed: v.query("listed"), Form: form, May: mayDeclare(a), Staff: a.Staff()}
	if p.Listed != "yes" {
		p.Listed = ""
	}
	word, _, _ := strings.Cut(strings.ToLower(p.Query), " ") // the API looks for one
	var all []addOn
	m, err := v.get(&all, "/v1/add-ons", "listed", p.Listed, "word", word, "product_id", v.query("product"), "page", v.query("page"), "limit", "25")
	if err != nil && !isNoWord(err) {
		return err
	}
	for _, x := range all {
		p.Items = append(p.Items, addOnRow{x, due(x.Due, v.now())})
	}
	p.Pager = v.pager(m)
	if p.May && !p.Staff {
		if p.Products, err = v.ownProducts(); err != nil {
			return err
		}
	}
	return v.show(status, "addons", p)
}

// ownProducts are those that a developer's entity owns.
func (v *visit) ownProducts() (all []product, err error) {
	_, err = v.get(&all, "/v1/products", "owner", v.person.Actor.Entity.String(), "limit", "100")
	return all, err
}

var addOnPlaces = places(map[string]place{
	"/product_id": {"product", "Product"}, "/name": {"name", "Name"}, "/developer": {"developer", "Who offers it"}, "/contact": {"contact", "Its e-mail address"}, "/connections": {"connections", "Connections"},
	"/assessed_at": {"assessed", "Last self-assessment"}, "/ssids": {"ssids", "Software IDs"},
})

// addOnTyped reads the declaration, and makes the API's body of it.
func (v *visit) addOnTyped() (f addOnForm, body map[string]any) {
	f = addOnForm{Product: v.form("product"), Name: v.form("name"), Developer: v.form("developer"), Contact: v.form("contact"), Connections: v.form("connections"), Assessed: v.form("assessed"),
		SSIDs: v.form("ssids"), ClientList: v.form("client_list") != ""}
	body = map[string]any{"name": f.Name, "developer": f.Developer, "contact": f.Contact, "client_list_access": f.ClientList, "ssids": v.list("ssids")}
	if f.Connections != "" {
		n, err := strconv.ParseUint(strings.NewReplacer(",", "", " ", "").Replace(f.Connections), 10, 53)
		if err != nil {
			f.Problem = &problem{"Connections: write a whole number.", "connections"}
		}
		body["connections"] = n
	}
	if f.Assessed != "" {
		t, err := time.Parse(time.DateOnly, f.Assessed)
		if err != nil {
			f.Problem = &problem{"Last self-assessment: write a date as 2026-11-30.", "assessed"}
		}
		body["assessed_at"] = registry.At(t)
	}
	return f, body
}

func (v *visit) declareAddOn() error {
	f, body := v.addOnTyped()
	if f.Problem != nil {
		return v.showAddOns(http.StatusUnprocessableEntity, f)
	}
	body["product_id"] = f.Product
	return v.command("/v1/add-ons", body, addOnPlaces, "/console/add-ons", func(status int, wrong *problem) error {
		f.Problem = wrong
		return v.showAddOns(status, f)
	})
}

func (v *visit) addOn() error { return v.showAddOn(http.StatusOK, nil, nil, "") }

// showAddOn shows one, with the form as it was typed, and what is wrong with another.
func (v *visit) showAddOn(status int, form *addOnForm, wrong *problem, reason string) (err error) {
	p := addOnPage{Problem: wrong, Reason: reason, May: mayDeclare(v.person.Actor), MayStop: v.person.Actor.MaySuspend()}
	if p.ETag, err = v.getTagged(&p.A, api("add-ons", v.r.PathValue("id"))); err != nil {
		return err
	}
	p.frame, p.Until = v.frame(p.A.Name), due(p.A.Due, v.now())
	p.May = p.May && !p.A.Removed.Set()
	if form != nil {
		p.Form = *form
	} else {
		p.Form = addOnForm{Product: p.A.ProductID, Name: p.A.Name, Developer: p.A.Developer, Contact: p.A.Contact, Connections: strconv.FormatUint(p.A.Connections, 10), SSIDs: strings.Join(p.A.SSIDs, "\n"), ClientList: p.A.ClientList}
		if p.A.Assessed.Set() {
			p.Form.Assessed = p.A.Assessed.Std().UTC().Format(time.DateOnly)
		}
	}
	for _, ssid := range p.A.Suspended[:min(len(p.A.Suspended), 20)] {
		var one []suspension
		if _, err := v.get(&one, "/v1/suspensions", "kind", "subscription", "subject", ssid, "active", "true", "limit", "1"); err != nil {
			return err
		}
		p.Stopped = append(p.Stopped, one...)
	}
	return v.show(status, "addon", p)
}

func (v *visit) addOnCommand() error {
	id := v.r.PathValue("id")
	here := local("add-ons", id)
	switch v.r.PathValue("command") {
	case "change":
		f, body := v.addOnTyped()
		again := func(status int, wrong *problem) error { f.Problem = wrong; return v.showAddOn(status, &f, nil, "") }
		if f.Problem != nil {
			return again(http.StatusUnprocessableEntity, f.Problem)
		}
		q := v.post(api("add-ons", id), body)
		q.method = http.MethodPut
		return v.commanded(q, addOnPlaces, here, again)
	case "remove":
		return v.commanded(request{method: http.MethodDelete, path: api("add-ons", id), match: v.form("etag")}, addOnPlaces, here, func(status int, wrong *problem) error {
			return v.showAddOn(status, nil, wrong, "")
		})
	case "suspend":
		return v.suspendAddOn(id, here)
	}
	return &apiError{Status: http.StatusNotFound, Detail: "There is no such page."}
}

// suspendAddOn stops each subscription of an add-on; how far one alone has come
// is told on its own page.
func (v *visit) suspendAddOn(id, here string) error {
	reason := v.form("reason")
	var all []struct {
		SSID       string `json:"ssid"`
		Suspension string `json:"suspension_id"`
		Problem    string `json:"problem"`
	}
	err := v.send(http.MethodPost, api("add-ons", id, "suspend"), map[string]any{"reason": reason, "emergency": v.form("emergency") != ""}, &all)
	var e *apiError
	if wrong := problemIn(err, places(map[string]place{"/reason": {"reason", "Why"}})); wrong != nil && asAPI(err, &e) && e.Status != http.StatusNotFound {
		return v.showAddOn(e.Status, nil, wrong, reason)
	} else if err != nil {
		return err
	}
	var failed []string
	for _, s := range all {
		if s.Problem != "" {
			failed = append(failed, s.SSID)
		}
	}
	switch {
	case len(failed) > 0:
		return v.showAddOn(http.StatusConflict, nil, &problem{"Not suspended: " + strings.Join(failed, ", ") + ". The others are. Do it again for these.", "reason"}, reason)
	case len(all) == 1:
		return v.redirect(local("suspensions", all[0].Suspension))
	}
	return v.redirect(here)
}

// commanded is command for a request of any method.
func (v *visit) commanded(q request, at func(string) place, to string, again func(status int, p *problem) error) error {
	_, _, err := v.ask(v.r.Context(), q, nil)
	if err == nil || notDurable(err) {
		return v.redirect(to)
	}
	var e *apiError
	if p := problemIn(err, at); p != nil && asAPI(err, &e) && e.Status != http.StatusNotFound {
		return again(e.Status, p)
	}
	return err
}
