package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/sample"
)

// plane is a control plane without its HTTP: the production store, mirror and
// Register, as `dspgate control` wires them.
type plane struct {
	key      string
	store    *redisstore.Store
	register *registry.Register
	stop     func()

	mu    sync.Mutex
	stand []string // suspensions in force
}

func operator(name string) registry.Actor {
	return registry.Actor{Name: name, Permissions: registry.PermOperator}
}

func productID(i int) string { return fmt.Sprintf("FP-B%04d", i) }

// startPlane starts one over an empty Redis, with the sample register and n more
// products.
func startPlane(ctx context.Context, dir string, at redisstore.Config, o options, n int) (*plane, error) {
	p := &plane{key: filepath.Join(dir, "register.key")}
	secret := []byte("a key for one benchmark, known to all its parts")
	if err := os.WriteFile(p.key, secret, 0o600); err != nil {
		return nil, err
	}
	seal, err := registry.NewSealer(secret)
	if err != nil {
		return nil, err
	}
	if p.store, err = redisstore.Open(ctx, at, nil); err != nil {
		return nil, err
	}
	mirror := registry.NewMirror(p.store, seal, registry.MirrorConfig{ID: "bench", Observer: true})
	p.register = registry.NewRegister(p.store, mirror, seal, registry.RegisterConfig{Holder: "bench", Drain: o.drain, AwaitMax: 30 * time.Second})
	run, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	p.stop = func() { cancel(); wg.Wait(); _ = p.store.Close() }
	wg.Go(func() { _ = mirror.Run(run) })     // it has no state file to fail on
	wg.Go(func() { _ = p.register.Run(run) }) // it returns no error
	loaded := func() bool { _, err := p.register.View(); return err == nil && p.register.Writing() }
	for deadline := time.Now().Add(20 * time.Second); !loaded(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.stop()
			return nil, errors.New("the register was not loaded, or the claim not had")
		}
	}
	records := sample.Records(time.Now())
	var like registry.Product
	for _, r := range records {
		if x, ok := r.(registry.Product); ok && x.ID == "FP-1003" {
			like = x
		}
	}
	for i := range n {
		x := like
		x.ID, x.Name = productID(i), fmt.Sprintf("Benchmark %d", i)
		records = append(records, x)
	}
	if _, err := p.register.Import(ctx, sample.Actor(), records, registry.Meta{}); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// ret is a suspend that returned.
type ret struct {
	registry.Enforcement
	id       string
	revision registry.Revision
	took     time.Duration
	at       time.Time
}

// suspend suspends a product and waits, as `suspend --wait` does.
func (p *plane) suspend(ctx context.Context, product string, timeout time.Duration) (ret, error) {
	began := time.Now()
	r, err := p.register.Suspend(ctx, operator("first@agency.example"), registry.SuspendCommand{
		Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: product}, Reason: "a benchmark",
	})
	if err != nil {
		return ret{}, err
	}
	e, err := p.register.Await(ctx, r.Revision, timeout)
	at := time.Now()
	p.stands(r.Entry.ID)
	return ret{e, r.Entry.ID, r.Revision, at.Sub(began), at}, err
}

// stands notes a suspension that liftAll is to lift.
func (p *plane) stands(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stand = append(p.stand, id)
}

func (p *plane) suspendAtOnce(ctx context.Context, n int) ([]ret, error) {
	rets, errs := make([]ret, n), make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			rets[i], errs[i] = p.suspend(ctx, productID(i), 30*time.Second)
		})
	}
	close(start)
	wg.Wait()
	return rets, errors.Join(errs...)
}

// liftAll lifts what stands and waits until every follower has that.
func (p *plane) liftAll(ctx context.Context) error {
	p.mu.Lock()
	stand := p.stand
	p.stand = nil
	p.mu.Unlock()
	revs, errs := make([]registry.Revision, len(stand)), make([]error, len(stand))
	var wg sync.WaitGroup
	for i, id := range stand {
		wg.Go(func() {
			r, err := p.register.LiftSuspension(ctx, operator("second@agency.example"), id, registry.Meta{Reason: "measured"})
			revs[i], errs[i] = r.Revision, err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	last := registry.Revision(0)
	for _, r := range revs {
		last = max(last, r)
	}
	e, err := p.register.Await(ctx, last, 30*time.Second)
	if err == nil && !e.Complete {
		err = errors.New("the followers did not take the lifts within 30 s")
	}
	return err
}

// settled waits until exactly n sidecars that serve are on the roll, at the head.
func (p *plane) settled(ctx context.Context, n int) error {
	var serving int
	var behind registry.Revision
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		all, err := p.register.Sidecars(ctx)
		if err != nil {
			return err
		}
		serving, behind = 0, 0
		for _, s := range all {
			if s.LongLeftMS > 0 {
				serving++
				behind = max(behind, s.Lag)
			}
		}
		if serving == n && behind == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d sidecars on the roll, want %d; the last is %d revisions behind", serving, n, behind)
		}
	}
}
