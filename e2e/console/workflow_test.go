package console

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/registry"
)

// course is one way through the pages, with what every page on it must be.
type course struct {
	t       *testing.T
	axe     string
	checked map[string]bool
}

// looks checks the page that a tab is at: no violation found by axe-core at
// either width, nothing wider than the screen, no heading of a table broken
// inside a word.
func (c *course) looks(b *tab, name string) {
	c.t.Helper()
	if c.checked[name] {
		return
	}
	c.checked[name] = true
	for _, px := range []int64{desk, phone} {
		b.width(px)
		for _, v := range b.violations(c.axe) {
			c.t.Errorf("%s at %d: %s", name, px, v)
		}
		if wide := b.overflows(); wide != "" {
			c.t.Errorf("%s at %d is wider than the screen: %s", name, px, wide)
		}
		if broken := get(b, chromedp.Evaluate[string](brokenHeadings)); broken != "" {
			c.t.Errorf("%s at %d: a heading of a table is broken inside a word: %s", name, px, broken)
		}
		b.shoot(fmt.Sprintf("wf-%s-%d", name, px))
	}
	b.width(desk)
	for _, v := range b.darkViolations(c.axe) {
		c.t.Errorf("%s in the dark: %s", name, v)
	}
}

// brokenHeadings finds a word of a table's heading that takes two lines.
const brokenHeadings = `(() => { for (const th of document.querySelectorAll("thead th")) {
	if (getComputedStyle(th.closest("thead")).position === "absolute") { continue; }
	const walk = document.createTreeWalker(th, NodeFilter.SHOW_TEXT);
	for (let n = walk.nextNode(); n; n = walk.nextNode()) {
		for (const m of n.data.matchAll(/[^\s-]+/g)) {
			const r = document.createRange(); r.setStart(n, m.index); r.setEnd(n, m.index + m[0].length);
			if (new Set([...r.getClientRects()].map(x => Math.round(x.top))).size > 1) { return m[0]; }
		}
	}
} return ""; })()`

// fill writes into fields by their ids, as setting them does and telling of it.
func (b *tab) fill(fields map[string]string) {
	b.t.Helper()
	for id, value := range fields {
		ok := get(b, chromedp.Evaluate[bool](fmt.Sprintf(`(() => { const e = document.getElementById(%q); if (!e) { return false; }
			if (e.type === "checkbox" || e.type === "radio") { e.checked = %q === "yes"; } else { e.value = %[2]q; } return true; })()`, id, value)))
		if !ok {
			b.t.Fatalf("no field %s on %s", id, get(b, chromedp.Location()))
		}
	}
}

// send submits the form that holds an element, by the button it has, and waits
// for the next page.
func (b *tab) send(inside string) {
	b.t.Helper()
	b.do(chromedp.WaitReady(chromedp.CSS(inside)))
	get(b, chromedp.Evaluate[bool](fmt.Sprintf(`(() => { window.leaving = true; const e = document.querySelector(%q); const f = e.closest("form");
		for (let d = f.closest("details"); d; d = d.parentElement.closest("details")) { d.open = true; }
		setTimeout(() => f.querySelector("button[type=submit]").click(), 0); return true; })()`, inside)))
	b.next()
}

// next waits until the page that was left is gone and another is whole.
func (b *tab) next() {
	b.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		gone, err := chromedp.Run(b, chromedp.Evaluate[bool](`window.leaving !== true && document.readyState === "complete"`))
		if err == nil && gone {
			return
		}
		if b.Err() != nil {
			break
		}
	}
	b.t.Fatal("the page was never left")
}

func (b *tab) says(text string) {
	b.t.Helper()
	if body := get(b, chromedp.Evaluate[string](`document.body.innerText`)); !strings.Contains(body, text) {
		b.t.Errorf("%s does not say %q:\n%s", get(b, chromedp.Location()), text, body)
	}
}

const newcomerABN = "56000001313"

// TestFromTheApplicationToTheWhitelist: a developer applies, certifies and hands
// evidence in; a registrar registers, an assessor verifies, another begins the
// pilot, and the product is whitelisted. All of it in the pages, each of which is
// accessible and fits a desk and a phone.
func TestFromTheApplicationToTheWhitelist(t *testing.T) {
	w, browser := controltest.New(t), chromium(t)
	c := &course{t, axe(t), map[string]bool{}}
	dev, reg, asa, ari := open(t, browser, w), open(t, browser, w), open(t, browser, w), open(t, browser, w)
	for b, email := range map[*tab]string{dev: "newcomer@elsewhere.example", reg: "registrar@agency.example", asa: "assessor@agency.example", ari: "assessor2@agency.example"} {
		b.width(desk)
		b.signIn(email)
	}
	c.applies(dev)
	c.registers(reg, dev)
	product := c.certifies(dev)
	c.verifies(asa, dev, product)
	c.approves(w, asa, ari, dev, product)
	c.draws(asa)
	for _, b := range []*tab{dev, reg, asa, ari} {
		for _, f := range b.faults() {
			t.Error(f)
		}
	}
}

func (c *course) applies(dev *tab) {
	c.t.Helper()
	dev.visit("/console/registrations")
	dev.says("Register your business")
	c.looks(dev, "no-application")
	dev.visit("/console/apply")
	c.looks(dev, "apply")
	dev.fill(map[string]string{"abn": "56000001314", "name": "Possum Bakery"})
	dev.send("#abn")
	dev.says("ABN: write the 11 digits")
	c.looks(dev, "apply-problem")
	dev.fill(map[string]string{"abn": newcomerABN, "name": "Possum Bakery and Sons of the Very Long Name Proprietary Limited", "role-D": "yes", "role-SP": "yes", "applicant_name": "Nia Newcomer", "authority": "director",
		"purpose": "Lodges activity statements", "product": "Possum Books", "scenario": "2", "access-as.0004.submit": "yes"})
	dev.send("#abn")
	dev.says("Submit the application")
	dev.fill(map[string]string{"accept": "yes", "declare": "yes"})
	dev.send("#accept")
	dev.says("Not done.") // no principal, no contact, no intent
	c.looks(dev, "registration-problem")
	dev.visit("/console/registrations/" + newcomerABN + "/form")
	dev.fill(map[string]string{"principal_0_name": "Nia Newcomer", "principal_0_consent": "yes", "principal_1_name": "Pat Principal", "principal_1_consent": "yes", "intent": "Sells it to bakeries"})
	for _, kind := range []string{"security", "privacy", "responsible"} {
		dev.fill(map[string]string{"contact_" + kind + "_name": "Nia", "contact_" + kind + "_email": "newcomer@elsewhere.example"})
	}
	dev.send("#name")
	c.looks(dev, "registration-draft")
	dev.fill(map[string]string{"accept": "yes", "declare": "yes"})
	dev.send("#accept")
	dev.says("Decide on the application")
	dev.says("days left")
	c.looks(dev, "registration-submitted")
}

func (c *course) registers(reg, dev *tab) {
	c.t.Helper()
	page := "/console/registrations/" + newcomerABN
	reg.visit("/console/registrations")
	reg.says("Possum Bakery")
	c.looks(reg, "applications")
	reg.visit(page)
	reg.fill(map[string]string{"question": "Who hosts it?"})
	reg.send("#question")
	c.looks(reg, "registrar")
	dev.visit(page)
	dev.says("We asked you something")
	c.looks(dev, "registration-question")
	dev.fill(map[string]string{"answer": "We do."})
	dev.send("#answer")
	reg.visit(page)
	for _, check := range []string{"authority-entity", "legitimate-business-entity", "tax-obligations-entity", "compliance-behaviour-entity", "criminal-history-entity", "bankruptcy-entity",
		"tax-obligations-P1", "compliance-behaviour-P1", "criminal-history-P1", "bankruptcy-P1", "tax-obligations-P2", "compliance-behaviour-P2", "criminal-history-P2", "bankruptcy-P2"} {
		reg.fill(map[string]string{"check-" + check + "-outcome": "pass", "check-" + check + "-source": "seen in the public record"})
		reg.send("#check-" + check + "-source")
	}
	reg.says("All checks have passed")
	reg.send("#admit-reason")
	reg.says("Registered")
	c.looks(reg, "registered")
	dev.visit(page)
	c.looks(dev, "registration-registered")
}

// certifies fills the questionnaire and hands files in until nothing stands in the way.
func (c *course) certifies(dev *tab) (product string) {
	c.t.Helper()
	dev.visit("/console/certifications")
	c.looks(dev, "certifications")
	href := get(dev, chromedp.Evaluate[string](`document.querySelector("main tbody a").getAttribute("href")`))
	product = regexp.MustCompile(`FP-\d+`).FindString(href)
	page := "/console/certifications/" + product
	dev.visit(page)
	c.looks(dev, "certification-draft")
	dev.visit(page + "/deployment")
	c.looks(dev, "deployment")
	dev.fill(map[string]string{"commercial": "yes", "hosting": "Sydney, on our own machines", "authentication": "Passkey", "records": "twelve"})
	dev.send("#records")
	dev.says("Client records: write a whole number")
	dev.fill(map[string]string{"records": "1,200", "service-as.0004.submit": "yes"})
	dev.send("#records")
	dev.says("OSF-AUT")
	c.looks(dev, "questions-empty")
	dev.visit(page + "/obligations")
	dev.says("Why:")
	c.looks(dev, "obligations")
	dev.visit("/console/gap-analysis")
	c.looks(dev, "gap")
	c.answersLive(dev, page)
	c.handsIn(dev, page)
	c.answersAll(dev, page)
	dev.visit(page)
	dev.says("Nothing stands in the way")
	dev.fill(map[string]string{"true": "yes", "sign-name": "Nia Newcomer", "sign-position": "Director"})
	dev.send("#true")
	dev.says("Signed by Nia Newcomer")
	dev.says("Verify the self-certification")
	c.looks(dev, "certification-submitted")
	return product
}

// answersLive: an answer is marked as it is given, without a button.
func (c *course) answersLive(dev *tab, page string) {
	c.t.Helper()
	dev.visit(page + "/questions")
	dev.do(chromedp.Click(chromedp.CSS(`[id="q-OSF-AUT.2-nobody"]`)))
	dev.sees("Require a second factor of everybody")
	if !get(dev, chromedp.Evaluate[bool](`document.activeElement.id === "q-OSF-AUT.2-nobody"`)) {
		c.t.Error("the focus was lost when the answer was marked")
	}
	c.looks(dev, "questions-fail")
	dev.visit(page)
	dev.fill(map[string]string{"sign-name": "Nia Newcomer"})
	dev.send("#true")
	dev.says("Make the declaration to submit")
	dev.fill(map[string]string{"true": "yes", "sign-name": "Nia Newcomer"})
	dev.send("#true")
	dev.says("Not done.")
	c.looks(dev, "certification-blocked")
}

// handsIn hands in files: those that are refused first, each in one sentence.
func (c *course) handsIn(dev *tab, page string) {
	c.t.Helper()
	dir := c.t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			c.t.Fatal(err)
		}
		return path
	}
	dev.visit(page + "/evidence")
	c.looks(dev, "evidence-none")
	upload := func(typ, file string, more map[string]string) {
		c.t.Helper()
		dev.do(chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{file}))
		dev.fill(map[string]string{"type": typ})
		dev.fill(more)
		dev.send("#file")
	}
	upload("policy", write("page.html", "<html>no</html>"), nil)
	dev.says("File:")
	c.looks(dev, "evidence-problem")
	upload("sample-log", write("access.log", "time user event\n10:00 u1 login 123 456 782\n"), nil)
	dev.says("line 2")
	upload("policy", write("large.txt", strings.Repeat("all work and no play\n", 11<<20/21)), nil)
	dev.says("at most 10 MiB")
	upload("certificate", write("iso.pdf", "%PDF-1.7\ncertificate\n%%EOF\n"), nil)
	dev.says("Holds until")
	next := time.Now().AddDate(0, 9, 0).Format(time.DateOnly)
	for typ, file := range map[string]string{
		"certificate": write("iso.pdf", "%PDF-1.7\ncertificate of an assessor\n%%EOF\n"), "policy": write("policy.pdf", "%PDF-1.7\npolicy\n%%EOF\n"), "screenshot": write("mfa.png", png), "sample-log": write("good.log", "time user event success\n10:00 u1 login yes\n"),
		"scan-report": write("scan.txt", "TLS 1.3 only\n"), "diagram": write("d.pdf", "%PDF-1.7\ndiagram\n%%EOF\n"), "attestation": write("a.txt", "We attest it.\n"), "test-report": write("t.txt", "All of it passed.\n"), "self-assessment": write("w.json", "{}\n"),
	} {
		more := map[string]string{}
		if typ == "certificate" {
			more["expires"] = next
		}
		upload(typ, file, more)
	}
	c.looks(dev, "evidence")
	dev.visit(get(dev, chromedp.Evaluate[string](`[...document.querySelectorAll("main tbody a")].find(a => a.textContent.includes("Sample of a log")).getAttribute("href")`)))
	dev.says("10:00 u1 login yes")
	c.looks(dev, "piece-of-text")
}

// png is a picture of one dot.
const png = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89\x00\x00\x00\rIDATx\x9cc\xf8\xff\xff?\x00\x05\xfe\x02\xfe\xa75\x81\x84\x00\x00\x00\x00IEND\xaeB`\x82"

// answersAll gives each answer a try until it passes, as its marks say.
func (c *course) answersAll(dev *tab, page string) {
	c.t.Helper()
	tried := map[string]int{}
	for range 150 {
		dev.visit(page + "/questions")
		left := get(dev, chromedp.Evaluate[string](`(() => { const q = [...document.querySelectorAll(".question.open, .question.fail")]; return [...new Set(q.map(x => x.closest("form").requirement.value))].slice(0, 1).join(" ") + " " + q.length; })()`))
		requirement, _, _ := strings.Cut(left, " ")
		if requirement == "" {
			return
		}
		tried[requirement]++
		if tried[requirement] > 12 {
			c.t.Fatalf("%s never passes: %s", requirement, get(dev, chromedp.Evaluate[string](`document.querySelector(".question.open, .question.fail").innerText`)))
		}
		get(dev, chromedp.Evaluate[bool](fmt.Sprintf(answerOnce, requirement, tried[requirement])))
		dev.send(`[id="r-` + requirement + `"] button`)
	}
	c.t.Fatal("the questions never end")
}

// answerOnce answers what does not pass of one requirement: the nth try takes the
// nth choice, or a larger number.
const answerOnce = `(() => { const n = %[2]d; for (const q of document.querySelectorAll('[id="r-%[1]s"] .question.open, [id="r-%[1]s"] .question.fail')) {
	for (const e of q.querySelectorAll("input[name^='e-']")) { e.checked = true; }
	const radios = [...q.querySelectorAll("input[type=radio]")], boxes = [...q.querySelectorAll("input[type=checkbox][name^='a-']")];
	const text = q.querySelector("textarea, input[type=text], input[type=date], input[type=url]");
	if (radios.length) { radios[(n - 1) %% radios.length].checked = true; }
	else if (boxes.length) { boxes.forEach((b, i) => { b.checked = n %% 2 === 1 || n / 2 %% boxes.length === i; }); }
	else if (text && text.type === "date") { const d = new Date(Date.now() + (n %% 2 ? -30 : 300) * 86400e3); text.value = d.toISOString().slice(0, 10); }
	else if (text && text.type === "url") { text.value = "https://api.possum.example/"; }
	else if (text && text.inputMode === "numeric") { text.value = ["0", "12", "24", "1", "100"][(n - 1) %% 5]; }
	else if (text) { text.value = "As our handbook says, reviewed each quarter."; }
} return true; })()`

func (c *course) verifies(asa, dev *tab, product string) {
	c.t.Helper()
	asa.visit("/console/assessments")
	asa.says("Possum Books")
	c.looks(asa, "assessments")
	page := "/console/certifications/" + product
	asa.visit(page)
	asa.says("Risk profile")
	c.looks(asa, "assessor")
	asa.send(`form[action$="/start-verification"] h3`)
	asa.do(chromedp.Click(chromedp.CSS(`main a[href^="/console/verifications/"]`)))
	asa.sees("Close the verification")
	c.looks(asa, "verification")
	ids := get(asa, chromedp.Evaluate[string](`[...document.querySelectorAll("input[name=requirement]")].map(e => e.value).join(" ")`))
	for i, id := range strings.Fields(ids) {
		if i == 0 {
			asa.fill(map[string]string{id + "-outcome": "fail", id + "-finding": "The log of the pilot does not show who signed in."})
		}
		asa.send(`[id="` + id + `-method"]`)
	}
	asa.fill(map[string]string{"summary": "Looked at all of it."})
	asa.send("#summary")
	c.looks(asa, "verification-closed")
	// The finding: answered by its developer, closed by the assessor.
	dev.visit("/console/findings")
	c.looks(dev, "findings")
	finding := get(dev, chromedp.Evaluate[string](`document.querySelector("main tbody a").getAttribute("href")`))
	dev.visit(finding)
	c.looks(dev, "finding")
	dev.fill(map[string]string{"answer-text": "The user is in each line now."})
	dev.send("#answer-text")
	asa.visit(finding)
	c.looks(asa, "finding-answered")
	asa.fill(map[string]string{"close-text": "Seen in the new sample."})
	asa.send("#close-text")
	asa.says("closed")
}

// approves brings a verified product to the whitelist.
func (c *course) approves(w *controltest.World, asa, ari, dev *tab, product string) {
	c.t.Helper()
	record := func(id string, env registry.Environment) string {
		d, err := authz.ParseDecisionID(id)
		if err != nil {
			c.t.Fatal(err)
		}
		w.Records[d] = authz.Record{ID: d, At: registry.At(time.Now()), ProductID: product, Reason: authz.OK, Environment: env, Service: "as.0004.submit"}
		return d.String()
	}
	evte := record("00000000000000000000000001", registry.EVTE)
	page := "/console/certifications/" + product
	dev.visit(page)
	dev.fill(map[string]string{"conformance-runs-decisions": evte + "\n00000000000000000000000000"})
	dev.send("#conformance-runs-decisions")
	dev.says("shown: as.0004.submit")
	dev.says("there is no such decision of this product")
	ari.visit(page)
	ari.fill(map[string]string{"pilot-clients": "65 000 000 101"})
	ari.send("#pilot-clients")
	ari.says("Pilot (PVT)")
	c.looks(ari, "assessor-pilot")
	dev.visit(page)
	dev.fill(map[string]string{"scenarios-decisions": record("00000000000000000000000002", registry.PROD)})
	dev.send("#scenarios-decisions")
	asa.visit(page)
	asa.send("#approve-reason")
	asa.says("Whitelisted")
	c.looks(asa, "whitelisted")
	v, err := w.Register.View()
	if err != nil {
		c.t.Fatal(err)
	}
	if p := v.Product(product); p == nil || p.Certification.State != registry.CertWhitelisted {
		c.t.Errorf("in the register: %+v", p)
	}
	dev.visit(page)
	c.looks(dev, "certification-whitelisted")
}

// draws: committed to, drawn, and computed again on the page.
func (c *course) draws(asa *tab) {
	c.t.Helper()
	asa.visit("/console/draws")
	c.looks(asa, "draws-none")
	asa.fill(map[string]string{"period": "2026-Q4"})
	asa.send("#period")
	asa.says("Draw now")
	asa.send(`form[action$="/draw"] h2`)
	asa.says("Computed again just now, and the same")
	c.looks(asa, "draw")
	asa.visit("/console/draws")
	c.looks(asa, "draws")
}
