package admission

import (
	"crypto/subtle"
	"fmt"
	"sync"
	"time"
)

// DefaultSkew is by how much the clocks of a sidecar and an upstream may
// differ: none on one host, and more than a well-kept network needs.
const DefaultSkew = 10 * time.Millisecond

// SkewMax bounds the skew that may be declared.
const SkewMax = 10 * time.Second

// VerifierConfig says what a Verifier accepts.
type VerifierConfig struct {
	// Keys verify. Needed.
	Keys KeySource
	// Skew is by how much this machine's clock may be behind, or before, the
	// sidecars'. It is added to the life of every stamp, and so to every wait for a
	// suspension: the control plane's drain must cover it. At most SkewMax.
	Skew time.Duration
	// Replay lets a stamp be used more than once while it is good. Default: once.
	// What was used is remembered in this process only.
	Replay bool
}

// Verifier tells whether a call was admitted. Safe for concurrent use.
type Verifier struct {
	keys KeySource
	skew time.Duration
	used *used // nil when replay is allowed
}

// NewVerifier makes a Verifier.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if cfg.Keys == nil || cfg.Keys.Keys() == nil {
		return nil, fmt.Errorf("%w: none", ErrKeys)
	}
	if cfg.Skew < 0 || cfg.Skew > SkewMax {
		return nil, fmt.Errorf("admission skew: %v is not between 0 and %v", cfg.Skew, SkewMax)
	}
	v := &Verifier{keys: cfg.Keys, skew: cfg.Skew}
	if !cfg.Replay {
		v.used = newUsed(ValidityMax + 2*cfg.Skew)
	}
	return v, nil
}

// Verify tells whether value is a good stamp of a call at an instant; the error
// wraps one of this package's. A stamp is good until not-after plus the skew,
// that instant excluded. A call must be verified once only, when it arrives.
func (v *Verifier) Verify(value string, c *Call, now time.Time) (Stamp, error) {
	p, s, err := split(value)
	if err != nil {
		return Stamp{}, err
	}
	k := v.keys.Keys().find(p.keyID)
	if k == nil {
		return Stamp{}, ErrUnknownKey
	}
	if len(c.Path) > pathMax {
		return Stamp{}, fmt.Errorf("%w: its path", ErrMalformed)
	}
	var mac [macLen]byte
	k.mac(&mac, c, p.notAfter, p.revision)
	if subtle.ConstantTimeCompare(mac[:], []byte(p.mac)) != 1 {
		return Stamp{}, ErrForged
	}
	if !now.Before(s.NotAfter.Add(v.skew)) {
		return s, ErrExpired
	}
	// No sidecar signs for longer: a clock is wrong, and the stamp would be good
	// for longer than anybody waits.
	if s.NotAfter.After(now.Add(ValidityMax + v.skew)) {
		return s, ErrAhead
	}
	if v.used != nil {
		if err := v.used.note(c.DecisionID, now); err != nil {
			return s, err
		}
	}
	return s, nil
}

// usedMax bounds how many admissions are remembered per generation: a process
// that takes more in a second is refused the rest rather than believed.
const usedMax = 1 << 18

// used remembers decision IDs for at least as long as their stamps can be good,
// in two generations. Only genuine stamps come here, so that nobody without the
// key can fill it.
type used struct {
	keep time.Duration
	most int // per generation

	mu       sync.Mutex
	turned   time.Time
	now, old map[string]struct{}
}

func newUsed(keep time.Duration) *used {
	return &used{keep: keep, most: usedMax, now: map[string]struct{}{}}
}

func (u *used) note(id string, now time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	// A clock that stepped back turns as well, or memory would wait for it.
	if age := now.Sub(u.turned); age >= u.keep || age < -u.keep {
		if age >= 2*u.keep {
			u.now = map[string]struct{}{}
		}
		u.old, u.now, u.turned = u.now, map[string]struct{}{}, now
	}
	if _, again := u.now[id]; again {
		return ErrReplayed
	}
	if _, again := u.old[id]; again {
		return ErrReplayed
	}
	if len(u.now) >= u.most {
		return ErrBusy
	}
	u.now[id] = struct{}{}
	return nil
}
