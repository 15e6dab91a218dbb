package console_test

import (
	"bytes"
	"mime/multipart"
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

const assessor2 = "assessor2@agency.example"

// etagOf finds the tag that a page's forms carry.
func etagOf(body string) string {
	if m := regexp.MustCompile(`name="etag" value="([^"]*)"`).FindStringSubmatch(body); m != nil {
		return strings.ReplaceAll(m[1], "&#34;", `"`)
	}
	return ""
}

func does(t *testing.T, b *controltest.Browser, path string, form url.Values, want int, texts ...string) string {
	t.Helper()
	status, body := b.Send(path, form)
	if status != want {
		t.Errorf("POST %s: %d %s, want %d\n%s", path, status, heading(body), want, problem(body))
	}
	for _, s := range texts {
		if !strings.Contains(body, s) {
			t.Errorf("POST %s lacks %q: %s", path, s, problem(body))
		}
	}
	return body
}

func problem(body string) string {
	if m := regexp.MustCompile(`(?s)id="problem">(.*?)</div>`).FindStringSubmatch(body); m != nil {
		return m[1]
	}
	return ""
}

// hands sends a file as the form of a page does.
func hands(t *testing.T, w *controltest.World, b *controltest.Browser, product string, fields map[string]string, name string, content []byte) (int, string) {
	t.Helper()
	var body bytes.Buffer
	m := multipart.NewWriter(&body)
	for k, v := range fields {
		if err := m.WriteField(k, v); err != nil {
			t.Fatal(err)
		}
	}
	if name != "" {
		part, err := m.CreateFormFile("file", name)
		if err != nil {
			t.Fatal(err)
		}
		part.Write(content)
	}
	m.Close()
	req, err := http.NewRequest("POST", w.URL+"/console/certifications/"+product+"/evidence", &body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", m.FormDataContentType())
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := b.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, out.String()
}

var whole = url.Values{
	"abn": {"56 000 001 313"}, "name": {"Possum Bakery"}, "role": {"D", "SP"}, "applicant_name": {"Nia Newcomer"}, "authority": {"director"},
	"principal_0_name": {"Nia Newcomer"}, "principal_0_consent": {"yes"},
	"contact_security_name": {"N"}, "contact_security_email": {"n@possum.example"}, "contact_privacy_name": {"N"}, "contact_privacy_email": {"n@possum.example"},
	"contact_responsible_name": {"N"}, "contact_responsible_email": {"n@possum.example"}, "purpose": {"Lodges"}, "intent": {"Sells"}, "access": {"as.0004.submit"},
	"product": {"Possum Books"}, "scenario": {"2"},
}

func but(form url.Values, pairs ...string) url.Values {
	out := url.Values{}
	for k, v := range form {
		out[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		out.Set(pairs[i], pairs[i+1])
	}
	return out
}

// TestApplyingOverTheConsole: each thing that is wrong with the form is said in a
// sentence that names the field; the clocks are seen by both sides; what is asked
// is answered; nobody else sees it.
func TestApplyingOverTheConsole(t *testing.T) {
	w := controltest.New(t)
	nia, reg := w.Browser(newcomer), w.Browser(registrar)
	wants(t, nia, "/console/registrations", 200, "Start an application")
	wants(t, nia, "/console/apply", 200, "newcomer@elsewhere.example")
	for want, form := range map[string]url.Values{
		"ABN: write the 11 digits":                      but(whole, "abn", "1"),
		"Legal name: must be given":                     but(whole, "name", ""),
		"Purpose: holds what looks like a tax file":     but(whole, "purpose", "of 123 456 782"),
		"Security contact, email: is no e-mail address": but(whole, "contact_security_email", "nobody"),
		"How it reaches its users":                      but(whole, "scenario", ""),
		"Delivered with: write ABNs":                    but(whole, "chain", "65000000101, 7"),
	} {
		does(t, nia, "/console/apply", form, 422, want, `aria-invalid="true"`)
	}
	body := does(t, nia, "/console/apply", but(whole, "principal_0_consent", ""), 200, "Submit the application")
	page := "/console/registrations/56000001313"
	does(t, nia, page+"/submit", url.Values{"terms": {"2026.1"}, "name": {"Nia"}}, 422, "both, to submit")
	accept := url.Values{"terms": {"2026.1"}, "name": {"Nia"}, "accept": {"yes"}, "declare": {"yes"}}
	does(t, nia, page+"/submit", accept, 422, "Person 1: the checks of a person need", `href="/console/registrations/56000001313/form#principal_0_consent"`)
	does(t, nia, page+"/form", but(whole, "etag", etagOf(body)), 200, "consented")
	does(t, nia, page+"/form", but(whole, "etag", `"1"`), 412, "This has changed since you opened the page")
	body = does(t, nia, page+"/submit", accept, 200, "Decide on the application", "days left")
	stale := etagOf(body)

	wants(t, reg, "/console/registrations", 200, "Possum Bakery", " left</span>")
	wants(t, reg, "/console/registrations?clock=applicant", 200, "Nothing waits for an applicant")
	wants(t, reg, "/console/registrations?q=possum", 200, "Possum Bakery")
	does(t, reg, page+"/ask", url.Values{"question": {""}}, 422, `href="#question"`)
	does(t, reg, page+"/ask", url.Values{"question": {"Who hosts it?"}}, 200, "Answer our question")
	does(t, nia, page+"/reply", url.Values{"answer": {"We do."}, "etag": {stale}}, 412, "Look at it again")
	does(t, nia, page+"/reply", url.Values{"answer": {"We do."}}, 200, "Questions and answers")
	does(t, reg, page+"/checks", url.Values{"check": {"authority"}, "subject": {"entity"}, "outcome": {"pass"}, "source": {""}}, 422, "Source: ")
	does(t, reg, page+"/admit", nil, 409, "Not done.")
	does(t, reg, page+"/checks", url.Values{"check": {"tax-obligations"}, "subject": {"entity"}, "outcome": {"fail"}, "source": {"the ledger"}}, 200, "failed")
	wants(t, nia, page, 200, "failed", "the ledger")
	does(t, reg, page+"/reject", url.Values{"trigger": {""}}, 422, `href="#trigger"`)
	does(t, reg, page+"/reject", url.Values{"trigger": {"obligations-not-satisfied"}}, 200, "obligations not satisfied")
	wants(t, nia, "/console/registrations", 200, "obligations not satisfied", "apply again")
	does(t, nia, page+"/form", whole, 200, "Submit the application")

	for _, who := range []string{wattlebird, kookaburra} {
		b := w.Browser(who)
		wants(t, b, page, 404)
		wants(t, b, page+"/form", 404)
		if status, _ := b.Send(page+"/withdraw", nil); status != 404 {
			t.Errorf("withdrawn by %s: %d", who, status)
		}
	}
	wants(t, w.Browser(wattlebird), "/console/registrations", 200, "Wattlebird Payroll")
	if status, _ := nia.Send(page+"/admit", nil); status != 403 && status != 409 {
		t.Errorf("admitted by the applicant: %d", status)
	}
}

// TestEvidenceOverTheConsole: what is refused is refused in one sentence and
// keeps nothing; what is kept is seen by its own people and staff, and by nobody else.
func TestEvidenceOverTheConsole(t *testing.T) {
	w := controltest.New(t)
	dev, asa, other := w.Browser(kookaburra), w.Browser(assessor), w.Browser(wattlebird)
	const product = "FP-1003"
	page := "/console/certifications/" + product
	for _, c := range []struct {
		fields  map[string]string
		name    string
		content string
		status  int
		want    string
	}{
		{map[string]string{"type": "policy"}, "", "", 422, "Choose a file"},
		{map[string]string{}, "a.pdf", "%PDF-1.7\n", 422, "What it is: choose one"},
		{map[string]string{"type": "policy"}, "a.pdf", "<html>", 422, "File: "},
		{map[string]string{"type": "policy"}, "a.pdf", "", 422, "File: the file is empty"},
		{map[string]string{"type": "certificate"}, "a.pdf", "%PDF-1.7\n", 422, "Expires: "},
		{map[string]string{"type": "policy", "expires": "soon"}, "a.pdf", "%PDF-1.7\n", 422, "write a date as"},
		{map[string]string{"type": "sample-log"}, "a.log", "fine\n123 456 782\n", 422, "line 2"},
		{map[string]string{"type": "policy"}, "a.txt", strings.Repeat("x\n", 11<<19), 413, "at most 10 MiB"},
		{map[string]string{"type": "policy"}, "a.txt", strings.Repeat("x\n", 12<<20), 413, "too large"},
	} {
		status, body := hands(t, w, dev, product, c.fields, c.name, []byte(c.content))
		if status != c.status || !strings.Contains(problem(body), c.want) {
			t.Errorf("%v: %d %q, want %d %q", c.fields, status, problem(body), c.status, c.want)
		}
	}
	wants(t, dev, page+"/evidence", 200, "Nothing was handed in yet")
	status, body := hands(t, w, dev, product, map[string]string{"type": "sample-log", "requirement": "OSF-AUD", "note": "of <b>May</b>"}, "a.log", []byte("10:00 <script>alert(1)</script> login\n"))
	id := regexp.MustCompile(`/console/evidence/(EV-[\d.]+)`).FindStringSubmatch(body)
	if status != 200 || id == nil {
		t.Fatalf("handed in: %d %s", status, problem(body))
	}
	if body := wants(t, asa, "/console/evidence/"+id[1], 200, "&lt;script&gt;alert(1)", "Accept this evidence"); strings.Contains(body, "<script>alert") || strings.Contains(body, "<b>May") {
		t.Error("evidence runs in the console")
	}
	resp, err := asa.Get(w.URL + "/console/evidence/" + id[1] + "/content")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if cd := resp.Header.Get("Content-Disposition"); resp.StatusCode != 200 || !strings.HasPrefix(cd, "attachment") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("download: %d %v", resp.StatusCode, resp.Header)
	}
	does(t, asa, "/console/evidence/"+id[1]+"/approve", nil, 200)
	for _, path := range []string{"/console/evidence/" + id[1], "/console/evidence/" + id[1] + "/content", page, page + "/evidence", page + "/questions", page + "/deployment", page + "/obligations"} {
		if body := wants(t, other, path, 404); strings.Contains(body, "Kooka") {
			t.Errorf("%s tells of another's", path)
		}
	}
	if status, _ := hands(t, w, other, product, map[string]string{"type": "policy"}, "a.pdf", []byte("%PDF-1.7\n")); status != 404 {
		t.Errorf("handed in for another's: %d", status)
	}
	// The same file of another entity is a signal, shown to the assessor alone.
	if status, _ := hands(t, w, other, "FP-1001", map[string]string{"type": "sample-log"}, "a.log", []byte("10:00 <script>alert(1)</script> login\n")); status != 200 {
		t.Fatalf("handed in: %d", status)
	}
	wants(t, asa, page, 200, "evidence shared", "65 000 000 101")
	if body := wants(t, dev, page, 200); strings.Contains(body, "evidence shared") || strings.Contains(body, "Risk profile") {
		t.Error("the developer is told of signals or risk")
	}
}

// TestWorkPagesByRole: every page of the workflows answers to those it is for.
func TestWorkPagesByRole(t *testing.T) {
	w := controltest.New(t)
	staff := []string{"/console/registrations", "/console/registrations?clock=", "/console/registrations/65000000101", "/console/certifications/FP-1005", "/console/certifications/FP-1008", "/console/certifications/FP-1001/evidence",
		"/console/certifications/FP-1005/questions", "/console/certifications/FP-1005/deployment", "/console/certifications/FP-1005/obligations", "/console/certifications/FP-1004/obligations", "/console/findings", "/console/findings?state=all&product=FP-1001", "/console/draws", "/console/gap-analysis"}
	for _, who := range []string{registrar, assessor, auditor, operator} {
		b := w.Browser(who)
		for _, p := range staff {
			wants(t, b, p, 200)
		}
		wants(t, b, "/console/assessments", 200, "FP-1005", "Made of")
	}
	dev := w.Browser(wattlebird)
	for _, p := range []string{"/console/registrations/65000000101", "/console/certifications", "/console/certifications/FP-1001", "/console/certifications/FP-1001/questions", "/console/certifications/FP-1001/obligations", "/console/findings", "/console/gap-analysis?wanted=OSF&given=INTUIT", "/console/draws"} {
		wants(t, dev, p, 200)
	}
	wants(t, dev, "/console/assessments", 403)
	wants(t, dev, "/console/gap-analysis?wanted=NONE&given=OSF", 422)
	wants(t, dev, "/console/evidence/EV-1", 404)
	wants(t, dev, "/console/verifications/VR-1", 404)
	wants(t, dev, "/console/draws/2031", 404)
	for _, command := range []string{"pilot", "approve", "start-verification", "delist", "approve-exception", "interim"} {
		if status, body := dev.Send("/console/certifications/FP-1001/"+command, url.Values{"clients": {"65000000101"}, "reason": {"x"}, "owed": {"OSF-AUD"}, "basis": {"conditional"}, "requirement": {"OSF-AUD"}}); status != 403 {
			t.Errorf("%s by a developer: %d %s", command, status, heading(body))
		}
	}
	does(t, dev, "/console/certifications/FP-1001/fly", nil, 404)
	does(t, dev, "/console/registrations/65000000101/fly", nil, 404)
}

// TestAssessingOverTheConsole: findings, exceptions with four eyes, a pilot's
// clients; what stands in the way is said where the form is.
func TestAssessingOverTheConsole(t *testing.T) {
	w := controltest.New(t)
	dev, asa, ari := w.Browser(kookaburra), w.Browser(assessor), w.Browser(assessor2)
	page := "/console/certifications/FP-1003"
	does(t, dev, page+"/exceptions", url.Values{"requirement": {"OSF-HST"}, "control": {"Encrypted abroad, the key stays here."}, "expires": {""}}, 422, "Until: give a date")
	does(t, asa, page+"/exceptions", url.Values{"requirement": {"OSF-HST"}, "control": {"Encrypted abroad, the key stays here."}, "expires": {"2027-06-30"}}, 200, "not yet")
	if status, body := asa.Send(page+"/approve-exception", url.Values{"requirement": {"OSF-HST"}}); status != 403 {
		t.Errorf("approved by who asked: %d %s", status, problem(body))
	}
	wants(t, ari, page, 200, "Approve the exception from OSF-HST")
	does(t, ari, page+"/approve-exception", url.Values{"requirement": {"OSF-HST"}}, 200, "by assessor2@agency.example")

	body := does(t, asa, page+"/findings", url.Values{"requirement": {"OSF-AUD"}, "finding": {"Nobody <looks>."}, "severity": {"high"}}, 200, "Nobody &lt;looks&gt;.")
	id := regexp.MustCompile(`/console/findings/(FN-[\d.]+)`).FindStringSubmatch(body)[1]
	wants(t, dev, "/console/findings", 200, id, "days left")
	does(t, dev, "/console/findings/"+id+"/answer", url.Values{"text": {""}}, 422, "What was done: must be given")
	does(t, dev, "/console/findings/"+id+"/answer", url.Values{"text": {"Somebody does now."}}, 200, "answered")
	does(t, asa, "/console/findings/"+id+"/reopen", url.Values{"text": {"Who?"}, "due": {"2026-13-01"}}, 422, "Due: write a date")
	does(t, asa, "/console/findings/"+id+"/reopen", url.Values{"text": {"Who?"}}, 200, "Sent back")
	does(t, asa, "/console/findings/"+id+"/close", url.Values{"text": {"Seen."}}, 200, "Closed")
	wants(t, w.Browser(wattlebird), "/console/findings/"+id, 404)

	pilot := "/console/certifications/FP-1005/pilot"
	does(t, asa, pilot, url.Values{"clients": {"65000000101\n7"}}, 422, "Named clients: write ABNs")
	does(t, asa, pilot, url.Values{"clients": {""}}, 422, "Named clients: name 1 to 5")
	does(t, asa, pilot, url.Values{"clients": {"65000000101"}}, 422, "Services: say first which")

	does(t, asa, "/console/draws", url.Values{"period": {"soon"}}, 422, `href="#period"`)
	does(t, asa, "/console/draws", url.Values{"period": {"2026-Q4"}}, 200, "Draw now")
	does(t, asa, "/console/draws/2026-Q4/draw", nil, 200, "Computed again just now, and the same", "Selected")
	status, doc := w.Browser("").Read("/v1/draws/2026-Q4/document")
	if _, console := asa.Read("/console/draws/2026-Q4/document"); status != 200 || doc != console {
		t.Errorf("the published draw: %d, %d and %d bytes", status, len(doc), len(console))
	}
	vr := regexp.MustCompile(`/console/verifications/(VR-2026-Q4-FP-\d+)`).FindStringSubmatch(wants(t, asa, "/console/assessments", 200))
	if vr == nil {
		t.Fatal("no verification was opened")
	}
	vp := "/console/verifications/" + vr[1]
	requirement := regexp.MustCompile(`name="requirement" value="([^"]+)"`).FindStringSubmatch(wants(t, asa, vp, 200, "not done yet"))[1]
	does(t, asa, vp+"/tests", url.Values{"requirement": {requirement}, "method": {"documents-read"}, "outcome": {"fail"}, "severity": {"low"}, "finding": {""}}, 422, "What the developer is told: must be given", "<details open>")
	does(t, asa, vp+"/tests", url.Values{"requirement": {requirement}, "method": {"documents-read"}, "outcome": {"fail"}, "finding": {"No."}, "severity": {"low"}}, 200, "It made finding")
	does(t, asa, vp+"/close", url.Values{"summary": {"done"}}, 409, "was not looked at yet")
}

// TestQuestionsOverTheConsole: an answer is marked when it is saved, taken back
// when it is emptied, and what is no answer is refused at its place.
func TestQuestionsOverTheConsole(t *testing.T) {
	w := controltest.New(t)
	asa := w.Browser(assessor)
	// A Draft: the assessor fills it in for its developer.
	dev := w.Browser(newcomer)
	product := registered(t, w, dev)
	page := "/console/certifications/" + product
	wants(t, dev, "/console/certifications", 200, product, "Possum Books")
	does(t, dev, page+"/deployment", url.Values{"service": {"as.0004.submit"}, "commercial": {"yes"}, "records": {"many"}}, 422, "Client records: write a whole number")
	fresh := etagOf(wants(t, dev, page+"/deployment", 200))
	does(t, dev, page+"/deployment", url.Values{"etag": {fresh}, "service": {"as.0004.submit"}, "commercial": {"yes"}, "records": {"1,200"}}, 200, "not answered", "how to meet it", "Why it applies")
	answers := func(pairs ...string) url.Values {
		v := url.Values{"requirement": {"OSF-AUT"}, "q": {"OSF-AUT.1", "OSF-AUT.2"}}
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return v
	}
	does(t, dev, page+"/questions", answers("a-OSF-AUT.1", "yes", "a-OSF-AUT.2", "nobody"), 200, `class="question pass" id="q-OSF-AUT.1"`, `class="question fail" id="q-OSF-AUT.2"`, "Require a second factor")
	does(t, dev, page+"/questions", answers("a-OSF-AUT.1", "yes", "a-OSF-AUT.2", "everybody"), 200, `class="question pass" id="q-OSF-AUT.2"`)
	does(t, dev, page+"/questions", answers("a-OSF-AUT.1", "yes"), 200, `class="question open" id="q-OSF-AUT.2"`)
	does(t, dev, page+"/questions", answers("a-OSF-AUT.1", "perhaps"), 422, "write yes or no", `href="#q-OSF-AUT.1"`)
	does(t, dev, page+"/submit", url.Values{"true": {"yes"}, "name": {"Nia"}}, 422, "Not done.")
	// A file handed in for a question answers it.
	status, body := hands(t, w, dev, product, map[string]string{"type": "screenshot", "question": "OSF-AUT.6", "requirement": "OSF-AUT", "note": "The sign-in."}, "a.pdf", []byte("%PDF-1.7\n"))
	if status != 200 || !strings.Contains(body, `class="question pass" id="q-OSF-AUT.6"`) {
		t.Errorf("a file for a question: %d %s", status, problem(body))
	}
	wants(t, asa, page+"/questions", 200, "The sign-in.")
}

// registered takes a newcomer's business through its registration, and gives its product.
func registered(t *testing.T, w *controltest.World, dev *controltest.Browser) string {
	t.Helper()
	const page = "/console/registrations/56000001313"
	does(t, dev, "/console/apply", whole, 200)
	does(t, dev, page+"/submit", url.Values{"terms": {"2026.1"}, "name": {"Nia"}, "accept": {"yes"}, "declare": {"yes"}}, 200)
	reg := w.Browser(registrar)
	for _, c := range []string{"authority entity", "legitimate-business entity", "tax-obligations entity", "compliance-behaviour entity", "criminal-history entity", "bankruptcy entity",
		"tax-obligations P1", "compliance-behaviour P1", "criminal-history P1", "bankruptcy P1"} {
		name, of, _ := strings.Cut(c, " ")
		does(t, reg, page+"/checks", url.Values{"check": {name}, "subject": {of}, "outcome": {"pass"}, "source": {"seen"}}, 200)
	}
	body := does(t, reg, page+"/admit", nil, 200, "Registered")
	m := regexp.MustCompile(`/console/certifications/(FP-\d+)`).FindStringSubmatch(body)
	if m == nil {
		t.Fatal("no product was entered")
	}
	return m[1]
}

var (
	questionStart = regexp.MustCompile(`<div class="question (\w+)" id="q-([^"]+)"`)
	choiceValue   = regexp.MustCompile(`type="(radio|checkbox)" name="a-[^"]+" value="([^"]+)"`)
	pieceValue    = regexp.MustCompile(`name="e-[^"]+" value="([^"]+)"`)
)

// answersAll answers what does not pass, by trying, as somebody does who reads
// the marks.
func answersAll(t *testing.T, dev *controltest.Browser, page string) {
	t.Helper()
	body := wants(t, dev, page+"/questions", 200)
	for try := range 30 {
		forms := map[string]url.Values{} // by requirement
		starts := questionStart.FindAllStringSubmatchIndex(body, -1)
		left := 0
		for i, s := range starts {
			end := len(body)
			if i+1 < len(starts) {
				end = starts[i+1][0]
			}
			block, mark, id := body[s[0]:end], body[s[2]:s[3]], body[s[4]:s[5]]
			if mark != "open" && mark != "fail" {
				continue
			}
			left++
			requirement, _, _ := strings.Cut(id, ".")
			if forms[requirement] == nil {
				forms[requirement] = url.Values{"requirement": {requirement}}
			}
			form := forms[requirement]
			form.Add("q", id)
			for _, e := range pieceValue.FindAllStringSubmatch(block, -1) {
				form.Add("e-"+id, e[1])
			}
			all := choiceValue.FindAllStringSubmatch(block, -1)
			switch {
			case len(all) == 0 && strings.Contains(block, `inputmode="numeric"`):
				form.Set("a-"+id, []string{"0", "12", "24", "1", "100"}[try%5])
			case len(all) == 0 && strings.Contains(block, `type="date"`):
				form.Set("a-"+id, time.Now().AddDate(0, []int{-1, 10}[try%2], 0).Format(time.DateOnly))
			case len(all) == 0 && strings.Contains(block, `type="url"`):
				form.Set("a-"+id, "https://api.possum.example/")
			case len(all) == 0:
				form.Set("a-"+id, "As our handbook says, reviewed each quarter.")
			case all[0][1] == "checkbox" && try%2 == 0:
				for _, c := range all {
					form.Add("a-"+id, c[2])
				}
			default:
				form.Set("a-"+id, all[try%len(all)][2])
			}
		}
		if left == 0 {
			return
		}
		for _, form := range forms {
			body = does(t, dev, page+"/questions", form, 200)
		}
	}
	t.Fatal("the questions never end")
}

// TestFromTheApplicationToTheWhitelistByForms: a developer, a registrar and two
// assessors bring a product into production, by the pages' forms alone; nobody
// does it alone, and nothing is skipped.
func TestFromTheApplicationToTheWhitelistByForms(t *testing.T) {
	w := controltest.New(t)
	dev, asa, ari := w.Browser(newcomer), w.Browser(assessor), w.Browser(assessor2)
	product := registered(t, w, dev)
	page := "/console/certifications/" + product
	services := []string{"as.0004.submit", "as.0004.get"} // the second has a high rating
	does(t, dev, page+"/deployment", url.Values{"service": services, "commercial": {"yes"}, "records": {"1200"}}, 200)
	for typ, file := range map[string]string{
		"certificate": "%PDF-1.7\ncertificate", "policy": "%PDF-1.7\npolicy", "screenshot": "%PDF-1.7\nscreens", "sample-log": "10:00 u1 login yes\n", "scan-report": "TLS 1.3 only\n",
		"diagram": "%PDF-1.7\ndiagram", "attestation": "We attest it.\n", "test-report": "All passed.\n", "self-assessment": "{}\n",
	} {
		fields := map[string]string{"type": typ}
		if typ == "certificate" {
			fields["expires"] = time.Now().AddDate(0, 9, 0).Format(time.DateOnly)
		}
		if status, body := hands(t, w, dev, product, fields, "file", []byte(file)); status != 200 {
			t.Fatalf("%s: %d %s", typ, status, problem(body))
		}
	}
	answersAll(t, dev, page)
	does(t, dev, page+"/submit", url.Values{"name": {"Nia"}}, 422, "Make the declaration")
	does(t, dev, page+"/submit", url.Values{"name": {"Nia"}, "true": {"yes"}}, 200, "Signed by <strong>Nia", "Verify the self-certification")

	wants(t, asa, "/console/assessments", 200, "Possum Books", "first-time registrant")
	body := does(t, asa, page+"/start-verification", nil, 200, "In verification")
	vr := regexp.MustCompile(`/console/verifications/VR-[\d.]+`).FindString(body)
	tests := regexp.MustCompile(`name="requirement" value="([^"]+)"`).FindAllStringSubmatch(wants(t, asa, vr, 200), -1)
	if vr == "" || len(tests) < 10 {
		t.Fatalf("%q has %d tests", vr, len(tests))
	}
	for _, x := range tests {
		does(t, asa, vr+"/tests", url.Values{"requirement": {x[1]}, "method": {"documents-read"}, "outcome": {"pass"}}, 200)
	}
	does(t, asa, vr+"/close", url.Values{"summary": {"Looked at all of it."}}, 200, "closed")

	record := func(text string, env registry.Environment, service string) string {
		id, err := authz.ParseDecisionID(text)
		if err != nil {
			t.Fatal(err)
		}
		w.Records[id] = authz.Record{ID: id, At: registry.At(time.Now()), ProductID: product, Reason: authz.OK, Environment: env, Service: service}
		return id.String()
	}
	runs := []string{record("00000000000000000000000001", registry.EVTE, services[0]), record("00000000000000000000000002", registry.EVTE, services[1])}
	pilot := url.Values{"clients": {"65 000 000 101\n31000000202"}, "service": services}
	does(t, asa, page+"/pilot", pilot, 409, "no conformance run in EVTE")
	does(t, dev, page+"/conformance-runs", url.Values{"decisions": {strings.Join(runs, "\n")}}, 200, "shown: as.0004.submit, as.0004.get")
	does(t, asa, page+"/approve-high-risk", url.Values{"service": {services[1]}}, 200, "You approved as.0004.get yourself")
	does(t, asa, page+"/pilot", pilot, 422, "another assessor must approve")
	does(t, ari, page+"/pilot", pilot, 200, "Pilot (PVT)", "65 000 000 101, 31 000 000 202")
	does(t, ari, page+"/approve", url.Values{"service": services}, 409, "the pilot has not shown")
	real := []string{record("00000000000000000000000003", registry.PROD, services[0]), record("00000000000000000000000004", registry.PROD, services[1])}
	does(t, dev, page+"/scenarios", url.Values{"decisions": {strings.Join(real, " ")}}, 200, "as.0004.submit, as.0004.get")
	does(t, ari, page+"/approve", url.Values{"service": services}, 200, "Whitelisted")
	v, err := w.Register.View()
	if err != nil {
		t.Fatal(err)
	}
	if p := v.Product(product); p == nil || p.Certification.State != registry.CertWhitelisted || p.Entitled(services[1], registry.PROD) == nil {
		t.Errorf("in the register: %+v", p)
	}
	wants(t, dev, page, 200, "Whitelisted", "Valid because")
}
