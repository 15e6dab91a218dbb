package control

import (
	"errors"
	"fmt"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// assuranceRoutes are the part of the API that package assurance answers. They
// are there also without a Desk, and then answer 404: the description of the API
// does not depend on the configuration.
func (s *server) assuranceRoutes() []route {
	const (
		assessor  = registry.PermAssessor
		keepers   = registry.PermAssessor | registry.PermRegistrar
		onlookers = keepers | registry.PermAuditor
		stoppers  = registry.PermOperator | registry.PermIncidentOfficer
	)
	product := func(rt route) route { return rt.about(registry.KindProduct, "id") }
	return []route{
		get("/v1/role-matrix", "get-role-matrix", "Who registers and who self-certifies, in each deployment scenario.", s.roleMatrix).givesPlain(roleMatrixView{}).missing(),
		get("/v1/requirements", "list-requirements", "The requirement catalogue in force, or the version named.", s.listRequirements).listsPlain(requirementView{}).filters("catalogue", "subject_kind").missing(),
		product(get("/v1/products/{id}/requirements", "get-product-requirements", "What binds a product, why, and how to meet it; and what each party that delivers it owes.", s.productRequirements).givesPlain(boundView{})),
		product(get("/v1/products/{id}/risk", "get-product-risk", "A product's risk profile, each contribution shown.", s.productRisk).givesPlain(certification.RiskProfile{})).by(onlookers),
		get("/v1/entities/{abn}/signals", "list-signals", "What an entity shares with others: evidence or a contact.", s.listSignals).listsPlain(assurance.Signal{}).about(registry.KindEntity, "abn").by(keepers).tells("signals"),
		get("/v1/assessments", "list-assessments", "What waits for an assessor, the riskiest first.", s.listAssessments).listsPlain(assessmentView{}).by(onlookers).filters("state").missing(),
		get("/v1/standards", "list-standards", "The standards that can be compared.", s.listStandards).listsPlain(certification.Standard{}).missing(),
		get("/v1/gap-analyses", "get-gap-analysis", "How far what is shown under one standard serves for another.", s.gapAnalysis).givesPlain(certification.Gap{}).filters("wanted", "given").missing(),

		get("/v1/evidence", "list-evidence", "Evidence, by ID.", s.listEvidence).lists(assurance.Evidence{}).filters("product_id", "owner", "requirement", "type").missing().tells("evidence"),
		get("/v1/evidence/{id}", "get-evidence", "One piece of evidence, without its content.", s.getEvidence).gives(assurance.Evidence{}).tells("evidence"),
		get("/v1/evidence/{id}/content", "get-evidence-content", "What a piece of evidence holds.", s.evidenceContent).sends("*/*").tells("evidence"),
		product(post("/v1/products/{id}/evidence", "submit-evidence", "Hand evidence in: the body is the file.", handler{call: s.submitEvidence}).gives(assurance.Evidence{})).by(keepers|registry.PermDeveloper).filters("type", "requirements", "issued_at", "expires_at", "note").takes().creating(),
		post("/v1/evidence/{id}/approve", "approve-evidence", "Accept evidence; not the one who handed it in.", with(s, s.approveEvidence)).gives(assurance.Evidence{}).by(assessor).lenient(),

		get("/v1/verifications", "list-verifications", "Verifications, by ID.", s.listVerifications).lists(assurance.Verification{}).filters("product_id", "owner", "state", "period").missing(),
		post("/v1/verifications", "open-verification", "Open a verification of named requirements, or of all that apply.", with(s, s.openVerification)).gives(assurance.Verification{}).by(assessor).creating(),
		get("/v1/verifications/{id}", "get-verification", "One verification.", s.getVerification).gives(assurance.Verification{}),
		post("/v1/verifications/{id}/tests", "record-test", "Record what came of one test; a fail makes a finding.", with(s, s.recordTest)).gives(assurance.Verification{}).by(assessor).matching(),
		post("/v1/verifications/{id}/close", "close-verification", "Close a verification whose tests are all done.", with(s, s.closeVerification)).gives(assurance.Verification{}).by(assessor).matching(),

		get("/v1/findings", "list-findings", "Findings, by ID.", s.listFindings).lists(assurance.Finding{}).filters("product_id", "owner", "state", "severity", "overdue").missing(),
		post("/v1/findings", "raise-finding", "Raise a finding of a product.", with(s, s.raiseFinding)).gives(assurance.Finding{}).by(assessor).creating(),
		get("/v1/findings/{id}", "get-finding", "One finding.", s.getFinding).gives(assurance.Finding{}),
		post("/v1/findings/{id}/answer", "answer-finding", "Say that it is mended, and show it.", with(s, s.answerFinding)).gives(assurance.Finding{}).by(registry.PermDeveloper).matching(),
		post("/v1/findings/{id}/close", "close-finding", "Close a finding that is mended; not the one who answered it.", with(s, s.closeFinding)).gives(assurance.Finding{}).by(assessor).matching(),
		post("/v1/findings/{id}/reopen", "reopen-finding", "Send an answer back.", with(s, s.reopenFinding)).gives(assurance.Finding{}).by(assessor).matching(),

		get("/v1/draws", "list-draws", "Draws by period, each with the commitment to its seed.", s.listDraws).listsPlain(drawView{}).open().missing(),
		post("/v1/draws", "commit-draw", "Commit to the seed of a period's draw.", with(s, s.commitDraw)).gives(drawView{}).by(assessor).creating(),
		get("/v1/draws/{period}", "get-draw", "A period's draw: its commitment, and what came of it.", s.getDraw).givesPlain(drawView{}).open(),
		get("/v1/draws/{period}/document", "get-draw-document", "The published draw: seed, list and outcome, to be computed again by anybody.", s.drawDocument).open().sends("application/json"),
		post("/v1/draws/{period}/draw", "draw", "Make the draw, publish it, and open the verifications.", with(s, s.draw)).gives(drawView{}).by(assessor).optionally(),

		get("/v1/add-ons", "list-add-ons", "Declared add-ons, by ID.", s.listAddOns).lists(addOnView{}).filters("product_id", "owner", "listed", "word").missing().tells("contacts"),
		post("/v1/add-ons", "declare-add-on", "Declare an add-on that uses a product's API.", with(s, s.declareAddOn)).gives(addOnView{}).by(keepers | registry.PermDeveloper).creating(),
		get("/v1/add-ons/{id}", "get-add-on", "One add-on, with what it owes.", s.getAddOn).gives(addOnView{}).tells("contact"),
		put("/v1/add-ons/{id}", "change-add-on", "Change what is declared of an add-on.", with(s, s.changeAddOn)).gives(addOnView{}).by(keepers | registry.PermDeveloper),
		del("/v1/add-ons/{id}", "remove-add-on", "Take an add-on off the list; its record stays.", s.removeAddOn).gives(addOnView{}).by(keepers | registry.PermDeveloper),
		post("/v1/add-ons/{id}/suspend", "suspend-add-on", "Suspend every subscription through which an add-on reaches the agency.", with(s, s.suspendAddOn)).givesPlain([]assurance.Stopped{}).by(stoppers),

		product(get("/v1/products/{id}/ecosystem", "get-ecosystem", "The questionnaire about a product's ecosystem, as answered so far.", s.getEcosystem).givesPlain(markingView{})),
		product(put("/v1/products/{id}/ecosystem/answers/{question}", "answer-ecosystem", "Answer one question about a product's ecosystem.", with(s, s.answerEcosystem)).givesPlain(markingView{})).by(keepers | registry.PermDeveloper),
		get("/v1/threat-analyses", "list-threat-analyses", "Threat analyses, by ID.", s.listThreats).lists(threatView{}).filters("product_id", "owner").missing(),
		post("/v1/threat-analyses", "submit-threat-analysis", "Hand a threat analysis in.", with(s, s.submitThreats)).gives(threatView{}).by(keepers | registry.PermDeveloper).creating(),
		get("/v1/threat-analyses/{id}", "get-threat-analysis", "One threat analysis, the worst threats first.", s.getThreats).gives(threatView{}),

		post("/v1/imports", "import-products", "Import a product register: the body is the file, the answer a line for each of its lines.", handler{call: s.importProducts}).takes().sends("application/x-ndjson").by(registry.PermRegistrar).filters("format", "dry_run", "from_line"),
		get("/v1/exports/products", "export-products", "The products that you may know of, as an import takes them.", s.exportProducts).sends("*/*").filters("format").tells("contacts"),
		get("/v1/register.csv", "get-register-csv", "The public register as CSV.", s.registerCSV).sends("text/csv").open(),
		get("/v1/register.atom", "get-register-feed", "The public register as an Atom feed, the latest changes first.", s.registerFeed).sends("application/atom+xml").open(),

		get("/v1/reports", "list-reports", "Reports of the automated checks, by ID.", s.listReports).lists(assurance.Report{}).filters("product_id", "owner").missing(),
		get("/v1/reports/{id}", "get-report", "One report.", s.getReport).gives(assurance.Report{}),
		product(post("/v1/products/{id}/reports", "run-checks", "Run the automated checks against the declared addresses.", with(s, s.runChecks)).gives(assurance.Report{})).by(assessor).creating(),
	}
}

var errNoCasework = fmt.Errorf("%w: this control plane keeps no casework", registry.ErrNotFound)

// desk is the Desk and the casework to read, both at once or neither.
func (s *server) desk() (*assurance.Desk, *registry.Casebook, error) {
	if s.assurance == nil {
		return nil, nil, errNoCasework
	}
	book, err := s.reg.Casebook()
	return s.assurance, book, err
}

// onCase runs a command on the case that the path names, under its precondition,
// and renders what it made of it.
func onCase[T registry.CaseBody](s *server, c *call, reason string, do func(d *assurance.Desk, id string, m registry.Meta) (*registry.Case[T], bool, error)) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(reason)
	if err != nil {
		return answer{}, err
	}
	x, existing, err := do(d, c.path("id"), m)
	return caseDone(x, existing, err, found, showCase)
}

// cases is one page of the cases of a kind. A developer sees its own entity's;
// names are the filters that are indexes as well, beside owner.
func cases[T registry.CaseBody](c *call, book *registry.Casebook, show func(*registry.Case[T]) any, names ...string) (answer, error) {
	var zero T
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	q := registry.Query{Kind: string(zero.CaseKind()), Offset: int((page - 1) * limit), Limit: int(limit)}
	owner, byOwner, err := c.filterABN("owner")
	if err != nil {
		return answer{}, err
	}
	if !c.actor.Staff() {
		if byOwner && owner != c.actor.Entity || c.actor.Entity == 0 {
			return answer{data: []any{}, page: c.pageInfo(page, limit, 0)}, nil
		}
		owner, byOwner = c.actor.Entity, true
	}
	if byOwner {
		q.Where = append(q.Where, registry.Where{Index: "owner", Value: owner.String()})
	}
	for _, name := range names {
		v, ok, err := c.filterWord(name)
		if err != nil {
			return answer{}, err
		}
		if ok {
			q.Where = append(q.Where, registry.Where{Index: name, Value: v})
		}
	}
	ids, total := book.Find(q)
	return caseList(c, book, ids, total, page, limit, show)
}

func caseList[T registry.CaseBody](c *call, book *registry.Casebook, ids []string, total int, page, limit uint64, show func(*registry.Case[T]) any) (answer, error) {
	out := make([]any, 0, len(ids))
	for _, id := range ids {
		x, err := registry.CaseOf[T](book, id)
		if err != nil {
			return answer{}, err
		}
		out = append(out, show(x))
	}
	return answer{data: out, page: c.pageInfo(page, limit, uint64(total))}, nil
}

// showCase renders a case as it is stored.
func showCase[T registry.CaseBody](x *registry.Case[T]) any { return record{&x.Body, x.Revision} }

// oneCase renders what a read found.
func oneCase[T registry.CaseBody](x *registry.Case[T], err error, show func(*registry.Case[T]) any) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return answer{data: show(x), rev: x.Revision}, nil
}

// caseDone renders what a command made of a case.
func caseDone[T registry.CaseBody](x *registry.Case[T], existing bool, err error, done outcome, show func(*registry.Case[T]) any) (answer, error) {
	if x == nil {
		if err == nil {
			err = errors.New("a command wrote no case")
		}
		return answer{}, err
	}
	a := answer{outcome: done, data: show(x), rev: x.Revision}
	if existing {
		a.outcome = already
	}
	if err != nil {
		return answer{}, &committedError{a.data, err}
	}
	return a, nil
}

// roleMatrixView is the matrix with the open question that it leaves.
type roleMatrixView struct {
	Version string    `json:"version"`
	Rows    []rowView `json:"rows"`
	// CloudProviderRegisters is how the open question of row 6 is configured.
	CloudProviderRegisters bool `json:"cloud_provider_registers" doc:"Whether the third party's cloud provider of scenario 6 is entered in the register."`
}

type rowView struct {
	Scenario uint8              `json:"scenario"`
	Title    string             `json:"title"`
	Delivery string             `json:"delivery"`
	D        certification.Cell `json:"D"`
	SP       certification.Cell `json:"SP"`
	CP       certification.Cell `json:"CP"`
	IHD      certification.Cell `json:"IHD"`
}

func (s *server) roleMatrix(*call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	m := &d.Rules().Matrix
	v := roleMatrixView{Version: m.Version, CloudProviderRegisters: d.Rules().Open.CloudProviderRegisters}
	for _, r := range m.Rows {
		v.Rows = append(v.Rows, rowView{r.Scenario, r.Title, r.Delivery, r.Cells[certification.Developer], r.Cells[certification.ServiceProvider], r.Cells[certification.CloudProvider], r.Cells[certification.InHouse]})
	}
	return answer{data: v}, nil
}

// requirementView is a requirement for people.
type requirementView struct {
	ID          string                `json:"id"`
	Catalogue   string                `json:"catalogue"`
	Title       string                `json:"title"`
	Revision    uint64                `json:"requirement_revision"`
	Subject     certification.Subject `json:"subject" doc:"entity: shown once when registering; product: shown for each product."`
	Bearers     []certification.Role  `json:"bearers" doc:"The roles whose entity does what is asked; empty for all."`
	Levels      []levelView           `json:"levels" doc:"The first that fits a product binds it."`
	How         []string              `json:"how" doc:"How to meet it, step by step."`
	ISO         []string              `json:"iso"`
	Sources     []string              `json:"sources"`
	Unpublished bool                  `json:"detail_unpublished" doc:"The title is published, the detail was not found: the text is a proposal."`
}

type levelView struct {
	When      string                       `json:"when" doc:"Which products, in words."`
	Strength  certification.Strength       `json:"strength"`
	Minimum   string                       `json:"minimum"`
	Guideline string                       `json:"guideline,omitempty"`
	Evidence  []certification.EvidenceType `json:"evidence" doc:"One of these is enough."`
}

func viewLevel(l *certification.Level) levelView {
	return levelView{When: l.When.String(), Strength: l.Strength, Minimum: l.Minimum, Guideline: l.Guideline, Evidence: l.Evidence}
}

func viewRequirement(catalogue string, r *certification.Requirement) requirementView {
	v := requirementView{
		ID: r.ID, Catalogue: catalogue, Title: r.Title, Revision: uint64(r.Revision), Subject: r.Subject, Bearers: some(r.Bearers), Levels: []levelView{},
		How: r.How, ISO: some(r.ISO), Sources: r.Sources, Unpublished: r.Unpublished,
	}
	for i := range r.Levels {
		v.Levels = append(v.Levels, viewLevel(&r.Levels[i]))
	}
	return v
}

// some is a list that is never null.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (s *server) listRequirements(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	catalogue := d.Rules().InForce(s.now())
	if version, ok := c.filter("catalogue"); ok {
		if catalogue = d.Rules().Catalogue(version); catalogue == nil {
			return answer{}, wrongParam("catalogue", "there is no catalogue of that version")
		}
	}
	kind, byKind, err := c.filterWord("subject_kind")
	if err != nil {
		return answer{}, err
	}
	var all []requirementView
	for i := range catalogue.Requirements {
		if r := &catalogue.Requirements[i]; !byKind || string(r.Subject) == kind {
			all = append(all, viewRequirement(catalogue.Version, r))
		}
	}
	return paged(c, all, nil, func(v requirementView) any { return v })
}

// boundView is what binds one product.
type boundView struct {
	Catalogue    string                     `json:"catalogue"`
	Category     certification.Category     `json:"category"`
	Because      string                     `json:"category_because"`
	Requirements []bindingView              `json:"requirements"`
	Obligations  []certification.Obligation `json:"obligations"`
	NotComputed  string                     `json:"obligations_missing,omitempty" doc:"Why the chain makes no scenario."`
}

type bindingView struct {
	ID      string                `json:"id"`
	Title   string                `json:"title"`
	Subject certification.Subject `json:"subject"`
	Level   levelView             `json:"level"`
	Because string                `json:"because"`
	How     []string              `json:"how"`
	ISO     []string              `json:"iso"`
}

func (s *server) productRequirements(c *call) (answer, error) {
	d, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	p := book.View.Product(c.path("id"))
	if p == nil {
		return answer{}, notFound(registry.KindProduct, c.path("id"))
	}
	r := d.Requirements(book, p)
	v := boundView{Catalogue: r.Catalogue, Category: r.Category, Because: r.Because, Requirements: []bindingView{}, Obligations: r.Obliged, NotComputed: r.NotComputed}
	for i := range r.Applicable {
		a := &r.Applicable[i]
		v.Requirements = append(v.Requirements, bindingView{a.ID, a.Title, a.Subject, viewLevel(&a.Level), a.Because(), a.How, some(a.ISO)})
	}
	for i := range v.Obligations {
		o := &v.Obligations[i]
		o.Roles, o.Scenarios, o.Reasons = some(o.Roles), some(o.Scenarios), some(o.Reasons)
	}
	return answer{data: v}, nil
}

func (s *server) productRisk(c *call) (answer, error) {
	d, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	p := book.View.Product(c.path("id"))
	if p == nil {
		return answer{}, notFound(registry.KindProduct, c.path("id"))
	}
	r, err := d.RiskProfile(book, p)
	if err != nil {
		return answer{}, err
	}
	return answer{data: *r}, nil
}

func (s *server) listSignals(c *call) (answer, error) {
	d, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	abn, err := c.entityOf()
	if err != nil {
		return answer{}, err
	}
	if book.View.Entity(abn) == nil {
		return answer{}, notFound(registry.KindEntity, abn.String())
	}
	all, err := d.Signals(book, abn)
	if err != nil {
		return answer{}, err
	}
	return paged(c, all, nil, func(x assurance.Signal) any { return x })
}

func (s *server) listStandards(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	return paged(c, d.Rules().Standards.Standards, nil, func(x certification.Standard) any { return x })
}

func (s *server) gapAnalysis(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	wanted, ok := c.filter("wanted")
	if !ok {
		return answer{}, wrongParam("wanted", "name the standard that is to be met, such as SSAM")
	}
	given, ok := c.filter("given")
	if !ok {
		return answer{}, wrongParam("given", "name the standard that is met already, such as OSF")
	}
	g, err := d.Rules().Standards.Compare(wanted, given)
	var f *certification.FieldError
	if errors.As(err, &f) {
		return answer{}, wrongParam(f.Field[1:], "%s", plainText(f.Err))
	}
	if err != nil {
		return answer{}, err
	}
	return answer{data: *g}, nil
}
