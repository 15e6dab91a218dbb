package anomaly

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
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
	f.w.readers.add(Product, 30, 20) // the days here are too few
	all, err := f.w.Fleet()
	if err != nil {
		t.Fatal(err)
	}
	if err := restarted.RestoreFleet(all); err != nil {
		t.Fatal(err)
	}
	if restarted.readers != f.w.readers || restarted.common.by != f.w.common.by || restarted.others != f.w.others || f.w.readers.all[Product] == 0 {
		t.Error("what is known of all did not survive")
	}
	restarted.minute = f.w.minute
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

// What a caller did more than ever is kept first: a watcher that is killed takes
// with it what was learnt since, and the next must not raise an alarm of a weekly
// run it forgot.
func TestRecordsAreKeptFirst(t *testing.T) {
	f := newFleet(1, 4)
	f.days(t, 3, "FP-1", 1)
	f.days(t, 3, "FP-2", 1)
	f.days(t, 1, "FP-0", 1)
	keepAll(t, f.w)
	for i := range 60 {
		f.call(Observation{Product: "FP-1", Person: hashOf("x", i), Verb: Read, Service: "s"})
	}
	f.ordinaryProduct("FP-0", 5)
	f.ordinaryProduct("FP-2", 5)
	f.endMinute(t)
	var first []string
	failing := errors.New("away")
	keep := func(s Subject, _ []byte) error { first = append(first, s.ID); return failing }
	for range 2 { // also when it could not be kept the first time
		if err := f.w.Baselines(1, keep); !errors.Is(err, failing) {
			t.Fatal(err)
		}
	}
	failing = nil
	if err := f.w.Baselines(1, keep); err != nil {
		t.Fatal(err)
	}
	if err := f.w.Baselines(1, keep); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(first[:3]) != "[FP-1 FP-1 FP-1]" || first[3] == "FP-1" {
		t.Errorf("kept %v, want what rose first, and once", first)
	}
}

// A baseline handed over while a minute is open is due again when it is over:
// otherwise what the minute taught would be lost with the watcher, should its
// subject be silent from then on.
func TestAnOpenMinuteIsKeptWhenItIsOver(t *testing.T) {
	f := newFleet(1, 4)
	f.days(t, 1, "FP-1", 1)
	keepAll(t, f.w)
	f.call(Observation{Product: "FP-1", Person: hashOf("x", 1), Verb: Read, Service: "s"})
	f.w.Merge(&Report{Sidecar: "sc-0", From: f.now(), Seconds: 10, Subjects: f.collectors[0].Take()})
	if kept := keepAll(t, f.w); len(kept) != 1 {
		t.Fatalf("%d baselines of a caller, want 1", len(kept))
	}
	f.endMinute(t)
	if kept := keepAll(t, f.w); len(kept) != 1 {
		t.Errorf("%d baselines when its minute was over, want 1", len(kept))
	}
	if kept := keepAll(t, f.w); len(kept) != 0 {
		t.Errorf("%d baselines with nothing new, want none", len(kept))
	}
}

// Who deals with tens of thousands is remembered whole over a restart.
func TestALargeMemorySurvivesARestart(t *testing.T) {
	p := &profile{}
	for i := range 50_000 {
		p.known[Persons].learn(hashOf("p", i).short())
	}
	b, err := p.pack()
	if err != nil {
		t.Fatal(err)
	}
	got, err := unpackProfile(b)
	if err != nil {
		t.Fatal(err)
	}
	if was, is := &p.known[Persons], &got.known[Persons]; was.n != is.n || !slices.Equal(was.young, is.young) || !slices.Equal(was.old, is.old) {
		t.Error("it came back as another")
	}
	t.Logf("%d bytes", len(b))
	if raw, err := inflate(b); err != nil || len(raw)*4 > baselineMax*3 {
		t.Errorf("%d bytes unpacked, %v", len(raw), err)
	}
}

func TestWhatIsKnownOfAllIsChecked(t *testing.T) {
	f := newFleet(1, 4)
	f.days(t, 1, "FP-1", 3)
	good, err := f.w.Fleet()
	if err != nil {
		t.Fatal(err)
	}
	w := NewWatcher(WatcherConfig{})
	for n := range good {
		if err := w.RestoreFleet(good[:n]); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("cut at %d of %d: %v", n, len(good), err)
		}
	}
	for name, v := range map[string]float64{"infinite": math.Inf(1), "no number": math.NaN(), "below nothing": -1} {
		f.w.readers.all[Product] = v
		bad, err := f.w.Fleet()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.RestoreFleet(bad); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	if w.readers != (readers{}) || w.others != (population{}) {
		t.Error("what was refused changed something")
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
