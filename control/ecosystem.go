package control

import (
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// addOnView is a declared add-on with what it owes now.
type addOnView struct {
	ID          string        `json:"id"`
	ProductID   string        `json:"product_id"`
	Owner       registry.ABN  `json:"owner" doc:"Of the product."`
	Name        string        `json:"name"`
	Developer   string        `json:"developer"`
	Contact     string        `json:"contact,omitempty"`
	Connections uint64        `json:"connections"`
	ClientList  bool          `json:"client_list_access"`
	Assessed    registry.Time `json:"assessed_at,omitempty"`
	SSIDs       []string      `json:"ssids"`
	Declared    registry.Time `json:"declared_at"`
	By          string        `json:"by"`
	Removed     registry.Time `json:"removed_at,omitempty"`
	Listed      bool          `json:"must_be_listed"`
	Because     string        `json:"because"`
	Due         registry.Time `json:"assessment_due,omitempty"`
	Overdue     bool          `json:"overdue"`
	Mark        string        `json:"mark" enum:"pass,warn,fail"`
	Suspended   []string      `json:"suspended_ssids" doc:"Of its subscriptions, those that are suspended now."`
}

type addOnBody struct {
	ProductID   string        `json:"product_id" minLength:"1" maxLength:"64" doc:"Whose API it uses."`
	Name        string        `json:"name" minLength:"1" maxLength:"200"`
	Developer   string        `json:"developer" minLength:"1" maxLength:"200" doc:"Whoever offers it; its ABN where it has one."`
	Contact     string        `json:"contact,omitempty" maxLength:"200" doc:"Its developer's e-mail address, told of incidents in the product."`
	Connections uint64        `json:"connections,omitempty" maximum:"9007199254740991"`
	ClientList  bool          `json:"client_list_access,omitempty"`
	Assessed    registry.Time `json:"assessed_at,omitempty" doc:"When its developer last assessed itself."`
	SSIDs       []string      `json:"ssids,omitempty" maxItems:"1000" doc:"The product's subscriptions through which it reaches the agency."`
	Reason      string        `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type addOnUpdate struct {
	Name        string        `json:"name" minLength:"1" maxLength:"200"`
	Developer   string        `json:"developer" minLength:"1" maxLength:"200"`
	Contact     string        `json:"contact,omitempty" maxLength:"200"`
	Connections uint64        `json:"connections,omitempty" maximum:"9007199254740991"`
	ClientList  bool          `json:"client_list_access,omitempty"`
	Assessed    registry.Time `json:"assessed_at,omitempty"`
	SSIDs       []string      `json:"ssids,omitempty" maxItems:"1000"`
	Reason      string        `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) showAddOn(c *call) func(*registry.Case[assurance.AddOn]) any {
	return func(x *registry.Case[assurance.AddOn]) any {
		a, st := &x.Body, x.Body.Standing(c.at)
		v := addOnView{
			ID: a.ID, ProductID: a.ProductID, Owner: a.Owner, Name: a.Name, Developer: a.Developer, Contact: a.Contact, Connections: a.Connections, ClientList: a.ClientList,
			Assessed: a.Assessed, SSIDs: some(a.SSIDs), Declared: a.Declared, By: a.By, Removed: a.Removed,
			Listed: st.Listed && !a.Removed.Set(), Because: st.Because, Due: registry.At(st.Due), Overdue: st.Overdue && !a.Removed.Set(), Mark: st.Mark.String(), Suspended: []string{},
		}
		for _, ssid := range a.SSIDs {
			if c.view.Suspended(registry.KindSubscription, ssid, c.at) != nil {
				v.Suspended = append(v.Suspended, ssid)
			}
		}
		return record{v, x.Revision}
	}
}

func (s *server) listAddOns(c *call) (answer, error) {
	_, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, s.showAddOn(c), "product_id", "listed", "word")
}

func (s *server) getAddOn(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, err := d.AddOn(c.actor, c.path("id"))
	return oneCase(x, err, s.showAddOn(c))
}

func (s *server) declareAddOn(c *call, in *addOnBody) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	a := assurance.AddOn{ProductID: in.ProductID, Name: in.Name, Developer: in.Developer, Contact: in.Contact, Connections: in.Connections, ClientList: in.ClientList, Assessed: in.Assessed, SSIDs: in.SSIDs}
	x, existing, err := d.DeclareAddOn(c.r.Context(), c.actor, "", a, m)
	return caseDone(x, existing, err, created, s.showAddOn(c))
}

func (s *server) changeAddOn(c *call, in *addOnUpdate) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	a := assurance.AddOn{Name: in.Name, Developer: in.Developer, Contact: in.Contact, Connections: in.Connections, ClientList: in.ClientList, Assessed: in.Assessed, SSIDs: in.SSIDs}
	x, existing, err := d.DeclareAddOn(c.r.Context(), c.actor, c.path("id"), a, m)
	return caseDone(x, existing, err, found, s.showAddOn(c))
}

func (s *server) removeAddOn(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta("")
	if err != nil {
		return answer{}, err
	}
	x, existing, err := d.RemoveAddOn(c.r.Context(), c.actor, c.path("id"), m)
	return caseDone(x, existing, err, found, s.showAddOn(c))
}

type addOnSuspension struct {
	Reason     string        `json:"reason" minLength:"1" maxLength:"500"`
	Emergency  bool          `json:"emergency,omitempty"`
	Expires    registry.Time `json:"expires_at,omitempty" doc:"Default in 4 hours, the most for one person alone."`
	IncidentID string        `json:"incident_id,omitempty" maxLength:"64"`
}

func (s *server) suspendAddOn(c *call, in *addOnSuspension) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	all, err := d.SuspendAddOn(c.r.Context(), c.actor, c.path("id"), registry.SuspendCommand{Reason: in.Reason, Emergency: in.Emergency, Expires: in.Expires, IncidentID: in.IncidentID})
	if err != nil {
		return answer{}, err
	}
	return answer{data: all}, nil
}

// markingView is a questionnaire as answered so far.
type markingView struct {
	Questionnaire string        `json:"questionnaire"`
	Version       string        `json:"version"`
	Mark          string        `json:"mark" enum:"pass,warn,open,fail" doc:"The worst there is."`
	Questions     []askedView   `json:"questions" doc:"Those that are asked, in order."`
	Requirements  []markedView  `json:"requirements" doc:"How each requirement stands: its worst answer."`
	Blockers      []blockerView `json:"blockers" doc:"What is still to be done."`
}

// markedView is how one requirement stands.
type markedView struct {
	Requirement string   `json:"requirement"`
	Title       string   `json:"title"`
	Mark        string   `json:"mark" enum:"pass,warn,open,fail"`
	Say         []string `json:"say"`
	Excused     bool     `json:"excused" doc:"An exception turns its fail into a warn."`
}

type askedView struct {
	ID string `json:"id"`
	// Requirement is the one it belongs to, "" for none.
	Requirement   string                       `json:"requirement,omitempty"`
	Text          string                       `json:"text"`
	Help          string                       `json:"help,omitempty"`
	Kind          string                       `json:"kind"`
	Choices       []choiceView                 `json:"choices"`
	Values        []string                     `json:"values"`
	Answered      bool                         `json:"answered"`
	Note          string                       `json:"note,omitempty"`
	Mark          string                       `json:"mark" enum:"pass,warn,open,fail"`
	Say           string                       `json:"say,omitempty" doc:"What is wrong and what to do."`
	Optional      bool                         `json:"optional"`
	NeedsEvidence bool                         `json:"evidence_needed" doc:"The answer must come with evidence of one of the requirement's types."`
	Evidence      []string                     `json:"evidence" doc:"Content addresses of what was attached."`
	Missing       []certification.EvidenceType `json:"evidence_missing" doc:"Attach evidence of one of these types."`
}

type choiceView struct {
	Value string `json:"value"`
	Text  string `json:"text"`
}

type blockerView struct {
	Question string `json:"question,omitempty"`
	Say      string `json:"say"`
}

func viewMarking(m *certification.Marking) markingView {
	v := markingView{Questionnaire: m.Questionnaire, Version: m.Version, Mark: m.Mark.String(), Questions: []askedView{}, Requirements: []markedView{}, Blockers: []blockerView{}}
	for i := range m.Questions {
		q := &m.Questions[i]
		a := askedView{ID: q.ID, Text: q.Text, Help: q.Help, Kind: string(q.Kind), Choices: []choiceView{}, Values: []string{}, Mark: q.Mark.String(), Say: q.Say,
			Requirement: q.Requirement, Optional: q.Optional, NeedsEvidence: q.Question.Evidence, Evidence: []string{}, Missing: some(q.EvidenceMissing)}
		for _, o := range q.Choices {
			a.Choices = append(a.Choices, choiceView{o.Value, o.Text})
		}
		if q.Answer != nil {
			a.Answered, a.Values, a.Note, a.Evidence = true, some(q.Answer.Values), q.Answer.Note, some(q.Answer.Evidence)
		}
		v.Questions = append(v.Questions, a)
	}
	for _, r := range m.Requirements {
		v.Requirements = append(v.Requirements, markedView{r.Requirement, r.Title, r.Mark.String(), some(r.Say), r.Exception != nil})
	}
	for _, b := range m.Blockers() {
		v.Blockers = append(v.Blockers, blockerView{b.Question, b.Say})
	}
	return v
}

type ecosystemAnswer struct {
	Values []string `json:"values" maxItems:"32" doc:"One value; several, or none, where any number may be chosen."`
	Note   string   `json:"note,omitempty" maxLength:"1000"`
	Reason string   `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) getEcosystem(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	m, _, err := d.Ecosystem(c.actor, c.path("id"))
	if err != nil {
		return answer{}, err
	}
	return answer{data: viewMarking(m)}, nil
}

func (s *server) answerEcosystem(c *call, in *ecosystemAnswer) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	marking, _, err := d.AnswerEcosystem(c.r.Context(), c.actor, c.path("id"), c.path("question"), certification.Answer{Values: in.Values, Note: in.Note}, m)
	if marking == nil {
		return answer{}, err
	}
	v := viewMarking(marking)
	if err != nil {
		return answer{}, &committedError{v, err}
	}
	return answer{data: v}, nil
}

// threatView is a threat analysis as handed in.
type threatView struct {
	ID        string                 `json:"id"`
	ProductID string                 `json:"product_id"`
	Owner     registry.ABN           `json:"owner"`
	At        registry.Time          `json:"at"`
	By        string                 `json:"by"`
	Title     string                 `json:"title"`
	Scope     string                 `json:"scope"`
	Method    string                 `json:"method,omitempty"`
	Threats   []certification.Threat `json:"threats" doc:"The worst first."`
	Evidence  []string               `json:"evidence" doc:"Content addresses."`
}

func showThreats(x *registry.Case[assurance.ThreatAnalysis]) any {
	b := &x.Body
	return record{threatView{b.ID, b.ProductID, b.Owner, b.At, b.By, b.Title, b.Scope, b.Method, some(b.Threats), some(b.ThreatAnalysis.Evidence)}, x.Revision}
}

type threatsBody struct {
	ProductID string       `json:"product_id" minLength:"1" maxLength:"64"`
	Title     string       `json:"title" minLength:"1" maxLength:"2000"`
	Scope     string       `json:"scope" minLength:"1" maxLength:"2000"`
	Method    string       `json:"method,omitempty" maxLength:"2000" doc:"Such as STRIDE or ISO/IEC 27005."`
	Threats   []threatBody `json:"threats,omitempty" maxItems:"200"`
	Evidence  []string     `json:"evidence,omitempty" maxItems:"16" doc:"Content addresses of the analysis, handed in before as evidence of the product."`
	Reason    string       `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type threatBody struct {
	Title      string `json:"title" minLength:"1" maxLength:"2000"`
	Scenario   string `json:"scenario" minLength:"1" maxLength:"2000"`
	Likelihood string `json:"likelihood" enum:"low,medium,high"`
	Impact     string `json:"impact" enum:"low,medium,high"`
	Treatment  string `json:"treatment" enum:"avoid,reduce,share,accept"`
	Control    string `json:"control,omitempty" maxLength:"2000" doc:"Needed with the treatment reduce."`
}

func (s *server) listThreats(c *call) (answer, error) {
	_, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, showThreats, "product_id")
}

func (s *server) getThreats(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, err := d.ThreatAnalysis(c.actor, c.path("id"))
	return oneCase(x, err, showThreats)
}

func (s *server) submitThreats(c *call, in *threatsBody) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	a := certification.ThreatAnalysis{Title: in.Title, Scope: in.Scope, Method: in.Method, Evidence: in.Evidence}
	for _, t := range in.Threats {
		a.Threats = append(a.Threats, certification.Threat(t))
	}
	x, existing, err := d.SubmitThreatAnalysis(c.r.Context(), c.actor, in.ProductID, a, in.Reason)
	return caseDone(x, existing, err, created, showThreats)
}
