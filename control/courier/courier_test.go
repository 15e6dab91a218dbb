package courier_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dspgate/dspgate/control/courier"
	"github.com/dspgate/dspgate/internal/outbound"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/outbox"
)

// smtpServer is a real SMTP server that keeps what it is sent.
type smtpServer struct {
	mu     sync.Mutex
	got    [][]byte
	rcpt   []string
	users  []string
	refuse *smtp.SMTPError
}

func (s *smtpServer) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{s: s}, nil }

type session struct{ s *smtpServer }

func (x *session) AuthMechanisms() []string { return []string{sasl.Plain} }
func (x *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if password != "right" {
			return &smtp.SMTPError{Code: 535, Message: "no"}
		}
		x.s.mu.Lock()
		defer x.s.mu.Unlock()
		x.s.users = append(x.s.users, user)
		return nil
	}), nil
}
func (x *session) Reset()                               {}
func (x *session) Logout() error                        { return nil }
func (x *session) Mail(string, *smtp.MailOptions) error { return nil }
func (x *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if x.s.refuse != nil {
		return x.s.refuse
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.s.rcpt = append(x.s.rcpt, to)
	return nil
}
func (x *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.s.got = append(x.s.got, b)
	return err
}

// serve starts the server; secure gives it the certificate for STARTTLS.
func serve(t *testing.T, s *smtpServer, secure *tls.Config) courier.MailConfig {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(s)
	srv.Domain, srv.TLSConfig, srv.AllowInsecureAuth = "mail.example", secure, secure == nil
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return courier.MailConfig{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, From: "dspgate <gate@agency.example>"}
}

func message() *outbox.Message {
	return &outbox.Message{
		ID: "M-12-0", Means: outbox.Mail, To: "dev@wattlebird.example", Subject: "Antrag geprüft – Wattlebird",
		Body: "Line one.\n.\nA line that begins with a dot was before this one.\n", QueuedAt: registry.At(time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC)),
	}
}

func TestMailArrivesAsWritten(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate of 127.0.0.1
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &smtpServer{}
	cfg := serve(t, s, &tls.Config{Certificates: web.TLS.Certificates})
	cfg.CAFile, cfg.Username, cfg.PasswordFile = ca, "gate", password
	m, err := courier.NewMail(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a message sent twice is the same message
		if err := m.Deliver(t.Context(), message()); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.got) != 2 || s.rcpt[0] != "dev@wattlebird.example" || s.users[0] != "gate" {
		t.Fatalf("%d mails to %v by %v", len(s.got), s.rcpt, s.users)
	}
	var ids []string
	for _, raw := range s.got {
		got, err := mail.ReadMessage(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, got.Header.Get("Message-ID"))
		body, err := io.ReadAll(got.Body)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.ReplaceAll(string(body), "\r\n", "\n"); !strings.Contains(text, "Line one.\n.\nA line") {
			t.Errorf("body %q", text)
		}
		if got.Header.Get("Auto-Submitted") != "auto-generated" || got.Header.Get("To") == "" || !strings.Contains(got.Header.Get("From"), "gate@agency.example") {
			t.Errorf("headers %v", got.Header)
		}
	}
	if ids[0] != ids[1] || ids[0] != "<m-12-0@agency.example>" {
		t.Errorf("message IDs %v", ids)
	}
}

func TestMailIsNotSentInTheClear(t *testing.T) {
	s := &smtpServer{}
	cfg := serve(t, s, nil) // offers no STARTTLS
	m, err := courier.NewMail(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Deliver(t.Context(), message()); err == nil || errors.Is(err, outbox.ErrPermanent) || len(s.got) != 0 {
		t.Errorf("%v; %d mails", err, len(s.got))
	}
	cfg.TLS = "none"
	if m, err = courier.NewMail(cfg); err != nil {
		t.Fatal(err)
	}
	if err := m.Deliver(t.Context(), message()); err != nil || len(s.got) != 1 {
		t.Errorf("on loopback, told to: %v", err)
	}
}

func TestMailTellsForGoodFromForNow(t *testing.T) {
	for code, permanent := range map[int]bool{550: true, 451: false} {
		s := &smtpServer{refuse: &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "no"}}
		cfg := serve(t, s, nil)
		cfg.TLS = "none"
		m, err := courier.NewMail(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Deliver(t.Context(), message()); err == nil || errors.Is(err, outbox.ErrPermanent) != permanent {
			t.Errorf("%d: %v", code, err)
		}
	}
	m, err := courier.NewMail(courier.MailConfig{Host: "127.0.0.1", Port: 1, TLS: "none", From: "a@b.example"})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Deliver(t.Context(), message()); err == nil || errors.Is(err, outbox.ErrPermanent) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestBadMailConfigurationNamesTheKey(t *testing.T) {
	for want, cfg := range map[string]courier.MailConfig{
		"from":        {Host: "h", From: "nobody"},
		"host":        {From: "a@b.example"},
		"tls":         {Host: "h", From: "a@b.example", TLS: "maybe"},
		"loopback":    {Host: "mail.example", From: "a@b.example", TLS: "none"},
		"ca_file":     {Host: "h", From: "a@b.example", CAFile: "/does/not/exist"},
		"secret file": {Host: "h", From: "a@b.example", Username: "u", PasswordFile: "/does/not/exist"},
	} {
		if _, err := courier.NewMail(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

var secret = []byte("a secret of at least 24 bytes")

// hook is a receiver that checks signatures with the library of the standard.
func hook(t *testing.T, status int, location string) (url string, got *[]string) {
	t.Helper()
	wh, err := webhooks.NewWebhookRaw(secret)
	if err != nil {
		t.Fatal(err)
	}
	got = new([]string)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = wh.Verify(b, r.Header)
		}
		if err != nil {
			t.Errorf("signature: %v", err)
		}
		*got = append(*got, r.Header.Get("webhook-id")+" "+string(b))
		if location != "" {
			w.Header().Set("Location", location)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(srv.Close)
	// The client trusts the system's authorities, read once a process: every
	// httptest server has this one certificate.
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	return srv.URL, got
}

func event(to string) *outbox.Message {
	return &outbox.Message{ID: "M-13-0", Means: outbox.Webhook, To: to, Subject: "incident.raised", Body: `{"type":"incident.raised"}`}
}

func TestWebhookIsSignedAndAnswersCount(t *testing.T) {
	w, err := courier.NewWebhook(secret, netip.MustParsePrefix("127.0.0.1/32"))
	if err != nil {
		t.Fatal(err)
	}
	other, elsewhere := hook(t, 200, "")
	for status, want := range map[int]string{200: "", 204: "", 302: "again", 410: "never", 404: "again", 500: "again"} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			url, got := hook(t, status, other)
			err := w.Deliver(context.Background(), event(url))
			if (err == nil) != (want == "") || (want == "never") != errors.Is(err, outbox.ErrPermanent) {
				t.Errorf("%v, want %q", err, want)
			}
			if len(*got) != 1 || (*got)[0] != `M-13-0 {"type":"incident.raised"}` {
				t.Errorf("arrived: %q", *got)
			}
		})
	}
	if len(*elsewhere) != 0 {
		t.Error("a redirect was followed")
	}
}

func TestWebhookDoesNotReachInside(t *testing.T) {
	w, err := courier.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	url, got := hook(t, 200, "")
	if err := w.Deliver(t.Context(), event(url)); !errors.Is(err, outbound.ErrNotPublic) || !errors.Is(err, outbox.ErrPermanent) || len(*got) != 0 {
		t.Errorf("%v; %d arrived", err, len(*got))
	}
	if _, err := courier.NewWebhook([]byte("short")); err == nil {
		t.Error("a short secret is taken")
	}
}
