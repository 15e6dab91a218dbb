package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dspgate/dspgate/chaos/world"
)

// plantedFault is one that a build with the tag planted has on request, and how
// to make it show at once. The random trials come upon each of them, too.
type plantedFault struct {
	name    string
	promise string // the one that is seen to be broken
	in      func(*world.World) []*world.Node
	provoke func(context.Context, *trial) error
}

func plantedFaults() []plantedFault {
	sidecars := func(w *world.World) []*world.Node { return w.Sidecars }
	controls := func(w *world.World) []*world.Node { return w.Controls }
	upstream := func(w *world.World) []*world.Node { return []*world.Node{{Process: w.Upstream}} }
	return []plantedFault{
		{"no-lease-timeout", "P1", sidecars, outlastTheLease},
		{"early-ack", "P1", sidecars, callOnTheHeels},
		{"quorum", "P1", controls, outlastTheLease},
		{"no-drain", "P2", controls, func(ctx context.Context, t *trial) error { return stallEnvoy(ctx, t, 25*time.Millisecond) }},
		{"any-stamp", "P2", upstream, func(ctx context.Context, t *trial) error { return stallEnvoy(ctx, t, 300*time.Millisecond) }},
	}
}

func faultNames() string {
	var names []string
	for _, f := range plantedFaults() {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}

func plantedEnv(name string) string { return "DSPGATE_PLANTED=" + name }

// runPlanted has random trials find one planted fault, or all, in n trials each
// at most.
func runPlanted(ctx context.Context, name string, seed uint64, n int, o settings) error {
	known := false
	var missed []string
	for _, f := range plantedFaults() {
		if name != f.name && name != "all" {
			continue
		}
		known = true
		o.planted = f.name
		began, caught := time.Now(), false
		err := trials(ctx, seed, n, o, func(r *result) bool {
			i := slices.IndexFunc(r.found, func(v Violation) bool { return v.Promise == "P1" || v.Promise == "P2" || v.Promise == "P3" })
			switch {
			case r.err != nil:
				fmt.Printf("%s, seed %d: %v\n", f.name, r.seed, r.err)
			case i >= 0:
				caught = true
				fmt.Printf("%s: caught at seed %d after %.0f s: %s: %s\n", f.name, r.seed, time.Since(began).Seconds(), r.found[i].Promise, r.found[i].What)
			default:
				fmt.Printf("%s: not caught at seed %d (%.1f s)\n", f.name, r.seed, r.took.Seconds())
			}
			return !caught
		})
		if err != nil {
			return err
		}
		if !caught {
			missed = append(missed, f.name)
		}
	}
	switch {
	case !known:
		return fmt.Errorf("no planted fault %q: there are %s, and all", name, faultNames())
	case missed != nil:
		return fmt.Errorf("not caught in %d trials: %s", n, strings.Join(missed, ", "))
	}
	return nil
}

// provoked is what the judge says after a fault was provoked once, or the same
// was done to processes that have none.
func (p *place) provoked(ctx context.Context, f *plantedFault) ([]Violation, error) {
	t := &trial{place: p, began: time.Now()}
	if err := t.serving(ctx); err != nil {
		return nil, err
	}
	if err := f.provoke(ctx, t); err != nil {
		return nil, err
	}
	if err := t.readArrivals(); err != nil {
		return nil, err
	}
	return Judge(&t.history, t.limits()), nil
}

// calling keeps n callers for each product's way through each Envoy busy until
// the function returned is called.
func (t *trial) calling(ctx context.Context, n int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var callers sync.WaitGroup
	for e := range t.world.Envoys {
		for range n {
			callers.Go(func() {
				for ctx.Err() == nil {
					r := t.request(context.WithoutCancel(ctx), traffic()[0], e)
					t.mu.Lock()
					t.history.Requests = append(t.history.Requests, r)
					t.mu.Unlock()
				}
			})
		}
	}
	return func() { cancel(); callers.Wait() }
}

// answered waits until n more calls through each Envoy that began after an
// instant are over.
func (t *trial) answered(ctx context.Context, n int, after time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, t.o.healWithin())
	defer cancel()
	for {
		seen := make([]int, len(t.world.Envoys))
		t.mu.Lock()
		for i := range t.history.Requests {
			if r := &t.history.Requests[i]; r.Sent.After(after) {
				seen[r.Envoy]++
			}
		}
		t.mu.Unlock()
		if slices.Min(seen) >= n {
			return nil
		}
		if wait(ctx, 5*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("calls get no answers: %w", ctx.Err())
		}
	}
}

// stopAndLift suspends, sees to it that calls are made after that, and lifts.
func (t *trial) stopAndLift(ctx context.Context, timeout time.Duration, calls int) (s Suspension, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.o.healWithin())
	defer cancel()
	product := traffic()[0].product
	for {
		if s, err = t.suspend(ctx, product, timeout); err == nil {
			break
		}
		if wait(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return s, fmt.Errorf("suspend: %w", err)
		}
	}
	if err := t.answered(ctx, calls, s.boundAll()); err != nil {
		return s, err
	}
	t.lifting(s.ID)
	for {
		if err = t.lift(ctx, s.ID); err == nil {
			return s, nil
		}
		if wait(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return s, fmt.Errorf("lift: %w", err)
		}
	}
}

// outlastTheLease cuts a sidecar off from Redis, suspends, and calls through its
// Envoy when the answer says that it lapsed.
func outlastTheLease(ctx context.Context, t *trial) error {
	cut := t.world.Sidecars[2]
	stop := t.calling(ctx, 2)
	defer stop()
	for _, l := range cut.Links {
		if err := l.Break(world.Cut, 0); err != nil {
			return err
		}
	}
	_, err := t.stopAndLift(ctx, leaseLong+2*time.Second, 10)
	for _, l := range cut.Links {
		if herr := l.Heal(ctx); herr != nil && err == nil {
			err = herr
		}
	}
	return err
}

// callOnTheHeels suspends while calls are made, and lifts.
func callOnTheHeels(ctx context.Context, t *trial) error {
	stop := t.calling(ctx, 4)
	defer stop()
	_, err := t.stopAndLift(ctx, 5*time.Second, 50)
	return err
}

// stallEnvoy stops an Envoy with its hands full, suspends, and lets it go on.
func stallEnvoy(ctx context.Context, t *trial, d time.Duration) error {
	stop := t.calling(ctx, 12)
	defer stop()
	for round := range 6 {
		if err := t.answered(ctx, 50, time.Now()); err != nil {
			return err
		}
		envoy := t.world.Envoys[round%len(t.world.Envoys)]
		envoy.Pause()
		var over sync.WaitGroup
		over.Go(func() {
			wait(ctx, d)
			envoy.Resume()
		})
		_, err := t.stopAndLift(ctx, 5*time.Second, 20)
		over.Wait()
		if err != nil {
			return err
		}
		if err := t.serving(ctx); err != nil {
			return err
		}
	}
	return nil
}
