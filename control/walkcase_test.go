package control_test

import (
	"encoding/json"
	"testing"

	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
)

// answeredWhole describes a product, hands evidence of every type in, and answers
// all that is asked such that it passes; the case that this makes comes back. The
// product must be a Draft meanwhile.
func (w *world) answeredWhole(t *testing.T, id, owner string) casework.Certification {
	t.Helper()
	w.put(t, func(t *registry.Tx) error {
		p := *t.View().Product(id)
		p.Certification = registry.Certification{}
		return t.PutProduct(p)
	})
	at := "/v1/certifications/" + id
	w.call(owner, "POST", at+"/begin", `{}`).data(t, 200, &struct{}{})
	w.call(owner, "POST", at+"/describe", `{"commercial":true,"hosting":"onshore","authentication":"passkeys","services":["as.0004.submit"]}`).data(t, 200, &struct{}{})
	var evidence []string
	for query, content := range controltest.Evidence(id) {
		var e struct{ Address string }
		w.call(owner, "POST", "/v1/products/"+id+"/evidence?"+query, content, header("Content-Type", "application/octet-stream")).data(t, 201, &e)
		evidence = append(evidence, e.Address)
	}
	tried := map[string]int{}
	for range 40 {
		var m struct{ Questions []controltest.Asked }
		w.call(owner, "GET", at+"/questions", nil).data(t, 200, &m)
		answers := controltest.Answers(m.Questions, evidence, tried, nil)
		if len(answers) == 0 {
			book, err := w.reg.Casebook()
			if err != nil {
				t.Fatal(err)
			}
			x, err := registry.CaseOf[casework.Certification](book, id)
			if err != nil {
				t.Fatal(err)
			}
			x.Body.Steps = nil
			return x.Body
		}
		b, err := json.Marshal(map[string]any{"answers": answers})
		if err != nil {
			t.Fatal(err)
		}
		w.call(owner, "POST", at+"/answers", string(b)).data(t, 200, &struct{}{})
	}
	t.Fatalf("%s: the questions never pass", id)
	return casework.Certification{}
}

// closeVerifications closes what is open of a product, by the store's own means.
func (w *world) closeVerifications(t *testing.T, product string) {
	t.Helper()
	book, err := w.reg.Casebook()
	if err != nil {
		t.Fatal(err)
	}
	for id := range book.All(registry.Query{Kind: "verification", Where: []registry.Where{{Index: "product_id", Value: product}}}) {
		x, err := registry.CaseOf[assurance.Verification](book, id)
		if err != nil {
			t.Fatal(err)
		}
		if x.Body.Closed.Set() {
			continue
		}
		w.put(t, func(t *registry.Tx) error {
			x.Body.Closed = t.Now()
			return registry.PutCase(t, id, x.Body)
		})
	}
}
