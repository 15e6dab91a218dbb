package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/dspgate/dspgate/chaos/world"
)

// TestPlantedFaultsAreCaught breaks one part of the promise at a time, in the
// processes themselves, and wants the judge to say so; and to say nothing of the
// same processes when they are whole.
func TestPlantedFaultsAreCaught(t *testing.T) {
	t.Parallel()
	const attempts = 30
	bin := buildDspgate(t, "-tags", "planted")
	p, err := open(t.Context(), settings{dspgate: bin})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for _, f := range plantedFaults() {
		t.Run(f.name, func(t *testing.T) {
			whole, err := p.provoked(t.Context(), &f)
			if err != nil {
				t.Fatalf("provoked where there is none: %v", err)
			}
			for _, v := range whole {
				t.Errorf("without the fault: %s: %s", v.Promise, v.What)
			}
			replant(t, p, f.in(p.world), plantedEnv(f.name))
			defer replant(t, p, f.in(p.world))
			for n := range attempts {
				found, err := p.provoked(t.Context(), &f)
				if err != nil {
					t.Fatalf("provoked: %v", err)
				}
				for _, v := range found {
					if v.Promise == f.promise {
						t.Logf("attempt %d: %s: %s", n+1, v.Promise, v.What)
						return
					}
				}
			}
			t.Errorf("not caught in %d attempts: the judge, or the way to provoke it, is blind", attempts)
		})
	}
}

// replant starts processes again, with these variables added to their environment.
func replant(t *testing.T, p *place, nodes []*world.Node, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startWithin)
	defer cancel()
	for _, n := range nodes {
		n.SetEnv(env...)
		if err := n.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		if n.Debug == "" {
			continue
		}
		if err := n.Await(ctx, world.GetOK(n.Debug+"/readyz")); err != nil {
			t.Fatal(fmt.Errorf("after a new start: %w", err))
		}
	}
}
