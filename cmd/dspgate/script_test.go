package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript plays the stories of testdata/script against one running demo:
// real Redis, Envoy, sidecar and control plane. Each story keeps to products of
// its own, so that they may run side by side. -update rewrites golden output.
func TestScript(t *testing.T) {
	bin, dir := startStoryDemo(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(bin)+string(os.PathListSeparator)+e.Getenv("PATH"))
			info, err := readDemoInfo(dir)
			if err != nil {
				return err
			}
			e.Setenv("CONTROL", info.Control)
			e.Setenv("DIR", dir)
			e.Setenv("AS_DIR", "--dir="+dir)
			e.Setenv("PEOPLE", filepath.Join(dir, "key", "people"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"call": func(ts *testscript.TestScript, neg bool, args []string) { storyCall(ts, bin, dir, neg, args) },
			"instant": func(ts *testscript.TestScript, _ bool, args []string) {
				// instant NAME DURATION: sets $NAME to the RFC 3339 time so far from now.
				d, err := time.ParseDuration(args[1])
				ts.Check(err)
				ts.Setenv(args[0], time.Now().Add(d).UTC().Format(time.RFC3339Nano))
			},
			"eventually": storyEventually,
			"api":        func(ts *testscript.TestScript, neg bool, args []string) { storyAPI(ts, dir, neg, args) },
			"untilapi":   func(ts *testscript.TestScript, _ bool, args []string) { storyUntilAPI(ts, dir, args) },
			"capture":    storyCapture,
			"recorded":   func(ts *testscript.TestScript, _ bool, args []string) { storyRecorded(ts, dir, args) },
			"checks":     func(ts *testscript.TestScript, _ bool, args []string) { storyChecks(ts, dir, args) },
			"answer":     func(ts *testscript.TestScript, _ bool, args []string) { storyAnswer(ts, dir, args) },
			"verify":     func(ts *testscript.TestScript, _ bool, args []string) { storyVerify(ts, dir, args) },
			"flood":      func(ts *testscript.TestScript, _ bool, args []string) { storyFlood(ts, bin, dir, args) },
			"unreached":  func(ts *testscript.TestScript, _ bool, args []string) { storyUnreached(ts, dir, args) },
			"until":      func(ts *testscript.TestScript, _ bool, args []string) { storyUntil(ts, bin, dir, args) },
		},
	})
}

// startStoryDemo builds the program and runs its demo in a folder of its own.
func startStoryDemo(t *testing.T) (bin, dir string) {
	t.Helper()
	tmp := t.TempDir()
	bin = filepath.Join(tmp, "dspgate")
	build := exec.Command("go", "build", "-o", bin, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	dir = filepath.Join(tmp, "run")
	env := os.Environ()
	if path, err := filepath.Abs(filepath.Join("..", "..", ".tools", "envoy")); err == nil && os.Getenv("DSPGATE_ENVOY") == "" {
		env = append(env, "DSPGATE_ENVOY="+path)
	}
	var out bytes.Buffer
	demo := exec.Command(bin, "demo", "--dir", dir, "--ingress", ":0", "--control", ":0", "--redis", ":0", "--envoy-admin", ":0", "--day", "500ms")
	demo.Stdout, demo.Stderr, demo.Env = &out, &out, env
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- demo.Wait() }()
	t.Cleanup(func() {
		if err := demo.Process.Signal(os.Interrupt); err != nil {
			return
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Error("the demo did not end within 30 s of Ctrl-C")
			_ = demo.Process.Kill()
		}
	})
	for deadline := time.Now().Add(90 * time.Second); ; {
		if _, err := os.Stat(filepath.Join(dir, "demo.json")); err == nil {
			return bin, dir
		}
		select {
		case err := <-ended:
			t.Fatalf("the demo ended at its start: %v\n%s", err, out.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the demo is not ready:\n%s", out.String())
		}
	}
}

// storyCall sends one call through Envoy: call METHOD PATH [-evte] [-no-token]
// [-header k=v]… [-body text] [-token file] [token flags…]. It prints the status
// and the code, what the headers say of limits and versions, then the body. It fails when the call is refused; with "!" in
// front it fails when the call is allowed.
func storyCall(ts *testscript.TestScript, bin, dir string, neg bool, args []string) {
	status, code, limits, body := doStoryCall(ts, bin, dir, args)
	fmt.Fprintf(ts.Stdout(), "%d %s\n%s%s\n", status, code, limits, body)
	if (status < 300) == neg {
		ts.Fatalf("call %s: %d %s", strings.Join(args, " "), status, code)
	}
}

// storyUntil repeats a call until it gets a status, a code or, as "sunset", that
// header, and prints the last answer as call does: until WANT call….
func storyUntil(ts *testscript.TestScript, bin, dir string, args []string) {
	for deadline := time.Now().Add(60 * time.Second); ; {
		status, code, limits, body := doStoryCall(ts, bin, dir, args[1:])
		if args[0] == fmt.Sprint(status) || args[0] == code || args[0] == "sunset" && strings.Contains(limits, "Sunset: ") {
			fmt.Fprintf(ts.Stdout(), "%d %s\n%s%s\n", status, code, limits, body)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("until %s: still %d %s", args[0], status, code)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// storyEventually repeats a command until its output matches: what several
// processes have to hear of first. eventually REGEXP COMMAND….
func storyEventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually REGEXP COMMAND …")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && want.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("eventually %s: %v, still\n%s", args[0], err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// doStoryCall sends a call, and again while the declared 503 says that it was
// held up, or that the authorizer was too slow: on a machine with more to do than
// processors both happen, and neither is what a story is about.
func doStoryCall(ts *testscript.TestScript, bin, dir string, args []string) (status int, code, limits, body string) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		status, code, limits, body = storyCallOnce(ts, bin, dir, args)
		if status != http.StatusServiceUnavailable || code != "admission-expired" && code != "authorizer-unavailable" || time.Now().After(deadline) {
			return status, code, limits, body
		}
	}
}

func storyCallOnce(ts *testscript.TestScript, bin, dir string, args []string) (status int, code, limits, body string) {
	if len(args) < 2 {
		ts.Fatalf("usage: call METHOD PATH …")
	}
	info, err := readDemoInfo(dir)
	ts.Check(err)
	method, path := args[0], args[1]
	host, noToken, payload, tokenFile := "", false, "", ""
	header := http.Header{}
	flags := []string{"token", "--dir", dir}
	for rest := args[2:]; len(rest) > 0; {
		take := 2
		switch rest[0] {
		case "-evte":
			host, take = "evte.localhost", 1
		case "-no-token":
			noToken, take = true, 1
		case "-header":
			k, v, _ := strings.Cut(rest[1], "=")
			header.Set(k, v)
		case "-body":
			payload = rest[1]
		case "-token":
			tokenFile = rest[1]
		default:
			flags = append(flags, "-"+rest[0], rest[1])
		}
		rest = rest[take:]
	}
	req, err := http.NewRequest(method, info.Ingress+path, strings.NewReader(payload))
	ts.Check(err)
	req.Header = header
	if host != "" {
		req.Host = host
	}
	switch {
	case tokenFile != "":
		header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile(tokenFile)))
	case !noToken:
		out, err := exec.Command(bin, flags...).Output()
		ts.Check(err)
		header.Set("Authorization", "Bearer "+strings.TrimSpace(string(out)))
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	ts.Check(err)
	var problem struct{ Errors []struct{ Code string } }
	if json.Unmarshal(b, &problem) == nil && len(problem.Errors) > 0 {
		code = problem.Errors[0].Code
	}
	for _, name := range []string{"RateLimit-Policy", "RateLimit", "Retry-After", "X-Dsp-Warning", "Sunset"} {
		if v := resp.Header.Get(name); v != "" {
			limits += name + ": " + v + "\n"
		}
	}
	return resp.StatusCode, code, limits, string(b)
}
