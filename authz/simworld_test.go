package authz_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

const (
	simOwner = registry.ABN(65000000101)
	// A bubble's time begins in 2000; stamps are of this century.
	simWall = 30 * 365 * 24 * time.Hour
)

var (
	simProducts = []string{"FP-1", "FP-2", "FP-3"}
	simServices = []registry.Service{
		{Key: "low", Method: "GET", Template: "/low", Risk: 2, StampVerified: true},
		{Key: "high", Method: "GET", Template: "/high", Risk: 4, StampVerified: true},
	}
)

// simWorld is one life. mu guards what the actors write down.
type simWorld struct {
	t        *testing.T
	seed     uint64
	fault    fault
	store    *registrytest.Memory
	sealer   *registry.Sealer
	signer   *admission.Signer
	upstream *admission.Verifier
	began    time.Time
	ctx      context.Context
	wg       sync.WaitGroup

	mu     sync.Mutex
	counts tally
	calls  []simCall
	told   []simTold
	lifts  map[string]time.Time // when the lift of a suspension was first asked for
	jumps  []simJump
	notes  []string
	stuck  []string // what did not come right when everything else did
	planes []*simPlane
	// living are the sidecars that go on when the faults have ended.
	living []*simSidecar
}

type simCall struct {
	at, arrived     time.Time // arrived is zero when the upstream refused it
	id, incarnation string
	product         string
	risk            registry.Risk
	revision        registry.Revision
}

type simTold struct {
	asked, ret  time.Time
	id, product string
	revision    registry.Revision
	e           registry.Enforcement
	by          string
}

type simJump struct {
	at    time.Time
	ahead time.Duration
}

func newSimWorld(t *testing.T, seed uint64, f fault) *simWorld {
	w := &simWorld{t: t, seed: seed, fault: f, store: registrytest.NewMemory(), sealer: registrytest.Sealer(t), began: time.Now(),
		lifts: map[string]time.Time{}, jumps: []simJump{{time.Time{}, 0}}}
	keys, err := admission.ParseKeys([]byte(strings.Repeat("ab", 32)))
	if err == nil {
		w.signer, err = admission.NewSigner(keys, 0)
	}
	if err == nil {
		w.upstream, err = admission.NewVerifier(admission.VerifierConfig{Keys: keys, Skew: admission.DefaultSkew, Replay: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// rand is an actor's own source.
func (w *simWorld) rand(actor string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(actor))
	return rand.New(rand.NewPCG(w.seed, h.Sum64()))
}

// jitter makes every call of an actor arrive at an instant of its own, whatever
// the order in which its goroutines run.
func (w *simWorld) jitter(actor string) func(string) (time.Duration, time.Duration) {
	return func(call string) (request, reply time.Duration) {
		h := fnv.New64a()
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], w.seed)
		binary.LittleEndian.PutUint64(b[8:], uint64(time.Since(w.began)))
		_, _ = h.Write(b[:])
		_, _ = h.Write([]byte(actor))
		_, _ = h.Write([]byte(call))
		x := h.Sum64()
		x ^= x >> 29
		return time.Duration(1000 + x%1_000_000), time.Duration(1000 + (x>>20)%1_000_000)
	}
}

func (w *simWorld) note(format string, args ...any) {
	if *simSeed < 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, fmt.Sprintf("%12v ", time.Since(w.began))+fmt.Sprintf(format, args...))
}

func (w *simWorld) history() string { return strings.Join(w.notes, "\n") }

func (w *simWorld) count(f func(*tally)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.counts)
}

// run lives one life and ends every actor of it.
func (w *simWorld) run() {
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	rnd := w.rand("world")
	w.planes = []*simPlane{newSimPlane(w, "a"), newSimPlane(w, "b")}
	w.planes[0].start()
	synctest.Wait()
	time.Sleep(50 * time.Millisecond)
	records := []any{registry.Entity{ABN: simOwner, Name: "Owner", State: registry.EntityRegistered}}
	for _, s := range simServices {
		records = append(records, s)
	}
	for _, p := range simProducts {
		records = append(records,
			registry.Product{ID: p, Name: p, Owner: simOwner, Scenario: 1, Entitlements: []registry.Entitlement{
				{Service: "low", Environment: registry.EVTE}, {Service: "high", Environment: registry.EVTE}}},
			registry.ClientApp{ClientID: "app-" + p, ProductID: p, Environment: registry.EVTE})
	}
	all := registry.Permission(0xff)
	if _, err := w.planes[0].reg.Import(ctx, registry.Actor{Name: "import", Permissions: all}, records, registry.Meta{}); err != nil {
		w.t.Fatal(err)
	}
	w.planes[1].start()

	n := 2 + rnd.IntN(6)
	if rnd.IntN(25) == 0 {
		n = 20 + rnd.IntN(20)
	}
	for i := range n {
		w.act(fmt.Sprintf("s%d", i), w.sidecar)
	}
	for i := range 2 {
		w.act(fmt.Sprintf("operator%d", i), w.operator)
	}
	w.act("plane a", func(_ string, rnd *rand.Rand) { w.planes[0].live(rnd) })
	w.act("plane b", func(_ string, rnd *rand.Rand) { w.planes[1].live(rnd) })
	w.act("store", w.storeLife)
	time.Sleep(simSpan)
	cancel()
	w.wg.Wait()
	w.recover(rnd)
	for _, s := range w.living {
		s.kill()
	}
	for _, p := range w.planes {
		p.crash()
	}
}

// recover: once nothing goes wrong any more, everybody follows again, without
// a command and without anybody's help, and a suspension completes.
func (w *simWorld) recover(rnd *rand.Rand) {
	time.Sleep(simRecovery)
	head := w.store.Head()
	stuck := func(format string, args ...any) { w.stuck = append(w.stuck, fmt.Sprintf(format, args...)) }
	for _, s := range w.living {
		if st := s.mirror.Status(); !s.mirror.Ready() || st.Revision != head.Revision || st.Digest != head.Digest {
			stuck("%s/%s holds %d, the store %d, ready %t: %s", s.id, s.incarnation, st.Revision, head.Revision, s.mirror.Ready(), st.LastError)
		}
	}
	ctx := context.Background()
	err := registry.ErrFenced
	for i := range w.planes {
		reg := w.planes[i].register()
		var res registry.Result[registry.Suspension]
		res, err = reg.Suspend(ctx, registry.Actor{Name: "last", Permissions: registry.PermOperator}, registry.SuspendCommand{
			Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: simProducts[rnd.IntN(len(simProducts))]}, Reason: "recovered"})
		if err != nil {
			continue
		}
		e, aerr := reg.Await(ctx, res.Revision, 3*time.Second)
		if aerr != nil || !e.Complete {
			stuck("a suspension at %d: %v, %s", res.Revision, aerr, simStates(&e))
		}
		break
	}
	if err != nil {
		stuck("nobody commits: %v", err)
	}
}

func (w *simWorld) act(name string, f func(name string, rnd *rand.Rand)) {
	w.wg.Go(func() { f(name, w.rand(name)) })
}

// sleep is false when the life ends.
func (w *simWorld) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

func between(rnd *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rnd.Int64N(int64(most-least)))
}

// --- the store

func (w *simWorld) storeLife(_ string, rnd *rand.Rand) {
	rest := 4 * time.Second
	if w.fault.failovers {
		rest = 800 * time.Millisecond
	}
	for w.sleep(between(rnd, 200*time.Millisecond, rest)) {
		kind := rnd.IntN(5)
		if w.fault.stops {
			kind = 1
		}
		switch kind {
		case 1:
			w.stopPrimary(rnd)
		case 0:
			ahead := between(rnd, -time.Hour, time.Hour)
			w.store.SetClock(ahead)
			w.mu.Lock()
			w.jumps = append(w.jumps, simJump{time.Now(), ahead})
			w.mu.Unlock()
			w.note("store: its clock jumps to %v ahead", ahead)
		default:
			// A replica lags, which WAIT tells of each commit, and is promoted, or catches up.
			promote := w.store.Replica()
			w.store.NotDurable(true)
			w.note("store: the replica lags")
			w.sleep(between(rnd, time.Millisecond, 800*time.Millisecond))
			if rnd.IntN(4) > 0 {
				lost := w.store.Head().Revision
				promote()
				w.note("store: failed over, head %d was %d", w.store.Head().Revision, lost)
				w.count(func(c *tally) {
					c.Failovers++
					if lost > w.store.Head().Revision {
						c.Losses++
					}
				})
			}
			w.store.NotDurable(false)
		}
	}
}

// stopPrimary stops the primary for longer than a poll may take, promotes a
// replica that lagged, and wakes the old one up: it commits what was under way
// and tells those who are still subscribed to it.
func (w *simWorld) stopPrimary(rnd *rand.Rand) {
	promote := w.store.Replica()
	w.store.NotDurable(true)
	w.sleep(between(rnd, time.Millisecond, 200*time.Millisecond))
	stopped := w.store.Stop()
	w.note("store: stopped at %d", w.store.Head().Revision)
	w.sleep(between(rnd, 350*time.Millisecond, 800*time.Millisecond))
	salt := rnd.Uint64()
	stopped.Promote(promote, func(link string) bool {
		h := fnv.New64a()
		_, _ = h.Write(binary.LittleEndian.AppendUint64([]byte(link), salt))
		return h.Sum64()>>32%2 == 0
	})
	w.store.NotDurable(false)
	w.note("store: failed over, head %d", w.store.Head().Revision)
	w.sleep(between(rnd, time.Millisecond, 500*time.Millisecond))
	done, told := stopped.Wake()
	w.note("store: the old primary wakes up, runs %d calls, tells of %d", done, told)
	w.sleep(between(rnd, time.Millisecond, 500*time.Millisecond))
	stopped.End()
	w.count(func(c *tally) {
		c.Failovers++
		c.Deposed += told
	})
}

// --- sidecars

// simSidecar is one process.
type simSidecar struct {
	w               *simWorld
	id, incarnation string
	link            *registrytest.Link
	mirror          *registry.Mirror
	x               *authz.Decider
	cancel          context.CancelFunc
	done, served    sync.WaitGroup // of the mirror, of the calls
}

type simTokens map[string]*token.Claims

func (s simTokens) Verify(raw, _ string, _ time.Time) (*token.Claims, token.Failure) {
	return s[raw], token.None
}

var simClaims = func() simTokens {
	all := simTokens{}
	for _, p := range simProducts {
		all[p] = &token.Claims{Issuer: "https://i.example", KID: "k", ClientID: "app-" + p, ABN: simOwner}
	}
	return all
}()

func (w *simWorld) startSidecar(id string, life int, rnd *rand.Rand) *simSidecar {
	s := &simSidecar{w: w, id: id, incarnation: fmt.Sprint(life)}
	name := id + "/" + s.incarnation
	s.link = registrytest.NewLink(w.store)
	s.link.Name = name
	s.link.Set(registrytest.Fault{Jitter: w.jitter(name)})
	log := registrytest.Store(s.link)
	if w.fault.sidecarStore != nil {
		log = w.fault.sidecarStore(s.link)
	}
	// Clocks: the lease's may be off its rate by less than the margin allows, the
	// wall clock by less than the declared skew.
	born, rate := time.Now(), between(rnd, -4*time.Millisecond, 4*time.Millisecond).Seconds()
	skew := between(rnd, -5*time.Millisecond, 5*time.Millisecond)
	clock := func() time.Duration {
		d := time.Since(born)
		return time.Hour + d + time.Duration(float64(d)*rate)
	}
	wall := func() time.Time { return time.Now().Add(simWall + skew) }
	jitter := w.rand(name + " pauses")
	s.mirror = registry.NewMirror(log, w.sealer, registry.MirrorConfig{
		ID: id, Incarnation: s.incarnation, Short: simShort, Long: simLong, Poll: 250 * time.Millisecond, Clock: clock, Now: wall,
		Jitter: func(d time.Duration) time.Duration { return time.Duration(jitter.Int64N(int64(d))) },
	})
	served := authz.Served(s.mirror)
	if w.fault.served != nil {
		served = w.fault.served(served, log)
	}
	hasher, err := authz.NewSubjectHasher([]byte(strings.Repeat("s", 32)))
	if err != nil {
		w.t.Fatal(err)
	}
	s.x = &authz.Decider{
		Register: served, Tokens: simClaims, Certificates: token.NewThumbprints(1), IDs: authz.NewIDs(), Subjects: hasher,
		Hosts: map[string]registry.Environment{"localhost": registry.EVTE}, Now: wall, Elapsed: clock,
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.done.Go(func() { _ = s.mirror.Run(ctx) })
	traffic := w.rand(name + " traffic")
	s.served.Go(func() { s.serve(ctx, traffic) })
	w.count(func(c *tally) { c.Joins++ })
	w.note("%s starts", name)
	return s
}

// serve answers calls and forwards what it allowed, some of it late.
func (s *simSidecar) serve(ctx context.Context, rnd *rand.Rand) {
	w := s.w
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		t.Reset(between(rnd, 5*time.Millisecond, 90*time.Millisecond))
		select {
		case <-ctx.Done():
			return
		case <-w.ctx.Done(): // calls have been seen enough
			return
		case <-t.C:
		}
		product, service := simProducts[rnd.IntN(len(simProducts))], &simServices[rnd.IntN(2)]
		late := between(rnd, time.Microsecond, 20*time.Millisecond)
		if rnd.IntN(4) == 0 {
			late = between(rnd, time.Microsecond, 200*time.Millisecond) // a proxy that stalls
		}
		var d authz.Decision
		s.x.Decide(&authz.Request{Method: "GET", Target: service.Template, Host: "localhost", Authorization: "Bearer " + product, Authorizations: 1}, &d)
		if !d.Allowed() {
			w.count(func(c *tally) { c.Refused++ })
			continue
		}
		at := time.Now()
		call := admission.Call{DecisionID: d.ID.String(), ProductID: product, Service: service.Key, Method: "GET", Path: service.Template}
		stamp := w.signer.Append(nil, &call, uint64(d.Revision), d.At)
		c := simCall{at: at, id: s.id, incarnation: s.incarnation, product: product, risk: service.Risk, revision: d.Revision}
		if _, err := w.upstream.Verify(string(stamp), &call, at.Add(late+simWall)); err == nil {
			c.arrived = at.Add(late)
		}
		w.mu.Lock()
		w.counts.Allowed++
		if !c.arrived.IsZero() {
			w.counts.Arrived++
		}
		w.calls = append(w.calls, c)
		w.mu.Unlock()
	}
}

// kill ends a process at once; nobody hears of it.
func (s *simSidecar) kill() {
	s.link.Set(registrytest.Fault{Refused: true})
	s.end()
}

// end ends it in good order.
func (s *simSidecar) end() {
	s.cancel()
	s.done.Wait()
	s.served.Wait()
}

// sidecar is the fate of one sidecar's name: lives, faults of its link, and
// lives that overlap.
func (w *simWorld) sidecar(id string, rnd *rand.Rand) {
	life := 0
	if rnd.IntN(3) == 0 && !w.sleep(between(rnd, 0, 5*time.Second)) { // a late joiner
		return
	}
	var old *simSidecar
	s := w.startSidecar(id, life, rnd)
	defer func() {
		for _, s := range []*simSidecar{old, s} {
			if s != nil { // its faults end, it goes on
				s.link.Set(registrytest.Fault{Jitter: w.jitter(id + "/" + s.incarnation)})
				w.mu.Lock()
				w.living = append(w.living, s)
				w.mu.Unlock()
			}
		}
	}()
	for w.sleep(between(rnd, 20*time.Millisecond, 1500*time.Millisecond)) {
		name := id + "/" + s.incarnation
		f := registrytest.Fault{Jitter: w.jitter(name)}
		fate := rnd.IntN(12)
		if w.fault.sidecars != 0 && rnd.IntN(2) == 0 {
			fate = w.fault.sidecars % 12
		}
		switch fate {
		case 0: // killed, and started anew after a while
			s.kill()
			w.note("%s killed", name)
			w.count(func(c *tally) { c.Kills++ })
			if !w.sleep(between(rnd, 0, 2*time.Second)) {
				s = nil
				return
			}
			life++
			s = w.startSidecar(id, life, rnd)
			continue
		case 1: // ends in good order, and comes back
			w.note("%s ends", name)
			s.end()
			life++
			s = w.startSidecar(id, life, rnd)
			continue
		case 2: // paused as far as the store can tell, while another takes its name
			if old == nil {
				s.link.Set(registrytest.Fault{Silent: true, Jitter: f.Jitter})
				w.note("%s cut off and replaced", name)
				w.count(func(c *tally) { c.Pauses++ })
				life++
				old, s = s, w.startSidecar(id, life, rnd)
				continue
			}
			old.link.Set(registrytest.Fault{Jitter: w.jitter(id + "/" + old.incarnation)}) // it comes back
			w.note("%s/%s is back", id, old.incarnation)
			w.count(func(c *tally) { c.Returned++ })
			if !w.sleep(between(rnd, 0, 500*time.Millisecond)) {
				return
			}
			old.kill()
			old = nil
		case 3, 4:
			f.Silent = true
		case 5:
			f.LoseReply = true
		case 6:
			f.ReplyDelay = between(rnd, 100*time.Millisecond, 320*time.Millisecond)
		case 7:
			f.RequestDelay, f.LoseWakes = between(rnd, 0, 300*time.Millisecond), true
		case 8:
			f.Refused = true
		case 9:
			f.LoseWakes = true
		}
		w.note("%s link %+v", name, simFaultWords(&f))
		s.link.Set(f)
	}
}

func simFaultWords(f *registrytest.Fault) string {
	return fmt.Sprintf("silent %t refused %t lose-reply %t delays %v %v", f.Silent, f.Refused, f.LoseReply, f.RequestDelay, f.ReplyDelay)
}
