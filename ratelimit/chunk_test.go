package ratelimit_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/ratelimittest"
)

// crew is a few sidecars on one pool, each of which may be killed.
type crew struct {
	elapsed func() time.Duration
	pool    *ratelimittest.Pool
	nodes   []*rl.Limiter
	wires   []*wire
	stops   []context.CancelFunc
	walls   []*atomic.Int64 // how far each one's clock is off, in nanoseconds
	subject uint64          // of the last request
	running sync.WaitGroup
}

func startCrew(t *testing.T, n int) *crew {
	start := time.Now()
	c := &crew{elapsed: func() time.Duration { return time.Since(start) + time.Hour }, pool: ratelimittest.NewPool()}
	for i := range n {
		c.begin(t, i, false)
	}
	time.Sleep(3 * time.Second)
	return c
}

// begin starts one more sidecar, of the name of the ith; alone: it knows that
// whoever had the name before has ended.
func (c *crew) begin(t *testing.T, i int, alone bool) {
	k := &wire{pool: c.pool, up: &gate{}, rng: rand.New(rand.NewPCG(uint64(len(c.nodes)), 3))}
	wall := &atomic.Int64{}
	c.walls = append(c.walls, wall)
	l, err := rl.New(rl.Options{ID: fmt.Sprint("c", i), Alone: alone, Pool: k, Elapsed: c.elapsed, Now: func() time.Time { return time.Now().Add(time.Duration(wall.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c.nodes, c.wires, c.stops = append(c.nodes, l), append(c.wires, k), append(c.stops, stop)
	c.running.Go(func() { _ = l.Run(ctx) })
}

func (c *crew) now(i int) time.Time { return time.Now().Add(time.Duration(c.walls[i].Load())) }

// cutOff shuts one's way to the pool, which it has noticed then.
func (c *crew) cutOff(i int) {
	c.wires[i].up.stop()
	time.Sleep(2 * time.Second)
}

func (c *crew) kill(i int) {
	c.wires[i].kill()
	c.stops[i]()
	if c.wires[i].up.wait() != nil {
		c.wires[i].up.resume() // what it sent before may arrive
	}
}

func (c *crew) end() {
	for i := range c.nodes {
		c.kill(i)
	}
	c.running.Wait()
}

// spend makes requests a millisecond apart, each of a subject of its own, and counts
// those that pass.
func (c *crew) spend(i, n int, limit *rl.Limit) (passed int) {
	var out rl.Outcome
	for range n {
		time.Sleep(time.Millisecond)
		c.subject++
		q := rl.Query{Elapsed: c.elapsed(), Now: c.now(i)}
		binary.BigEndian.PutUint64(q.Subject[:], c.subject)
		if c.nodes[i].Spend(&q, []*rl.Limit{limit}, &out) {
			passed++
		}
	}
	return passed
}

// A sidecar that dies holds a chunk of a quota. What it had not opened comes back
// when its lease has lapsed, and the others spend it; nothing is spent twice.
func TestTheChunkOfADeadSidecarComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const amount = 20_000
		c := startCrew(t, 2)
		defer c.end()
		quota := func() *rl.Limit { return &rl.Limit{ID: "day", Version: 1, Kind: rl.QuotaDay, Amount: amount} }
		mine, theirs := quota(), quota()
		passed := c.spend(0, 20, mine)
		time.Sleep(5 * time.Second) // it is idle, and holds what it may
		passed += c.spend(0, 1, mine)
		time.Sleep(time.Second)
		_, level, _ := rl.Holding(c.nodes[0], "day")
		if level < 50*rl.Micro {
			t.Fatalf("the sidecar holds %.0f requests: too few to tell what comes back", level/rl.Micro)
		}
		c.kill(0)
		time.Sleep(2 * time.Minute) // longer than any lease
		for range 200 {
			n := c.spend(1, 200, theirs)
			passed += n
			if n == 0 {
				time.Sleep(time.Second)
			}
		}
		if passed > amount || passed < amount-20 {
			t.Errorf("%d of %d passed, one sidecar having died with %.0f in its hands", passed, amount, level/rl.Micro)
		}
	})
}

// Five sidecars spend a quota, and one of them is killed in the midst of it, or
// when it is almost gone. What passes in the day is the quota but for what the
// dead one had open and unspent, which is small, and smaller near the end.
func TestAKilledSidecarCostsAQuotaItsOpenPartOnly(t *testing.T) {
	const amount, sidecars = 40_000, 5
	for _, c := range []struct {
		name        string
		killAt, max int // when so many have passed; what may be lost
	}{
		{"in the midst", amount / 2, 1000}, // four seconds of its calls, of which 200 come a second
		{"near the end", amount - 600, 300},
		{"at the end", amount - 60, 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				crew := startCrew(t, sidecars)
				defer crew.end()
				limits := make([]*rl.Limit, sidecars)
				for i := range limits {
					limits[i] = &rl.Limit{ID: "day", Version: 1, Kind: rl.QuotaDay, Amount: amount}
				}
				passed, lost, from := 0, int64(-1), 0
				for idle := 0; idle < 300; {
					n := 0
					for i := from; i < sidecars; i++ {
						n += crew.spend(i, 1, limits[i])
					}
					if passed += n; lost < 0 && passed >= c.killAt {
						lost = rl.Opened(crew.nodes[0], "day") / rl.Micro
						crew.kill(0)
						from = 1
					}
					if idle++; n > 0 {
						idle = 0
					} else {
						time.Sleep(time.Second) // until the lease of the dead one has lapsed
					}
				}
				t.Logf("%d of %d passed; %d were open in the hands of the dead one", passed, amount, lost)
				if passed > amount || int64(passed) < amount-lost-1 || lost > int64(c.max) {
					t.Errorf("%d of %d passed, %d of them lost with what was open; at most %d may be", passed, amount, lost, c.max)
				}
			})
		})
	}
}

// A large quota nobody has used for a while meets the load that comes at once:
// part of it stayed where it was last used.
func TestALargeQuotaIsThereAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCrew(t, 2)
		defer c.end()
		quota := &rl.Limit{ID: "day", Version: 1, Kind: rl.QuotaDay, Amount: 1_000_000}
		for round := range 3 {
			if passed := c.spend(0, 1000, quota); passed != 1000 {
				t.Errorf("round %d: %d of 1000 passed", round, passed)
			}
			time.Sleep(10 * time.Second)
		}
	})
}

// Who has used a quota before keeps a chunk of it, and gives it to whoever needs
// it at the end.
func TestAQuotaIsSpentToTheLastRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const amount = 30_000
		c := startCrew(t, 4)
		defer c.end()
		passed := 0
		limits := make([]*rl.Limit, len(c.nodes))
		for i := range limits {
			limits[i] = &rl.Limit{ID: "day", Version: 1, Kind: rl.QuotaDay, Amount: amount}
			passed += c.spend(i, 50, limits[i])
		}
		time.Sleep(5 * time.Second) // they are idle now
		for range 100 {
			passed += c.spend(0, 400, limits[0])
		}
		if passed != amount {
			t.Errorf("%d of %d passed", passed, amount)
		}
	})
}

// A sidecar may spend its standing part of a limit and die before it can say so:
// its successor is told that the part may be spent, and begins with nothing of it.
func TestASuccessorHasNoPartThatMayBeSpent(t *testing.T) {
	told := func(plant ratelimittest.Fault) bool {
		pool := ratelimittest.NewPool()
		pool.Plant = plant
		first, err := pool.Sync(t.Context(), &rl.Request{Seat: "s", Beat: 1, Born: 1000})
		if err != nil || first.Parts != 1 || first.Spent {
			t.Fatalf("the first of its name: %+v, %v", first, err)
		}
		next, err := pool.Sync(t.Context(), &rl.Request{Seat: "s", Beat: 1, Born: 2000, Dead: true})
		if err != nil || next.Parts != 1 || next.Tenure == first.Tenure {
			t.Fatalf("its successor: %+v, %v", next, err)
		}
		return next.Spent
	}
	if !told(ratelimittest.None) {
		t.Error("the successor was not told")
	}
	if told(ratelimittest.FullSpentParts) {
		t.Error("the planted fault is none")
	}
}

// People who come by two sidecars at once are counted once: what the second one
// spent on them comes back, to the last person that there may be.
func TestPeopleWhoComeTwiceAreCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const amount, sidecars = 20, 5
		c := startCrew(t, sidecars)
		defer c.end()
		var limits [sidecars]*rl.Limit
		for i := range limits {
			limits[i] = &rl.Limit{ID: "people", Version: 1, Kind: rl.DistinctDay, Amount: amount}
		}
		passed := map[int]bool{}
		var out rl.Outcome
		come := func(person, sidecar int) {
			q := rl.Query{Elapsed: c.elapsed(), Now: time.Now(), Subject: [16]byte{1, byte(person)}}
			if c.nodes[sidecar].Spend(&q, []*rl.Limit{limits[sidecar]}, &out) {
				passed[person] = true
			}
		}
		for person := range 80 {
			come(person, person%sidecars)
			come(person, (person+1)%sidecars)
			time.Sleep(100 * time.Microsecond)
		}
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			for person := range 80 {
				come(person, person%sidecars)
			}
		}
		if len(passed) != amount {
			t.Errorf("%d people passed, want %d", len(passed), amount)
		}
	})
}
