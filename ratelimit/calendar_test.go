package ratelimit

import (
	"context"
	"fmt"
	"testing"
	"time"

	_ "time/tzdata" // the zone must be there on any machine
)

func sydney(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Australia/Sydney")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func utc(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Days of Sydney by the instants at which they begin and end, both days on which
// the clocks change among them, and the ends of months and of February.
func TestPeriodsOfTheCalendar(t *testing.T) {
	zone := sydney(t)
	for _, c := range []struct {
		what             string
		kind             Kind
		at               string // any instant of the period
		name, begin, end string
		hours            float64
	}{
		{"a day of summer", QuotaDay, "2026-01-15T02:00:00Z", "2026-01-15", "2026-01-14T13:00:00Z", "2026-01-15T13:00:00Z", 24},
		{"a day of winter", DistinctDay, "2026-07-15T02:00:00Z", "2026-07-15", "2026-07-14T14:00:00Z", "2026-07-15T14:00:00Z", 24},
		{"the clocks go forward, before", QuotaDay, "2026-10-03T15:59:59Z", "2026-10-04", "2026-10-03T14:00:00Z", "2026-10-04T13:00:00Z", 23},
		{"the clocks go forward, after", QuotaDay, "2026-10-03T16:00:00Z", "2026-10-04", "2026-10-03T14:00:00Z", "2026-10-04T13:00:00Z", 23},
		{"the clocks go back, the first 02:30", QuotaDay, "2026-04-04T15:30:00Z", "2026-04-05", "2026-04-04T13:00:00Z", "2026-04-05T14:00:00Z", 25},
		{"the clocks go back, the second 02:30", QuotaDay, "2026-04-04T16:30:00Z", "2026-04-05", "2026-04-04T13:00:00Z", "2026-04-05T14:00:00Z", 25},
		{"the last instant of that day", QuotaDay, "2026-04-05T13:59:59Z", "2026-04-05", "2026-04-04T13:00:00Z", "2026-04-05T14:00:00Z", 25},
		{"the first of the next", QuotaDay, "2026-04-05T14:00:00Z", "2026-04-06", "2026-04-05T14:00:00Z", "2026-04-06T14:00:00Z", 24},
		{"a leap day", QuotaDay, "2028-02-29T00:00:00Z", "2028-02-29", "2028-02-28T13:00:00Z", "2028-02-29T13:00:00Z", 24},
		{"the day after 28 February of a common year", QuotaDay, "2027-02-28T13:00:00Z", "2027-03-01", "2027-02-28T13:00:00Z", "2027-03-01T13:00:00Z", 24},
		{"a leap month", QuotaMonth, "2028-02-29T12:59:59Z", "2028-02", "2028-01-31T13:00:00Z", "2028-02-29T13:00:00Z", 29 * 24},
		{"February of a common year", QuotaMonth, "2027-02-10T00:00:00Z", "2027-02", "2027-01-31T13:00:00Z", "2027-02-28T13:00:00Z", 28 * 24},
		{"the year 2100 is none", QuotaMonth, "2100-02-10T00:00:00Z", "2100-02", "2100-01-31T13:00:00Z", "2100-02-28T13:00:00Z", 28 * 24},
		{"April, an hour longer", QuotaMonth, "2026-04-30T13:59:59Z", "2026-04", "2026-03-31T13:00:00Z", "2026-04-30T14:00:00Z", 30*24 + 1},
		{"October, an hour shorter", QuotaMonth, "2026-10-01T00:00:00Z", "2026-10", "2026-09-30T14:00:00Z", "2026-10-31T13:00:00Z", 31*24 - 1},
		{"the 31st of December", QuotaMonth, "2026-12-31T12:59:59Z", "2026-12", "2026-11-30T13:00:00Z", "2026-12-31T13:00:00Z", 31 * 24},
		{"New Year", QuotaMonth, "2026-12-31T13:00:00Z", "2027-01", "2026-12-31T13:00:00Z", "2027-01-31T13:00:00Z", 31 * 24},
	} {
		t.Run(c.what, func(t *testing.T) {
			l := &Limit{ID: "q", Kind: c.kind, Amount: 1, Zone: zone}
			name, begin, end := l.Period(utc(t, c.at))
			if name != c.name || !begin.Equal(utc(t, c.begin)) || !end.Equal(utc(t, c.end)) {
				t.Errorf("%s lies in %s from %s to %s, want %s from %s to %s", c.at, name, begin.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339), c.name, c.begin, c.end)
			}
			if got := end.Sub(begin).Hours(); got != c.hours {
				t.Errorf("it is %v hours long, want %v", got, c.hours)
			}
		})
	}
}

// Every period ends where the next begins, in zones that change at midnight, by
// half an hour, or leave out a day.
func TestPeriodsJoin(t *testing.T) {
	for _, zone := range []string{"Australia/Sydney", "Australia/Lord_Howe", "America/Sao_Paulo", "Africa/Cairo", "Pacific/Apia", "UTC"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []Kind{QuotaDay, QuotaMonth} {
			t.Run(fmt.Sprint(zone, " ", kind), func(t *testing.T) {
				l := &Limit{ID: "q", Kind: kind, Amount: 1, Zone: loc}
				at := time.Date(2011, 1, 1, 12, 0, 0, 0, time.UTC)
				names := map[string]bool{}
				for until := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC); at.Before(until); {
					name, begin, end := l.Period(at)
					if names[name] {
						t.Fatalf("%s comes twice", name)
					}
					names[name] = true
					if at.Before(begin) || !at.Before(end) {
						t.Fatalf("%v is not within %s, %v to %v", at, name, begin, end)
					}
					if last, _, _ := l.Period(end.Add(-time.Nanosecond)); last != name {
						t.Fatalf("the last instant before %v is of %s, want %s", end, last, name)
					}
					at = end
				}
			})
		}
	}
}

// A quota of the day on which the clocks go back lasts 25 hours, and one of the
// day they go forward 23: no hour is counted twice, none refills.
func TestAQuotaLastsWhileTheClocksChange(t *testing.T) {
	zone := sydney(t)
	for _, c := range []struct {
		begin string
		hours int
	}{{"2026-04-04T13:00:00Z", 25}, {"2026-10-03T14:00:00Z", 23}} {
		l := Solo()
		quota := &Limit{ID: "q", Kind: QuotaDay, Amount: 10, Zone: zone}
		var out Outcome
		passed := 0
		for half := range 2 * c.hours { // two calls an hour, then one at the last instant
			at := utc(t, c.begin).Add(time.Duration(half) * 30 * time.Minute)
			if l.Spend(&Query{Elapsed: time.Duration(half) * 30 * time.Minute, Now: at}, []*Limit{quota}, &out) {
				passed++
			} else if want := time.Duration(2*c.hours-half) * 30 * time.Minute; out.RetryAfter != want {
				t.Errorf("retry after %v, want %v, when the day ends", out.RetryAfter, want)
			}
		}
		end := utc(t, c.begin).Add(time.Duration(c.hours) * time.Hour)
		at := time.Duration(c.hours) * time.Hour
		if l.Spend(&Query{Elapsed: at - 1, Now: end.Add(-1)}, []*Limit{quota}, &out) {
			passed++
		}
		if passed != 10 {
			t.Errorf("%d of 10 passed on the day that begins %s", passed, c.begin)
		}
		if !l.Spend(&Query{Elapsed: at, Now: end}, []*Limit{quota}, &out) {
			t.Errorf("the next day did not begin %d hours after %s", c.hours, c.begin)
		}
	}
}

// The wall clock may be set to and fro over midnights, the end of a month and
// the hour that comes twice: a day gone back to has what was left of it, at most.
func TestAClockThatJumpsGivesNoQuotaTwice(t *testing.T) {
	zone := sydney(t)
	day := &Limit{ID: "day", Kind: QuotaDay, Amount: 5, Zone: zone}
	month := &Limit{ID: "month", Kind: QuotaMonth, Amount: 8, Zone: zone}
	l := Solo()
	perDay, perMonth := map[string]int{}, map[string]int{}
	at := utc(t, "2026-04-30T13:30:00Z") // half an hour before May
	for i, jump := range []time.Duration{
		0, time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, -26 * 24 * time.Hour, 26 * 24 * time.Hour,
		31 * 24 * time.Hour, -31 * 24 * time.Hour, 366 * 24 * time.Hour, -366 * 24 * time.Hour, time.Minute,
	} {
		at = at.Add(jump)
		for _, limit := range []*Limit{day, month} {
			var out Outcome
			name, _, _ := limit.Period(at)
			for range 20 {
				if l.Spend(&Query{Elapsed: time.Duration(i) * time.Second, Now: at}, []*Limit{limit}, &out) {
					if limit == day {
						perDay[name]++
					} else {
						perMonth[name]++
					}
				}
			}
		}
	}
	for name, n := range perDay {
		if n > 5 {
			t.Errorf("%d passed on %s, whose quota is 5", n, name)
		}
	}
	for name, n := range perMonth {
		if n > 8 {
			t.Errorf("%d passed in %s, whose quota is 8", n, name)
		}
	}
	if perDay["2026-04-30"] != 5 || perMonth["2026-04"] != 8 {
		t.Errorf("of the first day and month %d and %d passed, want all of 5 and 8", perDay["2026-04-30"], perMonth["2026-04"])
	}
}

// nowhere is a pool that is never asked.
type nowhere struct{}

func (nowhere) Sync(context.Context, *Request) (*Reply, error) { panic("asked") }

// What is lent of a day's quota at its end, and arrives when the next day has
// begun, is not the next day's.
func TestWhatIsLentAtMidnightStaysInItsDay(t *testing.T) {
	l, err := New(Options{ID: "s", Pool: nowhere{}, Elapsed: func() time.Duration { return time.Hour }})
	if err != nil {
		t.Fatal(err)
	}
	l.part.Store(&part{Parts: 1, gen: 1})
	late := utc(t, "2026-03-10T23:59:59.9Z")
	l.lease.Store(&lease{heldUntil: 2 * time.Hour, standUntil: 2 * time.Hour, wallUntil: late.Add(time.Minute).UnixNano()})
	quota := &Limit{ID: "q", Version: 1, Kind: QuotaDay, Amount: 1000}
	var out Outcome
	if !l.Spend(&Query{Elapsed: time.Hour, Now: late}, []*Limit{quota}, &out) {
		t.Fatal("refused the first call")
	}
	a := l.lookup("q")
	asked := &Item{ID: "q", Period: "2026-03-10", Kind: QuotaDay, Version: 1, Total: quota.Total(), Held: a.Share, Ask: 500 * Micro, Open: 500 * Micro}
	answer := &ItemReply{Epoch: 7, Version: 1, Total: quota.Total(), Held: Share{Cap: a.Cap + 500*Micro}, Granted: 500 * Micro}
	at := l.instantAt(time.Hour, late.Add(time.Second))
	l.credit(a, asked, answer, &at)
	passed := 0
	for range 1000 {
		if l.Spend(&Query{Elapsed: time.Hour, Now: late.Add(time.Second)}, []*Limit{quota}, &out) {
			passed++
		}
	}
	if want := 10; passed != want {
		t.Errorf("%d passed after midnight, want the %d of the new day's standing part", passed, want)
	}
}
