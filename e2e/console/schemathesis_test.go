package console

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/dspgate/dspgate/control/controltest"
)

// schemathesisMax bounds one role's run, on a machine that is busy with other things.
const schemathesisMax = 15 * time.Minute

// With other examples or another seed each run sends something else: make schemathesis.
var (
	schemathesisWhole    = flag.Bool("schemathesis.whole", false, "every operation as each role")
	schemathesisExamples = flag.Int("schemathesis.examples", 1, "random cases of each operation; more than one adds the phase of coverage")
	schemathesisSeed     = flag.Int64("schemathesis.seed", 1, "of the random cases; 1 is the same run every time")
)

// schemathesis is the program, from .tools.
func schemathesis(t *testing.T) string {
	t.Helper()
	for _, path := range []string{os.Getenv("DSPGATE_SCHEMATHESIS"), filepath.Join("..", "..", ".tools", "schemathesis", "bin", "schemathesis")} {
		if _, err := os.Stat(path); path != "" && err == nil {
			abs, err := filepath.Abs(path)
			if err != nil {
				t.Fatal(err)
			}
			return abs
		}
	}
	t.Fatal("no schemathesis: run scripts/tools.sh test, or set DSPGATE_SCHEMATHESIS")
	return ""
}

// token signs in at the provider and makes a token in the console.
func token(t *testing.T, w *controltest.World, email string, permissions ...string) string {
	t.Helper()
	_, body := w.Browser(email).Send("/console/tokens", url.Values{"name": {"schemathesis"}, "days": {"1"}, "permission": permissions})
	m := regexp.MustCompile(`dspgate_[A-Z2-7]{52}`).FindString(body)
	if m == "" {
		t.Fatalf("no token for %s", email)
	}
	return m
}

func status(t *testing.T, address, token string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// schemathesisArgs are those of every run. What the register knows better than any
// schema (check digits, states) is refused with 422 or 409, so that well-formed
// data need not be accepted. Nothing hangs on how fast the machine is.
func schemathesisArgs(address, phases string) []string {
	args := []string{"run", address + "/openapi.json", "--no-color", "--phases", phases, "--workers", "1",
		"-n", strconv.Itoa(*schemathesisExamples), "--suppress-health-check", "all", "--request-timeout", "120", "--warnings", "off",
		"--continue-on-failure", "--exclude-checks", "positive_data_acceptance"}
	if *schemathesisSeed == 1 {
		args = append(args, "--generation-deterministic")
	} else {
		args = append(args, "--generation-database", "none", "--seed", strconv.FormatInt(*schemathesisSeed, 10))
	}
	return args
}

// operations are the IDs of every operation there is.
func operations(t *testing.T, address string) (ids []string) {
	t.Helper()
	resp, err := http.Get(address + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	for _, methods := range doc.Paths {
		for _, op := range methods {
			if op.OperationID != "" {
				ids = append(ids, op.OperationID)
			}
		}
	}
	if len(ids) < 100 {
		t.Fatalf("%d operations are described", len(ids))
	}
	slices.Sort(ids)
	return ids
}

// left are operations not to be sent. schemathesis takes IDs from answers, and
// would revoke its own token; and a stream has no end.
var left = []string{"revoke-token", "follow-events"}

// TestC11Schemathesis: what the description allows and what it forbids, sent as
// each role after a real sign-in: no 5xx, no status or body that is not
// described, no method that is not either. 503 is told by the API where a part of
// it is not configured. By default the same requests every time: every operation
// as the one that may do most, and each as one of the others.
func TestC11Schemathesis(t *testing.T) {
	program := schemathesis(t)
	for role, c := range []struct {
		email       string
		permissions []string
		phases      string
	}{
		{"operator@agency.example", []string{"operator", "incident-officer", "registrar"}, "examples,fuzzing"},
		{"assessor@agency.example", []string{"assessor"}, "examples,fuzzing"},
		{"auditor@agency.example", []string{"auditor"}, "examples,fuzzing"},
		{"dev@kookaburra.example", []string{"developer"}, "examples,fuzzing"},
	} {
		t.Run(c.permissions[0], func(t *testing.T) {
			w := controltest.New(t) // its own, so that one role's run does not hang on another's
			// The token goes by a file: everybody may read a command line.
			config := filepath.Join(t.TempDir(), "schemathesis.toml")
			secret := token(t, w, c.email, c.permissions...)
			content := fmt.Sprintf("headers = { Authorization = %q }\n[checks.negative_data_rejection]\nexpected-statuses = [\"4xx\", \"5xx\"]\n", "Bearer "+secret) // a body that is wrong by its size is 413
			if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			phases := c.phases
			if *schemathesisExamples > 1 {
				phases = "examples,coverage,fuzzing"
			}
			args := append([]string{"--config-file", config}, schemathesisArgs(w.URL, phases)...)
			for i, id := range operations(t, w.URL) {
				if !slices.Contains(left, id) && (role == 0 || *schemathesisWhole || i%3 == role-1) {
					args = append(args, "--include-operation-id", id)
				}
			}
			cmd := exec.Command(program, args...)
			cmd.Dir = t.TempDir()
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			stop := time.AfterFunc(schemathesisMax, func() { _ = cmd.Process.Kill() })
			defer stop.Stop()
			if err := cmd.Wait(); err != nil {
				text := out.Bytes()
				if i := bytes.Index(text, []byte("FAILURES")); i > 0 {
					text = text[i:]
				}
				t.Errorf("%v\n%s", err, text[:min(len(text), 40000)])
			}
			if got := status(t, w.URL+"/v1/tokens", secret); got != http.StatusOK {
				t.Errorf("the token answers %d at the end: it was not used", got)
			}
		})
	}
}
