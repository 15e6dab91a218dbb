package control_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// belongings are what an entity has in the register and in the casework: a text
// that stands in all of it, and the IDs by the path they are found under.
type belongings struct {
	abn, dev, product, secret string
	ids                       map[string]string
}

// furnish gives an entity one of everything.
func (w *world) furnish(t *testing.T, b *belongings) {
	t.Helper()
	made := func(as, method, path string, body any, opts ...option) string {
		t.Helper()
		var out struct{ ID string }
		r := w.call(as, method, path, body, opts...)
		if r.status >= 300 {
			t.Fatalf("%s %s: %s", method, path, r)
		}
		env := struct{ Data any }{&out}
		_ = json.Unmarshal([]byte(r.body), &env)
		return out.ID
	}
	subject := map[string]any{"kind": "product", "id": b.product}
	text := map[string]any{"product_id": b.product, "name": b.secret, "developer": b.secret, "title": b.secret, "scope": b.secret, "requirement": "OSF-AUD", "finding": b.secret}
	only := func(members ...string) map[string]any {
		out := map[string]any{}
		for _, m := range members {
			out[m] = text[m]
		}
		return out
	}
	thumb := strings.Repeat("B", 34) + b.product[3:] + b.abn[:5]
	made(registrar, "POST", "/v1/credentials", map[string]any{"thumbprint": thumb, "abn": b.abn, "name": b.secret})
	made(registrar, "POST", "/v1/subscriptions", map[string]any{"ssid": "0009" + b.abn[:6], "product_id": b.product, "client_abn": "56000001313"})
	made(operator, "POST", "/v1/limits", map[string]any{"subject": subject, "name": "own", "kind": "rate", "amount": 7})
	b.ids = map[string]string{
		"entities": b.abn, "registrations": b.abn, "products": b.product, "certifications": b.product, "client-apps": strings.ToLower(b.product) + "-evte",
		"credentials": thumb, "subscriptions": "0009" + b.abn[:6], "limits": "product:" + b.product + ":own",
		"suspensions":     made(operator, "POST", "/v1/suspensions", map[string]any{"subject": subject, "reason": b.secret}),
		"notices":         made(operator, "POST", "/v1/notices", map[string]any{"subject": subject, "reason": b.secret, "effective_at": time.Now().Add(time.Hour)}),
		"evidence":        made(b.dev, "POST", "/v1/products/"+b.product+"/evidence?type=policy&note="+url.QueryEscape(b.secret), "policy of "+b.secret, header("Content-Type", "application/octet-stream")),
		"verifications":   made(assessor, "POST", "/v1/verifications", map[string]any{"product_id": b.product, "requirements": []string{"OSF-BRN"}}),
		"findings":        made(assessor, "POST", "/v1/findings", only("product_id", "requirement", "finding")),
		"add-ons":         made(b.dev, "POST", "/v1/add-ons", only("product_id", "name", "developer")),
		"threat-analyses": made(b.dev, "POST", "/v1/threat-analyses", map[string]any{"product_id": b.product, "title": b.secret, "scope": b.secret, "threats": []any{map[string]any{"title": b.secret, "scenario": "x", "likelihood": "low", "impact": "low", "treatment": "accept"}}}),
		"reports":         made(assessor, "POST", "/v1/products/"+b.product+"/reports", map[string]any{}),
		"incidents": made(officer, "POST", "/v1/incidents", map[string]any{"title": b.secret, "type": "availability", "entity": b.abn, "subjects": []any{subject},
			"occurred_at": time.Now().Add(-time.Hour), "aware_at": time.Now().Add(-time.Minute)}),
	}
	abn, err := registry.ParseABN(b.abn)
	if err != nil {
		t.Fatal(err)
	}
	id := authz.NewIDs().Next(time.Now())
	w.records[id] = authz.Record{ID: id, ProductID: b.product, Holder: abn, Reason: authz.ProductSuspended, At: registry.At(time.Now()), Service: "abr.lookup"}
	b.ids["decisions"] = id.String()
}

// says tells what of somebody's stands in a text: its secret, or an ID as a whole.
func (b *belongings) says(body string) (out []string) {
	if strings.Contains(body, b.secret) {
		out = append(out, b.secret)
	}
	for _, id := range b.ids {
		if strings.Contains(body, `"`+id+`"`) || strings.Contains(body, "\n"+id+",") || strings.Contains(body, ","+id+",") {
			out = append(out, id)
		}
	}
	return out
}

type described struct {
	method, path, id, description string
	query                         []string
	streams                       bool
}

func describedOperations(t *testing.T, w *world) (all []described) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID, Description string
			Parameters               []struct{ Name, In string }
			Responses                map[string]struct{ Content map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(w.call(nobody, "GET", "/openapi.json", nil).body), &doc); err != nil {
		t.Fatal(err)
	}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			d := described{method: strings.ToUpper(method), path: path, id: op.OperationID, description: op.Description}
			for _, p := range op.Parameters {
				if p.In == "query" {
					d.query = append(d.query, p.Name)
				}
			}
			_, d.streams = op.Responses["200"].Content["text/event-stream"]
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b described) int { return strings.Compare(a.id, b.id) })
	return all
}

// fill puts somebody's IDs into a path; known is false where no kind of thing is.
func (b *belongings) fill(path string) (filled string, known bool) {
	noun, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	id, known := b.ids[noun]
	if !known {
		id = "none-such"
	}
	return strings.NewReplacer("{abn}", b.abn, "{id}", url.PathEscape(id), "{version}", "1.0", "{environment}", "PROD", "{service}", "abr.lookup", "{period}", "2001", "{question}", "ECO.1", "{request}", "LR-1").Replace(path), known && strings.Contains(path, "{")
}

// values are what somebody's things would be asked for by, in a query.
func (b *belongings) values(param string) []string {
	switch param {
	case "product_id", "subject", "q", "word":
		return []string{b.product}
	case "owner", "entity", "abn":
		return []string{b.abn}
	case "client_abn":
		return []string{"56000001313"}
	case "name":
		return []string{b.secret}
	case "about":
		return []string{"incident/" + b.ids["incidents"], "certification/" + b.product}
	case "format":
		return []string{"csv", "json"}
	case "limit":
		return []string{"100"}
	}
	return nil
}

// C01, for every operation of the description and generated pairs of entities:
// nothing that names another's things, in the path, the query or the body, shows
// or changes any of them, and 404 is all that is told.
func TestNoPermissionReachesAnotherEntitysData(t *testing.T) {
	w := newWorld(t)
	all := []*belongings{
		{abn: "65000000101", dev: wattlebird, product: "FP-1001"}, {abn: "31000000202", dev: kookaburra, product: "FP-1003"}, {abn: "52000000404", dev: "dev@banksia.example", product: "FP-1004"},
		{abn: "86000000303", dev: "dev@ironbark.example", product: "FP-1002"}, {abn: "69000001010", dev: "dev@galah.example", product: "FP-1009"},
	}
	for _, b := range all {
		b.secret = "secret-of-" + b.dev
		w.furnish(t, b)
	}
	ops := describedOperations(t, w)
	if len(ops) < 100 {
		t.Fatalf("only %d operations", len(ops))
	}
	const seed = 2
	r := rand.New(rand.NewPCG(seed, seed))
	for i, b := range all {
		a := all[(i+1+r.IntN(len(all)-1))%len(all)]
		before := w.revision(t)
		for _, op := range ops {
			if op.description == "For everybody, without sign-in." || op.streams {
				continue
			}
			w.trespass(t, op, a, b)
		}
		if after := w.revision(t); after != before {
			t.Errorf("%s changed something while reaching for what is %s's: revision %d became %d", a.dev, b.dev, before, after)
		}
	}
}

func (w *world) revision(t *testing.T) registry.Revision {
	t.Helper()
	v, err := w.reg.View()
	if err != nil {
		t.Fatal(err)
	}
	return v.Revision
}

// trespass tries one operation as a on what is b's.
func (w *world) trespass(t *testing.T, op described, a, b *belongings) {
	t.Helper()
	path, known := b.fill(op.path)
	forOthers := strings.HasPrefix(op.description, "For: ") && !strings.Contains(op.description, "developer")
	what := fmt.Sprintf("%s as %s for %s's", op.id, a.dev, b.dev)
	if op.method != "GET" {
		example := bodies[op.id]
		body := strings.NewReplacer("FP-1001", b.product, "65000000101", b.abn, "94000000808", b.abn, "none-such", b.ids["evidence"]).Replace(example)
		if !known && body == example {
			return // it names nobody's
		}
		var sent any
		if body != "" {
			sent = body
		}
		got := w.call(a.dev, op.method, path, sent)
		switch {
		case known && !forOthers && got.status != 404, got.status < 400, got.status >= 500:
			t.Errorf("%s: %s", what, got)
		case forOthers && got.status != 403 && got.status != 404:
			t.Errorf("%s: %s", what, got)
		}
		return
	}
	try := func(path string, unknown bool) {
		got := w.call(a.dev, "GET", path, nil)
		data, _, _ := strings.Cut(got.body, `"_links"`)
		switch said := b.says(data); {
		case got.status < 300 && len(said) > 0:
			t.Errorf("%s, %s shows %v", what, path, said)
		case got.status >= 500:
			t.Errorf("%s, %s: %s", what, path, got)
		case unknown && got.status != 404 && !(forOthers && got.status == 403):
			t.Errorf("%s, %s: %s", what, path, got)
		}
	}
	query := ""
	if slices.Contains(op.query, "format") {
		query = "?format=csv"
	}
	try(path+query, known)
	for _, param := range op.query {
		for _, v := range b.values(param) {
			q := url.Values{param: {v}}
			if query != "" && param != "format" {
				q.Set("format", "json")
			}
			try(path+"?"+q.Encode(), known)
		}
	}
}
