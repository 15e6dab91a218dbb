// Command limits measures how well ten sidecar processes share one limit.
//
// Each process holds the production Limiter and its pool in a real Redis
// (append-only file, fsync always). Beside it, on the very same arrivals, it
// asks three designs that others use: a script in Redis for each request (GCRA),
// chunks of 50 taken from a window of one second, and a report every second of
// what was counted locally. Every arrival and every verdict is written down with
// the time of one clock (CLOCK_BOOTTIME) by the process that decided it; the
// oracle reads them all in order. What an ideal single bucket would have let
// pass of the arrivals is what the others are held against; what passed is held
// against a strict bucket, which is overdrawn exactly when some window saw more
// than rate × window + burst.
//
// In every workload one process is killed and started again, and Redis is
// stopped for five seconds.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dspgate/dspgate/bench/report"
	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/registry"
)

// spec is one run, as every worker gets it.
type spec struct {
	Workload string        `json:"workload"`
	Load     float64       `json:"load"` // offered, in parts of the limit
	Rate     float64       `json:"rate"`
	Burst    int64         `json:"burst"`
	Workers  int           `json:"workers"`
	Seed     uint64        `json:"seed"`
	Begin    time.Duration `json:"begin"` // CLOCK_BOOTTIME
	For      time.Duration `json:"for"`
	Redis    string        `json:"redis"`
	Dir      string        `json:"dir"`

	OutageAt time.Duration `json:"outage_at"` // from the beginning
	Outage   time.Duration `json:"outage"`
}

type options struct {
	workers int
	rate    float64
	burst   int64
	each    time.Duration
	outage  time.Duration
	seed    uint64
	out     string
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "worker" { // each is a process of its own
		if err := runWorker(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.workers, "workers", 10, "sidecar processes")
	flag.Float64Var(&o.rate, "rate", 1000, "requests a second that the limit allows")
	flag.Int64Var(&o.burst, "burst", 1000, "its burst")
	flag.DurationVar(&o.each, "each", 24*time.Second, "how long each run lasts")
	flag.DurationVar(&o.outage, "outage", 5*time.Second, "for how long Redis is stopped in each")
	flag.Uint64Var(&o.seed, "seed", 1, "of the arrivals")
	flag.StringVar(&o.out, "out", "bench/out", "folder for limits.json")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-limits:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.workers < 2 || o.each < 2*o.outage {
		return errors.New("needs two workers, and runs of at least twice the outage")
	}
	dir, err := os.MkdirTemp("", "bench-limits-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	redis, err := world.StartRedis(ctx, dir, "redis")
	if err != nil {
		return err
	}
	defer redis.Close()
	rep := report.New()
	var all []tally
	for i, load := range []float64{0.8, 1.2, 2} {
		for j, workload := range []string{"zipf", "shifting", "bursty"} {
			t, err := runOne(ctx, o, spec{
				Workload: workload, Load: load, Rate: o.rate, Burst: o.burst, Workers: o.workers, Seed: o.seed + uint64(10*i+j),
				For: o.each, Redis: redis.Addr, Dir: filepath.Join(dir, fmt.Sprintf("%s-%v", workload, load)),
			}, redis)
			if err != nil {
				return err
			}
			for _, t := range t {
				rep.Row(t.row())
			}
			all = append(all, t...)
			fmt.Fprintf(os.Stderr, "%s at %v × the limit: done\n", workload, load)
		}
	}
	figures(rep, all)
	if err := rep.Save(o.out, "limits"); err != nil {
		return err
	}
	if err := rep.Table(os.Stdout, "workload", "load", "design", "offered", "ideal", "passed", "over_pct", "false_denial_pct", "false_denial_up_pct", "redis_calls_per_request"); err != nil {
		return err
	}
	fmt.Println("written to", filepath.Join(o.out, "limits.json"))
	if over := rep.Figures["over_pct"]; over > 0.1 {
		return fmt.Errorf("over-admitted by %.3f %% of the limit", over)
	}
	return nil
}

// runOne runs one workload: the workers, a kill, an outage.
func runOne(ctx context.Context, o options, s spec, redis *world.Server) ([]tally, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s.OutageAt, s.Outage = s.For*2/5, o.outage
	s.Begin = registry.BootTime() + 3*time.Second // they find their seats
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(s.Dir, "spec.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, err
	}
	var workers []*world.Process
	defer func() {
		for _, w := range workers {
			w.Kill()
		}
	}()
	for i := range s.Workers {
		w, err := world.Start(s.Dir, fmt.Sprintf("worker-%d", i), self, "worker", fmt.Sprint(i), file)
		if err != nil {
			return nil, err
		}
		workers = append(workers, w)
	}
	at := func(d time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(s.Begin + d - registry.BootTime()):
			return nil
		}
	}
	// The victim is one of those that have most to do.
	if err := at(s.For / 5); err != nil {
		return nil, err
	}
	if err := workers[1].Restart(); err != nil { // kills it first
		return nil, err
	}
	if err := at(s.OutageAt); err != nil {
		return nil, err
	}
	redis.Pause()
	err = at(s.OutageAt + s.Outage)
	redis.Resume()
	if err != nil {
		return nil, err
	}
	if err := at(s.For + 2*time.Second); err != nil {
		return nil, err
	}
	for _, w := range workers {
		if w.Running() {
			w.Stop(5 * time.Second)
		}
	}
	return judge(s)
}
