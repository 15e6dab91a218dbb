package main

import (
	"slices"
	"time"

	"github.com/dspgate/dspgate/bench/report"
)

// tally is how one design did in one run.
type tally struct {
	spec
	design int

	offered, ideal, passed, failed int
	calls                          int64
	idealUp, passedUp              int // the same while Redis was there and nobody was killed
	p50, p99                       time.Duration
	// over is how much the strict bucket was overdrawn, at worst: by arrivals at the
	// upstream, and by the instants of the decisions, where those are known.
	over, overDecided float64
}

// judge holds what arrived against what one bucket would have let pass of what
// was asked for, and against a strict bucket, which is overdrawn exactly when
// some window saw more than rate × window + burst.
func judge(s spec, design int, d *driver, arrived []arrival, calls int64) tally {
	t := tally{spec: s, design: design, offered: len(d.asked), passed: len(arrived), failed: d.failed, calls: calls}
	slices.Sort(d.asked)
	ideal := newBucket(s, s.begin)
	for _, at := range d.asked {
		if ideal.advance(at); ideal.level >= 1 {
			ideal.level--
			t.ideal++
			t.idealUp += s.quiet(at)
		}
	}
	slices.SortFunc(arrived, func(a, b arrival) int { return int(a.At - b.At) })
	strict := newBucket(s, s.begin)
	for _, a := range arrived {
		t.passedUp += s.quiet(a.At)
		strict.advance(a.At)
		strict.level--
		t.over = max(t.over, -strict.level)
	}
	if design == ours {
		t.overDecided = overdrawnByDecisions(s, arrived)
	}
	if n := len(d.latency); n > 0 {
		slices.Sort(d.latency)
		t.p50, t.p99 = d.latency[n/2], d.latency[n*99/100]
	}
	return t
}

// overdrawnByDecisions is the same by the instants in decision IDs, which are
// whole milliseconds: what one of them allows is none of the sidecars' doing.
func overdrawnByDecisions(s spec, arrived []arrival) (over float64) {
	at := make([]int64, len(arrived))
	for i, a := range arrived {
		at[i] = a.Decided
	}
	slices.Sort(at)
	if len(at) == 0 {
		return 0
	}
	b := newBucket(s, 0)
	for _, ms := range at {
		b.advance(time.Duration(ms-at[0]) * time.Millisecond)
		b.level--
		over = max(over, -b.level-s.Rate/1000)
	}
	return over
}

// quiet is 1 for instants when nothing was wrong: not in the outage and the two
// seconds after it, nor in those after the kill.
func (s *spec) quiet(at time.Duration) int {
	at -= s.begin
	if at >= s.OutageAt && at < s.OutageAt+s.Outage+2*time.Second || at >= s.KillAt && at < s.KillAt+2*time.Second {
		return 0
	}
	return 1
}

// bucket refills at the rate up to the burst. Unlike a limiter's it may be
// overdrawn: by as much as some window saw too many.
type bucket struct {
	level, rate, burst float64
	at                 time.Duration
}

func newBucket(s spec, at time.Duration) bucket {
	return bucket{level: float64(s.Burst), rate: s.Rate, burst: float64(s.Burst), at: at}
}

func (b *bucket) advance(at time.Duration) {
	b.level = min(b.level+(at-b.at).Seconds()*b.rate, b.burst)
	b.at = at
}

func pct(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * part / whole
}

func (t *tally) missed() int { return max(t.ideal-t.passed, 0) }

func (t *tally) perRequest() float64 { return float64(t.calls) / float64(max(t.offered, 1)) }

func (t *tally) row() map[string]any {
	return map[string]any{
		"workload": t.Workload, "load": t.Load, "design": designNames[t.design], "offered": t.offered, "ideal": t.ideal, "passed": t.passed, "failed": t.failed,
		"over_pct": pct(t.over, t.Rate), "over_decided_pct": pct(t.overDecided, t.Rate),
		"false_denial_pct": pct(float64(t.missed()), float64(t.ideal)), "false_denial_up_pct": pct(float64(max(t.idealUp-t.passedUp, 0)), float64(t.idealUp)),
		"redis_calls_per_request": t.perRequest(), "p50_ms": float64(t.p50.Microseconds()) / 1000, "p99_ms": float64(t.p99.Microseconds()) / 1000,
	}
}

// figures sums up: the worst over-admission of any run, what was denied falsely
// over all of them, and the most calls a request below the limit and at twice.
func figures(rep *report.Report, all []tally) {
	for d, name := range [designs]string{"", "gcra_", "chunk_", "report_"} {
		var over, decided, worst, below, twice float64
		var ideal, missed, idealUp, missedUp, offered int
		var calls int64
		for i := range all {
			t := &all[i]
			if t.design != d {
				continue
			}
			over, decided = max(over, pct(t.over, t.Rate)), max(decided, pct(t.overDecided, t.Rate))
			worst = max(worst, pct(float64(t.missed()), float64(t.ideal)))
			ideal, missed = ideal+t.ideal, missed+t.missed()
			idealUp, missedUp = idealUp+t.idealUp, missedUp+max(t.idealUp-t.passedUp, 0)
			offered, calls = offered+t.offered, calls+t.calls
			switch {
			case t.Load < 1:
				below = max(below, t.perRequest())
			case t.Load >= 2:
				twice = max(twice, t.perRequest())
			}
		}
		if offered == 0 {
			continue
		}
		rep.Figures[name+"over_pct"] = over
		if d == ours {
			rep.Figures["over_decided_pct"] = decided
		}
		rep.Figures[name+"false_denial_pct"] = pct(float64(missed), float64(ideal))
		rep.Figures[name+"false_denial_up_pct"] = pct(float64(missedUp), float64(idealUp))
		rep.Figures[name+"false_denial_worst_pct"] = worst
		rep.Figures[name+"redis_calls_per_request"] = float64(calls) / float64(offered)
		rep.Figures[name+"redis_calls_per_request_below"] = below
		rep.Figures[name+"redis_calls_per_request_twice"] = twice
	}
}
