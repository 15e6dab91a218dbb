package extauthz

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/ratelimit"
)

// The response headers that say what every limit of the call is at
// (draft-ietf-httpapi-ratelimit-headers-10): Lists of RFC 9651 of one String
// for each limit, the tightest first.
const (
	hdrRateLimitPolicy = "ratelimit-policy"
	hdrRateLimit       = "ratelimit"
)

// appendRateLimits writes both headers, or nothing when no limit applied. What
// does not change from call to call was written when the limits were found.
func appendRateLimits(b []byte, field protowire.Number, dec *authz.Decision) []byte {
	var order [ratelimit.LimitsMax]uint8
	n := dec.TightestFirst(&order)
	if n == 0 {
		return b
	}
	b, h := openHeader(b, field, hdrRateLimitPolicy)
	for k, i := range order[:n] {
		b = append(comma(b, k), dec.Plan.Items[i].Policy...)
	}
	b = h.close(b)
	states := dec.Spent.States()
	b, h = openHeader(b, field, hdrRateLimit)
	for k, i := range order[:n] {
		b = append(append(comma(b, k), dec.Plan.Items[i].Quoted...), ";r="...)
		b = strconv.AppendInt(b, max(states[i].Remaining, 0), 10)
		if reset := states[i].Reset; reset > 0 {
			b = append(b, ";t="...)
			b = strconv.AppendInt(b, int64((reset+time.Second-1)/time.Second), 10)
		}
	}
	return h.close(b)
}

func comma(b []byte, k int) []byte {
	if k > 0 {
		b = append(b, ", "...)
	}
	return b
}

// opened is where the lengths of a HeaderValueOption under way go.
type opened struct{ option, header, value int }

// openHeader starts a HeaderValueOption whose value's length is not known yet.
func openHeader(b []byte, field protowire.Number, name string) ([]byte, opened) {
	var h opened
	b, h.option = open(b, field)
	b, h.header = open(b, optHeader)
	b = protowire.AppendTag(b, headerKey, protowire.BytesType)
	b = protowire.AppendString(b, name)
	b, h.value = open(b, headerValue)
	return b, h
}

// close ends it: the value replaces what else there is of that name.
func (h opened) close(b []byte) []byte {
	b = closed(closed(b, h.value), h.header)
	b = protowire.AppendTag(b, optAction, protowire.VarintType)
	return closed(append(b, overwriteIfExistsOrAdd), h.option)
}
