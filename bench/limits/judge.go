package main

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/dspgate/dspgate/bench/report"
)

// tally is how one design did in one run.
type tally struct {
	workload string
	load     float64
	design   int
	rate     float64

	offered, ideal, passed, calls int
	idealUp, passedUp             int     // the same while Redis was there
	over                          float64 // requests beyond the strict bucket, at worst
}

// judge reads every log of a run in the order of time.
func judge(s spec) ([]tally, error) {
	files, err := filepath.Glob(filepath.Join(s.Dir, "log-*"))
	if err != nil {
		return nil, err
	}
	verdicts := make([][]record, len(names))
	calls := make([]int, len(names))
	for _, file := range files {
		last := make([]int, len(names))
		err := readLog(file, func(r record) {
			if r.Kind >= callsOf {
				last[r.Kind-callsOf] = int(r.Passed)
			} else {
				verdicts[r.Kind] = append(verdicts[r.Kind], r)
			}
		})
		if err != nil {
			return nil, err
		}
		for i, n := range last {
			calls[i] += n
		}
	}
	out := make([]tally, len(names))
	for i := range names {
		t := &out[i]
		*t = tally{workload: s.Workload, load: s.Load, design: i, rate: s.Rate, calls: calls[i]}
		slices.SortStableFunc(verdicts[i], func(a, b record) int { return int(a.At - b.At) })
		if t.offered = len(verdicts[i]); t.offered == 0 {
			return nil, errNobody
		}
		ideal, strict := newBucket(s), newBucket(s)
		for _, r := range verdicts[i] {
			if ideal.advance(r.At); ideal.level >= 1 {
				ideal.level--
				t.ideal++
				t.idealUp += up(s, r.At)
			}
			if strict.advance(r.At); r.Passed == 1 {
				t.passed++
				t.passedUp += up(s, r.At)
				strict.level--
				t.over = max(t.over, -strict.level)
			}
		}
	}
	return out, nil
}

// up is 1 for instants outside the outage and the second after it.
func up(s spec, at time.Duration) int {
	if at -= s.Begin; at >= s.OutageAt && at < s.OutageAt+s.Outage+time.Second {
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

func newBucket(s spec) bucket {
	return bucket{level: float64(s.Burst), rate: s.Rate, burst: float64(s.Burst), at: s.Begin}
}

func (b *bucket) advance(at time.Duration) {
	b.level = min(b.level+(at-b.at).Seconds()*b.rate, b.burst)
	b.at = at
}

// overPct is the worst overdraft in per cent of what a second allows.
func (t *tally) overPct() float64 {
	if t.over < 1e-3 { // a thousandth of a request: clocks of processes differ by a microsecond
		return 0
	}
	return 100 * t.over / t.rate
}

func (t *tally) falsePct() float64 {
	return 100 * max(float64(t.ideal-t.passed), 0) / float64(t.ideal)
}

func (t *tally) falseUpPct() float64 {
	return 100 * max(float64(t.idealUp-t.passedUp), 0) / float64(t.idealUp)
}

func (t *tally) row() map[string]any {
	return map[string]any{
		"workload": t.workload, "load": t.load, "design": names[t.design], "offered": t.offered, "ideal": t.ideal, "passed": t.passed,
		"over_pct": t.overPct(), "false_denial_pct": t.falsePct(), "false_denial_up_pct": t.falseUpPct(), "redis_calls_per_request": float64(t.calls) / float64(t.offered),
	}
}

// figures sums up: the worst over-admission of any run, what was denied falsely
// over all of them, and the most calls a request below the limit and at twice.
func figures(rep *report.Report, all []tally) {
	for d, name := range []string{"", "gcra_", "chunk_", "report_"} {
		var over, worst, below, twice float64
		var ideal, missed, idealUp, missedUp, offered, calls int
		for i := range all {
			t := &all[i]
			if t.design != d {
				continue
			}
			over, worst = max(over, t.overPct()), max(worst, t.falsePct())
			ideal, missed = ideal+t.ideal, missed+max(t.ideal-t.passed, 0)
			idealUp, missedUp = idealUp+t.idealUp, missedUp+max(t.idealUp-t.passedUp, 0)
			offered, calls = offered+t.offered, calls+t.calls
			perRequest := float64(t.calls) / float64(t.offered)
			switch {
			case t.load < 1:
				below = max(below, perRequest)
			case t.load >= 2:
				twice = max(twice, perRequest)
			}
		}
		rep.Figures[name+"over_pct"] = over
		rep.Figures[name+"false_denial_pct"] = 100 * float64(missed) / float64(ideal)
		rep.Figures[name+"false_denial_up_pct"] = 100 * float64(missedUp) / float64(idealUp)
		rep.Figures[name+"false_denial_worst_pct"] = worst
		rep.Figures[name+"redis_calls_per_request"] = float64(calls) / float64(offered)
		rep.Figures[name+"redis_calls_per_request_below"] = below
		rep.Figures[name+"redis_calls_per_request_twice"] = twice
	}
}
