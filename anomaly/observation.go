package anomaly

import "encoding/binary"

// Kind is what a Subject is.
type Kind uint8

const (
	// Product is a product, by its ID.
	Product Kind = iota
	// ClientApp is a credential's OAuth client, by its client_id.
	ClientApp
	// Subscription is one client's instance of a product, by the keyed hash of
	// its SSID in hexadecimal.
	Subscription
	// Network is where calls came from that nobody can be held to: those refused
	// before it was known who called.
	Network
	kinds
)

var kindNames = [kinds]string{"product", "client-app", "subscription", "network"}

func (k Kind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return "unknown"
}

// ParseKind finds a kind by its name.
func ParseKind(name string) (Kind, bool) {
	for k := range kinds {
		if kindNames[k] == name {
			return k, true
		}
	}
	return 0, false
}

// Subject is one whom a past is kept of.
type Subject struct {
	Kind Kind
	ID   string // at most subjectIDMax bytes
}

// subjectIDMax bounds the names of subjects.
const subjectIDMax = 128

// Outcome is what became of a call, out of a closed set.
type Outcome uint8

const (
	// Allowed went on to the upstream.
	Allowed Outcome = iota
	// RefusedIdentity was not who it said: token, certificate, client app,
	// product or delivery chain.
	RefusedIdentity
	// RefusedVersion came from a version that is unknown, blocked or no longer
	// supported.
	RefusedVersion
	// RefusedPilot named a client that is no part of the verification test.
	RefusedPilot
	// RefusedLimit was beyond a limit.
	RefusedLimit
	// RefusedOther was refused for anything else.
	RefusedOther
	outcomes
)

// Verb is what a call does to the data of the one it concerns.
type Verb uint8

const (
	// Neither reads nor lodges: streams, and what found no route.
	Neither Verb = iota
	// Read asks for data.
	Read
	// Lodge gives some.
	Lodge
)

// Hash stands for a client, a person, a network: keyed, so that nobody without
// the key can try out who it is. The zero hash is nobody.
type Hash [16]byte

func (h Hash) zero() bool { return h == Hash{} }

// short is enough of a hash to count with.
func (h Hash) short() uint32 { return binary.LittleEndian.Uint32(h[:]) }

// Observation is one call as it was decided. It names people by hashes only.
type Observation struct {
	// Decision is the hash of the decision ID, by which a Finished finds it.
	Decision uint64
	At       int64 // seconds since 1970
	// Product and ClientApp are of the register; "" when none was found.
	Product, ClientApp string
	Subscription       Hash // of the SSID
	Client, Person     Hash // on whose behalf, and whom it concerns
	Source             Hash // the network it came from
	Service, Version   string
	Verb               Verb
	Outcome            Outcome
}

// Finished is what the access log adds to an allowed call.
type Finished struct {
	Decision uint64
	Status   int    // as the caller saw it; 0 when no answer went out
	BytesOut uint64 // of the response's body
}
