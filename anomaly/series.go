package anomaly

import "math"

// Series is the memory of one signal: everything its scorer knows, at most
// 1 KiB whatever it has seen. The zero value is a series never observed. It is
// owned by one goroutine.
type Series struct {
	s state
}

// state is fixed in size and made of numbers only, so that a snapshot is a copy.
type state struct {
	N     uint32
	Gap   float32 // mean seconds between observations
	At    int64   // when the last one was
	Level span    // of the values
	Beat  span    // of the departures from the rhythm
	Rare  span    // of the smoothed rarity
	Drift slowSpan
	Text  slowSpan

	Mean, Last      float64 // moving mean, and the value before
	RarityMean      float32
	DriftMean       float64
	StepMean        float64
	Sudden, Unusual float64 // mean absolute departure from Mean, from the rhythm
	MomentGate      float64
	Told            float32 // the novelty last told
	Crept           float32 // widths by which small steps widened Level
	Held            float32 // for how many observations it still holds
	Hist            histogram
	Rhythm          rhythm
}

// absurd is the size from which a value is no measurement of anything here.
const absurd = 1e15

// The gap between observations is a moving mean, of at most two hours: what was
// left out for a night says nothing about how long an observation speaks for.
const (
	gapMax   = 7200
	gapFirst = 300
	gapMean  = 20
)

// smallStep is the novelty below which a value widens its range unnoticed.
const smallStep = 0.25

// lesson is how many widths of its range a single value may teach a series: a
// larger one is scored as it is and learnt as this.
const lesson = 10

// Observe scores a value of x at an instant (seconds since 1970, in the zone
// whose hours matter), against what came before it, and then learns from it. A
// value that is not a number, not finite or absurd changes nothing and scores
// nothing.
func (c *Scorer) Observe(x *Series, at int64, v float64) Score {
	s := &x.s
	if !(math.Abs(v) <= absurd) {
		return Score{P: 1, Known: s.known(c), Ignored: true, Value: v}
	}
	s.count(at, v)
	var nov [parts]float64

	nov[PartLevel] = s.Level.novelty(v)
	nov[PartCreep] = s.creep(c, nov[PartLevel])
	score := Score{P: 1, Known: s.known(c), Value: v, Low: s.Level.Low, High: s.Level.High}
	v = s.bounded(c, v)

	day, week := slot(at)
	each := float64(s.Gap)
	score.Expected = s.Rhythm.expect(day, week, s.Mean, each, c.p.TrustSeconds)
	beat := v - score.Expected
	if s.N == 1 {
		beat = 0
	}
	nov[PartRhythm] = s.Beat.novelty(beat)
	s.Beat.learn(beat, c.relax)

	rarity := float32(s.Hist.rarity(v, s.Level, s.N))
	s.RarityMean += (rarity - s.RarityMean) * c.rarity
	nov[PartRarity] = s.Rare.novelty(float64(s.RarityMean))
	s.Rare.learn(float64(s.RarityMean), c.relax)

	width := s.Level.High - s.Level.Low
	s.Level.learn(v, c.relax)
	s.slow(c, &nov, beat, math.Abs(v-s.Last), width)
	moment := s.moment(c, v-s.Mean, beat)
	s.Last = v

	s.Mean += max(c.recent, 1/float64(s.N)) * (v - s.Mean)
	s.Rhythm.learn(day, week, v, each/(each+c.p.RhythmSeconds))

	s.tell(c, &score, &nov, moment)
	return score
}

// count takes note of an observation and of how far apart they come.
func (s *state) count(at int64, v float64) {
	if s.N < math.MaxUint32 {
		s.N++
	}
	gap := float32(min(max(at-s.At, 1), gapMax))
	s.At = at
	switch s.N {
	case 1:
		s.Mean, s.Last = v, v
		s.Level = span{v, v}
		s.Gap = gapFirst
	case 2:
		s.Gap = gap
	default:
		s.Gap += (gap - s.Gap) / gapMean
	}
}

func (s *state) known(c *Scorer) bool { return float64(s.N) >= c.p.Warm }

// bounded is v, or what of it a single observation may teach.
func (s *state) bounded(c *Scorer, v float64) float64 {
	wide := s.Level.High - s.Level.Low
	if wide == 0 {
		wide = math.Abs(s.Level.High)
	}
	if wide == 0 || !s.known(c) {
		return v
	}
	return min(max(v, s.Level.Low-lesson*wide), s.Level.High+lesson*wide)
}

// creep adds up the small steps by which a range is widened without an alarm,
// and tells when together they have widened it e-fold within its memory.
func (s *state) creep(c *Scorer, nov float64) float64 {
	s.Crept = fading(s.Crept, float32(1-c.relax))
	if !s.known(c) || nov >= smallStep {
		return 0
	}
	if s.Crept += float32(nov); s.Crept < 1 {
		return 0
	}
	s.Crept = 0
	return 1
}

// slow scores the two signals that move by small steps: how far the series has
// drifted from its rhythm, and how restless it is.
func (s *state) slow(c *Scorer, nov *[parts]float64, beat, step, width float64) {
	s.DriftMean += (beat - s.DriftMean) * c.drift
	s.StepMean += (step - s.StepMean) * c.texture
	// A thousandth of the range is quiet enough; below it the logarithm would
	// make much of nothing.
	texture := math.Log(s.StepMean + max(width, math.SmallestNonzeroFloat32)/1000)
	switch {
	case !s.known(c): // both begin at nothing, which is no part of their range
		s.Drift.begin(s.DriftMean)
		s.Text.begin(texture)
	default:
		absorb := c.absorb
		if float64(s.N) < 2*c.p.Warm {
			absorb = 1
		}
		nov[PartDrift] = c.p.SlowWeight * s.Drift.observe(s.DriftMean, c.relax, absorb, c.fade)
		nov[PartTexture] = c.p.SlowWeight * s.Text.observe(texture, c.relax, absorb, c.fade)
	}
}

// moment is how sudden a change is, and how unlike the hour, in usual ones: the
// geometric mean of both, told once until it grows.
func (s *state) moment(c *Scorer, sudden, unusual float64) float64 {
	sudden, unusual = math.Abs(sudden), math.Abs(unusual)
	z := 0.0
	if s.known(c) && s.Sudden > 0 && s.Unusual > 0 {
		z = math.Sqrt(sudden / s.Sudden * unusual / s.Unusual)
	}
	rate := max(c.moment, 1/float64(s.N))
	s.Sudden += rate * (sudden - s.Sudden)
	s.Unusual += rate * (unusual - s.Unusual)
	s.MomentGate = fading(s.MomentGate, c.momentFade)
	if z <= s.MomentGate {
		return 0
	}
	s.MomentGate = z
	return z
}

// worthTelling is the probability from which an alarm holds back others: one
// that nobody was told of, and by small excursions anybody can cause, must not.
const worthTelling = 1e-3

// tell joins the parts by their largest and makes a probability of it. An alarm
// is told once; while it holds, only what exceeds it is told.
func (s *state) tell(c *Scorer, score *Score, nov *[parts]float64, moment float64) {
	for i := range score.Parts {
		score.Parts[i] = 1
	}
	if !score.Known {
		return
	}
	most := 0.0
	for i, x := range nov {
		if x > most {
			score.Strongest, most = Part(i), x
		}
	}
	told := most
	if s.Held > 0 {
		s.Held--
		told -= float64(s.Told)
	}
	length := 0.0
	if most > 0 { // the logarithm is not for nothing
		length = math.Log(float64(s.N))
	}
	if s.Held <= 0 || most > float64(s.Told) && novelProbability(told*length) <= worthTelling {
		s.Told, s.Held = float32(most), float32(c.p.Hold)
	}
	if most > 0 {
		for i, x := range nov {
			score.Parts[i] = novelProbability(x * length)
		}
		score.P = novelProbability(told * length)
	}
	if m := momentProbability(moment); m < 1 {
		score.Parts[PartMoment] = m
		if m < score.P {
			score.P, score.Strongest = m, PartMoment
		}
	}
}
