package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/chaos/world"
)

// Fault is one thing that goes wrong in a trial, and when.
type Fault struct {
	At, For time.Duration
	Kind    string // pause, kill, failover, or how a link is broken
	Target  string // process; of a link, the client
	Delay   time.Duration
	// On has the fault wait for a suspension: it begins Lag after the first one,
	// from At on, that is about to be asked for or was answered. A Lag below zero
	// holds the asking up, so that the fault is there before it.
	On  string
	Lag time.Duration
}

func (f Fault) String() string {
	s := fmt.Sprintf("%6.0f ms %-9s %-11s for %4.0f ms", f.At.Seconds()*1e3, f.Kind, f.Target, f.For.Seconds()*1e3)
	if f.Delay > 0 {
		s += fmt.Sprintf(" by %v", f.Delay)
	}
	if f.On != "" {
		s += fmt.Sprintf(", %v after the next suspension is %s", f.Lag, f.On)
	}
	return s
}

const (
	pause    = "pause"
	kill     = "kill"
	failover = "failover"
)

// What a fault may wait for.
const (
	onAsked    = "asked for"
	onAnswered = "answered"
)

// ambushMax is the latest that a fault begins to wait for a suspension.
const ambushMax = 800 * time.Millisecond

// settleGap is how long a process or its links are left alone after a fault.
const settleGap = 300 * time.Millisecond

// schedule makes the faults of a trial of its seed: some at an instant, in the
// order of time, and some that wait for a suspension. Faults may overlap, but
// none is made of what another has in hand.
func schedule(seed uint64, length time.Duration, failovers bool) []Fault {
	rng := rand.New(rand.NewPCG(seed, 0xfa017))
	busy := map[string]bool{}
	// While a primary is looked for nobody can suspend, and so no lease is outlasted.
	outlast := rng.IntN(2) == 0
	failovers = failovers && (!outlast || rng.IntN(4) == 0)
	all := ambushes(rng, outlast, failovers)
	for _, f := range all {
		busy[f.Target] = true // for as long as the trial lasts
	}
	var timed []Fault
	for range 4 + rng.IntN(4) {
		if f := randomFault(rng, length, failovers); !busy[f.Target] {
			timed = append(timed, f)
		}
	}
	// One that begins sooner may have been drawn later.
	slices.SortStableFunc(timed, func(a, b Fault) int { return int(a.At - b.At) })
	until := map[string]time.Duration{}
	for _, f := range timed {
		if f.Kind != failover && f.At < until[f.Target] {
			continue
		}
		until[f.Target] = f.At + f.For + settleGap
		all = append(all, f)
	}
	return all
}

var clients = []string{"control-1", "control-2", "sidecar-1", "sidecar-2", "sidecar-3"}

func pick(rng *rand.Rand, from ...string) string { return from[rng.IntN(len(from))] }

func millis(rng *rand.Rand, low, high int) time.Duration {
	return time.Duration(low+rng.IntN(high-low)) * time.Millisecond
}

// randomFault draws one that happens at an instant, and is over in time.
func randomFault(rng *rand.Rand, length time.Duration, failovers bool) Fault {
	f := Fault{At: time.Duration(rng.Int64N(int64(length * 3 / 4)))}
	switch n := rng.IntN(20); {
	case n < 6:
		f.Kind, f.For = pause, millis(rng, 30, 1600)
		f.Target = pick(rng, append([]string{"envoy-1", "envoy-2", "upstream", "redis-1", "redis-2", "redis-3", "sentinel-1"}, clients...)...)
	case n < 11:
		f.Kind, f.For = kill, millis(rng, 50, 900)
		f.Target = pick(rng, append([]string{"envoy-1", "redis-1", "redis-2", "redis-3", "sentinel-2", "sidecar-1", "sidecar-3"}, clients...)...)
	case n < 13 && failovers:
		f.Kind, f.Target, f.For = failover, pick(rng, "sentinel-1", "sentinel-2", "sentinel-3"), 0
	case n < 15 && failovers:
		// Long enough for the Sentinels to take it for dead.
		f.Kind, f.Target, f.For = pick(rng, pause, kill), "primary", millis(rng, 1500, 2500)
	case n < 17:
		f.Kind, f.Target, f.For, f.Delay = world.Slow, pick(rng, clients...), millis(rng, 300, 2000), millis(rng, 20, 500)
	default:
		f.Kind, f.Target, f.For = pick(rng, world.Cut, world.Silent, world.HalfUp, world.HalfDown, world.Reset, world.Lossy), pick(rng, clients...), millis(rng, 100, 2000)
	}
	f.For = min(f.For, length-f.At)
	return f
}

// ambushes draws what happens on the heels of a suspension.
func ambushes(rng *rand.Rand, outlast, failovers bool) (all []Fault) {
	add := func(f Fault) {
		if !slices.ContainsFunc(all, func(o Fault) bool { return o.Target == f.Target }) {
			f.At = millis(rng, 0, int(ambushMax.Milliseconds()))
			all = append(all, f)
		}
	}
	sidecar := func() string { return pick(rng, "sidecar-1", "sidecar-2", "sidecar-3") }
	// A sidecar that does not hear of it for longer than its longest lease: when it
	// serves on, it is seen to.
	if outlast {
		add(Fault{
			Kind: pick(rng, world.Cut, world.Silent, world.HalfUp, world.HalfDown, world.Reset), Target: sidecar(),
			For: leaseLong + millis(rng, 400, 1200), On: onAsked, Lag: -millis(rng, 1, 50),
		})
	}
	for range 2 {
		switch n := rng.IntN(8); {
		case n < 1: // one that is stopped while it should take it, and goes on
			add(Fault{Kind: pause, Target: sidecar(), For: millis(rng, 20, 1500), On: onAsked, Lag: millis(rng, -5, 6)})
		case n < 4: // what Envoy has in hand meanwhile
			add(Fault{Kind: pause, Target: pick(rng, "envoy-1", "envoy-2"), For: millis(rng, 10, 600), On: onAsked, Lag: millis(rng, -20, 10)})
		case n < 5: // the writer, between the commit and its answer
			add(Fault{Kind: pick(rng, pause, kill), Target: pick(rng, "control-1", "control-2"), For: millis(rng, 100, 1800), On: onAsked, Lag: millis(rng, 0, 12)})
		case n < 6:
			add(Fault{Kind: pause, Target: "upstream", For: millis(rng, 10, 600), On: onAsked, Lag: millis(rng, -10, 10)})
		case failovers: // the primary, as soon as it has said that it is done
			add(Fault{Kind: pick(rng, pause, kill), Target: "primary", For: millis(rng, 1500, 2500), On: pick(rng, onAnswered, onAsked), Lag: millis(rng, 0, 10)})
		}
	}
	return all
}

func describe(all []Fault) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintln(&b, f)
	}
	return b.String()
}
