package control_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/control"
)

// example bodies that are right in form, by operation; what they do does not
// matter here, only whether one may.
var bodies = map[string]string{
	"create-entity":         `{"abn":"94000000808","name":"x"}`,
	"update-entity":         `{"name":"x"}`,
	"create-product":        `{"id":"FP-1001","name":"x","owner":"65000000101"}`,
	"update-product":        `{"name":"x","owner":"65000000101"}`,
	"create-version":        `{"version":"9.9"}`,
	"update-version":        `{"state":"active"}`,
	"set-entitlement":       `{"stage":"PROD"}`,
	"create-client-app":     `{"client_id":"x","product_id":"FP-1001","environment":"EVTE"}`,
	"update-client-app":     `{"disabled":false}`,
	"create-credential":     `{"thumbprint":"` + strings.Repeat("A", 43) + `","abn":"65000000101"}`,
	"update-credential":     `{}`,
	"create-subscription":   `{"ssid":"0000999999","product_id":"FP-1001","client_abn":"56000001313"}`,
	"nominate-subscription": `{"nominated":true}`,
	"create-service":        `{"key":"x","method":"GET","template":"/x","risk":1}`,
	"update-service":        `{"method":"GET","template":"/x","risk":1}`,
	"create-limit":          `{"subject":{"kind":"product","id":"FP-1001"},"name":"x","kind":"rate","amount":0}`,
	"preview-limit":         `{"subject":{"kind":"product","id":"FP-1001"},"name":"x","kind":"rate","amount":5}`,
	"set-limit":             `{"kind":"rate","amount":5}`,
	"set-tier":              `{"tier":"standard"}`,
	"suspend":               `{"subject":{"kind":"product","id":"FP-1001"},"reason":"x","expires_at":"2001-01-01T00:00:00Z"}`,
	"preview-suspension":    `{"subject":{"kind":"product","id":"FP-1001"}}`,
	"confirm-suspension":    `{}`,
	"lift-suspension":       `{}`,
	"issue-notice":          `{"subject":{"kind":"product","id":"FP-1001"},"reason":"x","effective_at":"2001-01-01T00:00:00Z"}`,
	"deny-token":            `{"what":"kid","issuer":"x","value":"x","reason":"x","expires_at":"2001-01-01T00:00:00Z"}`,
	"lift-token-denial":     `{}`,
	"make-token":            `{"name":"x","expires_at":"2001-01-01T00:00:00Z"}`,
	"invite":                `{"email":"dev@wattlebird.example"}`,
	"accept-invitation":     `{"code":"x"}`,

	"apply":                  `{"abn":"94000000808","form":{"name":"x","roles":["D"],"applicant":{"name":"x","email":"none"}}}`,
	"revise-registration":    `{"form":{"name":"x","roles":["D"],"applicant":{"name":"x","email":"none"}}}`,
	"submit-registration":    `{"terms_version":"none","name":"x"}`,
	"withdraw-registration":  `{}`,
	"ask-applicant":          `{"question":"x"}`,
	"reply-to-question":      `{"answer":"x"}`,
	"record-check":           `{"check":"none","outcome":"pass","source":"x"}`,
	"admit":                  `{}`,
	"reject":                 `{"trigger":"none"}`,
	"tell-entity-change":     `{"note":"x"}`,
	"confirm-entity-changes": `{}`,
	"answer-entity-review":   `{"note":"x"}`,
	"cancel-entity":          `{"reason":"x"}`,
	"add-product":            `{"name":"x","scenario":4}`,
	"open-test":              `{"product_id":"none"}`,
	"accept-terms":           `{"terms_version":"none","name":"x"}`,
	"propose-edition":        `{"of":"catalogue","catalogue":"x"}`,
	"publish-edition":        `{}`,
	"withdraw-edition":       `{}`,

	"begin-certification":         `{}`,
	"describe-deployment":         `{}`,
	"answer-questions":            `{"answers":{}}`,
	"request-exception":           `{"requirement":"OSF-AUT","compensating_control":"x","expires_at":"2001-01-01T00:00:00Z"}`,
	"approve-exception":           `{"requirement":"OSF-AUT"}`,
	"submit-certification":        `{"name":"x"}`,
	"recall-certification":        `{}`,
	"send-back-certification":     `{"reason":"x"}`,
	"start-verification":          `{}`,
	"conform":                     `{"decisions":["x"]}`,
	"approve-high-risk":           `{"services":["none"]}`,
	"pilot":                       `{"named_clients":["56000001313"]}`,
	"pass-scenario":               `{"decisions":["x"]}`,
	"approve-certification":       `{}`,
	"approve-interim":             `{"basis":"conditional","owed":["none"]}`,
	"restrict":                    `{"reason":"x"}`,
	"request-review":              `{"reason":"x"}`,
	"answer-certification-review": `{"note":"x"}`,
	"tell-product-change":         `{}`,
	"announce-suspension":         `{"reason":"x"}`,
	"reinstate":                   `{}`,
	"delist":                      `{"reason":"x"}`,

	"submit-evidence":        "a policy",
	"approve-evidence":       `{}`,
	"open-verification":      `{"product_id":"FP-1001","requirements":["none"]}`,
	"record-test":            `{"requirement":"OSF-AUT","method":"automated","outcome":"pass"}`,
	"close-verification":     `{"summary":"x"}`,
	"raise-finding":          `{"product_id":"FP-1001","requirement":"none","finding":"x"}`,
	"answer-finding":         `{"response":"x"}`,
	"close-finding":          `{"note":"x"}`,
	"reopen-finding":         `{"note":"x"}`,
	"commit-draw":            `{"period":"2000"}`,
	"draw":                   `{}`,
	"declare-add-on":         `{"product_id":"FP-1001","name":"x","developer":"x","ssids":["none"]}`,
	"change-add-on":          `{"name":"x","developer":"x"}`,
	"suspend-add-on":         `{"reason":"x"}`,
	"answer-ecosystem":       `{"values":["none"]}`,
	"submit-threat-analysis": `{"product_id":"FP-1001","title":"x","scope":"x"}`,
	"run-checks":             `{}`,
	"import-products":        "none",

	"raise-incident":         `{"title":""}`,
	"receive-incident":       `{"from":"x","text":"x"}`,
	"amend-incident":         `{"title":"x"}`,
	"triage-incident":        `{}`,
	"contain-incident":       `{"how":"x"}`,
	"log-requests-incident":  `{"entity":"65000000101","what":"x","due":"2100-01-01T00:00:00Z"}`,
	"answer-log-request":     `{"evidence":"x"}`,
	"plan-incident":          `{"treatment":[{"what":"x","owner":"x","due":"2100-01-01T00:00:00Z"}]}`,
	"assess-incident":        `{"eligible":false}`,
	"notify-incident":        `{"audiences":["entity"]}`,
	"close-incident":         `{"cause":"x","done":"x"}`,
	"dismiss-incident":       `{"reason":"x"}`,
	"appeal-incident":        `{"grounds":"x"}`,
	"decide-appeal-incident": `{"upheld":true,"reason":"x"}`,
	"propose-policy":         `{"purpose":"x","when":{},"then":{"do":"observe"}}`,
	"preview-policy":         `{"when":{},"then":{"do":"observe"}}`,
	"enforce-policy":         `{"reason":"x"}`,
	"relax-policy":           `{"reason":"x"}`,
	"stop-policy":            `{"reason":"x"}`,
	"confirm-alarm":          `{}`,
	"dismiss-alarm":          `{"reason":"x"}`,
	"set-protected-clients":  `# none`,
}

type operation struct{ method, path, id, description string }

func operations(t *testing.T, w *world) []operation {
	var doc struct {
		Paths map[string]map[string]struct{ OperationID, Description string }
	}
	if err := json.Unmarshal([]byte(w.call(nobody, "GET", "/openapi.json", nil).body), &doc); err != nil {
		t.Fatal(err)
	}
	var out []operation
	for path, ops := range doc.Paths {
		for method, op := range ops {
			out = append(out, operation{strings.ToUpper(method), path, op.OperationID, op.Description})
		}
	}
	slices.SortFunc(out, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return out
}

// fill puts the IDs of what Wattlebird owns into a path.
func fillPath(path string) string {
	id := "FP-1001"
	switch {
	case strings.Contains(path, "client-apps"):
		id = "fp-1001-prod"
	case strings.Contains(path, "subscriptions"):
		id = "0000123400"
	case strings.HasPrefix(path, "/v1/limits"):
		id = "product:FP-1001:x"
	case strings.Contains(path, "services"):
		id = "abr.lookup"
	case strings.Contains(path, "/v1/evidence"), strings.Contains(path, "/v1/incidents"), strings.Contains(path, "verifications"), strings.Contains(path, "findings"), strings.Contains(path, "add-ons"), strings.Contains(path, "threat-analyses"), strings.Contains(path, "/v1/reports"), strings.HasPrefix(path, "/v1/policies"), strings.HasPrefix(path, "/v1/alarms"), strings.Contains(path, "/v1/editions"):
		id = "none-such"
	case strings.Contains(path, "suspensions"), strings.Contains(path, "notices"), strings.Contains(path, "token-denials"), strings.Contains(path, "decisions"), strings.Contains(path, "credentials"):
		id = "none-such"
	}
	return strings.NewReplacer("{abn}", "65000000101", "{id}", url.PathEscape(id), "{version}", "5.0", "{environment}", "PROD", "{service}", "abr.lookup", "{period}", "2001", "{question}", "ECO.1", "{request}", "none-such").Replace(path)
}

// Who may do what, for every operation of the description, as the description
// itself and the contract say: whoever is not named is refused with 403, or 404
// where one may not even know of the thing; whoever is named is not.
func TestPermissionsOfEveryOperation(t *testing.T) {
	w := retried(newWorld(t))
	roles := map[string]string{operator2: "operator", officer: "incident-officer", registrar: "registrar", assessor: "assessor", auditor: "auditor", wattlebird: "developer"}
	ops := operations(t, w)
	if len(ops) < 45 {
		t.Fatalf("only %d operations", len(ops))
	}
	for _, op := range ops {
		for name, role := range roles {
			t.Run(op.id+"/"+role, func(t *testing.T) {
				var body any
				if b, ok := bodies[op.id]; ok {
					body = b
				} else if op.method != "GET" && op.method != "DELETE" {
					t.Fatalf("no body for %s", op.id)
				}
				path := fillPath(op.path)
				if op.method != "GET" {
					// The change itself must not happen: the precondition never holds.
					path = strings.Replace(path, "65000000101", "94000000808", 1)
				}
				if role == "developer" {
					path = fillPath(op.path)
				}
				method := op.method
				if op.id == "follow-events" {
					method = "HEAD" // the stream itself goes on
				}
				r := w.call(name, method, path, body, header("If-Match", `"999999999"`))
				named, restricted := strings.CutPrefix(op.description, "For: ")
				named, _, _ = strings.Cut(named, ". ") // what follows is about people without a role
				allowed := !restricted || slices.Contains(strings.Split(strings.TrimSuffix(named, "."), ", "), role)
				switch {
				case allowed && r.status == 403:
					t.Errorf("refused: %s", r)
				case !allowed && r.status != 403 && !(role == "developer" && r.status == 404):
					t.Errorf("not refused: %s", r)
				case r.status >= 500:
					t.Errorf("broke: %s", r)
				case role == "auditor" && op.method != "GET" && r.status < 400:
					t.Errorf("an auditor changed something: %s", r)
				}
			})
		}
		t.Run(op.id+"/nobody", func(t *testing.T) {
			r := w.call(nobody, op.method, fillPath(op.path), nil)
			if want := op.description == "For everybody, without sign-in."; (r.status == 401) == want {
				t.Errorf("public %v, got %s", want, r)
			}
		})
	}
}

// C01: a developer reads, suspends, changes or lists what is another's, by ID,
// by filter, in a listing: 404, or nothing.
func TestC01ADeveloperNeverMeetsWhatIsAnothers(t *testing.T) {
	w := retried(newWorld(t))
	const product = "FP-1003" // Kookaburra's
	var s struct{ ID string }
	w.call(operator, "POST", "/v1/suspensions", map[string]any{"subject": map[string]any{"kind": "product", "id": product}, "reason": "C01"}).data(t, 201, &s)
	var n struct{ ID string }
	w.call(operator, "POST", "/v1/notices", map[string]any{"subject": map[string]any{"kind": "product", "id": product}, "reason": "C01", "effective_at": time.Now().Add(time.Hour)}).data(t, 201, &n)

	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/entities/31000000202", ""},
		{"GET", "/v1/entities/31000000202/checks", ""},
		{"PUT", "/v1/entities/31000000202", `{"name":"x"}`},
		{"GET", "/v1/products/FP-1003", ""},
		{"GET", "/v1/products/FP-1003/versions", ""},
		{"GET", "/v1/products/FP-1003/entitlements", ""},
		{"GET", "/v1/products/FP-1003/certification", ""},
		{"PUT", "/v1/products/FP-1003", `{"name":"x","owner":"65000000101"}`},
		{"POST", "/v1/products/FP-1003/versions", `{"version":"9"}`},
		{"GET", "/v1/certifications/FP-1003", ""},
		{"GET", "/v1/certifications/FP-1003/questions", ""},
		{"POST", "/v1/certifications/FP-1003/begin", `{}`},
		{"POST", "/v1/certifications/FP-1003/submit", `{"name":"x"}`},
		{"POST", "/v1/certifications/FP-1003/answers", `{"answers":{}}`},
		{"POST", "/v1/certifications/FP-1003/tell-change", `{}`},
		{"POST", "/v1/certifications/FP-1003/conformance-runs", `{"decisions":["x"]}`},
		{"GET", "/v1/registrations/31000000202", ""},
		{"POST", "/v1/registrations/31000000202/withdraw", `{}`},
		{"POST", "/v1/registrations/31000000202/changes", `{"note":"x"}`},
		{"GET", "/v1/client-apps/fp-1003-prod", ""},
		{"PUT", "/v1/client-apps/fp-1003-prod", `{"disabled":true}`},
		{"GET", "/v1/subscriptions/0000300001", ""},
		{"POST", "/v1/subscriptions/0000300001/nominate", `{"nominated":false}`},
		{"GET", "/v1/suspensions/" + s.ID, ""},
		{"POST", "/v1/suspensions/" + s.ID + "/lift", `{}`},
		{"POST", "/v1/suspensions/" + s.ID + "/confirm", `{}`},
		{"GET", "/v1/notices/" + n.ID, ""},
		{"POST", "/v1/suspensions", `{"subject":{"kind":"product","id":"FP-1003"},"reason":"x"}`},
		{"GET", "/v1/products/FP-1003/requirements", ""},
		{"GET", "/v1/products/FP-1003/ecosystem", ""},
		{"PUT", "/v1/products/FP-1003/ecosystem/answers/ECO.1", `{"values":["no"]}`},
		{"POST", "/v1/products/FP-1003/evidence?type=policy", `a policy`},
		{"GET", "/v1/products/FP-1003/risk", ""},
		{"GET", "/v1/entities/31000000202/signals", ""},
		{"POST", "/v1/add-ons", `{"product_id":"FP-1003","name":"x","developer":"x"}`},
		{"POST", "/v1/threat-analyses", `{"product_id":"FP-1003","title":"x","scope":"x","threats":[{"title":"x","scenario":"x","likelihood":"low","impact":"low","treatment":"accept"}]}`},
		{"POST", "/v1/suspensions", `{"subject":{"kind":"entity","id":"31000000202"},"reason":"x"}`},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			var body any
			if c.body != "" {
				body = c.body
			}
			r := w.call(wattlebird, c.method, c.path, body)
			r.refused(t, 404, "not-found")
			// The same of a thing that does not exist reads the same, but for its name.
			none := strings.NewReplacer("FP-1003", "FP-0000", "fp-1003-prod", "fp-0000-prod", "31000000202", "64000000121", "0000300001", "0000300000", s.ID, "SU-99999", n.ID, "NT-99999")
			if body != nil {
				body = none.Replace(c.body)
			}
			other := w.call(wattlebird, c.method, none.Replace(c.path), body)
			if got, want := none.Replace(noID(r.body)), noID(other.body); other.status != 404 || got != want {
				t.Errorf("another's can be told from nobody's:\n%s\n%s", got, want)
			}
		})
	}
	for _, path := range []string{
		"/v1/entities", "/v1/products", "/v1/products?owner=31000000202", "/v1/products?entity=31000000202", "/v1/client-apps", "/v1/client-apps?product_id=FP-1003",
		"/v1/client-apps?owner=31000000202", "/v1/subscriptions?product_id=FP-1003", "/v1/subscriptions?client_abn=56000001313", "/v1/suspensions", "/v1/suspensions?subject=FP-1003",
		"/v1/suspensions?product_id=FP-1003", "/v1/notices", "/v1/credentials", "/v1/decisions?product_id=FP-1003", "/v1/me",
	} {
		t.Run("GET "+path, func(t *testing.T) {
			r := w.call(wattlebird, "GET", path, nil)
			if r.status != 200 {
				t.Fatalf("got %s", r)
			}
			// FP-1003 and its owner stand in none of its own records.
			for _, foreign := range []string{`"FP-1003"`, "31000000202", "fp-1003-prod", "0000300001", s.ID + `"`} {
				if strings.Contains(r.body[:strings.Index(r.body+`"_links"`, `"_links"`)], foreign) {
					t.Errorf("shows %s: %s", foreign, r.body)
				}
			}
		})
	}
	// And it does see its own.
	var own []struct{ ID string }
	w.call(wattlebird, "GET", "/v1/products", nil).data(t, 200, &own)
	if fmt.Sprint(own) != "[{FP-1001} {FP-1011}]" {
		t.Errorf("own products: %v", own)
	}
}

func noID(body string) string {
	_, rest, _ := strings.Cut(body, `,"code"`)
	return rest
}

func TestADeveloperSeesWhyItIsSuspendedButNotByWhom(t *testing.T) {
	w := retried(newWorld(t))
	var s struct{ ID string }
	w.call(operator, "POST", "/v1/suspensions", `{"subject":{"kind":"product","id":"FP-1003"},"reason":"credential leaked"}`).data(t, 201, &s)
	for _, path := range []string{"/v1/suspensions/" + s.ID, "/v1/suspensions", "/v1/me"} {
		r := w.call(kookaburra, "GET", path, nil)
		if r.status != 200 || !strings.Contains(r.body, "credential leaked") || strings.Contains(r.body, "agency.example") {
			t.Errorf("%s: %s", path, r)
		}
	}
}

func TestTokenFile(t *testing.T) {
	t.Run("expiry, and a change without a restart", func(t *testing.T) {
		w := retried(newWorld(t))
		entries := slices.Clone(programs)
		entries[0].Expires = time.Now().Add(-time.Second).Format(time.RFC3339)
		entries = append(entries, control.TokenEntry{Name: "new@agency.example", Permissions: []string{"auditor"}})
		if r := w.call("new@agency.example", "GET", "/v1/products", nil); r.status != 401 {
			t.Fatalf("known already: %s", r)
		}
		writeTokens(t, w.tokens, entries)
		eventually(t, "the new token is accepted", func() bool { return w.call("new@agency.example", "GET", "/v1/products", nil).status == 200 })
		w.call(operator, "GET", "/v1/products", nil).refused(t, 401, "unauthenticated")

		// A broken file leaves the tokens there were.
		if err := os.WriteFile(w.tokens, []byte("tokens: [{nmae: x}]"), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the broken file is noticed", func() bool {
			w.call(nobody, "GET", "/v1/products", nil, header("Authorization", "Bearer x"))
			return strings.Contains(w.log.String(), "token file not read again")
		})
		if r := w.call("new@agency.example", "GET", "/v1/products", nil); r.status != 200 {
			t.Errorf("lost its tokens: %s", r)
		}
	})
	t.Run("what is refused", func(t *testing.T) {
		w := retried(newWorld(t))
		good := "Bearer " + tokenOf(operator)
		for name, opts := range map[string][]option{
			"in the query":   nil,
			"twice":          {header("Authorization", good), header("Authorization", good)},
			"another scheme": {header("Authorization", "Basic "+tokenOf(operator))},
			"empty":          {header("Authorization", "Bearer ")},
			"with a space":   {header("Authorization", good+" ")},
			"too long":       {header("Authorization", "Bearer "+strings.Repeat("x", 5000))},
		} {
			path := "/v1/products"
			if name == "in the query" {
				path += "?access_token=" + url.QueryEscape(tokenOf(operator))
			}
			if r := w.call(nobody, "GET", path, nil, opts...); r.status != 401 && name != "with a space" {
				t.Errorf("%s: %s", name, r)
			}
		}
	})
	for name, file := range map[string]string{
		"an unknown key":                "tokens: [{name: a, permissions: [auditor], sha265: 00}]",
		"an unknown permission":         "tokens: [{name: a, permissions: [king], sha256: " + strings.Repeat("0", 64) + "}]",
		"no permission":                 "tokens: [{name: a, sha256: " + strings.Repeat("0", 64) + "}]",
		"a developer without an entity": "tokens: [{name: a, permissions: [developer], sha256: " + strings.Repeat("0", 64) + "}]",
		"an auditor with an entity":     "tokens: [{name: a, permissions: [auditor], entity: '65000000101', sha256: " + strings.Repeat("0", 64) + "}]",
		"half a sum":                    "tokens: [{name: a, permissions: [auditor], sha256: abcd}]",
		"the same token twice":          "tokens: [{name: a, permissions: [auditor], sha256: " + strings.Repeat("0", 64) + "}, {name: b, permissions: [auditor], sha256: " + strings.Repeat("0", 64) + "}]",
		"a wrong ABN":                   "tokens: [{name: a, permissions: [developer], entity: '65000000102', sha256: " + strings.Repeat("0", 64) + "}]",
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir() + "/tokens.yaml"
			if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := control.LoadTokens(path, nil); err == nil {
				t.Error("accepted")
			}
		})
	}
}
