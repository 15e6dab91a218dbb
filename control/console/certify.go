package console

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
)

// The certification of a product, as its developer brings it about; what an
// assessor does on the same pages is assess.go's.

func certifyPages(mine routes) {
	mine("GET /console/certifications", (*visit).certifications)
	mine("GET /console/certifications/{id}", (*visit).certification)
	mine("GET /console/certifications/{id}/deployment", (*visit).deploymentForm)
	mine("POST /console/certifications/{id}/deployment", (*visit).describe)
	mine("GET /console/certifications/{id}/questions", (*visit).questions)
	mine("POST /console/certifications/{id}/questions", (*visit).answer)
	mine("GET /console/certifications/{id}/evidence", (*visit).evidence)
	mine("POST /console/certifications/{id}/evidence", (*visit).upload)
	mine("GET /console/certifications/{id}/obligations", (*visit).obligations)
	mine("POST /console/certifications/{id}/{command}", (*visit).certificationCommand)
	mine("GET /console/evidence/{id}", (*visit).onePiece)
	mine("GET /console/evidence/{id}/content", func(v *visit) error {
		return v.file(v.r.Context(), api("evidence", v.r.PathValue("id"), "content"))
	})
	mine("POST /console/evidence/{id}/approve", (*visit).acceptEvidence)
	mine("GET /console/findings", (*visit).findings)
	mine("GET /console/findings/{id}", (*visit).finding)
	mine("POST /console/findings/{id}/{command}", (*visit).findingCommand)
	mine("GET /console/gap-analysis", (*visit).gap)
}

// certified is a product's certification as the API shows it.
type certified struct {
	ProductID     string                 `json:"product_id"`
	Name          string                 `json:"name"`
	Certification registry.Certification `json:"certification"`
	Next          []string               `json:"allowed_next"`
	Case          casework.Certification `json:"case"`
}

// May tells whether the person may give a command now.
func (c certified) May(command string) bool { return slices.Contains(c.Next, command) }

// Editable tells whether its developer can work on it now.
func (c certified) Editable() bool {
	return c.May("answer") && (c.Certification.State == registry.CertDraft || len(c.Case.Reopened) > 0)
}

// marking is the questionnaire as answered so far.
type marking struct {
	Mark         string              `json:"mark"`
	Questions    []asked             `json:"questions"`
	Requirements []markedRequirement `json:"requirements"`
	Blockers     []struct {
		Question string `json:"question"`
		Say      string `json:"say"`
	} `json:"blockers"`
}

type markedRequirement struct {
	Requirement string   `json:"requirement"`
	Title       string   `json:"title"`
	Mark        string   `json:"mark"`
	Say         []string `json:"say"`
	Excused     bool     `json:"excused"`
}

type asked struct {
	ID          string `json:"id"`
	Requirement string `json:"requirement"`
	Text        string `json:"text"`
	Help        string `json:"help"`
	Kind        string `json:"kind"`
	Choices     []struct {
		Value string `json:"value"`
		Text  string `json:"text"`
	} `json:"choices"`
	Values        []string                     `json:"values"`
	Answered      bool                         `json:"answered"`
	Note          string                       `json:"note"`
	Mark          string                       `json:"mark"`
	Say           string                       `json:"say"`
	Optional      bool                         `json:"optional"`
	NeedsEvidence bool                         `json:"evidence_needed"`
	Evidence      []string                     `json:"evidence"`
	Missing       []certification.EvidenceType `json:"evidence_missing"`
}

// Has tells whether a value was chosen.
func (q asked) Has(value string) bool { return q.Answered && slices.Contains(q.Values, value) }

// Value is the one answer.
func (q asked) Value() string {
	if len(q.Values) == 1 {
		return q.Values[0]
	}
	return ""
}

// Attached tells whether a piece of evidence is.
func (q asked) Attached(address string) bool { return slices.Contains(q.Evidence, address) }

// Anchor is the question's place on its page.
func (q asked) Anchor() string { return "q-" + q.ID }

// count counts questions by mark.
func (m *marking) count(mark string) (n int) {
	for _, q := range m.Questions {
		if q.Mark == mark {
			n++
		}
	}
	return n
}

// partPage is what the parts of a certification have in common.
type partPage struct {
	frame
	C        certified
	ETag     string
	Tabs     []tabLink
	Assessor bool
	Own      bool
	Today    string
	Problem  *problem
}

// Bad tells whether a field is what is wrong.
func (p partPage) Bad(name string) bool { return p.Problem != nil && p.Problem.Field == name }

// part reads what the parts have in common.
func (v *visit) part(title string) (p partPage, err error) {
	id := v.r.PathValue("id")
	if p.ETag, err = v.getTagged(&p.C, api("certifications", id)); err != nil {
		return p, err
	}
	a := v.person.Actor
	p.Assessor, p.Own, p.Today = a.Has(registry.PermAssessor), !a.Staff(), v.now().UTC().Format(time.DateOnly)
	for _, t := range []tabLink{{Text: "Overview"}, {Href: "deployment", Text: "How it is run"}, {Href: "obligations", Text: "What applies, and why"}, {Href: "questions", Text: "Questions"}, {Href: "evidence", Text: "Evidence"}} {
		href := local("certifications", id)
		if t.Href != "" {
			href += "/" + t.Href
		}
		p.Tabs = append(p.Tabs, tabLink{href, t.Text, href == v.r.URL.Path})
	}
	p.Tabs = append(p.Tabs, tabLink{"/console/findings?product=" + id, "Findings", false})
	p.frame = v.frame(title + " · " + p.C.Name)
	return p, nil
}

type certificationsPage struct {
	frame
	Items []certified
	Due   map[string]*deadline
}

func (v *visit) certifications() error {
	if v.person.Actor.Staff() {
		return v.redirect("/console/assessments")
	}
	p := certificationsPage{frame: v.frame("Certification"), Due: map[string]*deadline{}}
	var own []product
	if _, err := v.get(&own, "/v1/products", "owner", v.person.Actor.Entity.String(), "limit", "100"); err != nil {
		return err
	}
	for _, x := range own {
		var c certified
		if _, err := v.get(&c, api("certifications", x.ID)); err != nil {
			return err
		}
		p.Items = append(p.Items, c)
		for _, d := range deadlines(c.Case.Clocks, v.now()) {
			if p.Due[c.ProductID] == nil {
				p.Due[c.ProductID] = &d
			}
		}
	}
	return v.show(200, "certifications", p)
}

// task is one thing on the way to a submission.
type task struct {
	Text, Href, Say string
	Mark            string // pass, warn, open, fail
}

type certificationPage struct {
	partPage
	Stages   []stage
	Mine     []deadline
	Agency   []deadline
	Marking  *marking
	NotAsked string // why there is none
	Tasks    []task
	Evidence int
	Findings []findingRow
	Steps    []happened
	Name     string // of who declares, when the form was refused
	assessing
}

func (v *visit) certification() error { return v.showCertification(http.StatusOK, certificationPage{}) }

func (v *visit) showCertification(status int, p certificationPage) (err error) {
	wrong := p.Problem
	if p.partPage, err = v.part("Certification"); err != nil {
		return err
	}
	p.Problem = wrong
	id := p.C.ProductID
	p.Marking, p.NotAsked, err = v.marked(id)
	if err != nil {
		return err
	}
	m, err := v.get(nil, "/v1/evidence", "product_id", id, "limit", "1")
	if err != nil {
		return err
	}
	p.Evidence = m.TotalItems
	var all []assurance.Finding
	for _, state := range []string{"open", "answered"} {
		if _, err := v.get(&all, "/v1/findings", "product_id", id, "state", state, "limit", "50"); err != nil {
			return err
		}
		p.Findings = append(p.Findings, findingRows(all, v.now())...)
		all = nil
	}
	for _, d := range deadlines(p.C.Case.Clocks, v.now()) {
		if d.On == "agency" {
			p.Agency = append(p.Agency, d)
		} else {
			p.Mine = append(p.Mine, d)
		}
	}
	at := map[registry.CertState]int{registry.CertDraft: 0, registry.CertSelfCertified: 1, registry.CertInVerification: 2, registry.CertPVT: 3, registry.CertWhitelisted: 4}
	if i, ok := at[p.C.Certification.State]; ok {
		p.Stages = stages(i, "Draft", "Self-certified", "Verification", "Pilot", "Whitelisted")
	}
	p.Tasks, p.Steps = p.tasks(), history(p.C.Case.Steps)
	if v.person.Actor.Staff() {
		if err := v.assess(&p); err != nil {
			return err
		}
	}
	return v.show(status, "certification", p)
}

// marked reads the questionnaire; why is set where nothing can be asked yet.
func (v *visit) marked(id string) (m *marking, why string, err error) {
	m = &marking{}
	_, err = v.get(m, api("certifications", id, "questions"))
	var e *apiError
	switch {
	case err == nil:
		return m, "", nil
	case asAPI(err, &e) && (e.Status == http.StatusConflict || e.Status == http.StatusUnprocessableEntity):
		return nil, sentence(e.Detail), nil
	}
	return nil, "", err
}

// tasks are what a developer has to do before it can sign.
func (p *certificationPage) tasks() []task {
	if !p.C.Editable() {
		return nil
	}
	base := local("certifications", p.C.ProductID)
	first := task{Text: "Say how it is built and run, and which services it wants", Href: base + "/deployment", Mark: "open"}
	if n := len(p.C.Case.Deployment.Services); n > 0 {
		first.Mark, first.Say = "pass", fmt.Sprintf("Category %s: %s", p.C.Case.Category, p.C.Case.Because)
	}
	second := task{Text: "Answer the questions, and attach evidence where it is asked for", Href: base + "/questions", Mark: "open", Say: p.NotAsked}
	if m := p.Marking; m != nil {
		second.Mark = m.Mark
		second.Say = fmt.Sprintf("%d asked: %d pass, %d warn, %d fail, %d to do.", len(m.Questions), m.count("pass"), m.count("warn"), m.count("fail"), m.count("open"))
	}
	last := task{Text: "Declare that it is true, and submit", Href: "#sign", Mark: "open"}
	return []task{first, second, last}
}

// certificationCommand gives the command that the path names.
func (v *visit) certificationCommand() error {
	id, command := v.r.PathValue("id"), v.r.PathValue("command")
	at := map[string]place{"/reason": {command + "-reason", "Why"}, "/services": {command + "-services", "Services"}, "/decisions": {command + "-decisions", "Decisions"}, "/note": {command + "-note", "Note"}}
	page := certificationPage{}
	again := func(status int, wrong *problem) error {
		page.Problem = wrong
		return v.showCertification(status, page)
	}
	path, body := command, map[string]any{"reason": v.form("reason")}
	switch command {
	case "begin", "recall", "send-back", "reinstate", "delist", "request-review":
	case "submit":
		at["/name"], at["/position"] = place{"sign-name", "Your name"}, place{"sign-position", "Position"}
		page.Name = v.form("name")
		if v.form("true") == "" {
			return again(http.StatusUnprocessableEntity, &problem{"Make the declaration to submit.", "true"})
		}
		body = map[string]any{"name": page.Name, "position": v.form("position")}
	case "exceptions":
		at["/requirement"], at["/compensating_control"], at["/expires_at"] = place{"exception-requirement", "Requirement"}, place{"exception-control", "What does instead"}, place{"exception-expires", "Until"}
		expires, wrong := v.date("expires", "Until")
		if wrong == nil && !expires.Set() {
			wrong = &problem{"Until: give a date, in 12 months at most.", ""}
		}
		if wrong != nil {
			wrong.Field = "exception-expires"
			return again(http.StatusUnprocessableEntity, wrong)
		}
		body = map[string]any{"requirement": v.form("requirement"), "compensating_control": lines(v.form("control")), "expires_at": expires}
	case "conformance-runs", "scenarios":
		body = map[string]any{"decisions": v.list("decisions")}
	case "answer-review":
		body = map[string]any{"note": lines(v.form("note"))}
	default:
		var wrong *problem
		if body, wrong = v.assessment(command, at); body == nil && wrong == nil {
			return &apiError{Status: http.StatusNotFound, Detail: "There is no such page."}
		}
		if wrong != nil {
			return again(http.StatusUnprocessableEntity, wrong)
		}
	}
	if body["reason"] == "" {
		delete(body, "reason")
	}
	return v.command(api("certifications", id, path), body, places(at), local("certifications", id), again)
}

type deploymentPage struct {
	partPage
	D        casework.Deployment
	Services []serviceOption
	Live     bool // a change is told
	May      bool
}

func (v *visit) deploymentForm() error {
	p := deploymentPage{}
	var err error
	if p.partPage, err = v.part("How it is run"); err != nil {
		return err
	}
	p.D = p.C.Case.Deployment
	return v.showDeployment(http.StatusOK, p)
}

func (v *visit) showDeployment(status int, p deploymentPage) (err error) {
	p.Live, p.May = !p.C.May("describe"), p.C.May("describe") || p.C.May("tell-change")
	if p.Services, err = v.services(p.D.Services); err != nil {
		return err
	}
	return v.show(status, "deployment", p)
}

func (v *visit) describe() error {
	p := deploymentPage{}
	var err error
	if p.partPage, err = v.part("How it is run"); err != nil {
		return err
	}
	yes := func(name string) bool { return v.form(name) != "" }
	p.D = casework.Deployment{
		ClientControlled: v.form("control") == "client", Commercial: yes("commercial"), Hosting: v.form("hosting"), Offshore: yes("offshore"), Authentication: v.form("authentication"),
		SendingService: yes("sending_service"), Services: v.forms("service"), AddOns: p.C.Case.Deployment.AddOns, Connections: p.C.Case.Deployment.Connections, ClientList: p.C.Case.Deployment.ClientList,
	}
	again := func(status int, wrong *problem) error { p.Problem = wrong; return v.showDeployment(status, p) }
	if s := strings.NewReplacer(",", "", " ", "").Replace(v.form("records")); s != "" {
		if p.D.Records, err = strconv.ParseUint(s, 10, 53); err != nil {
			return again(http.StatusUnprocessableEntity, &problem{"Client records: write a whole number such as 12000.", "records"})
		}
	}
	command := "describe"
	if !p.C.May("describe") {
		command = "tell-change"
	}
	at := places(map[string]place{"/hosting": {"hosting", "Hosting"}, "/authentication": {"authentication", "Sign-in"}, "/records": {"records", "Client records"}, "/services": {"services", "Services"}})
	to := local("certifications", p.C.ProductID)
	if command == "describe" {
		to += "/questions"
	}
	return v.command(api("certifications", p.C.ProductID, command), p.D, at, to, again)
}

// obligationsPage is what binds a product, why, and how to meet it.
type obligationsPage struct {
	partPage
	Bound bound
}

type bound struct {
	Catalogue    string                     `json:"catalogue"`
	Category     string                     `json:"category"`
	Because      string                     `json:"category_because"`
	Requirements []binding                  `json:"requirements"`
	Obligations  []certification.Obligation `json:"obligations"`
	NotComputed  string                     `json:"obligations_missing"`
}

type binding struct {
	ID      string `json:"id"`
	Title   string `json:"title"`
	Subject string `json:"subject"`
	Level   struct {
		Strength  string                       `json:"strength"`
		Minimum   string                       `json:"minimum"`
		Guideline string                       `json:"guideline"`
		Evidence  []certification.EvidenceType `json:"evidence"`
	} `json:"level"`
	Because string   `json:"because"`
	How     []string `json:"how"`
	ISO     []string `json:"iso"`
}

func (v *visit) obligations() error {
	p := obligationsPage{}
	var err error
	if p.partPage, err = v.part("What applies"); err != nil {
		return err
	}
	if _, err := v.get(&p.Bound, api("products", p.C.ProductID, "requirements")); err != nil {
		return err
	}
	return v.show(200, "obligations", p)
}

type gapPage struct {
	frame
	Wanted, Given string
	Standards     []certification.Standard
	Gap           *certification.Gap
	Counts        []gapCount
}

type gapCount struct {
	Coverage string
	N        int
}

func (v *visit) gap() error {
	p := gapPage{frame: v.frame("Gap analysis"), Wanted: v.query("wanted"), Given: v.query("given")}
	if _, err := v.get(&p.Standards, "/v1/standards", "limit", "100"); err != nil {
		return err
	}
	if p.Wanted == "" && p.Given == "" && len(p.Standards) > 1 {
		p.Wanted, p.Given = p.Standards[0].ID, p.Standards[1].ID
	}
	p.Gap = &certification.Gap{}
	if _, err := v.get(p.Gap, "/v1/gap-analyses", "wanted", p.Wanted, "given", p.Given); err != nil {
		return err
	}
	for _, c := range []certification.Coverage{certification.CoveredBy, certification.Stronger, certification.Weaker, certification.Absent, certification.Unknown} {
		p.Counts = append(p.Counts, gapCount{string(c), p.Gap.Counts[c]})
	}
	return v.show(200, "gap", p)
}

type findingRow struct {
	assurance.Finding
	Until deadline
}

func findingRows(all []assurance.Finding, now time.Time) (out []findingRow) {
	for _, f := range all {
		out = append(out, findingRow{f, due(f.Due, now)})
	}
	slices.SortStableFunc(out, func(a, b findingRow) int { return int(a.Due/1000) - int(b.Due/1000) })
	return out
}

type findingsPage struct {
	frame
	Product string
	State   string
	Tabs    []tabLink
	Items   []findingRow
	Pager   pager
	Staff   bool
}

func (v *visit) findings() error {
	p := findingsPage{frame: v.frame("Findings"), Product: v.query("product"), State: v.query("state"), Staff: v.person.Actor.Staff()}
	if !slices.Contains([]string{"open", "answered", "closed", "all"}, p.State) {
		p.State = "open"
	}
	state := p.State
	if state == "all" {
		state = ""
	}
	var all []assurance.Finding
	m, err := v.get(&all, "/v1/findings", "product_id", p.Product, "state", state, "page", v.query("page"), "limit", "25")
	if err != nil {
		return err
	}
	p.Items, p.Pager = findingRows(all, v.now()), v.pager(m)
	for _, s := range []string{"open", "answered", "closed", "all"} {
		href := "/console/findings?state=" + s
		if p.Product != "" {
			href += "&product=" + p.Product
		}
		p.Tabs = append(p.Tabs, tabLink{href, strings.ToUpper(s[:1]) + s[1:], s == p.State})
	}
	return v.show(200, "findings", p)
}

type findingPage struct {
	frame
	F        assurance.Finding
	ETag     string
	Until    deadline
	Evidence []evidenceOption
	Answer   bool // the person may
	Judge    bool
	Today    string
	Text     string // given with a refused form
	Problem  *problem
}

// Bad tells whether a field is what is wrong.
func (p findingPage) Bad(name string) bool { return p.Problem != nil && p.Problem.Field == name }

type evidenceOption struct {
	assurance.Evidence
	Chosen bool
}

func (v *visit) finding() error { return v.showFinding(http.StatusOK, findingPage{}) }

func (v *visit) showFinding(status int, p findingPage) (err error) {
	if p.ETag, err = v.getTagged(&p.F, api("findings", v.r.PathValue("id"))); err != nil {
		return err
	}
	p.frame = v.frame("Finding " + p.F.ID)
	p.Until, p.Today = due(p.F.Due, v.now()), v.now().UTC().Format(time.DateOnly)
	closed := p.F.State == assurance.FindingClosed
	p.Answer, p.Judge = v.has(registry.PermDeveloper) && !closed, v.has(registry.PermAssessor) && !closed
	var all []assurance.Evidence
	if _, err := v.get(&all, "/v1/evidence", "product_id", p.F.ProductID, "limit", "100"); err != nil {
		return err
	}
	for _, e := range all {
		p.Evidence = append(p.Evidence, evidenceOption{e, slices.Contains(p.F.Evidence, e.ID)})
	}
	return v.show(status, "finding", p)
}

func (v *visit) findingCommand() error {
	id, command := v.r.PathValue("id"), v.r.PathValue("command")
	page := findingPage{Text: lines(v.form("text"))}
	again := func(status int, wrong *problem) error {
		page.Problem = wrong
		return v.showFinding(status, page)
	}
	var body map[string]any
	switch command {
	case "answer":
		body = map[string]any{"response": page.Text, "evidence": v.forms("evidence")}
	case "close":
		body = map[string]any{"note": page.Text}
	case "reopen":
		body = map[string]any{"note": page.Text}
		at, wrong := v.date("due", "Due")
		if wrong != nil {
			return again(http.StatusUnprocessableEntity, wrong)
		}
		if at.Set() {
			body["due_at"] = at
		}
	default:
		return &apiError{Status: http.StatusNotFound, Detail: "There is no such page."}
	}
	at := places(map[string]place{"/response": {"answer-text", "What was done"}, "/note": {command + "-text", "What you saw"}, "/evidence": {"answer-text", "Evidence"}, "/due_at": {"due", "Due"}})
	return v.command(api("findings", id, command), body, at, local("findings", id), again)
}
