package authz_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The simulation runs the production mirror, lease, roll, commands, decisions
// and stamps over a store in memory, in fake time, with everything around them
// misbehaving at random: links that are cut, slow, or lose replies; sidecars
// that are killed, paused, started anew and join late; control planes that
// crash, are cut off and deposed; a store that fails over and loses its end, or
// whose clock jumps. It judges by what it sees from outside: what each sidecar
// allowed, what arrived at the upstream, and what the operator was told.
//
// P1: after a suspension was answered as complete, no sidecar allows a call of
// its subject. P2: none arrives at the upstream. P3: otherwise whoever allows
// one was named as pending, and does so before the instant named. P4: once the
// faults have ended, everybody follows again without anybody's help.
//
// One random source for each actor, seeded by the seed and the actor's name: a
// failing seed is printed and replays.

var (
	simSeeds = flag.Int("sim.seeds", 300, "how many lives the simulation runs")
	simSeed  = flag.Int64("sim.seed", -1, "run this seed alone")
)

func TestFenceHoldsInSimulation(t *testing.T) {
	if *simSeed >= 0 {
		runSeeds(t, uint64(*simSeed), 1, 1, fault{})
		return
	}
	if testing.Short() {
		*simSeeds = min(*simSeeds, 30) // ten times slower under the race detector
	}
	if bad := runSeeds(t, 0, *simSeeds, runtime.GOMAXPROCS(0), fault{}); len(bad) > 0 {
		t.Errorf("%d seeds failed: replay one by make sim SEED=%d", len(bad), bad[0])
	}
}

// TestEveryPlantedFaultIsCaught breaks one thing at a time; the simulation
// must notice each within so many seeds.
func TestEveryPlantedFaultIsCaught(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			for from := 0; from < f.within; from += 50 {
				var first string
				for seed := range 50 {
					if first = simulateSeed(t, uint64(from+seed), f); first != "" {
						t.Logf("caught at seed %d: %s", from+seed, first)
						return
					}
				}
			}
			t.Errorf("not caught within %d seeds", f.within)
		})
	}
}

// A failing seed is worth nothing when it does not fail again.
func TestASeedReplaysExactly(t *testing.T) {
	for seed := range uint64(20) {
		first, bad1 := simulateLife(t, seed, fault{})
		second, bad2 := simulateLife(t, seed, fault{})
		if first != second || bad1 != bad2 {
			t.Errorf("seed %d: %+v %s, then %+v %s", seed, first, bad1, second, bad2)
		}
	}
}

// runSeeds runs lives on so many workers and returns the seeds that failed.
func runSeeds(t *testing.T, from uint64, n, workers int, f fault) (bad []uint64) {
	var mu sync.Mutex
	next := from
	var wg sync.WaitGroup
	var total tally
	for range workers {
		wg.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				done := seed >= from+uint64(n) || len(bad) >= 3
				mu.Unlock()
				if done {
					return
				}
				l, err := simulateLife(t, seed, f)
				mu.Lock()
				total.add(l)
				if err != "" {
					t.Errorf("seed %d: %s", seed, err)
					bad = append(bad, seed)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds: %+v", n, total)
	// A simulation in which nothing happens proves nothing.
	if n >= 100 && (total.Complete < n || total.Incomplete < n/10 || total.Allowed < 10*n || total.Refused < 10*n || total.Failovers < n/10 || total.Lapsed == 0 || total.Reasserted == 0 || total.Deposed == 0 || n >= 300 && total.Superseded == 0) {
		t.Errorf("too little happened in %d seeds: %+v", n, total)
	}
	return bad
}

func simulateSeed(t *testing.T, seed uint64, f fault) string {
	_, err := simulateLife(t, seed, f)
	return err
}

// simulateLife runs one seed in a bubble of its own.
func simulateLife(t *testing.T, seed uint64, f fault) (counts tally, violation string) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, seed, f)
		w.run()
		counts, violation = w.counts, strings.Join(w.judge(), "; ")
		if violation != "" && *simSeed >= 0 {
			fmt.Fprintln(os.Stderr, w.history())
		}
	})
	return counts, violation
}

// tally counts what happened.
type tally struct {
	Complete, Incomplete, Refusals   int // answers to suspensions
	Lapsed, Reasserted               int
	Allowed, Refused, Arrived        int // calls
	Failovers, Joins, Kills, Pauses  int
	Deposed, Superseded              int // revisions that a deposed primary told of, and that were gone past
	ControlCrashes, Losses, Returned int
}

func (a *tally) add(b tally) {
	a.Complete += b.Complete
	a.Incomplete += b.Incomplete
	a.Refusals += b.Refusals
	a.Lapsed += b.Lapsed
	a.Reasserted += b.Reasserted
	a.Allowed += b.Allowed
	a.Refused += b.Refused
	a.Arrived += b.Arrived
	a.Failovers += b.Failovers
	a.Deposed += b.Deposed
	a.Superseded += b.Superseded
	a.Joins += b.Joins
	a.Kills += b.Kills
	a.Pauses += b.Pauses
	a.ControlCrashes += b.ControlCrashes
	a.Losses += b.Losses
	a.Returned += b.Returned
}

const (
	simShort, simLong = time.Second, 2 * time.Second
	simSpan           = 8 * time.Second
	// simRecovery is how long it may take until all is well: whoever was killed has
	// lapsed, the claim has changed hands, the new writer has held off, and a load
	// that was begun in silence was begun again.
	simRecovery = 6 * time.Second
)
