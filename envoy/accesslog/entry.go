package accesslog

import (
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/authz"
)

// Entry is one finished request, or a sign of life of a long one, as Envoy
// logged it.
type Entry struct {
	// Decision is the zero ID when no authorizer decided, or what stood there is
	// no decision ID.
	Decision authz.DecisionID
	Reason   authz.Reason // of the decision; AuthorizerUnavailable when there was none
	Service  string       // service key, as the route's name; "unknown" or "" when no route matched
	Status   int          // as the caller saw it; 0 when no answer went out
	Flags    Flags
	Start    time.Time
	Duration time.Duration

	RequestBytes  uint64 // of the body
	ResponseBytes uint64 // of the body
	// UpstreamBytes is what went to the upstream on the wire, headers included.
	UpstreamBytes uint64

	// Reached: some of the request went to an upstream.
	Reached bool
	// Direct: the answer is a fixed one of the route table.
	Direct bool
	// Alive: the request is still under way, and there will be another entry.
	Alive bool
}

// Flags are Envoy's response flags, one bit each.
type Flags uint32

// The flags, by the field number of envoy.data.accesslog.v3.ResponseFlags.
const (
	NoHealthyUpstream      Flags = 1 << 2
	UpstreamRequestTimeout Flags = 1 << 3
	LocalReset             Flags = 1 << 4
	UpstreamRemoteReset    Flags = 1 << 5
	UpstreamConnectFailure Flags = 1 << 6
	UpstreamTermination    Flags = 1 << 7
	UpstreamOverflow       Flags = 1 << 8
	NoRoute                Flags = 1 << 9
	Unauthorized           Flags = 1 << 13
	DownstreamTermination  Flags = 1 << 15
	StreamIdleTimeout      Flags = 1 << 17
	DownstreamProtocol     Flags = 1 << 19
	UpstreamMaxDuration    Flags = 1 << 20
	DurationTimeout        Flags = 1 << 23
	UpstreamProtocol       Flags = 1 << 24
	NoCluster              Flags = 1 << 25
	Overload               Flags = 1 << 26
	DownstreamReset        Flags = 1 << 28
	flagMax                      = 28
)

// Cause is why an ALLOW was not forwarded, out of a closed set.
type Cause uint8

// The causes.
const (
	Downstream     Cause = iota // the caller went away
	ConnectFailure              // the upstream could not be reached
	Overflow                    // a circuit breaker was open
	Timeout                     // something took too long
	ProtocolError               // the request turned out to be malformed
	RefusedByEnvoy              // Envoy would not obey the decision
	Expired                     // Envoy was about to forward it when its admission was over
	NoSuchRoute                 // allowed, but Envoy has no route for it (yet)
	Lost                        // no log entry came, or the decision came too late for Envoy
	OtherCause
	nCauses
)

var causeWords = [nCauses]string{
	"downstream-disconnect", "upstream-connect-failure", "upstream-overflow", "timeout", "protocol-error", "refused-by-envoy", "admission-expired", "no-route", "log-lost", "other",
}

func (c Cause) String() string { return causeWords[c] }

// cause tells why an allowed request went nowhere.
func (e *Entry) cause() Cause {
	switch f := e.Flags; {
	case e.Direct || f&NoRoute != 0:
		return NoSuchRoute
	case f&(DownstreamTermination|DownstreamReset) != 0:
		return Downstream
	case f&(UpstreamConnectFailure|NoHealthyUpstream|NoCluster|UpstreamRemoteReset|UpstreamTermination|LocalReset|UpstreamProtocol) != 0:
		return ConnectFailure
	case f&(UpstreamOverflow|Overload) != 0:
		return Overflow
	case f&(UpstreamRequestTimeout|StreamIdleTimeout|UpstreamMaxDuration|DurationTimeout) != 0:
		return Timeout
	case f&DownstreamProtocol != 0:
		return ProtocolError
	case f&Unauthorized != 0:
		return RefusedByEnvoy
	case f == 0 && (e.Status == 503 || e.Status == 200):
		// Every other 503 of Envoy's own has a flag. A gRPC caller sees 200.
		return Expired
	}
	return OtherCause
}

// Finished is what monitoring counts of a request that has ended; false when it
// has not, or no authorizer decided it.
func (e *Entry) Finished() (anomaly.Finished, bool) {
	if e.Alive || e.Decision.IsZero() || e.Reason != authz.OK {
		return anomaly.Finished{}, false
	}
	return anomaly.Finished{Decision: e.Decision.Hash(), Status: e.Status, BytesOut: e.ResponseBytes}, true
}
