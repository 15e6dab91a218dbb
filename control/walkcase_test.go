package control_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
)

// asked is a question as the API asks it.
type asked struct {
	ID, Kind, Mark string
	Answered       bool
	Choices        []struct{ Value string }
}

// tries are answers of the kind of question, likely ones first.
func (q *asked) tries() (all [][]string) {
	switch q.Kind {
	case "yes-no":
		return [][]string{{"yes"}, {"no"}}
	case "number":
		return [][]string{{"12"}, {"24"}, {"0"}, {"1"}, {"100"}}
	case "date":
		return [][]string{{time.Now().AddDate(0, -1, 0).Format(time.DateOnly)}, {time.Now().AddDate(1, 0, 0).Format(time.DateOnly)}}
	case "https-url":
		return [][]string{{"https://api.product.example/"}}
	case "text":
		return [][]string{{"As our handbook says, reviewed each quarter."}}
	}
	var every []string
	for _, c := range q.Choices {
		all = append(all, []string{c.Value})
		every = append(every, c.Value)
	}
	return append(all, every, []string{})
}

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
	for typ, content := range map[string]string{
		"certificate": "%PDF-1.7\na certificate\n%%EOF\n", "self-assessment": "%PDF-1.7\na workbook\n%%EOF\n", "policy": "a policy", "screenshot": "\x89PNG\r\n\x1a\n a page",
		"sample-log": "event time user success", "scan-report": "a scan", "diagram": "%PDF-1.7\na diagram\n%%EOF\n", "attestation": "attested", "test-report": "tested",
	} {
		query := "?type=" + typ
		if typ == "certificate" {
			query += "&issued_at=" + time.Now().AddDate(0, -1, 0).UTC().Format(time.RFC3339) + "&expires_at=" + time.Now().AddDate(0, 9, 0).UTC().Format(time.RFC3339)
		}
		var e struct{ Address string }
		w.call(owner, "POST", "/v1/products/"+id+"/evidence"+query, content, header("Content-Type", "application/octet-stream")).data(t, 201, &e)
		evidence = append(evidence, e.Address)
	}
	tried := map[string]int{}
	for range 40 {
		var m struct{ Questions []asked }
		w.call(owner, "GET", at+"/questions", nil).data(t, 200, &m)
		answers := map[string]any{}
		for _, q := range m.Questions {
			if q.Mark == "pass" || q.Mark == "warn" && q.Answered {
				continue
			}
			all := q.tries()
			answers[q.ID] = map[string]any{"values": all[tried[q.ID]%len(all)], "evidence": evidence}
			tried[q.ID]++
		}
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
