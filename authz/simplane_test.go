package authz_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// --- control planes

type simPlane struct {
	w      *simWorld
	name   string
	life   int
	link   *registrytest.Link
	mu     sync.Mutex // guards reg
	reg    *registry.Register
	cancel context.CancelFunc
	done   *sync.WaitGroup
}

func newSimPlane(w *simWorld, name string) *simPlane { return &simPlane{w: w, name: name} }

func (p *simPlane) register() *registry.Register {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reg
}

func (p *simPlane) start() {
	w := p.w
	p.life++
	name := fmt.Sprint("plane ", p.name, p.life)
	p.link = registrytest.NewLink(w.store)
	p.link.Name = name
	p.link.Set(registrytest.Fault{Jitter: w.jitter(name)})
	store := registrytest.Store(p.link)
	if w.fault.planeStore != nil {
		store = w.fault.planeStore(p.link, w)
	}
	born := time.Now()
	jitter := w.rand(name + " pauses")
	m := registry.NewMirror(store, w.sealer, registry.MirrorConfig{
		ID: p.name, Incarnation: fmt.Sprint(p.life), Observer: true, Short: simShort, Long: simLong, Poll: 250 * time.Millisecond,
		Clock: func() time.Duration { return time.Hour + time.Since(born) }, Jitter: func(d time.Duration) time.Duration { return time.Duration(jitter.Int64N(int64(d))) },
	})
	drain := admission.DefaultValidity + admission.DefaultSkew
	if w.fault.noDrain {
		drain = 0
	}
	reg := registry.NewRegister(store, m, w.sealer, registry.RegisterConfig{
		Holder: p.name, ClaimTTL: time.Second, Drain: drain, LeaseMax: simLong, Now: func() time.Time { return time.Now().Add(simWall) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	p.mu.Lock()
	p.reg = reg
	p.mu.Unlock()
	p.cancel, p.done = cancel, &sync.WaitGroup{}
	p.done.Go(func() { _ = m.Run(ctx) })
	p.done.Go(func() { _ = reg.Run(ctx) })
}

func (p *simPlane) crash() {
	p.link.Set(registrytest.Fault{Refused: true})
	p.cancel()
	p.done.Wait()
	st := p.reg.RollStats()
	p.w.count(func(c *tally) {
		c.Lapsed += int(st.Lapses)
		c.Reasserted += int(st.Reasserts)
		c.Superseded += int(st.Superseded)
	})
}

func (p *simPlane) live(rnd *rand.Rand) {
	w := p.w
	for w.sleep(between(rnd, 100*time.Millisecond, 3*time.Second)) {
		f := registrytest.Fault{Jitter: w.jitter(fmt.Sprint("plane ", p.name, p.life))}
		fate := rnd.IntN(10)
		if w.fault.planes != 0 && rnd.IntN(2) == 0 {
			fate = w.fault.planes
		}
		switch fate {
		case 0:
			p.crash()
			w.note("plane %s crashed", p.name)
			w.count(func(c *tally) { c.ControlCrashes++ })
			w.sleep(between(rnd, 0, time.Second))
			p.start()
			continue
		case 1:
			f.Silent = true
		case 2:
			f.LoseReply = true
		case 3:
			f.RequestDelay, f.ReplyDelay = between(rnd, 0, 300*time.Millisecond), between(rnd, 0, 300*time.Millisecond)
		}
		w.note("plane %s link %s", p.name, simFaultWords(&f))
		p.link.Set(f)
	}
	p.link.Set(registrytest.Fault{Jitter: w.jitter(fmt.Sprint("plane ", p.name, p.life))})
}

// --- operators

func (w *simWorld) operator(name string, rnd *rand.Rand) {
	all := registry.PermOperator
	one, two := registry.Actor{Name: name, Permissions: all}, registry.Actor{Name: name + " second", Permissions: all}
	for w.sleep(between(rnd, 10*time.Millisecond, 500*time.Millisecond)) {
		product := simProducts[rnd.IntN(len(simProducts))]
		first := rnd.IntN(2)
		wait := between(rnd, 50*time.Millisecond, 3*time.Second)
		asked := time.Now()
		var res registry.Result[registry.Suspension]
		err := errors.New("nobody was asked")
		var reg *registry.Register
		var by string
		for i := range 2 {
			p := w.planes[(first+i)%2]
			reg, by = p.register(), p.name
			res, err = reg.Suspend(w.ctx, one, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: product}, Reason: "simulated"})
			if err == nil || !errors.Is(err, registry.ErrFenced) {
				break
			}
		}
		if err != nil {
			w.note("%s: suspend %s by %s: %v", name, product, by, err)
			w.count(func(c *tally) { c.Refusals++ })
		} else {
			id := res.Entry.ID
			e, err := reg.Await(w.ctx, res.Revision, wait)
			ret := time.Now()
			if err == nil && w.ctx.Err() == nil {
				w.note("%s: suspended %s as %s at %d by %s: %s", name, product, id, res.Revision, by, simStates(&e))
				w.mu.Lock()
				w.told = append(w.told, simTold{asked: asked, ret: ret, id: id, product: product, revision: res.Revision, e: e, by: by})
				if e.Complete {
					w.counts.Complete++
				} else {
					w.counts.Incomplete++
				}
				w.mu.Unlock()
			}
		}
		if res.Entry == nil {
			continue
		}
		w.sleep(between(rnd, 0, 1200*time.Millisecond))
		w.mu.Lock()
		if _, asked := w.lifts[res.Entry.ID]; !asked {
			w.lifts[res.Entry.ID] = time.Now()
		}
		w.mu.Unlock()
		w.note("%s: lifts %s", name, res.Entry.ID)
		for range 6 {
			_, err := w.planes[rnd.IntN(2)].register().LiftSuspension(w.ctx, two, res.Entry.ID, registry.Meta{Reason: "simulated"})
			if err == nil || errors.Is(err, registry.ErrForbidden) || errors.Is(err, registry.ErrState) || !w.sleep(200*time.Millisecond) {
				break
			}
		}
	}
}

func simStates(e *registry.Enforcement) string {
	var b strings.Builder
	fmt.Fprintf(&b, "complete %t after %d ms", e.Complete, e.ElapsedMS)
	for _, s := range e.Sidecars {
		fmt.Fprintf(&b, ", %s/%s %s at %d", s.ID, s.Incarnation, s.State, s.Revision)
	}
	return b.String()
}
