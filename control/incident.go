package control

import (
	"errors"
	"fmt"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
	"github.com/dspgate/dspgate/registry/outbox"
)

// incidentRoutes are the part of the API that package incident answers.
func (s *server) incidentRoutes() []route {
	const (
		officers  = registry.PermIncidentOfficer | registry.PermOperator
		onlookers = officers | registry.PermAuditor
		reporters = ^registry.PermAuditor
	)
	one := func(what string, h handler, summary string) route {
		return post("/v1/incidents/{id}/"+what, what+"-incident", summary, h).gives(incidentView{}).by(officers).matching()
	}
	return []route{
		get("/v1/incidents", "list-incidents", "Incidents, by ID.", s.listIncidents).lists(incidentView{}).filters("state", "level", "type", "officer", "product_id", "owner", "live", "word").missing(),
		post("/v1/incidents", "raise-incident", "Report an incident. What cannot be raised yet is kept as a draft, and the answer names it.", with(s, s.raiseIncident)).gives(incidentView{}).by(reporters).creating().missing(),
		post("/v1/incidents/inbox", "receive-incident", "Take a report that came by mail: it is kept as a draft until somebody completes it.", with(s, s.receiveIncident)).gives(incidentView{}).by(officers).creating().missing(),
		get("/v1/incidents/{id}", "get-incident", "One incident, with its clocks and what may follow.", s.getIncident).gives(incidentView{}).tells("incident"),
		one("amend", with(s, s.amendIncident), "Add what is known since; a draft that is whole is raised.").by(reporters),
		one("triage", with(s, s.triageIncident), "Give it its level, derived from the exposure or with a reason, and its owner."),
		one("contain", with(s, s.containIncident), "Stop a subject from this incident, name a suspension imposed from it, or say how else it was contained.").filters("wait", "timeout"),
		one("log-requests", with(s, s.askLogs), "Ask an entity for its logs, by a day."),
		one("log-requests/{request}/answer", with(s, s.answerLogs), "Say where the logs asked for are.").called("answer-log-request").by(officers | registry.PermDeveloper),
		one("plan", with(s, s.planIncident), "Set the treatment plan; when every step is done, it is treated."),
		one("assess", with(s, s.assessIncident), "Decide whether a breach is an eligible data breach, and when OAIC and individuals were told."),
		get("/v1/incidents/{id}/notices", "preview-incident-notices", "Who would be told what.", s.previewNotices).listsPlain(noticePreview{}).by(onlookers).missing(),
		one("notify", with(s, s.notifyIncident), "Send the notices as previewed."),
		one("close", with(s, s.closeIncident), "Close it, with its cause and what was done."),
		one("dismiss", with(s, s.dismissIncident), "It is no incident, or the same as another."),
		one("appeal", with(s, s.appealIncident), "The entity asks for a second look.").by(registry.PermDeveloper),
		one("decide-appeal", with(s, s.decideAppeal), "Decide an appeal; two people, neither of whom owns the incident or imposed its containment."),
		get("/v1/messages", "list-messages", "Mail and webhooks queued and sent, by ID.", s.listMessages).lists(outbox.Message{}).by(onlookers|registry.PermRegistrar).filters("state", "about").missing().tells("messages"),
		get("/v1/lessons", "list-lessons", "What was learnt from closed incidents, without names.", s.listLessons).listsPlain(lessonView{}).open().missing(),
	}
}

// incidentView is an incident as the API shows it.
type incidentView struct {
	incident.Incident
	Clocks  []incident.Clock `json:"clocks" doc:"Each duty with both deadlines: from the event, which counts, and from awareness."`
	Next    []incident.State `json:"next" doc:"The states that may follow."`
	Derived incident.Level   `json:"derived_level" doc:"The level by its exposure."`
	Because string           `json:"derived_because"`
}

type exposureBody struct {
	TFN        bool     `json:"tfn,omitempty" doc:"Somebody's tax file number is exposed or suspected to be. Never the number itself."`
	Bank       bool     `json:"bank,omitempty"`
	Identity   bool     `json:"identity,omitempty"`
	Fraud      bool     `json:"fraud,omitempty" doc:"Something was lodged or paid that should not have been."`
	Taxpayer   bool     `json:"taxpayer,omitempty" doc:"Other data about taxpayers."`
	Records    int      `json:"records,omitempty" minimum:"0" maximum:"1000000000" doc:"How many people's; leave out while nobody knows."`
	SSIDs      []string `json:"ssids,omitempty" maxItems:"10000"`
	DataTypes  []string `json:"data_types,omitempty" maxItems:"50"`
	FileFormat string   `json:"file_format,omitempty" maxLength:"200"`
}

func (b *exposureBody) value() incident.Exposure { return incident.Exposure(*b) }

// reportBody is lenient on purpose: what is wrong with a report is told, and the
// report is kept.
type reportBody struct {
	Title       string                `json:"title,omitempty" maxLength:"4000" doc:"One line, without names."`
	Description string                `json:"description,omitempty" maxLength:"20000" doc:"What happened. No tax file numbers."`
	Type        string                `json:"type,omitempty" maxLength:"100" doc:"credential-compromise, unauthorised-access, misdirected-disclosure, malware, fraudulent-lodgment, third-party-breach, vulnerability or availability."`
	Level       string                `json:"level,omitempty" maxLength:"100" doc:"low, medium or high, as the reporter sees it; triage decides."`
	Channel     string                `json:"channel,omitempty" maxLength:"100" doc:"api (the default), console, email, signal or phone."`
	Drill       bool                  `json:"drill,omitempty" doc:"Goes through everything and touches nothing in production."`
	Entity      registry.ABN          `json:"entity,omitempty" doc:"Whom it concerns; a developer's is its own."`
	OccurredAt  registry.Time         `json:"occurred_at,omitempty"`
	AwareAt     registry.Time         `json:"aware_at,omitempty" doc:"When it became known."`
	Subjects    []registry.SubjectRef `json:"subjects,omitempty" maxItems:"1000"`
	Exposure    exposureBody          `json:"exposure,omitempty"`
	Indicators  []indicatorBody       `json:"indicators,omitempty" maxItems:"500"`
	Reporter    reporterBody          `json:"reporter,omitempty"`
}

type indicatorBody struct {
	Kind  string `json:"kind" maxLength:"40" doc:"ip, host, sha256, session or user-agent."`
	Value string `json:"value" maxLength:"500"`
}

type reporterBody struct {
	Name   string       `json:"name,omitempty" maxLength:"200"`
	Email  string       `json:"email,omitempty" maxLength:"200"`
	Entity registry.ABN `json:"entity,omitempty"`
}

type mailBody struct {
	From    string        `json:"from" minLength:"1" maxLength:"200"`
	Subject string        `json:"subject,omitempty" maxLength:"1000"`
	Text    string        `json:"text" maxLength:"20000"`
	Date    registry.Time `json:"date,omitempty"`
}

type amendBody struct {
	Title       *string               `json:"title,omitempty" maxLength:"4000"`
	Description *string               `json:"description,omitempty" maxLength:"20000"`
	Type        *string               `json:"type,omitempty" maxLength:"100"`
	Entity      *registry.ABN         `json:"entity,omitempty"`
	OccurredAt  *registry.Time        `json:"occurred_at,omitempty"`
	AwareAt     *registry.Time        `json:"aware_at,omitempty"`
	Subjects    []registry.SubjectRef `json:"subjects,omitempty" maxItems:"1000"`
	Exposure    *exposureBody         `json:"exposure,omitempty"`
	Indicators  []indicatorBody       `json:"indicators,omitempty" maxItems:"500"`
}

type triageBody struct {
	Level  string `json:"level,omitempty" maxLength:"20" doc:"low, medium or high; default what the exposure says."`
	Owner  string `json:"owner,omitempty" maxLength:"200" doc:"Who works on it; default you."`
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Needed for a level below the derived one."`
}

type containBody struct {
	Subject      *registry.SubjectRef `json:"subject,omitempty" doc:"Suspend this, from this incident."`
	Emergency    bool                 `json:"emergency,omitempty" doc:"Nothing at all may pass."`
	SuspensionID string               `json:"suspension_id,omitempty" maxLength:"64" doc:"Or name a suspension that was imposed from it."`
	How          string               `json:"how,omitempty" maxLength:"500" doc:"The reason of the suspension, or how else it was contained."`
	CurbFields
}

type askLogsBody struct {
	Entity registry.ABN  `json:"entity"`
	What   string        `json:"what" minLength:"1" maxLength:"2000"`
	Due    registry.Time `json:"due"`
}

type answerLogsBody struct {
	Evidence string `json:"evidence" minLength:"1" maxLength:"200" doc:"The evidence that holds the logs."`
}

type planBody struct {
	Treatment []actionBody `json:"treatment" minItems:"1" maxItems:"200"`
}

type actionBody struct {
	What  string        `json:"what" minLength:"1" maxLength:"2000"`
	Owner string        `json:"owner" minLength:"1" maxLength:"200"`
	Due   registry.Time `json:"due"`
	Done  registry.Time `json:"done_at,omitempty"`
}

type assessBody struct {
	Eligible    bool          `json:"eligible"`
	OAIC        registry.Time `json:"oaic,omitempty" doc:"When OAIC was told."`
	Individuals registry.Time `json:"individuals,omitempty" doc:"When the individuals were told."`
	Reason      string        `json:"reason,omitempty" maxLength:"500"`
}

type notifyBody struct {
	Audiences []string `json:"audiences" minItems:"1" maxItems:"4" doc:"entity, chain, intermediary, user."`
}

type closeIncidentBody struct {
	Cause   string `json:"cause" maxLength:"5000"`
	Done    string `json:"done" maxLength:"5000"`
	Lessons string `json:"lessons,omitempty" maxLength:"5000" doc:"Published without names."`
}

type dismissBody struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500"`
	SameAs string `json:"same_as,omitempty" maxLength:"64"`
}

type appealBody struct {
	Grounds string `json:"grounds" minLength:"1" maxLength:"5000"`
}

type decideAppealBody struct {
	Upheld bool   `json:"upheld"`
	Reason string `json:"reason" minLength:"1" maxLength:"500"`
}

// noticePreview is what one recipient would be told.
type noticePreview struct {
	Audience incident.Audience `json:"audience"`
	Name     string            `json:"name"`
	Contact  string            `json:"contact,omitempty" doc:"Left out: reached by post only."`
	Subject  string            `json:"subject"`
	Body     string            `json:"body"`
}

// lessonView is a lesson without names: not even the month tells of whom.
type lessonView struct {
	Type    incident.Type  `json:"type"`
	Level   incident.Level `json:"level"`
	Year    int            `json:"year"`
	Lessons string         `json:"lessons"`
}

func (s *server) incidents() (*incident.Desk, *registry.Casebook, error) {
	if s.incidentDesk == nil {
		return nil, nil, errNoCasework
	}
	book, err := s.reg.Casebook()
	return s.incidentDesk, book, err
}

// viewIncident shows an incident to who asks. The entity is not told the names
// of the agency's people, nor what they wrote to each other.
func (s *server) viewIncident(c *call) func(*registry.Case[incident.Incident]) any {
	return func(x *registry.Case[incident.Incident]) any {
		v := incidentView{Incident: x.Body, Next: incident.Next(x.Body.State), Clocks: x.Body.Clocks(registry.At(s.now()))}
		if v.Next == nil {
			v.Next = []incident.State{}
		}
		v.Derived, v.Because = s.incidentDesk.Thresholds.Derive(&v.Exposure)
		if !c.actor.Staff() {
			v.Owner, v.LevelReason = "", ""
			v.Timeline = nil
			for _, e := range x.Body.Timeline {
				if e.By != c.actor.Name {
					e.By, e.Note = "agency", ""
				}
				v.Timeline = append(v.Timeline, e)
			}
			v.Requests = nil
			for _, r := range x.Body.Requests {
				if r.Entity == c.actor.Entity {
					v.Requests = append(v.Requests, r)
				}
			}
		}
		return record{v, x.Revision}
	}
}

// didIncident renders what a command did.
func (s *server) didIncident(c *call, out registry.Outcome, err error, done outcome) (answer, error) {
	if out.ID == "" || out.Cases == nil {
		return answer{}, errs(err, "")
	}
	x, rerr := registry.CaseOf[incident.Incident](out.Cases, out.ID)
	if rerr != nil {
		return answer{}, errs(errors.Join(err, rerr), "")
	}
	draft := incident.IsDraft(err)
	a, err := caseDone(x, false, err, done, s.viewIncident(c))
	return a, errs(err, keptAs(draft, x.ID))
}

func keptAs(draft bool, id string) string {
	if !draft {
		return ""
	}
	return "; the report is kept as draft " + id
}

// errs lets each of several field errors be told on its own, the first with
// what is said besides.
func errs(err error, besides string) error {
	var committed *committedError
	data := errors.As(err, &committed)
	var all manyErrors
	var walk func(error)
	walk = func(e error) {
		switch x := e.(type) {
		case *registry.FieldError:
			if len(all) == 0 && besides != "" {
				x = &registry.FieldError{Field: x.Field, Err: fmt.Errorf("%w%s", x.Err, besides)}
				e = x
			}
			if data {
				e = &committedError{committed.data, x}
			}
			all = append(all, e)
		case interface{ Unwrap() []error }:
			for _, y := range x.Unwrap() {
				walk(y)
			}
		case interface{ Unwrap() error }:
			walk(x.Unwrap())
		}
	}
	if err != nil {
		walk(err)
	}
	if len(all) == 0 {
		return err
	}
	return all
}

func (s *server) listIncidents(c *call) (answer, error) {
	_, book, err := s.incidents()
	if err != nil {
		return answer{}, err
	}
	if none := (&incident.Incident{}); c.actor.Staff() && !none.MaySee(c.actor) { // reports them, and is not shown them
		page, limit, err := c.paging()
		return answer{data: []any{}, page: c.pageInfo(page, limit, 0)}, err
	}
	return cases(c, book, s.viewIncident(c), "state", "level", "type", "officer", "product_id", "live", "word")
}

func (s *server) getIncident(c *call) (answer, error) {
	_, book, err := s.incidents()
	if err != nil {
		return answer{}, err
	}
	x, err := registry.CaseOf[incident.Incident](book, c.path("id"))
	if err == nil && !x.Body.MaySee(c.actor) {
		err = fmt.Errorf("%w: incident %s", registry.ErrNotFound, cut(c.path("id"), 60))
	}
	return oneCase(x, err, s.viewIncident(c))
}

func (s *server) raiseIncident(c *call, in *reportBody) (answer, error) {
	desk, _, err := s.incidents()
	if err != nil {
		return answer{}, err
	}
	x := incident.Incident{
		Title: in.Title, Description: in.Description, Type: incident.Type(in.Type), Level: incident.Level(in.Level), Channel: incident.Channel(in.Channel),
		Drill: in.Drill, Entity: in.Entity, OccurredAt: in.OccurredAt, AwareAt: in.AwareAt, Subjects: in.Subjects, Exposure: in.Exposure.value(),
		Indicators: indicators(in.Indicators), Reporter: incident.Reporter(in.Reporter),
	}
	if x.Channel == "" {
		x.Channel = incident.ByAPI
	}
	out, err := desk.Raise(c.r.Context(), c.actor, x)
	return s.didIncident(c, out, err, created)
}

func indicators(in []indicatorBody) []incident.Indicator {
	var out []incident.Indicator
	for _, i := range in {
		out = append(out, incident.Indicator(i))
	}
	return out
}

func (s *server) receiveIncident(c *call, in *mailBody) (answer, error) {
	desk, _, err := s.incidents()
	if err != nil {
		return answer{}, err
	}
	out, err := desk.Raise(c.r.Context(), c.actor, incident.Incident{
		Title: in.Subject, Description: in.Text, Channel: incident.ByEmail, Reporter: incident.Reporter{Email: in.From, Name: in.From}, AwareAt: in.Date,
	})
	if incident.IsDraft(err) {
		err = nil // a mail says no type: that it is a draft is what was to be done
	}
	return s.didIncident(c, out, err, created)
}

// onIncident runs one command on the incident that the path names.
func (s *server) onIncident(c *call, reason string, do func(*incident.Desk, string, registry.Meta) (registry.Outcome, error)) (answer, error) {
	desk, _, err := s.incidents()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(reason)
	if err != nil {
		return answer{}, err
	}
	out, err := do(desk, c.path("id"), m)
	return s.didIncident(c, out, err, found)
}

func (s *server) amendIncident(c *call, in *amendBody) (answer, error) {
	stage := incident.Stage{
		Title: in.Title, Description: in.Description, Type: (*incident.Type)(in.Type), Entity: in.Entity, OccurredAt: in.OccurredAt, AwareAt: in.AwareAt,
		Subjects: in.Subjects, Indicators: indicators(in.Indicators),
	}
	if in.Exposure != nil {
		x := in.Exposure.value()
		stage.Exposure = &x
	}
	return s.onIncident(c, "", func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Amend(c.r.Context(), c.actor, id, stage, m)
	})
}

func (s *server) triageIncident(c *call, in *triageBody) (answer, error) {
	return s.onIncident(c, in.Reason, func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Triage(c.r.Context(), c.actor, id, incident.Level(in.Level), in.Owner, in.Reason, m)
	})
}

// containIncident suspends first: what stops the harm does not wait for what
// tells of it.
func (s *server) containIncident(c *call, in *containBody) (answer, error) {
	w, err := c.waiting()
	if err != nil {
		return answer{}, err
	}
	return s.onIncident(c, in.How, func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		_, book, err := s.incidents()
		if err != nil {
			return registry.Outcome{}, err
		}
		x, err := registry.CaseOf[incident.Incident](book, id)
		if err != nil {
			return registry.Outcome{}, err
		}
		if in.Subject != nil {
			if x.Body.Drill {
				return registry.Outcome{}, registry.Field("/subject", "a drill touches nothing in production; say in how what would have been done")
			}
			cmd, err := in.curb(registry.SuspendCommand{Subject: *in.Subject, Reason: in.How, Emergency: in.Emergency, IncidentID: id})
			if err != nil {
				return registry.Outcome{}, err
			}
			r, err := s.reg.Suspend(c.r.Context(), c.actor, cmd)
			if err != nil {
				return registry.Outcome{}, err
			}
			in.SuspensionID = r.Entry.Value.ID
			if w.on {
				s.enforced(c, &r.Entry.Value, r.Revision, w.timeout)
			}
		}
		return d.Contain(c.r.Context(), c.actor, id, in.SuspensionID, in.How, m)
	})
}

func (s *server) askLogs(c *call, in *askLogsBody) (answer, error) {
	return s.onIncident(c, "", func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.AskLogs(c.r.Context(), c.actor, id, in.Entity, in.What, in.Due, m)
	})
}

func (s *server) answerLogs(c *call, in *answerLogsBody) (answer, error) {
	return s.onIncident(c, "", func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.AnswerLogs(c.r.Context(), c.actor, id, c.path("request"), in.Evidence, m)
	})
}

func (s *server) planIncident(c *call, in *planBody) (answer, error) {
	var plan []incident.Action
	for _, a := range in.Treatment {
		plan = append(plan, incident.Action(a))
	}
	return s.onIncident(c, "", func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Plan(c.r.Context(), c.actor, id, plan, m)
	})
}

func (s *server) assessIncident(c *call, in *assessBody) (answer, error) {
	return s.onIncident(c, in.Reason, func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Assess(c.r.Context(), c.actor, id, in.Eligible, in.OAIC, in.Individuals, in.Reason, m)
	})
}

func (s *server) notifyIncident(c *call, in *notifyBody) (answer, error) {
	var to []incident.Audience
	for _, a := range in.Audiences {
		to = append(to, incident.Audience(a))
	}
	return s.onIncident(c, "", func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Notify(c.r.Context(), c.actor, id, to, m)
	})
}

func (s *server) closeIncident(c *call, in *closeIncidentBody) (answer, error) {
	return s.onIncident(c, "", func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Close(c.r.Context(), c.actor, id, in.Cause, in.Done, in.Lessons, m)
	})
}

func (s *server) dismissIncident(c *call, in *dismissBody) (answer, error) {
	return s.onIncident(c, in.Reason, func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.Dismiss(c.r.Context(), c.actor, id, in.Reason, in.SameAs, m)
	})
}

func (s *server) appealIncident(c *call, in *appealBody) (answer, error) {
	return s.onIncident(c, "", func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.AppealAgainst(c.r.Context(), c.actor, id, in.Grounds, m)
	})
}

func (s *server) decideAppeal(c *call, in *decideAppealBody) (answer, error) {
	return s.onIncident(c, in.Reason, func(d *incident.Desk, id string, m registry.Meta) (registry.Outcome, error) {
		return d.DecideAppeal(c.r.Context(), c.actor, id, in.Upheld, in.Reason, m)
	})
}

func (s *server) previewNotices(c *call) (answer, error) {
	desk, book, err := s.incidents()
	if err != nil {
		return answer{}, err
	}
	x, err := registry.CaseOf[incident.Incident](book, c.path("id"))
	if err != nil {
		return answer{}, err
	}
	out := []noticePreview{}
	for _, to := range desk.Recipients(book, &x.Body) {
		msg, ok, err := desk.Notices.Preview(&x.Body, to.Recipient)
		if err != nil {
			return answer{}, err
		}
		if ok {
			out = append(out, noticePreview{to.Recipient.Audience, to.Name, to.Contact, msg.Subject, msg.Body})
		}
	}
	return paged(c, out, nil, func(p noticePreview) any { return p })
}

func (s *server) listMessages(c *call) (answer, error) {
	_, book, err := s.incidents()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, showCase[outbox.Message], "state", "about")
}

// listLessons are open to everybody, so they name nobody.
func (s *server) listLessons(c *call) (answer, error) {
	_, book, err := s.incidents()
	if err != nil {
		return answer{}, err
	}
	out := []lessonView{}
	for id := range book.All(registry.Query{Kind: "incident", Where: []registry.Where{{Index: "state", Value: string(incident.Closed)}}}) {
		x, err := registry.CaseOf[incident.Incident](book, id)
		if err != nil {
			return answer{}, err
		}
		if x.Body.Lessons == "" || x.Body.Drill {
			continue
		}
		out = append(out, lessonView{x.Body.Type, x.Body.Level, x.Body.ReportedAt.Std().Year(), x.Body.Lessons})
	}
	return paged(c, out, nil, func(l lessonView) any { return l })
}
