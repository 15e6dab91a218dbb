package e2e

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// mailbox is a real SMTP server that keeps what it is sent.
type mailbox struct {
	mu   sync.Mutex
	mail []string // recipient, then the message
}

func (m *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &delivery{m: m}, nil }

type delivery struct {
	m  *mailbox
	to []string
}

func (d *delivery) Reset()                                    { d.to = nil }
func (d *delivery) Logout() error                             { return nil }
func (d *delivery) Mail(string, *smtp.MailOptions) error      { return nil }
func (d *delivery) Rcpt(to string, _ *smtp.RcptOptions) error { d.to = append(d.to, to); return nil }
func (d *delivery) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	for _, to := range d.to {
		d.m.mail = append(d.m.mail, to+"\n"+string(b))
	}
	return err
}

// got tells whether a mail to somebody came that holds all the words.
func (m *mailbox) got(to string, words ...string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.mail, func(s string) bool {
		return strings.HasPrefix(s, to+"\n") && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(s, w) })
	})
}

// takeMail starts the server and points the demo's control plane at it.
func takeMail(t *testing.T) *mailbox {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mailbox{}
	srv := smtp.NewServer(m)
	srv.Domain = "mail.example"
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	for key, value := range map[string]string{
		"HOST": "127.0.0.1", "PORT": fmt.Sprint(ln.Addr().(*net.TCPAddr).Port), "TLS": "none", "FROM": "gate@agency.example",
	} {
		t.Setenv("DSPGATE_OUTBOX_MAIL_"+key, value)
	}
	t.Setenv("DSPGATE_INCIDENTS_OFFICERS", "[officers@agency.example]")
	return m
}

// TestIncidentFromReportToRemedy is the framework's process through real
// processes: a developer reports a leaked key, an officer triages and contains
// it through the fence, the users are mailed, the key is replaced, it is closed.
func TestIncidentFromReportToRemedy(t *testing.T) {
	mail := takeMail(t)
	s := ownStack(t)
	call := func() reply { return s.ask(t, "GET", lookup, s.token(t, nil), nil) }
	if r := call(); r.status != 200 {
		t.Fatalf("before: %v", r)
	}
	var x struct {
		ID, State, Level string
		Containment      []string
		Clocks           []struct{ Duty, Status string }
	}
	do := func(token, path string, body any, want int) {
		t.Helper()
		if status := s.api(t, token, "POST", path, body, &x); status != want {
			t.Fatalf("%s: %d, want %d", path, status, want)
		}
	}
	do(s.info.DeveloperToken, "/v1/incidents", map[string]any{
		"title": "Signing key on a paste site", "type": "credential-compromise", "occurred_at": time.Now().Add(-20 * time.Hour), "aware_at": time.Now().Add(-time.Hour),
		"subjects": []map[string]any{{"kind": "product", "id": "FP-1003"}}, "exposure": map[string]any{"taxpayer": true, "ssids": []string{"0000300001"}},
	}, 201)
	at := "/v1/incidents/" + x.ID
	if x.Clocks[0].Duty != "notify-agency" || x.Clocks[0].Status != "met" {
		t.Errorf("reported at +20 h: %+v", x.Clocks)
	}
	eventually(t, 30*time.Second, "the officers are mailed", func() bool { return mail.got("officers@agency.example", x.ID, "raised") })
	do(s.info.OperatorToken, at+"/triage", map[string]any{}, 200)
	do(s.info.OperatorToken, at+"/contain?wait=true", map[string]any{"subject": map[string]any{"kind": "product", "id": "FP-1003"}, "how": "the key is public"}, 200)
	// The command has returned: nothing of it is let through.
	if r := call(); r.status != 403 || r.code() != "product-suspended" {
		t.Fatalf("contained, and %v", r)
	}
	do(s.info.OperatorToken, at+"/notify", map[string]any{"audiences": []string{"entity", "user"}}, 200)
	eventually(t, 30*time.Second, "the entity is mailed its notice", func() bool { return mail.got("dev@kookaburra.example", x.ID, "FP-1003", "Revoke the credential") })
	stop := x.Containment[0]
	if status := s.api(t, s.info.OperatorToken, "POST", "/v1/suspensions/"+stop+"/lift", map[string]any{}, nil); status != 403 {
		t.Errorf("who imposed it lifts it: %d", status)
	}
	if status := s.api(t, s.info.Operator2Token, "POST", "/v1/suspensions/"+stop+"/lift?wait=true", map[string]any{"reason": "key replaced"}, nil); status != 200 {
		t.Fatalf("lift: %d", status)
	}
	do(s.info.OperatorToken, at+"/assess", map[string]any{"eligible": false, "reason": "the key opened nothing else"}, 200)
	do(s.info.OperatorToken, at+"/close", map[string]any{"cause": "a key in a repository", "done": "replaced", "lessons": "scan repositories for keys"}, 200)
	if x.State != "closed" || x.Level != "medium" {
		t.Errorf("at the end: %+v", x)
	}
	eventually(t, 10*time.Second, "it is served again", func() bool { return call().status == 200 })
	for _, m := range mail.mail {
		if strings.Contains(m, "operator@agency.example") && !strings.HasPrefix(m, "officers@") {
			t.Errorf("a notice names an officer:\n%s", m)
		}
	}
}
