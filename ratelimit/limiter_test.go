package ratelimit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

var noon = time.Date(2026, 3, 10, 1, 0, 0, 0, time.UTC)

func query(elapsed time.Duration) *Query { return &Query{Elapsed: elapsed, Now: noon.Add(elapsed)} }

func spend(l *Limiter, q *Query, n int, limits ...*Limit) (passed int) {
	var out Outcome
	for range n {
		if l.Spend(q, limits, &out) {
			passed++
		}
	}
	return passed
}

func TestBucketAgreesWithTimeRate(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		perSecond, burst := 1+r.Float64()*500, int64(1+r.IntN(200))
		want := rate.NewLimiter(rate.Limit(perSecond), int(burst))
		b := bucket{Share: Share{Rate: int64(perSecond * Micro), Cap: burst * Micro}, level: float64(burst * Micro)}
		start, now := time.Unix(1e9, 0), time.Duration(0)
		for range 500 {
			now += time.Duration(r.Int64N(int64(20 * time.Millisecond)))
			tokens := want.TokensAt(start.Add(now))
			if diff := tokens - float64(int64(tokens)); diff > 0.99 || diff < 0.01 {
				continue // within rounding of a whole token: either answer is right
			}
			b.advance(now)
			if got, want := b.take(Micro), want.AllowN(start.Add(now), 1); got != want {
				t.Fatalf("seed %d at %v: took %v, x/time/rate %v (%.3f and %.3f tokens)", seed, now, got, want, b.level/Micro, tokens)
			}
		}
	}
}

func TestSpendsFromAllOrNone(t *testing.T) {
	l := Solo()
	wide := &Limit{ID: "wide", Kind: Rate, Rate: 1, Burst: 10}
	narrow := &Limit{ID: "narrow", Kind: QuotaDay, Amount: 3}
	slots := &Limit{ID: "slots", Kind: Concurrency, Amount: 5}
	if got := spend(l, query(0), 9, wide, slots, narrow); got != 3 {
		t.Fatalf("passed %d, want the 3 of the quota", got)
	}
	var out Outcome
	l.Peek(query(0), []*Limit{wide, slots, narrow}, &out)
	for i, want := range []int64{7, 2, 0} {
		if got := out.States()[i].Remaining; got != want {
			t.Errorf("%s has %d left, want %d: refused requests spend nothing", out.States()[i].Limit.ID, got, want)
		}
	}
	if l.Spend(query(0), []*Limit{wide, slots, narrow}, &out) || out.Refused != narrow || out.Hold().Any() {
		t.Errorf("refused by %v, holds %v", out.Refused, out.Hold())
	}
	if want := 13*time.Hour + 0; out.RetryAfter > 24*time.Hour || out.RetryAfter < want {
		t.Errorf("retry after %v, want until the day ends", out.RetryAfter)
	}
	if !out.States()[2].Refused || out.States()[0].Refused {
		t.Errorf("who refused: %+v", out.States())
	}
}

func TestConcurrencyIsReleased(t *testing.T) {
	l := Solo()
	slots := &Limit{ID: "slots", Kind: Concurrency, Amount: 2}
	var holds []Hold
	var out Outcome
	for i := range 3 {
		if ok := l.Spend(query(0), []*Limit{slots}, &out); ok != (i < 2) {
			t.Fatalf("call %d: %v", i, ok)
		}
		holds = append(holds, out.Hold())
	}
	holds[0].Release()
	if got := spend(l, query(0), 2, slots); got != 1 {
		t.Errorf("after one ended %d more passed, want 1", got)
	}
}

func TestShadowRefusesNothing(t *testing.T) {
	l := Solo()
	shadow := &Limit{ID: "shadow", Kind: QuotaDay, Amount: 1, Shadow: true}
	var out Outcome
	for i := range 3 {
		if !l.Spend(query(0), []*Limit{shadow}, &out) || out.Refused != nil {
			t.Fatal("a shadow limit refused")
		}
		if got := out.States()[0].Refused; got != (i > 0) {
			t.Errorf("request %d: would have been refused %v", i, got)
		}
	}
}

func TestChangeKeepsWhatWasUsed(t *testing.T) {
	l := Solo()
	quota := func(v uint64, n int64) *Limit { return &Limit{ID: "q", Version: v, Kind: QuotaDay, Amount: n} }
	spend(l, query(0), 4, quota(1, 10))
	if got := spend(l, query(0), 99, quota(2, 20)); got != 16 {
		t.Errorf("raised from 10 to 20 with 4 used: %d passed, want 16", got)
	}
	if got := spend(l, query(0), 99, quota(3, 5)); got != 0 {
		t.Errorf("lowered to 5 with 20 used: %d passed, want none", got)
	}
	if got := spend(l, query(0), 99, quota(2, 20)); got != 0 {
		t.Errorf("an older version passed %d", got)
	}
}

func TestClockJumpsRefillNothing(t *testing.T) {
	l := Solo()
	limit := &Limit{ID: "r", Kind: Rate, Rate: 10, Burst: 5}
	q := query(time.Hour)
	if got := spend(l, q, 9, limit); got != 5 {
		t.Fatalf("passed %d of a burst of 5", got)
	}
	for _, jump := range []time.Duration{-24 * time.Hour, 24 * time.Hour, 365 * 24 * time.Hour} {
		q.Now = noon.Add(jump)
		if got := spend(l, q, 9, limit); got != 0 {
			t.Errorf("the wall clock jumped %v: %d passed", jump, got)
		}
	}
	q.Elapsed -= time.Minute
	if got := spend(l, q, 9, limit); got != 0 {
		t.Errorf("elapsed time went back: %d passed", got)
	}
	q.Elapsed += time.Minute
	if got := spend(l, q, 9, limit); got != 0 {
		t.Errorf("elapsed time came back: %d passed", got)
	}
}

func TestSpendDoesNotAllocate(t *testing.T) {
	l := Solo()
	limits := []*Limit{
		{ID: "a", Kind: Rate, Rate: 1e6, Burst: 1e6}, {ID: "b", Kind: Concurrency, Amount: 1e8},
		{ID: "c", Kind: QuotaDay, Amount: 1e8}, {ID: "d", Kind: DistinctDay, Amount: 10}, {ID: "e", Kind: Rate, Rate: 1, Burst: 1, Shadow: true},
	}
	var out Outcome
	q := query(0)
	q.Subject[0] = 1
	if n := testing.AllocsPerRun(1000, func() { l.Spend(q, limits, &out); out.Hold().Release() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestValidate(t *testing.T) {
	ok := func() *Limit { return &Limit{ID: "x", Kind: Rate, Rate: 1, Burst: 1} }
	if err := ok().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Limit){
		"no id": func(l *Limit) { l.ID = "" }, "space": func(l *Limit) { l.ID = "a b" }, "no kind": func(l *Limit) { l.Kind = 0 },
		"zero": func(l *Limit) { l.Rate = 0 }, "negative": func(l *Limit) { l.Rate = -1 }, "no burst": func(l *Limit) { l.Burst = 0 },
		"endless": func(l *Limit) { l.Rate = 1e9 }, "no amount": func(l *Limit) { l.Kind = QuotaDay },
	} {
		l := ok()
		if spoil(l); !errors.Is(l.Validate(), ErrLimit) {
			t.Errorf("%s: %v", name, l.Validate())
		}
	}
}

// The standing parts are held by nobody's leave, so they must never add up to
// more than the limit, also while sidecars still disagree on how many they are.
func TestStandingPartsFit(t *testing.T) {
	for _, burst := range []int64{1, 2, 3, 5, 10, 11, 100, 12345} {
		for n := 1; n <= 60; n++ {
			for _, kind := range []Kind{Rate, QuotaDay, Concurrency} {
				l := &Limit{ID: "x", Kind: kind, Rate: float64(burst), Burst: burst, Amount: burst}
				var sum Share
				for i := range n {
					s := Standing(kind, l.Total(), n+(i*7)%3, i)
					sum.Rate, sum.Cap = sum.Rate+s.Rate, sum.Cap+s.Cap
				}
				if total := l.Total(); sum.Rate > total.Rate || sum.Cap > total.Cap {
					t.Fatalf("%v of %d, %d parts: %v of %v", kind, burst, n, sum, total)
				}
			}
		}
	}
}

func BenchmarkSpend(b *testing.B) {
	for _, n := range []int{1, 5} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := Solo()
			var limits []*Limit
			for i := range n {
				limits = append(limits, &Limit{ID: fmt.Sprint(i), Kind: Rate, Rate: 1e6, Burst: 1e9})
			}
			var out Outcome
			q := query(0)
			for b.Loop() {
				l.Spend(q, limits, &out)
			}
		})
	}
}
