// Command authz measures a real dspgate sidecar beside a stock no-op grpc-go
// authorizer, both through a real Envoy with the same configuration, everything
// switched on: cached tokens, a register of 100,000 products, records, access log.
//
// The two take turns in short slices (A B B A), because a machine drifts by more
// than what is measured; only ratios of one turn are reported. Everything
// listens on 127.0.0.1 or on Unix sockets in a temporary folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/dspgate/dspgate/bench/report"
	"github.com/dspgate/dspgate/envoy/runner"
)

type options struct {
	products, connections, rounds, starts, workers, processors int

	slice, warm time.Duration
	frames      bool
	admission   bool
	quotas      bool
	dspgate     string
	out         string
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == "noop" { // the yardstick is a process of its own
		if err := runNoop(os.Args[2], os.Args[3], os.Args[4] == "true"); err != nil {
			fmt.Fprintln(os.Stderr, "noop:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.products, "products", 100_000, "products in the register")
	flag.IntVar(&o.connections, "connections", 32, "keep-alive connections, each with a product and token of its own")
	flag.IntVar(&o.rounds, "rounds", 6, "turns of A B B A")
	flag.DurationVar(&o.slice, "slice", 2*time.Second, "length of each slice")
	flag.DurationVar(&o.warm, "warm", 2*time.Second, "load on each before the first slice")
	flag.IntVar(&o.starts, "starts", 3, "starts of the sidecar over which load_seconds is the median")
	flag.IntVar(&o.workers, "envoy-concurrency", 2, "Envoy's worker threads")
	flag.IntVar(&o.processors, "processors", 1, "the sidecar's GOMAXPROCS")
	flag.BoolVar(&o.frames, "listen-authz", true, "ask the sidecar on its listen_authz; false: on listen, which is grpc-go")
	flag.BoolVar(&o.admission, "admission", false, "stamp what is allowed, and let both Envoys look at its end")
	flag.BoolVar(&o.quotas, "quotas", true, "calendar quotas among the limits too")
	flag.StringVar(&o.dspgate, "dspgate", "bin/dspgate", "the binary to measure")
	flag.StringVar(&o.out, "out", "bench/out", "folder for authz.json")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-authz:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.products <= o.connections || o.connections < 1 || o.rounds < 1 || o.starts < 1 {
		return errors.New("needs rounds, starts, connections, and more products than connections")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench-authz-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rep := report.New()

	// The register, in a real Redis.
	redis, socket, err := startRedis(ctx, dir)
	if err != nil {
		return err
	}
	defer redis.stop()
	w, err := newWorld(ctx, dir, socket, o)
	if err != nil {
		return err
	}
	defer w.up.close()
	fmt.Fprintf(os.Stderr, "register of %d records in %v\n", w.view.Records, w.filled.Round(time.Millisecond))

	if rep.Figures["decide_allocs"], rep.Figures["decide_ns"], err = decideInProcess(w); err != nil {
		return err
	}

	rep.Figures["noop_metadata_us"] = metadataCost()

	// The two authorizers, and an Envoy before each.
	sidecar, err := w.startSidecar(ctx, rep, o)
	if err != nil {
		return err
	}
	defer sidecar.stop()
	a, err := w.envoy(ctx, "a", "unix:"+w.a.socket, o)
	if err != nil {
		return fmt.Errorf("%w; the sidecar's log ends: %s", err, sidecar.tail())
	}
	defer a.Kill()
	noop, ads, err := w.startNoop(ctx, o)
	if err != nil {
		return err
	}
	defer noop.stop()
	defer ads.Stop()
	b, err := w.envoy(ctx, "b", "unix:"+w.b.ads, o)
	if err != nil {
		return err
	}
	defer b.Kill()
	if err := sameConfiguration(ctx, w, a, b); err != nil {
		return err
	}

	sides := [2]side{
		{name: "dspgate", envoy: a, pid: sidecar.pid(), world: w, decides: true},
		{name: "no-op", envoy: b, pid: noop.pid(), world: w},
	}
	for i := range sides {
		if err := sides[i].ready(ctx); err != nil {
			return err
		}
		if _, err := sides[i].measure(ctx, w.requests, o.warm); err != nil {
			return fmt.Errorf("warming %s: %w", sides[i].name, err)
		}
	}
	if err := compare(ctx, &sides, rep, o); err != nil {
		return err
	}
	if err := flood(ctx, &sides[0], rep, o); err != nil {
		return err
	}
	now, peak, err := rss(sidecar.pid())
	if err != nil {
		return err
	}
	// What a container limit has to leave room for is the most it ever was.
	rep.Figures["rss_end_mb"], rep.Figures["rss_peak_mb"] = now, peak
	rep.Figures["rss_mb"] = max(now, rep.Figures["rss_loaded_mb"])
	if err := rep.Save(o.out, "authz"); err != nil {
		return err
	}
	if err := rep.Table(os.Stdout, "round", "authorizer", "requests_per_s", "p50_ms", "p99_ms", "cpu_us", "envoy_cpu_us", "errors"); err != nil {
		return err
	}
	fmt.Println("written to", filepath.Join(o.out, "authz.json"))
	return nil
}

// result is one slice with the processor time it took.
type result struct {
	slice
	cpu, envoy float64 // µs a request
}

// compare takes turns and reports medians of the ratios of each turn.
func compare(ctx context.Context, sides *[2]side, rep *report.Report, o options) error {
	var rate, cost, p50, p99, envoyCost []float64
	var bad, total int
	for round := range o.rounds {
		var got [2][]result
		for _, i := range [4]int{0, 1, 1, 0} {
			r, err := sides[i].measure(ctx, sides[i].world.requests, o.slice)
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, sides[i].name, err)
			}
			got[i] = append(got[i], r)
			bad += r.errors
			total += r.requests
			rep.Row(map[string]any{
				"round": round + 1, "authorizer": sides[i].name, "requests": r.requests, "errors": r.errors,
				"requests_per_s": math.Round(r.rate()), "p50_ms": ms(r.p50), "p99_ms": ms(r.p99), "cpu_us": r.cpu, "envoy_cpu_us": r.envoy,
			})
		}
		rate = append(rate, ratio(got, func(r result) float64 { return r.rate() }))
		cost = append(cost, ratio(got, func(r result) float64 { return r.cpu }))
		envoyCost = append(envoyCost, ratio(got, func(r result) float64 { return r.envoy }))
		p50 = append(p50, ratio(got, func(r result) float64 { return ms(r.p50) }))
		p99 = append(p99, ratio(got, func(r result) float64 { return ms(r.p99) }))
	}
	if bad*1000 > total {
		return fmt.Errorf("%d of %d requests were not answered with 200: nothing measured is worth much; the first was\n%s", bad, total, sides[0].world.up.badText)
	}
	f := rep.Figures
	f["throughput_ratio"], f["throughput_ratio_min"], f["throughput_ratio_max"] = median(rate), slices.Min(rate), slices.Max(rate)
	f["cpu_ratio"], f["cpu_ratio_min"], f["cpu_ratio_max"] = median(cost), slices.Min(cost), slices.Max(cost)
	f["p50_ratio"], f["p99_ratio"], f["envoy_cpu_ratio"] = median(p50), median(p99), median(envoyCost)
	f["errors"] = float64(bad)
	if bad > 0 {
		fmt.Fprintf(os.Stderr, "%d of %d requests were not answered with 200; the first was\n%s\n", bad, total, sides[0].world.up.badText)
	}
	return nil
}

// ratio is dspgate's over the no-op's, each the mean of its slices in one turn.
func ratio(got [2][]result, of func(result) float64) float64 {
	mean := func(rs []result) (sum float64) {
		for _, r := range rs {
			sum += of(r)
		}
		return sum / float64(len(rs))
	}
	return mean(got[0]) / mean(got[1])
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// side is one authorizer behind its Envoy.
type side struct {
	name    string
	envoy   *runner.Process
	pid     int
	world   *world
	decides bool // its requests must arrive upstream with a decision ID
	ingress string
}

// measure loads this side for a while. What arrived upstream must be what was
// answered: a number got by letting requests fall would be no number.
func (s *side) measure(ctx context.Context, requests [][]byte, d time.Duration) (r result, err error) {
	up := s.world.up
	arrived, decided := up.arrived, up.decided
	cpu0, err := cpu(s.pid)
	if err != nil {
		return r, err
	}
	envoy0, err := cpu(s.envoy.PID())
	if err != nil {
		return r, err
	}
	if r.slice, err = up.load(ctx, s.ingress, requests, d); err != nil {
		return r, err
	}
	cpu1, err := cpu(s.pid)
	if err != nil {
		return r, err
	}
	envoy1, err := cpu(s.envoy.PID())
	if err != nil {
		return r, err
	}
	n := float64(r.requests)
	r.cpu, r.envoy = float64((cpu1-cpu0).Microseconds())/n, float64((envoy1-envoy0).Microseconds())/n
	good := int64(r.requests - r.errors)
	if got := up.arrived - arrived; got != good {
		return r, fmt.Errorf("%d requests arrived upstream of %d answered with 200", got, good)
	}
	if got := up.decided - decided; s.decides && got != good {
		return r, fmt.Errorf("%d of %d requests arrived with a decision ID", got, good)
	}
	return r, nil
}

// ready waits until a request goes all the way through.
func (s *side) ready(ctx context.Context) error {
	ls, err := s.envoy.Listeners(ctx)
	if err != nil {
		return err
	}
	for _, addr := range ls {
		s.ingress = addr
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		one, err := s.world.up.load(ctx, s.ingress, s.world.requests[:1], time.Millisecond)
		if err == nil && one.errors == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s answers no request with 200: %v %v", s.name, one, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
