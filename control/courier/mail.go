// Package courier delivers the messages of the outbox: mail by SMTP, webhooks by
// HTTPS.
package courier

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"os"
	"strings"

	gomail "github.com/wneessen/go-mail"

	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/registry/outbox"
)

// MailConfig is the mail server that takes our mail.
type MailConfig struct {
	// Host and Port of the server. Port: default 587, and 465 with TLS implicit.
	Host string `yaml:"host"`
	Port int    `yaml:"port"`
	// TLS is starttls, implicit, or none, which only a loopback address may have.
	// Default starttls, and nothing is sent without it.
	TLS string `yaml:"tls"`
	// CAFile holds the authorities to trust instead of the system's.
	CAFile string `yaml:"ca_file"`
	// From is the sender's address. Needed.
	From string `yaml:"from"`
	// Username and PasswordFile sign in, when both are set.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
}

// Mail sends by SMTP. It is an outbox.Courier.
type Mail struct {
	cfg    MailConfig
	domain string
	tls    *tls.Config
}

// NewMail checks the configuration; it connects only to deliver.
func NewMail(cfg MailConfig) (*Mail, error) {
	from, err := mail.ParseAddress(cfg.From)
	if err != nil {
		return nil, fmt.Errorf("mail: from: %q is no address", cfg.From)
	}
	if cfg.Host == "" {
		return nil, errors.New("mail: host is needed")
	}
	cfg.TLS = cmp.Or(cfg.TLS, "starttls")
	switch cfg.TLS {
	case "starttls":
		cfg.Port = cmp.Or(cfg.Port, 587)
	case "implicit":
		cfg.Port = cmp.Or(cfg.Port, 465)
	case "none":
		if a, err := netip.ParseAddr(cfg.Host); err != nil || !a.IsLoopback() {
			return nil, errors.New("mail: tls: none is for a literal loopback address only")
		}
		cfg.Port = cmp.Or(cfg.Port, 25)
	default:
		return nil, fmt.Errorf("mail: tls: %q is none of starttls, implicit, none", cfg.TLS)
	}
	m := &Mail{cfg: cfg, tls: &tls.Config{ServerName: cfg.Host, MinVersion: tls.VersionTLS12}}
	m.domain = from.Address[strings.LastIndexByte(from.Address, '@')+1:]
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("mail: ca_file: %w", err)
		}
		m.tls.RootCAs = x509.NewCertPool()
		if !m.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("mail: ca_file: no certificate in %s", cfg.CAFile)
		}
	}
	if _, err := m.options(); err != nil {
		return nil, err
	}
	return m, nil
}

// options reads the password anew: it may be replaced while running.
func (m *Mail) options() ([]gomail.Option, error) {
	opts := []gomail.Option{gomail.WithPort(m.cfg.Port), gomail.WithTLSConfig(m.tls.Clone())}
	switch m.cfg.TLS {
	case "starttls":
		opts = append(opts, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case "implicit":
		opts = append(opts, gomail.WithSSL())
	default:
		opts = append(opts, gomail.WithTLSPolicy(gomail.NoTLS))
	}
	if m.cfg.Username != "" && m.cfg.PasswordFile != "" {
		password, err := config.ReadSecret(m.cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("mail: %w", err)
		}
		opts = append(opts, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(m.cfg.Username), gomail.WithPassword(string(password)))
	}
	return opts, nil
}

// Deliver hands one message to the server. A 5xx answer is permanent.
func (m *Mail) Deliver(ctx context.Context, x *outbox.Message) error {
	opts, err := m.options()
	if err != nil {
		return err
	}
	client, err := gomail.NewClient(m.cfg.Host, opts...)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	msg := gomail.NewMsg()
	if err := msg.From(m.cfg.From); err != nil {
		return fmt.Errorf("mail: from: %w", err)
	}
	if err := msg.To(x.To); err != nil {
		return fmt.Errorf("mail: to: %w: %w", err, outbox.ErrPermanent)
	}
	msg.Subject(x.Subject)
	// The same every time: who gets it twice can tell (RFC 5322 §3.6.4).
	msg.SetMessageIDWithValue(strings.ToLower(x.ID) + "@" + m.domain)
	msg.SetDateWithValue(x.QueuedAt.Std())
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no robot shall answer
	msg.SetBodyString(gomail.TypeTextPlain, x.Body)
	err = client.DialAndSendWithContext(ctx, msg)
	var refused *gomail.SendError
	if errors.As(err, &refused) && !refused.IsTemp() && refused.ErrorCode() >= 500 {
		return fmt.Errorf("mail: %w: %w", err, outbox.ErrPermanent)
	}
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	return nil
}
