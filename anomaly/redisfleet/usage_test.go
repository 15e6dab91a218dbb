package redisfleet

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/anomaly"
)

// running runs a Usage; stop ends it.
func running(t *testing.T, f *Fleet, lead func() bool) (u *Usage, stop func()) {
	t.Helper()
	u = NewUsage(f, lead, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { u.Run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return u, stop
}

func requests(u *Usage, product string) uint64 {
	sum, _ := u.Of(product)
	return sum.Requests
}

func TestUsageAddsUpOnceOverRestartsAndIsReadByOthers(t *testing.T) {
	f, rdb, _ := open(t, Options{})
	ctx := t.Context()
	yes := func() bool { return true }
	send := func(n int) {
		t.Helper()
		if err := f.Send(ctx, calls("s", 1, "FP-1", n)); err != nil {
			t.Fatal(err)
		}
	}
	send(3)
	u, stop := running(t, f, yes)
	wait(t, "three calls", func() bool { return requests(u, "FP-1") == 3 })
	send(4)
	wait(t, "seven calls", func() bool { return requests(u, "FP-1") == 7 })
	u.Signal("FP-1")
	stop()

	// Another takes over where this one ended, and goes on from there.
	send(5)
	u, stop = running(t, f, yes)
	wait(t, "twelve calls", func() bool { return requests(u, "FP-1") == 12 })
	if sum, ok := u.Of("FP-1"); !ok || sum.Reads != 12 || sum.Signals != 1 {
		t.Errorf("sums %+v, %v", sum, ok)
	}
	stop()

	// One that was killed before it kept anything counted nothing.
	week := f.usage(weekOf(u.now()))
	before, err := rdb.HGetAll(ctx, week).Result()
	if err != nil {
		t.Fatal(err)
	}
	send(6)
	u, stop = running(t, f, yes)
	wait(t, "eighteen calls", func() bool { return requests(u, "FP-1") == 18 })
	stop()
	restore(t, rdb, week, before)
	u, _ = running(t, f, yes)
	wait(t, "eighteen calls again", func() bool { return requests(u, "FP-1") == 18 })

	// Who does not lead reads what is kept, and adds nothing.
	var leads atomic.Bool
	reader, stopReader := running(t, f, leads.Load)
	wait(t, "what is kept", func() bool { _, ok := reader.Of("FP-1"); return ok && requests(reader, "FP-1") >= 12 })
	stopReader()
}

func restore(t *testing.T, rdb redis.UniversalClient, key string, fields map[string]string) {
	t.Helper()
	if err := rdb.HSet(t.Context(), key, fields).Err(); err != nil {
		t.Fatal(err)
	}
}

// What calls lacked is added up by product and service, and outlives a restart.
func TestWhatCallsLackAddsUp(t *testing.T) {
	f, _, _ := open(t, Options{})
	yes := func() bool { return true }
	send := func(n uint64) {
		t.Helper()
		r := calls("s", 1, "FP-1", 1)
		r.Fields = []anomaly.FieldTally{
			{Product: "FP-1", Service: "a", Calls: n, Missing: [anomaly.NFields]uint64{n, 1}},
			{Product: "FP-1", Service: "b", Calls: n}, {Product: "FP-2", Service: "a", Calls: n},
		}
		if err := f.Send(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	got := func(u *Usage) (a anomaly.FieldTally, rows int) {
		all, _ := u.Fields("FP-1")
		if len(all) > 0 {
			a = all[0]
		}
		return a, len(all)
	}
	send(3)
	u, stop := running(t, f, yes)
	send(4)
	want := anomaly.FieldTally{Product: "FP-1", Service: "a", Calls: 7, Missing: [anomaly.NFields]uint64{7, 2}}
	wait(t, "seven calls", func() bool { a, rows := got(u); return a == want && rows == 2 })
	stop()
	u, _ = running(t, f, yes)
	wait(t, "seven calls after a restart", func() bool { a, rows := got(u); return a == want && rows == 2 })
	if all, ok := u.Fields(""); !ok || len(all) != 3 {
		t.Errorf("%v of all products, %v", all, ok)
	}
}
