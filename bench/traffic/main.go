// Command traffic measures the watching of callers: it makes up the traffic of
// hundreds of benign products and of attackers in the shapes of the framework's
// scenarios, lets production code watch it in virtual time, and counts what was
// told of whom and when.
//
// The benign world has the rhythm of days, weeks, due dates and tax time, runs
// over a whole workforce or client list, sessions of people, new clients and
// networks, releases and hotfixes, outages with retries and what was held up
// caught up with, expired certificates, growth, and newcomers. What it does not
// have: products of thousands of subscriptions, and migrations of a whole client
// list in a day.
//
// What is watched goes the way it goes in production: a Collector in each of
// twenty sidecars, reports of ten seconds in the bytes that travel, one Watcher
// with the parameters compiled in. Every few days another watcher takes over with
// the baselines there are, as kept by then when the one before was killed.
//
// The seeds of the world and of the attacks are drawn from the hash of these
// parameters, which is printed first: who changes a parameter draws others.
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"
	_ "time/tzdata" // the rhythm is Sydney's

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/bench/report"
)

type options struct {
	seed, attackSeed    uint64 // of the benign world, and of the attacks; 0: drawn
	draw                uint64 // which of those the parameters' hash gives
	products, sidecars  int
	lead, days, attacks int // days before anything is measured, days measured, attacks of each shape
	begin               time.Time
	verbose, strict     bool
	out, profile        string
}

func main() {
	o := options{begin: time.Date(2026, 5, 24, 0, 0, 0, 0, time.UTC)}
	flag.Uint64Var(&o.draw, "draw", 1, "which world and attacks to draw from the parameters' hash")
	flag.Uint64Var(&o.seed, "seed", 0, "of the benign world, instead of the one drawn")
	flag.Uint64Var(&o.attackSeed, "attack-seed", 0, "of the attacks, instead of the one drawn")
	flag.IntVar(&o.products, "products", 300, "benign products")
	flag.IntVar(&o.sidecars, "sidecars", 20, "sidecars they come through")
	flag.IntVar(&o.lead, "lead", 17, "days before anything is measured")
	flag.IntVar(&o.days, "days", 65, "days measured")
	flag.IntVar(&o.attacks, "attacks", 8, "attacks of each shape")
	flag.BoolVar(&o.verbose, "v", false, "print every attack and every false alarm")
	flag.BoolVar(&o.strict, "strict", false, "fail when a target is missed")
	flag.StringVar(&o.profile, "cpuprofile", "", "file for a profile of where the time goes")
	flag.StringVar(&o.out, "out", "bench/out", "folder for watch.json")
	flag.Func("begin", "first day, 2026-05-24; tax time begins on 1 July", func(s string) (err error) {
		o.begin, err = time.Parse(time.DateOnly, s)
		return err
	})
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := measure(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench-watch:", err)
		os.Exit(1)
	}
}

// fingerprint is of everything that decides what is told.
func fingerprint() string {
	sum := sha256.Sum256([]byte(anomaly.Fixed()))
	return hex.EncodeToString(sum[:])
}

// drawn is the nth seed for something that the parameters' hash gives.
func drawn(what string, n uint64) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", fingerprint(), what, n))
	return binary.LittleEndian.Uint64(sum[:])>>1 | 1
}

func measure(ctx context.Context, o options, w io.Writer) error {
	if o.products < 1 || o.sidecars < 1 || o.days < 8 || o.lead < 0 || o.attacks < 0 {
		return fmt.Errorf("needs a product, a sidecar and 8 days measured")
	}
	fmt.Fprintf(w, "parameters %s\n", fingerprint())
	o.seed, o.attackSeed = cmp.Or(o.seed, drawn("world", o.draw)), cmp.Or(o.attackSeed, drawn("attacks", o.draw))
	fmt.Fprintf(w, "drawn from them: -seed %d -attack-seed %d (-draw %d); %d products through %d sidecars from %s on, %d days after %d\n",
		o.seed, o.attackSeed, o.draw, o.products, o.sidecars, o.begin.Format(time.DateOnly), o.days, o.lead)
	x, err := newRun(o, o.attackSeed)
	if err != nil {
		return err
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	began := time.Now()
	out := x.live(func(day int) bool {
		if day%7 == 0 {
			fmt.Fprintf(os.Stderr, "day %d of %d after %s: %d of %d attacks told, %d false alarms\n",
				day, o.lead+o.days, time.Since(began).Round(time.Second), x.toldSoFar(), len(x.attacks), x.out.FalseCases)
		}
		return ctx.Err() == nil
	})
	if out.Cut {
		fmt.Fprintln(w, "cut short: the figures are of the days until then")
	}
	rep := report.New()
	missed := out.report(rep, o.verbose, w)
	if err := rep.Table(w, "attack", "made", "told", "p50_s", "worst_s", "let_p50", "let_worst", "within"); err != nil {
		return err
	}
	if o.out != "" {
		if err := rep.Save(o.out, "watch"); err != nil {
			return err
		}
	}
	for _, m := range missed {
		fmt.Fprintln(w, "missed:", m)
	}
	if o.strict && len(missed) > 0 {
		return fmt.Errorf("%d targets missed", len(missed))
	}
	return nil
}

// falsePerMonth is the target: one false alarm in fifty months of products.
const falsePerMonth = 1.0 / 50

// report makes the figures, and says which targets were missed.
func (out *outcome) report(rep *report.Report, verbose bool, w io.Writer) (missed []string) {
	total, within := 0, 0
	for s := range shapes {
		var seconds, let []float64
		made, inTime := 0, 0
		limit := float64(60)
		if !s.loud() {
			limit = float64(s.lasts())
		}
		for _, a := range out.Attacks {
			if a.shape != s {
				continue
			}
			made++
			if verbose {
				fmt.Fprintf(w, "%s on %s (%s, %d subscriptions), every %.3g s: told after %d s by %s, %d let through\n",
					s, a.victim.id, kindNames[a.victim.kind], len(a.victim.subs), a.pace, max(0, a.told-a.start), a.by, a.let)
			}
			if a.told == 0 {
				continue
			}
			t := float64(a.told - a.start)
			if t <= limit {
				inTime++
			}
			seconds, let = append(seconds, t), append(let, float64(a.let))
		}
		if made == 0 {
			continue
		}
		total, within = total+made, within+inTime
		if inTime < made {
			missed = append(missed, fmt.Sprintf("%s: %d of %d told within %.0f s", s, inTime, made, limit))
		}
		row := map[string]any{"attack": s.String(), "made": made, "told": len(seconds), "within": inTime, "limit_s": limit, "loud": s.loud()}
		row["p50_s"], row["worst_s"] = middle(seconds)
		row["let_p50"], row["let_worst"] = middle(let)
		rep.Row(row)
	}
	rate := float64(out.FalseCases) / out.Months
	if rate > falsePerMonth {
		missed = append(missed, fmt.Sprintf("%d false alarms in %.0f product-months, more than one in 50", out.FalseCases, out.Months))
	}
	if out.Suspended > 0 {
		missed = append(missed, fmt.Sprintf("%d false suspensions", out.Suspended))
	}
	if verbose {
		for _, f := range out.False {
			fmt.Fprintln(w, "false:", f)
		}
	}
	rep.Figures = map[string]float64{
		"attacks": float64(total), "attacks_within": float64(within), "product_months": out.Months,
		"false_alarms": float64(out.FalseCases), "false_alarm_signals": float64(out.FalseAlarms), "false_alarms_per_product_month": rate,
		"signals": float64(out.Signals), "restarts": float64(out.Restarts), "cpu_seconds": cpuSeconds(), "subjects": float64(out.Subjects), "subject_bytes": float64(out.Bytes) / float64(max(out.Subjects, 1)), "subjects_refused": float64(out.Refused),
		"calls": float64(out.Calls), "false_suspensions": float64(out.Suspended), "suspended_attacks": float64(out.Contained),
	}
	return missed
}

// cpuSeconds is what this process has used of the processor.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func (s shape) String() string { return shapeNames[s] }

func middle(x []float64) (p50, worst float64) {
	if len(x) == 0 {
		return 0, 0
	}
	slices.Sort(x)
	return x[len(x)/2], x[len(x)-1]
}
