package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/registry"
)

// The leases while followers are partitioned: short, so that there is time for
// many partitions.
const (
	partitionShort = time.Second
	partitionLong  = 3 * time.Second
)

// partitions stops one follower, or loses what goes to and from it, suspends a
// product and holds the exposure that was named against what the follower itself
// would have admitted, and until when.
func (b *bench) partitions(ctx context.Context) error {
	if b.o.partitions == 0 {
		return nil
	}
	if _, err := b.fleet.all(fmt.Sprintf("mirror %v %v", partitionShort, partitionLong)); err != nil {
		return err
	}
	if err := b.plane.settled(ctx, b.o.followers); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(b.o.seed, 0))
	for i := range b.o.partitions {
		stop := i%2 == 0 // the others: a silent link
		if err := b.partition(ctx, productID(i), stop, time.Duration(rng.Int64N(int64(partitionShort)))); err != nil {
			return fmt.Errorf("partition %d: %w", i+1, err)
		}
	}
	if _, err := b.fleet.all("acks"); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "partitions: %d of %d named right\n", b.named, b.partitioned)
	return b.plane.liftAll(ctx)
}

func (b *bench) partition(ctx context.Context, product string, stop bool, back time.Duration) error {
	last := b.fleet[len(b.fleet)-1]
	if _, err := last.ask("watch " + product); err != nil {
		return err
	}
	time.Sleep(20 * time.Millisecond) // it has looked
	part := func() error { last.Pause(); return nil }
	heal := func() error { last.Resume(); return nil }
	if !stop {
		part = func() error { return b.link.Break(world.Silent, 0) }
		heal = func() error { return b.link.Heal(ctx) }
	}
	if err := part(); err != nil {
		return err
	}
	r, err := b.plane.suspend(ctx, product, 300*time.Millisecond)
	if err != nil {
		return err
	}
	if stop {
		// Back at any time from before to after the end of the short lease.
		time.Sleep(back * 3 / 2)
	} else {
		// It serves while it may; let it see the end of both leases.
		time.Sleep(partitionLong + 200*time.Millisecond)
	}
	if err := heal(); err != nil {
		return err
	}
	if err := b.plane.settled(ctx, b.o.followers); err != nil {
		return err
	}
	line, err := last.ask("admitted")
	if err != nil {
		return err
	}
	var long, short int64
	if _, err := fmt.Sscanf(line, "admitted %d %d", &long, &short); err != nil {
		return err
	}
	b.partitioned++
	var named *registry.SidecarState
	for i := range r.Sidecars {
		if r.Sidecars[i].ID == last.id {
			named = &r.Sidecars[i]
		} else if r.Sidecars[i].State != registry.Acknowledged {
			return fmt.Errorf("%s is %s though nothing is wrong with it", r.Sidecars[i].ID, r.Sidecars[i].State)
		}
	}
	if r.Complete || named == nil || named.State != registry.Pending || named.Until == nil {
		b.violations++
		fmt.Fprintf(os.Stderr, "VIOLATION: %s was partitioned and was not named: %+v\n", last.id, named)
		return nil
	}
	ok := true
	for risk, admitted := range map[registry.Risk]int64{1: long, 2: long, 3: short, 4: short} {
		until, lease := named.Until[risk], partitionLong
		if risk > 2 {
			lease = partitionShort
		}
		if int64(until) < admitted/1e6 {
			b.violations++
			fmt.Fprintf(os.Stderr, "VIOLATION: %s would have admitted %s at rating %d %d ms after the instant named\n", last.id, product, risk, admitted/1e6-int64(until))
			ok = false
		}
		// An instant that holds because it is far off says nothing.
		if most := registry.At(r.at) + registry.Time((lease*11/10 + 200*time.Millisecond).Milliseconds()); until > most {
			fmt.Fprintf(os.Stderr, "the instant named for rating %d is %d ms later than a lease from now\n", risk, until-most)
			ok = false
		}
	}
	if ok {
		b.named++
	}
	return nil
}
