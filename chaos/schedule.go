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
}

func (f Fault) String() string {
	s := fmt.Sprintf("%6.0f ms %-9s %-11s for %4.0f ms", f.At.Seconds()*1e3, f.Kind, f.Target, f.For.Seconds()*1e3)
	if f.Delay > 0 {
		s += fmt.Sprintf(" by %v", f.Delay)
	}
	return s
}

const (
	pause    = "pause"
	kill     = "kill"
	failover = "failover"
)

// schedule makes the faults of a trial of its seed, in the order of time.
// Faults may overlap, but no process is chosen twice at once.
func schedule(seed uint64, length time.Duration, failovers bool) []Fault {
	rng := rand.New(rand.NewPCG(seed, 0xfa017))
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	millis := func(low, high int) time.Duration {
		return time.Duration(low+rng.IntN(high-low)) * time.Millisecond
	}
	clients := []string{"control-1", "control-2", "sidecar-1", "sidecar-2", "sidecar-3"}
	busy := map[string]time.Duration{} // until when
	var all []Fault
	for range 5 + rng.IntN(4) {
		f := Fault{At: time.Duration(rng.Int64N(int64(length * 3 / 4)))}
		switch n := rng.IntN(20); {
		case n < 6:
			f.Kind, f.Target, f.For = pause, pick(append(clients, "envoy-1", "envoy-2", "upstream", "redis-1", "redis-2", "redis-3", "sentinel-1")...), millis(30, 1600)
		case n < 11:
			f.Kind, f.Target, f.For = kill, pick(append(clients, "envoy-1", "redis-1", "redis-2", "redis-3", "sentinel-2", "sidecar-1", "sidecar-3")...), millis(50, 900)
		case n < 13 && failovers:
			f.Kind, f.Target, f.For = failover, pick("sentinel-1", "sentinel-2", "sentinel-3"), 0
		case n < 15 && failovers:
			// Long enough for the Sentinels to take it for dead.
			f.Kind, f.Target, f.For = pick(pause, kill), "primary", millis(1500, 2500)
		case n < 17:
			f.Kind, f.Target, f.For, f.Delay = world.Slow, pick(clients...), millis(300, 2000), millis(20, 500)
		default:
			f.Kind, f.Target, f.For = pick(world.Cut, world.Silent, world.HalfUp, world.HalfDown), pick(clients...), millis(100, 2000)
		}
		f.For = min(f.For, length-f.At)
		if f.Kind != failover && f.At < busy[f.Target] {
			continue
		}
		busy[f.Target] = f.At + f.For + 300*time.Millisecond
		all = append(all, f)
	}
	// One that begins sooner may have been drawn later.
	slices.SortStableFunc(all, func(a, b Fault) int { return int(a.At - b.At) })
	var kept []Fault
	clear(busy)
	for _, f := range all {
		if f.Kind != failover && f.At < busy[f.Target] {
			continue
		}
		busy[f.Target] = f.At + f.For + 300*time.Millisecond
		kept = append(kept, f)
	}
	return kept
}

func describe(all []Fault) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintln(&b, f)
	}
	return b.String()
}
