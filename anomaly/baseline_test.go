package anomaly

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"
)

func keepAll(t *testing.T, w *Watcher) map[Subject][]byte {
	t.Helper()
	kept := map[Subject][]byte{}
	if err := w.Baselines(1000, func(s Subject, b []byte) error { kept[s] = bytes.Clone(b); return nil }); err != nil {
		t.Fatal(err)
	}
	return kept
}

// A watcher that was restarted scores as the one that was not, from the next
// hour on: an hour's counts are what a restart costs.
func TestBaselinesSurviveARestart(t *testing.T) {
	f := newFleet(1, 4)
	f.days(t, 5, "FP-1", 3)
	kept := keepAll(t, f.w)
	if len(kept) != 2 {
		t.Fatalf("%d baselines, want the product's and its client app's", len(kept))
	}
	size := 0
	for _, b := range kept {
		size = max(size, len(b))
	}
	t.Logf("a baseline takes up to %d bytes", size)
	if size > 40<<10 {
		t.Errorf("a baseline takes %d bytes", size)
	}

	restarted := NewWatcher(WatcherConfig{})
	for s, b := range kept {
		if err := restarted.Restore(s, b, time.Unix(f.now(), 0)); err != nil {
			t.Fatal(err)
		}
	}
	restarted.minute, restarted.others = f.w.minute, f.w.others
	other := *f
	other.w, other.r, other.told = restarted, seeded(77), nil
	other.collectors = []*Collector{NewCollector(CollectorConfig{})}
	f.r = seeded(77)
	for m := range 180 {
		for _, g := range []*fleet{f, &other} {
			g.ordinaryProduct("FP-1", 3)
			if m > 120 {
				for range 30 {
					g.call(Observation{Product: "FP-1", ClientApp: "FP-1-app", Person: hashOf("x", m), Verb: Read, Service: "s"})
				}
			}
		}
		was, is := f.endMinute(t), other.endMinute(t)
		if fmt.Sprint(was) != fmt.Sprint(is) {
			t.Fatalf("minute %d: told %v, and after a restart %v", m, was, is)
		}
	}
	if len(other.told) == 0 {
		t.Error("nothing was told: the test compares nothing")
	}
	if again := keepAll(t, restarted); len(again) != 2 {
		t.Errorf("%d baselines due again, want 2", len(again))
	}
}

func TestBaselinesOnlyOfWhoCalled(t *testing.T) {
	f := newFleet(1, 4)
	f.days(t, 1, "FP-1", 3)
	keepAll(t, f.w)
	if again := keepAll(t, f.w); len(again) != 0 {
		t.Errorf("%d baselines though nobody called since", len(again))
	}
	failing := errors.New("away")
	f.days(t, 1, "FP-1", 3)
	if err := f.w.Baselines(10, func(Subject, []byte) error { return failing }); !errors.Is(err, failing) {
		t.Errorf("%v, want the keeper's error", err)
	}
	if again := keepAll(t, f.w); len(again) != 2 {
		t.Errorf("%d baselines after one that failed, want 2", len(again))
	}
}

func TestBaselinesThatAreNoneAreRefused(t *testing.T) {
	f := newFleet(1, 4)
	f.days(t, 1, "FP-1", 3)
	s := Subject{Product, "FP-1"}
	good := keepAll(t, f.w)[s]
	now := time.Unix(f.now(), 0)
	for n := 0; n < len(good); n += 1 + len(good)/200 {
		w := NewWatcher(WatcherConfig{})
		if err := w.Restore(s, good[:n], now); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("cut at %d of %d: %v", n, len(good), err)
		}
	}
	w := NewWatcher(WatcherConfig{})
	for i := range good { // every bit that is turned is noticed, or harmless
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		_ = w.Restore(Subject{Product, fmt.Sprint(i)}, bad, now)
	}
	w.Merge(&Report{Sidecar: "a", From: f.now(), Seconds: 60})
	w.Tick(now.Add(time.Minute))
	for _, sig := range w.Tick(now.Add(3 * time.Minute)) {
		if !(sig.P >= 0 && sig.P <= 1) {
			t.Errorf("P = %v", sig.P)
		}
	}
	if err := w.Restore(Subject{Kind(9), "x"}, good, now); !errors.Is(err, ErrSnapshot) {
		t.Errorf("a subject of no kind: %v", err)
	}
}
