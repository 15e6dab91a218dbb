// Command chaos holds the whole of dspgate, as real processes, against what a
// suspend promises, while things go wrong: three sidecars, two Envoys, two
// control planes, Redis with two replicas and three Sentinels, and a sample
// upstream that verifies stamps.
//
// Each trial has a schedule of faults made from its seed: SIGSTOP and SIGCONT,
// kill -9 and a new start, slow, cut, silent and half-open links to Redis,
// failovers; some at any time, some on the heels of a suspension. Meanwhile
// clients call through both Envoys and operators suspend and lift. Then
// everything is healed and the history is judged (see Judge). A few trials follow
// one another on the same processes; a failing one keeps their logs, and its seed
// has the same faults happen again.
//
// With -planted a build that is broken on purpose goes through the same trials,
// and has to be found out (see cmd/dspgate/planted.go).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	var o settings
	n := flag.Int("n", 20, "trials")
	seed := flag.Uint64("seed", 1, "of the first trial; the next has the next")
	planted := flag.String("planted", "", "one of "+faultNames()+", or all: trials until each is caught, n at most")
	out := flag.String("out", "bench/out", "folder for chaos.json, which make bench-fence takes its suspensions_lost from")
	add := flag.Bool("add", false, "add to what chaos.json says of earlier runs, instead of replacing it")
	flag.StringVar(&o.dspgate, "dspgate", "bin/dspgate", "the binary")
	flag.DurationVar(&o.length, "length", 4500*time.Millisecond, "how long things go wrong in a trial")
	flag.IntVar(&o.perWorld, "per-world", 5, "trials on the same processes, one after another")
	flag.IntVar(&o.worlds, "worlds", 2, "sets of processes at once")
	flag.BoolVar(&o.failovers, "failovers", true, "let Redis fail over")
	flag.StringVar(&o.keep, "keep", "chaos/out", "folder where a failing trial's logs are kept")
	flag.BoolVar(&o.always, "always-keep", false, "keep the logs of every trial")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := func() error {
		if *n < 1 || o.perWorld < 1 || o.worlds < 1 || o.length < time.Second {
			return fmt.Errorf("needs a trial, of a second at least")
		}
		if *planted != "" {
			return runPlanted(ctx, *planted, *seed, *n, o)
		}
		return runCampaign(ctx, *seed, *n, o, *out, *add)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}
