package console_test

import (
	"encoding/csv"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/registry"
)

const (
	operator   = "operator@agency.example"
	operator2  = "operator2@agency.example"
	auditor    = "auditor@agency.example"
	assessor   = "assessor@agency.example"
	registrar  = "registrar@agency.example"
	wattlebird = "dev@wattlebird.example"
	kookaburra = "dev@kookaburra.example"
	newcomer   = "newcomer@elsewhere.example"
)

var staffPages = []string{
	"/console/", "/console/entities", "/console/entities?name=watt", "/console/entities/65000000101", "/console/products", "/console/products?state=Draft",
	"/console/products/FP-1001", "/console/suspensions", "/console/suspensions?all=1", "/console/suspensions/SU-currawong", "/console/sidecars", "/console/decisions",
	"/console/decisions?product=FP-1001", "/console/tokens", "/console/people?entity=65000000101", "/register", "/register?q=kooka", "/problems", "/problems/rate-limited",
}

func heading(body string) string {
	m := regexp.MustCompile(`(?s)<h1>(.*?)</h1>`).FindStringSubmatch(body)
	if m == nil {
		return ""
	}
	return m[1]
}

func wants(t *testing.T, b *controltest.Browser, path string, status int, texts ...string) string {
	t.Helper()
	got, body := b.Read(path)
	if got != status {
		t.Errorf("%s: %d %q, want %d", path, got, heading(body), status)
	}
	for _, s := range texts {
		if !strings.Contains(body, s) {
			t.Errorf("%s lacks %q", path, s)
		}
	}
	return body
}

// TestPagesByRole: every role has its pages, and is refused the others' where
// the API refuses.
func TestPagesByRole(t *testing.T) {
	w := controltest.New(t)
	for _, who := range []string{operator, auditor, assessor, registrar} {
		b := w.Browser(who)
		for _, p := range staffPages {
			wants(t, b, p, 200)
		}
		if may := who == auditor; may {
			wants(t, b, "/console/audit", 200, "sign-in")
			wants(t, b, "/console/audit/0", 200, "Proved")
			wants(t, b, "/console/changes", 200, "sample@dspgate.example")
		} else {
			wants(t, b, "/console/audit", 403)
			wants(t, b, "/console/changes", 403)
		}
		if who == operator {
			wants(t, b, "/console/suspend", 200)
		} else {
			wants(t, b, "/console/suspend", 403)
		}
	}
	dev := w.Browser(wattlebird)
	for _, p := range []string{"/console/own", "/console/products/FP-1001", "/console/decisions", "/console/people", "/console/tokens", "/register"} {
		wants(t, dev, p, 200)
	}
	wants(t, dev, "/console/own", 200, "Wattlebird Pay Cloud", "FP-1011")
	for _, p := range []string{"/console/sidecars", "/console/suspend", "/console/audit", "/console/changes"} {
		wants(t, dev, p, 403)
	}
	if nobody := w.Browser(newcomer); nobody != nil {
		wants(t, nobody, "/console/", 200, "Join an entity")
		wants(t, nobody, "/console/products", 200, "No product like that")
		wants(t, nobody, "/console/own", 200, "no product yet")
	}
	anybody := w.Browser("")
	wants(t, anybody, "/register", 200, "Kooka Agent", "Please note")
	wants(t, anybody, "/problems", 200, "product-suspended", "register-stale", "ends by itself")
	wants(t, anybody, "/problems/product-suspended", 200, "Product is suspended", "how to be reinstated", "Not before something has changed")
	wants(t, anybody, "/problems/no-such-code", 404, "o refusal has the code")
	for _, p := range staffPages[:len(staffPages)-4] {
		wants(t, anybody, p, 401, "/sign-in?to=%2Fconsole%2F")
	}
	wants(t, anybody, "/console/nowhere", 404)
}

// TestC01OverTheConsole: a developer meets nothing of another entity, by any
// page or form.
func TestC01OverTheConsole(t *testing.T) {
	w := controltest.New(t)
	op, dev := w.Browser(operator), w.Browser(wattlebird)
	status, body := op.Send("/console/suspensions", url.Values{"kind": {"product"}, "id": {"FP-1003"}, "reason": {"C01 finding"}})
	id := regexp.MustCompile(`/console/suspensions/(SU-\d+)/`).FindStringSubmatch(body)
	if status != 200 || id == nil && !strings.Contains(body, "You imposed it") {
		t.Fatalf("suspend: %d %s", status, heading(body))
	}
	_, list := op.Read("/console/suspensions")
	su := regexp.MustCompile(`/console/suspensions/(SU-\d+)`).FindStringSubmatch(list)[1]
	other := w.Browser(kookaburra)
	_, made := other.Send("/console/people", url.Values{"entity": {"31000000202"}, "email": {"ana@kookaburra.example"}})
	in := regexp.MustCompile(`/console/invitations/(IN-\d+)/withdraw`).FindStringSubmatch(made)
	if in == nil {
		t.Fatalf("no invitation: %s", heading(made))
	}
	_, made = other.Send("/console/tokens", url.Values{"name": {"ci"}, "days": {"5"}, "permission": {"developer"}})
	tk := regexp.MustCompile(`/console/tokens/(TK-\d+)/revoke`).FindStringSubmatch(made)
	if tk == nil {
		t.Fatalf("no token: %s", heading(made))
	}
	for _, p := range []string{
		"/console/entities/31000000202", "/console/products/FP-1003", "/console/suspensions/" + su, "/console/suspensions/" + su + "/events",
		"/console/people?entity=31000000202",
	} {
		if body := wants(t, dev, p, 404); strings.Contains(body, "C01 finding") || strings.Contains(body, "Kooka") {
			t.Errorf("%s tells of another's", p)
		}
	}
	for _, p := range []string{"/console/products?owner=31000000202", "/console/entities?name=kooka", "/console/suspensions", "/console/decisions?product=FP-1001"} {
		if body := wants(t, dev, p, 200); strings.Contains(body, "FP-1003") || strings.Contains(body, "Kooka") {
			t.Errorf("%s tells of another's", p)
		}
	}
	for path, form := range map[string]url.Values{
		"/console/suspensions/" + su + "/lift":        {},
		"/console/suspensions/" + su + "/confirm":     {},
		"/console/invitations/" + in[1] + "/withdraw": {"entity": {"31000000202"}},
		"/console/people":                             {"entity": {"31000000202"}, "email": {"me@wattlebird.example"}},
		"/console/tokens/" + tk[1] + "/revoke":        {},
	} {
		if status, body := dev.Send(path, form); status != 404 {
			t.Errorf("POST %s: %d %s", path, status, heading(body))
		}
	}
	if status, body := dev.Send("/console/suspensions", url.Values{"kind": {"product"}, "id": {"FP-1003"}, "reason": {"x"}}); status != 422 || !strings.Contains(body, "There is no product FP-1003") {
		t.Errorf("suspend: %d %s", status, heading(body))
	}
	// Acting for an entity that is not one's own changes nothing.
	if status, _ := dev.Send("/sign-in/entity", url.Values{"entity": {"31000000202"}}); status != 200 {
		t.Errorf("choose: %d", status)
	}
	wants(t, dev, "/console/products/FP-1003", 404)
	wants(t, dev, "/console/own", 200, "Wattlebird")
}

// TestC03OverTheConsole: nobody lifts or confirms what they imposed; an auditor
// and a registrar neither suspend nor lift.
func TestC03OverTheConsole(t *testing.T) {
	w := controltest.New(t)
	op, op2 := w.Browser(operator), w.Browser(operator2)
	status, body := op.Send("/console/suspensions", url.Values{"kind": {"product"}, "id": {"FP-1002"}, "reason": {"finding"}})
	if status != 200 || !strings.Contains(body, "You imposed it") || strings.Contains(body, "/lift") {
		t.Fatalf("%d %s", status, heading(body))
	}
	_, list := op.Read("/console/suspensions")
	su := regexp.MustCompile(`/console/suspensions/(SU-\d+)`).FindStringSubmatch(list)[1]
	for _, who := range []string{operator, auditor, registrar} {
		b := w.Browser(who)
		for _, act := range []string{"lift", "confirm"} {
			if status, body := b.Send("/console/suspensions/"+su+"/"+act, nil); status != 403 {
				t.Errorf("%s by %s: %d %s", act, who, status, heading(body))
			}
		}
		if who != operator {
			if status, _ := b.Send("/console/suspensions", url.Values{"kind": {"product"}, "id": {"FP-1001"}, "reason": {"x"}}); status != 422 && status != 403 {
				t.Errorf("suspended by %s: %d", who, status)
			}
		}
	}
	if _, body := op2.Read("/console/suspensions?all=1"); strings.Contains(body, "FP-1001") {
		t.Error("somebody suspended FP-1001")
	}
	if status, body := op2.Send("/console/suspensions/"+su+"/confirm", url.Values{"reason": {"seen"}}); status != 200 || !strings.Contains(body, "Confirmed by") {
		t.Errorf("confirm: %d %s", status, heading(body))
	}
	if status, body := op2.Send("/console/suspensions/"+su+"/lift", url.Values{"reason": {"replaced"}}); status != 200 || !strings.Contains(body, "lifted") && !strings.Contains(body, "Lifted") {
		t.Errorf("lift: %d %s", status, heading(body))
	}
}

// TestC05CrossSiteRequests: a form that another origin makes the browser send
// changes nothing.
func TestC05CrossSiteRequests(t *testing.T) {
	w := controltest.New(t)
	b := w.Browser(operator)
	form := url.Values{"kind": {"product"}, "id": {"FP-1001"}, "reason": {"forged"}}
	for name, set := range map[string]func(h http.Header){
		"another site":   func(h http.Header) { h.Set("Sec-Fetch-Site", "cross-site"); h.Set("Origin", "https://evil.example") },
		"a neighbour":    func(h http.Header) { h.Set("Sec-Fetch-Site", "same-site"); h.Set("Origin", "http://127.0.0.1:1") },
		"an old browser": func(h http.Header) { h.Set("Origin", "https://evil.example") },
		"no origin":      func(h http.Header) { h.Set("Origin", "null") },
	} {
		for _, path := range []string{"/console/suspensions", "/console/tokens", "/console/people", "/sign-out", "/sign-in/entity", "/console/join"} {
			req, err := http.NewRequest("POST", w.URL+path, strings.NewReader(form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			set(req.Header)
			resp, err := b.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 403 {
				t.Errorf("%s, %s: %d", name, path, resp.StatusCode)
			}
		}
	}
	if body := wants(t, b, "/console/suspensions?all=1", 200); strings.Contains(body, "FP-1001") {
		t.Error("something was suspended")
	}
	// The API takes no cookie at all.
	if status, _ := b.Read("/v1/me"); status != 401 {
		t.Errorf("the API with the console's cookie: %d", status)
	}
}

// TestC05Headers: no page may be framed, sniffed or given a script of its own.
func TestC05Headers(t *testing.T) {
	w := controltest.New(t)
	b := w.Browser(operator)
	for _, p := range append([]string{"/console/nowhere", "/console/static/console.css"}, staffPages...) {
		resp, err := b.Get(w.URL + p)
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		h := resp.Header
		csp := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: policy %q lacks %s", p, csp, part)
			}
		}
		if strings.Contains(csp, "unsafe") || h.Get("X-Frame-Options") != "DENY" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", p, h)
		}
		if regexp.MustCompile(`(?i)<script[^>]*>[^<]|\son\w+=|style=|javascript:`).Match(page) && !strings.HasSuffix(p, ".css") {
			t.Errorf("%s holds inline script or style", p)
		}
	}
}

// TestC05StoredScript: a name that is markup is shown as it was written, on
// every page that shows it, and is no formula in the export.
func TestC05StoredScript(t *testing.T) {
	w := controltest.New(t)
	reg := registry.Actor{Name: registrar, Permissions: registry.PermRegistrar}
	v, err := w.Register.View()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `=HYPERLINK("http://evil.example","x")`, `+1+cmd|' /C calc'!A0`, `-2+3`, `@SUM(A1)`}
	for i, name := range names {
		p := *v.Product([]string{"FP-1001", "FP-1002", "FP-1003", "FP-1004", "FP-1006", "FP-1009"}[i])
		p.Name = name
		if _, err := w.Register.UpdateProduct(t.Context(), reg, p, registry.Meta{}); err != nil {
			t.Fatal(err)
		}
	}
	b := w.Browser(operator)
	controltest.Eventually(t, "the public register shows the names", func() bool { // made again once a second
		_, body := b.Read("/register")
		return strings.Contains(body, "&lt;script&gt;alert(1)")
	})
	for _, p := range []string{"/register", "/register?q=script", "/console/products", "/console/products/FP-1001", "/console/products/FP-1002", "/console/entities/65000000101",
		`/register?q=%22%3E%3Cscript%3Ealert(2)%3C/script%3E`, `/console/entities?name=%22%3E%3Cscript%3Ealert(2)%3C/script%3E`, `/console/find?q=%22%3E%3Cscript%3Ealert(2)%3C/script%3E`, `/console/suspend?kind=product&id=FP-1001`,
		`/console/suspend?kind=x&id=%22%3E%3Cscript%3Ealert(2)%3C/script%3E`} {
		status := 200
		if strings.Contains(p, "kind=x") {
			status = 422
		}
		body := wants(t, b, p, status)
		if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img src=x") {
			t.Errorf("%s runs what somebody wrote", p)
		}
	}
	_, raw := b.Read("/v1/register.csv")
	reader := csv.NewReader(strings.NewReader(raw))
	reader.FieldsPerRecord = -1 // the disclaimer is one
	rows, err := reader.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				t.Errorf("a formula in the export: %q", cell)
			}
			for _, n := range names[2:] {
				if cell == "'"+n {
					found++
				}
			}
		}
	}
	if found != 4 {
		t.Errorf("%d of 4 names in the export: %s", found, raw)
	}
	_, feed := b.Read("/v1/register.atom")
	if err := xml.Unmarshal([]byte(feed), &struct {
		XMLName xml.Name `xml:"http://www.w3.org/2005/Atom feed"`
	}{}); err != nil {
		t.Errorf("feed: %v", err)
	}
}

// TestC05OpenRedirect: signing in leads back to the console, and nowhere else.
func TestC05OpenRedirect(t *testing.T) {
	w := controltest.New(t)
	for to, want := range map[string]string{
		"//evil.example/": "/console/", "https://evil.example/console/": "/console/", "/\\evil.example": "/console/", "/console/sidecars": "/console/sidecars",
	} {
		b := w.Browser("")
		resp, err := b.Get(w.URL + "/sign-in?to=" + url.QueryEscape(to))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		resp, err = b.PostForm(w.Provider+"/login", url.Values{"id": {resp.Request.URL.Query().Get("id")}, "email": {operator}, "password": {controltest.Password}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Request.URL.String(); got != w.URL+want {
			t.Errorf("%q leads to %s", to, got)
		}
	}
}

// TestFormsSayWhatIsWrong, beside the field, and keep what was written.
func TestFormsSayWhatIsWrong(t *testing.T) {
	w := controltest.New(t)
	op, dev := w.Browser(operator), w.Browser(kookaburra)
	for _, c := range []struct {
		b    *controltest.Browser
		path string
		form url.Values
		want []string
	}{
		{op, "/console/suspensions", url.Values{"kind": {"product"}, "id": {"FP-9999"}, "reason": {"because of this"}}, []string{"FP-9999", `id="id" type="text" name="id" value="FP-9999" required`, "because of this", `aria-invalid="true"`, `href="#id"`}},
		{op, "/console/suspensions", url.Values{"kind": {"product"}, "id": {"FP-1001"}, "reason": {"of 123 456 782"}}, []string{"tax file number", `href="#reason"`}},
		{op, "/console/suspensions", url.Values{"kind": {"flavour"}, "id": {"FP-1001"}, "reason": {"x"}}, []string{`href="#kind"`}},
		{op, "/console/tokens", url.Values{"name": {"x"}, "days": {"0"}, "permission": {"operator"}}, []string{"1 to 365", `href="#days"`}},
		{op, "/console/tokens", url.Values{"name": {"x"}, "days": {"3"}}, []string{"at least one permission"}},
		{op, "/console/tokens", url.Values{"name": {"x"}, "days": {"3"}, "permission": {"assessor"}}, []string{"you do not have"}},
		{dev, "/console/people", url.Values{"entity": {"31000000202"}, "email": {"nobody"}}, []string{"no email address", `href="#email"`, `value="nobody"`}},
		{w.Browser(newcomer), "/console/join", url.Values{"code": {"invite_wrong"}}, []string{"no open invitation", `href="#code"`}},
	} {
		status, body := c.b.Send(c.path, c.form)
		if status != 422 {
			t.Errorf("%s %v: %d %s", c.path, c.form, status, heading(body))
		}
		for _, s := range c.want {
			if !strings.Contains(strings.ToLower(body), strings.ToLower(s)) {
				t.Errorf("%s %v lacks %q", c.path, c.form, s)
			}
		}
	}
	if status, _ := op.Send("/console/suspensions", url.Values{"reason": {strings.Repeat("x", 100_000)}}); status != 413 && status != 422 {
		t.Errorf("a form of 100 kB: %d", status)
	}
}

// TestInvitationAndTokenOverTheConsole: a person joins by a code; a token made
// here works at the API until it is revoked here.
func TestInvitationAndTokenOverTheConsole(t *testing.T) {
	w := controltest.New(t)
	dev, nia := w.Browser(kookaburra), w.Browser(newcomer)
	_, body := dev.Send("/console/people", url.Values{"entity": {"31000000202"}, "email": {newcomer}})
	code := regexp.MustCompile(`id="invitation-code"[^>]*>(invite_[A-Z2-7]+)<`).FindStringSubmatch(body)
	if code == nil {
		t.Fatalf("no code: %s", heading(body))
	}
	status, body := nia.Send("/console/join", url.Values{"code": {code[1]}})
	if status != 200 || heading(body) != "Kookaburra Tax" {
		t.Fatalf("join: %d %s", status, heading(body))
	}
	_, body = nia.Send("/console/tokens", url.Values{"name": {"ci"}, "days": {"30"}, "permission": {"developer"}})
	tok := regexp.MustCompile(`id="token"[^>]*>(dspgate_[A-Z2-7]+)<`).FindStringSubmatch(body)
	if tok == nil {
		t.Fatalf("no token: %s", heading(body))
	}
	call := func() int {
		req, _ := http.NewRequest("GET", w.URL+"/v1/products/FP-1003", nil)
		req.Header.Set("Authorization", "Bearer "+tok[1])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := call(); got != 200 {
		t.Errorf("with the token: %d", got)
	}
	_, body = nia.Read("/console/tokens")
	if strings.Contains(body, tok[1]) {
		t.Error("the token is shown again")
	}
	id := regexp.MustCompile(`/console/tokens/(TK-\d+)/revoke`).FindStringSubmatch(body)[1]
	if status, body := nia.Send("/console/tokens/"+id+"/revoke", nil); status != 200 || !strings.Contains(body, "You have no token") {
		t.Errorf("revoke: %d %s", status, heading(body))
	}
	if got := call(); got != 401 {
		t.Errorf("with the revoked token: %d", got)
	}
	// Removed, and nothing of the entity is left to see.
	_, body = dev.Read("/console/people")
	me := regexp.MustCompile(`/console/people/(ME-\d+)/remove`).FindStringSubmatch(body)[1]
	dev.Send("/console/people/"+me+"/remove", url.Values{"entity": {"31000000202"}})
	wants(t, nia, "/console/products/FP-1003", 404)
}

// TestEventsOfASuspension: the stream tells of a sidecar that is silent, and ends
// when it can only refuse.
func TestEventsOfASuspension(t *testing.T) {
	w := controltest.New(t)
	op := w.Browser(operator)
	id, err := authz.ParseDecisionID("00000000000000000000000000")
	if err != nil {
		t.Fatal(err)
	}
	w.Records[id] = authz.Record{ID: id, At: registry.At(time.Now()), ProductID: "FP-1001", Reason: authz.ProductSuspended, ClientID: "fp-1001-prod"}
	wants(t, op, "/console/decisions?product=FP-1001", 200, id.String())
	wants(t, op, "/console/decisions/"+id.String(), 200, "product-suspended")
	status, body := op.Send("/console/suspensions", url.Values{"kind": {"product"}, "id": {"FP-1001"}, "reason": {"leak"}})
	if status != 200 || !strings.Contains(body, "sidecar-1") {
		t.Fatalf("%d %s", status, heading(body))
	}
	_, list := op.Read("/console/suspensions")
	su := regexp.MustCompile(`/console/suspensions/(SU-\d+)`).FindStringSubmatch(list)[1]
	resp, err := op.Get(w.URL + "/console/suspensions/" + su + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body) // it ends by itself
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" || !strings.Contains(string(b), "event: enforcement\ndata: {\"complete\":true") {
		t.Errorf("%s: %s", ct, b)
	}
}
