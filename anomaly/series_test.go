package anomaly

import (
	"errors"
	"math"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSeriesFitsAKibibyte(t *testing.T) {
	if n := unsafe.Sizeof(Series{}); n > 1024 {
		t.Errorf("a series takes %d bytes, want at most 1024", n)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	c := NewScorer(DefaultParameters())
	var x Series
	r, i := seeded(1), 0
	weekly := ordinary()[2]
	if n := testing.AllocsPerRun(5000, func() {
		c.Observe(&x, at(i), weekly.next(i, r))
		i++
	}); n != 0 {
		t.Errorf("%v allocations an observation, want none", n)
	}
}

func TestWarmUpIsUnknown(t *testing.T) {
	c := NewScorer(DefaultParameters())
	var x Series
	for i := range 400 {
		s := c.Observe(&x, at(i), float64(i%17*i%13))
		if want := i+1 >= int(c.p.Warm); s.Known != want {
			t.Fatalf("observation %d: known %v, want %v", i+1, s.Known, want)
		}
		if !s.Known && (s.P != 1 || s.Reasons() != nil) {
			t.Fatalf("observation %d tells %v before it can know", i+1, s)
		}
	}
}

// A threshold on P is a false-alarm rate: on ordinary streams no more than
// about that share of observations scores as low.
func TestScoresAreTailProbabilities(t *testing.T) {
	c := NewScorer(DefaultParameters())
	levels := []float64{0.01, 0.003, 0.001, 0.0003, 0.0001}
	count := make([]float64, len(levels))
	var all float64
	for seed := range uint64(8) {
		for _, st := range ordinary() {
			var x Series
			r := seeded(seed)
			for i := range 30 * dayRows {
				s := c.Observe(&x, at(i), st.next(i, r))
				if i < 3*dayRows {
					continue // the first days are all new
				}
				all++
				for k, l := range levels {
					if s.P <= l {
						count[k]++
					}
				}
			}
		}
	}
	for k, l := range levels {
		t.Logf("P ≤ %g: %.2g of %g observations", l, count[k]/all, all)
		if share := count[k] / all; share > 2*l {
			t.Errorf("P ≤ %g in %.2g of the observations, more than twice as often", l, share)
		}
	}
	if count[1] == 0 {
		t.Error("nothing ever scores: the streams test nothing")
	}
}

func TestWhatStraysIsTold(t *testing.T) {
	const start = 10 * dayRows
	daily, steady, counts := ordinary()[1], ordinary()[0], ordinary()[5]
	cases := []struct {
		name   string
		stream stream
		change func(i int, v float64) float64 // from start
		within int
		part   Part
		words  string
	}{
		{"a spike", daily, func(i int, v float64) float64 { return 400 }, 1, PartLevel, "400 is outside the range it has kept"},
		{"nothing at all", steady, func(int, float64) float64 { return 0 }, 1, PartLevel, "0 is outside"},
		{"day at night", daily, func(i int, v float64) float64 { return 70 }, 12, PartRhythm, "is usual at this hour"},
		{"frozen", steady, func(int, float64) float64 { return 50 }, 150, PartTexture, "never been so quiet"},
		{"restless", steady, func(i int, v float64) float64 { return 50 + 5*math.Pow(-1, float64(i)) }, 100, PartTexture, "or so restless"},
		{"enumeration", counts, func(i int, v float64) float64 { return v + 60 }, 1, PartLevel, "outside"},
		{"slow growth", steady, func(i int, v float64) float64 { return v + 0.02*float64(i-start) }, 4000, PartCreep, "small steps"},
	}
	for _, want := range cases {
		t.Run(want.name, func(t *testing.T) {
			c := NewScorer(DefaultParameters())
			var x Series
			r := seeded(3)
			for i := range start {
				c.Observe(&x, at(i), want.stream.next(i, r))
			}
			for i := start; i < start+want.within; i++ {
				s := c.Observe(&x, at(i), want.change(i, want.stream.next(i, r)))
				for _, reason := range s.Reasons() {
					if reason.Part == want.part && reason.P < 0.001 && strings.Contains(reason.Text, want.words) {
						return
					}
				}
			}
			t.Errorf("not told as %v with P below 0.001 within %d observations", want.part, want.within)
		})
	}
}

func TestAlarmIsToldOnce(t *testing.T) {
	c := NewScorer(DefaultParameters())
	var x Series
	r, told := seeded(5), 0
	steady := ordinary()[0]
	for i := range 3000 {
		v := steady.next(i, r)
		if i >= 2500 {
			v += 100
		}
		if s := c.Observe(&x, at(i), v); i >= 2500 && s.P < 1e-4 {
			told++
		}
	}
	if told < 1 || told > 5 {
		t.Errorf("a level that stays is told %d times in 500 observations, want once, or a few as it is understood", told)
	}
}

func TestNonsenseChangesNothing(t *testing.T) {
	c := NewScorer(DefaultParameters())
	rapid.Check(t, func(t *rapid.T) {
		var x Series
		for i, v := range rapid.SliceOfN(rapid.Float64Range(-1e3, 1e3), 1, 300).Draw(t, "past") {
			c.Observe(&x, at(i), v)
		}
		before := x
		bad := rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), 2e15, -math.MaxFloat64}).Draw(t, "bad")
		s := c.Observe(&x, rapid.Int64().Draw(t, "at"), bad)
		if x != before {
			t.Fatalf("%v changed the series", bad)
		}
		if s.P != 1 || !s.Ignored || len(s.Reasons()) != 0 {
			t.Fatalf("%v scores %v", bad, s)
		}
	})
}

// Whatever it is fed, at whatever instants, a series stays sound: its scores
// are probabilities, its state restores, and going on from a snapshot is going on.
func TestAnyInputKeepsASeriesSound(t *testing.T) {
	c := NewScorer(DefaultParameters())
	rapid.Check(t, func(t *rapid.T) {
		var x Series
		value := rapid.OneOf(rapid.Float64(), rapid.Float64Range(-1, 1), rapid.Just(0.0), rapid.SampledFrom([]float64{1e15, -1e15, 5e-324, 1e-300}))
		for i, v := range rapid.SliceOfN(value, 150, 400).Draw(t, "values") {
			when := at(i)
			if i%7 == 0 {
				when = rapid.Int64().Draw(t, "at")
			}
			restored := Series{}
			b, err := x.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := restored.UnmarshalBinary(b); err != nil {
				t.Fatalf("after %d observations: %v", i, err)
			}
			s := c.Observe(&x, when, v)
			if !(s.P > 0 && s.P <= 1) {
				t.Fatalf("P = %v", s.P)
			}
			for _, q := range s.Parts {
				if !s.Ignored && !(q > 0 && q <= 1) {
					t.Fatalf("parts %v", s.Parts)
				}
			}
			if got := c.Observe(&restored, when, v); got.P != s.P || restored != x {
				t.Fatalf("a restored series scores %v, the series itself %v", got.P, s.P)
			}
		}
	})
}

// Nobody teaches a series an arbitrary level unnoticed: by whatever steps its
// range is widened, it is told before the range is four times as wide. An alarm
// that still holds has told of it; the range is measured from its end.
func TestDriftIsToldBeforeItTeaches(t *testing.T) {
	c := NewScorer(DefaultParameters())
	rapid.Check(t, func(t *rapid.T) {
		var x Series
		r := seeded(rapid.Uint64().Draw(t, "seed"))
		stream := ordinary()[rapid.IntRange(0, 5).Draw(t, "shape")]
		const past = 7 * dayRows
		told := -int(c.p.Hold)
		for i := range past {
			if c.Observe(&x, at(i), stream.next(i, r)).P <= worthTelling {
				told = i
			}
		}
		width := x.s.Level.High - x.s.Level.Low
		step := rapid.Float64Range(0.0005, 0.2).Draw(t, "step")
		stairs := rapid.Float64Range(1, 2).Draw(t, "stairs") // how much larger each step is than the one before
		pause := rapid.IntRange(1, 5).Draw(t, "pause")
		down := rapid.Bool().Draw(t, "down")
		for i := past; i < past+20_000; i++ {
			v := stream.next(i, r)
			if i%pause == 0 {
				v = x.s.Level.High + step*(x.s.Level.High-x.s.Level.Low)
				if down {
					v = x.s.Level.Low - step*(x.s.Level.High-x.s.Level.Low)
				}
				step = min(step*stairs, 5)
			}
			s := c.Observe(&x, at(i), v)
			if s.P <= worthTelling {
				return
			}
			now := x.s.Level.High - x.s.Level.Low
			if i-told <= int(c.p.Hold) {
				width = now
			}
			if now > 4*width {
				t.Fatalf("the range went from %.3g to %.3g untold", width, now)
			}
		}
	})
}

func TestOneValueTeachesLittle(t *testing.T) {
	c := NewScorer(DefaultParameters())
	var x Series
	r := seeded(9)
	steady := ordinary()[0]
	for i := range 3000 {
		c.Observe(&x, at(i), steady.next(i, r))
	}
	width := x.s.Level.High - x.s.Level.Low
	if s := c.Observe(&x, at(3000), 1e14); s.P > 1e-6 {
		t.Errorf("a value of 1e14 scores %v", s.P)
	}
	if now := x.s.Level.High - x.s.Level.Low; now > 12*width {
		t.Errorf("one value widened the range from %.3g to %.3g", width, now)
	}
	if math.Abs(x.s.Mean-50) > 15 {
		t.Errorf("one value moved the mean to %.3g", x.s.Mean)
	}
}

func TestSnapshotRefusesWhatIsNone(t *testing.T) {
	c := NewScorer(DefaultParameters())
	var x Series
	for i := range 500 {
		c.Observe(&x, at(i), float64(i%50))
	}
	good, err := x.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(b []byte)) []byte {
		b := append([]byte(nil), good...)
		f(b)
		return b
	}
	poisoned := x
	poisoned.s.Mean = math.NaN()
	nan, _ := poisoned.AppendBinary(nil)
	inverted := x
	inverted.s.Level.High = inverted.s.Level.Low - 1
	inside, _ := inverted.AppendBinary(nil)
	for name, b := range map[string][]byte{
		"nothing": nil, "short": good[:len(good)-1], "long": append(edit(func([]byte) {}), 0),
		"another version": edit(func(b []byte) { b[0] = 99 }), "a NaN": nan, "a range inside out": inside,
	} {
		var y Series
		if err := y.UnmarshalBinary(b); !errors.Is(err, ErrSnapshot) || y != (Series{}) {
			t.Errorf("%s: %v, want ErrSnapshot and no change", name, err)
		}
	}
	var y Series
	if err := y.UnmarshalBinary(good); err != nil || y != x {
		t.Errorf("its own snapshot: %v, differs %v", err, y != x)
	}
}

func FuzzSnapshot(f *testing.F) {
	var x Series
	b, _ := x.AppendBinary(nil)
	f.Add(b)
	c := NewScorer(DefaultParameters())
	f.Fuzz(func(t *testing.T, b []byte) {
		var x Series
		if x.UnmarshalBinary(b) != nil {
			return
		}
		for i := range 20 {
			if s := c.Observe(&x, at(i), float64(i)); !(s.P > 0 && s.P <= 1) {
				t.Fatalf("P = %v from a snapshot taken for sound", s.P)
			}
		}
	})
}

func TestReasonsComeInOrder(t *testing.T) {
	s := Score{Known: true, Value: 9, Expected: 2, Low: 1, High: 4, Parts: [parts]float64{0.01, 0.001, 1, 1, 1, 1, 0.05}}
	var got []Part
	for _, r := range s.Reasons() {
		got = append(got, r.Part)
	}
	if diff := cmp.Diff([]Part{PartRhythm, PartLevel, PartMoment}, got); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkObserve(b *testing.B) {
	c := NewScorer(DefaultParameters())
	var x Series
	values := make([]float64, 1<<14)
	r := seeded(1)
	weekly := ordinary()[2]
	for i := range values {
		values[i] = weekly.next(i, r)
	}
	b.ReportAllocs()
	b.ReportMetric(float64(unsafe.Sizeof(x)), "bytes/series")
	for i := 0; b.Loop(); i++ {
		c.Observe(&x, at(i), values[i%len(values)])
	}
}
