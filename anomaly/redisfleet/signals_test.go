package redisfleet

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/anomaly"
)

func TestSignalsAreKeptAndFoundAgain(t *testing.T) {
	f, rdb, _ := open(t, Options{})
	ctx := t.Context()
	at := time.Unix(1_800_000_000, 0).UTC()
	var want []anomaly.Signal
	for i := range 1200 { // more than a page
		want = append(want, anomaly.Signal{Subject: anomaly.Subject{Kind: anomaly.Product, ID: fmt.Sprint("FP-", i)}, Name: anomaly.SignalSweep, At: at, P: 1e-6, Value: float64(i), Newcomer: i%2 == 0, Reasons: []string{"a", "b"}})
	}
	bad := anomaly.Signal{Subject: anomaly.Subject{ID: "x"}, P: math.NaN()}
	if err := f.KeepSignals(ctx, append([]anomaly.Signal{bad}, want...)); err != nil {
		t.Fatal(err)
	}
	if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: f.signals(), Values: []any{fieldSignal, "no signal"}}).Err(); err != nil {
		t.Fatal(err)
	}
	var got []anomaly.Signal
	all := func(s anomaly.Signal) bool { got = append(got, s); return true }
	if err := f.EachSignal(ctx, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), all); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	latest, err := f.LatestSignals(ctx, 3)
	if err != nil || len(latest) != 2 || latest[0].Subject.ID != "FP-1199" { // of the three, one is none
		t.Errorf("%v %v", latest, err)
	}
	got = nil
	if err := f.EachSignal(ctx, time.Now().Add(time.Hour), time.Now().Add(2*time.Hour), all); err != nil || len(got) != 0 {
		t.Errorf("of another time: %d, %v", len(got), err)
	}
}
