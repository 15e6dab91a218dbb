package registry

import (
	"fmt"
	"strings"
)

// The closed vocabularies of the register. Each is one byte in memory and a
// word in JSON; an unknown word is refused where it enters, so that the
// request path never meets one.

// enumText names one value of a closed vocabulary, "" when out of range.
func enumText(words []string, v uint8) string {
	if int(v) < len(words) {
		return words[v]
	}
	return ""
}

func parseEnum(what string, words []string, b []byte) (uint8, error) {
	for i, w := range words {
		if w == string(b) {
			return uint8(i), nil
		}
	}
	known := words
	if len(known) > 0 && known[0] == "" {
		known = known[1:]
	}
	return 0, fmt.Errorf("%w: %q is no %s; use one of %s", ErrInvalid, truncate(string(b), 40), what, strings.Join(known, ", "))
}

func truncate(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// Environment is where a client app may call: SANDBOX (API portal), EVTE (the
// SBR test environment) or PROD. PVT is no environment but a Stage of PROD.
type Environment uint8

// The environments, least dangerous first.
const (
	NoEnvironment Environment = iota
	Sandbox
	EVTE
	PROD
)

var environmentWords = []string{"", "SANDBOX", "EVTE", "PROD"}

func (e Environment) String() string               { return enumText(environmentWords, uint8(e)) }
func (e Environment) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (e *Environment) UnmarshalText(b []byte) error {
	v, err := parseEnum("environment", environmentWords, b)
	*e = Environment(v)
	return err
}

// Stage says under which terms an entitlement holds in PROD: StagePVT is
// production verification testing (named clients, capped), StagePROD is whole.
type Stage uint8

// The stages of an entitlement.
const (
	NoStage Stage = iota
	StagePVT
	StagePROD
)

var stageWords = []string{"", "PVT", "PROD"}

func (s Stage) String() string               { return enumText(stageWords, uint8(s)) }
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (s *Stage) UnmarshalText(b []byte) error {
	v, err := parseEnum("stage", stageWords, b)
	*s = Stage(v)
	return err
}

// Risk is a service's API risk rating: 1 none, 2 low, 3 medium, 4 high
// (domain model §7). Zero is unknown and is treated as 4.
type Risk uint8

// Short tells whether the rating takes the short serving lease (3 and 4, and
// anything unknown).
func (r Risk) Short() bool { return r == 0 || r >= 3 }

// EntityState is how far an entity's registration has come (domain model §3).
// Suspension is not a state: it is a Suspension of the entity, so that lifting
// it returns the state there was.
type EntityState uint8

// The states of an entity's registration.
const (
	EntityDraft EntityState = iota
	EntitySubmitted
	EntityChecking
	EntityRegistered
	EntityRejected
	EntityCancelled
	EntityLapsed
)

var entityStateWords = []string{"Draft", "Submitted", "Checking", "Registered", "Rejected", "Cancelled", "Lapsed"}

func (s EntityState) String() string               { return enumText(entityStateWords, uint8(s)) }
func (s EntityState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (s *EntityState) UnmarshalText(b []byte) error {
	v, err := parseEnum("entity state", entityStateWords, b)
	*s = EntityState(v)
	return err
}

// CertState is how far a product's certification has come (domain model §3).
// Suspended is, as for entities, a Suspension and no state.
type CertState uint8

// The states of a product's certification.
const (
	CertDraft CertState = iota
	CertSelfCertified
	CertInVerification
	CertPVT
	CertWhitelisted
	CertInterim
	CertRestricted
	CertReviewDue
	CertDelisted
)

var certStateWords = []string{"Draft", "SelfCertified", "InVerification", "PVT", "Whitelisted", "Interim", "Restricted", "ReviewDue", "Delisted"}

func (s CertState) String() string               { return enumText(certStateWords, uint8(s)) }
func (s CertState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (s *CertState) UnmarshalText(b []byte) error {
	v, err := parseEnum("certification state", certStateWords, b)
	*s = CertState(v)
	return err
}

// VersionState says whether a version of a product may call.
type VersionState uint8

// The states of a version. Whether support has ended is a date, not a state.
const (
	VersionActive VersionState = iota
	VersionBlocked
)

var versionStateWords = []string{"active", "blocked"}

func (s VersionState) String() string               { return enumText(versionStateWords, uint8(s)) }
func (s VersionState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (s *VersionState) UnmarshalText(b []byte) error {
	v, err := parseEnum("version state", versionStateWords, b)
	*s = VersionState(v)
	return err
}

// Effect is what a suspension does to the calls of its subject.
type Effect uint8

// The effects.
const (
	EffectStop     Effect = iota
	EffectThrottle        // so many calls a second
	EffectRestrict        // services of low ratings only
)

var effectWords = []string{"", "throttle", "restrict"}

func (e Effect) String() string               { return enumText(effectWords, uint8(e)) }
func (e Effect) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (e *Effect) UnmarshalText(b []byte) error {
	v, err := parseEnum("effect", effectWords, b)
	*e = Effect(v)
	return err
}

// Kind is the kind of a record of the register, and of a suspension's subject.
type Kind uint8

// The kinds of record. The order is the order in which a snapshot is laid out
// for people; nothing depends on it.
const (
	NoKind Kind = iota
	KindEntity
	KindProduct
	KindVersion // subject of a suspension only: "FP-1009@4.2"; the record is the product
	KindClientApp
	KindCredential
	KindSubscription
	KindService
	KindSuspension
	KindDenial
	KindNotice
	KindLimit
	KindTier // subject of a limit only; the records are limits
	KindProtected
	KindScreen
)

var kindWords = []string{"", "entity", "product", "version", "client-app", "credential", "subscription", "service", "suspension", "denial", "notice", "limit", "tier", "protected", "screen"}

func (k Kind) String() string               { return enumText(kindWords, uint8(k)) }
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (k *Kind) UnmarshalText(b []byte) error {
	v, err := parseEnum("kind", kindWords, b)
	*k = Kind(v)
	return err
}

// Suspendable tells whether a suspension may name this kind as its subject.
func (k Kind) Suspendable() bool { return k >= KindEntity && k <= KindService }
