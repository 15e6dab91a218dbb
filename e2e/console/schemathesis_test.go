package console

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/dspgate/dspgate/control/controltest"
)

// schemathesisMax bounds one role's run, on a machine that is busy with other things.
const schemathesisMax = 8 * time.Minute

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
	t.Fatal("no schemathesis: run make test-tools once, or set DSPGATE_SCHEMATHESIS")
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

// TestC11Schemathesis: what the description allows and what it forbids, sent as
// each role after a real sign-in: no 5xx, no status or body that is not
// described, no method that is not either. What the register knows better than
// any schema (check digits, states) is refused with 422 or 409, so that
// well-formed data need not be accepted; and 503 is told by the API where a part
// of it is not configured.
func TestC11Schemathesis(t *testing.T) {
	program := schemathesis(t)
	w := controltest.New(t)
	for _, c := range []struct {
		email       string
		permissions []string
	}{
		{"operator@agency.example", []string{"operator", "incident-officer", "registrar"}},
		{"assessor@agency.example", []string{"assessor"}},
		{"auditor@agency.example", []string{"auditor"}},
		{"dev@kookaburra.example", []string{"developer"}},
	} {
		t.Run(c.permissions[0], func(t *testing.T) {
			// The token goes by a file: everybody may read a command line.
			config := filepath.Join(t.TempDir(), "schemathesis.toml")
			content := fmt.Sprintf("headers = { Authorization = %q }\n", "Bearer "+token(t, w, c.email, c.permissions...))
			if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program, "--config-file", config, "run", w.URL+"/openapi.json", "--no-color",
				"--phases", "examples,coverage,fuzzing", "-n", "2", "--exclude-checks", "positive_data_acceptance", "--seed", "1", "--workers", "2")
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
				t.Errorf("%v\n%s", err, text[max(0, len(text)-6000):])
			}
		})
	}
}
