package redisshare_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	rl "github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/ratelimittest"
	"github.com/dspgate/dspgate/ratelimit/redisshare"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
)

func open(t *testing.T, server *redistest.Server, cluster bool) *redisshare.Pool {
	t.Helper()
	rdb, err := redisstore.Dial(redisstore.Config{Addrs: []string{server.Addr}, Cluster: cluster, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return redisshare.New(rdb, redisshare.Options{})
}

// midnight is when 2026-03-11 begins, in Unix seconds.
const midnight = 1773187200

// driver makes up requests of several seats, and puts them to both pools.
type driver struct {
	r     *rand.Rand
	seats []*driven
	ids   []string
}

type driven struct {
	name               string
	tenure, beat, seen uint64
	parts              int
	held               map[rl.HotLimit]rl.Share
	spent              map[rl.HotLimit]int64
}

func (d *driver) request() (*driven, *rl.Request) {
	s := d.seats[d.r.IntN(len(d.seats))]
	s.beat++
	req := &rl.Request{
		Seat: s.name, Tenure: s.tenure, Beat: s.beat, Parts: s.parts, Notice: s.seen,
		Fleet: d.r.IntN(4) == 0, Whole: d.r.IntN(3) == 0, Born: int64(d.r.IntN(9)) * 1000, Dead: s.tenure == 0 && d.r.IntN(2) == 0, Leave: s.tenure != 0 && d.r.IntN(60) == 0,
		Until: midnight + int64(d.r.IntN(3)-1)*43200,
	}
	if d.r.IntN(20) == 0 {
		req.Beat -= uint64(d.r.IntN(2)) // late
	}
	if d.r.IntN(30) == 0 {
		req.Tenure = 0
	}
	if d.r.IntN(8) == 0 {
		o := d.seats[d.r.IntN(len(d.seats))]
		req.Claims = append(req.Claims, rl.Claim{Tenure: o.tenure, Beat: o.beat - uint64(d.r.IntN(2)), Gone: d.r.IntN(3) == 0, Over: int64(d.r.IntN(4))})
	}
	for range d.r.IntN(4) {
		if it := d.item(s); !slices.ContainsFunc(req.Items, func(o rl.Item) bool { return o.ID == it.ID && o.Period == it.Period }) {
			req.Items = append(req.Items, it)
		}
	}
	return s, req
}

func (d *driver) item(s *driven) rl.Item {
	kind := rl.Kind(1 + d.r.IntN(5))
	it := rl.Item{ID: d.ids[d.r.IntN(len(d.ids))] + kind.String(), Kind: kind, Version: uint64(1 + d.r.IntN(3))}
	it.Total = rl.Share{Cap: []int64{1, 3, 20, 500}[it.Version%4] * rl.Micro}
	if kind == rl.Rate {
		it.Total.Rate = int64(d.r.IntN(2)+1) * 50 * rl.Micro
	}
	if kind.Calendar() {
		day := d.r.IntN(2)
		it.Period, it.Begin = "2026-03-1"+string(rune('0'+day)), midnight+int64(day-1)*86400
	}
	key := rl.HotLimit{ID: it.ID, Period: it.Period}
	held, ok := s.held[key]
	if !ok {
		held = rl.Standing(kind, it.Total, s.parts, 0)
		it.Standing = d.r.IntN(2) == 0
	}
	part := func(n int64) int64 { return int64(float64(n) * []float64{0, 0.5, 1, 1}[d.r.IntN(4)]) }
	it.Held = rl.Share{Rate: part(held.Rate), Cap: part(held.Cap)}
	it.Returned = part(held.Cap - it.Held.Cap)
	s.spent[key] += part(held.Cap - it.Held.Cap)
	if it.Spent = s.spent[key]; d.r.IntN(20) == 0 {
		it.Spent, s.spent[key] = -1, 0
	}
	it.Level, it.Open = part(it.Held.Cap), part(it.Held.Cap)
	if d.r.IntN(3) > 0 {
		it.Demand, it.Ask, it.AskCap = int64(d.r.IntN(200))*rl.Micro, int64(d.r.IntN(40))*rl.Micro/2, int64(d.r.IntN(20))*rl.Micro
		it.Into = min(it.Ask, part(it.Held.Cap))
	} else {
		it.Idle = d.r.IntN(2) == 0
	}
	it.Nag = d.r.IntN(4) == 0
	if kind == rl.DistinctDay {
		for range d.r.IntN(3) {
			it.Subjects = append(it.Subjects, [16]byte{0xff, byte(d.r.IntN(5)), '\r', '\n'})
		}
		it.Again = d.r.IntN(len(it.Subjects) + 1)
	}
	return it
}

// The script does what the pool in memory does, which the simulations prove:
// the same requests get the same answers.
func TestScriptAgreesWithMemory(t *testing.T) {
	server := redistest.Start(t, "--appendfsync", "no")
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			server.Must("FLUSHALL")
			pool, memory := open(t, server, false), ratelimittest.NewPool()
			d := &driver{r: rand.New(rand.NewPCG(seed, 3)), ids: []string{"a:", "b:"}}
			for i := range 4 {
				d.seats = append(d.seats, &driven{name: fmt.Sprintf("seat %d", i), held: map[rl.HotLimit]rl.Share{}, spent: map[rl.HotLimit]int64{}})
			}
			for step := range 400 {
				s, req := d.request()
				got, err := pool.Sync(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				want, err := memory.Sync(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				order := []cmp.Option{
					cmpopts.EquateEmpty(),
					cmpopts.SortSlices(func(a, b rl.HotLimit) bool { return a.ID+a.Period < b.ID+b.Period }),
					cmpopts.SortSlices(func(a, b rl.Seat) bool { return a.Tenure < b.Tenure }),
				}
				if diff := cmp.Diff(want, got, order...); diff != "" {
					t.Fatalf("step %d: %+v\nmemory against Redis:\n%s", step, req, diff)
				}
				if got.Tenure != s.tenure {
					s.tenure, s.held = got.Tenure, map[rl.HotLimit]rl.Share{}
				}
				if req.Leave {
					s.tenure = 0
				}
				s.seen, s.parts = got.Notice, got.Parts
				for i := range got.Items {
					s.held[rl.HotLimit{ID: req.Items[i].ID, Period: req.Items[i].Period}] = got.Items[i].Held
				}
			}
		})
	}
}

// Five sidecars, real Redis, a quota: what passes is exactly the quota, although
// every sidecar asks for it at once.
func TestQuotaIsExactAcrossSidecars(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *redistest.Server{
		"alone":   func(t *testing.T) *redistest.Server { return redistest.Start(t, "--appendfsync", "no") },
		"cluster": func(t *testing.T) *redistest.Server { return redistest.StartCluster(t) },
	} {
		t.Run(name, func(t *testing.T) { quotaIsExact(t, open(t, start(t), name == "cluster")) })
	}
}

func quotaIsExact(t *testing.T, pool *redisshare.Pool) {
	ctx, cancel := context.WithCancel(t.Context())
	began := time.Now()
	elapsed := func() time.Duration { return time.Since(began) + time.Hour }
	noon := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	const amount = 500
	var passed int
	var mu sync.Mutex
	var spenders sync.WaitGroup
	done := make(chan struct{})
	for i := range 5 {
		l, err := rl.New(rl.Options{ID: fmt.Sprint("s", i), Pool: pool, Elapsed: elapsed, Now: func() time.Time { return noon }, Timeout: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() { _ = l.Run(ctx) })
		for !l.Ready() {
			time.Sleep(time.Millisecond)
		}
		limits := []*rl.Limit{{ID: "q", Version: 1, Kind: rl.QuotaDay, Amount: amount}}
		for range 8 {
			spenders.Go(func() {
				var out rl.Outcome
				for {
					select {
					case <-done:
						return
					default:
					}
					if l.Spend(&rl.Query{Elapsed: elapsed(), Now: noon}, limits, &out) {
						mu.Lock()
						passed++
						mu.Unlock()
					} else {
						time.Sleep(5 * time.Millisecond)
					}
				}
			})
		}
	}
	limit := []*rl.Limit{{ID: "q", Version: 1, Kind: rl.QuotaDay, Amount: amount}}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		n := passed
		mu.Unlock()
		u, err := pool.Usage(ctx, noon, limit)
		if err != nil {
			t.Fatal(err)
		}
		if n >= amount && u[0].Remaining == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("passed %d of %d, usage says %+v", n, amount, u[0])
		}
	}
	time.Sleep(50 * time.Millisecond) // were there more, some of the forty spenders would get it
	close(done)
	spenders.Wait()
	if passed != amount {
		t.Errorf("%d requests passed a quota of %d", passed, amount)
	}
}
