package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
)

// caseworkRoutes are the workflows of registration and certification. No route
// sets a state: each is a command, which leads where it leads.
func (s *server) caseworkRoutes() []route {
	const (
		registrar = registry.PermRegistrar
		assessor  = registry.PermAssessor
		developer = registry.PermDeveloper
		own       = registrar | developer
	)
	reg := func(name, id, summary string, h handler) route {
		return post("/v1/registrations/{abn}/"+name, id, summary, h).givesPlain(registrationView{}).tags().matching()
	}
	cert := func(name, id, summary string, h handler) route {
		return post("/v1/certifications/{id}/"+name, id, summary, h).givesPlain(certificationView{}).tags().about(registry.KindProduct, "id").matching()
	}
	return []route{
		get("/v1/registration-terms", "get-registration-terms", "The terms and the declaration that an applicant accepts.", s.terms).givesPlain(casework.Terms{}).missing(),
		get("/v1/registrations", "list-registrations", "Registrations by ABN, or by whose clock runs, the one that is due first in front.", s.listRegistrations).listsPlain(registrationView{}).filters("q", "clock").missing().tells("registrations").byNewcomers(),
		post("/v1/registrations", "apply", "Begin an application for an ABN.", with(s, s.apply)).givesPlain(registrationView{}).tags().by(own).creating().byNewcomers(),
		get("/v1/registrations/{abn}", "get-registration", "One registration: its case, its clocks, and what may be done next.", s.getRegistration).givesPlain(registrationView{}).tags().missing().tells("registration").byNewcomers(),
		put("/v1/registrations/{abn}", "revise-registration", "Replace the form of a draft.", with(s, s.revise)).givesPlain(registrationView{}).tags().by(own).byNewcomers(),
		reg("submit", "submit-registration", "Accept the terms, declare, and hand the draft in.", with(s, s.submitRegistration)).by(own).byNewcomers(),
		reg("withdraw", "withdraw-registration", "Take an application back into a draft.", with(s, s.withdrawApplication)).by(own).optionally().byNewcomers(),
		reg("ask", "ask-applicant", "Ask the applicant something; the agency's clock stops meanwhile.", with(s, s.ask)).by(registrar),
		reg("reply", "reply-to-question", "Answer the oldest open question.", with(s, s.reply)).by(own).byNewcomers(),
		reg("checks", "record-check", "Record the outcome, and only the outcome, of one eligibility check.", with(s, s.recordCheck)).by(registrar),
		reg("admit", "admit", "Register an entity whose checks have passed; its test environments open.", with(s, s.admitEntity)).by(registrar).optionally(),
		reg("reject", "reject", "Reject an application.", with(s, s.reject)).by(registrar),
		reg("changes", "tell-entity-change", "Tell of a change of name, roles, contacts or anything else.", with(s, s.tellChange)).by(own),
		reg("confirm-changes", "confirm-entity-changes", "Put the changes that were told into the register.", with(s, s.confirmChange)).by(registrar).optionally(),
		reg("answer-review", "answer-entity-review", "Say that what is registered is still so.", with(s, s.answerReview)).by(own),
		reg("accept-terms", "accept-terms", "Accept the terms in force, which a new version asks for.", with(s, s.acceptTerms)).by(own),
		post("/v1/registrations/{abn}/products", "add-product", "Enter another product of a registered entity, as a Draft with its test environments open.", with(s, s.addProduct)).gives(registry.Product{}).by(own).creating().matching(),
		reg("test-environments", "open-test", "Open the test environments of a product that was entered without: a client app in each, and the services there.", with(s, s.openTest)).by(own),
		reg("cancel", "cancel-entity", "End an entity, and all that is under it, for good; done when a second registrar says so too.", with(s, s.cancelEntity)).by(registrar),

		get("/v1/certifications", "list-certifications", "Certifications that were begun, by Product ID.", s.listCertifications).listsPlain(certificationView{}).filters("owner").missing(),
		get("/v1/certifications/{id}", "get-certification-case", "One product's certification: its case, and what may be done next.", s.getCertificationCase).givesPlain(certificationView{}).tags().about(registry.KindProduct, "id"),
		get("/v1/certifications/{id}/questions", "list-questions", "The questions that are asked of a product, each marked as answered so far.", s.questions).givesPlain(markingView{}).about(registry.KindProduct, "id"),
		cert("begin", "begin-certification", "Begin the self-certification of a Draft.", with(s, s.begin)).by(registrar | assessor | developer).optionally(),
		cert("describe", "describe-deployment", "Declare how a Draft is built and run; its category follows.", with(s, s.describe)).by(assessor | developer),
		cert("answers", "answer-questions", "Answer questions; an answer without values takes one back.", with(s, s.answerQuestions)).by(assessor | developer),
		cert("exceptions", "request-exception", "Ask that a requirement may fail, for a time, because of something else.", with(s, s.requestException)).by(assessor | developer),
		cert("approve-exception", "approve-exception", "Approve an exception; not whoever asked for it.", with(s, s.approveException)).by(assessor),
		cert("submit", "submit-certification", "Sign the self-certification.", with(s, s.submitCertification)).by(developer),
		cert("recall", "recall-certification", "Take a self-certification back before it is verified.", with(s, s.recall)).by(developer).optionally(),
		cert("send-back", "send-back-certification", "Give a self-certification back to be mended.", with(s, s.sendBack)).by(assessor),
		cert("start-verification", "start-verification", "Begin to verify a self-certification.", with(s, s.startVerification)).by(assessor).optionally(),
		cert("conformance-runs", "conform", "Record a conformance run in EVTE, judged from the decisions recorded of its calls.", with(s, s.conform)).by(assessor | developer),
		cert("approve-high-risk", "approve-high-risk", "Approve services of a high rating for the pilot; another assessor begins it.", with(s, s.approveHighRisk)).by(assessor),
		cert("pilot", "pilot", "Accept a product into production verification testing, for the clients named.", with(s, s.pilot)).by(assessor),
		cert("scenarios", "pass-scenario", "Record the pilot's scenarios, judged from the decisions recorded of real calls.", with(s, s.passScenario)).by(assessor | developer),
		cert("approve", "approve-certification", "Whitelist a product, per service, until its earliest evidence ends.", with(s, s.approve)).by(assessor).optionally(),
		cert("interim", "approve-interim", "Approve for a time with something still owed.", with(s, s.interim)).by(assessor),
		cert("restrict", "restrict", "Take services from a live product, or cap their rating.", with(s, s.restrict)).by(assessor),
		cert("request-review", "request-review", "Ask for a review out of turn.", with(s, s.requestReview)).by(assessor),
		cert("answer-review", "answer-certification-review", "Answer a review; an assessor then approves again.", with(s, s.answerCertReview)).by(assessor | developer),
		cert("tell-change", "tell-product-change", "Tell of a change in how the product is built, run or used.", with(s, s.tellCertChange)).by(assessor | developer),
		cert("announce-suspension", "announce-suspension", "Announce a suspension, which takes effect by itself unless it is reinstated before.", with(s, s.announceSuspension)).by(assessor),
		cert("reinstate", "reinstate", "End what was announced, suspended or restricted: what stood before stands again.", with(s, s.reinstate)).by(assessor).optionally(),
		cert("delist", "delist", "End a product's certification for good; done when a second assessor says so too.", with(s, s.delist)).by(assessor),
	}
}

// tags: the answer carries an ETag, of the case.
func (rt route) tags() route { rt.tagged = true; return rt }

// registrationView is a registration as its own people and registrars see it;
// other staff see it without what was checked of whom.
type registrationView struct {
	ABN   registry.ABN          `json:"abn"`
	State registry.EntityState  `json:"state"`
	Next  []string              `json:"allowed_next" doc:"The commands that you may give now."`
	Case  casework.Registration `json:"case"`
}

func (s *server) viewRegistration(c *call, v *registry.View, x *registry.Case[casework.Registration]) registrationView {
	out := registrationView{ABN: x.Body.ABN, Case: x.Body}
	if e := v.Entity(x.Body.ABN); e != nil {
		out.State = e.State
	}
	own := !c.actor.Staff()
	out.Next = casework.NextForEntity(c.actor, out.State, own)
	if !s.seesEligibility(c.actor) {
		out.Case.Checks, out.Case.Form.Principals, out.Case.Trigger = nil, nil, ""
		out.Case.Steps = nil
	}
	return out
}

// work is the Desk and the casework to read.
func (s *server) work() (*casework.Desk, *registry.Casebook, error) {
	if s.casework == nil {
		return nil, nil, errNoCasework
	}
	book, err := s.reg.Casebook()
	return s.casework, book, err
}

// registered answers with a registration after a command.
func (s *server) registered(c *call, abn registry.ABN, o registry.Outcome, err error, done outcome) (answer, error) {
	if o.Cases == nil {
		return answer{}, err
	}
	x, cerr := registry.CaseOf[casework.Registration](o.Cases, abn.String())
	if cerr != nil {
		return answer{}, errors.Join(err, cerr)
	}
	a := answer{outcome: done, data: s.viewRegistration(c, o.View, x), rev: x.Revision}
	if err != nil {
		return answer{}, &committedError{a.data, err}
	}
	return a, nil
}

// entityCommand gives one command to the registration that the path names.
func (s *server) entityCommand(c *call, reason string, do func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error)) (answer, error) {
	d, _, err := s.work()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(reason)
	if err != nil {
		return answer{}, err
	}
	nobody := fmt.Errorf("%w: registration %s", registry.ErrNotFound, cut(c.path("abn"), 40))
	abn, err := registry.ParseABN(c.path("abn"))
	if err != nil {
		return answer{}, nobody
	}
	o, err := do(c.r.Context(), d, abn, m)
	if errors.Is(err, registry.ErrNotFound) { // in the same words, whether there is one or not
		return answer{}, nobody
	}
	return s.registered(c, abn, o, err, found)
}

func (s *server) terms(*call) (answer, error) {
	if s.casework == nil {
		return answer{}, errNoCasework
	}
	return answer{data: s.casework.Terms()}, nil
}

func (s *server) listRegistrations(c *call) (answer, error) {
	_, book, err := s.work()
	if err != nil {
		return answer{}, err
	}
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	q := registry.Query{Kind: "registration", Offset: int((page - 1) * limit), Limit: int(limit)}
	if text, ok := c.filter("q"); ok {
		registry.Words(text, func(w string) { q.Where = append(q.Where, registry.Where{Index: "word", Value: w}) })
		if len(q.Where) == 0 {
			return answer{}, wrongParam("q", "write a word or two")
		}
	}
	on, ok, err := c.filterWord("clock")
	if err != nil {
		return answer{}, err
	}
	if ok { // the first decides the order: by its values from the least there is
		q.Where, q.From = slices.Insert(q.Where, 0, registry.Where{Index: casework.ClockIndex(on)}), "0"
	}
	if !c.actor.Staff() {
		q.Where = append(q.Where, registry.Where{Index: "applied_by", Value: c.actor.Name})
		if c.actor.Entity != 0 {
			q.Where = slices.Replace(q.Where, len(q.Where)-1, len(q.Where), registry.Where{Index: "word", Value: c.actor.Entity.String()})
		}
	}
	ids, total := book.Find(q)
	out := make([]any, 0, len(ids))
	for _, id := range ids {
		x, err := registry.CaseOf[casework.Registration](book, id)
		if err != nil {
			return answer{}, err
		}
		if casework.MaySee(c.actor, &x.Body) {
			out = append(out, s.viewRegistration(c, book.View, x))
		} else {
			total--
		}
	}
	return answer{data: out, page: c.pageInfo(page, limit, uint64(max(total, 0)))}, nil
}

func (s *server) getRegistration(c *call) (answer, error) {
	_, book, err := s.work()
	if err != nil {
		return answer{}, err
	}
	abn, err := registry.ParseABN(c.path("abn"))
	if err == nil {
		var x *registry.Case[casework.Registration]
		if x, err = casework.RegistrationOf(book, abn); err == nil && casework.MaySee(c.actor, &x.Body) {
			return answer{data: s.viewRegistration(c, book.View, x), rev: x.Revision}, nil
		}
	}
	if err == nil || errors.Is(err, registry.ErrNotFound) || errors.Is(err, registry.ErrInvalid) {
		err = fmt.Errorf("%w: registration %s", registry.ErrNotFound, cut(c.path("abn"), 40))
	}
	return answer{}, err
}

type applyBody struct {
	ABN    registry.ABN  `json:"abn"`
	Form   casework.Form `json:"form"`
	Reason string        `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) apply(c *call, in *applyBody) (answer, error) {
	d, _, err := s.work()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	o, err := d.Apply(c.r.Context(), c.actor, in.ABN, in.Form, m)
	return s.registered(c, in.ABN, o, under("/form", err), created)
}

// under puts the name of a member in front of a field's pointer.
func under(member string, err error) error {
	var f *registry.FieldError
	if errors.As(err, &f) && !strings.HasPrefix(f.Field, "/abn") {
		return &registry.FieldError{Field: member + f.Field, Err: f.Err}
	}
	return err
}

type formBody struct {
	Form   casework.Form `json:"form"`
	Reason string        `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) revise(c *call, in *formBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		o, err := d.Revise(ctx, c.actor, abn, in.Form, m)
		return o, under("/form", err)
	})
}

type submitBody struct {
	Terms  string `json:"terms_version" minLength:"1" maxLength:"40" doc:"The version accepted; it must be the one in force."`
	Name   string `json:"name" minLength:"1" maxLength:"200" doc:"Who accepts and declares."`
	Reason string `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) submitRegistration(c *call, in *submitBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.Submit(ctx, c.actor, abn, casework.Acceptance{Version: in.Terms, Name: in.Name}, m)
	})
}

type reasonBody struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) withdrawApplication(c *call, in *reasonBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.Withdraw(ctx, c.actor, abn, m)
	})
}

type askBody struct {
	Question string `json:"question" minLength:"1" maxLength:"4000"`
}

func (s *server) ask(c *call, in *askBody) (answer, error) {
	return s.entityCommand(c, "", func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.Ask(ctx, c.actor, abn, in.Question, m)
	})
}

type replyBody struct {
	Answer string `json:"answer" minLength:"1" maxLength:"4000"`
}

func (s *server) reply(c *call, in *replyBody) (answer, error) {
	return s.entityCommand(c, "", func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.Reply(ctx, c.actor, abn, in.Answer, m)
	})
}

type checkOutcomeBody struct {
	Check   string        `json:"check" minLength:"1" maxLength:"40"`
	Subject string        `json:"subject,omitempty" maxLength:"32" doc:"A principal's id; left out: the entity."`
	Outcome string        `json:"outcome" enum:"pass,fail"`
	Source  string        `json:"source" minLength:"1" maxLength:"200" doc:"Who or what checked; no detail of anybody's affairs."`
	Expires registry.Time `json:"expires_at,omitempty" doc:"Left out: in a year."`
	Reason  string        `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) recordCheck(c *call, in *checkOutcomeBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		subject := in.Subject
		if subject == "" {
			subject = "entity"
		}
		return d.RecordCheck(ctx, c.actor, abn, casework.CheckOutcome{Check: in.Check, Subject: subject, Outcome: casework.Outcome(in.Outcome), Source: in.Source, Expires: in.Expires}, m)
	})
}

func (s *server) admitEntity(c *call, in *reasonBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.Admit(ctx, c.actor, abn, m)
	})
}

type addProductBody struct {
	Name     string         `json:"name" minLength:"1" maxLength:"200"`
	Scenario uint8          `json:"scenario" minimum:"1" maximum:"6" doc:"How it reaches its users; by the role matrix the entity must self-certify in it."`
	Chain    []registry.ABN `json:"chain,omitempty" maxItems:"16" doc:"Further entities that deliver it."`
	Reason   string         `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) addProduct(c *call, in *addProductBody) (answer, error) {
	var id string
	_, err := s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (o registry.Outcome, err error) {
		o, err = d.AddProduct(ctx, c.actor, abn, casework.ProductForm{Name: in.Name, Scenario: in.Scenario, Chain: in.Chain}, m)
		if id = o.ID; o.View != nil {
			c.view = o.View
		}
		return o, err
	})
	var committed *committedError
	if err != nil && !errors.As(err, &committed) {
		return answer{}, err
	}
	value, rev, ok := c.view.Entry(registry.KindProduct, id)
	if !ok {
		return answer{}, errors.Join(err, notFound(registry.KindProduct, id))
	}
	if committed != nil {
		return answer{}, &committedError{record{value, rev}, committed.err}
	}
	return answer{outcome: created, data: record{value, rev}, rev: rev}, nil
}

type openTestBody struct {
	Product string `json:"product_id" minLength:"1" maxLength:"64"`
	Reason  string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) openTest(c *call, in *openTestBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.OpenTest(ctx, c.actor, abn, in.Product, m)
	})
}

type rejectBody struct {
	Trigger string `json:"trigger" minLength:"1" maxLength:"60"`
	Reason  string `json:"reason,omitempty" maxLength:"500"`
}

func (s *server) reject(c *call, in *rejectBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.Reject(ctx, c.actor, abn, casework.Trigger(in.Trigger), m)
	})
}

type entityChangeBody struct {
	Name     string             `json:"name,omitempty" maxLength:"200"`
	Roles    []registry.Role    `json:"roles,omitempty" maxItems:"4"`
	Contacts []casework.Contact `json:"contacts,omitempty" maxItems:"10"`
	Note     string             `json:"note,omitempty" maxLength:"4000"`
}

func (s *server) tellChange(c *call, in *entityChangeBody) (answer, error) {
	return s.entityCommand(c, "", func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.TellChange(ctx, c.actor, abn, casework.EntityChange{Name: in.Name, Roles: in.Roles, Contacts: in.Contacts, Note: in.Note}, m)
	})
}

func (s *server) confirmChange(c *call, in *reasonBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.ConfirmChange(ctx, c.actor, abn, m)
	})
}

type noteBody struct {
	Note string `json:"note" minLength:"1" maxLength:"4000"`
}

func (s *server) answerReview(c *call, in *noteBody) (answer, error) {
	return s.entityCommand(c, "", func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.AnswerReview(ctx, c.actor, abn, in.Note, m)
	})
}

type whyBody struct {
	Reason string `json:"reason" minLength:"1" maxLength:"200" doc:"Why; kept, and told to the owner."`
}

func (s *server) cancelEntity(c *call, in *whyBody) (answer, error) {
	return s.entityCommand(c, in.Reason, func(ctx context.Context, d *casework.Desk, abn registry.ABN, m registry.Meta) (registry.Outcome, error) {
		return d.CancelEntity(ctx, c.actor, abn, m)
	})
}

// Runs finds recorded decisions for the judging of runs.
func (d Decisions) Runs() casework.DecisionSource { return runs{d} }

type runs struct{ d Decisions }

// Decisions implements casework.DecisionSource.
func (r runs) Decisions(ctx context.Context, ids []string) ([]casework.Decision, error) {
	if r.d.Find == nil {
		return nil, fmt.Errorf("%w: no decisions are kept here", registry.ErrUnavailable)
	}
	var out []casework.Decision
	for _, text := range ids {
		id, err := authz.ParseDecisionID(text)
		if err != nil {
			continue // no decision has that ID
		}
		rec, err := r.d.Find(ctx, id)
		if errors.Is(err, registry.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, casework.Decision{
			ID: text, Product: rec.ProductID, Environment: rec.Environment, Service: rec.Service,
			Allowed: rec.Reason == authz.OK, At: rec.At,
		})
	}
	return out, nil
}
