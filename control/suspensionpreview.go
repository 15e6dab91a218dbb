package control

import (
	"github.com/dspgate/dspgate/registry"
)

type stopsBody struct {
	Subject   subjectBody `json:"subject"`
	Emergency bool        `json:"emergency,omitempty" doc:"Nothing at all may pass, not even receipts."`
}

// stopsView is what a suspension would stop, as the register stands.
type stopsView struct {
	Subject       registry.SubjectRef `json:"subject"`
	Name          string              `json:"name,omitempty" doc:"Of the subject."`
	Owner         registry.ABN        `json:"owner,omitempty"`
	OwnerName     string              `json:"owner_name,omitempty"`
	Whole         bool                `json:"whole" doc:"Every call of the products stops; if not, only those that the subject takes part in."`
	Products      int                 `json:"products_total"`
	Shown         []reachedProduct    `json:"products" doc:"The first of them."`
	Apps          int                 `json:"client_apps" doc:"That stop with them."`
	Subscriptions int                 `json:"subscriptions" doc:"That stop with them."`
	Stopped       []reachedService    `json:"services_stopped" doc:"The riskiest first."`
	Left          []reachedService    `json:"services_left" doc:"That may be called all the same, such as receipts; an emergency leaves none."`
	P1Only        []string            `json:"p1_only_services" doc:"Of those, services whose upstream verifies no admission stamp: a call allowed before may still arrive."`
	InForce       []suspensionView    `json:"in_force" doc:"Suspensions of the same subject."`
}

type reachedProduct struct {
	ID    string       `json:"id"`
	Name  string       `json:"name"`
	Owner registry.ABN `json:"owner"`
}

type reachedService struct {
	Key  string        `json:"key"`
	Name string        `json:"name,omitempty"`
	Risk registry.Risk `json:"risk"`
}

const reachedMax = 20 // products shown

// previewSuspension says what would stop, before anything does.
func (s *server) previewSuspension(c *call, in *stopsBody) (answer, error) {
	subject := in.Subject.ref()
	r, err := c.view.Reach(subject, in.Emergency)
	if err != nil {
		return answer{}, err
	}
	v := stopsView{
		Subject: subject, Name: r.Name, Owner: r.Owner, Products: len(r.Products), Shown: []reachedProduct{}, Apps: r.Apps, Subscriptions: r.Subscriptions,
		Whole:   subject.Kind == registry.KindEntity || subject.Kind == registry.KindProduct,
		Stopped: []reachedService{}, Left: []reachedService{}, P1Only: c.view.P1Only(subject, in.Emergency, s.drain > 0), InForce: []suspensionView{},
	}
	if e := c.view.Entity(r.Owner); e != nil {
		v.OwnerName = e.Name
	}
	for _, id := range r.Products[:min(len(r.Products), reachedMax)] {
		p := c.view.Product(id)
		v.Shown = append(v.Shown, reachedProduct{p.ID, p.Name, p.Owner})
	}
	for _, x := range r.Services {
		one := reachedService{x.Key, x.Name, x.Risk}
		if x.Left {
			v.Left = append(v.Left, one)
		} else {
			v.Stopped = append(v.Stopped, one)
		}
	}
	for _, e := range c.view.Suspensions() {
		if x := &e.Value; x.Subject == subject && x.Active(c.at) {
			v.InForce = append(v.InForce, s.viewSuspension(c, x))
		}
	}
	return answer{data: v}, nil
}
