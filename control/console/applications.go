package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
)

// The registration of an entity: the form, how far it has come, and the
// registrars' queue.

func applicationPages(mine routes) {
	mine("GET /console/registrations", (*visit).registrations)
	mine("GET /console/apply", (*visit).applyForm)
	mine("POST /console/apply", (*visit).apply)
	mine("GET /console/registrations/{abn}", (*visit).registration)
	mine("GET /console/registrations/{abn}/form", (*visit).applyForm)
	mine("POST /console/registrations/{abn}/form", (*visit).apply)
	mine("POST /console/registrations/{abn}/{command}", (*visit).registrationCommand)
}

// jsonBody is what goes to the API; it is made of our own types, which encode.
func jsonBody(v any) io.Reader {
	b, err := json.Marshal(v)
	if err != nil {
		panic("console: a body that does not encode: " + err.Error())
	}
	return bytes.NewReader(b)
}

// registration is one as the API shows it.
type registration struct {
	ABN   registry.ABN          `json:"abn"`
	State registry.EntityState  `json:"state"`
	Next  []string              `json:"allowed_next"`
	Case  casework.Registration `json:"case"`
}

// May tells whether the person may give a command now.
func (r registration) May(command string) bool { return slices.Contains(r.Next, command) }

type registrationsPage struct {
	frame
	Clock string
	Query string
	Tabs  []tabLink
	Items []registrationRow
	Pager pager
	Own   bool
}

// tabLink leads to another view of the same.
type tabLink struct {
	Href, Text string
	Here       bool
}

type registrationRow struct {
	registration
	Waits  *deadline
	Passed int
	Failed int
}

func (v *visit) registrations() error {
	own := !v.person.Actor.Staff()
	p := registrationsPage{frame: v.frame("Applications"), Clock: v.query("clock"), Query: v.query("q"), Own: own}
	if own {
		p.frame = v.frame("Registration")
	}
	if !v.r.URL.Query().Has("clock") && !own && p.Query == "" {
		p.Clock = "agency"
	}
	if p.Clock != "agency" && p.Clock != "applicant" {
		p.Clock = ""
	}
	var all []registration
	m, err := v.get(&all, "/v1/registrations", "clock", p.Clock, "q", p.Query, "page", v.query("page"), "limit", "20")
	if err != nil {
		return err
	}
	if own && len(all) == 1 && m.TotalItems == 1 {
		return v.redirect(local("registrations", all[0].ABN.String()))
	}
	if own && len(all) == 0 && v.person.Actor.Entity != 0 { // entered before there were cases
		return v.redirect(local("registrations", v.person.Actor.Entity.String()))
	}
	for _, r := range all {
		row := registrationRow{registration: r}
		for _, d := range deadlines(r.Case.Clocks, v.now()) {
			if p.Clock == "" || d.On == p.Clock {
				row.Waits = &d
				break
			}
		}
		for _, c := range r.Case.Checks {
			switch c.State {
			case casework.CheckPassed:
				row.Passed++
			case casework.CheckFailed:
				row.Failed++
			}
		}
		p.Items = append(p.Items, row)
	}
	for _, t := range []tabLink{{Href: "agency", Text: "Waiting for us"}, {Href: "applicant", Text: "Waiting for the applicant"}, {Href: "", Text: "All, by ABN"}} {
		p.Tabs = append(p.Tabs, tabLink{"/console/registrations?" + url.Values{"clock": {t.Href}}.Encode(), t.Text, p.Clock == t.Href})
	}
	p.Pager = v.pager(m)
	return v.show(200, "registrations", p)
}

type applyPage struct {
	frame
	ABN       string
	Fixed     bool // of an application there is
	Staff     bool
	ETag      string
	Form      casework.Form
	Roles     []choice
	Scenarios []scenario
	Scenario  uint8
	Product   string
	Chain     string
	Services  []serviceOption
	People    []casework.Principal
	Contacts  []contactRow
	Problem   *problem
}

type choice struct {
	Value, Text string
	Chosen      bool
}

type scenario struct {
	Scenario uint8  `json:"scenario"`
	Title    string `json:"title"`
	Delivery string `json:"delivery"`
}

type contactRow struct {
	For, Title, Hint string
	casework.Contact
}

func (p *applyPage) bad(name string) bool { return p.Problem != nil && p.Problem.Field == name }

// Bad tells whether a field is what is wrong.
func (p applyPage) Bad(name string) bool { return p.bad(name) }

func (v *visit) applyForm() error {
	p := applyPage{ABN: v.query("abn")}
	if abn := v.r.PathValue("abn"); abn != "" {
		var r registration
		tag, err := v.getTagged(&r, api("registrations", abn))
		if err != nil {
			return err
		}
		if !r.May("revise") && !r.May("apply") {
			return v.redirect(local("registrations", abn))
		}
		p.ABN, p.Fixed, p.ETag, p.Form = r.ABN.String(), true, tag, r.Case.Form
	} else if v.person.Actor.Entity != 0 {
		return v.redirect(local("registrations", v.person.Actor.Entity.String()))
	}
	return v.showApply(http.StatusOK, p)
}

func (v *visit) showApply(status int, p applyPage) error {
	p.frame, p.Staff = v.frame("Apply for registration"), v.person.Actor.Staff()
	if p.Fixed {
		p.frame = v.frame("Your application")
	}
	if !p.Staff {
		p.Form.Applicant.Email = v.person.Actor.Name
	}
	var matrix struct {
		Rows []scenario `json:"rows"`
	}
	if _, err := v.get(&matrix, "/v1/role-matrix"); err != nil {
		return err
	}
	p.Scenarios = matrix.Rows
	for _, r := range []struct {
		role registry.Role
		text string
	}{
		{registry.RoleDeveloper, "Developer: you build the software"}, {registry.RoleServiceProvider, "Service provider: you offer it to users, or send for others"},
		{registry.RoleCloudProvider, "Cloud provider: it runs on your machines"}, {registry.RoleInHouse, "In-house developer: only your own business uses it"},
	} {
		p.Roles = append(p.Roles, choice{string(r.role), r.text, slices.Contains(p.Form.Roles, r.role)})
	}
	if x := p.Form.Product; x != nil {
		p.Product, p.Scenario = x.Name, x.Scenario
		for i, abn := range x.Chain {
			if i > 0 {
				p.Chain += ", "
			}
			p.Chain += abn.String()
		}
	}
	var err error
	if p.Services, err = v.services(p.Form.Access); err != nil {
		return err
	}
	p.People = append(slices.Clone(p.Form.Principals), make([]casework.Principal, max(2-len(p.Form.Principals), 1))...)
	for _, c := range contactKinds() {
		if i := slices.IndexFunc(p.Form.Contacts, func(x casework.Contact) bool { return x.For == c.For }); i >= 0 {
			c.Contact = p.Form.Contacts[i]
		}
		p.Contacts = append(p.Contacts, c)
	}
	return v.show(status, "apply", p)
}

func contactKinds() []contactRow {
	return []contactRow{
		{For: "security", Title: "Security contact", Hint: "Told at once when something is wrong, day and night."},
		{For: "privacy", Title: "Privacy contact", Hint: "For questions about people's data."},
		{For: "responsible", Title: "Responsible person", Hint: "Gets our decisions and reminders."},
	}
}

const principalsMax = 20

// formOf reads the whole form.
func (v *visit) formOf(was casework.Form) casework.Form {
	f := casework.Form{
		Name: v.form("name"), Purpose: lines(v.form("purpose")), Intent: lines(v.form("intent")), Access: v.forms("access"),
		Applicant: casework.Applicant{Name: v.form("applicant_name"), Email: v.form("applicant_email"), Position: v.form("applicant_position"), Authority: v.form("authority"), Reference: v.form("authority_reference")},
	}
	if !v.person.Actor.Staff() {
		f.Applicant.Email = v.person.Actor.Name // who signed in applies
	}
	for _, r := range v.forms("role") {
		f.Roles = append(f.Roles, registry.Role(r))
	}
	for i := range principalsMax {
		at := fmt.Sprintf("principal_%d_", i)
		x := casework.Principal{Name: v.form(at + "name"), Position: v.form(at + "position")}
		if x.Name == "" && x.Position == "" {
			continue
		}
		x.ID = "P" + strconv.Itoa(len(f.Principals)+1)
		if v.form(at+"consent") != "" {
			x.Consented = registry.At(v.now())
			if j := slices.IndexFunc(was.Principals, func(o casework.Principal) bool { return o.Name == x.Name && o.Consented.Set() }); j >= 0 {
				x.Consented = was.Principals[j].Consented
			}
		}
		f.Principals = append(f.Principals, x)
	}
	for _, c := range contactKinds() {
		x := casework.Contact{For: c.For, Name: v.form("contact_" + c.For + "_name"), Email: v.form("contact_" + c.For + "_email"), Phone: v.form("contact_" + c.For + "_phone")}
		if x.Name != "" || x.Email != "" || x.Phone != "" {
			f.Contacts = append(f.Contacts, x)
		}
	}
	if name := v.form("product"); name != "" {
		n, _ := strconv.ParseUint(v.form("scenario"), 10, 8) // 0 is refused with a sentence
		f.Product = &casework.ProductForm{Name: name, Scenario: uint8(n)}
	}
	return f
}

// lines makes the line ends of a form those of a text.
func lines(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

// formPlace finds the field of the form for a pointer of the API.
func formPlace(f *casework.Form) func(string) place {
	all := places(map[string]place{
		"/abn": {"abn", "ABN"}, "/name": {"name", "Legal name"}, "/roles": {"roles", "Roles"},
		"/applicant/name": {"applicant_name", "Your name"}, "/applicant/email": {"applicant_email", "Email address"}, "/applicant/position": {"applicant_position", "Position"},
		"/applicant/authority": {"authority", "By what right"}, "/applicant/authority_reference": {"authority_reference", "Where that can be looked up"},
		"/principals": {"principal_0_name", "Principals"}, "/contacts": {"contact_security_name", "Contacts"}, "/purpose": {"purpose", "Purpose"}, "/intent": {"intent", "Intent"},
		"/access_wanted": {"access", "Services"}, "/product/name": {"product", "Name of the product"}, "/product/scenario": {"scenario", "How it reaches its users"}, "/product/chain": {"chain", "Delivered with"}, "/product": {"product", "Product"},
	})
	return func(pointer string) place {
		pointer = strings.TrimPrefix(pointer, "/form")
		var i int
		var what string
		switch n, _ := fmt.Sscanf(pointer, "/principals/%d/%s", &i, &what); {
		case n == 2 && i < len(f.Principals):
			what = strings.TrimSuffix(strings.Replace(what, "consented_at", "consent", 1), "/")
			return place{fmt.Sprintf("principal_%d_%s", i, what), fmt.Sprintf("Person %d", i+1)}
		}
		switch n, _ := fmt.Sscanf(pointer, "/contacts/%d/%s", &i, &what); {
		case n == 2 && i < len(f.Contacts):
			return place{"contact_" + f.Contacts[i].For + "_" + what, strings.ToUpper(f.Contacts[i].For[:1]) + f.Contacts[i].For[1:] + " contact, " + what}
		}
		return all(pointer)
	}
}

func (v *visit) apply() error {
	p := applyPage{ABN: v.form("abn"), ETag: v.form("etag")}
	again := func(status int, wrong *problem) error {
		p.Problem = wrong
		return v.showApply(status, p)
	}
	method, path, command := http.MethodPost, "/v1/registrations", "apply"
	if abn := v.r.PathValue("abn"); abn != "" {
		var r registration
		if _, err := v.getTagged(&r, api("registrations", abn)); err != nil {
			return err
		}
		p.ABN, p.Fixed, p.Form = r.ABN.String(), true, r.Case.Form
		if !r.May("apply") {
			method, path, command = http.MethodPut, api("registrations", abn), "revise"
		}
	}
	p.Form = v.formOf(p.Form)
	abn, err := registry.ParseABN(p.ABN)
	if err != nil {
		return again(http.StatusUnprocessableEntity, &problem{"ABN: write the 11 digits of the business's ABN; these are none.", "abn"})
	}
	if wrong := v.chainOf(&p); wrong != nil {
		return again(http.StatusUnprocessableEntity, wrong)
	}
	body := map[string]any{"form": p.Form}
	if command == "apply" {
		body["abn"] = abn
	}
	q := request{method: method, path: path, body: jsonBody(body), media: "application/json"}
	if command == "revise" {
		q.match = p.ETag
	}
	if _, _, err = v.ask(v.r.Context(), q, nil); err != nil && !notDurable(err) {
		var e *apiError
		if wrong := problemIn(err, formPlace(&p.Form)); wrong != nil && asAPI(err, &e) && e.Status != http.StatusNotFound {
			return again(e.Status, wrong)
		}
		return err
	}
	if command == "apply" && !v.person.Actor.Staff() {
		if err := v.c.cfg.SignIn.Choose(v.w, v.r, abn); err != nil { // it is the person's own from now on
			return err
		}
	}
	return v.redirect(local("registrations", abn.String()))
}

// chainOf reads whom the product is delivered with.
func (v *visit) chainOf(p *applyPage) *problem {
	var chain []registry.ABN
	for _, s := range strings.FieldsFunc(v.form("chain"), func(c rune) bool { return c == ',' || c == ';' || c == '\n' }) {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		abn, err := registry.ParseABN(s)
		if err != nil {
			p.Chain = v.form("chain")
			return &problem{"Delivered with: write ABNs of 11 digits, separated by commas.", "chain"}
		}
		chain = append(chain, abn)
	}
	if p.Form.Product != nil {
		p.Form.Product.Chain = chain
	}
	return nil
}

type registrationPage struct {
	frame
	R         registration
	ETag      string
	Stages    []stage
	Mine      []deadline // that run on the applicant
	Agency    []deadline
	Terms     casework.Terms
	Steps     []happened
	Questions []casework.Question
	Open      bool // a question is
	Triggers  []casework.Trigger
	Signals   []signal
	Staff     bool
	Registrar bool
	Missing   int // checks that have not passed
	Untold    bool
	Today     string
	Name      string // given with a refused form
	Problem   *problem
	FormLink  bool // the problem is one of the form's
}

// signal is something that an assessor or registrar should look at.
type signal struct {
	Kind     string         `json:"kind"`
	Say      string         `json:"say"`
	Others   []registry.ABN `json:"others"`
	Evidence string         `json:"evidence"`
}

// Whom names a principal by the id that a check gives.
func (p registrationPage) Whom(id string) string {
	if id == "entity" {
		return "the business"
	}
	for _, x := range p.R.Case.Form.Principals {
		if x.ID == id {
			return x.Name
		}
	}
	return id
}

// Bad tells whether a field is what is wrong.
func (p registrationPage) Bad(name string) bool { return p.Problem != nil && p.Problem.Field == name }

func (v *visit) registration() error { return v.showRegistration(http.StatusOK, registrationPage{}) }

func (v *visit) showRegistration(status int, p registrationPage) (err error) {
	abn := v.r.PathValue("abn")
	if p.ETag, err = v.getTagged(&p.R, api("registrations", abn)); err != nil {
		return err
	}
	if _, err := v.get(&p.Terms, "/v1/registration-terms"); err != nil {
		return err
	}
	a := v.person.Actor
	p.Staff, p.Registrar = a.Staff(), a.Has(registry.PermRegistrar)
	if a.Has(registry.PermRegistrar | registry.PermAssessor) {
		if _, err := v.get(&p.Signals, api("entities", abn, "signals"), "limit", "50"); err != nil {
			return err
		}
	}
	for _, d := range deadlines(p.R.Case.Clocks, v.now()) {
		if d.On == "agency" {
			p.Agency = append(p.Agency, d)
		} else {
			p.Mine = append(p.Mine, d)
		}
	}
	for _, c := range p.R.Case.Checks {
		if c.State != casework.CheckPassed {
			p.Missing++
		}
	}
	for _, q := range p.R.Case.Questions {
		p.Open = p.Open || !q.Answered.Set()
	}
	for _, c := range p.R.Case.Changes {
		p.Untold = p.Untold || !c.Confirmed.Set()
	}
	p.Triggers, p.Steps, p.Today = casework.Triggers(), history(p.R.Case.Steps), v.now().UTC().Format(time.DateOnly)
	at := map[registry.EntityState]int{registry.EntityDraft: 0, registry.EntitySubmitted: 1, registry.EntityChecking: 2, registry.EntityRegistered: 3}
	if i, ok := at[p.R.State]; ok {
		p.Stages = stages(i, "Form", "Submitted", "Checks", "Registered")
	}
	p.frame = v.frame(p.R.Case.Form.Name)
	if p.Title == "" {
		p.frame = v.frame("Registration")
	}
	return v.show(status, "registration", p)
}

// registrationCommand gives the command that the path names.
func (v *visit) registrationCommand() error {
	abn, command := v.r.PathValue("abn"), v.r.PathValue("command")
	var body any
	at := map[string]place{"/reason": {command + "-reason", "Why"}}
	p := registrationPage{}
	switch command {
	case "submit":
		p.Name = v.form("name")
		at["/name"], at["/terms_version"] = place{"declare-name", "Your name"}, place{"accept", "Terms"}
		if v.form("accept") == "" || v.form("declare") == "" {
			p.Problem = &problem{"Accept the terms and make the declaration, both, to submit.", "accept"}
			return v.showRegistration(http.StatusUnprocessableEntity, p)
		}
		body = map[string]any{"terms_version": v.form("terms"), "name": p.Name}
	case "ask":
		at["/question"] = place{"question", "Your question"}
		body = map[string]any{"question": lines(v.form("question"))}
	case "reply":
		at["/answer"] = place{"answer", "Your answer"}
		body = map[string]any{"answer": lines(v.form("answer"))}
	case "checks":
		id := "check-" + v.form("check") + "-" + v.form("subject")
		at["/source"], at["/outcome"], at["/expires_at"] = place{id + "-source", "Source"}, place{id + "-outcome", "Outcome"}, place{id + "-expires", "Expires"}
		expires, wrong := v.date("expires", "Expires")
		if wrong != nil {
			wrong.Field = id + "-expires"
			return v.showRegistration(http.StatusUnprocessableEntity, registrationPage{Problem: wrong})
		}
		m := map[string]any{"check": v.form("check"), "outcome": v.form("outcome"), "source": v.form("source"), "subject": v.form("subject")}
		if expires.Set() {
			m["expires_at"] = expires
		}
		body = m
	case "reject":
		at["/trigger"] = place{"trigger", "Trigger"}
		body = map[string]any{"trigger": v.form("trigger"), "reason": v.form("reason")}
	case "changes":
		at["/name"], at["/roles"], at["/note"] = place{"change-name", "New name"}, place{"change-name", "Roles"}, place{"change-note", "Note"}
		m := map[string]any{"name": v.form("name"), "note": lines(v.form("note"))}
		body = m
	case "answer-review":
		at["/note"] = place{"review-note", "Note"}
		body = map[string]any{"note": lines(v.form("note"))}
	case "withdraw", "admit", "confirm-changes", "cancel":
		body = map[string]any{"reason": v.form("reason")}
	default:
		return &apiError{Status: http.StatusNotFound, Detail: "There is no such page."}
	}
	form := places(at)
	find := func(pointer string) place {
		if x := form(pointer); x.id != "" || command != "submit" {
			return x
		}
		p.FormLink = true // what is wrong stands in the form, on its own page
		var r registration
		if _, err := v.get(&r, api("registrations", abn)); err != nil {
			return place{}
		}
		return formPlace(&r.Case.Form)(pointer)
	}
	return v.command(api("registrations", abn, command), body, find, local("registrations", abn), func(status int, wrong *problem) error {
		p.Problem = wrong
		return v.showRegistration(status, p)
	})
}
