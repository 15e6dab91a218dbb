package ratelimit_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/ratelimittest"
)

var (
	simSeeds = flag.Int("limits.seeds", 25, "lives to simulate")
	simFirst = flag.Uint64("limits.first", 1, "the seed of the first of them")
	simSeed  = flag.Uint64("limits.seed", 0, "only this one, with its history")
)

const (
	simHold  = 2 * time.Second
	simStand = 8 * time.Second
	simLife  = 40 * time.Second
	simNodes = 4
	simCold  = 4                      // limits that are seldom used, and as many quotas
	quiet    = 4000                   // who calls so seldom uses a limit seldom
	coldDay  = 12                     // such a quota
	callTime = 150 * time.Millisecond // of a call that a concurrency cap counts
)

// simWorld is a fleet with its pool, faults by seed, and what it may let pass.
type simWorld struct {
	t     *testing.T
	seed  uint64
	start time.Time
	pool  *ratelimittest.Pool
	nodes []*simNode
	loud  bool

	mu       sync.Mutex
	figures  []figures // by version, from 1
	rates    map[string]*strictBucket
	quotas   map[string]int
	settled  int            // of figures, those that everybody knows
	used     map[string]int // of quotas, when everybody knew them
	inUse    int
	subjects map[string]map[[16]byte]bool
	passed   int
	wrong    []string
	poolAway bool
	tails    sync.WaitGroup // what arrives late
	mutant   mutant
	seldom   int // of so many calls one uses what is seldom used
}

// mutant is a mistake of the sidecars to plant; those of the pool are its Plant.
type mutant int

const (
	sound         mutant = iota
	neverFalls           // goes on with a share after its lease
	returnsTwice         // gives back more tokens than it stops using
	keepsReturned        // says it holds less than it does
	hidesOpen            // says less may be spent of a quota than is
)

func coldID(i int) string { return fmt.Sprint("cold", i) }

func coldDayID(i int) string { return fmt.Sprint("day", i) }

// figures are the limits at a version.
type figures struct {
	version      uint64
	rate         float64
	burst, quota int64
	slots, heads int64
}

// strictBucket is empty exactly when some window saw more than rate × window + burst.
type strictBucket struct {
	level, rate, burst float64
	at                 time.Duration
}

func (b *strictBucket) advance(now time.Duration) {
	b.level = math.Min(b.level+(now-b.at).Seconds()*b.rate, b.burst)
	b.at = now
}

// simNode is one sidecar process, or the place of one.
type simNode struct {
	w     *simWorld
	id    int
	clock time.Duration

	mu           sync.Mutex
	limiter      *rl.Limiter
	stop, crash  context.CancelFunc
	ended        <-chan struct{}
	stalledUntil time.Time
	wall         time.Duration // how far the wall clock is off
	away         bool
	lag          time.Duration
	version      uint64
	life         int
	pace         float64 // requests a second
	craves       int     // the next is for the one of this number, 0 when for any
	done         sync.WaitGroup
}

// elapsed reads the clock and then, maybe, the process stops.
func (n *simNode) elapsed() time.Duration {
	v := time.Since(n.w.start) + n.clock
	for {
		n.mu.Lock()
		until := n.stalledUntil
		n.mu.Unlock()
		d := time.Until(until)
		if d <= 0 {
			return v
		}
		time.Sleep(d)
	}
}

func (n *simNode) now() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Now().Add(n.wall)
}

// simLink is one life's way to the pool. It dies with the process.
type simLink struct {
	n    *simNode
	life context.Context
	rng  *rand.Rand
	mu   sync.Mutex
}

func (k *simLink) Wake(ctx context.Context, ring func(rl.Hint)) {
	k.n.w.pool.Wake(ctx, func(h rl.Hint) {
		k.mu.Lock()
		heard := k.rng.IntN(10) > 0
		k.mu.Unlock()
		if heard {
			ring(h)
		}
	})
}

// Sync loses requests, loses answers, and delivers requests long after their
// sender gave up on them.
func (k *simLink) Sync(ctx context.Context, req *rl.Request) (*rl.Reply, error) {
	k.n.mu.Lock()
	away, lag := k.n.away, k.n.lag
	k.n.mu.Unlock()
	k.n.w.mu.Lock()
	away = away || k.n.w.poolAway
	k.n.w.mu.Unlock()
	k.mu.Lock()
	there := time.Duration(k.rng.Int64N(int64(2*time.Millisecond))) + lag
	back := time.Duration(k.rng.Int64N(int64(2 * time.Millisecond)))
	late := k.rng.IntN(150) == 0
	lost := k.rng.IntN(100) == 0
	k.mu.Unlock()
	if k.life.Err() != nil {
		return nil, errors.New("killed")
	}
	if away {
		<-ctx.Done()
		return nil, ratelimittest.ErrAway
	}
	sent := k.tamper(req)
	if late {
		k.n.w.later(time.Second+there*2000, func() { _, _ = k.n.w.pool.Sync(context.Background(), sent) })
		<-ctx.Done()
		return nil, ratelimittest.ErrAway
	}
	time.Sleep(there)
	if ctx.Err() != nil && lag > 0 {
		k.n.w.later(lag, func() { _, _ = k.n.w.pool.Sync(context.Background(), sent) })
		return nil, ctx.Err()
	}
	rep, err := k.n.w.pool.Sync(ctx, sent)
	time.Sleep(back)
	if lost || ctx.Err() != nil || k.life.Err() != nil {
		return nil, ratelimittest.ErrAway
	}
	return rep, err
}

// tamper copies a request, as a wire does, and plants what is to be found.
func (k *simLink) tamper(req *rl.Request) *rl.Request {
	c := *req
	c.Items = slices.Clone(req.Items)
	for i := range c.Items {
		it := &c.Items[i]
		switch k.n.w.mutant {
		case returnsTwice:
			it.Returned *= 2
			it.Spent = it.Spent / 2
		case hidesOpen:
			it.Open = 0
		case keepsReturned:
			if it.Held.Cap > 2*rl.Micro {
				it.Held.Cap -= rl.Micro
				it.Returned += rl.Micro
			}
		}
	}
	return &c
}

func (w *simWorld) later(d time.Duration, f func()) {
	w.tails.Go(func() {
		time.Sleep(d)
		f()
	})
}

func (w *simWorld) log(format string, args ...any) {
	if w.loud {
		w.t.Logf("%8.3f %s", time.Since(w.start).Seconds(), fmt.Sprintf(format, args...))
	}
}

func (w *simWorld) limits(version uint64) []*rl.Limit {
	w.mu.Lock()
	f := w.figures[version-1]
	w.mu.Unlock()
	limits := []*rl.Limit{
		{ID: "rate", Version: f.version, Kind: rl.Rate, Rate: f.rate, Burst: f.burst},
		{ID: "small", Version: 1, Kind: rl.Rate, Rate: 2, Burst: 3},
		{ID: "quota", Version: f.version, Kind: rl.QuotaDay, Amount: f.quota},
		{ID: "slots", Version: 1, Kind: rl.Concurrency, Amount: f.slots},
		{ID: "heads", Version: 1, Kind: rl.DistinctDay, Amount: f.heads},
	}
	for i := range simCold {
		limits = append(limits, &rl.Limit{ID: coldID(i), Version: 1, Kind: rl.Rate, Rate: 0.5, Burst: 40})
	}
	for i := range simCold {
		limits = append(limits, &rl.Limit{ID: coldDayID(i), Version: 1, Kind: rl.QuotaDay, Amount: coldDay})
	}
	return limits
}

// begin starts a process in the node's place.
func (n *simNode) begin(alone bool) {
	n.mu.Lock()
	n.life++
	life, crash := context.WithCancel(context.Background())
	ctx, stop := context.WithCancel(life)
	hold := simHold
	if n.w.mutant == neverFalls && n.id == 0 {
		hold = simStand
	}
	k := &simLink{n: n, life: life, rng: rand.New(rand.NewPCG(n.w.seed, uint64(n.id*1000+n.life)))}
	// Of its own: the process before may not have ended yet.
	rng := rand.New(rand.NewPCG(n.w.seed, uint64(1_000_000+n.id*1000+n.life)))
	n.mu.Unlock()
	l, err := rl.New(rl.Options{
		ID: fmt.Sprint("n", n.id), Alone: alone, Pool: k, Elapsed: n.elapsed, Now: n.now,
		Hold: hold, Stand: simStand, Beat: 300 * time.Millisecond, Timeout: 200 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	n.mu.Lock()
	n.limiter, n.stop, n.crash, n.ended = l, stop, crash, ctx.Done()
	n.mu.Unlock()
	n.done.Go(func() { _ = l.Run(ctx) })
	n.done.Go(func() { n.spend(ctx, l, rng) })
}

// spend makes requests until the process ends.
func (n *simNode) spend(ctx context.Context, l *rl.Limiter, rng *rand.Rand) {
	all := map[uint64][]*rl.Limit{}
	if n.w.seldom == quiet {
		time.Sleep(time.Second) // everybody is seated before anything is spent
	}
	for ctx.Err() == nil {
		n.mu.Lock()
		pace, version, craves := n.pace, n.version, n.craves
		n.craves = 0
		n.mu.Unlock()
		time.Sleep(time.Duration(rng.ExpFloat64() / pace * 1e9))
		if ctx.Err() != nil {
			return
		}
		if all[version] == nil {
			all[version] = n.w.limits(version)
		}
		limits := all[version]
		pick := []*rl.Limit{limits[rng.IntN(5)]}
		switch {
		case craves > 0 || rng.IntN(n.w.seldom) == 0:
			// One that is seldom used, and then all at once, or all of it.
			if craves == 0 {
				craves = len(limits) - rng.IntN(2*simCold)
			}
			one, pause := limits[craves-1:][:1], time.Duration(rng.IntN(2))*20*time.Millisecond
			for range 5 + 10*int(pause/(5*time.Millisecond)) {
				n.once(l, rng, one)
				time.Sleep(pause)
			}
			continue
		case rng.IntN(3) == 0:
			pick = []*rl.Limit{limits[0], limits[2], limits[3]}
		}
		n.once(l, rng, pick)
	}
}

// once makes one request.
func (n *simNode) once(l *rl.Limiter, rng *rand.Rand, pick []*rl.Limit) {
	q := &rl.Query{Elapsed: n.elapsed(), Now: n.now()}
	q.Subject[0] = byte(1 + rng.IntN(120))
	var out rl.Outcome
	read := q.Elapsed
	if !l.Spend(q, pick, &out) {
		return
	}
	if time.Since(n.w.start)+n.clock != read {
		// It was stopped between reading the clock and deciding: such a request is
		// stopped by the lease of the register and by the stamp, not by a limit.
		out.Hold().Release()
		return
	}
	n.w.admit(n, q, pick)
	if !out.Hold().Any() {
		return
	}
	n.mu.Lock()
	ended := n.ended
	n.mu.Unlock()
	n.done.Go(func() {
		select { // its calls end with a process
		case <-time.After(callTime):
		case <-ended:
		}
		n.w.mu.Lock()
		n.w.inUse--
		n.w.mu.Unlock()
		out.Hold().Release()
	})
}

// admit counts what passed and says when it was too much.
func (w *simWorld) admit(n *simNode, q *rl.Query, limits []*rl.Limit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passed++
	now := time.Since(w.start)
	f := w.figures[len(w.figures)-1]
	for _, l := range limits {
		period, _, _ := l.Period(q.Now)
		switch l.Kind {
		case rl.Rate:
			b := w.rates[l.ID]
			b.advance(now)
			if b.level--; b.level < -1e-6 {
				w.complain("node %d: %s admitted %.3f more than rate × window + burst", n.id, l.ID, -b.level)
				b.level = 0
			}
		case rl.QuotaDay:
			key := l.ID + " " + period
			most := max(w.quotaMax(), int64(w.used[key]))
			if l.ID != "quota" {
				most = coldDay
			}
			if w.quotas[key]++; int64(w.quotas[key]) > most {
				w.complain("node %d: %d passed the quota of %d of %s", n.id, w.quotas[key], most, key)
			}
		case rl.Concurrency:
			if w.inUse++; int64(w.inUse) > f.slots {
				w.complain("node %d: %d calls at once, %d are allowed", n.id, w.inUse, f.slots)
			}
		case rl.DistinctDay:
			seen := w.subjects[period]
			if seen == nil {
				seen = map[[16]byte]bool{}
				w.subjects[period] = seen
			}
			if seen[q.Subject] = true; int64(len(seen)) > f.heads {
				w.complain("node %d: %d subjects on %s, %d are allowed", n.id, len(seen), period, f.heads)
			}
		}
	}
}

func (w *simWorld) quotaMax() (most int64) {
	for _, f := range w.figures[w.settled:] {
		most = max(most, f.quota)
	}
	return most
}

func (w *simWorld) complain(format string, args ...any) {
	if len(w.wrong) < 5 {
		w.wrong = append(w.wrong, fmt.Sprintf("%.3f s: ", time.Since(w.start).Seconds())+fmt.Sprintf(format, args...))
	}
}

// live lets a fleet live through faults made of the seed; what went wrong comes
// back.
func live(t *testing.T, seed uint64, m mutant, plant ratelimittest.Fault, loud bool) (wrong []string, passed int) {
	synctest.Test(t, func(t *testing.T) {
		w := &simWorld{
			t: t, seed: seed, start: time.Now(), pool: ratelimittest.NewPool(), loud: loud, mutant: m,
			rates: map[string]*strictBucket{}, quotas: map[string]int{}, subjects: map[string]map[[16]byte]bool{},
		}
		w.pool.Plant = plant
		w.seldom = []int{12, 200, 1000, quiet}[seed%4]
		rng := rand.New(rand.NewPCG(seed, 99))
		f := figures{version: 1, rate: float64(20 + rng.IntN(200)), burst: int64(5 + rng.IntN(100)), quota: int64(50+rng.IntN(400)) * int64(1+9*rng.IntN(2)), slots: int64(1 + rng.IntN(12)), heads: int64(5 + rng.IntN(60))}
		w.figures = []figures{f}
		w.rates["rate"] = &strictBucket{level: float64(f.burst), rate: f.rate, burst: float64(f.burst)}
		w.rates["small"] = &strictBucket{level: 3, rate: 2, burst: 3}
		for i := range simCold {
			w.rates[coldID(i)] = &strictBucket{level: 40, rate: 0.5, burst: 40}
		}
		for i := range simNodes {
			n := &simNode{w: w, id: i, version: 1, clock: time.Duration(1+rng.IntN(1000)) * time.Hour, pace: f.rate * (0.1 + rng.Float64())}
			w.nodes = append(w.nodes, n)
		}
		for _, n := range w.nodes {
			n.begin(false)
		}
		if w.seldom == quiet {
			time.Sleep(2 * time.Second)
			w.dieUnheard(w.nodes[rng.IntN(simNodes)], rng) // while all parts are whole
		}
		for time.Since(w.start) < simLife {
			time.Sleep(time.Duration(rng.Int64N(int64(1500 * time.Millisecond))))
			w.fault(rng)
			if bad := w.pool.Check(); bad != nil {
				w.mu.Lock()
				w.complain("the pool lends more than there is of %v", bad)
				w.mu.Unlock()
			}
		}
		for _, n := range w.nodes {
			n.mu.Lock()
			n.crash()
			n.mu.Unlock()
		}
		for _, n := range w.nodes {
			n.done.Wait()
		}
		w.tails.Wait()
		wrong, passed = w.wrong, w.passed
	})
	return wrong, passed
}

// fault does one thing to the fleet.
func (w *simWorld) fault(rng *rand.Rand) {
	n := w.nodes[rng.IntN(len(w.nodes))]
	d := time.Duration(rng.Int64N(int64(5 * time.Second)))
	switch rng.IntN(12) {
	case 0, 1:
		dead := rng.IntN(2) == 0
		w.log("node %d is killed; its successor knows: %v", n.id, dead)
		unheard := time.Duration(rng.IntN(3)-1) * time.Second
		n.mu.Lock()
		n.away = n.away || unheard > 0
		n.mu.Unlock()
		time.Sleep(unheard)
		n.mu.Lock()
		n.crash()
		n.away = n.away && unheard <= 0
		n.mu.Unlock()
		switch rng.IntN(6) {
		case 0, 1, 2:
			d = 0 // started again at once
		case 3:
			w.log("its place stays empty for long")
			d = 4 * (simStand + 3*time.Second)
		}
		synctest.Wait()
		time.Sleep(d / 4)
		n.begin(dead)
	case 2:
		w.log("node %d leaves and comes back", n.id)
		n.mu.Lock()
		n.stop()
		n.mu.Unlock()
		time.Sleep(d/10 + 500*time.Millisecond)
		n.begin(true)
	case 3, 4:
		w.log("node %d stalls for %v", n.id, d)
		n.mu.Lock()
		n.stalledUntil = time.Now().Add(d)
		n.mu.Unlock()
	case 5:
		w.log("node %d is cut off for %v", n.id, d*2)
		n.mu.Lock()
		n.away = true
		n.mu.Unlock()
		w.later(d*2, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.away = false
		})
	case 6:
		w.log("the pool is away for %v", d)
		w.mu.Lock()
		w.poolAway = true
		w.mu.Unlock()
		time.Sleep(d)
		w.mu.Lock()
		w.poolAway = false
		w.mu.Unlock()
	case 7:
		jump := time.Duration(rng.IntN(5)-2) * 13 * time.Hour
		w.log("node %d has its wall clock set to %v off", n.id, jump)
		all := []*simNode{n}
		if rng.IntN(2) == 0 {
			w.log("and so has everybody")
			all = w.nodes // they ask the same time server
		}
		for _, n := range all {
			n.mu.Lock()
			n.wall = jump
			n.mu.Unlock()
		}
	case 8:
		w.change(rng)
	case 9:
		n.mu.Lock()
		n.pace = max(w.figures[0].rate*rng.Float64()*1.5, 0.5)
		w.log("node %d is asked %.1f a second", n.id, n.pace)
		n.mu.Unlock()
	case 10:
		w.log("node %d has a slow line", n.id)
		n.mu.Lock()
		n.lag = time.Duration(rng.IntN(3)) * 120 * time.Millisecond
		n.mu.Unlock()
	case 11:
		w.dieUnheard(n, rng)
	}
}

// dieUnheard cuts a node off, has it use a limit that may be new to the fleet, and
// kills it. Some time later all use that limit.
func (w *simWorld) dieUnheard(n *simNode, rng *rand.Rand) {
	limit := 6 + rng.IntN(2*simCold)
	w.log("node %d is cut off, uses limit %d and is killed", n.id, limit)
	n.mu.Lock()
	n.away = true
	n.mu.Unlock()
	time.Sleep(time.Second)
	n.mu.Lock()
	n.craves = limit
	n.mu.Unlock()
	time.Sleep(2 * time.Second)
	n.mu.Lock()
	n.crash()
	n.away = false
	n.mu.Unlock()
	synctest.Wait()
	if rng.IntN(2) == 0 {
		time.Sleep(simStand + 3*time.Second)
	}
	order := rng.Perm(len(w.nodes))
	for _, i := range order {
		if i == n.id {
			n.begin(rng.IntN(2) == 0)
			time.Sleep(time.Duration(rng.Int64N(int64(2 * time.Second))))
		}
		o := w.nodes[i]
		o.mu.Lock()
		o.craves = limit
		o.mu.Unlock()
		time.Sleep(time.Second)
	}
}

// change gives the limits new figures, which the sidecars learn within a second.
func (w *simWorld) change(rng *rand.Rand) {
	w.mu.Lock()
	old := w.figures[len(w.figures)-1]
	f := old
	f.version++
	factor := []float64{0.3, 0.7, 1.5, 3}[rng.IntN(4)]
	f.rate, f.burst = f.rate*factor, max(int64(float64(f.burst)*factor), 1)
	f.quota = max(int64(float64(f.quota)*factor), 1)
	w.figures = append(w.figures, f)
	b := w.rates["rate"]
	b.advance(time.Since(w.start))
	b.level += max(float64(f.burst-old.burst), 0)
	b.rate, b.burst = max(f.rate, old.rate), float64(max(f.burst, old.burst))
	w.mu.Unlock()
	w.log("the limit is now %.1f/s, burst %d, quota %d", f.rate, f.burst, f.quota)
	order := rng.Perm(len(w.nodes))
	for _, i := range order {
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second / simNodes))))
		n := w.nodes[i]
		n.mu.Lock()
		n.version = f.version
		n.mu.Unlock()
	}
	time.Sleep(time.Second)
	w.mu.Lock()
	b.advance(time.Since(w.start))
	b.rate, b.burst = f.rate, float64(f.burst)
	b.level = min(b.level, b.burst)
	w.settled, w.used = len(w.figures)-1, maps.Clone(w.quotas)
	w.mu.Unlock()
}

// Whatever happens, no limit lets more pass than there is of it.
func TestNoLimitIsExceededInSimulation(t *testing.T) {
	if *simSeed != 0 {
		wrong, passed := live(t, *simSeed, sound, ratelimittest.None, true)
		t.Logf("%d passed", passed)
		for _, s := range wrong {
			t.Error(s)
		}
		return
	}
	lives := *simSeeds
	if testing.Short() {
		lives = 4
	}
	total := 0
	for seed := *simFirst; seed < *simFirst+uint64(lives); seed++ {
		wrong, passed := live(t, seed, sound, ratelimittest.None, false)
		total += passed
		if wrong != nil {
			t.Fatalf("seed %d:\n%s\nsee it: go test ./ratelimit -run %s -args -limits.seed %d", seed, strings.Join(wrong, "\n"), t.Name(), seed)
		}
	}
	if total < 1000*lives {
		t.Errorf("only %d requests passed: the simulation proves nothing", total)
	}
}

// Each mistake, planted, is found within a few lives.
func TestSimulationCatchesPlantedFaults(t *testing.T) {
	for name, c := range map[string]struct {
		m mutant
		p ratelimittest.Fault
	}{
		"goes on after the lease": {m: neverFalls}, "returns twice": {m: returnsTwice}, "keeps what it returned": {m: keepsReturned},
		"spends what was closed": {m: hidesOpen}, "returns what was open": {p: ratelimittest.ReturnOpen},
		"lends twice": {p: ratelimittest.LendTwice}, "obeys late requests": {p: ratelimittest.IgnoreBeat},
		"trusts claims": {p: ratelimittest.TrustClaims}, "returns what the dead held": {p: ratelimittest.ReturnDead},
		"forgets what the dead may have spent": {p: ratelimittest.ForgetDead},
		"takes a spent part for whole":         {p: ratelimittest.FullSpentParts},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(1000) {
				if wrong, _ := live(t, seed+1, c.m, c.p, false); wrong != nil {
					t.Logf("seed %d: %s", seed+1, wrong[0])
					return
				}
			}
			t.Error("not found in 1000 lives")
		})
	}
}
