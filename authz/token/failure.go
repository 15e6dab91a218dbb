package token

// Failure is why a token was refused: a closed set. None is "not refused".
type Failure uint8

// The failures, each with the reason of the contract it becomes.
const (
	None             Failure = iota
	Malformed                // token-malformed: no JWT of the profile, or beyond a bound
	SignatureInvalid         // token-signature-invalid: also an unknown kid, an alg the key is not pinned to, a key set gone stale
	IssuerUnknown            // token-issuer-unknown
	AudienceMismatch         // token-audience-mismatch
	Expired                  // token-expired
	NotYetValid              // token-not-yet-valid
	Throttled                // rate-limited: the peer has sent too many bad signatures, so this one was not looked at

	nFailures
)

// String is a short word for logs.
func (f Failure) String() string {
	if f >= nFailures {
		panic("token: failure out of range")
	}
	return [nFailures]string{
		"none", "malformed", "signature-invalid", "issuer-unknown",
		"audience-mismatch", "expired", "not-yet-valid", "throttled",
	}[f]
}
