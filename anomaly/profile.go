package anomaly

// profile is what the fleet's watcher knows of one subject: a Series for each
// signal, made when the signal is first more than nothing.
type profile struct {
	series [firstRule]*Series
	idle   [firstRule]uint32 // closed windows before there was a series

	minute, hour Tally
	known        [sets]known
	fresh        [sets]float64 // never seen before, in this hour
	mix          mix
	off, all     float64 // calls of the last day, fading

	told     [signals]float64 // the least P told in this window, 0 for none
	first    int64            // when it was first seen
	last     int64            // when it last made a call
	kept     int64            // last, when its baseline was handed over
	surprise float64          // −log10 of the least P lately
	until    int64            // for as long as that counts
}

// learned are the sets of which it matters what is new.
var learned = [...]Set{Clients, Persons, Networks}

// learnKnown counts what this minute has brought that was not there before.
func (p *profile) learnKnown() {
	for _, s := range learned {
		if len(p.minute.Set[s].least) == 0 {
			continue
		}
		k := &p.known[s]
		p.fresh[s] += p.minute.Set[s].share(func(h uint32) bool { return !k.learn(h) })
	}
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
