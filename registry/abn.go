package registry

import (
	"fmt"
	"strconv"
)

// An ABN is an Australian Business Number, eleven digits with a checksum, held
// as a number so that a hundred thousand of them cost eight bytes each and no
// pointer. Zero means "none". In JSON and in text it is a string of eleven digits.
type ABN uint64

var abnWeights = [11]uint64{10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19}

// ParseABN reads eleven digits, spaces allowed between them, and checks the
// checksum: the first digit less one, weighted, sums to a multiple of 89
// (domain model §6).
func ParseABN(s string) (ABN, error) {
	var n, sum uint64
	digits := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == ' ' && digits > 0 {
			continue
		}
		if c < '0' || c > '9' || digits == 11 {
			return 0, fmt.Errorf("%w: an ABN is 11 digits", ErrInvalid)
		}
		d := uint64(c - '0')
		if digits == 0 {
			if d == 0 {
				return 0, fmt.Errorf("%w: an ABN does not start with 0", ErrInvalid)
			}
			sum += (d - 1) * abnWeights[0]
		} else {
			sum += d * abnWeights[digits]
		}
		n = n*10 + d
		digits++
	}
	if digits != 11 {
		return 0, fmt.Errorf("%w: an ABN is 11 digits", ErrInvalid)
	}
	if sum%89 != 0 {
		return 0, fmt.Errorf("%w: the ABN's check digits do not agree; look for a mistyped digit", ErrInvalid)
	}
	return ABN(n), nil
}

// String is the eleven digits, or "" for none.
func (a ABN) String() string {
	if a == 0 {
		return ""
	}
	return fmt.Sprintf("%011d", uint64(a))
}

// AppendText appends the eleven digits; it does not allocate when b has room.
func (a ABN) AppendText(b []byte) ([]byte, error) {
	if a == 0 {
		return b, nil
	}
	return strconv.AppendUint(b, uint64(a), 10), nil // first digit is never 0
}

// MarshalText implements encoding.TextMarshaler.
func (a ABN) MarshalText() ([]byte, error) { return a.AppendText(nil) }

// UnmarshalText implements encoding.TextUnmarshaler; "" is none.
func (a *ABN) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = 0
		return nil
	}
	v, err := ParseABN(string(b))
	if err != nil {
		return err
	}
	*a = v
	return nil
}
