package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dspgate/dspgate/control/controltest"
)

// What the stories of registration and certification need beside the program's
// own commands.

// storyAPI asks the control plane: api METHOD PATH [BODY] [as WHO]. WHO is a role
// of the demo, or the name of a token of its people, such as an ABN.
func storyAPI(ts *testscript.TestScript, dir string, neg bool, args []string) {
	who := "operator"
	if n := len(args); n > 2 && args[n-2] == "as" {
		who, args = args[n-1], args[:n-2]
	}
	body := ""
	if len(args) > 2 {
		body = args[2]
	}
	status, b := askAPI(ts, dir, who, args[0], args[1], "application/json", body)
	fmt.Fprintf(ts.Stdout(), "%d\n%s\n", status, b)
	if (status < 300) == neg {
		ts.Fatalf("api %s: %d %s", strings.Join(args, " "), status, b)
	}
}

func askAPI(ts *testscript.TestScript, dir, who, method, path, media, body string) (int, []byte) {
	info, err := readDemoInfo(dir)
	ts.Check(err)
	token := map[string]string{"operator": info.OperatorToken, "operator2": info.Operator2Token, "assessor": info.AssessorToken, "auditor": info.AuditorToken, "developer": info.DeveloperToken}[who]
	if token == "" {
		b, err := os.ReadFile(filepath.Join(dir, "key", "people", who))
		ts.Check(err)
		token = strings.TrimSpace(string(b))
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequest(method, info.Control+path, strings.NewReader(body))
		ts.Check(err)
		req.Header.Set("Authorization", "Bearer "+token)
		if body != "" {
			req.Header.Set("Content-Type", media)
		}
		resp, err := http.DefaultClient.Do(req)
		ts.Check(err)
		b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
		_ = resp.Body.Close()
		ts.Check(err)
		if resp.StatusCode != http.StatusServiceUnavailable || time.Now().After(deadline) {
			return resp.StatusCode, b
		}
	}
}

// ask is askAPI for what must succeed, decoded.
func ask[T any](ts *testscript.TestScript, dir, who, method, path string, body any) (out T) {
	text := ""
	if body != nil {
		b, err := json.Marshal(body)
		ts.Check(err)
		text = string(b)
	}
	status, b := askAPI(ts, dir, who, method, path, "application/json", text)
	var answer struct{ Data *T }
	answer.Data = &out
	if err := json.Unmarshal(b, &answer); status >= 300 || err != nil {
		ts.Fatalf("%s %s: %d %s", method, path, status, b)
	}
	return out
}

// storyCapture sets a variable to what a pattern's first group meets in the last
// output: capture NAME PATTERN.
func storyCapture(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) < 2 {
		ts.Fatalf("capture %s: %q meets nothing in\n%s", args[0], args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], m[1])
}

// storyRecorded waits until a decision is recorded: recorded ID….
func storyRecorded(ts *testscript.TestScript, dir string, args []string) {
	for _, id := range args {
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if status, _ := askAPI(ts, dir, "operator", http.MethodGet, "/v1/decisions/"+id, "", ""); status == http.StatusOK {
				break
			}
			if time.Now().After(deadline) {
				ts.Fatalf("the decision %s is not recorded", id)
			}
		}
	}
}

// storyChecks records that every eligibility check of an entity passed but for
// those named: checks ABN [CHECK…].
func storyChecks(ts *testscript.TestScript, dir string, args []string) {
	type registration struct {
		Case struct {
			Checks []struct{ Name, Subject string }
		}
	}
	r := ask[registration](ts, dir, "operator", http.MethodGet, "/v1/registrations/"+args[0], nil)
	for _, c := range r.Case.Checks {
		body := map[string]any{"check": c.Name, "outcome": "pass", "source": "seen by a registrar"}
		if slices.Contains(args[1:], c.Name) {
			body["outcome"] = "fail"
		}
		if c.Subject != "entity" {
			body["subject"] = c.Subject
		}
		ask[json.RawMessage](ts, dir, "operator", http.MethodPost, "/v1/registrations/"+args[0]+"/checks", body)
	}
}

// storyAnswer hands evidence of every type in and answers all questions asked of a
// product such that they pass, but for those that are given: answer PRODUCT WHO [ID=value…].
func storyAnswer(ts *testscript.TestScript, dir string, args []string) {
	product, who := args[0], args[1]
	given := map[string]string{}
	for _, a := range args[2:] {
		id, v, _ := strings.Cut(a, "=")
		given[id] = v
	}
	var evidence []string
	for query, content := range controltest.Evidence(product) {
		status, b := askAPI(ts, dir, who, http.MethodPost, "/v1/products/"+product+"/evidence?"+query, "application/octet-stream", content)
		var e struct{ Data struct{ Address string } }
		if err := json.Unmarshal(b, &e); err != nil || status >= 300 {
			ts.Fatalf("evidence %s: %d %s", query, status, b)
		}
		evidence = append(evidence, e.Data.Address)
	}
	tried := map[string]int{}
	for range 40 {
		m := ask[struct{ Questions []controltest.Asked }](ts, dir, who, http.MethodGet, "/v1/certifications/"+product+"/questions", nil)
		answers := controltest.Answers(m.Questions, evidence, tried, given)
		if len(answers) == 0 {
			return
		}
		ask[json.RawMessage](ts, dir, who, http.MethodPost, "/v1/certifications/"+product+"/answers", map[string]any{"answers": answers})
	}
	ts.Fatalf("%s: the questions never pass", product)
}

// storyVerify looks at every requirement of a product's open verification and
// closes it: verify PRODUCT.
func storyVerify(ts *testscript.TestScript, dir string, args []string) {
	c := ask[struct {
		Case struct {
			Verification string `json:"verification_id"`
		}
	}](ts, dir, "assessor", http.MethodGet, "/v1/certifications/"+args[0], nil)
	at := "/v1/verifications/" + c.Case.Verification
	v := ask[struct {
		Tests []struct{ Requirement string }
	}](ts, dir, "assessor", http.MethodGet, at, nil)
	for _, t := range v.Tests {
		ask[json.RawMessage](ts, dir, "assessor", http.MethodPost, at+"/tests", map[string]any{"requirement": t.Requirement, "method": "documents-read", "outcome": "pass"})
	}
	ask[json.RawMessage](ts, dir, "assessor", http.MethodPost, at+"/close", map[string]any{"summary": "all of it is there"})
}

// storyUntilAPI repeats a question until a pattern meets its answer: untilapi PATTERN PATH.
func storyUntilAPI(ts *testscript.TestScript, dir string, args []string) {
	want := regexp.MustCompile(args[0])
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, b := askAPI(ts, dir, "operator", http.MethodGet, args[1], "", "")
		if want.Match(bytes.TrimSpace(b)) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("untilapi %s: still %s", args[0], b)
		}
	}
}

// storyFlood sends so many calls, each about somebody else, and wants the same
// code for every one: flood N CODE METHOD PATH [call flags…]. "#" in a flag is the
// number of the call in nine digits.
func storyFlood(ts *testscript.TestScript, bin, dir string, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	for i := range n {
		one := slices.Clone(args[2:])
		for j := range one {
			one[j] = strings.ReplaceAll(one[j], "#", fmt.Sprintf("%09d", i+1))
		}
		if status, code, _, _ := doStoryCall(ts, bin, dir, one); code != args[1] {
			ts.Fatalf("flood: call %d: %d %s, want %s", i+1, status, code, args[1])
		}
	}
}

// storyUnreached fails when the call of a decision reached the upstream:
// unreached DECISION-ID.
func storyUnreached(ts *testscript.TestScript, dir string, args []string) {
	info, err := readDemoInfo(dir)
	ts.Check(err)
	b, err := os.ReadFile(info.Arrivals)
	ts.Check(err)
	if strings.Contains(string(b), args[0]) {
		ts.Fatalf("unreached: the upstream had the call of %s", args[0])
	}
}
