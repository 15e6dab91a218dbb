// Command fence measures how soon `suspend --wait` returns with 200 sidecars,
// beside the least that any such round trip takes on the same machine.
//
// A real Redis (append-only file, fsync always), the production store, mirror
// and Register in this process, and 200 processes that each run the production
// Mirror as a sidecar does. The floor is the bare fan-out through the same Redis
// to the same 200 processes and back: a blocking read and one write each,
// nothing else. The two take turns, because a machine drifts by more than what
// is measured. Then one follower is stopped or its link cut, again and again, and
// asked until when it would have admitted what was suspended; and a real sidecar
// and Envoy go through outages of Redis shorter than the lease.
//
// Everything listens on 127.0.0.1 or on Unix sockets in a temporary folder.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/dspgate/dspgate/bench/report"
	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/registry/redisstore"
)

type options struct {
	followers, rounds, each, bursts, burst, partitions, outages, failovers int

	drain   time.Duration
	seed    uint64
	dspgate string
	out     string
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == "follower" { // each is a process of its own
		if err := runFollower(os.Args[2], os.Args[3], os.Args[4], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "follower:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.followers, "followers", 200, "follower processes")
	flag.IntVar(&o.rounds, "rounds", 6, "turns of floor and fence")
	flag.IntVar(&o.each, "each", 40, "suspensions, and floor round trips, a turn")
	flag.IntVar(&o.bursts, "bursts", 4, "turns of bursts")
	flag.IntVar(&o.burst, "burst", 1000, "suspensions at once")
	flag.IntVar(&o.partitions, "partitions", 20, "suspensions with one follower partitioned")
	flag.IntVar(&o.outages, "outages", 6, "outages of Redis, shorter than the lease; 0: no Envoy is started")
	flag.IntVar(&o.failovers, "failovers", 50, "times the primary of a Redis with replicas and Sentinels goes away; 0: from the last make chaos")
	flag.DurationVar(&o.drain, "drain", 60*time.Millisecond, "how long a wait goes on after the last acknowledgement")
	flag.Uint64Var(&o.seed, "seed", 1, "of when links are cut")
	flag.StringVar(&o.dspgate, "dspgate", "bin/dspgate", "the binary of the sidecar that goes through outages")
	flag.StringVar(&o.out, "out", "bench/out", "folder for fence.json")
	flag.Parse()
	logging.Disable() // a Redis that is away is what this is about
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-fence:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.followers < 1 || o.rounds < 1 || o.each < 1 || o.burst < 1 {
		return errors.New("needs followers, rounds, each and burst")
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench-fence-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rep := report.New()

	redis, err := world.StartRedis(ctx, dir, "redis")
	if err != nil {
		return err
	}
	defer redis.Close()
	links, err := world.NewLinks()
	if err != nil {
		return err
	}
	defer links.Close()
	link, err := links.Add("last", redis.Addr)
	if err != nil {
		return err
	}
	p, err := startPlane(ctx, dir, redisstore.Config{Addrs: []string{redis.Addr}}, o, max(o.burst, o.rounds*(o.each+2), o.partitions))
	if err != nil {
		return err
	}
	defer p.stop()
	began := time.Now()
	followers, err := startFleet(dir, p.key, redis.Addr, link.Addr(), o.followers)
	defer followers.close()
	if err != nil {
		return err
	}
	b := &bench{o: o, rep: rep, plane: p, fleet: followers, link: link}
	b.floor = &floor{redis: redis, fleet: followers, payload: strings.Repeat("x", 500)}
	if _, err := followers.all("acks"); err != nil { // they are up
		return err
	}
	fmt.Fprintf(os.Stderr, "%d followers up in %v\n", o.followers, time.Since(began).Round(time.Millisecond))

	for _, step := range []func(context.Context) error{b.turns, b.burstTurns, b.partitions} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	followers.close()
	if o.outages > 0 {
		if err := b.outages(ctx, filepath.Join(dir, "outage")); err != nil {
			return err
		}
	}
	if err := b.failovers(ctx, filepath.Join(dir, "failover")); err != nil {
		return err
	}
	b.figures()
	if err := b.lost(); err != nil {
		return err
	}
	if err := rep.Save(o.out, "fence"); err != nil {
		return err
	}
	if err := rep.Table(os.Stdout, "turn", "what", "n", "p50_ms", "p99_ms", "redis_write_ms"); err != nil {
		return err
	}
	fmt.Println("written to", filepath.Join(o.out, "fence.json"))
	if b.violations > 0 {
		return fmt.Errorf("%d violations", b.violations)
	}
	return nil
}

// bench is one run.
type bench struct {
	o     options
	rep   *report.Report
	plane *plane
	fleet fleet
	link  *world.Link
	floor *floor

	single, bare, burst, bareBurst, write []time.Duration
	burstRatios                           []float64
	partitioned, named                    int
	violations                            int
}

// turns measures one suspension after the other, in turns with the floor.
func (b *bench) turns(ctx context.Context) error {
	for turn := range b.o.rounds {
		// A B and B A in turn, so that drift falls on both.
		order := []func(context.Context, int) error{b.bareTurn, b.fenceTurn}
		if turn%2 == 1 {
			slices.Reverse(order)
		}
		for _, f := range order {
			if err := f(ctx, turn); err != nil {
				return fmt.Errorf("turn %d: %w", turn+1, err)
			}
		}
	}
	return nil
}

func (b *bench) bareTurn(ctx context.Context, turn int) error {
	if _, err := b.fleet.all("floor"); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	var got []time.Duration
	for i := range b.o.each + 2 {
		took, err := b.floor.once(ctx, 1)
		if err != nil {
			return err
		}
		if i >= 2 { // the first ones warm it up
			got = append(got, took...)
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.bare = append(b.bare, got...)
	return b.row(ctx, turn, "bare fan-out", got)
}

func (b *bench) fenceTurn(ctx context.Context, turn int) error {
	if _, err := b.fleet.all("mirror 2s 60s"); err != nil {
		return err
	}
	if err := b.plane.settled(ctx, b.o.followers); err != nil {
		return err
	}
	var got []time.Duration
	var rets []ret
	for i := range b.o.each + 2 {
		product := productID(turn*(b.o.each+2) + i)
		r, err := b.plane.suspend(ctx, product, 10*time.Second)
		if err != nil {
			return err
		}
		if !r.Complete {
			return fmt.Errorf("%s: not complete within 10 s: %d sidecars", product, len(r.Sidecars))
		}
		rets = append(rets, r)
		if i >= 2 {
			got = append(got, r.took)
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.single = append(b.single, got...)
	if err := b.checkAcks(rets); err != nil {
		return err
	}
	if err := b.row(ctx, turn, "suspend and wait", got); err != nil {
		return err
	}
	return b.plane.liftAll(ctx)
}

// burstTurns measures many suspensions at once, in turns with the floor.
func (b *bench) burstTurns(ctx context.Context) error {
	for turn := range b.o.bursts {
		if _, err := b.fleet.all("floor"); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
		bare, err := b.floor.once(ctx, b.o.burst)
		if err != nil {
			return err
		}
		if err := b.row(ctx, b.o.rounds+turn, "bare burst", bare); err != nil {
			return err
		}
		if _, err := b.fleet.all("mirror 2s 60s"); err != nil {
			return err
		}
		if err := b.plane.settled(ctx, b.o.followers); err != nil {
			return err
		}
		rets, err := b.plane.suspendAtOnce(ctx, b.o.burst)
		if err != nil {
			return err
		}
		got := make([]time.Duration, len(rets))
		for i, r := range rets {
			got[i] = r.took
			if !r.Complete {
				return fmt.Errorf("burst: suspension %d of %d was not complete within 30 s", i+1, len(rets))
			}
		}
		if err := b.checkAcks(rets); err != nil {
			return err
		}
		b.burst, b.bareBurst = append(b.burst, got...), append(b.bareBurst, bare...)
		b.burstRatios = append(b.burstRatios, (percentile(got, 99)-b.o.drain).Seconds()/percentile(bare, 99).Seconds())
		if err := b.row(ctx, b.o.rounds+turn, "suspend burst", got); err != nil {
			return err
		}
		if err := b.plane.liftAll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkAcks holds what each follower noted against what was returned: each had
// sent its acknowledgement of the revision, having served it by then, before
// the suspend returned.
func (b *bench) checkAcks(rets []ret) error {
	lines, err := b.fleet.all("acks")
	if err != nil {
		return err
	}
	for i, line := range lines {
		violations, acks, err := parseAcks(line)
		if err != nil {
			return err
		}
		b.violations += violations
		for _, r := range rets {
			held := slices.IndexFunc(acks, func(a ack) bool { return a.revision >= r.revision })
			if held < 0 || acks[held].at > r.at.UnixNano() {
				b.violations++
				fmt.Fprintf(os.Stderr, "VIOLATION: revision %d returned as enforced before %s held it\n", r.revision, b.fleet[i].id)
			}
		}
	}
	return nil
}

// row notes a turn with what a write to Redis takes just then.
func (b *bench) row(ctx context.Context, turn int, what string, took []time.Duration) error {
	var writes []time.Duration
	for range 20 {
		began := time.Now()
		if _, err := b.floor.redis.Do(ctx, "SET", "probe", "1"); err != nil {
			return err
		}
		writes = append(writes, time.Since(began))
	}
	b.write = append(b.write, writes...)
	b.rep.Row(map[string]any{
		"turn": turn + 1, "what": what, "n": len(took), "p50_ms": ms(percentile(took, 50)), "p99_ms": ms(percentile(took, 99)),
		"redis_write_ms": ms(percentile(writes, 50)),
	})
	fmt.Fprintf(os.Stderr, "turn %d %-16s n=%d p50 %.1f ms, p99 %.1f ms\n", turn+1, what, len(took), ms(percentile(took, 50)), ms(percentile(took, 99)))
	return nil
}

func (b *bench) figures() {
	f := b.rep.Figures
	f["followers"], f["drain_ms"] = float64(b.o.followers), ms(b.o.drain)
	f["p50_ms"], f["p99_ms"] = ms(percentile(b.single, 50)), ms(percentile(b.single, 99))
	f["floor_p50_ms"], f["floor_p99_ms"] = ms(percentile(b.bare, 50)), ms(percentile(b.bare, 99))
	// What is waited for besides the round trip is the drain, and is the same on any machine.
	f["floor_ratio"] = (percentile(b.single, 99) - b.o.drain).Seconds() / percentile(b.bare, 99).Seconds()
	f["floor_p50_ratio"] = (percentile(b.single, 50) - b.o.drain).Seconds() / percentile(b.bare, 50).Seconds()
	if len(b.burst) > 0 {
		f["burst_p50_ms"], f["burst_p99_ms"] = ms(percentile(b.burst, 50)), ms(percentile(b.burst, 99))
		f["burst_floor_p99_ms"] = ms(percentile(b.bareBurst, 99))
		slices.Sort(b.burstRatios)
		f["burst_floor_ratio"] = b.burstRatios[len(b.burstRatios)/2]
	}
	f["redis_write_p50_ms"], f["redis_write_p99_ms"] = ms(percentile(b.write, 50)), ms(percentile(b.write, 99))
	if b.partitioned > 0 {
		f["laggards_named"] = float64(b.named) / float64(b.partitioned)
		f["partitions"] = float64(b.partitioned)
	}
	f["violations"] = float64(b.violations)
}

// lost takes, when this run had no failovers, from the last run of make chaos how many suspensions were lost over
// how many failovers; there is no such figure when there was none.
func (b *bench) lost() error {
	if b.o.failovers > 0 {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(b.o.out, "chaos.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var chaos report.Report
	if err = errors.Join(err, json.Unmarshal(raw, &chaos)); err != nil {
		return fmt.Errorf("chaos.json: %w", err)
	}
	b.rep.Figures["suspensions_lost"], b.rep.Figures["failovers"] = chaos.Figures["suspensions_lost"], chaos.Figures["failovers"]
	return nil
}

func ms(d time.Duration) float64 { return math.Round(d.Seconds()*1e5) / 100 }

// percentile is the value that p in a hundred do not exceed.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, (len(sorted)*p+99)/100-1)]
}
