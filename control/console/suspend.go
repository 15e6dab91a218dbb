package console

import (
	"net/http"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// Suspending: what it would stop is shown first, then it is one button.

var suspendKinds = []string{"product", "version", "entity", "client-app", "credential", "subscription", "service"}

// suspendFields are the form's fields by the API's pointers.
var suspendFields = map[string]string{"/subject/kind": "kind", "/subject/id": "id", "/reason": "reason", "/subject": "id", "404": "id"}

// wideReach is from how many products on a suspension has to be meant twice.
const wideReach = 10

type suspendPage struct {
	frame
	Kind, ID, Reason string
	Emergency        bool
	Kinds            []string
	Stops            *stops // nil while nobody knows what is meant
	Problem          *problem
}

// stops is what a suspension would stop.
type stops struct {
	Subject       registry.SubjectRef `json:"subject"`
	Name          string              `json:"name"`
	Owner         registry.ABN        `json:"owner"`
	OwnerName     string              `json:"owner_name"`
	Whole         bool                `json:"whole"`
	Total         int                 `json:"products_total"`
	Products      []stoppedProduct    `json:"products"`
	Apps          int                 `json:"client_apps"`
	Subscriptions int                 `json:"subscriptions"`
	Stopped       []stoppedService    `json:"services_stopped"`
	Left          []stoppedService    `json:"services_left"`
	P1Only        []string            `json:"p1_only_services"`
	InForce       []suspension        `json:"in_force"`
}

type stoppedProduct struct {
	ID    string       `json:"id"`
	Name  string       `json:"name"`
	Owner registry.ABN `json:"owner"`
}

type stoppedService struct {
	Key  string        `json:"key"`
	Name string        `json:"name"`
	Risk registry.Risk `json:"risk"`
}

// Wide: it has to be meant twice.
func (s *stops) Wide() bool { return s.Subject.Kind == registry.KindService || s.Total >= wideReach }

// More is how many products are not named.
func (s *stops) More() int { return s.Total - len(s.Products) }

// Part says which of the products' calls stop, where not all do.
func (s *stops) Part() string {
	return map[registry.Kind]string{
		registry.KindVersion: "Only calls of this version, and calls that name none.", registry.KindClientApp: "Only calls by this client app.",
		registry.KindCredential: "Only calls made with this credential.", registry.KindSubscription: "Only calls on behalf of this one client.",
		registry.KindService: "Only calls of this service, by whoever makes them.",
	}[s.Subject.Kind]
}

func (v *visit) suspendForm() error {
	if !v.person.Actor.MaySuspend() {
		return &apiError{Status: http.StatusForbidden, Detail: "Operators and incident officers suspend, nobody else"}
	}
	p := suspendPage{Kind: v.query("kind"), ID: v.query("id")}
	status := http.StatusOK
	if p.ID != "" {
		err := v.lookAhead(&p)
		if p.Problem = problemOf(err, suspendFields); p.Problem != nil {
			status = http.StatusUnprocessableEntity
		} else if err != nil {
			return err
		}
	}
	return v.showSuspend(status, p)
}

func (v *visit) showSuspend(status int, p suspendPage) error {
	p.frame, p.Kinds = v.frame("Suspend"), suspendKinds
	if p.Kind == "" {
		p.Kind = "product"
	}
	return v.show(status, "suspend", p)
}

// lookAhead asks what the suspension would stop.
func (v *visit) lookAhead(p *suspendPage) error {
	if p.Kind == "entity" { // people write an ABN with spaces
		p.ID = strings.ReplaceAll(p.ID, " ", "")
	}
	var s stops
	err := v.send(http.MethodPost, "/v1/suspensions/preview", map[string]any{"subject": map[string]string{"kind": p.Kind, "id": p.ID}, "emergency": p.Emergency}, &s)
	if err == nil {
		p.Stops = &s
	}
	return err
}

func (v *visit) suspend() error {
	p := suspendPage{Kind: v.form("kind"), ID: v.form("id"), Reason: v.form("reason"), Emergency: v.form("emergency") != ""}
	subject := map[string]string{"kind": p.Kind, "id": p.ID}
	var err error
	if v.person.Actor.MaySuspend() { // anybody else is refused below, in the words for their own subject
		if err = v.lookAhead(&p); err == nil {
			subject["id"] = p.ID
		}
	}
	if p.Stops != nil && p.Stops.Wide() && v.form("sure") == "" {
		p.Problem = &problem{"Say that you mean all of it.", "sure"}
		return v.showSuspend(http.StatusUnprocessableEntity, p)
	}
	var made suspension
	if err == nil {
		body := map[string]any{"subject": subject, "reason": p.Reason, "emergency": p.Emergency}
		err = v.send(http.MethodPost, "/v1/suspensions?wait=true&timeout="+suspendWait.String(), body, &made)
		if made, err = committed(made, err); err == nil {
			return v.redirect(local("suspensions", made.ID))
		}
	}
	if p.Problem = problemOf(err, suspendFields); p.Problem != nil {
		return v.showSuspend(http.StatusUnprocessableEntity, p)
	}
	return err
}
