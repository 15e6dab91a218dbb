package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/chaos/world"
)

// trial is one schedule of faults in a world, and what was seen meanwhile.
type trial struct {
	*place
	seed   uint64
	faults []Fault
	began  time.Time

	mu      sync.Mutex // guards what follows
	waiting []Fault    // for a suspension
	sprung  int        // of those, begun and not over
	hurt    int        // faults that happened
	history History
	log     strings.Builder
	said    string         // last in the log
	again   int            // how often more
	springs sync.WaitGroup // faults that waited for a suspension
}

// stats is what a trial did, for the summary.
type stats struct {
	requests, allowed, arrivals, suspensions, complete, lapsed, lifts, faults, failovers int
}

func (s *stats) add(o stats) {
	s.requests += o.requests
	s.allowed += o.allowed
	s.arrivals += o.arrivals
	s.suspensions += o.suspensions
	s.complete += o.complete
	s.lapsed += o.lapsed
	s.lifts += o.lifts
	s.faults += o.faults
	s.failovers += o.failovers
}

// trial lets the faults of a seed happen under traffic, heals the world, and
// judges what was seen. A failing trial's logs are kept, in a folder that the
// result names.
func (p *place) trial(ctx context.Context, seed uint64) *result {
	t := &trial{place: p, seed: seed, faults: schedule(seed, p.o.length, p.o.failovers), began: time.Now()}
	r := &result{seed: seed}
	if r.err = t.run(ctx); r.err == nil {
		r.err = t.readArrivals()
	}
	if r.err == nil {
		r.found = Judge(&t.history, t.limits())
	}
	r.did = t.count()
	if (r.failed() || p.o.always) && ctx.Err() == nil {
		kept, err := t.save(r.found)
		if r.kept = kept; err != nil {
			t.say("logs not kept: %v", err)
		}
	}
	return r
}

func (t *trial) limits() Limits {
	l := Limits{
		Stamp: admission.DefaultValidity + admission.DefaultSkew,
		// The lease, its margin, and what may pass between the poll and the answer.
		Exposure:   leaseLong*101/100 + time.Second,
		SidecarsOf: map[int][]string{},
	}
	for i := range t.world.Envoys {
		l.SidecarsOf[i] = t.world.SidecarsOf(i)
	}
	return l
}

func (t *trial) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	what := fmt.Sprintf(format, args...)
	if what == t.said { // again and again, while a writer is looked for
		t.again++
		return
	}
	if t.again > 0 {
		fmt.Fprintf(&t.log, "          (%d times more)\n", t.again)
	}
	t.said, t.again = what, 0
	fmt.Fprintf(&t.log, "%6d ms %s\n", time.Since(t.began).Milliseconds(), what)
}

// run is the trial itself.
func (t *trial) run(ctx context.Context) error {
	if err := t.serving(ctx); err != nil {
		return err
	}
	t.say("all is up")
	t.began = time.Now()
	sending, stopSending := context.WithCancel(ctx)
	defer stopSending()
	operating, stopOperating := context.WithTimeout(ctx, t.o.length)
	defer stopOperating()
	var senders, operators, breakers sync.WaitGroup
	for _, c := range traffic() {
		for e := range t.world.Envoys {
			senders.Go(func() { t.requests(sending, c, e, 30*time.Millisecond) })
		}
	}
	for _, f := range t.faults {
		if f.On != "" {
			t.waiting = append(t.waiting, f)
			continue
		}
		breakers.Go(func() {
			wait(ctx, f.At)
			t.fault(ctx, f)
		})
	}
	for i, p := range products() {
		rng := rand.New(rand.NewPCG(t.seed, uint64(i)))
		operators.Go(func() { t.operate(operating, p, rng) })
	}
	breakers.Wait()
	operators.Wait()
	t.springs.Wait()
	t.say("healing")
	t.heal(ctx)
	t.finals(ctx)
	stopSending()
	senders.Wait()
	return ctx.Err()
}

// serving waits until every product passes on every way, and lifts what an
// earlier trial left suspended.
func (t *trial) serving(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.o.healWithin())
	defer cancel()
	for _, c := range traffic() {
		for e := range t.world.Envoys {
			for {
				r := t.request(ctx, c, e)
				if r.Status == 200 {
					break
				}
				if r.Code == "product-suspended" {
					t.liftAll(ctx, c.product)
				}
				if wait(ctx, 50*time.Millisecond); ctx.Err() != nil {
					return fmt.Errorf("%s is not let through Envoy %d at the start: %d %s", c.product, e+1, r.Status, r.Code)
				}
			}
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// spring begins the faults that waited for a suspension to come this far, and
// holds the operator up for those that are to be there before it.
func (t *trial) spring(ctx context.Context, on string) {
	t.mu.Lock()
	var now, later []Fault
	for _, f := range t.waiting {
		if f.On == on && time.Since(t.began) >= f.At {
			now = append(now, f)
		} else {
			later = append(later, f)
		}
	}
	t.waiting = later
	t.sprung += len(now)
	t.mu.Unlock()
	var hold time.Duration
	for _, f := range now {
		hold = max(hold, -f.Lag)
		t.springs.Go(func() {
			wait(ctx, max(f.Lag, 0))
			t.fault(ctx, f)
			t.mu.Lock()
			t.sprung--
			t.mu.Unlock()
		})
	}
	if hold > 0 {
		wait(ctx, hold)
	}
}

// ambushed tells whether a fault waits for a suspension, or is on since one.
func (t *trial) ambushed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting)+t.sprung > 0
}

// fault does one fault, and undoes it.
func (t *trial) fault(ctx context.Context, f Fault) {
	t.say("%s %s for %v", f.Kind, f.Target, f.For)
	t.mu.Lock()
	t.hurt++
	t.mu.Unlock()
	switch f.Kind {
	case failover:
		n, _ := strconv.Atoi(strings.TrimPrefix(f.Target, "sentinel-"))
		if err := t.world.Failover(ctx, n-1); err != nil {
			t.say("failover: %v", err)
		}
		return
	case pause, kill:
		p := t.process(ctx, f.Target)
		if p == nil {
			t.say("no primary to %s", f.Kind)
			return
		}
		if f.Kind == pause {
			p.Pause()
			wait(ctx, f.For)
			p.Resume()
			return
		}
		p.Kill()
		wait(ctx, f.For)
		if err := p.Restart(); err != nil {
			t.end("%v", err)
		}
		return
	}
	links := t.links(f.Target)
	for _, l := range links {
		if err := l.Break(f.Kind, f.Delay); err != nil {
			t.say("%v", err)
		}
	}
	wait(ctx, f.For)
	for _, l := range links {
		if err := l.Heal(ctx); err != nil {
			t.say("%v", err)
		}
	}
	t.say("%s of %s is over", f.Kind, f.Target)
}

func (t *trial) process(ctx context.Context, name string) *world.Process {
	if name == "primary" {
		if p := t.world.Primary(ctx); p != nil {
			return p.Process
		}
		return nil
	}
	for _, p := range t.world.Processes() {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (t *trial) links(client string) []*world.Link {
	for _, n := range append(append([]*world.Node{}, t.world.Controls...), t.world.Sidecars...) {
		if n.Name == client {
			return n.Links
		}
	}
	return nil
}

func (t *trial) end(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.history.Ends = append(t.history.Ends, fmt.Sprintf(format, args...))
}
