package anomaly

// profile is what the fleet's watcher knows of one subject: a Series for each
// signal, made when the signal is first more than nothing.
type profile struct {
	series [firstRule]*Series
	idle   [firstRule]uint32 // closed windows before there was a series

	minute, hour Tally
	known        [sets]known
	watch        *watch        // nil until something is counted
	of           string        // the product, of a client app or a subscription
	fresh        [sets]float64 // never seen before, in this hour
	mix          mix
	peeked       [firstRule - firstHourly]float64 // hourly values looked at last in this hour
	off, all     float64                          // calls of the last day, fading

	told       [signals]float64 // the least P told in this window, 0 for none
	first      int64            // when it was first seen
	last       int64            // when it last made a call
	kept       int64            // last, when its baseline was handed over
	surprise   float64          // −log10 of the least P lately
	until      int64            // for as long as that counts
	silent     uint64           // the minutes of silentHour without a call that are still to be scored
	silentHour int64            // counted from 1970
	learned    bool             // something, since its baseline was handed over
	rose       bool             // it did something that raises a bar, since its baseline was handed over
	gone       bool             // there was no room for it any more
}

// learned are the sets of which it matters what is new.
var learned = [...]Set{Clients, Persons, Lodged, Networks, SSIDs, Versions}

// learns tells whether it matters of a subject: one subscription is one software
// ID, and of a network nothing is known but how often it was refused.
func (s Subject) learns(of Set) bool {
	return s.Kind != Network && (s.Kind != Subscription || of != SSIDs && of != Versions)
}

// news is what this minute has brought so far that was not there before. It is
// learnt when the minute is over.
func (p *profile) news(s Subject, learn bool) (f fresh) {
	for _, of := range learned {
		set := &p.minute.Set[of]
		if len(set.least) == 0 || !s.learns(of) {
			continue
		}
		k := &p.known[of]
		var n float64
		if learn {
			n = set.share(func(h uint32) bool { return !k.learn(h) })
			p.fresh[of] += n
		} else {
			n = set.share(func(h uint32) bool { return !k.holds(h) })
		}
		switch of {
		case Persons:
			f.persons = n
		case Lodged:
			f.lodged = n
		case SSIDs:
			f.ssids = n
		case Versions:
			f.versions = n
		case Networks:
			f.networks = n
		}
	}
	return f
}

// backfillMax is how many empty windows a new series is shown.
const backfillMax = 600

// at is the series of a signal. The first value above nothing comes after
// windows in which there was none: these are its past.
func (p *profile) at(c *Scorer, s SignalName, when, step int64, value float64) *Series {
	x := p.series[s]
	if x == nil && value > 0 {
		x = &Series{}
		for i := min(int64(p.idle[s]), backfillMax); i > 0; i-- {
			c.Observe(x, when-i*step, 0)
		}
		p.series[s] = x
	}
	return x
}

// close scores the value of a window that is over, and learns from it.
func (p *profile) close(c *Scorer, s SignalName, when, step int64, value float64) Score {
	x := p.at(c, s, when, step, value)
	if x == nil {
		p.idle[s]++
		return Score{P: 1}
	}
	return c.Observe(x, when, value)
}

// peek scores the value of a window that goes on, and learns nothing.
func (p *profile) peek(c *Scorer, s SignalName, when, step int64, value float64) Score {
	x := p.at(c, s, when, step, value)
	if x == nil {
		return Score{P: 1}
	}
	trial := *x
	return c.Observe(&trial, when, value)
}
