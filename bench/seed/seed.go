// Package seed puts what a benchmark's register holds into a store, without a
// control plane.
package seed

import (
	"context"
	"fmt"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// ABN makes the nth ABN by choosing its check digits (domain model §6).
func ABN(n int) registry.ABN {
	for check := 10; check < 100; check++ {
		a, err := registry.ParseABN(fmt.Sprintf("%02d%09d", check, n))
		if err == nil {
			return a
		}
	}
	panic("seed: no check digits for an ABN")
}

const recordsPerChange = 500

// Fill commits the records to an empty ledger and returns the View they make.
func Fill(ctx context.Context, ledger registry.Ledger, seal *registry.Sealer, all []registry.Record) (*registry.View, error) {
	epoch, err := ledger.Lead(ctx, "bench", 0, time.Minute)
	if err != nil {
		return nil, fmt.Errorf("lead: %w", err)
	}
	view := &registry.View{}
	for start := 0; start < len(all); start += recordsPerChange {
		rev, base := view.Revision+1, view.Mark()
		c := &registry.Change{Revision: rev, Epoch: epoch, At: registry.At(time.Now()), Actor: "bench", Command: "import"}
		b := registry.NewBuilder(view, c.At)
		for _, r := range all[start:min(start+recordsPerChange, len(all))] {
			seal.Seal(&r, rev)
			if err := b.Put(&r); err != nil {
				return nil, err
			}
			c.Puts = append(c.Puts, r)
		}
		if view, err = b.View(rev, epoch); err != nil {
			return nil, err
		}
		c.Digest = view.Digest
		c.MAC = seal.Change(c)
		head := &registry.Head{Revision: rev, Epoch: epoch, Records: view.Records, Digest: view.Digest}
		head.MAC = seal.Head(head)
		if err := ledger.Commit(ctx, epoch, base, c, head); err != nil {
			return nil, fmt.Errorf("commit revision %d: %w", rev, err)
		}
	}
	return view, nil
}
