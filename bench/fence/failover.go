package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
)

const (
	failoverProducts  = 64 // suspended, one after the other, while a primary goes
	failoverFollowers = 3
	failoverPatience  = 30 * time.Second
)

// cluster is a Redis of one primary and two replicas under three Sentinels,
// with a control plane and a few sidecars' mirrors in this process.
type cluster struct {
	w         *world.World
	plane     *plane
	seal      *registry.Sealer
	store     redisstore.Config
	followers []*registry.Mirror
	stop      func()
}

// failovers takes the primary away again and again while suspensions are
// committed, and looks each time whether what was acknowledged is in the store
// that took over, and whether every sidecar follows it.
func (b *bench) failovers(ctx context.Context, dir string) error {
	if b.o.failovers == 0 {
		return nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	c, err := startCluster(ctx, dir, b.o)
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	rng := mathrand.New(mathrand.NewPCG(b.o.seed, 1))
	var took []time.Duration
	acked, lost := 0, 0
	for i := range b.o.failovers {
		how := []string{"killed", "stopped"}[i%2]
		ids, away, err := c.failover(ctx, how == "stopped", time.Duration(rng.Int64N(int64(300*time.Millisecond))))
		if err != nil {
			return fmt.Errorf("failover %d: %w", i+1, err)
		}
		gone, err := c.missing(ctx, ids)
		if err != nil {
			return fmt.Errorf("failover %d: %w", i+1, err)
		}
		took, acked, lost = append(took, away), acked+len(ids), lost+gone
		fmt.Fprintf(os.Stderr, "failover %d (%s): %d acknowledged, %d lost, the next one after %.1f s\n", i+1, how, len(ids), gone, away.Seconds())
		if err := errors.Join(c.liftAll(ctx), c.settled(ctx)); err != nil {
			return fmt.Errorf("failover %d: %w", i+1, err)
		}
	}
	b.rep.Row(map[string]any{"turn": "", "what": "failover, to the next commit", "n": len(took), "p50_ms": ms(percentile(took, 50)), "p99_ms": ms(percentile(took, 99)), "redis_write_ms": ""})
	f := b.rep.Figures
	f["failovers"], f["suspensions_lost"], f["failover_suspensions"] = float64(b.o.failovers), float64(lost), float64(acked)
	f["failover_p50_ms"] = ms(percentile(took, 50))
	b.violations += lost
	return nil
}

func startCluster(ctx context.Context, dir string, o options) (*cluster, error) {
	w, err := world.New(ctx, world.Options{Dir: dir, Dspgate: o.dspgate, Replicas: 2})
	c := &cluster{w: w, stop: func() {}}
	if err != nil {
		return c, err
	}
	c.store = redisstore.Config{Replicas: 1, Timeout: time.Second, ReplicaTimeout: 500 * time.Millisecond}
	for _, s := range w.Sentinels {
		c.store.Addrs = append(c.store.Addrs, s.Addr)
	}
	masters, err := w.Sentinels[0].Client().Do(ctx, "SENTINEL", "MASTERS").Slice()
	if err != nil || len(masters) != 1 {
		return c, fmt.Errorf("the Sentinels watch %d primaries, %w", len(masters), err)
	}
	c.store.Master = fmt.Sprint(masters[0].([]any)[1])
	if c.plane, err = startPlane(ctx, dir, c.store, o, failoverProducts); err != nil {
		return c, err
	}
	secret, err := os.ReadFile(c.plane.key)
	if err != nil {
		return c, err
	}
	if c.seal, err = registry.NewSealer(secret); err != nil {
		return c, err
	}
	run, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var stores []*redisstore.Store
	c.stop = func() {
		cancel()
		wg.Wait()
		for _, s := range stores {
			_ = s.Close() // nothing is lost with it
		}
	}
	for i := range failoverFollowers {
		s, err := redisstore.Open(ctx, c.store, nil)
		if err != nil {
			return c, err
		}
		stores = append(stores, s)
		incarnation := make([]byte, 8)
		rand.Read(incarnation) // never fails: it ends the process instead
		m := registry.NewMirror(s, c.seal, registry.MirrorConfig{
			ID: fmt.Sprintf("follower-%d", i+1), Incarnation: hex.EncodeToString(incarnation), Short: time.Second, Long: 3 * time.Second,
		})
		wg.Go(func() { _ = m.Run(run) }) // it has no state file to fail on
		c.followers = append(c.followers, m)
	}
	return c, c.settled(ctx)
}

func (c *cluster) close() {
	c.stop()
	if c.plane != nil {
		c.plane.stop()
	}
	c.w.Close()
}

// failover suspends one product after the other, takes the primary away after
// a while, and goes on until the next suspension is acknowledged. It returns
// which were, and how long after the primary had gone that next one was.
func (c *cluster) failover(ctx context.Context, stop bool, after time.Duration) (acked []string, away time.Duration, err error) {
	primary, err := c.primary(ctx)
	if err != nil {
		return nil, 0, err
	}
	began := time.Now()
	gone := time.Time{}
	for i := 0; ; i = (i + 1) % failoverProducts {
		switch {
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case gone.IsZero() && time.Since(began) > after:
			gone = time.Now()
			// In the middle of what the next ones do.
			time.AfterFunc(2*time.Millisecond, func() {
				if stop {
					primary.Pause()
				} else {
					primary.Kill()
				}
			})
		case !gone.IsZero() && time.Since(gone) > failoverPatience:
			return nil, 0, errors.New("nothing was committed for half a minute")
		}
		sent := time.Now()
		r, err := c.plane.register.Suspend(ctx, operator("first@agency.example"), registry.SuspendCommand{
			Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: productID(i)}, Reason: "a benchmark",
		})
		if err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		acked = append(acked, r.Entry.ID)
		// What was sent before the signal arrived may still be the old one's.
		if !gone.IsZero() && sent.After(gone.Add(50*time.Millisecond)) {
			away = time.Since(gone)
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	if stop {
		primary.Resume()
		return acked, away, nil
	}
	return acked, away, primary.Restart()
}

// primary is the Redis that says it is, once the two others are in step with it.
func (c *cluster) primary(ctx context.Context) (*world.Server, error) {
	for deadline := time.Now().Add(failoverPatience); ; time.Sleep(20 * time.Millisecond) {
		var found []*world.Server
		for _, s := range c.w.Redis {
			info, err := s.Do(ctx, "INFO", "replication")
			text := fmt.Sprint(info)
			if err == nil && strings.Contains(text, "role:master") && strings.Count(text, "state=online") == len(c.w.Redis)-1 {
				found = append(found, s)
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d primaries with both replicas in step", len(found))
		}
	}
}

// missing counts which suspensions a mirror does not find that knows nothing but
// what the store says now.
func (c *cluster) missing(ctx context.Context, ids []string) (n int, err error) {
	if _, err := c.primary(ctx); err != nil {
		return 0, err
	}
	s, err := redisstore.Open(ctx, c.store, nil)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(ctx, failoverPatience)
	defer cancel()
	m := registry.NewMirror(s, c.seal, registry.MirrorConfig{ID: "reader", Observer: true})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = m.Run(ctx) }) // it has no state file to fail on
	for !m.Ready() {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("the register is not to be loaded: %s", m.Status().LastError)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, id := range ids {
		if x := m.View().Suspension(id); x == nil || x.LiftedAt != 0 {
			n++
			fmt.Fprintf(os.Stderr, "LOST: suspension %s was acknowledged and is not in force\n", id)
		}
	}
	return n, nil
}

// liftAll lifts whatever is in force.
func (c *cluster) liftAll(ctx context.Context) error {
	for deadline := time.Now().Add(failoverPatience); ; {
		v, err := c.plane.register.View()
		if err != nil {
			return err
		}
		stand := slices.DeleteFunc(v.Suspensions(), func(e *registry.Entry[registry.Suspension]) bool {
			return e.Value.LiftedAt != 0 || !strings.HasPrefix(e.Value.Subject.ID, "FP-B")
		})
		if len(stand) == 0 {
			return nil
		}
		var g errgroup.Group
		for _, e := range stand {
			g.Go(func() error {
				_, err := c.plane.register.LiftSuspension(ctx, operator("second@agency.example"), e.ID, registry.Meta{Reason: "measured"})
				return err
			})
		}
		if err := g.Wait(); err != nil && (ctx.Err() != nil || time.Now().After(deadline)) {
			return err
		}
	}
}

// settled waits until every follower is fresh at the store's head.
func (c *cluster) settled(ctx context.Context) error {
	for deadline := time.Now().Add(failoverPatience); ; time.Sleep(20 * time.Millisecond) {
		v, err := c.plane.register.View()
		behind := ""
		for i, m := range c.followers {
			if held := m.View(); err != nil || held == nil || !m.Ready() || held.Digest != v.Digest {
				behind = fmt.Sprintf("follower-%d: %s", i+1, m.Status().LastError)
			}
		}
		switch {
		case behind == "":
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("half a minute after a failover it does not follow: %s", behind)
		}
	}
}
