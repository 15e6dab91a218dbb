package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// importServer reports on a file, and breaks the connection off where it is told.
type importServer struct {
	*httptest.Server
	mu      sync.Mutex
	queries []string
	bytes   []int
	breaks  int // connections to break off
	away    int // then: how often to answer that nobody is the writer
}

func newImportServer(t *testing.T, breaks int) *importServer {
	s := &importServer{breaks: breaks}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.breaks == 0 && s.away > 0 {
			s.away--
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"errors":[{"code":"not-the-writer","detail":"not now"}]}`)
			return
		}
		s.queries, s.bytes = append(s.queries, r.URL.RawQuery), append(s.bytes, len(b))
		var from int
		fmt.Sscan(r.URL.Query().Get("from_line"), &from)
		w.Header().Set("Content-Type", "application/x-ndjson")
		for n := from; n < from+2; n++ {
			fmt.Fprintf(w, `{"line":%d,"product_id":"OLD-%d","outcome":"created"}`+"\n", n, n)
		}
		if s.breaks > 0 {
			s.breaks--
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, `{"line":%d,"product_id":"=bad","outcome":"refused","pointer":"/scenario","detail":"deployment scenarios are 1 to 6"}`+"\n", from+2)
		fmt.Fprintln(w, `{"summary":{"lines":3,"counts":{"created":2,"refused":1,"updated":0,"unchanged":0}}}`)
	}))
	s.Config.ErrorLog = nil
	t.Cleanup(s.Close)
	return s
}

func TestImportGoesOnWhereItBrokeOff(t *testing.T) {
	s := newImportServer(t, 2)
	s.away = 3
	file := filepath.Join(t.TempDir(), "old.csv")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 300_000), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &plane{Server: s.Server}
	code, out, errs := p.dspgate(t, nil, "import", file, "--enter")
	if code != exitFailed || out != "7\t=bad\trefused\tscenario deployment scenarios are 1 to 6\n" || !strings.Contains(errs, "going on from there") || !strings.Contains(errs, "7 lines: 6 products were created, 0 updated; 0 unchanged, 1 refused") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	want := "dry_run=false&format=csv&from_line=1|dry_run=false&format=csv&from_line=3|dry_run=false&format=csv&from_line=5"
	if got := strings.Join(s.queries, "|"); got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	for _, n := range s.bytes {
		if n != 300_000 {
			t.Errorf("sent %v", s.bytes)
		}
	}
}

// An import that never began is not tried again: it is for the caller to see why.
func TestImportThatIsRefusedAtOnceSaysSo(t *testing.T) {
	s := newImportServer(t, 0)
	s.away = 1
	file := filepath.Join(t.TempDir(), "old.csv")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &plane{Server: s.Server}
	if code, _, errs := p.dspgate(t, nil, "import", file, "--enter"); code != exitFailed || !strings.Contains(errs, "not now") {
		t.Errorf("%d: %s", code, errs)
	}
}

func TestImportTellsProgramsInJSON(t *testing.T) {
	s := newImportServer(t, 1)
	file := filepath.Join(t.TempDir(), "old.csv")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &plane{Server: s.Server}
	code, out, errs := p.dspgate(t, nil, "import", file, "--enter", "-o", "json")
	want := `{"line":5,"product_id":"=bad","outcome":"refused","pointer":"/scenario","detail":"deployment scenarios are 1 to 6"}` + "\n" +
		`{"summary":{"lines":5,"counts":{"created":4,"refused":1,"unchanged":0,"updated":0},"dry_run":false}}` + "\n"
	if code != exitFailed || out != want {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if _, out, _ := p.dspgate(t, nil, "import", file, "-o", "yaml"); !strings.HasPrefix(out, "---\nline: 3\n") || !strings.Contains(out, "---\nsummary:\n  lines: 3\n") || !strings.Contains(out, "dry_run: true") {
		t.Error(out)
	}
}

func TestImportIsDryUnlessToldOtherwise(t *testing.T) {
	s := newImportServer(t, 0)
	file := filepath.Join(t.TempDir(), "old.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &plane{Server: s.Server}
	_, out, errs := p.dspgate(t, nil, "import", file, "--all")
	if strings.Count(out, "\n") != 3 || !strings.Contains(errs, "would be created") || !strings.Contains(s.queries[0], "dry_run=true&format=json") {
		t.Errorf("%s\n%s\n%v", out, errs, s.queries)
	}
	for _, args := range [][]string{{"import", "no.csv"}, {"import", file + "x"}, {"import", file, "--from-line", "0"}, {"import"}} {
		if code, _, _ := p.dspgate(t, nil, args...); code != exitUsage {
			t.Errorf("%v: exit %d", args, code)
		}
	}
}

func TestAssuranceCommands(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.txt")
	if err := os.WriteFile(file, []byte("our policy\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPlane(t, map[string][]string{
		"POST /v1/products/FP-1001/evidence":               {`201 {"data":{"id":"EV-1","revision":5}}`},
		"GET /v1/evidence/EV-1/content":                    {"200 our policy\n"},
		"POST /v1/verifications":                           {`201 {"data":{"id":"VR-1","revision":6}}`},
		"POST /v1/verifications/VR-1/tests":                {`200 {"data":{"id":"VR-1","revision":7}}`},
		"POST /v1/findings/FN-1/answer":                    {`200 {"data":{"id":"FN-1","revision":8}}`},
		"POST /v1/add-ons/AO-1/suspend":                    {`200 {"data":[{"ssid":"0000123400","suspension_id":"SU-1","revision":9}]}`},
		"PUT /v1/products/FP-1001/ecosystem/answers/ECO.1": {`200 {"data":{"mark":"open"}}`},
		"GET /v1/gap-analyses":                             {`200 {"data":{"rows":[{"control":"SSAM-12","title":"Web application firewall","coverage":"unknown"}],"counts":{}}}`},
	})
	for _, c := range []struct {
		args []string
		code int
		body string // of the last call
		out  string
	}{
		{[]string{"evidence", "submit", "FP-1001", file, "--type", "policy", "--for", "OSF-EKM,OSF-BRN"}, 0, "our policy\n", "EV-1"},
		{[]string{"evidence", "get", "EV-1", filepath.Join(dir, "copy")}, 0, "", ""},
		{[]string{"verification", "open", "FP-1001", "--requirement", "OSF-AUT"}, 0, `{"product_id":"FP-1001","requirements":["OSF-AUT"]}`, "VR-1"},
		{[]string{"verification", "test", "VR-1", "OSF-AUT", "--method", "automated", "--outcome", "pass"}, 0, `{"method":"automated","outcome":"pass","requirement":"OSF-AUT"}`, "VR-1"},
		{[]string{"finding", "answer", "FN-1", "--response", "mended"}, 0, `{"response":"mended"}`, "FN-1"},
		{[]string{"add-on", "suspend", "AO-1", "--reason", "leak"}, 0, `{"reason":"leak"}`, "SU-1"},
		{[]string{"ecosystem", "answer", "FP-1001", "ECO.1", "--value", "yes"}, 0, `{"values":["yes"]}`, "open"},
		{[]string{"gap", "SSAM", "OSF"}, 0, "", "unknown"},
		{[]string{"evidence", "submit", "FP-1001", filepath.Join(dir, "gone"), "--type", "policy"}, exitUsage, "", ""},
		{[]string{"verification", "test", "VR-1", "OSF-AUT"}, exitUsage, "", ""},
	} {
		code, out, errs := p.dspgate(t, nil, c.args...)
		if code != c.code || !strings.Contains(out, c.out) {
			t.Errorf("%v: exit %d\n%s%s", c.args, code, out, errs)
		}
		if last := p.got[len(p.got)-1]; c.code == 0 && last.Body != c.body {
			t.Errorf("%v sent %s", c.args, last.Body)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "copy")); err != nil || string(b) != "our policy\n" {
		t.Errorf("%q, %v", b, err)
	}
	if code, _, _ := p.dspgate(t, nil, "evidence", "get", "EV-1", filepath.Join(dir, "copy")); code == 0 {
		t.Error("a file that is there was written over")
	}
}
