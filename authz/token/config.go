package token

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds on every token, whoever sent it.
const (
	TokenBytesMax = 8 << 10 // longer is Malformed before anything is looked at
	KIDBytesMax   = 256
)

// ErrConfig wraps everything New and the checks of an Issuer refuse.
var ErrConfig = errors.New("token configuration")

// Config is what a Verifier is made of. Zero values mean the defaults.
type Config struct {
	Issuers []Issuer

	// CacheEntries bounds the verified-token cache. Default 16384.
	CacheEntries int
	// CacheBytes bounds the bytes the cached tokens hold, about. Default 32 MiB.
	CacheBytes int64
	// NegativeEntries bounds the cache of tokens whose signature is known to be
	// bad, 64 bytes each. Default 16384.
	NegativeEntries int

	// FailuresPerSecond and FailureBurst are how many failed signatures one peer
	// (an IPv4 address or an IPv6 /64) may cost; beyond it tokens that are not
	// cached are Throttled before any signature work. Default 50 and 200.
	FailuresPerSecond float64
	FailureBurst      int
	// Peers bounds the table of peers that failed lately. Beyond it the one
	// that is closest to a full budget is forgotten. Default 65536.
	Peers int
}

// Issuer is one trusted issuer.
type Issuer struct {
	// Issuer is compared with iss, octet for octet.
	Issuer string
	// Audiences: one of them must be the aud, or a member of it, exactly.
	Audiences []string
	// Algorithms a key of this issuer may be pinned to: ES256 ES384 ES512 RS256
	// RS384 RS512 PS256 PS384 PS512 EdDSA. Symmetric ones and none are refused.
	Algorithms []string
	// MaxLifetime caps exp − iat. Default and greatest 24h.
	MaxLifetime time.Duration
	// Skew is how far in the future nbf and iat may lie. Default 30s, greatest
	// 5m; negative means none.
	Skew time.Duration
	// ExpirySkew is how long after exp a token still passes. Default none,
	// greatest 5m: an expired token is expired.
	ExpirySkew time.Duration
	// TypOptional accepts a token without typ, or with typ JWT. Default false:
	// RFC 9068's at+jwt is required.
	TypOptional bool
	// Names of the claims, for an issuer that uses others than the contract's.
	Names ClaimNames
	// Subjects are further claims kept for Claims.Extra: what services name as
	// the subject their calls concern.
	Subjects []string
	// Keys is the issuer's key set.
	Keys KeySource

	used []string // every claim name read, for case variants; set by New
}

// ClaimNames are top-level claims; zero values mean the names in brackets.
type ClaimNames struct {
	ClientID   string // [client_id], with azp to fall back on when it is the default
	ABN        string // [abn]
	SoftwareID string // [software_id]
	ClientABN  string // [client_abn]
}

func (c *Config) withDefaults() error {
	if len(c.Issuers) == 0 {
		return fmt.Errorf("%w: no issuer", ErrConfig)
	}
	c.CacheEntries = cmp.Or(c.CacheEntries, 16384)
	c.CacheBytes = cmp.Or(c.CacheBytes, 32<<20)
	c.NegativeEntries = cmp.Or(c.NegativeEntries, 16384)
	c.FailuresPerSecond = cmp.Or(c.FailuresPerSecond, 50)
	c.FailureBurst = cmp.Or(c.FailureBurst, 200)
	c.Peers = cmp.Or(c.Peers, 65536)
	// Written so that NaN is out of range too.
	if !(c.FailuresPerSecond >= 0.001 && c.FailuresPerSecond <= 1e6) {
		return fmt.Errorf("%w: failures per second %v is not within 0.001 to 1000000", ErrConfig, c.FailuresPerSecond)
	}
	for _, n := range []struct {
		name string
		v    int64
		max  int64
	}{
		{"cache entries", int64(c.CacheEntries), 1 << 24}, {"cache bytes", c.CacheBytes, 1 << 34},
		{"negative entries", int64(c.NegativeEntries), 1 << 24}, {"failure burst", int64(c.FailureBurst), 1e6},
		{"peers", int64(c.Peers), 1 << 24},
	} {
		if n.v < 1 || n.v > n.max {
			return fmt.Errorf("%w: %s %d is not within 1 to %d", ErrConfig, n.name, n.v, n.max)
		}
	}
	return nil
}

// algorithms is the closed set of what a key may be pinned to.
var algorithms = []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"}

func (i *Issuer) check() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: issuer %.200q: %s", ErrConfig, i.Issuer, fmt.Sprintf(format, args...))
	}
	switch {
	case i.Issuer == "" || len(i.Issuer) > 1024:
		return fail("name it, in at most 1024 bytes")
	case i.Keys == nil:
		return fail("no key source")
	case len(i.Audiences) == 0:
		return fail("at least one audience is needed")
	case slices.Contains(i.Audiences, "") || slices.Contains(i.Audiences, "*"):
		return fail("an audience is a name, neither empty nor a pattern")
	case i.MaxLifetime < 0 || i.MaxLifetime > 24*time.Hour:
		return fail("max lifetime %v is not within 24h", i.MaxLifetime)
	case i.Skew > 5*time.Minute || i.ExpirySkew > 5*time.Minute || i.ExpirySkew < 0:
		return fail("a skew is at most 5m")
	}
	if err := CheckAlgorithms(i.Algorithms); err != nil {
		return fmt.Errorf("issuer %.200q: %w", i.Issuer, err)
	}
	seen := map[string]bool{}
	for _, n := range i.Names.list() {
		fold := strings.ToLower(n)
		if seen[fold] {
			return fail("claim name %q is used twice", n)
		}
		seen[fold] = true
	}
	for _, n := range standardClaims {
		if seen[n] {
			return fail("claim %q cannot be another claim's name", n)
		}
	}
	if slices.Contains(i.Subjects, "") || len(i.Subjects) > 16 {
		return fail("at most 16 subject claims, each with a name")
	}
	return nil
}

// CheckAlgorithms refuses an empty list and anything but the asymmetric
// algorithms that Issuer.Algorithms lists.
func CheckAlgorithms(algs []string) error {
	if len(algs) == 0 {
		return fmt.Errorf("%w: at least one algorithm is needed", ErrConfig)
	}
	for _, a := range algs {
		if !slices.Contains(algorithms, a) {
			return fmt.Errorf("%w: algorithm %.40q is refused; use asymmetric ones of %s", ErrConfig, a, strings.Join(algorithms, ", "))
		}
	}
	return nil
}

func (i *Issuer) withDefaults() {
	if i.MaxLifetime == 0 {
		i.MaxLifetime = 24 * time.Hour
	}
	switch {
	case i.Skew == 0:
		i.Skew = 30 * time.Second
	case i.Skew < 0:
		i.Skew = 0
	}
	for _, d := range []struct {
		name *string
		def  string
	}{
		{&i.Names.ClientID, "client_id"}, {&i.Names.ABN, "abn"},
		{&i.Names.SoftwareID, "software_id"}, {&i.Names.ClientABN, "client_abn"},
	} {
		if *d.name == "" {
			*d.name = d.def
		}
	}
}

func (n *ClaimNames) list() []string {
	return []string{n.ClientID, n.ABN, n.SoftwareID, n.ClientABN}
}
