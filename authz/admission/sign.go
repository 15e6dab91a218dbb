package admission

import (
	"errors"
	"fmt"
	"strconv"
	"time"
	"unsafe"
)

// DefaultValidity is how long an ALLOW may be acted upon: far longer than
// Envoy takes when it is well, and short enough that waiting it out costs a
// suspension little.
const DefaultValidity = 50 * time.Millisecond

// ValidityMax bounds what may be configured: no verifier accepts more.
const ValidityMax = time.Second

// ErrValidity: a validity outside 1 ms to ValidityMax.
var ErrValidity = errors.New("admission validity")

// Signer makes stamps. Safe for concurrent use.
type Signer struct {
	keys     KeySource
	validity time.Duration
}

// NewSigner signs with the first of the keys; 0 is DefaultValidity.
func NewSigner(keys KeySource, validity time.Duration) (*Signer, error) {
	if validity == 0 {
		validity = DefaultValidity
	}
	if validity < time.Millisecond || validity > ValidityMax {
		return nil, fmt.Errorf("%w: %v is not between 1ms and %v", ErrValidity, validity, ValidityMax)
	}
	return &Signer{keys, validity}, nil
}

// StampBytesMax is the longest value of a stamp.
const StampBytesMax = valueMax

// Append appends the value of the stamp of a call that was allowed on a
// revision; at is the decision's own instant, from before it looked at the
// register. It does not allocate when dst has room for StampBytesMax.
func (s *Signer) Append(dst []byte, c *Call, revision uint64, at time.Time) []byte {
	k := s.keys.Keys().all[0]
	start := len(dst)
	dst = append(append(append(dst, version...), '.'), k.id...)
	dst = appendMillis(append(dst, '.'), at.Add(s.validity).UnixMilli())
	dst = strconv.AppendUint(append(dst, '.'), revision, 10)
	signed := text(dst[start:])
	var mac [macLen]byte
	k.mac(&mac, c, signed[notAfterAt:notAfterAt+msDigits], signed[revAt:])
	return append(append(dst, '.'), mac[:]...)
}

// text is for arguments only that the callee copies.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
