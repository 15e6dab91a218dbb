package control_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestAnswersAreDataOrErrorsAndCarrySafeHeaders(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		as, method, path string
		body             any
		status           int
		code             string
	}{
		{operator, "GET", "/v1/products/FP-1001", nil, 200, ""},
		{nobody, "GET", "/v1/products/FP-1001", nil, 401, "unauthenticated"},
		{"stranger", "GET", "/v1/products/FP-1001", nil, 401, "unauthenticated"},
		{operator, "GET", "/v1/products/FP-9999", nil, 404, "not-found"},
		{operator, "GET", "/v1/nowhere", nil, 404, "not-found"},
		{operator, "GET", "/", nil, 404, "not-found"},
		{operator, "PATCH", "/v1/products/FP-1001", "{}", 405, "method-not-allowed"},
		{operator, "TRACE", "/v1/products/FP-1001", nil, 405, "method-not-allowed"},
		{auditor, "POST", "/v1/entities", "{}", 403, "forbidden"},
		{operator, "GET", "/v1/products?nonsense=1", nil, 422, "invalid"},
		{operator, "GET", "/v1/products?limit=101", nil, 422, "invalid"},
		{operator, "GET", "/v1/products?limit=0", nil, 422, "invalid"},
		{operator, "GET", "/v1/products?page=1&page=2", nil, 422, "invalid"},
		{operator, "GET", "/v1/products?owner=65000000102", nil, 422, "invalid"},
		{operator, "GET", "/v1/products?state=Excellent", nil, 422, "invalid"},
		{operator, "GET", "/v1/products?%zz", nil, 400, "malformed"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			r := w.call(c.as, c.method, c.path, c.body)
			if c.code != "" {
				r.refused(t, c.status, c.code)
			} else if r.status != c.status || !strings.HasPrefix(r.body, `{"data":`) {
				t.Fatalf("got %s", r)
			}
			for k, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
				"Content-Type": "application/json", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
			} {
				if got := r.header.Get(k); got != want {
					t.Errorf("%s: %q, want %q", k, got, want)
				}
			}
			if c.status == 401 && !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer ") {
				t.Error("401 without WWW-Authenticate")
			}
			if c.status == 405 && r.header.Get("Allow") != "GET, HEAD, OPTIONS, PUT" {
				t.Errorf("Allow: %q", r.header.Get("Allow"))
			}
			if strings.Contains(r.header.Get("Cache-Control"), "public") {
				t.Error("may be kept by a shared cache")
			}
		})
	}
}

func TestHeadAndOptions(t *testing.T) {
	w := newWorld(t)
	get, head := w.call(operator, "GET", "/v1/products/FP-1001", nil), w.call(operator, "HEAD", "/v1/products/FP-1001", nil)
	if head.status != 200 || head.body != "" || head.header.Get("Content-Length") != get.header.Get("Content-Length") || head.header.Get("ETag") != get.header.Get("ETag") {
		t.Errorf("HEAD: %v %v", head, head.header)
	}
	if r := w.call(nobody, "OPTIONS", "/v1/products", nil); r.status != 204 || r.header.Get("Allow") != "GET, HEAD, OPTIONS, POST" {
		t.Errorf("OPTIONS: %v %v", r, r.header)
	}
}

func TestBodiesAreDecodedStrictly(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, body, pointer string
		status              int
		code                string
		opts                []option
	}{
		{"unknown member", `{"abn":"94000000808","name":"x","nmae":"y"}`, "/nmae", 422, "invalid", nil},
		{"wrong case of a member", `{"abn":"94000000808","name":"x","Name":"x"}`, "/Name", 422, "invalid", nil},
		{"missing member", `{"abn":"94000000808"}`, "/name", 422, "invalid", nil},
		{"wrong type", `{"abn":"94000000808","name":7}`, "/name", 422, "invalid", nil},
		{"null for what may be left out", `{"abn":"94000000808","name":"x","contact":null}`, "/contact", 422, "invalid", nil},
		{"null in a list", `{"abn":"94000000808","name":"x","roles":[null]}`, "/roles/0", 422, "invalid", nil},
		{"null", `{"abn":"94000000808","name":null}`, "/name", 422, "invalid", nil},
		{"check digits", `{"abn":"94000000809","name":"x"}`, "/abn", 422, "invalid", nil},
		{"wrong word in a list", `{"abn":"94000000808","name":"x","roles":["D","KING"]}`, "/roles/1", 422, "invalid", nil},
		{"duplicate member", `{"abn":"94000000808","name":"x","name":"y"}`, "", 400, "malformed", nil},
		{"two values", `{"abn":"94000000808","name":"x"} {}`, "", 400, "malformed", nil},
		{"not JSON", `{"abn":`, "", 400, "malformed", nil},
		{"empty", ``, "", 400, "malformed", nil},
		{"an array", `[]`, "", 422, "invalid", nil},
		{"invalid UTF-8", "{\"abn\":\"94000000808\",\"name\":\"\xff\"}", "", 400, "malformed", nil},
		{"deep", strings.Repeat("[", 100) + strings.Repeat("]", 100), "", 400, "malformed", nil},
		{"large", `{"name":"` + strings.Repeat("x", 70<<10) + `"}`, "", 413, "body-too-large", nil},
		{"no media type", `{}`, "", 415, "unsupported-media-type", []option{without("Content-Type")}},
		{"a form", `a=b`, "", 415, "unsupported-media-type", []option{without("Content-Type"), header("Content-Type", "application/x-www-form-urlencoded")}},
		{"another charset", `{}`, "", 415, "unsupported-media-type", []option{without("Content-Type"), header("Content-Type", "application/json; charset=utf-16")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := w.call(registrar, "POST", "/v1/entities", c.body, c.opts...).refused(t, c.status, c.code)
			if c.pointer != "" && e.Source.Pointer != c.pointer {
				t.Errorf("points at %q, want %q", e.Source.Pointer, c.pointer)
			}
		})
	}
}

func TestALargeBodyOfUnknownLengthIsRefused(t *testing.T) {
	w := newWorld(t)
	req, err := http.NewRequest("POST", w.url+"/v1/entities", struct{ *strings.Reader }{strings.NewReader(strings.Repeat(" ", 1<<20))})
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = -1
	req.Header.Set("Authorization", "Bearer "+tokenOf(registrar))
	req.Header.Set("Content-Type", "application/json")
	res, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 413 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// The description must name every route, and each of its refusals: what it
// leaves out, a client generated from it cannot handle.
func TestTheDescriptionIsOpenAPI31AndServedWithItsPage(t *testing.T) {
	w := newWorld(t)
	r := w.call(nobody, "GET", "/openapi.json", nil)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Security    []map[string][]string
			Responses   map[string]any
		}
	}
	if err := json.Unmarshal([]byte(r.body), &doc); err != nil || r.status != 200 {
		t.Fatal(r.status, err)
	}
	if doc.OpenAPI != "3.1.0" || len(doc.Paths) < 30 {
		t.Fatalf("%s with %d paths", doc.OpenAPI, len(doc.Paths))
	}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			if op.Security == nil && path != "/v1/register" && path != "/v1/audit/checkpoint" && path != "/v1/lessons" && !strings.HasPrefix(path, "/v1/problems") && !strings.HasPrefix(path, "/v1/draws") && !strings.HasPrefix(path, "/v1/register.") {
				t.Errorf("%s %s needs no sign-in", method, path)
			}
			if op.Responses["422"] == nil || op.Responses["500"] == nil || op.Security != nil && op.Responses["401"] == nil {
				t.Errorf("%s %s leaves out a refusal", method, path)
			}
		}
	}
	page := w.call(nobody, "GET", "/docs", nil)
	if page.status != 200 || strings.Contains(page.body, "http") || strings.Contains(page.header.Get("Content-Security-Policy"), "script-src 'self' ") {
		t.Errorf("the page reaches out or allows inline script: %s %v", page.body, page.header)
	}
	for _, asset := range []string{"/docs/start.js", "/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css", "/docs/assets/favicon-32x32.png"} {
		if r := w.call(nobody, "GET", asset, nil); r.status != 200 || len(r.body) == 0 {
			t.Errorf("%s: %d", asset, r.status)
		}
	}
	if r := w.call(nobody, "GET", "/docs/assets/..%2f..%2fgo.mod", nil); r.status == 200 && !strings.Contains(r.body, "<html") {
		t.Errorf("a file outside: %s", r)
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/healthz", "/readyz"} {
		if r := w.call(nobody, "GET", path, nil); r.status != 200 {
			t.Errorf("%s: %s", path, r)
		}
	}
}

func TestTheLogHoldsNeitherQueryNorPathNorToken(t *testing.T) {
	w := newWorld(t)
	w.call(operator, "GET", "/v1/subscriptions?client_abn=56000001313", nil)
	w.call(operator, "GET", "/v1/entities/65000000101", nil)
	w.call(operator, "GET", "/v1/secret-path", nil)
	eventually(t, "the log is written", func() bool { return strings.Count(w.log.String(), `"msg":"request"`) >= 3 })
	log := w.log.String()
	for _, secret := range []string{"56000001313", "65000000101", "secret-path", tokenOf(operator)} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	if !strings.Contains(log, `"route":"/v1/entities/{abn}"`) {
		t.Error("the log does not name the route")
	}
}
