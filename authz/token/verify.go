package token

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dspgate/dspgate/authz/internal/peers"
	"github.com/dspgate/dspgate/authz/token/internal/strictjson"
	"github.com/dspgate/dspgate/registry"
)

// Verifier verifies the tokens of its issuers. It is safe for concurrent use.
type Verifier struct {
	issuers  map[string]*Issuer
	verified *cache[verified]
	bad      *negatives
	budget   *peers.Budget

	signatures, throttled atomic.Uint64
}

// verified is what the cache holds of one token: that its signature verifies
// under key, and what it says. Whether it may pass now is asked every time.
type verified struct {
	claims *Claims
	issuer *Issuer
	key    *Key
	static Failure // AudienceMismatch or None: what no time will change
}

// New refuses, with ErrConfig, issuers without keys, audiences or algorithms,
// and any algorithm that is not asymmetric.
func New(cfg Config) (*Verifier, error) {
	if err := cfg.withDefaults(); err != nil {
		return nil, err
	}
	v := &Verifier{
		issuers:  make(map[string]*Issuer, len(cfg.Issuers)),
		verified: newCache[verified](cfg.CacheEntries, cfg.CacheBytes),
		bad:      newNegatives(cfg.NegativeEntries),
		budget:   peers.New(cfg.FailuresPerSecond, cfg.FailureBurst, cfg.Peers),
	}
	for _, i := range cfg.Issuers {
		i.withDefaults()
		if err := i.check(); err != nil {
			return nil, err
		}
		if v.issuers[i.Issuer] != nil {
			return nil, fmt.Errorf("%w: issuer %.200q is configured twice", ErrConfig, i.Issuer)
		}
		i.used = slices.Concat(standardClaims, i.Names.list(), i.Subjects)
		v.issuers[i.Issuer] = &i
	}
	return v, nil
}

// Verify says who a token speaks for at an instant, or why it is refused; the
// Claims are nil exactly when the Failure is not None. peer is the address the
// request came from, without port. raw and peer are not kept: they may point
// into the caller's buffer. A cached token costs no allocation.
func (v *Verifier) Verify(raw, peer string, now time.Time) (*Claims, Failure) {
	if raw == "" || len(raw) > TokenBytesMax {
		return nil, Malformed
	}
	h := v.verified.hash(raw)
	if e := v.verified.get(h, raw); e != nil {
		// The key must still be in the set: what a withdrawn key signed dies with it.
		if e.key.same(e.issuer.Keys.Keys(now).Key(e.key.id)) {
			return e.at(now)
		}
	}
	e, fail := v.miss(raw, peer, now)
	if fail != None {
		return nil, fail
	}
	expires := e.claims.Expires.Std().Add(e.issuer.ExpirySkew)
	v.verified.put(h, strings.Clone(raw), e, len(e.claims.Scope)+claimsBytes, expires, now)
	return e.at(now)
}

// claimsBytes is about what a cached token holds beside its own text and scope.
const claimsBytes = 768

// at says whether a token whose signature is good passes at an instant.
func (e *verified) at(now time.Time) (*Claims, Failure) {
	c, ms := e.claims, registry.At(now)
	skew := registry.Time(e.issuer.Skew.Milliseconds())
	switch {
	case e.static != None:
		return nil, e.static
	case ms >= c.Expires+registry.Time(e.issuer.ExpirySkew.Milliseconds()):
		return nil, Expired
	case c.IssuedAt > ms+skew || c.NotBefore > ms+skew:
		return nil, NotYetValid
	}
	return c, None
}

// miss verifies a token from scratch, cheapest question first: the shell, the
// issuer, the claims' form, the key, the peer's budget, and only then the
// signature under the algorithm that the key is pinned to.
func (v *Verifier) miss(raw, peer string, now time.Time) (*verified, Failure) {
	id := v.bad.id(raw)
	if v.bad.has(id, now) {
		return nil, SignatureInvalid
	}
	jws, head, ok := openJWS(raw)
	if !ok {
		return nil, Malformed
	}
	payload, err := strictjson.Parse(jws.payload, jsonLimits)
	if err != nil || payload.Kind != strictjson.Object {
		return nil, Malformed
	}
	iss, ok := peekIssuer(payload)
	if !ok {
		return nil, Malformed
	}
	issuer := v.issuers[iss]
	if issuer == nil {
		return nil, IssuerUnknown
	}
	if !issuer.typed(head.typ) {
		return nil, Malformed
	}
	claims, audience, ok := issuer.claims(payload, head.kid)
	if !ok {
		return nil, Malformed
	}
	set := issuer.Keys.Keys(now)
	key := set.Key(head.kid)
	if key == nil {
		issuer.Keys.Missed(claims.KID)
		return nil, SignatureInvalid
	}
	// Taken before the work and given back when the signature is good, so that
	// many at once cannot each find the budget untouched.
	if !v.budget.Take(peer, now) {
		v.throttled.Add(1)
		return nil, Throttled
	}
	v.signatures.Add(1)
	if !key.verify(head.alg, &jws) {
		v.bad.put(id, issuer, set)
		return nil, SignatureInvalid
	}
	v.budget.Refund(peer, now)
	e := &verified{claims: claims, issuer: issuer, key: key}
	if !audience {
		e.static = AudienceMismatch
	}
	return e, None
}

// Stats are counts since the start, of what left the cached path.
type Stats struct {
	Signatures uint64 // signatures computed
	Throttled  uint64 // tokens refused for their peer's budget
	Cached     int    // tokens in the cache
	CacheBytes int64  // that they hold, about
}

// Stats reads the counts.
func (v *Verifier) Stats() Stats {
	n, bytes := v.verified.size()
	return Stats{Signatures: v.signatures.Load(), Throttled: v.throttled.Load(), Cached: n, CacheBytes: bytes}
}
