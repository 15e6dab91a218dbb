package anomaly

import "math"

const (
	hoursOfDay  = 24
	hoursOfWeek = 7 * hoursOfDay
)

// rhythm is the usual value of every hour of the week: a mean for the hour of
// the day, and what the hour of this weekday departs from it. Each counts as
// much as it has been seen, so that a week's rhythm is neither demanded nor
// invented before there was one.
type rhythm struct {
	Day      [hoursOfDay]float32
	DaySeen  [hoursOfDay]uint16
	Week     [hoursOfWeek]int16 // in units of Unit
	WeekSeen [hoursOfWeek]uint8
	Unit     float64
}

// weekLimit is the largest departure stored; beyond it the unit doubles.
const weekLimit = 30_000

// weekFirst is how many units the first departure ever seen is.
const weekFirst = 1 << 10

// slot is the hour of the day and of the week (Sunday first) of an instant
// given in seconds since 1970, in the zone the caller counts in.
func slot(at int64) (day, week int) {
	hour := at / 3600
	if at < 0 && at%3600 != 0 {
		hour--
	}
	week = int((hour + 4*hoursOfDay) % hoursOfWeek) // 1970 began on a Thursday
	if week < 0 {
		week += hoursOfWeek
	}
	return week % hoursOfDay, week
}

// expect is the usual value of that hour; mean stands in for what is not known.
// An observation stands for each seconds.
func (r *rhythm) expect(day, week int, mean, each, trust float64) float64 {
	seen := float64(r.DaySeen[day]) * each
	e := mean + seen/(seen+trust)*(float64(r.Day[day])-mean)
	seen = float64(r.WeekSeen[week]) * each
	return e + seen/(seen+trust)*float64(r.Week[week])*r.Unit
}

func (r *rhythm) learn(day, week int, v, rate float64) {
	if r.DaySeen[day] < math.MaxUint16 {
		r.DaySeen[day]++
	}
	mean := float64(r.Day[day])
	mean += max(rate, 1/float64(r.DaySeen[day])) * (v - mean)
	r.Day[day] = float32(mean)

	if r.WeekSeen[week] < math.MaxUint8 {
		r.WeekSeen[week]++
	}
	depart := float64(r.Week[week]) * r.Unit
	depart += max(rate, 1/float64(r.WeekSeen[week])) * (v - mean - depart)
	r.setWeek(week, depart)
}

// setWeek stores a departure, in a coarser unit for all when it does not fit.
func (r *rhythm) setWeek(week int, depart float64) {
	size := math.Abs(depart)
	if r.Unit == 0 {
		if size == 0 {
			return
		}
		r.Unit = size / weekFirst
	}
	if r.Unit == 0 {
		return // smaller than numbers go
	}
	if size > weekLimit*r.Unit {
		_, exp := math.Frexp(size / (weekLimit * r.Unit))
		r.Unit = math.Ldexp(r.Unit, exp)
		for i := range r.Week {
			r.Week[i] >>= min(exp, 15)
		}
	}
	r.Week[week] = int16(math.Round(depart / r.Unit))
}
