package registry

import (
	"fmt"
	"time"
)

// Time is an instant in milliseconds since the Unix epoch, UTC; zero is "not
// set". It is eight bytes and no pointer where time.Time is twenty-four and
// one, which is what lets a hundred thousand products fit. In JSON it is
// RFC 3339 with milliseconds.
type Time int64

// At converts a time.Time; the zero time.Time becomes "not set".
func At(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixMilli())
}

// Std converts back to UTC; "not set" becomes the zero time.Time.
func (t Time) Std() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(t)).UTC()
}

// Set tells whether the instant is set.
func (t Time) Set() bool { return t != 0 }

func (t Time) String() string {
	if t == 0 {
		return ""
	}
	return t.Std().Format("2006-01-02T15:04:05.000Z07:00")
}

// MarshalText is RFC 3339, or empty when not set.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText accepts RFC 3339 with any offset, and "" for "not set".
func (t *Time) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*t = 0
		return nil
	}
	v, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return fmt.Errorf("%w: %q is no RFC 3339 date-time such as 2026-11-22T09:00:00+11:00", ErrInvalid, truncate(string(b), 40))
	}
	*t = At(v)
	return nil
}
