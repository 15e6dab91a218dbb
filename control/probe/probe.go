// Package probe looks at what a developer declared of a product, where a machine
// can tell: TLS 1.3 and the certificate of its endpoint, the keys of its key set,
// security.txt (RFC 9116), and how often it is released.
//
// It calls only the host that was declared, once for each check, with bounds on
// time and size, and follows no redirect. An address that is not public is
// refused when the connection is made, after the name was resolved, so that no
// name can be made to mean something inside; a private network is allowed only by
// configuration. A check that could not be made says so: it passes nobody.
package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
)

// Config is what a Prober may reach.
type Config struct {
	// Allow are networks that may be reached although they are not public. Default: none.
	Allow []netip.Prefix
	// Roots are the certificate authorities that endpoints are verified against;
	// nil for the system's.
	Roots *x509.CertPool
	// Timeout bounds one connection, and what is asked over it. Default 3 s.
	Timeout time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Resolver finds addresses; default the system's.
	Resolver *net.Resolver
}

// Prober makes the automated checks.
type Prober struct {
	cfg  Config
	http *http.Client
}

const (
	timeoutDefault = 3 * time.Second
	bodyBytesMax   = 256 << 10
	headerBytesMax = 32 << 10
	// expiresSoon is how long before a certificate ends it is marked warn.
	expiresSoon = 30 * 24 * time.Hour
)

// New makes a Prober.
func New(cfg Config) *Prober {
	if cfg.Timeout <= 0 {
		cfg.Timeout = timeoutDefault
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	p := &Prober{cfg: cfg}
	p.http = &http.Client{
		Transport: &http.Transport{
			Proxy: nil, // a proxy would reach what this machine must not
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return p.dialer().DialContext(ctx, network, address)
			},
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots, Time: cfg.Now},
			TLSHandshakeTimeout:    cfg.Timeout,
			ResponseHeaderTimeout:  cfg.Timeout,
			MaxResponseHeaderBytes: headerBytesMax,
			DisableKeepAlives:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       2 * cfg.Timeout,
	}
	return p
}

// Probe implements control.Prober. It takes at most five times the Timeout.
func (p *Prober) Probe(ctx context.Context, product *registry.Product, t control.ProbeTargets) []assurance.Result {
	keys := make(chan assurance.Result, 1)
	go func() { keys <- p.keySet(ctx, t.JWKS) }()
	out := p.endpoint(ctx, t.Endpoint)
	return append(out, <-keys, Cadence(product, p.cfg.Now()))
}

func result(check, requirement, outcome, format string, args ...any) assurance.Result {
	return assurance.Result{Check: check, Requirement: requirement, Outcome: outcome, Say: fmt.Sprintf(format, args...)}
}

// The names of the checks.
const (
	checkTLS      = "tls-1.3"
	checkCert     = "certificate"
	checkJWKS     = "jwks"
	checkSecurity = "security-txt"
	checkCadence  = "release-cadence"
)

// endpoint scans a declared address: its TLS, its certificate, its security.txt.
func (p *Prober) endpoint(ctx context.Context, address string) []assurance.Result {
	unknown := func(why string) []assurance.Result {
		return []assurance.Result{
			result(checkTLS, "OSF-EIT", "unknown", "%s", why), result(checkCert, "OSF-EIT", "unknown", "%s", why), result(checkSecurity, "OSF-BRN", "unknown", "%s", why),
		}
	}
	if address == "" {
		return unknown("No address was declared.")
	}
	host, port, err := parse(address)
	if err != nil {
		return unknown(err.Error())
	}
	scan, cert := p.tls(ctx, host, port)
	return []assurance.Result{scan, cert, p.securityTxt(ctx, host, port)}
}

var errAddress = errors.New("the declared address is no https address of a public host")

// parse takes an https address apart; anything beside host and port is left.
func parse(address string) (host, port string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || len(address) > 500 {
		return "", "", errAddress
	}
	if port = u.Port(); port == "" {
		port = "443"
	}
	return u.Hostname(), port, nil
}

// tls shakes hands twice: once as it comes, for the version and the certificate,
// and once offering TLS 1.2 at most, to learn whether older versions are open.
func (p *Prober) tls(ctx context.Context, host, port string) (scan, cert assurance.Result) {
	state, err := p.handshake(ctx, host, port, tls.VersionTLS13, true)
	if err != nil {
		// Without a certificate that verifies the version can still be told.
		loose, lerr := p.handshake(ctx, host, port, tls.VersionTLS13, false)
		if lerr != nil {
			why := reason(lerr)
			return result(checkTLS, "OSF-EIT", "unknown", "No TLS connection to %s: %s.", host, why), result(checkCert, "OSF-EIT", "unknown", "No TLS connection to %s: %s.", host, why)
		}
		return version(loose), result(checkCert, "OSF-EIT", "fail", "The certificate of %s does not verify: %s.", host, reason(err))
	}
	scan = version(state)
	if scan.Outcome == "pass" {
		if old, err := p.handshake(ctx, host, port, tls.VersionTLS12, false); err == nil && old.Version < tls.VersionTLS12 {
			scan = result(checkTLS, "OSF-EIT", "warn", "TLS 1.3 is there, and so is %s: switch that off.", tls.VersionName(old.Version))
		}
	}
	leaf := state.PeerCertificates[0]
	switch left := leaf.NotAfter.Sub(p.cfg.Now()); {
	case left <= expiresSoon:
		cert = result(checkCert, "OSF-EIT", "warn", "The certificate ends on %s: renew it.", leaf.NotAfter.UTC().Format(time.DateOnly))
	default:
		cert = result(checkCert, "OSF-EIT", "pass", "The certificate verifies and holds until %s.", leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return scan, cert
}

func version(s *tls.ConnectionState) assurance.Result {
	if s.Version >= tls.VersionTLS13 {
		return result(checkTLS, "OSF-EIT", "pass", "The endpoint speaks TLS 1.3 (%s).", tls.CipherSuiteName(s.CipherSuite))
	}
	return result(checkTLS, "OSF-EIT", "fail", "The endpoint speaks %s only: switch TLS 1.3 on.", tls.VersionName(s.Version))
}

func (p *Prober) handshake(ctx context.Context, host, port string, most uint16, verify bool) (*tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	d := tls.Dialer{NetDialer: p.dialer(), Config: &tls.Config{
		ServerName: host, RootCAs: p.cfg.Roots, Time: p.cfg.Now, MaxVersion: most,
		// What is open is what is to be found out; nothing is sent over it.
		MinVersion: tls.VersionTLS10, InsecureSkipVerify: !verify, //nolint:gosec
	}}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	return &state, nil
}

// errNotPublic: the name leads to an address that is not public.
var errNotPublic = errors.New("it is no public address")

// dialer refuses, at the moment of connecting, every address that may not be
// reached: whatever a name resolved to, and however often it changes.
func (p *Prober) dialer() *net.Dialer {
	return &net.Dialer{Timeout: p.cfg.Timeout, Resolver: p.cfg.Resolver, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return errNotPublic
		}
		addr := ap.Addr().Unmap().WithZone("")
		for _, allowed := range p.cfg.Allow {
			if allowed.Contains(addr) {
				return nil
			}
		}
		if !public(addr) {
			return errNotPublic
		}
		return nil
	}}
}

// public tells whether an address is one of the public Internet. The list is of
// what is not (RFC 6890 and its successors in the IANA special-purpose registries).
func public(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	for _, text := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		if netip.MustParsePrefix(text).Contains(a) {
			return false
		}
	}
	return true
}

// reason is an error for the developer: nothing of the network inside.
func reason(err error) string {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, errNotPublic):
		return errNotPublic.Error()
	case errors.As(err, &unknown):
		return "it is not signed by a known authority"
	case errors.As(err, &name):
		return "it is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired, or is not valid yet"
	case errors.As(err, &invalid):
		return "it is not valid"
	case errors.As(err, &dns):
		return "the name is not known"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "it does not answer"
	}
	if text := err.Error(); strings.Contains(text, "connection refused") {
		return "it refuses connections"
	}
	return "the connection failed"
}
