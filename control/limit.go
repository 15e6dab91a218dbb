package control

import (
	"fmt"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// LimitFields is what a limit says beside whose it is; exported, or the schema
// would not have its members.
type LimitFields struct {
	Kind        registry.LimitKind   `json:"kind,omitempty" doc:"rate, concurrency, quota or clients. May be left out where it stands for a tier's limit of that name, as may all that it has alike."`
	Amount      int64                `json:"amount" doc:"Calls a second, calls at once, calls a period, or distinct clients a day; at least 1."`
	Burst       *int64               `json:"burst,omitempty" doc:"Of a rate: how many at once; default amount, at least 1."`
	Period      registry.Period      `json:"period,omitempty" doc:"Of a quota: day or month, from midnight."`
	Zone        string               `json:"zone,omitempty" maxLength:"64" doc:"IANA time zone of the period; default Australia/Sydney."`
	Service     string               `json:"service,omitempty" maxLength:"64" doc:"Only calls of this service."`
	Environment registry.Environment `json:"environment,omitempty" doc:"Only calls there."`
	Stage       registry.Stage       `json:"stage,omitempty" doc:"Only calls under these terms, in PROD."`
	Per         registry.Kind        `json:"per,omitempty" doc:"Of a tier: whose account each is: entity, product, subscription or client-app; default product."`
	Shadow      bool                 `json:"shadow,omitempty" doc:"Only observed: what it would have refused is counted."`
	Reason      string               `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type limitUpdate struct{ LimitFields }

type newLimitBody struct {
	Subject registry.SubjectRef `json:"subject" doc:"An entity, product, subscription, client-app, service or tier."`
	Name    string              `json:"name" minLength:"1" maxLength:"32" doc:"As the RateLimit headers show it."`
	LimitFields
}

type tierBody struct {
	Tier   string `json:"tier" maxLength:"64" doc:"One that has limits; standard is everybody's."`
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

// limitAnswer is a limit that was set, with what one may not have meant.
type limitAnswer struct {
	registry.Limit
	Warnings []string `json:"warnings,omitempty" doc:"It is set all the same."`
}

// tierView is one tier with what it says.
type tierView struct {
	ID       string           `json:"id"`
	Limits   []registry.Limit `json:"limits"`
	Products uint64           `json:"products" doc:"How many name it; those that name none are in the tier standard."`
	BuiltIn  bool             `json:"built_in,omitempty" doc:"The register says nothing of it: these are the caps that hold anyway."`
}

func (f *LimitFields) limit(subject registry.SubjectRef, name string) (registry.Limit, error) {
	l := registry.Limit{
		Subject: subject, Name: name, Kind: f.Kind, Amount: f.Amount, Period: f.Period, Zone: f.Zone,
		Service: f.Service, Environment: f.Environment, Stage: f.Stage, Per: f.Per, Shadow: f.Shadow,
	}
	if f.Burst != nil {
		if l.Burst = *f.Burst; l.Burst == 0 { // the register takes none for the default
			return l, registry.Field("/burst", "0 is less than one request, so that nothing would pass; at least 1, or leave it out for the amount")
		}
	}
	return l, nil
}

func (s *server) listLimits(c *call) (answer, error) {
	kind, byKind, err := filterText[registry.Kind](c, "kind")
	if err != nil {
		return answer{}, err
	}
	subject, bySubject := c.filter("subject")
	product, byProduct := c.filter("product_id")
	removed, byRemoved, err := c.filterBool("removed")
	if err != nil {
		return answer{}, err
	}
	if !byRemoved {
		removed = false
	}
	keep := func(e *registry.Entry[registry.Limit]) bool {
		l := &e.Value
		return (l.Removed != 0) == removed && (!byKind || l.Subject.Kind == kind) && (!bySubject || l.Subject.ID == subject) &&
			(!byProduct || productOf(c.view, l.Subject) == product) && mayKnow(c, l.Subject.Kind, l.Subject.ID)
	}
	return paged(c, s.lists.limits.get(c.view, (*registry.View).Limits), keep, show)
}

// productOf is the product a subject is, or is part of; "" for others.
func productOf(v *registry.View, s registry.SubjectRef) string {
	switch s.Kind {
	case registry.KindProduct:
		return s.ID
	case registry.KindSubscription:
		if x := v.Subscription(s.ID); x != nil {
			return x.ProductID
		}
	case registry.KindClientApp:
		if x := v.ClientApp(s.ID); x != nil {
			return x.ProductID
		}
	}
	return ""
}

func (s *server) getLimit(c *call) (answer, error) {
	return c.one(registry.KindLimit, c.path("id"))
}

func (s *server) createLimit(c *call, in *newLimitBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	l, err := in.limit(in.Subject, in.Name)
	if err != nil {
		return answer{}, err
	}
	return s.putLimit(c, l, m, created)
}

func (s *server) setLimit(c *call, in *limitUpdate) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	at := strings.LastIndexByte(c.path("id"), ':')
	if at < 0 {
		return answer{}, wrongParam("id", "write KIND:ID:NAME, such as product:FP-1003:day")
	}
	subject, err := registry.ParseLimitSubject(c.path("id")[:at])
	if err != nil {
		return answer{}, pathField(err, "/subject", "id")
	}
	l, err := in.limit(subject, c.path("id")[at+1:])
	if err != nil {
		return answer{}, err
	}
	return s.putLimit(c, l, m, found)
}

func (s *server) putLimit(c *call, l registry.Limit, m registry.Meta, done outcome) (answer, error) {
	r, err := s.reg.SetLimit(c.r.Context(), c.actor, l, m)
	a, err := changed(r, err, done)
	if err == nil {
		set := limitAnswer{Limit: r.Entry.Value}
		if w := s.quotaWarning(c, &set.Limit, productOf(c.view, set.Subject)); w != "" {
			set.Warnings = append(set.Warnings, w)
		}
		if from := c.view.Uncovers(&set.Limit); from != nil {
			set.Warnings = append(set.Warnings, fmt.Sprintf("service, environment, stage: it stands in the place of %s and covers fewer calls; the others are held to neither. Leave them as there, or give this one another name", from.ID))
		}
		a.data = record{set, r.Entry.Revision}
	}
	return a, err
}

func (s *server) removeLimit(c *call) (answer, error) {
	m, err := c.meta("")
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.RemoveLimit(c.r.Context(), c.actor, c.path("id"), m)
	return changed(r, err, found)
}

// listTiers shows the tiers in use or with limits; of a developer, all the
// same: what applies to it is no secret.
func (s *server) listTiers(c *call) (answer, error) {
	byID := map[string]*tierView{
		registry.TierStandard: {ID: registry.TierStandard, Limits: []registry.Limit{}},
		registry.TierPVT:      {ID: registry.TierPVT, Limits: []registry.Limit{}},
	}
	order := []string{registry.TierStandard, registry.TierPVT}
	for _, e := range s.lists.limits.get(c.view, (*registry.View).Limits) {
		l := e.Value
		if l.Subject.Kind != registry.KindTier || l.Removed != 0 {
			continue
		}
		if byID[l.Subject.ID] == nil {
			byID[l.Subject.ID] = &tierView{ID: l.Subject.ID}
			order = append(order, l.Subject.ID)
		}
		byID[l.Subject.ID].Limits = append(byID[l.Subject.ID].Limits, l)
	}
	if pvt := byID[registry.TierPVT]; len(pvt.Limits) == 0 {
		pvt.Limits, pvt.BuiltIn = registry.PVTLimits(), true
	}
	if c.actor.Staff() {
		for _, e := range s.lists.products.get(c.view, (*registry.View).Products) {
			if t := byID[e.Value.Tier]; t != nil {
				t.Products++
			}
		}
	}
	return paged(c, order, nil, func(id string) any { return byID[id] })
}

func (s *server) setTier(c *call, in *tierBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.SetTier(c.r.Context(), c.actor, c.path("id"), in.Tier, m)
	return changed(r, err, found)
}
