package main

import (
	"cmp"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/assurance/evidencedir"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
)

// openAssurance reads the framework's rules and opens the folder of evidence.
func openAssurance(cfg controlConfig, register *registry.Register) (*assurance.Desk, *evidencedir.Dir, error) {
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
	return assurance.NewDesk(assurance.Config{Register: register, Rules: rules, Files: dir, Profiles: casework.Profiles}), dir, nil
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
