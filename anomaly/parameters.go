package anomaly

// Parameters are the one global set that scores every series, whatever it
// measures. They are few and round: on public streams the figures stay the same
// when each is moved by a tenth. Counts are observations, unless they say seconds.
type Parameters struct {
	// Warm is how many observations a series is watched before it is scored.
	Warm float64
	// Memory is the time constant in which a range that is not reached again
	// shrinks: very long, so that what recurs is not news.
	Memory float64
	// Recent is the time constant of the moving mean a sudden change departs from.
	Recent float64
	// RhythmSeconds is the time constant of an hour's usual value, counted in
	// the seconds of that hour that were seen.
	RhythmSeconds float64
	// TrustSeconds is how long an hour of the day, and again an hour of the
	// week, must have been seen before its own mean weighs half.
	TrustSeconds float64
	// Rarity is the time constant in which the rarity of values is smoothed.
	Rarity float64
	// Texture is the time constant of the mean step from value to value.
	Texture float64
	// Drift is the time constant of the mean departure from the rhythm.
	Drift float64
	// Absorb is the time constant with which the range of a slow signal follows
	// its extremes, so that an excursion is measured whole and not step by step.
	Absorb float64
	// SlowWeight is what an excursion of a slow signal (drift, texture) counts,
	// in those of a value.
	SlowWeight float64
	// Hold is how long an alarm is not repeated unless it grows.
	Hold float64
	// Moment is the time constant of the usual size of a sudden change, and
	// MomentHold how long one is not repeated.
	Moment, MomentHold float64
}

// DefaultParameters are the shipped ones.
func DefaultParameters() Parameters {
	return Parameters{
		Warm:          150,
		Memory:        50_000,
		Recent:        20,
		RhythmSeconds: 4 * 3600,
		TrustSeconds:  2 * 3600,
		Rarity:        10,
		Texture:       50,
		Drift:         400,
		Absorb:        20,
		SlowWeight:    0.3,
		Hold:          100,
		Moment:        1000,
		MomentHold:    500,
	}
}

// Scorer scores series by one set of parameters. It is immutable, and shared by
// all of them.
type Scorer struct {
	p Parameters
	// The rates that the time constants amount to.
	relax, recent, texture, drift, absorb, fade, moment, momentFade float64
	rarity                                                          float32
}

// NewScorer returns the scorer of these parameters, which must all be above 0.
func NewScorer(p Parameters) *Scorer {
	return &Scorer{
		p: p, relax: 1 / p.Memory, recent: 1 / p.Recent, texture: 1 / p.Texture, drift: 1 / p.Drift, absorb: 1 / p.Absorb,
		fade: 1 - 1/p.Hold, moment: 1 / p.Moment, momentFade: 1 - 1/p.MomentHold, rarity: float32(1 / p.Rarity),
	}
}
