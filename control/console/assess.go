package console

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// The assessors' pages: what waits, verifications and draws; and what an
// assessor sees and does on a certification's page.

func assessPages(mine routes) {
	mine("GET /console/assessments", (*visit).assessments)
	mine("GET /console/verifications/{id}", (*visit).verification)
	mine("POST /console/verifications/{id}/{command}", (*visit).verificationCommand)
	mine("POST /console/certifications/{id}/findings", (*visit).raiseFinding)
	mine("GET /console/draws", (*visit).draws)
	mine("POST /console/draws", (*visit).commitDraw)
	mine("GET /console/draws/{period}", (*visit).draw)
	mine("POST /console/draws/{period}/draw", (*visit).makeDraw)
	mine("GET /console/draws/{period}/document", func(v *visit) error {
		return v.file(v.r.Context(), api("draws", v.r.PathValue("period"), "document"))
	})
}

type assessmentsPage struct {
	frame
	State string
	Tabs  []tabLink
	Items []waitingRow
	Pager pager
}

type waitingRow struct {
	ProductID    string                    `json:"product_id"`
	Name         string                    `json:"name"`
	Owner        registry.ABN              `json:"owner"`
	OwnerName    string                    `json:"owner_name"`
	State        registry.CertState        `json:"state"`
	Category     string                    `json:"category"`
	Basis        string                    `json:"verification_basis"`
	Verification string                    `json:"verification_id"`
	Due          registry.Time             `json:"due_at"`
	Risk         certification.RiskProfile `json:"risk"`

	Until deadline
}

func (v *visit) assessments() error {
	p := assessmentsPage{frame: v.frame("Assessments"), State: v.query("state")}
	states := []string{"", "SelfCertified", "InVerification", "PVT", "ReviewDue"}
	if !slices.Contains(states, p.State) {
		p.State = ""
	}
	m, err := v.get(&p.Items, "/v1/assessments", "state", p.State, "page", v.query("page"), "limit", "25")
	if err != nil {
		return err
	}
	for i := range p.Items {
		p.Items[i].Until = due(p.Items[i].Due, v.now())
	}
	for _, s := range states {
		text := stateWords(s)
		if s == "" {
			text = "All"
		}
		p.Tabs = append(p.Tabs, tabLink{"/console/assessments?" + url.Values{"state": {s}}.Encode(), text, s == p.State})
	}
	p.Pager = v.pager(m)
	return v.show(200, "assessments", p)
}

// assessing is what staff see of a certification beside what its developer does.
type assessing struct {
	Staff         bool
	Risk          *certification.RiskProfile
	Signals       []signal
	Verifications []assurance.Verification
	Services      []serviceOption // that were declared, with their ratings
	Approvable    []string        // of those, what may be approved for production
	MyApprovals   []string        // services whose high rating the person approved itself
}

func (v *visit) assess(p *certificationPage) error {
	a := v.person.Actor
	p.Staff = true
	id := p.C.ProductID
	if a.Has(registry.PermAssessor | registry.PermRegistrar | registry.PermAuditor) {
		p.Risk = &certification.RiskProfile{}
		if _, err := v.get(p.Risk, api("products", id, "risk")); err != nil {
			return err
		}
	}
	if a.Has(registry.PermAssessor | registry.PermRegistrar) {
		if _, err := v.get(&p.Signals, api("entities", p.C.Case.Owner.String(), "signals"), "limit", "50"); err != nil {
			return err
		}
	}
	if _, err := v.get(&p.Verifications, "/v1/verifications", "product_id", id, "limit", "50"); err != nil {
		return err
	}
	slices.SortStableFunc(p.Verifications, func(a, b assurance.Verification) int { return int(b.Opened/1000) - int(a.Opened/1000) })
	all, err := v.services(p.C.Case.Deployment.Services)
	if err != nil {
		return err
	}
	p.Services = slices.DeleteFunc(all, func(s serviceOption) bool { return !s.Chosen })
	for _, h := range p.C.Case.HighRisk {
		if h.By == a.Name {
			p.MyApprovals = append(p.MyApprovals, h.Service)
		}
	}
	p.Approvable = p.C.Case.Deployment.Services
	if p.C.Case.Pilot != nil {
		p.Approvable = p.C.Case.Pilot.Services
	}
	return nil
}

// Requests are the exceptions, with whether the person may approve them.
func (p certificationPage) Requests() (out []exceptionRow) {
	for _, e := range p.C.Case.Exceptions {
		out = append(out, exceptionRow{e, p.C.May("approve-exception") && e.ApprovedBy == "" && e.RequestedBy != p.Person.Actor.Name, registry.At(e.Expires)})
	}
	return out
}

type exceptionRow struct {
	certification.Exception
	Approve bool
	Until   registry.Time
}

// assessment reads an assessor's command on a certification; nil for none.
func (v *visit) assessment(command string, at map[string]place) (map[string]any, *problem) {
	body := map[string]any{"reason": v.form("reason")}
	if s := v.forms("service"); len(s) > 0 {
		body["services"] = s
	}
	switch command {
	case "approve-exception":
		body["requirement"] = v.form("requirement")
	case "start-verification":
		if r := v.forms("requirement"); len(r) > 0 {
			body["requirements"] = r
		}
	case "approve-high-risk", "approve":
	case "pilot":
		at["/named_clients"], at["/until"] = place{"pilot-clients", "Named clients"}, place{"pilot-until", "Until"}
		var clients []registry.ABN
		for _, s := range strings.FieldsFunc(v.form("clients"), func(c rune) bool { return c == ',' || c == ';' || c == '\n' || c == '\r' }) {
			if s = strings.TrimSpace(s); s == "" {
				continue
			}
			abn, err := registry.ParseABN(s)
			if err != nil {
				return nil, &problem{"Named clients: write ABNs of 11 digits, one a line or separated by commas.", "pilot-clients"}
			}
			clients = append(clients, abn)
		}
		if len(clients) == 0 || len(clients) > 5 {
			return nil, &problem{"Named clients: name 1 to 5.", "pilot-clients"}
		}
		body["named_clients"] = clients
		until, wrong := v.date("until", "Until")
		if wrong != nil {
			wrong.Field = "pilot-until"
			return nil, wrong
		}
		if until.Set() {
			body["until"] = until
		}
	case "interim":
		at["/owed"], at["/basis"] = place{"interim-owed", "Owed"}, place{"interim-basis", "Basis"}
		body["basis"], body["owed"] = v.form("basis"), v.list("owed")
	case "restrict":
		at["/max_risk"], at["/remove"] = place{"restrict-risk", "Highest rating left"}, place{"restrict-risk", "Services"}
		delete(body, "services")
		if n, err := strconv.ParseUint(v.form("max_risk"), 10, 8); err == nil && n > 0 {
			body["max_risk"] = n
		}
		if s := v.forms("remove"); len(s) > 0 {
			body["remove"] = s
		}
	case "announce-suspension":
		at["/effective_at"] = place{"announce-effective", "Takes effect"}
		when, wrong := v.date("effective", "Takes effect")
		if wrong != nil {
			wrong.Field = "announce-effective"
			return nil, wrong
		}
		if when.Set() {
			body["effective_at"] = when
		}
	default:
		return nil, nil
	}
	return body, nil
}

func (v *visit) raiseFinding() error {
	id := v.r.PathValue("id")
	at := places(map[string]place{"/requirement": {"finding-requirement", "Requirement"}, "/finding": {"finding-text", "What is not met"}, "/severity": {"finding-severity", "Severity"}})
	body := map[string]any{"product_id": id, "requirement": v.form("requirement"), "finding": lines(v.form("finding")), "severity": v.form("severity")}
	return v.command("/v1/findings", body, at, local("certifications", id), func(status int, wrong *problem) error {
		return v.showCertification(status, certificationPage{partPage: partPage{Problem: wrong}})
	})
}

type verificationPage struct {
	frame
	V       assurance.Verification
	ETag    string
	Name    string // of the product
	Tests   []testRow
	Left    int
	May     bool
	Today   string
	Text    string
	Problem *problem
}

// Bad tells whether a field is what is wrong.
func (p verificationPage) Bad(name string) bool { return p.Problem != nil && p.Problem.Field == name }

type testRow struct {
	assurance.Test
	Title  string
	Pieces []assurance.Evidence // that are for this requirement
	Open   bool                 // its form is what was refused
}

func (v *visit) verification() error { return v.showVerification(http.StatusOK, verificationPage{}) }

func (v *visit) showVerification(status int, p verificationPage) (err error) {
	if p.ETag, err = v.getTagged(&p.V, api("verifications", v.r.PathValue("id"))); err != nil {
		return err
	}
	p.frame, p.Today = v.frame("Verification of "+p.V.ProductID), v.now().UTC().Format(time.DateOnly)
	p.May = v.has(registry.PermAssessor) && !p.V.Closed.Set()
	var b bound
	if _, err := v.get(&b, api("products", p.V.ProductID, "requirements")); err != nil {
		return err
	}
	pieces, err := v.pieces(p.V.ProductID)
	if err != nil {
		return err
	}
	for _, x := range p.V.Tests {
		row := testRow{Test: x, Title: x.Requirement, Open: strings.HasPrefix(p.field(), x.Requirement+"-")}
		i := slices.IndexFunc(b.Requirements, func(r binding) bool { return r.ID == x.Requirement })
		if i >= 0 {
			row.Title = b.Requirements[i].Title
		}
		for _, e := range pieces {
			if slices.Contains(e.Requirements, x.Requirement) || len(e.Requirements) == 0 && i >= 0 && slices.Contains(b.Requirements[i].Level.Evidence, e.Type) {
				row.Pieces = append(row.Pieces, e)
			}
		}
		if x.Outcome == "" {
			p.Left++
		}
		p.Tests = append(p.Tests, row)
	}
	return v.show(status, "verification", p)
}

func (p *verificationPage) field() string {
	if p.Problem == nil {
		return ""
	}
	return p.Problem.Field
}

func (v *visit) verificationCommand() error {
	id, command := v.r.PathValue("id"), v.r.PathValue("command")
	page := verificationPage{}
	again := func(status int, wrong *problem) error { page.Problem = wrong; return v.showVerification(status, page) }
	to := local("verifications", id)
	var body map[string]any
	at := map[string]place{}
	switch command {
	case "tests":
		r := v.form("requirement")
		for pointer, x := range map[string]place{"/method": {"method", "How"}, "/outcome": {"outcome", "Outcome"}, "/note": {"note", "Note"}, "/finding": {"finding", "What the developer is told"}, "/severity": {"severity", "Severity"}, "/due_at": {"due", "Due"}, "/evidence": {"method", "Evidence"}} {
			at[pointer] = place{r + "-" + x.id, x.label}
		}
		body = map[string]any{"requirement": r, "method": v.form("method"), "outcome": v.form("outcome"), "note": lines(v.form("note")), "evidence": v.forms("evidence")}
		if body["outcome"] == "fail" {
			body["finding"], body["severity"] = lines(v.form("finding")), v.form("severity")
			until, wrong := v.date("due", "Due")
			if wrong != nil {
				wrong.Field = r + "-due"
				return again(http.StatusUnprocessableEntity, wrong)
			}
			if until.Set() {
				body["due_at"] = until
			}
		}
		to += "#t-" + url.PathEscape(r)
	case "close":
		at["/summary"] = place{"summary", "Summary"}
		page.Text = lines(v.form("summary"))
		body = map[string]any{"summary": page.Text}
	default:
		return &apiError{Status: http.StatusNotFound, Detail: "There is no such page."}
	}
	return v.command(api("verifications", id, command), body, places(at), to, again)
}

type drawSummary struct {
	Period     string        `json:"period"`
	Commitment string        `json:"commitment"`
	Committed  registry.Time `json:"committed_at"`
	Drawn      registry.Time `json:"drawn_at"`
	Candidates uint64        `json:"candidates"`
	Selected   uint64        `json:"selected"`
	Document   string        `json:"document"`
	Opened     bool          `json:"verifications_opened"`
}

type drawsPage struct {
	frame
	Items   []drawSummary
	May     bool
	Period  string
	Problem *problem
}

// Bad tells whether a field is what is wrong.
func (p drawsPage) Bad(name string) bool { return p.Problem != nil && p.Problem.Field == name }

func (v *visit) draws() error {
	return v.showDraws(http.StatusOK, drawsPage{Period: v.now().UTC().Format("2006")})
}

func (v *visit) showDraws(status int, p drawsPage) error {
	p.frame, p.May = v.frame("Draws"), v.has(registry.PermAssessor)
	if _, err := v.get(&p.Items, "/v1/draws", "limit", "100"); err != nil {
		return err
	}
	slices.Reverse(p.Items)
	return v.show(status, "draws", p)
}

func (v *visit) commitDraw() error {
	period := v.form("period")
	at := places(map[string]place{"/period": {"period", "Period"}})
	return v.command("/v1/draws", map[string]any{"period": period}, at, local("draws", period), func(status int, wrong *problem) error {
		return v.showDraws(status, drawsPage{Period: period, Problem: wrong})
	})
}

type drawPage struct {
	frame
	D        drawSummary
	Result   *certification.Draw
	Selected []certification.Drawn // the first of them
	Counts   []gapCount
	More     int
	Wrong    string // what does not agree, computed again
	Checked  bool
	May      bool
	Problem  *problem
}

const (
	drawBytesMax = 64 << 20
	drawRowsMax  = 200
)

func (v *visit) draw() error { return v.showDraw(http.StatusOK, nil) }

func (v *visit) showDraw(status int, wrong *problem) error {
	p := drawPage{May: v.has(registry.PermAssessor), Problem: wrong}
	period := v.r.PathValue("period")
	if _, err := v.get(&p.D, api("draws", period)); err != nil {
		return err
	}
	p.frame = v.frame("Draw of " + p.D.Period)
	if p.D.Drawn.Set() {
		if err := v.drawAgain(&p); err != nil {
			return err
		}
	}
	return v.show(status, "draw", p)
}

// drawAgain computes a draw from its published document.
func (v *visit) drawAgain(p *drawPage) error {
	req, err := v.to(v.r.Context(), request{method: http.MethodGet, path: api("draws", p.D.Period, "document")})
	if err != nil {
		return err
	}
	h := &head{reply: reply{header: http.Header{}}, most: drawBytesMax}
	v.c.cfg.API.ServeHTTP(h, req)
	if h.status != http.StatusOK {
		_, err := h.read(http.MethodGet, nil)
		return err
	}
	if h.more {
		return nil // too large to be computed for a page; the command does
	}
	var d certification.Draw
	if err := json.Unmarshal(h.body.Bytes(), &d); err != nil {
		p.Checked, p.Wrong = true, "The published document cannot be read."
		return nil
	}
	p.Checked, p.Result = true, &d
	if err := d.Verify(p.D.Commitment); err != nil {
		p.Wrong = sentence(err.Error())
	}
	selected := d.Selected()
	p.Selected = selected[:min(len(selected), drawRowsMax)]
	p.More = len(selected) - len(p.Selected)
	counts := map[certification.Basis]int{}
	for _, s := range selected {
		counts[s.Basis]++
	}
	for _, b := range []certification.Basis{certification.ByIncident, certification.ByCategory, certification.ByFirstTime, certification.ByDraw, certification.ByRank} {
		p.Counts = append(p.Counts, gapCount{string(b), counts[b]})
	}
	return nil
}

func (v *visit) makeDraw() error {
	period := v.r.PathValue("period")
	return v.command(api("draws", period, "draw"), map[string]any{}, places(nil), local("draws", period), v.showDraw)
}
