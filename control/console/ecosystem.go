package console

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// The ecosystem of a product: the questionnaire that describes it, the threat
// analyses handed in about it, and who owes what in each scenario.

func ecosystemPages(mine routes) {
	mine("GET /console/ecosystem", (*visit).ecosystems)
	mine("GET /console/ecosystem/{id}", (*visit).ecosystem)
	mine("POST /console/ecosystem/{id}", (*visit).answerEcosystem)
	mine("GET /console/threat-analyses", (*visit).threats)
	mine("GET /console/threat-analyses/new", (*visit).threatForm)
	mine("POST /console/threat-analyses", (*visit).submitThreats)
	mine("GET /console/threat-analyses/{id}", (*visit).threatAnalysis)
	mine("GET /console/role-matrix", (*visit).roleMatrix)
}

type ecosystemsPage struct {
	frame
	Items []ecosystemRow
	Staff bool
}

type ecosystemRow struct {
	product
	Marking marking
	Done    int
}

// ecosystemsMax bounds how many questionnaires are looked into for the list.
const ecosystemsMax = 25

func (v *visit) ecosystems() error {
	p := ecosystemsPage{frame: v.frame("Ecosystem"), Staff: v.person.Actor.Staff()}
	if id := v.query("product"); id != "" {
		return v.redirect(local("ecosystem", id))
	}
	if p.Staff {
		return v.show(200, "ecosystems", p)
	}
	all, err := v.ownProducts()
	if err != nil {
		return err
	}
	for _, x := range all[:min(len(all), ecosystemsMax)] {
		row := ecosystemRow{product: x}
		if _, err := v.get(&row.Marking, api("products", x.ID, "ecosystem")); err != nil {
			return err
		}
		for _, q := range row.Marking.Questions {
			if q.Answered {
				row.Done++
			}
		}
		p.Items = append(p.Items, row)
	}
	return v.show(200, "ecosystems", p)
}

type ecosystemPage struct {
	frame
	ID, Name  string
	Marking   marking
	Questions []question
	May       bool
	Counts    []gapCount
	Problem   *problem
}

// Field is a question with whether it may be answered here.
func (p ecosystemPage) Field(q question) answerFields { return q.Fields(p.May) }

func (v *visit) ecosystem() error { return v.showEcosystem(http.StatusOK, nil) }

func (v *visit) showEcosystem(status int, wrong *problem) error {
	id := v.r.PathValue("id")
	var x product
	if _, err := v.get(&x, api("products", id)); err != nil {
		return err
	}
	a := v.person.Actor
	p := ecosystemPage{frame: v.frame("Ecosystem of " + x.Name), ID: x.ID, Name: x.Name, Problem: wrong,
		May: a.Has(keepers) || a.Has(registry.PermDeveloper) && a.Entity == x.Owner}
	if _, err := v.get(&p.Marking, api("products", id, "ecosystem")); err != nil {
		return err
	}
	for _, q := range p.Marking.Questions {
		p.Questions = append(p.Questions, question{asked: q, Wrong: wrong != nil && wrong.Field == q.Anchor()})
	}
	for _, mark := range []string{"pass", "warn", "fail", "open"} {
		p.Counts = append(p.Counts, gapCount{mark, p.Marking.count(mark)})
	}
	return v.show(status, "ecosystem", p)
}

// answerEcosystem saves the answers that changed; what is wrong with one keeps
// none of the others back.
func (v *visit) answerEcosystem() error {
	id := v.r.PathValue("id")
	var m marking
	if _, err := v.get(&m, api("products", id, "ecosystem")); err != nil {
		return err
	}
	var wrong *problem
	status := http.StatusOK
	for _, q := range m.Questions {
		if !slices.Contains(v.forms("q"), q.ID) {
			continue
		}
		values := v.forms("a-" + q.ID)
		for i := range values {
			values[i] = lines(values[i])
		}
		none := q.Kind == string(certification.Choose) && v.form("none-"+q.ID) != ""
		if slices.Equal(values, q.Values) && (q.Answered || !none) || len(values) == 0 && !q.Answered && !none {
			continue
		}
		err := v.send(http.MethodPut, api("products", id, "ecosystem", "answers", q.ID), map[string]any{"values": values, "note": q.Note}, nil)
		var e *apiError
		switch p := problemIn(err, func(string) place { return place{q.Anchor(), q.ID} }); {
		case err == nil || notDurable(err):
		case p != nil && asAPI(err, &e) && e.Status != http.StatusNotFound:
			if wrong == nil {
				wrong, status = p, e.Status
			}
		default:
			return err
		}
	}
	if wrong != nil {
		return v.showEcosystem(status, wrong)
	}
	return v.redirect(local("ecosystem", id))
}

// threatAnalysis is one as the API shows it.
type threatAnalysis struct {
	ID        string                 `json:"id"`
	ProductID string                 `json:"product_id"`
	Owner     registry.ABN           `json:"owner"`
	At        registry.Time          `json:"at"`
	By        string                 `json:"by"`
	Title     string                 `json:"title"`
	Scope     string                 `json:"scope"`
	Method    string                 `json:"method"`
	Threats   []certification.Threat `json:"threats"`
	Evidence  []string               `json:"evidence"`
}

// Worst is the highest exposure there is, 0 to 9.
func (a threatAnalysis) Worst() int {
	if len(a.Threats) == 0 {
		return 0
	}
	return a.Threats[0].Exposure()
}

type threatsPage struct {
	frame
	Product string
	Items   []threatAnalysis
	Pager   pager
	May     bool
}

func (v *visit) threats() error {
	p := threatsPage{frame: v.frame("Threat analyses"), Product: v.query("product"), May: mayDeclare(v.person.Actor)}
	m, err := v.get(&p.Items, "/v1/threat-analyses", "product_id", p.Product, "page", v.query("page"), "limit", "25")
	if err != nil {
		return err
	}
	p.Pager = v.pager(m)
	return v.show(200, "threats", p)
}

type threatPage struct {
	frame
	A      threatAnalysis
	Pieces []assurance.Evidence
}

func (v *visit) threatAnalysis() error {
	p := threatPage{}
	if _, err := v.get(&p.A, api("threat-analyses", v.r.PathValue("id"))); err != nil {
		return err
	}
	p.frame = v.frame(p.A.Title)
	if len(p.A.Evidence) > 0 {
		all, err := v.pieces(p.A.ProductID)
		if err != nil {
			return err
		}
		for _, e := range all {
			if slices.Contains(p.A.Evidence, e.Address) {
				p.Pieces = append(p.Pieces, e)
			}
		}
	}
	return v.show(200, "threat", p)
}

type threatFormPage struct {
	frame
	Product, Name, Scope, Method string
	Rows                         []threatRow
	Pieces                       []assurance.Evidence
	Chosen                       []string
	Products                     []product
	Staff                        bool
	Problem                      *problem
}

// threatRow is one threat as it was typed.
type threatRow struct {
	N int
	certification.Threat
}

// Bad tells whether a field is what is wrong.
func (p threatFormPage) Bad(name string) bool { return p.Problem != nil && p.Problem.Field == name }

// Has tells whether a piece of evidence was chosen.
func (p threatFormPage) Has(address string) bool { return slices.Contains(p.Chosen, address) }

// Rows of the form: at first, and how many more at once.
const (
	threatRows    = 3
	threatRowsMax = 200
)

func (v *visit) threatForm() error {
	return v.showThreatForm(http.StatusOK, threatFormPage{Product: v.query("product"), Rows: make([]threatRow, threatRows)})
}

func (v *visit) showThreatForm(status int, p threatFormPage) (err error) {
	if !mayDeclare(v.person.Actor) {
		return &apiError{Status: http.StatusForbidden, Detail: "Developers hand threat analyses in, and who keeps the register"}
	}
	p.frame, p.Staff = v.frame("Hand a threat analysis in"), v.person.Actor.Staff()
	if !p.Staff {
		if p.Products, err = v.ownProducts(); err != nil {
			return err
		}
		if p.Product == "" && len(p.Products) > 0 {
			p.Product = p.Products[0].ID
		}
	}
	if p.Product != "" {
		if p.Pieces, err = v.pieces(p.Product); err != nil {
			return err
		}
	}
	for i := range p.Rows {
		p.Rows[i].N = i
	}
	return v.show(status, "threatform", p)
}

func (v *visit) submitThreats() error {
	p := threatFormPage{Product: v.form("product"), Name: v.form("title"), Scope: lines(v.form("scope")), Method: v.form("method"), Chosen: v.forms("evidence")}
	sent := []certification.Threat{}
	var at []int // the row of each that is sent
	for i := range threatRowsMax {
		field := func(name string) string { return lines(v.form(fmt.Sprintf("threat-%d-%s", i, name))) }
		if !v.r.PostForm.Has(fmt.Sprintf("threat-%d-title", i)) {
			break
		}
		t := certification.Threat{Title: field("title"), Scenario: field("scenario"), Likelihood: field("likelihood"), Impact: field("impact"), Treatment: field("treatment"), Control: field("control")}
		p.Rows = append(p.Rows, threatRow{i, t})
		if t.Title != "" || t.Scenario != "" || t.Control != "" {
			sent, at = append(sent, t), append(at, i)
		}
	}
	if v.form("more") != "" {
		p.Rows = append(p.Rows, make([]threatRow, min(threatRows, threatRowsMax-len(p.Rows)))...)
		return v.showThreatForm(http.StatusOK, p)
	}
	body := map[string]any{"product_id": p.Product, "title": p.Name, "scope": p.Scope, "method": p.Method, "threats": sent, "evidence": p.Chosen}
	return v.command("/v1/threat-analyses", body, func(pointer string) place { return threatPlace(pointer, at) }, "/console/threat-analyses", func(status int, wrong *problem) error {
		p.Problem = wrong
		return v.showThreatForm(status, p)
	})
}

// threatPlace finds the field of the form; at is the row of each threat sent.
func threatPlace(pointer string, at []int) place {
	var i int
	var what string
	if n, _ := fmt.Sscanf(strings.ReplaceAll(pointer, "/", " "), " threats %d %s", &i, &what); n == 2 && i >= 0 && i < len(at) {
		return place{fmt.Sprintf("threat-%d-%s", at[i], what), fmt.Sprintf("Threat %d, %s", at[i]+1, what)}
	}
	return places(map[string]place{
		"/product_id": {"product", "Product"}, "/title": {"title", "Title"}, "/scope": {"scope", "What it covers"}, "/method": {"method", "Method"},
		"/threats": {"threat-0-title", "Threats"}, "/evidence": {"title", "Evidence"},
	})(pointer)
}

type roleMatrixPage struct {
	frame
	Matrix struct {
		Version string      `json:"version"`
		Rows    []matrixRow `json:"rows"`
		Cloud   bool        `json:"cloud_provider_registers"`
	}
}

type matrixRow struct {
	Scenario uint8              `json:"scenario"`
	Title    string             `json:"title"`
	Delivery string             `json:"delivery"`
	D        certification.Cell `json:"D"`
	SP       certification.Cell `json:"SP"`
	CP       certification.Cell `json:"CP"`
	IHD      certification.Cell `json:"IHD"`
}

// cellWords say what a role owes in a scenario.
func cellWords(c certification.Cell) string {
	switch c {
	case certification.Certifies:
		return "registers and self-certifies"
	case certification.Covered:
		return "covered by another of the row"
	case certification.Meets:
		return "meets the requirements, certifies nothing"
	}
	return "–"
}

func (v *visit) roleMatrix() error {
	p := roleMatrixPage{frame: v.frame("Who owes what")}
	if _, err := v.get(&p.Matrix, "/v1/role-matrix"); err != nil {
		return err
	}
	return v.show(200, "rolematrix", p)
}
