package main

import (
	"cmp"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/dspgate/dspgate/anomaly/redisfleet"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/assurance/evidencedir"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/incident"
)

// openAssurance reads the framework's rules and opens the folder of evidence.
func openAssurance(cfg controlConfig, register *registry.Register, usage *redisfleet.Usage) (*assurance.Desk, *evidencedir.Dir, error) {
	var more []fs.FS
	if cfg.FrameworkDir != "" {
		more = append(more, os.DirFS(cfg.FrameworkDir))
	}
	rules, err := certification.Load(cfg.Framework, more...)
	if err != nil {
		return nil, nil, usageError("framework: %v", err)
	}
	dir, err := evidencedir.Open(cmp.Or(cfg.EvidenceDir, filepath.Join(cfg.StateDir, "evidence")))
	if err != nil {
		return nil, nil, err
	}
	return assurance.NewDesk(assurance.Config{Register: register, Rules: rules, Files: dir, Profiles: casework.Profiles, Shares: casework.Shares, Observed: observed(usage)}), dir, nil
}

// usedCallsMin is how many calls it takes for shares of them to say something.
const usedCallsMin = 100

// observed finds what is known of a product beyond the register: its incidents,
// and what the sidecars saw of its calls. What nobody saw is left out, and
// counts as unknown. usage may be nil.
func observed(usage *redisfleet.Usage) assurance.Observations {
	return func(book *registry.Casebook, product string) certification.RiskInputs {
		in := certification.RiskInputs{}
		if high, other, err := incident.History(book, product, time.Now()); err == nil {
			in["incidents_high"], in["incidents_other"] = float64(high), float64(other)
		}
		if usage == nil {
			return in
		}
		if sum, ok := usage.Of(product); ok {
			usedInputs(in, &sum)
		}
		return in
	}
}

func usedInputs(in certification.RiskInputs, sum *redisfleet.Used) {
	in["unknown_versions"], in["signals"] = float64(sum.OddVersions), float64(sum.Signals)
	if sum.Requests < usedCallsMin {
		return
	}
	percent := func(n uint64) float64 { return 100 * float64(n) / float64(sum.Requests) }
	in["error_percent"], in["validation_failure_percent"], in["off_hours_percent"] = percent(sum.Failed), percent(sum.Invalid), percent(sum.OffHours)
	in["read_lodge_ratio"] = float64(sum.Reads) / float64(max(sum.Lodges, 1))
}

// sweepEvery is how often files that no record names are looked for.
const sweepEvery = 6 * time.Hour

// sweepEvidence removes, from time to time, what was handed in and then never
// recorded, because the commit failed or the process was killed.
func sweepEvidence(ctx context.Context, register *registry.Register, dir *evidencedir.Dir, log *slog.Logger) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		book, err := register.Casebook()
		if err != nil || !register.Writing() {
			continue // of an incomplete casework nothing may be concluded
		}
		n, err := dir.Sweep(func(address string) bool { return assurance.Named(book, address) })
		if err != nil {
			log.WarnContext(ctx, "folder of evidence not swept", "err", err)
		} else if n > 0 {
			log.InfoContext(ctx, "evidence that no record names removed", "files", n)
		}
	}
}
