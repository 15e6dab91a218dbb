package xds

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Config is what Envoy's configuration depends on besides the register.
type Config struct {
	// Ingress is where Envoy listens for plain HTTP, as "127.0.0.1:10000"; an IP
	// address and a port. Port 0 lets Envoy choose. Needed.
	Ingress string `yaml:"ingress"`
	// IngressTLS is where Envoy listens for TLS 1.3, with the certificates of
	// TLS. Default "": no TLS listener.
	IngressTLS string `yaml:"ingress_tls"`
	// TLS names the files of the TLS listener.
	TLS TLSFiles `yaml:"tls"`

	// Hosts says which environment (SANDBOX, EVTE, PROD) each host serves, by
	// its name without port. Any other host is answered with 404. Needed.
	Hosts map[string]registry.Environment `yaml:"hosts"`

	// Upstream is where admitted calls go. Needed.
	Upstream Upstream `yaml:"upstream"`
	// ServiceUpstreams overrides Upstream for single services, by service key.
	ServiceUpstreams map[string]Upstream `yaml:"service_upstreams"`

	// Sidecars are the authorizers of this Envoy; several share its calls. Needed.
	Sidecars []Sidecar `yaml:"sidecars"`
	// AuthzTimeout is how long Envoy waits for a decision before it refuses with
	// 503. Below 25 ms a busy machine refuses innocent calls. Default 100ms.
	AuthzTimeout time.Duration `yaml:"authz_timeout"`
	// ForwardAuthorization lets the bearer token through to the upstream.
	// Default: Envoy removes it, whatever the authorizer says.
	ForwardAuthorization bool `yaml:"forward_authorization"`
	// Admission makes Envoy hold each call against the end of its admission before
	// it forwards it: 503 admission-expired. The sidecars must stamp what they
	// allow, or nothing passes. Default: it does not.
	Admission bool `yaml:"admission"`
	// ProblemBase starts the type of every problem, up to and including the last
	// slash. Default "https://dspgate.example/problems/".
	ProblemBase string `yaml:"problem_base"`

	// RequestTimeout bounds an ordinary call, from its first byte to the end of
	// the answer. Default 15s.
	RequestTimeout time.Duration `yaml:"request_timeout"`
	// MaxStreamDuration bounds a call of a streaming service, which has no
	// RequestTimeout. Default 1h.
	MaxStreamDuration time.Duration `yaml:"max_stream_duration"`
	// StreamIdleTimeout ends any call on which no byte moved for so long.
	// Default 5m.
	StreamIdleTimeout time.Duration `yaml:"stream_idle_timeout"`
	// RequestHeadersTimeout is how long a client may take to send its headers
	// before it gets 408. Default 2s.
	RequestHeadersTimeout time.Duration `yaml:"request_headers_timeout"`
	// ConnectTimeout bounds a connection attempt to an upstream. Default 1s.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`

	// MaxHeaders and MaxHeaderKiB bound a request's headers; more gets 431.
	// Defaults 64 and 32.
	MaxHeaders   uint32 `yaml:"max_headers"`
	MaxHeaderKiB uint32 `yaml:"max_header_kib"`
	// MaxConcurrentStreams bounds the calls of one HTTP/2 connection. Default 100.
	MaxConcurrentStreams uint32 `yaml:"max_concurrent_streams"`
	// MaxUpstream bounds connections, and calls under way, to each upstream and
	// to the sidecars; beyond it a call gets 503. It must exceed the number of
	// long-lived streams expected. Default 16384.
	MaxUpstream uint32 `yaml:"max_upstream"`

	// AccessLogFile is where Envoy writes a line of JSON for each request that has
	// ended, for dspgate replay and whoever ships logs: an absolute path as Envoy
	// sees it. It holds no path, query, address or person, but hashes. Envoy opens
	// it again on POST /reopen_logs to its administration, after a rotation.
	// Default "": none.
	AccessLogFile string `yaml:"access_log_file"`
}

// accessLogPath is what AccessLogFile may be: Envoy would read %FOO% in it as a
// command of its own.
var accessLogPath = regexp.MustCompile(`^/[A-Za-z0-9._/-]{1,255}$`)

// AccessLogFileOK tells whether a path may be Config.AccessLogFile.
func AccessLogFileOK(path string) bool { return accessLogPath.MatchString(path) }

// TLSFiles are paths as Envoy sees them: it reads them itself, so that no
// private key passes through the sidecar, and reads them again when they are
// replaced by a rename in their folder.
type TLSFiles struct {
	Certificate string `yaml:"certificate"` // PEM chain, server certificate first
	Key         string `yaml:"key"`         // PEM
	// ClientCA is a PEM bundle of the authorities whose client certificates are
	// accepted. A client certificate is optional, one of another authority ends
	// the handshake. Needed.
	ClientCA string `yaml:"client_ca"`
}

// Upstream is one place that calls go to.
type Upstream struct {
	// Address is "host:port" or "unix:/path".
	Address string `yaml:"address"`
	// HTTP2 speaks HTTP/2 to it (with prior knowledge, or by ALPN under TLS) for
	// everything. Default: HTTP/1.1, save for services streaming gRPC, for which
	// HTTP/2 is always spoken.
	HTTP2 bool `yaml:"http2"`
	// CA is a PEM bundle, as Envoy sees it; set, it turns TLS on, and the
	// upstream's certificate must chain to it and name ServerName.
	CA string `yaml:"ca"`
	// ServerName is the name in the upstream's certificate. Default: the host of
	// Address.
	ServerName string `yaml:"server_name"`
}

// Sidecar is one authorizer.
type Sidecar struct {
	// ID names it, as it stands in the metadata "sidecar" of its decisions. It
	// matters only when there are several: each then gets the access log of its
	// own decisions, which alone it can account for. Default "".
	ID string `yaml:"id"`
	// Authz is the address of its ext_authz service: "unix:/path" or "host:port". Needed.
	Authz string `yaml:"authz"`
	// AccessLog is the address of its access log service, and of the service that
	// watches over open streams. Default: Authz.
	AccessLog string `yaml:"access_log"`
}

// DefaultMaxUpstream is MaxUpstream when it is not set.
const DefaultMaxUpstream = 16384

// ErrConfig wraps every error of a Config.
var ErrConfig = errors.New("envoy configuration")

// defaultProblemBase is also extauthz.DefaultProblemBase.
const defaultProblemBase = "https://dspgate.example/problems/"

// withDefaults checks a Config and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	fail := func(format string, args ...any) (Config, error) {
		return c, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
	}
	c.AuthzTimeout = cmp.Or(c.AuthzTimeout, 100*time.Millisecond)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 15*time.Second)
	c.MaxStreamDuration = cmp.Or(c.MaxStreamDuration, time.Hour)
	c.StreamIdleTimeout = cmp.Or(c.StreamIdleTimeout, 5*time.Minute)
	c.RequestHeadersTimeout = cmp.Or(c.RequestHeadersTimeout, 2*time.Second)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, time.Second)
	c.MaxHeaders = cmp.Or(c.MaxHeaders, 64)
	c.MaxHeaderKiB = cmp.Or(c.MaxHeaderKiB, 32)
	c.MaxConcurrentStreams = cmp.Or(c.MaxConcurrentStreams, 100)
	c.MaxUpstream = cmp.Or(c.MaxUpstream, DefaultMaxUpstream)
	c.ProblemBase = cmp.Or(c.ProblemBase, defaultProblemBase)

	if _, _, err := ipPort(c.Ingress); err != nil {
		return fail("ingress: %w", err)
	}
	if c.IngressTLS != "" {
		if _, _, err := ipPort(c.IngressTLS); err != nil {
			return fail("ingress_tls: %w", err)
		}
		if c.TLS.Certificate == "" || c.TLS.Key == "" || c.TLS.ClientCA == "" {
			return fail("ingress_tls needs tls.certificate, tls.key and tls.client_ca")
		}
	}
	if len(c.Hosts) == 0 {
		return fail("hosts: at least one host must be named")
	}
	seen := map[string]string{}
	for _, h := range slices.Sorted(maps.Keys(c.Hosts)) {
		if !validHost(h) {
			return fail("hosts: %q is no plain host name or IP address (no port, no wildcard)", h)
		}
		if env := c.Hosts[h]; env == registry.NoEnvironment || env.String() == "" {
			return fail("hosts: %s serves no environment; use one of SANDBOX, EVTE, PROD", h)
		}
		// Host names are compared without case, so that two spellings clash.
		if other, dup := seen[strings.ToLower(h)]; dup {
			return fail("hosts: %q and %q are the same host", other, h)
		}
		seen[strings.ToLower(h)] = h
	}
	if err := c.Upstream.check(); err != nil {
		return fail("upstream: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(c.ServiceUpstreams)) {
		if err := c.ServiceUpstreams[key].check(); err != nil {
			return fail("service_upstreams: %s: %w", key, err)
		}
	}
	if len(c.Sidecars) == 0 {
		return fail("sidecars: at least one is needed, or nothing can be admitted")
	}
	c.Sidecars = slices.Clone(c.Sidecars)
	ids := map[string]bool{}
	for i := range c.Sidecars {
		s := &c.Sidecars[i]
		s.AccessLog = cmp.Or(s.AccessLog, s.Authz)
		if _, err := parseAddress(s.Authz); err != nil {
			return fail("sidecars: authz: %w", err)
		}
		if _, err := parseAddress(s.AccessLog); err != nil {
			return fail("sidecars: access_log: %w", err)
		}
		if len(c.Sidecars) > 1 && (s.ID == "" || ids[s.ID]) {
			return fail("sidecars: each of several needs an id of its own")
		}
		ids[s.ID] = true
	}
	if c.AuthzTimeout < 0 || c.AuthzTimeout > time.Second {
		return fail("authz_timeout: %v is not within 1s; a caller held up longer is better refused", c.AuthzTimeout)
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"request_timeout", c.RequestTimeout}, {"max_stream_duration", c.MaxStreamDuration}, {"stream_idle_timeout", c.StreamIdleTimeout},
		{"request_headers_timeout", c.RequestHeadersTimeout}, {"connect_timeout", c.ConnectTimeout},
	} {
		if d.d < time.Millisecond || d.d > 24*time.Hour {
			return fail("%s: %v is not between 1ms and 24h", d.name, d.d)
		}
	}
	if c.MaxHeaders > 1000 || c.MaxHeaderKiB > 96 {
		return fail("max_headers is at most 1000 and max_header_kib at most 96")
	}
	if c.AccessLogFile != "" && !AccessLogFileOK(c.AccessLogFile) {
		return fail("access_log_file: %q is no absolute path of letters, digits, dots, underscores and hyphens", c.AccessLogFile)
	}
	if strings.Trim(c.ProblemBase, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:/._-~") != "" {
		return fail("problem_base: %q holds a byte that a URL would escape", c.ProblemBase)
	}
	return c, nil
}

func (u Upstream) check() error {
	_, err := parseAddress(u.Address)
	return err
}

// address is where something listens: a Unix socket or a host and port.
type address struct {
	unix string
	host string
	port uint32
	ip   bool // host is an IP address
}

// parseAddress reads "unix:/path" or "host:port".
func parseAddress(s string) (address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !strings.HasPrefix(path, "/") || len(path) > 107 {
			return address{}, fmt.Errorf("%q: a Unix socket is unix:/absolute/path of at most 107 bytes", s)
		}
		return address{unix: path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return address{}, fmt.Errorf("%q is neither host:port nor unix:/path", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return address{}, fmt.Errorf("%q has no port between 1 and 65535", s)
	}
	_, notIP := netip.ParseAddr(host)
	if notIP != nil && !validHost(host) {
		return address{}, fmt.Errorf("%q has no valid host", s)
	}
	return address{host: host, port: uint32(n), ip: notIP == nil}, nil
}

// ipPort reads an address to listen on; port 0 is allowed.
func ipPort(s string) (ip string, port uint32, err error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no IP address and port", s)
	}
	return ap.Addr().String(), uint32(ap.Port()), nil
}

// validHost accepts a host name or IP address and nothing Envoy would read as a
// wildcard.
func validHost(h string) bool {
	if h == "" || len(h) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(strings.Trim(h, "[]")); err == nil {
		return true
	}
	return strings.Trim(h, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == "" &&
		h[0] != '.' && h[0] != '-' && h[len(h)-1] != '.'
}

func loopback(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && a.IsLoopback()
}
