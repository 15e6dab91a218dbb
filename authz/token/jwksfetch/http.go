package jwksfetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"
)

// timeoutMax is the default of Config.Timeout, too.
const timeoutMax = 5 * time.Second

// newClient makes the client of one URL. It follows no redirect (whoever can
// answer 302 could otherwise name the keys), asks no proxy, keeps no connection
// and no cookie, and takes no compressed answer. A name that resolves to an
// attacker's address, or to this machine, fails at the certificate.
func newClient(cfg *Config) (*http.Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("URL: %w", err)
	}
	if u.Host == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return nil, errors.New("the URL has a host, and neither user nor fragment")
	}
	switch u.Scheme {
	case "https":
	case "http":
		ip, err := netip.ParseAddr(u.Hostname())
		if !cfg.AllowHTTPLoopback || err != nil || !ip.Unmap().IsLoopback() {
			return nil, errors.New("the URL is https; http is for a literal loopback address, when that is allowed")
		}
	default:
		return nil, errors.New("the URL is https")
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file: %s holds no certificate", cfg.CAFile)
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{}).DialContext,
			TLSClientConfig:        tlsConfig,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (s *Source) get(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch key set: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch key set: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch key set: status %d", res.StatusCode)
	}
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || media != "application/json" && media != "application/jwk-set+json" {
		return nil, fmt.Errorf("fetch key set: content type %.60q is no JSON", res.Header.Get("Content-Type"))
	}
	if res.ContentLength > DocumentBytesMax {
		return nil, fmt.Errorf("%w: above %d bytes", ErrDocument, DocumentBytesMax)
	}
	return bounded(res.Body)
}
