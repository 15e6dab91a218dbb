package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dspgate/dspgate/bench/report"
)

// shownMax is how many violations of one trial are shown; its folder has them all.
const shownMax = 5

// settings are those of a whole run.
type settings struct {
	dspgate   string
	length    time.Duration // of the faults of a trial
	perWorld  int           // trials on the same processes
	worlds    int           // at once
	failovers bool
	keep      string // folder where a failing trial's logs go
	always    bool   // any trial's
	planted   string // fault of the binary, when it is one that has some
}

// result is what became of one trial.
type result struct {
	seed  uint64
	found []Violation
	did   stats
	kept  string // folder of its logs, when they were kept
	err   error  // the trial could not be run
	took  time.Duration
}

func (r *result) failed() bool { return len(r.found) > 0 || r.err != nil }

// errEnough ends trials before the last.
var errEnough = errors.New("enough")

// trials runs the trials of seeds that follow one another, a few on each world
// and on several worlds at once, and hands every result to each, as it comes,
// until that returns false. After a trial that failed the next begins with new
// processes.
func trials(ctx context.Context, seed uint64, n int, o settings, each func(*result) bool) error {
	var g *errgroup.Group
	g, ctx = errgroup.WithContext(ctx)
	g.SetLimit(max(o.worlds, 1))
	var turn sync.Mutex // of each
	for first := 0; first < n; first += o.perWorld {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil // why is told by who ended it
			}
			return inOneWorld(ctx, seed+uint64(first), min(o.perWorld, n-first), o, func(r *result) bool {
				turn.Lock()
				defer turn.Unlock()
				return ctx.Err() == nil && each(r)
			})
		})
	}
	if err := g.Wait(); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

// inOneWorld runs trials one after another, on the same processes while none fails.
func inOneWorld(ctx context.Context, seed uint64, n int, o settings, each func(*result) bool) error {
	var p *place
	defer func() { p.close() }()
	for i := range n {
		began := time.Now()
		if p == nil {
			var err error
			if p, err = open(ctx, o); err != nil {
				return err
			}
		}
		r := p.trial(ctx, seed+uint64(i))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.took = time.Since(began)
		if r.failed() {
			p.close()
			p = nil
		}
		if !each(r) {
			return errEnough
		}
	}
	return nil
}

// runCampaign runs trials, tells of each as it ends, and sums up.
func runCampaign(ctx context.Context, seed uint64, n int, o settings, out string, add bool) error {
	var all tally
	began := time.Now()
	err := trials(ctx, seed, n, o, func(r *result) bool {
		all.add(r)
		d := &r.did
		verdict := "ok"
		if r.failed() {
			verdict = "FAILED, logs in " + r.kept
		}
		left := time.Duration(n-all.trials) * (time.Since(began) / time.Duration(all.trials))
		fmt.Printf("trial %d of %d, seed %d: %d faults, %d failovers, %d suspensions (%d complete, %d past a lapsed sidecar), %d requests (%d allowed), %.1f s: %s (so far %d failovers, %d failed; %v to go)\n",
			all.trials, n, r.seed, d.faults, d.failovers, d.suspensions, d.complete, d.lapsed, d.requests, d.allowed, r.took.Seconds(), verdict,
			all.did.failovers, len(all.failed), left.Round(time.Second))
		for _, v := range r.found[:min(shownMax, len(r.found))] {
			fmt.Printf("  %s: %s\n", v.Promise, v.What)
		}
		if r.err != nil {
			fmt.Printf("  %v\n", r.err)
		}
		return true
	})
	if all.trials > 0 {
		d := &all.did
		fmt.Printf("%d trials in %.0f s: %d faults, %d failovers, %d suspensions (%d complete, %d past a lapsed sidecar, %d lifted), %d requests, %d arrivals; violations: P1 %d, P2 %d, P3 %d, suspensions lost %d, not healed %d\n",
			all.trials, time.Since(began).Seconds(), d.faults, d.failovers, d.suspensions, d.complete, d.lapsed, d.lifts, d.requests, d.arrivals,
			all.broken["P1"], all.broken["P2"], all.broken["P3"], all.broken["lost"], all.broken["end"])
		err = errors.Join(err, all.save(seed, o.dspgate, out, add))
	}
	if err == nil && len(all.failed) > 0 {
		err = fmt.Errorf("%d of %d trials failed; again: make chaos N=1 SEED=%d", len(all.failed), all.trials, all.failed[0])
	}
	return err
}

// tally adds up results.
type tally struct {
	trials int
	failed []uint64 // seeds
	broken map[string]int
	did    stats
}

func (a *tally) add(r *result) {
	a.trials++
	a.did.add(r.did)
	if r.failed() {
		a.failed = append(a.failed, r.seed)
	}
	if a.broken == nil {
		a.broken = map[string]int{}
	}
	for _, v := range r.found {
		a.broken[v.Promise]++
	}
}

// save writes OUT/chaos.json, a row for each run; add keeps those there are and
// counts them in.
func (a *tally) save(seed uint64, binary, out string, add bool) error {
	rep := report.New()
	if add {
		b, err := os.ReadFile(filepath.Join(out, "chaos.json"))
		if err == nil {
			var before report.Report
			if err := json.Unmarshal(b, &before); err != nil {
				return fmt.Errorf("chaos.json of earlier runs: %w", err)
			}
			rep.Figures, rep.Rows = before.Figures, before.Rows
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	figures := map[string]float64{
		"trials": float64(a.trials), "trials_failed": float64(len(a.failed)), "not_healed": float64(a.broken["end"]),
		"violations": float64(a.broken["P1"] + a.broken["P2"] + a.broken["P3"]), "suspensions_lost": float64(a.broken["lost"]),
		"faults": float64(a.did.faults), "failovers": float64(a.did.failovers), "suspensions": float64(a.did.suspensions),
		"requests": float64(a.did.requests), "arrivals": float64(a.did.arrivals),
	}
	row := map[string]any{"at": rep.At, "build": build(binary), "seed": seed}
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		rep.Figures[name] += figures[name]
		row[name] = figures[name]
	}
	rep.Row(row)
	return rep.Save(out, "chaos")
}

// build names the commit a binary was built from, "" when it does not say.
func build(binary string) (at string) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return ""
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			at = s.Value[:min(12, len(s.Value))] + at
		case s.Key == "vcs.modified" && s.Value == "true":
			at += " and changes"
		}
	}
	return at
}
