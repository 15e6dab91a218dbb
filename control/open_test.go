package control_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
)

// Every question that the framework leaves open is configuration: what the API
// answers with the stated default, and with another answer.
func TestOpenQuestionsAreConfiguration(t *testing.T) {
	in := func(months int) string { return time.Now().UTC().AddDate(0, months, 0).Format("2006-01") }
	for _, c := range []struct {
		question string
		other    func(*certification.Open)
		ask      func(t *testing.T, w *world) string
		byRule   string // what is answered by default
		changed  string
	}{
		{"whether the cloud provider of row 6 registers", func(o *certification.Open) { o.CloudProviderRegisters = false }, func(t *testing.T, w *world) string {
			var x struct {
				Obliged []struct {
					Party    string
					Register bool
				} `json:"obligations"`
			}
			w.call(operator, "GET", "/v1/products/FP-1001/requirements", nil).data(t, 200, &x)
			for _, o := range x.Obliged {
				if o.Party == "73000000606" && o.Register {
					return "registers"
				}
			}
			return "need not"
		}, "registers", "need not"},
		{"what 24 hours run from", func(o *certification.Open) { o.IncidentAnchor = "aware" }, func(t *testing.T, w *world) string {
			return w.incident(t, 1).Clocks[0].Status
		}, "overdue", "running"},
		{"from how many records a level is high", func(o *certification.Open) { o.HighRecords = 50 }, func(t *testing.T, w *world) string {
			return w.incident(t, 60).Level
		}, "medium", "high"},
		{"how long an entry is valid", func(o *certification.Open) { o.ValidityMonths = 6 }, func(t *testing.T, w *world) string {
			return w.certified(t, "approve", "Whitelisted", `{}`)
		}, in(12), in(6)},
		{"how long an interim approval lasts", func(o *certification.Open) { o.InterimMonths = 3 }, func(t *testing.T, w *world) string {
			return w.certified(t, "interim", "Draft", `{"basis":"grandfathered","owed":["OSF-AUT"],"services":["as.0004.submit"]}`)
		}, in(6), in(3)},
		{"exactly 10,000 records", func(o *certification.Open) { o.ExactlyMany = false }, func(t *testing.T, w *world) string {
			w.certified(t, "describe", "Draft", `{"commercial":true,"records":10000,"services":["as.0004.submit"]}`)
			return w.category(t, "FP-1002")
		}, "A", "C"},
		{"the category of in-house products", func(o *certification.Open) { o.InHouseCategory = "D" }, func(t *testing.T, w *world) string {
			return w.category(t, "FP-1006")
		}, "E", "D"},
		{"which ratings a pilot needs an approval for", func(o *certification.Open) { o.PilotRisk = 4 }, func(t *testing.T, w *world) string {
			w.certified(t, "", "SelfCertified", "")
			if r := w.call(assessor, "POST", "/v1/certifications/FP-1002/pilot", `{"named_clients":["56000001313"],"services":["as.0004.get"]}`); r.status != 200 {
				return r.refused(t, 422, "invalid").Source.Pointer
			}
			return "begun"
		}, "/services/0", "begun"},
		{"the form of a Product ID", func(o *certification.Open) { o.ProductID, o.ProductIDPrefix = `^X[0-9]+$`, "X" }, func(t *testing.T, w *world) string {
			if r := w.call(registrar, "POST", "/v1/products", `{"id":"X77","name":"x","owner":"65000000101"}`); r.status != 201 {
				return r.refused(t, 422, "invalid").Source.Pointer
			}
			return "taken"
		}, "/id", "taken"},
		{"who may see eligibility", func(o *certification.Open) { o.EligibilitySeenBy = []string{"registrar", "auditor"} }, func(t *testing.T, w *world) string {
			var seen []string
			if w.call(auditor, "GET", "/v1/entities/35000001111/checks", nil).status == 200 {
				seen = append(seen, "list")
			}
			for name, path := range map[string]string{"one": "/v1/entities/35000001111", "all": "/v1/entities?name=currawong"} {
				if strings.Contains(w.call(auditor, "GET", path, nil).body, "REG-3") {
					seen = append(seen, name)
				}
				if !strings.Contains(w.call(registrar, "GET", path, nil).body, "REG-3") {
					t.Errorf("a registrar does not see it at %s", path)
				}
			}
			return map[int]string{0: "nothing", 3: "all of it"}[len(seen)]
		}, "nothing", "all of it"},
	} {
		t.Run(c.question, func(t *testing.T) {
			if got := c.ask(t, newWorld(t)); got != c.byRule {
				t.Errorf("by default: %q, want %q", got, c.byRule)
			}
			o := certification.OpenDefaults()
			c.other(&o)
			if got := c.ask(t, newWorldWhere(t, o)); got != c.changed {
				t.Errorf("answered otherwise: %q, want %q", got, c.changed)
			}
		})
	}
}

type openIncident struct {
	ID, Level string
	Clocks    []struct{ Status string }
}

// incident is one of so many records, that was known of 29 hours after it happened.
func (w *world) incident(t *testing.T, records int) (x openIncident) {
	t.Helper()
	w.call(officer, "POST", "/v1/incidents", map[string]any{"title": "x", "type": "unauthorised-access", "entity": "65000000101", "subjects": []any{map[string]any{"kind": "product", "id": "FP-1001"}},
		"occurred_at": time.Now().Add(-30 * time.Hour), "aware_at": time.Now().Add(-time.Hour), "exposure": map[string]any{"records": records}}).data(t, 201, &x)
	w.call(officer, "POST", "/v1/incidents/"+x.ID+"/triage", `{}`).data(t, 200, &x)
	return x
}

// certified puts FP-1002 into a state, with runs of both services seen, gives a
// command, and returns the month in which its approval ends.
func (w *world) certified(t *testing.T, command, state, body string) string {
	t.Helper()
	const id = "FP-1002"
	w.put(t, func(tx *registry.Tx) error {
		c, p := placedCertification(tx.Now(), casework.Certification{Product: id, Deployment: casework.Deployment{Commercial: true, Services: []string{"as.0004.submit", "as.0004.get"}}}, *tx.View().Product(id), state, command)
		c.Conformance[0].Passed = c.Deployment.Services
		if err := registry.PutCase(tx, id, c); err != nil {
			return err
		}
		return tx.PutProduct(p)
	})
	if command == "" {
		return ""
	}
	var x struct {
		Certification struct {
			Until time.Time `json:"valid_until"`
		}
	}
	w.call(assessor, "POST", "/v1/certifications/"+id+"/"+command, body).data(t, 200, &x)
	return x.Certification.Until.UTC().Format("2006-01")
}

func (w *world) category(t *testing.T, product string) string {
	t.Helper()
	var x struct{ Category string }
	w.call(assessor, "GET", "/v1/products/"+product+"/requirements", nil).data(t, 200, &x)
	return x.Category
}
