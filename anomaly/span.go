package anomaly

// span is the range of a signal's own past. It widens at once and narrows very
// slowly.
type span struct {
	Low, High float64
}

// novelty is how far x lies outside, in widths of the range.
func (s *span) novelty(x float64) float64 {
	d := 0.0
	switch {
	case x > s.High:
		d = x - s.High
	case x < s.Low:
		d = s.Low - x
	default:
		return 0
	}
	if w := s.High - s.Low; w > 0 {
		return d / w
	}
	return 1 // whatever had never moved, moved
}

// learn narrows the range by the relax share of its width and then takes in x.
func (s *span) learn(x, relax float64) {
	give := relax * (s.High - s.Low)
	s.Low = min(s.Low+give, x)
	s.High = max(s.High-give, x)
}

// slowSpan is the range of a signal that moves by small steps. Measured step by
// step, an excursion of any size would only ever be a little outside, because
// the range would have widened with it; so the range the signal is measured
// against follows its extremes with a delay.
type slowSpan struct {
	Low, High         float32 // measured against
	PendLow, PendHigh float32 // the extremes so far
	Gate              float32 // the novelty last told, fading
}

// observe is the novelty of x, told once and again only when it has doubled.
func (s *slowSpan) observe(x, relax, absorb, fade float64) float64 {
	x = float64(float32(x)) // or its own rounding would lie outside its range
	ref := span{float64(s.Low), float64(s.High)}
	nov := ref.novelty(x)
	pend := span{float64(s.PendLow), float64(s.PendHigh)}
	pend.learn(x, relax)
	s.PendLow, s.PendHigh = float32(pend.Low), float32(pend.High)
	s.Low += float32(absorb) * (s.PendLow - s.Low)
	s.High += float32(absorb) * (s.PendHigh - s.High)
	s.Gate = fading(s.Gate, float32(fade))
	if nov > 2*float64(s.Gate) {
		s.Gate = float32(nov)
		return nov
	}
	return 0
}

// begin starts the range at x.
func (s *slowSpan) begin(x float64) {
	*s = slowSpan{Low: float32(x), High: float32(x), PendLow: float32(x), PendHigh: float32(x)}
}

// fading is x times rate, and nothing at all once it is next to nothing:
// processors are slow with the smallest of numbers.
func fading[T float32 | float64](x, rate T) T {
	if x *= rate; x < 1e-12 {
		return 0
	}
	return x
}
