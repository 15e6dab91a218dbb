package anomaly

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func drawTally(t *rapid.T) Tally {
	var y Tally
	for range rapid.IntRange(0, 300).Draw(t, "calls") {
		o := Observation{
			Subscription: hashOf("s", rapid.IntRange(0, 3).Draw(t, "s")), Client: hashOf("c", rapid.IntRange(0, 400).Draw(t, "c")),
			Person: hashOf("p", rapid.IntRange(0, 400).Draw(t, "p")), Source: hashOf("n", rapid.IntRange(0, 9).Draw(t, "n")),
			Service: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "service"), Version: rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "version"),
			Verb: Verb(rapid.IntRange(0, 2).Draw(t, "verb")), Outcome: Outcome(rapid.IntRange(0, int(outcomes)-1).Draw(t, "outcome")),
		}
		y.observe(&o, rapid.Bool().Draw(t, "off"), false)
		if o.Outcome == Allowed {
			y.finish(&Finished{Status: rapid.SampledFrom([]int{0, 200, 404, 503}).Draw(t, "status"), BytesOut: rapid.Uint64Range(0, 1<<20).Draw(t, "bytes")})
		}
	}
	return y
}

var tallies = cmp.AllowUnexported(Tally{}, Sketch{})

func TestReportSaysWhatItWasGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Report{Sidecar: rapid.StringN(0, 20, 64).Draw(t, "sidecar"), From: rapid.Int64().Draw(t, "from"), Seconds: rapid.Uint32Range(0, 86400).Draw(t, "seconds")}
		for range rapid.IntRange(0, 4).Draw(t, "subjects") {
			r.Subjects = append(r.Subjects, SubjectTally{Subject{Kind(rapid.IntRange(0, int(kinds)-1).Draw(t, "kind")), rapid.StringN(1, 20, 64).Draw(t, "id")}, drawTally(t)})
		}
		var got Report
		if err := got.UnmarshalBinary(r.AppendBinary(nil)); err != nil {
			t.Fatal(err)
		}
		if len(got.Subjects) == 0 {
			got.Subjects = nil
		}
		if d := cmp.Diff(r, got, tallies); d != "" {
			t.Fatal(d)
		}
	})
}

func TestMalformedReportsAreRefused(t *testing.T) {
	var y Tally
	for i := range 200 {
		y.observe(&Observation{Client: hashOf("c", i), Service: "s"}, false, false)
	}
	good := (&Report{Sidecar: "a", From: 1, Seconds: 10, Subjects: []SubjectTally{{Subject{Product, "FP-1"}, y}}}).AppendBinary(nil)
	for n := range good {
		var r Report
		if err := r.UnmarshalBinary(good[:n]); !errors.Is(err, ErrReport) {
			t.Fatalf("cut at %d of %d: %v", n, len(good), err)
		}
	}
	for name, b := range map[string][]byte{
		"more than there is": append(slices.Clone(good), 0),
		"another version":    append([]byte{9}, good[1:]...),
		"too large":          make([]byte, ReportBytesMax+1),
	} {
		r := Report{Sidecar: "before"}
		if err := r.UnmarshalBinary(b); !errors.Is(err, ErrReport) || r.Sidecar != "before" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReport(f *testing.F) {
	var y Tally
	y.observe(&Observation{Client: hashOf("c", 1), Service: "s"}, true, true)
	f.Add((&Report{Sidecar: "a", From: 1, Seconds: 10, Subjects: []SubjectTally{{Subject{Product, "FP-1"}, y}}}).AppendBinary(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again Report
		if r.UnmarshalBinary(b) != nil {
			return
		}
		if err := again.UnmarshalBinary(r.AppendBinary(nil)); err != nil {
			t.Fatalf("what was accepted is refused when written again: %v", err)
		}
		w := NewWatcher(WatcherConfig{Subjects: 8})
		w.Merge(&r) // whatever it says, it can be merged and scored
		for s, p := range w.subjects {
			w.look(nil, s, p, true)
		}
	})
}

// Merged tallies are the tally of all calls, in whatever way these were split.
func TestTalliesMergeIntoTheTallyOfAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawTally(t), drawTally(t)
		var ab, ba Tally
		ab.Merge(&a)
		ab.Merge(&b)
		ba.Merge(&b)
		ba.Merge(&a)
		if d := cmp.Diff(ab, ba, tallies); d != "" {
			t.Fatal(d)
		}
		if ab.Count[Requests] != a.Count[Requests]+b.Count[Requests] {
			t.Fatal("calls were lost")
		}
		once := ab.Set[Clients].clone()
		ab.Merge(&a) // whom a second report names again is not counted again
		if d := cmp.Diff(once, ab.Set[Clients], tallies); d != "" {
			t.Fatal(d)
		}
	})
}

func TestSketchCountsDistinctThings(t *testing.T) {
	for _, n := range []int{0, 1, 50, 127, 200, 1000, 20_000} {
		var worst, sum float64
		for seed := range 20 {
			var s Sketch
			for i := range 2 * n { // each twice
				s.Add(hashOf("thing", seed*1_000_000+i/2).short())
			}
			off := math.Abs(s.Distinct() - float64(n))
			worst, sum = max(worst, off), sum+s.Distinct()
		}
		if n < sketchSize && worst != 0 {
			t.Errorf("%d things: off by %v, want exact", n, worst)
		}
		if worst > 0.4*float64(n) || math.Abs(sum/20-float64(n)) > 0.06*float64(n) {
			t.Errorf("%d things: worst %v off, mean %v", n, worst, sum/20)
		}
	}
}

func TestKnownRemembersTheLastThousands(t *testing.T) {
	var k known
	wrong := 0
	for i := range 100_000 {
		if k.learn(hashOf("thing", i).short()) {
			wrong++
		}
		remembers := min(max(i/2, 4000), 32_000) // it grows with what there is
		for back := range 3 {
			if j := i - back*(remembers/3); j >= 0 && !k.learn(hashOf("thing", j).short()) {
				t.Fatalf("thing %d is forgotten after %d others", j, i-j)
			}
		}
	}
	if len(k.young) != knownWordsMax || len(k.old) != knownWordsMax {
		t.Errorf("filters of %d and %d words, want at most %d", len(k.young), len(k.old), knownWordsMax)
	}
	if wrong > 100_000/25 {
		t.Errorf("%d of 100,000 new things taken for old ones", wrong)
	}
}
