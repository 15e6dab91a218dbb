package control

import (
	"fmt"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// fieldGaps are what allowed calls of a product to a service lacked.
type fieldGaps struct {
	ProductID string            `json:"product_id"`
	Service   string            `json:"service"`
	Calls     uint64            `json:"calls" doc:"Allowed in the last four weeks."`
	Needed    []string          `json:"needed" doc:"The fields that monitoring needs of such a call."`
	Missing   map[string]uint64 `json:"missing" doc:"By field, how many of the calls lacked it."`
	Complete  bool              `json:"complete" doc:"No call lacked any."`
}

// fieldRoutes are the part of the API about how complete the audit log is.
func (s *server) fieldRoutes() []route {
	return []route{
		get("/v1/missing-fields", "list-missing-fields", "Which of the fields that monitoring needs are missing in the calls of the last four weeks, by product and service; a developer is shown its own products.", s.listMissingFields).
			listsPlain(fieldGaps{}).by(registry.PermIncidentOfficer|registry.PermOperator|registry.PermAuditor|registry.PermAssessor|registry.PermDeveloper).filters("product_id", "service", "field", "complete"),
	}
}

// fieldsNeeded are those that monitoring needs of a call: a desktop product has
// no software ID (domain model §2), one that acts for its owner alone no client,
// and not every service concerns a person.
func fieldsNeeded(p *registry.Product, s *registry.Service) (needed [anomaly.NFields]bool) {
	const desktop = 1
	needed[anomaly.FieldVersion], needed[anomaly.FieldNetwork] = true, true
	needed[anomaly.FieldSubscription] = p == nil || p.Scenario != desktop && !p.OwnABNOnly
	if s != nil {
		needed[anomaly.FieldClient] = s.ClientRequired
		needed[anomaly.FieldPerson] = s.Subject.In != ""
	}
	return needed
}

func (s *server) listMissingFields(c *call) (answer, error) {
	if s.signals.Fields == nil {
		return answer{}, unavailable(fmt.Errorf("nobody watches callers here"))
	}
	product, _ := c.filter("product_id")
	service, byService := c.filter("service")
	field, byField, err := c.filterWord("field")
	if err != nil {
		return answer{}, err
	}
	complete, byComplete, err := c.filterBool("complete")
	if err != nil {
		return answer{}, err
	}
	all, ok := s.signals.Fields(product)
	if !ok {
		return answer{}, unavailable(fmt.Errorf("the sums of what products do could not be read yet"))
	}
	var out []fieldGaps
	for i := range all {
		p := c.view.Product(all[i].Product)
		if !c.actor.Staff() && !mayKnowProduct(c, p) {
			continue
		}
		g := gapsOf(&all[i], fieldsNeeded(p, c.view.Service(all[i].Service)))
		if byService && g.Service != service || byField && g.Missing[field] == 0 || byComplete && g.Complete != complete {
			continue
		}
		out = append(out, g)
	}
	return paged(c, out, nil, func(g fieldGaps) any { return g })
}

func gapsOf(t *anomaly.FieldTally, needed [anomaly.NFields]bool) fieldGaps {
	g := fieldGaps{ProductID: t.Product, Service: t.Service, Calls: t.Calls, Needed: []string{}, Missing: map[string]uint64{}}
	for f := range anomaly.NFields {
		if !needed[f] {
			continue
		}
		g.Needed = append(g.Needed, f.String())
		if n := t.Missing[f]; n > 0 {
			g.Missing[f.String()] = n
		}
	}
	g.Complete = len(g.Missing) == 0
	return g
}

func fieldWords() (words []any) {
	for f := range anomaly.NFields {
		words = append(words, f.String())
	}
	return words
}
