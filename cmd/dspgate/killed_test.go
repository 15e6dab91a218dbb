package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/internal/freeport"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
)

var (
	killShare = flag.Float64("kill.share", 0.12, "the share of commands during which the control plane is killed")
	killSeed  = flag.Uint64("kill.seed", 1, "seed of where it is killed")
)

// killed is a control plane of its own process, which is killed (SIGKILL) while
// it works on commands, and started again.
type killed struct {
	t       *testing.T
	control *world.Process
	at      string // its address
	ready   string
	client  *http.Client
	rng     *rand.Rand
	kills   int
}

// startKilled starts Redis and a control plane with the sample register.
func startKilled(t *testing.T) *killed {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "dspgate")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pick := func() string {
		addr, err := freeport.Pick()
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	var tokens control.TokenFile
	for who, permissions := range map[string][]string{"registrar": {"registrar"}, "assessor": {"assessor"}, "assessor2": {"assessor"}, "officer": {"incident-officer"}, "both": {"registrar", "assessor"}} {
		tokens.Tokens = append(tokens.Tokens, control.TokenEntry{Name: who, Permissions: permissions, SHA256: control.HashToken(tokenFor(who))})
	}
	tokens.Tokens = append(tokens.Tokens, control.TokenEntry{Name: "owner", Permissions: []string{"developer"}, Entity: "56000001313", SHA256: control.HashToken(tokenFor("owner"))})
	b, err := yaml.Marshal(&tokens)
	if err != nil {
		t.Fatal(err)
	}
	cfg := defaultControlConfig()
	cfg.ID, cfg.Listen, cfg.Debug, cfg.StateDir = "one", pick(), pick(), filepath.Join(dir, "state")
	cfg.Redis.Addrs = []string{redistest.Start(t).Addr}
	cfg.RegisterKeyFile, cfg.TokensFile = file("register.key", []byte(strings.Repeat("ab", 32))), file("tokens.yaml", b)
	cfg.ClaimTTL, cfg.SampleRegister, cfg.ChecksEvery = 3*time.Second, true, 0
	if err := os.Mkdir(cfg.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if b, err = yaml.Marshal(&cfg); err != nil {
		t.Fatal(err)
	}
	k := &killed{t: t, at: "http://" + cfg.Listen, ready: "http://" + cfg.Debug + "/readyz", client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}, rng: rand.New(rand.NewPCG(*killSeed, 7))}
	k.control, err = world.Start(dir, "control", bin, "control", "--config", file("control.yaml", b))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.control.Kill)
	k.await()
	return k
}

func tokenFor(who string) string { return "token-of-" + who }

func (k *killed) await() {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 2*time.Minute)
	defer cancel()
	if err := k.control.Await(ctx, getOK(k.ready)); err != nil {
		k.t.Fatal(err)
	}
}

// kill kills the control plane and starts it again.
func (k *killed) kill() {
	k.t.Helper()
	k.kills++
	if err := k.control.Restart(); err != nil {
		k.t.Fatal(err)
	}
	k.await()
}

func (k *killed) ask(who, method, path, body string) (status int, b []byte, err error) {
	req, err := http.NewRequestWithContext(k.t.Context(), method, k.at+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+tokenFor(who))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err = io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// get reads what must be there.
func get[T any](k *killed, who, path string) (out T) {
	k.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		status, b, err := k.ask(who, http.MethodGet, path, "")
		answer := struct{ Data *T }{&out}
		if err == nil && status == http.StatusOK && json.Unmarshal(b, &answer) == nil {
			return out
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("GET %s: %d %s %v", path, status, b, err)
		}
	}
}

// do gives one command, during which the control plane may be killed, until it
// is done. After a kill or an answer that says nothing, who gave it looks first.
func (k *killed) do(who, method, path string, body any, done func() bool) {
	k.t.Helper()
	late := false // what is too late for a slow machine is sent anew
	text := func() string {
		if f, ok := body.(func() any); ok {
			late = true
			return asJSON(k.t, f())
		}
		if s, ok := body.(string); ok {
			return s
		}
		return asJSON(k.t, body)
	}
	for tries, deadline := 1, time.Now().Add(2*time.Minute); ; tries++ {
		var status int
		var b []byte
		var err error
		var wg sync.WaitGroup
		sent := text()
		wg.Go(func() { status, b, err = k.ask(who, method, path, sent) })
		cut := tries <= 3 && k.rng.Float64() < *killShare
		if cut {
			time.Sleep(time.Duration(k.rng.Int64N(int64(12 * time.Millisecond))))
			k.kill()
		}
		wg.Wait()
		switch {
		case err == nil && status < 300 && !done():
			k.t.Fatalf("%s %s was answered %d and is not done: %s", method, path, status, b)
		case err == nil && status < 300, (cut || err != nil || status == http.StatusServiceUnavailable) && done():
			return
		case err == nil && status != http.StatusServiceUnavailable && !late:
			k.t.Fatalf("%s %s: %d %s", method, path, status, b)
		case time.Now().After(deadline):
			k.t.Fatalf("%s %s: %v, %d %s", method, path, err, status, b)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type killedCase struct {
	State string
	Case  struct {
		Product      string `json:"product_id"`
		Verification string `json:"verification_id"`
		Checks       []struct{ Name, Subject, State string }
		Steps        []struct{ Command, By string }
	}
	Certification struct{ State string }
}

// count counts how often a command stands in a case.
func (c *killedCase) count(command string) (n int) {
	for _, s := range c.Case.Steps {
		if s.Command == command {
			n++
		}
	}
	return n
}

// command gives the nth command of its kind to a case.
func (k *killed) command(who, noun, id, name, logged string, nth int, body any) {
	k.t.Helper()
	k.do(who, http.MethodPost, "/v1/"+noun+"/"+id+"/"+name, body, func() bool {
		c := get[killedCase](k, "both", "/v1/"+noun+"/"+id)
		if got := c.count(logged); got > nth {
			k.t.Fatalf("%s of %s was done %d times", logged, id, got)
		} else {
			return got == nth
		}
		return false
	})
}

// A control plane that is killed at any point of any workflow leaves nothing half
// done, loses nothing that it acknowledged, and fires each timer once.
func TestKilledAtAnyPointOfAnyWorkflow(t *testing.T) {
	k := startKilled(t)
	product := k.registration("56000001313")
	k.certification(product)
	k.draw()
	k.incident()
	k.importing()
	k.finding()
	k.edition()
	t.Logf("%d kills (seed %d)", k.kills, *killSeed)
	if k.kills < 3 {
		t.Errorf("killed only %d times: nothing was tried", k.kills)
	}
}

func (k *killed) registration(abn string) (product string) {
	form := map[string]any{
		"name": "Possum Bakery", "roles": []string{"D"}, "applicant": map[string]any{"name": "Ada", "email": "ada@possum.example", "authority": "director"},
		"principals": []any{map[string]any{"id": "P1", "name": "Pat", "consented_at": "2026-01-01T00:00:00Z"}},
		"contacts":   []any{map[string]any{"for": "security", "name": "S", "email": "s@possum.example"}, map[string]any{"for": "privacy", "name": "P", "email": "p@possum.example"}, map[string]any{"for": "responsible", "name": "R", "email": "r@possum.example"}},
		"purpose":    "Lodge", "intent": "Lodge more", "product": map[string]any{"name": "Bakery", "scenario": 2},
	}
	at := "/v1/registrations/" + abn
	k.do("registrar", http.MethodPost, "/v1/registrations", map[string]any{"abn": abn, "form": form}, func() bool {
		status, _, err := k.ask("both", http.MethodGet, at, "")
		return err == nil && status == http.StatusOK
	})
	k.command("registrar", "registrations", abn, "submit", "registration.submit", 1, map[string]any{"terms_version": "2026.1", "name": "Ada"})
	checks := get[killedCase](k, "both", at).Case.Checks
	for i, c := range checks {
		k.command("registrar", "registrations", abn, "checks", "registration.record-check", i+1, map[string]any{"check": c.Name, "subject": c.Subject, "outcome": "pass", "source": "seen"})
	}
	k.command("registrar", "registrations", abn, "admit", "registration.admit", 1, map[string]any{})
	c := get[killedCase](k, "both", at)
	if c.State != "Registered" || c.count("registration.apply") != 1 || len(checks) < 6 || c.Case.Product == "" {
		k.t.Fatalf("registered: %+v", c)
	}
	apps := get[[]struct{ Client string }](k, "both", "/v1/client-apps?product_id="+c.Case.Product)
	if len(apps) != 2 {
		k.t.Errorf("the test environments: %d client apps", len(apps))
	}
	k.told("registration/"+abn, "You are registered", 1)
	return c.Case.Product
}

// told counts the messages of a subject about a case.
func (k *killed) told(about, subject string, want int) {
	k.t.Helper()
	n := 0
	for _, m := range get[[]struct{ Subject string }](k, "registrar", "/v1/messages?limit=100&about="+about) {
		if strings.Contains(m.Subject, subject) {
			n++
		}
	}
	if n != want {
		k.t.Errorf("%s was told %q %d times, want %d", about, subject, n, want)
	}
}

func (k *killed) certification(product string) {
	cert := func(who, name, logged string, nth int, body any) {
		k.t.Helper()
		k.command(who, "certifications", product, name, "certification."+logged, nth, body)
	}
	cert("owner", "begin", "begin", 1, map[string]any{})
	cert("owner", "describe", "describe", 1, map[string]any{"commercial": true, "hosting": "onshore", "authentication": "passkeys", "services": []string{"as.0004.submit"}})
	evidence := k.evidence(product)
	tried := map[string]int{}
	for n := 1; ; n++ {
		answers := controltest.Answers(get[struct{ Questions []controltest.Asked }](k, "owner", "/v1/certifications/"+product+"/questions").Questions, evidence, tried, nil)
		if len(answers) == 0 {
			break
		}
		cert("owner", "answers", "answer", n, map[string]any{"answers": answers})
	}
	cert("owner", "submit", "submit", 1, map[string]any{"name": "Ada"})
	cert("assessor", "start-verification", "start-verification", 1, map[string]any{})
	c := get[killedCase](k, "both", "/v1/certifications/"+product)
	type verification struct {
		State string `json:"closed_at"`
		Tests []struct{ Requirement, Outcome string }
	}
	at := "/v1/verifications/" + c.Case.Verification
	for i, x := range get[verification](k, "assessor", at).Tests {
		k.do("assessor", http.MethodPost, at+"/tests", map[string]any{"requirement": x.Requirement, "method": "documents-read", "outcome": "pass"}, func() bool {
			return get[verification](k, "assessor", at).Tests[i].Outcome == "pass"
		})
	}
	k.do("assessor", http.MethodPost, at+"/close", map[string]any{"summary": "seen"}, func() bool { return get[verification](k, "assessor", at).State != "" })
	if all := get[[]struct{ ID string }](k, "assessor", "/v1/verifications?product_id="+product); len(all) != 1 {
		k.t.Errorf("%d verifications of one self-certification", len(all))
	}
	if c = get[killedCase](k, "both", "/v1/certifications/"+product); c.Certification.State != "InVerification" {
		k.t.Errorf("the product is %s", c.Certification.State)
	}
}

// evidence hands evidence of every type in and returns the addresses.
func (k *killed) evidence(product string) (addresses []string) {
	for typ, content := range map[string]string{
		"self-assessment": "%PDF-1.7\nworkbook\n%%EOF\n", "policy": "policy", "screenshot": "\x89PNG\r\n\x1a\n", "sample-log": "event time user success",
		"scan-report": "scan", "diagram": "%PDF-1.7\ndiagram\n%%EOF\n", "attestation": "attested", "test-report": "tested",
	} {
		k.do("owner", http.MethodPost, "/v1/products/"+product+"/evidence?type="+typ, content, func() bool {
			all := get[[]struct{ Address string }](k, "owner", "/v1/evidence?limit=100&type="+typ+"&product_id="+product)
			if len(all) > 1 {
				k.t.Fatalf("the same %s was kept %d times", typ, len(all))
			}
			if len(all) == 1 && !slices.Contains(addresses, all[0].Address) {
				addresses = append(addresses, all[0].Address)
			}
			return len(all) == 1
		})
	}
	return addresses
}

func (k *killed) draw() {
	type draw struct {
		Commitment string
		Selected   int
		Opened     bool `json:"verifications_opened"`
	}
	k.do("assessor", http.MethodPost, "/v1/draws", map[string]any{"period": "2026"}, func() bool {
		status, _, err := k.ask("assessor", http.MethodGet, "/v1/draws/2026", "")
		return err == nil && status == http.StatusOK
	})
	committed := get[draw](k, "assessor", "/v1/draws/2026").Commitment
	k.do("assessor", http.MethodPost, "/v1/draws/2026/draw", map[string]any{}, func() bool { return get[draw](k, "assessor", "/v1/draws/2026").Opened })
	d := get[draw](k, "assessor", "/v1/draws/2026")
	_, b, err := k.ask("assessor", http.MethodGet, "/v1/draws/2026/document", "")
	var doc certification.Draw
	if err != nil || json.Unmarshal(b, &doc) != nil || doc.Verify(committed) != nil || d.Commitment != committed {
		k.t.Errorf("the published draw does not verify: %v", err)
	}
	opened := get[[]struct{ ID string }](k, "assessor", "/v1/verifications?limit=100&period=2026")
	if len(opened) != d.Selected || d.Selected == 0 {
		k.t.Errorf("%d verifications opened of %d selected", len(opened), d.Selected)
	}
}

func (k *killed) incident() {
	type incident struct {
		ID, State   string
		Containment []string
		Timeline    []struct{ What string }
	}
	var id string
	k.do("officer", http.MethodPost, "/v1/incidents", map[string]any{
		"title": "Signing key leaked", "type": "credential-compromise", "occurred_at": time.Now().Add(-2 * time.Hour), "aware_at": time.Now().Add(-time.Hour),
		"subjects": []any{map[string]any{"kind": "product", "id": "FP-1002"}}, "exposure": map[string]any{"tfn": true},
	}, func() bool {
		all := get[[]incident](k, "officer", "/v1/incidents?product_id=FP-1002")
		if len(all) > 1 {
			k.t.Fatalf("one report made %d incidents", len(all))
		}
		if len(all) == 1 {
			id = all[0].ID
		}
		return len(all) == 1
	})
	at := "/v1/incidents/" + id
	for _, s := range []struct {
		name, what string
		body       any
	}{
		{"triage", "triaged", map[string]any{}},
		{"contain", "contained", map[string]any{"subject": map[string]any{"kind": "product", "id": "FP-1002"}, "how": "key leaked"}},
		{"notify", "notified", map[string]any{"audiences": []string{"entity"}}},
		{"assess", "assessed", map[string]any{"eligible": true, "reason": "likely harm", "oaic": time.Now().Add(-time.Minute)}},
	} {
		k.do("officer", http.MethodPost, at+"/"+s.name, s.body, func() bool {
			n := 0
			for _, e := range get[incident](k, "officer", at).Timeline {
				if e.What == s.what {
					n++
				}
			}
			if n > 1 {
				k.t.Fatalf("%s %d times", s.what, n)
			}
			return n == 1
		})
	}
	if all := get[[]struct{ ID string }](k, "officer", "/v1/suspensions?active=true&product_id=FP-1002"); len(all) != 1 {
		k.t.Errorf("%d suspensions contain one incident", len(all))
	}
	if all := get[[]struct{ Basis string }](k, "assessor", "/v1/verifications?product_id=FP-1002&limit=100"); len(slices.DeleteFunc(all, func(v struct{ Basis string }) bool { return v.Basis != string(certification.ByIncident) })) != 1 {
		k.t.Errorf("verifications of a high incident: %v", all)
	}
}

// importing imports a register of products, going on where it broke off.
func (k *killed) importing() {
	const n = 1500
	var file bytes.Buffer
	file.WriteString("product_id,name,owner_abn,scenario,whitelisted,services\n")
	for i := range n {
		fmt.Fprintf(&file, "OLD-%05d,Old product,31000000202,5,yes,as.0004.submit\n", i)
	}
	run := func(from int, dry bool) (last int, summary map[string]int, err error) {
		req, err := http.NewRequestWithContext(k.t.Context(), http.MethodPost, fmt.Sprintf("%s/v1/imports?format=csv&dry_run=%v&from_line=%d", k.at, dry, from), bytes.NewReader(file.Bytes()))
		if err != nil {
			return 0, nil, err
		}
		req.Header.Set("Authorization", "Bearer "+tokenFor("both"))
		req.Header.Set("Content-Type", "text/csv")
		resp, err := k.client.Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); ; {
			var line struct {
				Line    int
				Outcome string
				Summary *struct{ Counts map[string]int }
				Error   json.RawMessage
			}
			switch err := dec.Decode(&line); {
			case err != nil:
				return last, nil, err
			case line.Error != nil:
				return last, nil, fmt.Errorf("%s", line.Error)
			case line.Summary != nil:
				return last, line.Summary.Counts, nil
			}
			last = max(last, line.Line)
		}
	}
	from := 1
	for cuts, deadline := 0, time.Now().Add(2*time.Minute); ; cuts++ {
		var last int
		var err error
		var wg sync.WaitGroup
		wg.Go(func() { last, _, err = run(from, false) })
		if cuts < 3 {
			time.Sleep(time.Duration(k.rng.Int64N(int64(150 * time.Millisecond))))
			k.kill()
		}
		wg.Wait()
		from = max(from, last+1)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("the import never ends: %v", err)
		}
	}
	if _, counts, err := run(1, true); err != nil || counts["unchanged"] != n {
		k.t.Errorf("imported again: %v, %v", counts, err)
	}
}

// finding: its due date passes while the control plane is killed again and again.
func (k *killed) finding() {
	type finding struct {
		ID   string
		Late string `json:"late_since"`
	}
	const product = "FP-1009"
	k.do("assessor", http.MethodPost, "/v1/findings", func() any {
		return map[string]any{"product_id": product, "requirement": "OSF-AUD", "finding": "no log", "due_at": time.Now().Add(3 * time.Second)}
	}, func() bool {
		all := get[[]finding](k, "assessor", "/v1/findings?product_id="+product)
		if len(all) > 1 {
			k.t.Fatalf("one finding was raised %d times", len(all))
		}
		return len(all) == 1
	})
	cuts := 0
	k.until("the finding is overdue", func() bool {
		if cuts++; cuts%10 == 0 && cuts <= 30 {
			k.kill()
		}
		return get[[]finding](k, "assessor", "/v1/findings?product_id="+product)[0].Late != ""
	})
	k.kill()
	c := get[killedCase](k, "both", "/v1/certifications/"+product)
	if c.count("certification.finding-overdue") != 1 || c.Certification.State != "Restricted" {
		k.t.Errorf("overdue %d times, %s", c.count("certification.finding-overdue"), c.Certification.State)
	}
	if all := get[[]struct{ ID string }](k, "officer", "/v1/notices?subject="+product); len(all) != 1 {
		k.t.Errorf("%d notices of one overdue finding", len(all))
	}
	k.told("certification/"+product, "a suspension is announced", 1)
}

func (k *killed) until(what string, ok func() bool) {
	k.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatalf("never: %s", what)
		}
	}
}

// edition: a version of the catalogue takes effect on some 1,500 products while
// the control plane is killed.
func (k *killed) edition() {
	catalogue, questionnaire, err := certification.Documents()
	if err != nil {
		k.t.Fatal(err)
	}
	next := func(b []byte) string { return strings.ReplaceAll(string(b), `"2026.1"`, `"2027.1"`) }
	c := strings.Replace(next(catalogue), "effective: 2026-01-01", "effective: "+time.Now().UTC().Format(time.DateOnly), 1)
	c = strings.Replace(c, "title: Audit logging\n    revision: 1", "title: Audit logging\n    revision: 2", 1)
	type edition struct {
		State string
		Reach struct {
			Phase    string
			Reopened int
		}
	}
	const at = "/v1/editions/catalogue-2027.1"
	k.do("assessor", http.MethodPost, "/v1/editions", map[string]any{"of": "catalogue", "catalogue": c, "questionnaire": next(questionnaire)}, func() bool {
		status, _, err := k.ask("assessor", http.MethodGet, at, "")
		return err == nil && status == http.StatusOK
	})
	k.do("assessor2", http.MethodPost, at+"/publish", map[string]any{}, func() bool { return get[edition](k, "assessor", at).State == "published" })
	cuts := 0
	k.until("the version has reached everybody", func() bool {
		if cuts++; cuts <= 4 {
			time.Sleep(time.Duration(k.rng.Int64N(int64(200 * time.Millisecond))))
			k.kill()
		}
		return get[edition](k, "assessor", at).Reach.Phase == "done"
	})
	reopened := 0
	for page := 1; ; page++ {
		all := get[[]killedCase](k, "both", fmt.Sprintf("/v1/certifications?limit=100&page=%d", page))
		for _, c := range all {
			n := c.count("certification.catalogue-changed")
			if n > 1 {
				k.t.Fatalf("%s was reopened %d times", c.Case.Product, n)
			}
			reopened += n
		}
		if len(all) < 100 {
			break
		}
	}
	if want := get[edition](k, "assessor", at).Reach.Reopened; reopened != want || want < 1500 {
		k.t.Errorf("%d were reopened, and %d counted", reopened, want)
	}
	for _, id := range []string{"OLD-00000", "OLD-00777", "OLD-01499"} {
		k.told("certification/"+id, "show again what changed", 1)
	}
}
