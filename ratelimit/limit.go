package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// Kind says what a limit counts.
type Kind uint8

// The kinds. Their order has no meaning; their numbers are stored.
const (
	// Rate refills Burst requests at Rate per second.
	Rate Kind = iota + 1
	// Concurrency caps the calls under way at once at Amount.
	Concurrency
	// QuotaDay allows Amount requests in a calendar day of Zone.
	QuotaDay
	// QuotaMonth allows Amount requests in a calendar month of Zone.
	QuotaMonth
	// DistinctDay allows Amount distinct subjects in a calendar day of Zone; any
	// number of requests about each of them.
	DistinctDay
)

var kindNames = [...]string{Rate: "rate", Concurrency: "concurrency", QuotaDay: "quota-day", QuotaMonth: "quota-month", DistinctDay: "distinct-day"}

// String is the kind's word in configuration and answers.
func (k Kind) String() string {
	if k.Valid() {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", k)
}

// Valid tells whether it is one of the kinds.
func (k Kind) Valid() bool { return k >= Rate && k <= DistinctDay }

// Calendar tells whether the limit starts anew with each day or month.
func (k Kind) Calendar() bool { return k == QuotaDay || k == QuotaMonth || k == DistinctDay }

// MarshalText writes the word.
func (k Kind) MarshalText() ([]byte, error) {
	if !k.Valid() {
		return nil, fmt.Errorf("%v is no kind of limit", k)
	}
	return []byte(kindNames[k]), nil
}

// UnmarshalText reads the word.
func (k *Kind) UnmarshalText(b []byte) error {
	for i, name := range kindNames {
		if name != "" && name == string(b) {
			*k = Kind(i)
			return nil
		}
	}
	return fmt.Errorf("%q is no kind of limit: rate, concurrency, quota-day, quota-month or distinct-day", b)
}

// Micro is how many units of a share or a bucket make one request.
const Micro = 1_000_000

// The greatest figures a limit may have: what a pool counts in 53 bits, with
// room for the sums.
const (
	RateMax   = 1e6 // requests a second
	AmountMax = 1e9 // requests
)

// Limit is one limit on one subject, as it stands in the register. It is not
// changed after its first use; a changed limit is another Limit of the same ID
// with a greater Version, and goes on with what was used.
type Limit struct {
	// ID names the limit and its subject, such as "product/FP-1001/PROD/rate". It
	// is stable over changes, and holds no white space. At most 200 bytes.
	ID string
	// Version grows with every change of the figures: the revision of the register
	// at which they changed.
	Version uint64
	Kind    Kind
	// Rate is requests a second, for Kind Rate.
	Rate float64
	// Burst is how many requests may come at once, for Kind Rate. At least 1.
	Burst int64
	// Amount is the cap of every other Kind.
	Amount int64
	// Zone is whose days and months are counted; nil is UTC.
	Zone *time.Location
	// Shadow limits are counted and reported, and refuse nothing.
	Shadow bool

	account atomic.Pointer[account] // the last Limiter's account of it
}

// ErrLimit is wrapped by every error of Validate.
var ErrLimit = errors.New("not a limit")

// Validate tells what is wrong with the figures, in words for whoever wrote them.
func (l *Limit) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrLimit, fmt.Sprintf(format, args...))
	}
	if l.ID == "" || len(l.ID) > 200 {
		return bad("id must be 1 to 200 bytes")
	}
	for i := range len(l.ID) {
		if c := l.ID[i]; c <= ' ' || c > '~' {
			return bad("id may hold visible ASCII only")
		}
	}
	switch {
	case !l.Kind.Valid():
		return bad("kind must be rate, concurrency, quota-day, quota-month or distinct-day")
	case l.Kind != Rate:
		if l.Amount < 1 || l.Amount > AmountMax {
			return bad("amount must be from 1 to %d", int64(AmountMax))
		}
	case math.IsNaN(l.Rate) || l.Rate*Micro < 1 || l.Rate > RateMax:
		return bad("rate must be more than 0 and at most %d a second", int64(RateMax))
	case l.Burst < 1 || l.Burst > AmountMax:
		return bad("burst must be from 1 to %d requests", int64(AmountMax))
	}
	return nil
}

// Total is the whole of the limit as a share.
func (l *Limit) Total() Share {
	if l.Kind == Rate {
		return Share{Rate: int64(l.Rate * Micro), Cap: l.Burst * Micro}
	}
	return Share{Cap: l.Amount * Micro}
}

// revised is the same limit with other figures.
func (l *Limit) revised(version uint64, total Share) *Limit {
	n := &Limit{ID: l.ID, Version: version, Kind: l.Kind, Zone: l.Zone, Shadow: l.Shadow, Amount: total.Cap / Micro}
	if l.Kind == Rate {
		n.Rate, n.Burst, n.Amount = float64(total.Rate)/Micro, total.Cap/Micro, 0
	}
	return n
}

// Capacity is how many requests an unused limit allows at once.
func (l *Limit) Capacity() int64 {
	if l.Kind == Rate {
		return l.Burst
	}
	return l.Amount
}

// Period is the calendar period an instant lies in: its name, and when it
// begins and ends. Days that summer time makes 23 or 25 hours long are days.
// Other kinds have one period without end, named "".
func (l *Limit) Period(at time.Time) (name string, begin, end time.Time) {
	zone := l.zone()
	y, m, d := at.In(zone).Date()
	switch l.Kind {
	case QuotaDay, DistinctDay:
		begin, end = midnight(y, m, d, zone), midnight(y, m, d+1, zone)
		if end.Day() == d { // a zone that crossed the date line has no such day
			end = midnight(y, m, d+2, zone)
		}
		return begin.Format("2006-01-02"), begin, end
	case QuotaMonth:
		begin, end = midnight(y, m, 1, zone), midnight(y, m+1, 1, zone)
		return begin.Format("2006-01"), begin, end
	}
	return "", time.Time{}, time.Time{}
}

func (l *Limit) zone() *time.Location {
	if l.Zone == nil {
		return time.UTC
	}
	return l.Zone
}

// midnight is the first instant of a day. In zones that change at midnight
// time.Date may name 23:00 of the day before; the day then begins later.
func midnight(y int, m time.Month, d int, zone *time.Location) time.Time {
	t := time.Date(y, m, d, 0, 0, 0, 0, zone)
	want := time.Date(y, m, d, 12, 0, 0, 0, zone).Day()
	for i := 0; t.Day() != want && i < 8; i++ {
		t = t.Add(15 * time.Minute)
	}
	return t
}

// Share is a part of a limit: how fast it refills and how much it holds, in
// millionths of a request a second and of a request.
type Share struct{ Rate, Cap int64 }

// min is the smaller of two shares, each figure by itself.
func (s Share) min(o Share) Share { return Share{min(s.Rate, o.Rate), min(s.Cap, o.Cap)} }

// Standing is the part of a limit that every sidecar holds without asking: of
// parts sidecars, the one with an index. All of them together hold half of it and
// the pool the rest, so that the first to need more gets it at once. What was open
// of a calendar quota in the hands of a sidecar that dies is lost for the day: of
// that they hold a hundredth. Of a limit of few requests the sidecars of the
// lowest indices hold one each.
func Standing(kind Kind, total Share, parts, index int) Share {
	if parts <= 0 {
		return Share{}
	}
	n := int64(parts)
	s := Share{Rate: total.Rate / 2 / n, Cap: total.Cap / 2 / n}
	if kind.Calendar() {
		s.Cap = min(s.Cap, total.Cap/100/n)
	}
	s.Cap -= s.Cap % Micro
	if s.Cap < Micro {
		if int64(index) >= total.Cap/Micro {
			return Share{} // a bucket that never holds a whole request is of no use
		}
		s.Cap = Micro
	}
	return s
}
