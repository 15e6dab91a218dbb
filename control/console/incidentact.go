package console

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// What is done about an incident, each by a form of its page.

// act is what one of the forms asks of the API.
type act struct {
	path string
	body any
}

// incidentActs make the command of each form; a problem is what cannot be sent.
var incidentActs = map[string]func(*visit, string) (act, *problem){
	"amend":         (*visit).amendAct,
	"triage":        (*visit).triageAct,
	"contain":       (*visit).containAct,
	"restrict":      (*visit).restrictAct,
	"ask-logs":      (*visit).askLogsAct,
	"answer-logs":   (*visit).answerLogsAct,
	"plan":          (*visit).planAct,
	"assess":        (*visit).assessAct,
	"notify":        (*visit).notifyAct,
	"close":         (*visit).closeAct,
	"dismiss":       (*visit).dismissAct,
	"appeal":        (*visit).appealAct,
	"decide-appeal": (*visit).decideAppealAct,
}

// incidentFields are the fields of the forms by the API's pointers.
var incidentFields = map[string]string{
	"/level": "level", "/reason": "reason", "/how": "how", "/subject": "id", "/subject/id": "id", "/subject/kind": "kind", "/suspension_id": "how", "/entity": "entity", "/what": "what",
	"/due": "due", "/evidence": "evidence", "/treatment": "what", "/oaic": "oaic", "/individuals": "individuals", "/audiences": "audiences", "/cause": "cause", "/done": "done",
	"/lessons": "lessons", "/same_as": "same-as", "/grounds": "grounds", "/max_risk": "max-risk", "404": "id",
}

func (v *visit) actOnIncident() error {
	id, what := v.r.PathValue("id"), v.r.PathValue("what")
	command := incidentActs[what]
	if command == nil {
		return &apiError{Status: http.StatusNotFound, Detail: "There is no such page."}
	}
	p := &incidentPage{Failed: what}
	rev, revErr := strconv.ParseUint(v.form("revision"), 10, 64)
	do, wrong := command(v, id)
	if wrong != nil {
		return v.refusedAct(http.StatusUnprocessableEntity, p, what, wrong)
	}
	if revErr == nil {
		v.match = registry.Revision(rev)
	}
	err := v.send(http.MethodPost, do.path, do.body, nil)
	v.match = 0
	if err == nil && what == "restrict" { // the incident is told what was done about it
		err = v.send(http.MethodPost, api("incidents", id, "contain"), map[string]any{"how": "Restricted " + v.form("product") + " to risk ratings up to " + v.form("max-risk") + ". " + v.form("reason")}, nil)
	}
	var e *apiError
	if !asAPI(err, &e) || e.Code == "not-durable" { // in force, though not yet on every replica
		if err == nil || e != nil {
			return v.redirect(local("incidents", id) + "#" + incidentAnchor[what])
		}
		return err
	}
	switch e.Status {
	case http.StatusPreconditionFailed:
		wrong = &problem{Text: "Somebody changed this incident while you were writing. What you typed is still in the form; read what changed, then send it again."}
	case http.StatusServiceUnavailable:
		wrong = &problem{Text: sentence(e.Detail)}
	default:
		wrong = problemOf(err, incidentFields)
	}
	if what == "amend" && wrong != nil && e.Status != http.StatusPreconditionFailed {
		wrong.Field = reportField(e.Source.Pointer)
	}
	if wrong == nil || e.Status == http.StatusNotFound && what != "contain" && what != "restrict" {
		return err
	}
	return v.refusedAct(e.Status, p, what, wrong)
}

// refusedAct shows the page again with what was typed.
func (v *visit) refusedAct(status int, p *incidentPage, what string, wrong *problem) error {
	p.Problem, p.typed = wrong, v.r.PostForm
	if what == "amend" {
		p.Form = v.reportTyped()
	} else if wrong.Field != "" {
		wrong.Field = what + "-" + wrong.Field
	}
	return v.showIncident(status, p)
}

// incidentAnchor is where the page is looked at after a form was taken.
var incidentAnchor = map[string]string{
	"contain": "containment", "restrict": "containment", "ask-logs": "logs", "answer-logs": "logs", "plan": "treatment", "notify": "notices", "assess": "breach",
	"appeal": "appeal", "decide-appeal": "appeal",
}

func (v *visit) amendAct(id string) (act, *problem) {
	f := v.reportTyped()
	f.Staff = v.person.Actor.Staff()
	body, wrong := f.body(false)
	return act{api("incidents", id, "amend"), body}, wrong
}

func (v *visit) triageAct(id string) (act, *problem) {
	return act{api("incidents", id, "triage"), map[string]any{"level": v.form("level"), "owner": v.form("owner"), "reason": v.form("reason")}}, nil
}

func (v *visit) containAct(id string) (act, *problem) {
	body := map[string]any{"how": v.form("how")}
	target := v.form("target")
	switch kind, ref, ok := strings.Cut(target, " "); {
	case target == "other":
		if v.form("id") == "" {
			return act{}, &problem{"Say what is to be suspended.", "id"}
		}
		body["subject"] = map[string]string{"kind": v.form("kind"), "id": v.form("id")}
	case ok:
		body["subject"] = map[string]string{"kind": kind, "id": ref}
	}
	if body["subject"] != nil {
		body["emergency"] = v.form("emergency") != ""
	}
	if v.form("how") == "" {
		return act{}, &problem{"Say why, or how it was contained.", "how"}
	}
	return act{api("incidents", id, "contain") + "?wait=true&timeout=" + suspendWait.String(), body}, nil
}

func (v *visit) restrictAct(string) (act, *problem) {
	risk, err := strconv.Atoi(v.form("max-risk"))
	if err != nil || risk < 1 || risk > 3 {
		return act{}, &problem{"Choose the highest risk rating that is left.", "max-risk"}
	}
	return act{api("certifications", v.form("product"), "restrict"), map[string]any{"max_risk": risk, "reason": v.form("reason")}}, nil
}

// moment reads a time of one of the small forms, which are in UTC.
func (v *visit) moment(field string) (registry.Time, *problem) {
	s := v.form(field)
	if s == "" {
		return 0, nil
	}
	at, err := (&reportForm{Zone: v.form("zone")}).instant(s)
	if err != nil {
		return 0, &problem{"Write the time as 2026-11-22T09:30.", field}
	}
	return at, nil
}

func (v *visit) askLogsAct(id string) (act, *problem) {
	due, wrong := v.moment("due")
	if wrong == nil && !due.Set() {
		wrong = &problem{"Say until when.", "due"}
	}
	abn, err := registry.ParseABN(v.form("entity"))
	if wrong == nil && err != nil {
		wrong = &problem{"That is no ABN: 11 digits, as in the business register.", "entity"}
	}
	return act{api("incidents", id, "log-requests"), map[string]any{"entity": abn, "what": v.form("what"), "due": due}}, wrong
}

func (v *visit) answerLogsAct(id string) (act, *problem) {
	return act{api("incidents", id, "log-requests", v.form("request"), "answer"), map[string]any{"evidence": v.form("evidence")}}, nil
}

// planAct makes the whole plan of the steps there are, those ticked off since,
// and the one that was added.
func (v *visit) planAct(id string) (act, *problem) {
	var x incidentView
	if _, err := v.get(&x, api("incidents", id)); err != nil {
		return act{}, &problem{Text: sentence(err.Error())}
	}
	ticked := v.r.PostForm["step"]
	plan := slices.Clone(x.Treatment)
	for i := range plan {
		if !plan[i].Done.Set() && slices.Contains(ticked, strconv.Itoa(i)) {
			plan[i].Done = registry.At(v.now())
		}
	}
	if what := v.form("what"); what != "" {
		due, wrong := v.moment("due")
		if wrong != nil {
			return act{}, wrong
		}
		step := incident.Action{What: what, Owner: v.form("owner"), Due: due}
		if step.Owner == "" {
			step.Owner = v.person.Actor.Name
		}
		if !due.Set() {
			return act{}, &problem{"Say until when the step is done.", "due"}
		}
		plan = append(plan, step)
	}
	return act{api("incidents", id, "plan"), map[string]any{"treatment": plan}}, nil
}

func (v *visit) assessAct(id string) (act, *problem) {
	oaic, wrong := v.moment("oaic")
	individuals, wrong2 := v.moment("individuals")
	if wrong == nil {
		wrong = wrong2
	}
	if wrong == nil && v.form("eligible") == "" {
		wrong = &problem{"Choose whether it is an eligible data breach.", "eligible"}
	}
	body := map[string]any{"eligible": v.form("eligible") == "yes", "reason": v.form("reason")}
	if oaic.Set() {
		body["oaic"] = oaic
	}
	if individuals.Set() {
		body["individuals"] = individuals
	}
	return act{api("incidents", id, "assess"), body}, wrong
}

func (v *visit) notifyAct(id string) (act, *problem) {
	to := v.r.PostForm["audience"]
	if len(to) == 0 {
		return act{}, &problem{"Choose who is told.", "audiences"}
	}
	return act{api("incidents", id, "notify"), map[string]any{"audiences": to}}, nil
}

func (v *visit) closeAct(id string) (act, *problem) {
	return act{api("incidents", id, "close"), map[string]any{"cause": v.form("cause"), "done": v.form("done"), "lessons": v.form("lessons")}}, nil
}

func (v *visit) dismissAct(id string) (act, *problem) {
	return act{api("incidents", id, "dismiss"), map[string]any{"reason": v.form("reason"), "same_as": v.form("same-as")}}, nil
}

func (v *visit) appealAct(id string) (act, *problem) {
	return act{api("incidents", id, "appeal"), map[string]any{"grounds": v.form("grounds")}}, nil
}

func (v *visit) decideAppealAct(id string) (act, *problem) {
	if v.form("upheld") == "" {
		return act{}, &problem{"Choose whether the appeal is upheld.", "upheld"}
	}
	return act{api("incidents", id, "decide-appeal"), map[string]any{"upheld": v.form("upheld") == "yes", "reason": v.form("reason")}}, nil
}
