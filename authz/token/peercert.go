package token

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/url"
	"strings"
	"time"
)

// certificateBytesMax bounds a client certificate as Envoy reports it.
const certificateBytesMax = 16 << 10

// Thumbprints names client certificates the way tokens do (RFC 8705 §3.1). It
// remembers the certificates it has seen, in a bounded cache, and is safe for
// concurrent use.
type Thumbprints struct{ cache *cache[peerCertificate] }

type peerCertificate struct {
	thumb    string
	notAfter time.Time
}

// NewThumbprints makes a cache of about so many certificates; zero means 4096.
// Together they hold at most 16 MiB.
func NewThumbprints(entries int) *Thumbprints {
	if entries <= 0 {
		entries = 4096
	}
	return &Thumbprints{newCache[peerCertificate](entries, 16<<20)}
}

// Of reads a certificate as Envoy's source.certificate has it, URL-encoded PEM,
// and gives the x5t#S256 (base64url of SHA-256 of the DER) and when it ends.
// ok is false for anything but exactly one certificate, of at most 16 KiB. It
// does not verify the certificate: Envoy did, or was told not to. No allocation
// for one it remembers.
func (t *Thumbprints) Of(urlEncodedPEM string) (thumb string, notAfter time.Time, ok bool) {
	if urlEncodedPEM == "" || len(urlEncodedPEM) > certificateBytesMax {
		return "", time.Time{}, false
	}
	h := t.cache.hash(urlEncodedPEM)
	if c := t.cache.get(h, urlEncodedPEM); c != nil {
		return c.thumb, c.notAfter, true
	}
	// PathUnescape, because a '+' of base64 is no space.
	text, err := url.PathUnescape(urlEncodedPEM)
	if err != nil {
		return "", time.Time{}, false
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) != 0 ||
		strings.TrimSpace(string(rest)) != "" || !strings.HasPrefix(text, "-----BEGIN") {
		return "", time.Time{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", time.Time{}, false
	}
	sum := sha256.Sum256(cert.Raw)
	c := &peerCertificate{thumb: base64.RawURLEncoding.EncodeToString(sum[:]), notAfter: cert.NotAfter}
	t.cache.put(h, strings.Clone(urlEncodedPEM), c, len(c.thumb), cert.NotAfter, time.Now())
	return c.thumb, c.notAfter, true
}
