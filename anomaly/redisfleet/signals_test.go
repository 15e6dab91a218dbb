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
	if err := f.KeepSignals(ctx, append([]anomaly.Signal{bad}, want...), nobody); err != nil {
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

func nobody(anomaly.Subject) string { return "" }

// The signals of a product that seldom has one are found however many others have
// since; what is kept for that is bounded for each product, and runs out.
func TestSignalsAreFoundByProduct(t *testing.T) {
	f, rdb, _ := open(t, Options{})
	ctx := t.Context()
	at := time.Unix(1_800_000_000, 0).UTC()
	signal := func(kind anomaly.Kind, id string, i int) anomaly.Signal {
		return anomaly.Signal{Subject: anomaly.Subject{Kind: kind, ID: id}, Name: anomaly.SignalSweep, At: at.Add(time.Duration(i) * time.Minute), P: 1e-6, Value: float64(i)}
	}
	of := func(s anomaly.Subject) string {
		if s.Kind == anomaly.Network {
			return ""
		}
		return s.ID[:6] // an app's is its product's and more
	}
	quiet := []anomaly.Signal{signal(anomaly.ClientApp, "QUIET1-prod", 2), signal(anomaly.Product, "QUIET1", 1)}
	all := []anomaly.Signal{quiet[1], quiet[0], signal(anomaly.Network, "QUIET1", 3)}
	for i := range 1500 {
		all = append(all, signal(anomaly.Product, "BUSY-1", 10+i))
	}
	if err := f.KeepSignals(ctx, all, of); err != nil {
		t.Fatal(err)
	}
	got, err := f.ProductSignals(ctx, []string{"QUIET1", "NONE-1"}, 20)
	if d := cmp.Diff(quiet, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if got, err = f.ProductSignals(ctx, []string{"QUIET1", "BUSY-1"}, 3); err != nil || len(got) != 3 || got[0].Value != 1509 || got[2].Value != 1507 {
		t.Errorf("of both: %+v %v", got, err)
	}
	if n, err := rdb.XLen(ctx, f.signalsOf("BUSY-1")).Result(); err != nil || n != productSignals {
		t.Errorf("%d of one product are kept twice, %v", n, err)
	}
	if left, err := rdb.TTL(ctx, f.signalsOf("QUIET1")).Result(); err != nil || left <= 0 || left > 30*24*time.Hour {
		t.Errorf("its index stays for %s, %v", left, err)
	}
}
