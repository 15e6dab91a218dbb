// Command chaos holds the whole of dspgate, as real processes, against what a
// suspend promises, while things go wrong: three sidecars, two Envoys, two
// control planes, Redis with two replicas and three Sentinels, and a sample
// upstream that verifies stamps.
//
// Each trial has its own processes and a schedule of faults made from its seed:
// SIGSTOP and SIGCONT, kill -9 and a new start, slow, cut, silent and half-open
// links to Redis, failovers. Meanwhile clients call through both Envoys and
// operators suspend and lift. Then everything is healed and the history is judged
// (see Judge). A failing trial keeps its logs; its seed has the same faults happen
// again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/dspgate/dspgate/bench/report"
)

func main() {
	n := flag.Int("n", 20, "trials")
	seed := flag.Uint64("seed", 1, "of the first trial; the next has the next")
	var o settings
	flag.StringVar(&o.dspgate, "dspgate", "bin/dspgate", "the binary")
	flag.DurationVar(&o.length, "length", 5*time.Second, "how long things go wrong in a trial")
	flag.BoolVar(&o.failovers, "failovers", true, "let Redis fail over")
	flag.StringVar(&o.keep, "keep", "chaos/out", "folder where a failing trial's logs are kept")
	out := flag.String("out", "bench/out", "folder for chaos.json, which make bench-fence takes its suspensions_lost from")
	flag.BoolVar(&o.always, "always-keep", false, "keep the logs of every trial")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *seed, *n, o, *out); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, seed uint64, n int, o settings, out string) error {
	if n < 1 || o.length < time.Second {
		return errors.New("needs a trial, of a second at least")
	}
	var total stats
	var failed []uint64
	broken := map[string]int{}
	began := time.Now()
	for i := range n {
		at := time.Now()
		found, did, kept, err := runTrial(ctx, seed+uint64(i), o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		total.add(did)
		verdict := "ok"
		if len(found) > 0 || err != nil {
			failed = append(failed, seed+uint64(i))
			verdict = "FAILED, logs in " + kept
		}
		fmt.Printf("trial %d of %d, seed %d: %d faults, %d failovers, %d suspensions (%d complete), %d requests (%d allowed), %.1f s: %s\n",
			i+1, n, seed+uint64(i), did.faults, did.failovers, did.suspensions, did.complete, did.requests, did.allowed, time.Since(at).Seconds(), verdict)
		for j, v := range found {
			broken[v.Promise]++
			if j < 5 {
				fmt.Printf("  %s: %s\n", v.Promise, v.What)
			}
		}
		if err != nil {
			fmt.Printf("  %v\n", err)
		}
	}
	fmt.Printf("%d trials in %.0f s: %d faults, %d failovers, %d suspensions (%d complete, %d lifted), %d requests, %d arrivals; violations: P1 %d, P2 %d, P3 %d, suspensions lost %d\n",
		n, time.Since(began).Seconds(), total.faults, total.failovers, total.suspensions, total.complete, total.lifts, total.requests, total.arrivals,
		broken["P1"], broken["P2"], broken["P3"], broken["lost"])
	rep := report.New()
	for name, v := range map[string]int{
		"trials": n, "trials_failed": len(failed), "faults": total.faults, "failovers": total.failovers, "suspensions": total.suspensions,
		"violations": broken["P1"] + broken["P2"] + broken["P3"], "suspensions_lost": broken["lost"],
	} {
		rep.Figures[name] = float64(v)
	}
	if err := rep.Save(out, "chaos"); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d trials failed; again: go run ./chaos -n 1 -seed %d", len(failed), n, failed[0])
	}
	return nil
}
