package main

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
)

// run is one life of the world, seen by production code alone: a Collector in
// each sidecar, their Reports as they travel, one Watcher.
type run struct {
	o          options
	zone       *time.Location
	world      *world
	watcher    *anomaly.Watcher
	collectors []*anomaly.Collector
	attacks    []*attack
	owner      map[anomaly.Hash]string // of a subscription's hash, the product
	busy       map[string]*attack      // by the product under attack

	policies *policy.Evaluator
	decision uint64
	names    []string // of the sidecars
	wire     []byte   // a report on its way
	restarts []restart
	kept     map[anomaly.Subject][]byte // baselines, as of the last time some were
	keptAll  []byte                     // the same of what is known of all
	last     map[string]int64           // false alarm of a product
	sent     []call                     // of this minute
	out      outcome
}

type call struct {
	at int64
	o  anomaly.Observation
	f  anomaly.Finished
	by *attack
}

// outcome is what came of it.
type outcome struct {
	Calls       uint64
	Cut         bool    // it was ended before its time
	Restarts    int     // of the watcher
	Subjects    int     // that it had a past of at the end
	Bytes       uint64  // of memory that they take, together
	Refused     uint64  // that there was no room for
	Signals     int     // told that are no alarms
	Products    int     // benign
	Months      float64 // of products watched
	FalseCases  int     // alarms of a product nobody attacked, one a day
	FalseAlarms int     // each of them
	Suspended   int     // times twoAlarms would have suspended somebody for nothing
	Contained   int     // attacks it would have suspended
	False       []string
	Attacks     []*attack
}

// goesOn is for how long an attack goes on after it was told: what a policy
// wants to see twice must have time to come.
const goesOn = 120

// step is how often sidecars report.
const step = 10

func newRun(o options, attackSeed uint64) (*run, error) {
	zone, err := time.LoadLocation("Australia/Sydney")
	if err != nil {
		return nil, err
	}
	begin := o.begin.In(zone)
	begin = time.Date(begin.Year(), begin.Month(), begin.Day(), 0, 0, 0, 0, zone)
	x := &run{o: o, zone: zone, owner: map[anomaly.Hash]string{}, last: map[string]int64{}, busy: map[string]*attack{}}
	x.world = newWorld(o.seed, o.products, begin.Unix(), zone)
	x.watcher = x.newWatcher()
	for i := range o.sidecars {
		x.names = append(x.names, fmt.Sprint("sc-", i))
		x.collectors = append(x.collectors, anomaly.NewCollector(anomaly.CollectorConfig{Zone: zone}))
	}
	x.policies = policy.NewEvaluator(policy.Active{Policy: "two-alarms", Version: 1, Rule: twoAlarms})
	measured := begin.AddDate(0, 0, o.lead).Unix()
	x.attacks = newAttacks(x.world, attackSeed, o.attacks, measured, begin.AddDate(0, 0, o.lead+o.days).Unix())
	for _, a := range x.attacks {
		x.busy[a.victim.id] = a
	}
	// Newcomers that mean well come in the measured time.
	for i := range o.products / 20 {
		born := measured + int64(x.world.r.Float64()*float64(o.days)*86400)
		x.world.products = append(x.world.products, x.world.newProduct(fmt.Sprintf("FP-8%03d", i), born))
	}
	x.restarts = newRestarts(x.world.r, begin.Unix(), o.lead+o.days)
	return x, nil
}

// newWatcher is as the control plane makes it, with room for all.
func (x *run) newWatcher() *anomaly.Watcher {
	return anomaly.NewWatcher(anomaly.WatcherConfig{Subjects: max(4096, subjectsEach*x.o.products), Zone: x.zone})
}

// subjectsEach is for how many subjects a product there is room.
const subjectsEach = 40

// live goes through all minutes, or until progress, which hears of every day,
// says no more.
func (x *run) live(progress func(day int) bool) outcome {
	begin := time.Unix(x.world.begin, 0).In(x.zone)
	measured := begin.AddDate(0, 0, x.o.lead).Unix()
	end := begin.AddDate(0, 0, x.o.lead+x.o.days).Unix()
	x.out.Products = len(x.world.products)
	for at := begin.Unix(); at < end; at += 60 {
		if (at-begin.Unix())%86400 == 0 {
			if !progress(int(at-begin.Unix()) / 86400) {
				x.out.Cut, end = true, at
				break
			}
		}
		x.restart(at)
		x.minute(at, at >= measured)
	}
	for _, a := range x.attacks {
		if !x.out.Cut || a.told != 0 || a.start+a.shape.lasts() <= end {
			x.out.Attacks = append(x.out.Attacks, a)
		}
	}
	stats := x.watcher.Stats()
	x.out.Subjects, x.out.Refused = stats.Subjects, x.out.Refused+stats.Refused
	held := heap()
	x.watcher = nil
	x.out.Bytes = held - min(held, heap())
	x.out.Months = x.months(measured, max(end, measured+1))
	return x.out
}

// minute is one of the world's, in steps of a report each.
func (x *run) minute(at int64, measured bool) {
	x.sent = x.sent[:0]
	var by *attack
	record := func(at int64, o *anomaly.Observation, f *anomaly.Finished) {
		x.sent = append(x.sent, call{at, *o, *f, by})
	}
	x.world.minute(time.Unix(at, 0).In(x.zone), record)
	for _, by = range x.attacks {
		if by.told == 0 || at < by.told+goesOn {
			by.minute(x.world, at, record)
		}
	}
	slices.SortStableFunc(x.sent, func(a, b call) int { return cmp.Compare(a.at, b.at) })
	next := 0
	for s := at; s < at+60; s += step {
		for ; next < len(x.sent) && x.sent[next].at < s+step; next++ {
			if c := &x.sent[next]; c.by == nil || c.by.told == 0 || s < c.by.told+goesOn {
				x.call(c)
			}
		}
		x.report(s, step)
		x.tick(s+step+1, measured)
	}
}

func (x *run) call(c *call) {
	x.decision++
	x.out.Calls++
	c.o.Decision = x.decision
	to := x.collectors[x.world.r.IntN(len(x.collectors))]
	to.Observe([]anomaly.Observation{c.o})
	if c.o.Outcome == anomaly.Allowed {
		c.f.Decision = x.decision
		to.Finish(c.f)
	}
	if c.by != nil && c.by.told == 0 && c.o.Outcome == anomaly.Allowed {
		c.by.let++
	}
	if c.o.Subscription != (anomaly.Hash{}) {
		x.owner[c.o.Subscription] = c.o.Product
	}
}

// report has every sidecar report, in the bytes that would travel.
func (x *run) report(from int64, seconds uint32) {
	for i, c := range x.collectors {
		r := anomaly.Report{Sidecar: x.names[i], From: from, Seconds: seconds, Subjects: c.Take()}
		x.wire = r.AppendBinary(x.wire[:0])
		var sent anomaly.Report
		if err := sent.UnmarshalBinary(x.wire); err != nil {
			panic(err) // what our own encoder wrote
		}
		x.watcher.Merge(&sent)
	}
}

func (x *run) tick(now int64, measured bool) {
	for _, s := range x.watcher.Tick(time.Unix(now, 0)) {
		if !measured {
			continue
		}
		if !s.Name.Alarm() {
			x.out.Signals++
			continue
		}
		x.judge(now, s)
	}
}

// twoAlarms is the rule that suspends here: two different alarms within an hour.
var twoAlarms = policy.Rule{
	When: policy.Condition{Signals: []string{"harvest", "sweep", "rush", "fan-out", "newcomer", "churn", "elsewhere"}, Signs: 2, Within: 60},
	Then: policy.Countermeasure{Do: policy.Suspend, Minutes: 240},
}

// productOf is whose a subject is.
func (x *run) productOf(s anomaly.Subject) string {
	switch s.Kind {
	case anomaly.ClientApp:
		return strings.TrimSuffix(s.ID, "-app")
	case anomaly.Subscription:
		var h anomaly.Hash
		if _, err := hex.Decode(h[:], []byte(s.ID)); err != nil {
			return ""
		}
		return x.owner[h]
	}
	return s.ID
}

// aftermath is for how long after an attack what is told of its victim is its own.
const aftermath = 86400

// judge takes an alarm for that of an attack, or for a false one.
func (x *run) judge(now int64, s anomaly.Signal) {
	id := x.productOf(s.Subject)
	suspends := len(x.policies.See(s, policy.Facts{Product: id})) > 0
	if a := x.busy[id]; a != nil && now >= a.start && now < a.start+a.shape.lasts()+aftermath {
		if a.told == 0 && !a.over(now-60) {
			a.told, a.by = now, s.Subject.Kind.String()+" "+s.Name.String()
		}
		if suspends && !a.suspended {
			a.suspended = true
			x.out.Contained++
		}
		return
	}
	if suspends {
		x.out.Suspended++
	}
	x.out.FalseAlarms++
	if now-x.last[id] >= 86400 || x.last[id] == 0 {
		x.last[id] = now
		x.out.FalseCases++
	}
	if len(x.out.False) < 100 {
		around := ""
		for _, p := range x.world.products {
			if p.id == id {
				around = x.world.around(p, now)
			}
		}
		x.out.False = append(x.out.False, fmt.Sprintf("%s %s %s (%s)", time.Unix(now, 0).In(x.zone).Format("Mon 2006-01-02 15:04"), id, s.Text(), around))
	}
}

// toldSoFar is how many attacks were.
func (x *run) toldSoFar() (n int) {
	for _, a := range x.attacks {
		if a.told != 0 {
			n++
		}
	}
	return n
}

// months is for how long benign products were watched.
func (x *run) months(measured, end int64) float64 {
	seconds := int64(0)
	for _, p := range x.world.products {
		seconds += max(0, end-max(measured, p.born))
		if a := x.busy[p.id]; a != nil {
			seconds -= max(0, min(end-a.start, a.shape.lasts()+aftermath))
		}
	}
	return float64(seconds) / (365.25 / 12 * 86400)
}

// heap is how much memory is in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
