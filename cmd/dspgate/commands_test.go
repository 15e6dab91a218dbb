package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// plane is a control plane that answers what it is told, and keeps what it was sent.
type plane struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string][]string // "GET /v1/…" → "STATUS BODY", the last one for ever
	got     []sent
}

type sent struct{ Line, Query, Token, Key, Match, Body string }

func newPlane(t *testing.T, answers map[string][]string) *plane {
	p := &plane{answers: answers}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		line := r.Method + " " + r.URL.EscapedPath()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got = append(p.got, sent{line, r.URL.RawQuery, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.Header.Get("Idempotency-Key"), r.Header.Get("If-Match"), string(b)})
		queue := p.answers[line]
		if len(queue) == 0 {
			w.WriteHeader(404)
			fmt.Fprintf(w, `{"errors":[{"id":"r1","code":"not-found","detail":"no answer for %s"}]}`, line)
			return
		}
		if len(queue) > 1 {
			p.answers[line] = queue[1:]
		}
		status, body, _ := strings.Cut(queue[0], " ")
		w.Header().Set("ETag", `"7"`)
		var code int
		fmt.Sscan(status, &code)
		w.WriteHeader(code)
		io.WriteString(w, body)
	}))
	t.Cleanup(p.Close)
	return p
}

// dspgate runs one command line against the plane.
func (p *plane) dspgate(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	if env == nil {
		env = map[string]string{"DSPGATE_URL": p.URL, "DSPGATE_TOKEN": "secret-token"}
	}
	var out, errs bytes.Buffer
	g := &globals{stdout: &out, stderr: &errs, getenv: func(k string) string { return env[k] }}
	code = execute(t.Context(), g, args)
	if strings.Contains(errs.String()+out.String(), "secret-token") {
		t.Error("prints the token")
	}
	return code, out.String(), errs.String()
}

const suspended = `{"id":"SU-9","revision":9,"subject":{"kind":"product","id":"FP-1003"},"reason":"x","imposed_by":"o","imposed_at":"2026-11-22T00:00:00.000Z","starts_at":"2026-11-22T00:00:00.000Z","expires_at":"2026-11-22T04:00:00.000Z","active":true`

func enforcement(complete bool, states ...string) string {
	var sidecars []string
	for i, s := range states {
		until := ""
		if s != "acknowledged" {
			until = `,"until":{"1":"2026-11-22T00:01:00.000Z","2":"2026-11-22T00:01:00.000Z","3":"2026-11-22T00:00:02.000Z","4":"2026-11-22T00:00:02.000Z"}`
		}
		sidecars = append(sidecars, fmt.Sprintf(`{"id":"s%d","state":%q,"revision":%d%s}`, i+1, s, max(0, 9-i), until))
	}
	return fmt.Sprintf(`,"enforcement":{"complete":%v,"sidecars":[%s],"elapsed_ms":12}}`, complete, strings.Join(sidecars, ","))
}

// The exit codes are a contract: scripts go by them.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{"done", `201 {"data":` + suspended + enforcement(true, "acknowledged", "acknowledged") + `}`, []string{"--wait"}, 0,
			"SU-9 product FP-1003 suspended, until 2026-11-22T04:00:00.000Z\n2 of 2 sidecars hold it after 12 ms\n", ""},
		{"without a stamp", `201 {"data":` + suspended + strings.Replace(enforcement(true, "acknowledged"), `"elapsed_ms"`, `"p1_only_services":["a.get","b.get"],"elapsed_ms"`, 1) + `}`, []string{"--wait"}, 0,
			"SU-9 product FP-1003 suspended, until 2026-11-22T04:00:00.000Z\n1 of 1 sidecars hold it after 12 ms\n" +
				"calls allowed before may still reach services that verify no admission stamp: a.get, b.get\n", ""},
		{"without waiting", `201 {"data":` + suspended + `}}`, nil, 0, "SU-9 product FP-1003 suspended, until 2026-11-22T04:00:00.000Z\n", ""},
		{"already", `200 {"data":` + suspended + `}}`, nil, 0, "SU-9 product FP-1003 suspended already, until 2026-11-22T04:00:00.000Z\n", ""},
		{"lapsed", `201 {"data":` + suspended + enforcement(true, "acknowledged", "lapsed") + `}`, []string{"--wait"}, 3,
			"SU-9 product FP-1003 suspended, until 2026-11-22T04:00:00.000Z\n1 of 2 sidecars hold it after 12 ms\ns1\tacknowledged\t9\t\ns2\tlapsed\t8\t\n",
			"dspgate: done; silent and therefore refusing everything: s2\n"},
		{"pending", `201 {"data":` + suspended + enforcement(false, "acknowledged", "pending") + `}`, []string{"--wait"}, 4,
			"SU-9 product FP-1003 suspended, until 2026-11-22T04:00:00.000Z\n1 of 2 sidecars hold it after 12 ms\ns1\tacknowledged\t9\t\ns2\tpending\t8\tmay serve until 2026-11-22T00:01:00.000Z\n",
			"dspgate: committed, but not complete yet: 1 sidecar(s) have not acknowledged it, and may serve the older register until their leases end\n"},
		{"not durable", `503 {"errors":[{"id":"r1","code":"not-durable","detail":"committed, but not yet durable","meta":{"data":` + suspended + enforcement(true, "acknowledged") + `}}]}`, []string{"--wait"}, 4,
			"SU-9 product FP-1003 suspended, until 2026-11-22T04:00:00.000Z\n1 of 1 sidecars hold it after 12 ms\n", "dspgate: committed, but not yet durable [not-durable] (request r1)\n"},
		{"refused", `422 {"errors":[{"id":"r1","code":"invalid","detail":"no such product","source":{"pointer":"/subject/id"}}]}`, nil, 1, "", "dspgate: subject/id: no such product [invalid]\n"},
		{"nonsense", `200 <html>`, nil, 1, "", ""},
		{"no reason", ``, []string{"--reason", ""}, 2, "", "dspgate: --reason is needed: say why, for the log and the one who is suspended\n"},
		{"timeout without wait", ``, []string{"--timeout", "1s"}, 2, "", "dspgate: --timeout goes with --wait\n"},
		{"timeout too long", ``, []string{"--wait", "--timeout", "6s"}, 2, "", "dspgate: --timeout 6s: at most 5s\n"},
		{"bad output", ``, []string{"-o", "xml"}, 2, "", "dspgate: -o xml: use table, json or yaml\n"},
		{"unknown flag", ``, []string{"--froce"}, 2, "", "dspgate: unknown flag: --froce; see dspgate suspend --help\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := c.answer
			if strings.HasSuffix(answer, "}}") && strings.Count(answer, "{") != strings.Count(answer, "}") {
				answer = strings.TrimSuffix(answer, "}") // suspended is left open for the enforcement
			}
			if strings.Count(answer, "{") > strings.Count(answer, "}") {
				answer += "}"
			}
			p := newPlane(t, map[string][]string{"POST /v1/suspensions": {answer}})
			code, stdout, stderr := p.dspgate(t, nil, append([]string{"suspend", "product", "FP-1003", "--reason", "x"}, c.args...)...)
			if code != c.code || stdout != c.stdout || c.stderr != "" && stderr != c.stderr {
				t.Errorf("exit %d, want %d\nstdout %q\n  want %q\nstderr %q\n  want %q", code, c.code, stdout, c.stdout, stderr, c.stderr)
			}
			if (stderr == "") != (c.code == 0) || strings.Count(stderr, "\n") > 1 {
				t.Errorf("one sentence for people when it is not done, none when it is: %q", stderr)
			}
			if c.code == 2 && len(p.got) != 0 {
				t.Error("a wrong command line was sent")
			}
		})
	}
}

func TestUsageIsExit2AndOneSentence(t *testing.T) {
	p := newPlane(t, nil)
	for _, line := range []string{
		"bogus", "product", "product bogus", "product show", "product show a b", "suspend", "suspend product", "suspend galaxy FP-1 --reason x", "suspend entity 65000000102 --reason x",
		"suspend product FP-1 --reason x --expires -1h", "lift", "lift a b c --reason x", "lift SU-1", "explain", "entity create 1", "entity update 1", "notice issue product FP-1 --reason x --effective tomorrow",
		"product list --limit -1", "confirm SU-1 --until soon",
	} {
		code, stdout, stderr := p.dspgate(t, nil, strings.Fields(line)...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "dspgate: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
	}
	if len(p.got) != 0 {
		t.Errorf("sent %v", p.got)
	}
}

// C13: where to and who come from the environment, a file or a demo, never
// argv; a token never goes over http to another machine, and no switch makes it.
func TestAddressAndToken(t *testing.T) {
	dir := t.TempDir()
	p := newPlane(t, map[string][]string{"GET /v1/me": {`200 {"data":{"name":"x","permissions":[]}}`}})
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	demo, _ := json.Marshal(map[string]any{"control": p.URL, "operator_token": "op", "developer_token": "dev", "auditor_token": "aud"})
	write("demo.json", string(demo), 0o600)
	private, open := write("private", "from-file\n", 0o600), write("open", "from-file", 0o644)
	for _, c := range []struct {
		name  string
		env   map[string]string
		args  string
		code  int
		token string
	}{
		{"environment", map[string]string{"DSPGATE_URL": p.URL, "DSPGATE_TOKEN": "env"}, "status", 0, "env"},
		{"demo, the command's own role", map[string]string{}, "status --dir " + dir, 0, "dev"},
		{"demo, another role", map[string]string{}, "status --as auditor --dir " + dir, 0, "aud"},
		{"demo, the registrar is the operator", map[string]string{}, "status --as registrar --dir " + dir, 0, "op"},
		{"token file", map[string]string{"DSPGATE_URL": p.URL, "DSPGATE_TOKEN": "env"}, "status --token-file " + private, 0, "from-file"},
		{"token file that others may read", map[string]string{"DSPGATE_URL": p.URL}, "status --token-file " + open, 2, ""},
		{"both", map[string]string{"DSPGATE_URL": p.URL, "DSPGATE_TOKEN": "env"}, "status --dir " + dir, 2, ""},
		{"neither", map[string]string{}, "status", 2, ""},
		{"no demo there", map[string]string{}, "status --dir /nonexistent", 2, ""},
		{"no such role", map[string]string{}, "status --as king --dir " + dir, 2, ""},
		{"no token", map[string]string{"DSPGATE_URL": p.URL}, "status", 2, ""},
		{"http to elsewhere", map[string]string{"DSPGATE_URL": "http://control.example", "DSPGATE_TOKEN": "env"}, "status", 2, ""},
		{"no scheme", map[string]string{"DSPGATE_URL": "control.example", "DSPGATE_TOKEN": "env"}, "status", 2, ""},
		{"a password in the address", map[string]string{"DSPGATE_URL": "https://a:b@control.example", "DSPGATE_TOKEN": "env"}, "status", 2, ""},
		{"a token of two lines", map[string]string{"DSPGATE_URL": p.URL, "DSPGATE_TOKEN": "a\nb"}, "status", 2, ""},
		{"token on argv", map[string]string{"DSPGATE_URL": p.URL}, "status --token x", 2, ""},
		{"TLS off", map[string]string{"DSPGATE_URL": p.URL, "DSPGATE_TOKEN": "env"}, "status --insecure", 2, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.got = nil
			code, _, stderr := p.dspgate(t, c.env, strings.Fields(c.args)...)
			if code != c.code {
				t.Fatalf("exit %d, want %d: %s", code, c.code, stderr)
			}
			if token := ""; len(p.got) > 0 {
				if token = p.got[0].Token; token != c.token {
					t.Errorf("token %q, want %q", token, c.token)
				}
			} else if c.token != "" {
				t.Error("nothing sent")
			}
		})
	}
}

// An update sends back what it was not told to change, under the ETag it read.
func TestUpdateKeepsTheRest(t *testing.T) {
	p := newPlane(t, map[string][]string{
		"GET /v1/products/FP-1": {`200 {"data":{"id":"FP-1","name":"Old","owner":"65000000101","chain":["73000000606"],"scenario":6,"revision":7,"certification":{"state":"Draft"}}}`},
		"PUT /v1/products/FP-1": {`200 {"data":{"id":"FP-1"}}`},
	})
	code, _, stderr := p.dspgate(t, nil, "product", "update", "FP-1", "--name", "New", "--chain", "", "--reason", "renamed")
	if code != 0 {
		t.Fatal(stderr)
	}
	got := p.got[1]
	if got.Key == "" || len(got.Key) < 20 {
		t.Error("no Idempotency-Key")
	}
	got.Key = ""
	want := sent{"PUT /v1/products/FP-1", "", "secret-token", "", `"7"`, `{"name":"New","owner":"65000000101","reason":"renamed","scenario":6}`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// What is unavailable is asked again, a command under the same key; what may
// have been committed is not.
func TestWhatIsSentAgain(t *testing.T) {
	away := `503 {"errors":[{"id":"r1","code":"register-unavailable","detail":"away"}]}`
	p := newPlane(t, map[string][]string{"POST /v1/suspensions": {away, away, `201 {"data":` + suspended + `}}`}})
	if code, _, stderr := p.dspgate(t, nil, "suspend", "product", "FP-1003", "--reason", "x"); code != 0 {
		t.Fatal(stderr)
	}
	if len(p.got) != 3 || p.got[0].Key != p.got[2].Key {
		t.Errorf("%+v", p.got)
	}
	for _, code := range []string{"not-durable", "outcome-unknown"} {
		p := newPlane(t, map[string][]string{"POST /v1/suspensions": {`503 {"errors":[{"id":"r1","code":"` + code + `","detail":"x"}]}`}})
		p.dspgate(t, nil, "suspend", "product", "FP-1003", "--reason", "x")
		if len(p.got) != 1 {
			t.Errorf("%s: sent %d times", code, len(p.got))
		}
	}
}

func TestLiftBySubject(t *testing.T) {
	one := `{"id":"SU-9","subject":{"kind":"product","id":"FP-1003"}}`
	lifted := `200 {"data":{"id":"SU-9","subject":{"kind":"product","id":"FP-1003"},"lifted_at":"2026-11-22T00:00:00.000Z"}}`
	for _, c := range []struct {
		found string
		code  int
		out   string
	}{
		{one, 0, "SU-9 product FP-1003 lifted\n"},
		{"", 1, "dspgate: product FP-1003 is not suspended\n"},
		{one + "," + one, 1, "dspgate: product FP-1003 is suspended 2 times: lift each by its ID (SU-9, SU-9)\n"},
	} {
		p := newPlane(t, map[string][]string{"GET /v1/suspensions": {`200 {"data":[` + c.found + `]}`}, "POST /v1/suspensions/SU-9/lift": {lifted}})
		code, stdout, stderr := p.dspgate(t, nil, "lift", "product", "FP-1003", "--reason", "x")
		if code != c.code || stdout+stderr != c.out {
			t.Errorf("exit %d: %s%s", code, stdout, stderr)
		}
		if q := p.got[0].Query; q != "active=true&kind=product&limit=100&page=1&subject=FP-1003" {
			t.Errorf("asked %s", q)
		}
	}
}

// On a terminal a waiting suspend shows a line for each sidecar it waits for,
// drawn over again, and leaves none.
func TestProgressOnATerminal(t *testing.T) {
	many := make([]string, 14)
	for i := range many {
		many[i] = "pending"
	}
	p := newPlane(t, map[string][]string{
		"POST /v1/suspensions": {`201 {"data":` + suspended + `}}`},
		"GET /v1/suspensions/SU-9": {
			`200 {"data":` + suspended + enforcement(false, many...) + `}`,
			`200 {"data":` + suspended + enforcement(false, "acknowledged", "pending", "pending") + `}`,
			`200 {"data":` + suspended + enforcement(true, "acknowledged", "acknowledged", "acknowledged") + `}`,
		},
	})
	var out, errs bytes.Buffer
	env := map[string]string{"DSPGATE_URL": p.URL, "DSPGATE_TOKEN": "t"}
	g := &globals{stdout: &out, stderr: &errs, getenv: func(k string) string { return env[k] }, terminal: true, errTerminal: true}
	if code := execute(t.Context(), g, []string{"suspend", "product", "FP-1003", "--reason", "x", "--wait"}); code != 0 {
		t.Fatal(code, errs.String())
	}
	const up = "\x1b[A\r\x1b[K"
	frames := strings.Split(errs.String(), strings.Repeat(up, 12))
	if len(frames) != 2 || strings.Count(frames[0], "\n") != 12 || !strings.Contains(frames[0], "\n  and 4 more\n") {
		t.Fatalf("%q", errs.String())
	}
	at := func(s string) string {
		i, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return i.Local().Format(time.TimeOnly)
	}
	short, long := at("2026-11-22T00:00:02Z"), at("2026-11-22T00:01:00Z")
	_, block, _ := strings.Cut(frames[1], "\n")
	want := fmt.Sprintf("  s2 at 8: ratings 3-4 until %s, 1-2 until %s at the latest\n  s3 at 7: ratings 3-4 until %s, 1-2 until %s at the latest\n", short, long, short, long) + strings.Repeat(up, 3)
	if block != want || !strings.Contains(frames[1], "1 of 3 sidecars hold it, waiting for\n") {
		t.Errorf("%q, want %q", frames[1], want)
	}
	for line := range strings.Lines(errs.String()) {
		if n := len([]rune(strings.ReplaceAll(line, up, ""))); n > 80 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if !strings.Contains(out.String(), "SIDECAR  STATE         REVISION\ns1       acknowledged  9\n") {
		t.Errorf("%q", out.String())
	}
}

func TestOutputFormats(t *testing.T) {
	list := `200 {"data":[{"id":"FP-1","name":"Evil\u001b[31m\nName\u202e","owner":"65000000101","certification":{"state":"Draft"},"revision":3}],"_meta":{"page":1,"limit":100,"total_items":1,"total_pages":1}}`
	p := newPlane(t, map[string][]string{"GET /v1/products": {list}})
	for format, want := range map[string]string{
		"":      "FP-1\tEvil?[31m?Name?\t65000000101\tDraft\t\t0\t0\n",
		"table": "PRODUCT  NAME             OWNER        CERTIFICATION  UNTIL  VERSIONS  SERVICES\nFP-1     Evil?[31m?Name?  65000000101  Draft                 0         0\n",
		"json":  "[\n  {\n    \"id\": \"FP-1\",\n    \"name\": \"Evil\\u001b[31m\\nName\\u202e\",\n    \"owner\": \"65000000101\",\n    \"certification\": {\n      \"state\": \"Draft\"\n    },\n    \"revision\": 3\n  }\n]\n",
	} {
		args := []string{"product", "list"}
		if format != "" {
			args = append(args, "-o", format)
		}
		if code, stdout, stderr := p.dspgate(t, nil, args...); code != 0 || stdout != want {
			t.Errorf("-o %s: %d %s\n got %q\nwant %q", format, code, stderr, stdout, want)
		}
	}
	if _, stdout, _ := p.dspgate(t, nil, "product", "list", "-o", "yaml"); strings.ContainsAny(stdout, "\x1b\u202e") || !strings.Contains(stdout, "id: FP-1") {
		t.Errorf("%q", stdout)
	}
	p = newPlane(t, map[string][]string{"GET /v1/products": {`200 {"data":[],"_meta":{"total_pages":0}}`}})
	if _, stdout, _ := p.dspgate(t, nil, "product", "list", "-o", "json"); stdout != "[]\n" {
		t.Errorf("an empty listing: %q", stdout)
	}
}

func TestEveryPageIsRead(t *testing.T) {
	page := func(id string) string {
		return `200 {"data":[{"key":"` + id + `"}],"_meta":{"total_pages":3}}`
	}
	p := newPlane(t, map[string][]string{"GET /v1/services": {page("a"), page("b"), page("c")}})
	_, stdout, _ := p.dspgate(t, nil, "service", "list")
	if strings.Count(stdout, "\n") != 3 || !strings.HasPrefix(stdout, "a\t") {
		t.Errorf("%q", stdout)
	}
}

// Two commands' defaults must not run into each other: the flags of all
// commands are made before one is chosen.
func TestEachCommandKeepsItsOwnDefaultRole(t *testing.T) {
	root := newRootCmd(&globals{stdout: io.Discard, stderr: io.Discard})
	for line, want := range map[string]string{"status": "developer", "suspend": "operator", "certification approve": "assessor", "change list": "auditor", "entity create": "registrar", "sidecar list": "operator"} {
		cmd, _, err := root.Find(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		if f := cmd.Flags().Lookup("as"); f == nil || f.DefValue != want {
			t.Errorf("%s: %+v", line, f)
		}
	}
}
