// Command limits measures how well ten sidecars share one limit.
//
// They are `dspgate sidecar` processes on a real Redis (append-only file, fsync
// always), asked over gRPC as Envoy asks them: an open load, each call at its
// own instant whatever became of the one before. What they allow goes to an
// upstream, a process of its own that notes when each call arrives. Beside them,
// on the very same arrivals, each alone on an empty Redis and in turns with the
// sidecars, run three designs that others use: a script in Redis for each request
// (GCRA), chunks of 50 taken from a window of one second, and a copy of the bucket
// in each that is put right every second by what all have spent.
//
// What an ideal single bucket would have let pass of the calls is what passed is
// held against: that bucket knows of no outage. What arrived is held against a
// strict bucket, which is overdrawn exactly when some window saw more than rate ×
// window + burst; the way to the upstream counts, so that a busy machine shows
// there too. over_decided_pct is the same by the instants of the decisions.
//
// In every run one process is killed and started again at once (until it is ready
// nobody asks it), and Redis is stopped for five seconds. It is stopped a second
// and a half after the load has shifted, so that the shares have to follow in that
// time; no load shifts for good while it is stopped, which nobody could follow who
// asks nobody: -outage-at 12s shows that too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dspgate/dspgate/bench/report"
	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/registry"
)

type options struct {
	dspgate   string
	sidecars  int
	rate      float64
	burst     int64
	each      time.Duration
	outage    time.Duration
	outageAt  time.Duration
	seed      uint64
	out       string
	workloads []string
	loads     []float64
	designs   []int
}

func main() {
	var err error
	switch {
	case len(os.Args) == 6 && os.Args[1] == "peer": // each is a process of its own
		var design int
		if design, err = strconv.Atoi(os.Args[2]); err == nil {
			err = runPeer(design, os.Args[3], os.Args[4], os.Args[5])
		}
	case len(os.Args) == 4 && os.Args[1] == "upstream":
		err = runUpstream(os.Args[2], os.Args[3])
	default:
		err = runMain()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-limits:", err)
		os.Exit(1)
	}
}

func runMain() error {
	var o options
	var workloads, loads, which string
	flag.StringVar(&o.dspgate, "dspgate", "bin/dspgate", "the binary")
	flag.IntVar(&o.sidecars, "sidecars", 10, "processes")
	flag.Float64Var(&o.rate, "rate", 1000, "requests a second that the limit allows")
	flag.Int64Var(&o.burst, "burst", 1000, "its burst")
	flag.DurationVar(&o.each, "each", 30*time.Second, "how long each run lasts")
	flag.DurationVar(&o.outage, "outage", 5*time.Second, "for how long Redis is stopped in each")
	flag.DurationVar(&o.outageAt, "outage-at", 9500*time.Millisecond, "and when")
	flag.Uint64Var(&o.seed, "seed", 1, "of the arrivals")
	flag.StringVar(&o.out, "out", "bench/out", "folder for limits.json")
	flag.StringVar(&workloads, "workloads", "zipf,shifting,bursty", "which")
	flag.StringVar(&loads, "loads", "0.8,1.2,2", "offered, in parts of the limit")
	flag.StringVar(&which, "designs", "0,1,2,3", "0 dspgate, 1 Lua, 2 chunks, 3 report; the peers run in the first load above the limit only")
	flag.Parse()
	o.workloads = strings.Split(workloads, ",")
	for s := range strings.SplitSeq(loads, ",") {
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || x <= 0 {
			return fmt.Errorf("-loads: %q is no part of the limit", s)
		}
		o.loads = append(o.loads, x)
	}
	for s := range strings.SplitSeq(which, ",") {
		d, err := strconv.Atoi(s)
		if err != nil || d < 0 || d >= designs {
			return fmt.Errorf("-designs: %q is none of 0 to %d", s, designs-1)
		}
		o.designs = append(o.designs, d)
	}
	if o.sidecars < 2 || o.each/5+time.Second > o.outageAt || o.outageAt+o.outage > o.each {
		return errors.New("needs two sidecars, and runs that last beyond the outage, which comes after the kill at a fifth")
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	return run(ctx, o)
}

func run(ctx context.Context, o options) error {
	bin, err := filepath.Abs(o.dspgate)
	if err != nil {
		return err
	}
	if _, err := os.Stat(bin); err != nil {
		return fmt.Errorf("%w: run `make build`", err)
	}
	o.dspgate = bin
	rep := report.New()
	var all []tally
	for _, load := range o.loads {
		for j, workload := range o.workloads {
			s := spec{
				Workload: workload, Load: load, Rate: o.rate, Burst: o.burst, Sidecars: o.sidecars, Seed: o.seed + uint64(100*load) + uint64(j),
				For: o.each, KillAt: o.each / 5, OutageAt: o.outageAt, Outage: o.outage,
			}
			for _, d := range o.designs {
				if d != ours && load != peerLoad(o.loads) {
					continue
				}
				t, err := runOne(ctx, o, s, d)
				if err != nil {
					return fmt.Errorf("%s on %s at %v × the limit: %w", designNames[d], workload, load, err)
				}
				rep.Row(t.row())
				all = append(all, t)
				fmt.Fprintf(os.Stderr, "%s, %s at %v × the limit: %.2f %% denied falsely, %.3f calls a request\n", designNames[d], workload, load, pct(float64(t.missed()), float64(t.ideal)), t.perRequest())
			}
		}
	}
	figures(rep, all)
	if err := rep.Save(o.out, "limits"); err != nil {
		return err
	}
	if err := rep.Table(os.Stdout, "workload", "load", "design", "offered", "ideal", "passed", "failed", "over_pct", "over_decided_pct", "false_denial_pct", "false_denial_up_pct", "redis_calls_per_request", "p50_ms", "p99_ms"); err != nil {
		return err
	}
	fmt.Println("written to", filepath.Join(o.out, "limits.json"))
	if over := rep.Figures["over_decided_pct"]; over > 0.1 {
		return fmt.Errorf("over-admitted by %.3f %% of the limit", over)
	}
	return nil
}

// peerLoad is the one load the peers are run at: the first beyond the limit.
func peerLoad(loads []float64) float64 {
	beyond := slices.DeleteFunc(slices.Clone(loads), func(x float64) bool { return x <= 1 })
	if len(beyond) == 0 {
		return loads[0]
	}
	return slices.Min(beyond)
}

// runOne runs one workload against one design: a kill, an outage.
func runOne(ctx context.Context, o options, s spec, design int) (t tally, err error) {
	dir, err := os.MkdirTemp("", "bl-") // short, for the sockets in it
	if err != nil {
		return t, err
	}
	defer os.RemoveAll(dir)
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	f, err := startFleet(starting, dir, o.dspgate, design, s)
	if err != nil {
		return t, err
	}
	defer f.close()
	self, err := os.Executable()
	if err != nil {
		return t, err
	}
	seen := filepath.Join(dir, "arrivals")
	p, err := world.Start(dir, "upstream", self, "upstream", filepath.Join(dir, "up.sock"), seen)
	if err != nil {
		return t, err
	}
	defer p.Kill()
	up, err := dialUpstream(starting, filepath.Join(dir, "up.sock"))
	if err != nil {
		return t, err
	}
	defer up.conn.Close()
	d, err := newDriver(f, s, up)
	if err != nil {
		return t, err
	}
	defer d.close()
	calls, err := drive(ctx, f, d, &s)
	if err != nil {
		return t, err
	}
	if err := errors.Join(up.err, up.conn.Close()); err != nil {
		return t, fmt.Errorf("upstream: %w", err)
	}
	var arrived []arrival
	if err := p.Await(ctx, func(context.Context) (err error) { arrived, err = readArrivals(seen); return err }); err != nil && len(arrived) == 0 {
		return t, err
	}
	if len(d.asked) == 0 || len(arrived) == 0 {
		return t, errors.New("nothing was asked, or nothing arrived")
	}
	return judge(s, design, d, arrived, calls), nil
}

// drive runs the load with its faults, and tells what it cost Redis.
func drive(ctx context.Context, f *fleet, d *driver, s *spec) (calls int64, err error) {
	req := request(f.token)
	warming, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := d.warm(warming, req); err != nil {
		return 0, err
	}
	time.Sleep(4 * time.Second) // nobody uses the limit, which is whole again
	before, err := f.calls(ctx)
	if err != nil {
		return 0, err
	}
	s.begin = registry.BootTime() + 200*time.Millisecond
	d.spec.begin = s.begin
	faults := make(chan error, 1)
	go func() { faults <- fault(ctx, f, d, s) }()
	d.run(ctx, req)
	if err := <-faults; err != nil {
		return 0, err
	}
	after, err := f.calls(ctx)
	return after - before, errors.Join(err, ctx.Err())
}

// fault does what is wrong in a run. The victim is one of those that have most to
// do.
func fault(ctx context.Context, f *fleet, d *driver, s *spec) error {
	at := func(after time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(s.begin + after - registry.BootTime()):
			return nil
		}
	}
	const victim = 1
	if err := at(s.KillAt); err != nil {
		return err
	}
	d.to[victim].down.Store(true)
	if err := f.kill(ctx, victim, func() { d.to[victim].down.Store(false) }); err != nil {
		return err
	}
	if err := at(s.OutageAt); err != nil {
		return err
	}
	f.redis.Pause()
	err := at(s.OutageAt + s.Outage)
	f.redis.Resume()
	return err
}
